//! The packet and mesh planes of a running router: made, started, told things, stopped.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;
use rand_core::Rng;
use tokio::sync::{mpsc, oneshot};

use super::super::RunConfig;
use super::super::options::{Cipher, CipherLibrary};
use super::apps::AppSink;
use super::fastdp::Switchboard;
use super::tcp::Claim;
use crate::crypto::{Ed25519, Identity, Provider, Psks, PublicKey, Suite};
use crate::forward::duplicates::DEFAULT_STREAMS;
use crate::forward::mac_table::{DEFAULT_ENTRIES, MacEntry, Owner};
use crate::forward::{Duplicates, Fib, Forwarder, MacTable, PacketCounters, Settings, Shared};
use crate::io::busy_poll::BusyPoll;
use crate::io::ciphers::Ciphers;
use crate::io::clock::Clock;
use crate::io::entropy;
use crate::io::icmp;
use crate::io::mailbox::{Refused, Sender};
use crate::io::mesh_thread::{self, MeshInput, MeshParts, MeshThread};
use crate::io::packet_thread::{PacketInbox, PacketInput, PacketParts, PacketThread, PacketThreadCounters, ThreadReport};
use crate::io::tap::Tap;
use crate::io::tcp::{TcpConnections, TcpCounters, TcpInput};
use crate::io::thread_load::ThreadLoad;
use crate::io::udp::{SocketGroup, UdpCounters, has_way};
use crate::mesh::command::{Command, Event, LocalMac};
use crate::mesh::snapshot::Snapshot;
use crate::mesh::{Mesh, MeshConfig};
use crate::store::StateDir;
use crate::wire::PeerName;

/// Counters of every plane, shared with the threads.
#[derive(Clone)]
pub struct Counters {
    /// The sockets', of each thread. What threads write to is on no line of the cache that they share.
    pub udp: Vec<Arc<CachePadded<UdpCounters>>>,
    /// The forwarding rules', of each packet thread.
    pub packet: Vec<Arc<PacketCounters>>,
    /// What each packet thread calls, and could not hand on.
    pub thread: Vec<Arc<CachePadded<PacketThreadCounters>>>,
    /// What each packet thread does.
    pub load: Vec<Arc<ThreadLoad>>,
    /// The thread's that carries TCP.
    pub tcp: Arc<TcpCounters>,
    /// How many connections it has.
    pub tcp_open: Arc<TcpConnections>,
}

/// What can be claimed before anything on the host is changed.
pub struct Foundation {
    mesh: Mesh,
    sockets: SocketGroup,
    tcp: Claim,
    /// What the packet threads will go by.
    pub fib: Arc<ArcSwap<Fib>>,
    /// The MAC table.
    pub macs: Arc<MacTable>,
    /// Counters of the planes.
    pub counters: Counters,
    /// What the ciphers cost here, and which library computes them.
    pub ciphers: Ciphers,
    /// This router's keys.
    pub identity: Arc<Identity>,
    seed: u64,
}

