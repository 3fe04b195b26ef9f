//! In network namespaces of their own; they need root.

use std::ops::{Deref, DerefMut};

use ipnet::IpNet;

use super::attach::{Order, Removal, detach};
use super::found;
use super::rig::{Rig, net};
use super::*;
use crate::host::HostError;
use crate::host::lab::{BRIDGE, in_namespace, with_netlink};
use crate::host::link::{self, Link};

struct Scene(Rig);

impl Deref for Scene {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.0
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Rig {
        &mut self.0
    }
}

impl Scene {
    fn new() -> Option<Scene> {
        Rig::new("wrc").map(Scene)
    }

    fn detach(&self, order: &Order, removal: &Removal) -> Result<Vec<IpNet>, HostError> {
        in_namespace(&self.host, || detach(BRIDGE, &order.ident, &order.interface, &order.netns, removal)).expect("the namespace")
    }

    fn attachments(&self) -> Vec<Attachment> {
        with_netlink(&self.host, |handle| async move {
            let strict = found::connect().expect("a socket");
            let mut all = Vec::new();
            for end in found::ends(&handle, BRIDGE).await.expect("the ends") {
                all.extend(found::look(&strict, &end).await.expect("an answer"));
            }
            all
        })
        .expect("the namespace")
    }

    fn links(&self, name: &str) -> Vec<Link> {
        let handle = |handle| async move { link::all(&handle).await.expect("the links") };
        with_netlink(&self.lab.namespace(name), handle).expect("the namespace")
    }

    fn veths(&self) -> usize {
        self.links("h1").iter().filter(|link| link.kind == "veth").count()
    }
}

#[test]
fn an_attached_container_has_all_it_needs_and_is_found_again() {
    let Some(mut scene) = Scene::new() else { return };
    let order = scene.container("c1", &["10.2.1.1/24", "fd00:2::1/64"]);
    let first = scene.attach(&order).expect("attached");
    assert!(first.made && first.added == order.addresses, "{first:?}");
    let again = scene.attach(&order).expect("attached again");
    assert!(!again.made && again.added.is_empty() && again.mac == first.mac, "{again:?}");
    let found = scene.attachments();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].end.ident, found[0].mac), (&order.ident, first.mac));
    assert_eq!(found[0].addresses, order.addresses);
    assert_eq!(found[0].end.bridge, Some(scene.bridge.index));
    let inside = scene.links("c1").into_iter().find(|link| link.name == INTERFACE).expect("the interface");
    assert!(inside.up && inside.mtu == 1400, "{inside:?}");
    assert!(scene.run("c1", "ip route show 224.0.0.0/4").contains("dev ethwe"));
    for (knob, value) in [("ipv4/neigh/ethwe/base_reachable_time_ms", "5000"), ("ipv4/neigh/ethwe/ucast_solicit", "1")] {
        assert_eq!(scene.run("c1", &format!("cat /proc/sys/net/{knob}")).trim(), value, "{knob}");
    }
    assert!(scene.run("h1", &format!("bridge -d link show dev {}", first.host_end)).contains("hairpin on"));
    assert!(!scene.run("h1", &format!("ip -6 addr show dev {}", first.host_end)).contains("inet6"), "the host's end says nothing");
}

#[test]
fn two_containers_reach_each_other_at_once() {
    let Some(mut scene) = Scene::new() else { return };
    let (one, two) = (scene.container("c1", &["10.2.1.1/24", "fd00:2::1/64"]), scene.container("c2", &["10.2.1.2/24", "fd00:2::2/64"]));
    scene.attach(&one).expect("attached");
    scene.attach(&two).expect("attached");
    for ip in ["10.2.1.2", "fd00:2::2"] {
        assert!(scene.lab.ping("c1", ip.parse().expect("an address"), "-c 1 -W 2").expect("ping"), "{ip}");
    }
}

#[test]
fn an_address_that_moved_answers_at_once() {
    let Some(mut scene) = Scene::new() else { return };
    let (one, two) = (scene.container("c1", &["10.2.1.1/24"]), scene.container("c2", &["10.2.1.2/24"]));
    scene.attach(&one).expect("attached");
    scene.attach(&two).expect("attached");
    let moved = "10.2.1.2".parse().expect("an address");
    assert!(scene.lab.ping("c1", moved, "-c 1 -W 2").expect("ping"));
    let before = scene.run("c1", "ip neigh show 10.2.1.2");
    scene.detach(&two, &Removal::All).expect("detached");
    let three = scene.container("c3", &["10.2.1.2/24"]);
    let mac = scene.attach(&three).expect("attached").mac;
    // The cache of the other was warm, and no packet of its own has told it anything yet.
    let text = mac.map(|byte| format!("{byte:02x}")).join(":");
    let heard = || scene.run("c1", "ip neigh show 10.2.1.2").contains(&text);
    assert!(crate::host::lab::clock::wait_until(std::time::Duration::from_millis(500), heard), "{before}");
    assert!(scene.lab.ping("c1", moved, "-c 1 -W 1").expect("ping"));
}

