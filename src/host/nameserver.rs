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
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket};

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
    let path = |device: &str| format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
    let is = |device: &str, value: &str| fs::read_to_string(path(device)).is_ok_and(|text| text.trim() == value);
    let value = if is("all", "0") { "0" } else { "2" };
    // Writing is told to everybody who watches, us included.
    if is(bridge, value) {
        return;
    }
    if let Err(e) = fs::write(path(bridge), value) {
        tracing::debug!("could not write {value} to {}: {e}", path(bridge));
    }
}

/// `NETLINK_ROUTE`.
const ROUTE: isize = 0;
/// `RTNLGRP_IPV4_NETCONF`: settings of an interface, or of all, under /proc/sys/net/ipv4/conf.
const SETTINGS: u32 = 24;

/// Keeps reverse path filtering loose on the bridge, whoever makes it strict, in the network namespace of the calling thread; ends only where the
/// kernel tells nothing of it any more.
pub async fn stay_loose(bridge: &str) -> Result<(), HostError> {
    let failed = |e| HostError::io("watch the settings of interfaces", e);
    let mut socket = TokioSocket::new(ROUTE).map_err(failed)?;
    socket.socket_mut().bind_auto().map_err(failed)?;
    socket.socket_ref().add_membership(SETTINGS).map_err(failed)?;
    loop {
        match socket.recv_from_full().await {
            Ok(_) => loosen(bridge),
            // Notifications were lost: this one may be among them.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => loosen(bridge),
            Err(error) => return Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::lab::clock::{pause, wait_until};
    use crate::host::lab::tests::lab_or_skip;
    use crate::host::lab::{BRIDGE, in_namespace};
    use std::time::Duration;

    #[test]
    fn a_filter_that_is_made_strict_later_is_loosened_again() {
        let Some(mut lab) = lab_or_skip("wrn") else { return };
        let host = lab.host("h1").expect("a host");
        lab.bridge("h1", BRIDGE, None).expect("a bridge");
        let knob = |device: &str, value: &str| {
            let path = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
            in_namespace(&host, || fs::write(&path, value)).expect("the namespace").expect("written");
        };
        let is = |value: &str| {
            let read = || fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{BRIDGE}/rp_filter"));
            in_namespace(&host, read).expect("the namespace").expect("read").trim() == value
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let watch = || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(2), stay_loose(BRIDGE)).await })
                };
                assert!(in_namespace(&host, watch).expect("the namespace").is_err(), "it goes on until it is stopped");
            });
            pause(Duration::from_millis(300));
            let soon = Duration::from_secs(1);
            for (device, value, becomes) in [("all", "1", "2"), (BRIDGE, "1", "2"), ("all", "0", "0"), (BRIDGE, "1", "0")] {
                knob(device, value);
                assert!(wait_until(soon, || is(becomes)), "{device} {value}");
            }
        });
    }
}
