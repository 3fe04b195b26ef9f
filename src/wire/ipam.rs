//! What routers say to each other about addresses: the entries of the ring, and the messages that carry them.
//!
//! ```text
//! entry    kind 1, mesh 16, author's key 32, body, signature 64
//!  1 GENESIS  mode 1 (1 consensus, 2 seeds), nonce 16, count 1 × range 32, count 1 × founder (key 32, or name 6 of a seed)
//!  2 GRANT    parent 16, range 32, new owner's key 32
//!  3 VOTE     dead 6, round 4, taker's key 32, owners seen 2
//!  4 REMOVAL  dead 6, round 4, forced 1, count 1 × vote 16
//!  5 TAKEN    removal 16, parent 16, range 32
//!  6 DONE     removal 16, checksum 16
//!  7 TALLY    dead 6, round 4, count 1 × vote 16      a REMOVAL names these where it rests on more votes than it has room for
//! ```
//!
//! Numbers are big endian. A range is its first and its last address, 16 bytes each; an IPv4 address is written as the IPv6 address that maps it.
//! An entry is named by the first 16 bytes of the SHA-256 of all that its signature covers; the mesh id is the name of the genesis, whose own mesh
//! field is zero. The genesis of a list of seeds has no author: nonce, key and signature are zero. Lists ascend strictly, lengths are exact: one
//! content has one encoding.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use sha2::{Digest as _, Sha256};

use super::name::PeerName;
use crate::crypto::PublicKey;

pub mod message;

pub use message::{Digest, Message};

/// Most ranges of one mesh: IPv4 and IPv6.
pub const MAX_RANGES: usize = 2;
/// Most founders by key: the genesis fits one message.
pub const MAX_FOUNDERS: usize = 24;
/// Most founders by name.
pub const MAX_SEEDS: usize = 64;
/// Most votes named in one tally, and votes or tallies in one removal.
pub const MAX_VOTES: usize = 48;
/// Largest entry in bytes: a genesis of as many keys as there may be.
pub const MAX_ENTRY: usize = HEAD + 1 + 16 + 1 + 32 * MAX_RANGES + 1 + 32 * MAX_FOUNDERS + SIGNATURE;
const HEAD: usize = 1 + 16 + 32;
const SIGNATURE: usize = 64;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIpam {
    /// It ends too early, or goes on after its end.
    #[error("its length is wrong")]
    Length,
    /// A kind of a later version.
    #[error("its kind is unknown")]
    Kind,
    /// A value outside what its field may hold.
    #[error("a value is out of range")]
    Value,
    /// The same content has another encoding, as by the order of a list.
    #[error("it is not the one encoding of its content")]
    NotCanonical,
}

/// A run of addresses, both ends included; IPv4 as mapped IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The lowest address.
    pub first: u128,
    /// The highest address.
    pub last: u128,
}

/// An address as the number that ranges are made of.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The inverse of [`number`].
pub fn address(number: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(number)).to_canonical()
}

