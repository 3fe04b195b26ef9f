//! The JSON of `status --json` and `report`. Names are snake_case and end in their unit where they have one (`_ms`, `_s`, `_bytes`);
//! what is unknown is `null`, never left out. An `mtu` is in bytes and counts the largest inner IP packet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ethernet::{FrozenMac, Loop};
use super::state::{FullStatus, MacRow};
use super::threads::{self, Thread};
use crate::mesh::snapshot;
use crate::wire::PeerName;

/// `weave-router report`: the whole state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// As `status --json`.
    pub status: Status,
    /// As `status connections --json`.
    pub connections: Vec<Connection>,
    /// As `status peers --json`.
    pub peers: Vec<Peer>,
    /// As `status targets --json`.
    pub targets: Vec<Target>,
    /// As `status macs --json`.
    pub macs: Vec<Mac>,
    /// As `status routes --json`.
    pub routes: Vec<Route>,
    /// Every counter, also those that stand at zero.
    pub counters: Vec<Counter>,
    /// As `status PART --json`, of each part of the container network by its name.
    #[serde(flatten)]
    pub parts: BTreeMap<String, serde_json::Value>,
}

/// `weave-router status --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the running binary.
    pub version: String,
    /// This router's name.
    pub name: String,
    /// Its nickname.
    pub nickname: String,
    /// Its public key, 64 hexadecimal digits.
    pub key: String,
    /// Counts starts of this router.
    pub incarnation: u64,
    /// Name of the network.
    pub network: String,
    /// False under `--no-encryption`: frames cross the underlay in clear.
    pub encrypted: bool,
    /// True where a password or `--allow` decides who may join.
    pub authenticated: bool,
    /// Members that were put out of the mesh.
    pub revoked: Vec<super::revoke::Revoked>,
    /// UDP port of the mesh.
    pub port: u16,
    /// Name of the bridge.
    pub bridge: String,
    /// Name of the TAP.
    pub tap: String,
    /// MTU of the bridge, in bytes.
    pub mtu: Option<u16>,
    /// Lines of the parts of the container network, on the page for people alone.
    #[serde(skip)]
    pub parts: Vec<(String, String)>,
    /// Seconds since the router started.
    pub uptime_s: u64,
    /// How many connections stand in each state.
    pub connections: ByState,
    /// How many routers are known, this one included.
    pub peers: usize,
    /// How many of them a route leads to, this one included.
    pub reachable_peers: usize,
    /// How many hosts this router was told to connect to.
    pub targets: usize,
    /// How many MACs are known.
    pub macs: usize,
    /// How many of them are on this host's bridge.
    pub local_macs: usize,
    /// Loops outside the mesh that this host's bridge is part of.
    pub loops: Vec<Loop>,
    /// MACs that several hosts have.
    pub frozen_macs: Vec<FrozenMac>,
    /// Multicast groups that have members on this host's bridge.
    pub multicast_groups: Vec<String>,
    /// The packet threads, and what each has done.
    pub threads: Vec<Thread>,
    /// Suites by name: the library that computes it on this host and what it was measured to take, beside those that were slower.
    pub ciphers: BTreeMap<String, String>,
    /// Offloads by name: `on`, or `off: ` and the reason.
    pub offloads: BTreeMap<String, String>,
    /// The counters that do not stand at zero.
    pub counters: Vec<Counter>,
}

/// Connections by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByState {
    /// Being resolved or dialled.
    pub connecting: usize,
    /// Agreeing on keys.
    pub handshaking: usize,
    /// Up.
    pub established: usize,
    /// Failed, to be tried again.
    pub retrying: usize,
    /// Failed for good.
    pub failed: usize,
}

/// Where a connection or target stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The name is being resolved, or the first datagram is out.
    Connecting,
    /// The peer answered, keys are being agreed.
    Handshaking,
    /// Up.
    Established,
    /// Failed; another attempt is scheduled.
    Retrying,
    /// Failed for good until the operator changes something.
    Failed,
}

