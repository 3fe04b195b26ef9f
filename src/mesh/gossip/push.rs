//! Who is told at once: every record would else go over every link in both directions.
//!
//! Each router lets [`SOURCES`] of its neighbours pass on to it what they hear from others. Which ones shows itself: whoever brings a record as
//! one copy too many is told so (PUSH 0), and whoever had what nobody brought is asked to bring more (PUSH 1). Two sources, as
//! a datagram is lost now and then; what both miss is found by agreement. What a router says of itself goes to all its neighbours.
//!
//! News are passed on at once, unless there are more of them than in a mesh where little happens: then those of [`HOLD`] together, of each record the
//! newest edition, and to nobody who has brought it meanwhile.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use super::Output;
use super::store::Store;
use crate::forward::fib::{NameHash, NameMap};
use crate::forward::limit::TokenBucket;
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::gossip;
use crate::wire::record::{Record, RecordId};

/// Neighbours that each router is told by at once.
pub(super) const SOURCES: usize = 2;
/// Records that are passed on at once, per second, and the burst.
const AT_ONCE: (u64, u64) = (100, 256);
/// How long those beyond that are held at most: the way to a neighbour often takes as long, and several share a datagram then.
const HOLD: Duration = Duration::from_millis(15);
/// And so many at most.
const MOST_HELD: usize = 256;
/// Records of which copies are counted; beyond that, counting starts anew.
const MOST_COUNTED: usize = 1024;

/// Copies that came of the newest records. All of these are held: a copy is told by its bytes alone, without a look at what is held of its origin.
#[derive(Debug)]
pub(super) struct Copies {
    /// By a number that tells records apart: the record, and how often it came from others than its origin.
    seen: NameMap<u64, (Arc<Record>, u32)>,
    /// Nobody outside can tell which records have the same number.
    hash: NameHash,
}

impl Copies {
    /// None yet; `key` is secret.
    pub(super) fn new(key: u64) -> Copies {
        let hash = NameHash(key);
        Copies { seen: NameMap::with_hasher(hash), hash }
    }

    /// The number of the record that these bytes are: of its type, chunk and the first half of its origin's key.
    fn key(&self, record: &[u8]) -> Option<u64> {
        record.first_chunk::<19>().map(|head| self.hash.hash_one(head))
    }

    fn get_mut(&mut self, record: &[u8]) -> Option<&mut (Arc<Record>, u32)> {
        let key = self.key(record)?;
        self.seen.get_mut(&key)
    }

    /// A record came for the first time.
    pub(super) fn first(&mut self, record: Arc<Record>, from: PeerName) {
        if self.seen.len() >= MOST_COUNTED {
            self.seen.clear();
        }
        let count = u32::from(record.id().name != from);
        if let Some(key) = self.key(record.bytes()) {
            self.seen.insert(key, (record, count));
        }
    }

    /// A record is held no more.
    pub(super) fn forget(&mut self, record: &Arc<Record>) {
        let Some(key) = self.key(record.bytes()) else { return };
        if self.seen.get(&key).is_some_and(|(known, _)| Arc::ptr_eq(known, record)) {
            self.seen.remove(&key);
        }
    }

    /// Another copy came; the number of it. Old records are not counted: they have come more often than need be.
    fn again(&mut self, record: &Record) -> usize {
        let seen = self.get_mut(record.bytes()).filter(|(known, _)| known.id() == record.id() && known.edition() == record.edition());
        seen.map_or(usize::MAX, |(_, count)| {
            *count = count.saturating_add(1);
            *count as usize
        })
    }
}

/// News that wait to be passed on together.
#[derive(Debug)]
pub(super) struct Held {
    /// Each with those who have it.
    records: BTreeMap<RecordId, (Arc<Record>, Vec<PeerName>)>,
    due: Option<Time>,
    at_once: TokenBucket,
}

impl Default for Held {
    fn default() -> Held {
        Held { records: BTreeMap::new(), due: None, at_once: TokenBucket::new(AT_ONCE.0, AT_ONCE.1) }
    }
}

