//! What a laboratory is made of, as plain data.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::{BRIDGE, HostError};

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub ip: IpAddr,
    /// Prefix length in bits.
    pub len: u8,
}

impl Cidr {
    /// The n-th address of the network this address stands in.
    pub fn station(&self, n: u8) -> IpAddr {
        match self.ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.len.min(32))).unwrap_or(0);
                Ipv4Addr::from((u32::from(ip) & mask).wrapping_add(u32::from(n))).into()
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.len.min(128))).unwrap_or(0);
                Ipv6Addr::from((u128::from(ip) & mask).wrapping_add(u128::from(n))).into()
            }
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.len)
    }
}

impl FromStr for Cidr {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Cidr, HostError> {
        let bad = || {
            let why = std::io::Error::other("write an address and a prefix length, as in 10.32.0.1/24");
            HostError::io(format!("read '{text}' as an address"), why)
        };
        let (ip, len) = text.split_once('/').ok_or_else(bad)?;
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        let len: u8 = len.parse().map_err(|_| bad())?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        if len > longest { Err(bad()) } else { Ok(Cidr { ip, len }) }
    }
}

/// How a container is plugged into its host.
#[derive(Clone, Debug)]
pub struct Plug {
    /// The bridge on the host.
    pub bridge: String,
    /// MTU of both ends of its cable; the bridge's where none is given.
    pub mtu: Option<u16>,
    /// MAC of the container's interface; a random one where none is given.
    pub mac: Option<[u8; 6]>,
}

impl Default for Plug {
    fn default() -> Plug {
        Plug { bridge: BRIDGE.into(), mtu: None, mac: None }
    }
}

/// A container of the laboratory.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its name in the laboratory.
    pub name: String,
    /// The name of its namespace, for `ip netns exec`.
    pub namespace: String,
    /// The host it runs on.
    pub host: String,
    /// Its address on the mesh.
    pub ip: IpAddr,
    /// The other end of its cable, on the host.
    pub host_end: String,
    /// The MAC of its interface on the mesh.
    pub mac: [u8; 6],
}

/// How a cable is laid.
#[derive(Clone, Copy, Debug, Default)]
pub struct WireOptions {
    /// MTU of both ends; 1500 where none is given.
    pub mtu: Option<u16>,
}

/// One end of a cable.
#[derive(Clone, Debug)]
pub struct WireEnd {
    /// The host it is on.
    pub host: String,
    /// The name of the host's namespace.
    pub namespace: String,
    /// The interface there.
    pub interface: String,
    /// The host's address on this cable.
    pub ip: IpAddr,
    /// The prefix length of that address.
    pub len: u8,
}

/// A cable between two hosts.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The end that was named first.
    pub a: WireEnd,
    /// The end that was named second.
    pub b: WireEnd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stations_of_a_network() {
        let v4: Cidr = "10.1.2.99/24".parse().expect("an address");
        assert_eq!(v4.station(2), "10.1.2.2".parse::<IpAddr>().expect("an address"));
        let v6: Cidr = "fd00:1::/64".parse().expect("an address");
        assert_eq!(v6.station(1), "fd00:1::1".parse::<IpAddr>().expect("an address"));
        for bad in ["10.0.0.1", "10.0.0.1/33", "x/8", "fd00::/129", "10.0.0.1/-1"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