/// Who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// This router.
    Outbound,
    /// The other one.
    Inbound,
}

/// One of `weave-router status connections --json`: a link, or an attempt at one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Name of the peer, once known.
    pub peer: Option<String>,
    /// Its nickname, once known.
    pub nickname: Option<String>,
    /// Its underlay address; before it is resolved, the text it was configured by.
    pub address: Option<String>,
    /// Who dialled.
    pub direction: Direction,
    /// Where it stands.
    pub state: State,
    /// `aes256gcm`, `chacha20poly1305` or `none`.
    pub cipher: Option<String>,
    /// What its keys rest on: `hybrid` (X25519 and ML-KEM-768) or `classic` (X25519 alone).
    pub key_exchange: Option<String>,
    /// True where a password or pinned key proved the peer a member.
    pub authenticated: Option<bool>,
    /// `direct` or `relayed`.
    pub path: Option<String>,
    /// Largest inner IP packet, in bytes.
    pub mtu: Option<u16>,
    /// Smoothed round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Share of probes lost, 0 to 1.
    pub loss: Option<f64>,
    /// Bytes of UDP payload sent.
    pub tx_bytes: u64,
    /// Bytes of UDP payload received.
    pub rx_bytes: u64,
    /// What carries unicast frames to the peer: `fastdp` (the kernel, by VXLAN) or `router`; null while it is not up.
    pub datapath: Option<String>,
    /// Why it is that one.
    pub datapath_reason: Option<String>,
    /// Why it is not up.
    pub error: Option<String>,
}

/// One of `weave-router status peers --json`: a router of the mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its nickname.
    pub nickname: String,
    /// Its public key, 64 hexadecimal digits.
    pub key: String,
    /// Its incarnation.
    pub incarnation: u64,
    /// True for the router that answers.
    pub own: bool,
    /// True where a route leads there.
    pub reachable: bool,
    /// Names of the routers it has links to.
    pub links: Vec<String>,
    /// Bytes sent to it by this router, end to end.
    pub tx_bytes: u64,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Frames sent to it.
    pub tx_frames: u64,
    /// Frames received from it.
    pub rx_frames: u64,
}

/// One of `weave-router status targets --json`: a host this router was told to connect to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// As the operator wrote it.
    pub target: String,
    /// Where it stands.
    pub state: State,
    /// The addresses it last resolved to.
    pub addresses: Vec<String>,
    /// Name of the peer found there.
    pub peer: Option<String>,
    /// Its nickname.
    pub nickname: Option<String>,
    /// Milliseconds until the next attempt, where one is scheduled.
    pub retry_in_ms: Option<u64>,
    /// Why it is not up.
    pub error: Option<String>,
}

/// One of `weave-router status macs --json`: a MAC on the Ethernet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mac {
    /// VLAN id, 0 for untagged.
    pub vlan: u16,
    /// The MAC.
    pub mac: String,
    /// Name of the router it is behind.
    pub peer: String,
    /// That router's nickname.
    pub nickname: Option<String>,
    /// True where it is on this host's bridge.
    pub local: bool,
    /// Seconds since a frame came from it.
    pub age_s: u64,
}

/// One of `weave-router status routes --json`: how a peer is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Name of the peer.
    pub peer: String,
    /// Its nickname.
    pub nickname: String,
    /// Name of the next hop; the peer itself where the path is direct.
    pub next_hop: String,
    /// Names of next hops that are as good, and share the flows with it.
    pub others: Vec<String>,
    /// Name of a loop-free alternate next hop.
    pub alternate: Option<String>,
    /// Number of hops.
    pub hops: u8,
    /// Sum of link costs.
    pub cost: u32,
    /// Largest inner IP packet along it, in bytes.
    pub mtu: u16,
    /// `direct` or `relayed`.
    pub path: String,
    /// Suite of the end-to-end session, where there is one.
    pub cipher: Option<String>,
    /// Why it is this way.
    pub why: String,
}

