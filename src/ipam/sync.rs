//! How rings come into step: a small record that everybody publishes, and messages between two that differ.

use std::time::Duration;

use super::ring::majority;
use super::types::{Init, Output};
use super::{Ipam, Participant};
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::ipam::message::{BUCKETS, MAX_DIGEST, MAX_MESSAGE};
use crate::wire::ipam::{Digest, Entry, EntryId, Message};

/// Messages with entries in answer to one comparison.
const MOST_MESSAGES: usize = 16;
/// Entries in answer to one comparison.
const MOST_ENTRIES: usize = 80;
/// Newest entries of our own in the record.
pub const NEWEST: usize = 4;
/// How many are asked at once by a router on hold, which gives nothing until it has compared its ring with them.
const AT_ONCE: usize = 8;
/// Between two editions of the record that nobody waits for.
const UNHURRIED: Duration = Duration::from_secs(2);

/// When what is to be said.
#[derive(Default)]
pub struct Sync {
    pub last_tick: Time,
    pub publish_at: Option<Time>,
    /// When to compare with somebody.
    pub at: Option<Time>,
    dirty: bool,
    last_published: Option<Time>,
    published: Vec<u8>,
}

impl Sync {
    /// Something changed that others may hear of at leisure.
    pub fn publish_soon(&mut self) {
        self.dirty = true;
    }

    /// Something changed that others wait for.
    pub fn publish_now(&mut self, now: Time) {
        self.publish_at = Some(self.publish_at.unwrap_or(now).min(now));
    }

    /// Compare rings at this moment.
    pub fn soon(&mut self, when: Time) {
        self.at = Some(self.at.unwrap_or(when).min(when));
    }

    /// Between two ticks of a router that waits for nothing.
    pub fn pace(&self) -> Duration {
        Duration::from_secs(5)
    }
}

impl Ipam {
    /// Says every record again to a mesh plane that has lost it.
    pub fn republish(&mut self) {
        self.sync.published.clear();
        self.sync.publish_now(self.now);
        self.finish();
    }

    pub(super) fn publish(&mut self) {
        if std::mem::take(&mut self.sync.dirty) {
            let at = self.sync.last_published.map_or(self.now, |last| last + UNHURRIED);
            self.sync.publish_at = Some(self.sync.publish_at.unwrap_or(at).min(at));
        }
        if self.config.ranges.is_empty() || self.sync.publish_at.is_none_or(|at| at > self.now) {
            return;
        }
        self.sync.publish_at = None;
        self.sync.last_published = Some(self.now);
        let bytes = self.own_digest().to_bytes();
        if bytes != self.sync.published {
            self.sync.published.clone_from(&bytes);
            self.said.insert(0, Output::Publish(bytes));
        }
    }

    fn own_digest(&self) -> Digest {
        let (mut newest, mut room) = (Vec::new(), MAX_DIGEST - 160);
        let own = self.ring.iter().flat_map(|ring| self.authored.iter().rev().filter_map(|id| ring.get(id)));
        for entry in own {
            if entry.bytes().len() + 2 <= room {
                room -= entry.bytes().len() + 2;
                newest.insert(0, entry.clone());
            }
        }
        Digest {
            observer: self.config.init == Init::Observer,
            on_hold: self.hold.is_some(),
            key: self.key,
            mesh: self.mesh(),
            sum: self.ring.as_ref().map_or(0, super::Ring::sum),
            entries: self.ring.as_ref().map_or(0, |ring| u32::try_from(ring.len()).unwrap_or(u32::MAX)),
            ranges: self.config.ranges.iter().map(|range| (*range, self.free_bits(range))).collect(),
            newest,
        }
    }

    /// Takes in what another router publishes.
    pub(super) fn digest(&mut self, origin: PeerName, body: Option<&[u8]>) {
        let Some(body) = body else {
            if let Some(peer) = self.peers.get_mut(&origin) {
                peer.book = None;
            }
            return;
        };
        let Some(digest) = Digest::parse(body).ok().filter(|digest| digest.key.name() == origin) else {
            return self.counters.malformed.inc();
        };
        let Digest { observer, on_hold, key, mesh, sum, ranges, newest, .. } = digest;
        let same_ranges = ranges.iter().map(|(range, _)| *range).eq(self.config.ranges.iter().copied());
        self.peers.entry(origin).or_default().book = Some(Participant { key, observer, on_hold, mesh, sum, ranges });
        if self.refused.is_some() {
            return;
        }
        let own = self.mesh();
        if !same_ranges || (mesh != own && mesh != EntryId::NONE && own != EntryId::NONE) {
            return self.meet(origin, mesh);
        }
        self.part(origin);
        self.note_participant(origin);
        if mesh != EntryId::NONE {
            self.take_in(None, newest);
        }
        self.in_step(origin);
        if self.ring.as_ref().map_or(0, super::Ring::sum) != sum {
            let when = self.now + Duration::from_millis(100 + self.chance(400));
            self.sync.soon(when);
        }
        self.progress();
        self.end_handover();
    }

