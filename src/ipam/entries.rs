//! What comes into the ring, from us and from others, and what it means for what we give.

use std::time::Duration;

use super::book::Standing;
use super::leaves::Leaf;
use super::ring::{MANY_ENTRIES, MAX_ENTRIES, MOST_OF_ONE, MOST_TO_GIVE, Outcome, Refused, Ring, rests_on};
use super::{Ipam, sync};
use crate::wire::PeerName;
use crate::wire::ipam::{self, Body, Entry, EntryId, Founders, Message, Range};

/// What a signature of an entry is good for.
const DOMAIN: &str = "weave-router ipam v1 ";
/// Most entries that are kept because they came early.
const MOST_EARLY: usize = 512;

impl Ipam {
    /// Begins with the ring of this genesis, which was agreed on just now, or is known to others already.
    pub(super) fn adopt(&mut self, genesis: Entry, theirs: bool) {
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
        if theirs {
            // We may have owned something once, and have given it away since: nothing is ours before we know all that another knows.
            (self.hold, self.compared) = (Some(u32::MAX), Default::default());
            self.write_behind(true);
        }
        self.recount();
        self.progress();
    }

    /// Puts an entry of ours into the ring; it is written, published and told to those whom it concerns.
    pub(super) fn author(&mut self, body: &Body, tell: &[PeerName]) -> Option<EntryId> {
        let domain = self.domain();
        // Whoever makes as many as one may is taken for a liar.
        let ring = self.ring.as_mut().filter(|ring| ring.entries_of(&self.key) + 1 < MOST_OF_ONE)?;
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
        self.mind_the_limit();
        Some(id)
    }

    /// Says in good time, once, that the ring will be full.
    fn mind_the_limit(&mut self) {
        if !self.crowded
            && let Some(sentence) = self.crowding()
        {
            self.crowded = true;
            self.report(sentence);
        }
    }

    /// What is to be said of a ring that is nearly full, or in which we have said nearly all that we may.
    pub(super) fn crowding(&self) -> Option<String> {
        let ring = self.ring.as_ref()?;
        let (count, own) = (ring.len(), ring.entries_of(&self.key));
        if own >= MOST_TO_GIVE {
            return Some(format!(
                "this router has put {own} of at most {MOST_OF_ONE} entries into the ring of addresses, and gives no space to other routers any more; \
                 `reset` it, which gives its space away, or found the ring anew (`reset --force` and stop all routers, then start them)"
            ));
        }
        (count >= MANY_ENTRIES).then(|| format!(
            "the ring of addresses has {count} of at most {MAX_ENTRIES} entries: once it is full no space goes from one router to another any more; \
             give each router a larger share, and found the ring anew (`reset --force` and stop all routers, then start them) when there is time for it"
        ))
    }

    /// Those who have put in more than an honest router would.
    fn liars(&self) -> Vec<PeerName> {
        self.ring.iter().flat_map(Ring::full).collect()
    }

    /// What is to be said of them.
    pub(super) fn accusations(&self) -> Vec<String> {
        self.liars().into_iter().map(|name| self.accusation(name)).collect()
    }

    fn accusation(&self, name: PeerName) -> String {
        format!(
            "{} has put {MOST_OF_ONE} entries into the ring of addresses, which no honest router does: nothing more of it is taken in, and what it \
             gave is given to no further container; `revoke` it, and found the ring anew (`reset --force` and stop all routers, then start them) if addresses run short",
            self.nickname(name)
        )
    }

    fn remember_own(&mut self, id: EntryId) {
        self.authored.push_back(id);
        if self.authored.len() > sync::NEWEST {
            self.authored.pop_front();
        }
    }

