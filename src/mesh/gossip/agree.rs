//! Agreement with neighbours: from root hashes that differ to the few records that are missing.
//!
//! In a large mesh something is always on its way, and all roots differ. So what is to be found by comparisons is what push has missed:
//!
//! * Two who have just met compare at once where one of them knows nothing yet, or the mesh of the other is another one.
//! * Else a heartbeat that shows another root starts a comparison only after nothing new has come for as long as news take, or, where news
//!   never end, now and then, with one neighbour for all.
//! * News of the last moment are not handed out: they come by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Output;
use super::origins::{Origin, Standing};
use super::push::SOURCES;
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
/// Where nothing else changes meanwhile, a comparison is fruitless because a datagram was lost: bad networks lose several in a row.
const LOST_IN_A_ROW: u8 = 8;
/// The longest wait while the two roots are others than last time.
const NEWS_GAP: Duration = Duration::from_secs(2);
/// What differs for no longer is on its way: a record crosses a large mesh in about that time.
const UNDER_WAY: Duration = Duration::from_millis(150);
/// Where roots differ for longer although news keep coming, one neighbour is compared with all the same.
const UNENDING: Duration = Duration::from_secs(1);
/// For so long after its start, what comes is taken for the fruit of a comparison.
const FRUIT: Duration = Duration::from_secs(1);
/// A record asked of one neighbour is not asked of another for this long.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Requests remembered; beyond that, records may be asked for twice.
const MOST_ASKED: usize = 8192;
/// Records that one neighbour is asked for at once: what is more comes with the next comparison.
const MOST_WANTED: usize = 4096;
/// Most messages of records in answer to one message: all that a mesh of a thousand has to tell a newcomer. What is more comes with the next
/// comparison.
const MOST_ANSWERS: usize = 512;
/// Records that are looked for to that end: they fill those messages however short they are.
const MOST_SENT: usize = 16 * MOST_ANSWERS;

/// Where the agreement with one neighbour stands.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) wanted: BTreeSet<RecordId>,
    /// True where it is to pass on to us at once what it hears.
    pub(super) is_source: bool,
    /// True where it wants that of us.
    pub(super) wants_push: bool,
    compared: Option<(u64, u64)>,
    started: Option<Time>,
    /// True where the last comparison brought something.
    fruitful: bool,
    /// True where more was missing than could be asked for.
    short: bool,
    /// True until the second comparison starts: what the other has not is to be told whole.
    first: bool,
    gap: Duration,
    /// How often the same two roots were compared again.
    repeated: u8,
}

/// When to look in spite of news that keep coming, whether push misses something.
#[derive(Debug)]
pub(super) struct Samples {
    /// Since when no neighbour has shown our root.
    apart: Option<Time>,
    due: Time,
    gap: Duration,
}

impl Default for Samples {
    fn default() -> Samples {
        Samples { apart: None, due: Time::ZERO, gap: FIRST_GAP }
    }
}

impl Samples {
    fn is_due(&self, now: Time) -> bool {
        now >= self.due && self.apart.is_some_and(|since| now.since(since) >= UNENDING)
    }

    fn taken(&mut self, now: Time) {
        self.due = now + self.gap;
        self.gap = (self.gap * 2).min(NEWS_GAP);
    }
}

impl Default for Neighbour {
    fn default() -> Neighbour {
        let (wanted, gap) = (BTreeSet::new(), FIRST_GAP);
        Neighbour {
            wanted,
            is_source: true,
            wants_push: true,
            compared: None,
            started: None,
            fruitful: false,
            short: false,
            first: true,
            gap,
            repeated: 0,
        }
    }
}

