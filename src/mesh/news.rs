//! Gossip coming in and going out, and what it changes: topology, routes, discovery, MACs.

use std::collections::BTreeSet;
use std::time::Duration;

use super::command::{Event, LocalMac};
use super::config::Outbox;
use super::core::Mesh;
use super::gossip::{Change, Output};
use super::revoked::REVOKED_RECORD;
use super::routes::{Routes, quantise_cost};
use super::targets::Goal;
use super::tcp::TCP_COST;
use crate::crypto::Classic;
use crate::crypto::handshake::HYBRID;
use crate::forward::limit::TokenBucket;
use crate::time::Time;
use crate::wire::bindings::BINDINGS;
use crate::wire::body::{Extensions, LinkEntry, MAX_ADDRESSES, MAX_COST, MacEntry, NO_TRANSIT, Node};
use crate::wire::control::Record;
use crate::wire::groups::{GROUPS, SNOOPS};
use crate::wire::{Address, PeerName};

/// Routes follow news of others after this, so that a flood of records costs one computation.
const ROUTES_SOON: Duration = Duration::from_millis(5);
/// And at most this often. Where news keeps coming the pause doubles, up to what follows.
const ROUTES_EVERY: Duration = Duration::from_millis(100);
/// Except where a link was lost that routes may lead over: so often at once, and a second. Until then they lead nowhere, or in a circle where
/// several neighbours of one router have lost it together.
const ROUTES_URGENT: (u64, u64) = (10, 4);
/// The longest pause per router of the mesh: what a computation costs grows with them, and so do the news.
const ROUTES_PER_ROUTER: Duration = Duration::from_millis(1);
/// The same after news of a link that is no more, which frames may be lost on.
const ROUTES_PER_ROUTER_CUT: Duration = Duration::from_micros(300);
/// The longest pause in a mesh of any size.
const ROUTES_PAUSE_MOST: Duration = Duration::from_secs(4);
/// Our LINKS record is signed and goes to everybody: where links keep coming, the pause between two editions doubles from here.
const LINKS_EVERY: Duration = Duration::from_millis(100);
/// Up to this.
const LINKS_PAUSE_MOST: Duration = Duration::from_secs(1);
/// Or from this for each router of the mesh, all of whom hear it: the first change after a while is told at once in a mesh of any size.
const LINKS_PER_ROUTER: Duration = Duration::from_millis(1);
/// And where many routers say something new of their links, as at a common start, to this for each that did so within a second: what comes of that
/// grows with the root of their number, and not with it.
const LINKS_PAUSE_PER_NEWS: Duration = Duration::from_millis(5);
/// Up to this.
const LINKS_PAUSE_UNREST: Duration = Duration::from_secs(4);
/// Of the addresses that neighbours see us at, so many are told to the others.
const MOST_OBSERVED: usize = 4;
/// And changes of them at most this often: each is signed and goes to everybody.
const OBSERVED_EVERY: Duration = Duration::from_secs(10);
/// What a link is said to cost while its round trip is not known: that of 150 ms. Too much keeps the others on proven routes
/// for a moment, too little would draw their traffic.
const UNMEASURED: Duration = Duration::from_millis(150);

/// What is kept of the news for the routes.
pub(super) struct News {
    /// Routers that say they pass nothing on.
    closed: BTreeSet<PeerName>,
    /// How often routes may be computed at once.
    urgent: TokenBucket,
}

impl Default for News {
    fn default() -> News {
        News { closed: BTreeSet::new(), urgent: TokenBucket::new(ROUTES_URGENT.0, ROUTES_URGENT.1) }
    }
}

/// How closely routes and our LINKS record follow news.
#[derive(Debug)]
pub(super) struct Pace {
    /// When routes were computed last, and the pause after that while news keeps coming.
    routes_at: Time,
    routes_pause: Duration,
    /// When our LINKS record was last brought up to date, and the pause after that.
    links_at: Time,
    links_pause: Duration,
    /// True where what changed is one that cannot wait for that pause.
    pub(super) links_urgent: bool,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { routes_at: Time::ZERO, routes_pause: ROUTES_EVERY, links_at: Time::ZERO, links_pause: LINKS_EVERY, links_urgent: false }
    }
}

impl Mesh {
    /// A message of the gossip from a neighbour.
    pub(super) fn on_gossip(&mut self, now: Time, peer: PeerName, message: &[u8], out: &mut Outbox) {
        if self.adjacencies.get(&peer).is_none_or(|adjacency| !adjacency.is_link()) {
            return self.counters.records_ignored.inc();
        }
        self.counters.gossip_bytes_in.add(message.len() as u64);
        let mut said = Output::default();
        self.store.receive(now, peer, message, &mut said);
        self.spread(now, said, out);
    }

