//! The 16-byte clear header that starts every datagram.
//!
//! ```text
//!  0         1          2            3..9              9..12           12..16
//!  ver|kind  hop limit  lane|label   destination name  receiver index  counter
//! ```
//!
//! All of it but the hop limit is the AEAD's associated data. Numbers are big endian.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::name::PeerName;

/// Wire version that this build speaks, the high nibble of the first byte.
pub const VERSION: u8 = 1;
/// Bytes of the clear header.
pub const HEADER_LEN: usize = 16;
/// Bytes of an authentication tag.
pub const TAG_LEN: usize = 16;
/// Hop limit a datagram starts with, that of IP (RFC 1700): 63 routers pass it on, in a line in which each reaches only the next. Ways are free of
/// circles but for moments, in which a datagram goes round until then.
pub const HOP_LIMIT: u8 = 64;
/// Highest lane number; lane 0 is the mesh plane's.
pub const MAX_LANE: u8 = 15;
/// Receiver indices are 24 bits; 0 means "none yet".
pub const MAX_INDEX: u32 = 0x00ff_ffff;

/// What a datagram is, the low nibble of its first byte.
///
/// DIRECT kinds are never forwarded. RELAYED kinds never move an address, prove a path or count as life of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Handshake message from a neighbour.
    HandshakeDirect = 0,
    /// Handshake message through relays.
    HandshakeRelayed = 1,
    /// Sealed control records (lane 0) from a neighbour.
    ControlDirect = 2,
    /// Sealed control records (lane 0) through relays.
    ControlRelayed = 3,
    /// Unauthenticated word that a handshake was refused; used for a log line only.
    Reject = 4,
    /// Stateless retry token for an initiator under load.
    Retry = 5,
    /// Sealed bundle of frames from a neighbour or over a direct path.
    DataDirect = 8,
    /// Sealed bundle of frames through relays.
    DataRelayed = 9,
    /// Flooded bundle, sealed for this hop.
    Flood = 10,
    /// Unsealed bundle over a proven direct path of a session that agreed on no encryption.
    PlainDirect = 11,
    /// Unsealed bundle through relays (`--no-encryption` meshes only).
    PlainRelayed = 12,
    /// Unsealed flooded bundle (`--no-encryption` meshes only).
    PlainFlood = 13,
}

impl Kind {
    /// Every kind, in order of its number.
    pub const ALL: [Kind; 12] = [
        Kind::HandshakeDirect,
        Kind::HandshakeRelayed,
        Kind::ControlDirect,
        Kind::ControlRelayed,
        Kind::Reject,
        Kind::Retry,
        Kind::DataDirect,
        Kind::DataRelayed,
        Kind::Flood,
        Kind::PlainDirect,
        Kind::PlainRelayed,
        Kind::PlainFlood,
    ];

    /// The kind with this number.
    pub fn from_nibble(nibble: u8) -> Option<Kind> {
        KINDS.get(usize::from(nibble)).copied().flatten()
    }

    /// True for what the mesh plane handles (numbers below 8); the kernel steers by this bit.
    pub fn is_control(self) -> bool {
        (self as u8) < 8
    }

    /// True for kinds that a relay may forward.
    pub fn is_relayed(self) -> bool {
        matches!(self, Kind::HandshakeRelayed | Kind::ControlRelayed | Kind::DataRelayed | Kind::PlainRelayed)
    }

    /// True for kinds whose body carries no AEAD tag although it belongs to a session.
    pub fn is_plain(self) -> bool {
        matches!(self, Kind::PlainDirect | Kind::PlainRelayed | Kind::PlainFlood)
    }
}

/// Kinds by number: looked up for every datagram.
const KINDS: [Option<Kind>; 16] = {
    let mut kinds = [None; 16];
    let mut n = 0;
    while n < Kind::ALL.len() {
        kinds[Kind::ALL[n] as usize] = Some(Kind::ALL[n]);
        n += 1;
    }
    kinds
};

/// Why bytes are not a datagram of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Shorter than a header.
    Short,
    /// Another wire version.
    Version,
    /// A kind this version does not know.
    Kind,
}

