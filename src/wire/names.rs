//! Names that a router publishes: the body of its NAMES records.
//!
//! ```text
//! version 1, domain len 1 + text, count 2, count × entry, ascending by (name, tag)
//! entry: name len 1 + text, tag len 1 + text, IPv4 count 1, IPv6 count 1, IPv4 addresses, IPv6 addresses, each ascending
//! ```
//!
//! Names are lower case and relative to the domain; a tag tells the operator which container it is, and nobody else anything.
//! One content has one encoding. A set that is too big for one body is split over chunks, each of which stands for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The version of this form.
const VERSION: u8 = 1;
/// Longest tag in bytes: what Docker shows of a container's id.
pub const MAX_TAG: usize = 12;
/// Longest name in characters, its domain included and without the last dot (RFC 1035, 2.3.4).
pub const MAX_NAME: usize = 253;
/// Longest label of a name in characters.
const MAX_LABEL: usize = 63;
/// Most addresses of one family in one entry.
const MAX_FAMILY: usize = 255;

/// What a router says to another on the channel of names: "the names that you hold are asked for here". A later version may say more behind it.
pub const ASKED: &[u8] = &[1];

/// Addresses by name, relative to the domain, and by tag.
pub type Entries = BTreeMap<(String, String), BTreeSet<IpAddr>>;

/// The body of one chunk.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NamesBody {
    /// The domain that all names are in, as [`is_name`] has it.
    pub domain: String,
    /// What the names stand for.
    pub entries: Entries,
}

/// Why bytes are not such a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNames {
    /// It is of a later version.
    #[error("it is of version {0}, which this build does not know")]
    Version(u8),
    /// It ends too early, or goes on after its end.
    #[error("its length is wrong")]
    Length,
    /// A name, a tag or an address is none.
    #[error("a name, a tag or an address in it is malformed")]
    Value,
    /// The same content has another encoding, as by the order of a list.
    #[error("it is not the one encoding of its content")]
    NotCanonical,
}

/// True for a name as it is kept: labels of lower-case letters, digits, hyphens and underscores, joined by dots.
pub fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    text.len() <= MAX_NAME && text.split('.').all(|label| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(legal))
}

/// True for a tag: up to [`MAX_TAG`] printable characters of ASCII, and at least one.
pub fn is_tag(text: &str) -> bool {
    (1..=MAX_TAG).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// True for an address that a name may stand for; an IPv4 address has one form only.
pub fn is_address(address: IpAddr) -> bool {
    let mapped = matches!(address, IpAddr::V6(six) if six.to_ipv4_mapped().is_some());
    !address.is_unspecified() && !address.is_multicast() && !mapped
}

/// Bytes of a body without entries.
pub fn head_len(domain: &str) -> usize {
    1 + 1 + domain.len() + 2
}

/// Bytes of an entry without addresses.
pub fn entry_len(name: &str, tag: &str) -> usize {
    1 + name.len() + 1 + tag.len() + 2
}

/// Bytes of an address.
pub fn address_len(address: IpAddr) -> usize {
    if address.is_ipv4() { 4 } else { 16 }
}

/// True where one more address of this family fits an entry.
pub fn has_room(addresses: &BTreeSet<IpAddr>, address: IpAddr) -> bool {
    addresses.iter().filter(|other| other.is_ipv4() == address.is_ipv4()).count() < MAX_FAMILY
}

impl NamesBody {
    /// The wire form. The content must be within the limits that [`NamesBody::parse`] holds it to.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_text(&mut out, &self.domain);
        out.extend_from_slice(&(self.entries.len() as u16).to_be_bytes());
        for ((name, tag), addresses) in &self.entries {
            put_text(&mut out, name);
            put_text(&mut out, tag);
            let four = addresses.iter().filter(|address| address.is_ipv4()).count();
            out.extend_from_slice(&[four as u8, (addresses.len() - four) as u8]);
            // The order of the set: IPv4 before IPv6.
            for address in addresses {
                match address {
                    IpAddr::V4(four) => out.extend_from_slice(&four.octets()),
                    IpAddr::V6(six) => out.extend_from_slice(&six.octets()),
                }
            }
        }
        out
    }

    /// Parses a whole body.
    pub fn parse(bytes: &[u8]) -> Result<NamesBody, BadNames> {
        let mut rest = bytes;
        let [version] = take(&mut rest)?;
        if version != VERSION {
            return Err(BadNames::Version(version));
        }
        let domain = take_text(&mut rest, is_name)?;
        let count = u16::from_be_bytes(take(&mut rest)?);
        let mut entries = Entries::new();
        for _ in 0..count {
            let key = (take_text(&mut rest, is_name)?, take_text(&mut rest, is_tag)?);
            if key.0.len() + 1 + domain.len() > MAX_NAME {
                return Err(BadNames::Value);
            }
            if entries.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(BadNames::NotCanonical);
            }
            let addresses = take_addresses(&mut rest)?;
            entries.insert(key, addresses);
        }
        if rest.is_empty() { Ok(NamesBody { domain, entries }) } else { Err(BadNames::Length) }
    }

    /// Bytes of the wire form.
    pub fn wire_len(&self) -> usize {
        let entry = |((name, tag), addresses): (&(String, String), &BTreeSet<IpAddr>)| {
            entry_len(name, tag) + addresses.iter().map(|address| address_len(*address)).sum::<usize>()
        };
        head_len(&self.domain) + self.entries.iter().map(entry).sum::<usize>()
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], BadNames> {
    let (head, rest) = bytes.split_first_chunk().ok_or(BadNames::Length)?;
    *bytes = rest;
    Ok(*head)
}

