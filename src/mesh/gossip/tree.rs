//! The hash tree by which neighbours find out what they disagree on.

use crate::wire::gossip::{FANOUT, Key, LEAVES, TreeNode};
use crate::wire::record::{Record, RecordId};

/// A 16-ary tree over the hashed ids of records. The hash of a leaf is the wrapping sum of the digests of its records and that of an
/// inner node the sum of its leaves, so that a change costs one addition. Editions are not kept here: the records have them.
#[derive(Debug)]
pub(super) struct Tree {
    leaves: Vec<Leaf>,
    root: u64,
}

#[derive(Clone, Debug, Default)]
struct Leaf {
    sum: u64,
    /// Ascending.
    ids: Vec<RecordId>,
}

impl Leaf {
    /// Ids above `after` up to `until`.
    fn within(&self, after: RecordId, until: RecordId) -> &[RecordId] {
        let place = |limit: RecordId| self.ids.partition_point(|id| *id <= limit);
        self.ids.get(place(after)..place(until)).unwrap_or_default()
    }
}

impl Tree {
    pub(super) fn new() -> Tree {
        Tree { leaves: vec![Leaf::default(); LEAVES], root: 0 }
    }

    /// Adds a record of which no edition is in.
    pub(super) fn insert(&mut self, record: &Record) {
        let leaf = &mut self.leaves[usize::from(record.id().bucket())];
        if let Err(at) = leaf.ids.binary_search(&record.id()) {
            if leaf.ids.len() == leaf.ids.capacity() {
                leaf.ids.reserve_exact(1 + leaf.ids.len() / 4);
            }
            leaf.ids.insert(at, record.id());
            leaf.sum = leaf.sum.wrapping_add(record.edition().digest);
            self.root = self.root.wrapping_add(record.edition().digest);
        }
    }

    /// Puts an edition in the place of an older one of the same record, which may be in.
    pub(super) fn replace(&mut self, old: &Record, record: &Record) {
        let leaf = &mut self.leaves[usize::from(record.id().bucket())];
        if leaf.ids.binary_search(&record.id()).is_err() {
            return self.insert(record);
        }
        let change = record.edition().digest.wrapping_sub(old.edition().digest);
        leaf.sum = leaf.sum.wrapping_add(change);
        self.root = self.root.wrapping_add(change);
    }

    /// Removes a record that may be in.
    pub(super) fn remove(&mut self, record: &Record) {
        let leaf = &mut self.leaves[usize::from(record.id().bucket())];
        if let Ok(at) = leaf.ids.binary_search(&record.id()) {
            leaf.ids.remove(at);
            leaf.sum = leaf.sum.wrapping_sub(record.edition().digest);
            self.root = self.root.wrapping_sub(record.edition().digest);
        }
    }

    /// The hash of a node.
    pub(super) fn hash(&self, node: TreeNode) -> u64 {
        if node == TreeNode::ROOT {
            return self.root;
        }
        self.leaves[node.leaves()].iter().fold(0, |sum, leaf| sum.wrapping_add(leaf.sum))
    }

    /// The hashes of the children of an inner node.
    pub(super) fn children(&self, node: TreeNode) -> [u64; FANOUT] {
        let mut hashes = [0; FANOUT];
        for (index, hash) in (0..).zip(&mut hashes) {
            *hash = node.child(index).map_or(0, |child| self.hash(child));
        }
        hashes
    }

    /// How many records lie under a node.
    pub(super) fn count(&self, node: TreeNode) -> usize {
        self.leaves[node.leaves()].iter().map(|leaf| leaf.ids.len()).sum()
    }

    /// Up to `most` of the records under a node with ids above `after` up to `until`, but for those in `known`, which ascends.
    pub(super) fn beside(&self, node: TreeNode, (after, until): (RecordId, RecordId), known: &[Key], most: usize) -> Vec<RecordId> {
        let all = self.leaves[node.leaves()].iter().flat_map(|leaf| leaf.within(after, until)).copied();
        all.filter(|id| known.binary_search_by_key(id, |key| key.id).is_err()).take(most).collect()
    }

    /// The records under a node with ids above `after` up to `until`, ascending.
    pub(super) fn ids(&self, node: TreeNode, after: RecordId, until: RecordId) -> Vec<RecordId> {
        let mut ids: Vec<RecordId> = self.leaves[node.leaves()].iter().flat_map(|leaf| leaf.within(after, until)).copied().collect();
        ids.sort_unstable();
        ids
    }
}
