//! A stopwatch and a pause, for experiments on real hosts. The router itself is told the time.

use std::time::{Duration, Instant};

/// Measures from its start.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    #[expect(clippy::disallowed_methods, reason = "an experiment measures real time")]
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Blocks this thread for a while.
#[expect(clippy::disallowed_methods, reason = "an experiment waits on a thread of its own, never in the router")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Asks again and again until the answer is yes, or the time is over; tells which.
pub fn wait_until(patience: Duration, mut asked: impl FnMut() -> bool) -> bool {
    let clock = Stopwatch::start();
    loop {
        if asked() {
            return true;
        }
        if clock.elapsed() > patience {
            return false;
        }
        pause(Duration::from_millis(20));
    }
}
