//! Cuts, detours, and direct paths.

use weave_router::sim::{FrameId, Quality, RouterOptions};

use super::*;

/// Sends a frame every 5 ms for `duration`.
fn stream(sim: &mut Sim, from: Mac, to: Mac, duration: Duration) -> Vec<FrameId> {
    let mut sent = Vec::new();
    for _ in 0..duration.as_millis() / 5 {
        sent.push(sim.send(from, to, 200));
        sim.run_for(ms(5));
    }
    sent
}

/// The same with a frame back for each; those of the first direction.
fn exchange(sim: &mut Sim, from: Mac, to: Mac, duration: Duration) -> Vec<FrameId> {
    let mut sent = Vec::new();
    for _ in 0..duration.as_millis() / 5 {
        sent.push(sim.send(from, to, 200));
        sim.send(to, from, 200);
        sim.run_for(ms(5));
    }
    sent
}

fn lost(sim: &Sim, sent: &[FrameId], to: RouterId) -> usize {
    sent.iter().filter(|frame| sim.arrivals(**frame, to) == 0).count()
}

#[test]
fn a_ring_routes_around_a_cut_within_a_second_while_traffic_flows() {
    for seed in 0..8 {
        let (mut sim, hosts) = hosts(100 + seed, 5, &RouterOptions::default());
        let mut wires = Vec::new();
        for index in 0..5 {
            let (a, b) = (hosts[index], hosts[(index + 1) % 5]);
            wires.push(sim.wire(a, b, Quality::default()));
            sim.connect(a, b);
        }
        sim.start_all();
        converge(&mut sim, seconds(3));
        let macs = containers(&mut sim);
        stream(&mut sim, macs[0], macs[1], seconds(1));
        let before = stream(&mut sim, macs[0], macs[1], seconds(1));
        assert_eq!(lost(&sim, &before, hosts[1]), 0);
        // Another moment between two heartbeats each time.
        sim.run_for(ms(seed * 23));
        sim.cut(wires[0]);
        let after = stream(&mut sim, macs[0], macs[1], seconds(2));
        sim.run_for(ms(100));
        let gap = 5 * lost(&sim, &after, hosts[1]);
        println!("seed {seed}: {gap} ms without traffic");
        assert!(gap < 1000, "seed {seed}: {gap} ms");
        assert!(!sim.is_direct(hosts[0], hosts[1]));
        assert_eq!(lost(&sim, &after[200..], hosts[1]), 0, "after a second all is well");
        sim.mend(wires[0]);
        let direct = sim.run_until(seconds(70), |sim| sim.links(hosts[0]).contains(&hosts[1]));
        assert!(direct.is_some(), "the link over the mended wire comes back");
        let back = stream(&mut sim, macs[0], macs[1], seconds(1));
        assert_eq!(lost(&sim, &back, hosts[1]), 0, "the way back to the direct path loses nothing");
        nothing_went_wrong(&sim);
    }
}

#[test]
fn a_one_way_cut_is_routed_around_within_a_second() {
    for (seed, mute) in [(0, 0), (1, 1), (2, 0), (3, 1)] {
        let (mut sim, hosts) = hosts(110 + seed, 3, &RouterOptions::default());
        let wires = [(0, 1), (1, 2), (2, 0)].map(|(a, b)| {
            let wire = sim.wire(hosts[a], hosts[b], Quality::default());
            sim.connect(hosts[a], hosts[b]);
            wire
        });
        sim.start_all();
        converge(&mut sim, seconds(3));
        let macs = containers(&mut sim);
        let exchange = |sim: &mut Sim| {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            for _ in 0..400 {
                there.push(sim.send(macs[0], macs[1], 200));
                back.push(sim.send(macs[1], macs[0], 200));
                sim.run_for(ms(5));
            }
            sim.run_for(ms(100));
            5 * lost(sim, &there, hosts[1]).max(lost(sim, &back, hosts[0]))
        };
        assert_eq!(exchange(&mut sim), 0);
        sim.run_for(ms(seed * 23));
        // One end hears the other as ever, and must be told that it is not heard itself.
        sim.mute(wires[0], hosts[mute]);
        let gap = exchange(&mut sim);
        println!("seed {seed}: {gap} ms without traffic");
        assert!(gap < 1000, "seed {seed}: {gap} ms");
        for (a, b) in [(0, 1), (1, 0)] {
            assert!(!sim.links(hosts[a]).contains(&hosts[b]), "seed {seed}: {:?} still has its link", hosts[a]);
        }
        sim.mend(wires[0]);
        assert!(sim.run_until(seconds(70), |sim| sim.links(hosts[0]).contains(&hosts[1])).is_some());
        nothing_went_wrong(&sim);
    }
}

