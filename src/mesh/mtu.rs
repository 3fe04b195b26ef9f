//! Search for the largest UDP payload that fits the path to a neighbour, by padded probes (the socket sets DF).
//!
//! ```text
//!  Searching ── three rounds over ──► Settled ── every 60 s ──► Searching (upwards)
//!      ▲                                 │
//!      └── "too big", or three checks of the settled size lost ──┘ (from the base)
//! ```
//!
//! A round probes every candidate above what is proven at once, so that a path is known one round trip after
//! link-up; rounds repeat because probes are lost too. Links work at the base size from the start, but until the first
//! search is over nobody is told that something larger does not fit: hosts remember that for minutes. A peer answers probes once it knows
//! this path as its own, which its first ping says: rounds before that may have been in vain, and are repeated. What was proven early in a search
//! may hold no more at its end, where the path has changed meanwhile: whoever has said so has it checked then.

use std::time::Duration;

use crate::time::Time;
use crate::wire::Address;

/// UDP payload that every path is trusted to carry: IPv6's least MTU of 1280 less its headers.
pub const BASE: u16 = 1232;
/// Over IPv4: 9000 (jumbo), 1500, 1492 (PPPoE), 1480 (a tunnel), 1450 (VXLAN), 1420 (WireGuard), 1400, 1360, all less 28.
const CANDIDATES_V4: [u16; 8] = [8972, 1472, 1464, 1452, 1422, 1392, 1372, 1332];
/// The same over IPv6, less 48.
const CANDIDATES_V6: [u16; 8] = [8952, 1452, 1444, 1432, 1402, 1372, 1352, 1312];
/// Rounds of one search, and lost checks that start another.
const ROUNDS: u8 = 3;
/// Between rounds: longer than the round trip of most paths, and link-up should not wait for it.
const ROUND_GAP: Duration = Duration::from_millis(100);
/// After the last round of a search: answers may take as long as the longest round trips.
const LAST_GAP: Duration = Duration::from_millis(700);
/// Between searches upwards.
const SEARCH_EVERY: Duration = Duration::from_secs(60);
/// Between checks that the settled size still fits.
const CHECK_EVERY: Duration = Duration::from_secs(15);
/// Between the repetitions of a check that was not answered.
const CHECK_GAP: Duration = Duration::from_millis(500);
/// At most one "too big" in this time starts a search.
const TOO_BIG_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Probing every candidate above the proven size; so many rounds are left.
    Searching { rounds: u8 },
    /// The size is known; so many checks in a row were lost.
    Settled { lost: u8, search_at: Time },
}

/// The search of one path.
#[derive(Debug)]
pub struct MtuSearch {
    candidates: &'static [u16],
    proven: u16,
    state: State,
    /// False until the first search has ended, and again after a restart.
    settled: bool,
    /// True until the first search has ended.
    first: bool,
    /// True once the peer answers probes.
    answers: bool,
    /// True while somebody has given a reason to look.
    hurried: bool,
    /// True where somebody gave a reason to look during a search: what it has proven is checked once it is over.
    recheck: bool,
    due: Time,
    nonce: u32,
    last_too_big: Option<Time>,
}

impl MtuSearch {
    /// A search towards `address`, starting at once.
    pub fn new(now: Time, address: Address) -> MtuSearch {
        let candidates: &'static [u16] = if address.underlay_overhead() == 28 { &CANDIDATES_V4 } else { &CANDIDATES_V6 };
        let state = State::Searching { rounds: ROUNDS };
        MtuSearch {
            candidates,
            proven: BASE,
            state,
            settled: false,
            first: true,
            answers: false,
            hurried: false,
            recheck: false,
            due: now,
            nonce: 0,
            last_too_big: None,
        }
    }

    /// True while nothing is known of the path but what the first search has found so far.
    pub fn is_first_search(&self) -> bool {
        self.first
    }

    /// True once a search has come to its end, and until one starts again from the base size.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// The size known to fit.
    pub fn max_datagram(&self) -> u16 {
        self.proven
    }

    /// When [`MtuSearch::poll`] is due again.
    pub fn due(&self) -> Time {
        self.due
    }

