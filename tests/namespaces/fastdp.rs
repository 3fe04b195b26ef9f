//! The fast datapath: unicast frames of trusted peers cross the underlay as VXLAN, by the kernel; everything else, and everybody else, by the router.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;
use weave_router::host::lab::clock::{Stopwatch, pause};
use weave_router::host::lab::{CONTAINER_INTERFACE, Capture, Lab, Plug, Router, in_namespace};

use crate::common::{router, wait_until};
use crate::flow::{Pulse, transfer};
use crate::scene::{
    PATIENCE, Pair, Setting, connected_pair, connections, container, ip, lines, links, nft, pair, reaches, run, scene, shell,
    traffic_goes_on,
};

const CLEAR: &[&str] = &["--password", "correct horse battery staple", "--no-encryption"];
const FAST: &[&str] = &["--password", "correct horse battery staple", "--no-encryption", "--fastdp"];

/// Two hosts whose routers use the fast datapath.
#[track_caller]
fn fast_pair(lab: &mut Lab) -> Pair {
    let pair = connected_pair(lab, &Setting { both: FAST, ..Setting::default() });
    both_are(&pair, "fastdp");
    pair
}

/// What carries frames to the peer of this nickname, and why.
fn datapath(router: &Router, nickname: &str) -> (String, String) {
    let row = connections(router, "established").into_iter().find(|row| row["nickname"] == nickname).unwrap_or_default();
    let text = |field: &str| row[field].as_str().unwrap_or_default().to_string();
    (text("datapath"), text("datapath_reason"))
}

#[track_caller]
fn becomes(router: &Router, nickname: &str, wanted: &str) {
    let mut last = (String::new(), String::new());
    let there = weave_router::host::lab::clock::wait_until(PATIENCE, || {
        last = datapath(router, nickname);
        last.0 == wanted
    });
    assert!(there, "the datapath to {nickname} should be {wanted}, and is {last:?}");
}

#[track_caller]
fn both_are(pair: &Pair, wanted: &str) {
    becomes(&pair.r1, "h2", wanted);
    becomes(&pair.r2, "h1", wanted);
}

/// Bytes that the VXLAN device of a host has sent and received.
fn vxlan_bytes(lab: &Lab, host: &str) -> (u64, u64) {
    device_bytes(lab, host, "weave-vxlan")
}

fn device_bytes(lab: &Lab, host: &str, device: &str) -> (u64, u64) {
    let shown: Value = serde_json::from_str(&ip(lab, host, &format!("-s -j link show {device}"))).expect("JSON");
    let of = |way: &str| shown[0]["stats64"][way]["bytes"].as_u64().expect("a count");
    (of("tx"), of("rx"))
}

/// The ports behind which the bridge of a host has this MAC.
fn behind(lab: &Lab, host: &str, mac: [u8; 6]) -> Vec<String> {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let table = run(lab, host, "bridge", "fdb show br weave");
    let entries = table.lines().filter(|line| line.starts_with(&mac) && line.contains("master"));
    entries.filter_map(|line| line.split_whitespace().skip_while(|word| *word != "dev").nth(1)).map(String::from).collect()
}

#[track_caller]
fn is_behind(lab: &Lab, host: &str, mac: [u8; 6], port: &str) {
    wait_until(PATIENCE, &format!("{host} has the MAC behind {port}"), || behind(lab, host, mac) == [port]);
}

fn leaves_nothing(lab: &Lab, host: &str) {
    let links = ip(lab, host, "-o link");
    assert!(!links.contains("weave-vxlan"), "{links}");
    let tables = run(lab, host, "nft", "list tables");
    assert!(!tables.contains("weave_fastdp"), "{tables}");
}

