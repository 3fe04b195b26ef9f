//! Routers behind translators, and hosts that move: direct paths are found where there can be one, and frames change over unharmed.

use weave_router::mesh::command::{Command, Event};
use weave_router::sim::{FrameId, Nat, Quality, RouterOptions};

use super::*;

/// As home routers have it: RFC 4787 asks for two minutes and is not heard.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Two hosts, each behind a translator of a kind, and a third in public that both know. The helper is 10 ms away from all.
fn behind(seed: u64, kinds: [Nat; 2], conn_limit: usize) -> (Sim, Vec<RouterId>, Vec<Mac>) {
    behind_with(seed, kinds, conn_limit, 0)
}

/// The same, where the first host has so many bridges besides, which nobody else reaches.
fn behind_with(seed: u64, kinds: [Nat; 2], conn_limit: usize, bridges: usize) -> (Sim, Vec<RouterId>, Vec<Mac>) {
    let (mut sim, hosts) = hosts(seed, 2, &RouterOptions { conn_limit, ..RouterOptions::default() });
    for _ in 0..bridges {
        sim.lan(&hosts[..1], Quality::default());
    }
    let helper = sim.router(&RouterOptions::default());
    let public = sim.lan(&[helper], Quality { latency: ms(10), ..Quality::default() });
    for (host, kind) in hosts.iter().zip(kinds) {
        sim.nat(kind, TIMEOUT, public, &[*host]);
        sim.connect(*host, helper);
    }
    sim.start_all();
    converge(&mut sim, seconds(5));
    let macs = containers(&mut sim);
    sim.run_for(seconds(1));
    (sim, [hosts, vec![helper]].concat(), macs)
}

/// What a stream looked like where it arrived.
#[derive(Debug)]
struct Stream {
    lost: usize,
    /// Frames that came after one that was sent later.
    late: usize,
}

/// Sends a frame every 5 ms, with an answer to each, and reports of those one way.
fn stream(sim: &mut Sim, (from, to): (Mac, Mac), host: RouterId, duration: Duration) -> Stream {
    let mut sent: Vec<(Duration, FrameId)> = Vec::new();
    let mut at = Duration::ZERO;
    while at < duration {
        sent.push((at, sim.send(from, to, 200)));
        sim.send(to, from, 200);
        sim.run_for(ms(5));
        at += ms(5);
    }
    sim.run_for(ms(200));
    let (mut lost, mut late, mut latest) = (0, 0, Duration::ZERO);
    for (at, frame) in sent {
        match sim.latency(frame, host) {
            None => lost += 1,
            Some(latency) if at + latency < latest => late += 1,
            Some(latency) => latest = at + latency,
        }
    }
    Stream { lost, late }
}

const OPEN: [Nat; 3] = [Nat::FullCone, Nat::AddressRestricted, Nat::PortRestricted];

#[test]
fn translators_of_every_kind_but_the_symmetric_are_passed_with_the_help_of_any_common_peer() {
    for (n, (a, b)) in OPEN.iter().flat_map(|a| OPEN.iter().map(move |b| (*a, *b))).enumerate() {
        for conn_limit in [0, 1] {
            let (mut sim, hosts, macs) = behind(500 + n as u64, [a, b], conn_limit);
            let mut total = Stream { lost: 0, late: 0 };
            let mut waited = 0;
            while !(sim.is_direct(hosts[0], hosts[1]) && sim.is_direct(hosts[1], hosts[0])) {
                let part = stream(&mut sim, (macs[0], macs[1]), hosts[1], ms(500));
                (total.lost, total.late) = (total.lost + part.lost, total.late + part.late);
                waited += 1;
                assert!(waited < 16, "{a:?} and {b:?}, at most {conn_limit} links: no direct path within eight seconds");
            }
            let direct = stream(&mut sim, (macs[0], macs[1]), hosts[1], seconds(2));
            println!("{a:?} and {b:?}, at most {conn_limit} links: direct after {waited} half seconds, {total:?}, then {direct:?}");
            assert_eq!((total.lost, direct.lost), (0, 0), "{a:?} and {b:?}");
            // What overtakes is bounded by how much longer the way through the helper is: 10 ms, two frames each time the path changes.
            assert!(total.late + direct.late <= 6, "{a:?} and {b:?}: {total:?} {direct:?}");
            nothing_went_wrong(&sim);
        }
    }
}

