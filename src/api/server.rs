//! The two HTTP servers: the API, and the read-only status pages.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Json, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::answer::{done, failure, json, plain, unavailable, wants_json};
use super::listen::Listener;
use super::state::{FullStatus, Handle};
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
        .route("/forget", post(forget));
    finish(own.merge(parts.with_state(())), handle)
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
    match handle.status().await {
        Ok(full) if wants_json(headers) => json(&Report::from(&full)),
        Ok(full) => plain(text(&Report::from(&full))),
        Err(refusal) => unavailable(&refusal),
    }
}

/// The page of a part of the container network.
async fn section(page: &str, handle: &Handle, headers: &HeaderMap) -> Response {
    match handle.status().await {
        Ok(full) => match full.sections.iter().find(|section| section.name == page) {
            Some(section) if wants_json(headers) => json(&section.json),
            Some(section) => plain(section.page.clone()),
            None => nothing_here().await,
        },
        Err(refusal) => unavailable(&refusal),
    }
}

async fn report(State(handle): State<Handle>) -> Response {
    match handle.status().await {
        Ok(full) => json(&Report::from(&full)),
        Err(refusal) => unavailable(&refusal),
    }
}

async fn measure(State(handle): State<Handle>) -> Response {
    match handle.status().await {
        Ok(full) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&Report::from(&full)) + &sections(&full)).into_response(),
        Err(refusal) => unavailable(&refusal),
    }
}

fn sections(full: &FullStatus) -> String {
    full.sections.iter().map(|section| section.metrics.as_str()).collect()
}

async fn key(State(handle): State<Handle>, headers: HeaderMap) -> Response {
    match handle.status().await {
        Ok(full) if wants_json(&headers) => json(&Key { key: full.snapshot.key }),
        Ok(full) => plain(format!("{}\n", full.snapshot.key)),
        Err(refusal) => unavailable(&refusal),
    }
}

async fn openapi() -> Response {
    json(&super::openapi::document())
}

async fn connect(State(handle): State<Handle>, body: Result<Json<Hosts>, JsonRejection>) -> Response {
    match targets(body) {
        Ok(targets) => done(handle.connect(targets).await),
        Err(answer) => *answer,
    }
}

async fn forget(State(handle): State<Handle>, body: Result<Json<Hosts>, JsonRejection>) -> Response {
    match targets(body) {
        Ok(targets) => done(handle.forget(targets).await),
        Err(answer) => *answer,
    }
}

fn targets(body: Result<Json<Hosts>, JsonRejection>) -> Result<Vec<Target>, Box<Response>> {
    let Json(hosts) = body.map_err(|e| failure(e.status(), &e.body_text()))?;
    if hosts.peers.is_empty() || hosts.peers.len() > MAX_HOSTS {
        return Err(failure(StatusCode::BAD_REQUEST, &format!("\"peers\" takes 1 to {MAX_HOSTS} hosts")).into());
    }
    let parsed: Result<Vec<Target>, _> = hosts.peers.iter().map(|text| text.parse()).collect();
    parsed.map_err(|e| failure(StatusCode::BAD_REQUEST, &e.to_string()).into())
}

async fn nothing_here() -> Response {
    failure(StatusCode::NOT_FOUND, NOTHING_HERE)
}

#[cfg(test)]
mod tests;
