//! The bridge that containers plug into, and our TAP as one of its ports.
//!
//! A bridge of ours is made so that everything the mesh carries also crosses it: no spanning tree, no forward delay, no multicast
//! snooping (a snooping bridge shows membership reports only to ports with a multicast router, so other hosts would never hear of the
//! members here), a fixed MAC (a bridge otherwise takes its lowest port's, and changes it as containers come and go) and a fixed MTU
//! (it otherwise follows the smallest port). It is marked by its alias, so that a restarted router knows its own work. A bridge that was
//! there before us is used as it is; an MTU that the operator asks for is set on it, and taken back when the router lets go.

use netlink_packet_route::link::{BridgeMulticastRouterType, BridgeStpState};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec};

use super::link::{self, Link};
use super::{HostError, underlay};
use crate::wire::PeerName;

/// The alias (`ip link show` prints it) of a bridge which the router made.
pub const MADE_BY: &str = "made by weave-router";

/// The MTU that the bridge is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgeMtu {
    /// The operator says so: also on a bridge that was there.
    Given(u16),
    /// What fits the underlay: for a bridge of ours only.
    Fitting(u16),
}

/// The bridge, made by us or found.
#[derive(Clone, Debug)]
pub struct Bridge {
    handle: Handle,
    name: String,
    index: u32,
    made: bool,
    wanted: BridgeMtu,
    mtu: u32,
    /// The MTU of a bridge that was there, where we set another.
    before: Option<u32>,
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
    /// Makes the bridge, or adopts the one that is there. The MAC of a bridge of ours is the router's name.
    pub async fn ensure(handle: &Handle, name: &str, wanted: BridgeMtu, router: PeerName) -> Result<Bridge, HostError> {
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
        let (index, mtu) = (found.index, found.mtu);
        let mut bridge = Bridge { handle: handle.clone(), name: name.into(), index, made, wanted, mtu, before: None, tap: None };
        bridge.settle(&found, router).await?;
        Ok(bridge)
    }

    /// The same once more, after somebody meddled: what it was like before us is not forgotten.
    pub async fn again(&self, router: PeerName) -> Result<Bridge, HostError> {
        let mut bridge = Bridge::ensure(&self.handle, &self.name, self.wanted, router).await?;
        if bridge.index == self.index {
            (bridge.before, bridge.mtu) = (self.before, self.mtu);
        }
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
        // A bridge that snoops would keep from us what others are to hear, and who is a member.
        let options = LinkBridgePort::new(tap)
            .hairpin(false)
            .learning(true)
            .isolated(false)
            .mcast_router(BridgeMulticastRouterType::Permanent)
            .build();
        self.handle.link().set_port(options).execute().await.map_err(|e| HostError::netlink(what("set the port options of"), e))?;
        self.tap = Some(tap);
        self.hold_mtu(tap).await
    }

    /// A bridge follows the smallest MTU of its ports until one is set on it: with no other port it would take the TAP's.
    async fn hold_mtu(&mut self, tap: u32) -> Result<(), HostError> {
        match self.wanted {
            BridgeMtu::Given(mtu) => self.set_mtu(u32::from(mtu)).await,
            BridgeMtu::Fitting(mtu) if self.made => self.set_mtu(u32::from(mtu)).await,
            BridgeMtu::Fitting(_) => {
                let now = link::by_index(&self.handle, self.index).await?.map_or(self.mtu, |l| l.mtu);
                let taps = link::by_index(&self.handle, tap).await?.map(|l| l.mtu);
                if now > self.mtu && Some(now) == taps {
                    return self.set_mtu(self.mtu).await;
                }
                self.mtu = now;
                Ok(())
            }
        }
    }

    async fn set_mtu(&mut self, mtu: u32) -> Result<(), HostError> {
        self.mtu = mtu;
        let message = LinkUnspec::new_with_index(self.index).mtu(mtu).build();
        link::set(&self.handle, message, format!("set the MTU of bridge {} to {mtu}", self.name)).await
    }

    /// Lets go of the bridge: one that we made goes when no container and no address uses it. The TAP does not count; it goes with its
    /// file descriptor.
    pub async fn release(mut self) -> Result<Released, HostError> {
        match link::by_index(&self.handle, self.index).await? {
            Some(now) if now.name == self.name => {}
            _ => return Ok(Released::Removed),
        }
        if !self.made {
            if let Some(before) = self.before {
                self.set_mtu(before).await?;
            }
            return Ok(Released::Kept(format!("bridge {} stays: it was there before the router", self.name)));
        }
        let kept = |why: String| Ok(Released::Kept(format!("bridge {} stays: {why}", self.name)));
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
    async fn settle(&mut self, found: &Link, router: PeerName) -> Result<(), HostError> {
        let mut change = LinkUnspec::new_with_index(self.index).up();
        let mtu = match self.wanted {
            BridgeMtu::Given(mtu) => u32::from(mtu),
            BridgeMtu::Fitting(mtu) if self.made => u32::from(mtu),
            BridgeMtu::Fitting(_) => found.mtu,
        };
        if mtu != found.mtu {
            self.before = Some(found.mtu).filter(|_| !self.made);
            self.mtu = mtu;
            change = change.mtu(mtu);
        }
        if self.made && found.mac != router.0 {
            change = change.address(router.0.to_vec());
        }
        link::set(&self.handle, change.build(), format!("set up bridge {}", self.name)).await
    }
}

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
