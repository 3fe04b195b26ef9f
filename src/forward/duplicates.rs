//! Every flood once: one table of atomics, shared by all packet threads, remembers which floods passed here.
//!
//! Floods are numbered per (origin, incarnation, lane). A stream's window is a ring of words; each word holds the number
//! of the block of 32 floods it stands for and one bit per flood, so that check and mark are one compare-and-swap.
//!
//! A neighbour through which an origin's floods come can let them come to nothing, there is no help for that; but it could also number some that it
//! makes up as those to come, or far ahead of them, and the true ones would be taken for old ever after, also by those behind us, and when it is
//! long gone. So a word says in which second it was last marked, and one that has rested is void: floods live for milliseconds.
//!
//! Any member can write any number into a flood that it makes up in another's name, so only what comes from where the floods of an origin come from
//! by our own tree moves its window. What comes another way, as while routers disagree about the tree, is told apart by its content instead.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Time;
use crate::wire::flood::FloodHeader;

use super::fib::NameHash;

/// Streams a table of ordinary size remembers, in 2 MB: lanes of 2,000 routers whose containers broadcast within five seconds.
pub const DEFAULT_STREAMS: usize = 8192;
/// Words of a window: 1024 floods.
const WORDS: usize = 32;
/// Streams that share a bucket.
const WAYS: usize = 8;
/// A stream is thrown out for another only after this rest, and a word counts no longer; a flood lives milliseconds.
const IDLE: Duration = Duration::from_secs(5);
/// Block numbers have 27 bits.
const BLOCKS: u64 = 1 << 27;
/// The rest of a word's upper half: the second of its last mark, in so many.
const SECONDS: u64 = 1 << 5;
/// A second, roughly, in powers of two of a nanosecond.
const SECOND: u32 = 30;
/// [`IDLE`] in such seconds.
const RESTED: u64 = 5;
/// Floods that came another way whose content is remembered: those of the moment for which routers disagree.
const STRAYS: usize = 1024;
/// How often a thread looks again while another adds a stream.
const TRIES: usize = 1000;

/// What the table says of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen before; it is marked now.
    First,
    /// Delivered here before, when it came another way; whoever follows us in the tree has not had it from us.
    PassOn,
    /// Seen before, or too old to tell.
    Duplicate,
    /// No room to remember it, so it must not be delivered.
    NoRoom,
}

struct Stream {
    /// Origin, lane and the low 12 bits of the incarnation; 0 is unused.
    key: AtomicU64,
    used: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// The table.
pub struct Duplicates {
    streams: Box<[Stream]>,
    hash: NameHash,
    /// Taken by the thread that adds a stream, which happens once per origin and lane.
    adding: AtomicBool,
    /// Digests of floods that came another way than by the tree, and when the last did.
    strays: Box<[AtomicU64]>,
    strayed: AtomicU64,
}

impl Duplicates {
    /// A table for about `streams` streams; `key` is the random key of its hash.
    pub fn new(streams: usize, key: u64) -> Duplicates {
        let count = streams.next_power_of_two().max(WAYS);
        let stream = || Stream { key: AtomicU64::new(0), used: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS] };
        Duplicates {
            streams: (0..count).map(|_| stream()).collect(),
            hash: NameHash(key),
            adding: AtomicBool::new(false),
            strays: (0..STRAYS).map(|_| AtomicU64::new(0)).collect(),
            strayed: AtomicU64::new(0),
        }
    }

    /// Checks a flood with this content that came by the tree of its origin, and marks it as seen.
    pub fn check_expected(&self, flood: &FloodHeader, bundle: &[u8], now: Time) -> Verdict {
        let verdict = self.check(flood, now);
        let strayed = self.strayed.load(Ordering::SeqCst);
        if verdict != Verdict::First || strayed == 0 || now.since(Time(strayed)) >= IDLE {
            return verdict;
        }
        let (place, digest) = self.stray(flood, bundle);
        if place.is_some_and(|place| place.load(Ordering::SeqCst) == digest) { Verdict::PassOn } else { verdict }
    }

    /// Checks a flood with this content that came another way, and remembers it. Remembered first and looked up in its window then, where one that
    /// comes by the tree does the opposite: so of two threads that have the same flood at once no more than one is told [`Verdict::First`].
    pub fn check_stray(&self, flood: &FloodHeader, bundle: &[u8], now: Time) -> Verdict {
        self.strayed.store(now.0.max(1), Ordering::SeqCst);
        let (place, digest) = self.stray(flood, bundle);
        let is_new = place.is_some_and(|place| place.swap(digest, Ordering::SeqCst) != digest);
        let key = key_of(flood);
        let stream = self.bucket(key).iter().find(|stream| stream.key.load(Ordering::SeqCst) == key);
        if is_new && !stream.is_some_and(|stream| stream.is_marked(flood.sequence)) { Verdict::First } else { Verdict::Duplicate }
    }

