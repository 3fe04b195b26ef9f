//! The picture that the packet threads get.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::adjacency::Adjacency;
use super::core::Mesh;
use super::mtu::BASE;
use super::routes::FloodTree;
use crate::forward::fib::LinkIndex;
use crate::forward::{Fib, FibLink, FibPeer, Hops, Route};
use crate::wire::PeerName;

/// A route that carries no more than the base size may only lead over a link whose search has just begun: containers are
/// told so after this, several times what a search takes.
pub(super) const NARROW_FOR: Duration = Duration::from_secs(4);

/// A way through neighbours.
#[derive(Clone, Copy)]
struct Relayed {
    hops: Hops,
    /// The largest datagram it carries, as far as it is the route.
    max_datagram: u16,
    cost: u32,
    /// False where a direct link is the route, and this only stands in for it.
    is_best: bool,
}

impl Relayed {
    /// True where frames go this way although there is a direct path: one by TCP, as whatever costs less than TCP is without it; one that has just
    /// been found and is not yet known to carry as large datagrams; or one that loses what it is given, while this loses less.
    fn is_preferred_to(&self, path: &Adjacency) -> bool {
        let is_small = path.mtu.is_first_search() && path.mtu.max_datagram() < self.max_datagram;
        // The graph has compared the links; what is a mere path it does not know.
        let costs_more = || path.is_link() || path.current_cost().is_some_and(|cost| self.cost < cost);
        self.is_best && (path.address.is_tcp() || is_small || path.lossy && costs_more())
    }
}

impl Mesh {
    /// The picture of this moment, for packet threads that are about to start.
    pub fn fib(&mut self) -> Arc<Fib> {
        Arc::new(self.build_fib())
    }

    /// Builds the picture of this moment.
    pub(super) fn build_fib(&mut self) -> Fib {
        self.generation += 1;
        let trees = self.flood_trees();
        let groups = self.wanted_groups(&trees);
        let mut fib = Fib::empty(self.own, self.store.incarnation(), self.hash_key, trees);
        fib.groups = groups;
        fib.generation = self.generation;
        (fib.looped_with, fib.silent) = (self.loops.with(), self.loops.is_silent());
        fib.forwarding = self.config.forwarding;
        self.add_links(&mut fib);
        let told = self.store.nodes().map(|node| node.name);
        let names = told.chain(self.keyrings.keys().copied()).filter(|name| *name != self.own);
        self.fib_peers = names.collect();
        self.narrow.retain(|name, _| self.fib_peers.contains(name));
        for name in self.fib_peers.clone() {
            let peer = self.fib_peer(&fib, name);
            fib.children.insert(name, OnceLock::new());
            fib.peers.insert(name, peer);
        }
        self.note_ways(&fib);
        fib.children.insert(self.own, OnceLock::new());
        let peers: Vec<PeerName> = self.keyrings.keys().copied().collect();
        for peer in peers {
            let activity = self.activity(peer);
            let Some(keys) = self.keyrings.get(&peer) else { continue };
            for session in keys.all() {
                fib.sessions.insert(session.local_index(), (Arc::clone(session), Arc::clone(&activity)));
            }
        }
        fib
    }

    /// The flood trees, those of the Fib before where the topology is the same: what its packet threads computed stays.
    fn flood_trees(&mut self) -> Arc<FloodTree> {
        let topology = self.store.topology();
        if let Some(trees) = self.trees.as_ref().filter(|trees| trees.is_of(&topology)) {
            return Arc::clone(trees);
        }
        let trees = Arc::new(FloodTree::new(topology, self.own));
        self.trees = Some(Arc::clone(&trees));
        trees
    }

