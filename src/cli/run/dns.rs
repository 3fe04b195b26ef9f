//! The names of the containers: keeps what this router publishes and what the others say, and runs the name server.
//!
//! A task on the management plane takes requests and what the mesh plane says; the name server has a thread of its own, so that a flood of
//! queries holds up nothing but itself. Both share the view.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::super::config::DnsConfig;
use super::planes;
use super::status::Count;
use crate::api::names::{Known, NamesHandle, NamesRequest};
use crate::api::{Denied, Refusal};
use crate::dns::asked::EVERY;
use crate::dns::listen::{Ears, Place};
use crate::dns::{Config, DnsCounters, PORT, SERVICE_ADDRESS, Server};
use crate::io::clock::Clock;
use crate::io::mailbox::Sender;
use crate::io::mesh_thread::MeshInput;
use crate::io::sys::process::allow_open_files;
use crate::mesh::apps::{AppEvent, Channel, NAMES_RECORD};
use crate::mesh::command::Command;
use crate::names::{Holding, NamesCounters, Own, Refused, Unusable, View};
use crate::store::db::{Change, Db, Table};
use crate::wire::PeerName;
use crate::wire::names::ASKED;

/// Changes within this time of the last record go into one: hundreds of containers may start at once.
const GATHER: Duration = Duration::from_millis(100);
/// Most queries that wait for other name servers.
const IN_FLIGHT: usize = 4096;
/// Most sentences about records of other routers that are said.
const COMPLAINTS: usize = 64;

/// What the rest of the router holds of the names.
pub struct Dns {
    places: watch::Sender<BTreeSet<Place>>,
    given: Vec<SocketAddr>,
    thread: Option<JoinHandle<()>>,
    counters: (Arc<DnsCounters>, Arc<NamesCounters>),
}

/// What the names need of the router.
pub struct Needs {
    /// This router's name.
    pub name: PeerName,
    /// Its nickname.
    pub nickname: String,
    /// Where names are kept.
    pub db: Db,
    /// The mesh plane.
    pub mesh: Sender<MeshInput>,
    /// What it says.
    pub events: mpsc::Receiver<AppEvent>,
    /// The time.
    pub clock: Clock,
}

impl Dns {
    /// Takes up what was kept, publishes it and starts the name server.
    pub fn start(config: &DnsConfig, needs: Needs) -> anyhow::Result<(Dns, NamesHandle)> {
        let Needs { name, nickname, db, mesh, events, clock } = needs;
        let view = Arc::new(RwLock::new(View::new(config.domain.clone(), name, &nickname)));
        let counters = (Arc::<DnsCounters>::default(), Arc::<NamesCounters>::default());
        let ears = Ears::default();
        let server = Config { ttl: config.ttl, resolv_conf: config.resolv_conf.clone(), patience: config.patience, in_flight: in_flight() };
        let mut server = Server::new(&server, Arc::clone(&view), ears.clone(), clock, Arc::clone(&counters.0))
            .context("cannot start the name server")?;
        let known = Known {
            view: Arc::clone(&view),
            domain: config.domain.clone(),
            ears,
            upstream: server.upstream(),
            given: config.listen.clone(),
            ttl: config.ttl,
            asked: server.asked(),
        };
        let (handle, requests) = NamesHandle::new(known);
        let keeper = Keeper {
            own: Own::new(config.domain.clone()),
            kept: BTreeSet::new(),
            view,
            db,
            mesh,
            counters: Arc::clone(&counters.1),
            complaints: BTreeSet::new(),
            publish: None,
            name,
            watched: None,
        };
        let asked = server.told().context("cannot start the name server")?;
        tokio::spawn(keeper.run(requests, events, asked));
        let (places, receiver) = watch::channel(BTreeSet::new());
        let thread = spawn(server, receiver)?;
        Ok((Dns { places, given: config.listen.clone(), thread: Some(thread), counters }, handle))
    }

    /// What is counted, by plane.
    pub fn counters(&self) -> Vec<(&'static str, Count)> {
        let (dns, names) = self.counters.clone();
        vec![("dns", Box::new(move || dns.read())), ("names", Box::new(move || names.read()))]
    }

    /// True where the name server's own address is to be on the bridge.
    fn on_bridge(&self) -> bool {
        self.given.is_empty()
    }

    /// The bridge, by name and index, has these addresses now.
    pub fn follow(&self, device: &(String, u32), addresses: &[IpAddr]) {
        let usual = || {
            let place = |ip: &IpAddr| Place { address: (*ip, PORT).into(), device: (*ip == SERVICE_ADDRESS).then(|| device.clone()) };
            addresses.iter().map(place).chain([Place::plain((Ipv4Addr::LOCALHOST, PORT).into())]).collect()
        };
        let wanted = if self.on_bridge() { usual() } else { self.given.iter().copied().map(Place::plain).collect() };
        self.places.send_if_modified(|places| {
            let changed = *places != wanted;
            *places = wanted;
            changed
        });
    }

    /// Ends the name server.
    pub fn stop(mut self) {
        let thread = self.thread.take();
        drop(self.places);
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the name server failed");
        }
    }
}

