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
//! All of them answer 404 where the name server is off, 503 where the router is busy or holds as many names as it can, and 507 where the
//! disk is full. `GET /status/dns` is a [`DnsStatus`].

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, put};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::answer::{failure, json, kept, plain, unavailable, wants_json};
use super::beside::beside;
use super::state::{Denied, Refusal};
use crate::dns::asked::Asked;
use crate::dns::listen::Ears;
use crate::dns::upstream::Upstream;
use crate::dns::{PORT, SERVICE_ADDRESS};
use crate::names::{BadHostname, Domain, Found, View};

mod status;

pub use status::{DnsStatus, NameRow, NotListening, SECTION, section, text};

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
        answer: oneshot::Sender<Result<(), Denied>>,
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
        answer: oneshot::Sender<Result<(), Denied>>,
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
    /// Where is noted whose names are asked for.
    pub asked: Arc<Asked>,
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
    pub async fn add(&self, ident: &str, name: &str, addresses: &[IpAddr]) -> Result<(), Denied> {
        self.put(ident, name, addresses, false).await
    }

    /// The same, and it is remembered over a restart: on disk when this returns.
    pub async fn add_for_good(&self, ident: &str, name: &str, addresses: &[IpAddr]) -> Result<(), Denied> {
        self.put(ident, name, addresses, true).await
    }

    async fn put(&self, ident: &str, name: &str, addresses: &[IpAddr], keep: bool) -> Result<(), Denied> {
        let (ident, name, addresses) = (ident.to_string(), name.to_string(), addresses.to_vec());
        self.ask(|answer| NamesRequest::Add { ident, name, addresses, keep, answer }).await
    }

    /// Has a name, or all names, of `ident` no longer stand for `addresses`, or for anything where none are given. Idempotent.
    pub async fn remove(&self, ident: &str, name: Option<&str>, addresses: &[IpAddr]) -> Result<(), Denied> {
        self.take(Some(ident), name, addresses).await
    }

    async fn take(&self, ident: Option<&str>, name: Option<&str>, addresses: &[IpAddr]) -> Result<(), Denied> {
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

    async fn ask(&self, request: impl FnOnce(oneshot::Sender<Result<(), Denied>>) -> NamesRequest) -> Result<(), Denied> {
        let Some((requests, _)) = &self.parts else { return Ok(()) };
        let (answer, answered) = oneshot::channel();
        requests.try_send(request(answer)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Refusal::busy(),
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        answered.await.unwrap_or_else(|_| Err(stopping().into()))
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

    /// Addresses of a name, names of an address. `None` where there is no such thing; what is written wrong is a sentence.
    fn look_up(&self, what: &str) -> Result<Option<Vec<String>>, String> {
        if let Ok(address) = what.parse::<IpAddr>() {
            self.read(|view| self.asked.note(view.holders_of(address)));
            return Ok(Some(self.read(|view| view.names_of(address).collect())).filter(|names: &Vec<String>| !names.is_empty()));
        }
        let relative = match self.domain.relative(what) {
            Ok(relative) => relative,
            // Short for a name below another one.
            Err(BadHostname::Elsewhere { name, .. }) => name.trim_end_matches('.').to_ascii_lowercase(),
            Err(error) => return Err(error.to_string()),
        };
        self.read(|view| self.asked.note(view.holders(&relative)));
        Ok(match self.read(|view| view.look_up(&relative)) {
            Found::Addresses(addresses) => Some(addresses.iter().map(ToString::to_string).collect()),
            Found::Nothing | Found::Unknown => None,
        })
    }
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
    let Some(known) = names.known() else { return off() };
    let picture = known.read(View::picture);
    beside(move || json(&status::rows(&picture))).await.unwrap_or_else(|refusal| unavailable(&refusal))
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
        Some(_) => kept(names.add_for_good(&ident, &name, &[ip]).await),
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
        Some(_) => kept(names.take(ident, which.fqdn.as_deref().filter(|name| !name.is_empty()), addresses).await),
        None => off(),
    }
}

#[cfg(test)]
mod tests;
