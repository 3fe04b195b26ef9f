//! The door for parts of the program above the mesh that speak with their like on other routers: address allocation, names.
//!
//! Two ways of speaking:
//!
//! * **Messages** ([`Command::Tell`](super::command::Command::Tell)): one sealed datagram from router to router, over any number of hops,
//!   best effort. Where there is no session yet one is made, and up to [`MOST_WAITING`] messages wait for it, no longer than [`PATIENCE`].
//! * **Records** ([`Command::Publish`](super::command::Command::Publish)): what this router says to everybody, signed, sequenced and kept by
//!   [`gossip`](super::gossip) while the router is reachable. The newest set replaces the former ones; nothing need ever be unsaid.
//!
//! What the others say, and who can be reached, comes as [`AppEvent`]s. The channel for them is bounded; whoever lost some asks with
//! [`Command::Refresh`](super::command::Command::Refresh) for all records and peers again, which come little by little: all at once they would
//! overflow the channel once more. Messages that are lost are lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::command::Event;
use super::config::Outbox;
use super::core::Mesh;
use super::gossip::{NodeView, Output};
use crate::crypto::PublicKey;
use crate::forward::limit::TokenBucket;
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::control::Record;

/// Largest message in bytes: sealed it fits the 1232 bytes that every IPv6 path carries.
pub const MAX_MESSAGE: usize = 1100;
/// Most chunks of one kind of record.
pub const MAX_CHUNKS: usize = 32;
/// Record kind of address allocation.
pub const IPAM_RECORD: u8 = 5;
/// Record kind of names.
pub const NAMES_RECORD: u8 = 6;
/// Record kind of subnets that containers have addresses in.
pub const SUBNETS_RECORD: u8 = 7;
/// Messages that wait for a session with one peer; more replace the oldest.
pub const MOST_WAITING: usize = 16;
/// How long a message waits for a session.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// The kinds that somebody wants to hear of; others are carried for routers of later versions.
const WANTED: [u8; 3] = [IPAM_RECORD, NAMES_RECORD, SUBNETS_RECORD];
/// What is said again at once, and the pause after it: a small part of what the channel holds, some 25,000 a second.
const AGAIN: (usize, Duration) = (256, Duration::from_millis(10));
/// Messages of one router that are handed on, per second and the burst: it takes several to fill the channel. An honest one sends some twenty
/// a second while rings of addresses are compared.
const SHARE: (u64, u64) = (200, 1024);
/// Routers whose shares are remembered.
const MOST_SHARES: usize = 8192;
/// Routers that are remembered as forgotten.
const MOST_GONE: usize = 8192;

/// A part of the program that sends messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Channel {
    /// Address allocation.
    Ipam = 1,
    /// Names.
    Names = 2,
}

impl Channel {
    /// The channel with this number.
    pub fn from_number(number: u8) -> Option<Channel> {
        [Channel::Ipam, Channel::Names].into_iter().find(|channel| *channel as u8 == number)
    }
}

/// What the mesh tells those parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppEvent {
    /// A message of another router: sealed by it, and otherwise unchecked.
    Told {
        /// The router.
        from: PeerName,
        /// For which part.
        channel: Channel,
        /// The message.
        body: Vec<u8>,
    },
    /// A record of another router, signed by it, and otherwise unchecked.
    Record {
        /// The router.
        origin: PeerName,
        /// Which kind of record.
        kind: u8,
        /// Which of its chunks.
        chunk: u16,
        /// What it says; `None` where it says nothing any more.
        body: Option<Arc<[u8]>>,
    },
    /// A router can be reached now, or not any more.
    Peer {
        /// The router.
        peer: PeerName,
        /// Its public key.
        key: PublicKey,
        /// What its operator calls it.
        nickname: String,
        /// True where some route leads there.
        reachable: bool,
    },
    /// A router said goodbye, or was unreachable for so long that the mesh has forgotten it. It may come back.
    Forgotten {
        /// The router.
        peer: PeerName,
    },
}

/// What is known of a router there.
type Standing = (PublicKey, String, bool);

/// Something that is to be said again.
#[derive(Debug)]
enum Again {
    Gone(PeerName),
    Record(PeerName, u8, u16),
    Peer(PeerName),
}

/// The state of the door.
#[derive(Debug, Default)]
pub(super) struct Apps {
    /// Messages for routers with which there is no session yet.
    waiting: BTreeMap<PeerName, Vec<(Time, Channel, Vec<u8>)>>,
    /// What was told of each router last.
    peers: BTreeMap<PeerName, Standing>,
    /// Records that were told of, also those that say nothing any more: whoever missed that must hear it again.
    told: BTreeSet<(PeerName, u8, u16)>,
    /// Routers of which it was told that they are forgotten, for the same reason.
    gone: BTreeSet<PeerName>,
    /// Routers that say something and that nothing has led to yet: anybody can make up some, and none of it is told before.
    held: BTreeSet<PeerName>,
    /// What is still to be said again, and when it goes on.
    again: VecDeque<Again>,
    again_at: Time,
    /// True where that may have changed.
    pub(super) stale: bool,
    /// Routers that said anew who they are.
    pub(super) renamed: BTreeSet<PeerName>,
    /// What is left of the shares of those that sent messages, and when each did last.
    shares: BTreeMap<PeerName, (Time, TokenBucket)>,
}

