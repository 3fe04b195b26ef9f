//! Frames that fit no datagram travel in slices, and are put together again within bounds.
//!
//! Where there is no room, a frame of whoever has most in the making is given up: first slices without end are in the way of nobody's frames but
//! their sender's. What came by one neighbour counts together, since it can flood in anybody's name; of it, what one router sent.

use std::cmp::Reverse;
use std::time::Duration;

use crate::time::Time;
use crate::wire::PeerName;

/// Largest frame: an IP packet of 64 KiB behind an Ethernet header and two VLAN tags.
pub const MAX_FRAME: usize = 65_535 + 22;
/// Frames in the making.
const MAX_PARTIALS: usize = 64;
/// Bytes of all frames in the making.
const MAX_BYTES: usize = 1 << 20;
/// A frame whose slices have not all arrived by then is given up.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a frame is sliced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slices {
    /// Bytes of every slice but the last.
    pub size: usize,
    /// How many there are.
    pub count: usize,
}

impl Slices {
    /// Slices of `length` bytes with at most `room` each; `None` where they would be too many.
    pub fn plan(length: usize, room: usize) -> Option<Slices> {
        if room == 0 || length == 0 {
            return None;
        }
        let count = length.div_ceil(room);
        (count <= crate::wire::bundle::MAX_FRAGMENTS).then_some(Slices { size: length.div_ceil(count), count })
    }

    /// Where slice number `index` of a frame of `length` bytes lies.
    pub fn range(&self, index: usize, length: usize) -> std::ops::Range<usize> {
        let start = (index * self.size).min(length);
        start..(start + self.size).min(length)
    }
}

/// Whom a slice is put down to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// The router that sealed the datagram.
    pub hop: PeerName,
    /// The router that, as that one says, sent the frame.
    pub sender: PeerName,
}

/// One slice as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// Sender and lane.
    pub key: u64,
    /// Who has to share.
    pub from: Party,
    /// Counter of the datagram. Slices of one frame have consecutive counters, so counter less index names the frame for
    /// as long as the key lives, while an id comes round again.
    pub counter: u32,
    /// The sender's number of the frame.
    pub id: u16,
    /// Position.
    pub index: u8,
    /// True for the last slice.
    pub last: bool,
    /// True where the frame's checksum is partial.
    pub partial: bool,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// What a slice did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// More slices are missing.
    Waiting,
    /// The frame is complete, see [`Reassembly::frame`].
    Complete,
    /// It contradicts an earlier slice; the frame is given up.
    Contradiction,
}

/// One frame in the making: slices in order of arrival, and where each lies.
#[derive(Default)]
struct Partial {
    name: (u64, u32, u16),
    from: Party,
    started: Time,
    partial: bool,
    last: Option<u8>,
    /// (index, start, end) of each slice.
    pieces: Vec<(u8, u32, u32)>,
    bytes: Vec<u8>,
}

/// Frames in the making, bounded in number, bytes and time.
#[derive(Default)]
pub struct Reassembly {
    live: Vec<Partial>,
    /// Ended frames, kept for their memory.
    spare: Vec<Partial>,
    bytes: usize,
    done: Vec<u8>,
    /// Frames given up: too late, contradictory, or one too many.
    pub given_up: u64,
}

impl Reassembly {
    /// Takes in one slice.
    pub fn add(&mut self, now: Time, slice: &Slice<'_>) -> Outcome {
        let name = slice.name();
        let same = |partial: &Partial| partial.name == name;
        while self.bytes + slice.bytes.len() > MAX_BYTES {
            let weight = |partial: &Partial| partial.bytes.len();
            let Some(other) = self.crowding((slice.from, slice.bytes.len()), MAX_BYTES, weight, |partial| !same(partial)) else { break };
            self.give_up(other);
        }
        let at = match self.live.iter().position(same) {
            Some(at) => at,
            None => self.begin(now, slice),
        };
        let Some(partial) = self.live.get_mut(at) else { return Outcome::Contradiction };
        if !partial.accepts(slice) {
            self.give_up(at);
            return Outcome::Contradiction;
        }
        if partial.pieces.iter().all(|(index, ..)| *index != slice.index) {
            let start = partial.bytes.len() as u32;
            partial.bytes.extend_from_slice(slice.bytes);
            partial.pieces.push((slice.index, start, partial.bytes.len() as u32));
            self.bytes += slice.bytes.len();
        }
        if slice.last {
            partial.last = Some(slice.index);
        }
        if partial.last.is_none_or(|last| partial.pieces.len() <= usize::from(last)) {
            return Outcome::Waiting;
        }
        partial.pieces.sort_unstable_by_key(|(index, ..)| *index);
        self.done.clear();
        for &(_, start, end) in &partial.pieces {
            self.done.extend_from_slice(partial.bytes.get(start as usize..end as usize).unwrap_or(&[]));
        }
        self.end(at);
        Outcome::Complete
    }

    /// The frame that was completed last.
    pub fn frame(&mut self) -> &mut [u8] {
        &mut self.done
    }

