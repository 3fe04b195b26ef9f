//! The fast datapath of a running router: carries out the mesh plane's plan on the host, in a task beside the loop, so that a thousand
//! entries of the kernel's tables hold nothing else up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::aside::aside;
use super::complain;
use super::network::Network;
use super::planes::{self, Planes};
use crate::forward::MacTable;
use crate::forward::mac_table::{Owner, Source};
use crate::host::HostError;
use crate::host::fastdp::device::{self, Family, Wanted};
use crate::host::fastdp::entries::{self, Entries, Holder, Known, Ports, Remote};
use crate::host::fastdp::gate;
use crate::host::vanished::{TableWatch, torn};
use crate::io::beats::{BeatSocket, ROOM};
use crate::io::clock::Clock;
use crate::io::mailbox::Sender;
use crate::io::mesh_thread::MeshInput;
use crate::mesh::command::{Command, Event};
use crate::mesh::fastdp::{Device, Plan};

/// How often the kernel's tables are compared with ours, and the firewall's table is written, besides at once when somebody takes it away.
const LOOK: Duration = Duration::from_secs(3);
/// Between attempts to make a device that could not be made.
const RETRY: Duration = Duration::from_secs(9);
/// A burst of announcements is carried out as one.
const GATHER: Duration = Duration::from_millis(5);
/// Longest time that nft may take. A device whose guard is in doubt does not stay.
const NFT_PATIENCE: Duration = Duration::from_secs(5);

/// Takes out of the mesh plane's events, on its own thread, what is the fast datapath's.
pub struct Switchboard {
    plan: watch::Sender<Plan>,
    macs: Notify,
    sockets: ArcSwapOption<Vec<(Family, Arc<BeatSocket>)>>,
}

impl Switchboard {
    /// Nothing is planned, and heartbeats go nowhere.
    pub fn new() -> Switchboard {
        Switchboard { plan: watch::Sender::new(Plan::new()), macs: Notify::new(), sockets: ArcSwapOption::empty() }
    }

    /// Answers with the events that are for others.
    pub fn take(&self, event: Event) -> Option<Event> {
        match event {
            Event::Fastdp(plan) => {
                self.plan.send_if_modified(|old| {
                    let news = *old != plan;
                    *old = plan;
                    news
                });
            }
            // A frame that the device does not take is missed at the other end, which is what heartbeats are for.
            Event::Beat { to, frame } => {
                let sockets = self.sockets.load();
                let socket = sockets.iter().flat_map(|sockets| sockets.iter()).find(|(family, _)| *family == Family::of(to));
                drop(socket.map(|(_, socket)| socket.send(&frame)));
            }
            Event::MacAnnounced { .. } => self.macs.notify_one(),
            other => return Some(other),
        }
        None
    }
}

/// The interfaces as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The bridge.
    pub bridge: u32,
    /// The TAP.
    pub tap: u32,
    /// The bridge's MTU.
    pub mtu: u16,
    /// How often the TAP was put on the bridge: its port options are then to be set again.
    pub attached: u64,
}

/// The task's handle.
pub struct Fastdp {
    layout: watch::Sender<Layout>,
    task: JoinHandle<()>,
    handle: rtnetlink::Handle,
    bridge: String,
    port: u16,
    guarded: Arc<AtomicBool>,
}

impl Fastdp {
    /// Starts the task. It gets a netlink connection of its own, so that its requests wait behind no others.
    pub fn start(
        handle: rtnetlink::Handle,
        wanted: Wanted,
        bridge: &str,
        network: &Network,
        planes: &Planes,
        switchboard: Arc<Switchboard>,
        clock: Clock,
    ) -> Fastdp {
        let (layout, layouts) = watch::channel(network.layout());
        let port = wanted.port;
        let plan = switchboard.plan.subscribe();
        let guarded = Arc::new(AtomicBool::new(false));
        let task = Task {
            wanted,
            bridge: bridge.to_owned(),
            handle: handle.clone(),
            mesh: planes.mesh(),
            macs: planes.macs(),
            switchboard,
            clock,
            layouts,
            plan,
            guarded: Arc::clone(&guarded),
            said: None,
            ipv4_only: None,
            ipv6_due: Instant::now(),
            failure: None,
            up: None,
        };
        Fastdp { layout, task: tokio::spawn(task.run()), handle, bridge: bridge.to_owned(), port, guarded }
    }