#[test]
fn unicast_takes_the_kernel_and_floods_take_the_router() {
    scene(|lab| {
        let mut pair = fast_pair(lab);
        is_behind(lab, "h1", pair.c2.mac, "weave-vxlan");
        is_behind(lab, "h2", pair.c1.mac, "weave-vxlan");
        let capture = Capture::start(lab, "h1", &pair.wire.a.interface, "udp port 6784").expect("tcpdump is installed");
        // The container asks by ARP again, which is a broadcast.
        ip(lab, "c1", "neigh flush all");
        traffic_goes_on(lab, "c1", pair.c2.ip);
        let bytes = capture.bytes().expect("a capture");
        let holds = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        let unicast = |to: [u8; 6], from: [u8; 6]| [to, from].concat();
        assert!(holds(&unicast(pair.c2.mac, pair.c1.mac)) && holds(&unicast(pair.c1.mac, pair.c2.mac)), "echoes go by VXLAN");
        assert!(!holds(&unicast([0xff; 6], pair.c1.mac)) && !holds(&unicast([0xff; 6], pair.c2.mac)), "broadcasts do not");

        let (before, router_before) = (vxlan_bytes(lab, "h1"), sent(&pair.r1));
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 100 << 20);
        let (after, router_after) = (vxlan_bytes(lab, "h1"), sent(&pair.r1));
        assert!(after.0 - before.0 > 100 << 20, "{before:?} {after:?}");
        assert!(router_after - router_before < 1 << 20, "the router carried {} bytes", router_after - router_before);
        transfer(&pair.c2.namespace, &pair.c1.namespace, crate::scene::v6(1), 10 << 20);
        assert!(vxlan_bytes(lab, "h1").1 > 10 << 20, "IPv6, and the other way");
        let page = run(lab, "h1", "curl", "-s http://127.0.0.1:6782/metrics");
        assert!(page.contains("weave_fastdp_peers 1"), "{page}");
        for (host, router) in [("h1", &mut pair.r1), ("h2", &mut pair.r2)] {
            assert!(router.stop().expect("stopped").is_some_and(|status| status.success()));
            leaves_nothing(lab, host);
        }
    });
}

#[test]
fn an_ipv6_underlay_has_a_device_of_its_own() {
    scene(|lab| {
        let mut pair = connected_pair(lab, &Setting { subnet: "fd00:9::/64", both: FAST, ..Setting::default() });
        both_are(&pair, "fastdp");
        is_behind(lab, "h1", pair.c2.mac, "weave-vxlan6");
        is_behind(lab, "h2", pair.c1.mac, "weave-vxlan6");
        let (before, router_before) = (device_bytes(lab, "h1", "weave-vxlan6"), sent(&pair.r1));
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 10 << 20);
        assert!(device_bytes(lab, "h1", "weave-vxlan6").0 - before.0 > 10 << 20, "the kernel carries it");
        assert!(sent(&pair.r1) - router_before < 1 << 20, "and the router does not");
        nft(lab, "h2", "table inet wall { chain c { type filter hook input priority 0; udp dport 6784 drop; }; }");
        both_are(&pair, "router");
        is_behind(lab, "h1", pair.c2.mac, "weave-tap");
        traffic_goes_on(lab, "c1", pair.c2.ip);
        for (host, router) in [("h1", &mut pair.r1), ("h2", &mut pair.r2)] {
            assert!(router.stop().expect("stopped").is_some_and(|status| status.success()));
            leaves_nothing(lab, host);
        }
    });
}

/// Bytes that the router has sent on its link.
fn sent(router: &Router) -> u64 {
    connections(router, "established").iter().filter_map(|row| row["tx_bytes"].as_u64()).sum()
}