#[test]
fn addresses_come_and_go_one_by_one_and_the_interface_with_the_last() {
    let Some(mut scene) = Scene::new() else { return };
    let order = scene.container("c1", &["10.2.1.1/24", "10.2.1.2/24", "10.2.2.1/24"]);
    scene.attach(&order).expect("attached");
    // The first of a subnet takes the others of it along, unless somebody looks after them.
    let these = |texts: &[&str]| Removal::These(texts.iter().map(|text| net(text)).collect());
    assert_eq!(scene.detach(&order, &these(&["10.2.1.1/24", "10.9.9.9/24"])).expect("detached"), [net("10.2.1.1/24")]);
    let left: Vec<IpNet> = scene.attachments()[0].addresses.clone();
    assert!(left.len() == 2 && left.contains(&net("10.2.1.2/24")) && left.contains(&net("10.2.2.1/24")), "{left:?}");
    assert_eq!(scene.detach(&order, &these(&["10.2.1.1/24"])).expect("detached"), []);
    assert_eq!(scene.detach(&order, &these(&["10.2.1.2/24", "10.2.2.1/24"])).expect("detached").len(), 2);
    assert_eq!((scene.attachments().len(), scene.veths()), (0, 0));
    assert_eq!(scene.detach(&order, &Removal::All).expect("detached"), []);
}

#[test]
fn what_fails_half_way_leaves_nothing() {
    let Some(mut scene) = Scene::new() else { return };
    let mut order = scene.container("c1", &["10.2.1.1/24"]);
    // The kernel takes no such address, after everything else was done.
    order.addresses.push("ff02::9/64".parse().expect("a network"));
    scene.attach(&order).expect_err("refused");
    assert_eq!((scene.veths(), scene.links("c1").len()), (0, 1));
    order.addresses.pop();
    scene.attach(&order).expect("attached");
    order.addresses = vec![net("10.2.1.7/24"), net("ff02::9/64")];
    scene.attach(&order).expect_err("refused");
    assert_eq!(scene.attachments()[0].addresses, [net("10.2.1.1/24")], "what was there before stays, and no more");
}

#[test]
fn what_cannot_be_is_said() {
    let Some(mut scene) = Scene::new() else { return };
    let order = scene.container("c1", &["10.2.1.1/24"]);
    let host = Order { netns: format!("/run/netns/{}", scene.host).into(), ..order.clone() };
    assert!(scene.attach(&host).expect_err("refused").to_string().contains("the host's own"));
    let nowhere = Order { netns: "/run/netns/wr-no-such".into(), ..order.clone() };
    assert!(scene.attach(&nowhere).expect_err("refused").to_string().contains("/run/netns/wr-no-such"));
    let no_namespace = Order { netns: "/etc/passwd".into(), ..order.clone() };
    assert!(scene.attach(&no_namespace).expect_err("refused").to_string().contains("/etc/passwd"));
    scene.attach(&order).expect("attached");
    let twice = Order { ident: "pid:1".into(), ..order.clone() };
    let said = scene.attach(&twice).expect_err("refused").to_string();
    assert!(said.contains(&order.ident) && said.contains("detach"), "{said}");
    assert_eq!(scene.veths(), 1);
}

#[test]
fn a_container_that_started_anew_is_attached_anew() {
    let Some(mut scene) = Scene::new() else { return };
    let order = scene.container("c1", &["10.2.1.1/24"]);
    let first = scene.attach(&order).expect("attached");
    // A process keeps the former namespace alive, as one that takes long to end does.
    let mut sleeper = scene.lab.spawn("c1", std::process::Command::new("sleep").arg("60")).expect("a process");
    scene.lab.remove("c1").expect("removed");
    let anew = scene.container("c1", &["10.2.1.1/24"]);
    let second = scene.attach(&anew).expect("attached");
    assert!(second.made && second.mac != first.mac);
    assert_eq!((scene.veths(), scene.attachments().len()), (1, 1));
    sleeper.kill().expect("killed");
    scene.lab.remove("c1").expect("removed");
    assert!(crate::host::lab::clock::wait_until(std::time::Duration::from_secs(5), || scene.veths() == 0), "gone with the container");
}

#[test]
fn an_unfinished_end_is_swept_and_others_are_not() {
    let Some(mut scene) = Scene::new() else { return };
    let order = scene.container("c1", &["10.2.1.1/24"]);
    scene.attach(&order).expect("attached");
    let unfinished = found::name_of(BRIDGE, "pid:1", INTERFACE);
    scene.run("h1", &format!("ip link add {unfinished} type veth peer name other0"));
    scene.run("h1", "ip link add vethwe0 type veth peer name other1");
    let swept = with_netlink(&scene.host, |handle| async move { found::sweep(&handle, BRIDGE).await }).expect("the namespace");
    assert_eq!(swept.expect("swept"), [unfinished]);
    assert_eq!(scene.attachments().len(), 1);
}

