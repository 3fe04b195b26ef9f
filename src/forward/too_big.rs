//! "Too big": the answer to a sending container whose packet fits no datagram and must not be fragmented, so that its TCP
//! adapts (RFC 1191 for IPv4, RFC 4443 section 3.2 for IPv6).

use std::io::IoSlice;

use crate::wire::vnet::VnetHeader;

use super::checksum::{fold, sum, write_ipv4_header};
use super::frame::{Frame, Net};
use super::tap::TapSink;

/// Smaller MTUs are not announced over IPv4: Linux would not obey them (`net.ipv4.route.min_pmtu`).
const MIN_MTU_V4: usize = 552;
/// Smaller MTUs may not be announced over IPv6 (RFC 8200 section 5).
const MIN_MTU_V6: usize = 1280;
/// As much of the packet as RFC 1812 section 4.3.2.3 allows to be quoted over IPv4, headers of the answer included.
const MAX_ANSWER_V4: usize = 576;
/// The same over IPv6 (RFC 4443 section 2.4).
const MAX_ANSWER_V6: usize = 1280;
/// Ethernet, two VLAN tags and the larger answer.
const MAX_ANSWER: usize = 22 + MAX_ANSWER_V6;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The MTU to announce to the sender of an IP packet of `packet` bytes that does not fit a path with the inner MTU `mtu`;
/// `None` where there is no such answer, and the frame has to travel in fragments.
pub fn answerable(bytes: &[u8], frame: &Frame, packet: usize, mtu: usize) -> Option<u16> {
    let l3 = usize::from(frame.l3);
    let unicast_macs = bytes.first()? & 1 == 0 && bytes.get(6)? & 1 == 0;
    let (least, right) = match frame.net {
        Net::V4 => {
            let source = bytes.get(l3 + 12..l3 + 16)?;
            let destination = bytes.get(l3 + 16)?;
            (MIN_MTU_V4, frame.dont_fragment && is_host_v4(source) && *destination < 224)
        }
        Net::V6 => {
            let source = bytes.get(l3 + 8..l3 + 24)?;
            let destination = bytes.get(l3 + 24)?;
            (MIN_MTU_V6, source[0] != 0xff && source.iter().any(|byte| *byte != 0) && *destination != 0xff)
        }
        Net::Other => return None,
    };
    let announced = mtu.max(least);
    let fits_announced = packet <= announced;
    (unicast_macs && right && !fits_announced && !is_icmp_error(bytes, frame)).then(|| u16::try_from(announced).ok()).flatten()
}

/// Writes the answer to the TAP: from the destination of the packet, to its sender.
pub fn answer(bytes: &[u8], frame: &Frame, mtu: u16, tap: &mut dyn TapSink) {
    let mut out = [0u8; MAX_ANSWER];
    let length = match frame.net {
        Net::V4 => write_v4(bytes, frame, mtu, &mut out),
        Net::V6 => write_v6(bytes, frame, mtu, &mut out),
        Net::Other => None,
    };
    if let Some(answer) = length.and_then(|length| out.get(..length)) {
        tap.write(&VnetHeader::default(), &[IoSlice::new(answer)]);
    }
}

/// Ethernet header and tags of the answer: the packet's, with the MACs swapped.
fn write_link<'a>(bytes: &[u8], l3: usize, out: &'a mut [u8]) -> Option<&'a mut [u8]> {
    let (link, rest) = out.split_at_mut_checked(l3)?;
    link.copy_from_slice(bytes.get(..l3)?);
    link[..6].copy_from_slice(bytes.get(6..12)?);
    link[6..12].copy_from_slice(bytes.get(..6)?);
    Some(rest)
}

fn write_v4(bytes: &[u8], frame: &Frame, mtu: u16, out: &mut [u8]) -> Option<usize> {
    let l3 = usize::from(frame.l3);
    let packet = bytes.get(l3..)?;
    let quoted = packet.get(..packet.len().min(MAX_ANSWER_V4 - 28))?;
    let ip = write_link(bytes, l3, out)?.get_mut(..28 + quoted.len())?;
    let length = ip.len() as u16;
    let (header, icmp) = ip.split_at_mut(20);
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[6] = 0x40;
    header[8] = 64;
    header[9] = ICMP;
    header[12..16].copy_from_slice(packet.get(16..20)?);
    header[16..20].copy_from_slice(packet.get(12..16)?);
    write_ipv4_header(header);
    icmp[0] = 3;
    icmp[1] = 4;
    icmp[6..8].copy_from_slice(&mtu.to_be_bytes());
    icmp[8..].copy_from_slice(quoted);
    let checksum = !fold(sum(icmp));
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(l3 + usize::from(length))
}

fn write_v6(bytes: &[u8], frame: &Frame, mtu: u16, out: &mut [u8]) -> Option<usize> {
    let l3 = usize::from(frame.l3);
    let packet = bytes.get(l3..)?;
    let quoted = packet.get(..packet.len().min(MAX_ANSWER_V6 - 48))?;
    let ip = write_link(bytes, l3, out)?.get_mut(..48 + quoted.len())?;
    let payload = (ip.len() - 40) as u16;
    let (header, icmp) = ip.split_at_mut(40);
    header[0] = 0x60;
    header[4..6].copy_from_slice(&payload.to_be_bytes());
    header[6] = ICMPV6;
    header[7] = 64;
    header[8..24].copy_from_slice(packet.get(24..40)?);
    header[24..40].copy_from_slice(packet.get(8..24)?);
    icmp[0] = 2;
    icmp[4..8].copy_from_slice(&u32::from(mtu).to_be_bytes());
    icmp[8..].copy_from_slice(quoted);
    let checksum = !fold(sum(&header[8..40]) + u64::from(payload) + u64::from(ICMPV6) + sum(icmp));
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(l3 + 40 + usize::from(payload))
}

fn is_host_v4(address: &[u8]) -> bool {
    matches!(address, [first, ..] if *first < 224 && *first != 127) && address.iter().any(|byte| *byte != 0)
}

/// Errors are never answered with errors (RFC 1122 section 3.2.2, RFC 4443 section 2.4), nor are fragments but the first,
/// whose type nobody can see.
fn is_icmp_error(bytes: &[u8], frame: &Frame) -> bool {
    let (l3, l4) = (usize::from(frame.l3), usize::from(frame.l4));
    let kind = bytes.get(l4).copied().unwrap_or(0);
    match (frame.net, frame.protocol) {
        (Net::V4, _) if bytes.get(l3 + 6..l3 + 8).is_some_and(|field| field[0] & 0x1f != 0 || field[1] != 0) => true,
        (Net::V4, ICMP) => !matches!(kind, 0 | 8 | 13 | 14),
        (Net::V6, ICMPV6) => kind < 128,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
