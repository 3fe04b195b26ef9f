//! Attaching and detaching.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo};
use netlink_packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::super::HostError;
use super::super::link::{self, Link};
use super::announce::announce;
use super::namespace::Visit;
use super::{MAX_IDENT, found, knobs};

/// How long a new port of the bridge may take until it forwards; a bridge with a forward delay takes longer, and is not waited for.
const FORWARDING: Duration = Duration::from_millis(200);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(1);

/// Where multicast of IPv4 goes.
const MULTICAST: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 0);

/// The bridge to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeEnd {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub index: u32,
}

/// A container that is to be attached.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which container it is.
    pub ident: String,
    /// Its network namespace: `/run/netns/NAME`, `/proc/PID/ns/net`.
    pub netns: PathBuf,
    /// Name of the interface in it.
    pub interface: String,
    /// The addresses it is to have, besides those it has.
    pub addresses: Vec<IpNet>,
    /// Multicast of IPv4 goes out of this interface.
    pub multicast_route: bool,
    /// An address of the bridge at which the name server is: the container reaches it without being in any subnet of the host.
    pub name_server: Option<Ipv4Addr>,
    /// The bridge.
    pub bridge: BridgeEnd,
}

/// A container that is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The end on the host.
    pub host_end: String,
    /// Its interface index.
    pub index: u32,
    /// MAC of the interface in the container.
    pub mac: [u8; 6],
    /// True where there was no interface before.
    pub made: bool,
    /// The addresses that it did not have before.
    pub added: Vec<IpNet>,
}

/// Attaches a container: afterwards all of it is there, or, with an error, nothing that was not there before. Idempotent.
///
/// Blocks for some milliseconds: call it on a thread of its own.
pub fn attach(order: &Order) -> Result<Attached, HostError> {
    let attempted = format!("attach {}", order.ident);
    if order.ident.is_empty() || order.ident.len() > MAX_IDENT || order.ident.chars().any(char::is_control) {
        return Err(HostError::refused(attempted, format!("an ident has 1 to {MAX_IDENT} bytes and no control characters")));
    }
    block_on(async {
        let visit = Visit::open(&order.netns)?;
        let (near, far, made) = pair(&visit, order).await?;
        let mut added = Vec::new();
        match furnish(&visit, order, &near, &far, &mut added).await {
            Ok(()) => {}
            Err(error) => {
                undo(&visit, &near, &far, made, &added).await;
                return Err(error);
            }
        }
        let addresses: Vec<IpAddr> = match made {
            true => order.addresses.iter().map(IpNet::addr).collect(),
            false => added.iter().map(IpNet::addr).collect(),
        };
        if made {
            wait_until_open(&visit, &near, &far).await;
        }
        // It is attached, heard of or not: neighbours find out by themselves within seconds.
        let announced =
            visit.within(|| announce(far.index, far.mac, &addresses)).map(|sent| sent.map_err(|e| HostError::io("announce", e)));
        if let Err(error) | Ok(Err(error)) = announced {
            tracing::debug!("could not announce the addresses of {}: {error}", order.ident);
        }
        Ok(Attached { host_end: near.name, index: near.index, mac: far.mac, made, added })
    })
}

/// Which addresses [`detach`] takes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// All.
    All,
    /// Those of them that it has.
    These(Vec<IpNet>),
}

/// Takes addresses from a container, and its interface with the last of them; answers with what was taken. What is not there is no error, nor
/// is a container that is gone. Blocks for some milliseconds: call it on a thread of its own.
pub fn detach(bridge: &str, ident: &str, interface: &str, netns: &Path, removal: &Removal) -> Result<Vec<IpNet>, HostError> {
    block_on(async {
        let (host, strict) = (super::super::connect()?, found::connect()?);
        let name = found::name_of(bridge, ident, interface);
        let Some(near) = link::by_name(&host, &name).await? else { return Ok(Vec::new()) };
        if !near.alias.is_empty() && found::ident_in(bridge, &near.alias) != Some(ident) {
            return Ok(Vec::new());
        }
        let other = near.elsewhere.zip(near.other_end);
        let end = found::End { ident: ident.into(), name, index: near.index, bridge: near.master, mtu: near.mtu, other };
        let has = found::look(&strict, &end).await?.map(|a| a.addresses).unwrap_or_default();
        let (gone, stay): (Vec<IpNet>, Vec<IpNet>) = has.into_iter().partition(|address| match removal {
            Removal::All => true,
            Removal::These(these) => these.contains(address),
        });
        if stay.is_empty() && (!gone.is_empty() || *removal == Removal::All) {
            found::remove(&host, near.index, &near.name).await?;
            return Ok(gone);
        }
        if !gone.is_empty() {
            let visit = Visit::open(netns)?;
            let far = link::by_name(&visit.inside, interface).await?.filter(|far| joined(&near, far));
            let missing = || HostError::refused(format!("detach {ident}"), format!("{} is not its namespace any more", netns.display()));
            withdraw(&visit.inside, far.ok_or_else(missing)?.index, &gone, &stay).await?;
        }
        Ok(gone)
    })
}

