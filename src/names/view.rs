//! What all routers together say: the names that are answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rand_core::Rng;

use super::domain::Domain;
use super::own::MAX_CHUNKS;
use crate::wire::PeerName;
use crate::wire::names::{BadNames, Entries, NamesBody};

/// Most addresses of names that are kept, of all routers together: some 50 MB.
pub const MAX_ENTRIES: usize = 200_000;

/// Why what another router publishes is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is malformed.
    #[error("the names of router {0} are not answered here: what it publishes cannot be read, because {1}")]
    Bad(PeerName, BadNames),
    /// A chunk that no router publishes.
    #[error("names of router {0} are not answered here: it publishes more than a router may")]
    Chunk(PeerName),
    /// Names of another domain.
    #[error(
        "the names of router {origin} are not answered here: they are in the domain {theirs}, and this router's is {ours}; give both the same --dns-domain"
    )]
    Foreign {
        /// Who publishes it.
        origin: PeerName,
        /// Its domain.
        theirs: String,
        /// Our domain.
        ours: String,
    },
    /// There is no room.
    #[error("names of router {0} are not answered here: this router keeps {MAX_ENTRIES} addresses of names, and has them")]
    NoRoom(PeerName),
}

/// What there is of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its addresses, ascending. There is at least one.
    Addresses(Vec<IpAddr>),
    /// There are names below it only: it exists, and stands for nothing.
    Nothing,
    /// There is no such name.
    Unknown,
}

/// One address of a name as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The whole name, without the last dot.
    pub name: String,
    /// What it stands for.
    pub address: IpAddr,
    /// The start of the container's id.
    pub tag: String,
    /// The router that says so.
    pub origin: PeerName,
    /// What that router's operator calls it.
    pub nickname: String,
    /// Whether it is answered: whether that router is reached from here.
    pub answered: bool,
}

/// Everything that is known of names.
#[derive(Debug)]
pub struct View {
    domain: Domain,
    own: PeerName,
    origins: BTreeMap<PeerName, Origin>,
    /// Addresses by relative name, and how many hold each. Routers that are not reached are left out.
    forward: BTreeMap<String, BTreeMap<IpAddr, u32>>,
    /// How many names are below a name.
    above: BTreeMap<String, u32>,
    /// Relative names by address, and how many hold each.
    reverse: BTreeMap<IpAddr, BTreeMap<String, u32>>,
    entries: usize,
    serial: u32,
}

#[derive(Debug, Default)]
struct Origin {
    nickname: String,
    reachable: bool,
    chunks: BTreeMap<u16, Entries>,
}

impl View {
    /// No names yet, as router `own` sees it.
    pub fn new(domain: Domain, own: PeerName, nickname: &str) -> View {
        let this = Origin { nickname: nickname.into(), reachable: true, chunks: BTreeMap::new() };
        View {
            domain,
            own,
            origins: BTreeMap::from([(own, this)]),
            forward: BTreeMap::new(),
            above: BTreeMap::new(),
            reverse: BTreeMap::new(),
            entries: 0,
            serial: 1,
        }
    }