/// How many queries may wait for other name servers: half of the files that may be open, at most.
fn in_flight() -> usize {
    let files = allow_open_files(2 * IN_FLIGHT as u64).unwrap_or_else(|error| {
        tracing::debug!("cannot ask how many files may be open: {error}");
        512
    });
    usize::try_from(files / 2).map_or(IN_FLIGHT, |half| half.min(IN_FLIGHT))
}

/// The name server in a thread of its own, until `places` is dropped.
fn spawn(server: Server, places: watch::Receiver<BTreeSet<Place>>) -> anyhow::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the name server")?;
    let work = move || {
        runtime.block_on(server.run(places));
        // Queries that wait for other name servers are not worth waiting for.
        runtime.shutdown_background();
    };
    std::thread::Builder::new().name("dns".into()).spawn(work).context("cannot start the thread of the name server")
}

/// The task that keeps the names.
struct Keeper {
    own: Own,
    /// What stands in the state file, by ident and relative name.
    kept: BTreeSet<(String, String)>,
    view: Arc<RwLock<View>>,
    db: Db,
    mesh: Sender<MeshInput>,
    counters: Arc<NamesCounters>,
    /// Sentences that were said.
    complaints: BTreeSet<String>,
    /// When what changed is to be published.
    publish: Option<Instant>,
    /// This router.
    name: PeerName,
    /// When the mesh plane was last told that others ask for our names.
    watched: Option<Instant>,
}

impl Keeper {
    async fn run(
        mut self,
        mut requests: mpsc::Receiver<NamesRequest>,
        mut events: mpsc::Receiver<AppEvent>,
        mut asked: mpsc::Receiver<PeerName>,
    ) {
        self.take_up().await;
        // What was said before this part was there.
        self.send(Command::Refresh);
        loop {
            let due = self.publish;
            let publish = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.on_request(request).await,
                    None => return,
                },
                Some(event) = events.recv() => self.on_event(event),
                Some(holder) = asked.recv() => self.on_asked(holder),
                () = publish => self.publish(),
            }
        }
    }

    /// Reads what was kept.
    async fn take_up(&mut self) {
        let rows = self.db.all(Table::Names).await.unwrap_or_else(|error| {
            tracing::error!("names that were kept are not served: {error}");
            Vec::new()
        });
        for (key, value) in rows {
            let Some(holding) = read_row(&key, &value) else {
                tracing::warn!("the name kept as '{}' cannot be read and is left out", key.escape_debug());
                continue;
            };
            let name = self.own.domain().full(&holding.name);
            match self.own.add(&holding.ident, &name, &holding.addresses) {
                Ok(_) => drop(self.kept.insert((holding.ident, holding.name))),
                Err(error) => tracing::warn!("a name that was kept is left out: {error}"),
            }
        }
        self.changed();
    }

    async fn on_request(&mut self, request: NamesRequest) {
        match request {
            NamesRequest::Add { ident, name, addresses, keep, answer } => {
                drop(answer.send(self.add(&ident, &name, &addresses, keep).await))
            }
            NamesRequest::Remove { ident, name, addresses, answer } => {
                drop(answer.send(self.remove(ident.as_deref(), name.as_deref(), &addresses).await));
            }
        }
    }

    /// On disk, where it is to be kept, before it is acknowledged.
    async fn add(&mut self, ident: &str, name: &str, addresses: &[IpAddr], keep: bool) -> Result<(), Denied> {
        let relative = self.own.domain().relative(name).map_err(Denied::nonsense)?;
        let key = (ident.to_string(), relative);
        let before = self.own.get(&key.0, &key.1).map(|holding| holding.addresses).unwrap_or_default();
        self.own.add(ident, name, addresses).map_err(|error| match error {
            Refused::Full(_) => {
                self.counters.refused_full.inc();
                Refusal(error.to_string()).into()
            }
            Refused::Name(_) | Refused::Ident(_) | Refused::Address(_) => Denied::nonsense(error),
        })?;
        if keep || self.kept.contains(&key) {
            let holding = self.own.get(&key.0, &key.1);
            if let Err(error) = self.db.commit(vec![row(&key, holding.as_ref())]).await {
                let fresh: Vec<IpAddr> = addresses.iter().filter(|address| !before.contains(address)).copied().collect();
                if !fresh.is_empty() {
                    let _ = self.own.remove(ident, Some(name), &fresh);
                }
                return Err(error.into());
            }
            self.kept.insert(key);
        }
        self.changed();
        Ok(())
    }

    async fn remove(&mut self, ident: Option<&str>, name: Option<&str>, addresses: &[IpAddr]) -> Result<(), Denied> {
        let idents: BTreeSet<String> = match ident {
            Some(ident) => BTreeSet::from([ident.to_string()]),
            None => self.own.holdings().map(|holding| holding.ident).collect(),
        };
        let mut rows: Vec<Change> = Vec::new();
        let mut gone = Vec::new();
        for ident in idents {
            let changed = self.own.remove(&ident, name, addresses).map_err(Denied::nonsense)?;
            for holding in changed {
                let key = (holding.ident.clone(), holding.name.clone());
                if self.kept.contains(&key) {
                    rows.push(row(&key, Some(&holding).filter(|holding| !holding.addresses.is_empty())));
                }
                if holding.addresses.is_empty() {
                    gone.push(key);
                }
            }
        }
        self.changed();
        // What an earlier removal could not take from the disk.
        let stale: Vec<(String, String)> = self.kept.iter().filter(|key| self.own.get(&key.0, &key.1).is_none()).cloned().collect();
        rows.extend(stale.iter().map(|key| row(key, None)));
        gone.extend(stale);
        if !rows.is_empty() {
            self.db.commit(rows).await?;
        }
        for key in &gone {
            self.kept.remove(key);
        }
        Ok(())
    }

    /// Answers here are true at once; the record follows.
    fn changed(&mut self) {
        self.view.write().unwrap_or_else(PoisonError::into_inner).set_own(self.own.bodies());
        if self.publish.is_none() {
            self.publish = Some(Instant::now() + GATHER);
        }
    }

    fn publish(&mut self) {
        let sent = self.send(Command::Publish { kind: NAMES_RECORD, chunks: self.own.chunks() });
        // The mesh plane is busy: once more, a little later.
        self.publish = (!sent).then(|| Instant::now() + GATHER);
    }

    fn send(&self, command: Command) -> bool {
        planes::send(&self.mesh, command)
    }

    /// Names of that router were asked for: it is to be noticed soon when it is gone.
    fn on_asked(&self, holder: PeerName) {
        self.send(Command::Watch(vec![holder]));
        self.send(Command::Tell { to: holder, channel: Channel::Names, body: ASKED.to_vec() });
    }

    /// Names of ours were asked for on another router. Any number of them may say so.
    fn on_told(&mut self, body: &[u8]) {
        let now = Instant::now();
        if body.starts_with(ASKED) && self.watched.is_none_or(|at| now - at >= EVERY / 2) {
            self.watched = Some(now);
            self.send(Command::Watch(vec![self.name]));
        }
    }

    fn on_event(&mut self, event: AppEvent) {
        if let AppEvent::Told { body, .. } = event {
            return self.on_told(&body);
        }
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            AppEvent::Record { origin, kind: NAMES_RECORD, chunk, body } => {
                let outcome = view.record(origin, chunk, body.as_deref());
                drop(view);
                if let Err(error) = outcome {
                    self.complain(&error);
                }
            }
            AppEvent::Peer { peer, nickname, reachable, .. } => view.peer(peer, &nickname, reachable),
            AppEvent::Forgotten { peer } => view.forget(peer),
            AppEvent::Record { .. } | AppEvent::Told { .. } => {}
        }
    }

    /// Each sentence is said once: its cause comes again with every record.
    fn complain(&mut self, error: &Unusable) {
        match error {
            Unusable::Bad(..) | Unusable::Chunk(_) => self.counters.drop_bad_record.inc(),
            Unusable::Foreign { .. } => self.counters.drop_foreign_domain.inc(),
            Unusable::NoRoom(_) => self.counters.drop_no_room.inc(),
        }
        let sentence = error.to_string();
        if self.complaints.len() < COMPLAINTS && !self.complaints.contains(&sentence) {
            tracing::warn!("{sentence}");
            self.complaints.insert(sentence);
        }
    }
}

