//! Who has which MAC: local MACs are announced in signed records with a move sequence, as EVPN does.
//!
//! Of several claims to one (VLAN, MAC) the one with the highest sequence wins, and of equal ones that of the lower
//! name (RFC 7432, section 7.7). A router that sees a MAC on its own bridge which another has claims it with the next
//! sequence; a router whose claim lost withdraws it. Where frames from it came from another host a moment before and nobody's
//! claim has arrived yet, it starts at one: the first claim, still under way, is none that could win by its name. A claim of a
//! router that cannot be reached gives way to any other.
//!
//! A MAC that keeps moving is a duplicate (`contest`) and is frozen: each router that sees it on its own bridge has it there, for everybody
//! else it stays with who had it first. Who sees it announces it, and nobody outbids anybody any more. So a member gone bad that
//! claims what it does not have gets it five times for the moment until the true station speaks again, and then no more while it claims it.

mod contest;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::command::{Event, LocalMac};
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::body::MacEntry;
use contest::Verdict;

pub use contest::Contest;

/// How long changes are collected before they are announced: a container start shows a few MACs at once.
pub const BATCH: Duration = Duration::from_millis(20);
/// MACs one router may announce.
const MAX_LOCAL: usize = 65_536;
/// Moves by which one claim may be ahead of the next: some are missed where routers were apart.
const MAX_LEAP: u32 = 1000;

/// Whose a MAC was is remembered for so long after it moved last: until then a move may prove to be none.
const TURMOIL: Duration = Duration::from_secs(30);
/// MACs of which that is remembered.
const MOST_TURMOIL: usize = 4096;
/// MACs that are watched for being duplicates. Beyond that the last claim wins.
const MOST_CONTESTS: usize = 8192;

/// A VLAN (0 for untagged) and a MAC in it.
pub type Key = (u16, [u8; 6]);

/// Something an operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A MAC is frozen: it was the first router's, and the second claims it.
    Frozen(Key, PeerName, PeerName),
    /// It is free again.
    Thawed(Key),
}

/// Where a MAC is, and whether it is frozen there.
type Standing = (Option<PeerName>, bool);

/// All claims, our own among them.
#[derive(Debug)]
pub struct Macs {
    own: PeerName,
    local: BTreeMap<Key, u32>,
    claims: BTreeMap<Key, BTreeMap<PeerName, u32>>,
    /// What others announce, ascending.
    heard: BTreeMap<PeerName, Vec<(Key, u32)>>,
    /// Routers of which claims were heard that cannot be reached now.
    away: BTreeSet<PeerName>,
    contests: BTreeMap<Key, Contest>,
    news: Vec<News>,
    /// Whose the MACs were that moved to us or away from us lately, before they did, and when they last moved.
    turmoil: BTreeMap<Key, (PeerName, Time)>,
    due: Option<Time>,
}

/// The highest count of moves that honest claims can have come to: each outbids another by one, so one that leaps ahead of all others is made
/// up, and would be the last word.
fn plausible(claims: &BTreeMap<PeerName, u32>) -> u32 {
    let mut counts: Vec<u32> = claims.values().copied().collect();
    counts.sort_unstable();
    let mut most = counts.first().copied().unwrap_or(0);
    for count in counts {
        if count > most.saturating_add(MAX_LEAP) {
            break;
        }
        most = count;
    }
    most
}

/// What a router announces, each MAC once: of several counts of one the highest.
fn ascending(entries: &[MacEntry]) -> Vec<(Key, u32)> {
    let mut all: Vec<(Key, u32)> = entries.iter().map(|entry| ((entry.vlan, entry.mac), entry.moves)).collect();
    // Its records ascend each by itself, which this sort makes use of.
    all.sort();
    all.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            *kept = *later;
        }
        same
    });
    all
}

