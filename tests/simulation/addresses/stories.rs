//! Stories of address books, each with a name.

use std::collections::BTreeSet;
use std::time::Duration;

use weave_router::ipam::{Answer, Init, Kind, Phase, Request, Sorry};
use weave_router::wire::ipam::{address, number};

use super::world::{Op, World};

pub const SUBNET: &str = "10.32.0.0/24";

pub fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn world(seed: u64, hosts: u16) -> World {
    let mut world = World::new(seed);
    for _ in 0..hosts {
        world.host(SUBNET, Init::Consensus(hosts));
    }
    world
}

pub fn allocate(world: &mut World, host: usize, ident: &str) -> u64 {
    world.request(host, Request::Allocate { ident: ident.to_string(), subnet: None }, Op::Allocate(ident.to_string()))
}

/// What a request was answered within `patience` seconds.
#[track_caller]
pub fn answer(world: &mut World, request: u64, patience: u64) -> Result<Answer, Sorry> {
    for _ in 0..patience * 10 {
        if let Some(answer) = world.heard.get(&request) {
            return answer.clone();
        }
        world.run(Duration::from_millis(100));
    }
    panic!("no answer within {patience} s");
}

#[track_caller]
pub fn given(world: &mut World, host: usize, ident: &str) -> u128 {
    let request = allocate(world, host, ident);
    match answer(world, request, 10) {
        Ok(Answer::Address(net)) => number(net.addr()),
        other => panic!("{ident} on host {host} got {other:?}"),
    }
}

#[track_caller]
pub fn refused(world: &mut World, request: u64) -> Sorry {
    answer(world, request, 11).expect_err("a refusal")
}

pub fn problems(world: &World, host: usize) -> Vec<String> {
    world.hosts[host].ipam.as_ref().expect("it runs").status().problems
}

pub fn mesh(world: &World, host: usize) -> String {
    world.hosts[host].ipam.as_ref().expect("it runs").status().mesh
}

pub fn remove(world: &mut World, host: usize, dead: usize, force: bool) -> u64 {
    let dead = world.hosts[dead].name;
    world.request(host, Request::Remove { dead, force }, Op::Remove)
}

#[test]
fn a_router_without_peers_decides_alone_and_one_with_peers_never() {
    let mut alone = world(1, 1);
    assert_eq!(address(given(&mut alone, 0, "c")).to_string(), "10.32.0.1", "the network's address is given to nobody");
    let mut world = World::new(2);
    let host = world.host(SUBNET, Init::Consensus(2));
    let request = allocate(&mut world, host, "c");
    let sorry = refused(&mut world, request);
    assert!(sorry.text.contains("awaiting consensus (quorum: 2, known: 1)"), "{sorry:?}");
    assert_eq!(sorry.kind, Kind::Unavailable);
}

#[test]
fn an_agreement_survives_crashes_in_the_middle() {
    for seed in 0..60 {
        let mut world = world(seed, 5);
        world.run(seconds(2));
        for host in 0..5 {
            allocate(&mut world, host, &format!("c{host}"));
        }
        for round in 0..30 {
            let pause = world.chance(120);
            world.run(Duration::from_millis(pause));
            let host = world.chance(5) as usize;
            world.crash(host);
            let after = world.chance(300);
            world.run(Duration::from_millis(after));
            world.start(host);
            allocate(&mut world, host, &format!("d{round}"));
        }
        world.run(seconds(20));
        let meshes: BTreeSet<String> = (0..5).map(|host| mesh(&world, host)).collect();
        assert!(meshes.len() == 1 && !meshes.contains(""), "seed {seed}: {meshes:?}");
        assert!((0..5).all(|host| problems(&world, host).is_empty()));
    }
}

#[test]
fn the_same_container_gets_the_same_address_over_restarts() {
    let mut world = world(3, 3);
    let first = given(&mut world, 1, "c");
    for _ in 0..3 {
        world.crash(1);
        world.start(1);
        assert_eq!(given(&mut world, 1, "c"), first);
    }
    world.free(1, "c");
    world.run(seconds(1));
    assert_eq!(given(&mut world, 1, "d"), first, "what is free is given again, lowest first");
}

