//! The state machine itself: what it holds, what comes in, and its clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::adjacency::{Adjacencies, Challenge};
use super::answers::Answers;
use super::apps::Apps;
use super::bindings::Bindings;
use super::command::{Command, Event, Target};
use super::config::{MeshConfig, Outbox};
use super::counters::MeshCounters;
use super::discovery::Discovery;
use super::duplicates::Duplicates;
use super::fastdp::Fastdp;
use super::fib_build::NARROW_FOR;
use super::fragments::Partials;
use super::gossip::{self, Store};
use super::guard::Guard;
use super::handshakes::{Attempt, Way};
use super::keyring::Keyring;
use super::loops::Loops;
use super::macs::Macs;
use super::multicast::Multicast;
use super::news::{News, Pace};
use super::revoked::Revocations;
use super::routes::{FloodTree, Routes};
use super::seeking::Ways;
use super::targets::{Goal, Targets};
use crate::crypto::{Local, PublicIdentity, Signatures, Stamp};
use crate::forward::Punt;
use crate::forward::fib::Activity;
use crate::forward::limit::TokenBucket;
use crate::time::Time;
use crate::wire::{Address, PeerName};

/// How often housekeeping runs: what has no timer of its own.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How long a refusal of ours is shown in the status.
const SHOW_REFUSALS: Duration = Duration::from_secs(90);
/// Routers remembered beyond those of the mesh, and sessions with others at once.
pub(super) const MOST_MEMBERS: usize = 8192;
/// Refusals remembered.
const MOST_REFUSALS: usize = 256;

/// What handshakes proved of a router.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub identity: PublicIdentity,
    pub nickname: String,
    /// True where a password or a pinned key proved it a member.
    pub authenticated: bool,
    /// The newest stamp seen: initiations must be newer.
    pub stamp: Stamp,
    /// Which of our passwords it uses.
    pub psk_index: usize,
}

/// The mesh plane of one router. See the [module](super) for what it does.
pub struct Mesh {
    /// The time of the last input.
    pub(super) now: Time,
    /// Which password to try next on a way that refused one.
    pub(super) psk_next: BTreeMap<Way, usize>,
    pub(super) discovery: Discovery,
    /// Who is in the Fib that was handed out last.
    pub(super) fib_peers: BTreeSet<PeerName>,
    /// Handshakes from there that we refused lately, for the status.
    pub(super) refusals: BTreeMap<Address, (Time, String)>,
    pub(super) config: MeshConfig,
    pub(super) local: Local,
    pub(super) own: PeerName,
    pub(super) rng: ChaCha12Rng,
    pub(super) counters: Arc<MeshCounters>,
    pub(super) store: Store,
    pub(super) macs: Macs,
    pub(super) duplicates: Duplicates,
    pub(super) bindings: Bindings,
    pub(super) targets: Targets,
    /// Our handshakes under way, by our index.
    pub(super) attempts: BTreeMap<u32, Attempt>,
    /// Handshakes of others under way.
    pub(super) answers: Answers,
    /// Of which parts are missing.
    pub(super) partials: Partials,
    pub(super) guard: Guard,
    pub(super) stamp_counter: u64,
    pub(super) members: BTreeMap<PeerName, Member>,
    pub(super) keyrings: BTreeMap<PeerName, Keyring>,
    /// Whose session an index of ours is.
    pub(super) indices: BTreeMap<u32, PeerName>,
    pub(super) adjacencies: Adjacencies,
    /// By our index of a session that another router began, where its handshake was answered: the use of the session proves
    /// that address, once.
    pub(super) answered_at: BTreeMap<u32, Address>,
    pub(super) challenges: BTreeMap<PeerName, Vec<Challenge>>,
    pub(super) ways: Ways,
    pub(super) activities: BTreeMap<PeerName, Arc<Activity>>,
    pub(super) relay_budget: BTreeMap<PeerName, TokenBucket>,
    pub(super) routes: Routes,
    /// When routes are to be computed anew.
    pub(super) routes_due: Option<Time>,
    pub(super) news: News,
    /// When our LINKS record is to be brought up to date.
    pub(super) links_due: Option<Time>,
    /// How closely routes and our LINKS record follow news.
    pub(super) pace: Pace,
    /// True where no packet threads are: nobody asks for Fibs, alternates or who there is.
    pub(super) alone: bool,
    /// Addresses at which neighbours see us.
    pub(super) observed: BTreeMap<PeerName, Address>,
    /// When our NODE record is to be brought up to date with them, and when it was last.
    pub(super) node_due: Option<Time>,
    pub(super) node_at: Option<Time>,
    /// The flood trees of the topology last seen.
    pub(super) trees: Option<Arc<FloodTree>>,
    /// Since when routes through others carry no more than the base size.
    pub(super) narrow: BTreeMap<PeerName, Time>,
    pub(super) fastdp: Fastdp,
    pub(super) apps: Apps,
    pub(super) loops: Loops,
    pub(super) multicast: Multicast,
    pub(super) revocations: Revocations,
    pub(super) fib_stale: bool,
    pub(super) generation: u64,
    /// True once we have said who we are.
    introduced: bool,
    pub(super) hash_key: u64,
    housekeeping: Time,
    pub(super) left: bool,
    /// The last refusal told per target, so that each is told once.
    pub(super) told: BTreeMap<String, String>,
}

