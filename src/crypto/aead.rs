//! One keyed AEAD, its context built once: seals and opens datagrams in place without an allocation.
//!
//! A suite may be computed by more than one library ([`Provider`]). All of them write the same bytes, so each end picks its own:
//! which is faster depends on the CPU, and is measured at start, outside this floor.
//!
//! ChaCha20-Poly1305 takes 770 ns for a datagram of 1390 bytes, of which the bare cipher, at its speed on long messages, would be a quarter: with
//! AVX-512 it works on sixteen blocks at once, a datagram has 22, and Poly1305 comes on top. What would bring it there is to seal several
//! datagrams of one super frame side by side. None of the maintained libraries (aws-lc, ring, `chacha20poly1305`, graviola) offers that: each
//! takes one message after the other. It is not for this project to write its own.

use std::fmt;

use super::suite::Suite;
use crate::wire::TAG_LEN;

/// Bytes of a key, in both suites.
pub const KEY_LEN: usize = 32;
/// Bytes of associated data: the clear header.
const AAD_LEN: usize = crate::wire::HEADER_LEN;
/// Why sealing cannot fail.
const FITS: &str = "a datagram is far below the AEAD's length limit";

/// A library that computes AEADs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// aws-lc: the fastest AES-256-GCM on CPUs with AVX-512. Needs the build feature `aws-lc`.
    AwsLc,
    /// ring: the fastest AES-256-GCM on CPUs that have vector AES but no AVX-512. Needs the build feature `ring`.
    Ring,
    /// The `chacha20poly1305` crate, in pure Rust: for builds that have neither of the others, and the independent reference in tests.
    Portable,
}

