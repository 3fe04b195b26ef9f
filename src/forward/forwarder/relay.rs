//! Relaying: what comes from a neighbour for another router goes on as it is, sealed, with one hop less.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

use crate::forward::fib::{Activity, Fib, FibLink, FibPeer, LinkIndex};
use crate::wire::header::decrement_hop_limit;
use crate::wire::{Address, Header, PeerName};

use super::{Call, State};

/// Where datagrams of some flows to one destination go on: a receive batch mostly holds datagrams of one flow.
pub(super) struct Onward<'a> {
    destination: PeerName,
    label: u8,
    hop: Option<Hop<'a>>,
}

impl Onward<'_> {
    /// True where a datagram with this header goes on so.
    pub(super) fn is_for(&self, header: &Header) -> bool {
        (self.destination, self.label) == (header.destination, header.label)
    }
}

/// The next hop: a neighbour, or the destination itself where this router has a direct path to it without a link.
#[derive(Clone, Copy)]
struct Hop<'a> {
    address: Address,
    max_datagram: u16,
    activity: &'a Activity,
}

/// Sizes of datagrams that hold what somebody may wait for the answer to: more than a bare acknowledgement of IPv4, less than a stream fills.
const SMALL_RELAYED: RangeInclusive<usize> = 131..=760;

impl<'a> Hop<'a> {
    fn over(link: &'a FibLink) -> Hop<'a> {
        Hop { address: link.address, max_datagram: link.max_datagram, activity: &link.activity }
    }

    fn straight_to(peer: &'a FibPeer, address: Address) -> Hop<'a> {
        Hop { address, max_datagram: peer.max_datagram, activity: &peer.activity }
    }
}

impl State {
    /// The live link that a receive buffer came over: also one that is feared to be dead, as it is not in this direction.
    pub(super) fn incoming_link(fib: &Fib, from: Address) -> Option<LinkIndex> {
        let index = *fib.link_by_address.get(&from)?;
        fib.links.get(usize::from(index)).filter(|link| link.up.load(Ordering::Relaxed)).map(|_| index)
    }

    /// The next hop of what came over `incoming` with this header, never back out of it.
    pub(super) fn onward<'f>(fib: &'f Fib, incoming: LinkIndex, header: &Header) -> Onward<'f> {
        let (destination, label) = (header.destination, header.label);
        let came_from = fib.links.get(usize::from(incoming)).map(|link| link.peer);
        let straight = |peer: &'f FibPeer| {
            let address = peer.direct().filter(|_| came_from != Some(destination))?;
            match fib.link_by_address.get(&address).and_then(|link| fib.links.get(usize::from(*link))) {
                Some(link) => link.carries().then(|| Hop::over(link)),
                None => Some(Hop::straight_to(peer, address)),
            }
        };
        let relayed = |peer: &'f FibPeer| fib.next_hop(peer.hops()?, label, came_from).map(Hop::over);
        let hop = fib.peers.get(&destination).and_then(|peer| straight(peer).or_else(|| relayed(peer)));
        Onward { destination, label, hop }
    }

    /// Relays one datagram of `lane` that came over `incoming`.
    pub(super) fn relay(&mut self, call: &mut Call<'_, '_>, incoming: LinkIndex, onward: &Onward<'_>, lane: u8, datagram: &mut [u8]) {
        let (now, outbox) = (call.now, &mut *call.outbox);
        let counters = &self.shared.counters;
        if !call.fib.forwarding {
            return counters.drop_relay_forbidden.inc();
        }
        let Some(hop) = onward.hop else { return counters.drop_relay_no_route.inc() };
        if datagram.len() > usize::from(hop.max_datagram) {
            return counters.drop_relay_too_big.inc();
        }
        if !decrement_hop_limit(datagram) {
            return counters.drop_relay_hops.inc();
        }
        let budget = self.relay_budgets.get_mut(usize::from(incoming));
        if !budget.is_some_and(|(_, bucket)| bucket.take(now, datagram.len() as u64)) {
            return counters.drop_relay_budget.inc();
        }
        let Some(room) = outbox.reserve(hop.address, lane, datagram.len()) else { return counters.drop_outbox_full.inc() };
        room.copy_from_slice(datagram);
        if SMALL_RELAYED.contains(&datagram.len()) {
            self.small_at = Some(now);
        }
        // The hop is in use, so its liveness matters; what comes in proves nothing about the link it came over.
        hop.activity.tx_bytes.fetch_add(datagram.len() as u64, Ordering::Relaxed);
        hop.activity.sent.store(now.0, Ordering::Relaxed);
        counters.relayed.inc();
    }
}
