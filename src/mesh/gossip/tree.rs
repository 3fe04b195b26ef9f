//! The hash tree by which neighbours find out what they disagree on.

use std::collections::BTreeMap;

use crate::wire::gossip::{FANOUT, Key, LEAVES, TreeNode};
use crate::wire::record::{Edition, Record, RecordId};

/// A 16-ary tree over the hashed ids of records. The hash of a leaf is the wrapping sum of the digests of its records and that of an
/// inner node the sum of its leaves, so that a change costs one addition.
#[derive(Debug)]
pub(super) struct Tree {
    leaves: Vec<Leaf>,
}

#[derive(Clone, Debug, Default)]
struct Leaf {
    sum: u64,
    editions: BTreeMap<RecordId, Edition>,
}

impl Tree {
    pub(super) fn new() -> Tree {
        Tree { leaves: vec![Leaf::default(); LEAVES] }
    }

    /// Adds a record, in place of any other edition of it.
    pub(super) fn insert(&mut self, record: &Record) {
        self.remove(record.id());
        let leaf = &mut self.leaves[usize::from(record.id().bucket())];
        leaf.sum = leaf.sum.wrapping_add(record.edition().digest);
        leaf.editions.insert(record.id(), record.edition());
    }

    /// Removes a record, whichever edition is in.
    pub(super) fn remove(&mut self, id: RecordId) {
        let leaf = &mut self.leaves[usize::from(id.bucket())];
        if let Some(edition) = leaf.editions.remove(&id) {
            leaf.sum = leaf.sum.wrapping_sub(edition.digest);
        }
    }

    /// The hash of a node.
    pub(super) fn hash(&self, node: TreeNode) -> u64 {
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
        self.leaves[node.leaves()].iter().map(|leaf| leaf.editions.len()).sum()
    }

    /// The records under a node with ids above `after` up to `until`, ascending.
    pub(super) fn keys(&self, node: TreeNode, after: RecordId, until: RecordId) -> Vec<Key> {
        let within = |id: &RecordId| *id > after && *id <= until;
        let all = self.leaves[node.leaves()].iter().flat_map(|leaf| &leaf.editions);
        let mut keys: Vec<Key> = all.filter(|(id, _)| within(id)).map(|(id, edition)| Key { id: *id, edition: *edition }).collect();
        keys.sort_unstable_by_key(|key| key.id);
        keys
    }
}
