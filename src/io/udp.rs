//! The UDP sockets of one port.
//!
//! For each address bound there is one group of sockets: one for the mesh thread and one for every packet thread, all with the same
//! port (`SO_REUSEPORT`); the kernel picks by what the datagram is ([`steering`]).
//!
//! The kernel may join datagrams of one flow (GRO) *before* it picks, and then the first one decides: a joined buffer can hold data
//! behind control or control behind data. Control is sent with DSCP CS6, and GRO never joins across different DSCPs, so this takes a
//! network that rewrites the mark; then each side must still hand on, or count, what is not its own. All sockets of a group have GRO
//! on, the control socket too, since the kernel asks any one of them whether to join.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use crossbeam::utils::CachePadded;
use socket2::{Domain, Protocol, Socket, Type};

use super::offload::OffloadPolicy;
use super::sys::sockopt;
use crate::wire::address::Address;

mod joint;
mod run;
mod socket;
mod sources;
pub mod steering;
#[cfg(test)]
mod tests;

use joint::{Carried, reached_at};
use sources::{Sources, kernel_choice, routed};

pub use joint::{Joint, Joints};
pub use run::{MAX_RUN, MAX_SEGMENTS, Run};
pub use socket::{Batch, OffloadReport, UdpSocket};

crate::counters! {
    /// What the sockets of one thread dropped or could not do. Sends count datagrams.
    pub struct UdpCounters {
        /// System calls that sent datagrams.
        send_calls,
        /// System calls that looked for received datagrams.
        receive_calls,
        /// Datagrams dropped because the socket's send buffer was full.
        send_again,
        /// Datagrams dropped because the kernel had no buffers.
        send_nobufs,
        /// Datagrams that a firewall on this host refused.
        send_eperm,
        /// Datagrams to addresses without a route, of a family without a socket, or of a TCP connection that is closed.
        send_unreachable,
        /// Datagrams bigger than the interface's MTU; the path MTU is lowered.
        send_msgsize,
        /// Datagrams refused because of an earlier port-unreachable message.
        send_refused,
        /// Datagrams that the kernel refused for another reason.
        send_other,
        /// Sockets that stopped using segmentation offload because a send with it failed.
        gso_given_up,
        /// Received messages dropped because they did not fit the buffer.
        recv_truncated,
        /// Receive calls that failed.
        recv_failed,
        /// Datagrams that the kernel dropped because a socket's receive buffer was full.
        kernel_drops,
    }
}

/// Why the sockets could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// Somebody has the port.
    #[error("UDP port {} on {} is in use, perhaps by another router on this host: stop it or choose another port (--port)", .0.port(), .0.ip())]
    InUse(SocketAddr),
    /// Not ours.
    #[error("{0} is not an address of this host: choose one of its own, or bind to all")]
    NotLocal(IpAddr),
    /// No privilege.
    #[error("no permission to open UDP port {} on {}: ports below 1024 need CAP_NET_BIND_SERVICE", .0.port(), .0.ip())]
    Denied(SocketAddr),
    /// Neither family works.
    #[error("cannot open UDP port {0}: this host has neither IPv4 nor IPv6")]
    NoFamily(u16),
    /// Anything else.
    #[error("cannot open UDP port {} on {}: {source}", .addr.port(), .addr.ip())]
    Failed {
        /// What was to be bound.
        addr: SocketAddr,
        /// The kernel's word.
        source: io::Error,
    },
}

/// All sockets of the router, to be handed out to its threads.
pub struct SocketGroup {
    /// The port, chosen by the kernel where 0 was asked for.
    pub port: u16,
    /// The mesh thread's.
    pub control: ThreadSockets,
    /// One per packet thread.
    pub packet: Vec<ThreadSockets>,
    /// What joins TCP connections to them.
    pub joints: Joints,
    /// Those of each thread, the mesh thread first and the one that carries TCP last.
    pub counters: Vec<Arc<CachePadded<UdpCounters>>>,
}

/// One thread's sockets: one per address bound.
pub struct ThreadSockets {
    sockets: Vec<UdpSocket>,
    counters: Arc<CachePadded<UdpCounters>>,
    /// What each socket is bound to.
    locals: Vec<IpAddr>,
    sources: Sources,
    carried: Carried,
    /// Where each peer was last heard, and found genuine, on: looked into again only when that changes.
    trusted: HashMap<Address, IpAddr>,
}

/// Another port is tried so often where 0 was asked for and a port that is free on one address is taken on another.
const PORT_TRIES: usize = 16;

