//! Shortest paths, and next hops that stand in for the best one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::topology::Topology;

/// Alternates of a router are looked for among this many first hops with the shortest paths to it: enough that one is nearly
/// always found, few enough for large meshes.
const CANDIDATES: usize = 4;

/// How a shortest path reaches a router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub(super) cost: u64,
    pub(super) hops: u16,
    pub(super) max_datagram: u16,
    /// The router before; `None` at the source.
    pub(super) parent: Option<usize>,
    /// The router after the source; `None` at the source.
    pub(super) first_hop: Option<usize>,
}

/// Shortest paths from one router, by index.
pub(super) struct Tree {
    labels: Vec<Option<Label>>,
}

impl Tree {
    /// How the router with this index is reached; `None` where it is not.
    pub(super) fn get(&self, index: usize) -> Option<&Label> {
        self.labels.get(index)?.as_ref()
    }
}

/// Dijkstra's algorithm by (cost, hops), ties by the lowest index of the parent.
pub(super) fn shortest(topology: &Topology, source: usize) -> Tree {
    let mut labels: Vec<Option<Label>> = vec![None; topology.names().len()];
    let mut heap = BinaryHeap::new();
    if let Some(label) = labels.get_mut(source) {
        *label = Some(Label { cost: 0, hops: 0, max_datagram: u16::MAX, parent: None, first_hop: None });
        heap.push(Reverse((0, 0, source)));
    }
    while let Some(Reverse((cost, hops, from))) = heap.pop() {
        let Some(reached) = labels[from].filter(|label| (label.cost, label.hops) == (cost, hops)) else { continue };
        for edge in topology.edges(from) {
            let to = edge.to as usize;
            let key = (cost + u64::from(edge.cost), hops.saturating_add(1));
            let better = match &labels[to] {
                None => true,
                Some(label) => (key, Some(from)) < ((label.cost, label.hops), label.parent),
            };
            if better {
                let is_tie = labels[to].is_some_and(|label| (label.cost, label.hops) == key);
                labels[to] = Some(Label {
                    cost: key.0,
                    hops: key.1,
                    max_datagram: reached.max_datagram.min(edge.max_datagram),
                    parent: Some(from),
                    first_hop: reached.first_hop.or(Some(to)),
                });
                if !is_tie {
                    heap.push(Reverse((key.0, key.1, to)));
                }
            }
        }
    }
    Tree { labels }
}

/// A way to a router: (cost from the source, index of the neighbour it starts with).
type Way = (u64, u32);

/// For each router the loop-free alternate next hop of `source`, where one is found.
///
/// One search starts at all neighbours at once, with the source taken out, and keeps for each router the best ways that
/// start with different neighbours. A neighbour N whose way to D avoids the source has found `dist(N, D)` if that is below
/// `dist(N, S) + dist(S, D)`, as no shorter way could lead through S; so the test is exact.
pub(super) fn alternates(topology: &Topology, source: usize, tree: &Tree) -> Vec<Option<usize>> {
    let mut ways = vec![[(u64::MAX, u32::MAX); CANDIDATES]; topology.names().len()];
    let mut heap = BinaryHeap::new();
    for edge in topology.edges(source) {
        let way = (u64::from(edge.cost), edge.to);
        if enter(&mut ways[edge.to as usize], way) {
            heap.push(Reverse((way, edge.to)));
        }
    }
    while let Some(Reverse((way, at))) = heap.pop() {
        if !ways[at as usize].contains(&way) {
            continue;
        }
        for edge in topology.edges(at as usize).iter().filter(|edge| edge.to as usize != source) {
            let further = (way.0 + u64::from(edge.cost), way.1);
            if enter(&mut ways[edge.to as usize], further) {
                heap.push(Reverse((further, edge.to)));
            }
        }
    }
    let mut link_costs = vec![0; topology.names().len()];
    topology.edges(source).iter().for_each(|edge| link_costs[edge.to as usize] = u64::from(edge.cost));
    let alternate = |(target, ways): (usize, [Way; CANDIDATES])| {
        let direct = tree.get(target)?;
        let mut neighbours = ways.into_iter().filter(|way| way.0 != u64::MAX).map(|(cost, neighbour)| (cost, neighbour as usize));
        let is_loop_free = |cost: u64, neighbour: usize| {
            tree.get(neighbour).is_some_and(|back| cost - link_costs[neighbour] < back.cost + direct.cost)
                && direct.first_hop != Some(neighbour)
        };
        neighbours.find(|(cost, neighbour)| is_loop_free(*cost, *neighbour)).map(|(_, neighbour)| neighbour)
    };
    ways.into_iter().enumerate().map(alternate).collect()
}

/// Enters a way among the best, ascending, one per neighbour; false where it is not one of them.
fn enter(ways: &mut [Way; CANDIDATES], way: Way) -> bool {
    let mut at = ways.iter().position(|kept| kept.1 == way.1).unwrap_or(CANDIDATES - 1);
    if ways[at] <= way {
        return false;
    }
    ways[at] = way;
    while at > 0 && ways[at - 1] > way {
        ways.swap(at - 1, at);
        at -= 1;
    }
    true
}
