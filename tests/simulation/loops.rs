//! Bridges that somebody joined outside the mesh.

use weave_router::mesh::command::Event;

use super::*;

/// Routers whose bridges are joined, with the lower name first.
fn by_name(sim: &Sim, a: RouterId, b: RouterId) -> (RouterId, RouterId) {
    if sim.name(a) < sim.name(b) { (a, b) } else { (b, a) }
}

#[test]
fn two_joined_bridges_make_no_storm_and_everybody_still_hears_everybody() {
    let (mut sim, hosts) = line(501, 3);
    converge(&mut sim, seconds(2));
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    sim.expect_warning("which makes a loop");
    sim.expect_warning("keeps moving");
    sim.join_bridges(hosts[0], hosts[2]);
    let (lower, higher) = by_name(&sim, hosts[0], hosts[2]);
    sim.broadcast(macs[1]);
    let silent = |sim: &Sim| {
        let loops = |router| sim.snapshot(router).expect("it runs").loops;
        loops(higher).iter().any(|l| l.silent && l.peer == sim.name(lower)) && loops(lower).iter().all(|l| !l.silent)
    };
    let took = sim.run_until(seconds(5), silent).expect("the loop is found");
    println!("found after {took:?}");
    sim.run_for(ms(500));
    // Whatever went round is gone, and what is sent from now on does not go round.
    let floods = sim.total("flooded_multicast") + sim.total("flooded_unknown_unicast");
    let mut sent = Vec::new();
    for _ in 0..20 {
        for mac in &macs {
            sent.push((sim.host_of(*mac).expect("on a host"), sim.broadcast(*mac)));
            sim.run_for(ms(20));
        }
    }
    sim.run_for(seconds(1));
    let after = sim.total("flooded_multicast") + sim.total("flooded_unknown_unicast");
    assert!(after - floods <= 2 * sent.len() as u64, "{} floods for {} broadcasts", after - floods, sent.len());
    for (from, frame) in sent {
        let missing: Vec<_> = hosts.iter().filter(|host| **host != from && sim.arrivals(frame, **host) == 0).collect();
        assert!(missing.is_empty(), "{frame:?} of {from:?} did not arrive at {missing:?}");
    }
    all_pairs_exchange_frames(&mut sim, &macs);
    for host in [hosts[0], hosts[2]] {
        let named = sim.log(host).iter().any(|(_, event)| matches!(event, Event::Warning(text) if text.contains("joined to that of")));
        assert!(named, "{host:?} names the other");
    }
    sim.part_bridges(hosts[0], hosts[2]);
    let over = |sim: &Sim| hosts.iter().all(|host| sim.snapshot(*host).is_some_and(|snapshot| snapshot.loops.is_empty()));
    assert!(sim.run_until(seconds(8), over).is_some(), "it ends");
    sim.run_for(seconds(1));
    floods_reach_everybody_once(&mut sim, &macs);
    all_pairs_exchange_frames(&mut sim, &macs);
    nothing_went_wrong(&sim);
}

#[test]
fn a_bridge_joined_to_itself_keeps_its_floods_from_the_mesh() {
    let (mut sim, hosts) = line(502, 2);
    converge(&mut sim, seconds(2));
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    sim.expect_warning("which makes a loop");
    sim.join_bridges(hosts[1], hosts[1]);
    sim.run_for(seconds(3));
    let before = sim.counter(hosts[0], "drop_flood_duplicate");
    let here = sim.broadcast(macs[0]);
    let there = sim.broadcast(macs[1]);
    sim.run_for(seconds(1));
    assert_eq!((sim.arrivals(here, hosts[1]), sim.arrivals(there, hosts[0])), (0, 0));
    assert_eq!(sim.counter(hosts[0], "drop_flood_duplicate"), before);
    all_pairs_exchange_frames(&mut sim, &macs);
    nothing_went_wrong(&sim);
}
