//! What all routers of a simulation share: records that are read once, and graphs that are built once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::mesh::gossip::Workshop;
use crate::mesh::routes::Topology;
use crate::wire::record::{BadRecord, Record};

/// Graphs kept: while news travels, routers hold different ones.
const GRAPHS: usize = 256;

/// Records by the end of their signature, which is a hash here, and the newest graphs.
#[derive(Default)]
struct Shelves {
    records: BTreeMap<[u8; 16], Weak<Record>>,
    /// Records at the last sweep.
    swept: usize,
    graphs: BTreeMap<u64, Arc<Topology>>,
    order: VecDeque<u64>,
}

/// A workshop for all routers of a simulation.
#[derive(Default)]
pub struct Common {
    shelves: Mutex<Shelves>,
}

impl Common {
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workshop for Common {
    fn record(&self, bytes: &[u8]) -> Result<Arc<Record>, BadRecord> {
        let mut shelves = self.shelves();
        let Some(key) = bytes.len().checked_sub(64).and_then(|at| bytes.get(at..at + 16)?.try_into().ok()) else {
            return Record::parse(bytes).map(Arc::new);
        };
        if let Some(known) = shelves.records.get(&key).and_then(Weak::upgrade).filter(|known| known.bytes() == bytes) {
            return Ok(known);
        }
        let record = Arc::new(Record::parse(bytes)?);
        shelves.records.insert(key, Arc::downgrade(&record));
        if shelves.records.len() > 2 * shelves.swept + 1024 {
            shelves.records.retain(|_, record| record.strong_count() > 0);
            shelves.swept = shelves.records.len();
        }
        Ok(record)
    }

    fn topology(&self, key: u64, build: &dyn Fn() -> Topology) -> Arc<Topology> {
        let known = |shelves: &Shelves| shelves.graphs.get(&key).map(Arc::clone);
        if let Some(known) = known(&self.shelves()) {
            return known;
        }
        // Others need not wait meanwhile; of two who build the same one the first is heard.
        let built = Arc::new(build());
        let mut shelves = self.shelves();
        if let Some(known) = known(&shelves) {
            return known;
        }
        shelves.graphs.insert(key, Arc::clone(&built));
        shelves.order.push_back(key);
        if shelves.order.len() > GRAPHS {
            let oldest = shelves.order.pop_front();
            oldest.and_then(|oldest| shelves.graphs.remove(&oldest));
        }
        built
    }
}
