//! Which of this host's addresses a peer is answered from.
//!
//! A peer expects answers from the address it has asked, and so do the firewalls and NATs on the way. The kernel alone would answer from
//! the address that its route to the peer names, and a router bound to several addresses has a socket for each. So the mesh thread's
//! sockets learn where datagrams were sent to, and what proves genuine decides; the packet threads read it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::address::Address;

/// Peers remembered; beyond that all are forgotten and learnt again, one genuine datagram each.
pub(super) const MOST: usize = 4096;

/// Own addresses by the peer's, of those peers that the kernel's choice is not right for.
type Table = HashMap<Address, IpAddr>;

/// The table, written by the mesh thread and read by all.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources(Arc<ArcSwap<Table>>);

impl Sources {
    /// The table as it is now.
    pub(super) fn load(&self) -> Guard<Arc<Table>> {
        self.0.load()
    }

    /// From now on answers `peer` from `own`, or from where the kernel chooses.
    pub(super) fn set(&self, peer: Address, own: Option<IpAddr>) {
        let table = self.0.load();
        if table.get(&peer) == own.as_ref() {
            return;
        }
        let mut changed = if table.len() < MOST { Table::clone(&table) } else { Table::new() };
        match own {
            Some(own) => changed.insert(peer, own),
            None => changed.remove(&peer),
        };
        self.0.store(Arc::new(changed));
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.0.store(Arc::default());
    }
}

/// The own address that the kernel's route to `peer` names; `None` where there is no route.
pub(super) fn kernel_choice(peer: Address) -> Option<IpAddr> {
    Some(routed(peer.socket_addr()).ok()?.local_addr().ok()?.as_socket()?.ip())
}

/// A socket that knows the kernel's route to `peer`: connecting a UDP socket sends nothing, it looks the route up.
pub(super) fn routed(peer: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&peer.into())?;
    Ok(socket)
}
