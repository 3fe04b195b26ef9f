//! Hosts that are reset, lose the owner of everything, or come back with other options or keys: what Weave's tests 330 to 390 prove.

use std::sync::Arc;

use weave_router::crypto::Identity;
use weave_router::ipam::{Answer, Init, Kind, OwnerStatus, Request, Status};

use super::stories::{SUBNET, allocate, answer, given, mesh, problems, refused, remove, seconds, world};
use super::world::{Op, World, range};

fn status(world: &World, host: usize) -> Status {
    world.hosts[host].ipam.as_ref().expect("it runs").status()
}

fn owned(owners: &[OwnerStatus]) -> u128 {
    owners.iter().map(|owner| owner.owned).sum()
}

/// Hosts that are all told the same list of seeds: the first of them alone.
fn seeded(seed: u64, hosts: usize) -> World {
    let mut names = World::new(seed);
    let first = names.host(SUBNET, Init::Observer);
    let seeds = vec![names.hosts[first].name];
    let mut world = World::new(seed);
    for _ in 0..hosts {
        world.host(SUBNET, Init::Seed(seeds.clone()));
    }
    world
}

#[test]
fn a_rolling_reset_leaves_the_mesh_its_whole_range() {
    let mut world = world(61, 3);
    for host in 0..3 {
        given(&mut world, host, &format!("c{host}"));
    }
    world.run(seconds(3));
    let founded = mesh(&world, 0);
    for host in 0..3 {
        let idents: Vec<String> = world.hosts[host].containers.keys().cloned().collect();
        idents.iter().for_each(|ident| world.free(host, ident));
        let request = world.request(host, Request::Reset { force: false }, Op::Reset);
        assert!(matches!(answer(&mut world, request, 10), Ok(Answer::Taken(size, _)) if size > 0), "host {host}");
        world.crash(host);
        world.wipe(host);
        world.run(seconds(1));
        world.start(host);
        world.run(seconds(5));
        given(&mut world, host, &format!("new{host}"));
    }
    world.run(seconds(5));
    for host in 0..3 {
        assert_eq!((mesh(&world, host), problems(&world, host)), (founded.clone(), Vec::new()));
        assert_eq!(owned(&status(&world, host).owners), 256);
    }
}

#[test]
fn where_the_owner_of_everything_is_dead_the_others_take_it_by_force_and_give_at_once() {
    let mut world = seeded(62, 3);
    given(&mut world, 0, "c");
    world.run(seconds(10));
    world.bury(0);
    world.run(seconds(2));
    let request = remove(&mut world, 1, 0, false);
    assert!(refused(&mut world, request).text.contains("--force"), "nobody else owns anything, so nobody has a vote");
    let request = remove(&mut world, 1, 0, true);
    assert_eq!(answer(&mut world, request, 1), Ok(Answer::Taken(256, world.hosts[1].name)));
    world.run(seconds(1));
    assert_eq!(
        status(&world, 2).owners.iter().map(|owner| owner.peer).collect::<Vec<_>>(),
        [world.hosts[1].name],
        "the third hears at once"
    );
    for host in [1, 2] {
        let request = allocate(&mut world, host, "after");
        assert!(answer(&mut world, request, 5).is_ok(), "host {host} within five seconds");
    }
}

#[test]
fn lists_of_seeds_that_differ_make_meshes_that_are_told_apart() {
    let mut names = World::new(63);
    let hosts: Vec<usize> = (0..2).map(|_| names.host(SUBNET, Init::Observer)).collect();
    let seeds: Vec<_> = hosts.into_iter().map(|host| names.hosts[host].name).collect();
    let mut world = World::new(63);
    world.strict = false;
    world.host(SUBNET, Init::Seed(seeds.clone()));
    world.host(SUBNET, Init::Seed(seeds[1..].to_vec()));
    world.run(seconds(10));
    assert_ne!(mesh(&world, 0), mesh(&world, 1));
    for host in 0..2 {
        assert!(problems(&world, host).iter().any(|problem| problem.contains("founded apart")), "{:?}", problems(&world, host));
    }
    // What both lists give away is given by neither; the rest is.
    let request = allocate(&mut world, 0, "c");
    assert!(refused(&mut world, request).text.contains("disputed"));
    given(&mut world, 1, "c");
}

#[test]
fn another_range_over_a_restart_is_refused_in_words_and_the_former_brings_all_back() {
    let mut world = world(64, 1);
    let before = given(&mut world, 0, "c");
    let config = world.hosts[0].config.clone();
    world.crash(0);
    world.hosts[0].config.ranges = vec![range("10.64.0.0/24")];
    world.hosts[0].config.subnets = vec!["10.64.0.0/24".parse().expect("a subnet")];
    world.start(0);
    let request = allocate(&mut world, 0, "d");
    let sorry = refused(&mut world, request);
    assert!(sorry.text.contains("10.32.0.0-10.32.0.255") && sorry.text.contains("not what --ipalloc-range says"), "{sorry:?}");
    assert_eq!(sorry.kind, Kind::Unavailable);
    world.crash(0);
    world.hosts[0].config = config;
    world.start(0);
    assert_eq!(given(&mut world, 0, "c"), before);
}

#[test]
fn a_host_with_a_new_identity_claims_nothing_of_what_it_was() {
    let mut world = world(65, 3);
    for host in 0..3 {
        given(&mut world, host, &format!("c{host}"));
    }
    world.run(seconds(3));
    let former = world.hosts[2].name;
    world.bury(2);
    world.run(seconds(2));
    world.hosts[2].identity = Arc::new(Identity::from_seed(&[99; 32]));
    world.hosts[2].name = world.hosts[2].identity.name();
    world.start(2);
    for n in 0..20 {
        given(&mut world, 2, &format!("new{n}"));
    }
    let request = world.request(0, Request::Remove { dead: former, force: false }, Op::Remove);
    assert!(matches!(answer(&mut world, request, 11), Ok(Answer::Taken(size, _)) if size >= 64), "{:?}", world.heard.get(&request));
    world.run(seconds(5));
    assert!(status(&world, 1).owners.iter().all(|owner| owner.peer != former));
    assert_eq!(owned(&status(&world, 1).owners), 256);
}

#[test]
fn a_newcomer_to_a_mesh_of_many_gives_an_address_in_time() {
    let mut world = world(78, 100);
    given(&mut world, 0, "c");
    world.run(seconds(30));
    // Nothing happens there, so that nobody says anything new; to ask all one by one would take longer than a request may, but all of them ask, too.
    let newcomer = world.host(SUBNET, Init::Consensus(100));
    given(&mut world, newcomer, "d");
}
