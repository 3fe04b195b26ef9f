//! Who has which MAC: one fixed-size table of atomics that every packet thread and the mesh plane share.
//!
//! A bucket of eight entries is guarded by a sequence number: readers that saw it change read again, writers take it by
//! making it odd. In steady state nobody writes: an entry's time is refreshed once a second.
//!
//! Sources in order of trust: seen on our own bridge, announced by the owner, data sealed end to end by whoever says it has it, flooded.
//! A container that invents MACs must not push out those of others: what is new on our bridge is learned at a bounded rate and
//! fills no more than part of a bucket, and data throws out nothing that is announced.

mod bucket;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Time;
use crate::wire::PeerName;

use super::fib::NameHash;
use bucket::{Bucket, Slot};

/// Entries of a table of ordinary size.
pub const DEFAULT_ENTRIES: usize = 65_536;
/// An entry that nobody used for so long is forgotten.
pub const AGEING: Duration = Duration::from_secs(600);
/// Local entries of a bucket: the other quarter is left to MACs of other hosts.
const MOST_LOCAL: usize = 6;
/// New local MACs are learned at this pace: a host that starts a hundred containers a second is busy with other things.
const NEW_LOCAL_EVERY: Duration = Duration::from_millis(5);
/// And this many at once: a bridge that was full before we came.
const NEW_LOCAL_BURST: u32 = 4096;
/// Times are refreshed when older than this.
const REFRESH: Duration = Duration::from_secs(1);
/// More moves than this within a second are a loop or a duplicate MAC: the entry is held.
const MAX_MOVES: u8 = 8;

crate::counters! {
    /// What happened in the MAC table.
    pub struct MacCounters {
        /// MACs learned for the first time.
        macs_learned,
        /// MACs that moved from this host to another.
        mac_moves_local_to_remote,
        /// MACs that moved from another host to this one.
        mac_moves_remote_to_local,
        /// MACs that moved between two other hosts.
        mac_moves_remote,
        /// Moves refused because the MAC moved too often within a second.
        mac_moves_held,
        /// Sightings ignored because a better source says otherwise.
        mac_sightings_refused,
        /// Sightings ignored because the MAC is on several hosts and frozen at another.
        mac_sightings_frozen,
        /// Entries thrown out of a full bucket.
        macs_evicted,
        /// MACs not learned because their bucket was full of better entries.
        macs_not_learned,
        /// Sightings of local MACs passed over because too many new ones were seen at once.
        macs_over_rate,
    }
}

/// How a MAC's place became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Source address of a flooded frame: fills gaps only.
    Flood = 1,
    /// Announced by gossip.
    Announced = 2,
    /// Source address of a frame sealed end to end.
    Data = 3,
    /// Seen on this host's bridge.
    Local = 4,
    /// Several hosts have it: it stays where the mesh plane has frozen it.
    Frozen = 5,
}

/// Where a MAC is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// On this host's bridge.
    Local,
    /// On a peer's.
    Peer(PeerName),
}

/// What a sighting did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It was known.
    Known,
    /// It is new.
    New,
    /// It was elsewhere before.
    Moved(Owner),
    /// It contradicts something better and was ignored, or there was no room.
    Ignored,
    /// It moves too often and stays where it is for now.
    Held,
    /// Several hosts have it, and it is frozen on this one.
    FrozenHere,
    /// Likewise, on another.
    FrozenThere,
}

/// One entry, for status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacEntry {
    /// VLAN id, 0 for untagged.
    pub vlan: u16,
    /// The MAC.
    pub mac: [u8; 6],
    /// Where it is.
    pub owner: Owner,
    /// Time since it was last seen, to a second.
    pub age: Duration,
    /// How that is known.
    pub source: Source,
}

/// The table.
pub struct MacTable {
    buckets: Box<[Bucket]>,
    hash: NameHash,
    /// When the allowance for new local MACs is whole again, in nanoseconds.
    new_local_at: AtomicU64,
    /// What happened.
    pub counters: MacCounters,
}