impl Foundation {
    /// Reads the identity, derives the passwords' keys, times the ciphers and claims the port for so many packet threads.
    pub fn lay(config: &RunConfig, store: &StateDir, threads: usize, clock: Clock) -> anyhow::Result<Foundation> {
        let mut rng = entropy::generator().context("cannot get randomness from the kernel")?;
        let identity = Arc::new(Identity::from_seed(&*store.seed(&mut rng)?));
        let sockets = SocketGroup::open(&config.bind, config.port, threads, config.offload)?;
        let tcp = Claim::make(config)?;
        let incarnation = store.next_incarnation()?;
        let ciphers = ciphers(config, clock)?;
        let mesh = MeshConfig {
            identity: Arc::clone(&identity),
            network: config.network.clone(),
            nickname: config.nickname.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            psks: psks(config)?,
            suites: ciphers.timings(),
            providers: ciphers.providers(),
            classic: config.classic,
            allow: config.allow.iter().copied().map(PublicKey).collect(),
            admins: config.admins.iter().copied().map(PublicKey).collect(),
            revoked: store.revoked()?,
            open: config.open,
            discovery: config.discovery,
            conn_limit: config.conn_limit,
            forwarding: config.forwarding,
            multicast_snooping: config.multicast_snooping,
            port: config.port,
            incarnation,
            lanes: u8::try_from(threads)?,
            no_encryption: !config.encryption,
            trusted: config.trusted.clone(),
            addresses: Vec::new(),
            advertise: config.advertise.clone(),
            fastdp: config.fastdp.as_ref().map(|fastdp| fastdp.policy.clone()),
        };
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let mut mesh = Mesh::new(mesh, Arc::new(Ed25519), seed);
        mesh.ask_for_ways(has_way);
        let macs = Arc::new(MacTable::new(DEFAULT_ENTRIES, rng.next_u64()));
        let counters = Counters {
            udp: sockets.counters.clone(),
            packet: (0..threads).map(|_| Arc::default()).collect(),
            thread: (0..threads).map(|_| Arc::default()).collect(),
            load: (0..threads).map(|_| Arc::default()).collect(),
            tcp: Arc::clone(&tcp.counters),
            tcp_open: Arc::clone(&tcp.open),
        };
        let fib = Arc::new(ArcSwap::from(mesh.fib()));
        Ok(Foundation { mesh, sockets, tcp, fib, macs, counters, ciphers, identity, seed: rng.next_u64() })
    }

    /// This router's name.
    pub fn name(&self) -> PeerName {
        self.mesh.name()
    }

    /// Counters of the mesh plane, by group.
    pub fn mesh_counters(&self) -> (Arc<crate::mesh::MeshCounters>, Arc<crate::mesh::gossip::GossipCounters>) {
        (self.mesh.counters(), self.mesh.gossip_counters())
    }
}

/// The running threads.
pub struct Planes {
    mesh: Sender<MeshInput>,
    packet: Vec<Sender<PacketInput>>,
    tcp: Sender<TcpInput>,
    /// Queues of the TAP that a thread was too busy to take, by its number.
    unplugged: Vec<(usize, PacketInput)>,
    threads: Vec<JoinHandle<()>>,
    failures: mpsc::UnboundedReceiver<String>,
    port: u16,
    macs: Arc<MacTable>,
    clock: Clock,
}

