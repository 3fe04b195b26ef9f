//! The names of containers, as rules: what this router publishes, and what all routers together say.
//!
//! A router says which names it holds in signed records, and its newest set of records replaces the former. So there are no deletions to
//! remember, no clocks to compare, and nobody can take another router's names away. Names of a router that is not reached from here are not
//! answered: [`View`] is told of reachability and leaves them out until it is back.
//!
//! Any member can add an address to any name, and a name to any address: names belong to nobody, as on a LAN where every host answers for itself, and
//! whoever publishes `web` with an address of its own gets its part of the callers by the same right as any other holder. So to hold the
//! addresses against the ring of the address allocation would keep nobody from drawing callers, and it would break what people do: `dns-add` on
//! one host for a container of another, containers that kept their addresses over a lost state directory, addresses that somebody gave by hand; and each new
//! name would wait for the ring to be in step. Who must not be led astray needs names with owners, or peers that prove who they are.
//!
//! [`Domain`] is how names are written, [`Own`] what this router publishes, [`View`] what is answered.

mod answered;
mod domain;
pub mod fuzz;
mod own;
mod picture;
mod view;

pub use answered::Families;
pub use domain::{BadHostname, Domain, reverse_address};
pub use own::{Holding, MAX_CHUNKS, Own, Refused};
pub use picture::{Picture, Row};
pub use view::{Found, Unusable, View};

crate::counters! {
    /// What became of names.
    pub struct NamesCounters {
        /// Names that were not taken because this router publishes as many as it can.
        refused_full,
        /// Sets of names of other routers that were malformed, or of a version this build does not know.
        drop_bad_record,
        /// Sets of names of other routers that were for another domain.
        drop_foreign_domain,
        /// Sets of names of other routers for which there was no room.
        drop_no_room,
    }
}
