//! What else says that a path is dead, or moved, before its heartbeats do: this host's kernel, the peer's own record, new addresses.
//!
//! | who says so | what follows |
//! | --- | --- |
//! | the interface is down | the path is given up, and the mesh told, at once |
//! | a send is refused: no route, network down | others stand in for it, and the mesh is not told of it, until a heartbeat is answered; else it is dead after 0.4 s |
//! | the same of a handshake with a router that only gossip told of, or asked for beforehand | it ends, and the next is a long time off |
//! | the peer's LINKS record names us no more | others stand in, as for a send that is refused |
//! | this host has other addresses | every peer is asked for an answer to the new one; handshakes without an answer begin anew |
//! | an ICMP error that quotes a datagram of ours: unreachable | the same as where a send is refused |
//! | one that says "too big" | whether the largest datagrams still arrive is asked at once |
//!
//! Anybody can send an ICMP error. Only who sees our datagrams can quote one that carries the index of a session, and who does so could as
//! well drop them; even then its word begins nothing but a question.

use std::time::Duration;

use super::config::Outbox;
use super::core::Mesh;
use super::handshakes::{Attempt, Way};
use super::targets::{Failure, Goal};
use crate::time::Time;
use crate::wire::{Address, Header, PeerName};

/// Of one peer's address, so often is an ICMP error heeded.
const REBUFF_EVERY: Duration = Duration::from_secs(1);

/// What an ICMP error says of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuff {
    /// Nobody listens where it went, or no way leads there.
    Unreachable,
    /// It is too big for a link on the way.
    TooBig,
}

impl Mesh {
    /// The addresses of all peers to which there is a direct path, for the question whether an interface still leads there.
    pub fn path_addresses(&self) -> Vec<Address> {
        self.adjacencies.values().map(|adjacency| adjacency.address).collect()
    }

    /// The kernel refused to send to `address`: it has no way there now. What it says may be over in a moment, as while an address is
    /// replaced by another, so nothing ends yet.
    pub fn handle_unreachable(&mut self, now: Time, address: Address, out: &mut Outbox) {
        self.now = now;
        for peer in self.peers_at(&[address]) {
            self.doubt(now, peer, out);
        }
        self.end_vain_attempts(now, address);
        self.finish(now, out);
    }

    /// Handshakes that nobody but the gossip asked for are not repeated where there is no way. Of a router that shares no network with most of
    /// the mesh these would be all that it does.
    fn end_vain_attempts(&mut self, now: Time, address: Address) {
        let mut vain = Vec::new();
        self.attempts.retain(|_, attempt| {
            let learned = matches!(attempt.goal, Some(Goal::Peer(_) | Goal::Hint(_)));
            let ends = learned && attempt.way == Way::Direct(address) && attempt.pending.is_none();
            vain.extend(attempt.goal.take_if(|_| ends));
            !ends
        });
        for goal in vain {
            self.counters.handshakes_without_way.inc();
            self.targets.failed(now, &goal, Failure::NoWay, "this host has no way there", &mut self.rng);
        }
    }

    /// An ICMP error about a datagram that was sent to `address`, and whose payload began with what is `quoted`.
    pub fn handle_rebuff(&mut self, now: Time, address: Address, rebuff: Rebuff, quoted: &[u8], out: &mut Outbox) {
        self.now = now;
        for peer in self.peers_at(&[address]) {
            let credible = self.has_sent(peer, quoted);
            let Some(adjacency) = self.adjacencies.get_mut(&peer) else { continue };
            if !credible || adjacency.rebuffed.is_some_and(|last| now.since(last) < REBUFF_EVERY) {
                self.counters.rebuffs_ignored.inc();
                continue;
            }
            adjacency.rebuffed = Some(now);
            self.counters.rebuffs_heeded.inc();
            match rebuff {
                Rebuff::Unreachable => self.doubt(now, peer, out),
                Rebuff::TooBig => {
                    adjacency.mtu.check_soon(now);
                    self.tick_link(now, peer, out);
                }
            }
        }
        self.finish(now, out);
    }

    /// True for the beginning of a DIRECT datagram on a session with `peer`.
    fn has_sent(&self, peer: PeerName, quoted: &[u8]) -> bool {
        let Ok(header) = Header::parse(quoted) else { return false };
        let Some(keys) = self.keyrings.get(&peer).filter(|_| header.destination == peer && !header.kind.is_relayed()) else { return false };
        keys.all().any(|session| session.remote_index() == header.index)
    }

