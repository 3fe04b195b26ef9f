//! Many address books on one lossy network, with disks that survive crashes and a judge who knows which container has which address.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use weave_router::crypto::{Identity, SimulatedSignatures};
use weave_router::ipam::{Answer, Change, Config, Init, Ipam, Kind, Output, Request, Sorry, Table};
use weave_router::time::Time;
use weave_router::wire::PeerName;
use weave_router::wire::ipam::{Range, number};

const MS: u64 = 1_000_000;

/// What happens at a moment.
enum Event {
    Tell { to: usize, from: usize, body: Vec<u8> },
    Record { to: usize, from: usize, edition: u64, body: Arc<Vec<u8>> },
    Written { host: usize, life: u64, token: u64 },
    Peer { to: usize, peer: usize },
    Timer { host: usize },
    Start { host: usize },
    Survey { host: usize, life: u64 },
}

/// What a request was for.
#[derive(Clone, Debug)]
pub enum Op {
    Allocate(String),
    Claim(String, u128),
    Free,
    Remove,
    Reset,
}

/// A host: its router where it runs, and its disk.
pub struct Host {
    pub identity: Arc<Identity>,
    pub name: PeerName,
    pub ipam: Option<Ipam>,
    pub config: Config,
    disk: BTreeMap<(Table, String), Vec<u8>>,
    /// What is on its way to the disk.
    writing: Option<(u64, Vec<Change>)>,
    /// Counts starts.
    life: u64,
    /// What its clock is ahead of the world's.
    ahead: u64,
    group: u8,
    record: Option<(u64, Arc<Vec<u8>>)>,
    seen: BTreeMap<usize, u64>,
    view: BTreeSet<usize>,
    timer: Option<Time>,
    pub open: BTreeMap<u64, Op>,
    pub containers: BTreeMap<String, u128>,
    /// Containers that are gone but that the router may still know.
    pub ghosts: BTreeSet<String>,
}

/// The whole of it.
pub struct World {
    pub rng: ChaCha8Rng,
    pub now: Time,
    pub hosts: Vec<Host>,
    /// Which container has which address, on which host.
    pub truth: BTreeMap<u128, (usize, String)>,
    pub answers: BTreeMap<&'static str, u64>,
    pub reports: BTreeMap<String, u64>,
    /// Datagrams lost of 100.
    pub loss: u64,
    /// False where duplicates are what the story is about.
    pub strict: bool,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
    editions: u64,
    requests: u64,
    /// Answers by request, of those who ask for them.
    pub heard: BTreeMap<u64, Result<Answer, Sorry>>,
}

/// The range of a subnet.
pub fn range(subnet: &str) -> Range {
    let net: IpNet = subnet.parse().expect("a subnet");
    Range { first: number(net.network()), last: number(net.broadcast()) }
}

impl World {
    pub fn new(seed: u64) -> World {
        World {
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: Time(1000 * MS),
            hosts: Vec::new(),
            truth: BTreeMap::new(),
            answers: BTreeMap::new(),
            reports: BTreeMap::new(),
            loss: 5,
            strict: true,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            editions: 0,
            requests: 0,
            heard: BTreeMap::new(),
        }
    }

