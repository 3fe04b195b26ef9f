//! Peers behind TCP connections: reached so where no UDP gets through, and left as soon as some does.
//!
//! Here a TCP connection is one more address ([`Address::Tcp`]), made and kept by `io::tcp`. It differs in this:
//!
//! * it is dialled last: a target `tcp://HOST` waits for a first attempt at `HOST` by UDP;
//! * it is told to nobody, since it means something to its two ends alone;
//! * its link costs more than any way by UDP, and frames go through relays where that costs less;
//! * while a peer is there, its other addresses are challenged again and again, and the first that answers takes over; there is no way
//!   back to TCP but by dialling it once UDP is dead.

use std::time::Duration;

use super::adjacency::CHALLENGE_EVERY;
use super::command::Target;
use super::config::Outbox;
use super::core::Mesh;
use super::heartbeat::{IDLE, SPARED_FOR};
use super::targets::Goal;
use crate::time::Time;
use crate::wire::control::Record;
use crate::wire::{Address, PeerName};

/// What TCP costs besides its round trip: a second of it, more than UDP takes over any number of relays that somebody would put up with.
pub(super) const TCP_COST: u32 = 1_000_000;
/// A target by TCP waits so long for one of the same host by UDP: for three first messages, so that no single loss decides.
const UDP_FIRST: Duration = Duration::from_secs(3);
/// Between two looks for a way by UDP. Challenges of one look are repeated within a second.
const LOOK_EVERY: Duration = Duration::from_secs(4);

impl Mesh {
    /// Takes up hosts that somebody named, those by TCP last.
    pub(super) fn connect(&mut self, now: Time, targets: Vec<Target>) {
        let (tcp, udp): (Vec<Target>, Vec<Target>) = targets.into_iter().partition(|target| target.tcp);
        for target in udp.into_iter().chain(tcp) {
            self.told.remove(&target.to_string());
            let wait = target.tcp && self.targets.has_udp_host(&target.host);
            self.targets.add(if wait { now + UDP_FIRST } else { now }, Goal::Host(target), Vec::new());
        }
    }

    /// Asks peers that are reached by TCP whether they are at an address of theirs by UDP.
    pub(super) fn leave_tcp(&mut self, now: Time, out: &mut Outbox) {
        if self.left {
            return;
        }
        let by_tcp = self.adjacencies.iter().filter(|(_, adjacency)| adjacency.address.is_tcp());
        let peers: Vec<PeerName> = by_tcp.map(|(peer, _)| *peer).collect();
        for peer in peers {
            if !self.may_search(now, peer, LOOK_EVERY) {
                continue;
            }
            let mut addresses = self.targets.udp_addresses_of(peer);
            if self.config.discovery {
                let more: Vec<Address> = self.dialable(peer).into_iter().filter(|address| !addresses.contains(address)).collect();
                addresses.extend(more);
            }
            self.try_addresses(now, peer, &addresses, out);
        }
    }
}

/// Between a peer's two addresses, `by` the one it is known to be at: how long it must be silent there before it is asked whether it has
/// moved to `to`. By UDP it has, at once; to TCP only where UDP is as good as dead, which an idle path is not between two pings.
pub(super) fn patience(by: Address, to: Address, usual: Duration) -> Duration {
    match (by.is_tcp(), to.is_tcp()) {
        (true, false) => Duration::ZERO,
        (false, true) => usual.max(IDLE + SPARED_FOR) + 3 * CHALLENGE_EVERY,
        (true, true) | (false, false) => usual,
    }
}

/// What a peer is told of the address it is seen at.
pub(super) fn observed(address: Address) -> Option<Record<'static>> {
    (!address.is_tcp()).then_some(Record::Observed(address))
}