#[test]
fn blocked_vxlan_falls_back_within_a_second_and_returns() {
    scene(|lab| {
        let pair = fast_pair(lab);
        for (host, hook) in [("h2", "input"), ("h1", "output")] {
            traffic_goes_on(lab, "c1", pair.c2.ip);
            let pulse = Pulse::start(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, Duration::from_millis(50));
            pause(Duration::from_millis(500));
            nft(lab, host, &format!("table inet wall {{ chain c {{ type filter hook {hook} priority 0; udp dport 6784 drop; }}; }}"));
            both_are(&pair, "router");
            is_behind(lab, "h1", pair.c2.mac, "weave-tap");
            is_behind(lab, "h2", pair.c1.mac, "weave-tap");
            assert!(datapath(&pair.r1, "h2").1.contains("VXLAN"), "{:?}", datapath(&pair.r1, "h2"));
            traffic_goes_on(lab, "c1", pair.c2.ip);
            let before = vxlan_bytes(lab, "h1");
            transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 3 << 20);
            assert!(vxlan_bytes(lab, "h1").0 - before.0 < 1 << 20, "the router carries it");
            nft(lab, host, "delete table inet wall");
            both_are(&pair, "fastdp");
            is_behind(lab, "h1", pair.c2.mac, "weave-vxlan");
            pause(Duration::from_millis(500));
            let silence = pulse.longest_silence();
            eprintln!("blocked at {hook} of {host}: the longest silence was {silence:?}");
            assert!(silence < Duration::from_millis(1300), "{hook} of {host}: {silence:?} of silence");
        }
    });
}

#[test]
fn one_end_alone_keeps_to_the_router_and_both_say_why() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting { both: CLEAR, second: &["--fastdp"], ..Setting::default() });
        links(&pair.r2, 1);
        wait_until(PATIENCE, "the reason is shown", || datapath(&pair.r2, "h1").1.contains("both ends"));
        assert_eq!(datapath(&pair.r1, "h2"), ("router".into(), "this router runs without --fastdp".into()));
        let before = vxlan_bytes(lab, "h2");
        transfer(&pair.c2.namespace, &pair.c1.namespace, pair.c1.ip, 3 << 20);
        assert!(vxlan_bytes(lab, "h2").0 - before.0 < 1 << 20);
    });
}

#[test]
fn trusted_subnets_allow_it_beside_encryption_where_both_ends_trust() {
    for (first, fast) in [("10.9.1.0/24", true), ("10.8.0.0/16", false)] {
        scene(|lab| {
            let first = ["--fastdp", "--trusted-subnets", first];
            // The ports may differ: each is told the other's.
            let second = ["--fastdp", "--trusted-subnets", "192.168.0.0/16,10.9.0.0/16", "--fastdp-port", "7784"];
            let pair = connected_pair(lab, &Setting { first: &first, second: &second, ..Setting::default() });
            let clear = || connections(&pair.r1, "established").first().is_some_and(|row| row["cipher"] == "none");
            if fast {
                wait_until(PATIENCE, "frames that fall back need no seal either", clear);
                both_are(&pair, "fastdp");
                let before = vxlan_bytes(lab, "h1").0;
                transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 3 << 20);
                assert!(vxlan_bytes(lab, "h1").0 - before > 3 << 20);
            } else {
                assert!(!clear());
                wait_until(PATIENCE, "the reason is shown", || datapath(&pair.r2, "h1").1.contains("does not trust our address"));
                assert!(datapath(&pair.r1, "h2").1.contains("--trusted-subnets"), "{:?}", datapath(&pair.r1, "h2"));
                traffic_goes_on(lab, "c1", pair.c2.ip);
            }
        });
    }
}

#[test]
fn a_mac_that_moves_is_followed_both_ways() {
    scene(|lab| {
        let pair = fast_pair(lab);
        let mac = [2, 0, 0, 0x77, 0, 1];
        let plug = Plug { mac: Some(mac), ..Plug::default() };
        for (round, (host, other)) in [("h1", "h2"), ("h2", "h1"), ("h1", "h2")].into_iter().enumerate() {
            let moving = container(lab, host, "moving", 9, &plug);
            // Its first frame: nothing more is needed.
            let clock = Stopwatch::start();
            lab.ping("moving", pair.c1.ip, "-c 1 -W 1").expect("ping is installed");
            reaches(lab, "c1", moving.ip);
            reaches(lab, "c2", moving.ip);
            assert!(clock.elapsed() < Duration::from_secs(4), "round {round}: {:?}", clock.elapsed());
            is_behind(lab, other, mac, "weave-vxlan");
            is_behind(lab, host, mac, &moving.host_end);
            traffic_goes_on(lab, "c1", moving.ip);
            traffic_goes_on(lab, "c2", moving.ip);
            if round < 2 {
                lab.remove("moving").expect("removed");
            }
        }
    });
}

