//! Answers for others' containers, and every reason for none.

use std::net::IpAddr;

use super::*;
use crate::forward::addresses::Known;
use crate::forward::fib::Route;
use crate::forward::testkit::arp;
use crate::mesh::command::Sighting;

const PLAIN: VnetHeader = VnetHeader { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 };

fn ip(n: u8) -> IpAddr {
    [10, 0, 0, n].into()
}

/// Two routers; the first knows that container 2 is at the second.
fn two() -> Mesh {
    let mesh = Mesh::line(Wiring::default());
    let shared = mesh.nodes[0].forwarder.shared();
    shared.macs.announce(0, mac(2), Some(name(1)), mesh.now);
    shared.addresses.set((0, ip(2)), Some(Known::There(mac(2), name(1))));
    mesh
}

/// Container 1 asks for an address; what its router sends and what it answers.
fn ask(mesh: &mut Mesh, frame: &[u8]) -> (usize, Vec<Vec<u8>>) {
    let before = mesh.sent.len();
    mesh.send(0, &PLAIN, frame);
    mesh.settle();
    (mesh.sent.len() - before, mesh.nodes[0].tap.take())
}

fn question() -> Vec<u8> {
    arp([0xff; 6], 1, mac(1), [10, 0, 0, 1], [10, 0, 0, 2])
}

#[test]
fn what_is_certain_is_answered_and_not_flooded() {
    let mut mesh = two();
    let (floods, answers) = ask(&mut mesh, &question());
    assert_eq!((floods, answers), (0, vec![arp(mac(1), 2, mac(2), [10, 0, 0, 2], [10, 0, 0, 1])]));
    assert_eq!((mesh.counters(0).arp_answered.get(), mesh.counters(0).flooded_multicast.get()), (1, 0));
    // Who asks has said where he is.
    let sighting = Sighting { place: (0, ip(1)), mac: mac(1), here: true };
    assert!(mesh.nodes[0].outbox.punts.contains(&Punt::Address(sighting)));
}

#[test]
fn what_is_not_certain_is_flooded_and_the_reason_counted() {
    let at = |n: usize| name(n);
    type Change = fn(&mut Mesh);
    let changes: [(&str, Change); 8] = [
        ("arp_flooded_unknown", |mesh| mesh.nodes[0].forwarder.shared().addresses.set((0, ip(2)), None)),
        ("arp_flooded_disputed", |mesh| mesh.nodes[0].forwarder.shared().addresses.set((0, ip(2)), Some(Known::Disputed))),
        ("arp_flooded_here", |mesh| {
            let here = Known::Here(mac(2), mesh.now);
            mesh.nodes[0].forwarder.shared().addresses.set((0, ip(2)), Some(here));
        }),
        ("arp_flooded_unreachable", |mesh| mesh.nodes[0].forwarder.shared().macs.announce(0, mac(2), None, mesh.now)),
        ("arp_flooded_unreachable", |mesh| {
            mesh.nodes[0].forwarder.shared().macs.learn_local(0, mac(2), mesh.now + std::time::Duration::from_secs(3));
        }),
        ("arp_flooded_unreachable", |mesh| {
            let mut fib = mesh.fib(0, true);
            fib.peers.values_mut().for_each(|peer| peer.route = Route::Unreachable);
            mesh.set_fib(0, fib);
        }),
        ("arp_flooded_unreachable", |mesh| {
            let mut fib = mesh.fib(0, true);
            fib.peers.remove(&name(1));
            mesh.set_fib(0, fib);
        }),
        ("arp_flooded_disputed", |mesh| {
            let mut fib = mesh.fib(0, true);
            fib.looped_with = vec![name(1)];
            mesh.set_fib(0, fib);
        }),
    ];
    assert_eq!(at(1), name(1));
    for (counter, change) in changes {
        let mut mesh = two();
        change(&mut mesh);
        let (floods, answers) = ask(&mut mesh, &question());
        assert_eq!((floods, answers.len()), (1, 0), "{counter}");
        let readings = mesh.counters(0).read();
        let count = |name: &str| readings.iter().find(|reading| reading.name == name).map(|reading| reading.value);
        assert_eq!((count(counter), count("arp_answered")), (Some(1), Some(0)), "{counter}");
    }
}

#[test]
fn probes_announcements_and_questions_to_one_are_never_answered() {
    let mut mesh = two();
    let (one, two_) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    for frame in [
        arp([0xff; 6], 1, mac(1), [0; 4], two_),
        arp([0xff; 6], 1, mac(1), two_, two_),
        arp([0xff; 6], 2, mac(1), one, one),
        arp(mac(2), 1, mac(1), one, two_),
    ] {
        let (sent, answers) = ask(&mut mesh, &frame);
        assert_eq!((sent, answers.len()), (1, 0), "{frame:02x?}");
    }
    assert_eq!(mesh.counters(0).arp_flooded_no_question.get(), 3);
    let punts = &mesh.nodes[0].outbox.punts;
    let taken = Sighting { place: (0, ip(2)), mac: mac(1), here: true };
    assert!(punts.contains(&Punt::Address(taken)), "somebody here says that the address is his: {punts:?}");
}

#[test]
fn a_frame_from_elsewhere_that_says_otherwise_is_told() {
    let mut mesh = two();
    let told = |mesh: &mut Mesh| {
        let punts = std::mem::take(&mut mesh.nodes[0].outbox.punts);
        punts.into_iter().filter(|punt| matches!(punt, Punt::Address(_))).collect::<Vec<_>>()
    };
    mesh.send(1, &PLAIN, &arp([0xff; 6], 1, mac(2), [10, 0, 0, 2], [10, 0, 0, 9]));
    mesh.settle();
    assert_eq!(told(&mut mesh), [], "the same is no news");
    mesh.send(1, &PLAIN, &arp([0xff; 6], 1, mac(3), [10, 0, 0, 2], [10, 0, 0, 9]));
    mesh.settle();
    let sighting = Sighting { place: (0, ip(2)), mac: mac(3), here: false };
    assert_eq!(told(&mut mesh), [Punt::Address(sighting)]);
    // From our own bridge too, though its sender speaks of another.
    let mut forged = arp([0xff; 6], 2, mac(4), [10, 0, 0, 2], [10, 0, 0, 9]);
    forged[6..12].copy_from_slice(&mac(1));
    mesh.send(0, &PLAIN, &forged);
    let sighting = Sighting { place: (0, ip(2)), mac: mac(4), here: false };
    assert_eq!(told(&mut mesh), [Punt::Address(sighting)]);
    for n in 0..2000u32 {
        mesh.send(0, &PLAIN, &arp([0xff; 6], 2, mac(1), (0x0a01_0000 + n).to_be_bytes(), [10, 0, 0, 9]));
        mesh.settle();
        mesh.nodes[0].outbox.punts.clear();
    }
    assert_eq!(mesh.counters(0).sightings_over_rate.get(), 1002, "a host that invents addresses");
}

#[test]
fn switched_off_all_is_flooded() {
    let mut mesh = two();
    mesh.nodes[0].forwarder.state.settings.arp_proxy = false;
    let (floods, answers) = ask(&mut mesh, &question());
    assert_eq!((floods, answers.len(), mesh.counters(0).arp_answered.get()), (1, 0, 0));
    assert!(!mesh.nodes[0].outbox.punts.iter().any(|punt| matches!(punt, Punt::Address(_))));
}
