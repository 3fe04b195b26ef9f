//! Many routers in a partial mesh, drawn by lot: everybody reaches everybody, and traffic goes round any wire that is cut.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use weave_router::host::lab::clock::pause;
use weave_router::host::lab::{Lab, Plug, Router, Wire};

use crate::crowd::Crowd;
use crate::flow::{Noise, Pulse};
use crate::scene::{PASSWORD, PATIENCE, container, ip, nft, peer, scene};

/// Draws the wires and the cuts.
const SEED: u64 = 40;
/// Between two pings while a wire is cut.
const BEAT: Duration = Duration::from_millis(10);
/// A cut is noticed and gone round within this.
const PROMISED: Duration = Duration::from_secs(1);

/// Routers, wires beside the ring that joins them all, and wires that are cut. The forty with `WEAVE_NS_FULL=1`, which takes two minutes.
#[expect(clippy::disallowed_methods, reason = "a test asks whether it is to run in full")]
fn size() -> (usize, usize, usize) {
    if std::env::var_os("WEAVE_NS_FULL").is_some_and(|value| value != "0") { (40, 30, 20) } else { (9, 6, 2) }
}

/// Starts a router on each host, told those at the lower ends of its wires; all at once, as they would after a power cut.
pub fn routers(lab: &Lab, hosts: usize, wires: &[Wire], arguments: &[&str]) -> Vec<Router> {
    let start = |n: usize| {
        let host = format!("h{n}");
        let told = wires.iter().filter(|wire| wire.b.host == host).flat_map(|wire| ["--peer".to_string(), peer(wire.a.ip)]);
        let told: Vec<String> = told.collect();
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        let words = [&["--nickname", host.as_str()], PASSWORD, arguments, &told[..]].concat();
        Router::start(lab, &host, Path::new(env!("CARGO_BIN_EXE_weave-router")), &words).expect("started")
    };
    let mut routers: Vec<Router> = (1..=hosts).map(start).collect();
    routers.iter_mut().for_each(|router| router.wait_for_answer().unwrap_or_else(|error| panic!("{error}")));
    routers
}

/// A container on each host: its namespace and address.
pub fn containers(lab: &mut Lab, hosts: usize) -> Vec<(String, IpAddr)> {
    let one = |n: usize| container(lab, &format!("h{n}"), &format!("c{n}"), n as u8, &Plug::default());
    (1..=hosts).map(one).map(|container| (container.namespace, container.ip)).collect()
}

/// The place of a host in what the functions above make.
pub fn place(host: &str) -> usize {
    host.trim_start_matches('h').parse::<usize>().expect("a number") - 1
}

/// What arrives over a wire is lost from now on, at both ends, without a word of the kernel; `share` is a rule's, as in `numgen random mod 4 == 0`.
pub fn lose(lab: &Lab, wire: &Wire, share: &str) {
    for end in [&wire.a, &wire.b] {
        let rule = format!("iifname \"{}\" {share} drop", end.interface);
        nft(lab, &end.host, &format!("table inet {0}cut {{ chain in {{ type filter hook input priority 0; {rule}; }}; }}", end.interface));
    }
}

/// Ends that.
pub fn keep(lab: &Lab, wire: &Wire) {
    [&wire.a, &wire.b].into_iter().for_each(|end| nft(lab, &end.host, &format!("delete table inet {}cut", end.interface)));
}

/// Has everybody ask everybody, so few at once that they fit the kernel's table of neighbours: all namespaces of a machine share its 1024 places.
/// Answers with the time of the slowest.
fn all_pairs_answer(lab: &Lab, crowd: &Crowd, hosts: usize, patience: Duration) -> Duration {
    const ASKING: usize = 9;
    let (mut slowest, pairs) = (Duration::ZERO, crowd.pairs());
    for first in (0..hosts).step_by(ASKING) {
        let some: Vec<_> = pairs.iter().filter(|(from, _)| (first..first + ASKING).contains(from)).copied().collect();
        let answers = crowd.ask(&some, patience);
        assert!(answers.silent.is_empty(), "{:?}", answers.silent);
        slowest = slowest.max(answers.slowest);
        if hosts > ASKING {
            (1..=hosts).for_each(|n| drop(ip(lab, &format!("c{n}"), "neigh flush all")));
        }
    }
    slowest
}

#[test]
fn many_routers_in_a_random_partial_mesh_reach_each_other_and_go_round_any_cut() {
    scene(|lab| {
        let (hosts, chords, cuts) = size();
        let wires = lab.partial_mesh(hosts, chords, SEED).expect("hosts and wires");
        let routers = routers(lab, hosts, &wires, &[]);
        let ends = containers(lab, hosts);
        let crowd = Crowd::start(&ends);
        let slowest = all_pairs_answer(lab, &crowd, hosts, PATIENCE * 2);
        println!("{hosts} routers, {} wires: all pairs have answered after {slowest:?}", wires.len());
        let mut dice = Noise::new(SEED);
        let pulse = |a: usize, b: usize| Pulse::start(&ends[a].0, &ends[b].0, ends[b].1, BEAT);
        for cut in 0..cuts {
            let wire = &wires[dice.below(wires.len())];
            let (a, b) = (place(&wire.a.host), place(&wire.b.host));
            // Of those who use the wire, and of somebody for whom it may be one of several.
            let (c, d) = (dice.below(hosts), dice.below(hosts));
            let pulses = [pulse(a, b), pulse(b, a), pulse(c, if c == d { (d + 1) % hosts } else { d })];
            pause(Duration::from_millis(700));
            let told = cut % 2 == 1;
            if told {
                lab.cut(wire).expect("cut")
            } else {
                lose(lab, wire, "")
            }
            pause(PROMISED + Duration::from_millis(500));
            let silences = pulses.map(Pulse::longest_silence);
            println!("{} to {} is cut, {}: {silences:?} without an answer", wire.a.host, wire.b.host, if told { "down" } else { "silent" });
            assert!(silences.iter().all(|silence| *silence < PROMISED), "{} to {}: {silences:?}", wire.a.host, wire.b.host);
            if told { lab.mend(wire).expect("mended") } else { keep(lab, wire) }
        }
        all_pairs_answer(lab, &crowd, hosts, PATIENCE);
        assert!(routers.iter().all(|router| !router.log().contains("panicked")));
    });
}
