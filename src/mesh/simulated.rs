//! What a simulation of many routers asks of their mesh planes.

use std::sync::Arc;
use std::time::Duration;

use super::core::Mesh;
use super::gossip;
use crate::crypto::Arithmetic;
use crate::wire::PeerName;

impl Mesh {
    /// Shares with other routers of this process what is the same for all.
    pub fn share(&mut self, workshop: Arc<dyn gossip::Workshop>) {
        self.store.share(workshop);
    }

    /// Spares it the arithmetic of handshakes, which then keep nothing from anybody; all whom it meets must do so too.
    pub fn simulate_handshakes(&mut self) {
        self.local.arithmetic = Arithmetic::Simulated;
    }

    /// Makes it a mesh plane without packet threads, to which no Fib need be handed.
    pub fn go_alone(&mut self) {
        self.alone = true;
    }

    /// The root hash of the records of all that can be reached, and how many routes lead to others: two routers agree where both do.
    pub fn agreement(&mut self) -> (u64, usize) {
        (self.store.root(self.now), self.routes.len())
    }

    /// Every link, with what is known of its round trip.
    pub fn links(&self) -> impl Iterator<Item = (PeerName, Option<Duration>)> {
        let links = self.adjacencies.iter().filter(|(_, adjacency)| adjacency.is_link());
        links.map(|(name, adjacency)| (*name, adjacency.beat.rtt()))
    }
}
