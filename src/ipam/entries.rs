//! What comes into the ring, from us and from others, and what it means for what we give.

use std::time::Duration;

use super::ring::{Outcome, Refused, Ring};
use super::{Ipam, sync};
use crate::wire::PeerName;
use crate::wire::ipam::{self, Body, Entry, EntryId, Founders, Message, Range};

/// What a signature of an entry is good for.
const DOMAIN: &str = "weave-router ipam v1 ";
/// Most entries that are kept because they came early.
const MOST_EARLY: usize = 512;

impl Ipam {
    /// Begins with the ring of this genesis, which is ours or somebody's of our mesh.
    pub(super) fn adopt(&mut self, genesis: Entry) {
        let Body::Genesis { ranges, .. } = &genesis.body else { return };
        if *ranges != self.config.ranges {
            self.counters.other_range.inc();
            let given = self.config.ranges.iter().map(Range::to_string).collect::<Vec<_>>().join(", ");
            let theirs = ranges.iter().map(Range::to_string).collect::<Vec<_>>().join(", ");
            self.complain(format!(
                "a ring of other ranges was refused: {theirs}, while --ipalloc-range says {given}; give all routers the same"
            ));
            return;
        }
        let Some(ring) = Ring::new(genesis.clone()) else { return };
        self.write_entry(&genesis, ring.len());
        self.ring = Some(ring);
        self.founding.stop();
        self.sync.publish_now(self.now);
        self.sync.soon(self.now);
        self.recount();
        self.progress();
    }

    /// Puts an entry of ours into the ring; it is written, published and told to those whom it concerns.
    pub(super) fn author(&mut self, body: &Body, tell: &[PeerName]) -> Option<EntryId> {
        let domain = self.domain();
        let ring = self.ring.as_mut()?;
        let sign = |bytes: &[u8]| self.signatures.sign(&self.identity, &domain, bytes);
        let entry = Entry::build(ring.mesh(), &self.key, body, sign).ok()?;
        let id = entry.id();
        if !matches!(ring.insert(entry.clone(), |_| true), Ok(Outcome::Added)) {
            return None;
        }
        let number = ring.len();
        self.write_entry(&entry, number);
        self.remember_own(id);
        self.sync.publish_now(self.now);
        for peer in tell {
            self.tell(*peer, &Message::Entries(vec![entry.clone()]));
        }
        self.recount();
        Some(id)
    }

    fn remember_own(&mut self, id: EntryId) {
        self.authored.push_back(id);
        if self.authored.len() > sync::NEWEST {
            self.authored.pop_front();
        }
    }

    /// Takes in entries of others, each if it is right.
    pub(super) fn take_in(&mut self, from: Option<PeerName>, mut entries: Vec<Entry>) {
        let (domain, before) = (self.domain(), self.ring.as_ref().map_or(0, Ring::version));
        let mut added = 0;
        while !entries.is_empty() {
            let news = entries.drain(..).filter(|entry| self.take_one(entry, &domain)).count();
            added += news;
            if news > 0 {
                entries = std::mem::take(&mut self.early).into_values().collect();
            }
        }
        if added == 0 {
            return;
        }
        self.counters.entries_merged.add(added as u64);
        self.sync.publish_soon();
        if from.is_some() {
            self.sync.soon(self.now + Duration::from_millis(100));
        }
        if self.ring.as_ref().map_or(0, Ring::version) != before {
            self.recount();
            self.progress();
        }
        if !self.removals.is_empty() {
            self.run_removals();
        }
    }

    /// True for an entry that is new.
    fn take_one(&mut self, entry: &Entry, domain: &str) -> bool {
        let Some(ring) = self.ring.as_mut() else {
            self.take_genesis(entry, domain);
            return false;
        };
        let signatures = &self.signatures;
        let verify = |entry: &Entry| signatures.verify(&entry.author, domain, entry.signed(), entry.signature());
        if entry.id() == ring.mesh() {
            return false;
        }
        if ring.get(&entry.id()).is_some() {
            return false;
        }
        match ring.insert(entry.clone(), verify) {
            Ok(Outcome::Added) => {
                let number = ring.len();
                self.write_entry(entry, number);
                true
            }
            Ok(Outcome::Known) => false,
            Ok(Outcome::Waiting) => {
                self.counters.entries_early.inc();
                if self.early.len() < MOST_EARLY {
                    self.early.insert(entry.id(), entry.clone());
                }
                false
            }
            Err(refused) => {
                self.refuse_entry(entry, refused);
                false
            }
        }
    }

    fn take_genesis(&mut self, entry: &Entry, domain: &str) {
        let Body::Genesis { founders, .. } = &entry.body else { return };
        let signed = matches!(founders, Founders::Keys(_));
        if signed && !self.signatures.verify(&entry.author, domain, entry.signed(), entry.signature()) {
            self.refuse_entry(entry, Refused::Signature);
            return;
        }
        self.adopt(entry.clone());
        if self.ring.is_some() {
            // We may have owned something once, and have given it away since: nothing is ours before we know all that another knows.
            (self.hold, self.compared) = (Some(u32::MAX), Default::default());
            self.write_behind(true);
        }
    }

    pub(super) fn refuse_entry(&mut self, entry: &Entry, refused: Refused) {
        self.counters.entries_refused.inc();
        self.complain(format!("an entry of the ring by {} was refused: {refused}", entry.author.name()));
    }

    pub(super) fn domain(&self) -> String {
        format!("{DOMAIN}{}", self.config.network)
    }

    /// Computes what is ours to give; what containers have of what is not ours any more is given up.
    pub(super) fn recount(&mut self) {
        let Some(ring) = &self.ring else { return };
        let retired = ring.pending(self.name).is_some();
        let frozen = |giver: Option<PeerName>| giver.is_some_and(|giver| giver != self.name && ring.pending(giver).is_some());
        let mut mine = Vec::new();
        for (range, leaf) in ring.leaves().iter().filter(|(_, leaf)| leaf.owner.name() == self.name && leaf.owner.is(&self.key)) {
            if !retired && !leaf.disputed && !frozen(leaf.giver) {
                mine.extend(self.outside_quarantine(range).into_iter().map(|range| (range, leaf.node)));
            }
        }
        self.mine = mine;
        let own = |address: u128| ring.leaves().at(address).is_some_and(|(_, leaf)| leaf.disputed || leaf.owner.name() == self.name);
        let managed = |address: u128| ring.ranges().iter().any(|range| range.contains(address));
        let lost: Vec<u128> = self.book.iter().map(|(address, _)| address).filter(|address| managed(*address) && !own(*address)).collect();
        for address in lost {
            self.give_way(address);
        }
    }

    pub(super) fn give_way(&mut self, address: u128) {
        let ident = self.book.holder(address).map(|holder| holder.ident.clone()).unwrap_or_default();
        self.counters.gave_way.inc();
        self.duplicates.insert(address);
        self.write_address(address, None);
        self.book.take(address);
        let text = ipam::address(address);
        self.report(format!(
            "{text} of container {ident} belongs to another router now, since this one was removed; attach the container anew"
        ));
    }
}