    /// Adds a host; its router starts at once.
    pub fn host(&mut self, subnet: &str, init: Init) -> usize {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(self.hosts.len() as u64).to_be_bytes());
        let identity = Arc::new(Identity::from_seed(&seed));
        let net = subnet.parse().expect("a subnet");
        let config = Config { network: "test".to_string(), ranges: vec![range(subnet)], subnets: vec![net], init, nickname: String::new() };
        let (host, name) = (self.hosts.len(), identity.name());
        let none = (None, None, None);
        self.hosts.push(Host {
            identity,
            name,
            ipam: none.0,
            config,
            disk: BTreeMap::new(),
            writing: none.1,
            life: 0,
            ahead: 0,
            group: 0,
            record: none.2,
            seen: BTreeMap::new(),
            view: BTreeSet::new(),
            timer: None,
            open: BTreeMap::new(),
            containers: BTreeMap::new(),
            ghosts: BTreeSet::new(),
        });
        self.start(host);
        host
    }

    pub fn chance(&mut self, below: u64) -> u64 {
        self.rng.next_u64() % below.max(1)
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let at = self.chance(of.len() as u64) as usize;
        of.get(at).cloned()
    }

    pub fn alive(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.hosts[*host].ipam.is_some()).collect()
    }

    fn push(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + after, self.sequence)));
        self.events.insert(self.sequence, event);
    }

    fn delay(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.chance(most - least))
    }

    /// Runs a router on a host with what is on its disk; every container that was answered must be there.
    pub fn start(&mut self, host: usize) {
        let seed = [self.chance(256) as u8; 32];
        let at = self.local(host);
        let h = &mut self.hosts[host];
        if h.ipam.is_some() {
            return;
        }
        let pairs = |table| h.disk.iter().filter(|((t, _), _)| *t == table).map(|((_, key), value)| (key.clone(), value.clone())).collect();
        let (ring, addresses) = (pairs(Table::Ring), pairs(Table::Addresses));
        let mut ipam = Ipam::new(h.config.clone(), h.identity.clone(), Arc::new(SimulatedSignatures), seed, at, ring, addresses);
        ipam.await_survey();
        for (ident, address) in &h.containers {
            assert!(
                h.disk.is_empty() || ipam.lookup(ident).iter().any(|net| number(net.addr()) == *address),
                "host {host} has lost the address of {ident} over a restart"
            );
        }
        h.life += 1;
        h.ipam = Some(ipam);
        (h.writing, h.timer) = (None, None);
        h.seen.clear();
        h.view.clear();
        h.open.clear();
        let (life, ghosts) = (h.life, h.ghosts.iter().cloned().collect::<Vec<String>>());
        let survey = self.delay(1, 60);
        self.push(survey, Event::Survey { host, life });
        self.drain(host);
        self.connectivity();
        for ghost in ghosts {
            self.request(host, Request::Free { ident: ghost, address: None }, Op::Free);
        }
    }

    pub fn start_later(&mut self, host: usize, after: Duration) {
        self.push(after, Event::Start { host });
    }

    /// `kill -9`: what was on its way to the disk got there, or not.
    pub fn crash(&mut self, host: usize) {
        let wrote = self.chance(2) == 0;
        let h = &mut self.hosts[host];
        h.ipam = None;
        if let Some((_, changes)) = h.writing.take().filter(|_| wrote) {
            write(&mut h.disk, changes);
        }
        for op in std::mem::take(&mut h.open).into_values() {
            if let Op::Allocate(ident) | Op::Claim(ident, _) = op
                && !h.containers.contains_key(&ident)
            {
                h.ghosts.insert(ident);
            }
        }
        self.connectivity();
    }

    /// The host is gone, with all that ran on it.
    pub fn bury(&mut self, host: usize) {
        self.crash(host);
        self.forget_containers(host);
    }

    fn forget_containers(&mut self, host: usize) {
        let gone = std::mem::take(&mut self.hosts[host].containers);
        for (ident, address) in gone {
            self.truth.remove(&address);
            self.hosts[host].ghosts.insert(ident);
        }
    }

    /// Nothing is left of its disk.
    pub fn wipe(&mut self, host: usize) {
        self.forget_containers(host);
        self.hosts[host].disk.clear();
        self.hosts[host].ghosts.clear();
        self.hosts[host].record = None;
    }

    /// Nothing is left of its disk, and what runs on it goes on running.
    pub fn lose_disk(&mut self, host: usize) {
        self.crash(host);
        self.hosts[host].disk.clear();
        self.hosts[host].ghosts.clear();
    }

    /// A container has an address that its router knows nothing of.
    pub fn found(&mut self, host: usize, ident: &str, address: u128) {
        self.hosts[host].containers.insert(ident.to_string(), address);
        self.truth.entry(address).or_insert((host, ident.to_string()));
    }

    /// Splits the network: who is in which part.
    pub fn partition(&mut self, group: impl Fn(usize) -> u8) {
        for host in 0..self.hosts.len() {
            self.hosts[host].group = group(host);
        }
        self.connectivity();
    }

    pub fn jump(&mut self, host: usize, by: Duration) {
        self.hosts[host].ahead += by.as_nanos() as u64;
        self.hosts[host].timer = None;
        self.touch(host, |_, _| ());
    }

    fn connected(&self, a: usize, b: usize) -> bool {
        a != b && self.hosts[a].ipam.is_some() && self.hosts[b].ipam.is_some() && self.hosts[a].group == self.hosts[b].group
    }

    fn connectivity(&mut self) {
        for to in 0..self.hosts.len() {
            for peer in 0..self.hosts.len() {
                if self.hosts[to].ipam.is_some() && to != peer && self.connected(to, peer) != self.hosts[to].view.contains(&peer) {
                    let delay = self.delay(100, 900);
                    self.push(delay, Event::Peer { to, peer });
                }
            }
        }
    }

    fn local(&self, host: usize) -> Time {
        Time(self.now.0 + self.hosts[host].ahead)
    }

    /// Does something with a running router, and what comes of it.
    fn touch(&mut self, host: usize, what: impl FnOnce(&mut Ipam, Time)) {
        let at = self.local(host);
        if let Some(ipam) = &mut self.hosts[host].ipam {
            what(ipam, at);
            self.drain(host);
        }
    }

    pub fn request(&mut self, host: usize, request: Request, op: Op) -> u64 {
        self.requests += 1;
        let number = self.requests;
        if self.hosts[host].ipam.is_some() {
            self.hosts[host].open.insert(number, op);
            self.touch(host, |ipam, at| ipam.request(at, number, request));
        }
        number
    }

    /// A router says something that its address book knows nothing of.
    pub fn say(&mut self, from: usize, to: usize, body: Vec<u8>) {
        let delay = self.delay(1, 2000);
        self.push(delay, Event::Tell { to, from, body });
    }

    fn drain(&mut self, host: usize) {
        while let Some(output) = self.hosts[host].ipam.as_mut().and_then(Ipam::poll) {
            match output {
                Output::Persist { token, changes } => {
                    let (delay, life) = (self.delay(1, 8), self.hosts[host].life);
                    self.hosts[host].writing = Some((token, changes));
                    self.push(delay, Event::Written { host, life, token });
                }
                Output::Tell { to, body } => {
                    assert!(body.len() <= 1100, "a message of {} bytes", body.len());
                    let Some(to) = (0..self.hosts.len()).find(|other| self.hosts[*other].name == to) else { continue };
                    if self.connected(host, to) && self.chance(100) >= self.loss {
                        let delay = self.delay(1, 60);
                        if self.chance(50) == 0 {
                            self.push(delay * 3, Event::Tell { to, from: host, body: body.clone() });
                        }
                        self.push(delay, Event::Tell { to, from: host, body });
                    }
                }
                Output::Publish(body) => {
                    assert!(body.len() <= 1033, "a record of {} bytes", body.len());
                    self.editions += 1;
                    self.hosts[host].record = Some((self.editions, Arc::new(body)));
                    for to in 0..self.hosts.len() {
                        if self.connected(host, to) {
                            self.send_record(host, to);
                        }
                    }
                }
                Output::Answer { request, result } => self.answered(host, request, result),
                Output::Report(text) => {
                    assert!(text.len() > 20);
                    *self.reports.entry(text).or_default() += 1;
                }
            }
        }
        self.wind(host);
    }

    fn wind(&mut self, host: usize) {
        let h = &self.hosts[host];
        let Some(next) = h.ipam.as_ref().map(Ipam::next_timeout) else { return };
        let next = Time(next.0.saturating_sub(h.ahead).max(self.now.0 + MS));
        if h.timer.is_none_or(|timer| next < timer) {
            self.hosts[host].timer = Some(next);
            self.push(next - self.now, Event::Timer { host });
        }
    }

    fn send_record(&mut self, from: usize, to: usize) {
        if let Some((edition, body)) = self.hosts[from].record.clone() {
            let delay = self.delay(10, 300);
            self.push(delay, Event::Record { to, from, edition, body });
        }
    }

    fn answered(&mut self, host: usize, request: u64, result: Result<Answer, Sorry>) {
        let Some(op) = self.hosts[host].open.remove(&request) else { return };
        let what = match (&op, &result) {
            (Op::Allocate(_) | Op::Claim(..), Ok(_)) => "given",
            (_, Ok(_)) => "done",
            (_, Err(Sorry { kind: Kind::Bad, .. })) => "bad",
            (_, Err(Sorry { kind: Kind::Conflict, .. })) => "conflict",
            (_, Err(Sorry { kind: Kind::Unavailable | Kind::Disk, .. })) => "unavailable",
        };
        *self.answers.entry(what).or_default() += 1;
        match (&op, &result) {
            (Op::Allocate(ident), Ok(Answer::Address(net))) => self.given(host, ident, number(net.addr())),
            (Op::Claim(ident, address), Ok(Answer::Done)) => self.given(host, ident, *address),
            (Op::Allocate(ident) | Op::Claim(ident, _), _) if !self.hosts[host].containers.contains_key(ident) => {
                // It may be known to the router all the same: given, but too late.
                let ident = ident.clone();
                self.hosts[host].ghosts.insert(ident.clone());
                self.request(host, Request::Free { ident, address: None }, Op::Free);
            }
            _ => {}
        }
        self.heard.insert(request, result);
    }

    /// A container ends.
    pub fn free(&mut self, host: usize, ident: &str) {
        if let Some(address) = self.hosts[host].containers.remove(ident) {
            self.truth.remove(&address);
            self.hosts[host].ghosts.insert(ident.to_string());
            // Whoever ends a container does not listen to what it asked for before.
            self.hosts[host].open.retain(|_, op| !matches!(op, Op::Allocate(of) if of == ident));
            self.request(host, Request::Free { ident: ident.to_string(), address: None }, Op::Free);
        }
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, sequence))) = self.queue.peek().copied().filter(|Reverse((at, _))| *at <= end) {
            self.queue.pop();
            self.now = self.now.max(at);
            if let Some(event) = self.events.remove(&sequence) {
                self.happen(event);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tell { to, from, body } if self.connected(from, to) => {
                let name = self.hosts[from].name;
                self.touch(to, |ipam, at| ipam.told(at, name, &body));
            }
            Event::Record { to, from, edition, body } if self.connected(from, to) => {
                if self.hosts[to].seen.get(&from).is_none_or(|seen| *seen < edition) {
                    self.hosts[to].seen.insert(from, edition);
                    let name = self.hosts[from].name;
                    self.touch(to, |ipam, at| ipam.record(at, name, 0, Some(&body)));
                }
            }
            Event::Tell { .. } | Event::Record { .. } => {}
            Event::Written { host, life, token } => {
                let h = &mut self.hosts[host];
                if h.life == life
                    && h.ipam.is_some()
                    && let Some((_, changes)) = h.writing.take()
                {
                    write(&mut h.disk, changes);
                    self.touch(host, |ipam, at| ipam.persisted(at, token, true));
                }
            }
            Event::Peer { to, peer } => {
                let up = self.connected(to, peer);
                if self.hosts[to].ipam.is_some() && up != self.hosts[to].view.contains(&peer) {
                    let name = self.hosts[peer].name;
                    if up {
                        self.hosts[to].view.insert(peer)
                    } else {
                        self.hosts[to].view.remove(&peer)
                    };
                    self.touch(to, |ipam, at| ipam.peer(at, name, &format!("host{peer}"), up));
                    if up {
                        self.send_record(peer, to);
                    }
                }
            }
            Event::Timer { host } => {
                if self.hosts[host].timer.is_some_and(|timer| timer <= self.now) {
                    self.hosts[host].timer = None;
                    self.touch(host, |ipam, at| ipam.timeout(at));
                }
            }
            Event::Start { host } => self.start(host),
            Event::Survey { host, life } => {
                let h = &self.hosts[host];
                if h.life == life && h.ipam.is_some() {
                    let prefix = h.config.subnets[0].prefix_len();
                    let net = |address: u128| IpNet::new(weave_router::wire::ipam::address(address), prefix).expect("an address");
                    let held = h.containers.iter().map(|(ident, address)| (ident.clone(), net(*address))).collect();
                    self.request(host, Request::Reserve { held, host: Vec::new() }, Op::Free);
                }
            }
        }
    }
}

fn write(disk: &mut BTreeMap<(Table, String), Vec<u8>>, changes: Vec<Change>) {
    for Change { table, key, value } in changes {
        match value {
            Some(value) => disk.insert((table, key), value),
            None => disk.remove(&(table, key)),
        };
    }
}
