//! Merge laws, agreement over bad networks, and what is refused.

mod graph;
mod room;
mod single;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::crypto::SimulatedSignatures;
use crate::time::Time;
use crate::wire::body::{Body, Extensions, LinkEntry, MacEntry, Node};
use crate::wire::gossip;
use crate::wire::record::{Edition, Record, RecordId};

const SECOND: Duration = Duration::from_secs(1);

fn identity(number: u16) -> Identity {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    Identity::from_seed(&seed)
}

fn store_with(number: u16, limits: Limits) -> Store {
    Store::new(Config {
        identity: Arc::new(identity(number)),
        signatures: Arc::new(SimulatedSignatures),
        network: "weave".to_string(),
        allow: BTreeSet::new(),
        incarnation: 1,
        max_message: DEFAULT_MAX_MESSAGE,
        limits,
    })
}

fn store(number: u16) -> Store {
    store_with(number, Limits::default())
}

fn node(nickname: &str) -> Node {
    let addresses = vec![Address::udp("10.0.0.1:6783".parse().expect("an address"))];
    let (nickname, version) = (nickname.to_string(), "0.1".to_string());
    Node {
        noise: [0; 32],
        certificate: [0; 64],
        features: 0,
        nickname,
        version,
        addresses,
        unknown_addresses: Vec::new(),
        extensions: Extensions::default(),
    }
}

fn link(neighbour: PeerName) -> LinkEntry {
    LinkEntry { neighbour, cost: 1000, max_datagram: 1472 }
}

fn mac(number: u16) -> MacEntry {
    let [hi, lo] = number.to_be_bytes();
    MacEntry { vlan: 0, mac: [2, 0, 0, 0, hi, lo], moves: 1 }
}

fn links_body(neighbours: &[u16]) -> Body {
    let mut links: Vec<LinkEntry> = neighbours.iter().map(|number| link(identity(*number).name())).collect();
    links.sort_unstable();
    Body::Links(links, Extensions::default())
}

/// A record of router `number`, signed as its own store would.
fn record(number: u16, chunk: u16, version: (u64, u64), body: &Body) -> Record {
    let signer = store(number);
    Record::build(&identity(number).public().key, chunk, version, body, |signed| signer.sign(signed)).expect("a record")
}

/// Hands records to a store as a neighbour would.
fn deliver(store: &mut Store, records: &[Record]) -> Output {
    let (from, mut out) = (identity(999).name(), Output::default());
    store.link_up(Time::ZERO, from, &mut out);
    let mut out = Output::default();
    for message in gossip::records(records.iter().map(Record::bytes), DEFAULT_MAX_MESSAGE) {
        store.receive(Time::ZERO, from, &message, &mut out);
    }
    out
}

fn held(store: &Store) -> BTreeMap<RecordId, Edition> {
    let records = store.origins.iter().flat_map(|(_, origin)| origin.records.values());
    records.map(|record| (record.id(), record.edition())).collect()
}

fn all_held(store: &Store) -> Vec<Record> {
    store.origins.iter().flat_map(|(_, origin)| origin.records.values()).map(|record| Record::clone(record)).collect()
}

/// Stores joined by links that lose, repeat and reorder messages.
struct Net {
    stores: Vec<Store>,
    links: BTreeSet<(usize, usize)>,
    queue: Vec<(usize, usize, Vec<u8>)>,
    now: Time,
    random: u64,
    loss_percent: u64,
    sent: usize,
}