#[test]
fn a_third_host_without_it_is_in_the_same_mesh() {
    scene(|lab| {
        let pair = fast_pair(lab);
        lab.host("h3").expect("a host");
        lab.wire("h1", "h3", "10.9.3.0/24").expect("a wire");
        lab.wire("h2", "h3", "10.9.4.0/24").expect("a wire");
        let r3 = router(lab, "h3", &[&["--nickname", "h3", "--peer", "10.9.3.1", "--peer", "10.9.4.1"], CLEAR].concat());
        let c3 = container(lab, "h3", "c3", 3, &Plug::default());
        links(&r3, 2);
        for (from, to) in [("c3", pair.c1.ip), ("c3", pair.c2.ip), ("c1", c3.ip), ("c2", c3.ip), ("c1", pair.c2.ip)] {
            reaches(lab, from, to);
            traffic_goes_on(lab, from, to);
        }
        is_behind(lab, "h1", c3.mac, "weave-tap");
        is_behind(lab, "h1", pair.c2.mac, "weave-vxlan");
        assert_eq!(datapath(&pair.r1, "h3").0, "router");
        both_are(&pair, "fastdp");
        transfer(&pair.c1.namespace, &c3.namespace, c3.ip, 5 << 20);
        transfer(&c3.namespace, &pair.c2.namespace, pair.c2.ip, 5 << 20);
    });
}

/// A VXLAN datagram with this frame in it.
fn in_vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0], &(vni << 8).to_be_bytes()[..], frame].concat()
}

#[test]
fn vxlan_of_strangers_is_not_let_in() {
    scene(|lab| {
        let pair = fast_pair(lab);
        let shown: Value = serde_json::from_str(&ip(lab, "h1", "-d -j link show weave-vxlan")).expect("JSON");
        let vni = u32::try_from(shown[0]["linkinfo"]["info_data"]["id"].as_u64().expect("an identifier")).expect("24 bits");
        ip(lab, "h2", &format!("addr add 10.9.1.77/24 dev {}", pair.wire.b.interface));
        // The container poses as the peer; nothing but our gate would stop it.
        ip(lab, "h1", "addr add 10.44.0.1/24 dev weave");
        shell(lab, "h1", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done");
        ip(lab, "c1", "addr add 10.9.1.2/32 dev lo");
        ip(lab, "c1", &format!("addr add 10.44.0.2/24 dev {CONTAINER_INTERFACE}"));
        ip(lab, "c1", "route add 10.9.1.1/32 via 10.44.0.1");
        let capture = Capture::start(lab, "c1", CONTAINER_INTERFACE, "ether proto 0x88b5").expect("tcpdump is installed");
        let peer = pair.wire.b.ip.to_string();
        let senders = [
            ("h2", "10.9.1.77", vni, "a stranger's frame"),
            ("h2", peer.as_str(), vni ^ 1, "another network's frame"),
            ("c1", peer.as_str(), vni, "a container's frame"),
            ("h2", peer.as_str(), vni, "the peer's own frame"),
        ];
        for (host, from, vni, mark) in senders {
            let frame = [&pair.c1.mac[..], &[2, 9, 9, 9, 9, 9], &[0x88, 0xb5], mark.as_bytes(), &[0; 40]].concat();
            let socket = in_namespace(&lab.namespace(host), || UdpSocket::bind((from, 0))).expect("a namespace").expect("a socket");
            socket.send_to(&in_vxlan(vni, &frame), (pair.wire.a.ip, 6784)).expect("sent");
        }
        let bytes = capture.bytes().expect("a capture");
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds("the peer's own frame"), "the test would see it");
        for (.., mark) in &senders[..3] {
            assert!(!holds(mark), "{mark}");
        }
        let said = run(lab, "h1", "nft", "list ruleset");
        assert!(said.contains("oif missing drop") && said.contains("@th,96,24"), "{said}");
    });
}

