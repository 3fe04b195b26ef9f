//! The store: which records are held, and what happens to one that arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::agree::{Neighbour, Samples};
use super::chunks::{Chunks, mac_chunks};
use super::origins::{Origin, Standing};
use super::pace::{Shares, Unrest};
use super::push::{Copies, Held};
use super::reach::{Neighbours, Reach};
use super::room::Line;
use super::shared::{Alone, Workshop};
use super::table::Table;
use super::tree::Tree;
use super::{Change, Config, GossipCounters, NodeView, Output};
use crate::crypto::{PublicIdentity, PublicKey, Signatures};
use crate::mesh::routes::Topology;
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::bindings::{self, BINDINGS, Binding, PER_CHUNK};
use crate::wire::body::{Body, LEFT, LINKS, LINKS_PER_CHUNK, LinkEntry, MACS, MACS_PER_CHUNK, MacEntry, NODE};
use crate::wire::gossip::{self, BadMessage, Message, TreeNode};
use crate::wire::record::{Record, RecordId};

/// The domain in which records are signed; what is signed is the hash of the network's name, then the record.
const DOMAIN: &str = "weave-router record v1";
/// Names of which a clash is remembered, so that it is told once.
const CLASHES: usize = 64;

/// All records of the mesh that this router holds, its own among them.
pub struct Store {
    pub(super) config: Config,
    pub(super) own: PeerName,
    scope: [u8; 32],
    pub(super) origins: Table<Origin>,
    pub(super) neighbours: BTreeMap<PeerName, Neighbour>,
    pub(super) asked: BTreeMap<RecordId, Time>,
    pub(super) tree: Tree,
    pub(super) links: Chunks<LinkEntry>,
    pub(super) macs: Chunks<MacEntry>,
    pub(super) bindings: Chunks<Binding>,
    pub(super) copies: Copies,
    pub(super) held: Held,
    pub(super) unrest: Unrest,
    /// Since when neighbours show another root while nothing new comes; `None` where they do not.
    pub(super) differs_since: Option<Time>,
    pub(super) samples: Samples,
    pub(super) workshop: Arc<dyn Workshop>,
    pub(super) topology: Option<Arc<Topology>>,
    /// Tells graphs apart without building them: the sum of all [`Origin::in_graph`]; and that of the graph which was built last.
    pub(super) graph_key: u64,
    pub(super) built_key: Option<u64>,
    /// Routers whose links alone have changed since; `None` where more than links has.
    pub(super) relinked: Option<BTreeSet<PeerName>>,
    /// A link that somebody advertised is no more, or a router no member.
    pub(super) cut: bool,
    pub(super) reach: Reach,
    /// Origins that are not reached, as of the last look.
    pub(super) unreached: BTreeSet<PeerName>,
    pub(super) line: Line,
    pub(super) bytes: usize,
    clashes: BTreeSet<PeerName>,
    /// Keys that are no member's any more.
    pub(super) revoked: BTreeSet<PublicKey>,
    /// What each neighbour may cost.
    pub(super) shares: Shares,
    pub(super) counters: Arc<GossipCounters>,
}

impl Store {
    /// A store that holds nothing yet.
    pub fn new(config: Config) -> Store {
        let own = config.identity.name();
        let mut origins = Table::default();
        origins.get_or_insert_with(own, || Origin::new(config.incarnation, None));
        let (reach, records) = (Reach::new(own, &mut origins), config.limits.records_per_origin);
        let mut store = Store {
            own,
            scope: Sha256::digest(config.network.as_bytes()).into(),
            origins,
            neighbours: BTreeMap::new(),
            asked: BTreeMap::new(),
            tree: Tree::new(),
            links: Chunks::new(LINKS_PER_CHUNK, (records / 16).max(1)),
            macs: Chunks::new(MACS_PER_CHUNK, mac_chunks(records)),
            bindings: Chunks::new(PER_CHUNK, super::super::bindings::MOST_CHUNKS),
            copies: Copies::new(0),
            held: Held::default(),
            unrest: Unrest::default(),
            differs_since: None,
            samples: Samples::default(),
            workshop: Arc::new(Alone),
            topology: None,
            graph_key: 0,
            built_key: None,
            relinked: None,
            cut: false,
            reach,
            unreached: BTreeSet::new(),
            line: Line::default(),
            bytes: 0,
            clashes: BTreeSet::new(),
            revoked: BTreeSet::new(),
            shares: Shares::default(),
            counters: Arc::default(),
            config,
        };
        store.weigh(own, true);
        store
    }

