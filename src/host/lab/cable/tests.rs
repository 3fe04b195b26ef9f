//! They need root and skip without it.

use std::time::Duration;

use super::*;
use crate::host::lab::clock::{Stopwatch, wait_until};
use crate::host::lab::tests::lab_or_skip;
use crate::host::lab::traffic::{Bulk, Echo, Ends, echo, echo_once, tcp_throughput};

/// The longest packet of a cable without offloads: its MTU and an Ethernet header.
const LONGEST: u64 = 1514;

fn two_hosts(lab: &mut Lab) {
    lab.host("h1").expect("a host");
    lab.host("h2").expect("a host");
}

/// Sends bulk data and answers with the mean length of the packets that arrived.
fn mean_length(wire: &Wire) -> u64 {
    let ends = Ends::new(&wire.a.namespace, &wire.b.namespace, wire.b.ip);
    let before = Received::at(&wire.b).expect("counters");
    let sent = tcp_throughput(ends, Bulk::ordinary(Duration::from_millis(200))).expect("TCP");
    let after = Received::at(&wire.b).expect("counters");
    assert!(after.bytes - before.bytes >= sent.bytes, "{before:?} {after:?} {sent:?}");
    (after.bytes - before.bytes) / (after.packets - before.packets)
}

#[test]
fn a_cable_without_offloads_carries_datagrams_of_its_mtu() {
    let Some(mut lab) = lab_or_skip("wrc") else { return };
    two_hosts(&mut lab);
    let wire = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
    let whole = mean_length(&wire);
    assert!(whole > LONGEST, "super frames cross a veth pair whole, else this test shows nothing: {whole}");
    lab.without_offloads(&wire).expect("offloads are off");
    let cut = mean_length(&wire);
    assert!(cut <= LONGEST, "{cut}");
    assert!(Received::at(&WireEnd { interface: "none".into(), ..wire.a }).is_err());
}

#[test]
fn what_arrives_is_lost_in_the_share_asked_for() {
    let Some(mut lab) = lab_or_skip("wrc") else { return };
    two_hosts(&mut lab);
    let wire = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
    match lab.lose(&wire.b, 50) {
        Err(HostError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return eprintln!("skipped: no nft"),
        done => done.expect("a rule"),
    }
    let service = Echo::start(&wire.b.namespace, wire.b.ip).expect("an echo service");
    // Until the neighbours know each other, losses are of another kind.
    assert!(wait_until(Duration::from_secs(5), || {
        echo_once(&wire.a.namespace, service.address(), 100, Duration::from_millis(50)).is_ok_and(|trip| trip.is_some())
    }));
    let patience = Duration::from_millis(20);
    let trips = echo(&wire.a.namespace, service.address(), 100, 200, Duration::ZERO, patience).expect("echoes");
    // Half of 200, give or take five standard deviations of 7.
    assert!((65..=135).contains(&trips.lost()), "{} of 200 lost", trips.lost());
}

#[test]
fn a_long_cable_takes_its_time_and_loses_nothing() {
    let Some(mut lab) = lab_or_skip("wrc") else { return };
    two_hosts(&mut lab);
    let delay = Duration::from_millis(10);
    let far = lab.far_wire("h1", "h2", "10.9.1.0/24", delay, None).expect("a long cable");
    let (from, end) = (&far.wire.a.namespace.clone(), &far.wire.b.clone());
    let service = Echo::start(&end.namespace, end.ip).expect("an echo service");
    let once = || echo_once(from, service.address(), 100, Duration::from_secs(1)).expect("sent");
    assert!(wait_until(Duration::from_secs(5), || once().is_some()));
    let trip = once().expect("an echo");
    assert!(trip >= 2 * delay, "{trip:?}");
    let whole = mean_length(&far.wire);
    assert!(whole > LONGEST, "super frames pass whole: {whole}");
    assert_eq!(far.dropped(), 0);
    let clock = Stopwatch::start();
    drop(far);
    assert!(clock.elapsed() < Duration::from_secs(5), "the thread ends");
    assert_eq!(once(), None, "the cable is gone");
}

#[test]
fn a_slow_long_cable_takes_the_time_of_its_rate_too() {
    let Some(mut lab) = lab_or_skip("wrc") else { return };
    two_hosts(&mut lab);
    let (delay, rate) = (Duration::from_millis(5), 1_000_000);
    let far = lab.far_wire("h1", "h2", "10.9.1.0/24", delay, Some(rate)).expect("a long cable");
    let service = Echo::start(&far.wire.b.namespace, far.wire.b.ip).expect("an echo service");
    let once = || echo_once(&far.wire.a.namespace, service.address(), 1000, Duration::from_secs(1)).expect("sent");
    assert!(wait_until(Duration::from_secs(5), || once().is_some()));
    // 8 ms for 1000 bytes at 1 Mbit/s, each way.
    let trip = once().expect("an echo");
    assert!(trip >= 2 * (delay + Duration::from_millis(8)), "{trip:?}");
}
