//! Interfaces as the kernel describes them, reduced to what the router asks about.

use futures::TryStreamExt;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgePortState, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoPortData, InfoTun, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, State,
};
use rtnetlink::packet_core::Nla;
use rtnetlink::{Handle, LinkUnspec};

use super::HostError;

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind as `ip link` prints it (`bridge`, `veth`, `tun`, …); "physical" where the kernel gives none.
    pub kind: String,
    /// The alias an operator, or we, gave it.
    pub alias: String,
    /// MTU.
    pub mtu: u32,
    /// MAC; zeros where it has none.
    pub mac: [u8; 6],
    /// The bridge or bond it is a port of.
    pub master: Option<u32>,
    /// Administratively up.
    pub up: bool,
    /// Up, and with a carrier.
    pub carries: bool,
    /// A loopback interface.
    pub loopback: bool,
    /// The VLAN which untagged frames belong to, for a bridge with VLAN filtering switched on.
    pub pvid: Option<u16>,
    /// For a TUN or TAP: what it is like.
    pub tun: Option<Tun>,
    /// For one end of a veth pair: the index of the other.
    pub other_end: Option<u32>,
    /// The number by which this namespace knows the one where the other end is, if that is elsewhere.
    pub elsewhere: Option<i32>,
    /// It takes frames now: it is up, and so is what is at the other end.
    pub running: bool,
    /// For a port of a bridge: it forwards frames.
    pub forwarding: bool,
}

/// What the TUN driver says of one of its interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tun {
    /// It takes more than one queue.
    pub multi_queue: bool,
    /// Queues that processes hold, where it takes more than one.
    pub queues: u32,
}

/// Attributes of a TUN interface (`linux/if_link.h`), which the library hands over as bytes.
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const IFLA_TUN_NUM_QUEUES: u16 = 8;

impl Link {
    /// Reads a netlink message.
    pub fn from_message(message: &LinkMessage) -> Link {
        let flags = message.header.flags;
        let mut link = Link {
            index: message.header.index,
            kind: "physical".into(),
            up: flags.contains(LinkFlags::Up),
            carries: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            loopback: flags.contains(LinkFlags::Loopback),
            ..Link::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().unwrap_or_default(),
                LinkAttribute::Controller(master) => link.master = Some(*master).filter(|m| *m != 0),
                LinkAttribute::LinkInfo(infos) => link.read_infos(infos),
                LinkAttribute::OperState(state) => link.running = *state == State::Up,
                LinkAttribute::Link(index) => link.other_end = Some(*index),
                LinkAttribute::LinkNetNsId(id) => link.elsewhere = Some(*id),
                _ => {}
            }
        }
        link
    }

    fn read_infos(&mut self, infos: &[LinkInfo]) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = kind.to_string(),
                LinkInfo::Data(InfoData::Bridge(data)) => {
                    let filtering = data.contains(&InfoBridge::VlanFiltering(true));
                    let pvid = data.iter().find_map(|d| match d {
                        InfoBridge::VlanDefaultPvid(vid) => Some(*vid),
                        _ => None,
                    });
                    self.pvid = pvid.filter(|_| filtering);
                }
                LinkInfo::Data(InfoData::Tun(data)) => self.tun = Some(Tun::read(data)),
                LinkInfo::PortData(InfoPortData::BridgePort(data)) => {
                    self.forwarding = data.contains(&InfoBridgePort::State(BridgePortState::Forwarding));
                }
                _ => {}
            }
        }
    }
}

impl Tun {
    fn read(attributes: &[InfoTun]) -> Tun {
        let mut tun = Tun::default();
        for attribute in attributes {
            let mut value = vec![0; attribute.value_len()];
            attribute.emit_value(&mut value);
            match (attribute.kind(), value.as_slice()) {
                (IFLA_TUN_MULTI_QUEUE, [flag]) => tun.multi_queue = *flag != 0,
                (IFLA_TUN_NUM_QUEUES, &[a, b, c, d]) => tun.queues = u32::from_ne_bytes([a, b, c, d]),
                _ => {}
            }
        }
        tun
    }
}

/// True for a name an interface may have.
pub fn valid_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'%';
    (1..=15).contains(&name.len()) && name.bytes().all(legal) && name != "." && name != ".."
}

/// The interface of this name, if there is one.
pub async fn by_name(handle: &Handle, name: &str) -> Result<Option<Link>, HostError> {
    if !valid_name(name) {
        return Err(HostError::BadName(name.into()));
    }
    let answer = handle.link().get().match_name(name).execute().try_next().await;
    found(answer, || format!("look up the interface {name}"))
}

/// The interface of this index, if there is one.
pub async fn by_index(handle: &Handle, index: u32) -> Result<Option<Link>, HostError> {
    let answer = handle.link().get().match_index(index).execute().try_next().await;
    found(answer, || format!("look up the interface with index {index}"))
}

/// All interfaces of this network namespace.
pub async fn all(handle: &Handle) -> Result<Vec<Link>, HostError> {
    let links: Result<Vec<LinkMessage>, _> = handle.link().get().execute().try_collect().await;
    Ok(links.map_err(|e| HostError::netlink("list the interfaces", e))?.iter().map(Link::from_message).collect())
}

/// Keeps IPv6 off an interface that is not up yet: a port of a bridge has nothing to say of its own, and what it said would be flooded. A
/// kernel without IPv6, or a read-only /proc, refuses; then `no_link_local` does most of it.
pub fn silence(name: &str) {
    for (knob, value) in [("accept_ra", "0"), ("disable_ipv6", "1")] {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/{knob}");
        if let Err(e) = std::fs::write(&path, value) {
            tracing::debug!("could not write {value} to {path}: {e}");
        }
    }
}

/// Changes an interface; `what` completes the sentence "could not …".
pub(super) async fn set(handle: &Handle, message: LinkMessage, what: impl Into<String>) -> Result<(), HostError> {
    handle.link().set(message).execute().await.map_err(|e| HostError::netlink(what, e))
}

/// Keeps the kernel from giving the interface an IPv6 link-local address of its own. A kernel without IPv6 has nothing to switch off.
pub(super) async fn no_link_local(handle: &Handle, index: u32) -> Result<(), HostError> {
    let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let message = LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet6])).build();
    match set(handle, message, format!("switch off IPv6 addresses on the interface with index {index}")).await {
        Err(e) if matches!(e.errno(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::EINVAL)) => Ok(()),
        other => other,
    }
}

fn found(answer: Result<Option<LinkMessage>, rtnetlink::Error>, what: impl Fn() -> String) -> Result<Option<Link>, HostError> {
    match answer {
        Ok(message) => Ok(message.as_ref().map(Link::from_message)),
        Err(error) => match HostError::netlink(what(), error) {
            e if e.errno() == Some(libc::ENODEV) => Ok(None),
            e => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces() {
        for good in ["weave", "br-0123456789ab", "a.1", "eth0@x"] {
            assert!(valid_name(good), "{good}");
        }
        for bad in ["", ".", "..", "sixteen-bytes-xx", "a b", "a/b", "a:b", "br%d", "ümlaut"] {
            assert!(!valid_name(bad), "{bad}");
        }
    }
}
