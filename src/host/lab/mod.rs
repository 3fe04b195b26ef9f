//! A laboratory: hosts and containers as network namespaces of this machine, wired up as a test, a bench or the demo wants them.
//!
//! Every namespace has a name that carries the process id (`wr1234-h1`) and is visible to `ip netns`. Nothing outside those namespaces is
//! touched: virtual cables are made inside them, end to end. They go when the [`Lab`] is dropped, also by a panic, and what a killed process
//! left behind goes with [`Lab::sweep`].

mod cable;
mod capture;
pub mod clock;
pub mod cores;
mod far;
pub mod netns;
mod partial;
mod plan;
mod process;
mod router;
pub mod traffic;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute};
use nix::fcntl::{Flock, FlockArg};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::{HostError, link};
pub use cable::Received;
pub use capture::Capture;
pub use far::FarWire;
pub use netns::{Namespace, in_namespace, with_netlink};
pub use plan::{Cidr, Container, Plug, Wire, WireEnd, WireOptions};
pub use process::Process;
pub use router::Router;

/// The interface of a container on the mesh.
pub const CONTAINER_INTERFACE: &str = "ethwe";

/// The bridge on each host, unless a [`Plug`] names another.
pub const BRIDGE: &str = "weave";

/// Hosts, containers and the wires between them.
#[derive(Debug)]
pub struct Lab {
    tag: String,
    namespaces: BTreeMap<String, Namespace>,
    ports: BTreeMap<String, u32>,
    _lock: Option<Flock<File>>,
}