impl Apps {
    /// Tells of a router, where that is news.
    fn note(&mut self, node: &NodeView<'_>, reachable: bool, out: &mut Outbox) {
        self.gone.remove(&node.name);
        let known = self.peers.get(&node.name);
        let same =
            known.is_some_and(|(key, nickname, was)| (*key, nickname.as_str(), *was) == (node.identity.key, node.nickname, reachable));
        if !same {
            let (peer, key, nickname) = (node.name, node.identity.key, node.nickname.to_string());
            out.events.push(Event::App(AppEvent::Peer { peer, key, nickname: nickname.clone(), reachable }));
            self.peers.insert(peer, (key, nickname, reachable));
        }
    }
}

/// True for records that some part of the program understands: there is nobody to tell of others, and no end to them.
fn is_understood(kind: u8, chunk: u16) -> bool {
    WANTED.contains(&kind) && usize::from(chunk) < MAX_CHUNKS
}

impl Apps {
    /// True where another message of this router is handed on.
    fn may_tell(&mut self, now: Time, from: PeerName) -> bool {
        if self.shares.len() >= MOST_SHARES && !self.shares.contains_key(&from) {
            // Most of them are full again; where they are not, whoever was quiet for longest is the one to forget.
            let full = Duration::from_secs(SHARE.1.div_ceil(SHARE.0));
            self.shares.retain(|_, (at, _)| now.since(*at) < full);
            let quiet = self.shares.iter().min_by_key(|(_, (at, _))| *at).map(|(name, _)| *name);
            if let Some(quiet) = quiet.filter(|_| self.shares.len() >= MOST_SHARES) {
                self.shares.remove(&quiet);
            }
        }
        let (at, share) = self.shares.entry(from).or_insert_with(|| (now, TokenBucket::new(SHARE.0, SHARE.1)));
        *at = now;
        share.take(now, 1)
    }

    /// Routers of which nothing is told yet.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Messages that wait for a session.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.values().map(Vec::len).sum()
    }

    /// Records that are remembered as told.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.told.len()
    }
}

impl Mesh {
    /// Sends a message, or lets it wait for a session.
    pub(super) fn tell_app(&mut self, now: Time, to: PeerName, channel: Channel, body: Vec<u8>, out: &mut Outbox) {
        if body.len() > MAX_MESSAGE || self.left {
            return self.counters.app_messages_dropped.inc();
        }
        if to == self.own {
            return out.events.push(Event::App(AppEvent::Told { from: to, channel, body }));
        }
        let waiting = self.apps.waiting.entry(to).or_default();
        if waiting.len() >= MOST_WAITING {
            waiting.remove(0);
            self.counters.app_messages_dropped.inc();
        }
        waiting.push((now, channel, body));
        self.want_session(now, to, out);
    }

    /// Publishes all records of a kind.
    pub(super) fn publish_app(&mut self, now: Time, kind: u8, mut chunks: Vec<Vec<u8>>, out: &mut Outbox) {
        let most = crate::wire::record::MAX_BODY;
        let fits = kind > crate::wire::body::LEFT && chunks.len() <= MAX_CHUNKS && chunks.iter().all(|body| body.len() <= most);
        if !fits {
            self.counters.app_records_dropped.add(chunks.len() as u64);
            chunks.retain(|body| body.len() <= most);
            chunks.truncate(MAX_CHUNKS);
        }
        if kind > crate::wire::body::LEFT {
            let mut said = Output::default();
            self.store.publish_app(now, kind, chunks, &mut said);
            self.spread(now, said, out);
        }
    }

    /// Says all records and peers again, from now on.
    pub(super) fn refresh_apps(&mut self) {
        let records: BTreeSet<(PeerName, u8, u16)> = self.store.app_records().chain(self.apps.told.iter().copied()).collect();
        let records = records.into_iter().filter(|(_, kind, _)| WANTED.contains(kind));
        let gone = self.apps.gone.iter().map(|peer| Again::Gone(*peer));
        let all = gone.chain(records.map(|(origin, kind, chunk)| Again::Record(origin, kind, chunk)));
        self.apps.again = all.chain(self.apps.peers.keys().map(|peer| Again::Peer(*peer))).collect();
        self.apps.stale = true;
    }

    /// Says a part of what is to be said again, as it is by now.
    fn say_again(&mut self, now: Time, out: &mut Outbox) {
        self.apps.again_at = now + AGAIN.1;
        for _ in 0..AGAIN.0 {
            match self.apps.again.pop_front() {
                Some(Again::Gone(peer)) if self.apps.gone.contains(&peer) => out.events.push(Event::App(AppEvent::Forgotten { peer })),
                Some(Again::Record(origin, kind, chunk)) => self.app_record(origin, kind, chunk, out),
                Some(Again::Peer(peer)) => {
                    if let Some((key, nickname, reachable)) = self.apps.peers.get(&peer).cloned() {
                        out.events.push(Event::App(AppEvent::Peer { peer, key, nickname, reachable }));
                    }
                }
                Some(Again::Gone(_)) => {}
                None => return,
            }
        }
    }

