//! What gossip records say: the bodies of the record types this build knows.
//!
//! ```text
//! 1 NODE   handshake key 32, certificate 64, features 4, nickname len 1 + text, version len 1 + text, count 1, addresses
//! 2 LINKS  count 2, count × (neighbour 6, cost 4, max datagram 2), ascending by neighbour
//! 3 MACS   count 2, count × (VLAN 2, MAC 6, moves 4), ascending by (VLAN, MAC)
//! 4 LEFT   nothing: this incarnation of the origin has gone
//! ```
//!
//! An address is its length and its bytes; forms that are unknown here are carried as they are, and all ascend by their bytes.
//! Every body may end in TLV extensions. One content has one encoding: a body that this build would write
//! differently is refused.

use super::address::Address;
use super::name::PeerName;

/// Longest nickname, in bytes of UTF-8.
pub const MAX_NICKNAME: usize = 64;
/// Longest text that names a software version, in bytes.
pub const MAX_VERSION: usize = 32;
/// Most underlay addresses a router may tell.
pub const MAX_ADDRESSES: usize = 24;
/// Largest cost of a link: sums over any route stay far from overflow.
pub const MAX_COST: u32 = (1 << 24) - 1;
/// Links in one chunk; leaves room for extensions.
pub const LINKS_PER_CHUNK: usize = 80;
/// MACs in one chunk; leaves room for extensions.
pub const MACS_PER_CHUNK: usize = 80;

/// Feature of a router that passes nothing on for others.
pub const NO_TRANSIT: u32 = 2;

/// Number of the NODE type.
pub const NODE: u8 = 1;
/// Number of the LINKS type.
pub const LINKS: u8 = 2;
/// Number of the MACS type.
pub const MACS: u8 = 3;
/// Number of the LEFT type.
pub const LEFT: u8 = 4;

/// Why bytes are not a body of their type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// It ends too early, or goes on after its end.
    #[error("its length is wrong")]
    Length,
    /// A value outside what its field may hold.
    #[error("a value is out of range")]
    Value,
    /// The same content has another encoding, as by the order of a list.
    #[error("it is not the one encoding of its content")]
    NotCanonical,
    /// A type that has one part only came in another.
    #[error("its type has no such chunk")]
    Chunk,
}

/// TLV extensions of a body, well formed and otherwise uninterpreted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Extensions(Box<[u8]>);

impl Extensions {
    /// Extensions from (type, value) pairs, which must ascend strictly by type.
    pub fn new(pairs: &[(u8, &[u8])]) -> Result<Extensions, BadBody> {
        let mut bytes = Vec::new();
        for (kind, value) in pairs {
            bytes.push(*kind);
            bytes.extend_from_slice(&u16::try_from(value.len()).map_err(|_| BadBody::Length)?.to_be_bytes());
            bytes.extend_from_slice(value);
        }
        Extensions::parse(&bytes)
    }

    /// The (type, value) pairs.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || next_tlv(&mut rest).ok())
    }

    fn parse(bytes: &[u8]) -> Result<Extensions, BadBody> {
        let (mut rest, mut last) = (bytes, None);
        while !rest.is_empty() {
            let (kind, _) = next_tlv(&mut rest)?;
            if last.is_some_and(|last| last >= kind) {
                return Err(BadBody::NotCanonical);
            }
            last = Some(kind);
        }
        Ok(Extensions(bytes.into()))
    }
}

/// Who a router is and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its handshake key (X25519).
    pub noise: [u8; 32],
    /// The signature by which its identity key vouches for the handshake key.
    pub certificate: [u8; 64],
    /// Bits of optional abilities: [`NO_TRANSIT`], others are carried.
    pub features: u32,
    /// What its operator calls it, at most [`MAX_NICKNAME`] bytes, no control characters.
    pub nickname: String,
    /// Version of its software, at most [`MAX_VERSION`] bytes, no control characters.
    pub version: String,
    /// Its underlay addresses, ascending, at most [`MAX_ADDRESSES`].
    pub addresses: Vec<Address>,
    /// Wire forms, their lengths included, of addresses that only later versions know; they count towards [`MAX_ADDRESSES`].
    pub unknown_addresses: Vec<Box<[u8]>>,
    /// What later versions add.
    pub extensions: Extensions,
}

