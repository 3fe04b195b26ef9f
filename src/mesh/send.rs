//! Control datagrams going out, and those of others being relayed.

use super::config::Outbox;
use super::core::Mesh;
use crate::crypto::Session;
use crate::forward::limit::TokenBucket;
use crate::time::Time;
use crate::wire::control::{Record, write_padded_probe};
use crate::wire::header::{HOP_LIMIT, decrement_hop_limit};
use crate::wire::{Address, HEADER_LEN, Header, Kind, PeerName, TAG_LEN};

/// Bytes of a sealed control datagram besides its records.
const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Control datagrams per second that one link may have relayed, and the burst: handshakes and confirmations of a
/// large mesh, never data.
const RELAY_RATE: (u64, u64) = (1000, 2000);

impl Mesh {
    /// Seals records for `peer` and sends them DIRECT to `address`. False where there is no session to seal with.
    pub(super) fn send_direct(&self, peer: PeerName, address: Address, records: &[Record<'_>], out: &mut Outbox) -> bool {
        match self.keyrings.get(&peer).and_then(|keys| keys.current()) {
            Some(session) => self.send_sealed(session, address, records, out),
            None => false,
        }
    }

    /// Seals records on this session and sends them DIRECT to `address`.
    pub(super) fn send_sealed(&self, session: &Session, address: Address, records: &[Record<'_>], out: &mut Outbox) -> bool {
        let sealed = seal(session, Kind::ControlDirect, length(records), |out| records.iter().for_each(|record| record.write(out)));
        let done = sealed.is_some();
        out.datagrams.extend(sealed.map(|bytes| (address, bytes)));
        done
    }

    /// Sends an MTU probe of exactly `size` bytes.
    pub(super) fn send_probe(&self, peer: PeerName, address: Address, (nonce, size): (u32, u16), out: &mut Outbox) {
        let Some(session) = self.keyrings.get(&peer).and_then(|keys| keys.current()) else { return };
        let total = usize::from(size).saturating_sub(TAG_LEN);
        let sealed = seal(session, Kind::ControlDirect, total, |out| write_padded_probe(out, nonce, size, total));
        out.datagrams.extend(sealed.map(|bytes| (address, bytes)));
    }

    /// Sends records to a peer by whatever way there is: direct, or RELAYED.
    pub(super) fn send_any(&mut self, peer: PeerName, session: &Session, records: &[Record<'_>], out: &mut Outbox) {
        let direct = self.adjacencies.get(&peer).map(|adjacency| adjacency.address);
        let (kind, address) = match direct {
            Some(address) => (Kind::ControlDirect, Some(address)),
            None => (Kind::ControlRelayed, self.next_hop(peer, None)),
        };
        let Some(address) = address else {
            self.counters.no_route.inc();
            return;
        };
        let sealed = seal(session, kind, length(records), |out| records.iter().for_each(|record| record.write(out)));
        out.datagrams.extend(sealed.map(|bytes| (address, bytes)));
    }

    /// The address of the next hop towards `peer`, never `not`.
    pub(super) fn next_hop(&self, peer: PeerName, not: Option<Address>) -> Option<Address> {
        let link = |name: PeerName| {
            let adjacency = self.adjacencies.get(&name).filter(|adjacency| adjacency.is_link() && !adjacency.beat.is_doubted())?;
            Some(adjacency.address).filter(|address| Some(*address) != not)
        };
        let route = self.routes.get(peer);
        let primary = || route.and_then(|route| route.equal_hops().find_map(link));
        let alternate = || route.and_then(|route| route.alternate).and_then(link);
        link(peer).or_else(primary).or_else(alternate)
    }

    /// A RELAYED datagram for another router: passes it on, unchanged but for the hop limit.
    pub(super) fn relay(&mut self, now: Time, from: Address, header: &Header, bytes: &mut [u8], out: &mut Outbox) {
        if !self.config.forwarding {
            return self.counters.relay_forbidden.inc();
        }
        let Some(neighbour) = self.link_at(from) else {
            self.counters.relay_dropped.inc();
            return;
        };
        let budget = self.relay_budget.entry(neighbour).or_insert_with(|| TokenBucket::new(RELAY_RATE.0, RELAY_RATE.1));
        if !budget.take(now, 1) {
            self.counters.relay_over_budget.inc();
            return;
        }
        match self.next_hop(header.destination, Some(from)) {
            Some(address) if decrement_hop_limit(bytes) => {
                self.counters.relayed.inc();
                self.watch_relayed(now, neighbour, address);
                out.datagrams.push((address, bytes.to_vec()));
            }
            Some(_) | None => self.counters.relay_dropped.inc(),
        }
    }

    /// The neighbour with a live link at this address.
    pub(super) fn link_at(&self, address: Address) -> Option<PeerName> {
        let link = self.adjacencies.iter().find(|(_, adjacency)| adjacency.is_link() && adjacency.address == address);
        link.map(|(name, _)| *name)
    }
}

/// A sealed lane-0 datagram, whose records take about `size` bytes; `None` where the key is used up.
fn seal(session: &Session, kind: Kind, size: usize, write: impl FnOnce(&mut Vec<u8>)) -> Option<Vec<u8>> {
    let counter = session.reserve(0, 1)?;
    let hop_limit = if kind.is_relayed() { HOP_LIMIT } else { 1 };
    let destination = session.peer();
    let header = Header { kind, hop_limit, lane: 0, label: 0, destination, index: session.remote_index(), counter };
    let mut bytes = Vec::with_capacity(OVERHEAD + size);
    bytes.extend_from_slice(&header.to_bytes());
    write(&mut bytes);
    bytes.resize(bytes.len() + TAG_LEN, 0);
    session.seal(0, counter, &mut bytes);
    Some(bytes)
}

/// About so many bytes these records take: most are short.
fn length(records: &[Record<'_>]) -> usize {
    let length = |record: &Record<'_>| match record {
        Record::Gossip(_) | Record::App { .. } => record.wire_len(),
        _ => 32,
    };
    records.iter().map(length).sum()
}

/// A datagram with a clear body, as handshakes are.
pub(super) fn clear(kind: Kind, destination: PeerName, index: u32, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let hop_limit = if kind.is_relayed() { HOP_LIMIT } else { 1 };
    let header = Header { kind, hop_limit, lane: 0, label: 0, destination, index, counter: 0 };
    let mut bytes = header.to_bytes().to_vec();
    body(&mut bytes);
    bytes
}
