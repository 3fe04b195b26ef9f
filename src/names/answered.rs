//! One name that is answered: its addresses, who holds it, and a choice of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::OnceLock;

use rand_core::Rng;

use crate::wire::PeerName;

/// Which addresses of a name are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// Those of IPv4.
    pub four: bool,
    /// Those of IPv6.
    pub six: bool,
}

/// A name that is answered.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// How many hold each of its addresses.
    pub addresses: BTreeMap<IpAddr, u32>,
    /// How often each router says so.
    pub holders: BTreeMap<PeerName, u32>,
    /// The addresses as a list to choose from, made when it is first asked for after a change.
    list: OnceLock<Vec<IpAddr>>,
}

impl Answered {
    /// Something of it is about to change.
    pub fn touch(&mut self) {
        self.list.take();
    }

    /// So many of its addresses by chance, in an order by chance. What it costs depends on how many are chosen, not on how many there are.
    pub fn choose(&self, families: Families, most: usize, rng: &mut impl Rng) -> Vec<IpAddr> {
        let list = self.list.get_or_init(|| self.addresses.keys().copied().collect());
        // IPv4 stands before IPv6.
        let (four, six) = list.split_at(list.partition_point(IpAddr::is_ipv4));
        let (four, six) = (if families.four { four } else { &[] }, if families.six { six } else { &[] });
        let count = four.len() + six.len();
        let at = |n: usize| four.get(n).or_else(|| six.get(n - four.len())).copied();
        let mut chosen: Vec<IpAddr> = match count <= most {
            true => four.iter().chain(six).copied().collect(),
            false => some_of(count, most, rng).into_iter().filter_map(at).collect(),
        };
        shuffle(&mut chosen, rng);
        chosen
    }
}

/// So many different numbers below `count`, each set of them as likely as the others (Floyd's algorithm).
fn some_of(count: usize, most: usize, rng: &mut impl Rng) -> BTreeSet<usize> {
    let mut some = BTreeSet::new();
    for last in count.saturating_sub(most)..count {
        let pick = below(last + 1, rng);
        if !some.insert(pick) {
            some.insert(last);
        }
    }
    some
}

/// Puts answers into an order by chance, each as likely as the others, so that callers spread over all holders of a name.
pub fn shuffle<T>(items: &mut [T], rng: &mut impl Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last + 1, rng));
    }
}

/// A number below `bound`. By multiplication: for lists this short no place is noticeably likelier than another.
fn below(bound: usize, rng: &mut impl Rng) -> usize {
    ((u64::from(rng.next_u32()) * bound as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    const BOTH: Families = Families { four: true, six: true };

    fn answered(four: u16, six: u16) -> Answered {
        let mut answered = Answered::default();
        let fours = (0..four).map(|n| IpAddr::from([10, 32, (n >> 8) as u8, n as u8]));
        let sixes = (0..six).map(|n| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]));
        answered.addresses.extend(fours.chain(sixes).map(|address| (address, 1)));
        answered
    }

    #[test]
    fn every_order_comes_up() {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let mut seen = BTreeMap::new();
        for _ in 0..6000 {
            let mut three = [1, 2, 3];
            shuffle(&mut three, &mut rng);
            *seen.entry(three).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|count| (800..1200).contains(count)), "{seen:?}");
    }

    #[test]
    fn every_address_is_chosen_as_often_as_the_others() {
        let mut rng = ChaCha20Rng::from_seed([8; 32]);
        let many = answered(6, 4);
        let mut seen = BTreeMap::new();
        for _ in 0..5000 {
            let chosen = many.choose(BOTH, 3, &mut rng);
            assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), 3, "each once");
            for (place, address) in chosen.into_iter().enumerate() {
                *seen.entry((place, address)).or_insert(0) += 1;
            }
        }
        assert_eq!(seen.len(), 30, "each at every place");
        assert!(seen.values().all(|count| (400..600).contains(count)), "{seen:?}");
    }

    #[test]
    fn families_are_kept_apart_and_a_change_is_seen() {
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        let mut few = answered(3, 2);
        let mut count = |few: &Answered, four, six| few.choose(Families { four, six }, 10, &mut rng).len();
        assert_eq!([count(&few, true, true), count(&few, true, false), count(&few, false, true), count(&few, false, false)], [5, 3, 2, 0]);
        few.touch();
        few.addresses.pop_first();
        assert_eq!(count(&few, true, false), 2);
    }
}
