//! The forwarding information base: an immutable picture of next hops and sessions that the mesh plane
//! replaces whole and the packet threads only read.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::crypto::Session;
use crate::wire::{Address, PeerName};

/// Index of a link in [`Fib::links`].
pub type LinkIndex = u16;

/// Answers who follows us in the flood tree of an origin; a pure function of the mesh's records.
pub trait FloodTrees: Send + Sync {
    /// The neighbours to which this router passes on a flood of `origin` (which may be this router itself). The answer is
    /// remembered: a packet thread asks once per Fib, and Fibs are replaced often.
    fn children(&self, origin: PeerName) -> &[PeerName];
}

/// A live control adjacency, as the packet plane needs it.
pub struct FibLink {
    /// The neighbour.
    pub peer: PeerName,
    /// Where the neighbour is reached.
    pub address: Address,
    /// The session that seals floods for this hop.
    pub session: Arc<Session>,
    /// Largest UDP payload, in bytes, that fits the path to the neighbour.
    pub max_datagram: u16,
    /// False from the moment the mesh plane declares the link dead, before a new Fib arrives.
    pub up: Arc<AtomicBool>,
    /// Activity shared with the mesh plane.
    pub activity: Arc<Activity>,
}

/// Traffic to and from one peer, counted by the packet threads and read by the mesh plane: data counts as life
/// of a link, and traffic decides how often a link is probed.
#[derive(Debug, Default)]
pub struct Activity {
    /// When authentic data of a DIRECT kind last arrived from where the peer is known to be, in nanoseconds of [`crate::time::Time`]:
    /// a sign of life of that path.
    pub heard: AtomicU64,
    /// When such data last arrived from any address, likewise: a sign that a direct path is of use.
    pub direct: AtomicU64,
    /// When data was last sent, likewise.
    pub sent: AtomicU64,
    /// Bytes of UDP payload sent.
    pub tx_bytes: AtomicU64,
    /// Bytes of UDP payload received and found authentic.
    pub rx_bytes: AtomicU64,
    /// Frames sent (a super frame counts its segments).
    pub tx_frames: AtomicU64,
    /// Frames received, likewise.
    pub rx_frames: AtomicU64,
}

/// How unicast reaches a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A proven direct path: DIRECT kinds to this address.
    Direct(Address),
    /// Through a neighbour: RELAYED kinds to the link's address, the alternate where the primary is down.
    Via {
        /// The best next hop.
        primary: LinkIndex,
        /// A loop-free alternate next hop, where there is one.
        alternate: Option<LinkIndex>,
    },
    /// Known but not reachable now.
    Unreachable,
}

/// What is known of one peer.
pub struct FibPeer {
    /// The peer.
    pub name: PeerName,
    /// How its frames travel.
    pub route: Route,
    /// The end-to-end session to seal with; `None` until a handshake completes.
    pub session: Option<Arc<Session>>,
    /// Largest UDP payload, in bytes, that fits the whole path.
    pub max_datagram: u16,
    /// False while the path MTU search has not ended its first round, or has begun again: what is too big is fragmented
    /// silently instead of answered.
    pub mtu_settled: bool,
    /// Activity shared with the mesh plane.
    pub activity: Arc<Activity>,
}

/// A hasher for names and indices, keyed so that nobody outside can aim for collisions.
#[derive(Clone, Copy, Debug)]
pub struct NameHash(pub u64);

/// State of [`NameHash`]: multiply and fold, the values are at most eight bytes.
pub struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let wide = u128::from(self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

impl BuildHasher for NameHash {
    type Hasher = NameHasher;

    fn build_hasher(&self) -> NameHasher {
        NameHasher(self.0)
    }
}

/// A map keyed by name, index or address.
pub type NameMap<K, V> = HashMap<K, V, NameHash>;

/// The whole picture.
pub struct Fib {
    /// This router.
    pub own: PeerName,
    /// This router's incarnation, part of a flood's identity.
    pub incarnation: u64,
    /// Counts up with every replacement.
    pub generation: u64,
    /// Live links.
    pub links: Vec<FibLink>,
    /// Links by the neighbour's underlay address: relays forward only what comes from one of these.
    pub link_by_address: NameMap<Address, LinkIndex>,
    /// Links by the neighbour's name.
    pub link_by_peer: NameMap<PeerName, LinkIndex>,
    /// Every known peer but ourselves.
    pub peers: NameMap<PeerName, FibPeer>,
    /// Every session that may still receive, by our index, with the peer's activity.
    pub sessions: NameMap<u32, (Arc<Session>, Arc<Activity>)>,
    /// Source of flood trees, shared by all Fibs of one topology.
    pub trees: Arc<dyn FloodTrees>,
    /// Flood children by origin as links of this Fib, filled on first use.
    pub children: NameMap<PeerName, OnceLock<Box<[LinkIndex]>>>,
}

impl Fib {
    /// A Fib of a router that knows nobody; `key` is the random key of its hash maps.
    pub fn empty(own: PeerName, incarnation: u64, key: u64, trees: Arc<dyn FloodTrees>) -> Fib {
        let hash = NameHash(key);
        Fib {
            own,
            incarnation,
            generation: 0,
            links: Vec::new(),
            link_by_address: NameMap::with_hasher(hash),
            link_by_peer: NameMap::with_hasher(hash),
            peers: NameMap::with_hasher(hash),
            sessions: NameMap::with_hasher(hash),
            trees,
            children: NameMap::with_hasher(hash),
        }
    }

    /// The link to use for a route through a neighbour: primary while up, else the alternate while up.
    pub fn next_hop(&self, primary: LinkIndex, alternate: Option<LinkIndex>) -> Option<&FibLink> {
        let usable = |index: LinkIndex| self.links.get(usize::from(index)).filter(|link| link.up.load(Ordering::Relaxed));
        usable(primary).or_else(|| alternate.and_then(usable))
    }

    /// The links on which a flood of `origin` goes on from here. Origins nobody knows have none.
    pub fn flood_children(&self, origin: PeerName) -> &[LinkIndex] {
        let Some(cell) = self.children.get(&origin) else { return &[] };
        cell.get_or_init(|| {
            let names = self.trees.children(origin);
            names.iter().filter_map(|name| self.link_by_peer.get(name).copied()).collect()
        })
    }
}