    fn stray(&self, flood: &FloodHeader, bundle: &[u8]) -> (Option<&AtomicU64>, u64) {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u64(key_of(flood));
        hasher.write_u64(u64::from(flood.sequence) << 32 | bundle.len() as u64);
        hasher.write(bundle);
        let digest = hasher.finish() | 1;
        (self.strays.get((digest >> 32) as usize % STRAYS), digest)
    }

    /// Checks a flood and marks it as seen. Of any number of threads that ask for one flood, one is told [`Verdict::First`].
    pub fn check(&self, flood: &FloodHeader, now: Time) -> Verdict {
        let key = key_of(flood);
        if key == 0 {
            return Verdict::NoRoom;
        }
        let Some(stream) = self.stream(key, now) else { return Verdict::NoRoom };
        stream.used.store(now.0, Ordering::Relaxed);
        let verdict = stream.mark(flood.sequence, now);
        // Where the stream was thrown out meanwhile the mark may be lost, so this flood does not count as marked.
        if stream.key.load(Ordering::SeqCst) == key { verdict } else { Verdict::Duplicate }
    }

    fn bucket(&self, key: u64) -> &[Stream] {
        let buckets = self.streams.len() / WAYS;
        let start = (self.hash.hash_one(key) as usize & (buckets - 1)) * WAYS;
        self.streams.get(start..start + WAYS).unwrap_or_default()
    }

    fn stream(&self, key: u64, now: Time) -> Option<&Stream> {
        let bucket = self.bucket(key);
        for _ in 0..TRIES {
            if let Some(known) = bucket.iter().find(|stream| stream.key.load(Ordering::SeqCst) == key) {
                return Some(known);
            }
            if self.adding.compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                let added = add(bucket, key, now);
                self.adding.store(false, Ordering::SeqCst);
                return added;
            }
            std::hint::spin_loop();
        }
        None
    }
}

fn key_of(flood: &FloodHeader) -> u64 {
    flood.origin.to_u64() << 16 | u64::from(flood.lane) << 12 | u64::from(flood.incarnation & 0x0fff)
}

/// Adds a stream to its bucket, over an unused or rested one. The caller holds `adding`.
fn add(bucket: &[Stream], key: u64, now: Time) -> Option<&Stream> {
    // It may have been added between the caller's look and its turn.
    if let Some(known) = bucket.iter().find(|stream| stream.key.load(Ordering::SeqCst) == key) {
        return Some(known);
    }
    let rested = |stream: &&Stream| {
        let unused = stream.key.load(Ordering::SeqCst) == 0;
        unused || now.since(Time(stream.used.load(Ordering::Relaxed))) >= IDLE
    };
    let stream = bucket.iter().filter(rested).min_by_key(|stream| stream.used.load(Ordering::Relaxed))?;
    stream.key.store(0, Ordering::SeqCst);
    for word in &stream.words {
        word.store(0, Ordering::SeqCst);
    }
    stream.used.store(now.0, Ordering::Relaxed);
    stream.key.store(key, Ordering::SeqCst);
    Some(stream)
}

impl Stream {
    fn is_marked(&self, sequence: u32) -> bool {
        let block = u64::from(sequence >> 5);
        let seen = self.words[block as usize % WORDS].load(Ordering::SeqCst);
        seen >> 32 & (BLOCKS - 1) == block && seen & 1 << (sequence & 31) != 0
    }