/// Gives both ends of an attachment the bridge's MTU. `netns` is refused where it is not its container's any more. Blocks for some milliseconds:
/// call it on a thread of its own.
pub fn resize(bridge: &BridgeEnd, end: &found::End, netns: &Path) -> Result<(), HostError> {
    block_on(async {
        let what = || format!("give {} the MTU of bridge {}", end.ident, bridge.name);
        let visit = Visit::open(netns)?;
        let Some(near) = link::by_index(&visit.host, end.index).await?.filter(|near| near.name == end.name) else { return Ok(()) };
        let far = match near.other_end {
            Some(far) => link::by_index(&visit.inside, far).await?.filter(|far| joined(&near, far)),
            None => None,
        };
        let far = far.ok_or_else(|| HostError::refused(what(), format!("{} is not its namespace any more", netns.display())))?;
        let mtu = bridge_mtu(&visit.host, bridge, &end.ident).await?;
        let ends = [(&visit.host, near.index), (&visit.inside, far.index)];
        // The end that sends never has the larger one.
        let order = if mtu > near.mtu { [0, 1] } else { [1, 0] };
        for (handle, index) in order.map(|at| ends[at]) {
            link::set(handle, LinkUnspec::new_with_index(index).mtu(mtu).build(), what()).await?;
        }
        Ok(())
    })
}

/// Runs it on an event loop of its own.
fn block_on<T>(work: impl Future<Output = Result<T, HostError>>) -> Result<T, HostError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| HostError::io("start an event loop", e))?.block_on(work)
}

/// Both ends of the pair, and whether it was made just now.
async fn pair(visit: &Visit, order: &Order) -> Result<(Link, Link, bool), HostError> {
    let attempted = || format!("attach {}", order.ident);
    let name = found::name_of(&order.bridge.name, &order.ident, &order.interface);
    let near = link::by_name(&visit.host, &name).await?;
    let far = link::by_name(&visit.inside, &order.interface).await?;
    match (near, far) {
        (Some(near), Some(far)) if joined(&near, &far) => {
            let unfinished = near.alias.is_empty();
            return Ok((near, far, unfinished));
        }
        (_, Some(far)) => {
            let whose = owner(visit, order, &far).await.map_or(String::new(), |ident| format!(", by which {ident} is attached"));
            let reason = format!("its namespace already has an interface {}{whose}; detach that first", order.interface);
            return Err(HostError::refused(attempted(), reason));
        }
        // The container was started anew: what led to its former namespace leads nowhere.
        (Some(near), None) if near.alias.is_empty() || found::ident_in(&order.bridge.name, &near.alias) == Some(&*order.ident) => {
            found::remove(&visit.host, near.index, &near.name).await?;
        }
        (Some(near), None) => {
            return Err(HostError::refused(attempted(), format!("the interface {} belongs to something else ({})", near.name, near.alias)));
        }
        (None, None) => {}
    }
    let (near, far) = make(visit, order, &name).await?;
    Ok((near, far, true))
}

/// The two are the ends of one pair. Indexes of a namespace are not used again, and the other end's is known to both.
fn joined(near: &Link, far: &Link) -> bool {
    let kinds = near.kind == "veth" && far.kind == "veth";
    kinds && near.elsewhere.is_some() && near.other_end == Some(far.index) && far.other_end == Some(near.index)
}

/// The ident of the container whose interface this is.
async fn owner(visit: &Visit, order: &Order, far: &Link) -> Option<String> {
    let near = link::by_index(&visit.host, far.other_end?).await.ok()??;
    joined(&near, far).then(|| found::ident_in(&order.bridge.name, &near.alias).map(String::from)).flatten()
}

async fn make(visit: &Visit, order: &Order, name: &str) -> Result<(Link, Link), HostError> {
    let attempted = || format!("make the interface {} for {}", order.interface, order.ident);
    let mtu = bridge_mtu(&visit.host, &order.bridge, &order.ident).await?;
    if !link::valid_name(&order.interface) {
        return Err(HostError::BadName(order.interface.clone()));
    }
    let far = LinkUnspec::new_with_name(&order.interface).mtu(mtu).setns_by_fd(visit.fd()).build();
    let mut message = LinkUnspec::new_with_name(name).mtu(mtu).build();
    let peer = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far)));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), peer]));
    visit.host.link().add(message).execute().await.map_err(|e| HostError::netlink(attempted(), e))?;
    let vanished = || HostError::refused(attempted(), "it vanished at once; is the container still running?");
    let near = link::by_name(&visit.host, name).await?.ok_or_else(vanished)?;
    match link::by_name(&visit.inside, &order.interface).await {
        Ok(Some(far)) if joined(&near, &far) => Ok((near, far)),
        outcome => {
            let _ = found::remove(&visit.host, near.index, name).await;
            outcome.and_then(|_| Err(vanished()))
        }
    }
}

