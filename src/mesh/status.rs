//! The state as told to the management plane.

use std::sync::atomic::Ordering;

use super::adjacency::Adjacency;
use super::core::Mesh;
use super::routes::Route;
use super::seeking::{Outcome, Trial, Ways};
use super::snapshot::{CandidateState, Connection, ConnectionState, Direction, PathState, Peer, RouteState, Snapshot, TableSizes};
use crate::forward::fib::{Activity, Fib, Route as Path};
use crate::time::Time;
use crate::wire::{Address, PeerName};

/// Bytes of a datagram besides the inner IP packet: clear header, tag, frame header, Ethernet.
const INNER_OVERHEAD: u16 = 16 + 16 + 6 + 14;

impl Mesh {
    /// Everything `status` and `report` say of the mesh.
    pub fn snapshot(&self, now: Time) -> Snapshot {
        Snapshot {
            name: self.own,
            nickname: self.config.nickname.clone(),
            key: self.config.identity.public().key.to_string(),
            incarnation: self.store.incarnation(),
            network: self.config.network.clone(),
            authenticated: self.local.psks.iter().any(|psk| psk.is_secret()) || !self.config.allow.is_empty(),
            encrypted: !self.config.no_encryption,
            connections: self.connections(),
            peers: self.peers(),
            targets: self.targets.snapshot(now),
            routes: self.route_states(),
            loops: self.loop_states(),
            revoked: self.revoked_members(),
            frozen: self.frozen_macs(now),
            groups: self.multicast.groups(),
        }
    }

    fn connections(&self) -> Vec<Connection> {
        let mut connections: Vec<Connection> = self.adjacencies.keys().filter_map(|peer| self.link_connection(*peer)).collect();
        for (target, state, address, peer, error) in self.targets.attempts() {
            connections.push(Connection {
                peer,
                nickname: peer.map(|peer| self.nickname(peer)),
                address,
                target: Some(target),
                error: error.map(str::to_string),
                ..blank(Direction::Outbound, state)
            });
        }
        for (address, (_, why)) in &self.refusals {
            let error = Some(why.clone());
            connections.push(Connection { address: Some(*address), error, ..blank(Direction::Inbound, ConnectionState::Failed) });
        }
        connections
    }

    fn link_connection(&self, peer: PeerName) -> Option<Connection> {
        let adjacency = self.adjacencies.get(&peer).filter(|adjacency| adjacency.is_link())?;
        let direction = if adjacency.outbound { Direction::Outbound } else { Direction::Inbound };
        let session = self.keyrings.get(&peer).and_then(|keys| keys.current());
        let (datapath, why) = self.datapath(self.now, peer);
        let (tx_bytes, rx_bytes) = self.activities.get(&peer).map_or((0, 0), |activity| bytes_of(activity));
        Some(Connection {
            peer: Some(peer),
            nickname: Some(self.nickname(peer)),
            address: Some(adjacency.address),
            target: self.targets.target_of(peer),
            cipher: session.map(|session| session.cipher_label()),
            key_exchange: session.map(|session| session.exchange().label()),
            authenticated: self.members.get(&peer).map(|member| member.authenticated),
            path: Some("direct"),
            mtu: Some(inner_mtu(adjacency.mtu.max_datagram())),
            rtt_ms: adjacency.beat.rtt().map(|rtt| rtt.as_secs_f64() * 1e3),
            loss: Some(adjacency.beat.loss()),
            tx_bytes,
            rx_bytes,
            datapath: Some(datapath),
            datapath_reason: Some(why),
            ..blank(direction, ConnectionState::Established)
        })
    }

