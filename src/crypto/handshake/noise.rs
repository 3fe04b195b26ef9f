//! Noise by `snow`, with X25519 by `x25519-dalek` and randomness that is an argument.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::arithmetic::{Arithmetic, SimulatedDh};
use super::{HandshakeError, Local, Pattern};

/// What the prologue starts with; the network's name follows.
const PROLOGUE_LABEL: &[u8] = b"weave-router handshake v1 ";

/// The randomness of one handshake at one end. Kept, it lets the responder build its state anew.
#[derive(Clone)]
pub(super) struct Seed(Zeroizing<[u8; 32]>);

impl Seed {
    pub(super) fn draw(rng: &mut dyn Rng) -> Seed {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        Seed(seed)
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed")
    }
}

impl Pattern {
    fn name(self) -> &'static str {
        match self {
            Pattern::Xx => "Noise_XXpsk3_25519_ChaChaPoly_SHA256",
            Pattern::Ik => "Noise_IKpsk2_25519_ChaChaPoly_SHA256",
        }
    }

    /// Where snow wants the pattern's pre-shared key.
    pub(super) fn psk_position(self) -> usize {
        match self {
            Pattern::Xx => 3,
            Pattern::Ik => 2,
        }
    }
}

/// The state of an initiator; `remote` is the responder's static key where the pattern needs it.
pub(super) fn initiator(local: &Local, pattern: Pattern, remote: Option<&[u8; 32]>, seed: &Seed) -> Result<HandshakeState, HandshakeError> {
    build(local, pattern, remote, seed, |builder| builder.build_initiator())
}

/// The state of a responder.
pub(super) fn responder(local: &Local, pattern: Pattern, seed: &Seed) -> Result<HandshakeState, HandshakeError> {
    build(local, pattern, None, seed, |builder| builder.build_responder())
}

fn build(
    local: &Local,
    pattern: Pattern,
    remote: Option<&[u8; 32]>,
    seed: &Seed,
    finish: impl FnOnce(Builder<'_>) -> Result<HandshakeState, snow::Error>,
) -> Result<HandshakeState, HandshakeError> {
    let params = pattern.name().parse().expect("the names of our patterns are well formed");
    let prologue = [PROLOGUE_LABEL, local.network.as_bytes()].concat();
    let resolver = Resolver { seed: seed.clone(), own: local.identity.public().noise, arithmetic: local.arithmetic };
    let mut builder =
        Builder::with_resolver(params, Box::new(resolver)).local_private_key(local.identity.noise_secret())?.prologue(&prologue)?;
    if let Some(remote) = remote {
        builder = builder.remote_public_key(remote)?;
    }
    Ok(finish(builder)?)
}

/// Our generator and X25519; cipher and hash are snow's own.
struct Resolver {
    seed: Seed,
    /// The public half of this router's static key: known, so it need not be computed for each handshake.
    own: [u8; 32],
    arithmetic: Arithmetic,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Generator(ChaCha20Rng::from_seed(*self.seed.0))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| match self.arithmetic {
            Arithmetic::True => Box::new(X25519::none_yet(self.own)) as Box<dyn Dh>,
            Arithmetic::Simulated => Box::new(SimulatedDh::none_yet(self.own)),
        })
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct Generator(ChaCha20Rng);

impl Random for Generator {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

/// X25519 (RFC 7748); the private key is wiped when dropped.
struct X25519 {
    secret: StaticSecret,
    public: [u8; 32],
    /// The public half of the only key that is ever set and not generated.
    own: [u8; 32],
}

impl X25519 {
    /// Without a key until one is set or generated.
    fn none_yet(own: [u8; 32]) -> X25519 {
        X25519 { secret: StaticSecret::from([0; 32]), public: [0; 32], own }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        self.secret = StaticSecret::from(*privkey.first_chunk::<32>().expect("a private key has 32 bytes"));
        self.public = self.own;
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *secret)?;
        self.secret = StaticSecret::from(*secret);
        self.public = PublicKey::from(&self.secret).to_bytes();
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        // snow hands over buffers sized for its largest curve.
        let their: [u8; 32] = *pubkey.first_chunk().ok_or(snow::Error::Dh)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(their));
        // Noise leaves it open (section 12.1); refusing points of small order costs nothing.
        if !shared.was_contributory() {
            return Err(snow::Error::Dh);
        }
        *out.first_chunk_mut().ok_or(snow::Error::Dh)? = shared.to_bytes();
        Ok(())
    }
}
