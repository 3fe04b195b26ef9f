//! Another Linux bridge of the host, joined to ours by a pair of interfaces.

use rtnetlink::{Handle, LinkBridgePort, LinkUnspec, LinkVeth};
use sha2::{Digest, Sha256};

use super::super::HostError;
use super::super::link::{self, Link};
use super::attach::BridgeEnd;

/// The names of ends on our bridge begin so.
const NEAR: &str = "vethwbl";

/// Joins the bridge `other` to ours; answers with true where it was not before. Idempotent; with an error nothing is left.
pub async fn join(host: &Handle, ours: &BridgeEnd, other: &str) -> Result<bool, HostError> {
    let attempted = || format!("join bridge {other} to bridge {}", ours.name);
    let there = match link::by_name(host, other).await? {
        Some(found) if found.kind == "bridge" && found.name != ours.name => found,
        Some(found) if found.name == ours.name => return Err(HostError::refused(attempted(), "a bridge cannot be joined to itself")),
        Some(found) => return Err(HostError::refused(attempted(), format!("{other} is an interface of kind {}", found.kind))),
        None => return Err(HostError::refused(attempted(), "there is no such bridge on this host")),
    };
    let here = link::by_index(host, ours.index).await?.filter(|bridge| bridge.name == ours.name);
    let here = here.ok_or_else(|| HostError::refused(attempted(), format!("bridge {} is gone; try again", ours.name)))?;
    let (near, far) = names(&ours.name, other);
    let plugged = |end: &Option<Link>, bridge: u32| end.as_ref().is_some_and(|end| end.master == Some(bridge) && end.up);
    let ends = (link::by_name(host, &near).await?, link::by_name(host, &far).await?);
    if plugged(&ends.0, here.index) && plugged(&ends.1, there.index) {
        return keep(host, ours).await.map(|()| false);
    }
    if let (None, None) = ends {
        // The other bridge's MTU follows its smallest port unless somebody set it: a pair smaller than ours loses frames on the way.
        let pair = LinkVeth::new(&near, &far).mtu(here.mtu).build();
        host.link().add(pair).execute().await.map_err(|e| HostError::netlink(attempted(), e))?;
    }
    match put_up(host, &[(&near, here.index), (&far, there.index)], &ours.name, other).await {
        Ok(()) => Ok(true),
        Err(error) => {
            if let Ok(Some(end)) = link::by_name(host, &near).await {
                let _ = super::found::remove(host, end.index, &near).await;
            }
            Err(error)
        }
    }
}

/// Parts all bridges that were joined to ours.
pub async fn part(host: &Handle, ours: &BridgeEnd) -> Result<(), HostError> {
    let joined = |link: &Link| link.kind == "veth" && link.name.starts_with(NEAR) && is_ours(&link.alias, &ours.name);
    for link in link::all(host).await?.into_iter().filter(joined) {
        super::found::remove(host, link.index, &link.name).await?;
    }
    Ok(())
}

/// Plugs joined bridges in again where ours was made anew, and has their pairs take frames as large as ours does.
pub async fn keep(host: &Handle, ours: &BridgeEnd) -> Result<(), HostError> {
    let all = link::all(host).await?;
    let Some(bridge) = all.iter().find(|link| link.index == ours.index) else { return Ok(()) };
    for end in all.iter().filter(|link| link.kind == "veth" && is_ours(&link.alias, &ours.name)) {
        if end.name.starts_with(NEAR) && end.master.is_none() {
            plug(host, end.index, ours.index, &format!("join {} to bridge {} again", end.name, ours.name)).await?;
        }
        if end.mtu != bridge.mtu {
            let what = format!("set the MTU of {} to the {} of bridge {}", end.name, bridge.mtu, ours.name);
            link::set(host, LinkUnspec::new_with_index(end.index).mtu(bridge.mtu).build(), what).await?;
        }
    }
    Ok(())
}

/// Removes pairs that a killed router began and never plugged in on both sides. Answers with their names.
pub async fn sweep(host: &Handle, ours: &str) -> Result<Vec<String>, HostError> {
    let all = link::all(host).await?;
    let mut gone = Vec::new();
    for other in all.iter().filter(|link| link.kind == "bridge" && link.name != ours) {
        let (near, far) = names(ours, &other.name);
        let ends: Vec<&Link> = all.iter().filter(|link| link.kind == "veth" && (link.name == near || link.name == far)).collect();
        if let Some(end) = ends.first().filter(|_| ends.iter().any(|end| end.alias.is_empty())) {
            super::found::remove(host, end.index, &end.name).await?;
            gone.push(near);
        }
    }
    Ok(gone)
}

fn is_ours(alias: &str, ours: &str) -> bool {
    alias.strip_prefix("weave-router joins ").is_some_and(|rest| rest.ends_with(&format!(" to {ours}")))
}

async fn put_up(host: &Handle, ends: &[(&str, u32)], ours: &str, other: &str) -> Result<(), HostError> {
    for (name, bridge) in ends {
        let what = || format!("join bridge {other} to bridge {ours} by {name}");
        let vanished = || HostError::refused(what(), "it vanished at once");
        let end = link::by_name(host, name).await?.ok_or_else(vanished)?;
        link::silence(name);
        link::no_link_local(host, end.index).await?;
        let alias = LinkUnspec::new_with_index(end.index).alias(format!("weave-router joins {other} to {ours}"));
        link::set(host, alias.build(), what()).await?;
        plug(host, end.index, *bridge, &what()).await?;
    }
    Ok(())
}

async fn plug(host: &Handle, end: u32, bridge: u32, what: &str) -> Result<(), HostError> {
    link::set(host, LinkUnspec::new_with_index(end).controller(bridge).up().build(), what).await?;
    let options = LinkBridgePort::new(end).hairpin(false).learning(true).build();
    host.link().set_port(options).execute().await.map_err(|e| HostError::netlink(what, e))
}

/// The names of the end on our bridge and of the one on the other.
fn names(ours: &str, other: &str) -> (String, String) {
    let hash = Sha256::new().chain_update("weave-router join ").chain_update(ours).chain_update([0]).chain_update(other).finalize();
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let digits = digits.get(..8).unwrap_or(&digits);
    (format!("{NEAR}{digits}"), format!("vethwbg{digits}"))
}