/// The header, parsed: it exists only if version and kind are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the datagram is.
    pub kind: Kind,
    /// Hops left; a relay decrements it and drops at zero.
    pub hop_limit: u8,
    /// Key lane, 0 to 15: 0 is the mesh plane, 1 and up the packet threads.
    pub lane: u8,
    /// Flow label, 0 to 15: relays share equal paths by it.
    pub label: u8,
    /// The router that is to open the datagram.
    pub destination: PeerName,
    /// The receiver's index of the session, 24 bits; 0 in a first handshake message.
    pub index: u32,
    /// Counter of the lane's key; in handshake datagrams a free-running number.
    pub counter: u32,
}

/// The header's bytes as they lie on the wire.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    version_kind: u8,
    hop_limit: u8,
    lane_label: u8,
    destination: [u8; 6],
    index: [u8; 3],
    counter: [u8; 4],
}

impl Header {
    /// Parses the first 16 bytes of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Header, BadHeader> {
        let (raw, _) = Raw::ref_from_prefix(bytes).map_err(|_| BadHeader::Short)?;
        if raw.version_kind >> 4 != VERSION {
            return Err(BadHeader::Version);
        }
        let kind = Kind::from_nibble(raw.version_kind & 0x0f).ok_or(BadHeader::Kind)?;
        let [a, b, c] = raw.index;
        Ok(Header {
            kind,
            hop_limit: raw.hop_limit,
            lane: raw.lane_label >> 4,
            label: raw.lane_label & 0x0f,
            destination: PeerName(raw.destination),
            index: u32::from_be_bytes([0, a, b, c]),
            counter: u32::from_be_bytes(raw.counter),
        })
    }

    /// The header's 16 bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let [_, a, b, c] = self.index.to_be_bytes();
        let raw = Raw {
            version_kind: VERSION << 4 | self.kind as u8,
            hop_limit: self.hop_limit,
            lane_label: self.lane << 4 | self.label & 0x0f,
            destination: self.destination.0,
            index: [a, b, c],
            counter: self.counter.to_be_bytes(),
        };
        zerocopy::transmute!(raw)
    }

    /// The associated data of the AEAD: the header with a hop limit of zero, so that relays may lower it.
    pub fn associated_data(header: &[u8; HEADER_LEN]) -> [u8; HEADER_LEN] {
        let mut aad = *header;
        aad[1] = 0;
        aad
    }
}

/// Lowers the hop limit of the datagram in `bytes`; false (and unchanged) where it would reach zero.
pub fn decrement_hop_limit(bytes: &mut [u8]) -> bool {
    match bytes.get_mut(1) {
        Some(hops) if *hops > 1 => {
            *hops -= 1;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_header() {
        let header = Header {
            kind: Kind::DataRelayed,
            hop_limit: HOP_LIMIT,
            lane: 3,
            label: 9,
            destination: PeerName([0x7a, 0x3c, 1, 2, 3, 4]),
            index: 0x00ab_cdef,
            counter: 0x0102_0304,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [0x19, 0x40, 0x39, 0x7a, 0x3c, 1, 2, 3, 4, 0xab, 0xcd, 0xef, 1, 2, 3, 4]);
        assert_eq!(Header::parse(&bytes), Ok(header));
        assert_eq!(Header::associated_data(&bytes)[..3], [0x19, 0, 0x39]);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let good = [0x19u8; HEADER_LEN];
        assert_eq!(Header::parse(&good[..15]), Err(BadHeader::Short));
        assert_eq!(Header::parse(&[0x29; HEADER_LEN]), Err(BadHeader::Version));
        assert_eq!(Header::parse(&[0x16; HEADER_LEN]), Err(BadHeader::Kind));
        for kind in Kind::ALL {
            assert_eq!(Kind::from_nibble(kind as u8), Some(kind));
        }
    }

    #[test]
    fn hop_limit_never_reaches_zero() {
        let mut bytes = [0x19, 2];
        assert!(decrement_hop_limit(&mut bytes));
        assert!(!decrement_hop_limit(&mut bytes));
        assert_eq!(bytes, [0x19, 1]);
        assert!(!decrement_hop_limit(&mut [0x19]));
    }
}
