//! Handshake messages that take several datagrams, put together again.
//!
//! Anybody can send a fragment, so what is kept of strangers is bounded, in all and per host, and kept for a few seconds. Whoever comes
//! back with a retry token takes the place of those that have none. Fragments of one message sent again are the same
//! bytes, so they complete what an earlier try left.

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::Outbox;
use super::core::Mesh;
use super::handshakes::Way;
use crate::crypto::Classic;
use crate::time::Time;
use crate::wire::Header;
use crate::wire::handshake::{FRAGMENT_LEN, Handshake, Reject, TOKEN_LEN, Type};

/// Fragments of one message: today's have two.
pub(super) const MOST_FRAGMENTS: usize = 3;
/// How long an incomplete first message is kept: as long as its sender goes on sending the rest.
const KEEP: Duration = Duration::from_secs(5);
/// First messages that are incomplete, in all: some 600 kB.
const MOST: usize = 256;
/// The same per host: a NAT may hide a few dozen routers.
const MOST_PER_HOST: usize = 32;

/// The fragments of one message that have come.
#[derive(Debug, Default)]
pub struct Parts {
    of: Option<(Type, u32, u8)>,
    parts: [Option<Vec<u8>>; MOST_FRAGMENTS],
}

impl Parts {
    /// Takes one in, in place of an earlier one of the same number. Those of another message are forgotten. False where it is none that
    /// we would put together.
    fn add(&mut self, shake: &Handshake<'_>) -> bool {
        let of = (shake.kind, shake.sender_index, shake.fragments);
        if usize::from(shake.fragments) > MOST_FRAGMENTS || shake.message.len() > FRAGMENT_LEN {
            return false;
        }
        if self.of != Some(of) {
            *self = Parts { of: Some(of), ..Parts::default() };
        }
        if let Some(part) = self.parts.get_mut(usize::from(shake.fragment)) {
            *part = Some(shake.message.to_vec());
        }
        true
    }

    /// All of them, once they are there.
    fn whole(&mut self) -> Option<Vec<Vec<u8>>> {
        let count = self.of.map_or(0, |(_, _, count)| usize::from(count));
        let parts: Option<Vec<Vec<u8>>> = self.parts.iter().take(count).cloned().collect();
        parts.filter(|parts| !parts.is_empty()).inspect(|_| *self = Parts::default())
    }
}

#[derive(Debug)]
struct Partial {
    parts: Parts,
    at: Time,
    proven: bool,
    /// The token that its fragments carry: one that was found wrong is not to be kept beside right ones.
    token: Option<[u8; TOKEN_LEN]>,
}

/// First messages of others of which a part is missing.
#[derive(Debug, Default)]
pub struct Partials {
    kept: BTreeMap<(Way, u32), Partial>,
}

/// What came of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Others are missing.
    Waiting,
    /// The message is complete; these are its parts.
    Whole(Vec<Vec<u8>>),
    /// There is room only for those with a token.
    Full,
    /// It is no fragment of ours.
    Bad,
}

impl Partials {
    /// Takes in a fragment of a first message; `proven` where a token shows that its sender is where it says.
    pub(super) fn add(&mut self, now: Time, way: Way, shake: &Handshake<'_>, proven: bool) -> Outcome {
        let key = (way, shake.sender_index);
        if self.kept.get(&key).is_some_and(|kept| kept.token != shake.token && kept.proven && !proven) {
            return Outcome::Bad;
        }
        if !self.kept.contains_key(&key) && !self.make_room(now, way, proven) {
            return Outcome::Full;
        }
        let new = || Partial { parts: Parts::default(), at: now, proven, token: shake.token };
        let partial = self.kept.entry(key).or_insert_with(new);
        (partial.proven, partial.token) = (proven, shake.token);
        if !partial.parts.add(shake) {
            self.kept.remove(&key);
            return Outcome::Bad;
        }
        match partial.parts.whole() {
            Some(parts) => {
                self.kept.remove(&key);
                Outcome::Whole(parts)
            }
            None => Outcome::Waiting,
        }
    }

    /// Forgets what is old.
    pub(super) fn expire(&mut self, now: Time) {
        self.kept.retain(|_, partial| now.since(partial.at) < KEEP);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.kept.len()
    }

    fn make_room(&mut self, now: Time, way: Way, proven: bool) -> bool {
        let full = |kept: &BTreeMap<(Way, u32), Partial>| {
            let crowded = kept.keys().filter(|(other, _)| way.is_same_host(*other)).count() >= MOST_PER_HOST;
            (crowded || kept.len() >= MOST).then_some(crowded)
        };
        if full(&self.kept).is_some() {
            self.expire(now);
        }
        let Some(crowded) = full(&self.kept) else { return true };
        let unproven = self.kept.iter().filter(|((other, _), kept)| !kept.proven && (!crowded || way.is_same_host(*other)));
        let oldest = unproven.min_by_key(|(_, kept)| kept.at).map(|(key, _)| *key).filter(|_| proven);
        oldest.is_some_and(|key| self.kept.remove(&key).is_some())
    }
}

impl Mesh {
    /// A part of a handshake message; `len` is that of its datagram.
    pub(super) fn on_fragment(&mut self, now: Time, way: Way, header: &Header, shake: &Handshake<'_>, len: usize, out: &mut Outbox) {
        match shake.kind {
            Type::XxOne | Type::IkOne if self.local.classic == Classic::Only => {
                let why = "it wants post-quantum keys, and this router runs with --classic-only: start it without, or the other with --classic-ok";
                self.refuse(now, way, shake, Some(Reject::Hybrid), why.to_string(), out);
            }
            Type::XxOne | Type::IkOne => self.on_first_part(now, way, shake, len, out),
            Type::XxTwo | Type::IkTwo => self.on_answer_part(now, way, header.index, shake, out),
            Type::XxThree | Type::Reject | Type::Retry => self.counters.handshakes_malformed.inc(),
        }
    }

