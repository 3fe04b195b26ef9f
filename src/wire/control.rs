//! Control records: the plaintext of a lane-0 datagram is a run of `[type 1][length 2][body]`.
//!
//! | type | record | body |
//! | --- | --- | --- |
//! | 1 | PING | sequence 4, flags 1 (active, link, frames in clear taken), age 2, root 8 |
//! | 2 | PONG | sequence 4, flags 1, root 8 |
//! | 3 | LINK | flags 1 |
//! | 4 | CLOSE | reason 1, addresses |
//! | 5 | OBSERVED | address |
//! | 6 | PROBE | nonce 4, size 2, padding |
//! | 7 | PROBED | nonce 4, size 2 |
//! | 8 | CHALLENGE | nonce 8 |
//! | 9 | RESPONSE | nonce 8 |
//! | 10 | GOSSIP | a message of [`crate::mesh::gossip`] |
//! | 11 | FASTDP | flags 1, refusal 1, port 2, network identifier 3, MAC 6 |
//! | 12 | APP | channel 1, message: see [`crate::mesh::apps`] |
//! | 13 | CANDIDATES | addresses |
//! | 14 | TRACE | probe 8, destination 6, hops left 1 |
//! | 15 | TRACED | probe 8, router 6, next hop 6, end 1 |
//!
//! A record of a type, with a reason or about an address that nobody knows is passed over, so that a newer router may say more.
//! A record that is cut short ends the datagram: what stood before it counts. Numbers are big endian.

use super::address::Address;
use super::name::PeerName;

/// Bytes of a record's type and length.
pub const RECORD_HEADER: usize = 3;
/// Bytes of a PROBE's body before the padding.
const PROBE_FIXED: usize = 6;

const PING: u8 = 1;
const PONG: u8 = 2;
const LINK: u8 = 3;
const CLOSE: u8 = 4;
const OBSERVED: u8 = 5;
const PROBE: u8 = 6;
const PROBED: u8 = 7;
const CHALLENGE: u8 = 8;
const RESPONSE: u8 = 9;
const GOSSIP: u8 = 10;
const FASTDP: u8 = 11;
const APP: u8 = 12;
const CANDIDATES: u8 = 13;
const TRACE: u8 = 14;
const TRACED: u8 = 15;

/// A heartbeat that asks for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// True where the sender takes frames in clear from the receiver, at the address that this came from.
    pub clear: bool,
    /// Counts the pings of a link.
    pub sequence: u32,
    /// True while data flows: the other side is to probe at the fast pace too.
    pub active: bool,
    /// True where the sender holds this adjacency as a link, false for a mere path.
    pub link: bool,
    /// Milliseconds since anything DIRECT was heard from the other side; `u16::MAX` for "never" or longer.
    pub age: u16,
    /// Root of the sender's hash tree of gossip records.
    pub root: u64,
}

/// The answer to a [`Ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The ping's sequence.
    pub sequence: u32,
    /// True while data flows.
    pub active: bool,
    /// Root of the sender's hash tree of gossip records.
    pub root: u64,
}

/// The wish for a control adjacency, and the consent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// True in the answer to a LINK: no further answer is wanted.
    pub answer: bool,
    /// True where the sender has no other link: even a full router takes it then.
    pub only: bool,
}

/// Why an adjacency is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseReason {
    /// The router is going down.
    Leaving = 1,
    /// The router has all the links it may have; the addresses name others to ask.
    Full = 2,
    /// The sender holds no link with the other side.
    NoLink = 3,
}

impl CloseReason {
    /// The reason with this number.
    pub fn from_number(number: u8) -> Option<CloseReason> {
        [CloseReason::Leaving, CloseReason::Full, CloseReason::NoLink].into_iter().find(|reason| *reason as u8 == number)
    }
}

/// Why a router that was started for the fast datapath does not use it with the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The VXLAN device is missing.
    Device,
    /// The other side's address is in none of the trusted subnets.
    Untrusted,
    /// The path carries too small datagrams, or has not been measured yet.
    Path,
    /// The host has no device for the address family of the underlay between the two.
    Family,
    /// Something that a later version knows of.
    Other(u8),
}

