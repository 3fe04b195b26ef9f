//! What a stranger may cost us: limits on handshakes, refusals and retries.
//!
//! A first handshake message costs a few scalar multiplications. Below `FREE_RATE` everybody is served. Above it
//! only who shows, by a stateless token, to receive what is sent to its address; and those up to `PROVEN_RATE`.

use crate::crypto::retry;
use crate::forward::limit::TokenBucket;
use crate::time::Time;
use crate::wire::handshake::{Handshake, TOKEN_LEN};
use crate::wire::{Address, PeerName};

use super::handshakes::Way;

/// First messages per second answered without a token, and the burst.
const FREE_RATE: (u64, u64) = (100, 200);
/// First messages per second answered with one: some 30 % of a core.
const PROVEN_RATE: (u64, u64) = (1000, 1000);
/// Retry tokens per second.
const RETRY_RATE: (u64, u64) = (2000, 2000);
/// Rejects per second.
const REJECT_RATE: (u64, u64) = (50, 100);

/// What to do with a first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Read it.
    Serve,
    /// Answer with this token and forget it.
    Retry([u8; TOKEN_LEN]),
    /// Drop it.
    Drop,
}

/// The limits.
#[derive(Debug)]
pub struct Guard {
    secret: [u8; 32],
    free: TokenBucket,
    proven: TokenBucket,
    retries: TokenBucket,
    rejects: TokenBucket,
}

impl Guard {
    /// Limits that are all unused; `secret` keys the tokens.
    pub fn new(secret: [u8; 32]) -> Guard {
        let bucket = |(rate, burst)| TokenBucket::new(rate, burst);
        Guard { secret, free: bucket(FREE_RATE), proven: bucket(PROVEN_RATE), retries: bucket(RETRY_RATE), rejects: bucket(REJECT_RATE) }
    }

    /// Decides about a first message that came by `way`.
    pub fn admit(&mut self, now: Time, way: Way, shake: &Handshake<'_>) -> Admission {
        if self.free.take(now, 1) {
            return Admission::Serve;
        }
        let origin = origin(way);
        match shake.token {
            Some(token) if retry::check(&self.secret, now, &origin, shake.source, &token) => {
                if self.proven.take(now, 1) {
                    Admission::Serve
                } else {
                    Admission::Drop
                }
            }
            Some(_) | None if self.retries.take(now, 1) => Admission::Retry(retry::token(&self.secret, now, &origin, shake.source)),
            Some(_) | None => Admission::Drop,
        }
    }

    /// True where another reject may be sent.
    pub fn may_reject(&mut self, now: Time) -> bool {
        self.rejects.take(now, 1)
    }
}

/// What a token is bound to: address and port, or the name a relayed message claims to come from.
fn origin(way: Way) -> Vec<u8> {
    let mut bytes = Vec::new();
    match way {
        Way::Direct(Address::Udp(addr)) => Address::udp(addr).write(&mut bytes),
        Way::Relayed(PeerName(name)) => bytes.extend_from_slice(&name),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::handshake::Type;

    #[test]
    fn under_load_only_proven_addresses_are_served() {
        let mut guard = Guard::new([7; 32]);
        let way = Way::Direct(Address::udp(std::net::SocketAddr::from(([10, 0, 0, 1], 6783))));
        let other = Way::Direct(Address::udp(std::net::SocketAddr::from(([10, 0, 0, 2], 6783))));
        let mut shake = Handshake::whole(PeerName([2; 6]), Type::XxOne, 1, b"");
        let served = (0..FREE_RATE.1 + 5).filter(|_| guard.admit(Time(1), way, &shake) == Admission::Serve).count();
        assert_eq!(served as u64, FREE_RATE.1);
        let Admission::Retry(token) = guard.admit(Time(1), way, &shake) else { panic!("a token is given") };
        shake.token = Some(token);
        assert_eq!(guard.admit(Time(1), way, &shake), Admission::Serve);
        assert!(matches!(guard.admit(Time(1), other, &shake), Admission::Retry(_)), "a token is bound to its address");
    }
}
