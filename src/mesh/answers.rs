//! Handshakes that others start.
//!
//! ```text
//!   first message (IK) ── answer ──► session, unconfirmed
//!   first message (XX) ── answer ──► half open ── third message ──► session, unconfirmed
//!                                        └── 10 s ──► forgotten
//! ```
//!
//! A repeated first message gets the same answer again, byte for byte; a repeated part of one gets that part of the answer, so
//! that no datagram is answered with more than it brought once the whole has been. Half-open handshakes are bounded, in all and
//! per host.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::config::Outbox;
use super::core::{Member, Mesh};
use super::guard::Admission;
use super::handshakes::{Attempt, Way};
use super::send::clear;
use crate::crypto::handshake::FIRST_MESSAGE_LEN;
use crate::crypto::{Answer, Established, HandshakeError, Next, Pattern, PublicIdentity, PublicKey, Question, Responder, Session, Stamp};
use crate::time::Time;
use crate::wire::handshake::{Handshake, Reject, TOKEN_LEN, Type};
use crate::wire::{Address, Kind, PeerName};

/// How long an answer is kept for repetitions, and a half-open handshake for its third message.
const KEEP: Duration = Duration::from_secs(10);
/// Answers kept in all.
const MOST: usize = 1024;
/// Answers kept per host: a NAT may hide a few dozen routers.
const MOST_PER_HOST: usize = 64;
/// Third messages that may fail before a half-open handshake is forgotten.
const MOST_FAILURES: u8 = 4;

#[derive(Debug)]
struct Kept {
    /// The message as it came, in one part or more.
    first: Vec<Vec<u8>>,
    /// Datagrams.
    answer: Vec<Vec<u8>>,
    at: Time,
    index: u32,
    half_open: Option<Box<Responder>>,
    failures: u8,
    /// True where a token had shown that the sender is where it says.
    proven: bool,
}

/// Answers given lately, by where the question came from and its sender's index.
#[derive(Debug, Default)]
pub struct Answers {
    kept: BTreeMap<(Way, u32), Kept>,
}

impl Answers {
    /// True where `index` is ours in a half-open handshake.
    pub fn uses(&self, index: u32) -> bool {
        self.kept.values().any(|kept| kept.index == index && kept.half_open.is_some())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.kept.len()
    }

    /// Forgets what is old.
    pub fn expire(&mut self, now: Time) {
        self.kept.retain(|_, kept| now.since(kept.at) < KEEP);
    }

    /// These sessions of ours have ended: nobody is told of them any more, or nobody by this way.
    pub(super) fn forget(&mut self, by: Option<Way>, sessions: &[u32]) {
        self.kept.retain(|(way, _), kept| by.is_some_and(|by| by != *way) || !sessions.contains(&kept.index));
    }

    /// Whether one more may be kept. A `proven` sender takes the place of the oldest that is not.
    fn make_room(&mut self, way: Way, proven: bool) -> bool {
        let same_host = |other: &Way| way.is_same_host(*other);
        let crowded = self.kept.keys().filter(|(other, _)| same_host(other)).count() >= MOST_PER_HOST;
        if !crowded && self.kept.len() < MOST {
            return true;
        }
        let unproven = self.kept.iter().filter(|((other, _), kept)| !kept.proven && (!crowded || same_host(other)));
        let oldest = unproven.min_by_key(|(_, kept)| kept.at).map(|(key, _)| *key).filter(|_| proven);
        oldest.is_some_and(|key| self.kept.remove(&key).is_some())
    }
}

impl Mesh {
    /// True where this is a first message, or a part of one, that was answered already: sends the same again. `len` is that of
    /// its datagram.
    pub(super) fn answer_again(&mut self, way: Way, shake: &Handshake<'_>, len: usize, out: &mut Outbox) -> bool {
        let Some(kept) = self.answers.kept.get(&(way, shake.sender_index)) else { return false };
        let part = usize::from(shake.fragment);
        if kept.first.len() != usize::from(shake.fragments) || kept.first.get(part).is_none_or(|first| first != shake.message) {
            return false;
        }
        let all = kept.first.len() == 1;
        let answer = kept.answer.iter().enumerate().filter(|(at, datagram)| all || *at == part && datagram.len() <= len);
        let answer: Vec<Vec<u8>> = answer.map(|(_, datagram)| datagram.clone()).collect();
        answer.into_iter().for_each(|datagram| self.send_way(way, datagram, out));
        true
    }

