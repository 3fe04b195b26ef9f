//! Addresses: every router hands out addresses of the ranges that it owns, and no two routers own the same.
//!
//! One sans-IO state machine, [`Ipam`]: told what came (a message, a record, a peer, a request of a container, the time), it is then drained of
//! [`Output`]s by [`Ipam::poll`]. What must be on disk before it is said is [`Output::Persist`]: nothing that follows it comes out before
//! [`Ipam::persisted`] says so.
//!
//! ```text
//!  no ring ──want──▶ agreement (founding) ──genesis──▶ ring ──▶ ready ◀──▶ asking others for space (asking)
//!     ▲                                                  │
//!     └── a list of seeds: the ring is there at once     └── start with a ring of others: on hold until it was compared with one of them
//! ```
//!
//! * [`ring`]: who owns what, a set of signed entries that only grows; its merge is a union.
//! * `founding`: the ranges are divided once, by one decision of a majority (single-decree Paxos, votes on disk before they are cast), or by a list
//!   of seeds. The genesis names the mesh; rings of two names never mix.
//! * `asking`: who has nothing left asks owners, who give aligned blocks of at most half of what they have free. A grant is signed by who gives.
//! * `removal`: the space of a dead router goes to another by votes of a majority of owners. It is used only when everybody who was ever met
//!   (`participants`, on disk) has heard of it and no grant of the dead is known to anybody but not to the taker: so no address is given twice, and the
//!   dead, should it come back, gives way.
//! * `reserved`: what running containers were found with is theirs, also where the disk has lost it.
//! * `sync`: each router publishes a checksum of its ring; who differs sends checksums of parts, and the other answers with what is missing.
//! * `foreign`: routers of a mesh that was founded apart. What both sides own is quarantined, and containers with one address are listed.
//!
//! A router that comes back after it was removed learns so before it gives anything: with a ring of others it begins *on hold*, which ends when it
//! has compared its ring with a router that is not on hold itself, or after [`HOLD`] alone, or six times that among routers that it does not come into
//! step with. Till then only containers that ran all the time are told their addresses. A router that got its ring from others may have lost its disk,
//! and have given away what the ring says is its own: it waits until it has compared the ring with all that it reaches, and with most owners if it is one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::crypto::{Identity, PublicKey, Signatures};
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::ipam::{Entry, EntryId, Message, Range};

mod asking;
mod book;
mod counters;
mod entries;
mod flow;
mod foreign;
mod founding;
pub mod fuzz;
pub mod leaves;
mod participants;
mod removal;
mod requests;
mod reserved;
pub mod ring;
mod status;
mod store;
mod sync;
mod types;

pub use counters::Counters;
pub use status::{OwnerStatus, Phase, Status};
pub use types::{Answer, Change, Config, Init, Kind, NO_CONTAINER, Output, Pair, Request, Sorry, Table};

use book::Book;
use ring::Ring;

/// How long a request may take.
pub const PATIENCE: Duration = Duration::from_secs(9);
/// How long a router with a ring of others gives nothing new after its start, if it finds nobody to compare it with. Counted in ticks: a clock that
/// jumps does not shorten it. Less than [`PATIENCE`]: what is asked for at the start is answered after it.
pub const HOLD: Duration = Duration::from_secs(8);
/// How long the addresses of a dead container are kept.
pub const GRACE: Duration = Duration::from_secs(30);
/// Between two attempts of anything that others must answer.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two ticks of a router that waits for something.
const TICK: Duration = Duration::from_millis(250);
/// How many times as long a router is on hold where there are others to compare its ring with: one of them may never answer.
const IN_COMPANY: u32 = 6;

/// Another router with an address book.
struct Participant {
    key: PublicKey,
    observer: bool,
    on_hold: bool,
    mesh: EntryId,
    sum: u128,
    ranges: Vec<(Range, u8)>,
}

/// What is known of a router of the mesh.
#[derive(Default)]
struct Peer {
    nickname: String,
    reachable: bool,
    book: Option<Participant>,
}

