//! Shortest paths, and next hops that stand in for the best one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::topology::{Edge, Topology};
use crate::forward::fib::MOST_HOPS;

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

/// The same in as little room as it takes, since the search goes to and fro among all of them.
#[derive(Clone, Copy)]
struct Reached {
    /// Cost and below that hops: a cost is below 2²⁴ and a way leads to each router once, so 48 bits are enough for their sum.
    key: u64,
    parent: u32,
    first_hop: u32,
    max_datagram: u16,
}

/// No router has this index.
const NOBODY: u32 = u32::MAX;
/// What one more hop adds to a key, which has room for so many.
const HOP: u64 = 1;
const HOPS: u64 = 0xffff;

impl Reached {
    const NOT: Reached = Reached { key: u64::MAX, parent: NOBODY, first_hop: NOBODY, max_datagram: 0 };

    fn onward(self, edge: &Edge) -> u64 {
        let hop = if self.key & HOPS == HOPS { 0 } else { HOP };
        self.key + (u64::from(edge.cost) << 16) + hop
    }
}

/// Shortest paths from one router, by index.
pub(super) struct Tree {
    reached: Vec<Reached>,
}

impl Tree {
    /// How the router with this index is reached; `None` where it is not.
    pub(super) fn get(&self, index: usize) -> Option<Label> {
        let reached = self.reached.get(index).filter(|reached| reached.key != u64::MAX)?;
        let router = |index: u32| (index != NOBODY).then_some(index as usize);
        Some(Label {
            cost: reached.key >> 16,
            hops: (reached.key & HOPS) as u16,
            max_datagram: reached.max_datagram,
            parent: router(reached.parent),
            first_hop: router(reached.first_hop),
        })
    }
}

/// Dijkstra's algorithm by (cost, hops), ties by the lowest index of the parent.
pub(super) fn shortest(topology: &Topology, source: usize) -> Tree {
    let mut all = vec![Reached::NOT; topology.names().len()];
    let mut heap = BinaryHeap::with_capacity(all.len());
    if let (Some(start), Ok(index)) = (all.get_mut(source), u32::try_from(source)) {
        *start = Reached { key: 0, max_datagram: u16::MAX, ..Reached::NOT };
        heap.push(Reverse((0, index)));
    }
    while let Some(Reverse((key, from))) = heap.pop() {
        let reached = all[from as usize];
        if reached.key != key {
            continue;
        }
        for edge in topology.onward(source, from as usize) {
            let (to, key) = (u32::from(edge.to), reached.onward(edge));
            let known = &mut all[to as usize];
            if (key, from) >= (known.key, known.parent) {
                continue;
            }
            let is_tie = known.key == key;
            let first_hop = if reached.first_hop == NOBODY { to } else { reached.first_hop };
            *known = Reached { key, parent: from, first_hop, max_datagram: reached.max_datagram.min(edge.max_datagram) };
            if !is_tie {
                heap.push(Reverse((key, to)));
            }
        }
    }
    Tree { reached: all }
}

/// Next hops that are equally good, each with the largest datagram that one of the shortest paths through it carries.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Equals {
    hops: [(usize, u16); MOST_HOPS],
    count: usize,
}

impl Equals {
    /// The next hops whose paths carry the largest datagrams, ascending, and that size. Those with less are left out, so that a size which
    /// is good for one flow is good for all.
    pub(super) fn widest(&self) -> (Vec<usize>, u16) {
        let hops = self.hops.get(..self.count).unwrap_or_default();
        let widest = hops.iter().map(|(_, width)| *width).max().unwrap_or_default();
        let mut best: Vec<usize> = hops.iter().filter(|(_, width)| *width == widest).map(|(hop, _)| *hop).collect();
        best.sort_unstable();
        (best, widest)
    }

    fn enter(&mut self, hop: usize, width: u16) {
        let known = self.hops.iter_mut().take(self.count).find(|(known, _)| *known == hop);
        match (known, self.count < MOST_HOPS) {
            (Some(known), _) => known.1 = known.1.max(width),
            (None, true) => {
                self.hops[self.count] = (hop, width);
                self.count += 1;
            }
            (None, false) => {
                if let Some(narrowest) = self.hops.iter_mut().min_by_key(|(_, width)| *width).filter(|narrowest| narrowest.1 < width) {
                    *narrowest = (hop, width);
                }
            }
        }
    }
}

