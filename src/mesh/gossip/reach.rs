//! Which routers the links lead to from this one, kept up to date record by record: most news of links changes nothing, and to find
//! that out must not cost a walk over the whole mesh.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use crate::wire::PeerName;

/// What is known of one router.
#[derive(Debug, Default)]
struct Row {
    name: PeerName,
    /// Whom it says it has links with, ascending.
    said: Box<[PeerName]>,
    /// Those of them that say so too, by number.
    links: Vec<u32>,
    /// The router before it on some way from this one, by number; itself at this one; `None` where no way is known.
    parent: Option<u32>,
}

/// A tree of ways through links that both ends advertise.
#[derive(Debug)]
pub(super) struct Reach {
    /// This router is number 0.
    rows: Vec<Row>,
    numbers: HashMap<PeerName, u32>,
    /// Links that the first says it has with the second, of which the second does not say so. There are few, and with them what a router says is
    /// compared with what all the others say without a look at each.
    one_sided: HashSet<(PeerName, PeerName)>,
    free: Vec<u32>,
    /// A way was cut, and no other was found at once: all are to be looked for anew.
    cut: bool,
    /// Routers that a way leads to since they were last asked for, or leads to no more.
    changed: BTreeSet<PeerName>,
}

impl Reach {
    /// Only this router.
    pub(super) fn new(own: PeerName) -> Reach {
        let rows = vec![Row { name: own, parent: Some(0), ..Row::default() }];
        let numbers = HashMap::from([(own, 0)]);
        Reach { rows, numbers, one_sided: HashSet::new(), free: Vec::new(), cut: false, changed: BTreeSet::new() }
    }

    /// True where a way leads to `name`, as of the last call of [`Reach::take_changed`].
    pub(super) fn contains(&self, name: PeerName) -> bool {
        self.numbers.get(&name).is_some_and(|number| self.is_reached(*number))
    }

    /// A router says which links it has; none where it has gone. True where one is no more that both ends had advertised.
    pub(super) fn update(&mut self, name: PeerName, mut said: Vec<PeerName>) -> bool {
        said.sort_unstable();
        said.dedup();
        let number = self.number(name);
        let Some(row) = self.rows.get_mut(number as usize) else { return false };
        if *row.said == *said {
            return false;
        }
        let said: Box<[PeerName]> = said.into();
        let before = std::mem::take(&mut row.said);
        let gone: Vec<PeerName> = before.iter().filter(|other| said.binary_search(other).is_err() && **other != name).copied().collect();
        let fresh: Vec<PeerName> = said.iter().filter(|other| before.binary_search(other).is_err() && **other != name).copied().collect();
        row.said = said;
        let mut parted = false;
        for other in gone {
            parted |= self.part(number, name, other);
        }
        for other in fresh {
            self.join(number, name, other);
        }
        parted
    }

    /// Nothing is known of a router any more.
    pub(super) fn forget(&mut self, name: PeerName) {
        self.update(name, Vec::new());
        if let Some(number) = self.numbers.get(&name).copied().filter(|number| *number != 0) {
            self.numbers.remove(&name);
            self.rows[number as usize] = Row::default();
            self.free.push(number);
            self.changed.insert(name);
        }
    }

