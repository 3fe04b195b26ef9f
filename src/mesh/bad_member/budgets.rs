//! What it may make a router do, and what others are still heard of meanwhile.

use super::*;
use crate::mesh::gossip::Output;
use crate::wire::control::Trace;

fn identity(n: u8) -> Identity {
    Identity::from_seed(&[n; 32])
}

fn links(to: &[PeerName]) -> Body {
    let mut entries: Vec<LinkEntry> = to.iter().map(|neighbour| LinkEntry { neighbour: *neighbour, cost: 9, max_datagram: 1232 }).collect();
    entries.sort_unstable();
    Body::Links(entries, Extensions::default())
}

/// Says records to the router over a link with another neighbour.
fn say_by(bad: &mut Bad, neighbour: PeerName, records: &[Vec<u8>]) {
    let (now, mut out) = (bad.stage.now, Output::default());
    for message in gossip::records(records.iter().map(Vec::as_slice), crate::mesh::gossip::DEFAULT_MAX_MESSAGE) {
        bad.stage.router.store.receive(now, neighbour, &message, &mut out);
    }
}

#[test]
fn forged_records_keep_nobody_from_being_heard_and_are_not_checked_without_end() {
    let mut bad = Bad::new();
    let (victim, third) = (identity(3), identity(4));
    let now = bad.stage.now;
    bad.stage.router.store.link_up(now, third.name(), &mut Output::default());
    let known = bad.record(&victim, &victim, 0, (1, 1), &unknown(6, 20));
    say_by(&mut bad, third.name(), &[known]);
    let before = bad.stage.router.store.counters().record_accepted.get();
    let own = bad.stage.router.config.identity.clone();
    for sequence in 2..3000 {
        for name in [&victim, &*own] {
            let mut forged = bad.record(name, name, 0, (1, sequence), &unknown(6, 20));
            *forged.last_mut().expect("a signature") ^= 1;
            bad.say(&[forged]);
        }
    }
    let counters = bad.stage.router.store.counters();
    assert_eq!(counters.record_accepted.get(), before);
    assert!(counters.record_forged.get() < 50, "{} signatures were checked", counters.record_forged.get());
    let news: Vec<Vec<u8>> = (1..100).map(|chunk| bad.record(&victim, &victim, chunk, (1, 1), &unknown(6, 20))).collect();
    say_by(&mut bad, third.name(), &news);
    assert_eq!(bad.stage.router.store.counters().record_accepted.get() - before, 99, "the true ones are heard");
    // It is listened to again after a while.
    bad.wait(Duration::from_secs(1));
    let late = bad.own(0, (1, 900), &unknown(7, 20));
    bad.say(std::slice::from_ref(&late));
    assert!(bad.stage.router.store.app_record(bad.name(), 7, 0).is_none());
    let now = bad.stage.now + Duration::from_secs(10);
    let name = bad.name();
    let message = gossip::records([late.as_slice()], 1192).remove(0);
    bad.stage.router.store.receive(now, name, &message, &mut Output::default());
    assert!(bad.stage.router.store.app_record(name, 7, 0).is_some());
}

#[test]
fn who_asks_for_everything_again_and_again_gets_it_within_a_budget() {
    let mut bad = Bad::new();
    bad.wait(Duration::from_millis(100));
    let records = (0..200).map(|chunk| bad.own(chunk, (1, 5), &unknown(9, MAX_BODY)));
    let linked = bad.own(0, (1, u64::MAX), &links(&[bad.stage.router.name()]));
    let records: Vec<Vec<u8>> = records.chain([linked]).collect();
    bad.say(&records);
    let (name, now) = (bad.name(), bad.stage.now);
    bad.stage.router.store.root(now);
    let ids: Vec<RecordId> = (0..200).map(|chunk| RecordId { name, kind: 9, chunk }).collect();
    let want = gossip::want(&ids[..100], 1192).remove(0);
    let tree = gossip::tree(TreeNode::ROOT, &[1; gossip::FANOUT]);
    let answers = |bad: &mut Bad, message: &[u8], times: usize| {
        let (now, mut out) = (bad.stage.now, Output::default());
        (0..times).for_each(|_| bad.stage.router.store.receive(now, name, message, &mut out));
        out.to_neighbour.len()
    };
    let first = answers(&mut bad, &want, 1);
    assert!(first >= 60, "{first}: an honest question is answered");
    let all = answers(&mut bad, &want, 1000) + answers(&mut bad, &tree, 1000);
    assert!((10_000..20_000).contains(&all), "{all} messages in answer to two thousand");
    // Beyond it a question costs nothing but being counted, however much it asks for.
    let all_keys = gossip::keys(TreeNode::ROOT, &[], 1192).remove(0);
    let before = bad.stage.router.store.counters().answers_over_pace.get();
    assert_eq!(answers(&mut bad, &all_keys, 500), 0);
    assert_eq!(bad.stage.router.store.counters().answers_over_pace.get() - before, 500);
    // A new link is no new budget.
    let now = bad.stage.now;
    bad.stage.router.store.link_down(name);
    bad.stage.router.store.link_up(now, name, &mut Output::default());
    assert_eq!(answers(&mut bad, &want, 100), 0);
    bad.stage.now = now + Duration::from_secs(1);
    let later = answers(&mut bad, &want, 1000);
    assert!((500..=1000).contains(&later), "{later} in the next second");
}

