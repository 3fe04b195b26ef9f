//! What a packet thread hands to the mesh plane.

use crate::mesh::command::{LocalMac, Membership, Sighting};
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
    /// A frame says where an address is, and that is news.
    Address(Sighting),
    /// A station on this host's bridge floods more than it may.
    FloodLimit {
        /// Its VLAN.
        vlan: u16,
        /// Its MAC.
        mac: [u8; 6],
    },
    /// All stations there together do, or all that were not heard before.
    FloodLimitOfAll,
    /// A station on this host's bridge tells which multicast groups it is a member of.
    Members(Vec<Membership>),
    /// Stations there tell more of that than this router looks at.
    TooManyMembers,
    /// There is a multicast router there.
    MulticastRouter,
    /// A probe for loops was seen on this host's bridge: the whole frame.
    Probe(Vec<u8>),
    /// A datagram for a session that we do not have: the peer should learn that we have forgotten it.
    UnknownSession {
        /// Where it came from.
        from: Address,
        /// The index it was addressed to.
        index: u32,
    },
}
