//! The picture that the packet threads get.

use std::sync::{Arc, OnceLock};

use super::core::Mesh;
use super::mtu::BASE;
use super::routes::FloodTree;
use crate::forward::fib::LinkIndex;
use crate::forward::{Fib, FibLink, FibPeer, Route};
use crate::wire::PeerName;

impl Mesh {
    /// The picture of this moment, for packet threads that are about to start.
    pub fn fib(&mut self) -> Arc<Fib> {
        Arc::new(self.build_fib())
    }

    /// Builds the picture of this moment.
    pub(super) fn build_fib(&mut self) -> Fib {
        self.generation += 1;
        let trees = self.flood_trees();
        let mut fib = Fib::empty(self.own, self.store.incarnation(), self.hash_key, trees);
        fib.generation = self.generation;
        self.add_links(&mut fib);
        let told = self.store.nodes().map(|node| node.name);
        let names = told.chain(self.keyrings.keys().copied()).filter(|name| *name != self.own);
        self.fib_peers = names.collect();
        for name in self.fib_peers.clone() {
            let peer = self.fib_peer(&fib, name);
            fib.children.insert(name, OnceLock::new());
            fib.peers.insert(name, peer);
        }
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
                activity,
            });
            fib.link_by_address.insert(adjacency.address, index);
            fib.link_by_peer.insert(peer, index);
        }
    }

    fn fib_peer(&mut self, fib: &Fib, name: PeerName) -> FibPeer {
        let activity = self.activity(name);
        let session = self.keyrings.get(&name).and_then(|keys| keys.current()).map(Arc::clone);
        let link = |name: PeerName| fib.link_by_peer.get(&name).copied();
        let (route, max_datagram) = match (self.adjacencies.get(&name), self.routes.get(name)) {
            (Some(adjacency), _) => (Route::Direct(adjacency.address), adjacency.mtu.max_datagram()),
            (None, Some(route)) => match (link(route.next_hop), route.alternate.and_then(link)) {
                (Some(primary), alternate) => (Route::Via { primary, alternate }, route.max_datagram),
                (None, Some(primary)) => (Route::Via { primary, alternate: None }, route.max_datagram),
                (None, None) => (Route::Unreachable, BASE),
            },
            (None, None) => (Route::Unreachable, BASE),
        };
        FibPeer { name, route, session, max_datagram: max_datagram.max(BASE), activity }
    }
}