    fn peers(&self) -> Vec<Peer> {
        let peer = |node: super::gossip::NodeView<'_>| {
            let count = |pick: fn(&Activity) -> u64| self.activities.get(&node.name).map_or(0, |activity| pick(activity));
            Peer {
                name: node.name,
                nickname: node.nickname.to_string(),
                key: node.identity.key.to_string(),
                incarnation: node.incarnation,
                own: node.name == self.own,
                reachable: node.name == self.own || self.adjacencies.contains_key(&node.name) || self.routes.reachable(node.name),
                links: self.store.links_of(node.name).map(|link| link.neighbour).collect(),
                tx_bytes: count(|activity| activity.tx_bytes.load(Ordering::Relaxed)),
                rx_bytes: count(|activity| activity.rx_bytes.load(Ordering::Relaxed)),
                tx_frames: count(|activity| activity.tx_frames.load(Ordering::Relaxed)),
                rx_frames: count(|activity| activity.rx_frames.load(Ordering::Relaxed)),
            }
        };
        self.store.nodes().map(peer).collect()
    }

    fn route_states(&self) -> Vec<RouteState> {
        let state = |(peer, route): (PeerName, Route)| {
            let direct = self.direct_path(peer);
            let max_datagram = direct.map_or(route.max_datagram, |adjacency| adjacency.mtu.max_datagram());
            RouteState {
                peer,
                nickname: self.nickname(peer),
                next_hop: match route.alternate {
                    _ if direct.is_some() => peer,
                    Some(other) if route.next_hop == peer => other,
                    _ => route.next_hop,
                },
                alternate: route.alternate,
                hops: if direct.is_some() { 1 } else { u8::try_from(route.hops).unwrap_or(u8::MAX) },
                cost: direct.and_then(Adjacency::current_cost).unwrap_or(route.cost),
                others: if direct.is_some() { Vec::new() } else { route.others.into_iter().flatten().collect() },
                why: self.why_this_route(peer, &route),
                mtu: inner_mtu(max_datagram),
                path: if direct.is_some() { "direct" } else { "relayed" },
                cipher: self.keyrings.get(&peer).and_then(|keys| keys.current()).map(|session| session.cipher_label()),
            }
        };
        self.routes.iter().map(state).collect()
    }

    /// Why frames to a peer go this way.
    fn why_this_route(&self, peer: PeerName, route: &Route) -> String {
        if let Some(path) = self.direct_path(peer) {
            let doubt = if path.beat.is_doubted() { "; it is feared to be dead, and nobody can stand in" } else { "" };
            return format!("{}{doubt}", measured(path));
        }
        let shared = match route.others.iter().flatten().count() {
            0 => String::new(),
            n => format!(" as {n} others do, which share the flows"),
        };
        format!("it costs least{shared}; not direct: {}", self.why_relayed(self.now, peer))
    }

    /// Why frames to a peer are relayed, whether there is a direct path or none.
    fn why_relayed(&self, now: Time, peer: PeerName) -> String {
        let Some(path) = self.adjacencies.get(&peer) else { return self.why_not_direct(now, peer) };
        let why = match path {
            _ if path.beat.is_doubted() => "is feared to be dead",
            _ if path.address.is_tcp() => "costs more",
            _ if path.lossy => "loses too much",
            _ => "is not known to carry as large datagrams yet",
        };
        format!("{} {why}", measured(path))
    }

    /// What `status paths` shows: how frames to each router of the mesh travel, and what was tried to make that direct.
    pub fn path_states(&self, now: Time) -> Vec<PathState> {
        self.store.nodes().filter(|node| node.name != self.own).map(|node| self.path_state(now, node.name)).collect()
    }

    fn path_state(&self, now: Time, peer: PeerName) -> PathState {
        let ms = |at: Time| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
        let candidate = |(address, trial): (Address, &Trial)| {
            let (outcome, error) = match &trial.outcome {
                Outcome::Trying => ("trying", None),
                Outcome::Answered => ("answered", None),
                Outcome::Failed(why) => ("failed", Some(why.clone())),
            };
            CandidateState { address, tried_ms: ms(trial.at), outcome, error }
        };
        let direct = self.direct_path(peer);
        let via: Vec<PeerName> = match (direct, self.routes.get(peer)) {
            (None, Some(route)) => {
                let equal: Vec<PeerName> = route.equal_hops().filter(|hop| *hop != peer).collect();
                if equal.is_empty() { route.alternate.into_iter().collect() } else { equal }
            }
            (Some(_), _) | (None, None) => Vec::new(),
        };
        PathState {
            peer,
            nickname: self.nickname(peer),
            path: match (direct, via.is_empty()) {
                (Some(_), _) => "direct",
                (None, false) => "relayed",
                (None, true) => "none",
            },
            address: direct.map(|path| path.address),
            via,
            since_ms: self.ways.taken.get(&peer).map(|(since, _)| ms(*since)),
            rtt_ms: direct.and_then(|path| path.beat.rtt()).map(|rtt| rtt.as_secs_f64() * 1e3),
            candidates: self.trials(peer).map(candidate).collect(),
            why_not_direct: direct.is_none().then(|| self.why_relayed(now, peer)),
        }
    }

    /// How large the tables are.
    pub fn table_sizes(&self) -> TableSizes {
        let entries = [
            ("routers", self.store.nodes().count()),
            ("routes", self.routes.len()),
            ("paths", self.adjacencies.len()),
            ("links", self.link_count()),
            ("sessions", self.keyrings.len()),
            ("handshakes", self.attempts.len()),
            ("members", self.members.len()),
        ];
        TableSizes { entries, gossip_bytes: self.store.stored_bytes() }
    }

    /// Notes since when frames to a peer go the way they go in this picture; only of peers that something may be sent to.
    pub(super) fn note_ways(&mut self, fib: &Fib) {
        let Mesh { keyrings, ways: Ways { taken, .. }, counters, now, routes, .. } = self;
        for peer in keyrings.keys() {
            let way = match fib.peers.get(peer).map(|peer| peer.route) {
                Some(Path::Direct(address)) => TakenWay::Direct(address),
                Some(Path::Via(_)) => routes.get(*peer).map_or(TakenWay::None, |route| TakenWay::Via(route.next_hop)),
                Some(Path::Unreachable) | None => TakenWay::None,
            };
            match taken.get_mut(peer) {
                Some((_, known)) if *known == way => {}
                Some(known) => {
                    *known = (*now, way);
                    counters.path_changes.inc();
                }
                None => drop(taken.insert(*peer, (*now, way))),
            }
        }
    }
}

