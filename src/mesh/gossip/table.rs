//! What is kept of each router, and of each its records: tables in one piece. A record that comes is looked up in a table that nothing else has
//! touched for a while, so what it costs is how many places of the memory that takes.

use std::sync::Arc;

use crate::wire::PeerName;
use crate::wire::record::Record;

/// Values by the names of routers, ascending.
#[derive(Debug)]
pub(super) struct Table<T> {
    /// Each name and where its value is.
    places: Vec<(PeerName, u32)>,
    values: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { places: Vec::new(), values: Vec::new(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    pub(super) fn get(&self, name: &PeerName) -> Option<&T> {
        let (_, at) = self.places.get(self.find(*name).ok()?)?;
        self.values.get(*at as usize)?.as_ref()
    }

    pub(super) fn contains(&self, name: &PeerName) -> bool {
        self.find(*name).is_ok()
    }

    /// Where `name` is among all, as [`Table::keys`] and [`Table::iter`] tell them.
    pub(super) fn place(&self, name: &PeerName) -> Option<usize> {
        self.find(*name).ok()
    }

    pub(super) fn get_mut(&mut self, name: &PeerName) -> Option<&mut T> {
        let (_, at) = self.places.get(self.find(*name).ok()?)?;
        self.values.get_mut(*at as usize)?.as_mut()
    }

    /// The value of `name`, which is made where there is none.
    pub(super) fn get_or_insert_with(&mut self, name: PeerName, value: impl FnOnce() -> T) -> &mut T {
        let at = match self.find(name) {
            Ok(place) => self.places[place].1,
            Err(place) => {
                let at = self.free.pop().unwrap_or_else(|| {
                    // The largest table of a router: to double its room would waste the half of much.
                    if self.values.len() == self.values.capacity() {
                        self.values.reserve_exact(16 + self.values.len() / 8);
                    }
                    self.values.push(None);
                    u32::try_from(self.values.len() - 1).expect("far fewer routers are kept")
                });
                self.places.insert(place, (name, at));
                at
            }
        };
        self.values[at as usize].get_or_insert_with(value)
    }

    pub(super) fn remove(&mut self, name: &PeerName) -> Option<T> {
        let (_, at) = self.places.remove(self.find(*name).ok()?);
        self.free.push(at);
        self.values.get_mut(at as usize)?.take()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &PeerName> {
        self.places.iter().map(|(name, _)| name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerName, &T)> {
        self.places.iter().filter_map(|(name, at)| Some((name, self.values.get(*at as usize)?.as_ref()?)))
    }

    /// Where `name` is among the names, or would be. They are hashes, so its bits tell about where to look; whoever makes up names that lie
    /// together makes the search longer by a few steps.
    fn find(&self, name: PeerName) -> Result<usize, usize> {
        let (all, count) = (&self.places, self.places.len());
        let guess = ((u128::from(name.to_u64()) * count as u128) >> 48) as usize;
        let is_below = |at: usize| all.get(at).is_some_and(|(other, _)| *other < name);
        let (mut low, mut high, mut step) = (guess, guess, 4);
        while low > 0 && !is_below(low) {
            low = low.saturating_sub(step);
            step *= 2;
        }
        step = 4;
        while high < count && is_below(high) {
            high += step;
            step *= 2;
        }
        let near = all.get(low..(high + 1).min(count)).unwrap_or_default();
        let found = near.binary_search_by_key(&name, |(other, _)| *other);
        found.map(|at| low + at).map_err(|at| low + at)
    }
}

/// The records of one router, by type and chunk, ascending.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<((u8, u16), Arc<Record>)>);

impl Records {
    pub(super) fn get(&self, key: &(u8, u16)) -> Option<&Arc<Record>> {
        let at = self.find(*key).ok()?;
        self.0.get(at).map(|(_, record)| record)
    }

    pub(super) fn contains_key(&self, key: &(u8, u16)) -> bool {
        self.find(*key).is_ok()
    }

    /// Keeps a record in the place of its type and chunk; returns the one that was there.
    pub(super) fn insert(&mut self, record: Arc<Record>) -> Option<Arc<Record>> {
        let key = (record.id().kind, record.id().chunk);
        match self.find(key) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, record)),
            Err(at) => {
                // Most have two, so that to double the room would waste the half.
                self.0.reserve_exact(1);
                self.0.insert(at, (key, record));
                None
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &(u8, u16)> {
        self.0.iter().map(|(key, _)| key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.0.iter().map(|(_, record)| record)
    }

    pub(super) fn into_values(self) -> impl Iterator<Item = Arc<Record>> {
        self.0.into_iter().map(|(_, record)| record)
    }

    /// All of one type, by chunk.
    pub(super) fn of(&self, kind: u8) -> &[((u8, u16), Arc<Record>)] {
        let start = self.0.partition_point(|((other, _), _)| *other < kind);
        let end = self.0.partition_point(|((other, _), _)| *other <= kind);
        self.0.get(start..end).unwrap_or_default()
    }

    fn find(&self, key: (u8, u16)) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(other, _)| *other)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Names as they are, and names that lie together at either end or all around one.
        #[test]
        fn a_table_is_a_map(steps in prop::collection::vec((0usize..4, any::<u64>(), 0u8..4), 1..300)) {
            let (mut table, mut map) = (Table::default(), BTreeMap::new());
            for (n, (spread, number, action)) in steps.into_iter().enumerate() {
                let name = PeerName::from_u64([number, number % 40, u64::MAX - number % 40, (1 << 47) + number % 40][spread]);
                match action {
                    0 => prop_assert_eq!(table.remove(&name), map.remove(&name)),
                    1 => prop_assert_eq!(table.get_or_insert_with(name, || n), map.entry(name).or_insert(n)),
                    2 => prop_assert_eq!(table.get_mut(&name), map.get_mut(&name)),
                    _ => prop_assert_eq!(table.get(&name), map.get(&name)),
                }
                prop_assert_eq!(table.len(), map.len());
            }
            prop_assert!(table.iter().eq(map.iter()));
            prop_assert!(table.keys().eq(map.keys()));
            for (place, name) in table.keys().enumerate() {
                prop_assert_eq!(table.place(name), Some(place));
                prop_assert!(table.contains(name));
            }
        }
    }
}
