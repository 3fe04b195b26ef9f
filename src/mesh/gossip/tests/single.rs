//! One store: what it says of itself, what it refuses, what it forgets.

use sha2::Digest;

use super::super::origins::Origin;
use super::*;
use crate::crypto::{Ed25519, PublicKey, Signatures};
use crate::wire::body::{MACS, NODE};

fn publish(store: &mut Store, action: impl FnOnce(&mut Store, &mut Output)) -> Output {
    let mut out = Output::default();
    action(store, &mut out);
    out
}

fn macs(range: std::ops::Range<u16>) -> Vec<MacEntry> {
    range.map(mac).collect()
}

fn editions(store: &Store, kind: u8) -> Vec<(u16, u64)> {
    held(store).into_iter().filter(|(id, _)| id.kind == kind).map(|(id, edition)| (id.chunk, edition.sequence)).collect()
}

#[test]
fn only_what_changed_is_said_again() {
    let mut store = store(1);
    let out = publish(&mut store, |store, out| store.publish_node(Time::ZERO, node("h1"), out));
    assert_eq!((out.to_all_but.len(), out.changes), (1, vec![Change::Node(store.own())]));
    let out = publish(&mut store, |store, out| store.publish_node(Time::ZERO, node("h1"), out));
    assert_eq!((out.to_all_but.len(), out.changes.len()), (0, 0));
    publish(&mut store, |store, out| store.publish_node(Time::ZERO, node("h2"), out));
    assert_eq!(editions(&store, NODE), [(0, 2)]);
    let own = store.own();
    let view = store.node(own).expect("our own node");
    assert_eq!((view.nickname, view.identity, view.incarnation), ("h2", *identity(1).public(), 1));
}

#[test]
fn macs_keep_their_chunk() {
    let mut store = store(1);
    publish(&mut store, |store, out| store.publish_macs(Time::ZERO, &macs(0..200), out));
    assert_eq!(editions(&store, MACS), [(0, 1), (1, 1), (2, 1)]);
    publish(&mut store, |store, out| store.publish_macs(Time::ZERO, &macs(1..200), out));
    assert_eq!(editions(&store, MACS), [(0, 2), (1, 1), (2, 1)], "one MAC less touches one record");
    publish(&mut store, |store, out| store.publish_macs(Time::ZERO, &macs(1..201), out));
    assert_eq!(editions(&store, MACS), [(0, 3), (1, 1), (2, 1)], "a new MAC takes the free place");
    publish(&mut store, |store, out| store.publish_macs(Time::ZERO, &[], out));
    assert_eq!((editions(&store, MACS), store.macs_of(store.own()).count()), (vec![(0, 4), (1, 2), (2, 2)], 0));
    publish(&mut store, |store, out| store.publish_macs(Time::ZERO, &macs(0..60_000), out));
    let told = store.macs_of(store.own()).count() as u64;
    assert_eq!((told, store.counters().own_not_told.get()), (7680, 60_000 - 7680));
}

#[test]
fn golden_signature() {
    let config = Config {
        identity: Arc::new(Identity::from_seed(&[1; 32])),
        signatures: Arc::new(Ed25519),
        network: "weave".to_string(),
        allow: BTreeSet::new(),
        incarnation: 1,
        max_message: DEFAULT_MAX_MESSAGE,
        limits: Limits::default(),
    };
    let mut store = Store::new(config);
    let out = publish(&mut store, |store, out| store.leave(Time::ZERO, out));
    let (_, message) = &out.to_all_but[0];
    let record = Record::parse(&message[3..]).expect("a record");
    let signature: String = record.signature()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(signature, "3825cfe271e6dd629f338a94e7b52dbc");
    let signed = [&sha2::Sha256::digest(b"weave")[..], record.signed()].concat();
    assert!(Ed25519.verify(record.origin(), "weave-router record v1", &signed, record.signature()));
}

#[test]
fn what_is_held_no_more_is_no_copy() {
    let mut store = store(1);
    let links = [record(2, 0, (1, 1), &links_body(&[3]))];
    let is_news = |store: &mut Store| !deliver(store, &links).changes.is_empty();
    assert!(is_news(&mut store) && !is_news(&mut store), "the second is a copy");
    store.forget(identity(2).name(), &mut Output::default());
    assert!(is_news(&mut store), "who was forgotten comes back whole");
    deliver(&mut store, &[record(2, 1, (2, 1), &links_body(&[4]))]);
    let stale = store.counters().record_stale.get();
    assert!(!is_news(&mut store), "its next life has made that void");
    assert_eq!(store.counters().record_stale.get(), stale + 1, "it is told from a copy");
}