    fn mark(&self, sequence: u32, now: Time) -> Verdict {
        let block = u64::from(sequence >> 5);
        let bit = 1u64 << (sequence & 31);
        let second = now.0 >> SECOND & (SECONDS - 1);
        let first = second << 59 | block << 32 | bit;
        let word = &self.words[block as usize % WORDS];
        let mut seen = word.load(Ordering::SeqCst);
        loop {
            // A word in use has at least one bit set, so none set is a word never used.
            let (known, bits) = (seen >> 32 & (BLOCKS - 1), seen & 0xffff_ffff);
            let void = bits == 0 || second.wrapping_sub(seen >> 59) & (SECONDS - 1) >= RESTED;
            let next = if void {
                first
            } else if known == block {
                if bits & bit != 0 {
                    return Verdict::Duplicate;
                }
                first | bits
            } else if (block.wrapping_sub(known) & (BLOCKS - 1)) < BLOCKS / 2 {
                first
            } else {
                return Verdict::Duplicate;
            };
            match word.compare_exchange_weak(seen, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Verdict::First,
                Err(now) => seen = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PeerName;

    fn flood(origin: u64, sequence: u32) -> FloodHeader {
        FloodHeader { origin: PeerName::from_u64(origin), incarnation: 7, lane: 1, hop_limit: 9, sequence }
    }

    #[test]
    fn each_flood_is_first_once() {
        let table = Duplicates::new(16, 1);
        for sequence in [0, 5, 3, 1000, u32::MAX, 31, 32] {
            let origin = if sequence == u32::MAX { 2 } else { 1 };
            assert_eq!(table.check(&flood(origin, sequence), Time(1)), Verdict::First, "{sequence}");
            assert_eq!(table.check(&flood(origin, sequence), Time(1)), Verdict::Duplicate, "{sequence}");
        }
        assert_eq!(table.check(&flood(2, 0), Time(1)), Verdict::First, "sequences wrap");
        assert_eq!(table.check(&flood(2, 0), Time(1)), Verdict::Duplicate);
        let newer = FloodHeader { incarnation: 8, ..flood(1, 5) };
        assert_eq!(table.check(&newer, Time(1)), Verdict::First, "a restarted origin counts anew");
        assert_eq!(table.check(&FloodHeader { lane: 2, ..flood(1, 5) }, Time(1)), Verdict::First);
    }

    #[test]
    fn what_left_the_window_is_a_duplicate() {
        let table = Duplicates::new(16, 1);
        assert_eq!(table.check(&flood(1, 1024), Time(1)), Verdict::First);
        assert_eq!(table.check(&flood(1, 0), Time(1)), Verdict::Duplicate);
        assert_eq!(table.check(&flood(1, 32), Time(1)), Verdict::First);
    }

    #[test]
    fn numbers_that_somebody_made_up_are_in_the_way_for_seconds_and_not_for_ever() {
        for made_up in [1000..2024, 500_000..501_024, 0x3fff_0000..0x3fff_0400] {
            let table = Duplicates::new(16, 1);
            let start = Time(77_000_000_000);
            (900..1000).for_each(|sequence| assert_eq!(table.check(&flood(1, sequence), start), Verdict::First));
            made_up.for_each(|sequence| assert_eq!(table.check(&flood(1, sequence), start), Verdict::First));
            // Ten true ones a second, while nobody makes up any more.
            let true_ones = (1000..1200u32).map(|n| (n, start + Duration::from_millis(u64::from(n - 1000) * 100)));
            let lost: Vec<u32> = true_ones.filter(|(n, at)| table.check(&flood(1, *n), *at) != Verdict::First).map(|(n, _)| n).collect();
            assert!(lost.len() <= 60 && lost.last().is_none_or(|last| *last < 1060), "{lost:?}");
            let end = start + Duration::from_secs(20);
            assert!((1160..1200).all(|sequence| table.check(&flood(1, sequence), end) == Verdict::Duplicate));
        }
    }

    #[test]
    fn streams_are_bounded_and_rested_ones_make_room() {
        let table = Duplicates::new(WAYS, 1);
        let second = Time(1_000_000_000);
        for origin in 1..=WAYS as u64 {
            assert_eq!(table.check(&flood(origin, 1), second), Verdict::First);
        }
        assert_eq!(table.check(&flood(99, 1), second), Verdict::NoRoom);
        assert_eq!(table.check(&flood(99, 1), second + IDLE), Verdict::First);
        assert_eq!(table.check(&flood(98, 1), second + IDLE / 2), Verdict::NoRoom);
    }

    #[test]
    fn what_comes_another_way_moves_no_window_and_is_told_apart_by_its_content() {
        let table = Duplicates::new(16, 1);
        let expected = |sequence, content: &[u8]| table.check_expected(&flood(1, sequence), content, Time(1));
        let stray = |sequence, content: &[u8]| table.check_stray(&flood(1, sequence), content, Time(1));
        for sequence in 0..3000 {
            assert_eq!(stray(sequence, b"made up"), Verdict::First);
        }
        assert_eq!(stray(2999, b"made up"), Verdict::Duplicate);
        assert_eq!(expected(5, b"its own"), Verdict::First);
        assert_eq!((expected(5, b"its own"), stray(5, b"its own")), (Verdict::Duplicate, Verdict::Duplicate));
        assert_eq!((stray(6, b"its own"), expected(6, b"its own")), (Verdict::First, Verdict::PassOn));
        assert_eq!((stray(6, b"its own"), expected(6, b"its own")), (Verdict::Duplicate, Verdict::Duplicate));
    }

    #[test]
    fn threads_that_have_one_flood_by_both_ways_do_not_both_deliver_it() {
        let table = Duplicates::new(16, 1);
        let firsts: Vec<AtomicU64> = (0..1000).map(|_| AtomicU64::new(0)).collect();
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for check in [Duplicates::check_expected, Duplicates::check_stray, Duplicates::check_expected, Duplicates::check_stray] {
                let (table, firsts, barrier) = (&table, &firsts, &barrier);
                scope.spawn(move || {
                    for (sequence, first) in (0u32..).zip(firsts) {
                        barrier.wait();
                        let verdict = check(table, &flood(1, sequence), &sequence.to_be_bytes(), Time(1));
                        first.fetch_add(u64::from(verdict == Verdict::First), Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(firsts.iter().all(|first| first.load(Ordering::Relaxed) <= 1));
    }

    #[test]
    fn threads_agree_on_who_is_first() {
        let table = Duplicates::new(64, 1);
        let firsts = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for sequence in 0..20_000 {
                        if table.check(&flood(u64::from(sequence % 5) + 1, sequence / 5), Time(1)) == Verdict::First {
                            firsts.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        // A thread may give up where another is stopped while it adds a stream; nothing may be first twice.
        let firsts = firsts.into_inner();
        assert!((19_000..=20_000).contains(&firsts), "{firsts}");
    }
}
