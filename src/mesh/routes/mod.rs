//! Routes: a pure function of the LINKS records, so that all routers that hold the same records agree without talking.
//!
//! * A link is used only if both its ends advertise it. It costs the larger of the two costs they advertise, and
//!   carries the smaller of the two datagrams.
//! * The shortest path has the least (cost, hops); among equals the predecessor with the lowest name wins. Costs are at least
//!   one and the same in both directions, so next hops come nearer with every hop and cannot loop.
//! * Next hops on other shortest paths, equal in cost, hops and size, share the flows ([`Route::others`]). All of them are nearer to the
//!   destination, so nothing loops whichever each router takes.
//! * Nothing is routed through a router that says it passes nothing on (`--allow-forwarding=no`), only to and from it.
//! * An alternate next hop N towards D must be loop-free by the inequality of RFC 5286:
//!   `dist(N, D) < dist(N, S) + dist(S, D)`, so N will not send the frame back. Of several the cheapest is taken.
//! * The flood tree of an origin is its tree of shortest paths.
//!
//! Costs are quantised, with hysteresis, where they are advertised ([`quantise_cost`]): a route does not flap with
//! the noise of a measurement.

mod cost;
mod paths;
mod topology;

#[cfg(test)]
mod tests;

use std::num::NonZero;
use std::sync::{Arc, OnceLock};

use crate::forward::fib::{FloodTrees, MOST_HOPS};
use crate::forward::groups::Places;
use crate::wire::PeerName;

pub use cost::quantise_cost;
pub use topology::{Block, Edge, Topology};

/// How one router is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The best neighbour on the way: of several the one with the lowest name.
    pub next_hop: PeerName,
    /// Neighbours that are as good, and share the flows with it.
    pub others: [Option<PeerName>; MOST_HOPS - 1],
    /// Another neighbour that will not send back what it gets, where there is one.
    pub alternate: Option<PeerName>,
    /// Links on the way.
    pub hops: u16,
    /// Sum of their costs.
    pub cost: u32,
    /// Largest UDP payload that fits all of them, in bytes.
    pub max_datagram: u16,
}

/// The routes of one router to all others it can reach. They are all computed anew with each change, so they are kept in one piece, and in as little
/// room as they take: there are as many as routers.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// All routers of the graph, ascending.
    names: Arc<[PeerName]>,
    /// By the same index: the best way to each.
    best: Vec<Option<Best>>,
    /// What may stand in for it; nothing where that was not asked for.
    beside: Vec<Beside>,
    /// Routers that a way leads to.
    count: usize,
}

/// The best way to a router.
#[derive(Clone, Copy, Debug)]
struct Best {
    next_hop: PeerName,
    hops: NonZero<u16>,
    cost: u32,
    max_datagram: u16,
}

/// Other ways to it, as in [`Route`].
#[derive(Clone, Copy, Debug)]
struct Beside {
    others: [Option<PeerName>; MOST_HOPS - 1],
    alternate: Option<PeerName>,
}

impl Route {
    /// The next hops that share the flows, ascending.
    pub fn equal_hops(self) -> impl Iterator<Item = PeerName> {
        std::iter::once(self.next_hop).chain(self.others.into_iter().flatten())
    }
}

impl Routes {
    /// Computes the routes of `own`.
    pub fn compute(topology: &Topology, own: PeerName) -> Routes {
        Routes::computed(topology, own, true)
    }

    /// The same with one next hop for each router and no other, which cost most of it, for a mesh plane of whose routes no frame makes use.
    pub fn without_alternates(topology: &Topology, own: PeerName) -> Routes {
        Routes::computed(topology, own, false)
    }

    fn computed(topology: &Topology, own: PeerName, others: bool) -> Routes {
        let Some(source) = topology.index(own) else { return Routes::default() };
        let tree = paths::shortest(topology, source);
        let names = topology.names();
        let (equals, widths, alternates) = if others {
            let (equals, widths): (Vec<Vec<usize>>, Vec<u16>) =
                paths::equals(topology, source, &tree).iter().map(paths::Equals::widest).unzip();
            let alternates = paths::alternates(topology, source, &tree, &equals);
            (equals, widths, alternates)
        } else {
            let width = |target: usize| tree.get(target).map_or(0, |label| label.max_datagram);
            (vec![Vec::new(); names.len()], (0..names.len()).map(width).collect(), vec![None; names.len()])
        };
        let mut best = Vec::with_capacity(names.len());
        let mut beside = Vec::with_capacity(if others { names.len() } else { 0 });
        for target in 0..names.len() {
            let mut equal = equals[target].iter().map(|index| names[*index]);
            let way = tree.get(target).filter(|_| target != source).and_then(|label| {
                let next_hop = equal.next().or(label.first_hop.map(|first| names[first]))?;
                let cost = u32::try_from(label.cost).unwrap_or(u32::MAX);
                Some(Best { next_hop, hops: NonZero::new(label.hops)?, cost, max_datagram: widths[target] })
            });
            best.push(way);
            if others {
                let alternate = alternates[target].map(|index| names[index]);
                beside.push(Beside { others: std::array::from_fn(|_| equal.next()), alternate });
            }
        }
        let count = best.iter().flatten().count();
        Routes { names: topology.shared_names(), best, beside, count }
    }