    /// Gives up what has waited too long.
    pub fn expire(&mut self, now: Time) {
        let mut at = 0;
        while let Some(partial) = self.live.get(at) {
            if now.since(partial.started) >= PATIENCE {
                self.give_up(at);
            } else {
                at += 1;
            }
        }
    }

    /// When [`Reassembly::expire`] has something to do.
    pub fn next_timeout(&self) -> Option<Time> {
        self.live.iter().map(|partial| partial.started + PATIENCE).min()
    }

    fn begin(&mut self, now: Time, slice: &Slice<'_>) -> usize {
        if self.live.len() >= MAX_PARTIALS
            && let Some(other) = self.crowding((slice.from, 1), MAX_PARTIALS, |_| 1, |_| true)
        {
            self.give_up(other);
        }
        let mut partial = self.spare.pop().unwrap_or_default();
        (partial.name, partial.from, partial.started) = (slice.name(), slice.from, now);
        (partial.partial, partial.last) = (slice.partial, None);
        self.live.push(partial);
        self.live.len() - 1
    }

    /// Of the eligible frames, the oldest of whoever has most of the room, with what is `coming`.
    fn crowding(
        &self,
        coming: (Party, usize),
        room: usize,
        weight: impl Fn(&Partial) -> usize,
        eligible: impl Fn(&Partial) -> bool,
    ) -> Option<usize> {
        let sum = |same: &dyn Fn(Party) -> bool| {
            let extra = if same(coming.0) { coming.1 } else { 0 };
            extra + self.live.iter().filter(|partial| same(partial.from)).map(&weight).sum::<usize>()
        };
        let candidates = || self.live.iter().enumerate().filter(|(_, partial)| eligible(partial));
        // Nobody else can have more than who has more than half, as a flood of first slices soon does: no need to look further.
        let own = candidates().filter(|(_, partial)| partial.from == coming.0).min_by_key(|(_, partial)| partial.started);
        if let Some((at, _)) = own.filter(|_| sum(&|from| from == coming.0) > room / 2) {
            return Some(at);
        }
        let crowd = |partial: &Partial| (sum(&|from| from.hop == partial.from.hop), sum(&|from| from == partial.from));
        candidates().min_by_key(|(_, partial)| (Reverse(crowd(partial)), partial.started)).map(|(at, _)| at)
    }

    fn give_up(&mut self, at: usize) {
        self.end(at);
        self.given_up += 1;
    }

    fn end(&mut self, at: usize) {
        if at >= self.live.len() {
            return;
        }
        let mut partial = self.live.swap_remove(at);
        self.bytes -= partial.bytes.len();
        partial.bytes.clear();
        partial.pieces.clear();
        self.spare.push(partial);
    }
}

impl Slice<'_> {
    /// What all slices of a frame have in common.
    fn name(&self) -> (u64, u32, u16) {
        (self.key, self.counter.wrapping_sub(u32::from(self.index)), self.id)
    }
}

impl Partial {
    /// True where the slice agrees with those that came before.
    fn accepts(&self, slice: &Slice<'_>) -> bool {
        let beyond = |last: u8| slice.index > last || (slice.last && slice.index != last);
        let behind = |(index, ..): &(u8, u32, u32)| slice.last && *index > slice.index;
        self.partial == slice.partial
            && !self.last.is_some_and(beyond)
            && !self.pieces.iter().any(behind)
            && self.bytes.len() + slice.bytes.len() <= MAX_FRAME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(id: u16, index: u8, last: bool, bytes: &[u8]) -> Slice<'_> {
        Slice {
            key: 1,
            from: Party::default(),
            counter: (u32::from(id) << 8 | u32::from(index)).wrapping_sub(1800),
            id,
            index,
            last,
            partial: true,
            bytes,
        }
    }

    #[test]
    fn slices_cover_the_frame() {
        for (length, room) in [(1, 1), (1500, 1400), (65_557, 1400), (65_557, 257), (2800, 1400)] {
            let slices = Slices::plan(length, room).expect("few enough");
            let mut at = 0;
            for index in 0..slices.count {
                let range = slices.range(index, length);
                assert!(range.start == at && !range.is_empty() && range.len() <= room, "{length} {room} {index}");
                at = range.end;
            }
            assert_eq!(at, length);
        }
        assert_eq!(Slices::plan(65_557, 256), None);
        assert_eq!(Slices::plan(5, 0), None);
    }