    /// The kernel says that the interface which leads to these addresses is down.
    pub fn handle_link_lost(&mut self, now: Time, addresses: &[Address], out: &mut Outbox) {
        self.now = now;
        for peer in self.peers_at(addresses) {
            self.counters.paths_lost_with_interface.inc();
            self.link_down(now, peer, "the interface that leads there is down", out);
        }
        self.dial(now, out);
        self.finish(now, out);
    }

    /// The interface that leads to these addresses takes IP packets of at most `mtu` bytes now, which is other than before.
    pub fn handle_link_resized(&mut self, now: Time, addresses: &[Address], mtu: u32, out: &mut Outbox) {
        self.now = now;
        for peer in self.peers_at(addresses) {
            let Some(adjacency) = self.adjacencies.get_mut(&peer) else { continue };
            let headers = adjacency.address.underlay_overhead();
            let largest = usize::try_from(mtu).unwrap_or(usize::MAX).saturating_sub(headers);
            if adjacency.mtu.resized(now, u16::try_from(largest).unwrap_or(u16::MAX)) {
                self.fib_stale = true;
                (self.links_due, self.pace.links_urgent) = (Some(now), true);
            }
            self.tick_link(now, peer, out);
        }
        self.finish(now, out);
    }

    fn peers_at(&self, addresses: &[Address]) -> Vec<PeerName> {
        let there = self.adjacencies.iter().filter(|(_, adjacency)| addresses.contains(&adjacency.address));
        there.map(|(peer, _)| *peer).collect()
    }

    /// A neighbour told its links anew. One that names us no more has found out that ours is dead, perhaps in the direction that we cannot see.
    pub(super) fn heed_links(&mut self, now: Time, peer: PeerName, out: &mut Outbox) {
        let Some(adjacency) = self.adjacencies.get_mut(&peer).filter(|adjacency| adjacency.is_link()) else { return };
        let listed = self.store.links_of(peer).any(|link| link.neighbour == self.own);
        // Before it has named us once its record may just be older than the link.
        if std::mem::replace(&mut adjacency.listed, listed) && !listed {
            self.doubt(now, peer, out);
        }
    }

    /// Lets others stand in for a path, takes it out of what the mesh is told, and asks the peer whether it is alive.
    fn doubt(&mut self, now: Time, peer: PeerName, out: &mut Outbox) {
        let Some(adjacency) = self.adjacencies.get_mut(&peer) else { return };
        if !adjacency.beat.is_doubted() {
            adjacency.doubt(now);
            let is_link = adjacency.is_link();
            self.counters.paths_doubted.inc();
            if is_link {
                self.links_at_once(now);
            }
            self.tick_link(now, peer, out);
        }
    }

    /// This host has other addresses now: peers that see it at a new one can prove that, and follow, as soon as they hear from there.
    pub(super) fn show_new_address(&mut self, now: Time, out: &mut Outbox) {
        let peers: Vec<PeerName> = self.adjacencies.keys().copied().collect();
        for peer in peers {
            if let Some(adjacency) = self.adjacencies.get_mut(&peer) {
                adjacency.beat.hurry();
            }
            self.tick_link(now, peer, out);
        }
    }

