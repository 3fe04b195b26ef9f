//! Space from others, and for others.

use std::collections::BTreeSet;

use super::{AGAIN, Ipam};
use crate::ipam::book::largest_block;
use crate::ipam::ring::{MOST_TO_GIVE, MOST_TO_TAKE};
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::ipam::message::Denial;
use crate::wire::ipam::{self, Body, EntryId, Message, Range};

/// A search for space in a range.
#[derive(Default)]
pub struct Ask {
    /// Who is asked at the moment, under which number, until when.
    asked: Option<(PeerName, u64, Time)>,
    /// Who has nothing, or did not answer, in this round.
    denied: BTreeSet<PeerName>,
    /// When the next round begins.
    rest: Time,
}

impl Ipam {
    /// These are the ranges that requests wait for.
    pub(super) fn want(&mut self, wanted: &[(Range, bool)]) {
        self.asks.retain(|what, _| wanted.contains(what));
        for what in wanted {
            self.asks.entry(*what).or_default();
        }
    }

    /// Asks whoever is next.
    pub(super) fn run_asks(&mut self) {
        let asks: Vec<(Range, bool)> = self.asks.keys().copied().collect();
        for what in asks {
            let Some(mut ask) = self.asks.remove(&what) else { continue };
            self.run_ask(what, &mut ask);
            self.asks.insert(what, ask);
        }
    }

    fn run_ask(&mut self, (range, exact): (Range, bool), ask: &mut Ask) {
        match ask.asked {
            Some((peer, _, until)) if until > self.now && self.is_reachable(peer) => return,
            Some((peer, ..)) => {
                ask.denied.insert(peer);
                ask.asked = None;
            }
            None if ask.rest > self.now => return,
            None => {}
        }
        let Some(donor) = self.donor(&range, &ask.denied) else {
            ask.denied.clear();
            ask.rest = self.now + AGAIN;
            return;
        };
        let request = self.chance(u64::MAX);
        ask.asked = Some((donor, request, self.now + AGAIN));
        self.tell(donor, &Message::Ask { request, range, exact });
    }

    /// A reachable owner of something of the range, the likelier the more it says is free.
    fn donor(&mut self, range: &Range, denied: &BTreeSet<PeerName>) -> Option<PeerName> {
        let ring = self.ring.as_ref()?;
        let owners: BTreeSet<PeerName> =
            ring.leaves().within(range).filter(|(_, leaf)| !leaf.disputed).map(|(_, leaf)| leaf.owner.name()).collect();
        let free = |name: &PeerName| {
            let book = self.peers.get(name).filter(|peer| peer.reachable)?.book.as_ref()?;
            let bits = book.ranges.iter().filter(|(known, _)| known.intersect(range).is_some()).map(|(_, bits)| *bits).max()?;
            Some((*name, bits))
        };
        let donors: Vec<(PeerName, u8)> =
            owners.iter().filter(|name| **name != self.name && !denied.contains(name)).filter_map(free).collect();
        let most = donors.iter().map(|(_, bits)| *bits).max()?;
        let best: Vec<PeerName> = donors.iter().filter(|(_, bits)| *bits == most).map(|(name, _)| *name).collect();
        let at = self.chance(best.len() as u64);
        best.get(usize::try_from(at).unwrap_or(0)).copied()
    }

    /// Somebody wants space.
    pub(super) fn asked(&mut self, from: PeerName, request: u64, range: Range, exact: bool) {
        if let Some(entry) =
            self.granted.get(&from).filter(|(known, _)| *known == request).and_then(|(_, id)| self.ring.as_ref()?.get(id)).cloned()
        {
            return self.tell(from, &Message::Entries(vec![entry]));
        }
        match self.give(from, range, exact) {
            Ok(id) => {
                self.counters.blocks_given.inc();
                self.granted.insert(from, (request, id));
            }
            Err(reason) => {
                self.counters.asks_denied.inc();
                self.tell(from, &Message::Deny { request, reason });
            }
        }
    }

