use std::sync::Arc;

use super::*;
use crate::mesh::adjacency::{Adjacency, Role};
use crate::mesh::fuzz::{home, router_with};
use crate::mesh::keyring::Keyring;
use crate::wire::control::Link;

const NOW: Time = Time(100_000_000_000);
const LIMIT: usize = 16;

fn name(n: usize) -> PeerName {
    let [.., a, b, c] = n.to_be_bytes();
    PeerName([2, 9, 9, a, b, c])
}

/// A port of host `n`.
fn at(n: u8, port: usize) -> Address {
    Address::udp(([10, 7, 0, n], port as u16 + 1).into())
}

fn mesh() -> Mesh {
    let mut mesh = router_with(1, |config| config.conn_limit = LIMIT);
    mesh.handle_timeout(NOW, &mut Outbox::default());
    mesh
}

/// Router `n` has proven to be at this address and wants a link. True where it has one then.
fn wants(mesh: &mut Mesh, n: usize, address: Address, only: bool) -> bool {
    mesh.adjacencies.insert(name(n), Adjacency::new(NOW, address, Role::Path, false));
    mesh.on_link(NOW, name(n), address, Link { answer: false, only }, &mut Outbox::default());
    mesh.adjacencies.get(&name(n)).is_some_and(Adjacency::is_link)
}

#[test]
fn routers_that_one_host_makes_up_leave_room_to_others() {
    let mut mesh = mesh();
    for n in 0..500 {
        wants(&mut mesh, n, at(66, n), n % 2 == 0);
    }
    assert_eq!(mesh.link_count(), MOST_PER_HOST, "as many as a NAT may hide");
    // Newcomers that need no link are taken up to the limit all the same, those that do beyond it.
    let taken = (1000..1100).filter(|n| wants(&mut mesh, *n, at((n % 50) as u8, *n), false)).count();
    assert_eq!(taken, LIMIT - LIMIT / PARTS);
    assert!(wants(&mut mesh, 2000, at(99, 1), true));
    let all = (3000..9000).filter(|n| wants(&mut mesh, *n, at((n % 250) as u8, *n), true)).count();
    assert!(mesh.link_count() <= LIMIT + MOST_BEYOND && all > 100, "{} {all}", mesh.link_count());
}

#[test]
fn many_routers_behind_one_nat_have_all_of_a_limit_that_nobody_else_wants() {
    let mut mesh = mesh();
    assert_eq!((0..40).filter(|n| wants(&mut mesh, *n, at(66, *n), false)).count(), LIMIT);
    assert!((100..130).all(|n| wants(&mut mesh, n, at(66, n), true)), "and beyond it where they need it");
}

#[test]
fn small_limits_are_not_divided() {
    let mut mesh = router_with(1, |config| config.conn_limit = 4);
    mesh.handle_timeout(NOW, &mut Outbox::default());
    assert_eq!((0..40).filter(|n| wants(&mut mesh, *n, at(66, *n), false)).count(), 4);
    assert!(!wants(&mut mesh, 100, at(1, 1), false));
}

#[test]
fn links_that_stand_beside_the_limit_cost_nobody_theirs() {
    let mut mesh = mesh();
    let links = |mesh: &mut Mesh, n: usize, address| mesh.adjacencies.insert(name(n), Adjacency::new(NOW, address, Role::Link, false));
    (0..40).for_each(|n| links(&mut mesh, n, at(66, n)));
    (100..112).for_each(|n| links(&mut mesh, n, at(n as u8, 1)));
    let spare: Vec<(PeerName, Address)> = mesh.adjacencies.iter().map(|(name, adjacency)| (*name, adjacency.address)).collect();
    let (order, crowd, most) = mesh.crowd_first(spare.clone());
    assert_eq!((order.len(), crowd, most), (52, 40, 0));
    assert!(order[..40].iter().all(|(_, address)| host(*address) == host(at(66, 0))));
    (112..116).for_each(|n| links(&mut mesh, n, at(n as u8, 1)));
    assert_eq!(mesh.crowd_first(spare).2, 4);
}

#[test]
fn a_host_with_sessions_without_end_makes_room_for_others_by_its_own() {
    let mut mesh = mesh();
    let session = || {
        let (a, _) =
            crate::crypto::Session::pair_for_tests(PeerName([2; 6]), PeerName([4; 6]), crate::crypto::Suite::ChaCha20Poly1305, 0, false);
        let mut keys = Keyring::default();
        keys.install(NOW, Arc::clone(&a), true);
        keys
    };
    // Honest ones, half of them through relays.
    for n in 0..20 {
        mesh.keyrings.insert(name(n), session());
        if n % 2 == 0 {
            mesh.adjacencies.insert(name(n), Adjacency::new(NOW, home(n as u8 + 10), Role::Path, false));
        }
    }
    let mut out = Outbox::default();
    for n in 100..MOST_MEMBERS + 200 {
        mesh.make_session_room(NOW, name(n), &mut out);
        mesh.keyrings.insert(name(n), session());
        mesh.adjacencies.insert(name(n), Adjacency::new(NOW, at(66, n), Role::Path, false));
    }
    assert_eq!(mesh.keyrings.len(), MOST_MEMBERS);
    assert!((0..20).all(|n| mesh.keyrings.contains_key(&name(n))), "nobody else lost his");
}
