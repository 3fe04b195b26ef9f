//! What a stranger may cost us: limits on handshakes, refusals and retries.
//!
//! A first handshake message costs a few scalar multiplications. Who shows, by a stateless token, to receive what is sent to
//! its address is served up to `PROVEN_RATE`, whatever others send. All others share `FREE_RATE`, above which they are asked
//! for a token; the addresses of live links have a share of their own, so that keys can be replaced under a flood.
//!
//! Tokens, and what is served for them, are rationed once more by where they go: whoever floods from one network leaves most of both to the others.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use crate::crypto::retry;
use crate::forward::fib::NameHash;
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
/// Of these, so many per network: a tenth. More than ever come from behind one NAT, where each host asks again for seconds.
const RETRY_RATE_OF_ONE: (u64, u64) = (200, 200);
/// The same of the messages that are answered with a token.
const PROVEN_RATE_OF_ONE: (u64, u64) = (200, 300);
/// What goes through relays, all of it: the names there are anybody's to make up.
const RELAYED_RATE: (u64, u64) = (500, 500);
/// Networks are told apart by a hash that nobody outside knows, in so many places: one that floods is in the way of one in a thousand others.
const PLACES: usize = 1024;
/// Rejects per second.
const REJECT_RATE: (u64, u64) = (50, 100);
/// Whoever sends old messages of a member again makes us begin a handshake with that member so often and no more.
const CALL_BACK_EVERY: Duration = Duration::from_secs(10);

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
    /// What one network may have: tokens, and answers to messages that carry one. Empty until one asks for them.
    shares: Vec<Share>,
    relayed: Share,
    hash: NameHash,
    /// Whom we called back lately, and when.
    called_back: BTreeMap<PeerName, Time>,
}

/// What one network may have.
#[derive(Clone, Copy, Debug)]
struct Share {
    retries: TokenBucket,
    proven: TokenBucket,
}

impl Share {
    fn new((retries, burst): (u64, u64), proven: (u64, u64)) -> Share {
        Share { retries: TokenBucket::new(retries, burst), proven: TokenBucket::new(proven.0, proven.1) }
    }
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
            shares: Vec::new(),
            relayed: Share::new(RELAYED_RATE, RELAYED_RATE),
            hash: NameHash(secret.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))),
            called_back: BTreeMap::new(),
        }
    }

    /// The share of the network that a message came from.
    fn share(&mut self, way: Way) -> &mut Share {
        let place = match way {
            Way::Direct(address) => self.hash.hash_one(network(address.socket_addr().ip())) as usize % PLACES,
            Way::Relayed(_) => PLACES,
        };
        if self.shares.is_empty() && place < PLACES {
            self.shares = vec![Share::new(RETRY_RATE_OF_ONE, PROVEN_RATE_OF_ONE); PLACES];
        }
        self.shares.get_mut(place).unwrap_or(&mut self.relayed)
    }

    /// Decides about a first message that came by `way`; `linked` where that is the address of a live link.
    pub fn admit(&mut self, now: Time, way: Way, shake: &Handshake<'_>, linked: bool) -> Admission {
        if self.proves(now, way, shake) && self.share(way).proven.take(now, 1) && self.proven.take(now, 1) {
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
        (self.share(way).retries.take(now, 1) && self.retries.take(now, 1))
            .then(|| retry::token(&self.secret, now, &origin(way), shake.source))
    }

    /// True where an old message of this member may be answered with a handshake of our own.
    pub fn may_call_back(&mut self, now: Time, peer: PeerName) -> bool {
        self.called_back.retain(|_, at| now.since(*at) < CALL_BACK_EVERY);
        let may = !self.called_back.contains_key(&peer);
        if may {
            self.called_back.insert(peer, now);
        }
        may
    }

    /// True where another reject may be sent.
    pub fn may_reject(&mut self, now: Time) -> bool {
        self.rejects.take(now, 1)
    }
}

/// The network of an address: what one site has, mostly.
fn network(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
        // The top bit, which no address in use has with the others like this, tells the families apart.
        IpAddr::V6(ip) => 1 << 63 | (ip.to_bits() >> 72) as u64,
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

    fn from(host: [u8; 4], port: u16) -> Way {
        Way::Direct(Address::udp((host, port).into()))
    }

    #[test]
    fn one_network_that_floods_leaves_tokens_to_the_others() {
        let mut guard = Guard::new([7; 32]);
        let shake = Handshake::whole(PeerName([2; 6]), Type::XxOne, 1, b"");
        let given = (0..5000u16).filter(|n| guard.ask_again(Time(1), from([10, 0, 0, *n as u8], *n), &shake).is_some()).count();
        assert_eq!(given as u64, RETRY_RATE_OF_ONE.1);
        assert!(guard.ask_again(Time(1), from([10, 0, 1, 1], 6783), &shake).is_some(), "another network has a share of its own");
        let relayed = |n: u16| Way::Relayed(PeerName([2, 0, 0, 0, (n >> 8) as u8, n as u8]));
        let given = (0..5000).filter(|n| guard.ask_again(Time(1), relayed(*n), &shake).is_some()).count();
        assert_eq!(given as u64, RELAYED_RATE.1, "names that are made up do not make it more");
        let six = |n: u16| Way::Direct(Address::udp((std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, n, 0, 0, 0, n), 6783).into()));
        let given = (0..5000).filter(|n| guard.ask_again(Time(1), six(n % 256), &shake).is_some()).count();
        assert_eq!(given as u64, RETRY_RATE_OF_ONE.1);
        assert!(guard.ask_again(Time(1), six(0x100), &shake).is_some());
    }

    #[test]
    fn one_network_that_floods_with_tokens_leaves_answers_to_the_others() {
        let mut guard = Guard::new([7; 32]);
        let shake = Handshake::whole(PeerName([2; 6]), Type::XxOne, 1, b"");
        let mut proven = |way: Way, times: u64| {
            let token = retry::token(&[7; 32], Time(1), &origin(way), shake.source);
            let again = Handshake { token: Some(token), ..shake };
            (0..times).filter(|_| guard.admit(Time(1), way, &again, false) == Admission::Serve { proven: true }).count() as u64
        };
        assert_eq!(proven(from([10, 0, 0, 1], 6783), 3000), PROVEN_RATE_OF_ONE.1);
        assert_eq!(proven(from([10, 0, 1, 1], 6783), 10), 10);
    }
}
