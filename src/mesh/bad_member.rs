//! A member gone bad: it has its keys, a session and a link, and says whatever it likes. What it can do to a router is bounded here.

mod budgets;
mod places;

use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::adjacency::{Adjacency, Role};
use super::apps::AppEvent;
use super::command::{Command, Event, LocalMac, Membership};
use super::config::Outbox;
use super::fuzz::{Stage, home};
use crate::crypto::{Identity, Signatures, SimulatedSignatures};
use crate::forward::Punt;
use crate::wire::bindings::{self, Binding};
use crate::wire::body::{Body, Extensions, LINKS_PER_CHUNK, LinkEntry, MACS_PER_CHUNK, MacEntry, Node};
use crate::wire::control::{CloseReason, Ping, Record as Control};
use crate::wire::gossip::{self, Key, TreeNode};
use crate::wire::groups::{GROUPS, Groups, PER_CHUNK};
use crate::wire::handshake::{Handshake, Type};
use crate::wire::record::{Edition, MAX_BODY, MAX_RECORD, Record, RecordId};
use crate::wire::{Address, Header, Kind, PeerName};

/// Records of one origin that a router keeps.
const RECORDS: usize = 256;

/// Routers that are made up: more than there is room for.
const GHOSTS: u32 = 8192 + 300;

/// The member: router 2 of the stage, or another that it pretends to be.
struct Bad {
    stage: Stage,
    identity: Identity,
    out: Outbox,
}

impl Bad {
    fn new() -> Bad {
        Bad { stage: Stage::new(true), identity: Identity::from_seed(&[2; 32]), out: Outbox::default() }
    }

    fn name(&self) -> PeerName {
        self.identity.name()
    }

    /// A record that `signer` signs as that of `origin`.
    fn record(&self, origin: &Identity, signer: &Identity, chunk: u16, edition: (u64, u64), body: &Body) -> Vec<u8> {
        let sign = |signed: &[u8]| {
            let message = [&Sha256::digest(b"weave")[..], signed].concat();
            SimulatedSignatures.sign(signer, "weave-router record v1", &message)
        };
        Record::build(&origin.public().key, chunk, edition, body, sign).expect("a record").bytes().to_vec()
    }

    fn own(&self, chunk: u16, edition: (u64, u64), body: &Body) -> Vec<u8> {
        self.record(&self.identity, &self.identity, chunk, edition, body)
    }

    /// Says records to the router.
    fn say(&mut self, records: &[Vec<u8>]) {
        for message in gossip::records(records.iter().map(Vec::as_slice), super::gossip::DEFAULT_MAX_MESSAGE) {
            self.tell(&Control::Gossip(&message));
        }
    }

    /// Says one control record.
    fn tell(&mut self, record: &Control<'_>) {
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        self.stage.sealed(Kind::ControlDirect, home(2), &bytes, &mut self.out);
    }

    /// Time passes, and the link is kept alive.
    fn wait(&mut self, long: Duration) {
        self.stage.wait(long, &mut self.out);
    }

    fn linked(&self) -> bool {
        self.stage.router.link_count() == 1
    }
}

fn unknown(kind: u8, length: usize) -> Body {
    Body::Unknown(kind, vec![kind; length].into())
}

#[test]
fn records_of_every_kind_and_chunk_take_no_more_than_its_share() {
    let mut bad = Bad::new();
    for kind in 5..=255u8 {
        for chunk in [0, 1, 31, 32, 255, 256, 40_000, u16::MAX] {
            let record = bad.own(chunk, (1, 7), &unknown(kind, MAX_BODY));
            bad.say(&[record]);
        }
    }
    let router = &bad.stage.router;
    assert!(router.store.stored_bytes() <= (RECORDS + 8) * MAX_RECORD, "{} bytes", router.store.stored_bytes());
    let counters = router.store.counters();
    let refused = counters.record_refused_full.get() + counters.record_over_pace.get();
    assert!(refused > 1500 && counters.record_refused_full.get() > 0, "{refused}");
    assert!(bad.linked(), "a record that is refused closes no link");
}