    /// The interfaces are now these.
    pub fn lay_out(&self, layout: Layout) {
        self.layout.send_if_modified(|old| {
            // Even if they are the same: somebody may have deleted the device.
            *old = layout;
            true
        });
    }

    /// Ends the task and removes what it made.
    pub async fn close(self, deadline: Instant) {
        self.task.abort();
        let _ = self.task.await;
        let tap = *self.layout.borrow();
        let remove = async {
            if let Err(error) = entries::sweep(&self.handle, tap.bridge, tap.tap).await {
                complain("MACs that the fast datapath put behind the TAP may still be there", &error);
            }
            if let Err(error) = device::remove(&self.handle, &self.bridge).await {
                complain("the VXLAN devices may still be there", &error);
            }
            let port = self.port;
            // The table of another router on this host, whose device was in our way, is not ours to remove.
            if self.guarded.load(Ordering::Relaxed)
                && let Ok(Err(error)) = aside("nft", move || gate::close(port)).await
            {
                complain("the rules of the fast datapath may still be there", &error);
            }
        };
        if timeout_at(deadline, remove).await.is_err() {
            tracing::warn!("what the fast datapath made may still be there; the next start of a router removes it");
        }
    }
}

/// The devices while they are there.
struct Up {
    layout: Layout,
    entries: Entries,
    pvid: Option<u16>,
    allowed: BTreeSet<IpAddr>,
    /// When the firewall's table is written again, at the next occasion.
    guard_due: Instant,
}

struct Task {
    wanted: Wanted,
    bridge: String,
    handle: rtnetlink::Handle,
    mesh: Sender<MeshInput>,
    macs: Arc<MacTable>,
    switchboard: Arc<Switchboard>,
    clock: Clock,
    layouts: watch::Receiver<Layout>,
    plan: watch::Receiver<Plan>,
    /// True once the firewall's table is ours.
    guarded: Arc<AtomicBool>,
    /// What was said last about the state, so that it is said once.
    said: Option<Result<Device, String>>,
    /// Why there was no device for IPv6.
    ipv4_only: Option<String>,
    /// When one is made again at the earliest.
    ipv6_due: Instant,
    /// Why the last attempt to carry the plan out failed.
    failure: Option<String>,
    up: Option<Up>,
}

impl Task {
    async fn run(mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gate =
            TableWatch::new(gate::TABLE).inspect_err(|error| complain("the firewall's table is looked at every 3 s only", error)).ok();
        let mut retry = Instant::now();
        loop {
            let check = tokio::select! {
                changed = self.plan.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
                () = self.switchboard.macs.notified() => {
                    sleep(GATHER).await;
                    false
                }
                changed = self.layouts.changed() => match changed {
                    // What fails changes interfaces too: it is tried again by the clock alone.
                    Ok(()) => self.up.is_some(),
                    Err(_) => return,
                },
                () = torn(&mut gate) => {
                    self.up.iter_mut().for_each(|up| up.guard_due = Instant::now());
                    false
                }
                _ = look.tick() => self.up.is_some() || Instant::now() >= retry,
            };
            if check {
                retry = Instant::now() + RETRY;
                let state = self.stand().await.map_err(|error| error.to_string());
                if state.is_err() {
                    self.take_down().await;
                }
                self.say(state);
            }
            let plan = self.plan.borrow_and_update().clone();
            // Frames leave a peer that failed first; the firewall takes longer. It is told whatever became of the tables.
            let failure = self.carry_out(check, &plan).await.err().map(|error| error.to_string());
            if let Err(error) = self.guard(&plan).await {
                retry = Instant::now() + RETRY;
                self.take_down().await;
                self.say(Err(error.to_string()));
            }
            if failure != self.failure {
                failure.iter().for_each(|why| tracing::warn!("the fast datapath is not up to date, and this is tried again: {why}"));
                self.failure = failure;
            }
        }
    }

