//! The attachments that are there, read from the kernel.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::LinkAttribute;
use rtnetlink::{Handle, LinkBridgePort, LinkUnspec};
use sha2::{Digest, Sha256};

use super::super::HostError;
use super::super::link::{self, Link};

/// What the names of ends on the host begin with: two characters for the bridge follow, and seven for the container.
pub const PREFIX: &str = "vethwe";

/// The end of an attachment on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The container.
    pub ident: String,
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// The bridge it is plugged into.
    pub bridge: Option<u32>,
    /// Its MTU.
    pub mtu: u32,
    /// The other end: the number of its namespace, and its index there.
    pub other: Option<(i32, u32)>,
}

/// A container as `ps` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The end on the host.
    pub end: End,
    /// MAC of the interface in the container.
    pub mac: [u8; 6],
    /// Its addresses, with the lengths of their prefixes.
    pub addresses: Vec<IpNet>,
}

/// What the names of all ends of this bridge begin with.
pub fn prefix_of(bridge: &str) -> String {
    format!("{PREFIX}{}", letters(&["weave-router bridge", bridge], 2))
}

/// The name of the end on the host: the same for the same container and interface.
pub fn name_of(bridge: &str, ident: &str, interface: &str) -> String {
    format!("{}{}", prefix_of(bridge), letters(&["weave-router attach", interface, ident], 7))
}

/// So many letters and digits from a hash of the words.
fn letters(words: &[&str], count: usize) -> String {
    let hash = words.iter().fold(Sha256::new(), |hash, word| hash.chain_update(word).chain_update([0])).finalize();
    let letter = |byte: &u8| char::from_digit(u32::from(*byte) % 36, 36).unwrap_or('0');
    hash.iter().take(count).map(letter).collect()
}

/// The alias of the end on the host. A bridge's name holds no colon.
pub fn alias_of(bridge: &str, ident: &str) -> String {
    format!("weave-router port of {bridge}: {ident}")
}

/// The ident in the alias of a port of this bridge.
pub fn ident_in<'a>(bridge: &str, alias: &'a str) -> Option<&'a str> {
    alias.strip_prefix("weave-router port of ")?.strip_prefix(bridge)?.strip_prefix(": ")
}

/// The ends of all containers that were attached to this bridge, plugged in or not, by ident.
pub async fn ends(host: &Handle, bridge: &str) -> Result<Vec<End>, HostError> {
    let mut ends: Vec<End> = link::all(host).await?.iter().filter_map(|link| End::read(link, bridge)).collect();
    ends.sort_by(|a, b| a.ident.cmp(&b.ident));
    Ok(ends)
}

impl End {
    fn read(link: &Link, bridge: &str) -> Option<End> {
        let ident = ident_in(bridge, &link.alias).filter(|_| link.kind == "veth")?.to_owned();
        let other = link.elsewhere.zip(link.other_end);
        Some(End { ident, name: link.name.clone(), index: link.index, bridge: link.master, mtu: link.mtu, other })
    }
}

/// A netlink socket for [`look`]: only one that checks requests strictly reads other namespaces. Needs a running tokio runtime.
pub fn connect() -> Result<Handle, HostError> {
    let opened = rtnetlink::new_connection_with_strict_check();
    let (connection, handle, _) = opened.map_err(|e| HostError::io("open a netlink socket", e))?;
    tokio::spawn(connection);
    Ok(handle)
}

/// The MAC and the addresses of the interface in the container, without entering its namespace; `None` where it vanished.
pub async fn look(strict: &Handle, end: &End) -> Result<Option<Attachment>, HostError> {
    let Some((namespace, index)) = end.other else { return Ok(None) };
    let what = || format!("read the interface of {}", end.ident);
    let mut request = strict.link().get().match_index(index);
    request.message_mut().attributes.push(LinkAttribute::IfNetnsId(namespace));
    let link = match request.execute().try_next().await {
        Ok(Some(message)) => Link::from_message(&message),
        Ok(None) => return Ok(None),
        Err(error) => match HostError::netlink(what(), error) {
            // The namespace, or the interface in it, is gone.
            e if matches!(e.errno(), Some(libc::ENODEV | libc::EINVAL)) => return Ok(None),
            e => return Err(e),
        },
    };
    let mut request = strict.address().get().set_link_index_filter(index);
    request.message_mut().header.index = index;
    request.message_mut().attributes.push(AddressAttribute::TargetNetNsId(namespace));
    let listed: Result<Vec<AddressMessage>, _> = request.execute().try_collect().await;
    let addresses = match listed {
        Ok(listed) => listed.iter().filter_map(address_in).collect(),
        Err(error) => match HostError::netlink(what(), error) {
            e if matches!(e.errno(), Some(libc::ENODEV | libc::EINVAL)) => return Ok(None),
            e => return Err(e),
        },
    };
    Ok(Some(Attachment { end: end.clone(), mac: link.mac, addresses }))
}

