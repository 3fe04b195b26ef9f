//! How the servers ask the router: one channel of requests, each with a place for its answer.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::section::Section;
use crate::counters::Reading;
use crate::io::thread_load::Load;
use crate::mesh::command::Target;
use crate::mesh::snapshot::Snapshot;
use crate::store::{Revoked, StoreError};
use crate::wire::PeerName;

/// Longest a request waits for the router before it is answered with an error.
const PATIENCE: Duration = Duration::from_secs(5);

/// Requests that may wait in the channel; more are answered "busy".
const QUEUE: usize = 32;

/// Everything the router says about itself at one moment.
#[derive(Clone, Debug, Default)]
pub struct FullStatus {
    /// Version of the running binary.
    pub version: &'static str,
    /// Time since the router started.
    pub uptime: Duration,
    /// The UDP port of the mesh.
    pub port: u16,
    /// Name of the bridge.
    pub bridge: String,
    /// Name of the TAP.
    pub tap: String,
    /// MTU of the bridge in bytes, once it is known.
    pub mtu: Option<u16>,
    /// What the mesh plane says.
    pub snapshot: Snapshot,
    /// The MAC table.
    pub macs: Vec<MacRow>,
    /// Counters by the plane that counts them: `forward`, `mesh`, `io`, …
    pub counters: Vec<(&'static str, Vec<Reading>)>,
    /// What each packet thread has done.
    pub threads: Vec<Load>,
    /// Suites by name, each with the library that computes it and what was measured at start.
    pub ciphers: Vec<(String, String)>,
    /// Offloads by name: `on`, or `off: ` and the reason.
    pub offloads: Vec<(String, String)>,
    /// What the parts of the container network say.
    pub sections: Vec<Section>,
}

/// One line of the MAC table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacRow {
    /// VLAN id, 0 for untagged.
    pub vlan: u16,
    /// The MAC.
    pub mac: [u8; 6],
    /// The router it is behind; our own where it is on this host's bridge.
    pub peer: PeerName,
    /// True where it is on this host's bridge.
    pub local: bool,
    /// Time since a frame came from it.
    pub age: Duration,
}

/// Why the router did not do what was asked, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

impl Refusal {
    /// A queue on the way is full.
    pub fn busy() -> Refusal {
        Refusal("the router is busy; try again".into())
    }
}

/// What a refusal is due to: a client tries again, makes room, or asks for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// What was asked makes no sense, and never will.
    Request,
    /// Somebody else has what was asked for.
    Conflict,
    /// The router cannot do it now.
    Moment,
    /// The file system of the state directory is full.
    Disk,
}

/// A refusal, and what it is due to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct Denied {
    /// What it is due to.
    pub cause: Cause,
    /// The sentence.
    pub refusal: Refusal,
}

impl Denied {
    /// It cannot be done now, for this reason.
    pub fn now(reason: impl std::fmt::Display) -> Denied {
        Refusal(reason.to_string()).into()
    }

    /// What was asked makes no sense, for this reason.
    pub fn nonsense(reason: impl std::fmt::Display) -> Denied {
        Denied { cause: Cause::Request, refusal: Refusal(reason.to_string()) }
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Denied {
        Denied { cause: Cause::Moment, refusal }
    }
}

impl From<StoreError> for Denied {
    fn from(error: StoreError) -> Denied {
        let cause = if error.is_full() { Cause::Disk } else { Cause::Moment };
        Denied { cause, refusal: Refusal(error.to_string()) }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Refusal {
        denied.refusal
    }
}

/// How much of the state is asked for: what is long is made for those who read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What the overview and the metrics show.
    Overview,
    /// The same, and the page of one part of the container network.
    Part(String),
    /// All of it.
    Whole,
}

impl Scope {
    /// True where the page of this part is asked for.
    pub fn holds(&self, part: &str) -> bool {
        match self {
            Scope::Overview => false,
            Scope::Part(name) => name == part,
            Scope::Whole => true,
        }
    }
}

/// A request to the running router.
#[derive(Debug)]
pub enum Request {
    /// The state.
    Status(Scope, oneshot::Sender<Result<FullStatus, Refusal>>),
    /// Keep trying to have a link to each of these, and remember them over a restart.
    Connect(Vec<Target>, oneshot::Sender<Result<(), Denied>>),
    /// Stop trying, also after a restart; live links stay.
    Forget(Vec<Target>, oneshot::Sender<Result<(), Denied>>),
    /// Put this member out, for everybody with an administrator's signature, else on this router; also after a restart.
    Revoke(Revoked, oneshot::Sender<Result<(), Denied>>),
}

/// The servers' end of the channel to the router.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
}

impl Handle {
    /// A handle, and the end from which the router takes requests.
    pub fn new() -> (Handle, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        (Handle { requests }, receiver)
    }

    /// The state of the router.
    pub async fn status(&self, scope: Scope) -> Result<FullStatus, Refusal> {
        self.ask(|answer| Request::Status(scope, answer)).await?
    }

    /// Adds targets.
    pub async fn connect(&self, targets: Vec<Target>) -> Result<(), Denied> {
        self.ask(|answer| Request::Connect(targets, answer)).await?
    }

    /// Removes targets.
    pub async fn forget(&self, targets: Vec<Target>) -> Result<(), Denied> {
        self.ask(|answer| Request::Forget(targets, answer)).await?
    }

    /// Puts a member out.
    pub async fn revoke(&self, revoked: Revoked) -> Result<(), Denied> {
        self.ask(|answer| Request::Revoke(revoked, answer)).await?
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Refusal> {
        let (sender, receiver) = oneshot::channel();
        self.requests.try_send(request(sender)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Refusal::busy(),
            mpsc::error::TrySendError::Closed(_) => Refusal("the router is stopping".into()),
        })?;
        match tokio::time::timeout(PATIENCE, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Refusal("the router is stopping".into())),
            Err(_) => Err(Refusal(format!("the router did not answer within {} s", PATIENCE.as_secs()))),
        }
    }
}
