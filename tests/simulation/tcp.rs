//! Networks that let no UDP through: the link rides TCP, until there is another way.

use weave_router::mesh::snapshot::ConnectionState;
use weave_router::sim::FrameId;

use super::*;

/// Where a router has a link by TCP, and where one by UDP.
fn ways(sim: &Sim, router: RouterId) -> (usize, usize) {
    let snapshot = sim.snapshot(router).expect("it runs");
    let up = snapshot.connections.iter().filter(|connection| connection.state == ConnectionState::Established);
    let tcp = up.clone().filter(|connection| connection.address.is_some_and(|address| address.is_tcp())).count();
    (tcp, up.count() - tcp)
}

/// Both ends have one link and it goes this way.
#[track_caller]
fn becomes(sim: &mut Sim, pair: &[RouterId], way: (usize, usize), patience: Duration) -> Duration {
    let took = sim.run_until(patience, |sim| pair.iter().all(|router| ways(sim, *router) == way));
    took.unwrap_or_else(|| panic!("(TCP, UDP) are {:?} and {:?} after {patience:?}", ways(sim, pair[0]), ways(sim, pair[1])))
}

/// A frame each way every 5 ms; those of the first direction.
fn exchange(sim: &mut Sim, macs: &[Mac], duration: Duration) -> Vec<FrameId> {
    let mut sent = Vec::new();
    for _ in 0..duration.as_millis() / 5 {
        sent.push(sim.send(macs[0], macs[1], 200));
        sim.send(macs[1], macs[0], 200);
        sim.run_for(ms(5));
    }
    sent
}

#[test]
fn tcp_is_tried_last_left_as_soon_as_udp_works_and_taken_up_again() {
    for seed in 0..4 {
        let (mut sim, hosts) = hosts(700 + seed, 2, &RouterOptions::default());
        let wire = sim.wire(hosts[0], hosts[1], Quality::default());
        sim.let_udp_through(wire, false);
        // The order is the router's to choose.
        sim.connect_by(hosts[1], hosts[0], true);
        sim.connect_by(hosts[1], hosts[0], false);
        sim.start_all();
        let took = becomes(&mut sim, &hosts, (1, 0), seconds(8));
        assert!(took >= seconds(2), "UDP has its chance first: {took:?}");
        let macs = containers(&mut sim);
        exchange(&mut sim, &macs, seconds(1));
        let sent = exchange(&mut sim, &macs, seconds(10));
        assert!(sent.iter().all(|frame| sim.arrivals(*frame, hosts[1]) == 1), "frames flow by TCP, and looking for UDP costs none");
        assert_eq!((ways(&sim, hosts[0]), ways(&sim, hosts[1])), ((1, 0), (1, 0)));

        sim.let_udp_through(wire, true);
        let down = sim.total("links_down");
        let sent = exchange(&mut sim, &macs, seconds(6));
        assert_eq!((ways(&sim, hosts[0]), ways(&sim, hosts[1])), ((0, 1), (0, 1)), "seed {seed}: both ends have moved");
        sim.run_for(ms(100));
        let lost = sent.iter().filter(|frame| sim.arrivals(**frame, hosts[1]) == 0).count();
        assert_eq!((lost, sim.total("links_down")), (0, down), "seed {seed}: nothing is lost, the link stays");
        for _ in 0..20 {
            sim.run_for(ms(500));
            assert_eq!((ways(&sim, hosts[0]), ways(&sim, hosts[1])), ((0, 1), (0, 1)), "and there is no way back");
        }

        sim.let_udp_through(wire, false);
        becomes(&mut sim, &hosts, (1, 0), seconds(30));
        nothing_went_wrong(&sim);
    }
}

#[test]
fn where_udp_works_tcp_is_not_used_although_it_is_named() {
    let (mut sim, hosts) = hosts(710, 2, &RouterOptions::default());
    sim.wire(hosts[0], hosts[1], Quality::default());
    sim.connect_by(hosts[1], hosts[0], true);
    sim.connect_by(hosts[1], hosts[0], false);
    sim.start_all();
    for _ in 0..100 {
        sim.run_for(ms(100));
        assert_eq!((ways(&sim, hosts[0]).0, ways(&sim, hosts[1]).0), (0, 0));
    }
    assert_eq!((ways(&sim, hosts[0]), ways(&sim, hosts[1])), ((0, 1), (0, 1)));
    nothing_went_wrong(&sim);
}

#[test]
fn a_way_through_a_relay_by_udp_is_better_than_tcp() {
    let (mut sim, hosts) = hosts(720, 3, &RouterOptions::default());
    let blocked = sim.wire(hosts[0], hosts[2], Quality::default());
    sim.let_udp_through(blocked, false);
    sim.connect_by(hosts[0], hosts[2], true);
    sim.start_all();
    becomes(&mut sim, &[hosts[0], hosts[2]], (1, 0), seconds(5));
    let macs = containers(&mut sim);
    let ends = [macs[0], macs[2]];
    exchange(&mut sim, &ends, seconds(1));
    assert!(sim.is_direct(hosts[0], hosts[2]), "TCP is better than nothing");

    for near in [hosts[0], hosts[2]] {
        sim.wire(near, hosts[1], Quality { latency: ms(20), ..Quality::default() });
        sim.connect(near, hosts[1]);
    }
    let relayed = sim.run_until(seconds(20), |sim| !sim.is_direct(hosts[0], hosts[2]) && !sim.is_direct(hosts[2], hosts[0]));
    assert!(relayed.is_some(), "forty milliseconds through a relay cost less than TCP does");
    let path = sim.paths(hosts[0]).into_iter().find(|path| path.peer == sim.name(hosts[2])).expect("a path");
    assert_eq!((path.path, path.via), ("relayed", vec![sim.name(hosts[1])]), "and the status says what frames do");
    assert!(path.why_not_direct.is_some_and(|why| why.contains("by TCP") && why.contains("costs more")));
    let sent = exchange(&mut sim, &ends, seconds(2));
    sim.run_for(seconds(1));
    assert!(sent.iter().all(|frame| sim.arrivals(*frame, hosts[2]) == 1));
    assert_eq!(ways(&sim, hosts[0]), (1, 1), "the link by TCP stays, should the relay fail");
    nothing_went_wrong(&sim);
}
