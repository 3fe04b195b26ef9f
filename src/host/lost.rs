//! Interfaces that go down: no datagram leaves by them any more, and whoever sends by them need not wait to find that out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures::StreamExt;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;

use super::link::Link;
use super::watch::Messages;
use super::{HostError, link, underlay};

/// A subscription to what the kernel says of interfaces.
pub struct LostLinks {
    messages: Messages,
    /// Interfaces with a carrier. What never had one leads nowhere, and containers come with such by the dozen.
    carrying: BTreeSet<u32>,
    /// What addresses each interface has: to ask when one is lost takes its time.
    addresses: BTreeMap<u32, BTreeSet<IpAddr>>,
}

impl LostLinks {
    /// Subscribes, in the network namespace of the calling thread. Needs a running tokio runtime.
    pub async fn watch() -> Result<LostLinks, HostError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let opened = rtnetlink::new_multicast_connection(&groups);
        let (connection, handle, messages) = opened.map_err(|e| HostError::io("subscribe to changes of interfaces", e))?;
        tokio::spawn(connection);
        let carrying = link::all(&handle).await?.iter().filter(|link| link.carries).map(|link| link.index).collect();
        let mut addresses: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        for (index, ip) in underlay::by_interface(&handle).await? {
            addresses.entry(index).or_default().insert(ip);
        }
        Ok(LostLinks { messages, carrying, addresses })
    }

    /// Waits until an interface goes down, loses its carrier or is deleted; the addresses that it has. The kernel takes IPv6's, and all of one that
    /// is deleted, away before it says so: those are not among them, and there is no way from them any more. `None`
    /// where the subscription has failed.
    pub async fn next(&mut self) -> Option<Vec<IpAddr>> {
        loop {
            let (message, _) = self.messages.next().await?;
            if let Some(index) = self.lost(message.payload) {
                return Some(self.addresses_of(index));
            }
        }
    }

    fn addresses_of(&self, index: u32) -> Vec<IpAddr> {
        self.addresses.get(&index).into_iter().flatten().copied().collect()
    }

    fn lost(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<u32> {
        use RouteNetlinkMessage as M;
        let (link, deleted) = match payload {
            // A port that leaves its bridge is told as a deletion of another family.
            NetlinkPayload::InnerMessage(M::NewLink(m)) if m.header.interface_family == AddressFamily::Unspec => {
                (Link::from_message(&m), false)
            }
            NetlinkPayload::InnerMessage(M::DelLink(m)) if m.header.interface_family == AddressFamily::Unspec => {
                (Link::from_message(&m), true)
            }
            NetlinkPayload::InnerMessage(M::NewAddress(m)) => {
                let ip = underlay::usable(&m)?;
                self.addresses.entry(m.header.index).or_default().insert(ip);
                return None;
            }
            NetlinkPayload::InnerMessage(M::DelAddress(m)) => {
                self.address_gone(m.header.index, underlay::usable(&m)?);
                return None;
            }
            _ => return None,
        };
        self.is_lost(&link, deleted).then_some(link.index)
    }

    fn address_gone(&mut self, index: u32, ip: IpAddr) {
        let Some(addresses) = self.addresses.get_mut(&index) else { return };
        addresses.remove(&ip);
        if addresses.is_empty() {
            self.addresses.remove(&index);
        }
    }

    /// Notes how an interface is; true where it was better before.
    fn is_lost(&mut self, link: &Link, deleted: bool) -> bool {
        if link.carries && !deleted {
            self.carrying.insert(link.index);
            return false;
        }
        self.carrying.remove(&link.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interface_is_lost_once_and_only_if_it_was_there() {
        let mut links = LostLinks::watch().await.expect("anybody may subscribe");
        let link = |index, carries| Link { index, carries, up: true, ..Link::default() };
        let number = u32::MAX - 1;
        assert!(!links.is_lost(&link(number, false), false), "it has never had a carrier");
        assert!(!links.is_lost(&link(number, true), false));
        assert!(links.is_lost(&link(number, false), false));
        assert!(!links.is_lost(&link(number, false), true), "it was lost before");
        assert!(!links.is_lost(&link(number, true), false));
        assert!(links.is_lost(&link(number, true), true), "it is deleted");
    }

    #[tokio::test]
    async fn what_an_interface_has_is_known_before_it_is_lost() {
        use netlink_packet_route::address::{AddressAttribute, AddressMessage};
        let mut links = LostLinks::watch().await.expect("anybody may subscribe");
        let ip = IpAddr::from([192, 0, 2, 7]);
        let index = u32::MAX - 2;
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(ip));
        assert_eq!(links.lost(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message.clone()))), None);
        assert_eq!(links.addresses_of(index), [ip]);
        assert_eq!(links.lost(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(message))), None);
        assert_eq!(links.addresses_of(index), [] as [IpAddr; 0]);
        assert!(!links.addresses.contains_key(&index), "what came and went leaves nothing");
    }
}
