//! The book of one router: which of its containers has which address, and what is free.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Time;
use crate::wire::ipam::Range;

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The container.
    pub ident: String,
    /// Length of the prefix that it was asked for with.
    pub prefix: u8,
    /// Whether the address was given, or is merely known to be in use.
    pub standing: Standing,
}

/// On what ground somebody has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was given, and is on disk.
    Given,
    /// A running container of this host was found with it; it is given to nobody else, and is to be given to this one.
    Reserved,
    /// It is in use here without having been given, and is given to nobody while it is.
    InUse,
}

/// Addresses and their holders, both ways.
#[derive(Default)]
pub struct Book {
    holders: BTreeMap<u128, Holder>,
    idents: BTreeMap<String, Vec<u128>>,
    /// Those with [`Standing::Reserved`].
    reserved: BTreeSet<u128>,
    /// Those that were found in use, by whoever has them.
    seen: BTreeSet<u128>,
    /// Dead containers, and when their addresses go back.
    released: BTreeMap<String, Time>,
}

impl Book {
    /// Who has an address.
    pub fn holder(&self, address: u128) -> Option<&Holder> {
        self.holders.get(&address)
    }

    /// All that a container has, in the order in which it got it.
    pub fn all_of(&self, ident: &str) -> Vec<(u128, Holder)> {
        let known = self.idents.get(ident).map_or(&[][..], Vec::as_slice);
        known.iter().filter_map(|address| Some((*address, self.holders.get(address)?.clone()))).collect()
    }

    /// The addresses that a container was given, with their prefixes, in the order in which it got them.
    pub fn of(&self, ident: &str) -> Vec<(u128, u8)> {
        let given = self.all_of(ident).into_iter().filter(|(_, holder)| holder.standing == Standing::Given);
        given.map(|(address, holder)| (address, holder.prefix)).collect()
    }

    /// All addresses that were given, or are merely in use, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u128, &Holder)> {
        self.holders.iter().map(|(address, holder)| (*address, holder))
    }

    /// The addresses of a range that somebody has.
    pub fn within(&self, range: &Range) -> impl Iterator<Item = (u128, &Holder)> {
        self.holders.range(range.first..=range.last).map(|(address, holder)| (*address, holder))
    }

    /// Gives an address that is free, or in use by this container.
    pub fn give(&mut self, ident: &str, address: u128, prefix: u8) {
        self.reserved.remove(&address);
        let given = Holder { ident: ident.to_string(), prefix, standing: Standing::Given };
        match self.holders.get_mut(&address).filter(|holder| holder.ident == ident) {
            Some(holder) => *holder = given,
            None => self.put(address, given),
        }
    }

    /// Notes an address that is in use here, whoever gave it; false if somebody has it already. It may be `wanted` for whoever uses it.
    pub fn reserve(&mut self, ident: &str, address: u128, prefix: u8, wanted: bool) -> bool {
        let holder = self.holders.get(&address);
        let (free, same) = (holder.is_none(), holder.is_none_or(|holder| holder.ident == ident));
        if same {
            self.seen.insert(address);
        }
        if free {
            let standing = if wanted { Standing::Reserved } else { Standing::InUse };
            if wanted {
                self.reserved.insert(address);
            }
            self.put(address, Holder { ident: ident.to_string(), prefix, standing });
        }
        free
    }

    /// An address is not its container's to have; it goes on using it.
    pub fn refuse(&mut self, address: u128) {
        self.reserved.remove(&address);
        if let Some(holder) = self.holders.get_mut(&address) {
            holder.standing = Standing::InUse;
        }
    }

    /// True for an address that was found in use, by whoever has it.
    pub fn is_seen(&self, address: u128) -> bool {
        self.seen.contains(&address)
    }

    /// The addresses that are reserved, ascending.
    pub fn reserved(&self) -> impl Iterator<Item = u128> {
        self.reserved.iter().copied()
    }

    fn put(&mut self, address: u128, holder: Holder) {
        self.idents.entry(holder.ident.clone()).or_default().push(address);
        self.holders.insert(address, holder);
    }

    /// Takes an address back; false if nobody had it.
    pub fn take(&mut self, address: u128) -> bool {
        self.reserved.remove(&address);
        self.seen.remove(&address);
        let Some(holder) = self.holders.remove(&address) else { return false };
        if let Some(addresses) = self.idents.get_mut(&holder.ident) {
            addresses.retain(|known| *known != address);
            if addresses.is_empty() {
                self.idents.remove(&holder.ident);
                self.released.remove(&holder.ident);
            }
        }
        true
    }

    /// The container is dead: its addresses go back at `when`, unless it is seen again.
    pub fn release(&mut self, ident: &str, when: Time) {
        if self.idents.contains_key(ident) {
            self.released.entry(ident.to_string()).or_insert(when);
        }
    }

    /// The container is alive; false if nobody thought otherwise.
    pub fn revive(&mut self, ident: &str) -> bool {
        self.released.remove(ident).is_some()
    }

    /// True of a dead container that still has addresses.
    pub fn is_released(&self, ident: &str) -> bool {
        self.released.contains_key(ident)
    }

    /// The next moment at which addresses go back.
    pub fn next_release(&self) -> Option<Time> {
        self.released.values().min().copied()
    }

    /// The dead whose time has come.
    pub fn due(&self, now: Time) -> Vec<String> {
        self.released.iter().filter(|(_, when)| **when <= now).map(|(ident, _)| ident.clone()).collect()
    }

    /// The lowest address of a range that nobody has.
    pub fn lowest_free(&self, range: &Range) -> Option<u128> {
        self.gaps(range).next().map(|gap| gap.first)
    }

    /// How many addresses of a range nobody has.
    pub fn free_in(&self, range: &Range) -> u128 {
        range.size() - self.within(range).count() as u128
    }

    /// The runs of a range that nobody has.
    pub fn gaps(&self, range: &Range) -> impl Iterator<Item = Range> {
        let (last, mut next, mut taken) = (range.last, Some(range.first), self.holders.range(range.first..=range.last));
        std::iter::from_fn(move || {
            while let Some(first) = next.filter(|first| *first <= last) {
                let Some((&address, _)) = taken.next() else {
                    next = None;
                    return Some(Range { first, last });
                };
                next = address.checked_add(1);
                if address > first {
                    return Some(Range { first, last: address - 1 });
                }
            }
            None
        })
    }
}

