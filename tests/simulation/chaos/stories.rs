//! What chaos has found, each in as few steps as it takes.

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
