//! Who has which address: each router says in signed records which addresses it saw on its own bridge, and what all say together
//! decides whether others may answer for them.
//!
//! | what is known of an address | the packet threads' table says |
//! | --- | --- |
//! | seen on our bridge, and nobody says otherwise | here |
//! | one MAC, said by the router whose claim to that MAC is the best ([`macs`](super::macs)) | there |
//! | several MACs, one that several hosts have, or contradicted within the last minute | disputed |
//! | anything else | nothing |
//!
//! A router speaks for MACs that it announces alone: what it says of others counts for nothing. A contradiction is a frame, or a record,
//! that names another MAC. It lasts a minute; who was contradicted and did not repeat what he said by then has it no more. Two that both do
//! are as good as none. What nobody repeated for ten minutes is forgotten, and what is gone from the bridge at once.
//! All is bounded: addresses per router, and contradictions in all, beyond which nothing is answered for a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::command::Sighting;
use super::config::Outbox;
use super::core::Mesh;
use super::gossip::Output;
use crate::forward::addresses::{Addresses, Known};
use crate::forward::mac_table::AGEING;
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::bindings::{Binding, Place};

/// How long a contradiction lasts.
const DOUBT: Duration = Duration::from_secs(60);
/// Contradictions remembered.
const MOST_DOUBTED: usize = 16_384;
/// How long news are collected before they are announced.
const BATCH: Duration = Duration::from_millis(50);
/// Chunks of a router's bindings.
pub(super) const MOST_CHUNKS: usize = 16;
/// Addresses that a router announces.
const MOST_OWN: usize = MOST_CHUNKS * crate::wire::bindings::PER_CHUNK;

/// All bindings, our own among them.
pub(super) struct Bindings {
    /// What packet threads answer by.
    pub(super) table: Arc<Addresses>,
    /// Our own: the MAC, and when it was last told.
    own: BTreeMap<Place, ([u8; 6], Time)>,
    heard: BTreeMap<PeerName, BTreeSet<Place>>,
    claims: BTreeMap<Place, BTreeMap<PeerName, [u8; 6]>>,
    doubted: BTreeMap<Place, Time>,
    due: Option<Time>,
}

impl Bindings {
    /// No bindings yet; `key` is the random key of the table's hash.
    pub(super) fn new(key: u64) -> Bindings {
        Bindings {
            table: Arc::new(Addresses::new(key)),
            own: BTreeMap::new(),
            heard: BTreeMap::new(),
            claims: BTreeMap::new(),
            doubted: BTreeMap::new(),
            due: None,
        }
    }

    /// When there is something to announce.
    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }

    /// True where somebody has said that the address is elsewhere than at `mac`.
    fn is_elsewhere(&self, place: &Place, mac: [u8; 6]) -> bool {
        let claimed = self.claims.get(place).is_some_and(|claims| claims.values().any(|other| *other != mac));
        claimed || self.own.get(place).is_some_and(|(own, _)| *own != mac)
    }

    fn doubt(&mut self, now: Time, place: Place) {
        if self.doubted.len() >= MOST_DOUBTED && !self.doubted.contains_key(&place) {
            return self.table.doubt_all(now + DOUBT);
        }
        self.doubted.insert(place, now + DOUBT);
    }

    /// Our own. Of two stations of one address on our bridge the first is told of, which shows others that there are two.
    fn tell(&mut self, now: Time, place: Place, mac: [u8; 6]) {
        let before = self.own.get(&place).map(|(mac, _)| *mac);
        if before.is_some_and(|before| before != mac) && self.doubted.contains_key(&place) {
            return;
        }
        self.own.insert(place, (mac, now));
        if before != Some(mac) {
            self.due.get_or_insert(now + BATCH);
        }
    }

    fn drop_own(&mut self, now: Time, place: &Place) {
        if self.own.remove(place).is_some() {
            self.due.get_or_insert(now + BATCH);
        }
    }

    fn drop_claim(&mut self, place: &Place, origin: PeerName) {
        if let Some(claims) = self.claims.get_mut(place) {
            claims.remove(&origin);
            if claims.is_empty() {
                self.claims.remove(place);
            }
        }
    }
}

impl Mesh {
    /// What packet threads answer by.
    pub fn addresses(&self) -> Arc<Addresses> {
        Arc::clone(&self.bindings.table)
    }

    /// A frame says where an address is.
    pub(super) fn on_sighting(&mut self, now: Time, sighting: Sighting) {
        let Sighting { place, mac, here } = sighting;
        let is_own = here && self.macs.winner((place.0, mac)) == Some(self.own);
        if here && !is_own {
            return;
        }
        let bindings = &mut self.bindings;
        if !here || bindings.is_elsewhere(&place, mac) {
            self.counters.bindings_contradicted.inc();
            bindings.doubt(now, place);
        }
        let has_room = bindings.own.len() < MOST_OWN || bindings.own.contains_key(&place);
        if is_own && !has_room {
            self.counters.bindings_over_limit.inc();
        } else if is_own {
            bindings.tell(now, place, mac);
        }
        self.settle_binding(place);
    }