#[test]
fn restarts_without_end_leave_nothing_behind() {
    let mut bad = Bad::new();
    for life in 2..1500u64 {
        let record = bad.own((life % 60_000) as u16, (life, u64::MAX), &unknown(5 + (life % 250) as u8, 100));
        bad.say(&[record]);
    }
    let last = bad.own(0, (u64::MAX, u64::MAX), &unknown(6, 10));
    bad.say(&[last]);
    let (bytes, told) = (bad.stage.router.store.stored_bytes(), bad.stage.router.apps.remembered());
    assert!(bytes < 8 * MAX_RECORD, "{bytes} bytes");
    assert!(told <= RECORDS, "{told} records that say nothing any more are remembered");
}

#[test]
fn what_it_says_for_others_is_not_believed() {
    let mut bad = Bad::new();
    let (victim, third) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[3; 32]));
    let before = bad.stage.router.store.counters().record_accepted.get();
    for origin in [&victim, &third] {
        for body in [Body::Left(Extensions::default()), Body::Links(Vec::new(), Extensions::default()), unknown(6, 50)] {
            // The cheap signatures of simulations can be forged, so this is one that does not fit.
            let mut record = bad.record(origin, origin, 0, (u64::MAX, 9), &body);
            *record.last_mut().expect("a signature") ^= 1;
            bad.say(&[record]);
        }
    }
    let counters = bad.stage.router.store.counters();
    assert_eq!((counters.record_accepted.get() - before, counters.record_forged.get()), (0, 6));
    assert!(!bad.out.events.iter().any(|event| matches!(event, Event::Persist(_))), "nobody else makes a router start a new life");
}

#[test]
fn links_that_do_not_exist_lead_nowhere() {
    let mut bad = Bad::new();
    let entry = |n: u32| {
        let [_, a, b, c] = n.to_be_bytes();
        LinkEntry { neighbour: PeerName([2, 0, 0, a, b, c]), cost: 1, max_datagram: u16::MAX }
    };
    for chunk in 0..200u16 {
        let first = u32::from(chunk) * LINKS_PER_CHUNK as u32;
        let mut links: Vec<LinkEntry> = (first..first + LINKS_PER_CHUNK as u32).map(entry).collect();
        if chunk == 0 {
            links.push(LinkEntry { neighbour: bad.stage.router.name(), cost: 1, max_datagram: 1 });
            links.sort_unstable();
            links.truncate(LINKS_PER_CHUNK + 1);
        }
        let record = bad.own(chunk, (1, u64::MAX), &Body::Links(links, Extensions::default()));
        bad.say(&[record]);
    }
    bad.wait(Duration::from_millis(300));
    let topology = bad.stage.router.store.topology();
    assert!(topology.names().len() <= 2, "{} routers from links alone", topology.names().len());
    assert!(bad.stage.router.routes.iter().count() <= 1);
}

#[test]
fn made_up_routers_take_bounded_room_and_push_out_nobody_who_is_there() {
    let mut bad = Bad::new();
    let node = |n: u32| Node {
        noise: [1; 32],
        certificate: [2; 64],
        features: 1,
        nickname: format!("ghost{n}"),
        version: String::new(),
        addresses: vec![home(77)],
        unknown_addresses: Vec::new(),
        extensions: Extensions::default(),
    };
    // The member itself is there: both ends say so.
    bad.wait(Duration::from_millis(100));
    let link = LinkEntry { neighbour: bad.stage.router.name(), cost: 9, max_datagram: 1232 };
    let linked = bad.own(0, (1, u64::MAX), &Body::Links(vec![link], Extensions::default()));
    bad.say(&[linked]);
    // No heartbeat comes before the flood: that it can be reached was not looked up yet.
    let ghosts = (0..GHOSTS).map(|n| {
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let ghost = Identity::from_seed(&seed);
        bad.record(&ghost, &ghost, 0, (1, 1), &Body::Node(node(n)))
    });
    let ghosts: Vec<Vec<u8>> = ghosts.collect();
    bad.say(&ghosts);
    let (name, now) = (bad.name(), bad.stage.now);
    let router = &mut bad.stage.router;
    router.store.root(now);
    assert!(router.store.nodes().count() <= 8193, "{}", router.store.nodes().count());
    assert!(router.store.stored_bytes() < 4 << 20);
    assert!(router.store.node(name).is_some_and(|node| node.reachable), "who is there stays");
    assert!(router.targets.learned().len() <= 1, "nobody dials whom no link leads to");
}

