//! Handshakes that we start.
//!
//! ```text
//!          first message                answer (XX)                 a datagram opened
//!  begin ───────────────► Asked ──────────────────────► Proving ─────────────────────► session
//!                           │ answer (IK)                  │
//!                           └──────────────────────────────┼─────────────────────────► session
//!                           │ no answer                    │ no answer
//!                           └──────────────────────────────┴─────────────────────────► failed
//! ```
//!
//! | state | sends | again |
//! | --- | --- | --- |
//! | Asked | first message | after 0.5, 1, 2, 4 s; 2 s after the last it has failed |
//! | Proving | third message and a sealed confirmation | after 0.25, 0.5, 1, 2 s |
//!
//! Anybody can say that a handshake was refused. So a refusal ends nothing: it is remembered, and told as the likely reason
//! when the last message stays without an answer.
//!
//! Crossing initiations: the lower name's wins, so the router with the lower name passes over the other's first
//! message while its own is under way, and the other gives up its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::config::Outbox;
use super::core::{Member, Mesh};
use super::fragments::Parts;
use super::seeking::Outcome;
use super::send::clear;
use super::targets::{Action, Failure, Goal};
use crate::crypto::{Exchange, HandshakeError, Initiator, Pattern, PublicIdentity, Session, Start};
use crate::time::Time;
use crate::wire::handshake::{Handshake, Reject, TOKEN_LEN, Type};
use crate::wire::{Address, Kind, PeerName};

/// How long the first repetition waits; each further one waits twice as long, through relays no longer than the first.
const RETRANSMIT: Duration = Duration::from_millis(500);
/// The same for the third message: the peer has just answered.
const RETRANSMIT_THIRD: Duration = Duration::from_millis(250);
/// Times a message is sent to a host somebody named, or to a peer that frames wait for.
const TRIES: u8 = 5;
/// The same for addresses that were only learned: most of them are behind some NAT.
const TRIES_LEARNED: u8 = 3;
/// The same through relays, at a steady pace: several hops lose more than one, messages of two parts most of all, and the peer is known
/// to be there.
const TRIES_RELAYED: u8 = 14;
/// The same before a router of unknown age is taken for one that speaks X25519 only (`--classic-ok`).
const TRIES_HYBRID: u8 = 2;
/// Handshakes under way at once.
const MOST_ATTEMPTS: usize = 512;

/// How handshake datagrams travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Straight to, or from, this address.
    Direct(Address),
    /// Through relays to, or from, this router.
    Relayed(PeerName),
}

impl Way {
    /// True where both lead to one host, as far as can be told.
    pub(super) fn is_same_host(self, other: Way) -> bool {
        match (self, other) {
            (Way::Direct(a), Way::Direct(b)) => a.socket_addr().ip() == b.socket_addr().ip(),
            (Way::Relayed(a), Way::Relayed(b)) => a == b,
            (Way::Direct(_), Way::Relayed(_)) | (Way::Relayed(_), Way::Direct(_)) => false,
        }
    }
}

/// A session that waits for the peer's proof, and who the peer is.
#[derive(Debug)]
pub struct Pending {
    /// The session.
    pub session: Arc<Session>,
    pub(super) member: Member,
}

/// A handshake of ours under way.
#[derive(Debug)]
pub struct Attempt {
    /// Which target it is for; none for rekeys and sessions through relays.
    pub goal: Option<Goal>,
    /// How it travels.
    pub way: Way,
    /// With whom, where that is known beforehand.
    pub peer: Option<PeerName>,
    /// The session, once the third message of XX is out.
    pub pending: Option<Pending>,
    /// When it is continued.
    pub due: Time,
    initiator: Initiator,
    /// The counter in its stamp.
    counter: u64,
    pattern: Pattern,
    pub(super) exchange: Exchange,
    /// What has come of an answer that takes several datagrams.
    parts: Parts,
    psk_index: usize,
    first: Vec<u8>,
    third: Option<(u32, Vec<u8>)>,
    token: Option<[u8; TOKEN_LEN]>,
    sent: u8,
    tries: u8,
    /// True where the message that was sent last has been sent again because of a token.
    retried: bool,
    pub(super) known: Option<PublicIdentity>,
    /// Passwords that have not been tried beside this one.
    pub(super) others: usize,
    refused: Option<Reject>,
    error: Option<String>,
}

