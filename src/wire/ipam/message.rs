//! The messages between the address books of routers, and the record by which each says how far it is.
//!
//! ```text
//! message  kind 1, mesh 16, body
//!  1 BUCKETS  answer wanted 1, on hold 1, 128 × checksum 8      what I have: whoever has other entries in a bucket sends them
//!  2 ENTRIES  (length 2, entry)…
//!  3 ASK      request 8, range 32, all of it 1       space is wanted
//!  4 DENY     request 8, reason 1
//!  5 PREPARE  ballot 38, size 2                      start-up agreement
//!  6 PROMISE  ballot 38, size 2, [ballot 38, length 2, genesis]
//!  7 ACCEPT   ballot 38, genesis
//!  8 ACCEPTED ballot 38
//!  9 REFUSE   ballot 38, promised ballot 38
//! 10 NEED     nothing: somebody who has no vote wants a ring
//! 11 REMOVE   dead 6, round 4                        the sender asks for a vote
//! 12 FENCE    removal 16                             have you heard of it, and what do you know of the dead?
//! 13 FENCED   removal 16, checksum 16
//! 14 OWNED    count 1 × range 32                     to a router of another mesh
//! 15 HOLDING  count 1 × address 16                   to a router of another mesh
//! 16 ALIVE    dead 6                                 no vote: the sender reaches the router
//!
//! digest   version 1, flags 1, key 32, mesh 16, checksum 16, entries 4, count 1 × (range 32, free 1), (length 2, entry)…
//! ```

use super::{BadIpam, Entry, EntryId, MAX_RANGES, Range, Reader, write_list};
use crate::crypto::PublicKey;
use crate::wire::PeerName;

/// Buckets that entries fall into by the first bits of their names.
pub const BUCKETS: usize = 128;
/// Largest message in bytes.
pub const MAX_MESSAGE: usize = 1100;
/// Largest digest in bytes: one chunk of a record.
pub const MAX_DIGEST: usize = 1033;
/// Most ranges or addresses of one message between two meshes.
pub const MAX_LISTED: usize = 30;
const BALLOT: usize = 38;

/// Why space is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Nothing is free in what was asked for.
    Full = 1,
    /// The very address is in use.
    InUse = 2,
    /// It is not the one asked that owns it.
    NotOwner = 3,
    /// It may not give anything just now.
    NotNow = 4,
}

/// A numbered attempt of a router to have a genesis agreed on; the higher goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ballot {
    /// Counts attempts.
    pub round: u64,
    /// Whose attempt.
    pub proposer: PeerName,
    /// Tells apart what one name attempts before and after it lost its disk.
    pub nonce: [u8; 24],
}

impl Ballot {
    /// Before every attempt.
    pub const NONE: Ballot = Ballot { round: 0, proposer: PeerName::NONE, nonce: [0; 24] };

    /// The wire form.
    pub fn to_bytes(&self) -> [u8; BALLOT] {
        let mut bytes = [0; BALLOT];
        bytes[..8].copy_from_slice(&self.round.to_be_bytes());
        bytes[8..14].copy_from_slice(&self.proposer.0);
        bytes[14..].copy_from_slice(&self.nonce);
        bytes
    }

    /// The inverse of [`Ballot::to_bytes`].
    pub fn from_bytes(bytes: [u8; BALLOT]) -> Ballot {
        let mut rest = Reader(&bytes);
        let (round, proposer, nonce) = (rest.take(), rest.take(), rest.take());
        Ballot {
            round: u64::from_be_bytes(round.unwrap_or_default()),
            proposer: PeerName(proposer.unwrap_or_default()),
            nonce: nonce.unwrap_or_default(),
        }
    }
}

/// One message, to one router.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table above says what the fields are")]
pub enum Message {
    Buckets { answer: bool, on_hold: bool, sums: Box<[u64; BUCKETS]> },
    Entries(Vec<Entry>),
    Ask { request: u64, range: Range, exact: bool },
    Deny { request: u64, reason: Denial },
    Prepare { ballot: Ballot, size: u16 },
    Promise { ballot: Ballot, size: u16, accepted: Option<(Ballot, Entry)> },
    Accept { ballot: Ballot, genesis: Entry },
    Accepted { ballot: Ballot },
    Refuse { ballot: Ballot, promised: Ballot },
    Need,
    Remove { dead: PeerName, round: u32 },
    Fence { removal: EntryId },
    Fenced { removal: EntryId, sum: u128 },
    Owned(Vec<Range>),
    Holding(Vec<u128>),
    Alive { dead: PeerName },
}

