//! The bound on links: who is taken, who is sent on, and which link goes where there are too many.
//!
//! A full router still takes a caller that needs it ([`discovery`](super::discovery) says who does): one that the mesh does not reach otherwise,
//! that has fewer than two links, or is further away than in a graph of random links; one that may have fewer than three links itself takes only whom
//! the mesh does not reach otherwise. Every other caller hears of other routers and is let go. How much of this one host may have is bounded
//! ([`crowd`](super::crowd)).
//! Every two seconds a router that has too many lets go of some of them, one and an eighth of what is too many, never
//!
//! * one that its own operator named,
//! * one that is younger than five seconds,
//! * the last but one of the other end,
//! * one without which the graph of links would not lead to the other end.
//!
//! Of the rest those go first that are missed least: of the half of all pairs (far, near) that has more than its share, the dearest. Two routers that
//! let go at the same moment may still part the mesh; those who are parted try each other at once, and are taken.

use std::collections::BTreeSet;
use std::time::Duration;

use super::config::Outbox;
use super::core::Mesh;
use super::discovery::{FEWEST, is_far};
use super::routes::Topology;
use super::targets::Goal;
use crate::time::Time;
use crate::wire::control::{CloseReason, Record};
use crate::wire::{Address, PeerName};

/// A router with too many links lets some go this often: the mesh is to know of the former before the next.
const SHED_EVERY: Duration = Duration::from_secs(2);
/// A link stays at least this long.
const SETTLED: Duration = Duration::from_secs(5);
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

    /// True where a router that says that it needs a link is taken although this one is full. Where fewer than three links are allowed a mesh has no
    /// room for anybody's second, so there only who is not reached otherwise is.
    pub(super) fn heeds_need_of(&self, peer: PeerName) -> bool {
        self.config.conn_limit > FEWEST || !self.routes.reachable(peer)
    }

    /// Addresses of others, for a router that we have no room for.
    pub(super) fn referrals(&self, not: PeerName) -> Vec<Address> {
        let others = self.adjacencies.iter().filter(|(name, adjacency)| **name != not && adjacency.is_link());
        others.map(|(_, adjacency)| adjacency.address).filter(|address| !address.is_tcp()).take(REFERRALS).collect()
    }

    /// Too many links: lets go of some that neither this host's operator named nor the mesh needs.
    pub(super) fn shed(&mut self, now: Time, out: &mut Outbox) {
        let limit = self.config.conn_limit;
        let excess = if limit == 0 { 0 } else { self.link_count().saturating_sub(limit) };
        if excess == 0 || now.since(self.discovery.shed_at) < SHED_EVERY {
            return;
        }
        self.discovery.shed_at = now;
        let topology = self.store.topology();
        let (mut gone, mut others) = (BTreeSet::new(), 0);
        let (spare, crowd, most) = self.crowd_first(self.spare_links(now));
        for (n, (peer, address)) in spare.into_iter().enumerate() {
            if gone.len() > excess / 8 || (n >= crowd && (most == 0 || others > most / 8)) {
                break;
            }
            if !connected_without(&topology, self.own, peer, &gone) {
                continue;
            }
            gone.insert(peer);
            others += usize::from(n >= crowd);
            let referrals = self.referrals(peer);
            self.send_direct(peer, address, &[Record::Close(CloseReason::Full, referrals)], out);
            self.link_down(now, peer, "this router has more links than it may have (--conn-limit)", out);
            self.targets.remove(&Goal::Peer(peer));
            self.avoid(now, peer);
        }
    }

    /// Links that may be let go, those first that are missed least: of the half of the pairs that has more than its share, the dearest.
    fn spare_links(&self, now: Time) -> Vec<(PeerName, Address)> {
        let links = || self.adjacencies.iter().filter(|(_, adjacency)| adjacency.is_link());
        let far = links().filter(|(name, _)| is_far(self.own, **name)).count();
        let more_far = far > self.config.conn_limit.div_ceil(2);
        let unnamed = links().filter(|(name, _)| !self.targets.is_configured(**name));
        let settled = unnamed.filter(|(_, adjacency)| now.since(adjacency.since) >= SETTLED);
        // The other end must not be left with too few.
        let rich = settled.filter(|(name, _)| self.store.links_of(**name).take(FEWEST + 1).count() > FEWEST);
        let mut spare: Vec<(PeerName, Address)> = rich.map(|(name, adjacency)| (*name, adjacency.address)).collect();
        let cost = |name: PeerName| self.adjacencies.get(&name).and_then(|adjacency| adjacency.cost).unwrap_or(u32::MAX);
        spare.sort_by_key(|(name, _)| (is_far(self.own, *name) != more_far, std::cmp::Reverse(cost(*name)), *name));
        spare
    }
}

/// True where a way still leads from `from` to `to` without the link between the two and those with the routers that are `gone`.
fn connected_without(topology: &Topology, from: PeerName, to: PeerName, gone: &BTreeSet<PeerName>) -> bool {
    let (Some(start), Some(end)) = (topology.index(from), topology.index(to)) else { return false };
    let cut: BTreeSet<usize> = gone.iter().filter_map(|name| topology.index(*name)).chain([end]).collect();
    let mut seen = vec![false; topology.names().len()];
    let mut queue = vec![start];
    while let Some(at) = queue.pop() {
        for edge in topology.onward(start, at) {
            let next = edge.to as usize;
            let is_cut = (at == start && cut.contains(&next)) || (next == start && cut.contains(&at));
            if !is_cut && seen.get_mut(next).is_some_and(|seen| !std::mem::replace(seen, true)) {
                queue.push(next);
            }
        }
    }
    seen.get(end).copied().unwrap_or(false)
}
