//! Routers that others rely on without exchanging frames, as with those whose names are asked for.

use weave_router::mesh::apps::{AppEvent, Channel};
use weave_router::mesh::command::{Command, Event};
use weave_router::sim::WireId;
use weave_router::wire::names::ASKED;

use super::*;

/// How often the name server says whose names are asked for.
const EVERY: u64 = 600;
/// What is promised of the names of a host that cannot be reached any more.
const GONE: Duration = Duration::from_secs(1);

/// What a router was told of another, last.
fn reaches(sim: &Sim, router: RouterId, peer: RouterId) -> bool {
    let name = sim.name(peer);
    let said = sim.log(router).iter().rev().find_map(|(_, event)| match event {
        Event::App(AppEvent::Peer { peer, reachable, .. }) if *peer == name => Some(*reachable),
        Event::App(AppEvent::Forgotten { peer }) if *peer == name => Some(false),
        _ => None,
    });
    said == Some(true)
}

fn times_told(sim: &Sim, router: RouterId) -> usize {
    let told =
        |event: &Event| matches!(event, Event::App(AppEvent::Told { channel: Channel::Names, body, .. }) if body.as_slice() == ASKED);
    sim.log(router).iter().filter(|(_, event)| told(event)).count()
}

/// Names that `holder` holds are asked for on `from` for so long: what the keepers of names on both do then.
fn ask_for(sim: &mut Sim, from: RouterId, holder: RouterId, ms_long: u64) {
    for at in (0..ms_long).step_by(20) {
        if at % EVERY == 0 {
            let name = sim.name(holder);
            sim.command(from, Command::Watch(vec![name]));
            sim.command(from, Command::Tell { to: name, channel: Channel::Names, body: ASKED.to_vec() });
        }
        let before = times_told(sim, holder);
        sim.run_for(ms(20));
        if times_told(sim, holder) > before {
            let own = sim.name(holder);
            sim.command(holder, Command::Watch(vec![own]));
        }
    }
}

/// How long it takes until `from` knows that `holder` is gone.
#[track_caller]
fn gone_after(sim: &mut Sim, from: RouterId, holder: RouterId) -> Duration {
    sim.run_until(seconds(20), |sim| !reaches(sim, from, holder)).expect("somebody notices")
}

/// A line of so many hosts, and its wires.
fn idle_line(seed: u64, count: usize) -> (Sim, Vec<RouterId>, Vec<WireId>) {
    let (mut sim, hosts) = hosts(seed, count, &RouterOptions::default());
    let wires = hosts.windows(2).map(|pair| sim.wire(pair[0], pair[1], Quality::default())).collect();
    hosts.windows(2).for_each(|pair| sim.connect(pair[1], pair[0]));
    sim.start_all();
    converge(&mut sim, seconds(5));
    sim.run_for(seconds(5));
    (sim, hosts, wires)
}

#[test]
fn whose_names_are_asked_for_is_noticed_within_a_second_wherever_the_way_is_cut() {
    for cut in 0..3 {
        for phase in 0..8 {
            let (mut sim, hosts, wires) = idle_line(700 + phase, 4);
            ask_for(&mut sim, hosts[0], hosts[3], 2000 + 75 * phase);
            sim.cut(wires[cut]);
            let took = gone_after(&mut sim, hosts[0], hosts[3]);
            assert!(took <= GONE, "wire {cut}, phase {phase}: {took:?}");
            nothing_went_wrong(&sim);
        }
    }
}

#[test]
fn a_dead_router_with_many_links_is_noticed_by_all_of_their_ends() {
    for phase in 0..8 {
        let (mut sim, hosts) = hosts(720 + phase, 6, &RouterOptions::default());
        sim.lan(&hosts, Quality::default());
        hosts[1..].iter().for_each(|host| sim.connect(*host, hosts[0]));
        sim.start_all();
        converge(&mut sim, seconds(5));
        sim.run_for(seconds(8));
        assert_eq!(sim.links(hosts[5]).len(), 5, "all are linked with all");
        ask_for(&mut sim, hosts[0], hosts[5], 2000 + 75 * phase);
        sim.crash(hosts[5]);
        let took = gone_after(&mut sim, hosts[0], hosts[5]);
        assert!(took <= GONE, "phase {phase}: {took:?}");
        nothing_went_wrong(&sim);
    }
}

#[test]
fn nobody_is_watched_for_longer_than_somebody_asks() {
    let (mut sim, hosts, wires) = idle_line(740, 3);
    let rest = |sim: &mut Sim| {
        let before = sim.arrived();
        sim.run_for(seconds(10));
        sim.arrived() - before
    };
    let idle = rest(&mut sim);
    ask_for(&mut sim, hosts[0], hosts[2], 2000);
    // Two seconds until our end has forgotten it, as many more until the other end has, which heard of it last.
    sim.run_for(seconds(6));
    let after = rest(&mut sim);
    assert!(after <= idle + idle / 5, "{idle} datagrams in ten seconds before, {after} after");
    sim.cut(wires[1]);
    assert!(gone_after(&mut sim, hosts[0], hosts[2]) > GONE, "an idle link has time");
}
