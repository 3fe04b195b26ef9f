//! The rules as the kernel takes them, in network namespaces; they need root and `nft`.

use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::time::Duration;

use rtnetlink::LinkUnspec;
use socket2::{Domain, Socket, Type};

use super::*;
use crate::forward::membership::questions;
use crate::host::container::rig::{Rig, net};
use crate::host::container::{INTERFACE, expose, found};
use crate::host::lab::clock::{pause, wait_until};
use crate::host::lab::{BRIDGE, Capture, in_namespace, with_netlink};
use crate::host::link;
use crate::io::sys::packet;

/// MAC of the bridge.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A host with containers that are attached, and their ports.
struct Scene {
    rig: Rig,
    ports: Vec<Port>,
}

impl Deref for Scene {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.rig
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Rig {
        &mut self.rig
    }
}

impl Scene {
    fn new() -> Option<Scene> {
        let rig = Rig::new("wru")?;
        let index = rig.bridge.index;
        let set = |handle| async move {
            link::set(&handle, LinkUnspec::new_with_index(index).address(MAC.to_vec()).build(), "set the MAC").await.expect("set");
        };
        with_netlink(&rig.host, set).expect("the namespace");
        Some(Scene { rig, ports: Vec::new() })
    }

    fn container(&mut self, name: &str, addresses: &[&str]) {
        let order = self.rig.container(name, addresses);
        let attached = self.attach(&order).expect("attached");
        self.ports.push(Port { name: attached.host_end, mac: attached.mac, addresses: order.addresses });
    }

    fn expose(&self, address: &str) {
        let (bridge, address) = (self.bridge.clone(), net(address));
        with_netlink(&self.host, |handle| async move { expose::expose(&handle, &bridge, address).await.expect("exposed") })
            .expect("the namespace");
    }

    fn rules(&self, exposed: &[(&str, bool)], isolate: bool) -> Rules {
        let exposed = exposed.iter().map(|(address, masquerade)| Exposure { address: net(address), masquerade: *masquerade }).collect();
        let mesh = vec![net("10.2.0.0/16"), net("10.2.1.0/24"), net("fd00:2::/32")];
        Rules { mac: MAC, exposed, mesh, ports: self.ports.clone(), isolate }
    }

    fn write(&self, rules: &Rules) {
        in_namespace(&self.host, || write(BRIDGE, rules)).expect("the namespace").expect("written");
    }
}

#[test]
fn a_table_is_named_after_its_bridge() {
    assert_eq!(table("weave"), "weave_router_weave");
    assert_eq!(table("br-0.1"), "weave_router_br_2d0_2e1");
    assert_ne!(table("br-0"), table("br_0"));
    let error = write("br\"0", &Rules::default()).expect_err("refused").to_string();
    assert!(error.contains("--bridge"), "{error}");
}

#[test]
fn nothing_to_say_leaves_no_table() {
    let Some(scene) = Scene::new() else { return };
    scene.write(&scene.rules(&[("10.2.1.99/24", true)], true));
    scene.write(&scene.rules(&[("10.2.1.99/24", true)], true));
    assert!(scene.run("h1", "nft list tables").lines().count() == 2);
    scene.write(&Rules::default());
    assert_eq!(scene.run("h1", "nft list tables"), "");
    in_namespace(&scene.host, || remove(BRIDGE)).expect("the namespace").expect("removed");
}

