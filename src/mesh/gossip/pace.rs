//! How much of others' news is taken, and how much they are answered: a member that says or asks more than any honest one has to is not heard at
//! its own speed, and does not keep others from being heard.
//!
//! * Each **origin** has a share, whoever passes its records on.
//! * Each **neighbour** has shares of its own: of records looked at, of routers never heard of, of messages in answer. They outlive the link, so
//!   that to close and open it again wins nothing.
//! * No honest router passes on a record whose **signature does not hold**, as each is checked before. Whoever does so again and again is not
//!   listened to for a while, or it could use up the shares of those in whose names it speaks.
//!
//! What is passed over here is no loss: who still has something to say is heard a little later, by the next agreement.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Output;
use super::store::Store;
use crate::forward::limit::TokenBucket;
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::record::Record;

/// Records of one origin per second, and the burst: all that one may keep, twice.
const ORIGIN_RATE: (u64, u64) = (64, 512);
/// Records of one neighbour per second, and the burst: all those of a large mesh at once.
const NEWS_RATE: (u64, u64) = (2000, 65_536);
/// Origins never heard of, per second, and the burst: half as many again as in the largest mesh.
const NEW_RATE: (u64, u64) = (500, 12_288);
/// Messages in answer to one neighbour per second, and the burst: as many as it takes to tell it everything.
const ANSWER_RATE: (u64, u64) = (1000, 16_384);
/// Records whose signature does not hold, per second, and the burst.
const FORGED_RATE: (u64, u64) = (1, 16);
/// Whoever exceeds that is not listened to for this long.
const DEAF: Duration = Duration::from_secs(10);
/// Neighbours, of now and before, whose shares are remembered.
const MOST_SHARES: usize = 512;

/// What one origin may say. There is one of these for each router of the mesh, so it is the smallest form of a token bucket: the moment at
/// which it is full.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OriginShare {
    full_at: Time,
}

impl OriginShare {
    /// Takes one record; false where that is too many.
    pub(super) fn take(&mut self, now: Time) -> bool {
        const EACH: u64 = 1_000_000_000 / ORIGIN_RATE.0;
        let full_at = self.full_at.max(now).0.saturating_add(EACH);
        let may = full_at - now.0 <= EACH * ORIGIN_RATE.1;
        if may {
            self.full_at = Time(full_at);
        }
        may
    }
}

/// How long news are counted that tell how restless the mesh is.
const MOMENT: Duration = Duration::from_secs(1);

/// How many routers of the mesh say lately that they have other links than before.
#[derive(Debug, Default)]
pub(super) struct Unrest {
    since: Time,
    /// In this moment and the one before.
    counts: [u32; 2],
}

impl Unrest {
    fn pass(&mut self, now: Time) {
        let passed = now.since(self.since);
        if passed >= MOMENT {
            self.counts = [0, if passed < MOMENT * 2 { self.counts[0] } else { 0 }];
            self.since = now;
        }
    }

    fn note(&mut self, now: Time) {
        self.pass(now);
        self.counts[0] = self.counts[0].saturating_add(1);
    }
}

impl Store {
    /// A router says that it has other links than before. Each counts once in a moment, and made-up ones do not.
    pub(super) fn note_unrest(&mut self, now: Time, name: PeerName) {
        let origin = self.origins.get_mut(&name).filter(|origin| origin.unreachable_since.is_none());
        if let Some(origin) = origin.filter(|origin| now.since(origin.restless) >= MOMENT) {
            origin.restless = now;
            self.unrest.note(now);
        }
    }

    /// How many routers said within a second lately that they have other links than before. What a newcomer is told of all counts for nothing.
    pub fn unrest(&mut self, now: Time) -> u32 {
        self.unrest.pass(now);
        self.unrest.counts.into_iter().max().unwrap_or(0)
    }
}

/// What one neighbour may cost.
#[derive(Debug)]
struct Share {
    news: TokenBucket,
    newcomers: TokenBucket,
    answers: TokenBucket,
    forged: TokenBucket,
    deaf_until: Time,
}

impl Default for Share {
    fn default() -> Share {
        let bucket = |(rate, burst)| TokenBucket::new(rate, burst);
        let [news, newcomers, answers, forged] = [NEWS_RATE, NEW_RATE, ANSWER_RATE, FORGED_RATE].map(bucket);
        Share { news, newcomers, answers, forged, deaf_until: Time::ZERO }
    }
}

/// The shares of all neighbours.
#[derive(Debug, Default)]
pub(super) struct Shares {
    by_neighbour: BTreeMap<PeerName, Share>,
}

impl Shares {
    fn of(&mut self, neighbour: PeerName) -> &mut Share {
        if self.by_neighbour.len() >= MOST_SHARES && !self.by_neighbour.contains_key(&neighbour) {
            self.by_neighbour.pop_first();
        }
        self.by_neighbour.entry(neighbour).or_default()
    }
}

impl Store {
    /// Records that are asked for.
    pub fn requests(&self) -> usize {
        self.asked.len()
    }

    /// Whether this news is to be looked at now, as far as the shares of its origin and of the neighbour that it came `from` go.
    pub(super) fn is_in_pace(&mut self, now: Time, from: PeerName, record: &Record) -> bool {
        let name = record.id().name;
        let share = self.shares.of(from);
        if now < share.deaf_until || !share.news.take(now, 1) {
            return false;
        }
        match self.origins.get_mut(&name) {
            Some(_) if name == self.own => true,
            Some(origin) => origin.share.take(now),
            None => share.newcomers.take(now, 1),
        }
    }

    /// A neighbour passed on a record whose signature does not hold.
    pub(super) fn note_forged(&mut self, now: Time, from: PeerName) {
        self.counters.record_forged.inc();
        let share = self.shares.of(from);
        if !share.forged.take(now, 1) {
            share.deaf_until = now + DEAF;
        }
    }

    /// Whether a question of this neighbour is looked at: it counts as one of the messages in answer, since to find these costs more than to send them.
    pub(super) fn may_ask(&mut self, now: Time, from: PeerName) -> bool {
        let may = self.shares.of(from).answers.take(now, 1);
        if !may {
            self.counters.answers_over_pace.inc();
        }
        may
    }

    /// Of the messages written since there were `before` of them, all in answer to this neighbour, keeps as many as it may have.
    pub(super) fn hold_answers(&mut self, now: Time, to: PeerName, before: usize, out: &mut Output) {
        let share = self.shares.of(to);
        let kept = (before..out.to_neighbour.len()).take_while(|_| share.answers.take(now, 1)).count();
        let dropped = out.to_neighbour.drain(before + kept..).count();
        self.counters.answers_over_pace.add(dropped as u64);
    }
}
