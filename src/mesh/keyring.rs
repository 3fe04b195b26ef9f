//! The sessions with one peer, and when they are replaced.
//!
//! ```text
//!                    promote (a datagram was opened on it)
//!            next ──────────────────────────────► current ──────────► previous ──► gone
//!   responder │                                      ▲      replaced              60 s
//!             └── gone after 10 s without            │
//!  initiator ────────────────────────────────────────┘
//! ```
//!
//! A session is due for replacement 120 s after its handshake, or when a lane has used 2^31 counters, and ends for
//! good 180 s after that. The initiator of the last handshake replaces it; the other end steps in 10 s later.
//!
//! A peer may have let go of a session: a responder keeps but one that is not confirmed, and that not for long. Links find out by their heartbeats.
//! Through relays the peer is asked each second, by the initiator until something is heard or the responder has dropped it, and by either end
//! while frames are sent and none has come for 5 s. What is not answered for 3 s is replaced.
//!
//! Of two handshakes that cross, that of the lower name counts. Whether they have crossed each end judges by its own clock, so at the border the
//! two may differ, and each seals with a session that the other drops a minute later. Each sees that: the peer goes on sealing with what was
//! replaced here. Then the session of the lower name counts after all ([`Keyring::follow`]), unless the peer has it no more.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::Session;
use crate::crypto::session::{KEY_LIFE, REKEY_COUNTER};
use crate::time::Time;

/// Age at which a session is to be replaced.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);
/// How long a replaced session still receives.
pub const KEEP_PREVIOUS: Duration = Duration::from_secs(60);
/// How long an unconfirmed session of a responder is kept.
const KEEP_NEXT: Duration = Duration::from_secs(10);
/// Where frames are sent to a peer beyond relays and none has come for so long, it is asked whether it still has the session.
pub const SILENT: Duration = Duration::from_secs(5);
/// Who does not answer that for so long does not have it.
const IN_VAIN: Duration = Duration::from_secs(3);
/// Handshakes that end within this time of each other are taken to have crossed.
const CROSSING: Duration = Duration::from_secs(5);
/// The responder's patience with the initiator's rekey.
const RESPONDER_PATIENCE: Duration = Duration::from_secs(10);

/// Until so long after a session was replaced what the peer had sealed with it before may arrive.
const IN_FLIGHT: Duration = Duration::from_secs(3);

/// So often a peer is told of the session that counts. Whoever uses it for nothing all the same has lost it.
const MOST_NUDGES: u8 = 3;

/// What the peer's use of a replaced session asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Nothing.
    Nothing,
    /// It is the current one again.
    Switched,
    /// The peer is to hear something on the current one, which is the one that counts.
    Nudge,
}

/// The sessions with one peer.
#[derive(Debug, Default)]
pub struct Keyring {
    current: Option<Arc<Session>>,
    next: Option<Arc<Session>>,
    previous: Option<(Arc<Session>, Time)>,
    /// No rekey before this: one is going on or has just failed.
    quiet_until: Time,
    /// The newest of our handshakes that the peer has answered, by the counter in its stamp.
    answered: u64,
    /// What had been received on the replaced session, by its index, when nothing was in flight any more.
    received: Option<(u32, u64)>,
    /// How often the peer was told of the current session for that, in a row.
    nudges: u8,
    /// The current session by its index, what had been received on it, and when that was noticed.
    heard: Option<(u32, u64, Time)>,
    /// Since when the peer is asked whether it has the current session, without a word on it.
    asked: Option<Time>,
}

impl Keyring {
    /// Takes in the product of a handshake. The initiator seals with it at once, the responder once it is confirmed.
    /// `lower` tells whether our name is lower than the peer's. Returns the session of a responder whose place it took.
    pub fn install(&mut self, now: Time, session: Arc<Session>, lower: bool) -> Option<Arc<Session>> {
        if session.may_seal() {
            self.replace(now, session, lower);
            return None;
        }
        let old = self.next.replace(session);
        old.inspect(|old| old.retire())
    }

