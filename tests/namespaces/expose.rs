//! The host itself on the network, its firewall, and subnets that are kept apart.

use std::time::Duration;

use weave_router::host::container::announce::announce;
use weave_router::host::lab::clock::wait_until as soon;
use weave_router::host::lab::traffic::{Echo, echo_once};
use weave_router::host::lab::{Lab, Router, in_namespace};

use crate::attach::{address, ask, container, hosts, refused};
use crate::common::{router, wait_until};
use crate::scene::{PASSWORD, PATIENCE, echoes, ip, is_silent, nft, reaches, run, scene};

fn once(lab: &Lab, from: &str, to: &str) -> bool {
    echoes(lab, from, address(to))
}

fn tables(lab: &Lab, host: &str) -> String {
    run(lab, host, "nft", "list tables").lines().filter(|line| line.contains("weave_router")).map(String::from).collect()
}

/// A host that forwards, with a host outside behind it.
fn with_an_outside(lab: &mut Lab, options: &[&str]) -> Router {
    lab.host("h1").expect("a host");
    lab.host("out").expect("a host");
    lab.wire("h1", "out", "10.9.7.0/24").expect("a wire");
    run(lab, "h1", "sysctl", "-qw net.ipv4.ip_forward=1");
    router(lab, "h1", &[PASSWORD, options].concat())
}

#[test]
fn expose_a_host_to_containers_of_both_and_hide_it() {
    scene(|lab| {
        let (one, two) = hosts(lab, &[]);
        let c2 = container(lab, "c2");
        ask(&two, &format!("attach ip:10.2.1.2/24 fd00:2::2/64 --netns {c2}"));
        assert_eq!(ask(&one, "expose ip:10.2.1.101/24 ip:fd00:2::101/64"), "10.2.1.101/24\nfd00:2::101/64\n");
        reaches(lab, "h1", address("10.2.1.2"));
        reaches(lab, "c2", address("fd00:2::101"));
        assert_eq!(ask(&one, "expose ip:10.2.1.101/24"), "10.2.1.101/24\n", "once more");
        let row = ask(&one, "ps weave:expose");
        assert!(row.starts_with("weave:expose ") && row.ends_with(" 10.2.1.101/24 fd00:2::101/64\n"), "{row}");
        assert!(ask(&one, "status").contains("Exposed: 10.2.1.101/24 fd00:2::101/64"));
        ask(&one, "expose ip:fd00:2::101/64 --without-masquerade --hostname gate");
        assert_eq!(ask(&one, "status expose"), "10.2.1.101/24 masqueraded\nfd00:2::101/64 as it is gate\n");
        assert_eq!(ask(&one, "status attachments"), row, "under either name");
        assert_eq!(ask(&one, "hide ip:10.2.1.101/24"), "10.2.1.101/24\n");
        assert_eq!(ask(&one, "hide ip:10.2.1.101/24"), "");
        assert!(is_silent(lab, "c2", address("10.2.1.101")));
        assert_eq!(ask(&one, "hide --all"), "fd00:2::101/64\n");
        assert_eq!((ask(&one, "ps"), tables(lab, "h1")), (String::new(), String::new()), "nothing is left");
        assert_eq!((ask(&one, "status expose"), ask(&one, "status").contains("Exposed: no\n")), (String::new(), true));
        assert!(!ip(lab, "h1", "addr show weave").contains("10.2.1.101"));
        assert!(refused(&one, "expose ip:10.2.1.0/24").contains("is a subnet"));
    });
}

