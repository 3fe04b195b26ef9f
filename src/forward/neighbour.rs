//! Address resolution as it is seen on the wire: ARP (RFC 826, 5227) and neighbour discovery (RFC 4861), and answers to both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{fold, sum};
use super::frame::{Frame, Net, be16};

const ARP: u16 = 0x0806;
/// Ethernet and IPv4, with their lengths.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Bytes of an ARP packet for them.
const ARP_LEN: usize = 28;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Bytes of either before its options.
const ND_LEN: usize = 24;
/// Options that name a link-layer address, of the source and of the target; both are one unit of eight bytes.
const TARGET_OPTION: u8 = 2;
/// Flags of an advertisement: its sender is a router; it was asked for. "Override" stays clear: that is for the owner.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
/// Longest answer: an advertisement behind two VLAN tags.
pub const LONGEST: usize = 14 + 8 + 40 + ND_LEN + 8;

/// Who asks, and for which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The address.
    pub target: IpAddr,
    /// The address of who asks.
    pub asker: IpAddr,
}

/// Who says that an address is his.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub ip: IpAddr,
    /// Where it is.
    pub mac: [u8; 6],
    /// True for a router, whose advertisements say more than another could answer.
    pub router: bool,
}

/// What a frame of address resolution says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// An address that is asked for by who has one.
    pub question: Option<Question>,
    /// An address and its place.
    pub claim: Option<Claim>,
}

/// What a frame says of addresses: a frame that asks whether an address is free says neither; `None` where it is about something else.
pub fn parse(bytes: &[u8], frame: &Frame) -> Option<Resolution> {
    match frame.net {
        Net::Other => parse_arp(bytes, usize::from(frame.l3)),
        Net::V6 if frame.protocol == ICMPV6 && !frame.fragment && !frame.has_extensions() => parse_nd(bytes, frame),
        Net::V4 | Net::V6 => None,
    }
}

fn parse_arp(bytes: &[u8], l3: usize) -> Option<Resolution> {
    if be16(bytes, l3.checked_sub(2)?) != Some(ARP) {
        return None;
    }
    let packet: &[u8; ARP_LEN] = bytes.get(l3..)?.first_chunk()?;
    let (head, rest) = packet.split_first_chunk::<6>()?;
    let ([high, operation], rest) = rest.split_first_chunk()?;
    let (mac, rest) = rest.split_first_chunk::<6>()?;
    let (sender, rest) = rest.split_first_chunk::<4>()?;
    let target = IpAddr::from(*rest.last_chunk::<4>()?);
    let asker = IpAddr::from(*sender);
    if *head != ARP_HEAD || *high != 0 || !matches!(operation, 1 | 2) || asker.is_unspecified() {
        return (*head == ARP_HEAD).then_some(Resolution::default());
    }
    let claim = Some(Claim { ip: asker, mac: *mac, router: false });
    let question = (*operation == 1 && asker != target).then_some(Question { target, asker });
    Some(Resolution { question, claim })
}

fn parse_nd(bytes: &[u8], frame: &Frame) -> Option<Resolution> {
    let (l3, l4) = (usize::from(frame.l3), usize::from(frame.l4));
    let header: &[u8; 40] = bytes.get(l3..)?.first_chunk()?;
    let message = bytes.get(l4..bytes.len().min(frame.ip_end as usize))?;
    let fixed: &[u8; ND_LEN] = message.first_chunk()?;
    // A packet that was routed is none of a neighbour.
    if header[7] != 255 || fixed[1] != 0 {
        return None;
    }
    let target = IpAddr::from(*fixed.last_chunk::<16>()?);
    let source = IpAddr::from(*header.get(8..)?.first_chunk::<16>()?);
    match fixed[0] {
        SOLICITATION if source.is_unspecified() => Some(Resolution::default()),
        SOLICITATION => Some(Resolution { question: Some(Question { target, asker: source }), claim: None }),
        ADVERTISEMENT => {
            let router = fixed[4] & ROUTER != 0;
            let claim = target_mac(message.get(ND_LEN..)?).map(|mac| Claim { ip: target, mac, router });
            Some(Resolution { question: None, claim })
        }
        _ => None,
    }
}

/// The link-layer address of the target among the options of an advertisement.
fn target_mac(mut options: &[u8]) -> Option<[u8; 6]> {
    while let Some((&[kind, units], _)) = options.split_first_chunk() {
        let (option, rest) = options.split_at_checked(usize::from(units) * 8)?;
        if kind == TARGET_OPTION {
            return option.get(2..)?.first_chunk().copied();
        }
        if units == 0 {
            return None;
        }
        options = rest;
    }
    None
}

/// Writes the answer to a question that was asked by `request`, as the station of `mac` would give it; its length, or `None` where
/// there is none.
pub fn answer(request: &[u8], frame: &Frame, question: &Question, mac: [u8; 6], out: &mut [u8; LONGEST]) -> Option<usize> {
    let l3 = usize::from(frame.l3);
    let asker: &[u8; 6] = request.get(6..)?.first_chunk()?;
    out.get_mut(..6)?.copy_from_slice(asker);
    out.get_mut(6..12)?.copy_from_slice(&mac);
    // Tags and ethertype are those of the request.
    out.get_mut(12..l3)?.copy_from_slice(request.get(12..l3)?);
    let body = out.get_mut(l3..)?;
    let written = match (question.target, question.asker) {
        (IpAddr::V4(target), IpAddr::V4(ip)) => write_arp(body, (target, mac), (ip, *asker))?,
        (IpAddr::V6(target), IpAddr::V6(ip)) => write_advertisement(body, (target, mac), ip)?,
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    Some(l3 + written)
}

fn write_arp(out: &mut [u8], (target, mac): (Ipv4Addr, [u8; 6]), (asker, asker_mac): (Ipv4Addr, [u8; 6])) -> Option<usize> {
    let packet = out.get_mut(..ARP_LEN)?;
    packet[..6].copy_from_slice(&ARP_HEAD);
    packet[6..8].copy_from_slice(&[0, 2]);
    packet[8..14].copy_from_slice(&mac);
    packet[14..18].copy_from_slice(&target.octets());
    packet[18..24].copy_from_slice(&asker_mac);
    packet[24..].copy_from_slice(&asker.octets());
    Some(ARP_LEN)
}

fn write_advertisement(out: &mut [u8], (target, mac): (Ipv6Addr, [u8; 6]), asker: Ipv6Addr) -> Option<usize> {
    const LEN: usize = ND_LEN + 8;
    let packet = out.get_mut(..40 + LEN)?;
    packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, LEN as u8, ICMPV6, 255]);
    packet[8..24].copy_from_slice(&target.octets());
    packet[24..40].copy_from_slice(&asker.octets());
    let message = &mut packet[40..];
    message[..8].copy_from_slice(&[ADVERTISEMENT, 0, 0, 0, SOLICITED, 0, 0, 0]);
    message[8..24].copy_from_slice(&target.octets());
    message[24..26].copy_from_slice(&[TARGET_OPTION, 1]);
    message[26..].copy_from_slice(&mac);
    let pseudo = sum(&target.octets()) + sum(&asker.octets()) + LEN as u64 + u64::from(ICMPV6);
    let checksum = !fold(pseudo + sum(message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(40 + LEN)
}

#[cfg(test)]
mod tests;
