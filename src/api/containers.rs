//! Containers on the network, as the rest of the program and HTTP ask for them.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /attach` | takes an [`AttachBody`]: the addresses asked for, one a line, or [`Row`] |
//! | `POST /detach` | takes a [`DetachBody`]: the addresses taken away, one a line, or a list of them |
//! | `GET /containers` (`?ident=ID`, repeatable, or its beginning) | `ident mac addresses…`, one a line, or a list of [`Row`]s |
//! | `POST /expose` | takes an [`ExposeBody`]: the host's addresses that were asked for |
//! | `POST /expose/{address}/{bits}` (`?skipNAT=true`) | 204: the host has this very address |
//! | `POST /hide` | takes a [`HideBody`]: the addresses taken away |
//! | `POST /attach-bridge` | takes a [`BridgeBody`]: 204 |
//!
//! Answers are text for people unless the request says `Accept: application/json`. Errors: 400 makes no sense, 409 somebody else has the
//! address, 503 cannot be done now, 507 what is to be remembered finds no room on the disk; always with a sentence.

use std::fmt::Write as _;
use std::path::PathBuf;

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Json, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::answer::{by_cause, failure, json, kept, plain, wants_json};
use super::state::{Denied, Refusal};
use crate::host::container::{AddressSpec, INTERFACE};
use crate::wire::PeerName;

/// The container that stands for the host itself.
pub const EXPOSED: &str = "weave:expose";
/// Requests that may wait in the channel; more are answered "busy".
const QUEUE: usize = 1024;
/// Most addresses or names in one request.
const MOST: usize = 64;

/// A container to be attached.
#[derive(Clone, Debug)]
pub struct Attach {
    /// Which container: its id, `netns:PATH` or `pid:N`.
    pub ident: String,
    /// Its network namespace.
    pub netns: PathBuf,
    /// The interface in it.
    pub interface: String,
    /// The addresses it is to have; none is one of the default subnet.
    pub addresses: Vec<AddressSpec>,
    /// Names for those addresses.
    pub names: Vec<String>,
    /// Multicast of IPv4 goes out of the interface.
    pub multicast_route: bool,
}

/// A container to be detached.
#[derive(Clone, Debug)]
pub struct Detach {
    /// Which container.
    pub ident: String,
    /// Its network namespace, where it still has one.
    pub netns: Option<PathBuf>,
    /// The interface in it.
    pub interface: String,
    /// The addresses that go, subnets meaning all in them; none is the default subnet.
    pub addresses: Vec<AddressSpec>,
    /// All of them go.
    pub all: bool,
}

/// The host on the network.
#[derive(Clone, Debug)]
pub struct Expose {
    /// Its addresses; none is one of the default subnet.
    pub addresses: Vec<AddressSpec>,
    /// Names for them.
    pub names: Vec<String>,
    /// Connections between the subnets and the outside take the host's address.
    pub masquerade: bool,
}

/// A container, or the host, as `ps` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Which container.
    pub ident: String,
    /// MAC of its interface.
    pub mac: String,
    /// Its addresses with the lengths of their prefixes.
    pub addresses: Vec<IpNet>,
}

impl Row {
    /// A row.
    pub fn new(ident: &str, mac: [u8; 6], addresses: Vec<IpNet>) -> Row {
        Row { ident: ident.into(), mac: PeerName(mac).to_string(), addresses }
    }

    /// A line: of a Docker id as much as Docker itself prints.
    pub fn line(&self) -> String {
        let docker = self.ident.len() == 64 && self.ident.bytes().all(|b| b.is_ascii_hexdigit());
        let ident = if docker { self.ident.get(..12).unwrap_or(&self.ident) } else { &self.ident };
        let mut line = format!("{ident} {}", self.mac);
        for address in &self.addresses {
            let _ = write!(line, " {address}");
        }
        line + "\n"
    }
}

/// A place for an answer.
pub type Answer<T> = oneshot::Sender<Result<T, Denied>>;

/// A question to the part of the router that looks after containers.
#[derive(Debug)]
pub enum Ask {
    /// See [`ContainersHandle::attach`].
    Attach(Attach, Answer<Row>),
    /// See [`ContainersHandle::detach`].
    Detach(Detach, Answer<Vec<IpNet>>),
    /// See [`ContainersHandle::list`].
    List(Answer<Vec<Row>>),
    /// See [`ContainersHandle::expose`].
    Expose(Expose, Answer<Vec<IpNet>>),
    /// See [`ContainersHandle::hide`].
    Hide(Vec<AddressSpec>, bool, Answer<Vec<IpNet>>),
    /// See [`ContainersHandle::join`].
    Join(String, Answer<()>),
    /// See [`ContainersHandle::reset`].
    Reset(Answer<()>),
}

/// Asks the running router.
#[derive(Clone, Debug)]
pub struct ContainersHandle {
    asks: mpsc::Sender<Ask>,
}

impl ContainersHandle {
    /// A handle, and the end from which questions are taken.
    pub fn new() -> (ContainersHandle, mpsc::Receiver<Ask>) {
        let (asks, receiver) = mpsc::channel(QUEUE);
        (ContainersHandle { asks }, receiver)
    }

