//! The graph of the mesh: routers as dense indices in the order of their names, links that both ends advertise.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use crate::forward::fib::NameHash;
use crate::wire::PeerName;
use crate::wire::body::LinkEntry;

/// A link, seen from one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// Index of the other end: far more than there is room for in a store. There are as many of these as links and routers that keep them.
    pub to: u16,
    /// The larger of both ends' costs, at least 1.
    pub cost: u32,
    /// The smaller of both ends' largest UDP payloads, in bytes.
    pub max_datagram: u16,
}

impl Edge {
    /// What one end says of it.
    fn said(to: u16, link: &LinkEntry) -> Edge {
        Edge { to, cost: link.cost.max(1), max_datagram: link.max_datagram }
    }

    /// Of two that say something of the same link the worse values hold.
    fn worse(self, other: Edge) -> Edge {
        Edge { to: self.to, cost: self.cost.max(other.cost), max_datagram: self.max_datagram.min(other.max_datagram) }
    }
}

/// Routers whose links lie in one [`Block`].
const ROWS: usize = 64;

/// The links of some routers that follow each other, in one piece, which graphs that differ elsewhere share.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Where the links of each router end, and those of the next begin.
    ends: [u32; ROWS],
    /// Those of one router ascend by the other end.
    edges: Box<[Edge]>,
}

impl Block {
    /// The links of as many routers as this yields; of those beyond there are none.
    fn new<R: Iterator<Item = Edge>>(rows: impl Iterator<Item = R>, room: usize) -> Block {
        let (mut ends, mut edges) = ([0; ROWS], Vec::with_capacity(room));
        let mut rows = rows.fuse();
        for end in &mut ends {
            edges.extend(rows.next().into_iter().flatten());
            *end = count(edges.len());
        }
        Block { ends, edges: edges.into() }
    }

    fn start(&self, row: usize) -> usize {
        row.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }

    fn row(&self, row: usize) -> &[Edge] {
        &self.edges[self.start(row)..self.ends[row] as usize]
    }

    /// The same after these steps, which ascend. What stays is copied in long pieces.
    fn after(&self, steps: &[Step]) -> Block {
        let (mut ends, mut edges) = (self.ends, Vec::with_capacity(self.edges.len() + steps.len()));
        let (mut copied, mut row) = (0, 0);
        for Step { from, to, edge } in steps {
            let from = from % ROWS;
            // Rows that end since the last step lie as far from where they were as what was copied.
            let moved = |end: u32| count(end as usize - copied + edges.len());
            ends[row..from].iter_mut().for_each(|end| *end = moved(*end));
            row = from;
            let links = self.row(row);
            let at = links.partition_point(|edge| (edge.to as usize) < *to);
            edges.extend_from_slice(&self.edges[copied..self.start(row) + at]);
            edges.extend(edge);
            let is_there = links.get(at).is_some_and(|edge| edge.to as usize == *to);
            copied = self.start(row) + at + usize::from(is_there);
        }
        let moved = |end: u32| count(end as usize - copied + edges.len());
        ends[row..].iter_mut().for_each(|end| *end = moved(*end));
        edges.extend_from_slice(&self.edges[copied..]);
        Block { ends, edges: edges.into() }
    }

    /// A number for what it holds: blocks of different numbers differ.
    pub fn digest(&self) -> u64 {
        let mut hasher = NameHash(0).build_hasher();
        self.ends.iter().for_each(|end| hasher.write_u32(*end));
        let word = |edge: &Edge| u64::from(edge.to) << 40 ^ u64::from(edge.cost) << 16 ^ u64::from(edge.max_datagram);
        self.edges.iter().for_each(|edge| hasher.write_u64(word(edge)));
        hasher.finish()
    }
}

fn count(edges: usize) -> u32 {
    u32::try_from(edges).expect("the records of so many links would fill more memory than there is")
}

