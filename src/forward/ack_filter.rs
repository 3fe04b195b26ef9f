//! Acknowledgements that a later one makes needless.
//!
//! A TCP acknowledgement says how far its sender has received, so the last of several that wait together says all that the others do.
//! Of those that are read from the TAP in one burst, or were received in one batch, only the last of a flow goes on; nothing waits for another
//! to come. Each that is left out saves two TAP calls, a seal, a datagram and a pass through two TCP stacks. That is worth having
//! because a receiver of super frames answers each by an acknowledgement, and a loaded router finds several at once.
//!
//! `sch_cake` does so, and its "aggressive" filter too keeps one (Høiland-Jørgensen et al., "Piece of CAKE", 2018, section III-D; the idea is in RFC
//! 3449, section 5.2.1). This one is stricter: only two that follow each other directly are looked at, so no order changes, and what
//! may say more than "received so far" is let through: a repeated number where nothing is missing, ECE and the other flags of ECN and
//! AccECN, options but timestamps and SACK, a number that goes back.
//!
//! # Where something is missing
//!
//! Then acknowledgements name what came behind the gap (SACK, RFC 2018), and mostly repeat one number. The later one makes the earlier needless
//! where it names all that the earlier did, and more. Two things go on in any case: news of what came twice (D-SACK, RFC 2883), which only one
//! acknowledgement names, and repetitions of a number until 27,000 bytes lie behind the gap, since there are senders that look for
//! three of them.

use std::ops::Range;

use crate::wire::VnetHeader;

use super::frame::{Frame, Net, Transport, be32};

/// The longest one: Ethernet with two tags, IPv4 with all its options, TCP with all of its own.
const LONGEST: usize = 14 + 8 + 60 + 60;
/// Offset of the acknowledgement number in a TCP header.
const NUMBER: usize = 8;
/// Offset of the flags, behind the header's length and the flag AE (RFC 9768).
const FLAGS: usize = 13;
/// The flags of one: ACK and nothing else.
const ACK: u8 = 0x10;
/// A header without options.
const PLAIN: usize = 20;
/// How the timestamps' option begins, as everybody writes it: two no-operations, kind 8, length 10 (RFC 7323, appendix A).
const STAMPS: [u8; 4] = [1, 1, 8, 10];
/// Its length with them.
const STAMPED: usize = 12;
/// How the SACK option begins, as everybody writes it behind the timestamps: two no-operations, kind 5 (RFC 2018, section 3).
const SACK: [u8; 3] = [1, 1, 5];
/// Bytes of a block, and most blocks.
const BLOCK: usize = 8;
const MOST_BLOCKS: usize = 4;
/// Half of the sequence space: what is further ahead is behind (RFC 9293, section 3.4).
const HALF: u32 = 1 << 31;
/// Three of the largest segments that there are on Ethernet.
const COUNTED: u32 = 3 * 9000;

/// A pure acknowledgement's own words.
struct Said {
    /// All before this came.
    number: u32,
    stamped: bool,
    /// And these did, from and up to.
    blocks: [(u32, u32); MOST_BLOCKS],
    count: usize,
}

impl Said {
    /// `None` where the options are others than timestamps and SACK, or malformed.
    fn parse(tcp: &[u8]) -> Option<Said> {
        let number = be32(tcp, NUMBER)?;
        let mut options = tcp.get(PLAIN..)?;
        let stamped = options.starts_with(&STAMPS);
        if stamped {
            options = options.get(STAMPED..)?;
        }
        let mut said = Said { number, stamped, blocks: [(0, 0); MOST_BLOCKS], count: 0 };
        if options.is_empty() {
            return Some(said);
        }
        let (length, blocks) = options.strip_prefix(&SACK)?.split_first()?;
        said.count = blocks.len() / BLOCK;
        if !(1..=MOST_BLOCKS).contains(&said.count) || blocks.len() % BLOCK != 0 || usize::from(*length) != 2 + blocks.len() {
            return None;
        }
        for (room, block) in said.blocks.iter_mut().zip(blocks.chunks_exact(BLOCK)) {
            *room = (be32(block, 0)?, be32(block, 4)?);
            if !is_before(room.0, room.1) {
                return None;
            }
        }
        Some(said)
    }

    fn blocks(&self) -> &[(u32, u32)] {
        self.blocks.get(..self.count).unwrap_or(&[])
    }

    /// True where the first block says what came twice: it lies before the number, or in the second (RFC 2883, section 4).
    fn tells_of_copies(&self) -> bool {
        let Some((first, others)) = self.blocks().split_first() else { return false };
        is_before(first.0, self.number) || others.first().is_some_and(|second| holds(*second, *first))
    }

    /// Bytes behind the first gap.
    fn behind(&self) -> u32 {
        self.blocks().iter().fold(0, |sum, (from, to)| sum.saturating_add(to.wrapping_sub(*from)))
    }