/// What is in `new` and was not so in `old`, and as `None` what is in it no more; ascending.
fn changes(old: &[(Key, u32)], new: &[(Key, u32)]) -> Vec<(Key, Option<u32>)> {
    let mut changes = Vec::new();
    let mut old = old.iter().peekable();
    for entry in new {
        while let Some((gone, _)) = old.next_if(|before| before.0 < entry.0) {
            changes.push((*gone, None));
        }
        if old.next_if(|before| before.0 == entry.0) != Some(entry) {
            changes.push((entry.0, Some(entry.1)));
        }
    }
    changes.extend(old.map(|(gone, _)| (*gone, None)));
    changes
}

impl Macs {
    /// No claims yet; `own` is this router.
    pub fn new(own: PeerName) -> Macs {
        Macs {
            own,
            local: BTreeMap::new(),
            claims: BTreeMap::new(),
            heard: BTreeMap::new(),
            away: BTreeSet::new(),
            contests: BTreeMap::new(),
            news: Vec::new(),
            turmoil: BTreeMap::new(),
            due: None,
        }
    }

    /// A MAC was seen on, or vanished from, our bridge.
    pub fn local(&mut self, now: Time, mac: LocalMac, events: &mut Vec<Event>) {
        let key = (mac.vlan, mac.mac);
        if mac.vlan > 4095 || mac.mac[0] & 1 == 1 {
            return;
        }
        let before = self.standing(key);
        if !mac.present {
            self.withdraw(now, key);
            self.settle(key, before, events);
            return;
        }
        if self.local.contains_key(&key) || self.local.len() >= MAX_LOCAL {
            return;
        }
        let owner = before.0.filter(|owner| *owner != self.own);
        if !self.is_frozen(key) {
            owner.or(mac.came_from).into_iter().for_each(|owner| self.note_move(now, key, owner));
        }
        self.claim(now, key, u32::from(mac.came_from.is_some()));
        if let Some(owner) = owner.filter(|owner| !self.away.contains(owner)) {
            self.count_move(now, key, owner, self.own);
        }
        self.settle(key, before, events);
    }

    /// Says that we have it: over all others, unless it is frozen. Where nobody has claimed it yet, `first` is the sequence.
    fn claim(&mut self, now: Time, key: Key, first: u32) {
        let step = if self.is_frozen(key) { 0 } else { 1 };
        let sequence = self.claims.get(&key).map(plausible).map_or(first, |highest| highest.saturating_add(step));
        self.local.insert(key, sequence);
        self.claims.entry(key).or_default().insert(self.own, sequence);
        self.due.get_or_insert(now + BATCH);
    }

    /// All that `origin` announces is now `entries`. Only what that changes is looked at: a record is a small part of all that its origin says.
    pub fn heard(&mut self, now: Time, origin: PeerName, entries: &[MacEntry], events: &mut Vec<Event>) {
        if origin == self.own {
            return;
        }
        let new = ascending(entries);
        let changed = changes(&self.heard.remove(&origin).unwrap_or_default(), &new);
        let before: Vec<(Key, Standing)> = changed.iter().map(|(key, _)| (*key, self.standing(*key))).collect();
        for (key, sequence) in changed {
            match sequence {
                Some(sequence) => drop(self.claims.entry(key).or_default().insert(origin, sequence)),
                None => self.drop_claim(key, origin),
            }
        }
        if new.is_empty() {
            self.away.remove(&origin);
        } else {
            self.heard.insert(origin, new);
        }
        for (key, (owner, _)) in &before {
            self.note_rivals(now, *key, *owner, origin);
        }
        self.settle_all(now, before, events);
    }

    /// What `origin` announces now may outbid what `owner`, who had the MAC, goes on to announce.
    fn note_rivals(&mut self, now: Time, key: Key, owner: Option<PeerName>, origin: PeerName) {
        let Some(owner) = owner.filter(|owner| *owner != origin && !self.away.contains(owner)) else { return };
        let claims = self.claims.get(&key);
        if claims.is_none_or(|claims| !claims.contains_key(&owner) || !claims.contains_key(&origin)) {
            return;
        }
        if self.winner(key) == Some(origin) {
            self.count_move(now, key, owner, origin);
        } else if self.has_room() {
            self.contests.entry(key).or_insert(Contest::new(now, owner, origin));
        }
    }

