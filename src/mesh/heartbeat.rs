//! Liveness of one adjacency: when to ping, when it is dead, its round trip and loss.
//!
//! ```text
//!            pong                       pong
//!          ┌──────┐   ping overdue    ┌──────┐
//!          ▼      │  ──────────────►  │      │
//!        Steady ──┘                 Suspect ─┤  deadline and 4 pings without answer
//!          ▲                            │    └────────────────────────────────────► dead
//!          └────────────────────────────┘
//! ```
//!
//! | state | pings every | while data flows |
//! | --- | --- | --- |
//! | Steady | 1 s, by one end for both; the first second of a link 150 ms | 150 ms |
//! | Suspect | 150 ms | 75 ms |
//!
//! Dead is decided by two conditions together: nothing proved both directions for the deadline, *and* at least four
//! pings that had time to be answered were not. The second keeps a router that was itself stalled from blaming the
//! network. What is heard proves only the inbound direction, so data alone merely doubles the deadline.
//!
//! Where something else says that the path is dead ([`Heartbeat::doubt`]: the kernel refuses to send, the peer's record names the link no more)
//! the pace is the fastest at once, and the deadline half of that of a link in use.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;

/// Pace of a link that carries nothing.
pub const IDLE: Duration = Duration::from_secs(1);
/// Pace of a link in use.
pub const FAST: Duration = Duration::from_millis(150);
/// Pace of a link in use whose last ping is overdue.
pub const SUSPECT: Duration = Duration::from_millis(75);
/// How long after the last frame a link counts as in use.
pub const ACTIVE_FOR: Duration = Duration::from_secs(2);
/// Without proof of life for this long, a link in use is dead: four pings at the fast pace, and a second is promised for all of it.
const DEAD_ACTIVE: Duration = Duration::from_millis(650);
/// The same for a link that something else says is dead: longer than an address takes to be replaced by another.
const DEAD_DOUBTED: Duration = Duration::from_millis(400);
/// The same for an idle link: three and a half pings.
const DEAD_IDLE: Duration = Duration::from_millis(3500);
/// Pings without answer before a link may be declared dead.
const DEAD_MISSED: usize = 4;
/// A ping is overdue after the round trip and this: an unloaded host answers within a millisecond.
const OVERDUE: Duration = Duration::from_millis(50);
/// How much later than others a datagram may arrive that was sent at the same time.
pub const LATE: Duration = Duration::from_millis(20);
/// Round trip assumed before the first was measured.
const FIRST_RTT: Duration = Duration::from_millis(150);
/// How long a new link pings at the fast pace: its cost is to be known, and what both ends lack.
const YOUNG: Duration = Duration::from_secs(1);
/// Pings in a row that the peer's may stand in for.
const MOST_SPARED: u8 = 3;
/// The peer's next ping is late after the idle pace and this. Not longer: an end whose NAT gives it another port must be heard before the
/// other, which sends to the old one, takes it for dead.
pub const SPARED_FOR: Duration = Duration::from_millis(50);
/// Pings remembered: beyond that the oldest counts as lost.
const OUTSTANDING: usize = 32;
/// A ping that was not answered for this long is lost, and counted so.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// A ping weighs so much in the share of lost ones: costs should follow the link, not the dice.
const LOSS_WEIGHT: u32 = 32;

/// What the clock asks of an adjacency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Wait,
    /// Send a ping with this sequence.
    Ping(u32),
    /// The adjacency is dead.
    Dead,
}

/// The heartbeat of one adjacency.
#[derive(Debug)]
pub struct Heartbeat {
    sequence: u32,
    /// Pings in flight, oldest first.
    outstanding: VecDeque<(u32, Time)>,
    /// When both directions were last proven.
    proven: Time,
    /// When something DIRECT was last heard.
    heard: Time,
    last_ping: Option<Time>,
    rtt: Option<Duration>,
    variation: Duration,
    /// Share of pings lost, in 1/65536.
    loss: u32,
    peer_active_until: Time,
    data_until: Time,
    /// Since when something says that the path is dead, and nothing yet that it is not.
    doubted: Option<Time>,
    /// Pings of ours in a row that one of the peer's made needless.
    spared: u8,
    young_until: Time,
}

impl Heartbeat {
    /// The heartbeat of an adjacency that was proven at `now`.
    pub fn new(now: Time) -> Heartbeat {
        Heartbeat {
            sequence: 0,
            outstanding: VecDeque::new(),
            proven: now,
            heard: now,
            last_ping: None,
            rtt: None,
            variation: Duration::ZERO,
            loss: 0,
            peer_active_until: Time::ZERO,
            data_until: Time::ZERO,
            doubted: None,
            spared: 0,
            young_until: Time::ZERO,
        }
    }

