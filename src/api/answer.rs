//! Answers in the forms that every page of the API uses.

use axum::Json;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::state::Refusal;
use super::types::Failure;

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

/// Nothing but success, or why not.
pub fn done(result: Result<(), Refusal>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => unavailable(&refusal),
    }
}

/// The router did not do it.
pub fn unavailable(refusal: &Refusal) -> Response {
    failure(StatusCode::SERVICE_UNAVAILABLE, &refusal.0)
}

/// An error as every page tells it: `{"error": "a sentence"}`.
pub fn failure(status: StatusCode, sentence: &str) -> Response {
    (status, Json(Failure { error: sentence.to_string() })).into_response()
}
