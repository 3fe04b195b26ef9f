//! The bridge that containers plug into, and our TAP as one of its ports.
//!
//! A bridge of ours is made so that everything the mesh carries also crosses it: no spanning tree, no forward delay, no multicast
//! snooping (a snooping bridge shows membership reports only to ports with a multicast router, so other hosts would never hear of the
//! members here), a fixed MAC (a bridge otherwise takes its lowest port's, and changes it as containers come and go) and a fixed MTU
//! (it otherwise follows the smallest port). It is marked by its alias, so that a restarted router knows its own work. A bridge that was
//! there before us is used as it is.

use netlink_packet_route::link::BridgeStpState;
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec};

use super::link::{self, Link};
use super::{HostError, underlay};
use crate::wire::PeerName;

/// The alias (`ip link show` prints it) of a bridge which the router made.
pub const MADE_BY: &str = "made by weave-router";

/// The bridge, made by us or found.
#[derive(Clone, Debug)]
pub struct Bridge {
    handle: Handle,
    name: String,
    index: u32,
    made: bool,
    mtu: u32,
    tap: Option<u32>,
}

/// What became of the bridge when the router let go of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// It was ours, nobody used it, and it is removed.
    Removed,
    /// It stays, and why.
    Kept(String),
}

impl Bridge {
    /// Makes the bridge, or adopts the one that is there. An MTU that is given is set; on a bridge of ours the default is the one
    /// that fits an IPv4 underlay of 1500. The MAC of a bridge of ours is the router's name.
    pub async fn ensure(handle: &Handle, name: &str, mtu: Option<u16>, router: PeerName) -> Result<Bridge, HostError> {
        let (found, made) = match link::by_name(handle, name).await? {
            Some(found) => {
                let made = found.alias == MADE_BY;
                (found, made)
            }
            None => (make(handle, name, router).await?, true),
        };
        if found.kind != "bridge" {
            return Err(HostError::NameTaken { name: name.into(), kind: found.kind });
        }
        let mut bridge = Bridge { handle: handle.clone(), name: name.into(), index: found.index, made, mtu: found.mtu, tap: None };
        bridge.settle(&found, mtu, router).await?;
        Ok(bridge)
    }

    /// Interface index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Interface name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True where the router made it, now or in an earlier life.
    pub fn made(&self) -> bool {
        self.made
    }

    /// The MTU it was made, adopted or last set with.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Makes the TAP a port of the bridge, and up. Idempotent.
    pub async fn attach(&mut self, tap: u32) -> Result<(), HostError> {
        let what = |step: &str| format!("{step} the TAP interface {tap} on bridge {}", self.name);
        link::no_link_local(&self.handle, tap).await?;
        let port = LinkUnspec::new_with_index(tap).controller(self.index).up().build();
        link::set(&self.handle, port, what("attach")).await?;
        let options = LinkBridgePort::new(tap).hairpin(false).learning(true).isolated(false).build();
        self.handle.link().set_port(options).execute().await.map_err(|e| HostError::netlink(what("set the port options of"), e))?;
        self.tap = Some(tap);
        Ok(())
    }

    /// Sets the MTU of the bridge, whatever its ports have.
    pub async fn set_mtu(&mut self, mtu: u16) -> Result<(), HostError> {
        self.mtu = u32::from(mtu);
        let message = LinkUnspec::new_with_index(self.index).mtu(u32::from(mtu)).build();
        link::set(&self.handle, message, format!("set the MTU of bridge {} to {mtu}", self.name)).await
    }

    /// Lets go of the bridge: one that we made goes when no container and no address uses it. The TAP does not count; it goes with its
    /// file descriptor.
    pub async fn release(self) -> Result<Released, HostError> {
        let kept = |why: String| Ok(Released::Kept(format!("bridge {} stays: {why}", self.name)));
        match link::by_index(&self.handle, self.index).await? {
            Some(now) if now.name == self.name => {}
            _ => return Ok(Released::Removed),
        }
        if !self.made {
            return kept("it was there before the router".into());
        }
        let links = link::all(&self.handle).await?;
        let ports: Vec<&str> =
            links.iter().filter(|l| l.master == Some(self.index) && Some(l.index) != self.tap).map(|l| l.name.as_str()).collect();
        if !ports.is_empty() {
            return kept(format!("{} still plugged into it", ports.join(" ")));
        }
        let addresses = underlay::addresses_of(&self.handle, self.index).await?;
        if let Some(address) = addresses.first() {
            return kept(format!("it carries the address {address}"));
        }
        let what = format!("remove bridge {}", self.name);
        self.handle.link().del(self.index).execute().await.map_err(|e| HostError::netlink(what, e))?;
        Ok(Released::Removed)
    }

    /// Brings an existing bridge to where the router needs it.
    async fn settle(&mut self, found: &Link, mtu: Option<u16>, router: PeerName) -> Result<(), HostError> {
        let mtu = match mtu {
            None if self.made && found.mtu == ETHERNET_MTU => Some(underlay::fit_mtu(ETHERNET_MTU, false)),
            other => other,
        };
        let mut change = LinkUnspec::new_with_index(self.index).up();
        if let Some(mtu) = mtu {
            self.mtu = u32::from(mtu);
            change = change.mtu(self.mtu);
        }
        if self.made && found.mac != router.0 {
            change = change.address(router.0.to_vec());
        }
        link::set(&self.handle, change.build(), format!("set up bridge {}", self.name)).await
    }
}

/// What a new bridge has.
const ETHERNET_MTU: u32 = 1500;

async fn make(handle: &Handle, name: &str, router: PeerName) -> Result<Link, HostError> {
    let bridge = LinkBridge::new(name)
        .down()
        .alias(MADE_BY)
        .address(router.0.to_vec())
        .stp_state(BridgeStpState::Disabled)
        .forward_delay(0)
        .mcast_snooping(false)
        .build();
    let what = || format!("make the bridge {name}");
    handle.link().add(bridge).execute().await.map_err(|e| HostError::netlink(what(), e))?;
    let vanished = || HostError::Netlink { attempted: what(), reason: "something removed it at once".into(), errno: None };
    let found = link::by_name(handle, name).await?.ok_or_else(vanished)?;
    // Older kernels ignore the alias of a link that is being made.
    let alias = LinkUnspec::new_with_index(found.index).alias(MADE_BY).build();
    link::set(handle, alias, format!("mark bridge {name} as made by the router")).await?;
    // The host is no station of the mesh until it is exposed: it takes no address by itself and follows no router advertised by a container.
    link::no_link_local(handle, found.index).await?;
    let knob = format!("/proc/sys/net/ipv6/conf/{name}/accept_ra");
    if let Err(e) = std::fs::write(&knob, "0") {
        tracing::debug!("could not write 0 to {knob}: {e}");
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