    /// A first message, which came in these parts. `len` is that of its datagrams.
    pub(super) fn on_first(&mut self, now: Time, way: Way, shake: &Handshake<'_>, parts: Vec<Vec<u8>>, len: usize, out: &mut Outbox) {
        if self.left || self.yields_to_ours(way, shake.source) || self.answer_again(way, shake, len, out) {
            return;
        }
        let Some(proven) = self.is_worth_reading(now, way, shake, out) else { return };
        let pattern = if shake.kind == Type::IkOne { Pattern::Ik } else { Pattern::Xx };
        let question = match Question::read(&self.local, pattern, shake.message, &mut self.rng) {
            Ok(question) => question,
            Err(error) => return self.refuse_error(now, way, shake, &error, out),
        };
        if let (Some(peer), Some(stamp)) = (question.peer().copied(), question.stamp())
            && !self.is_fresh(now, way, shake, &peer, stamp, out)
        {
            return;
        }
        let (index, stamp) = (self.free_index(), self.next_stamp());
        match question.answer(&self.local, stamp, index) {
            Ok(answer) => self.answered(now, way, shake, (answer, index, parts, len, proven), out),
            Err(error) => self.refuse_error(now, way, shake, &error, out),
        }
    }

    /// Whether a first message is to be read, as far as its cost is concerned; if so, whether its sender has shown to be where
    /// it says.
    fn is_worth_reading(&mut self, now: Time, way: Way, shake: &Handshake<'_>, out: &mut Outbox) -> Option<bool> {
        // Whoever sends less than our answer would be sends it for the sake of the answer.
        if shake.message.len() < FIRST_MESSAGE_LEN {
            self.counters.handshakes_malformed.inc();
            return None;
        }
        let linked = matches!(way, Way::Direct(address) if self.link_at(address).is_some());
        let again = match self.guard.admit(now, way, shake, linked) {
            Admission::Serve { proven } => {
                if let Way::Direct(address) = way
                    && let Err((reject, why)) = self.address_allowed(address)
                {
                    self.refuse(now, way, shake, Some(reject), why, out);
                    return None;
                }
                self.answers.expire(now);
                if self.answers.make_room(way, proven) {
                    return Some(proven);
                }
                self.put_off(now, way, shake, proven, out);
                return None;
            }
            Admission::Retry(token) => Some(token),
            Admission::Drop => None,
        };
        match again {
            Some(token) => self.send_retry(way, shake, token, out),
            None => self.counters.handshakes_limited.inc(),
        }
        None
    }

    /// There is no room for a first message, but for those who come back with a token.
    pub(super) fn put_off(&mut self, now: Time, way: Way, shake: &Handshake<'_>, proven: bool, out: &mut Outbox) {
        match self.guard.ask_again(now, way, shake).filter(|_| !proven) {
            Some(token) => self.send_retry(way, shake, token, out),
            None => self.counters.handshakes_limited.inc(),
        }
    }

    /// Whether our own handshake under way goes before the one of `source`.
    fn yields_to_ours(&self, way: Way, source: PeerName) -> bool {
        let counts = |attempt: &Attempt| attempt.way == way && !attempt.is_stale();
        let proving = |attempt: &Attempt| attempt.peer == Some(source) && attempt.pending.is_some();
        self.own < source && self.attempts.values().any(|attempt| counts(attempt) || proving(attempt))
    }

