//! Answers in the forms that every page of the API uses.

use axum::Json;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::state::{Cause, Denied, Refusal};
use super::types::Failure;

/// Longest sentence in bytes that is taken over from the HTTP library.
const MAX_SENTENCE: usize = 4096;

/// True where a request asks for JSON; pages are text for people otherwise.
pub fn wants_json(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|v| v.to_str().is_ok_and(|v| v.contains("application/json")))
}

/// Text for people.
pub fn plain(text: String) -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// Indented, with a newline at the end: it is read in terminals as often as by programs.
pub fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(e) => failure(StatusCode::INTERNAL_SERVER_ERROR, &format!("the answer cannot be written as JSON: {e}")),
    }
}

/// Nothing but success, or why not, by what that is due to.
pub fn kept(result: Result<(), Denied>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(denied) => by_cause(&denied),
    }
}

/// Why not, by what that is due to.
pub fn by_cause(denied: &Denied) -> Response {
    let status = match denied.cause {
        Cause::Request => StatusCode::BAD_REQUEST,
        Cause::Conflict => StatusCode::CONFLICT,
        Cause::Moment => StatusCode::SERVICE_UNAVAILABLE,
        Cause::Disk => StatusCode::INSUFFICIENT_STORAGE,
    };
    failure(status, &denied.refusal.0)
}

/// The router did not do it.
pub fn unavailable(refusal: &Refusal) -> Response {
    failure(StatusCode::SERVICE_UNAVAILABLE, &refusal.0)
}

/// An error as every page tells it: `{"error": "a sentence"}`.
pub fn failure(status: StatusCode, sentence: &str) -> Response {
    (status, Json(Failure { error: sentence.to_string() })).into_response()
}

/// What the HTTP library refuses on its own is plain text: here it gets the form of every other error.
pub async fn in_json(request: Request, next: Next) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    let response = next.run(request).await;
    let status = response.status();
    let told = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if told || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, MAX_SENTENCE).await.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_string()).unwrap_or_default();
    let why = if text.is_empty() { status.canonical_reason().unwrap_or("it was refused").to_string() } else { text };
    let mut answer = failure(status, &format!("cannot answer {what}: {why}"));
    if let Some(methods) = parts.headers.get(ALLOW) {
        answer.headers_mut().insert(ALLOW, methods.clone());
    }
    answer
}