/// The address book of a router.
pub struct Ipam {
    config: Config,
    identity: Arc<Identity>,
    signatures: Arc<dyn Signatures>,
    key: PublicKey,
    name: PeerName,
    rng: ChaCha8Rng,
    now: Time,
    ring: Option<Ring>,
    /// What we own and may give, as the ring and quarantine have it.
    mine: Vec<(Range, EntryId)>,
    book: Book,
    peers: BTreeMap<PeerName, Peer>,
    /// Routers that were ever met, with the round of their last removal when they were met last. On disk.
    participants: BTreeMap<PeerName, u32>,
    /// Parts of ticks, [`IN_COMPANY`] each, that are left before we go on without having compared our ring; the maximum where we never do, since it came
    /// from others.
    hold: Option<u32>,
    /// The ring was made of the list of seeds at this start.
    made_here: bool,
    /// False until it is known which addresses are in use on this host; nothing is given before.
    surveyed: bool,
    /// Whose ring was ours at some moment since we are on hold, and whether any of them was not on hold.
    compared: (BTreeSet<PeerName>, bool),
    /// Our last entries.
    authored: VecDeque<EntryId>,
    /// Entries that came before those that they name.
    early: BTreeMap<EntryId, Entry>,
    founding: founding::Founding,
    waiting: BTreeMap<u64, requests::Waiting>,
    asks: BTreeMap<(Range, bool), asking::Ask>,
    granted: BTreeMap<PeerName, (u64, EntryId)>,
    removals: BTreeMap<PeerName, removal::Attempt>,
    foreign: BTreeMap<PeerName, foreign::Foreign>,
    duplicates: BTreeSet<u128>,
    handover: Option<requests::Handover>,
    sync: sync::Sync,
    /// Sentence that forbids everything, as a ring on disk that does not fit the options.
    refused: Option<String>,
    complained: Option<Time>,
    counters: Arc<Counters>,
    /// Of the input at hand: what must be written, and what is to be said then.
    changes: BTreeMap<(Table, String), Option<Vec<u8>>>,
    said: Vec<Output>,
    /// What waits to be written, all at once.
    held: BTreeMap<(Table, String), Option<Vec<u8>>>,
    queue: VecDeque<Output>,
    in_flight: Option<(u64, Vec<Change>)>,
    again_at: Option<Time>,
    /// It was said that the ring is nearly full.
    crowded: bool,
    /// The last attempt at writing failed.
    disk_fails: bool,
    /// It did so because the file system is full.
    disk_full: bool,
    tokens: u64,
    /// Requests with their end, for those whose answers wait for the disk.
    open: BTreeMap<u64, Time>,
}

impl Ipam {
    /// An address book with what its disk kept: all pairs of both tables. Refuses what contradicts itself with a sentence that is also in
    /// [`Status::problems`], and then gives nothing.
    pub fn new(
        config: Config,
        identity: Arc<Identity>,
        signatures: Arc<dyn Signatures>,
        seed: [u8; 32],
        now: Time,
        ring: Vec<Pair>,
        addresses: Vec<Pair>,
    ) -> Ipam {
        let key = identity.public().key;
        let mut ipam = Ipam {
            identity,
            signatures,
            key,
            name: key.name(),
            rng: ChaCha8Rng::from_seed(seed),
            now,
            ring: None,
            mine: Vec::new(),
            book: Book::default(),
            peers: BTreeMap::new(),
            participants: BTreeMap::new(),
            hold: None,
            made_here: false,
            surveyed: true,
            compared: (BTreeSet::new(), false),
            authored: VecDeque::new(),
            early: BTreeMap::new(),
            founding: founding::Founding::default(),
            waiting: BTreeMap::new(),
            asks: BTreeMap::new(),
            granted: BTreeMap::new(),
            removals: BTreeMap::new(),
            foreign: BTreeMap::new(),
            duplicates: BTreeSet::new(),
            handover: None,
            sync: sync::Sync::default(),
            refused: None,
            complained: None,
            counters: Arc::default(),
            changes: BTreeMap::new(),
            said: Vec::new(),
            held: BTreeMap::new(),
            queue: VecDeque::new(),
            in_flight: None,
            again_at: None,
            crowded: false,
            disk_fails: false,
            disk_full: false,
            tokens: 0,
            open: BTreeMap::new(),
            config,
        };
        ipam.load(ring, addresses);
        ipam.begin();
        ipam.finish();
        ipam
    }

    /// What is decided at the start, from the disk and the options.
    fn begin(&mut self) {
        // A ring that is made here and now cannot be behind.
        let others = self.ring.as_ref().is_some_and(|ring| ring.owners().iter().any(|owner| *owner != self.name));
        if let (None, Init::Seed(seeds)) = (&self.ring, &self.config.init) {
            match Entry::of_seeds(self.config.ranges.clone(), seeds.clone()) {
                Ok(genesis) => {
                    self.adopt(genesis, false);
                    self.made_here = true;
                }
                Err(problem) => self.refused = Some(format!("the list of seeds makes no ring: {problem}")),
            }
        }
        if self.hold.is_none() {
            self.hold = others.then(|| hold_for(HOLD));
        }
        self.sync.publish_soon();
    }

    /// What others said to us alone.
    pub fn told(&mut self, now: Time, from: PeerName, body: &[u8]) {
        self.now = now;
        match Message::parse(body) {
            Ok((mesh, message)) => self.message(from, mesh, message),
            Err(_) => self.counters.malformed.inc(),
        }
        self.finish();
    }

    /// What a router publishes; `None` where it is withdrawn or gone.
    pub fn record(&mut self, now: Time, origin: PeerName, chunk: u16, body: Option<&[u8]>) {
        self.now = now;
        if chunk == 0 && origin != self.name {
            self.digest(origin, body);
        }
        self.finish();
    }

    /// Whether a router is reachable.
    pub fn peer(&mut self, now: Time, peer: PeerName, nickname: &str, reachable: bool) {
        self.now = now;
        if peer != self.name {
            let known = self.peers.entry(peer).or_default();
            known.nickname = nickname.to_string();
            known.reachable = reachable;
            self.note_participant(peer);
            self.sync.soon(now);
            self.progress();
        }
        self.finish();
    }

