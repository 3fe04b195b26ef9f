//! The graph of the mesh: routers as dense indices in the order of their names, links that both ends advertise.

use std::collections::BTreeSet;

use crate::wire::PeerName;
use crate::wire::body::LinkEntry;

/// A link, seen from one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// Index of the other end.
    pub to: u32,
    /// The larger of both ends' costs, at least 1.
    pub cost: u32,
    /// The smaller of both ends' largest UDP payloads, in bytes.
    pub max_datagram: u16,
}

/// An immutable graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    names: Vec<PeerName>,
    /// `edges[starts[i]..starts[i + 1]]` are those of router `i`, ascending by the other end.
    starts: Vec<usize>,
    edges: Vec<Edge>,
    /// Routers through which no way leads to others, ascending.
    closed: Vec<usize>,
}

impl Topology {
    /// Builds the graph from what each router advertises.
    pub fn build<L: Iterator<Item = LinkEntry>>(routers: impl Iterator<Item = (PeerName, L)>) -> Topology {
        let (mut all, mut links) = (Vec::new(), Vec::new());
        for (name, said) in routers {
            let start = links.len();
            links.extend(said);
            all.push((name, start..links.len()));
        }
        all.sort_by_key(|(name, _)| *name);
        all.dedup_by_key(|(name, _)| *name);
        let names: Vec<PeerName> = all.iter().map(|(name, _)| *name).collect();
        let index = Index::new(&names);
        // What all advertise, in one piece: `rows[i]` is that of router `i`.
        let (mut advertised, mut rows) = (Vec::with_capacity(links.len()), Vec::with_capacity(all.len()));
        for (name, said) in all {
            let start = advertised.len();
            direct(&index, name, links.get(said).unwrap_or_default(), &mut advertised);
            rows.push(start..advertised.len());
        }
        let (mut starts, mut edges) = (Vec::with_capacity(rows.len() + 1), Vec::with_capacity(advertised.len()));
        starts.push(0);
        for (from, row) in rows.iter().enumerate() {
            edges.extend(advertised[row.clone()].iter().filter_map(|edge| {
                let back = &advertised[rows[edge.to as usize].clone()];
                let back = back[back.binary_search_by_key(&from, |edge| edge.to as usize).ok()?];
                let (cost, max_datagram) = (edge.cost.max(back.cost), edge.max_datagram.min(back.max_datagram));
                Some(Edge { to: edge.to, cost, max_datagram })
            }));
            starts.push(edges.len());
        }
        Topology { names, starts, edges, closed: Vec::new() }
    }

    /// The same, where those routers pass nothing on for others: ways may begin and end there.
    pub fn closed_to_transit(self, is_closed: impl Fn(PeerName) -> bool) -> Topology {
        let closed = self.names.iter().enumerate().filter(|(_, name)| is_closed(**name)).map(|(index, _)| index).collect();
        Topology { closed, ..self }
    }

    /// The links over which a way from `source` may go on from the router with this index.
    pub fn onward(&self, source: usize, index: usize) -> &[Edge] {
        if index != source && self.closed.binary_search(&index).is_ok() { &[] } else { self.edges(index) }
    }

    /// The routers, ascending by name; a router's place is its index.
    pub fn names(&self) -> &[PeerName] {
        &self.names
    }

    /// The index of a router.
    pub fn index(&self, name: PeerName) -> Option<usize> {
        self.names.binary_search(&name).ok()
    }

    /// The links of the router with this index, ascending by the other end; none where there is no such router.
    pub fn edges(&self, index: usize) -> &[Edge] {
        match (self.starts.get(index), self.starts.get(index + 1)) {
            (Some(start), Some(end)) => &self.edges[*start..*end],
            _ => &[],
        }
    }

    /// Every router to which links lead from `name`, and `name` itself.
    pub fn reachable_from(&self, name: PeerName) -> BTreeSet<PeerName> {
        let Some(start) = self.index(name) else { return BTreeSet::from([name]) };
        let mut seen = vec![false; self.names.len()];
        seen[start] = true;
        let mut queue = vec![start];
        while let Some(index) = queue.pop() {
            for edge in self.edges(index) {
                if !std::mem::replace(&mut seen[edge.to as usize], true) {
                    queue.push(edge.to as usize);
                }
            }
        }
        self.names.iter().zip(seen).filter(|(_, seen)| *seen).map(|(name, _)| *name).collect()
    }
}

/// Where names are among all, ascending. They are hashes, so their first bits tell about where to look.
struct Index {
    numbers: Vec<u64>,
    /// Those with the same first bits are `numbers[starts[bits]..starts[bits + 1]]`.
    starts: Vec<u32>,
    shift: u32,
}

impl Index {
    fn new(names: &[PeerName]) -> Index {
        let numbers: Vec<u64> = names.iter().map(|name| name.to_u64()).collect();
        // Two bits are the same in all names.
        let bits = (numbers.len().max(1).ilog2() + 3).min(24);
        let shift = 48 - bits;
        let mut starts = vec![0; (1 << bits) + 1];
        for number in &numbers {
            starts[(number >> shift) as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        Index { numbers, starts, shift }
    }

    fn find(&self, name: PeerName) -> Option<u32> {
        let (number, bits) = (name.to_u64(), (name.to_u64() >> self.shift) as usize);
        let (start, end) = (self.starts[bits], self.starts[bits + 1]);
        let near = self.numbers.get(start as usize..end as usize)?;
        let at = near.binary_search(&number).ok()?;
        Some(start + u32::try_from(at).ok()?)
    }
}

/// Adds one router's links by index, ascending and each once: of two that name the same neighbour the worse values hold.
fn direct(index: &Index, from: PeerName, links: &[LinkEntry], all: &mut Vec<Edge>) {
    let edge = |link: &LinkEntry| {
        let to = index.find(link.neighbour).filter(|_| link.neighbour != from)?;
        Some(Edge { to, cost: link.cost.max(1), max_datagram: link.max_datagram })
    };
    let start = all.len();
    all.extend(links.iter().filter_map(edge));
    let Some(row) = all.get_mut(start..) else { return };
    row.sort_unstable();
    let mut kept = 0;
    for at in 1..row.len() {
        let later = row[at];
        if later.to == row[kept].to {
            row[kept].cost = row[kept].cost.max(later.cost);
            row[kept].max_datagram = row[kept].max_datagram.min(later.max_datagram);
        } else {
            kept += 1;
            row[kept] = later;
        }
    }
    all.truncate(all.len().min(start + kept + 1));
}
