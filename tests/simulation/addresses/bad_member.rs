//! A member gone bad that says whatever is valid, and other things to each of the others.

use std::time::Duration;

use weave_router::crypto::{Signatures, SimulatedSignatures};
use weave_router::ipam::ring::{MOST_OF_ONE, MOST_TO_TAKE};
use weave_router::ipam::{Answer, Init, Ipam, Request};
use weave_router::wire::PeerName;
use weave_router::wire::ipam::{Body, Entry, Message, Range, address};

use super::stories::{SUBNET, answer, given, problems, remove, seconds, world};
use super::world::{Op, World};

/// Entries that fit one message.
const IN_ONE: usize = 6;

fn ipam(world: &World, host: usize) -> &Ipam {
    world.hosts[host].ipam.as_ref().expect("it runs")
}

/// Has `liar` say votes on routers that nobody knows.
fn flood(world: &mut World, liar: usize, to: usize, numbers: std::ops::Range<usize>) {
    let (identity, mesh) = (world.hosts[liar].identity.clone(), ipam(world, to).ring().expect("a ring").mesh());
    let key = identity.public().key;
    let vote = |n: usize| {
        let body = Body::Vote { dead: PeerName([2, 7, 7, 7, (n >> 8) as u8, n as u8]), round: 1, taker: key, owners: 1 };
        let sign = |bytes: &[u8]| SimulatedSignatures.sign(&identity, "weave-router ipam v1 test", bytes);
        Entry::build(mesh, &key, &body, sign).expect("an entry")
    };
    let all: Vec<Entry> = numbers.map(vote).collect();
    for some in all.chunks(IN_ONE) {
        world.say(liar, to, Message::Entries(some.to_vec()).to_bytes(mesh));
    }
}

#[test]
fn a_bad_member_fills_its_own_share_of_the_ring_and_the_others_go_on() {
    let mut world = world(60, 5);
    let (honest, liar) = ([0, 1, 2, 3], 4);
    for host in 0..5 {
        given(&mut world, host, &format!("first{host}"));
    }
    world.run(seconds(5));
    let before = ipam(&world, 0).status().entries;
    for host in honest {
        let from = if host < 2 { 0 } else { 2000 };
        flood(&mut world, liar, host, from..from + MOST_OF_ONE + 300);
    }
    world.run(seconds(60));
    for host in honest {
        let (ipam, problems) = (ipam(&world, host), problems(&world, host));
        assert!(ipam.status().entries <= before + MOST_OF_ONE, "{} on host {host}", ipam.status().entries);
        assert!(ipam.counters().entries_over_budget.get() > 0, "host {host}");
        assert!(problems.len() == 1 && problems[0].contains("which no honest router does"), "{problems:?}");
        assert_eq!(ipam.ring().map(|ring| ring.sum()), self::ipam(&world, 0).ring().map(|ring| ring.sum()), "host {host} is in step");
    }
    assert!(world.reports.keys().any(|said| said.contains("which no honest router does")), "{:?}", world.reports);
    assert!(world.reports.keys().any(|said| said.contains("as many entries as one router may")), "{:?}", world.reports);
    // Space goes from one to another as before.
    for n in 0..90 {
        given(&mut world, 0, &format!("more{n}"));
    }
    // Who comes now learns all that the others know, and is given space.
    let newcomer = world.host(SUBNET, Init::Consensus(5));
    let request = world.request(newcomer, Request::Prime, Op::Remove);
    answer(&mut world, request, 10).expect("a ring");
    world.run(seconds(60));
    given(&mut world, newcomer, "new");
    world.run(seconds(5));
    assert_eq!(ipam(&world, newcomer).ring().map(|ring| ring.sum()), ipam(&world, 0).ring().map(|ring| ring.sum()));
    // And the dead are removed.
    world.bury(3);
    world.run(Duration::from_secs(2));
    let request = remove(&mut world, 1, 3, false);
    assert!(matches!(answer(&mut world, request, 11), Ok(Answer::Taken(count, _)) if count > 0), "{:?}", world.heard.get(&request));
}

#[test]
fn who_asks_for_every_address_by_itself_is_given_so_many_and_no_more() {
    let mut world = World::new(61);
    for _ in 0..3 {
        world.host("10.32.0.0/16", Init::Consensus(3));
    }
    for host in 0..3 {
        given(&mut world, host, &format!("first{host}"));
    }
    world.run(seconds(5));
    let ring = ipam(&world, 0).ring().expect("a ring");
    let (mesh, owner) = (ring.mesh(), world.hosts[0].name);
    let (run, _) = ring.leaves().iter().find(|(_, leaf)| leaf.owner.name() == owner).expect("it owns something");
    for n in 0..MOST_TO_TAKE as u128 + 200 {
        let one = run.first + 100 + n;
        let range = Range { first: one, last: one };
        world.say(2, 0, Message::Ask { request: 7000 + n as u64, range, exact: true }.to_bytes(mesh));
        world.run(Duration::from_millis(20));
    }
    world.run(seconds(10));
    let (book, greedy) = (ipam(&world, 0), world.hosts[2].identity.public().key);
    assert_eq!(book.ring().map(|ring| ring.grants_to(&greedy)), Some(MOST_TO_TAKE));
    assert!(book.counters().asks_over_budget.get() >= 100);
    assert!(world.reports.keys().any(|said| said.contains("gets no more")), "{:?}", world.reports);
    // Others are given what they ask for.
    let wanted = run.first + 50;
    let claim = Request::Claim { ident: "mine".to_string(), address: ipnet::IpNet::new(address(wanted), 16).expect("an address") };
    let request = world.request(1, claim, Op::Claim("mine".to_string(), wanted));
    assert_eq!(answer(&mut world, request, 10), Ok(Answer::Done));
}
