//! One host: what survives a crash of its router, and the router while it runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::crypto::{Identity, Providers, Psk, Psks, PublicKey, SimulatedSignatures, Suite, SuiteTiming};
use crate::forward::forwarder::DEFAULT_RELAY_BUDGET;
use crate::forward::{Duplicates, Forwarder, MacTable, Outbox as PacketOutbox, PacketCounters, Settings, Shared};
use crate::mesh::command::{Command, Event, Target};
use crate::mesh::{self, Mesh, MeshConfig};
use crate::time::Time;
use crate::wire::{Address, VnetHeader};

use super::bridge::Bridge;
use super::ethernet::{Mac, Seen};
use super::underlay::PORT;

/// Entries of a MAC table: two thousand containers in a mesh are plenty here.
const MACS: usize = 2048;
/// Streams of floods remembered: several times the routers of the largest simulation, since buckets fill unevenly.
const STREAMS: usize = 1024;

/// What a router is told at its start.
#[derive(Clone, Debug)]
pub struct RouterOptions {
    /// Its passwords, newest first, by number; none for a mesh without.
    pub passwords: Vec<u8>,
    /// True to dial peers learned from others.
    pub discovery: bool,
    /// Most links; 0 for no limit.
    pub conn_limit: usize,
    /// True to send data unsealed where both ends say so.
    pub no_encryption: bool,
    /// Keys that may join; empty where any may.
    pub allow: Vec<PublicKey>,
    /// Name of its network.
    pub network: String,
}

impl Default for RouterOptions {
    fn default() -> RouterOptions {
        RouterOptions {
            passwords: vec![1],
            discovery: true,
            conn_limit: 0,
            no_encryption: false,
            allow: Vec::new(),
            network: "weave".into(),
        }
    }
}

impl RouterOptions {
    fn psks(&self) -> Psks {
        let mut keys = self.passwords.iter().map(|number| Psk::from_key([*number; 32]));
        let Some(newest) = keys.next() else { return Psks::none(&self.network) };
        Psks::new(newest, keys.collect()).expect("a simulation gives no more passwords than may be in use at once")
    }
}

/// A host, whether its router runs or not.
pub struct Host {
    pub options: RouterOptions,
    pub identity: Arc<Identity>,
    /// What is on disk.
    pub incarnation: u64,
    /// Counts starts, so that what was on its way to an earlier router is not given to a later one.
    pub life: u32,
    /// The hosts that the operator has named.
    pub targets: Vec<Target>,
    /// The containers on its bridge.
    pub containers: BTreeSet<Mac>,
    pub running: Option<Router>,
    /// When its timers are due next.
    pub wake: Option<Time>,
    /// Everything that its routers said.
    pub log: Vec<(Time, Event)>,
}

/// A running router.
pub struct Router {
    pub mesh: Mesh,
    pub forwarder: Forwarder,
    pub counters: Arc<PacketCounters>,
    pub macs: Arc<MacTable>,
    outbox: PacketOutbox,
    bridge: Bridge,
}

/// What can happen to a router.
pub enum Input {
    Command(Command),
    /// A batch of equal datagrams, the last perhaps shorter, as the kernel hands it to the plane that it steers it to.
    Datagrams {
        from: Address,
        bytes: Vec<u8>,
        segment: usize,
        control: bool,
    },
    Frame(VnetHeader, Vec<u8>),
    TooBig(Address),
    Timeout,
}

/// What it does about it.
#[derive(Default)]
pub struct Effects {
    /// Runs of datagrams: where to, all bytes, the size of all but perhaps the last.
    pub sends: Vec<(Address, Vec<u8>, usize)>,
    pub events: Vec<Event>,
    pub seen: Vec<Seen>,
}

impl Host {
    /// A host whose router never ran.
    pub fn new(options: RouterOptions, seed: &[u8; 32]) -> Host {
        Host {
            options,
            identity: Arc::new(Identity::from_seed(seed)),
            incarnation: 0,
            life: 0,
            targets: Vec::new(),
            containers: BTreeSet::new(),
            running: None,
            wake: None,
            log: Vec::new(),
        }
    }

