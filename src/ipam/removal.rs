//! A router that is gone for good: its space goes to another.
//!
//! ```text
//!  rmpeer ──▶ votes of the owners ──more than half──▶ REMOVAL ──everybody has heard──▶ TAKEN… DONE
//!                  │                                     └─ till then nobody gives anything that the dead gave
//!                  └─ nobody gets more than half: another round, begun by the lowest name
//! ```
//!
//! An owner votes once a round, and only if it does not reach the router itself; hardly more are asked than a majority takes. The taker uses nothing
//! before every owner and every known router has said that it has heard, with the same knowledge of what the dead gave: a grant that the dead
//! signed is then known to the taker, or void.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ring::{TALLIES, majority};
use super::types::{Answer, Kind, Sorry};
use super::{AGAIN, Ipam};
use crate::crypto::PublicKey;
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::ipam::{Body, Entry, EntryId, MAX_VOTES, Message, Range};

/// How long a round may stand without more than half for anybody.
const ROUND: Duration = Duration::from_millis(1500);

/// A removal that is under way here.
#[derive(Default)]
pub struct Attempt {
    requests: Vec<u64>,
    round: u32,
    since: Time,
    next: Time,
    /// Where in the owners that have not voted those begin who are asked next.
    asked: usize,
    alive: Option<PeerName>,
    fenced: BTreeMap<PeerName, (EntryId, u128)>,
}

impl Ipam {
    pub(super) fn remove(&mut self, request: u64, dead: PeerName, force: bool) {
        let no = |kind, text: String| Err(Sorry::new(kind, text));
        let Some(ring) = &self.ring else {
            return self
                .answer(request, no(Kind::Unavailable, "there is no ring of addresses yet, so no router owns anything".to_string()));
        };
        let nothing = !ring.owners().contains(&dead) && ring.pending(dead).is_none() && !self.is_missed(dead);
        if dead == self.name {
            let text = "this router cannot remove itself; `reset` gives its addresses to another".to_string();
            self.answer(request, no(Kind::Bad, text));
        } else if nothing {
            self.answer(request, Ok(Answer::Taken(0, self.name)));
        } else if force {
            let size = self.seize(dead);
            self.answer(request, Ok(Answer::Taken(size, self.name)));
        } else if self.is_reachable(dead) {
            let text = format!("{} is reachable, so it is not gone: `reset` it there, or use --force", self.nickname(dead));
            self.answer(request, no(Kind::Conflict, text));
        } else {
            self.removals.entry(dead).or_default().requests.push(request);
            self.run_removals();
        }
    }

    /// Takes everything of a router, asking nobody.
    fn seize(&mut self, dead: PeerName) -> u128 {
        let Some(ring) = &self.ring else { return 0 };
        let round = ring.last_round(dead).0.max(ring.last_vote(dead)).saturating_add(1);
        match self.author(&Body::Removal { dead, round, forced: true, votes: Vec::new() }, &[]) {
            Some(removal) => self.take_all(dead, removal),
            None => 0,
        }
    }

    fn owned_by(&self, owner: PeerName) -> Vec<(Range, EntryId)> {
        let leaves = self.ring.iter().flat_map(|ring| ring.leaves().iter());
        leaves.filter(|(_, leaf)| leaf.owner.name() == owner).map(|(range, leaf)| (range, leaf.node)).collect()
    }

    fn take_all(&mut self, dead: PeerName, removal: EntryId) -> u128 {
        let owned = self.owned_by(dead);
        let mut taken = 0u128;
        for (range, parent) in &owned {
            let id = self.author(&Body::Taken { removal, parent: *parent, range: *range }, &[]);
            taken = taken.wrapping_add(id.map_or(0, EntryId::to_u128));
        }
        self.author(&Body::Done { removal, taken }, &[]);
        owned.iter().fold(0, |sum, (range, _)| sum.saturating_add(range.size()))
    }

    /// Carries on with every removal.
    pub(super) fn run_removals(&mut self) {
        let Some(ring) = &self.ring else { return };
        for (dead, _, taker) in ring.pending_removals() {
            if taker == self.key && dead != self.name {
                self.removals.entry(dead).or_default();
            }
        }
        let dead: Vec<PeerName> = self.removals.keys().copied().collect();
        for dead in dead {
            let Some(mut attempt) = self.removals.remove(&dead) else { continue };
            if !self.run_removal(dead, &mut attempt) {
                self.removals.insert(dead, attempt);
            }
        }
    }

    /// True once there is nothing more to do.
    fn run_removal(&mut self, dead: PeerName, attempt: &mut Attempt) -> bool {
        let Some(ring) = &self.ring else { return true };
        let pending = ring.pending(dead);
        if pending.is_none() && !ring.owners().contains(&dead) && !self.is_missed(dead) {
            self.answer_all(attempt, Ok(Answer::Taken(0, self.name)));
            return true;
        }
        let ours = pending.filter(|(_, taker)| *taker == self.key);
        if let Some((removal, _)) = ours {
            if let Some(size) = self.run_fence(dead, removal, attempt) {
                self.answer_all(attempt, Ok(Answer::Taken(size, self.name)));
                return true;
            }
        } else if pending.is_none_or(|(_, taker)| !self.is_reachable(taker.name())) {
            self.run_votes(dead, attempt);
        }
        self.end_late(dead, attempt);
        attempt.requests.is_empty() && ours.is_none()
    }

