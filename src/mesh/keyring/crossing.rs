//! Two handshakes with one peer at any time from each other, over a wire that delays and loses: both ends must come to use a session that the
//! other has.

use proptest::prelude::*;

use super::*;
use crate::crypto::{Exchange, Providers, Root, Suite, Terms};
use crate::wire::{Header, Kind, PeerName, TAG_LEN};

/// Step of the clock, in milliseconds.
const STEP: u64 = 20;
/// Before the next replacement of keys.
const END: u64 = 115_000;
/// By then both ends use a session that the other has, and go on doing so: what was in flight has arrived, and each has looked twice.
const SETTLED: u64 = 12_000;

/// What travels.
#[derive(Clone, Debug)]
enum What {
    /// A first message of the handshake with this number.
    First(u32),
    /// The answer to it.
    Answer(u32),
    /// A sealed datagram on the session with this number.
    Sealed(u32, Vec<u8>),
}

/// What happens on the wire.
#[derive(Clone, Debug)]
struct Wire {
    /// How long after the first handshake the second begins, in milliseconds; the lower name begins the first one where that is true.
    offset: u64,
    lower_first: bool,
    /// How long first messages and answers of each handshake take, repetitions included.
    slow: [[u64; 2]; 2],
    delay: u64,
    /// Between two datagrams of each end; `None` where it sends none of its own.
    gaps: [Option<u64>; 2],
    /// Which of the first datagrams of each end are lost.
    lost: [u16; 2],
}

struct End {
    keys: Keyring,
    lower: bool,
    sent: u32,
    unheard: u64,
}

struct Play {
    wire: Wire,
    /// False for ends that go by their clocks alone.
    follow: bool,
    now: u64,
    ends: [End; 2],
    /// When it arrives, at which end, and what.
    flying: Vec<(u64, usize, What)>,
}

fn time(ms: u64) -> Time {
    Time((ms + 1000) * 1_000_000)
}

fn session(number: u32, initiator: bool, now: Time) -> Arc<Session> {
    let (suite, root) = (Suite::ChaCha20Poly1305, Root::from_bytes([number as u8; 32]));
    let provider = Providers::default().get(suite);
    let (peer, exchange) = (PeerName([2; 6]), Exchange::Hybrid);
    let terms = Terms {
        peer,
        initiator,
        local_index: number,
        remote_index: number,
        suite,
        provider,
        lanes: 0,
        plain: false,
        exchange,
        network: "weave",
    };
    let mut session = Session::from_root(&root, &terms).expect("every build has this suite");
    session.set_established(now);
    Arc::new(session)
}

impl Play {
    fn new(wire: Wire, follow: bool) -> Play {
        let end = |lower| End { keys: Keyring::default(), lower, sent: 0, unheard: 0 };
        Play { wire, follow, now: 0, ends: [end(true), end(false)], flying: Vec::new() }
    }

    /// The end that begins handshake 1 or 2.
    fn initiator(&self, number: u32) -> usize {
        usize::from(self.wire.lower_first == (number == 2))
    }

    fn run(&mut self) {
        while self.now < END {
            self.begin();
            let (arrived, flying) = std::mem::take(&mut self.flying).into_iter().partition(|(at, ..)| *at <= self.now);
            self.flying = flying;
            let arrived: Vec<(u64, usize, What)> = arrived;
            arrived.into_iter().for_each(|(_, end, what)| self.arrive(end, what));
            (0..2).for_each(|end| self.tick(end));
            self.now += STEP;
        }
    }

    fn begin(&mut self) {
        for (number, at) in [(1, 0), (2, self.wire.offset / STEP * STEP)] {
            if self.now == at {
                let slow = self.wire.slow[number as usize - 1][0];
                self.flying.push((at + slow, 1 - self.initiator(number), What::First(number)));
            }
        }
    }

