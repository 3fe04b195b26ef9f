//! Underlay addresses: where a datagram is sent, by UDP or by a TCP connection that stands in for it.
//!
//! An address of a TCP connection means something to this router alone: it has no wire form, so it is never told to others.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Where a router is reached on the underlay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A UDP endpoint. IPv4-mapped IPv6 addresses are always held as IPv4.
    Udp(SocketAddr),
    /// A TCP connection that carries datagrams (`io::tcp`).
    Tcp {
        /// Its other end. IPv4-mapped IPv6 addresses are always held as IPv4.
        remote: SocketAddr,
        /// The port on this host by which its datagrams reach our UDP sockets: no two connections have the same.
        port: u16,
    },
}

impl Address {
    /// A UDP address, with an IPv4-mapped IPv6 address unmapped and flow info dropped.
    pub fn udp(addr: SocketAddr) -> Address {
        Address::Udp(canonical(addr))
    }

    /// The address of a TCP connection to `remote`, whose datagrams come and go by `port`.
    pub fn tcp(remote: SocketAddr, port: u16) -> Address {
        Address::Tcp { remote: canonical(remote), port }
    }

    /// True for a TCP connection.
    pub fn is_tcp(&self) -> bool {
        matches!(self, Address::Tcp { .. })
    }

    /// The socket address of the other end.
    pub fn socket_addr(&self) -> SocketAddr {
        match self {
            Address::Udp(addr) => *addr,
            Address::Tcp { remote, .. } => *remote,
        }
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

    /// Appends the wire form: length 6 or 18, the IP address, the port. Of a TCP connection it is length 0, an address of no known family.
    pub fn write(&self, out: &mut Vec<u8>) {
        let addr = match self {
            Address::Udp(addr) => addr,
            Address::Tcp { .. } => return out.push(0),
        };
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
        match self {
            Address::Udp(addr) => addr.fmt(f),
            Address::Tcp { remote, .. } => write!(f, "tcp://{remote}"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Appends an IP address behind its length, 4 or 16.
pub(super) fn write_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(16);
            out.extend_from_slice(&ip.octets());
        }
    }
}

/// Reads one, and what follows it; `None` where it is cut short or of another length.
pub(super) fn read_ip(bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    match bytes.split_first()? {
        (4, rest) => rest.split_first_chunk::<4>().map(|(ip, rest)| (IpAddr::from(*ip), rest)),
        (16, rest) => rest.split_first_chunk::<16>().map(|(ip, rest)| (IpAddr::from(*ip), rest)),
        _ => None,
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id())),
        },
        SocketAddr::V4(_) => addr,
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
    fn a_tcp_connection_is_known_by_its_end_and_told_to_nobody() {
        let connection = Address::tcp("[::ffff:10.0.0.1]:443".parse().expect("an address"), 5);
        assert_eq!(connection.to_string(), "tcp://10.0.0.1:443");
        assert!(connection.is_tcp() && connection.is_private() && connection != addr("10.0.0.1:443"));
        assert_ne!(connection, Address::tcp(connection.socket_addr(), 6), "two connections of one host are two");
        let mut bytes = Vec::new();
        connection.write(&mut bytes);
        assert_eq!((Address::read_form(&mut &bytes[..]), Address::parse(&bytes)), (Some(&[0][..]), None));
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
