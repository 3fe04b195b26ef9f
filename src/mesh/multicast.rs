//! Multicast groups: which have members on our bridge, who else has told of members, and so where frames of a group are wanted.
//!
//! ```text
//!  station joins ── report ──► packet thread ──► here ── GROUPS record ──► everybody: floods of the group go only towards members
//!
//!  every 125 s, after a start, a new MAC or a leave ── question on our own bridge, which never crosses the mesh
//! ```
//!
//! | a router | gets frames of |
//! | --- | --- |
//! | that does not say it snoops, is new to us, or says what we cannot read | all groups |
//! | with a multicast router on its bridge, or with more groups than it tells | all groups |
//! | any other | the groups it tells, and those nobody tells |
//!
//! Members are asked, as there may be no multicast router to do it, and are forgotten when two questions went by unanswered. Who leaves is
//! gone when another question had no answer: so what joins and leaves all the time is no news. Joins are told at once, within a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::apps::MAX_CHUNKS;
use super::command::{Event, Membership};
use super::config::Outbox;
use super::core::Mesh;
use super::routes::FloodTree;
use crate::forward::groups::Groups;
use crate::forward::limit::TokenBucket;
use crate::forward::membership::{INTERVAL_SECONDS, questions};
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::groups::{self, GROUPS, PER_CHUNK, SNOOPS};

/// Between two questions.
const INTERVAL: Duration = Duration::from_secs(INTERVAL_SECONDS as u64);
/// A member that was not heard of for so long is none: two questions, and the time for an answer (RFC 3376, 8.4).
const LIFE: Duration = Duration::from_secs(2 * INTERVAL_SECONDS as u64 + 10);
/// Who left is forgotten after this, unless another of its bridge answers two questions meanwhile (8.8).
const LINGER: Duration = Duration::from_millis(3500);
/// Between the two.
const SECOND_TRY: Duration = Duration::from_millis(1000);
/// A router of which we know for no longer than this may not know its members yet: it asks at once and again after a second, and is
/// answered within another.
const FRESH: Duration = Duration::from_secs(4);
/// A station that has come may have joined elsewhere: it is asked soon, but not each of many.
const SOON: Duration = Duration::from_millis(100);
const SOON_AGAIN: Duration = Duration::from_secs(10);
/// Groups with members here that are told; more of them, and all are wanted.
const MOST_OWN: usize = PER_CHUNK * 16;
/// Groups that are asked for after a leave, at once.
const MOST_ASKED: usize = 64;
/// Changes told at once, and then in a second: each is signed and goes to everybody.
const NEWS: (u64, u64) = (1, 10);
/// Packet threads follow changes at most this often.
const FIB_EVERY: Duration = Duration::from_millis(100);

/// What the picture of who wants what was made from.
type Basis = (Arc<FloodTree>, Vec<(PeerName, u64, bool)>);

/// What is known of groups.
pub(super) struct Multicast {
    /// Groups with members on our bridge, and until when they have.
    own: BTreeMap<IpAddr, Time>,
    /// Until when all groups are taken for wanted here: by a multicast router, and because there are too many.
    router: Option<Time>,
    crowded: Option<Time>,
    /// What others say; nothing of those that say nothing.
    told: BTreeMap<PeerName, groups::Groups>,
    /// Incarnations of routers, and since when we know of them.
    known: BTreeMap<PeerName, (u64, Time)>,
    /// When the next of them has been known for long enough.
    fresh: Option<Time>,
    /// When the members of all groups are asked next, how often soon after that, and when they were last.
    ask: Time,
    again: u8,
    asked: Option<Time>,
    /// When they were first.
    born: Option<Time>,
    /// Groups that somebody left, and when their members are asked.
    leaves: BTreeSet<(Time, IpAddr)>,
    news: TokenBucket,
    say: Option<Time>,
    fib: Option<Time>,
    fib_at: Time,
    view: Option<(Basis, Arc<Groups>)>,
}

impl Default for Multicast {
    fn default() -> Multicast {
        Multicast {
            own: BTreeMap::new(),
            router: None,
            crowded: None,
            told: BTreeMap::new(),
            known: BTreeMap::new(),
            fresh: None,
            ask: Time::ZERO,
            again: 1,
            asked: None,
            born: None,
            leaves: BTreeSet::new(),
            news: TokenBucket::new(NEWS.0, NEWS.1),
            say: None,
            fib: None,
            fib_at: Time::ZERO,
            view: None,
        }
    }
}

