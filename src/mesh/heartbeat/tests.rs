use super::*;

const MS: u64 = 1_000_000;

#[test]
fn pings_of_before_the_last_proof_of_life_convict_nobody() {
    let mut beat = Heartbeat::new(Time::ZERO);
    for ms in 0..600 {
        beat.data(Time::ZERO, Time(ms * MS));
        beat.poll(Time(ms * MS));
    }
    assert!(beat.outstanding.len() > DEAD_MISSED);
    // The peer's word is that it has heard us, and then this router gets no processor for a while.
    beat.reported(Time(600 * MS), Duration::ZERO);
    assert!(matches!(beat.poll(Time(2500 * MS)), Verdict::Ping(_)));
}

/// Runs a heartbeat against a peer that answers after `rtt` until `cut`; returns (pings, time of death).
fn run(active: bool, cut: u64, until: u64) -> (usize, Option<u64>) {
    let mut beat = Heartbeat::new(Time::ZERO);
    let mut pings = 0;
    let mut answers: VecDeque<(u64, u32)> = VecDeque::new();
    for ms in 0..until {
        let now = Time(ms * MS);
        if active {
            beat.data(Time::ZERO, now);
        }
        while answers.front().is_some_and(|(at, _)| *at <= ms) {
            let (_, sequence) = answers.pop_front().expect("checked");
            assert!(beat.pong(now, sequence));
        }
        match beat.poll(now) {
            Verdict::Wait => {}
            Verdict::Ping(sequence) => {
                pings += 1;
                if ms < cut {
                    answers.push_back((ms + 10, sequence));
                }
            }
            Verdict::Dead => return (pings, Some(ms)),
        }
    }
    (pings, None)
}

#[test]
fn idle_links_ping_once_a_second_and_die_within_four() {
    assert_eq!(run(false, u64::MAX, 10_000), (10, None));
    let (_, dead) = run(false, 5_000, 20_000);
    assert!((7_500..9_000).contains(&dead.expect("dies")), "{dead:?}");
}

#[test]
fn busy_links_die_within_a_second() {
    assert_eq!(run(true, u64::MAX, 2_000), (14, None));
    for cut in 5_000..5_200 {
        let dead = run(true, cut, 20_000).1.expect("dies");
        assert!(dead - cut < 750, "cut {cut} dead {dead}");
    }
}

#[test]
fn a_stall_of_our_own_kills_nothing() {
    let mut beat = Heartbeat::new(Time::ZERO);
    assert_eq!(beat.poll(Time::ZERO), Verdict::Ping(1));
    assert!(beat.pong(Time(MS), 1));
    assert!(matches!(beat.poll(Time(60_000 * MS)), Verdict::Ping(2)));
    assert!(matches!(beat.poll(Time(60_100 * MS)), Verdict::Wait));
}

/// A peer that answers after `rtt` milliseconds falls silent while this router stands still for so many; how long after that it is found dead.
fn silent_after_a_stall(rtt: u64, stall: u64, pong_first: bool) -> Option<u64> {
    let mut beat = Heartbeat::new(Time::ZERO);
    let mut answers: VecDeque<(u64, u32)> = VecDeque::new();
    let (stops, mut ms) = (30_001, 0);
    while ms < stops + stall + 60_000 {
        let now = Time(ms * MS);
        let mut came = |beat: &mut Heartbeat| {
            while answers.front().is_some_and(|(at, _)| *at <= ms) {
                let (_, sequence) = answers.pop_front().expect("checked");
                beat.pong(now, sequence);
            }
        };
        if pong_first {
            came(&mut beat);
        }
        let verdict = beat.poll(now);
        if !pong_first {
            came(&mut beat);
        }
        match verdict {
            Verdict::Dead => return Some(ms.saturating_sub(stops + stall)),
            Verdict::Ping(sequence) if ms < stops => answers.push_back((ms + rtt, sequence)),
            Verdict::Ping(_) | Verdict::Wait => {}
        }
        ms += if ms == stops { stall.max(1) } else { 1 };
    }
    None
}

#[test]
fn a_link_that_ended_while_this_router_stood_still_is_found_dead_all_the_same() {
    for (rtt, most) in [(1, 6_000), (100, 6_000), (1_900, 9_000), (2_800, 12_000)] {
        for stall in [0, 700, 3_000, 10_000, 60_000] {
            for pong_first in [true, false] {
                let took = silent_after_a_stall(rtt, stall, pong_first);
                assert!(took.is_some_and(|took| took < most), "{rtt} ms, after {stall} ms, {pong_first}: {took:?}");
            }
        }
    }
}