    /// Which routers can be reached has changed.
    pub fn reach(&mut self, now: Time, reachable: impl Fn(PeerName) -> bool, events: &mut Vec<Event>) {
        let changed = |name: &&PeerName| reachable(**name) == self.away.contains(*name);
        let changed: Vec<PeerName> = self.heard.keys().filter(changed).copied().collect();
        self.turn_all(now, changed, events);
    }

    /// The same of one router, the claims of which were heard.
    pub fn turn(&mut self, now: Time, name: PeerName, is_reachable: bool, events: &mut Vec<Event>) {
        if self.heard.contains_key(&name) && is_reachable == self.away.contains(&name) {
            self.turn_all(now, vec![name], events);
        }
    }

    /// These can be reached now if they could not before, and the other way round.
    fn turn_all(&mut self, now: Time, changed: Vec<PeerName>, events: &mut Vec<Event>) {
        let keys: BTreeSet<Key> = changed.iter().filter_map(|name| self.heard.get(name)).flatten().map(|(key, _)| *key).collect();
        let before: Vec<(Key, Standing)> = keys.iter().map(|key| (*key, self.standing(*key))).collect();
        for name in changed {
            if !self.away.remove(&name) {
                self.away.insert(name);
            }
        }
        self.settle_all(now, before, events);
    }

    fn settle_all(&mut self, now: Time, before: Vec<(Key, Standing)>, events: &mut Vec<Event>) {
        for (key, before) in before {
            let taker = self.winner(key).filter(|taker| *taker != self.own);
            if let Some(taker) = taker.filter(|_| before.0 == Some(self.own)) {
                // Of two equal claims neither outbid the other: both saw it first, and it is no more ours than theirs.
                let tied = self.claims.get(&key).is_some_and(|claims| claims.get(&taker) == claims.get(&self.own));
                self.note_move(now, key, if tied { taker } else { self.own });
                self.withdraw(now, key);
            }
            self.settle(key, before, events);
        }
    }

    /// The bridges of some routers have proved to be joined, ours among them: MACs that moved lately have not, but were seen over there. What we
    /// took goes back; what one of `others` took is claimed again.
    pub fn restore(&mut self, now: Time, others: &[PeerName], events: &mut Vec<Event>) {
        self.turmoil.retain(|_, (_, last)| now.since(*last) < TURMOIL);
        for (key, owner) in self.turmoil.iter().map(|(key, (owner, _))| (*key, *owner)).collect::<Vec<_>>() {
            let before = self.standing(key);
            self.end_contest(key);
            if owner != self.own {
                self.withdraw(now, key);
            } else if self.winner(key).is_some_and(|taker| taker != self.own && others.contains(&taker)) {
                self.claim(now, key, 0);
            }
            self.settle(key, before, events);
        }
    }

    /// A MAC of `owner` has moved to us, or one of ours away.
    fn note_move(&mut self, now: Time, key: Key, owner: PeerName) {
        if self.turmoil.len() >= MOST_TURMOIL {
            self.turmoil.retain(|_, (_, last)| now.since(*last) < TURMOIL);
        }
        let has_room = self.turmoil.len() < MOST_TURMOIL;
        match self.turmoil.get_mut(&key) {
            Some((_, last)) if now.since(*last) < TURMOIL => *last = now,
            Some(entry) => *entry = (owner, now),
            None if has_room => drop(self.turmoil.insert(key, (owner, now))),
            None => {}
        }
    }

    /// Forgets everything that `origin` announced.
    pub fn forget(&mut self, now: Time, origin: PeerName, events: &mut Vec<Event>) {
        self.heard(now, origin, &[], events);
    }

    /// Each second: looks which MACs are duplicates, and which are none any more.
    pub fn tick(&mut self, now: Time, events: &mut Vec<Event>) {
        for key in self.contests.keys().copied().collect::<Vec<_>>() {
            let before = self.standing(key);
            let reached = self.claims.get(&key).into_iter().flat_map(BTreeMap::keys).filter(|name| !self.away.contains(*name));
            let several = reached.take(2).count() == 2;
            match self.contests.get_mut(&key).map(|contest| contest.step(now, several)) {
                Some(Verdict::Freeze) => self.freeze(now, key),
                Some(Verdict::Over) => self.end_contest(key),
                Some(Verdict::Open) | None => {}
            }
            self.settle(key, before, events);
        }
    }

