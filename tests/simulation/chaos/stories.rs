//! What chaos has found, each in as few steps as it takes.

use weave_router::mesh::command::Event;

use super::*;

#[test]
fn who_said_goodbye_and_lost_its_state_is_let_in_again() {
    let (mut sim, hosts) = line(810, 3);
    converge(&mut sim, seconds(2));
    for restarts in [0, 2] {
        for _ in 0..restarts {
            sim.crash(hosts[2]);
            sim.start(hosts[2]);
            converge(&mut sim, seconds(10));
        }
        sim.stop(hosts[2]);
        sim.run_for(seconds(1));
        // What the others remember of it is its goodbye.
        sim.lose_incarnation(hosts[2]);
        sim.start(hosts[2]);
        let took = sim.run_until(seconds(5), Sim::is_converged);
        println!("after {restarts} restarts it was let in within {took:?}");
        assert!(took.is_some(), "{restarts} restarts");
    }
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    nothing_went_wrong(&sim);
}

#[test]
fn who_forgot_a_life_that_no_record_tells_of_is_spoken_with() {
    let (mut sim, hosts) = hosts(822, 10, &RouterOptions::default());
    for end in &hosts[1..] {
        sim.wire(*end, hosts[0], Quality::default());
        sim.connect(*end, hosts[0]);
    }
    let mut ends = hosts[1..].to_vec();
    ends.sort_by_key(|end| sim.name(*end));
    ends.reverse();
    let (host, other) = (ends[0], ends[8]);
    sim.start_all();
    let macs: Vec<Mac> = ends.iter().map(|end| sim.container(*end)).collect();
    sim.run_for(ms(1150));
    // Handshakes are numbered: that with the other one comes after those with everybody else.
    for mac in &macs[1..] {
        sim.send(macs[0], *mac, 200);
        sim.run_for(ms(25));
    }
    sim.run_for(ms(50));
    sim.crash(host);
    sim.lose_incarnation(host);
    sim.run_for(seconds(1));
    sim.start(host);
    sim.run_for(seconds(3));
    let arrived = [(0, 8), (8, 0)].map(|(from, to)| {
        let frame = sim.send(macs[from], macs[to], 200);
        sim.run_for(seconds(3));
        sim.arrivals(frame, ends[to])
    });
    let heard = sim.log(host).iter().any(|(_, event)| matches!(event, Event::Persist(_)));
    assert!(!heard, "all that it had said it has said again, so nothing in the mesh tells it of its former life");
    assert_eq!(arrived, [1, 1], "between {host:?}, which forgot, and {other:?}");
    nothing_went_wrong(&sim);
}

#[test]
fn a_way_that_opens_is_found_soon_whenever_that_is() {
    let mut slowest = Duration::ZERO;
    for closed in (3..20).map(seconds) {
        let (mut sim, hosts) = hosts(11, 2, &RouterOptions::default());
        let wire = sim.wire(hosts[0], hosts[1], Quality::default());
        sim.connect(hosts[1], hosts[0]);
        sim.start_all();
        converge(&mut sim, seconds(2));
        sim.cut(wire);
        sim.run_for(closed);
        sim.mend(wire);
        let took = converge(&mut sim, seconds(20));
        slowest = slowest.max(took);
    }
    println!("found within {slowest:?}");
    // The last message but one of an attempt and the last are four seconds apart, and an attempt and the next hardly as much.
    assert!(slowest < seconds(6), "{slowest:?}");
}
