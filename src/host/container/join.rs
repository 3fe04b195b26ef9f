//! Another Linux bridge of the host, joined to ours by a pair of interfaces.

use rtnetlink::{Handle, LinkBridgePort, LinkUnspec, LinkVeth};
use sha2::{Digest, Sha256};

use super::super::HostError;
use super::super::link::{self, Link};
use super::attach::BridgeEnd;

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
        return Ok(false);
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
    let joined = |link: &Link| link.master == Some(ours.index) && link.kind == "veth" && is_ours(&link.alias, &ours.name);
    for link in link::all(host).await?.into_iter().filter(joined) {
        super::found::remove(host, link.index, &link.name).await?;
    }
    Ok(())
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
        let port = LinkUnspec::new_with_index(end.index).alias(format!("weave-router joins {other} to {ours}")).controller(*bridge).up();
        link::set(host, port.build(), what()).await?;
        let options = LinkBridgePort::new(end.index).hairpin(false).learning(true).build();
        host.link().set_port(options).execute().await.map_err(|e| HostError::netlink(what(), e))?;
    }
    Ok(())
}

/// The names of the end on our bridge and of the one on the other.
fn names(ours: &str, other: &str) -> (String, String) {
    let hash = Sha256::new().chain_update("weave-router join ").chain_update(ours).chain_update([0]).chain_update(other).finalize();
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let digits = digits.get(..8).unwrap_or(&digits);
    (format!("vethwbl{digits}"), format!("vethwbg{digits}"))
}
