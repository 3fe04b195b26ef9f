//! What one author may put into the ring, so that a member gone bad does not fill it.
//!
//! An honest router stops giving at [`MOST_TO_GIVE`] entries and never makes its last: whoever gets to [`MOST_OF_ONE`] lies. From then on nothing
//! more of it is taken in, and what it gave is used for nothing new (the caller's to see to). Which of its entries a router has taken in until then
//! depends on what came first. For comparisons all of them count as one *mark*, so that rings which differ in nothing else are the same; who
//! has no mark yet is offered the entries until it has one. Those who never owned anything have one account together, since keys cost nothing.
//!
//! An honest router may have used, in good faith, one of the last entries of somebody who lies. What it makes of it must be taken in by all; so what
//! an entry names goes beyond every account, and is sent along with it.

use std::collections::{BTreeMap, BTreeSet};

use super::{MAX_ENTRIES, Ring, bucket};
use crate::crypto::PublicKey;
use crate::wire::PeerName;
use crate::wire::ipam::{Body, Entry, EntryId};

/// Most entries of one author: a founder of a mesh of a thousand routers that gives to all of them makes some two thousand.
pub const MOST_OF_ONE: usize = MAX_ENTRIES / 4;
/// So many entries of its own, and a router gives nothing to others any more: the rest is for votes and for its own end.
pub const MOST_TO_GIVE: usize = MOST_OF_ONE / 4 * 3;
/// So many grants to one router, and no honest one gives it more: whoever asks for single addresses has others make an entry for each.
pub const MOST_TO_TAKE: usize = MOST_OF_ONE / 2;
/// Most entries of all that never owned anything: they remove the dead by force, if anything.
pub const MOST_OF_STRANGERS: usize = 1024;
/// The mark of those.
const STRANGERS: EntryId = EntryId([0xff; 16]);

/// What each author has put in.
#[derive(Default)]
pub(super) struct Accounts {
    by_author: BTreeMap<PublicKey, usize>,
    strangers: usize,
    /// How often each was given something.
    received: BTreeMap<PublicKey, usize>,
    /// Owners that have put in as many as they may.
    full: BTreeSet<PublicKey>,
}

impl Ring {
    /// How many entries somebody has put in.
    pub fn entries_of(&self, author: &PublicKey) -> usize {
        self.accounts.by_author.get(author).copied().unwrap_or(0)
    }

    /// How many grants there are to somebody.
    pub fn grants_to(&self, owner: &PublicKey) -> usize {
        self.accounts.received.get(owner).copied().unwrap_or(0)
    }

    /// Notes a grant.
    pub(super) fn note_grant(&mut self, to: PublicKey) {
        *self.accounts.received.entry(to).or_default() += 1;
    }

    /// Owners of whom nothing more is taken in.
    pub fn full(&self) -> impl Iterator<Item = PeerName> {
        self.accounts.full.iter().map(PublicKey::name)
    }

    /// True where one more of an author is taken in.
    pub fn has_room(&self, author: &PublicKey) -> bool {
        !self.is_full(author)
    }

    /// True where nothing more of an author is taken in.
    pub(super) fn is_full(&self, author: &PublicKey) -> bool {
        match self.ever.contains(&author.name()) {
            true => self.accounts.full.contains(author),
            false => self.strangers_are_full(),
        }
    }

    fn strangers_are_full(&self) -> bool {
        self.accounts.strangers >= MOST_OF_STRANGERS
    }

    /// Notes a new entry, and adds it to the sums, where it counts by itself.
    pub(super) fn charge(&mut self, entry: &Entry) {
        if entry.id() == self.mesh() {
            return self.add_up(entry.id());
        }
        let (author, full) = (entry.author, self.is_full(&entry.author));
        let count = self.accounts.by_author.entry(author).or_default();
        *count += 1;
        if !self.ever.contains(&author.name()) {
            self.accounts.strangers += 1;
        } else if *count >= MOST_OF_ONE {
            self.accounts.full.insert(author);
        }
        match (full, self.is_full(&author)) {
            (true, _) => {}
            (false, false) => self.add_up(entry.id()),
            (false, true) => self.add_up_again(),
        }
    }

    /// Somebody owns something, maybe for the first time: what it has put in counts for itself alone.
    pub(super) fn settle_in(&mut self, name: PeerName) {
        if !self.ever.insert(name) {
            return;
        }
        let of: Vec<(PublicKey, usize)> =
            self.accounts.by_author.iter().filter(|(key, _)| key.name() == name).map(|(k, n)| (*k, *n)).collect();
        if of.is_empty() {
            return;
        }
        let were_full = self.strangers_are_full();
        for (key, count) in &of {
            self.accounts.strangers = self.accounts.strangers.saturating_sub(*count);
            if *count >= MOST_OF_ONE {
                self.accounts.full.insert(*key);
            }
        }
        if were_full || of.iter().any(|(key, _)| self.accounts.full.contains(key)) {
            self.add_up_again();
        }
    }

