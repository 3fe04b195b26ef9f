//! Acknowledgements that a later one makes needless.
//!
//! A TCP acknowledgement says how far its sender has received, so the last of several that wait together says all that the others do.
//! Of those that are read from the TAP in one burst, or were received in one batch, only the last of a flow goes on; nothing waits for another
//! to come. Each that is left out saves two TAP calls, a seal, a datagram and a pass through two TCP stacks. That is worth having
//! because a receiver of super frames answers each by an acknowledgement, and a loaded router finds several at once.
//!
//! This is the "conservative" filter of `sch_cake` (Høiland-Jørgensen et al., "Piece of CAKE", 2018, section III-D; the idea is in RFC 3449,
//! section 5.2.1), and stricter: only two that follow each other directly are looked at, so no order changes, and everything that
//! may say more than "received up to here" is let through: a repeated number (loss), SACK blocks, ECE and the other flags of ECN and AccECN
//! (lost or marked), any option but timestamps, a number that goes back.

use std::ops::Range;

use crate::wire::VnetHeader;

use super::frame::{Frame, Net, Transport, be32};

/// The longest one: Ethernet with two tags, IPv6, TCP with timestamps; IPv4 with all its options is 8 bytes more.
const LONGEST: usize = 14 + 8 + 60 + 32;
/// Offset of the acknowledgement number in a TCP header.
const NUMBER: usize = 8;
/// Offset of the flags, behind the header's length and the flag AE (RFC 9768).
const FLAGS: usize = 13;
/// The flags of one: ACK and nothing else.
const ACK: u8 = 0x10;
/// Header without options, and with timestamps alone.
const PLAIN: usize = 20;
const STAMPED: usize = 32;
/// How the timestamps' option begins, as everybody writes it: two no-operations, kind 8, length 10 (RFC 7323, appendix A).
const STAMPS: [u8; 4] = [1, 1, 8, 10];
/// Half of the sequence space: what is further ahead is behind (RFC 9293, section 3.4).
const HALF: u32 = 1 << 31;

/// True for a TCP segment that acknowledges and says nothing else.
pub fn is_pure_ack(bytes: &[u8], frame: &Frame) -> bool {
    let (l4, end) = (usize::from(frame.l4), usize::from(frame.payload));
    frame.transport == Some(Transport::Tcp)
        && !frame.has_extensions()
        && bytes.len() == end
        && frame.ip_end as usize == end
        && bytes.len() <= LONGEST
        && bytes.get(l4 + FLAGS) == Some(&ACK)
        && match end - l4 {
            PLAIN => true,
            STAMPED => bytes.get(l4 + PLAIN..l4 + PLAIN + STAMPS.len()) == Some(&STAMPS),
            _ => false,
        }
}

/// True where `new` makes `old` needless. Both are pure acknowledgements, and `frame` says where things lie in `new`.
pub fn supersedes(old: &[u8], new: &[u8], frame: &Frame) -> bool {
    let (l3, l4) = (usize::from(frame.l3), usize::from(frame.l4));
    let same = |range: Range<usize>| old.get(range.clone()) == new.get(range);
    // All but the IPv4 identification and the header's checksum.
    let network = match frame.net {
        Net::V4 => same(0..l3 + 4) && same(l3 + 6..l3 + 10) && same(l3 + 12..l4),
        Net::V6 => same(0..l4),
        Net::Other => false,
    };
    // All but the number, the window, the checksum and the timestamps, which are the newer the better.
    let transport = same(l4..l4 + NUMBER) && same(l4 + NUMBER + 4..l4 + FLAGS + 1);
    let (Some(was), Some(is)) = (be32(old, l4 + NUMBER), be32(new, l4 + NUMBER)) else { return false };
    old.len() == new.len() && network && transport && (1..HALF).contains(&is.wrapping_sub(was))
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
