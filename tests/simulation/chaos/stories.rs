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
    // By then its records are forgotten; the stamps of its handshakes are not.
    sim.run_for(seconds(620));
    sim.start(host);
    sim.run_for(seconds(3));
    let arrived = [(0, 8), (8, 0)].map(|(from, to)| {
        let frame = sim.send(macs[from], macs[to], 200);
        sim.run_for(seconds(3));
        sim.arrivals(frame, ends[to])
    });
    let heard = sim.log(host).iter().any(|(_, event)| matches!(event, Event::Persist(_)));
    assert!(!heard, "nothing in the mesh tells it of its former life");
    assert_eq!(arrived, [1, 1], "between {host:?}, which forgot, and {other:?}");
    nothing_went_wrong(&sim);
}

#[test]
fn who_forgot_its_life_is_told_of_it_by_those_behind_a_neighbour_that_forgot_it_too() {
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Life {
        /// Of higher incarnations, with a goodbye and without.
        Restarted(bool),
        /// Of the same one, in which it said more of its links.
        SaidMore,
    }
    let mut orders = BTreeSet::new();
    let lives = [Life::Restarted(true), Life::Restarted(false), Life::SaidMore];
    for (seed, life) in (830..842).zip(lives.into_iter().cycle()) {
        let (mut sim, hosts) = hosts(seed, 3, &RouterOptions::default());
        let [far, neighbour, host] = hosts[..] else { unreachable!("three hosts") };
        sim.wire(far, neighbour, Quality::default());
        let wire = sim.wire(neighbour, host, Quality::default());
        sim.connect(neighbour, far);
        sim.connect(host, neighbour);
        sim.start_all();
        converge(&mut sim, seconds(2));
        for _ in 0..3 {
            if life == Life::SaidMore {
                sim.cut(wire);
                sim.run_for(seconds(6));
                sim.mend(wire);
            } else {
                sim.crash(host);
                sim.start(host);
            }
            converge(&mut sim, seconds(20));
        }
        if life == Life::Restarted(true) {
            sim.stop(host);
        } else {
            sim.crash(host);
        }
        sim.run_for(seconds(10));
        sim.crash(neighbour);
        sim.lose_incarnation(host);
        sim.start(neighbour);
        sim.start(host);
        let took = sim.run_until(seconds(20), Sim::is_converged);
        println!("seed {seed}: {life:?}: it was reached within {took:?}");
        assert!(took.is_some(), "seed {seed}: {far:?} does not reach {host:?}");
        assert!(sim.log(host).iter().any(|(_, event)| matches!(event, Event::Persist(_))), "it has heard of its former life");
        // Whoever has the lower name starts comparisons, and so tells what it holds in another way.
        orders.insert((sim.name(far) < sim.name(neighbour), life));
        nothing_went_wrong(&sim);
    }
    assert_eq!(orders.len(), 6, "every life with both orders of names: {orders:?}");
}

#[test]
fn nobody_is_reached_through_a_router_that_passes_nothing_on_however_often_it_starts() {
    for seed in 840..850 {
        let mut sim = Sim::new(seed, Options::default());
        let [one, closed, other] =
            [true, false, true].map(|forwarding| sim.router(&RouterOptions { forwarding, ..RouterOptions::default() }));
        for end in [one, other] {
            sim.wire(end, closed, Quality::bad());
            sim.connect(end, closed);
        }
        sim.start_all();
        for round in 0..20 {
            sim.run_for(seconds(4));
            let reached = |sim: &Sim| [one, closed, other].map(|router| sim.reachable(router).len());
            sim.run_until(seconds(16), |sim| reached(sim) == [1, 2, 1]);
            assert_eq!(reached(&sim), [1, 2, 1], "seed {seed}, after {round} restarts of {closed:?}");
            sim.crash(closed);
            sim.start(closed);
        }
    }
}

#[test]
fn frames_go_on_where_the_other_end_dropped_the_session_that_they_are_sealed_with() {
    for seed in 850..856 {
        let (mut sim, hosts) = hosts(seed, 3, &RouterOptions::default());
        let [one, relay, other] = hosts[..] else { unreachable!("three hosts") };
        sim.wire(one, relay, Quality::default());
        let wire = sim.wire(other, relay, Quality { latency: ms(50), ..Quality::default() });
        sim.connect(one, relay);
        sim.connect(other, relay);
        sim.start_all();
        let [from, to] = [one, other].map(|host| sim.container(host));
        converge(&mut sim, seconds(2));
        sim.broadcast(to);
        sim.run_for(seconds(1));
        let before = sim.counter(other, "handshakes_completed");
        sim.send(from, to, 200);
        let answered = |sim: &Sim| sim.counter(other, "handshakes_completed") > before;
        assert!(sim.run_until(seconds(2), answered).is_some(), "seed {seed}: {one:?} has asked {other:?} for a session");
        // The answer arrives, and nothing that is sealed with it before the other end gives it up.
        sim.mute(wire, relay);
        sim.run_for(seconds(12));
        sim.mend(wire);
        converge(&mut sim, seconds(20));
        let start = sim.now();
        let arrived = (0..25).any(|_| {
            let frame = sim.send(from, to, 200);
            sim.run_for(ms(200));
            sim.arrivals(frame, other) == 1
        });
        println!("seed {seed}: a frame arrived {:?} after the mesh was whole again", sim.now().since(start));
        assert!(arrived, "seed {seed}: from {one:?} to {other:?}");
        nothing_went_wrong(&sim);
    }
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
