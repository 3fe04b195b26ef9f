//! The simulation itself: routers, what happens to them, and its clock.

mod abreast;
mod ask;
mod attack;
mod joined;
mod networks;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use crate::mesh::command::{Command, Event, LocalMac, Target};
use crate::time::Time;
use crate::wire::header::BadHeader;
use crate::wire::{Address, Header, Kind, TAG_LEN, VnetHeader};

use self::abreast::Crew;
use super::ethernet::Seen;
use super::frames::Frames;
use super::node::{Effects, Host, Input, RouterOptions};
use super::queue::Queue;
use super::seen::Witness;
use super::shared::Common;
use super::underlay::{PORT, TCP_PORT, Underlay, WireId, chance};

/// A host and its router, by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouterId(pub(super) usize);

impl fmt::Debug for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h{}", self.0 + 1)
    }
}

/// How a simulation goes about what is left open.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Chance that a control datagram ends in a batch of data, so that the packet plane must hand it on.
    pub misplaced: f64,
    /// How long it takes to resolve a name, and to write an incarnation to disk.
    pub slowness: Duration,
    /// False to remember neither what routers say nor where each sent how much: a large mesh says a lot.
    pub memory: bool,
    /// On how many threads routers run abreast, in windows of time; with 0 all events happen one after the other. All other numbers have one outcome.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { misplaced: 0.02, slowness: Duration::from_millis(2), memory: true, threads: 0 }
    }
}

/// A datagram as somebody on the wire sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Who receives it.
    pub to: RouterId,
    /// Where it comes from.
    pub from: Address,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// Wakes of one router at one moment before its timers count as standing still.
const MOST_WAKES: u32 = 1000;

enum Happening {
    Arrival { to: RouterId, life: u32, from: Address, bytes: Vec<u8>, segment: usize, control: bool },
    Wake { router: RouterId },
    Command { router: RouterId, life: u32, command: Command },
    TooBig { router: RouterId, life: u32, address: Address },
    Joined { router: RouterId, vnet: VnetHeader, frame: Vec<u8> },
    Unreachable { router: RouterId, life: u32, address: Address },
}

/// A simulation. See the [module](super).
pub struct Sim {
    options: Options,
    now: Time,
    /// The end of the window in which routers run abreast; zero where none does.
    horizon: Time,
    queue: Queue<Happening>,
    hosts: Vec<Host>,
    underlay: Underlay,
    /// The chance of the networks.
    rng: ChaCha12Rng,
    /// Where routers get theirs from.
    seeds: ChaCha12Rng,
    frames: Frames,
    witness: Witness,
    expected: Vec<String>,
    /// Counters that are looked at by whoever runs this simulation.
    excused: Vec<String>,
    wakes: BTreeMap<RouterId, (Time, u32)>,
    /// Handshake datagrams by sender and address, also those that cannot arrive.
    handshakes: BTreeMap<(RouterId, Address), u64>,
    /// Bytes by sender and address.
    sent_to: BTreeMap<(RouterId, Address), usize>,
    /// Datagrams that reached the other end.
    arrived: u64,
    /// "Too big" answers to containers: to whom, and which MTU.
    too_big: Vec<(super::Mac, u16)>,
    /// Address resolution that came to bridges.
    arps: Vec<(RouterId, bool, [u8; 4])>,
    /// Somebody lies: bad datagrams are to be expected.
    hostile: bool,
    captured: Option<Vec<Captured>>,
    /// Bridges that are joined outside the mesh. From then on frames may arrive twice.
    joined: BTreeSet<(RouterId, RouterId)>,
    doubles: Option<u64>,
    common: Arc<Common>,
    /// Threads on which routers run abreast, once there are any.
    crew: Option<Crew>,
}

impl Sim {
    /// A simulation without routers. The same seed and the same calls give the same run.
    pub fn new(seed: u64, options: Options) -> Sim {
        Sim {
            options,
            // Not zero, which stands for "never" in places.
            now: Time(1_000_000_000),
            horizon: Time::ZERO,
            queue: Queue::default(),
            hosts: Vec::new(),
            underlay: Underlay::default(),
            rng: ChaCha12Rng::seed_from_u64(seed),
            seeds: ChaCha12Rng::seed_from_u64(seed ^ 0x5eed),
            frames: Frames::default(),
            witness: Witness::default(),
            expected: Vec::new(),
            excused: Vec::new(),
            wakes: BTreeMap::new(),
            handshakes: BTreeMap::new(),
            sent_to: BTreeMap::new(),
            arrived: 0,
            too_big: Vec::new(),
            arps: Vec::new(),
            hostile: false,
            captured: None,
            joined: BTreeSet::new(),
            doubles: None,
            common: Arc::default(),
            crew: None,
        }
    }