impl Net {
    fn new(count: usize) -> Net {
        let stores = (0..count).map(|number| store(number as u16)).collect();
        let mut net = Net { stores, links: BTreeSet::new(), queue: Vec::new(), now: Time::ZERO, random: 1, loss_percent: 0, sent: 0 };
        for index in 0..count {
            net.with(index, |store, now, out| store.publish_node(now, node(&format!("h{index}")), out));
        }
        net
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn index(&self, name: PeerName) -> usize {
        self.stores.iter().position(|store| store.own() == name).expect("a router of the net")
    }

    fn neighbours(&self, index: usize) -> Vec<usize> {
        (0..self.stores.len()).filter(|other| self.links.contains(&(index.min(*other), index.max(*other)))).collect()
    }

    fn with(&mut self, index: usize, action: impl FnOnce(&mut Store, Time, &mut Output)) -> Vec<Change> {
        let mut out = Output::default();
        action(&mut self.stores[index], self.now, &mut out);
        // What is held for a moment is not for longer here.
        if let Some(due) = self.stores[index].pass_on_due() {
            self.stores[index].pass_on(due, &mut out);
        }
        assert_eq!(out.warnings, Vec::<String>::new());
        for (to, message) in out.to_neighbour {
            let to = self.index(to);
            if self.links.contains(&(index.min(to), index.max(to))) {
                self.queue.push((index, to, message));
            }
        }
        for (except, message) in out.to_all_but {
            for to in self.neighbours(index).into_iter().filter(|to| Some(self.stores[*to].own()) != except) {
                self.queue.push((index, to, message.clone()));
            }
        }
        out.changes
    }

    fn advertise(&mut self, index: usize) {
        let links: Vec<LinkEntry> = self.neighbours(index).into_iter().map(|other| link(self.stores[other].own())).collect();
        self.with(index, |store, now, out| store.publish_links(now, &links, out));
    }

    fn connect(&mut self, a: usize, b: usize) {
        self.links.insert((a.min(b), a.max(b)));
        for (one, other) in [(a, b), (b, a)] {
            let neighbour = self.stores[other].own();
            self.with(one, |store, now, out| store.link_up(now, neighbour, out));
        }
        self.advertise(a);
        self.advertise(b);
    }

    fn cut(&mut self, a: usize, b: usize) {
        self.links.remove(&(a.min(b), a.max(b)));
        let names = (self.stores[a].own(), self.stores[b].own());
        self.stores[a].link_down(names.1);
        self.stores[b].link_down(names.0);
        self.advertise(a);
        self.advertise(b);
    }

    /// Delivers until nothing is under way, in random order.
    fn drain(&mut self) -> Vec<(usize, Change)> {
        let mut changes = Vec::new();
        while !self.queue.is_empty() {
            let pick = self.random(self.queue.len().min(20) as u64) as usize;
            let (from, to, message) = self.queue.swap_remove(pick);
            assert!(message.len() <= DEFAULT_MAX_MESSAGE);
            self.sent += 1;
            let (lost, repeated) = (self.random(100) < self.loss_percent, self.random(100) < self.loss_percent / 2);
            let from = self.stores[from].own();
            for _ in 0..usize::from(!lost) + usize::from(repeated) {
                let new = self.with(to, |store, now, out| store.receive(now, from, &message, out));
                changes.extend(new.into_iter().map(|change| (to, change)));
            }
        }
        changes
    }

    /// One heartbeat on every link, both ways.
    fn beat(&mut self) {
        self.now = self.now + SECOND;
        for (a, b) in self.links.clone() {
            for (from, to) in [(a, b), (b, a)] {
                let root = self.stores[from].root(self.now);
                let from = self.stores[from].own();
                self.with(to, |store, now, out| store.on_root(now, from, root, out));
            }
        }
        self.drain();
    }

    fn in_step(&mut self) -> bool {
        let roots: BTreeSet<u64> = self.stores.iter_mut().map(|store| store.root(self.now)).collect();
        roots.len() == 1
    }
}

/// Records of two origins that contradict and replace each other in every way.
fn contradictions() -> Vec<Record> {
    let mut records = Vec::new();
    for (number, incarnation, sequence) in (0..2).flat_map(|n| (1..3).flat_map(move |i| (1..3).map(move |s| (n, i, s)))) {
        let version = (incarnation, sequence);
        records.push(record(number, 0, version, &links_body(&[number + 1])));
        records.push(record(number, 0, version, &links_body(&[number + 2])));
        records.push(record(number, 1, version, &Body::Macs(vec![mac(number)], Extensions::default())));
        records.push(record(number, 4, version, &Body::Unknown(99, vec![1].into())));
        if number == 1 {
            records.push(record(number, 0, version, &Body::Left(Extensions::default())));
        }
    }
    records
}

fn joined(sets: &[&[Record]]) -> Store {
    let mut store = store(50);
    sets.iter().for_each(|set| drop(deliver(&mut store, set)));
    store
}

fn subsets() -> impl Strategy<Value = Vec<Record>> {
    prop::collection::vec(prop::sample::select(contradictions()), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(a in subsets(), b in subsets(), c in subsets()) {
        let (ab, bc) = (all_held(&joined(&[&a, &b])), all_held(&joined(&[&b, &c])));
        prop_assert_eq!(held(&joined(&[&ab])), held(&joined(&[&b, &a])));
        prop_assert_eq!(held(&joined(&[&ab, &c])), held(&joined(&[&a, &bc])));
        prop_assert_eq!(held(&joined(&[&ab, &ab, &a, &b])), held(&joined(&[&ab])));
    }

    #[test]
    fn every_order_ends_the_same(order in Just(contradictions()).prop_shuffle(), extra in subsets()) {
        let expected = held(&joined(&[&contradictions()]));
        prop_assert_eq!(held(&joined(&[&extra, &order])), expected);
    }

    #[test]
    fn two_stores_converge_over_a_bad_link(seed in any::<u64>(), loss in 0u64..40, mine in 0u16..300, theirs in 0u16..300) {
        let mut net = Net::new(2);
        (net.random, net.loss_percent) = (seed, loss);
        let macs = |from: u16, count: u16| (from..from + count).map(mac).collect::<Vec<_>>();
        net.with(0, |store, now, out| store.publish_macs(now, &macs(0, mine), out));
        net.with(1, |store, now, out| store.publish_macs(now, &macs(1000, theirs), out));
        net.connect(0, 1);
        net.drain();
        let mut beats = 0;
        while !net.in_step() {
            net.beat();
            beats += 1;
            prop_assert!(beats < 600, "no agreement after {beats} heartbeats");
        }
        let (a, b) = (net.stores[0].own(), net.stores[1].own());
        prop_assert_eq!(held(&net.stores[0]), held(&net.stores[1]));
        prop_assert_eq!(net.stores[0].macs_of(b).count(), usize::from(theirs));
        prop_assert_eq!(net.stores[1].macs_of(a).count(), usize::from(mine));
        net.sent = 0;
        net.beat();
        prop_assert_eq!(net.sent, 0, "in step, only root hashes are exchanged");
    }

    #[test]
    fn arbitrary_messages_do_no_harm(data in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz_gossip(&data);
    }
}

#[test]
fn a_large_mesh_converges_and_is_pulled_whole_by_a_newcomer() {
    let mut net = Net::new(61);
    for index in 1..60 {
        net.connect(index - 1, index);
        net.connect(index, index / 2);
    }
    net.drain();
    // All links at once, in no order: what push misses then, heartbeats find.
    (0..2).for_each(|_| net.beat());
    assert!(net.stores[..60].iter_mut().map(|store| store.root(net.now)).collect::<BTreeSet<_>>().len() == 1);
    net.sent = 0;
    net.connect(30, 60);
    net.drain();
    (0..2).for_each(|_| net.beat());
    assert!(net.in_step());
    assert_eq!(net.stores[60].nodes().filter(|node| node.reachable).count(), 61);
    let floods = 3 * net.links.len() * 2;
    assert!(net.sent < floods + 200, "{} messages for one newcomer", net.sent);
}

#[test]
fn one_lost_record_costs_few_messages_to_find() {
    let mut net = Net::new(60);
    for index in 1..60 {
        net.connect(index - 1, index);
    }
    net.drain();
    net.with(0, |store, now, out| store.publish_macs(now, &[mac(1)], out));
    net.queue.clear();
    let (from, root) = (net.stores[0].own(), net.stores[0].root(net.now));
    let (back, back_root) = (net.stores[1].own(), net.stores[1].root(net.now));
    net.links = BTreeSet::from([(0, 1)]);
    net.now = net.now + SECOND;
    net.with(1, |store, now, out| store.on_root(now, from, root, out));
    net.with(0, |store, now, out| store.on_root(now, back, back_root, out));
    net.sent = 0;
    net.drain();
    assert_eq!(net.stores[1].macs_of(from).count(), 1);
    assert!(net.sent <= 6, "{} messages", net.sent);
}

#[test]
fn a_comparison_whose_answer_is_lost_is_repeated_without_waiting_longer_each_time() {
    let mut net = Net::new(2);
    net.connect(0, 1);
    net.drain();
    (0..2).for_each(|_| net.beat());
    assert!(net.in_step());
    net.with(0, |store, now, out| store.publish_macs(now, &[mac(1)], out));
    net.queue.clear();
    let is_records = |message: &[u8]| matches!(gossip::Message::parse(message), Ok(gossip::Message::Records(_)));
    let mut answered = Vec::new();
    for _ in 0..12 {
        net.now = net.now + SECOND;
        let mut lost = 0;
        for (from, to) in [(0, 1), (1, 0)] {
            let (root, name) = (net.stores[from].root(net.now), net.stores[from].own());
            net.with(to, |store, now, out| store.on_root(now, name, root, out));
        }
        while !net.queue.is_empty() {
            let before = net.queue.len();
            net.queue.retain(|(_, _, message)| !is_records(message));
            lost += before - net.queue.len();
            if let Some((from, to, message)) = net.queue.pop() {
                let from = net.stores[from].own();
                net.with(to, |store, now, out| store.receive(now, from, &message, out));
            }
        }
        answered.push(lost);
    }
    assert!(answered.iter().filter(|lost| **lost > 0).count() >= 8, "answers that were lost, by heartbeat: {answered:?}");
}

#[test]
fn partitions_heal_and_the_dead_stay_dead() {
    let mut net = Net::new(4);
    for (a, b) in [(0, 1), (1, 2), (2, 3)] {
        net.connect(a, b);
    }
    net.drain();
    let dead = net.stores[3].own();
    net.cut(2, 3);
    net.drain();
    net.beat();
    assert_eq!(net.stores[0].node(dead).map(|node| node.reachable), Some(false));
    for _ in 0..700 {
        net.beat();
        for index in 0..3 {
            net.with(index, |store, now, out| store.handle_timeout(now, out));
        }
    }
    assert!(net.stores[..3].iter().all(|store| store.node(dead).is_none() && store.next_timeout().is_none()));
    net.sent = 0;
    net.beat();
    assert_eq!(net.sent, 0, "nobody offers the dead one again");
    net.connect(2, 3);
    net.drain();
    net.beat();
    assert!(net.in_step());
    assert!(net.stores.iter().all(|store| store.nodes().filter(|node| node.reachable).count() == 4));
}
