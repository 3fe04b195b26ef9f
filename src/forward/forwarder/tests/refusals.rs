//! What is refused, each with its counter.

use super::*;
use crate::forward::SERVICE_ADDRESS;
use crate::forward::fuzz::seal;
use crate::wire::bundle::{Form, FrameHeader};
use crate::wire::flood::FloodHeader;

fn whole(frame: &[u8]) -> Vec<u8> {
    let header = FrameHeader { form: Form::Whole, partial: false, length: frame.len() as u16 };
    let mut out = vec![0; header.header_len() + frame.len()];
    header.write(frame, &mut out);
    out
}

fn flood(origin: usize, sequence: u32, hop_limit: u8) -> Vec<u8> {
    flood_of(origin, sequence, hop_limit, &broadcast(origin as u8 + 1))
}

fn flood_of(origin: usize, sequence: u32, hop_limit: u8, frame: &[u8]) -> Vec<u8> {
    let header = FloodHeader { origin: name(origin), incarnation: 1, lane: 1, hop_limit, sequence };
    [&header.to_bytes()[..], &whole(frame)].concat()
}

/// Router 1 of a line of three receives these datagrams from the address of router `from`; what it drops is returned.
fn receive(mesh: &mut Mesh, from: usize, datagrams: &[Vec<u8>]) -> Vec<(usize, &'static str, u64)> {
    let before = drops(mesh);
    for datagram in datagrams {
        mesh.receive(1, address(from), datagram, datagram.len());
    }
    drops(mesh).into_iter().filter(|drop| !before.contains(drop)).collect()
}

#[test]
fn strange_datagrams_are_counted_by_reason() {
    let mut mesh = line(three());
    let good = seal(&mesh, 0, 1, Kind::DataDirect, &whole(&broadcast(1)));
    let mut forged = seal(&mesh, 0, 1, Kind::DataDirect, &whole(&broadcast(1)));
    forged[30] ^= 1;
    let mut lane = good.clone();
    lane[2] = 0x90;
    let mut unknown = good.clone();
    unknown[9..12].copy_from_slice(&[9, 9, 9]);
    let direct_to_another = seal(&mesh, 0, 2, Kind::DataDirect, &whole(&broadcast(1)));
    let bad_bundle = seal(&mesh, 0, 1, Kind::DataDirect, &[0xff; 20]);
    let runt = seal(&mesh, 0, 1, Kind::DataDirect, &whole(&[2; 13]));
    let mut group_source = broadcast(1);
    group_source[6] |= 1;
    let group_source = seal(&mesh, 0, 1, Kind::DataDirect, &whole(&group_source));
    let mut plain = good.clone();
    plain[0] = 0x10 | Kind::PlainDirect as u8;
    let short = [good[..16].to_vec(), vec![0; 4]].concat();
    for (datagram, reason) in [
        (vec![0x19; 7], "drop_bad_header"),
        (vec![0x29; 60], "drop_bad_header"),
        (forged, "drop_forged"),
        (lane, "drop_lane"),
        (unknown, "drop_unknown_session"),
        (direct_to_another, "drop_misdirected"),
        (short, "drop_short"),
        (bad_bundle, "drop_bad_bundle"),
        (runt, "drop_runt"),
        (group_source, "drop_bad_source"),
        (plain, "drop_forged"),
    ] {
        let drops = receive(&mut mesh, 0, &[datagram]);
        assert!(matches!(&drops[..], [(1, name, _)] if *name == reason), "{reason}: {drops:?}");
    }
    assert_eq!(mesh.nodes[1].tap.frames, []);
    assert_eq!(receive(&mut mesh, 0, std::slice::from_ref(&good)), []);
    assert_eq!(mesh.nodes[1].tap.take(), [broadcast(1)]);
    assert_eq!(receive(&mut mesh, 0, &[good]), [(1, "drop_replay", 1)]);
}