async fn bridge_mtu(host: &Handle, bridge: &BridgeEnd, ident: &str) -> Result<u32, HostError> {
    let found = link::by_index(host, bridge.index).await?.filter(|found| found.name == bridge.name);
    let missing = || HostError::refused(format!("attach {ident}"), format!("bridge {} is gone; try again", bridge.name));
    Ok(found.ok_or_else(missing)?.mtu)
}

/// Brings both ends to what is ordered.
async fn furnish(visit: &Visit, order: &Order, near: &Link, far: &Link, added: &mut Vec<IpNet>) -> Result<(), HostError> {
    let what = |step: &str| format!("{step} {} of {}", order.interface, order.ident);
    let mtu = bridge_mtu(&visit.host, &order.bridge, &order.ident).await?;
    let size = LinkUnspec::new_with_index(near.index).mtu(mtu).build();
    link::set(&visit.host, size, format!("set the MTU of the interface {}", near.name)).await?;
    if near.master.is_none() {
        link::silence(&near.name);
        link::no_link_local(&visit.host, near.index).await?;
    }
    let v6 = order.addresses.iter().any(|address| address.addr().is_ipv6());
    visit.within(|| knobs::station(&order.interface, v6))?;
    let up = LinkUnspec::new_with_index(far.index).mtu(mtu).up().build();
    link::set(&visit.inside, up, what("set up")).await?;
    let has = found::addresses_on(&visit.inside, far.index).await?;
    for address in order.addresses.iter().filter(|address| !has.contains(address)) {
        add(&visit.inside, far.index, *address, &what(&format!("give {address} to"))).await?;
        added.push(*address);
    }
    if order.multicast_route {
        route(&visit.inside, far.index, (MULTICAST, 4), &what("route multicast to")).await?;
    }
    if let Some(server) = order.name_server {
        route(&visit.inside, far.index, (server, 32), &what("route names to")).await?;
    }
    // Last: an end without a mark is one that was never finished.
    let alias = LinkUnspec::new_with_index(near.index).alias(found::alias_of(&order.bridge.name, &order.ident)).build();
    link::set(&visit.host, alias, format!("mark the interface {}", near.name)).await?;
    found::plug(&visit.host, near.index, order.bridge.index).await
}

/// Takes back what was done of it.
async fn undo(visit: &Visit, near: &Link, far: &Link, made: bool, added: &[IpNet]) {
    let undone = match made {
        true => found::remove(&visit.host, near.index, &near.name).await,
        false => withdraw(&visit.inside, far.index, added, &[]).await,
    };
    if let Err(error) = undone {
        tracing::warn!("what a failed attachment left behind stays: {error}");
    }
}

/// Adds an address to an interface. Whether another has it already is not asked by IPv6: addresses are given out once.
pub(super) async fn add(handle: &Handle, index: u32, address: IpNet, what: &str) -> Result<(), HostError> {
    let mut request = handle.address().add(index, address.addr(), address.prefix_len()).replace();
    if address.addr().is_ipv6() {
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request.execute().await.map_err(|e| HostError::netlink(what, e))
}

/// Takes addresses from an interface; those that stay are there afterwards, whatever the kernel removed along with their subnet's first.
pub(super) async fn withdraw(handle: &Handle, index: u32, gone: &[IpNet], stay: &[IpNet]) -> Result<(), HostError> {
    for address in gone {
        let what = format!("take the address {address} from the interface with index {index}");
        let message = handle.address().add(index, address.addr(), address.prefix_len()).message_mut().clone();
        match handle.address().del(message).execute().await.map_err(|e| HostError::netlink(what, e)) {
            Err(e) if e.errno() != Some(libc::EADDRNOTAVAIL) => return Err(e),
            _ => {}
        }
    }
    let left = found::addresses_on(handle, index).await?;
    for address in stay.iter().filter(|address| !left.contains(address)) {
        add(handle, index, *address, &format!("put the address {address} back")).await?;
    }
    Ok(())
}

/// A route of IPv4 to what is on the bridge itself; IPv6 has its own for multicast from the kernel. One that leads elsewhere is left to whoever
/// made it.
async fn route(handle: &Handle, index: u32, (address, length): (Ipv4Addr, u8), what: &str) -> Result<(), HostError> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, length).output_interface(index);
    match handle.route().add(route.scope(RouteScope::Link).build()).execute().await.map_err(|e| HostError::netlink(what, e)) {
        Err(e) if e.errno() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// What is sent before the bridge forwards it, or before the interface has noticed that its other end is up, is lost.
async fn wait_until_open(visit: &Visit, near: &Link, far: &Link) {
    let open = async {
        loop {
            let port = link::by_index(&visit.host, near.index).await?.is_none_or(|port| port.forwarding);
            if port && link::by_index(&visit.inside, far.index).await?.is_none_or(|far| far.running) {
                return Ok::<(), HostError>(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    // It is attached, looked at or not.
    if let Ok(Err(error)) = tokio::time::timeout(FORWARDING, open).await {
        tracing::debug!("could not look at the port {}: {error}", near.name);
    }
}