impl Attempt {
    /// What has come of the answer, while one is waited for.
    pub(super) fn parts(&mut self) -> Option<&mut Parts> {
        self.third.is_none().then_some(&mut self.parts)
    }

    /// True where somebody says that the peer has seen a later handshake of ours: then it may be the one whose handshake counts. Where that is a
    /// lie ours goes on.
    pub(super) fn is_stale(&self) -> bool {
        self.refused == Some(Reject::Stale)
    }
}

impl Mesh {
    /// Pursues the targets that are due.
    pub(super) fn dial(&mut self, now: Time, out: &mut Outbox) {
        if self.left {
            return;
        }
        let adjacencies = &self.adjacencies;
        let linked = |peer: PeerName| adjacencies.get(&peer).is_some_and(|adjacency| adjacency.is_link());
        let room = self.has_room();
        let mut actions = VecDeque::from(self.targets.poll(now, &linked, room));
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Resolve(target) => out.events.push(super::command::Event::Resolve(target)),
                Action::Dial(goal, address) if !self.may_lead(&goal, address) => {
                    self.counters.handshakes_without_way.inc();
                    self.targets.failed(now, &goal, Failure::NoWay, "this host has no way there", &mut self.rng);
                    actions.extend(self.targets.next_address(now, &goal));
                }
                Action::Dial(goal, address) => self.dial_address(now, goal, address, out),
            }
        }
    }

    fn dial_address(&mut self, now: Time, goal: Goal, address: Address, out: &mut Outbox) {
        if self.config.is_own(address) {
            return self.targets.failed(now, &goal, Failure::Own, "that is this router's own address", &mut self.rng);
        }
        if let Err((_, why)) = self.address_allowed(address) {
            self.refused(goal_text(&goal, address), why.clone(), out);
            return self.targets.failed(now, &goal, Failure::Refused, &why, &mut self.rng);
        }
        let way = Way::Direct(address);
        if let Some(attempt) = self.attempts.values_mut().find(|attempt| attempt.way == way) {
            match &attempt.goal {
                None => attempt.goal = Some(goal),
                Some(other) if *other == goal => {}
                // Two goals lead there and one handshake is enough, but the other must not wait for an end it is never told.
                Some(_) => self.targets.put_off(now, &goal),
            }
            return;
        }
        let known = match &goal {
            Goal::Peer(name) => self.store.node(*name).map(|node| node.identity),
            Goal::Host(_) | Goal::Hint(_) => None,
        };
        if !self.begin(now, way, Some(goal.clone()), known, out) {
            self.targets.failed(now, &goal, Failure::Silent, "too many handshakes are under way", &mut self.rng);
        }
    }

    /// Starts a handshake: IK with a known identity, else XX. False where it cannot be started.
    pub(super) fn begin(&mut self, now: Time, way: Way, goal: Option<Goal>, known: Option<PublicIdentity>, out: &mut Outbox) -> bool {
        let exchange = self.exchange_with(known.as_ref());
        self.begin_trying(now, (way, goal, known), (self.local.psks.count().saturating_sub(1), exchange), out)
    }

    /// The same, where so many `others` of our passwords may still be tried.
    pub(super) fn begin_trying(
        &mut self,
        now: Time,
        (way, goal, known): (Way, Option<Goal>, Option<PublicIdentity>),
        (others, exchange): (usize, Exchange),
        out: &mut Outbox,
    ) -> bool {
        if self.attempts.len() >= MOST_ATTEMPTS {
            return false;
        }
        let index = self.free_index();
        let stamp = self.next_stamp();
        let psk_index = self.psk_for(&way, known.as_ref());
        let start = Start { psk_index, stamp, local_index: index, exchange };
        let started = match &known {
            Some(peer) => Initiator::start_ik(&self.local, peer, start, &mut self.rng),
            None => Initiator::start_xx(&self.local, start, &mut self.rng),
        };
        let (initiator, first) = match started {
            Ok(started) => started,
            Err(error) => {
                let whom = known.map_or_else(|| format!("{way:?}"), |peer| peer.name().to_string());
                self.refused(whom, error.to_string(), out);
                return false;
            }
        };
        let learned = matches!(goal, Some(Goal::Peer(_) | Goal::Hint(_)));
        let pattern = if known.is_some() { Pattern::Ik } else { Pattern::Xx };
        let attempt = Attempt {
            goal,
            way,
            peer: known.map(|peer| peer.name()),
            pending: None,
            due: now,
            initiator,
            counter: stamp.counter,
            pattern,
            exchange,
            parts: Parts::default(),
            psk_index,
            first,
            third: None,
            token: None,
            sent: 0,
            tries: match way {
                _ if exchange == Exchange::Hybrid && self.may_fall_back(known.as_ref()) => TRIES_HYBRID,
                Way::Relayed(_) => TRIES_RELAYED,
                Way::Direct(_) if learned => TRIES_LEARNED,
                Way::Direct(_) => TRIES,
            },
            retried: false,
            known,
            others,
            refused: None,
            error: None,
        };
        self.attempts.insert(index, attempt);
        self.counters.handshakes_started.inc();
        self.continue_attempt(now, index, out);
        true
    }

    /// The password to try: the one that worked, or the next after one that did not.
    fn psk_for(&self, way: &Way, known: Option<&PublicIdentity>) -> usize {
        let remembered = known.and_then(|peer| self.members.get(&peer.name())).map(|member| member.psk_index);
        let next = self.psk_next.get(way).copied();
        next.or(remembered).unwrap_or(0) % self.local.psks.count()
    }

    /// Continues the attempts that are due.
    pub(super) fn tick_attempts(&mut self, now: Time, out: &mut Outbox) {
        let due: Vec<u32> = self.attempts.iter().filter(|(_, attempt)| now >= attempt.due).map(|(index, _)| *index).collect();
        for index in due {
            self.continue_attempt(now, index, out);
        }
    }

    /// Sends the attempt's message again, or ends it.
    fn continue_attempt(&mut self, now: Time, index: u32, out: &mut Outbox) {
        let Some(attempt) = self.attempts.get_mut(&index) else { return };
        if attempt.sent >= attempt.tries {
            return self.give_up(now, index, out);
        }
        let base = if attempt.third.is_some() { RETRANSMIT_THIRD } else { RETRANSMIT };
        let doublings = match attempt.way {
            Way::Relayed(_) => 0,
            // Nothing is sent while the last is waited for: a way that opens meanwhile is found by the next attempt.
            Way::Direct(_) if attempt.third.is_none() && attempt.sent + 1 == attempt.tries => attempt.sent.min(2),
            Way::Direct(_) => attempt.sent.min(4),
        };
        attempt.due = now + base * (1u32 << doublings);
        attempt.sent += 1;
        attempt.retried = false;
        self.send_attempt(index, out);
    }

    fn send_attempt(&mut self, index: u32, out: &mut Outbox) {
        let Some(attempt) = self.attempts.get(&index) else { return };
        let destination = attempt.peer.unwrap_or(PeerName::NONE);
        let kind = match attempt.way {
            Way::Direct(_) => Kind::HandshakeDirect,
            Way::Relayed(_) => Kind::HandshakeRelayed,
        };
        let (remote, whole) = match &attempt.third {
            None => {
                let number = if attempt.pattern == Pattern::Ik { Type::IkOne } else { Type::XxOne };
                (0, Handshake { token: attempt.token, ..Handshake::whole(self.own, number, index, &attempt.first) })
            }
            Some((remote, message)) => (*remote, Handshake::whole(self.own, Type::XxThree, index, message)),
        };
        let datagrams: Vec<Vec<u8>> = whole.cut().map(|part| clear(kind, destination, remote, |out| part.write(out))).collect();
        let confirm = attempt.pending.as_ref().map(|pending| Arc::clone(&pending.session));
        let way = attempt.way;
        datagrams.into_iter().for_each(|datagram| self.send_way(way, datagram, out));
        if let (Some(session), Way::Direct(address)) = (confirm, way) {
            self.ask_for_link(&session, address, out);
        }
    }

    /// Sends a clear datagram the way it is to go.
    pub(super) fn send_way(&mut self, way: Way, datagram: Vec<u8>, out: &mut Outbox) {
        let address = match way {
            Way::Direct(address) => Some(address),
            Way::Relayed(peer) => self.next_hop(peer, None),
        };
        match address {
            Some(address) => out.datagrams.push((address, datagram)),
            None => self.counters.no_route.inc(),
        }
    }

    /// The answer to a first message of ours.
    pub(super) fn on_answer(&mut self, now: Time, way: Way, index: u32, shake: &Handshake<'_>, out: &mut Outbox) {
        let Some(attempt) = self.attempts.get_mut(&index).filter(|attempt| attempt.way == way && attempt.third.is_none()) else {
            return self.counters.handshakes_malformed.inc();
        };
        let expected = if attempt.pattern == Pattern::Ik { Type::IkTwo } else { Type::XxTwo };
        if shake.kind != expected {
            return self.counters.handshakes_malformed.inc();
        }
        let (established, third) = match attempt.initiator.read_answer(&self.local, shake.message) {
            Ok(answer) => answer,
            Err(error) => {
                self.counters.handshakes_malformed.inc();
                attempt.error = Some(error.to_string());
                return match error {
                    HandshakeError::Malformed(_) | HandshakeError::Unreadable => {}
                    HandshakeError::Downgrade => self.fail(now, index, Failure::Silent, error.to_string(), out),
                    _ => self.fail(now, index, Failure::Refused, error.to_string(), out),
                };
            }
        };
        let (goal, counter) = (attempt.goal.clone(), attempt.counter);
        if let Err((_, why)) = self.admit(&established.peer, established.authenticated, way) {
            self.counters.handshakes_refused.inc();
            return self.fail(now, index, Failure::Refused, why, out);
        }
        let (session, member) = self.member_of(now, established);
        let Some(third) = third else {
            self.attempts.remove(&index);
            if !self.keyrings.entry(session.peer()).or_default().answered(counter) {
                return self.overtaken(now, session.peer(), way, goal, out);
            }
            return self.complete(now, session, member, way, true, goal, out);
        };
        if let Some(goal) = &goal {
            self.targets.handshaking(goal);
        }
        if let Some(attempt) = self.attempts.get_mut(&index) {
            attempt.peer = Some(session.peer());
            attempt.pending = Some(Pending { session, member });
            attempt.third = Some((shake.sender_index, third));
            attempt.sent = 0;
        }
        self.continue_attempt(now, index, out);
    }

    /// A datagram was opened on `index`: an XX handshake of ours that waited for it is over.
    pub(super) fn prove_pending(&mut self, now: Time, index: u32, out: &mut Outbox) {
        if self.attempts.get(&index).is_none_or(|attempt| attempt.pending.is_none()) {
            return;
        }
        let Some(attempt) = self.attempts.remove(&index) else { return };
        if let Some(Pending { session, member }) = attempt.pending {
            self.keyrings.entry(session.peer()).or_default().answered(attempt.counter);
            self.complete(now, session, member, attempt.way, true, attempt.goal, out);
        }
    }

    /// Somebody says that our handshake was refused: good for the log line, should no answer come, and for trying the next of
    /// several passwords beside this one.
    pub(super) fn on_reject(&mut self, now: Time, way: Way, index: u32, reject: Reject, out: &mut Outbox) {
        let Some(attempt) = self.attempts.get_mut(&index).filter(|attempt| attempt.way == way) else {
            return self.counters.rejects_ignored.inc();
        };
        let news = attempt.refused.replace(reject) != Some(reject);
        if news && reject == Reject::Password && attempt.others > 0 {
            let others = std::mem::take(&mut attempt.others) - 1;
            let (goal, known, exchange) = (attempt.goal.take(), attempt.known, attempt.exchange);
            self.psk_next.insert(way, (attempt.psk_index + 1) % self.local.psks.count());
            let pursued = goal.clone();
            if let (false, Some(goal)) = (self.begin_trying(now, (way, goal, known), (others, exchange), out), pursued) {
                self.targets.failed(now, &goal, Failure::Silent, "the next password cannot be tried now", &mut self.rng);
            }
        } else if news && !(reject == Reject::Hybrid && self.fall_back(now, index, out)) {
            self.tell_refusal(index, reject, out);
        }
    }

    /// Says in the log and the status what an attempt has heard. It goes on all the same: anybody may have said so.
    fn tell_refusal(&mut self, index: u32, reject: Reject, out: &mut Outbox) {
        let Some(Attempt { way: Way::Direct(address), goal: Some(goal), .. }) = self.attempts.get(&index) else { return };
        let (whom, why, named) = (goal_text(goal, *address), refusal(reject), matches!(goal, Goal::Host(_)));
        self.targets.troubled(goal, &why);
        if named {
            self.refused(whom, why, out);
        }
    }

    /// The responder is under load and wants its token back. Anybody can say so: it costs no try, and one message per try.
    pub(super) fn on_retry(&mut self, way: Way, index: u32, token: [u8; TOKEN_LEN], out: &mut Outbox) {
        let open = |attempt: &&mut Attempt| attempt.way == way && attempt.third.is_none() && !attempt.retried;
        match self.attempts.get_mut(&index).filter(open).filter(|attempt| attempt.token != Some(token)) {
            Some(attempt) => {
                attempt.token = Some(token);
                attempt.retried = true;
                self.send_attempt(index, out);
            }
            None => self.counters.rejects_ignored.inc(),
        }
    }

    /// A handshake message under our own name arrived: the address that we dialled is ours, somebody sends our messages back, or
    /// another router has our key.
    pub(super) fn on_own_name(&mut self, now: Time, from: Address, shake: &Handshake<'_>, out: &mut Outbox) {
        if !shake.kind.is_first() {
            return;
        }
        let index = shake.sender_index;
        let own = |attempt: &Attempt| {
            let mut parts = Handshake::whole(self.own, shake.kind, index, &attempt.first).cut();
            parts.any(|part| (part.fragment, part.fragments, part.message) == (shake.fragment, shake.fragments, shake.message))
        };
        let mine = |attempt: &&mut Attempt| matches!(attempt.way, Way::Direct(_)) && own(attempt);
        let Some(attempt) = self.attempts.get_mut(&index).filter(mine) else {
            return self.reject(now, Way::Direct(from), shake, Reject::OwnKey, out);
        };
        if !self.config.addresses.contains(&from) && !from.socket_addr().ip().is_loopback() {
            // Anybody on the path can do that: it must not end an attempt which the peer may still answer.
            attempt.error = Some(format!("{from} sends this router's own messages back"));
            return;
        }
        if let Some(Attempt { goal: Some(goal), .. }) = self.attempts.remove(&index) {
            let why = format!("{from} is this router itself");
            self.targets.failed(now, &goal, Failure::Own, &why, &mut self.rng);
        }
    }

    /// An attempt has used up its tries.
    fn give_up(&mut self, now: Time, index: u32, out: &mut Outbox) {
        if self.fall_back(now, index, out) {
            return;
        }
        let Some(attempt) = self.attempts.get(&index) else { return };
        let answered = attempt.pending.is_some();
        let why = match (attempt.refused, &attempt.error, answered) {
            (Some(reject), _, _) => refusal(reject),
            (None, Some(error), _) => error.clone(),
            (None, None, true) => "the peer answered, but did not prove to have the same password".to_string(),
            (None, None, false) => "no answer".to_string(),
        };
        // A peer that answered and then fell silent has refused, whatever anybody says.
        let failure = if answered { Failure::Refused } else { Failure::Silent };
        if !answered {
            self.counters.handshakes_timed_out.inc();
        }
        let (way, next, count) = (attempt.way, attempt.psk_index + 1, self.local.psks.count());
        let tried_out = answered || attempt.refused == Some(Reject::Password);
        let another = tried_out && next < count;
        if tried_out && count > 1 {
            self.psk_next.insert(way, next % count);
        }
        self.fail(now, index, if another { Failure::Silent } else { failure }, why, out);
    }

    /// Ends an attempt without a session.
    pub(super) fn fail(&mut self, now: Time, index: u32, failure: Failure, why: String, out: &mut Outbox) {
        let Some(attempt) = self.attempts.remove(&index) else { return };
        if let (Some(peer), Way::Direct(address)) = (attempt.peer, attempt.way) {
            self.note_trial(now, peer, address, Outcome::Failed(why.clone()));
        }
        let Some(goal) = attempt.goal else { return };
        if let (Goal::Host(_), Way::Direct(address)) = (&goal, attempt.way) {
            self.refused(goal_text(&goal, address), why.clone(), out);
        }
        self.targets.failed(now, &goal, failure, &why, &mut self.rng);
    }
}

/// A refusal as the log and the status name it.
fn refusal(reject: Reject) -> String {
    let kind = if reject == Reject::Password { "wrong password" } else { "refused" };
    format!("{kind}: {reject}")
}

/// A goal as the log names it.
fn goal_text(goal: &Goal, address: Address) -> String {
    match goal {
        Goal::Host(target) => target.to_string(),
        Goal::Peer(name) => format!("{name} at {address}"),
        Goal::Hint(address) => address.to_string(),
    }
}