#[test]
fn an_end_that_was_cut_short_has_no_mark_and_is_begun_anew() {
    let Some(mut scene) = Scene::new() else { return };
    let mut order = scene.container("c1", &["10.2.1.1/24"]);
    let name = found::name_of(BRIDGE, &order.ident, INTERFACE);
    let far = scene.lab.namespace("c1");
    scene.run("h1", &format!("ip link add {name} type veth peer name {INTERFACE} netns {far}"));
    order.addresses.push(net("ff02::9/64"));
    scene.attach(&order).expect_err("refused");
    assert_eq!(scene.veths(), 0, "with an error nothing of it is left");
    order.addresses.pop();
    scene.run("h1", &format!("ip link add {name} type veth peer name {INTERFACE} netns {far}"));
    assert!(scene.attach(&order).expect("attached").made);
    assert_eq!(scene.attachments().len(), 1);
    // One of that name which is somebody else's is let be.
    scene.detach(&order, &Removal::All).expect("detached");
    scene.run("h1", &format!("ip link add {name} type veth peer name other0"));
    scene.run("h1", &format!("ip link set {name} alias mine"));
    assert_eq!(scene.detach(&order, &Removal::All).expect("nothing to detach"), []);
    assert_eq!(scene.veths(), 2);
}

#[test]
fn many_at_once_leave_nothing() {
    let Some(mut scene) = Scene::new() else { return };
    let orders: Vec<Order> = (1..=40).map(|n| scene.container(&format!("c{n}"), &[&format!("10.2.1.{n}/24")])).collect();
    let all = |work: &(dyn Fn(&Order) + Sync)| {
        std::thread::scope(|scope| orders.iter().for_each(|order| drop(scope.spawn(move || work(order)))));
    };
    all(&|order| assert!(scene.attach(order).expect("attached").made));
    let mut addresses: Vec<IpNet> = scene.attachments().into_iter().flat_map(|a| a.addresses).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 40);
    all(&|order| assert_eq!(scene.detach(order, &Removal::All).expect("detached"), order.addresses));
    assert_eq!(scene.veths(), 0);
}

#[test]
fn both_ends_follow_the_bridges_mtu() {
    let Some(mut scene) = Scene::new() else { return };
    let (one, two) = (scene.container("c1", &["10.2.1.1/24"]), scene.container("c2", &["10.2.1.2/24"]));
    scene.attach(&one).expect("attached");
    scene.attach(&two).expect("attached");
    let end = scene.attachments().into_iter().find(|found| found.end.ident == one.ident).expect("found").end;
    let resize = |netns: &std::path::Path| in_namespace(&scene.host, || resize(&scene.bridge, &end, netns)).expect("the namespace");
    for mtu in [1300, 1500] {
        scene.run("h1", &format!("ip link set {BRIDGE} mtu {mtu}"));
        resize(&one.netns).expect("resized");
        let mtus =
            |name: &str, interface: &str| scene.links(name).into_iter().find(|link| link.name == interface).expect("an interface").mtu;
        assert_eq!((mtus("h1", &end.name), mtus("c1", INTERFACE), mtus("c2", INTERFACE)), (mtu, mtu, 1400));
    }
    let said = resize(&two.netns).expect_err("another's namespace").to_string();
    assert!(said.contains("not its namespace"), "{said}");
}

#[test]
fn another_bridge_is_joined_once() {
    let Some(mut scene) = Scene::new() else { return };
    scene.lab.bridge("h1", "other0", None).expect("a bridge");
    scene.run("h1", "ip link set other0 up");
    let ours = scene.bridge.clone();
    let join = |other: &'static str| {
        let ours = ours.clone();
        with_netlink(&scene.host, |handle| async move { join::join(&handle, &ours, other).await }).expect("the namespace")
    };
    assert!(join("other0").expect("joined"));
    assert!(!join("other0").expect("joined before"));
    assert_eq!(scene.veths(), 2);
    assert!(join(BRIDGE).expect_err("refused").to_string().contains("itself"));
    assert!(join("nothing0").expect_err("refused").to_string().contains("no such bridge"));
    assert!(join("lo").expect_err("refused").to_string().contains("of kind"));
    // A container on the other bridge is in touch with one on ours.
    let order = scene.container("c1", &["10.2.1.1/24"]);
    scene.attach(&order).expect("attached");
    let plug = crate::host::lab::Plug { bridge: "other0".into(), ..Default::default() };
    let other = scene.lab.container_with("h1", "c2", "10.2.1.2/24", &plug).expect("a container");
    let reached = || scene.lab.ping("c1", other.ip, "-c 1 -W 1").expect("ping");
    assert!(crate::host::lab::clock::wait_until(std::time::Duration::from_secs(5), reached));
}
