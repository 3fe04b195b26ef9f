//! The mesh plane: links, handshakes, gossip, topology, routes and paths, as one sans-IO state machine.
//!
//! [`Mesh`] is handed datagrams, commands, punts of the packet threads and the time; it answers with an [`Outbox`] of
//! datagrams, a new [`Fib`](crate::forward::Fib) and events. It reads no clock and draws no randomness but from its seed.
//!
//! * **Session**: keys with one router, end to end, whichever way datagrams take ([`keyring`]). Made by a handshake
//!   ([`handshakes`] ours, [`answers`] to others, [`guard`] limits what strangers cost), DIRECT or RELAYED.
//! * **Adjacency**: a proven direct path to a router ([`adjacency`]). Its address changes only after a sealed challenge and
//!   response. [`heartbeat`] tells whether it lives, [`mtu`] how large datagrams may be.
//! * **Link**: an adjacency that both ends agreed to use for gossip and floods and to advertise. Their number is bounded.
//! * **Target**: whom to dial ([`targets`]): hosts somebody named, routers gossip told of, referrals of full routers.
//! * **Fast datapath**: frames of trusted peers that the kernel carries instead of the packet threads ([`fastdp`]).
//! * **Apps**: parts of the program above the mesh, which speak with their like on other routers through [`apps`].
//! * **Records**: what routers say of themselves, agreed on by [`gossip`]; [`routes`] are a pure function of them, and
//!   [`macs`] are claimed in them.
//!
//! How two routers meet:
//!
//! ```text
//!  A                                             B
//!  HANDSHAKE XX 1  ───────────────────────────►         padded, so that the answer is no larger
//!                  ◄───────────────────────────  HANDSHAKE XX 2
//!  HANDSHAKE XX 3  ───────────────────────────►         B knows A's key, and that A is at its address
//!  LINK, OBSERVED  ═══════════════════════════►         sealed; B may seal with the session from here on
//!                  ◄═══════════════════════════  LINK answer, GOSSIP root
//!  PING, PROBEs    ◄══════════════════════════►  PING, PROBEs
//!  GOSSIP          ◄══════════════════════════►  GOSSIP     NODE, LINKS, MACS of everybody
//! ```
//!
//! Doors left open: unknown record types, TLVs and features are carried or passed over.

pub mod adjacency;
pub mod answers;
pub mod apps;
pub mod command;
pub mod config;
mod core;
pub mod counters;
pub mod fastdp;
mod fib_build;
pub mod fuzz;
pub mod gossip;
pub mod guard;
pub mod handshakes;
pub mod heartbeat;
pub mod keyring;
mod limits;
mod links;
pub mod macs;
pub mod mtu;
mod news;
mod paths;
mod receive;
pub mod routes;
mod send;
pub mod snapshot;
mod status;
pub mod targets;

pub use config::{MeshConfig, Outbox};
pub use core::Mesh;
pub use counters::MeshCounters;