    /// Makes a confirmed `next` the current session. True where it did.
    pub fn promote(&mut self, now: Time, lower: bool) -> bool {
        let confirmed = self.next.as_ref().is_some_and(|next| next.is_confirmed());
        let Some(next) = (if confirmed { self.next.take() } else { None }) else { return false };
        self.replace(now, next, lower);
        true
    }

    /// Of two handshakes that crossed and both ended, both routers keep that of the lower name as the current one.
    fn replace(&mut self, now: Time, session: Arc<Session>, lower: bool) {
        (self.nudges, self.asked) = (0, None);
        let ours_wins = |session: &Session| session.is_initiator() == lower;
        let crossed = self.current.as_ref().is_some_and(|current| {
            let fresh = now.since(current.established()) < CROSSING && !current.is_retired();
            fresh && ours_wins(current) && !ours_wins(&session)
        });
        if crossed {
            if let Some((older, _)) = self.previous.replace((session, now + KEEP_PREVIOUS)) {
                older.retire();
            }
            return;
        }
        if let Some(old) = self.current.replace(session)
            && let Some((older, _)) = self.previous.replace((old, now + KEEP_PREVIOUS))
        {
            older.retire();
        }
    }

    /// Whether the peer still seals with what was replaced here; to be asked every now and then. `lower` as in [`Keyring::install`].
    pub fn follow(&mut self, now: Time, lower: bool) -> Follow {
        let (Some(current), Some((previous, until))) = (&self.current, &self.previous) else { return Follow::Nothing };
        let ours_wins = |session: &Session| session.is_initiator() == lower;
        if now + KEEP_PREVIOUS < *until + IN_FLIGHT || current.is_initiator() == previous.is_initiator() || previous.is_retired() {
            return Follow::Nothing;
        }
        let (index, received) = (previous.local_index(), previous.received());
        match self.received {
            Some((known, before)) if known == index && received > before => {}
            Some((known, _)) if known == index => return Follow::Nothing,
            _ => {
                self.received = Some((index, received));
                return Follow::Nothing;
            }
        }
        self.received = Some((index, received));
        let lost = is_unheard(current) && self.nudges >= MOST_NUDGES;
        if ours_wins(current) && !lost {
            self.nudges = self.nudges.saturating_add(1);
            return Follow::Nudge;
        }
        self.nudges = 0;
        if let Some((again, _)) = self.previous.take()
            && let Some(other) = self.current.replace(again)
        {
            self.previous = Some((other, now + KEEP_PREVIOUS));
        }
        Follow::Switched
    }

    /// The peer has answered the handshake of ours whose stamp has this counter. False where it answered a later one before: then it has let go of
    /// this one's session, as a responder keeps the newest only, and to seal with it would be in vain.
    pub fn answered(&mut self, counter: u64) -> bool {
        let is_newest = counter > self.answered;
        self.answered = self.answered.max(counter);
        is_newest
    }

    /// The session to seal with.
    pub fn current(&self) -> Option<&Arc<Session>> {
        self.current.as_ref()
    }