    /// Makes sure that everything stands as it should; answers with the device.
    async fn stand(&mut self) -> Result<Device, HostError> {
        let layout = *self.layouts.borrow_and_update();
        let ports = self.up.as_ref().map(|up| up.entries.ports()).filter(|ports| (ports.bridge, ports.tap) == (layout.bridge, layout.tap));
        let stands = match ports {
            Some(ports) => device::is_plugged(&self.handle, ports.vxlan, layout.bridge, Family::V4).await?,
            None => false,
        };
        match ports.filter(|_| stands) {
            Some(ports) => self.stand_over_ipv6(ports).await?,
            None => self.put_up(layout).await?,
        }
        if let Some(up) = &mut self.up {
            if up.layout.attached != layout.attached {
                device::share(&self.handle, layout.tap, true).await?;
            }
            up.layout = layout;
            up.pvid = device::pvid(&self.handle, layout.bridge).await?;
        }
        let ipv6 = self.up.as_ref().is_some_and(|up| up.entries.ports().vxlan6.is_some());
        Ok(Device { ipv6, port: self.wanted.port, vni: self.wanted.vni, mac: self.wanted.mac, mtu: layout.mtu })
    }

    async fn put_up(&mut self, layout: Layout) -> Result<(), HostError> {
        self.up = None;
        self.switchboard.sockets.store(None);
        // What stands there may be of a router that was killed, and is of no use by halves.
        device::remove(&self.handle, &self.bridge).await?;
        let vxlan = device::make(&self.handle, &self.wanted, &self.bridge, Family::V4).await?;
        let Wanted { port, vni, .. } = self.wanted;
        // The gate would shut out the traffic of another program that has the port.
        device::probe(port, Family::V4)?;
        let ipv6 = device::probe(port, Family::V6);
        // It stands before the device takes its first frame.
        let with_ipv6 = ipv6.is_ok();
        blocking(move || gate::guard(&BTreeSet::new(), port, vni, with_ipv6)).await?;
        self.guarded.store(true, Ordering::Relaxed);
        if let Err(error) = device::set_up(&self.handle, vxlan, port, Family::V4).await {
            blocking(move || gate::close(port)).await?;
            self.guarded.store(false, Ordering::Relaxed);
            return Err(error);
        }
        let socket = self.plug(vxlan, layout.bridge, Family::V4).await?;
        let second = match ipv6 {
            Ok(()) => self.put_up_ipv6(layout.bridge).await,
            Err(error) => Err(error),
        };
        let second = second.inspect_err(|error| self.say_ipv4_only(error)).ok();
        device::share(&self.handle, layout.tap, true).await?;
        let vxlan6 = second.as_ref().map(|(index, _)| *index);
        let ports = Ports { bridge: layout.bridge, tap: layout.tap, vxlan, vxlan6, udp: port };
        let sockets = [(Family::V4, socket)].into_iter().chain(second.map(|(_, socket)| (Family::V6, socket)));
        self.switchboard.sockets.store(Some(Arc::new(sockets.collect())));
        self.take_up(layout, ports);
        Ok(())
    }

    fn take_up(&mut self, layout: Layout, ports: Ports) {
        let entries = Entries::new(self.handle.clone(), ports);
        // What the guard was written for may not have become of it.
        self.up = Some(Up { layout, entries, pvid: None, allowed: BTreeSet::new(), guard_due: Instant::now() });
    }

    /// Puts a device on the bridge; the socket through which its heartbeats go.
    async fn plug(&self, index: u32, bridge: u32, family: Family) -> Result<Arc<BeatSocket>, HostError> {
        let socket = BeatSocket::open(index, self.wanted.mac);
        let socket = Arc::new(socket.map_err(|e| HostError::io(format!("open a packet socket on {}", family.device()), e))?);
        device::plug(&self.handle, index, bridge, family).await?;
        let (heard, mesh) = (Arc::downgrade(&socket), self.mesh.clone());
        drop(aside("beats", move || listen(&heard, &mesh)));
        Ok(socket)
    }

