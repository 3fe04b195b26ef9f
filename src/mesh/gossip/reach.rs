//! Which routers the links lead to from this one, kept up to date record by record: most news of links changes nothing, and to find
//! that out must not cost a walk over the whole mesh.
//!
//! What routers say is read from their records. Beside those only the way to each is kept, as the router before it ([`Origin::way`]).

use std::collections::{BTreeSet, VecDeque};

use super::origins::{Origin, Way};
use super::table::Table;
use crate::wire::PeerName;

/// A tree of ways through links that both ends advertise.
#[derive(Debug)]
pub(super) struct Reach {
    own: PeerName,
    /// Routers the way to which was cut, and no other was found at once: for those that were reached through them ways are to be looked for anew.
    severed: BTreeSet<PeerName>,
    /// Routers that a way leads to since they were last asked for, or leads to no more.
    changed: BTreeSet<PeerName>,
}

/// With whom a router says it has links: ascending, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbours(Vec<PeerName>);

impl Neighbours {
    pub(super) fn of(origin: &Origin, is_own: bool) -> Neighbours {
        let mut all: Vec<PeerName> = origin.says_links_with(is_own).collect();
        // Those of one record ascend.
        all.sort();
        all.dedup();
        Neighbours(all)
    }

    /// Those that are not among the `others`.
    fn beside(&self, others: &Neighbours) -> impl Iterator<Item = PeerName> {
        self.0.iter().filter(|name| others.0.binary_search(name).is_err()).copied()
    }
}

/// What is held of all routers, as [`Reach`] sees it.
struct Mesh<'a> {
    origins: &'a mut Table<Origin>,
    severed: &'a BTreeSet<PeerName>,
    own: PeerName,
}

impl Mesh<'_> {
    /// The routers with which this one says it has links.
    fn said(&self, name: PeerName) -> impl Iterator<Item = PeerName> {
        let said = self.origins.get(&name).map(|origin| origin.says_links_with(name == self.own));
        said.into_iter().flatten().filter(move |other| *other != name)
    }

    /// True where the other end of a link that a router says it has says so, too.
    fn is_mutual(&self, name: PeerName, other: PeerName) -> bool {
        self.origins.get(&other).is_some_and(|origin| origin.says_link_with(other == self.own, name))
    }

    fn way(&self, name: PeerName) -> Way {
        self.origins.get(&name).map_or(Way::None, |origin| origin.way)
    }

    fn is_reached(&self, name: PeerName) -> bool {
        self.way(name) != Way::None
    }

    fn set_way(&mut self, name: PeerName, way: Way) {
        if let Some(origin) = self.origins.get_mut(&name) {
            origin.way = way;
        }
    }

    /// True where the way to a router leads through that one, or has been cut, or more steps would have to be taken than are left.
    fn is_behind(&self, mut name: PeerName, through: PeerName, steps: &mut usize) -> bool {
        while name != self.own && name != through {
            match self.way(name) {
                Way::By(before) if *steps > 0 && !self.severed.contains(&name) => name = before,
                Way::By(_) | Way::None => return true,
            }
            *steps -= 1;
        }
        name == through
    }

    /// Routers the ways to which lead through one that was severed, those among them.
    fn fallen(&self) -> Vec<PeerName> {
        let names: Vec<PeerName> = self.origins.keys().copied().collect();
        // By their places: what is known of each so far.
        let mut stands: Vec<Option<bool>> = vec![None; names.len()];
        for start in 0..names.len() {
            let (mut walked, mut at) = (Vec::new(), Some(start));
            let stand = loop {
                let Some(place) = at else { break false };
                if let Some(known) = stands[place] {
                    break known;
                }
                walked.push(place);
                match self.way(names[place]) {
                    _ if names[place] == self.own => break true,
                    Way::By(before) if !self.severed.contains(&names[place]) => at = self.origins.place(&before),
                    Way::By(_) | Way::None => break false,
                }
            };
            walked.into_iter().for_each(|place| stands[place] = Some(stand));
        }
        let fallen = names.into_iter().zip(stands).filter(|(name, stands)| *stands == Some(false) && self.is_reached(*name));
        fallen.map(|(name, _)| name).collect()
    }
}

