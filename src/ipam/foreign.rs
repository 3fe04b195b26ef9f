//! Routers whose mesh was founded apart, or that give addresses of another range: told so, and kept from giving one address twice.

use std::time::Duration;

use super::Ipam;
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::ipam::message::MAX_LISTED;
use crate::wire::ipam::{self, EntryId, Message, Range};

/// Between two lists for one of them.
const PACE: Duration = Duration::from_secs(5);
/// Most duplicates that are remembered.
const MOST_DUPLICATES: usize = 1024;

/// A router of another mesh.
#[derive(Default)]
pub struct Foreign {
    mesh: EntryId,
    /// What it owns there.
    owned: Vec<Range>,
    /// The next of our addresses to be told.
    cursor: u128,
    next: Time,
}

impl Ipam {
    /// Somebody of another mesh, or of another range, is there.
    pub(super) fn meet(&mut self, peer: PeerName, mesh: EntryId) {
        if self.foreign.get(&peer).is_some_and(|known| known.mesh == mesh) {
            return;
        }
        self.foreign.insert(peer, Foreign { mesh, ..Foreign::default() });
        let (name, own) = (self.nickname(peer), self.mesh());
        let theirs = self.peers.get(&peer).and_then(|peer| peer.book.as_ref()).map(|book| &book.ranges);
        if theirs.is_some_and(|ranges| !ranges.iter().map(|(range, _)| *range).eq(self.config.ranges.iter().copied())) {
            self.counters.other_range.inc();
            self.report(format!("{name} gives addresses of another --ipalloc-range than this router: neither takes anything of the other's; give both the same"));
        } else {
            self.counters.foreign_mesh.inc();
            self.report(format!(
                "{name} belongs to a mesh of addresses that was founded apart ({mesh}, ours is {own}): the two do not mix, and nothing more is given of what \
                 both own; `reset` the routers of one of them"
            ));
        }
        self.recount();
    }

    /// Somebody is of our mesh.
    pub(super) fn part(&mut self, peer: PeerName) {
        if self.foreign.remove(&peer).is_some() {
            self.recount();
        }
    }

    /// Tells routers of other meshes what we own and have given.
    pub(super) fn run_foreign(&mut self) {
        let Some(ring) = self.ring.as_ref().filter(|_| !self.foreign.is_empty()) else { return };
        let own = merged(ring.leaves().iter().filter(|(_, leaf)| leaf.owner.name() == self.name).map(|(range, _)| range));
        let due: Vec<PeerName> = self
            .foreign
            .iter()
            .filter(|(peer, foreign)| foreign.next <= self.now && self.is_reachable(**peer))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in due {
            let now = self.now;
            let Some(foreign) = self.foreign.get_mut(&peer) else { continue };
            foreign.next = now + PACE;
            let rest = |from: u128| {
                self.book.within(&Range { first: from, last: u128::MAX }).map(|(address, _)| address).take(MAX_LISTED).collect::<Vec<_>>()
            };
            let holding = rest(foreign.cursor);
            foreign.cursor = if holding.len() < MAX_LISTED { 0 } else { holding.last().map_or(0, |last| last.saturating_add(1)) };
            self.tell(peer, &Message::Owned(own.clone()));
            self.tell(peer, &Message::Holding(holding));
        }
    }

    pub(super) fn foreign_said(&mut self, peer: PeerName, mesh: EntryId, message: Message) {
        self.meet(peer, mesh);
        match message {
            Message::Owned(ranges) => {
                if let Some(foreign) = self.foreign.get_mut(&peer).filter(|foreign| foreign.owned != ranges) {
                    foreign.owned = ranges;
                    self.recount();
                }
            }
            Message::Holding(addresses) => {
                for address in addresses {
                    let Some(holder) = self.book.holder(address) else { continue };
                    let text = format!(
                        "{} is the address of container {} here and of one on {}",
                        ipam::address(address),
                        holder.ident,
                        self.nickname(peer)
                    );
                    if self.remember_duplicate(address) {
                        self.report(text);
                    }
                }
            }
            _ => {}
        }
    }

    /// True for an address of which it is news that two containers have it.
    pub(super) fn remember_duplicate(&mut self, address: u128) -> bool {
        self.duplicates.len() < MOST_DUPLICATES && self.duplicates.insert(address)
    }

    /// What is left of a range of ours when all is taken off that routers of other meshes own as well.
    pub(super) fn outside_quarantine(&self, range: Range) -> Vec<Range> {
        let mut left = vec![range];
        for theirs in self.foreign.values().flat_map(|foreign| &foreign.owned) {
            left = left.into_iter().flat_map(|part| without(part, theirs)).collect();
        }
        left
    }

    pub(super) fn is_quarantined(&self, range: &Range) -> bool {
        self.foreign.values().flat_map(|foreign| &foreign.owned).any(|theirs| theirs.intersect(range).is_some())
    }
}

/// A range less another.
fn without(range: Range, other: &Range) -> Vec<Range> {
    let Some(common) = range.intersect(other) else { return vec![range] };
    let left = (common.first > range.first).then(|| Range { first: range.first, last: common.first - 1 });
    let right = (common.last < range.last).then(|| Range { first: common.last + 1, last: range.last });
    left.into_iter().chain(right).collect()
}

/// Ranges with their neighbours, as few as a message takes; where there are more, the last covers too much.
fn merged(ranges: impl Iterator<Item = Range>) -> Vec<Range> {
    let mut all: Vec<Range> = Vec::new();
    for range in ranges {
        let full = all.len() == MAX_LISTED;
        match all.last_mut() {
            Some(last) if full || last.last.checked_add(1) == Some(range.first) => last.last = range.last,
            _ => all.push(range),
        }
    }
    all
}
