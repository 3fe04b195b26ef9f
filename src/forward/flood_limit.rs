//! A bound on what stations flood (`--flood-limit`): a loop inside a container, or a station gone mad, costs the whole mesh else.
//!
//! The TAP does not say from which port of the bridge a frame comes, so the bound is one per source MAC, and each packet thread's own. MACs
//! that share a place share the bound. It is far above what an ordinary network floods.
//!
//! A station that makes up its source MACs would have all places, so there are two bounds more. MACs that the table of MACs did not have before the
//! very frame, as made-up ones, have together what one station has: nothing of that is taken from stations that were heard before. And all stations
//! together have a few times that. What is beyond passes only as far as it is a station's trickle: one that made itself known by a thousand MACs
//! takes the rest of the bridge its bursts, but hardly its address resolution.

use std::hash::BuildHasher;
use std::time::Duration;

use crate::time::Time;

use super::fib::NameHash;
use super::limit::TokenBucket;

/// Frames per second unless told otherwise: half a gigabit of multicast video.
pub const DEFAULT_FLOOD_LIMIT: u64 = 50_000;
/// What all stations together may, as a multiple of what one may: several that are busy at once have what is theirs, and it is no more than a mesh
/// takes from a few stations gone mad.
const ALL: u64 = 4;
/// Places.
const PLACES: usize = 256;
/// The trickle of a place, as a share of what a station may: as much as one more station if all places use it.
const TRICKLE: u64 = PLACES as u64;
/// The mesh plane is told of each bound at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What became of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It is within the bounds.
    Passes,
    /// It is beyond what its station may. `news` says that somebody should hear of it.
    TooMuch {
        /// Nobody was told for a while.
        news: bool,
    },
    /// It is beyond what all stations may together, or all those that were not heard before.
    TooMuchOfAll {
        /// Nobody was told for a while.
        news: bool,
    },
}

/// The bounds of one packet thread.
pub struct FloodLimit {
    /// Empty where there are none.
    places: Box<[Place]>,
    strangers: TokenBucket,
    all: TokenBucket,
    hash: NameHash,
    told: Option<Time>,
    told_of_all: Option<Time>,
}

/// What the stations of one place may.
#[derive(Clone, Copy)]
struct Place {
    most: TokenBucket,
    /// What they may although all together are beyond their bound.
    trickle: TokenBucket,
}

impl FloodLimit {
    /// So many frames per second and MAC, and at once; 0 is no bound. `hash` is random.
    pub fn new(per_second: u64, hash: NameHash) -> FloodLimit {
        let bucket = |rate: u64| TokenBucket::new(rate, rate);
        let place = Place { most: bucket(per_second), trickle: bucket((per_second / TRICKLE).max(1)) };
        let places = vec![place; if per_second == 0 { 0 } else { PLACES }].into();
        let (strangers, all) = (bucket(per_second), bucket(per_second.saturating_mul(ALL)));
        FloodLimit { places, strangers, all, hash, told: None, told_of_all: None }
    }

    /// A frame from this MAC is to be flooded; `known` says that the MAC was heard before it.
    pub fn take(&mut self, now: Time, mac: [u8; 6], known: bool) -> Passage {
        let at = self.hash.hash_one(mac) as usize % PLACES;
        let Some(place) = self.places.get_mut(at) else { return Passage::Passes };
        // Made-up MACs must not get as far as the places of others.
        if !known && !self.strangers.take(now, 1) {
            return Passage::TooMuchOfAll { news: is_news(now, &mut self.told_of_all) };
        }
        if !place.most.take(now, 1) {
            return Passage::TooMuch { news: is_news(now, &mut self.told) };
        }
        if self.all.take(now, 1) || known && place.trickle.take(now, 1) {
            return Passage::Passes;
        }
        Passage::TooMuchOfAll { news: is_news(now, &mut self.told_of_all) }
    }
}

/// True where nobody was told for a while; from now on somebody was.
fn is_news(now: Time, told: &mut Option<Time>) -> bool {
    let news = told.is_none_or(|told| now.since(told) >= TELL_EVERY);
    if news {
        *told = Some(now);
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: u64) -> [u8; 6] {
        let [.., a, b, c, d] = n.to_be_bytes();
        [2, 0, a, b, c, d]
    }

    fn second(n: u64) -> Time {
        Time(n * 1_000_000_000)
    }

    fn passed(limit: &mut FloodLimit, now: Time, macs: impl Iterator<Item = u64>, known: bool) -> usize {
        macs.filter(|n| limit.take(now, mac(*n), known) == Passage::Passes).count()
    }

    #[test]
    fn each_mac_has_its_own_bound_and_news_are_told_now_and_then() {
        let mut limit = FloodLimit::new(100, NameHash(7));
        let (mad, calm) = (mac(1), mac(2));
        let passed = (0..500).filter(|_| limit.take(second(1), mad, true) == Passage::Passes).count();
        assert_eq!((passed, limit.take(second(1), calm, true)), (100, Passage::Passes));
        assert_eq!(limit.take(second(1), mad, true), Passage::TooMuch { news: false });
        let again: Vec<Passage> = (0..102).map(|_| limit.take(second(11), mad, true)).collect();
        let [told, silent] = [true, false].map(|news| Passage::TooMuch { news });
        assert_eq!((again[99], again[100], again[101]), (Passage::Passes, told, silent));
        let mut none = FloodLimit::new(0, NameHash(7));
        assert!((0..1000).all(|n| none.take(second(1), mac(n), n % 2 == 0) == Passage::Passes));
    }

    #[test]
    fn made_up_macs_have_together_what_one_station_has_and_others_keep_theirs() {
        let mut limit = FloodLimit::new(1000, NameHash(7));
        for at in 1..4 {
            assert_eq!(passed(&mut limit, second(at), (0..100_000).map(|n| n + at * 1_000_000), false), 1000);
            // Of what went into the places of others some 4 in 1000 are in this one.
            let calm = passed(&mut limit, second(at), std::iter::repeat_n(1, 1000), true);
            assert!(calm > 950, "{calm}");
        }
        assert_eq!(limit.take(second(3), mac(9_000_000), false), Passage::TooMuchOfAll { news: false });
        assert_eq!(limit.take(second(11), mac(9_000_000), false), Passage::Passes);
    }

    #[test]
    fn all_stations_together_have_a_bound_and_beyond_it_each_its_trickle() {
        let mut limit = FloodLimit::new(5120, NameHash(7));
        // A hundred MACs that were all heard before, as fast as they can; their places have 20 frames each beyond the bound.
        let all = passed(&mut limit, second(1), (0..100_000).map(|n| n % 100), true);
        assert!((4 * 5120 + 20..=4 * 5120 + 2000).contains(&all), "{all}");
        assert_eq!(limit.take(second(1), mac(0), true), Passage::TooMuchOfAll { news: false });
        let calm =
            (1000..1100).map(|n| passed(&mut limit, second(1), std::iter::repeat_n(n, 20), true)).filter(|passed| *passed > 0).count();
        assert!(calm > 40, "{calm} stations of a hundred still pass: most places have no other");
        assert_eq!(passed(&mut limit, second(1), 5000..5100, false), 0, "nothing more of strangers");
    }

    #[test]
    fn a_small_bound_has_a_trickle_too() {
        let mut limit = FloodLimit::new(20, NameHash(7));
        passed(&mut limit, second(1), (0..1000).map(|n| n % 4), true);
        let calm = passed(&mut limit, second(1), 1000..1200, true);
        assert!(calm > 100, "{calm} of two hundred stations pass, one for most places");
    }
}