    /// When [`Macs::flush`] has something to announce.
    pub fn due(&self) -> Option<Time> {
        self.due
    }

    /// All that we announce, ascending, where it is time to say so.
    pub fn flush(&mut self, now: Time) -> Option<Vec<MacEntry>> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        self.due = None;
        Some(self.local.iter().map(|(key, moves)| MacEntry { vlan: key.0, mac: key.1, moves: *moves }).collect())
    }

    /// Who has a MAC by the claims known.
    pub fn winner(&self, key: Key) -> Option<PeerName> {
        self.standing(key).0
    }

    /// True for a MAC that several have.
    pub fn is_frozen(&self, key: Key) -> bool {
        self.contests.get(&key).is_some_and(|contest| contest.frozen.is_some())
    }

    /// The MACs that several have.
    pub fn frozen(&self) -> impl Iterator<Item = (Key, &Contest)> {
        self.contests.iter().filter(|(_, contest)| contest.frozen.is_some()).map(|(key, contest)| (*key, contest))
    }

    /// What happened since this was last asked.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    fn standing(&self, key: Key) -> Standing {
        let Some(claims) = self.claims.get(&key) else { return (None, false) };
        if let Some(contest) = self.contests.get(&key).filter(|contest| contest.frozen.is_some()) {
            let stays = |name: &PeerName| claims.contains_key(name) && !self.away.contains(name);
            if let Some(holder) = [self.own, contest.holder].into_iter().find(stays) {
                return (Some(holder), true);
            }
        }
        let most = plausible(claims);
        let worth = |(name, sequence): &(&PeerName, &u32)| (**sequence <= most, !self.away.contains(*name), **sequence, Reverse(**name));
        (claims.iter().max_by_key(worth).map(|(name, _)| *name), false)
    }

    fn has_room(&self) -> bool {
        self.contests.len() < MOST_CONTESTS
    }

    /// A claim of `to` has outbid that of `from`.
    fn count_move(&mut self, now: Time, key: Key, from: PeerName, to: PeerName) {
        if !self.has_room() && !self.contests.contains_key(&key) {
            return;
        }
        let contest = self.contests.entry(key).or_insert(Contest::new(now, from, to));
        if contest.count(now, from, to) == Verdict::Freeze {
            self.freeze(now, key);
        }
    }

    fn freeze(&mut self, now: Time, key: Key) {
        if let Some(contest) = self.contests.get_mut(&key) {
            contest.frozen = Some(now);
            self.news.push(News::Frozen(key, contest.holder, contest.rival));
        }
    }

    fn end_contest(&mut self, key: Key) {
        if self.contests.remove(&key).is_some_and(|contest| contest.frozen.is_some()) {
            self.news.push(News::Thawed(key));
        }
    }

    fn withdraw(&mut self, now: Time, key: Key) {
        if self.local.remove(&key).is_some() {
            self.drop_claim(key, self.own);
            self.due.get_or_insert(now + BATCH);
        }
    }

    fn drop_claim(&mut self, key: Key, origin: PeerName) {
        if let Some(claims) = self.claims.get_mut(&key) {
            claims.remove(&origin);
            if claims.is_empty() {
                self.claims.remove(&key);
            }
        }
    }

    /// Says what changed since `before`, unless it is ours and was nobody else's.
    fn settle(&self, key: Key, before: Standing, events: &mut Vec<Event>) {
        let (owner, frozen) = self.standing(key);
        let ours = |owner: Option<PeerName>| owner.is_none() || owner == Some(self.own);
        if (owner, frozen) != before && (frozen || before.1 || !(ours(owner) && ours(before.0))) {
            events.push(Event::MacAnnounced { vlan: key.0, mac: key.1, owner, frozen });
        }
    }
}

#[cfg(test)]
mod tests;