    fn on_first_part(&mut self, now: Time, way: Way, shake: &Handshake<'_>, len: usize, out: &mut Outbox) {
        if self.left || self.answer_again(way, shake, len, out) {
            return;
        }
        let proven = self.guard.proves(now, way, shake);
        match self.partials.add(now, way, shake, proven) {
            Outcome::Waiting => {}
            Outcome::Whole(parts) => {
                let message = parts.concat();
                let whole = Handshake { fragment: 0, fragments: 1, message: &message, ..*shake };
                // Each came with headers of its own.
                let came = message.len() + parts.len() * (len - shake.message.len());
                self.on_first(now, way, &whole, parts, came, out);
            }
            Outcome::Full => self.put_off(now, way, shake, proven, out),
            Outcome::Bad => self.counters.handshakes_malformed.inc(),
        }
    }

    fn on_answer_part(&mut self, now: Time, way: Way, index: u32, shake: &Handshake<'_>, out: &mut Outbox) {
        let attempt = self.attempts.get_mut(&index).filter(|attempt| attempt.way == way);
        let Some(parts) = attempt.and_then(|attempt| attempt.parts()) else { return self.counters.handshakes_malformed.inc() };
        if !parts.add(shake) {
            return self.counters.handshakes_malformed.inc();
        }
        if let Some(parts) = parts.whole() {
            let message = parts.concat();
            self.on_answer(now, way, index, &Handshake { fragment: 0, fragments: 1, message: &message, ..*shake }, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Address, PeerName};

    const NOW: Time = Time(1_000_000_000);

    fn way(host: u8, port: u16) -> Way {
        Way::Direct(Address::udp(([10, 0, 0, host], port).into()))
    }

    fn part(index: u32, fragment: u8, message: &[u8]) -> Handshake<'_> {
        Handshake { fragment, fragments: 2, ..Handshake::whole(PeerName([2; 6]), Type::XxOne, index, message) }
    }

    #[test]
    fn parts_meet_in_any_order_and_over_repetitions() {
        let mut partials = Partials::default();
        let from = way(1, 6783);
        assert_eq!(partials.add(NOW, from, &part(7, 1, b"b"), false), Outcome::Waiting);
        assert_eq!(partials.add(NOW, from, &part(7, 1, b"b"), false), Outcome::Waiting);
        assert_eq!(partials.add(NOW, from, &part(8, 0, b"x"), false), Outcome::Waiting);
        assert_eq!(partials.add(NOW, way(2, 6783), &part(7, 0, b"x"), false), Outcome::Waiting);
        let whole = Outcome::Whole(vec![b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(partials.add(NOW + KEEP / 2, from, &part(7, 0, b"a"), false), whole);
        assert_eq!(partials.count(), 2);
        let other = Handshake { fragments: 3, ..part(8, 1, b"b") };
        assert_eq!(partials.add(NOW, from, &other, false), Outcome::Waiting, "parts of different messages do not meet");
        partials.expire(NOW + KEEP);
        assert_eq!(partials.count(), 0);
    }

    #[test]
    fn what_somebody_has_shown_to_be_his_is_not_replaced_by_what_others_send_in_his_name() {
        let mut partials = Partials::default();
        let (from, token) = (way(1, 6783), Some([7; TOKEN_LEN]));
        let its_own = |fragment, message| Handshake { token, ..part(7, fragment, message) };
        assert_eq!(partials.add(NOW, from, &its_own(0, b"a"), true), Outcome::Waiting);
        assert_eq!(partials.add(NOW, from, &part(7, 0, b"x"), false), Outcome::Bad);
        assert_eq!(partials.add(NOW, from, &its_own(1, b"b"), true), Outcome::Whole(vec![b"a".to_vec(), b"b".to_vec()]));
    }

    #[test]
    fn what_is_never_completed_takes_bounded_room_and_gives_it_to_whoever_shows_where_it_is() {
        let mut partials = Partials::default();
        let long = vec![7; FRAGMENT_LEN];
        for port in 1..1000 {
            partials.add(NOW, way(1, port), &part(1, 0, &long), false);
        }
        assert_eq!(partials.count(), MOST_PER_HOST);
        assert_eq!(partials.add(NOW, way(2, 1), &part(1, 0, &long), false), Outcome::Waiting, "another host has room of its own");
        for host in 3..=255 {
            for port in 1..40 {
                partials.add(NOW, way(host, port), &part(1, 0, &long), false);
            }
        }
        assert_eq!(partials.count(), MOST);
        assert_eq!(partials.add(NOW, way(2, 99), &part(1, 0, &long), false), Outcome::Full);
        assert_eq!(partials.add(NOW, way(2, 99), &part(1, 0, &long), true), Outcome::Waiting);
        assert_eq!(partials.count(), MOST);
        assert!(matches!(partials.add(NOW, way(2, 99), &part(1, 1, &long), true), Outcome::Whole(_)));
        for bad in [Handshake { fragments: 15, ..part(2, 0, b"") }, part(2, 0, &vec![7; FRAGMENT_LEN + 1])] {
            assert_eq!(partials.add(NOW, way(2, 99), &bad, true), Outcome::Bad);
        }
        assert_eq!(partials.add(NOW, way(2, 97), &part(1, 0, &long), false), Outcome::Waiting);
        assert_eq!(partials.add(NOW + KEEP, way(2, 98), &part(1, 0, &long), false), Outcome::Waiting, "all others are too old");
        assert_eq!(partials.count(), 1);
    }
}