    fn at(&self, index: usize) -> Option<Route> {
        let best = self.best.get(index)?.as_ref()?;
        let (others, alternate) = self.beside.get(index).map_or(([None; MOST_HOPS - 1], None), |beside| (beside.others, beside.alternate));
        let Best { next_hop, hops, cost, max_datagram } = *best;
        Some(Route { next_hop, others, alternate, hops: hops.get(), cost, max_datagram })
    }

    /// The route to `peer`, where one leads there.
    pub fn get(&self, peer: PeerName) -> Option<Route> {
        self.at(self.names.binary_search(&peer).ok()?)
    }

    /// True where a route leads to `peer`.
    pub fn reachable(&self, peer: PeerName) -> bool {
        self.names.binary_search(&peer).is_ok_and(|index| self.best.get(index).is_some_and(Option::is_some))
    }

    /// All routes, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = (PeerName, Route)> {
        self.names.iter().enumerate().filter_map(|(index, name)| Some((*name, self.at(index)?)))
    }

    /// Number of routers that can be reached.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True where nobody can be reached.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Flood trees as seen by one router. Nothing is computed before it is asked for, and nothing twice: all Fibs of one topology
/// share the answers.
pub struct FloodTree {
    topology: Arc<Topology>,
    own: PeerName,
    /// Where we stand, by the index of the origin.
    stands: Vec<OnceLock<Stand>>,
    /// Whom each of them leads to, likewise.
    below: Vec<OnceLock<Box<[Places]>>>,
}

/// A router's place in a flood tree.
#[derive(Default)]
struct Stand {
    /// Whom it gets floods from.
    parent: Option<PeerName>,
    /// Who follows it.
    children: Box<[PeerName]>,
}

impl FloodTree {
    /// The flood trees of `topology` as seen by `own`.
    pub fn new(topology: Arc<Topology>, own: PeerName) -> FloodTree {
        let stands = topology.names().iter().map(|_| OnceLock::new()).collect();
        let below = topology.names().iter().map(|_| OnceLock::new()).collect();
        FloodTree { topology, own, stands, below }
    }

    /// True where these are the trees of this very topology.
    pub fn is_of(&self, topology: &Arc<Topology>) -> bool {
        Arc::ptr_eq(&self.topology, topology)
    }

    /// The graph.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Origins whose trees are known.
    pub fn computed(&self) -> usize {
        self.stands.iter().filter(|stand| stand.get().is_some()).count()
    }

    fn stand(&self, origin: PeerName) -> Option<&Stand> {
        let root = self.topology.index(origin)?;
        self.stands.get(root).map(|stand| stand.get_or_init(|| self.compute(root)))
    }

    fn compute(&self, root: usize) -> Stand {
        let Some(own) = self.topology.index(self.own) else { return Stand::default() };
        let tree = paths::shortest(&self.topology, root);
        let is_child = |index: &usize| tree.get(*index).is_some_and(|label| label.parent == Some(own));
        let neighbours = self.topology.edges(own).iter().map(|edge| edge.to as usize);
        let parent = tree.get(own).and_then(|label| label.parent).map(|index| self.topology.names()[index]);
        Stand { parent, children: neighbours.filter(is_child).map(|index| self.topology.names()[index]).collect() }
    }
}

impl FloodTree {
    /// Whom the children lead to in the tree of an origin.
    fn branches(&self, root: usize, children: &[PeerName]) -> Box<[Places]> {
        let tree = paths::shortest(&self.topology, root);
        let routers = self.topology.names().len();
        let heads: Vec<Option<usize>> = children.iter().map(|child| self.topology.index(*child)).collect();
        let mut branches: Box<[Places]> = children.iter().map(|_| Places::none(routers)).collect();
        for target in 0..routers {
            let mut at = Some(target);
            while let Some(index) = at {
                if let Some(branch) = heads.iter().position(|head| *head == Some(index)) {
                    branches[branch].insert(target);
                    break;
                }
                at = tree.get(index).and_then(|label| label.parent);
            }
        }
        branches
    }
}

impl FloodTrees for FloodTree {
    fn children(&self, origin: PeerName) -> &[PeerName] {
        self.stand(origin).map_or(&[], |stand| &stand.children)
    }

    fn parent(&self, origin: PeerName) -> Option<PeerName> {
        self.stand(origin)?.parent
    }

    fn below(&self, origin: PeerName, child: PeerName) -> Option<&Places> {
        let (root, children) = (self.topology.index(origin)?, self.children(origin));
        let place = children.iter().position(|name| *name == child)?;
        self.below.get(root)?.get_or_init(|| self.branches(root, children)).get(place)
    }
}
