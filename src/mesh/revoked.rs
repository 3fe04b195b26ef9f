//! Members that are put out of the mesh.
//!
//! What an administrator signed ([`Revocation`]) travels as records of the gossip ([`REVOKED_RECORD`]), so that it is with everybody as soon as any
//! news is. Whoever it is about loses its sessions and links, is refused at handshakes, and is no member in anything that gossip says. Who hears
//! it keeps it on disk ([`Event::Revoked`]) and says it again once nobody else who can be reached does: so it outlives the router
//! that said it first, and one that says it is enough. A router without an admin key carries such records and goes by none of them.
//!
//! Without a signature a revocation is this router's own affair.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_core::Rng;

use super::command::Event;
use super::config::Outbox;
use super::core::Mesh;
use super::gossip::Output;
use super::snapshot::RevokedMember;
use super::targets::{Failure, Goal};
use crate::crypto::{PublicKey, Revocation};
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

/// The keys that were revoked, each with the administrator's signature, or none where this router alone did it.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    known: BTreeMap<PublicKey, Option<[u8; 64]>>,
    /// When those that nobody says are to be said.
    due: Option<Time>,
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
        if signed.is_some() {
            self.say_revoked(now, out);
        }
    }

    fn is_signed(&self, revocation: &Revocation) -> bool {
        let config = &self.config;
        revocation.verify(self.store.signatures(), &config.admins, &config.network)
    }

    /// A record of them came. The first that is not signed ends it: a liar gets no more than one check out of us for each record.
    pub(super) fn heard_revoked(&mut self, now: Time, origin: PeerName, chunk: u16, out: &mut Outbox) {
        if self.config.admins.is_empty() || origin == self.own {
            return;
        }
        let said: Vec<Revocation> =
            self.store.app_record(origin, REVOKED_RECORD, chunk).map_or(Vec::new(), |body| Revocation::read_all(body).collect());
        for revocation in said {
            if self.revocations.known.get(&revocation.key).is_some_and(|signature| signature.is_some()) {
                continue;
            }
            if !self.is_signed(&revocation) {
                return self.counters.revocations_refused.inc();
            }
            self.put_out(now, revocation.key, Some(revocation.signature), out);
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
