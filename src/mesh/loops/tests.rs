use super::*;
use crate::forward::Punt;
use crate::mesh::command::{Command, LocalMac, Target};
use crate::mesh::fuzz::{home, router};
use crate::wire::probe::is_probe;

/// Two routers with a link, and a cable between their bridges that passes frames in each direction or not.
struct Two {
    now: Time,
    /// The lower name first.
    routers: [Mesh; 2],
    numbers: [u8; 2],
    passes: [bool; 2],
    /// True where the bridge of the first is joined to itself.
    itself: bool,
    probes: Vec<(usize, Vec<u8>)>,
    said: [Vec<String>; 2],
}

impl Two {
    fn new() -> Two {
        let mut numbers = [1, 2];
        numbers.sort_by_key(|n| router(*n).name());
        let now = Time(1_000_000_000);
        let said = [Vec::new(), Vec::new()];
        let mut two = Two { now, routers: numbers.map(router), numbers, passes: [false; 2], itself: false, probes: Vec::new(), said };
        let target = Target { tcp: false, host: "other".into(), port: None };
        two.command(1, Command::Connect(vec![target.clone()]));
        two.command(1, Command::Resolved(target, Ok(vec![home(numbers[0])])));
        two.run(3000);
        assert!(two.routers[0].routes.reachable(two.routers[1].own), "they have a link");
        two
    }

    fn command(&mut self, n: usize, command: Command) {
        let mut out = Outbox::default();
        self.routers[n].handle_command(self.now, command, &mut out);
        self.carry(n, out);
    }

    fn punt(&mut self, n: usize, punt: Punt) {
        let mut out = Outbox::default();
        self.routers[n].handle_punt(self.now, punt, &mut out);
        self.carry(n, out);
    }

    fn carry(&mut self, n: usize, out: Outbox) {
        let there = home(self.numbers[1 - n]);
        for (_, mut bytes) in out.datagrams.into_iter().filter(|(to, bytes)| *to == there && bytes.len() <= 1472) {
            let mut back = Outbox::default();
            self.routers[1 - n].handle_datagram(self.now, home(self.numbers[n]), &mut bytes, &mut back);
            self.carry(1 - n, back);
        }
        for event in out.events {
            match event {
                Event::ToBridge(frame) if is_probe(&frame) => self.appear(n, frame),
                Event::Warning(text) | Event::Notice(text) => self.said[n].push(text),
                _ => {}
            }
        }
    }

    /// A probe is on a router's bridge.
    fn appear(&mut self, n: usize, frame: Vec<u8>) {
        self.probes.push((n, frame.clone()));
        if self.passes[n] {
            self.punt(1 - n, Punt::Probe(frame.clone()));
        }
        if self.itself && n == 0 {
            self.punt(0, Punt::Probe(frame));
        }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now = self.now + Duration::from_millis(10);
            for n in 0..2 {
                let mut out = Outbox::default();
                if self.routers[n].next_timeout().is_some_and(|due| due <= self.now) {
                    self.routers[n].handle_timeout(self.now, &mut out);
                    self.carry(n, out);
                }
            }
        }
    }

    fn silent(&mut self) -> [bool; 2] {
        [0, 1].map(|n: usize| {
            let fib = self.routers[n].fib();
            assert!(!fib.silent || !fib.looped_with.is_empty());
            fib.silent
        })
    }
}

#[test]
fn of_two_joined_bridges_the_higher_name_falls_silent_until_they_are_parted() {
    let mut two = Two::new();
    assert!(two.silent() == [false, false] && two.said.concat().is_empty());
    two.passes = [true, true];
    two.run(1200);
    assert_eq!(two.silent(), [false, true]);
    let names = [0, 1].map(|n: usize| two.routers[n].own);
    for n in 0..2 {
        assert_eq!(two.routers[n].fib().looped_with, [names[1 - n]]);
        let warning = two.said[n].first().expect("it is said");
        assert!(warning.contains(&names[1 - n].to_string()) && warning.contains("loop"), "{warning}");
        let state = two.routers[n].snapshot(two.now).loops;
        assert_eq!((state.len(), state[0].peer, state[0].silent), (1, names[1 - n], n == 1));
    }
    two.run(20_000);
    assert_eq!(two.silent(), [false, true], "it lasts");
    assert_eq!(two.routers[0].counters.loops_found.get(), 1);
    two.passes = [false, false];
    two.run(6_500);
    assert_eq!(two.silent(), [false, false]);
    assert!(two.routers[1].loop_states().is_empty() && two.said[1].last().is_some_and(|text| text.contains("floods again")));
}

