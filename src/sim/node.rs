//! One host: what survives a crash of its router, and the router while it runs.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::sync::Arc;

use crate::crypto::{Classic, Identity, Providers, Psk, Psks, PublicKey, SimulatedSignatures, Suite, SuiteTiming};
use crate::forward::flood_limit::DEFAULT_FLOOD_LIMIT;
use crate::forward::relay_limit::RelayLimit;
use crate::forward::{Duplicates, Fib, Forwarder, MacTable, Outbox as PacketOutbox, PacketCounters, Settings, Shared, TapSink};
use crate::mesh::command::{Command, Event, Target};
use crate::mesh::{self, Mesh, MeshConfig};
use crate::time::Time;
use crate::wire::{Address, Subnet, VnetHeader};

use super::bridge::Bridge;
use super::ethernet::{Mac, Seen};
use super::shared::Common;
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
    /// False to pass nothing on for others.
    pub forwarding: bool,
    /// What one neighbour may have it pass on.
    pub relay_limit: RelayLimit,
    /// False to flood all multicast frames to everybody.
    pub multicast_snooping: bool,
    /// True to send data unsealed where both ends say so.
    pub no_encryption: bool,
    /// Whether handshakes without post-quantum keys will do.
    pub classic: Classic,
    /// Keys that may join; empty where any may.
    pub allow: Vec<PublicKey>,
    /// Networks in which unicast frames may go in clear.
    pub trusted: Vec<Subnet>,
    /// Addresses under which others reach it although no interface has them.
    pub advertise: Vec<Address>,
    /// Keys of administrators.
    pub admins: Vec<PublicKey>,
    /// Name of its network.
    pub network: String,
    /// False for a mesh plane alone: what it tells packet threads is let go. Such routers carry no frames.
    pub packet_plane: bool,
    /// True to hold records and graphs in common with the other routers that do: large meshes fit into memory so.
    pub in_common: bool,
    /// True to spare it the arithmetic of handshakes: either all of a mesh or none.
    pub simulated_handshakes: bool,
}

impl Default for RouterOptions {
    fn default() -> RouterOptions {
        RouterOptions {
            passwords: vec![1],
            discovery: true,
            conn_limit: 0,
            forwarding: true,
            relay_limit: RelayLimit::Off,
            multicast_snooping: true,
            no_encryption: false,
            classic: Classic::Refused,
            allow: Vec::new(),
            trusted: Vec::new(),
            advertise: Vec::new(),
            admins: Vec::new(),
            network: "weave".into(),
            packet_plane: true,
            in_common: true,
            simulated_handshakes: false,
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
    /// What was revoked, as on disk.
    pub revoked: Vec<(PublicKey, Option<[u8; 64]>)>,
    /// Counts starts, so that what was on its way to an earlier router is not given to a later one.
    pub life: u32,
    /// The hosts that the operator has named.
    pub targets: Vec<Target>,
    /// The containers on its bridge.
    pub containers: BTreeSet<Mac>,
    pub running: Option<Box<Router>>,
    /// When its timers are due next.
    pub wake: Option<Time>,
    /// Until when its router gets no processor.
    pub frozen: Option<Time>,
    /// Bytes of UDP payload that left it.
    pub sent: u64,
    /// Everything that its routers said.
    pub log: Vec<(Time, Event)>,
}

/// A running router.
pub struct Router {
    pub mesh: Mesh,
    pub forwarder: Forwarder,
    full: bool,
    /// What packet threads would hold, where there are none and it is to be counted.
    held: Option<Arc<Fib>>,
    holds: bool,
    /// When the timers of the mesh plane are due, as of its last input.
    mesh_due: Option<Time>,
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
    /// The kernel has no way to this address, as it says when something is sent there.
    Unreachable(Address),
    /// The kernel says that the interface which leads to these addresses is down.
    LinkLost(Vec<Address>),
    Timeout,
}

/// What it does about it.
#[derive(Default)]
pub struct Effects {
    /// Runs of datagrams: where to, all bytes, the size of all but perhaps the last.
    pub sends: Vec<(Address, Vec<u8>, usize)>,
    pub events: Vec<Event>,
    pub seen: Vec<Seen>,
    /// Frames for the bridges that are joined to this host's.
    pub copies: Vec<Vec<u8>>,
}

impl Host {
    /// A host whose router never ran.
    pub fn new(options: RouterOptions, seed: &[u8; 32]) -> Host {
        Host {
            options,
            identity: Arc::new(Identity::from_seed(seed)),
            incarnation: 0,
            revoked: Vec::new(),
            life: 0,
            targets: Vec::new(),
            containers: BTreeSet::new(),
            running: None,
            wake: None,
            frozen: None,
            sent: 0,
            log: Vec::new(),
        }
    }

    /// Starts the router with this randomness.
    pub fn start(&mut self, nickname: String, addresses: Vec<Address>, seed: [u8; 32], key: u64, common: &Arc<Common>) {
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
            classic: self.options.classic,
            allow: self.options.allow.clone(),
            admins: self.options.admins.clone(),
            revoked: self.revoked.clone(),
            open: false,
            discovery: self.options.discovery,
            conn_limit: self.options.conn_limit,
            forwarding: self.options.forwarding,
            multicast_snooping: self.options.multicast_snooping,
            port: PORT,
            incarnation: self.incarnation,
            lanes: 1,
            no_encryption: self.options.no_encryption,
            trusted: self.options.trusted.clone(),
            addresses,
            advertise: self.options.advertise.clone(),
            fastdp: None,
        };
        let mut mesh = Mesh::new(config, Arc::new(SimulatedSignatures), seed);
        if self.options.in_common {
            mesh.share(Arc::<Common>::clone(common));
        }
        if self.options.simulated_handshakes {
            mesh.simulate_handshakes();
        }
        let full = self.options.packet_plane;
        if !full && self.options.in_common {
            mesh.go_alone();
        }
        let (macs, streams) = if full { (MACS, STREAMS) } else { (1, 1) };
        let (macs, counters) = (Arc::new(MacTable::new(macs, key)), Arc::new(PacketCounters::default()));
        let duplicates = Arc::new(Duplicates::new(streams, key));
        let shared = Shared { macs: Arc::clone(&macs), addresses: mesh.addresses(), duplicates, counters: Arc::clone(&counters) };
        let settings = Settings {
            lane: 1,
            relay_budget: self.options.relay_limit.per_thread(1),
            arp_proxy: true,
            flood_limit: DEFAULT_FLOOD_LIMIT,
            ack_filter: true,
        };
        let forwarder = Forwarder::new(settings, shared, mesh.fib());
        let (outbox, bridge) = (PacketOutbox::new(), Bridge::default());
        let (held, holds) = (None, !self.options.in_common);
        let mesh_due = Some(Time::ZERO);
        self.running = Some(Box::new(Router { mesh, forwarder, full, held, holds, mesh_due, counters, macs, outbox, bridge }));
    }

    /// Gives its router an input, and notes when its timers are due next; `None` where none runs.
    pub fn feed(&mut self, now: Time, input: Input) -> Option<Effects> {
        Some(self.running.as_mut()?.feed(now, input, &mut self.wake))
    }

    /// The router dies without a word.
    pub fn crash(&mut self) {
        self.running = None;
        self.wake = None;
    }
}

impl Router {
    /// Takes one input, and notes when its timers are due next.
    pub fn feed(&mut self, now: Time, input: Input, wake: &mut Option<Time>) -> Effects {
        let effects = self.input(now, input);
        if let Some(due) = self.next_timeout().map(|due| due.max(now))
            && wake.is_none_or(|wake| due < wake)
        {
            *wake = Some(due);
        }
        effects
    }

