//! Whom to seek a link with, of all that gossip tells of.
//!
//! In a mesh of no more routers than the limit allows links, everybody. In a larger one:
//!
//! * Each router fills up to `--conn-limit`, with routers that seem to have room by the links they advertise. Half the dials it lacks are its own,
//!   the others come from elsewhere.
//! * Pairs of routers fall into two halves by their names, the same for both ends. In the *far* half partners are drawn by lot: a graph of
//!   random links is connected and of low diameter. In the *near* half the cheapest by the route that leads there are taken: whoever is
//!   near to my neighbours is likely near to me.
//! * Whoever has fewer than two links, or none that lead to the other ([`Mesh::needs`]), says so and is taken by full routers too, which let go
//!   of another link then ([`limits`](super::limits)): so a newcomer finds its place where nobody has room. The same holds where the other
//!   is further away than in a graph of random links, as between two halves that have just met again.
//! * Who refuses or does not answer is left alone for a while that doubles. Routers that were reachable and are not are tried now and then, since
//!   a partition that heals must be found by somebody.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_core::Rng;

use super::core::Mesh;
use super::targets::Goal;
use crate::time::Time;
use crate::wire::PeerName;

/// The higher name leaves the first attempt to the lower one for this long, where everybody dials everybody.
const POLITE: Duration = Duration::from_secs(3);
/// Fewer links than these are too few: the end of one would cut a router off.
pub(super) const FEWEST: usize = 2;
/// How long a router is left alone after the first attempt that failed; it doubles.
const AVOID_FIRST: Duration = Duration::from_secs(20);
/// The longest such time.
const AVOID_MOST: Duration = Duration::from_secs(1800);
/// Routers left alone that are remembered.
const MOST_AVOIDED: usize = 8192;
/// First pause between attempts at a router that cannot be reached any more; it doubles.
const MISSED_FIRST: Duration = Duration::from_secs(1);
/// The longest such pause.
const MISSED_MOST: Duration = Duration::from_secs(30);
/// Without news a router that lacks links looks for them again after this.
const AGAIN: Duration = Duration::from_secs(10);
/// A router that has all its links looks this often whether one of the mesh is too far away.
const SURVEY: Duration = Duration::from_secs(15);

/// What discovery remembers.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    /// Whom to leave alone until when, and for how long after the next failure.
    avoid: BTreeMap<PeerName, (Time, Duration)>,
    /// When somebody who cannot be reached any more is tried next, and the pause after that.
    missed: (Time, Duration),
    /// When these attempts last began anew for the sake of a new address of ours.
    renewed: Option<Time>,
    /// When to look again without news.
    due: Time,
    /// When to look next for somebody who is too far away.
    survey: Time,
    /// True where gossip told of routers or links since it was last looked.
    pub(super) stale: bool,
    /// When links were last let go for want of room.
    pub(super) shed_at: Time,
}

/// A router with which a link might be sought.
struct Candidate {
    name: PeerName,
    has_room: bool,
    cost: u32,
}

impl Mesh {
    /// Takes up peers that gossip told of.
    pub(super) fn discover(&mut self, now: Time) {
        if !self.config.discovery || self.left {
            return;
        }
        let limit = self.config.conn_limit;
        let is_large = limit > 0 && self.store.router_count() > limit + 1;
        let failed = is_large && self.weed(now);
        let stale = std::mem::take(&mut self.discovery.stale);
        if !(stale || failed || now >= self.discovery.due) {
            return;
        }
        self.discovery.due = now + AGAIN;
        if !is_large {
            self.seek_all(now);
        } else if self.has_room() {
            self.seek_links(now);
        } else if now >= self.discovery.survey {
            self.discovery.survey = now + SURVEY;
            self.seek_distant(now);
        }
        self.seek_missed(now);
    }

    /// True where a link with `peer` is of more use than most: a full router takes it, too.
    pub(super) fn needs(&self, peer: PeerName) -> bool {
        let Some(route) = self.routes.get(peer) else { return true };
        self.link_count() < FEWEST.min(self.config.conn_limit) || usize::from(route.hops) > self.far_hops()
    }

