//! The book of one router: which of its containers has which address, and what is free.

use std::collections::BTreeMap;

use crate::time::Time;
use crate::wire::ipam::Range;

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The container.
    pub ident: String,
    /// Length of the prefix that it was asked for with.
    pub prefix: u8,
}

/// Addresses and their holders, both ways.
#[derive(Default)]
pub struct Book {
    holders: BTreeMap<u128, Holder>,
    idents: BTreeMap<String, Vec<u128>>,
    /// Dead containers, and when their addresses go back.
    released: BTreeMap<String, Time>,
}

impl Book {
    /// Who has an address.
    pub fn holder(&self, address: u128) -> Option<&Holder> {
        self.holders.get(&address)
    }

    /// The addresses of a container, with their prefixes, in the order in which it got them.
    pub fn of(&self, ident: &str) -> Vec<(u128, u8)> {
        let known = self.idents.get(ident).map_or(&[][..], Vec::as_slice);
        known.iter().filter_map(|address| Some((*address, self.holders.get(address)?.prefix))).collect()
    }

    /// All addresses, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u128, &Holder)> {
        self.holders.iter().map(|(address, holder)| (*address, holder))
    }

    /// The addresses of a range that somebody has.
    pub fn within(&self, range: &Range) -> impl Iterator<Item = (u128, &Holder)> {
        self.holders.range(range.first..=range.last).map(|(address, holder)| (*address, holder))
    }

    /// Gives an address that is free.
    pub fn give(&mut self, ident: &str, address: u128, prefix: u8) {
        self.holders.insert(address, Holder { ident: ident.to_string(), prefix });
        self.idents.entry(ident.to_string()).or_default().push(address);
    }

    /// Takes an address back; false if nobody had it.
    pub fn take(&mut self, address: u128) -> bool {
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