#[test]
fn our_own_forgotten_past_is_passed() {
    let mut store = store(1);
    publish(&mut store, |store, out| store.publish_node(Time::ZERO, node("h1"), out));
    let own = store.own();
    let older = record(1, 0, (0, 9), &links_body(&[2]));
    assert_eq!(deliver(&mut store, &[older]).changes, []);
    for (version, body) in [((7, 1), links_body(&[2])), ((1, 5), Body::Unknown(77, [].into())), ((1, 1), Body::Left(Extensions::default()))]
    {
        let asked = deliver(&mut store, &[record(1, 0, version, &body)]).changes;
        assert_eq!(asked, [Change::OwnIncarnation(version.0 + 1)]);
    }
    assert_eq!(store.incarnation(), 1, "nothing is said before the caller has persisted it");
    let out = publish(&mut store, |store, out| store.adopt_incarnation(Time::ZERO, 8, out));
    assert_eq!(
        (store.incarnation(), out.to_all_but.len(), out.changes),
        (8, 1, vec![Change::Links(own), Change::Macs(own), Change::Node(own)])
    );
    assert_eq!(deliver(&mut store, &[record(1, 0, (7, 1), &links_body(&[2]))]).changes, []);
    let last = deliver(&mut store, &[record(1, 0, (u64::MAX, 1), &links_body(&[2]))]);
    assert_eq!((last.changes.len(), last.warnings.len()), (0, 1));
}

#[test]
fn our_past_comes_back_through_the_mesh_and_is_replaced_there() {
    let mut net = Net::new(3);
    net.connect(0, 1);
    net.connect(1, 2);
    net.with(0, |store, now, out| store.adopt_incarnation(now, 5, out));
    net.drain();
    net.cut(0, 1);
    net.drain();
    net.stores[0] = super::store(0);
    net.with(0, |store, now, out| store.publish_node(now, node("again"), out));
    net.connect(0, 1);
    let changes = net.drain();
    let asked = changes.iter().filter_map(|(index, change)| match change {
        Change::OwnIncarnation(next) => Some((*index, *next)),
        _ => None,
    });
    assert_eq!(asked.max(), Some((0, 6)));
    net.with(0, |store, now, out| store.adopt_incarnation(now, 6, out));
    net.drain();
    net.beat();
    let own = net.stores[0].own();
    assert!(net.in_step());
    assert_eq!(net.stores[2].node(own).map(|node| (node.nickname, node.incarnation)), Some(("again", 6)));
}

#[test]
fn bad_records_are_counted_and_nothing_else() {
    let mut store = store(1);
    let good = record(2, 0, (1, 1), &Body::Node(node("h2")));
    for position in 0..good.bytes().len() {
        let mut bytes = good.bytes().to_vec();
        bytes[position] ^= 1;
        if let Ok(bent) = Record::parse(&bytes) {
            // So many from one neighbour are not even looked at.
            store.shares = Default::default();
            deliver(&mut store, &[bent]);
        }
    }
    assert_eq!((held(&store).len(), store.stored_bytes()), (0, 0));
    assert!(store.counters().record_forged.get() > 200);
    let mut elsewhere = super::store(3);
    elsewhere.config.network = "other".to_string();
    let foreign = Store::new(elsewhere.config);
    let record = Record::build(&identity(3).public().key, 0, (1, 1), &links_body(&[]), |signed| foreign.sign(signed)).expect("a record");
    let forged = store.counters().record_forged.get();
    store.shares = Default::default();
    deliver(&mut store, &[record]);
    assert_eq!(store.counters().record_forged.get(), forged + 1, "a record of another network means nothing here");
    let mut out = Output::default();
    let neighbour = identity(999).name();
    store.receive(Time::ZERO, neighbour, &[5, 0, 3, 1, 2, 3], &mut out);
    store.receive(Time::ZERO, neighbour, &[5, 0, 9, 1], &mut out);
    store.receive(Time::ZERO, neighbour, &[99], &mut out);
    store.receive(Time::ZERO, identity(5).name(), &[1], &mut out);
    let counters = store.counters();
    let counts = [&counters.record_malformed, &counters.message_malformed, &counters.message_unknown, &counters.message_stranger];
    assert_eq!(counts.map(|counter| counter.get()), [1; 4]);
    assert!(out.to_neighbour.is_empty() && out.to_all_but.is_empty() && out.changes.is_empty());
}

#[test]
fn a_member_cannot_speak_for_another() {
    let (mut store, signatures) = (store(1), Ed25519);
    store.config.signatures = Arc::new(Ed25519);
    let (member, other) = (identity(2), identity(3));
    let scope = sha2::Sha256::digest(b"weave");
    let said_by = |signer: &Identity| {
        let sign = |signed: &[u8]| signatures.sign(signer, "weave-router record v1", &[&scope[..], signed].concat());
        Record::build(&member.public().key, 0, (1, 1), &links_body(&[1]), sign).expect("a record")
    };
    deliver(&mut store, &[said_by(&other)]);
    assert_eq!((held(&store).len(), store.counters().record_forged.get()), (0, 1));
    deliver(&mut store, &[said_by(&member)]);
    assert_eq!((held(&store).len(), store.counters().record_forged.get()), (1, 1));
}