    /// A record of that kind came, or went.
    pub(super) fn app_record(&mut self, origin: PeerName, kind: u8, chunk: u16, out: &mut Outbox) {
        if origin == self.own || !is_understood(kind, chunk) {
            return;
        }
        let body: Option<Arc<[u8]>> = self.store.app_record(origin, kind, chunk).map(Arc::from);
        let is_known = self.routes.reachable(origin) || self.apps.told.contains(&(origin, kind, chunk));
        if !is_known && self.store.is_stranger(origin) {
            self.apps.held.insert(origin);
        } else if is_known || body.is_some() {
            self.apps.told.insert((origin, kind, chunk));
            out.events.push(Event::App(AppEvent::Record { origin, kind, chunk, body }));
        }
    }

    /// A message for us.
    pub(super) fn on_app(&mut self, now: Time, from: PeerName, channel: u8, body: &[u8], out: &mut Outbox) {
        let member = self.store.is_allowed(from) && body.len() <= MAX_MESSAGE;
        match Channel::from_number(channel).filter(|_| member) {
            Some(_) if !self.apps.may_tell(now, from) => self.counters.app_messages_over_budget.inc(),
            Some(channel) => out.events.push(Event::App(AppEvent::Told { from, channel, body: body.to_vec() })),
            None => self.counters.records_ignored.inc(),
        }
    }

    /// After every input: sends what waited for a session, and says whose reachability changed.
    pub(super) fn tick_apps(&mut self, now: Time, out: &mut Outbox) {
        if !self.apps.waiting.is_empty() {
            self.send_waiting(now, out);
        }
        if self.alone {
            (self.apps.stale, self.apps.renamed) = (false, BTreeSet::new());
        }
        for name in std::mem::take(&mut self.apps.renamed) {
            if let Some(node) = self.store.node(name).filter(|node| node.name != self.own) {
                self.apps.note(&node, self.routes.reachable(name), out);
            }
        }
        if std::mem::take(&mut self.apps.stale) {
            self.survey(out);
        }
        if !self.apps.again.is_empty() && self.apps.again_at <= now {
            self.say_again(now, out);
        }
    }

    /// When the oldest message has waited long enough, or something is to be said again.
    pub(super) fn apps_due(&self) -> Option<Time> {
        let again = (!self.apps.again.is_empty()).then_some(self.apps.again_at);
        self.apps.waiting.values().flatten().map(|(since, ..)| *since + PATIENCE).chain(again).min()
    }

    fn send_waiting(&mut self, now: Time, out: &mut Outbox) {
        let ready = |peer: &&PeerName| self.keyrings.get(peer).is_some_and(|keys| keys.current().is_some());
        let peers: Vec<PeerName> = self.apps.waiting.keys().filter(ready).copied().collect();
        for peer in peers {
            let Some(session) = self.keyrings.get(&peer).and_then(|keys| keys.current()).cloned() else { continue };
            for (_, channel, body) in self.apps.waiting.remove(&peer).unwrap_or_default() {
                self.send_any(peer, &session, &[Record::App { channel: channel as u8, body: &body }], out);
            }
        }
        for waiting in self.apps.waiting.values_mut() {
            let before = waiting.len();
            waiting.retain(|(since, ..)| now.since(*since) < PATIENCE);
            self.counters.app_messages_dropped.add((before - waiting.len()) as u64);
        }
        self.apps.waiting.retain(|_, waiting| !waiting.is_empty());
    }

    /// Tells what routers say that a way leads to now.
    fn tell_held(&mut self, out: &mut Outbox) {
        for origin in std::mem::take(&mut self.apps.held) {
            if !self.routes.reachable(origin) {
                if self.store.is_stranger(origin) {
                    self.apps.held.insert(origin);
                }
                continue;
            }
            for (kind, chunk) in self.store.app_records_of(origin) {
                self.app_record(origin, kind, chunk, out);
            }
        }
    }

    /// Says what changed of who there is and who can be reached.
    fn survey(&mut self, out: &mut Outbox) {
        let mut seen = BTreeSet::new();
        for node in self.store.nodes().filter(|node| node.name != self.own) {
            seen.insert(node.name);
            self.apps.note(&node, self.routes.reachable(node.name), out);
        }
        self.tell_held(out);
        let gone: Vec<PeerName> = self.apps.peers.keys().filter(|peer| !seen.contains(peer)).copied().collect();
        for peer in gone {
            self.apps.peers.remove(&peer);
            let told: Vec<_> = self.apps.told.range((peer, 0, 0)..=(peer, u8::MAX, u16::MAX)).copied().collect();
            for record in told {
                self.apps.told.remove(&record);
            }
            self.apps.gone.insert(peer);
            if self.apps.gone.len() > MOST_GONE {
                self.apps.gone.pop_first();
            }
            out.events.push(Event::App(AppEvent::Forgotten { peer }));
        }
    }
}