impl Multicast {
    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Time> {
        [self.say, self.fib, Some(self.ask), self.leaves.first().map(|(at, _)| *at)].into_iter().flatten().min()
    }

    /// The groups with members here.
    pub(super) fn groups(&self) -> Vec<IpAddr> {
        self.own.keys().copied().collect()
    }

    /// A station has come to our bridge.
    pub(super) fn ask_soon(&mut self, now: Time) {
        let earliest = self.asked.map_or(now, |asked| asked + SOON_AGAIN);
        self.ask = self.ask.min(earliest.max(now + SOON));
    }

    fn wants_everything(&self) -> bool {
        self.router.is_some() || self.crowded.is_some()
    }

    /// What is wanted here has changed.
    fn changed(&mut self, now: Time) {
        self.say.get_or_insert(now);
        self.fib_soon(now);
    }

    fn fib_soon(&mut self, now: Time) {
        self.fib.get_or_insert(now.max(self.fib_at + FIB_EVERY));
    }

    /// A station tells of a group.
    fn hear(&mut self, now: Time, Membership { group, joined }: Membership) {
        let count = self.own.len();
        match (self.own.get_mut(&group), joined) {
            (Some(until), true) => *until = now + LIFE,
            (Some(until), false) => {
                *until = (*until).min(now + LINGER);
                if self.leaves.len() < MOST_ASKED {
                    self.leaves.extend([(now, group), (now + SECOND_TRY, group)]);
                }
            }
            (None, false) => {}
            (None, true) if count < MOST_OWN => {
                self.own.insert(group, now + LIFE);
                self.changed(now);
            }
            (None, true) => self.crowd(now),
        }
    }

    fn crowd(&mut self, now: Time) {
        if self.crowded.replace(now + LIFE).is_none() {
            self.changed(now);
        }
    }

    /// Forgets who has not been heard of for long.
    fn expire(&mut self, now: Time) {
        let (count, everything) = (self.own.len(), self.wants_everything());
        self.own.retain(|_, until| now < *until);
        self.router = self.router.filter(|until| now < *until);
        self.crowded = self.crowded.filter(|until| now < *until);
        if (count, everything) != (self.own.len(), self.wants_everything()) {
            self.changed(now);
        }
    }

    /// Each part of what we say.
    fn chunks(&self) -> Vec<Vec<u8>> {
        let everything = self.wants_everything();
        let groups: Vec<IpAddr> = self.own.keys().copied().collect();
        let chunk = |part: &[IpAddr]| groups::Groups { everything, groups: part.to_vec() }.to_bytes();
        match groups.is_empty() {
            true if everything => vec![chunk(&[])],
            _ => groups.chunks(PER_CHUNK).map(chunk).collect(),
        }
    }
}

impl Mesh {
    /// Stations on our bridge tell which groups they are members of.
    pub(super) fn on_members(&mut self, now: Time, members: &[Membership]) {
        members.iter().for_each(|member| self.multicast.hear(now, *member));
    }

    /// They tell more of that than we look at.
    pub(super) fn on_too_many_members(&mut self, now: Time) {
        self.multicast.crowd(now);
    }

    /// A multicast router is on our bridge.
    pub(super) fn on_multicast_router(&mut self, now: Time) {
        if self.multicast.router.replace(now + LIFE).is_none() {
            self.multicast.changed(now);
        }
    }

    /// What `origin` says of its groups has changed.
    pub(super) fn heard_groups(&mut self, now: Time, origin: PeerName) {
        if origin == self.own {
            return;
        }
        let mut told = groups::Groups::default();
        let chunks = (0..MAX_CHUNKS as u16).filter_map(|chunk| self.store.app_record(origin, GROUPS, chunk));
        for chunk in chunks {
            match groups::Groups::parse(chunk) {
                Some(part) => {
                    told.everything |= part.everything;
                    told.groups.extend(part.groups);
                }
                None => told.everything = true,
            }
        }
        let is_nothing = told == groups::Groups::default();
        let before = if is_nothing { self.multicast.told.remove(&origin) } else { self.multicast.told.insert(origin, told.clone()) };
        if before.unwrap_or_default() != told {
            self.multicast.view = None;
            self.multicast.fib_soon(now);
        }
    }

