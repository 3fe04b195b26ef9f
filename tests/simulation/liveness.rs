//! How soon what is dead is noticed, what only looks dead, and that nothing flaps.

use weave_router::mesh::command::Event;
use weave_router::sim::{FrameId, Quality, RouterOptions, WireId};

use super::*;

/// Sends a frame every `gap` for `duration`.
fn every(sim: &mut Sim, (from, to): (Mac, Mac), gap: Duration, duration: Duration) -> Vec<FrameId> {
    let mut sent = Vec::new();
    for _ in 0..duration.as_nanos() / gap.as_nanos() {
        sent.push(sim.send(from, to, 200));
        sim.run_for(gap);
    }
    sent
}

fn lost(sim: &Sim, sent: &[FrameId], to: RouterId) -> u64 {
    sent.iter().filter(|frame| sim.arrivals(**frame, to) == 0).count() as u64
}

/// A ring of `count` hosts; the first wire is that between the first two.
fn ring(seed: u64, count: usize, latency: Duration) -> (Sim, Vec<RouterId>, Vec<WireId>, Vec<Mac>) {
    let (mut sim, hosts) = hosts(seed, count, &RouterOptions::default());
    let mut wires = Vec::new();
    for index in 0..count {
        let (a, b) = (hosts[index], hosts[(index + 1) % count]);
        wires.push(sim.wire(a, b, Quality { latency, ..Quality::default() }));
        sim.connect(a, b);
    }
    sim.start_all();
    converge(&mut sim, seconds(5));
    let macs = containers(&mut sim);
    sim.run_for(seconds(2));
    (sim, hosts, wires, macs)
}

#[test]
fn a_cut_that_the_kernel_tells_of_costs_less_than_50_ms() {
    for seed in 0..4 {
        let (mut sim, hosts, wires, macs) = ring(400 + seed, 4, ms(1));
        every(&mut sim, (macs[0], macs[1]), ms(1), seconds(1));
        sim.run_for(ms(seed * 37));
        // Only one end's interface is down: the other, behind a switch, sees nothing but silence.
        sim.unplug(wires[0], &[hosts[seed as usize % 2]]);
        let mut sent = [Vec::new(), Vec::new()];
        for _ in 0..1000 {
            sent[0].push(sim.send(macs[0], macs[1], 200));
            sent[1].push(sim.send(macs[1], macs[0], 200));
            sim.run_for(ms(1));
        }
        sim.run_for(ms(100));
        let gaps = [lost(&sim, &sent[0], hosts[1]), lost(&sim, &sent[1], hosts[0])];
        println!("seed {seed}: {gaps:?} ms without traffic, there and back");
        assert!(gaps.iter().all(|gap| *gap < 50), "seed {seed}: {gaps:?} ms");
        assert_eq!(sim.total("paths_lost_with_interface"), 1);
        nothing_went_wrong(&sim);
    }
}

#[test]
fn sends_that_the_kernel_refuses_go_round_at_once_and_nothing_dies_that_comes_back() {
    let (mut sim, hosts, wires, macs) = ring(410, 4, ms(1));
    every(&mut sim, (macs[0], macs[1]), ms(1), seconds(1));
    sim.unroute(wires[0]);
    let sent = every(&mut sim, (macs[0], macs[1]), ms(1), ms(200));
    sim.mend(wires[0]);
    let after = every(&mut sim, (macs[0], macs[1]), ms(1), seconds(2));
    sim.run_for(ms(100));
    println!("{} ms without traffic", lost(&sim, &sent, hosts[1]));
    assert!(lost(&sim, &sent, hosts[1]) < 50, "{} lost", lost(&sim, &sent, hosts[1]));
    assert_eq!(lost(&sim, &after, hosts[1]), 0);
    assert_eq!(sim.total("links_down"), 0, "it was gone for but a moment");
    assert!(sim.is_direct(hosts[0], hosts[1]) && sim.total("paths_doubted") > 0);
    // For good it is dead for the whole mesh within half a second.
    sim.unroute(wires[0]);
    sim.run_for(ms(700));
    assert!(!sim.links(hosts[0]).contains(&hosts[1]) && !sim.links(hosts[1]).contains(&hosts[0]));
    nothing_went_wrong(&sim);
}

#[test]
fn a_silent_cut_costs_less_than_a_second_at_any_moment_and_round_trip() {
    for (seed, latency) in [(0, 1), (1, 1), (2, 20), (3, 40), (4, 5), (5, 10)] {
        let (mut sim, hosts, wires, macs) = ring(420 + seed, 4, ms(latency));
        every(&mut sim, (macs[0], macs[1]), ms(10), seconds(3));
        sim.run_for(ms(seed * 23));
        sim.cut(wires[0]);
        let sent = every(&mut sim, (macs[0], macs[1]), ms(10), seconds(3));
        sim.run_for(ms(300));
        let gap = 10 * lost(&sim, &sent, hosts[1]);
        println!("{latency} ms each way: {gap} ms without traffic");
        assert!(gap < 900, "{latency} ms each way: {gap} ms");
        nothing_went_wrong(&sim);
    }
}

