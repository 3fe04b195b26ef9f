//! Direct paths: challenges, peers that move, sessions on demand, and the keeping of keys. How they are found is in [`seeking`](super::seeking).
//!
//! A peer's address changes, and a direct path to a router without a link begins, only after a sealed challenge was
//! answered from there. Sessions run through relays meanwhile.

use std::sync::Arc;
use std::time::Duration;

use rand_core::Rng;

use super::adjacency::{Adjacency, CHALLENGE_EVERY, CHALLENGES, Challenge, PATH_IDLE, Role};
use super::config::Outbox;
use super::core::Mesh;
use super::handshakes::Way;
use super::heartbeat::LATE;
use super::keyring::{Follow, SILENT};
use super::seeking::{MOST_CHALLENGES, Outcome};
use super::tcp::patience;
use crate::crypto::Session;
use crate::time::Time;
use crate::wire::control::Record;
use crate::wire::{Address, PeerName};

/// A session that carried nothing for this long is not replaced.
const UNUSED: Duration = Duration::from_secs(120);

impl Mesh {
    /// A datagram was opened on a session: what waited for that proof goes on.
    pub(super) fn confirmed(&mut self, now: Time, peer: PeerName, session: &Arc<Session>, from: Option<Address>, out: &mut Outbox) {
        self.prove_pending(now, session.local_index(), out);
        let promoted = self.keyrings.get_mut(&peer).is_some_and(|keys| keys.promote(now, self.own < peer));
        // The answer to a handshake was received where it was sent to: that address is proven.
        let proved = from.filter(|from| self.answered_at.get(&session.local_index()) == Some(from));
        if promoted || proved.is_some() {
            self.drop_crossing(now, peer, proved);
        }
        if promoted {
            self.counters.rekeys.inc();
            self.reindex(peer);
            self.fib_stale = true;
            // The initiator waits for proof on this very session, also where a crossed one stays the current.
            if let Some(from) = from {
                self.send_sealed(session, from, &[], out);
            }
        }
        if let Some(from) = proved {
            self.answered_at.remove(&session.local_index());
            self.psk_next.remove(&Way::Direct(from));
        }
        if let (Some(from), None) = (proved, self.adjacencies.get(&peer)) {
            self.adjacencies.insert(peer, Adjacency::new(now, from, Role::Path, false));
            self.fib_stale = true;
        }
    }

    /// A DIRECT datagram of `peer` was opened.
    pub(super) fn heard_direct(&mut self, now: Time, peer: PeerName, from: Address, out: &mut Outbox) {
        let of_use = self.is_in_use(now, peer, PATH_IDLE);
        match self.adjacencies.get_mut(&peer) {
            Some(adjacency) if adjacency.address == from => adjacency.beat.heard(now, false),
            // Two addresses that both work are not a move.
            Some(adjacency) if u128::from(adjacency.beat.age(now)) < patience(adjacency.address, from, LATE).as_millis() => {}
            Some(_) => self.challenge(now, peer, from, out),
            // Only a path that is of use is proven back: else two routers keep each other's idle paths alive for ever.
            None if of_use => self.challenge(now, peer, from, out),
            None => {}
        }
    }

    /// Asks whether `peer` is at `address`, if we would have it there.
    pub(super) fn challenge(&mut self, now: Time, peer: PeerName, address: Address, out: &mut Outbox) {
        if let Err((_, why)) = self.address_allowed(address) {
            return self.note_trial(now, peer, address, Outcome::Failed(why));
        }
        let under_way = self.challenges.entry(peer).or_default();
        if under_way.len() >= MOST_CHALLENGES || under_way.iter().any(|challenge| challenge.address == address) {
            return;
        }
        let nonce = self.rng.next_u64();
        under_way.push(Challenge { address, nonce, first: now, due: now + CHALLENGE_EVERY, left: CHALLENGES - 1 });
        self.note_trial(now, peer, address, Outcome::Trying);
        self.send_direct(peer, address, &[Record::Challenge(nonce)], out);
    }