/// An immutable graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Shared with the graphs that differ only in links.
    names: Arc<[PeerName]>,
    /// The links of the first [`ROWS`] routers, those of the next, and so on.
    blocks: Vec<Arc<Block>>,
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
        let mutual = |from: usize| {
            let (advertised, rows) = (&advertised, &rows);
            advertised[rows[from].clone()].iter().filter_map(move |edge| {
                let back = &advertised[rows[edge.to as usize].clone()];
                let back = back[back.binary_search_by_key(&from, |edge| edge.to as usize).ok()?];
                Some(edge.worse(back))
            })
        };
        let block = |first: usize| {
            let all = first..(first + ROWS).min(rows.len());
            let room = rows[all.clone()].iter().map(ExactSizeIterator::len).sum();
            Arc::new(Block::new(all.map(mutual), room))
        };
        let blocks = (0..rows.len()).step_by(ROWS).map(block).collect();
        Topology { names: names.into(), blocks, closed: Arc::default() }
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
        let find = |name| u16::try_from(self.index(name)?).ok();
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
    /// Blocks in which nothing changes are shared with this one.
    pub fn patched(&self, changed: &[(usize, Vec<Edge>)]) -> Topology {
        let mut steps = Vec::new();
        for (index, row) in changed {
            self.steps(*index, row, &mut steps);
        }
        // Where both ends are among the changed, each has told of the link.
        steps.sort_unstable_by_key(|step| (step.from, step.to));
        steps.dedup_by_key(|step| (step.from, step.to));
        let mut blocks = self.blocks.clone();
        for steps in steps.chunk_by(|one, next| one.from / ROWS == next.from / ROWS) {
            if let Some(block) = steps.first().and_then(|step| blocks.get_mut(step.from / ROWS)) {
                *block = Arc::new(block.after(steps));
            }
        }
        Topology { names: Arc::clone(&self.names), blocks, closed: Arc::clone(&self.closed) }
    }

    /// The same with other copies of those blocks that no other graph shares, as `copy` tells: many graphs of one process that were made
    /// one by one may hold the same ones.
    pub fn with_shared(mut self, copy: impl Fn(Arc<Block>) -> Arc<Block>) -> Topology {
        for block in self.blocks.iter_mut().filter(|block| Arc::strong_count(block) == 1) {
            *block = copy(Arc::clone(block));
        }
        self
    }

    /// The blocks that it does not share with another graph.
    #[cfg(test)]
    pub(super) fn blocks_of_its_own(&self, other: &Topology) -> BTreeSet<usize> {
        let pairs = self.blocks.iter().zip(&other.blocks).enumerate();
        pairs.filter(|(_, (one, two))| !Arc::ptr_eq(one, two)).map(|(at, _)| at).collect()
    }

    /// Adds what must happen at both ends so that the router with this index has these links.
    fn steps(&self, index: usize, row: &[Edge], steps: &mut Vec<Step>) {
        let Ok(own) = u16::try_from(index) else { return };
        let find = |row: &[Edge], to: u16| row.binary_search_by_key(&to, |edge| edge.to).ok().map(|at| row[at]);
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

    /// The same for whoever keeps them.
    pub fn shared_names(&self) -> Arc<[PeerName]> {
        Arc::clone(&self.names)
    }

    /// The index of a router.
    pub fn index(&self, name: PeerName) -> Option<usize> {
        self.names.binary_search(&name).ok()
    }

    /// The links of the router with this index, ascending by the other end; none where there is no such router.
    pub fn edges(&self, index: usize) -> &[Edge] {
        self.blocks.get(index / ROWS).map_or(&[], |block| block.row(index % ROWS))
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

    fn find(&self, name: PeerName) -> Option<u16> {
        let (number, bits) = (name.to_u64(), (name.to_u64() >> self.shift) as usize);
        let (start, end) = (self.starts[bits], self.starts[bits + 1]);
        let near = self.numbers.get(start as usize..end as usize)?;
        let at = near.binary_search(&number).ok()?;
        u16::try_from(start as usize + at).ok()
    }
}

/// What becomes of a link in the row of one end: it is as given from now on, or gone.
struct Step {
    from: usize,
    to: usize,
    edge: Option<Edge>,
}

/// Adds one router's links by index, ascending and each once: of two that name the same neighbour the worse values hold.
fn direct(find: impl Fn(PeerName) -> Option<u16>, from: PeerName, links: impl Iterator<Item = LinkEntry>, all: &mut Vec<Edge>) {
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