impl Provider {
    /// The libraries of this build that compute `suite`; the first is taken where they are equally fast. Empty where the build lacks the suite.
    pub fn of(suite: Suite) -> &'static [Provider] {
        match (cfg!(feature = "aws-lc"), cfg!(feature = "ring"), suite) {
            (true, true, _) => &[Provider::AwsLc, Provider::Ring],
            (true, false, _) => &[Provider::AwsLc],
            (false, true, _) => &[Provider::Ring],
            (false, false, Suite::ChaCha20Poly1305) => &[Provider::Portable],
            (false, false, Suite::Aes256Gcm) => &[],
        }
    }

    /// The name that status and the log use.
    pub fn label(self) -> &'static str {
        match self {
            Provider::AwsLc => "aws-lc",
            Provider::Ring => "ring",
            Provider::Portable => "chacha20poly1305",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Which library computes each suite in this process. No concern of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Providers {
    aes256gcm: Provider,
    chacha20poly1305: Provider,
}

impl Default for Providers {
    /// The first library of each suite, whatever it costs.
    fn default() -> Providers {
        let first = |suite| Provider::of(suite).first().copied().unwrap_or(Provider::Portable);
        Providers { aes256gcm: first(Suite::Aes256Gcm), chacha20poly1305: first(Suite::ChaCha20Poly1305) }
    }
}

impl Providers {
    /// The same, but `suite` by `provider`.
    #[must_use]
    pub fn with(mut self, suite: Suite, provider: Provider) -> Providers {
        match suite {
            Suite::Aes256Gcm => self.aes256gcm = provider,
            Suite::ChaCha20Poly1305 => self.chacha20poly1305 = provider,
        }
        self
    }

    /// The library of `suite`.
    pub fn get(self, suite: Suite) -> Provider {
        match suite {
            Suite::Aes256Gcm => self.aes256gcm,
            Suite::ChaCha20Poly1305 => self.chacha20poly1305,
        }
    }
}

/// A keyed AEAD. The key's bytes live only inside the library's context; aws-lc and the `chacha20poly1305` crate wipe it when it is dropped,
/// ring does not.
pub enum AeadKey {
    /// Either suite by aws-lc.
    #[cfg(feature = "aws-lc")]
    AwsLc(aws_lc_rs::aead::LessSafeKey),
    /// Either suite by ring.
    #[cfg(feature = "ring")]
    Ring(Box<ring::aead::LessSafeKey>),
    /// ChaCha20-Poly1305 in pure Rust.
    Portable(Box<chacha20poly1305::ChaCha20Poly1305>),
}

/// The tag does not match: the datagram was not sealed with this key, nonce and header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

/// The nonce of a counter: eight zero bytes and the counter. Unique because a key serves one lane in one direction,
/// where no counter is used twice.
fn nonce(counter: u32) -> [u8; 12] {
    let [a, b, c, d] = counter.to_be_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

impl AeadKey {
    /// A key for `suite` by `provider`; `None` where this build or that library lacks the suite.
    pub fn new(suite: Suite, provider: Provider, key: &[u8; KEY_LEN]) -> Option<AeadKey> {
        match (provider, suite) {
            (Provider::AwsLc, suite) => AeadKey::aws_lc(suite, key),
            (Provider::Ring, suite) => AeadKey::ring(suite, key),
            (Provider::Portable, Suite::Aes256Gcm) => None,
            (Provider::Portable, Suite::ChaCha20Poly1305) => {
                use chacha20poly1305::KeyInit;
                Some(AeadKey::Portable(Box::new(chacha20poly1305::ChaCha20Poly1305::new(&(*key).into()))))
            }
        }
    }

    #[cfg(feature = "aws-lc")]
    fn aws_lc(suite: Suite, key: &[u8; KEY_LEN]) -> Option<AeadKey> {
        use aws_lc_rs::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        UnboundKey::new(algorithm, key).ok().map(|key| AeadKey::AwsLc(LessSafeKey::new(key)))
    }

    #[cfg(not(feature = "aws-lc"))]
    fn aws_lc(_: Suite, _: &[u8; KEY_LEN]) -> Option<AeadKey> {
        None
    }

    #[cfg(feature = "ring")]
    fn ring(suite: Suite, key: &[u8; KEY_LEN]) -> Option<AeadKey> {
        use ring::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        UnboundKey::new(algorithm, key).ok().map(|key| AeadKey::Ring(Box::new(LessSafeKey::new(key))))
    }

    #[cfg(not(feature = "ring"))]
    fn ring(_: Suite, _: &[u8; KEY_LEN]) -> Option<AeadKey> {
        None
    }

    /// Seals in place: `body` is the plaintext followed by 16 bytes of room for the tag.
    pub fn seal_in_place(&self, counter: u32, aad: &[u8; AAD_LEN], body: &mut [u8]) {
        let (text, room) = split_tag(body);
        match self {
            #[cfg(feature = "aws-lc")]
            AeadKey::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce(counter));
                room.copy_from_slice(key.seal_in_place_separate_tag(nonce, Aad::from(aad), text).expect(FITS).as_ref());
            }
            #[cfg(feature = "ring")]
            AeadKey::Ring(key) => {
                use ring::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce(counter));
                room.copy_from_slice(key.seal_in_place_separate_tag(nonce, Aad::from(aad), text).expect(FITS).as_ref());
            }
            AeadKey::Portable(key) => {
                use chacha20poly1305::AeadInOut;
                room.copy_from_slice(&key.encrypt_inout_detached(&nonce(counter).into(), aad, text.into()).expect(FITS));
            }
        }
    }

    /// Opens in place: `body` is ciphertext and tag, the plaintext inside it is returned. What `body` holds after a
    /// failure is undefined.
    pub fn open_in_place<'a>(&self, counter: u32, aad: &[u8; AAD_LEN], body: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        match self {
            #[cfg(feature = "aws-lc")]
            AeadKey::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                key.open_in_place(Nonce::assume_unique_for_key(nonce(counter)), Aad::from(aad), body).map_err(|_| Forged)
            }
            #[cfg(feature = "ring")]
            AeadKey::Ring(key) => {
                use ring::aead::{Aad, Nonce};
                key.open_in_place(Nonce::assume_unique_for_key(nonce(counter)), Aad::from(aad), body).map_err(|_| Forged)
            }
            AeadKey::Portable(key) => {
                use chacha20poly1305::AeadInOut;
                let at = body.len().checked_sub(TAG_LEN).ok_or(Forged)?;
                let (text, tag) = body.split_at_mut(at);
                let tag: [u8; TAG_LEN] = tag.try_into().map_err(|_| Forged)?;
                key.decrypt_inout_detached(&nonce(counter).into(), aad, (&mut *text).into(), &tag.into()).map_err(|_| Forged)?;
                Ok(text)
            }
        }
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AeadKey")
    }
}

