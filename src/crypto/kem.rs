//! ML-KEM-768 (FIPS 203) beside X25519: what is recorded today stays closed to a quantum computer of tomorrow.
//!
//! The initiator makes a key pair for one handshake and sends the encapsulation key with its first message; the responder's
//! answer carries the ciphertext. The secret goes into the root of the session beside Noise's own keys, so whoever wants
//! the session's keys must break both. Who the peer is still rests on X25519, Ed25519 and the password: a recording tells
//! nothing about those that could be used later.
//!
//! Keys and encapsulations are made by the `ml-kem` crate from randomness that is handed in, in every build: `aws-lc-rs` draws
//! from the operating system and cannot be told what to draw, which nothing below the top floor may do. A test holds the two
//! to each other.

use std::fmt;

use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::{B32, DecapsulationKey768, EncapsulationKey768, Seed};
use rand_core::Rng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of an encapsulation key.
pub const KEY_LEN: usize = 1184;
/// Bytes of a ciphertext.
pub const CIPHERTEXT_LEN: usize = 1088;

/// An encapsulation key as it travels.
pub type Key = Box<[u8; KEY_LEN]>;
/// A ciphertext as it travels.
pub type Ciphertext = Box<[u8; CIPHERTEXT_LEN]>;

/// What an encapsulation leaves both ends with; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The initiator's key pair for one handshake; wiped when dropped.
pub struct Decapsulator(Pair);

enum Pair {
    True(Box<DecapsulationKey768>),
    /// No secret at all: see [`simulate`].
    Simulated(Key),
}

impl Decapsulator {
    /// A key pair from fresh randomness.
    pub fn generate(rng: &mut dyn Rng) -> Decapsulator {
        let mut seed = Zeroizing::new(Seed::default());
        rng.fill_bytes(&mut seed);
        Decapsulator(Pair::True(Box::new(DecapsulationKey768::from_seed(*seed))))
    }

    /// A key for [`simulate`], from as much randomness.
    pub(super) fn simulate(rng: &mut dyn Rng) -> Decapsulator {
        let mut key = [0; KEY_LEN];
        rng.fill_bytes(&mut key[..64]);
        Decapsulator(Pair::Simulated(Box::new(key)))
    }

    /// The encapsulation key, for the other end.
    pub fn key(&self) -> Key {
        match &self.0 {
            Pair::True(pair) => Box::new(pair.encapsulation_key().to_bytes().into()),
            Pair::Simulated(key) => key.clone(),
        }
    }

    /// The secret in a ciphertext. One that was made for another key, or was changed, gives another secret (FIPS 203, section 6.3).
    pub fn open(&self, text: &Ciphertext) -> Secret {
        match &self.0 {
            Pair::True(pair) => {
                let shared = Zeroizing::new(pair.decapsulate(&(**text).into()));
                Secret(Zeroizing::new((*shared).into()))
            }
            Pair::Simulated(key) => in_common(key, text),
        }
    }
}

impl fmt::Debug for Decapsulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decapsulator")
    }
}

/// The randomness of one encapsulation; wiped when dropped.
pub struct Coins(Zeroizing<[u8; 32]>);

impl Coins {
    /// Fresh randomness.
    pub fn draw(rng: &mut dyn Rng) -> Coins {
        let mut coins = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *coins);
        Coins(coins)
    }
}

impl fmt::Debug for Coins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Coins")
    }
}

/// A secret for whoever made `key`, and the ciphertext that carries it there. `None` where the key is none (the check of
/// FIPS 203, section 7.2).
pub fn encapsulate(key: &Key, coins: &Coins) -> Option<(Ciphertext, Secret)> {
    let key = EncapsulationKey768::new(&(**key).into()).ok()?;
    let coins = Zeroizing::new(B32::from(*coins.0));
    let (text, shared) = key.encapsulate_deterministic(&coins);
    let shared = Zeroizing::new(shared);
    Some((Box::new(text.into()), Secret(Zeroizing::new((*shared).into()))))
}

/// In place of [`encapsulate`] where nothing is to be kept from anybody: the secret is the hash of what travels.
pub(super) fn simulate(key: &Key, coins: &Coins) -> (Ciphertext, Secret) {
    let mut text = [0; CIPHERTEXT_LEN];
    text[..32].copy_from_slice(&*coins.0);
    let text = Box::new(text);
    let secret = in_common(key, &text);
    (text, secret)
}

fn in_common(key: &Key, text: &Ciphertext) -> Secret {
    Secret(Zeroizing::new(Sha256::new().chain_update(**key).chain_update(**text).finalize().into()))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn rng(seed: u8) -> ChaCha12Rng {
        ChaCha12Rng::from_seed([seed; 32])
    }

    #[test]
    fn both_ends_come_to_one_secret_and_nobody_else_does() {
        let (ours, others) = (Decapsulator::generate(&mut rng(1)), Decapsulator::generate(&mut rng(2)));
        let (mut text, secret) = encapsulate(&ours.key(), &Coins::draw(&mut rng(3))).expect("a true key");
        assert_eq!(ours.open(&text), secret);
        assert_ne!(others.open(&text), secret);
        assert_ne!(encapsulate(&ours.key(), &Coins::draw(&mut rng(4))).expect("a true key").1, secret);
        text[7] ^= 1;
        assert_ne!(ours.open(&text), secret);
    }

    #[test]
    fn a_key_with_numbers_that_are_not_reduced_is_none() {
        let mut key = Decapsulator::generate(&mut rng(1)).key();
        key[..3].copy_from_slice(&[0xff; 3]);
        assert!(encapsulate(&key, &Coins::draw(&mut rng(3))).is_none());
    }

    /// The one from `ml-kem` against AWS-LC's, which is certified: each opens what the other sealed.
    #[cfg(feature = "aws-lc")]
    #[test]
    fn agrees_with_aws_lc() {
        use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
        let ours = Decapsulator::generate(&mut rng(1));
        let (text, secret) = EncapsulationKey::new(&ML_KEM_768, &*ours.key()).expect("a key").encapsulate().expect("encapsulated");
        let text: super::Ciphertext = Box::<[u8]>::from(text.as_ref()).try_into().expect("as long as one");
        assert_eq!(ours.open(&text).as_bytes(), secret.as_ref());

        let theirs = DecapsulationKey::generate(&ML_KEM_768).expect("a key pair");
        let key = theirs.encapsulation_key().expect("a key").key_bytes().expect("bytes");
        let key: Key = Box::<[u8]>::from(key.as_ref()).try_into().expect("as long as one");
        let (text, secret) = encapsulate(&key, &Coins::draw(&mut rng(3))).expect("a true key");
        let opened = theirs.decapsulate(Ciphertext::from(&text[..])).expect("decapsulated");
        assert_eq!(secret.as_bytes(), opened.as_ref());
    }
}