    fn add_links(&mut self, fib: &mut Fib) {
        let names: Vec<PeerName> = self.adjacencies.iter().filter(|(_, adjacency)| adjacency.is_link()).map(|(name, _)| *name).collect();
        for peer in names {
            let activity = self.activity(peer);
            let session = self.keyrings.get(&peer).and_then(|keys| keys.current());
            let (Some(session), Some(adjacency)) = (session, self.adjacencies.get(&peer)) else { continue };
            let Ok(index) = LinkIndex::try_from(fib.links.len()) else { return };
            fib.links.push(FibLink {
                peer,
                address: adjacency.address,
                session: Arc::clone(session),
                max_datagram: adjacency.mtu.max_datagram(),
                up: Arc::clone(&adjacency.up),
                doubted: Arc::clone(&adjacency.doubted),
                activity,
            });
            fib.link_by_address.insert(adjacency.address, index);
            fib.link_by_peer.insert(peer, index);
        }
    }

    fn fib_peer(&mut self, fib: &Fib, name: PeerName) -> FibPeer {
        let activity = self.activity(name);
        let session = self.keyrings.get(&name).and_then(|keys| keys.current()).map(Arc::clone);
        let relayed = self.relayed_route(name, |hop| fib.link_by_peer.get(&hop).copied());
        let narrow = relayed.is_some_and(|relayed| relayed.is_best && relayed.max_datagram <= BASE);
        let narrow_since = if narrow { Some(*self.narrow.entry(name).or_insert(self.now)) } else { None };
        if !narrow {
            self.narrow.remove(&name);
        }
        let adjacency = self.adjacencies.get(&name);
        let widest = narrow_since.is_none_or(|since| self.now.since(since) >= NARROW_FOR);
        let (route, max_datagram, mtu_settled) = match (adjacency, relayed) {
            (Some(path), Some(relayed)) if relayed.is_preferred_to(path) => (Route::Via(relayed.hops), relayed.max_datagram, widest),
            (Some(path), _) => (Route::Direct(path.address), path.mtu.max_datagram(), path.mtu.is_settled()),
            (None, Some(relayed)) => (Route::Via(relayed.hops), relayed.max_datagram, widest),
            (None, None) => (Route::Unreachable, BASE, false),
        };
        // A handshake may tell of a start before its records do.
        let told = self.store.node(name).map(|node| node.incarnation);
        let incarnation = told.max(self.members.get(&name).map(|member| member.stamp.incarnation)).unwrap_or_default();
        let flags = adjacency.map(|adjacency| (Arc::clone(&adjacency.up), Arc::clone(&adjacency.doubted)));
        let (up, doubted) = flags.unwrap_or_else(|| (Arc::new(AtomicBool::new(true)), Arc::default()));
        let fallback = adjacency.and(relayed).map(|relayed| relayed.hops);
        FibPeer { name, incarnation, route, up, doubted, fallback, session, max_datagram: max_datagram.max(BASE), mtu_settled, activity }
    }

    /// The way to `name` through neighbours other than itself: as routed, or beside a direct path the one that stands in for it. `link` tells the
    /// link to a neighbour.
    fn relayed_route(&self, name: PeerName, link: impl Fn(PeerName) -> Option<LinkIndex>) -> Option<Relayed> {
        let is_direct = self.adjacencies.contains_key(&name);
        let route = self.routes.get(name)?;
        let other = |hop: &PeerName| !(is_direct && *hop == name);
        let hops = Hops::of(route.equal_hops().filter(other).filter_map(&link), route.alternate.filter(other).and_then(&link))?;
        Some(Relayed { hops, max_datagram: route.max_datagram, cost: route.cost, is_best: other(&route.next_hop) })
    }

    /// The direct path to `name` where frames take it, as the Fib has it; `None` where others carry them, or there is none.
    pub(super) fn direct_path(&self, name: PeerName) -> Option<&Adjacency> {
        let path = self.adjacencies.get(&name)?;
        // Which index a link has does not matter here.
        let is_link = |hop: PeerName| self.adjacencies.get(&hop).filter(|adjacency| adjacency.is_link()).map(|_| 0);
        match self.relayed_route(name, is_link) {
            Some(relayed) if path.beat.is_doubted() || relayed.is_preferred_to(path) => None,
            Some(_) | None => Some(path),
        }
    }
}
