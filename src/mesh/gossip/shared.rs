//! What the routers of one process can share: a simulation of a large mesh would else hold every record and every graph as often as it has
//! routers, and read and build each as often.

use std::sync::Arc;

use crate::mesh::routes::Topology;
use crate::wire::record::{BadRecord, Record};

/// Where records are read and graphs are built.
pub trait Workshop: Send + Sync {
    /// The record that these bytes are.
    fn record(&self, bytes: &[u8]) -> Result<Arc<Record>, BadRecord>;

    /// The graph with this key, built where nobody has yet.
    fn topology(&self, key: u64, build: &dyn Fn() -> Topology) -> Arc<Topology>;

    /// The graph with this key that was built before, where it is still there.
    fn graph(&self, _key: u64) -> Option<Arc<Topology>> {
        None
    }

    /// True where no router need keep the graph it uses: while news is under way each has one of its own.
    fn keeps_graphs(&self) -> bool {
        false
    }
}

/// The workshop of a router that has its process for itself.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Workshop for Alone {
    fn record(&self, bytes: &[u8]) -> Result<Arc<Record>, BadRecord> {
        Record::parse(bytes).map(Arc::new)
    }

    fn topology(&self, _key: u64, build: &dyn Fn() -> Topology) -> Arc<Topology> {
        Arc::new(build())
    }
}
