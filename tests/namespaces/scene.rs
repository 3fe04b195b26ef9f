//! The stage of every test here: a laboratory that is looked over when the test has ended, and the usual two hosts.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use weave_router::host::lab::clock::{Stopwatch, pause};
use weave_router::host::lab::{BRIDGE, CONTAINER_INTERFACE, Container, Lab, Plug, Router, Wire, WireOptions, in_namespace, netns};

use crate::common::{laboratory, router, wait_until};

/// What all routers of a test share unless it is about passwords.
pub const PASSWORD: &[&str] = &["--password", "correct horse battery staple"];

/// The longest that anything here may take to come up, on a machine with more to do.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test in a laboratory of its own; fails it if anything is left when it has ended.
pub fn scene(test: impl FnOnce(&mut Lab)) {
    let Some(mut lab) = laboratory() else { return };
    let clock = Stopwatch::start();
    let (tag, before) = (lab.namespace(""), outside());
    let outcome = catch_unwind(AssertUnwindSafe(|| test(&mut lab)));
    drop(lab);
    println!("the scene took {:.1} s", clock.elapsed().as_secs_f64());
    let mut left = leftovers(&tag);
    left.extend(outside().into_iter().filter(|name| !before.contains(name)));
    if let Err(panic) = outcome {
        left.iter().for_each(|thing| eprintln!("left behind: {thing}"));
        resume_unwind(panic);
    }
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Interfaces outside of all laboratories that look like a router's: somebody may run one on this machine.
fn outside() -> Vec<String> {
    let interfaces = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names = interfaces.lines().filter_map(|line| line.split(':').next()).map(str::trim);
    names.filter(|name| name.starts_with("vethwe") || name.starts_with("weave-tap")).map(String::from).collect()
}

/// Namespaces, files and processes that carry the name of a laboratory.
fn leftovers(tag: &str) -> Vec<String> {
    let mut left: Vec<String> = netns::names().into_iter().filter(|name| name.starts_with(tag)).collect();
    let names = |dir: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    left.extend(names(&std::env::temp_dir()).into_iter().filter(|name| name.contains(tag)));
    for pid in names("/proc".as_ref()).into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(tag) {
            left.push(format!("process {pid}: {words}"));
        }
    }
    left
}

/// How two hosts are set up.
#[derive(Clone)]
pub struct Setting<'a> {
    /// The subnet between them.
    pub subnet: &'a str,
    /// Their cable.
    pub wire: WireOptions,
    /// Arguments of both routers.
    pub both: &'a [&'a str],
    /// Arguments of the first.
    pub first: &'a [&'a str],
    /// Arguments of the second, which is told the first.
    pub second: &'a [&'a str],
    /// How the containers are plugged in.
    pub plug: Plug,
}

impl Default for Setting<'_> {
    fn default() -> Self {
        Setting { subnet: "10.9.1.0/24", wire: WireOptions::default(), both: PASSWORD, first: &[], second: &[], plug: Plug::default() }
    }
}

/// Two hosts with a router and a container each. The second router was told the first.
pub struct Pair {
    /// Their cable.
    pub wire: Wire,
    /// The router on `h1`.
    pub r1: Router,
    /// The router on `h2`.
    pub r2: Router,
    /// The container on `h1`.
    pub c1: Container,
    /// The container on `h2`.
    pub c2: Container,
}

/// Two hosts whose routers run, whether or not they get along.
pub fn pair(lab: &mut Lab, setting: &Setting<'_>) -> Pair {
    lab.host("h1").expect("a host");
    lab.host("h2").expect("a host");
    let wire = lab.wire_with("h1", "h2", setting.subnet, setting.wire).expect("a wire");
    let first = [&["--nickname", "h1"], setting.both, setting.first].concat();
    let r1 = router(lab, "h1", &first);
    let peer = peer(wire.a.ip);
    let second = [&["--nickname", "h2", "--peer", &peer], setting.both, setting.second].concat();
    let r2 = router(lab, "h2", &second);
    let c1 = container(lab, "h1", "c1", 1, &setting.plug);
    let c2 = container(lab, "h2", "c2", 2, &setting.plug);
    Pair { wire, r1, r2, c1, c2 }
}

/// The usual pair, with its containers in touch.
pub fn connected_pair(lab: &mut Lab, setting: &Setting<'_>) -> Pair {
    let pair = pair(lab, setting);
    reaches(lab, "c1", pair.c2.ip);
    pair
}

/// An address as `--peer` takes it.
pub fn peer(ip: IpAddr) -> String {
    if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }
}

/// The n-th container, with an IPv4 address and an IPv6 one.
pub fn container(lab: &mut Lab, host: &str, name: &str, n: u8, plug: &Plug) -> Container {
    let container = lab.container_with(host, name, &format!("10.32.0.{n}/24"), plug).expect("a container");
    ip(lab, name, &format!("-6 addr add fd00:32::{n}/64 dev {CONTAINER_INTERFACE} nodad"));
    container
}

/// The IPv6 address of the n-th container.
pub fn v6(n: u8) -> IpAddr {
    format!("fd00:32::{n}").parse().expect("an address")
}