impl Reach {
    /// Only this router, which `origins` hold.
    pub(super) fn new(own: PeerName, origins: &mut Table<Origin>) -> Reach {
        let reach = Reach { own, severed: BTreeSet::new(), changed: BTreeSet::new() };
        reach.mesh(origins).set_way(own, Way::By(own));
        reach
    }

    fn mesh<'a>(&'a self, origins: &'a mut Table<Origin>) -> Mesh<'a> {
        Mesh { origins, severed: &self.severed, own: self.own }
    }

    /// A router said `before` which links it had, and says something else now, or nothing where it has gone. True where one is no more that
    /// both ends had advertised.
    pub(super) fn update(&mut self, name: PeerName, before: &Neighbours, origins: &mut Table<Origin>) -> bool {
        let said = origins.get(&name).map(|origin| Neighbours::of(origin, name == self.own)).unwrap_or_default();
        if *before == said {
            return false;
        }
        let not_itself = |other: &PeerName| *other != name;
        let mut parted: Vec<PeerName> = before.beside(&said).filter(not_itself).collect();
        let mut joined: Vec<PeerName> = said.beside(before).filter(not_itself).collect();
        let mesh = self.mesh(origins);
        parted.retain(|other| mesh.is_mutual(name, *other));
        joined.retain(|other| mesh.is_mutual(name, *other));
        parted.iter().for_each(|other| self.part(name, *other, origins));
        joined.iter().for_each(|other| self.join(name, *other, origins));
        !parted.is_empty()
    }

    /// Nothing is known of a router any more, which said `before` that it had those links.
    pub(super) fn forget(&mut self, name: PeerName, before: &Neighbours, origins: &mut Table<Origin>) {
        self.update(name, before, origins);
        self.changed.insert(name);
    }

    /// Routers whose standing may have changed since the last call.
    pub(super) fn take_changed(&mut self, origins: &mut Table<Origin>) -> BTreeSet<PeerName> {
        if !self.severed.is_empty() {
            let mut mesh = self.mesh(origins);
            let fallen = mesh.fallen();
            fallen.iter().for_each(|name| mesh.set_way(*name, Way::None));
            self.severed.clear();
            let fresh = std::mem::take(&mut self.changed);
            let mesh = self.mesh(origins);
            let border = |name: &PeerName| {
                let link = mesh.said(*name).find(|link| mesh.is_reached(*link) && mesh.is_mutual(*name, *link))?;
                Some((link, *name))
            };
            let borders = fallen.iter().filter_map(border).collect();
            self.grow(borders, origins);
            self.changed = fresh;
            self.changed.extend(fallen.into_iter().filter(|name| !origins.get(name).is_some_and(Origin::is_reached)));
        }
        std::mem::take(&mut self.changed)
    }

    /// A link is one that both ends advertise no more.
    fn part(&mut self, name: PeerName, other: PeerName, origins: &mut Table<Origin>) {
        for (one, two) in [(name, other), (other, name)] {
            if self.mesh(origins).way(one) == Way::By(two) && one != self.own {
                self.mend(one, origins);
            }
        }
    }

    /// The way to a router was cut. Mostly another of its links leads there, too, and to those behind it as before. To look for it takes no more
    /// steps than to look at all routers would, however deep the ways are.
    fn mend(&mut self, name: PeerName, origins: &mut Table<Origin>) {
        if self.severed.contains(&name) {
            return;
        }
        let mut mesh = self.mesh(origins);
        let is_link = |link: &PeerName| mesh.is_mutual(name, *link);
        let mut steps = mesh.origins.len();
        let other = mesh.said(name).filter(is_link).find(|link| mesh.is_reached(*link) && !mesh.is_behind(*link, name, &mut steps));
        // Whoever has no link has nobody behind it.
        let alone = mesh.said(name).find(is_link).is_none();
        match other {
            Some(other) => mesh.set_way(name, Way::By(other)),
            None if alone => mesh.set_way(name, Way::None),
            None => drop(self.severed.insert(name)),
        }
        if alone {
            self.changed.insert(name);
        }
    }