    /// Every session that may receive.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.current.iter().chain(&self.next).chain(self.previous.iter().map(|(session, _)| session))
    }

    /// The session that we call `index`.
    pub fn by_index(&self, index: u32) -> Option<&Arc<Session>> {
        self.all().find(|session| session.local_index() == index)
    }

    /// True where no session is left.
    pub fn is_empty(&self) -> bool {
        self.current.is_none() && self.next.is_none() && self.previous.is_none()
    }

    /// Ends every session at once.
    pub fn retire(&mut self) {
        self.all().for_each(|session| session.retire());
        *self = Keyring::default();
    }

    /// Drops what is past its end. True where something was dropped.
    pub fn expire(&mut self, now: Time) -> bool {
        let mut dropped = false;
        if self.previous.as_ref().is_some_and(|(_, until)| now >= *until) {
            dropped = drop_session(self.previous.take().map(|(session, _)| session));
        }
        if self.next.as_ref().is_some_and(|next| now.since(next.established()) >= KEEP_NEXT) {
            dropped = drop_session(self.next.take());
        }
        if self.current.as_ref().is_some_and(|current| now.since(current.established()) >= KEY_LIFE) {
            dropped = drop_session(self.current.take());
        }
        dropped
    }

    /// True where we are to start the handshake that replaces the current session.
    pub fn wants_rekey(&self, now: Time) -> bool {
        let Some(current) = &self.current else { return false };
        let in_vain = self.asked.is_some_and(|asked| now.since(asked) >= IN_VAIN);
        now >= self.quiet_until && self.next.is_none() && (in_vain || now >= rekey_at(current))
    }

    /// The current session, where the peer is to be asked whether it has it; to be called every now and then. `in_use` where frames are
    /// sent to it and a way leads there.
    pub fn to_ask(&mut self, now: Time, in_use: bool) -> Option<&Arc<Session>> {
        let current = self.current.as_ref()?;
        let (index, received) = (current.local_index(), current.received() + u64::from(current.has_received()));
        if self.heard.is_none_or(|(known, before, _)| (known, before) != (index, received)) {
            self.heard = Some((index, received, now));
            self.asked = None;
        }
        let silent = in_use && self.heard.is_some_and(|(_, _, at)| now.since(at) >= SILENT);
        let unheard = is_unheard(current);
        if silent || unheard && now.since(current.established()) < KEEP_NEXT {
            self.asked.get_or_insert(now);
            return Some(current);
        }
        // Whoever has never said anything on it has dropped it by now; who has is asked anew before it is replaced.
        self.asked = self.asked.filter(|_| unheard);
        None
    }

    /// There is a direct way, whose heartbeats tell.
    pub fn stop_asking(&mut self) {
        self.asked = None;
    }

    /// A rekey starts: none other for a while.
    pub fn rekeying(&mut self, now: Time) {
        self.quiet_until = now + RESPONDER_PATIENCE;
    }
}

fn rekey_at(session: &Session) -> Time {
    let wait = if session.is_initiator() { Duration::ZERO } else { RESPONDER_PATIENCE };
    let base = if session.sent() >= REKEY_COUNTER { Duration::ZERO } else { REKEY_AFTER };
    session.established() + base + wait
}

/// True where nothing shows that the peer still has a session which we began.
fn is_unheard(session: &Session) -> bool {
    session.is_initiator() && !session.has_received()
}

fn drop_session(session: Option<Arc<Session>>) -> bool {
    session.map(|session| session.retire()).is_some()
}

