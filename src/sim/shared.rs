//! What all routers of a simulation share: records that are read once, and graphs that are built once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::forward::fib::{NameHash, NameMap};
use crate::mesh::gossip::Workshop;
use crate::mesh::routes::{Block, Topology};
use crate::wire::record::{BadRecord, Record};

/// Graphs kept: while news travels, routers use different ones.
const GRAPHS: usize = 256;

/// Parts of what is kept, each with a lock of its own: routers that run abreast seldom wait for each other.
const PARTS: usize = 64;

/// What routers hold, by a number that tells it apart.
struct Shelf<T> {
    all: NameMap<u64, Weak<T>>,
    /// How many there were after the last sweep.
    swept: usize,
}

impl<T> Default for Shelf<T> {
    fn default() -> Shelf<T> {
        Shelf { all: NameMap::with_hasher(NameHash(0)), swept: 0 }
    }
}

impl<T> Shelf<T> {
    fn get(&self, key: u64) -> Option<Arc<T>> {
        self.all.get(&key).and_then(Weak::upgrade)
    }

    fn put(&mut self, key: u64, new: &Arc<T>) {
        self.all.insert(key, Arc::downgrade(new));
        if self.all.len() > 2 * self.swept + 64 {
            self.all.retain(|_, held| held.strong_count() > 0);
            self.swept = self.all.len();
        }
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
    /// Records, by the beginning of their signature, which is a hash here.
    records: [Mutex<Shelf<Record>>; PARTS],
    /// Parts of graphs: routers that hear the same in another order hold other graphs, but hardly other parts of them.
    blocks: [Mutex<Shelf<Block>>; PARTS],
    shelves: Mutex<Shelves>,
}

impl Default for Common {
    fn default() -> Common {
        Common {
            records: std::array::from_fn(|_| Mutex::default()),
            blocks: std::array::from_fn(|_| Mutex::default()),
            shelves: Mutex::default(),
        }
    }
}

/// The part in which something with this number is.
fn part<T>(parts: &[Mutex<Shelf<T>>; PARTS], key: u64) -> MutexGuard<'_, Shelf<T>> {
    parts[key as usize % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
}

impl Common {
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block that others hold already, where there is one like this.
    fn block(&self, new: Arc<Block>) -> Arc<Block> {
        let key = new.digest();
        let mut shelf = part(&self.blocks, key);
        if let Some(known) = shelf.get(key).filter(|known| *known == new) {
            return known;
        }
        shelf.put(key, &new);
        new
    }
}

impl Workshop for Common {
    fn graph(&self, key: u64) -> Option<Arc<Topology>> {
        self.shelves().graphs.get(&key).map(Arc::clone)
    }

    fn keeps_graphs(&self) -> bool {
        true
    }

    fn record(&self, bytes: &[u8]) -> Result<Arc<Record>, BadRecord> {
        let signature = bytes.last_chunk::<64>().and_then(|signature| signature.first_chunk());
        let Some(key) = signature.map(|hash| u64::from_ne_bytes(*hash)) else { return Record::parse(bytes).map(Arc::new) };
        let mut shelf = part(&self.records, key);
        if let Some(known) = shelf.get(key).filter(|known| known.bytes() == bytes) {
            return Ok(known);
        }
        let record = Arc::new(Record::parse(bytes)?);
        shelf.put(key, &record);
        Ok(record)
    }

    fn topology(&self, key: u64, build: &dyn Fn() -> Topology) -> Arc<Topology> {
        let known = |shelves: &Shelves| shelves.graphs.get(&key).map(Arc::clone);
        if let Some(known) = known(&self.shelves()) {
            return known;
        }
        // Others need not wait meanwhile; of two who build the same one the first is heard.
        let built = Arc::new(build().with_shared(|block| self.block(block)));
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
