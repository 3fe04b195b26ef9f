//! What stations say of the multicast groups they are members of: IGMP (RFC 1112, 2236, 3376) and MLD (RFC 2710, 3810), and our own questions.
//!
//! Who is a member is asked for by multicast routers. Where there are none, nobody asks, and a snooping switch forgets all members; so each
//! router asks on its own bridge, as RFC 4541 describes it (2.1.1): from 0.0.0.0, which takes part in no election of queriers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{fold, sum, write_ipv4_header};
use super::frame::{ETHERNET_LEN, Frame, Net};
use crate::wire::groups::is_told;

const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
const PIM: u8 = 103;
/// The source of every router's questions, so that one that comes over a bridge joined to another's is known.
pub const ASKER_MAC: [u8; 6] = [0x02, 0x77, 0x65, 0x61, 0x76, 0x65];
/// Their source of IPv6, which must be a link-local address.
const ASKER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x77, 0x6561, 0x7665);
const ALL_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Members answer within a second: in tenths and in thousandths of one.
const ANSWER_WITHIN: (u8, u16) = (10, 1000);
/// Every question may be lost once; the seconds between two.
const ROBUSTNESS: u8 = 2;
pub(crate) const INTERVAL_SECONDS: u8 = 125;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk<'a> {
    /// A multicast router, or who acts as one, asks or speaks to others.
    Router,
    /// A router of a mesh or a snooping switch asks.
    Snooper,
    /// A station tells of groups.
    Report(Report<'a>),
}

/// A station's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report<'a> {
    /// It is a member of one group, or no more.
    One(IpAddr, bool),
    /// Records of IGMPv3.
    V4(&'a [u8]),
    /// Records of MLDv2.
    V6(&'a [u8]),
}

impl Report<'_> {
    /// Hands on each group, and whether the station is a member.
    pub fn for_each(&self, mut told: impl FnMut(IpAddr, bool)) {
        let (mut rest, length) = match *self {
            Report::One(group, joined) => return told(group, joined),
            Report::V4(records) => (records, 4),
            Report::V6(records) => (records, 16),
        };
        while let Some((&[kind, extra, high, low], after)) = rest.split_first_chunk() {
            let sources = usize::from(u16::from_be_bytes([high, low]));
            let Some((group, after)) = after.split_at_checked(length) else { return };
            let Some(after) = after.get(sources * length + 4 * usize::from(extra)..) else { return };
            let group: Option<IpAddr> = match length {
                4 => group.first_chunk::<4>().map(|ip| IpAddr::from(*ip)),
                _ => group.first_chunk::<16>().map(|ip| IpAddr::from(*ip)),
            };
            // RFC 3376, 4.2.12: only what is included, all but what is excluded, changes to either, more sources, and fewer.
            let joined = match (kind, sources) {
                (1 | 3, 0) => Some(false),
                (1 | 3, _) | (2 | 4 | 5, _) => Some(true),
                (6, _) => Some(false),
                _ => None,
            };
            if let (Some(group), Some(joined)) = (group, joined) {
                told(group, joined);
            }
            rest = after;
        }
    }
}

/// What a frame says of groups; `None` where it is about something else.
pub fn parse<'a>(bytes: &'a [u8], frame: &Frame) -> Option<Talk<'a>> {
    let message = || bytes.get(usize::from(frame.l4)..bytes.len().min(frame.ip_end as usize));
    match (frame.net, frame.protocol) {
        (Net::V4 | Net::V6, PIM) => Some(Talk::Router),
        (Net::V4, IGMP) if !frame.fragment => parse_igmp(message()?, bytes.get(usize::from(frame.l3) + 12..)?.first_chunk()?),
        (Net::V6, ICMPV6) if !frame.fragment => parse_mld(message()?, bytes.get(usize::from(frame.l3) + 8..)?.first_chunk()?),
        (Net::Other | Net::V4 | Net::V6, _) => None,
    }
}

fn parse_igmp<'a>(message: &'a [u8], source: &[u8; 4]) -> Option<Talk<'a>> {
    let (&[kind, _, _, _, a, b, c, d], rest) = message.split_first_chunk()?;
    let group = IpAddr::from([a, b, c, d]);
    match kind {
        0x11 if *source == [0; 4] => Some(Talk::Snooper),
        // A question, DVMRP, PIM of old, and the advertisement of a multicast router (RFC 4286).
        0x11 | 0x13 | 0x14 | 0x30 => Some(Talk::Router),
        0x12 | 0x16 => Some(Talk::Report(Report::One(group, true))),
        0x17 => Some(Talk::Report(Report::One(group, false))),
        0x22 => Some(Talk::Report(Report::V4(rest))),
        _ => None,
    }
}

