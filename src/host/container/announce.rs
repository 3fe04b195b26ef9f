//! Announcements of an address: a gratuitous ARP (RFC 5227), an unsolicited neighbour advertisement (RFC 4861 section 7.2.6). Whoever knew the
//! address at another MAC knows better at once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use socket2::{Domain, Socket, Type};

use crate::forward::checksum::{fold, sum};
use crate::io::sys::packet;

const EVERYBODY: [u8; 6] = [0xff; 6];
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;
/// The bit "override" of a neighbour advertisement.
const OVERRIDE: u8 = 0x20;

/// Says on the interface `index` of the calling thread's namespace that `addresses` are at `mac`. Needs CAP_NET_RAW.
pub fn announce(index: u32, mac: [u8; 6], addresses: &[IpAddr]) -> std::io::Result<()> {
    let socket = Socket::new(Domain::PACKET, Type::RAW.cloexec(), None)?;
    // Bound to no protocol, it receives nothing.
    packet::bind(socket.as_fd(), index, 0)?;
    for address in addresses {
        let frame = match address {
            IpAddr::V4(ip) => arp(mac, *ip),
            IpAddr::V6(ip) => advertisement(mac, *ip),
        };
        socket.send_with_flags(&frame, libc::MSG_DONTWAIT)?;
    }
    Ok(())
}

/// An ARP request for the address, by itself.
fn arp(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let fixed = [0, 1, 8, 0, 6, 4, 0, 1];
    [&EVERYBODY[..], &mac, &[8, 6], &fixed, &mac, &ip.octets(), &[0; 6], &ip.octets()].concat()
}

fn advertisement(mac: [u8; 6], ip: Ipv6Addr) -> Vec<u8> {
    // Type, code, checksum, flags; the target; the option "target link-layer address" in units of 8 bytes.
    let mut message = [&[136, 0, 0, 0, OVERRIDE, 0, 0, 0][..], &ip.octets(), &[2, 1], &mac].concat();
    let length = message.len() as u8;
    let pseudo = sum(&ip.octets()) + sum(&ALL_NODES.octets()) + u64::from(length) + u64::from(ICMPV6);
    let checksum = !fold(pseudo + sum(&message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let header = [0x60, 0, 0, 0, 0, length, ICMPV6, 255];
    [&ALL_NODES_MAC[..], &mac, &[0x86, 0xdd], &header, &ip.octets(), &ALL_NODES.octets(), &message].concat()
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    #[test]
    fn an_arp_announcement_byte_by_byte() {
        let frame = arp(MAC, [10, 2, 1, 3].into());
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 8, 6]);
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[22..], [2, 0, 0, 0, 0, 9, 10, 2, 1, 3, 0, 0, 0, 0, 0, 0, 10, 2, 1, 3]);
    }

    #[test]
    fn an_advertisement_that_others_understand() {
        let ip: Ipv6Addr = "fd00::3".parse().expect("an address");
        let frame = advertisement(MAC, ip);
        let packet = SlicedPacket::from_ethernet(&frame).expect("a packet");
        let Some(NetSlice::Ipv6(v6)) = packet.net else { panic!("IPv6") };
        assert_eq!((v6.header().source_addr(), v6.header().destination_addr(), v6.header().hop_limit()), (ip, ALL_NODES, 255));
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("ICMPv6") };
        assert!(icmp.is_checksum_valid(ip.octets(), ALL_NODES.octets()));
        assert!(matches!(icmp.icmp_type(), Icmpv6Type::NeighborAdvertisement(header) if header.r#override && !header.solicited));
        assert_eq!(frame[54..][8..24], ip.octets());
        assert_eq!(frame[frame.len() - 8..], [2, 1, 2, 0, 0, 0, 0, 9]);
    }
}