#[test]
fn a_dead_container_keeps_its_address_for_thirty_seconds() {
    let mut world = world(4, 1);
    let first = given(&mut world, 0, "c");
    let released = |world: &mut World| world.request(0, Request::Released { ident: "c".to_string() }, Op::Free);
    released(&mut world);
    world.run(seconds(20));
    assert_eq!(given(&mut world, 0, "c"), first);
    world.run(seconds(20));
    let lookup = |world: &World| world.hosts[0].ipam.as_ref().expect("it runs").lookup("c").len();
    assert_eq!(lookup(&world), 1, "it was alive again");
    released(&mut world);
    world.run(seconds(29));
    assert_eq!(lookup(&world), 1);
    world.run(seconds(2));
    assert_eq!(lookup(&world), 0);
}

#[test]
fn an_observer_has_no_vote_and_gets_space_all_the_same() {
    let mut world = World::new(5);
    let observer = world.host(SUBNET, Init::Observer);
    let request = allocate(&mut world, observer, "early");
    assert!(refused(&mut world, request).text.contains("observer"));
    for _ in 0..2 {
        world.host(SUBNET, Init::Consensus(2));
    }
    world.run(seconds(3));
    given(&mut world, observer, "c");
    world.run(seconds(5));
    let status = world.hosts[1].ipam.as_ref().expect("it runs").status();
    assert_eq!(status.owners.len(), 3);
}

#[test]
fn seeds_need_no_agreement() {
    let mut names = World::new(6);
    let hosts: Vec<usize> = (0..2).map(|_| names.host(SUBNET, Init::Observer)).collect();
    let seeds: Vec<_> = hosts.into_iter().map(|host| names.hosts[host].name).collect();
    let mut world = World::new(6);
    let one = world.host(SUBNET, Init::Seed(seeds.clone()));
    given(&mut world, one, "before anybody else is there");
    let other = world.host(SUBNET, Init::Seed(seeds.clone()));
    given(&mut world, other, "c");
    let later = world.host(SUBNET, Init::Consensus(3));
    world.run(seconds(5));
    given(&mut world, later, "c");
    assert_eq!(mesh(&world, one), mesh(&world, later));
}

#[test]
fn space_out_of_reach_is_refused_with_the_reason() {
    let mut world = world(7, 3);
    given(&mut world, 0, "c");
    world.run(seconds(3));
    world.partition(|host| host as u8);
    world.run(seconds(2));
    let mut last = None;
    for n in 0..140 {
        let request = allocate(&mut world, 0, &format!("more{n}"));
        if let Err(sorry) = answer(&mut world, request, 11) {
            last = Some((n, sorry));
            break;
        }
    }
    let (count, sorry) = last.expect("the share of one of three is used up");
    assert!((60..130).contains(&count), "a partition goes on giving what it owns: {count}");
    assert!(sorry.text.contains("unreachable") && sorry.text.contains("rmpeer"), "{sorry:?}");
    assert_eq!(world.hosts[0].ipam.as_ref().expect("it runs").status().phase, Phase::Unreachable);
    world.partition(|_| 0);
    world.run(seconds(3));
    given(&mut world, 0, "after");
}

#[test]
fn a_claim_of_what_another_has_is_refused_and_of_what_is_free_granted() {
    let mut world = world(8, 3);
    let used = given(&mut world, 1, "c");
    world.run(seconds(3));
    let mut claim = |wanted: u128, ident: &str| {
        let net = ipnet::IpNet::new(address(wanted), 24).expect("an address");
        let request = world.request(0, Request::Claim { ident: ident.to_string(), address: net }, Op::Claim(ident.to_string(), wanted));
        answer(&mut world, request, 11)
    };
    assert_eq!(claim(used, "x").expect_err("in use").kind, Kind::Conflict);
    assert_eq!(claim(used + 7, "y"), Ok(Answer::Done));
    assert_eq!(claim(used + 7, "y"), Ok(Answer::Done), "twice is once");
    assert_eq!(claim(used + 7, "z").expect_err("taken").kind, Kind::Conflict);
    assert_eq!(claim(number([10, 32, 0, 0].into()), "w").expect_err("the network").kind, Kind::Bad);
    assert_eq!(claim(number([192, 168, 0, 9].into()), "v"), Ok(Answer::Done), "outside the range it is merely noted");
}