#[test]
fn punts_are_bounded() {
    let mut mesh = line(three());
    let mut unknown = seal(&mesh, 0, 1, Kind::DataDirect, &whole(&broadcast(1)));
    unknown[9..12].copy_from_slice(&[9, 9, 9]);
    receive(&mut mesh, 0, &vec![unknown; 100]);
    let punt = Punt::UnknownSession { from: address(0), index: 0x09_0909 };
    assert_eq!(mesh.nodes[1].outbox.punts, vec![punt; 20]);
    let control = [0x12; 40].to_vec();
    receive(&mut mesh, 0, &vec![control.clone(); 300]);
    let punts = &mesh.nodes[1].outbox.punts;
    assert_eq!((punts.len(), punts.last()), (256, Some(&Punt::Control { from: address(0), bytes: control })));
    assert_eq!(mesh.counters(1).drop_punt.get(), 64);
}

#[test]
fn control_inside_a_batch_is_punted_and_the_rest_delivered() {
    let mut mesh = line(three());
    let good = seal(&mesh, 0, 1, Kind::DataDirect, &whole(&broadcast(1)));
    let control = seal(&mesh, 0, 1, Kind::ControlDirect, &whole(&broadcast(1)));
    let batch = [good.clone(), control.clone(), seal(&mesh, 0, 1, Kind::DataDirect, &whole(&broadcast(1)))].concat();
    mesh.receive(1, address(0), &batch, good.len());
    assert_eq!(mesh.nodes[1].tap.frames.len(), 2);
    assert_eq!(mesh.nodes[1].outbox.punts, [Punt::Control { from: address(0), bytes: control }]);
}

#[test]
fn a_bundle_may_hold_several_frames() {
    let mut mesh = line(three());
    let small = |n: u32| Recipe { tcp: false, payload: 20, sequence: n, id: n as u16, ..Recipe::default() }.frame();
    let text: Vec<u8> = [whole(&broadcast(1)), whole(&small(1)), whole(&broadcast(1)), whole(&small(2))].concat();
    let datagram = seal(&mesh, 0, 1, Kind::DataDirect, &text);
    assert_eq!(receive(&mut mesh, 0, &[datagram]), []);
    assert_eq!(mesh.nodes[1].tap.take(), [broadcast(1), small(1), broadcast(1), small(2)]);
}

#[test]
fn floods_made_up_in_anothers_name_keep_its_own_from_nobody() {
    let mut mesh = line(three());
    // Router 2 is not where the floods of router 0 come from.
    for ahead in [0, 1 << 20, 1 << 30] {
        for sequence in 1000..2100 {
            let made_up = seal(&mesh, 2, 1, Kind::Flood, &flood_of(0, sequence + ahead, 9, &broadcast(7)));
            mesh.receive(1, address(2), &made_up, made_up.len());
        }
    }
    mesh.nodes[1].tap.take();
    for sequence in [1000, 1001, 1500] {
        let its_own = seal(&mesh, 0, 1, Kind::Flood, &flood(0, sequence, 9));
        assert_eq!(receive(&mut mesh, 0, &[its_own]), []);
        assert_eq!(mesh.nodes[1].tap.take(), [broadcast(1)]);
    }
}

#[test]
fn floods_of_lives_that_their_origin_does_not_live_take_no_room_of_others() {
    let mut mesh = line(three());
    for incarnation in 2..500 {
        let header = FloodHeader { origin: name(0), incarnation, lane: 1, hop_limit: 9, sequence: 1 };
        let datagram = seal(&mesh, 0, 1, Kind::Flood, &[&header.to_bytes()[..], &whole(&broadcast(1))].concat());
        mesh.receive(1, address(0), &datagram, datagram.len());
    }
    mesh.nodes[1].tap.take();
    let quiet = seal(&mesh, 2, 1, Kind::Flood, &flood(2, 1, 9));
    assert_eq!(receive(&mut mesh, 2, &[quiet]), []);
    assert_eq!(mesh.nodes[1].tap.take(), [broadcast(3)]);
}

#[test]
fn a_flood_that_does_not_come_by_the_tree_goes_no_further() {
    let mut mesh = Mesh::line(Wiring { routers: 4, storm: true, ..Wiring::default() });
    for (from, passed_on) in [(0, 0), (2, 1)] {
        let datagram = seal(&mesh, from, 1, Kind::Flood, &flood(3, 5 + from as u32, 9));
        mesh.receive(1, address(from), &datagram, datagram.len());
        assert_eq!((mesh.nodes[1].tap.take(), mesh.nodes[1].outbox.len()), (vec![broadcast(4)], passed_on), "from {from}");
    }
}

