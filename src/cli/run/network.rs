//! The host's side of a running router: bridge and TAP, kept in order while it runs.

use std::net::IpAddr;

use anyhow::Context;
use tokio::time::{Instant, timeout_at};

use super::super::RunConfig;
use super::aside::aside;
use super::complain;
use super::fastdp::Layout;
use super::threads;
use crate::dns::SERVICE_ADDRESS;
use crate::host::bridge::{Bridge, BridgeMtu, Released};
use crate::host::container::BridgeEnd;
use crate::host::fastdp::{device, gate};
use crate::host::link;
use crate::host::macs::LocalMacs;
use crate::host::watch::{HostEvent, Watch};
use crate::host::{self, macs, nameserver, underlay};
use crate::io::offload::OffloadPolicy;
use crate::io::tap::{self, Tap};
use crate::io::udp;
use crate::mesh::command::{LocalMac, Target};
use crate::wire::{Address, PeerName};

/// What mending changed.
#[derive(Default)]
pub struct Changes {
    /// The queues of a new TAP, where the old one was deleted.
    pub tap: Vec<Tap>,
    /// The underlay's addresses may have changed.
    pub addresses: bool,
    /// The bridge's MAC table may have changed.
    pub macs: bool,
    /// The bridge's own addresses may have changed.
    pub bridge_addresses: bool,
}

/// What is to be looked at once a burst of events is over.
#[derive(Default)]
struct Todo {
    bridge: bool,
    tap: bool,
    attach: bool,
    addresses: bool,
    macs: bool,
    bridge_addresses: bool,
}

/// The bridge with its TAP.
pub struct Network {
    handle: rtnetlink::Handle,
    bridge: Bridge,
    bridge_name: String,
    tap_name: String,
    tap_index: u32,
    offload: OffloadPolicy,
    /// Queues of the TAP.
    queues: usize,
    name: PeerName,
    watch: Watch,
    /// How often the TAP was put on the bridge.
    attached: u64,
    known_macs: LocalMacs,
    /// The name server's address is to be on the bridge.
    serves_names: bool,
    todo: Todo,
}

impl Network {
    /// Makes or adopts the bridge, opens the TAP with so many queues and plugs it in. What was made goes again where a later step fails.
    pub async fn build(config: &RunConfig, name: PeerName, queues: usize) -> anyhow::Result<(Network, Vec<Tap>)> {
        let mtu = match config.mtu {
            Some(mtu) => BridgeMtu::Given(mtu),
            None => BridgeMtu::Fitting(fitting_mtu(&config.peers, config.port).await),
        };
        let handle = host::connect()?;
        let watch = Watch::new()?;
        let mut bridge = Bridge::ensure(&handle, &config.bridge, mtu, name).await?;
        let (tap, tap_index) = match open_tap(&handle, &config.tap, config.offload, queues).await {
            Ok(tap) => tap,
            Err(error) => {
                let _ = bridge.release().await;
                return Err(error);
            }
        };
        if let Err(error) = bridge.attach(tap_index).await {
            drop(tap);
            let _ = bridge.release().await;
            return Err(error).with_context(|| format!("cannot put TAP {} on bridge {}", config.tap, config.bridge));
        }
        let mut network = Network {
            handle,
            bridge,
            bridge_name: config.bridge.clone(),
            tap_name: config.tap.clone(),
            tap_index,
            offload: config.offload,
            queues,
            name,
            watch,
            attached: 0,
            known_macs: LocalMacs::default(),
            serves_names: config.dns.as_ref().is_some_and(|dns| dns.listen.is_empty()),
            todo: Todo { macs: true, ..Todo::default() },
        };
        network.serve_names().await;
        if network.serves_names {
            let bridge = config.bridge.clone();
            tokio::spawn(async move {
                if let Err(error) = nameserver::stay_loose(&bridge).await {
                    complain("a reverse path filter that is made strict may cut containers off from their name server", &error);
                }
            });
        }
        network.watch.expect(&network.bridge, Some(network.tap_index));
        Ok((network, tap))
    }

    /// The bridge's MTU in bytes.
    pub fn mtu(&self) -> Option<u16> {
        u16::try_from(self.bridge.mtu()).ok()
    }