impl Neighbour {
    /// Whether a comparison may start now, given both roots: the neighbour gave its `word` for one, or what differs is `ripe`. Where the last
    /// one brought something, that word is enough; else waits double, but for the first few times that neither root has changed.
    fn may_start(&mut self, now: Time, roots: (u64, u64), word: bool, ripe: bool) -> bool {
        let again = self.compared == Some(roots);
        let lost = again && self.repeated < LOST_IN_A_ROW;
        let wait = match again {
            true if lost => FIRST_GAP,
            true => self.gap,
            false => self.gap.min(NEWS_GAP),
        };
        let rested = self.started.is_none_or(|started| now.since(started) >= wait);
        let next = word && self.fruitful && self.started.is_some_and(|started| now.since(started) >= SHORTEST_GAP);
        if !(next || rested && (word || ripe)) {
            return false;
        }
        self.repeated = if again { self.repeated.saturating_add(1) } else { 0 };
        self.gap = if self.fruitful || lost || self.started.is_none() { FIRST_GAP } else { (self.gap * 2).min(LONGEST_GAP) };
        self.first = self.started.is_none();
        (self.fruitful, self.short) = (false, false);
        self.compared = Some(roots);
        self.started = Some(now);
        self.wanted.clear();
        true
    }
}

impl Store {
    /// A link came up: the agreement with this neighbour starts afresh, at once where it or we may know nothing yet.
    pub fn link_up(&mut self, now: Time, neighbour: PeerName, out: &mut Output) {
        self.neighbours.insert(neighbour, Neighbour::default());
        let root = self.root(now);
        if self.is_strange(neighbour) {
            out.to_neighbour.push((neighbour, gossip::root(root)));
        }
    }

    /// A link went down.
    pub fn link_down(&mut self, neighbour: PeerName) {
        self.neighbours.remove(&neighbour);
    }

    /// A neighbour told its root hash in a heartbeat.
    pub fn on_root(&mut self, now: Time, from: PeerName, theirs: u64, out: &mut Output) {
        self.compare(now, from, theirs, false, out);
    }

    /// A neighbour told its root hash, in a message of its own where it wants a comparison.
    pub(super) fn compare(&mut self, now: Time, from: PeerName, theirs: u64, word: bool, out: &mut Output) {
        let ours = self.root(now);
        if self.lacks_sources() && self.neighbours.get(&from).is_some_and(|neighbour| !neighbour.is_source) {
            self.want_push(from, out);
        }
        let strange = self.is_strange(from);
        let Some(neighbour) = self.neighbours.get_mut(&from) else { return };
        if ours == theirs {
            self.counters.agreement_in_step.inc();
            neighbour.gap = FIRST_GAP;
            self.samples.apart = None;
            return;
        }
        self.counters.agreement_differs.inc();
        self.samples.apart.get_or_insert(now);
        let overdue = now.since(*self.differs_since.get_or_insert(now)) >= UNDER_WAY;
        let ripe = overdue || strange && neighbour.started.is_none();
        let sample = !ripe && !word && self.samples.is_due(now);
        if !neighbour.may_start(now, (ours, theirs), word, ripe || sample) {
            return;
        }
        if sample {
            self.samples.taken(now);
        }
        // One side starts, or every difference would be found twice: the other only shows that it differs.
        if self.own < from {
            self.counters.agreement_started.inc();
            self.describe(from, TreeNode::ROOT, out);
        } else {
            out.to_neighbour.push((from, gossip::root(ours)));
        }
    }

    /// True where we know few who would tell us, or nobody tells us of the neighbour.
    fn is_strange(&self, neighbour: PeerName) -> bool {
        self.neighbours.len() <= SOURCES || !self.is_reached(neighbour)
    }

