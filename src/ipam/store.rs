//! The address book on disk: entries of the ring in the order in which they came, the vote of the start-up agreement, and containers' addresses.
//!
//! ```text
//! Ring       e/NAME in hexadecimal  number 8, entry
//!            behind                 nothing: the ring came from others and has never been all that another had
//!            dead/CONTAINER         nothing: the container is dead, and its addresses go back after a while
//!            met/ROUTER             round 4: the router was met, and this was the round of its last removal then
//!            vote                   promised ballot 38, [accepted ballot 38, genesis]
//! Addresses  ADDRESS                prefix 1, container in UTF-8
//! ```

use std::net::IpAddr;

use super::ring::{Outcome, Ring};
use super::types::{Init, Pair, Table};
use super::{GRACE, Ipam, founding};
use crate::wire::PeerName;
use crate::wire::ipam::message::Ballot;
use crate::wire::ipam::{self, Body, Entry};

const VOTE: &str = "vote";
const BEHIND: &str = "behind";
const DEAD: &str = "dead/";
const MET: &str = "met/";

impl Ipam {
    pub(super) fn write_entry(&mut self, entry: &Entry, number: usize) {
        let value = [&(number as u64).to_be_bytes(), entry.bytes()].concat();
        self.changes.insert((Table::Ring, format!("e/{}", entry.id())), Some(value));
    }

    pub(super) fn write_vote(&mut self) {
        let mut value = self.founding.promised.to_bytes().to_vec();
        if let Some((ballot, genesis)) = &self.founding.accepted {
            value.extend_from_slice(&ballot.to_bytes());
            value.extend_from_slice(genesis.bytes());
        }
        self.changes.insert((Table::Ring, VOTE.to_string()), Some(value));
    }

    /// Whether our ring, which came from others, has never been all that another had.
    pub(super) fn write_behind(&mut self, behind: bool) {
        self.changes.insert((Table::Ring, BEHIND.to_string()), behind.then(Vec::new));
    }

    /// Whether a container that has addresses is dead: they go back also where the router is restarted meanwhile.
    pub(super) fn write_dead(&mut self, ident: &str, dead: bool) {
        self.changes.insert((Table::Ring, format!("{DEAD}{ident}")), dead.then(Vec::new));
    }

    /// A router that was met, with the round of its last removal.
    pub(super) fn write_participant(&mut self, name: PeerName, round: Option<u32>) {
        self.changes.insert((Table::Ring, format!("{MET}{name}")), round.map(|round| round.to_be_bytes().to_vec()));
    }

    pub(super) fn write_address(&mut self, address: u128, value: Option<(u8, &str)>) {
        let value = value.map(|(prefix, ident)| [&[prefix], ident.as_bytes()].concat());
        self.changes.insert((Table::Addresses, ipam::address(address).to_string()), value);
    }

    /// Takes over what the disk has. It was checked before it was written; its signatures are not checked again.
    pub(super) fn load(&mut self, ring: Vec<Pair>, addresses: Vec<Pair>) {
        let mut entries: Vec<(u64, Entry)> =
            ring.iter().filter(|(key, _)| key.starts_with("e/")).filter_map(|(_, value)| read_entry(value)).collect();
        let kept = ring.iter().filter(|(key, _)| key.starts_with("e/")).count();
        entries.sort_by_key(|(number, _)| *number);
        let genesis = entries.iter().position(|(_, entry)| matches!(entry.body, Body::Genesis { .. }));
        if let Some(at) = genesis {
            self.ring = Ring::new(entries.remove(at).1);
        }
        let (mut lost, mut more) = (kept != entries.len() + usize::from(genesis.is_some()), true);
        while let (Some(ring), true) = (&mut self.ring, more) {
            let before = entries.len();
            entries.retain(|(_, entry)| !matches!(ring.insert_beyond(entry.clone(), |_| true), Ok(Outcome::Added | Outcome::Known)));
            more = entries.len() < before;
        }
        lost |= !entries.is_empty();
        if ring.iter().any(|(key, _)| key == BEHIND) {
            self.hold = Some(u32::MAX);
        }
        if let Some((_, value)) = ring.iter().find(|(key, _)| key == VOTE) {
            lost |= !read_vote(value, &mut self.founding);
        }
        for (name, round) in ring.iter().filter_map(|(key, value)| Some((key.strip_prefix(MET)?, value))) {
            let read = name.parse::<PeerName>().ok().zip(<[u8; 4]>::try_from(round.as_slice()).ok());
            lost |= read.is_none();
            self.participants.extend(read.map(|(name, round)| (name, u32::from_be_bytes(round))));
        }
        for (key, value) in &addresses {
            lost |= self.load_address(key, value).is_none();
        }
        for ident in ring.iter().filter_map(|(key, _)| key.strip_prefix(DEAD)) {
            self.book.release(ident, self.now + GRACE);
            if !self.book.is_released(ident) {
                self.write_dead(ident, false);
            }
        }
        if lost {
            self.refused = Some(
                "the address book on disk is damaged; remove this router with `rmpeer` elsewhere, then `reset` it and start it again"
                    .to_string(),
            );
        }
        self.check_ranges();
        if self.refused.is_none() {
            self.recount();
        }
    }

    fn load_address(&mut self, key: &str, value: &[u8]) -> Option<()> {
        let address: IpAddr = key.parse().ok()?;
        let (prefix, ident) = value.split_first()?;
        self.book.give(std::str::from_utf8(ident).ok()?, ipam::number(address), *prefix);
        Some(())
    }

    fn check_ranges(&mut self) {
        let Some(ring) = &self.ring else { return };
        if ring.ranges() != self.config.ranges {
            let had = ring.ranges().iter().map(ipam::Range::to_string).collect::<Vec<_>>().join(", ");
            self.refused = Some(format!(
                "this router's ring is of {had}, which is not what --ipalloc-range says; give the same range, or `reset` this router and start it again"
            ));
        }
        let Init::Seed(seeds) = &self.config.init else { return };
        let same = Entry::of_seeds(self.config.ranges.clone(), seeds.clone()).is_ok_and(|genesis| genesis.id() == ring.mesh());
        if !same && matches!(&ring.genesis().body, Body::Genesis { founders: ipam::Founders::Seeds(_), .. }) {
            self.refused = Some(
                "this router's ring is of another list of seeds; give the same list, or `reset` this router and start it again".to_string(),
            );
        }
    }
}

fn read_entry(value: &[u8]) -> Option<(u64, Entry)> {
    let (number, bytes) = value.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), Entry::parse(bytes).ok()?))
}

fn read_vote(value: &[u8], founding: &mut founding::Founding) -> bool {
    let Some((promised, rest)) = value.split_first_chunk() else { return false };
    founding.promised = Ballot::from_bytes(*promised);
    if rest.is_empty() {
        return true;
    }
    let Some((ballot, genesis)) = rest.split_first_chunk() else { return false };
    let Ok(genesis) = Entry::parse(genesis) else { return false };
    founding.accepted = Some((Ballot::from_bytes(*ballot), genesis));
    true
}
