//! The handshake: Noise XXpsk3 on first contact, IKpsk2 with a peer whose key is known. Sans-IO.
//!
//! ```text
//!  XXpsk3  1 →  e, padding, versions              anybody may read it
//!          2 ←  e, ee, s, es; identity, offer     to whoever sent 1
//!          3 →  s, se, psk; identity, offer       proves the password to the responder
//!  IKpsk2  1 →  e, es, s, ss; identity, offer, which password
//!          2 ←  e, ee, se, psk; offer             proves the password to the initiator
//! ```
//!
//! A hybrid handshake, which is the usual one, carries an ML-KEM key in the payload of 1 and the answer to it in that of 2
//! ([`kem`]): [`FIRST_HYBRID_LEN`] bytes instead of [`FIRST_MESSAGE_LEN`], which take two datagrams. A classic one
//! goes without. Whether a classic one will do is for each end to say ([`Classic`]). Nobody on the way can make a classic one out of a hybrid
//! one, as Noise authenticates the payloads; and who only pretends to be old is found out by the feature bit in its sealed payload.
//!
//! An XX initiator has its session before it knows whether the responder shares the password: the keys depend on it, so
//! nothing is given away, and [`Session::is_confirmed`] stays false until a datagram from the responder opens.

mod arithmetic;
mod error;
mod exchange;
mod noise;
mod payload;

use std::sync::Arc;

use rand_core::Rng;
use snow::HandshakeState;

pub use arithmetic::Arithmetic;
pub use error::HandshakeError;
use exchange::check_exchange;
pub use exchange::{Classic, Exchange};
use noise::Seed;
use payload::Payload;
pub(super) use payload::parse_for_fuzzing;
pub use payload::{HYBRID, MAX_NICKNAME, Offer, Stamp};

use super::aead::Providers;
use super::identity::{Identity, PublicIdentity};
use super::kem::{self, Coins, Decapsulator, Secret};
use super::psk::{Psk, Psks};
use super::schedule::Root;
use super::session::{Session, Terms};

/// First messages are padded to this: as long as the longest answer, so that an address that somebody else gave as his
/// own never gets more bytes from us than were sent in its name.
pub const FIRST_MESSAGE_LEN: usize = 400;
/// The same for hybrid ones, whose own content is longer than their answer's.
pub const FIRST_HYBRID_LEN: usize = 1600;
/// Bytes that Noise adds to the payload of an XX first message: ephemeral key and tag.
const XX_ONE_OVERHEAD: usize = 32 + 16;
/// Bytes that Noise adds to the payload of an IK first message: ephemeral key, sealed static key, tag.
const IK_ONE_OVERHEAD: usize = 32 + 48 + 16;
/// The most that Noise adds to the payload of any message.
const MAX_OVERHEAD: usize = 32 + 48 + 16;

/// Which handshake: of strangers, or with a known key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// XXpsk3: three messages, for first contact.
    Xx,
    /// IKpsk2: two messages, where the initiator knows the responder's key.
    Ik,
}

/// What this router brings to every handshake.
#[derive(Clone, Debug)]
pub struct Local {
    /// Our keys.
    pub identity: Arc<Identity>,
    /// The network's name.
    pub network: String,
    /// The passwords in use, newest first.
    pub psks: Psks,
    /// What we can do and want; its [`HYBRID`] bit follows from `classic`.
    pub offer: Offer,
    /// Whether a classic handshake will do.
    pub classic: Classic,
    /// Which library computes each suite here.
    pub providers: Providers,
    /// How keys are agreed on.
    pub arithmetic: Arithmetic,
}