#[test]
fn a_flood_of_macs_is_bounded_and_absurd_counts_of_moves_win_nothing() {
    let mut bad = Bad::new();
    let own = [2, 0xc0, 0, 0, 0, 1];
    let mac = LocalMac { vlan: 0, mac: own, present: true, came_from: None };
    let (now, mut out) = (bad.stage.now, Outbox::default());
    bad.stage.router.handle_command(now, Command::LocalMacs(vec![mac]), &mut out);
    bad.wait(Duration::from_millis(50));
    for chunk in 0..40u16 {
        let entry = |n: usize| {
            let [.., a, b] = (usize::from(chunk) * MACS_PER_CHUNK + n).to_be_bytes();
            MacEntry { vlan: 0, mac: [4, 0, 0, 0, a, b], moves: u32::MAX }
        };
        let entries: Vec<MacEntry> = (0..MACS_PER_CHUNK).map(entry).collect();
        let record = bad.own(chunk, (1, 5), &Body::Macs(entries, Extensions::default()));
        bad.say(&[record]);
    }
    let heard = bad.out.events.iter().filter(|event| matches!(event, Event::MacAnnounced { .. })).count();
    assert!(heard <= 2 * 40 * MACS_PER_CHUNK, "{heard}");
    // Its claim to ours: the owner sees the MAC, and a leap in the count is no move.
    let claim = MacEntry { vlan: 0, mac: own, moves: u32::MAX };
    let record = bad.own(0, (1, 6), &Body::Macs(vec![claim], Extensions::default()));
    bad.say(&[record]);
    bad.wait(Duration::from_millis(50));
    assert_eq!(bad.stage.router.macs.winner((0, own)), Some(bad.stage.router.name()));
}

#[test]
fn a_mac_that_its_station_uses_is_not_won_by_outbidding_step_by_step() {
    let mut bad = Bad::new();
    let own = [2, 0xc0, 0, 0, 0, 1];
    let seen = Command::LocalMacs(vec![LocalMac { vlan: 0, mac: own, present: true, came_from: None }]);
    bad.stage.router.handle_command(bad.stage.now, seen.clone(), &mut bad.out);
    bad.wait(Duration::from_millis(100));
    let link = LinkEntry { neighbour: bad.stage.router.name(), cost: 9, max_datagram: 1232 };
    let linked = bad.own(0, (1, u64::MAX), &Body::Links(vec![link], Extensions::default()));
    bad.say(&[linked]);
    bad.wait(Duration::from_millis(200));
    let (name, thief) = (bad.stage.router.name(), bad.name());
    let winner = |bad: &Bad| bad.stage.router.macs.winner((0, own));
    let claim = |moves: u32| MacEntry { vlan: 0, mac: own, moves };
    let mut stolen = 0;
    for moves in 1..60u32 {
        let record = bad.own(0, (1, 5 + u64::from(moves)), &Body::Macs(vec![claim(moves)], Extensions::default()));
        bad.say(&[record]);
        stolen += u32::from(winner(&bad) == Some(thief));
        // The station speaks.
        bad.stage.router.handle_command(bad.stage.now, seen.clone(), &mut bad.out);
        assert_eq!(winner(&bad), Some(name));
        bad.wait(Duration::from_millis(50));
    }
    assert!((2..=5).contains(&stolen), "{stolen}");
    let told = bad.stage.router.store.macs_of(name).map(|entry| entry.moves).max();
    assert!(told.is_some_and(|moves| moves < 12), "{told:?}");
    let names = |event: &&Event| matches!(event, Event::Warning(text) if text.contains(&thief.to_string()));
    assert_eq!((bad.out.events.iter().filter(names).count(), bad.stage.router.counters.macs_frozen.get()), (1, 1));
    let frozen = bad.stage.router.snapshot(bad.stage.now).frozen;
    assert_eq!(frozen.iter().map(|frozen| (frozen.mac, frozen.holder, frozen.rival)).collect::<Vec<_>>(), [(own, name, thief)]);
    // It gives up.
    let record = bad.own(0, (1, 1000), &Body::Macs(Vec::new(), Extensions::default()));
    bad.say(&[record]);
    bad.wait(Duration::from_secs(65));
    assert!(bad.stage.router.snapshot(bad.stage.now).frozen.is_empty());
}

