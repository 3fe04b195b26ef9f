//! They need root and skip without it.

use std::time::Duration;

use super::clock::wait_until;
use super::traffic::{Bulk, Echo, Ends, echo_once, tcp_ping_pong, tcp_ping_pong_beside, tcp_throughput, udp_rate};
use super::*;

/// A laboratory, or `None` with a printed reason where this process may not have one.
pub(crate) fn lab_or_skip(prefix: &str) -> Option<Lab> {
    match Lab::new(prefix) {
        Ok(lab) => Some(lab),
        Err(HostError::Permission { attempted }) => {
            eprintln!("skipped: needs root to {attempted}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn mine(tag: &str) -> Vec<String> {
    netns::names().into_iter().filter(|n| n.starts_with(tag)).collect()
}

/// A line of three hosts whose first and last hold a container; no router, so the middle forwards nothing.
fn line(lab: &mut Lab) -> (Wire, Wire) {
    for host in ["h1", "h2", "h3"] {
        lab.host(host).expect("a host");
        lab.bridge(host, BRIDGE, Some(1420)).expect("a bridge");
    }
    let first = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
    let second = lab.wire("h2", "h3", "fd00:9:2::/64").expect("a wire");
    (first, second)
}

#[test]
fn a_line_of_three_carries_traffic_can_be_cut_and_leaves_nothing() {
    let Some(mut lab) = lab_or_skip("wrl") else { return };
    let tag = format!("{}-", lab.tag);
    let (first, second) = line(&mut lab);
    for wire in [&first, &second] {
        let echo = Echo::start(&wire.b.namespace, wire.b.ip).expect("an echo service");
        let passes = || echo_once(&wire.a.namespace, echo.address(), 100, Duration::from_millis(300)).expect("sent").is_some();
        assert!(wait_until(Duration::from_secs(5), passes), "{wire:?}");
        lab.cut(wire).expect("cut");
        assert!(!passes(), "cut {wire:?}");
        lab.mend(wire).expect("mended");
        assert!(wait_until(Duration::from_secs(5), passes), "mended {wire:?}");
    }
    let plug = Plug { mac: Some([2, 0, 0, 0, 0, 1]), mtu: Some(1300), ..Plug::default() };
    let container = lab.container_with("h1", "c1", "10.32.0.1/12", &plug).expect("a container");
    assert_eq!(container.mac, [2, 0, 0, 0, 0, 1]);
    let shown = lab.exec("c1", "ip", &["-o", "link", "show", CONTAINER_INTERFACE]).expect("run");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("mtu 1300") && shown.contains("02:00:00:00:00:01"), "{shown}");
    assert_eq!(mine(&tag).len(), 4);
    let links = std::fs::read_to_string("/proc/net/dev").expect("interfaces");
    assert!(!links.contains("vethwe"), "no cable ends outside the laboratory: {links}");
    lab.remove("c1").expect("removed");
    assert_eq!(mine(&tag).len(), 3);
    drop(lab);
    assert_eq!(mine(&tag), [""; 0]);
}

#[test]
fn traffic_is_measured() {
    let Some(mut lab) = lab_or_skip("wrl") else { return };
    lab.host("h1").expect("a host");
    lab.host("h2").expect("a host");
    let wire = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
    let (from, to, ip) = (&wire.a.namespace, &wire.b.namespace, wire.b.ip);
    let time = Duration::from_millis(200);
    let bulk = Bulk { streams: 2, nodelay: true, ..Bulk::ordinary(time) };
    let stream = tcp_throughput(Ends::new(from, to, ip), bulk).expect("TCP");
    assert!(stream.bytes > 1_000_000 && stream.time >= time && stream.gbit_per_s() > 0.01, "{stream:?}");
    let trips = tcp_ping_pong(Ends { cores: Some((0, 0)), ..Ends::new(from, to, ip) }, 50).expect("ping-pong");
    assert_eq!((trips.lost(), trips.times.len()), (0, 50));
    assert!(trips.percentile(50) <= trips.percentile(99));
    let (stream, trips) = tcp_ping_pong_beside(Ends::new(from, to, ip), Bulk::ordinary(time)).expect("both");
    assert!(stream.bytes > 1_000_000 && !trips.times.is_empty(), "{stream:?} {trips:?}");
    let rate = udp_rate(Ends::new(from, to, ip), 64, time).expect("UDP");
    assert!(rate.received > 100 && rate.received <= rate.sent, "{rate:?}");
    lab.cut(&wire).expect("cut");
    assert!(tcp_ping_pong(Ends::new(from, to, ip), 1).is_err(), "an error, not a wait for ever");
}

#[test]
fn pings_are_captured() {
    let Some(mut lab) = lab_or_skip("wrl") else { return };
    lab.host("h1").expect("a host");
    lab.host("h2").expect("a host");
    let wire = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
    let ping = |options: &str| match lab.ping("h1", wire.b.ip, options) {
        Err(HostError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
        other => Some(other.expect("ping")),
    };
    if ping("-c 1 -W 1").is_none() {
        return eprintln!("skipped: ping is not installed");
    }
    assert!(wait_until(Duration::from_secs(5), || ping("-c 1 -W 1") == Some(true)));
    let capture = match Capture::start(&lab, "h2", &wire.b.interface, "icmp") {
        Err(HostError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return eprintln!("skipped: tcpdump is not installed");
        }
        other => other.expect("a capture"),
    };
    assert_eq!(ping("-c 1 -W 1 -p 5eed5eed"), Some(true));
    let bytes = capture.bytes().expect("packets");
    assert!(bytes.windows(8).any(|w| w == [0x5e, 0xed, 0x5e, 0xed, 0x5e, 0xed, 0x5e, 0xed]), "the pattern is on the wire");
    assert!(Capture::start(&lab, "h2", "none", "icmp").is_err());
}

#[test]
fn exclusive_laboratories_follow_one_another() {
    if lab_or_skip("wrl").is_none() {
        return;
    }
    let mut first = Lab::exclusive("wrl").expect("a laboratory");
    first.host("h1").expect("a host");
    let name = first.namespace("h1");
    let second = std::thread::spawn(|| Lab::exclusive("wrl").map(drop));
    clock::pause(Duration::from_millis(200));
    assert!(!second.is_finished(), "the second waits for the first");
    drop(first);
    second.join().expect("no panic").expect("the second laboratory");
    assert!(!netns::names().contains(&name));
}

#[test]
fn a_panic_leaves_nothing_and_goes_on() {
    let Some(mut lab) = lab_or_skip("wrl") else { return };
    let tag = format!("{}-", lab.tag);
    let host = lab.host("h1").expect("a host");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _lab = lab;
        in_namespace(&host, || panic!("on purpose")).expect("entered");
    }));
    assert!(caught.is_err());
    assert_eq!(mine(&tag), [""; 0]);
}

