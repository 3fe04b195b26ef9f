//! What is kept of one origin, and which of two records wins: the lattice under the gossip.

use std::sync::Arc;

use super::graph::{links_in, links_with};
use super::pace::OriginShare;
use super::table::Records;
use crate::crypto::PublicKey;
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::body::{Body, LEFT, NODE};
use crate::wire::record::{Edition, Record, RecordId};

/// How an edition compares with what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It adds something: merge it.
    Newer,
    /// It is what is kept.
    Known,
    /// Something kept makes it void.
    Older,
}

/// How a router is reached from this one, over links that both ends advertise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Not at all.
    None,
    /// By this one, which is next to it; by itself where it is this router.
    By(PeerName),
}

/// All that is kept of one origin: the records of its newest incarnation, or only its LEFT where that has gone.
///
/// The state is a join-semilattice: a newer incarnation replaces everything; within one, LEFT absorbs all other
/// records, and else each record keeps its greatest edition. So any order and any repetition of merges
/// ends in the same state.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) incarnation: u64,
    pub(super) records: Records,
    /// Since when no route leads there; `None` while one does. Only what is reachable is agreed on. What [`Origin::way`] says is looked at
    /// where that is asked for ([`Store::settle`](super::Store)).
    pub(super) unreachable_since: Option<Time>,
    /// True where no route has led there since it was first heard of, as far as that was looked up.
    stranger: bool,
    /// Of the newest links that were heard of.
    pub(super) way: Way,
    /// What it is in the graph, as a number.
    pub(super) in_graph: u64,
    /// True where it is in the graph.
    pub(super) weighs: bool,
    /// True where it says that it passes nothing on.
    pub(super) closed: bool,
    /// When the newest of its records came.
    pub(super) heard: Time,
    /// When it was last counted as one whose links change.
    pub(super) restless: Time,
    /// How much more of it is looked at now.
    pub(super) share: OriginShare,
}

impl Origin {
    pub(super) fn new(incarnation: u64, unreachable_since: Option<Time>) -> Origin {
        let (in_graph, heard) = (0, Time::ZERO);
        Origin {
            incarnation,
            records: Records::default(),
            unreachable_since,
            stranger: unreachable_since.is_some(),
            way: Way::None,
            in_graph,
            weighs: false,
            closed: false,
            heard,
            restless: Time::ZERO,
            share: OriginShare::default(),
        }
    }

    /// Its key, which each of its records has; there are none of this router itself as long as it has said nothing.
    pub(super) fn key(&self) -> Option<&PublicKey> {
        self.records.values().next().map(|record| record.origin())
    }

    /// True where no route has led there since it was first heard of.
    pub(super) fn is_stranger(&self) -> bool {
        self.stranger
    }

    /// A route leads there.
    pub(super) fn meet(&mut self) {
        (self.unreachable_since, self.stranger) = (None, false);
    }

    /// True where links lead there, as of the newest that were heard of.
    pub(super) fn is_reached(&self) -> bool {
        self.way != Way::None
    }

    /// With whom it says it has links; with nobody once it has gone, unless it is this router.
    pub(super) fn says_links_with(&self, is_own: bool) -> impl Iterator<Item = PeerName> {
        let speaks = is_own || self.left().is_none();
        speaks.then(|| links_in(self).map(|link| link.neighbour)).into_iter().flatten()
    }

    /// True where this is one of them.
    pub(super) fn says_link_with(&self, is_own: bool, neighbour: PeerName) -> bool {
        (is_own || self.left().is_none()) && links_with(self, neighbour).next().is_some()
    }

    /// True where it has said who it is.
    pub(super) fn is_introduced(&self) -> bool {
        self.records.contains_key(&(NODE, 0))
    }

    /// The LEFT record, where this incarnation has gone.
    pub(super) fn left(&self) -> Option<&Arc<Record>> {
        self.records.get(&(LEFT, 0))
    }

    /// Where an edition of the record (`kind`, `chunk`) stands against what is kept.
    pub(super) fn standing(&self, id: RecordId, edition: Edition) -> Standing {
        if edition.incarnation != self.incarnation {
            return if edition.incarnation > self.incarnation { Standing::Newer } else { Standing::Older };
        }
        match (self.records.get(&(id.kind, id.chunk)), self.left()) {
            (None, Some(_)) => Standing::Older,
            (None, None) => Standing::Newer,
            (Some(kept), _) => match edition.cmp(&kept.edition()) {
                std::cmp::Ordering::Greater => Standing::Newer,
                std::cmp::Ordering::Equal => Standing::Known,
                std::cmp::Ordering::Less => Standing::Older,
            },
        }
    }

    /// Takes in a record that stands [`Standing::Newer`]; returns the records that it makes void.
    pub(super) fn merge(&mut self, record: Arc<Record>) -> Vec<Arc<Record>> {
        let id = record.id();
        let mut void = Vec::new();
        if record.edition().incarnation > self.incarnation || id.kind == LEFT {
            self.incarnation = record.edition().incarnation;
            void.extend(std::mem::take(&mut self.records).into_values());
        }
        void.extend(self.records.insert(record));
        void
    }

    /// A kept record that shows why an older edition of `id` is void.
    pub(super) fn proof(&self, id: RecordId) -> Option<&Arc<Record>> {
        self.records.get(&(id.kind, id.chunk)).or_else(|| self.left()).or_else(|| self.records.values().next())
    }

    /// The bodies of all chunks of one type.
    pub(super) fn bodies(&self, kind: u8) -> impl Iterator<Item = &Body> {
        self.records.of(kind).iter().map(|(_, record)| record.body())
    }
}
