use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::*;

fn host(text: &str) -> (Target, Goal) {
    let target: Target = text.parse().expect("a target");
    (target.clone(), Goal::Host(target))
}

fn addr(last: u8) -> Address {
    Address::udp(std::net::SocketAddr::from(([10, 0, 0, last], 6783)))
}

fn at(ms: u64) -> Time {
    Time(ms * 1_000_000)
}

#[test]
fn resolves_on_every_attempt_tries_all_addresses_and_backs_off() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut targets = Targets::default();
    let (target, goal) = host("h2");
    targets.add(at(0), goal.clone(), Vec::new());
    let mut dials = Vec::new();
    let mut resolves = 0;
    for ms in (0..120_000).step_by(10) {
        for action in targets.poll(at(ms), &|_| false, true) {
            match action {
                Action::Resolve(t) => {
                    resolves += 1;
                    targets.resolved(at(ms), &t, Ok(vec![addr(1), addr(2)]), &mut rng);
                }
                Action::Dial(g, address) => {
                    dials.push((ms, address));
                    targets.failed(at(ms), &g, Failure::Silent, "no answer", &mut rng);
                }
            }
        }
    }
    assert_eq!(dials.first().map(|d| d.1), Some(addr(1)));
    assert_eq!(dials.get(1).map(|d| d.1), Some(addr(2)));
    assert_eq!(resolves, dials.len());
    assert!((14..30).contains(&dials.len()), "{dials:?}");
    let gap = dials[dials.len() - 2].0 - dials[dials.len() - 3].0;
    assert!((20_000..38_000).contains(&gap), "{gap}");
    let state = &targets.snapshot(at(120_000))[0];
    assert_eq!((state.state, state.error.as_deref()), (ConnectionState::Retrying, Some("no answer")));
    assert!(state.retry_in_ms.is_some());
    targets.resolved(at(0), &target, Err("late".into()), &mut rng);
}

#[test]
fn a_linked_peer_is_left_alone_and_redialled_at_once_when_it_is_lost() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut targets = Targets::default();
    let (target, goal) = host("h2");
    let peer = PeerName([2, 0, 0, 0, 0, 1]);
    targets.add(at(0), goal.clone(), Vec::new());
    assert_eq!(targets.poll(at(0), &|_| false, true), [Action::Resolve(target.clone())]);
    targets.resolved(at(0), &target, Ok(vec![addr(1)]), &mut rng);
    assert_eq!(targets.poll(at(1), &|_| false, true), [Action::Dial(goal.clone(), addr(1))]);
    targets.found(at(2), &goal, peer, Duration::from_secs(3));
    assert!(targets.is_configured(peer));
    assert_eq!(targets.poll(at(5000), &|p| p == peer, true), []);
    assert_eq!(targets.due(), None);
    assert_eq!(targets.poll(at(6000), &|_| false, true), [Action::Resolve(target)]);
}

#[test]
fn our_own_address_is_left_until_addresses_change() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut targets = Targets::default();
    let (target, goal) = host("me");
    targets.add(at(0), goal.clone(), Vec::new());
    targets.poll(at(0), &|_| false, true);
    targets.resolved(at(0), &target, Ok(vec![addr(1)]), &mut rng);
    targets.poll(at(0), &|_| false, true);
    targets.failed(at(0), &goal, Failure::Own, "that is this router itself", &mut rng);
    assert_eq!(targets.poll(at(600_000), &|_| false, true), []);
    assert_eq!(targets.snapshot(at(0))[0].state, ConnectionState::Failed);
    assert_eq!(targets.addresses_changed(at(600_000), false), [], "also where one is merely gone");
    assert_eq!(targets.poll(at(600_000), &|_| false, true).len(), 1);
}

#[test]
fn learned_peers_wait_for_room() {
    let mut targets = Targets::default();
    let goal = Goal::Peer(PeerName([2, 0, 0, 0, 0, 1]));
    targets.add(at(0), goal.clone(), vec![addr(1)]);
    assert_eq!(targets.poll(at(0), &|_| false, false), []);
    assert_eq!(targets.poll(at(2000), &|_| false, true), [Action::Dial(goal, addr(1))]);
    let goal = Goal::Peer(PeerName([2, 0, 0, 0, 0, 2]));
    targets.add(at(3000), goal.clone(), vec![addr(2)]);
    targets.urge(&goal);
    assert_eq!(targets.poll(at(3000), &|_| false, false), [Action::Dial(goal, addr(2))], "the mesh needs that one");
}