    /// A router is not known any more.
    pub fn forgotten(&mut self, now: Time, peer: PeerName) {
        self.now = now;
        self.peers.remove(&peer);
        if self.foreign.remove(&peer).is_some() {
            self.recount();
        }
        self.progress();
        self.finish();
    }

    /// The moment of the next [`Ipam::timeout`].
    pub fn next_timeout(&self) -> Time {
        let idle = self.waiting.is_empty()
            && self.asks.is_empty()
            && self.removals.is_empty()
            && self.handover.is_none()
            && self.hold.is_none()
            && !self.founding.wanted;
        let tick = self.sync.last_tick + if idle && self.in_flight.is_none() { self.sync.pace() } else { TICK };
        let soon = [self.sync.publish_at, self.sync.at, self.book.next_release(), self.again_at];
        soon.into_iter().flatten().fold(tick, Time::min)
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Time) {
        self.now = now;
        let ticked = now.since(self.sync.last_tick) >= TICK;
        let company = self.hold.is_some() && self.reachable().any(|(_, book)| book.mesh == self.mesh() && !book.on_hold);
        if let Some(left) = self.hold.as_mut().filter(|left| ticked && **left != u32::MAX) {
            *left = left.saturating_sub(if company { 1 } else { IN_COMPANY });
            if *left == 0 {
                self.hold = None;
                self.sync.publish_soon();
            }
        }
        if ticked {
            self.sync.last_tick = now;
        }
        self.free_the_dead();
        self.progress();
        self.run_founding();
        self.run_removals();
        self.run_foreign();
        self.run_sync();
        self.give_up();
        self.finish();
    }

    /// True where nothing speaks against giving what is ours.
    fn may_give(&self) -> bool {
        self.surveyed && self.hold.is_none() && self.handover.is_none()
    }

    /// Everything that may have become possible.
    fn progress(&mut self) {
        if self.refused.is_none() {
            self.serve();
            self.run_asks();
        }
    }

    fn message(&mut self, from: PeerName, mesh: EntryId, message: Message) {
        if self.refused.is_some() {
            return;
        }
        let own = self.mesh();
        let stranger = mesh != EntryId::NONE && own != EntryId::NONE && mesh != own;
        match message {
            Message::Owned(_) | Message::Holding(_) if stranger => self.foreign_said(from, mesh, message),
            _ if stranger => self.meet(from, mesh),
            Message::Owned(_) | Message::Holding(_) => {}
            Message::Buckets { answer, on_hold, sums } => self.compare(from, answer, on_hold, &sums),
            Message::Entries(entries) => self.take_in(Some(from), entries),
            Message::Ask { request, range, exact } => self.asked(from, request, range, exact),
            Message::Deny { request, reason } => self.denied(from, request, reason),
            Message::Prepare { .. }
            | Message::Promise { .. }
            | Message::Accept { .. }
            | Message::Accepted { .. }
            | Message::Refuse { .. }
            | Message::Need => {
                self.founding_said(from, message);
            }
            Message::Remove { dead, round } => self.asked_to_vote(from, dead, round),
            Message::Fence { removal } => self.asked_of_fence(from, removal),
            Message::Fenced { removal, sum } => self.fenced(from, removal, sum),
            Message::Alive { dead } => self.said_alive(from, dead),
        }
    }

    /// Our mesh, or [`EntryId::NONE`].
    fn mesh(&self) -> EntryId {
        self.ring.as_ref().map_or(EntryId::NONE, Ring::mesh)
    }

    /// The ring, once there is one.
    pub fn ring(&self) -> Option<&Ring> {
        self.ring.as_ref()
    }

    /// The counters, for `/metrics`.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    fn tell(&mut self, to: PeerName, message: &Message) {
        let body = message.to_bytes(self.mesh());
        self.said.push(Output::Tell { to, body });
    }

    fn report(&mut self, sentence: String) {
        if !self.said.iter().any(|output| matches!(output, Output::Report(known) if *known == sentence)) {
            self.said.push(Output::Report(sentence));
        }
    }

    /// A sentence on what a stranger may provoke as often as it likes: at most one in ten seconds.
    fn complain(&mut self, sentence: String) {
        if self.complained.is_none_or(|last| self.now.since(last) >= AGAIN * 10) {
            self.complained = Some(self.now);
            self.report(sentence);
        }
    }

    fn nickname(&self, peer: PeerName) -> String {
        match self.peers.get(&peer).map(|peer| peer.nickname.as_str()) {
            Some(nickname) if !nickname.is_empty() => format!("{peer}({nickname})"),
            _ => peer.to_string(),
        }
    }

    fn is_reachable(&self, peer: PeerName) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.reachable)
    }

    /// Reachable routers with an address book.
    fn reachable(&self) -> impl Iterator<Item = (PeerName, &Participant)> {
        self.peers.iter().filter(|(_, peer)| peer.reachable).filter_map(|(name, peer)| Some((*name, peer.book.as_ref()?)))
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.rng.next_u64() % below.max(1)
    }
}

/// Parts of ticks of a hold of that length.
fn hold_for(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX / IN_COMPANY) * IN_COMPANY
}

#[cfg(test)]
mod tests;
