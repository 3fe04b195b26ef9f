//! The VXLAN devices: one for IPv4 underlays and one for IPv6, since the kernel has none for both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_route::link::VxlanDf;
use rtnetlink::{Handle, LinkBridgePort, LinkUnspec, LinkVxlan};
use sha2::{Digest, Sha256};
use socket2::{Domain, Socket, Type};

use super::super::HostError;
use super::super::bridge::MADE_BY;
use super::super::link::{self, Link};
use crate::wire::PeerName;
use crate::wire::beat::mac_of;

/// Their UDP port unless told otherwise: Weave Net's.
pub const PORT: u16 = 6784;

/// As the TAP's: what is too large for the path is answered by the kernel with "too big", instead of being dropped by the bridge.
const MTU: u32 = 65_521;

/// Of which underlays a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// That of an address.
    pub fn of(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The name of its device.
    pub fn device(self) -> &'static str {
        match self {
            Family::V4 => "weave-vxlan",
            Family::V6 => "weave-vxlan6",
        }
    }
}

/// What they are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// UDP port.
    pub port: u16,
    /// Network identifier.
    pub vni: u32,
    /// MAC.
    pub mac: [u8; 6],
}

impl Wanted {
    /// The devices of this router in this network: all routers of a network have one identifier, each a MAC of its own.
    pub fn new(port: u16, network: &str, router: PeerName) -> Wanted {
        let vni = Sha256::new().chain_update("weave-router fastdp vni ").chain_update(network).finalize();
        let vni = u32::from_be_bytes([0, vni[0], vni[1], vni[2]]).max(1);
        Wanted { port, vni, mac: mac_of(router) }
    }
}

/// Makes the device of one family, still down and on no bridge. What a killed router of this bridge left is replaced; answers with its index.
pub async fn make(handle: &Handle, wanted: &Wanted, bridge: &str, family: Family) -> Result<u32, HostError> {
    let name = family.device();
    let attempted = || format!("make the VXLAN device {name}");
    let refused = |reason: String| HostError::Netlink { attempted: attempted(), reason, errno: None };
    remove_one(handle, bridge, family).await?;
    if let Some(other) = link::by_name(handle, name).await? {
        return Err(refused(format!("the name is taken by an interface of kind {} that this router did not make", other.kind)));
    }
    let vxlan = LinkVxlan::new(name, wanted.vni)
        .port(wanted.port)
        .learning(false)
        .collect_metadata(false)
        // A path that shrinks shall be noticed, and not be worked around by fragments.
        .df(VxlanDf::Set)
        .address(wanted.mac.to_vec())
        .mtu(MTU)
        .alias(alias(bridge))
        .down();
    let vxlan = match family {
        Family::V4 => vxlan,
        // Without an address of its family a device is of IPv4.
        Family::V6 => vxlan.local6(Ipv6Addr::UNSPECIFIED),
    };
    match handle.link().add(vxlan.build()).execute().await.map_err(|e| HostError::netlink(attempted(), e)) {
        Err(e) if e.errno() == Some(libc::EEXIST) => {
            return Err(refused(format!("another VXLAN device has UDP port {} and identifier {}", wanted.port, wanted.vni)));
        }
        other => other?,
    }
    let made = link::by_name(handle, name).await?.ok_or_else(|| refused("something removed it at once".into()))?;
    // Older kernels ignore the alias of a link that is being made.
    let marked = LinkUnspec::new_with_index(made.index).alias(alias(bridge)).build();
    link::set(handle, marked, format!("mark {name} as made by the router")).await?;
    link::silence(name);
    link::no_link_local(handle, made.index).await?;
    Ok(made.index)
}

