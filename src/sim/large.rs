//! A large mesh and what befalls it: what `cargo bench --bench mesh` measures and the simulation tests hold to its promises.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZero;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use super::node::RouterOptions;
use super::underlay::Quality;
use super::world::{Options, RouterId, Sim};
use crate::wire::PeerName;

/// How often it is looked whether all agree.
const LOOK: Duration = Duration::from_millis(20);

/// What a large mesh is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many routers start.
    pub routers: usize,
    /// Most links of each.
    pub conn_limit: usize,
    /// Networks on the underlay. With one, all reach all; with more, each host is in one and every fourth in the next as well.
    pub sites: usize,
    /// What the networks do to datagrams.
    pub quality: Quality,
    /// True to spare the routers the arithmetic of handshakes: nothing else is changed by that, not even the random numbers.
    pub simulated_handshakes: bool,
    /// Decides everything else.
    pub seed: u64,
}

/// How the links of a mesh lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Fewest links of a router.
    pub fewest: usize,
    /// Most links of a router.
    pub most: usize,
    /// True where links lead from each router to each other.
    pub connected: bool,
    /// Most links on the way from one to another that is shortest by their number; of a few routers to all.
    pub diameter: usize,
    /// Mean round trip of a link.
    pub round_trip: Duration,
}

/// A large mesh.
pub struct Large {
    /// The simulation.
    pub sim: Sim,
    /// The hosts, whether their routers run or not.
    pub hosts: Vec<RouterId>,
    plan: Plan,
    alive: BTreeSet<RouterId>,
    rng: ChaCha12Rng,
    options: RouterOptions,
    /// Hosts that wait to be started by [`Large::join`].
    spare: Vec<RouterId>,
}

impl Large {
    /// Hosts and networks; nothing runs yet. One more host than routers waits for [`Large::join`], whose router holds everything it knows for
    /// itself, so that its memory can be told.
    pub fn new(plan: Plan) -> Large {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut sim = Sim::new(plan.seed, Options { memory: false, threads, ..Options::default() });
        let options = RouterOptions {
            conn_limit: plan.conn_limit,
            packet_plane: false,
            simulated_handshakes: plan.simulated_handshakes,
            ..RouterOptions::default()
        };
        let mut hosts: Vec<RouterId> = (0..plan.routers).map(|_| sim.router(&options)).collect();
        hosts.push(sim.router(&RouterOptions { in_common: false, ..options.clone() }));
        let sites = plan.sites.max(1);
        for site in 0..sites {
            let is_in = |index: usize| index % sites == site || ((index / sites).is_multiple_of(4) && (index + 1) % sites == site);
            let members: Vec<RouterId> = hosts.iter().enumerate().filter(|(index, _)| is_in(*index)).map(|(_, host)| *host).collect();
            sim.lan(&members, plan.quality);
        }
        let rng = ChaCha12Rng::seed_from_u64(plan.seed);
        let mut large = Large { sim, hosts, plan, alive: BTreeSet::new(), rng, options, spare: Vec::new() };
        for index in 1..large.hosts.len() {
            large.tell(index);
        }
        large.spare.extend(large.hosts.pop());
        large
    }

    /// Each host is told one or two others that it reaches, of those before it.
    fn tell(&mut self, index: usize) {
        let sites = self.plan.sites.max(1);
        for _ in 0..1 + self.rng.next_u32() % 2 {
            // The first of each network is told the one before, which is in that network too.
            let other = if index < sites { index - 1 } else { self.rng.next_u32() as usize % (index / sites) * sites + index % sites };
            let (from, to) = (self.hosts[index], self.hosts[other]);
            self.sim.connect(from, to);
        }
    }

    /// Starts all routers, within a second.
    pub fn start(&mut self) {
        let pause = Duration::from_secs(1) / u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        for host in self.hosts.clone() {
            self.sim.start(host);
            self.alive.insert(host);
            self.sim.run_for(pause);
        }
    }

    /// Starts the host that waits.
    pub fn join(&mut self) -> Option<RouterId> {
        let host = self.spare.pop()?;
        self.sim.start(host);
        self.hosts.push(host);
        self.alive.insert(host);
        Some(host)
    }

