//! What this router says of itself.

use std::sync::Arc;

use super::store::Store;
use super::{Change, Output};
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::bindings::{self, BINDINGS, Binding};
use crate::wire::body::{Body, Extensions, LinkEntry, MacEntry, Node};
use crate::wire::record::Record;

impl Store {
    /// Says who this router is and where; nothing is sent where nothing changed. The keys are filled in here.
    pub fn publish_node(&mut self, now: Time, mut node: Node, out: &mut Output) {
        let public = self.config.identity.public();
        (node.noise, node.certificate) = (public.noise, public.certificate);
        self.publish(now, vec![(0, Body::Node(node.normalised()))], out);
    }

    /// Says which links this router has: all of them, each once.
    pub fn publish_links(&mut self, now: Time, links: &[LinkEntry], out: &mut Output) {
        let homeless = self.links.update(links);
        self.counters.own_not_told.add(homeless as u64);
        let bodies = self.links.iter().map(|(chunk, links)| (chunk, Body::Links(links, Extensions::default()))).collect();
        self.publish(now, bodies, out);
    }

    /// Says which MACs are on this host's bridge: all of them, each once.
    pub fn publish_macs(&mut self, now: Time, macs: &[MacEntry], out: &mut Output) {
        let homeless = self.macs.update(macs);
        self.counters.own_not_told.add(homeless as u64);
        let bodies = self.macs.iter().map(|(chunk, macs)| (chunk, Body::Macs(macs, Extensions::default()))).collect();
        self.publish(now, bodies, out);
    }

    /// Says which addresses are on this host's bridge: all of them, each once.
    pub fn publish_bindings(&mut self, now: Time, bindings: &[Binding], out: &mut Output) {
        let homeless = self.bindings.update(bindings);
        self.counters.own_not_told.add(homeless as u64);
        let body = |bindings: Vec<Binding>| Body::Unknown(BINDINGS, bindings::to_bytes(&bindings).into());
        let bodies = self.bindings.iter().map(|(chunk, bindings)| (chunk, body(bindings))).collect();
        self.publish(now, bodies, out);
    }

    /// Says what a part of the program above the mesh wants said: all of it, in this many chunks. Chunks that were said before and are
    /// none any more become empty: a record cannot be unsaid, only replaced.
    pub fn publish_app(&mut self, now: Time, kind: u8, chunks: Vec<Vec<u8>>, out: &mut Output) {
        let before = self.origin().records.of(kind).iter().map(|((_, chunk), _)| usize::from(*chunk) + 1).max();
        let all = chunks.len().max(before.unwrap_or(0));
        let bodies = chunks.into_iter().chain(std::iter::repeat_with(Vec::new)).take(all);
        let bodies = (0..).zip(bodies).map(|(chunk, body)| (chunk, Body::Unknown(kind, body.into()))).collect();
        self.publish(now, bodies, out);
    }

    /// Signs something that is no record, in a domain of its own.
    pub fn vouch(&self, domain: &str, message: &[u8]) -> [u8; 64] {
        self.config.signatures.sign(&self.config.identity, domain, &self.in_scope(message))
    }

    /// True where this member has signed that.
    pub fn vouches(&self, name: PeerName, domain: &str, message: &[u8], signature: &[u8; 64]) -> bool {
        let key = self.node(name).map(|node| node.identity.key);
        key.is_some_and(|key| self.config.signatures.verify(&key, domain, &self.in_scope(message), signature))
    }

    /// Says goodbye. Nothing more is published under this incarnation.
    pub fn leave(&mut self, now: Time, out: &mut Output) {
        self.publish(now, vec![(0, Body::Left(Extensions::default()))], out);
    }

    /// Says everything anew under a higher incarnation, once the caller has persisted it.
    pub fn adopt_incarnation(&mut self, now: Time, incarnation: u64, out: &mut Output) {
        if incarnation <= self.incarnation() || self.origin().left().is_some() {
            return;
        }
        let own = self.origin().records.values();
        let bodies: Vec<(u16, Body)> = own.map(|record| (record.id().chunk, record.body().clone())).collect();
        let mut records = Vec::new();
        for (chunk, body) in bodies {
            records.extend(self.say(now, chunk, (incarnation, 1), &body, out));
        }
        self.own_origin_is_at_least(incarnation);
        out.changes.retain(|change| !matches!(change, Change::OwnIncarnation(asked) if *asked <= incarnation));
        self.flood(&records, out);
    }

    /// Publishes the bodies that differ from what was said last.
    fn publish(&mut self, now: Time, bodies: Vec<(u16, Body)>, out: &mut Output) {
        let mut records = Vec::new();
        for (chunk, body) in bodies {
            let origin = self.origin();
            if origin.left().is_some() {
                return;
            }
            let kept = origin.records.get(&(body.kind(), chunk));
            if kept.is_some_and(|record| *record.body() == body) {
                continue;
            }
            let version = (origin.incarnation, kept.map_or(0, |record| record.edition().sequence) + 1);
            records.extend(self.say(now, chunk, version, &body, out));
        }
        self.flood(&records, out);
    }

    fn say(&mut self, now: Time, chunk: u16, version: (u64, u64), body: &Body, out: &mut Output) -> Option<Arc<Record>> {
        let key = self.config.identity.public().key;
        let Ok(record) = Record::build(&key, chunk, version, body, |signed| self.sign(signed)) else {
            self.counters.own_not_told.inc();
            return None;
        };
        let record = Arc::new(record);
        let mut own = Output::default();
        self.insert(now, Arc::clone(&record), &mut own);
        out.changes.extend(own.changes.into_iter().filter(|change| !matches!(change, Change::Incarnation(..))));
        Some(record)
    }

    fn own_origin_is_at_least(&mut self, incarnation: u64) {
        let own = self.own;
        if let Some(origin) = self.origins.get_mut(&own) {
            origin.incarnation = origin.incarnation.max(incarnation);
        }
    }
}
