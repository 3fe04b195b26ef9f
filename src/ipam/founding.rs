//! The start-up agreement: single-decree Paxos on the genesis, among whoever is there.
//!
//! Every router that has a vote is proposer and acceptor. A vote is on disk before it is cast. How many are more than half depends on how
//! many routers there will be, which each knows from its options: the largest number that anybody in the quorum says counts, so a router that was
//! given peers never decides alone. Nothing happens before somebody wants an address.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand_core::Rng;

use super::ring::majority;
use super::types::Init;
use super::{AGAIN, Ipam};
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::ipam::message::Ballot;
use crate::wire::ipam::{Body, Entry, EntryId, Founders, MAX_FOUNDERS, Message};

/// Where the agreement stands.
#[derive(Default)]
pub struct Founding {
    /// No ballot below this one gets a vote of ours. On disk.
    pub promised: Ballot,
    /// What we voted for last. On disk.
    pub accepted: Option<(Ballot, Entry)>,
    /// True once somebody wants a ring.
    pub wanted: bool,
    proposal: Option<Proposal>,
    next: Time,
}

/// An attempt of ours.
struct Proposal {
    ballot: Ballot,
    size: u16,
    promises: BTreeMap<PeerName, Option<(Ballot, Entry)>>,
    value: Option<Entry>,
    accepts: BTreeSet<PeerName>,
}

impl Default for Ballot {
    fn default() -> Ballot {
        Ballot::NONE
    }
}

impl Founding {
    pub fn stop(&mut self) {
        (self.proposal, self.wanted) = (None, false);
    }

    /// Nothing is proposed before this moment.
    pub fn wait_until(&mut self, when: Time) {
        self.next = self.next.max(when);
    }

    /// The quorum, and how many routers with a vote are known.
    pub fn standing(&self, ipam: &Ipam) -> (usize, usize) {
        let known = 1 + ipam.reachable().filter(|(_, book)| !book.observer).count();
        let size = self.proposal.as_ref().map_or(0, |proposal| proposal.size).max(ipam.size());
        (majority(usize::from(size)), known)
    }
}

impl Ipam {
    /// How many routers there will be, as far as our options say.
    fn size(&self) -> u16 {
        match self.config.init {
            Init::Consensus(size) => size.max(1),
            Init::Seed(_) | Init::Observer => 1,
        }
    }

    pub(super) fn run_founding(&mut self) {
        if self.ring.is_some() || self.refused.is_some() || self.config.ranges.is_empty() {
            return;
        }
        self.founding.wanted |= !self.waiting.is_empty();
        if !self.founding.wanted || !self.surveyed || self.founding.next > self.now {
            return;
        }
        self.founding.next = self.now + AGAIN + Duration::from_millis(self.chance(1000));
        if self.reachable().any(|(name, book)| book.mesh != EntryId::NONE && !self.foreign.contains_key(&name)) {
            self.sync.soon(self.now);
        } else if matches!(self.config.init, Init::Consensus(_)) {
            self.propose();
        } else {
            self.voters().into_iter().for_each(|voter| self.tell(voter, &Message::Need));
        }
    }

    fn voters(&self) -> Vec<PeerName> {
        self.reachable().filter(|(name, book)| !book.observer && !self.foreign.contains_key(name)).map(|(name, _)| name).collect()
    }

    fn propose(&mut self) {
        let mut nonce = [0; 24];
        self.rng.fill_bytes(&mut nonce);
        let ballot = Ballot { round: self.founding.promised.round.saturating_add(1), proposer: self.name, nonce };
        self.founding.promised = ballot;
        self.write_vote();
        let promises = BTreeMap::from([(self.name, self.founding.accepted.clone())]);
        let size = self.size();
        self.founding.proposal = Some(Proposal { ballot, size, promises, value: None, accepts: BTreeSet::new() });
        for voter in self.voters() {
            self.tell(voter, &Message::Prepare { ballot, size });
        }
        self.count_promises();
    }

    pub(super) fn founding_said(&mut self, from: PeerName, message: Message) {
        if let Some(ring) = &self.ring {
            let late = matches!(message, Message::Prepare { .. } | Message::Accept { .. } | Message::Need);
            let genesis = ring.genesis().clone();
            if late {
                self.tell(from, &Message::Entries(vec![genesis]));
            }
            return;
        }
        let votes = matches!(self.config.init, Init::Consensus(_));
        match message {
            Message::Prepare { ballot, .. } if votes => self.prepare(from, ballot),
            Message::Accept { ballot, genesis } if votes => self.accept(from, ballot, genesis),
            Message::Promise { ballot, size, accepted } => self.promised(from, ballot, size, accepted),
            Message::Accepted { ballot } => self.accepted(from, ballot),
            Message::Refuse { ballot, promised } => self.refuse(ballot, promised),
            Message::Need => self.founding.wanted = true,
            _ => {}
        }
    }

