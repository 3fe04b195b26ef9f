//! Cutting against an independent parser, and cutting then re-joining against the super frame itself.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::forward::checksum::complete;
use crate::forward::rejoin::{Piece, Rejoin};
use crate::forward::testkit::{MemoryTap, Recipe};
use crate::wire::bundle::Form;
use crate::wire::vnet::NEEDS_CSUM;

/// TCP sequence, TCP flags, IPv4 id and payload of a frame with a partial checksum, as an independent parser sees them.
/// etherparse checks lengths; checksums are compared here.
pub(in crate::forward) fn see(frame: &[u8]) -> (u32, u8, u16, Vec<u8>) {
    let mut bytes = frame.to_vec();
    let (start, offset) = Frame::parse(frame).and_then(|frame| frame.checksum_place()).expect("TCP or UDP");
    assert!(complete(&mut bytes, usize::from(start), usize::from(offset)));
    let packet = SlicedPacket::from_ethernet(&bytes).expect("a good frame");
    let (id, v4, v6) = match packet.net.expect("IP") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum, "IPv4 header checksum");
            (header.identification, Some((header.source, header.destination)), None)
        }
        NetSlice::Ipv6(ip) => (0, None, Some((ip.header().source(), ip.header().destination()))),
        NetSlice::Arp(_) => panic!("not IP"),
    };
    match packet.transport.expect("a transport") {
        TransportSlice::Tcp(tcp) => {
            let (header, payload) = (tcp.to_header(), tcp.payload());
            let right = match (v4, v6) {
                (Some((a, b)), _) => header.calc_checksum_ipv4_raw(a, b, payload),
                (None, Some((a, b))) => header.calc_checksum_ipv6_raw(a, b, payload),
                (None, None) => panic!("no addresses"),
            };
            // Zero and all ones are one number, and completing prefers the latter.
            assert_eq!(right.map(|sum| sum % 0xffff).ok(), Some(header.checksum % 0xffff), "TCP checksum");
            let flags = tcp.slice()[13];
            (header.sequence_number, flags, id, payload.to_vec())
        }
        TransportSlice::Udp(udp) => {
            let (header, payload) = (udp.to_header(), udp.payload());
            let right = match (v4, v6) {
                (Some((a, b)), _) => header.calc_checksum_ipv4_raw(a, b, payload),
                (None, Some((a, b))) => header.calc_checksum_ipv6_raw(a, b, payload),
                (None, None) => panic!("no addresses"),
            };
            assert_eq!(right.ok(), Some(header.checksum), "UDP checksum");
            (0, 0, id, payload.to_vec())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_routing_header_keeps_the_sum_of_the_final_destination() {
    let plain = Recipe { v6: true, payload: 5000, flags: 0x10, tcp: true, ..Recipe::default() };
    let vnet = plain.vnet(1000);
    let mut bytes = plain.frame();
    // Type 0, one address left: the packet is on its way to the first stop, its checksum is for the final one.
    let mut routing = vec![bytes[20], 2, 0, 1, 0, 0, 0, 0];
    routing.extend_from_slice(&bytes[38..54]);
    bytes[20] = 43;
    bytes[38..54].copy_from_slice(&[0xfd; 16]);
    let length = (bytes.len() - 54 + routing.len()) as u16;
    bytes[18..20].copy_from_slice(&length.to_be_bytes());
    bytes.splice(54..54, routing);
    let frame = Frame::parse(&bytes).expect("a frame");
    let vnet = VnetHeader { csum_start: vnet.csum_start + 24, ..vnet };
    let cut = Cut::prepare(&mut bytes, &frame, &vnet, 1400).expect("a cut");
    assert_eq!(cut.count(), 5);
    let mut alone = Recipe { payload: 1000, ..plain }.frame();
    let expected = pseudo(&alone, &Frame::parse(&alone).expect("a frame"), alone.len() - 54);
    alone.clear();
    for index in 0..5 {
        let mut segment = vec![0; cut.frame_len(index)];
        cut.write(&bytes, index, &mut segment);
        assert_eq!(be16(&segment, 54 + 24 + 16), Some(expected), "segment {index}");
    }
}

#[test]
fn a_super_frame_that_was_cut_short_is_refused() {
    let recipe = Recipe { payload: 5000, flags: 0x10, tcp: true, ..Recipe::default() };
    let mut bytes = recipe.frame();
    bytes.pop();
    let frame = Frame::parse(&bytes).expect("a frame");
    assert_eq!(Cut::prepare(&mut bytes, &frame, &recipe.vnet(1000), 1400).err(), Some(Uncut::Malformed));
}

fn recipes() -> impl Strategy<Value = Recipe> {
    let shape = (any::<bool>(), 0usize..3, 0usize..11, any::<bool>(), any::<bool>(), 0usize..11);
    let content = (0u8..16, 1usize..65_000, any::<u16>(), any::<u32>());
    (shape, content).prop_map(|((v6, tags, ip_options, dont_fragment, tcp, tcp_options), (flags, payload, id, sequence))| Recipe {
        v6,
        tags: [5, 6][..tags].to_vec(),
        ip_options,
        dont_fragment,
        tcp,
        tcp_options,
        // ACK always; ECE, CWR, PSH, FIN by the bits of `flags`.
        flags: 0x10 | flags & 1 | (flags & 2) << 2 | (flags & 0x0c) << 4,
        payload,
        id,
        sequence,
        ..Recipe::default()
    })
}

fn cut_all(recipe: &Recipe, gso_size: u16, room: usize) -> Result<(Cut, Vec<Vec<u8>>), Uncut> {
    let mut bytes = recipe.frame();
    let frame = Frame::parse(&bytes).expect("a frame");
    let mut vnet = recipe.vnet(gso_size);
    if recipe.flags & CWR != 0 && recipe.tcp {
        vnet.gso_type |= GSO_ECN;
    }
    let cut = Cut::prepare(&mut bytes, &frame, &vnet, room)?;
    let pieces = (0..cut.count()).map(|index| {
        let mut out = vec![0xee; cut.frame_len(index)];
        cut.write(&bytes, index, &mut out);
        out
    });
    let pieces = pieces.collect();
    Ok((cut, pieces))
}

/// Lays pieces out as they would lie in a receive buffer, and re-joins them; `lost` are missing.
fn rejoin_all(cut: &Cut, pieces: &[Vec<u8>], lost: &[usize], tap: &mut MemoryTap) {
    let mut buffer = Vec::new();
    let mut rejoin = Rejoin::default();
    let mut places = Vec::new();
    for piece in pieces {
        places.push(buffer.len() + 40..buffer.len() + 40 + piece.len());
        buffer.resize(buffer.len() + 40, 0xdd);
        buffer.extend_from_slice(piece);
    }
    for (index, range) in places.into_iter().enumerate().filter(|(index, _)| !lost.contains(index)) {
        let last = index + 1 == cut.count();
        let form = Form::Segment { index: index as u16, last, ecn: cut.ecn() };
        let piece = Piece { key: 1, counter: (index as u32).wrapping_sub(3), form, partial: true };
        if !rejoin.append(&buffer, range.clone(), piece) {
            rejoin.flush(&mut buffer, tap);
            let frame = Frame::parse(&buffer[range.clone()]).expect("a frame");
            assert!(rejoin.start(&mut buffer, range, piece, &frame, tap));
        }
    }
    rejoin.flush(&mut buffer, tap);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn segments_are_legal_packets(recipe in recipes(), gso_size in 200u16..9000, room in 300usize..9000) {
        // Older kernels take no more than 64 datagrams in one frame.
        prop_assume!(recipe.payload > usize::from(gso_size) && (recipe.tcp || recipe.payload <= 64 * usize::from(gso_size)));
        let whole = see(&recipe.frame());
        let headers = recipe.frame().len() - recipe.payload;
        let (cut, pieces) = match cut_all(&recipe, gso_size, room) {
            Ok(done) => done,
            Err(Uncut::TooBig) => {
                prop_assert!(!recipe.tcp && headers + usize::from(gso_size) > room);
                return Ok(());
            }
            Err(Uncut::Malformed) => return Err(TestCaseError::fail("malformed")),
        };
        let mut stream = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            prop_assert!(piece.len() <= room && piece.len() - headers <= usize::from(gso_size));
            let (sequence, flags, id, payload) = see(piece);
            let (first, last) = (index == 0, index + 1 == cut.count());
            if recipe.tcp {
                prop_assert_eq!(sequence, recipe.sequence.wrapping_add(stream.len() as u32));
                let kept = if first { CWR } else { 0 } | if last { FIN | PSH } else { 0 };
                prop_assert_eq!(flags, recipe.flags & (!(FIN | PSH | CWR) | kept));
            } else {
                prop_assert!(payload.len() == usize::from(gso_size) || last);
            }
            if !recipe.v6 {
                prop_assert_eq!(id, recipe.id.wrapping_add(index as u16));
            }
            stream.extend(payload);
        }
        prop_assert_eq!(stream, whole.3);
    }

    #[test]
    fn rejoining_undoes_cutting(recipe in recipes(), gso_size in 600u16..1449) {
        // Older kernels take no more than 64 datagrams in one frame.
        prop_assume!(recipe.payload > usize::from(gso_size) && (recipe.tcp || recipe.payload <= 64 * usize::from(gso_size)));
        let original = recipe.frame();
        let (cut, pieces) = cut_all(&recipe, gso_size, 2000).expect("fits");
        let mut tap = MemoryTap::default();
        rejoin_all(&cut, &pieces, &[], &mut tap);
        prop_assert_eq!(tap.frames.len(), 1);
        let (vnet, bytes) = &tap.frames[0];
        prop_assert_eq!(bytes, &original);
        let told = recipe.vnet(gso_size);
        prop_assert_eq!((vnet.flags, vnet.gso_size), (NEEDS_CSUM, gso_size));
        prop_assert_eq!((vnet.gso_kind(), vnet.csum_start, vnet.csum_offset), (told.gso_kind(), told.csum_start, told.csum_offset));
        prop_assert_eq!(vnet.gso_type & GSO_ECN != 0, recipe.tcp && recipe.flags & CWR != 0);
    }

    #[test]
    fn losses_cost_only_what_was_lost(recipe in recipes(), lost in proptest::collection::vec(0usize..50, 1..6), [gso, csum] in any::<[bool; 2]>()) {
        prop_assume!(recipe.payload > 1400);
        let (cut, pieces) = cut_all(&recipe, 1300, 2000).expect("fits");
        let mut tap = MemoryTap { gso, gso6: gso, uso: gso, csum, ..MemoryTap::default() };
        rejoin_all(&cut, &pieces, &lost, &mut tap);
        let mut arrived = Vec::new();
        for (vnet, bytes) in &tap.frames {
            let frame = Frame::parse(bytes).expect("a frame");
            prop_assert_eq!(vnet.needs_csum(), csum);
            prop_assert!(csum || checksum_is_good(bytes, &frame));
            prop_assert!(vnet.gso_kind() == 0 || (gso && csum && bytes.len() - usize::from(frame.payload) > usize::from(vnet.gso_size)));
            arrived.extend_from_slice(&bytes[usize::from(frame.payload)..]);
        }
        let kept = pieces.iter().enumerate().filter(|(index, _)| !lost.contains(index));
        let expected: Vec<u8> = kept.flat_map(|(_, piece)| piece[usize::from(cut.frame.payload)..].to_vec()).collect();
        prop_assert_eq!(arrived, expected);
    }
}

/// A completed checksum makes the sum over pseudo header and segment all ones.
fn checksum_is_good(bytes: &[u8], frame: &Frame) -> bool {
    let segment = &bytes[usize::from(frame.l4)..];
    fold(u64::from(pseudo(bytes, frame, segment.len())) + sum(segment)) == 0xffff
}

#[test]
fn contradictions_are_malformed() {
    let recipe = Recipe { payload: 4000, ..Recipe::default() };
    let good = recipe.vnet(1000);
    let mut bytes = recipe.frame();
    let frame = Frame::parse(&bytes).expect("a frame");
    for bad in [
        VnetHeader { gso_size: 0, ..good },
        VnetHeader { gso_type: GSO_TCPV6, ..good },
        VnetHeader { gso_type: GSO_UDP_L4, ..good },
        VnetHeader { gso_type: 3, ..good },
        VnetHeader { csum_start: 20, ..good },
        VnetHeader { csum_offset: 6, ..good },
    ] {
        assert_eq!(Cut::prepare(&mut bytes, &frame, &bad, 1500).err(), Some(Uncut::Malformed), "{bad:?}");
        assert_eq!(bytes, recipe.frame());
    }
    assert_eq!(Cut::prepare(&mut bytes, &frame, &good, 60).err(), Some(Uncut::TooBig));
    let udp = Recipe { tcp: false, payload: 4000, ..Recipe::default() };
    let mut bytes = udp.frame();
    let frame = Frame::parse(&bytes).expect("a frame");
    assert_eq!(Cut::prepare(&mut bytes, &frame, &udp.vnet(1400), 1400).err(), Some(Uncut::TooBig));
    assert_eq!(bytes, udp.frame());
}

#[test]
fn families_are_joined_each_where_it_is_taken() {
    for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        let recipe = Recipe { v6, tcp, payload: 3000, ..Recipe::default() };
        let (cut, pieces) = cut_all(&recipe, 1000, 2000).expect("fits");
        for [gso, gso6, uso] in [[false, true, true], [true, false, true], [true, true, false]] {
            let mut tap = MemoryTap { gso, gso6, uso, ..MemoryTap::default() };
            rejoin_all(&cut, &pieces, &[], &mut tap);
            let joins = [[uso, uso], [gso, gso6]][usize::from(tcp)][usize::from(v6)];
            assert_eq!(tap.frames.len(), if joins { 1 } else { 3 }, "{recipe:?}");
        }
    }
}