impl Node {
    /// The same with every field brought into its limits: texts cut, addresses sorted and cut to their number.
    pub fn normalised(mut self) -> Node {
        self.nickname = printable(&self.nickname, MAX_NICKNAME);
        self.version = printable(&self.version, MAX_VERSION);
        self.addresses.sort_unstable();
        self.addresses.dedup();
        self.addresses.truncate(MAX_ADDRESSES);
        self
    }

    /// The wire forms of all addresses, ascending: the order is the same whatever forms a version knows.
    fn address_forms(&self) -> Vec<Box<[u8]>> {
        let form = |address: &Address| {
            let mut bytes = Vec::new();
            address.write(&mut bytes);
            bytes.into_boxed_slice()
        };
        let mut forms: Vec<Box<[u8]>> = self.addresses.iter().map(form).chain(self.unknown_addresses.iter().cloned()).collect();
        forms.sort_unstable();
        forms
    }
}

/// A link as one of its ends advertises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkEntry {
    /// The other end.
    pub neighbour: PeerName,
    /// Quantised cost, 1 to [`MAX_COST`].
    pub cost: u32,
    /// Largest UDP payload that fits it, in bytes.
    pub max_datagram: u16,
}

/// A MAC on the bridge of the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MacEntry {
    /// VLAN id, 0 for untagged, at most 4095.
    pub vlan: u16,
    /// The MAC, unicast.
    pub mac: [u8; 6],
    /// Counts how often it moved between routers: the highest count is where it is now.
    pub moves: u32,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Who the origin is.
    Node(Node),
    /// A part of its links.
    Links(Vec<LinkEntry>, Extensions),
    /// A part of the MACs on its bridge.
    Macs(Vec<MacEntry>, Extensions),
    /// This incarnation of the origin has gone.
    Left(Extensions),
    /// A type this build does not know, carried as it is.
    Unknown(u8, Box<[u8]>),
}

impl Body {
    /// Number of the record type.
    pub fn kind(&self) -> u8 {
        match self {
            Body::Node(_) => NODE,
            Body::Links(..) => LINKS,
            Body::Macs(..) => MACS,
            Body::Left(_) => LEFT,
            Body::Unknown(kind, _) => *kind,
        }
    }

    /// Parses a body of the type `kind`.
    pub fn parse(kind: u8, chunk: u16, bytes: &[u8]) -> Result<Body, BadBody> {
        if matches!(kind, NODE | LEFT) && chunk != 0 {
            return Err(BadBody::Chunk);
        }
        let mut rest = bytes;
        let body = match kind {
            NODE => Body::Node(parse_node(&mut rest)?),
            LINKS => Body::Links(parse_list(&mut rest, parse_link)?, Extensions::parse(rest)?),
            MACS => Body::Macs(parse_list(&mut rest, parse_mac)?, Extensions::parse(rest)?),
            LEFT => Body::Left(Extensions::parse(rest)?),
            other => return Ok(Body::Unknown(other, bytes.into())),
        };
        if body.is_sorted() && body.to_bytes() == bytes { Ok(body) } else { Err(BadBody::NotCanonical) }
    }

    /// The body's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Body::Node(node) => write_node(node, &mut out),
            Body::Links(links, extensions) => {
                out.extend_from_slice(&count(links.len()));
                for link in links {
                    out.extend_from_slice(&link.neighbour.0);
                    out.extend_from_slice(&link.cost.to_be_bytes());
                    out.extend_from_slice(&link.max_datagram.to_be_bytes());
                }
                out.extend_from_slice(&extensions.0);
            }
            Body::Macs(macs, extensions) => {
                out.extend_from_slice(&count(macs.len()));
                for entry in macs {
                    out.extend_from_slice(&entry.vlan.to_be_bytes());
                    out.extend_from_slice(&entry.mac);
                    out.extend_from_slice(&entry.moves.to_be_bytes());
                }
                out.extend_from_slice(&extensions.0);
            }
            Body::Left(extensions) => out.extend_from_slice(&extensions.0),
            Body::Unknown(_, bytes) => out.extend_from_slice(bytes),
        }
        out
    }

    fn is_sorted(&self) -> bool {
        match self {
            Body::Node(node) => node.address_forms().is_sorted_by(|a, b| a < b),
            Body::Links(links, _) => links.is_sorted_by(|a, b| a.neighbour < b.neighbour),
            Body::Macs(macs, _) => macs.is_sorted_by(|a, b| (a.vlan, a.mac) < (b.vlan, b.mac)),
            Body::Left(_) | Body::Unknown(..) => true,
        }
    }
}

