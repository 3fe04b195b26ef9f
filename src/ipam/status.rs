//! What people may see of the address book.

use std::collections::BTreeMap;
use std::fmt;

use super::Ipam;
use super::ring::Ring;
use super::types::Init;
use crate::wire::PeerName;
use crate::wire::ipam::{self, Range};

/// Where the address book stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No ring, and nobody wants one.
    Idle,
    /// No ring yet; (quorum, known).
    AwaitingConsensus(usize, usize),
    /// An observer without a ring that somebody wants.
    Priming,
    /// It gives addresses.
    Ready,
    /// Requests wait.
    Waiting,
    /// All space that is not used up belongs to routers that are not reachable.
    Unreachable,
    /// It gives nothing, for a reason that `problems` says.
    Refused,
}

impl fmt::Display for Phase {
    /// As Weave says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Phase::Idle => f.write_str("idle"),
            Phase::AwaitingConsensus(quorum, known) => write!(f, "awaiting consensus (quorum: {quorum}, known: {known})"),
            Phase::Priming => f.write_str("priming"),
            Phase::Ready => f.write_str("ready"),
            Phase::Waiting => f.write_str("waiting for IP(s) to become available"),
            Phase::Unreachable => f.write_str("all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead"),
            Phase::Refused => f.write_str("refused"),
        }
    }
}

/// An owner and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerStatus {
    /// Its name.
    pub peer: PeerName,
    /// What its operator calls it.
    pub nickname: String,
    /// How many addresses it owns.
    pub owned: u128,
    /// How many it has given to containers; only known of ourselves.
    pub active: Option<usize>,
    /// True if it is us or can be reached.
    pub reachable: bool,
}

/// A picture of the address book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it stands.
    pub phase: Phase,
    /// What there is to give.
    pub ranges: Vec<Range>,
    /// The subnets that are meant where none is said.
    pub subnets: Vec<ipnet::IpNet>,
    /// Who owns what, by name.
    pub owners: Vec<OwnerStatus>,
    /// All addresses of all ranges.
    pub total: u128,
    /// Entries of the ring.
    pub entries: usize,
    /// The mesh, as 32 hexadecimal digits; empty without a ring.
    pub mesh: String,
    /// Requests for any address that wait.
    pub pending_allocates: usize,
    /// Requests for a very address that wait.
    pub pending_claims: usize,
    /// Addresses that two containers have, or had.
    pub duplicates: Vec<String>,
    /// Sentences on what is wrong.
    pub problems: Vec<String>,
}

impl Ipam {
    /// A picture of it.
    pub fn status(&self) -> Status {
        let mut owned: BTreeMap<PeerName, u128> = BTreeMap::new();
        for (range, leaf) in self.ring.iter().flat_map(|ring| ring.leaves().iter()) {
            let size = owned.entry(leaf.owner.name()).or_default();
            *size = size.saturating_add(range.size());
        }
        let owners: Vec<OwnerStatus> = owned.into_iter().map(|(peer, owned)| self.owner_status(peer, owned)).collect();
        let claims = self.waiting.values().filter(|waiting| matches!(waiting.need, super::requests::Need::Claim { .. })).count();
        let allocates = self.waiting.values().filter(|waiting| matches!(waiting.need, super::requests::Need::Space { .. })).count();
        Status {
            phase: self.phase(&owners),
            ranges: self.config.ranges.clone(),
            subnets: self.config.subnets.clone(),
            owners,
            total: self
                .ring
                .as_ref()
                .map_or(&*self.config.ranges, Ring::ranges)
                .iter()
                .fold(0, |sum, range| sum.saturating_add(range.size())),
            entries: self.ring.as_ref().map_or(0, super::Ring::len),
            mesh: self.ring.as_ref().map_or_else(String::new, |ring| ring.mesh().to_string()),
            pending_allocates: allocates,
            pending_claims: claims,
            duplicates: self.duplicates.iter().map(|address| ipam::address(*address).to_string()).collect(),
            problems: self.problems(),
        }
    }

    fn owner_status(&self, peer: PeerName, owned: u128) -> OwnerStatus {
        let own = peer == self.name;
        let managed = |address: u128| self.config.ranges.iter().any(|range| range.contains(address));
        let other = || self.peers.get(&peer).map(|peer| peer.nickname.clone()).unwrap_or_default();
        OwnerStatus {
            peer,
            nickname: if own { self.config.nickname.clone() } else { other() },
            owned,
            active: own.then(|| self.book.iter().filter(|(address, _)| managed(*address)).count()),
            reachable: own || self.is_reachable(peer),
        }
    }

    fn phase(&self, owners: &[OwnerStatus]) -> Phase {
        if self.refused.is_some() {
            return Phase::Refused;
        }
        let waits = !self.waiting.is_empty();
        if self.ring.is_none() {
            let (quorum, known) = self.founding.standing(self);
            return match (&self.config.init, self.founding.wanted || waits) {
                (_, false) => Phase::Idle,
                (Init::Consensus(_), true) => Phase::AwaitingConsensus(quorum, known),
                (Init::Observer | Init::Seed(_), true) => Phase::Priming,
            };
        }
        let alone = owners.iter().all(|owner| !owner.reachable || owner.peer == self.name) && owners.iter().any(|owner| !owner.reachable);
        let free = self.config.ranges.iter().any(|range| self.free_bits(range) > 0);
        match (waits, alone && !free) {
            (_, true) => Phase::Unreachable,
            (true, false) => Phase::Waiting,
            (false, false) => Phase::Ready,
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.refused.iter().cloned().chain(self.crowding()).chain(self.accusations()).collect();
        for peer in self.foreign.keys() {
            problems
                .push(format!("{} belongs to a mesh that was founded apart, or gives addresses of another range", self.nickname(*peer)));
        }
        for (range, _) in self.ring.iter().flat_map(|ring| ring.leaves().iter()).filter(|(_, leaf)| leaf.disputed) {
            problems.push(format!("{range} was given twice by its owner and is given to nobody any more"));
        }
        for address in &self.duplicates {
            problems.push(format!("{} is or was the address of two containers", ipam::address(*address)));
        }
        problems
    }
}