impl Range {
    /// True if the address is in it.
    pub fn contains(&self, address: u128) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// True if all of the other is in it.
    pub fn covers(&self, other: &Range) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// What both have.
    pub fn intersect(&self, other: &Range) -> Option<Range> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Range { first, last })
    }

    /// The range as a network, if it is one.
    pub fn network(&self) -> Option<ipnet::IpNet> {
        let (first, bits) = (address(self.first), self.size().checked_ilog2()? as u8);
        let most = if first.is_ipv4() { 32 } else { 128 };
        let net = ipnet::IpNet::new(first, most - bits.min(most)).ok()?;
        (number(net.network()) == self.first && number(net.broadcast()) == self.last).then_some(net)
    }

    /// How many addresses; saturates.
    pub fn size(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", address(self.first), address(self.last))
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId(pub [u8; 16]);

impl EntryId {
    /// The name nobody has; as a mesh id, no mesh yet.
    pub const NONE: EntryId = EntryId([0; 16]);

    /// As a number, for sums over sets.
    pub fn to_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Those among whom a range is divided first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Founders {
    /// Routers that agreed.
    Keys(Vec<PublicKey>),
    /// Routers that an operator named.
    Seeds(Vec<PeerName>),
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// How a mesh begins.
    Genesis {
        /// Makes two meshes of the same founders different.
        nonce: [u8; 16],
        /// What there is to give, ascending, disjoint.
        ranges: Vec<Range>,
        /// Among whom it is divided, ascending.
        founders: Founders,
    },
    /// The author gives a part of what it was given in `parent`.
    Grant {
        /// The entry by which the author owns the range.
        parent: EntryId,
        /// What is given.
        range: Range,
        /// To whom.
        owner: PublicKey,
    },
    /// The author, an owner, holds that a router is gone for good.
    Vote {
        /// The router that is gone.
        dead: PeerName,
        /// Counts attempts to remove it.
        round: u32,
        /// Who is to have its space.
        taker: PublicKey,
        /// How many owners the author knows.
        owners: u16,
    },
    /// A majority has voted: the author is to have the space of the dead, once everybody has heard.
    Removal {
        /// The router that is gone.
        dead: PeerName,
        /// Counts attempts to remove it.
        round: u32,
        /// True if an operator insisted, without votes.
        forced: bool,
        /// The votes, or tallies of them, ascending.
        votes: Vec<EntryId>,
    },
    /// Votes for the author, for a removal that rests on many.
    Tally {
        /// The router that is gone.
        dead: PeerName,
        /// Counts attempts to remove it.
        round: u32,
        /// The votes, or tallies of votes, ascending.
        votes: Vec<EntryId>,
    },
    /// The author takes a range of the dead.
    Taken {
        /// By which removal.
        removal: EntryId,
        /// The entry by which the dead owned it.
        parent: EntryId,
        /// What is taken.
        range: Range,
    },
    /// All that the dead had has been taken.
    Done {
        /// By which removal.
        removal: EntryId,
        /// The names of all that was taken by it, added: nobody holds it done before it has them all.
        taken: u128,
    },
}

/// A well-formed entry of the ring. Whether its signature holds and its author may say so is for the ring to check.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    bytes: Box<[u8]>,
    id: EntryId,
    /// The mesh it belongs to.
    pub mesh: EntryId,
    /// Who says so.
    pub author: PublicKey,
    /// What it says.
    pub body: Body,
}

impl Entry {
    /// Parses a whole entry.
    pub fn parse(bytes: &[u8]) -> Result<Entry, BadIpam> {
        let (signed, _) = bytes.split_last_chunk::<SIGNATURE>().ok_or(BadIpam::Length)?;
        let mut rest = Reader(signed);
        let kind = rest.byte()?;
        let (mesh, author) = (EntryId(rest.take()?), PublicKey(rest.take()?));
        let body = Body::read(kind, &mut rest)?;
        rest.end()?;
        let id = Entry::name(signed);
        let mut entry = Entry { bytes: bytes.into(), id, mesh, author, body };
        if let Body::Genesis { nonce, founders, .. } = &entry.body {
            let unsigned = *nonce == [0; 16] && author.0 == [0; 32] && *entry.signature() == [0; 64];
            if mesh != EntryId::NONE || matches!(founders, Founders::Seeds(_)) != unsigned {
                return Err(BadIpam::Value);
            }
            entry.mesh = id;
        } else if mesh == EntryId::NONE {
            return Err(BadIpam::Value);
        }
        Ok(entry)
    }

    /// Writes and signs an entry. `mesh` is ignored for a genesis. `sign` is handed the bytes that the signature covers.
    pub fn build(mesh: EntryId, author: &PublicKey, body: &Body, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Result<Entry, BadIpam> {
        let mesh = if matches!(body, Body::Genesis { .. }) { EntryId::NONE } else { mesh };
        let mut bytes = vec![body.kind()];
        bytes.extend_from_slice(&mesh.0);
        bytes.extend_from_slice(&author.0);
        body.write(&mut bytes);
        let signature = sign(&bytes);
        bytes.extend_from_slice(&signature);
        Entry::parse(&bytes)
    }

    /// The genesis that a list of seeds stands for, the same wherever it is made.
    pub fn of_seeds(ranges: Vec<Range>, mut seeds: Vec<PeerName>) -> Result<Entry, BadIpam> {
        seeds.sort_unstable();
        seeds.dedup();
        let body = Body::Genesis { nonce: [0; 16], ranges, founders: Founders::Seeds(seeds) };
        Entry::build(EntryId::NONE, &PublicKey([0; 32]), &body, |_| [0; 64])
    }

    /// Its name.
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// The whole entry as it travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes that the signature covers.
    pub fn signed(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - SIGNATURE]
    }

    /// The signature.
    pub fn signature(&self) -> &[u8; 64] {
        self.bytes.last_chunk().expect("a parsed entry ends in a signature")
    }

    fn name(signed: &[u8]) -> EntryId {
        let hash: [u8; 32] = Sha256::digest(signed).into();
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        EntryId(id)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by {}: {:?}", self.id, self.author.name(), self.body)
    }
}

impl Body {
    fn kind(&self) -> u8 {
        match self {
            Body::Genesis { .. } => 1,
            Body::Grant { .. } => 2,
            Body::Vote { .. } => 3,
            Body::Removal { .. } => 4,
            Body::Taken { .. } => 5,
            Body::Done { .. } => 6,
            Body::Tally { .. } => 7,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Body::Genesis { nonce, ranges, founders } => {
                out.push(if matches!(founders, Founders::Keys(_)) { 1 } else { 2 });
                out.extend_from_slice(nonce);
                write_list(out, ranges, |out, range| range.write(out));
                match founders {
                    Founders::Keys(keys) => write_list(out, keys, |out, key| out.extend_from_slice(&key.0)),
                    Founders::Seeds(names) => write_list(out, names, |out, name| out.extend_from_slice(&name.0)),
                }
            }
            Body::Grant { parent, range, owner } => {
                out.extend_from_slice(&parent.0);
                range.write(out);
                out.extend_from_slice(&owner.0);
            }
            Body::Vote { dead, round, taker, owners } => {
                out.extend_from_slice(&dead.0);
                out.extend_from_slice(&round.to_be_bytes());
                out.extend_from_slice(&taker.0);
                out.extend_from_slice(&owners.to_be_bytes());
            }
            Body::Removal { dead, round, forced, votes } => {
                out.extend_from_slice(&dead.0);
                out.extend_from_slice(&round.to_be_bytes());
                out.push(u8::from(*forced));
                write_list(out, votes, |out, vote| out.extend_from_slice(&vote.0));
            }
            Body::Tally { dead, round, votes } => {
                out.extend_from_slice(&dead.0);
                out.extend_from_slice(&round.to_be_bytes());
                write_list(out, votes, |out, vote| out.extend_from_slice(&vote.0));
            }
            Body::Taken { removal, parent, range } => {
                out.extend_from_slice(&removal.0);
                out.extend_from_slice(&parent.0);
                range.write(out);
            }
            Body::Done { removal, taken } => {
                out.extend_from_slice(&removal.0);
                out.extend_from_slice(&taken.to_be_bytes());
            }
        }
    }

    fn read(kind: u8, rest: &mut Reader<'_>) -> Result<Body, BadIpam> {
        Ok(match kind {
            1 => {
                let (mode, nonce) = (rest.byte()?, rest.take()?);
                let ranges = rest.ascending(1, MAX_RANGES, Range::read)?;
                if ranges.windows(2).any(|pair| pair[0].last >= pair[1].first) {
                    return Err(BadIpam::Value);
                }
                let founders = match mode {
                    1 => Founders::Keys(rest.ascending(1, MAX_FOUNDERS, |rest| rest.take().map(PublicKey))?),
                    2 => Founders::Seeds(rest.ascending(1, MAX_SEEDS, |rest| rest.take().map(PeerName))?),
                    _ => return Err(BadIpam::Kind),
                };
                Body::Genesis { nonce, ranges, founders }
            }
            2 => Body::Grant { parent: EntryId(rest.take()?), range: Range::read(rest)?, owner: PublicKey(rest.take()?) },
            3 => Body::Vote {
                dead: PeerName(rest.take()?),
                round: u32::from_be_bytes(rest.take()?),
                taker: PublicKey(rest.take()?),
                owners: u16::from_be_bytes(rest.take()?),
            },
            4 => {
                let (dead, round) = (PeerName(rest.take()?), u32::from_be_bytes(rest.take()?));
                let forced = rest.flag()?;
                let votes = rest.ascending(0, MAX_VOTES, |rest| rest.take().map(EntryId))?;
                if forced != votes.is_empty() {
                    return Err(BadIpam::Value);
                }
                Body::Removal { dead, round, forced, votes }
            }
            5 => Body::Taken { removal: EntryId(rest.take()?), parent: EntryId(rest.take()?), range: Range::read(rest)? },
            7 => Body::Tally {
                dead: PeerName(rest.take()?),
                round: u32::from_be_bytes(rest.take()?),
                votes: rest.ascending(1, MAX_VOTES, |rest| rest.take().map(EntryId))?,
            },
            6 => Body::Done { removal: EntryId(rest.take()?), taken: u128::from_be_bytes(rest.take()?) },
            _ => return Err(BadIpam::Kind),
        })
    }
}

impl Range {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first.to_be_bytes());
        out.extend_from_slice(&self.last.to_be_bytes());
    }

    fn read(rest: &mut Reader<'_>) -> Result<Range, BadIpam> {
        let range = Range { first: u128::from_be_bytes(rest.take()?), last: u128::from_be_bytes(rest.take()?) };
        if range.first > range.last { Err(BadIpam::Value) } else { Ok(range) }
    }
}

