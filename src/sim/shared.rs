//! What all routers of a simulation share: records that are read once, and graphs that are built once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::forward::fib::{NameHash, NameMap};
use crate::mesh::gossip::Workshop;
use crate::mesh::routes::Topology;
use crate::wire::record::{BadRecord, Record};

/// Graphs kept: while news travels, routers hold different ones.
const GRAPHS: usize = 256;

/// Parts of the records, each with a lock of its own: routers that run abreast seldom wait for each other.
const PARTS: usize = 64;

/// Records by the beginning of their signature, which is a hash here.
struct Shelf {
    records: NameMap<u64, Weak<Record>>,
    /// Records at the last sweep.
    swept: usize,
}

impl Default for Shelf {
    fn default() -> Shelf {
        Shelf { records: NameMap::with_hasher(NameHash(0)), swept: 0 }
    }
}

/// The newest graphs.
#[derive(Default)]
struct Shelves {
    graphs: BTreeMap<u64, Arc<Topology>>,
    order: VecDeque<u64>,
}

/// A workshop for all routers of a simulation.
pub struct Common {
    records: [Mutex<Shelf>; PARTS],
    shelves: Mutex<Shelves>,
}

impl Default for Common {
    fn default() -> Common {
        Common { records: std::array::from_fn(|_| Mutex::default()), shelves: Mutex::default() }
    }
}

impl Common {
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workshop for Common {
    fn record(&self, bytes: &[u8]) -> Result<Arc<Record>, BadRecord> {
        let signature = bytes.last_chunk::<64>().and_then(|signature| signature.first_chunk());
        let Some(key) = signature.map(|hash| u64::from_ne_bytes(*hash)) else { return Record::parse(bytes).map(Arc::new) };
        let mut shelf = self.records[key as usize % PARTS].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shelf.records.get(&key).and_then(Weak::upgrade).filter(|known| known.bytes() == bytes) {
            return Ok(known);
        }
        let record = Arc::new(Record::parse(bytes)?);
        shelf.records.insert(key, Arc::downgrade(&record));
        if shelf.records.len() > 2 * shelf.swept + 64 {
            shelf.records.retain(|_, record| record.strong_count() > 0);
            shelf.swept = shelf.records.len();
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
