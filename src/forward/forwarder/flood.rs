//! Floods: sealed per hop along the broadcast tree of their origin, delivered once, passed on while hops are left. What comes another way, as while
//! routers disagree about the tree, is delivered and not passed on: any member can make it up in another's name ([`crate::forward::duplicates`]).

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::forward::duplicates::{Duplicates, Verdict};
use crate::forward::fib::FibLink;
use crate::wire::flood::{FLOOD_LEN, FloodHeader};
use crate::wire::{Header, Kind, PeerName};

use super::transmit::Way;
use super::{Call, State};

impl State {
    /// The way of a flood over one link; `None` while the link is down.
    pub(super) fn flood_way<'a>(&self, link: &'a FibLink, flood: FloodHeader) -> Option<Way<'a>> {
        let session = &*link.session;
        let header = Header {
            kind: if session.is_plain() { Kind::PlainFlood } else { Kind::Flood },
            hop_limit: 1,
            lane: session.lane_of(self.settings.lane),
            label: 0,
            destination: link.peer,
            index: session.remote_index(),
            counter: 0,
        };
        let way = Way { session, activity: &link.activity, address: link.address, header, flood: Some(flood) };
        link.up.load(Ordering::Relaxed).then_some(way)
    }

    /// Takes in the flood that lies opened at `range` of `buffer`: passes it on, and returns its header where its frames are
    /// for our own bridge too.
    pub(super) fn admit_flood(
        &mut self,
        call: &mut Call<'_, '_>,
        neighbour: PeerName,
        buffer: &[u8],
        range: &Range<usize>,
    ) -> Option<FloodHeader> {
        let counters = self.counters();
        let Some(flood) = buffer.get(range.clone()).and_then(FloodHeader::parse) else {
            counters.drop_bad_flood.inc();
            return None;
        };
        if flood.origin == call.fib.own {
            counters.drop_flood_own.inc();
            return None;
        }
        // A router that is not admitted (--allow), or of which nothing is known yet: nobody else would pass it on either. Of lives that it does not
        // live there are so many that they would fill the table.
        if call.fib.peers.get(&flood.origin).is_none_or(|origin| origin.incarnation as u32 != flood.incarnation) {
            counters.drop_flood_stranger.inc();
            return None;
        }
        let bundle = buffer.get(range.start + FLOOD_LEN..range.end).unwrap_or(&[]);
        let by_tree = call.fib.trees.parent(flood.origin) == Some(neighbour);
        let check = if by_tree { Duplicates::check_expected } else { Duplicates::check_stray };
        match check(&self.shared.duplicates, &flood, bundle, call.now) {
            Verdict::First => {}
            Verdict::PassOn => {
                self.pass_on(call, neighbour, flood, bundle);
                self.counters().drop_flood_duplicate.inc();
                return None;
            }
            Verdict::Duplicate => {
                counters.drop_flood_duplicate.inc();
                return None;
            }
            Verdict::NoRoom => {
                counters.drop_flood_no_room.inc();
                return None;
            }
        }
        // Whoever follows us takes what we pass on for what comes by the tree.
        if by_tree {
            self.pass_on(call, neighbour, flood, bundle);
        }
        Some(flood)
    }

    fn pass_on(&self, call: &mut Call<'_, '_>, neighbour: PeerName, flood: FloodHeader, bundle: &[u8]) {
        let fib = call.fib;
        let children = fib.flood_children(flood.origin);
        let wanted = if children.is_empty() { None } else { State::bundle_wanted(fib, bundle) };
        let links = children.iter().filter_map(|child| fib.links.get(usize::from(*child)));
        let mut links = links.filter(|link| wanted.is_none_or(|wanted| fib.leads_to(flood.origin, link, wanted)));
        if !fib.forwarding && links.next().is_some() {
            return self.counters().drop_relay_forbidden.inc();
        }
        for link in links.filter(|link| link.peer != neighbour && link.peer != flood.origin) {
            if flood.hop_limit <= 1 {
                return self.counters().drop_flood_hops.inc();
            }
            let onward = FloodHeader { hop_limit: flood.hop_limit - 1, ..flood };
            let Some(way) = self.flood_way(link, onward) else { continue };
            let length = way.overhead() + bundle.len();
            if length > usize::from(link.max_datagram) {
                self.counters().drop_flood_too_big.inc();
                continue;
            }
            let Some(counter) = way.session.reserve(way.header.lane, 1) else {
                self.counters().drop_key_exhausted.inc();
                continue;
            };
            let Some(datagram) = call.outbox.reserve(way.address, way.header.lane, length) else {
                self.counters().drop_outbox_full.inc();
                continue;
            };
            way.write_headers(datagram, counter, 0).copy_from_slice(bundle);
            way.seal(datagram, counter);
            way.activity.tx_bytes.fetch_add(length as u64, Ordering::Relaxed);
            way.activity.tx_frames.fetch_add(1, Ordering::Relaxed);
            way.activity.sent.store(call.now.0, Ordering::Relaxed);
        }
    }
}
