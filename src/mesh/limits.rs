//! The bound on links: who is taken, who is sent on, and which link goes where there are too many.
//!
//! A full router still takes a caller that the mesh does not reach otherwise. Later it lets go of a link that the
//! mesh can do without, one at a time.

use std::time::Duration;

use super::config::Outbox;
use super::core::Mesh;
use super::routes::Topology;
use crate::time::Time;
use crate::wire::control::{CloseReason, Record};
use crate::wire::{Address, PeerName};

/// Between two links that a router with too many lets go.
const SHED_EVERY: Duration = Duration::from_secs(5);
/// Addresses of others that a full router names, and that are taken from one.
pub(super) const REFERRALS: usize = 8;

impl Mesh {
    /// Live links.
    pub(super) fn link_count(&self) -> usize {
        self.adjacencies.values().filter(|adjacency| adjacency.is_link()).count()
    }

    /// True where another link fits the limit.
    pub(super) fn has_room(&self) -> bool {
        self.config.conn_limit == 0 || self.link_count() < self.config.conn_limit
    }

    /// Addresses of others, for a router that we have no room for.
    pub(super) fn referrals(&self, not: PeerName) -> Vec<Address> {
        let others = self.adjacencies.iter().filter(|(name, adjacency)| **name != not && adjacency.is_link());
        others.map(|(_, adjacency)| adjacency.address).take(REFERRALS).collect()
    }

    /// Too many links: lets go of one that neither this host's operator named nor the mesh needs.
    pub(super) fn shed(&mut self, now: Time, out: &mut Outbox) {
        let limit = self.config.conn_limit;
        if limit == 0 || self.link_count() <= limit || now.since(self.shed_at) < SHED_EVERY {
            return;
        }
        self.shed_at = now;
        let inbound = self.adjacencies.iter().filter(|(name, adjacency)| adjacency.is_link() && !self.targets.is_configured(**name));
        let settled = inbound.filter(|(_, adjacency)| now.since(adjacency.since) >= SHED_EVERY);
        let candidates: Vec<(PeerName, Address)> = settled.map(|(name, adjacency)| (*name, adjacency.address)).collect();
        let topology = self.store.topology();
        let spare = candidates.into_iter().find(|(name, _)| connected_without(&topology, self.own, *name));
        if let Some((peer, address)) = spare {
            let referrals = self.referrals(peer);
            self.send_direct(peer, address, &[Record::Close(CloseReason::Full, referrals)], out);
            self.link_down(now, peer, "this router has more links than it may have (--conn-limit)", out);
        }
    }
}

/// True where `from` still reaches `to` without the link between the two.
fn connected_without(topology: &Topology, from: PeerName, to: PeerName) -> bool {
    let (Some(start), Some(end)) = (topology.index(from), topology.index(to)) else { return false };
    let mut seen = vec![false; topology.names().len()];
    let mut queue = vec![start];
    while let Some(at) = queue.pop() {
        for edge in topology.edges(at) {
            let next = edge.to as usize;
            let the_link = (at == start && next == end) || (at == end && next == start);
            if !the_link && seen.get_mut(next).is_some_and(|seen| !std::mem::replace(seen, true)) {
                queue.push(next);
            }
        }
    }
    seen.get(end).copied().unwrap_or(false)
}