impl Mesh {
    /// A router's mesh plane. `seed` is its randomness; call [`Mesh::handle_timeout`] once to start it.
    pub fn new(config: MeshConfig, signatures: Arc<dyn Signatures>, seed: [u8; 32]) -> Mesh {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let (own, local) = (config.identity.name(), config.local_end());
        let store = store_of(&config, signatures);
        let mut mesh = Mesh {
            own,
            store,
            local,
            macs: Macs::new(own),
            duplicates: Duplicates::default(),
            bindings: Bindings::new(rng.next_u64()),
            guard: Guard::new(random_bytes(&mut rng)),
            hash_key: rng.next_u64(),
            now: Time::ZERO,
            psk_next: BTreeMap::new(),
            discovery: Discovery::default(),
            fib_peers: BTreeSet::new(),
            refusals: BTreeMap::new(),
            counters: Arc::default(),
            targets: Targets::default(),
            attempts: BTreeMap::new(),
            answers: Answers::default(),
            partials: Partials::default(),
            stamp_counter: 0,
            members: BTreeMap::new(),
            keyrings: BTreeMap::new(),
            indices: BTreeMap::new(),
            adjacencies: Adjacencies::default(),
            answered_at: BTreeMap::new(),
            challenges: BTreeMap::new(),
            ways: Ways::default(),
            activities: BTreeMap::new(),
            relay_budget: BTreeMap::new(),
            routes: Routes::default(),
            routes_due: None,
            news: News::default(),
            links_due: None,
            pace: Pace::default(),
            alone: false,
            observed: BTreeMap::new(),
            node_due: None,
            node_at: None,
            trees: None,
            narrow: BTreeMap::new(),
            fastdp: Fastdp::default(),
            apps: Apps::default(),
            loops: Loops::default(),
            multicast: Multicast::default(),
            revocations: Revocations::default(),
            fib_stale: true,
            generation: 0,
            introduced: false,
            housekeeping: Time::ZERO,
            left: false,
            told: BTreeMap::new(),
            config,
            rng,
        };
        mesh.store.hash_with(mesh.hash_key);
        mesh.remember_revoked();
        mesh
    }

    /// This router's name.
    pub fn name(&self) -> PeerName {
        self.own
    }

    /// What was dropped, refused and repaired.
    pub fn counters(&self) -> Arc<MeshCounters> {
        Arc::clone(&self.counters)
    }

    /// The same of the gossip.
    pub fn gossip_counters(&self) -> Arc<gossip::GossipCounters> {
        Arc::clone(self.store.counters())
    }