#[test]
fn a_mac_that_comes_over_from_another_host_is_reason_enough_to_look_at_once() {
    let mut two = Two::new();
    let mac = LocalMac { vlan: 0, mac: [2, 0, 0, 0, 0, 9], present: true, came_from: None };
    two.punt(0, Punt::LocalMac(mac));
    two.run(300);
    let before = two.probes.len();
    two.passes = [true, true];
    two.punt(1, Punt::LocalMac(mac));
    assert!(two.probes.len() > before && two.silent() == [false, true]);
    two.run(300);
    let owners = [0, 1].map(|n: usize| two.routers[n].macs.winner((0, mac.mac)));
    assert_eq!(owners, [Some(two.routers[0].own); 2], "what was taken for a move is given back");
    let other = LocalMac { mac: [2, 0, 0, 0, 0, 10], ..mac };
    two.punt(0, Punt::LocalMac(other));
    two.run(300);
    two.punt(1, Punt::LocalMac(other));
    assert_eq!(two.routers[1].macs.winner((0, other.mac)), Some(two.routers[0].own), "in a loop nothing is");
}

#[test]
fn a_bridge_joined_to_itself_falls_silent_and_gets_no_more_probes_than_one() {
    let mut two = Two::new();
    two.itself = true;
    two.run(1200);
    assert_eq!(two.silent(), [true, false]);
    assert!(two.said[0][0].contains("to itself"), "{:?}", two.said[0]);
    // It goes round and round.
    let (sent, last) = (two.probes.iter().filter(|(n, _)| *n == 0).count(), two.probes.iter().rfind(|(n, _)| *n == 0).cloned());
    let last = last.expect("one was sent").1;
    for _ in 0..100 {
        two.punt(0, Punt::Probe(last.clone()));
        two.run(100);
    }
    assert_eq!(two.probes.iter().filter(|(n, _)| *n == 0).count(), sent);
    two.itself = false;
    two.run(6_500);
    assert_eq!(two.silent(), [false, false]);
}

#[test]
fn where_frames_pass_one_way_only_who_sees_them_falls_silent() {
    // The lower name sees the higher one, which sees nothing and so goes on.
    let mut two = Two::new();
    two.passes = [false, true];
    two.run(2_000);
    assert_eq!(two.silent(), [false, false]);
    two.run(3_000);
    assert_eq!(two.silent(), [true, false]);
    two.passes = [true, true];
    two.run(2_500);
    assert_eq!(two.silent(), [false, true], "one of them is enough");
}

#[test]
fn probes_that_are_old_forged_or_of_strangers_do_nothing() {
    let mut two = Two::new();
    two.run(3_000);
    let recorded: Vec<Vec<u8>> = two.probes.iter().filter(|(n, _)| *n == 1).map(|(_, frame)| frame.clone()).collect();
    let [first, .., last] = recorded.as_slice() else { panic!("some were sent") };
    let mut forged = last.clone();
    *forged.last_mut().expect("a frame") ^= 1;
    let stranger = Probe { from: PeerName([2; 6]), incarnation: 1, counter: 1, silent: false }.to_frame(|_| [0; 64]);
    for frame in [&forged, &stranger, &last[..50].to_vec(), &Vec::new()] {
        two.punt(0, Punt::Probe(frame.clone()));
    }
    assert!(two.routers[0].loop_states().is_empty());
    two.punt(0, Punt::Probe(last.clone()));
    assert_eq!(two.routers[0].loop_states().len(), 1);
    for _ in 0..13 {
        two.run(500);
        two.punt(0, Punt::Probe(first.clone()));
        two.punt(0, Punt::Probe(last.clone()));
    }
    assert!(two.routers[0].loop_states().is_empty(), "what was heard before keeps no loop alive");
    assert!(two.routers[0].counters.probes_ignored.get() > 20);
}