#[test]
fn what_a_dead_process_left_is_swept() {
    let Some(lab) = lab_or_skip("wrl") else { return };
    // Ids above the kernel's limit of 2^22 belong to nobody.
    let dead = ["wrsweep99999999-h1", "wrsweep99999999x2-c1"];
    let alive = format!("wrsweep{}-h1", std::process::id());
    for name in dead {
        std::mem::forget(Namespace::create(name).expect("a namespace"));
    }
    let keep = Namespace::create(&alive).expect("a namespace");
    let mut swept = Lab::sweep("wrsweep");
    swept.sort();
    assert_eq!(swept, dead);
    assert_eq!(mine("wrsweep"), [alive]);
    drop((keep, lab));
}

#[test]
fn processes_live_in_their_namespace_and_die_with_their_handle() {
    let Some(mut lab) = lab_or_skip("wrl") else { return };
    lab.host("h1").expect("a host");
    let mut process = lab.spawn("h1", Command::new("sleep").arg("60")).expect("started");
    let pid = process.id();
    let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/net")).expect("a namespace");
    assert_ne!(of(&pid.to_string()), of("self"));
    assert!(process.ended().is_none());
    assert!(process.stop(Duration::from_secs(5)).expect("stopped").is_some());
    let pid = lab.spawn("h1", Command::new("sleep").arg("60")).map(|p| p.id()).expect("started");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "killed when the handle was dropped");
}
