//! Multicast goes where members are.

use std::collections::BTreeSet;

use super::shapes::random_mesh;
use super::*;

const GROUP: [u8; 4] = [239, 1, 2, 3];

/// Sends to the group; which hosts it reaches.
fn reached(sim: &mut Sim, from: Mac) -> BTreeSet<RouterId> {
    let frame = sim.send_to_group(from, GROUP);
    sim.run_for(ms(500));
    sim.routers().into_iter().filter(|host| sim.arrivals(frame, *host) == 1).collect()
}

/// All but the sender's.
fn others(sim: &Sim, hosts: &[RouterId], from: Mac) -> BTreeSet<RouterId> {
    hosts.iter().copied().filter(|host| sim.host_of(from) != Some(*host)).collect()
}

#[test]
fn frames_of_a_group_reach_all_members_and_hosts_that_do_not_snoop_and_nobody_else() {
    let (mut sim, mut hosts, _) = random_mesh(711, 14, 6, Quality::default(), &RouterOptions::default());
    let deaf = sim.router(&RouterOptions { multicast_snooping: false, ..RouterOptions::default() });
    sim.wire(deaf, hosts[2], Quality::default());
    sim.connect(deaf, hosts[2]);
    sim.start(deaf);
    hosts.push(deaf);
    converge(&mut sim, seconds(10));
    let macs = containers(&mut sim);
    sim.run_for(seconds(6));
    let everybody = others(&sim, &hosts, macs[0]);
    assert_eq!(reached(&mut sim, macs[0]), everybody, "of a group without members");
    let mut members = BTreeSet::from([deaf]);
    for member in [5, 9, 13] {
        sim.tell_membership(macs[member], GROUP, true);
        members.insert(hosts[member]);
        sim.run_for(ms(500));
        for from in [0, 5, 11, 14] {
            let wanted: BTreeSet<RouterId> = members.iter().copied().filter(|host| *host != hosts[from]).collect();
            assert_eq!(reached(&mut sim, macs[from]), wanted, "from {from} with member {member}");
        }
    }
    // Broadcasts and other groups are as ever.
    floods_reach_everybody_once(&mut sim, &macs);
    // One leaves, and the routers of the others come and go.
    sim.tell_membership(macs[9], GROUP, false);
    sim.run_for(seconds(6));
    members.remove(&hosts[9]);
    assert_eq!(reached(&mut sim, macs[0]), members);
    sim.crash(hosts[13]);
    sim.run_for(seconds(3));
    sim.start(hosts[13]);
    sim.run_for(seconds(2));
    assert!(reached(&mut sim, macs[0]).contains(&hosts[13]), "a router that has just begun gets all there is");
    sim.run_for(seconds(8));
    assert!(!reached(&mut sim, macs[0]).contains(&hosts[13]), "its station did not answer, as none does here");
    sim.tell_membership(macs[13], GROUP, true);
    sim.run_for(ms(500));
    assert_eq!(reached(&mut sim, macs[0]), members);
    // Nobody answers any more: it is a group without members again.
    sim.run_for(seconds(265));
    assert_eq!(reached(&mut sim, macs[0]), everybody);
    nothing_went_wrong(&sim);
}

#[test]
fn a_member_far_away_misses_nothing_from_a_moment_after_it_joined() {
    let (mut sim, hosts) = line(712, 6);
    converge(&mut sim, seconds(5));
    let macs = containers(&mut sim);
    sim.run_for(seconds(6));
    // Somebody near is a member, so that the group is known.
    sim.tell_membership(macs[1], GROUP, true);
    sim.run_for(seconds(1));
    let mut sent = Vec::new();
    let mut joined = None;
    for round in 0..400 {
        if round == 100 {
            sim.tell_membership(macs[5], GROUP, true);
            joined = Some(sim.now());
        }
        sent.push((sim.now(), sim.send_to_group(macs[0], GROUP)));
        sim.run_for(ms(5));
    }
    sim.run_for(seconds(1));
    let joined = joined.expect("it has joined");
    let missed = sent.iter().filter(|(at, frame)| *at >= joined && sim.arrivals(*frame, hosts[5]) == 0).map(|(at, _)| at.since(joined));
    let last = missed.max().unwrap_or_default();
    println!("the last frame missed was sent {last:?} after the join");
    assert!(last < ms(300), "{last:?}");
    assert!(sent.iter().all(|(_, frame)| sim.arrivals(*frame, hosts[1]) == 1 && sim.arrivals(*frame, hosts[3]) == 0));
    nothing_went_wrong(&sim);
}
