//! Agreement with neighbours: from root hashes that differ to the few records that are missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Output;
use super::origins::Standing;
use super::store::Store;
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::gossip::{self, FANOUT, Key, TreeNode};
use crate::wire::record::{Record, RecordId};

/// A comparison that follows one which changed something waits at least this long.
const SHORTEST_GAP: Duration = Duration::from_millis(10);
/// The first wait after a comparison that changed nothing; it doubles from there.
const FIRST_GAP: Duration = Duration::from_millis(250);
/// The longest wait between comparisons that change nothing.
const LONGEST_GAP: Duration = Duration::from_secs(32);
/// A record asked of one neighbour is not asked of another for this long.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Requests remembered; beyond that, records may be asked for twice.
const MOST_ASKED: usize = 8192;
/// Records that one neighbour is asked for at once: what is more comes with the next comparison.
const MOST_WANTED: usize = 4096;
/// Most messages of records in answer to one message: what is more comes with the next comparison.
const MOST_ANSWERS: usize = 64;

/// Where the agreement with one neighbour stands.
#[derive(Debug, Default)]
pub(super) struct Neighbour {
    pub(super) wanted: BTreeSet<RecordId>,
    compared: Option<(u64, u64)>,
    started: Option<Time>,
    gap: Duration,
}

impl Neighbour {
    /// Whether a comparison may start now, given both roots. Where the same two were compared before, waits double.
    fn may_start(&mut self, now: Time, roots: (u64, u64)) -> bool {
        let again = self.compared == Some(roots);
        let wait = if again { self.gap } else { SHORTEST_GAP };
        if self.started.is_some_and(|started| now.since(started) < wait) {
            return false;
        }
        self.gap = if again { (self.gap * 2).min(LONGEST_GAP) } else { FIRST_GAP };
        self.compared = Some(roots);
        self.started = Some(now);
        self.wanted.clear();
        true
    }
}

impl Store {
    /// A link came up: the agreement with this neighbour starts afresh.
    pub fn link_up(&mut self, now: Time, neighbour: PeerName, out: &mut Output) {
        self.neighbours.insert(neighbour, Neighbour::default());
        let root = self.root(now);
        out.to_neighbour.push((neighbour, gossip::root(root)));
    }

    /// A link went down.
    pub fn link_down(&mut self, neighbour: PeerName) {
        self.neighbours.remove(&neighbour);
    }

    /// A neighbour told its root hash, in a heartbeat or a message of its own.
    pub fn on_root(&mut self, now: Time, from: PeerName, theirs: u64, out: &mut Output) {
        let ours = self.root(now);
        let Some(neighbour) = self.neighbours.get_mut(&from) else { return };
        if ours == theirs {
            self.counters.agreement_in_step.inc();
            return;
        }
        self.counters.agreement_differs.inc();
        if !neighbour.may_start(now, (ours, theirs)) {
            return;
        }
        // One side starts, or every difference would be found twice: the other only shows that it differs.
        if self.own < from {
            self.counters.agreement_started.inc();
            self.describe(from, TreeNode::ROOT, out);
        } else {
            out.to_neighbour.push((from, gossip::root(ours)));
        }
    }

    /// Tells a neighbour what we have under a node: the list where it fits one message or the node is a leaf, else hashes.
    fn describe(&self, to: PeerName, node: TreeNode, out: &mut Output) {
        let limit = self.config.max_message;
        if node.is_leaf() || self.tree.count(node) <= gossip::keys_per_message(limit) {
            let keys = self.tree.keys(node, RecordId::FIRST, RecordId::LAST);
            out.to_neighbour.extend(gossip::keys(node, &keys, limit).into_iter().map(|message| (to, message)));
        } else {
            out.to_neighbour.push((to, gossip::tree(node, &self.tree.children(node))));
        }
    }

    pub(super) fn on_tree(&mut self, now: Time, from: PeerName, node: TreeNode, hashes: &[u64; FANOUT], out: &mut Output) {
        self.settle(now);
        for (index, theirs) in (0..).zip(hashes) {
            if let Some(child) = node.child(index).filter(|child| self.tree.hash(*child) != *theirs) {
                self.describe(from, child, out);
            }
        }
    }

    pub(super) fn on_keys(
        &mut self,
        now: Time,
        from: PeerName,
        node: TreeNode,
        (after, until): (RecordId, RecordId),
        theirs: &[Key],
        out: &mut Output,
    ) {
        self.settle(now);
        let (mut want, mut send) = (Vec::new(), BTreeMap::new());
        for key in theirs {
            match self.origins.get(&key.id.name).map(|origin| (origin, origin.standing(key.id, key.edition))) {
                None | Some((_, Standing::Newer)) => want.push(key.id),
                Some((_, Standing::Known)) => {}
                Some((origin, Standing::Older)) => send.extend(origin.proof(key.id).map(|record| (record.id(), Arc::clone(record)))),
            }
        }
        for key in self.tree.keys(node, after, until) {
            if theirs.binary_search_by_key(&key.id, |key| key.id).is_err() {
                send.extend(self.record(key.id).map(|record| (key.id, Arc::clone(record))));
            }
        }
        self.send_records(from, send.values(), out);
        self.ask(now, from, want, out);
    }

    pub(super) fn on_want(&mut self, from: PeerName, ids: Vec<RecordId>, out: &mut Output) {
        let ids: BTreeSet<RecordId> = ids.into_iter().collect();
        self.send_records(from, ids.into_iter().filter_map(|id| self.record(id)), out);
    }

    /// Notes what a neighbour sent; when all that was asked of it has come, shows it our root, so that the comparison
    /// ends, or goes on, without waiting for a heartbeat.
    pub(super) fn heard(&mut self, now: Time, from: PeerName, ids: &[RecordId], out: &mut Output) {
        let Some(neighbour) = self.neighbours.get_mut(&from) else { return };
        let waited = !neighbour.wanted.is_empty();
        for id in ids {
            neighbour.wanted.remove(id);
        }
        if waited && neighbour.wanted.is_empty() {
            let root = self.root(now);
            out.to_neighbour.push((from, gossip::root(root)));
        }
    }

    fn ask(&mut self, now: Time, from: PeerName, mut ids: Vec<RecordId>, out: &mut Output) {
        if self.asked.len() > MOST_ASKED {
            self.asked.clear();
        }
        ids.retain(|id| self.asked.get(id).is_none_or(|at| now.since(*at) >= ASK_AGAIN));
        if let Some(neighbour) = self.neighbours.get_mut(&from) {
            ids.truncate(MOST_WANTED.saturating_sub(neighbour.wanted.len()));
            neighbour.wanted.extend(&ids);
        }
        self.asked.extend(ids.iter().map(|id| (*id, now)));
        out.to_neighbour.extend(gossip::want(&ids, self.config.max_message).into_iter().map(|message| (from, message)));
    }

    fn send_records<'a>(&self, to: PeerName, records: impl Iterator<Item = &'a Arc<Record>>, out: &mut Output) {
        let messages = gossip::records(records.map(|record| record.bytes()), self.config.max_message);
        out.to_neighbour.extend(messages.into_iter().take(MOST_ANSWERS).map(|message| (to, message)));
    }

    fn record(&self, id: RecordId) -> Option<&Arc<Record>> {
        self.origins.get(&id.name)?.records.get(&(id.kind, id.chunk))
    }
}
