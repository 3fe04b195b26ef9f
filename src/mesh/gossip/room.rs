//! Who is kept where there is not room for all. Anybody with a key can sign records of a router that does not exist, so what nobody is linked with
//! must never take the place of somebody who is there.
//!
//! | rank, lowest first | gives way to |
//! | --- | --- |
//! | no member (`--allow`, revoked) | anybody |
//! | never yet reached | members |
//! | was reached, and is not now | members, once there is nobody of a lower rank |
//! | is reached: links that both ends advertise lead there | nobody |
//!
//! Of one rank the one that has been out of reach for longest goes first. A router whose links were heard a moment ago counts as reached although
//! routes have yet to be looked for.

use super::Output;
use super::origins::Origin;
use super::store::Store;
use crate::crypto::PublicKey;
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::body::{Body, LEFT, LINKS};
use crate::wire::record::Record;

/// How much an origin is worth its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Outsider,
    Stranger,
    Missed,
    Reached,
}

impl Store {
    /// True for a router that no way has led to since something was first heard of it, as far as that was looked up.
    pub fn is_stranger(&self, name: PeerName) -> bool {
        self.origins.get(&name).is_some_and(Origin::is_stranger)
    }

    /// The newest incarnation of a router that records tell of.
    pub fn incarnation_of(&self, name: PeerName) -> Option<u64> {
        self.origins.get(&name).map(|origin| origin.incarnation)
    }

    /// True if the bounds allow the record, where need be after forgetting others.
    pub(super) fn make_room(&mut self, record: &Record, out: &mut Output) -> bool {
        let limits = self.config.limits;
        let id = record.id();
        let origin = self.origins.get(&id.name);
        let (records, replaced) = match origin {
            Some(origin) if record.edition().incarnation > origin.incarnation || id.kind == LEFT => (0, 0),
            Some(origin) => match origin.records.get(&(id.kind, id.chunk)) {
                Some(kept) => (origin.records.len() - 1, kept.bytes().len()),
                None => (origin.records.len(), 0),
            },
            None => (0, 0),
        };
        if records >= limits.records_per_origin {
            return false;
        }
        let is_new = origin.is_none();
        let most = if self.is_member(record.origin()) { Rank::Missed } else { Rank::Outsider };
        while (is_new && self.origins.len() >= limits.routers) || self.stored_bytes() - replaced + record.bytes().len() > limits.bytes {
            let Some(name) = self.least_wanted(id.name, most) else { return false };
            self.forget(name, out);
        }
        true
    }

    /// Who goes first, of those of no higher rank than `most`, for the sake of a record of `sake`.
    fn least_wanted(&self, sake: PeerName, most: Rank) -> Option<PeerName> {
        let others = self.origins.iter().filter(|(name, _)| **name != sake && **name != self.own);
        let ranked = others.map(|(name, origin)| (self.rank(origin), origin.unreachable_since.unwrap_or(Time::ZERO), *name));
        let mut candidates: Vec<(Rank, Time, PeerName)> = ranked.filter(|(rank, ..)| *rank <= most).collect();
        candidates.sort_unstable();
        candidates.into_iter().map(|(_, _, name)| name).find(|name| !self.is_joining(*name))
    }

    fn rank(&self, origin: &Origin) -> Rank {
        match (self.is_member(&origin.key), origin.unreachable_since) {
            (false, _) => Rank::Outsider,
            (true, None) => Rank::Reached,
            (true, _) if origin.is_stranger() => Rank::Stranger,
            (true, Some(_)) => Rank::Missed,
        }
    }

    fn is_member(&self, key: &PublicKey) -> bool {
        let allow = &self.config.allow;
        !self.revoked.contains(key) && (allow.is_empty() || allow.contains(key))
    }

    /// True where a member that was not reached when that was last looked up has a link by now with a router that is.
    fn is_joining(&self, name: PeerName) -> bool {
        let links = |origin: &Origin, of: PeerName| names_in(origin).any(|neighbour| neighbour == of);
        let Some(origin) = self.origins.get(&name).filter(|origin| self.is_member(&origin.key)) else { return false };
        let neighbours = names_in(origin).filter_map(|neighbour| self.origins.get(&neighbour));
        neighbours.filter(|neighbour| neighbour.unreachable_since.is_none()).any(|neighbour| links(neighbour, name))
    }
}

/// Whom a router says it has links with.
fn names_in(origin: &Origin) -> impl Iterator<Item = PeerName> {
    let entries = origin.bodies(LINKS).flat_map(|body| match body {
        Body::Links(links, _) => links.as_slice(),
        Body::Node(_) | Body::Macs(..) | Body::Left(_) | Body::Unknown(..) => &[],
    });
    entries.map(|link| link.neighbour)
}