/// Labs made by this process so far; the second one must not clash with the first.
static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// An empty laboratory; `prefix` starts the name of every namespace. Needs root.
    pub fn new(prefix: &str) -> Result<Lab, HostError> {
        let tag = match LABS.fetch_add(1, Ordering::Relaxed) {
            0 => format!("{prefix}{}", std::process::id()),
            n => format!("{prefix}{}x{}", std::process::id(), n + 1),
        };
        netns::prepare()?;
        Ok(Lab { tag, namespaces: BTreeMap::new(), ports: BTreeMap::new(), _lock: None })
    }

    /// An empty laboratory, after every other exclusive one on this machine is gone: experiments would disturb each other's timing.
    pub fn exclusive(prefix: &str) -> Result<Lab, HostError> {
        // Not in a directory that all may write to: there root may be refused a file which another user made.
        let path = std::path::Path::new("/run/weave-lab.lock");
        let what = || format!("lock {}", path.display());
        let file = File::options().create(true).truncate(false).write(true).open(path).map_err(|e| HostError::io(what(), e))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| HostError::io(what(), e.into()))?;
        Ok(Lab { _lock: Some(lock), ..Lab::new(prefix)? })
    }

    /// Removes the namespaces of laboratories whose process is dead; answers with their names.
    pub fn sweep(prefix: &str) -> Vec<String> {
        let dead = |name: &String| {
            let digits: String = name.strip_prefix(prefix).unwrap_or("").chars().take_while(char::is_ascii_digit).collect();
            !digits.is_empty() && !std::path::Path::new("/proc").join(digits).exists()
        };
        netns::names().into_iter().filter(dead).filter(|name| netns::delete(name).is_ok()).collect()
    }

    /// The name under which `ip netns` knows a host or container of this laboratory.
    pub fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.tag)
    }

    /// A new host: a namespace with nothing but its loopback interface up. Answers with the namespace's name.
    pub fn host(&mut self, name: &str) -> Result<String, HostError> {
        let full = self.namespace(name);
        let namespace = Namespace::create(&full)?;
        self.namespaces.insert(name.to_string(), namespace);
        with_netlink(&full, |handle| async move { loopback_up(&handle).await })??;
        Ok(full)
    }

    /// A plain bridge on a host, for what runs without a router.
    pub fn bridge(&self, host: &str, bridge: &str, mtu: Option<u16>) -> Result<(), HostError> {
        let what = format!("make the bridge {bridge} on {host}");
        let mut message = LinkBridge::new(bridge).forward_delay(0).mcast_snooping(false);
        if let Some(mtu) = mtu {
            message = message.mtu(u32::from(mtu));
        }
        let message = message.build();
        with_netlink(&self.namespace(host), |handle| async move {
            handle.link().add(message).execute().await.map_err(|e| HostError::netlink(what, e))
        })?
    }

    /// A container on a host, plugged into the bridge `weave` with the given address (`10.32.0.1/24`).
    pub fn container(&mut self, host: &str, name: &str, address: &str) -> Result<Container, HostError> {
        self.container_with(host, name, address, &Plug::default())
    }

    /// A container on a host, plugged in as `plug` says. The bridge must be there: the router makes it, or [`Lab::bridge`].
    pub fn container_with(&mut self, host: &str, name: &str, address: &str, plug: &Plug) -> Result<Container, HostError> {
        let cidr: Cidr = address.parse()?;
        let inside = self.host(name)?;
        let outside = self.namespace(host);
        let host_end = self.port(host, "vethwe");
        let fd = netns::open(&inside)?;
        let what = format!("plug container {name} into the bridge {} of {host}", plug.bridge);
        let (plug_here, end) = (plug.clone(), host_end.clone());
        with_netlink(&outside, |handle| async move { plug_in(&handle, &fd, &end, &plug_here, &what).await })??;
        let mac = with_netlink(&inside, |handle| async move {
            let mac = configure(&handle, CONTAINER_INTERFACE, cidr).await?;
            multicast_route(&handle, CONTAINER_INTERFACE).await.map(|()| mac)
        })??;
        Ok(Container { name: name.into(), namespace: inside, host: host.into(), ip: cidr.ip, host_end, mac })
    }

    /// A cable between two hosts; the first gets the first address of the subnet, the second the second.
    pub fn wire(&mut self, a: &str, b: &str, subnet: &str) -> Result<Wire, HostError> {
        self.wire_with(a, b, subnet, WireOptions::default())
    }

    /// A cable between two hosts, with options.
    pub fn wire_with(&mut self, a: &str, b: &str, subnet: &str, options: WireOptions) -> Result<Wire, HostError> {
        let subnet: Cidr = subnet.parse()?;
        let ends = [(a, 1), (b, 2)].map(|(host, number)| WireEnd {
            host: host.to_string(),
            namespace: self.namespace(host),
            interface: self.port(host, "eth"),
            ip: subnet.station(number),
            len: subnet.len,
        });
        let what = format!("lay a cable from {a} to {b}");
        let fd = netns::open(&ends[1].namespace)?;
        let names = (ends[0].interface.clone(), ends[1].interface.clone());
        with_netlink(&ends[0].namespace, |handle| async move {
            let near = LinkUnspec::new_with_name(&names.0);
            let far = LinkUnspec::new_with_name(&names.1);
            veth(&handle, with_mtu(near, options.mtu), with_mtu(far, options.mtu), &fd, &what).await
        })??;
        for end in &ends {
            let (interface, cidr) = (end.interface.clone(), Cidr { ip: end.ip, len: subnet.len });
            with_netlink(&end.namespace, |handle| async move { configure(&handle, &interface, cidr).await })??;
        }
        let [a, b] = ends;
        Ok(Wire { a, b })
    }

    /// Cuts a cable: its first end goes down, and the second loses its carrier.
    pub fn cut(&self, wire: &Wire) -> Result<(), HostError> {
        self.set_wire(wire, false)
    }

    /// Mends a cable that was cut.
    pub fn mend(&self, wire: &Wire) -> Result<(), HostError> {
        self.set_wire(wire, true)
    }

    /// Removes a cable.
    pub fn remove_wire(&self, wire: Wire) -> Result<(), HostError> {
        self.remove_link(&wire.a.namespace, &wire.a.interface)
    }

    /// Removes a host or a container and every cable that ends there.
    pub fn remove(&mut self, name: &str) -> Result<(), HostError> {
        self.namespaces.remove(name).map_or(Ok(()), Namespace::delete)
    }

    /// Deletes an interface of a host or container.
    pub fn remove_link(&self, namespace: &str, interface: &str) -> Result<(), HostError> {
        let (what, interface) = (format!("remove {interface} from {namespace}"), interface.to_string());
        with_netlink(namespace, |handle| async move {
            let Some(found) = link::by_name(&handle, &interface).await? else { return Ok(()) };
            handle.link().del(found.index).execute().await.map_err(|e| HostError::netlink(what, e))
        })?
    }

    /// Starts a program in the namespace of a host or container; it is killed when the handle is dropped.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process, HostError> {
        Process::spawn(&self.namespace(name), command)
    }

    /// Runs a program in the namespace of a host or container and waits for its end.
    pub fn exec(&self, name: &str, program: &str, args: &[&str]) -> Result<Output, HostError> {
        let what = || format!("run {program} {} in {}", args.join(" "), self.namespace(name));
        let run = in_namespace(&self.namespace(name), || Command::new(program).args(args).stdin(std::process::Stdio::null()).output())?;
        run.map_err(|e| HostError::io(what(), e))
    }

    /// `ping` from a host or container: true where an echo came back. `options` stand before the address, as `-c 1 -W 1 -s 10000`.
    pub fn ping(&self, from: &str, to: IpAddr, options: &str) -> Result<bool, HostError> {
        let to = to.to_string();
        let arguments: Vec<&str> = options.split_whitespace().chain([to.as_str()]).collect();
        Ok(self.exec(from, "ping", &arguments)?.status.success())
    }

    /// The next free interface number on a host, as a name.
    fn port(&mut self, host: &str, prefix: &str) -> String {
        let next = self.ports.entry(format!("{host} {prefix}")).or_insert(0);
        *next += 1;
        format!("{prefix}{}", *next - 1)
    }

    fn set_wire(&self, wire: &Wire, up: bool) -> Result<(), HostError> {
        let (what, interface) = (format!("cut or mend the cable of {}", wire.a.namespace), wire.a.interface.clone());
        let cidr = Cidr { ip: wire.a.ip, len: wire.a.len };
        with_netlink(&wire.a.namespace, |handle| async move {
            if up {
                // An interface that goes down loses its IPv6 addresses.
                return configure(&handle, &interface, cidr).await.map(|_| ());
            }
            let message = LinkUnspec::new_with_name(&interface).down().build();
            link::set(&handle, message, what).await
        })?
    }
}

