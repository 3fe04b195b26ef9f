//! Who may join.

use weave_router::mesh::command::Event;
use weave_router::mesh::snapshot::ConnectionState;
use weave_router::sim::Quality;

use super::*;

fn with_passwords(passwords: &[u8]) -> RouterOptions {
    RouterOptions { passwords: passwords.to_vec(), ..RouterOptions::default() }
}

fn refusals(sim: &Sim, router: RouterId) -> Vec<String> {
    let said = sim.log(router).iter().filter_map(|(_, event)| match event {
        Event::Refused { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    said.collect()
}

#[test]
fn with_a_wrong_password_neither_side_comes_up_and_both_say_why() {
    let mut sim = Sim::new(501, Options::default());
    let (a, b) = (sim.router(&with_passwords(&[1])), sim.router(&with_passwords(&[2])));
    sim.wire(a, b, Quality::default());
    sim.connect(a, b);
    sim.start_all();
    sim.run_for(seconds(300));
    for router in [a, b] {
        assert!(sim.links(router).is_empty() && sim.reachable(router).is_empty());
        let said = refusals(&sim, router);
        assert!(said.iter().any(|reason| reason.contains("password")), "{router:?}: {said:?}");
        assert!(said.len() <= 2, "{router:?} says it again and again: {said:?}");
        let snapshot = sim.snapshot(router).expect("it runs");
        let errors: Vec<&String> = snapshot.connections.iter().filter_map(|connection| connection.error.as_ref()).collect();
        assert!(errors.iter().any(|error| error.contains("password")), "{router:?}: {errors:?}");
        assert!(snapshot.connections.iter().all(|connection| connection.state != ConnectionState::Established));
    }
    let tries = sim.handshakes_to(a, sim.addresses(b)[0]);
    assert!(tries <= 90, "{tries} handshake datagrams in five minutes, of which a first message takes two");
    nothing_went_wrong(&sim);
}

#[test]
fn a_network_changes_its_password_host_by_host() {
    let (mut sim, hosts) = hosts(502, 3, &with_passwords(&[1]));
    for pair in [(0, 1), (1, 2)] {
        sim.wire(hosts[pair.0], hosts[pair.1], Quality::default());
        sim.connect(hosts[pair.1], hosts[pair.0]);
    }
    sim.start_all();
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    // First all learn the new one beside the old, then all forget the old one.
    for passwords in [&[2, 1][..], &[2]] {
        for host in &hosts {
            sim.crash(*host);
            sim.start_with(*host, &with_passwords(passwords));
            converge(&mut sim, seconds(30));
            sim.run_for(seconds(2));
            all_pairs_exchange_frames(&mut sim, &macs);
        }
    }
    let stranger = sim.router(&with_passwords(&[1]));
    sim.wire(stranger, hosts[0], Quality::default());
    sim.connect(stranger, hosts[0]);
    sim.start(stranger);
    sim.run_for(seconds(30));
    assert!(sim.links(stranger).is_empty(), "the old password is of no use any more");
    nothing_went_wrong(&sim);
}

#[test]
fn two_networks_on_one_wire_never_mix() {
    let mut sim = Sim::new(503, Options::default());
    let other = RouterOptions { network: "other".into(), ..RouterOptions::default() };
    let ours: Vec<RouterId> = (0..2).map(|_| sim.router(&RouterOptions::default())).collect();
    let theirs: Vec<RouterId> = (0..2).map(|_| sim.router(&other)).collect();
    let all = [&ours[..], &theirs[..]].concat();
    sim.lan(&all, Quality::default());
    for a in &all {
        for b in all.iter().filter(|b| *b > a) {
            sim.connect(*a, *b);
        }
    }
    sim.start_all();
    sim.run_for(seconds(60));
    for group in [&ours, &theirs] {
        assert_eq!(sim.reachable(group[0]).into_iter().collect::<Vec<_>>(), [group[1]]);
        assert_eq!(sim.reachable(group[1]).into_iter().collect::<Vec<_>>(), [group[0]]);
    }
    nothing_went_wrong(&sim);
}

#[test]
fn without_encryption_frames_flow_where_both_ends_say_so() {
    let plain = RouterOptions { no_encryption: true, ..RouterOptions::default() };
    let (mut sim, hosts) = hosts(504, 3, &plain);
    for pair in hosts.windows(2) {
        sim.wire(pair[0], pair[1], Quality::default());
        sim.connect(pair[1], pair[0]);
    }
    sim.start_all();
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    floods_reach_everybody_once(&mut sim, &macs);
    nothing_went_wrong(&sim);
}

#[test]
fn only_keys_that_are_allowed_join() {
    let mut sim = Sim::new(505, Options::default());
    let all: Vec<RouterId> = (0..3).map(|_| sim.router(&RouterOptions::default())).collect();
    sim.lan(&all, Quality::default());
    sim.connect(all[1], all[0]);
    sim.connect(all[2], all[0]);
    let strict = RouterOptions { allow: vec![sim.key(all[0]), sim.key(all[1])], ..RouterOptions::default() };
    sim.start_with(all[0], &strict);
    sim.start_with(all[1], &strict);
    sim.start(all[2]);
    sim.run_for(seconds(60));
    assert!(sim.links(all[0]).contains(&all[1]) && sim.links(all[1]).contains(&all[0]));
    assert!(sim.links(all[2]).is_empty());
    let said = refusals(&sim, all[0]);
    assert!(said.iter().any(|reason| reason.contains("--allow")), "{said:?}");
    nothing_went_wrong(&sim);
}

#[test]
fn a_router_told_its_own_address_leaves_it_alone() {
    let mut sim = Sim::new(506, Options::default());
    let (a, b) = (sim.router(&RouterOptions::default()), sim.router(&RouterOptions::default()));
    sim.wire(a, b, Quality::default());
    sim.connect(a, a);
    sim.start_all();
    sim.run_for(seconds(60));
    let targets = sim.snapshot(a).expect("it runs").targets;
    assert_eq!(targets[0].state, ConnectionState::Failed, "{targets:?}");
    assert!(sim.links(a).is_empty());
    nothing_went_wrong(&sim);
}

#[test]
fn whom_one_host_does_not_allow_is_no_member_for_it_whoever_tells_of_it() {
    let (mut sim, hosts) = hosts(507, 4, &RouterOptions::default());
    let (strict, member, stranger, other) = (hosts[0], hosts[1], hosts[2], hosts[3]);
    for (a, b) in [(strict, member), (member, stranger), (member, other)] {
        sim.wire(a, b, Quality::default());
        sim.connect(b, a);
    }
    let allow = vec![sim.key(member), sim.key(other)];
    sim.start_with(strict, &RouterOptions { allow, ..RouterOptions::default() });
    sim.start_all();
    sim.run_for(seconds(10));
    assert!(sim.reachable(other).contains(&stranger), "others take it in");
    assert_eq!(sim.reachable(strict).into_iter().collect::<Vec<_>>(), [member, other]);
    let snapshot = sim.snapshot(strict).expect("it runs");
    assert!(snapshot.peers.iter().all(|peer| peer.name != sim.name(stranger)));
    // It claims a MAC that a member has, and says so with authority.
    let (ours, theirs) = (sim.container(strict), sim.container(other));
    sim.run_for(seconds(1));
    sim.move_container(theirs, stranger);
    sim.broadcast(theirs);
    sim.run_for(seconds(1));
    sim.move_container(theirs, other);
    let before = sim.counter(strict, "drop_no_route");
    let frame = sim.send(ours, theirs, 200);
    sim.run_for(seconds(1));
    assert_eq!((sim.arrivals(frame, other), sim.counter(strict, "drop_no_route")), (1, before));
    // All hold the same records nevertheless.
    let differs = sim.total("agreement_differs");
    sim.run_for(seconds(60));
    assert!(sim.total("agreement_differs") - differs < 4);
    nothing_went_wrong(&sim);
}

#[test]
fn frames_go_in_clear_only_between_hosts_that_both_trust_their_network_and_only_straight() {
    let trusting = |subnet: &str| RouterOptions { trusted: vec![subnet.parse().expect("a subnet")], ..RouterOptions::default() };
    let (all, none) = (trusting("10.0.0.0/8"), RouterOptions::default());
    for (seed, first, second, clear) in [(511, &all, &all, true), (512, &all, &none, false), (513, &all, &trusting("10.9.0.0/16"), false)] {
        let mut sim = Sim::new(seed, Options::default());
        let hosts: Vec<RouterId> = [first, second, first].into_iter().map(|options| sim.router(options)).collect();
        for pair in hosts.windows(2) {
            sim.wire(pair[0], pair[1], Quality::default());
            sim.connect(pair[1], pair[0]);
        }
        sim.start_all();
        converge(&mut sim, seconds(3));
        let macs = containers(&mut sim);
        // What was agreed is in the heartbeats.
        sim.run_for(seconds(3));
        sim.capture();
        all_pairs_exchange_frames(&mut sim, &macs);
        floods_reach_everybody_once(&mut sim, &macs);
        let kinds: std::collections::BTreeSet<u8> =
            sim.captured().iter().map(|datagram| datagram.bytes[0] & 0x0f).filter(|kind| *kind >= 8).collect();
        // 8 DATA DIRECT, 9 DATA RELAYED, 10 FLOOD, 11 PLAIN DIRECT
        let expected: &[u8] = if clear { &[9, 10, 11] } else { &[8, 9, 10] };
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected, "seed {seed}");
        let shown = sim.snapshot(hosts[0]).expect("it runs").connections[0].cipher;
        assert_eq!(shown == Some("none"), clear);
        nothing_went_wrong(&sim);
    }
}
