//! The ring: who owns which addresses, as a set of signed entries that only grows.
//!
//! Merging two rings is the union of their sets, so order and repetition mean nothing; whether an entry may be in the set depends on nothing but
//! the entries it names, which must be there before it. What the set says is computed from it: the genesis divides the ranges; a grant cuts a part
//! off what its author was given; what is taken from the dead wins over grants that nobody had heard of when it was taken. Two grants
//! of one author over the same address are possible only where its disk went back in time, or where it lies: that address is *disputed*, and nobody gives
//! anything of it any more. How much one author may put in is bounded (`accounts`).
//!
//! It does not shrink: each entry is the proof of those after it, and one that was left out here would come back with the next router that was away. A
//! million operations of fifty routers make some thirty thousand entries; a ring that is nearly full says so and is founded anew.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::leaves::{Leaf, Leaves, Owner};
use crate::crypto::PublicKey;
use crate::wire::PeerName;
use crate::wire::ipam::message::BUCKETS;
use crate::wire::ipam::{Body, Entry, EntryId, Founders, Range};

/// Most entries of a ring, some 2 MB: a mesh of a thousand routers needs a few thousand.
pub const MAX_ENTRIES: usize = 16_384;
/// So many are said to be too many soon.
pub const MANY_ENTRIES: usize = MAX_ENTRIES / 4 * 3;

mod accounts;
mod judge;
mod removals;
#[cfg(test)]
mod tests;

use accounts::Accounts;
use removals::{Removal, Removals};

pub use accounts::{MOST_OF_ONE, MOST_OF_STRANGERS, MOST_TO_GIVE, MOST_TO_TAKE, rests_on};
pub use judge::TALLIES;

/// Why an entry does not come into the ring, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It belongs to another mesh.
    #[error("it belongs to a mesh that was founded apart from this one")]
    Mesh,
    /// Its signature does not hold.
    #[error("its signature does not hold")]
    Signature,
    /// Its author does not own what it speaks of.
    #[error("its author does not own what it speaks of")]
    Author,
    /// Its range is not part of what it is taken from.
    #[error("its range is not part of what it is taken from")]
    Range,
    /// The votes it names do not carry it.
    #[error("the votes it names do not carry it")]
    Votes,
    /// The ring is full.
    #[error("the ring is full ({MAX_ENTRIES} entries)")]
    Full,
    /// Its author has put in as many as one may.
    #[error("its author has put in as many entries as one router may ({MOST_OF_ONE}; all that own nothing together {MOST_OF_STRANGERS})")]
    Budget,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is new.
    Added,
    /// It was there.
    Known,
    /// Something it names is not there yet.
    Waiting,
}

/// An entry by which somebody owns addresses.
struct Node {
    shares: Vec<(Range, Owner)>,
    giver: Option<PeerName>,
    taken: bool,
    children: BTreeSet<EntryId>,
}

/// The ring of one mesh.
pub struct Ring {
    genesis: Arc<Entry>,
    /// By name, with the place in the order in which they came.
    entries: BTreeMap<EntryId, (usize, Arc<Entry>)>,
    order: Vec<Arc<Entry>>,
    in_bucket: Vec<Vec<EntryId>>,
    nodes: BTreeMap<EntryId, Node>,
    leaves: Leaves,
    ever: BTreeSet<PeerName>,
    /// Everybody who owns something, computed when it is asked for.
    owners: OnceCell<BTreeSet<PeerName>>,
    removals: Removals,
    /// What each author has put in.
    accounts: Accounts,
    votes: BTreeMap<(PeerName, u32), Vec<EntryId>>,
    /// Sums over all that each router gave and all that was taken from it.
    knowledge: BTreeMap<PeerName, u128>,
    /// Counts changes of who owns what, and of what is held back.
    version: u64,
    sum: u128,
    buckets: Box<[u64; BUCKETS]>,
}