#[test]
fn two_keys_of_one_name_are_told_once() {
    let mut store = store(1);
    let other = record(2, 0, (1, 1), &links_body(&[]));
    let known = Record::build(&PublicKey([9; 32]), 0, (1, 1), &links_body(&[]), |_| [0; 64]).expect("a record");
    store.origins.get_or_insert_with(other.id().name, || Origin::new(1, None)).merge(Arc::new(known));
    let first = deliver(&mut store, &[other.clone(), other.clone()]);
    assert_eq!((first.warnings.len(), first.changes.len(), store.counters().record_clash.get()), (1, 0, 2));
    assert!(first.warnings[0].contains(&other.origin().to_string()));
    assert!(deliver(&mut store, &[other]).warnings.is_empty());
}

#[test]
fn new_incarnations_and_goodbyes_void_what_was_said() {
    let mut store = store(1);
    let (name, other) = (identity(2).name(), identity(5).name());
    store.link_up(Time::ZERO, other, &mut Output::default());
    let first = [
        record(2, 0, (1, 1), &Body::Node(node("h2"))),
        record(2, 0, (1, 1), &links_body(&[1])),
        record(2, 3, (1, 1), &Body::Macs(macs(0..3), Extensions::default())),
    ];
    deliver(&mut store, &first);
    assert_eq!((store.links_of(name).count(), store.macs_of(name).count()), (1, 3));
    let goodbye = deliver(&mut store, &[record(2, 0, (1, 1), &Body::Left(Extensions::default()))]);
    assert_eq!((goodbye.changes, store.node(name)), (vec![Change::Left(name)], None));
    assert_eq!(deliver(&mut store, &first).changes, []);
    assert_eq!(store.macs_of(name).count(), 0);
    let again = deliver(&mut store, &[record(2, 0, (2, 1), &Body::Node(node("h2")))]);
    let expected = vec![Change::Incarnation(name, 2), Change::Links(name), Change::Macs(name), Change::Node(name)];
    let passed_on = again.to_neighbour.iter().filter(|(to, message)| *to == other && message.starts_with(&[5])).count();
    assert_eq!((again.changes, passed_on), (expected, 1));
    assert!(store.node(name).is_some());
}

#[test]
fn bounds_hold() {
    let limits = Limits { routers: 4, records_per_origin: 3, bytes: 3000, ..Limits::default() };
    let mut store = store_with(1, limits);
    let filler = |chunk: u16, version| record(2, chunk, version, &Body::Unknown(77, vec![0; 100].into()));
    for chunk in 0..5 {
        deliver(&mut store, &[filler(chunk, (1, 1))]);
    }
    assert_eq!((held(&store).len(), store.counters().record_refused_full.get()), (3, 2));
    deliver(&mut store, &[filler(1, (1, 2))]);
    assert_eq!(held(&store).len(), 3, "a newer edition needs no more room");
    for number in 3..30 {
        deliver(&mut store, &[record(number, 0, (1, 1), &Body::Unknown(77, vec![0; 700].into()))]);
        assert!(store.stored_bytes() <= 3000 && store.origins.len() <= 4);
    }
    assert!(store.counters().router_forgotten.get() > 20, "who cannot be reached makes room");
    assert!(store.origins.get(&store.own()).is_some());
}

#[test]
fn fruitless_comparisons_back_off() {
    let mut store = store(1);
    let mut out = Output::default();
    let neighbour = identity(2).name();
    store.link_up(Time::ZERO, neighbour, &mut out);
    let mut out = Output::default();
    for tenth in 0..6000 {
        store.on_root(Time(tenth * 100_000_000), neighbour, 12345, &mut out);
    }
    assert!((15..40).contains(&out.to_neighbour.len()), "{} in ten minutes", out.to_neighbour.len());
}

#[test]
fn records_that_do_not_exist_are_asked_for_within_a_bound() {
    let mut store = store(1);
    let mut out = Output::default();
    let neighbour = identity(2).name();
    store.link_up(Time::ZERO, neighbour, &mut out);
    for page in 0..500 {
        let id = |number| RecordId { name: PeerName::from_u64(0x0200_0000_0000 + page * 64 + number), kind: NODE, chunk: 0 };
        let key = |number| gossip::Key { id: id(number), edition: Edition { incarnation: 1, sequence: 1, digest: number } };
        let keys: Vec<gossip::Key> = (0..32).map(key).collect();
        for message in gossip::keys(gossip::TreeNode::ROOT, &keys, DEFAULT_MAX_MESSAGE) {
            store.receive(Time::ZERO, neighbour, &message, &mut out);
        }
    }
    let wanted = store.neighbours.get(&neighbour).map(|neighbour| neighbour.wanted.len());
    assert_eq!(wanted, Some(4096));
    // The next comparison asks anew.
    store.on_root(Time(1_000_000_000), neighbour, 12345, &mut out);
    assert_eq!(store.neighbours.get(&neighbour).map(|neighbour| neighbour.wanted.len()), Some(0));
}