    /// Checks the initiator that an IK message names; says what is wrong.
    fn is_fresh(&mut self, now: Time, way: Way, shake: &Handshake<'_>, peer: &PublicIdentity, stamp: Stamp, out: &mut Outbox) -> bool {
        let name = peer.name();
        if name != shake.source {
            self.counters.handshakes_malformed.inc();
            return false;
        }
        if let Err((reject, why)) = self.admit(peer, true, way) {
            self.refuse(now, way, shake, Some(reject), why, out);
            return false;
        }
        let last = self.members.get(&name).map(|member| member.stamp).unwrap_or_default();
        if stamp <= last {
            self.counters.stale_stamps.inc();
            // Where it is of the same life it may just be late; through relays nobody's log speaks of that.
            if stamp.incarnation < last.incarnation || matches!(way, Way::Relayed(_)) {
                self.reject(now, way, shake, Reject::Stale, out);
            }
            if stamp.incarnation == last.incarnation {
                self.call_back(now, name, out);
            }
            return false;
        }
        // Crossing initiations: the lower name's wins. One that travels another way may never arrive, so it crosses nothing.
        let crossing = self.attempts.values().any(|attempt| attempt.way == way && attempt.pending.is_none() && !attempt.is_stale());
        !(crossing && self.own < name)
    }

    fn answered(
        &mut self,
        now: Time,
        way: Way,
        shake: &Handshake<'_>,
        (answer, index, first, len, proven): (Answer, u32, Vec<Vec<u8>>, usize, bool),
        out: &mut Outbox,
    ) {
        let number = if shake.kind == Type::IkOne { Type::IkTwo } else { Type::XxTwo };
        let parts = Handshake::whole(self.own, number, index, &answer.message).cut();
        let datagrams: Vec<Vec<u8>> =
            parts.map(|part| clear(kind_of(way), shake.source, shake.sender_index, |out| part.write(out))).collect();
        if datagrams.iter().map(Vec::len).sum::<usize>() > len {
            return self.counters.handshakes_malformed.inc();
        }
        let half_open = match answer.next {
            Next::Third(responder) => Some(responder),
            Next::Established(established) => {
                if let Err((reject, why)) = self.admit(&established.peer, established.authenticated, way) {
                    return self.refuse(now, way, shake, Some(reject), why, out);
                }
                let (session, member) = self.member_of(now, *established);
                self.complete(now, session, member, way, false, None, out);
                None
            }
        };
        let kept = Kept { first, answer: datagrams.clone(), at: now, index, half_open, failures: 0, proven };
        self.answers.kept.insert((way, shake.sender_index), kept);
        datagrams.into_iter().for_each(|datagram| self.send_way(way, datagram, out));
    }

    /// The third message of an XX handshake.
    pub(super) fn on_third(&mut self, now: Time, way: Way, index: u32, shake: &Handshake<'_>, out: &mut Outbox) {
        let key = (way, shake.sender_index);
        let Some(kept) = self.answers.kept.get_mut(&key).filter(|kept| kept.index == index) else {
            return self.counters.handshakes_malformed.inc();
        };
        // Repeated because our word on the new session is still under way.
        let Some(responder) = &mut kept.half_open else { return };
        match responder.read_third(&self.local, shake.message) {
            Ok(established) => {
                kept.half_open = None;
                if established.peer.name() != shake.source {
                    return self.counters.handshakes_malformed.inc();
                }
                if let Err((reject, why)) = self.admit(&established.peer, established.authenticated, way) {
                    return self.refuse(now, way, shake, Some(reject), why, out);
                }
                // It may say an older incarnation than before, if its state is an old copy. The message is fresh all the same,
                // as it answers our own randomness; from the gossip that router learns which incarnation to go on with.
                let (session, member) = self.member_of(now, established);
                self.complete(now, session, member, way, false, None, out);
            }
            Err(error) => {
                kept.failures += 1;
                if kept.failures >= MOST_FAILURES {
                    kept.half_open = None;
                }
                self.refuse_error(now, way, shake, &error, out);
            }
        }
    }

    /// Splits what a handshake gave into the session, its time set, and what is remembered of the peer.
    pub(super) fn member_of(&self, now: Time, established: Established) -> (Arc<Session>, Member) {
        let Established { mut session, peer, stamp, offer, authenticated, psk_index, .. } = established;
        session.set_established(now);
        let authenticated = authenticated || !self.config.allow.is_empty();
        let nickname = offer.nickname.unwrap_or_default();
        (Arc::new(session), Member { identity: peer, nickname, authenticated, stamp, psk_index })
    }