impl Ring {
    /// The ring that a genesis makes; `None` for an entry that is none. The signature is the caller's to check.
    pub fn new(genesis: Entry) -> Option<Ring> {
        let Body::Genesis { ranges, founders, .. } = &genesis.body else { return None };
        let owners: Vec<Owner> = match founders {
            Founders::Keys(keys) if !keys.contains(&genesis.author) => return None,
            Founders::Keys(keys) => keys.iter().copied().map(Owner::of_key).collect(),
            Founders::Seeds(names) => names.iter().copied().map(Owner::of_name).collect(),
        };
        let shares = ranges.iter().flat_map(|range| divide(*range, &owners)).collect();
        let genesis = Arc::new(genesis);
        let mut ring = Ring {
            genesis: genesis.clone(),
            entries: BTreeMap::new(),
            order: Vec::new(),
            in_bucket: vec![Vec::new(); BUCKETS],
            nodes: BTreeMap::new(),
            leaves: Leaves::default(),
            ever: BTreeSet::new(),
            owners: OnceCell::new(),
            removals: Removals::default(),
            accounts: Accounts::default(),
            votes: BTreeMap::new(),
            knowledge: BTreeMap::new(),
            version: 0,
            sum: 0,
            buckets: Box::new([0; BUCKETS]),
        };
        ring.keep(&genesis);
        ring.plant(None, genesis.id(), Node { shares, giver: None, taken: false, children: BTreeSet::new() });
        Some(ring)
    }

    /// Puts an entry into the ring if everything about it is right; otherwise nothing changes. `verify` checks its signature.
    pub fn insert(&mut self, entry: Entry, verify: impl FnOnce(&Entry) -> bool) -> Result<Outcome, Refused> {
        self.put_in(entry, false, verify)
    }

    /// The same for an entry that is there already, or without which one of another author cannot be: what its author has put in does not count.
    pub fn insert_beyond(&mut self, entry: Entry, verify: impl FnOnce(&Entry) -> bool) -> Result<Outcome, Refused> {
        self.put_in(entry, true, verify)
    }

    fn put_in(&mut self, entry: Entry, beyond: bool, verify: impl FnOnce(&Entry) -> bool) -> Result<Outcome, Refused> {
        if entry.mesh != self.mesh() {
            return Err(Refused::Mesh);
        }
        if self.entries.contains_key(&entry.id()) {
            return Ok(Outcome::Known);
        }
        if !self.judge(&entry)? {
            return Ok(Outcome::Waiting);
        }
        if self.entries.len() >= MAX_ENTRIES {
            return Err(Refused::Full);
        }
        if !beyond && self.is_full(&entry.author) {
            return Err(Refused::Budget);
        }
        if !verify(&entry) {
            return Err(Refused::Signature);
        }
        let entry = Arc::new(entry);
        self.keep(&entry);
        self.apply(&entry);
        Ok(Outcome::Added)
    }

    fn keep(&mut self, entry: &Arc<Entry>) {
        let id = entry.id();
        self.in_bucket[bucket(id)].push(id);
        self.entries.insert(id, (self.order.len(), entry.clone()));
        self.order.push(entry.clone());
        self.charge(entry);
    }

    /// Adds a name to the sums by which rings are compared.
    fn add_up(&mut self, id: EntryId) {
        self.sum = self.sum.wrapping_add(id.to_u128());
        let sum = &mut self.buckets[bucket(id)];
        *sum = sum.wrapping_add(part(id));
    }

    fn apply(&mut self, entry: &Entry) {
        let node = |range: Range, owner: PublicKey, taken| Node {
            shares: vec![(range, Owner::of_key(owner))],
            giver: Some(entry.author.name()),
            taken,
            children: BTreeSet::new(),
        };
        self.version += u64::from(!matches!(entry.body, Body::Vote { .. } | Body::Tally { .. }));
        match &entry.body {
            Body::Genesis { .. } | Body::Tally { .. } => {}
            Body::Vote { dead, round, .. } => self.votes.entry((*dead, *round)).or_default().push(entry.id()),
            Body::Grant { parent, range, owner } => {
                self.learn(entry.author.name(), entry.id());
                self.note_grant(*owner);
                self.plant(Some(*parent), entry.id(), node(*range, *owner, false));
            }
            Body::Taken { removal, parent, range } => {
                if let Some(removal) = self.removals.get_mut(removal) {
                    removal.taken = removal.taken.wrapping_add(entry.id().to_u128());
                    let dead = removal.dead;
                    self.learn(dead, entry.id());
                }
                self.plant(Some(*parent), entry.id(), node(*range, entry.author, true));
            }
            Body::Removal { dead, round, .. } => {
                let removal = Removal { id: entry.id(), dead: *dead, round: *round, taker: entry.author, taken: 0, done: false };
                self.removals.add(removal);
            }
            Body::Done { removal, .. } => {
                if let Some(removal) = self.removals.get_mut(removal) {
                    removal.done = true;
                    let dead = removal.dead;
                    self.learn(dead, entry.id());
                }
            }
        }
    }