impl SocketGroup {
    /// Binds `port` on every address of `binds`, or on all addresses of both families where there are none.
    pub fn open(binds: &[IpAddr], port: u16, packet_threads: usize, policy: OffloadPolicy) -> Result<SocketGroup, UdpError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match SocketGroup::try_open(binds, port, packet_threads.max(1), policy) {
                Err(UdpError::InUse(_)) if port == 0 && tries < PORT_TRIES => {}
                result => return result,
            }
        }
    }

    fn try_open(binds: &[IpAddr], port: u16, packet_threads: usize, policy: OffloadPolicy) -> Result<SocketGroup, UdpError> {
        let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let (binds, optional) = if binds.is_empty() { (&all[..], true) } else { (binds, false) };
        let mut counters: Vec<Arc<CachePadded<UdpCounters>>> = (0..=packet_threads).map(|_| Arc::default()).collect();
        let (sources, carried) = (Sources::default(), Carried::default());
        let thread = |counters: &Arc<CachePadded<UdpCounters>>| ThreadSockets {
            sockets: Vec::new(),
            counters: counters.clone(),
            locals: Vec::new(),
            sources: sources.clone(),
            carried: carried.clone(),
            trusted: HashMap::new(),
        };
        let mut threads: Vec<_> = counters.iter().map(thread).collect();
        let mut chosen = port;
        for bind in binds {
            match open_address(SocketAddr::new(*bind, chosen), policy, &counters, &carried) {
                Ok((port, sockets)) => {
                    chosen = port;
                    for (thread, socket) in threads.iter_mut().zip(sockets) {
                        thread.locals.push(*bind);
                        thread.sockets.push(socket);
                    }
                }
                Err(UdpError::Failed { addr, source }) if optional && is_family_missing(&source) => {
                    tracing::info!(address = %addr.ip(), %source, "this host lacks an address family; going on without it");
                }
                Err(error) => return Err(error),
            }
        }
        let Some(first) = threads.first().and_then(|thread| thread.locals.first()) else { return Err(UdpError::NoFamily(port)) };
        let router = SocketAddr::new(reached_at(*first), chosen);
        let joints = Joints { table: carried, router, policy, counters: Arc::default() };
        counters.push(Arc::clone(&joints.counters));
        warn_of_small_buffers(&threads);
        let control = threads.remove(0);
        Ok(SocketGroup { port: chosen, control, packet: threads, joints, counters })
    }
}

impl ThreadSockets {
    /// The sockets, to be registered with a poll and received from. Edge-triggered: receive until there is no more.
    pub fn sockets(&mut self) -> &mut [UdpSocket] {
        &mut self.sockets
    }

    /// Sends runs, each from where its address is to be answered from, or else from the first socket of its family; how many datagrams
    /// the kernel took. The rest are dropped and counted. The iterator is cloned to go through it again, and each clone must yield the
    /// same.
    pub fn send<'a>(&mut self, runs: impl Iterator<Item = Run<'a>> + Clone) -> usize {
        let (locals, table, carried) = (&self.locals, self.sources.load(), self.carried.load());
        let runs = runs.map(|run| match run.to {
            Address::Udp(_) => Run { source: run.source.or_else(|| table.get(&run.to).copied()), ..run },
            Address::Tcp { .. } => Run { to: carried.place_of(run.to).unwrap_or(run.to), source: None, ..run },
        });
        let mut sent = 0;
        for (n, socket) in self.sockets.iter_mut().enumerate() {
            sent += socket.send(runs.clone().filter(|run| socket_for(locals, run) == Some(n)));
        }
        let homeless = runs.filter(|run| socket_for(locals, run).is_none());
        self.counters.send_unreachable.add(homeless.map(|run| run.datagrams() as u64).sum());
        sent
    }

    /// Sends one datagram, which is an answer where its address was just heard; true where the kernel took it.
    pub fn send_to(&mut self, to: Address, datagram: &[u8]) -> bool {
        let source = self.heard_on(to).or_else(|| self.choice_among_binds(to));
        self.send(std::iter::once(Run { source, ..Run::single(to, datagram) })) > 0
    }

    /// What came from `peer` proved genuine: it is answered from where it was heard, by all threads.
    pub fn trust(&mut self, peer: Address) {
        if peer.is_tcp() {
            return self.carried.load().trust(peer);
        }
        let Some(own) = self.heard_on(peer) else { return };
        if self.trusted.get(&peer) == Some(&own) {
            return;
        }
        if self.trusted.len() >= sources::MOST {
            self.trusted.clear();
        }
        self.trusted.insert(peer, own);
        let differs = self.has_choice(peer) || kernel_choice(peer) != Some(own);
        self.sources.set(peer, differs.then_some(own));
    }

    /// What was just heard has been answered.
    pub fn answered(&mut self) {
        self.sockets.iter_mut().for_each(UdpSocket::answered);
    }

    /// This host's addresses have changed: what was known of peers may be wrong.
    pub fn forget_sources(&mut self) {
        self.trusted.clear();
        self.sources.clear();
    }

    fn heard_on(&self, peer: Address) -> Option<IpAddr> {
        self.sockets.iter().find_map(|socket| socket.heard_on(peer))
    }

    /// True where more than one address of the peer's family is bound.
    fn has_choice(&self, peer: Address) -> bool {
        self.locals.iter().filter(|own| own.is_ipv4() == peer.socket_addr().is_ipv4()).count() > 1
    }

    /// The kernel's choice for a peer not heard of yet, where there is one among the addresses bound.
    fn choice_among_binds(&self, peer: Address) -> Option<IpAddr> {
        if peer.is_tcp() || !self.has_choice(peer) || self.sources.load().contains_key(&peer) {
            return None;
        }
        let own = kernel_choice(peer).filter(|own| self.locals.contains(own))?;
        self.sources.set(peer, Some(own));
        Some(own)
    }

    /// Addresses that a datagram was too big for since the last call.
    pub fn take_too_big(&mut self) -> impl Iterator<Item = Address> {
        self.sockets.iter_mut().flat_map(UdpSocket::take_too_big)
    }

    /// Addresses to which the kernel had no way since the last call.
    pub fn take_unreachable(&mut self) -> impl Iterator<Item = Address> {
        self.sockets.iter_mut().flat_map(UdpSocket::take_unreachable)
    }
}

