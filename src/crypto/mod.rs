//! Identity, handshake, key schedule and sealed sessions. This page is the key schedule: who derives what from what.
//!
//! # Identity ([`identity`])
//!
//! ```text
//!  seed, 32 random bytes in the state directory
//!   └ HKDF-SHA256, salt "weave-router identity v1"
//!      ├ info "ed25519"  → signing key  → PublicKey → name = first 48 bits of SHA-256("weave-router name v1" ‖ key)
//!      └ info "x25519"   → static key of the handshake
//!  certificate = Ed25519 signature by the signing key, domain "weave-router handshake key v1", over the X25519 public key
//! ```
//!
//! What is signed is always `length of domain ‖ domain ‖ message`, so that a signature of one use is none of another. HKDF
//! is RFC 5869, Ed25519 is RFC 8032 with strict verification (small-order keys and second encodings are refused).
//! Full keys decide everywhere; the name is a locator.
//!
//! # Passwords ([`psk`])
//!
//! ```text
//!  psk = Argon2id(password, salt SHA-256("weave-router password salt v1" ‖ network), 19 MiB, 2 passes, 1 lane)
//!  psk = SHA-256("weave-router no password v1" ‖ network)          where there is no password: known to everybody
//! ```
//!
//! Up to four may be in use. An XX responder tries all of them on the third message. An IK first message carries, sealed
//! to the responder's static key, the first 16 bits of HMAC-SHA256(psk, "weave-router psk hint v1" ‖ initiator's key ‖
//! stamp). Nothing keyed by a password is ever sent in clear. What remains, as with every handshake without a
//! password-authenticated key exchange: whoever *actively* poses as an XX responder gets a third message to test guesses
//! on, and whoever sends first messages of IK until one has the right hint, one in 2^16, gets an answer; at Argon2id's price
//! for each guess.
//!
//! # Handshake ([`handshake`])
//!
//! Noise (revision 34 of its specification) as `Noise_XXpsk3_25519_ChaChaPoly_SHA256` on first contact and
//! `Noise_IKpsk2_25519_ChaChaPoly_SHA256` with a peer whose key is known (section 7.5 for the patterns, 9 for the psk
//! modifiers). The prologue (section 6) is "weave-router handshake v1 " ‖ network, so two networks on one wire cannot
//! even read each other's first message. Payloads are TLVs; the identity in them must certify the static key that Noise
//! proved. All randomness comes from the generator that the caller passes in, through our own `snow` resolver.
//!
//! ML-KEM-768 (FIPS 203, [`kem`]) runs beside it. The encapsulation key rides in the payload of the first message, readable by
//! everybody in XX and sealed in IK; the ciphertext rides in the sealed payload of the second. Both are part of the transcript that Noise
//! authenticates, so an attacker who takes the key out makes the answer unreadable. A router says in its sealed payloads
//! that it can do this; a handshake without it between two that can is refused at both ends, whatever was lost on the way.
//!
//! A first message of IK can be replayed (section 7.7), hence the [`Stamp`] in it, which must increase; answers cannot be.
//! An IK responder must not seal before it has opened a datagram: until then the initiator may be a replay.
//!
//! # Sessions ([`schedule`], [`session`])
//!
//! ```text
//!  root = HKDF-Extract(salt = handshake hash (section 11.2), k1 ‖ k2 ‖ KEM secret)
//!         k1, k2: both outputs of Noise's Split(); the KEM secret is that of ML-KEM-768, or absent in a classic handshake
//!  key of a lane in one direction = HKDF-Expand(root, "weave-router lane v1" ‖ suite ‖ lane ‖ direction ‖ network)
//!         suite 1 = AES-256-GCM, 2 = ChaCha20-Poly1305; direction 0 = from the initiator, 1 = from the responder
//!  nonce = 8 zero bytes ‖ counter, 32 bits, big endian
//!  associated data = the 16-byte clear header with a hop limit of zero
//! ```
//!
//! A lane's keys, counter and window are made once, with the session, and only referred to after that; so one counter is
//! never used twice with one key, which is all that AES-GCM (NIST SP 800-38D, section 8.2.1: a deterministic nonce from
//! an invocation counter) and ChaCha20-Poly1305 (RFC 8439, section 2.8) ask for. Keys stop at 2^32 − 2^13 datagrams, far
//! below GCM's bound; sessions are replaced much earlier. The replay window ([`window`]) is RFC 6479's idea made safe for
//! many receivers: 8192 counters per lane, checked before opening, marked after.
//!
//! Secrets are wiped when dropped, where the libraries allow it: `snow` keeps its chaining key and pre-shared keys in
//! plain arrays for as long as a handshake lasts.

pub mod aead;
pub mod fuzz;
pub mod handshake;
pub mod identity;
pub mod kem;
pub mod psk;
pub mod retry;
pub mod revocation;
pub mod schedule;
pub mod session;
pub mod suite;
pub mod window;

pub use aead::{Provider, Providers};
pub use handshake::{
    Answer, Arithmetic, Classic, Established, Exchange, HandshakeError, Initiator, Local, Next, Offer, Pattern, Question, Responder, Stamp,
    Start,
};
pub use identity::{Ed25519, Identity, PublicIdentity, PublicKey, Signatures, SimulatedSignatures};
pub use psk::{Psk, PskError, Psks};
pub use revocation::Revocation;
pub use schedule::Root;
pub use session::{OpenError, Session, Terms};
pub use suite::{Suite, SuiteTiming};
