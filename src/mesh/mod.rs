//! The mesh plane: links, handshakes, gossip, topology, routes and paths, as one sans-IO state machine.
//!
//! [`Mesh`] is handed datagrams, commands, punts of the packet threads and the time; it answers with an [`Outbox`] of
//! datagrams, a new [`Fib`](crate::forward::Fib) and events. It reads no clock and draws no randomness but from its seed.
//!
//! * **Session**: keys with one router, end to end, whichever way datagrams take ([`keyring`]). Made by a handshake
//!   ([`handshakes`] ours, [`answers`] to others, [`fragments`] puts
//!   long messages together, [`guard`] limits what strangers cost), DIRECT or RELAYED.
//! * **Adjacency**: a proven direct path to a router ([`adjacency`]). Its address changes only after a sealed challenge and
//!   response, [`seeking`] finds it. [`heartbeat`] tells whether it lives (and `doubts` listens to who else knows), [`mtu`] how large datagrams may be.
//! * **Link**: an adjacency that both ends agreed to use for gossip and floods and to advertise. Their number is bounded.
//! * **Target**: whom to dial ([`targets`]): hosts somebody named, routers gossip told of, referrals of full routers.
//! * **TCP**: what a peer is reached by where no UDP gets through (`tcp.rs`).
//! * **Fast datapath**: frames of trusted peers that the kernel carries instead of the packet threads ([`fastdp`]).
//! * **Apps**: parts of the program above the mesh, which speak with their like on other routers through [`apps`].
//! * **Watching**: links that carry nothing and that somebody relies on all the same (`watch`).
//! * **Revoked** members have no session with anybody, and no say ([`revoked`]).
//! * **Records**: what routers say of themselves, agreed on by [`gossip`]; [`routes`] are a pure function of them, and
//!   [`macs`] are claimed in them; `duplicates` tells of those that several hosts have.
//! * **Bindings** of addresses to MACs, by which others' containers are answered for ([`bindings`]).
//! * **Multicast** groups: where frames of which group are wanted ([`multicast`]).
//! * **Loops** outside the mesh, over bridges that somebody joined, are found and broken by [`loops`].
//!
//! What it costs in a mesh of N routers with L links each (`--conn-limit`, 16):
//!
//! | what | costs | at |
//! | --- | --- | --- |
//! | a link that carries nothing | a ping and a pong a second, 55 bytes each, by one end for both; six more in its first second | [`heartbeat`] |
//! | a record | L datagrams from its origin, two to every other router, one from each to two others | [`gossip`] |
//! | being in step | eight bytes in each ping and pong, whatever N is | [`gossip`] |
//! | news of a link | a look at its two ends; a walk over the mesh only where a way was cut | [`gossip`] |
//! | routes | three walks over the mesh 5 ms after news, and while it keeps coming at most every N ms (0.3 N where links go, but for the first few) | [`routes`] |
//! | a newcomer | a handshake for each of its links, and all records once or twice | [`gossip`] |
//! | memory | records, graph, routes and Fib: some 3 kB for each router of the mesh (0.50 MB in all at 100 routers, 1.1 MB at 300, 3.1 MB at 1,000) | |
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
//! A member gone bad has keys, a session and a link, and says what it likes (`bad_member` plays it):
//!
//! * It speaks for nobody else: records are signed by their origin, and jumps of its own incarnation or sequence shut out itself alone.
//! * A link counts where both ends tell of it, at the higher cost and the smaller size of the two, and no size counts below the one that every
//!   path carries.
//! * Routers that it makes up take the room of nobody who can be reached, and nothing that they say is used before links lead there.
//! * What it may cost a neighbour is bounded for each: records read, signatures checked, questions and their answers ([`gossip`]), datagrams
//!   relayed, questions for ways ([`trace`]), first messages of handshakes ([`guard`], [`fragments`], [`answers`]). A link that it lets come
//!   and go is told to the mesh at a bounded pace.
//! * What it floods in another's name is heard by its neighbours alone, unless it stands between them and that router, and silences nobody.
//! * Addresses that it names are dialled and challenged by others, a few datagrams each at a pace that slows down, none larger than 1232 bytes.
//! * Whoever is reached through it alone it can cut off; and a dead neighbour whose name it keeps in its LINKS goes on being taken for reachable.
//!
//! Doors left open: unknown record types, TLVs and features are carried or passed over.

pub mod adjacency;
pub mod answers;
pub mod apps;
#[cfg(test)]
mod bad_member;
pub mod bindings;
mod clear;
pub mod command;
pub mod config;
mod core;
pub mod counters;
mod crowd;
mod discovery;
mod doubts;
mod duplicates;
mod fallback;
pub mod fastdp;
mod fib_build;
pub mod fragments;
pub mod fuzz;
pub mod gossip;
pub mod guard;
pub mod handshakes;
pub mod heartbeat;
pub mod keyring;
mod limits;
mod links;
pub mod loops;
pub mod macs;
pub mod mtu;
pub mod multicast;
mod news;
mod paths;
mod receive;
pub mod revoked;
pub mod routes;
pub mod seeking;
mod send;
mod simulated;
pub mod snapshot;
mod status;
mod tables;
pub mod targets;
mod tcp;
pub mod trace;
mod watch;

pub use config::{MeshConfig, Outbox};
pub use core::Mesh;
pub use counters::MeshCounters;
pub use doubts::Rebuff;
