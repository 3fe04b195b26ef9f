//! What parts of the program above the mesh say to their like on other routers.

use std::collections::{BTreeMap, BTreeSet};

use weave_router::mesh::apps::{AppEvent, Channel, IPAM_RECORD, MAX_CHUNKS, MAX_MESSAGE, NAMES_RECORD};
use weave_router::mesh::command::{Command, Event};
use weave_router::wire::PeerName;

use super::*;

fn heard(sim: &Sim, router: RouterId) -> impl Iterator<Item = &AppEvent> {
    sim.log(router).iter().filter_map(|(_, event)| match event {
        Event::App(event) => Some(event),
        _ => None,
    })
}

fn messages(sim: &Sim, router: RouterId) -> Vec<(PeerName, Vec<u8>)> {
    let told = heard(sim, router).filter_map(|event| match event {
        AppEvent::Told { from, channel: Channel::Ipam, body } => Some((*from, body.clone())),
        _ => None,
    });
    told.collect()
}

/// What a router holds of the records of the others, as of all that it was told.
fn records(sim: &Sim, router: RouterId) -> BTreeMap<(PeerName, u16), Vec<u8>> {
    let mut held = BTreeMap::new();
    for event in heard(sim, router) {
        match event {
            AppEvent::Record { origin, kind: NAMES_RECORD, chunk, body: Some(body) } => {
                held.insert((*origin, *chunk), body.to_vec());
            }
            AppEvent::Record { origin, kind: NAMES_RECORD, chunk, body: None } => {
                held.remove(&(*origin, *chunk));
            }
            AppEvent::Forgotten { peer } => held.retain(|(origin, _), _| origin != peer),
            AppEvent::Record { .. } | AppEvent::Told { .. } | AppEvent::Peer { .. } => {}
        }
    }
    held
}

fn is_reachable(sim: &Sim, router: RouterId, peer: PeerName) -> Option<bool> {
    let said = heard(sim, router).filter_map(|event| match event {
        AppEvent::Peer { peer: who, reachable, .. } if *who == peer => Some(*reachable),
        AppEvent::Forgotten { peer: who } if *who == peer => Some(false),
        _ => None,
    });
    said.last()
}

fn publish(sim: &mut Sim, router: RouterId, bodies: &[&[u8]]) {
    let chunks = bodies.iter().map(|body| body.to_vec()).collect();
    sim.command(router, Command::Publish { kind: NAMES_RECORD, chunks });
}

fn tell(sim: &mut Sim, from: RouterId, to: RouterId, body: Vec<u8>) {
    let to = sim.name(to);
    sim.command(from, Command::Tell { to, channel: Channel::Ipam, body });
}

#[test]
fn a_message_finds_its_way_over_other_routers_without_a_session_before() {
    let (mut sim, hosts) = line(601, 4);
    converge(&mut sim, seconds(5));
    sim.run_for(seconds(3));
    tell(&mut sim, hosts[0], hosts[3], vec![7; MAX_MESSAGE]);
    tell(&mut sim, hosts[0], hosts[3], vec![8]);
    tell(&mut sim, hosts[0], hosts[0], vec![9]);
    tell(&mut sim, hosts[0], hosts[1], vec![0; MAX_MESSAGE + 1]);
    let arrived = sim.run_until(seconds(2), |sim| messages(sim, hosts[3]).len() == 2);
    assert!(arrived.is_some(), "{:?}", messages(&sim, hosts[3]));
    let first = sim.name(hosts[0]);
    assert_eq!(messages(&sim, hosts[3]), [(first, vec![7; MAX_MESSAGE]), (first, vec![8])]);
    assert_eq!(messages(&sim, hosts[0]), [(first, vec![9])], "also to oneself");
    assert!(messages(&sim, hosts[1]).is_empty() && messages(&sim, hosts[2]).is_empty(), "relays read nothing");
    assert_eq!(sim.counter(hosts[0], "app_messages_dropped"), 1, "the one that is too long");
    nothing_went_wrong(&sim);
}

