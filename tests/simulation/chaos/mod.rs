//! Everything at once, by lot: kills, restarts, cuts, partitions, new addresses, routers that stand still, loss and reordering. After each step the
//! mesh is held against a model of who can reach whom, which is the underlay's: whoever cannot be reached any more is given up, whoever can be
//! is found, frames prove it, and nothing arrives twice, storms or grows.
//!
//! One seed is one run. A failure tells its seed and all that had happened; `WEAVE_SIM_SEED=N` (or `N..M`) plays it again, `WEAVE_SIM_FULL=1` plays
//! hours.

mod model;
mod script;
mod stories;
mod world;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::Range;

use weave_router::sim::FrameId;

use super::*;
use world::{Size, World, below};

/// Within this, a router that cannot be reached any more is given up: twice what an idle link takes to die, which may be the second on the way
/// to do so.
const GIVEN_UP: Duration = Duration::from_secs(16);
/// Within this, one that can be reached is found: an attempt at a host that somebody named takes 10 s to fail, and the longest pause before the next
/// is 30 s and a quarter of that.
const FOUND: Duration = Duration::from_secs(56);
/// The same where links are few: whoever was refused for want of room waits for 60 s and a quarter.
const FOUND_ROOM: Duration = Duration::from_secs(80);
/// Within this, every pair of them exchanges a frame.
const SPOKEN: Duration = Duration::from_secs(10);
/// How often the mesh is looked at, and containers send something.
const BEAT: Duration = Duration::from_millis(50);
/// Batches of datagrams per host and second that no mesh of this size needs.
const STORM: f64 = 2000.0;
/// Routers hear of what has happened one after the other, so that for a moment a frame may go round among those with different graphs until its
/// hop limit ends it (RFC 5715, section 1). So many frames in one step at most, and none once all have found each other.
const CIRCLED: u64 = 10;
/// Entries per host of the mesh that no table needs; bytes of records have a bound of their own.
const ENTRIES: usize = 40;
/// Bytes of records per host of the mesh.
const RECORD_BYTES: usize = 4096;

/// A run.
struct Chaos {
    seed: u64,
    world: World,
    script: Vec<String>,
    /// The longest that anything took.
    slowest: (Duration, Duration, Duration),
    busiest: f64,
    found: Duration,
}

impl World {
    /// Time passes, while containers exchange frames.
    fn pass(&mut self, duration: Duration) {
        let end = self.sim.now() + duration;
        while self.sim.now() < end {
            for _ in 0..2 {
                let [from, to] = [(); 2].map(|()| self.macs[below(&mut self.rng, self.macs.len())]);
                if from != to {
                    self.sim.send(from, to, 100);
                }
            }
            self.sim.run_for(BEAT.min(end.since(self.sim.now())));
        }
    }

    /// Lets time pass until `done`; how long it took, `None` where that is longer than `patience`.
    fn until(&mut self, patience: Duration, done: impl Fn(&World) -> bool) -> Option<Duration> {
        let start = self.sim.now();
        while !done(self) {
            if self.sim.now().since(start) >= patience {
                return None;
            }
            self.pass(BEAT);
        }
        Some(self.sim.now().since(start))
    }

    fn mac(&self, host: RouterId) -> Mac {
        let at = self.model.hosts.iter().position(|other| *other == host).expect("a host of the model");
        self.macs[at]
    }
}

impl Chaos {
    fn new(seed: u64, size: Size) -> Chaos {
        let script = vec![format!("{size:?}")];
        let found = if size.limit > 0 { FOUND_ROOM } else { FOUND };
        let mut world = World::new(seed, size);
        world.sim.excuse("drop_relay_hops");
        Chaos { seed, world, script, slowest: Default::default(), busiest: 0.0, found }
    }

    #[track_caller]
    fn fail(&self, what: &str, detail: &dyn Debug) -> ! {
        let World { sim, .. } = &self.world;
        let known: Vec<String> =
            sim.routers().iter().map(|router| format!("{router:?}: {:?}, links {:?}", sim.name(*router), sim.links(*router))).collect();
        panic!("seed {}: {what}: {detail:?} at {:?}, after\n{}\n{known:#?}", self.seed, sim.now(), self.script.join("\n"))
    }

