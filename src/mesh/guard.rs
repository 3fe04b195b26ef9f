//! What a stranger may cost us: limits on handshakes, refusals and retries.
//!
//! A first handshake message costs a few scalar multiplications. Who shows, by a stateless token, to receive what is sent to
//! its address is served up to `PROVEN_RATE`, whatever others send. All others share `FREE_RATE`, above which they are asked
//! for a token; the addresses of live links have a share of their own, so that keys can be replaced under a flood.

use crate::crypto::retry;
use crate::forward::limit::TokenBucket;
use crate::time::Time;
use crate::wire::handshake::{Handshake, TOKEN_LEN};
use crate::wire::{Address, PeerName};

use super::handshakes::Way;

/// First messages per second answered without a token, and the burst.
const FREE_RATE: (u64, u64) = (100, 200);
/// The same for the addresses of live links, which somebody may forge too.
const LINKED_RATE: (u64, u64) = (50, 100);
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
    Serve {
        /// True where its token shows that the sender is where it says.
        proven: bool,
    },
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
    linked: TokenBucket,
    proven: TokenBucket,
    retries: TokenBucket,
    rejects: TokenBucket,
}

impl Guard {
    /// Limits that are all unused; `secret` keys the tokens.
    pub fn new(secret: [u8; 32]) -> Guard {
        let bucket = |(rate, burst)| TokenBucket::new(rate, burst);
        Guard {
            secret,
            free: bucket(FREE_RATE),
            linked: bucket(LINKED_RATE),
            proven: bucket(PROVEN_RATE),
            retries: bucket(RETRY_RATE),
            rejects: bucket(REJECT_RATE),
        }
    }

    /// Decides about a first message that came by `way`; `linked` where that is the address of a live link.
    pub fn admit(&mut self, now: Time, way: Way, shake: &Handshake<'_>, linked: bool) -> Admission {
        if self.proves(now, way, shake) && self.proven.take(now, 1) {
            return Admission::Serve { proven: true };
        }
        if (linked && self.linked.take(now, 1)) || self.free.take(now, 1) {
            return Admission::Serve { proven: false };
        }
        self.ask_again(now, way, shake).map_or(Admission::Drop, Admission::Retry)
    }

    /// True where the token of a first message shows that its sender is where it says. Takes nothing of any share.
    pub fn proves(&self, now: Time, way: Way, shake: &Handshake<'_>) -> bool {
        shake.token.is_some_and(|token| retry::check(&self.secret, now, &origin(way), shake.source, &token))
    }

    /// The token for the sender of a first message, where another may be sent.
    pub fn ask_again(&mut self, now: Time, way: Way, shake: &Handshake<'_>) -> Option<[u8; TOKEN_LEN]> {
        self.retries.take(now, 1).then(|| retry::token(&self.secret, now, &origin(way), shake.source))
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
        Way::Direct(address @ Address::Udp(_)) => address.write(&mut bytes),
        Way::Direct(Address::Tcp { remote, port }) => {
            Address::udp(remote).write(&mut bytes);
            bytes.extend_from_slice(&port.to_be_bytes());
        }
        Way::Relayed(PeerName(name)) => bytes.extend_from_slice(&name),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::handshake::Type;

    #[test]
    fn under_load_only_proven_addresses_and_those_of_links_are_served() {
        let mut guard = Guard::new([7; 32]);
        let way = Way::Direct(Address::udp(std::net::SocketAddr::from(([10, 0, 0, 1], 6783))));
        let other = Way::Direct(Address::udp(std::net::SocketAddr::from(([10, 0, 0, 2], 6783))));
        let mut shake = Handshake::whole(PeerName([2; 6]), Type::XxOne, 1, b"");
        let unproven = Admission::Serve { proven: false };
        let served = (0..FREE_RATE.1 + 5).filter(|_| guard.admit(Time(1), way, &shake, false) == unproven).count();
        assert_eq!(served as u64, FREE_RATE.1);
        assert_eq!(guard.admit(Time(1), other, &shake, true), unproven, "keys of links are replaced");
        let Admission::Retry(token) = guard.admit(Time(1), way, &shake, false) else { panic!("a token is given") };
        shake.token = Some(token);
        assert_eq!(guard.admit(Time(1), way, &shake, false), Admission::Serve { proven: true });
        assert!(matches!(guard.admit(Time(1), other, &shake, false), Admission::Retry(_)), "a token is bound to its address");
    }
}
