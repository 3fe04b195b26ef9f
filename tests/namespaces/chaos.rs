//! A script of misfortunes, drawn by lot, on a real mesh: routers killed, stopped and starved, wires cut, silenced and made to lose, the mesh
//! divided, hosts renumbered. After every one of them whoever has a way to somebody reaches them in time; in the end nothing is left.
//!
//! The kernels this runs on delay and reorder nothing (no `netem`), and their clock is everybody's: that is the simulation's part.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use weave_router::host::lab::clock::{Stopwatch, pause};
use weave_router::host::lab::{Cidr, Lab, Router, Wire};

use crate::common::wait_until;
use crate::crowd::{Crowd, Pairs, Place};
use crate::flow::Noise;
use crate::many::{containers, keep, lose, place, routers};
use crate::scene::{PATIENCE, ip, scene};

/// Hosts, and wires beside the ring that joins them.
const HOSTS: usize = 6;
const CHORDS: usize = 3;
/// Where a way is left, traffic has found it within this: a second is promised to traffic that is under way, and this asks on idle links.
const ROUND: Duration = Duration::from_secs(4);
/// Where the only ways are new ones: whoever dials pauses for as long as the trouble has lasted.
const ANEW: Duration = Duration::from_secs(15);

/// How long it goes on, and what draws the script: `WEAVE_CHAOS_SECONDS` and `WEAVE_CHAOS_SEED`.
#[expect(clippy::disallowed_methods, reason = "a test asks for how long it is to run")]
fn wanted() -> (Duration, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    (Duration::from_secs(number("WEAVE_CHAOS_SECONDS").unwrap_or(60)), number("WEAVE_CHAOS_SEED").unwrap_or(5))
}

/// What is wrong with a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Its interfaces are down.
    Down,
    /// Nothing arrives.
    Silent,
    /// One datagram in ten does not arrive.
    Lossy,
}

/// The mesh and what has befallen it.
struct World<'a> {
    lab: &'a Lab,
    wires: Vec<(Wire, Fault)>,
    routers: Vec<Router>,
    alive: Vec<bool>,
    dice: Noise,
    /// Addresses given out by renumbering, on every wire from this number on.
    next_station: u8,
}

impl World<'_> {
    /// The next misfortune: what it is, and the time within which traffic must have got over it.
    fn step(&mut self) -> (String, Duration) {
        match self.dice.below(9) {
            0 => self.wire_becomes(Fault::Down),
            1 => self.wire_becomes(Fault::Silent),
            2 => self.wire_becomes(Fault::Lossy),
            3 => self.divide(),
            4 => self.kill(),
            5 => self.restart_politely(),
            6 => self.starve(),
            7 => self.renumber(),
            _ => self.heal(),
        }
    }

    fn wire_becomes(&mut self, fault: Fault) -> (String, Duration) {
        let chosen = self.dice.below(self.wires.len());
        let (wire, before) = &self.wires[chosen];
        let what = format!("the wire from {} to {} is {fault:?}", wire.a.host, wire.b.host);
        // A wire that carried nothing, and now some of it, is a new way.
        let opens = fault == Fault::Lossy && matches!(before, Fault::Down | Fault::Silent);
        self.set(chosen, fault);
        (what, if opens { ANEW } else { ROUND })
    }

    fn set(&mut self, n: usize, fault: Fault) {
        let (wire, now) = &mut self.wires[n];
        match *now {
            Fault::None => {}
            Fault::Down => self.lab.mend(wire).expect("mended"),
            Fault::Silent | Fault::Lossy => keep(self.lab, wire),
        }
        match fault {
            Fault::None => {}
            Fault::Down => self.lab.cut(wire).expect("cut"),
            Fault::Silent => lose(self.lab, wire, ""),
            Fault::Lossy => lose(self.lab, wire, "numgen random mod 10 == 0"),
        }
        *now = fault;
    }

    fn divide(&mut self) -> (String, Duration) {
        let side: Vec<bool> = (0..HOSTS).map(|_| self.dice.below(2) == 0).collect();
        let crossing = |wire: &Wire| side[place(&wire.a.host)] != side[place(&wire.b.host)];
        let cut: Vec<usize> = (0..self.wires.len()).filter(|n| crossing(&self.wires[*n].0)).collect();
        cut.into_iter().for_each(|n| self.set(n, Fault::Silent));
        (format!("the mesh is divided: {side:?}"), ROUND)
    }

    fn kill(&mut self) -> (String, Duration) {
        let chosen = self.dice.below(HOSTS);
        if !std::mem::replace(&mut self.alive[chosen], false) {
            return self.revive(chosen);
        }
        self.routers[chosen].process().kill().expect("killed");
        (format!("the router on h{} is killed", chosen + 1), ROUND)
    }

    fn revive(&mut self, n: Place) -> (String, Duration) {
        if !std::mem::replace(&mut self.alive[n], true) {
            self.routers[n].restart().expect("nothing stale prevents the start");
        }
        (format!("the router on h{} is there again", n + 1), ANEW)
    }

    fn restart_politely(&mut self) -> (String, Duration) {
        let chosen = self.dice.below(HOSTS);
        if std::mem::replace(&mut self.alive[chosen], false) {
            self.routers[chosen].stop().expect("stopped");
        }
        self.revive(chosen)
    }

    fn starve(&mut self) -> (String, Duration) {
        let (chosen, time) = (self.dice.below(HOSTS), Duration::from_millis(200 + self.dice.below(1300) as u64));
        if self.alive[chosen] {
            let router = self.routers[chosen].process();
            router.signal(Signal::SIGSTOP).expect("it stands still");
            pause(time);
            router.signal(Signal::SIGCONT).expect("it goes on");
        }
        (format!("the router on h{} had no processor for {time:?}", chosen + 1), ANEW)
    }

    /// One end of a wire that works gets another address. Where both ends had changed while they could not hear of it, nobody would know.
    fn renumber(&mut self) -> (String, Duration) {
        let chosen = self.dice.below(self.wires.len());
        let (wire, fault) = &mut self.wires[chosen];
        if *fault != Fault::None {
            return self.heal();
        }
        let end = &mut wire.b;
        let new = Cidr { ip: end.ip, len: end.len }.station(self.next_station);
        // Two hundred at a time, so that hours of it find one.
        self.next_station = 10 + (self.next_station - 9) % 200;
        ip(self.lab, &end.host, &format!("addr del {}/{} dev {}", end.ip, end.len, end.interface));
        ip(self.lab, &end.host, &format!("addr add {new}/{} dev {}", end.len, end.interface));
        end.ip = new;
        (format!("{} has the address {new}", end.host), ANEW)
    }

    fn heal(&mut self) -> (String, Duration) {
        (0..self.wires.len()).for_each(|n| self.set(n, Fault::None));
        (0..HOSTS).for_each(|n| drop(self.revive(n)));
        ("all is mended".into(), ANEW)
    }

    /// Pairs of which both have a router, with a way between them or without.
    fn pairs(&self, crowd: &Crowd) -> (Pairs, Pairs) {
        let mut sides: Vec<BTreeSet<Place>> = (0..HOSTS).map(|n| BTreeSet::from([n])).collect();
        for (wire, _) in self.wires.iter().filter(|(_, fault)| matches!(fault, Fault::None | Fault::Lossy)) {
            let ends = [place(&wire.a.host), place(&wire.b.host)];
            if ends.iter().all(|end| self.alive[*end]) {
                let both: BTreeSet<Place> = ends.iter().flat_map(|end| sides[*end].clone()).collect();
                both.iter().for_each(|member| sides[*member] = both.clone());
            }
        }
        let living = crowd.pairs().into_iter().filter(|(a, b)| self.alive[*a] && self.alive[*b]);
        living.partition(|(a, b)| sides[*a].contains(b))
    }
}