impl MacTable {
    /// A table of about `entries` entries; `key` is the random key of its hash.
    pub fn new(entries: usize, key: u64) -> MacTable {
        let buckets = entries.div_ceil(bucket::WAYS).next_power_of_two();
        let buckets = (0..buckets).map(|_| Bucket::default()).collect();
        MacTable { buckets, hash: NameHash(key), new_local_at: AtomicU64::new(0), counters: MacCounters::default() }
    }

    /// The MAC was the source of a frame on our bridge.
    pub fn learn_local(&self, vlan: u16, mac: [u8; 6], now: Time) -> Learned {
        self.learn(vlan, mac, Owner::Local, Source::Local, now)
    }

    /// The kernel has the MAC on our bridge now. Its frames may pass by us; where it is known to be elsewhere, announcements decide.
    pub fn keep_local(&self, vlan: u16, mac: [u8; 6], now: Time) {
        if !matches!(self.lookup(vlan, mac, now), Some(Owner::Peer(_))) {
            self.learn_local(vlan, mac, now);
        }
    }

    /// The MAC was the source of a frame from `peer`. `source` is [`Source::Data`] or [`Source::Flood`].
    pub fn learn_remote(&self, vlan: u16, mac: [u8; 6], peer: PeerName, source: Source, now: Time) -> Learned {
        self.learn(vlan, mac, Owner::Peer(peer), source, now)
    }

    /// Where a MAC is, if that is known and not stale.
    pub fn lookup(&self, vlan: u16, mac: [u8; 6], now: Time) -> Option<Owner> {
        let key = pack_key(vlan, mac);
        self.bucket(key).find(key).filter(|slot| slot.is_live(now)).map(|slot| slot.owner)
    }

    /// The mesh plane has decided, from the owners' signed records, where a MAC is; `None` withdraws it.
    ///
    /// Always obeyed, except that a withdrawal leaves what is on our own bridge.
    pub fn announce(&self, vlan: u16, mac: [u8; 6], peer: Option<PeerName>, now: Time) {
        let key = pack_key(vlan, mac);
        let Some(mut bucket) = self.bucket(key).lock_patiently() else { return };
        let known = bucket.find(key);
        match (peer, known) {
            (None, Some((way, slot))) => {
                if slot.owner != Owner::Local {
                    bucket.clear(way);
                } else if slot.source == Source::Frozen {
                    bucket.put(way, Slot { source: Source::Local, ..slot });
                }
            }
            (None, None) => {}
            (Some(peer), Some((way, slot))) => {
                if slot.is_live(now) {
                    self.count_move(slot.owner, Owner::Peer(peer));
                }
                bucket.put(way, Slot { owner: Owner::Peer(peer), source: Source::Announced, seen: now, ..slot });
            }
            (Some(peer), None) => {
                self.insert(&mut bucket, Slot::new(key, Owner::Peer(peer), Source::Announced, now), now);
            }
        }
    }

    /// Several hosts have the MAC, and it stays with this one of them until it is announced again.
    pub fn freeze(&self, vlan: u16, mac: [u8; 6], owner: Owner, now: Time) {
        let key = pack_key(vlan, mac);
        let Some(mut bucket) = self.bucket(key).lock_patiently() else { return };
        let new = Slot::new(key, owner, Source::Frozen, now);
        match bucket.find(key) {
            Some((way, _)) => bucket.put(way, new),
            None => drop(self.insert(&mut bucket, new, now)),
        }
    }

    /// What the mesh plane of the router `own` says of a MAC: where it is, and whether it is frozen there.
    pub fn decide(&self, own: PeerName, (vlan, mac): (u16, [u8; 6]), owner: Option<PeerName>, frozen: bool, now: Time) {
        match owner {
            Some(owner) if frozen => self.freeze(vlan, mac, if owner == own { Owner::Local } else { Owner::Peer(owner) }, now),
            // What is ours is learned from its own frames.
            _ => self.announce(vlan, mac, owner.filter(|owner| *owner != own), now),
        }
    }

    /// Forgets every MAC of a peer.
    pub fn forget_peer(&self, peer: PeerName) {
        self.clear_where(|slot| slot.owner == Owner::Peer(peer), |_| {});
    }