    /// Adds a host; its router does not run yet.
    pub fn router(&mut self, options: &RouterOptions) -> RouterId {
        let id = RouterId(self.hosts.len());
        let mut seed = [0; 32];
        self.seeds.fill_bytes(&mut seed);
        self.hosts.push(Host::new(options.clone(), &seed));
        id
    }

    /// A NAT before a host gives it another port: the old one leads nowhere, and the host's router is not told.
    pub fn rebind(&mut self, wire: WireId, router: RouterId) {
        self.underlay.rebind(wire, router);
    }

    /// Puts an old copy back of what a host whose router does not run had on disk.
    pub fn restore(&mut self, router: RouterId, incarnation: u64) {
        self.hosts[router.0].incarnation = incarnation;
    }

    /// The operator of `from` names host `to`, by its address in a network that both have, else by any it has.
    pub fn connect(&mut self, from: RouterId, to: RouterId) {
        self.connect_by(from, to, false);
    }

    /// The same by TCP, or not.
    pub fn connect_by(&mut self, from: RouterId, to: RouterId, tcp: bool) {
        let address = self.underlay.address_for(from, to).expect("a host that somebody connects to has an address");
        let target = Target { host: address.socket_addr().ip().to_string(), port: None, tcp };
        self.hosts[from.0].targets.push(target.clone());
        self.tell(from, Command::Connect(vec![target]));
    }

    /// Starts the routers that do not run, each a little later than the one before.
    pub fn start_all(&mut self) {
        for index in 0..self.hosts.len() {
            if self.hosts[index].running.is_none() {
                self.start(RouterId(index));
                self.run_for(Duration::from_micros(137));
            }
        }
    }

    /// Starts a router, for the first time or again, with the next incarnation.
    pub fn start(&mut self, router: RouterId) {
        let mut seed = [0; 32];
        self.seeds.fill_bytes(&mut seed);
        let key = self.seeds.next_u64();
        let addresses = self.underlay.addresses(router);
        let host = &mut self.hosts[router.0];
        assert!(host.running.is_none(), "{router:?} runs already");
        host.start(format!("{router:?}"), addresses, seed, key, &self.common);
        let (targets, macs) = (host.targets.clone(), host.containers.clone());
        self.feed(router, Input::Timeout);
        self.tell(router, Command::Connect(targets));
        let macs = macs.into_iter().map(|mac| LocalMac { vlan: 0, mac: mac.0, present: true, came_from: None });
        self.tell(router, Command::LocalMacs(macs.collect()));
    }

    /// Starts a router again with other options.
    pub fn start_with(&mut self, router: RouterId, options: &RouterOptions) {
        self.hosts[router.0].options = options.clone();
        self.start(router);
    }

    /// A router dies without a word.
    pub fn crash(&mut self, router: RouterId) {
        self.note_impossible(router);
        self.hosts[router.0].crash();
    }

    /// What a host has on disk is lost, but for its keys: an old copy was put in their place.
    pub fn lose_incarnation(&mut self, router: RouterId) {
        self.hosts[router.0].incarnation = 0;
    }

    /// A router says goodbye and ends.
    pub fn stop(&mut self, router: RouterId) {
        self.tell(router, Command::Leave);
        self.crash(router);
    }

    /// The management plane of a router asks its mesh plane for something.
    pub fn command(&mut self, router: RouterId, command: Command) {
        self.tell(router, command);
    }

    /// Warnings that contain this text are no problem from now on.
    pub fn expect_warning(&mut self, text: &str) {
        self.expected.push(text.to_string());
    }

    /// That this counter counts is no problem from now on: whoever runs the simulation knows how far it may.
    pub fn excuse(&mut self, counter: &str) {
        self.excused.push(counter.to_string());
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        if let Some(window) = self.window() {
            return self.run_abreast(end, window);
        }
        while let Some((at, happening)) = self.queue.pop(end) {
            self.now = at;
            self.happen(happening);
        }
        self.now = end;
    }

    /// Lets time pass until `done`, which is asked every 10 ms, and tells how long it took; `None` where that is longer
    /// than `patience`.
    pub fn run_until(&mut self, patience: Duration, mut done: impl FnMut(&Sim) -> bool) -> Option<Duration> {
        let start = self.now;
        while !done(self) {
            if self.now.since(start) >= patience {
                return None;
            }
            self.run_for(Duration::from_millis(10));
        }
        Some(self.now.since(start))
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(until) = self.thaws(&happening) {
            return self.put_off(until, happening);
        }
        match happening {
            Happening::Wake { router } => {
                if self.hosts[router.0].wake == Some(self.now) {
                    self.hosts[router.0].wake = None;
                    self.count_wake(router);
                    self.feed(router, Input::Timeout);
                }
            }
            Happening::Joined { router, vnet, frame } => self.arrive_by_cable(router, vnet, frame),
            other => {
                if let Some((router, input)) = self.input_of(other) {
                    self.feed(router, input);
                }
            }
        }
    }

