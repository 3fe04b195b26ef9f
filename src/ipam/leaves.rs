//! Who owns which address, as a map of runs.

use std::collections::BTreeMap;

use crate::crypto::PublicKey;
use crate::wire::PeerName;
use crate::wire::ipam::{EntryId, Range};

/// An owner: a key, or the name of a seed whose key nobody knew when the mesh was founded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    key: Option<PublicKey>,
    name: PeerName,
}

impl Owner {
    /// The router with this key.
    pub fn of_key(key: PublicKey) -> Owner {
        Owner { key: Some(key), name: key.name() }
    }

    /// The router with this name, whatever its key.
    pub fn of_name(name: PeerName) -> Owner {
        Owner { key: None, name }
    }

    /// Its name.
    pub fn name(&self) -> PeerName {
        self.name
    }

    /// True if the key is the owner's.
    pub fn is(&self, key: &PublicKey) -> bool {
        self.key.map_or_else(|| key.name() == self.name, |own| own == *key)
    }
}

/// Why somebody owns a run of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The entry that says so.
    pub node: EntryId,
    /// The owner.
    pub owner: Owner,
    /// Who gave it; `None` where it was so from the beginning.
    pub giver: Option<PeerName>,
    /// True if it was given twice.
    pub disputed: bool,
}

/// Runs of addresses with their owners, disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaves(BTreeMap<u128, (u128, Leaf)>);

impl Leaves {
    /// All runs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Range, &Leaf)> {
        self.0.iter().map(|(first, (last, leaf))| (Range { first: *first, last: *last }, leaf))
    }

    /// The run that an address is in.
    pub fn at(&self, address: u128) -> Option<(Range, &Leaf)> {
        let (first, (last, leaf)) = self.0.range(..=address).next_back()?;
        (address <= *last).then_some((Range { first: *first, last: *last }, leaf))
    }

    /// The runs that have something of a range.
    pub fn within(&self, range: &Range) -> impl Iterator<Item = (Range, &Leaf)> {
        let start = self.at(range.first).map_or(range.first, |(run, _)| run.first);
        self.0.range(start..=range.last).map(|(first, (last, leaf))| (Range { first: *first, last: *last }, leaf))
    }

    /// True if every address of the range has an owner for which `what` holds.
    pub fn all(&self, range: &Range, what: impl Fn(&Leaf) -> bool) -> bool {
        let mut next = Some(range.first);
        for (run, leaf) in self.within(range) {
            if next.is_none_or(|next| run.first > next) || leaf.disputed || !what(leaf) {
                return false;
            }
            next = run.last.checked_add(1);
        }
        next.is_none_or(|next| next > range.last)
    }

    /// Gives a range another owner.
    pub fn put(&mut self, range: Range, leaf: Leaf) {
        self.cut(range.first);
        if let Some(after) = range.last.checked_add(1) {
            self.cut(after);
        }
        let gone: Vec<u128> = self.0.range(range.first..=range.last).map(|(first, _)| *first).collect();
        for first in gone {
            self.0.remove(&first);
        }
        self.0.insert(range.first, (range.last, leaf));
    }

    /// Marks a range as given twice.
    pub fn dispute(&mut self, range: &Range) {
        self.cut(range.first);
        if let Some(after) = range.last.checked_add(1) {
            self.cut(after);
        }
        self.0.range_mut(range.first..=range.last).for_each(|(_, (_, leaf))| leaf.disputed = true);
    }

    /// Lets a run begin at this address, if one covers it.
    fn cut(&mut self, at: u128) {
        let Some((first, (last, leaf))) = self.0.range_mut(..at).next_back() else { return };
        if *last >= at && *first < at {
            let (end, leaf) = (*last, *leaf);
            *last = at - 1;
            self.0.insert(at, (end, leaf));
        }
    }
}