/// Hands it the links of these routers in one edition, as a neighbour would that heard of them.
fn told_of(store: &mut Store, now: Time, from: PeerName, routers: std::ops::Range<u16>, edition: u64) -> Output {
    let records: Vec<Record> = routers.map(|number| record(number, 0, (1, edition), &links_body(&[number + 1]))).collect();
    let mut out = Output::default();
    for message in gossip::records(records.iter().map(Record::bytes), DEFAULT_MAX_MESSAGE) {
        store.receive(now, from, &message, &mut out);
    }
    out
}

/// How many records a neighbour is sent, in how many messages.
fn sent_to(out: &Output, to: PeerName) -> (usize, usize) {
    let messages: Vec<&Vec<u8>> = out.to_neighbour.iter().filter(|(name, _)| *name == to).map(|(_, message)| message).collect();
    let count = |message: &&Vec<u8>| match gossip::Message::parse(message) {
        Ok(gossip::Message::Records(records)) => records.len(),
        _ => 0,
    };
    (messages.iter().map(count).sum(), messages.len())
}

#[test]
fn news_go_on_at_once_and_those_of_an_unquiet_mesh_together_in_their_newest_edition() {
    let (mut store, [a, b]) = (store(1), [901, 902].map(|number| identity(number).name()));
    for neighbour in [a, b] {
        store.link_up(Time::ZERO, neighbour, &mut Output::default());
    }
    let start = Time::ZERO + SECOND;
    for number in 100..200 {
        let out = told_of(&mut store, start, a, number..number + 1, 1);
        assert_eq!((sent_to(&out, b), store.pass_on_due()), ((1, 1), None), "one at a time goes on at once");
    }
    // All of these at once are more than happens in a mesh that is at rest.
    let gone = sent_to(&told_of(&mut store, start, a, 200..400, 1), b).0;
    assert!(gone > 100 && gone < 200, "{gone} of 200");
    let due = store.pass_on_due().expect("the rest waits");
    assert!(due > start && due.since(start) < Duration::from_millis(20), "{due:?}");
    // Meanwhile some have another edition, and the other neighbour brings some itself.
    assert_eq!(sent_to(&told_of(&mut store, start, a, 390..400, 2), b), (0, 0));
    told_of(&mut store, start, b, 380..390, 1);
    let mut out = Output::default();
    store.pass_on(start, &mut out);
    assert_eq!(sent_to(&out, b), (0, 0), "not before it is time");
    store.pass_on(due, &mut out);
    let (records, messages) = sent_to(&out, b);
    assert_eq!((records, sent_to(&out, a).0, store.pass_on_due()), (200 - gone - 10, 0, None));
    assert!(messages <= records / 3, "{messages} messages");
}

#[test]
fn unrest_is_how_many_change_their_links_and_what_a_newcomer_is_told_is_none() {
    let (mut store, from) = (store(1), identity(901).name());
    store.link_up(Time::ZERO, from, &mut Output::default());
    let at = |ms: u64| Time::ZERO + SECOND * 5 + Duration::from_millis(ms);
    // A way leads to these: a chain that begins here.
    store.publish_links(at(0), &[link(identity(100).name())], &mut Output::default());
    let told = |store: &mut Store, ms: u64, version: u64, routers: std::ops::Range<u16>| {
        for number in routers {
            let before = if number == 100 { 1 } else { number - 1 };
            let record = record(number, 0, (1, version), &links_body(&[before, number + 1]));
            for message in gossip::records([record.bytes()], DEFAULT_MAX_MESSAGE) {
                store.receive(at(ms), from, &message, &mut Output::default());
            }
        }
        store.root(at(ms));
    };
    told(&mut store, 0, 1, 100..150);
    assert_eq!(store.unrest(at(10)), 0, "whom it has never heard of does not change anything");
    told(&mut store, 20, 2, 100..140);
    told(&mut store, 30, 3, 100..140);
    assert_eq!(store.unrest(at(40)), 40, "each counts once, however often it speaks");
    assert_eq!((store.unrest(at(1500)), store.unrest(at(3000))), (40, 0));
    // Routers that nobody is linked with may be made up.
    for version in [1, 2] {
        told_of(&mut store, at(4000), from, 500..520, version);
    }
    assert_eq!(store.unrest(at(4000)), 0);
}
