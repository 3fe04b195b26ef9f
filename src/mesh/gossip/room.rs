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

use std::collections::VecDeque;

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
pub(super) enum Rank {
    Outsider,
    Stranger,
    Missed,
    Reached,
}

/// Who may have to go: what it is worth, and since when it is out of reach.
type Candidate = (Rank, Time, PeerName);

/// Who goes next, as of the last look at all: of those that were never reached, and of no members. Whoever makes up routers without end would else have
/// all of them looked at for each. Those that were reached are looked for anew each time, as they go only once there is nobody else.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Who goes first is last.
    candidates: VecDeque<Candidate>,
    /// True where there was a look at all, and everybody who came since has been put in line.
    is_whole: bool,
    /// True where nobody may go, until something is known of somebody else.
    pub(super) nobody: bool,
    /// True once it was said that there is no room for all.
    warned: bool,
}

impl Line {
    /// Nothing that is known of it holds any more.
    pub(super) fn dissolve(&mut self) {
        (self.candidates, self.is_whole, self.nobody) = (VecDeque::new(), false, false);
    }
}

impl Store {
    /// Bytes of all records held.
    pub fn stored_bytes(&self) -> usize {
        self.bytes
    }

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
            let Some(name) = self.least_wanted(id.name, most) else {
                if most == Rank::Missed {
                    self.warn_of_too_many(out);
                }
                return false;
            };
            self.forget(name, out);
        }
        true
    }

    fn warn_of_too_many(&mut self, out: &mut Output) {
        if !std::mem::replace(&mut self.line.warned, true) {
            out.warnings.push(format!(
                "this mesh has more routers or more to say than this router keeps ({} routers, {} MiB): what others say is not taken in any more, so that ways and names are missing; \
                 make two networks of it (--network)",
                self.config.limits.routers,
                self.config.limits.bytes >> 20
            ));
        }
    }

    /// Who goes first, of those of no higher rank than `most`, for the sake of a record of `sake`.
    fn least_wanted(&mut self, sake: PeerName, most: Rank) -> Option<PeerName> {
        if let Some(name) = self.next_in_line(sake, most) {
            return Some(name);
        }
        if self.line.nobody {
            return None;
        }
        let mut all: Vec<Candidate> = self.candidates().collect();
        self.line.nobody = all.is_empty();
        all.sort_unstable_by(|one, other| other.cmp(one));
        let missed = all.partition_point(|(rank, ..)| *rank == Rank::Missed);
        (self.line.candidates, self.line.is_whole) = (all.split_off(missed).into(), true);
        let next = self.next_in_line(sake, most);
        let missed = || all.iter().rev().filter(|(rank, ..)| *rank <= most).map(|(.., name)| *name);
        next.or_else(|| missed().find(|name| self.may_go(sake, *name)))
    }

    /// Those that others may take the place of. Where all are members these are among those that are not reached.
    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        let all_members = self.config.allow.is_empty() && self.revoked.is_empty();
        let others = if all_members { None } else { Some(self.origins.keys()) };
        let names = others.into_iter().flatten().chain(self.unreached.iter().filter(move |_| all_members));
        let ranked = names.filter_map(|name| Some((self.origins.get(name)?, *name)));
        let ranked = ranked.map(|(origin, name)| (self.rank(origin), origin.unreachable_since.unwrap_or(Time::ZERO), name));
        ranked.filter(|(rank, ..)| *rank <= Rank::Missed)
    }

    /// Who is first in the line and still what it was.
    fn next_in_line(&mut self, sake: PeerName, most: Rank) -> Option<PeerName> {
        while let Some((rank, since, name)) = self.line.candidates.back().copied().filter(|(rank, ..)| *rank <= most) {
            self.line.candidates.pop_back();
            // Who is no member is none, wherever links lead.
            let lasts = |origin: &Origin| rank == Rank::Outsider || origin.unreachable_since.unwrap_or(Time::ZERO) == since;
            let stands = |origin: &Origin| self.rank(origin) == rank && lasts(origin);
            if self.origins.get(&name).is_some_and(stands) && self.may_go(sake, name) {
                return Some(name);
            }
        }
        None
    }

    /// Something is heard of a router for the first time: it goes after those that are in line already, unless it is no member.
    pub(super) fn line_up(&mut self, name: PeerName) {
        self.line.nobody = false;
        if self.line.candidates.len() > 2 * self.config.limits.routers {
            self.line.dissolve();
        }
        if let Some(origin) = self.origins.get(&name).filter(|_| self.line.is_whole) {
            let newest = (self.rank(origin), origin.unreachable_since.unwrap_or(Time::ZERO), name);
            match newest.0 {
                Rank::Outsider => self.line.candidates.push_back(newest),
                Rank::Stranger => self.line.candidates.push_front(newest),
                Rank::Missed | Rank::Reached => {}
            }
        }
    }

    fn may_go(&self, sake: PeerName, name: PeerName) -> bool {
        name != sake && name != self.own && !self.is_joining(name)
    }

    pub(super) fn rank(&self, origin: &Origin) -> Rank {
        match (self.is_member(&self.key_of(origin)), origin.unreachable_since) {
            (false, _) => Rank::Outsider,
            (true, None) => Rank::Reached,
            (true, _) if origin.is_stranger() => Rank::Stranger,
            (true, Some(_)) => Rank::Missed,
        }
    }

    /// The key of a router of which something is held.
    pub(super) fn key_of(&self, origin: &Origin) -> PublicKey {
        origin.key().copied().unwrap_or(self.config.identity.public().key)
    }

    fn is_member(&self, key: &PublicKey) -> bool {
        let allow = &self.config.allow;
        !self.revoked.contains(key) && (allow.is_empty() || allow.contains(key))
    }

    /// True where a member that was not reached when that was last looked up has a link by now with a router that is.
    pub(super) fn is_joining(&self, name: PeerName) -> bool {
        let links = |origin: &Origin, of: PeerName| names_in(origin).any(|neighbour| neighbour == of);
        let Some(origin) = self.origins.get(&name).filter(|origin| self.is_member(&self.key_of(origin))) else { return false };
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