#[test]
fn a_killed_router_comes_back_to_it_and_one_without_it_cleans_up() {
    scene(|lab| {
        let mut pair = fast_pair(lab);
        pair.r1.process().kill().expect("killed");
        assert!(ip(lab, "h1", "-o link").contains("weave-vxlan"), "nobody is there to remove it");
        pair.r1.restart().expect("what is left is replaced");
        links(&pair.r1, 1);
        both_are(&pair, "fastdp");
        traffic_goes_on(lab, "c1", pair.c2.ip);
        pair.r1.process().kill().expect("killed");
        drop(pair.r1);
        let r1 = router(lab, "h1", &[&["--nickname", "h1"], CLEAR].concat());
        leaves_nothing(lab, "h1");
        links(&r1, 1);
        reaches(lab, "c1", pair.c2.ip);
        becomes(&pair.r2, "h1", "router");
    });
}

#[test]
fn a_port_that_is_taken_is_said_and_the_router_goes_on() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let taken = in_namespace(&lab.namespace("h1"), || UdpSocket::bind("0.0.0.0:6784")).expect("a namespace").expect("a socket");
        // The usual second host, and the first beside the socket.
        lab.host("h2").expect("a host");
        let wire = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
        let r1 = router(lab, "h1", &[&["--nickname", "h1"], FAST].concat());
        let r2 = router(lab, "h2", &[&["--nickname", "h2", "--peer", &wire.a.ip.to_string()], FAST].concat());
        container(lab, "h1", "c1", 1, &Plug::default());
        let c2 = container(lab, "h2", "c2", 2, &Plug::default());
        reaches(lab, "c1", c2.ip);
        wait_until(PATIENCE, "the log says why", || lines(&r1, "UDP port 6784 is taken").len() == 1);
        assert!(datapath(&r1, "h2").1.contains("6784 is taken"), "{:?}", datapath(&r1, "h2"));
        wait_until(PATIENCE, "the other end says it", || datapath(&r2, "h1").1.contains("no VXLAN device"));
        leaves_nothing(lab, "h1");
        drop(taken);
        becomes(&r1, "h2", "fastdp");
        traffic_goes_on(lab, "c1", c2.ip);
    });
}

#[test]
fn a_port_that_is_taken_for_ipv6_alone_is_left_to_its_owner() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let owner = in_namespace(&lab.namespace("h1"), || UdpSocket::bind("[::1]:6784")).expect("a namespace").expect("a socket");
        owner.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        lab.host("h2").expect("a host");
        let wire = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
        let r1 = router(lab, "h1", &[&["--nickname", "h1"], FAST].concat());
        let _r2 = router(lab, "h2", &[&["--nickname", "h2", "--peer", &wire.a.ip.to_string()], FAST].concat());
        becomes(&r1, "h2", "fastdp");
        assert_eq!(lines(&r1, "works over IPv4 only").len(), 1);
        assert!(!ip(lab, "h1", "-o link").contains("weave-vxlan6"));
        let other = in_namespace(&lab.namespace("h1"), || UdpSocket::bind("[::1]:0")).expect("a namespace").expect("a socket");
        other.send_to(b"hello", "[::1]:6784").expect("sent");
        assert_eq!(owner.recv(&mut [0; 16]).expect("what comes to its port is let in"), 5);
    });
}

