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
use crate::ipam::{Answer, Config, Ipam, Kind, Output, Request, Sorry, Table};
use crate::mesh::apps::{AppEvent, Channel, IPAM_RECORD};
use crate::mesh::command::Command;
use crate::store::StoreError;
use crate::store::db::{self, Change, Db};
use crate::wire::PeerName;

mod anew;

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

/// What was asked to be written, and whether it is on disk, or why not.
type Written = (u64, Result<(), StoreError>);

/// The address book and what waits for it.
struct Actor {
    ipam: Ipam,
    ends: Ends,
    db: Db,
    clock: Clock,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Answer, Sorry>>>,
    requests: u64,
    names: BTreeMap<PeerName, String>,
    /// This router's name.
    own: PeerName,
    /// Requests to reset it, and whether by force.
    resets: BTreeMap<u64, bool>,
    /// It was reset, and nothing has happened since.
    leaving: bool,
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
        let own = identity.name();
        let names = BTreeMap::from([(own, config.nickname.clone())]);
        let begin = |ring, addresses| {
            let mut ipam = Ipam::new(config.clone(), Arc::clone(&identity), Arc::new(Ed25519), seed, clock.now(), ring, addresses);
            ipam.await_survey();
            ipam
        };
        let (mark, gone) = (anew::find(&ring), anew::all_gone(&ring, &addresses));
        let mut ipam = begin(ring, addresses);
        let leaving = mark.is_some();
        if let Some(mark) = mark {
            match anew::is_due(&mark, &ipam, own) {
                true => {
                    db.commit(gone).await?;
                    tracing::info!("this router was reset: it knows nothing of the ring of addresses any more");
                    ipam = begin(Vec::new(), Vec::new());
                }
                false => tracing::debug!("this router was reset, and stays a member"),
            }
        }
        Ok(Actor {
            ipam,
            ends,
            db,
            clock,
            waiting: BTreeMap::new(),
            requests: 0,
            names,
            own,
            resets: BTreeMap::new(),
            leaving,
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
                Some((token, done)) = self.written.1.recv() => {
                    self.ipam.disk_full(done.as_ref().is_err_and(StoreError::is_full));
                    self.ipam.persisted(self.clock.now(), token, done.is_ok());
                }
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
                self.mind_the_mark(&request);
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

    /// A reset is to be remembered when it succeeds; one whose router takes addresses again is none any more.
    fn mind_the_mark(&mut self, request: &Request) {
        let takes = matches!(request, Request::Allocate { .. } | Request::Claim { .. } | Request::Remove { .. });
        if let Request::Reset { force } = request {
            self.resets.insert(self.requests, *force);
        } else if takes && std::mem::take(&mut self.leaving) {
            let db = self.db.clone();
            tokio::spawn(async move {
                if let Err(error) = db.commit(vec![anew::unmark()]).await {
                    tracing::error!("{error}; the reset of this router cannot be taken back, and it may begin anew at its next start");
                }
            });
        }
    }

    /// Notes a reset, and then says that it is done.
    fn note_reset(&mut self, answer: oneshot::Sender<Result<Answer, Sorry>>, result: Result<Answer, Sorry>, forced: bool) {
        self.leaving = true;
        let (db, mark) = (self.db.clone(), anew::mark(&self.ipam, self.own, forced));
        tokio::spawn(async move {
            let noted = db.commit(vec![mark]).await;
            let kind = |error: &StoreError| if error.is_full() { Kind::Disk } else { Kind::Unavailable };
            let _ = answer.send(noted.map_err(|error| Sorry::new(kind(&error), error.to_string())).and(result));
        });
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
                        let _ = written.send((token, done));
                    });
                }
                Output::Tell { to, body } => drop(send(&self.ends.mesh, Command::Tell { to, channel: Channel::Ipam, body })),
                Output::Publish(body) => {
                    let sent = send(&self.ends.mesh, Command::Publish { kind: IPAM_RECORD, chunks: vec![body] });
                    self.unsaid = (!sent).then(|| Instant::now() + AGAIN);
                }
                Output::Answer { request, result } => {
                    let reset = self.resets.remove(&request).filter(|_| result.is_ok());
                    match (self.waiting.remove(&request), reset) {
                        (Some(answer), Some(forced)) => self.note_reset(answer, result, forced),
                        (Some(answer), None) => drop(answer.send(result)),
                        (None, _) => {}
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
