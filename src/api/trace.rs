//! `GET /trace/{peer}`: the routers that frames to another pass, each with the time its answer took.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::answer::{failure, json, plain, wants_json};
use super::state::Refusal;
use super::text::clean;
use crate::mesh::trace;

/// Asks the mesh plane for a trace to the router with this name or nickname.
pub type AskTrace = Arc<dyn Fn(String) -> BoxFuture<'static, Result<trace::Trace, Refusal>> + Send + Sync>;

/// A trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceReport {
    /// Name of the peer.
    pub peer: String,
    /// Its nickname.
    pub nickname: String,
    /// The routers on the way that answered, in order.
    pub hops: Vec<TraceHop>,
    /// True where the last of them is the peer.
    pub complete: bool,
    /// Why the way was not followed to its end.
    pub error: Option<String>,
}

/// One router on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceHop {
    /// Its name.
    pub router: String,
    /// Its nickname.
    pub nickname: String,
    /// How long its answer took, in milliseconds.
    pub rtt_ms: f64,
}

impl From<trace::Trace> for TraceReport {
    fn from(trace: trace::Trace) -> TraceReport {
        let hop =
            |hop: trace::Hop| TraceHop { router: hop.router.to_string(), nickname: hop.nickname, rtt_ms: (hop.rtt_ms * 1e3).round() / 1e3 };
        TraceReport {
            peer: trace.peer.to_string(),
            nickname: trace.nickname,
            complete: trace.error.is_none(),
            hops: trace.hops.into_iter().map(hop).collect(),
            error: trace.error,
        }
    }
}

/// The page of traces.
pub fn routes(ask: AskTrace) -> Router {
    Router::new().route("/trace/{peer}", get(show)).with_state(ask)
}

async fn show(State(ask): State<AskTrace>, Path(peer): Path<String>, headers: HeaderMap) -> Response {
    match ask(peer).await.map(TraceReport::from) {
        Ok(report) if wants_json(&headers) => json(&report),
        Ok(report) => plain(text(&report)),
        Err(refusal) => failure(StatusCode::BAD_REQUEST, &refusal.0),
    }
}

/// A trace for people.
pub fn text(report: &TraceReport) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "to {}({})", report.peer, clean(&report.nickname));
    for (n, hop) in report.hops.iter().enumerate() {
        let _ = writeln!(out, "{:>2}  {:>9.3} ms  {}({})", n + 1, hop.rtt_ms, hop.router, clean(&hop.nickname));
    }
    if let Some(error) = &report.error {
        let _ = writeln!(out, "{:>2}  {}", report.hops.len() + 1, clean(error));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PeerName;

    #[test]
    fn a_trace_reads_well_and_says_where_it_ends() {
        let hop = |n: u8, rtt_ms| trace::Hop { router: PeerName([0x7a, 0, 0, 0, 0, n]), nickname: format!("h{n}"), rtt_ms };
        let whole = trace::Trace {
            peer: PeerName([0x7a, 0, 0, 0, 0, 3]),
            nickname: "h3".into(),
            hops: vec![hop(2, 1.2345), hop(3, 12.5)],
            error: None,
        };
        let report = TraceReport::from(whole.clone());
        assert_eq!((report.complete, report.hops[0].rtt_ms), (true, 1.235));
        assert_eq!(
            text(&report),
            "to 7a:00:00:00:00:03(h3)\n 1      1.235 ms  7a:00:00:00:00:02(h2)\n 2     12.500 ms  7a:00:00:00:00:03(h3)\n"
        );
        let cut = TraceReport::from(trace::Trace { hops: vec![hop(2, 1.0)], error: Some("no\nroute".into()), ..whole });
        assert!(!cut.complete && text(&cut).ends_with(" 2  no?route\n"), "{}", text(&cut));
    }
}