/// Writes a list with its count; lists are bounded where they are made, and refused by the parser otherwise.
fn write_list<T>(out: &mut Vec<u8>, list: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(u8::try_from(list.len()).unwrap_or(u8::MAX));
    list.iter().for_each(|item| write(out, item));
}

/// Bytes that are being read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadIpam> {
        let (head, rest) = self.0.split_first_chunk().ok_or(BadIpam::Length)?;
        self.0 = rest;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, BadIpam> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Result<bool, BadIpam> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(BadIpam::Value),
        }
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], BadIpam> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(BadIpam::Length)?;
        self.0 = rest;
        Ok(head)
    }

    fn ascending<T: Ord>(
        &mut self,
        least: usize,
        most: usize,
        read: impl Fn(&mut Reader<'a>) -> Result<T, BadIpam>,
    ) -> Result<Vec<T>, BadIpam> {
        let count = usize::from(self.byte()?);
        if !(least..=most).contains(&count) {
            return Err(BadIpam::Value);
        }
        let list = (0..count).map(|_| read(self)).collect::<Result<Vec<T>, BadIpam>>()?;
        if list.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(BadIpam::NotCanonical);
        }
        Ok(list)
    }

    fn end(&self) -> Result<(), BadIpam> {
        if self.0.is_empty() { Ok(()) } else { Err(BadIpam::Length) }
    }
}

#[cfg(test)]
mod tests;