    /// What a router that still lives is to be fed, where something comes to it.
    fn input_of(&mut self, happening: Happening) -> Option<(RouterId, Input)> {
        let (router, life, input) = match happening {
            Happening::Arrival { to, life, from, bytes, segment, control } => {
                if !self.lives(to, life) {
                    return None;
                }
                self.arrived += 1;
                let misplaced = self.options.misplaced;
                let control = control && !chance(&mut self.rng, misplaced);
                (to, life, Input::Datagrams { from, bytes, segment, control })
            }
            Happening::Command { router, life, command } => (router, life, Input::Command(command)),
            Happening::TooBig { router, life, address } => (router, life, Input::TooBig(address)),
            Happening::Unreachable { router, life, address } => (router, life, Input::Unreachable(address)),
            Happening::Wake { .. } | Happening::Joined { .. } => return None,
        };
        self.lives(router, life).then_some((router, input))
    }

    fn lives(&self, router: RouterId, life: u32) -> bool {
        let host = &self.hosts[router.0];
        host.life == life && host.running.is_some()
    }

    fn count_wake(&mut self, router: RouterId) {
        let wakes = self.wakes.entry(router).or_default();
        *wakes = if wakes.0 == self.now { (self.now, wakes.1 + 1) } else { (self.now, 1) };
        assert!(wakes.1 < MOST_WAKES, "a timer of {router:?} is due again and again at {:?}", self.now);
    }

    /// A command from the rest of the program; dropped where the router does not run.
    fn tell(&mut self, router: RouterId, command: Command) {
        self.feed(router, Input::Command(command));
    }

    fn feed(&mut self, router: RouterId, input: Input) {
        let now = self.now;
        let joined = self.joined.iter().any(|(a, b)| *a == router || *b == router);
        let host = &mut self.hosts[router.0];
        if let Some(running) = &mut host.running {
            running.join(joined);
        }
        let queued = host.wake;
        let Some(effects) = host.feed(now, input) else { return };
        if let Some(wake) = host.wake.filter(|_| host.wake != queued) {
            self.queue.push(wake, Happening::Wake { router });
        }
        self.carry_out(router, effects);
    }

    fn carry_out(&mut self, router: RouterId, effects: Effects) {
        for (to, bytes, segment) in effects.sends {
            self.send_run(router, to, &bytes, segment);
        }
        let life = self.hosts[router.0].life;
        let later = (self.now + self.options.slowness).max(self.horizon);
        for event in effects.events {
            if self.options.memory {
                self.witness.note(self.now, router, 3, format!("{event:?}").as_bytes());
            }
            match &event {
                Event::Resolve(target) => {
                    let command = Command::Resolved(target.clone(), resolve(target));
                    self.queue.push(later, Happening::Command { router, life, command });
                }
                Event::Persist(incarnation) => {
                    self.hosts[router.0].incarnation = *incarnation;
                    self.queue.push(later, Happening::Command { router, life, command: Command::Persisted(*incarnation) });
                }
                Event::Revoked { key, signature, .. } => {
                    let on_disk = &mut self.hosts[router.0].revoked;
                    on_disk.retain(|(other, _)| other != key);
                    on_disk.push((*key, signature.as_deref().copied()));
                }
                Event::Warning(text) if !self.expected.iter().any(|expected| text.contains(expected)) => {
                    self.witness.problem(self.now, router, format_args!("warns: {text}"));
                }
                Event::Warning(_) | Event::LinkUp { .. } | Event::LinkDown { .. } | Event::Refused { .. } | Event::MacAnnounced { .. } => {}
                Event::Fastdp(_) | Event::Beat { .. } | Event::App(_) | Event::Notice(_) | Event::ToBridge(_) | Event::Traced { .. } => {}
            }
            if self.options.memory {
                self.hosts[router.0].log.push((self.now, event));
            }
        }
        for seen in effects.seen {
            self.see(router, seen);
        }
        for frame in effects.copies {
            self.cross_cables(router, VnetHeader::default(), &frame);
        }
    }

