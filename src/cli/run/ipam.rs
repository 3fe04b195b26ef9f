//! The address book on the management plane: hears the mesh, asks the disk, answers the API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand_core::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::planes::send;
use crate::api::ipam::Ask;
use crate::crypto::{Ed25519, Identity};
use crate::io::clock::Clock;
use crate::io::entropy;
use crate::io::mailbox::Sender;
use crate::io::mesh_thread::MeshInput;
use crate::ipam::{Answer, Config, Ipam, Output, Sorry, Table};
use crate::mesh::apps::{AppEvent, Channel, IPAM_RECORD};
use crate::mesh::command::Command;
use crate::store::db::{self, Db};
use crate::wire::PeerName;

/// The ends of the channels that it lives between.
pub struct Ends {
    /// What the mesh plane says.
    pub events: mpsc::Receiver<AppEvent>,
    /// What the API asks.
    pub asks: mpsc::Receiver<Ask>,
    /// The mesh plane's mailbox.
    pub mesh: Sender<MeshInput>,
}

/// Between attempts to tell a mesh plane that is too busy.
const AGAIN: Duration = Duration::from_millis(100);

/// What was asked to be written, and whether it is on disk.
type Written = (u64, bool);

/// The address book and what waits for it.
struct Actor {
    ipam: Ipam,
    ends: Ends,
    db: Db,
    clock: Clock,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Answer, Sorry>>>,
    requests: u64,
    names: BTreeMap<PeerName, String>,
    /// When our record is to be said again, which the mesh plane was too busy to hear.
    unsaid: Option<Instant>,
    written: (mpsc::UnboundedSender<Written>, mpsc::UnboundedReceiver<Written>),
}

/// Reads what the disk has, and runs until the channels close.
pub async fn run(config: Config, identity: Arc<Identity>, db: Db, clock: Clock, ends: Ends) {
    match Actor::load(config, identity, db, clock, ends).await {
        Ok(actor) => actor.run().await,
        Err(error) => tracing::error!("{error}; no addresses are given"),
    }
}

impl Actor {
    async fn load(config: Config, identity: Arc<Identity>, db: Db, clock: Clock, ends: Ends) -> anyhow::Result<Actor> {
        let (ring, addresses) = (db.all(db::Table::Ipam).await?, db.all(db::Table::Addresses).await?);
        let mut seed = [0; 32];
        entropy::generator()?.fill_bytes(&mut seed);
        let ipam = Ipam::new(config, identity, Arc::new(Ed25519), seed, clock.now(), ring, addresses);
        Ok(Actor {
            ipam,
            ends,
            db,
            clock,
            waiting: BTreeMap::new(),
            requests: 0,
            names: BTreeMap::new(),
            written: mpsc::unbounded_channel(),
            unsaid: None,
        })
    }

    async fn run(mut self) {
        // Whatever the mesh plane has said before we listened is said again.
        while !send(&self.ends.mesh, Command::Refresh) {
            sleep(AGAIN).await;
        }
        loop {
            self.drain();
            let now = self.clock.now();
            let pause = self.ipam.next_timeout().since(now);
            tokio::select! {
                event = self.ends.events.recv() => match event {
                    Some(event) => self.hear(event),
                    None => return,
                },
                ask = self.ends.asks.recv() => match ask {
                    Some(ask) => self.asked(ask),
                    None => return,
                },
                Some((token, done)) = self.written.1.recv() => self.ipam.persisted(self.clock.now(), token, done),
                () = sleep_until(self.unsaid.unwrap_or_else(Instant::now)), if self.unsaid.is_some() => {
                    self.unsaid = None;
                    self.ipam.republish();
                }
                () = sleep(pause) => self.ipam.timeout(self.clock.now()),
            }
        }
    }

    fn hear(&mut self, event: AppEvent) {
        let now = self.clock.now();
        match event {
            AppEvent::Told { from, body, .. } => self.ipam.told(now, from, &body),
            AppEvent::Record { origin, chunk, body, .. } => self.ipam.record(now, origin, chunk, body.as_deref()),
            AppEvent::Peer { peer, nickname, reachable, .. } => {
                self.ipam.peer(now, peer, &nickname, reachable);
                self.names.insert(peer, nickname);
            }
            AppEvent::Forgotten { peer } => self.ipam.forgotten(now, peer),
        }
    }

    fn asked(&mut self, ask: Ask) {
        // Whoever asked may have gone; then nobody hears the answer.
        match ask {
            Ask::Do(request, answer) => {
                self.forget_gone();
                self.requests += 1;
                self.waiting.insert(self.requests, answer);
                self.ipam.request(self.clock.now(), self.requests, request);
            }
            Ask::Lookup(ident, answer) => drop(answer.send(self.ipam.lookup(&ident))),
            Ask::All(answer) => drop(answer.send(self.ipam.addresses())),
            Ask::Status(answer) => drop(answer.send((self.ipam.status(), self.ipam.counters().read()))),
            Ask::Find(text, answer) => drop(answer.send(self.find(&text))),
            Ask::DefaultSubnet(answer) => drop(answer.send(self.ipam.default_subnet())),
        }
    }

    /// Requests whose askers have hung up are given up.
    fn forget_gone(&mut self) {
        let gone: Vec<u64> = self.waiting.iter().filter(|(_, answer)| answer.is_closed()).map(|(request, _)| *request).collect();
        for request in gone {
            self.waiting.remove(&request);
            self.ipam.cancel(request);
        }
    }

    fn find(&self, text: &str) -> Vec<PeerName> {
        if let Ok(name) = text.parse() {
            return vec![name];
        }
        self.names.iter().filter(|(_, nickname)| *nickname == text).map(|(name, _)| *name).collect()
    }

    /// Does what the address book wants done.
    fn drain(&mut self) {
        while let Some(output) = self.ipam.poll() {
            match output {
                Output::Persist { token, changes } => {
                    let changes = changes.into_iter().map(|change| (table(change.table), change.key, change.value)).collect();
                    let (db, written) = (self.db.clone(), self.written.0.clone());
                    tokio::spawn(async move {
                        let done = db.commit(changes).await;
                        if let Err(error) = &done {
                            tracing::error!("{error}; addresses are given again as soon as it works");
                        }
                        let _ = written.send((token, done.is_ok()));
                    });
                }
                Output::Tell { to, body } => drop(send(&self.ends.mesh, Command::Tell { to, channel: Channel::Ipam, body })),
                Output::Publish(body) => {
                    let sent = send(&self.ends.mesh, Command::Publish { kind: IPAM_RECORD, chunks: vec![body] });
                    self.unsaid = (!sent).then(|| Instant::now() + AGAIN);
                }
                Output::Answer { request, result } => {
                    if let Some(answer) = self.waiting.remove(&request) {
                        let _ = answer.send(result);
                    }
                }
                Output::Report(sentence) => tracing::warn!("{sentence}"),
            }
        }
    }
}

fn table(table: Table) -> db::Table {
    match table {
        Table::Ring => db::Table::Ipam,
        Table::Addresses => db::Table::Addresses,
    }
}
