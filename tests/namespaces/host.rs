//! What others do to the host under a running router: interfaces deleted, detached, set down.

use std::time::Duration;

use nix::sys::signal::Signal;
use weave_router::host::lab::clock::pause;
use weave_router::host::lab::{CONTAINER_INTERFACE, Capture, Lab};

use crate::common::wait_until;
use crate::flow::transfer;
use crate::scene::{PATIENCE, Pair, Setting, connected_pair, ip, lines, reaches, scene, shell, v6};

fn is_port(lab: &Lab, host: &str, port: &str) -> bool {
    let output = lab.exec(host, "ip", &["-o", "link", "show", "dev", port]).expect("ip is installed");
    String::from_utf8_lossy(&output.stdout).contains("master weave")
}

#[track_caller]
fn tap_is_back(lab: &Lab, host: &str) {
    wait_until(PATIENCE, "the TAP is on the bridge", || is_port(lab, host, "weave-tap"));
}

/// Puts the container's cable back into the bridge, as its owner would.
fn replug(lab: &Lab, pair: &Pair) {
    ip(lab, "h1", &format!("link set {} master weave up", pair.c1.host_end));
}

#[test]
fn a_bridge_that_is_deleted_is_put_back() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        for round in 1..=2 {
            ip(lab, "h1", "link del weave");
            wait_until(PATIENCE, "the bridge is back", || ip(lab, "h1", "-o link").contains("weave:"));
            tap_is_back(lab, "h1");
            replug(lab, &pair);
            reaches(lab, "c1", pair.c2.ip);
            reaches(lab, "c2", v6(1));
            assert!(ip(lab, "h1", "-o link show weave").contains("mtu 1420"));
            assert_eq!(lines(&pair.r1, "bridge weave was deleted").len(), round);
        }
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 1 << 20);
    });
}

#[test]
fn a_tap_that_is_deleted_is_put_back() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        for round in 1..=2 {
            ip(lab, "h1", "link del weave-tap");
            tap_is_back(lab, "h1");
            reaches(lab, "c1", pair.c2.ip);
            assert_eq!(lines(&pair.r1, "TAP weave-tap was deleted").len(), round);
        }
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 1 << 20);
    });
}

#[test]
fn both_deleted_at_once_are_put_back() {
    scene(|lab| {
        let mut pair = connected_pair(lab, &Setting::default());
        pair.r1.process().signal(Signal::SIGSTOP).expect("the router stands still");
        ip(lab, "h1", "link del weave-tap");
        ip(lab, "h1", "link del weave");
        pair.r1.process().signal(Signal::SIGCONT).expect("the router goes on");
        wait_until(PATIENCE, "the bridge is back", || ip(lab, "h1", "-o link").contains("weave:"));
        tap_is_back(lab, "h1");
        replug(lab, &pair);
        reaches(lab, "c1", pair.c2.ip);
    });
}

#[test]
fn what_is_detached_set_down_or_shrunk_is_put_right() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        for meddling in ["link set weave-tap nomaster", "link set weave-tap down", "link set weave down", "link set weave mtu 1000"] {
            ip(lab, "h1", meddling);
            tap_is_back(lab, "h1");
            wait_until(PATIENCE, meddling, || {
                let (bridge, tap) = (ip(lab, "h1", "-o link show weave"), ip(lab, "h1", "-o link show weave-tap"));
                bridge.contains("mtu 1420") && bridge.contains(",UP") && tap.contains(",UP")
            });
            reaches(lab, "c1", pair.c2.ip);
        }
    });
}

#[test]
fn a_bridge_deleted_with_its_name_taken_is_put_back_once_the_name_is_free() {
    scene(|lab| {
        let mut pair = connected_pair(lab, &Setting::default());
        // The router is quick to take the name back: it stands still meanwhile.
        pair.r1.process().signal(Signal::SIGSTOP).expect("the router stands still");
        ip(lab, "h1", "link del weave");
        ip(lab, "h1", "link add weave type veth peer name other");
        pair.r1.process().signal(Signal::SIGCONT).expect("the router goes on");
        wait_until(PATIENCE, "the log says why", || !lines(&pair.r1, "taken by").is_empty());
        ip(lab, "h1", "link del weave");
        wait_until(PATIENCE, "the bridge is back", || is_port(lab, "h1", "weave-tap"));
        replug(lab, &pair);
        reaches(lab, "c1", pair.c2.ip);
    });
}

#[test]
fn the_tap_never_speaks_for_itself() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        let far = Capture::start(lab, "c2", CONTAINER_INTERFACE, "").expect("a capture");
        // A new one, while the mesh would carry what it says.
        ip(lab, "h1", "link del weave-tap");
        tap_is_back(lab, "h1");
        let shown = ip(lab, "h1", "-o link show weave-tap");
        let mac = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).expect("a MAC").to_string();
        reaches(lab, "c1", pair.c2.ip);
        // Duplicate address detection, listener reports and the first router solicitation come within a second of an interface.
        pause(Duration::from_secs(2));
        assert_eq!(ip(lab, "h1", "-6 addr show dev weave-tap"), "", "it has no address");
        let heard = far.lines().expect("a capture");
        assert!(heard.iter().any(|line| line.contains("ICMP echo request")), "the capture works: {heard:?}");
        let own: Vec<&String> = heard.iter().filter(|line| line.contains(&mac)).collect();
        assert!(own.is_empty(), "{own:?}");
    });
}

#[test]
fn a_tap_whose_deletion_was_missed_is_put_back() {
    scene(|lab| {
        let mut pair = connected_pair(lab, &Setting::default());
        pair.r1.process().signal(Signal::SIGSTOP).expect("the router stands still");
        // More notifications than the socket has room for; the last one is the one that matters.
        ip(lab, "h1", "link add noise type veth peer name noise2");
        shell(lab, "h1", "for n in $(seq 3000); do echo link set noise mtu $((1000 + n % 400)); done | ip -batch -");
        ip(lab, "h1", "link del weave-tap");
        pair.r1.process().signal(Signal::SIGCONT).expect("the router goes on");
        tap_is_back(lab, "h1");
        reaches(lab, "c1", pair.c2.ip);
    });
}
