//! Several packet threads: each flow on one thread, whatever the numbers at both ends, and nothing lost when ends or TAPs go and come.

use std::net::IpAddr;

use weave_router::host::lab::{Lab, Plug, Router};

use crate::common::router;
use crate::flow::{Noise, transfer, udp_pair};
use crate::scene::{PASSWORD, Pair, Setting, connected_pair, container, count, ip, lines, links, peer, reaches, scene, v6};

/// What each thread has done, by the name of a counter.
#[track_caller]
fn by_thread(router: &Router, counter: &str) -> Vec<u64> {
    let status = router.status("").expect("an answer");
    let threads = status["threads"].as_array().expect("threads");
    assert!(threads.iter().enumerate().all(|(n, thread)| thread["thread"] == n + 1), "{status}");
    threads.iter().map(|thread| thread[counter].as_u64().expect("a number")).collect()
}

/// How much of what was counted while `work` went on fell to the busiest thread, in percent.
fn largest_share(router: &Router, counter: &str, work: impl FnOnce()) -> u64 {
    let before = by_thread(router, counter);
    work();
    let grown: Vec<u64> = by_thread(router, counter).iter().zip(before).map(|(after, before)| after - before).collect();
    grown.iter().max().expect("a thread") * 100 / grown.iter().sum::<u64>().max(1)
}

/// Four transfers at once, two each way.
fn four_transfers(pair: &Pair) {
    std::thread::scope(|scope| {
        for bytes in [5 << 20, 6 << 20] {
            scope.spawn(move || transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, bytes));
            scope.spawn(move || transfer(&pair.c2.namespace, &pair.c1.namespace, v6(1), bytes));
        }
    });
}

/// Datagrams of all sizes, each way of 16 flows, with their content.
fn datagrams(pair: &Pair) {
    let mut noise = Noise::new(16);
    for _ in 0..16 {
        let (near, far) = udp_pair(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip);
        let mut buffer = vec![0; 70_000];
        for size in [1, 64, 700, 1392, 1393, 9000, 60_000] {
            let there = noise.bytes(size);
            near.send(&there).expect("sent");
            let (len, from) = far.recv_from(&mut buffer).expect("it arrives");
            assert!(buffer[..len] == there, "{size} bytes");
            let back = noise.bytes(size);
            far.send_to(&back, from).expect("sent");
            let len = near.recv(&mut buffer).expect("the answer arrives");
            assert!(buffer[..len] == back, "{size} bytes");
        }
    }
}

#[test]
fn a_pair_of_two_threads_each_shares_flows_out_and_keeps_each_on_one() {
    scene(|lab| {
        let both = [PASSWORD, &["--threads", "2"]].concat();
        let pair = connected_pair(lab, &Setting { both: &both, ..Setting::default() });
        let shown = String::from_utf8(pair.r1.client(&["status"]).expect("the client runs").stdout).expect("text");
        assert!(shown.contains("Packet threads: 1 (") && shown.contains(" 2 (from containers"), "{shown}");
        four_transfers(&pair);
        datagrams(&pair);
        for router in [&pair.r1, &pair.r2] {
            for counter in ["tx_frames", "rx_frames", "udp_tx_bytes", "udp_rx_bytes", "sleeps"] {
                let counted = by_thread(router, counter);
                assert!(counted.len() == 2 && counted.iter().all(|n| *n > 0), "{counter}: {counted:?}");
            }
        }
        for _ in 0..4 {
            let transfer = || {
                transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 20 << 20);
            };
            let mut received = 0;
            let sent = largest_share(&pair.r1, "tx_bytes", || received = largest_share(&pair.r2, "rx_bytes", transfer));
            assert!(sent >= 95 && received >= 95, "one flow is on one thread at either end: {sent}% sent, {received}% received");
        }
        assert_eq!(count(&pair.r2, |plane, name| plane == "packet_thread" && name == "lanes_joined"), 0, "batches are of one thread");
    });
}

#[test]
fn numbers_of_threads_need_not_match() {
    for (first, second) in [("2", "1"), ("2", "3")] {
        scene(|lab| {
            let setting = Setting { first: &["--threads", first], second: &["--threads", second], ..Setting::default() };
            let pair = connected_pair(lab, &setting);
            four_transfers(&pair);
            datagrams(&pair);
            for (router, threads) in [(&pair.r1, first), (&pair.r2, second)] {
                let read = by_thread(router, "tx_frames");
                assert_eq!(read.len().to_string(), threads);
                assert!(read.iter().all(|n| *n > 0), "every thread has its share: {read:?}");
                assert_eq!(count(router, |_, name| name == "drop_replay" || name == "drop_lane" || name == "drop_forged"), 0);
            }
        });
    }
}

#[test]
fn two_threads_without_offloads() {
    scene(|lab| {
        let both = [PASSWORD, &["--threads", "2", "--offload", "off"]].concat();
        let pair = connected_pair(lab, &Setting { both: &both, ..Setting::default() });
        four_transfers(&pair);
        datagrams(&pair);
    });
}

