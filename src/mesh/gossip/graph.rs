//! The graph that links make: which routers it leads to, and which of them are members whom routes may lead to, and through.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::origins::Origin;
use super::store::Store;
use crate::mesh::routes::Topology;
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::body::{Body, LINKS, LinkEntry, NO_TRANSIT, NODE};

/// So many routers whose links changed are patched into the graph however small it is.
const FEW: usize = 8;
/// And so many of all, one in this number, in a larger one. With 20 links each it was measured that to build anew costs as much where nearly a
/// tenth of all have changed every link; mostly a router changes one or two.
const PART: usize = 8;

impl Store {
    /// The graph that the LINKS records of members make, built where they have changed, or patched where few have. One that comes out the
    /// same is the same, so that what was computed from it stays.
    pub fn topology(&mut self) -> Arc<Topology> {
        let last = self.last_graph();
        if let Some(last) = last.as_ref().filter(|_| self.built_key == Some(self.graph_key)) {
            return Arc::clone(last);
        }
        let patched = || last.as_ref().and_then(|last| self.patched(last));
        let built = self.workshop.topology(self.graph_key, &|| patched().unwrap_or_else(|| self.graph()));
        // Whoever has made it, this is the graph that what changes from now on has to be patched into.
        (self.built_key, self.relinked) = (Some(self.graph_key), Some(BTreeSet::new()));
        let graph = last.filter(|last| *last == built).unwrap_or(built);
        self.topology = (!self.workshop.keeps_graphs()).then(|| Arc::clone(&graph));
        graph
    }

    /// The graph that was built last, where somebody still has it.
    fn last_graph(&self) -> Option<Arc<Topology>> {
        self.topology.clone().or_else(|| self.workshop.graph(self.built_key?))
    }

    /// True where a link that somebody advertised is no more, or a router no member, since this was last asked.
    pub fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.cut)
    }

    /// Somebody is no member any more. What leads there is carried on: all must agree on what they hold.
    pub(super) fn members_changed(&mut self) {
        self.cut = true;
        self.line.dissolve();
        self.origins.keys().copied().collect::<Vec<_>>().into_iter().for_each(|name| self.weigh(name, true));
    }

    /// Brings up to date which origins are reachable, and with that what the tree covers. Whoever may not be a member here is one for
    /// others: all must agree on what they hold.
    pub(super) fn settle(&mut self, now: Time) {
        for name in self.reach.take_changed(&mut self.origins) {
            let Some(origin) = self.origins.get_mut(&name).filter(|_| name != self.own) else { continue };
            match (origin.is_reached(), origin.unreachable_since) {
                (true, Some(_)) => {
                    origin.meet();
                    self.unreached.remove(&name);
                    origin.records.values().for_each(|record| self.tree.insert(record));
                }
                (false, None) => {
                    origin.unreachable_since = Some(now);
                    self.unreached.insert(name);
                    self.line.nobody = false;
                    origin.records.values().for_each(|record| self.tree.remove(record));
                }
                (true, None) | (false, Some(_)) => {}
            }
        }
    }

    /// True where links lead to a router, as of the newest that were heard of.
    pub(super) fn is_reached(&self, name: PeerName) -> bool {
        self.origins.get(&name).is_some_and(Origin::is_reached)
    }

    /// The routers of the graph, as they were weighed.
    fn in_graph(&self) -> impl Iterator<Item = (&PeerName, &Origin)> {
        self.origins.iter().filter(|(_, origin)| origin.weighs)
    }

    fn is_in_graph(&self, name: PeerName, origin: &Origin) -> bool {
        name == self.own || origin.left().is_none() && self.allows(origin)
    }

    fn graph(&self) -> Topology {
        let mut closed: Vec<PeerName> = Vec::new();
        let built = Topology::build(self.in_graph().map(|(name, origin)| {
            closed.extend(origin.closed.then_some(*name));
            (*name, links_in(origin).copied())
        }));
        if closed.is_empty() { built } else { built.closed_to_transit(|name| closed.binary_search(&name).is_ok()) }
    }

    /// The last graph with the links that changed since; `None` where more has changed, or so many that it is not worth it.
    fn patched(&self, graph: &Topology) -> Option<Topology> {
        let relinked = self.relinked.as_ref()?;
        if relinked.len() > FEW.max(graph.names().len() / PART) {
            return None;
        }
        let row = |name: &PeerName| {
            let (index, origin) = (graph.index(*name)?, self.origins.get(name)?);
            let back = |other| self.origins.get(&other).into_iter().flat_map(|origin| links_with(origin, *name)).copied();
            Some((index, graph.mutual(index, links_in(origin).copied(), back)))
        };
        let rows: Option<Vec<_>> = relinked.iter().map(row).collect();
        Some(graph.patched(&rows?))
    }

    /// Takes a router that is forgotten out of the graph.
    pub(super) fn unweigh(&mut self, origin: &Origin) {
        self.graph_key = self.graph_key.wrapping_sub(origin.in_graph);
        if origin.weighs {
            self.relinked = None;
        }
    }

    /// Brings up to date what a router is in the graph, where more than its links is `anew`.
    pub(super) fn weigh(&mut self, name: PeerName, anew: bool) {
        let Some(origin) = self.origins.get(&name) else { return };
        let closed = if anew { is_closed(origin) } else { origin.closed };
        let weighs = self.is_in_graph(name, origin);
        let is = if weighs { weight(name, origin, closed) } else { 0 };
        if let Some(origin) = self.origins.get_mut(&name) {
            self.graph_key = self.graph_key.wrapping_sub(origin.in_graph).wrapping_add(is);
            if origin.weighs.then_some(origin.closed) != weighs.then_some(closed) {
                self.relinked = None;
            } else if let Some(relinked) = self.relinked.as_mut().filter(|_| weighs && (is != origin.in_graph || !anew)) {
                relinked.insert(name);
            }
            (origin.in_graph, origin.weighs, origin.closed) = (is, weighs, closed);
        }
    }
}

/// A number for what a router says of its links, and of those of others that may lead through it.
fn weight(name: PeerName, origin: &Origin, closed: bool) -> u64 {
    let name = name.to_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Another number, not another summand, or it would be the same whichever router is closed.
    let name = if closed { name.rotate_left(17) } else { name };
    origin.records.of(LINKS).iter().fold(name, |key, (_, record)| key.wrapping_add(record.edition().digest))
}

/// True where a router says that it passes nothing on.
fn is_closed(origin: &Origin) -> bool {
    origin.bodies(NODE).next().is_some_and(|body| matches!(body, Body::Node(node) if node.features & NO_TRANSIT != 0))
}

/// The links that a router advertises.
pub(super) fn links_in(origin: &Origin) -> impl Iterator<Item = &LinkEntry> {
    origin.bodies(LINKS).flat_map(|body| match body {
        Body::Links(links, _) => links.as_slice(),
        _ => &[],
    })
}

/// Those of them that are with one neighbour: there may be one in each chunk, which are sorted.
pub(super) fn links_with(origin: &Origin, neighbour: PeerName) -> impl Iterator<Item = &LinkEntry> {
    origin.bodies(LINKS).filter_map(move |body| match body {
        Body::Links(links, _) => links.get(links.binary_search_by_key(&neighbour, |link| link.neighbour).ok()?),
        _ => None,
    })
}
