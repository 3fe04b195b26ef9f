//! Answers to ARP and neighbour solicitations for containers of other hosts (`--arp-proxy`), and what is learned of our own on the way.
//!
//! A question is answered where the mesh plane knows one signed, undisputed binding ([`crate::mesh::bindings`]), the MAC is where its
//! binding says, and a route leads there. In every other case it is flooded as ever, and a counter says why. So are questions whether an
//! address is free, and unasked news. The answer enters the bridge by the TAP, as the true one would, so the rules of the bridge hold.

use std::io::IoSlice;

use crate::counters::Counter;
use crate::forward::addresses::Known;
use crate::forward::frame::Frame;
use crate::forward::mac_table::Owner;
use crate::forward::neighbour::{self, Claim, LONGEST};
use crate::forward::punt::Punt;
use crate::mesh::command::Sighting;
use crate::wire::VnetHeader;
use crate::wire::bindings::{Place, is_station};

use super::transmit::way_to;
use super::{Call, State};

/// A binding of our own is told again when it is seen after so long, so that it does not age.
const RETELL: std::time::Duration = std::time::Duration::from_secs(60);

impl State {
    /// Takes in a frame of address resolution from the bridge; true where it was answered and needs no flood.
    pub(super) fn resolve(&mut self, call: &mut Call<'_, '_>, bytes: &[u8], frame: &Frame, source: [u8; 6]) -> bool {
        if !self.settings.arp_proxy {
            return false;
        }
        let Some(said) = neighbour::parse(bytes, frame) else { return false };
        if let Some(claim) = said.claim.filter(|claim| is_station(claim.ip)) {
            self.sight(call, frame.vlan, claim, source);
        }
        if bytes.first().is_none_or(|first| first & 1 == 0) {
            return false;
        }
        let Some(question) = said.question.filter(|question| is_station(question.target)) else {
            self.counters().arp_flooded_no_question.inc();
            return false;
        };
        let mac = match self.holder(call, (frame.vlan, question.target)) {
            Ok(mac) => mac,
            Err(reason) => {
                reason.inc();
                return false;
            }
        };
        let mut out = [0; LONGEST];
        let answer = neighbour::answer(bytes, frame, &question, mac, &mut out).and_then(|length| out.get(..length));
        let Some(answer) = answer else { return false };
        call.tap.write(&VnetHeader::default(), &[IoSlice::new(answer)]);
        self.counters().arp_answered.inc();
        true
    }

    /// The MAC to answer with, or the counter of the reason why there is none.
    fn holder(&self, call: &Call<'_, '_>, place: Place) -> Result<[u8; 6], &Counter> {
        let counters = self.counters();
        let (mac, peer) = match self.shared.addresses.get(&place, call.now) {
            None => return Err(&counters.arp_flooded_unknown),
            Some(Known::Here(..)) => return Err(&counters.arp_flooded_here),
            Some(Known::Disputed) => return Err(&counters.arp_flooded_disputed),
            Some(Known::There(..)) if !call.fib.looped_with.is_empty() => return Err(&counters.arp_flooded_disputed),
            Some(Known::There(mac, peer)) => (mac, peer),
        };
        let is_there = self.shared.macs.lookup(place.0, mac, call.now) == Some(Owner::Peer(peer));
        let is_reached = call.fib.peers.get(&peer).is_some_and(|peer| way_to(call.fib, peer, 0).is_some());
        if is_there && is_reached { Ok(mac) } else { Err(&counters.arp_flooded_unreachable) }
    }

    /// A station on our bridge says where an address is.
    fn sight(&mut self, call: &mut Call<'_, '_>, vlan: u16, claim: Claim, source: [u8; 6]) {
        let is_own = claim.mac == source && self.shared.macs.lookup(vlan, source, call.now) == Some(Owner::Local);
        if claim.router || !is_own {
            return self.contradiction(call, vlan, claim);
        }
        let known = self.shared.addresses.get(&(vlan, claim.ip), call.now);
        let is_old = !matches!(known, Some(Known::Here(mac, seen)) if mac == claim.mac && call.now.since(seen) < RETELL);
        if is_old {
            self.punt_sighting(call, Sighting { place: (vlan, claim.ip), mac: claim.mac, here: true });
        }
    }

    /// Tells the mesh plane of a frame that says otherwise than it.
    pub(super) fn contradiction(&mut self, call: &mut Call<'_, '_>, vlan: u16, claim: Claim) {
        let known = match self.shared.addresses.get(&(vlan, claim.ip), call.now) {
            Some(Known::Here(mac, _) | Known::There(mac, _)) => mac,
            Some(Known::Disputed) | None => return,
        };
        if known != claim.mac || claim.router {
            self.punt_sighting(call, Sighting { place: (vlan, claim.ip), mac: claim.mac, here: false });
        }
    }

    fn punt_sighting(&mut self, call: &mut Call<'_, '_>, sighting: Sighting) {
        match self.sightings.take(call.now, 1) {
            true => self.punt(Punt::Address(sighting), call.outbox),
            false => self.counters().sightings_over_rate.inc(),
        }
    }
}