    fn happen(&mut self) {
        let what = self.world.happen();
        self.script.push(format!("{:?} {what}", self.world.sim.now()));
    }

    /// What must hold whatever has happened, once it has been noticed. So many frames had gone round before it happened.
    fn hold(&mut self, circled: u64) {
        self.world.thaw();
        match self.world.until(GIVEN_UP, |world| world.model.ghosts(&world.sim).is_empty()) {
            Some(took) => self.slowest.0 = self.slowest.0.max(took),
            None => self.fail("these are taken for reachable and are not", &self.world.model.ghosts(&self.world.sim)),
        }
        let found = |world: &World| world.model.missing(&world.sim).is_empty() && world.model.ghosts(&world.sim).is_empty();
        match self.world.until(self.found, found) {
            Some(took) => self.slowest.1 = self.slowest.1.max(took),
            None => self.fail("these have a way to each other and do not know it", &self.world.model.missing(&self.world.sim)),
        }
        // What goes round still does not for longer than this.
        self.world.pass(seconds(1));
        // Of routers that ended meanwhile nothing is known any more.
        if self.circled() > circled + CIRCLED {
            self.fail("so many frames went round", &(self.circled() - circled));
        }
        let circled = self.circled();
        self.speak();
        self.none_circled(circled);
        let problems = self.world.sim.problems();
        if !problems.is_empty() {
            self.fail("this must not be", &problems);
        }
        self.tables();
    }

    /// Frames that went round until their hop limit ended them, on routers that run.
    fn circled(&self) -> u64 {
        self.world.sim.total("drop_relay_hops")
    }

    /// None has since that many had: all is found, and nothing happens.
    fn none_circled(&self, before: u64) {
        if self.circled() > before {
            self.fail("frames go round although all is found", &(self.circled() - before));
        }
    }

    /// Those that can reach each other exchange frames, and no others do.
    fn speak(&mut self) {
        let mut open = self.world.model.pairs();
        let apart = self.send(&self.world.model.strangers());
        let start = self.world.sim.now();
        while !open.is_empty() {
            if self.world.sim.now().since(start) > SPOKEN {
                self.fail("these exchange no frames", &open);
            }
            let sent = self.send(&open);
            self.world.pass(ms(200));
            open = sent.into_iter().filter(|(_, to, frame)| self.world.sim.arrivals(*frame, *to) == 0).map(|(a, b, _)| (a, b)).collect();
        }
        self.slowest.2 = self.slowest.2.max(self.world.sim.now().since(start));
        let mut crossed = apart.iter().filter(|(_, to, frame)| self.world.sim.arrivals(*frame, *to) > 0).map(|(a, b, _)| (a, b));
        if let Some(pair) = crossed.next() {
            self.fail("a frame arrived where no way leads", &pair);
        }
        self.flood();
    }

    fn send(&mut self, pairs: &[(RouterId, RouterId)]) -> Vec<(RouterId, RouterId, FrameId)> {
        let macs: Vec<(Mac, Mac)> = pairs.iter().map(|(a, b)| (self.world.mac(*a), self.world.mac(*b))).collect();
        pairs.iter().zip(macs).map(|((a, b), (from, to))| (*a, *b, self.world.sim.send(from, to, 200))).collect()
    }

    /// A flood of one of them reaches all that it can reach; on bad networks one of several does.
    fn flood(&mut self) {
        let running: Vec<RouterId> = self.world.model.running().collect();
        let from = running[below(&mut self.world.rng, running.len())];
        let mut left: BTreeSet<RouterId> = self.world.model.reach(from);
        let start = self.world.sim.now();
        while !left.is_empty() {
            if self.world.sim.now().since(start) > SPOKEN {
                self.fail("floods do not arrive", &(from, left));
            }
            let frame = self.world.sim.broadcast(self.world.mac(from));
            self.world.pass(ms(150));
            left.retain(|host| self.world.sim.arrivals(frame, *host) == 0);
        }
    }