/// Splits a body to be sealed into plaintext and the tag's room.
fn split_tag(body: &mut [u8]) -> (&mut [u8], &mut [u8]) {
    let at = body.len().checked_sub(TAG_LEN).expect("the caller leaves room for the tag");
    body.split_at_mut(at)
}

/// A key of `suite` to time `provider` with; worthless for anything else. `None` where this build lacks the two.
pub fn sample_key(suite: Suite, provider: Provider) -> Option<AeadKey> {
    AeadKey::new(suite, provider, &[0x5a; KEY_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [usize; 12] = [0, 1, 15, 16, 17, 63, 64, 255, 256, 1390, 1424, 9000];

    /// Every library that computes `suite`, the independent one too.
    fn providers(suite: Suite) -> Vec<Provider> {
        let all = [Provider::AwsLc, Provider::Ring, Provider::Portable];
        all.into_iter().filter(|provider| sample_key(suite, *provider).is_some()).collect()
    }

    fn sealed(key: &AeadKey, counter: u32, aad: &[u8; AAD_LEN], text: &[u8]) -> Vec<u8> {
        let mut body = [text, &[0xee; TAG_LEN]].concat();
        key.seal_in_place(counter, aad, &mut body);
        body
    }

    #[test]
    fn a_build_has_the_libraries_it_says() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            assert!(Provider::of(suite).iter().all(|provider| providers(suite).contains(provider)));
            assert_eq!(!Provider::of(suite).is_empty(), Suite::available().contains(&suite));
            for provider in Provider::of(suite) {
                assert_eq!(Providers::default().with(suite, *provider).get(suite), *provider);
            }
        }
        assert_eq!(providers(Suite::Aes256Gcm).len(), usize::from(cfg!(feature = "aws-lc")) + usize::from(cfg!(feature = "ring")));
    }

    #[test]
    fn libraries_write_the_same_bytes_and_open_each_others() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            for (len, counter) in LENGTHS.into_iter().zip([0, 1, 0xffff, 7, u32::MAX].into_iter().cycle()) {
                let (key, aad) = ([len as u8; KEY_LEN], [counter as u8; AAD_LEN]);
                let text: Vec<u8> = (0..len).map(|i| i as u8).collect();
                let keys: Vec<_> = providers(suite).into_iter().map(|p| (p, AeadKey::new(suite, p, &key).expect("has it"))).collect();
                for ((by, seal), (other, open)) in keys.iter().flat_map(|seal| keys.iter().map(move |open| (seal, open))) {
                    let body = sealed(seal, counter, &aad, &text);
                    assert_eq!(body, sealed(open, counter, &aad, &text), "{suite} of {len} bytes by {by} and {other}");
                    assert_eq!(open.open_in_place(counter, &aad, &mut body.clone()).as_deref(), Ok(&text[..]));
                    for at in [0, len / 2, len, len + TAG_LEN - 1] {
                        let mut bent = body.clone();
                        bent[at] ^= 0x40;
                        assert_eq!(open.open_in_place(counter, &aad, &mut bent), Err(Forged), "{suite} by {by} and {other}, byte {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        for (suite, provider) in Suite::available().iter().flat_map(|suite| providers(*suite).into_iter().map(move |p| (*suite, p))) {
            let key = sample_key(suite, provider).expect("available");
            let sealed: [u8; 32] = sealed(&key, 9, &[1; AAD_LEN], b"sixteen and more").try_into().expect("and the tag");
            assert_eq!(key.open_in_place(9, &[1; AAD_LEN], &mut { sealed }).as_deref(), Ok(&b"sixteen and more"[..]));
            assert_eq!(key.open_in_place(8, &[1; AAD_LEN], &mut { sealed }), Err(Forged));
            assert_eq!(key.open_in_place(9, &[2; AAD_LEN], &mut { sealed }), Err(Forged));
            for at in 0..sealed.len() {
                let mut bent = sealed;
                bent[at] ^= 0x40;
                assert_eq!(key.open_in_place(9, &[1; AAD_LEN], &mut bent), Err(Forged), "byte {at}");
            }
            for short in 0..TAG_LEN {
                assert_eq!(key.open_in_place(9, &[1; AAD_LEN], &mut { sealed }[..short]), Err(Forged));
            }
        }
    }
}
