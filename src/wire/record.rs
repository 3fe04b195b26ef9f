//! The one envelope of all gossip: a record, signed and sequenced by its origin.
//!
//! ```text
//!  0     1..3   3..35    35..43       43..51    51..53    53..n  n..n+64
//!  type  chunk  origin   incarnation  sequence  body len  body   signature
//! ```
//!
//! Numbers are big endian. The signature covers everything before it, under a domain that names the network,
//! so a record of one network means nothing in another. A record is at most [`MAX_RECORD`] bytes, so it always
//! fits one datagram; larger sets are split over chunks. Types this build does not know are carried as they are.
//!
//! Bodies (see [`crate::wire::body`]) have one encoding per content: lists are sorted and free of duplicates,
//! lengths are exact. TLV extensions (type 1, length 2, value) may follow in ascending order of type; they
//! are carried.

use std::fmt;

use sha2::{Digest, Sha256};

use super::body::{BadBody, Body};
use super::name::PeerName;
use crate::crypto::PublicKey;

/// Largest record in bytes: with message, control and clear headers it fits the 1232 bytes that every IPv6 path carries.
pub const MAX_RECORD: usize = 1150;
/// Bytes before the body.
const HEAD: usize = 53;
/// Bytes of a signature.
const SIGNATURE: usize = 64;
/// Largest body in bytes.
pub const MAX_BODY: usize = MAX_RECORD - HEAD - SIGNATURE;

/// Which record of its origin this is; unique within a mesh, as two routers of one name never coexist.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordId {
    /// The origin's name.
    pub name: PeerName,
    /// Number of the record type.
    pub kind: u8,
    /// Part of a set that does not fit one record, from 0.
    pub chunk: u16,
}

impl RecordId {
    /// Bytes on the wire.
    pub const LEN: usize = 9;
    /// Sorts before every id.
    pub const FIRST: RecordId = RecordId { name: PeerName([0; 6]), kind: 0, chunk: 0 };
    /// Sorts after every id.
    pub const LAST: RecordId = RecordId { name: PeerName([0xff; 6]), kind: 0xff, chunk: 0xffff };

    /// The wire form.
    pub fn to_bytes(self) -> [u8; RecordId::LEN] {
        let [a, b, c, d, e, f] = self.name.0;
        let [hi, lo] = self.chunk.to_be_bytes();
        [a, b, c, d, e, f, self.kind, hi, lo]
    }

    /// The inverse of [`RecordId::to_bytes`].
    pub fn from_bytes(bytes: &[u8; RecordId::LEN]) -> RecordId {
        let [a, b, c, d, e, f, kind, hi, lo] = *bytes;
        RecordId { name: PeerName([a, b, c, d, e, f]), kind, chunk: u16::from_be_bytes([hi, lo]) }
    }

    /// The leaf of the agreement tree it belongs to. Names are hashes; kind and chunk are mixed in, so that leaves fill evenly.
    pub fn bucket(self) -> u8 {
        let word = self.name.to_u64() ^ u64::from(self.kind) << 48 ^ u64::from(self.chunk) << 40;
        word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]
    }
}

impl RecordId {
    /// Name, kind and chunk as one number, which orders as they do one after the other.
    fn order(self) -> u128 {
        u128::from(self.name.to_u64()) << 24 | u128::from(self.kind) << 16 | u128::from(self.chunk)
    }
}

impl Ord for RecordId {
    fn cmp(&self, other: &RecordId) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for RecordId {
    fn partial_cmp(&self, other: &RecordId) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.name, self.kind, self.chunk)
    }
}

/// Which edition of a record this is. Ordered: the incarnation decides, then the sequence, and where an origin
/// signed two texts of one number, the digest, so that everybody keeps the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edition {
    /// Counts starts of the origin.
    pub incarnation: u64,
    /// Counts changes of this record within an incarnation.
    pub sequence: u64,
    /// First bytes of the SHA-256 of the whole record.
    pub digest: u64,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// The lengths do not add up.
    #[error("its lengths do not add up")]
    Length,
    /// Longer than [`MAX_RECORD`].
    #[error("it is longer than a record may be")]
    TooLong,
    /// The body of a known type is malformed.
    #[error("its body is malformed: {0}")]
    Body(#[from] BadBody),
}

/// A well-formed record. Immutable; shared as `Arc<Record>`. Whether its signature holds is for the store to
/// check, once, before it keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    bytes: Box<[u8]>,
    origin: PublicKey,
    id: RecordId,
    edition: Edition,
    body: Body,
}

