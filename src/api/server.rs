//! The two HTTP servers: the API, and the read-only status pages.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Json, Path, Query, Request, State};
use axum::http::header::{CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::answer::{failure, in_json, json, kept, plain, unavailable, wants_json};
use super::beside::beside;
use super::listen::Listener;
use super::revoke::Revoke;
use super::state::{FullStatus, Handle, Scope};
use super::types::{Hosts, Key, Report};
use super::{metrics, text};
use crate::mesh::command::Target;

/// Largest request body, in bytes: a list of hosts.
const MAX_BODY: usize = 64 * 1024;

/// Most hosts in one request.
const MAX_HOSTS: usize = 1024;

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 32;

/// What is said of a page that is not there.
pub const NOTHING_HERE: &str = "there is no such page";

/// Longest a client may take for its request and for reading the answer.
const EXCHANGE: Duration = Duration::from_secs(15);

/// Pause after the kernel refused to accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The pages of the API, with those of the parts of the container network.
pub fn api(handle: Handle, parts: Router) -> Router {
    let own = pages()
        .route("/key", get(key))
        .route("/openapi.json", get(openapi))
        .route("/connect", post(connect))
        .route("/forget", post(forget))
        .route("/revoke", post(revoke));
    finish(own.merge(parts.with_state(())), handle).layer(from_fn(no_pages))
}

/// The pages of the status address, which change nothing.
pub fn status(handle: Handle) -> Router {
    finish(pages(), handle)
}

fn pages() -> Router<Handle> {
    Router::new()
        .route("/status", get(overview))
        .route("/status/{page}", get(page))
        .route("/report", get(report))
        .route("/metrics", get(measure))
}

fn finish(router: Router<Handle>, handle: Handle) -> Router {
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(|| async { failure(StatusCode::METHOD_NOT_ALLOWED, "this page does not take that method") })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(in_json))
        .with_state(handle)
}

/// Serves until the task is dropped.
pub async fn serve(listener: Listener, router: Router) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = match &listener {
            Listener::Unix(unix, _) => unix.accept().await.map(|(stream, _)| exchange(stream, router.clone(), slot)),
            Listener::Tcp(tcp) => tcp.accept().await.map(|(stream, _)| exchange(stream, router.clone(), slot)),
        };
        if let Err(e) = accepted {
            tracing::debug!("cannot accept a client of the API: {e}");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// One request and its answer, in its own task: no client can hold a slot for longer than an exchange takes.
fn exchange<S>(stream: S, router: Router, slot: tokio::sync::OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        let _ = tokio::time::timeout(EXCHANGE, serving).await;
        drop(slot);
    });
}

/// A read-only page.
type Render = (fn(&Report) -> String, fn(&Report) -> Response);

fn render_of(page: &str) -> Option<Render> {
    Some(match page {
        "" => (text::status, |r| json(&r.status)),
        "connections" => (text::connections, |r| json(&r.connections)),
        "peers" => (text::peers, |r| json(&r.peers)),
        "targets" => (text::targets, |r| json(&r.targets)),
        "macs" => (text::macs, |r| json(&r.macs)),
        "routes" => (text::routes, |r| json(&r.routes)),
        _ => return None,
    })
}

async fn overview(state: State<Handle>, headers: HeaderMap) -> Response {
    show("", &state, &headers).await
}

async fn page(state: State<Handle>, Path(page): Path<String>, headers: HeaderMap) -> Response {
    show(&page, &state, &headers).await
}

/// Text for people, JSON for programs that ask for it.
async fn show(page: &str, handle: &Handle, headers: &HeaderMap) -> Response {
    let Some((text, json)) = render_of(page) else { return section(page, handle, headers).await };
    let wants_json = wants_json(headers);
    let write = move |full: FullStatus| if wants_json { json(&Report::from(&full)) } else { plain(text(&Report::from(&full))) };
    written(handle, Scope::Overview, write).await
}

/// The page of a part of the container network.
async fn section(page: &str, handle: &Handle, headers: &HeaderMap) -> Response {
    let (name, wants_json) = (page.to_string(), wants_json(headers));
    let write = move |full: FullStatus| match full.sections.into_iter().find(|section| section.name == name) {
        Some(section) if wants_json => json(&section.json),
        Some(section) => plain(section.page),
        None => failure(StatusCode::NOT_FOUND, NOTHING_HERE),
    };
    written(handle, Scope::Part(page.to_string()), write).await
}

async fn report(State(handle): State<Handle>) -> Response {
    written(&handle, Scope::Whole, |full| json(&Report::from(&full))).await
}

async fn measure(State(handle): State<Handle>) -> Response {
    let write = |full: FullStatus| {
        ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&Report::from(&full)) + &sections(&full)).into_response()
    };
    written(&handle, Scope::Overview, write).await
}

