//! What takes time in a handshake: the two key exchanges and the signature under a certificate. A simulation of a thousand routers does
//! without, as it does without real signatures of records ([`SimulatedSignatures`](crate::crypto::SimulatedSignatures)).

use rand_core::Rng;
use sha2::{Digest, Sha256};
use snow::types::{Dh, Random};

use crate::crypto::PublicIdentity;
use crate::crypto::kem::{self, Coins, Decapsulator, Secret};

/// How keys are agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// X25519, ML-KEM-768 and Ed25519.
    True,
    /// Hashes of the *public* keys, which **anybody can compute**, and certificates that nobody looks at: messages of the same length, made with
    /// as many random numbers. Both ends must do so. It is what a simulation of honest routers needs; never use it outside.
    Simulated,
}

impl Arithmetic {
    /// Whether an identity's certificate is its key's.
    pub(super) fn certifies(self, identity: &PublicIdentity) -> bool {
        match self {
            Arithmetic::True => identity.verify(),
            Arithmetic::Simulated => true,
        }
    }

    /// A key pair for one post-quantum exchange.
    pub(super) fn decapsulator(self, rng: &mut dyn Rng) -> Decapsulator {
        match self {
            Arithmetic::True => Decapsulator::generate(rng),
            Arithmetic::Simulated => Decapsulator::simulate(rng),
        }
    }

    /// A secret for whoever made `key`, and what carries it there; `None` where the key is none.
    pub(super) fn encapsulate(self, key: &kem::Key, coins: &Coins) -> Option<(kem::Ciphertext, Secret)> {
        match self {
            Arithmetic::True => kem::encapsulate(key, coins),
            Arithmetic::Simulated => Some(kem::simulate(key, coins)),
        }
    }
}

/// In place of X25519: what two keys have in common is the hash of both public halves.
pub(super) struct SimulatedDh {
    key: [u8; 32],
    /// The public half of the only key that is ever set and not generated.
    own: [u8; 32],
}

impl SimulatedDh {
    /// Without a key until one is set or generated.
    pub(super) fn none_yet(own: [u8; 32]) -> SimulatedDh {
        SimulatedDh { key: [0; 32], own }
    }
}

impl Dh for SimulatedDh {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, _privkey: &[u8]) {
        self.key = self.own;
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        rng.try_fill_bytes(&mut self.key)
    }

    fn pubkey(&self) -> &[u8] {
        &self.key
    }

    fn privkey(&self) -> &[u8] {
        &self.key
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let their: [u8; 32] = *pubkey.first_chunk().ok_or(snow::Error::Dh)?;
        let (low, high) = if their < self.key { (their, self.key) } else { (self.key, their) };
        *out.first_chunk_mut().ok_or(snow::Error::Dh)? = Sha256::new().chain_update(low).chain_update(high).finalize().into();
        Ok(())
    }
}
