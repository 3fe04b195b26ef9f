use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn name(last: u8) -> PeerName {
    PeerName([2, 0, 0, 0, 0, last])
}

fn seen(present: bool) -> LocalMac {
    LocalMac { vlan: 0, mac: MAC, present, came_from: None }
}

fn flush(macs: &mut Macs, now: Time) -> Option<Vec<MacEntry>> {
    macs.flush(now)
}

fn owner(events: &[Event]) -> Vec<Option<PeerName>> {
    let owners = events.iter().filter_map(|event| match event {
        Event::MacAnnounced { owner, .. } => Some(*owner),
        _ => None,
    });
    owners.collect()
}

/// Tells each of two what the other announces, until neither has more to say.
fn tell(a: &mut Macs, b: &mut Macs, now: Time, events: &mut Vec<Event>) {
    for _ in 0..3 {
        let (one, two) = (flush(a, now + BATCH * 9), flush(b, now + BATCH * 9));
        one.into_iter().for_each(|one| b.heard(now, a.own, &one, events));
        two.into_iter().for_each(|two| a.heard(now, b.own, &two, events));
    }
}

#[test]
fn a_move_is_followed_and_the_old_owner_withdraws() {
    let (mut a, mut b) = (Macs::new(name(1)), Macs::new(name(2)));
    let mut events = Vec::new();
    a.local(Time(0), seen(true), &mut events);
    assert!(events.is_empty() && flush(&mut a, Time(0)).is_none());
    let first = flush(&mut a, Time(0) + BATCH).expect("due");
    b.heard(Time(0), name(1), &first, &mut events);
    assert_eq!(owner(&events), [Some(name(1))]);

    events.clear();
    b.local(Time(1), seen(true), &mut events);
    assert_eq!(owner(&events), [Some(name(2))]);
    let second = flush(&mut b, Time(1) + BATCH).expect("due");
    events.clear();
    a.heard(Time(2), name(2), &second, &mut events);
    assert_eq!(owner(&events), [Some(name(2))]);
    assert_eq!(flush(&mut a, Time(2) + BATCH), Some(Vec::new()));

    events.clear();
    b.local(Time(3), seen(false), &mut events);
    let gone = flush(&mut b, Time(3) + BATCH).expect("due");
    a.heard(Time(4), name(2), &gone, &mut events);
    assert_eq!(owner(&events).last(), Some(&None));
}

#[test]
fn a_move_is_followed_where_the_first_claim_is_still_under_way() {
    let mut events = Vec::new();
    let (mut a, mut b) = (Macs::new(name(1)), Macs::new(name(2)));
    a.local(Time(0), seen(true), &mut events);
    b.local(Time(1), LocalMac { came_from: Some(name(1)), ..seen(true) }, &mut events);
    let (first, second) = (flush(&mut a, Time(0) + BATCH).expect("due"), flush(&mut b, Time(1) + BATCH).expect("due"));
    b.heard(Time(2) + BATCH, name(1), &first, &mut events);
    a.heard(Time(2) + BATCH, name(2), &second, &mut events);
    for macs in [&a, &b] {
        assert_eq!(macs.winner((0, MAC)), Some(name(2)), "although the name of the first is lower");
    }
}

#[test]
fn what_was_seen_over_a_joined_bridge_before_it_was_announced_goes_back() {
    let mut events = Vec::new();
    let (mut a, mut b) = (Macs::new(name(1)), Macs::new(name(2)));
    a.local(Time(0), seen(true), &mut events);
    b.local(Time(1), LocalMac { came_from: Some(name(1)), ..seen(true) }, &mut events);
    tell(&mut a, &mut b, Time(2), &mut events);
    assert_eq!([&a, &b].map(|macs| macs.winner((0, MAC))), [Some(name(2)); 2]);
    // The bridges prove to be joined, which both hear once and again.
    for round in 0..3 {
        let now = Time(3) + Duration::from_secs(round);
        a.restore(now, &[name(2)], &mut events);
        b.restore(now, &[name(1)], &mut events);
        tell(&mut a, &mut b, now, &mut events);
        assert_eq!([&a, &b].map(|macs| macs.winner((0, MAC))), [Some(name(1)); 2], "round {round}");
    }
}

