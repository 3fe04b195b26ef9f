//! Every offload switched off by itself against a router that uses all, containers with and without checksum offload and of any MTU:
//! whatever a bridge may hold, the content is the same.

use std::io::IoSlice;
use std::time::Duration;

use weave_router::forward::testkit::{Recipe, kernel, mac};
use weave_router::host::lab::clock::{Stopwatch, pause};
use weave_router::host::lab::{CONTAINER_INTERFACE, Container, Lab, Plug, Router, in_namespace};
use weave_router::io::offload::OffloadPolicy;
use weave_router::io::sys::ethtool::{Feature, set_feature};
use weave_router::io::tap::{MIN_BUFFER, Tap};

use crate::common::{router, wait_until};
use crate::flow::transfer;
use crate::scene::{PASSWORD, PATIENCE, all_come_back, container, ip, links, nft, reaches, rows, scene, shell, v6};
use crate::sizes::{bursts, datagrams};

/// What each of the routers around the first is told, and one word of its status.
const SWITCHED: [(&str, &str); 7] = [
    ("no-tso", "tap_tso4"),
    ("no-uso", "tap_uso"),
    ("no-ecn", "tap_tso_ecn"),
    ("no-csum", "tap_checksum"),
    ("no-gso", "udp_gso"),
    ("no-gro", "udp_gro"),
    ("off", "tap_checksum"),
];

/// Bytes of each TCP transfer: some tens of super frames.
const STREAM: usize = 1 << 20;

/// A router that uses every offload, with a link to one for each of [`SWITCHED`], and a container beside each.
struct Star {
    middle: (Router, Container),
    rays: Vec<(Router, Container)>,
}

fn star(lab: &mut Lab) -> Star {
    lab.host("h1").expect("a host");
    let first = router(lab, "h1", &[&["--nickname", "h1"], PASSWORD].concat());
    let mut rays = Vec::new();
    for (n, (offload, _)) in (2u8..).zip(SWITCHED) {
        let (host, name) = (format!("h{n}"), format!("c{n}"));
        lab.host(&host).expect("a host");
        let wire = lab.wire("h1", &host, &format!("10.9.{n}.0/24")).expect("a wire");
        let peer = wire.a.ip.to_string();
        let arguments = [&["--nickname", &host, "--peer", &peer, "--offload", offload], PASSWORD].concat();
        let router = router(lab, &host, &arguments);
        rays.push((router, container(lab, &host, &name, n, &Plug::default())));
    }
    let hub = container(lab, "h1", "c1", 1, &Plug::default());
    links(&first, SWITCHED.len());
    for (_, far) in &rays {
        reaches(lab, "c1", far.ip);
    }
    Star { middle: (first, hub), rays }
}

/// Switches an offload of a container's own interface.
fn switch(container: &Container, feature: Feature, on: bool) {
    let set = || set_feature(CONTAINER_INTERFACE, feature, on);
    in_namespace(&container.namespace, set).expect("a namespace").unwrap_or_else(|e| panic!("{feature:?} of {}: {e}", container.name));
}

/// Everything from one container to another, and back.
#[track_caller]
fn exchange(lab: &Lab, a: &Container, b: &Container) {
    let n = |container: &Container| container.name.trim_start_matches('c').parse::<u8>().expect("a number");
    for (from, to) in [(a, b), (b, a)] {
        transfer(&from.namespace, &to.namespace, to.ip, STREAM);
        transfer(&from.namespace, &to.namespace, v6(n(to)), STREAM);
        datagrams(&from.namespace, &to.namespace, to.ip, 12);
        datagrams(&from.namespace, &to.namespace, v6(n(to)), 12);
        bursts(from, to);
        for far in [to.ip, v6(n(to))] {
            all_come_back(lab, &from.name, far, 3, 10, "-W 5 -s 30000");
        }
    }
}

