//! Ways that frames take although there is a shorter one, and how long a way may be.

use weave_router::sim::{Quality, RouterId, RouterOptions, Sim};

use super::*;

/// What `status routes` and `status paths` say of the way to a peer.
fn said(sim: &Sim, from: RouterId, to: RouterId) -> (&'static str, &'static str, String) {
    let snapshot = sim.snapshot(from).expect("it runs");
    let route = snapshot.routes.iter().find(|route| route.peer == sim.name(to)).expect("a route");
    let path = sim.paths(from).into_iter().find(|path| path.peer == sim.name(to)).expect("a path");
    (route.path, path.path, format!("{} / {}", route.why, path.why_not_direct.unwrap_or_default()))
}

/// Both send to the other, a frame every 5 ms; how many of the first one's arrive.
fn arrived(sim: &mut Sim, macs: [Mac; 2], to: RouterId, frames: usize) -> usize {
    let mut sent = Vec::new();
    for _ in 0..frames {
        sent.push(sim.send(macs[0], macs[1], 200));
        sim.send(macs[1], macs[0], 200);
        sim.run_for(ms(5));
    }
    sim.run_for(seconds(1));
    sent.into_iter().filter(|frame| sim.arrivals(*frame, to) == 1).count()
}

#[test]
fn a_direct_path_that_loses_frames_gives_way_to_a_relay_that_does_not() {
    let (mut sim, hosts) = hosts(1300, 3, &RouterOptions::default());
    let good = Quality { latency: ms(10), ..Quality::default() };
    let wires = [(0, 1), (1, 2), (0, 2)].map(|(a, b)| {
        let wire = sim.wire(hosts[a], hosts[b], good);
        sim.connect(hosts[b], hosts[a]);
        wire
    });
    sim.start_all();
    converge(&mut sim, seconds(5));
    let macs = containers(&mut sim);
    let ends = [macs[0], macs[2]];
    assert_eq!(arrived(&mut sim, ends, hosts[2], 400), 400);
    assert_eq!(said(&sim, hosts[0], hosts[2]).0, "direct");

    sim.set_quality(wires[2], Quality { loss: 0.12, ..good });
    let relayed = |sim: &Sim| !sim.is_direct(hosts[0], hosts[2]) && !sim.is_direct(hosts[2], hosts[0]);
    // Half a minute of frames that are lost in part, at most.
    let took = (0..15).find(|_| arrived(&mut sim, ends, hosts[2], 200) == 200 && relayed(&sim));
    assert!(took.is_some(), "{:?}", said(&sim, hosts[0], hosts[2]));
    let (route, path, why) = said(&sim, hosts[0], hosts[2]);
    assert_eq!((route, path), ("relayed", "relayed"));
    assert!(why.contains("loses too much"), "{why}");

    sim.set_quality(wires[2], good);
    let took = (0..60).find(|_| arrived(&mut sim, ends, hosts[2], 200) == 200 && sim.is_direct(hosts[0], hosts[2]));
    assert!(took.is_some(), "it is used again: {:?}", said(&sim, hosts[0], hosts[2]));
    assert_eq!(said(&sim, hosts[0], hosts[2]).1, "direct");
    nothing_went_wrong(&sim);
}

#[test]
fn little_loss_moves_no_frames() {
    let (mut sim, hosts) = hosts(1301, 3, &RouterOptions::default());
    let good = Quality { latency: ms(10), loss: 0.01, ..Quality::default() };
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        sim.wire(hosts[a], hosts[b], good);
        sim.connect(hosts[b], hosts[a]);
    }
    sim.start_all();
    converge(&mut sim, seconds(10));
    let macs = containers(&mut sim);
    for _ in 0..60 {
        arrived(&mut sim, [macs[0], macs[2]], hosts[2], 200);
        assert!(sim.is_direct(hosts[0], hosts[2]), "{:?}", said(&sim, hosts[0], hosts[2]));
    }
}

#[test]
fn a_line_of_forty_reaches_from_end_to_end() {
    let (mut sim, hosts) = line(1302, 40);
    converge(&mut sim, seconds(60));
    let macs = containers(&mut sim);
    sim.run_for(seconds(5));
    let (first, last) = (hosts[0], hosts[39]);
    let ends = [macs[0], macs[39]];
    arrived(&mut sim, ends, last, 100);
    assert_eq!(arrived(&mut sim, ends, last, 100), 100);
    let flood = sim.broadcast(macs[0]);
    sim.run_for(seconds(2));
    assert_eq!(sim.arrivals(flood, last), 1);
    assert_eq!(said(&sim, first, last).0, "relayed");
    nothing_went_wrong(&sim);
}
