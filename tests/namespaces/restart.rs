//! Routers that are killed, stopped and started again.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use weave_router::host::lab::clock::{Stopwatch, pause, wait_until};
use weave_router::host::lab::{Lab, Plug};

use crate::common;
use crate::flow::{Pulse, transfer};
use crate::scene::{PATIENCE, Setting, connected_pair, container, count, ip, lines, links, pair, reaches, rows, scene};

#[test]
fn killed_routers_come_back_by_themselves() {
    scene(|lab| {
        let mut pair = connected_pair(lab, &Setting::default());
        for round in 0..2 {
            for (host, router) in [("h1", &mut pair.r1), ("h2", &mut pair.r2)] {
                router.process().kill().expect("killed");
                assert!(ip(lab, host, "-o link").contains("weave:"), "the containers keep their bridge");
                assert!(!ip(lab, host, "-o link").contains("weave-tap"), "a TAP goes with its process");
                router.restart().expect("nothing stale prevents the start");
                reaches(lab, "c1", pair.c2.ip);
                links(router, 1);
            }
            common::wait_until(PATIENCE, &format!("round {round}: no ghosts"), || rows(&pair.r1, "connections").len() == 1);
        }
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 3 << 20);
        common::wait_until(PATIENCE, "starts are counted", || {
            let peers = rows(&pair.r1, "peers");
            peers.len() == 2 && peers.iter().all(|peer| peer["incarnation"] == 3)
        });
    });
}

#[test]
fn a_restart_is_felt_for_a_moment_only() {
    scene(|lab| {
        let mut pair = connected_pair(lab, &Setting::default());
        let pulse = Pulse::start(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, Duration::from_millis(50));
        pause(Duration::from_millis(500));
        pair.r2.stop().expect("stopped");
        pair.r2.restart().expect("started");
        let up = Stopwatch::start();
        reaches(lab, "c1", pair.c2.ip);
        let up = up.elapsed();
        pause(Duration::from_millis(500));
        let silence = pulse.longest_silence();
        assert!(up < Duration::from_secs(3) && silence < Duration::from_secs(6), "{up:?} until the first echo, {silence:?} of silence");
    });
}

#[test]
fn both_ends_of_an_asymmetric_pair_dial_again() {
    scene(|lab| {
        // Only h2 was told an address; h1 remembers nobody and waits to be called.
        let mut pair = connected_pair(lab, &Setting::default());
        pair.r1.process().kill().expect("killed");
        links(&pair.r2, 0);
        let heeded = count(&pair.r2, |plane, name| plane == "mesh" && name == "rebuffs_heeded");
        assert!(heeded > 0, "the host says that nobody listens there any more");
        pair.r1.restart().expect("started");
        let back = Stopwatch::start();
        reaches(lab, "c2", pair.c1.ip);
        assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
    });
}

/// Stops a router by a signal and checks the promise: within a second, exit 0.
pub fn stops(router: &mut weave_router::host::lab::Router, signal: Signal) {
    let clock = Stopwatch::start();
    router.process().signal(signal).expect("sent");
    assert!(wait_until(Duration::from_secs(5), || router.process().ended().is_some()), "it ends");
    let time = clock.elapsed();
    let status = router.process().ended().expect("it ended");
    assert!(time < Duration::from_secs(1), "{signal} took {time:?}");
    assert_eq!(status.code(), Some(0), "{signal}: {status}\n{}", router.log());
}

