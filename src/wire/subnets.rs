//! Subnets that containers of a router have addresses in, beside the ranges of the mesh: the body of its SUBNETS records.
//!
//! ```text
//! version 1, then per subnet, ascending: prefix length 1, address 4 (IPv4) or prefix length 1 with its top bit set, address 16 (IPv6)
//! ```
//!
//! One content has one encoding. A set that is too big for one body is split over chunks, each of which stands for itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// The version of this form.
const VERSION: u8 = 1;
/// Marks a prefix length of IPv6.
const SIX: u8 = 0x80;
/// Subnets in one chunk: of the largest there is room for all.
pub const PER_CHUNK: usize = 50;
/// Prefixes that are believed to be a subnet of containers, IPv4 and IPv6: two have room in it, and nobody shuts half the internet out by a word.
const LENGTHS: (RangeInclusive<u8>, RangeInclusive<u8>) = (8..=30, 16..=126);

/// Why bytes are not such a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSubnets {
    /// It is of a later version.
    #[error("it is of version {0}, which this build does not know")]
    Version(u8),
    /// It ends too early, or holds more than a chunk may.
    #[error("its length is wrong")]
    Length,
    /// What stands there is no subnet that containers could have.
    #[error("a subnet in it is none of containers")]
    Value,
    /// The same content has another encoding, as by its order.
    #[error("it is not the one encoding of its content")]
    NotCanonical,
}

/// True for a subnet that may stand in a record.
pub fn is_plausible(subnet: &IpNet) -> bool {
    let lengths = if subnet.addr().is_ipv4() { LENGTHS.0 } else { LENGTHS.1 };
    lengths.contains(&subnet.prefix_len()) && subnet.trunc() == *subnet
}

/// The bodies of the chunks that hold these subnets; those that are not plausible are left out.
pub fn chunks(subnets: &BTreeSet<IpNet>) -> Vec<Vec<u8>> {
    let all: Vec<&IpNet> = subnets.iter().filter(|subnet| is_plausible(subnet)).collect();
    all.chunks(PER_CHUNK).map(|part| part.iter().fold(vec![VERSION], |body, subnet| written(body, subnet))).collect()
}

fn written(mut body: Vec<u8>, subnet: &IpNet) -> Vec<u8> {
    match subnet.addr() {
        IpAddr::V4(ip) => {
            body.push(subnet.prefix_len());
            body.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            body.push(SIX | subnet.prefix_len());
            body.extend(ip.octets());
        }
    }
    body
}

/// Reads the body of a chunk.
pub fn parse(body: &[u8]) -> Result<BTreeSet<IpNet>, BadSubnets> {
    let (&version, mut rest) = body.split_first().ok_or(BadSubnets::Length)?;
    if version != VERSION {
        return Err(BadSubnets::Version(version));
    }
    let mut subnets = BTreeSet::new();
    while let Some((&length, after)) = rest.split_first() {
        let (ip, after): (IpAddr, &[u8]) = match length & SIX {
            0 => after.split_first_chunk::<4>().map(|(ip, after)| (Ipv4Addr::from(*ip).into(), after)),
            _ => after.split_first_chunk::<16>().map(|(ip, after)| (Ipv6Addr::from(*ip).into(), after)),
        }
        .ok_or(BadSubnets::Length)?;
        let subnet = IpNet::new(ip, length & !SIX).ok().filter(is_plausible).ok_or(BadSubnets::Value)?;
        if subnets.last().is_some_and(|last| *last >= subnet) {
            return Err(BadSubnets::NotCanonical);
        }
        subnets.insert(subnet);
        rest = after;
    }
    if subnets.len() > PER_CHUNK { Err(BadSubnets::Length) } else { Ok(subnets) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().expect("a subnet")).collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden() {
        let subnets = set(&["10.2.1.0/24", "10.99.0.0/16", "fd00:2::/64"]);
        let bodies = chunks(&subnets);
        assert_eq!(bodies.iter().map(|body| hex(body)).collect::<Vec<_>>(), ["01180a020100100a630000c0fd000002000000000000000000000000"]);
        assert_eq!(parse(&bodies[0]), Ok(subnets));
        assert_eq!(chunks(&BTreeSet::new()).len(), 0);
    }

    #[test]
    fn what_is_strange_is_refused() {
        for (bytes, why) in [
            (&[][..], BadSubnets::Length),
            (&[2], BadSubnets::Version(2)),
            (&[1, 24, 10, 2, 1], BadSubnets::Length),
            (&[1, 24, 10, 2, 1, 1], BadSubnets::Value),
            (&[1, 33, 10, 2, 1, 0], BadSubnets::Value),
            (&[1, 0, 0, 0, 0, 0], BadSubnets::Value),
            (&[1, 24, 10, 2, 2, 0, 24, 10, 2, 1, 0], BadSubnets::NotCanonical),
            (&[1, 24, 10, 2, 1, 0, 24, 10, 2, 1, 0], BadSubnets::NotCanonical),
        ] {
            assert_eq!(parse(bytes), Err(why), "{bytes:?}");
        }
        assert!(chunks(&set(&["0.0.0.0/0", "128.0.0.0/1"])).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(words in proptest::collection::vec((any::<u128>(), any::<bool>(), 0u8..=128), 0..200)) {
            let subnet = |(bits, six, length): (u128, bool, u8)| {
                let (ip, length): (IpAddr, u8) = if six { (Ipv6Addr::from(bits).into(), length) } else { (Ipv4Addr::from(bits as u32).into(), length % 33) };
                IpNet::new(ip, length).expect("a length that fits").trunc()
            };
            let subnets: BTreeSet<IpNet> = words.into_iter().map(subnet).filter(is_plausible).collect();
            let bodies = chunks(&subnets);
            prop_assert!(bodies.iter().all(|body| body.len() <= crate::wire::record::MAX_BODY));
            let read: BTreeSet<IpNet> = bodies.iter().flat_map(|body| parse(body).expect("one of ours")).collect();
            prop_assert_eq!(read, subnets);
        }

        #[test]
        fn whatever_is_read_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(subnets) = parse(&bytes) {
                let written: Vec<Vec<u8>> = chunks(&subnets);
                prop_assert!(subnets.is_empty() || written == [bytes]);
            }
        }
    }
}
