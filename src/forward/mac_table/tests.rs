//! Moves, ageing, damping and bounds of the MAC table.

use super::*;

const A: PeerName = PeerName([2, 0, 0, 0, 0, 1]);
const B: PeerName = PeerName([2, 0, 0, 0, 0, 2]);
const MAC: [u8; 6] = [0x0a, 1, 2, 3, 4, 5];

fn at(ms: u64) -> Time {
    Time(1_000_000_000 + ms * 1_000_000)
}

fn table() -> MacTable {
    MacTable::new(64, 3)
}

#[test]
fn learns_ages_and_tells() {
    let table = table();
    assert_eq!(table.lookup(0, MAC, at(0)), None);
    assert_eq!(table.learn_local(0, MAC, at(0)), Learned::New);
    assert_eq!(table.learn_local(0, MAC, at(1)), Learned::Known);
    assert_eq!(table.lookup(0, MAC, at(1)), Some(Owner::Local));
    assert_eq!(table.lookup(7, MAC, at(1)), None, "VLANs are apart");
    assert_eq!(table.learn_remote(7, MAC, A, Source::Flood, at(0)), Learned::New);
    assert_eq!(table.lookup(7, MAC, at(0)), Some(Owner::Peer(A)));
    let late = at(0) + AGEING;
    assert_eq!(table.lookup(0, MAC, late), None);
    assert_eq!(table.snapshot(late), []);
    let mut gone = table.expire(late);
    gone.sort_by_key(|entry| entry.vlan);
    assert_eq!(gone.iter().map(|entry| (entry.vlan, entry.source)).collect::<Vec<_>>(), [(0, Source::Local), (7, Source::Flood)]);
    assert_eq!(table.learn_local(0, MAC, late), Learned::New, "a MAC that was stale is news for the mesh");
}

#[test]
fn use_keeps_an_entry_alive() {
    let table = table();
    table.learn_local(0, MAC, at(0));
    for minute in 1..30 {
        assert_eq!(table.learn_local(0, MAC, at(minute * 60_000)), Learned::Known);
    }
    assert_eq!(table.snapshot(at(29 * 60_000)).len(), 1);
}

#[test]
fn what_the_kernel_has_on_the_bridge_stays_though_its_frames_are_not_seen() {
    let table = table();
    table.learn_local(0, MAC, at(0));
    for minute in 1..30 {
        table.keep_local(0, MAC, at(minute * 60_000));
        assert_eq!(table.expire(at(minute * 60_000)), []);
    }
    assert_eq!(table.lookup(0, MAC, at(29 * 60_000)), Some(Owner::Local));
    // An entry of the kernel that is older than the announcement of a move takes nothing back.
    table.announce(0, MAC, Some(A), at(30 * 60_000));
    table.keep_local(0, MAC, at(30 * 60_000 + 1));
    assert_eq!(table.lookup(0, MAC, at(30 * 60_000 + 1)), Some(Owner::Peer(A)));
}

#[test]
fn a_local_sighting_wins_at_once() {
    let table = table();
    table.announce(0, MAC, Some(A), at(0));
    assert_eq!(table.learn_local(0, MAC, at(1)), Learned::Moved(Owner::Peer(A)));
    assert_eq!(table.lookup(0, MAC, at(1)), Some(Owner::Local));
    assert_eq!(table.counters.mac_moves_remote_to_local.get(), 1);
}

#[test]
fn a_frame_of_another_router_moves_nothing_that_was_announced_or_is_ours() {
    let late = Duration::from_secs(500);
    let (announced, local) = (table(), table());
    announced.announce(0, MAC, Some(A), at(0));
    assert_eq!(announced.learn_remote(0, MAC, B, Source::Data, at(0) + late), Learned::Ignored, "however quiet its station is");
    assert_eq!(announced.lookup(0, MAC, at(0) + late), Some(Owner::Peer(A)));
    local.learn_local(0, MAC, at(0));
    assert_eq!(local.learn_remote(0, MAC, B, Source::Data, at(0) + late), Learned::Ignored);
    assert_eq!(local.lookup(0, MAC, at(0) + late), Some(Owner::Local));
    announced.announce(0, MAC, Some(B), at(0) + late);
    assert_eq!(announced.lookup(0, MAC, at(0) + late), Some(Owner::Peer(B)), "an announcement does");
}

#[test]
fn the_old_host_follows_the_announcement() {
    let table = table();
    table.learn_local(0, MAC, at(0));
    assert_eq!(table.learn_remote(0, MAC, B, Source::Flood, at(5)), Learned::Ignored);
    assert_eq!(table.learn_remote(0, MAC, B, Source::Data, at(5)), Learned::Ignored);
    assert_eq!(table.lookup(0, MAC, at(5)), Some(Owner::Local));
    table.announce(0, MAC, Some(B), at(6));
    assert_eq!(table.lookup(0, MAC, at(6)), Some(Owner::Peer(B)));
    assert_eq!(table.counters.mac_moves_local_to_remote.get(), 1);
    assert_eq!(table.learn_remote(0, MAC, B, Source::Data, at(7)), Learned::Known);
    assert_eq!(table.snapshot(at(7))[0].source, Source::Announced);
}

