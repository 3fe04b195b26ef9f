//! The answers, read by an independent parser.

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice, icmpv4};

use super::*;
use crate::forward::testkit::{MemoryTap, Recipe, mac};

fn answer_to(recipe: &Recipe, mtu: usize) -> Option<Vec<u8>> {
    let bytes = recipe.frame();
    let frame = Frame::parse(&bytes).expect("a frame");
    let packet = bytes.len() - usize::from(frame.l3);
    let mtu = answerable(&bytes, &frame, packet, mtu)?;
    let mut tap = MemoryTap::default();
    answer(&bytes, &frame, mtu, &mut tap);
    tap.take().pop()
}

#[test]
fn ipv4_gets_fragmentation_needed() {
    let recipe = Recipe { payload: 2000, tags: vec![9], ..Recipe::default() };
    let bytes = answer_to(&recipe, 1416).expect("an answer");
    let packet = SlicedPacket::from_ethernet(&bytes).expect("a good frame");
    assert_eq!(bytes[..12], [mac(1), mac(2)].concat());
    assert_eq!(packet.vlan_ids()[0].value(), 9);
    let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("not IPv4") };
    let header = ip.header().to_header();
    assert_eq!((header.source, header.destination), ([10, 0, 0, 2], [10, 0, 0, 1]));
    assert_eq!(header.calc_header_checksum(), header.header_checksum);
    assert_eq!(header.total_len, 576);
    let Some(TransportSlice::Icmpv4(icmp)) = &packet.transport else { panic!("not ICMP") };
    let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1416 };
    assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(needed));
    assert_eq!(fold(sum(icmp.slice())), 0xffff);
    assert_eq!(icmp.payload(), &recipe.frame()[18..18 + 548]);
}

#[test]
fn ipv6_gets_packet_too_big() {
    let recipe = Recipe { payload: 2000, v6: true, tcp: false, ..Recipe::default() };
    let bytes = answer_to(&recipe, 1420).expect("an answer");
    let packet = SlicedPacket::from_ethernet(&bytes).expect("a good frame");
    let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!("not IPv6") };
    let (source, destination) = (ip.header().source(), ip.header().destination());
    assert_eq!((source[15], destination[15], ip.header().payload_length()), (2, 1, 1240));
    let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("not ICMPv6") };
    assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1420 });
    assert!(icmp.is_checksum_valid(source, destination));
    assert_eq!(icmp.payload(), &recipe.frame()[14..14 + 1232]);
}

#[test]
fn mtus_that_nobody_obeys_are_not_announced() {
    let v6 = Recipe { payload: 1300, v6: true, tcp: false, ..Recipe::default() };
    let bytes = answer_to(&v6, 900).expect("an answer");
    assert_eq!(bytes[58..62], 1280u32.to_be_bytes());
    assert_eq!(answer_to(&Recipe { payload: 1200, ..v6 }, 900), None, "1248 bytes must get through");
    let v4 = Recipe { payload: 530, tcp: false, ..Recipe::default() };
    assert!(answer_to(&v4, 300).is_some());
    assert_eq!(answer_to(&Recipe { payload: 500, ..v4 }, 300), None);
}

#[test]
fn what_has_no_answer_gets_none() {
    let big = Recipe { payload: 2000, ..Recipe::default() };
    assert!(answer_to(&big, 1420).is_some());
    assert_eq!(answer_to(&Recipe { dont_fragment: false, ..big.clone() }, 1420), None);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = big.frame();
        change(&mut bytes);
        let frame = Frame::parse(&bytes).expect("a frame");
        assert_eq!(answerable(&bytes, &frame, bytes.len() - 14, 1420), None);
    };
    refused(&|bytes| bytes[0] |= 1);
    refused(&|bytes| bytes[26..30].fill(0));
    refused(&|bytes| bytes[30] = 224);
    refused(&|bytes| bytes[20] |= 0x01);
    // An ICMP error: destination unreachable.
    refused(&|bytes| (bytes[23], bytes[34]) = (1, 3));
    // Not IP at all.
    refused(&|bytes| bytes[12] = 0x99);
}
