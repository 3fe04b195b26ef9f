//! A router's state with something of everything, for the tests of this module.

use std::time::Duration;

use super::state::{FullStatus, MacRow};
use crate::counters::Reading;
use crate::io::thread_load::Load;
use crate::mesh::snapshot::{
    Connection, ConnectionState, Direction, FrozenMac, LoopState, Peer, RevokedMember, RouteState, Snapshot, TargetState,
};
use crate::wire::{Address, PeerName};

pub(super) const H1: PeerName = PeerName([0x7a, 0x3c, 0, 0, 0, 1]);
pub(super) const H2: PeerName = PeerName([0x7a, 0x3c, 0, 0, 0, 2]);
pub(super) const H3: PeerName = PeerName([0x7a, 0x3c, 0, 0, 0, 3]);

fn address(text: &str) -> Address {
    Address::udp(text.parse().expect("an address"))
}

/// The first router of the line h1-h2-h3; it also tries two hosts that do not let it in.
pub(super) fn line_of_three() -> FullStatus {
    FullStatus {
        version: "1.2.3",
        uptime: Duration::from_secs(3 * 3600 + 125),
        port: 6783,
        bridge: "weave".into(),
        tap: "weave-tap".into(),
        mtu: Some(1420),
        snapshot: Snapshot {
            name: H1,
            nickname: "h1".into(),
            key: "ab".repeat(32),
            incarnation: 4,
            network: "weave".into(),
            authenticated: true,
            encrypted: true,
            connections: connections(),
            peers: vec![peer(H1, "h1", &[H2]), peer(H2, "h2", &[H1, H3]), peer(H3, "h3", &[H2])],
            targets: targets(),
            routes: routes(),
            loops: vec![LoopState { peer: H2, nickname: "h2".into(), silent: false }],
            revoked: vec![RevokedMember { name: H3, key: "cd".repeat(32), by: "admin" }],
            frozen: vec![frozen()],
            groups: vec![[239, 1, 2, 3].into()],
        },
        macs: vec![
            MacRow { vlan: 0, mac: [2, 0, 0, 0, 0, 0x11], peer: H1, local: true, age: Duration::from_millis(1900) },
            MacRow { vlan: 100, mac: [2, 0, 0, 0, 0, 0x33], peer: H3, local: false, age: Duration::from_secs(75) },
        ],
        counters: vec![
            (
                "forward",
                vec![
                    Reading { name: "drop_no_route", help: "Frames dropped because no route leads to their peer.", value: 12 },
                    Reading { name: "drop_replay", help: "Datagrams dropped because they were seen before.", value: 0 },
                ],
            ),
            ("mesh", vec![Reading { name: "mac_moves", help: "MACs that moved to another host.", value: 1 }]),
        ],
        threads: vec![
            Load {
                tx_frames: 700,
                tx_bytes: 1_500_000,
                rx_frames: 20,
                rx_bytes: 1400,
                sleeps: 90,
                asleep_ns: 9_000_000_000_000,
                ..Load::default()
            },
            Load { rx_frames: 800, rx_bytes: 1_600_000, udp_rx_bytes: 1_700_000, ..Load::default() },
        ],
        sections: Vec::new(),
        ciphers: vec![("aes256gcm".into(), "ring 331 ns per 1390 bytes (aws-lc 534 ns)".into())],
        offloads: vec![("udp_gso".into(), "on".into()), ("udp_gro".into(), "off: the kernel refused UDP_GRO".into())],
    }
}

fn frozen() -> FrozenMac {
    let nicknames = ["h1".into(), "h3".into()];
    FrozenMac { vlan: 0, mac: [2, 0, 0, 0, 0, 0x11], holder: H1, rival: H3, nicknames, since: Duration::from_secs(75) }
}