#[cfg(test)]
mod crossing;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Providers, Suite, Terms};
    use crate::wire::PeerName;

    fn session(now: Time, initiator: bool, local_index: u32) -> Arc<Session> {
        let root = crate::crypto::Root::from_bytes([7; 32]);
        let (peer, suite) = (PeerName([2; 6]), Suite::ChaCha20Poly1305);
        let provider = Providers::default().get(suite);
        let exchange = crate::crypto::Exchange::Hybrid;
        let terms =
            Terms { peer, initiator, local_index, remote_index: 9, suite, provider, lanes: 0, plain: false, exchange, network: "weave" };
        let mut session = Session::from_root(&root, &terms).expect("every build has this suite");
        session.set_established(now);
        Arc::new(session)
    }

    fn second(n: u64) -> Time {
        Time(n * 1_000_000_000)
    }

    fn current(keys: &Keyring) -> Option<u32> {
        keys.current().map(|session| session.local_index())
    }

    #[test]
    fn make_before_break() {
        let mut keys = Keyring::default();
        let first = session(second(0), true, 1);
        first.note_received(0);
        keys.install(second(0), first, true);
        assert!(!keys.wants_rekey(second(119)) && keys.wants_rekey(second(120)));
        keys.rekeying(second(120));
        assert!(!keys.wants_rekey(second(121)));
        let next = session(second(121), false, 2);
        keys.install(second(121), Arc::clone(&next), true);
        assert!(!keys.promote(second(121), true), "the responder waits for a datagram");
        assert!(!keys.wants_rekey(second(140)), "and starts none itself meanwhile");
        assert_eq!(current(&keys), Some(1));
        next.mark_confirmed();
        assert!(keys.promote(second(122), true));
        assert_eq!((current(&keys), keys.all().count()), (Some(2), 2));
        assert!(!keys.expire(second(181)) && keys.expire(second(183)));
        assert_eq!(keys.all().count(), 1);
        assert!(keys.expire(second(421)) && keys.is_empty(), "the hard end");
        assert!(next.is_retired());
    }

    #[test]
    fn a_session_on_which_nothing_is_heard_is_asked_for_and_then_replaced() {
        let mut keys = Keyring::default();
        let first = session(second(0), true, 1);
        keys.install(second(0), Arc::clone(&first), true);
        let asks = |keys: &mut Keyring, now, in_use| keys.to_ask(second(now), in_use).is_some();
        for now in 0..3 {
            assert!(asks(&mut keys, now, false) && !keys.wants_rekey(second(now)), "{now} s");
        }
        assert!(asks(&mut keys, 3, false) && keys.wants_rekey(second(3)), "the peer does not have it, it seems");
        keys.rekeying(second(3));
        assert!(!keys.wants_rekey(second(12)) && keys.wants_rekey(second(13)), "nor is that tried all the time");
        assert!(!asks(&mut keys, 11, false), "by now the peer has dropped it");
        first.note_received(0);
        assert!(!asks(&mut keys, 14, true) && !keys.wants_rekey(second(14)), "it has it after all");

        assert!(!asks(&mut keys, 40, false), "nothing is sent to it");
        assert!(asks(&mut keys, 41, true) && !keys.wants_rekey(second(43)));
        assert!(asks(&mut keys, 44, true) && keys.wants_rekey(second(44)), "frames go out, and nothing comes");
        assert!(!asks(&mut keys, 45, false) && !keys.wants_rekey(second(45)), "no way leads there");
        assert!(asks(&mut keys, 60, true) && !keys.wants_rekey(second(62)), "it is asked anew");
        assert!(keys.wants_rekey(second(63)));
        keys.stop_asking();
        assert!(!keys.wants_rekey(second(63)));

        let mut keys = Keyring::default();
        keys.install(second(0), session(second(0), false, 2), true);
        assert!(!asks(&mut keys, 1, true) && !keys.wants_rekey(second(11)), "a responder that is not confirmed waits");
    }

    #[test]
    fn a_peer_that_answers_no_nudge_is_followed_to_the_session_that_it_has() {
        let mut keys = Keyring::default();
        let theirs = session(second(0), false, 1);
        theirs.mark_confirmed();
        keys.install(second(0), Arc::clone(&theirs), true);
        keys.install(second(1), session(second(1), true, 2), true);
        let follows: Vec<Follow> = (5..10)
            .map(|now| {
                theirs.note_received(now as u32);
                keys.follow(second(now), true)
            })
            .collect();
        assert_eq!(follows, [Follow::Nothing, Follow::Nudge, Follow::Nudge, Follow::Nudge, Follow::Switched]);
        assert_eq!(current(&keys), Some(1));
    }

    #[test]
    fn of_crossing_handshakes_both_ends_keep_the_same() {
        for (first, then) in [(true, false), (false, true)] {
            for lower in [true, false] {
                let mut keys = Keyring::default();
                for (initiator, index) in [(first, 1), (then, 2)] {
                    let session = session(second(0), initiator, index);
                    session.mark_confirmed();
                    keys.install(second(0), session, lower);
                }
                let kept = keys.current().map(|session| session.is_initiator());
                assert_eq!(kept, Some(lower), "the session whose initiator has the lower name");
            }
        }
    }
}