impl Refusal {
    /// Its number; 0 stands for none.
    pub fn number(self) -> u8 {
        match self {
            Refusal::Device => 1,
            Refusal::Untrusted => 2,
            Refusal::Path => 3,
            Refusal::Family => 4,
            Refusal::Other(number) => number,
        }
    }

    /// The refusal with this number; `None` for 0.
    pub fn from_number(number: u8) -> Option<Refusal> {
        match number {
            0 => None,
            1 => Some(Refusal::Device),
            2 => Some(Refusal::Untrusted),
            3 => Some(Refusal::Path),
            4 => Some(Refusal::Family),
            other => Some(Refusal::Other(other)),
        }
    }
}

/// What a router says of its fast datapath to one other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fastdp {
    /// Why it does not take frames from the receiver in the kernel; `None` where it does.
    pub refusal: Option<Refusal>,
    /// True where heartbeats of the receiver came through the device lately.
    pub hears: bool,
    /// UDP port of its VXLAN device.
    pub port: u16,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// MAC of its VXLAN device, to which heartbeats are sent.
    pub mac: [u8; 6],
}

/// A question that goes from router to router towards a destination, as frames would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Names the question.
    pub probe: u64,
    /// Where the way leads.
    pub destination: PeerName,
    /// How many routers pass it on; the next answers.
    pub left: u8,
}

/// The answer, which goes back the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Names the question.
    pub probe: u64,
    /// Who answers.
    pub router: PeerName,
    /// The next router on the way; [`PeerName::NONE`] where there is none.
    pub next: PeerName,
    /// Why there is none, as a number: 0 where there is one, 1 at the destination, 2 without a route, 3 where nothing is passed on.
    pub end: u8,
}

/// One control record, its variable parts borrowed from the datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A heartbeat.
    Ping(Ping),
    /// Its answer.
    Pong(Pong),
    /// The wish for a link, or the consent.
    Link(Link),
    /// The end of a link, or the refusal of one.
    Close(CloseReason, Vec<Address>),
    /// The address at which the sender sees the receiver.
    Observed(Address),
    /// A path MTU probe of this many bytes of UDP payload.
    Probe {
        /// Names the probe.
        nonce: u32,
        /// Bytes of UDP payload of the whole datagram.
        size: u16,
    },
    /// The answer to a probe that arrived.
    Probed {
        /// The probe's name.
        nonce: u32,
        /// The probe's size.
        size: u16,
    },
    /// Asks whether the peer is at the address this was sent to; RELAYED, whether it has the session that this was sealed with.
    Challenge(u64),
    /// It is.
    Response(u64),
    /// A message of the gossip.
    Gossip(&'a [u8]),
    /// The state of the sender's fast datapath towards the receiver.
    Fastdp(Fastdp),
    /// A message for a part of the program above the mesh.
    App {
        /// Which part.
        channel: u8,
        /// The message.
        body: &'a [u8],
    },
    /// The sender looks for a direct path, and may be at one of these addresses.
    Candidates(Vec<Address>),
    /// The question for the routers on a way.
    Trace(Trace),
    /// Its answer.
    Traced(Traced),
}