    /// Probes to send now, as (nonce, size).
    pub fn poll(&mut self, now: Time) -> Vec<(u32, u16)> {
        self.hurried = false;
        if now < self.due {
            return Vec::new();
        }
        match self.state {
            State::Searching { rounds: 0 } => self.settle(now),
            State::Searching { rounds } => {
                let sizes: Vec<u16> = self.candidates.iter().copied().filter(|size| *size > self.proven).collect();
                if sizes.is_empty() {
                    self.settle(now);
                    return Vec::new();
                }
                self.state = State::Searching { rounds: rounds - 1 };
                self.due = now + if rounds == 1 { LAST_GAP } else { ROUND_GAP };
                return sizes.into_iter().map(|size| (self.next_nonce(), size)).collect();
            }
            State::Settled { search_at, lost: 0 } if now >= search_at => {
                self.state = State::Searching { rounds: ROUNDS };
                return self.poll(now);
            }
            State::Settled { lost: ROUNDS.., .. } => {
                self.restart(now);
                return self.poll(now);
            }
            State::Settled { lost, search_at } => {
                self.state = State::Settled { lost: lost + 1, search_at };
                self.due = now + CHECK_GAP;
                return vec![(self.next_nonce(), self.proven)];
            }
        }
        Vec::new()
    }

    fn settle(&mut self, now: Time) {
        (self.settled, self.first) = (true, false);
        self.state = State::Settled { lost: 0, search_at: now + SEARCH_EVERY };
        self.hurried = std::mem::take(&mut self.recheck) && self.proven > BASE;
        self.due = if self.hurried { now } else { now + CHECK_EVERY };
    }

    fn restart(&mut self, now: Time) {
        self.proven = BASE;
        self.settled = false;
        self.state = State::Searching { rounds: ROUNDS };
        self.due = now;
    }

    fn next_nonce(&mut self) -> u32 {
        self.nonce = self.nonce.wrapping_add(1);
        self.nonce
    }

    /// A probe was answered. True where the known size grew.
    pub fn probed(&mut self, now: Time, nonce: u32, size: u16) -> bool {
        // An answer to an older probe is of use too, but not one of before a restart long ago.
        if self.nonce.wrapping_sub(nonce) > 64 || !(size == BASE || self.candidates.contains(&size)) {
            return false;
        }
        match self.state {
            State::Settled { search_at, .. } => {
                if size >= self.proven {
                    self.state = State::Settled { lost: 0, search_at };
                    self.due = now + CHECK_EVERY;
                }
            }
            State::Searching { .. } => {}
        }
        self.answers = true;
        let grew = size > self.proven;
        self.proven = self.proven.max(size);
        grew
    }

    /// The peer pings: it knows the path, and answers probes from now on.
    pub fn peer_answers(&mut self, now: Time) {
        if !std::mem::replace(&mut self.answers, true) && self.proven == BASE {
            self.state = State::Searching { rounds: ROUNDS };
            self.due = now;
        }
    }

    /// Somebody says that a datagram was too big on its way, which may not be true: the settled size is checked now instead of later.
    pub fn check_soon(&mut self, now: Time) {
        match self.state {
            State::Settled { lost: 0, .. } => {
                self.due = self.due.min(now);
                self.hurried = true;
            }
            State::Settled { .. } => {}
            State::Searching { .. } => self.recheck = true,
        }
    }

    /// The interface that leads to the peer takes other sizes than before, no payload larger than `largest`: what does not fit any more is given up,
    /// and what may fit now is looked for. True where a search from the base size begins.
    pub fn resized(&mut self, now: Time, largest: u16) -> bool {
        if self.proven > largest.max(BASE) {
            self.restart(now);
            return true;
        }
        if let State::Settled { lost, .. } = self.state {
            self.state = State::Settled { lost, search_at: now };
        }
        self.check_soon(now);
        false
    }

    /// True where the next look should not be put off, though nothing uses the path.
    pub fn is_hurried(&self) -> bool {
        self.hurried || matches!(self.state, State::Settled { lost: 1.., .. })
    }

