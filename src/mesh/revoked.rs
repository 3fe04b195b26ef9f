//! Members that are put out of the mesh.
//!
//! What an administrator signed ([`Revocation`]) travels as records of the gossip ([`REVOKED_RECORD`]), so that it is with everybody as soon as any
//! news is. Whoever it is about loses its sessions and links, is refused at handshakes, and is no member in anything that gossip says. Who hears
//! it keeps it on disk ([`Event::Revoked`]) and says it again once nobody else who can be reached does: so it outlives the router
//! that said it first, and one that says it is enough. A router without an admin key carries such records and goes by none of them.
//!
//! Without a signature a revocation is this router's own affair.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use rand_core::Rng;

use super::command::Event;
use super::config::Outbox;
use super::core::Mesh;
use super::gossip::Output;
use super::snapshot::RevokedMember;
use super::targets::{Failure, Goal};
use crate::crypto::{PublicKey, Revocation};
use crate::forward::limit::TokenBucket;
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::handshake::Reject;

/// Record kind of revocations: as many in one body as fit, each key and signature.
pub const REVOKED_RECORD: u8 = 16;
/// Revocations in one record.
const PER_RECORD: usize = crate::wire::record::MAX_BODY / Revocation::LEN;
/// Most revocations: what one router can say.
const MOST: usize = PER_RECORD * super::apps::MAX_CHUNKS;
/// Whoever finds that nobody says a revocation any more waits for up to so long before it does: one is enough.
const SPREAD: Duration = Duration::from_secs(10);

/// Signatures checked beside the first of each record, per second and the burst: some 2 % of a core.
const CHECK_RATE: (u64, u64) = (400, 1600);
/// Most records that wait for that: all that are kept of others.
const MOST_LATER: usize = 4096 * super::apps::MAX_CHUNKS;
/// Of those, so many are looked at in one go.
const LATER_AT_ONCE: usize = 256;

/// A record of revocations: its origin and chunk.
type Place = (PeerName, u16);

/// The keys that were revoked, each with the administrator's signature, or none where this router alone did it.
#[derive(Debug)]
pub(super) struct Revocations {
    known: BTreeMap<PublicKey, Option<[u8; 64]>>,
    /// When those that nobody says are to be said.
    due: Option<Time>,
    checks: TokenBucket,
    /// Records with signatures that are still to be checked, and the last one that was looked at: they have their turns.
    later: BTreeSet<Place>,
    turn: Place,
}

impl Default for Revocations {
    fn default() -> Revocations {
        let checks = TokenBucket::new(CHECK_RATE.0, CHECK_RATE.1);
        Revocations { known: BTreeMap::new(), due: None, checks, later: BTreeSet::new(), turn: (PeerName::NONE, 0) }
    }
}

impl Revocations {
    /// The next record that waits for its turn.
    fn next_later(&self) -> Option<Place> {
        let after = self.later.range((Bound::Excluded(self.turn), Bound::Unbounded)).next();
        after.or_else(|| self.later.first()).copied()
    }
}

impl Mesh {
    /// Takes up what was revoked in an earlier life.
    pub(super) fn remember_revoked(&mut self) {
        for (key, signature) in std::mem::take(&mut self.config.revoked) {
            self.store.revoke(key, &mut Output::default());
            // A signature of an administrator that is none any more makes it this router's own affair.
            let signature = signature.filter(|signature| self.is_signed(&Revocation { key, signature: *signature }));
            self.revocations.known.insert(key, signature);
        }
    }

    /// The operator revokes a key; with a signature it is said to everybody at once.
    pub(super) fn revoke(&mut self, now: Time, key: PublicKey, signature: Option<[u8; 64]>, out: &mut Outbox) {
        let signed = signature.filter(|signature| self.is_signed(&Revocation { key, signature: *signature }));
        if signature.is_some() && signed.is_none() {
            return self.counters.revocations_refused.inc();
        }
        self.put_out(now, key, signed, out);
        self.sign_anew(key, signed, out);
        if signed.is_some() {
            self.say_revoked(now, out);
        }
    }

