//! The store: which records are held, and what happens to one that arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::agree::Neighbour;
use super::chunks::Chunks;
use super::origins::{Origin, Standing};
use super::tree::Tree;
use super::{Change, Config, GossipCounters, NodeView, Output};
use crate::crypto::{PublicIdentity, PublicKey};
use crate::mesh::routes::Topology;
use crate::time::Time;
use crate::wire::PeerName;
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
    pub(super) origins: BTreeMap<PeerName, Origin>,
    pub(super) neighbours: BTreeMap<PeerName, Neighbour>,
    pub(super) asked: BTreeMap<RecordId, Time>,
    pub(super) tree: Tree,
    pub(super) links: Chunks<LinkEntry>,
    pub(super) macs: Chunks<MacEntry>,
    topology: Arc<Topology>,
    topology_is_stale: bool,
    reach_is_stale: bool,
    bytes: usize,
    clashes: BTreeSet<PeerName>,
    pub(super) counters: Arc<GossipCounters>,
}

impl Store {
    /// A store that holds nothing yet.
    pub fn new(config: Config) -> Store {
        let own = config.identity.name();
        let origin = Origin::new(config.identity.public().key, config.incarnation, None);
        let records = config.limits.records_per_origin;
        Store {
            own,
            scope: Sha256::digest(config.network.as_bytes()).into(),
            origins: BTreeMap::from([(own, origin)]),
            neighbours: BTreeMap::new(),
            asked: BTreeMap::new(),
            tree: Tree::new(),
            links: Chunks::new(LINKS_PER_CHUNK, (records / 16).max(1)),
            macs: Chunks::new(MACS_PER_CHUNK, (records / 8 * 3).max(1)),
            topology: Arc::default(),
            topology_is_stale: true,
            reach_is_stale: false,
            bytes: 0,
            clashes: BTreeSet::new(),
            counters: Arc::default(),
            config,
        }
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

    /// Bytes of all records held.
    pub fn stored_bytes(&self) -> usize {
        self.bytes
    }

    /// Every member whose NODE record is held and which has not left, this router included, ascending by name.
    pub fn nodes(&self) -> impl Iterator<Item = NodeView<'_>> {
        self.origins.iter().filter(|(_, origin)| self.allows(origin)).filter_map(|(name, origin)| view(*name, origin))
    }

