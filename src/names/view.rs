//! What all routers together say: the names that are answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rand_core::Rng;

use super::answered::{Answered, Families};
use super::domain::Domain;
use super::own::MAX_CHUNKS;
use super::picture::{Origin, Picture, Row};
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
    /// Its addresses, ascending and at least one where nothing else is said.
    Addresses(Vec<IpAddr>),
    /// There are names below it only: it exists, and stands for nothing.
    Nothing,
    /// There is no such name.
    Unknown,
}

/// Everything that is known of names.
#[derive(Debug)]
pub struct View {
    domain: Domain,
    own: PeerName,
    origins: BTreeMap<PeerName, Origin>,
    /// What is answered, by relative name. Routers that are not reached are left out.
    forward: BTreeMap<String, Answered>,
    /// How many names are below a name.
    above: BTreeMap<String, u32>,
    /// Relative names by address, and how many hold each.
    reverse: BTreeMap<IpAddr, BTreeMap<String, u32>>,
    entries: usize,
    serial: u32,
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
        let chunks: Vec<Arc<Entries>> = origin.chunks.values().cloned().collect();
        for entries in chunks {
            self.index(peer, &entries, reachable);
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
                self.index(peer, entries, false);
            }
        }
    }

    /// What there is of a lower-case name, relative to the domain.
    pub fn look_up(&self, relative: &str) -> Found {
        self.found(relative, |answered| answered.addresses.keys().copied().collect())
    }

    /// The same, but of its addresses only those of some families, at most so many of them by chance, in an order by chance. There may be none.
    pub fn choose(&self, relative: &str, families: Families, most: usize, rng: &mut impl Rng) -> Found {
        self.found(relative, |answered| answered.choose(families, most, rng))
    }

    fn found(&self, relative: &str, addresses: impl FnOnce(&Answered) -> Vec<IpAddr>) -> Found {
        match self.forward.get(relative) {
            Some(answered) => Found::Addresses(addresses(answered)),
            None if self.above.contains_key(relative) => Found::Nothing,
            None => Found::Unknown,
        }
    }

    /// The other routers that hold a name which is answered.
    pub fn holders(&self, relative: &str) -> impl Iterator<Item = PeerName> {
        let holders = self.forward.get(relative).into_iter().flat_map(|answered| answered.holders.keys().copied());
        holders.filter(|holder| *holder != self.own)
    }

    /// The other routers that hold a name of an address which is answered.
    pub fn holders_of(&self, address: IpAddr) -> impl Iterator<Item = PeerName> {
        self.reverse.get(&address).into_iter().flat_map(|names| names.keys()).flat_map(|name| self.holders(name))
    }

    /// The whole names of an address, ascending.
    pub fn names_of(&self, address: IpAddr) -> impl Iterator<Item = String> {
        self.reverse.get(&address).into_iter().flat_map(|names| names.keys().map(|name| self.domain.full(name)))
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
        self.picture().rows()
    }

    /// Everything that is known at this moment.
    pub fn picture(&self) -> Picture {
        let (entries, answered) = (self.entries, self.answered());
        Picture { domain: self.domain.clone(), origins: self.origins.clone(), entries, answered }
    }

    fn read(&self, origin: PeerName, chunk: u16, bytes: &[u8]) -> Result<Entries, Unusable> {
        if usize::from(chunk) >= MAX_CHUNKS {
            return Err(Unusable::Chunk(origin));
        }
        let body = NamesBody::parse(bytes).map_err(|bad| Unusable::Bad(origin, bad))?;
        if body.domain != self.domain.name() {
            return Err(Unusable::Foreign { origin, theirs: body.domain, ours: self.domain.name().into() });
        }
        let former = self.origins.get(&origin).and_then(|known| known.chunks.get(&chunk)).map_or(0, |entries| addresses_in(entries));
        if self.entries - former + addresses_in(&body.entries) > MAX_ENTRIES {
            return Err(Unusable::NoRoom(origin));
        }
        Ok(body.entries)
    }

    fn replace(&mut self, peer: PeerName, chunk: u16, entries: Option<Entries>) {
        let origin = self.origins.entry(peer).or_default();
        let reachable = origin.reachable;
        if origin.chunks.get(&chunk).map(|former| &**former) == entries.as_ref() {
            return;
        }
        if let Some(former) = origin.chunks.remove(&chunk) {
            self.entries -= addresses_in(&former);
            if reachable {
                self.index(peer, &former, false);
            }
        }
        if let Some(entries) = entries {
            self.entries += addresses_in(&entries);
            if reachable {
                self.index(peer, &entries, true);
            }
            self.origins.entry(peer).or_default().chunks.insert(chunk, Arc::new(entries));
        }
    }

    /// Puts what `peer` says among the answers, or takes it out.
    fn index(&mut self, peer: PeerName, entries: &Entries, present: bool) {
        self.serial = self.serial.wrapping_add(1).max(1);
        for ((name, _), addresses) in entries {
            let was_known = self.forward.contains_key(name);
            let answered = self.forward.entry(name.clone()).or_default();
            answered.touch();
            count(&mut answered.holders, &peer, present);
            for address in addresses {
                count(&mut answered.addresses, address, present);
                count(self.reverse.entry(*address).or_default(), name, present);
                if self.reverse.get(address).is_some_and(BTreeMap::is_empty) {
                    self.reverse.remove(address);
                }
            }
            if answered.addresses.is_empty() {
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

#[cfg(test)]
mod tests;