/// The same router with neither encryption nor password, just started.
pub(super) fn naked() -> FullStatus {
    let full = line_of_three();
    let snapshot = Snapshot {
        authenticated: false,
        encrypted: false,
        connections: vec![Connection {
            cipher: Some("none"),
            authenticated: Some(false),
            datapath: Some("router"),
            datapath_reason: Some("this router runs without --fastdp".into()),
            ..connections().remove(0)
        }],
        peers: vec![peer(H1, "h1", &[])],
        targets: Vec::new(),
        routes: Vec::new(),
        loops: Vec::new(),
        revoked: Vec::new(),
        frozen: Vec::new(),
        groups: Vec::new(),
        ..full.snapshot
    };
    let uptime = Duration::from_secs(9);
    FullStatus {
        uptime,
        mtu: None,
        snapshot,
        macs: Vec::new(),
        counters: Vec::new(),
        threads: vec![Load::default()],
        ciphers: Vec::new(),
        offloads: Vec::new(),
        sections: Vec::new(),
        ..full
    }
}

fn connections() -> Vec<Connection> {
    let up = Connection {
        peer: Some(H2),
        nickname: Some("h2".into()),
        address: Some(address("192.168.7.2:6783")),
        target: Some("192.168.7.2".into()),
        direction: Direction::Outbound,
        state: ConnectionState::Established,
        cipher: Some("aes256gcm"),
        key_exchange: Some("hybrid"),
        authenticated: Some(true),
        path: Some("direct"),
        mtu: Some(1420),
        rtt_ms: Some(0.412_345),
        loss: Some(0.012_345),
        tx_bytes: 1_234_567,
        rx_bytes: 980,
        datapath: Some("fastdp"),
        datapath_reason: Some("both ends trust the underlay, and heartbeats pass through VXLAN".into()),
        error: None,
    };
    let wrong = Connection {
        direction: Direction::Inbound,
        state: ConnectionState::Retrying,
        address: Some(address("[fd00::9]:6783")),
        target: None,
        error: Some("the passwords differ".into()),
        nickname: None,
        ..blank()
    };
    let unresolved = Connection { target: Some("h9.example:7000".into()), error: Some("no\x1b[31m such name".into()), ..blank() };
    vec![up, wrong, unresolved]
}

fn blank() -> Connection {
    Connection {
        peer: None,
        nickname: None,
        address: None,
        target: None,
        direction: Direction::Outbound,
        state: ConnectionState::Connecting,
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

fn peer(name: PeerName, nickname: &str, links: &[PeerName]) -> Peer {
    let own = name == H1;
    let n = if own { 0 } else { u64::from(name.0[5]) };
    Peer {
        name,
        nickname: nickname.into(),
        key: format!("{:02x}", name.0[5]).repeat(32),
        incarnation: 4,
        own,
        reachable: name != H3,
        links: links.to_vec(),
        tx_bytes: n * 1_000_000,
        rx_bytes: n * 2_000,
        tx_frames: n * 900,
        rx_frames: n * 20,
    }
}

fn targets() -> Vec<TargetState> {
    vec![
        TargetState {
            target: "192.168.7.2".into(),
            state: ConnectionState::Established,
            addresses: vec![address("192.168.7.2:6783")],
            peer: Some(H2),
            retry_in_ms: None,
            error: None,
        },
        TargetState {
            target: "h9.example:7000".into(),
            state: ConnectionState::Retrying,
            addresses: Vec::new(),
            peer: None,
            retry_in_ms: Some(4200),
            error: Some("no such name".into()),
        },
    ]
}

fn routes() -> Vec<RouteState> {
    let direct = RouteState {
        peer: H2,
        nickname: "h2".into(),
        next_hop: H2,
        others: Vec::new(),
        alternate: None,
        hops: 1,
        cost: 10,
        mtu: 1420,
        path: "direct",
        cipher: Some("aes256gcm"),
        why: "a link, round trip 0.4 ms, loss 1.2%".into(),
    };
    let relayed = RouteState {
        peer: H3,
        nickname: "h3".into(),
        hops: 2,
        cost: 20,
        mtu: 1400,
        path: "relayed",
        cipher: None,
        why: "it costs least; not direct: none of 2 addresses is of use".into(),
        ..direct.clone()
    };
    vec![direct, relayed]
}
