//! Direct paths on demand: while frames flow through relays, both ends try each other's addresses at once, and remember what came of it.
//!
//! ```text
//!  A                           relays                          B
//!  CHALLENGE to each address of B that gossip told ──────────► (A's translator lets B in from here on)
//!  CANDIDATES ═══════════════════ sealed, RELAYED ═══════════► B challenges each of them
//!  ◄────────────────────────────────────────────── CHALLENGE to each address of A
//!  RESPONSE ─────────────────────────────────────────────────► both have a proven path; frames move to it
//! ```
//!
//! An address is a candidate where an interface has it, where a neighbour sees the router (that is what a translator made of it), or where the
//! operator says that it can be reached (`--advertise`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::config::Outbox;
use super::core::Mesh;
use super::heartbeat::ACTIVE_FOR;
use super::status::TakenWay;
use super::targets::Goal;
use super::trace::Traces;
use crate::time::Time;
use crate::wire::control::Record;
use crate::wire::{Address, PeerName};

/// Addresses of one peer under challenge at once.
pub(super) const MOST_CHALLENGES: usize = 6;
/// Pause after the first search for a direct path that found none; it doubles.
const SEEK_FIRST: Duration = Duration::from_secs(2);
/// The longest such pause.
const SEEK_MOST: Duration = Duration::from_secs(60);
/// A peer's candidates are tried at most this often at its word.
const HEED_EVERY: Duration = Duration::from_secs(1);
/// Addresses of one peer of which it is remembered what came of them.
const MOST_TRIALS: usize = 24;

/// What came of trying an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is being tried.
    Trying,
    /// The peer answered from there.
    Answered,
    /// It was of no use, with a sentence that says why.
    Failed(String),
}

/// An address of a peer that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// When.
    pub at: Time,
    /// What came of it.
    pub outcome: Outcome,
}

/// What is known of the search for a direct path to one peer.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// When it was last begun here, and the pause after that.
    begun: Option<(Time, Duration)>,
    /// When it was last begun at the peer's word.
    heeded: Option<Time>,
    trials: BTreeMap<Address, Trial>,
}

/// How frames travel to others, and what is done to find out.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// The searches for direct paths.
    pub(super) searches: BTreeMap<PeerName, Search>,
    /// The way to each peer that something may be sent to, and since when it is that one.
    pub(super) taken: BTreeMap<PeerName, (Time, TakenWay)>,
    pub(super) traces: Traces,
    /// Whether this host has a way to an address now, where somebody can tell.
    has_way: Option<fn(Address) -> bool>,
}

impl Mesh {
    /// Has `has_way` asked before a handshake is begun that nobody but the gossip asks for: what is computed for it costs a hundred times the question.
    pub fn ask_for_ways(&mut self, has_way: fn(Address) -> bool) {
        self.ways.has_way = Some(has_way);
    }

    /// False where this host has no way there, and it is no person who would have it tried.
    pub(super) fn may_lead(&self, goal: &Goal, address: Address) -> bool {
        matches!(goal, Goal::Host(_)) || address.is_tcp() || self.ways.has_way.is_none_or(|has_way| has_way(address))
    }

    /// Looks for direct paths to peers that frames are exchanged with through relays.
    pub(super) fn seek_paths(&mut self, now: Time, out: &mut Outbox) {
        if !self.config.discovery || self.left {
            return;
        }
        let relayed = self.keyrings.iter().filter(|(peer, keys)| keys.current().is_some() && !self.adjacencies.contains_key(peer));
        let busy: Vec<PeerName> = relayed.map(|(peer, _)| *peer).filter(|peer| self.is_in_use(now, *peer, ACTIVE_FOR)).collect();
        for peer in busy {
            let search = self.ways.searches.entry(peer).or_default();
            let pause = match search.begun {
                Some((at, pause)) if now.since(at) < pause => continue,
                Some((_, pause)) => (pause * 2).min(SEEK_MOST),
                None => SEEK_FIRST,
            };
            search.begun = Some((now, pause));
            self.try_addresses(now, peer, &self.dialable(peer), out);
            let own = self.candidates();
            if let Some(session) = self.keyrings.get(&peer).and_then(|keys| keys.current()).cloned() {
                self.send_any(peer, &session, &[Record::Candidates(own)], out);
            }
        }
    }

    /// Notes that a search for a way to `peer` begins; false where the last began less than `pause` ago.
    pub(super) fn may_search(&mut self, now: Time, peer: PeerName, pause: Duration) -> bool {
        let search = self.ways.searches.entry(peer).or_default();
        let due = search.begun.is_none_or(|(at, _)| now.since(at) >= pause);
        if due {
            search.begun = Some((now, pause));
        }
        due
    }

