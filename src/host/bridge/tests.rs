//! In network namespaces of their own; they need root.

use super::*;
use crate::host::lab::{Lab, with_netlink};
use crate::host::{local_macs, watch::HostEvent, watch::Watch};

const NAME: PeerName = PeerName([0x7a, 0x3c, 0, 0, 0, 1]);
const FITTING: BridgeMtu = BridgeMtu::Fitting(1420);

/// An interface that stands for the TAP: what matters here is that it is not the bridge.
async fn stand_in(handle: &Handle, name: &str) -> u32 {
    let pair = rtnetlink::LinkVeth::new(name, &format!("{name}-peer")).mtu(65_521).build();
    handle.link().add(pair).execute().await.expect("a pair of interfaces");
    link::by_name(handle, name).await.expect("an answer").expect("the interface").index
}

fn in_lab<T, F>(test: impl FnOnce(Handle) -> F + Send) -> Option<T>
where
    T: Send,
    F: Future<Output = T>,
{
    let mut lab = crate::host::lab::tests::lab_or_skip("wrb")?;
    let host = lab.host("h1").expect("a host");
    Some(with_netlink(&host, test).expect("the namespace"))
}

async fn settings(handle: &Handle, name: &str) -> Link {
    link::by_name(handle, name).await.expect("an answer").expect("the bridge")
}

#[test]
fn a_bridge_is_made_used_and_removed() {
    in_lab(|handle| async move {
        let mut bridge = Bridge::ensure(&handle, "weave", BridgeMtu::Given(1400), NAME).await.expect("a bridge");
        let found = settings(&handle, "weave").await;
        assert!(bridge.made() && found.up && found.alias == MADE_BY, "{found:?}");
        assert_eq!((found.mac, found.mtu), (NAME.0, 1400));
        let device = tun_tap::Iface::without_packet_info("tap0", tun_tap::Mode::Tap).expect("a TAP");
        let tap = settings(&handle, "tap0").await.index;
        link::set(&handle, LinkUnspec::new_with_index(tap).mtu(65_521).build(), "grow").await.expect("grown");
        bridge.attach(tap).await.expect("attached");
        bridge.attach(tap).await.expect("attached again");
        let port = link::by_index(&handle, tap).await.expect("an answer").expect("the port");
        assert_eq!(port.master, Some(bridge.index()));
        assert!(port.up);
        let found = settings(&handle, "weave").await;
        assert_eq!((found.mac, found.mtu), (NAME.0, 1400), "neither follows the port");
        let macs = local_macs(&handle, bridge.index(), &[tap]).await.expect("the table");
        assert_eq!(macs, [(0, NAME.0)], "the bridge's own MAC is a station, the port's is not");
        let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6").expect("addresses");
        assert_eq!(addresses.lines().filter(|l| !l.ends_with(" lo")).collect::<Vec<_>>(), [""; 0], "neither takes an IPv6 address");
        assert_eq!(bridge.release().await.expect("released"), Released::Removed, "our own port does not keep it");
        drop(device);
        assert_eq!(link::by_name(&handle, "weave").await.expect("an answer"), None);
    });
}

#[test]
fn a_restarted_router_knows_its_own_bridge() {
    in_lab(|handle| async move {
        let first = Bridge::ensure(&handle, "weave", FITTING, NAME).await.expect("a bridge");
        assert_eq!(first.mtu(), 1420);
        let again = Bridge::ensure(&handle, "weave", FITTING, NAME).await.expect("the bridge");
        assert!(again.made());
        assert_eq!((again.index(), again.mtu()), (first.index(), first.mtu()));
        let port = stand_in(&handle, "vethwe0").await;
        link::set(&handle, LinkUnspec::new_with_index(port).controller(again.index()).build(), "plug in").await.expect("plugged in");
        let kept = Released::Kept("bridge weave stays: vethwe0 still plugged into it".into());
        assert_eq!(again.clone().release().await.expect("released"), kept);
        handle.link().del(port).execute().await.expect("pulled");
        handle.address().add(again.index(), "10.32.0.9".parse().expect("an address"), 12).execute().await.expect("exposed");
        let kept = Released::Kept("bridge weave stays: it carries the address 10.32.0.9".into());
        assert_eq!(again.release().await.expect("released"), kept);
    });
}

#[test]
fn a_found_bridge_is_adopted_as_it_is() {
    in_lab(|handle| async move {
        handle.link().add(LinkBridge::new("br0").mtu(1300).build()).execute().await.expect("a bridge");
        let before = settings(&handle, "br0").await;
        let bridge = Bridge::ensure(&handle, "br0", FITTING, NAME).await.expect("the bridge");
        assert!(!bridge.made());
        assert_eq!(settings(&handle, "br0").await, before);
        let kept = Released::Kept("bridge br0 stays: it was there before the router".into());
        assert_eq!(bridge.release().await.expect("released"), kept);
        let bridge = Bridge::ensure(&handle, "br0", BridgeMtu::Given(1200), NAME).await.expect("the bridge");
        assert_eq!(settings(&handle, "br0").await.mtu, 1200, "an MTU that was asked for is set");
        link::set(&handle, LinkUnspec::new_with_index(bridge.index()).mtu(1100).build(), "shrink").await.expect("shrunk");
        let bridge = bridge.again(NAME).await.expect("the bridge");
        assert_eq!(settings(&handle, "br0").await.mtu, 1200, "it is put back");
        bridge.release().await.expect("released");
        assert_eq!(settings(&handle, "br0").await.mtu, 1300, "and taken back at the end");
    });
}

