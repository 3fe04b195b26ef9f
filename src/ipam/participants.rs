//! Every router with an address book that was ever met, on disk: any of them may know of a grant by a router that is dead since, which nobody
//! else has heard of. So before the space of the dead is used all have to be heard, also those that went before the last restart.

use super::Ipam;
use crate::wire::PeerName;

/// Most that are remembered: a mesh of thousands of routers whose hosts are replaced now and then.
const MOST: usize = 8192;

impl Ipam {
    /// A router was met, or has lived on after its removal.
    pub(super) fn note_participant(&mut self, name: PeerName) {
        let met = self.peers.get(&name).is_some_and(|peer| peer.reachable && peer.book.is_some());
        if !met || self.foreign.contains_key(&name) || self.refused.is_some() {
            return;
        }
        let round = self.ring.as_ref().map_or(0, |ring| ring.last_round(name).0);
        if self.participants.get(&name) == Some(&round) {
            return;
        }
        if self.participants.len() >= MOST && !self.participants.contains_key(&name) {
            let Some(gone) = self.participants.keys().find(|name| self.is_gone(**name)).copied() else {
                return self.complain(format!(
                    "more than {MOST} routers were met, and {name} is not remembered over a restart; `rmpeer` those that are gone for good"
                ));
            };
            self.participants.remove(&gone);
            self.write_participant(gone, None);
        }
        self.participants.insert(name, round);
        self.write_participant(name, Some(round));
    }

    /// Removals became known: who is reachable lives on after them.
    pub(super) fn note_survivors(&mut self) {
        let reachable: Vec<PeerName> = self.reachable().map(|(name, _)| name).collect();
        reachable.into_iter().for_each(|name| self.note_participant(name));
    }

    /// True for a router that was removed since it was last met, and has nothing any more.
    pub(super) fn is_gone(&self, name: PeerName) -> bool {
        let Some(ring) = self.ring.as_ref().filter(|_| !self.is_reachable(name)) else { return false };
        let met = self.participants.get(&name).copied().unwrap_or(0);
        ring.last_round(name).0 > met && (ring.pending(name).is_some() || !ring.owners().contains(&name))
    }

    /// True for a router that is to be heard, owns nothing, and cannot be reached: it can be removed like an owner.
    pub(super) fn is_missed(&self, name: PeerName) -> bool {
        self.participants.contains_key(&name) && !self.is_reachable(name) && !self.is_gone(name)
    }
}