    fn learn(&mut self, of: PeerName, id: EntryId) {
        let sum = self.knowledge.entry(of).or_default();
        *sum = sum.wrapping_add(id.to_u128());
    }

    fn plant(&mut self, parent: Option<EntryId>, id: EntryId, node: Node) {
        for (_, owner) in &node.shares {
            self.settle_in(owner.name());
        }
        let plain = parent.is_none_or(|parent| node.shares.iter().all(|(range, _)| self.leaves.all(range, |leaf| leaf.node == parent)));
        if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children.insert(id);
        }
        if plain {
            for (range, owner) in &node.shares {
                self.leaves.put(*range, Leaf { node: id, owner: *owner, giver: node.giver, disputed: false });
            }
            self.nodes.insert(id, node);
        } else {
            self.nodes.insert(id, node);
            self.repaint();
        }
        self.owners.take();
    }

    /// Computes the owners anew: where entries overlap that were not made one after the other.
    fn repaint(&mut self) {
        let (mut leaves, mut disputed, mut stack) = (Leaves::default(), Vec::new(), vec![self.mesh()]);
        while let Some(id) = stack.pop() {
            let Some(node) = self.nodes.get(&id) else { continue };
            for (range, owner) in &node.shares {
                leaves.put(*range, Leaf { node: id, owner: *owner, giver: node.giver, disputed: false });
            }
            // The last pushed is painted first: grants with all that came of them, then what was taken, over them.
            for taken in [true, false] {
                let of_kind = |id: &&EntryId| self.nodes.get(*id).is_some_and(|child| child.taken == taken);
                let children: Vec<EntryId> = node.children.iter().filter(of_kind).copied().collect();
                let ranges =
                    children.iter().filter_map(|id| self.nodes.get(id)).flat_map(|child| child.shares.iter().map(|(range, _)| *range));
                overlaps(ranges.collect(), &mut disputed);
                stack.extend(children);
            }
        }
        disputed.iter().for_each(|range| leaves.dispute(range));
        self.leaves = leaves;
    }

    /// The name of the mesh.
    pub fn mesh(&self) -> EntryId {
        self.genesis.id()
    }

    /// The entry that began it.
    pub fn genesis(&self) -> &Entry {
        &self.genesis
    }

    /// What there is to give.
    pub fn ranges(&self) -> &[Range] {
        match &self.genesis.body {
            Body::Genesis { ranges, .. } => ranges,
            Body::Grant { .. } | Body::Vote { .. } | Body::Tally { .. } | Body::Removal { .. } | Body::Taken { .. } | Body::Done { .. } => {
                &[]
            }
        }
    }

    /// The names of all entries, added: two rings with one sum are the same.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// Sums of the names of the entries by bucket.
    pub fn buckets(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True for no ring: the genesis is always there.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// An entry by its name.
    pub fn get(&self, id: &EntryId) -> Option<&Entry> {
        self.entries.get(id).map(|(_, entry)| &**entry)
    }

    /// All entries, each after those it names.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.order.iter().map(|entry| &**entry)
    }

    /// Counts changes of who owns what, and of what is held back.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What somebody lacks whose sums are these, as far as it can be told: where one or two entries explain the difference of a bucket, these,
    /// else all of the bucket; each after those it names. `turn` says where to begin, in the buckets and in each: what is certain may be of no use
    /// before something else, so there is room for both.
    pub fn lacking(&self, sums: &[u64; BUCKETS], turn: usize, most: usize) -> Vec<&Entry> {
        let (mut certain, mut guessed) = (Vec::new(), Vec::new());
        for number in (0..BUCKETS).map(|number| (number + turn) % BUCKETS).filter(|number| sums[*number] != self.buckets[*number]) {
            let (difference, known) = (self.buckets[number].wrapping_sub(sums[number]), &self.in_bucket[number]);
            if let Some(id) = known.iter().find(|id| part(**id) == difference) {
                certain.push(*id);
            } else if let Some((one, other)) = pair(known, difference) {
                certain.extend([one, other]);
            } else {
                let known = [known, &*self.behind_marks(number)].concat();
                let (before, after) = known.split_at(turn / BUCKETS % known.len().max(1));
                guessed.extend(after.iter().chain(before).copied());
            }
        }
        certain.truncate(most - guessed.len().min(most / 2));
        guessed.truncate(most - certain.len());
        certain.extend(guessed);
        let mut found: Vec<&(usize, Arc<Entry>)> = self.with_roots(certain, most).iter().filter_map(|id| self.entries.get(id)).collect();
        found.sort_unstable_by_key(|(number, _)| *number);
        found.dedup_by_key(|(number, _)| *number);
        found.into_iter().map(|(_, entry)| &**entry).collect()
    }

    /// Who owns what.
    pub fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// Everybody who owns something now.
    pub fn owners(&self) -> &BTreeSet<PeerName> {
        self.owners.get_or_init(|| self.leaves.iter().map(|(_, leaf)| leaf.owner.name()).collect())
    }

    /// The votes on a router in a round.
    pub fn votes(&self, dead: PeerName, round: u32) -> impl Iterator<Item = &Entry> {
        self.votes.get(&(dead, round)).into_iter().flatten().filter_map(|id| self.get(id))
    }

    /// Highest round in which anybody voted on a router.
    pub fn last_vote(&self, dead: PeerName) -> u32 {
        self.votes.range((dead, 0)..=(dead, u32::MAX)).next_back().map_or(0, |((_, round), _)| *round)
    }

    /// Sum over all that a router gave and all that was taken from it: who knows the same of it has the same sum.
    pub fn knowledge_of(&self, dead: PeerName) -> u128 {
        self.knowledge.get(&dead).copied().unwrap_or(0)
    }
}