#[test]
fn floods_fill_gaps_only() {
    let table = table();
    table.learn_remote(0, MAC, A, Source::Flood, at(0));
    assert_eq!(table.learn_remote(0, MAC, B, Source::Flood, at(1)), Learned::Moved(Owner::Peer(A)));
    assert_eq!(table.learn_remote(0, MAC, A, Source::Data, at(2)), Learned::Moved(Owner::Peer(B)));
    assert_eq!(table.learn_remote(0, MAC, B, Source::Flood, at(3)), Learned::Ignored);
    table.announce(0, MAC, Some(A), at(4));
    assert_eq!(table.learn_remote(0, MAC, B, Source::Flood, at(5)), Learned::Ignored);
    assert_eq!(table.lookup(0, MAC, at(5)), Some(Owner::Peer(A)));
    assert_eq!(table.counters.mac_moves_remote.get(), 2);
}

#[test]
fn late_data_of_the_old_host_changes_nothing_after_an_announced_move() {
    let table = table();
    table.announce(0, MAC, Some(A), at(0));
    table.announce(0, MAC, Some(B), at(5000));
    assert_eq!(table.learn_remote(0, MAC, A, Source::Data, at(5100)), Learned::Ignored);
    assert_eq!(table.learn_remote(0, MAC, B, Source::Data, at(6500)), Learned::Known);
    assert_eq!(table.learn_remote(0, MAC, A, Source::Data, at(9000)), Learned::Ignored);
    assert_eq!(table.lookup(0, MAC, at(9000)), Some(Owner::Peer(B)));
}

#[test]
fn invented_macs_push_out_no_announced_ones() {
    let table = MacTable::new(bucket::WAYS, 3);
    let mac = |n: u8| [2, 0, 0, 0, 0, n];
    for n in 0..100 {
        table.learn_remote(0, mac(n), A, Source::Data, at(u64::from(n)));
    }
    for n in 100..104 {
        table.announce(0, mac(n), Some(B), at(200));
    }
    for n in 0..100 {
        table.learn_remote(0, mac(n), A, Source::Data, at(1000 + u64::from(n)));
    }
    assert!((100..104).all(|n| table.lookup(0, mac(n), at(2000)) == Some(Owner::Peer(B))));
    // Those of our own bridge fill three quarters, and then push out each other.
    for n in 0..100 {
        table.learn_local(1, mac(n), at(3000 + u64::from(n)));
    }
    let local = table.snapshot(at(4000)).iter().filter(|entry| entry.owner == Owner::Local).count();
    assert_eq!(local, MOST_LOCAL);
    assert_eq!((100..104).filter(|n| table.lookup(0, mac(*n), at(4000)).is_some()).count(), 2);
    assert_eq!(table.lookup(1, mac(99), at(4000)), Some(Owner::Local), "the newest is known");
}

#[test]
fn new_local_macs_are_learned_at_a_bounded_rate() {
    let table = MacTable::new(DEFAULT_ENTRIES, 3);
    let mac = |n: u32| PeerName::from_u64(0x0200_0000_0000 | u64::from(n)).0;
    let new = |range: std::ops::Range<u32>, now| range.filter(|n| table.learn_local(0, mac(*n), now) == Learned::New).count();
    assert_eq!(new(0..5000, at(0)), NEW_LOCAL_BURST as usize);
    assert_eq!(table.counters.macs_over_rate.get(), 5000 - u64::from(NEW_LOCAL_BURST));
    assert_eq!(table.learn_local(0, mac(7), at(500)), Learned::Known, "what is known costs nothing");
    assert_eq!(new(5000..6000, at(1000)), 200);
}

#[test]
fn announcements_do_not_age_and_can_be_withdrawn() {
    let table = table();
    table.announce(0, MAC, Some(A), at(0));
    assert_eq!(table.lookup(0, MAC, at(0) + AGEING * 2), Some(Owner::Peer(A)));
    table.announce(0, MAC, None, at(1));
    assert_eq!(table.lookup(0, MAC, at(1)), None);
    table.learn_local(0, MAC, at(2));
    table.announce(0, MAC, None, at(3));
    assert_eq!(table.lookup(0, MAC, at(3)), Some(Owner::Local), "our own bridge knows better");
}

#[test]
fn a_flapping_mac_is_held() {
    let table = table();
    table.learn_remote(0, MAC, A, Source::Data, at(0));
    let mut held = 0;
    for ms in 1..100 {
        let peer = if ms % 2 == 0 { A } else { B };
        held += u32::from(table.learn_remote(0, MAC, peer, Source::Data, at(ms)) == Learned::Held);
    }
    assert!(held >= 40 && table.counters.mac_moves_remote.get() == u64::from(MAX_MOVES), "{held}");
    let moved = table.learn_remote(0, MAC, B, Source::Data, at(1500));
    assert!(matches!(moved, Learned::Moved(_) | Learned::Known), "the hold ends: {moved:?}");
}