    /// Notes whether a router's ring is ours, as it said last.
    fn in_step(&mut self, peer: PeerName) {
        let own = self.ring.as_ref().map(super::Ring::sum);
        let Some(book) = self.peers.get(&peer).and_then(|peer| peer.book.as_ref()).filter(|book| Some(book.sum) == own) else { return };
        if self.hold.is_some() {
            self.compared.1 |= !book.on_hold;
            self.compared.0.insert(peer);
            self.end_hold();
        }
    }

    /// Ends the hold where enough others have said that they know no more than we do.
    fn end_hold(&mut self) {
        let (Some(ring), Some(left), true) = (&self.ring, self.hold, self.compared.1) else { return };
        if left == u32::MAX {
            let (compared, owners) = (&self.compared.0, ring.owners());
            let behind = self.reachable().any(|(name, book)| book.mesh == ring.mesh() && !book.on_hold && !compared.contains(&name));
            let most = owners.iter().filter(|owner| **owner == self.name || compared.contains(owner)).count() >= majority(owners.len());
            if behind || (owners.contains(&self.name) && !most) {
                return;
            }
            self.write_behind(false);
        }
        self.hold = None;
        self.sync.publish_soon();
        self.progress();
    }

    /// Compares with one router, drawn by lot among those that differ.
    pub(super) fn run_sync(&mut self) {
        if self.refused.is_some() {
            self.sync.at = None;
            return;
        }
        if self.sync.at.is_none_or(|at| at > self.now) {
            return;
        }
        let (own, mesh, hold) = (self.ring.as_ref().map_or(0, super::Ring::sum), self.mesh(), self.hold.is_some());
        let differs =
            |name: &PeerName, book: &Participant| (hold && !self.compared.0.contains(name)) || book.sum != own || book.mesh != mesh;
        let behind: Vec<PeerName> =
            self.reachable().filter(|(name, book)| differs(name, book) && !self.foreign.contains_key(name)).map(|(name, _)| name).collect();
        self.sync.at = (!behind.is_empty()).then_some(self.now + super::AGAIN);
        let at = usize::try_from(self.chance(behind.len() as u64)).unwrap_or(0);
        for peer in behind.iter().cycle().skip(at).take(if hold { behind.len().min(AT_ONCE) } else { usize::from(!behind.is_empty()) }) {
            self.send_buckets(*peer, true);
        }
    }

    pub(super) fn send_buckets(&mut self, to: PeerName, answer: bool) {
        let sums = self.ring.as_ref().map_or_else(|| Box::new([0; BUCKETS]), |ring| Box::new(*ring.buckets()));
        let on_hold = self.hold.is_some();
        self.tell(to, &Message::Buckets { answer, on_hold, sums });
    }

    /// A router says what it has: we say what it lacks.
    pub(super) fn compare(&mut self, from: PeerName, answer: bool, on_hold: bool, sums: &[u64; BUCKETS]) {
        if answer {
            self.send_buckets(from, false);
        }
        let turn = self.chance(u64::from(u32::MAX)) as usize;
        let Some(ring) = &self.ring else { return };
        if ring.buckets() == sums {
            let sum = ring.sum();
            if let Some(book) = self.peers.get_mut(&from).and_then(|peer| peer.book.as_mut()) {
                (book.sum, book.on_hold) = (sum, on_hold);
            }
            return self.in_step(from);
        }
        let mut messages: Vec<Vec<Entry>> = Vec::new();
        let mut room = 0;
        for entry in ring.lacking(sums, turn, MOST_ENTRIES) {
            let len = entry.bytes().len() + 2;
            if len > room {
                if messages.len() == MOST_MESSAGES {
                    break;
                }
                messages.push(Vec::new());
                room = MAX_MESSAGE - 17;
            }
            room -= len;
            messages.last_mut().expect("one was pushed").push(entry.clone());
        }
        for entries in messages {
            self.tell(from, &Message::Entries(entries));
        }
    }
}
