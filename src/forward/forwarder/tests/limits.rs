//! What does not fit, what has to wait, and what is too much.

use std::time::Duration;

use super::*;
use crate::forward::Hops;

/// A path that carries 300 bytes less than the containers believe.
fn narrow() -> Wiring {
    Wiring { max_datagram: 1172, ..three() }
}

#[test]
fn too_big_with_df_is_answered() {
    let mut mesh = line(narrow());
    for v6 in [false, true] {
        let recipe = Recipe { v6, destination: 3, payload: 1380, tags: vec![], ..Recipe::default() };
        mesh.send(0, &recipe.vnet(0), &recipe.frame());
        let answers = mesh.nodes[0].tap.take();
        assert_eq!(answers.len(), 1);
        let told = if v6 {
            u32::from_be_bytes([0, 0, answers[0][60], answers[0][61]])
        } else {
            u32::from(u16::from_be_bytes([answers[0][40], answers[0][41]]))
        };
        assert_eq!(told, if v6 { 1280 } else { 1120 });
        assert_eq!(answers[0][..6], mac(1));
    }
    assert!(mesh.nodes[0].outbox.is_empty());
    for _ in 0..200 {
        let recipe = Recipe { destination: 3, payload: 1380, ..Recipe::default() };
        mesh.send(0, &recipe.vnet(0), &recipe.frame());
    }
    assert_eq!(mesh.nodes[0].tap.frames.len(), 98, "a burst of a hundred");
    assert_eq!(drops(&mesh), [(0, "drop_too_big_answered", 100), (0, "drop_too_big_silent", 102)]);
}

#[test]
fn nobody_is_told_the_size_of_a_path_that_is_not_known_yet() {
    let mut mesh = line(narrow());
    let mut fib = mesh.fib(0, true);
    fib.peers.get_mut(&name(2)).expect("the third router").mtu_settled = false;
    mesh.set_fib(0, fib);
    let single = Recipe { destination: 3, payload: 1380, ..Recipe::default() };
    let datagrams = Recipe { destination: 3, tcp: false, payload: 13_800, ..Recipe::default() };
    for (vnet, frame) in [(single.vnet(0), single.frame()), (datagrams.vnet(1380), datagrams.frame())] {
        mesh.send(0, &vnet, &frame);
        mesh.settle();
        let arrived: usize = mesh.nodes[2].tap.take().iter().map(|frame| frame.len() - 42).sum();
        assert!(arrived >= frame.len() - 42, "{arrived}");
    }
    assert!(mesh.nodes[0].tap.frames.is_empty(), "no answer");
    // Where there is no way at all there is nothing to be said about sizes either.
    let mut fib = mesh.fib(0, true);
    let peer = fib.peers.get_mut(&name(2)).expect("the third router");
    (peer.route, peer.max_datagram) = (Route::Unreachable, 548);
    mesh.set_fib(0, fib);
    mesh.send(0, &single.vnet(0), &single.frame());
    assert!(mesh.nodes[0].tap.frames.is_empty());
    assert_eq!(drops(&mesh), [(0, "drop_no_route", 1)]);
}

#[test]
fn the_announced_mtu_fits_exactly() {
    for (v6, max_datagram) in [(false, 1472), (true, 1452)] {
        let mut mesh = line(Wiring { max_datagram, ..Wiring::default() });
        let mtu = usize::from(inner_mtu(max_datagram));
        let headers = Recipe { v6, payload: 0, ..Recipe::default() }.frame().len() - 14;
        let recipe = Recipe { v6, payload: mtu - headers, ..Recipe::default() };
        mesh.send(0, &recipe.vnet(0), &recipe.frame());
        // Segments of that size, as a container with that MTU makes them.
        let size = (mtu - headers) as u16;
        let run = Recipe { payload: 20_000, ..recipe.clone() };
        mesh.send(0, &run.vnet(size), &run.frame());
        assert!(mesh.nodes[0].outbox.runs().all(|(_, _, segment)| segment <= usize::from(max_datagram)));
        mesh.settle();
        assert_eq!(mesh.nodes[1].tap.take().last(), Some(&run.frame()));
        assert_eq!(drops(&mesh), []);
    }
}

