//! Which routers want the frames of which multicast group, as the mesh plane found out ([`crate::mesh::multicast`]).
//!
//! A flood goes down its tree only where somebody behind a branch wants it. Routers have places, which are those of the tree's topology.

use std::collections::HashMap;
use std::net::IpAddr;

use super::fib::NameHash;

/// Groups that are told apart. Frames of all others go to everybody.
pub const MOST_GROUPS: usize = 4096;

/// A set of routers, by their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places(Box<[u64]>);

impl Places {
    /// Nobody, of so many.
    pub fn none(routers: usize) -> Places {
        Places(vec![0; routers.div_ceil(64)].into())
    }

    /// Takes one in.
    pub fn insert(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    /// True where it is among them.
    pub fn has(&self, place: usize) -> bool {
        self.0.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// True where somebody is in both.
    pub fn meets(&self, other: &Places) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    fn add(&mut self, other: &Places) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }
}

/// Who wants what.
#[derive(Debug)]
pub struct Groups {
    everything: Places,
    wanted: HashMap<IpAddr, Places, NameHash>,
    here: Option<usize>,
    /// True where multicast routers are on our own bridge, which are to hear what others are members of.
    pub router_here: bool,
}

impl Groups {
    /// Nobody wants anything of these routers; `here` is this one's place. `key` is random.
    pub fn none(routers: usize, here: Option<usize>, key: u64) -> Groups {
        Groups { everything: Places::none(routers), wanted: HashMap::with_hasher(NameHash(key)), here, router_here: false }
    }

    /// This router wants the frames of all groups, known or not.
    pub fn want_everything(&mut self, place: usize) {
        self.everything.insert(place);
    }

    /// This router wants the frames of a group.
    pub fn want(&mut self, place: usize, group: IpAddr) {
        let routers = self.everything.0.len() * 64;
        if self.wanted.len() < MOST_GROUPS || self.wanted.contains_key(&group) {
            self.wanted.entry(group).or_insert_with(|| Places::none(routers)).insert(place);
        }
    }

    /// After the last wish.
    pub fn complete(mut self) -> Groups {
        self.wanted.values_mut().for_each(|places| places.add(&self.everything));
        self
    }

    /// Who wants the frames of a group; `None` where nobody has said that he is a member, and everybody gets them.
    pub fn wanted(&self, group: IpAddr) -> Option<&Places> {
        self.wanted.get(&group)
    }

    /// True where this router is among them.
    pub fn are_we(&self, wanted: &Places) -> bool {
        self.here.is_none_or(|here| wanted.has(here))
    }

    /// How many groups are told apart.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// True where none is.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(n: u32) -> IpAddr {
        IpAddr::from(0xef00_0000u32.wrapping_add(n).to_be_bytes())
    }

    #[test]
    fn who_wants_everything_wants_each_known_group() {
        let mut groups = Groups::none(130, Some(5), 7);
        groups.want(129, group(1));
        groups.want_everything(64);
        groups.want(5, group(2));
        let groups = groups.complete();
        let first = groups.wanted(group(1)).expect("known");
        assert_eq!((0..200).filter(|place| first.has(*place)).collect::<Vec<_>>(), [64, 129]);
        assert!(!groups.are_we(first) && groups.are_we(groups.wanted(group(2)).expect("known")));
        assert!(groups.wanted(group(3)).is_none(), "everybody gets what nobody is known to be a member of");
        let mut some = Places::none(130);
        (1..64).for_each(|place| some.insert(place));
        assert!(!some.meets(first));
        some.insert(129);
        assert!(some.meets(first));
    }

    #[test]
    fn groups_take_bounded_room() {
        let mut groups = Groups::none(10, Some(5), 7);
        (0..2 * MOST_GROUPS as u32).for_each(|n| groups.want(3, group(n)));
        groups.want(4, group(0));
        let groups = groups.complete();
        assert_eq!(groups.len(), MOST_GROUPS);
        assert!(groups.wanted(group(0)).is_some_and(|wanted| wanted.has(4)) && groups.wanted(group(5000)).is_none());
    }
}