impl Message {
    /// The wire form. Lists are bounded by whoever makes the message: [`MAX_MESSAGE`] in all.
    pub fn to_bytes(&self, mesh: EntryId) -> Vec<u8> {
        let mut out = vec![self.kind()];
        out.extend_from_slice(&mesh.0);
        match self {
            Message::Buckets { answer, on_hold, sums } => {
                out.extend_from_slice(&[u8::from(*answer), u8::from(*on_hold)]);
                sums.iter().for_each(|sum| out.extend_from_slice(&sum.to_be_bytes()));
            }
            Message::Entries(entries) => write_entries(&mut out, entries),
            Message::Ask { request, range, exact } => {
                out.extend_from_slice(&request.to_be_bytes());
                range.write(&mut out);
                out.push(u8::from(*exact));
            }
            Message::Deny { request, reason } => {
                out.extend_from_slice(&request.to_be_bytes());
                out.push(*reason as u8);
            }
            Message::Prepare { ballot, size } => write_ballot(&mut out, ballot, *size),
            Message::Promise { ballot, size, accepted } => {
                write_ballot(&mut out, ballot, *size);
                if let Some((ballot, genesis)) = accepted {
                    out.extend_from_slice(&ballot.to_bytes());
                    write_entries(&mut out, std::slice::from_ref(genesis));
                }
            }
            Message::Accept { ballot, genesis } => {
                out.extend_from_slice(&ballot.to_bytes());
                write_entries(&mut out, std::slice::from_ref(genesis));
            }
            Message::Accepted { ballot } => out.extend_from_slice(&ballot.to_bytes()),
            Message::Refuse { ballot, promised } => {
                out.extend_from_slice(&ballot.to_bytes());
                out.extend_from_slice(&promised.to_bytes());
            }
            Message::Need => {}
            Message::Remove { dead, round } => {
                out.extend_from_slice(&dead.0);
                out.extend_from_slice(&round.to_be_bytes());
            }
            Message::Fence { removal } => out.extend_from_slice(&removal.0),
            Message::Fenced { removal, sum } => {
                out.extend_from_slice(&removal.0);
                out.extend_from_slice(&sum.to_be_bytes());
            }
            Message::Owned(ranges) => write_list(&mut out, ranges, |out, range| range.write(out)),
            Message::Holding(list) => write_list(&mut out, list, |out, address| out.extend_from_slice(&address.to_be_bytes())),
            Message::Alive { dead } => out.extend_from_slice(&dead.0),
        }
        out
    }

    /// Parses a message: the sender's mesh, and what it says.
    pub fn parse(bytes: &[u8]) -> Result<(EntryId, Message), BadIpam> {
        if bytes.len() > MAX_MESSAGE {
            return Err(BadIpam::Length);
        }
        let mut rest = Reader(bytes);
        let (kind, mesh) = (rest.byte()?, EntryId(rest.take()?));
        let message = Message::read(kind, &mut rest)?;
        rest.end()?;
        Ok((mesh, message))
    }

    fn read(kind: u8, rest: &mut Reader<'_>) -> Result<Message, BadIpam> {
        let ballot = |rest: &mut Reader<'_>| rest.take().map(Ballot::from_bytes);
        Ok(match kind {
            1 => {
                let (answer, on_hold, mut sums) = (rest.flag()?, rest.flag()?, Box::new([0; BUCKETS]));
                for sum in sums.iter_mut() {
                    *sum = u64::from_be_bytes(rest.take()?);
                }
                Message::Buckets { answer, on_hold, sums }
            }
            2 => Message::Entries(read_entries(rest)?),
            3 => Message::Ask { request: u64::from_be_bytes(rest.take()?), range: Range::read(rest)?, exact: rest.flag()? },
            4 => Message::Deny { request: u64::from_be_bytes(rest.take()?), reason: Denial::read(rest.byte()?)? },
            5 => Message::Prepare { ballot: ballot(rest)?, size: u16::from_be_bytes(rest.take()?) },
            6 => {
                let (first, size) = (ballot(rest)?, u16::from_be_bytes(rest.take()?));
                let accepted = if rest.0.is_empty() { None } else { Some((ballot(rest)?, read_genesis(rest)?)) };
                Message::Promise { ballot: first, size, accepted }
            }
            7 => Message::Accept { ballot: ballot(rest)?, genesis: read_genesis(rest)? },
            8 => Message::Accepted { ballot: ballot(rest)? },
            9 => Message::Refuse { ballot: ballot(rest)?, promised: ballot(rest)? },
            10 => Message::Need,
            11 => Message::Remove { dead: PeerName(rest.take()?), round: u32::from_be_bytes(rest.take()?) },
            12 => Message::Fence { removal: EntryId(rest.take()?) },
            13 => Message::Fenced { removal: EntryId(rest.take()?), sum: u128::from_be_bytes(rest.take()?) },
            14 => Message::Owned(rest.ascending(0, MAX_LISTED, Range::read)?),
            15 => Message::Holding(rest.ascending(0, MAX_LISTED, |rest| rest.take().map(u128::from_be_bytes))?),
            16 => Message::Alive { dead: PeerName(rest.take()?) },
            _ => return Err(BadIpam::Kind),
        })
    }