    /// A control datagram arrived. Its bytes are opened in place.
    pub fn handle_datagram(&mut self, now: Time, from: Address, bytes: &mut [u8], out: &mut Outbox) {
        self.now = now;
        self.counters.datagrams_in.inc();
        self.receive(now, from, bytes, out);
        self.finish(now, out);
    }

    /// The rest of the program wants something.
    pub fn handle_command(&mut self, now: Time, command: Command, out: &mut Outbox) {
        self.now = now;
        match command {
            Command::Connect(targets) => self.connect(now, targets),
            Command::Forget(targets) => self.forget_targets(&targets),
            Command::Resolved(target, result) => self.targets.resolved(now, &target, result, &mut self.rng),
            Command::LocalAddresses(addresses) => self.local_addresses(now, addresses, out),
            Command::LocalMacs(macs) => macs.into_iter().for_each(|mac| self.local_mac(now, mac, out)),
            Command::Persisted(incarnation) => self.adopt_incarnation(now, incarnation, out),
            Command::Fastdp(device) => self.fastdp_device(device),
            Command::FastdpUsed(peers) => self.fastdp_used(now, &peers),
            Command::Beat(frame) => {
                self.on_beat(now, &frame);
                return self.finish(now, out);
            }
            Command::Tell { to, channel, body } => self.tell_app(now, to, channel, body, out),
            Command::Publish { kind, chunks } => self.publish_app(now, kind, chunks, out),
            Command::Refresh => self.refresh_apps(),
            Command::Watch(peers) => self.watch(now, &peers),
            Command::Revoke { key, signature } => self.revoke(now, key, signature, out),
            Command::Trace { ticket, whom } => self.trace(now, ticket, &whom, out),
            Command::Leave => self.leave(now, out),
        }
        self.dial(now, out);
        self.finish(now, out);
    }

    fn forget_targets(&mut self, targets: &[Target]) {
        for target in targets {
            let goal = Goal::Host(target.clone());
            if self.targets.remove(&goal) {
                self.attempts.retain(|_, attempt| attempt.goal.as_ref() != Some(&goal));
                self.told.remove(&target.to_string());
            }
        }
    }

    /// A packet thread found something that is not its business.
    pub fn handle_punt(&mut self, now: Time, punt: Punt, out: &mut Outbox) {
        self.now = now;
        match punt {
            Punt::Control { from, mut bytes } => {
                self.counters.datagrams_in.inc();
                self.receive(now, from, &mut bytes, out);
            }
            Punt::WantSession(peer) => self.want_session(now, peer, out),
            Punt::LocalMac(mac) => self.local_mac(now, mac, out),
            Punt::Address(sighting) => self.on_sighting(now, sighting),
            Punt::Members(members) => self.on_members(now, &members),
            Punt::TooManyMembers => self.on_too_many_members(now),
            Punt::MulticastRouter => self.on_multicast_router(now),
            Punt::FloodLimit { vlan, mac } => self.too_many_floods(vlan, mac, out),
            Punt::FloodLimitOfAll => self.too_many_floods_of_all(out),
            Punt::Probe(frame) => self.on_probe(now, &frame, out),
            Punt::UnknownSession { from, .. } => self.unknown_session(now, from, out),
        }
        self.finish(now, out);
    }

    /// The kernel refused a datagram to `address` as too big for the path.
    pub fn handle_too_big(&mut self, now: Time, address: Address, out: &mut Outbox) {
        self.now = now;
        for (_, adjacency) in self.adjacencies.iter_mut().filter(|(_, adjacency)| adjacency.address == address) {
            if adjacency.mtu.too_big(now) {
                self.fib_stale = true;
                (self.links_due, self.pace.links_urgent) = (Some(now), true);
            }
        }
        self.tick_links(now, out);
        self.finish(now, out);
    }