    /// Forgets stale entries and tells which they were: those that were local should be withdrawn from the mesh.
    pub fn expire(&self, now: Time) -> Vec<MacEntry> {
        let mut gone = Vec::new();
        self.clear_where(|slot| !slot.is_live(now), |slot| gone.push(slot.entry(now)));
        gone
    }

    /// Every live entry.
    pub fn snapshot(&self, now: Time) -> Vec<MacEntry> {
        let live = self.buckets.iter().filter(|bucket| !bucket.is_empty()).flat_map(Bucket::slots).filter(|slot| slot.is_live(now));
        live.map(|slot| slot.entry(now)).collect()
    }

    fn clear_where(&self, stale: impl Fn(&Slot) -> bool, mut tell: impl FnMut(&Slot)) {
        for bucket in &self.buckets {
            if bucket.is_empty() || !bucket.slots().any(|slot| stale(&slot)) {
                continue;
            }
            let Some(mut bucket) = bucket.lock_patiently() else { continue };
            for way in 0..bucket::WAYS {
                if let Some(slot) = bucket.get(way).filter(&stale) {
                    bucket.clear(way);
                    tell(&slot);
                }
            }
        }
    }

    fn bucket(&self, key: u64) -> &Bucket {
        let hash = self.hash.hash_one(key) as usize;
        &self.buckets[hash & (self.buckets.len() - 1)]
    }

    /// The reading half: a MAC that is where it was costs no write.
    fn learn(&self, vlan: u16, mac: [u8; 6], owner: Owner, source: Source, now: Time) -> Learned {
        let key = pack_key(vlan, mac);
        let bucket = self.bucket(key);
        if let Some(slot) = bucket.find(key)
            && slot.owner == owner
            && covers(slot.source, source)
            && now.since(slot.seen) < REFRESH
        {
            return Learned::Known;
        }
        // Another thread writes to the bucket right now: the MAC's next frame will do.
        let Some(mut bucket) = bucket.try_lock() else { return Learned::Known };
        let new = Slot::new(key, owner, source, now);
        let Some((way, old)) = bucket.find(key) else {
            if source == Source::Local && !self.may_learn_local(now) {
                self.counters.macs_over_rate.inc();
                return Learned::Ignored;
            }
            return self.insert(&mut bucket, new, now);
        };
        if old.owner == owner {
            let was_live = old.is_live(now);
            let kept = if covers(old.source, source) { old.source } else { source };
            bucket.put(way, Slot { source: kept, seen: now, ..old });
            return if was_live { Learned::Known } else { Learned::New };
        }
        if !old.is_live(now) {
            bucket.put(way, new);
            return Learned::New;
        }
        if old.source == Source::Frozen {
            self.counters.mac_sightings_frozen.inc();
            return if old.owner == Owner::Local { Learned::FrozenHere } else { Learned::FrozenThere };
        }
        if !yields(old.source, source) {
            self.counters.mac_sightings_refused.inc();
            return Learned::Ignored;
        }
        let Some(moved) = old.moved(owner, source, now, MAX_MOVES) else {
            self.counters.mac_moves_held.inc();
            return Learned::Held;
        };
        bucket.put(way, moved);
        self.count_move(old.owner, owner);
        Learned::Moved(old.owner)
    }