    /// The kernel refused a datagram as too big. True where a new search begins. One that is going on is not begun anew: what was sent before
    /// it began may explain the refusal.
    pub fn too_big(&mut self, now: Time) -> bool {
        let recent = self.last_too_big.is_some_and(|last| now.since(last) < TOO_BIG_EVERY);
        match self.state {
            State::Settled { .. } if !recent => {
                self.last_too_big = Some(now);
                self.restart(now);
                true
            }
            State::Settled { .. } => false,
            State::Searching { .. } => {
                self.recheck = true;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(search: &mut MtuSearch, from_ms: u64, to_ms: u64, fits: u16) -> usize {
        let mut probes = 0;
        for ms in from_ms..to_ms {
            let now = Time(ms * 1_000_000);
            for (nonce, size) in search.poll(now) {
                probes += 1;
                if size <= fits {
                    search.probed(now, nonce, size);
                }
            }
        }
        probes
    }

    #[test]
    fn finds_the_size_grows_and_shrinks() {
        let address = Address::udp("10.0.0.1:6783".parse().expect("an address"));
        let mut search = MtuSearch::new(Time::ZERO, address);
        assert_eq!(search.max_datagram(), BASE);
        assert!(run(&mut search, 0, 1, 1472) > 0);
        assert_eq!(search.max_datagram(), 1472, "one round trip is enough");
        run(&mut search, 1, 30_000, 1472);
        run(&mut search, 30_000, 130_000, 8972);
        assert_eq!(search.max_datagram(), 8972);
        run(&mut search, 130_000, 150_000, 1392);
        assert_eq!(search.max_datagram(), 1392, "a black hole is found by checks");
        assert!(search.too_big(Time(150_000_000_000)));
        assert!(!search.too_big(Time(150_000_000_001)));
        assert_eq!(search.max_datagram(), BASE);
        run(&mut search, 150_000, 151_000, 1392);
        assert_eq!(search.max_datagram(), 1392);
    }

    #[test]
    fn a_path_is_settled_after_its_first_search_and_until_it_starts_again() {
        let address = Address::udp("10.0.0.1:6783".parse().expect("an address"));
        let mut search = MtuSearch::new(Time::ZERO, address);
        run(&mut search, 0, 500, 1472);
        assert!(!search.is_settled(), "answers may be under way");
        run(&mut search, 500, 1000, 1472);
        assert!(search.is_settled());
        run(&mut search, 1000, 62_000, 1472);
        assert!(search.is_settled(), "to look for more is no restart");
        assert!(search.too_big(Time(62_000_000_000)) && !search.is_settled());
        run(&mut search, 62_000, 63_000, 1392);
        assert_eq!((search.is_settled(), search.max_datagram()), (true, 1392));
    }

    #[test]
    fn rounds_that_the_peer_could_not_answer_yet_are_repeated_once_it_can() {
        let address = Address::udp("10.0.0.1:6783".parse().expect("an address"));
        for ready in [250, 2000] {
            let mut search = MtuSearch::new(Time::ZERO, address);
            assert!(run(&mut search, 0, ready, 0) >= 3 * 8);
            search.peer_answers(Time(ready * 1_000_000));
            run(&mut search, ready, ready + 1, 1472);
            assert_eq!(search.max_datagram(), 1472, "within one round trip of the first ping after {ready} ms");
            run(&mut search, ready + 1, ready + 2000, 1472);
            search.peer_answers(Time((ready + 2000) * 1_000_000));
            assert_eq!(run(&mut search, ready + 2000, ready + 2500, 1472), 0, "further pings are nothing new");
        }
    }

    #[test]
    fn what_shrinks_during_a_search_is_found_at_its_end() {
        let address = Address::udp("10.0.0.1:6783".parse().expect("an address"));
        for told in [MtuSearch::check_soon as fn(&mut MtuSearch, Time), |search, now| assert!(!search.too_big(now))] {
            let mut search = MtuSearch::new(Time::ZERO, address);
            run(&mut search, 0, 150, 1472);
            told(&mut search, Time(150_000_000));
            run(&mut search, 150, 910, 1392);
            assert!(search.is_hurried(), "whether or not anything uses the path");
            run(&mut search, 910, 1000, 1392);
            assert!(search.is_hurried(), "one lost check is followed by another soon");
            run(&mut search, 1000, 2500, 1392);
            assert_eq!(search.max_datagram(), 1392);
            run(&mut search, 2500, 4000, 1392);
            assert_eq!((search.is_settled(), search.is_hurried()), (true, false));
        }
    }

    #[test]
    fn an_interface_that_is_resized_is_measured_at_once() {
        let address = Address::udp("10.0.0.1:6783".parse().expect("an address"));
        let mut search = MtuSearch::new(Time::ZERO, address);
        run(&mut search, 0, 2000, 1472);
        assert!(search.resized(Time(2_000_000_000), 1372), "narrower than what is in use");
        run(&mut search, 2000, 2001, 1372);
        assert_eq!(search.max_datagram(), 1372);
        run(&mut search, 2001, 4000, 1372);
        assert!(!search.resized(Time(4_000_000_000), 8972), "wider");
        assert!(search.is_hurried() && search.is_settled(), "what is in use holds meanwhile");
        run(&mut search, 4000, 4001, 8972);
        assert_eq!(search.max_datagram(), 8972);
        run(&mut search, 4001, 6000, 8972);
        assert!(search.resized(Time(6_000_000_000), 500));
        assert!(!search.resized(Time(6_000_000_001), 500), "nothing is below the base");
    }

    #[test]
    fn a_settled_path_is_quiet() {
        let address = Address::udp("[fd00::1]:6783".parse().expect("an address"));
        let mut search = MtuSearch::new(Time::ZERO, address);
        run(&mut search, 0, 1000, 1452);
        assert!(run(&mut search, 1000, 59_000, 1452) <= 4);
        assert!(!search.probed(Time(60_000_000_000), search.nonce, 7777), "only candidates count");
    }
}