    /// The device for IPv6. Where it cannot be made nothing of it stays, and the other one stands without it.
    async fn put_up_ipv6(&mut self, bridge: u32) -> Result<(u32, Arc<BeatSocket>), HostError> {
        self.ipv6_due = Instant::now() + RETRY;
        let index = device::make(&self.handle, &self.wanted, &self.bridge, Family::V6).await?;
        let made = match device::set_up(&self.handle, index, self.wanted.port, Family::V6).await {
            Ok(()) => self.plug(index, bridge, Family::V6).await,
            Err(error) => Err(error),
        };
        if made.is_err() {
            device::remove_one(&self.handle, &self.bridge, Family::V6).await?;
        }
        made.map(|socket| (index, socket))
    }

    /// Makes sure that the device for IPv6 stands beside the other one, which stands: it is not touched.
    async fn stand_over_ipv6(&mut self, ports: Ports) -> Result<(), HostError> {
        let stands = match ports.vxlan6 {
            Some(index) => device::is_plugged(&self.handle, index, ports.bridge, Family::V6).await.unwrap_or(false),
            // What fails changes interfaces, which has everything looked at: it is tried again by the clock alone.
            None => Instant::now() < self.ipv6_due,
        };
        if stands {
            return Ok(());
        }
        let made = match self.ready_for_ipv6(ports).await {
            Ok(()) => self.put_up_ipv6(ports.bridge).await,
            Err(error) => Err(error),
        };
        let made = made.inspect_err(|error| self.say_ipv4_only(error)).ok();
        // The guard lets in, or keeps out, what is IPv6 as there is a device for it.
        self.up.iter_mut().for_each(|up| up.guard_due = Instant::now());
        if (ports.vxlan6, made.is_some()) == (None, false) {
            return Ok(());
        }
        let ports = Ports { vxlan6: made.as_ref().map(|(index, _)| *index), ..ports };
        let sockets = self.switchboard.sockets.load_full();
        let first = sockets.iter().flat_map(|sockets| sockets.iter()).filter(|(family, _)| *family == Family::V4).cloned();
        let sockets = first.chain(made.map(|(_, socket)| (Family::V6, socket))).collect();
        self.switchboard.sockets.store(Some(Arc::new(sockets)));
        if let Some(up) = self.up.take() {
            self.take_up(up.layout, ports);
        }
        Ok(())
    }

    /// The port is free for IPv6 too, and guarded before a device takes its first frame there.
    async fn ready_for_ipv6(&mut self, ports: Ports) -> Result<(), HostError> {
        self.ipv6_due = Instant::now() + RETRY;
        if ports.vxlan6.is_some() {
            return Ok(());
        }
        device::probe(ports.udp, Family::V6)?;
        let allowed = self.up.as_ref().map(|up| up.allowed.clone()).unwrap_or_default();
        let vni = self.wanted.vni;
        blocking(move || gate::guard(&allowed, ports.udp, vni, true)).await
    }

    /// A host need not have IPv6, and what is over IPv4 goes on without it.
    fn say_ipv4_only(&mut self, error: &HostError) {
        let why = Some(error.to_string());
        if self.ipv4_only != why {
            tracing::info!("the fast datapath works over IPv4 only: {error}");
            self.ipv4_only = why;
        }
    }

    /// Without a device the TAP is an ordinary port again.
    async fn take_down(&mut self) {
        let was_up = self.up.take().is_some();
        self.switchboard.sockets.store(None);
        let Layout { bridge, tap, .. } = *self.layouts.borrow();
        let removed = device::remove(&self.handle, &self.bridge).await.map(drop);
        let shared = device::share(&self.handle, tap, false).await;
        let swept = entries::sweep(&self.handle, bridge, tap).await;
        for error in [removed, shared, swept].into_iter().filter_map(Result::err) {
            // What never stood is tried every few seconds, and the reason has been said.
            match was_up {
                true => tracing::warn!("the fast datapath is taken down, and something of it stays: {error}"),
                false => tracing::debug!("taking the fast datapath down: {error}"),
            }
        }
    }