#[test]
fn a_message_that_finds_nobody_is_dropped_in_time() {
    let (mut sim, hosts) = line(602, 3);
    converge(&mut sim, seconds(5));
    sim.run_for(seconds(3));
    sim.crash(hosts[2]);
    (0..40).for_each(|n| tell(&mut sim, hosts[0], hosts[2], vec![n]));
    sim.run_for(seconds(10));
    assert_eq!(sim.counter(hosts[0], "app_messages_dropped"), 40, "none waits for ever");
    nothing_went_wrong(&sim);
}

#[test]
fn records_reach_everybody_are_replaced_and_withdrawn() {
    let (mut sim, hosts) = line(603, 4);
    converge(&mut sim, seconds(5));
    let said: [&[&[u8]]; 4] = [&[b"a", b"b", b"c"], &[b"d"], &[], &[b"e", b"b"]];
    for bodies in said {
        publish(&mut sim, hosts[0], bodies);
        let first = sim.name(hosts[0]);
        let wanted: BTreeMap<_, _> = (0..).zip(bodies).map(|(chunk, body)| ((first, chunk), body.to_vec())).collect();
        let there = |sim: &Sim| hosts[1..].iter().all(|host| records(sim, *host) == wanted);
        assert!(sim.run_until(seconds(1), there).is_some(), "{bodies:?}: {:?}", records(&sim, hosts[3]));
    }
    // A router that comes later hears what holds now, and one that is asked again says it again.
    let late = sim.router(&RouterOptions::default());
    sim.wire(hosts[3], late, Quality::default());
    sim.connect(late, hosts[3]);
    sim.start(late);
    let wanted = records(&sim, hosts[3]);
    assert_eq!(wanted.len(), 2);
    assert!(sim.run_until(seconds(5), |sim| records(sim, late) == wanted).is_some());
    let before = heard(&sim, late).count();
    sim.command(late, Command::Refresh);
    sim.run_for(ms(100));
    let again: Vec<AppEvent> = heard(&sim, late).skip(before).cloned().collect();
    assert_eq!(again.iter().filter(|event| matches!(event, AppEvent::Record { body: Some(_), .. })).count(), 2);
    assert_eq!(again.iter().filter(|event| matches!(event, AppEvent::Peer { reachable: true, .. })).count(), 4);
    nothing_went_wrong(&sim);
}

#[test]
fn records_of_a_former_life_are_gone_after_a_restart() {
    let (mut sim, hosts) = line(604, 3);
    converge(&mut sim, seconds(5));
    publish(&mut sim, hosts[0], &[b"old", b"older"]);
    sim.run_for(seconds(1));
    assert_eq!(records(&sim, hosts[2]).len(), 2);
    sim.crash(hosts[0]);
    sim.start(hosts[0]);
    converge(&mut sim, seconds(10));
    sim.run_for(seconds(2));
    assert!(records(&sim, hosts[2]).is_empty(), "{:?}", records(&sim, hosts[2]));
    publish(&mut sim, hosts[0], &[b"new"]);
    sim.run_for(seconds(1));
    let first = sim.name(hosts[0]);
    assert_eq!(records(&sim, hosts[2]), BTreeMap::from([((first, 0), b"new".to_vec())]));
    // Whoever lost events hears all of it again, also what is no more.
    let again = |sim: &mut Sim| {
        let before = heard(sim, hosts[2]).count();
        sim.command(hosts[2], Command::Refresh);
        sim.run_for(ms(100));
        heard(sim, hosts[2]).skip(before).cloned().collect::<Vec<_>>()
    };
    let record = |chunk, body: Option<&[u8]>| AppEvent::Record { origin: first, kind: NAMES_RECORD, chunk, body: body.map(Into::into) };
    let said = again(&mut sim);
    assert!(said.contains(&record(0, Some(b"new"))) && said.contains(&record(1, None)), "{said:?}");
    sim.stop(hosts[0]);
    sim.run_for(seconds(2));
    assert!(records(&sim, hosts[2]).is_empty(), "a goodbye takes them along");
    assert!(again(&mut sim).contains(&AppEvent::Forgotten { peer: first }));
    nothing_went_wrong(&sim);
}

