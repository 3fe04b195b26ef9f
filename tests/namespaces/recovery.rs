//! How soon traffic flows again, with a ping every 10 ms: starved hosts, and hosts that move.

use std::net::IpAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use weave_router::host::lab::clock::pause;
use weave_router::host::lab::{Plug, Router};

use crate::common::{router, wait_until};
use crate::flow::Pulse;
use crate::scene::{PASSWORD, PATIENCE, Setting, connected_pair, connections, container, count, ip, links, peer, reaches, scene};

/// Between two pings.
const BEAT: Duration = Duration::from_millis(10);

#[test]
fn a_router_without_processor_for_two_seconds_is_no_death_of_many_and_heals() {
    scene(|lab| {
        for host in ["h1", "h2", "h3"] {
            lab.host(host).expect("a host");
        }
        let wires = [("h1", "h2", 1), ("h2", "h3", 2), ("h3", "h1", 3)];
        let wires = wires.map(|(a, b, n)| lab.wire(a, b, &format!("10.9.{n}.0/24")).expect("a wire"));
        let peers = [peer(wires[0].b.ip), peer(wires[1].b.ip), peer(wires[2].b.ip)];
        let hosts = ["h1", "h2", "h3"];
        let start = |n: usize| router(lab, hosts[n], &[&["--nickname", hosts[n], "--peer", &peers[n]], PASSWORD].concat());
        let mut routers = [start(0), start(1), start(2)];
        for (n, host) in hosts.into_iter().enumerate() {
            container(lab, host, ["c1", "c2", "c3"][n], n as u8 + 1, &Plug::default());
        }
        routers.iter().for_each(|router| links(router, 2));
        let [c2, c3] = [2, 3].map(|n| IpAddr::from([10, 32, 0, n]));
        reaches(lab, "c1", c2);
        reaches(lab, "c1", c3);
        let ends = ["c1", "c2", "c3"].map(|name| lab.namespace(name));
        let (others, starved) = (Pulse::start(&ends[0], &ends[1], c2, BEAT), Pulse::start(&ends[0], &ends[2], c3, BEAT));
        pause(Duration::from_millis(500));
        let down = |router: &Router| count(router, |_, name| name == "links_down");
        let before = down(&routers[0]) + down(&routers[1]);
        routers[2].process().signal(Signal::SIGSTOP).expect("stopped");
        pause(Duration::from_secs(2));
        routers[2].process().signal(Signal::SIGCONT).expect("goes on");
        routers.iter().for_each(|router| links(router, 2));
        reaches(lab, "c1", c3);
        pause(Duration::from_millis(500));
        let (silence, starved) = (others.longest_silence(), starved.longest_silence());
        println!("{starved:?} without an answer from the starved host, {silence:?} from the other");
        assert!(silence < Duration::from_millis(500), "the link between the others went on: {silence:?}");
        assert!(starved < Duration::from_secs(4), "{starved:?}");
        assert!(down(&routers[0]) + down(&routers[1]) - before <= 2, "only links to the starved host died");
        let blamed = routers[2].log().lines().filter(|line| line.contains("is down: no answer")).count();
        assert_eq!(blamed, 0, "it blames nobody: {}", routers[2].log());
    });
}

#[test]
fn a_host_that_moves_is_back_within_a_second_whichever_it_is() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        for (host, old, new, seen_by) in [("h2", 2, 22, &pair.r1), ("h1", 1, 21, &pair.r2)] {
            let pulse = Pulse::start(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, BEAT);
            pause(Duration::from_millis(500));
            ip(lab, host, &format!("addr del 10.9.1.{old}/24 dev eth0"));
            ip(lab, host, &format!("addr add 10.9.1.{new}/24 dev eth0"));
            wait_until(PATIENCE, "its new address is shown", || {
                connections(seen_by, "established").iter().any(|row| row["address"] == format!("10.9.1.{new}:6783"))
            });
            pause(Duration::from_secs(1));
            let silence = pulse.longest_silence();
            println!("{host} moves: {silence:?} without an answer");
            assert!(silence < Duration::from_secs(1), "{host}: {silence:?}");
        }
    });
}