impl Record {
    /// Parses a whole record.
    pub fn parse(bytes: &[u8]) -> Result<Record, BadRecord> {
        if bytes.len() > MAX_RECORD {
            return Err(BadRecord::TooLong);
        }
        let (head, rest) = bytes.split_first_chunk::<HEAD>().ok_or(BadRecord::Length)?;
        let (body, _) = rest.split_last_chunk::<SIGNATURE>().ok_or(BadRecord::Length)?;
        let mut head = &head[..];
        let [kind] = take(&mut head)?;
        let chunk = u16::from_be_bytes(take(&mut head)?);
        let origin = PublicKey(take(&mut head)?);
        let incarnation = u64::from_be_bytes(take(&mut head)?);
        let sequence = u64::from_be_bytes(take(&mut head)?);
        if usize::from(u16::from_be_bytes(take(&mut head)?)) != body.len() {
            return Err(BadRecord::Length);
        }
        let id = RecordId { name: origin.name(), kind, chunk };
        let edition = Edition { incarnation, sequence, digest: digest(bytes) };
        Ok(Record { body: Body::parse(kind, chunk, body)?, bytes: bytes.into(), origin, id, edition })
    }

    /// Writes and signs a record. `sign` is handed the bytes that the signature covers.
    pub fn build(
        origin: &PublicKey,
        chunk: u16,
        (incarnation, sequence): (u64, u64),
        body: &Body,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> Result<Record, BadRecord> {
        let content = body.to_bytes();
        let len = u16::try_from(content.len()).map_err(|_| BadRecord::TooLong)?;
        let mut bytes = Vec::with_capacity(HEAD + content.len() + SIGNATURE);
        bytes.push(body.kind());
        bytes.extend_from_slice(&chunk.to_be_bytes());
        bytes.extend_from_slice(&origin.0);
        bytes.extend_from_slice(&incarnation.to_be_bytes());
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(&content);
        let signature = sign(&bytes);
        bytes.extend_from_slice(&signature);
        Record::parse(&bytes)
    }

    /// The whole record as it travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes that the signature covers.
    pub fn signed(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - SIGNATURE]
    }

    /// The signature.
    pub fn signature(&self) -> &[u8; 64] {
        self.bytes.last_chunk().expect("a parsed record ends in a signature")
    }

    /// The origin's public key.
    pub fn origin(&self) -> &PublicKey {
        &self.origin
    }

    /// Which record it is.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// Which edition it is.
    pub fn edition(&self) -> Edition {
        self.edition
    }

    /// What it says.
    pub fn body(&self) -> &Body {
        &self.body
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}.{} {:?}", self.id, self.edition.incarnation, self.edition.sequence, self.body)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], BadRecord> {
    let (head, rest) = bytes.split_first_chunk().ok_or(BadRecord::Length)?;
    *bytes = rest;
    Ok(*head)
}