    /// More hops than two routers of a random graph of this size are apart.
    fn far_hops(&self) -> usize {
        let branches = match self.config.conn_limit {
            0 => return usize::MAX,
            limit => limit.saturating_sub(1).max(2),
        };
        let routers = self.routes.len() + 1;
        // Half as many again as it takes to reach everybody, since costs and not hops decide on routes.
        (routers.ilog2() / branches.ilog2() + 2) as usize * 3 / 2 + 2
    }

    /// A small mesh: a link with everybody.
    fn seek_all(&mut self, now: Time) {
        // Who can be reached is looked up there, and news of links may not have been taken into account yet.
        self.store.root(now);
        let known: Vec<PeerName> =
            self.store.nodes().filter(|node| node.reachable && node.name != self.own).map(|node| node.name).collect();
        for name in known {
            let addresses = self.dialable(name);
            if addresses.is_empty() {
                continue;
            }
            let due = if self.own < name { now } else { now + POLITE };
            self.targets.add(due, Goal::Peer(name), addresses);
        }
        for goal in self.targets.learned() {
            let gone = |name: &PeerName| self.store.node(*name).is_none_or(|node| !node.reachable);
            if matches!(&goal, Goal::Peer(name) if gone(name)) && !self.targets.is_dialling(&goal) {
                self.targets.remove(&goal);
            }
        }
    }

    /// Drops what was sought in vain, and what is sought no more. True where something was sought in vain.
    fn weed(&mut self, now: Time) -> bool {
        let failed = self.targets.failed_peers();
        for name in &failed {
            self.targets.remove(&Goal::Peer(*name));
            self.avoid(now, *name);
        }
        if !self.has_room() {
            self.targets.remove_waiting_peers();
        }
        !failed.is_empty()
    }

    /// Leaves a router alone for a while.
    pub(super) fn avoid(&mut self, now: Time, peer: PeerName) {
        let avoid = &mut self.discovery.avoid;
        if avoid.len() >= MOST_AVOIDED {
            avoid.retain(|_, (until, _)| now < *until);
            if avoid.len() >= MOST_AVOIDED {
                avoid.clear();
            }
        }
        let (until, pause) = avoid.entry(peer).or_insert((now, AVOID_FIRST));
        *until = now + *pause;
        *pause = (*pause * 2).min(AVOID_MOST);
    }

    /// A link with `peer` came up: whatever was in the way is over.
    pub(super) fn no_longer_avoid(&mut self, peer: PeerName) {
        self.discovery.avoid.remove(&peer);
    }

    fn partners(&self, now: Time) -> Vec<Candidate> {
        let limit = self.config.conn_limit;
        let linked = |name: PeerName| self.adjacencies.get(&name).is_some_and(|adjacency| adjacency.is_link());
        let avoided = |name: PeerName| self.discovery.avoid.get(&name).is_some_and(|(until, _)| now < *until);
        let open = |name: PeerName| name != self.own && !linked(name) && !avoided(name) && !self.targets.contains(&Goal::Peer(name));
        let candidate = |name: PeerName| Candidate {
            name,
            has_room: self.store.links_of(name).take(limit).count() < limit,
            cost: self.routes.get(name).map_or(u32::MAX, |route| route.cost),
        };
        self.store.reached().filter(|name| open(*name)).map(candidate).collect()
    }

    /// A large mesh: as many links as are lacking.
    fn seek_links(&mut self, now: Time) {
        let (limit, links) = (self.config.conn_limit, self.link_count());
        let lacking = limit.saturating_sub(links);
        let wanted = lacking.div_ceil(2).saturating_sub(self.targets.unlinked_peers());
        let mut candidates = self.partners(now);
        if candidates.iter().any(|candidate| candidate.has_room) {
            candidates.retain(|candidate| candidate.has_room);
        } else if links >= FEWEST {
            return;
        }
        let mut far = self.adjacencies.iter().filter(|(name, adjacency)| adjacency.is_link() && is_far(self.own, **name)).count();
        for _ in 0..wanted {
            let want_far = far < limit.div_ceil(2);
            let Some(at) = self.pick(&candidates, want_far) else { return };
            let name = candidates.swap_remove(at).name;
            far += usize::from(is_far(self.own, name));
            self.seek(now, name);
        }
    }