/// A page, written beside the loop.
async fn written(handle: &Handle, scope: Scope, write: impl FnOnce(FullStatus) -> Response + Send + 'static) -> Response {
    let page = match handle.status(scope).await {
        Ok(full) => beside(move || write(full)).await,
        Err(refusal) => Err(refusal),
    };
    page.unwrap_or_else(|refusal| unavailable(&refusal))
}

fn sections(full: &FullStatus) -> String {
    full.sections.iter().map(|section| section.metrics.as_str()).collect()
}

async fn key(State(handle): State<Handle>, headers: HeaderMap) -> Response {
    match handle.status(Scope::Overview).await {
        Ok(full) if wants_json(&headers) => json(&Key { key: full.snapshot.key }),
        Ok(full) => plain(format!("{}\n", full.snapshot.key)),
        Err(refusal) => unavailable(&refusal),
    }
}

async fn openapi() -> Response {
    json(&super::openapi::document())
}

async fn connect(State(handle): State<Handle>, headers: HeaderMap, body: Bytes) -> Response {
    let asked = match wanted(&headers, &body) {
        Ok(asked) => asked,
        Err(answer) => return *answer,
    };
    let others: Vec<Target> = match asked.replace {
        true => match handle.status(Scope::Overview).await {
            Ok(full) => full.snapshot.targets.into_iter().filter_map(|known| known.target.parse().ok()).collect(),
            Err(refusal) => return unavailable(&refusal),
        },
        false => Vec::new(),
    };
    let others: Vec<Target> = others.into_iter().filter(|known| !asked.targets.contains(known)).collect();
    let connected = handle.connect(asked.targets).await;
    match others.is_empty() || connected.is_err() {
        true => kept(connected),
        false => kept(handle.forget(others).await),
    }
}

async fn forget(State(handle): State<Handle>, headers: HeaderMap, body: Bytes) -> Response {
    match wanted(&headers, &body) {
        Ok(asked) => kept(handle.forget(asked.targets).await),
        Err(answer) => *answer,
    }
}

async fn revoke(State(handle): State<Handle>, body: Result<Json<Revoke>, JsonRejection>) -> Response {
    match body.map(|Json(body)| body.read()) {
        Ok(Ok(revoked)) => kept(handle.revoke(revoked).await),
        Ok(Err(refusal)) => failure(StatusCode::BAD_REQUEST, &refusal.0),
        Err(e) => failure(e.status(), &e.body_text()),
    }
}

/// Hosts to link with, or not any more.
struct Wanted {
    targets: Vec<Target>,
    /// Instead of all others.
    replace: bool,
}

/// Reads them from JSON, or from a form as clients of Weave send it: `peer=HOST&peer=HOST&replace=true`.
fn wanted(headers: &HeaderMap, body: &Bytes) -> Result<Wanted, Box<Response>> {
    let bad = |sentence: &str| Box::new(failure(StatusCode::BAD_REQUEST, sentence));
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (peers, replace) = if kind.starts_with("application/x-www-form-urlencoded") {
        // A form is written as a query is.
        let query = std::str::from_utf8(body).ok().and_then(|form| format!("/?{form}").parse().ok());
        let fields = query.and_then(|query| Query::<Vec<(String, String)>>::try_from_uri(&query).ok()).map(|Query(fields)| fields);
        let fields = fields.ok_or_else(|| bad("the body is no form; send peer=HOST, repeatable"))?;
        let replace = fields.iter().any(|(key, value)| key == "replace" && value == "true");
        (fields.into_iter().filter(|(key, _)| key == "peer").map(|(_, host)| host).collect(), replace)
    } else if kind.starts_with("application/json") {
        let Json(hosts) = Json::<Hosts>::from_bytes(body).map_err(|e| failure(e.status(), &e.body_text()))?;
        (hosts.peers, false)
    } else {
        return Err(
            failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is to be application/json or application/x-www-form-urlencoded").into()
        );
    };
    if peers.is_empty() || peers.len() > MAX_HOSTS {
        return Err(bad(&format!("\"peers\" takes 1 to {MAX_HOSTS} hosts")));
    }
    let parsed: Result<Vec<Target>, _> = peers.iter().map(|text| text.parse()).collect();
    parsed.map(|targets| Wanted { targets, replace }).map_err(|e| bad(&e.to_string()))
}

/// A page in a browser is no client: it would act for whoever looks at it. Browsers say where such a request comes from.
async fn no_pages(request: Request, next: Next) -> Response {
    match request.headers().contains_key(ORIGIN) && !request.method().is_safe() {
        true => failure(StatusCode::FORBIDDEN, "requests that pages in a browser send are refused: use a program"),
        false => next.run(request).await,
    }
}

async fn nothing_here() -> Response {
    failure(StatusCode::NOT_FOUND, NOTHING_HERE)
}

#[cfg(test)]
mod tests;