    fn kind(&self) -> u8 {
        match self {
            Message::Buckets { .. } => 1,
            Message::Entries(_) => 2,
            Message::Ask { .. } => 3,
            Message::Deny { .. } => 4,
            Message::Prepare { .. } => 5,
            Message::Promise { .. } => 6,
            Message::Accept { .. } => 7,
            Message::Accepted { .. } => 8,
            Message::Refuse { .. } => 9,
            Message::Need => 10,
            Message::Remove { .. } => 11,
            Message::Fence { .. } => 12,
            Message::Fenced { .. } => 13,
            Message::Owned(_) => 14,
            Message::Holding(_) => 15,
            Message::Alive { .. } => 16,
        }
    }
}

impl Denial {
    fn read(byte: u8) -> Result<Denial, BadIpam> {
        Ok(match byte {
            1 => Denial::Full,
            2 => Denial::InUse,
            3 => Denial::NotOwner,
            4 => Denial::NotNow,
            _ => return Err(BadIpam::Value),
        })
    }
}

/// What a router publishes of its address book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// True if it has no vote and founds nothing.
    pub observer: bool,
    /// True if it has not yet compared its ring with anybody since it started.
    pub on_hold: bool,
    /// Its identity key.
    pub key: PublicKey,
    /// Its mesh, [`EntryId::NONE`] without a ring.
    pub mesh: EntryId,
    /// The names of all its entries, added.
    pub sum: u128,
    /// How many entries it has.
    pub entries: u32,
    /// The ranges of its configuration, each with the number of bits of how many addresses it could give of it.
    pub ranges: Vec<(Range, u8)>,
    /// Its newest entries, so that most of what is new needs no message.
    pub newest: Vec<Entry>,
}

impl Digest {
    /// The wire form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![1, u8::from(self.observer) | u8::from(self.on_hold) << 1];
        out.extend_from_slice(&self.key.0);
        out.extend_from_slice(&self.mesh.0);
        out.extend_from_slice(&self.sum.to_be_bytes());
        out.extend_from_slice(&self.entries.to_be_bytes());
        write_list(&mut out, &self.ranges, |out, (range, free)| {
            range.write(out);
            out.push(*free);
        });
        write_entries(&mut out, &self.newest);
        out
    }

    /// Parses a digest.
    pub fn parse(bytes: &[u8]) -> Result<Digest, BadIpam> {
        if bytes.len() > MAX_DIGEST {
            return Err(BadIpam::Length);
        }
        let mut rest = Reader(bytes);
        if rest.byte()? != 1 {
            return Err(BadIpam::Kind);
        }
        let flags = rest.byte()?;
        let (key, mesh) = (PublicKey(rest.take()?), EntryId(rest.take()?));
        let (sum, entries) = (u128::from_be_bytes(rest.take()?), u32::from_be_bytes(rest.take()?));
        let ranges = rest.ascending(0, MAX_RANGES, |rest| Ok((Range::read(rest)?, rest.byte()?)))?;
        if flags > 3 {
            return Err(BadIpam::Value);
        }
        let newest = read_entries(&mut rest)?;
        Ok(Digest { observer: flags & 1 != 0, on_hold: flags & 2 != 0, key, mesh, sum, entries, ranges, newest })
    }
}

fn write_ballot(out: &mut Vec<u8>, ballot: &Ballot, size: u16) {
    out.extend_from_slice(&ballot.to_bytes());
    out.extend_from_slice(&size.to_be_bytes());
}

fn write_entries(out: &mut Vec<u8>, entries: &[Entry]) {
    for entry in entries {
        let bytes = entry.bytes();
        out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(bytes);
    }
}

fn read_entries(rest: &mut Reader<'_>) -> Result<Vec<Entry>, BadIpam> {
    let mut entries = Vec::new();
    while !rest.0.is_empty() {
        let len = usize::from(u16::from_be_bytes(rest.take()?));
        entries.push(Entry::parse(rest.bytes(len)?)?);
    }
    Ok(entries)
}

fn read_genesis(rest: &mut Reader<'_>) -> Result<Entry, BadIpam> {
    let entries = read_entries(rest)?;
    let [genesis] = <[Entry; 1]>::try_from(entries).map_err(|_| BadIpam::Length)?;
    if matches!(genesis.body, super::Body::Genesis { .. }) { Ok(genesis) } else { Err(BadIpam::Value) }
}
