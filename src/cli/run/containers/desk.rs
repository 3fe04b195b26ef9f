//! What is asked of this part, and its state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{OwnedMutexGuard, Semaphore, watch};

use super::super::aside::aside;
use super::super::keeper::Doorbell;
use super::addresses::Debt;
use super::book::Books;
use super::enforce::Guard;
use super::far::Far;
use super::record::Record;
use super::{Settings, Sockets};
use crate::api::Denied;
use crate::api::containers::{Attach, Detach, EXPOSED, Row};
use crate::api::section::Section;
use crate::host::container::announce::announce;
use crate::host::container::{Attached, BridgeEnd, Order, Removal, attach, detach, found};
use crate::host::{HostError, link};
use crate::store::db::{Db, Table};

/// Containers that are worked on at once: the kernel does one after the other anyway.
const AT_ONCE: usize = 8;
/// When an announcement is repeated: a datagram may be lost.
const AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(1000)];

/// A container, or the host, as this router knows it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What is remembered.
    pub record: Record,
    /// Name of the end on the host, and MAC in the container; `None` for the host.
    pub port: Option<(String, [u8; 6])>,
}

/// What was done so far, for the case that the next step fails.
#[derive(Debug, Default)]
pub struct Steps {
    /// Addresses that were taken for this.
    pub gained: Vec<IpNet>,
    /// The container's interface, or what is in it, may have changed.
    pub tried: bool,
    /// The container's interface was made.
    pub made: bool,
    /// Addresses that the host has got on its bridge.
    pub placed: Vec<IpNet>,
    /// Addresses that names were given to.
    pub named: Vec<IpNet>,
}

/// The state.
pub struct Desk {
    pub(super) settings: Settings,
    pub(super) doorbell: Doorbell,
    pub(super) far: Far,
    /// The bridge's MTU, as containers have it.
    pub(super) mtu: AtomicU32,
    /// What could not be given back yet, by ident.
    pub(super) debts: Mutex<BTreeMap<String, Debt>>,
    kernel: tokio::sync::Mutex<Sockets>,
    pub(super) db: Db,
    pub(super) books: Books,
    pub(super) guard: Guard,
    bridges: watch::Receiver<BridgeEnd>,
    known: Arc<Mutex<BTreeMap<String, Known>>>,
    /// One request after the other for each container.
    busy: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    slots: Semaphore,
}

impl Desk {
    /// Nothing is known yet.
    pub fn new(
        settings: Settings,
        bridges: watch::Receiver<BridgeEnd>,
        (sockets, doorbell, far): (Sockets, Doorbell, Far),
        db: Db,
        books: Books,
    ) -> Desk {
        Desk {
            settings,
            doorbell,
            far,
            mtu: AtomicU32::new(0),
            debts: Mutex::default(),
            kernel: tokio::sync::Mutex::new(sockets),
            db,
            books,
            guard: Guard::default(),
            bridges,
            known: Arc::default(),
            busy: Mutex::default(),
            slots: Semaphore::new(AT_ONCE),
        }
    }