    /// Starts the router with this randomness.
    pub fn start(&mut self, nickname: String, addresses: Vec<Address>, seed: [u8; 32], key: u64) {
        self.incarnation += 1;
        self.life += 1;
        self.wake = None;
        let suite = Suite::available().first().copied().expect("every build has a suite");
        let config = MeshConfig {
            identity: Arc::clone(&self.identity),
            network: self.options.network.clone(),
            nickname,
            version: "0.0.0-simulated".into(),
            psks: self.options.psks(),
            providers: Providers::default(),
            suites: vec![SuiteTiming { suite, nanoseconds: 200 }],
            allow: self.options.allow.clone(),
            open: false,
            discovery: self.options.discovery,
            conn_limit: self.options.conn_limit,
            port: PORT,
            incarnation: self.incarnation,
            lanes: 1,
            no_encryption: self.options.no_encryption,
            addresses,
            fastdp: None,
        };
        let mut mesh = Mesh::new(config, Arc::new(SimulatedSignatures), seed);
        let (macs, counters) = (Arc::new(MacTable::new(MACS, key)), Arc::new(PacketCounters::default()));
        let duplicates = Arc::new(Duplicates::new(STREAMS, key));
        let shared = Shared { macs: Arc::clone(&macs), duplicates, counters: Arc::clone(&counters) };
        let settings = Settings { lane: 1, relay_budget: DEFAULT_RELAY_BUDGET };
        let forwarder = Forwarder::new(settings, shared, mesh.fib());
        self.running = Some(Router { mesh, forwarder, counters, macs, outbox: PacketOutbox::new(), bridge: Bridge::default() });
    }

    /// The router dies without a word.
    pub fn crash(&mut self) {
        self.running = None;
        self.wake = None;
    }
}

impl Router {
    /// When its timers are due next.
    pub fn next_timeout(&self) -> Option<Time> {
        [self.mesh.next_timeout(), self.forwarder.next_timeout()].into_iter().flatten().min()
    }

    /// Takes one input and drains both planes.
    pub fn input(&mut self, now: Time, input: Input) -> Effects {
        let mut effects = Effects::default();
        let mut said = mesh::Outbox::default();
        match input {
            Input::Command(command) => self.mesh.handle_command(now, command, &mut said),
            Input::Datagrams { from, mut bytes, segment, control } => {
                if control {
                    bytes.chunks_mut(segment.max(1)).for_each(|datagram| self.mesh.handle_datagram(now, from, datagram, &mut said));
                } else {
                    self.forwarder.from_udp(now, from, &mut bytes, segment, &mut self.outbox, &mut self.bridge);
                }
            }
            Input::Frame(vnet, mut frame) => self.forwarder.from_tap(now, &vnet, &mut frame, &mut self.outbox, &mut self.bridge),
            Input::TooBig(address) => self.mesh.handle_too_big(now, address, &mut said),
            Input::Timeout => {
                if self.mesh.next_timeout().is_some_and(|due| due <= now) {
                    self.mesh.handle_timeout(now, &mut said);
                }
                if self.forwarder.next_timeout().is_some_and(|due| due <= now) {
                    self.forwarder.tick(now, &mut self.outbox);
                }
            }
        }
        self.drain(now, said, &mut effects);
        effects
    }

    /// Carries out what both planes say, until they say nothing more. The Fib goes first, as it does between threads.
    fn drain(&mut self, now: Time, mut said: mesh::Outbox, effects: &mut Effects) {
        loop {
            if let Some(fib) = said.fib.take() {
                self.forwarder.set_fib(now, fib, &mut self.outbox, &mut self.bridge);
            }
            effects.sends.extend(said.datagrams.drain(..).map(|(to, bytes)| {
                let length = bytes.len();
                (to, bytes, length)
            }));
            for event in said.events.drain(..) {
                match event {
                    Event::MacAnnounced { vlan, mac, owner } => {
                        // What is ours is learned from its own frames.
                        let elsewhere = owner.filter(|owner| *owner != self.mesh.name());
                        self.macs.announce(vlan, mac, elsewhere, now);
                    }
                    other => effects.events.push(other),
                }
            }
            effects.sends.extend(self.outbox.runs().map(|(to, bytes, segment)| (to, bytes.to_vec(), segment)));
            self.outbox.clear();
            let punts = std::mem::take(&mut self.outbox.punts);
            if punts.is_empty() {
                break;
            }
            for punt in punts {
                self.mesh.handle_punt(now, punt, &mut said);
            }
        }
        effects.seen.append(&mut self.bridge.seen);
    }
}