#[test]
fn a_dead_router_is_removed_on_two_hosts_at_once() {
    for seed in 0..20 {
        let mut world = world(100 + seed, 5);
        for host in 0..5 {
            given(&mut world, host, &format!("c{host}"));
        }
        world.run(seconds(5));
        world.bury(2);
        world.run(seconds(2));
        let asked = [remove(&mut world, 0, 2, false), remove(&mut world, 4, 2, false)];
        for request in asked {
            assert!(answer(&mut world, request, 11).is_ok(), "seed {seed}: {:?}", world.heard[&request]);
        }
        world.run(seconds(5));
        let owners = |world: &World, host: usize| world.hosts[host].ipam.as_ref().expect("it runs").status().owners;
        assert!(owners(&world, 3).iter().all(|owner| owner.peer != world.hosts[2].name), "seed {seed}");
        let again = remove(&mut world, 1, 2, false);
        assert_eq!(answer(&mut world, again, 1), Ok(Answer::Taken(0, world.hosts[1].name)), "twice is once");
        // It comes back, and gives way before it gives anything.
        world.start(2);
        given(&mut world, 2, "back");
        assert!((0..5).all(|host| owners(&world, host) == owners(&world, 0) || host != 0));
    }
}

#[test]
fn a_living_router_is_removed_by_force_alone_and_what_it_gave_is_reported() {
    let mut world = world(9, 3);
    world.strict = false;
    for host in 0..3 {
        given(&mut world, host, &format!("c{host}"));
    }
    world.run(seconds(3));
    let request = remove(&mut world, 0, 1, false);
    let sorry = refused(&mut world, request);
    assert!(sorry.text.contains("reachable") && sorry.text.contains("--force"), "{sorry:?}");
    world.hosts[1].containers.clear();
    let request = remove(&mut world, 0, 1, true);
    assert!(matches!(answer(&mut world, request, 2), Ok(Answer::Taken(size, _)) if size >= 64));
    world.run(seconds(5));
    assert!(problems(&world, 1).iter().any(|problem| problem.contains("two containers")), "{:?}", problems(&world, 1));
    assert!(world.reports.keys().any(|report| report.contains("belongs to another router now")));
}

#[test]
fn fewer_than_half_remove_nobody() {
    let mut world = world(10, 4);
    for host in 0..4 {
        given(&mut world, host, &format!("c{host}"));
    }
    world.run(seconds(3));
    world.crash(3);
    world.partition(|host| u8::from(host > 1));
    world.run(seconds(3));
    let request = remove(&mut world, 0, 3, false);
    let sorry = refused(&mut world, request);
    assert!(sorry.text.contains("2 of 4 owners have agreed, and 3 are needed"), "{sorry:?}");
    world.partition(|_| 0);
    world.run(seconds(3));
    let request = remove(&mut world, 0, 3, false);
    assert!(answer(&mut world, request, 11).is_ok());
}

