//! What this router publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::domain::{BadHostname, Domain};
use crate::wire::names::{MAX_TAG, NamesBody, address_len, entry_len, has_room, head_len, is_address};
use crate::wire::record::MAX_BODY;

/// Most chunks this router publishes: half of what gossip keeps of one origin's records is left to others.
pub const MAX_CHUNKS: usize = 32;
/// Longest ident in bytes: a path, at most.
const MAX_IDENT: usize = 512;

/// Addresses by relative name.
type Names = BTreeMap<String, BTreeSet<IpAddr>>;

/// One name of one ident: all of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The container, or what else holds it.
    pub ident: String,
    /// Relative to the domain.
    pub name: String,
    /// Ascending; empty where the name is gone.
    pub addresses: Vec<IpAddr>,
}

/// Why a name is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The name is none, or not in the domain.
    #[error(transparent)]
    Name(#[from] BadHostname),
    /// The ident is none.
    #[error("'{0}' cannot hold a name: give the id of a container, of 1 to 512 printable characters")]
    Ident(String),
    /// No name can stand for this address.
    #[error("{0} cannot have a name: give the address of one host")]
    Address(IpAddr),
    /// There is no room.
    #[error(
        "cannot take the name {0}: this router publishes as many names as fit {MAX_CHUNKS} records; remove some with dns-remove, or detach containers"
    )]
    Full(String),
}

/// The names that this router holds, and the chunks they are published in. An address never changes its chunk, so that the others are not
/// signed anew.
#[derive(Clone, Debug)]
pub struct Own {
    domain: Domain,
    idents: BTreeMap<String, Names>,
    chunks: Vec<Chunk>,
}

#[derive(Clone, Debug)]
struct Chunk {
    body: NamesBody,
    len: usize,
}

impl Own {
    /// No names yet.
    pub fn new(domain: Domain) -> Own {
        Own { domain, idents: BTreeMap::new(), chunks: Vec::new() }
    }

    /// The domain that all names are in.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// A name of `ident`, relative to the domain.
    pub fn get(&self, ident: &str, relative: &str) -> Option<Holding> {
        self.holding(ident, relative)
    }

