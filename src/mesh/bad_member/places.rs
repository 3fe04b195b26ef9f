//! What counts only where it comes from, or goes to, the right place.

use super::*;
use crate::mesh::doubts::Rebuff;
use crate::wire::control::Trace;

fn bytes_of(record: &Control<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.write(&mut bytes);
    bytes
}

#[test]
fn a_link_is_closed_from_where_it_leads_and_by_the_mesh_plane_alone() {
    let mut bad = Bad::new();
    let close = bytes_of(&Control::Close(CloseReason::Leaving, Vec::new()));
    bad.stage.sealed(Kind::ControlDirect, home(66), &close, &mut bad.out);
    bad.stage.sealed(Kind::ControlRelayed, home(2), &close, &mut bad.out);
    bad.stage.sealed_on(1, Kind::ControlDirect, home(2), &close, &mut bad.out);
    assert!(bad.linked());
    assert_eq!(bad.stage.router.counters.misplaced.get(), 1, "frames have the other lanes");
    bad.stage.sealed(Kind::ControlDirect, home(2), &close, &mut bad.out);
    assert!(!bad.linked());
}

#[test]
fn a_peer_is_where_it_was_asked_and_nowhere_else() {
    let mut bad = Bad::new();
    let (peer, now) = (bad.name(), bad.stage.now + Duration::from_millis(500));
    bad.stage.now = now;
    bad.stage.router.challenge(now, peer, home(50), &mut bad.out);
    let nonce = bad.stage.router.challenges.get(&peer).and_then(|all| all.first()).expect("it is asked").nonce;
    let response = bytes_of(&Control::Response(nonce));
    bad.stage.sealed(Kind::ControlDirect, home(66), &response, &mut bad.out);
    assert_eq!(bad.stage.router.adjacencies.get(&peer).map(|adjacency| adjacency.address), Some(home(2)));
    bad.stage.sealed(Kind::ControlDirect, home(50), &response, &mut bad.out);
    assert_eq!(bad.stage.router.adjacencies.get(&peer).map(|adjacency| adjacency.address), Some(home(50)));
}

#[test]
fn an_address_that_proved_nothing_gets_no_more_than_it_sent() {
    let mut bad = Bad::new();
    bad.stage.now = bad.stage.now + Duration::from_millis(500);
    bad.out.datagrams.clear();
    // The peer has fallen silent, so it would be asked whether it is there now; that takes more bytes than these.
    bad.stage.sealed(Kind::ControlDirect, home(66), &[], &mut bad.out);
    assert!(!bad.out.datagrams.iter().any(|(to, _)| *to == home(66)));
    bad.stage.sealed(Kind::ControlDirect, home(66), &bytes_of(&Control::Probe { nonce: 1, size: 9 }), &mut bad.out);
    assert!(bad.stage.router.challenges.values().flatten().any(|challenge| challenge.address == home(66)));
}

#[test]
fn nobody_is_sought_at_a_public_address_where_nothing_authenticates_him() {
    let mut bad = Bad::new();
    let (now, peer) = (bad.stage.now, bad.name());
    let public = Address::udp(([8, 8, 8, 8], 6783).into());
    bad.out.datagrams.clear();
    bad.stage.router.challenge(now, peer, public, &mut bad.out);
    assert!(bad.out.datagrams.is_empty() && !bad.stage.router.challenges.contains_key(&peer));
}

#[test]
fn nothing_goes_back_over_the_link_that_it_came_by() {
    let mut bad = Bad::new();
    let (now, neighbour) = (bad.stage.now, bad.name());
    bad.out.datagrams.clear();
    let header = Header { kind: Kind::ControlRelayed, hop_limit: 9, lane: 0, label: 0, destination: neighbour, index: 7, counter: 1 };
    bad.stage.router.handle_datagram(now, home(2), &mut header.to_bytes(), &mut bad.out);
    assert_eq!((bad.out.datagrams.len(), bad.stage.router.counters.relay_dropped.get()), (0, 1));
    bad.tell(&Control::Trace(Trace { probe: 1, destination: neighbour, left: 9 }));
    assert_eq!(bad.stage.router.ways.traces.remembered(), 0, "a question for it is not handed back to it");
}

#[test]
fn an_icmp_error_counts_where_it_quotes_what_was_sent_straight_to_the_peer() {
    let mut bad = Bad::new();
    let (now, destination) = (bad.stage.now, bad.name());
    let index = bad.stage.router.keyrings.get(&destination).and_then(|keys| keys.current()).expect("a session").remote_index();
    let quote = |kind, destination, index| Header { kind, hop_limit: 9, lane: 1, label: 0, destination, index, counter: 1 }.to_bytes();
    let other = PeerName([2, 0, 0, 0, 0, 9]);
    for quoted in [
        quote(Kind::DataRelayed, destination, index),
        quote(Kind::DataDirect, other, index),
        quote(Kind::DataDirect, destination, index ^ 1),
        [0; 16],
    ] {
        bad.stage.router.handle_rebuff(now, home(2), Rebuff::Unreachable, &quoted, &mut bad.out);
    }
    let counters = |bad: &Bad| (bad.stage.router.counters.rebuffs_ignored.get(), bad.stage.router.counters.rebuffs_heeded.get());
    assert_eq!(counters(&bad), (4, 0));
    bad.stage.router.handle_rebuff(now, home(2), Rebuff::Unreachable, &quote(Kind::DataDirect, destination, index), &mut bad.out);
    assert_eq!(counters(&bad), (4, 1));
}