/// True where the kernel has a way to `peer` now.
pub fn has_way(peer: Address) -> bool {
    kernel_choice(peer).is_some()
}

/// True where the kernel has no way to `peer` now, or one that leaves from one of these addresses.
pub fn leaves_from(peer: Address, own: &[IpAddr]) -> bool {
    kernel_choice(peer).is_none_or(|choice| own.contains(&choice))
}

/// The kernel's idea of the path MTU to `remote`: the route's, or lower where a router on the way has said so.
pub fn path_mtu(remote: Address) -> io::Result<u16> {
    let remote = remote.socket_addr();
    let socket = routed(remote)?;
    let (level, option) = if remote.is_ipv4() { (libc::IPPROTO_IP, libc::IP_MTU) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU) };
    let mtu = sockopt::get(socket.as_fd(), level, option)?;
    // Loopback's is 65,536.
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// The group of one address, a socket for each thread that counts: the control socket first, since the steering program counts in order of binding.
fn open_address(
    addr: SocketAddr,
    policy: OffloadPolicy,
    counters: &[Arc<CachePadded<UdpCounters>>],
    carried: &Carried,
) -> Result<(u16, Vec<UdpSocket>), UdpError> {
    let failed = |source: io::Error| bind_error(addr, source);
    // A socket that does not share the port finds out whether anybody has it; those of the group would join another router's group.
    let probe = bound(addr, false).map_err(failed)?;
    let addr = probe.local_addr().map_err(failed)?.as_socket().unwrap_or(addr);
    drop(probe);
    let packet_threads = counters.len().saturating_sub(1);
    let mut sockets = Vec::with_capacity(counters.len());
    for (index, counters) in counters.iter().enumerate() {
        let socket = bound(addr, true).map_err(failed)?;
        if index == 0 {
            let mut program = steering::program(addr.ip(), u32::try_from(packet_threads).unwrap_or(1));
            sockopt::attach_reuseport_filter(socket.as_fd(), &mut program).map_err(failed)?;
            mark_as_control(&socket, addr).map_err(failed)?;
        }
        sockets.push(UdpSocket::new(socket, addr, index == 0, policy, counters.clone(), carried.clone()).map_err(failed)?);
    }
    Ok((addr.port(), sockets))
}

/// The socket that a run is sent from: that of its source, else the first of its family; none for a connection that is closed.
fn socket_for(locals: &[IpAddr], run: &Run<'_>) -> Option<usize> {
    if run.to.is_tcp() {
        return None;
    }
    let bound = run.source.and_then(|source| locals.iter().position(|own| *own == source));
    bound.or_else(|| locals.iter().position(|own| own.is_ipv4() == run.to.socket_addr().is_ipv4()))
}

fn warn_of_small_buffers(threads: &[ThreadSockets]) {
    let granted = threads.iter().flat_map(|thread| &thread.sockets).map(UdpSocket::granted_buffer).min();
    if let Some(granted) = granted.filter(|granted| *granted < socket::SOCKET_BUFFER) {
        let wanted = socket::SOCKET_BUFFER;
        tracing::warn!(
            granted,
            wanted,
            "small socket buffers, bursts may be lost: raise net.core.rmem_max and net.core.wmem_max, or run with CAP_NET_ADMIN"
        );
    }
}

fn bound(addr: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// DSCP CS6, network control (RFC 4594): first in the queues, and a flow of its own for GRO.
fn mark_as_control(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    const CS6: i32 = 48 << 2;
    let (level, option) = if addr.is_ipv4() { (libc::IPPROTO_IP, libc::IP_TOS) } else { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) };
    sockopt::set(socket.as_fd(), level, option, CS6)
}

fn bind_error(addr: SocketAddr, source: io::Error) -> UdpError {
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => UdpError::InUse(addr),
        // For "all addresses" it means that the family is switched off.
        Some(libc::EADDRNOTAVAIL) if !addr.ip().is_unspecified() => UdpError::NotLocal(addr.ip()),
        Some(libc::EACCES | libc::EPERM) => UdpError::Denied(addr),
        _ => UdpError::Failed { addr, source },
    }
}

fn is_family_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT))
}