    /// Each second.
    pub(super) fn age_groups(&mut self, now: Time) {
        self.multicast.expire(now);
        if self.multicast.fresh.is_some_and(|fresh| now >= fresh) {
            self.multicast.view = None;
            self.multicast.fib_soon(now);
        }
    }

    /// Asks, tells and hands on what is due.
    pub(super) fn tick_groups(&mut self, now: Time, out: &mut Outbox) {
        if !self.config.multicast_snooping {
            return;
        }
        let multicast = &mut self.multicast;
        if now >= multicast.ask {
            let again = std::mem::take(&mut multicast.again);
            multicast.ask = now + if again > 0 { SECOND_TRY } else { INTERVAL };
            multicast.asked = Some(now);
            multicast.born.get_or_insert(now);
            out.events.extend(questions(None).into_iter().map(Event::ToBridge));
        }
        while let Some((_, group)) = multicast.leaves.first().copied().filter(|(at, _)| *at <= now) {
            multicast.leaves.pop_first();
            if multicast.own.contains_key(&group) {
                out.events.extend(questions(Some(group)).into_iter().map(Event::ToBridge));
            }
        }
        if multicast.fib.is_some_and(|due| now >= due) {
            (multicast.fib, multicast.fib_at, multicast.view) = (None, now, None);
            self.fib_stale = true;
        }
        if self.multicast.say.is_some_and(|due| now >= due) {
            if !self.multicast.news.take(now, 1) {
                self.multicast.say = Some(now + Duration::from_secs(1));
                return;
            }
            self.multicast.say = None;
            self.counters.groups_told.inc();
            let chunks = self.multicast.chunks();
            self.publish_app(now, GROUPS, chunks, out);
        }
    }

    /// Who wants which group, for the packet threads.
    pub(super) fn wanted_groups(&mut self, trees: &Arc<FloodTree>) -> Option<Arc<Groups>> {
        if !self.config.multicast_snooping {
            return None;
        }
        let nodes = self.store.nodes().map(|node| (node.name, node.incarnation, node.features & SNOOPS != 0));
        let nodes: Vec<(PeerName, u64, bool)> = nodes.filter(|(name, ..)| *name != self.own).collect();
        if let Some(((of, known), view)) = &self.multicast.view
            && Arc::ptr_eq(of, trees)
            && *known == nodes
        {
            return Some(Arc::clone(view));
        }
        let view = Arc::new(self.look_at_groups(trees, &nodes));
        self.multicast.view = Some(((Arc::clone(trees), nodes), Arc::clone(&view)));
        Some(view)
    }

    fn look_at_groups(&mut self, trees: &FloodTree, nodes: &[(PeerName, u64, bool)]) -> Groups {
        let (now, topology, multicast) = (self.now, trees.topology(), &mut self.multicast);
        let mut groups = Groups::none(topology.names().len(), topology.index(self.own), self.hash_key);
        groups.router_here = multicast.router.is_some();
        let own = topology.index(self.own);
        if let Some(own) = own {
            multicast.own.keys().for_each(|group| groups.want(own, *group));
        }
        // The same holds for ourselves.
        multicast.fresh = Some(multicast.born.unwrap_or(now) + FRESH).filter(|fresh| now < *fresh);
        let newborn = multicast.fresh.is_some();
        let mut quiet = BTreeSet::new();
        let mut known = BTreeMap::new();
        for (name, incarnation, snoops) in nodes {
            let since = multicast.known.get(name).filter(|(life, _)| life == incarnation).map_or(now, |(_, since)| *since);
            known.insert(*name, (*incarnation, since));
            if now.since(since) < FRESH {
                multicast.fresh = Some(multicast.fresh.map_or(since + FRESH, |fresh| fresh.min(since + FRESH)));
            } else if *snoops {
                quiet.insert(*name);
            }
        }
        multicast.known = known;
        for (place, name) in topology.names().iter().enumerate() {
            let told = multicast.told.get(name);
            let is_own = Some(place) == own;
            let all = if is_own {
                newborn || multicast.wants_everything()
            } else {
                !quiet.contains(name) || told.is_some_and(|told| told.everything)
            };
            if all {
                groups.want_everything(place);
            }
            told.iter().filter(|_| !is_own).flat_map(|told| &told.groups).for_each(|group| groups.want(place, *group));
        }
        groups.complete()
    }
}

#[cfg(test)]
mod tests;