    fn give(&mut self, to: PeerName, range: Range, exact: bool) -> Result<EntryId, Denial> {
        let Some(key) = self.peers.get(&to).and_then(|peer| peer.book.as_ref()).map(|book| book.key) else { return Err(Denial::NotNow) };
        // While the disk refuses, what is given would not be known to anybody, and be gone all the same.
        if self.ring.is_none() || !self.may_give() || self.disk_fails {
            return Err(Denial::NotNow);
        }
        if self.ring.as_ref().is_some_and(|ring| ring.entries_of(&self.key) >= MOST_TO_GIVE) {
            return Err(Denial::Full);
        }
        if self.ring.as_ref().is_some_and(|ring| ring.grants_to(&key) >= MOST_TO_TAKE) {
            self.counters.asks_over_budget.inc();
            let name = self.nickname(to);
            self.complain(format!(
                "{name} was given addresses {MOST_TO_TAKE} times and gets no more: `reset` it, which gives all it has to another, or `revoke` it if it has gone bad"
            ));
            return Err(Denial::Full);
        }
        let (block, parent) = if exact { self.exactly(range)? } else { self.spare(&range).ok_or(Denial::Full)? };
        self.author(&Body::Grant { parent, range: block, owner: key }, &[to]).ok_or(Denial::NotNow)
    }

    fn exactly(&self, range: Range) -> Result<(Range, EntryId), Denial> {
        let (_, parent) = self.mine.iter().find(|(mine, _)| mine.covers(&range)).ok_or(Denial::NotOwner)?;
        if self.book.within(&range).next().is_some() { Err(Denial::InUse) } else { Ok((range, *parent)) }
    }

    /// An aligned block of at most half of what is free in the range, off the end of the largest.
    fn spare(&self, range: &Range) -> Option<(Range, EntryId)> {
        let parts = || self.mine.iter().filter_map(|(mine, node)| Some((mine.intersect(range)?, *node)));
        let (mut free, mut best): (u128, Option<(Range, EntryId)>) = (0, None);
        for (part, node) in parts() {
            for gap in self.book.gaps(&part) {
                free = free.saturating_add(gap.size());
                let block = largest_block(&gap);
                if best.is_none_or(|(known, _)| known.size() <= block.size()) {
                    best = Some((block, node));
                }
            }
        }
        let (block, node) = best?;
        let most = 1u128 << (free / 2).max(1).ilog2();
        let size = block.size().min(most);
        Some((Range { first: block.last - (size - 1), last: block.last }, node))
    }

    /// Somebody gives nothing.
    pub(super) fn denied(&mut self, from: PeerName, request: u64, reason: Denial) {
        let asked = |ask: &Ask| ask.asked.is_some_and(|(peer, known, _)| (peer, known) == (from, request));
        let Some((what, ask)) = self.asks.iter_mut().find(|(_, ask)| asked(ask)) else { return };
        ask.denied.insert(from);
        ask.asked = None;
        let range = what.0;
        if reason == Denial::InUse {
            let (address, peer) = (ipam::address(range.first), self.nickname(from));
            self.fail_claims(range.first, &format!("{address} is in use on {peer}"));
            self.refuse_reserved(range.first, from);
        }
        self.progress();
    }

    /// How many bits the number of addresses has that we could give of a range; its first and its last are given to nobody.
    pub(super) fn free_bits(&self, range: &Range) -> u8 {
        let inside = Range { first: range.first + u128::from(range.size() > 2), last: range.last - u128::from(range.size() > 2) };
        let parts = self.mine.iter().filter_map(|(mine, _)| mine.intersect(&inside));
        let free = parts.fold(0u128, |sum, part| sum.saturating_add(self.book.free_in(&part)));
        (128 - free.leading_zeros()) as u8
    }

    /// Why nothing could be had of a range.
    pub(super) fn why_no_space(&self, range: &Range) -> String {
        let Some(ring) = &self.ring else { return "there is no ring yet".to_string() };
        let unreachable: BTreeSet<PeerName> = ring
            .leaves()
            .within(range)
            .map(|(_, leaf)| leaf.owner.name())
            .filter(|owner| *owner != self.name && !self.is_reachable(*owner))
            .collect();
        let disputed = ring.leaves().within(range).any(|(_, leaf)| leaf.disputed) || self.is_quarantined(range);
        let mut why = vec!["the reachable routers have nothing free there".to_string()];
        if !unreachable.is_empty() {
            let names: Vec<String> = unreachable.iter().take(8).map(|owner| self.nickname(*owner)).collect();
            why.push(format!("the rest is owned by unreachable peers ({}); use `rmpeer` if they are dead", names.join(", ")));
        }
        if disputed {
            why.push("part of it is disputed with routers of another mesh and is given to nobody".to_string());
        }
        why.join("; ")
    }
}