#[test]
fn who_was_reached_is_remembered_while_routers_are_made_up() {
    let mut bad = Bad::new();
    let (own, missed) = (bad.stage.router.name(), identity(3));
    bad.wait(Duration::from_millis(100));
    let linked = bad.own(0, (1, u64::MAX - 1), &links(&[own, missed.name()]));
    let back = bad.record(&missed, &missed, 0, (1, 1), &links(&[bad.name()]));
    bad.say(&[linked, back]);
    let now = bad.stage.now;
    bad.stage.router.store.root(now);
    let parted = bad.own(0, (1, u64::MAX), &links(&[own]));
    bad.say(&[parted]);
    bad.stage.router.store.root(now);
    let ghosts: Vec<Vec<u8>> = (0..GHOSTS)
        .map(|n| {
            let mut seed = [9; 32];
            seed[..4].copy_from_slice(&n.to_be_bytes());
            let ghost = Identity::from_seed(&seed);
            bad.record(&ghost, &ghost, 0, (1, 1), &unknown(6, 20))
        })
        .collect();
    bad.out.events.clear();
    bad.say(&ghosts);
    let store = &bad.stage.router.store;
    assert!(store.counters().router_forgotten.get() > 100, "there was no room for all");
    assert_eq!(store.links_of(missed.name()).count(), 1, "who was there before is not forgotten for their sake");
    let told = bad.out.events.iter().filter(|event| matches!(event, Event::App(AppEvent::Record { .. }))).count();
    assert_eq!(told, 0, "and what they say is told to nobody");
    assert!(bad.stage.router.apps.held() <= GHOSTS as usize);
}

#[test]
fn what_a_newcomer_says_is_told_once_a_way_leads_there() {
    let mut bad = Bad::new();
    let (own, newcomer) = (bad.stage.router.name(), identity(3));
    let said = bad.record(&newcomer, &newcomer, 0, (1, 1), &unknown(6, 20));
    let told = |bad: &Bad| bad.out.events.iter().filter(|event| matches!(event, Event::App(AppEvent::Record { .. }))).count();
    bad.say(&[said]);
    bad.wait(Duration::from_millis(300));
    assert_eq!(told(&bad), 0);
    let linked = bad.own(0, (1, u64::MAX - 1), &links(&[own, newcomer.name()]));
    let back = bad.record(&newcomer, &newcomer, 0, (1, 1), &links(&[bad.name()]));
    bad.say(&[linked, back]);
    bad.wait(Duration::from_millis(300));
    assert_eq!(told(&bad), 1);
    assert_eq!(bad.stage.router.apps.held(), 0);
}

#[test]
fn questions_for_ways_are_passed_on_at_a_bounded_pace() {
    let mut bad = Bad::new();
    let (now, third) = (bad.stage.now, identity(3).name());
    bad.stage.router.adjacencies.insert(third, Adjacency::new(now, home(3), Role::Path, true));
    for probe in 0..2000 {
        bad.tell(&Control::Trace(Trace { probe, destination: third, left: 9 }));
    }
    let remembered = bad.stage.router.ways.traces.remembered();
    assert!((1..=128).contains(&remembered), "{remembered}");
}

#[test]
fn a_link_that_costs_more_than_any_may_is_no_link_and_two_editions_of_one_number_end_in_one() {
    let mut bad = Bad::new();
    let entry = |cost| LinkEntry { neighbour: PeerName([2, 0, 0, 0, 0, 1]), cost, max_datagram: 0 };
    let dear = |cost| Body::Links(vec![entry(cost)], Extensions::default());
    assert!(Record::build(&bad.identity.public().key, 0, (1, 1), &dear(u32::MAX), |_| [0; 64]).is_err());
    let own = bad.stage.router.name();
    let mut most = vec![LinkEntry { neighbour: own, cost: crate::wire::body::MAX_COST, max_datagram: 0 }];
    let record = bad.own(0, (1, u64::MAX), &Body::Links(most.clone(), Extensions::default()));
    most[0].cost = 1;
    let other = bad.own(0, (1, u64::MAX), &Body::Links(most, Extensions::default()));
    bad.wait(Duration::from_millis(100));
    bad.say(&[record.clone(), other.clone()]);
    bad.say(&[other, record]);
    bad.wait(Duration::from_millis(200));
    let name = bad.name();
    let route = bad.stage.router.routes.get(name).expect("it is a neighbour");
    assert!(route.cost <= crate::wire::body::MAX_COST);
    let fib = bad.stage.router.fib();
    assert!(fib.peers.get(&name).is_some_and(|peer| peer.max_datagram >= 1232), "its word makes no datagram smaller than any path carries");
}

#[test]
fn messages_for_the_parts_above_are_held_to_a_share_of_their_sender() {
    let mut bad = Bad::new();
    let told = |bad: &Bad, from: PeerName| {
        let of = |event: &&Event| matches!(event, Event::App(AppEvent::Told { from: by, .. }) if *by == from);
        bad.out.events.iter().filter(of).count()
    };
    for _ in 0..20_000 {
        bad.tell(&Control::App { channel: 1, body: &[7; 100] });
        bad.out.datagrams.clear();
    }
    let (name, now) = (bad.name(), bad.stage.now);
    assert_eq!(told(&bad, name), 1024);
    assert_eq!(bad.stage.router.counters.app_messages_over_budget.get(), 20_000 - 1024);
    let third = identity(3).name();
    bad.stage.router.on_app(now, third, 1, b"from another", &mut bad.out);
    assert_eq!(told(&bad, third), 1);
    for n in 0..10_000u16 {
        let [high, low] = n.to_be_bytes();
        bad.stage.router.on_app(now, PeerName([2, 9, 9, 9, high, low]), 1, b"made up", &mut bad.out);
    }
    bad.stage.router.on_app(now, third, 1, b"from another", &mut bad.out);
    assert_eq!(told(&bad, third), 2);
}
