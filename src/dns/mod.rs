//! The name server: answers for the domain from [`crate::names::View`], and passes everything else on to the host's own name servers.
//!
//! It speaks UDP and TCP on addresses of this host only ([`listen`]): 127.0.0.1, those of the bridge, and [`SERVICE_ADDRESS`]. What it
//! answers itself ([`answer`]) is authoritative, short-lived and shuffled; what it passes on ([`upstream`]) goes through byte for byte.

pub mod answer;
pub mod asked;
pub mod connections;
pub mod fuzz;
pub mod listen;
pub mod resolv;
pub mod server;
pub mod upstream;

use std::net::Ipv4Addr;

pub use server::{Config, Server};

/// The port of name servers.
pub const PORT: u16 = 53;

/// The address at which containers find the name server of their own host: on the bridge of every host, and never carried by the mesh
/// (`forward` sees to that).
pub const SERVICE_ADDRESS: Ipv4Addr = crate::forward::SERVICE_ADDRESS;

crate::counters! {
    /// What the name server did, and what it dropped.
    pub struct DnsCounters {
        /// Queries that came.
        queries,
        /// Queries answered from the names of the mesh.
        answered,
        /// Of these, answered that there is no such name.
        unknown,
        /// Answers that did not fit a datagram: the caller is told to ask over TCP.
        truncated,
        /// Queries refused as malformed, or as something this name server does not do.
        refused,
        /// Datagrams too short to be a query, or that are no query.
        drop_not_a_query,
        /// Queries passed on to other name servers.
        forwarded,
        /// Queries passed on that no name server answered.
        forward_failed,
        /// Name servers that did not answer in time or refused, so that the next was asked.
        upstream_failures,
        /// Datagrams of name servers that did not answer what was asked.
        drop_wrong_answer,
        /// Queries not passed on because too many wait for an answer.
        drop_busy,
        /// Answers that the socket did not take.
        drop_unsent,
        /// TCP connections closed because there were too many, of all callers or of one.
        drop_connections,
    }
}