#[test]
fn a_peer_whose_nat_gives_it_another_port_keeps_its_link() {
    for seed in 0..8 {
        let (mut sim, hosts) = hosts(120 + seed, 2, &RouterOptions::default());
        let wire = sim.wire(hosts[0], hosts[1], Quality::default());
        sim.connect(hosts[1], hosts[0]);
        sim.start_all();
        converge(&mut sim, seconds(3));
        let macs = containers(&mut sim);
        all_pairs_exchange_frames(&mut sim, &macs);
        sim.run_for(seconds(3) + ms(seed * 131));
        sim.rebind(wire, hosts[1]);
        // Frames towards the old port are lost until the new one is proven.
        let flow = if seed % 2 == 0 { stream } else { exchange };
        let sent = flow(&mut sim, macs[0], macs[1], seconds(5));
        sim.run_for(ms(100));
        let gap = 5 * lost(&sim, &sent, hosts[1]);
        println!("seed {seed}: {gap} ms without traffic");
        assert!(gap < 1500, "seed {seed}: {gap} ms");
        assert_eq!((sim.total("addresses_moved"), sim.total("links_down")), (1, 0), "seed {seed}");
        all_pairs_exchange_frames(&mut sim, &macs);
        nothing_went_wrong(&sim);
    }
}

#[test]
fn a_cut_two_hops_away_is_routed_around_within_a_second() {
    // h1 - h2 - h3 - h4, and a detour h2 - h5 - h4.
    let (mut sim, hosts) = hosts(201, 5, &RouterOptions::default());
    let mut wires = Vec::new();
    for (a, b) in [(0, 1), (1, 2), (2, 3), (1, 4), (4, 3)] {
        let slow = Quality { latency: ms(if a == 1 && b == 4 { 5 } else { 1 }), ..Quality::default() };
        wires.push(sim.wire(hosts[a], hosts[b], slow));
        sim.connect(hosts[a], hosts[b]);
    }
    sim.start_all();
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    sim.run_for(seconds(5));
    stream(&mut sim, macs[0], macs[3], seconds(2));
    sim.cut(wires[2]);
    let after = stream(&mut sim, macs[0], macs[3], seconds(3));
    sim.run_for(ms(100));
    let gap = 5 * lost(&sim, &after, hosts[3]);
    println!("{gap} ms without traffic");
    assert!(gap < 1000, "{gap} ms");
    nothing_went_wrong(&sim);
}

#[test]
fn told_one_peer_a_router_learns_the_others_and_links_with_them() {
    let (mut sim, hosts) = hosts(202, 8, &RouterOptions::default());
    sim.lan(&hosts, Quality::default());
    for host in &hosts[1..] {
        sim.connect(*host, hosts[0]);
    }
    sim.start_all();
    converge(&mut sim, seconds(2));
    let meshed = |sim: &Sim| hosts.iter().all(|host| sim.links(*host).len() == 7);
    let took = sim.run_until(seconds(10), meshed);
    assert!(took.is_some(), "all pairs have a link");
    let macs = containers(&mut sim);
    floods_reach_everybody_once(&mut sim, &macs);
    all_pairs_exchange_frames(&mut sim, &macs);
    nothing_went_wrong(&sim);
}

#[test]
fn a_new_wire_gives_a_direct_path() {
    let (mut sim, hosts) = line(203, 3);
    converge(&mut sim, seconds(2));
    let macs = containers(&mut sim);
    stream(&mut sim, macs[0], macs[2], seconds(1));
    assert!(!sim.is_direct(hosts[0], hosts[2]));
    let wire = sim.wire(hosts[0], hosts[2], Quality::default());
    let mut waited = 0;
    while !(sim.is_direct(hosts[0], hosts[2]) && sim.is_direct(hosts[2], hosts[0])) {
        let sent = stream(&mut sim, macs[0], macs[2], ms(500));
        sim.run_for(ms(10));
        assert_eq!(lost(&sim, &sent, hosts[2]), 0, "relaying goes on");
        waited += 1;
        assert!(waited < 20, "no direct path within ten seconds");
    }
    sim.cut(wire);
    let after = stream(&mut sim, macs[0], macs[2], seconds(2));
    sim.run_for(ms(100));
    let gap = 5 * lost(&sim, &after, hosts[2]);
    assert!(gap < 1000, "{gap} ms");
    nothing_went_wrong(&sim);
}

