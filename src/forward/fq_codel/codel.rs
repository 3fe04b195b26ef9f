//! CoDel, the controller of one queue's delay (RFC 8289, section 5).

use std::time::Duration;

use crate::time::Time;

/// The delay a standing queue may have (RFC 8289, section 4.3).
pub const TARGET: Duration = Duration::from_millis(5);
/// How long a queue may stand before its sender is told: the longest round trip to be expected (RFC 8289, section 4.2).
pub const INTERVAL: Duration = Duration::from_millis(100);

/// What is to be done with a packet that leaves the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Send,
    /// Tell its sender: by a mark, or by dropping it.
    Signal,
}

/// The controller's state.
#[derive(Clone, Debug, Default)]
pub struct Codel {
    /// When the delay will have been above the target for an interval; `None` while it is below.
    first_above: Option<Time>,
    /// When the next signal is due, while signalling.
    next: Time,
    /// Signals of this episode, and of the one before when it ended.
    count: u32,
    last_count: u32,
    signalling: bool,
}

impl Codel {
    /// Decides about a packet that has waited for `waited`; `more` says whether others wait behind it.
    pub fn verdict(&mut self, now: Time, waited: Duration, more: bool) -> Verdict {
        let due = self.is_standing(now, waited, more);
        match (self.signalling, due) {
            (true, false) => {
                self.signalling = false;
                Verdict::Send
            }
            (true, true) if now >= self.next => {
                self.count = self.count.saturating_add(1);
                self.next = control_law(self.next, self.count);
                Verdict::Signal
            }
            (false, true) => {
                self.signalling = true;
                // Soon after the last episode it goes on from the rate that was right then.
                let delta = self.count.saturating_sub(self.last_count);
                self.count = if delta > 1 && now.since(self.next) < 16 * INTERVAL { delta } else { 1 };
                self.last_count = self.count;
                self.next = control_law(now, self.count);
                Verdict::Signal
            }
            (true, true) | (false, false) => Verdict::Send,
        }
    }

    /// True where the delay has been above the target for an interval.
    fn is_standing(&mut self, now: Time, waited: Duration, more: bool) -> bool {
        if waited < TARGET || !more {
            self.first_above = None;
            return false;
        }
        match self.first_above {
            None => {
                self.first_above = Some(now + INTERVAL);
                false
            }
            Some(at) => now >= at,
        }
    }
}

/// The time of the next signal: their rate grows with the square root of their number, to which TCP's rate answers linearly.
fn control_law(from: Time, count: u32) -> Time {
    from + INTERVAL.div_f64(f64::from(count.max(1)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Milliseconds at which signals come while each packet waits for `waited`, one packet a millisecond.
    fn signals(codel: &mut Codel, from: u64, to: u64, waited: Duration) -> Vec<u64> {
        let at = |ms: u64| Time(ms * 1_000_000);
        (from..to).filter(|ms| codel.verdict(at(*ms), waited, true) == Verdict::Signal).collect()
    }

    #[test]
    fn a_short_queue_is_left_alone() {
        let mut codel = Codel::default();
        assert_eq!(signals(&mut codel, 0, 5_000, 4 * MS), [0; 0]);
    }

    #[test]
    fn a_standing_queue_is_signalled_ever_faster() {
        let mut codel = Codel::default();
        let times = signals(&mut codel, 1_000, 1_500, 10 * MS);
        // One interval after it began, then by 100 ms / sqrt(count).
        assert_eq!(times, [1_100, 1_200, 1_271, 1_329, 1_379, 1_424, 1_464]);
    }

    #[test]
    fn a_burst_is_no_standing_queue() {
        let mut codel = Codel::default();
        for round in 0..20 {
            assert_eq!(signals(&mut codel, round * 100, round * 100 + 99, 50 * MS), [0; 0], "round {round}");
            assert_eq!(signals(&mut codel, round * 100 + 99, round * 100 + 100, Duration::ZERO), [0; 0]);
        }
    }

    #[test]
    fn the_rate_is_remembered_for_a_while() {
        let mut codel = Codel::default();
        let first = signals(&mut codel, 0, 1_000, 10 * MS).len();
        assert!(first > 10, "{first}");
        assert_eq!(signals(&mut codel, 1_000, 1_050, Duration::ZERO), [0; 0]);
        let again = signals(&mut codel, 1_050, 1_350, 10 * MS);
        assert_eq!(again.first(), Some(&1_150));
        assert!(again.len() > 4, "it does not begin with one in 100 ms: {again:?}");
        let mut late = Codel::default();
        signals(&mut late, 0, 1_000, 10 * MS);
        signals(&mut late, 1_000, 1_001, Duration::ZERO);
        assert_eq!(signals(&mut late, 10_000, 10_250, 10 * MS), [10_100, 10_200], "but not for long");
    }

    #[test]
    fn the_last_packet_of_a_queue_is_never_dropped() {
        let mut codel = Codel::default();
        signals(&mut codel, 0, 500, 10 * MS);
        assert_eq!(codel.verdict(Time(900_000_000), 10 * MS, false), Verdict::Send);
    }
}