#[test]
fn an_exposed_subnet_reaches_the_outside_with_the_hosts_address() {
    let Some(mut scene) = Scene::new() else { return };
    scene.lab.host("out").expect("a host");
    scene.lab.wire("h1", "out", "10.9.1.0/24").expect("a wire");
    scene.container("c1", &["10.2.1.1/24", "fd00:2::1/64"]);
    scene.run("h1", "sysctl -qw net.ipv4.ip_forward=1");
    scene.expose("10.2.1.99/24");
    scene.run("c1", "ip route add default via 10.2.1.99");
    assert!(!scene.ping("c1", "10.9.1.2"), "the outside knows no way back");
    scene.write(&scene.rules(&[("10.2.1.99/24", false)], false));
    assert!(!scene.ping("c1", "10.9.1.2"), "it is exposed without masquerading");
    scene.write(&scene.rules(&[("10.2.1.99/24", true)], false));
    assert!(scene.ping("c1", "10.9.1.2"));
    // A host outside has a route; the container needs none.
    scene.run("out", "ip route add 10.2.1.0/24 via 10.9.1.1");
    scene.run("c1", "ip route del default");
    assert!(scene.ping("out", "10.2.1.1"));
}

#[test]
fn the_host_routes_nothing_from_one_subnet_into_another() {
    let Some(mut scene) = Scene::new() else { return };
    scene.container("c1", &["10.2.1.1/24"]);
    scene.container("c2", &["10.2.2.1/24"]);
    scene.run("h1", "sysctl -qw net.ipv4.ip_forward=1");
    for address in ["10.2.1.99/24", "10.2.2.99/24"] {
        scene.expose(address);
    }
    scene.run("c1", "ip route add default via 10.2.1.99");
    scene.run("c2", "ip route add default via 10.2.2.99");
    assert!(scene.ping("c1", "10.2.2.1"), "without rules it would");
    scene.write(&scene.rules(&[("10.2.1.99/24", true), ("10.2.2.99/24", true)], false));
    assert!(!scene.ping("c1", "10.2.2.1") && !scene.ping("c2", "10.2.1.1"));
    assert!(scene.ping("c1", "10.2.1.99") && scene.ping("h1", "10.2.1.1") && scene.ping("h1", "10.2.2.1"));
}

#[test]
fn what_another_host_routes_here_is_seen_as_it_is() {
    let Some(mut scene) = Scene::new() else { return };
    let knob = scene.run("h1", "cat /proc/sys/net/bridge/bridge-nf-call-iptables");
    if knob.trim() != "1" {
        return eprintln!("skipped: this kernel does not show bridged frames to the host's firewall");
    }
    scene.container("c1", &["10.2.1.1/24"]);
    scene.container("gate", &["10.2.1.98/24"]);
    scene.expose("10.2.1.99/24");
    scene.write(&scene.rules(&[("10.2.1.99/24", true)], false));
    // What an exposed host elsewhere has routed, without masquerading, comes over the bridge with the address of a client outside.
    scene.run("gate", "ip addr add 10.9.7.2/32 dev lo");
    scene.run("c1", "ip route add 10.9.7.0/24 via 10.2.1.98");
    let capture = Capture::start(&scene.lab, "c1", INTERFACE, "icmp").expect("tcpdump");
    let heard = scene.lab.exec("gate", "ping", &["-c", "1", "-W", "1", "-I", "10.9.7.2", "10.2.1.1"]).expect("ping");
    let seen = capture.lines().expect("packets");
    assert!(seen.iter().any(|line| line.contains("10.9.7.2 > 10.2.1.1: ICMP echo request")), "{seen:?}");
    assert!(heard.status.success(), "{seen:?}");
}

#[test]
fn multicast_stays_in_its_subnet() {
    let Some(mut scene) = Scene::new() else { return };
    scene.container("c1", &["10.2.1.1/24"]);
    scene.container("c2", &["10.2.1.2/24"]);
    scene.container("c3", &["10.2.2.1/24"]);
    let heard = |scene: &Scene| {
        let captures = ["c2", "c3"].map(|name| Capture::start(&scene.lab, name, INTERFACE, "udp port 9").expect("tcpdump"));
        let sent = in_namespace(&scene.lab.namespace("c1"), || {
            let socket = std::net::UdpSocket::bind("10.2.1.1:0")?;
            socket.send_to(b"x", "239.1.1.1:9").and(socket.send_to(b"x", "10.2.1.2:9"))
        });
        assert_eq!(sent.expect("the namespace").expect("sent"), 1);
        captures.map(|capture| capture.lines().expect("packets").iter().any(|line| line.contains("239.1.1.1.9:")))
    };
    assert_eq!(heard(&scene), [true, true], "without rules");
    for isolate in [false, true] {
        scene.write(&scene.rules(&[], isolate));
        assert_eq!(heard(&scene), [true, false], "isolated: {isolate}");
    }
}