/// A counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// What counts it: `forward`, `mesh`, `io`, …
    pub plane: String,
    /// Its name.
    pub name: String,
    /// The count since the router started.
    pub value: u64,
    /// One sentence of explanation.
    pub help: String,
}

/// `GET /key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The router's public key, 64 hexadecimal digits.
    pub key: String,
}

/// The body of `POST /connect` and `POST /forget`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// Hosts, as `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
    pub peers: Vec<String>,
}

/// Every error of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One sentence.
    pub error: String,
}

impl From<&FullStatus> for Report {
    fn from(full: &FullStatus) -> Report {
        let nicknames: BTreeMap<PeerName, &str> = full.snapshot.peers.iter().map(|p| (p.name, p.nickname.as_str())).collect();
        let nickname = |peer: PeerName| nicknames.get(&peer).map(ToString::to_string);
        let counters: Vec<Counter> = full
            .counters
            .iter()
            .flat_map(|(plane, readings)| readings.iter().map(move |r| (plane, r)))
            .map(|(plane, r)| Counter { plane: (*plane).into(), name: r.name.into(), value: r.value, help: r.help.into() })
            .collect();
        let snapshot = &full.snapshot;
        Report {
            status: status(full, &counters),
            connections: snapshot.connections.iter().map(Connection::from).collect(),
            peers: snapshot.peers.iter().map(Peer::from).collect(),
            targets: snapshot.targets.iter().map(|t| target(t, t.peer.and_then(nickname))).collect(),
            macs: full.macs.iter().map(|m| mac(m, nickname(m.peer))).collect(),
            routes: snapshot.routes.iter().map(Route::from).collect(),
            counters,
            parts: full.sections.iter().map(|section| (section.name.to_string(), section.json.clone())).collect(),
        }
    }
}

fn status(full: &FullStatus, counters: &[Counter]) -> Status {
    let s = &full.snapshot;
    Status {
        version: full.version.into(),
        name: s.name.to_string(),
        nickname: s.nickname.clone(),
        key: s.key.clone(),
        incarnation: s.incarnation,
        network: s.network.clone(),
        encrypted: s.encrypted,
        authenticated: s.authenticated,
        revoked: s.revoked.iter().map(Into::into).collect(),
        port: full.port,
        bridge: full.bridge.clone(),
        tap: full.tap.clone(),
        mtu: full.mtu,
        uptime_s: full.uptime.as_secs(),
        parts: full.sections.iter().flat_map(|section| section.overview.clone()).collect(),
        connections: ByState::count(s.connections.iter().map(|c| c.state)),
        peers: s.peers.len(),
        reachable_peers: s.peers.iter().filter(|p| p.reachable || p.own).count(),
        targets: s.targets.len(),
        macs: full.macs.len(),
        local_macs: full.macs.iter().filter(|m| m.local).count(),
        loops: s.loops.iter().map(Loop::from).collect(),
        frozen_macs: s.frozen.iter().map(FrozenMac::from).collect(),
        multicast_groups: s.groups.iter().map(ToString::to_string).collect(),
        threads: threads::threads(full),
        ciphers: full.ciphers.iter().cloned().collect(),
        offloads: full.offloads.iter().cloned().collect(),
        counters: counters.iter().filter(|c| c.value > 0).cloned().collect(),
    }
}

impl ByState {
    /// Counts states.
    pub fn count(states: impl Iterator<Item = snapshot::ConnectionState>) -> ByState {
        let mut by = ByState::default();
        for state in states {
            *match state {
                snapshot::ConnectionState::Connecting => &mut by.connecting,
                snapshot::ConnectionState::Handshaking => &mut by.handshaking,
                snapshot::ConnectionState::Established => &mut by.established,
                snapshot::ConnectionState::Retrying => &mut by.retrying,
                snapshot::ConnectionState::Failed => &mut by.failed,
            } += 1;
        }
        by
    }