    /// One member.
    pub fn node(&self, name: PeerName) -> Option<NodeView<'_>> {
        view(name, self.origins.get(&name).filter(|origin| self.allows(origin))?)
    }

    /// True for members and routers of which nothing is known.
    pub fn is_allowed(&self, name: PeerName) -> bool {
        self.origins.get(&name).is_none_or(|origin| self.allows(origin))
    }

    fn allows(&self, origin: &Origin) -> bool {
        let allow = &self.config.allow;
        allow.is_empty() || allow.contains(&origin.key) || origin.key == self.config.identity.public().key
    }

    /// The links a router advertises.
    pub fn links_of(&self, name: PeerName) -> impl Iterator<Item = &LinkEntry> {
        self.bodies(name, LINKS).flat_map(|body| match body {
            Body::Links(links, _) => links.as_slice(),
            _ => &[],
        })
    }

    /// The MACs a router says are on its bridge.
    pub fn macs_of(&self, name: PeerName) -> impl Iterator<Item = &MacEntry> {
        self.bodies(name, MACS).flat_map(|body| match body {
            Body::Macs(macs, _) => macs.as_slice(),
            _ => &[],
        })
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

    /// The graph that the LINKS records of members make, built where they have changed. One that comes out the same is the
    /// same, so that what was computed from it stays.
    pub fn topology(&mut self) -> Arc<Topology> {
        if !std::mem::take(&mut self.topology_is_stale) {
            return Arc::clone(&self.topology);
        }
        let built = self.graph(|origin| self.allows(origin));
        if built != *self.topology {
            self.topology = Arc::new(built);
        }
        Arc::clone(&self.topology)
    }

    fn graph(&self, is_in: impl Fn(&Origin) -> bool) -> Topology {
        let routers = self.origins.iter().filter(|(name, origin)| **name == self.own || origin.left().is_none() && is_in(origin));
        let links = routers.map(|(name, origin)| {
            let entries = origin.bodies(LINKS).flat_map(|body| match body {
                Body::Links(links, _) => links.as_slice(),
                _ => &[],
            });
            (*name, entries.copied())
        });
        Topology::build(links)
    }

    /// Takes a message of a neighbour.
    pub fn receive(&mut self, now: Time, from: PeerName, message: &[u8], out: &mut Output) {
        if !self.neighbours.contains_key(&from) {
            self.counters.message_stranger.inc();
            return;
        }
        match Message::parse(message) {
            Ok(Message::Root(root)) => self.on_root(now, from, root, out),
            Ok(Message::Tree(node, hashes)) => self.on_tree(now, from, node, &hashes, out),
            Ok(Message::Keys { node, after, until, keys }) => self.on_keys(now, from, node, (after, until), &keys, out),
            Ok(Message::Want(ids)) => self.on_want(from, ids, out),
            Ok(Message::Records(records)) => self.on_records(now, from, &records, out),
            Err(BadMessage::Malformed) => self.counters.message_malformed.inc(),
            Err(BadMessage::Unknown) => self.counters.message_unknown.inc(),
        }
    }

    /// When [`Store::handle_timeout`] is due next.
    pub fn next_timeout(&self) -> Option<Time> {
        let since = self.origins.values().filter_map(|origin| origin.unreachable_since).min()?;
        Some(since + self.config.limits.forget_after)
    }

    /// Forgets routers that could not be reached for long.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Output) {
        self.settle(now);
        let after = self.config.limits.forget_after;
        let due = |origin: &Origin| origin.unreachable_since.is_some_and(|since| now.since(since) >= after);
        let gone: Vec<PeerName> = self.origins.iter().filter(|(_, origin)| due(origin)).map(|(name, _)| *name).collect();
        for name in gone {
            self.forget(name, out);
        }
    }

    /// The root hash, for heartbeats.
    pub fn root(&mut self, now: Time) -> u64 {
        self.settle(now);
        self.tree.hash(TreeNode::ROOT)
    }

    /// Brings up to date which origins are reachable, and with that what the tree covers.
    pub(super) fn settle(&mut self, now: Time) {
        if !std::mem::take(&mut self.reach_is_stale) {
            return;
        }
        // Whoever may not be a member here is one for others: all must agree on what they hold.
        let graph = if self.config.allow.is_empty() { self.topology() } else { Arc::new(self.graph(|_| true)) };
        let reachable = graph.reachable_from(self.own);
        for (name, origin) in self.origins.iter_mut().filter(|(name, _)| **name != self.own) {
            match (reachable.contains(name), origin.unreachable_since) {
                (true, Some(_)) => {
                    origin.unreachable_since = None;
                    origin.records.values().for_each(|record| self.tree.insert(record));
                }
                (false, None) => {
                    origin.unreachable_since = Some(now);
                    origin.records.values().for_each(|record| self.tree.remove(record.id()));
                }
                (true, None) | (false, Some(_)) => {}
            }
        }
    }

    /// Takes records of a neighbour and passes on what was new.
    fn on_records(&mut self, now: Time, from: PeerName, records: &[&[u8]], out: &mut Output) {
        let (mut accepted, mut heard) = (Vec::new(), Vec::new());
        for bytes in records {
            let Ok(record) = Record::parse(bytes) else {
                self.counters.record_malformed.inc();
                continue;
            };
            heard.push(record.id());
            if self.admit(&record, out) {
                let record = Arc::new(record);
                self.counters.record_accepted.inc();
                self.insert(now, Arc::clone(&record), out);
                accepted.push(record);
            }
        }
        self.flood(Some(from), &accepted, out);
        self.heard(now, from, &heard, out);
    }

    /// Sends records to all neighbours but `except`.
    pub(super) fn flood(&self, except: Option<PeerName>, records: &[Arc<Record>], out: &mut Output) {
        let messages = gossip::records(records.iter().map(|record| record.bytes()), self.config.max_message);
        out.to_all_but.extend(messages.into_iter().map(|message| (except, message)));
    }

    /// Decides whether a record from outside is taken in. The signature is checked last: it costs most.
    fn admit(&mut self, record: &Record, out: &mut Output) -> bool {
        let id = record.id();
        if let Some(origin) = self.origins.get(&id.name) {
            if origin.key != *record.origin() {
                let known = origin.key;
                self.counters.record_clash.inc();
                self.warn_of_clash(id.name, known, *record.origin(), out);
                return false;
            }
            match origin.standing(id, record.edition()) {
                Standing::Newer => {}
                Standing::Known => {
                    self.counters.record_duplicate.inc();
                    return false;
                }
                Standing::Older => {
                    self.counters.record_stale.inc();
                    return false;
                }
            }
        }
        if !self.verifies(record) {
            self.counters.record_forged.inc();
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

    /// True if the bounds allow the record, where need be after forgetting the router that was unreachable for longest.
    fn make_room(&mut self, record: &Record, out: &mut Output) -> bool {
        let limits = self.config.limits;
        let id = record.id();
        let (records, replaced) = match self.origins.get(&id.name) {
            Some(origin) if record.edition().incarnation > origin.incarnation || id.kind == LEFT => (0, 0),
            Some(origin) => match origin.records.get(&(id.kind, id.chunk)) {
                Some(kept) => (origin.records.len() - 1, kept.bytes().len()),
                None => (origin.records.len(), 0),
            },
            None => (0, 0),
        };
        if records >= limits.records_per_origin {
            return false;
        }
        let is_new = !self.origins.contains_key(&id.name);
        while (is_new && self.origins.len() >= limits.routers) || self.bytes - replaced + record.bytes().len() > limits.bytes {
            let away = self.origins.iter().filter(|(name, _)| **name != id.name);
            let away = away.filter_map(|(name, origin)| Some((origin.unreachable_since?, *name)));
            let Some((_, name)) = away.min() else { return false };
            self.forget(name, out);
        }
        true
    }

    fn verifies(&self, record: &Record) -> bool {
        self.config.signatures.verify(record.origin(), DOMAIN, &self.in_scope(record.signed()), record.signature())
    }

    /// Signs bytes of a record of our own.
    pub(super) fn sign(&self, signed: &[u8]) -> [u8; 64] {
        self.config.signatures.sign(&self.config.identity, DOMAIN, &self.in_scope(signed))
    }

    fn in_scope(&self, signed: &[u8]) -> Vec<u8> {
        [&self.scope, signed].concat()
    }

    /// Merges a record that was found good and newer.
    pub(super) fn insert(&mut self, now: Time, record: Arc<Record>, out: &mut Output) {
        let (id, edition) = (record.id(), record.edition());
        let new = || Origin::new(*record.origin(), edition.incarnation, Some(now));
        let origin = self.origins.entry(id.name).or_insert_with(new);
        let restarted = edition.incarnation > origin.incarnation;
        let void = origin.merge(Arc::clone(&record));
        for old in &void {
            self.bytes -= old.bytes().len();
            self.tree.remove(old.id());
        }
        self.bytes += record.bytes().len();
        if origin.unreachable_since.is_none() {
            self.tree.insert(&record);
        }
        self.asked.remove(&id);
        let whole = restarted || id.kind == LEFT;
        if whole || id.kind == LINKS {
            self.topology_is_stale = true;
            self.reach_is_stale |= whole || !void.iter().any(|old| same_neighbours(old.body(), record.body()));
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
    fn forget(&mut self, name: PeerName, out: &mut Output) {
        let Some(origin) = self.origins.remove(&name) else { return };
        for record in origin.records.values() {
            self.bytes -= record.bytes().len();
            self.tree.remove(record.id());
        }
        self.topology_is_stale = true;
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
        identity: PublicIdentity { key: origin.key, noise: node.noise, certificate: node.certificate },
        incarnation: origin.incarnation,
        nickname: &node.nickname,
        version: &node.version,
        features: node.features,
        addresses: &node.addresses,
        reachable: origin.unreachable_since.is_none(),
    })
}

fn same_neighbours(a: &Body, b: &Body) -> bool {
    match (a, b) {
        (Body::Links(a, _), Body::Links(b, _)) => a.iter().map(|link| link.neighbour).eq(b.iter().map(|link| link.neighbour)),
        _ => false,
    }
}