    fn prepare(&mut self, from: PeerName, ballot: Ballot) {
        let promised = self.founding.promised;
        if ballot < promised {
            return self.tell(from, &Message::Refuse { ballot, promised });
        }
        if ballot > promised {
            self.founding.promised = ballot;
            self.founding.proposal = None;
            self.founding.next = self.now + AGAIN + Duration::from_millis(self.chance(1000));
            self.write_vote();
        }
        let (size, accepted) = (self.size(), self.founding.accepted.clone());
        self.tell(from, &Message::Promise { ballot, size, accepted });
    }

    fn accept(&mut self, from: PeerName, ballot: Ballot, genesis: Entry) {
        let promised = self.founding.promised;
        if ballot < promised {
            return self.tell(from, &Message::Refuse { ballot, promised });
        }
        let ours = matches!(&genesis.body, Body::Genesis { ranges, founders: Founders::Keys(_), .. } if *ranges == self.config.ranges);
        if !ours || !self.signatures.verify(&genesis.author, &self.domain(), genesis.signed(), genesis.signature()) {
            self.counters.entries_refused.inc();
            return self.complain(format!(
                "no vote for the ring that {from} proposes: it is of other ranges than --ipalloc-range says, or forged"
            ));
        }
        if self.founding.accepted.as_ref().map(|(known, _)| *known) != Some(ballot) {
            self.founding.promised = ballot;
            self.founding.accepted = Some((ballot, genesis));
            self.write_vote();
        }
        self.tell(from, &Message::Accepted { ballot });
    }

    fn promised(&mut self, from: PeerName, ballot: Ballot, size: u16, accepted: Option<(Ballot, Entry)>) {
        let Some(proposal) = self.founding.proposal.as_mut().filter(|proposal| proposal.ballot == ballot && proposal.value.is_none())
        else {
            return;
        };
        proposal.size = proposal.size.max(size);
        proposal.promises.insert(from, accepted);
        self.count_promises();
    }

    fn count_promises(&mut self) {
        let Some(proposal) = &self.founding.proposal else { return };
        if proposal.value.is_some() || proposal.promises.len() < majority(usize::from(proposal.size)) {
            return;
        }
        let ballot = proposal.ballot;
        let highest = proposal.promises.values().flatten().max_by_key(|(ballot, _)| *ballot).map(|(_, genesis)| genesis.clone());
        let Some(genesis) = highest.or_else(|| self.new_genesis()) else { return };
        self.founding.accepted = Some((ballot, genesis.clone()));
        self.write_vote();
        let own = self.name;
        if let Some(proposal) = &mut self.founding.proposal {
            proposal.value = Some(genesis.clone());
            proposal.accepts.insert(own);
        }
        for voter in self.voters() {
            self.tell(voter, &Message::Accept { ballot, genesis: genesis.clone() });
        }
        self.count_accepts();
    }

    fn new_genesis(&mut self) -> Option<Entry> {
        let proposal = self.founding.proposal.as_ref()?;
        let ranges = self.config.ranges.clone();
        let there = |name: &PeerName| proposal.promises.contains_key(name);
        let same = |book: &super::Participant| book.ranges.iter().map(|(range, _)| *range).eq(ranges.iter().copied());
        let mut others: Vec<_> = self.reachable().filter(|(_, book)| !book.observer && same(book)).collect();
        others.sort_by_key(|(name, _)| (!there(name), *name));
        let mut keys: Vec<_> = others.into_iter().take(MAX_FOUNDERS - 1).map(|(_, book)| book.key).chain([self.key]).collect();
        keys.sort_unstable();
        let mut nonce = [0; 16];
        self.rng.fill_bytes(&mut nonce);
        let body = Body::Genesis { nonce, ranges, founders: Founders::Keys(keys) };
        let domain = self.domain();
        Entry::build(EntryId::NONE, &self.key, &body, |bytes| self.signatures.sign(&self.identity, &domain, bytes)).ok()
    }

    /// Somebody has promised a higher ballot than ours: the next of ours is to be higher still.
    fn refuse(&mut self, ballot: Ballot, promised: Ballot) {
        let ours = self.founding.proposal.as_ref().is_some_and(|proposal| proposal.ballot == ballot);
        if ours && promised > self.founding.promised {
            self.founding.promised = promised;
            self.founding.proposal = None;
            self.write_vote();
        }
    }

    fn accepted(&mut self, from: PeerName, ballot: Ballot) {
        let Some(proposal) = self.founding.proposal.as_mut().filter(|proposal| proposal.ballot == ballot) else { return };
        proposal.accepts.insert(from);
        self.count_accepts();
    }

    fn count_accepts(&mut self) {
        let Some(proposal) = &self.founding.proposal else { return };
        let decided = proposal.accepts.len() >= majority(usize::from(proposal.size));
        let Some(genesis) = proposal.value.clone().filter(|_| decided) else { return };
        self.adopt(genesis.clone(), false);
        let others: Vec<PeerName> = self.reachable().map(|(name, _)| name).collect();
        for other in others {
            self.tell(other, &Message::Entries(vec![genesis.clone()]));
        }
    }
}