impl Planes {
    /// Starts the threads, each packet thread with a queue of the TAP; from here on frames flow.
    pub fn start(
        base: Foundation,
        config: &RunConfig,
        queues: Vec<Tap>,
        (events, switchboard, apps): (mpsc::Sender<Event>, Arc<Switchboard>, AppSink),
        clock: Clock,
    ) -> anyhow::Result<Planes> {
        let Foundation { mesh, sockets, tcp, fib, macs, counters, ciphers: _, identity: _, seed } = base;
        let (poll, mesh_sender, mesh_receiver) = mesh_thread::inbox().context("cannot make the mesh thread's poll")?;
        let inboxes: Result<Vec<_>, _> = queues.iter().map(|_| PacketInbox::new()).collect();
        let inboxes = inboxes.context("cannot make the packet threads' polls")?;
        let packet: Vec<_> = inboxes.iter().map(|inbox| inbox.sender.clone()).collect();
        let addresses = mesh.addresses();
        let to_bridge = bridge_end(packet.first().cloned());
        let parts = MeshParts {
            mesh,
            sockets: sockets.control,
            icmp: icmp::open(sockets.port),
            fib: fib.clone(),
            packet_wakers: inboxes.iter().map(|inbox| inbox.waker.clone()).collect(),
            macs: Arc::clone(&macs),
            // A full channel drops the event: the log loses a line, and what is asked for is asked again.
            events: Box::new(move |event| {
                let others = to_bridge(event).and_then(|event| switchboard.take(event)).and_then(|event| apps.take(event));
                drop(others.map(|event| events.try_send(event)));
            }),
            clock,
        };
        let mesh_thread = MeshThread::new(parts, poll, mesh_receiver).context("cannot register the control sockets")?;
        let duplicates = Arc::new(Duplicates::new(DEFAULT_STREAMS, seed));
        let settings = settings(config, inboxes.len());
        let mut packet_threads = Vec::new();
        let counted = counters.packet.into_iter().zip(counters.load).zip(counters.thread);
        for (n, (((tap, inbox), sockets), ((packet, load), counters))) in
            queues.into_iter().zip(inboxes).zip(sockets.packet).zip(counted).enumerate()
        {
            let shared =
                Shared { macs: Arc::clone(&macs), addresses: Arc::clone(&addresses), duplicates: duplicates.clone(), counters: packet };
            let settings = Settings { lane: u8::try_from(n + 1)?, ..settings };
            let parts = PacketParts {
                tap,
                sockets,
                forwarder: Forwarder::new(settings, shared, fib.load_full()),
                fib: fib.clone(),
                mesh: mesh_sender.clone(),
                counters,
                load,
                busy_poll: BusyPoll::new(config.busy_poll),
                queue_seed: seed as u32,
                clock,
            };
            packet_threads.push(PacketThread::new(parts, inbox).context("cannot register the TAP and the packet sockets")?);
        }
        let (tcp_thread, tcp) = tcp.thread(sockets.joints, clock)?;
        let (failed, failures) = mpsc::unbounded_channel();
        let port = if config.port == 0 { sockets.port } else { config.port };
        let mut planes = Planes { mesh: mesh_sender, packet, tcp, unplugged: Vec::new(), threads: Vec::new(), failures, port, macs, clock };
        let mesh = spawn("mesh".into(), failed.clone(), move || mesh_thread.run());
        let packet = packet_threads.into_iter().enumerate();
        let packet = packet.map(|(n, thread)| spawn(format!("packet-{}", n + 1), failed.clone(), move || thread.run()));
        let tcp = spawn("tcp".into(), failed.clone(), move || tcp_thread.run());
        match planes.gather([mesh, tcp].into_iter().chain(packet)) {
            Ok(()) => Ok(planes),
            Err(error) => {
                planes.stop();
                Err(error)
            }
        }
    }

    /// Takes the threads in, up to the first that could not be started.
    fn gather(&mut self, mut threads: impl Iterator<Item = anyhow::Result<JoinHandle<()>>>) -> anyhow::Result<()> {
        threads.try_for_each(|thread| {
            self.threads.push(thread?);
            Ok(())
        })
    }

    /// The UDP port that the sockets are bound to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The mesh plane's mailbox.
    pub fn mesh(&self) -> Sender<MeshInput> {
        self.mesh.clone()
    }

    /// The mailbox of the thread that carries TCP.
    pub fn tcp(&self) -> Sender<TcpInput> {
        self.tcp.clone()
    }

    /// Sends the mesh plane a command.
    pub fn command(&self, command: Command) {
        send(&self.mesh, command);
    }

    /// Forgets MACs that nobody heard of for long, and withdraws what we announced of them.
    pub fn expire_macs(&self) {
        let expired = self.macs.expire(self.clock.now());
        let gone = |entry: &MacEntry| LocalMac { vlan: entry.vlan, mac: entry.mac, present: false, came_from: None };
        let local: Vec<LocalMac> = expired.iter().filter(|entry| entry.owner == Owner::Local).map(gone).collect();
        if !local.is_empty() {
            self.command(Command::LocalMacs(local));
        }
    }

    /// MACs that are on the bridge now: the packet thread may not see their frames.
    pub fn keep_macs(&self, stations: &[(u16, [u8; 6])]) {
        let now = self.clock.now();
        stations.iter().for_each(|(vlan, mac)| self.macs.keep_local(*vlan, *mac, now));
    }

