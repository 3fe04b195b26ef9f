//! Routers wired together in memory: real forwarders and real sessions, no sockets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::crypto::{Providers, Root, Session, Suite, Terms};
use crate::forward::fib::{Activity, Fib, FibLink, FibPeer, FloodTrees, Hops, Route};
use crate::forward::groups::Places;
use crate::forward::{Addresses, Duplicates, Forwarder, MacTable, Outbox, PacketCounters, Settings, Shared};
use crate::time::Time;
use crate::wire::{Address, PeerName, VnetHeader};

use super::MemoryTap;

/// Flood trees given as tables: origin to children of one router, whom these lead to, and origin to parent.
struct FixedTrees(BTreeMap<PeerName, Vec<PeerName>>, BTreeMap<PeerName, Places>, BTreeMap<PeerName, PeerName>);

impl FloodTrees for FixedTrees {
    fn children(&self, origin: PeerName) -> &[PeerName] {
        self.0.get(&origin).map_or(&[], Vec::as_slice)
    }

    fn parent(&self, origin: PeerName) -> Option<PeerName> {
        self.2.get(&origin).copied()
    }

    fn below(&self, _: PeerName, child: PeerName) -> Option<&Places> {
        self.1.get(&child)
    }
}

/// The name of router number `n`.
pub fn name(n: usize) -> PeerName {
    PeerName([0x7a, 0, 0, 0, 0, n as u8 + 1])
}

/// The underlay address of router number `n`.
pub fn address(n: usize) -> Address {
    Address::udp(([192, 168, 0, n as u8 + 1], 6783).into())
}

/// How routers are wired.
#[derive(Clone, Copy, Debug)]
pub struct Wiring {
    /// How many there are, in a line: each has links to the one before and the one after.
    pub routers: usize,
    /// Unsealed data.
    pub plain: bool,
    /// Largest datagram of every path.
    pub max_datagram: u16,
    /// Relay budget of every router, bytes per second and link.
    pub relay_budget: u64,
    /// False leaves out the end-to-end sessions of routers that are not neighbours.
    pub sessions: bool,
    /// Flood limit of every router; 0 for none.
    pub flood_limit: u64,
    /// A flood whose origin is known has everybody but the sender as child, whatever the tree: a mesh that disagrees.
    pub storm: bool,
}

impl Default for Wiring {
    fn default() -> Wiring {
        let relay_budget = crate::forward::forwarder::DEFAULT_RELAY_BUDGET;
        Wiring { routers: 2, plain: false, max_datagram: 1472, relay_budget, sessions: true, flood_limit: 0, storm: false }
    }
}

/// One router.
pub struct Node {
    /// Its forwarder.
    pub forwarder: Forwarder,
    /// What it wants sent.
    pub outbox: Outbox,
    /// Its TAP.
    pub tap: MemoryTap,
}

/// Routers, and the datagrams between them.
pub struct Mesh {
    /// The routers.
    pub nodes: Vec<Node>,
    /// The time they are told.
    pub now: Time,
    /// Every datagram run that was sent: sender, receiver, bytes, segment size.
    pub sent: Vec<(usize, Address, Vec<u8>, usize)>,
    /// Both ends of each pair's session, by (router, peer).
    pub sessions: BTreeMap<(usize, usize), Arc<Session>>,
    wiring: Wiring,
}

impl Mesh {
    /// A line of routers.
    pub fn line(wiring: Wiring) -> Mesh {
        let sessions = pair_up(wiring);
        let mut mesh = Mesh { nodes: Vec::new(), now: Time(1_000_000_000), sent: Vec::new(), sessions, wiring };
        for n in 0..wiring.routers {
            let fib = Arc::new(mesh.fib(n, wiring.sessions));
            let shared = Shared {
                macs: Arc::new(MacTable::new(256, 5)),
                addresses: Arc::new(Addresses::new(5)),
                duplicates: Arc::new(Duplicates::new(64, 5)),
                counters: Arc::new(PacketCounters::default()),
            };
            let forwarder = Forwarder::new(
                Settings { lane: 1, relay_budget: wiring.relay_budget, arp_proxy: true, flood_limit: wiring.flood_limit, ack_filter: true },
                shared,
                fib,
            );
            mesh.nodes.push(Node { forwarder, outbox: Outbox::new(), tap: MemoryTap::default() });
        }
        mesh
    }

