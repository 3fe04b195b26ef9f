//! Routers that die, come back, and say goodbye.

use weave_router::mesh::command::Event;
use weave_router::sim::Quality;

use super::*;

#[test]
fn a_router_that_crashed_comes_back_with_its_next_incarnation() {
    let (mut sim, hosts) = line(401, 3);
    converge(&mut sim, seconds(2));
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    for victim in [1, 0, 2, 1] {
        sim.crash(hosts[victim]);
        sim.run_for(ms(300));
        sim.start(hosts[victim]);
        let took = sim.run_until(seconds(10), |sim| sim.is_converged() && speaks(sim, hosts[victim]));
        println!("{:?} was back within {took:?}", hosts[victim]);
        assert!(took.is_some(), "{:?} is back", hosts[victim]);
        sim.run_for(seconds(1));
        all_pairs_exchange_frames(&mut sim, &macs);
        sim.run_for(seconds(3));
        floods_reach_everybody_once(&mut sim, &macs);
    }
    let snapshot = sim.snapshot(hosts[0]).expect("it runs");
    let seen = snapshot.peers.iter().find(|peer| peer.name == sim.name(hosts[1])).expect("known");
    assert_eq!(seen.incarnation, 3);
    nothing_went_wrong(&sim);
}

#[test]
fn a_router_restored_from_an_old_copy_of_its_state_is_let_in_and_jumps_past_it() {
    let options = RouterOptions { discovery: false, ..RouterOptions::default() };
    let (mut sim, hosts) = hosts(405, 3, &options);
    for pair in hosts.windows(2) {
        sim.wire(pair[0], pair[1], Quality::default());
        sim.connect(pair[1], pair[0]);
    }
    sim.start_all();
    let incarnation = |sim: &Sim, seen_by: RouterId| {
        let name = sim.name(hosts[2]);
        let snapshot = sim.snapshot(seen_by).expect("it runs");
        snapshot.peers.iter().find(|peer| peer.name == name).map(|peer| peer.incarnation)
    };
    for round in 1..=4 {
        converge(&mut sim, seconds(10));
        sim.run_for(seconds(2));
        assert_eq!(incarnation(&sim, hosts[0]), Some(round));
        sim.crash(hosts[2]);
        // The last start is that of the first one's copy.
        if round == 4 {
            sim.restore(hosts[2], 0);
        }
        sim.start(hosts[2]);
    }
    let back = |sim: &Sim| sim.is_converged() && speaks(sim, hosts[2]) && incarnation(sim, hosts[0]) == Some(5);
    let took = sim.run_until(seconds(20), back);
    println!("it was back within {took:?}");
    assert!(took.is_some(), "seen as {:?}, linked to {:?}", incarnation(&sim, hosts[0]), sim.links(hosts[2]));
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    nothing_went_wrong(&sim);
}

/// True where all others have links in both directions with it, as far as they had before.
fn speaks(sim: &Sim, router: RouterId) -> bool {
    let links = sim.links(router);
    !links.is_empty() && links.iter().all(|other| sim.links(*other).contains(&router))
}

#[test]
fn a_router_that_stays_dead_is_routed_around_and_forgotten() {
    let (mut sim, hosts) = hosts(402, 6, &RouterOptions::default());
    sim.lan(&hosts, Quality::default());
    for host in &hosts[1..] {
        sim.connect(*host, hosts[0]);
    }
    sim.start_all();
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    sim.run_for(seconds(10));
    sim.crash(hosts[0]);
    converge(&mut sim, seconds(10));
    floods_without(&mut sim, &macs[1..], hosts[0]);
    sim.run_for(seconds(700));
    let snapshot = sim.snapshot(hosts[1]).expect("it runs");
    assert!(snapshot.peers.iter().all(|peer| peer.name != sim.name(hosts[0])), "forgotten after ten minutes");
    sim.start(hosts[0]);
    converge(&mut sim, seconds(120));
    nothing_went_wrong(&sim);
}

