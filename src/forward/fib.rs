//! The forwarding information base: an immutable picture of next hops and sessions that the mesh plane
//! replaces whole and the packet threads only read.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::groups::{Groups, Places};
use crate::crypto::Session;
use crate::wire::{Address, PeerName};

/// Index of a link in [`Fib::links`].
pub type LinkIndex = u16;

/// Answers who follows us in the flood tree of an origin; a pure function of the mesh's records.
pub trait FloodTrees: Send + Sync {
    /// The neighbours to which this router passes on a flood of `origin` (which may be this router itself). The answer is
    /// remembered: a packet thread asks once per Fib, and Fibs are replaced often.
    fn children(&self, origin: PeerName) -> &[PeerName];

    /// The neighbour from which floods of `origin` come to this router; `None` where that is not known.
    fn parent(&self, origin: PeerName) -> Option<PeerName>;

    /// The routers that such a flood reaches through one of these neighbours, by their places in the tree's topology; `None` where that is not known.
    fn below(&self, origin: PeerName, child: PeerName) -> Option<&Places>;
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
    /// True while something says that the link is dead and the mesh plane has yet to find out: others carry what they can meanwhile.
    pub doubted: Arc<AtomicBool>,
    /// Activity shared with the mesh plane.
    pub activity: Arc<Activity>,
}

impl FibLink {
    /// True where frames are sent over it.
    pub fn carries(&self) -> bool {
        self.up.load(Ordering::Relaxed) && !self.doubted.load(Ordering::Relaxed)
    }
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

/// Most next hops that share the flows to one peer: labels have 16 values, so that more would not share them evenly.
pub const MOST_HOPS: usize = 4;

/// Neighbours through which a peer is reached: equally good ones, which share the flows, and one that stands in for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hops {
    equal: [LinkIndex; MOST_HOPS],
    count: u8,
    /// A loop-free alternate, for when all of them are down.
    alternate: Option<LinkIndex>,
}

impl Hops {
    /// One next hop, and its alternate where there is one.
    pub fn new(primary: LinkIndex, alternate: Option<LinkIndex>) -> Hops {
        Hops { equal: [primary; MOST_HOPS], count: 1, alternate }
    }

    /// The next hops out of `equal` up to [`MOST_HOPS`], and the alternate; `None` where there is neither.
    pub fn of(equal: impl Iterator<Item = LinkIndex>, alternate: Option<LinkIndex>) -> Option<Hops> {
        let mut hops: Option<Hops> = None;
        for link in equal.take(MOST_HOPS) {
            match &mut hops {
                None => hops = Some(Hops::new(link, alternate)),
                Some(hops) => {
                    if let Some(free) = hops.equal.get_mut(usize::from(hops.count)) {
                        *free = link;
                        hops.count += 1;
                    }
                }
            }
        }
        hops.or_else(|| alternate.map(|alternate| Hops::new(alternate, None)))
    }

    /// The links in the order in which a flow with this share of all flows (0 to 15) tries them: its own first.
    fn in_turn(&self, share: u8) -> impl Iterator<Item = LinkIndex> + '_ {
        let equal = self.equal.get(..usize::from(self.count)).unwrap_or_default();
        let first = usize::from(share) * equal.len() / 16;
        let (before, from) = equal.split_at_checked(first).unwrap_or((&[], equal));
        from.iter().chain(before).copied().chain(self.alternate)
    }
}

/// How unicast reaches a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A proven direct path: DIRECT kinds to this address.
    Direct(Address),
    /// Through neighbours: RELAYED kinds to the address of a link.
    Via(Hops),
    /// Known but not reachable now.
    Unreachable,
}

/// What is known of one peer.
pub struct FibPeer {
    /// The peer.
    pub name: PeerName,
    /// Its incarnation: floods of another are not its own, or of a life that it has behind it.
    pub incarnation: u64,
    /// How its frames travel.
    pub route: Route,
    /// For a direct path: false from the moment it is declared dead, before a new Fib arrives.
    pub up: Arc<AtomicBool>,
    /// For a direct path: true while something says that it is dead, as in [`FibLink::doubted`].
    pub doubted: Arc<AtomicBool>,
    /// For a direct path: the neighbours that stand in for it then.
    pub fallback: Option<Hops>,
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

impl FibPeer {
    /// The direct path's address, where that is what frames take now: one that is down is still the best there is where nobody can stand in.
    pub fn direct(&self) -> Option<Address> {
        match self.route {
            Route::Direct(address) if self.fallback.is_none() || self.is_up() => Some(address),
            Route::Direct(_) | Route::Via(_) | Route::Unreachable => None,
        }
    }