/// What a peer sends is joined only where it is exactly what cutting makes.
#[test]
fn forged_segments_are_written_alone() {
    let recipe = Recipe { payload: 3000, ..Recipe::default() };
    let (cut, pieces) = cut_all(&recipe, 1000, 2000).expect("fits");
    let l4 = usize::from(cut.frame.l4);
    let places = [0, 6, 15, 17, 20, 22, 23, 26, 33, l4, l4 + 3, l4 + 4, l4 + 8, l4 + 12, l4 + 13, l4 + 14, l4 + 18, l4 + 20];
    for place in places {
        let mut forged = pieces.clone();
        forged[1][place] ^= 0x06;
        let mut tap = MemoryTap::default();
        let mut rejoin = Rejoin::default();
        let mut buffer = forged.concat();
        let mut start = 0;
        for (index, piece) in forged.iter().enumerate() {
            let range = start..start + piece.len();
            start = range.end;
            let form = Form::Segment { index: index as u16, last: index == 2, ecn: false };
            let piece = Piece { key: 1, counter: index as u32, form, partial: true };
            if !rejoin.append(&buffer, range.clone(), piece) {
                rejoin.flush(&mut buffer, &mut tap);
                let frame = Frame::parse(&buffer[range.clone()]).expect("a frame");
                rejoin.start(&mut buffer, range, piece, &frame, &mut tap);
            }
        }
        rejoin.flush(&mut buffer, &mut tap);
        assert!(tap.frames.iter().all(|(vnet, _)| vnet.gso_type == 0), "byte {place}: {:?}", tap.frames.len());
    }
}