    /// Attaches a container, all or nothing; answers with the addresses that were asked for. Idempotent.
    pub async fn attach(&self, order: Attach) -> Result<Row, Denied> {
        self.ask(|answer| Ask::Attach(order, answer)).await
    }

    /// Takes addresses from a container, and its interface with the last; answers with what was taken. Idempotent.
    pub async fn detach(&self, order: Detach) -> Result<Vec<IpNet>, Denied> {
        self.ask(|answer| Ask::Detach(order, answer)).await
    }

    /// All containers by ident, the exposed host first.
    pub async fn list(&self) -> Result<Vec<Row>, Denied> {
        self.ask(Ask::List).await
    }

    /// Puts the host on the network; answers with the addresses that were asked for. Idempotent.
    pub async fn expose(&self, order: Expose) -> Result<Vec<IpNet>, Denied> {
        self.ask(|answer| Ask::Expose(order, answer)).await
    }

    /// Takes the host off the network: these addresses, subnets meaning all in them, none the default subnet; `all` every one.
    pub async fn hide(&self, addresses: Vec<AddressSpec>, all: bool) -> Result<Vec<IpNet>, Denied> {
        self.ask(|answer| Ask::Hide(addresses, all, answer)).await
    }

    /// Joins another bridge of the host to ours. Idempotent.
    pub async fn join(&self, bridge: String) -> Result<(), Denied> {
        self.ask(|answer| Ask::Join(bridge, answer)).await
    }

    /// Takes everything away: containers' interfaces, the host's addresses, joined bridges, the firewall's rules.
    pub async fn reset(&self) -> Result<(), Denied> {
        self.ask(Ask::Reset).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(Answer<T>) -> Ask) -> Result<T, Denied> {
        let (answer, answered) = oneshot::channel();
        self.asks.try_send(ask(answer)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Refusal::busy().into(),
            mpsc::error::TrySendError::Closed(_) => Denied::now("the router is stopping"),
        })?;
        answered.await.map_err(|_| Denied::now("the router is stopping"))?
    }
}

/// The body of `POST /attach`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachBody {
    /// Which container: its id, `netns:PATH` or `pid:N`.
    pub ident: String,
    /// Path of its network namespace, seen by the router.
    pub netns: PathBuf,
    /// The interface in it; `ethwe` where none is given.
    #[serde(default = "interface")]
    pub interface: String,
    /// `ip:ADDRESS/BITS`, `net:SUBNET/BITS`, `net:default`; none is `net:default`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Names for those addresses.
    #[serde(default)]
    pub names: Vec<String>,
    /// False leaves the container's routes for multicast alone.
    #[serde(default = "yes")]
    pub multicast_route: bool,
}

/// The body of `POST /detach`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetachBody {
    /// Which container.
    pub ident: String,
    /// Path of its network namespace, needed where it keeps some addresses.
    #[serde(default)]
    pub netns: Option<PathBuf>,
    /// The interface in it; `ethwe` where none is given.
    #[serde(default = "interface")]
    pub interface: String,
    /// As for `attach`; a subnet means all addresses in it.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// All addresses.
    #[serde(default)]
    pub all: bool,
}

/// The body of `POST /expose`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposeBody {
    /// As for `attach`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Names for those addresses.
    #[serde(default)]
    pub names: Vec<String>,
    /// False leaves addresses as they are between the subnets and the outside.
    #[serde(default = "yes")]
    pub masquerade: bool,
}

/// The body of `POST /hide`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HideBody {
    /// As for `detach`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// All addresses.
    #[serde(default)]
    pub all: bool,
}

/// The body of `POST /attach-bridge`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeBody {
    /// Name of the other bridge.
    pub bridge: String,
}

fn interface() -> String {
    INTERFACE.into()
}

fn yes() -> bool {
    true
}

/// The pages.
pub fn routes(handle: ContainersHandle) -> Router {
    Router::new()
        .route("/attach", post(attach))
        .route("/detach", post(detach))
        .route("/containers", get(list))
        .route("/expose", post(expose))
        .route("/expose/{address}/{bits}", post(expose_one))
        .route("/hide", post(hide))
        .route("/attach-bridge", post(join))
        .route("/reset", post(reset))
        .with_state(handle)
}

type Body<T> = Result<Json<T>, JsonRejection>;
type Pairs = Vec<(String, String)>;

async fn attach(State(handle): State<ContainersHandle>, headers: HeaderMap, body: Body<AttachBody>) -> Response {
    let order = read(body).and_then(|body| {
        let (addresses, names) = (specs(&body.addresses)?, few(body.names)?);
        let AttachBody { ident, netns, interface, multicast_route, .. } = body;
        Ok(Attach { ident, netns, interface, addresses, names, multicast_route })
    });
    match order {
        Ok(order) => match handle.attach(order).await {
            Ok(row) if wants_json(&headers) => json(&row),
            Ok(row) => plain(lines(&row.addresses)),
            Err(denied) => by_cause(&denied),
        },
        Err(answer) => *answer,
    }
}

