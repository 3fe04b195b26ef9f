//! Gossip coming in and going out, and what it changes: topology, routes, discovery, MACs.

use std::time::Duration;

use super::command::Event;
use super::config::Outbox;
use super::core::Mesh;
use super::gossip::{Change, Output};
use super::routes::{Routes, quantise_cost};
use super::targets::Goal;
use crate::time::Time;
use crate::wire::body::{Extensions, LinkEntry, MacEntry, Node};
use crate::wire::control::Record;
use crate::wire::{Address, PeerName};

/// Routes follow news of others after this, so that a flood of records costs one computation.
const ROUTES_SOON: Duration = Duration::from_millis(5);
/// And at most this often.
const ROUTES_EVERY: Duration = Duration::from_millis(100);
/// The higher name leaves the first attempt to the lower one for this long.
const POLITE: Duration = Duration::from_secs(3);
/// Of the addresses that neighbours see us at, so many are told to the others.
const MOST_OBSERVED: usize = 4;
/// And changes of them at most this often: each is signed and goes to everybody.
const OBSERVED_EVERY: Duration = Duration::from_secs(10);
/// What a link is said to cost while its round trip is not known: that of 150 ms. Too much keeps the others on proven routes
/// for a moment, too little would draw their traffic.
const UNMEASURED: Duration = Duration::from_millis(150);

impl Mesh {
    /// A message of the gossip from a neighbour.
    pub(super) fn on_gossip(&mut self, now: Time, peer: PeerName, message: &[u8], out: &mut Outbox) {
        if self.adjacencies.get(&peer).is_none_or(|adjacency| !adjacency.is_link()) {
            return self.counters.records_ignored.inc();
        }
        let mut said = Output::default();
        self.store.receive(now, peer, message, &mut said);
        self.spread(now, said, out);
    }

    /// Sends what the store wants said, and draws the conclusions of what changed.
    pub(super) fn spread(&mut self, now: Time, said: Output, out: &mut Outbox) {
        for (peer, message) in &said.to_neighbour {
            self.tell(*peer, message, out);
        }
        if !said.to_all_but.is_empty() {
            let links: Vec<PeerName> =
                self.adjacencies.iter().filter(|(_, adjacency)| adjacency.is_link()).map(|(name, _)| *name).collect();
            for (except, message) in &said.to_all_but {
                links.iter().filter(|link| Some(**link) != *except).for_each(|link| self.tell(*link, message, out));
            }
        }
        out.events.extend(said.warnings.into_iter().map(Event::Warning));
        for change in said.changes {
            self.changed(now, change, out);
        }
    }

    fn tell(&mut self, peer: PeerName, message: &[u8], out: &mut Outbox) {
        if let Some(address) = self.adjacencies.get(&peer).map(|adjacency| adjacency.address) {
            self.send_direct(peer, address, &[Record::Gossip(message)], out);
        }
    }

    fn changed(&mut self, now: Time, change: Change, out: &mut Outbox) {
        match change {
            Change::Node(name) => {
                self.apps.stale = true;
                self.discover_stale = true;
                if name != self.own && !self.fib_peers.contains(&name) {
                    self.routes_soon((now + ROUTES_SOON).max(self.routes_at + ROUTES_EVERY));
                }
            }
            Change::Links(name) => {
                self.discover_stale = true;
                self.routes_soon(if name == self.own { now } else { (now + ROUTES_SOON).max(self.routes_at + ROUTES_EVERY) });
            }
            Change::Macs(name) => {
                let allowed = self.store.is_allowed(name);
                let entries: Vec<MacEntry> = self.store.macs_of(name).filter(|_| allowed).copied().collect();
                let before = out.events.len();
                self.macs.heard(now, name, &entries, &mut out.events);
                self.macs.reach(now, |peer| self.routes.reachable(peer), &mut out.events);
                self.counters.mac_moves.add((out.events.len() - before) as u64);
            }
            Change::Incarnation(name, incarnation) => {
                if self.members.get(&name).is_some_and(|member| member.stamp.incarnation < incarnation) {
                    self.end_sessions(now, name, "it was restarted", out);
                }
            }
            Change::Left(name) | Change::Forgotten(name) => {
                self.macs.forget(now, name, &mut out.events);
                self.targets.remove(&Goal::Peer(name));
                if name != self.own {
                    self.end_sessions(now, name, "it has left the mesh", out);
                }
                if matches!(change, Change::Forgotten(_)) {
                    self.activities.remove(&name);
                    self.path_tries.remove(&name);
                }
                self.fib_stale = true;
                self.apps.stale = true;
            }
            Change::App(name, kind, chunk) => self.app_record(name, kind, chunk, out),
            Change::OwnIncarnation(incarnation) => out.events.push(Event::Persist(incarnation)),
        }
    }

    fn routes_soon(&mut self, due: Time) {
        self.routes_due = Some(self.routes_due.map_or(due, |other| other.min(due)));
    }

    /// Says who and where we are.
    pub(super) fn publish_node(&mut self, now: Time, out: &mut Outbox) {
        let public = self.config.identity.public();
        let mut addresses = self.config.addresses.clone();
        let mut seen: Vec<Address> = self.observed.values().copied().filter(|address| !addresses.contains(address)).collect();
        seen.sort_unstable();
        seen.dedup();
        addresses.extend(seen.into_iter().take(MOST_OBSERVED));
        let node = Node {
            noise: public.noise,
            certificate: public.certificate,
            features: 0,
            nickname: self.config.nickname.clone(),
            version: self.config.version.clone(),
            addresses,
            unknown_addresses: Vec::new(),
            extensions: Extensions::default(),
        };
        let mut said = Output::default();
        self.store.publish_node(now, node, &mut said);
        self.spread(now, said, out);
    }