    /// Adds addresses to a name of `ident`. Answers with all of its addresses where that changed something.
    pub fn add(&mut self, ident: &str, name: &str, addresses: &[IpAddr]) -> Result<Option<Holding>, Refused> {
        if !(1..=MAX_IDENT).contains(&ident.len()) || !ident.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Refused::Ident(ident.into()));
        }
        let name = self.domain.relative(name)?;
        if let Some(bad) = addresses.iter().find(|address| !is_address(**address)) {
            return Err(Refused::Address(*bad));
        }
        let names = self.idents.get(ident).and_then(|names| names.get(&name));
        let fresh: BTreeSet<IpAddr> =
            addresses.iter().filter(|address| names.is_none_or(|known| !known.contains(address))).copied().collect();
        if fresh.is_empty() {
            return Ok(None);
        }
        let names = self.idents.entry(ident.into()).or_default();
        names.entry(name.clone()).or_default().extend(fresh.iter().copied());
        if !self.pack() {
            self.take(ident, &name, |address| fresh.contains(&address));
            self.pack();
            return Err(Refused::Full(self.domain.full(&name)));
        }
        Ok(self.holding(ident, &name))
    }

    /// Takes addresses away from a name of `ident`, or from all of its names; no addresses mean all of them. Answers with what changed.
    pub fn remove(&mut self, ident: &str, name: Option<&str>, addresses: &[IpAddr]) -> Result<Vec<Holding>, Refused> {
        let name = name.map(|name| self.domain.relative(name)).transpose()?;
        let wanted = |known: &String| name.as_ref().is_none_or(|name| name == known);
        let names: Vec<String> =
            self.idents.get(ident).into_iter().flat_map(|names| names.keys()).filter(|known| wanted(known)).cloned().collect();
        let mut changed = Vec::new();
        for name in names {
            if self.take(ident, &name, |address| addresses.is_empty() || addresses.contains(&address)) {
                let gone = Holding { ident: ident.into(), name: name.clone(), addresses: Vec::new() };
                changed.push(self.holding(ident, &name).unwrap_or(gone));
            }
        }
        if !changed.is_empty() {
            self.pack();
        }
        Ok(changed)
    }

    /// All names.
    pub fn holdings(&self) -> impl Iterator<Item = Holding> {
        self.idents.iter().flat_map(|(ident, names)| {
            let holding = move |(name, addresses): (&String, &BTreeSet<IpAddr>)| Holding {
                ident: ident.clone(),
                name: name.clone(),
                addresses: addresses.iter().copied().collect(),
            };
            names.iter().map(holding)
        })
    }

    /// What is published, by chunk.
    pub fn bodies(&self) -> impl Iterator<Item = &NamesBody> {
        self.chunks.iter().map(|chunk| &chunk.body)
    }

    /// What is published, as bytes.
    pub fn chunks(&self) -> Vec<Vec<u8>> {
        self.bodies().map(NamesBody::to_bytes).collect()
    }

    fn holding(&self, ident: &str, name: &str) -> Option<Holding> {
        let addresses = self.idents.get(ident)?.get(name)?.iter().copied().collect();
        Some(Holding { ident: ident.into(), name: name.into(), addresses })
    }

    /// Takes addresses away; true where there were some.
    fn take(&mut self, ident: &str, name: &str, gone: impl Fn(IpAddr) -> bool) -> bool {
        let Some(names) = self.idents.get_mut(ident) else { return false };
        let Some(addresses) = names.get_mut(name) else { return false };
        let before = addresses.len();
        addresses.retain(|address| !gone(*address));
        let changed = addresses.len() != before;
        names.retain(|_, addresses| !addresses.is_empty());
        self.idents.retain(|_, names| !names.is_empty());
        changed
    }

    /// Brings the chunks in line with the names; false where not all of them fit.
    fn pack(&mut self) -> bool {
        // Idents with one tag share entries.
        let mut wanted: BTreeMap<(String, String), BTreeSet<IpAddr>> = BTreeMap::new();
        for (ident, names) in &self.idents {
            for (name, addresses) in names {
                wanted.entry((name.clone(), tag(ident))).or_default().extend(addresses.iter().copied());
            }
        }
        for chunk in &mut self.chunks {
            chunk.body.entries.retain(|key, addresses| {
                addresses.retain(|address| wanted.get_mut(key).is_some_and(|wanted| wanted.remove(address)));
                !addresses.is_empty()
            });
            chunk.len = chunk.body.wire_len();
        }
        let mut fits = true;
        for (key, addresses) in wanted {
            for address in addresses {
                fits &= self.place(&key, address);
            }
        }
        while self.chunks.last().is_some_and(|chunk| chunk.body.entries.is_empty()) {
            self.chunks.pop();
        }
        fits
    }

    /// Puts an address into the first chunk that has room for it.
    fn place(&mut self, key: &(String, String), address: IpAddr) -> bool {
        for chunk in &mut self.chunks {
            let known = chunk.body.entries.get(key);
            let cost = address_len(address) + if known.is_some() { 0 } else { entry_len(&key.0, &key.1) };
            if chunk.len + cost <= MAX_BODY && known.is_none_or(|known| has_room(known, address)) {
                chunk.body.entries.entry(key.clone()).or_default().insert(address);
                chunk.len += cost;
                return true;
            }
        }
        if self.chunks.len() == MAX_CHUNKS {
            return false;
        }
        let body = NamesBody { domain: self.domain.name().into(), entries: [(key.clone(), BTreeSet::from([address]))].into() };
        let len = head_len(&body.domain) + entry_len(&key.0, &key.1) + address_len(address);
        self.chunks.push(Chunk { body, len });
        true
    }
}

