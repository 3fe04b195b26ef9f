//! Far more traffic than routers can carry: frames are lost, links are not.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;
use std::time::Duration;

use weave_router::host::lab::clock::Stopwatch;
use weave_router::host::lab::clock::pause;
use weave_router::host::lab::traffic::{Bulk, Ends, tcp_ping_pong_beside, tcp_throughput};
use weave_router::host::lab::{Container, Lab, Plug, Router};

use crate::common::router;
use crate::flow::udp_pair;
use crate::scene::{PASSWORD, all_come_back, connections, container, count, ip, lines, links, reaches, run, scene, v6};

/// Resident memory that a router may take beyond what it had before, in KiB.
const GROWTH: u64 = 48 << 10;

/// How long it lasts: a minute with `WEAVE_OVERLOAD_FULL`.
#[expect(clippy::disallowed_methods, reason = "a test asks whether it is to run in full")]
fn duration() -> Duration {
    let full = std::env::var_os("WEAVE_OVERLOAD_FULL").is_some_and(|value| value != "0");
    Duration::from_secs(if full { 60 } else { 8 })
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Datagrams that were sent and those that arrived.
#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    arrived: AtomicU64,
}

/// Sends datagrams of a size as fast as one thread can, and counts them at both ends, until told to stop.
fn blast<'s>(scope: &'s Scope<'s, '_>, (near, far): (UdpSocket, UdpSocket), size: usize, tally: &'s Tally, stop: &'s AtomicBool) {
    far.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    scope.spawn(move || {
        let bytes = vec![0x5a; size];
        while !stop.load(Ordering::Relaxed) {
            if near.send(&bytes).is_ok() {
                tally.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    scope.spawn(move || {
        let mut buffer = vec![0; 65_536];
        loop {
            match far.recv(&mut buffer) {
                Ok(_) => drop(tally.arrived.fetch_add(1, Ordering::Relaxed)),
                Err(_) if stop.load(Ordering::Relaxed) => return,
                Err(_) => {}
            }
        }
    });
}

/// Drops that a router has counted by reason, and those of its TAP's queue, which the kernel counts.
fn drops(lab: &Lab, router: &Router, host: &str) -> (u64, u64) {
    let plane = |plane: &str, name: &str| match plane {
        "forward" => name.starts_with("drop_"),
        "udp" => name == "kernel_drops" || name.starts_with("send_"),
        "packet_thread" => true,
        _ => false,
    };
    let shown = ip(lab, host, "-s -s -j link show dev weave-tap");
    let parsed: serde_json::Value = serde_json::from_str(&shown).unwrap_or_default();
    (count(router, plane), parsed[0]["stats64"]["tx"]["dropped"].as_u64().unwrap_or(0))
}

/// Three hosts in a line with a router each, told the one before it.
fn line(lab: &mut Lab) -> Vec<Router> {
    for host in ["h1", "h2", "h3"] {
        lab.host(host).expect("a host");
    }
    let first_wire = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
    let second_wire = lab.wire("h2", "h3", "10.9.2.0/24").expect("a wire");
    let mut routers = vec![router(lab, "h1", PASSWORD)];
    for (host, peer) in [("h2", first_wire.a.ip), ("h3", second_wire.a.ip)] {
        routers.push(router(lab, host, &[&["--peer", &peer.to_string()], PASSWORD].concat()));
    }
    routers
}

/// A backlog waits in fair queues: what a container asks for by the way does not stand behind its own bulk streams.
#[test]
fn a_ping_passes_the_bulk_streams_of_its_container() {
    scene(|lab| {
        for host in ["h1", "h2"] {
            lab.host(host).expect("a host");
        }
        let wire = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
        let _r1 = router(lab, "h1", PASSWORD);
        let r2 = router(lab, "h2", &[&["--peer", &wire.a.ip.to_string()], PASSWORD].concat());
        let [c1, c2]: [Container; 2] =
            [("h1", "c1", 1), ("h2", "c2", 2)].map(|(host, name, n)| container(lab, host, name, n, &Plug::default()));
        links(&r2, 1);
        reaches(lab, "c1", c2.ip);
        // A sender that fills whatever queue it finds.
        run(lab, "c1", "sysctl", "-w net.ipv4.tcp_congestion_control=reno");
        // Behind a backlog it would take many times that, always; on a machine with something else to do it may take longer once.
        let passes = (0..3).any(|_| {
            let bulk = Bulk { streams: 8, ..Bulk::ordinary(Duration::from_secs(4)) };
            let (streams, trips) = tcp_ping_pong_beside(Ends::new(&c1.namespace, &c2.namespace, c2.ip), bulk).expect("measured");
            let p50 = trips.percentile(50).expect("balls come back");
            eprintln!("beside {:.1} Gbit/s in eight streams the middle ping-pong takes {p50:?}", streams.gbit_per_s());
            p50 < Duration::from_millis(6)
        });
        assert!(passes, "the bulk streams are not passed");
    });
}

#[test]
fn overload_loses_frames_and_never_a_link() {
    scene(|lab| {
        let mut routers = line(lab);
        let [c1, c2, c3]: [Container; 3] = std::array::from_fn(|n| {
            let n = n as u8 + 1;
            container(lab, &format!("h{n}"), &format!("c{n}"), n, &Plug::default())
        });
        for (from, to) in [("c1", c2.ip), ("c1", c3.ip), ("c3", v6(1))] {
            reaches(lab, from, to);
        }
        let expected = [1, 2, 1];
        routers.iter().zip(expected).for_each(|(router, count)| links(router, count));
        let changes = |router: &Router| count(router, |plane, name| plane == "mesh" && matches!(name, "links_up" | "links_down"));
        let pids: Vec<u32> = routers.iter_mut().map(|router| router.process().id()).collect();
        let before: Vec<(u64, u64)> = routers.iter().zip(&pids).map(|(router, pid)| (changes(router), resident(*pid))).collect();

        let (tally, stop, time) = (Tally::default(), AtomicBool::new(false), duration());
        let pair = |from: &Container, to: &Container, ip: IpAddr| udp_pair(&from.namespace, &to.namespace, ip);
        let stream = std::thread::scope(|scope| {
            for (from, to, ip, size) in
                [(&c1, &c3, c3.ip, 64), (&c1, &c3, v6(3), 1300), (&c1, &c2, c2.ip, 8000), (&c3, &c1, c1.ip, 600), (&c2, &c3, c3.ip, 64)]
            {
                blast(scope, pair(from, to, ip), size, &tally, &stop);
            }
            let flow = scope.spawn(|| tcp_throughput(Ends::new(&c1.namespace, &c3.namespace, c3.ip), Bulk::ordinary(time)));
            let clock = Stopwatch::start();
            while clock.elapsed() < time {
                pause(Duration::from_millis(500));
                for (router, expected) in routers.iter().zip(expected) {
                    assert_eq!(connections(router, "established").len(), expected, "links during the overload; log: {}", router.log());
                }
            }
            stop.store(true, Ordering::Relaxed);
            flow.join().expect("no panic")
        });
        // What stands in queues is delivered in a moment; then everything is as before.
        pause(Duration::from_millis(500));
        for to in [c2.ip, c3.ip, v6(3)] {
            all_come_back(lab, "c1", to, 3, 100, "-W 2");
        }
        let (sent, arrived) = (tally.sent.load(Ordering::Relaxed), tally.arrived.load(Ordering::Relaxed));
        let mut counted = 0;
        for (n, router) in routers.iter().enumerate() {
            assert_eq!(changes(router), before[n].0, "links came or went: {:?}", lines(router, "link"));
            let after = resident(pids[n]);
            assert!(after < before[n].1 + GROWTH, "router {n} grew from {} to {after} KiB", before[n].1);
            let (own, tap) = drops(lab, router, &format!("h{}", n + 1));
            eprintln!("router {}: {own} drops counted, {tap} by its TAP's queue; {} KiB before, {after} after", n + 1, before[n].1);
            counted += own + tap;
        }
        let stream = stream.map(|stream| stream.bytes).unwrap_or(0);
        eprintln!("{sent} datagrams sent, {arrived} arrived; {stream} bytes of TCP beside them, in {time:?}");
        assert!(arrived > 1000 && arrived < sent, "it was an overload: {arrived} of {sent}");
        assert!(counted > 0, "what is lost is counted");
    });
}
