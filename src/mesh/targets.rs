//! Whom to dial and when: hosts named by a person, and peers learned from gossip.
//!
//! ```text
//!          due                addresses                 answer
//!  Waiting ────► Resolving ──────────────► Dialling ─────────────► Linked
//!     ▲              │ no such host           │ no answer, refused    │ link down
//!     └──────────────┴──── backoff ───────────┴───────────────────────┘
//!                                             │ our own key
//!                                             └────────► Own (until our addresses change)
//! ```
//!
//! | state | leaves on |
//! | --- | --- |
//! | Waiting | its time has come, and no link leads to its peer |
//! | Resolving | the answer to [`Event::Resolve`](super::command::Event::Resolve), or 10 s without one, or a new local address: it is asked anew |
//! | Dialling | the handshake's end; where nobody has answered it, it begins anew with a new local address |
//! | Linked | the link's end |
//! | Own | new local addresses |

use std::time::Duration;

use rand_core::Rng;

use super::command::Target;
use super::snapshot::{ConnectionState, TargetState};
use crate::time::Time;
use crate::wire::{Address, PeerName};

mod entry;

use entry::{Entries, Entry, State};

/// First pause after a failure.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause after ordinary failures of a host somebody named.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// First and longest pause after a refusal that waits for an operator, and longest one of learned addresses.
pub const BACKOFF_SLOW: Duration = Duration::from_secs(60);
/// Longest pause where this host has no way to any address of a router that gossip told of.
pub const BACKOFF_NO_WAY: Duration = Duration::from_secs(300);
/// First pause after a refusal.
const BACKOFF_REFUSED: Duration = Duration::from_secs(4);
/// Without an answer to a question for addresses for this long, it is asked again.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses of ours may come and go all the time: for their sake a target begins anew at most this often.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// And one address of it only for so long: on a host whose networks come and go without end others have their turn, too.
const RENEW_FOR: Duration = Duration::from_secs(30);
/// Addresses tried per target: a name with more is somebody's load balancer.
const MAX_ADDRESSES: usize = 16;

/// Addresses remembered that full routers named: those of a few of them.
const MOST_HINTS: usize = 32;
/// Attempts at such an address in a row that may fail before it is forgotten.
const MOST_HINT_FAILURES: u8 = 3;

/// Learned addresses dialled at once: a router that joins a large mesh must not try everybody in one breath.
const LEARNED_AT_ONCE: usize = 16;

/// What is dialled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Goal {
    /// A host named by a person.
    Host(Target),
    /// A peer known from gossip.
    Peer(PeerName),
    /// An address that a full router named.
    Hint(Address),
}

/// What [`Targets::poll`] asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Resolve this host.
    Resolve(Target),
    /// Dial this address.
    Dial(Goal, Address),
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No answer, or no such host: tried again soon.
    Silent,
    /// Refused: tried again slowly, an operator has to change something.
    Refused,
    /// The address is our own.
    Own,
    /// This host has no way to the address: little changes that but an address of our own.
    NoWay,
}

/// Everything that is dialled.
#[derive(Debug, Default)]
pub struct Targets {
    entries: Entries,
}

impl Targets {
    /// Adds a goal, due at `now`; idempotent. `addresses` are those known already.
    pub fn add(&mut self, now: Time, goal: Goal, mut addresses: Vec<Address>) {
        // Before they are compared: else those of a peer with more would be news each time.
        addresses.truncate(MAX_ADDRESSES);
        let entry = self.entries.entry(goal).or_insert_with(|| Entry {
            state: State::Waiting,
            addresses: Vec::new(),
            cursor: 0,
            due: now,
            backoff: BACKOFF_FIRST,
            peer: None,
            error: None,
            failures: 0,
            no_way: false,
            urgent: false,
            renewed: None,
            renewed_since: None,
        });
        if !addresses.is_empty() && entry.addresses != addresses {
            entry.addresses = addresses;
            entry.cursor = 0;
            entry.backoff = BACKOFF_FIRST;
            if entry.state == State::Waiting {
                entry.due = now;
            }
        }
    }