    /// Where this router may be reached.
    pub(super) fn candidates(&self) -> Vec<Address> {
        let own = self.config.addresses.iter().chain(self.observed.values());
        let advertised = &self.config.advertise;
        let unique: BTreeSet<Address> = own.filter(|address| !advertised.contains(address)).copied().collect();
        // Somebody who knows has said that these work, and the other end tries but a few of those that are not near it.
        advertised.iter().copied().chain(unique).take(MOST_TRIALS).collect()
    }

    /// A peer looks for a direct path to us, and has just sent something to each of our addresses. Its word is sealed, so it costs no stranger
    /// anything to be believed, but not often.
    pub(super) fn on_candidates(&mut self, now: Time, peer: PeerName, addresses: &[Address], out: &mut Outbox) {
        if self.adjacencies.contains_key(&peer) || self.left || !self.config.discovery || !self.store.is_allowed(peer) {
            return;
        }
        let search = self.ways.searches.entry(peer).or_default();
        if search.heeded.is_some_and(|last| now.since(last) < HEED_EVERY) {
            return self.counters.records_ignored.inc();
        }
        search.heeded = Some(now);
        let mut all = self.nearest_first(addresses.iter().copied());
        all.extend(self.dialable(peer).into_iter().filter(|address| !addresses.contains(address)));
        self.try_addresses(now, peer, &all, out);
    }

    fn try_addresses(&mut self, now: Time, peer: PeerName, addresses: &[Address], out: &mut Outbox) {
        for address in addresses.iter().take(MOST_CHALLENGES) {
            self.challenge(now, peer, *address, out);
        }
    }

    /// Remembers what came of trying an address of a peer.
    pub(super) fn note_trial(&mut self, now: Time, peer: PeerName, address: Address, outcome: Outcome) {
        let trials = &mut self.ways.searches.entry(peer).or_default().trials;
        trials.insert(address, Trial { at: now, outcome });
        if trials.len() > MOST_TRIALS
            && let Some(oldest) = trials.iter().min_by_key(|(_, trial)| trial.at).map(|(address, _)| *address)
        {
            trials.remove(&oldest);
        }
    }

    /// A direct path was found: the next search, should it be lost, begins at once.
    pub(super) fn search_over(&mut self, peer: PeerName) {
        if let Some(search) = self.ways.searches.get_mut(&peer) {
            (search.begun, search.heeded) = (None, None);
            for trial in search.trials.values_mut().filter(|trial| trial.outcome == Outcome::Trying) {
                trial.outcome = Outcome::Failed("another address answered first".into());
            }
        }
    }

    /// This host has other addresses: everything is worth another try.
    pub(super) fn search_anew(&mut self) {
        self.ways.searches.values_mut().for_each(|search| (search.begun, search.heeded) = (None, None));
    }

    /// The addresses of a peer that were tried, and what came of it.
    pub(super) fn trials(&self, peer: PeerName) -> impl Iterator<Item = (Address, &Trial)> {
        self.ways.searches.get(&peer).into_iter().flat_map(|search| search.trials.iter().map(|(address, trial)| (*address, trial)))
    }

    /// Why frames to a peer do not go directly, in a sentence.
    pub(super) fn why_not_direct(&self, now: Time, peer: PeerName) -> String {
        if !self.config.discovery {
            return "direct paths are not looked for here (--no-discovery)".into();
        }
        let failed = self.trials(peer).filter(|(_, trial)| matches!(trial.outcome, Outcome::Failed(_))).count();
        if self.trials(peer).any(|(_, trial)| trial.outcome == Outcome::Trying) {
            return "its addresses are being tried".into();
        }
        if self.dialable(peer).is_empty() {
            return "it tells of no address that could be tried".into();
        }
        let again = self.ways.searches.get(&peer).and_then(|search| search.begun).map(|(at, pause)| (at + pause).since(now).as_secs());
        match (failed, self.is_in_use(now, peer, ACTIVE_FOR), again) {
            (0, false, _) => "no frames are exchanged with it, so no direct path was looked for".into(),
            (0, true, _) => "the search begins within a second".into(),
            (n, true, Some(again)) => format!("none of {n} addresses is of use; tried again in {again} s"),
            (n, _, _) => format!("none of {n} addresses was of use; tried again while frames are exchanged"),
        }
    }
}