    /// Kills this share of the routers without a word, drawn by lot.
    pub fn kill(&mut self, share: f64) -> Vec<RouterId> {
        let count = (self.alive.len() as f64 * share) as usize;
        let mut killed = Vec::new();
        for _ in 0..count {
            let lot = self.rng.next_u32() as usize % self.alive.len();
            let Some(host) = self.alive.iter().nth(lot).copied() else { break };
            self.crash(host);
            killed.push(host);
        }
        killed
    }

    /// Kills one router.
    pub fn crash(&mut self, host: RouterId) {
        self.sim.crash(host);
        self.alive.remove(&host);
    }

    /// Starts a router again.
    pub fn restart(&mut self, host: RouterId) {
        self.sim.start_with(host, &self.options);
        self.alive.insert(host);
    }

    /// Routers that run.
    pub fn alive(&self) -> Vec<RouterId> {
        self.alive.iter().copied().collect()
    }

    /// Lets time pass until these routers agree: the same records, and a route from each to each other and to nobody else. Tells how long
    /// that took; `None` where it is longer than `patience`.
    pub fn agree_among(&mut self, groups: &[Vec<RouterId>], patience: Duration) -> Option<Duration> {
        let start = self.sim.now();
        loop {
            let agreed = |sim: &mut Sim| groups.iter().all(|group| sim.agreement(group) == (1, group.len() - 1, group.len() - 1));
            if agreed(&mut self.sim) {
                return Some(self.sim.now().since(start));
            }
            if self.sim.now().since(start) >= patience {
                return None;
            }
            self.sim.run_for(LOOK);
        }
    }

    /// The same for all that run.
    pub fn agree(&mut self, patience: Duration) -> Option<Duration> {
        let all = self.alive();
        self.agree_among(&[all], patience)
    }

    /// Bytes of UDP payload that left all hosts so far.
    pub fn sent_bytes(&self) -> u64 {
        self.hosts.iter().map(|host| self.sim.sent_bytes(*host)).sum()
    }

    /// How the links lie that both ends have.
    pub fn shape(&self) -> Shape {
        let names: BTreeMap<PeerName, usize> = self.alive.iter().enumerate().map(|(index, host)| (self.sim.name(*host), index)).collect();
        let all: Vec<BTreeMap<PeerName, Option<Duration>>> = self.alive.iter().map(|host| self.sim.mesh_links(*host)).collect();
        let rows: Vec<Vec<usize>> = all.iter().map(|links| links.keys().filter_map(|name| names.get(name).copied()).collect()).collect();
        let links: Vec<Vec<usize>> =
            (0..rows.len()).map(|at| rows[at].iter().copied().filter(|to| rows[*to].contains(&at)).collect()).collect();
        let trips: Vec<Duration> = all.iter().flat_map(|links| links.values().flatten().copied()).collect();
        let farthest: Vec<Option<usize>> =
            (0..links.len()).step_by(links.len().div_ceil(16).max(1)).map(|from| depth(&links, from)).collect();
        Shape {
            fewest: links.iter().map(Vec::len).min().unwrap_or(0),
            most: links.iter().map(Vec::len).max().unwrap_or(0),
            connected: farthest.iter().all(Option::is_some),
            diameter: farthest.into_iter().flatten().max().unwrap_or(0),
            round_trip: trips.iter().sum::<Duration>() / u32::try_from(trips.len().max(1)).unwrap_or(u32::MAX),
        }
    }
}

/// Most links on the way from one router to any other; `None` where no way leads to some.
fn depth(links: &[Vec<usize>], from: usize) -> Option<usize> {
    let mut depths = vec![None; links.len()];
    depths[from] = Some(0);
    let mut queue = VecDeque::from([from]);
    while let Some(at) = queue.pop_front() {
        for next in &links[at] {
            if depths[*next].is_none() {
                depths[*next] = depths[at].map(|depth: usize| depth + 1);
                queue.push_back(*next);
            }
        }
    }
    depths.into_iter().try_fold(0, |most, depth| depth.map(|depth| most.max(depth)))
}