    /// Another administrator's word for what is revoked already takes the place of the former, whose key may be on its way out.
    fn sign_anew(&mut self, key: PublicKey, signature: Option<[u8; 64]>, out: &mut Outbox) {
        let Some(known) = self.revocations.known.get_mut(&key).filter(|known| signature.is_some() && **known != signature) else { return };
        *known = signature;
        let name = key.name();
        out.events.push(Event::Revoked { key, name, nickname: self.nickname(name), signature: signature.map(Box::new) });
    }

    fn is_signed(&self, revocation: &Revocation) -> bool {
        let config = &self.config;
        revocation.verify(self.store.signatures(), &config.admins, &config.network)
    }

    /// A record of them came. While an administrator's key is replaced some in it may be signed by one that is none here, and those behind them
    /// count all the same. A liar gets one check out of us for each record at once, and the others at the pace of all.
    pub(super) fn heard_revoked(&mut self, now: Time, origin: PeerName, chunk: u16, out: &mut Outbox) {
        if self.config.admins.is_empty() || origin == self.own {
            return;
        }
        let news = self.news_of_revoked(origin, chunk);
        let Some((first, others)) = news.split_first() else { return };
        self.judge_revoked(now, first, out);
        if !others.is_empty() && !self.judge_all_revoked(now, others, out) && self.revocations.later.len() < MOST_LATER {
            self.revocations.later.insert((origin, chunk));
        }
    }

    /// What a record says that is not known here.
    fn news_of_revoked(&self, origin: PeerName, chunk: u16) -> Vec<Revocation> {
        let is_news = |said: &Revocation| self.revocations.known.get(&said.key).is_none_or(Option::is_none);
        let body = self.store.app_record(origin, REVOKED_RECORD, chunk);
        body.map_or(Vec::new(), |body| Revocation::read_all(body).filter(is_news).collect())
    }

    /// Looks at all of these; false, and at none, where that is more than may be checked now.
    fn judge_all_revoked(&mut self, now: Time, said: &[Revocation], out: &mut Outbox) -> bool {
        let checks = said.len() * self.config.admins.len();
        // However many administrators there are, one record can be looked at when nothing else was.
        let may = self.revocations.checks.take(now, (checks as u64).min(CHECK_RATE.1));
        if may {
            said.iter().for_each(|revocation| self.judge_revoked(now, revocation, out));
        }
        may
    }

    fn judge_revoked(&mut self, now: Time, revocation: &Revocation, out: &mut Outbox) {
        match self.is_signed(revocation) {
            true => self.put_out(now, revocation.key, Some(revocation.signature), out),
            false => self.counters.revocations_refused.inc(),
        }
    }

    /// Looks at records that had to wait, one after the other.
    fn judge_later(&mut self, now: Time, out: &mut Outbox) {
        for _ in 0..LATER_AT_ONCE {
            let Some(place) = self.revocations.next_later() else { return };
            let news = self.news_of_revoked(place.0, place.1);
            if !self.judge_all_revoked(now, &news, out) {
                return;
            }
            self.revocations.later.remove(&place);
            self.revocations.turn = place;
        }
    }