#[test]
fn expose_lets_containers_out_and_its_flushed_rules_come_back() {
    scene(|lab| {
        let mut router = with_an_outside(lab, &[]);
        let c1 = container(lab, "c1");
        ask(&router, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        ask(&router, "expose ip:10.2.1.101/24");
        run(lab, "c1", "ip", "route add default via 10.2.1.101");
        reaches(lab, "c1", address("10.9.7.2"));
        // A host without a router reaches the container by a route.
        run(lab, "out", "ip", "route add 10.2.1.0/24 via 10.9.7.1");
        assert!(once(lab, "out", "10.2.1.1"));
        run(lab, "out", "ip", "route del 10.2.1.0/24");
        // Every time at once, not when they are looked after next.
        for round in 0..3 {
            run(lab, "h1", "nft", "flush ruleset");
            assert!(soon(Duration::from_secs(1), || tables(lab, "h1").contains("inet")), "round {round}");
        }
        wait_until(PATIENCE, "the rules are back", || once(lab, "c1", "10.9.7.2"));
        // A killed router's rules stay, and those of one that stopped: containers stay, too.
        router.process().kill().expect("killed");
        assert!(once(lab, "c1", "10.9.7.2"));
        router.restart().expect("started");
        router.stop().expect("stopped");
        assert!(once(lab, "c1", "10.9.7.2"));
        // The whole bridge goes, and all of it is back.
        ip(lab, "h1", "link del weave");
        router.restart().expect("started");
        reaches(lab, "c1", address("10.9.7.2"));
        ask(&router, "expose ip:10.2.1.101/24 --without-masquerade");
        assert!(is_silent(lab, "c1", address("10.9.7.2")), "the outside knows no way back");
        ask(&router, "hide --all");
        assert!(!tables(lab, "h1").contains("inet"));
        ask(&router, &format!("detach --all --netns {c1}"));
        wait_until(PATIENCE, "nothing is left", || tables(lab, "h1").is_empty());
    });
}

#[test]
fn expose_lets_another_host_reach_a_container_by_a_port_of_this_one() {
    scene(|lab| {
        let router = with_an_outside(lab, &[]);
        let c1 = container(lab, "c1");
        ask(&router, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        ask(&router, "expose ip:10.2.1.101/24");
        // As a published port is made; the container knows no way to the outside.
        let echo = Echo::start(&lab.namespace("c1"), address("10.2.1.1")).expect("an echo service");
        let port = echo.address().port();
        let rule = format!("ip daddr 10.9.7.1 udp dport {port} dnat to 10.2.1.1");
        nft(lab, "h1", &format!("table ip published {{ chain prerouting {{ type nat hook prerouting priority -100; {rule}; }}; }}"));
        let published = (address("10.9.7.1"), port).into();
        let reached = || echo_once(&lab.namespace("out"), published, 64, Duration::from_millis(500)).expect("sent").is_some();
        assert!(soon(PATIENCE, reached));
        ask(&router, "hide --all");
        assert!(!reached(), "it was by the exposed host");
    });
}

#[test]
fn expose_in_two_subnets_keeps_them_apart() {
    scene(|lab| {
        let router = with_an_outside(lab, &[]);
        let (c1, c2) = (container(lab, "c1"), container(lab, "c2"));
        ask(&router, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        ask(&router, &format!("attach ip:10.2.2.1/24 --netns {c2}"));
        ask(&router, "expose ip:10.2.1.101/24 ip:10.2.2.101/24");
        run(lab, "c1", "ip", "route add default via 10.2.1.101");
        run(lab, "c2", "ip", "route add default via 10.2.2.101");
        assert!(once(lab, "c1", "10.2.1.101") && once(lab, "h1", "10.2.2.1") && once(lab, "c2", "10.9.7.2"));
        assert!(is_silent(lab, "c1", address("10.2.2.1")) && is_silent(lab, "c2", address("10.2.1.1")));
        assert_eq!(ask(&router, "hide net:10.2.1.0/24"), "10.2.1.101/24\n");
        assert!(is_silent(lab, "c1", address("10.2.2.1")) && once(lab, "c2", "10.9.7.2"));
    });
}

#[test]
fn expose_isolated_containers_to_nobody_elses_subnet() {
    scene(|lab| {
        let (mut one, two) = hosts(lab, &["--isolate"]);
        let (c1, c2, c3) = (container(lab, "c1"), container(lab, "c2"), container(lab, "c3"));
        ask(&one, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        ask(&two, &format!("attach ip:10.2.1.2/24 --netns {c2}"));
        ask(&two, &format!("attach ip:10.2.2.3/24 --netns {c3}"));
        reaches(lab, "c1", address("10.2.1.2"));
        ip(lab, "c1", "addr add 10.2.2.1/24 dev ethwe");
        assert!(is_silent(lab, "c1", address("10.2.2.3")), "an address that it gave itself");
        // Nor does what it says of others reach them.
        ip(lab, "c1", "addr add 10.2.1.2/24 dev ethwe");
        let words: Vec<String> = ip(lab, "c1", "-o link show ethwe").split_whitespace().map(String::from).collect();
        let index = words[0].trim_end_matches(':').parse().expect("an index");
        let (macs, before) = (|lab: &Lab| ip(lab, "c3", "neigh show"), ip(lab, "c3", "neigh show"));
        let forged = [address("10.2.2.3"), address("10.2.2.9")];
        in_namespace(&lab.namespace("c1"), || announce(index, [2, 0, 0, 0, 0, 0x66], &forged)).expect("the namespace").expect("sent");
        assert_eq!(macs(lab), before);
        ip(lab, "c1", "addr del 10.2.1.2/24 dev ethwe");
        assert!(once(lab, "c1", "10.2.1.2"), "its own subnet is there all the time");
        // A restarted router has not learnt the stolen address.
        one.process().kill().expect("killed");
        assert!(is_silent(lab, "c1", address("10.2.2.3")));
        one.restart().expect("started");
        reaches(lab, "c1", address("10.2.1.2"));
        assert!(is_silent(lab, "c1", address("10.2.2.3")));
        // What was not given is no part of what is taken away.
        ask(&one, &format!("detach ip:10.2.1.1/24 --netns {c1}"));
        assert_eq!(ask(&one, "ps"), "");
        one.stop().expect("stopped");
        assert_eq!(tables(lab, "h1"), "", "nothing is left where nobody is attached");
    });
}

#[test]
fn expose_isolated_containers_to_no_subnet_that_only_another_host_has() {
    scene(|lab| {
        // Both lie outside of the range.
        let (mut one, two) = hosts(lab, &["--isolate"]);
        let (c1, c2) = (container(lab, "c1"), container(lab, "c2"));
        ask(&one, &format!("attach ip:10.99.1.1/24 --netns {c1}"));
        ask(&two, &format!("attach ip:10.99.2.2/24 --netns {c2}"));
        let table = |lab: &Lab, host: &str| run(lab, host, "nft", "list table bridge weave_router_weave");
        wait_until(PATIENCE, "each knows of the other's", || {
            table(lab, "h1").contains("10.99.2.0/24") && table(lab, "h2").contains("10.99.1.0/24")
        });
        ip(lab, "c1", "route add 10.99.2.0/24 dev ethwe");
        ip(lab, "c2", "route add 10.99.1.0/24 dev ethwe");
        assert!(is_silent(lab, "c1", address("10.99.2.2")));
        // Nor by a neighbour that need not be asked for.
        for (from, of, router) in [("c1", "10.99.2.2", &two), ("c2", "10.99.1.1", &one)] {
            let mac = ask(router, "ps").split(' ').nth(1).expect("a MAC").to_string();
            ip(lab, from, &format!("neigh replace {of} lladdr {mac} dev ethwe"));
        }
        assert!(is_silent(lab, "c1", address("10.99.2.2")));
        // What is said last counts, also where it is nothing.
        ask(&two, &format!("detach --all --netns {c2}"));
        wait_until(PATIENCE, "it is forgotten", || !table(lab, "h1").contains("10.99.2.0/24"));
        ask(&two, &format!("attach ip:10.99.3.2/24 --netns {c2}"));
        one.process().kill().expect("killed");
        one.restart().expect("started");
        wait_until(PATIENCE, "a router that starts hears of it", || table(lab, "h1").contains("10.99.3.0/24"));
    });
}

#[test]
fn expose_without_isolation_after_a_router_with_it() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let first = router(lab, "h1", &[PASSWORD, &["--isolate"]].concat());
        let (c1, c2) = (container(lab, "c1"), container(lab, "c2"));
        ask(&first, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        assert!(!tables(lab, "h1").is_empty());
        drop(first);
        assert!(!tables(lab, "h1").is_empty(), "a container is still there");
        let second = router(lab, "h1", PASSWORD);
        wait_until(PATIENCE, "the rules are gone", || !run(lab, "h1", "nft", "list ruleset").contains("from_arp"));
        ask(&second, &format!("attach ip:10.2.1.2/24 --netns {c2}"));
        assert!(once(lab, "c1", "10.2.1.2"));
    });
}

#[test]
fn expose_another_bridge_to_the_network() {
    scene(|lab| {
        let (mut one, two) = hosts(lab, &[]);
        lab.bridge("h1", "other0", None).expect("a bridge");
        ip(lab, "h1", "link set other0 up");
        let c2 = container(lab, "c2");
        ask(&two, &format!("attach ip:10.2.1.2/24 --netns {c2}"));
        let plug = weave_router::host::lab::Plug { bridge: "other0".into(), mtu: Some(1400), ..Default::default() };
        lab.container_with("h1", "c1", "10.2.1.1/24", &plug).expect("a container");
        assert!(is_silent(lab, "c1", address("10.2.1.2")));
        ask(&one, "attach-bridge other0");
        reaches(lab, "c1", address("10.2.1.2"));
        ask(&one, "attach-bridge other0");
        assert_eq!(ip(lab, "h1", "-o link show master other0").lines().count(), 2);
        // The pair follows the bridge: its MTU over a restart, and itself where somebody removed it.
        one.process().kill().expect("killed");
        one.restart_with(&[PASSWORD, &["--mtu", "1300"]].concat()).expect("started");
        let sizes = |lab: &Lab| -> Vec<bool> {
            let links = ip(lab, "h1", "-o link show type veth");
            links.lines().filter(|line| line.contains(" vethwb")).map(|line| line.contains(" mtu 1300 ")).collect()
        };
        wait_until(PATIENCE, "the pair has the bridge's MTU", || sizes(lab) == [true, true]);
        ip(lab, "h1", "link del weave");
        reaches(lab, "c1", address("10.2.1.2"));
    });
}
