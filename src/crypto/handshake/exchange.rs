//! What the keys of a session rest on, and what this router thinks of it.

use super::payload::{HYBRID, Payload};
use super::{FIRST_HYBRID_LEN, FIRST_MESSAGE_LEN, HandshakeError, Local};

/// What the keys of a session rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// X25519 and ML-KEM-768: both would have to be broken.
    Hybrid,
    /// X25519 alone.
    Classic,
}

impl Exchange {
    /// What status prints.
    pub fn label(self) -> &'static str {
        match self {
            Exchange::Hybrid => "hybrid",
            Exchange::Classic => "classic",
        }
    }

    /// To how many bytes a first message is padded.
    pub(super) fn first_len(self) -> usize {
        match self {
            Exchange::Hybrid => FIRST_HYBRID_LEN,
            Exchange::Classic => FIRST_MESSAGE_LEN,
        }
    }
}

/// What this router thinks of classic handshakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Classic {
    /// It refuses them.
    #[default]
    Refused,
    /// It takes them from routers that can do no others.
    Accepted,
    /// It can do no others itself.
    Only,
}

/// Whether a handshake that is not `hybrid` will do. `theirs` is a payload that the peer sealed.
pub(super) fn check_exchange(local: &Local, theirs: &Payload, hybrid: bool) -> Result<(), HandshakeError> {
    match local.classic {
        _ if hybrid => Ok(()),
        Classic::Refused => Err(HandshakeError::Classic),
        Classic::Accepted if theirs.features & HYBRID != 0 => Err(HandshakeError::Downgrade),
        Classic::Accepted | Classic::Only => Ok(()),
    }
}