#[test]
fn what_has_no_answer_arrives_in_fragments() {
    let mut mesh = line(narrow());
    let v4 = Recipe { dont_fragment: false, tcp: false, destination: 3, payload: 1450, ..Recipe::default() };
    let jumbo = Recipe { payload: 60_000, ..v4.clone() };
    let multicast = {
        let mut frame = Recipe { v6: true, payload: 1400, tcp: false, ..Recipe::default() }.frame();
        frame[0] |= 1;
        frame
    };
    let mut stranger = vec![7; 1500];
    stranger[..12].copy_from_slice(&[mac(3), mac(1)].concat());
    for (vnet, frame) in [
        (v4.vnet(0), v4.frame()),
        (jumbo.vnet(0), jumbo.frame()),
        (Recipe { v6: true, tcp: false, ..Recipe::default() }.vnet(0), multicast),
        (VnetHeader::default(), stranger),
    ] {
        mesh.send(0, &vnet, &frame);
        assert!(mesh.nodes[0].outbox.runs().all(|(_, _, segment)| segment <= 1172));
        mesh.settle();
        assert_eq!(mesh.nodes[2].tap.frames.pop(), Some((vnet, frame)));
        assert_eq!(mesh.nodes[2].tap.take().len(), 0);
    }
    assert_eq!(mesh.nodes[0].tap.frames, []);
    assert_eq!((mesh.counters(0).fragmented.get(), drops(&mesh)), (4, vec![]));
}

#[test]
fn lost_fragments_are_given_up_in_time() {
    let mut mesh = line(narrow());
    let recipe = Recipe { dont_fragment: false, tcp: false, destination: 3, payload: 5000, ..Recipe::default() };
    mesh.send(0, &recipe.vnet(0), &recipe.frame());
    let mut count = 0;
    mesh.run(|n, _| {
        count += u32::from(n == 0);
        n != 0 || count != 2
    });
    assert_eq!(mesh.nodes[2].tap.frames, []);
    let due = mesh.nodes[2].forwarder.next_timeout().expect("a fragment waits");
    assert_eq!(due, mesh.now + Duration::from_secs(1));
    let node = &mut mesh.nodes[2];
    node.forwarder.tick(due, &mut node.outbox);
    assert_eq!((node.forwarder.next_timeout(), drops(&mesh)), (None, vec![(2, "drop_fragments", 1)]));
}

#[test]
fn super_frames_adapt_where_that_is_legal() {
    let mut mesh = line(narrow());
    let tcp = Recipe { destination: 3, payload: 30_000, ..Recipe::default() };
    mesh.send(0, &tcp.vnet(1368), &tcp.frame());
    assert_eq!(mesh.nodes[0].tap.frames, [], "TCP is cut smaller, nobody is told");
    mesh.settle();
    assert_eq!(mesh.nodes[2].tap.take(), [tcp.frame()]);
    let udp = Recipe { tcp: false, dont_fragment: false, ..tcp };
    mesh.send(0, &udp.vnet(1368), &udp.frame());
    mesh.settle();
    let arrived: Vec<Vec<u8>> = mesh.nodes[2].tap.take().iter().map(|frame| frame[42..].to_vec()).collect();
    assert_eq!(arrived, udp.frame()[42..].chunks(1368).map(<[u8]>::to_vec).collect::<Vec<_>>(), "datagrams keep their boundaries");
    let udp = Recipe { dont_fragment: true, ..udp };
    mesh.send(0, &udp.vnet(1368), &udp.frame());
    assert_eq!(mesh.nodes[0].tap.take().len(), 1, "too big");
    assert!(mesh.nodes[0].outbox.is_empty());
}