/// A handshake that is over: who the peer is, and the session with it.
#[derive(Debug)]
pub struct Established {
    /// The session, to be shared once its time is set.
    pub session: Session,
    /// The peer, its certificate verified.
    pub peer: PublicIdentity,
    /// The peer's stamp; an initiator's must be newer than any before.
    pub stamp: Stamp,
    /// What the peer offered.
    pub offer: Offer,
    /// The protocol version agreed on.
    pub version: u8,
    /// True if a password took part: without one, anybody could have done this handshake.
    pub authenticated: bool,
    /// Which of our passwords it was.
    pub psk_index: usize,
}

/// The initiator's side, waiting for the answer.
#[derive(Debug)]
pub struct Initiator {
    noise: HandshakeState,
    pattern: Pattern,
    peer: Option<PublicIdentity>,
    psk_index: usize,
    stamp: Stamp,
    local_index: u32,
    kem: Option<Decapsulator>,
}

/// How an initiator starts.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Which of our passwords to use.
    pub psk_index: usize,
    /// When this is, in the order of our handshakes.
    pub stamp: Stamp,
    /// What to be called in answers, 1 to 2^24 − 1.
    pub local_index: u32,
    /// What the keys are to rest on.
    pub exchange: Exchange,
}

impl Initiator {
    /// Starts a handshake with a stranger; returns the first message too.
    pub fn start_xx(local: &Local, start: Start, rng: &mut dyn Rng) -> Result<(Initiator, Vec<u8>), HandshakeError> {
        let Start { psk_index, stamp, local_index, exchange } = start;
        let psk = own_psk(local, psk_index)?;
        let mut noise = noise::initiator(local, Pattern::Xx, None, &Seed::draw(rng))?;
        noise.set_psk(Pattern::Xx.psk_position(), psk.key())?;
        let kem = (exchange == Exchange::Hybrid).then(|| local.arithmetic.decapsulator(rng));
        let versions = Some((local.offer.version_min, local.offer.version_max));
        let payload = Payload { versions, kem_key: kem.as_ref().map(Decapsulator::key), ..Payload::default() };
        let message = write(&mut noise, &payload, exchange.first_len() - XX_ONE_OVERHEAD)?;
        Ok((Initiator { noise, pattern: Pattern::Xx, peer: None, psk_index, stamp, local_index, kem }, message))
    }

    /// Starts a handshake with a peer whose identity is known; returns the first message too.
    pub fn start_ik(local: &Local, peer: &PublicIdentity, start: Start, rng: &mut dyn Rng) -> Result<(Initiator, Vec<u8>), HandshakeError> {
        let Start { psk_index, stamp, local_index, exchange } = start;
        let psk = own_psk(local, psk_index)?;
        check_identity(local, peer, &peer.noise)?;
        let mut noise = noise::initiator(local, Pattern::Ik, Some(&peer.noise), &Seed::draw(rng))?;
        noise.set_psk(Pattern::Ik.psk_position(), psk.key())?;
        let mut payload = own_payload(local, stamp, local_index);
        payload.psk_hint = Some(psk.hint(&hint_salt(local.identity.public(), stamp)));
        let kem = (exchange == Exchange::Hybrid).then(|| local.arithmetic.decapsulator(rng));
        payload.kem_key = kem.as_ref().map(Decapsulator::key);
        let message = write(&mut noise, &payload, exchange.first_len() - IK_ONE_OVERHEAD)?;
        Ok((Initiator { noise, pattern: Pattern::Ik, peer: Some(*peer), psk_index, stamp, local_index, kem }, message))
    }