    fn tables(&self) {
        let World { sim, model, .. } = &self.world;
        for host in model.running() {
            for (name, entries) in sim.tables(host) {
                let most = if name == "record_bytes" { RECORD_BYTES } else { ENTRIES } * model.hosts.len();
                if entries > most {
                    self.fail("a table has grown", &(host, name, entries));
                }
            }
        }
    }

    /// A step: one to three things happen one after the other, and are noticed.
    fn step(&mut self) {
        let (at, arrived, circled) = (self.world.sim.now(), self.world.sim.arrived(), self.circled());
        for _ in 0..=below(&mut self.world.rng, 3) {
            self.happen();
            let pause = ms(below(&mut self.world.rng, 2000) as u64);
            self.world.pass(pause);
        }
        self.hold(circled);
        let (hosts, time) = (self.world.model.hosts.len() as f64, self.world.sim.now().since(at).as_secs_f64());
        let rate = (self.world.sim.arrived() - arrived) as f64 / time.max(1.0) / hosts;
        self.busiest = self.busiest.max(rate);
        if rate > STORM {
            self.fail("so many datagrams arrive at each host in a second", &rate);
        }
        let circled = self.circled();
        let pause = ms(below(&mut self.world.rng, 4000) as u64);
        self.world.pass(pause);
        self.none_circled(circled);
    }

    /// All harm is undone: the mesh comes to rest in one piece, and everybody speaks with everybody.
    fn end(&mut self) {
        self.script.push("all harm is undone".into());
        let circled = self.circled();
        self.world.thaw();
        self.world.undo();
        self.hold(circled);
        let circled = self.circled();
        self.world.sim.run_for(seconds(60));
        self.none_circled(circled);
        self.hold(circled);
        let lost: Vec<_> = self.send(&self.world.model.pairs());
        self.world.sim.run_for(seconds(1));
        let lost = lost.iter().filter(|(_, to, frame)| self.world.sim.arrivals(*frame, *to) == 0).count();
        if lost > 0 {
            self.fail("frames are lost at rest", &lost);
        }
        self.none_circled(circled);
    }

    /// Plays it for so long.
    fn play(seed: u64, size: Size, duration: Duration) -> Sim {
        let mut chaos = Chaos::new(seed, size);
        chaos.hold(0);
        let end = chaos.world.sim.now() + duration;
        while chaos.world.sim.now() < end {
            chaos.step();
        }
        chaos.end();
        let (steps, (given_up, found, spoken), busiest) = (chaos.script.len(), chaos.slowest, chaos.busiest);
        println!(
            "seed {seed}: {steps} things happened; given up within {given_up:?}, found within {found:?}, spoken with within {spoken:?}"
        );
        println!("seed {seed}: at most {busiest:.0} batches of datagrams per host and second");
        chaos.world.sim
    }
}

/// The seeds that are asked for.
#[expect(clippy::disallowed_methods, reason = "a test asks which run it is to repeat")]
fn seeds(usual: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("WEAVE_SIM_SEED") else { return usual };
    let number = |text: &str| text.parse().expect("WEAVE_SIM_SEED is N or N..M");
    match text.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => number(&text)..number(&text) + 1,
    }
}

#[test]
fn whatever_happens_those_who_can_reach_each_other_do() {
    let (usual, time) = if full_size() { (800..824, seconds(600)) } else { (800..802, seconds(300)) };
    for seed in seeds(usual) {
        let size = Size { hosts: 4 + seed as usize % 6, extra: 2 + seed as usize % 5, limit: 0 };
        Chaos::play(seed, size, time);
    }
}

#[test]
fn the_same_holds_where_links_are_few() {
    let (usual, time) = if full_size() { (900..924, seconds(600)) } else { (900..901, seconds(120)) };
    for seed in seeds(usual) {
        let size = Size { hosts: 6 + seed as usize % 4, extra: 6, limit: 3 };
        Chaos::play(seed, size, time);
    }
}

#[test]
fn a_run_is_played_again_exactly() {
    let size = Size { hosts: 4, extra: 2, limit: 0 };
    let run = |seed| {
        let sim = Chaos::play(seed, size, seconds(20));
        (sim.trace(), sim.arrived())
    };
    assert_eq!(run(990), run(990));
    assert_ne!(run(990), run(991));
}
