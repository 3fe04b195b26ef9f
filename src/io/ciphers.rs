//! Measures what each cipher costs on this host and in which library, so that this end takes the faster library and two ends agree on the
//! suite that is faster for both.

use std::hint::black_box;
use std::time::Duration;

use super::clock::Clock;
use crate::crypto::aead::{AeadKey, sample_key};
use crate::crypto::{Provider, Providers, Suite, SuiteTiming};
use crate::wire::{HEADER_LEN, TAG_LEN};

/// Plaintext of a full datagram on a 1500-byte underlay.
const FULL: usize = 1390;
/// Datagrams sealed per round: about as many as a super frame makes.
const ROUND: u32 = 48;
/// Rounds; the best counts, since whatever else ran only makes a round slower. The candidates take turns, so that a slow moment hits all of them.
const ROUNDS: u32 = 8;
/// A library replaces the suite's first one only if it takes fewer than so many hundredths of its time: what differs less changes from
/// start to start.
const CLEARLY: u32 = 95;

/// What one library takes for one suite on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    suite: Suite,
    provider: Provider,
    /// To seal a full datagram.
    nanoseconds: u32,
}

/// What was measured at start, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ciphers(Vec<Measured>);

impl Ciphers {
    /// Times every suite of `suites` in every library of this build, or in `only` one. Takes a few milliseconds.
    pub fn measure(clock: Clock, suites: &[Suite], only: Option<Provider>) -> Ciphers {
        let wanted = |provider: &Provider| only.is_none_or(|only| only == *provider);
        let pairs =
            suites.iter().flat_map(|&suite| Provider::of(suite).iter().copied().filter(wanted).map(move |provider| (suite, provider)));
        let candidates: Vec<_> = pairs.filter_map(|(suite, provider)| Some((suite, provider, sample_key(suite, provider)?))).collect();
        let mut best = vec![Duration::MAX; candidates.len()];
        for _ in 0..ROUNDS {
            for ((_, _, key), best) in candidates.iter().zip(&mut best) {
                *best = round(clock, key).min(*best);
            }
        }
        let measured = candidates.into_iter().zip(best).map(|((suite, provider, _), best)| {
            let nanoseconds = u32::try_from(best.as_nanos() / u128::from(ROUND)).unwrap_or(u32::MAX);
            Measured { suite, provider, nanoseconds }
        });
        Ciphers(measured.collect())
    }

    /// The measurements of `suite`, first that of the library to use: the suite's first one unless another is clearly faster.
    fn of(&self, suite: Suite) -> Vec<Measured> {
        let mut of: Vec<_> = self.0.iter().copied().filter(|measured| measured.suite == suite).collect();
        let first = of.first().map_or(0, |first| u64::from(first.nanoseconds));
        let clearly = |m: &Measured| u64::from(m.nanoseconds) * 100 < first * u64::from(CLEARLY);
        let chosen = (0..of.len()).filter(|n| *n == 0 || clearly(&of[*n])).min_by_key(|n| (of[*n].nanoseconds, *n)).unwrap_or(0);
        if !of.is_empty() {
            of.swap(0, chosen);
        }
        of
    }

    /// Each suite once, in the order of preference.
    fn chosen(&self) -> impl Iterator<Item = Vec<Measured>> {
        [Suite::Aes256Gcm, Suite::ChaCha20Poly1305].into_iter().map(|suite| self.of(suite)).filter(|of| !of.is_empty())
    }

    /// What this end offers: each suite at the price of its library.
    pub fn timings(&self) -> Vec<SuiteTiming> {
        self.chosen().map(|of| SuiteTiming { suite: of[0].suite, nanoseconds: of[0].nanoseconds }).collect()
    }

    /// The library of each suite.
    pub fn providers(&self) -> Providers {
        self.chosen().fold(Providers::default(), |providers, of| providers.with(of[0].suite, of[0].provider))
    }

    /// For status and the log: each suite, the library that is used and why.
    pub fn describe(&self) -> Vec<(String, String)> {
        let one = |m: &Measured| format!("{} {} ns", m.provider, m.nanoseconds);
        let line = |of: Vec<Measured>| {
            let others: Vec<_> = of[1..].iter().map(one).collect();
            let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
            (of[0].suite.to_string(), format!("{} per {FULL} bytes{others}", one(&of[0])))
        };
        self.chosen().map(line).collect()
    }
}

/// How long a round of sealing takes.
fn round(clock: Clock, key: &AeadKey) -> Duration {
    let aad = [0; HEADER_LEN];
    let mut datagram = [0; FULL + TAG_LEN];
    let start = clock.now();
    for counter in 0..ROUND {
        key.seal_in_place(counter, &aad, black_box(&mut datagram));
    }
    clock.now() - start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(list: &[(Suite, Provider, u32)]) -> Ciphers {
        Ciphers(list.iter().map(|&(suite, provider, nanoseconds)| Measured { suite, provider, nanoseconds }).collect())
    }

    #[test]
    fn every_suite_has_a_cost() {
        let ciphers = Ciphers::measure(Clock::start(), Suite::available(), None);
        let timings = ciphers.timings();
        assert_eq!(timings.iter().map(|t| t.suite).collect::<Vec<_>>(), Suite::available());
        assert!(timings.iter().all(|t| (10..1_000_000).contains(&t.nanoseconds)), "{timings:?}");
        let libraries: usize = Suite::available().iter().map(|suite| Provider::of(*suite).len()).sum();
        assert_eq!(ciphers.0.len(), libraries);
        for suite in Suite::available() {
            for provider in Provider::of(*suite) {
                let only = Ciphers::measure(Clock::start(), &[*suite], Some(*provider));
                assert_eq!((only.0.len(), only.providers().get(*suite)), (1, *provider));
            }
        }
    }

    #[test]
    fn the_clearly_faster_library_is_taken() {
        use Provider::{AwsLc, Ring};
        use Suite::{Aes256Gcm, ChaCha20Poly1305};
        let epyc =
            measured(&[(Aes256Gcm, AwsLc, 534), (Aes256Gcm, Ring, 331), (ChaCha20Poly1305, AwsLc, 841), (ChaCha20Poly1305, Ring, 836)]);
        assert_eq!((epyc.providers().get(Aes256Gcm), epyc.providers().get(ChaCha20Poly1305)), (Ring, AwsLc));
        let costs: Vec<_> = epyc.timings().iter().map(|t| t.nanoseconds).collect();
        assert_eq!(costs, [331, 841]);
        assert_eq!(
            epyc.describe(),
            [
                ("aes256gcm".into(), "ring 331 ns per 1390 bytes (aws-lc 534 ns)".into()),
                ("chacha20poly1305".into(), "aws-lc 841 ns per 1390 bytes (ring 836 ns)".to_string())
            ]
        );
        let xeon = measured(&[(Aes256Gcm, AwsLc, 188), (Aes256Gcm, Ring, 261)]);
        assert_eq!((xeon.providers().get(Aes256Gcm), xeon.timings().len()), (AwsLc, 1));
        let one = measured(&[(ChaCha20Poly1305, Provider::Portable, 2716)]);
        assert_eq!(one.describe(), [("chacha20poly1305".into(), "chacha20poly1305 2716 ns per 1390 bytes".to_string())]);
        assert!(measured(&[]).timings().is_empty());
    }
}
