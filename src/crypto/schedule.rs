//! From the handshake's secrets to the keys of the lanes (HKDF-SHA256, RFC 5869). The map is in [`crate::crypto`].

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::aead::KEY_LEN;
use super::suite::Suite;

/// What the key of a lane is expanded with, before suite, lane, direction and network.
const LANE_LABEL: &[u8] = b"weave-router lane v1";

/// Which way a key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From the end that sent the first handshake message.
    FromInitiator = 0,
    /// From the end that answered it.
    FromResponder = 1,
}

/// The secret that all keys of one session come from; wiped when dropped.
pub struct Root(Zeroizing<[u8; 32]>);

impl Root {
    /// The root of a finished Noise handshake: both keys of its split, its hash, and the secret of a key encapsulation
    /// where one took part.
    pub fn derive(split: &([u8; 32], [u8; 32]), handshake_hash: &[u8], kem: Option<&[u8; 32]>) -> Root {
        let mut secrets = Zeroizing::new([0; 96]);
        secrets[..32].copy_from_slice(&split.0);
        secrets[32..64].copy_from_slice(&split.1);
        // Without an encapsulation the input ends here, so a zero secret is another root than none.
        let len = kem.map_or(64, |kem| {
            secrets[64..].copy_from_slice(kem);
            96
        });
        let (root, _) = Hkdf::<Sha256>::extract(Some(handshake_hash), &secrets[..len]);
        Root(Zeroizing::new(root.into()))
    }

    /// A root secret that is known already, for tests and benches.
    pub fn from_bytes(bytes: [u8; 32]) -> Root {
        Root(Zeroizing::new(bytes))
    }

    /// The key of one lane in one direction.
    pub fn lane_key(&self, suite: Suite, lane: u8, direction: Direction, network: &str) -> Zeroizing<[u8; KEY_LEN]> {
        let keys = Hkdf::<Sha256>::from_prk(&*self.0).expect("a root is as long as a hash");
        let mut key = Zeroizing::new([0; KEY_LEN]);
        keys.expand_multi_info(&[LANE_LABEL, &[suite as u8, lane, direction as u8], network.as_bytes()], &mut *key)
            .expect("32 bytes are less than 255 hashes");
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_matters() {
        let split = ([1; 32], [2; 32]);
        let root = |split, hash: &[u8], kem| *Root::derive(split, hash, kem).0;
        let base = root(&split, &[3; 32], None);
        assert_ne!(root(&([2; 32], [1; 32]), &[3; 32], None), base);
        assert_ne!(root(&split, &[4; 32], None), base);
        assert_ne!(root(&split, &[3; 32], Some(&[0; 32])), base);
        assert_ne!(root(&split, &[3; 32], Some(&[0; 32])), root(&split, &[3; 32], Some(&[1; 32])));
    }

    #[test]
    fn no_two_lanes_share_a_key() {
        let root = Root::from_bytes([9; 32]);
        let mut keys = std::collections::BTreeSet::new();
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            for lane in 0..=15 {
                for direction in [Direction::FromInitiator, Direction::FromResponder] {
                    for network in ["weave", "other"] {
                        assert!(keys.insert(*root.lane_key(suite, lane, direction, network)));
                    }
                }
            }
        }
    }
}