    /// Reads the answer; an XX handshake has a third message to send. After [`HandshakeError::Unreadable`] or
    /// [`HandshakeError::Malformed`] for shortness the true answer can still come; any other error ends the handshake.
    pub fn read_answer(&mut self, local: &Local, answer: &[u8]) -> Result<(Established, Option<Vec<u8>>), HandshakeError> {
        let payload = read(&mut self.noise, answer)?;
        let peer = match self.peer {
            Some(peer) => peer,
            None => read_identity(local, &self.noise, &payload)?,
        };
        let third = match self.pattern {
            Pattern::Xx => Some(write(&mut self.noise, &own_payload(local, self.stamp, self.local_index), 0)?),
            Pattern::Ik => None,
        };
        let secret = match (&self.kem, &payload.kem_text) {
            (Some(kem), Some(text)) => Some(kem.open(text)),
            (Some(_), None) => return Err(HandshakeError::Classic),
            (None, _) => None,
        };
        let established = establish(local, &mut self.noise, &payload, peer, (self.local_index, self.psk_index), secret.as_ref())?;
        if self.pattern == Pattern::Ik {
            // The answer could only be written with our static key's counterpart and the password.
            established.session.mark_confirmed();
        }
        Ok((established, third))
    }
}

/// A first message, read but not answered: whoever holds it decides whether the sender is worth an answer.
#[derive(Debug)]
pub struct Question {
    noise: HandshakeState,
    seed: Seed,
    pattern: Pattern,
    message: Vec<u8>,
    sender: Option<Sender>,
    kem: Option<(kem::Key, Coins)>,
}

/// What an IK first message tells about who sent it.
#[derive(Debug)]
struct Sender {
    identity: PublicIdentity,
    stamp: Stamp,
    payload: Payload,
    psk_index: usize,
}

/// What to send back, and what then.
#[derive(Debug)]
pub struct Answer {
    /// The second message, never longer than the first.
    pub message: Vec<u8>,
    /// Where the handshake stands once it is sent.
    pub next: Next,
}

/// Where a responder stands after its answer.
#[derive(Debug)]
pub enum Next {
    /// IK: it is over. The session may not seal before it has opened a datagram.
    Established(Box<Established>),
    /// XX: the third message is to come.
    Third(Box<Responder>),
}

impl Question {
    /// Reads a first message of `pattern`. In an IK message, the sender's certificate is verified and its password found.
    pub fn read(local: &Local, pattern: Pattern, message: &[u8], rng: &mut dyn Rng) -> Result<Question, HandshakeError> {
        let seed = Seed::draw(rng);
        let mut noise = noise::responder(local, pattern, &seed)?;
        let mut payload = read(&mut noise, message)?;
        let versions = payload.versions.ok_or(HandshakeError::Malformed("it names no protocol versions"))?;
        local.offer.common_version(versions)?;
        let key = payload.kem_key.take().filter(|_| local.classic != Classic::Only);
        if key.is_none() && local.classic == Classic::Refused {
            return Err(HandshakeError::Classic);
        }
        let kem = key.map(|key| (key, Coins::draw(rng)));
        let sender = match pattern {
            Pattern::Xx => None,
            Pattern::Ik => {
                check_exchange(local, &payload, kem.is_some())?;
                Some(Sender::read(local, &noise, payload)?)
            }
        };
        Ok(Question { noise, seed, pattern, message: message.to_vec(), sender, kem })
    }

    /// Who sent it, where the message tells (IK).
    pub fn peer(&self) -> Option<&PublicIdentity> {
        self.sender.as_ref().map(|sender| &sender.identity)
    }

    /// The sender's stamp, where the message tells (IK). It must be newer than any before.
    pub fn stamp(&self) -> Option<Stamp> {
        self.sender.as_ref().map(|sender| sender.stamp)
    }

