//! Real forwarders with real sessions, back to back and in a line.

mod acks;
mod limits;
mod multicast;
mod proxy;
mod refusals;
mod ways;

use super::*;
use crate::forward::frame::Frame;
use crate::forward::mac_table::{Owner, Source};
use crate::forward::testkit::{Mesh, Recipe, Wiring, address, mac, name};
use crate::mesh::command::LocalMac;
use crate::wire::header::HOP_LIMIT;
use crate::wire::{Header, Kind, VnetHeader};

/// Tells every router that container `n + 1`, with MAC number `n + 1`, is at router `n`.
fn introduce(mesh: &Mesh) {
    for (n, node) in mesh.nodes.iter().enumerate() {
        let macs = &node.forwarder.shared().macs;
        for m in (0..mesh.nodes.len()).filter(|m| *m != n) {
            macs.learn_remote(0, mac(m as u8 + 1), name(m), Source::Data, mesh.now);
        }
    }
}

fn line(wiring: Wiring) -> Mesh {
    let mesh = Mesh::line(wiring);
    introduce(&mesh);
    mesh
}

fn three() -> Wiring {
    Wiring { routers: 3, ..Wiring::default() }
}

/// A broadcast as ARP makes them.
fn broadcast(source: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 60];
    frame[6..12].copy_from_slice(&mac(source));
    frame[12..14].copy_from_slice(&[8, 6]);
    frame
}

fn kinds(mesh: &Mesh) -> Vec<(usize, Kind)> {
    let kind = |bytes: &[u8]| Header::parse(bytes).expect("a header").kind;
    mesh.sent.iter().map(|(n, _, bytes, _)| (*n, kind(bytes))).collect()
}

/// Everything dropped anywhere, by name.
fn drops(mesh: &Mesh) -> Vec<(usize, &'static str, u64)> {
    let of = |n: usize| mesh.counters(n).read().into_iter().filter(|reading| reading.name.starts_with("drop") && reading.value > 0);
    (0..mesh.nodes.len()).flat_map(|n| of(n).map(move |reading| (n, reading.name, reading.value))).collect()
}

#[test]
fn a_broadcast_and_its_answer() {
    let mut mesh = Mesh::line(Wiring::default());
    mesh.send(0, &VnetHeader::default(), &broadcast(1));
    mesh.settle();
    assert_eq!(mesh.nodes[1].tap.take(), [broadcast(1)]);
    let answer = Recipe { source: 2, destination: 1, ..Recipe::default() };
    mesh.send(1, &answer.vnet(0), &answer.frame());
    mesh.settle();
    assert_eq!(mesh.nodes[0].tap.frames, [(answer.vnet(0), answer.frame())]);
    assert_eq!(kinds(&mesh), [(0, Kind::Flood), (1, Kind::DataDirect)]);
    assert_eq!(drops(&mesh), []);
    let macs = &mesh.nodes[0].forwarder.shared().macs;
    assert_eq!(macs.lookup(0, mac(2), mesh.now), Some(Owner::Peer(name(1))));
    let seen = Punt::LocalMac(LocalMac { vlan: 0, mac: mac(1), present: true, came_from: None });
    assert_eq!(mesh.nodes[0].outbox.punts, [seen]);
}

