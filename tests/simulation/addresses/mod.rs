//! Addresses: fifty address books under random operations, and never one address on two containers.

mod bad_member;
mod changes;
mod judge;
mod removals;
mod stories;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weave_router::ipam::{Init, Ipam, Request};
use weave_router::wire::ipam::{Body, address};
use world::{Op, World};

/// What a run counts.
struct Run {
    world: World,
    names: u64,
    most: usize,
    /// Hosts that are dead and being removed, with the requests of those who remove them.
    dying: Vec<(usize, Vec<u64>)>,
    /// How often all routers were reset.
    anew: usize,
}

/// Entries of a ring at which all routers are reset: a million operations make some thirty thousand, more than twice as many as a ring holds.
const MOST_ENTRIES: usize = 3000;

impl Run {
    fn new(seed: u64, hosts: u16, subnet: &str, most: usize) -> Run {
        let mut world = World::new(seed);
        for _ in 0..hosts {
            world.host(subnet, Init::Consensus(hosts));
        }
        Run { world, names: 0, most, dying: Vec::new(), anew: 0 }
    }

    /// What the log asks for when the ring is nearly full: all routers are reset, and found it anew. Here it is done earlier.
    fn found_anew(&mut self) {
        self.anew += 1;
        self.dying.clear();
        self.world.partition(|_| 0);
        let hosts = 0..self.world.hosts.len();
        for host in hosts.clone() {
            self.world.crash(host);
            self.world.wipe(host);
        }
        // Nothing of the former mesh is on its way any more.
        self.world.run(Duration::from_secs(2));
        hosts.for_each(|host| self.world.start(host));
    }

    /// One random operation.
    fn step(&mut self) {
        let pause = self.world.chance(20);
        self.world.run(Duration::from_millis(pause));
        let alive = self.world.alive();
        let Some(host) = self.world.pick(&alive) else { return };
        if self.world.hosts[host].ipam.as_ref().and_then(Ipam::ring).is_some_and(|ring| ring.len() >= MOST_ENTRIES) {
            self.found_anew();
        }
        match self.world.chance(10_000) {
            0..4700 => self.allocate(host),
            4700..9000 => self.free(host),
            9000..9400 => self.ask_again(host),
            9400..9600 => self.claim(host),
            9600..9800 => {
                if self.dying.is_empty() {
                    let by = self.world.chance(60);
                    self.world.jump(host, Duration::from_secs(by));
                }
            }
            9800..9880 => {
                let after = Duration::from_millis(200 + self.world.chance(15_000));
                self.world.crash(host);
                self.world.start_later(host, after);
            }
            9880..9890 => {
                let (parts, salt) = (1 + self.world.chance(3), self.world.chance(1000));
                self.world.partition(|host| ((host as u64 * 7919 + salt) % 97 % parts) as u8);
            }
            9890..9900 => self.world.partition(|_| 0),
            9900..9905 => self.kill(host),
            9905..9907 => self.reset(host),
            _ => self.bury_or_raise(),
        }
    }

    fn allocate(&mut self, host: usize) {
        if self.world.hosts[host].containers.len() < self.most {
            self.names += 1;
            let ident = format!("c{}", self.names);
            self.world.request(host, Request::Allocate { ident: ident.clone(), subnet: None }, Op::Allocate(ident));
        }
    }

    fn free(&mut self, host: usize) {
        let idents: Vec<String> = self.world.hosts[host].containers.keys().cloned().collect();
        if let Some(ident) = self.world.pick(&idents) {
            self.world.free(host, &ident);
        }
    }

    fn ask_again(&mut self, host: usize) {
        let idents: Vec<String> = self.world.hosts[host].containers.keys().cloned().collect();
        if let Some(ident) = self.world.pick(&idents) {
            self.world.request(host, Request::Allocate { ident: ident.clone(), subnet: None }, Op::Allocate(ident));
        }
    }

    fn claim(&mut self, host: usize) {
        let range = self.world.hosts[host].config.ranges[0];
        let wanted = range.first + 1 + u128::from(self.world.chance((range.size() - 2) as u64));
        let prefix = self.world.hosts[host].config.subnets[0].prefix_len();
        self.names += 1;
        let ident = format!("c{}", self.names);
        let net = ipnet::IpNet::new(address(wanted), prefix).expect("an address");
        self.world.request(host, Request::Claim { ident: ident.clone(), address: net }, Op::Claim(ident, wanted));
    }