#[test]
fn of_two_who_see_it_first_over_joined_bridges_the_lower_name_keeps_it() {
    let mut events = Vec::new();
    let (mut a, mut b) = (Macs::new(name(1)), Macs::new(name(2)));
    a.local(Time(0), seen(true), &mut events);
    b.local(Time(0), seen(true), &mut events);
    tell(&mut a, &mut b, Time(1), &mut events);
    for round in 0..3 {
        let now = Time(2) + Duration::from_secs(round);
        a.restore(now, &[name(2)], &mut events);
        b.restore(now, &[name(1)], &mut events);
        assert_eq!((flush(&mut a, now + BATCH), flush(&mut b, now + BATCH)), (None, None), "round {round}: nobody claims it again");
        assert_eq!([&a, &b].map(|macs| macs.winner((0, MAC))), [Some(name(1)); 2], "round {round}");
    }
}

#[test]
fn equal_claims_go_to_the_lower_name_everywhere() {
    let body = [MacEntry { vlan: 0, mac: MAC, moves: 0 }];
    let mut events = Vec::new();
    for own in [1, 2, 3] {
        let mut macs = Macs::new(name(own));
        for other in (1..=3).filter(|other| *other != own) {
            macs.heard(Time(0), name(other), &body, &mut events);
        }
        if own == 1 {
            assert_eq!(macs.winner((0, MAC)), Some(name(2)));
            macs.forget(Time(0), name(2), &mut events);
            assert_eq!(macs.winner((0, MAC)), Some(name(3)));
        } else {
            assert_eq!(macs.winner((0, MAC)), Some(name(1)));
        }
    }
}

/// A claim to [`MAC`].
fn claim(moves: u32) -> [MacEntry; 1] {
    [MacEntry { vlan: 0, mac: MAC, moves }]
}

fn second(n: u64) -> Time {
    Time(n * 1_000_000_000)
}

/// The last event: whose it is, and whether it is frozen there.
fn last(events: &[Event]) -> Option<(Option<PeerName>, bool)> {
    events.iter().rev().find_map(|event| match event {
        Event::MacAnnounced { owner, frozen, .. } => Some((*owner, *frozen)),
        _ => None,
    })
}

/// Two routers with a station of that MAC each, which take it from each other, and a third that looks on; `a` had it first.
fn fight(now: Time) -> ([Macs; 3], [Vec<Event>; 3]) {
    let mut macs = [1, 2, 3].map(|last| Macs::new(name(last)));
    let mut events: [Vec<Event>; 3] = Default::default();
    for round in 0..40 {
        let (at, here) = (now + Duration::from_millis(100 * round), round as usize % 2);
        macs[here].local(at, seen(true), &mut events[here]);
        let Some(told) = flush(&mut macs[here], at + BATCH) else { continue };
        for other in (0..3).filter(|other| *other != here) {
            macs[other].heard(at + BATCH, name(here as u8 + 1), &told, &mut events[other]);
        }
    }
    (macs, events)
}

#[test]
fn a_mac_on_two_hosts_is_frozen_on_each_and_stays_with_the_first_for_others() {
    let (mut macs, events) = fight(second(1));
    let key = (0, MAC);
    assert_eq!([0, 1, 2].map(|n: usize| macs[n].winner(key)), [Some(name(1)), Some(name(2)), Some(name(1))]);
    assert_eq!(events.each_ref().map(|events| last(events)), [1, 2, 1].map(|n| Some((Some(name(n)), true))));
    for macs in &mut macs {
        assert_eq!(macs.take_news(), [News::Frozen(key, name(1), name(2))], "it is said once");
        assert!(macs.claims[&key].values().all(|sequence| *sequence <= 6), "nobody goes on outbidding: {:?}", macs.claims);
        assert_eq!(macs.frozen().map(|(key, contest)| (key, contest.holder)).collect::<Vec<_>>(), [(key, name(1))]);
    }
    // They have it for as long as it takes.
    let mut quiet = Vec::new();
    for n in 10..1000 {
        macs.iter_mut().for_each(|macs| macs.tick(second(n), &mut quiet));
    }
    assert!(quiet.is_empty() && macs.iter_mut().all(|macs| macs.take_news().is_empty()));
}

