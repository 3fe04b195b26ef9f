//! What befalls the mesh, and what is measured meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use weave_router::host::lab::clock::Stopwatch;
use weave_router::sim::large::{Large, Plan, Shape};
use weave_router::sim::{Quality, RouterId};

use crate::{Asked, memory};

/// Name and value of everything measured.
pub type Figures = BTreeMap<String, f64>;

/// What befalls the mesh, in this order; it is at rest after the first.
pub const EVENTS: [&str; 5] = ["cold start", "join", "loss of a tenth", "partition", "end of the partition"];
/// Nothing takes longer that works.
const PATIENCE: Duration = Duration::from_secs(120);

/// Seconds until it has come to rest, and those that are measured then: in so many every key is replaced once.
const REST: (u64, u64) = (40, 120);

struct Story<'a> {
    mesh: Large,
    figures: Figures,
    wall: &'a Stopwatch,
}

/// Plays it.
pub fn run(asked: &Asked, wall: &Stopwatch) -> Result<Figures, String> {
    let plan = Plan {
        routers: asked.routers,
        conn_limit: asked.limit,
        sites: asked.sites,
        quality: Quality::wide(),
        simulated_handshakes: !asked.true_handshakes,
        seed: asked.seed,
    };
    let mut story = Story { mesh: Large::new(plan), figures: Figures::new(), wall };
    story.during("cold start", |mesh| {
        mesh.start();
        agree(mesh)
    })?;
    story.rest(REST);
    story.join()?;
    if asked.until_join {
        return Ok(story.figures);
    }
    story.during("loss of a tenth", |mesh| {
        mesh.kill(0.1);
        agree(mesh)
    })?;
    story.mesh.sim.run_for(Duration::from_secs(10));
    story.partition()?;
    let shape = story.mesh.shape();
    story.shape("at the end", shape);
    Ok(story.figures)
}

impl Story<'_> {
    fn note(&mut self, name: &str, value: f64) {
        eprintln!("{:>6.1} s  {name}: {value:.0}", self.wall.elapsed().as_secs_f64());
        self.figures.insert(name.to_string(), value);
    }

    /// One event, until all agree.
    fn during(&mut self, name: &str, event: impl FnOnce(&mut Large) -> Option<Duration>) -> Result<(), String> {
        let (start, before) = (self.mesh.sim.now(), self.mesh.sent_bytes());
        let counts = self.counts();
        let agreed = event(&mut self.mesh);
        self.explain(&counts);
        if agreed.is_none() {
            let all = self.mesh.alive();
            let (roots, fewest, most) = self.mesh.sim.agreement(&all);
            let (shape, routers) = (self.mesh.shape(), all.len());
            return Err(format!("{name}: no agreement: {routers} routers, {roots} roots, {fewest} to {most} routes, {shape:?}"));
        }
        let seconds = self.mesh.sim.now().since(start).as_secs_f64().max(0.01);
        self.note(&format!("{name}, ms"), seconds * 1e3);
        let bytes = (self.mesh.sent_bytes() - before) as f64 / self.mesh.alive().len() as f64;
        self.note(&format!("{name}, B/s per router"), bytes / seconds);
        self.note(&format!("{name}, kB sent per router"), bytes / 1e3);
        Ok(())
    }

    /// Says what was done since, for whoever asks why something takes long or costs much.
    fn explain(&self, since: &[(&str, u64)]) {
        let routers = self.mesh.alive().len() as f64;
        let done = since.iter().zip(self.counts()).map(|((what, before), (_, now))| (what, now.saturating_sub(*before) as f64 / routers));
        let done: Vec<String> = done.filter(|(_, count)| *count > 0.0).map(|(what, count)| format!("{what} {count:.1}")).collect();
        eprintln!("         each router: {}; all together have taken {} MB", done.join(", "), memory::taken() >> 20);
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let names = [
            "record_accepted",
            "record_duplicate",
            "record_stale",
            "agreement_started",
            "agreement_differs",
            "handshakes_started",
            "handshakes_completed",
            "links_up",
            "links_down",
            "datagrams_in",
            "gossip_bytes_out",
        ];
        names.into_iter().map(|name| (name, self.mesh.sim.total(name))).collect()
    }

    fn rest(&mut self, (settle, seconds): (u64, u64)) {
        self.mesh.sim.run_for(Duration::from_secs(settle));
        let (before, counts) = (self.mesh.sent_bytes(), self.counts());
        self.mesh.sim.run_for(Duration::from_secs(seconds));
        self.explain(&counts);
        let bytes = (self.mesh.sent_bytes() - before) as f64 / self.mesh.alive().len() as f64;
        self.note("rest, B/s per router", bytes / seconds as f64);
        let shape = self.mesh.shape();
        self.shape("at rest", shape);
    }

    /// A newcomer, whose memory is told when it goes.
    fn join(&mut self) -> Result<(), String> {
        let mut newcomer = None;
        self.during("join", |mesh| {
            newcomer = mesh.join();
            agree(mesh)
        })?;
        self.mesh.sim.run_for(Duration::from_secs(30));
        if let Some(host) = newcomer {
            let before = memory::taken();
            self.mesh.crash(host);
            self.note("memory per router, kB", before.saturating_sub(memory::taken()) as f64 / 1e3);
        }
        agree(&mut self.mesh).map(|_| ()).ok_or_else(|| "no agreement after the newcomer has gone".to_string())
    }

    fn partition(&mut self) -> Result<(), String> {
        let all = self.mesh.alive();
        let half = |odd: bool| all.iter().enumerate().filter(|(index, _)| (index % 2 == 1) == odd).map(|(_, host)| *host).collect();
        let halves: [Vec<RouterId>; 2] = [half(false), half(true)];
        self.during("partition", |mesh| {
            mesh.sim.partition(&halves[1]);
            agree_among(mesh, &halves)
        })?;
        self.mesh.sim.run_for(Duration::from_secs(20));
        self.during("end of the partition", |mesh| {
            mesh.sim.heal();
            agree(mesh)
        })?;
        self.mesh.sim.run_for(Duration::from_secs(30));
        Ok(())
    }

    fn shape(&mut self, when: &str, shape: Shape) {
        self.note(&format!("fewest links of a router {when}"), shape.fewest as f64);
        self.note(&format!("most links of a router {when}"), shape.most as f64);
        self.note(&format!("diameter {when}, links"), if shape.connected { shape.diameter as f64 } else { f64::from(u16::MAX) });
        self.note(&format!("mean round trip of a link {when}, ms"), shape.round_trip.as_secs_f64() * 1e3);
    }
}

/// Lets time pass until all that run agree, and says now and then how far they are.
fn agree(mesh: &mut Large) -> Option<Duration> {
    let all = mesh.alive();
    agree_among(mesh, &[all])
}

fn agree_among(mesh: &mut Large, groups: &[Vec<RouterId>]) -> Option<Duration> {
    let start = mesh.sim.now();
    loop {
        if mesh.agree_among(groups, Duration::from_secs(1)).is_some() {
            return Some(mesh.sim.now().since(start));
        }
        let passed = mesh.sim.now().since(start);
        let standing = groups.iter().map(|group| {
            let (roots, fewest, most) = mesh.sim.agreement(group);
            format!("{} routers, {roots} roots, {fewest} to {most} routes", group.len())
        });
        let standing = standing.collect::<Vec<_>>().join("; ");
        let told = mesh.sim.total("record_accepted") / mesh.alive().len() as u64;
        eprintln!("         after {:.0} s: {standing}, {told} records accepted by each", passed.as_secs_f64());
        if passed >= PATIENCE {
            return None;
        }
    }
}
