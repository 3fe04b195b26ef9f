//! What `attach`, `detach`, `expose` and `hide` take for an address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// One address, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSpec {
    /// This very address, with the length of its subnet's prefix: `ip:10.2.1.3/24`, or `10.2.1.3/24`.
    Fixed(IpNet),
    /// Any address of this subnet: `net:10.2.1.0/24`.
    Subnet(IpNet),
    /// Any address of the default subnet: `net:default`.
    Default,
}

/// Why a text is none, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

/// Longest prefixes of a subnet in which two stations find room beside the network's own address and the one for all.
const LONGEST: (u8, u8) = (30, 126);

impl FromStr for AddressSpec {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<AddressSpec, AddressError> {
        match text.split_once(':') {
            Some(("net", "default")) => Ok(AddressSpec::Default),
            Some(("net", cidr)) => subnet(cidr).map(AddressSpec::Subnet),
            Some(("ip", cidr)) => fixed(cidr).map(AddressSpec::Fixed),
            // Colons of an IPv6 address.
            _ => fixed(text).map(AddressSpec::Fixed),
        }
    }
}

impl fmt::Display for AddressSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressSpec::Fixed(address) => write!(f, "ip:{address}"),
            AddressSpec::Subnet(subnet) => write!(f, "net:{subnet}"),
            AddressSpec::Default => f.write_str("net:default"),
        }
    }
}

/// True for a text that is meant as an address, whether or not it is a good one: no container has such a name.
pub fn is_meant(text: &str) -> bool {
    text.contains('/') || text.starts_with("net:") || text.starts_with("ip:")
}

fn cidr(text: &str) -> Result<IpNet, AddressError> {
    let bad = || AddressError(format!("'{text}' is no address with a prefix length; write ip:10.2.1.3/24, net:10.2.1.0/24 or net:default"));
    let cidr: IpNet = text.parse().map_err(|_| bad())?;
    let longest = if cidr.addr().is_ipv4() { LONGEST.0 } else { LONGEST.1 };
    if cidr.prefix_len() > longest {
        return Err(AddressError(format!("the subnet of {text} is too small for two stations; its prefix may have up to {longest} bits")));
    }
    if cidr.prefix_len() == 0 {
        return Err(AddressError(format!("the subnet of {text} is the whole internet; write its real prefix length")));
    }
    Ok(cidr)
}

fn subnet(text: &str) -> Result<IpNet, AddressError> {
    let cidr = cidr(text)?;
    match cidr.trunc() {
        subnet if subnet == cidr => stations(cidr),
        subnet => Err(AddressError(format!("{text} is an address and no subnet; write net:{subnet}, or ip:{cidr} for this very address"))),
    }
}

fn fixed(text: &str) -> Result<IpNet, AddressError> {
    let cidr = stations(cidr(text)?)?;
    if cidr.addr() == cidr.network() {
        return Err(AddressError(format!("{text} is a subnet and no address; write net:{cidr} for any address of it")));
    }
    if cidr.addr().is_ipv4() && cidr.addr() == cidr.broadcast() {
        return Err(AddressError(format!("{} is the address of everybody in {}; take another", cidr.addr(), cidr.trunc())));
    }
    Ok(cidr)
}

/// Refuses what no container can have.
fn stations(cidr: IpNet) -> Result<IpNet, AddressError> {
    let ip = cidr.addr();
    let special = ip.is_multicast() || ip.is_loopback() || ip.is_unspecified();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    match special || link_local {
        true => Err(AddressError(format!("{ip} is an address for special use, which no container can have"))),
        false => Ok(cidr),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<AddressSpec, String> {
        text.parse().map_err(|e: AddressError| e.to_string())
    }

    #[test]
    fn all_forms() {
        let net = |text: &str| text.parse::<IpNet>().expect("a CIDR");
        assert_eq!(parse("net:default"), Ok(AddressSpec::Default));
        assert_eq!(parse("net:10.2.1.0/24"), Ok(AddressSpec::Subnet(net("10.2.1.0/24"))));
        assert_eq!(parse("net:fd00:2::/64"), Ok(AddressSpec::Subnet(net("fd00:2::/64"))));
        for text in ["ip:10.2.1.3/24", "10.2.1.3/24"] {
            assert_eq!(parse(text), Ok(AddressSpec::Fixed(net("10.2.1.3/24"))), "{text}");
        }
        for text in ["ip:fd00:2::1/64", "fd00:2::1/64"] {
            assert_eq!(parse(text), Ok(AddressSpec::Fixed(net("fd00:2::1/64"))), "{text}");
        }
        // Legal inside a larger subnet.
        assert_eq!(parse("10.40.0.0/12"), Ok(AddressSpec::Fixed(net("10.40.0.0/12"))));
        assert_eq!(parse("10.2.1.2/30"), Ok(AddressSpec::Fixed(net("10.2.1.2/30"))));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("net:10.2.1.3/24", "no subnet"),
            ("10.2.1.0/24", "no address"),
            ("ip:10.2.1.255/24", "everybody"),
            ("net:10.2.1.0/31", "too small"),
            ("net:10.2.1.4/32", "too small"),
            ("10.2.1.3/32", "too small"),
            ("ip:fd00::1/127", "too small"),
            ("10.0.0.1/0", "whole internet"),
            ("10.2.1.3", "no address with a prefix length"),
            ("net:", "no address with a prefix length"),
            ("host:10.2.1.3/24", "no address with a prefix length"),
            ("10.2.1.3/33", "no address with a prefix length"),
            ("web", "no address with a prefix length"),
            ("net:224.0.0.0/4", "special"),
            ("127.0.0.2/8", "special"),
            ("169.254.1.1/16", "special"),
            ("fe80::1/64", "special"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn containers_are_told_from_addresses() {
        assert!(is_meant("10.2.1.0/24") && is_meant("net:defalt") && is_meant("ip:10.2.1.3"));
        assert!(!is_meant("web") && !is_meant("web.example") && !is_meant("0123456789ab"));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(ip: u32, len in 1u8..=30) {
            let cidr = IpNet::new(IpAddr::V4(ip.into()), len).expect("a length that fits");
            for spec in [AddressSpec::Fixed(cidr), AddressSpec::Subnet(cidr.trunc())] {
                // What is refused is refused; what is taken is the same.
                if let Ok(read) = spec.to_string().parse::<AddressSpec>() {
                    prop_assert_eq!(read, spec);
                }
            }
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<AddressSpec>();
        }
    }
}