/// How many of `count` are more than half.
pub fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// The bucket of an entry.
pub fn bucket(id: EntryId) -> usize {
    usize::from(id.0[0]) % BUCKETS
}

/// What an entry adds to the sum of its bucket.
fn part(id: EntryId) -> u64 {
    id.to_u128() as u64
}

/// Two entries that make up a difference. An author chooses the bucket of what it says: nothing here takes the square of how many there are.
fn pair(known: &[EntryId], difference: u64) -> Option<(EntryId, EntryId)> {
    let mut parts: Vec<(u64, EntryId)> = known.iter().map(|id| (part(*id), *id)).collect();
    parts.sort_unstable();
    parts.iter().find_map(|(one, id)| {
        let at = parts.binary_search_by_key(&difference.wrapping_sub(*one), |(other, _)| *other).ok()?;
        parts.get(at).filter(|(_, other)| other != id).map(|(_, other)| (*id, *other))
    })
}

/// Divides a range among owners in aligned blocks: halves to halves of the owners, as far as there are addresses.
fn divide(range: Range, owners: &[Owner]) -> Vec<(Range, Owner)> {
    match owners {
        [] => Vec::new(),
        [only] => vec![(range, *only)],
        [first, ..] if range.first == range.last => vec![(range, *first)],
        _ => {
            let middle = range.first + (range.last - range.first) / 2;
            let (left, right) = owners.split_at(owners.len().div_ceil(2));
            let mut shares = divide(Range { first: range.first, last: middle }, left);
            shares.extend(divide(Range { first: middle + 1, last: range.last }, right));
            shares
        }
    }
}

/// Adds what two of the ranges or more have in common.
fn overlaps(mut ranges: Vec<Range>, found: &mut Vec<Range>) {
    ranges.sort_unstable();
    let mut reach: Option<u128> = None;
    for range in ranges {
        if let Some(last) = reach.filter(|last| *last >= range.first) {
            found.push(Range { first: range.first, last: last.min(range.last) });
        }
        reach = Some(reach.map_or(range.last, |last| last.max(range.last)));
    }
}
