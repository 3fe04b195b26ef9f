//! Ctrl-C and its relatives: they are noted, and every step of the demo looks at the note.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::host::lab::clock::Stopwatch;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(25);

/// Exit status of a demo that was told twice to end; its guard cleans up after it.
const TOLD_TWICE: i32 = 130;

/// Somebody asked the demo to end before it was through.
#[derive(Debug, thiserror::Error)]
#[error("the demo was interrupted before it was through; what it had made is removed")]
pub struct Interrupted;

/// Whether somebody asked the demo to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Notes SIGINT, SIGTERM and SIGHUP from here on, on a thread of its own. The second one ends the process at once.
    pub fn on_signals() -> anyhow::Result<Stop> {
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start an event loop")?;
        let listen = |kind| listen(&runtime, kind);
        let (mut interrupt, mut terminate, mut hangup) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
        let stop = Stop::default();
        let noted = stop.clone();
        let wait = async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                if noted.note() {
                    std::process::exit(TOLD_TWICE);
                }
            }
        };
        std::thread::Builder::new()
            .name("demo-signals".into())
            .spawn(move || runtime.block_on(wait))
            .context("cannot start a thread that listens for signals")?;
        Ok(stop)
    }

    /// Notes that the demo is to end; answers whether that was known.
    fn note(&self) -> bool {
        let (wanted, changed) = &*self.0;
        let known = std::mem::replace(&mut *wanted.lock().unwrap_or_else(PoisonError::into_inner), true);
        changed.notify_all();
        known
    }

    /// Waits for a while, or until the demo is to end; answers whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        let (wanted, changed) = &*self.0;
        let guard = wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(guard, time, |wanted| !*wanted);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Fails where the demo is to end.
    pub fn check(&self) -> Result<(), Interrupted> {
        self.pause(Duration::ZERO)
    }

    /// Waits for a while; fails where the demo is to end.
    pub fn pause(&self, time: Duration) -> Result<(), Interrupted> {
        if self.wait(time) { Err(Interrupted) } else { Ok(()) }
    }

    /// Asks until the answer is yes or the time is over, and tells which; fails where asking fails or the demo is to end.
    pub fn until(&self, patience: Duration, mut asked: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<bool> {
        let clock = Stopwatch::start();
        loop {
            self.check()?;
            if asked()? {
                return Ok(true);
            }
            if clock.elapsed() > patience {
                return Ok(false);
            }
            self.pause(LOOK)?;
        }
    }
}

fn listen(runtime: &Runtime, kind: SignalKind) -> anyhow::Result<Signal> {
    let _inside = runtime.enter();
    signal(kind).context("cannot listen for signals")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noted_stop_ends_every_wait() {
        let stop = Stop::default();
        assert!(stop.check().is_ok());
        assert!(stop.until(Duration::ZERO, || Ok(true)).expect("nobody asked to stop"));
        assert!(!stop.until(Duration::ZERO, || Ok(false)).expect("nobody asked to stop"));
        assert!(!stop.note(), "the first note is news");
        assert!(stop.note(), "the second is not");
        assert!(stop.wait(Duration::from_secs(60)), "does not wait");
        let ended = stop.until(Duration::from_secs(60), || Ok(false)).expect_err("is interrupted");
        assert!(ended.is::<Interrupted>());
    }
}
