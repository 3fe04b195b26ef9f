//! The management interface: what `status` and `report` say, and the HTTP on which it is said.
//!
//! Two servers share the read-only pages of [`server`]: the API ([`address::ApiAddress`], a unix socket or a loopback port), on which
//! the verbs of the command line act, and the status address, which changes nothing.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /status` | [`types::Status`] |
//! | `GET /status/connections` | array of [`types::Connection`] |
//! | `GET /status/peers` | array of [`types::Peer`] |
//! | `GET /status/targets` | array of [`types::Target`] |
//! | `GET /status/macs` | array of [`types::Mac`] |
//! | `GET /status/routes` | array of [`types::Route`] |
//! | `GET /status/PART` | a part of the container network, see [`section`] |
//! | `GET /status/paths` | array of [`paths::PathRow`] |
//! | `GET /trace/PEER` | [`trace::TraceReport`]; API only |
//! | `GET /report` | [`types::Report`], always JSON |
//! | `GET /metrics` | Prometheus text, see [`metrics`] |
//! | `GET /openapi.json` | all of this for programs, see [`openapi`]; API only |
//! | `GET /key` | [`types::Key`]; API only |
//! | `POST /connect`, `POST /forget` | takes [`types::Hosts`], answers 204; API only |
//!
//! Those of names are in [`names`].
//!
//! Pages are text for people ([`text`]) unless the request says `Accept: application/json`. Every error is `{"error": "a sentence"}`:
//!
//! | status | meaning |
//! | --- | --- |
//! | 400, 413, 415, 422 | what was asked makes no sense |
//! | 404, 405 | there is no such page, thing or method |
//! | 409 | somebody else has it |
//! | 503 | not now: the router is busy or stopping, or there is no room for another |
//! | 507 | what is to be remembered finds no room on the disk |

pub mod address;
pub mod answer;
pub mod beside;
pub mod client;
pub mod containers;
pub mod ethernet;
pub mod ipam;
pub mod listen;
pub mod metrics;
pub mod names;
pub mod openapi;
pub mod paths;
pub mod revoke;
pub mod section;
pub mod server;
pub mod state;
pub mod text;
pub mod threads;
pub mod trace;
pub mod types;

pub use address::ApiAddress;
pub use state::{Cause, Denied, FullStatus, Handle, MacRow, Refusal, Request, Scope};

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