#[test]
fn full_buckets_give_up_the_least_first() {
    let table = MacTable::new(bucket::WAYS, 3);
    let mac = |n: u8| [2, 0, 0, 0, 0, n];
    table.learn_local(0, mac(0), at(0));
    for n in 1..8 {
        table.learn_remote(0, mac(n), A, if n == 5 { Source::Flood } else { Source::Data }, at(u64::from(n)));
    }
    assert_eq!(table.learn_remote(0, mac(9), B, Source::Data, at(20)), Learned::New);
    assert_eq!(table.lookup(0, mac(5), at(20)), None, "what was learned from a flood went");
    assert_eq!(table.learn_remote(0, mac(10), B, Source::Flood, at(21)), Learned::Ignored);
    assert_eq!(table.learn_remote(0, mac(11), B, Source::Data, at(22)), Learned::New);
    assert_eq!(table.lookup(0, mac(1), at(22)), None, "then the oldest");
    assert_eq!(table.lookup(0, mac(0), at(22)), Some(Owner::Local));
    assert_eq!((table.counters.macs_evicted.get(), table.counters.macs_not_learned.get()), (2, 1));
    assert_eq!(table.snapshot(at(22)).len(), bucket::WAYS);
}

#[test]
fn a_peer_can_be_forgotten() {
    let table = table();
    for n in 0..20 {
        table.learn_remote(n, MAC, if n % 2 == 0 { A } else { B }, Source::Data, at(0));
    }
    table.forget_peer(A);
    assert!(table.snapshot(at(0)).iter().all(|entry| entry.owner == Owner::Peer(B)));
    assert_eq!(table.snapshot(at(0)).len(), 10);
}

/// Every owner a reader sees belongs to the MAC it asked for, however writers fight over the bucket.
#[test]
fn readers_never_see_a_torn_entry() {
    let table = MacTable::new(bucket::WAYS, 3);
    let peer_of = |n: u64| PeerName::from_u64(n * 1000 + 7);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (table, stop) = (&table, &stop);
            scope.spawn(move || {
                for round in 0..30_000u64 {
                    let n = (round * 7 + seed * 13) % 40;
                    table.announce(0, PeerName::from_u64(n).0, Some(peer_of(n)), at(round));
                    table.announce(0, PeerName::from_u64((n + 3) % 40).0, None, at(round));
                }
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            });
        }
        let mut round = 0u64;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            round += 1;
            let n = round % 40;
            if let Some(owner) = table.lookup(0, PeerName::from_u64(n).0, at(0)) {
                assert_eq!(owner, Owner::Peer(peer_of(n)));
            }
        }
    });
}

#[test]
fn a_frozen_mac_stays_where_it_is_until_it_is_announced() {
    const OWN: PeerName = PeerName([2, 0, 0, 0, 0, 9]);
    let table = table();
    table.learn_remote(0, MAC, A, Source::Data, at(0));
    table.decide(OWN, (0, MAC), Some(A), true, at(1));
    for ms in [2, 10_000] {
        assert_eq!(table.learn_local(0, MAC, at(ms)), Learned::FrozenThere);
        assert_eq!(table.learn_remote(0, MAC, B, Source::Data, at(ms)), Learned::FrozenThere);
        assert_eq!(table.learn_remote(0, MAC, A, Source::Data, at(ms)), Learned::Known);
    }
    assert_eq!(table.lookup(0, MAC, at(0) + 2 * AGEING), Some(Owner::Peer(A)), "what another announces does not age");
    // The mesh plane hears that it is here too.
    table.decide(OWN, (0, MAC), Some(OWN), true, at(20_000));
    assert_eq!(table.learn_remote(0, MAC, A, Source::Flood, at(20_001)), Learned::FrozenHere);
    assert_eq!(table.learn_local(0, MAC, at(20_002)), Learned::Known);
    assert_eq!(table.counters.mac_sightings_frozen.get(), 5);
    assert_eq!(table.expire(at(20_002) + AGEING).len(), 1, "what is here ages, so that it is withdrawn when it has gone");
    // It is free: with whom it was, and then with whom it is announced.
    table.decide(OWN, (0, MAC), Some(OWN), true, at(30_000));
    table.decide(OWN, (0, MAC), Some(OWN), false, at(30_001));
    assert_eq!(
        table.snapshot(at(30_002)).iter().map(|entry| (entry.owner, entry.source)).collect::<Vec<_>>(),
        [(Owner::Local, Source::Local)]
    );
    table.decide(OWN, (0, MAC), Some(B), false, at(30_003));
    assert_eq!(table.lookup(0, MAC, at(30_004)), Some(Owner::Peer(B)));
    assert_eq!(table.learn_local(0, MAC, at(30_005)), Learned::Moved(Owner::Peer(B)));
}