fn floods_without(sim: &mut Sim, macs: &[Mac], dead: RouterId) {
    for mac in macs {
        let from = sim.host_of(*mac).expect("on a host");
        let frame = sim.broadcast(*mac);
        sim.run_for(ms(100));
        for router in sim.routers().into_iter().filter(|router| *router != from && *router != dead) {
            assert_eq!(sim.arrivals(frame, router), 1, "from {from:?} to {router:?}");
        }
    }
}

#[test]
fn a_goodbye_is_heard_at_once() {
    let (mut sim, hosts) = line(403, 3);
    converge(&mut sim, seconds(2));
    sim.stop(hosts[2]);
    let took = converge(&mut sim, ms(300));
    println!("a goodbye took {took:?}");
    let reason = sim.log(hosts[1]).iter().rev().find_map(|(_, event)| match event {
        Event::LinkDown { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.is_some_and(|reason| reason.contains("shutting down") || reason.contains("has left")));
    sim.start(hosts[2]);
    converge(&mut sim, seconds(5));
    nothing_went_wrong(&sim);
}

#[test]
fn hosts_that_come_and_go_leave_a_mesh_in_step() {
    let count = if full_size() { 40 } else { 12 };
    let (mut sim, hosts) = hosts(404, count, &RouterOptions::default());
    for (index, host) in hosts.iter().enumerate() {
        for step in [1, 3] {
            sim.wire(*host, hosts[(index + step) % count], Quality { loss: 0.02, ..Quality::default() });
            sim.connect(*host, hosts[(index + step) % count]);
        }
    }
    sim.start_all();
    converge(&mut sim, seconds(5));
    for round in 0..count {
        let victim = hosts[(round * 7) % count];
        sim.crash(victim);
        sim.run_for(ms(100 * (round as u64 % 9)));
        sim.start(victim);
        sim.run_for(ms(700));
    }
    converge(&mut sim, seconds(30));
    sim.set_all_qualities(Quality::default());
    sim.run_for(seconds(60));
    assert!(sim.is_converged());
    let macs = containers(&mut sim);
    sim.run_for(seconds(1));
    floods_reach_everybody_once(&mut sim, &macs);
    all_pairs_exchange_frames(&mut sim, &macs[..4]);
    nothing_went_wrong(&sim);
}

#[test]
fn a_router_that_lost_its_state_goes_on_as_a_newer_incarnation_at_once() {
    // Nobody but h1 itself dials it.
    let (mut sim, hosts) = hosts(405, 3, &RouterOptions { discovery: false, ..RouterOptions::default() });
    for end in [hosts[0], hosts[2]] {
        sim.wire(end, hosts[1], Quality::default());
        sim.connect(end, hosts[1]);
    }
    sim.start_all();
    converge(&mut sim, seconds(2));
    for _ in 0..2 {
        sim.crash(hosts[0]);
        sim.start(hosts[0]);
        converge(&mut sim, seconds(10));
    }
    // Only the far end remembers what h1 was.
    sim.crash(hosts[1]);
    sim.crash(hosts[0]);
    sim.run_for(seconds(5));
    sim.lose_incarnation(hosts[0]);
    sim.start(hosts[0]);
    sim.start(hosts[1]);
    let incarnation = |sim: &Sim| sim.snapshot(hosts[0]).map(|snapshot| snapshot.incarnation);
    assert_eq!(incarnation(&sim), Some(1));
    assert!(sim.run_until(seconds(20), |sim| incarnation(sim) == Some(4)).is_some(), "it hears of its former life");
    let took = sim.run_until(seconds(5), |sim| sim.is_converged() && speaks(sim, hosts[0]));
    println!("all speak with the new incarnation after {took:?}");
    assert!(took.is_some_and(|took| took < ms(500)), "{took:?}");
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    let silent =
        sim.log(hosts[0]).iter().filter(|(_, event)| matches!(event, Event::LinkDown { reason, .. } if reason.contains("no answer")));
    assert_eq!(silent.count(), 0, "no heartbeat had to find out");
    nothing_went_wrong(&sim);
}
