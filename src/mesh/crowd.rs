//! What one host may take of the room that all share, whatever names it goes by: a member can make keys, and with them routers, as many as it likes,
//! but each has to be reached at some address.
//!
//! * Of the links that a router may have (`--conn-limit`) one host takes a quarter. Beyond that its links stand beside the limit: nobody is refused
//!   or let go for their sake.
//! * A full router takes whoever says that it needs a link ([`limits`](super::limits)), but [`MOST_PER_HOST`] of one host and [`MOST_BEYOND`] in all.
//!   Whoever is refused hears of others.
//! * Where there are as many sessions as there may be, a new one takes the place of another of the host that has most of them.
//!
//! Several routers at one address are honest where they are behind one NAT, hence no less. Small limits are not divided.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::config::Outbox;
use super::core::{MOST_MEMBERS, Mesh};
use crate::time::Time;
use crate::wire::{Address, PeerName};

/// Links with one host: a NAT may hide a few dozen routers.
const MOST_PER_HOST: usize = 64;
/// Links beyond the limit, with routers that say that they need one.
const MOST_BEYOND: usize = 256;
/// One host takes this part of the limit.
const PARTS: usize = 4;
/// A limit below this is not divided.
const FEW: usize = 8;
/// A session that carried nothing for so long is the first to go.
const UNUSED: Duration = Duration::from_secs(10);

fn host(address: Address) -> IpAddr {
    address.socket_addr().ip()
}

impl Mesh {
    /// Links of the limit that one host takes.
    fn share_of_host(&self) -> usize {
        let limit = self.config.conn_limit;
        if limit < FEW { usize::MAX } else { limit / PARTS }
    }

    /// How many links there are with each host.
    fn links_by_host(&self) -> BTreeMap<IpAddr, usize> {
        let mut hosts = BTreeMap::new();
        for adjacency in self.adjacencies.values().filter(|adjacency| adjacency.is_link()) {
            *hosts.entry(host(adjacency.address)).or_insert(0) += 1;
        }
        hosts
    }

    /// True where a link with a router at this address fits the limit although others may stand beside it.
    pub(super) fn has_room_at(&self, address: Address) -> bool {
        if self.has_room() {
            return true;
        }
        let (share, hosts) = (self.share_of_host(), self.links_by_host());
        let taken: usize = hosts.values().map(|links| (*links).min(share)).sum();
        taken < self.config.conn_limit && hosts.get(&host(address)).is_none_or(|links| *links < share)
    }

    /// True where a router at this address that says that it needs a link may have one beyond the limit.
    pub(super) fn has_room_beyond(&self, address: Address) -> bool {
        let at = host(address);
        let all = self.link_count() < self.config.conn_limit + MOST_BEYOND;
        all && self.adjacencies.values().filter(|other| other.is_link() && host(other.address) == at).count() < MOST_PER_HOST
    }

    /// Puts links that may be let go in order: first those with hosts that have more than their share, and how many these are. And how many of the
    /// others are too many, not counting what stands beside the limit.
    pub(super) fn crowd_first(&self, mut spare: Vec<(PeerName, Address)>) -> (Vec<(PeerName, Address)>, usize, usize) {
        let (share, hosts) = (self.share_of_host(), self.links_by_host());
        let is_crowd = |address: Address| hosts.get(&host(address)).is_some_and(|links| *links > share);
        spare.sort_by_key(|(_, address)| !is_crowd(*address));
        let crowd = spare.iter().filter(|(_, address)| is_crowd(*address)).count();
        let taken: usize = hosts.values().map(|links| (*links).min(share)).sum();
        (spare, crowd, taken.saturating_sub(self.config.conn_limit))
    }

    /// There is to be a session with `peer`: where there are as many as there may be, another goes.
    pub(super) fn make_session_room(&mut self, now: Time, peer: PeerName, out: &mut Outbox) {
        if self.keyrings.len() < MOST_MEMBERS || self.keyrings.contains_key(&peer) {
            return;
        }
        let at = |name: &PeerName| self.adjacencies.get(name).map(|adjacency| host(adjacency.address));
        let mut crowds: BTreeMap<Option<IpAddr>, usize> = BTreeMap::new();
        for name in self.keyrings.keys() {
            *crowds.entry(at(name)).or_default() += 1;
        }
        let is_link = |name: &PeerName| self.adjacencies.get(name).is_some_and(|adjacency| adjacency.is_link());
        let open = self.keyrings.iter().filter(|(name, _)| !is_link(name) && !self.targets.is_configured(**name));
        let rank = |name: &PeerName, keys: &super::keyring::Keyring| {
            let since = keys.current().map(|session| session.established());
            (Reverse(crowds.get(&at(name)).copied()), self.is_in_use(now, *name, UNUSED), since)
        };
        if let Some(gone) = open.min_by_key(|(name, keys)| rank(name, keys)).map(|(name, _)| *name) {
            self.end_sessions(now, gone, "there are too many sessions", out);
        }
    }
}

#[cfg(test)]
mod tests;