    /// Dials a learned goal although there is no room for another link: the mesh needs that one.
    pub fn urge(&mut self, goal: &Goal) {
        if let Some(entry) = self.entries.get_mut(goal) {
            entry.urgent = true;
        }
    }

    /// Adds an address that a full router named, where there is room.
    pub fn hint(&mut self, now: Time, address: Address) {
        if self.entries.keys().filter(|goal| matches!(goal, Goal::Hint(_))).count() < MOST_HINTS {
            self.add(now, Goal::Hint(address), vec![address]);
        }
    }

    /// Removes a goal. True where it was there.
    pub fn remove(&mut self, goal: &Goal) -> bool {
        self.entries.remove(goal).is_some()
    }

    /// True where this goal is pursued.
    pub fn contains(&self, goal: &Goal) -> bool {
        self.entries.contains_key(goal)
    }

    /// True where a person named a host that leads to `peer`, or `peer` is not yet known to be elsewhere.
    pub fn is_configured(&self, peer: PeerName) -> bool {
        self.entries.iter().any(|(goal, entry)| matches!(goal, Goal::Host(_)) && entry.peer == Some(peer))
    }

    /// True where a person named this host to be reached by UDP.
    pub fn has_udp_host(&self, host: &str) -> bool {
        self.entries.keys().any(|goal| matches!(goal, Goal::Host(target) if !target.tcp && target.host == host))
    }

