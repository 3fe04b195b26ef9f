//! Address resolution that a container's own router answers.

use super::*;

fn ip(n: usize) -> [u8; 4] {
    [10, 99, 0, n as u8 + 1]
}

/// A container asks for another's address; which hosts' bridges saw the question, and who was answered by what.
fn ask(sim: &mut Sim, from: Mac, own: usize, target: usize) -> (Vec<RouterId>, Vec<[u8; 4]>) {
    sim.resolve(from, ip(own), ip(target));
    sim.run_for(ms(300));
    let here = sim.host_of(from).expect("on a host");
    let asked = sim.routers().into_iter().filter(|router| sim.resolved(*router).iter().any(|(answer, _)| !answer)).collect();
    let answers = sim.resolved(here).into_iter().filter(|(answer, _)| *answer).map(|(_, sender)| sender).collect();
    (asked, answers)
}

#[test]
fn questions_are_answered_at_home_while_it_is_certain_who_has_the_address() {
    let (mut sim, hosts) = line(601, 4);
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    for (n, mac) in macs.iter().enumerate() {
        sim.resolve(*mac, ip(n), ip(n));
        sim.run_for(ms(100));
    }
    sim.run_for(seconds(1));
    for (from, to) in [(0, 3), (3, 0), (1, 2)] {
        assert_eq!(ask(&mut sim, macs[from], from, to), (Vec::new(), vec![ip(to)]), "{from} asks for {to}");
    }
    // Nobody has it; it is on the own bridge; it is a question whether it is free.
    let all_but = |n: usize| hosts.iter().copied().filter(|host| *host != hosts[n]).collect::<Vec<_>>();
    for (from, own, target) in [(0, 0, 77), (0, 0, 0)] {
        assert_eq!(ask(&mut sim, macs[from], own, target), (all_but(from), Vec::new()));
    }
    sim.resolve(macs[0], [0; 4], ip(3));
    sim.run_for(ms(300));
    assert!(!sim.resolved(hosts[3]).is_empty() && sim.resolved(hosts[0]).is_empty());
    // It moves with its MAC, and is found.
    sim.move_container(macs[3], hosts[1]);
    sim.resolve(macs[3], ip(3), ip(3));
    sim.run_for(seconds(1));
    assert_eq!(ask(&mut sim, macs[0], 0, 3), (Vec::new(), vec![ip(3)]));
    let frame = sim.send(macs[0], macs[3], 100);
    sim.run_for(ms(100));
    assert_eq!(sim.arrivals(frame, hosts[1]), 1);
    // Another says that it has the address: nothing is certain for a minute.
    sim.resolve(macs[2], ip(3), ip(3));
    sim.run_for(ms(300));
    assert_eq!(ask(&mut sim, macs[0], 0, 3), (all_but(0), Vec::new()));
    sim.run_for(seconds(62));
    sim.resolve(macs[3], ip(3), ip(3));
    sim.run_for(seconds(1));
    assert_eq!(ask(&mut sim, macs[0], 0, 3), (Vec::new(), vec![ip(3)]));
    // Its host is gone.
    sim.crash(hosts[1]);
    sim.run_for(seconds(5));
    assert_eq!(ask(&mut sim, macs[0], 0, 3).1, Vec::<[u8; 4]>::new());
    nothing_went_wrong(&sim);
}