async fn loopback_up(handle: &Handle) -> Result<(), HostError> {
    link::set(handle, LinkUnspec::new_with_name("lo").up().build(), "bring up a loopback interface").await
}

/// Gives an interface its address and brings it up; answers with its MAC. Idempotent.
async fn configure(handle: &Handle, interface: &str, cidr: Cidr) -> Result<[u8; 6], HostError> {
    let what = || format!("configure {interface} with {cidr}");
    let missing = || HostError::Netlink { attempted: what(), reason: "there is no such interface".into(), errno: None };
    let found = link::by_name(handle, interface).await?.ok_or_else(missing)?;
    let up = LinkUnspec::new_with_index(found.index).up().build();
    link::set(handle, up, what()).await?;
    let mut add = handle.address().add(found.index, cidr.ip, cidr.len).replace();
    if matches!(cidr.ip, IpAddr::V6(_)) {
        // Nobody else has the address, and waiting to find that out takes seconds.
        add.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    add.execute().await.map_err(|e| HostError::netlink(what(), e))?;
    Ok(found.mac)
}

/// IPv4 multicast goes out of this interface; IPv6 has such a route from the kernel.
async fn multicast_route(handle: &Handle, interface: &str) -> Result<(), HostError> {
    let Some(found) = link::by_name(handle, interface).await? else { return Ok(()) };
    let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(Ipv4Addr::new(224, 0, 0, 0), 4).output_interface(found.index);
    handle.route().add(route.build()).execute().await.map_err(|e| HostError::netlink(format!("route multicast to {interface}"), e))
}

fn with_mtu(builder: LinkMessageBuilder<LinkUnspec>, mtu: Option<u16>) -> LinkMessageBuilder<LinkUnspec> {
    match mtu {
        Some(mtu) => builder.mtu(u32::from(mtu)),
        None => builder,
    }
}

/// Makes a pair of interfaces, `far` in the namespace of `fd`.
async fn veth(
    handle: &Handle,
    near: LinkMessageBuilder<LinkUnspec>,
    far: LinkMessageBuilder<LinkUnspec>,
    fd: &std::fs::File,
    what: &str,
) -> Result<(), HostError> {
    use std::os::fd::AsRawFd;
    let far = far.setns_by_fd(fd.as_raw_fd()).build();
    let mut message = near.build();
    let veth = InfoData::Veth(InfoVeth::Peer(far));
    let infos = vec![netlink_packet_route::link::LinkInfo::Kind(InfoKind::Veth), netlink_packet_route::link::LinkInfo::Data(veth)];
    message.attributes.push(LinkAttribute::LinkInfo(infos));
    handle.link().add(message).execute().await.map_err(|e| HostError::netlink(what, e))
}

async fn plug_in(handle: &Handle, inside: &std::fs::File, host_end: &str, plug: &Plug, what: &str) -> Result<(), HostError> {
    let missing =
        || HostError::Netlink { attempted: what.into(), reason: "there is no such bridge; start the router first".into(), errno: None };
    let bridge = link::by_name(handle, &plug.bridge).await?.ok_or_else(missing)?;
    let mtu = plug.mtu.or(u16::try_from(bridge.mtu).ok());
    let mut far = with_mtu(LinkUnspec::new_with_name(CONTAINER_INTERFACE), mtu);
    if let Some(mac) = plug.mac {
        far = far.address(mac.to_vec());
    }
    veth(handle, with_mtu(LinkUnspec::new_with_name(host_end), mtu), far, inside, what).await?;
    let missing = || HostError::Netlink { attempted: what.into(), reason: "the cable vanished".into(), errno: None };
    let end = link::by_name(handle, host_end).await?.ok_or_else(missing)?;
    link::no_link_local(handle, end.index).await?;
    link::set(handle, LinkUnspec::new_with_index(end.index).controller(bridge.index).up().build(), what).await
}

#[cfg(test)]
pub(crate) mod tests;