#[test]
fn a_frozen_mac_is_free_a_minute_after_only_one_has_it() {
    let (mut macs, mut events) = fight(second(1));
    // The first goes: who is left has it at once, and it may move again after a minute.
    macs[0].local(second(10), seen(false), &mut events[0]);
    let told = flush(&mut macs[0], second(11)).expect("due");
    assert_eq!(told, []);
    for n in [1, 2] {
        macs[n].heard(second(11), name(1), &told, &mut events[n]);
    }
    assert_eq!([0, 1, 2].map(|n: usize| macs[n].winner((0, MAC))), [Some(name(2)); 3]);
    assert_eq!((last(&events[0]), last(&events[2])), (Some((Some(name(2)), false)), Some((Some(name(2)), false))));
    for n in 11..80 {
        for (macs, events) in macs.iter_mut().zip(&mut events) {
            macs.tick(second(n), events);
            assert_eq!(macs.is_frozen((0, MAC)), n < 71, "after {n} s");
        }
    }
    assert!(macs.iter_mut().all(|macs| macs.take_news().last() == Some(&News::Thawed((0, MAC)))));
    macs[0].local(second(90), seen(true), &mut events[0]);
    let told = flush(&mut macs[0], second(91)).expect("due");
    macs[1].heard(second(91), name(1), &told, &mut events[1]);
    assert_eq!(macs[1].winner((0, MAC)), Some(name(1)), "it moves as any other");
}

#[test]
fn who_outbids_step_by_step_wins_nothing_in_the_end() {
    let (mut owner, mut onlooker) = (Macs::new(name(9)), Macs::new(name(5)));
    let (mut events, mut looked) = (Vec::new(), Vec::new());
    owner.local(second(1), seen(true), &mut events);
    let first = flush(&mut owner, second(2)).expect("due");
    onlooker.heard(second(2), name(9), &first, &mut looked);
    let mut stolen = 0;
    for round in 0..5000u64 {
        let now = second(2) + Duration::from_millis(200 * round);
        let sequence = owner.claims.get(&(0, MAC)).map_or(0, plausible) + 1;
        owner.heard(now, name(1), &claim(sequence), &mut events);
        onlooker.heard(now, name(1), &claim(sequence), &mut looked);
        stolen += u32::from(onlooker.winner((0, MAC)) == Some(name(1)));
        // The station speaks, as it does all the time.
        if owner.winner((0, MAC)) != Some(name(9)) {
            owner.local(now + BATCH, seen(true), &mut events);
        }
        if let Some(told) = flush(&mut owner, now + 2 * BATCH) {
            onlooker.heard(now + 2 * BATCH, name(9), &told, &mut looked);
        }
        owner.tick(now, &mut events);
        onlooker.tick(now, &mut looked);
    }
    assert_eq!((owner.winner((0, MAC)), onlooker.winner((0, MAC))), (Some(name(9)), Some(name(9))));
    assert!(stolen <= 3, "{stolen}");
    assert!(owner.claims[&(0, MAC)][&name(9)] < 10, "the owner does not bid without end");
    assert!(events.len() < 20 && looked.len() < 20, "{} and {} changes", events.len(), looked.len());
}