#[test]
fn frames_wait_for_a_session() {
    let mut mesh = line(Wiring { sessions: false, ..three() });
    mesh.nodes[0].outbox.punts.clear();
    let recipe = Recipe { destination: 3, payload: 5000, ..Recipe::default() };
    for _ in 0..70 {
        mesh.send(0, &recipe.vnet(1300), &recipe.frame());
    }
    let wanted = |mesh: &Mesh| mesh.nodes[0].outbox.punts.iter().filter(|punt| **punt == Punt::WantSession(name(2))).count();
    assert_eq!((wanted(&mesh), mesh.nodes[0].outbox.len()), (1, 0));
    mesh.now = mesh.now + Duration::from_millis(150);
    let node = &mut mesh.nodes[0];
    node.forwarder.tick(mesh.now, &mut node.outbox);
    assert_eq!(wanted(&mesh), 2);
    let fib = mesh.fib(0, true);
    mesh.set_fib(0, fib);
    mesh.settle();
    assert_eq!(mesh.nodes[2].tap.take(), vec![recipe.frame(); 64]);
    assert_eq!(drops(&mesh), [(0, "drop_pending_full", 6)]);
}

#[test]
fn frames_do_not_wait_for_ever() {
    let mut mesh = line(Wiring { sessions: false, ..three() });
    let recipe = Recipe { destination: 3, ..Recipe::default() };
    mesh.send(0, &recipe.vnet(0), &recipe.frame());
    let due = mesh.nodes[0].forwarder.next_timeout().expect("a frame waits");
    assert_eq!(due, mesh.now + Duration::from_secs(1));
    let node = &mut mesh.nodes[0];
    node.forwarder.tick(due, &mut node.outbox);
    assert_eq!(node.forwarder.next_timeout(), None);
    assert_eq!(drops(&mesh), [(0, "drop_pending_expired", 1)]);
}

#[test]
fn a_neighbour_has_a_budget_for_relaying() {
    let mut mesh = line(Wiring { relay_budget: 1_400_000, ..three() });
    let recipe = Recipe { destination: 3, payload: 1300, ..Recipe::default() };
    for round in 1..=3 {
        for _ in 0..60 {
            mesh.send(0, &recipe.vnet(0), &recipe.frame());
        }
        mesh.settle();
        let (_, _, _, size) = mesh.sent.first().expect("a run of datagrams");
        let passed = 70_000 / *size as u64;
        assert_eq!(mesh.counters(1).relayed.get(), round * passed, "70,000 bytes each 50 ms, in datagrams of {size}");
        assert_eq!(drops(&mesh), [(1, "drop_relay_budget", round * (60 - passed))]);
        mesh.now = mesh.now + Duration::from_millis(50);
    }
}

#[test]
fn however_small_a_budget_is_it_lets_single_datagrams_pass() {
    let mut mesh = line(Wiring { relay_budget: 500, ..three() });
    let recipe = Recipe { destination: 3, payload: 1300, ..Recipe::default() };
    let relayed = |mesh: &mut Mesh, frames: usize| {
        let before = mesh.counters(1).relayed.get();
        for _ in 0..frames {
            mesh.send(0, &recipe.vnet(0), &recipe.frame());
        }
        mesh.settle();
        mesh.counters(1).relayed.get() - before
    };
    let burst = relayed(&mut mesh, 60);
    assert!((40..60).contains(&burst), "{burst} datagrams of 65,535 bytes together");
    mesh.now = mesh.now + Duration::from_secs(3);
    assert_eq!(relayed(&mut mesh, 3), 1, "another 1500 bytes");
}

#[test]
fn a_dead_link_is_not_used_and_the_alternate_is() {
    let mut mesh = line(three());
    let recipe = Recipe { destination: 3, ..Recipe::default() };
    mesh.nodes[0].forwarder.fib().links[0].up.store(false, std::sync::atomic::Ordering::Relaxed);
    mesh.send(0, &recipe.vnet(0), &recipe.frame());
    mesh.send(0, &VnetHeader::default(), &broadcast(1));
    assert!(mesh.nodes[0].outbox.is_empty());
    assert_eq!(drops(&mesh), [(0, "drop_no_route", 1)]);
    // Router 1 reaches router 0 through its dead link only, unless there is another way.
    let mut fib = mesh.fib(1, true);
    fib.links[0].up.store(false, std::sync::atomic::Ordering::Relaxed);
    let peer = fib.peers.get_mut(&name(0)).expect("known");
    peer.route = Route::Via(Hops::new(0, Some(1)));
    mesh.set_fib(1, fib);
    let recipe = Recipe { source: 2, destination: 1, ..Recipe::default() };
    mesh.send(1, &recipe.vnet(0), &recipe.frame());
    assert_eq!(mesh.nodes[1].outbox.runs().map(|(to, _, _)| to).collect::<Vec<_>>(), [address(2)]);
}