fn parse_mld<'a>(message: &'a [u8], source: &[u8; 16]) -> Option<Talk<'a>> {
    let (&[kind, ..], rest) = message.split_first_chunk::<8>()?;
    let group = || rest.first_chunk::<16>().map(|ip| IpAddr::from(*ip));
    match kind {
        130 if Ipv6Addr::from(*source) == ASKER => Some(Talk::Snooper),
        130 | 151 => Some(Talk::Router),
        131 => Some(Talk::Report(Report::One(group()?, true))),
        132 => Some(Talk::Report(Report::One(group()?, false))),
        143 => Some(Talk::Report(Report::V6(rest))),
        _ => None,
    }
}

/// The group whose members alone want this frame; `None` for frames that go to everybody: what is no IP, of one link only, or inside a VLAN
/// (members there are not known), and what keeps groups together itself.
pub fn group_of(bytes: &[u8], frame: &Frame) -> Option<IpAddr> {
    let l3 = usize::from(frame.l3);
    if l3 != ETHERNET_LEN || frame.protocol == IGMP || frame.protocol == PIM {
        return None;
    }
    let mac: &[u8; 6] = bytes.first_chunk()?;
    let (group, its_mac) = match frame.net {
        Net::V4 => {
            let ip @ [_, b, c, d]: [u8; 4] = *bytes.get(l3 + 16..)?.first_chunk()?;
            (IpAddr::from(ip), [1, 0, 0x5e, b & 0x7f, c, d])
        }
        Net::V6 => {
            let ip: [u8; 16] = *bytes.get(l3 + 24..)?.first_chunk()?;
            let [a, b, c, d] = *ip.last_chunk()?;
            (IpAddr::from(ip), [0x33, 0x33, a, b, c, d])
        }
        Net::Other => return None,
    };
    let is_about_groups = || frame.protocol == ICMPV6 && parse(bytes, frame).is_some();
    (is_told(group) && *mac == its_mac && !is_about_groups()).then_some(group)
}

/// Frames that ask who is a member: of any group of IPv4 and of IPv6, or of this one.
pub fn questions(group: Option<IpAddr>) -> Vec<Vec<u8>> {
    match group {
        None => vec![question_v4(None), question_v6(None)],
        Some(IpAddr::V4(group)) => vec![question_v4(Some(group))],
        Some(IpAddr::V6(group)) => vec![question_v6(Some(group))],
    }
}

/// IGMPv3 (RFC 3376, 4.1), with the router alert option.
fn question_v4(group: Option<Ipv4Addr>) -> Vec<u8> {
    let to = group.unwrap_or(ALL_V4);
    let [_, b, c, d] = to.octets();
    let mut frame = [&[1, 0, 0x5e, b & 0x7f, c, d][..], &ASKER_MAC, &[8, 0]].concat();
    frame.extend_from_slice(&[0x46, 0xc0, 0, 36, 0, 0, 0, 0, 1, IGMP, 0, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(&to.octets());
    frame.extend_from_slice(&[0x94, 4, 0, 0]);
    write_ipv4_header(&mut frame[ETHERNET_LEN..]);
    let mut message = vec![0x11, ANSWER_WITHIN.0, 0, 0];
    message.extend_from_slice(&group.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    message.extend_from_slice(&[ROBUSTNESS, INTERVAL_SECONDS, 0, 0]);
    let checksum = !fold(sum(&message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

/// MLDv2 (RFC 3810, 5.1), behind a hop-by-hop header with the router alert option.
fn question_v6(group: Option<Ipv6Addr>) -> Vec<u8> {
    const LEN: u8 = 28;
    let to = group.unwrap_or(ALL_V6);
    let [.., a, b, c, d] = to.octets();
    let mut frame = [&[0x33, 0x33, a, b, c, d][..], &ASKER_MAC, &[0x86, 0xdd]].concat();
    frame.extend_from_slice(&[0x60, 0, 0, 0, 0, 8 + LEN, 0, 1]);
    frame.extend_from_slice(&ASKER.octets());
    frame.extend_from_slice(&to.octets());
    frame.extend_from_slice(&[ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
    let mut message = vec![130, 0, 0, 0];
    message.extend_from_slice(&ANSWER_WITHIN.1.to_be_bytes());
    message.extend_from_slice(&[0, 0]);
    message.extend_from_slice(&group.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
    message.extend_from_slice(&[ROBUSTNESS, INTERVAL_SECONDS, 0, 0]);
    let pseudo = sum(&ASKER.octets()) + sum(&to.octets()) + u64::from(LEN) + u64::from(ICMPV6);
    let checksum = !fold(pseudo + sum(&message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

#[cfg(test)]
mod tests;