    fn arrive(&mut self, end: usize, what: What) {
        let (now, settled) = (time(self.now), self.settled());
        let own = &mut self.ends[end];
        match what {
            What::First(number) => {
                own.keys.install(now, session(number, false, now), own.lower);
                let slow = self.wire.slow[number as usize - 1][1];
                self.flying.push((self.now + slow, 1 - end, What::Answer(number)));
            }
            What::Answer(number) => {
                let ours = session(number, true, now);
                ours.mark_confirmed();
                own.keys.install(now, Arc::clone(&ours), own.lower);
                self.seal(end, &ours);
            }
            What::Sealed(number, mut bytes) => {
                let Some(theirs) = own.keys.by_index(number).cloned() else {
                    own.unheard += u64::from(self.now > settled);
                    return;
                };
                let header = Header::parse(&bytes).expect("a header");
                assert!(theirs.open(&header, &mut bytes).is_ok());
                if own.keys.promote(now, own.lower) {
                    self.seal(end, &theirs);
                }
            }
        }
    }

    fn settled(&self) -> u64 {
        let slow = self.wire.slow;
        (slow[0][0] + slow[0][1]).max(self.wire.offset + slow[1][0] + slow[1][1]) + SETTLED
    }

    fn tick(&mut self, end: usize) {
        let now = time(self.now);
        if self.now % 1000 == 500 * end as u64 {
            let own = &mut self.ends[end];
            own.keys.promote(now, own.lower);
            let follow = if self.follow { own.keys.follow(now, own.lower) } else { Follow::Nothing };
            own.keys.expire(now);
            if follow == Follow::Nudge {
                self.seal_current(end);
            }
        }
        if self.wire.gaps[end].is_some_and(|gap| self.now.is_multiple_of(gap / STEP * STEP)) {
            self.seal_current(end);
        }
    }

    fn seal_current(&mut self, end: usize) {
        if let Some(current) = self.ends[end].keys.current().cloned() {
            self.seal(end, &current);
        }
    }

    fn seal(&mut self, end: usize, session: &Session) {
        let Some(counter) = session.reserve(0, 1) else { return };
        let header = Header {
            kind: Kind::ControlDirect,
            hop_limit: 1,
            lane: 0,
            label: 0,
            destination: PeerName([2; 6]),
            index: session.remote_index(),
            counter,
        };
        let mut bytes = [&header.to_bytes()[..], &[0; TAG_LEN]].concat();
        session.seal(0, counter, &mut bytes);
        let own = &mut self.ends[end];
        own.sent += 1;
        if own.sent > 16 || self.wire.lost[end] & 1 << (own.sent - 1) == 0 {
            self.flying.push((self.now + self.wire.delay, 1 - end, What::Sealed(session.remote_index(), bytes)));
        }
    }
}

fn unheard(wire: Wire) -> u64 {
    played(wire, true)
}

fn played(wire: Wire, follow: bool) -> u64 {
    let mut play = Play::new(wire, follow);
    play.run();
    play.ends.iter().map(|end| end.unheard).sum()
}

/// Where all take the same time the two clocks agree.
fn plain(offset: u64, lower_first: bool) -> Wire {
    Wire { offset, lower_first, slow: [[60; 2]; 2], delay: 260, gaps: [Some(1000); 2], lost: [0; 2] }
}

#[test]
fn clocks_alone_would_part_them_at_the_border() {
    let lost: Vec<u64> = (0..8000).step_by(STEP as usize).map(|offset| played(plain(offset, true), false)).collect();
    assert!(lost.iter().any(|unheard| *unheard > 50), "{lost:?}");
    assert!(lost.iter().filter(|unheard| **unheard > 0).count() < 20, "it takes bad luck");
}

#[test]
fn at_any_offset_both_ends_come_to_use_a_session_that_the_other_has() {
    for offset in (0..8000).step_by(STEP as usize) {
        for lower_first in [true, false] {
            assert_eq!(unheard(plain(offset, lower_first)), 0, "{offset} ms, {lower_first}");
            for quiet in 0..2 {
                let mut wire = plain(offset, lower_first);
                wire.gaps[quiet] = None;
                assert_eq!(unheard(wire), 0, "{offset} ms, {lower_first}, end {quiet} sends nothing of its own");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn over_a_wire_that_delays_and_loses_too(
        offset in 0u64..12_000,
        lower_first: bool,
        slow in prop::array::uniform2(prop::array::uniform2(20u64..2500)),
        delay in 20u64..400,
        gaps in prop::array::uniform2(150u64..1000),
        lost: [u16; 2],
    ) {
        let wire = Wire { offset, lower_first, slow, delay, gaps: gaps.map(Some), lost: lost.map(|lost| lost & 0x000f) };
        prop_assert_eq!(unheard(wire), 0);
    }
}
