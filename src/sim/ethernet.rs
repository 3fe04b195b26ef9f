//! The frames that the containers of a simulation send: numbered, with content that tells whether it was damaged.

use std::fmt;

use crate::wire::VnetHeader;
use crate::wire::probe::is_probe;
use crate::wire::vnet::{GSO_TCPV4, NEEDS_CSUM};

/// Ethertype of numbered frames: IEEE 802, local experimental 1.
const NUMBERED: [u8; 2] = [0x88, 0xb5];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const IGMP: u8 = 2;
const ARP: &[u8] = &[0x08, 0x06];
/// Ethernet, IPv4 and TCP headers without options.
const TCP_HEADERS: usize = 14 + 20 + 20;
/// Ethernet header and number: the shortest numbered frame.
pub const SHORTEST: usize = 14 + 4;

/// A container's MAC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// True for broadcast and multicast.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What a bridge got from its router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// All or part of frame `id`: `len` bytes of its content from `offset`.
    Piece { id: u32, to: Mac, offset: u32, len: usize, good: bool },
    /// ICMP fragmentation needed, with the MTU that fits.
    TooBig { to: Mac, mtu: u16 },
    /// Address resolution: an answer or a question, and whose address its sender says he has.
    Arp { answer: bool, sender: [u8; 4] },
    /// A probe for loops.
    Probe,
    /// A question or a report of multicast groups.
    Membership,
    /// Something else.
    Other,
}

/// Byte `at` of the content of frame `id`.
fn content(id: u32, at: usize) -> u8 {
    (at as u32).wrapping_mul(31).wrapping_add(id.wrapping_mul(7)).to_be_bytes()[3]
}

/// A numbered frame of `length` bytes in all.
pub fn numbered(to: Mac, from: Mac, id: u32, length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(length);
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&NUMBERED);
    frame.extend_from_slice(&id.to_be_bytes());
    let rest = length.saturating_sub(SHORTEST);
    frame.extend((0..rest).map(|at| content(id, at)));
    frame
}

/// A TCP super frame with `length` bytes of content in segments of `segment` bytes, and its vnet header. Don't-fragment is
/// set. The number is in the ports.
pub fn super_frame(to: Mac, from: Mac, id: u32, length: usize, segment: usize) -> (VnetHeader, Vec<u8>) {
    ip_frame(to, from, [10, 99, 0, 2], id, (length, segment))
}

/// The MAC of a multicast group.
pub fn group_mac([_, b, c, d]: [u8; 4]) -> Mac {
    Mac([1, 0, 0x5e, b & 0x7f, c, d])
}

/// The same to a group.
pub fn group_frame(group: [u8; 4], from: Mac, id: u32, length: usize) -> (VnetHeader, Vec<u8>) {
    ip_frame(group_mac(group), from, group, id, (length, length))
}

/// A station joins a group or leaves it, by IGMPv2.
pub fn report(group: [u8; 4], from: Mac, joined: bool) -> Vec<u8> {
    let mut frame = [&group_mac(group).0[..], &from.0, &IPV4].concat();
    frame.extend_from_slice(&[0x45, 0, 0, 28, 0, 1, 0, 0, 1, IGMP, 0, 0, 10, 99, 0, 1]);
    frame.extend_from_slice(&group);
    frame.extend_from_slice(&[if joined { 0x16 } else { 0x17 }, 0, 0, 0]);
    frame.extend_from_slice(&group);
    frame
}

fn ip_frame(to: Mac, from: Mac, ip_to: [u8; 4], id: u32, (length, segment): (usize, usize)) -> (VnetHeader, Vec<u8>) {
    let total = u16::try_from(40 + length).expect("an IP packet has 65535 bytes at most");
    let mut frame = Vec::with_capacity(TCP_HEADERS + length);
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&IPV4);
    let [total_high, total_low] = total.to_be_bytes();
    let [a, b, c, d] = ip_to;
    let mut ip = [0x45, 0, total_high, total_low, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 99, 0, 1, a, b, c, d];
    let sum = folded(&ip);
    ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(&id.to_be_bytes());
    let pseudo = folded(&[10, 99, 0, 1, a, b, c, d, 0, 6, (20 + length).to_be_bytes()[6], (20 + length).to_be_bytes()[7]]);
    let [sum_high, sum_low] = pseudo.to_be_bytes();
    frame.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10, 0x10, 0, sum_high, sum_low, 0, 0]);
    frame.extend((0..length).map(|at| content(id, at)));
    let gso = length > segment;
    let vnet = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: if gso { GSO_TCPV4 } else { 0 },
        hdr_len: TCP_HEADERS as u16,
        gso_size: if gso { segment as u16 } else { 0 },
        csum_start: 34,
        csum_offset: 16,
    };
    (vnet, frame)
}

/// What a frame is.
pub fn read(frame: &[u8]) -> Seen {
    if is_probe(frame) {
        return Seen::Probe;
    }
    let Some((to, rest)) = frame.split_first_chunk::<6>() else { return Seen::Other };
    let (to, Some(ethertype)) = (Mac(*to), rest.get(6..8)) else { return Seen::Other };
    if ethertype == NUMBERED {
        let Some((id, body)) = frame.get(14..).and_then(|rest| rest.split_first_chunk::<4>()) else { return Seen::Other };
        return piece(u32::from_be_bytes(*id), to, 0, body);
    }
    if let (ARP, Some([_, operation, _, _, _, _, _, _, a, b, c, d])) = (ethertype, frame.get(20..32)) {
        return Seen::Arp { answer: *operation == 2, sender: [*a, *b, *c, *d] };
    }
    // MLD stands behind a hop-by-hop header.
    if ethertype == IPV6 && frame.get(20) == Some(&0) {
        return Seen::Membership;
    }
    match (ethertype == IPV4, frame.get(23)) {
        (true, Some(6)) => {
            let field = |at: usize| frame.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
            match (field(34), field(38), frame.get(TCP_HEADERS..)) {
                (Some(id), Some(offset), Some(body)) => piece(id, to, offset, body),
                _ => Seen::Other,
            }
        }
        (true, Some(&IGMP)) => Seen::Membership,
        (true, Some(1)) => match frame.get(34..42) {
            Some([3, 4, _, _, _, _, high, low]) => Seen::TooBig { to, mtu: u16::from_be_bytes([*high, *low]) },
            _ => Seen::Other,
        },
        _ => Seen::Other,
    }
}

fn piece(id: u32, to: Mac, offset: u32, body: &[u8]) -> Seen {
    let good = body.iter().enumerate().all(|(at, byte)| *byte == content(id, offset as usize + at));
    Seen::Piece { id, to, offset, len: body.len(), good }
}

/// The Internet checksum's sum (RFC 1071), folded to 16 bits.
fn folded(bytes: &[u8]) -> u16 {
    let (pairs, _) = bytes.as_chunks::<2>();
    let mut sum: u32 = pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    #[test]
    fn frames_are_read_as_they_were_made() {
        assert_eq!(read(&numbered(A, B, 9, 100)), Seen::Piece { id: 9, to: A, offset: 0, len: 82, good: true });
        let (vnet, mut frame) = super_frame(A, B, 70_000, 5000, 1000);
        assert_eq!((vnet.gso_size, frame.len()), (1000, 5054));
        assert_eq!(read(&frame), Seen::Piece { id: 70_000, to: A, offset: 0, len: 5000, good: true });
        frame[2000] ^= 1;
        assert_eq!(read(&frame), Seen::Piece { id: 70_000, to: A, offset: 0, len: 5000, good: false });
        assert_eq!(read(&[0; 13]), Seen::Other);
    }
}
