//! The state as told to the management plane.

use std::sync::atomic::Ordering;

use super::core::Mesh;
use super::snapshot::{Connection, ConnectionState, Direction, Peer, RouteState, Snapshot};
use crate::forward::fib::Activity;
use crate::time::Time;
use crate::wire::PeerName;

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
        let state = |(peer, route): (PeerName, &super::routes::Route)| {
            let direct = self.adjacencies.get(&peer);
            let max_datagram = direct.map_or(route.max_datagram, |adjacency| adjacency.mtu.max_datagram());
            RouteState {
                peer,
                nickname: self.nickname(peer),
                next_hop: if direct.is_some() { peer } else { route.next_hop },
                alternate: route.alternate,
                hops: if direct.is_some() { 1 } else { u8::try_from(route.hops).unwrap_or(u8::MAX) },
                cost: route.cost,
                mtu: inner_mtu(max_datagram),
                path: if direct.is_some() { "direct" } else { "relayed" },
                cipher: self.keyrings.get(&peer).and_then(|keys| keys.current()).map(|session| session.cipher_label()),
            }
        };
        self.routes.iter().map(state).collect()
    }
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
