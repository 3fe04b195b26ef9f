//! A partial mesh of cables at random, the same for the same seed.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::{HostError, Lab, Wire};

impl Lab {
    /// So many new hosts, `h1` and on, with cables in a ring, so that no single cut divides them, and between pairs drawn by lot. Each cable
    /// leads from the host with the lower number to the other.
    pub fn partial_mesh(&mut self, hosts: usize, chords: usize, seed: u64) -> Result<Vec<Wire>, HostError> {
        for n in 1..=hosts {
            self.host(&format!("h{n}"))?;
        }
        let pairs = plan(hosts, chords, seed).into_iter().enumerate();
        pairs.map(|(n, (a, b))| self.wire(&format!("h{}", a + 1), &format!("h{}", b + 1), &subnet(n))).collect()
    }
}

fn subnet(n: usize) -> String {
    format!("10.{}.{}.0/24", 64 + n / 256, n % 256)
}

/// The pairs of hosts to be joined, lower number first, each once.
fn plan(hosts: usize, chords: usize, seed: u64) -> Vec<(usize, usize)> {
    let mut dice = ChaCha12Rng::seed_from_u64(seed);
    let mut below = |limit: usize| usize::try_from(dice.next_u64() % (limit.max(1) as u64)).unwrap_or(0);
    let sorted = |a: usize, b: usize| (a.min(b), a.max(b));
    // Numbers tell nothing of who is next to whom.
    let mut order: Vec<usize> = (0..hosts).collect();
    (1..hosts).rev().for_each(|n| order.swap(n, below(n + 1)));
    let mut pairs: Vec<(usize, usize)> = order.windows(2).map(|pair| sorted(pair[0], pair[1])).collect();
    if let (Some(first), Some(last)) = (order.first(), order.last())
        && hosts > 2
    {
        pairs.push(sorted(*first, *last));
    }
    let most = (hosts * hosts.saturating_sub(1) / 2).min(pairs.len() + chords);
    while pairs.len() < most {
        let pair = sorted(below(hosts), below(hosts));
        if pair.0 != pair.1 && !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The hosts that cables lead to from the first one.
    fn reached(hosts: usize, pairs: &[(usize, usize)]) -> usize {
        let mut seen = BTreeSet::from([0]);
        (0..hosts).for_each(|_| {
            for (a, b) in pairs.iter().filter(|(a, b)| seen.contains(a) || seen.contains(b)).copied().collect::<Vec<_>>() {
                seen.extend([a, b]);
            }
        });
        seen.len()
    }

    #[test]
    fn no_single_cut_divides_it_and_a_seed_makes_it_again() {
        let pairs = plan(40, 30, 7);
        assert_eq!(pairs.len(), 70);
        assert_eq!(pairs.iter().collect::<BTreeSet<_>>().len(), 70, "each pair once");
        assert!(pairs.iter().all(|(a, b)| a < b && *b < 40));
        for cut in &pairs {
            let left: Vec<(usize, usize)> = pairs.iter().filter(|pair| *pair != cut).copied().collect();
            assert_eq!(reached(40, &left), 40, "without {cut:?}");
        }
        assert_eq!(plan(40, 30, 7), pairs);
        assert_ne!(plan(40, 30, 8), pairs);
    }

    #[test]
    fn few_hosts_have_as_many_cables_as_there_can_be() {
        assert_eq!(plan(1, 5, 1), []);
        assert_eq!(plan(2, 5, 1), [(0, 1)]);
        assert_eq!(plan(4, 50, 1).len(), 6);
    }
}