fn digest(bytes: &[u8]) -> u64 {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    hash.first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Address;
    use crate::wire::body::{Extensions, LinkEntry, MacEntry, Node};

    const KEY: PublicKey = PublicKey([0x11; 32]);

    fn build(chunk: u16, body: &Body) -> Record {
        Record::build(&KEY, chunk, (2, 3), body, |_| [0x5a; 64]).expect("a record")
    }

    fn node() -> Node {
        Node {
            noise: [0x22; 32],
            certificate: [0x33; 64],
            features: 5,
            nickname: "h1".to_string(),
            version: "0.1".to_string(),
            addresses: vec![Address::udp("10.0.0.1:6783".parse().expect("an address"))],
            unknown_addresses: Vec::new(),
            extensions: Extensions::new(&[(9, b"x")]).expect("extensions"),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_records() {
        let head = |kind: &str, len: &str| format!("{kind}{}00000000000000020000000000000003{len}", "11".repeat(32));
        let tail = "5a".repeat(64);
        let link = LinkEntry { neighbour: PeerName([2, 0, 0, 0, 0, 7]), cost: 1250, max_datagram: 1472 };
        let mac = MacEntry { vlan: 5, mac: [2, 1, 1, 1, 1, 1], moves: 4 };
        let node_body = format!("{}{}0000000502683103302e3101060a0000011a7f09000178", "22".repeat(32), "33".repeat(64));
        let goldens = [
            (0, Body::Node(node()), head("010000", "0077"), node_body.as_str()),
            (1, Body::Links(vec![link], Extensions::default()), head("020001", "000e"), "0001020000000007000004e205c0"),
            (2, Body::Macs(vec![mac], Extensions::default()), head("030002", "000e"), "0001000502010101010100000004"),
            (0, Body::Left(Extensions::default()), head("040000", "0000"), ""),
            (3, Body::Unknown(77, (*b"later").into()), head("4d0003", "0005"), "6c61746572"),
        ];
        for (chunk, body, head, content) in goldens {
            let record = build(chunk, &body);
            assert_eq!(hex(record.bytes()), format!("{head}{content}{tail}"));
            assert_eq!(Record::parse(record.bytes()).as_ref(), Ok(&record));
            assert_eq!((record.body(), record.id().chunk, record.id().name), (&body, chunk, KEY.name()));
        }
    }

    #[test]
    fn largest_record_and_beyond() {
        let body = |len: usize| Body::Unknown(200, vec![7; len].into());
        assert_eq!(build(0, &body(MAX_BODY)).bytes().len(), MAX_RECORD);
        let too_long = Record::build(&KEY, 0, (1, 1), &body(MAX_BODY + 1), |_| [0; 64]);
        assert_eq!(too_long, Err(BadRecord::TooLong));
    }

    #[test]
    fn addresses_of_a_later_version_are_carried() {
        let addresses = ["10.0.0.1:6783", "[fd00::1]:6783"].iter();
        let addresses = addresses.map(|text| Address::udp(text.parse().expect("an address"))).collect();
        let forms: [&[u8]; 3] = [&[0], &[9, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[40; 41]];
        let unknown_addresses = forms.iter().map(|form| (*form).into()).collect();
        let body = Body::Node(Node { addresses, unknown_addresses, ..node() });
        let record = build(0, &body);
        let parsed = Record::parse(record.bytes()).expect("a record of a later version");
        assert_eq!((parsed.body(), parsed.bytes()), (&body, record.bytes()));
        let twice = vec![forms[1].into(), forms[1].into()];
        let doubled = Record::build(&KEY, 0, (1, 1), &Body::Node(Node { unknown_addresses: twice, ..node() }), |_| [0; 64]);
        assert_eq!(doubled, Err(BadRecord::Body(BadBody::NotCanonical)));
    }

    #[test]
    fn every_cut_and_every_addition_is_refused() {
        let record = build(0, &Body::Node(node()));
        for len in 0..record.bytes().len() {
            assert!(Record::parse(&record.bytes()[..len]).is_err(), "{len}");
        }
        assert!(Record::parse(&[record.bytes(), &[0]].concat()).is_err());
    }

    #[test]
    fn one_content_has_one_encoding() {
        let link = |last: u8| LinkEntry { neighbour: PeerName([2, 0, 0, 0, 0, last]), cost: 1, max_datagram: 1472 };
        let refused = |body: &Body| Record::build(&KEY, 0, (1, 1), body, |_| [0; 64]).expect_err("a bad body");
        for links in [vec![link(2), link(1)], vec![link(1), link(1)]] {
            assert_eq!(refused(&Body::Links(links, Extensions::default())), BadRecord::Body(BadBody::NotCanonical));
        }
        let mapped = "[::ffff:10.0.0.1]:1".parse().expect("an address");
        let addresses = vec![Address::Udp(mapped)];
        assert_eq!(refused(&Body::Node(Node { addresses, ..node() })), BadRecord::Body(BadBody::NotCanonical));
        let free = LinkEntry { cost: 0, ..link(1) };
        assert_eq!(refused(&Body::Links(vec![free], Extensions::default())), BadRecord::Body(BadBody::Value));
        for mac in [MacEntry { vlan: 4096, mac: [2; 6], moves: 0 }, MacEntry { vlan: 0, mac: [0xff; 6], moves: 0 }] {
            assert_eq!(refused(&Body::Macs(vec![mac], Extensions::default())), BadRecord::Body(BadBody::Value));
        }
        let nickname = "bell\u{7}".to_string();
        assert_eq!(refused(&Body::Node(Node { nickname: nickname.clone(), ..node() })), BadRecord::Body(BadBody::Value));
        assert_eq!(Node { nickname, ..node() }.normalised().nickname, "bell");
        assert_eq!(Extensions::new(&[(2, b""), (1, b"")]), Err(BadBody::NotCanonical));
        let chunked = Record::build(&KEY, 1, (1, 1), &Body::Left(Extensions::default()), |_| [0; 64]);
        assert_eq!(chunked, Err(BadRecord::Body(BadBody::Chunk)));
    }

    proptest::proptest! {
        #[test]
        fn records_are_in_the_order_of_name_kind_and_chunk(
            a in (proptest::array::uniform6(0u8..3), 0u8..3, 0u16..3),
            b in (proptest::array::uniform6(proptest::num::u8::ANY), proptest::num::u8::ANY, proptest::num::u16::ANY),
        ) {
            let id = |(name, kind, chunk)| RecordId { name: PeerName(name), kind, chunk };
            let near = (a.0, a.1, a.2 + 1);
            for other in [a, near, b] {
                proptest::prop_assert_eq!(id(a).cmp(&id(other)), a.cmp(&other));
                proptest::prop_assert_eq!(PeerName(a.0).cmp(&PeerName(other.0)), a.0.cmp(&other.0));
            }
        }

        #[test]
        fn what_parses_is_written_back_the_same(kind in 0u8..6, body in proptest::collection::vec(0u8..8, 0..64)) {
            if let Ok(parsed) = Body::parse(kind, 0, &body) {
                proptest::prop_assert_eq!(parsed.to_bytes(), body);
            }
        }
    }
}
