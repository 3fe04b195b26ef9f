//! Where TCP connections join the UDP sockets: for each a UDP socket of this host's own, which stands for the other end.
//!
//! The threads of the router see one more UDP peer, on a local address. The table says which these are, so that it is known by the
//! address of its TCP connection: read by all threads, written by the thread that carries TCP. Without connections it is empty, and
//! then looking into it costs nothing.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, Guard};
use crossbeam::utils::CachePadded;

use super::{UdpCounters, UdpSocket, bound};
use crate::io::offload::OffloadPolicy;
use crate::wire::Address;

/// What joins TCP connections to the sockets of a group.
pub struct Joints {
    pub(super) table: Carried,
    /// The router's sockets as the connections' reach them.
    pub(super) router: SocketAddr,
    pub(super) policy: OffloadPolicy,
    pub(super) counters: Arc<CachePadded<UdpCounters>>,
}

/// One connection's place among the UDP peers; it is given up when this is dropped.
pub struct Joint {
    /// The socket, connected to the router's.
    pub socket: UdpSocket,
    place: Arc<Place>,
    table: Carried,
}

#[derive(Debug)]
pub(super) struct Place {
    /// The UDP socket that stands for the other end.
    at: SocketAddr,
    address: Address,
    genuine: AtomicBool,
}

/// The connections by port of their UDP socket.
#[derive(Clone, Debug, Default)]
pub(super) struct Carried(Arc<ArcSwap<Table>>);

/// See [`Carried`].
#[derive(Clone, Debug, Default)]
pub(super) struct Table(HashMap<u16, Arc<Place>>);

impl Joints {
    /// Joins a connection with `remote`.
    pub fn join(&self, remote: SocketAddr) -> io::Result<Joint> {
        let socket = bound(SocketAddr::new(self.router.ip(), 0), false)?;
        socket.connect(&self.router.into())?;
        let at = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = UdpSocket::new(socket, at, false, self.policy, Arc::clone(&self.counters), Carried::default())?;
        let place = Arc::new(Place { at, address: Address::tcp(remote, at.port()), genuine: AtomicBool::new(false) });
        self.table.change(|table| table.insert(at.port(), Arc::clone(&place)));
        Ok(Joint { socket, place, table: self.table.clone() })
    }

    /// Where the router's sockets are.
    pub fn router(&self) -> Address {
        Address::udp(self.router)
    }
}

impl Joint {
    /// The address under which the mesh knows the connection.
    pub fn address(&self) -> Address {
        self.place.address
    }

    /// True once something that came by it was proven to be a member's.
    pub fn is_genuine(&self) -> bool {
        self.place.genuine.load(Ordering::Relaxed)
    }
}

impl Drop for Joint {
    fn drop(&mut self) {
        self.table.change(|table| table.remove(&self.place.at.port()));
    }
}

impl Carried {
    /// The table as it is now.
    pub(super) fn load(&self) -> Guard<Arc<Table>> {
        self.0.load()
    }

    fn change<T>(&self, change: impl Fn(&mut HashMap<u16, Arc<Place>>) -> T) {
        self.0.rcu(|table| {
            let mut table = Table::clone(table);
            change(&mut table.0);
            table
        });
    }
}

impl Table {
    /// Who sends from this address: a connection, or a peer by UDP.
    pub(super) fn address_of(&self, from: SocketAddr) -> Address {
        let place = if self.0.is_empty() { None } else { self.0.get(&from.port()).filter(|place| place.at == from) };
        place.map_or_else(|| Address::udp(from), |place| place.address)
    }

    /// The UDP address that stands for a connection; `None` where it is closed.
    pub(super) fn place_of(&self, connection: Address) -> Option<Address> {
        self.find(connection).map(|place| Address::udp(place.at))
    }

    /// What came by a connection proved genuine.
    pub(super) fn trust(&self, connection: Address) {
        if let Some(place) = self.find(connection) {
            place.genuine.store(true, Ordering::Relaxed);
        }
    }

    fn find(&self, connection: Address) -> Option<&Arc<Place>> {
        match connection {
            // A port is used again by and by, for another connection.
            Address::Tcp { port, .. } => self.0.get(&port).filter(|place| place.address == connection),
            Address::Udp(_) => None,
        }
    }
}

/// The address of this host by which sockets bound to `ip` are reached.
pub(super) fn reached_at(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}