/// For each router the next hops of `source` on all shortest paths to it, up to [`MOST_HOPS`].
///
/// All of them are nearer to the router than `source` is, by (cost, hops), which is the same seen from both ends; so whichever of them each
/// router on the way picks, nothing loops.
pub(super) fn equals(topology: &Topology, source: usize, tree: &Tree) -> Vec<Equals> {
    let mut found = vec![Equals::default(); topology.names().len()];
    let mut order: Vec<usize> = (0..found.len()).filter(|index| tree.get(*index).is_some()).collect();
    let key = |index: usize| tree.get(index).map(|label| (label.cost, label.hops));
    order.sort_unstable_by_key(|index| key(*index));
    for at in order {
        let Some((cost, hops)) = key(at) else { continue };
        let before = found[at];
        for edge in topology.onward(source, at) {
            let to = edge.to as usize;
            if key(to) != Some((cost + u64::from(edge.cost), hops.saturating_add(1))) {
                continue;
            }
            match at == source {
                true => found[to].enter(to, edge.max_datagram),
                false => {
                    before.hops.iter().take(before.count).for_each(|(hop, width)| found[to].enter(*hop, edge.max_datagram.min(*width)))
                }
            }
        }
    }
    found
}

/// A way to a router: (cost from the source, index of the neighbour it starts with).
type Way = (u64, u32);

/// For each router the loop-free alternate next hop of `source`, where one is found: none of those that share the flows, `equals`, unless
/// there is but one of these that is not the first.
///
/// One search starts at all neighbours at once, with the source taken out, and keeps for each router the best ways that
/// start with different neighbours. A neighbour N whose way to D avoids the source has found `dist(N, D)` if that is below
/// `dist(N, S) + dist(S, D)`, as no shorter way could lead through S; so the test is exact.
pub(super) fn alternates(topology: &Topology, source: usize, tree: &Tree, equals: &[Vec<usize>]) -> Vec<Option<usize>> {
    let mut ways = vec![[(u64::MAX, u32::MAX); CANDIDATES]; topology.names().len()];
    let mut heap = BinaryHeap::new();
    for edge in topology.edges(source) {
        let way = (u64::from(edge.cost), u32::from(edge.to));
        if enter(&mut ways[edge.to as usize], way) {
            heap.push(Reverse((way, u32::from(edge.to))));
        }
    }
    while let Some(Reverse((way, at))) = heap.pop() {
        if !ways[at as usize].contains(&way) {
            continue;
        }
        for edge in topology.onward(source, at as usize).iter().filter(|edge| edge.to as usize != source) {
            let further = (way.0 + u64::from(edge.cost), way.1);
            if enter(&mut ways[edge.to as usize], further) {
                heap.push(Reverse((further, u32::from(edge.to))));
            }
        }
    }
    let mut link_costs = vec![0; topology.names().len()];
    topology.edges(source).iter().for_each(|edge| link_costs[edge.to as usize] = u64::from(edge.cost));
    let alternate = |(target, ways): (usize, [Way; CANDIDATES])| {
        let direct = tree.get(target)?;
        let equal = equals.get(target).map_or(&[][..], Vec::as_slice);
        let neighbours = ways.into_iter().filter(|way| way.0 != u64::MAX).map(|(cost, neighbour)| (cost, neighbour as usize));
        let is_loop_free = |cost: u64, neighbour: usize| {
            tree.get(neighbour).is_some_and(|back| cost - link_costs[neighbour] < back.cost + direct.cost)
                && equal.first() != Some(&neighbour)
        };
        let mut found = neighbours.filter(|(cost, neighbour)| is_loop_free(*cost, *neighbour)).map(|(_, neighbour)| neighbour);
        let first = found.next()?;
        Some(if equal.contains(&first) { found.find(|other| !equal.contains(other)).unwrap_or(first) } else { first })
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