    /// From now on this key is no member's.
    fn put_out(&mut self, now: Time, key: PublicKey, signature: Option<[u8; 64]>, out: &mut Outbox) {
        let before = self.revocations.known.get(&key).copied();
        if before == Some(signature) || before.is_some_and(|before| before.is_some()) {
            return;
        }
        if before.is_none() && self.revocations.known.len() >= MOST {
            self.counters.revocations_refused.inc();
            return out
                .events
                .push(Event::Warning(format!("the key {key} is not revoked here: {MOST} are already, and no more are remembered")));
        }
        self.revocations.known.insert(key, signature);
        let name = key.name();
        out.events.push(Event::Revoked { key, name, nickname: self.nickname(name), signature: signature.map(Box::new) });
        if name == self.own {
            let why = "the administrator has revoked this router's key: others refuse it; give it a new identity if it may come back";
            return out.events.push(Event::Warning(why.to_string()));
        }
        let other = self.known_key(name).is_some_and(|known| known != key);
        if !other {
            self.targets.remove(&Goal::Peer(name));
            // One that was answered would end in a session with the next datagram, without another look at the key.
            let with_it: Vec<u32> =
                self.attempts.iter().filter(|(_, attempt)| attempt.peer == Some(name)).map(|(index, _)| *index).collect();
            with_it.into_iter().for_each(|index| self.fail(now, index, Failure::Refused, format!("the key {key} was revoked"), out));
            if let Some(address) = self.adjacencies.get(&name).map(|adjacency| adjacency.address) {
                self.no_link(name, address, out);
            }
            self.end_sessions(now, name, "its key was revoked", out);
            self.members.remove(&name);
        }
        let mut said = Output::default();
        self.store.revoke(key, &mut said);
        self.spread(now, said, out);
        self.fib_stale = true;
    }

    /// Why a router with this key may have no session; `None` where it was not revoked.
    pub(super) fn refusal_of_revoked(&self, key: &PublicKey) -> Option<(Reject, String)> {
        let by = match self.revocations.known.get(key)? {
            Some(_) => "by the administrator",
            None => "on this router",
        };
        let name = key.name();
        Some((Reject::Revoked, format!("the key {key} of {name} was revoked {by}: give that host a new identity if it may come back")))
    }

    /// Says every signed revocation.
    fn say_revoked(&mut self, now: Time, out: &mut Outbox) {
        let signed = self.revocations.known.iter().filter_map(|(key, signature)| Some(Revocation { key: *key, signature: (*signature)? }));
        let all: Vec<Revocation> = signed.collect();
        let chunks = all.chunks(PER_RECORD).map(|chunk| chunk.iter().flat_map(Revocation::to_bytes).collect()).collect();
        self.publish_app(now, REVOKED_RECORD, chunks, out);
        self.revocations.due = None;
    }

    /// Sees to it that somebody says every signed revocation.
    pub(super) fn keep_revoked(&mut self, now: Time, out: &mut Outbox) {
        self.judge_later(now, out);
        if self.left || self.revocations.known.values().all(Option::is_none) {
            return;
        }
        let said = self.said_revoked();
        if self.revocations.known.iter().all(|(key, signature)| signature.is_none() || said.contains(key)) {
            self.revocations.due = None;
            return;
        }
        let wait = Duration::from_millis(u64::from(self.rng.next_u32()) % SPREAD.as_millis() as u64);
        if now >= *self.revocations.due.get_or_insert(now + wait) {
            self.say_revoked(now, out);
        }
    }

    /// The keys that this router, or one that can be reached, says are revoked. Another signature than the one known here does not count, as it
    /// may be made up.
    fn said_revoked(&self) -> BTreeSet<PublicKey> {
        let others = self.store.app_records().filter(|(origin, kind, _)| *kind == REVOKED_RECORD && self.routes.reachable(*origin));
        let chunks = others.chain((0..super::apps::MAX_CHUNKS as u16).map(|chunk| (self.own, REVOKED_RECORD, chunk)));
        let bodies = chunks.filter_map(|(origin, kind, chunk)| self.store.app_record(origin, kind, chunk));
        let known = |said: &Revocation| self.revocations.known.get(&said.key) == Some(&Some(said.signature));
        bodies.flat_map(|body| Revocation::read_all(body).filter(known).map(|revocation| revocation.key)).collect()
    }

    /// What status says of them.
    pub(super) fn revoked_members(&self) -> Vec<RevokedMember> {
        let member = |(key, signature): (&PublicKey, &Option<[u8; 64]>)| RevokedMember {
            name: key.name(),
            key: key.to_string(),
            by: if signature.is_some() { "admin" } else { "here" },
        };
        self.revocations.known.iter().map(member).collect()
    }
}

#[cfg(test)]
mod tests;