fn take_text(bytes: &mut &[u8], legal: fn(&str) -> bool) -> Result<String, BadNames> {
    let [len] = take(bytes)?;
    let (text, rest) = bytes.split_at_checked(usize::from(len)).ok_or(BadNames::Length)?;
    *bytes = rest;
    let text = std::str::from_utf8(text).map_err(|_| BadNames::Value)?;
    if legal(text) { Ok(text.to_string()) } else { Err(BadNames::Value) }
}

fn take_addresses(bytes: &mut &[u8]) -> Result<BTreeSet<IpAddr>, BadNames> {
    let [four, six] = take(bytes)?;
    if four == 0 && six == 0 {
        return Err(BadNames::Value);
    }
    let mut addresses = BTreeSet::new();
    for number in 0..u16::from(four) + u16::from(six) {
        let address: IpAddr =
            if number < u16::from(four) { Ipv4Addr::from(take::<4>(bytes)?).into() } else { Ipv6Addr::from(take::<16>(bytes)?).into() };
        if !is_address(address) {
            return Err(BadNames::Value);
        }
        if addresses.last().is_some_and(|last| *last >= address) {
            return Err(BadNames::NotCanonical);
        }
        addresses.insert(address);
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn entry(name: &str, tag: &str, addresses: &[&str]) -> ((String, String), BTreeSet<IpAddr>) {
        ((name.into(), tag.into()), addresses.iter().map(|text| ip(text)).collect())
    }

    fn sample() -> NamesBody {
        let entries = [entry("db", "0123456789ab", &["10.32.0.1", "fd00::1"]), entry("web.a", "weave:extern", &["10.32.0.2", "10.32.0.3"])];
        NamesBody { domain: "weave.local".into(), entries: entries.into() }
    }

    #[test]
    fn golden_bytes() {
        let expected = [
            &b"\x01\x0bweave.local\x00\x02"[..],
            b"\x02db\x0c0123456789ab\x01\x01\x0a\x20\x00\x01\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01",
            b"\x05web.a\x0cweave:extern\x02\x00\x0a\x20\x00\x02\x0a\x20\x00\x03",
        ]
        .concat();
        assert_eq!(sample().to_bytes(), expected);
        assert_eq!(NamesBody::parse(&expected), Ok(sample()));
        assert_eq!(sample().wire_len(), expected.len());
    }

    #[test]
    fn every_cut_and_every_addition_is_refused() {
        let bytes = sample().to_bytes();
        for len in 0..bytes.len() {
            assert!(NamesBody::parse(&bytes[..len]).is_err(), "{len}");
        }
        assert_eq!(NamesBody::parse(&[&bytes[..], &[0]].concat()), Err(BadNames::Length));
        assert_eq!(NamesBody::parse(&[&[2], &bytes[1..]].concat()), Err(BadNames::Version(2)));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let with = |name: &str, tag: &str, addresses: &[&str]| {
            NamesBody::parse(&NamesBody { domain: "d".into(), entries: [entry(name, tag, addresses)].into() }.to_bytes())
        };
        assert!(with("a", "t", &["10.0.0.1"]).is_ok());
        for name in ["", "A", "a.", ".a", "a..b", "a b", "ä", &"a".repeat(64), &vec!["a".repeat(63); 4].join(".")] {
            assert_eq!(with(name, "t", &["10.0.0.1"]), Err(BadNames::Value), "{name}");
        }
        for tag in ["", "a b", "1234567890123"] {
            assert_eq!(with("a", tag, &["10.0.0.1"]), Err(BadNames::Value), "{tag}");
        }
        for address in ["0.0.0.0", "::", "::ffff:10.0.0.1", "224.0.0.1", "ff02::1"] {
            assert_eq!(with("a", "t", &[address]), Err(BadNames::Value), "{address}");
        }
        assert_eq!(with("a", "t", &[]), Err(BadNames::Value));
        let doubled = b"\x01\x01d\x00\x02\x01b\x01t\x01\x00\x0a\0\0\x01\x01a\x01t\x01\x00\x0a\0\0\x01";
        assert_eq!(NamesBody::parse(doubled), Err(BadNames::NotCanonical));
        let descending = b"\x01\x01d\x00\x01\x01b\x01t\x02\x00\x0a\0\0\x02\x0a\0\0\x01";
        assert_eq!(NamesBody::parse(descending), Err(BadNames::NotCanonical));
    }

    proptest! {
        #[test]
        fn what_parses_is_written_back_the_same(bytes in proptest::collection::vec(prop_oneof![0u8..4, 97u8..99], 0..40)) {
            let bytes = [&[VERSION, 1, b'd'][..], &bytes].concat();
            if let Ok(body) = NamesBody::parse(&bytes) {
                prop_assert_eq!(body.to_bytes(), bytes);
            }
        }

        #[test]
        fn what_is_written_is_read_the_same(
            entries in proptest::collection::btree_map(
                ("[a-z0-9_-]{1,8}(\\.[a-z]{1,4})?", "[!-~]{1,12}"),
                proptest::collection::btree_set(any::<IpAddr>().prop_filter("an address", |address| is_address(*address)), 1..5),
                0..6,
            )
        ) {
            let body = NamesBody { domain: "weave.local".into(), entries };
            let bytes = body.to_bytes();
            prop_assert_eq!(bytes.len(), body.wire_len());
            prop_assert_eq!(NamesBody::parse(&bytes), Ok(body));
        }
    }
}