#[test]
fn a_used_up_key_asks_for_another() {
    let mut mesh = line(Wiring::default());
    mesh.sessions[&(0, 1)].retire();
    let recipe = Recipe::default();
    mesh.send(0, &recipe.vnet(0), &recipe.frame());
    assert_eq!(drops(&mesh), [(0, "drop_key_exhausted", 1)]);
    assert!(mesh.nodes[0].outbox.punts.contains(&Punt::WantSession(name(1))));
}

#[test]
fn keys_end_although_nobody_retires_them() {
    let mut mesh = line(Wiring::default());
    let recipe = Recipe { payload: 100, ..Recipe::default() };
    mesh.send(0, &recipe.vnet(0), &recipe.frame());
    let (_, bytes, segment) = mesh.nodes[0].outbox.runs().next().expect("a run");
    let bytes = bytes.to_vec();
    mesh.now = Time::ZERO + crate::crypto::session::KEY_LIFE;
    mesh.receive(1, address(0), &bytes, segment);
    mesh.nodes[0].outbox.clear();
    mesh.send(0, &recipe.vnet(0), &recipe.frame());
    assert!(mesh.nodes[0].outbox.is_empty() && mesh.nodes[1].tap.frames.is_empty());
    let dropped = drops(&mesh);
    assert!(dropped.contains(&(1, "drop_expired", 1)) && dropped.contains(&(0, "drop_key_exhausted", 1)), "{dropped:?}");
}

#[test]
fn a_station_that_floods_too_much_is_named_and_others_are_not_held_to_it() {
    let mut mesh = Mesh::line(Wiring { flood_limit: 10, ..Wiring::default() });
    for _ in 0..25 {
        mesh.send(0, &VnetHeader::default(), &broadcast(1));
    }
    mesh.send(0, &VnetHeader::default(), &broadcast(2));
    mesh.settle();
    assert_eq!((mesh.nodes[1].tap.take().len(), mesh.counters(0).drop_flood_limit.get()), (11, 15));
    let news = Punt::FloodLimit { vlan: 0, mac: mac(1) };
    assert_eq!(mesh.nodes[0].outbox.punts.iter().filter(|punt| **punt == news).count(), 1);
}

#[test]
fn made_up_stations_are_held_to_a_total_and_take_nothing_from_known_ones() {
    let mut mesh = Mesh::line(Wiring { flood_limit: 20, ..Wiring::default() });
    mesh.send(0, &VnetHeader::default(), &broadcast(1));
    for n in 0..40_u8 {
        let mut frame = broadcast(2);
        frame[6..12].copy_from_slice(&[2, 0xaa, 0, 0, 0, n]);
        mesh.send(0, &VnetHeader::default(), &frame);
    }
    mesh.settle();
    let dropped = |mesh: &Mesh| (mesh.counters(0).drop_flood_limit.get(), mesh.counters(0).drop_flood_limit_all.get());
    // The known one was a stranger with its first frame, too.
    assert_eq!((mesh.nodes[1].tap.take().len(), dropped(&mesh)), (20, (0, 21)));
    assert_eq!(mesh.nodes[0].outbox.punts.iter().filter(|punt| **punt == Punt::FloodLimitOfAll).count(), 1);
    for _ in 0..10 {
        mesh.send(0, &VnetHeader::default(), &broadcast(1));
    }
    mesh.settle();
    assert_eq!((mesh.nodes[1].tap.take().len(), dropped(&mesh)), (10, (0, 21)));
}