#[test]
fn whatever_is_switched_off_the_content_is_the_same() {
    scene(|lab| {
        let Star { middle: (_first, hub), rays } = star(lab);
        for ((router, _), (offload, shown)) in rays.iter().zip(SWITCHED) {
            let status = router.client(&["status"]).expect("the client runs");
            let status = String::from_utf8_lossy(&status.stdout).into_owned();
            let reason = format!("off (switched off by --offload {offload})");
            assert!(status.lines().any(|line| line.contains(shown) && line.contains(&reason)), "{offload}: {status}");
        }
        for (_, far) in &rays {
            // Otherwise its kernel would believe every checksum.
            switch(far, Feature::RxChecksum, false);
        }
        switch(&hub, Feature::RxChecksum, false);
        for (_, far) in &rays {
            exchange(lab, &hub, far);
        }
        // Through the relay, both ends without something.
        for (a, b) in [(0, 3), (6, 1), (5, 4)] {
            exchange(lab, &rays[a].1, &rays[b].1);
        }
        // Containers that finish their checksums themselves, and so send no super frames either, on one end and on both.
        switch(&hub, Feature::TxChecksum, false);
        exchange(lab, &hub, &rays[3].1);
        switch(&rays[0].1, Feature::TxChecksum, false);
        exchange(lab, &hub, &rays[0].1);
        exchange(lab, &rays[0].1, &rays[6].1);
    });
}

#[test]
fn congestion_is_signalled_through_super_frames() {
    scene(|lab| {
        let Star { middle: (_first, hub), rays } = star(lab);
        for container in rays.iter().map(|(_, far)| far).chain([&hub]) {
            shell(lab, &container.name, "cd /proc/sys/net/ipv4; echo 1 >tcp_ecn; echo reno >tcp_congestion_control");
            // Every receiver finds congestion marked now and then; its peer answers with CWR.
            let rule = "table inet congestion { chain in { type filter hook prerouting priority -300; \
                        ip ecn ect0 numgen random mod 20 == 0 ip ecn set ce; ip6 ecn ect0 numgen random mod 20 == 0 ip6 ecn set ce; }; }";
            nft(lab, &container.name, rule);
        }
        for (_, far) in &rays {
            transfer(&hub.namespace, &far.namespace, far.ip, STREAM);
            transfer(&far.namespace, &hub.namespace, v6(1), STREAM);
        }
        transfer(&rays[2].1.namespace, &rays[0].1.namespace, rays[0].1.ip, STREAM);
        let counted = shell(lab, "c1", "cat /proc/net/netstat");
        let mut tables = counted.lines().filter(|line| line.starts_with("TcpExt:")).map(|line| line.split(' ').collect::<Vec<_>>());
        let (names, values) = (tables.next().expect("names"), tables.next().expect("values"));
        let at = names.iter().position(|name| *name == "TCPDeliveredCE").expect("this kernel counts it");
        assert_ne!(values[at], "0", "the sender was told of congestion");
    });
}

/// A container with an address of each family from its number.
fn sized(lab: &mut Lab, host: &str, n: u8, mtu: u16) -> Container {
    container(lab, host, &format!("c{n}"), n, &Plug { mtu: Some(mtu), ..Plug::default() })
}

#[test]
fn containers_of_any_mtu_understand_each_other() {
    scene(|lab| {
        let sizes = [1280, 1420, 1500, 9000];
        lab.host("h1").expect("a host");
        lab.host("h2").expect("a host");
        let wire = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
        let first = router(lab, "h1", PASSWORD);
        let second = router(lab, "h2", &[&["--peer", &wire.a.ip.to_string(), "--offload", "no-uso,no-csum"], PASSWORD].concat());
        let here: Vec<Container> = (11..).zip(sizes).map(|(n, mtu)| sized(lab, "h1", n, mtu)).collect();
        let there: Vec<Container> = (21..).zip(sizes).map(|(n, mtu)| sized(lab, "h2", n, mtu)).collect();
        reaches(lab, "c11", there[0].ip);
        links(&first, 1);
        for (n, a) in (11u8..).zip(&here) {
            for (m, b) in (21u8..).zip(&there) {
                transfer(&a.namespace, &b.namespace, b.ip, STREAM / 2);
                transfer(&b.namespace, &a.namespace, v6(n), STREAM / 2);
                let least = sizes[usize::from(n - 11)].min(sizes[usize::from(m - 21)]);
                // Larger packets than the path's that may be cut; not larger than the far container takes, as on any Ethernet.
                all_come_back(lab, &a.name, b.ip, 2, 10, &format!("-W 5 -M dont -s {}", least - 28));
            }
        }
        // One that finishes its own checksums and believes in 9000: single large packets instead of super frames.
        switch(&here[3], Feature::TxChecksum, false);
        for (m, b) in (21u8..).zip(&there) {
            transfer(&here[3].namespace, &b.namespace, v6(m), STREAM / 2);
            transfer(&b.namespace, &here[3].namespace, here[3].ip, STREAM / 2);
        }
        assert_eq!(rows(&second, "connections").len(), 1);
    });
}

