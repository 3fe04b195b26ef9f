//! Why a handshake failed, as sentences for an operator.

use crate::wire::handshake::Reject;

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer proved who it is, but shares no password with us.
    #[error("the peer uses another password: start both routers with the same --password")]
    Password,
    /// The message does not decrypt.
    #[error(
        "the handshake message cannot be read: the peer runs with another --network, knows an old key of this router, \
         or the message was changed on the way"
    )]
    Unreadable,
    /// The version ranges do not overlap.
    #[error("the peer speaks protocol versions {theirs_min} to {theirs_max}, this router {ours_min} to {ours_max}: upgrade the older one")]
    Version {
        /// Our lowest version.
        ours_min: u8,
        /// Our highest version.
        ours_max: u8,
        /// The peer's lowest version.
        theirs_min: u8,
        /// The peer's highest version.
        theirs_max: u8,
    },
    /// Encryption is off at one end only.
    #[error("one end runs with --no-encryption, the other does not: start both with it or both without")]
    Plain,
    /// The offers have no suite in common.
    #[error("the peer offers no cipher that this router allows: compare --cipher and the builds of both")]
    NoCipher,
    /// The peer's keys rest on X25519 alone.
    #[error(
        "the peer speaks X25519 only, and this router wants post-quantum keys too: upgrade the peer, or accept such routers here with --classic-ok"
    )]
    Classic,
    /// Both ends can do hybrid handshakes and this was none.
    #[error(
        "both ends can do post-quantum keys and none took part: somebody on the way keeps those messages back, or many are lost; trying again"
    )]
    Downgrade,
    /// The peer's identity does not certify the key it used.
    #[error("the peer's handshake key is not certified by its identity: somebody poses as it, or its state directory is damaged")]
    Certificate,
    /// The peer has our own key.
    #[error("the peer has this router's own key: the address is this router's own, or a state directory was copied to another host")]
    OwnKey,
    /// The message decrypts but makes no sense.
    #[error("the handshake message is malformed: {0}")]
    Malformed(&'static str),
    /// We were asked to use a password that we do not have.
    #[error("there is no password number {0} to start a handshake with")]
    NoSuchPassword(usize),
    /// The handshake ended before, well or badly.
    #[error("the handshake is already over: start another one")]
    Over,
}

impl HandshakeError {
    /// What to tell the other end; `None` where an answer would help nobody but somebody who is probing.
    pub fn reject(&self) -> Option<Reject> {
        match self {
            HandshakeError::Password => Some(Reject::Password),
            HandshakeError::Unreadable => Some(Reject::Network),
            HandshakeError::Version { .. } => Some(Reject::Version),
            HandshakeError::Plain => Some(Reject::Plain),
            HandshakeError::NoCipher => Some(Reject::Cipher),
            HandshakeError::Classic => Some(Reject::Classic),
            HandshakeError::Certificate => Some(Reject::Certificate),
            HandshakeError::OwnKey => Some(Reject::OwnKey),
            HandshakeError::Downgrade | HandshakeError::Malformed(_) | HandshakeError::NoSuchPassword(_) | HandshakeError::Over => None,
        }
    }
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> HandshakeError {
        match error {
            snow::Error::State(_) => HandshakeError::Over,
            snow::Error::Input => HandshakeError::Malformed("it is too short"),
            _ => HandshakeError::Unreadable,
        }
    }
}