#[test]
fn two_threads_survive_a_kill_and_the_loss_of_their_tap() {
    scene(|lab| {
        let both = [PASSWORD, &["--threads", "2"]].concat();
        let mut pair = connected_pair(lab, &Setting { both: &both, ..Setting::default() });
        pair.r1.process().kill().expect("killed");
        pair.r1.restart().expect("nothing stale prevents the start");
        reaches(lab, "c1", pair.c2.ip);
        four_transfers(&pair);
        for round in 1..3 {
            ip(lab, "h1", "link del weave-tap");
            crate::common::wait_until(crate::scene::PATIENCE, "the TAP is put back", || {
                lines(&pair.r1, "TAP weave-tap was deleted").len() == round
            });
            reaches(lab, "c1", pair.c2.ip);
            four_transfers(&pair);
            datagrams(&pair);
        }
        let status = pair.r1.status("").expect("an answer");
        assert_eq!(status["offloads"]["tap_checksum"], "on", "both threads have their queue: {}", status["offloads"]);
        links(&pair.r1, 1);
    });
}

#[test]
fn a_relay_of_two_threads_between_ends_of_two_and_one() {
    scene(|lab| {
        for host in ["h1", "h2", "h3"] {
            lab.host(host).expect("a host");
        }
        let wires = [lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire"), lab.wire("h2", "h3", "10.9.2.0/24").expect("a wire")];
        let mut routers = Vec::new();
        for (n, (host, threads)) in [("h1", "2"), ("h2", "2"), ("h3", "1")].into_iter().enumerate() {
            let before = n.checked_sub(1).map(|n| peer(wires[n].a.ip));
            let peer = before.as_ref().map_or(vec![], |before| vec!["--peer", before]);
            routers.push(router(lab, host, &[&["--nickname", host, "--threads", threads], PASSWORD, &peer[..]].concat()));
        }
        let c1 = container(lab, "h1", "c1", 1, &Plug::default());
        let c3 = container(lab, "h3", "c3", 3, &Plug::default());
        reaches(lab, "c1", c3.ip);
        let relay = |counter| by_thread(&routers[1], counter);
        let idle = relay("udp_rx_bytes");
        std::thread::scope(|scope| {
            for (bytes, to) in [(4 << 20, c3.ip), (5 << 20, v6(3)), (6 << 20, c3.ip), (7 << 20, v6(3))] {
                let (c1, c3) = (&c1.namespace, &c3.namespace);
                scope.spawn(move || transfer(c1, c3, to, bytes));
                let back: IpAddr = if to.is_ipv6() { v6(1) } else { IpAddr::from([10, 32, 0, 1]) };
                scope.spawn(move || transfer(c3, c1, back, bytes));
            }
        });
        let grown: u64 = relay("udp_rx_bytes").iter().zip(&idle).map(|(after, before)| after - before).sum();
        assert!(grown > 44 << 20, "the relay's threads count what they relay: {grown}");
        for router in &routers {
            assert_eq!(count(router, |plane, name| plane == "packet_thread" && name == "lanes_joined"), 0);
            assert_eq!(count(router, |_, name| name == "drop_relay_budget" || name == "drop_replay"), 0);
        }
    });
}

/// Starts a router on `h1` that cannot come up, and answers with what it says.
fn refused(lab: &Lab, options: &str) -> String {
    let place = std::env::temp_dir().join(format!("weave-place-{}", lab.namespace("t")));
    let words = format!(
        "timeout -s KILL 5 {} run --api unix:{place}/api.sock --state-dir {place}/state --status-addr= --password x {options}; rm -r {place}",
        env!("CARGO_BIN_EXE_weave-router"),
        place = place.display()
    );
    let output = lab.exec("h1", "sh", &["-c", &words]).expect("it runs");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_tap_for_one_queue_and_a_tap_of_somebody_else_are_refused() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        ip(lab, "h1", "tuntap add weave-tap mode tap vnet_hdr");
        let said = refused(lab, "--threads 2");
        assert!(said.contains("weave-tap was made for one") && said.contains("--threads 1"), "{said}");
        drop(router(lab, "h1", &["--password", "x", "--threads", "1"]));
        ip(lab, "h1", "tuntap del weave-tap mode tap");
        ip(lab, "h1", "tuntap add weave-tap mode tap vnet_hdr multi_queue");
        for threads in ["1", "2"] {
            let _holder = router(lab, "h1", &["--password", "x", "--threads", threads]);
            for options in ["--threads 1", "--threads 2"] {
                let said = refused(lab, &format!("{options} --port 7000 --bridge other"));
                assert!(said.contains("\"weave-tap\" is in use by another process"), "{threads}, {options}: {said}");
            }
        }
        ip(lab, "h1", "tuntap del weave-tap mode tap multi_queue");
    });
}