impl Record<'_> {
    /// Appends the record's wire form.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Record::Ping(ping) => frame(out, PING, |out| {
                out.extend_from_slice(&ping.sequence.to_be_bytes());
                out.push(u8::from(ping.active) | u8::from(ping.link) << 1 | u8::from(ping.clear) << 2);
                out.extend_from_slice(&ping.age.to_be_bytes());
                out.extend_from_slice(&ping.root.to_be_bytes());
            }),
            Record::Pong(pong) => frame(out, PONG, |out| {
                out.extend_from_slice(&pong.sequence.to_be_bytes());
                out.push(u8::from(pong.active));
                out.extend_from_slice(&pong.root.to_be_bytes());
            }),
            Record::Link(link) => frame(out, LINK, |out| out.push(u8::from(link.answer) | u8::from(link.only) << 1)),
            Record::Close(reason, addresses) => frame(out, CLOSE, |out| {
                out.push(*reason as u8);
                addresses.iter().for_each(|address| address.write(out));
            }),
            Record::Observed(address) => frame(out, OBSERVED, |out| address.write(out)),
            Record::Probe { nonce, size } => frame(out, PROBE, |out| probe(out, *nonce, *size)),
            Record::Probed { nonce, size } => frame(out, PROBED, |out| probe(out, *nonce, *size)),
            Record::Challenge(nonce) => frame(out, CHALLENGE, |out| out.extend_from_slice(&nonce.to_be_bytes())),
            Record::Response(nonce) => frame(out, RESPONSE, |out| out.extend_from_slice(&nonce.to_be_bytes())),
            Record::Gossip(message) => frame(out, GOSSIP, |out| out.extend_from_slice(message)),
            Record::Fastdp(word) => frame(out, FASTDP, |out| {
                out.push(u8::from(word.hears));
                out.push(word.refusal.map_or(0, Refusal::number));
                out.extend_from_slice(&word.port.to_be_bytes());
                out.extend_from_slice(&word.vni.to_be_bytes()[1..]);
                out.extend_from_slice(&word.mac);
            }),
            Record::App { channel, body } => frame(out, APP, |out| {
                out.push(*channel);
                out.extend_from_slice(body);
            }),
            Record::Candidates(addresses) => frame(out, CANDIDATES, |out| addresses.iter().for_each(|address| address.write(out))),
            Record::Trace(trace) => frame(out, TRACE, |out| {
                out.extend_from_slice(&trace.probe.to_be_bytes());
                out.extend_from_slice(&trace.destination.0);
                out.push(trace.left);
            }),
            Record::Traced(traced) => frame(out, TRACED, |out| {
                out.extend_from_slice(&traced.probe.to_be_bytes());
                out.extend_from_slice(&traced.router.0);
                out.extend_from_slice(&traced.next.0);
                out.push(traced.end);
            }),
        }
    }

    /// Bytes of the record's wire form.
    pub fn wire_len(&self) -> usize {
        match self {
            Record::Gossip(message) => RECORD_HEADER + message.len(),
            Record::App { body, .. } => RECORD_HEADER + 1 + body.len(),
            Record::Ping(_)
            | Record::Pong(_)
            | Record::Link(_)
            | Record::Close(..)
            | Record::Observed(_)
            | Record::Probe { .. }
            | Record::Probed { .. }
            | Record::Challenge(_)
            | Record::Response(_)
            | Record::Fastdp(_)
            | Record::Candidates(_)
            | Record::Trace(_)
            | Record::Traced(_) => {
                let mut bytes = Vec::new();
                self.write(&mut bytes);
                bytes.len()
            }
        }
    }
}

/// Appends a PROBE whose padding makes the run of records `total` bytes long (at least the bare record).
pub fn write_padded_probe(out: &mut Vec<u8>, nonce: u32, size: u16, total: usize) {
    let padding = total.saturating_sub(out.len() + RECORD_HEADER + PROBE_FIXED);
    frame(out, PROBE, |out| {
        probe(out, nonce, size);
        out.resize(out.len() + padding, 0);
    });
}

fn probe(out: &mut Vec<u8>, nonce: u32, size: u16) {
    out.extend_from_slice(&nonce.to_be_bytes());
    out.extend_from_slice(&size.to_be_bytes());
}

fn frame(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[kind, 0, 0]);
    let start = out.len();
    body(out);
    let len = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(start - 2..start) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

/// The records of a lane-0 plaintext, in order; ends at the first that is malformed.
pub struct Records<'a> {
    rest: &'a [u8],
    bad: bool,
}

impl<'a> Records<'a> {
    /// The records in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Records<'a> {
        Records { rest: bytes, bad: false }
    }

    /// True once a malformed record has ended the run.
    pub fn is_bad(&self) -> bool {
        self.bad
    }

    fn split(&mut self) -> Option<(u8, &'a [u8])> {
        let (head, rest) = self.rest.split_first_chunk::<RECORD_HEADER>()?;
        let [kind, hi, lo] = *head;
        let (body, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([hi, lo])))?;
        self.rest = rest;
        Some((kind, body))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        while !self.rest.is_empty() && !self.bad {
            let parsed = self.split().map(|(kind, body)| parse(kind, body));
            match parsed {
                Some(Parsed::Known(record)) => return Some(record),
                Some(Parsed::Unknown) => {}
                Some(Parsed::Bad) | None => self.bad = true,
            }
        }
        None
    }
}

