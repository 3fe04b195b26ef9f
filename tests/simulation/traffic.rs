//! What containers notice.

use weave_router::sim::{FrameId, Quality};

use super::*;

#[test]
fn super_frames_arrive_whole_direct_and_relayed() {
    let (mut sim, hosts) = line(301, 3);
    converge(&mut sim, seconds(2));
    let macs = containers(&mut sim);
    sim.run_for(seconds(1));
    let mut sent = Vec::new();
    for (from, to) in [(0, 1), (0, 2), (2, 0), (1, 2)] {
        for _ in 0..5 {
            sent.push((to, sim.send_super(macs[from], macs[to], 60_000, 1300)));
            sim.run_for(ms(2));
        }
    }
    sim.run_for(seconds(2));
    for (to, frame) in sent {
        assert_eq!(sim.arrivals(frame, hosts[to]), 1, "{frame:?}");
    }
    nothing_went_wrong(&sim);
}

#[test]
fn a_relay_passes_on_what_it_may_and_keeps_its_links() {
    let limit = "1mbit".parse().expect("a rate");
    let (mut sim, hosts) = hosts(303, 3, &RouterOptions { relay_limit: limit, ..RouterOptions::default() });
    for pair in hosts.windows(2) {
        sim.wire(pair[0], pair[1], Quality::default());
        sim.connect(pair[1], pair[0]);
    }
    sim.excuse("drop_relay_budget");
    sim.start_all();
    converge(&mut sim, seconds(2));
    let macs = containers(&mut sim);
    sim.run_for(seconds(1));
    let (mut relayed, mut back, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..500 {
        relayed.push(sim.send(macs[0], macs[2], 1200));
        own.push(sim.send(macs[0], macs[1], 1200));
        if n % 50 == 0 {
            back.push(sim.send(macs[2], macs[0], 1200));
        }
        sim.run_for(ms(2));
    }
    sim.run_for(seconds(1));
    let arrived = |sent: &[FrameId], host: usize| sent.iter().filter(|frame| sim.arrivals(**frame, hosts[host]) == 1).count();
    // 65,535 bytes at once and 125,000 in this second.
    let passed = arrived(&relayed, 2);
    assert!((120..180).contains(&passed), "{passed} of 500");
    assert_eq!(sim.total("drop_relay_budget"), 500 - passed as u64);
    assert_eq!((arrived(&own, 1), arrived(&back, 0)), (500, 10), "what is for the router itself, and what another neighbour sends");
    assert_eq!(sim.total("links_down"), 0);
    nothing_went_wrong(&sim);
}

#[test]
fn frames_of_all_sizes_arrive_over_small_networks() {
    let (mut sim, hosts) = hosts(302, 3, &RouterOptions::default());
    let small = Quality { mtu: 1400, ..Quality::default() };
    let hidden = Quality { hidden_mtu: 1350, ..Quality::default() };
    sim.wire(hosts[0], hosts[1], small);
    sim.wire(hosts[1], hosts[2], hidden);
    sim.connect(hosts[0], hosts[1]);
    sim.connect(hosts[2], hosts[1]);
    sim.start_all();
    converge(&mut sim, seconds(2));
    let macs = containers(&mut sim);
    sim.run_for(seconds(3));
    let mut sent = Vec::new();
    for length in [18, 60, 500, 1200, 1290, 1300, 1350, 1400, 1500, 2000, 5000, 9000] {
        for (from, to) in [(0, 1), (0, 2), (2, 1), (2, 0)] {
            sent.push((length, to, sim.send(macs[from], macs[to], length)));
            sim.run_for(ms(100));
        }
    }
    sim.run_for(seconds(1));
    for (length, to, frame) in sent {
        assert_eq!(sim.arrivals(frame, hosts[to]), 1, "{length} bytes to {:?}", hosts[to]);
    }
    // A container that sends too much with don't-fragment is told what fits.
    let frame = sim.send_super(macs[0], macs[2], 1380, 1400);
    sim.run_for(ms(100));
    assert_eq!(sim.arrivals(frame, hosts[2]), 0);
    let Some((told, mtu)) = sim.too_big().last().copied() else { panic!("nobody was told") };
    assert_eq!(told, macs[0]);
    assert!((1100..1300).contains(&mtu), "{mtu}");
    let frame = sim.send_super(macs[0], macs[2], 30_000, usize::from(mtu) - 40);
    sim.run_for(ms(100));
    assert_eq!(sim.arrivals(frame, hosts[2]), 1);
    nothing_went_wrong(&sim);
}

#[test]
fn a_mac_that_moves_is_followed_within_a_second_of_its_first_frame() {
    let (mut sim, hosts) = line(303, 4);
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    let traveller = macs[3];
    for to in [hosts[1], hosts[0], hosts[3]] {
        sim.move_container(traveller, to);
        sim.broadcast(traveller);
        sim.run_for(ms(900));
        let sent: Vec<_> = macs[..3].iter().filter(|mac| sim.host_of(**mac) != Some(to)).copied().collect();
        for mac in sent {
            let frame = sim.send(mac, traveller, 100);
            sim.run_for(ms(100));
            assert_eq!(sim.arrivals(frame, to), 1, "from {:?} to {to:?}", sim.host_of(mac));
            let answer = sim.send(traveller, mac, 100);
            sim.run_for(ms(100));
            assert_eq!(sim.arrivals(answer, sim.host_of(mac).expect("on a host")), 1);
        }
        sim.run_for(seconds(2));
    }
    nothing_went_wrong(&sim);
}

#[test]
fn keys_are_replaced_under_traffic_without_losing_a_frame() {
    let (mut sim, hosts) = line(304, 3);
    converge(&mut sim, seconds(2));
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    let before = sim.total("rekeys");
    let mut sent = Vec::new();
    for round in 0..16_000 {
        let (from, to) = [(0, 2), (2, 0), (0, 1), (1, 2)][round % 4];
        sent.push((sim.now(), to, sim.send(macs[from], macs[to], 300)));
        sim.run_for(ms(25));
    }
    sim.run_for(seconds(1));
    assert!(sim.total("handshakes_completed") > 6 && sim.total("rekeys") > before, "keys were replaced");
    let lost: Vec<_> = sent.iter().filter(|(_, to, frame)| sim.arrivals(*frame, hosts[*to]) == 0).map(|(at, to, _)| (at, to)).collect();
    assert!(lost.is_empty(), "{} lost: {:?}", lost.len(), &lost[..lost.len().min(10)]);
    nothing_went_wrong(&sim);
}

#[test]
fn frames_that_wait_for_a_session_arrive() {
    let (mut sim, hosts) = line(305, 5);
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    let burst: Vec<_> = (0..20).map(|_| sim.send(macs[0], macs[4], 400)).collect();
    sim.run_for(seconds(1));
    assert!(burst.iter().all(|frame| sim.arrivals(*frame, hosts[4]) == 1));
    nothing_went_wrong(&sim);
}

#[test]
fn a_path_that_shrinks_carries_large_frames_again() {
    let (mut sim, hosts) = line(306, 3);
    converge(&mut sim, seconds(2));
    let macs = containers(&mut sim);
    sim.run_for(seconds(3));
    let stream = |sim: &mut Sim, length: usize, duration: Duration| {
        let mut arrived = Vec::new();
        for _ in 0..duration.as_millis() / 20 {
            let frame = sim.send(macs[0], macs[2], length);
            sim.run_for(ms(20));
            arrived.push(sim.arrivals(frame, hosts[2]) == 1);
        }
        arrived.iter().rposition(|arrived| !arrived).map_or(0, |last| last + 1) * 20
    };
    stream(&mut sim, 1400, seconds(1));
    assert_eq!(stream(&mut sim, 1400, seconds(1)), 0);
    // The kernel says that datagrams are too big, at the near end.
    sim.set_all_qualities(Quality { mtu: 1400, ..Quality::default() });
    let gap = stream(&mut sim, 1400, seconds(5));
    println!("{gap} ms after the kernel said so");
    assert!(gap < 2000, "{gap} ms");
    // Nobody says anything; the frames fit one datagram, which vanishes.
    sim.set_all_qualities(Quality { mtu: 1400, hidden_mtu: 1300, ..Quality::default() });
    let gap = stream(&mut sim, 1300, seconds(40));
    println!("{gap} ms after a router on the way went silent");
    assert!(gap < 25_000, "{gap} ms");
    assert_eq!(sim.total("links_down"), 0);
    nothing_went_wrong(&sim);
}