    fn run_votes(&mut self, dead: PeerName, attempt: &mut Attempt) {
        let Some(ring) = &self.ring else { return };
        let (first, owners) = (ring.last_round(dead).0.saturating_add(1), ring.owners().clone());
        let round = attempt.round.max(first).max(ring.last_vote(dead));
        if round != attempt.round {
            (attempt.round, attempt.since, attempt.next) = (round, self.now, self.now);
        }
        if self.hold.is_none() {
            self.vote(dead, round, self.key);
        }
        let (mut by_taker, mut voters, mut seen) = (BTreeMap::<_, BTreeSet<EntryId>>::new(), BTreeSet::new(), owners.len());
        for entry in self.ring.iter().flat_map(|ring| ring.votes(dead, round)) {
            let Body::Vote { taker, owners, .. } = &entry.body else { continue };
            if voters.insert(entry.author) {
                by_taker.entry(*taker).or_default().insert(entry.id());
                seen = seen.max(usize::from(*owners));
            }
        }
        let ours = by_taker.get(&self.key).map(|votes| votes.iter().copied().collect::<Vec<_>>()).unwrap_or_default();
        if ours.len() >= majority(seen) {
            let votes = self.tallied(dead, round, ours.into_iter().take(majority(seen)).collect());
            self.author(&Body::Removal { dead, round, forced: false, votes }, &[]);
            attempt.next = self.now;
            return;
        }
        let split = by_taker.len() > 1 && by_taker.values().all(|votes| votes.len() < majority(seen));
        let lowest = by_taker.keys().next().is_some_and(|taker| *taker == self.key);
        if split && self.now.since(attempt.since) >= if lowest { ROUND } else { ROUND * 3 } {
            (attempt.round, attempt.since, attempt.next) = (round.saturating_add(1), self.now, self.now);
            self.vote(dead, round.saturating_add(1), self.key);
        }
        if attempt.next <= self.now {
            attempt.next = self.now + AGAIN;
            let voters: BTreeSet<PeerName> = voters.iter().map(PublicKey::name).collect();
            let silent = owners.into_iter().filter(|owner| *owner != self.name && *owner != dead && !voters.contains(owner)).collect();
            let lacking = majority(seen).saturating_sub(ours.len());
            self.ask_for_votes(dead, attempt, silent, lacking + lacking.div_ceil(16));
        }
    }

    /// Asks some of those who have not voted, hardly more than a majority lacks: a vote stays in the ring for good. Those who do not answer are
    /// followed by others, the next time around; who cannot be reached comes last.
    fn ask_for_votes(&mut self, dead: PeerName, attempt: &mut Attempt, silent: Vec<PeerName>, count: usize) {
        let (mut order, away): (Vec<PeerName>, Vec<PeerName>) = silent.into_iter().partition(|owner| self.is_reachable(*owner));
        let begin = attempt.asked % order.len().max(1);
        order.rotate_left(begin);
        attempt.asked = begin + count.min(order.len());
        for owner in order.into_iter().chain(away).take(count) {
            self.tell(owner, &Message::Remove { dead, round: attempt.round });
        }
    }

    /// Names for votes: the votes themselves, or tallies where they are too many for one entry, and tallies of these where they still are.
    fn tallied(&mut self, dead: PeerName, round: u32, mut votes: Vec<EntryId>) -> Vec<EntryId> {
        for _ in 0..TALLIES {
            if votes.len() <= MAX_VOTES {
                break;
            }
            let tally = |votes: &[EntryId]| Body::Tally { dead, round, votes: votes.to_vec() };
            votes = votes.chunks(MAX_VOTES).filter_map(|votes| self.author(&tally(votes), &[])).collect();
            votes.sort_unstable();
        }
        votes
    }

    /// Votes, if we are an owner and have not voted in this round.
    fn vote(&mut self, dead: PeerName, round: u32, taker: PublicKey) -> Option<Entry> {
        let ring = self.ring.as_ref()?;
        if let Some(vote) = ring.votes(dead, round).find(|vote| vote.author == self.key) {
            return Some(vote.clone());
        }
        if !ring.owners().contains(&self.name) {
            return None;
        }
        let owners = u16::try_from(ring.owners().len()).unwrap_or(u16::MAX);
        let id = self.author(&Body::Vote { dead, round, taker, owners }, &[])?;
        self.ring.as_ref()?.get(&id).cloned()
    }

    pub(super) fn asked_to_vote(&mut self, from: PeerName, dead: PeerName, round: u32) {
        let Some(ring) = &self.ring else { return };
        let next = ring.last_round(dead).0.max(ring.last_vote(dead)).saturating_add(1);
        if self.hold.is_some() || dead == self.name || dead == from || round > next || round <= ring.last_round(dead).0 {
            return self.sync.soon(self.now);
        }
        if self.is_reachable(dead) {
            return self.tell(from, &Message::Alive { dead });
        }
        let Some(taker) = self.peers.get(&from).and_then(|peer| peer.book.as_ref()).map(|book| book.key) else { return };
        match self.vote(dead, round, taker) {
            Some(vote) => self.tell(from, &Message::Entries(vec![vote])),
            // We may lack what the round rests on.
            None => self.sync.soon(self.now),
        }
    }