#[test]
fn meshes_founded_apart_that_meet_are_reported_on_both_sides_and_give_nothing_of_what_both_own() {
    let mut world = World::new(11);
    world.strict = false;
    for _ in 0..2 {
        world.host(SUBNET, Init::Consensus(1));
    }
    world.partition(|host| host as u8);
    let (one, other) = (given(&mut world, 0, "c0"), given(&mut world, 1, "c1"));
    assert_eq!(one, other);
    world.partition(|_| 0);
    world.run(seconds(15));
    assert_ne!(mesh(&world, 0), mesh(&world, 1));
    for host in 0..2 {
        let problems = problems(&world, host);
        assert!(problems.iter().any(|problem| problem.contains("founded apart")), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.contains("10.32.0.1 is or was the address of two containers")), "{problems:?}");
        let request = allocate(&mut world, host, "more");
        assert!(refused(&mut world, request).text.contains("disputed"), "nothing is given of what both own");
        assert_eq!(given(&mut world, host, &format!("c{host}")), one, "who has an address keeps it");
    }
    assert!(world.reports.keys().filter(|report| report.contains("founded apart")).count() >= 2, "{:?}", world.reports);
    // One of them starts anew, and joins.
    world.crash(1);
    world.wipe(1);
    world.start(1);
    world.run(seconds(5));
    given(&mut world, 1, "joined");
    given(&mut world, 0, "more");
    assert_eq!(mesh(&world, 0), mesh(&world, 1));
}

#[test]
fn routers_of_other_ranges_do_not_mix() {
    let mut world = World::new(12);
    world.host(SUBNET, Init::Consensus(1));
    world.host("10.99.0.0/24", Init::Consensus(1));
    given(&mut world, 0, "c0");
    given(&mut world, 1, "c1");
    world.run(seconds(5));
    for host in 0..2 {
        assert!(world.reports.keys().any(|report| report.contains("another --ipalloc-range")), "{:?}", world.reports);
        assert!(!problems(&world, host).is_empty());
        given(&mut world, host, "more");
    }
}

#[test]
fn reset_hands_everything_to_another() {
    let mut world = world(13, 3);
    for host in 0..3 {
        given(&mut world, host, &format!("c{host}"));
    }
    world.run(seconds(3));
    world.free(1, "c1");
    let request = world.request(1, Request::Reset { force: false }, Op::Reset);
    assert!(matches!(answer(&mut world, request, 10), Ok(Answer::Taken(size, _)) if size >= 64));
    let owners = world.hosts[0].ipam.as_ref().expect("it runs").status().owners;
    assert!(owners.iter().all(|owner| owner.peer != world.hosts[1].name));
    assert_eq!(owners.iter().map(|owner| owner.owned).sum::<u128>(), 256);
}

fn has(world: &World, host: usize, ident: &str) -> Vec<u128> {
    world.hosts[host].ipam.as_ref().expect("it runs").lookup(ident).iter().map(|net| number(net.addr())).collect()
}

#[test]
fn a_disk_that_is_lost_under_running_containers_takes_none_of_their_addresses() {
    for seed in 0..10 {
        let mut world = world(200 + seed, 3);
        let mut known: Vec<(String, u128)> = Vec::new();
        for n in 0..20 {
            for host in 0..3 {
                let address = given(&mut world, host, &format!("c{host}-{n}"));
                known.extend((host == 1).then(|| (format!("c1-{n}"), address)));
            }
        }
        world.run(seconds(5));
        world.lose_disk(1);
        // Two that the mesh knows nothing of, in the others' shares.
        let by_hand = [number([10, 32, 0, 60].into()), number([10, 32, 0, 250].into())];
        by_hand.iter().for_each(|address| world.found(1, &address.to_string(), *address));
        known.extend(by_hand.iter().map(|address| (address.to_string(), *address)));
        world.start(1);
        for n in 0..30 {
            allocate(&mut world, 1, &format!("new{n}"));
        }
        world.run(seconds(12));
        for n in 0..150 {
            allocate(&mut world, n % 3, &format!("more{n}"));
        }
        world.run(seconds(15));
        let settled = known.iter().all(|(ident, address)| has(&world, 1, ident) == [*address]);
        assert!(settled, "seed {seed}: they are the containers' again, also over the next restart");
        assert!(world.answers["given"] > 200, "seed {seed}: and what is left is given: {:?}", world.answers);
    }
}

