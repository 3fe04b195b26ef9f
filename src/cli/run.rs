//! `weave-router run`: joins the planes together, keeps the host in order, and takes everything apart again.
//!
//! ```text
//!  this thread (tokio)    signals, API, status pages, netlink watch, name resolution
//!  "mesh"                 io::mesh_thread, which drives mesh::Mesh
//!  "packet-1", …          io::packet_thread, which drives forward::Forwarder; `threads` says how many
//!  "tcp"                  io::tcp, which carries datagrams where no UDP gets through
//! ```

mod apps;
mod aside;
mod changes;
mod containers;
mod dns;
mod fastdp;
mod ipam;
mod keeper;
mod names;
mod network;
mod parts;
mod paths;
mod planes;
mod ranges;
mod revoked;
mod signals;
mod start;
mod status;
mod tcp;
mod threads;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout_at};

use super::RunConfig;
use crate::api::{Denied, Request};
use crate::crypto::PublicKey;
use crate::host::HostError;
use crate::mesh::apps::AppEvent;
use crate::mesh::command::{Command, Event, Target};
use crate::store::{Revoked, StateDir};
use crate::wire::Address;
use apps::Apps;
use aside::aside;
use containers::Containers;
use dns::Dns;
use fastdp::Fastdp;
use keeper::Keeper;
use names::Names;
use network::Network;
use paths::Tracers;
use planes::Planes;
use signals::Signals;
use status::StatusSource;

/// Events of the mesh plane that wait for this thread; more are dropped, and periodic state repairs what they said.
const EVENTS: usize = 1024;
/// After this, a packet thread that was too busy to take a new TAP is offered it again.
const OFFER_AGAIN: Duration = Duration::from_millis(100);
/// How often other programs' firewalls are looked at.
const TIDY_PERIOD: Duration = Duration::from_secs(10);
/// How often MACs that nobody heard of for ten minutes are forgotten: the whole table is walked through.
const MAC_PERIOD: Duration = Duration::from_secs(60);
/// Netlink bursts are answered once they are over.
const SETTLE: Duration = Duration::from_millis(50);
/// Most time the threads and the firewall's programs may take, side by side: a stop is promised within a second.
const STOP_PATIENCE: Duration = Duration::from_millis(700);
/// Most time the bridge may take after them.
const BRIDGE_PATIENCE: Duration = Duration::from_millis(150);

/// Runs the router until SIGTERM, SIGINT or SIGHUP.
pub fn run(config: RunConfig) -> anyhow::Result<()> {
    // Only look-ups use the pool; whatever a stop needs has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(names::MOST_AT_ONCE).build()?;
    let ended = runtime.block_on(async { Router::start(config).await?.serve().await });
    // Name look-ups may hang in the C library; they are not worth waiting for.
    runtime.shutdown_background();
    ended
}

/// The running router as the management plane holds it.
struct Router {
    config: RunConfig,
    store: StateDir,
    /// Peers added at runtime, as they stand in the state directory.
    remembered: Vec<Target>,
    /// This router's public key.
    key: PublicKey,
    /// Members that were put out, as they stand there.
    revoked: Vec<Revoked>,
    network: Network,
    firewall: Keeper,
    planes: Planes,
    events: mpsc::Receiver<Event>,
    requests: mpsc::Receiver<Request>,
    status: StatusSource,
    servers: Vec<tokio::task::JoinHandle<()>>,
    signals: Signals,
    names: Names,
    fastdp: Option<Fastdp>,
    apps: Apps,
    app_events: mpsc::Receiver<AppEvent>,
    dns: Option<Dns>,
    containers: Containers,
    tracers: Tracers,
    /// Tells the mesh plane of interfaces that go down.
    _watching: Option<changes::Watching>,
}

impl Router {
    async fn serve(mut self) -> anyhow::Result<()> {
        self.send_addresses().await;
        self.follow_bridge().await;
        let mut targets = self.config.peers.clone();
        targets.extend(self.remembered.iter().filter(|target| !self.config.peers.contains(target)).cloned());
        self.planes.command(Command::Connect(targets));
        let ended = self.turn().await;
        self.stop().await;
        ended
    }