#[test]
fn a_doubt_is_refuted_by_an_answer_or_soon_the_death() {
    let mut beat = Heartbeat::new(Time::ZERO);
    assert_eq!(beat.poll(Time::ZERO), Verdict::Ping(1));
    assert!(beat.pong(Time(5 * MS), 1));
    beat.doubt(Time(10 * MS));
    assert_eq!((beat.due(Time(10 * MS)), beat.poll(Time(10 * MS))), (Time(10 * MS), Verdict::Ping(2)), "it is asked at once");
    beat.reported(Time(12 * MS), Duration::from_millis(4));
    assert!(beat.is_doubted(), "what was proven before refutes nothing");
    assert!(beat.pong(Time(15 * MS), 2) && !beat.is_doubted());
    beat.doubt(Time(20 * MS));
    let dead = (20..2000).find(|ms| beat.poll(Time(ms * MS)) == Verdict::Dead);
    assert!(dead.is_some_and(|dead| (400..600).contains(&dead)), "{dead:?}");
}

#[test]
fn a_spared_ping_is_due_once_the_link_is_doubted_or_in_use() {
    let spared = || {
        let mut beat = Heartbeat::new(Time::ZERO);
        assert_eq!(beat.poll(Time::ZERO), Verdict::Ping(1));
        assert!(beat.pong(Time(5 * MS), 1));
        beat.reported(Time(500 * MS), Duration::ZERO);
        beat.spare(Time(500 * MS));
        assert_eq!(beat.due(Time(510 * MS)), Time(500 * MS) + IDLE + SPARED_FOR);
        beat
    };
    let mut beat = spared();
    beat.doubt(Time(510 * MS));
    assert_eq!(beat.poll(Time(510 * MS)), Verdict::Ping(2), "a doubt does not wait for the peer's next ping");
    beat.spare(Time(520 * MS));
    assert!(beat.due(Time(520 * MS)) <= Time(510 * MS) + SUSPECT, "and the peer's ping does not stand in for its answer");
    let mut beat = spared();
    beat.data(Time::ZERO, Time(510 * MS));
    assert_eq!(beat.due(Time(510 * MS)), Time(500 * MS) + FAST, "nor does data");
}

#[test]
fn of_two_ends_that_carry_nothing_one_pings_and_either_notices_the_end() {
    let mut ends = [Heartbeat::new(Time::ZERO), Heartbeat::new(Time::ZERO)];
    let (mut pings, mut dead) = ([0, 0], [None, None]);
    for ms in 0..70_000u64 {
        let now = Time(ms * MS);
        for one in [0, 1] {
            match ends[one].poll(now) {
                Verdict::Ping(sequence) if ms < 60_000 => {
                    pings[one] += 1;
                    let age = ends[one].age(now);
                    ends[1 - one].heard(now, false);
                    ends[1 - one].reported(now, Duration::from_millis(u64::from(age)));
                    ends[1 - one].spare(now);
                    assert!(ends[one].pong(now, sequence));
                }
                Verdict::Dead => dead[one] = dead[one].or(Some(ms)),
                Verdict::Ping(_) | Verdict::Wait => {}
            }
        }
    }
    assert!(pings[0] + pings[1] < 90 && pings[0].min(pings[1]) > 10, "{pings:?}");
    assert!(dead.iter().all(|dead| dead.is_some_and(|ms| (62_000..65_000).contains(&ms))), "{dead:?}");
}

#[test]
fn what_a_busy_host_adds_is_forgotten_at_once_and_a_slow_path_is_noticed() {
    let mut beat = Heartbeat::new(Time::ZERO);
    let mut now = Time::ZERO;
    beat.begin(now);
    let mut took = |beat: &mut Heartbeat, ms: u64| {
        let Verdict::Ping(sequence) = beat.poll(now) else { panic!("it pings") };
        assert!(beat.pong(now + Duration::from_millis(ms), sequence));
        now = now + IDLE * 2;
        beat.base().expect("measured")
    };
    for ms in [110, 90, 130] {
        assert!(took(&mut beat, ms) >= Duration::from_millis(90));
    }
    assert_eq!(took(&mut beat, 2), Duration::from_millis(2));
    assert!(beat.rtt() > Some(Duration::from_millis(80)));
    assert!(took(&mut beat, 10) <= Duration::from_millis(3), "one late answer is no slow path");
    let pings = (1..60).find(|_| took(&mut beat, 60) >= Duration::from_millis(30));
    assert!(pings.is_some_and(|pings| pings < 7), "{pings:?}");
}

#[test]
fn loss_is_measured() {
    let mut beat = Heartbeat::new(Time::ZERO);
    for second in 0..200u64 {
        let now = Time(second * 1000 * MS);
        if let Verdict::Ping(sequence) = beat.poll(now)
            && sequence % 2 == 0
        {
            beat.pong(now + Duration::from_millis(5), sequence);
        }
    }
    assert!((0.3..0.7).contains(&beat.loss()), "{}", beat.loss());
    assert_eq!(beat.rtt(), Some(Duration::from_millis(5)));
}
