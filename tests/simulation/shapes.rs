//! Meshes of many shapes come up, and every flood reaches everybody once.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use weave_router::sim::{Quality, RouterId, RouterOptions, Sim, WireId};

use super::*;

/// A random connected mesh: a random tree and `extra` more wires. Each host is told one neighbour in the tree.
pub(super) fn random_mesh(
    seed: u64,
    count: usize,
    extra: usize,
    quality: Quality,
    options: &RouterOptions,
) -> (Sim, Vec<RouterId>, Vec<WireId>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut sim, hosts) = hosts(seed, count, options);
    let mut wires = Vec::new();
    for index in 1..count {
        let other = rng.next_u64() as usize % index;
        wires.push(sim.wire(hosts[index], hosts[other], quality));
        sim.connect(hosts[index], hosts[other]);
    }
    for _ in 0..extra {
        let (a, b) = (rng.next_u64() as usize % count, rng.next_u64() as usize % count);
        if a != b {
            wires.push(sim.wire(hosts[a], hosts[b], quality));
            sim.connect(hosts[a], hosts[b]);
        }
    }
    sim.start_all();
    (sim, hosts, wires)
}

/// On networks that lose nothing the mesh comes to rest; then floods are counted.
pub(super) fn rest(sim: &mut Sim) {
    sim.set_all_qualities(Quality::default());
    // Smoothed round trips and losses settle, and with them the costs in the records.
    sim.run_for(seconds(60));
    assert!(sim.is_converged());
}

#[test]
fn two_routers_meet_and_exchange_frames() {
    let (mut sim, hosts) = line(1, 2);
    let took = converge(&mut sim, seconds(2));
    assert!(took < ms(500), "{took:?}");
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    floods_reach_everybody_once(&mut sim, &macs);
    assert!(sim.is_direct(hosts[0], hosts[1]) && sim.is_direct(hosts[1], hosts[0]));
    nothing_went_wrong(&sim);
}

#[test]
fn a_line_of_three_relays_what_it_cannot_read() {
    let (mut sim, hosts) = line(2, 3);
    converge(&mut sim, seconds(2));
    let macs = containers(&mut sim);
    let before = sim.counter(hosts[1], "relayed");
    all_pairs_exchange_frames(&mut sim, &macs);
    assert!(sim.counter(hosts[1], "relayed") > before);
    assert!(!sim.is_direct(hosts[0], hosts[2]));
    let snapshot = sim.snapshot(hosts[0]).expect("it runs");
    let route = snapshot.routes.iter().find(|route| route.peer == sim.name(hosts[2])).expect("a route to the far end");
    assert_eq!((route.path, route.next_hop, route.hops), ("relayed", sim.name(hosts[1]), 2));
    assert!(route.cipher.is_some(), "h1 and h3 have a session of their own");
    floods_reach_everybody_once(&mut sim, &macs);
    nothing_went_wrong(&sim);
}

#[test]
fn a_star_of_twenty_comes_up() {
    let (mut sim, hosts) = hosts(3, 20, &RouterOptions::default());
    for leaf in &hosts[1..] {
        sim.wire(hosts[0], *leaf, Quality::default());
        sim.connect(*leaf, hosts[0]);
    }
    sim.start_all();
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    floods_reach_everybody_once(&mut sim, &macs);
    all_pairs_exchange_frames(&mut sim, &macs);
    nothing_went_wrong(&sim);
}

#[test]
fn random_meshes_converge_on_bad_networks_and_flood_once_at_rest() {
    let sizes: &[(u64, usize)] = if full_size() { &[(11, 20), (12, 50), (13, 100), (14, 200)] } else { &[(11, 12), (12, 30)] };
    for (seed, count) in sizes {
        let (mut sim, _, _) = random_mesh(*seed, *count, count / 2, Quality::bad(), &RouterOptions::default());
        let took = converge(&mut sim, seconds(60));
        println!("{count} routers on bad networks converged within {took:?}");
        rest(&mut sim);
        let macs = containers(&mut sim);
        sim.run_for(seconds(2));
        floods_reach_everybody_once(&mut sim, &macs);
        nothing_went_wrong(&sim);
    }
}

#[test]
fn a_large_sparse_mesh_without_discovery_converges() {
    let count = if full_size() { 200 } else { 60 };
    let options = RouterOptions { discovery: false, ..RouterOptions::default() };
    let (mut sim, hosts, _) = random_mesh(21, count, count, Quality::bad(), &options);
    converge(&mut sim, seconds(60));
    rest(&mut sim);
    let few: Vec<Mac> = hosts.iter().step_by(count / 10).map(|host| sim.container(*host)).collect();
    // Every host has a bridge that hears floods, with or without containers.
    sim.run_for(seconds(2));
    floods_reach_everybody_once(&mut sim, &few);
    nothing_went_wrong(&sim);
}

#[test]
fn a_partition_is_lived_with_on_both_sides_and_heals() {
    let count = if full_size() { 60 } else { 16 };
    let (mut sim, hosts, _) = random_mesh(31, count, count * 2, Quality::default(), &RouterOptions::default());
    converge(&mut sim, seconds(10));
    let macs = containers(&mut sim);
    sim.partition(&hosts[..count / 2]);
    let took = converge(&mut sim, seconds(30));
    println!("both halves converged within {took:?}");
    let (left, right) = (sim.broadcast(macs[0]), sim.broadcast(macs[count - 1]));
    sim.run_for(seconds(1));
    assert_eq!((sim.arrivals(left, hosts[count - 1]), sim.arrivals(right, hosts[0])), (0, 0));
    sim.heal();
    let took = converge(&mut sim, seconds(70));
    println!("the whole converged within {took:?} of the end of the partition");
    sim.run_for(seconds(5));
    floods_reach_everybody_once(&mut sim, &macs);
    all_pairs_exchange_frames(&mut sim, &macs[..4]);
    nothing_went_wrong(&sim);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed: u64| {
        let (mut sim, hosts, wires) = random_mesh(seed, 10, 6, Quality::bad(), &RouterOptions::default());
        sim.run_for(seconds(5));
        let macs = containers(&mut sim);
        for round in 0..40 {
            match round {
                5 => sim.cut(wires[2]),
                10 => sim.crash(hosts[4]),
                15 => sim.partition(&hosts[..5]),
                20 => sim.start(hosts[4]),
                25 => sim.heal(),
                30 => sim.stop(hosts[7]),
                35 => sim.mend(wires[2]),
                _ => {}
            }
            sim.send(macs[round % 10], macs[(round * 3 + 1) % 10], 400);
            sim.run_for(ms(200));
        }
        (sim.trace(), sim.arrived())
    };
    let first = trace(41);
    assert!(first.1 > 1000, "only {} arrivals: the trace is of nothing", first.1);
    assert_eq!(first, trace(41));
    assert_ne!(first.0, trace(42).0);
}
