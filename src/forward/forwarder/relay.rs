//! Relaying: what comes from a neighbour for another router goes on as it is, sealed, with one hop less.

use std::sync::atomic::Ordering;

use crate::forward::fib::{Fib, FibLink, LinkIndex, Route};
use crate::forward::outbox::Outbox;
use crate::time::Time;
use crate::wire::header::decrement_hop_limit;
use crate::wire::{Address, PeerName};

use super::State;

/// Where datagrams for one destination go on: a receive buffer mostly holds datagrams for one.
pub(super) struct Onward<'a> {
    pub(super) destination: PeerName,
    link: Option<&'a FibLink>,
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
            fib.links.get(usize::from(*index)).filter(|link| link.up.load(Ordering::Relaxed) && Some(link.peer) != came_from)
        };
        let link = match fib.peers.get(&destination).map(|peer| peer.route) {
            Some(Route::Direct(address)) => fib.link_by_address.get(&address).and_then(usable),
            Some(Route::Via { primary, alternate }) => usable(&primary).or_else(|| alternate.as_ref().and_then(usable)),
            Some(Route::Unreachable) | None => None,
        };
        Onward { destination, link }
    }

    /// Relays one datagram that came over `incoming`.
    pub(super) fn relay(&mut self, now: Time, incoming: LinkIndex, onward: &Onward<'_>, datagram: &mut [u8], outbox: &mut Outbox) {
        let counters = &self.shared.counters;
        let Some(link) = onward.link else { return counters.drop_relay_no_route.inc() };
        if datagram.len() > usize::from(link.max_datagram) {
            return counters.drop_relay_too_big.inc();
        }
        if !decrement_hop_limit(datagram) {
            return counters.drop_relay_hops.inc();
        }
        let budget = self.relay_budgets.get_mut(usize::from(incoming));
        if !budget.is_some_and(|(_, bucket)| bucket.take(now, datagram.len() as u64)) {
            return counters.drop_relay_budget.inc();
        }
        let Some(room) = outbox.reserve(link.address, datagram.len()) else { return counters.drop_outbox_full.inc() };
        room.copy_from_slice(datagram);
        // The link is in use, so its liveness matters; what comes in proves nothing about the link it came over.
        link.activity.tx_bytes.fetch_add(datagram.len() as u64, Ordering::Relaxed);
        link.activity.sent.store(now.0, Ordering::Relaxed);
        counters.relayed.inc();
    }
}
