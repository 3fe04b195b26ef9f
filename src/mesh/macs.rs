//! Who has which MAC: local MACs are announced in signed records with a move sequence, as EVPN does.
//!
//! Of several claims to one (VLAN, MAC) the one with the highest sequence wins, and of equal ones that of the lower
//! name (RFC 7432, section 7.7). A router that sees a MAC on its own bridge which another has claims it with the next
//! sequence; a router whose claim lost withdraws it. A MAC that keeps moving is damped (section 15.1): it is claimed
//! at most every ten seconds until it calms down. A claim of a router that cannot be reached gives way to any other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::command::{Event, LocalMac};
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::body::MacEntry;

/// How long changes are collected before they are announced: a container start shows a few MACs at once.
pub const BATCH: Duration = Duration::from_millis(20);
/// MACs one router may announce.
const MAX_LOCAL: usize = 65_536;
/// Moves within [`DAMP_WINDOW`] after which a MAC is damped.
const DAMP_MOVES: u32 = 5;
/// Window of move damping.
const DAMP_WINDOW: Duration = Duration::from_secs(180);
/// Pace of claims to a damped MAC.
const DAMP_PACE: Duration = Duration::from_secs(10);

/// A VLAN (0 for untagged) and a MAC in it.
pub type Key = (u16, [u8; 6]);

#[derive(Debug)]
struct Moves {
    since: Time,
    count: u32,
    last: Time,
    warned: bool,
}