#[test]
fn two_that_announce_a_mac_side_by_side_have_it_both() {
    let mut onlooker = Macs::new(name(3));
    let mut events = Vec::new();
    onlooker.heard(second(1), name(2), &claim(4), &mut events);
    onlooker.heard(second(5), name(1), &claim(5), &mut events);
    assert_eq!(last(&events), Some((Some(name(1)), false)));
    (5..20).for_each(|n| onlooker.tick(second(n), &mut events));
    assert_eq!(last(&events), Some((Some(name(2)), true)), "it stays where it was first");
    // Who yields does so at once, and then it has moved.
    let mut onlooker = Macs::new(name(3));
    onlooker.heard(second(1), name(2), &claim(4), &mut events);
    onlooker.heard(second(5), name(1), &claim(5), &mut events);
    onlooker.heard(second(6), name(2), &[], &mut events);
    (5..400).for_each(|n| onlooker.tick(second(n), &mut events));
    assert_eq!((last(&events), onlooker.contests.len()), (Some((Some(name(1)), false)), 0));
}

#[test]
fn a_mac_that_moves_about_is_where_it_is_while_only_one_has_it() {
    let mut macs = [1, 2, 3].map(|last| Macs::new(name(last)));
    let mut events: [Vec<Event>; 3] = Default::default();
    let mut here = 0;
    for round in 0..12u64 {
        let (now, next) = (second(1 + round), (here + 1) % 2);
        macs[here].local(now, seen(false), &mut events[here]);
        macs[next].local(now, seen(true), &mut events[next]);
        for from in [here, next] {
            let Some(told) = flush(&mut macs[from], now + BATCH) else { continue };
            for other in (0..3).filter(|other| *other != from) {
                macs[other].heard(now + BATCH, name(from as u8 + 1), &told, &mut events[other]);
            }
        }
        here = next;
        macs.iter_mut().zip(&mut events).for_each(|(macs, events)| macs.tick(now + 2 * BATCH, events));
        assert_eq!([0, 1, 2].map(|n: usize| macs[n].winner((0, MAC))), [Some(name(here as u8 + 1)); 3], "move {round}");
    }
}

#[test]
fn contests_take_bounded_room() {
    let mut macs = Macs::new(name(3));
    let mut events = Vec::new();
    let entries = |moves: u32| -> Vec<MacEntry> {
        let mac = |n: u32| [2, 0, 0, (n >> 16) as u8, (n >> 8) as u8, n as u8];
        (0..20_000).map(|n| MacEntry { vlan: 0, mac: mac(n), moves }).collect()
    };
    macs.heard(second(1), name(1), &entries(1), &mut events);
    macs.heard(second(1), name(2), &entries(2), &mut events);
    assert_eq!(macs.contests.len(), MOST_CONTESTS);
}

#[test]
fn what_seemed_to_move_over_joined_bridges_is_given_back() {
    let (mut a, mut b, mut events) = (Macs::new(name(1)), Macs::new(name(2)), Vec::new());
    a.local(Time(0), seen(true), &mut events);
    let mut told = flush(&mut a, Time(0) + BATCH).expect("due");
    let mut now = Time(0) + BATCH;
    // It is seen on both bridges, now here, now there.
    for _ in 0..2 {
        now = now + Duration::from_secs(1);
        b.heard(now, name(1), &told, &mut events);
        b.local(now, seen(true), &mut events);
        let taken = flush(&mut b, now + BATCH).expect("due");
        a.heard(now, name(2), &taken, &mut events);
        assert_eq!(a.winner((0, MAC)), Some(name(2)));
        if told[0].moves < 2 {
            a.local(now, seen(true), &mut events);
            told = flush(&mut a, now + BATCH).expect("due");
        }
    }
    events.clear();
    a.restore(now, &[name(3)], &mut events);
    assert_eq!(a.winner((0, MAC)), Some(name(2)), "another router's doing is none of this");
    a.restore(now, &[name(2)], &mut events);
    b.restore(now, &[name(1)], &mut events);
    let (from_a, from_b) = (flush(&mut a, now + BATCH).expect("due"), flush(&mut b, now + BATCH).expect("due"));
    a.heard(now, name(2), &from_b, &mut events);
    b.heard(now, name(1), &from_a, &mut events);
    assert_eq!((a.winner((0, MAC)), b.winner((0, MAC))), (Some(name(1)), Some(name(1))));
    // A move of long ago is one.
    let later = now + TURMOIL;
    b.local(later, seen(true), &mut events);
    b.restore(later + TURMOIL, &[name(1)], &mut events);
    assert_eq!(b.winner((0, MAC)), Some(name(2)));
}