    /// What router `n` knows; `far` says whether it has sessions with routers that are not neighbours.
    pub fn fib(&self, n: usize, far: bool) -> Fib {
        let routers = self.wiring.routers;
        let neighbours: Vec<usize> = [n.checked_sub(1), Some(n + 1).filter(|m| *m < routers)].into_iter().flatten().collect();
        let mut trees = BTreeMap::new();
        for origin in 0..routers {
            let away = |m: &&usize| self.wiring.storm || (origin <= n && **m > n) || (origin >= n && **m < n);
            trees.insert(name(origin), neighbours.iter().filter(away).map(|m| name(*m)).collect());
        }
        let beyond = |m: usize| {
            let mut places = Places::none(routers);
            (0..routers).filter(|far| if m > n { *far >= m } else { *far <= m }).for_each(|far| places.insert(far));
            (name(m), places)
        };
        let below = neighbours.iter().map(|m| beyond(*m)).collect();
        let towards = |origin: usize| if origin < n { n - 1 } else { n + 1 };
        let parents = (0..routers).filter(|origin| *origin != n).map(|origin| (name(origin), name(towards(origin)))).collect();
        let mut fib = Fib::empty(name(n), 1, 5, Arc::new(FixedTrees(trees, below, parents)));
        for (index, &m) in neighbours.iter().enumerate() {
            fib.links.push(FibLink {
                peer: name(m),
                address: address(m),
                session: self.sessions[&(n, m)].clone(),
                max_datagram: self.wiring.max_datagram,
                up: Arc::new(AtomicBool::new(true)),
                doubted: Arc::default(),
                activity: Arc::default(),
            });
            fib.link_by_address.insert(address(m), index as u16);
            fib.link_by_peer.insert(name(m), index as u16);
        }
        for m in 0..routers {
            fib.children.insert(name(m), Default::default());
            if m == n {
                continue;
            }
            let next = neighbours.iter().position(|hop| (*hop > n) == (m > n)).unwrap_or(0) as u16;
            let near = neighbours.contains(&m);
            let route = if near { Route::Direct(address(m)) } else { Route::Via(Hops::new(next, None)) };
            let session = self.sessions[&(n, m)].clone();
            let activity = Arc::<Activity>::default();
            fib.sessions.insert(session.local_index(), (session.clone(), activity.clone()));
            let session = (near || far).then_some(session);
            let max_datagram = self.wiring.max_datagram;
            let flags = fib.links.get(usize::from(next)).filter(|_| near).map(|link| (link.up.clone(), link.doubted.clone()));
            let (up, doubted) = flags.unwrap_or_else(|| (Arc::new(AtomicBool::new(true)), Arc::default()));
            let peer = FibPeer {
                name: name(m),
                incarnation: 1,
                route,
                up,
                doubted,
                fallback: None,
                session,
                max_datagram,
                mtu_settled: true,
                activity,
            };
            fib.peers.insert(name(m), peer);
        }
        fib
    }

    /// Gives router `n` a new Fib.
    pub fn set_fib(&mut self, n: usize, fib: Fib) {
        let node = &mut self.nodes[n];
        node.forwarder.set_fib(self.now, Arc::new(fib), &mut node.outbox, &mut node.tap);
    }

    /// Router `n` reads a frame from its TAP.
    pub fn send(&mut self, n: usize, vnet: &VnetHeader, frame: &[u8]) {
        self.send_burst(n, vnet, &[frame]);
    }

    /// Router `n` reads frames from its TAP until that is empty.
    pub fn send_burst(&mut self, n: usize, vnet: &VnetHeader, frames: &[&[u8]]) {
        let node = &mut self.nodes[n];
        for frame in frames {
            node.forwarder.from_tap(self.now, vnet, &mut frame.to_vec(), &mut node.outbox, &mut node.tap);
        }
        node.forwarder.end_burst(self.now, &mut node.outbox, &mut node.tap);
    }

    /// Router `n` receives datagrams.
    pub fn receive(&mut self, n: usize, from: Address, bytes: &[u8], segment: usize) {
        let node = &mut self.nodes[n];
        node.forwarder.from_udp(self.now, from, &mut bytes.to_vec(), segment, &mut node.outbox, &mut node.tap);
    }

    /// Carries datagrams until all are delivered; those for which `keep` says false are lost.
    pub fn run(&mut self, mut keep: impl FnMut(usize, &[u8]) -> bool) {
        let mut queue = VecDeque::new();
        loop {
            for (n, node) in self.nodes.iter_mut().enumerate() {
                queue.extend(node.outbox.runs().map(|(to, bytes, segment)| (n, to, bytes.to_vec(), segment)));
                node.outbox.clear();
            }
            let Some((n, to, bytes, segment)) = queue.pop_front() else { return };
            self.sent.push((n, to, bytes.clone(), segment));
            let kept: Vec<u8> = bytes.chunks(segment).filter(|datagram| keep(n, datagram)).flatten().copied().collect();
            if let Some(receiver) = (0..self.nodes.len()).find(|m| address(*m) == to) {
                self.receive(receiver, address(n), &kept, segment);
            }
        }
    }

    /// Carries all datagrams.
    pub fn settle(&mut self) {
        self.run(|_, _| true);
    }

    /// Router `n`'s counters.
    pub fn counters(&self, n: usize) -> &PacketCounters {
        &self.nodes[n].forwarder.shared().counters
    }
}

/// Sessions between all routers, by (router, peer).
fn pair_up(wiring: Wiring) -> BTreeMap<(usize, usize), Arc<Session>> {
    let suite = Suite::available().first().copied().unwrap_or(Suite::ChaCha20Poly1305);
    let mut sessions = BTreeMap::new();
    for a in 0..wiring.routers {
        for b in a + 1..wiring.routers {
            let root = Root::from_bytes([(a * 16 + b) as u8; 32]);
            for (here, there, initiator) in [(a, b, true), (b, a, false)] {
                let terms = Terms {
                    peer: name(there),
                    initiator,
                    local_index: (here * 256 + there + 1) as u32,
                    remote_index: (there * 256 + here + 1) as u32,
                    suite,
                    provider: Providers::default().get(suite),
                    lanes: 2,
                    plain: wiring.plain,
                    exchange: crate::crypto::Exchange::Hybrid,
                    network: "test",
                };
                let session = Session::from_root(&root, &terms).expect("the build has the suite");
                session.mark_confirmed();
                sessions.insert((here, there), Arc::new(session));
            }
        }
    }
    sessions
}
