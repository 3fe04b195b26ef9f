//! The mesh plane's state as told to the management plane: plain data, one moment.

use std::net::IpAddr;
use std::time::Duration;

use crate::wire::{Address, PeerName};

/// Everything `status` and `report` say of the mesh.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// This router's name.
    pub name: PeerName,
    /// This router's nickname.
    pub nickname: String,
    /// This router's public key, 64 hexadecimal digits.
    pub key: String,
    /// Counts starts of this router.
    pub incarnation: u64,
    /// Name of the network.
    pub network: String,
    /// True where a password or `--allow` decides who may join.
    pub authenticated: bool,
    /// False under `--no-encryption`.
    pub encrypted: bool,
    /// Links and attempts at links.
    pub connections: Vec<Connection>,
    /// Every router of the mesh, this one included.
    pub peers: Vec<Peer>,
    /// Hosts that this router was told to connect to.
    pub targets: Vec<TargetState>,
    /// How each peer is reached.
    pub routes: Vec<RouteState>,
    /// Loops outside the mesh that this host's bridge is part of.
    pub loops: Vec<LoopState>,
    /// Routers that were put out of the mesh.
    pub revoked: Vec<RevokedMember>,
    /// MACs that several hosts have.
    pub frozen: Vec<FrozenMac>,
    /// Multicast groups that have members on this host's bridge.
    pub groups: Vec<IpAddr>,
}

/// A MAC that several hosts have: it stays where it was first.
#[derive(Clone, Debug)]
pub struct FrozenMac {
    /// VLAN id, 0 for untagged.
    pub vlan: u16,
    /// The MAC.
    pub mac: [u8; 6],
    /// The router that had it first.
    pub holder: PeerName,
    /// The other, of several the last.
    pub rival: PeerName,
    /// The nicknames of both.
    pub nicknames: [String; 2],
    /// For how long it has been frozen.
    pub since: Duration,
}

/// A router that was put out of the mesh.
#[derive(Clone, Debug)]
pub struct RevokedMember {
    /// Its name.
    pub name: PeerName,
    /// Its public key, 64 hexadecimal digits.
    pub key: String,
    /// `admin`: an administrator, for everybody; `here`: this router, for itself.
    pub by: &'static str,
}

/// A bridge that is joined to this host's outside the mesh.
#[derive(Clone, Debug)]
pub struct LoopState {
    /// Whose bridge it is; this router's own where the bridge is joined to itself.
    pub peer: PeerName,
    /// Its nickname.
    pub nickname: String,
    /// True where this router floods nothing from or to its bridge.
    pub silent: bool,
}

/// Where an adjacency stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
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

/// Who started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This router dialled.
    Outbound,
    /// The other router dialled.
    Inbound,
}

/// A link or an attempt at one.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The peer, once known.
    pub peer: Option<PeerName>,
    /// Its nickname, once known.
    pub nickname: Option<String>,
    /// Its address, once resolved.
    pub address: Option<Address>,
    /// The text it was configured by, where it was.
    pub target: Option<String>,
    /// Who started it.
    pub direction: Direction,
    /// Where it stands.
    pub state: ConnectionState,
    /// Suite of its session, as `aes256gcm`, `chacha20poly1305` or `none`.
    pub cipher: Option<&'static str>,
    /// What its keys rest on: `hybrid` (X25519 and ML-KEM-768) or `classic` (X25519 alone).
    pub key_exchange: Option<&'static str>,
    /// True where a password or pinned key proved the peer a member.
    pub authenticated: Option<bool>,
    /// `direct`, or `relayed`.
    pub path: Option<&'static str>,
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
    /// What carries unicast frames to it: `fastdp` (the kernel) or `router`.
    pub datapath: Option<&'static str>,
    /// Why it is that one.
    pub datapath_reason: Option<String>,
    /// Why it is not up.
    pub error: Option<String>,
}

/// A router of the mesh.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name.
    pub name: PeerName,
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
    pub links: Vec<PeerName>,
    /// Bytes sent to it by this router, end to end.
    pub tx_bytes: u64,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Frames sent to it.
    pub tx_frames: u64,
    /// Frames received from it.
    pub rx_frames: u64,
}

/// A configured or remembered target.
#[derive(Clone, Debug)]
pub struct TargetState {
    /// As the operator wrote it.
    pub target: String,
    /// Where it stands.
    pub state: ConnectionState,
    /// The addresses it last resolved to.
    pub addresses: Vec<Address>,
    /// The peer found there.
    pub peer: Option<PeerName>,
    /// Milliseconds until the next attempt, where one is scheduled.
    pub retry_in_ms: Option<u64>,
    /// Why it is not up.
    pub error: Option<String>,
}

/// An address of a peer that was tried for a direct path.
#[derive(Clone, Debug)]
pub struct CandidateState {
    /// The address.
    pub address: Address,
    /// Milliseconds since it was last tried.
    pub tried_ms: u64,
    /// `answered`, `trying` or `failed`.
    pub outcome: &'static str,
    /// Why it failed, in a sentence.
    pub error: Option<String>,
}

/// The path of frames to one peer.
#[derive(Clone, Debug)]
pub struct PathState {
    /// The peer.
    pub peer: PeerName,
    /// Its nickname.
    pub nickname: String,
    /// `direct`, `relayed`, or `none` where there is none now.
    pub path: &'static str,
    /// The peer's address, where the path is direct.
    pub address: Option<Address>,
    /// The next hops, where it is relayed.
    pub via: Vec<PeerName>,
    /// Milliseconds since it is so; `None` where nothing was sent to the peer yet.
    pub since_ms: Option<u64>,
    /// Smoothed round trip of a direct path, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// The addresses that were tried.
    pub candidates: Vec<CandidateState>,
    /// Why it is not direct, in a sentence.
    pub why_not_direct: Option<String>,
}

/// How large the mesh plane's tables are.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableSizes {
    /// Table and entries.
    pub entries: [(&'static str, usize); 7],
    /// Bytes of all gossip records.
    pub gossip_bytes: usize,
}

/// How one peer is reached.
#[derive(Clone, Debug)]
pub struct RouteState {
    /// The peer.
    pub peer: PeerName,
    /// Its nickname.
    pub nickname: String,
    /// The next hop; the peer itself where the path is direct.
    pub next_hop: PeerName,
    /// A loop-free alternate next hop.
    pub alternate: Option<PeerName>,
    /// Number of hops.
    pub hops: u8,
    /// Sum of link costs.
    pub cost: u32,
    /// Next hops that are as good and share the flows with it.
    pub others: Vec<PeerName>,
    /// Why it is this way, in a sentence.
    pub why: String,
    /// Largest inner IP packet along it, in bytes.
    pub mtu: u16,
    /// `direct` or `relayed`.
    pub path: &'static str,
    /// Suite of the end-to-end session, where there is one.
    pub cipher: Option<&'static str>,
}