    /// Sends a run of datagrams. Those that arrive together arrive as one batch, as with a kernel that merges them.
    fn send_run(&mut self, router: RouterId, to: Address, bytes: &[u8], segment: usize) {
        // Its end is the tag, which differs where anything of it does.
        let told = if self.options.memory { bytes } else { &bytes[bytes.len().saturating_sub(TAG_LEN)..] };
        self.witness.note(self.now, router, 1, told);
        if self.options.memory {
            *self.sent_to.entry((router, to)).or_default() += bytes.len();
        }
        let Ok(header) = Header::parse(bytes) else { return self.witness.problem(self.now, router, "sends garbage") };
        if matches!(header.kind, Kind::HandshakeDirect) && self.options.memory {
            *self.handshakes.entry((router, to)).or_default() += 1;
        }
        if header.kind.is_relayed() && header.hop_limit <= 1 {
            self.witness.problem(self.now, router, format_args!("passes on a {:?} datagram with its last hop", header.kind));
        }
        let Some(passage) = self.underlay.passage(self.now, router, to) else { return };
        if passage.refused {
            let life = self.hosts[router.0].life;
            return self.queue.push(self.now.max(self.horizon), Happening::Unreachable { router, life, address: to });
        }
        let overhead = to.underlay_overhead();
        if segment.min(bytes.len()) + overhead > passage.quality.mtu {
            // The mesh plane's own probes are meant to be too big now and then: only the packet plane's refusals are told.
            if !header.kind.is_control() {
                let life = self.hosts[router.0].life;
                self.queue.push(self.now.max(self.horizon), Happening::TooBig { router, life, address: to });
            }
            return;
        }
        self.hosts[router.0].sent += bytes.len() as u64;
        if !passage.up {
            return;
        }
        let life = self.hosts[passage.to.0].life;
        let delay = passage.quality.delay(&mut self.rng);
        let mut batches: Vec<(Duration, Vec<u8>)> = Vec::new();
        for datagram in bytes.chunks(segment.max(1)).filter(|datagram| datagram.len() + overhead <= passage.quality.hidden_mtu) {
            for after in passage.quality.copies(delay, &mut self.rng) {
                match batches.last_mut().filter(|(when, batch)| *when == after && batch.len() % segment == 0) {
                    Some((_, batch)) => batch.extend_from_slice(datagram),
                    None => batches.push((after, datagram.to_vec())),
                }
                if let Some((_, batch)) = batches.last_mut() {
                    let start = batch.len() - datagram.len();
                    passage.quality.corrupt(&mut batch[start..], &mut self.rng);
                }
                if let Some(captured) = &mut self.captured {
                    captured.push(Captured { to: passage.to, from: passage.from, bytes: datagram.to_vec() });
                }
            }
        }
        for (after, bytes) in batches {
            let segment = segment.min(bytes.len());
            // Looked at while it is at hand: when it arrives it has to be fetched from memory anew.
            let control = Header::parse(&bytes).map_or_else(|bad| bad != BadHeader::Kind, |header| header.kind.is_control());
            self.queue.push(self.now + after, Happening::Arrival { to: passage.to, life, from: passage.from, bytes, segment, control });
        }
    }

    /// A frame came out of a router onto its bridge.
    fn see(&mut self, router: RouterId, seen: Seen) {
        match seen {
            Seen::Piece { id, to, offset, len, good } => {
                self.witness.note(self.now, router, 2, &id.to_be_bytes());
                if !good {
                    self.witness.problem(self.now, router, format_args!("frame {id} was damaged"));
                }
                // What is flooded because nobody knows where its destination is comes to every bridge.
                if (to.is_group() || self.hosts[router.0].containers.contains(&to))
                    && let Err(what) = self.frames.arrived(self.now, id, router, offset, len)
                {
                    match &mut self.doubles {
                        Some(doubles) => *doubles += 1,
                        None => self.witness.problem(self.now, router, what),
                    }
                }
            }
            Seen::TooBig { to, mtu } => self.too_big.push((to, mtu)),
            Seen::Arp { answer, sender } => self.arps.push((router, answer, sender)),
            Seen::Probe | Seen::Membership => {}
            Seen::Other => self.witness.problem(self.now, router, "a frame that nobody sent"),
        }
    }

    /// All hosts whose routers run.
    fn running(&self) -> BTreeSet<RouterId> {
        (0..self.hosts.len()).filter(|index| self.hosts[*index].running.is_some()).map(RouterId).collect()
    }
}

/// Names are literal addresses here.
fn resolve(target: &Target) -> Result<Vec<Address>, String> {
    let ip = target.host.parse().map_err(|_| format!("the host '{}' is unknown", target.host))?;
    let addr = std::net::SocketAddr::new(ip, target.port.unwrap_or(PORT));
    Ok(vec![if target.tcp { Address::tcp(addr, TCP_PORT) } else { Address::udp(addr) }])
}