#[test]
fn a_super_frame_arrives_as_one() {
    for (v6, tcp, vlan, plain) in
        [(false, true, false, false), (true, true, true, false), (false, false, true, true), (true, false, false, true)]
    {
        let mut mesh = line(Wiring { plain, ..Wiring::default() });
        let tags = if vlan { vec![5] } else { vec![] };
        let recipe = Recipe { v6, tcp, tags, payload: 40_000, ip_options: 2, flags: 0x19, ..Recipe::default() };
        let macs = &mesh.nodes[0].forwarder.shared().macs;
        macs.learn_remote(5, mac(2), name(1), Source::Data, mesh.now);
        mesh.send(0, &recipe.vnet(1300), &recipe.frame());
        assert_eq!(mesh.nodes[0].outbox.len(), 1, "one run, one send");
        mesh.settle();
        let frames = &mesh.nodes[1].tap.frames;
        assert_eq!(frames.len(), 1);
        let expected = VnetHeader { hdr_len: frames[0].0.hdr_len, ..recipe.vnet(1300) };
        assert_eq!((&frames[0].0, &frames[0].1), (&expected, &recipe.frame()));
        assert_eq!(drops(&mesh), []);
        let fib = mesh.nodes[0].forwarder.fib();
        let sent = mesh.sent.iter().map(|(_, _, bytes, _)| bytes.len() as u64).sum::<u64>();
        let activity = &fib.peers[&name(1)].activity;
        assert_eq!(activity.tx_bytes.load(std::sync::atomic::Ordering::Relaxed), sent);
        assert_eq!(activity.tx_frames.load(std::sync::atomic::Ordering::Relaxed), 31);
        let session = mesh.sessions[&(1, 0)].local_index();
        let (_, activity) = &mesh.nodes[1].forwarder.fib().sessions[&session];
        assert_eq!(activity.rx_bytes.load(std::sync::atomic::Ordering::Relaxed), sent);
        assert_eq!(activity.rx_frames.load(std::sync::atomic::Ordering::Relaxed), 31);
        assert_eq!(activity.heard.load(std::sync::atomic::Ordering::Relaxed), mesh.now.0);
    }
}

#[test]
fn a_super_frame_in_two_messages_arrives_as_one() {
    let mut mesh = line(Wiring::default());
    let recipe = Recipe { payload: 64_000, flags: 0x10, ..Recipe::default() };
    mesh.send(0, &recipe.vnet(1300), &recipe.frame());
    let (mut buffer, mut messages) = (Vec::new(), Vec::new());
    for (_, bytes, segment) in mesh.nodes[0].outbox.runs() {
        let start = buffer.len();
        buffer.extend_from_slice(bytes);
        messages.push(Received { from: address(0), range: start..buffer.len(), segment });
        buffer.resize(start + 65_536, 0);
    }
    assert_eq!(messages.len(), 2, "more than one message can carry");
    let node = &mut mesh.nodes[1];
    node.forwarder.from_udp_batch(mesh.now, &mut buffer, &messages, &mut node.outbox, &mut node.tap);
    assert_eq!(node.tap.take(), [recipe.frame()]);
}

#[test]
fn data_from_an_address_that_is_not_proven_is_no_sign_of_life() {
    let mut mesh = line(Wiring::default());
    let recipe = Recipe { payload: 100, ..Recipe::default() };
    for (from, heard) in [(address(7), 0), (address(0), mesh.now.0)] {
        mesh.send(0, &recipe.vnet(0), &recipe.frame());
        let (_, bytes, segment) = mesh.nodes[0].outbox.runs().next().expect("a run");
        let bytes = bytes.to_vec();
        mesh.nodes[0].outbox.clear();
        mesh.receive(1, from, &bytes, segment);
        assert_eq!(mesh.nodes[1].tap.take(), [recipe.frame()], "it is authentic all the same");
        let session = mesh.sessions[&(1, 0)].local_index();
        let (_, activity) = &mesh.nodes[1].forwarder.fib().sessions[&session];
        assert_eq!(activity.heard.load(std::sync::atomic::Ordering::Relaxed), heard);
    }
}