#[test]
fn a_host_without_processor_blames_nobody_and_comes_back() {
    for (seed, stop) in [(0, ms(400)), (1, ms(2000)), (2, ms(2000))] {
        let (mut sim, hosts) = hosts(430 + seed, 9, &RouterOptions::default());
        sim.lan(&hosts, Quality::default());
        for host in &hosts[1..] {
            sim.connect(*host, hosts[0]);
        }
        sim.start_all();
        converge(&mut sim, seconds(3));
        sim.run_until(seconds(10), |sim| hosts.iter().all(|host| sim.links(*host).len() == 8)).expect("all pairs have a link");
        let macs = containers(&mut sim);
        let pairs: Vec<(Mac, Mac)> = macs[1..].iter().map(|mac| (*mac, macs[0])).collect();
        let talk = |sim: &mut Sim, times: u64| {
            let mut last = Vec::new();
            for _ in 0..times {
                last = pairs.iter().map(|(a, b)| [sim.send(*a, *b, 200), sim.send(*b, *a, 200)]).collect();
                sim.run_for(ms(10));
            }
            last
        };
        talk(&mut sim, 200);
        let before = sim.total("links_down");
        sim.freeze(hosts[0], stop);
        talk(&mut sim, stop.as_millis() as u64 / 10);
        let others: u64 =
            hosts[1..].iter().map(|host| sim.links(*host).len() as u64 - u64::from(sim.links(*host).contains(&hosts[0]))).sum();
        assert_eq!(others, 8 * 7, "nobody else's link died");
        talk(&mut sim, 10);
        if stop < ms(600) {
            assert_eq!(sim.total("links_down"), before, "so short a pause is no death");
        }
        let blamed = sim
            .log(hosts[0])
            .iter()
            .filter(|(_, event)| matches!(event, Event::LinkDown { reason, .. } if reason.contains("no answer")))
            .count();
        assert_eq!(blamed, 0, "who had no processor takes nobody for dead");
        let took = sim.run_until(seconds(5), |sim| sim.links(hosts[0]).len() == 8).expect("all links come back");
        println!("{stop:?} without processor: all links are back {took:?} later");
        let frames = talk(&mut sim, 50);
        sim.run_for(ms(50));
        assert!(
            frames.iter().enumerate().all(|(n, [to, from])| sim.arrivals(*to, hosts[0]) == 1 && sim.arrivals(*from, hosts[n + 1]) == 1)
        );
        nothing_went_wrong(&sim);
    }
}

#[test]
fn noise_moves_no_route() {
    // Two ways from h1 to h4, nearly as good as each other, on networks whose delay and loss wander.
    let (mut sim, hosts) = hosts(440, 4, &RouterOptions { discovery: false, ..RouterOptions::default() });
    let noisy = |latency| Quality { latency: ms(latency), jitter: ms(4), loss: 0.01, ..Quality::default() };
    for (a, b, latency) in [(0, 1, 10), (1, 3, 10), (0, 2, 10), (2, 3, 11)] {
        sim.wire(hosts[a], hosts[b], noisy(latency));
        sim.connect(hosts[a], hosts[b]);
    }
    sim.start_all();
    converge(&mut sim, seconds(20));
    let macs = containers(&mut sim);
    every(&mut sim, (macs[0], macs[3]), ms(50), seconds(60));
    let before = (sim.total("path_changes"), sim.total("links_down"));
    every(&mut sim, (macs[0], macs[3]), ms(50), seconds(240));
    let changes = sim.total("path_changes") - before.0;
    println!("{changes} changes of ways in four minutes");
    assert!(changes <= 4, "{changes} changes");
    assert_eq!(sim.total("links_down"), before.1);
    nothing_went_wrong(&sim);
}

#[test]
fn equal_ways_share_the_flows_of_a_mesh() {
    // h1 and h4 with h2 and h3 between them, all wires alike.
    let (mut sim, hosts) = hosts(450, 4, &RouterOptions { discovery: false, ..RouterOptions::default() });
    for (a, b) in [(0, 1), (1, 3), (0, 2), (2, 3)] {
        sim.wire(hosts[a], hosts[b], Quality::default());
        sim.connect(hosts[a], hosts[b]);
    }
    sim.start_all();
    converge(&mut sim, seconds(5));
    let macs = containers(&mut sim);
    sim.run_for(seconds(3));
    let relayed = |sim: &Sim| [1, 2].map(|n| sim.counter(hosts[n], "relayed"));
    let before = relayed(&sim);
    let mut sent = Vec::new();
    for _ in 0..64 {
        // The number is in the ports, so each is a flow of its own.
        sent.push(sim.send_super(macs[0], macs[3], 10_000, 1300));
        sim.run_for(ms(5));
    }
    sim.run_for(ms(100));
    assert_eq!(lost(&sim, &sent, hosts[3]), 0);
    let after = relayed(&sim);
    let shares = [after[0] - before[0], after[1] - before[1]];
    println!("{shares:?} datagrams through the two");
    assert!(shares.iter().all(|share| *share > 64), "{shares:?}");
    nothing_went_wrong(&sim);
}

#[test]
fn nothing_passes_through_a_router_that_may_not_forward() {
    // h1 - h2 - h3 is shorter than h1 - h4 - h5 - h3, but h2 passes nothing on.
    let mut sim = Sim::new(460, Options::default());
    let hosts: Vec<RouterId> = (0..5).map(|n| sim.router(&RouterOptions { forwarding: n != 1, ..RouterOptions::default() })).collect();
    for (a, b) in [(0, 1), (1, 2), (0, 3), (3, 4), (4, 2)] {
        sim.wire(hosts[a], hosts[b], Quality::default());
        sim.connect(hosts[a], hosts[b]);
    }
    sim.start_all();
    converge(&mut sim, seconds(5));
    let macs = containers(&mut sim);
    sim.run_for(seconds(1));
    all_pairs_exchange_frames(&mut sim, &macs);
    floods_reach_everybody_once(&mut sim, &macs);
    assert_eq!(sim.counter(hosts[1], "relayed") + sim.total("drop_relay_forbidden") + sim.total("relay_forbidden"), 0);
    assert!(sim.counter(hosts[3], "relayed") > 0);
    nothing_went_wrong(&sim);
}
