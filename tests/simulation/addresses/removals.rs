//! Routers that are gone for good, in meshes of many owners.

use std::collections::BTreeSet;

use weave_router::ipam::{Answer, Init, Status};
use weave_router::wire::PeerName;

use super::stories::{answer, given, remove, seconds};
use super::world::World;

const HOSTS: usize = 100;

fn status(world: &World, host: usize) -> Status {
    world.hosts[host].ipam.as_ref().expect("it runs").status()
}

fn owners(world: &World, host: usize) -> BTreeSet<PeerName> {
    status(world, host).owners.iter().map(|owner| owner.peer).collect()
}

/// A hundred owners.
fn many(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..HOSTS {
        world.host("10.32.0.0/20", Init::Consensus(100));
    }
    world.run(seconds(3));
    for host in 0..HOSTS {
        given(&mut world, host, &format!("c{host}"));
    }
    world.run(seconds(30));
    assert_eq!(owners(&world, 0).len(), HOSTS);
    world
}

#[test]
fn a_hundred_owners_remove_a_dead_one_with_hardly_more_votes_than_it_takes() {
    let mut world = many(25);
    world.bury(50);
    world.run(seconds(2));
    let before = status(&world, 0).entries;
    let request = remove(&mut world, 0, 50, false);
    assert!(matches!(answer(&mut world, request, 11), Ok(Answer::Taken(..))), "{:?}", world.heard[&request]);
    world.run(seconds(10));
    assert!(!owners(&world, 99).contains(&world.hosts[50].name));
    // 51 votes, and four that were asked beside them; two tallies, the removal, what was taken, and the end.
    let cost = status(&world, 99).entries - before;
    assert!((51 + 4..=51 + 4 + 10).contains(&cost), "{cost} entries");
}

#[test]
fn owners_that_are_away_are_not_waited_for_by_those_who_vote() {
    let mut world = many(26);
    world.bury(50);
    // They come back, so that nobody takes them for dead; until then theirs are no votes.
    (60..95).for_each(|host| world.crash(host));
    world.run(seconds(2));
    let request = remove(&mut world, 0, 50, false);
    let sorry = answer(&mut world, request, 11).expect_err("some have not heard");
    assert!(sorry.text.contains("is removed; its space is used as soon as all routers have heard"), "{sorry:?}");
    (60..95).for_each(|host| world.start(host));
    let request = remove(&mut world, 0, 50, false);
    assert!(answer(&mut world, request, 11).is_ok(), "{:?}", world.heard[&request]);
}

#[test]
fn two_of_a_hundred_owners_remove_a_dead_one_at_once() {
    let mut world = many(27);
    world.bury(50);
    world.run(seconds(2));
    let asked = [remove(&mut world, 3, 50, false), remove(&mut world, 97, 50, false)];
    for request in asked {
        assert!(answer(&mut world, request, 11).is_ok(), "{:?}", world.heard[&request]);
    }
    world.run(seconds(10));
    assert!((0..HOSTS).filter(|host| *host != 50).all(|host| !owners(&world, host).contains(&world.hosts[50].name)));
}