#[test]
fn peers_out_of_reach_are_tried_rarely() {
    let (mut sim, hosts) = line(204, 6);
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    sim.run_for(seconds(600));
    let before = sim.vain_handshakes(hosts[0]);
    sim.run_for(seconds(600));
    let per_minute = (sim.vain_handshakes(hosts[0]) - before) as f64 / 10.0;
    // Four peers out of reach, each with one or two addresses, tried once a minute with three messages of two datagrams.
    println!("{per_minute} handshake datagrams a minute to addresses out of reach");
    assert!(per_minute <= 48.0, "{per_minute}");
    nothing_went_wrong(&sim);
}

#[test]
fn links_stay_within_their_limit_and_the_mesh_in_one_piece() {
    let options = RouterOptions { conn_limit: 5, ..RouterOptions::default() };
    let (mut sim, hosts) = hosts(205, 30, &options);
    sim.lan(&hosts, Quality::default());
    for host in &hosts[1..] {
        sim.connect(*host, hosts[0]);
    }
    sim.start_all();
    sim.run_for(seconds(300));
    assert!(sim.is_converged(), "all reach all");
    // A host that somebody named is always tried; a link that is somebody's only one stays.
    let over: Vec<(RouterId, usize)> =
        hosts.iter().map(|host| (*host, sim.links(*host).len())).filter(|(_, links)| *links > 5 + 1).collect();
    assert!(over.is_empty(), "more links than allowed: {over:?}");
    // Links cost pings; routers without a link cost each other next to nothing, whoever has room left.
    let (before, links) = (sim.arrived(), hosts.iter().map(|host| sim.links(*host).len()).sum::<usize>() / 2);
    sim.run_for(seconds(100));
    let per_second = (sim.arrived() - before) as f64 / 100.0 / links as f64;
    println!("{per_second} datagrams a second and link");
    assert!(per_second < 10.0, "{per_second}");
    let macs = containers(&mut sim);
    floods_reach_everybody_once(&mut sim, &macs);
    nothing_went_wrong(&sim);
}

#[test]
fn routers_without_a_link_find_a_direct_path_and_lose_it_gracefully() {
    let options = RouterOptions { conn_limit: 1, ..RouterOptions::default() };
    let (mut sim, hosts) = hosts(206, 3, &options);
    sim.wire(hosts[0], hosts[1], Quality::default());
    sim.wire(hosts[1], hosts[2], Quality::default());
    let shared = sim.wire(hosts[0], hosts[2], Quality::default());
    sim.connect(hosts[0], hosts[1]);
    sim.connect(hosts[2], hosts[1]);
    sim.start_all();
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    sim.run_for(seconds(10));
    assert!(!sim.links(hosts[0]).contains(&hosts[2]), "no room for that link");
    let sent = stream(&mut sim, macs[0], macs[2], seconds(10));
    sim.run_for(ms(50));
    assert_eq!(lost(&sim, &sent, hosts[2]), 0);
    assert!(sim.is_direct(hosts[0], hosts[2]), "frames go straight");
    sim.cut(shared);
    let after = stream(&mut sim, macs[0], macs[2], seconds(3));
    sim.run_for(ms(100));
    let gap = 5 * lost(&sim, &after, hosts[2]);
    println!("{gap} ms without traffic");
    assert!(gap < 1000, "{gap} ms");
    nothing_went_wrong(&sim);
}

#[test]
fn crossing_dials_end_in_one_link_that_stays() {
    for seed in 0..20 {
        let (mut sim, hosts) = hosts(220 + seed, 2, &RouterOptions::default());
        sim.wire(hosts[0], hosts[1], Quality { jitter: ms(seed % 4), ..Quality::default() });
        sim.connect(hosts[0], hosts[1]);
        sim.connect(hosts[1], hosts[0]);
        sim.start_all();
        sim.run_for(seconds(400));
        assert_eq!((sim.total("links_up"), sim.total("links_down")), (2, 0), "seed {seed}");
        nothing_went_wrong(&sim);
    }
}

