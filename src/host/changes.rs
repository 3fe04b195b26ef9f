//! Interfaces that go down, or whose MTU is changed: whoever sends by them need not wait to find that out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures::StreamExt;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;

use super::link::Link;
use super::watch::Messages;
use super::{HostError, link, underlay};

/// What happened to the interface that has these addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It went down, lost its carrier or was deleted. The kernel takes IPv6's addresses, and all of one that is deleted, away before it says so: those
    /// are not among them, and there is no way from them any more.
    Lost(Vec<IpAddr>),
    /// It takes IP packets of at most so many bytes now, which is other than before.
    Resized(Vec<IpAddr>, u32),
}

/// A subscription to what the kernel says of interfaces.
pub struct LinkChanges {
    messages: Messages,
    /// The MTU of each.
    mtus: BTreeMap<u32, u32>,
    /// Interfaces with a carrier. What never had one leads nowhere, and containers come with such by the dozen.
    carrying: BTreeSet<u32>,
    /// What addresses each interface has: to ask when one is lost takes its time.
    addresses: BTreeMap<u32, BTreeSet<IpAddr>>,
}

impl LinkChanges {
    /// Subscribes, in the network namespace of the calling thread. Needs a running tokio runtime.
    pub async fn watch() -> Result<LinkChanges, HostError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let opened = rtnetlink::new_multicast_connection(&groups);
        let (connection, handle, messages) = opened.map_err(|e| HostError::io("subscribe to changes of interfaces", e))?;
        tokio::spawn(connection);
        let links = link::all(&handle).await?;
        let carrying = links.iter().filter(|link| link.carries).map(|link| link.index).collect();
        let mtus = links.iter().map(|link| (link.index, link.mtu)).collect();
        let mut addresses: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        for (index, ip) in underlay::by_interface(&handle).await? {
            addresses.entry(index).or_default().insert(ip);
        }
        Ok(LinkChanges { messages, mtus, carrying, addresses })
    }

    /// Waits until something happens to an interface. `None` where the subscription has failed.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            let (message, _) = self.messages.next().await?;
            if let Some(change) = self.heed(message.payload) {
                return Some(change);
            }
        }
    }

    fn addresses_of(&self, index: u32) -> Vec<IpAddr> {
        self.addresses.get(&index).into_iter().flatten().copied().collect()
    }

    fn heed(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
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
        let resized = self.is_resized(&link, deleted);
        if self.is_lost(&link, deleted) {
            return Some(Change::Lost(self.addresses_of(link.index)));
        }
        let own = self.addresses_of(link.index);
        (resized && !own.is_empty()).then_some(Change::Resized(own, link.mtu))
    }

    fn address_gone(&mut self, index: u32, ip: IpAddr) {
        let Some(addresses) = self.addresses.get_mut(&index) else { return };
        addresses.remove(&ip);
        if addresses.is_empty() {
            self.addresses.remove(&index);
        }
    }

    /// Notes how large its packets may be; true where that was something else before.
    fn is_resized(&mut self, link: &Link, deleted: bool) -> bool {
        if deleted {
            self.mtus.remove(&link.index);
            return false;
        }
        // A message about something else may come without.
        link.mtu > 0 && self.mtus.insert(link.index, link.mtu).is_some_and(|before| before != link.mtu)
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
        let mut links = LinkChanges::watch().await.expect("anybody may subscribe");
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
    async fn an_interface_is_resized_where_its_mtu_was_another() {
        let mut links = LinkChanges::watch().await.expect("anybody may subscribe");
        let link = |mtu| Link { index: u32::MAX - 3, mtu, ..Link::default() };
        assert!(!links.is_resized(&link(1500), false), "it is new");
        assert!(!links.is_resized(&link(1500), false));
        assert!(!links.is_resized(&link(0), false), "nothing is said of it");
        assert!(links.is_resized(&link(1400), false));
        assert!(!links.is_resized(&link(9000), true), "it is deleted");
        assert!(!links.is_resized(&link(9000), false), "it is new again");
    }

    #[tokio::test]
    async fn what_an_interface_has_is_known_before_it_is_lost() {
        use netlink_packet_route::address::{AddressAttribute, AddressMessage};
        let mut links = LinkChanges::watch().await.expect("anybody may subscribe");
        let ip = IpAddr::from([192, 0, 2, 7]);
        let index = u32::MAX - 2;
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(ip));
        assert_eq!(links.heed(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message.clone()))), None);
        assert_eq!(links.addresses_of(index), [ip]);
        assert_eq!(links.heed(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(message))), None);
        assert_eq!(links.addresses_of(index), [] as [IpAddr; 0]);
        assert!(!links.addresses.contains_key(&index), "what came and went leaves nothing");
    }
}