    #[test]
    fn any_order_makes_the_frame() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.add(Time(1), &slice(7, 2, true, b"ef")), Outcome::Waiting);
        assert_eq!(reassembly.add(Time(1), &slice(7, 0, false, b"ab")), Outcome::Waiting);
        assert_eq!(reassembly.add(Time(1), &slice(7, 0, false, b"ab")), Outcome::Waiting);
        assert_eq!(reassembly.add(Time(1), &slice(8, 0, true, b"x")), Outcome::Complete);
        assert_eq!(reassembly.frame(), b"x");
        assert_eq!(reassembly.add(Time(1), &slice(7, 1, false, b"cd")), Outcome::Complete);
        assert_eq!(reassembly.frame(), b"abcdef");
        assert_eq!((reassembly.bytes, reassembly.live.len(), reassembly.given_up), (0, 0, 0));
    }

    #[test]
    fn an_id_that_comes_round_again_mixes_nothing() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.add(Time(1), &slice(7, 0, false, b"old")), Outcome::Waiting);
        let later = |index, last, bytes| Slice { counter: 0x10_0000 + u32::from(index), ..slice(7, index, last, bytes) };
        assert_eq!(reassembly.add(Time(2), &later(1, true, b"b")), Outcome::Waiting);
        assert_eq!(reassembly.add(Time(2), &later(0, false, b"a")), Outcome::Complete);
        assert_eq!(reassembly.frame(), b"ab");
    }

    #[test]
    fn contradictions_end_a_frame() {
        for (first, second) in [
            (slice(1, 2, true, b"a"), slice(1, 3, false, b"a")),
            (slice(1, 2, true, b"a"), slice(1, 1, true, b"a")),
            (slice(1, 2, false, b"a"), slice(1, 1, true, b"a")),
            (slice(1, 2, true, b"a"), Slice { partial: false, ..slice(1, 0, false, b"a") }),
        ] {
            let mut reassembly = Reassembly::default();
            assert_eq!(reassembly.add(Time(1), &first), Outcome::Waiting);
            assert_eq!(reassembly.add(Time(1), &second), Outcome::Contradiction);
            assert_eq!((reassembly.bytes, reassembly.live.len()), (0, 0));
        }
    }

    #[test]
    fn memory_and_time_are_bounded() {
        let mut reassembly = Reassembly::default();
        let big = vec![0u8; 60_000];
        for id in 0..1000 {
            assert_eq!(reassembly.add(Time(u64::from(id)), &slice(id, 0, false, &big)), Outcome::Waiting);
            assert_eq!(reassembly.add(Time(u64::from(id)), &slice(id, 1, false, &big[..100])), Outcome::Waiting);
            assert!(reassembly.bytes <= MAX_BYTES && reassembly.live.len() <= MAX_PARTIALS);
            assert_eq!(reassembly.bytes, reassembly.live.iter().map(|partial| partial.bytes.len()).sum::<usize>());
        }
        assert_eq!(reassembly.next_timeout().map(|at| at > Time(0) + PATIENCE), Some(true));
        reassembly.expire(Time(1000) + PATIENCE);
        assert_eq!((reassembly.bytes, reassembly.live.len(), reassembly.next_timeout()), (0, 0, None));
    }

    /// A first slice of a frame of `sender` that came by `hop`.
    fn first(hop: u8, sender: u8, id: u16, bytes: &[u8]) -> Slice<'_> {
        let from = Party { hop: PeerName([hop; 6]), sender: PeerName([sender; 6]) };
        Slice { key: u64::from(sender) << 4, from, ..slice(id, 0, false, bytes) }
    }

    fn second(slice: Slice<'_>) -> Slice<'_> {
        Slice { counter: slice.counter + 1, index: 1, last: true, ..slice }
    }

    #[test]
    fn first_slices_without_end_are_in_the_way_of_nobody_else() {
        for bytes in [1, 1400, 30_000] {
            let (mut reassembly, slice) = (Reassembly::default(), vec![7; bytes]);
            let honest = [first(2, 2, 1, &slice), first(3, 3, 1, &slice), first(4, 5, 1, &slice)];
            for slice in &honest {
                assert_eq!(reassembly.add(Time(1), slice), Outcome::Waiting);
            }
            // In its own name, and in those of others.
            for id in 0..1000 {
                reassembly.add(Time(2), &first(9, 9, id, &slice));
                reassembly.add(Time(2), &first(9, id as u8, id, &slice));
            }
            for slice in honest {
                assert_eq!(reassembly.add(Time(3), &second(slice)), Outcome::Complete, "{bytes}");
            }
        }
    }

    #[test]
    fn of_what_one_neighbour_passes_on_nobody_is_in_the_way_of_another() {
        let mut reassembly = Reassembly::default();
        let honest = first(9, 2, 1, b"a");
        assert_eq!(reassembly.add(Time(1), &honest), Outcome::Waiting);
        for id in 0..1000 {
            reassembly.add(Time(2), &first(9, 3, id, b"a"));
        }
        assert_eq!(reassembly.add(Time(3), &second(honest)), Outcome::Complete);
    }

    #[test]
    fn who_is_alone_has_all_of_the_room() {
        let mut reassembly = Reassembly::default();
        let all: Vec<Slice<'_>> = (0..MAX_PARTIALS as u16).map(|id| first(2, 2, id, b"a")).collect();
        assert!(all.iter().all(|slice| reassembly.add(Time(1), slice) == Outcome::Waiting));
        assert!(all.iter().all(|slice| reassembly.add(Time(1), &second(*slice)) == Outcome::Complete));
    }
}
