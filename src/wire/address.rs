//! Underlay addresses: where a datagram is sent, as one enum so that other transports can join UDP.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where a router is reached on the underlay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A UDP endpoint. IPv4-mapped IPv6 addresses are always held as IPv4.
    Udp(SocketAddr),
}

impl Address {
    /// A UDP address, with an IPv4-mapped IPv6 address unmapped and flow info dropped.
    pub fn udp(addr: SocketAddr) -> Address {
        match addr {
            SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
                Some(v4) => Address::Udp(SocketAddr::new(IpAddr::V4(v4), v6.port())),
                None => Address::Udp(SocketAddr::V6(std::net::SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()))),
            },
            SocketAddr::V4(_) => Address::Udp(addr),
        }
    }

    /// The socket address of a UDP address.
    pub fn socket_addr(&self) -> SocketAddr {
        let Address::Udp(addr) = self;
        *addr
    }

    /// Bytes of IP and UDP header before our own: 28 over IPv4, 48 over IPv6.
    pub fn underlay_overhead(&self) -> usize {
        match self.socket_addr() {
            SocketAddr::V4(_) => 28,
            SocketAddr::V6(_) => 48,
        }
    }

    /// True for private, link-local and loopback addresses (RFC 1918, RFC 3927, RFC 4193, RFC 6598).
    pub fn is_private(&self) -> bool {
        match self.socket_addr().ip() {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                ip.is_private() || ip.is_link_local() || ip.is_loopback() || (a == 100 && b & 0xc0 == 64)
            }
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local(),
        }
    }

    /// Appends the wire form: length 6 or 18, the IP address, the port.
    pub fn write(&self, out: &mut Vec<u8>) {
        let addr = self.socket_addr();
        match addr.ip() {
            IpAddr::V4(ip) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(18);
                out.extend_from_slice(&ip.octets());
            }
        }
        out.extend_from_slice(&addr.port().to_be_bytes());
    }

    /// Reads one address from the front of `bytes` and moves past it; `None` where it is malformed or of an unknown family.
    pub fn read(bytes: &mut &[u8]) -> Option<Address> {
        let mut rest = *bytes;
        let address = Address::parse(Address::read_form(&mut rest)?)?;
        *bytes = rest;
        Some(address)
    }

    /// Reads the wire form of one address of whatever family, its length included, and moves past it; `None` where it is cut short.
    pub fn read_form<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (form, rest) = bytes.split_at_checked(1 + usize::from(*bytes.first()?))?;
        *bytes = rest;
        Some(form)
    }

    /// The address of a wire form, its length included; `None` where its family is unknown.
    pub fn parse(form: &[u8]) -> Option<Address> {
        let (_, body) = form.split_first()?;
        let addr = match body {
            [a, b, c, d, hi, lo] => SocketAddr::new(Ipv4Addr::new(*a, *b, *c, *d).into(), u16::from_be_bytes([*hi, *lo])),
            [ip @ .., hi, lo] if ip.len() == 16 => {
                let ip: [u8; 16] = ip.try_into().ok()?;
                SocketAddr::new(Ipv6Addr::from(ip).into(), u16::from_be_bytes([*hi, *lo]))
            }
            _ => return None,
        };
        Some(Address::udp(addr))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket_addr().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket_addr().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Address {
        Address::udp(text.parse().expect("an address"))
    }

    #[test]
    fn wire_form_round_trips() {
        for text in ["10.1.2.3:6783", "[fd00::1]:6783"] {
            let mut bytes = Vec::new();
            addr(text).write(&mut bytes);
            bytes.push(0xee);
            let mut rest = &bytes[..];
            assert_eq!(Address::read(&mut rest), Some(addr(text)));
            assert_eq!(rest, [0xee]);
        }
        for bad in [&[][..], &[6, 1, 2][..], &[7, 1, 2, 3, 4, 5, 6, 7][..]] {
            assert_eq!(Address::read(&mut &bad[..]), None);
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(addr("[::ffff:10.0.0.1]:5"), addr("10.0.0.1:5"));
        assert_eq!(addr("[::ffff:10.0.0.1]:5").underlay_overhead(), 28);
    }

    #[test]
    fn private_ranges() {
        for yes in
            ["10.0.0.1:1", "172.16.0.1:1", "192.168.7.235:1", "169.254.1.1:1", "100.64.0.1:1", "127.0.0.1:1", "[fe80::1]:1", "[fd00::1]:1"]
        {
            assert!(addr(yes).is_private(), "{yes}");
        }
        for no in ["8.8.8.8:1", "100.128.0.1:1", "172.32.0.1:1", "[2001:db8::1]:1"] {
            assert!(!addr(no).is_private(), "{no}");
        }
    }
}