/// A router that is a member of a group, after a neighbour said these things of its own groups and has been known for long enough.
fn after_groups(said: impl Iterator<Item = Vec<u8>>) -> (Bad, IpAddr) {
    let mut bad = Bad::new();
    bad.wait(Duration::from_millis(100));
    for (chunk, body) in (0..).zip(said) {
        let record = bad.own(chunk, (1, 5), &Body::Unknown(GROUPS, body.into()));
        bad.say(&[record]);
    }
    let ours: IpAddr = [239, 255, 0, 1].into();
    let member = Membership { group: ours, joined: true };
    bad.stage.router.handle_punt(bad.stage.now, Punt::Members(vec![member]), &mut bad.out);
    bad.wait(Duration::from_secs(6));
    (bad, ours)
}

#[test]
fn groups_without_end_take_bounded_room_and_leave_ours_alone() {
    let chunk = |chunk: usize| {
        let group = |n: usize| {
            let [.., b, c, d] = (chunk * PER_CHUNK + n).to_be_bytes();
            [239, b, c, d].into()
        };
        Groups { everything: false, groups: (0..PER_CHUNK).map(group).collect() }.to_bytes()
    };
    // Whether we want the frames of a group, and how many routers do.
    let wants = |bad: &mut Bad, group: IpAddr| {
        let groups = bad.stage.router.fib().groups.clone().expect("it snoops");
        groups.wanted(group).map(|wanted| (groups.are_we(wanted), (0..2).filter(|place| wanted.has(*place)).count()))
    };
    let (mut bad, ours) = after_groups((0..60).map(chunk));
    assert!(bad.stage.router.fib().groups.as_ref().is_some_and(|groups| groups.len() <= 32 * PER_CHUNK + 1));
    assert_eq!(wants(&mut bad, ours), Some((true, 1)));
    assert_eq!(wants(&mut bad, [239, 0, 0, 1].into()), Some((false, 1)));
    assert_eq!(wants(&mut bad, [239, 1, 1, 1].into()), None, "everybody gets what nobody joined");
    // What makes no sense is taken for a wish for everything.
    let (mut bad, ours) = after_groups(std::iter::once(b"nonsense".to_vec()));
    assert_eq!(wants(&mut bad, ours), Some((true, 2)));
}

