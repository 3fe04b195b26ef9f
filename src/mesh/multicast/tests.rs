use super::*;
use crate::forward::Punt;
use crate::forward::frame::Frame;
use crate::forward::membership::{Talk, parse};
use crate::mesh::command::{Command, LocalMac};
use crate::mesh::fuzz::Stage;

fn group(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    [239, 1, high, low].into()
}

/// A router with a link, some seconds old.
fn stage() -> Stage {
    let mut stage = Stage::new(true);
    stage.wait(Duration::from_secs(5), &mut Outbox::default());
    stage
}

fn say(stage: &mut Stage, groups: &[IpAddr], joined: bool) -> Vec<Event> {
    let mut out = Outbox::default();
    let members = groups.iter().map(|group| Membership { group: *group, joined }).collect();
    stage.router.handle_punt(stage.now, Punt::Members(members), &mut out);
    out.events
}

/// The destinations of the questions that are asked while time passes, with the seconds after which.
fn asked(stage: &mut Stage, seconds: u64) -> Vec<(u64, [u8; 4])> {
    let mut all = Vec::new();
    for second in 0..seconds {
        let mut out = Outbox::default();
        stage.wait(Duration::from_secs(1), &mut out);
        for event in out.events {
            let Event::ToBridge(bytes) = event else { continue };
            let frame = Frame::parse(&bytes).expect("a frame");
            if parse(&bytes, &frame) == Some(Talk::Snooper) && bytes[12..14] == [8, 0] {
                all.push((second, [30, 31, 32, 33].map(|at: usize| bytes[at])));
            }
        }
    }
    all
}

/// What the router tells, and how often it has said something.
fn told(stage: &Stage) -> (groups::Groups, u64) {
    let own = stage.router.name();
    let mut all = groups::Groups::default();
    for chunk in 0..MAX_CHUNKS as u16 {
        let part = stage.router.store.app_record(own, GROUPS, chunk).and_then(groups::Groups::parse).unwrap_or_default();
        all.everything |= part.everything;
        all.groups.extend(part.groups);
    }
    (all, stage.router.counters.groups_told.get())
}

#[test]
fn stations_are_asked_at_the_start_and_now_and_then_and_when_one_comes() {
    let mut stage = Stage::new(true);
    let everybody = [224, 0, 0, 1];
    assert_eq!(asked(&mut stage, 260), [(0, everybody), (125, everybody), (250, everybody)], "and once at the very start");
    let come = |stage: &mut Stage, n: u8| {
        let mac = LocalMac { vlan: 0, mac: [2, 0, 0, 0, 0, n], present: true, came_from: None };
        stage.router.handle_command(stage.now, Command::LocalMacs(vec![mac]), &mut Outbox::default());
    };
    come(&mut stage, 1);
    assert_eq!(asked(&mut stage, 3), [(0, everybody)]);
    (2..20).for_each(|n| come(&mut stage, n));
    assert_eq!(asked(&mut stage, 20), [(7, everybody)], "not for each");
    stage.router.config.multicast_snooping = false;
    assert_eq!(asked(&mut stage, 300), []);
}

#[test]
fn a_join_is_told_at_once_and_a_leave_when_nobody_is_left() {
    let mut stage = stage();
    say(&mut stage, &[group(1), "ff05::1:3".parse().expect("an address")], true);
    let (all, said) = told(&stage);
    assert_eq!((all.everything, all.groups.len(), said), (false, 2, 1));
    // It is told of again: that is no news.
    say(&mut stage, &[group(1)], true);
    assert_eq!(asked(&mut stage, 2), []);
    assert_eq!(told(&stage).1, 1);
    // One leaves, and another answers.
    say(&mut stage, &[group(1)], false);
    assert_eq!(asked(&mut stage, 2), [(0, [239, 1, 0, 1])]);
    say(&mut stage, &[group(1)], true);
    asked(&mut stage, 10);
    assert_eq!((told(&stage).0.groups.len(), told(&stage).1), (2, 1));
    // The other leaves too.
    let first = say(&mut stage, &[group(1)], false);
    assert!(first.iter().any(|event| matches!(event, Event::ToBridge(_))), "it is asked at once");
    asked(&mut stage, 3);
    assert_eq!(told(&stage).0.groups.len(), 2);
    asked(&mut stage, 3);
    assert_eq!(told(&stage).0.groups, ["ff05::1:3".parse::<IpAddr>().expect("an address")]);
}

#[test]
fn who_does_not_answer_is_forgotten_after_two_questions() {
    let mut stage = stage();
    say(&mut stage, &[group(1)], true);
    asked(&mut stage, 255);
    assert_eq!(told(&stage).0.groups, [group(1)]);
    asked(&mut stage, 7);
    assert_eq!(told(&stage).0, groups::Groups::default());
}

#[test]
fn too_many_groups_and_multicast_routers_want_everything_for_a_while() {
    for what in [Punt::TooManyMembers, Punt::MulticastRouter] {
        let mut stage = stage();
        for _ in 0..3 {
            stage.router.handle_punt(stage.now, what.clone(), &mut Outbox::default());
        }
        assert_eq!(told(&stage), (groups::Groups { everything: true, groups: Vec::new() }, 1));
        let router_here = stage.router.fib().groups.as_ref().map(|groups| groups.router_here);
        assert_eq!(router_here, Some(what == Punt::MulticastRouter));
        asked(&mut stage, 262);
        assert_eq!(told(&stage).0, groups::Groups::default());
    }
    let mut stage = stage();
    let many: Vec<IpAddr> = (0..2000).map(group).collect();
    say(&mut stage, &many, true);
    asked(&mut stage, 2);
    let (all, _) = told(&stage);
    assert_eq!((all.everything, all.groups.len(), stage.router.multicast.own.len()), (true, MOST_OWN, MOST_OWN));
}

#[test]
fn stations_that_join_and_leave_all_the_time_are_little_news() {
    let mut stage = stage();
    for round in 0..600u16 {
        say(&mut stage, &[group(round % 7), group(100 + round)], true);
        say(&mut stage, &[group(round % 7), group(100 + round)], false);
        stage.wait(Duration::from_millis(100), &mut Outbox::default());
    }
    // A burst, and one a second.
    assert!((30..=75).contains(&told(&stage).1), "{}", told(&stage).1);
    assert!(stage.router.multicast.leaves.len() <= 2 * MOST_ASKED);
}