#[test]
fn an_isolated_container_is_itself_and_nobody_else() {
    let Some(mut scene) = Scene::new() else { return };
    for (name, addresses) in
        [("c1", ["10.2.1.1/24", "fd00:2:1::1/64"]), ("c2", ["10.2.1.2/24", "fd00:2:1::2/64"]), ("c3", ["10.2.2.1/24", "fd00:2:2::1/64"])]
    {
        scene.container(name, &addresses);
    }
    // One that adds an address of another subnet is in it.
    scene.run("c1", "ip addr add 10.2.2.7/24 dev ethwe");
    scene.run("c1", "ip -6 addr add fd00:2:2::7/64 dev ethwe nodad");
    assert!(scene.ping("c1", "10.2.2.1") && scene.ping("c1", "fd00:2:2::1"), "it reaches that without rules");
    let shown = scene.run("c3", "ip -6 -o addr show dev ethwe scope link");
    let local = shown.split_whitespace().find(|word| word.starts_with("fe80:")).and_then(|word| word.split('/').next());
    let by_link = format!("ping -6 -c 1 -W 1 {}%ethwe", local.expect("a link-local address"));
    let links = |scene: &Scene| scene.lab.exec("c1", "sh", &["-c", &by_link]).expect("ping").status.success();
    assert!(wait_until(Duration::from_secs(5), || links(&scene)), "by its link-local address, too");
    scene.write(&scene.rules(&[], true));
    assert!(!links(&scene), "which is for neighbour discovery alone");
    assert!(scene.ping("c1", "10.2.1.2") && scene.ping("c1", "fd00:2:1::2"), "its own subnet");
    assert!(!scene.ping("c1", "10.2.2.1") && !scene.ping("c1", "fd00:2:2::1"), "no other");
    // Nor by a route and its own address, with or without ARP.
    scene.run("c1", "ip addr del 10.2.2.7/24 dev ethwe");
    scene.run("c1", "ip route add 10.2.2.0/24 dev ethwe src 10.2.1.1");
    scene.run("c3", "ip route add 10.2.1.0/24 dev ethwe src 10.2.2.1");
    assert!(!scene.ping("c1", "10.2.2.1"));
    let mac = |port: &Port| mac_text(port.mac);
    scene.run("c1", &format!("ip neigh replace 10.2.2.1 lladdr {} dev ethwe", mac(&scene.ports[2])));
    scene.run("c3", &format!("ip neigh replace 10.2.1.1 lladdr {} dev ethwe", mac(&scene.ports[0])));
    assert!(!scene.ping("c1", "10.2.2.1"));
    // A forged answer to nobody's question moves no address.
    let before = scene.run("c2", "ip neigh show 10.2.1.1");
    let index = with_netlink(&scene.lab.namespace("c1"), |h| async move { link::by_name(&h, INTERFACE).await });
    let index = index.expect("the namespace").expect("an answer").expect("the interface").index;
    let forged = ["10.2.1.2".parse().expect("an address"), "fd00:2:1::2".parse().expect("an address")];
    in_namespace(&scene.lab.namespace("c1"), || {
        crate::host::container::announce::announce(index, scene.ports[0].mac, &forged).expect("sent");
        crate::host::container::announce::announce(index, [2, 0, 0, 0, 0, 0x66], &["10.2.1.1".parse().expect("an address")]).expect("sent");
    })
    .expect("the namespace");
    assert!(scene.ping("c1", "10.2.1.2") && scene.ping("c2", "10.2.1.1"), "{before}");
    assert!(scene.run("c2", "ip neigh show 10.2.1.1").contains(&mac(&scene.ports[0])));
    // Nor does another MAC pass.
    scene.run("c1", "ip link set ethwe address 02:00:00:00:00:77");
    assert!(!scene.ping("c1", "10.2.1.2"));
}

