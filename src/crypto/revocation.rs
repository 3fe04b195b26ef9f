//! What an administrator signs to put a member out of the mesh.
//!
//! An admin key is an Ed25519 key made from a seed as a router's is ([`super::identity`]), and is no member itself. It signs, in a domain of its
//! own, the hash of the network's name and the key that is revoked: no time and no number, so saying it twice is saying it
//! once, and in any order. A key that was revoked stays so; a host that may come back makes a new one.

use sha2::{Digest, Sha256};

use super::identity::{Identity, PublicKey, Signatures};

/// The domain of these signatures.
const DOMAIN: &str = "weave-router revocation v1";

/// A key that is put out of the mesh, and an administrator's word for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revocation {
    /// The member's key.
    pub key: PublicKey,
    /// The signature.
    pub signature: [u8; 64],
}

impl Revocation {
    /// Bytes of the wire form: key, signature.
    pub const LEN: usize = 96;

    /// Puts `key` out of `network`.
    pub fn sign(signatures: &dyn Signatures, admin: &Identity, network: &str, key: PublicKey) -> Revocation {
        Revocation { key, signature: signatures.sign(admin, DOMAIN, &message(network, &key)) }
    }

    /// True if one of these administrators signed it for this network.
    pub fn verify(&self, signatures: &dyn Signatures, admins: &[PublicKey], network: &str) -> bool {
        let message = message(network, &self.key);
        admins.iter().any(|admin| signatures.verify(admin, DOMAIN, &message, &self.signature))
    }

    /// The wire form.
    pub fn to_bytes(&self) -> [u8; Revocation::LEN] {
        let mut bytes = [0; Revocation::LEN];
        bytes[..32].copy_from_slice(&self.key.0);
        bytes[32..].copy_from_slice(&self.signature);
        bytes
    }

    /// The wire form of several, one after the other; what follows the last whole one is passed over.
    pub fn read_all(bytes: &[u8]) -> impl Iterator<Item = Revocation> {
        let (all, _) = bytes.as_chunks::<{ Revocation::LEN }>();
        all.iter().filter_map(|bytes| {
            let (key, signature) = bytes.split_first_chunk::<32>()?;
            Some(Revocation { key: PublicKey(*key), signature: signature.try_into().ok()? })
        })
    }
}

/// Bytes as hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// So many bytes from hexadecimal digits; `None` where the text is anything else.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().ok().filter(|_| rest.is_empty())
}

fn message(network: &str, key: &PublicKey) -> Vec<u8> {
    [&Sha256::digest(network.as_bytes())[..], &key.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Ed25519;

    #[test]
    fn only_the_administrators_word_counts_in_its_network_and_for_its_key() {
        let (admin, other) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let admins = [other.public().key, admin.public().key];
        let revocation = Revocation::sign(&Ed25519, &admin, "weave", PublicKey([7; 32]));
        assert!(revocation.verify(&Ed25519, &admins, "weave"));
        assert!(!revocation.verify(&Ed25519, &admins, "other") && !revocation.verify(&Ed25519, &admins[..1], "weave"));
        assert!(!Revocation { key: PublicKey([8; 32]), ..revocation }.verify(&Ed25519, &admins, "weave"));
        assert!(!revocation.verify(&Ed25519, &[], "weave"));
        let bytes = [&revocation.to_bytes()[..], &revocation.to_bytes(), b"rest"].concat();
        assert_eq!(Revocation::read_all(&bytes).collect::<Vec<_>>(), [revocation; 2]);
    }

    #[test]
    fn hexadecimal_there_and_back() {
        assert_eq!(from_hex(&to_hex(&[0x0f, 0xa5])), Some([0x0f, 0xa5]));
        assert_eq!(from_hex("A5"), Some([0xa5]));
        for bad in ["", "a", "a5a", "a5a5a5", "g5a5", "+5a5"] {
            assert_eq!(from_hex::<2>(bad), None, "{bad}");
        }
    }

    #[test]
    fn golden_revocation() {
        let revocation = Revocation::sign(&Ed25519, &Identity::from_seed(&[1; 32]), "weave", PublicKey([7; 32]));
        let hex: String = revocation.to_bytes()[32..48].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "2de6f8661c513c413e98c1ee02305fa2");
    }
}
