//! The packet plane's rules: where a frame goes, as bytes in and bytes out.
//!
//! A [`Forwarder`] belongs to one packet thread. It is handed frames and receive buffers, fills an [`Outbox`] and writes to a
//! [`TapSink`]; what it decides by is an immutable [`Fib`], the shared [`MacTable`] and the shared table of floods seen.
//!
//! * Before that, while more comes from the bridge than one core can send: [`fq_codel`], where it waits for its turn.
//! * TAP to peer: [`frame`] parses once, [`cut`] makes self-contained frames of a super frame, each is copied once, to where
//!   it is sealed.
//! * [`ack_filter`]: of the acknowledgements of a TCP flow that come together, the last goes on.
//! * Peer to TAP: opened in place, [`rejoin`] makes a super frame again of what lies in one receive buffer.
//! * Multicast: [`membership`] is what stations say of their groups, [`groups`] who wants which.
//! * What fits no datagram: [`too_big`] answers where there is an answer, [`fragment`] carries the rest.

pub mod ack_filter;
pub mod addresses;
pub mod checksum;
pub mod counters;
pub mod cut;
pub mod duplicates;
pub mod fib;
pub mod flood_limit;
pub mod forwarder;
pub mod fq_codel;
pub mod fragment;
pub mod frame;
pub mod fuzz;
pub mod groups;
pub mod limit;
pub mod mac_table;
pub mod membership;
pub mod neighbour;
pub mod outbox;
pub mod pending;
pub mod punt;
pub mod rejoin;
pub mod relay_limit;
mod service;
pub mod tap;
pub mod testkit;
pub mod too_big;

pub use addresses::Addresses;
pub use counters::PacketCounters;
pub use duplicates::Duplicates;
pub use fib::{Fib, FibLink, FibPeer, Hops, Route};
pub use forwarder::{Forwarder, Settings, Shared};
pub use fq_codel::FqCodel;
pub use mac_table::MacTable;
pub use outbox::Outbox;
pub use punt::Punt;
pub use service::SERVICE_ADDRESS;
pub use tap::TapSink;

#[cfg(test)]
mod tests;