#[test]
fn a_stop_takes_the_tap_and_leaves_containers_their_bridge() {
    scene(|lab| {
        let mut pair = connected_pair(lab, &Setting::default());
        let neighbour = container(lab, "h1", "c3", 3, &Plug::default());
        reaches(lab, "c3", pair.c2.ip);
        stops(&mut pair.r1, Signal::SIGTERM);
        let left = ip(lab, "h1", "-o link");
        assert!(!left.contains("weave-tap") && left.contains("weave:"), "{left}");
        assert!(!std::path::Path::new(pair.r1.api().trim_start_matches("unix:")).exists(), "the socket is gone");
        reaches(lab, "c1", neighbour.ip);
        transfer(&pair.c1.namespace, &neighbour.namespace, neighbour.ip, 1 << 20);
        common::wait_until(PATIENCE, "the other side notices", || {
            rows(&pair.r2, "connections").iter().all(|row| row["state"] != "established")
        });
        // It is still ours: the next life removes it once nobody uses it.
        pair.r1.restart().expect("started");
        reaches(lab, "c1", pair.c2.ip);
        for name in ["c1", "c3"] {
            lab.remove(name).expect("removed");
        }
        assert!(wait_until(PATIENCE, || !ip(lab, "h1", "-o link").contains("vethwe")), "the cables went with the containers");
        stops(&mut pair.r1, Signal::SIGINT);
        assert!(!ip(lab, "h1", "-o link").contains("weave"), "{}", ip(lab, "h1", "-o link"));
    });
}

#[test]
fn a_bridge_that_was_there_stays_as_it_was() {
    for (options, during) in [(&[][..], 1500), (&["--mtu", "1300"], 1300)] {
        scene(|lab: &mut Lab| {
            lab.host("h1").expect("a host");
            ip(lab, "h1", "link add weave type bridge");
            let mtu = |lab: &Lab, mtu: u32| ip(lab, "h1", "-o link show weave").contains(&format!(" mtu {mtu} "));
            let mut router = common::router(lab, "h1", options);
            assert!(mtu(lab, during), "{}", ip(lab, "h1", "-o link"));
            assert_eq!(router.status("").expect("an answer")["mtu"], during);
            ip(lab, "h1", "link set weave-tap nomaster");
            common::wait_until(PATIENCE, "the TAP is put back", || ip(lab, "h1", "-o link show weave-tap").contains("master weave"));
            common::wait_until(PATIENCE, "with the MTU", || mtu(lab, during));
            stops(&mut router, Signal::SIGTERM);
            let left = ip(lab, "h1", "-o link");
            assert!(left.contains("weave:") && !left.contains("weave-tap") && mtu(lab, 1500), "{left}");
        });
    }
}

#[test]
fn a_stop_in_the_midst_of_traffic_and_of_trouble_is_as_quick() {
    scene(|lab| {
        // A peer that never answers, one that cannot be resolved, and one with another password.
        let peers = ["--peer", "10.9.1.99", "--peer", "no-such-host.invalid", "--password", "other"];
        let mut pair = pair(lab, &Setting { second: &peers, both: &[], first: &["--password", "one"], ..Setting::default() });
        pause(Duration::from_secs(1));
        stops(&mut pair.r2, Signal::SIGTERM);
        stops(&mut pair.r1, Signal::SIGTERM);
        assert!(lines(&pair.r1, "panicked").is_empty());
    });
}

#[test]
fn a_stop_while_starting_leaves_nothing() {
    scene(|lab: &mut Lab| {
        lab.host("h1").expect("a host");
        for wait in [0, 20, 60, 120, 250] {
            let mut router =
                weave_router::host::lab::Router::start(lab, "h1", env!("CARGO_BIN_EXE_weave-router").as_ref(), &["--password", "x"])
                    .expect("started");
            pause(Duration::from_millis(wait));
            router.process().signal(Signal::SIGTERM).expect("sent");
            assert!(wait_until(Duration::from_secs(5), || router.process().ended().is_some()), "it ends");
            let status = router.process().ended().expect("it ended");
            // Before the handlers are installed the signal kills, and there is nothing to leave behind. A busy machine takes its time to get there.
            let killed = status.signal() == Some(15) && (wait < 60 || router.log().is_empty());
            assert!(status.code() == Some(0) || killed, "after {wait} ms: {status}\n{}", router.log());
            assert!(!ip(lab, "h1", "-o link").contains("weave"), "after {wait} ms: {}", ip(lab, "h1", "-o link"));
        }
    });
}
