//! The header of a flooded bundle, inside the seal of each hop: who flooded it, and which of its floods it is.
//!
//! ```text
//!  0..6         6..10               10    11         12..16
//!  origin name  incarnation (low)   lane  hop limit  sequence
//! ```
//!
//! Origin, incarnation, lane and sequence name a flood in the whole mesh: every router delivers it once.
//! Numbers are big endian.

use super::header::MAX_LANE;
use super::name::PeerName;

/// Bytes of the header.
pub const FLOOD_LEN: usize = 16;

/// The header of a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodHeader {
    /// The router on whose bridge the frame appeared.
    pub origin: PeerName,
    /// Low half of the origin's incarnation.
    pub incarnation: u32,
    /// The origin's packet thread that numbered it, 0 to 15.
    pub lane: u8,
    /// Hops left, counted down by every router that passes it on.
    pub hop_limit: u8,
    /// Number of the flood among those of the lane.
    pub sequence: u32,
}

impl FloodHeader {
    /// Reads the header from the front of `bytes`.
    pub fn parse(bytes: &[u8]) -> Option<FloodHeader> {
        let &[o0, o1, o2, o3, o4, o5, i0, i1, i2, i3, lane, hop_limit, s0, s1, s2, s3] = bytes.first_chunk::<FLOOD_LEN>()?;
        (lane <= MAX_LANE).then_some(FloodHeader {
            origin: PeerName([o0, o1, o2, o3, o4, o5]),
            incarnation: u32::from_be_bytes([i0, i1, i2, i3]),
            lane,
            hop_limit,
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
        })
    }

    /// The header's 16 bytes.
    pub fn to_bytes(&self) -> [u8; FLOOD_LEN] {
        let mut bytes = [0; FLOOD_LEN];
        bytes[..6].copy_from_slice(&self.origin.0);
        bytes[6..10].copy_from_slice(&self.incarnation.to_be_bytes());
        bytes[10] = self.lane;
        bytes[11] = self.hop_limit;
        bytes[12..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_flood() {
        let header = FloodHeader {
            origin: PeerName([0x7a, 1, 2, 3, 4, 5]),
            incarnation: 0x0a0b_0c0d,
            lane: 2,
            hop_limit: 32,
            sequence: 0x1020_3040,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [0x7a, 1, 2, 3, 4, 5, 0x0a, 0x0b, 0x0c, 0x0d, 2, 32, 0x10, 0x20, 0x30, 0x40]);
        assert_eq!(FloodHeader::parse(&bytes), Some(header));
        assert_eq!(FloodHeader::parse(&bytes[..15]), None);
        let mut bad = bytes;
        bad[10] = 16;
        assert_eq!(FloodHeader::parse(&bad), None);
    }
}
