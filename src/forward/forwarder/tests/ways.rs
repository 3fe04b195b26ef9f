//! Which way frames take: flows are shared among equal next hops and never split, and others stand in for what is down.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::*;
use crate::forward::Hops;

/// Router 1 of a line of three, with both neighbours as equal next hops to each other's host.
fn middle() -> Mesh {
    let mut mesh = line(three());
    let mut fib = mesh.fib(1, true);
    fib.peers.get_mut(&name(2)).expect("known").route = Route::Via(Hops::of([0, 1].into_iter(), None).expect("two"));
    mesh.set_fib(1, fib);
    mesh
}

/// Sends a frame of each of 64 flows from router 1 to container 3; the address that each went to.
fn flows(mesh: &mut Mesh) -> Vec<Address> {
    let mut went = Vec::new();
    for flow in 0..64 {
        let mut frame = Recipe { source: 2, destination: 3, ..Recipe::default() }.frame();
        frame[34] = flow;
        mesh.send(1, &VnetHeader::default(), &frame);
        went.extend(mesh.nodes[1].outbox.runs().map(|(to, _, _)| to));
        mesh.nodes[1].outbox.clear();
    }
    assert_eq!(went.len(), 64);
    went
}

#[test]
fn equal_hops_share_flows_and_split_none() {
    let mut mesh = middle();
    let went = flows(&mut mesh);
    assert_eq!(went, flows(&mut mesh), "each flow keeps its way");
    let mut shares: BTreeMap<Address, usize> = BTreeMap::new();
    went.iter().for_each(|to| *shares.entry(*to).or_default() += 1);
    assert!(shares.len() == 2 && shares.values().all(|share| *share >= 16), "{shares:?}");
    // Only the flows of the hop that is down move.
    mesh.nodes[1].forwarder.fib().links[0].doubted.store(true, Ordering::Relaxed);
    assert!(flows(&mut mesh).iter().all(|to| *to == address(2)));
    mesh.nodes[1].forwarder.fib().links[0].doubted.store(false, Ordering::Relaxed);
    assert_eq!(went, flows(&mut mesh));
}

#[test]
fn labels_are_shared_evenly_by_every_router_and_not_in_the_same_way() {
    let shares = |n: usize, hops: u16| {
        let mesh = Mesh::line(three());
        let mut fib = mesh.fib(1, true);
        fib.own = PeerName::from_u64(0x7a00_0000_0000 | (n as u64 * 0x9e37));
        fib.links.extend(mesh.fib(1, true).links);
        let hops = Hops::of(0..hops, None).expect("some");
        let taken = |label: u8| fib.links.iter().position(|link| std::ptr::eq(link, fib.next_hop(&hops, label, None).expect("up")));
        (0..16).map(taken).map(|taken| taken.expect("a link")).collect::<Vec<_>>()
    };
    let mut ways = Vec::new();
    for n in 0..32 {
        for hops in [2u16, 3, 4] {
            let taken = shares(n, hops);
            for hop in 0..usize::from(hops) {
                let share = taken.iter().filter(|other| **other == hop).count();
                assert!(share >= 16 / usize::from(hops), "router {n}, {hops} hops: {taken:?}");
            }
            ways.push(taken);
        }
    }
    ways.sort_unstable();
    ways.dedup();
    assert!(ways.len() > 20, "routers that all shuffle alike leave hops behind them idle: {}", ways.len());
}

#[test]
fn a_relay_keeps_flows_together_and_sends_nothing_back() {
    let mut mesh = middle();
    let mut fib = mesh.fib(0, true);
    fib.peers.get_mut(&name(2)).expect("known").route = Route::Via(Hops::new(0, None));
    mesh.set_fib(0, fib);
    for flow in 0..16 {
        let mut frame = Recipe { source: 1, destination: 3, ..Recipe::default() }.frame();
        frame[34] = flow;
        mesh.send(0, &VnetHeader::default(), &frame);
    }
    mesh.settle();
    assert_eq!(mesh.nodes[2].tap.take().len(), 16, "router 1 would have sent some back to router 0 as an equal hop");
    assert_eq!(drops(&mesh), []);
}

#[test]
fn what_the_kernel_cannot_send_to_goes_round_at_once_and_comes_back() {
    let mut mesh = line(three());
    let mut fib = mesh.fib(1, true);
    let peer = fib.peers.get_mut(&name(2)).expect("known");
    peer.fallback = Some(Hops::new(0, None));
    mesh.set_fib(1, fib);
    assert!(flows(&mut mesh).iter().all(|to| *to == address(2)));
    let fib = mesh.nodes[1].forwarder.fib().clone();
    assert!(fib.doubt(address(2)) && !fib.doubt(address(2)), "it is news once");
    assert!(!fib.doubt(Address::udp(([9, 9, 9, 9], 9).into())), "nobody is there");
    assert!(flows(&mut mesh).iter().all(|to| *to == address(0)), "the neighbour stands in");
    // It proves to be alive.
    fib.links[1].doubted.store(false, Ordering::Relaxed);
    assert!(flows(&mut mesh).iter().all(|to| *to == address(2)));
    // The interface that leads there goes down, and the one that leads to the neighbour does not.
    fib.doubt_where(|to| to == address(2));
    assert!(flows(&mut mesh).iter().all(|to| *to == address(0)), "the neighbour stands in");
    fib.links[1].doubted.store(false, Ordering::Relaxed);
    assert!(!fib.links[0].doubted.load(Ordering::Relaxed));
    // Where nobody can stand in, a path that is feared to be dead is still the best there is.
    let fib = mesh.fib(1, true);
    mesh.set_fib(1, fib);
    assert!(mesh.nodes[1].forwarder.fib().doubt(address(2)));
    assert!(flows(&mut mesh).iter().all(|to| *to == address(2)));
}

#[test]
fn a_router_that_may_not_passes_nothing_on() {
    let mut mesh = line(three());
    let mut fib = mesh.fib(1, true);
    fib.forwarding = false;
    mesh.set_fib(1, fib);
    let recipe = Recipe { destination: 3, ..Recipe::default() };
    mesh.send(0, &recipe.vnet(0), &recipe.frame());
    mesh.send(0, &VnetHeader::default(), &broadcast(1));
    mesh.settle();
    assert_eq!(mesh.nodes[1].tap.take(), [broadcast(1)], "its own containers get what is for them");
    assert!(mesh.nodes[2].tap.frames.is_empty());
    assert_eq!(drops(&mesh), [(1, "drop_relay_forbidden", 2)]);
}