/// The largest aligned block of a power of two in a range, the lowest of its size.
pub fn largest_block(range: &Range) -> Range {
    let mut bits = (range.last - range.first).checked_add(1).map_or(127, u128::ilog2);
    loop {
        let size = 1u128 << bits;
        let first = range.first.checked_next_multiple_of(size);
        if let Some(first) = first.filter(|first| first.checked_add(size - 1).is_some_and(|last| last <= range.last)) {
            return Range { first, last: first + (size - 1) };
        }
        bits = bits.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u128, last: u128) -> Range {
        Range { first, last }
    }

    #[test]
    fn gaps_are_what_nobody_has() {
        let mut book = Book::default();
        for address in [10, 12, 13, 19] {
            book.give("c", address, 24);
        }
        assert_eq!(book.gaps(&range(10, 19)).collect::<Vec<_>>(), [range(11, 11), range(14, 18)]);
        assert_eq!(book.gaps(&range(0, 20)).collect::<Vec<_>>(), [range(0, 9), range(11, 11), range(14, 18), range(20, 20)]);
        assert_eq!((book.lowest_free(&range(10, 19)), book.lowest_free(&range(12, 13))), (Some(11), None));
        assert_eq!(book.free_in(&range(10, 19)), 6);
        assert!(book.take(12) && !book.take(12));
        assert_eq!(book.lowest_free(&range(12, 13)), Some(12));
        book.give("top", u128::MAX, 24);
        assert_eq!(book.gaps(&range(u128::MAX - 1, u128::MAX)).count(), 1);
    }

    #[test]
    fn the_dead_are_given_time() {
        let mut book = Book::default();
        book.give("c", 1, 24);
        book.release("c", Time(30));
        book.release("c", Time(40));
        book.release("nobody", Time(1));
        assert_eq!((book.due(Time(29)), book.due(Time(30)), book.next_release()), (vec![], vec!["c".to_string()], Some(Time(30))));
        book.revive("c");
        assert_eq!(book.due(Time(90)), Vec::<String>::new());
    }

    #[test]
    fn what_is_reserved_is_not_free_and_not_given() {
        let mut book = Book::default();
        book.give("c", 10, 24);
        assert!(book.reserve("c", 11, 24, true) && book.reserve("d", 12, 24, true) && book.reserve("host", 13, 24, false));
        assert!(!book.reserve("e", 10, 24, true) && !book.reserve("e", 12, 24, true), "somebody has it");
        assert_eq!((book.lowest_free(&range(10, 19)), book.free_in(&range(10, 19))), (Some(14), 6));
        assert_eq!((book.of("c"), book.all_of("c").len(), book.of("d")), (vec![(10, 24)], 2, vec![]));
        book.refuse(12);
        assert_eq!(book.reserved().collect::<Vec<_>>(), [11]);
        assert_eq!(book.holder(12).map(|holder| holder.standing), Some(Standing::InUse));
        book.give("c", 11, 24);
        assert_eq!((book.of("c"), book.reserved().count()), (vec![(10, 24), (11, 24)], 0));
        assert!(book.take(12) && book.all_of("d").is_empty());
    }

    #[test]
    fn blocks_are_aligned() {
        for (given, block) in [
            (range(0, 255), range(0, 255)),
            (range(1, 254), range(64, 127)),
            (range(5, 5), range(5, 5)),
            (range(7, 8), range(7, 7)),
            (range(u128::MAX, u128::MAX), range(u128::MAX, u128::MAX)),
            (range(0, u128::MAX), range(0, u128::MAX >> 1)),
        ] {
            assert_eq!(largest_block(&given), block, "{given:?}");
        }
    }
}