#[test]
fn handshakes_in_a_loop_and_messages_never_completed_take_bounded_room() {
    let mut bad = Bad::new();
    let mut neighbour = super::fuzz::router(2);
    for round in 0..250 {
        let (now, mut out) = (bad.stage.now, Outbox::default());
        let known = bad.stage.router.config.identity.public();
        neighbour.begin(now, super::handshakes::Way::Direct(home(1)), None, Some(*known), &mut out);
        neighbour.attempts.clear();
        for (_, mut bytes) in out.datagrams {
            // Half of them are cut short.
            let second = Handshake::parse(&bytes[16..]).is_some_and(|shake| shake.fragment == 1);
            if round % 2 == 0 || !second {
                bad.stage.router.handle_datagram(now, home(2), &mut bytes, &mut bad.out);
            }
        }
        bad.wait(Duration::from_millis(20));
    }
    let name = bad.name();
    let router = &bad.stage.router;
    assert!(router.partials.count() <= 64, "{}", router.partials.count());
    assert!(router.keyrings.get(&name).is_some_and(|keys| keys.all().count() <= 3));
    assert!(router.indices.len() <= 3 && router.answered_at.len() <= 3, "{} {}", router.indices.len(), router.answered_at.len());
    assert_eq!(router.members.len(), 1);
    assert!(
        router.counters.handshakes_limited.get() + router.counters.retries_sent.get() > 0
            || router.counters.handshakes_completed.get() < 250
    );
}

#[test]
fn control_records_in_a_flood_leave_nothing_behind() {
    let mut bad = Bad::new();
    let ids = |n: u32| RecordId { name: PeerName([2, 9, 9, 9, (n >> 8) as u8, n as u8]), kind: 1, chunk: 0 };
    for n in 0..600u32 {
        let mut keys: Vec<Key> =
            (0..20).map(|k| Key { id: ids(n * 20 + k), edition: Edition { incarnation: 1, sequence: 1, digest: 1 } }).collect();
        keys.sort_by_key(|key| key.id);
        keys.dedup_by_key(|key| key.id);
        for message in gossip::keys(TreeNode::ROOT, &keys, 1192) {
            bad.tell(&Control::Gossip(&message));
        }
        bad.tell(&Control::Challenge(u64::from(n)));
        bad.tell(&Control::Observed(Address::udp(([10, 7, (n >> 8) as u8, n as u8], 1).into())));
        bad.tell(&Control::App { channel: 1, body: &[7; 1000] });
        bad.out.datagrams.clear();
    }
    let router = &bad.stage.router;
    assert!(router.store.requests() <= 8192 + 64, "{} requests are remembered", router.store.requests());
    assert!(router.observed.len() <= 1 && router.challenges.len() <= 1);
    assert!(router.store.stored_bytes() < 8 * MAX_RECORD);
    let addresses = router.store.node(router.name()).map_or(0, |node| node.addresses.len());
    assert!(addresses <= 5, "{addresses} addresses are told to all");
    let told = bad.out.events.iter().filter(|event| matches!(event, Event::App(AppEvent::Told { .. }))).count();
    assert_eq!(told, 600, "messages for parts above are handed on, and bounded there");
    let referrals: Vec<Address> = (1..=8).map(home).collect();
    (0..200).for_each(|_| bad.tell(&Control::Close(CloseReason::Full, referrals.clone())));
    assert!(bad.stage.router.targets.learned().len() <= 64);
}

#[test]
fn relayed_datagrams_without_end_are_held_to_a_budget() {
    let mut bad = Bad::new();
    let header = Header {
        kind: Kind::HandshakeRelayed,
        hop_limit: 32,
        lane: 0,
        label: 0,
        destination: PeerName([2, 5, 5, 5, 5, 5]),
        index: 0,
        counter: 0,
    };
    let now = bad.stage.now;
    for n in 0..5000 {
        let mut bytes = header.to_bytes().to_vec();
        Handshake::whole(PeerName([2, 6, 6, 6, (n >> 8) as u8, n as u8]), Type::IkOne, n, &[0; 1000]).write(&mut bytes);
        bad.stage.router.handle_datagram(now, home(2), &mut bytes, &mut bad.out);
    }
    assert!(bad.stage.router.counters.relay_over_budget.get() >= 2000);
    // And first messages that seem to come through it from a thousand others.
    for n in 0..5000u32 {
        let own = Header { destination: bad.stage.router.name(), ..header };
        let mut bytes = own.to_bytes().to_vec();
        let part = Handshake {
            fragment: 0,
            fragments: 2,
            ..Handshake::whole(PeerName([2, 6, 6, 6, (n >> 8) as u8, n as u8]), Type::IkOne, n, &[0; 1000])
        };
        part.write(&mut bytes);
        bad.stage.router.handle_datagram(now, home(2), &mut bytes, &mut bad.out);
    }
    assert!(bad.stage.router.partials.count() <= 256);
    assert!(bad.linked());
}