    /// True where all that the other names is named here.
    fn covers(&self, other: &Said) -> bool {
        other.blocks().iter().all(|block| !is_before(self.number, block.1) || self.blocks().iter().any(|own| holds(*own, *block)))
    }
}

/// True where `one` comes before `other` in the sequence space.
fn is_before(one: u32, other: u32) -> bool {
    (1..HALF).contains(&other.wrapping_sub(one))
}

/// True where one block lies in another.
fn holds(outer: (u32, u32), inner: (u32, u32)) -> bool {
    !is_before(inner.0, outer.0) && !is_before(outer.1, inner.1)
}

/// True for a TCP segment that acknowledges and says nothing else.
pub fn is_pure_ack(bytes: &[u8], frame: &Frame) -> bool {
    let (l4, end) = (usize::from(frame.l4), usize::from(frame.payload));
    frame.transport == Some(Transport::Tcp)
        && !frame.has_extensions()
        && bytes.len() == end
        && frame.ip_end as usize == end
        && bytes.len() <= LONGEST
        && bytes.get(l4 + FLAGS) == Some(&ACK)
        && bytes.get(l4..).and_then(Said::parse).is_some()
}

/// True where `new` makes `old` needless. Both are pure acknowledgements, and `frame` says where things lie in `new`.
pub fn supersedes(old: &[u8], new: &[u8], frame: &Frame) -> bool {
    let (l3, l4) = (usize::from(frame.l3), usize::from(frame.l4));
    let same = |range: Range<usize>| old.get(range.clone()) == new.get(range);
    // All but the lengths, the IPv4 identification and the header's checksum.
    let network = match frame.net {
        Net::V4 => same(0..l3 + 2) && same(l3 + 6..l3 + 10) && same(l3 + 12..l4),
        Net::V6 => same(0..l3 + 4) && same(l3 + 6..l4),
        Net::Other => false,
    };
    // Ports, sequence number, reserved bits and flags; window, checksum and timestamps are the newer the better.
    let low = |bytes: &[u8]| bytes.get(l4 + FLAGS - 1).map(|byte| byte & 0x0f);
    let transport = same(l4..l4 + NUMBER) && low(old) == low(new) && same(l4 + FLAGS..l4 + FLAGS + 1);
    if !(network && transport) {
        return false;
    }
    let said = |bytes: &[u8]| bytes.get(l4..).and_then(Said::parse);
    let (Some(old), Some(new)) = (said(old), said(new)) else { return false };
    let goes_ahead = is_before(old.number, new.number);
    let names_more = old.number == new.number && old.behind() >= COUNTED && new.behind() > old.behind();
    old.stamped == new.stamped && !old.tells_of_copies() && (goes_ahead || names_more) && new.covers(&old)
}

/// The last acknowledgement of a burst, until it is known what comes behind it.
#[derive(Debug)]
pub struct AckFilter {
    /// Its vnet header and its parse; `None` where none is kept.
    kept: Option<(VnetHeader, Frame)>,
    bytes: [u8; LONGEST],
    length: usize,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, behind what is kept.
    Goes,
    /// It is kept, and nothing was before it.
    Kept,
    /// It is kept, in place of one that it makes needless.
    Supersedes,
    /// It is to be offered again when what is kept has gone on.
    Follows,
}

impl Default for AckFilter {
    fn default() -> AckFilter {
        AckFilter { kept: None, bytes: [0; LONGEST], length: 0 }
    }
}

impl AckFilter {
    /// Looks at the next frame of the burst.
    pub fn offer(&mut self, vnet: &VnetHeader, bytes: &[u8], frame: &Frame) -> Verdict {
        if !is_pure_ack(bytes, frame) {
            return if self.kept.is_some() { Verdict::Follows } else { Verdict::Goes };
        }
        let verdict = match self.kept {
            None => Verdict::Kept,
            Some(_) if supersedes(self.bytes.get(..self.length).unwrap_or(&[]), bytes, frame) => Verdict::Supersedes,
            Some(_) => return Verdict::Follows,
        };
        let Some(room) = self.bytes.get_mut(..bytes.len()) else { return Verdict::Goes };
        room.copy_from_slice(bytes);
        self.length = bytes.len();
        self.kept = Some((*vnet, *frame));
        verdict
    }

    /// True where one is kept.
    pub fn is_keeping(&self) -> bool {
        self.kept.is_some()
    }

    /// Takes out what is kept.
    pub fn take(&mut self) -> Option<(VnetHeader, Frame, &mut [u8])> {
        let (vnet, frame) = self.kept.take()?;
        Some((vnet, frame, self.bytes.get_mut(..self.length)?))
    }
}

#[cfg(test)]
mod tests;