    /// This host has a new address: what was sent for these goals may have gone nowhere, and its repetitions be seconds apart by now. Their
    /// handshakes begin anew with another first message, since a peer that has heard the former one takes it from no second address.
    pub(super) fn dial_anew(&mut self, now: Time, goals: Vec<(Goal, Time)>, out: &mut Outbox) {
        if self.left {
            return;
        }
        for (goal, at) in goals {
            let unanswered = |attempt: &Attempt| attempt.goal.as_ref() == Some(&goal) && attempt.pending.is_none();
            let Some((index, attempt)) = self.attempts.iter_mut().find(|(_, attempt)| unanswered(attempt)) else { continue };
            let index = *index;
            match attempt.way {
                Way::Relayed(_) => {}
                // Its target waits for another connection.
                Way::Direct(address) if address.is_tcp() => drop(self.attempts.remove(&index)),
                // It began anew less than a second ago.
                Way::Direct(_) if now < at => attempt.due = attempt.due.min(at),
                way @ Way::Direct(_) => {
                    let known = self.attempts.remove(&index).and_then(|attempt| attempt.known);
                    let begun = self.begin(now, way, Some(goal.clone()), known, out);
                    if !begun {
                        self.targets.failed(now, &goal, Failure::Silent, "no other handshake can be started", &mut self.rng);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::fuzz::{Stage, home};
    use crate::mesh::mtu::BASE;
    use crate::wire::HEADER_LEN;

    /// A router with a link for a while now, and the beginning of something that it has sent its neighbour.
    fn linked(for_ms: u64) -> (Stage, Vec<u8>) {
        let (mut stage, mut out) = (Stage::new(true), Outbox::default());
        stage.wait(Duration::from_millis(for_ms), &mut out);
        let (_, sent) = out.datagrams.iter().find(|(to, _)| *to == home(2)).expect("it pings");
        let quoted = sent[..HEADER_LEN].to_vec();
        (stage, quoted)
    }

    #[test]
    fn an_error_that_quotes_what_was_sent_makes_it_ask_and_decides_nothing() {
        let (mut stage, quoted) = linked(100);
        let (mut out, now) = (Outbox::default(), stage.now);
        let counters = stage.router.counters();
        stage.router.handle_rebuff(now, home(2), Rebuff::Unreachable, &quoted, &mut out);
        assert_eq!((counters.rebuffs_heeded.get(), counters.paths_doubted.get()), (1, 1));
        assert!(out.datagrams.iter().any(|(to, _)| *to == home(2)), "the peer is asked at once");
        assert_eq!((stage.router.fib().links.len(), counters.links_down.get()), (1, 0), "the link is there");
        stage.router.handle_rebuff(now + REBUFF_EVERY / 2, home(2), Rebuff::Unreachable, &quoted, &mut out);
        assert_eq!((counters.rebuffs_heeded.get(), counters.rebuffs_ignored.get()), (1, 1), "not again so soon");
    }

    #[test]
    fn what_quotes_no_session_is_ignored() {
        let (mut stage, quoted) = linked(100);
        let (mut out, now) = (Outbox::default(), stage.now);
        let counters = stage.router.counters();
        let (mut index, mut whom) = (quoted.clone(), quoted.clone());
        // The name is at 3 of the header, the index behind it at 9.
        whom[3] ^= 1;
        index[9] ^= 1;
        for forged in [&whom[..], &index, &quoted[..HEADER_LEN - 1], &[]] {
            stage.router.handle_rebuff(now, home(2), Rebuff::Unreachable, forged, &mut out);
            stage.router.handle_rebuff(now, home(2), Rebuff::TooBig, forged, &mut out);
        }
        assert_eq!((counters.rebuffs_heeded.get(), counters.rebuffs_ignored.get(), out.datagrams.len()), (0, 8, 0));
        stage.router.handle_rebuff(now, home(3), Rebuff::Unreachable, &quoted, &mut out);
        assert_eq!(counters.rebuffs_ignored.get(), 8, "nobody is there");
    }

    #[test]
    fn too_big_has_the_settled_size_checked_at_once() {
        let (mut stage, quoted) = linked(1500);
        let (mut out, now) = (Outbox::default(), stage.now);
        stage.router.handle_rebuff(now, home(2), Rebuff::TooBig, &quoted, &mut out);
        let large: Vec<usize> = out.datagrams.iter().map(|(_, bytes)| bytes.len()).filter(|len| *len > 1000).collect();
        assert_eq!(large, [usize::from(BASE)], "one probe");
        assert_eq!(stage.router.counters().paths_doubted.get(), 0);
    }

    #[test]
    fn what_gossip_tells_of_is_dialled_where_there_is_a_way() {
        let (mut stage, mut out) = (Stage::new(false), Outbox::default());
        let now = stage.now;
        let router = &mut stage.router;
        router.ask_for_ways(|address| address == home(9));
        router.targets.add(now, Goal::Peer(PeerName([2, 0, 0, 0, 0, 7])), vec![home(7), home(8)]);
        router.targets.add(now, Goal::Peer(PeerName([2, 0, 0, 0, 0, 9])), vec![home(8), home(9)]);
        router.handle_timeout(now, &mut out);
        let ways: Vec<Way> = router.attempts.values().map(|attempt| attempt.way).collect();
        assert_eq!((ways, router.counters().handshakes_without_way.get()), (vec![Way::Direct(home(9))], 3));
        assert!(out.datagrams.iter().all(|(to, _)| *to == home(9)));
    }
}