#[test]
fn a_relay_uses_a_direct_path_that_is_no_link() {
    let mut mesh = line(three());
    let mut fib = mesh.fib(1, true);
    // The link to the third router is gone, the path to it is not: as in a mesh of more routers than links are allowed.
    fib.links.pop();
    fib.link_by_address.remove(&address(2));
    fib.link_by_peer.remove(&name(2));
    mesh.set_fib(1, fib);
    let recipe = Recipe { destination: 3, payload: 40_000, ..Recipe::default() };
    mesh.send(0, &recipe.vnet(1300), &recipe.frame());
    mesh.settle();
    assert_eq!(mesh.nodes[2].tap.take(), [recipe.frame()]);
    assert_eq!(drops(&mesh), []);
    // What comes from the destination itself is not sent back to it.
    let sealed = mesh.sent.iter().find(|(n, ..)| *n == 0).map(|(_, _, bytes, segment)| bytes[..*segment].to_vec()).expect("sent");
    let mut echoed = sealed.clone();
    echoed[3..9].copy_from_slice(&name(0).0);
    mesh.receive(1, address(0), &echoed, echoed.len());
    assert_eq!(drops(&mesh), [(1, "drop_relay_no_route", 1)]);
}

#[test]
fn nothing_readable_leaves_unless_plain() {
    for plain in [false, true] {
        let mut mesh = line(Wiring { plain, ..three() });
        let recipe = Recipe { destination: 3, payload: 200, ..Recipe::default() };
        let frame = recipe.frame();
        mesh.send(0, &recipe.vnet(0), &frame);
        mesh.send(0, &VnetHeader::default(), &broadcast(1));
        mesh.settle();
        let text = &frame[100..140];
        let readable = mesh.sent.iter().any(|(_, _, bytes, _)| bytes.windows(text.len()).any(|window| window == text));
        assert_eq!(readable, plain);
        let relayed = if plain { Kind::PlainRelayed } else { Kind::DataRelayed };
        assert!(kinds(&mesh).contains(&(1, relayed)));
        assert_eq!(drops(&mesh), []);
    }
}

#[test]
fn relays_forward_sealed_and_deliver_nothing() {
    let mut mesh = line(three());
    let recipe = Recipe { destination: 3, payload: 60_000, ..Recipe::default() };
    mesh.send(0, &recipe.vnet(1300), &recipe.frame());
    mesh.settle();
    assert_eq!(mesh.nodes[1].tap.frames, []);
    let arrived: usize = mesh.nodes[2].tap.frames.iter().map(|(_, bytes)| bytes.len() - 66).sum();
    assert_eq!(arrived, 60_000);
    assert_eq!(mesh.counters(1).relayed.get(), 47);
    let hops = |n: usize| mesh.sent.iter().filter(move |sent| sent.0 == n).map(|(_, _, bytes, _)| bytes[1]).collect::<Vec<_>>();
    assert!(hops(0).iter().all(|hops| *hops == HOP_LIMIT) && hops(1).iter().all(|hops| *hops == HOP_LIMIT - 1));
    let bodies =
        |n: usize| mesh.sent.iter().filter(move |sent| sent.0 == n).map(|(_, _, bytes, _)| bytes[2..].to_vec()).collect::<Vec<_>>();
    assert_eq!(bodies(0).first().map(|bytes| bytes[..100].to_vec()), bodies(1).first().map(|bytes| bytes[..100].to_vec()));
    assert_eq!(drops(&mesh), []);
}

#[test]
fn a_flood_is_delivered_once_everywhere() {
    for storm in [false, true] {
        let mut mesh = Mesh::line(Wiring { routers: 5, storm, ..Wiring::default() });
        for n in [0, 2, 4] {
            mesh.send(n, &VnetHeader::default(), &broadcast(n as u8 + 1));
            mesh.settle();
            for (m, node) in mesh.nodes.iter_mut().enumerate() {
                let expected = if m == n { vec![] } else { vec![broadcast(n as u8 + 1)] };
                assert_eq!(node.tap.take(), expected, "from {n} at {m}");
            }
        }
        let macs = &mesh.nodes[1].forwarder.shared().macs;
        assert_eq!(macs.lookup(0, mac(5), mesh.now), Some(Owner::Peer(name(4))), "the origin is learned, not the neighbour");
    }
}