    /// The neighbours through which frames go now, where no direct path takes them.
    pub fn hops(&self) -> Option<&Hops> {
        match &self.route {
            Route::Direct(_) => self.fallback.as_ref().filter(|_| !self.is_up()),
            Route::Via(hops) => Some(hops),
            Route::Unreachable => None,
        }
    }

    fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed) && !self.doubted.load(Ordering::Relaxed)
    }
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
    /// False where this router passes nothing on for others (`--allow-forwarding=no`).
    pub forwarding: bool,
    /// Counts up with every replacement.
    pub generation: u64,
    /// Routers whose bridges are joined to ours outside the mesh, this one where ours is joined to itself; mostly none.
    pub looped_with: Vec<PeerName>,
    /// True where such a loop is broken here: floods neither come from our bridge nor go to it.
    pub silent: bool,
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
    /// Who wants the frames of which multicast group; `None` where all go to everybody.
    pub groups: Option<Arc<Groups>>,
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
            forwarding: true,
            generation: 0,
            looped_with: Vec::new(),
            silent: false,
            groups: None,
            links: Vec::new(),
            link_by_address: NameMap::with_hasher(hash),
            link_by_peer: NameMap::with_hasher(hash),
            peers: NameMap::with_hasher(hash),
            sessions: NameMap::with_hasher(hash),
            trees,
            children: NameMap::with_hasher(hash),
        }
    }

    /// The link that flows with this label take: always the same one while it is up, so that no flow is split, and never the one to
    /// `not`. Of equally good ones each has its share.
    pub fn next_hop(&self, hops: &Hops, label: u8, not: Option<PeerName>) -> Option<&FibLink> {
        let usable = |index: LinkIndex| {
            let link = self.links.get(usize::from(index))?;
            (link.carries() && Some(link.peer) != not).then_some(link)
        };
        hops.in_turn(self.share(label)).find_map(usable)
    }

    /// Which share of the flows a label is, 0 to 15. Every router shuffles the labels in its own way: else all that one relay sends to the
    /// next would be one share there.
    fn share(&self, label: u8) -> u8 {
        let key = self.own.to_u64();
        let [a, b] = [key as u8, (key >> 8) as u8];
        // Each step is a permutation of the 16 labels, so shares stay even.
        let once = (label ^ a).wrapping_mul(a >> 4 | 1) & 15;
        ((once ^ once >> 2) ^ b).wrapping_mul(b >> 4 | 1) & 15
    }

    /// The kernel cannot send to this address: what would go there goes another way until the mesh plane has looked. True where that is
    /// news.
    pub fn doubt(&self, address: Address) -> bool {
        let link = self.link_by_address.get(&address).and_then(|index| self.links.get(usize::from(*index)));
        let path = || self.peers.values().find(|peer| peer.route == Route::Direct(address)).map(|peer| &peer.doubted);
        link.map(|link| &link.doubted).or_else(path).is_some_and(|doubted| !doubted.swap(true, Ordering::Relaxed))
    }

    /// The same of all links and direct paths to such addresses.
    pub fn doubt_where(&self, is_lost: impl Fn(Address) -> bool) {
        let links = self.links.iter().map(|link| (link.address, &link.doubted));
        let paths = self.peers.values().filter_map(|peer| match peer.route {
            Route::Direct(address) if !self.link_by_address.contains_key(&address) => Some((address, &peer.doubted)),
            Route::Direct(_) | Route::Via(_) | Route::Unreachable => None,
        });
        links.chain(paths).filter(|(address, _)| is_lost(*address)).for_each(|(_, doubted)| doubted.store(true, Ordering::Relaxed));
    }

    /// The links on which a flood of `origin` goes on from here. Origins nobody knows have none.
    pub fn flood_children(&self, origin: PeerName) -> &[LinkIndex] {
        let Some(cell) = self.children.get(&origin) else { return &[] };
        cell.get_or_init(|| {
            let names = self.trees.children(origin);
            names.iter().filter_map(|name| self.link_by_peer.get(name).copied()).collect()
        })
    }

    /// True where a flood of `origin` reaches somebody over this link who wants it.
    pub fn leads_to(&self, origin: PeerName, link: &FibLink, wanted: &Places) -> bool {
        self.trees.below(origin, link.peer).is_none_or(|below| below.meets(wanted))
    }
}