/// A TAP beside the router's on a host's bridge, which sends and receives super frames as a virtual machine does.
fn machine(lab: &Lab, host: &str, name: &str) -> Tap {
    let made = in_namespace(&lab.namespace(host), || Tap::open(name, OffloadPolicy::Auto, false)).expect("a namespace");
    ip(lab, host, &format!("link set {name} addrgenmode none mtu 65521 master weave up"));
    made.expect("a TAP")
}

/// Frames to one MAC that come out of a TAP, as packets, until there are `count` of them.
fn packets_to(tap: &mut Tap, destination: [u8; 6], count: usize) -> Vec<Vec<u8>> {
    let (clock, mut buffer, mut got) = (Stopwatch::start(), vec![0; MIN_BUFFER], Vec::new());
    while got.len() < count && clock.elapsed() < Duration::from_secs(5) {
        match tap.read(&mut buffer).expect("the TAP is read") {
            Some((vnet, bytes)) if bytes.starts_with(&destination) => {
                assert_eq!(kernel::refusal(&vnet, bytes), None, "what a kernel says of its own frame");
                got.extend(kernel::packets(&vnet, bytes));
            }
            Some(_) => {}
            None => pause(Duration::from_millis(1)),
        }
    }
    got.into_iter().map(kernel::without_free_id).collect()
}

/// Sends a super frame from one TAP and expects its packets at another.
#[track_caller]
fn super_frame(from: &mut Tap, to: &mut Tap, recipe: &Recipe, gso_size: u16, service_tag: bool) {
    let (vnet, mut bytes) = (recipe.vnet(gso_size), recipe.frame());
    if service_tag {
        bytes[12..14].copy_from_slice(&[0x88, 0xa8]);
    }
    let sent = kernel::packets(&vnet, &bytes).into_iter().map(kernel::without_free_id).collect::<Vec<_>>();
    from.write_frame(&vnet, &[IoSlice::new(&bytes)]).expect("written");
    let got = packets_to(to, mac(recipe.destination), sent.len());
    assert!(got == sent, "{recipe:?} in segments of {gso_size}: {} packets of {}", got.len(), sent.len());
}

/// The TAP of MAC `from` is heard of at the other; the first frame is lost while the bridge's port is not up yet.
fn meet(near: &mut Tap, far: &mut Tap, from: u8) {
    let hello = Recipe { tcp: false, payload: 10, source: from, destination: 3 - from, ..Recipe::default() };
    wait_until(PATIENCE, "a frame arrives", || {
        near.write_frame(&hello.vnet(0), &[IoSlice::new(&hello.frame())]).expect("written");
        !packets_to(far, mac(3 - from), 1).is_empty()
    });
}

#[test]
fn tagged_super_frames_arrive_as_the_same_packets() {
    scene(|lab| {
        for offload in ["auto", "no-tso,no-uso", "no-csum", "off"] {
            let (here, there) = (format!("h1{}", offload.len()), format!("h2{}", offload.len()));
            lab.host(&here).expect("a host");
            lab.host(&there).expect("a host");
            let wire = lab.wire(&here, &there, "10.9.1.0/24").expect("a wire");
            let first = router(lab, &here, PASSWORD);
            let second = router(lab, &there, &[&["--peer", &wire.a.ip.to_string(), "--offload", offload], PASSWORD].concat());
            links(&first, 1);
            let (mut near, mut far) = (machine(lab, &here, "vm1"), machine(lab, &there, "vm2"));
            for router in [&first, &second] {
                wait_until(PATIENCE, "the path is measured", || rows(router, "routes").iter().any(|route| route["mtu"] == 1420));
            }
            meet(&mut near, &mut far, 1);
            meet(&mut far, &mut near, 2);
            for (tags, service_tag) in [(vec![], false), (vec![5], false), (vec![7, 5], false), (vec![7, 5], true), (vec![7], true)] {
                for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
                    // What the kernel of the bridge learns is per MAC, ours per VLAN and MAC: the first in a VLAN is flooded.
                    let there = Recipe { v6, tcp, tags: tags.clone(), payload: 33_333, ..Recipe::default() };
                    let back = Recipe { source: 2, destination: 1, flags: 0x19, ..there.clone() };
                    super_frame(&mut near, &mut far, &there, 1200, service_tag);
                    super_frame(&mut far, &mut near, &back, 1333, service_tag);
                    super_frame(&mut near, &mut far, &Recipe { payload: 700, ..there }, 0, service_tag);
                }
            }
        }
    });
}