    /// Waits for the next thing that happens on the host. Cancel-safe.
    pub async fn event(&mut self) -> HostEvent {
        self.watch.next().await
    }

    /// Remembers an event until [`Network::mend`].
    pub fn note(&mut self, event: HostEvent) {
        match event {
            HostEvent::BridgeGone => self.todo.bridge = true,
            HostEvent::BridgeDown | HostEvent::TapDetached | HostEvent::MtuChanged(_) => self.todo.attach = true,
            HostEvent::TapGone => self.todo.tap = true,
            HostEvent::PortsChanged | HostEvent::MacsChanged => self.todo.macs = true,
            HostEvent::AddressesChanged => self.todo.addresses = true,
            HostEvent::BridgeAddressesChanged => self.todo.bridge_addresses = true,
            HostEvent::Missed => {
                self.todo = Todo { bridge: true, tap: false, attach: true, addresses: true, macs: true, bridge_addresses: true };
            }
        }
    }

    /// Acts on what was noted; what fails is said and tried again with the next event or tick.
    pub async fn mend(&mut self) -> Changes {
        let mut todo = std::mem::take(&mut self.todo);
        // Its deletion may be among the notifications that were lost, or have come while the bridge could not be put in order.
        todo.tap |= (todo.bridge || todo.attach) && matches!(link::by_index(&self.handle, self.tap_index).await, Ok(None));
        let (addresses, macs, bridge_addresses) = (todo.addresses, todo.macs, todo.bridge_addresses);
        let mut changes = Changes { tap: Vec::new(), addresses, macs, bridge_addresses };
        if todo.tap {
            match open_tap(&self.handle, &self.tap_name, self.offload, self.queues).await {
                Ok((tap, index)) => {
                    tracing::warn!("TAP {} was deleted; it is made again", self.tap_name);
                    self.tap_index = index;
                    changes.tap = tap;
                }
                Err(error) => {
                    tracing::error!("TAP {} was deleted and cannot be made again: {error:#}", self.tap_name);
                    self.todo.tap = true;
                }
            }
        }
        if todo.bridge || todo.attach || !changes.tap.is_empty() {
            match self.reattach().await {
                Ok(()) => (changes.macs, changes.bridge_addresses) = (true, true),
                Err(error) => {
                    complain("cannot put the bridge in order", &error);
                    self.todo.bridge = true;
                }
            }
        }
        if changes.bridge_addresses {
            self.serve_names().await;
        }
        changes
    }

    /// Puts the name server's address on the bridge; where there is to be none, one that an earlier life left there goes.
    async fn serve_names(&self) {
        let done = match self.serves_names {
            true => nameserver::put(&self.handle, &self.bridge, SERVICE_ADDRESS).await,
            false => nameserver::take_away(&self.handle, &self.bridge, SERVICE_ADDRESS).await,
        };
        if let Err(error) = done {
            complain("names are not served on the bridge", &error);
        }
    }

    /// The bridge, by name and index, and the addresses it has.
    pub async fn bridge_addresses(&self) -> Result<((String, u32), Vec<IpAddr>), host::HostError> {
        let addresses = nameserver::addresses(&self.handle, &self.bridge).await?;
        Ok(((self.bridge_name.clone(), self.bridge.index()), addresses))
    }

    /// True where something is known to be out of order.
    pub fn is_broken(&self) -> bool {
        self.todo.tap || self.todo.bridge || self.todo.attach
    }

    async fn reattach(&mut self) -> Result<(), host::HostError> {
        let before = self.bridge.index();
        self.bridge = self.bridge.again(self.name).await?;
        if self.bridge.index() != before {
            tracing::warn!("bridge {} was deleted; it is made again", self.bridge_name);
        }
        self.bridge.attach(self.tap_index).await?;
        self.attached += 1;
        self.watch.expect(&self.bridge, Some(self.tap_index));
        Ok(())
    }

    /// The underlay addresses that gossip tells the others: all, or those that `--bind` names.
    pub async fn addresses(&self, bind: &[IpAddr]) -> Result<Vec<IpAddr>, host::HostError> {
        let all = underlay::addresses(&self.handle, Some(self.bridge.index())).await?;
        let any = bind.is_empty() || bind.iter().any(IpAddr::is_unspecified);
        Ok(all.into_iter().filter(|ip| any || bind.contains(ip)).collect())
    }