    /// The MAC table.
    pub fn macs(&self) -> Arc<MacTable> {
        Arc::clone(&self.macs)
    }

    /// Asks the mesh plane how things stand; false where it is too busy.
    pub fn snapshot(&self, answer: impl FnOnce(Snapshot) + Send + 'static) -> bool {
        self.mesh.try_send(MeshInput::Snapshot(Box::new(answer))).is_ok()
    }

    /// Asks each packet thread which offloads it uses; `None` where one is too busy.
    pub fn reports(&self) -> Option<Vec<oneshot::Receiver<ThreadReport>>> {
        let ask = |thread: &Sender<PacketInput>| {
            let (answer, report) = oneshot::channel();
            let ask = PacketInput::Report(Box::new(move |report| drop(answer.send(report))));
            thread.try_send(ask).is_ok().then_some(report)
        };
        self.packet.iter().map(ask).collect()
    }

    /// Gives the packet threads the queues of another TAP, one each, or none where there is no other. What a thread is too busy to take
    /// it is offered again with the next call; the frames of its flows do not flow until then.
    pub fn plug(&mut self, queues: Vec<Tap>) {
        let mut offers = std::mem::take(&mut self.unplugged);
        if !queues.is_empty() {
            offers = queues.into_iter().map(|tap| PacketInput::Tap(Box::new(tap))).enumerate().collect();
        }
        for (n, tap) in offers {
            let Some(thread) = self.packet.get(n) else { continue };
            match thread.try_send(tap) {
                Ok(()) => {}
                Err(Refused::Full(tap)) => {
                    tracing::warn!("packet thread {} is too busy to take the new TAP; it is offered again in a moment", n + 1);
                    self.unplugged.push((n, tap));
                }
                Err(Refused::Closed(_)) => tracing::error!("packet thread {} has ended; its frames do not flow", n + 1),
            }
        }
    }

    /// True where a queue waits to be offered again.
    pub fn has_unplugged(&self) -> bool {
        !self.unplugged.is_empty()
    }

    /// Waits until a thread ends that should not have, and says which and why.
    pub async fn failed(&mut self) -> String {
        match self.failures.recv().await {
            Some(sentence) => sentence,
            None => "all threads of the router ended".into(),
        }
    }

    /// Stops the threads: first the mesh plane, which says goodbye to the neighbours.
    pub fn stop(self) {
        tell(&self.mesh, || MeshInput::Stop);
        for thread in &self.packet {
            tell(thread, || PacketInput::Stop);
        }
        let join = |thread: JoinHandle<()>| {
            if thread.join().is_err() {
                tracing::error!("a thread of the router had panicked");
            }
        };
        let mut threads = self.threads.into_iter();
        threads.next().into_iter().for_each(join);
        // Not before the mesh plane's goodbye, which is still to be carried.
        tell(&self.tcp, || TcpInput::Stop);
        threads.for_each(join);
    }
}

/// What each of so many packet threads is told, but for its lane.
fn settings(config: &RunConfig, threads: usize) -> Settings {
    let (arp_proxy, flood_limit, ack_filter) = (config.arp_proxy, config.flood_limit, config.ack_filter);
    Settings { lane: 0, relay_budget: config.relay_limit.per_thread(threads), arp_proxy, flood_limit, ack_filter }
}

/// Takes out of the mesh plane's events, on its own thread, the frames for the bridge. Where the packet thread is too busy one is lost, as frames may
/// be.
fn bridge_end(packet: Option<Sender<PacketInput>>) -> impl Fn(Event) -> Option<Event> {
    move |event| match event {
        Event::ToBridge(frame) => {
            drop(packet.as_ref().map(|thread| thread.try_send(PacketInput::Frame(frame))));
            None
        }
        other => Some(other),
    }
}