    /// The path has become a link.
    pub fn begin(&mut self, now: Time) {
        self.young_until = now + YOUNG;
    }

    /// Takes in what the packet threads saw: when data was last heard and sent.
    pub fn data(&mut self, heard: Time, sent: Time) {
        self.heard = self.heard.max(heard);
        let latest = heard.max(sent);
        if latest > Time::ZERO {
            self.data_until = self.data_until.max(latest + ACTIVE_FOR);
        }
    }

    /// True while data flows on this side.
    pub fn is_active(&self, now: Time) -> bool {
        now < self.data_until
    }

    /// True where the peer said within so long that data flows on its side.
    pub fn peer_was_active(&self, now: Time, within: Duration) -> bool {
        self.peer_active_until > Time::ZERO && now < self.peer_active_until + within
    }

    /// A DIRECT control datagram was heard; `active` where the peer says that data flows.
    pub fn heard(&mut self, now: Time, active: bool) {
        self.heard = self.heard.max(now);
        if active {
            self.peer_active_until = now + ACTIVE_FOR;
        }
    }

    /// True where something was heard in the second half of the time from `asked` to now, or later than a datagram may be held up: a question
    /// and its answer took that time, and what was sent before the question has arrived in its first half.
    pub fn heard_since(&self, now: Time, asked: Time) -> bool {
        self.heard > asked + now.since(asked) / 2 + LATE
    }

