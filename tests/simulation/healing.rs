//! Partitions and their end while networks lose, double and reorder, and who can speak with whom meanwhile.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use weave_router::sim::{FrameId, Quality};

use super::shapes::{random_mesh, rest};
use super::*;

/// Some pairs of containers, each with frames from the one to the other.
struct Sample {
    sent: Vec<(RouterId, RouterId, Vec<FrameId>)>,
}

impl Sample {
    /// Sends `frames` frames between each of `count` pairs that `may_speak`, so far apart that one bad moment does not hit all.
    fn send(
        sim: &mut Sim,
        rng: &mut ChaCha8Rng,
        macs: &[Mac],
        count: usize,
        frames: usize,
        may_speak: impl Fn(usize, usize) -> bool,
    ) -> Sample {
        let mut pairs = BTreeSet::new();
        while pairs.len() < count {
            let (a, b) = (rng.next_u64() as usize % macs.len(), rng.next_u64() as usize % macs.len());
            if a != b && may_speak(a, b) {
                pairs.insert((a, b));
            }
        }
        let host = |sim: &Sim, index: usize| sim.host_of(macs[index]).expect("a container is on a host");
        let mut sent: Vec<_> = pairs.iter().map(|(a, b)| (host(sim, *a), host(sim, *b), Vec::new())).collect();
        for _ in 0..frames {
            for ((a, b), (_, _, ids)) in pairs.iter().zip(&mut sent) {
                ids.push(sim.send(macs[*a], macs[*b], 300));
                sim.run_for(ms(3));
            }
            // A handshake over four lossy hops takes some tries.
            sim.run_for(ms(500));
        }
        sim.run_for(seconds(2));
        Sample { sent }
    }

    /// Share of the frames that arrived, and pairs of which none did.
    fn result(&self, sim: &Sim) -> (f64, Vec<(RouterId, RouterId)>) {
        let arrived = |to: &RouterId, ids: &[FrameId]| ids.iter().filter(|id| sim.arrivals(**id, *to) == 1).count();
        let (mut all, mut good, mut mute) = (0, 0, Vec::new());
        for (from, to, ids) in &self.sent {
            let count = arrived(to, ids);
            (all, good) = (all + ids.len(), good + count);
            if count == 0 {
                mute.push((*from, *to));
            }
        }
        (good as f64 / all as f64, mute)
    }
}

#[test]
fn partitions_on_bad_networks_heal_and_everybody_speaks_with_everybody() {
    for seed in [701, 702, 703] {
        let count = if full_size() { 60 } else { 16 };
        let (mut sim, hosts, _) = random_mesh(seed, count, count, Quality::bad(), &RouterOptions::default());
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        converge(&mut sim, seconds(60));
        let macs = containers(&mut sim);
        sim.run_for(seconds(2));
        let (share, mute) = Sample::send(&mut sim, &mut rng, &macs, 30, 10, |_, _| true).result(&sim);
        println!("seed {seed}: {share:.2} of the frames arrive");
        assert!(share > 0.6 && mute.is_empty(), "seed {seed}: {share} {mute:?}");
        sim.partition(&hosts[..count / 2]);
        let took = converge(&mut sim, seconds(60));
        println!("seed {seed}: each side has converged after {took:?}");
        // Each side may be in several pieces; who can be reached is spoken with.
        let ways: Vec<BTreeSet<RouterId>> = hosts.iter().map(|host| sim.reachable(*host)).collect();
        let (share, mute) = Sample::send(&mut sim, &mut rng, &macs, 12, 10, |a, b| ways[a].contains(&hosts[b])).result(&sim);
        assert!(share > 0.6 && mute.is_empty(), "seed {seed}, apart: {share} {mute:?}");
        sim.heal();
        let took = converge(&mut sim, seconds(100));
        println!("seed {seed}: the whole has converged {took:?} after the end of the partition");
        sim.run_for(seconds(5));
        let (share, mute) = Sample::send(&mut sim, &mut rng, &macs, 30, 10, |_, _| true).result(&sim);
        assert!(share > 0.6 && mute.is_empty(), "seed {seed}, healed: {share} {mute:?}");
        rest(&mut sim);
        floods_reach_everybody_once(&mut sim, &macs);
        all_pairs_exchange_frames(&mut sim, &macs);
        nothing_went_wrong(&sim);
    }
}

#[test]
fn frames_flow_among_the_others_while_wires_are_cut_and_routers_die() {
    let count = if full_size() { 40 } else { 14 };
    let (mut sim, hosts, wires) =
        random_mesh(711, count, count * 2, Quality { loss: 0.01, ..Quality::default() }, &RouterOptions::default());
    let mut rng = ChaCha8Rng::seed_from_u64(711);
    converge(&mut sim, seconds(20));
    let macs = containers(&mut sim);
    sim.run_for(seconds(2));
    for round in 0..8 {
        let (wire, victim) = (wires[rng.next_u64() as usize % wires.len()], rng.next_u64() as usize % count);
        sim.cut(wire);
        sim.crash(hosts[victim]);
        converge(&mut sim, seconds(30));
        let ways: Vec<BTreeSet<RouterId>> = hosts.iter().map(|host| sim.reachable(*host)).collect();
        let (share, mute) = Sample::send(&mut sim, &mut rng, &macs, 20, 5, |a, b| ways[a].contains(&hosts[b])).result(&sim);
        assert!(share > 0.85 && mute.is_empty(), "round {round}: {share} {mute:?}");
        sim.mend(wire);
        sim.start(hosts[victim]);
        converge(&mut sim, seconds(100));
        sim.run_for(seconds(1));
    }
    rest(&mut sim);
    floods_reach_everybody_once(&mut sim, &macs);
    all_pairs_exchange_frames(&mut sim, &macs);
    nothing_went_wrong(&sim);
}

#[test]
fn two_hundred_routers_converge_on_bad_networks_and_flood_once() {
    let (mut sim, hosts, _) = random_mesh(721, 200, 100, Quality::bad(), &RouterOptions::default());
    let took = converge(&mut sim, seconds(60));
    println!("200 routers on bad networks converged within {took:?}");
    if !full_size() {
        sim.set_all_qualities(Quality::default());
        // While links are chosen anew, routers disagree on the tree for moments, in which a flood may miss somebody.
        sim.run_for(seconds(20));
        let (mac, far) = (sim.container(hosts[0]), sim.container(hosts[150]));
        sim.run_for(seconds(1));
        let (flood, frame) = (sim.broadcast(mac), sim.send(mac, far, 300));
        sim.run_for(seconds(2));
        assert!(hosts[1..].iter().all(|host| sim.arrivals(flood, *host) == 1));
        assert_eq!(sim.arrivals(frame, hosts[150]), 1);
        return nothing_went_wrong(&sim);
    }
    rest(&mut sim);
    let few: Vec<Mac> = hosts.iter().step_by(20).map(|host| sim.container(*host)).collect();
    sim.run_for(seconds(2));
    floods_reach_everybody_once(&mut sim, &few);
    all_pairs_exchange_frames(&mut sim, &few[..5]);
    nothing_went_wrong(&sim);
}