    /// A host dies for good, and one or two others are told so.
    fn kill(&mut self, host: usize) {
        if self.dying.len() > 2 || self.dying.iter().any(|(dead, _)| *dead == host) {
            return;
        }
        self.world.partition(|_| 0);
        self.world.bury(host);
        self.dying.push((host, Vec::new()));
    }

    fn bury_or_raise(&mut self) {
        let Some(at) = (!self.dying.is_empty()).then(|| self.world.chance(self.dying.len() as u64) as usize) else { return };
        let (dead, requests) = self.dying[at].clone();
        if requests.is_empty() {
            let alive = self.world.alive();
            let name = self.world.hosts[dead].name;
            let asked: Vec<usize> = (0..1 + self.world.chance(2)).filter_map(|_| self.world.pick(&alive)).collect();
            self.dying[at].1 =
                asked.into_iter().map(|host| self.world.request(host, Request::Remove { dead: name, force: false }, Op::Remove)).collect();
        } else if self.world.chance(20) == 0 {
            // It comes back with its old disk, into a network that is whole.
            self.world.partition(|_| 0);
            self.dying.remove(at);
            self.world.start(dead);
        }
    }

    fn reset(&mut self, host: usize) {
        if !self.world.hosts[host].open.is_empty() {
            return;
        }
        let idents: Vec<String> = self.world.hosts[host].containers.keys().cloned().collect();
        idents.iter().for_each(|ident| self.world.free(host, ident));
        let request = self.world.request(host, Request::Reset { force: false }, Op::Reset);
        self.world.run(Duration::from_secs(7));
        if self.world.heard.get(&request).is_some_and(Result::is_ok) {
            self.world.crash(host);
            self.world.wipe(host);
            self.world.start_later(host, Duration::from_secs(1));
        }
    }

    /// Everybody comes back, and everybody agrees.
    fn settle(&mut self) {
        self.world.partition(|_| 0);
        for host in 0..self.world.hosts.len() {
            self.world.start(host);
        }
        self.world.run(Duration::from_secs(90));
        let status: Vec<_> = self.world.hosts.iter().map(|host| host.ipam.as_ref().expect("it runs").status()).collect();
        let meshes: BTreeSet<(&str, usize)> = status.iter().map(|status| (status.mesh.as_str(), status.entries)).collect();
        assert_eq!(meshes.len(), 1, "the rings differ: {meshes:?}");
        for (host, status) in self.world.hosts.iter().zip(&status) {
            assert!(status.problems.is_empty(), "{:?}", status.problems);
            let owned: u128 = status.owners.iter().map(|owner| owner.owned).sum();
            assert_eq!(owned, status.total);
            let ipam = host.ipam.as_ref().expect("it runs");
            for (ident, number) in &host.containers {
                assert!(ipam.lookup(ident).iter().any(|net| net.addr() == address(*number)), "{ident} has lost {}", address(*number));
            }
        }
    }
}

fn operations(seed: u64, hosts: u16, subnet: &str, most: usize, count: u64) -> Run {
    let mut run = Run::new(seed, hosts, subnet, most);
    for _ in 0..count {
        run.step();
    }
    run.settle();
    let ring = run.world.hosts[0].ipam.as_ref().and_then(Ipam::ring).expect("a ring");
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in ring.iter() {
        *kinds.entry(kind(&entry.body)).or_default() += 1;
    }
    let (runs, owners): (Vec<_>, Vec<_>) = ring.leaves().iter().map(|(range, leaf)| (range, leaf.owner.name())).unzip();
    let joined = owners.chunk_by(|one, other| one == other).count();
    eprintln!(
        "{count} operations: {:?}, founded anew {} times, at the end {kinds:?}, {} runs of addresses, {joined} where neighbours of one owner count as one",
        run.world.answers,
        run.anew,
        runs.len()
    );
    run
}

fn kind(body: &Body) -> &'static str {
    match body {
        Body::Genesis { .. } => "genesis",
        Body::Grant { .. } => "grants",
        Body::Vote { .. } => "votes",
        Body::Tally { .. } => "tallies",
        Body::Removal { .. } => "removals",
        Body::Taken { .. } => "taken",
        Body::Done { .. } => "done",
    }
}

#[test]
fn fifty_routers_never_give_one_address_twice() {
    let count = if super::full_size() { 1_000_000 } else { 30_000 };
    let run = operations(1, 50, "10.32.0.0/20", 40, count);
    assert!(run.world.answers["given"] > count / 4, "{:?}", run.world.answers);
}

#[test]
fn fifty_routers_share_what_is_scarce() {
    let run = operations(2, 50, "10.32.0.0/22", 30, 20_000);
    assert!(run.world.answers["given"] > 5000, "{:?}", run.world.answers);
}