async fn detach(State(handle): State<ContainersHandle>, headers: HeaderMap, body: Body<DetachBody>) -> Response {
    let order = read(body).and_then(|body| {
        let addresses = specs(&body.addresses)?;
        let DetachBody { ident, netns, interface, all, .. } = body;
        Ok(Detach { ident, netns, interface, addresses, all })
    });
    match order {
        Ok(order) => show(&headers, handle.detach(order).await),
        Err(answer) => *answer,
    }
}

async fn expose(State(handle): State<ContainersHandle>, headers: HeaderMap, body: Body<ExposeBody>) -> Response {
    let order =
        read(body).and_then(|body| Ok(Expose { addresses: specs(&body.addresses)?, names: few(body.names)?, masquerade: body.masquerade }));
    match order {
        Ok(order) => show(&headers, handle.expose(order).await),
        Err(answer) => *answer,
    }
}

/// As Weave's control API has it.
async fn expose_one(
    State(handle): State<ContainersHandle>,
    Path((ip, bits)): Path<(String, String)>,
    Query(query): Query<Pairs>,
) -> Response {
    let masquerade = !query.iter().any(|(key, value)| key == "skipNAT" && value == "true");
    match specs(&[format!("ip:{ip}/{bits}")]) {
        Ok(addresses) => kept(handle.expose(Expose { addresses, names: Vec::new(), masquerade }).await.map(drop)),
        Err(answer) => *answer,
    }
}

async fn hide(State(handle): State<ContainersHandle>, headers: HeaderMap, body: Body<HideBody>) -> Response {
    match read(body).and_then(|body| Ok((specs(&body.addresses)?, body.all))) {
        Ok((addresses, all)) => show(&headers, handle.hide(addresses, all).await),
        Err(answer) => *answer,
    }
}

async fn reset(State(handle): State<ContainersHandle>) -> Response {
    kept(handle.reset().await)
}

async fn join(State(handle): State<ContainersHandle>, body: Body<BridgeBody>) -> Response {
    match read(body) {
        Ok(body) => kept(handle.join(body.bridge).await),
        Err(answer) => *answer,
    }
}

async fn list(State(handle): State<ContainersHandle>, headers: HeaderMap, Query(query): Query<Pairs>) -> Response {
    let wanted: Vec<String> = query.into_iter().filter(|(key, _)| key == "ident").map(|(_, value)| value).collect();
    match handle.list().await {
        Ok(mut rows) => {
            rows.retain(|row| wanted.is_empty() || wanted.iter().any(|ident| is_meant(ident, &row.ident)));
            if wants_json(&headers) { json(&rows) } else { plain(rows.iter().map(Row::line).collect()) }
        }
        Err(denied) => by_cause(&denied),
    }
}

/// A container is named by its ident, or by the beginning of its id.
pub fn is_meant(asked: &str, ident: &str) -> bool {
    asked == ident || (asked.len() >= 4 && !ident.contains(':') && ident.starts_with(asked))
}

fn read<T>(body: Body<T>) -> Result<T, Box<Response>> {
    body.map(|Json(body)| body).map_err(|e| failure(e.status(), &e.body_text()).into())
}

fn specs(texts: &[String]) -> Result<Vec<AddressSpec>, Box<Response>> {
    let bad = |sentence: &str| Box::new(failure(StatusCode::BAD_REQUEST, sentence));
    if texts.len() > MOST {
        return Err(bad(&format!("\"addresses\" takes up to {MOST} addresses")));
    }
    let parsed: Result<Vec<AddressSpec>, _> = texts.iter().map(|text| text.parse()).collect();
    parsed.map_err(|e: crate::host::container::address::AddressError| bad(&e.to_string()))
}

fn few(names: Vec<String>) -> Result<Vec<String>, Box<Response>> {
    match names.len() > MOST {
        true => Err(failure(StatusCode::BAD_REQUEST, &format!("\"names\" takes up to {MOST} names")).into()),
        false => Ok(names),
    }
}

fn show(headers: &HeaderMap, result: Result<Vec<IpNet>, Denied>) -> Response {
    match result {
        Ok(addresses) if wants_json(headers) => json(&addresses),
        Ok(addresses) => plain(lines(&addresses)),
        Err(denied) => by_cause(&denied),
    }
}

fn lines(addresses: &[IpNet]) -> String {
    addresses.iter().map(|address| format!("{address}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_docker_users_know_it() {
        let address = "10.2.1.1/24".parse().expect("an address");
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(Row::new(&id, [2, 0, 0, 0, 0, 1], vec![address]).line(), "0123456789ab 02:00:00:00:00:01 10.2.1.1/24\n");
        assert_eq!(Row::new("pid:7", [2, 0, 0, 0, 0, 1], vec![]).line(), "pid:7 02:00:00:00:00:01\n");
    }

    #[test]
    fn a_container_is_named_by_the_beginning_of_its_id() {
        assert!(is_meant("0123", "0123456789ab") && is_meant("pid:7", "pid:7"));
        assert!(!is_meant("012", "0123456789ab") && !is_meant("pid:", "pid:7"));
    }
}