#[test]
fn idle_links_stay_up_and_quiet() {
    let (mut sim, _) = line(240, 3);
    converge(&mut sim, seconds(2));
    sim.run_for(seconds(30));
    let before = sim.arrived();
    sim.run_for(seconds(600));
    let per_second = (sim.arrived() - before) as f64 / 600.0 / 2.0;
    println!("{per_second} datagrams a second and link");
    // A ping and a pong each way, and a little for path MTUs, keys and records.
    assert!(per_second < 4.5, "{per_second}");
    assert_eq!(sim.total("links_down"), 0);
    nothing_went_wrong(&sim);
}

#[test]
fn relays_that_hold_mere_paths_to_a_router_relay_to_it() {
    let options = RouterOptions { conn_limit: 3, ..RouterOptions::default() };
    let (mut sim, hosts) = hosts(250, 12, &options);
    sim.lan(&hosts, Quality::default());
    for (index, host) in hosts.iter().enumerate().skip(1) {
        sim.connect(*host, hosts[index - 1]);
    }
    sim.start_all();
    sim.run_for(seconds(20));
    assert!(sim.is_converged());
    let macs = containers(&mut sim);
    // First some pairs find direct paths; then they relay for others who have none yet.
    all_pairs_exchange_frames(&mut sim, &macs[2..8]);
    let paths =
        |sim: &Sim| hosts.iter().map(|a| hosts.iter().filter(|b| sim.is_direct(*a, **b) && !sim.links(*a).contains(b)).count()).sum();
    sim.run_for(seconds(5));
    let mere: usize = paths(&sim);
    assert!(mere > 4, "{mere} paths are no links");
    for _ in 0..3 {
        all_pairs_exchange_frames(&mut sim, &macs);
        sim.run_for(seconds(7));
    }
    assert_eq!(sim.total("drop_relay_no_route"), 0);
    nothing_went_wrong(&sim);
}

/// What a router is told of the way to another: cost and size.
fn route(sim: &Sim, from: RouterId, to: RouterId) -> Option<(u32, u16)> {
    let snapshot = sim.snapshot(from).expect("it runs");
    snapshot.routes.iter().find(|route| route.peer == sim.name(to)).map(|route| (route.cost, route.mtu))
}

#[test]
fn a_link_whose_round_trip_is_not_yet_known_draws_no_traffic() {
    for seed in 260..290 {
        // h1 -- 80 ms -- h2 -- h3 -- h4: the far end watches what it is told of the slow link.
        let (mut sim, hosts) = hosts(seed, 4, &RouterOptions::default());
        let loss = if seed == 260 { 0.0 } else { 0.3 };
        for (pair, latency, loss) in [((0, 1), 80, loss), ((1, 2), 1, 0.0), ((2, 3), 1, 0.0)] {
            sim.wire(hosts[pair.0], hosts[pair.1], Quality { latency: ms(latency), loss, ..Quality::default() });
        }
        sim.connect(hosts[2], hosts[1]);
        sim.connect(hosts[3], hosts[2]);
        sim.start_all();
        sim.run_for(seconds(5));
        sim.connect(hosts[0], hosts[1]);
        assert!(sim.run_until(seconds(30), |sim| route(sim, hosts[3], hosts[0]).is_some()).is_some());
        let mut told = Vec::new();
        for _ in 0..200 {
            told.extend(route(&sim, hosts[3], hosts[0]));
            sim.run_for(ms(10));
        }
        // Of both ends' costs the larger counts, so this takes a ping lost each way.
        let cheapest = told.iter().map(|(cost, _)| *cost).min();
        assert!(cheapest >= Some(130_000), "seed {seed}: a round trip of 160 ms was told as {cheapest:?}");
        if seed == 260 {
            assert!(told[60].0 < 200_000 && told[60].1 > 1400, "after 600 ms it is told as {:?}", told[60]);
        }
        nothing_went_wrong(&sim);
    }
}