    /// The sockets to the kernel, for one at a time: of lists it gives one socket no two at once.
    pub(super) async fn kernel(&self) -> tokio::sync::MutexGuard<'_, Sockets> {
        self.kernel.lock().await
    }

    /// The bridge as it is now.
    pub(super) fn bridge(&self) -> BridgeEnd {
        self.bridges.borrow().clone()
    }

    /// All that is known, by ident.
    pub(super) fn known(&self) -> BTreeMap<String, Known> {
        self.lock().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host's own addresses on the network.
    pub(super) fn exposed(&self) -> Vec<IpNet> {
        self.lock().get(EXPOSED).map(|known| known.record.addresses.clone()).unwrap_or_default()
    }

    /// The subnets that are in use here.
    pub(super) fn subnets(&self) -> BTreeSet<IpNet> {
        self.lock().values().flat_map(|known| &known.record.addresses).map(IpNet::trunc).collect()
    }

    /// True where no container is attached and the host is not exposed.
    pub fn is_unused(&self) -> bool {
        self.lock().is_empty()
    }

    /// Waits until nobody else works on a container.
    pub(super) async fn turn(&self, ident: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            busy.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(busy.entry(ident.to_owned()).or_default())
        };
        lock.lock_owned().await
    }

    /// True while somebody works on it.
    pub(super) fn is_busy(&self, ident: &str) -> bool {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.get(ident).is_some_and(|lock| lock.try_lock().is_err())
    }

    /// Attaches a container: its addresses, then what is remembered, then the interface, the rules and the names. What fails on the way takes
    /// all before it back.
    pub async fn attach(&self, order: Attach) -> Result<Row, Denied> {
        no_host(&order.ident)?;
        let _turn = self.turn(&order.ident).await;
        let before = self.lock().get(&order.ident).cloned();
        self.same_interface(&order.ident, &order.interface, before.as_ref())?;
        self.check_names(&order.names)?;
        let mut steps = Steps::default();
        let outcome = self.attach_all(&order, before.as_ref(), &mut steps).await;
        if outcome.is_err() {
            self.take_back(&order, before, &steps).await;
        }
        outcome
    }

    async fn attach_all(&self, order: &Attach, before: Option<&Known>, steps: &mut Steps) -> Result<Row, Denied> {
        let held = before.map(|known| known.record.addresses.clone()).unwrap_or_default();
        let addresses = self.resolve(&order.ident, &order.addresses, &held, &mut steps.gained).await?;
        let mut known = before.cloned().unwrap_or_default();
        known.record.add(&addresses, &order.names);
        known.record.netns = Some(order.netns.clone());
        if before.is_none_or(|before| before.record != known.record) {
            self.remember(&order.ident, Some(&known.record)).await?;
        }
        steps.tried = true;
        let attached = self.make(order, &addresses).await?;
        steps.made = attached.made;
        let mac = known.record.mac.filter(|_| !attached.made).unwrap_or(attached.mac);
        if known.record.mac != Some(mac) {
            known.record.mac = Some(mac);
            self.remember(&order.ident, Some(&known.record)).await?;
        }
        known.port = Some((attached.host_end.clone(), mac));
        let subnets = self.subnets();
        self.lock().insert(order.ident.clone(), known);
        // Masquerading tells the mesh's subnets from the outside.
        match subnets != self.subnets() && !self.exposed().is_empty() {
            true => self.enforce().await?,
            false => self.enforce_ports().await?,
        }
        let ips: Vec<IpAddr> = addresses.iter().map(IpNet::addr).collect();
        steps.named.clone_from(&addresses);
        self.add_names(&order.ident, &order.names, &ips).await?;
        self.announce_again(&order.ident, attached.mac, ips);
        Ok(Row::new(&order.ident, attached.mac, addresses))
    }

    async fn make(&self, order: &Attach, addresses: &[IpNet]) -> Result<Attached, Denied> {
        let work = Order {
            ident: order.ident.clone(),
            netns: order.netns.clone(),
            interface: order.interface.clone(),
            addresses: addresses.to_vec(),
            multicast_route: order.multicast_route,
            name_server: self.settings.name_server,
            bridge: self.bridge(),
        };
        self.blocking("attach", move || attach(&work)).await
    }

    /// Takes back what a failed attachment did. What the container had before, it keeps; and what cannot be taken from it, it keeps as well.
    async fn take_back(&self, order: &Attach, before: Option<Known>, steps: &Steps) {
        let ident = &order.ident;
        if steps.tried {
            let new = before.is_none() || steps.made;
            let removal = if new { Removal::All } else { Removal::These(steps.gained.clone()) };
            let (bridge, owned, interface, netns) = (self.bridge().name, ident.clone(), order.interface.clone(), order.netns.clone());
            if let Err(refusal) = self.blocking("detach", move || detach(&bridge, &owned, &interface, &netns, &removal)).await {
                tracing::warn!("{ident} could not be attached, and {:?} stays with it: {refusal}", steps.gained);
                self.lock().get_mut(ident).iter_mut().for_each(|known| known.record.add(&steps.gained, &[]));
                return;
            }
        }
        self.take_back_names(ident, before.as_ref(), &order.names, &steps.named).await;
        let was = match &before {
            Some(before) => self.lock().insert(ident.clone(), before.clone()),
            None => self.lock().remove(ident),
        };
        if was.is_some()
            && let Err(refusal) = self.enforce_ports().await
        {
            tracing::warn!("{refusal}");
        }
        // It may have been dead, with addresses that were to go back: they were kept when it asked for them again.
        let dead = self.books.addresses.as_deref().filter(|_| before.is_none());
        if let Some(book) = dead
            && let Err(refusal) = book.released(ident).await
        {
            tracing::warn!("{refusal}");
        }
        if let Err(refusal) = self.settle(ident, before.map(|known| known.record), &steps.gained, false).await {
            tracing::warn!("{refusal}");
        }
    }

    /// Takes back names that were, or may have been, given to these addresses.
    pub(super) async fn take_back_names(&self, ident: &str, before: Option<&Known>, names: &[String], addresses: &[IpNet]) {
        let Some(book) = self.books.names.as_deref() else { return };
        for name in names {
            let had = before.and_then(|known| known.record.names.iter().find(|(known, _)| known == name)).map_or(&[][..], |(_, of)| of);
            let ips: Vec<IpAddr> = addresses.iter().filter(|address| !had.contains(address)).map(IpNet::addr).collect();
            if !ips.is_empty()
                && let Err(refusal) = book.remove(ident, Some(name), &ips).await
            {
                tracing::warn!("{ident} still has the name {name}: {refusal}");
            }
        }
    }

    /// Detaches a container, or some of its addresses.
    pub async fn detach(&self, order: Detach) -> Result<Vec<IpNet>, Denied> {
        no_host(&order.ident)?;
        let _turn = self.turn(&order.ident).await;
        let known = self.lock().get(&order.ident).cloned();
        self.same_interface(&order.ident, &order.interface, known.as_ref())?;
        let mut has = self.look_at(&order.ident, &order.interface).await?.map(|attachment| attachment.addresses).unwrap_or_default();
        // Also what it was given and took off by itself.
        let given = known.as_ref().map_or(Vec::new(), |known| known.record.addresses.clone());
        has.extend(given.iter().filter(|address| !has.contains(address)).copied().collect::<Vec<_>>());
        let gone = self.select(&order.addresses, order.all, &has)?;
        // Without an address that was given it is not on the network, whatever it gave itself.
        let given = if known.is_some() { given } else { has };
        let everything = order.all || (!gone.is_empty() && given.iter().all(|a| gone.contains(a)));
        let removal = if everything { Removal::All } else { Removal::These(gone.clone()) };
        let (ident, interface) = (order.ident.clone(), order.interface.clone());
        let netns = order.netns.or_else(|| known.as_ref().and_then(|known| known.record.namespace_of(&ident)));
        let (netns, bridge) = (netns.unwrap_or_default(), self.bridge().name);
        self.blocking("detach", move || detach(&bridge, &ident, &interface, &netns, &removal)).await?;
        self.dismiss(&order.ident, known, &gone, everything).await?;
        Ok(gone)
    }

    /// Forgets addresses of a container, or all of it.
    async fn dismiss(&self, ident: &str, known: Option<Known>, gone: &[IpNet], everything: bool) -> Result<(), Denied> {
        let ips: Vec<IpAddr> = gone.iter().map(IpNet::addr).collect();
        if let Some(names) = self.books.names.as_deref().filter(|_| everything || !ips.is_empty()) {
            names.remove(ident, None, if everything { &[] } else { &ips }).await?;
        }
        let left = known.filter(|_| !everything).map(|mut known| {
            known.record.remove(gone);
            known
        });
        let was = match &left {
            Some(left) => self.lock().insert(ident.to_owned(), left.clone()),
            None => self.lock().remove(ident),
        };
        let enforced = if was.is_some() { self.enforce_ports().await } else { Ok(()) };
        let settled = self.settle(ident, left.map(|known| known.record), gone, everything).await;
        enforced.and(settled)
    }

    /// A container is on the network by one interface.
    fn same_interface(&self, ident: &str, interface: &str, known: Option<&Known>) -> Result<(), Denied> {
        match known.and_then(|known| known.port.as_ref()) {
            Some((end, _)) if *end != found::name_of(&self.bridge().name, ident, interface) => {
                Err(Denied::now(format!("{ident} is attached by another interface than {interface}; name that one, or detach it first")))
            }
            _ => Ok(()),
        }
    }

    /// Names are looked at before anything is done.
    pub(super) fn check_names(&self, names: &[String]) -> Result<(), Denied> {
        let Some(book) = self.books.names.as_deref() else { return Ok(()) };
        names.iter().try_for_each(|name| book.check(name))
    }

    /// All containers as the kernel has them, the exposed host first.
    pub async fn list(&self) -> Result<Vec<Row>, Denied> {
        let bridge = self.bridge();
        let said = |error: HostError| Denied::now(error);
        let mut rows = Vec::new();
        let (kernel, exposed) = (self.kernel().await, self.exposed());
        if !exposed.is_empty() {
            let mac = link::by_index(&kernel.host, bridge.index).await.map_err(said)?.map_or([0; 6], |link| link.mac);
            rows.push(Row::new(EXPOSED, mac, exposed));
        }
        for end in found::ends(&kernel.host, &bridge.name).await.map_err(said)? {
            if let Some(found) = found::look(&kernel.strict, &end).await.map_err(said)? {
                rows.push(Row::new(&end.ident, found.mac, found.addresses));
            }
        }
        Ok(rows)
    }

    /// What `status`, `report` and the metrics say.
    pub async fn section(&self) -> Section {
        let rows = self.list().await.unwrap_or_default();
        let containers = rows.iter().filter(|row| row.ident != EXPOSED).count();
        let apart = if self.settings.isolate { ", held to their addresses" } else { "" };
        Section {
            name: "containers",
            overview: vec![("Containers".into(), format!("{containers} attached{apart}"))],
            page: rows.iter().map(Row::line).collect(),
            json: serde_json::json!({ "containers": rows, "isolated": self.settings.isolate }),
            metrics: format!(
                "# HELP weave_containers Containers attached on this host.\n# TYPE weave_containers gauge\nweave_containers {containers}\n"
            ),
        }
    }

    async fn look_at(&self, ident: &str, interface: &str) -> Result<Option<found::Attachment>, Denied> {
        let (bridge, kernel) = (self.bridge().name, self.kernel().await);
        let said = |error: HostError| Denied::now(error);
        let name = found::name_of(&bridge, ident, interface);
        let Some(end) = link::by_name(&kernel.host, &name).await.map_err(said)? else { return Ok(None) };
        let (mtu, other) = (end.mtu, end.elsewhere.zip(end.other_end));
        let end = found::End { ident: ident.into(), name, index: end.index, bridge: end.master, mtu, other };
        found::look(&kernel.strict, &end).await.map_err(said)
    }

    /// On disk before it is done.
    pub(super) async fn remember(&self, ident: &str, record: Option<&Record>) -> Result<(), Denied> {
        let change = (Table::Containers, ident.to_owned(), record.map(Record::to_bytes));
        self.db.commit(vec![change]).await.map_err(Denied::from)
    }

    pub(super) async fn add_names(&self, ident: &str, names: &[String], ips: &[IpAddr]) -> Result<(), Denied> {
        let Some(book) = self.books.names.as_deref() else { return Ok(()) };
        for name in names {
            book.add(ident, name, ips).await?;
        }
        Ok(())
    }

    /// Says again, out of the bridge, where the addresses are. Not of those that the container has no more: another may have them by then.
    fn announce_again(&self, ident: &str, mac: [u8; 6], ips: Vec<IpAddr>) {
        let (bridges, known, ident) = (self.bridges.clone(), Arc::clone(&self.known), ident.to_owned());
        tokio::spawn(async move {
            for pause in AGAIN {
                tokio::time::sleep(pause).await;
                let (bridge, known, ident, ips) = (bridges.borrow().index, Arc::clone(&known), ident.clone(), ips.clone());
                let say = move || {
                    let has = known.lock().unwrap_or_else(PoisonError::into_inner).get(&ident).cloned().unwrap_or_default();
                    let is_its = |ip: &IpAddr| has.record.addresses.iter().any(|address| address.addr() == *ip);
                    let stands = has.port.is_some_and(|(_, its)| its == mac);
                    let told: Vec<IpAddr> = ips.into_iter().filter(|ip| stands && is_its(ip)).collect();
                    announce(bridge, mac, &told)
                };
                // Beside the loop: whoever closes a packet socket waits for all of the kernel, some 20 ms.
                if let Ok(Err(error)) = aside("announce", say).await {
                    tracing::debug!("could not announce again where addresses are: {error}");
                }
            }
        });
    }

    /// Work that blocks, beside the loop, not too much of it at once.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
    ) -> Result<T, Denied> {
        let _slot = self.slots.acquire().await.map_err(|_| Denied::now("the router is stopping"))?;
        match aside(name, work).await {
            Ok(done) => done.map_err(Denied::now),
            Err(_) => Err(Denied::now(format!("the thread that was to {name} failed"))),
        }
    }
}

fn no_host(ident: &str) -> Result<(), Denied> {
    match ident == EXPOSED {
        true => Err(Denied::nonsense(format!("{EXPOSED} is the host itself and no container; `expose` and `hide` are for it"))),
        false => Ok(()),
    }
}