fn parse_node(rest: &mut &[u8]) -> Result<Node, BadBody> {
    let noise = take(rest)?;
    let certificate = take(rest)?;
    let features = u32::from_be_bytes(take(rest)?);
    let nickname = parse_text(rest, MAX_NICKNAME)?;
    let version = parse_text(rest, MAX_VERSION)?;
    let [addresses] = take(rest)?;
    if usize::from(addresses) > MAX_ADDRESSES {
        return Err(BadBody::Value);
    }
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for _ in 0..addresses {
        let form = Address::read_form(rest).ok_or(BadBody::Length)?;
        match Address::parse(form) {
            Some(address) => known.push(address),
            None => unknown.push(form.into()),
        }
    }
    let extensions = Extensions::parse(rest)?;
    Ok(Node { noise, certificate, features, nickname, version, addresses: known, unknown_addresses: unknown, extensions })
}

fn write_node(node: &Node, out: &mut Vec<u8>) {
    out.extend_from_slice(&node.noise);
    out.extend_from_slice(&node.certificate);
    out.extend_from_slice(&node.features.to_be_bytes());
    for text in [&node.nickname, &node.version] {
        out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(text.as_bytes());
    }
    let forms = node.address_forms();
    out.push(u8::try_from(forms.len()).unwrap_or(u8::MAX));
    forms.iter().for_each(|form| out.extend_from_slice(form));
    out.extend_from_slice(&node.extensions.0);
}

fn parse_link(rest: &mut &[u8]) -> Result<LinkEntry, BadBody> {
    let neighbour = PeerName(take(rest)?);
    let cost = u32::from_be_bytes(take(rest)?);
    let max_datagram = u16::from_be_bytes(take(rest)?);
    if cost == 0 || cost > MAX_COST {
        return Err(BadBody::Value);
    }
    Ok(LinkEntry { neighbour, cost, max_datagram })
}

fn parse_mac(rest: &mut &[u8]) -> Result<MacEntry, BadBody> {
    let vlan = u16::from_be_bytes(take(rest)?);
    let mac: [u8; 6] = take(rest)?;
    let moves = u32::from_be_bytes(take(rest)?);
    if vlan > 4095 || mac[0] & 1 == 1 {
        return Err(BadBody::Value);
    }
    Ok(MacEntry { vlan, mac, moves })
}

fn parse_list<T>(rest: &mut &[u8], item: fn(&mut &[u8]) -> Result<T, BadBody>) -> Result<Vec<T>, BadBody> {
    let count = u16::from_be_bytes(take(rest)?);
    (0..count).map(|_| item(rest)).collect()
}

fn parse_text(rest: &mut &[u8], max: usize) -> Result<String, BadBody> {
    let [len] = take(rest)?;
    let (text, after) = rest.split_at_checked(usize::from(len)).ok_or(BadBody::Length)?;
    *rest = after;
    let text = std::str::from_utf8(text).map_err(|_| BadBody::Value)?;
    if text.len() > max || text.chars().any(char::is_control) {
        return Err(BadBody::Value);
    }
    Ok(text.to_string())
}

fn printable(text: &str, max: usize) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(c);
    }
    out
}

fn next_tlv<'a>(rest: &mut &'a [u8]) -> Result<(u8, &'a [u8]), BadBody> {
    let [kind] = take(rest)?;
    let len = u16::from_be_bytes(take(rest)?);
    let (value, after) = rest.split_at_checked(usize::from(len)).ok_or(BadBody::Length)?;
    *rest = after;
    Ok((kind, value))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], BadBody> {
    let (head, rest) = bytes.split_first_chunk().ok_or(BadBody::Length)?;
    *bytes = rest;
    Ok(*head)
}

fn count(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}
