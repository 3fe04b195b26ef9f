//! Frames in clear between hosts that trust the network between them (`--trusted-subnets`), without anything of the kernel's.
//!
//! Each end decides by itself whether it takes such frames: from a peer whose proven direct address is in a trusted subnet. It says so in its
//! heartbeats, and who is told that sends them if it trusts the other's address too. Handshakes, control, floods and everything relayed
//! stay sealed, and so is all that goes to an address that has not been proven.

use super::config::MeshConfig;
use super::core::Mesh;
use crate::wire::{Address, PeerName};

/// True where the operator trusts the network of this address.
pub(super) fn trusts(config: &MeshConfig, address: Address) -> bool {
    config.trusted.iter().any(|subnet| subnet.contains(address.socket_addr().ip()))
}

impl Mesh {
    /// Tells every session what holds for the path to its peer now: before packet threads get a new picture.
    pub(super) fn settle_clear(&self) {
        if self.config.trusted.is_empty() {
            return;
        }
        self.keyrings.keys().for_each(|peer| self.settle_clear_with(*peer));
    }

    /// Tells those with this peer. Packet threads look at the session with every frame, so that they need no new picture.
    pub(super) fn settle_clear_with(&self, peer: PeerName) {
        let (takes, sends) = self.clear_path(peer);
        self.keyrings.get(&peer).into_iter().flat_map(|keys| keys.all()).for_each(|session| session.set_clear(takes, sends));
    }

    fn clear_path(&self, peer: PeerName) -> (bool, bool) {
        let adjacency = self.adjacencies.get(&peer);
        let takes = adjacency.is_some_and(|adjacency| trusts(&self.config, adjacency.address));
        (takes, takes && adjacency.is_some_and(|adjacency| adjacency.peer_takes_clear))
    }
}