    /// Takes in entries of others, each if it is right.
    pub(super) fn take_in(&mut self, from: Option<PeerName>, mut entries: Vec<Entry>) {
        let (domain, before) = (self.domain(), self.ring.as_ref().map_or((0, 0), |ring| (ring.version(), ring.removals())));
        let liars = self.liars();
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
        let after = self.ring.as_ref().map_or((0, 0), |ring| (ring.version(), ring.removals()));
        if after.1 != before.1 {
            self.note_survivors();
        }
        if after.0 != before.0 {
            self.recount();
            self.progress();
        }
        self.mind_the_limit();
        for liar in self.liars().into_iter().filter(|name| !liars.contains(name)) {
            self.report(self.accusation(liar));
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
        // What another author's entry waits for is taken in whatever its own author has put in.
        let wanted = !ring.has_room(&entry.author) && self.early.values().any(|early| rests_on(early, entry));
        let outcome = if wanted { ring.insert_beyond(entry.clone(), verify) } else { ring.insert(entry.clone(), verify) };
        match outcome {
            Ok(Outcome::Added) => {
                let number = ring.len();
                self.write_entry(entry, number);
                true
            }
            Ok(Outcome::Known) => false,
            Ok(Outcome::Waiting) => {
                self.counters.entries_early.inc();
                if wanted || ring.has_room(&entry.author) {
                    self.keep_early(entry);
                }
                false
            }
            Err(Refused::Budget) => {
                self.counters.entries_over_budget.inc();
                self.complain(format!("an entry of the ring by {} was refused: {}", entry.author.name(), Refused::Budget));
                false
            }
            Err(refused) => {
                self.refuse_entry(entry, refused);
                false
            }
        }
    }

    /// Keeps what came before something that it names. What it names may not exist, so one by chance makes room for another.
    fn keep_early(&mut self, entry: &Entry) {
        if self.early.len() >= MOST_EARLY {
            let at = usize::try_from(self.chance(self.early.len() as u64)).unwrap_or(0);
            if let Some(gone) = self.early.keys().nth(at).copied() {
                self.early.remove(&gone);
            }
        }
        self.early.insert(entry.id(), entry.clone());
    }

    fn take_genesis(&mut self, entry: &Entry, domain: &str) {
        let Body::Genesis { founders, .. } = &entry.body else { return };
        let signed = matches!(founders, Founders::Keys(_));
        if signed && !self.signatures.verify(&entry.author, domain, entry.signed(), entry.signature()) {
            self.refuse_entry(entry, Refused::Signature);
            return;
        }
        self.adopt(entry.clone(), true);
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
        let mut mine = Vec::new();
        for (range, leaf) in ring.leaves().iter().filter(|(_, leaf)| !leaf.disputed && self.is_usable(leaf)) {
            mine.extend(self.outside_quarantine(range).into_iter().map(|range| (range, leaf.node)));
        }
        self.mine = mine;
        let own = |address: u128| ring.leaves().at(address).is_some_and(|(_, leaf)| leaf.disputed || leaf.owner.name() == self.name);
        let managed = |address: u128| ring.ranges().iter().any(|range| range.contains(address));
        let given = self.book.iter().filter(|(_, holder)| holder.standing == Standing::Given).map(|(address, _)| address);
        let lost: Vec<u128> = given.filter(|address| managed(*address) && !own(*address)).collect();
        for address in lost {
            self.give_way(address);
        }
    }

    /// True for what we own, unless it, or we, are being taken back.
    pub(super) fn is_usable(&self, leaf: &Leaf) -> bool {
        let Some(ring) = self.ring.as_ref().filter(|_| leaf.owner.name() == self.name && leaf.owner.is(&self.key)) else { return false };
        let lies = |giver: PeerName| ring.full().any(|liar| liar == giver);
        let frozen = leaf.giver.is_some_and(|giver| giver != self.name && (ring.pending(giver).is_some() || lies(giver)));
        !frozen && ring.pending(self.name).is_none()
    }

    fn give_way(&mut self, address: u128) {
        let ident = self.book.holder(address).map(|holder| holder.ident.clone()).unwrap_or_default();
        self.counters.gave_way.inc();
        self.remember_duplicate(address);
        self.write_address(address, None);
        // The container goes on using it: should it be ours again, it is still not free.
        self.book.refuse(address);
        let text = ipam::address(address);
        self.report(format!(
            "{text} of container {ident} belongs to another router now, since this one was removed; attach the container anew"
        ));
    }
}