#[test]
fn a_link_that_was_measured_while_its_hosts_were_busy_soon_costs_what_it_costs() {
    // As where many routers start on one machine: the first round trips take a hundred times what the path does.
    let (mut sim, hosts) = hosts(256, 3, &RouterOptions::default());
    let busy = Quality { latency: ms(50), ..Quality::default() };
    let wires = [(0, 1), (1, 2)].map(|(a, b)| {
        let wire = sim.wire(hosts[a], hosts[b], busy);
        sim.connect(hosts[a], hosts[b]);
        wire
    });
    sim.start_all();
    converge(&mut sim, seconds(5));
    sim.run_for(seconds(3));
    assert!(route(&sim, hosts[0], hosts[2]).is_some_and(|(cost, _)| cost > 150_000));
    wires.iter().for_each(|wire| sim.set_quality(*wire, Quality::default()));
    sim.run_for(seconds(20));
    assert_eq!(route(&sim, hosts[0], hosts[2]).map(|(cost, _)| cost), Some(2000));
    // And a path that has become slow is told so.
    wires.iter().for_each(|wire| sim.set_quality(*wire, busy));
    sim.run_for(seconds(40));
    let told = route(&sim, hosts[0], hosts[2]).map(|(cost, _)| cost);
    assert!(told > Some(100_000), "{told:?}");
    nothing_went_wrong(&sim);
}

#[test]
fn a_path_that_shrinks_is_told_at_once_also_while_its_cost_waits_to_be_told() {
    let (mut sim, hosts) = hosts(255, 3, &RouterOptions::default());
    let wire = sim.wire(hosts[0], hosts[1], Quality::default());
    sim.wire(hosts[1], hosts[2], Quality::default());
    sim.connect(hosts[0], hosts[1]);
    sim.connect(hosts[2], hosts[1]);
    sim.start_all();
    converge(&mut sim, seconds(2));
    let macs = containers(&mut sim);
    sim.run_for(seconds(20));
    assert!(route(&sim, hosts[2], hosts[0]).is_some_and(|(_, mtu)| mtu == 1420));
    // Its round trip has grown: a change that is told after ten seconds.
    sim.set_quality(wire, Quality { latency: ms(30), ..Quality::default() });
    sim.run_for(seconds(3));
    sim.set_quality(wire, Quality { latency: ms(30), mtu: 1400, ..Quality::default() });
    sim.send(macs[1], macs[0], 1400);
    sim.run_for(ms(500));
    let told = route(&sim, hosts[2], hosts[0]);
    assert!(told.is_some_and(|(_, mtu)| mtu < 1350), "{told:?}");
    nothing_went_wrong(&sim);
}

#[test]
fn a_new_direct_path_answers_no_frame_that_the_relayed_one_carried() {
    let (mut sim, hosts) = line(252, 3);
    converge(&mut sim, seconds(2));
    let macs = containers(&mut sim);
    sim.run_for(seconds(2));
    let large = |sim: &mut Sim, duration: Duration| {
        let mut sent = Vec::new();
        for _ in 0..duration.as_millis() / 5 {
            // Full segments that must not be fragmented.
            sent.push(sim.send_super(macs[0], macs[2], 1368, 1400));
            sim.run_for(ms(5));
        }
        sim.run_for(ms(100));
        assert_eq!(sim.too_big(), [], "nobody is told that full segments do not fit");
        assert_eq!(lost(sim, &sent, hosts[2]), 0);
    };
    large(&mut sim, seconds(1));
    // So slow that some segments are sent before the first probe comes back.
    sim.wire(hosts[0], hosts[2], Quality { latency: ms(20), ..Quality::default() });
    large(&mut sim, seconds(10));
    assert!(sim.is_direct(hosts[0], hosts[2]));
    nothing_went_wrong(&sim);
}

#[test]
fn the_size_of_a_path_is_settled_after_its_first_search() {
    let (mut sim, hosts) = line(253, 3);
    converge(&mut sim, seconds(2));
    assert!(!sim.mtu_is_settled(hosts[0], hosts[1]), "its search has just begun");
    sim.run_for(seconds(2));
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
        assert!(sim.mtu_is_settled(hosts[from], hosts[to]), "{from} to {to}");
    }
    // A path that carries no more than the base size is taken at its word after some seconds.
    let (mut sim, hosts) = hosts_on_narrow_wires(254);
    converge(&mut sim, seconds(2));
    assert!(!sim.mtu_is_settled(hosts[0], hosts[2]));
    sim.run_for(seconds(8));
    assert!(sim.mtu_is_settled(hosts[0], hosts[2]));
}

fn hosts_on_narrow_wires(seed: u64) -> (Sim, Vec<RouterId>) {
    let (mut sim, hosts) = hosts(seed, 3, &RouterOptions::default());
    for pair in hosts.windows(2) {
        sim.wire(pair[0], pair[1], Quality { mtu: 1280, ..Quality::default() });
        sim.connect(pair[1], pair[0]);
    }
    sim.start_all();
    (sim, hosts)
}