#[test]
fn who_cannot_be_reached_is_said_within_a_second_or_so_and_taken_back() {
    let (mut sim, hosts) = hosts(605, 3, &RouterOptions::default());
    let near = sim.wire(hosts[0], hosts[1], Quality::default());
    let far = sim.wire(hosts[1], hosts[2], Quality::default());
    sim.connect(hosts[1], hosts[0]);
    sim.connect(hosts[2], hosts[1]);
    sim.start_all();
    converge(&mut sim, seconds(5));
    sim.run_for(seconds(1));
    let last = sim.name(hosts[2]);
    assert_eq!(is_reachable(&sim, hosts[0], last), Some(true));
    sim.cut(far);
    let took = sim.run_until(seconds(10), |sim| is_reachable(sim, hosts[0], last) == Some(false));
    assert!(took.is_some(), "nobody said that it is gone");
    sim.mend(far);
    assert!(sim.run_until(seconds(10), |sim| is_reachable(sim, hosts[0], last) == Some(true)).is_some());
    let _ = near;
    nothing_went_wrong(&sim);
}

#[test]
fn more_than_may_be_said_is_cut_and_counted() {
    let (mut sim, hosts) = line(606, 2);
    converge(&mut sim, seconds(5));
    let bodies: Vec<Vec<u8>> = (0..=MAX_CHUNKS as u8).map(|n| vec![n; 1000]).collect();
    sim.command(hosts[0], Command::Publish { kind: NAMES_RECORD, chunks: bodies });
    sim.run_for(seconds(2));
    assert_eq!(records(&sim, hosts[1]).len(), MAX_CHUNKS);
    assert!(sim.counter(hosts[0], "app_records_dropped") > 0);
    sim.command(hosts[0], Command::Publish { kind: 1, chunks: vec![vec![1]] });
    sim.run_for(seconds(1));
    nothing_went_wrong(&sim);
}

#[test]
fn what_is_said_again_comes_little_by_little_and_only_what_somebody_wants() {
    /// A kind that no part of this program understands.
    const UNKNOWN: u8 = 200;
    let (mut sim, hosts) = line(607, 6);
    converge(&mut sim, seconds(5));
    for host in &hosts[1..] {
        for kind in [IPAM_RECORD, NAMES_RECORD, UNKNOWN] {
            let chunks = (0..MAX_CHUNKS as u8).map(|n| vec![kind, n]).collect();
            sim.command(*host, Command::Publish { kind, chunks });
        }
    }
    let said = |sim: &Sim, kind: u8| {
        heard(sim, hosts[0]).filter(|event| matches!(event, AppEvent::Record { kind: of, body: Some(_), .. } if *of == kind)).count()
    };
    let there = |sim: &Sim| said(sim, NAMES_RECORD) >= 5 * MAX_CHUNKS && said(sim, IPAM_RECORD) >= 5 * MAX_CHUNKS;
    assert!(sim.run_until(seconds(5), there).is_some());
    sim.run_for(seconds(1));
    let before = sim.log(hosts[0]).len();
    sim.command(hosts[0], Command::Refresh);
    sim.run_for(ms(200));
    let again: Vec<_> = sim.log(hosts[0])[before..].iter().filter(|(_, event)| matches!(event, Event::App(_))).collect();
    let mut bursts: BTreeMap<_, usize> = BTreeMap::new();
    again.iter().for_each(|(at, _)| *bursts.entry(*at).or_default() += 1);
    assert!(bursts.values().all(|count| *count <= 256), "{bursts:?}");
    let records: BTreeSet<_> = again
        .iter()
        .filter_map(|(_, event)| match event {
            Event::App(AppEvent::Record { origin, kind, chunk, body: Some(_) }) => Some((*origin, *kind, *chunk)),
            _ => None,
        })
        .collect();
    assert_eq!(records.len(), 2 * 5 * MAX_CHUNKS);
    assert_eq!(again.iter().filter(|(_, event)| matches!(event, Event::App(AppEvent::Peer { .. }))).count(), 5);
    assert_eq!(said(&sim, UNKNOWN), 0, "nobody wants it");
    nothing_went_wrong(&sim);
}