    /// The bindings that `origin` announces have changed.
    pub(super) fn heard_bindings(&mut self, now: Time, origin: PeerName) {
        if origin == self.own {
            return;
        }
        let told: BTreeMap<Place, [u8; 6]> = match self.store.is_allowed(origin) {
            true => self.store.bindings_of(origin).into_iter().map(|binding| (binding.place, binding.mac)).collect(),
            false => BTreeMap::new(),
        };
        let bindings = &mut self.bindings;
        let old = bindings.heard.remove(&origin).unwrap_or_default();
        for (place, mac) in &told {
            // What it said itself until now counts as well: the address has another MAC than a moment ago.
            let is_new = bindings.claims.get(place).and_then(|claims| claims.get(&origin)) != Some(mac);
            if is_new && bindings.is_elsewhere(place, *mac) {
                self.counters.bindings_contradicted.inc();
                bindings.doubt(now, *place);
            }
        }
        old.iter().for_each(|place| bindings.drop_claim(place, origin));
        for (place, mac) in &told {
            bindings.claims.entry(*place).or_default().insert(origin, *mac);
        }
        let changed: BTreeSet<Place> = old.iter().chain(told.keys()).copied().collect();
        if !told.is_empty() {
            bindings.heard.insert(origin, told.into_keys().collect());
        }
        changed.into_iter().for_each(|place| self.settle_binding(place));
    }

    /// Who has which MAC has changed: with those that `origin` claims, or with our own.
    pub(super) fn review_bindings(&mut self, now: Time, origin: PeerName) {
        let (macs, name) = (&self.macs, self.own);
        let lost = self.bindings.own.iter().filter(|(place, (mac, _))| macs.winner((place.0, *mac)) != Some(name));
        let lost: Vec<Place> = lost.map(|(place, _)| *place).collect();
        let theirs: Vec<Place> = self.bindings.heard.get(&origin).into_iter().flatten().copied().collect();
        for place in &lost {
            self.bindings.drop_own(now, place);
        }
        lost.into_iter().chain(theirs).for_each(|place| self.settle_binding(place));
    }

    /// Each second: what is old is forgotten.
    pub(super) fn age_bindings(&mut self, now: Time) {
        let old: Vec<Place> =
            self.bindings.own.iter().filter(|(_, (_, told))| now.since(*told) >= AGEING).map(|(place, _)| *place).collect();
        let certain: Vec<Place> = self.bindings.doubted.iter().filter(|(_, until)| now >= **until).map(|(place, _)| *place).collect();
        old.iter().for_each(|place| self.bindings.drop_own(now, place));
        for place in &certain {
            self.bindings.doubted.remove(place);
            // Contradicted, and not repeated since: the other is right.
            if self.bindings.own.get(place).is_some_and(|(_, told)| now.since(*told) >= DOUBT) {
                self.bindings.drop_own(now, place);
            }
        }
        old.into_iter().chain(certain).for_each(|place| self.settle_binding(place));
    }

    /// Announces what is new, where it is time.
    pub(super) fn publish_bindings(&mut self, now: Time, out: &mut Outbox) {
        if self.bindings.due.is_none_or(|due| now < due) {
            return;
        }
        self.bindings.due = None;
        let own: Vec<Binding> = self.bindings.own.iter().map(|(place, (mac, _))| Binding { place: *place, mac: *mac }).collect();
        let mut said = Output::default();
        self.store.publish_bindings(now, &own, &mut said);
        self.spread(now, said, out);
    }

    /// Writes into the table what is known of an address now.
    fn settle_binding(&self, place: Place) {
        let known = if self.bindings.doubted.contains_key(&place) { Some(Known::Disputed) } else { self.known(&place) };
        self.bindings.table.set(place, known);
    }

    fn known(&self, place: &Place) -> Option<Known> {
        let own = self.bindings.own.get(place).copied();
        let claims = self.bindings.claims.get(place);
        let all = claims.into_iter().flat_map(BTreeMap::values).copied().chain(own.map(|(mac, _)| mac));
        let macs: BTreeSet<[u8; 6]> = all.collect();
        let mac = macs.first().copied()?;
        if macs.len() > 1 {
            return Some(Known::Disputed);
        }
        if self.macs.is_frozen((place.0, mac)) {
            return Some(Known::Disputed);
        }
        let winner = self.macs.winner((place.0, mac))?;
        match own {
            Some((mac, told)) if winner == self.own => Some(Known::Here(mac, told)),
            _ => claims.is_some_and(|claims| claims.contains_key(&winner)).then_some(Known::There(mac, winner)),
        }
    }
}

#[cfg(test)]
mod tests;
