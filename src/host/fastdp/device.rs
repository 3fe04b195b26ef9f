//! The VXLAN device.

use netlink_packet_route::link::VxlanDf;
use rtnetlink::{Handle, LinkBridgePort, LinkUnspec, LinkVxlan};
use sha2::{Digest, Sha256};

use super::super::HostError;
use super::super::bridge::MADE_BY;
use super::super::link::{self, Link};
use crate::wire::PeerName;
use crate::wire::beat::mac_of;

/// Its name.
pub const NAME: &str = "weave-vxlan";

/// Its UDP port unless told otherwise: Weave Net's.
pub const PORT: u16 = 6784;

/// As the TAP's: what is too large for the path is answered by the kernel with "too big", instead of being dropped by the bridge.
const MTU: u32 = 65_521;

/// What it is made of.
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
    /// The device of this router in this network: all routers of a network have one identifier, each a MAC of its own.
    pub fn new(port: u16, network: &str, router: PeerName) -> Wanted {
        let vni = Sha256::new().chain_update("weave-router fastdp vni ").chain_update(network).finalize();
        let vni = u32::from_be_bytes([0, vni[0], vni[1], vni[2]]).max(1);
        Wanted { port, vni, mac: mac_of(router) }
    }
}

/// Makes the device, still down and on no bridge. What a killed router of this bridge left is replaced; answers with its index.
pub async fn make(handle: &Handle, wanted: &Wanted, bridge: &str) -> Result<u32, HostError> {
    let attempted = || format!("make the VXLAN device {NAME}");
    let refused = |reason: String| HostError::Netlink { attempted: attempted(), reason, errno: None };
    remove(handle, bridge).await?;
    if let Some(other) = link::by_name(handle, NAME).await? {
        return Err(refused(format!("the name is taken by an interface of kind {} that this router did not make", other.kind)));
    }
    let vxlan = LinkVxlan::new(NAME, wanted.vni)
        .port(wanted.port)
        .learning(false)
        .collect_metadata(false)
        // A path that shrinks shall be noticed, and not be worked around by fragments.
        .df(VxlanDf::Set)
        .address(wanted.mac.to_vec())
        .mtu(MTU)
        .alias(alias(bridge))
        .down()
        .build();
    match handle.link().add(vxlan).execute().await.map_err(|e| HostError::netlink(attempted(), e)) {
        Err(e) if e.errno() == Some(libc::EEXIST) => {
            return Err(refused(format!("another VXLAN device has UDP port {} and identifier {}", wanted.port, wanted.vni)));
        }
        other => other?,
    }
    let made = link::by_name(handle, NAME).await?.ok_or_else(|| refused("something removed it at once".into()))?;
    // Older kernels ignore the alias of a link that is being made.
    let marked = LinkUnspec::new_with_index(made.index).alias(alias(bridge)).build();
    link::set(handle, marked, format!("mark {NAME} as made by the router")).await?;
    link::silence(NAME);
    link::no_link_local(handle, made.index).await?;
    Ok(made.index)
}

/// An error where another program has the port: found out without taking it from anybody.
pub fn probe(port: u16) -> Result<(), HostError> {
    match std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, port)) {
        Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) => Err(taken(port)),
        // Whatever else hinders us may not hinder the kernel.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn taken(port: u16) -> HostError {
    let reason = format!("UDP port {port} is taken by another program; --fastdp-port names another, for this router alone or for all");
    HostError::Netlink { attempted: format!("set up the VXLAN device {NAME}"), reason, errno: Some(libc::EADDRINUSE) }
}

/// Sets the device up, beside the bridge: here it turns out whether the port is free.
pub async fn set_up(handle: &Handle, device: u32, port: u16) -> Result<(), HostError> {
    let attempted = || format!("set up the VXLAN device {NAME}");
    match link::set(handle, LinkUnspec::new_with_index(device).up().build(), attempted()).await {
        Err(e) if e.errno() == Some(libc::EADDRINUSE) => Err(taken(port)),
        other => other,
    }
}

/// Puts the device on the bridge: a port that gets nothing but what an entry of the bridge's table names it for.
pub async fn plug(handle: &Handle, device: u32, bridge: u32) -> Result<(), HostError> {
    let what = |step: &str| format!("{step} the VXLAN device {NAME}");
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
pub async fn is_plugged(handle: &Handle, device: u32, bridge: u32) -> Result<bool, HostError> {
    let found = link::by_index(handle, device).await?;
    Ok(found.is_some_and(|link| link.name == NAME && link.master == Some(bridge) && link.up))
}

/// Makes the TAP fit to stand beside the device, or an ordinary port again.
pub async fn share(handle: &Handle, tap: u32, shared: bool) -> Result<(), HostError> {
    let options = LinkBridgePort::new(tap).learning(!shared).isolated(shared).build();
    let what = "set the port options of the TAP for the fast datapath";
    handle.link().set_port(options).execute().await.map_err(|e| HostError::netlink(what, e))
}

/// Removes the device, where a router of this bridge made one; its entries go with it.
pub async fn remove(handle: &Handle, bridge: &str) -> Result<bool, HostError> {
    let ours = |link: &Link| link.kind == "vxlan" && link.alias == alias(bridge);
    let Some(found) = link::by_name(handle, NAME).await?.filter(ours) else { return Ok(false) };
    let what = format!("remove the VXLAN device {NAME}");
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