    /// The domain whose names these are.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// This router's own names.
    pub fn set_own<'a>(&mut self, bodies: impl Iterator<Item = &'a NamesBody>) {
        let mut gone: BTreeSet<u16> = self.origins.get(&self.own).into_iter().flat_map(|origin| origin.chunks.keys().copied()).collect();
        for (chunk, body) in (0..).zip(bodies) {
            gone.remove(&chunk);
            self.replace(self.own, chunk, Some(body.entries.clone()));
        }
        for chunk in gone {
            self.replace(self.own, chunk, None);
        }
    }

    /// A record of `origin`, or that it is withdrawn. What is refused replaces nothing: it takes the former record away, which its origin no
    /// longer says.
    pub fn record(&mut self, origin: PeerName, chunk: u16, body: Option<&[u8]>) -> Result<(), Unusable> {
        if origin == self.own {
            return Ok(());
        }
        let entries = body.map(|bytes| self.read(origin, chunk, bytes)).transpose();
        let usable = entries.as_ref().map(|_| ()).map_err(Clone::clone);
        self.replace(origin, chunk, entries.unwrap_or(None));
        usable
    }

    /// Whether `origin` is reached from here, and what it is called.
    pub fn peer(&mut self, peer: PeerName, nickname: &str, reachable: bool) {
        if peer == self.own {
            return;
        }
        let origin = self.origins.entry(peer).or_default();
        if origin.nickname != nickname {
            origin.nickname = nickname.into();
        }
        if std::mem::replace(&mut origin.reachable, reachable) == reachable {
            return;
        }
        let chunks = std::mem::take(&mut origin.chunks);
        for entries in chunks.values() {
            self.index(entries, reachable);
        }
        if let Some(origin) = self.origins.get_mut(&peer) {
            origin.chunks = chunks;
        }
    }

    /// Nothing of `peer` is kept.
    pub fn forget(&mut self, peer: PeerName) {
        if peer == self.own {
            return;
        }
        let Some(origin) = self.origins.remove(&peer) else { return };
        for entries in origin.chunks.values() {
            self.entries -= addresses_in(entries);
            if origin.reachable {
                self.index(entries, false);
            }
        }
    }

    /// What there is of a lower-case name, relative to the domain.
    pub fn look_up(&self, relative: &str) -> Found {
        match self.forward.get(relative) {
            Some(addresses) => Found::Addresses(addresses.keys().copied().collect()),
            None if self.above.contains_key(relative) => Found::Nothing,
            None => Found::Unknown,
        }
    }

    /// The whole names of an address, ascending.
    pub fn names_of(&self, address: IpAddr) -> Vec<String> {
        self.reverse.get(&address).into_iter().flat_map(|names| names.keys().map(|name| self.domain.full(name))).collect()
    }

    /// Changes with everything that may change an answer.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// How many addresses of names are known, those of routers that are not reached included.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// How many names are answered.
    pub fn answered(&self) -> usize {
        self.forward.len()
    }

    /// Everything that is known, for the operator, ascending.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::with_capacity(self.entries);
        for (origin, known) in &self.origins {
            for ((name, tag), addresses) in known.chunks.values().flatten() {
                rows.extend(addresses.iter().map(|address| Row {
                    name: self.domain.full(name),
                    address: *address,
                    tag: tag.clone(),
                    origin: *origin,
                    nickname: known.nickname.clone(),
                    answered: known.reachable,
                }));
            }
        }
        rows.sort_unstable();
        rows
    }

    fn read(&self, origin: PeerName, chunk: u16, bytes: &[u8]) -> Result<Entries, Unusable> {
        if usize::from(chunk) >= MAX_CHUNKS {
            return Err(Unusable::Chunk(origin));
        }
        let body = NamesBody::parse(bytes).map_err(|bad| Unusable::Bad(origin, bad))?;
        if body.domain != self.domain.name() {
            return Err(Unusable::Foreign { origin, theirs: body.domain, ours: self.domain.name().into() });
        }
        let former = self.origins.get(&origin).and_then(|known| known.chunks.get(&chunk)).map_or(0, addresses_in);
        if self.entries - former + addresses_in(&body.entries) > MAX_ENTRIES {
            return Err(Unusable::NoRoom(origin));
        }
        Ok(body.entries)
    }

    fn replace(&mut self, peer: PeerName, chunk: u16, entries: Option<Entries>) {
        let origin = self.origins.entry(peer).or_default();
        let reachable = origin.reachable;
        let former = origin.chunks.remove(&chunk);
        if former == entries {
            origin.chunks.extend(former.map(|entries| (chunk, entries)));
            return;
        }
        if let Some(former) = former {
            self.entries -= addresses_in(&former);
            if reachable {
                self.index(&former, false);
            }
        }
        if let Some(entries) = entries {
            self.entries += addresses_in(&entries);
            if reachable {
                self.index(&entries, true);
            }
            self.origins.entry(peer).or_default().chunks.insert(chunk, entries);
        }
    }

    /// Puts entries among the answers, or takes them out.
    fn index(&mut self, entries: &Entries, present: bool) {
        self.serial = self.serial.wrapping_add(1).max(1);
        for ((name, _), addresses) in entries {
            let was_known = self.forward.contains_key(name);
            for address in addresses {
                count(self.forward.entry(name.clone()).or_default(), address, present);
                count(self.reverse.entry(*address).or_default(), name, present);
                if self.reverse.get(address).is_some_and(BTreeMap::is_empty) {
                    self.reverse.remove(address);
                }
            }
            if self.forward.get(name).is_some_and(BTreeMap::is_empty) {
                self.forward.remove(name);
            }
            if was_known != self.forward.contains_key(name) {
                for (dot, _) in name.match_indices('.') {
                    count(&mut self.above, &name[dot + 1..], present);
                }
            }
        }
    }
}

/// Counts one more, or one less.
fn count<Q, K>(counts: &mut BTreeMap<K, u32>, key: &Q, present: bool)
where
    Q: Ord + ToOwned<Owned = K> + ?Sized,
    K: Ord + std::borrow::Borrow<Q>,
{
    match counts.get_mut(key) {
        Some(count) if present => *count += 1,
        Some(count) if *count > 1 => *count -= 1,
        Some(_) => drop(counts.remove(key)),
        None if present => drop(counts.insert(key.to_owned(), 1)),
        None => {}
    }
}

fn addresses_in(entries: &Entries) -> usize {
    entries.values().map(BTreeSet::len).sum()
}

/// Puts answers into an order by chance, each as likely as the others, so that callers spread over all holders of a name.
pub fn shuffle<T>(items: &mut [T], rng: &mut impl Rng) {
    for last in (1..items.len()).rev() {
        // By multiplication: for lists this short no place is noticeably likelier than another.
        let pick = (u64::from(rng.next_u32()) * (last as u64 + 1)) >> 32;
        items.swap(last, pick as usize);
    }
}

#[cfg(test)]
mod tests;
