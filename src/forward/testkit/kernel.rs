//! What a kernel does with a frame that is written to a TAP, in plain byte code that shares nothing with the router's: which ones it
//! must never be given, and which packets it makes of the others. The reference for tests and fuzzing.

use crate::wire::vnet::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetHeader};

/// Most datagrams in one UDP super frame, by kernels before 6.9; newer ones take twice as many.
const MOST_DATAGRAMS: usize = 64;

/// Where the headers of a TCP or UDP packet lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    v6: bool,
    protocol: u8,
    l3: usize,
    l4: usize,
    payload: usize,
    routed: bool,
}

fn number(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 2).map_or(0, |two| usize::from(two[0]) << 8 | usize::from(two[1]))
}

/// Finds the headers; `None` where it is no whole TCP or UDP packet.
fn place(bytes: &[u8]) -> Option<Place> {
    let mut at = 12;
    let mut tags = 0;
    while tags < 2 && matches!(number(bytes, at), 0x8100 | 0x88a8) {
        (at, tags) = (at + 4, tags + 1);
    }
    let (v6, l3) = match (number(bytes, at), bytes.get(at + 2)? >> 4) {
        (0x0800, 4) => (false, at + 2),
        (0x86dd, 6) => (true, at + 2),
        _ => return None,
    };
    let (mut protocol, mut l4, mut routed) = if v6 { (*bytes.get(l3 + 6)?, l3 + 40, false) } else { (*bytes.get(l3 + 9)?, l3, false) };
    if v6 {
        while matches!(protocol, 0 | 43 | 51 | 60) {
            let unit = usize::from(*bytes.get(l4 + 1)?);
            routed |= protocol == 43;
            let length = if protocol == 51 { (unit + 2) * 4 } else { (unit + 1) * 8 };
            (protocol, l4) = (*bytes.get(l4)?, l4 + length);
        }
    } else {
        let header = usize::from(bytes.get(l3)? & 15) * 4;
        if header < 20 || number(bytes, l3 + 6) & 0x3fff != 0 {
            return None;
        }
        l4 += header;
    }
    let length = match protocol {
        6 => usize::from(bytes.get(l4 + 12)? >> 4) * 4,
        17 => 8,
        _ => return None,
    };
    let payload = l4 + length;
    (length >= 8 && (protocol == 17 || length >= 20) && payload <= bytes.len()).then_some(Place { v6, protocol, l3, l4, payload, routed })
}

/// The one's complement sum of 16-bit words, carried round.
fn ones_sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The sum of the pseudo header of a segment with `length` bytes.
fn pseudo_sum(bytes: &[u8], place: Place, length: usize) -> u16 {
    let addresses = if place.v6 { &bytes[place.l3 + 8..place.l3 + 40] } else { &bytes[place.l3 + 12..place.l3 + 20] };
    let rest = [0, place.protocol, (length >> 8) as u8, length as u8];
    ones_sum(&rest, u32::from(ones_sum(addresses, 0)))
}

/// Why this must not be written to a TAP; `None` where the kernel takes it and makes sense of it.
pub fn refusal(vnet: &VnetHeader, bytes: &[u8]) -> Option<String> {
    let wrong = |what: &str| Some(format!("{what}: {vnet:?}, {} bytes", bytes.len()));
    let partial = match vnet.flags {
        0 => false,
        NEEDS_CSUM => true,
        _ => return wrong("unknown flags"),
    };
    let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
    if bytes.len() < 14 || usize::from(vnet.hdr_len) > bytes.len() {
        return wrong("shorter than its headers");
    }
    let place = place(bytes);
    if partial {
        let Some(place) = place else { return wrong("a partial checksum without a transport") };
        let expected = if place.protocol == 6 { 16 } else { 6 };
        if start + offset + 2 > bytes.len() || (start, offset) != (place.l4, expected) {
            return wrong("the checksum lies elsewhere");
        }
    }
    if vnet.gso_type == GSO_NONE {
        return if vnet.gso_size == 0 { None } else { wrong("a segment size without segments") };
    }
    let Some(place) = place.filter(|_| partial) else { return wrong("a super frame without a partial checksum") };
    let right = match vnet.gso_type & !GSO_ECN {
        GSO_TCPV4 => place.protocol == 6 && !place.v6,
        GSO_TCPV6 => place.protocol == 6 && place.v6,
        GSO_UDP_L4 => place.protocol == 17 && vnet.gso_type & GSO_ECN == 0,
        _ => false,
    };
    let (size, payload) = (usize::from(vnet.gso_size), bytes.len() - place.payload);
    if !right || place.routed || size == 0 || payload <= size {
        return wrong("no super frame of its type");
    }
    if place.protocol == 17 && payload.div_ceil(size) > MOST_DATAGRAMS {
        return wrong("too many datagrams");
    }
    let (said, is) = if place.v6 {
        (number(bytes, place.l3 + 4), bytes.len() - place.l3 - 40)
    } else {
        (number(bytes, place.l3 + 2), bytes.len() - place.l3)
    };
    if said != is || (place.protocol == 17 && number(bytes, place.l4 + 4) != bytes.len() - place.l4) {
        return wrong("lengths that are not its own");
    }
    let field = number(bytes, start + offset) as u16;
    // Zero and all ones are one number.
    if field % 0xffff != pseudo_sum(bytes, place, bytes.len() - place.l4) % 0xffff {
        return wrong("another sum than that of its pseudo header");
    }
    None
}

