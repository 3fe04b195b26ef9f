//! All names as an operator sees them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::domain::Domain;
use crate::wire::PeerName;
use crate::wire::names::Entries;

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

/// What is known of one router.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    pub nickname: String,
    pub reachable: bool,
    /// Shared with pictures: a chunk is replaced, never changed.
    pub chunks: BTreeMap<u16, Arc<Entries>>,
}

/// Everything that was known at one moment. It shares what it shows with the view, so it is quickly taken; its rows are made elsewhere.
#[derive(Clone, Debug)]
pub struct Picture {
    pub(super) domain: Domain,
    pub(super) origins: BTreeMap<PeerName, Origin>,
    pub(super) entries: usize,
    pub(super) answered: usize,
}

impl Picture {
    /// How many names were answered.
    pub fn answered(&self) -> usize {
        self.answered
    }

    /// Everything, ascending.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::with_capacity(self.entries);
        for (origin, known) in &self.origins {
            for ((name, tag), addresses) in known.chunks.values().flat_map(|entries| entries.iter()) {
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
}