    /// Answers it. `stamp` tells our incarnation, `local_index` is 1 to 2^24 − 1.
    pub fn answer(mut self, local: &Local, stamp: Stamp, local_index: u32) -> Result<Answer, HandshakeError> {
        let mut payload = own_payload(local, stamp, local_index);
        if let Some(sender) = &self.sender {
            let psk = own_psk(local, sender.psk_index)?;
            self.noise.set_psk(self.pattern.psk_position(), psk.key())?;
            // The initiator knows who we are, or it could not have written to us.
            payload.identity = None;
        }
        let mut secret = None;
        if let Some((key, coins)) = &self.kem {
            let (text, shared) =
                local.arithmetic.encapsulate(key, coins).ok_or(HandshakeError::Malformed("its post-quantum key is none"))?;
            payload.kem_text = Some(text);
            secret = Some(shared);
        }
        let message = write(&mut self.noise, &payload, 0)?;
        if message.len() > self.message.len() {
            return Err(HandshakeError::Malformed("it is shorter than its answer would be"));
        }
        let next = match self.sender {
            Some(Sender { identity, payload, psk_index, .. }) => {
                let ours = (local_index, psk_index);
                Next::Established(Box::new(establish(local, &mut self.noise, &payload, identity, ours, secret.as_ref())?))
            }
            None => {
                let (noise, seed, first) = (self.noise, self.seed, self.message);
                Next::Third(Box::new(Responder { noise, seed, first, answer: payload, local_index, secret }))
            }
        };
        Ok(Answer { message, next })
    }
}

impl Sender {
    fn read(local: &Local, noise: &HandshakeState, payload: Payload) -> Result<Sender, HandshakeError> {
        let identity = read_identity(local, noise, &payload)?;
        let stamp = payload.stamp.ok_or(HandshakeError::Malformed("it has no stamp"))?;
        let hint = payload.psk_hint.ok_or(HandshakeError::Malformed("it does not say which password it uses"))?;
        let (psk_index, _) = local.psks.by_hint(&hint_salt(&identity, stamp), hint).ok_or(HandshakeError::Password)?;
        Ok(Sender { identity, stamp, payload, psk_index })
    }
}

/// The responder's side of an XX handshake, waiting for the third message.
#[derive(Debug)]
pub struct Responder {
    noise: HandshakeState,
    seed: Seed,
    first: Vec<u8>,
    answer: Payload,
    local_index: u32,
    secret: Option<Secret>,
}

impl Responder {
    /// Reads a first message and answers it at once: [`Question::read`] and [`Question::answer`].
    pub fn answer(
        local: &Local,
        pattern: Pattern,
        message: &[u8],
        stamp: Stamp,
        local_index: u32,
        rng: &mut dyn Rng,
    ) -> Result<Answer, HandshakeError> {
        Question::read(local, pattern, message, rng)?.answer(local, stamp, local_index)
    }

    /// Reads the third message, trying all our passwords. After [`HandshakeError::Unreadable`],
    /// [`HandshakeError::Password`] or a message that is too short the true one can still come.
    pub fn read_third(&mut self, local: &Local, message: &[u8]) -> Result<Established, HandshakeError> {
        for (psk_index, psk) in local.psks.iter().enumerate() {
            self.noise.set_psk(Pattern::Xx.psk_position(), psk.key())?;
            match read(&mut self.noise, message) {
                Ok(payload) => {
                    let peer = read_identity(local, &self.noise, &payload)?;
                    return establish(local, &mut self.noise, &payload, peer, (self.local_index, psk_index), self.secret.as_ref());
                }
                // snow restores its hashes after a failure but not the cipher's key, which changed once the static key
                // was read. Before that point nothing changed, and no other password would help.
                Err(HandshakeError::Unreadable) if self.noise.get_remote_static().is_some() => self.rebuild(local)?,
                Err(error) => return Err(error),
            }
        }
        Err(HandshakeError::Password)
    }

    /// Puts the state back to where the answer had just been written: same randomness, same bytes.
    fn rebuild(&mut self, local: &Local) -> Result<(), HandshakeError> {
        let mut noise = noise::responder(local, Pattern::Xx, &self.seed)?;
        read(&mut noise, &self.first)?;
        write(&mut noise, &self.answer, 0)?;
        self.noise = noise;
        Ok(())
    }
}

/// The password that we were told to use.
fn own_psk(local: &Local, index: usize) -> Result<&Psk, HandshakeError> {
    local.psks.get(index).ok_or(HandshakeError::NoSuchPassword(index))
}