#[test]
fn a_found_bridge_keeps_its_mtu_whatever_its_ports_have() {
    in_lab(|handle| async move {
        handle.link().add(LinkBridge::new("br0").build()).execute().await.expect("a bridge");
        let tap = stand_in(&handle, "tap0").await;
        let mut bridge = Bridge::ensure(&handle, "br0", FITTING, NAME).await.expect("the bridge");
        bridge.attach(tap).await.expect("attached");
        assert_eq!((settings(&handle, "br0").await.mtu, bridge.mtu()), (1500, 1500), "the TAP's MTU is not the bridge's");
        link::set(&handle, LinkUnspec::new_with_index(bridge.index()).mtu(9000).build(), "grow").await.expect("grown");
        let mut bridge = bridge.again(NAME).await.expect("the bridge");
        bridge.attach(tap).await.expect("attached again");
        assert_eq!((settings(&handle, "br0").await.mtu, bridge.mtu()), (9000, 9000), "its owner may change it");
        bridge.release().await.expect("released");
        assert_eq!(settings(&handle, "br0").await.mtu, 9000);
    });
}

#[test]
fn a_name_that_is_taken_is_said() {
    in_lab(|handle| async move {
        stand_in(&handle, "weave").await;
        let error = Bridge::ensure(&handle, "weave", FITTING, NAME).await.expect_err("taken");
        let sentence = "--bridge weave is taken by an interface of kind veth; choose another name or remove it";
        assert_eq!(error.to_string(), sentence);
        let error = Bridge::ensure(&handle, "far-too-long-a-name", FITTING, NAME).await.expect_err("too long");
        assert!(error.to_string().starts_with("'far-too-long-a-name' cannot be the name of an interface"), "{error}");
    });
}

/// The next event that is not about addresses or MACs, which come with everything.
async fn next(watch: &mut Watch) -> HostEvent {
    loop {
        let event = tokio::time::timeout(std::time::Duration::from_secs(5), watch.next()).await.expect("an event in time");
        if !matches!(event, HostEvent::AddressesChanged | HostEvent::MacsChanged | HostEvent::PortsChanged) {
            return event;
        }
    }
}

#[test]
fn what_is_done_to_bridge_and_tap_is_seen_and_put_right() {
    in_lab(|handle| async move {
        let mut bridge = Bridge::ensure(&handle, "weave", BridgeMtu::Given(1420), NAME).await.expect("a bridge");
        let tap = stand_in(&handle, "tap0").await;
        bridge.attach(tap).await.expect("attached");
        let mut watch = Watch::new().expect("a subscription");
        watch.expect(&bridge, Some(tap));

        link::set(&handle, LinkUnspec::new_with_index(tap).nocontroller().build(), "detach").await.expect("detached");
        assert_eq!(next(&mut watch).await, HostEvent::TapDetached);
        bridge.attach(tap).await.expect("attached again");
        watch.expect(&bridge, Some(tap));

        link::set(&handle, LinkUnspec::new_with_index(bridge.index()).mtu(1000).build(), "shrink").await.expect("shrunk");
        while next(&mut watch).await != HostEvent::MtuChanged(1000) {}
        link::set(&handle, LinkUnspec::new_with_index(bridge.index()).down().build(), "set down").await.expect("set down");
        while next(&mut watch).await != HostEvent::BridgeDown {}

        handle.link().del(bridge.index()).execute().await.expect("deleted");
        while next(&mut watch).await != HostEvent::BridgeGone {}
        let mut bridge = Bridge::ensure(&handle, "weave", BridgeMtu::Given(1420), NAME).await.expect("a new bridge");
        bridge.attach(tap).await.expect("attached to the new bridge");
        watch.expect(&bridge, Some(tap));
        handle.link().del(tap).execute().await.expect("deleted");
        while next(&mut watch).await != HostEvent::TapGone {}
    });
}

#[test]
fn a_container_that_is_plugged_in_is_seen() {
    let Some(mut lab) = crate::host::lab::tests::lab_or_skip("wrb") else { return };
    let host = lab.host("h1").expect("a host");
    let index =
        with_netlink(&host, |handle| async move { Bridge::ensure(&handle, "weave", FITTING, NAME).await.expect("a bridge").index() });
    let index = index.expect("the namespace");
    let container = lab.container("h1", "c1", "10.32.0.1/12").expect("a container");
    let learnt = || {
        let macs = with_netlink(&host, |handle| async move { local_macs(&handle, index, &[]).await.expect("the table") });
        macs.expect("the namespace").contains(&(0, container.mac))
    };
    // It speaks when its interface comes up (IPv6 multicast listener reports).
    assert!(crate::host::lab::clock::wait_until(std::time::Duration::from_secs(5), learnt), "the container's MAC");
    drop::<Lab>(lab);
}
