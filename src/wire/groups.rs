//! Which multicast groups a router's bridge has members of: the body of its GROUPS records.
//!
//! ```text
//! version 1, flags 1, then per group, ascending: address len 1 (4 or 16) + address
//! ```
//!
//! Flag 1: it wants the frames of all groups. IPv4 comes before IPv6. One content has one encoding. A set that is too big for one body is split
//! over chunks, each of which stands for itself; a chunk that says nothing says that there is nothing. A router whose NODE record has the feature
//! [`SNOOPS`] has members of no other groups than it says here; routers that do not know the kind carry it. Who cannot read a chunk takes
//! it for a wish for all groups.

use std::net::IpAddr;

use super::address::{read_ip, write_ip};

/// Number of the record kind.
pub const GROUPS: u8 = 9;
/// Feature of a router that tells which groups it has members of.
pub const SNOOPS: u32 = 4;
/// Groups in one chunk, of any family: 2 + 56 × 17 bytes fit one record.
pub const PER_CHUNK: usize = 56;
/// The version of this form.
const VERSION: u8 = 1;
/// All groups.
const EVERYTHING: u8 = 1;

/// What one chunk says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Frames of all groups are wanted: there are multicast routers, or too many groups.
    pub everything: bool,
    /// Groups with members, ascending.
    pub groups: Vec<IpAddr>,
}

/// True for a group of which members are told: all but those that hold one link together, whose frames go to everybody (RFC 4541, 2.1.2 and 3).
pub fn is_told(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(ip) => ip.is_multicast() && ip.octets()[..3] != [224, 0, 0],
        // Scopes up to that of the link.
        IpAddr::V6(ip) => ip.is_multicast() && ip.octets()[1] & 0x0f > 2,
    }
}

impl Groups {
    /// The body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION, if self.everything { EVERYTHING } else { 0 }];
        self.groups.iter().for_each(|group| write_ip(*group, &mut out));
        out
    }

    /// Reads a body; `None` where it is of a later version or malformed.
    pub fn parse(bytes: &[u8]) -> Option<Groups> {
        let (&[version, flags], mut rest) = bytes.split_first_chunk()?;
        if version != VERSION || flags & !EVERYTHING != 0 {
            return None;
        }
        let mut groups: Vec<IpAddr> = Vec::new();
        while !rest.is_empty() {
            let (group, after) = read_ip(rest)?;
            if !is_told(group) || groups.last().is_some_and(|last| *last >= group) {
                return None;
            }
            groups.push(group);
            rest = after;
        }
        Some(Groups { everything: flags & EVERYTHING != 0, groups })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn groups(texts: &[&str]) -> Groups {
        Groups { everything: false, groups: texts.iter().map(|text| text.parse().expect("an address")).collect() }
    }

    #[test]
    fn golden_groups() {
        let some = Groups { everything: true, ..groups(&["239.1.2.3", "239.255.255.250", "ff05::1:3"]) };
        let bytes = some.to_bytes();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "010104ef01020304effffffa10ff050000000000000000000000010003");
        assert_eq!(Groups::parse(&bytes).as_ref(), Some(&some));
        assert_eq!(Groups::parse(&[1, 0]), Some(Groups::default()));
        let full = Groups { groups: vec!["ff05::1:3".parse().expect("an address"); PER_CHUNK], ..some };
        assert!(full.to_bytes().len() <= crate::wire::record::MAX_BODY);
    }

    #[test]
    fn what_is_malformed_or_has_another_encoding_is_refused() {
        let bytes = groups(&["239.1.2.3", "ff05::1:3"]).to_bytes();
        for len in (0..bytes.len()).filter(|len| ![2, 7].contains(len)) {
            assert_eq!(Groups::parse(&bytes[..len]), None, "{len}");
        }
        for bad in [&[2, 0][..], &[1, 2], &[1, 0, 5, 239, 1, 2, 3, 4]] {
            assert_eq!(Groups::parse(bad), None, "{bad:?}");
        }
        for bad in [&["239.1.2.4", "239.1.2.3"][..], &["239.1.2.3", "239.1.2.3"], &["ff05::1", "239.1.2.3"]] {
            assert_eq!(Groups::parse(&groups(bad).to_bytes()), None, "{bad:?}");
        }
        for untold in ["10.0.0.1", "224.0.0.251", "fd00::1", "ff02::fb", "ff01::1", "ff02::1:ff00:1"] {
            assert_eq!(Groups::parse(&groups(&[untold]).to_bytes()), None, "{untold}");
            assert!(!is_told(untold.parse().expect("an address")));
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..60), everything in 0u8..2) {
            let bytes = [&[1, everything][..], &bytes].concat();
            if let Some(groups) = Groups::parse(&bytes) {
                prop_assert_eq!(groups.to_bytes(), bytes);
            }
        }
    }
}
