//! Who a router is: one seed, two key pairs, a name.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::wire::PeerName;

/// What a seed is extracted with.
const SEED_SALT: &[u8] = b"weave-router identity v1";
/// What a name is hashed with.
const NAME_LABEL: &[u8] = b"weave-router name v1";
/// The domain in which a handshake key is certified.
const CERTIFICATE_DOMAIN: &str = "weave-router handshake key v1";

/// A router's Ed25519 public key: what decides who a router is. Printed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The 48-bit name of the router with this key.
    pub fn name(&self) -> PeerName {
        PeerName::from_hash(&Sha256::new().chain_update(NAME_LABEL).chain_update(self.0).finalize().into())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a router's public key: it takes 64 hexadecimal digits, as `weave-router show-key` prints them")]
pub struct BadKey(String);

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<PublicKey, BadKey> {
        let bad = || BadKey(text.into());
        let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>().ok_or_else(bad)?;
        let (pairs, rest) = digits.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(bad());
        }
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        bytes.try_into().map(PublicKey).map_err(|_| bad())
    }
}

/// What everybody may know of a router: its key, and the handshake key that it certifies.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicIdentity {
    /// The Ed25519 key that is the router.
    pub key: PublicKey,
    /// The X25519 key that proves it in a handshake.
    pub noise: [u8; 32],
    /// Ed25519 signature over `noise`.
    pub certificate: [u8; 64],
}

impl PublicIdentity {
    /// Bytes of the wire form: key, handshake key, certificate.
    pub const LEN: usize = 128;

    /// The router's name.
    pub fn name(&self) -> PeerName {
        self.key.name()
    }

    /// True if the certificate is the key's over the handshake key. Nothing may be concluded from an identity without it.
    pub fn verify(&self) -> bool {
        Ed25519.verify(&self.key, CERTIFICATE_DOMAIN, &self.noise, &self.certificate)
    }

    /// The wire form.
    pub fn to_bytes(&self) -> [u8; PublicIdentity::LEN] {
        let mut bytes = [0; PublicIdentity::LEN];
        bytes[..32].copy_from_slice(&self.key.0);
        bytes[32..64].copy_from_slice(&self.noise);
        bytes[64..].copy_from_slice(&self.certificate);
        bytes
    }

    /// Reads the wire form; the certificate is not verified. `None` if it has another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<PublicIdentity> {
        let (key, rest) = bytes.split_first_chunk::<32>()?;
        let (noise, certificate) = rest.split_first_chunk::<32>()?;
        Some(PublicIdentity { key: PublicKey(*key), noise: *noise, certificate: certificate.try_into().ok()? })
    }
}

impl fmt::Debug for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicIdentity({} = {})", self.name(), self.key)
    }
}

/// A router's own keys. Both pairs come from one seed but know nothing of each other: a weakness of one use does not
/// reach the other.
pub struct Identity {
    signing: SigningKey,
    noise: x25519_dalek::StaticSecret,
    public: PublicIdentity,
}

impl Identity {
    /// The identity of a 32-byte seed. The caller wipes its own copy.
    pub fn from_seed(seed: &[u8; 32]) -> Identity {
        let keys = Hkdf::<Sha256>::new(Some(SEED_SALT), seed);
        let expand = |info: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            keys.expand(info, &mut *key).expect("32 bytes are less than 255 hashes");
            key
        };
        let signing = SigningKey::from_bytes(&expand(b"ed25519"));
        let noise = x25519_dalek::StaticSecret::from(*expand(b"x25519"));
        let noise_public = x25519_dalek::PublicKey::from(&noise).to_bytes();
        let certificate = sign(&signing, CERTIFICATE_DOMAIN, &noise_public);
        let public = PublicIdentity { key: PublicKey(signing.verifying_key().to_bytes()), noise: noise_public, certificate };
        Identity { signing, noise, public }
    }

    /// What others may know.
    pub fn public(&self) -> &PublicIdentity {
        &self.public
    }

    /// The router's name.
    pub fn name(&self) -> PeerName {
        self.public.name()
    }

    /// The X25519 private key, for the handshake.
    pub(super) fn noise_secret(&self) -> &[u8; 32] {
        self.noise.as_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.public)
    }
}

/// How records are signed: by Ed25519, or by something cheap where a thousand routers run in one test.
pub trait Signatures: Send + Sync {
    /// Signs `message` as `identity`. A signature of one `domain` says nothing in another.
    fn sign(&self, identity: &Identity, domain: &str, message: &[u8]) -> [u8; 64];
    /// True if `signature` is that of `key` over `message` in `domain`.
    fn verify(&self, key: &PublicKey, domain: &str, message: &[u8], signature: &[u8; 64]) -> bool;
}

