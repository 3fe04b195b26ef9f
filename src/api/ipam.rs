//! The address book as the rest of the program and HTTP ask it. The paths are those of Weave's control API:
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /ip/{id}`, `POST /ip/{id}/{address}/{bits}` | `ADDRESS/BITS` of the default subnet, of this subnet; the same container gets the same again |
//! | `PUT /ip/{id}/{address}/{bits}` | 204: the container has this very address |
//! | `GET /ip/{id}`, `GET /ip/{id}/{address}/{bits}` | its addresses, separated by spaces, those of this subnet; 404 where it has none |
//! | `GET /ip` | every address of this host: array of [`Address`] |
//! | `DELETE /ip/{id}`, `DELETE /ip/{id}/{address}` | 204: freed |
//! | `GET /ipinfo/defaultsubnet` | the subnet that is meant where none is said |
//! | `GET /ring` | 204 as soon as there is a ring, within 9 s or 503 |
//! | `GET /status/ipam` | [`document`] |
//! | `DELETE /peer` (`?force=true`) | our addresses go to another router: text |
//! | `DELETE /peer/{name or nickname}` (`?force=true`) | a dead router's addresses come to this one: text |
//!
//! The container `_` stands for the address itself: what is allocated for it is another address each time, of a container whose name is the address.
//! Errors: 400 makes no sense, 404 unknown, 409 somebody else has it, 503 not now, 507 no room on the disk; always with a
//! sentence.

use std::net::IpAddr;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::answer::{self, by_cause, failure, plain};
use super::section::Section;
use super::state::{Cause, Denied, Refusal};
use crate::counters::Reading;
use crate::ipam::ring::MAX_ENTRIES;
use crate::ipam::{Answer, Kind, OwnerStatus, Request, Sorry, Status};
use crate::wire::PeerName;

/// Requests that may wait in the channel; more are answered "busy".
const QUEUE: usize = 1024;

/// A question to the address book.
#[derive(Debug)]
pub enum Ask {
    /// Something to be done.
    Do(Request, oneshot::Sender<Result<Answer, Sorry>>),
    /// The addresses of a container.
    Lookup(String, oneshot::Sender<Vec<IpNet>>),
    /// All addresses with their containers.
    All(oneshot::Sender<Vec<(IpNet, String)>>),
    /// A picture, and the counters.
    Status(oneshot::Sender<(Status, Vec<Reading>)>),
    /// The router with this name or nickname: names of all that fit.
    Find(String, oneshot::Sender<Vec<PeerName>>),
    /// The default subnet.
    DefaultSubnet(oneshot::Sender<Option<IpNet>>),
}

/// Asks the address book of the running router.
#[derive(Clone, Debug)]
pub struct IpamHandle {
    asks: mpsc::Sender<Ask>,
}

impl IpamHandle {
    /// A handle, and the end from which the address book takes questions.
    pub fn new() -> (IpamHandle, mpsc::Receiver<Ask>) {
        let (asks, receiver) = mpsc::channel(QUEUE);
        (IpamHandle { asks }, receiver)
    }

    /// The address of a container in a subnet (`None`: the default subnet): the one it has, else a fresh one. A no comes within 10 s.
    pub async fn allocate(&self, ident: &str, subnet: Option<IpNet>) -> Result<IpNet, Denied> {
        self.try_allocate(ident, subnet).await.map_err(Denied::from)
    }

    /// Takes this very address for a container; outside the ranges it is merely noted.
    pub async fn claim(&self, ident: &str, address: IpNet) -> Result<(), Denied> {
        self.act(Request::Claim { ident: ident.to_string(), address }).await.map(drop).map_err(Denied::from)
    }

    /// The addresses of a container, in the order in which it got them.
    pub async fn lookup(&self, ident: &str) -> Result<Vec<IpNet>, Denied> {
        self.ask(|answer| Ask::Lookup(ident.to_string(), answer)).await.map_err(Denied::from)
    }

    /// Gives an address of a container back, `None` all of them; fine where it has none.
    pub async fn free(&self, ident: &str, address: Option<IpAddr>) -> Result<(), Denied> {
        self.act(Request::Free { ident: ident.to_string(), address }).await.map(drop).map_err(Denied::from)
    }

    /// The container is dead: its addresses go back after 30 s, unless `allocate` or `claim` names it again.
    pub async fn released(&self, ident: &str) -> Result<(), Denied> {
        self.act(Request::Released { ident: ident.to_string() }).await.map(drop).map_err(Denied::from)
    }

    /// What is in use on this host: running containers with what they were found with, and the bridge's addresses. Nothing is given before.
    /// Fine where the address book has ended, which gives nothing any more.
    pub async fn reserve(&self, held: Vec<(String, IpNet)>, host: Vec<IpNet>) -> Result<(), Denied> {
        match self.act(Request::Reserve { held, host }).await {
            Err(_) if self.asks.is_closed() => Ok(()),
            answer => answer.map(drop).map_err(Denied::from),
        }
    }

    /// The subnet that is meant where none is said.
    pub async fn default_subnet(&self) -> Result<IpNet, Denied> {
        let subnet = self.ask(Ask::DefaultSubnet).await.map_err(Denied::from)?;
        subnet.ok_or_else(|| Denied::now(OFF))
    }

    /// A picture of the address book, and its counters.
    pub async fn status(&self) -> Result<(Status, Vec<Reading>), Denied> {
        self.ask(Ask::Status).await.map_err(Denied::from)
    }

    async fn try_allocate(&self, ident: &str, subnet: Option<IpNet>) -> Result<IpNet, Sorry> {
        match self.act(Request::Allocate { ident: ident.to_string(), subnet }).await? {
            Answer::Address(address) => Ok(address),
            Answer::Done | Answer::Taken(..) => Err(Sorry::new(Kind::Unavailable, "the address book gave no address")),
        }
    }

    async fn act(&self, request: Request) -> Result<Answer, Sorry> {
        self.ask(|answer| Ask::Do(request, answer)).await?
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Sorry> {
        let (sender, receiver) = oneshot::channel();
        self.asks.try_send(ask(sender)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Sorry::new(Kind::Unavailable, Refusal::busy().0),
            mpsc::error::TrySendError::Closed(_) => Sorry::new(Kind::Unavailable, STOPPING),
        })?;
        receiver.await.map_err(|_| Sorry::new(Kind::Unavailable, STOPPING))
    }
}

const OFF: &str = "this router gives no addresses: it runs with an empty --ipalloc-range";
const STOPPING: &str = "the router is stopping";

impl From<Sorry> for Denied {
    fn from(Sorry { kind, text }: Sorry) -> Denied {
        let cause = match kind {
            Kind::Bad => Cause::Request,
            Kind::Conflict => Cause::Conflict,
            Kind::Unavailable => Cause::Moment,
            Kind::Disk => Cause::Disk,
        };
        Denied { cause, refusal: Refusal(text) }
    }
}

/// An address of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The container.
    pub container: String,
    /// `ADDRESS/BITS`.
    pub address: String,
}

/// The address book as `weave-router status ipam --json` has it: [`Status`], with numbers that may be larger than 2^64 as texts.
pub fn document(status: &Status) -> Value {
    let owner = |owner: &OwnerStatus| {
        json!({
            "name": owner.peer.to_string(),
            "nickname": owner.nickname,
            "owned": owner.owned.to_string(),
            "active": owner.active,
            "reachable": owner.reachable,
        })
    };
    json!({
        "state": status.phase.to_string(),
        "ranges": status.ranges.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "default_subnet": status.subnets.first(),
        "owners": status.owners.iter().map(owner).collect::<Vec<_>>(),
        "total": status.total.to_string(),
        "entries": status.entries,
        "mesh": status.mesh,
        "pending_allocates": status.pending_allocates,
        "pending_claims": status.pending_claims,
        "duplicates": status.duplicates,
        "problems": status.problems,
    })
}

/// What the address book adds to the status.
pub async fn section(handle: IpamHandle) -> Section {
    let Ok((status, counters)) = handle.status().await else { return Section { name: NAME, ..Section::default() } };
    let ranges = status.ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let subnet = status.subnets.first().map(ToString::to_string).unwrap_or_default();
    let overview = [("IPAM", status.phase.to_string()), ("Range", ranges), ("DefaultSubnet", subnet)];
    Section {
        name: NAME,
        overview: overview.into_iter().map(|(key, value)| (key.to_string(), value)).collect(),
        page: text(&status),
        json: document(&status),
        metrics: metrics(&status, &counters),
    }
}

const NAME: &str = "ipam";

/// Weave's names, and the counters.
fn metrics(status: &Status, counters: &[Reading]) -> String {
    let own = status.owners.iter().find_map(|owner| owner.active).unwrap_or(0);
    let gone: Vec<u128> = status.owners.iter().filter(|owner| !owner.reachable).map(|owner| owner.owned).collect();
    let share = if status.total == 0 { 0.0 } else { gone.iter().sum::<u128>() as f64 * 100.0 / status.total as f64 };
    let mut out = String::new();
    let mut gauge = |name: &str, labels: &str, help: &str, value: String| {
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name}{labels} {value}\n"));
    };
    gauge("weave_ips", "{state=\"local-used\"}", "Addresses that containers of this host have.", own.to_string());
    gauge("weave_max_ips", "", "Addresses of all ranges.", status.total.to_string());
    gauge("weave_ipam_unreachable_count", "", "Owners of addresses that cannot be reached.", gone.len().to_string());
    gauge("weave_ipam_unreachable_percentage", "", "Share of the addresses that they own, of 100.", format!("{share:.2}"));
    gauge("weave_ipam_pending_allocates", "", "Requests for any address that wait.", status.pending_allocates.to_string());
    gauge("weave_ipam_pending_claims", "", "Requests for a very address that wait.", status.pending_claims.to_string());
    gauge("weave_ipam_duplicates", "", "Addresses that two containers have, or had.", status.duplicates.len().to_string());
    gauge("weave_ipam_ring_entries", "", "Entries of the ring of addresses.", status.entries.to_string());
    gauge("weave_ipam_ring_entries_max", "", "Most entries that the ring may have.", MAX_ENTRIES.to_string());
    for Reading { name, help, value } in counters {
        out.push_str(&format!(
            "# HELP weave_ipam_{name}_total {help}\n# TYPE weave_ipam_{name}_total counter\nweave_ipam_{name}_total {value}\n"
        ));
    }
    out
}

/// `status ipam` for people, as Weave prints it, and what is wrong below.
pub fn text(status: &Status) -> String {
    let mut lines = Vec::new();
    if status.owners.is_empty() {
        lines.push(status.phase.to_string());
    }
    for owner in &status.owners {
        let share = if status.total == 0 { 0.0 } else { owner.owned as f64 * 100.0 / status.total as f64 };
        let mut line = format!("{:<40} {:>10} IPs ({share:04.1}% of total)", format!("{}({})", owner.peer, owner.nickname), owner.owned);
        if let Some(active) = owner.active {
            line.push_str(&format!(" ({active} active)"));
        }
        if !owner.reachable {
            line.push_str(" - unreachable!");
        }
        lines.push(line);
    }
    lines.extend(status.problems.iter().map(|problem| format!("! {problem}")));
    lines.join("\n") + "\n"
}

/// The pages of the API.
pub fn routes(handle: IpamHandle) -> Router {
    Router::new()
        .route("/ip", get(all))
        .route("/ip/{id}", get(lookup).post(allocate).delete(free_all).put(incomplete))
        .route("/ip/{id}/{address}", delete(free_one))
        .route("/ip/{id}/{address}/{bits}", get(lookup_in).post(allocate_in).put(claim))
        .route("/ipinfo/defaultsubnet", get(default_subnet))
        .route("/ring", get(ring))
        .route("/peer", delete(reset))
        .route("/peer/{peer}", delete(remove))
        .with_state(handle)
}

type Held = State<IpamHandle>;

/// `?force=true`.
#[derive(Debug, Default, Deserialize)]
struct Force {
    #[serde(default)]
    force: bool,
}

async fn all(State(handle): Held) -> Response {
    match handle.ask(Ask::All).await {
        Ok(all) => answer::json(
            &all.into_iter().map(|(address, container)| Address { container, address: address.to_string() }).collect::<Vec<_>>(),
        ),
        Err(sorry) => no(&sorry),
    }
}

async fn allocate(State(handle): Held, Path(id): Path<String>) -> Response {
    give(&handle, &id, None).await
}

async fn allocate_in(State(handle): Held, Path((id, address, bits)): Path<(String, String, String)>) -> Response {
    match net(&address, &bits) {
        Ok(subnet) if subnet.trunc() != subnet => no(&Sorry::new(Kind::Bad, format!("{subnet} is no subnet: its host bits are not zero"))),
        Ok(subnet) => give(&handle, &id, Some(subnet)).await,
        Err(sorry) => no(&sorry),
    }
}

async fn give(handle: &IpamHandle, id: &str, subnet: Option<IpNet>) -> Response {
    match handle.try_allocate(id, subnet).await {
        Ok(address) => plain(address.to_string()),
        Err(sorry) => no(&sorry),
    }
}

async fn claim(State(handle): Held, Path((ident, address, bits)): Path<(String, String, String)>) -> Response {
    let address = match net(&address, &bits) {
        Ok(address) => address,
        Err(sorry) => return no(&sorry),
    };
    done(handle.act(Request::Claim { ident, address }).await)
}

async fn incomplete() -> Response {
    failure(StatusCode::BAD_REQUEST, "say which address is claimed: PUT /ip/CONTAINER/ADDRESS/BITS")
}

async fn lookup(State(handle): Held, Path(id): Path<String>) -> Response {
    found(&handle, &id, |_| true).await
}

async fn lookup_in(State(handle): Held, Path((id, address, bits)): Path<(String, String, String)>) -> Response {
    match net(&address, &bits) {
        Ok(subnet) => found(&handle, &id, |address| subnet.trunc().contains(&address.addr())).await,
        Err(sorry) => no(&sorry),
    }
}

async fn found(handle: &IpamHandle, id: &str, what: impl Fn(&IpNet) -> bool) -> Response {
    match handle.ask(|answer| Ask::Lookup(id.to_string(), answer)).await {
        Ok(all) => {
            let fit: Vec<String> = all.iter().filter(|address| what(address)).map(ToString::to_string).collect();
            if fit.is_empty() {
                failure(StatusCode::NOT_FOUND, &format!("container {id} has no such address"))
            } else {
                plain(fit.join(" "))
            }
        }
        Err(sorry) => no(&sorry),
    }
}

async fn free_all(State(handle): Held, Path(id): Path<String>) -> Response {
    done(handle.act(Request::Free { ident: id, address: None }).await)
}

async fn free_one(State(handle): Held, Path((ident, address)): Path<(String, String)>) -> Response {
    let Ok(number) = address.parse::<IpAddr>() else {
        return no(&Sorry::new(Kind::Bad, format!("'{address}' is not an IP address")));
    };
    done(handle.act(Request::Free { ident, address: Some(number) }).await)
}

async fn default_subnet(State(handle): Held) -> Response {
    match handle.ask(Ask::DefaultSubnet).await {
        Ok(Some(subnet)) => plain(subnet.to_string()),
        Ok(None) => failure(StatusCode::NOT_FOUND, OFF),
        Err(sorry) => no(&sorry),
    }
}

async fn ring(State(handle): Held) -> Response {
    done(handle.act(Request::Prime).await)
}

async fn reset(State(handle): Held, Query(Force { force }): Query<Force>) -> Response {
    match handle.act(Request::Reset { force }).await {
        Ok(Answer::Taken(count, heir)) if count > 0 => plain(format!("{count} IPs handed over to {heir}\n")),
        Ok(_) => plain("no IPs to hand over\n".to_string()),
        Err(sorry) => no(&sorry),
    }
}

async fn remove(State(handle): Held, Path(peer): Path<String>, Query(Force { force }): Query<Force>) -> Response {
    let names = match handle.ask(|answer| Ask::Find(peer.clone(), answer)).await {
        Ok(names) => names,
        Err(sorry) => return no(&sorry),
    };
    let dead = match names[..] {
        [dead] => dead,
        [] => return failure(StatusCode::NOT_FOUND, &format!("no router is known by the name or nickname '{peer}'")),
        _ => return no(&Sorry::new(Kind::Conflict, format!("several routers have the nickname '{peer}': say which by its name"))),
    };
    match handle.act(Request::Remove { dead, force }).await {
        Ok(Answer::Taken(count, _)) => plain(format!("{count} IPs taken over from {peer}\n")),
        Ok(_) => plain(format!("0 IPs taken over from {peer}\n")),
        Err(sorry) => no(&sorry),
    }
}

fn net(address: &str, bits: &str) -> Result<IpNet, Sorry> {
    format!("{address}/{bits}")
        .parse()
        .map_err(|_| Sorry::new(Kind::Bad, format!("'{address}/{bits}' is not an address with the length of its prefix")))
}

fn done(result: Result<Answer, Sorry>) -> Response {
    match result {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(sorry) => no(&sorry),
    }
}

fn no(sorry: &Sorry) -> Response {
    by_cause(&sorry.clone().into())
}