    /// Tells a neighbour what we have under a node: the list where it fits one message or the node is a leaf, else hashes.
    fn describe(&self, to: PeerName, node: TreeNode, out: &mut Output) {
        let limit = self.config.max_message;
        if node.is_leaf() || self.tree.count(node) <= gossip::keys_per_message(limit) {
            let ids = self.tree.ids(node, RecordId::FIRST, RecordId::LAST).into_iter();
            let keys: Vec<Key> = ids.filter_map(|id| Some(Key { id, edition: self.record(id)?.edition() })).collect();
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
        let whole = self.is_told_whole(from);
        let (mut want, mut send) = (Vec::new(), BTreeMap::new());
        for key in theirs {
            match self.origins.get(&key.id.name).map(|origin| (origin, origin.standing(key.id, key.edition))) {
                None | Some((_, Standing::Newer)) => want.push(key.id),
                Some((_, Standing::Known)) => {}
                Some((origin, Standing::Older)) if whole || !origin.is_under_way(now) => {
                    send.extend(origin.proof(key.id).map(|record| (record.id(), Arc::clone(record))));
                }
                Some((_, Standing::Older)) => {}
            }
        }
        for id in self.tree.beside(node, (after, until), theirs, MOST_SENT) {
            send.extend(self.told_to(now, from, id).map(|record| (id, Arc::clone(record))));
        }
        self.send_records(from, send.values(), out);
        if send.len() > MOST_ANSWERS {
            // That was not all, perhaps: the root that follows asks for the next comparison.
            let root = self.root(now);
            out.to_neighbour.push((from, gossip::root(root)));
        }
        self.ask(now, from, want, out);
    }

    pub(super) fn on_want(&mut self, now: Time, from: PeerName, ids: Vec<RecordId>, out: &mut Output) {
        let ids: BTreeSet<RecordId> = ids.into_iter().collect();
        self.send_records(from, ids.into_iter().filter_map(|id| self.told_to(now, from, id)), out);
    }

    /// A record, but for one that the neighbour is about to hear anyway.
    fn told_to(&self, now: Time, neighbour: PeerName, id: RecordId) -> Option<&Arc<Record>> {
        let whole = self.is_told_whole(neighbour);
        let origin = self.origins.get(&id.name).filter(|origin| whole || !origin.is_under_way(now))?;
        origin.records.get(&(id.kind, id.chunk))
    }

    fn is_told_whole(&self, neighbour: PeerName) -> bool {
        self.neighbours.get(&neighbour).is_some_and(|neighbour| neighbour.first)
    }

    /// Notes what a neighbour sent, and whether something of it was `new`. When all that was asked of it has come and that was not all that is
    /// missing, shows it our root, so that the comparison goes on without waiting for a heartbeat.
    pub(super) fn heard(&mut self, now: Time, from: PeerName, ids: &[RecordId], new: bool, out: &mut Output) {
        let Some(neighbour) = self.neighbours.get_mut(&from) else { return };
        let waited = !neighbour.wanted.is_empty();
        let mut asked = false;
        for id in ids {
            asked |= neighbour.wanted.remove(id);
        }
        neighbour.fruitful |= new && neighbour.started.is_some_and(|started| now.since(started) < FRUIT);
        let done = waited && neighbour.wanted.is_empty() && neighbour.short;
        if asked && new {
            self.samples.gap = FIRST_GAP;
            // It had what none of our sources brought; where it is one of them, it has not heard so.
            self.want_push(from, out);
        }
        if done {
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
            let room = MOST_WANTED.saturating_sub(neighbour.wanted.len());
            neighbour.short |= ids.len() > room;
            ids.truncate(room);
            neighbour.wanted.extend(&ids);
        }
        self.asked.extend(ids.iter().map(|id| (*id, now)));
        out.to_neighbour.extend(gossip::want(&ids, self.config.max_message).into_iter().map(|message| (from, message)));
    }

    pub(super) fn send_records<'a>(&self, to: PeerName, records: impl Iterator<Item = &'a Arc<Record>>, out: &mut Output) {
        let messages = gossip::records(records.map(|record| record.bytes()), self.config.max_message);
        out.to_neighbour.extend(messages.into_iter().take(MOST_ANSWERS).map(|message| (to, message)));
    }

    pub(super) fn record(&self, id: RecordId) -> Option<&Arc<Record>> {
        self.origins.get(&id.name)?.records.get(&(id.kind, id.chunk))
    }
}

impl Origin {
    /// True where it has said something that may still be on its way to others.
    pub(super) fn is_under_way(&self, now: Time) -> bool {
        now.since(self.heard) < UNDER_WAY
    }
}