/// Tells a thread something it must hear; a full mailbox is being emptied by it.
fn tell<T>(thread: &Sender<T>, message: impl Fn() -> T) {
    while let Err(Refused::Full(_)) = thread.try_send(message()) {
        std::thread::yield_now();
    }
}

/// Sends a command to the mesh plane; where it is too busy, the log says so, and the answer is false.
pub fn send(mesh: &Sender<MeshInput>, command: Command) -> bool {
    let taken = mesh.try_send(MeshInput::Command(command)).is_ok();
    if !taken {
        tracing::warn!("the mesh plane is too busy and did not take a command");
    }
    taken
}

fn spawn(
    name: String,
    failed: mpsc::UnboundedSender<String>,
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> anyhow::Result<JoinHandle<()>> {
    /// Tells the management plane, also when the thread unwinds.
    struct Alarm(mpsc::UnboundedSender<String>, String);
    impl Drop for Alarm {
        fn drop(&mut self) {
            let _ = self.0.send(std::mem::take(&mut self.1));
        }
    }
    let thread = name.clone();
    let body = move || {
        let mut alarm = Alarm(failed, format!("the {name} thread panicked; this is a bug, please report the lines above"));
        match work() {
            Ok(()) => alarm.1 = format!("the {name} thread ended"),
            Err(error) => alarm.1 = format!("the {name} thread cannot go on: {error}"),
        }
    };
    std::thread::Builder::new().name(thread.clone()).spawn(body).with_context(|| format!("cannot start the {thread} thread"))
}

fn suites(cipher: Cipher) -> anyhow::Result<Vec<Suite>> {
    let only = |suite: Suite| match Suite::available().contains(&suite) {
        true => Ok(vec![suite]),
        false => anyhow::bail!("this build has no {suite}: use --cipher auto, or a build with aws-lc"),
    };
    match cipher {
        Cipher::Auto => Ok(Suite::available().to_vec()),
        Cipher::Aes256Gcm => only(Suite::Aes256Gcm),
        Cipher::ChaCha20Poly1305 => only(Suite::ChaCha20Poly1305),
    }
}

/// Times the ciphers that may be used and picks their libraries.
fn ciphers(config: &RunConfig, clock: Clock) -> anyhow::Result<Ciphers> {
    let library = match config.cipher_library {
        CipherLibrary::Auto => None,
        CipherLibrary::AwsLc => Some(Provider::AwsLc),
        CipherLibrary::Ring => Some(Provider::Ring),
    };
    let suites = suites(config.cipher)?;
    if let Some(library) = library.filter(|library| !suites.iter().all(|suite| Provider::of(*suite).contains(library))) {
        anyhow::bail!("this build is without {library}: use --cipher-library auto, or a build with that feature");
    }
    Ok(Ciphers::measure(clock, &suites, library))
}

fn psks(config: &RunConfig) -> anyhow::Result<Psks> {
    if config.passwords.is_empty() {
        return Ok(Psks::none(&config.network));
    }
    let texts = config.passwords.iter().map(|p| std::str::from_utf8(p.as_bytes())).collect::<Result<Vec<_>, _>>();
    let texts = texts.context("a password is not UTF-8 text: write it in another encoding")?;
    Ok(Psks::from_passwords(&texts, &config.network)?)
}

#[cfg(test)]
impl Planes {
    /// Planes without threads: nobody empties their mailboxes.
    pub fn idle(mesh: Sender<MeshInput>, packet: Sender<PacketInput>) -> Planes {
        let poll = mio::Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        let (tcp, _) = crate::io::mailbox::mailbox(1, Arc::new(waker));
        let macs = Arc::new(MacTable::new(16, 1));
        Planes {
            mesh,
            packet: vec![packet],
            tcp,
            unplugged: Vec::new(),
            threads: Vec::new(),
            failures: mpsc::unbounded_channel().1,
            port: 1,
            macs,
            clock: Clock::start(),
        }
    }
}