#[test]
fn who_cannot_be_reached_loses_to_who_can() {
    let mut a = Macs::new(name(1));
    let mut events = Vec::new();
    a.heard(Time(0), name(2), &[MacEntry { vlan: 0, mac: MAC, moves: 9 }], &mut events);
    a.heard(Time(0), name(3), &[MacEntry { vlan: 0, mac: MAC, moves: 1 }], &mut events);
    assert_eq!(owner(&events), [Some(name(2))]);
    events.clear();
    a.reach(Time(1), |peer| peer == name(3), &mut events);
    assert_eq!((a.winner((0, MAC)), owner(&events)), (Some(name(3)), vec![Some(name(3))]));
    a.reach(Time(2), |_| false, &mut events);
    assert_eq!(owner(&events).last(), Some(&Some(name(2))), "of those out of reach the newest is best");
    a.reach(Time(3), |_| true, &mut events);
    assert_eq!(a.winner((0, MAC)), Some(name(2)));
}

#[test]
fn what_a_router_announced_is_forgotten_with_it() {
    let (mut a, mut b) = (Macs::new(name(1)), Macs::new(name(2)));
    let mut events = Vec::new();
    for n in 0..200u8 {
        a.local(Time(0), LocalMac { vlan: 5, mac: [2, 0, 0, 0, 0, n], present: true, came_from: None }, &mut events);
    }
    let all = flush(&mut a, Time(0) + BATCH).expect("due");
    assert_eq!(all.len(), 200);
    b.heard(Time(0), name(1), &all, &mut events);
    assert_eq!(events.len(), 200);
    b.forget(Time(0), name(1), &mut events);
    assert_eq!((b.winner((5, [2, 0, 0, 0, 0, 7])), events.len()), (None, 400));
}

#[test]
fn only_what_changed_of_a_long_list_is_looked_at() {
    let entry = |n: u32, moves| MacEntry { vlan: (n % 3) as u16, mac: [2, 1, (n >> 16) as u8, (n >> 8) as u8, n as u8, 0], moves };
    let before: Vec<MacEntry> = (0..5000).map(|n| entry(n, 1)).collect();
    let mut after = before.clone();
    after.remove(7);
    after[100].moves = 2;
    after.push(entry(9000, 0));
    // In chunks each of which ascends by itself; of one MAC said twice the highest count counts.
    after.rotate_left(3000);
    after.push(entry(100, 0));
    let (old, new) = (ascending(&before), ascending(&after));
    assert_eq!(new.len(), 5000);
    let key = |n| (entry(n, 0).vlan, entry(n, 0).mac);
    let mut expected = vec![(key(7), None), (key(101), Some(2)), (key(9000), Some(0))];
    expected.sort();
    assert_eq!(changes(&old, &new), expected);
    assert_eq!((changes(&old, &old), changes(&[], &old).len(), changes(&old, &[]).len()), (Vec::new(), 5000, 5000));

    let (mut macs, mut events) = (Macs::new(name(1)), Vec::new());
    macs.heard(Time(0), name(2), &before, &mut events);
    events.clear();
    macs.heard(Time(1), name(2), &after, &mut events);
    assert_eq!(owner(&events).len(), 2, "one has gone and one has come");
    assert_eq!((macs.winner(key(7)), macs.winner(key(9000)), macs.claims.len()), (None, Some(name(2)), 5000));
    macs.forget(Time(2), name(2), &mut events);
    assert!(macs.claims.is_empty() && macs.heard.is_empty());
}