/// What we tell everybody who gets to know us.
fn own_payload(local: &Local, stamp: Stamp, local_index: u32) -> Payload {
    debug_assert!(payload::is_index(local_index));
    let offer = Payload::offering(&local.offer);
    let features = if local.classic == Classic::Only { offer.features & !HYBRID } else { offer.features | HYBRID };
    Payload { identity: Some(*local.identity.public()), stamp: Some(stamp), index: Some(local_index), features, ..offer }
}

/// A salt that no other handshake has.
fn hint_salt(initiator: &PublicIdentity, stamp: Stamp) -> [u8; 48] {
    let mut salt = [0; 48];
    salt[..32].copy_from_slice(&initiator.key.0);
    salt[32..40].copy_from_slice(&stamp.incarnation.to_be_bytes());
    salt[40..].copy_from_slice(&stamp.counter.to_be_bytes());
    salt
}

/// The identity in `payload`, which must certify the static key that the sender proved to have.
fn read_identity(local: &Local, noise: &HandshakeState, payload: &Payload) -> Result<PublicIdentity, HandshakeError> {
    let identity = payload.identity.ok_or(HandshakeError::Malformed("it has no identity"))?;
    check_identity(local, &identity, noise.get_remote_static().unwrap_or(&[]))?;
    Ok(identity)
}

fn check_identity(local: &Local, identity: &PublicIdentity, proved: &[u8]) -> Result<(), HandshakeError> {
    if identity.key == local.identity.public().key {
        return Err(HandshakeError::OwnKey);
    }
    if identity.noise != *proved || !local.arithmetic.certifies(identity) {
        return Err(HandshakeError::Certificate);
    }
    Ok(())
}

/// The session of a handshake whose messages are all read and written.
fn establish(
    local: &Local,
    noise: &mut HandshakeState,
    theirs: &Payload,
    peer: PublicIdentity,
    (local_index, psk_index): (u32, usize),
    secret: Option<&Secret>,
) -> Result<Established, HandshakeError> {
    check_exchange(local, theirs, secret.is_some())?;
    let offer = theirs.offer()?;
    let agreed = local.offer.agree(&offer)?;
    let stamp = theirs.stamp.ok_or(HandshakeError::Malformed("it has no stamp"))?;
    let remote_index = theirs.index.ok_or(HandshakeError::Malformed("it has no index"))?;
    let split = zeroize::Zeroizing::new(noise.dangerously_get_raw_split());
    let root = Root::derive(&split, noise.get_handshake_hash(), secret.map(Secret::as_bytes));
    let terms = Terms {
        peer: peer.name(),
        initiator: noise.is_initiator(),
        local_index,
        remote_index,
        suite: agreed.suite,
        provider: local.providers.get(agreed.suite),
        lanes: agreed.lanes,
        plain: agreed.plain,
        exchange: if secret.is_some() { Exchange::Hybrid } else { Exchange::Classic },
        network: &local.network,
    };
    let session = Session::from_root(&root, &terms).ok_or(HandshakeError::NoCipher)?;
    let authenticated = own_psk(local, psk_index)?.is_secret();
    Ok(Established { session, peer, stamp, offer, version: agreed.version, authenticated, psk_index })
}

fn write(noise: &mut HandshakeState, payload: &Payload, pad_to: usize) -> Result<Vec<u8>, HandshakeError> {
    let payload = payload.to_bytes(pad_to);
    let mut message = vec![0; payload.len() + MAX_OVERHEAD];
    let len = noise.write_message(&payload, &mut message)?;
    message.truncate(len);
    Ok(message)
}

fn read(noise: &mut HandshakeState, message: &[u8]) -> Result<Payload, HandshakeError> {
    let mut payload = vec![0; message.len()];
    let len = noise.read_message(message, &mut payload)?;
    Payload::parse(payload.get(..len).unwrap_or(&[]))
}

#[cfg(test)]
mod tests;
