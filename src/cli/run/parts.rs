//! The parts of the container network, as far as this router was asked to have them: started, joined to the API and the status.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use futures::FutureExt;
use ipnet::IpNet;

use super::super::RunConfig;
use super::apps::Apps;
use super::containers::book::{self, Books, Told};
use super::containers::far::Mesh;
use super::containers::{Containers, Ends, Settings, Sockets};
use super::dns::{self, Dns};
use super::ipam;
use super::keeper::Doorbell;
use super::planes::Planes;
use super::status::Count;
use crate::api::Denied;
use crate::api::ipam::IpamHandle;
use crate::api::names::{self, NamesHandle};
use crate::api::section::Ask;
use crate::crypto::Identity;
use crate::host::container::BridgeEnd;
use crate::io::clock::Clock;
use crate::mesh::apps::{Channel, IPAM_RECORD, NAMES_RECORD, SUBNETS_RECORD};
use crate::store::db::Db;
use crate::wire::PeerName;
use crate::wire::ipam::Range;

/// What the parts stand on.
pub struct Ground<'a> {
    /// This router's name.
    pub name: PeerName,
    /// Its keys.
    pub identity: Arc<Identity>,
    /// The time.
    pub clock: Clock,
    /// The state.
    pub db: &'a Db,
    /// The threads.
    pub planes: &'a Planes,
    /// The way to the kernel.
    pub sockets: Sockets,
    /// The bridge.
    pub bridge: BridgeEnd,
    /// Tells who looks after other programs' firewalls.
    pub doorbell: Doorbell,
}

/// What the parts add to the API and the status.
pub struct Parts {
    /// Their pages.
    pub routes: Router,
    /// What they say of themselves.
    pub sections: Vec<Ask>,
    /// What they count, by plane.
    pub counts: Vec<(&'static str, Count)>,
    /// The name server.
    pub dns: Option<Dns>,
    /// Containers, and the host itself on the network.
    pub containers: Containers,
}

impl Parts {
    /// Starts them.
    pub fn start(config: &RunConfig, ground: Ground<'_>, apps: &mut Apps) -> Parts {
        let (dns, names) = start_names(config, &ground, apps).unzip();
        let on_the_bridge = config.dns.as_ref().is_some_and(|dns| dns.listen.is_empty());
        let name_server = on_the_bridge.then_some(crate::dns::SERVICE_ADDRESS);
        let addresses = start_addresses(config, &ground, apps);
        let given = addresses.clone().map(|addresses| Arc::new(addresses) as Arc<dyn book::Addresses>);
        let books = Books { addresses: given, names: names.clone().map(|names| Arc::new(names) as Arc<dyn book::Names>) };
        let ranges = config.ipam.iter().flat_map(|book| &book.ranges).filter_map(Range::network).collect();
        let subnets = config.ipam.as_ref().map(|book| book.subnets.clone()).unwrap_or_default();
        let settings = Settings { isolate: config.isolate, ranges, subnets, name_server };
        let mesh = Mesh { mailbox: ground.planes.mesh(), events: apps.listen(SUBNETS_RECORD) };
        let containers = Containers::start(
            settings,
            Ends { sockets: ground.sockets, bridge: ground.bridge, doorbell: ground.doorbell, mesh },
            ground.db,
            books,
        );
        let names = names.unwrap_or_else(NamesHandle::off);
        let mut routes = names::routes(names.clone()).merge(containers.routes());
        let mut sections = vec![of_names(names)];
        sections.extend(containers.sections());
        if let Some(addresses) = addresses {
            routes = routes.merge(crate::api::ipam::routes(addresses.clone()));
            sections.insert(0, Box::new(move |_| crate::api::ipam::section(addresses.clone()).boxed()));
        }
        let counts = dns.iter().flat_map(Dns::counters).collect();
        Parts { routes, sections, counts, dns, containers }
    }
}

/// The address book, where `--ipalloc-range` is not empty.
fn start_addresses(config: &RunConfig, ground: &Ground<'_>, apps: &mut Apps) -> Option<IpamHandle> {
    let book = crate::ipam::Config { nickname: config.nickname.clone(), ..config.ipam.clone()? };
    let (handle, asks) = IpamHandle::new();
    let ends = ipam::Ends { events: apps.join(Channel::Ipam, IPAM_RECORD), asks, mesh: ground.planes.mesh() };
    tokio::spawn(ipam::run(book, Arc::clone(&ground.identity), ground.db.clone(), ground.clock, ends));
    Some(handle)
}

/// Names, where they are not switched off. Without them the router does everything else.
fn start_names(config: &RunConfig, ground: &Ground<'_>, apps: &mut Apps) -> Option<(Dns, NamesHandle)> {
    let dns = config.dns.as_ref()?;
    let events = apps.join(Channel::Names, NAMES_RECORD);
    let (name, nickname, clock) = (ground.name, config.nickname.clone(), ground.clock);
    let needs = dns::Needs { name, nickname, db: ground.db.clone(), mesh: ground.planes.mesh(), events, clock };
    Dns::start(dns, needs).inspect_err(|error| tracing::error!("names are not served: {error:#}")).ok()
}

fn of_names(names: NamesHandle) -> Ask {
    Box::new(move |scope| {
        let (asked, whole) = (names.clone(), scope.holds(names::SECTION));
        async move { names::section(&asked, whole).await }.boxed()
    })
}

impl book::Names for NamesHandle {
    fn check(&self, name: &str) -> Result<(), Denied> {
        self.known().map_or(Ok(()), |known| known.domain.relative(name).map(drop).map_err(Denied::nonsense))
    }

    fn add<'a>(&'a self, ident: &'a str, name: &'a str, addresses: &'a [IpAddr]) -> Told<'a, ()> {
        self.add(ident, name, addresses).boxed()
    }

    fn remove<'a>(&'a self, ident: &'a str, name: Option<&'a str>, addresses: &'a [IpAddr]) -> Told<'a, ()> {
        self.remove(ident, name, addresses).boxed()
    }
}

impl book::Addresses for IpamHandle {
    fn allocate<'a>(&'a self, ident: &'a str, subnet: IpNet) -> Told<'a, IpNet> {
        self.allocate(ident, Some(subnet)).boxed()
    }

    fn claim<'a>(&'a self, ident: &'a str, address: IpNet) -> Told<'a, ()> {
        self.claim(ident, address).boxed()
    }

    fn lookup<'a>(&'a self, ident: &'a str) -> Told<'a, Vec<IpNet>> {
        self.lookup(ident).boxed()
    }

    fn free<'a>(&'a self, ident: &'a str, address: Option<IpAddr>) -> Told<'a, ()> {
        self.free(ident, address).boxed()
    }

    fn released<'a>(&'a self, ident: &'a str) -> Told<'a, ()> {
        self.released(ident).boxed()
    }

    fn reserve(&self, held: Vec<(String, IpNet)>, host: Vec<IpNet>) -> Told<'_, ()> {
        self.reserve(held, host).boxed()
    }
}