#[test]
fn a_host_of_many_interfaces_is_found_behind_its_translator() {
    for (n, (kind, conn_limit)) in OPEN.into_iter().flat_map(|kind| [(kind, 0), (kind, 1)]).enumerate() {
        let (mut sim, hosts, macs) = behind_with(580 + n as u64, [kind, Nat::PortRestricted], conn_limit, 10);
        assert_eq!(sim.addresses(hosts[0]).len(), 11);
        let mut waited = 0;
        while !(sim.is_direct(hosts[0], hosts[1]) && sim.is_direct(hosts[1], hosts[0])) {
            let part = stream(&mut sim, (macs[0], macs[1]), hosts[1], ms(500));
            assert_eq!(part.lost, 0, "{kind:?}");
            waited += 1;
            assert!(waited < 32, "{kind:?}, at most {conn_limit} links: no direct path within 16 seconds: {:?}", sim.paths(hosts[1]));
        }
        println!("{kind:?}, at most {conn_limit} links: direct after {waited} half seconds");
        nothing_went_wrong(&sim);
    }
}

#[test]
fn a_stream_that_nobody_answers_finds_its_direct_path_too() {
    // Only the sender knows that it sends: the other end must be told to open its translator.
    let (mut sim, hosts, macs) = behind(519, [Nat::PortRestricted, Nat::PortRestricted], 1);
    let frames: Vec<FrameId> = (0..1600)
        .map(|_| {
            let frame = sim.send(macs[0], macs[1], 200);
            sim.run_for(ms(5));
            frame
        })
        .collect();
    sim.run_for(ms(100));
    assert!(sim.is_direct(hosts[0], hosts[1]), "{:?}", sim.paths(hosts[0]));
    assert!(frames.iter().all(|frame| sim.arrivals(*frame, hosts[1]) == 1));
    nothing_went_wrong(&sim);
}

#[test]
fn symmetric_translators_on_both_sides_relay_and_say_why() {
    for (n, kinds) in [[Nat::Symmetric, Nat::Symmetric], [Nat::Symmetric, Nat::PortRestricted]].into_iter().enumerate() {
        let (mut sim, hosts, macs) = behind(520 + n as u64, kinds, 0);
        let seen = stream(&mut sim, (macs[0], macs[1]), hosts[1], seconds(10));
        assert_eq!((seen.lost, seen.late), (0, 0));
        assert!(!sim.is_direct(hosts[0], hosts[1]) && !sim.is_direct(hosts[1], hosts[0]), "{kinds:?}");
        let paths = sim.paths(hosts[0]);
        let path = paths.iter().find(|path| path.peer == sim.name(hosts[1])).expect("a path");
        assert_eq!((path.path, path.via.as_slice()), ("relayed", &[sim.name(hosts[2])][..]));
        assert!(path.candidates.iter().any(|tried| tried.outcome == "failed" && tried.error.as_deref() == Some("no answer")), "{path:?}");
        assert!(path.why_not_direct.as_deref().is_some_and(|why| why.contains("of use") || why.contains("being tried")), "{path:?}");
        nothing_went_wrong(&sim);
    }
    // One that lets in any port of an address is enough for a symmetric one on the other side.
    for (n, other) in [Nat::FullCone, Nat::AddressRestricted].into_iter().enumerate() {
        let (mut sim, hosts, macs) = behind(525 + n as u64, [Nat::Symmetric, other], 0);
        stream(&mut sim, (macs[0], macs[1]), hosts[1], seconds(8));
        assert!(sim.is_direct(hosts[0], hosts[1]) && sim.is_direct(hosts[1], hosts[0]), "{other:?}");
        nothing_went_wrong(&sim);
    }
}

#[test]
fn a_forwarded_port_is_of_use_once_its_router_advertises_it() {
    for (seed, advertise) in [(527, false), (528, true)] {
        let (mut sim, hosts) = hosts(seed, 2, &RouterOptions::default());
        let helper = sim.router(&RouterOptions::default());
        let public = sim.lan(&[helper], Quality { latency: ms(10), ..Quality::default() });
        for host in &hosts {
            let inside = sim.nat(Nat::Symmetric, TIMEOUT, public, &[*host]);
            sim.connect(*host, helper);
            if *host == hosts[0] {
                sim.forward(inside, *host, 7000, advertise);
            }
        }
        sim.start_all();
        converge(&mut sim, seconds(5));
        let macs = containers(&mut sim);
        stream(&mut sim, (macs[0], macs[1]), hosts[1], seconds(8));
        let direct = [(0, 1), (1, 0)].map(|(from, to)| sim.is_direct(hosts[from], hosts[to]));
        assert_eq!(direct, [advertise; 2], "{:?}", sim.paths(hosts[1]));
        if advertise {
            // The host's own address changes, and the one that it was told stays told.
            sim.command(hosts[0], Command::LocalAddresses(Vec::new()));
            sim.run_for(seconds(30));
            let late = sim.router(&RouterOptions::default());
            sim.nat(Nat::Symmetric, TIMEOUT, public, &[late]);
            sim.connect(late, helper);
            sim.start_all();
            sim.run_for(seconds(30));
            assert!(sim.is_direct(late, hosts[0]), "{:?}", sim.paths(late));
        }
        nothing_went_wrong(&sim);
    }
}

