//! Names, as the parts of the router and the API use them.
//!
//! | request | answer |
//! | --- | --- |
//! | `PUT /name/{ident}/{ip}?fqdn=NAME` | 204; kept over a restart |
//! | `DELETE /name`, `/name/{ident}`, `/name/{ident}/{ip}`, each with or without `?fqdn=NAME` | 204, also where there was nothing |
//! | `GET /name` | array of [`NameRow`] |
//! | `GET /name/{name}` | addresses of a name, or names of an address, one a line or as an array |
//! | `GET /domain`, `/dns-address`, `/dns-address-port` | text |
//!
//! All of them answer 404 where the name server is off. `GET /status/dns` is a [`DnsStatus`].

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::answer::{failure, json, plain, wants_json};
use super::section::Section;
use super::state::Refusal;
use super::text::clean;
use crate::dns::listen::Ears;
use crate::dns::upstream::Upstream;
use crate::dns::{PORT, SERVICE_ADDRESS};
use crate::names::{BadHostname, Domain, Found, View};

/// Requests that may wait for the part that keeps the names.
pub const QUEUE: usize = 1024;
/// What holds names that belong to no container.
pub const EXTERN: &str = "weave:extern";

/// What the part that keeps the names is asked.
#[derive(Debug)]
pub enum NamesRequest {
    /// Take these addresses for a name.
    Add {
        /// Who holds it.
        ident: String,
        /// The name; a bare one is in the domain.
        name: String,
        /// What it stands for.
        addresses: Vec<IpAddr>,
        /// Remember it over a restart.
        keep: bool,
        /// Whether it is taken.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Give them up.
    Remove {
        /// Who holds it; `None` for all.
        ident: Option<String>,
        /// The name; `None` for all.
        name: Option<String>,
        /// What it stands for; empty for all.
        addresses: Vec<IpAddr>,
        /// Whether it is gone.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
}

/// What is known of names, for reading.
#[derive(Debug)]
pub struct Known {
    /// All names.
    pub view: Arc<RwLock<View>>,
    /// The domain.
    pub domain: Domain,
    /// Where the name server listens.
    pub ears: Ears,
    /// The name servers of the host.
    pub upstream: Arc<Upstream>,
    /// The addresses that were asked for with `--dns-listen`; empty for the usual ones.
    pub given: Vec<SocketAddr>,
    /// How long answers may be kept, in seconds.
    pub ttl: u32,
}

/// The names of this router; clones are the same.
#[derive(Clone, Debug)]
pub struct NamesHandle {
    parts: Option<(mpsc::Sender<NamesRequest>, Arc<Known>)>,
}

impl NamesHandle {
    /// A handle, and the end from which requests are taken.
    pub fn new(known: Known) -> (NamesHandle, mpsc::Receiver<NamesRequest>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        (NamesHandle { parts: Some((requests, Arc::new(known))) }, receiver)
    }

    /// The handle of a router without names: what is added is forgotten.
    pub fn off() -> NamesHandle {
        NamesHandle { parts: None }
    }

    /// What there is to read; `None` where the name server is off.
    pub fn known(&self) -> Option<&Known> {
        self.parts.as_ref().map(|(_, known)| &**known)
    }

    /// Has `name` stand for `addresses`, besides others that it stands for already. A bare name gets the domain. It is forgotten at a restart.
    pub async fn add(&self, ident: &str, name: &str, addresses: &[IpAddr]) -> Result<(), Refusal> {
        self.put(ident, name, addresses, false).await
    }

    /// The same, and it is remembered over a restart: on disk when this returns.
    pub async fn add_for_good(&self, ident: &str, name: &str, addresses: &[IpAddr]) -> Result<(), Refusal> {
        self.put(ident, name, addresses, true).await
    }

    async fn put(&self, ident: &str, name: &str, addresses: &[IpAddr], keep: bool) -> Result<(), Refusal> {
        let (ident, name, addresses) = (ident.to_string(), name.to_string(), addresses.to_vec());
        self.ask(|answer| NamesRequest::Add { ident, name, addresses, keep, answer }).await
    }

    /// Has a name, or all names, of `ident` no longer stand for `addresses`, or for anything where none are given. Idempotent.
    pub async fn remove(&self, ident: &str, name: Option<&str>, addresses: &[IpAddr]) -> Result<(), Refusal> {
        self.take(Some(ident), name, addresses).await
    }

    async fn take(&self, ident: Option<&str>, name: Option<&str>, addresses: &[IpAddr]) -> Result<(), Refusal> {
        let (ident, name, addresses) = (ident.map(String::from), name.map(String::from), addresses.to_vec());
        self.ask(|answer| NamesRequest::Remove { ident, name, addresses, answer }).await
    }

    /// The domain, without a last dot; the usual one where the name server is off.
    pub async fn domain(&self) -> String {
        self.known().map_or_else(|| Domain::DEFAULT.to_string(), |known| known.domain.to_string())
    }

    /// The name server's address as containers see it; `None` where there is none for them.
    pub async fn server(&self) -> Option<IpAddr> {
        self.known()?.server().map(|server| server.ip())
    }

    async fn ask(&self, request: impl FnOnce(oneshot::Sender<Result<(), Refusal>>) -> NamesRequest) -> Result<(), Refusal> {
        let Some((requests, _)) = &self.parts else { return Ok(()) };
        let (answer, answered) = oneshot::channel();
        requests.try_send(request(answer)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Refusal::busy(),
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }
}

fn stopping() -> Refusal {
    Refusal("the router is stopping".into())
}

impl Known {
    /// Where containers find the name server: resolvers know one port only, and their own loopback is not ours.
    fn server(&self) -> Option<SocketAddr> {
        if self.given.is_empty() {
            return Some((SERVICE_ADDRESS, PORT).into());
        }
        self.given.iter().find(|address| address.port() == PORT && !address.ip().is_loopback()).copied()
    }

    fn read<T>(&self, read: impl FnOnce(&View) -> T) -> T {
        read(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything for the operator.
    pub fn status(&self) -> DnsStatus {
        let (rows, names) = self.read(|view| (view.rows(), view.answered()));
        let heard = self.ears.all();
        let entries = rows.into_iter().map(|row| NameRow {
            name: row.name,
            address: row.address,
            container: row.tag,
            peer: row.origin.to_string(),
            nickname: row.nickname,
            answered: row.answered,
        });
        DnsStatus {
            domain: self.domain.to_string(),
            server: self.server().map(|server| server.ip()),
            ttl_s: self.ttl,
            listening: heard.iter().filter(|(_, state)| state.is_ok()).map(|(address, _)| *address).collect(),
            not_listening: heard.into_iter().filter_map(|(address, state)| Some(NotListening { address, why: state.err()? })).collect(),
            upstream: self.upstream.servers().iter().map(SocketAddr::ip).collect(),
            names,
            entries: entries.collect(),
        }
    }

    /// Addresses of a name, names of an address. `None` where there is no such thing; what is written wrong is a sentence.
    fn look_up(&self, what: &str) -> Result<Option<Vec<String>>, String> {
        if let Ok(address) = what.parse::<IpAddr>() {
            return Ok(Some(self.read(|view| view.names_of(address))).filter(|names| !names.is_empty()));
        }
        let relative = match self.domain.relative(what) {
            Ok(relative) => relative,
            // Short for a name below another one.
            Err(BadHostname::Elsewhere { name, .. }) => name.trim_end_matches('.').to_ascii_lowercase(),
            Err(error) => return Err(error.to_string()),
        };
        Ok(match self.read(|view| view.look_up(&relative)) {
            Found::Addresses(addresses) => Some(addresses.iter().map(ToString::to_string).collect()),
            Found::Nothing | Found::Unknown => None,
        })
    }
}

/// `weave-router status dns --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// The domain.
    pub domain: String,
    /// Where containers find the name server.
    pub server: Option<IpAddr>,
    /// How long answers may be kept.
    pub ttl_s: u32,
    /// Where it listens.
    pub listening: Vec<SocketAddr>,
    /// Where it should listen and cannot.
    pub not_listening: Vec<NotListening>,
    /// The name servers that are asked for other names, in the order in which they are asked.
    pub upstream: Vec<IpAddr>,
    /// How many names are answered.
    pub names: usize,
    /// Every address of every name.
    pub entries: Vec<NameRow>,
}

/// An address that the name server cannot listen on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotListening {
    /// The address.
    pub address: SocketAddr,
    /// Why not.
    pub why: String,
}

/// One address of a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NameRow {
    /// The whole name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// The start of the container's id.
    pub container: String,
    /// The router that says so.
    pub peer: String,
    /// Its nickname.
    pub nickname: String,
    /// False where that router is not reached from here, so that the name is not answered.
    pub answered: bool,
}

/// The pages of names.
pub fn routes(handle: NamesHandle) -> Router {
    Router::new()
        .route("/domain", get(domain))
        .route("/dns-address", get(address))
        .route("/dns-address-port", get(address_port))
        .route("/name", get(all).delete(remove_all))
        .route("/name/{ident}", get(look_up).delete(remove_ident))
        .route("/name/{ident}/{ip}", put(add).delete(remove))
        .with_state(handle)
}

/// The one parameter that matters; Weave's `check-alive` is taken and means nothing here.
#[derive(Debug, Deserialize)]
struct Which {
    fqdn: Option<String>,
}

fn off() -> Response {
    failure(StatusCode::NOT_FOUND, "this router has no name server: it runs with --no-dns")
}

async fn domain(State(names): State<NamesHandle>) -> Response {
    match names.known() {
        // With its dot, as Weave says it.
        Some(known) => plain(format!("{}.\n", known.domain)),
        None => off(),
    }
}

async fn address(State(names): State<NamesHandle>) -> Response {
    server(&names, |server| server.ip().to_string())
}

async fn address_port(State(names): State<NamesHandle>) -> Response {
    server(&names, |server| server.to_string())
}

fn server(names: &NamesHandle, write: fn(SocketAddr) -> String) -> Response {
    match names.known().map(Known::server) {
        Some(Some(server)) => plain(write(server) + "\n"),
        Some(None) => {
            failure(StatusCode::NOT_FOUND, "the addresses of --dns-listen are none that containers can ask: give one with port 53")
        }
        None => off(),
    }
}

async fn all(State(names): State<NamesHandle>) -> Response {
    names.known().map_or_else(off, |known| json(&known.status().entries))
}

async fn look_up(State(names): State<NamesHandle>, Path(what): Path<String>, headers: HeaderMap) -> Response {
    match names.known().map(|known| known.look_up(&what)) {
        Some(Ok(Some(found))) if wants_json(&headers) => json(&found),
        Some(Ok(Some(found))) => plain(found.iter().map(|line| format!("{line}\n")).collect()),
        Some(Ok(None)) => failure(StatusCode::NOT_FOUND, &format!("the mesh knows nothing of {what}")),
        Some(Err(sentence)) => failure(StatusCode::BAD_REQUEST, &sentence),
        None => off(),
    }
}

async fn add(State(names): State<NamesHandle>, Path((ident, ip)): Path<(String, String)>, Query(which): Query<Which>) -> Response {
    let Ok(ip) = ip.parse() else { return no_address(&ip) };
    let Some(name) = which.fqdn.filter(|name| !name.is_empty()) else {
        return failure(StatusCode::BAD_REQUEST, "give the name as ?fqdn=NAME");
    };
    match names.known() {
        Some(_) => done(names.add_for_good(&ident, &name, &[ip]).await),
        None => off(),
    }
}

fn no_address(text: &str) -> Response {
    failure(StatusCode::BAD_REQUEST, &format!("'{text}' is not an IP address"))
}

async fn remove_all(names: State<NamesHandle>, which: Query<Which>) -> Response {
    give_up(&names, None, &which, &[]).await
}

async fn remove_ident(names: State<NamesHandle>, Path(ident): Path<String>, which: Query<Which>) -> Response {
    give_up(&names, Some(&ident), &which, &[]).await
}

async fn remove(names: State<NamesHandle>, Path((ident, ip)): Path<(String, String)>, which: Query<Which>) -> Response {
    match ip.parse() {
        Ok(address) => give_up(&names, Some(&ident), &which, &[address]).await,
        Err(_) => no_address(&ip),
    }
}

async fn give_up(names: &NamesHandle, ident: Option<&str>, which: &Which, addresses: &[IpAddr]) -> Response {
    match names.known() {
        Some(_) => done(names.take(ident, which.fqdn.as_deref().filter(|name| !name.is_empty()), addresses).await),
        None => off(),
    }
}

fn done(result: Result<(), Refusal>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => failure(StatusCode::BAD_REQUEST, &refusal.0),
    }
}

/// What names add to the status.
pub fn section(names: &NamesHandle) -> Section {
    let Some(status) = names.known().map(Known::status) else {
        let page = "the name server is off (--no-dns)\n".to_string();
        return Section { name: "dns", overview: vec![("DNS".into(), "off (--no-dns)".into())], page, ..Section::default() };
    };
    let json = serde_json::to_value(&status).unwrap_or_default();
    Section { name: "dns", overview: vec![("DNS".into(), line(&status))], page: text(&status), json, metrics: metrics(&status) }
}

/// The overview's line.
fn line(status: &DnsStatus) -> String {
    let server = status.server.map_or_else(String::new, |server| format!(" at {server}"));
    let silent = match status.not_listening.len() {
        0 => String::new(),
        n => format!(", not listening on {n} of {} addresses", n + status.listening.len()),
    };
    format!("{}.{server}, {} names of {} addresses{silent}", status.domain, status.names, status.entries.len())
}

/// Gauges.
fn metrics(status: &DnsStatus) -> String {
    let gauge = |name: &str, help: &str, values: &[(&str, usize)]| {
        let samples: String = values.iter().map(|(labels, value)| format!("{name}{labels} {value}\n")).collect();
        format!("# HELP {name} {help}\n# TYPE {name} gauge\n{samples}")
    };
    let heard = [("{listening=\"yes\"}", status.listening.len()), ("{listening=\"no\"}", status.not_listening.len())];
    let known = "Addresses of names that are known, those of routers that are not reached included.";
    [
        gauge("weave_dns_entries", known, &[("", status.entries.len())]),
        gauge("weave_dns_names", "Names that are answered.", &[("", status.names)]),
        gauge("weave_dns_listening", "Addresses of the name server, by whether it listens there.", &heard),
    ]
    .concat()
}

/// `status dns` for people.
pub fn text(status: &DnsStatus) -> String {
    let list = |items: Vec<String>| if items.is_empty() { "none".to_string() } else { items.join(", ") };
    let server = status.server.map_or_else(|| "none for containers".to_string(), |server| server.to_string());
    let mut text = String::new();
    for (key, value) in [
        ("Domain", format!("{}.", status.domain)),
        ("Server", server),
        ("Listening", list(status.listening.iter().map(ToString::to_string).collect())),
        ("Upstream", list(status.upstream.iter().map(ToString::to_string).collect())),
        ("TTL", format!("{} s", status.ttl_s)),
        ("Names", status.names.to_string()),
    ] {
        text += &format!("{key:>9}: {value}\n");
    }
    for bad in &status.not_listening {
        text += &format!("{:>9}: not on {}, {}\n", "Warning", bad.address, bad.why);
    }
    let rows: Vec<[String; 4]> = status.entries.iter().map(row).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (name, address, container) = (width(0), width(1), width(2));
    if !rows.is_empty() {
        text.push('\n');
    }
    for row in &rows {
        text += &format!("{:name$}  {:address$}  {:container$}  {}\n", row[0], row[1], row[2], row[3]);
    }
    text
}

fn row(entry: &NameRow) -> [String; 4] {
    let away = if entry.answered { "" } else { ", not reached: not answered" };
    let peer = format!("{}({}){away}", entry.peer, clean(&entry.nickname));
    [entry.name.clone(), entry.address.to_string(), entry.container.clone(), peer]
}

#[cfg(test)]
mod tests;
