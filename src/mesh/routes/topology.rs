//! The graph of the mesh: routers as dense indices in the order of their names, links that both ends advertise.

use std::collections::BTreeSet;
use std::sync::Arc;

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

impl Edge {
    /// What one end says of it.
    fn said(to: u32, link: &LinkEntry) -> Edge {
        Edge { to, cost: link.cost.max(1), max_datagram: link.max_datagram }
    }

    /// Of two that say something of the same link the worse values hold.
    fn worse(self, other: Edge) -> Edge {
        Edge { to: self.to, cost: self.cost.max(other.cost), max_datagram: self.max_datagram.min(other.max_datagram) }
    }
}

/// An immutable graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Shared with the graphs that differ only in links.
    names: Arc<[PeerName]>,
    /// `edges[starts[i]..starts[i + 1]]` are those of router `i`, ascending by the other end.
    starts: Vec<usize>,
    edges: Vec<Edge>,
    /// Routers through which no way leads to others, ascending.
    closed: Arc<[usize]>,
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
            direct(|name| index.find(name), name, links.get(said).unwrap_or_default().iter().copied(), &mut advertised);
            rows.push(start..advertised.len());
        }
        let (mut starts, mut edges) = (Vec::with_capacity(rows.len() + 1), Vec::with_capacity(advertised.len()));
        starts.push(0);
        for (from, row) in rows.iter().enumerate() {
            edges.extend(advertised[row.clone()].iter().filter_map(|edge| {
                let back = &advertised[rows[edge.to as usize].clone()];
                let back = back[back.binary_search_by_key(&from, |edge| edge.to as usize).ok()?];
                Some(edge.worse(back))
            }));
            starts.push(edges.len());
        }
        Topology { names: names.into(), starts, edges, closed: Arc::default() }
    }

    /// The links that the router with this index would have here if it advertised these, by the rule of [`Topology::build`]. `back` is what
    /// another router of the graph advertises of its links with this one.
    pub fn mutual<B: Iterator<Item = LinkEntry>>(
        &self,
        index: usize,
        links: impl Iterator<Item = LinkEntry>,
        back: impl Fn(PeerName) -> B,
    ) -> Vec<Edge> {
        let mut row = Vec::new();
        let find = |name| u32::try_from(self.index(name)?).ok();
        direct(find, self.names[index], links, &mut row);
        row.retain_mut(|edge| {
            let back = back(self.names[edge.to as usize]).map(|link| Edge::said(edge.to, &link)).reduce(Edge::worse);
            back.map(|back| *edge = edge.worse(back)).is_some()
        });
        row
    }

    /// The same graph where the routers with these indices have exactly these links, ascending by the other end, and the other ends have
    /// them too. Two of these routers must agree on the link between them.
    ///
    /// What stays is copied in long pieces, so that a few changes cost little in a large mesh.
    pub fn patched(&self, changed: &[(usize, Vec<Edge>)]) -> Topology {
        let mut steps = Vec::new();
        for (index, row) in changed {
            self.steps(*index, row, &mut steps);
        }
        // Where both ends are among the changed, each has told of the link.
        steps.sort_unstable_by_key(|step| (step.from, step.to));
        steps.dedup_by_key(|step| (step.from, step.to));
        let (mut starts, mut edges) = (Vec::with_capacity(self.starts.len()), Vec::with_capacity(self.edges.len() + steps.len()));
        let mut copied = 0;
        for Step { from, to, edge } in steps {
            // The rows that begin since the last step, that of `from` included, lie as far from where they were as what was copied.
            starts.extend(self.starts[starts.len()..=from].iter().map(|start| start - copied + edges.len()));
            let (start, row) = (self.starts[from], self.edges(from));
            let at = row.partition_point(|edge| (edge.to as usize) < to);
            edges.extend_from_slice(&self.edges[copied..start + at]);
            edges.extend(edge);
            let is_there = row.get(at).is_some_and(|edge| edge.to as usize == to);
            copied = start + at + usize::from(is_there);
        }
        starts.extend(self.starts[starts.len()..].iter().map(|start| start - copied + edges.len()));
        edges.extend_from_slice(&self.edges[copied..]);
        Topology { names: Arc::clone(&self.names), starts, edges, closed: Arc::clone(&self.closed) }
    }

    /// Adds what must happen at both ends so that the router with this index has these links.
    fn steps(&self, index: usize, row: &[Edge], steps: &mut Vec<Step>) {
        let Ok(own) = u32::try_from(index) else { return };
        let find = |row: &[Edge], to: u32| row.binary_search_by_key(&to, |edge| edge.to).ok().map(|at| row[at]);
        let before = self.edges(index);
        let gone = before.iter().filter(|edge| find(row, edge.to).is_none()).map(|edge| (edge.to, None));
        let new = row.iter().filter(|edge| find(before, edge.to) != Some(**edge)).map(|edge| (edge.to, Some(*edge)));
        for (other, edge) in gone.chain(new) {
            steps.push(Step { from: index, to: other as usize, edge });
            steps.push(Step { from: other as usize, to: index, edge: edge.map(|edge| Edge { to: own, ..edge }) });
        }
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

/// What becomes of a link in the row of one end: it is as given from now on, or gone.
struct Step {
    from: usize,
    to: usize,
    edge: Option<Edge>,
}

/// Adds one router's links by index, ascending and each once: of two that name the same neighbour the worse values hold.
fn direct(find: impl Fn(PeerName) -> Option<u32>, from: PeerName, links: impl Iterator<Item = LinkEntry>, all: &mut Vec<Edge>) {
    let edge = |link: LinkEntry| Some(Edge::said(find(link.neighbour).filter(|_| link.neighbour != from)?, &link));
    let start = all.len();
    all.extend(links.filter_map(edge));
    let Some(row) = all.get_mut(start..) else { return };
    row.sort_unstable();
    let mut kept = 0;
    for at in 1..row.len() {
        let later = row[at];
        if later.to == row[kept].to {
            row[kept] = row[kept].worse(later);
        } else {
            kept += 1;
            row[kept] = later;
        }
    }
    all.truncate(all.len().min(start + kept + 1));
}
