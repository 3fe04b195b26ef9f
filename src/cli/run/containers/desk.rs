//! What is asked of this part, and its state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{OwnedMutexGuard, Semaphore, watch};

use super::super::aside::aside;
use super::book::Books;
use super::enforce::Guard;
use super::record::Record;
use super::{Settings, Sockets};
use crate::api::Refusal;
use crate::api::containers::{Attach, Detach, EXPOSED, Row};
use crate::api::section::Section;
use crate::host::container::announce::announce;
use crate::host::container::{AddressSpec, Attached, BridgeEnd, Order, Removal, attach, detach, found};
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
    kernel: tokio::sync::Mutex<Sockets>,
    pub(super) db: Db,
    pub(super) books: Books,
    pub(super) guard: Guard,
    bridges: watch::Receiver<BridgeEnd>,
    known: Mutex<BTreeMap<String, Known>>,
    /// One request after the other for each container.
    busy: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    slots: Semaphore,
}

impl Desk {
    /// Nothing is known yet.
    pub fn new(settings: Settings, bridges: watch::Receiver<BridgeEnd>, sockets: Sockets, db: Db, books: Books) -> Desk {
        Desk {
            settings,
            kernel: tokio::sync::Mutex::new(sockets),
            db,
            books,
            guard: Guard::default(),
            bridges,
            known: Mutex::default(),
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
    pub async fn attach(&self, order: Attach) -> Result<Row, Refusal> {
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

    async fn attach_all(&self, order: &Attach, before: Option<&Known>, steps: &mut Steps) -> Result<Row, Refusal> {
        let held = before.map(|known| known.record.addresses.clone()).unwrap_or_default();
        let addresses = self.resolve(&order.ident, &order.addresses, &held, &mut steps.gained).await?;
        let mut known = before.cloned().unwrap_or_default();
        known.record.add(&addresses, &order.names);
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
        if self.settings.isolate || (subnets != self.subnets() && !self.exposed().is_empty()) {
            self.enforce().await?;
        }
        let ips: Vec<IpAddr> = addresses.iter().map(IpNet::addr).collect();
        steps.named.clone_from(&addresses);
        self.add_names(&order.ident, &order.names, &ips).await?;
        self.announce_again(attached.mac, ips);
        Ok(Row::new(&order.ident, attached.mac, addresses))
    }

    async fn make(&self, order: &Attach, addresses: &[IpNet]) -> Result<Attached, Refusal> {
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
            && self.settings.isolate
            && let Err(refusal) = self.enforce().await
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
    pub async fn detach(&self, order: Detach) -> Result<Vec<IpNet>, Refusal> {
        no_host(&order.ident)?;
        let _turn = self.turn(&order.ident).await;
        let known = self.lock().get(&order.ident).cloned();
        self.same_interface(&order.ident, &order.interface, known.as_ref())?;
        let mut has = self.look_at(&order.ident, &order.interface).await?.map(|attachment| attachment.addresses).unwrap_or_default();
        // Also what it was given and took off by itself.
        let given = known.as_ref().map_or(Vec::new(), |known| known.record.addresses.clone());
        has.extend(given.iter().filter(|address| !has.contains(address)).copied().collect::<Vec<_>>());
        let gone = self.select(&order.addresses, order.all, &has).await?;
        // Without an address that was given it is not on the network, whatever it gave itself.
        let given = if known.is_some() { given } else { has };
        let everything = order.all || (!gone.is_empty() && given.iter().all(|a| gone.contains(a)));
        let removal = if everything { Removal::All } else { Removal::These(gone.clone()) };
        let (ident, interface) = (order.ident.clone(), order.interface.clone());
        let (netns, bridge) = (order.netns.clone().unwrap_or_default(), self.bridge().name);
        self.blocking("detach", move || detach(&bridge, &ident, &interface, &netns, &removal)).await?;
        self.dismiss(&order.ident, known, &gone, everything).await?;
        Ok(gone)
    }

    /// Forgets addresses of a container, or all of it.
    async fn dismiss(&self, ident: &str, known: Option<Known>, gone: &[IpNet], everything: bool) -> Result<(), Refusal> {
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
        let enforced = if was.is_some() && self.settings.isolate { self.enforce().await } else { Ok(()) };
        let settled = self.settle(ident, left.map(|known| known.record), gone, everything).await;
        enforced.and(settled)
    }

    /// Gives addresses back, or `all` of them, and then remembers what is `left`. What is not free is remembered as well, for the next start:
    /// that it cannot be given back now is no reason not to detach.
    pub(super) async fn settle(&self, ident: &str, left: Option<Record>, gone: &[IpNet], all: bool) -> Result<(), Refusal> {
        let mut record = left.clone().unwrap_or_default();
        record.leaving.extend(gone.iter().filter(|address| !record.leaving.contains(address)).copied().collect::<Vec<_>>());
        record.leaving = self.free(ident, &record.leaving, all).await;
        self.lock().get_mut(ident).iter_mut().for_each(|known| known.record.leaving.clone_from(&record.leaving));
        let keep = left.is_some() || !record.leaving.is_empty();
        self.remember(ident, keep.then_some(&record)).await
    }

    /// Gives addresses back, or `all` that the container has; answers with those that are not free.
    async fn free(&self, ident: &str, addresses: &[IpNet], all: bool) -> Vec<IpNet> {
        let Some(book) = self.books.addresses.as_deref() else { return Vec::new() };
        if all {
            let freed = book.free(ident, None).await;
            return freed.map_or_else(|refusal| not_free(ident, addresses, &refusal), |()| Vec::new());
        }
        let freed = addresses.iter().map(|address| async move {
            let freed = book.free(ident, Some(address.addr())).await;
            freed.map_or_else(|refusal| not_free(ident, std::slice::from_ref(address), &refusal), |()| Vec::new())
        });
        futures::future::join_all(freed).await.concat()
    }

    /// A container is on the network by one interface.
    fn same_interface(&self, ident: &str, interface: &str, known: Option<&Known>) -> Result<(), Refusal> {
        match known.and_then(|known| known.port.as_ref()) {
            Some((end, _)) if *end != found::name_of(&self.bridge().name, ident, interface) => {
                Err(Refusal(format!("{ident} is attached by another interface than {interface}; name that one, or detach it first")))
            }
            _ => Ok(()),
        }
    }

    /// Names are looked at before anything is done.
    pub(super) fn check_names(&self, names: &[String]) -> Result<(), Refusal> {
        let Some(book) = self.books.names.as_deref() else { return Ok(()) };
        names.iter().try_for_each(|name| book.check(name))
    }

    /// All containers as the kernel has them, the exposed host first.
    pub async fn list(&self) -> Result<Vec<Row>, Refusal> {
        let bridge = self.bridge();
        let said = |error: HostError| Refusal(error.to_string());
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
        let exposed = rows.iter().find(|row| row.ident == EXPOSED);
        let containers = rows.len() - usize::from(exposed.is_some());
        let addresses = |row: &Row| row.addresses.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" ");
        let apart = if self.settings.isolate { ", held to their addresses" } else { "" };
        Section {
            name: "containers",
            overview: vec![
                ("Containers".into(), format!("{containers} attached{apart}")),
                ("Exposed".into(), exposed.map_or("no".into(), addresses)),
            ],
            page: rows.iter().map(Row::line).collect(),
            json: serde_json::json!({ "containers": rows, "isolated": self.settings.isolate }),
            metrics: format!(
                "# HELP weave_containers Containers attached on this host.\n# TYPE weave_containers gauge\nweave_containers {containers}\n\
                 # HELP weave_exposed_addresses Addresses of this host on its bridge.\n# TYPE weave_exposed_addresses gauge\n\
                 weave_exposed_addresses {}\n",
                exposed.map_or(0, |row| row.addresses.len())
            ),
        }
    }

    /// The addresses that are meant; those that `ident` did not hold before are noted in `gained`, also where a later one fails.
    pub(super) async fn resolve(
        &self,
        ident: &str,
        specs: &[AddressSpec],
        held: &[IpNet],
        gained: &mut Vec<IpNet>,
    ) -> Result<Vec<IpNet>, Refusal> {
        let specs = if specs.is_empty() { &[AddressSpec::Default][..] } else { specs };
        let mut had = held.to_vec();
        if let Some(book) = self.books.addresses.as_deref() {
            had.extend(book.lookup(ident).await?);
        }
        let mut addresses: Vec<IpNet> = Vec::new();
        for spec in specs {
            let address = match (spec, self.books.addresses.as_deref()) {
                (AddressSpec::Fixed(address), Some(book)) => book.claim(ident, *address).await.map(|()| *address)?,
                (AddressSpec::Fixed(address), None) => *address,
                (AddressSpec::Subnet(subnet), _) => self.books.addresses()?.allocate(ident, Some(*subnet)).await?,
                (AddressSpec::Default, _) => self.books.addresses()?.allocate(ident, None).await?,
            };
            if !had.contains(&address) {
                gained.push(address);
            }
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// Those of `has` that are meant. The default subnet needs nobody's consent.
    pub(super) async fn select(&self, specs: &[AddressSpec], all: bool, has: &[IpNet]) -> Result<Vec<IpNet>, Refusal> {
        if all {
            return Ok(has.to_vec());
        }
        let specs = if specs.is_empty() { &[AddressSpec::Default][..] } else { specs };
        let mut gone = Vec::new();
        for spec in specs {
            let subnet = match spec {
                AddressSpec::Fixed(address) => {
                    gone.extend(has.contains(address).then_some(*address));
                    continue;
                }
                AddressSpec::Subnet(subnet) => *subnet,
                AddressSpec::Default => self.books.addresses()?.default_subnet().await?,
            };
            gone.extend(has.iter().filter(|address| address.trunc() == subnet));
        }
        gone.sort_unstable();
        gone.dedup();
        Ok(gone)
    }

    async fn look_at(&self, ident: &str, interface: &str) -> Result<Option<found::Attachment>, Refusal> {
        let (bridge, kernel) = (self.bridge().name, self.kernel().await);
        let said = |error: HostError| Refusal(error.to_string());
        let name = found::name_of(&bridge, ident, interface);
        let Some(end) = link::by_name(&kernel.host, &name).await.map_err(said)? else { return Ok(None) };
        let end = found::End { ident: ident.into(), name, index: end.index, bridge: end.master, other: end.elsewhere.zip(end.other_end) };
        found::look(&kernel.strict, &end).await.map_err(said)
    }

    /// On disk before it is done.
    pub(super) async fn remember(&self, ident: &str, record: Option<&Record>) -> Result<(), Refusal> {
        let change = (Table::Containers, ident.to_owned(), record.map(Record::to_bytes));
        self.db.commit(vec![change]).await.map_err(|error| Refusal(error.to_string()))
    }

    pub(super) async fn add_names(&self, ident: &str, names: &[String], ips: &[IpAddr]) -> Result<(), Refusal> {
        let Some(book) = self.books.names.as_deref() else { return Ok(()) };
        for name in names {
            book.add(ident, name, ips).await?;
        }
        Ok(())
    }

    /// Says again, out of the bridge, where the addresses are.
    fn announce_again(&self, mac: [u8; 6], ips: Vec<IpAddr>) {
        let bridges = self.bridges.clone();
        tokio::spawn(async move {
            for pause in AGAIN {
                tokio::time::sleep(pause).await;
                let bridge = bridges.borrow().index;
                if let Err(error) = announce(bridge, mac, &ips) {
                    tracing::debug!("could not announce {ips:?}: {error}");
                }
            }
        });
    }

    /// Work that blocks, beside the loop, not too much of it at once.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let _slot = self.slots.acquire().await.map_err(|_| Refusal("the router is stopping".into()))?;
        match aside(name, work).await {
            Ok(done) => done.map_err(|error| Refusal(error.to_string())),
            Err(_) => Err(Refusal(format!("the thread that was to {name} failed"))),
        }
    }
}

fn no_host(ident: &str) -> Result<(), Refusal> {
    match ident == EXPOSED {
        true => Err(Refusal(format!("{EXPOSED} is the host itself and no container; `expose` and `hide` are for it"))),
        false => Ok(()),
    }
}

fn not_free(ident: &str, addresses: &[IpNet], refusal: &Refusal) -> Vec<IpNet> {
    tracing::warn!("{addresses:?} of {ident} cannot be given back before the next start: {refusal}");
    addresses.to_vec()
}