#[test]
fn mappings_are_kept_alive_and_a_path_that_fails_goes_back_to_the_helper() {
    let (mut sim, hosts, macs) = behind(530, [Nat::PortRestricted, Nat::PortRestricted], 0);
    stream(&mut sim, (macs[0], macs[1]), hosts[1], seconds(8));
    assert!(sim.is_direct(hosts[0], hosts[1]) && sim.links(hosts[0]).contains(&hosts[1]), "a link, so it stays");
    sim.run_for(TIMEOUT * 10);
    assert_eq!(sim.total("links_down"), 0, "heartbeats keep what the translators know");
    let seen = stream(&mut sim, (macs[0], macs[1]), hosts[1], seconds(1));
    assert_eq!((seen.lost, sim.is_direct(hosts[0], hosts[1])), (0, true));
    // The translators forget all, and let nothing in that nobody has asked for: only the helper is asked again.
    sim.block(hosts[0], hosts[1]);
    let seen = stream(&mut sim, (macs[0], macs[1]), hosts[1], seconds(3));
    println!("{seen:?} when the direct path fails");
    assert!(seen.lost * 5 < 1000, "{seen:?}");
    assert!(!sim.is_direct(hosts[0], hosts[1]));
    nothing_went_wrong(&sim);
}

#[test]
fn a_direct_path_outlives_the_helper_that_it_was_found_with_and_becomes_a_link() {
    // With at most one link, which is that to the helper, the path is none.
    for (n, conn_limit) in [(0, 0), (1, 1)] {
        let (mut sim, hosts, macs) = behind(535 + n, [Nat::PortRestricted, Nat::PortRestricted], conn_limit);
        let direct = |sim: &Sim| sim.is_direct(hosts[0], hosts[1]) && sim.is_direct(hosts[1], hosts[0]);
        for _ in 0..16 {
            stream(&mut sim, (macs[0], macs[1]), hosts[1], ms(500));
            if direct(&sim) {
                break;
            }
        }
        stream(&mut sim, (macs[0], macs[1]), hosts[1], seconds(1));
        assert!(direct(&sim) && (conn_limit == 0 || !sim.links(hosts[0]).contains(&hosts[1])));
        for (from, to) in [(0, 1), (1, 0)] {
            let mtu =
                sim.snapshot(hosts[from]).and_then(|snapshot| Some(snapshot.routes.iter().find(|r| r.peer == sim.name(hosts[to]))?.mtu));
            assert_eq!(mtu, Some(1420), "both ends have asked when the other could answer");
        }
        sim.crash(hosts[2]);
        let seen = stream(&mut sim, (macs[0], macs[1]), hosts[1], seconds(8));
        assert_eq!(seen.lost, 0, "at most {conn_limit} links: {seen:?}");
        assert!(direct(&sim) && sim.links(hosts[0]).contains(&hosts[1]));
        let flood = sim.broadcast(macs[0]);
        sim.run_for(ms(200));
        assert_eq!(sim.arrivals(flood, hosts[1]), 1, "somebody new is found too");
        nothing_went_wrong(&sim);
    }
}

#[test]
fn two_routers_behind_one_translator_find_each_other_inside() {
    let (mut sim, hosts) = hosts(540, 2, &RouterOptions::default());
    let helper = sim.router(&RouterOptions::default());
    let public = sim.lan(&[helper], Quality { latency: ms(10), ..Quality::default() });
    sim.nat(Nat::Symmetric, TIMEOUT, public, &hosts);
    hosts.iter().for_each(|host| sim.connect(*host, helper));
    sim.start_all();
    converge(&mut sim, seconds(5));
    let macs = containers(&mut sim);
    stream(&mut sim, (macs[0], macs[1]), hosts[1], seconds(6));
    assert!(sim.is_direct(hosts[0], hosts[1]) && sim.is_direct(hosts[1], hosts[0]));
    let frame = sim.send(macs[0], macs[1], 200);
    sim.run_for(ms(100));
    assert!(sim.latency(frame, hosts[1]).is_some_and(|took| took < ms(5)), "not by the helper: {:?}", sim.latency(frame, hosts[1]));
    nothing_went_wrong(&sim);
}