#[test]
fn a_disk_that_is_lost_where_there_is_no_other_router_takes_none_either() {
    let mut world = world(21, 1);
    let first: Vec<u128> = (0..3).map(|n| given(&mut world, 0, &format!("c{n}"))).collect();
    world.lose_disk(0);
    world.start(0);
    assert_eq!(given(&mut world, 0, "c1"), first[1], "a container that is attached again has what it has");
    assert!(!first.contains(&given(&mut world, 0, "new")));
    world.run(seconds(1));
    assert!((0..3).all(|n| has(&world, 0, &format!("c{n}")) == [first[n]]));
    assert!(world.reports.keys().any(|report| report.contains("was its state directory lost")), "{:?}", world.reports);
}

#[test]
fn an_address_that_was_found_and_is_in_use_elsewhere_is_reported_and_given_to_nobody() {
    let mut world = world(22, 2);
    world.strict = false;
    let taken = given(&mut world, 0, "c0");
    given(&mut world, 1, "c1");
    world.run(seconds(3));
    world.crash(1);
    world.start(1);
    world.found(1, "found", taken);
    world.run(seconds(1));
    world.hosts[1].containers.remove("found");
    world.run(seconds(10));
    assert!(
        world.reports.keys().any(|report| report.contains("found on container found") && report.contains("as well")),
        "{:?}",
        world.reports
    );
    assert_ne!(given(&mut world, 1, "found"), taken, "another one is given");
    world.free(0, "c0");
    let request = world.request(0, Request::Reset { force: false }, Op::Reset);
    assert!(answer(&mut world, request, 10).is_ok());
    let claim = ipnet::IpNet::new(address(taken), 24).expect("an address");
    let request = world.request(1, Request::Claim { ident: "x".into(), address: claim }, Op::Claim("x".into(), taken));
    assert_eq!(refused(&mut world, request).kind, Kind::Conflict, "it is ours now, and still in use");
}

/// A mesh in which each of three hosts has given an address, and an observer that has given none.
fn three_owners_and_an_observer(seed: u64) -> (World, usize) {
    let mut world = World::new(seed);
    for _ in 0..3 {
        world.host(SUBNET, Init::Consensus(3));
    }
    let observer = world.host(SUBNET, Init::Observer);
    for host in 0..3 {
        given(&mut world, host, &format!("c{host}"));
    }
    world.run(seconds(5));
    (world, observer)
}

#[test]
fn who_was_met_before_a_restart_is_heard_before_the_space_of_the_dead_is_used() {
    let (mut world, observer) = three_owners_and_an_observer(23);
    // What host 2 gives it now, nobody else hears of.
    world.partition(|host| u8::from(host >= 2));
    world.run(seconds(2));
    given(&mut world, observer, "apart");
    world.bury(2);
    world.crash(0);
    world.start(0);
    world.run(seconds(3));
    let request = remove(&mut world, 0, 2, false);
    let sorry = refused(&mut world, request);
    let name = world.hosts[observer].name.to_string();
    assert!(sorry.text.contains("missing") && sorry.text.contains(&name), "{sorry:?}");
    world.partition(|_| 0);
    world.run(seconds(5));
    let request = remove(&mut world, 0, 2, false);
    assert!(matches!(answer(&mut world, request, 11), Ok(Answer::Taken(..))));
    for n in 0..100 {
        allocate(&mut world, n % 2, &format!("more{n}"));
    }
    world.run(seconds(10));
    assert!(world.answers["given"] > 100, "{:?}", world.answers);
}

#[test]
fn a_router_that_owns_nothing_and_is_gone_too_can_be_removed() {
    let (mut world, observer) = three_owners_and_an_observer(24);
    world.bury(observer);
    world.bury(2);
    world.run(seconds(2));
    let request = remove(&mut world, 0, 2, false);
    assert!(refused(&mut world, request).text.contains("remove them too"));
    let both = [remove(&mut world, 0, observer, false), remove(&mut world, 0, 2, false)];
    for request in both {
        assert!(answer(&mut world, request, 11).is_ok(), "{:?}", world.heard[&request]);
    }
    let again = remove(&mut world, 0, observer, false);
    assert_eq!(answer(&mut world, again, 1), Ok(Answer::Taken(0, world.hosts[0].name)), "twice is once");
    // It comes back, and is heard again.
    world.start(observer);
    given(&mut world, observer, "back");
}
