//! What one packet thread has done, and how long it slept: by these numbers is seen whether the threads share the work.

use std::time::Duration;

use crate::counters::Counter;

/// The sums. A frame is what the TAP hands over in one piece, so that a super frame counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Frames read from the TAP.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames written to the TAP.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Bytes of UDP payload sent, those of others that were relayed included.
    pub udp_tx_bytes: u64,
    /// Bytes of UDP payload received, likewise.
    pub udp_rx_bytes: u64,
    /// How often the thread went to sleep.
    pub sleeps: u64,
    /// Nanoseconds that it slept.
    pub asleep_ns: u64,
}

impl Load {
    /// The time it slept.
    pub fn asleep(&self) -> Duration {
        Duration::from_nanos(self.asleep_ns)
    }
}

/// The sums as other threads read them. Only one thread adds, and only once per turn, so it shares no cache line that matters.
#[derive(Debug, Default)]
pub struct ThreadLoad {
    sums: crossbeam::utils::CachePadded<[Counter; 8]>,
}

impl ThreadLoad {
    /// Adds what has been counted since, and sets that back to zero.
    pub fn publish(&self, since: &mut Load) {
        let Load { tx_frames, tx_bytes, rx_frames, rx_bytes, udp_tx_bytes, udp_rx_bytes, sleeps, asleep_ns } = std::mem::take(since);
        let new = [tx_frames, tx_bytes, rx_frames, rx_bytes, udp_tx_bytes, udp_rx_bytes, sleeps, asleep_ns];
        for (sum, n) in self.sums.iter().zip(new).filter(|(_, n)| *n > 0) {
            sum.add(n);
        }
    }

    /// The sums so far.
    pub fn get(&self) -> Load {
        let [tx_frames, tx_bytes, rx_frames, rx_bytes, udp_tx_bytes, udp_rx_bytes, sleeps, asleep_ns] =
            self.sums.each_ref().map(Counter::get);
        Load { tx_frames, tx_bytes, rx_frames, rx_bytes, udp_tx_bytes, udp_rx_bytes, sleeps, asleep_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_counted_once() {
        let (sums, some) = (ThreadLoad::default(), Load { tx_frames: 2, asleep_ns: 5_000, ..Load::default() });
        let mut since = some;
        sums.publish(&mut since);
        sums.publish(&mut since);
        assert_eq!((sums.get(), since), (some, Load::default()));
        assert_eq!(sums.get().asleep(), Duration::from_micros(5));
    }
}
