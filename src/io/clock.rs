//! The clock: the only place in the crate that reads one.

use std::time::Instant;

use crate::time::Time;

/// Monotonic time since the clock was started. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that reads [`Time::ZERO`] now. A process starts one and hands out copies.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The time.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
    pub fn now(&self) -> Time {
        Time::ZERO + Instant::now().saturating_duration_since(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_and_copies_agree() {
        let clock = Clock::start();
        let first = clock.now();
        let copy = clock;
        while clock.now() == first {}
        assert!(copy.now() > first);
    }
}