#[test]
fn what_somebody_removes_is_put_back() {
    scene(|lab| {
        let pair = fast_pair(lab);
        let mac = pair.c2.mac.map(|byte| format!("{byte:02x}")).join(":");
        is_behind(lab, "h1", pair.c2.mac, "weave-vxlan");
        shell(lab, "h1", &format!("bridge fdb del {mac} dev weave-vxlan master; bridge fdb del {mac} dev weave-vxlan self"));
        is_behind(lab, "h1", pair.c2.mac, "weave-vxlan");
        // As a firewall that is started anew does.
        run(lab, "h1", "nft", "flush ruleset");
        wait_until(PATIENCE, "the VXLAN port is guarded again", || run(lab, "h1", "nft", "list ruleset").contains("10.9.1.2"));
        // At once, and not with the next look, of which there is one every three seconds.
        for round in 0..4 {
            run(lab, "h1", "nft", if round % 2 == 0 { "flush ruleset" } else { "flush chain inet weave_fastdp input" });
            let back = || run(lab, "h1", "nft", "list ruleset").contains("@peers");
            assert!(weave_router::host::lab::clock::wait_until(Duration::from_millis(500), back), "round {round}");
        }
        for meddling in ["link del weave-vxlan", "link set weave-vxlan nomaster", "link set weave-vxlan down", "link del weave-tap"] {
            ip(lab, "h1", meddling);
            pause(Duration::from_secs(1));
            reaches(lab, "c1", pair.c2.ip);
            both_are(&pair, "fastdp");
            is_behind(lab, "h1", pair.c2.mac, "weave-vxlan");
            let before = vxlan_bytes(lab, "h1").0;
            transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 2 << 20);
            assert!(vxlan_bytes(lab, "h1").0 - before > 2 << 20, "{meddling}");
        }
        // What happens to the device for IPv6 is nothing to the other one. As often as it takes: the router may have made another meanwhile.
        let number = || ip(lab, "h1", "-o link show weave-vxlan").split(':').next().map(str::to_string);
        let before = number();
        let swap = "until ip link set other name weave-vxlan6 2>/dev/null; do ip link del weave-vxlan6 || true; done";
        shell(lab, "h1", &format!("ip link add other type veth peer name another; {swap}"));
        wait_until(PATIENCE, "the reason is said", || !lines(&pair.r1, "works over IPv4 only").is_empty());
        assert_eq!((number(), datapath(&pair.r1, "h2").0.as_str()), (before, "fastdp"));
    });
}

#[test]
fn without_a_device_nothing_of_it_is_left_on_the_bridge() {
    scene(|lab| {
        let pair = fast_pair(lab);
        nft(lab, "h1", "table inet wall { chain c { type filter hook output priority 0; udp dport 6784 drop; }; }");
        is_behind(lab, "h1", pair.c2.mac, "weave-tap");
        let taught = || run(lab, "h1", "bridge", "fdb show br weave").lines().filter(|line| line.contains("extern_learn")).count();
        assert!(taught() > 0);
        // As often as it takes: the router may have made another meanwhile.
        let swap = "until ip link set other name weave-vxlan 2>/dev/null; do ip link del weave-vxlan || true; done";
        shell(lab, "h1", &format!("ip link add other type veth peer name another; {swap}"));
        wait_until(PATIENCE, "the reason is shown", || datapath(&pair.r1, "h2").1.contains("kind veth"));
        wait_until(PATIENCE, "the bridge learns by itself again", || taught() == 0);
        traffic_goes_on(lab, "c1", pair.c2.ip);
        ip(lab, "h1", "link del weave-vxlan");
        nft(lab, "h1", "delete table inet wall");
        both_are(&pair, "fastdp");
        is_behind(lab, "h1", pair.c2.mac, "weave-vxlan");
    });
}

#[test]
fn a_narrow_path_is_left_to_the_router() {
    scene(|lab| {
        let both = [FAST, &["--mtu", "1472"]].concat();
        let pair = pair(lab, &Setting { both: &both, ..Setting::default() });
        links(&pair.r1, 1);
        wait_until(PATIENCE, "the reason is shown", || datapath(&pair.r1, "h2").1.contains("a smaller --mtu"));
        assert_eq!(datapath(&pair.r1, "h2").0, "router");
        reaches(lab, "c1", pair.c2.ip);
    });
}
