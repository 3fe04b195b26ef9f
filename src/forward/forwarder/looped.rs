//! A bridge that is joined to another router's outside the mesh, or to itself: what is believed of the frames seen there.
//!
//! The mesh plane finds such loops ([`crate::mesh::loops`]) and has one router fall silent: it floods nothing from its bridge or to
//! it. That ends every storm. Unicast goes on, and three rules keep it from going round:
//!
//! * what a peer has is not ours although we see it: the joined bridges show us each other's MACs, and who claimed them all would
//!   take them from their owners;
//! * a frame from a MAC behind a router outside the loop has come out of the mesh already, and does not enter it again;
//! * a frame between two MACs behind routers of the loop reaches its destination over the bridges.

use crate::forward::mac_table::{Learned, Owner};
use crate::forward::punt::Punt;
use crate::mesh::command::LocalMac;
use crate::wire::PeerName;

use super::{Call, State};

/// What the source of a frame from the bridge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// A station that was heard before.
    Known,
    /// A station that was not, as far as there is room to remember it.
    Stranger,
    /// The frame has come out of the mesh.
    Mesh,
}

impl State {
    /// Learns that the source of a frame from the bridge is there.
    pub(super) fn learn_source(&mut self, call: &mut Call<'_, '_>, vlan: u16, source: [u8; 6]) -> Sender {
        if !call.fib.looped_with.is_empty()
            && let Some(Owner::Peer(peer)) = self.shared.macs.lookup(vlan, source, call.now)
        {
            return if call.fib.looped_with.contains(&peer) { Sender::Known } else { Sender::Mesh };
        }
        let here = LocalMac { vlan, mac: source, present: true, came_from: None };
        match self.shared.macs.learn_local(vlan, source, call.now) {
            Learned::New => {
                self.punt(Punt::LocalMac(here), call.outbox);
                return Sender::Stranger;
            }
            Learned::Ignored => return Sender::Stranger,
            Learned::Moved(Owner::Peer(peer)) => {
                self.punt(Punt::LocalMac(LocalMac { came_from: Some(peer), ..here }), call.outbox);
            }
            // The mesh plane has it here too, once it knows.
            Learned::FrozenThere if self.contests.take(call.now, 1) => self.punt(Punt::LocalMac(here), call.outbox),
            Learned::Moved(Owner::Local) | Learned::Known | Learned::Held | Learned::FrozenHere | Learned::FrozenThere => {}
        }
        Sender::Known
    }

    /// True for a frame between two MACs that are both on bridges joined to ours: it needs no router.
    pub(super) fn is_on_joined_bridge(&self, call: &Call<'_, '_>, destination: PeerName, vlan: u16, source: [u8; 6]) -> bool {
        call.fib.looped_with.contains(&destination)
            && matches!(self.shared.macs.lookup(vlan, source, call.now), Some(Owner::Peer(peer)) if call.fib.looped_with.contains(&peer))
    }

    /// Hands a probe to the mesh plane. Nothing else becomes of it: it never enters the mesh.
    pub(super) fn punt_probe(&mut self, call: &mut Call<'_, '_>, frame: &[u8]) {
        match self.probes.take(call.now, 1) {
            true => self.punt(Punt::Probe(frame.to_vec()), call.outbox),
            false => self.counters().drop_loop_probe.inc(),
        }
    }
}
