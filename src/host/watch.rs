//! Notices when something is done to the bridge, the TAP or the host's addresses.

use std::collections::VecDeque;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourHeader};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::SocketAddr;

use super::link::Link;
use super::{Bridge, HostError};

/// What happened on the host. The run loop puts things right with [`Bridge::ensure`] and [`Bridge::attach`]; all are safe to act upon twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// The bridge was deleted or renamed.
    BridgeGone,
    /// The bridge was set down.
    BridgeDown,
    /// The TAP was deleted: it must be opened anew.
    TapGone,
    /// The TAP was taken off the bridge, or set down.
    TapDetached,
    /// The bridge's MTU is now this.
    MtuChanged(u32),
    /// A port was plugged into the bridge or pulled.
    PortsChanged,
    /// A host address came or went, or an interface went up or down: read the underlay's addresses again.
    AddressesChanged,
    /// An address of the bridge came or went.
    BridgeAddressesChanged,
    /// The bridge learnt or forgot a MAC: read its table again.
    MacsChanged,
    /// Notifications were lost: look at everything again.
    Missed,
}

/// What the kernel says, and who says it.
pub(super) type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// A subscription to the kernel's notifications.
#[derive(Debug)]
pub struct Watch {
    messages: Messages,
    pending: VecDeque<HostEvent>,
    bridge: Option<(u32, String)>,
    bridge_up: bool,
    mtu: u32,
    tap: Option<u32>,
}

impl Watch {
    /// Subscribes, in the network namespace of the calling thread. Needs a running tokio runtime.
    pub fn new() -> Result<Watch, HostError> {
        Ok(Watch { messages: subscribe()?, pending: VecDeque::new(), bridge: None, bridge_up: true, mtu: 0, tap: None })
    }

    /// Says which bridge and TAP to watch; called again whenever one of them was made anew.
    pub fn expect(&mut self, bridge: &Bridge, tap: Option<u32>) {
        self.bridge = Some((bridge.index(), bridge.name().to_string()));
        self.bridge_up = true;
        self.mtu = bridge.mtu();
        self.tap = tap;
        self.pending.clear();
    }

    /// Waits for the next event. Cancel-safe.
    pub async fn next(&mut self) -> HostEvent {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return event;
            }
            match self.messages.next().await {
                Some((message, _)) => self.read(message.payload),
                None => {
                    // The socket failed. Nothing is known until a new one is open, and everything may have changed meanwhile.
                    match subscribe() {
                        Ok(messages) => self.messages = messages,
                        Err(error) => {
                            tracing::warn!("changes to the bridge go unnoticed for a while: {error}");
                            tokio::time::sleep(RETRY).await;
                        }
                    }
                    return HostEvent::Missed;
                }
            }
        }
    }

    fn read(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) {
        use RouteNetlinkMessage as M;
        match payload {
            // Port options are told with family AF_BRIDGE, and a port that leaves as a deletion of that family: the plain family says it too.
            NetlinkPayload::InnerMessage(M::NewLink(m)) if m.header.interface_family == AddressFamily::Unspec => {
                self.link_is(&Link::from_message(&m));
            }
            NetlinkPayload::InnerMessage(M::DelLink(m)) if m.header.interface_family == AddressFamily::Unspec => {
                self.link_gone(&Link::from_message(&m));
            }
            NetlinkPayload::InnerMessage(M::DelLink(m)) if m.header.interface_family == AddressFamily::Bridge => {
                self.port_left(&Link::from_message(&m));
            }
            NetlinkPayload::InnerMessage(M::NewAddress(m) | M::DelAddress(m)) => self.address(&m),
            NetlinkPayload::InnerMessage(M::NewNeighbour(m) | M::DelNeighbour(m))
                if m.header.family == AddressFamily::Bridge && self.is_about_stations(&m.header) =>
            {
                self.push(HostEvent::MacsChanged);
            }
            NetlinkPayload::Overrun(_) => self.push(HostEvent::Missed),
            _ => {}
        }
    }

    /// What the bridge learns behind our TAP is elsewhere in the mesh. What we teach it is so too, but may have been here until now.
    /// Entries of a VXLAN device's own are none of the bridge's.
    fn is_about_stations(&self, entry: &NeighbourHeader) -> bool {
        let taught = entry.flags.contains(NeighbourFlags::ExtLearned);
        !entry.flags.contains(NeighbourFlags::Own) && (taught || Some(entry.ifindex) != self.tap)
    }

    fn link_is(&mut self, link: &Link) {
        let Some((bridge, name)) = self.bridge.clone() else { return };
        if link.index == bridge {
            if link.name != name {
                return self.push(HostEvent::BridgeGone);
            }
            if self.bridge_up && !link.up {
                self.push(HostEvent::BridgeDown);
            }
            self.bridge_up = link.up;
            if std::mem::replace(&mut self.mtu, link.mtu) != link.mtu {
                self.push(HostEvent::MtuChanged(link.mtu));
            }
        } else if Some(link.index) == self.tap {
            if link.master != Some(bridge) || !link.up {
                self.push(HostEvent::TapDetached);
            }
        } else if link.master == Some(bridge) {
            self.push(HostEvent::PortsChanged);
        } else {
            self.push(HostEvent::AddressesChanged);
        }
    }

    fn link_gone(&mut self, link: &Link) {
        if self.bridge.as_ref().is_some_and(|(bridge, _)| *bridge == link.index) {
            self.push(HostEvent::BridgeGone);
        } else if Some(link.index) == self.tap {
            self.push(HostEvent::TapGone);
        } else {
            self.push(HostEvent::AddressesChanged);
        }
    }

    fn port_left(&mut self, link: &Link) {
        if Some(link.index) == self.tap {
            self.push(HostEvent::TapDetached);
        } else {
            self.push(HostEvent::PortsChanged);
        }
    }

    fn address(&mut self, message: &AddressMessage) {
        match &self.bridge {
            Some((bridge, _)) if *bridge == message.header.index => self.push(HostEvent::BridgeAddressesChanged),
            Some(_) | None => self.push(HostEvent::AddressesChanged),
        }
    }

    /// One burst of notifications is one event of each sort.
    fn push(&mut self, event: HostEvent) {
        if !self.pending.contains(&event) {
            self.pending.push_back(event);
        }
    }
}

/// How long to wait before subscribing again after a failure.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

fn subscribe() -> Result<Messages, HostError> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr, MulticastGroup::Neigh];
    let opened = rtnetlink::new_multicast_connection(&groups);
    let (connection, _, messages) = opened.map_err(|e| HostError::io("subscribe to changes of interfaces", e))?;
    tokio::spawn(connection);
    Ok(messages)
}

#[cfg(test)]
mod tests;