    /// Repeats challenges that were not answered.
    pub(super) fn tick_challenges(&mut self, now: Time, out: &mut Outbox) {
        let (mut again, mut silent) = (Vec::new(), Vec::new());
        self.challenges.retain(|peer, challenges| {
            let over = |challenge: &Challenge| challenge.left == 0 && now >= challenge.due;
            silent.extend(challenges.extract_if(.., |challenge| over(challenge)).map(|challenge| (*peer, challenge.address)));
            for challenge in challenges.iter_mut().filter(|challenge| now >= challenge.due) {
                challenge.left -= 1;
                challenge.due = now + CHALLENGE_EVERY;
                again.push((*peer, challenge.address, challenge.nonce));
            }
            !challenges.is_empty()
        });
        for (peer, address) in silent {
            self.note_trial(now, peer, address, Outcome::Failed("no answer".into()));
        }
        for (peer, address, nonce) in again {
            self.send_direct(peer, address, &[Record::Challenge(nonce)], out);
        }
    }

    /// The peer is where we asked.
    pub(super) fn on_response(&mut self, now: Time, peer: PeerName, from: Address, nonce: u64, out: &mut Outbox) {
        let right = |challenge: &Challenge| challenge.address == from && challenge.nonce == nonce;
        if !self.challenges.get(&peer).is_some_and(|challenges| challenges.iter().any(right)) {
            return self.counters.records_ignored.inc();
        }
        let asked = self.challenges.remove(&peer).into_iter().flatten().find(right).map(|challenge| challenge.first);
        self.note_trial(now, peer, from, Outcome::Answered);
        self.search_over(peer);
        self.fib_stale = true;
        match self.adjacencies.get_mut(&peer) {
            Some(adjacency) if adjacency.address == from => {}
            // Two addresses that both work are not a move.
            Some(adjacency) if asked.is_some_and(|asked| adjacency.beat.heard_since(now, asked)) => {}
            Some(adjacency) => {
                adjacency.move_to(now, from);
                self.counters.addresses_moved.inc();
            }
            None => {
                self.adjacencies.insert(peer, Adjacency::new(now, from, Role::Path, false));
            }
        }
        self.tick_links(now, out);
    }

    /// Frames wait for a session with `peer`.
    pub(super) fn want_session(&mut self, now: Time, peer: PeerName, out: &mut Outbox) {
        let has_one = self.keyrings.get(&peer).is_some_and(|keys| keys.current().is_some());
        // A dial to an address that may never answer is no reason to wait, only a handshake along the route is.
        let way = self.way_to(peer);
        let under_way = self.attempts.values().any(|attempt| Some(attempt.way) == way && attempt.peer == Some(peer));
        if has_one || peer == self.own || self.left || under_way {
            return;
        }
        self.handshake_with(now, peer, out);
    }

    /// `peer` began a handshake that is no newer than one before, in the same life. Where that is not a copy of an old message, it was put back to
    /// an older copy of itself and does not know it: none of our sessions is one of its own, and none of its handshakes counts here. What
    /// it answers to one of ours is certainly new.
    pub(super) fn call_back(&mut self, now: Time, peer: PeerName, out: &mut Outbox) {
        let Some(way) = self.way_to(peer) else { return };
        let under_way = self.attempts.values().any(|attempt| attempt.way == way && attempt.peer == Some(peer));
        if !under_way && self.guard.may_call_back(now, peer) {
            self.handshake_with(now, peer, out);
        }
    }

    /// Starts a handshake with a peer whose key is known, by whatever way there is.
    fn handshake_with(&mut self, now: Time, peer: PeerName, out: &mut Outbox) {
        let told = self.store.node(peer).map(|node| node.identity);
        let Some(identity) = told.or_else(|| self.members.get(&peer).map(|member| member.identity)) else { return };
        let Some(way) = self.way_to(peer) else { return self.counters.no_route.inc() };
        self.begin(now, way, None, Some(identity), out);
    }

    /// How datagrams get to a peer now.
    fn way_to(&self, peer: PeerName) -> Option<Way> {
        match self.adjacencies.get(&peer) {
            Some(adjacency) => Some(Way::Direct(adjacency.address)),
            None => self.next_hop(peer, None).map(|_| Way::Relayed(peer)),
        }
    }

    /// A datagram for a session that we do not have. Whoever sent it finds out by its heartbeats; an answer to an
    /// address that proved nothing would only help somebody who lies about his.
    pub(super) fn unknown_session(&mut self, now: Time, from: Address, _out: &mut Outbox) {
        if self.link_at(from).is_none() {
            self.targets.sign_of_life(now, from);
        }
    }