#[test]
fn a_heartbeat_that_changes_its_mind_makes_no_new_fib_each_time() {
    let mut bad = Bad::new();
    let before = bad.stage.router.generation;
    for sequence in 0..200 {
        let clear = sequence % 2 == 0;
        bad.tell(&Control::Ping(Ping { sequence, active: false, link: true, clear, age: 0, root: 0 }));
    }
    let made = bad.stage.router.generation - before;
    assert!(made < 10, "{made}");
}

#[test]
fn a_link_that_comes_and_goes_without_end_is_told_to_the_mesh_at_a_bounded_pace() {
    let mut bad = Bad::new();
    let (peer, witness) = (bad.name(), PeerName([2, 0, 0, 0, 0, 9]));
    let now = bad.stage.now;
    bad.stage.router.adjacencies.insert(witness, Adjacency::new(now, home(9), Role::Link, true));
    let before = bad.stage.router.counters.gossip_bytes_out.get();
    for _ in 0..300 {
        let (now, router) = (bad.stage.now, &mut bad.stage.router);
        router.link_down(now, peer, "it says so", &mut bad.out);
        router.finish(now, &mut bad.out);
        router.adjacencies.insert(peer, Adjacency::new(now, home(2), Role::Path, false));
        router.link_up(now, peer, &mut bad.out);
        router.links_soon(now);
        router.finish(now, &mut bad.out);
        bad.stage.now = now + Duration::from_millis(10);
    }
    let told = bad.stage.router.counters.gossip_bytes_out.get() - before;
    // In three seconds, some 130 bytes each, to one or two neighbours.
    assert!((1000..60 * 2 * 200).contains(&told), "{told} bytes");
    bad.wait(Duration::from_millis(300));
    let own = bad.stage.router.name();
    assert!(bad.stage.router.store.links_of(own).any(|link| link.neighbour == peer), "how it ended is told");
}

#[test]
fn of_macs_and_addresses_no_more_are_believed_than_a_router_may_say() {
    let mut bad = Bad::new();
    for chunk in 0..120u16 {
        let mac = |n: usize| [4, 0, 0, (chunk >> 8) as u8, chunk as u8, n as u8];
        let macs = (0..MACS_PER_CHUNK).map(|n| MacEntry { vlan: 0, mac: mac(n), moves: 1 }).collect();
        let place = |n: usize| (0, IpAddr::from([10, 9, chunk as u8, n as u8]));
        let bindings: Vec<Binding> = (0..bindings::PER_CHUNK).map(|n| Binding { place: place(n), mac: mac(n) }).collect();
        let bodies = [Body::Macs(macs, Extensions::default()), Body::Unknown(bindings::BINDINGS, bindings::to_bytes(&bindings).into())];
        let records: Vec<Vec<u8>> = bodies.iter().map(|body| bad.own(chunk, (1, 5), body)).collect();
        bad.say(&records);
    }
    let (name, router) = (bad.name(), &bad.stage.router);
    assert_eq!(router.store.macs_of(name).count(), 96 * MACS_PER_CHUNK);
    assert_eq!(router.store.bindings_of(name).len(), 16 * bindings::PER_CHUNK);
}
