//! Routers that are being removed, or have been.

use std::collections::BTreeMap;

use super::Ring;
use crate::crypto::PublicKey;
use crate::wire::PeerName;
use crate::wire::ipam::EntryId;

/// A router that is being removed, or has been.
pub(super) struct Removal {
    pub id: EntryId,
    pub dead: PeerName,
    pub round: u32,
    pub taker: PublicKey,
    /// The names of all that was taken by it, added.
    pub taken: u128,
    pub done: bool,
}

/// All removals, by name and by who is removed.
#[derive(Default)]
pub(super) struct Removals {
    by_id: BTreeMap<EntryId, Removal>,
    by_dead: BTreeMap<PeerName, BTreeMap<u32, Vec<EntryId>>>,
}

impl Removals {
    pub fn add(&mut self, removal: Removal) {
        let round = self.by_dead.entry(removal.dead).or_default().entry(removal.round).or_default();
        round.push(removal.id);
        // The last of a round is the one that counts.
        round.sort_unstable();
        self.by_id.insert(removal.id, removal);
    }

    pub fn get(&self, id: &EntryId) -> Option<&Removal> {
        self.by_id.get(id)
    }

    pub fn get_mut(&mut self, id: &EntryId) -> Option<&mut Removal> {
        self.by_id.get_mut(id)
    }

    /// Those of a router in a round.
    pub fn in_round(&self, dead: PeerName, round: u32) -> impl Iterator<Item = EntryId> {
        self.by_dead.get(&dead).and_then(|rounds| rounds.get(&round)).into_iter().flatten().copied()
    }

    fn last(&self, dead: PeerName) -> Option<&Removal> {
        let (_, last) = self.by_dead.get(&dead)?.last_key_value()?;
        self.get(last.last()?)
    }
}

impl Ring {
    /// The removal of a router that is not done yet: the entry, and who takes its space.
    pub fn pending(&self, dead: PeerName) -> Option<(EntryId, PublicKey)> {
        let last = self.removals.last(dead)?;
        (!last.done).then_some((last.id, last.taker))
    }

    /// How many removals there were.
    pub fn removals(&self) -> usize {
        self.removals.by_id.len()
    }

    /// Removals that are not done.
    pub fn pending_removals(&self) -> Vec<(PeerName, EntryId, PublicKey)> {
        self.removals.by_dead.keys().filter_map(|dead| self.pending(*dead).map(|(id, taker)| (*dead, id, taker))).collect()
    }

    /// Round of the last removal of a router, 0 if there was none, and whether it is done.
    pub fn last_round(&self, dead: PeerName) -> (u32, bool) {
        self.removals.last(dead).map_or((0, true), |removal| (removal.round, removal.done))
    }
}