#[test]
fn whatever_befalls_a_mesh_those_with_a_way_reach_each_other() {
    scene(|lab| {
        let (time, seed) = wanted();
        println!("again with WEAVE_CHAOS_SECONDS={} WEAVE_CHAOS_SEED={seed}", time.as_secs());
        let wires = lab.partial_mesh(HOSTS, CHORDS, seed).expect("hosts and wires");
        let routers = routers(lab, HOSTS, &wires, &[]);
        let crowd = Crowd::start(&containers(lab, HOSTS));
        let wires = wires.into_iter().map(|wire| (wire, Fault::None)).collect();
        let mut world = World { lab, wires, routers, alive: vec![true; HOSTS], dice: Noise::new(seed), next_station: 10 };
        assert!(crowd.ask(&crowd.pairs(), PATIENCE).silent.is_empty(), "at first all is well");
        let clock = Stopwatch::start();
        let mut steps = 0;
        while clock.elapsed() < time {
            steps += 1;
            let (what, within) = world.step();
            let (joined, divided) = world.pairs(&crowd);
            let answers = crowd.ask(&joined, within);
            println!("{steps}: {what}; {} pairs with a way, the last after {:?}", joined.len(), answers.slowest);
            assert!(answers.silent.is_empty(), "step {steps} of seed {seed}, {what}: not within {within:?}: {:?}", answers.silent);
            let through = divided.len() - crowd.ask(&divided, Duration::from_millis(100)).silent.len();
            assert_eq!(through, 0, "step {steps}: pairs without a way that reach each other");
        }
        world.heal();
        assert!(crowd.ask(&crowd.pairs(), ANEW).silent.is_empty(), "in the end all is well, seed {seed}");
        assert!(world.routers.iter().all(|router| !router.log().contains("panicked")));
        let mut routers = world.routers;
        drop(crowd);
        (1..=HOSTS).for_each(|n| lab.remove(&format!("c{n}")).expect("removed"));
        for router in &mut routers {
            assert!(router.stop().expect("stopped").is_some(), "it ends when it is told to");
        }
        for n in 1..=HOSTS {
            let left = || ip(lab, &format!("h{n}"), "-o link");
            wait_until(PATIENCE, &format!("h{n} is as it was before its router"), || {
                !left().contains("weave") && !left().contains("vethwe")
            });
        }
    });
}