/// Ed25519 (RFC 8032), with strict verification: no weak keys, no second form of a signature.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ed25519;

impl Signatures for Ed25519 {
    fn sign(&self, identity: &Identity, domain: &str, message: &[u8]) -> [u8; 64] {
        sign(&identity.signing, domain, message)
    }

    fn verify(&self, key: &PublicKey, domain: &str, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&key.0)
            .is_ok_and(|key| key.verify_strict(&in_domain(domain, message), &Signature::from_bytes(signature)).is_ok())
    }
}

/// Signatures that cost one hash and that **anybody can forge**: a hash keyed by the *public* key. They tell a record
/// that was changed from one that was not, which is all a simulation of honest routers needs. Never use them outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimulatedSignatures;

impl SimulatedSignatures {
    fn tag(key: &PublicKey, domain: &str, message: &[u8]) -> [u8; 64] {
        let hash: [u8; 32] = Sha256::new().chain_update(key.0).chain_update(in_domain(domain, message)).finalize().into();
        let mut tag = [0; 64];
        tag[..32].copy_from_slice(&hash);
        tag
    }
}

impl Signatures for SimulatedSignatures {
    fn sign(&self, identity: &Identity, domain: &str, message: &[u8]) -> [u8; 64] {
        SimulatedSignatures::tag(&identity.public.key, domain, message)
    }

    fn verify(&self, key: &PublicKey, domain: &str, message: &[u8], signature: &[u8; 64]) -> bool {
        SimulatedSignatures::tag(key, domain, message) == *signature
    }
}

fn sign(key: &SigningKey, domain: &str, message: &[u8]) -> [u8; 64] {
    key.sign(&in_domain(domain, message)).to_bytes()
}

/// What is signed: length of the domain, domain, message; the length keeps two domains from meaning the same bytes.
fn in_domain(domain: &str, message: &[u8]) -> Vec<u8> {
    let len = u8::try_from(domain.len()).expect("domains are short constants");
    let mut bytes = Vec::with_capacity(1 + domain.len() + message.len());
    bytes.push(len);
    bytes.extend_from_slice(domain.as_bytes());
    bytes.extend_from_slice(message);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_an_identity() {
        let identity = Identity::from_seed(&[1; 32]);
        assert_eq!(identity.public(), Identity::from_seed(&[1; 32]).public());
        assert_ne!(identity.public().key, Identity::from_seed(&[2; 32]).public().key);
        // Golden: a host keeps its name and key over upgrades.
        assert_eq!(identity.name().to_string(), "3e:72:5f:49:7f:d6");
        assert_eq!(identity.public().key.to_string(), "78bb982abc7d564674b8115f36345a4c53289801269c321d3aa71087198ce5d3");
        assert_eq!(PublicIdentity::from_bytes(&identity.public().to_bytes()).as_ref(), Some(identity.public()));
        assert_eq!(PublicIdentity::from_bytes(&[0; 127]), None);
        assert_eq!(PublicIdentity::from_bytes(&[0; 129]), None);
    }

    #[test]
    fn certificates_bind_the_handshake_key() {
        let good = *Identity::from_seed(&[1; 32]).public();
        assert!(good.verify());
        let other = *Identity::from_seed(&[2; 32]).public();
        assert!(!PublicIdentity { noise: other.noise, ..good }.verify());
        assert!(!PublicIdentity { key: other.key, ..good }.verify());
        assert!(!PublicIdentity { key: PublicKey([0; 32]), ..good }.verify());
    }

    #[test]
    fn signatures_hold_in_their_domain_only() {
        let identity = Identity::from_seed(&[1; 32]);
        let key = identity.public().key;
        for signatures in [&Ed25519 as &dyn Signatures, &SimulatedSignatures] {
            let signature = signatures.sign(&identity, "record", b"message");
            assert!(signatures.verify(&key, "record", b"message", &signature));
            assert!(!signatures.verify(&key, "record", b"massage", &signature));
            assert!(!signatures.verify(&key, "recor", b"dmessage", &signature));
            assert!(!signatures.verify(&PublicKey([7; 32]), "record", b"message", &signature));
            let mut bent = signature;
            bent[3] ^= 1;
            assert!(!signatures.verify(&key, "record", b"message", &bent));
        }
    }

    #[test]
    fn keys_are_hexadecimal() {
        let key = PublicKey([0xa5; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("A5".repeat(32).parse(), Ok(key));
        for bad in ["", "a5", &"a5".repeat(33), &"a5".repeat(31), &"g5".repeat(32), &"+5".repeat(32), &"ä".repeat(32), &"a".repeat(63)] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
    }
}
