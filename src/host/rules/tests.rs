//! The rules as the kernel takes them, in network namespaces; they need root and `nft`.

use std::time::Duration;

use ipnet::IpNet;
use rtnetlink::LinkUnspec;

use super::*;
use crate::host::container::attach::{BridgeEnd, Order};
use crate::host::container::{INTERFACE, expose, found};
use crate::host::lab::clock::wait_until;
use crate::host::lab::tests::lab_or_skip;
use crate::host::lab::{BRIDGE, Lab, in_namespace, with_netlink};
use crate::host::link;

fn net(text: &str) -> IpNet {
    text.parse().expect("an address")
}

/// One host with a bridge, containers on it, and their ports.
struct Scene {
    lab: Lab,
    host: String,
    bridge: BridgeEnd,
    mac: [u8; 6],
    ports: Vec<Port>,
}

impl Scene {
    fn new() -> Option<Scene> {
        let mut lab = lab_or_skip("wru")?;
        let host = lab.host("h1").expect("a host");
        lab.bridge("h1", BRIDGE, Some(1400)).expect("a bridge");
        let made = with_netlink(&host, |handle| async move {
            let bridge = link::by_name(&handle, BRIDGE).await.expect("an answer").expect("the bridge");
            let mac = [2, 0, 0, 0, 0, 1];
            let up = LinkUnspec::new_with_index(bridge.index).address(mac.to_vec()).up().build();
            link::set(&handle, up, "set up").await.expect("up");
            (bridge.index, mac)
        });
        let (index, mac) = made.expect("the namespace");
        Some(Scene { lab, host, bridge: BridgeEnd { name: BRIDGE.into(), index }, mac, ports: Vec::new() })
    }

    fn container(&mut self, name: &str, addresses: &[&str]) {
        let full = self.lab.host(name).expect("a container");
        let netns: std::path::PathBuf = format!("/run/netns/{full}").into();
        let addresses: Vec<IpNet> = addresses.iter().map(|text| net(text)).collect();
        let order = Order {
            ident: full,
            netns,
            interface: INTERFACE.into(),
            addresses: addresses.clone(),
            multicast_route: true,
            name_server: None,
            bridge: self.bridge.clone(),
        };
        let attached = in_namespace(&self.host, || crate::host::container::attach(&order)).expect("the namespace").expect("attached");
        self.ports.push(Port { name: attached.host_end, mac: attached.mac, addresses });
    }

    fn expose(&self, address: &str) {
        let (bridge, address) = (self.bridge.clone(), net(address));
        with_netlink(&self.host, |handle| async move { expose::expose(&handle, &bridge, address).await.expect("exposed") })
            .expect("the namespace");
    }

    fn rules(&self, exposed: &[(&str, bool)], isolate: bool) -> Rules {
        let exposed = exposed.iter().map(|(address, masquerade)| Exposure { address: net(address), masquerade: *masquerade }).collect();
        let mesh = vec![net("10.2.0.0/16"), net("10.2.1.0/24"), net("fd00:2::/32")];
        Rules { mac: self.mac, exposed, mesh, isolation: isolate.then(|| self.ports.clone()) }
    }

    fn write(&self, rules: &Rules) {
        in_namespace(&self.host, || write(BRIDGE, rules)).expect("the namespace").expect("written");
    }

    #[track_caller]
    fn run(&self, name: &str, words: &str) -> String {
        let words: Vec<&str> = words.split_whitespace().collect();
        let output = self.lab.exec(name, words[0], &words[1..]).expect("the program");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn ping(&self, from: &str, to: &str) -> bool {
        self.lab.ping(from, to.parse().expect("an address"), "-c 1 -W 1").expect("ping")
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
fn an_isolated_port_is_closed_until_it_is_known_and_another_bridges_is_not_concerned() {
    let Some(mut scene) = Scene::new() else { return };
    scene.write(&scene.rules(&[], true));
    scene.container("c1", &["10.2.1.1/24"]);
    scene.container("c2", &["10.2.1.2/24"]);
    assert!(!scene.ping("c1", "10.2.1.2"), "nobody knows them yet");
    scene.write(&scene.rules(&[], true));
    assert!(scene.ping("c1", "10.2.1.2"));
    assert_ne!(found::prefix_of("weave"), found::prefix_of("weave2"));
    in_namespace(&scene.host, || write("weave2", &Rules { isolation: Some(Vec::new()), ..Rules::default() }))
        .expect("the namespace")
        .expect("written");
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
