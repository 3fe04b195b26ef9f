//! The 48-bit name of a router: locator and label, never a proof (full keys decide).

use std::fmt;
use std::str::FromStr;

/// A router's name: the first 48 bits of a hash of its public key, made unicast and locally administered,
/// printed like a MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PeerName(pub [u8; 6]);

impl PeerName {
    /// The name nobody has.
    pub const NONE: PeerName = PeerName([0; 6]);

    /// Builds a name from the first six bytes of a hash of a public key.
    pub fn from_hash(hash: &[u8; 32]) -> PeerName {
        let mut name = [0; 6];
        name.copy_from_slice(&hash[..6]);
        name[0] = (name[0] | 0x02) & 0xfe;
        PeerName(name)
    }

    /// The name as an integer, for hash keys and ordering (big endian).
    pub fn to_u64(self) -> u64 {
        let n = self.0;
        u64::from_be_bytes([0, 0, n[0], n[1], n[2], n[3], n[4], n[5]])
    }

    /// The inverse of [`PeerName::to_u64`]; the upper 16 bits are ignored.
    pub fn from_u64(value: u64) -> PeerName {
        let b = value.to_be_bytes();
        PeerName([b[2], b[3], b[4], b[5], b[6], b[7]])
    }
}

// Every table of the mesh is searched by name: numbers are compared in one step, and in the order of their bytes.
impl Ord for PeerName {
    fn cmp(&self, other: &PeerName) -> std::cmp::Ordering {
        self.to_u64().cmp(&other.to_u64())
    }
}

impl PartialOrd for PeerName {
    fn partial_cmp(&self, other: &PeerName) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", n[0], n[1], n[2], n[3], n[4], n[5])
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a peer name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a peer name: it takes six bytes in hexadecimal, as in 7a:3c:01:02:03:04")]
pub struct BadName(String);

impl FromStr for PeerName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<PeerName, BadName> {
        let mut name = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut name {
            let part = parts.next().filter(|p| p.len() == 2 && !p.starts_with('+')).ok_or_else(|| BadName(text.into()))?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| BadName(text.into()))?;
        }
        if parts.next().is_some() {
            return Err(BadName(text.into()));
        }
        Ok(PeerName(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_integer_round_trip() {
        let name = PeerName([0x7a, 0x3c, 1, 2, 3, 0xff]);
        assert_eq!(name.to_string(), "7a:3c:01:02:03:ff");
        assert_eq!("7a:3c:01:02:03:ff".parse(), Ok(name));
        assert_eq!(PeerName::from_u64(name.to_u64()), name);
        for bad in ["", "7a:3c:01:02:03", "7a:3c:01:02:03:ff:00", "7a:3c:01:02:03:fg", "7a:3c:01:02:3:ff", "+a:3c:01:02:03:ff"] {
            assert!(bad.parse::<PeerName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_unicast_and_local() {
        assert_eq!(PeerName::from_hash(&[0xff; 32]).0[0], 0xfe);
        assert_eq!(PeerName::from_hash(&[0x00; 32]).0[0], 0x02);
    }
}