/// An error where another program has the port: found out without taking it from anybody.
pub fn probe(port: u16, family: Family) -> Result<(), HostError> {
    let (domain, any): (Domain, IpAddr) = match family {
        Family::V4 => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        Family::V6 => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let bound = Socket::new(domain, Type::DGRAM.cloexec(), None).and_then(|socket| {
        if family == Family::V6 {
            socket.set_only_v6(true)?;
        }
        socket.bind(&SocketAddr::new(any, port).into())
    });
    match bound {
        Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) => Err(taken(port, family)),
        // Whatever else hinders us may not hinder the kernel.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn taken(port: u16, family: Family) -> HostError {
    let reason = format!("UDP port {port} is taken by another program; --fastdp-port names another, for this router alone or for all");
    HostError::Netlink { attempted: format!("set up the VXLAN device {}", family.device()), reason, errno: Some(libc::EADDRINUSE) }
}

/// Sets the device up, beside the bridge: here it turns out whether the port is free.
pub async fn set_up(handle: &Handle, device: u32, port: u16, family: Family) -> Result<(), HostError> {
    let attempted = || format!("set up the VXLAN device {}", family.device());
    match link::set(handle, LinkUnspec::new_with_index(device).up().build(), attempted()).await {
        Err(e) if e.errno() == Some(libc::EADDRINUSE) => Err(taken(port, family)),
        other => other,
    }
}

/// Puts the device on the bridge: a port that gets nothing but what an entry of the bridge's table names it for.
pub async fn plug(handle: &Handle, device: u32, bridge: u32, family: Family) -> Result<(), HostError> {
    let what = |step: &str| format!("{step} the VXLAN device {}", family.device());
    let enslaved = LinkUnspec::new_with_index(device).controller(bridge).build();
    link::set(handle, enslaved, what("put on the bridge")).await?;
    let options = LinkBridgePort::new(device)
        .hairpin(false)
        .learning(false)
        .flood(false)
        .mcast_flood(false)
        .bcast_flood(false)
        .isolated(true)
        .build();
    handle.link().set_port(options).execute().await.map_err(|e| HostError::netlink(what("set the port options of"), e))
}

/// True where the device is still what [`plug`] made of it.
pub async fn is_plugged(handle: &Handle, device: u32, bridge: u32, family: Family) -> Result<bool, HostError> {
    let found = link::by_index(handle, device).await?;
    Ok(found.is_some_and(|link| link.name == family.device() && link.master == Some(bridge) && link.up))
}

/// Makes the TAP fit to stand beside the devices, or an ordinary port again.
pub async fn share(handle: &Handle, tap: u32, shared: bool) -> Result<(), HostError> {
    let options = LinkBridgePort::new(tap).learning(!shared).isolated(shared).build();
    let what = "set the port options of the TAP for the fast datapath";
    handle.link().set_port(options).execute().await.map_err(|e| HostError::netlink(what, e))
}

/// Removes the devices, where a router of this bridge made some; their entries go with them. Answers whether there was one.
pub async fn remove(handle: &Handle, bridge: &str) -> Result<bool, HostError> {
    let mut found = false;
    for family in Family::ALL {
        found |= remove_one(handle, bridge, family).await?;
    }
    Ok(found)
}

/// Likewise the device of one family.
pub async fn remove_one(handle: &Handle, bridge: &str, family: Family) -> Result<bool, HostError> {
    let ours = |link: &Link| link.kind == "vxlan" && link.alias == alias(bridge);
    let Some(found) = link::by_name(handle, family.device()).await?.filter(ours) else { return Ok(false) };
    let what = format!("remove the VXLAN device {}", family.device());
    handle.link().del(found.index).execute().await.map_err(|e| HostError::netlink(what, e))?;
    Ok(true)
}

/// The VLAN of untagged frames, where the bridge filters VLANs.
pub async fn pvid(handle: &Handle, bridge: u32) -> Result<Option<u16>, HostError> {
    Ok(link::by_index(handle, bridge).await?.and_then(|link| link.pvid))
}

fn alias(bridge: &str) -> String {
    format!("{MADE_BY} for {bridge}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_routers_are_told_apart() {
        let (one, two) = (PeerName([2, 0, 0, 0, 0, 1]), PeerName([2, 0, 0, 0, 0, 2]));
        let a = Wanted::new(6784, "weave", one);
        assert_eq!(a, Wanted::new(6784, "weave", one));
        assert_eq!(a.vni, Wanted::new(6784, "weave", two).vni);
        assert_ne!(a.mac, Wanted::new(6784, "weave", two).mac);
        assert_ne!(a.vni, Wanted::new(6784, "other", one).vni);
        assert_eq!(a.mac[0] & 3, 2);
        assert!(a.vni > 0 && a.vni < 1 << 24);
    }
}