    /// Our own addresses changed.
    pub(super) fn local_addresses(&mut self, now: Time, addresses: Vec<Address>, out: &mut Outbox) {
        if addresses == self.config.addresses {
            return;
        }
        self.config.addresses = addresses;
        self.targets.addresses_changed(now);
        self.path_tries.clear();
        self.publish_node(now, out);
    }

    /// A neighbour says where it sees us. Others will dial that address, so only links are believed, each one address.
    pub(super) fn on_observed(&mut self, now: Time, peer: PeerName, from: Address, address: Address) {
        let is_link = self.adjacencies.get(&peer).is_some_and(|adjacency| adjacency.is_link() && adjacency.address == from);
        if !is_link || is_local_only(address) || address.socket_addr().port() == 0 {
            return self.counters.records_ignored.inc();
        }
        let before = self.observed.insert(peer, address);
        if before != Some(address) {
            before.into_iter().chain([address]).for_each(|address| self.node_soon(now, address));
        }
    }

    /// A neighbour sees us at this address now, or does no more: our NODE record follows, but not with every change.
    pub(super) fn node_soon(&mut self, now: Time, address: Address) {
        if !self.config.addresses.contains(&address) {
            let due = self.node_at.map_or(now, |last| now.max(last + OBSERVED_EVERY));
            self.node_due.get_or_insert(due);
        }
    }

    /// Says where neighbours see us, where it is time.
    pub(super) fn publish_observed(&mut self, now: Time, out: &mut Outbox) {
        if self.node_due.is_some_and(|due| now >= due) {
            self.node_due = None;
            self.node_at = Some(now);
            self.publish_node(now, out);
        }
    }

    /// Says which links we have, where it is time.
    pub(super) fn publish_links(&mut self, now: Time, out: &mut Outbox) {
        if self.links_due.is_none_or(|due| now < due) {
            return;
        }
        self.links_due = None;
        let mut links = Vec::new();
        for (name, adjacency) in self.adjacencies.iter_mut().filter(|(_, adjacency)| adjacency.is_link()) {
            adjacency.cost = adjacency.current_cost();
            let cost = adjacency.cost.unwrap_or_else(|| quantise_cost(UNMEASURED, 0.0, None));
            links.push(LinkEntry { neighbour: *name, cost, max_datagram: adjacency.mtu.max_datagram() });
        }
        let mut said = Output::default();
        self.store.publish_links(now, &links, &mut said);
        self.spread(now, said, out);
    }

    /// Computes routes anew, where it is time.
    pub(super) fn refresh_routes(&mut self, now: Time, out: &mut Outbox) {
        if self.routes_due.is_none_or(|due| now < due) {
            return;
        }
        self.routes_due = None;
        self.routes_at = now;
        let topology = self.store.topology();
        self.routes = Routes::compute(&topology, self.own);
        self.macs.reach(now, |peer| self.routes.reachable(peer), &mut out.events);
        self.fib_stale = true;
        self.apps.stale = true;
    }

    /// Takes up peers that gossip told of.
    pub(super) fn discover(&mut self, now: Time) {
        if !self.config.discovery || self.left || !std::mem::take(&mut self.discover_stale) {
            return;
        }
        let known: Vec<PeerName> =
            self.store.nodes().filter(|node| node.reachable && node.name != self.own).map(|node| node.name).collect();
        for name in known {
            let addresses = self.dialable(name);
            if addresses.is_empty() {
                continue;
            }
            let due = if self.own < name { now } else { now + POLITE };
            self.targets.add(due, Goal::Peer(name), addresses);
        }
        for goal in self.targets.learned() {
            let gone = |name: &PeerName| self.store.node(*name).is_none_or(|node| !node.reachable);
            if matches!(&goal, Goal::Peer(name) if gone(name)) {
                self.targets.remove(&goal);
            }
        }
    }

    /// The addresses of a peer that are worth trying: those in a network of ours first.
    pub(super) fn dialable(&self, peer: PeerName) -> Vec<Address> {
        let Some(node) = self.store.node(peer) else { return Vec::new() };
        let usable = |address: &&Address| !self.config.addresses.contains(address) && !is_local_only(**address);
        let mut addresses: Vec<Address> = node.addresses.iter().filter(usable).copied().collect();
        addresses.sort_by_key(|address| !self.config.addresses.iter().any(|own| is_near(*own, *address)));
        addresses
    }
}

impl super::adjacency::Adjacency {
    /// The cost to advertise now; `None` while the round trip is not known.
    pub(super) fn current_cost(&self) -> Option<u32> {
        match self.beat.rtt() {
            Some(rtt) => Some(quantise_cost(rtt, self.beat.loss(), self.cost)),
            None => self.cost,
        }
    }
}

/// True for addresses that mean something else on every host or link.
fn is_local_only(address: Address) -> bool {
    match address.socket_addr().ip() {
        std::net::IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_multicast(),
        std::net::IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local(),
    }
}

/// True where two addresses are likely in one network: 24 bits of IPv4 or 64 of IPv6 in common.
fn is_near(a: Address, b: Address) -> bool {
    match (a.socket_addr().ip(), b.socket_addr().ip()) {
        (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => a.octets()[..3] == b.octets()[..3],
        (std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)) => a.octets()[..8] == b.octets()[..8],
        (std::net::IpAddr::V4(_), std::net::IpAddr::V6(_)) | (std::net::IpAddr::V6(_), std::net::IpAddr::V4(_)) => false,
    }
}
