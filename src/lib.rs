//! weave-router: containers on different hosts on one encrypted Ethernet. This page is the map.
//!
//! Three planes, joined by mailboxes: the packet plane moves frames and nothing else, the mesh plane decides, the management plane looks
//! after the host and talks to people. Three floors, and imports point down only (`tests/floors.rs` holds everyone to it):
//!
//! * ground, which knows bytes: [`wire`] the format, [`crypto`] identity, handshake and sessions, [`time`], [`mod@counters`];
//! * middle, which knows the rules and is told time and randomness: [`forward`] where a frame goes, [`mesh`] links, gossip, routes and paths,
//!   [`ipam`] who gives which addresses, [`names`] the names of containers, [`sim`] a whole mesh in one process;
//! * top, which knows the operating system: [`io`] TAP, sockets and event loops, [`host`] bridge, firewall, fast datapath and the laboratory of
//!   namespaces, [`api`] status pages and control, [`dns`] the name server, [`docker`] what Docker knows of containers, [`store`] the state
//!   directory, [`cli`] options, verbs, and [`cli::run`], which joins the planes.
//!
//! A frame's way: `io::packet_thread` reads the TAP → [`forward::Forwarder::from_tap`] → outbox → UDP; and back by
//! [`forward::Forwarder::from_udp`]. What is decided reaches it as a new [`forward::Fib`] from [`mesh::Mesh`].

pub mod api;
pub mod cli;
pub mod counters;
pub mod crypto;
pub mod dns;
pub mod docker;
pub mod forward;
pub mod host;
pub mod io;
pub mod ipam;
pub mod mesh;
pub mod names;
pub mod sim;
pub mod store;
pub mod time;
pub mod wire;