    /// The addresses by UDP to which the hosts resolved that lead to `peer`.
    pub fn udp_addresses_of(&self, peer: PeerName) -> Vec<Address> {
        let hosts = self.entries.iter().filter(|(goal, entry)| matches!(goal, Goal::Host(_)) && entry.peer == Some(peer));
        hosts.flat_map(|(_, entry)| &entry.addresses).filter(|address| !address.is_tcp()).copied().collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// True where the goal is being dialled.
    pub fn is_dialling(&self, goal: &Goal) -> bool {
        self.entries.get(goal).is_some_and(|entry| matches!(entry.state, State::Dialling { .. }))
    }

    /// Peers known from gossip of which all addresses have failed, or that have refused.
    pub fn failed_peers(&self) -> Vec<PeerName> {
        let failed = |entry: &Entry| entry.state == State::Waiting && entry.error.is_some() && entry.backoff > BACKOFF_FIRST;
        let peers = self.entries.iter().filter(|(_, entry)| failed(entry) || entry.state == State::Own);
        peers.filter_map(|(goal, _)| if let Goal::Peer(name) = goal { Some(*name) } else { None }).collect()
    }

    /// Peers known from gossip that are pursued and have no link yet.
    pub fn unlinked_peers(&self) -> usize {
        self.entries.iter().filter(|(goal, entry)| matches!(goal, Goal::Peer(_)) && entry.state != State::Linked).count()
    }

    /// Drops the peers known from gossip that wait for an attempt.
    pub fn remove_waiting_peers(&mut self) {
        let waits = |(goal, entry): (&Goal, &Entry)| matches!(goal, Goal::Peer(_)) && entry.state == State::Waiting && entry.peer.is_none();
        if self.entries.iter().any(waits) {
            self.entries.retain(|goal, entry| !waits((goal, entry)));
        }
    }

    /// Learned goals, for weeding.
    pub fn learned(&self) -> Vec<Goal> {
        self.entries.keys().filter(|goal| !matches!(goal, Goal::Host(_))).cloned().collect()
    }

    /// The answer to a question for addresses.
    pub fn resolved(&mut self, now: Time, target: &Target, result: Result<Vec<Address>, String>, rng: &mut dyn Rng) {
        let goal = Goal::Host(target.clone());
        let Some(entry) = self.entries.get_mut(&goal) else { return };
        match entry.state {
            State::Resolving { .. } => {}
            State::Waiting | State::Dialling { .. } | State::Linked | State::Own => return,
        }
        match result {
            Ok(addresses) if !addresses.is_empty() => {
                entry.addresses = addresses;
                entry.addresses.truncate(MAX_ADDRESSES);
                entry.cursor %= entry.addresses.len();
                entry.state = State::Dialling { handshaking: false };
                entry.due = now;
            }
            Ok(_) => entry.fail(now, Failure::Silent, format!("'{target}' has no address"), &goal, rng),
            Err(why) => entry.fail(now, Failure::Silent, why, &goal, rng),
        }
    }

    /// What is due now. `linked` tells whether a link leads to a peer, `room` whether learned goals may be dialled.
    pub fn poll(&mut self, now: Time, linked: &dyn Fn(PeerName) -> bool, room: bool) -> Vec<Action> {
        let mut actions = Vec::new();
        let busy = |(goal, entry): &(&Goal, &Entry)| !matches!(goal, Goal::Host(_)) && matches!(entry.state, State::Dialling { .. });
        let mut learned = self.entries.iter().filter(busy).count();
        for (goal, entry) in self.entries.iter_mut() {
            if let Some(peer) = entry.peer_of(goal)
                && linked(peer)
            {
                entry.state = State::Linked;
                entry.error = None;
                entry.urgent = false;
                entry.backoff = BACKOFF_FIRST;
                continue;
            }
            if entry.state == State::Linked {
                entry.state = State::Waiting;
                entry.due = now;
            }
            if let Some(action) = entry.step(now, goal, room && learned < LEARNED_AT_ONCE) {
                learned += usize::from(!matches!(goal, Goal::Host(_)));
                actions.push(action);
            }
        }
        self.entries.settle();
        actions
    }

    /// The attempt at `goal` heard an answer, and keys are being agreed.
    pub fn handshaking(&mut self, goal: &Goal) {
        if let Some(entry) = self.entries.get_mut(goal)
            && let State::Dialling { handshaking } = &mut entry.state
        {
            *handshaking = true;
        }
    }

    /// The attempt at `goal` goes on, but will hardly succeed.
    pub fn troubled(&mut self, goal: &Goal, why: &str) {
        if let Some(entry) = self.entries.get_mut(goal) {
            entry.error = Some(why.to_string());
        }
    }

    /// The attempt at `goal` found `peer`; the link is agreed on next, within `grace`.
    pub fn found(&mut self, now: Time, goal: &Goal, peer: PeerName, grace: Duration) {
        if let Some(entry) = self.entries.get_mut(goal) {
            entry.peer = Some(peer);
            entry.error = None;
            entry.failures = 0;
            entry.renewed_since = None;
            entry.state = State::Waiting;
            entry.due = now + grace;
        }
    }

    /// A link with `peer` has ended: a goal that leads there, and waits for nothing else, waits no longer.
    pub fn link_lost(&mut self, now: Time, peer: PeerName) {
        for (goal, entry) in self.entries.iter_mut() {
            if entry.peer_of(goal) == Some(peer) && entry.state == State::Waiting && entry.error.is_none() {
                entry.due = entry.due.min(now);
            }
        }
    }

    /// The address of `goal` is being dialled for another one: look again in a moment.
    pub fn put_off(&mut self, now: Time, goal: &Goal) {
        if let Some(entry) = self.entries.get_mut(goal) {
            entry.state = State::Waiting;
            entry.due = now + BACKOFF_FIRST;
        }
    }

    /// The attempt at `goal` failed.
    pub fn failed(&mut self, now: Time, goal: &Goal, failure: Failure, why: &str, rng: &mut dyn Rng) {
        let Some(entry) = self.entries.get_mut(goal) else { return };
        entry.fail(now, failure, why.to_string(), goal, rng);
        if matches!(goal, Goal::Hint(_)) && entry.failures >= MOST_HINT_FAILURES {
            self.entries.remove(goal);
        }
    }

    /// The dial of the next address of `goal`, to the last of which there was no way; none where its round is over.
    pub fn next_address(&mut self, now: Time, goal: &Goal) -> Option<Action> {
        let entry = self.entries.get_mut(goal).filter(|entry| entry.cursor > 0 && entry.state == State::Waiting)?;
        entry.due = now;
        entry.step(now, goal, true)
    }

    /// The link that was agreed on with `peer` was refused after all.
    pub fn refused_by(&mut self, now: Time, peer: PeerName, failure: Failure, why: &str, rng: &mut dyn Rng) {
        for (goal, entry) in self.entries.iter_mut() {
            if entry.peer_of(goal) == Some(peer) && entry.state != State::Own {
                entry.fail(now, failure, why.to_string(), goal, rng);
            }
        }
    }

    /// Our addresses changed: an address that was our own may be another's now, and what was out of reach may not be. Where one was `gained`, names
    /// that were asked for without a network are asked for anew, and so are handshakes to begin that nobody has answered: those for these goals,
    /// each at its time.
    pub fn addresses_changed(&mut self, now: Time, gained: bool) -> Vec<(Goal, Time)> {
        let mut unanswered = Vec::new();
        for (goal, entry) in self.entries.iter_mut() {
            let at = entry.renewal(now);
            let (gained, under_way) = (gained && entry.may_renew(now), !matches!(entry.state, State::Own | State::Waiting));
            match entry.state {
                State::Own | State::Waiting => {
                    entry.state = State::Waiting;
                    entry.due = entry.due.min(at);
                    entry.backoff = BACKOFF_FIRST;
                }
                State::Resolving { .. } if gained => (entry.state, entry.due) = (State::Waiting, at),
                State::Dialling { handshaking: false } if gained => {
                    unanswered.push((goal.clone(), at));
                    // A connection was made from an address that may be gone.
                    if matches!(goal, Goal::Host(target) if target.tcp) {
                        (entry.state, entry.due) = (State::Waiting, at);
                    }
                }
                State::Resolving { .. } | State::Dialling { .. } | State::Linked => continue,
            }
            // What is being dialled, and has begun anew a moment ago, is only repeated then.
            if gained && (at == now || entry.state == State::Waiting) {
                entry.renewed = Some(at);
            }
            if under_way {
                entry.renewed_since.get_or_insert(at);
            }
        }
        unanswered
    }

    /// Something of ours came from this address: a target there is tried now, if it waits for nothing but time.
    pub fn sign_of_life(&mut self, now: Time, address: Address) {
        if !self.entries.values().any(|entry| entry.addresses.contains(&address)) {
            return;
        }
        for entry in self.entries.values_mut().filter(|entry| entry.addresses.contains(&address)) {
            if entry.state == State::Waiting && (entry.backoff < BACKOFF_SLOW || entry.no_way) {
                entry.due = entry.due.min(now + BACKOFF_FIRST);
            }
        }
    }

    /// When [`Targets::poll`] is due again; links going down make it due besides.
    pub fn due(&self) -> Option<Time> {
        self.entries.due()
    }

    /// The goal's state and error, for `status connections`: hosts that are not linked.
    pub fn attempts(&self) -> impl Iterator<Item = (String, ConnectionState, Option<Address>, Option<PeerName>, Option<&str>)> {
        self.entries.iter().filter_map(|(goal, entry)| {
            let Goal::Host(target) = goal else { return None };
            if entry.state == State::Linked {
                return None;
            }
            let address = entry.current();
            Some((target.to_string(), entry.connection_state(), address, entry.peer, entry.error.as_deref()))
        })
    }

    /// The host text by which `peer` was configured.
    pub fn target_of(&self, peer: PeerName) -> Option<String> {
        self.entries.iter().find_map(|(goal, entry)| match goal {
            Goal::Host(target) if entry.peer == Some(peer) => Some(target.to_string()),
            Goal::Host(_) | Goal::Peer(_) | Goal::Hint(_) => None,
        })
    }

    /// Hosts named by a person, for the snapshot.
    pub fn snapshot(&self, now: Time) -> Vec<TargetState> {
        let states = self.entries.iter().filter_map(|(goal, entry)| {
            let Goal::Host(target) = goal else { return None };
            let waiting = entry.state == State::Waiting;
            Some(TargetState {
                target: target.to_string(),
                state: entry.connection_state(),
                addresses: entry.addresses.clone(),
                peer: entry.peer,
                retry_in_ms: waiting.then(|| u64::try_from(entry.due.since(now).as_millis()).unwrap_or(u64::MAX)),
                error: entry.error.clone(),
            })
        });
        states.collect()
    }
}

/// `pause` plus or minus a quarter, so that many routers do not retry in step.
pub fn jitter(pause: Duration, rng: &mut dyn Rng) -> Duration {
    let share = rng.next_u32() % 512;
    pause * (768 + share) / 1024
}

#[cfg(test)]
mod tests;