/// All claims, our own among them.
#[derive(Debug)]
pub struct Macs {
    own: PeerName,
    local: BTreeMap<Key, u32>,
    claims: BTreeMap<Key, BTreeMap<PeerName, u32>>,
    heard: BTreeMap<PeerName, Vec<Key>>,
    /// Routers of which claims were heard that cannot be reached now.
    away: BTreeSet<PeerName>,
    moves: BTreeMap<Key, Moves>,
    /// What was seen here while it was damped, and when it may be claimed.
    waiting: BTreeMap<Key, Time>,
    due: Option<Time>,
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
            moves: BTreeMap::new(),
            waiting: BTreeMap::new(),
            due: None,
        }
    }

    /// A MAC was seen on, or vanished from, our bridge.
    pub fn local(&mut self, now: Time, mac: LocalMac, events: &mut Vec<Event>) {
        let key = (mac.vlan, mac.mac);
        if mac.vlan > 4095 || mac.mac[0] & 1 == 1 {
            return;
        }
        self.waiting.remove(&key);
        if !mac.present {
            self.withdraw(now, key);
            self.settle(key, None, events);
            return;
        }
        if self.local.contains_key(&key) {
            return;
        }
        let before = self.winner(key);
        let highest = self.claims.get(&key).and_then(|claims| claims.values().max().copied());
        if self.local.len() >= MAX_LOCAL {
            return;
        }
        if highest.is_some() && !self.may_move(now, key, events) {
            // The packet plane knows it as local by now and tells of it no more.
            let last = self.moves.get(&key).map_or(now, |moves| moves.last);
            self.waiting.insert(key, last + DAMP_PACE);
            return;
        }
        let sequence = highest.map_or(0, |highest| highest.saturating_add(1));
        self.local.insert(key, sequence);
        self.claims.entry(key).or_default().insert(self.own, sequence);
        self.due.get_or_insert(now + BATCH);
        self.settle(key, before, events);
    }

    /// All that `origin` announces is now `entries`.
    pub fn heard(&mut self, now: Time, origin: PeerName, entries: &[MacEntry], events: &mut Vec<Event>) {
        if origin == self.own {
            return;
        }
        let new: Vec<(Key, u32)> = entries.iter().map(|entry| ((entry.vlan, entry.mac), entry.moves)).collect();
        let old = self.heard.remove(&origin).unwrap_or_default();
        let keys: BTreeSet<Key> = old.iter().copied().chain(new.iter().map(|(key, _)| *key)).collect();
        let before: Vec<(Key, Option<PeerName>)> = keys.iter().map(|key| (*key, self.winner(*key))).collect();
        // Claimed elsewhere after it was seen here: it has moved on.
        let claimed = |key: &Key| self.claims.get(key).and_then(|claims| claims.get(&origin));
        let moved_on: BTreeSet<Key> = new.iter().filter(|(key, sequence)| claimed(key) != Some(sequence)).map(|(key, _)| *key).collect();
        let moved_on: Vec<Key> = moved_on.into_iter().filter(|key| self.waiting.remove(key).is_some()).collect();
        for key in &old {
            self.drop_claim(*key, origin);
        }
        for (key, sequence) in &new {
            self.claims.entry(*key).or_default().insert(origin, *sequence);
        }
        if new.is_empty() {
            self.away.remove(&origin);
        } else {
            self.heard.insert(origin, new.into_iter().map(|(key, _)| key).collect());
        }
        self.settle_all(now, before, events);
        for key in moved_on {
            events.push(Event::MacAnnounced { vlan: key.0, mac: key.1, owner: self.winner(key) });
        }
    }

    /// Which routers can be reached has changed.
    pub fn reach(&mut self, now: Time, reachable: impl Fn(PeerName) -> bool, events: &mut Vec<Event>) {
        let changed = |name: &&PeerName| reachable(**name) == self.away.contains(*name);
        let changed: Vec<PeerName> = self.heard.keys().filter(changed).copied().collect();
        let keys: BTreeSet<Key> = changed.iter().filter_map(|name| self.heard.get(name)).flatten().copied().collect();
        let before: Vec<(Key, Option<PeerName>)> = keys.iter().map(|key| (*key, self.winner(*key))).collect();
        for name in changed {
            if !self.away.remove(&name) {
                self.away.insert(name);
            }
        }
        self.settle_all(now, before, events);
    }

    fn settle_all(&mut self, now: Time, before: Vec<(Key, Option<PeerName>)>, events: &mut Vec<Event>) {
        for (key, before) in before {
            if before == Some(self.own) && self.winner(key) != Some(self.own) {
                self.withdraw(now, key);
            }
            self.settle(key, before, events);
        }
    }

    /// Forgets everything that `origin` announced.
    pub fn forget(&mut self, now: Time, origin: PeerName, events: &mut Vec<Event>) {
        self.heard(now, origin, &[], events);
    }

    /// When [`Macs::flush`] has something to announce.
    pub fn due(&self) -> Option<Time> {
        self.due.into_iter().chain(self.waiting.values().copied()).min()
    }

    /// All that we announce, ascending, where it is time to say so.
    pub fn flush(&mut self, now: Time, events: &mut Vec<Event>) -> Option<Vec<MacEntry>> {
        let over: Vec<Key> = self.waiting.iter().filter(|(_, due)| now >= **due).map(|(key, _)| *key).collect();
        for (vlan, mac) in over {
            self.local(now, LocalMac { vlan, mac, present: true }, events);
        }
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        self.due = None;
        Some(self.local.iter().map(|(key, moves)| MacEntry { vlan: key.0, mac: key.1, moves: *moves }).collect())
    }

    /// Who has a MAC by the claims known.
    pub fn winner(&self, key: Key) -> Option<PeerName> {
        let claims = self.claims.get(&key)?;
        let worth = |(name, sequence): &(&PeerName, &u32)| (!self.away.contains(*name), **sequence, Reverse(**name));
        claims.iter().max_by_key(worth).map(|(name, _)| *name)
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
    fn settle(&self, key: Key, before: Option<PeerName>, events: &mut Vec<Event>) {
        let after = self.winner(key);
        let ours = |owner: Option<PeerName>| owner.is_none() || owner == Some(self.own);
        if after != before && !(ours(after) && ours(before)) {
            events.push(Event::MacAnnounced { vlan: key.0, mac: key.1, owner: after });
        }
    }

    fn may_move(&mut self, now: Time, key: Key, events: &mut Vec<Event>) -> bool {
        self.moves.retain(|_, moves| now.since(moves.since) < DAMP_WINDOW);
        let moves = self.moves.entry(key).or_insert(Moves { since: now, count: 0, last: Time::ZERO, warned: false });
        if moves.count >= DAMP_MOVES && now.since(moves.last) < DAMP_PACE {
            if !moves.warned {
                moves.warned = true;
                let text = key.1.map(|byte| format!("{byte:02x}")).join(":");
                let vlan = key.0;
                events.push(Event::Warning(format!(
                    "MAC {text} (VLAN {vlan}) keeps moving between this host and others: look for the same MAC on two hosts, \
                     or for two bridges that are joined outside the mesh"
                )));
            }
            return false;
        }
        moves.count += 1;
        moves.last = now;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn name(last: u8) -> PeerName {
        PeerName([2, 0, 0, 0, 0, last])
    }

    fn seen(present: bool) -> LocalMac {
        LocalMac { vlan: 0, mac: MAC, present }
    }

    fn flush(macs: &mut Macs, now: Time) -> Option<Vec<MacEntry>> {
        macs.flush(now, &mut Vec::new())
    }

    fn owner(events: &[Event]) -> Vec<Option<PeerName>> {
        let owners = events.iter().filter_map(|event| match event {
            Event::MacAnnounced { owner, .. } => Some(*owner),
            _ => None,
        });
        owners.collect()
    }

    #[test]
    fn a_move_is_followed_and_the_old_owner_withdraws() {
        let (mut a, mut b) = (Macs::new(name(1)), Macs::new(name(2)));
        let mut events = Vec::new();
        a.local(Time(0), seen(true), &mut events);
        assert!(events.is_empty() && flush(&mut a, Time(0)).is_none());
        let first = flush(&mut a, Time(0) + BATCH).expect("due");
        b.heard(Time(0), name(1), &first, &mut events);
        assert_eq!(owner(&events), [Some(name(1))]);

        events.clear();
        b.local(Time(1), seen(true), &mut events);
        assert_eq!(owner(&events), [Some(name(2))]);
        let second = flush(&mut b, Time(1) + BATCH).expect("due");
        events.clear();
        a.heard(Time(2), name(2), &second, &mut events);
        assert_eq!(owner(&events), [Some(name(2))]);
        assert_eq!(flush(&mut a, Time(2) + BATCH), Some(Vec::new()));

        events.clear();
        b.local(Time(3), seen(false), &mut events);
        let gone = flush(&mut b, Time(3) + BATCH).expect("due");
        a.heard(Time(4), name(2), &gone, &mut events);
        assert_eq!(owner(&events).last(), Some(&None));
    }

    #[test]
    fn equal_claims_go_to_the_lower_name_everywhere() {
        let body = [MacEntry { vlan: 0, mac: MAC, moves: 0 }];
        let mut events = Vec::new();
        for own in [1, 2, 3] {
            let mut macs = Macs::new(name(own));
            for other in (1..=3).filter(|other| *other != own) {
                macs.heard(Time(0), name(other), &body, &mut events);
            }
            if own == 1 {
                assert_eq!(macs.winner((0, MAC)), Some(name(2)));
                macs.forget(Time(0), name(2), &mut events);
                assert_eq!(macs.winner((0, MAC)), Some(name(3)));
            } else {
                assert_eq!(macs.winner((0, MAC)), Some(name(1)));
            }
        }
    }

    #[test]
    fn a_mac_in_two_places_is_damped() {
        let mut a = Macs::new(name(1));
        let mut events = Vec::new();
        for round in 0..40u32 {
            let now = Time(u64::from(round) * 100_000_000);
            let body = [MacEntry { vlan: 0, mac: MAC, moves: 2 * round + 1 }];
            a.heard(now, name(2), &body, &mut events);
            a.local(now, seen(true), &mut events);
        }
        let own = owner(&events).iter().filter(|owner| **owner == Some(name(1))).count();
        assert_eq!(own, 5);
        assert_eq!(events.iter().filter(|event| matches!(event, Event::Warning(_))).count(), 1);
    }

    /// Our MAC is elsewhere and back so often that it is damped, seen here last at `now`.
    fn damped(macs: &mut Macs, events: &mut Vec<Event>) -> Time {
        let mut now = Time(0);
        for round in 0..6u32 {
            now = Time(u64::from(round) * 100_000_000);
            macs.heard(now, name(2), &[MacEntry { vlan: 0, mac: MAC, moves: 2 * round + 1 }], events);
            macs.local(now, seen(true), events);
        }
        assert_eq!(macs.winner((0, MAC)), Some(name(2)), "it is damped");
        events.clear();
        now
    }

    #[test]
    fn a_damped_claim_is_made_later_without_another_sighting() {
        let mut a = Macs::new(name(1));
        let mut events = Vec::new();
        let now = damped(&mut a, &mut events);
        flush(&mut a, now + BATCH);
        let due = a.due().expect("a claim waits");
        assert!(due > now && due <= now + DAMP_PACE);
        a.flush(due, &mut events);
        assert_eq!((a.winner((0, MAC)), owner(&events)), (Some(name(1)), vec![Some(name(1))]));
        let told = flush(&mut a, due + BATCH).expect("due");
        assert_eq!(told, [MacEntry { vlan: 0, mac: MAC, moves: 12 }]);
    }

    #[test]
    fn a_damped_claim_is_dropped_when_the_mac_goes_or_is_seen_elsewhere_again() {
        let mut events = Vec::new();
        let mut a = Macs::new(name(1));
        let now = damped(&mut a, &mut events);
        a.local(now, seen(false), &mut events);
        flush(&mut a, now + BATCH);
        assert_eq!(a.due(), None);
        let mut a = Macs::new(name(1));
        let now = damped(&mut a, &mut events);
        let body = [MacEntry { vlan: 0, mac: MAC, moves: 11 }];
        a.heard(now, name(2), &body, &mut events);
        flush(&mut a, now + BATCH);
        assert!(a.due().is_some() && events.is_empty(), "nothing new was said");
        a.heard(now, name(3), &[MacEntry { vlan: 0, mac: MAC, moves: 12 }], &mut events);
        assert_eq!((a.due(), owner(&events).last()), (None, Some(&Some(name(3)))));
    }

    #[test]
    fn who_cannot_be_reached_loses_to_who_can() {
        let mut a = Macs::new(name(1));
        let mut events = Vec::new();
        a.heard(Time(0), name(2), &[MacEntry { vlan: 0, mac: MAC, moves: 9 }], &mut events);
        a.heard(Time(0), name(3), &[MacEntry { vlan: 0, mac: MAC, moves: 1 }], &mut events);
        assert_eq!(owner(&events), [Some(name(2))]);
        events.clear();
        a.reach(Time(1), |peer| peer == name(3), &mut events);
        assert_eq!((a.winner((0, MAC)), owner(&events)), (Some(name(3)), vec![Some(name(3))]));
        a.reach(Time(2), |_| false, &mut events);
        assert_eq!(owner(&events).last(), Some(&Some(name(2))), "of those out of reach the newest is best");
        a.reach(Time(3), |_| true, &mut events);
        assert_eq!(a.winner((0, MAC)), Some(name(2)));
    }

    #[test]
    fn what_a_router_announced_is_forgotten_with_it() {
        let (mut a, mut b) = (Macs::new(name(1)), Macs::new(name(2)));
        let mut events = Vec::new();
        for n in 0..200u8 {
            a.local(Time(0), LocalMac { vlan: 5, mac: [2, 0, 0, 0, 0, n], present: true }, &mut events);
        }
        let all = flush(&mut a, Time(0) + BATCH).expect("due");
        assert_eq!(all.len(), 200);
        b.heard(Time(0), name(1), &all, &mut events);
        assert_eq!(events.len(), 200);
        b.forget(Time(0), name(1), &mut events);
        assert_eq!((b.winner((5, [2, 0, 0, 0, 0, 7])), events.len()), (None, 400));
    }
}
