//! What the bridge needs so that containers reach the name server of their own host, also where the host is not exposed.
//!
//! The address is on the bridge with link scope: the kernel answers ARP for it there, and takes it for nothing else. The host need have no
//! route back to the containers: the name server's socket is bound to the bridge, and then the kernel takes every destination for on-link.
//! Reverse path filtering would drop the queries before that, so it is loosened on the bridge.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::Handle;

use super::{Bridge, HostError};

/// Whole addresses, not networks.
const PREFIX: u8 = 32;

/// Puts the address on the bridge. Idempotent.
pub async fn put(handle: &Handle, bridge: &Bridge, address: Ipv4Addr) -> Result<(), HostError> {
    loosen(bridge.name());
    let mut request = handle.address().add(bridge.index(), address.into(), PREFIX);
    request.message_mut().header.scope = AddressScope::Link;
    match request.execute().await {
        Ok(()) => Ok(()),
        Err(e) => match HostError::netlink(format!("put the name server's address {address} on bridge {}", bridge.name()), e) {
            e if e.errno() == Some(libc::EEXIST) => Ok(()),
            e => Err(e),
        },
    }
}

/// Takes the address off the bridge, where it is there.
pub async fn take_away(handle: &Handle, bridge: &Bridge, address: Ipv4Addr) -> Result<(), HostError> {
    for message in list(handle, bridge.index()).await?.into_iter().filter(|message| local(message) == Some(address.into())) {
        let what = || format!("take the name server's address {address} off bridge {}", bridge.name());
        handle.address().del(message).execute().await.map_err(|e| HostError::netlink(what(), e))?;
    }
    Ok(())
}

/// The addresses of the bridge at which somebody may ask: all but link-local ones of IPv6, which mean nothing without an interface.
pub async fn addresses(handle: &Handle, bridge: &Bridge) -> Result<Vec<IpAddr>, HostError> {
    let global = |ip: &IpAddr| !matches!(ip, IpAddr::V6(six) if six.is_unicast_link_local());
    Ok(list(handle, bridge.index()).await?.iter().filter_map(local).filter(global).collect())
}

async fn list(handle: &Handle, index: u32) -> Result<Vec<AddressMessage>, HostError> {
    let all: Result<Vec<AddressMessage>, _> = handle.address().get().set_link_index_filter(index).execute().try_collect().await;
    let all = all.map_err(|e| HostError::netlink("list the addresses of the bridge", e))?;
    Ok(all.into_iter().filter(|message| message.header.index == index).collect())
}

/// The bridge's own address in a message.
fn local(message: &AddressMessage) -> Option<IpAddr> {
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    own.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}

/// The kernel takes the stricter of the host's setting and the interface's by their number, of which 2 is the loose check; without any on the
/// host there need be none here.
fn loosen(bridge: &str) {
    let host = fs::read_to_string("/proc/sys/net/ipv4/conf/all/rp_filter");
    let value = if host.is_ok_and(|text| text.trim() == "0") { "0" } else { "2" };
    let path = format!("/proc/sys/net/ipv4/conf/{bridge}/rp_filter");
    if let Err(e) = fs::write(&path, value) {
        tracing::debug!("could not write {value} to {path}: {e}");
    }
}