    /// Whether a router may have a session with us at all.
    pub(super) fn admit(&self, peer: &PublicIdentity, authenticated: bool, way: Way) -> Result<(), (Reject, String)> {
        let (name, key) = (peer.name(), peer.key);
        if !self.config.allow.is_empty() && !self.config.allow.contains(&key) {
            return Err((Reject::NotAllowed, format!("the key {key} of {name} is not allowed here: add --allow {key}")));
        }
        if let Some(refusal) = self.refusal_of_revoked(&key) {
            return Err(refusal);
        }
        let known = self.known_key(name);
        if known.is_some_and(|known| known != key) {
            let why = format!("a different router with the name {name} is known: give one of the two a new identity");
            return Err((Reject::NameClash, why));
        }
        match way {
            Way::Direct(address) if !authenticated => self.address_allowed(address),
            Way::Direct(_) | Way::Relayed(_) => Ok(()),
        }
    }

    /// The key of the router with this name, as far as it is known.
    pub(super) fn known_key(&self, name: PeerName) -> Option<PublicKey> {
        let told = self.store.node(name).map(|node| node.identity.key);
        told.or_else(|| self.members.get(&name).map(|member| member.identity.key))
    }

    /// Whether links to and from this address are taken: without password and pins, private ones only.
    pub(super) fn address_allowed(&self, address: Address) -> Result<(), (Reject, String)> {
        let secret = self.local.psks.iter().any(|psk| psk.is_secret());
        if secret || !self.config.allow.is_empty() || self.config.open || address.is_private() {
            return Ok(());
        }
        let why = format!(
            "{address} is a public address and nothing authenticates this mesh: set a --password on all routers, pin keys with --allow, \
             or accept anybody with --open"
        );
        Err((Reject::Unauthenticated, why))
    }

    fn refuse_error(&mut self, now: Time, way: Way, shake: &Handshake<'_>, error: &HandshakeError, out: &mut Outbox) {
        let why = match error {
            HandshakeError::Password => format!("wrong password: {error}"),
            other => other.to_string(),
        };
        match error {
            HandshakeError::Malformed(_) | HandshakeError::Over | HandshakeError::NoSuchPassword(_) => {
                self.counters.handshakes_malformed.inc()
            }
            _ => self.refuse(now, way, shake, error.reject(), why, out),
        }
    }

    /// Refuses a handshake: a short word to its sender, a line for the log, an entry in the status.
    pub(super) fn refuse(&mut self, now: Time, way: Way, shake: &Handshake<'_>, reject: Option<Reject>, why: String, out: &mut Outbox) {
        self.counters.handshakes_refused.inc();
        if let Some(reject) = reject {
            self.reject(now, way, shake, reject, out);
        }
        let whom = match way {
            Way::Direct(address) => {
                self.note_refusal(now, address, &why);
                address.socket_addr().ip().to_string()
            }
            Way::Relayed(peer) => peer.to_string(),
        };
        self.refused(whom, why, out);
    }

    pub(super) fn reject(&mut self, now: Time, way: Way, shake: &Handshake<'_>, reject: Reject, out: &mut Outbox) {
        if !self.guard.may_reject(now) {
            return;
        }
        let body = reject.to_bytes();
        self.send_aside(way, shake, Kind::Reject, Type::Reject, &body, out);
    }

    fn send_retry(&mut self, way: Way, shake: &Handshake<'_>, token: [u8; TOKEN_LEN], out: &mut Outbox) {
        self.counters.retries_sent.inc();
        self.send_aside(way, shake, Kind::Retry, Type::Retry, &token, out);
    }

    /// A word beside the handshake: a kind of its own when direct, a handshake type when relayed.
    fn send_aside(&mut self, way: Way, shake: &Handshake<'_>, kind: Kind, number: Type, body: &[u8], out: &mut Outbox) {
        let datagram = match way {
            Way::Direct(_) => clear(kind, shake.source, shake.sender_index, |out| out.extend_from_slice(body)),
            Way::Relayed(_) => clear(Kind::HandshakeRelayed, shake.source, shake.sender_index, |out| {
                Handshake::whole(self.own, number, 0, body).write(out);
            }),
        };
        self.send_way(way, datagram, out);
    }
}

fn kind_of(way: Way) -> Kind {
    match way {
        Way::Direct(_) => Kind::HandshakeDirect,
        Way::Relayed(_) => Kind::HandshakeRelayed,
    }
}

#[cfg(test)]
mod tests;