    /// Takes one new local MAC off the allowance, where there is something left of it.
    fn may_learn_local(&self, now: Time) -> bool {
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let take = |at: u64| {
            let next = at.max(now.0) + nanoseconds(NEW_LOCAL_EVERY);
            (next - now.0 <= nanoseconds(NEW_LOCAL_EVERY * NEW_LOCAL_BURST)).then_some(next)
        };
        self.new_local_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn insert(&self, bucket: &mut bucket::Locked<'_>, new: Slot, now: Time) -> Learned {
        let worth = |slot: &Slot| (slot.is_live(now), tenure(slot.source), slot.seen);
        let is_local = |slot: &Slot| slot.owner == Owner::Local && slot.is_live(now);
        let locals = (0..bucket::WAYS).filter_map(|way| bucket.get(way)).filter(is_local).count();
        let among_locals = new.source == Source::Local && locals >= MOST_LOCAL;
        let mut victim: Option<(usize, Slot)> = None;
        for way in 0..bucket::WAYS {
            let Some(slot) = bucket.get(way) else {
                if among_locals {
                    continue;
                }
                victim = Some((way, new));
                break;
            };
            let eligible = !among_locals || is_local(&slot);
            if eligible && victim.is_none_or(|(_, least)| worth(&slot) < worth(&least)) {
                victim = Some((way, slot));
            }
        }
        match victim {
            Some((way, old)) if old.key == new.key || !old.is_live(now) || tenure(old.source) <= tenure(new.source) => {
                if old.key != new.key && old.is_live(now) {
                    self.counters.macs_evicted.inc();
                }
                bucket.put(way, new);
                self.counters.macs_learned.inc();
                Learned::New
            }
            _ => {
                self.counters.macs_not_learned.inc();
                Learned::Ignored
            }
        }
    }

    fn count_move(&self, from: Owner, to: Owner) {
        match (from, to) {
            (Owner::Local, Owner::Peer(_)) => self.counters.mac_moves_local_to_remote.inc(),
            (Owner::Peer(_), Owner::Local) => self.counters.mac_moves_remote_to_local.inc(),
            (Owner::Peer(old), Owner::Peer(new)) if old != new => self.counters.mac_moves_remote.inc(),
            (Owner::Peer(_), Owner::Peer(_)) | (Owner::Local, Owner::Local) => {}
        }
    }
}

/// True where a live entry gives way to a sighting elsewhere. Any member can put any MAC into a frame, so what was announced, or is ours, moves
/// by announcements and by what is seen on our own bridge alone, however quiet its station is.
fn yields(old: Source, sighting: Source) -> bool {
    match sighting {
        Source::Local | Source::Announced | Source::Frozen => true,
        Source::Data => matches!(old, Source::Flood | Source::Data),
        Source::Flood => old == Source::Flood,
    }
}

/// True where a sighting at the same place tells nothing new. An announced entry stays announced: it does not age.
fn covers(known: Source, sighting: Source) -> bool {
    known >= sighting || (known == Source::Announced && sighting == Source::Data)
}

/// Who stays when a bucket is full: what is announced is one entry per container, while data may come from any number of MACs.
fn tenure(source: Source) -> u8 {
    match source {
        Source::Flood => 0,
        Source::Data => 1,
        Source::Announced => 2,
        Source::Local => 3,
        Source::Frozen => 4,
    }
}

fn pack_key(vlan: u16, mac: [u8; 6]) -> u64 {
    // The top bit keeps a key from being zero, which is an empty entry.
    1 << 63 | u64::from(vlan & 0x0fff) << 48 | PeerName(mac).to_u64()
}

fn unpack_key(key: u64) -> (u16, [u8; 6]) {
    ((key >> 48) as u16 & 0x0fff, PeerName::from_u64(key).0)
}

impl Slot {
    fn new(key: u64, owner: Owner, source: Source, now: Time) -> Slot {
        Slot { key, owner, source, seen: now, moves: 0, moves_since: now }
    }

    /// What is announced elsewhere lives until it is withdrawn.
    fn is_live(&self, now: Time) -> bool {
        let announced = self.source == Source::Announced || (self.source == Source::Frozen && self.owner != Owner::Local);
        announced || now.since(self.seen) < AGEING
    }

    /// This entry after a move; `None` where it has moved too often within a second.
    fn moved(&self, owner: Owner, source: Source, now: Time, limit: u8) -> Option<Slot> {
        let fresh = now.since(self.moves_since) >= Duration::from_secs(1);
        let (moves, since) = if fresh { (0, now) } else { (self.moves, self.moves_since) };
        (moves < limit).then_some(Slot { key: self.key, owner, source, seen: now, moves: moves + 1, moves_since: since })
    }

    fn entry(&self, now: Time) -> MacEntry {
        let (vlan, mac) = unpack_key(self.key);
        MacEntry { vlan, mac, owner: self.owner, age: now.since(self.seen), source: self.source }
    }
}

#[cfg(test)]
mod tests;
