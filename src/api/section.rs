//! What the parts of the container network add to `status`, `report` and the metrics: each says one [`Section`].

use futures::future::BoxFuture;
use serde_json::Value;

use super::state::Scope;

/// What one part says of itself at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// Its name in the path of its page (`/status/NAME`) and in the report.
    pub name: &'static str,
    /// Lines that `status` shows below the router's own, each `Key: value`.
    pub overview: Vec<(String, String)>,
    /// Its page for people; empty where the page was not asked for and is long.
    pub page: String,
    /// Its page for programs, and its place in the report; likewise.
    pub json: Value,
    /// Its metrics, in Prometheus' text format.
    pub metrics: String,
}

/// Asks a part for its section.
pub type Ask = Box<dyn Fn(&Scope) -> BoxFuture<'static, Section> + Send>;
