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
/// How long after that its round trip is taken from the shortest: hosts that start are busy, and what they add is forgotten slowly.
const SETTLING: Duration = Duration::from_secs(15);
/// Pings in a row that the peer's may stand in for.
const MOST_SPARED: u8 = 3;
/// The peer's next ping is late after the idle pace and this. Not longer: an end whose NAT gives it another port must be heard before the
/// other, which sends to the old one, takes it for dead.
pub const SPARED_FOR: Duration = Duration::from_millis(50);
/// Pings remembered: beyond that the oldest counts as lost.
const OUTSTANDING: usize = 32;
/// A ping that was not answered for this long is lost, and counted so.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// A ping is overdue after this, however long others took: where none could be before it counts as lost, no link would ever be found dead.
const MOST_PATIENCE: Duration = Duration::from_secs(2);
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
    /// The same without what busy hosts added while the link was new.
    base: Option<Duration>,
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
            base: None,
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

    /// Takes in what the packet threads saw: when data was last heard and sent. True where the pace may be another for that.
    pub fn data(&mut self, heard: Time, sent: Time) -> bool {
        self.heard = self.heard.max(heard);
        let (latest, before) = (heard.max(sent), self.data_until);
        if latest > Time::ZERO {
            self.data_until = self.data_until.max(latest + ACTIVE_FOR);
        }
        self.data_until != before
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
        // One that lay here while this router stood still tells nothing of the way.
        if now.since(sent) < LOST_AFTER {
            self.sample(now, now.since(sent));
        }
        self.loss -= self.loss / LOSS_WEIGHT;
        self.prove(sent);
        self.heard = self.heard.max(now);
        true
    }

    fn sample(&mut self, now: Time, rtt: Duration) {
        let smoothed = self.base.map_or(rtt, |base| (base * 7 + rtt) / 8);
        self.base = Some(if now < self.young_until + SETTLING { smoothed.min(rtt) } else { smoothed });
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

    /// The round trip by which the link's cost goes, once measured: while it is new the shortest, as delays only ever add, from then on smoothed.
    pub fn base(&self) -> Option<Duration> {
        self.base
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
            Some(rtt) => (rtt + self.variation * 4 + OVERDUE).min(MOST_PATIENCE),
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
        // A ping about to be overdue speeds up the pace.
        let first = self.outstanding.iter().find(|(_, sent)| *sent >= self.proven);
        let overdue = first.map(|(_, sent)| *sent + self.patience()).filter(|overdue| *overdue > now);
        overdue.map_or(ping, |overdue| ping.min(overdue))
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
        (self.rtt, self.base) = (None, None);
        self.loss = 0;
    }
}

#[cfg(test)]
mod tests;