    /// Passes on what was held of the news, where it is time.
    pub(super) fn pass_on_news(&mut self, now: Time, out: &mut Outbox) {
        if self.store.pass_on_due().is_some_and(|due| now >= due) {
            let mut said = Output::default();
            self.store.pass_on(now, &mut said);
            self.spread(now, said, out);
        }
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
            self.counters.gossip_bytes_out.add(message.len() as u64);
            self.send_direct(peer, address, &[Record::Gossip(message)], out);
        }
    }

    fn changed(&mut self, now: Time, change: Change, out: &mut Outbox) {
        match change {
            Change::Node(name) => {
                self.discovery.stale = true;
                let node = self.store.node(name);
                // Who was put out is none any more: only a survey finds that.
                self.apps.stale |= node.is_none();
                let closed = node.is_some_and(|node| node.features & NO_TRANSIT != 0);
                self.apps.renamed.insert(name);
                let news = if closed { self.news.closed.insert(name) } else { self.news.closed.remove(&name) };
                if news {
                    self.routes_soon(now + ROUTES_SOON);
                }
                if name != self.own && !self.fib_peers.contains(&name) {
                    self.routes_later(now, false);
                }
            }
            Change::Links(name) => {
                self.discovery.stale = true;
                self.heed_links(now, name, out);
                self.routes_later(now, name == self.own);
            }
            Change::Macs(name) => {
                let allowed = self.store.is_allowed(name);
                let entries: Vec<MacEntry> = self.store.macs_of(name).filter(|_| allowed).copied().collect();
                let before = out.events.len();
                self.macs.heard(now, name, &entries, &mut out.events);
                let is_reached = self.routes.reachable(name) || self.adjacencies.contains_key(&name);
                self.macs.turn(now, name, is_reached, &mut out.events);
                self.counters.mac_moves.add((out.events.len() - before) as u64);
                self.review_bindings(now, name);
            }
            Change::Incarnation(name, incarnation) => {
                // What it says of itself now comes with its NODE record, and routes follow that again.
                self.news.closed.remove(&name);
                if self.members.get(&name).is_some_and(|member| member.stamp.incarnation < incarnation) {
                    self.end_sessions(now, name, "it was restarted", out);
                }
            }
            Change::Left(name) | Change::Forgotten(name) => {
                self.macs.forget(now, name, &mut out.events);
                self.heard_bindings(now, name);
                self.heard_groups(now, name);
                self.targets.remove(&Goal::Peer(name));
                // A goodbye may be late, and what we have with its next life already.
                let gone = self.store.incarnation_of(name).unwrap_or(u64::MAX);
                let lives = self.members.get(&name).is_some_and(|member| member.stamp.incarnation > gone);
                if name != self.own && !lives {
                    self.end_sessions(now, name, "it has left the mesh", out);
                }
                if matches!(change, Change::Forgotten(_)) {
                    self.news.closed.remove(&name);
                    self.activities.remove(&name);
                    self.ways.searches.remove(&name);
                }
                self.fib_stale = true;
                self.apps.stale = true;
            }
            Change::App(name, BINDINGS, _) => self.heard_bindings(now, name),
            Change::App(name, GROUPS, _) => self.heard_groups(now, name),
            Change::App(name, REVOKED_RECORD, chunk) => self.heard_revoked(now, name, chunk, out),
            Change::App(name, kind, chunk) => self.app_record(name, kind, chunk, out),
            Change::OwnIncarnation(incarnation) => out.events.push(Event::Persist(incarnation)),
        }
    }

    /// Says everything anew under a higher incarnation. Whoever hears of it ends its sessions with us: so do we, and dial again.
    pub(super) fn adopt_incarnation(&mut self, now: Time, incarnation: u64, out: &mut Outbox) {
        let before = self.store.incarnation();
        let mut said = Output::default();
        self.store.adopt_incarnation(now, incarnation, &mut said);
        self.spread(now, said, out);
        if self.store.incarnation() > before {
            let peers: Vec<PeerName> = self.keyrings.keys().copied().collect();
            peers.into_iter().for_each(|peer| self.end_sessions(now, peer, "this router goes on as a new incarnation", out));
            // What was begun in the former life is refused by whoever has heard of this one.
            self.attempts.retain(|_, attempt| attempt.goal.is_some());
            self.fib_stale = true;
        }
    }

    /// A MAC was seen on, or vanished from, our bridge. In a loop what others have is seen there too.
    pub(super) fn local_mac(&mut self, now: Time, mac: LocalMac, out: &mut Outbox) {
        let key = (mac.vlan, mac.mac);
        let elsewhere = mac.present && self.macs.winner(key).is_some_and(|owner| owner != self.own && self.routes.reachable(owner));
        if elsewhere && self.loops.is_any() {
            // The packet plane may have taken it for ours before it knew of the loop.
            let (vlan, mac, owner) = (key.0, key.1, self.macs.winner(key));
            return out.events.push(Event::MacAnnounced { vlan, mac, owner, frozen: false });
        }
        if elsewhere || mac.came_from.is_some() {
            self.suspect_loop(now, out);
        }
        if mac.present {
            self.multicast.ask_soon(now);
        }
        // In a loop what came from elsewhere last may still be there.
        let came_from = mac.came_from.filter(|_| !self.loops.is_any());
        self.macs.local(now, LocalMac { came_from, ..mac }, &mut out.events);
        if !mac.present {
            self.review_bindings(now, self.own);
        }
    }

    /// A station on our bridge floods more than it may.
    pub(super) fn too_many_floods(&self, vlan: u16, mac: [u8; 6], out: &mut Outbox) {
        let mac = PeerName(mac);
        out.events.push(Event::Warning(format!(
            "the station {mac} (VLAN {vlan}) on this host's bridge floods more frames than it may, and what exceeds that is dropped: look for a \
             loop or a program gone mad there, or raise --flood-limit"
        )));
    }

    /// All stations on our bridge together do.
    pub(super) fn too_many_floods_of_all(&self, out: &mut Outbox) {
        out.events.push(Event::Warning(
            "the stations on this host's bridge together flood more frames than they may, under many MACs or under ever new ones, and what exceeds \
             that is dropped: look for a loop or a program that makes up MACs there, or raise --flood-limit"
                .into(),
        ));
    }

    /// Routes follow news after the pause of the moment. At once where a link of our `own` is no more, and where one of others is,
    /// as long as that is rare.
    fn routes_later(&mut self, now: Time, own: bool) {
        let cut = self.store.take_cut();
        if own && cut {
            return self.routes_soon(now);
        }
        // Without packet threads no frame takes the wrong way meanwhile.
        if cut && !self.alone && self.news.urgent.take(now, 1) {
            return self.routes_soon(now + ROUTES_SOON);
        }
        let each = if cut { ROUTES_PER_ROUTER_CUT } else { ROUTES_PER_ROUTER };
        let routers = u32::try_from(self.routes.len()).unwrap_or(u32::MAX);
        let most = each.saturating_mul(routers).clamp(ROUTES_EVERY, ROUTES_PAUSE_MOST);
        self.routes_soon((now + ROUTES_SOON).max(self.pace.routes_at + self.pace.routes_pause.min(most)));
    }

    fn routes_soon(&mut self, due: Time) {
        self.routes_due = Some(self.routes_due.map_or(due, |other| other.min(due)));
    }

    /// Says who and where we are.
    pub(super) fn publish_node(&mut self, now: Time, out: &mut Outbox) {
        let public = self.config.identity.public();
        let node = Node {
            noise: public.noise,
            certificate: public.certificate,
            features: self.features(),
            nickname: self.config.nickname.clone(),
            version: self.config.version.clone(),
            addresses: self.told_addresses(),
            unknown_addresses: Vec::new(),
            extensions: Extensions::default(),
        };
        let mut said = Output::default();
        self.store.publish_node(now, node, &mut said);
        self.spread(now, said, out);
    }

    /// Where others may try to reach us, no more than a record holds: it is put in ascending order, so that what is too much must go before. What the
    /// operator says wins, then what neighbours have seen to work.
    fn told_addresses(&self) -> Vec<Address> {
        let seen: BTreeSet<Address> = self.observed.values().copied().filter(|address| !self.config.is_own(*address)).collect();
        let advertised = &self.config.advertise;
        let local = self.config.addresses.iter().copied().filter(|address| !advertised.contains(address));
        advertised.iter().copied().chain(seen.into_iter().take(MOST_OBSERVED)).chain(local).take(MAX_ADDRESSES).collect()
    }

    /// What this router can, and what it does not do, as its NODE record tells.
    fn features(&self) -> u32 {
        let hybrid = if self.local.classic == Classic::Only { 0 } else { HYBRID };
        let snoops = if self.config.multicast_snooping { SNOOPS } else { 0 };
        hybrid | snoops | if self.config.forwarding { 0 } else { NO_TRANSIT }
    }

    /// Our own addresses changed.
    pub(super) fn local_addresses(&mut self, now: Time, addresses: Vec<Address>, out: &mut Outbox) {
        if addresses == self.config.addresses {
            return;
        }
        // One that is merely gone opens no way.
        let gained = addresses.iter().any(|address| !self.config.addresses.contains(address));
        self.config.addresses = addresses;
        let unanswered = self.targets.addresses_changed(now, gained);
        if gained {
            self.dial_anew(now, unanswered, out);
            self.seek_missed_anew(now);
        }
        self.search_anew();
        self.publish_node(now, out);
        self.show_new_address(now, out);
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
        if !self.config.is_own(address) {
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
        let since = now.since(self.pace.links_at);
        let unrest = (LINKS_PAUSE_PER_NEWS * self.store.unrest(now)).min(LINKS_PAUSE_UNREST);
        let pause = if self.pace.links_urgent { LINKS_EVERY / 2 } else { self.pace.links_pause.max(unrest) };
        if since < pause {
            self.links_due = Some(self.pace.links_at + pause);
            return;
        }
        let routers = u32::try_from(self.routes.len()).unwrap_or(u32::MAX);
        let least = LINKS_PER_ROUTER.saturating_mul(routers).clamp(LINKS_EVERY, LINKS_PAUSE_MOST);
        let doubled = (self.pace.links_pause * 2).min(LINKS_PAUSE_MOST);
        self.pace.links_pause = if since < self.pace.links_pause * 2 { doubled.max(least) } else { least };
        (self.links_due, self.pace.links_at, self.pace.links_urgent) = (None, now, false);
        let mut links = Vec::new();
        for (name, adjacency) in self.adjacencies.iter_mut().filter(|(_, adjacency)| adjacency.is_told()) {
            adjacency.cost = adjacency.current_cost();
            let cost = adjacency.cost.unwrap_or_else(|| quantise_cost(UNMEASURED, 0.0, None) + adjacency.extra_cost());
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
        let busy = now.since(self.pace.routes_at) < self.pace.routes_pause * 2;
        self.pace.routes_pause = if busy { (self.pace.routes_pause * 2).min(ROUTES_PAUSE_MOST) } else { ROUTES_EVERY };
        self.pace.routes_at = now;
        let topology = self.store.topology();
        self.routes = if self.alone { Routes::without_alternates(&topology, self.own) } else { Routes::compute(&topology, self.own) };
        self.macs.reach(now, |peer| self.routes.reachable(peer) || self.adjacencies.contains_key(&peer), &mut out.events);
        self.link_lone_paths(now, out);
        self.fib_stale = true;
        self.apps.stale = true;
    }

    /// The addresses of a peer that are worth trying: those in a network of ours first, then public ones. Its record tells them in no order of use,
    /// and where a translator stands before the peer they are what others see of it.
    pub(super) fn dialable(&self, peer: PeerName) -> Vec<Address> {
        let told = self.store.node(peer).map(|node| node.addresses).unwrap_or_default();
        let mut told = told.to_vec();
        told.sort_by_key(Address::is_private);
        self.nearest_first(told.into_iter())
    }

    /// Those of these addresses that are worth trying: those in a network of ours first, the others in the order given.
    pub(super) fn nearest_first(&self, addresses: impl Iterator<Item = Address>) -> Vec<Address> {
        let usable = |address: &Address| !self.config.is_own(*address) && !is_local_only(*address);
        let mut addresses: Vec<Address> = addresses.filter(usable).collect();
        addresses.sort_by_key(|address| !self.is_near_us(*address));
        addresses
    }

    /// True for an address that is likely in a network of ours.
    pub(super) fn is_near_us(&self, address: Address) -> bool {
        self.config.addresses.iter().any(|own| is_near(*own, address))
    }
}

impl super::adjacency::Adjacency {
    /// The cost to advertise now; `None` while the round trip is not known.
    pub(super) fn current_cost(&self) -> Option<u32> {
        let more = self.extra_cost();
        let before = self.cost.map(|cost| cost.saturating_sub(more));
        match self.beat.base() {
            Some(rtt) => Some((quantise_cost(rtt, self.beat.loss(), before) + more).min(MAX_COST)),
            None => self.cost,
        }
    }

    fn extra_cost(&self) -> u32 {
        if self.address.is_tcp() { TCP_COST } else { 0 }
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

#[cfg(test)]
mod tests;