enum Parsed<'a> {
    Known(Record<'a>),
    Unknown,
    Bad,
}

fn parse(kind: u8, body: &[u8]) -> Parsed<'_> {
    if !(PING..=TRACED).contains(&kind) || is_of_a_later_version(kind, body) {
        return Parsed::Unknown;
    }
    match parse_known(kind, body) {
        Some(record) => Parsed::Known(record),
        None => Parsed::Bad,
    }
}

/// True for well-formed records whose reason or address this version does not know.
fn is_of_a_later_version(kind: u8, body: &[u8]) -> bool {
    let mut rest = body;
    match kind {
        CLOSE => body.first().is_some_and(|reason| CloseReason::from_number(*reason).is_none()),
        OBSERVED => Address::read_form(&mut rest).is_some_and(|form| Address::parse(form).is_none()),
        _ => false,
    }
}

fn parse_known(kind: u8, body: &[u8]) -> Option<Record<'_>> {
    let mut rest = body;
    Some(match kind {
        PING => {
            let sequence = u32::from_be_bytes(take(&mut rest)?);
            let [flags] = take(&mut rest)?;
            let age = u16::from_be_bytes(take(&mut rest)?);
            let root = u64::from_be_bytes(take(&mut rest)?);
            Record::Ping(Ping { sequence, active: flags & 1 != 0, link: flags & 2 != 0, clear: flags & 4 != 0, age, root })
        }
        PONG => {
            let sequence = u32::from_be_bytes(take(&mut rest)?);
            let [flags] = take(&mut rest)?;
            Record::Pong(Pong { sequence, active: flags & 1 != 0, root: u64::from_be_bytes(take(&mut rest)?) })
        }
        LINK => {
            let [flags] = take(&mut rest)?;
            Record::Link(Link { answer: flags & 1 != 0, only: flags & 2 != 0 })
        }
        CLOSE => {
            let [reason] = take(&mut rest)?;
            Record::Close(CloseReason::from_number(reason)?, parse_addresses(rest)?)
        }
        OBSERVED => Record::Observed(Address::read(&mut rest)?),
        PROBE => Record::Probe { nonce: u32::from_be_bytes(take(&mut rest)?), size: u16::from_be_bytes(take(&mut rest)?) },
        PROBED => Record::Probed { nonce: u32::from_be_bytes(take(&mut rest)?), size: u16::from_be_bytes(take(&mut rest)?) },
        CHALLENGE => Record::Challenge(u64::from_be_bytes(take(&mut rest)?)),
        RESPONSE => Record::Response(u64::from_be_bytes(take(&mut rest)?)),
        GOSSIP => Record::Gossip(body),
        FASTDP => {
            let [flags, refusal] = take(&mut rest)?;
            let port = u16::from_be_bytes(take(&mut rest)?);
            let [a, b, c] = take(&mut rest)?;
            let vni = u32::from_be_bytes([0, a, b, c]);
            let mac = take(&mut rest)?;
            Record::Fastdp(Fastdp { refusal: Refusal::from_number(refusal), hears: flags & 1 != 0, port, vni, mac })
        }
        APP => {
            let [channel] = take(&mut rest)?;
            Record::App { channel, body: rest }
        }
        CANDIDATES => Record::Candidates(parse_addresses(rest)?),
        TRACE => {
            let (probe, destination, [left]) = (u64::from_be_bytes(take(&mut rest)?), PeerName(take(&mut rest)?), take(&mut rest)?);
            Record::Trace(Trace { probe, destination, left })
        }
        TRACED => {
            let (probe, router) = (u64::from_be_bytes(take(&mut rest)?), PeerName(take(&mut rest)?));
            let (next, [end]) = (PeerName(take(&mut rest)?), take(&mut rest)?);
            Record::Traced(Traced { probe, router, next, end })
        }
        _ => return None,
    })
}

/// Addresses up to the end; those in forms that nobody knows yet are left out.
fn parse_addresses(mut rest: &[u8]) -> Option<Vec<Address>> {
    let mut addresses = Vec::new();
    while !rest.is_empty() {
        addresses.extend(Address::parse(Address::read_form(&mut rest)?));
    }
    Some(addresses)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests;
