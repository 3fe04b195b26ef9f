//! The underlay as this host sees it: its own addresses, for the peers, and how large a frame fits.

use std::net::IpAddr;

use futures::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{HostError, link};

/// The MTU assumed where no default route tells another.
pub const DEFAULT_UNDERLAY_MTU: u32 = 1500;

/// The clear header of a datagram, the tag of the seal, the largest header of a frame in a bundle, and the frame's own Ethernet header.
const INSIDE_OVERHEAD: u32 = 16 + 16 + 6 + 14;

/// The MTU for the bridge and the containers where a datagram may be `underlay_mtu` bytes with its IP and UDP headers.
pub fn fit_mtu(underlay_mtu: u32, v6: bool) -> u16 {
    let outside = if v6 { 48 } else { 28 };
    // A bridge carries no less than 68 bytes, the least MTU of IPv4, and no more than the datagram's own length field can say.
    let fit = underlay_mtu.saturating_sub(outside + INSIDE_OVERHEAD).clamp(68, 65_535 - outside - INSIDE_OVERHEAD);
    u16::try_from(fit).unwrap_or(u16::MAX)
}

/// The addresses at which peers may reach this host: unicast addresses of interfaces that are up, without loopback, link-local IPv6,
/// the bridge and its ports.
pub async fn addresses(handle: &Handle, bridge: Option<u32>) -> Result<Vec<IpAddr>, HostError> {
    let links = link::all(handle).await?;
    let carries = |index: u32| {
        links.iter().any(|l| {
            let ours = bridge.is_some() && (Some(l.index) == bridge || l.master == bridge);
            l.index == index && l.up && !l.loopback && !ours
        })
    };
    let mut found: Vec<IpAddr> = list(handle).await?.iter().filter(|m| carries(m.header.index)).filter_map(usable).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The addresses of one interface, without link-local IPv6.
pub async fn addresses_of(handle: &Handle, index: u32) -> Result<Vec<IpAddr>, HostError> {
    Ok(list(handle).await?.iter().filter(|m| m.header.index == index).filter_map(usable).collect())
}

/// The same of all interfaces, each with its interface.
pub async fn by_interface(handle: &Handle) -> Result<Vec<(u32, IpAddr)>, HostError> {
    Ok(list(handle).await?.iter().filter_map(|message| Some((message.header.index, usable(message)?))).collect())
}

/// The MTU of the interface that carries the default route, and whether that is one of IPv6 (IPv4 goes first); else 1500.
pub async fn default_mtu(handle: &Handle) -> Result<(u32, bool), HostError> {
    let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
    for (request, is_v6) in [(v4, false), (v6, true)] {
        let routes: Result<Vec<RouteMessage>, _> = handle.route().get(request).execute().try_collect().await;
        let routes = routes.map_err(|e| HostError::netlink("list the routes", e))?;
        let mut defaults: Vec<(u32, u32)> = routes.iter().filter_map(default_route).collect();
        defaults.sort_unstable();
        if let Some((_, index)) = defaults.first()
            && let Some(link) = link::by_index(handle, *index).await?
        {
            return Ok((link.mtu, is_v6));
        }
    }
    Ok((DEFAULT_UNDERLAY_MTU, false))
}

async fn list(handle: &Handle) -> Result<Vec<AddressMessage>, HostError> {
    handle.address().get().execute().try_collect().await.map_err(|e| HostError::netlink("list the addresses of this host", e))
}

/// The address in a message, where peers could use it.
pub(super) fn usable(message: &AddressMessage) -> Option<IpAddr> {
    let full = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let unproven = full.is_some_and(|f| f.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated))
        || message.header.flags.intersects(AddressHeaderFlags::Dadfailed);
    if unproven || !matches!(message.header.scope, AddressScope::Universe | AddressScope::Site) {
        return None;
    }
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    // On a point-to-point interface IFA_ADDRESS is the other end, so IFA_LOCAL goes first; IPv6 knows only IFA_ADDRESS.
    let ip = local.or_else(|| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })?;
    let unicast = match ip {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast() && !ip.is_loopback() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unicast_link_local() && !ip.is_loopback() && !ip.is_unspecified(),
    };
    unicast.then_some(ip)
}

/// (metric, interface) of a default route.
fn default_route(route: &RouteMessage) -> Option<(u32, u32)> {
    if route.header.destination_prefix_length != 0 || route.header.kind != RouteType::Unicast {
        return None;
    }
    let metric = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    let out = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        RouteAttribute::MultiPath(hops) => hops.first().map(|h| h.interface_index),
        _ => None,
    })?;
    Some((metric.unwrap_or(0), out))
}

#[cfg(test)]
mod tests;