    /// The peer reports having heard us `age` ago: proof of both directions, unless it is old.
    pub fn reported(&mut self, now: Time, age: Duration) {
        let then = Time(now.0.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)));
        self.prove(then);
    }

    fn prove(&mut self, at: Time) {
        self.proven = self.proven.max(at);
        self.doubted = self.doubted.filter(|since| at < *since);
    }

    /// Something says that the path is dead.
    pub fn doubt(&mut self, now: Time) {
        self.doubted.get_or_insert(now);
    }

    /// The next ping is due at once.
    pub fn hurry(&mut self) {
        self.last_ping = None;
    }

    /// True until what was said is refuted.
    pub fn is_doubted(&self) -> bool {
        self.doubted.is_some()
    }

    /// The peer pinged, and its report proved both directions as our own ping would. While nothing flows one end's pings are enough: ours
    /// waits until the peer's next would be late, but now and then it is our turn, since only a pong measures the round trip.
    pub fn spare(&mut self, now: Time) {
        let quiet = !self.is_doubted() && !self.in_use(now) && now >= self.young_until && self.overdue(now) == 0;
        let waits = quiet && self.rtt.is_some() && self.spared < MOST_SPARED;
        if waits && now.since(self.proven) < IDLE * 2 {
            self.spared += 1;
            self.last_ping = Some(now);
        }
    }

    /// A pong arrived. False where no such ping is outstanding.
    pub fn pong(&mut self, now: Time, sequence: u32) -> bool {
        let Some(at) = self.outstanding.iter().position(|(s, _)| *s == sequence) else { return false };
        let Some((_, sent)) = self.outstanding.remove(at) else { return false };
        self.sample(now.since(sent));
        self.loss -= self.loss / LOSS_WEIGHT;
        self.prove(sent);
        self.heard = self.heard.max(now);
        true
    }

    fn sample(&mut self, rtt: Duration) {
        match self.rtt {
            None => {
                self.rtt = Some(rtt);
                self.variation = rtt / 2;
            }
            Some(old) => {
                self.variation = (self.variation * 3 + old.abs_diff(rtt)) / 4;
                self.rtt = Some((old * 7 + rtt) / 8);
            }
        }
    }

    /// Smoothed round trip, once measured.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Share of pings lost, 0 to 1.
    pub fn loss(&self) -> f64 {
        f64::from(self.loss) / 65536.0
    }

    /// Milliseconds since anything was heard, for the report in a ping.
    pub fn age(&self, now: Time) -> u16 {
        u16::try_from(now.since(self.heard).as_millis()).unwrap_or(u16::MAX)
    }

    /// The time by which a ping sent now should be answered.
    fn patience(&self) -> Duration {
        match self.rtt {
            Some(rtt) => rtt + self.variation * 4 + OVERDUE,
            None => FIRST_RTT + OVERDUE,
        }
    }

    fn overdue(&self, now: Time) -> usize {
        let patience = self.patience();
        self.outstanding.iter().filter(|(_, sent)| *sent >= self.proven && now.since(*sent) >= patience).count()
    }

    fn in_use(&self, now: Time) -> bool {
        self.is_active(now) || now < self.peer_active_until
    }

    fn interval(&self, now: Time) -> Duration {
        if self.doubted.is_some() {
            return SUSPECT;
        }
        match (self.in_use(now), self.overdue(now) > 0) {
            (true, true) => SUSPECT,
            (true, false) | (false, true) => FAST,
            (false, false) if now < self.young_until => FAST,
            (false, false) if self.spared > 0 => IDLE + SPARED_FOR,
            (false, false) => IDLE,
        }
    }

    fn deadline(&self, now: Time) -> Duration {
        if self.doubted.is_some() {
            return DEAD_DOUBTED + self.rtt.unwrap_or(Duration::ZERO);
        }
        let base = if self.in_use(now) { DEAD_ACTIVE } else { DEAD_IDLE };
        let base = base + self.rtt.unwrap_or(Duration::ZERO);
        // The inbound direction lives: pongs may be late behind the data.
        if now.since(self.heard) < FAST { base * 2 } else { base }
    }

    /// When [`Heartbeat::poll`] is due again.
    pub fn due(&self, now: Time) -> Time {
        let Some(last) = self.last_ping else { return now };
        if self.doubted.is_some_and(|since| last < since) {
            return now;
        }
        let ping = last + self.interval(now);
        match self.outstanding.front() {
            // A ping about to be overdue speeds up the pace.
            Some((_, sent)) if *sent >= self.proven => {
                let overdue = *sent + self.patience();
                if overdue > now { ping.min(overdue) } else { ping }
            }
            _ => ping,
        }
    }

    /// What is to be done now.
    pub fn poll(&mut self, now: Time) -> Verdict {
        while let Some((_, sent)) = self.outstanding.front() {
            if now.since(*sent) < LOST_AFTER && self.outstanding.len() < OUTSTANDING {
                break;
            }
            self.outstanding.pop_front();
            self.loss += (65536 - self.loss) / LOSS_WEIGHT;
        }
        let silent = now.since(self.proven.max(self.doubted.unwrap_or(Time::ZERO)));
        if self.overdue(now) >= DEAD_MISSED && silent >= self.deadline(now) {
            return Verdict::Dead;
        }
        let unasked = |last: Time| self.doubted.is_some_and(|since| last < since);
        let due = self.last_ping.is_none_or(|last| unasked(last) || now >= last + self.interval(now));
        if !due {
            return Verdict::Wait;
        }
        self.spared = 0;
        self.sequence = self.sequence.wrapping_add(1);
        self.last_ping = Some(now);
        self.outstanding.push_back((self.sequence, now));
        Verdict::Ping(self.sequence)
    }

    /// The peer was found at another address: start from there.
    pub fn moved(&mut self, now: Time) {
        self.outstanding.clear();
        self.proven = now;
        self.doubted = None;
        self.rtt = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn pings_of_before_the_last_proof_of_life_convict_nobody() {
        let mut beat = Heartbeat::new(Time::ZERO);
        for ms in 0..600 {
            beat.data(Time::ZERO, Time(ms * MS));
            beat.poll(Time(ms * MS));
        }
        assert!(beat.outstanding.len() > DEAD_MISSED);
        // The peer's word is that it has heard us, and then this router gets no processor for a while.
        beat.reported(Time(600 * MS), Duration::ZERO);
        assert!(matches!(beat.poll(Time(2500 * MS)), Verdict::Ping(_)));
    }

    /// Runs a heartbeat against a peer that answers after `rtt` until `cut`; returns (pings, time of death).
    fn run(active: bool, cut: u64, until: u64) -> (usize, Option<u64>) {
        let mut beat = Heartbeat::new(Time::ZERO);
        let mut pings = 0;
        let mut answers: VecDeque<(u64, u32)> = VecDeque::new();
        for ms in 0..until {
            let now = Time(ms * MS);
            if active {
                beat.data(Time::ZERO, now);
            }
            while answers.front().is_some_and(|(at, _)| *at <= ms) {
                let (_, sequence) = answers.pop_front().expect("checked");
                assert!(beat.pong(now, sequence));
            }
            match beat.poll(now) {
                Verdict::Wait => {}
                Verdict::Ping(sequence) => {
                    pings += 1;
                    if ms < cut {
                        answers.push_back((ms + 10, sequence));
                    }
                }
                Verdict::Dead => return (pings, Some(ms)),
            }
        }
        (pings, None)
    }

    #[test]
    fn idle_links_ping_once_a_second_and_die_within_four() {
        assert_eq!(run(false, u64::MAX, 10_000), (10, None));
        let (_, dead) = run(false, 5_000, 20_000);
        assert!((7_500..9_000).contains(&dead.expect("dies")), "{dead:?}");
    }

    #[test]
    fn busy_links_die_within_a_second() {
        assert_eq!(run(true, u64::MAX, 2_000), (14, None));
        for cut in 5_000..5_200 {
            let dead = run(true, cut, 20_000).1.expect("dies");
            assert!(dead - cut < 750, "cut {cut} dead {dead}");
        }
    }

    #[test]
    fn a_stall_of_our_own_kills_nothing() {
        let mut beat = Heartbeat::new(Time::ZERO);
        assert_eq!(beat.poll(Time::ZERO), Verdict::Ping(1));
        assert!(beat.pong(Time(MS), 1));
        assert!(matches!(beat.poll(Time(60_000 * MS)), Verdict::Ping(2)));
        assert!(matches!(beat.poll(Time(60_100 * MS)), Verdict::Wait));
    }

    #[test]
    fn a_doubt_is_refuted_by_an_answer_or_soon_the_death() {
        let mut beat = Heartbeat::new(Time::ZERO);
        assert_eq!(beat.poll(Time::ZERO), Verdict::Ping(1));
        assert!(beat.pong(Time(5 * MS), 1));
        beat.doubt(Time(10 * MS));
        assert_eq!((beat.due(Time(10 * MS)), beat.poll(Time(10 * MS))), (Time(10 * MS), Verdict::Ping(2)), "it is asked at once");
        beat.reported(Time(12 * MS), Duration::from_millis(4));
        assert!(beat.is_doubted(), "what was proven before refutes nothing");
        assert!(beat.pong(Time(15 * MS), 2) && !beat.is_doubted());
        beat.doubt(Time(20 * MS));
        let dead = (20..2000).find(|ms| beat.poll(Time(ms * MS)) == Verdict::Dead);
        assert!(dead.is_some_and(|dead| (400..600).contains(&dead)), "{dead:?}");
    }

    #[test]
    fn a_spared_ping_is_due_once_the_link_is_doubted_or_in_use() {
        let spared = || {
            let mut beat = Heartbeat::new(Time::ZERO);
            assert_eq!(beat.poll(Time::ZERO), Verdict::Ping(1));
            assert!(beat.pong(Time(5 * MS), 1));
            beat.reported(Time(500 * MS), Duration::ZERO);
            beat.spare(Time(500 * MS));
            assert_eq!(beat.due(Time(510 * MS)), Time(500 * MS) + IDLE + SPARED_FOR);
            beat
        };
        let mut beat = spared();
        beat.doubt(Time(510 * MS));
        assert_eq!(beat.poll(Time(510 * MS)), Verdict::Ping(2), "a doubt does not wait for the peer's next ping");
        beat.spare(Time(520 * MS));
        assert!(beat.due(Time(520 * MS)) <= Time(510 * MS) + SUSPECT, "and the peer's ping does not stand in for its answer");
        let mut beat = spared();
        beat.data(Time::ZERO, Time(510 * MS));
        assert_eq!(beat.due(Time(510 * MS)), Time(500 * MS) + FAST, "nor does data");
    }

    #[test]
    fn of_two_ends_that_carry_nothing_one_pings_and_either_notices_the_end() {
        let mut ends = [Heartbeat::new(Time::ZERO), Heartbeat::new(Time::ZERO)];
        let (mut pings, mut dead) = ([0, 0], [None, None]);
        for ms in 0..70_000u64 {
            let now = Time(ms * MS);
            for one in [0, 1] {
                match ends[one].poll(now) {
                    Verdict::Ping(sequence) if ms < 60_000 => {
                        pings[one] += 1;
                        let age = ends[one].age(now);
                        ends[1 - one].heard(now, false);
                        ends[1 - one].reported(now, Duration::from_millis(u64::from(age)));
                        ends[1 - one].spare(now);
                        assert!(ends[one].pong(now, sequence));
                    }
                    Verdict::Dead => dead[one] = dead[one].or(Some(ms)),
                    Verdict::Ping(_) | Verdict::Wait => {}
                }
            }
        }
        assert!(pings[0] + pings[1] < 90 && pings[0].min(pings[1]) > 10, "{pings:?}");
        assert!(dead.iter().all(|dead| dead.is_some_and(|ms| (62_000..65_000).contains(&ms))), "{dead:?}");
    }

    #[test]
    fn loss_is_measured() {
        let mut beat = Heartbeat::new(Time::ZERO);
        for second in 0..200u64 {
            let now = Time(second * 1000 * MS);
            if let Verdict::Ping(sequence) = beat.poll(now)
                && sequence % 2 == 0
            {
                beat.pong(now + Duration::from_millis(5), sequence);
            }
        }
        assert!((0.3..0.7).contains(&beat.loss()), "{}", beat.loss());
        assert_eq!(beat.rtt(), Some(Duration::from_millis(5)));
    }
}
