//! Which addresses are at which MACs of a router's bridge: the body of its BINDINGS records.
//!
//! ```text
//! version 1, count 2, count × (VLAN 2, address len 1 (4 or 16) + address, MAC 6), ascending by (VLAN, address)
//! ```
//!
//! IPv4 comes before IPv6. One content has one encoding. A set that is too big for one body is split over chunks, each of which stands
//! for itself. Routers that do not know the kind carry it.

use std::net::IpAddr;

use super::address::{read_ip, write_ip};

/// Number of the record kind.
pub const BINDINGS: u8 = 8;
/// Bindings in one chunk, of any family: 3 + 40 × 25 bytes fit one record.
pub const PER_CHUNK: usize = 40;
/// The version of this form.
const VERSION: u8 = 1;

/// An address in a VLAN (0 for untagged).
pub type Place = (u16, IpAddr);

/// An address, and the MAC that answers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The address.
    pub place: Place,
    /// The MAC, unicast.
    pub mac: [u8; 6],
}

/// True for an address that one station has: no group, nobody's, nor a host's own affair.
pub fn is_station(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !(ip.is_multicast() || ip.is_unspecified() || ip.is_loopback() || ip.is_broadcast()),
        IpAddr::V6(ip) => !(ip.is_multicast() || ip.is_unspecified() || ip.is_loopback()),
    }
}

/// The body of one chunk.
pub fn to_bytes(bindings: &[Binding]) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&u16::try_from(bindings.len()).unwrap_or(u16::MAX).to_be_bytes());
    for Binding { place: (vlan, ip), mac } in bindings {
        out.extend_from_slice(&vlan.to_be_bytes());
        write_ip(*ip, &mut out);
        out.extend_from_slice(mac);
    }
    out
}

/// The bindings of a chunk; `None` where it is of a later version or malformed.
pub fn parse(bytes: &[u8]) -> Option<Vec<Binding>> {
    let ([version, high, low], mut rest) = bytes.split_first_chunk()?;
    if *version != VERSION {
        return None;
    }
    let mut bindings = Vec::new();
    for _ in 0..u16::from_be_bytes([*high, *low]) {
        let ([vlan_high, vlan_low], after) = rest.split_first_chunk()?;
        let (ip, after) = read_ip(after)?;
        let (mac, after) = after.split_first_chunk()?;
        let vlan = u16::from_be_bytes([*vlan_high, *vlan_low]);
        if vlan > 4095 || mac[0] & 1 == 1 || !is_station(ip) {
            return None;
        }
        bindings.push(Binding { place: (vlan, ip), mac: *mac });
        rest = after;
    }
    (rest.is_empty() && bindings.is_sorted_by(|a, b| a.place < b.place)).then_some(bindings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(vlan: u16, ip: &str, last: u8) -> Binding {
        Binding { place: (vlan, ip.parse().expect("an address")), mac: [2, 0, 0, 0, 0, last] }
    }

    #[test]
    fn golden_bindings() {
        let bindings = [binding(0, "10.32.0.1", 1), binding(0, "fd00::2", 2), binding(5, "10.32.0.1", 3)];
        let bytes = to_bytes(&bindings);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = "010003\
            0000040a200001020000000001\
            000010fd000000000000000000000000000002020000000002\
            0005040a200001020000000003";
        assert_eq!(hex, golden);
        assert_eq!(parse(&bytes).as_deref(), Some(&bindings[..]));
        assert_eq!(parse(&to_bytes(&[])), Some(Vec::new()));
        let full = vec![binding(0, "fd00::2", 2); PER_CHUNK];
        assert!(to_bytes(&full).len() <= crate::wire::record::MAX_BODY);
    }

    #[test]
    fn what_is_malformed_or_has_another_encoding_is_refused() {
        let bytes = to_bytes(&[binding(0, "10.32.0.1", 1), binding(0, "fd00::2", 2)]);
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]), None, "{len}");
        }
        assert_eq!(parse(&[&bytes[..], &[0]].concat()), None);
        let (a, b) = (binding(0, "10.32.0.1", 1), binding(0, "10.32.0.2", 1));
        let group = Binding { mac: [3, 0, 0, 0, 0, 1], ..a };
        for bad in [vec![b, a], vec![a, a], vec![group], vec![binding(4096, "10.0.0.1", 1)]] {
            assert_eq!(parse(&to_bytes(&bad)), None, "{bad:?}");
        }
        for nobody in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1", "::", "ff02::1", "::1"] {
            assert_eq!(parse(&to_bytes(&[binding(0, nobody, 1)])), None, "{nobody}");
        }
    }
}
