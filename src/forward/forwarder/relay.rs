//! Relaying: what comes from a neighbour for another router goes on as it is, sealed, with one hop less.

use std::sync::atomic::Ordering;

use crate::forward::fib::{Activity, Fib, FibLink, FibPeer, LinkIndex, Route};
use crate::wire::header::decrement_hop_limit;
use crate::wire::{Address, PeerName};

use super::{Call, State};

/// Where datagrams for one destination go on: a receive batch mostly holds datagrams for one.
pub(super) struct Onward<'a> {
    pub(super) destination: PeerName,
    hop: Option<Hop<'a>>,
}

/// The next hop: a neighbour, or the destination itself where this router has a direct path to it without a link.
#[derive(Clone, Copy)]
struct Hop<'a> {
    address: Address,
    max_datagram: u16,
    activity: &'a Activity,
}

impl<'a> Hop<'a> {
    fn over(link: &'a FibLink) -> Hop<'a> {
        Hop { address: link.address, max_datagram: link.max_datagram, activity: &link.activity }
    }

    fn straight_to(peer: &'a FibPeer, address: Address) -> Hop<'a> {
        Hop { address, max_datagram: peer.max_datagram, activity: &peer.activity }
    }
}

impl State {
    /// The live link that a receive buffer came over.
    pub(super) fn incoming_link(fib: &Fib, from: Address) -> Option<LinkIndex> {
        let index = *fib.link_by_address.get(&from)?;
        fib.links.get(usize::from(index)).filter(|link| link.up.load(Ordering::Relaxed)).map(|_| index)
    }

    /// The next hop towards `destination` for what came over `incoming`, never back out of it.
    pub(super) fn onward<'f>(fib: &'f Fib, incoming: LinkIndex, destination: PeerName) -> Onward<'f> {
        let came_from = fib.links.get(usize::from(incoming)).map(|link| link.peer);
        let usable = |index: &LinkIndex| {
            let link = fib.links.get(usize::from(*index));
            link.filter(|link| link.up.load(Ordering::Relaxed) && Some(link.peer) != came_from).map(Hop::over)
        };
        let hop = fib.peers.get(&destination).and_then(|peer| match peer.route {
            Route::Direct(_) if came_from == Some(destination) => None,
            Route::Direct(address) => match fib.link_by_address.get(&address) {
                Some(link) => usable(link),
                None => Some(Hop::straight_to(peer, address)),
            },
            Route::Via { primary, alternate } => usable(&primary).or_else(|| alternate.as_ref().and_then(usable)),
            Route::Unreachable => None,
        });
        Onward { destination, hop }
    }

    /// Relays one datagram of `lane` that came over `incoming`.
    pub(super) fn relay(&mut self, call: &mut Call<'_, '_>, incoming: LinkIndex, onward: &Onward<'_>, lane: u8, datagram: &mut [u8]) {
        let (now, outbox) = (call.now, &mut *call.outbox);
        let counters = &self.shared.counters;
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
        // The hop is in use, so its liveness matters; what comes in proves nothing about the link it came over.
        hop.activity.tx_bytes.fetch_add(datagram.len() as u64, Ordering::Relaxed);
        hop.activity.sent.store(now.0, Ordering::Relaxed);
        counters.relayed.inc();
    }
}