    /// Shares with other routers of this process what is the same for all.
    pub fn share(&mut self, workshop: Arc<dyn Workshop>) {
        self.workshop = workshop;
    }

    /// This router's name.
    pub fn own(&self) -> PeerName {
        self.own
    }

    /// The incarnation under which this router speaks.
    pub fn incarnation(&self) -> u64 {
        self.origin().incarnation
    }

    /// What was accepted, refused and repaired.
    pub fn counters(&self) -> &Arc<GossipCounters> {
        &self.counters
    }

    /// Every member whose NODE record is held and which has not left, this router included, ascending by name.
    pub fn nodes(&self) -> impl Iterator<Item = NodeView<'_>> {
        self.origins.iter().filter(|(_, origin)| self.allows(origin)).filter_map(|(name, origin)| view(*name, origin))
    }

    /// The names of those that links lead to, as of the last look, this router's among them.
    pub fn reached(&self) -> impl Iterator<Item = PeerName> {
        let is_member = |origin: &Origin| origin.unreachable_since.is_none() && origin.is_introduced() && self.allows(origin);
        self.origins.iter().filter(move |(_, origin)| is_member(origin)).map(|(name, _)| *name)
    }

    /// And of those that no way leads to.
    pub fn missed(&self) -> impl Iterator<Item = PeerName> {
        self.unreached().filter(|(_, origin)| origin.is_introduced() && self.allows(origin)).map(|(name, _)| *name)
    }

    /// Routers of which something is held.
    pub fn router_count(&self) -> usize {
        self.origins.len()
    }

    /// One member.
    pub fn node(&self, name: PeerName) -> Option<NodeView<'_>> {
        view(name, self.origins.get(&name).filter(|origin| self.allows(origin))?)
    }

    /// True for members and routers of which nothing is known.
    pub fn is_allowed(&self, name: PeerName) -> bool {
        self.origins.get(&name).is_none_or(|origin| self.allows(origin))
    }

    pub(super) fn allows(&self, origin: &Origin) -> bool {
        let allow = &self.config.allow;
        if allow.is_empty() && self.revoked.is_empty() {
            return true;
        }
        let key = self.key_of(origin);
        !self.revoked.contains(&key) && (allow.is_empty() || allow.contains(&key) || key == self.config.identity.public().key)
    }

    /// The links a router advertises.
    pub fn links_of(&self, name: PeerName) -> impl Iterator<Item = &LinkEntry> {
        self.bodies(name, LINKS).flat_map(|body| match body {
            Body::Links(links, _) => links.as_slice(),
            _ => &[],
        })
    }

    /// The MACs a router says are on its bridge, as many as any says.
    pub fn macs_of(&self, name: PeerName) -> impl Iterator<Item = &MacEntry> {
        self.bodies(name, MACS).take(mac_chunks(self.config.limits.records_per_origin)).flat_map(|body| match body {
            Body::Macs(macs, _) => macs.as_slice(),
            _ => &[],
        })
    }

    /// The addresses a router says are on its bridge, as many as any says.
    pub fn bindings_of(&self, name: PeerName) -> Vec<Binding> {
        let bodies = self.bodies(name, BINDINGS).take(super::super::bindings::MOST_CHUNKS).filter_map(|body| match body {
            Body::Unknown(_, bytes) => bindings::parse(bytes),
            _ => None,
        });
        bodies.flatten().collect()
    }

    /// The body of a record that this floor carries and does not understand; `None` where there is none, or it was withdrawn.
    pub fn app_record(&self, name: PeerName, kind: u8, chunk: u16) -> Option<&[u8]> {
        match self.origins.get(&name).filter(|origin| self.allows(origin))?.records.get(&(kind, chunk))?.body() {
            Body::Unknown(_, bytes) => Some(bytes).filter(|bytes| !bytes.is_empty()).map(|bytes| &**bytes),
            Body::Node(_) | Body::Links(..) | Body::Macs(..) | Body::Left(_) => None,
        }
    }

    /// All such records of others: origin, kind and chunk.
    pub fn app_records(&self) -> impl Iterator<Item = (PeerName, u8, u16)> {
        let others = self.origins.iter().filter(|(name, _)| **name != self.own);
        others.flat_map(|(name, origin)| origin.records.keys().filter(|(kind, _)| *kind > LEFT).map(|(kind, chunk)| (*name, *kind, *chunk)))
    }

    /// Kind and chunk of those of one router.
    pub fn app_records_of(&self, name: PeerName) -> Vec<(u8, u16)> {
        let records = self.origins.get(&name).map(|origin| origin.records.keys().copied().filter(|(kind, _)| *kind > LEFT));
        records.into_iter().flatten().collect()
    }

    /// Takes a message of a neighbour.
    pub fn receive(&mut self, now: Time, from: PeerName, message: &[u8], out: &mut Output) {
        if !self.neighbours.contains_key(&from) {
            self.counters.message_stranger.inc();
            return;
        }
        let before = out.to_neighbour.len();
        match Message::parse(message) {
            Ok(Message::Root(root)) => self.compare(now, from, root, true, out),
            Ok(Message::Tree(..) | Message::Keys { .. } | Message::Want(_)) if !self.may_ask(now, from) => return,
            Ok(Message::Tree(node, hashes)) => self.on_tree(now, from, node, &hashes, out),
            Ok(Message::Keys { node, after, until, keys }) => self.on_keys(now, from, node, (after, until), &keys, out),
            Ok(Message::Want(ids)) => self.on_want(now, from, ids, out),
            Ok(Message::Records(records)) => self.on_records(now, from, &records, out),
            Ok(Message::Push(wanted)) => self.on_push(from, wanted),
            Err(BadMessage::Malformed) => self.counters.message_malformed.inc(),
            Err(BadMessage::Unknown) => self.counters.message_unknown.inc(),
        }
        self.hold_answers(now, from, before, out);
    }

    /// When [`Store::handle_timeout`] is due next.
    pub fn next_timeout(&self) -> Option<Time> {
        self.unreached().filter_map(|(_, origin)| Some(origin.unreachable_since? + self.patience(origin))).min()
    }

    /// Forgets routers that could not be reached for long.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Output) {
        self.settle(now);
        let due = |origin: &Origin| origin.unreachable_since.is_some_and(|since| now.since(since) >= self.patience(origin));
        let gone: Vec<PeerName> = self.unreached().filter(|(_, origin)| due(origin)).map(|(name, _)| *name).collect();
        for name in gone {
            self.forget(name, out);
        }
    }

    /// Routers that no way leads to.
    fn unreached(&self) -> impl Iterator<Item = (&PeerName, &Origin)> {
        self.unreached.iter().filter_map(|name| Some((name, self.origins.get(name)?)))
    }

    /// How long a router that cannot be reached is remembered: one that was put out only while links lead there.
    fn patience(&self, origin: &Origin) -> Duration {
        if self.revoked.contains(&self.key_of(origin)) { Duration::ZERO } else { self.config.limits.forget_after }
    }

    /// How records are signed and checked.
    pub fn signatures(&self) -> &dyn Signatures {
        &*self.config.signatures
    }

    /// The root hash, for heartbeats.
    pub fn root(&mut self, now: Time) -> u64 {
        self.settle(now);
        self.tree.hash(TreeNode::ROOT)
    }

    /// Takes records of a neighbour and passes on what was new.
    fn on_records(&mut self, now: Time, from: PeerName, records: &[&[u8]], out: &mut Output) {
        let (mut accepted, mut heard) = (Vec::new(), Vec::with_capacity(records.len()));
        for bytes in records {
            if let Some((id, copies)) = self.copy_of(from, bytes) {
                self.counters.record_duplicate.inc();
                self.had(from, id, copies, out);
                heard.push(id);
                continue;
            }
            let Ok(record) = self.workshop.record(bytes) else {
                self.counters.record_malformed.inc();
                continue;
            };
            heard.push(record.id());
            if self.admit(now, from, &record, out) {
                self.counters.record_accepted.inc();
                self.insert(now, Arc::clone(&record), out);
                self.copies.first(Arc::clone(&record), from);
                accepted.push(record);
            }
        }
        self.push(now, from, &accepted, out);
        self.heard(now, from, &heard, !accepted.is_empty(), out);
    }

    /// Sends records of our own to all neighbours.
    pub(super) fn flood(&self, records: &[Arc<Record>], out: &mut Output) {
        let messages = gossip::records(records.iter().map(|record| record.bytes()), self.config.max_message);
        out.to_all_but.extend(messages.into_iter().map(|message| (None, message)));
    }

    /// Decides whether a record from outside is taken in. The signature is checked last: it costs most.
    fn admit(&mut self, now: Time, from: PeerName, record: &Record, out: &mut Output) -> bool {
        let id = record.id();
        if let Some(origin) = self.origins.get(&id.name) {
            let known = self.key_of(origin);
            if known != *record.origin() {
                self.counters.record_clash.inc();
                self.warn_of_clash(id.name, known, *record.origin(), out);
                return false;
            }
            match origin.standing(id, record.edition()) {
                Standing::Newer => {}
                Standing::Known => {
                    self.counters.record_duplicate.inc();
                    self.copied(from, id, out);
                    return false;
                }
                Standing::Older => {
                    self.counters.record_stale.inc();
                    self.tell_newer(now, from, record, out);
                    return false;
                }
            }
        }
        if !self.is_in_pace(now, from, record) {
            self.counters.record_over_pace.inc();
            return false;
        }
        if !self.verifies(record) {
            self.note_forged(now, from);
            return false;
        }
        if id.name == self.own {
            self.pass_own(record, out);
            return false;
        }
        let fits = self.make_room(record, out);
        if !fits {
            self.counters.record_refused_full.inc();
        }
        fits
    }

    /// A neighbour has a record that is void, and what voids it is not on its way to it: it is told, and passes that on to the router itself where
    /// that has forgotten a life of its own. Agreement would not tell it of who has left or is not reached from here.
    fn tell_newer(&self, now: Time, from: PeerName, record: &Record, out: &mut Output) {
        let (id, edition) = (record.id(), record.edition());
        let Some(origin) = self.origins.get(&id.name) else { return };
        let forgot = id.name == from && (origin.incarnation > edition.incarnation || origin.left().is_some());
        if forgot || !origin.is_under_way(now) {
            self.send_records(from, origin.proof(id).into_iter(), out);
        }
    }

    /// Asks the caller for an incarnation beyond one of ours that we do not remember.
    fn pass_own(&self, record: &Record, out: &mut Output) {
        match record.edition().incarnation.checked_add(1) {
            Some(next) => out.changes.push(Change::OwnIncarnation(next)),
            None => out.warnings.push(format!(
                "the mesh holds a record of this router ({}) with the last possible incarnation; give this router a new identity",
                self.own
            )),
        }
    }

    fn warn_of_clash(&mut self, name: PeerName, known: PublicKey, other: PublicKey, out: &mut Output) {
        if self.clashes.len() < CLASHES && self.clashes.insert(name) {
            out.warnings.push(format!(
                "two routers have the name {name}: the one with the key {known} is known, the one with the key {other} is refused; \
                 give one of them a new identity"
            ));
        }
    }

    fn verifies(&self, record: &Record) -> bool {
        self.config.signatures.verify(record.origin(), DOMAIN, &self.in_scope(record.signed()), record.signature())
    }

    /// Signs bytes of a record of our own.
    pub(super) fn sign(&self, signed: &[u8]) -> [u8; 64] {
        self.config.signatures.sign(&self.config.identity, DOMAIN, &self.in_scope(signed))
    }

    pub(super) fn in_scope(&self, signed: &[u8]) -> Vec<u8> {
        [&self.scope, signed].concat()
    }

    /// Merges a record that was found good and newer.
    pub(super) fn insert(&mut self, now: Time, record: Arc<Record>, out: &mut Output) {
        let (id, edition) = (record.id(), record.edition());
        let new = || Origin::new(edition.incarnation, Some(now));
        let origin = self.origins.get_or_insert_with(id.name, new);
        let restarted = edition.incarnation > origin.incarnation;
        origin.heard = now;
        if origin.unreachable_since.is_some() {
            self.unreached.insert(id.name);
        }
        let whole = restarted || id.kind == LEFT;
        let linked = (whole || id.kind == LINKS).then(|| Neighbours::of(origin, id.name == self.own));
        let void = origin.merge(Arc::clone(&record));
        let reached = origin.unreachable_since.is_none();
        let is_first = void.is_empty() && origin.records.len() == 1;
        let mut replaced = false;
        for old in &void {
            self.bytes -= old.bytes().len();
            self.copies.forget(old);
            if reached && old.id() == id {
                self.tree.replace(old, &record);
                replaced = true;
            } else {
                self.tree.remove(old);
            }
        }
        self.differs_since = None;
        self.bytes += record.bytes().len();
        if reached && !replaced {
            self.tree.insert(&record);
        }
        self.asked.remove(&id);
        if is_first {
            self.line_up(id.name);
        }
        if whole || id.kind == NODE || id.kind == LINKS {
            self.weigh(id.name, id.kind != LINKS || restarted);
        }
        if id.kind == LINKS && id.name != self.own && void.iter().any(|old| old.id() == id) {
            self.note_unrest(now, id.name);
        }
        if let Some(linked) = linked {
            self.cut |= self.reach.update(id.name, &linked, &mut self.origins);
        }
        if restarted {
            out.changes.push(Change::Incarnation(id.name, edition.incarnation));
            out.changes.extend([Change::Links(id.name), Change::Macs(id.name)]);
        }
        let gone = void.iter().map(|old| old.id()).filter(|old| old.kind > LEFT && *old != id);
        out.changes.extend(gone.map(|old| Change::App(old.name, old.kind, old.chunk)));
        match id.kind {
            NODE => out.changes.push(Change::Node(id.name)),
            LINKS if !restarted => out.changes.push(Change::Links(id.name)),
            MACS if !restarted => out.changes.push(Change::Macs(id.name)),
            LEFT => out.changes.push(Change::Left(id.name)),
            kind if kind > LEFT => out.changes.push(Change::App(id.name, kind, id.chunk)),
            _ => {}
        }
    }

    /// Drops all that is held of an origin.
    pub(super) fn forget(&mut self, name: PeerName, out: &mut Output) {
        let Some(origin) = self.origins.remove(&name) else { return };
        for record in origin.records.values() {
            self.bytes -= record.bytes().len();
            self.copies.forget(record);
            self.tree.remove(record);
        }
        self.reach.forget(name, &Neighbours::of(&origin, false), &mut self.origins);
        self.unreached.remove(&name);
        self.unweigh(&origin);
        self.clashes.remove(&name);
        self.counters.router_forgotten.inc();
        out.changes.push(Change::Forgotten(name));
    }

    /// What is held of this router itself.
    pub(super) fn origin(&self) -> &Origin {
        self.origins.get(&self.own).expect("a store always holds its own origin")
    }

    fn bodies(&self, name: PeerName, kind: u8) -> impl Iterator<Item = &Body> {
        self.origins.get(&name).into_iter().flat_map(move |origin| origin.bodies(kind))
    }
}

fn view(name: PeerName, origin: &Origin) -> Option<NodeView<'_>> {
    let Body::Node(node) = origin.bodies(NODE).next()? else { return None };
    Some(NodeView {
        name,
        identity: PublicIdentity { key: *origin.key()?, noise: node.noise, certificate: node.certificate },
        incarnation: origin.incarnation,
        nickname: &node.nickname,
        version: &node.version,
        features: node.features,
        addresses: &node.addresses,
        reachable: origin.unreachable_since.is_none(),
    })
}