/// The addresses of an interface in the handle's namespace, without link-local ones.
pub async fn addresses_on(handle: &Handle, index: u32) -> Result<Vec<IpNet>, HostError> {
    let listed: Result<Vec<AddressMessage>, _> = handle.address().get().set_link_index_filter(index).execute().try_collect().await;
    let listed = listed.map_err(|e| HostError::netlink(format!("list the addresses of the interface with index {index}"), e))?;
    Ok(listed.iter().filter_map(address_in).collect())
}

fn address_in(message: &AddressMessage) -> Option<IpNet> {
    if !matches!(message.header.scope, AddressScope::Universe | AddressScope::Site) {
        return None;
    }
    let own = |local: bool| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(ip) if local => Some(*ip),
            AddressAttribute::Address(ip) if !local => Some(*ip),
            _ => None,
        })
    };
    let ip: IpAddr = own(true).or_else(|| own(false))?;
    IpNet::new(ip, message.header.prefix_len).ok()
}

/// Makes an end a port of the bridge, up, with what comes from it let back to it (a container may reach itself by its service's address).
/// Idempotent.
pub async fn plug(host: &Handle, end: u32, bridge: u32) -> Result<(), HostError> {
    let what = |step: &str| format!("{step} the interface with index {end} on the bridge");
    let port = LinkUnspec::new_with_index(end).controller(bridge).up().build();
    link::set(host, port, what("put")).await?;
    let options = LinkBridgePort::new(end).hairpin(true).learning(true).isolated(false).build();
    host.link().set_port(options).execute().await.map_err(|e| HostError::netlink(what("set the port options of"), e))
}

/// Removes what attaching to this bridge began and a killed router never finished: ends without an alias. Answers with their names.
pub async fn sweep(host: &Handle, bridge: &str) -> Result<Vec<String>, HostError> {
    let prefix = prefix_of(bridge);
    let unfinished = |link: &Link| {
        let ours = link.name.len() == prefix.len() + 7 && link.name.starts_with(&prefix);
        ours && link.kind == "veth" && link.alias.is_empty() && link.master.is_none()
    };
    let mut gone = Vec::new();
    for link in link::all(host).await?.into_iter().filter(unfinished) {
        remove(host, link.index, &link.name).await?;
        gone.push(link.name);
    }
    Ok(gone)
}

/// Removes an end, and the interface in the container with it. Idempotent.
pub async fn remove(host: &Handle, index: u32, name: &str) -> Result<(), HostError> {
    let what = || format!("remove the interface {name}");
    match host.link().del(index).execute().await.map_err(|e| HostError::netlink(what(), e)) {
        Err(e) if e.errno() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_and_an_alias_tells_the_bridge() {
        let id = "0123456789abcdef".repeat(4);
        let name = name_of("weave", &id, "ethwe");
        assert!(link::valid_name(&name) && name.len() == 15 && name.starts_with(&prefix_of("weave")), "{name}");
        assert_eq!(name, name_of("weave", &id, "ethwe"));
        for other in [name_of("weave", &id, "eth0"), name_of("weave", "pid:1", "ethwe"), name_of("weave2", &id, "ethwe")] {
            assert_ne!(name, other);
        }
        let alias = alias_of("weave", "netns:/run/netns/a: b");
        assert_eq!(ident_in("weave", &alias), Some("netns:/run/netns/a: b"));
        assert_eq!(ident_in("weave2", &alias), None);
        assert_eq!(ident_in("wea", &alias), None);
    }
}