#[test]
fn a_flood_that_comes_another_way_first_is_delivered_once_too() {
    let mut mesh = line(three());
    for (ways, sequence) in [([2, 0], 5), ([0, 2], 6), ([2, 2], 7), ([0, 0], 8)] {
        for from in ways {
            let datagram = seal(&mesh, from, 1, Kind::Flood, &flood(0, sequence, 9));
            mesh.receive(1, address(from), &datagram, datagram.len());
        }
        let passed_on = usize::from(ways.contains(&0));
        assert_eq!((mesh.nodes[1].tap.take(), mesh.nodes[1].outbox.len()), (vec![broadcast(1)], passed_on), "{ways:?}");
        mesh.nodes[1].outbox.clear();
    }
}

#[test]
fn floods_are_delivered_and_passed_on_once() {
    let mut mesh = line(three());
    let first = seal(&mesh, 0, 1, Kind::Flood, &flood(0, 5, 9));
    let again = seal(&mesh, 0, 1, Kind::Flood, &flood(0, 5, 9));
    assert_eq!(receive(&mut mesh, 0, &[first]), []);
    assert_eq!(receive(&mut mesh, 0, &[again]), [(1, "drop_flood_duplicate", 1)]);
    let elsewhere = seal(&mesh, 2, 1, Kind::Flood, &flood(0, 5, 8));
    assert_eq!(receive(&mut mesh, 2, &[elsewhere]), [(1, "drop_flood_duplicate", 2)]);
    assert_eq!(mesh.nodes[1].tap.take().len(), 1);
    mesh.settle();
    assert_eq!(mesh.nodes[2].tap.take().len(), 1);
    let last_hop = seal(&mesh, 0, 1, Kind::Flood, &flood(0, 6, 1));
    assert_eq!(receive(&mut mesh, 0, &[last_hop]), [(1, "drop_flood_hops", 1)]);
    assert_eq!(mesh.nodes[1].tap.take().len(), 1, "delivered, not passed on");
    let own = seal(&mesh, 0, 1, Kind::Flood, &flood(1, 1, 9));
    assert_eq!(receive(&mut mesh, 0, &[own]), [(1, "drop_flood_own", 1)]);
    let stranger = seal(&mesh, 0, 1, Kind::Flood, &flood(77, 1, 9));
    assert_eq!(receive(&mut mesh, 0, &[stranger]), [(1, "drop_flood_stranger", 1)]);
    let bad = seal(&mesh, 0, 1, Kind::Flood, &[1; 15]);
    assert_eq!(receive(&mut mesh, 0, &[bad]), [(1, "drop_bad_flood", 1)]);
    let long = seal(&mesh, 0, 1, Kind::Flood, &[flood(0, 7, 9), whole(&[2; 1400])].concat());
    assert_eq!(receive(&mut mesh, 0, &[long]), [(1, "drop_flood_too_big", 1)]);
}

#[test]
fn relaying_has_conditions() {
    let mut mesh = line(three());
    let onward = |mesh: &Mesh| seal(mesh, 0, 2, Kind::DataRelayed, &whole(&broadcast(1)));
    let datagram = onward(&mesh);
    assert_eq!(receive(&mut mesh, 7, &[datagram]), [(1, "drop_relay_stranger", 1)]);
    let mut last_hop = onward(&mesh);
    last_hop[1] = 1;
    assert_eq!(receive(&mut mesh, 0, &[last_hop]), [(1, "drop_relay_hops", 1)]);
    let datagram = onward(&mesh);
    assert_eq!(receive(&mut mesh, 2, &[datagram]), [(1, "drop_relay_no_route", 1)], "never back out of the link it came from");
    let mut nowhere = onward(&mesh);
    nowhere[3] ^= 0x80;
    assert_eq!(receive(&mut mesh, 0, &[nowhere]), [(1, "drop_relay_no_route", 2)]);
    let long = seal(&mesh, 0, 2, Kind::DataRelayed, &whole(&[2; 1450]));
    assert_eq!(receive(&mut mesh, 0, &[long]), [(1, "drop_relay_too_big", 1)]);
    assert!(mesh.nodes[1].outbox.is_empty());
    mesh.nodes[1].forwarder.fib().links[0].up.store(false, std::sync::atomic::Ordering::Relaxed);
    let datagram = onward(&mesh);
    assert_eq!(receive(&mut mesh, 0, &[datagram]), [(1, "drop_relay_stranger", 2)], "a dead link is no link");
}