#[test]
fn super_frames_are_flooded_too() {
    let mut mesh = Mesh::line(three());
    let recipe = Recipe { destination: 77, payload: 9_000, ..Recipe::default() };
    mesh.send(0, &recipe.vnet(1300), &recipe.frame());
    mesh.settle();
    for n in [1, 2] {
        let frames = &mesh.nodes[n].tap.frames;
        assert_eq!((frames.len(), &frames[0].1), (1, &recipe.frame()));
    }
    assert_eq!(mesh.counters(0).flooded_unknown_unicast.get(), 1);
    assert_eq!(drops(&mesh), []);
}

/// The trap that once corrupted data: datagrams of mixed sizes, single and in runs, with their content compared.
#[test]
fn mixed_datagrams_keep_their_content_and_order() {
    let mut mesh = line(Wiring::default());
    let mut expected = Vec::new();
    for n in 0..300u32 {
        let size = [10, 700, 700, 700, 200, 1200, 1, 64, 64, 64, 64][n as usize % 11];
        let payload = if n % 7 == 0 { size * 9 + 5 } else { size };
        let recipe = Recipe { tcp: false, payload, sequence: n, id: n as u16, dont_fragment: n % 3 == 0, ..Recipe::default() };
        let frame = recipe.frame();
        mesh.send(0, &recipe.vnet(size as u16), &frame);
        let step = if n % 7 == 0 { size } else { payload.max(1) };
        expected.extend(frame[42..].chunks(step).map(<[u8]>::to_vec));
        if n % 40 == 39 {
            mesh.settle();
        }
    }
    mesh.settle();
    let mut arrived = Vec::new();
    for (vnet, bytes) in &mesh.nodes[1].tap.frames {
        let frame = Frame::parse(bytes).expect("a frame");
        let step = if vnet.gso_type == 0 { bytes.len() } else { usize::from(vnet.gso_size) };
        assert!(vnet.needs_csum());
        arrived.extend(bytes[usize::from(frame.payload)..].chunks(step).map(<[u8]>::to_vec));
    }
    assert!(mesh.nodes[1].tap.frames.len() < expected.len() / 2, "small datagrams of one flow are joined");
    assert_eq!(arrived, expected);
    assert_eq!(drops(&mesh), []);
}

#[test]
fn a_checksum_in_a_strange_place_is_completed_before_it_travels() {
    let mut mesh = line(Wiring::default());
    let recipe = Recipe { tcp: false, ..Recipe::default() };
    let vnet = VnetHeader { csum_start: 60, csum_offset: 6, ..recipe.vnet(0) };
    mesh.send(0, &vnet, &recipe.frame());
    mesh.settle();
    let (vnet, bytes) = &mesh.nodes[1].tap.frames[0];
    assert_eq!(*vnet, VnetHeader::default());
    assert_ne!(bytes[66..68], recipe.frame()[66..68]);
    mesh.send(0, &VnetHeader { csum_start: 140, csum_offset: 6, ..recipe.vnet(0) }, &recipe.frame());
    assert_eq!(drops(&mesh), [(0, "drop_bad_offload", 1)]);
}

#[test]
fn a_container_that_moves_is_followed() {
    let mut mesh = line(three());
    let hello = |mesh: &mut Mesh, n: usize| mesh.send(n, &VnetHeader::default(), &broadcast(9));
    hello(&mut mesh, 0);
    mesh.settle();
    let to_nine = Recipe { source: 2, destination: 9, ..Recipe::default() };
    mesh.now = mesh.now + std::time::Duration::from_millis(100);
    // It moves to router 2, whose mesh plane hears of it and announces it to the others.
    hello(&mut mesh, 2);
    mesh.settle();
    let seen = Punt::LocalMac(LocalMac { vlan: 0, mac: mac(9), present: true, came_from: Some(name(0)) });
    assert!(mesh.nodes[2].outbox.punts.contains(&seen));
    for n in [0, 1] {
        mesh.nodes[n].forwarder.shared().macs.announce(0, mac(9), Some(name(2)), mesh.now);
        mesh.nodes[n].tap.take();
    }
    mesh.send(1, &to_nine.vnet(0), &to_nine.frame());
    mesh.send(0, &to_nine.vnet(0), &to_nine.frame());
    mesh.settle();
    assert_eq!(mesh.nodes[2].tap.take().iter().filter(|frame| **frame == to_nine.frame()).count(), 2);
    assert_eq!(mesh.nodes[0].forwarder.shared().macs.counters.mac_moves_local_to_remote.get(), 1);
}

