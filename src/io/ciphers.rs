//! Measures what each cipher costs on this host, so that two ends can agree on the one that is fastest for both.

use std::hint::black_box;
use std::time::Duration;

use super::clock::Clock;
use crate::crypto::aead::sample_key;
use crate::crypto::{Suite, SuiteTiming};
use crate::wire::{HEADER_LEN, TAG_LEN};

/// Plaintext of a full datagram on a 1500-byte underlay.
const FULL: usize = 1390;
/// Datagrams sealed per round: about as many as a super frame makes.
const ROUND: u32 = 48;
/// Rounds; the best counts, since whatever else ran only makes a round slower.
const ROUNDS: u32 = 5;

/// Times every suite of `suites` that this build has. Takes about a millisecond.
pub fn measure(clock: Clock, suites: &[Suite]) -> Vec<SuiteTiming> {
    suites.iter().filter_map(|&suite| Some(SuiteTiming { suite, nanoseconds: time_one(clock, suite)? })).collect()
}

fn time_one(clock: Clock, suite: Suite) -> Option<u32> {
    let key = sample_key(suite)?;
    let aad = [0; HEADER_LEN];
    let mut datagram = [0; FULL + TAG_LEN];
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = clock.now();
        for counter in 0..ROUND {
            key.seal_in_place(counter, &aad, black_box(&mut datagram));
        }
        best = best.min(clock.now() - start);
    }
    u32::try_from(best.as_nanos() / u128::from(ROUND)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_a_cost() {
        let timings = measure(Clock::start(), Suite::available());
        assert_eq!(timings.len(), Suite::available().len());
        assert!(timings.iter().all(|t| (10..1_000_000).contains(&t.nanoseconds)), "{timings:?}");
    }
}