    /// One of the candidates: of the far half any, of the near half one of the cheapest few; of the other half where there is none.
    fn pick(&mut self, candidates: &[Candidate], far: bool) -> Option<usize> {
        /// Not always the very cheapest, or all routers of a neighbourhood would dial the same one.
        const FEW: usize = 4;
        let own = self.own;
        let of = |far: bool| candidates.iter().enumerate().filter(move |(_, candidate)| is_far(own, candidate.name) == far);
        let mut half: Vec<(usize, &Candidate)> = of(far).collect();
        if half.is_empty() {
            half = of(!far).collect();
        }
        if !far {
            half.sort_by_key(|(_, candidate)| (candidate.cost, candidate.name));
            half.truncate(FEW);
        }
        let last = half.len().checked_sub(1)?;
        let lot = self.rng.next_u32() as usize % (last + 1);
        half.get(lot).map(|(at, _)| *at)
    }

    fn seek(&mut self, now: Time, name: PeerName) {
        let addresses = self.dialable(name);
        if addresses.is_empty() {
            return self.avoid(now, name);
        }
        self.targets.add(now, Goal::Peer(name), addresses);
    }

    /// All links are taken: is somebody of the far half further away than need be?
    fn seek_distant(&mut self, now: Time) {
        let most = self.far_hops();
        let distant = |(name, route): &(PeerName, super::routes::Route)| usize::from(route.hops) > most && is_far(self.own, *name);
        let names: Vec<PeerName> = self.routes.iter().filter(distant).map(|(name, _)| name).collect();
        if let Some(name) = self.draw(&names) {
            self.seek(now, name);
            self.targets.urge(&Goal::Peer(name));
        }
    }

    /// Tries somebody who could be reached and cannot be now.
    fn seek_missed(&mut self, now: Time) {
        let missed: Vec<PeerName> = self.store.missed().collect();
        if missed.is_empty() {
            self.discovery.missed = (now, MISSED_FIRST);
            return;
        }
        let (due, pause) = self.discovery.missed;
        if now < due {
            self.discovery.due = self.discovery.due.min(due);
            return;
        }
        let next = now + super::targets::jitter(pause, &mut self.rng);
        self.discovery.missed = (next, (pause * 2).min(MISSED_MOST));
        self.discovery.due = self.discovery.due.min(next);
        let open: Vec<PeerName> = missed.into_iter().filter(|name| !self.targets.contains(&Goal::Peer(*name))).collect();
        if let Some(name) = self.draw(&open) {
            self.seek(now, name);
            self.targets.urge(&Goal::Peer(name));
        }
    }

    /// This host has a new address: who could not be reached may be now, and is tried at once and with short pauses again. Addresses may come and go
    /// all the time, so that is not done more often than the shortest pause allows.
    pub(super) fn seek_missed_anew(&mut self, now: Time) {
        if self.discovery.renewed.is_some_and(|last| now.since(last) < MISSED_FIRST) {
            return;
        }
        self.discovery.renewed = Some(now);
        self.discovery.missed = (now, MISSED_FIRST);
        self.discovery.due = now;
        self.discover(now);
    }

    fn draw(&mut self, names: &[PeerName]) -> Option<PeerName> {
        let lot = (self.rng.next_u32() as usize).checked_rem(names.len())?;
        names.get(lot).copied()
    }
}

/// In which half of all pairs these two are; both ends agree.
pub(super) fn is_far(a: PeerName, b: PeerName) -> bool {
    (a.to_u64() ^ b.to_u64()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 0
}
