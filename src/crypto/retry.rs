//! Stateless retry tokens: under load a responder answers a first message with a token and forgets it; whoever comes back
//! with the token has shown that it receives what is sent to its address (as in QUIC, RFC 9000 section 8.1.2).
//!
//! A token is HMAC-SHA256 over a time slot, where the message came from, and the source name that it claims, cut to 16
//! bytes. The secret is the caller's: drawn at start, kept in memory only.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::handshake::TOKEN_LEN;

/// How long a slot lasts: a token is good for one to two of them.
pub const SLOT: Duration = Duration::from_secs(10);
/// What tokens are keyed with beside the secret.
const LABEL: &[u8] = b"weave-router retry token v1";

/// The token for a message that came `from` somewhere and claims to be `source`'s.
///
/// `from` is the wire form of the address and port, or whatever tells a link where the message came through relays.
pub fn token(secret: &[u8; 32], now: Time, from: &[u8], source: PeerName) -> [u8; TOKEN_LEN] {
    let tag: [u8; 32] = mac(secret, slot(now), from, source).finalize().into_bytes().into();
    *tag.first_chunk().expect("a tag is longer than a token")
}

/// True if `token` was given for the same `from` and `source` in this slot or the one before; compares in constant time.
pub fn check(secret: &[u8; 32], now: Time, from: &[u8], source: PeerName, token: &[u8; TOKEN_LEN]) -> bool {
    let now = slot(now);
    [Some(now), now.checked_sub(1)].into_iter().flatten().any(|slot| mac(secret, slot, from, source).verify_truncated_left(token).is_ok())
}

fn slot(now: Time) -> u64 {
    now.as_millis() / SLOT.as_secs() / 1000
}

fn mac(secret: &[u8; 32], slot: u64, from: &[u8], source: PeerName) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    // Everything before `from` has a fixed length, so no two inputs run together.
    mac.update(LABEL);
    mac.update(&slot.to_be_bytes());
    mac.update(&source.0);
    mac.update(from);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_hold_for_their_sender_and_time() {
        let (secret, name) = ([1; 32], PeerName([2; 6]));
        let at = Time::ZERO + Duration::from_secs(1005);
        let given = token(&secret, at, b"10.0.0.1:6783", name);
        let check = |secret, at, from: &[u8], name| check(secret, at, from, name, &given);
        assert!(check(&secret, at, b"10.0.0.1:6783", name));
        assert!(check(&secret, at + SLOT, b"10.0.0.1:6783", name));
        assert!(!check(&secret, at + SLOT * 2, b"10.0.0.1:6783", name));
        assert!(!check(&secret, at, b"10.0.0.1:6784", name));
        assert!(!check(&secret, at, b"10.0.0.1:6783", PeerName([3; 6])));
        assert!(!check(&[2; 32], at, b"10.0.0.1:6783", name));
        assert!(!check(&secret, Time::ZERO, b"10.0.0.1:6783", name));
    }
}