    /// When its timers are due next.
    fn next_timeout(&mut self) -> Option<Time> {
        self.mesh_due = self.mesh.next_timeout();
        [self.mesh_due, self.forwarder.next_timeout()].into_iter().flatten().min()
    }

    /// Says whether another bridge is joined to this one.
    pub fn join(&mut self, joined: bool) {
        self.bridge.joined = joined;
    }

    /// Takes one input and drains both planes.
    fn input(&mut self, now: Time, input: Input) -> Effects {
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
            Input::Frame(vnet, mut frame) => {
                self.forwarder.from_tap(now, &vnet, &mut frame, &mut self.outbox, &mut self.bridge);
                self.forwarder.end_burst(now, &mut self.outbox, &mut self.bridge);
            }
            Input::TooBig(address) => self.mesh.handle_too_big(now, address, &mut said),
            Input::Unreachable(address) => {
                if self.forwarder.fib().doubt(address) {
                    self.mesh.handle_unreachable(now, address, &mut said);
                }
            }
            Input::LinkLost(addresses) => self.mesh.handle_link_lost(now, &addresses, &mut said),
            Input::Timeout => {
                if self.mesh_due.is_some_and(|due| due <= now) {
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
            if let Some(fib) = said.fib.take_if(|_| !self.full) {
                self.held = Some(fib).filter(|_| self.holds);
            }
            if let Some(fib) = said.fib.take() {
                self.forwarder.set_fib(now, fib, &mut self.outbox, &mut self.bridge);
            }
            effects.sends.extend(said.datagrams.drain(..).map(|(to, bytes)| {
                let length = bytes.len();
                (to, bytes, length)
            }));
            for event in said.events.drain(..) {
                match event {
                    Event::MacAnnounced { vlan, mac, owner, frozen } => self.macs.decide(self.mesh.name(), (vlan, mac), owner, frozen, now),
                    Event::ToBridge(frame) => self.bridge.write(&VnetHeader::default(), &[IoSlice::new(&frame)]),
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
        effects.copies.append(&mut self.bridge.copies);
    }
}
