//! The host's own routes, where a range of container addresses would come into their way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{HostError, link};

/// Prefixes as short as this are default routes, also in the halves that VPNs write instead of one.
const DEFAULT: u8 = 1;

/// A route, as far as it is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    to: IpNet,
    device: u32,
}

/// A route that leads elsewhere with a part of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The range.
    pub range: IpNet,
    /// Where the route leads.
    pub route: IpNet,
    /// Name of its interface.
    pub device: String,
}

/// The routes of the main table that overlap one of `ranges`, besides default routes and those by way of `bridge`, which are the range's own.
pub async fn overlaps(handle: &Handle, bridge: &str, ranges: &[IpNet]) -> Result<Vec<Overlap>, HostError> {
    let what = |e| HostError::netlink("list the routes", e);
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    let mut overlaps = Vec::new();
    for request in [v4, v6] {
        let messages: Vec<RouteMessage> = handle.route().get(request).execute().try_collect().await.map_err(what)?;
        for route in messages.iter().filter_map(read) {
            let Some(range) = ranges.iter().find(|range| meet(range, &route.to)) else { continue };
            let device = link::by_index(handle, route.device).await?.map(|link| link.name).unwrap_or_default();
            if device != bridge {
                overlaps.push(Overlap { range: *range, route: route.to, device });
            }
        }
    }
    Ok(overlaps)
}

fn meet(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// Of a message what is a route to somewhere; none that only refuses, and none of another table.
fn read(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let table = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let main = table.unwrap_or(header.table.into()) == u32::from(RouteHeader::RT_TABLE_MAIN);
    if !main || header.kind != RouteType::Unicast || header.destination_prefix_length <= DEFAULT {
        return None;
    }
    let to: IpAddr = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        _ => None,
    })?;
    let device = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
        _ => None,
    })?;
    Some(Route { to: IpNet::new(to, header.destination_prefix_length).ok()?, device })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::lab::tests::lab_or_skip;
    use crate::host::lab::{BRIDGE, with_netlink};

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn routes_that_lead_elsewhere_are_found_and_those_of_the_bridge_are_not() {
        let Some(mut lab) = lab_or_skip("wro") else { return };
        let host = lab.host("h1").expect("a host");
        for bridge in [BRIDGE, "d0"] {
            lab.bridge("h1", bridge, None).expect("a bridge");
        }
        let ip = |words: &str| {
            let output = lab.exec("h1", "ip", &words.split_whitespace().collect::<Vec<_>>()).expect("ip is installed");
            assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let ranges = [net("10.32.0.0/12"), net("fd00:2::/64")];
        let found = || {
            with_netlink(&host, |handle| async move { overlaps(&handle, BRIDGE, &ranges).await })
                .expect("the namespace")
                .expect("the routes")
        };
        for device in ["d0", BRIDGE] {
            ip(&format!("link set {device} up"));
        }
        for harmless in ["10.31.0.0/16 dev d0", "0.0.0.0/1 dev d0", "default dev d0", "10.33.0.0/16 dev weave", "fd00:2::/80 dev weave"] {
            ip(&format!("route add {harmless}"));
        }
        ip("route add blackhole 10.0.0.0/9");
        ip("route add 10.40.0.0/16 dev d0 table 77");
        assert_eq!(found(), []);
        let overlap = |range: &str, route: &str| Overlap { range: net(range), route: net(route), device: "d0".into() };
        ip("route add 10.47.1.0/24 dev d0");
        assert_eq!(found(), [overlap("10.32.0.0/12", "10.47.1.0/24")], "a part of it");
        ip("route add 10.0.0.0/8 dev d0");
        assert_eq!(found().len(), 2, "what it is a part of");
        ip("-6 route add fd00:2::/48 dev d0");
        assert_eq!(found().last(), Some(&overlap("fd00:2::/64", "fd00:2::/48")));
    }
}
