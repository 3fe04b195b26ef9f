//! Ranges of IP addresses, as `ADDRESS/BITS`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// All addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    network: IpAddr,
    bits: u8,
}

/// Why a text is no subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a subnet; write ADDRESS/BITS, as in 10.0.0.0/8 or fd00::/8")]
pub struct BadSubnet(String);

impl Subnet {
    /// True for an address in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.network, ip) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => shift32(network.to_bits() ^ ip.to_bits(), self.bits) == 0,
            (IpAddr::V6(network), IpAddr::V6(ip)) => shift128(network.to_bits() ^ ip.to_bits(), self.bits) == 0,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The first `bits` bits.
fn shift32(value: u32, bits: u8) -> u32 {
    value.checked_shr(32 - u32::from(bits)).unwrap_or(0)
}

fn shift128(value: u128, bits: u8) -> u128 {
    value.checked_shr(128 - u32::from(bits)).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = BadSubnet;

    fn from_str(text: &str) -> Result<Subnet, BadSubnet> {
        let bad = || BadSubnet(text.to_string());
        let (ip, bits) = text.split_once('/').ok_or_else(bad)?;
        let network: IpAddr = ip.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().map_err(|_| bad())?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        if bits > most { Err(bad()) } else { Ok(Subnet { network, bits }) }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_or_out() {
        for (subnet, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.9.1.0/24", "10.9.1.255", "10.9.2.0"),
            ("10.9.1.7/32", "10.9.1.7", "10.9.1.6"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "fd00::1", "10.0.0.1"),
        ] {
            let parsed: Subnet = subnet.parse().expect(subnet);
            assert!(parsed.contains(inside.parse().expect("an address")), "{subnet} {inside}");
            assert!(!parsed.contains(outside.parse().expect("an address")), "{subnet} {outside}");
            assert_eq!(parsed.to_string(), subnet);
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/-1", "x/8", "10.0.0.0/"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
