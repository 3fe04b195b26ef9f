//! What the keys of sessions rest on: post-quantum and classic ones together, and routers that can do only the latter.

use weave_router::crypto::Classic;
use weave_router::mesh::command::Event;
use weave_router::sim::Quality;

use super::*;

fn with(classic: Classic) -> RouterOptions {
    RouterOptions { classic, ..RouterOptions::default() }
}

/// What the keys of a router's links rest on.
fn exchanges(sim: &Sim, router: RouterId) -> Vec<&'static str> {
    sim.snapshot(router).expect("it runs").connections.iter().filter_map(|connection| connection.key_exchange).collect()
}

fn refusals(sim: &Sim, router: RouterId) -> String {
    let said = sim.log(router).iter().filter_map(|(_, event)| match event {
        Event::Refused { reason, .. } => Some(reason.as_str()),
        _ => None,
    });
    said.collect::<Vec<_>>().join("\n")
}

/// Two hosts on a wire, of which the second dials the first.
fn pair(seed: u64, first: Classic, second: Classic, quality: Quality) -> (Sim, [RouterId; 2]) {
    let mut sim = Sim::new(seed, Options::default());
    let hosts = [sim.router(&with(first)), sim.router(&with(second))];
    sim.wire(hosts[0], hosts[1], quality);
    sim.connect(hosts[1], hosts[0]);
    sim.start_all();
    (sim, hosts)
}

#[test]
fn keys_are_hybrid_from_the_first_and_after_every_replacement() {
    let (mut sim, hosts) = line(801, 3);
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    for _ in 0..2 {
        assert_eq!(exchanges(&sim, hosts[1]), ["hybrid", "hybrid"]);
        let before = sim.total("handshakes_completed");
        sim.run_for(seconds(135));
        assert!(sim.total("handshakes_completed") - before >= 4, "keys were replaced");
    }
    all_pairs_exchange_frames(&mut sim, &macs);
    nothing_went_wrong(&sim);
}

#[test]
fn parts_of_handshakes_may_be_lost_doubled_and_overtaken() {
    let bad = Quality { loss: 0.3, duplication: 0.2, reordering: 0.3, ..Quality::bad() };
    let mut sessions = 0;
    for seed in 810..822 {
        let (mut sim, hosts) = pair(seed, Classic::Refused, Classic::Refused, bad);
        let met = sim.run_until(seconds(60), |sim| hosts.iter().all(|host| exchanges(sim, *host) == ["hybrid"]));
        sessions += usize::from(met.is_some_and(|took| took < seconds(5)));
        assert!(met.is_some(), "seed {seed}: no session in a minute");
        nothing_went_wrong(&sim);
    }
    assert!(sessions >= 8, "of 12 only {sessions} came up within five seconds");
}

#[test]
fn sessions_through_relays_come_up_where_parts_are_lost() {
    let (mut sim, hosts) = line(830, 4);
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    sim.set_all_qualities(Quality { loss: 0.1, reordering: 0.1, ..Quality::bad() });
    let mut arrived = 0;
    for _ in 0..100 {
        let frame = sim.send(macs[0], macs[3], 500);
        sim.run_for(ms(100));
        arrived += sim.arrivals(frame, hosts[3]);
    }
    assert!(arrived > 30, "{arrived} of 100 frames arrived over three bad wires");
    nothing_went_wrong(&sim);
}

#[test]
fn a_router_that_speaks_x25519_only_is_refused_and_both_sides_say_why() {
    for (seed, first, second) in [(840, Classic::Refused, Classic::Only), (841, Classic::Only, Classic::Refused)] {
        let (mut sim, hosts) = pair(seed, first, second, Quality::default());
        sim.run_for(seconds(60));
        for host in hosts {
            assert!(sim.links(host).is_empty());
            let said = refusals(&sim, host);
            assert!(said.contains("--classic-ok"), "{host:?}: {said}");
        }
        nothing_went_wrong(&sim);
    }
}

#[test]
fn with_classic_ok_it_is_taken_and_nobody_else_gets_less_for_it() {
    for (seed, first, second) in [(850, Classic::Accepted, Classic::Only), (851, Classic::Only, Classic::Accepted)] {
        let (mut sim, hosts) = pair(seed, first, second, Quality::default());
        converge(&mut sim, seconds(5));
        assert_eq!(exchanges(&sim, hosts[0]), ["classic"]);
        sim.run_for(seconds(140));
        assert_eq!(exchanges(&sim, hosts[1]), ["classic"], "keys are replaced by such ones");
        let macs = containers(&mut sim);
        all_pairs_exchange_frames(&mut sim, &macs);
        nothing_went_wrong(&sim);
    }
    let lossy = Quality { loss: 0.5, ..Quality::default() };
    for seed in 852..858 {
        let (mut sim, hosts) = pair(seed, Classic::Accepted, Classic::Accepted, lossy);
        sim.run_for(seconds(10));
        sim.set_all_qualities(Quality::default());
        sim.run_for(seconds(30));
        assert_eq!(exchanges(&sim, hosts[0]), ["hybrid"], "seed {seed}: what is lost makes no router old");
        nothing_went_wrong(&sim);
    }
}