    /// Name and count of every state, in the order a connection goes through them.
    pub fn named(&self) -> [(&'static str, usize); 5] {
        [
            ("connecting", self.connecting),
            ("handshaking", self.handshaking),
            ("established", self.established),
            ("retrying", self.retrying),
            ("failed", self.failed),
        ]
    }
}

impl From<snapshot::ConnectionState> for State {
    fn from(state: snapshot::ConnectionState) -> State {
        match state {
            snapshot::ConnectionState::Connecting => State::Connecting,
            snapshot::ConnectionState::Handshaking => State::Handshaking,
            snapshot::ConnectionState::Established => State::Established,
            snapshot::ConnectionState::Retrying => State::Retrying,
            snapshot::ConnectionState::Failed => State::Failed,
        }
    }
}

impl From<snapshot::Direction> for Direction {
    fn from(direction: snapshot::Direction) -> Direction {
        match direction {
            snapshot::Direction::Outbound => Direction::Outbound,
            snapshot::Direction::Inbound => Direction::Inbound,
        }
    }
}

impl From<&snapshot::Connection> for Connection {
    fn from(c: &snapshot::Connection) -> Connection {
        Connection {
            peer: c.peer.map(|p| p.to_string()),
            nickname: c.nickname.clone(),
            address: c.address.map(|a| a.to_string()).or_else(|| c.target.clone()),
            direction: c.direction.into(),
            state: c.state.into(),
            cipher: c.cipher.map(Into::into),
            key_exchange: c.key_exchange.map(Into::into),
            authenticated: c.authenticated,
            path: c.path.map(Into::into),
            mtu: c.mtu,
            rtt_ms: c.rtt_ms.and_then(|v| rounded(v, 1e3)),
            loss: c.loss.and_then(|v| rounded(v, 1e4)),
            tx_bytes: c.tx_bytes,
            rx_bytes: c.rx_bytes,
            datapath: c.datapath.map(str::to_string),
            datapath_reason: c.datapath_reason.clone(),
            error: c.error.clone(),
        }
    }
}

impl From<&snapshot::Peer> for Peer {
    fn from(p: &snapshot::Peer) -> Peer {
        Peer {
            name: p.name.to_string(),
            nickname: p.nickname.clone(),
            key: p.key.clone(),
            incarnation: p.incarnation,
            own: p.own,
            reachable: p.reachable || p.own,
            links: p.links.iter().map(ToString::to_string).collect(),
            tx_bytes: p.tx_bytes,
            rx_bytes: p.rx_bytes,
            tx_frames: p.tx_frames,
            rx_frames: p.rx_frames,
        }
    }
}

fn target(t: &snapshot::TargetState, nickname: Option<String>) -> Target {
    Target {
        target: t.target.clone(),
        state: t.state.into(),
        addresses: t.addresses.iter().map(ToString::to_string).collect(),
        peer: t.peer.map(|p| p.to_string()),
        nickname,
        retry_in_ms: t.retry_in_ms,
        error: t.error.clone(),
    }
}

fn mac(m: &MacRow, nickname: Option<String>) -> Mac {
    // A MAC is printed as a peer name is.
    let text = PeerName(m.mac).to_string();
    Mac { vlan: m.vlan, mac: text, peer: m.peer.to_string(), nickname, local: m.local, age_s: m.age.as_secs() }
}

impl From<&snapshot::RouteState> for Route {
    fn from(r: &snapshot::RouteState) -> Route {
        Route {
            peer: r.peer.to_string(),
            nickname: r.nickname.clone(),
            next_hop: r.next_hop.to_string(),
            others: r.others.iter().map(ToString::to_string).collect(),
            alternate: r.alternate.map(|p| p.to_string()),
            hops: r.hops,
            cost: r.cost,
            mtu: r.mtu,
            path: r.path.into(),
            cipher: r.cipher.map(Into::into),
            why: r.why.clone(),
        }
    }
}

/// Digits behind the measurement's precision are noise; a value that is no number is unknown.
fn rounded(value: f64, scale: f64) -> Option<f64> {
    value.is_finite().then(|| (value * scale).round() / scale)
}
