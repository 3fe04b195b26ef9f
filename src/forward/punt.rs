//! What a packet thread hands to the mesh plane.

use crate::mesh::command::LocalMac;
use crate::wire::{Address, PeerName};

/// Something the packet plane found that is not its business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Punt {
    /// A control datagram that the kernel had merged into a batch of data.
    Control {
        /// Where it came from.
        from: Address,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// Frames wait for a session with this peer.
    WantSession(PeerName),
    /// A MAC appeared on this host's bridge.
    LocalMac(LocalMac),
    /// A datagram for a session that we do not have: the peer should learn that we have forgotten it.
    UnknownSession {
        /// Where it came from.
        from: Address,
        /// The index it was addressed to.
        index: u32,
    },
}