    /// Time has passed: does what is due.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        self.now = now;
        self.tick_links(now, out);
        self.tick_attempts(now, out);
        self.tick_challenges(now, out);
        self.tick_traces(now, out);
        if now >= self.housekeeping {
            self.housekeeping = now + HOUSEKEEPING;
            self.keep_house(now, out);
        }
        self.dial(now, out);
        self.finish(now, out);
    }

    /// When [`Mesh::handle_timeout`] is to be called next, if nothing else happens.
    pub fn next_timeout(&self) -> Option<Time> {
        let now = self.now;
        let links = self.adjacencies.next_due(now);
        let attempts = self.attempts.values().map(|attempt| attempt.due).min();
        let challenges = self.challenges.values().flatten().map(|challenge| challenge.due).min();
        let tables = [self.macs.due(), self.bindings.due(), self.targets.due(), self.apps_due(), self.ways.traces.due()];
        let multicast = if self.config.multicast_snooping { self.multicast.due() } else { None };
        let own = [self.routes_due, self.links_due, self.node_due, Some(self.housekeeping), multicast, self.store.pass_on_due()];
        let own = own.into_iter().chain(tables);
        let fastdp = self.config.fastdp.as_ref().map(|_| self.fastdp.due());
        own.chain([links, attempts, challenges, fastdp]).flatten().min()
    }

    /// What has no timer of its own: expiry, rekeys, discovery, paths.
    fn keep_house(&mut self, now: Time, out: &mut Outbox) {
        self.answers.expire(now);
        self.partials.expire(now);
        self.refusals.retain(|_, (at, _)| now.since(*at) < SHOW_REFUSALS);
        self.keep_keys(now, out);
        self.keep_bounds();
        self.keep_revoked(now, out);
        self.seek_paths(now, out);
        self.leave_tcp(now, out);
        self.discover(now);
        self.shed(now, out);
        self.keep_loops(now, out);
        self.age_bindings(now);
        self.age_groups(now);
        self.macs.tick(now, &mut out.events);
        // What has been narrow for so long is so: containers may be told.
        let news = NARROW_FOR..NARROW_FOR + 2 * HOUSEKEEPING;
        self.fib_stale |= self.narrow.values().any(|since| news.contains(&now.since(*since)));
        let lossy = self.adjacencies.iter_mut().fold(false, |news, (_, adjacency)| adjacency.review_loss(now) || news);
        (self.fib_stale, self.fastdp.stale) = (self.fib_stale || lossy, self.fastdp.stale || lossy);
        if self.store.next_timeout().is_some_and(|due| now >= due) {
            let mut said = gossip::Output::default();
            self.store.handle_timeout(now, &mut said);
            self.spread(now, said, out);
        }
    }

    /// Forgets strangers of the past, of whom an open mesh may have seen many.
    fn keep_bounds(&mut self) {
        if self.members.len() > MOST_MEMBERS {
            let (keyrings, store) = (&self.keyrings, &self.store);
            self.members.retain(|name, _| keyrings.contains_key(name) || store.node(*name).is_some());
        }
        if self.activities.len() > MOST_MEMBERS {
            let (keyrings, fib) = (&self.keyrings, &self.fib_peers);
            self.activities.retain(|name, _| keyrings.contains_key(name) || fib.contains(name));
        }
        let (keyrings, store) = (&self.keyrings, &self.store);
        self.ways.taken.retain(|name, _| keyrings.contains_key(name));
        if self.ways.searches.len() > MOST_MEMBERS {
            self.ways.searches.retain(|name, _| store.node(*name).is_some());
        }
        if self.psk_next.len() > MOST_REFUSALS {
            self.psk_next.clear();
        }
    }

    /// After every input: what it made stale is brought up to date, once.
    pub(super) fn finish(&mut self, now: Time, out: &mut Outbox) {
        if !std::mem::replace(&mut self.introduced, true) {
            self.publish_node(now, out);
        }
        self.publish_observed(now, out);
        self.tell_duplicates(now, out);
        if let Some(macs) = self.macs.flush(now) {
            let mut said = gossip::Output::default();
            self.store.publish_macs(now, &macs, &mut said);
            self.spread(now, said, out);
        }
        self.publish_bindings(now, out);
        self.tick_groups(now, out);
        self.pass_on_news(now, out);
        self.publish_links(now, out);
        self.refresh_routes(now, out);
        self.tick_fastdp(now, out);
        self.tick_apps(now, out);
        if !self.alone && std::mem::take(&mut self.fib_stale) {
            self.settle_clear();
            out.fib = Some(Arc::new(self.build_fib()));
        }
        self.adjacencies.settle(now);
        self.counters.datagrams_out.add(out.datagrams.len() as u64);
    }

    /// An index of ours that is free.
    pub(super) fn free_index(&mut self) -> u32 {
        loop {
            let index = self.rng.next_u32() & crate::wire::header::MAX_INDEX;
            if index != 0 && !self.indices.contains_key(&index) && !self.attempts.contains_key(&index) && !self.answers.uses(index) {
                return index;
            }
        }
    }

    /// The next stamp of a handshake of ours.
    pub(super) fn next_stamp(&mut self) -> Stamp {
        self.stamp_counter += 1;
        Stamp { incarnation: self.store.incarnation(), counter: self.stamp_counter }
    }

    /// The traffic counts of a peer, made where there are none.
    pub(super) fn activity(&mut self, peer: PeerName) -> Arc<Activity> {
        Arc::clone(self.activities.entry(peer).or_default())
    }

    /// True where data went to or came from `peer` within `within`.
    pub(super) fn is_in_use(&self, now: Time, peer: PeerName, within: Duration) -> bool {
        self.activities.get(&peer).is_some_and(|activity| {
            let latest = activity.direct.load(Ordering::Relaxed).max(activity.sent.load(Ordering::Relaxed));
            latest > 0 && now.since(Time(latest)) < within
        })
    }

    /// What is known as the nickname of a peer.
    pub(super) fn nickname(&self, peer: PeerName) -> String {
        let told = self.store.node(peer).map(|node| node.nickname.to_string());
        told.or_else(|| self.members.get(&peer).map(|member| member.nickname.clone())).unwrap_or_default()
    }

    /// Says a refusal, once per whom and reason.
    pub(super) fn refused(&mut self, whom: String, reason: String, out: &mut Outbox) {
        /// Whom to remember refusals of: beyond that they are forgotten, and may be said again.
        const MOST: usize = 1024;
        if self.told.get(&whom) == Some(&reason) {
            return;
        }
        if self.told.len() >= MOST {
            self.told.clear();
        }
        self.told.insert(whom.clone(), reason.clone());
        out.events.push(Event::Refused { whom, reason });
    }

    /// Remembers a refusal of ours for the status.
    pub(super) fn note_refusal(&mut self, now: Time, address: Address, why: &str) {
        if self.refusals.len() < MOST_REFUSALS || self.refusals.contains_key(&address) {
            self.refusals.insert(address, (now, why.to_string()));
        }
    }

    /// A link to `peer` came up: earlier refusals are over, and would be news again.
    pub(super) fn forget_refusals(&mut self, peer: PeerName, address: Address) {
        self.refusals.remove(&address);
        self.told.remove(&address.socket_addr().ip().to_string());
        if let Some(target) = self.targets.target_of(peer) {
            self.told.remove(&target);
        }
    }
}

/// The store of a router that has heard nothing yet.
fn store_of(config: &MeshConfig, signatures: Arc<dyn Signatures>) -> Store {
    Store::new(gossip::Config {
        identity: Arc::clone(&config.identity),
        signatures,
        network: config.network.clone(),
        allow: config.allow.iter().copied().collect(),
        incarnation: config.incarnation,
        max_message: gossip::DEFAULT_MAX_MESSAGE,
        limits: gossip::Limits::default(),
    })
}

fn random_bytes(rng: &mut dyn Rng) -> [u8; 32] {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    bytes
}
