//! What hosts and routers on the way say of datagrams that they did not deliver: ICMP errors.
//!
//! They are read from raw sockets, not from the error queues of the UDP sockets (`IP_RECVERR`): there each error would fail the next send,
//! whoever that is to, and so anybody who can forge one could keep datagrams from leaving. What is read here is a hint that the mesh plane
//! [checks](crate::mesh::Mesh::handle_rebuff) against its sessions before it so much as asks the peer.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::sys::sockopt;
use crate::mesh::Rebuff;
use crate::wire::Address;

/// Bytes of an error that are looked at: its own headers, those of the datagram it quotes, and our clear header.
const ROOM: usize = 256;
/// Errors read before others get their turn.
const BUDGET: usize = 64;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// A socket that hears the errors of one address family.
#[derive(Debug)]
pub struct IcmpSocket {
    socket: Socket,
    v6: bool,
    port: u16,
}

/// An error about a datagram from our port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said<'a> {
    /// Where the datagram was going.
    pub to: Address,
    /// What became of it.
    pub rebuff: Rebuff,
    /// The beginning of its payload.
    pub quoted: &'a [u8],
}

/// Opens a socket for each family, for errors about datagrams from `port`. Needs CAP_NET_RAW; without it, and without a family, the router
/// goes on without: heartbeats find out a little later.
pub fn open(port: u16) -> Vec<IcmpSocket> {
    let opened = [false, true].map(|v6| open_one(v6, port).map_err(|error| (v6, error)));
    let warn = |(v6, error): (bool, io::Error)| tracing::debug!(%error, v6, "ICMP errors are not heard");
    opened.into_iter().filter_map(|socket| socket.map_err(warn).ok()).collect()
}

fn open_one(v6: bool, port: u16) -> io::Result<IcmpSocket> {
    let (domain, protocol) = if v6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if v6 {
        socket.attach_filter(&only_errors_v6())?;
    } else {
        /// `linux/icmp.h`: the bits that are set are the types that are not wanted.
        const ICMP_FILTER: i32 = 1;
        sockopt::set(socket.as_fd(), libc::SOL_RAW, ICMP_FILTER, !(1 << 3))?;
    }
    Ok(IcmpSocket { socket, v6, port })
}

/// Lets "unreachable" (1) and "too big" (2) through: neighbour discovery is none of our business.
fn only_errors_v6() -> [SockFilter; 5] {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 0),
        SockFilter::new(JUMP_EQUAL, 1, 0, 1),
        SockFilter::new(JUMP_EQUAL, 0, 1, 2),
        SockFilter::new(RETURN, 0, 0, ROOM as u32),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