/// Version of the rows in the state file.
const ROW: u8 = 1;

/// The row of a name: "ident name", neither of which has a space; its addresses as text, one a line.
fn row((ident, name): &(String, String), holding: Option<&Holding>) -> Change {
    let value = holding.map(|holding| {
        let lines: String = holding.addresses.iter().map(|address| format!("{address}\n")).collect();
        [&[ROW][..], lines.as_bytes()].concat()
    });
    (Table::Names, format!("{ident} {name}"), value)
}

fn read_row(key: &str, value: &[u8]) -> Option<Holding> {
    let (ident, name) = key.split_once(' ')?;
    let (&ROW, lines) = value.split_first()? else { return None };
    let addresses: Result<Vec<IpAddr>, _> = std::str::from_utf8(lines).ok()?.lines().map(str::parse).collect();
    Some(Holding { ident: ident.into(), name: name.into(), addresses: addresses.ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_written() {
        let addresses: Vec<IpAddr> = vec![[10, 32, 0, 1].into(), "fd00::1".parse().expect("an address")];
        let holding = Holding { ident: "netns:/run/netns/a".into(), name: "web.a".into(), addresses };
        let key = (holding.ident.clone(), holding.name.clone());
        let (table, key, value) = row(&key, Some(&holding));
        let value = value.expect("a value");
        assert_eq!((table, read_row(&key, &value)), (Table::Names, Some(holding)));
        for (key, value) in [("nospace", &value[..]), (key.as_str(), b""), (key.as_str(), b"\x02"), (key.as_str(), b"\x01nonsense")] {
            assert_eq!(read_row(key, value), None, "{key} {value:?}");
        }
    }
}
