//! Busy polling: looking for events a little longer before going to sleep.
//!
//! To wake a sleeping thread takes the kernel tens of microseconds, most of all between the cores of a virtual machine, and a frame
//! wakes two packet threads each way. While events follow each other closely a thread therefore looks again for a moment, and lets whoever
//! else wants the core have it in between; once they come seldom it sleeps at once, so that an idle router costs nothing. Where they
//! come at a pace that looking always just misses, the thread looks ever more seldom.
//!
//! Where streams flow and nothing beside them, nobody waits for the first of what comes, and a thread that slept takes several at a time: it does
//! not look then. A frame that is small and no mere acknowledgement, from the bridge or for it, says that somebody may wait for an answer:
//! then it looks again, also beside a stream. Without that, ping-pong beside one took 850 to 910 µs at the median instead of 650 to 770. On a
//! 2-core Xeon whose kernel VXLAN did 8 to 12 Gbit/s, one TCP stream (AES-256-GCM) took 36 and 54 polls per MB instead of 1,000 and 1,070. Nothing
//! else is shown: in seven pairs of runs in turn the routers' CPU time per byte changed by -15 to +13 % (five times it was less), and ping-pong
//! beside the stream took no longer.
//!
//! A look must outlast the peer's part of a round trip, or it costs its time and the wake-up too. With ping-pong over one TCP connection on two
//! cores of an AMD EPYC that play both hosts, looks of 30 µs gave a median of 105 µs (80 to 123 in four rounds) and a 99th percentile of 193 µs,
//! no better than none, and looks of 100 µs gave 82 µs (75 to 85) and 129 µs (kernel VXLAN: 48 and 86). More than 100 µs gave no more. What
//! throughput and CPU time per byte lose or gain was within the noise. What is left is no waiting: in a trace of such a round trip both
//! threads find their events within 2 µs, and each way takes 12 µs of the sender's `send`, 4 µs of a change of threads, 3 µs to read the
//! TAP, 9 µs to send UDP, 5 µs to receive and open, 16 µs to write the TAP (the bridge, netfilter's hooks on it and TCP's receiver run inside
//! that call), 4 µs of another change of threads.

use std::time::Duration;

use crate::time::Time;

/// `--busy-poll auto`.
pub const AUTO: Duration = Duration::from_micros(100);
/// The longest that may be asked for: beyond that a core is spent for nothing.
pub const MOST: Duration = Duration::from_millis(1);

/// Events that come this many times the limit apart still are dense: a sleeping thread is late by its wake-up and that of the peer's.
const DENSE: u32 = 2;
/// After looks in vain, one after the other, so many waits (a power of two) go by at most without one.
const MOST_SHY: u32 = 5;

/// So many bytes between two waits are a stream's, and it is taken to flow for so long from then on.
const BULK: usize = 32 * 1024;
const BULK_FOR: Duration = Duration::from_millis(2);
/// So long after a small frame somebody may wait for another.
const SMALL_FOR: Duration = Duration::from_millis(20);

/// Decides how long a thread looks before it sleeps.
#[derive(Clone, Copy, Debug)]
pub struct BusyPoll {
    limit: Duration,
    /// How long the last event was waited for; `None` before the first.
    waited: Option<Duration>,
    /// Looks in vain one after the other.
    vain: u32,
    /// Waits that go by without a look.
    skip: u32,
    /// When a stream was last seen.
    bulk_at: Option<Time>,
}

impl BusyPoll {
    /// Looks for at most `limit` at a time, zero for never.
    pub fn new(limit: Duration) -> BusyPoll {
        BusyPoll { limit, waited: None, vain: 0, skip: 0, bulk_at: None }
    }

    /// How long to look before going to sleep `now`, having moved so many bytes since the last time; `small_at` says when a frame last came that
    /// somebody may wait for the answer to.
    pub fn budget(&mut self, now: Time, moved: usize, small_at: Option<Time>) -> Duration {
        if moved >= BULK {
            self.bulk_at = Some(now);
        }
        let within = |at: Option<Time>, span: Duration| at.is_some_and(|at| now.since(at) < span);
        if within(self.bulk_at, BULK_FOR) && !within(small_at, SMALL_FOR) {
            return Duration::ZERO;
        }
        let dense = self.waited.is_some_and(|waited| waited <= self.limit * DENSE);
        if dense && self.skip == 0 { self.limit } else { Duration::ZERO }
    }

    /// An event came after this long, while the thread looked.
    pub fn found(&mut self, waited: Duration) {
        (self.waited, self.vain) = (Some(waited), 0);
    }

    /// An event came after this long, of which the thread slept the end; `looked` where it had looked before.
    pub fn slept(&mut self, waited: Duration, looked: bool) {
        self.waited = Some(waited);
        if looked {
            self.vain = (self.vain + 1).min(MOST_SHY);
            self.skip = (1 << self.vain) - 1;
        } else {
            self.skip = self.skip.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: fn(u64) -> Duration = Duration::from_micros;

    /// How long to look where no stream flows.
    fn alone(busy: &mut BusyPoll) -> Duration {
        busy.budget(Time::ZERO, 0, None)
    }

    #[test]
    fn only_dense_events_are_looked_for() {
        let mut busy = BusyPoll::new(US(30));
        assert_eq!(alone(&mut busy), Duration::ZERO);
        for (waited, budget) in [(US(60), US(30)), (US(61), US(0)), (US(2), US(30)), (Duration::from_secs(1), US(0))] {
            busy.slept(waited, false);
            assert_eq!(alone(&mut busy), budget, "after {waited:?}");
        }
        let mut off = BusyPoll::new(Duration::ZERO);
        for waited in [US(1), Duration::ZERO] {
            off.slept(waited, false);
            assert_eq!(alone(&mut off), Duration::ZERO);
        }
    }

    #[test]
    fn beside_a_stream_there_is_a_look_only_for_somebody_who_waits() {
        let mut busy = BusyPoll::new(US(30));
        busy.slept(US(2), false);
        let at = |micros: u64| Time::ZERO + US(micros);
        assert_eq!(busy.budget(at(0), BULK - 1, None), US(30), "few bytes are no stream");
        assert_eq!(busy.budget(at(10), BULK, None), Duration::ZERO, "a stream");
        assert_eq!(busy.budget(at(1900), 100, None), Duration::ZERO, "it flows on");
        assert_eq!(busy.budget(at(1950), 100, Some(at(1900))), US(30), "a small frame beside it");
        assert_eq!(busy.budget(at(15_000), BULK, Some(at(1900))), US(30), "another may come");
        assert_eq!(busy.budget(at(25_000), BULK, Some(at(1900))), Duration::ZERO, "none came");
        assert_eq!(busy.budget(at(28_000), 0, Some(at(1900))), US(30), "the stream has ended");
    }

    #[test]
    fn events_that_come_just_after_every_look_are_soon_slept_for() {
        let mut busy = BusyPoll::new(US(100));
        busy.slept(US(150), false);
        let looks = (0..1000).filter(|_| {
            let looked = alone(&mut busy) > Duration::ZERO;
            busy.slept(US(150), looked);
            looked
        });
        assert!((30..40).contains(&looks.count()), "one in thirty-two, after the first few");
        // One that hits makes it look each time again.
        while alone(&mut busy) == Duration::ZERO {
            busy.slept(US(150), false);
        }
        busy.found(US(40));
        assert_eq!(alone(&mut busy), US(100));
        busy.slept(US(150), true);
        busy.slept(US(150), false);
        assert_eq!(alone(&mut busy), US(100));
    }
}
