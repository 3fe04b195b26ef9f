//! Sets that are too big for one record, kept in chunks so that a small change touches one record.

use std::collections::BTreeMap;

use crate::wire::bindings::{Binding, Place};
use crate::wire::body::{LinkEntry, MacEntry};

/// An element of a chunked set.
pub(super) trait Entry: Copy + Eq {
    /// What it is about: at most one entry per key.
    type Key: Ord + Copy;
    /// Its key.
    fn key(&self) -> Self::Key;
}

impl Entry for LinkEntry {
    type Key = crate::wire::PeerName;

    fn key(&self) -> Self::Key {
        self.neighbour
    }
}

impl Entry for MacEntry {
    type Key = (u16, [u8; 6]);

    fn key(&self) -> Self::Key {
        (self.vlan, self.mac)
    }
}

impl Entry for Binding {
    type Key = Place;

    fn key(&self) -> Self::Key {
        self.place
    }
}

/// Which entry lies in which chunk. An entry never changes its chunk, so the others are not signed again.
#[derive(Debug)]
pub(super) struct Chunks<E: Entry> {
    chunks: Vec<BTreeMap<E::Key, E>>,
    per_chunk: usize,
    most: usize,
}

impl<E: Entry> Chunks<E> {
    /// No chunks yet; later at most `most` of `per_chunk` entries each.
    pub(super) fn new(per_chunk: usize, most: usize) -> Chunks<E> {
        Chunks { chunks: Vec::new(), per_chunk, most }
    }

    /// Makes the set be `entries`; returns how many found no room. There is always a first chunk, and a chunk that
    /// became empty stays: a record cannot be unsaid, only replaced.
    pub(super) fn update(&mut self, entries: &[E]) -> usize {
        let mut wanted: BTreeMap<E::Key, E> = entries.iter().map(|entry| (entry.key(), *entry)).collect();
        for chunk in &mut self.chunks {
            chunk.retain(|key, kept| wanted.remove(key).map(|entry| *kept = entry).is_some());
        }
        if self.chunks.is_empty() {
            self.chunks.push(BTreeMap::new());
        }
        let mut homeless = 0;
        let mut index = 0;
        for (key, entry) in wanted {
            while self.chunks.get(index).is_some_and(|chunk| chunk.len() >= self.per_chunk) {
                index += 1;
            }
            if index >= self.most {
                homeless += 1;
                continue;
            }
            if index == self.chunks.len() {
                self.chunks.push(BTreeMap::new());
            }
            self.chunks[index].insert(key, entry);
        }
        homeless
    }

    /// The chunks with their numbers, each ascending by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, Vec<E>)> {
        (0..).zip(self.chunks.iter().map(|chunk| chunk.values().copied().collect()))
    }
}

/// Chunks of MACs that a router says, of so many records, and that are read of another.
pub(super) fn mac_chunks(records: usize) -> usize {
    (records / 8 * 3).max(1)
}