/// How frames to a peer travel, as far as a change of it is worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakenWay {
    Direct(Address),
    Via(PeerName),
    None,
}

fn inner_mtu(max_datagram: u16) -> u16 {
    max_datagram.saturating_sub(INNER_OVERHEAD)
}

fn bytes_of(activity: &Activity) -> (u64, u64) {
    (activity.tx_bytes.load(Ordering::Relaxed), activity.rx_bytes.load(Ordering::Relaxed))
}

fn blank(direction: Direction, state: ConnectionState) -> Connection {
    Connection {
        peer: None,
        nickname: None,
        address: None,
        target: None,
        direction,
        state,
        cipher: None,
        key_exchange: None,
        authenticated: None,
        path: None,
        mtu: None,
        rtt_ms: None,
        loss: None,
        tx_bytes: 0,
        rx_bytes: 0,
        datapath: None,
        datapath_reason: None,
        error: None,
    }
}

/// What is known of a direct path, in words.
fn measured(path: &Adjacency) -> String {
    let kind = if path.is_link() { "a link" } else { "a direct path" };
    let tcp = if path.address.is_tcp() { " by TCP" } else { "" };
    let rtt = path.beat.rtt().map_or("not measured yet".to_string(), |rtt| format!("{:.1} ms", rtt.as_secs_f64() * 1e3));
    format!("{kind}{tcp}, round trip {rtt}, loss {:.1}%", path.beat.loss() * 100.0)
}