    /// Routers whose standing may have changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<PeerName> {
        if std::mem::take(&mut self.cut) {
            let before: Vec<bool> = self.rows.iter().map(|row| row.parent.is_some()).collect();
            let fresh = std::mem::take(&mut self.changed);
            self.rows.iter_mut().for_each(|row| row.parent = None);
            self.grow(0, 0);
            self.changed = fresh;
            let moved = self.rows.iter().zip(before).filter(|(row, before)| row.parent.is_some() != *before);
            self.changed.extend(moved.map(|(row, _)| row.name));
        }
        std::mem::take(&mut self.changed)
    }

    fn is_reached(&self, number: u32) -> bool {
        self.rows.get(number as usize).is_some_and(|row| row.parent.is_some())
    }

    fn number(&mut self, name: PeerName) -> u32 {
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        let row = Row { name, ..Row::default() };
        let number = match self.free.pop() {
            Some(number) => {
                self.rows[number as usize] = row;
                number
            }
            None => {
                self.rows.push(row);
                u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.numbers.insert(name, number);
        number
    }

    /// A link that one end does not advertise any more. True where the other does.
    fn part(&mut self, number: u32, name: PeerName, other: PeerName) -> bool {
        if self.one_sided.remove(&(name, other)) {
            return false;
        }
        self.one_sided.insert((other, name));
        let Some(other) = self.numbers.get(&other).copied() else { return false };
        let mut parted = false;
        for (one, two) in [(number, other), (other, number)] {
            let row = &mut self.rows[one as usize];
            if let Some(at) = row.links.iter().position(|link| *link == two) {
                row.links.swap_remove(at);
                parted = true;
                if row.parent == Some(two) && one != 0 && !self.cut {
                    self.mend(one);
                }
            }
        }
        parted
    }

    /// The way to a router was cut. Mostly another of its links leads there, too, and to those behind it as before.
    fn mend(&mut self, number: u32) {
        let row = &self.rows[number as usize];
        let name = row.name;
        let other = row.links.iter().copied().find(|link| self.is_reached(*link) && !self.is_behind(*link, number));
        // Whoever has no link has nobody behind it.
        let alone = row.links.is_empty();
        match self.rows.get_mut(number as usize) {
            Some(row) if other.is_some() || alone => row.parent = other,
            Some(_) | None => self.cut = true,
        }
        if alone {
            self.changed.insert(name);
        }
    }

    /// True where the way to a router leads through that one.
    fn is_behind(&self, mut number: u32, through: u32) -> bool {
        while number != 0 && number != through {
            match self.rows.get(number as usize).and_then(|row| row.parent) {
                Some(parent) => number = parent,
                None => return true,
            }
        }
        number == through
    }

    /// A link that one end advertises, and the other perhaps.
    fn join(&mut self, number: u32, name: PeerName, other: PeerName) {
        if !self.one_sided.remove(&(other, name)) {
            self.one_sided.insert((name, other));
            return;
        }
        let Some(other) = self.numbers.get(&other).copied() else { return };
        self.rows[number as usize].links.push(other);
        self.rows[other as usize].links.push(number);
        match (self.is_reached(number), self.is_reached(other)) {
            (true, false) => self.grow(number, other),
            (false, true) => self.grow(other, number),
            (true, true) | (false, false) => {}
        }
    }

    /// A way leads from `from` to `to`, and to what lies behind.
    fn grow(&mut self, from: u32, to: u32) {
        // Those near first, so that all ways are short.
        let mut queue = VecDeque::from([(from, to)]);
        while let Some((from, to)) = queue.pop_front() {
            let row = &mut self.rows[to as usize];
            if row.parent.is_none() {
                row.parent = Some(from);
                self.changed.insert(row.name);
                let row = &self.rows[to as usize];
                queue.extend(row.links.iter().filter(|next| !self.is_reached(**next)).map(|next| (to, *next)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn name(n: u8) -> PeerName {
        PeerName([2, 0, 0, 0, 0, n])
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
            let (mut reach, mut said, mut seen) = (Reach::new(name(0)), BTreeMap::new(), BTreeSet::from([0]));
            for (who, links, action) in steps {
                if action == 0 && who != 0 {
                    reach.forget(name(who));
                    said.remove(&who);
                } else {
                    reach.update(name(who), links.iter().map(|link| name(*link)).collect());
                    said.insert(who, links);
                }
                if action < 5 {
                    let changed = reach.take_changed();
                    let now = reachable(&said);
                    for n in 0..12 {
                        prop_assert_eq!(reach.contains(name(n)), now.contains(&n));
                        prop_assert!(seen.contains(&n) == now.contains(&n) || changed.contains(&name(n)), "{} is told", n);
                    }
                    seen = now;
                }
            }
        }
    }
}