#[test]
fn members_of_multicast_groups_are_asked_and_answer() {
    let Some(mut scene) = Scene::new() else { return };
    scene.container("c1", &["10.2.1.1/24", "fd00:2:1::1/64"]);
    let joined = in_namespace(&scene.lab.namespace("c1"), || {
        let socket = std::net::UdpSocket::bind("239.1.1.1:9")?;
        socket.join_multicast_v4(&[239, 1, 1, 1].into(), &[10, 2, 1, 1].into()).map(|()| socket)
    });
    let _member = joined.expect("the namespace").expect("joined");
    let ask = |scene: &Scene| {
        let index = scene.bridge.index;
        in_namespace(&scene.host, || {
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            packet::bind(socket.as_fd(), index, 0)?;
            questions(None).iter().try_for_each(|question| socket.send(question).map(|_| ()))
        })
    };
    for isolate in [false, true] {
        scene.write(&scene.rules(&[], isolate));
        let filter = "igmp or (ip6 and ip6[6] == 0)";
        let captures = [("c1", INTERFACE), ("h1", BRIDGE)].map(|(name, interface)| Capture::start(&scene.lab, name, interface, filter));
        ask(&scene).expect("the namespace").expect("asked");
        pause(Duration::from_millis(1500));
        let [there, here] = captures.map(|capture| capture.expect("tcpdump").lines().expect("packets").join("\n"));
        assert!(there.contains("igmp query v3") && there.contains("listener query v2"), "isolated: {isolate}: {there}");
        assert!(here.contains("239.1.1.1") && here.contains("listener report v2"), "isolated: {isolate}: {here}");
    }
}

#[test]
fn an_isolated_port_is_closed_until_it_is_known_and_another_bridges_is_not_concerned() {
    let Some(mut scene) = Scene::new() else { return };
    scene.write(&scene.rules(&[], true));
    scene.container("c1", &["10.2.1.1/24"]);
    scene.container("c2", &["10.2.1.2/24"]);
    assert!(!scene.ping("c1", "10.2.1.2"), "nobody knows them yet");
    scene.write(&scene.rules(&[], true));
    assert!(wait_until(Duration::from_secs(5), || scene.ping("c1", "10.2.1.2")));
    assert_ne!(found::prefix_of("weave"), found::prefix_of("weave2"));
    in_namespace(&scene.host, || write("weave2", &Rules { isolate: true, ..Rules::default() })).expect("the namespace").expect("written");
    assert!(scene.ping("c1", "10.2.1.2"), "a second router's rules");
}

#[test]
fn an_isolated_container_still_reaches_the_outside() {
    let Some(mut scene) = Scene::new() else { return };
    scene.lab.host("out").expect("a host");
    scene.lab.wire("h1", "out", "10.9.1.0/24").expect("a wire");
    scene.container("c1", &["10.2.1.1/24"]);
    scene.container("c2", &["10.2.2.1/24"]);
    scene.run("h1", "sysctl -qw net.ipv4.ip_forward=1");
    for address in ["10.2.1.99/24", "10.2.2.99/24"] {
        scene.expose(address);
    }
    scene.run("c1", "ip route add default via 10.2.1.99");
    scene.write(&scene.rules(&[("10.2.1.99/24", true), ("10.2.2.99/24", true)], true));
    assert!(scene.ping("c1", "10.9.1.2") && scene.ping("c1", "10.2.1.99") && scene.ping("h1", "10.2.1.1"));
    assert!(!scene.ping("c1", "10.2.2.1"));
}
