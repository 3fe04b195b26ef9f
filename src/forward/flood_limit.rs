//! A bound on what one station floods (`--flood-limit`): a loop inside a container, or a station gone mad, costs the whole mesh else.
//!
//! The TAP does not say from which port of the bridge a frame comes, so the bound is one per source MAC, and each packet thread's own. MACs
//! that share a place share the bound. It is far above what an ordinary network floods.

use std::hash::BuildHasher;
use std::time::Duration;

use crate::time::Time;

use super::fib::NameHash;
use super::limit::TokenBucket;

/// Frames per second unless told otherwise: half a gigabit of multicast video.
pub const DEFAULT_FLOOD_LIMIT: u64 = 50_000;
/// Places.
const PLACES: usize = 256;
/// The mesh plane is told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What became of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It is within the bound.
    Passes,
    /// It is not, and somebody should hear of it.
    News,
    /// It is not.
    Dropped,
}

/// The bounds of one packet thread.
pub struct FloodLimit {
    /// Empty where there is none.
    places: Box<[TokenBucket]>,
    hash: NameHash,
    told: Option<Time>,
}

impl FloodLimit {
    /// So many frames per second and MAC, and at once; 0 is no bound. `hash` is random.
    pub fn new(per_second: u64, hash: NameHash) -> FloodLimit {
        let places = if per_second == 0 { 0 } else { PLACES };
        FloodLimit { places: vec![TokenBucket::new(per_second, per_second); places].into(), hash, told: None }
    }

    /// A frame from this MAC is to be flooded.
    pub fn take(&mut self, now: Time, mac: [u8; 6]) -> Passage {
        let at = self.hash.hash_one(mac) as usize % PLACES;
        if self.places.get_mut(at).is_none_or(|place| place.take(now, 1)) {
            return Passage::Passes;
        }
        if self.told.is_some_and(|told| now.since(told) < TELL_EVERY) {
            return Passage::Dropped;
        }
        self.told = Some(now);
        Passage::News
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mac_has_its_own_bound_and_news_are_told_now_and_then() {
        let mut limit = FloodLimit::new(100, NameHash(7));
        let (mad, calm) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let second = |n: u64| Time(n * 1_000_000_000);
        let passed = (0..500).filter(|_| limit.take(second(1), mad) == Passage::Passes).count();
        assert_eq!((passed, limit.take(second(1), calm)), (100, Passage::Passes));
        assert_eq!(limit.take(second(1), mad), Passage::Dropped);
        let again: Vec<Passage> = (0..102).map(|_| limit.take(second(11), mad)).collect();
        assert_eq!((again[99], again[100], again[101]), (Passage::Passes, Passage::News, Passage::Dropped));
        let mut none = FloodLimit::new(0, NameHash(7));
        assert!((0..1000).all(|_| none.take(second(1), mad) == Passage::Passes));
    }
}