#[test]
fn in_a_loop_the_silent_router_floods_nothing_and_unicast_goes_on() {
    let mut mesh = line(three());
    for (n, silent) in [(0, false), (2, true)] {
        let mut fib = mesh.fib(n, true);
        (fib.looped_with, fib.silent) = (vec![name(2 - n)], silent);
        mesh.set_fib(n, fib);
    }
    // Nothing of its bridge, nor of another container that is seen there.
    for source in [3, 1, 2] {
        mesh.send(2, &VnetHeader::default(), &broadcast(source));
    }
    mesh.settle();
    assert!(mesh.sent.is_empty());
    assert_eq!((mesh.counters(2).drop_loop_flood.get(), mesh.counters(2).drop_loop_echo.get()), (2, 1));
    // Nothing to its bridge, though it would pass on to others what it got.
    mesh.send(1, &VnetHeader::default(), &broadcast(2));
    mesh.settle();
    assert_eq!((mesh.nodes[0].tap.take(), mesh.nodes[2].tap.take()), (vec![broadcast(2)], Vec::new()));
    // The other one floods for both, and takes no MAC from its owner.
    mesh.send(0, &VnetHeader::default(), &broadcast(3));
    mesh.settle();
    assert_eq!(mesh.nodes[1].tap.take(), [broadcast(3)]);
    assert_eq!(mesh.nodes[0].forwarder.shared().macs.lookup(0, mac(3), mesh.now), Some(Owner::Peer(name(2))));
    assert!(!mesh.nodes[0].outbox.punts.iter().any(|punt| matches!(punt, Punt::LocalMac(local) if local.mac == mac(3))));
    for (at, source, destination, to) in [(2, 3, 2, 1), (1, 2, 3, 2), (0, 3, 2, 1)] {
        let recipe = Recipe { source, destination, ..Recipe::default() };
        mesh.send(at, &recipe.vnet(0), &recipe.frame());
        mesh.settle();
        assert_eq!(mesh.nodes[to].tap.take(), [recipe.frame()], "{source} to {destination} at {at}");
    }
    // What came out of the mesh does not go in again, and what the bridges carry needs no mesh.
    let echo = |source, destination| Recipe { source, destination, ..Recipe::default() };
    let before = mesh.sent.len();
    for (source, destination) in [(2, 3), (3, 3)] {
        mesh.send(0, &echo(source, destination).vnet(0), &echo(source, destination).frame());
    }
    mesh.settle();
    assert_eq!((mesh.sent.len(), mesh.counters(0).drop_loop_echo.get()), (before, 2));
}

#[test]
fn probes_for_loops_go_to_the_mesh_plane_and_never_over_the_mesh() {
    use crate::wire::probe::Probe;
    let frame = Probe { from: name(0), incarnation: 1, counter: 1, silent: false }.to_frame(|_| [7; 64]);
    let mut mesh = Mesh::line(Wiring::default());
    for _ in 0..60 {
        mesh.send(0, &VnetHeader::default(), &frame);
    }
    mesh.settle();
    let punts = &mesh.nodes[0].outbox.punts;
    assert!(punts.iter().all(|punt| *punt == Punt::Probe(frame.clone())), "its MAC is not learned");
    assert_eq!((punts.len(), mesh.sent.len(), mesh.counters(0).drop_loop_probe.get()), (50, 0, 10));
    // Of a router that passes them on all the same, as one of an older version does: disguised, until it is there.
    let mut disguised = frame.clone();
    disguised[14] = 9;
    mesh.send(0, &VnetHeader::default(), &disguised);
    mesh.settle();
    assert_eq!(mesh.nodes[1].tap.take(), [disguised]);
}
