//! A bucket of the MAC table: eight entries behind one sequence number.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::time::Time;
use crate::wire::PeerName;

use super::{Owner, Source};

/// Entries per bucket.
pub(super) const WAYS: usize = 8;
/// How often a reader that keeps meeting writers tries again, before it says "unknown".
const READ_TRIES: usize = 64;
/// How often a writer that must not fail yields to the one before it, which holds a bucket for nanoseconds.
const LOCK_TRIES: usize = 10_000;

/// One entry, read as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) key: u64,
    pub(super) owner: Owner,
    pub(super) source: Source,
    pub(super) seen: Time,
    pub(super) moves: u8,
    pub(super) moves_since: Time,
}

/// Keys and values of a bucket each fill one cache line.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Bucket {
    keys: [AtomicU64; WAYS],
    /// Source in the top 16 bits, the peer's name below.
    values: [AtomicU64; WAYS],
    seen: [AtomicU64; WAYS],
    /// Start of the second in which moves are counted, in units of 256 ns, and the count in the low byte.
    moves: [AtomicU64; WAYS],
    /// Odd while a writer is at work.
    sequence: AtomicU32,
}

impl Bucket {
    /// The entry of `key`.
    pub(super) fn find(&self, key: u64) -> Option<Slot> {
        self.read(|| {
            let way = self.keys.iter().position(|known| known.load(Ordering::Relaxed) == key)?;
            self.load(way)
        })?
    }

    /// True where nothing is in it, told from its first cache line alone.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.iter().all(|key| key.load(Ordering::Relaxed) == 0)
    }

    /// Every entry in use.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.read(|| std::array::from_fn::<_, WAYS, _>(|way| self.load(way))).into_iter().flatten().flatten()
    }

    /// Takes the bucket for writing, where nobody else has it.
    pub(super) fn try_lock(&self) -> Option<Locked<'_>> {
        let sequence = self.sequence.load(Ordering::Relaxed);
        if sequence & 1 != 0 {
            return None;
        }
        self.sequence.compare_exchange(sequence, sequence + 1, Ordering::Acquire, Ordering::Relaxed).ok()?;
        // Readers that see one of the writes below must also see the odd number.
        fence(Ordering::Release);
        Some(Locked { bucket: self, sequence })
    }

    /// Takes the bucket for writing, waiting for other writers.
    pub(super) fn lock_patiently(&self) -> Option<Locked<'_>> {
        (0..LOCK_TRIES).find_map(|_| {
            let locked = self.try_lock();
            if locked.is_none() {
                std::thread::yield_now();
            }
            locked
        })
    }

    /// What `look` saw while no writer was at work.
    fn read<T>(&self, look: impl Fn() -> T) -> Option<T> {
        for _ in 0..READ_TRIES {
            let before = self.sequence.load(Ordering::Acquire);
            if before & 1 == 0 {
                let seen = look();
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return Some(seen);
                }
            }
            std::hint::spin_loop();
        }
        None
    }

    fn load(&self, way: usize) -> Option<Slot> {
        let key = self.keys[way].load(Ordering::Relaxed);
        let value = self.values[way].load(Ordering::Relaxed);
        let moves = self.moves[way].load(Ordering::Relaxed);
        let source = match value >> 48 {
            1 => Source::Flood,
            2 => Source::Announced,
            3 => Source::Data,
            4 => Source::Local,
            5 => Source::Frozen,
            _ => return None,
        };
        let name = PeerName::from_u64(value);
        let owner = if name == PeerName::NONE { Owner::Local } else { Owner::Peer(name) };
        let seen = Time(self.seen[way].load(Ordering::Relaxed));
        (key != 0).then_some(Slot { key, owner, source, seen, moves: moves as u8, moves_since: Time(moves & !0xff) })
    }
}

/// A bucket in the hands of its one writer.
pub(super) struct Locked<'a> {
    bucket: &'a Bucket,
    sequence: u32,
}

impl Locked<'_> {
    /// The entry of `key` and its way.
    pub(super) fn find(&self, key: u64) -> Option<(usize, Slot)> {
        (0..WAYS).find_map(|way| self.get(way).filter(|slot| slot.key == key).map(|slot| (way, slot)))
    }

    /// The entry at `way`.
    pub(super) fn get(&self, way: usize) -> Option<Slot> {
        self.bucket.load(way)
    }

    /// Writes an entry.
    pub(super) fn put(&mut self, way: usize, slot: Slot) {
        let name = match slot.owner {
            Owner::Local => 0,
            Owner::Peer(peer) => peer.to_u64(),
        };
        self.bucket.keys[way].store(slot.key, Ordering::Relaxed);
        self.bucket.values[way].store((slot.source as u64) << 48 | name, Ordering::Relaxed);
        self.bucket.seen[way].store(slot.seen.0, Ordering::Relaxed);
        self.bucket.moves[way].store(slot.moves_since.0 & !0xff | u64::from(slot.moves), Ordering::Relaxed);
    }

    /// Empties an entry.
    pub(super) fn clear(&mut self, way: usize) {
        self.bucket.keys[way].store(0, Ordering::Relaxed);
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.bucket.sequence.store(self.sequence.wrapping_add(2), Ordering::Release);
    }
}
