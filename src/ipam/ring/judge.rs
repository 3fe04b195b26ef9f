//! Whether an entry may be in the ring: that depends on nothing but what it names, so that all routers judge alike, whatever came first.

use std::collections::BTreeSet;

use super::{Refused, Ring, majority};
use crate::crypto::PublicKey;
use crate::wire::PeerName;
use crate::wire::ipam::{Body, Entry, EntryId};

impl Ring {
    /// Whether an entry is right; `false` where something it names is not there yet.
    pub(super) fn judge(&self, entry: &Entry) -> Result<bool, Refused> {
        match &entry.body {
            Body::Genesis { .. } => Err(Refused::Mesh),
            Body::Grant { parent, range, .. } => {
                let Some(node) = self.nodes.get(parent) else { return Ok(false) };
                let (_, owner) = node.shares.iter().find(|(share, _)| share.covers(range)).ok_or(Refused::Range)?;
                if owner.is(&entry.author) { Ok(true) } else { Err(Refused::Author) }
            }
            // Rounds follow one another, so that nobody can begin with the last that there is: after one that decided nothing, or that is over.
            Body::Vote { round: 0, .. } | Body::Removal { round: 0, .. } => Err(Refused::Votes),
            Body::Vote { dead, round, .. } => {
                Ok(self.ever.contains(&entry.author.name()) && (*round == 1 || self.is_over(*dead, round - 1, 2)))
            }
            Body::Removal { dead, round, forced: true, .. } => Ok(*round == 1 || self.is_over(*dead, round - 1, 1)),
            Body::Removal { dead, round, votes, .. } => self.judge_votes(entry, (*dead, *round), votes),
            Body::Tally { dead, round, votes } => {
                self.count(&entry.author, (*dead, *round), votes, &mut Count { tallies: TALLIES - 1, ..Count::default() })
            }
            Body::Taken { removal, parent, range } => {
                let (Some(removal), Some(node)) = (self.removals.get(removal), self.nodes.get(parent)) else { return Ok(false) };
                if removal.taker != entry.author {
                    return Err(Refused::Author);
                }
                let share = node.shares.iter().find(|(share, _)| share.covers(range));
                if share.is_some_and(|(_, owner)| owner.name() == removal.dead) { Ok(true) } else { Err(Refused::Range) }
            }
            Body::Done { removal, taken } => {
                let Some(removal) = self.removals.get(removal) else { return Ok(false) };
                if removal.taker == entry.author { Ok(removal.taken == *taken) } else { Err(Refused::Author) }
            }
        }
    }

    /// True for a round in which so many have voted, or a removal was decided.
    fn is_over(&self, dead: PeerName, round: u32, voters: usize) -> bool {
        let voted: BTreeSet<PublicKey> = self.votes(dead, round).map(|vote| vote.author).collect();
        voted.len() >= voters || self.removals.in_round(dead, round).next().is_some()
    }

    fn judge_votes(&self, entry: &Entry, what: (PeerName, u32), votes: &[EntryId]) -> Result<bool, Refused> {
        let mut count = Count::default();
        if !self.count(&entry.author, what, votes, &mut count)? {
            return Ok(false);
        }
        if count.voters.len() >= majority(count.owners) { Ok(true) } else { Err(Refused::Votes) }
    }

    /// Counts votes for a taker, also those of its tallies; `false` where one is not there yet. What is in a tally was counted when that came.
    fn count(&self, taker: &PublicKey, what: (PeerName, u32), votes: &[EntryId], count: &mut Count) -> Result<bool, Refused> {
        for vote in votes {
            let Some(vote) = self.get(vote) else { return Ok(false) };
            match &vote.body {
                Body::Vote { dead, round, taker: of, owners } if (*dead, *round) == what && of == taker && vote.author.name() != *dead => {
                    if !count.voters.insert(vote.author) {
                        return Err(Refused::Votes);
                    }
                    count.owners = count.owners.max(usize::from(*owners));
                }
                Body::Tally { dead, round, votes } if (*dead, *round) == what && vote.author == *taker && count.tallies > 0 => {
                    count.tallies -= 1;
                    let there = self.count(taker, what, votes, count)?;
                    count.tallies += 1;
                    if !there {
                        return Ok(false);
                    }
                }
                _ => return Err(Refused::Votes),
            }
        }
        Ok(true)
    }
}

/// So many tallies stand between a removal and its votes at most: with 48 names in each that is room for more votes than a ring has entries.
pub const TALLIES: usize = 2;

/// Votes that were counted.
struct Count {
    voters: BTreeSet<PublicKey>,
    /// Most owners that any of them saw.
    owners: usize,
    /// How many tallies may stand above one another from here on.
    tallies: usize,
}

impl Default for Count {
    fn default() -> Count {
        Count { voters: BTreeSet::new(), owners: 0, tallies: TALLIES }
    }
}