    /// Promotes, replaces and drops sessions.
    pub(super) fn keep_keys(&mut self, now: Time, out: &mut Outbox) {
        let peers: Vec<PeerName> = self.keyrings.keys().copied().collect();
        for peer in peers {
            let lower = self.own < peer;
            let Some(keys) = self.keyrings.get_mut(&peer) else { continue };
            let promoted = keys.promote(now, lower);
            let follow = keys.follow(now, lower);
            let dropped = keys.expire(now);
            if promoted {
                self.drop_crossing(now, peer, None);
            }
            if promoted || dropped || follow == Follow::Switched {
                self.fib_stale = true;
                self.reindex(peer);
            }
            if let (Follow::Nudge, Some(session)) = (follow, self.keyrings.get(&peer).and_then(|keys| keys.current()).cloned()) {
                self.ask_for_word(peer, &session, out);
            }
            self.ask_through_relays(now, peer, out);
            let Some(keys) = self.keyrings.get_mut(&peer) else { continue };
            if keys.is_empty() {
                self.keyrings.remove(&peer);
                self.link_down(now, peer, "its key ended before it could be replaced", out);
                continue;
            }
            let wants = keys.wants_rekey(now) && !self.left;
            // Without a way it is tried as soon as there is one.
            if wants && self.way_to(peer).is_some() && (self.adjacencies.contains_key(&peer) || self.is_in_use(now, peer, UNUSED)) {
                if let Some(keys) = self.keyrings.get_mut(&peer) {
                    keys.rekeying(now);
                }
                self.handshake_with(now, peer, out);
            }
        }
    }

    /// Beyond relays nothing but an answer shows that a peer still has the session that we seal with: it is asked where nothing else comes.
    fn ask_through_relays(&mut self, now: Time, peer: PeerName, out: &mut Outbox) {
        let is_relayed = !self.adjacencies.contains_key(&peer);
        let in_use = is_relayed && self.is_in_use(now, peer, SILENT) && self.way_to(peer).is_some();
        let Some(keys) = self.keyrings.get_mut(&peer) else { return };
        if !is_relayed {
            return keys.stop_asking();
        }
        if let Some(session) = keys.to_ask(now, in_use).map(Arc::clone) {
            self.ask_for_word(peer, &session, out);
        }
    }

    fn ask_for_word(&mut self, peer: PeerName, session: &Session, out: &mut Outbox) {
        let nonce = self.rng.next_u64();
        self.send_any(peer, session, &[Record::Challenge(nonce)], out);
    }

    /// A peer that no link leads to any more, and a direct path does: frames go on, but floods and gossip take links.
    pub(super) fn link_lone_paths(&mut self, now: Time, out: &mut Outbox) {
        if !self.config.discovery || self.left || !self.has_room() {
            return;
        }
        let known = |peer: PeerName| self.store.node(peer).is_some() && !self.routes.reachable(peer);
        let lone = |(peer, adjacency): &(&PeerName, &Adjacency)| adjacency.role == Role::Path && known(**peer);
        let lone: Vec<PeerName> = self.adjacencies.iter().filter(lone).map(|(peer, _)| *peer).collect();
        for peer in lone {
            if let Some(adjacency) = self.adjacencies.get_mut(&peer) {
                adjacency.role = Adjacency::asking(now);
            }
            self.tick_link(now, peer, out);
        }
    }

    /// Brings the index table up to date with a peer's sessions.
    pub(super) fn reindex(&mut self, peer: PeerName) {
        self.indices.retain(|_, other| *other != peer);
        if let Some(keys) = self.keyrings.get(&peer) {
            self.indices.extend(keys.all().map(|session| (session.local_index(), peer)));
        }
        let indices = &self.indices;
        self.answered_at.retain(|index, _| indices.contains_key(index));
    }

    /// Ends all sessions with a peer at once, and its link with them.
    pub(super) fn end_sessions(&mut self, now: Time, peer: PeerName, why: &str, out: &mut Outbox) {
        self.link_down(now, peer, why, out);
        if let Some(mut keys) = self.keyrings.remove(&peer) {
            self.answers.forget(None, &keys.all().map(|session| session.local_index()).collect::<Vec<_>>());
            keys.retire();
            self.fib_stale = true;
        }
        self.challenges.remove(&peer);
        self.reindex(peer);
    }
}

#[cfg(test)]
mod tests;