#[test]
fn a_host_with_another_address_is_back_within_a_second_whichever_end_it_is() {
    for seed in 0..8 {
        let (mut sim, hosts) = hosts(550 + seed, 2, &RouterOptions::default());
        let wire = sim.wire(hosts[0], hosts[1], Quality { latency: ms(1 + seed * 3), ..Quality::default() });
        sim.connect(hosts[1], hosts[0]);
        sim.start_all();
        converge(&mut sim, seconds(3));
        let macs = containers(&mut sim);
        all_pairs_exchange_frames(&mut sim, &macs);
        sim.run_for(seconds(2) + ms(seed * 131));
        // First the one that was dialled, then the other: nobody may rely on the address that was configured.
        for mover in [0, 1, 0] {
            sim.readdress(wire, hosts[mover], ms(60));
            let (mut there, mut back) = (Vec::new(), Vec::new());
            for _ in 0..400 {
                there.push(sim.send(macs[0], macs[1], 200));
                back.push(sim.send(macs[1], macs[0], 200));
                sim.run_for(ms(5));
            }
            sim.run_for(ms(200));
            let lost = |sent: &[FrameId], to: usize| sent.iter().filter(|frame| sim.arrivals(**frame, hosts[to]) == 0).count() * 5;
            let gaps = [lost(&there, 1), lost(&back, 0)];
            println!("seed {seed}, {:?} moves: {gaps:?} ms without traffic", hosts[mover]);
            assert!(gaps.iter().all(|gap| *gap < 700), "seed {seed}: {gaps:?} ms");
        }
        assert_eq!(sim.total("links_down"), 0, "seed {seed}: the link moved with its host");
        nothing_went_wrong(&sim);
    }
}

#[test]
fn two_addresses_of_a_host_that_both_work_do_not_make_its_link_wander() {
    let (mut sim, hosts) = hosts(560, 2, &RouterOptions::default());
    sim.wire(hosts[0], hosts[1], Quality::default());
    sim.wire(hosts[0], hosts[1], Quality::default());
    sim.connect(hosts[1], hosts[0]);
    sim.connect(hosts[0], hosts[1]);
    sim.start_all();
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    stream(&mut sim, (macs[0], macs[1]), hosts[1], seconds(20));
    sim.run_for(seconds(60));
    assert!(sim.total("addresses_moved") <= 2, "{}", sim.total("addresses_moved"));
    nothing_went_wrong(&sim);
}

#[test]
fn a_trace_names_the_routers_on_the_way_with_their_round_trips() {
    let (mut sim, hosts) = hosts(570, 4, &RouterOptions { discovery: false, ..RouterOptions::default() });
    for (n, latency) in [10, 20, 5].into_iter().enumerate() {
        sim.wire(hosts[n], hosts[n + 1], Quality { latency: ms(latency), ..Quality::default() });
        sim.connect(hosts[n + 1], hosts[n]);
    }
    sim.start_all();
    converge(&mut sim, seconds(5));
    let trace = |sim: &mut Sim, from: usize, whom: String| {
        let before = sim.log(hosts[from]).len();
        sim.command(hosts[from], Command::Trace { ticket: 7, whom });
        sim.run_for(seconds(4));
        let mut answers = sim.log(hosts[from])[before..].iter().filter_map(|(_, event)| match event {
            Event::Traced { ticket: 7, trace } => Some(trace.clone()),
            _ => None,
        });
        answers.next().expect("an answer")
    };
    let found = trace(&mut sim, 0, "h4".into()).expect("the nickname is known");
    let hops: Vec<_> = found.hops.iter().map(|hop| (hop.router, hop.rtt_ms.round() as u64)).collect();
    assert_eq!(hops, [(sim.name(hosts[1]), 20), (sim.name(hosts[2]), 60), (sim.name(hosts[3]), 70)]);
    assert_eq!((found.peer, found.error), (sim.name(hosts[3]), None));
    let own = sim.name(hosts[1]).to_string();
    assert_eq!(trace(&mut sim, 2, own).expect("a name").hops.len(), 1);
    assert!(trace(&mut sim, 0, "h9".into()).expect_err("nobody").contains("no router of the mesh is called 'h9'"));
    assert!(trace(&mut sim, 0, "h1".into()).expect_err("itself").contains("this router itself"));
    // A way that ends is told as far as it goes.
    sim.crash(hosts[3]);
    sim.run_for(ms(100));
    let cut = trace(&mut sim, 0, "h4".into()).expect("still known");
    assert!(cut.hops.len() < 3 && cut.error.is_some(), "{cut:?}");
    nothing_went_wrong(&sim);
}