impl IcmpSocket {
    /// Tells of the errors that wait; false where more may do so, because this is enough for one turn.
    pub fn drain(&self, mut tell: impl FnMut(Said<'_>)) -> bool {
        let mut buffer = [0; ROOM];
        for _ in 0..BUDGET {
            match (&self.socket).read(&mut buffer) {
                Ok(length) => {
                    if let Some(said) = buffer.get(..length).and_then(|packet| parse(packet, self.v6, self.port)) {
                        tell(said);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        false
    }
}

/// The error in a packet, where it is about a UDP datagram from our port. Packets of IPv4 begin with their IP header, those of IPv6 do not.
fn parse(packet: &[u8], v6: bool, port: u16) -> Option<Said<'_>> {
    let message = if v6 { packet } else { packet.get(header_length(packet)?..)? };
    let (kind, code) = (*message.first()?, *message.get(1)?);
    let rebuff = match (v6, kind, code) {
        (false, 3, 4) | (true, 2, _) => Rebuff::TooBig,
        (false, 3, _) | (true, 1, _) => Rebuff::Unreachable,
        _ => return None,
    };
    let inner = message.get(8..)?;
    let (ip, protocol, datagram): (IpAddr, u8, &[u8]) = if v6 {
        let to: [u8; 16] = inner.get(24..40)?.try_into().ok()?;
        (Ipv6Addr::from(to).into(), *inner.get(6)?, inner.get(40..)?)
    } else {
        let to: [u8; 4] = inner.get(16..20)?.try_into().ok()?;
        (Ipv4Addr::from(to).into(), *inner.get(9)?, inner.get(header_length(inner)?..)?)
    };
    let port_at = |at: usize| Some(u16::from_be_bytes([*datagram.get(at)?, *datagram.get(at + 1)?]));
    if protocol != UDP || port_at(0)? != port {
        return None;
    }
    Some(Said { to: Address::udp(SocketAddr::new(ip, port_at(2)?)), rebuff, quoted: datagram.get(UDP_HEADER..)? })
}

/// Bytes of an IPv4 header with its options.
fn header_length(packet: &[u8]) -> Option<usize> {
    Some(usize::from(packet.first()? & 0x0f) * 4).filter(|length| *length >= 20)
}

impl Source for IcmpSocket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).deregister(registry)
    }
}

impl AsRawFd for IcmpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error of this type and code about a datagram from port 6783 to a peer, which begins `payload`.
    fn v4(kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
        let mut inner = vec![0x46, 0, 0, 0, 0, 0, 0x40, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 1, 1, 1, 1];
        inner.extend([6783u16.to_be_bytes(), 7000u16.to_be_bytes(), [0, 0], [0, 0]].concat());
        inner.extend(payload);
        let mut packet = vec![0x45; 20];
        packet.extend([kind, code, 0, 0, 0, 0, 0, 0]);
        packet.extend(inner);
        packet
    }

    fn v6(kind: u8, code: u8) -> Vec<u8> {
        let mut packet = vec![kind, code, 0, 0, 0, 0, 5, 0];
        packet.extend([0x60, 0, 0, 0, 0, 9, UDP, 64]);
        packet.extend(Ipv6Addr::LOCALHOST.octets());
        packet.extend("fd00::2".parse::<Ipv6Addr>().expect("an address").octets());
        packet.extend([6783u16.to_be_bytes(), 7000u16.to_be_bytes(), [0, 0], [0, 0]].concat());
        packet.push(9);
        packet
    }

    #[test]
    fn errors_of_both_families_say_where_to_and_what() {
        let to = Address::udp("10.0.0.2:7000".parse().expect("an address"));
        let said = |rebuff| Some(Said { to, rebuff, quoted: &[1, 2, 3] });
        assert_eq!(parse(&v4(3, 3, &[1, 2, 3]), false, 6783), said(Rebuff::Unreachable));
        assert_eq!(parse(&v4(3, 1, &[1, 2, 3]), false, 6783), said(Rebuff::Unreachable));
        assert_eq!(parse(&v4(3, 4, &[1, 2, 3]), false, 6783), said(Rebuff::TooBig));
        let to = Address::udp("[fd00::2]:7000".parse().expect("an address"));
        assert_eq!(parse(&v6(1, 4), true, 6783), Some(Said { to, rebuff: Rebuff::Unreachable, quoted: &[9] }));
        assert_eq!(parse(&v6(2, 0), true, 6783), Some(Said { to, rebuff: Rebuff::TooBig, quoted: &[9] }));
    }

    #[test]
    fn what_is_of_others_or_cut_short_says_nothing() {
        assert_eq!(parse(&v4(11, 0, &[]), false, 6783), None, "time exceeded is a loop of somebody's");
        assert_eq!(parse(&v4(3, 3, &[]), false, 6784), None, "another program's");
        let whole = v4(3, 3, &[]);
        (0..whole.len()).for_each(|length| assert_eq!(parse(&whole[..length], false, 6783), None, "{length} bytes"));
        let mut tcp = whole.clone();
        tcp[20 + 8 + 9] = 6;
        assert_eq!(parse(&tcp, false, 6783), None);
        let whole = v6(1, 4);
        (0..whole.len() - 1).for_each(|length| assert_eq!(parse(&whole[..length], true, 6783), None, "{length} bytes"));
    }
}