    pub(super) fn said_alive(&mut self, from: PeerName, dead: PeerName) {
        if let Some(attempt) = self.removals.get_mut(&dead) {
            attempt.alive = Some(from);
        }
    }

    /// Asks whoever has not said that it knows what we know; takes the space once all have.
    fn run_fence(&mut self, dead: PeerName, removal: EntryId, attempt: &mut Attempt) -> Option<u128> {
        let known = self.ring.as_ref()?.knowledge_of(dead);
        let behind: Vec<PeerName> =
            self.members(dead).into_iter().filter(|member| attempt.fenced.get(member) != Some(&(removal, known))).collect();
        if behind.is_empty() {
            return Some(self.take_all(dead, removal));
        }
        if attempt.next <= self.now {
            attempt.next = self.now + AGAIN;
            for member in behind {
                if attempt.fenced.contains_key(&member) {
                    self.send_buckets(member, true);
                }
                self.tell(member, &Message::Fence { removal });
            }
        }
        None
    }

    /// Everybody who may have something of the dead: owners, and routers that were ever met, unless they are dead themselves.
    fn members(&self, dead: PeerName) -> BTreeSet<PeerName> {
        let Some(ring) = &self.ring else { return BTreeSet::new() };
        let known = self.peers.iter().filter(|(_, peer)| peer.book.is_some()).map(|(name, _)| name).chain(self.participants.keys());
        let known = known.filter(|name| !self.foreign.contains_key(name));
        let all: BTreeSet<PeerName> = ring.owners().iter().chain(known).copied().collect();
        all.into_iter().filter(|name| *name != dead && *name != self.name && !self.is_gone(*name)).collect()
    }

    pub(super) fn asked_of_fence(&mut self, from: PeerName, removal: EntryId) {
        let dead = match self.ring.as_ref().and_then(|ring| ring.get(&removal)).map(|entry| &entry.body) {
            Some(Body::Removal { dead, .. }) => *dead,
            _ => return self.send_buckets(from, true),
        };
        let sum = self.ring.as_ref().map_or(0, |ring| ring.knowledge_of(dead));
        self.tell(from, &Message::Fenced { removal, sum });
    }

    pub(super) fn fenced(&mut self, from: PeerName, removal: EntryId, sum: u128) {
        let dead = match self.ring.as_ref().and_then(|ring| ring.get(&removal)).map(|entry| &entry.body) {
            Some(Body::Removal { dead, .. }) => *dead,
            _ => return,
        };
        if let Some(attempt) = self.removals.get_mut(&dead) {
            attempt.fenced.insert(from, (removal, sum));
            self.run_removals();
        }
    }

    fn answer_all(&mut self, attempt: &mut Attempt, result: Result<Answer, Sorry>) {
        for request in std::mem::take(&mut attempt.requests) {
            self.answer(request, result.clone());
        }
    }

    /// Answers requests that have waited long enough with how far it is.
    fn end_late(&mut self, dead: PeerName, attempt: &mut Attempt) {
        let name = self.nickname(dead);
        if let Some(witness) = attempt.alive.take() {
            let text = format!("{name} is not gone: {} reaches it; use --force if you know better", self.nickname(witness));
            return self.answer_all(attempt, Err(Sorry::new(Kind::Conflict, text)));
        }
        let late = |request: &u64| self.open.get(request).is_none_or(|end| *end <= self.now);
        let (late, open): (Vec<u64>, Vec<u64>) = attempt.requests.iter().partition(|request| late(request));
        attempt.requests = open;
        if late.is_empty() {
            return;
        }
        let text = self.how_far(dead, &name, attempt);
        for request in late {
            self.answer(request, Err(Sorry::new(Kind::Unavailable, text.clone())));
        }
    }

    fn how_far(&self, dead: PeerName, name: &str, attempt: &Attempt) -> String {
        let Some(ring) = &self.ring else { return String::new() };
        if let Some((removal, taker)) = ring.pending(dead) {
            let known = ring.knowledge_of(dead);
            let behind: Vec<String> = self
                .members(dead)
                .into_iter()
                .filter(|member| attempt.fenced.get(member) != Some(&(removal, known)))
                .map(|member| self.nickname(member))
                .collect();
            if taker != self.key {
                return format!("{name} is removed; {} takes its space as soon as all routers have heard", self.nickname(taker.name()));
            }
            return format!(
                "{name} is removed; its space is used as soon as all routers have heard: missing {}; remove them too if they are dead, or use --force",
                behind.join(", ")
            );
        }
        let owners = ring.owners().len();
        let votes = ring.votes(dead, attempt.round).count();
        format!(
            "{name} was not removed: {votes} of {owners} owners have agreed, and {} are needed; use --force to do without",
            majority(owners)
        )
    }
}