    fn say(&mut self, state: Result<Device, String>) {
        if self.said.as_ref() != Some(&state) {
            match &state {
                Ok(device) => {
                    let devices = Family::ALL.iter().filter(|family| device.ipv6 || **family == Family::V4).map(|family| family.device());
                    let devices: Vec<_> = devices.collect();
                    tracing::info!("the fast datapath is ready: VXLAN {}, UDP port {}", devices.join(" and "), device.port);
                }
                Err(why) => tracing::warn!("no fast datapath, the router carries all frames: {why}"),
            }
            // What was not taken is said again at the next occasion.
            self.said = planes::send(&self.mesh, Command::Fastdp(state.clone())).then_some(state);
        }
    }

    /// Brings the kernel's tables to what the plan and the MAC table say.
    async fn carry_out(&mut self, look: bool, plan: &Plan) -> Result<(), HostError> {
        let Some(up) = &mut self.up else { return Ok(()) };
        let known = known_macs(&self.macs, self.clock, self.wanted.mac);
        let places = entries::wanted(&known, plan, up.pvid);
        let devices: BTreeMap<[u8; 6], Remote> = plan.iter().map(|peer| (peer.mac, Remote { ip: peer.address, port: peer.port })).collect();
        if look {
            // A little longer than between two looks, so that no use falls between them.
            let used = up.entries.look(LOOK + LOOK / 2).await?;
            let carried: BTreeSet<_> = used.iter().map(|(_, mac)| *mac).collect();
            let owners = known.iter().filter(|(_, mac, _)| carried.contains(mac)).filter_map(|(.., holder)| match holder {
                Holder::Announced(peer) => Some(*peer),
                Holder::Here | Holder::Heard => None,
            });
            let owners: BTreeSet<_> = owners.collect();
            if !owners.is_empty() {
                planes::send(&self.mesh, Command::FastdpUsed(owners.into_iter().collect()));
            }
        }
        up.entries.program(&places, &devices).await
    }

    /// Brings the firewall to what the plan says: where that changed, and with every look.
    async fn guard(&mut self, plan: &Plan) -> Result<(), HostError> {
        let Some(up) = &mut self.up else { return Ok(()) };
        let allowed: BTreeSet<IpAddr> = plan.iter().map(|peer| peer.address).collect();
        if allowed != up.allowed || Instant::now() >= up.guard_due {
            let (peers, Wanted { port, vni, .. }) = (allowed.clone(), self.wanted);
            let ipv6 = up.entries.ports().vxlan6.is_some();
            blocking(move || gate::guard(&peers, port, vni, ipv6)).await?;
            // Less than a look later, so that each look finds it due, and a burst of changes of interfaces does not.
            (up.allowed, up.guard_due) = (allowed, Instant::now() + LOOK / 2);
        }
        Ok(())
    }
}

/// The MAC table, but for our own device.
fn known_macs(macs: &MacTable, clock: Clock, own: [u8; 6]) -> Vec<Known> {
    let holder = |owner: Owner, source: Source| match (owner, source) {
        (Owner::Local, _) => Holder::Here,
        (Owner::Peer(peer), Source::Announced | Source::Frozen) => Holder::Announced(peer),
        (Owner::Peer(_), Source::Flood | Source::Data | Source::Local) => Holder::Heard,
    };
    let entries = macs.snapshot(clock.now());
    let others = entries.iter().filter(|entry| entry.mac != own);
    others.map(|entry| (entry.vlan, entry.mac, holder(entry.owner, entry.source))).collect()
}

async fn blocking(work: impl FnOnce() -> Result<(), HostError> + Send + 'static) -> Result<(), HostError> {
    let lost = |why: &str| HostError::io("guard the fast datapath", std::io::Error::other(why.to_string()));
    match timeout(NFT_PATIENCE, aside("nft", work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(lost("the thread that runs nft failed")),
        Err(_) => Err(lost("nft does not answer")),
    }
}

/// Hands what comes through the device to the mesh plane, until nobody uses the socket any more.
fn listen(socket: &Weak<BeatSocket>, mesh: &Sender<MeshInput>) {
    let mut buffer = [0; ROOM];
    while let Some(socket) = socket.upgrade() {
        // Half a second without heartbeats, or a device that is down, is for the mesh plane to notice.
        if let Ok(len) = socket.recv(&mut buffer) {
            let _ = mesh.try_send(MeshInput::Command(Command::Beat(buffer[..len].to_vec())));
        }
    }
}