    /// Computes the sums anew: a mark in the place of what whoever is full has put in.
    fn add_up_again(&mut self) {
        self.version += 1;
        self.sum = 0;
        self.buckets.fill(0);
        let mut counted: Vec<EntryId> = self.order.iter().filter(|entry| !self.is_marked(entry)).map(|entry| entry.id()).collect();
        counted.extend(self.marks().map(|(mark, _)| mark));
        counted.into_iter().for_each(|id| self.add_up(id));
    }

    /// True for an entry that does not count by itself.
    fn is_marked(&self, entry: &Entry) -> bool {
        entry.id() != self.mesh() && self.is_full(&entry.author)
    }

    /// The marks, each with its author, `None` for strangers.
    fn marks(&self) -> impl Iterator<Item = (EntryId, Option<PublicKey>)> {
        let strangers = self.strangers_are_full().then_some((STRANGERS, None));
        self.accounts.full.iter().map(|key| (mark(key), Some(*key))).chain(strangers)
    }

    /// What stands behind the marks of a bucket.
    pub(super) fn behind_marks(&self, number: usize) -> Vec<EntryId> {
        let marks: Vec<Option<PublicKey>> = self.marks().filter(|(mark, _)| bucket(*mark) == number).map(|(_, of)| of).collect();
        let account = |entry: &Entry| self.ever.contains(&entry.author.name()).then_some(entry.author);
        match marks.is_empty() {
            true => Vec::new(),
            false => {
                self.order.iter().filter(|entry| self.is_marked(entry) && marks.contains(&account(entry))).map(|entry| entry.id()).collect()
            }
        }
    }

    /// The same entries, with those behind marks that they rest on, at most twice as many.
    pub(super) fn with_roots(&self, mut ids: Vec<EntryId>, most: usize) -> Vec<EntryId> {
        let mut at = 0;
        while let Some(entry) = ids.get(at).and_then(|id| self.get(id)) {
            at += 1;
            if ids.len() < most * 2 {
                ids.extend(self.roots(entry).into_iter().filter(|id| self.get(id).is_some_and(|root| self.is_marked(root))));
            }
        }
        ids
    }

    /// What an entry rests on.
    fn roots(&self, entry: &Entry) -> Vec<EntryId> {
        match &entry.body {
            Body::Vote { dead, round, .. } | Body::Removal { dead, round, forced: true, .. } => {
                let before = round.saturating_sub(1);
                self.votes(*dead, before).map(Entry::id).chain(self.removals.in_round(*dead, before)).collect()
            }
            Body::Genesis { .. }
            | Body::Grant { .. }
            | Body::Removal { .. }
            | Body::Tally { .. }
            | Body::Taken { .. }
            | Body::Done { .. } => named(&entry.body),
        }
    }
}

/// The entries that one names.
fn named(body: &Body) -> Vec<EntryId> {
    match body {
        Body::Genesis { .. } | Body::Vote { .. } => Vec::new(),
        Body::Grant { parent, .. } => vec![*parent],
        Body::Removal { votes, .. } | Body::Tally { votes, .. } => votes.clone(),
        Body::Taken { removal, parent, .. } => vec![*removal, *parent],
        Body::Done { removal, .. } => vec![*removal],
    }
}

/// True where one entry may have to wait for another.
pub fn rests_on(one: &Entry, other: &Entry) -> bool {
    let after = |dead: &PeerName, round: &u32| match &other.body {
        Body::Vote { dead: of, round: before, .. } | Body::Removal { dead: of, round: before, .. } => {
            of == dead && before.checked_add(1) == Some(*round)
        }
        Body::Genesis { .. } | Body::Grant { .. } | Body::Tally { .. } | Body::Taken { .. } | Body::Done { .. } => false,
    };
    match &one.body {
        Body::Vote { dead, round, .. } | Body::Removal { dead, round, forced: true, .. } => after(dead, round),
        Body::Genesis { .. } | Body::Grant { .. } | Body::Removal { .. } | Body::Tally { .. } | Body::Taken { .. } | Body::Done { .. } => {
            named(&one.body).contains(&other.id())
        }
    }
}

/// What stands in the sums for all that an author has put in.
fn mark(key: &PublicKey) -> EntryId {
    let mut mark = [0; 16];
    mark.copy_from_slice(&key.0[..16]);
    EntryId(mark)
}