impl Store {
    /// Passes on what a neighbour said that was new, to those who want that, or holds it for a moment.
    pub(super) fn push(&mut self, now: Time, from: PeerName, records: &[Arc<Record>], out: &mut Output) {
        if records.is_empty() {
            return;
        }
        let at_once = self.held.records.is_empty() && self.held.at_once.take(now, records.len() as u64);
        self.held.records.extend(records.iter().map(|record| (record.id(), (Arc::clone(record), vec![from]))));
        self.held.due.get_or_insert(if at_once { now } else { now + HOLD });
        self.pass_on(now, out);
    }

    /// Tells copies of records by numbers that rest on this key from now on, which nobody else may know.
    pub fn hash_with(&mut self, key: u64) {
        self.copies = Copies::new(key);
    }

    /// When what is held is passed on.
    pub fn pass_on_due(&self) -> Option<Time> {
        self.held.due
    }

    /// Passes on what is held, where it is time.
    pub fn pass_on(&mut self, now: Time, out: &mut Output) {
        if self.held.due.is_none_or(|due| now < due) && self.held.records.len() < MOST_HELD {
            return;
        }
        self.held.due = None;
        let held = std::mem::take(&mut self.held.records);
        for (name, _) in self.neighbours.iter().filter(|(_, neighbour)| neighbour.wants_push) {
            let lacks = held.values().filter(|(_, had)| !had.contains(name)).map(|(record, _)| record.bytes());
            let messages = gossip::records(lacks, self.config.max_message);
            out.to_neighbour.extend(messages.into_iter().map(|message| (*name, message)));
        }
    }

    /// A neighbour says whether it wants to be told at once.
    pub(super) fn on_push(&mut self, from: PeerName, wanted: bool) {
        if let Some(neighbour) = self.neighbours.get_mut(&from) {
            neighbour.wants_push = wanted;
        }
    }

    /// Which record these bytes are, where it is one of the newest, and how many copies of it have come with this one.
    pub(super) fn copy_of(&mut self, from: PeerName, bytes: &[u8]) -> Option<(RecordId, usize)> {
        let (record, count) = self.copies.get_mut(bytes)?;
        let id = record.id();
        if record.bytes() != bytes {
            return None;
        }
        *count = count.saturating_add(u32::from(id.name != from));
        Some((id, *count as usize))
    }

    /// A record came again, one that is not among the newest perhaps.
    pub(super) fn copied(&mut self, from: PeerName, id: RecordId, out: &mut Output) {
        let Some(record) = self.origins.get(&id.name).and_then(|origin| origin.records.get(&(id.kind, id.chunk))) else { return };
        let copies = if id.name == from { 0 } else { self.copies.again(record) };
        self.had(from, id, copies, out);
    }

    /// A neighbour had a record, too. One copy too many, where it was not asked for, is the last of that neighbour.
    pub(super) fn had(&mut self, from: PeerName, id: RecordId, copies: usize, out: &mut Output) {
        if let Some((_, had)) = self.held.records.get_mut(&id) {
            had.push(from);
        }
        if id.name == from || copies <= SOURCES {
            return;
        }
        let sources = self.neighbours.values().filter(|neighbour| neighbour.is_source).count();
        let Some(neighbour) = self.neighbours.get_mut(&from).filter(|neighbour| !neighbour.wanted.contains(&id)) else { return };
        if sources > SOURCES || !neighbour.is_source {
            neighbour.is_source = false;
            out.to_neighbour.push((from, gossip::push(false)));
        }
    }

    /// Asks a neighbour to tell us at once.
    pub(super) fn want_push(&mut self, from: PeerName, out: &mut Output) {
        if let Some(neighbour) = self.neighbours.get_mut(&from) {
            neighbour.is_source = true;
            out.to_neighbour.push((from, gossip::push(true)));
        }
    }

    /// True where more neighbours should tell us at once.
    pub(super) fn lacks_sources(&self) -> bool {
        self.neighbours.values().filter(|neighbour| neighbour.is_source).count() < SOURCES.min(self.neighbours.len())
    }
}