/// Runs `ip` in a namespace of the laboratory, with these words, and answers with what it prints.
#[track_caller]
pub fn ip(lab: &Lab, name: &str, words: &str) -> String {
    run(lab, name, "ip", words)
}

/// Runs a program that must succeed, with these words.
#[track_caller]
pub fn run(lab: &Lab, name: &str, program: &str, words: &str) -> String {
    succeed(lab, name, program, &words.split_whitespace().collect::<Vec<_>>())
}

/// Runs a shell script that must succeed.
#[track_caller]
pub fn shell(lab: &Lab, name: &str, script: &str) -> String {
    succeed(lab, name, "sh", &["-ec", script])
}

/// Loads nftables rules on a host.
#[track_caller]
pub fn nft(lab: &Lab, host: &str, rules: &str) {
    succeed(lab, host, "nft", &[rules]);
}

#[track_caller]
fn succeed(lab: &Lab, name: &str, program: &str, arguments: &[&str]) -> String {
    let output = lab.exec(name, program, arguments).expect("the program is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until an echo comes back.
#[track_caller]
pub fn reaches(lab: &Lab, from: &str, to: IpAddr) {
    asks_often(lab, from);
    wait_until(PATIENCE, &format!("{from} reaches {to}"), || echoes(lab, from, to));
}

/// True where one of many echo requests within a second is answered. Most are not waited for: whatever is lost while routers get to know each
/// other would cost a second otherwise.
pub fn echoes(lab: &Lab, from: &str, to: IpAddr) -> bool {
    lab.ping(from, to, "-c 1 -w 1 -i 0.05").expect("ping is installed")
}

/// True where nothing comes back: four requests are sent, and the last is waited for a second.
pub fn is_silent(lab: &Lab, from: &str, to: IpAddr) -> bool {
    !lab.ping(from, to, "-c 4 -i 0.1 -W 1").expect("ping is installed")
}

/// Has a namespace ask for the MACs of its neighbours on the mesh every tenth of a second instead of every second, and for as long as before.
fn asks_often(lab: &Lab, name: &str) {
    let set = || {
        for (family, interface) in ["ipv4", "ipv6"].into_iter().flat_map(|family| [(family, CONTAINER_INTERFACE), (family, BRIDGE)]) {
            for (knob, value) in [("retrans_time_ms", "100"), ("mcast_solicit", "30"), ("ucast_solicit", "30")] {
                // Most have one of the two interfaces, and some none.
                let _ = std::fs::write(format!("/proc/sys/net/{family}/neigh/{interface}/{knob}"), value);
            }
        }
    };
    in_namespace(&lab.namespace(name), set).expect("a namespace");
}

/// Ten echoes, all of which come back: `ping` itself is content with one.
#[track_caller]
pub fn traffic_goes_on(lab: &Lab, from: &str, to: IpAddr) {
    all_come_back(lab, from, to, 10, 50, "-W 2");
}

/// Sends echoes so many milliseconds apart, and holds that every one of them comes back.
///
/// Each is a `ping` of its own: one that sends several gives its last echo no longer than twice what the others took, which on a
/// busy machine is a few milliseconds, and never the time of `-W`.
#[track_caller]
pub fn all_come_back(lab: &Lab, from: &str, to: IpAddr, count: usize, every: u64, options: &str) {
    let one = format!("-c 1 {options}");
    let back = thread::scope(|scope| {
        let pings: Vec<_> = (0..count)
            .map(|n| {
                pause(Duration::from_millis(if n == 0 { 0 } else { every }));
                scope.spawn(|| lab.ping(from, to, &one).expect("ping is installed"))
            })
            .collect();
        pings.into_iter().filter_map(|ping| ping.join().ok()).filter(|back| *back).count()
    });
    assert_eq!(back, count, "echoes from {from} to {to} ({options}) that came back");
}

/// The rows of `status WHAT --json`.
#[track_caller]
pub fn rows(router: &Router, what: &str) -> Vec<Value> {
    let answer = router.status(what).expect("the router answers");
    answer.as_array().expect("an array").clone()
}

/// Those rows of `status connections --json` that stand in a state.
#[track_caller]
pub fn connections(router: &Router, state: &str) -> Vec<Value> {
    rows(router, "connections").into_iter().filter(|row| row["state"] == state).collect()
}

/// Waits until a router has this many links up.
#[track_caller]
pub fn links(router: &Router, count: usize) {
    wait_until(PATIENCE, &format!("{count} links are up"), || connections(router, "established").len() == count);
}

/// The sum of the counters whose plane and name the closure wants.
pub fn count(router: &Router, wanted: impl Fn(&str, &str) -> bool) -> u64 {
    let output = router.client(&["report"]).expect("the client runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let counters = report["counters"].as_array().expect("counters");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    counters.iter().filter(|c| wanted(&text(&c["plane"]), &text(&c["name"]))).filter_map(|c| c["value"].as_u64()).sum()
}

/// Lines of the log that hold these words.
pub fn lines(router: &Router, words: &str) -> Vec<String> {
    router.log().lines().filter(|line| line.contains(words)).map(String::from).collect()
}