#[test]
fn plain_data_needs_a_proven_path() {
    let mut mesh = line(Wiring { plain: true, ..three() });
    let datagram = |mesh: &Mesh, kind| seal(mesh, 0, 1, kind, &whole(&broadcast(1)));
    let direct = datagram(&mesh, Kind::PlainDirect);
    assert_eq!(receive(&mut mesh, 2, std::slice::from_ref(&direct)), [(1, "drop_plain", 1)], "another neighbour's address");
    assert_eq!(receive(&mut mesh, 0, &[direct]), []);
    let relayed = datagram(&mesh, Kind::PlainRelayed);
    assert_eq!(receive(&mut mesh, 7, std::slice::from_ref(&relayed)), [(1, "drop_plain", 2)]);
    assert_eq!(receive(&mut mesh, 2, &[relayed]), []);
    let flooded = seal(&mesh, 0, 1, Kind::PlainFlood, &flood(0, 1, 9));
    assert_eq!(receive(&mut mesh, 2, std::slice::from_ref(&flooded)), [(1, "drop_plain", 3)]);
    assert_eq!(receive(&mut mesh, 0, &[flooded]), []);
    let sealed = datagram(&mesh, Kind::DataDirect);
    assert_eq!(receive(&mut mesh, 0, &[sealed]), [], "sealed is always good");
    assert_eq!(mesh.nodes[1].tap.take().len(), 4);
}

#[test]
fn frames_of_the_bridge_that_do_not_travel() {
    let mut mesh = line(three());
    let sent = |mesh: &mut Mesh, frame: &[u8]| mesh.send(0, &VnetHeader::default(), frame);
    let mut spanning_tree = broadcast(1);
    spanning_tree[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0]);
    let mut group_source = broadcast(1);
    group_source[6] |= 1;
    let local = Recipe { source: 50, destination: 51, ..Recipe::default() };
    let local_too = Recipe { source: 51, destination: 50, ..Recipe::default() };
    sent(&mut mesh, &[0; 13]);
    sent(&mut mesh, &spanning_tree);
    sent(&mut mesh, &group_source);
    sent(&mut mesh, &local.frame());
    mesh.nodes[0].outbox.clear();
    sent(&mut mesh, &local_too.frame());
    assert!(mesh.nodes[0].outbox.is_empty());
    let reasons: Vec<_> = drops(&mesh).into_iter().map(|(_, name, _)| name).collect();
    assert_eq!(reasons, ["drop_runt", "drop_bad_source", "drop_link_local_group", "drop_local"]);
    // The shortest frame there is travels.
    sent(&mut mesh, &broadcast(1)[..14]);
    mesh.settle();
    assert_eq!(mesh.nodes[2].tap.take(), [&broadcast(1)[..14]]);
}

/// ARP for the name server's address from the station `source`.
fn service_arp(source: u8) -> Vec<u8> {
    let head = [&[0xff; 6][..], &[2, 0, 0, 0, 0, source], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    [&head[..], &[2, 0, 0, 0, 0, source], &[10, 32, 0, source], &[0; 6], &SERVICE_ADDRESS.octets()].concat()
}

#[test]
fn arp_for_the_name_server_stays_on_its_bridge() {
    let mut mesh = line(three());
    mesh.send(0, &VnetHeader::default(), &service_arp(1));
    assert!(mesh.nodes[0].outbox.is_empty());
    assert_eq!(drops(&mesh), [(0, "drop_service_address", 1)]);
    let from_another = seal(&mesh, 0, 1, Kind::DataDirect, &whole(&service_arp(2)));
    assert_eq!(receive(&mut mesh, 0, &[from_another]), [(1, "drop_service_address", 1)]);
    assert_eq!(mesh.nodes[1].tap.frames, []);
}