    /// The management plane's loop; ends with the reason to stop.
    async fn turn(&mut self) -> anyhow::Result<()> {
        let mut tidy = interval(TIDY_PERIOD);
        let mut ageing = interval(MAC_PERIOD);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ageing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settle: Option<Instant> = None;
        loop {
            let settled = async {
                match settle {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.signals.stop() => return Ok(()),
                failure = self.planes.failed() => anyhow::bail!(failure),
                Some(event) = self.events.recv() => self.on_event(event),
                Some(event) = self.app_events.recv() => self.apps.deliver(event),
                Some(request) = self.requests.recv() => self.on_request(request),
                event = self.network.event() => {
                    self.network.note(event);
                    settle.get_or_insert(Instant::now() + SETTLE);
                }
                () = self.firewall.called() => self.firewall.check(),
                () = settled => {
                    settle = None;
                    self.mend().await;
                }
                _ = tidy.tick() => {
                    self.firewall.check();
                    if self.apps.take_lost() && !planes::send(&self.planes.mesh(), Command::Refresh) {
                        self.apps.keep_lost();
                    }
                    // What could not be mended is tried again, however quiet the host is.
                    if self.network.is_broken() {
                        self.mend().await;
                    }
                }
                () = sleep(OFFER_AGAIN), if self.planes.has_unplugged() => self.planes.plug(Vec::new()),
                _ = ageing.tick() => self.age_macs().await,
            }
        }
    }

    /// Puts back what somebody took away, and tells the mesh plane what changed.
    async fn mend(&mut self) {
        let changes = self.network.mend().await;
        self.planes.plug(changes.tap);
        if let Some(fastdp) = &self.fastdp {
            fastdp.lay_out(self.network.layout());
        }
        self.containers.lay_out(self.network.bridge_end());
        if changes.addresses {
            self.send_addresses().await;
        }
        if changes.bridge_addresses {
            self.follow_bridge().await;
        }
        if changes.macs {
            let macs = self.network.local_macs().await;
            if !macs.is_empty() {
                self.planes.command(Command::LocalMacs(macs));
            }
        }
    }

    /// Forgets MACs that nobody heard of for long. Where the kernel carries frames past us, those on the bridge are heard of there.
    async fn age_macs(&mut self) {
        if self.fastdp.is_some() {
            self.planes.keep_macs(&self.network.stations().await);
        }
        self.planes.expire_macs();
    }

    async fn send_addresses(&mut self) {
        match self.network.addresses(&self.config.bind).await {
            Ok(ips) => {
                let port = self.planes.port();
                let addresses = ips.into_iter().map(|ip| Address::udp((ip, port).into())).collect();
                self.names.start_anew();
                self.planes.command(Command::LocalAddresses(addresses));
            }
            Err(error) => tracing::warn!("{error}; other routers are not told where this one is reached"),
        }
    }

    /// Has the name server listen on the addresses that the bridge has now.
    async fn follow_bridge(&self) {
        let Some(dns) = &self.dns else { return };
        match self.network.bridge_addresses().await {
            Ok((bridge, addresses)) => dns.follow(&bridge, &addresses),
            Err(error) => complain("the name server does not follow the bridge", &error),
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Resolve(target) => self.resolve(target),
            Event::LinkUp { peer, nickname, address } => tracing::info!("link to {peer} ({nickname}) at {address} is up"),
            Event::LinkDown { peer, nickname, reason } => tracing::info!("link to {peer} ({nickname}) is down: {reason}"),
            Event::Refused { whom, reason } => tracing::warn!("no link with {whom}: {reason}"),
            Event::Traced { ticket, trace } => self.tracers.done(ticket, trace),
            Event::Warning(sentence) => tracing::warn!("{sentence}"),
            Event::Notice(sentence) => tracing::info!("{sentence}"),
            Event::Persist(incarnation) => match self.store.raise_incarnation(incarnation) {
                Ok(()) => self.planes.command(Command::Persisted(incarnation)),
                Err(error) => tracing::error!("{error}; other routers hold records of a later life of this one and ignore what it says"),
            },
            Event::Revoked { key, name, nickname, signature } => self.on_revoked((key, signature.map(|boxed| *boxed)), name, &nickname),
            // Others take these, or the mesh thread applies them itself.
            Event::MacAnnounced { .. } | Event::ToBridge(_) | Event::Fastdp(_) | Event::Beat { .. } | Event::App(_) => {}
        }
    }

    /// Looks a host up beside the loop and tells the mesh plane.
    fn resolve(&self, target: Target) {
        let mesh = self.planes.mesh();
        let port = target.port.unwrap_or(self.config.port);
        let dial = target.tcp.then(|| tcp::dial(&self.planes, target.clone()));
        self.names.look_up(target, port, move |target, found| {
            if let (Ok(addresses), Some(dial)) = (&found, dial) {
                return dial(addresses.clone());
            }
            let found = found.map(|addrs| addrs.into_iter().map(Address::udp).collect());
            planes::send(&mesh, Command::Resolved(target, found));
        });
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Status(scope, answer) => self.status.answer(&self.planes, self.network.mtu(), &scope, answer),
            Request::Connect(targets, answer) => {
                let mut all = self.remembered.clone();
                all.extend(targets.iter().filter(|t| !self.remembered.contains(t) && !self.config.peers.contains(t)).cloned());
                let done = self.remember(all);
                if done.is_ok() {
                    self.planes.command(Command::Connect(targets));
                }
                let _ = answer.send(done);
            }
            Request::Revoke(revoked, answer) => drop(answer.send(self.revoke(revoked))),
            Request::Forget(targets, answer) => {
                let all = self.remembered.iter().filter(|t| !targets.contains(t)).cloned().collect();
                let done = self.remember(all);
                if done.is_ok() {
                    self.planes.command(Command::Forget(targets));
                }
                let _ = answer.send(done);
            }
        }
    }

