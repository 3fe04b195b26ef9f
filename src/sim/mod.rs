//! The whole mesh in one process, one thread and one seed.
//!
//! A [`Sim`] holds routers, each of them the real mesh plane and the real packet plane with a bridge in memory, and an
//! underlay of [wires](Sim::wire) and [networks](Sim::lan) that lose, double, delay and overtake datagrams. A datagram
//! reaches an address only if its sender has an interface in the same network, or is let through by [translators](Sim::nat), so routers that
//! share none must relay.
//!
//! Time is the queue's: nothing happens between two events, and events of one moment happen in the order in which they
//! were caused. All chance comes from the seed. So a run can be repeated, and [`Sim::trace`] tells whether it was.
//!
//! What must never happen is noted as a [problem](Sim::problems) wherever it is seen: a frame delivered twice or
//! damaged, hops used up, a warning that nobody expected, a timer that is due again and again, a datagram that a router
//! finds forged or malformed although all are honest.
//!
//! ```
//! use std::time::Duration;
//! use weave_router::sim::{Options, Quality, RouterOptions, Sim};
//!
//! let mut sim = Sim::new(7, Options::default());
//! let (a, b) = (sim.router(&RouterOptions::default()), sim.router(&RouterOptions::default()));
//! sim.wire(a, b, Quality::default());
//! sim.connect(a, b);
//! sim.start_all();
//! assert!(sim.run_until(Duration::from_secs(2), Sim::is_converged).is_some());
//! let (from, to) = (sim.container(a), sim.container(b));
//! sim.run_for(Duration::from_secs(1));
//! let frame = sim.send(from, to, 1000);
//! sim.run_for(Duration::from_millis(100));
//! assert_eq!(sim.arrivals(frame, b), 1);
//! assert!(sim.problems().is_empty());
//! ```

mod bridge;
mod crew;
mod ethernet;
mod frames;
pub mod large;
mod nat;
mod node;
mod queue;
mod seen;
mod shared;
mod underlay;
mod world;

pub use ethernet::Mac;
pub use frames::FrameId;
pub use nat::Nat;
pub use node::RouterOptions;
pub use queue::Queue;
pub use underlay::{Quality, WireId};
pub use world::{Captured, Options, RouterId, Sim};
