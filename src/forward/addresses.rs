//! Who has which address: what the mesh plane has concluded from the signed records of all routers, for packet threads that answer
//! for others' containers.
//!
//! The mesh plane alone writes. Readers take no lock: the table is cut into shards, each an immutable map that is replaced whole.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::bindings::Place;

use super::fib::NameHash;

/// Parts of the table: a change copies one of them.
const SHARDS: usize = 256;

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// A station on our own bridge has it, last seen with this MAC then.
    Here([u8; 6], Time),
    /// A station of this MAC has it, as this peer says, and nobody says otherwise.
    There([u8; 6], PeerName),
    /// Several have it, or somebody else had it a moment ago.
    Disputed,
}

type Shard = HashMap<Place, Known, NameHash>;

/// The table.
pub struct Addresses {
    shards: Box<[ArcSwap<Shard>]>,
    hash: NameHash,
    /// Until then nothing is certain.
    doubtful_until: AtomicU64,
}

impl Addresses {
    /// An empty table; `key` is the random key of its hash.
    pub fn new(key: u64) -> Addresses {
        let hash = NameHash(key);
        let empty = Arc::new(Shard::with_hasher(hash));
        let shards = (0..SHARDS).map(|_| ArcSwap::new(Arc::clone(&empty))).collect();
        Addresses { shards, hash, doubtful_until: AtomicU64::new(0) }
    }

    /// What is known of an address.
    pub fn get(&self, place: &Place, now: Time) -> Option<Known> {
        let known = self.shard(place)?.load().get(place).copied()?;
        let doubtful = now.0 < self.doubtful_until.load(Ordering::Relaxed);
        Some(if doubtful && matches!(known, Known::There(..)) { Known::Disputed } else { known })
    }

    /// Replaces what is known of an address. One thread alone may call this.
    pub fn set(&self, place: Place, known: Option<Known>) {
        let Some(shard) = self.shard(&place) else { return };
        let old = shard.load();
        if old.get(&place).copied() == known {
            return;
        }
        let mut new = Shard::clone(&old);
        match known {
            Some(known) => new.insert(place, known),
            None => new.remove(&place),
        };
        shard.store(Arc::new(new));
    }

    /// More was contradicted than can be remembered: until then nothing is answered.
    pub fn doubt_all(&self, until: Time) {
        self.doubtful_until.store(until.0, Ordering::Relaxed);
    }

    fn shard(&self, place: &Place) -> Option<&ArcSwap<Shard>> {
        self.shards.get(self.hash.hash_one(place) as usize % SHARDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_got_until_it_is_withdrawn_or_all_is_in_doubt() {
        let (table, now) = (Addresses::new(7), Time(5));
        let place = |n: u8| (u16::from(n % 3), std::net::IpAddr::from([10, 32, 0, n]));
        let known = |n: u8| Known::There([2, 0, 0, 0, 0, n], PeerName([2; 6]));
        (0..200).for_each(|n| table.set(place(n), Some(known(n))));
        assert!((0..200).all(|n| table.get(&place(n), now) == Some(known(n))));
        assert_eq!(table.get(&(7, place(1).1), now), None, "another VLAN");
        table.set(place(1), None);
        table.set(place(2), Some(Known::Here([4; 6], now)));
        assert_eq!((table.get(&place(1), now), table.get(&place(2), now)), (None, Some(Known::Here([4; 6], now))));
        table.doubt_all(Time(9));
        assert_eq!((table.get(&place(3), Time(8)), table.get(&place(3), Time(9))), (Some(Known::Disputed), Some(known(3))));
        assert_eq!((table.get(&place(1), Time(8)), table.get(&place(2), Time(8))), (None, Some(Known::Here([4; 6], now))));
    }
}