/// What is told of an ident: the start of a container's id, or the end of a path.
fn tag(ident: &str) -> String {
    let end = ident.rsplit('/').next().filter(|end| !end.is_empty()).unwrap_or(ident);
    end.chars().take(MAX_TAG).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own() -> Own {
        Own::new(Domain::DEFAULT.parse().expect("a domain"))
    }

    fn ip(last: u8) -> IpAddr {
        [10, 32, 0, last].into()
    }

    fn published(own: &Own) -> BTreeSet<(String, IpAddr)> {
        let parsed = own.chunks().into_iter().map(|bytes| {
            assert!(bytes.len() <= MAX_BODY, "a chunk fits a record");
            NamesBody::parse(&bytes).expect("what is published can be read")
        });
        parsed.flat_map(|body| body.entries).flat_map(|((name, _), all)| all.into_iter().map(move |ip| (name.clone(), ip))).collect()
    }

    #[test]
    fn names_come_and_go() {
        let mut own = own();
        let id = "0123456789abcdef";
        let added = own.add(id, "Web", &[ip(1), ip(2), ip(1)]).expect("a name");
        assert_eq!(added, Some(Holding { ident: id.into(), name: "web".into(), addresses: vec![ip(1), ip(2)] }));
        assert_eq!(own.add(id, "web.weave.local.", &[ip(2)]), Ok(None), "nothing new");
        own.add(id, "db", &[ip(1)]).expect("a second name");
        let body = own.bodies().next().expect("a chunk");
        assert!(body.entries.contains_key(&("web".into(), "0123456789ab".into())), "{body:?}");
        let left = own.remove(id, Some("web"), &[ip(1)]).expect("a name");
        assert_eq!(left, [Holding { ident: id.into(), name: "web".into(), addresses: vec![ip(2)] }]);
        assert_eq!(own.remove("other", None, &[]), Ok(Vec::new()), "removing what is not there is fine");
        let gone = own.remove(id, None, &[]).expect("all of it");
        assert!(gone.len() == 2 && gone.iter().all(|holding| holding.addresses.is_empty()));
        assert!(own.chunks().is_empty() && own.holdings().next().is_none());
    }

    #[test]
    fn two_idents_of_one_tag_keep_their_own() {
        let mut own = own();
        own.add("netns:/run/netns/one-long-name-a", "web", &[ip(1)]).expect("a name");
        own.add("netns:/run/netns/one-long-name-b", "web", &[ip(1), ip(2)]).expect("a name");
        assert_eq!(own.bodies().next().map(|body| body.entries.len()), Some(1));
        own.remove("netns:/run/netns/one-long-name-b", None, &[]).expect("all of it");
        assert_eq!(published(&own), BTreeSet::from([("web".into(), ip(1))]));
    }

    #[test]
    fn what_is_none_is_refused() {
        let mut own = own();
        assert!(matches!(own.add("", "web", &[ip(1)]), Err(Refused::Ident(_))));
        assert!(matches!(own.add("a b", "web", &[ip(1)]), Err(Refused::Ident(_))));
        assert!(matches!(own.add("c", "web.example.com", &[ip(1)]), Err(Refused::Name(BadHostname::Elsewhere { .. }))));
        assert_eq!(own.add("c", "web", &[ip(1), [224, 0, 0, 1].into()]), Err(Refused::Address([224, 0, 0, 1].into())));
        assert!(own.chunks().is_empty());
    }

    #[test]
    fn a_full_router_refuses_and_keeps_what_it_has() {
        let mut own = own();
        let ident = |n: u32| format!("{n:064x}");
        let mut taken = 0;
        let refused = loop {
            match own.add(&ident(taken), &format!("container-{taken}"), &[IpAddr::V4((0x0a20_0000 + taken).into())]) {
                Ok(_) => taken += 1,
                Err(refused) => break refused,
            }
        };
        assert!(taken > 800, "{taken} containers fit");
        assert_eq!(refused, Refused::Full(format!("container-{taken}.weave.local")));
        assert_eq!((own.chunks().len(), published(&own).len()), (MAX_CHUNKS, taken as usize));
        own.remove(&ident(7), None, &[]).expect("there it is");
        assert!(own.add("again", "again", &[ip(1)]).is_ok(), "room that was given back is used");
    }

    #[test]
    fn a_change_touches_one_chunk() {
        let mut own = own();
        for n in 0..200 {
            own.add(&format!("{n:012}"), &format!("container-{n:03}"), &[ip(n)]).expect("room");
        }
        let before = own.chunks();
        assert!(before.len() > 3);
        own.remove("000000000000", None, &[]).expect("there it is");
        own.add("new", "a-new-one", &[ip(250)]).expect("room");
        let changed = own.chunks().iter().zip(&before).filter(|(now, before)| now != before).count();
        assert_eq!(changed, 1);
    }

    proptest! {
        #[test]
        fn what_is_published_is_what_is_held(
            steps in proptest::collection::vec((any::<bool>(), 0u8..4, 0u8..4, proptest::collection::vec(0u8..250, 0..70)), 1..20)
        ) {
            let mut own = own();
            for (add, ident, name, last) in steps {
                let (ident, name) = (format!("c{ident}"), format!("n{name}"));
                let addresses: Vec<IpAddr> = last.into_iter().map(ip).collect();
                if add {
                    own.add(&ident, &name, &addresses).expect("room");
                } else {
                    own.remove(&ident, Some(&name), &addresses).expect("a name");
                }
                let held = own.holdings().flat_map(|holding| holding.addresses.into_iter().map(move |ip| (holding.name.clone(), ip)));
                let held: BTreeSet<(String, IpAddr)> = held.collect();
                prop_assert_eq!(published(&own), held);
                for chunk in &own.chunks {
                    prop_assert_eq!(chunk.len, chunk.body.wire_len());
                }
            }
        }
    }
}
