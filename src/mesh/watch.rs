//! Watching links that carry no frames as closely as those that do.
//!
//! A link in use is pinged at the fast pace of [`heartbeat`](super::heartbeat), so that its end is noticed in under a second; one that carries
//! nothing has time. But also somebody who sends no frames may rely on a router: its names are answered until the mesh has noticed that it
//! is gone. The management plane says so with [`Command::Watch`](super::command::Command::Watch), again while that lasts:
//!
//! * where it relies on others, which makes the first link on the way to each a link in use, and sends each a message, whose way does the
//!   same for the links of the relays;
//! * where others rely on this router, on which all of its links are in use: it is gone only once each of their other ends has noticed.

use super::core::Mesh;
use crate::time::Time;
use crate::wire::{Address, PeerName};

impl Mesh {
    /// The way to these routers is in use; to ourselves lead all of our links.
    pub(super) fn watch(&mut self, now: Time, peers: &[PeerName]) {
        for peer in peers {
            let all = *peer == self.own;
            let next_hop = self.routes.get(*peer).map(|route| route.next_hop);
            let on_the_way = |name: &PeerName| all || name == peer || Some(*name) == next_hop;
            let links = self.adjacencies.iter_mut().filter(|(name, _)| on_the_way(name));
            for (_, adjacency) in links {
                adjacency.beat.data(Time::ZERO, now);
            }
        }
    }

    /// A message between others came over the link to `from` and goes on to this address: both links are in use.
    pub(super) fn watch_relayed(&mut self, now: Time, from: PeerName, to: Address) {
        let links = self.adjacencies.iter_mut().filter(|(name, adjacency)| **name == from || adjacency.address == to);
        for (_, adjacency) in links {
            adjacency.beat.data(Time::ZERO, now);
        }
    }
}
