//! What the underlay allows: which routers run, which networks carry, and who can reach whom by that. It knows nothing of the mesh.

use std::collections::BTreeSet;

use weave_router::sim::{RouterId, Sim, WireId};

/// A network, and what is wrong with it.
pub struct Net {
    pub wire: WireId,
    pub members: Vec<RouterId>,
    /// Nothing passes, whatever the reason.
    pub broken: bool,
    /// Nobody hears these.
    pub mute: BTreeSet<RouterId>,
}

impl Net {
    fn carries(&self, ends: [RouterId; 2]) -> bool {
        !self.broken && ends.iter().all(|end| !self.mute.contains(end))
    }

    /// True where something is to be mended.
    pub fn is_harmed(&self) -> bool {
        self.broken || !self.mute.is_empty()
    }
}

/// Two hosts that reach each other while all these networks carry.
struct Edge {
    ends: [RouterId; 2],
    nets: Vec<usize>,
}

/// The hosts and networks.
#[derive(Default)]
pub struct Model {
    pub hosts: Vec<RouterId>,
    pub nets: Vec<Net>,
    edges: Vec<Edge>,
    /// Hosts that pass nothing on.
    pub closed: BTreeSet<RouterId>,
    pub down: BTreeSet<RouterId>,
    /// Hosts on the other side of a partition.
    pub apart: BTreeSet<RouterId>,
}

impl Model {
    /// Adds a network; its number.
    pub fn net(&mut self, wire: WireId, members: &[RouterId]) -> usize {
        self.nets.push(Net { wire, members: members.to_vec(), broken: false, mute: BTreeSet::new() });
        self.nets.len() - 1
    }

    /// These two reach each other over these networks.
    pub fn edge(&mut self, ends: [RouterId; 2], nets: &[usize]) {
        self.edges.push(Edge { ends, nets: nets.to_vec() });
    }

    /// True where an edge between the two exists, in whatever state.
    pub fn are_joined(&self, a: RouterId, b: RouterId) -> bool {
        self.edges.iter().any(|edge| edge.ends == [a, b] || edge.ends == [b, a])
    }

    /// The routers that run.
    pub fn running(&self) -> impl Iterator<Item = RouterId> {
        self.hosts.iter().copied().filter(|host| !self.down.contains(host))
    }

    fn is_up(&self, edge: &Edge) -> bool {
        let [a, b] = edge.ends;
        let together = self.apart.contains(&a) == self.apart.contains(&b);
        together && edge.ends.iter().all(|end| !self.down.contains(end)) && edge.nets.iter().all(|net| self.nets[*net].carries(edge.ends))
    }

    /// Whom a router can reach.
    pub fn reach(&self, from: RouterId) -> BTreeSet<RouterId> {
        let (mut found, mut queue) = (BTreeSet::from([from]), vec![from]);
        while let Some(at) = queue.pop() {
            if at != from && self.closed.contains(&at) {
                continue;
            }
            for edge in self.edges.iter().filter(|edge| edge.ends.contains(&at) && self.is_up(edge)) {
                queue.extend(edge.ends.into_iter().filter(|end| found.insert(*end)));
            }
        }
        found.remove(&from);
        found
    }

    /// Pairs of running routers that can reach each other, in one direction or both.
    pub fn pairs(&self) -> Vec<(RouterId, RouterId)> {
        self.running().flat_map(|a| self.reach(a).into_iter().map(move |b| (a, b))).collect()
    }

    /// Pairs of running routers that cannot.
    pub fn strangers(&self) -> Vec<(RouterId, RouterId)> {
        let all: Vec<RouterId> = self.running().collect();
        let others = |a: RouterId| {
            let reach = self.reach(a);
            all.iter().copied().filter(move |b| *b != a && !reach.contains(b)).map(move |b| (a, b)).collect::<Vec<_>>()
        };
        all.iter().flat_map(|a| others(*a)).collect()
    }

    /// Whom routers take for reachable that are not: who, and whom.
    pub fn ghosts(&self, sim: &Sim) -> Vec<(RouterId, RouterId)> {
        self.running().flat_map(|a| sim.reachable(a).difference(&self.reach(a)).map(|b| (a, *b)).collect::<Vec<_>>()).collect()
    }

    /// Whom routers could reach and do not.
    pub fn missing(&self, sim: &Sim) -> Vec<(RouterId, RouterId)> {
        self.running().flat_map(|a| self.reach(a).difference(&sim.reachable(a)).map(|b| (a, *b)).collect::<Vec<_>>()).collect()
    }
}