    /// MACs that appeared on the bridge, or vanished from it, since the last call.
    pub async fn local_macs(&mut self) -> Vec<LocalMac> {
        self.read_macs().await.map(|now| self.known_macs.update(&now)).unwrap_or_default()
    }

    /// All MACs that are on the bridge.
    pub async fn stations(&self) -> Vec<(u16, [u8; 6])> {
        self.read_macs().await.unwrap_or_default()
    }

    async fn read_macs(&self) -> Option<Vec<(u16, [u8; 6])>> {
        let read = macs::local_macs(&self.handle, self.bridge.index(), &[self.tap_index, self.bridge.index()]).await;
        read.inspect_err(|error| complain("cannot read the bridge's MAC table", error)).ok()
    }

    /// What the fast datapath has to know.
    pub fn layout(&self) -> Layout {
        Layout { bridge: self.bridge.index(), tap: self.tap_index, mtu: self.mtu().unwrap_or(u16::MAX), attached: self.attached }
    }

    /// The bridge, for containers.
    pub fn bridge_end(&self) -> BridgeEnd {
        BridgeEnd { name: self.bridge_name.clone(), index: self.bridge.index() }
    }

    /// Removes what a router with the fast datapath that was killed has left behind.
    pub async fn sweep_fastdp(&self) {
        match device::remove(&self.handle, &self.bridge_name).await {
            Ok(false) => {}
            Ok(true) => match aside("nft", || gate::close(device::PORT)).await {
                Ok(Err(error)) => complain("the rules of the fast datapath may still be there", &error),
                Ok(Ok(())) | Err(_) => tracing::info!("what an earlier router's fast datapath left is removed"),
            },
            Err(error) => complain("cannot remove what an earlier router's fast datapath left", &error),
        }
    }

    /// Lets go of the bridge. The TAP has gone with its thread.
    pub async fn release(self, deadline: Instant) {
        match timeout_at(deadline, nameserver::take_away(&self.handle, &self.bridge, SERVICE_ADDRESS)).await {
            Ok(Ok(())) | Err(_) => {}
            // A bridge that is gone needs nothing.
            Ok(Err(error)) => tracing::debug!("{error}"),
        }
        match timeout_at(deadline, self.bridge.release()).await {
            Ok(Ok(Released::Removed)) => tracing::info!("bridge {} is removed", self.bridge_name),
            Ok(Ok(Released::Kept(why))) => tracing::info!("{why}"),
            Ok(Err(error)) => complain("cannot let go of the bridge", &error),
            Err(_) => tracing::warn!("bridge {} stays: the kernel does not answer in time", self.bridge_name),
        }
    }
}

/// The queues of the TAP and its index. It is still down: it comes up as a port of the bridge, and never speaks for itself.
async fn open_tap(handle: &rtnetlink::Handle, name: &str, offload: OffloadPolicy, queues: usize) -> anyhow::Result<(Vec<Tap>, u32)> {
    threads::is_free(handle, name).await?;
    let taps = Tap::open_queues(name, offload, queues)?;
    let first = taps.first().context("a TAP has a queue")?;
    let index = first.ifindex();
    link::silence(name);
    first.configure(tap::MTU, tap::QUEUE_LEN, false)?;
    Ok((taps, index))
}

/// The MTU that fits the paths to the configured peers which are given as addresses, else the host's default route.
async fn fitting_mtu(peers: &[Target], port: u16) -> u16 {
    let literal = |target: &Target| Some(Address::udp((target.host.parse::<IpAddr>().ok()?, target.port.unwrap_or(port)).into()));
    let paths = peers.iter().filter_map(literal).filter_map(|address| {
        let mtu = udp::path_mtu(address).ok()?;
        Some(underlay::fit_mtu(u32::from(mtu), address.socket_addr().is_ipv6()))
    });
    if let Some(mtu) = paths.min() {
        return mtu;
    }
    let (mtu, v6) = match host::connect() {
        Ok(handle) => underlay::default_mtu(&handle).await.unwrap_or((underlay::DEFAULT_UNDERLAY_MTU, false)),
        Err(_) => (underlay::DEFAULT_UNDERLAY_MTU, false),
    };
    underlay::fit_mtu(mtu, v6)
}