    /// A link is one that both ends advertise now.
    fn join(&mut self, name: PeerName, other: PeerName, origins: &mut Table<Origin>) {
        let mesh = self.mesh(origins);
        match (mesh.is_reached(name), mesh.is_reached(other)) {
            (true, false) => self.grow([(name, other)].into(), origins),
            (false, true) => self.grow([(other, name)].into(), origins),
            (true, true) | (false, false) => {}
        }
    }

    /// Ways lead from the first of each of these to the second, and to what lies behind.
    fn grow(&mut self, mut queue: VecDeque<(PeerName, PeerName)>, origins: &mut Table<Origin>) {
        let mut mesh = Mesh { origins, severed: &self.severed, own: self.own };
        // Those near first, so that ways are short.
        while let Some((from, to)) = queue.pop_front() {
            if mesh.origins.contains(&to) && !mesh.is_reached(to) {
                mesh.set_way(to, Way::By(from));
                self.changed.insert(to);
                // Most are reached already.
                let next = mesh.said(to).filter(|next| !mesh.is_reached(*next) && mesh.is_mutual(to, *next));
                queue.extend(next.map(|next| (to, next)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::crypto::PublicKey;
    use crate::wire::body::{Body, Extensions, LinkEntry};
    use crate::wire::record::Record;

    fn key(n: u8) -> PublicKey {
        PublicKey([n; 32])
    }

    fn name(n: u8) -> PeerName {
        key(n).name()
    }

    /// Router `n` says, with its `sequence`th word, that it has these links.
    fn says(origins: &mut Table<Origin>, reach: &mut Reach, sequence: u64, n: u8, links: &[u8]) {
        let origin = origins.get_or_insert_with(name(n), || Origin::new(1, None));
        let before = Neighbours::of(origin, n == 0);
        let mut links: Vec<PeerName> = links.iter().map(|link| name(*link)).collect();
        links.sort_unstable();
        links.dedup();
        let links = links.into_iter().map(|neighbour| LinkEntry { neighbour, cost: 1, max_datagram: 1400 }).collect();
        let record = Record::build(&key(n), 0, (1, sequence), &Body::Links(links, Extensions::default()), |_| [0; 64]).expect("a record");
        origin.merge(record.into());
        reach.update(name(n), &before, origins);
    }

    /// Whom links lead to from router 0, looked for from scratch.
    fn reachable(said: &BTreeMap<u8, Vec<u8>>) -> BTreeSet<u8> {
        let (mut found, mut queue) = (BTreeSet::from([0]), vec![0]);
        let says = |a: &u8, b: &u8| said.get(a).is_some_and(|links| links.contains(b));
        while let Some(at) = queue.pop() {
            for next in 0..12 {
                if says(&at, &next) && says(&next, &at) && found.insert(next) {
                    queue.push(next);
                }
            }
        }
        found
    }

    proptest! {
        #[test]
        fn what_is_reachable_is_what_a_walk_finds(
            steps in prop::collection::vec((0u8..12, prop::collection::vec(0u8..12, 0..5), 0u8..8), 1..80)
        ) {
            let (mut origins, mut said, mut seen) = (Table::default(), BTreeMap::new(), BTreeSet::from([0]));
            origins.get_or_insert_with(name(0), || Origin::new(1, None));
            let mut reach = Reach::new(name(0), &mut origins);
            for (sequence, (who, links, action)) in (1..).zip(steps) {
                if action == 0 && who != 0 {
                    let gone = origins.remove(&name(who)).map(|origin| Neighbours::of(&origin, false)).unwrap_or_default();
                    reach.forget(name(who), &gone, &mut origins);
                    said.remove(&who);
                } else {
                    says(&mut origins, &mut reach, sequence, who, &links);
                    said.insert(who, links);
                }
                if action < 5 {
                    let changed = reach.take_changed(&mut origins);
                    let now = reachable(&said);
                    for n in 0..12 {
                        prop_assert_eq!(origins.get(&name(n)).is_some_and(Origin::is_reached), now.contains(&n));
                        prop_assert!(seen.contains(&n) == now.contains(&n) || changed.contains(&name(n)), "{} is told", n);
                    }
                    seen = now;
                }
            }
        }
    }
}
