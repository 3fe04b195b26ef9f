//! The part that speaks to the kernel needs root and a network namespace of its own.

use std::net::{Ipv4Addr, Ipv6Addr};

use rtnetlink::{LinkBridge, LinkUnspec};

use super::*;
use crate::host::lab::{WireOptions, with_netlink};

#[test]
fn inner_mtu_by_underlay() {
    for (underlay, v6, inner) in [(1500, false, 1420), (1500, true, 1400), (9000, false, 8920), (65_536, false, 65_455), (0, true, 68)] {
        assert_eq!(fit_mtu(underlay, v6), inner, "{underlay}");
    }
    assert_eq!(fit_mtu(u32::MAX, false), 65_455);
}

#[test]
fn addresses_and_default_route_of_a_host() {
    let Some(mut lab) = crate::host::lab::tests::lab_or_skip("wru") else { return };
    let host = lab.host("h1").expect("a host");
    lab.host("h2").expect("a host");
    lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
    let second = lab.wire_with("h1", "h2", "fd00:9::/64", WireOptions { mtu: Some(1350) }).expect("a wire");
    with_netlink(&host, |handle| async move {
        assert_eq!(default_mtu(&handle).await.expect("an MTU"), (DEFAULT_UNDERLAY_MTU, false), "no default route");
        handle.link().add(LinkBridge::new("weave").build()).execute().await.expect("a bridge");
        let bridge = link::by_name(&handle, "weave").await.expect("an answer").expect("the bridge").index;
        handle.address().add(bridge, "10.32.0.1".parse().expect("an address"), 12).execute().await.expect("an address");
        let expected: Vec<IpAddr> = ["10.9.1.1", "fd00:9::1"].iter().map(|a| a.parse().expect("an address")).collect();
        assert_eq!(addresses(&handle, Some(bridge)).await.expect("addresses"), expected);
        assert_eq!(addresses(&handle, None).await.expect("addresses").len(), 3);

        let out = link::by_name(&handle, &second.a.interface).await.expect("an answer").expect("the interface").index;
        let route = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(out).build();
        handle.route().add(route).execute().await.expect("a default route");
        assert_eq!(default_mtu(&handle).await.expect("an MTU"), (1350, true), "IPv6 alone");
        let route = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(out).build();
        handle.route().add(route).execute().await.expect("a default route");
        assert_eq!(default_mtu(&handle).await.expect("an MTU"), (1350, false));
        link::set(&handle, LinkUnspec::new_with_index(out).down().build(), "set down").await.expect("set down");
        assert!(!addresses(&handle, Some(bridge)).await.expect("addresses").contains(&"fd00:9::1".parse().expect("an address")));
    })
    .expect("the namespace");
}
