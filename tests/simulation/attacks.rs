//! Networks that damage what they carry, and somebody on the wire who lies.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use weave_router::mesh::command::Event;
use weave_router::sim::{Captured, Quality};

use super::*;

fn links_lost(sim: &Sim) -> usize {
    let lost = |router: &RouterId| sim.log(*router).iter().filter(|(_, event)| matches!(event, Event::LinkDown { .. })).count();
    sim.routers().iter().map(lost).sum()
}

/// A line of three that has spoken for two seconds, and all that went over its wires meanwhile.
fn overheard(seed: u64) -> (Sim, Vec<RouterId>, Vec<Mac>, Vec<Captured>) {
    let (mut sim, hosts) = line(seed, 3);
    sim.capture();
    converge(&mut sim, seconds(2));
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    floods_reach_everybody_once(&mut sim, &macs);
    let captured = sim.captured();
    assert!(captured.len() > 200, "{}", captured.len());
    nothing_went_wrong(&sim);
    sim.expect_bad_datagrams();
    (sim, hosts, macs, captured)
}

#[test]
fn what_is_replayed_does_nothing_and_is_answered_with_nothing_larger() {
    let (mut sim, _, macs, captured) = overheard(601);
    let before = sim.total("drop_replay") + sim.total("replayed") + sim.total("stale_stamps");
    for datagram in &captured {
        let answer = sim.inject(datagram.to, datagram.from, datagram.bytes.clone());
        assert!(answer <= datagram.bytes.len(), "{answer} bytes in answer to {}", datagram.bytes.len());
    }
    let after = sim.total("drop_replay") + sim.total("replayed") + sim.total("stale_stamps");
    assert!(after - before > captured.len() as u64 / 2, "{} of {} were seen to be old", after - before, captured.len());
    sim.run_for(seconds(10));
    assert_eq!(links_lost(&sim), 0);
    all_pairs_exchange_frames(&mut sim, &macs);
    nothing_went_wrong(&sim);
}

#[test]
fn what_is_bent_cut_short_or_sent_to_the_wrong_router_does_nothing() {
    let (mut sim, hosts, macs, captured) = overheard(602);
    let mut rng = ChaCha8Rng::seed_from_u64(602);
    for (round, datagram) in captured.iter().enumerate() {
        let mut bytes = datagram.bytes.clone();
        let at = rng.next_u64() as usize % bytes.len();
        let to = match round % 3 {
            0 => {
                bytes[at] ^= 1 << (rng.next_u32() % 8);
                datagram.to
            }
            1 => {
                bytes.truncate(at);
                datagram.to
            }
            _ => hosts[rng.next_u64() as usize % 3],
        };
        let answer = sim.inject(to, datagram.from, bytes);
        assert!(answer <= datagram.bytes.len(), "{answer} bytes in answer to at most {}", datagram.bytes.len());
    }
    for length in 0..200 {
        let mut bytes = vec![0; length];
        rng.fill_bytes(&mut bytes);
        let from = sim.addresses(hosts[0])[0];
        assert!(sim.inject(hosts[1], from, bytes) <= length);
    }
    sim.run_for(seconds(10));
    // Those whose counters were seen before are not even opened.
    let refused = ["forged", "drop_forged", "replayed", "drop_replay"].iter().map(|name| sim.total(name)).sum::<u64>();
    assert!(refused > 100, "{refused}");
    assert!(sim.total("garbage") + sim.total("other_version") > 50);
    assert_eq!(links_lost(&sim), 0);
    all_pairs_exchange_frames(&mut sim, &macs);
    nothing_went_wrong(&sim);
}

#[test]
fn datagrams_mirrored_to_their_sender_do_nothing() {
    let (mut sim, hosts, macs, captured) = overheard(603);
    for datagram in &captured {
        let victim = hosts.iter().find(|host| sim.addresses(**host).contains(&datagram.from)).copied().expect("somebody sent it");
        let seems_from = sim.addresses(datagram.to)[0];
        sim.inject(victim, seems_from, datagram.bytes.clone());
    }
    sim.run_for(seconds(10));
    assert_eq!(links_lost(&sim), 0);
    all_pairs_exchange_frames(&mut sim, &macs);
    nothing_went_wrong(&sim);
}

#[test]
fn a_network_that_flips_bits_loses_datagrams_and_damages_none() {
    let (mut sim, hosts) = hosts(604, 6, &RouterOptions::default());
    let noisy = Quality { corruption: 0.05, ..Quality::default() };
    for (index, host) in hosts.iter().enumerate() {
        let next = hosts[(index + 1) % hosts.len()];
        sim.wire(*host, next, noisy);
        sim.connect(*host, next);
    }
    sim.expect_bad_datagrams();
    sim.start_all();
    converge(&mut sim, seconds(20));
    let macs = containers(&mut sim);
    let mut arrived = 0;
    for round in 0..1000 {
        let (from, to) = (macs[round % 6], macs[(round + 2) % 6]);
        let frame = sim.send(from, to, 1000);
        sim.run_for(ms(10));
        arrived += sim.arrivals(frame, hosts[(round + 2) % 6]);
    }
    assert!((700..1000).contains(&arrived), "{arrived} of 1000 arrived");
    assert!(sim.total("drop_forged") > 20);
    sim.set_all_qualities(Quality::default());
    sim.run_for(seconds(60));
    all_pairs_exchange_frames(&mut sim, &macs);
    nothing_went_wrong(&sim);
}