#[test]
fn hints_are_few_and_forgotten_after_failures() {
    let (mut targets, mut rng) = (Targets::default(), ChaCha8Rng::seed_from_u64(7));
    let hint = |n: u8| Address::udp(([10, 9, 0, n], 6783).into());
    (0..200).for_each(|n| targets.hint(Time::ZERO, hint(n)));
    assert_eq!(targets.learned().len(), MOST_HINTS);
    let goal = Goal::Hint(hint(0));
    (0..MOST_HINT_FAILURES).for_each(|_| targets.failed(Time::ZERO, &goal, Failure::Silent, "no answer", &mut rng));
    assert!(!targets.contains(&goal));
}

#[test]
fn a_learned_peer_to_which_there_is_no_way_is_left_until_addresses_change() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let goal = Goal::Peer(PeerName([2, 0, 0, 0, 0, 1]));
    let dials = |targets: &mut Targets, rng: &mut ChaCha8Rng, (from, to): (u64, u64), failures: [Failure; 2]| {
        let mut dials = 0;
        for ms in (from..to).step_by(10) {
            for action in targets.poll(at(ms), &|_| false, true) {
                let Action::Dial(goal, address) = action else { continue };
                dials += 1;
                targets.failed(at(ms), &goal, failures[usize::from(address == addr(2))], "it failed", rng);
            }
        }
        dials
    };
    let with_two = || {
        let mut targets = Targets::default();
        targets.add(at(0), goal.clone(), vec![addr(1), addr(2)]);
        targets
    };
    let mut targets = with_two();
    assert_eq!(dials(&mut targets, &mut rng, (0, 40_000), [Failure::NoWay, Failure::NoWay]), 2, "each address once");
    let later = dials(&mut targets, &mut rng, (40_000, 1_200_000), [Failure::NoWay, Failure::NoWay]);
    assert!((8..20).contains(&later), "{later} in twenty minutes");
    assert_eq!(targets.addresses_changed(at(1_200_000), true), []);
    assert_eq!(dials(&mut targets, &mut rng, (1_200_000, 1_210_000), [Failure::NoWay, Failure::NoWay]), 2, "at once");
    // Where one address can be reached, that it is not answered may be over soon.
    for failures in [[Failure::NoWay, Failure::Silent], [Failure::Silent, Failure::NoWay]] {
        let dialled = dials(&mut with_two(), &mut rng, (0, 40_000), failures);
        assert!(dialled >= 8, "{failures:?}: {dialled}");
    }
}

#[test]
fn a_link_that_ended_before_anybody_looked_is_dialled_again_at_once() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut targets = Targets::default();
    let (target, goal) = host("h2");
    let (peer, other) = (PeerName([2, 0, 0, 0, 0, 1]), PeerName([2, 0, 0, 0, 0, 2]));
    targets.add(at(0), goal.clone(), Vec::new());
    targets.poll(at(0), &|_| false, true);
    targets.resolved(at(0), &target, Ok(vec![addr(1)]), &mut rng);
    targets.poll(at(1), &|_| false, true);
    targets.found(at(2), &goal, peer, Duration::from_secs(6));
    targets.link_lost(at(3), other);
    assert_eq!(targets.poll(at(4), &|_| false, true), [], "the link is being agreed on");
    targets.link_lost(at(5), peer);
    assert_eq!(targets.poll(at(5), &|_| false, true), [Action::Resolve(target.clone())]);
    // Whoever refused is not dialled any sooner.
    targets.resolved(at(5), &target, Ok(vec![addr(1)]), &mut rng);
    targets.poll(at(6), &|_| false, true);
    targets.failed(at(7), &goal, Failure::Refused, "it is full", &mut rng);
    targets.link_lost(at(8), peer);
    assert_eq!(targets.poll(at(8), &|_| false, true), []);
}