/// The packets that leave the kernel for a frame it takes: cut, with complete checksums.
pub fn packets(vnet: &VnetHeader, bytes: &[u8]) -> Vec<Vec<u8>> {
    if vnet.gso_type == GSO_NONE {
        let mut packet = bytes.to_vec();
        if vnet.flags & NEEDS_CSUM != 0 {
            let start = usize::from(vnet.csum_start);
            let sum = ones_sum(&packet[start..], 0);
            put_checksum(&mut packet, start + usize::from(vnet.csum_offset), sum);
        }
        return vec![packet];
    }
    let Some(place) = place(bytes) else { return Vec::new() };
    let (headers, payload) = bytes.split_at(place.payload);
    let count = payload.len().div_ceil(usize::from(vnet.gso_size));
    let cut = |(index, chunk): (usize, &[u8])| segment(place, headers, chunk, index, index + 1 == count, usize::from(vnet.gso_size));
    payload.chunks(usize::from(vnet.gso_size)).enumerate().map(cut).collect()
}

fn segment(place: Place, headers: &[u8], chunk: &[u8], index: usize, last: bool, size: usize) -> Vec<u8> {
    let mut packet = [headers, chunk].concat();
    let Place { v6, protocol, l3, l4, .. } = place;
    let length = packet.len();
    let mut put = |at: usize, value: usize| packet[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
    if v6 {
        put(l3 + 4, length - l3 - 40);
    } else {
        put(l3 + 2, length - l3);
        put(l3 + 4, number(headers, l3 + 4) + index);
        put(l3 + 10, 0);
        let sum = ones_sum(&packet[l3..l4], 0);
        packet[l3 + 10..l3 + 12].copy_from_slice(&(!sum).to_be_bytes());
    }
    let field = if protocol == 6 {
        let sequence = (number(headers, l4 + 4) << 16 | number(headers, l4 + 6)) as u32;
        packet[l4 + 4..l4 + 8].copy_from_slice(&sequence.wrapping_add((index * size) as u32).to_be_bytes());
        // FIN and PSH stand on the last, CWR on the first.
        packet[l4 + 13] &= !(if last { 0 } else { 0x09 } | if index == 0 { 0 } else { 0x80 });
        l4 + 16
    } else {
        packet[l4 + 4..l4 + 6].copy_from_slice(&((length - l4) as u16).to_be_bytes());
        l4 + 6
    };
    packet[field..field + 2].copy_from_slice(&[0, 0]);
    let sum = ones_sum(&packet[l4..], u32::from(pseudo_sum(&packet, place, length - l4)));
    put_checksum(&mut packet, field, sum);
    packet
}

/// A checksum of zero would mean "none" in UDP; in TCP it is the same number as all ones.
fn put_checksum(packet: &mut [u8], at: usize, sum: u16) {
    let value = if sum == 0xffff { 0xffff } else { !sum };
    packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Flow, in a sense, of a packet: what two packets of one connection share (addresses, protocol, ports and tags).
pub fn flow(packet: &[u8]) -> Vec<u8> {
    match place(packet) {
        Some(Place { v6: false, l3, l4, .. }) => [&packet[..l3], &packet[l3 + 12..l3 + 20], &packet[l4..l4 + 4]].concat(),
        Some(Place { v6: true, l3, l4, .. }) => [&packet[..l3], &packet[l3 + 8..l3 + 40], &packet[l4..l4 + 4]].concat(),
        None => packet[..14.min(packet.len())].to_vec(),
    }
}

/// TCP's sequence number, flags and payload; `None` for other packets.
pub fn tcp(packet: &[u8]) -> Option<(u32, u8, &[u8])> {
    let place = place(packet).filter(|place| place.protocol == 6)?;
    let sequence = number(packet, place.l4 + 4) << 16 | number(packet, place.l4 + 6);
    Some((sequence as u32, packet[place.l4 + 13], &packet[place.payload..]))
}

/// A UDP packet that is never fragmented may have any IPv4 id (RFC 6864), and joining takes its own: the packet without it.
pub fn without_free_id(mut packet: Vec<u8>) -> Vec<u8> {
    if let Some(Place { v6: false, protocol: 17, l3, .. }) = place(&packet)
        && packet[l3 + 6] & 0x40 != 0
    {
        packet[l3 + 4..l3 + 6].copy_from_slice(&[0, 0]);
        packet[l3 + 10..l3 + 12].copy_from_slice(&[0, 0]);
    }
    packet
}