    /// On disk before it is acknowledged.
    fn remember(&mut self, peers: Vec<Target>) -> Result<(), Denied> {
        if peers != self.remembered {
            self.store.set_peers(&peers)?;
            self.remembered = peers;
        }
        Ok(())
    }

    async fn stop(self) {
        tracing::info!("stopping");
        for server in &self.servers {
            server.abort();
        }
        let Router { planes, network, mut firewall, fastdp, dns, containers, .. } = self;
        if let Some(dns) = dns {
            dns.stop();
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        let stopped = aside("stop", move || planes.stop());
        let threads = async {
            if timeout_at(deadline, stopped).await.is_err() {
                tracing::warn!("a thread did not stop in time; going on without it");
            }
        };
        let fast = async {
            if let Some(fastdp) = fastdp {
                fastdp.close(deadline).await;
            }
        };
        tokio::join!(threads, firewall.close(deadline), fast, containers.close(deadline));
        network.release(Instant::now() + BRIDGE_PATIENCE).await;
    }
}

fn announce(config: &RunConfig, status: &StatusSource) {
    tracing::info!("weave-router {} is up: {}", env!("CARGO_PKG_VERSION"), status.title());
    for (suite, library) in status.ciphers() {
        tracing::info!("{suite} by {library}");
    }
    if !config.encryption {
        tracing::warn!("ENCRYPTION IS OFF (--no-encryption): frames between hosts travel in clear");
    }
    if !config.authenticated() {
        tracing::warn!(
            "no password and no --allow: links are encrypted but UNAUTHENTICATED; {}",
            match config.open {
                true => "--open takes them from any address",
                false => "they are taken from private and link-local addresses only",
            }
        );
    }
}

/// A netlink failure while mending is worth a line; the next event or tick tries again.
fn complain(what: &str, error: &HostError) {
    tracing::warn!("{what}: {error}");
}