#[test]
fn a_target_by_tcp_has_another_connection_made_from_a_new_address_of_ours() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut targets = Targets::default();
    let (target, goal) = host("tcp://h2");
    targets.add(at(0), goal.clone(), Vec::new());
    assert_eq!(targets.poll(at(0), &|_| false, true), [Action::Resolve(target.clone())]);
    let connection = Address::tcp(std::net::SocketAddr::from(([10, 0, 0, 1], 6783)), 40_000);
    targets.resolved(at(1), &target, Ok(vec![connection]), &mut rng);
    assert_eq!(targets.poll(at(1), &|_| false, true), [Action::Dial(goal.clone(), connection)]);
    assert_eq!(targets.addresses_changed(at(500), true), [(goal, at(500))]);
    assert_eq!(targets.poll(at(500), &|_| false, true), [Action::Resolve(target)]);
}

#[test]
fn a_new_address_of_ours_begins_anew_what_has_no_answer_once_a_second() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut targets = Targets::default();
    let (target, goal) = host("h2");
    targets.add(at(0), goal.clone(), Vec::new());
    assert_eq!(targets.poll(at(0), &|_| false, true), [Action::Resolve(target.clone())]);
    // The name is asked for again, and not because an address went away.
    assert_eq!(targets.addresses_changed(at(100), false), []);
    assert_eq!(targets.poll(at(100), &|_| false, true), []);
    assert_eq!(targets.addresses_changed(at(200), true), []);
    assert_eq!(targets.poll(at(200), &|_| false, true), [Action::Resolve(target.clone())]);
    assert_eq!(targets.addresses_changed(at(500), true), []);
    assert_eq!(targets.poll(at(500), &|_| false, true), [], "so soon it is not asked for a third time");
    assert_eq!((targets.due(), targets.poll(at(1200), &|_| false, true)), (Some(at(1200)), vec![Action::Resolve(target.clone())]));
    // So is what is being dialled, until somebody has answered.
    targets.resolved(at(1210), &target, Ok(vec![addr(1)]), &mut rng);
    assert_eq!(targets.poll(at(1210), &|_| false, true), [Action::Dial(goal.clone(), addr(1))]);
    assert_eq!(targets.addresses_changed(at(1300), false), []);
    assert_eq!(targets.addresses_changed(at(1400), true), [(goal.clone(), at(2200))]);
    assert_eq!(targets.addresses_changed(at(1500), true), [(goal.clone(), at(2200))], "changes do not put it off further");
    assert_eq!(targets.addresses_changed(at(9000), true), [(goal.clone(), at(9000))]);
    targets.handshaking(&goal);
    assert_eq!(targets.addresses_changed(at(20_000), true), []);
}

#[test]
fn many_addresses_of_a_peer_are_no_news_each_time_they_are_told() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut targets = Targets::default();
    let goal = Goal::Peer(PeerName([2, 0, 0, 0, 0, 1]));
    let told: Vec<Address> = (1..=24).map(addr).collect();
    targets.add(at(0), goal.clone(), told.clone());
    assert_eq!(targets.poll(at(0), &|_| false, true), [Action::Dial(goal.clone(), addr(1))]);
    targets.failed(at(1), &goal, Failure::Silent, "no answer", &mut rng);
    targets.add(at(2), goal.clone(), told);
    assert_eq!(targets.poll(at(60), &|_| false, true), [Action::Dial(goal, addr(2))], "the round goes on");
}

#[test]
fn where_our_networks_come_and_go_without_end_a_silent_address_is_still_given_up() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut targets = Targets::default();
    let (target, goal) = host("h2");
    targets.add(at(0), goal.clone(), Vec::new());
    targets.poll(at(0), &|_| false, true);
    targets.resolved(at(1), &target, Ok(vec![addr(1), addr(2)]), &mut rng);
    assert_eq!(targets.poll(at(1), &|_| false, true), [Action::Dial(goal.clone(), addr(1))]);
    let renewed: Vec<u64> = (1..8).map(|n| n * 8000).filter(|ms| !targets.addresses_changed(at(*ms), true).is_empty()).collect();
    assert_eq!(renewed, [8000, 16_000, 24_000, 32_000]);
    // With the end of that attempt the next address has its turn, and as much patience.
    targets.failed(at(60_000), &goal, Failure::Silent, "no answer", &mut rng);
    targets.poll(at(60_050), &|_| false, true);
    targets.resolved(at(60_060), &target, Ok(vec![addr(1), addr(2)]), &mut rng);
    assert_eq!(targets.poll(at(60_060), &|_| false, true), [Action::Dial(goal.clone(), addr(2))]);
    assert_eq!(targets.addresses_changed(at(62_000), true), [(goal, at(62_000))]);
}
