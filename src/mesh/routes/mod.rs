//! Routes: a pure function of the LINKS records, so that all routers that hold the same records agree without talking.
//!
//! * A link is used only if both its ends advertise it. It costs the larger of the two costs they advertise, and
//!   carries the smaller of the two datagrams.
//! * The shortest path has the least (cost, hops); among equals the predecessor with the lowest name wins. Costs are at least
//!   one and the same in both directions, so next hops come nearer with every hop and cannot loop.
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

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::forward::fib::FloodTrees;
use crate::wire::PeerName;

pub use cost::quantise_cost;
pub use topology::{Edge, Topology};

/// How one router is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The best neighbour on the way.
    pub next_hop: PeerName,
    /// Another neighbour that will not send back what it gets, where there is one.
    pub alternate: Option<PeerName>,
    /// Links on the way.
    pub hops: u16,
    /// Sum of their costs.
    pub cost: u32,
    /// Largest UDP payload that fits all of them, in bytes.
    pub max_datagram: u16,
}

/// The routes of one router to all others it can reach.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    routes: BTreeMap<PeerName, Route>,
}

impl Routes {
    /// Computes the routes of `own`.
    pub fn compute(topology: &Topology, own: PeerName) -> Routes {
        let Some(source) = topology.index(own) else { return Routes::default() };
        let tree = paths::shortest(topology, source);
        let alternates = paths::alternates(topology, source, &tree);
        let names = topology.names();
        let route = |target: usize| {
            let label = tree.get(target)?;
            let first = label.first_hop.filter(|_| target != source)?;
            Some(Route {
                next_hop: names[first],
                alternate: alternates[target].map(|index| names[index]),
                hops: label.hops,
                cost: u32::try_from(label.cost).unwrap_or(u32::MAX),
                max_datagram: label.max_datagram,
            })
        };
        let routes = (0..names.len()).filter_map(|target| Some((names[target], route(target)?)));
        Routes { routes: routes.collect() }
    }

    /// The route to `peer`, where one leads there.
    pub fn get(&self, peer: PeerName) -> Option<&Route> {
        self.routes.get(&peer)
    }

    /// True where a route leads to `peer`.
    pub fn reachable(&self, peer: PeerName) -> bool {
        self.routes.contains_key(&peer)
    }

    /// All routes, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = (PeerName, &Route)> {
        self.routes.iter().map(|(name, route)| (*name, route))
    }

    /// Number of routers that can be reached.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// True where nobody can be reached.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

/// Flood trees as seen by one router. Nothing is computed before it is asked for, and nothing twice: all Fibs of one topology
/// share the answers.
pub struct FloodTree {
    topology: Arc<Topology>,
    own: PeerName,
    /// Who follows us, by the index of the origin.
    children: Vec<OnceLock<Box<[PeerName]>>>,
}

impl FloodTree {
    /// The flood trees of `topology` as seen by `own`.
    pub fn new(topology: Arc<Topology>, own: PeerName) -> FloodTree {
        let children = topology.names().iter().map(|_| OnceLock::new()).collect();
        FloodTree { topology, own, children }
    }

    /// True where these are the trees of this very topology.
    pub fn is_of(&self, topology: &Arc<Topology>) -> bool {
        Arc::ptr_eq(&self.topology, topology)
    }

    /// Origins whose children are known.
    pub fn computed(&self) -> usize {
        self.children.iter().filter(|children| children.get().is_some()).count()
    }

    fn compute(&self, root: usize) -> Box<[PeerName]> {
        let Some(own) = self.topology.index(self.own) else { return Box::default() };
        let tree = paths::shortest(&self.topology, root);
        let is_child = |index: &usize| tree.get(*index).is_some_and(|label| label.parent == Some(own));
        let neighbours = self.topology.edges(own).iter().map(|edge| edge.to as usize);
        neighbours.filter(is_child).map(|index| self.topology.names()[index]).collect()
    }
}

impl FloodTrees for FloodTree {
    fn children(&self, origin: PeerName) -> &[PeerName] {
        let Some(root) = self.topology.index(origin) else { return &[] };
        self.children.get(root).map_or(&[], |children| children.get_or_init(|| self.compute(root)))
    }
}
