//! From the TAP to peers.

use std::sync::atomic::Ordering;

use crate::crypto::Session;
use crate::forward::ack_filter::{Verdict, is_pure_ack};
use crate::forward::checksum::complete;
use crate::forward::cut::{Cut, Uncut};
use crate::forward::fib::{Activity, Fib, FibPeer, LinkIndex, Route};
use crate::forward::flood_limit::Passage;
use crate::forward::fragment::Slices;
use crate::forward::frame::{ETHERNET_LEN, Frame, TAG_LEN as VLAN_TAG_LEN, Transport, macs};
use crate::forward::groups::Places;
use crate::forward::mac_table::Owner;
use crate::forward::membership::ASKER_MAC;
use crate::forward::outbox::Outbox;
use crate::forward::punt::Punt;
use crate::forward::service::is_about_service;
use crate::forward::too_big;
use crate::time::Time;
use crate::wire::bundle::{FRAGMENT_LEN, Form, FrameHeader, SEGMENT_LEN, WHOLE_LEN};
use crate::wire::flood::{FLOOD_LEN, FloodHeader};
use crate::wire::header::{HOP_LIMIT, TAG_LEN};
use crate::wire::probe::is_probe;
use crate::wire::vnet::GSO_NONE;
use crate::wire::{Address, HEADER_LEN, Header, Kind, PeerName, VnetHeader};

use super::looped::Sender;
use super::{Call, State, inner_mtu};

/// Header, tag, largest frame header and Ethernet header.
pub(super) const PACKET_OVERHEAD: u16 = (HEADER_LEN + TAG_LEN + FRAGMENT_LEN + ETHERNET_LEN) as u16;

/// Spanning tree and its kin: 01:80:C2:00:00:00 to 0F, which bridges never forward (IEEE 802.1Q, table 8-1).
const LINK_LOCAL_GROUP: [u8; 5] = [0x01, 0x80, 0xc2, 0x00, 0x00];

/// A frame no longer than this, in bytes, is one that somebody may wait for the answer to: a request, a word of a call, a ping. Streams fill theirs.
const SMALL: usize = 700;

/// One way out: whom a datagram is sealed for and where it is sent.
pub(super) struct Way<'a> {
    pub(super) session: &'a Session,
    pub(super) activity: &'a Activity,
    pub(super) address: Address,
    pub(super) header: Header,
    /// The flood header of the first datagram; those after it count up.
    pub(super) flood: Option<FloodHeader>,
}

/// How a frame travels: how many datagrams, and what each holds.
pub(super) enum Plan {
    /// As it is.
    Whole { partial: bool },
    /// A super frame, in segments.
    Cut(Cut),
    /// In slices.
    Slices { slices: Slices, id: u16, partial: bool },
}

/// Why there is no plan.
enum NoPlan {
    /// The frame was malformed.
    Malformed,
    /// It fits no datagram.
    TooBig,
}

/// Whom a frame is for.
#[derive(Clone, Copy)]
enum To<'a> {
    Peer(&'a FibPeer, &'a Session),
    /// Those of these links that lead to somebody who wants it.
    Children(&'a [LinkIndex], Option<&'a Places>),
}

impl State {
    pub(super) fn tap_frame(&mut self, call: &mut Call<'_, '_>, vnet: &VnetHeader, bytes: &mut [u8]) {
        let Some(frame) = Frame::parse(bytes) else { return self.counters().drop_runt.inc() };
        self.note_small(call.now, bytes, &frame);
        if self.settings.ack_filter {
            let mut verdict = self.acks.offer(vnet, bytes, &frame);
            if verdict == Verdict::Follows {
                self.let_ack_go(call);
                verdict = self.acks.offer(vnet, bytes, &frame);
            }
            match verdict {
                Verdict::Kept => return,
                Verdict::Supersedes => return self.counters().acks_superseded.inc(),
                Verdict::Goes | Verdict::Follows => {}
            }
        }
        self.parsed_frame(call, vnet, bytes, &frame);
    }

    /// Notes when a frame comes that somebody may wait for the answer to.
    pub(super) fn note_small(&mut self, now: Time, bytes: &[u8], frame: &Frame) {
        if bytes.len() <= SMALL && !is_pure_ack(bytes, frame) {
            self.small_at = Some(now);
        }
    }

    /// Sends the acknowledgement that was kept back.
    pub(super) fn let_ack_go(&mut self, call: &mut Call<'_, '_>) {
        let mut acks = std::mem::take(&mut self.acks);
        if let Some((vnet, frame, bytes)) = acks.take() {
            self.parsed_frame(call, &vnet, bytes, &frame);
        }
    }

    fn parsed_frame(&mut self, call: &mut Call<'_, '_>, vnet: &VnetHeader, bytes: &mut [u8], frame: &Frame) {
        let now = call.now;
        let Some((destination, source)) = macs(bytes) else { return self.counters().drop_runt.inc() };
        if source[0] & 1 != 0 {
            return self.counters().drop_bad_source.inc();
        }
        if is_link_local_group(destination) {
            return self.counters().drop_link_local_group.inc();
        }
        if is_probe(bytes) {
            return self.punt_probe(call, bytes);
        }
        if destination[0] & 1 != 0 && source == ASKER_MAC {
            return self.counters().drop_question.inc();
        }
        let sender = self.learn_source(call, frame.vlan, source);
        if sender == Sender::Mesh {
            return self.counters().drop_loop_echo.inc();
        }
        if is_about_service(bytes, usize::from(frame.l3)) {
            return self.counters().drop_service_address.inc();
        }
        if self.resolve(call, bytes, frame, source) {
            return;
        }
        let to = if destination[0] & 1 != 0 {
            self.listen(call, bytes, frame);
            None
        } else {
            match self.shared.macs.lookup(frame.vlan, destination, now) {
                Some(Owner::Local) => return self.counters().drop_local.inc(),
                Some(Owner::Peer(peer)) if self.is_on_joined_bridge(call, peer, frame.vlan, source) => {
                    return self.counters().drop_loop_echo.inc();
                }
                Some(Owner::Peer(peer)) => Some(peer),
                None => {
                    self.counters().flooded_unknown_unicast.inc();
                    None
                }
            }
        };
        match to {
            Some(peer) => self.for_peer(call, peer, vnet, bytes, frame),
            None => self.flood(call, (source, sender), vnet, bytes, frame),
        }
    }

    /// Floods a frame of the station `source` on our bridge.
    fn flood(&mut self, call: &mut Call<'_, '_>, (source, sender): ([u8; 6], Sender), vnet: &VnetHeader, bytes: &mut [u8], frame: &Frame) {
        if call.fib.silent {
            return self.counters().drop_loop_flood.inc();
        }
        let wanted = State::wanted(call.fib, bytes, frame);
        if let Some(wanted) = wanted {
            if !State::is_wanted_elsewhere(call.fib, wanted) {
                return self.counters().multicast_kept_home.inc();
            }
            self.counters().multicast_to_members.inc();
        }
        if bytes.first().is_some_and(|first| first & 1 != 0) {
            self.counters().flooded_multicast.inc();
        }
        match self.flood_limit.take(call.now, source, sender == Sender::Known) {
            Passage::Passes => {}
            Passage::TooMuch { news } => {
                if news {
                    self.punt(Punt::FloodLimit { vlan: frame.vlan, mac: source }, call.outbox);
                }
                return self.counters().drop_flood_limit.inc();
            }
            Passage::TooMuchOfAll { news } => {
                if news {
                    self.punt(Punt::FloodLimitOfAll, call.outbox);
                }
                return self.counters().drop_flood_limit_all.inc();
            }
        }
        let children = call.fib.flood_children(call.fib.own);
        if !children.is_empty() {
            self.send(call, To::Children(children, wanted), vnet, bytes, frame);
        }
    }

    /// Sends a frame that has waited for a session with `peer`.
    pub(super) fn resend(&mut self, call: &mut Call<'_, '_>, peer: PeerName, vnet: &VnetHeader, bytes: &mut [u8]) {
        if let Some(frame) = Frame::parse(bytes) {
            self.for_peer(call, peer, vnet, bytes, &frame);
        }
    }

    fn for_peer(&mut self, call: &mut Call<'_, '_>, name: PeerName, vnet: &VnetHeader, bytes: &mut [u8], frame: &Frame) {
        let Some(peer) = call.fib.peers.get(&name) else { return self.counters().drop_no_route.inc() };
        match &peer.session {
            Some(session) => self.send(call, To::Peer(peer, session), vnet, bytes, frame),
            None => {
                if !self.pending.push(call.now, name, vnet, bytes) {
                    self.counters().drop_pending_full.inc();
                }
                self.want_session(call.now, name, call.outbox);
            }
        }
    }

    /// Plans a frame's journey and sends it on its way.
    fn send(&mut self, call: &mut Call<'_, '_>, to: To<'_>, vnet: &VnetHeader, bytes: &mut [u8], frame: &Frame) {
        let room = match to {
            To::Peer(peer, session) => datagram_room(peer.max_datagram, session.is_plain(), 0),
            To::Children(..) => datagram_room(self.flood_datagram, false, FLOOD_LEN),
        };
        // Before anything is said about sizes: without a way there is none.
        if let To::Peer(peer, _) = to
            && way_to(call.fib, peer, 0).is_none()
        {
            return self.counters().drop_no_route.inc();
        }
        let no_plan = match plan(bytes, frame, vnet, room) {
            Ok(plan) => return self.emit(call, to, &plan, bytes, frame),
            Err(no_plan) => no_plan,
        };
        match (no_plan, to) {
            (NoPlan::Malformed, _) => self.counters().drop_bad_offload.inc(),
            (NoPlan::TooBig, To::Peer(peer, _)) if peer.mtu_settled => {
                let tags = (usize::from(frame.l3) - ETHERNET_LEN) / VLAN_TAG_LEN * VLAN_TAG_LEN;
                let mtu = usize::from(inner_mtu(peer.max_datagram)).saturating_sub(tags);
                match too_big::answerable(bytes, frame, packet_len(bytes, frame, vnet), mtu) {
                    Some(mtu) if self.answers.take(call.now, 1) => {
                        self.counters().drop_too_big_answered.inc();
                        too_big::answer(bytes, frame, mtu, call.tap);
                    }
                    Some(_) => self.counters().drop_too_big_silent.inc(),
                    None => self.send_fragments(call, to, vnet, bytes, frame, room),
                }
            }
            // While the path's size is being found out nobody is told that it is small: hosts remember that for minutes.
            (NoPlan::TooBig, To::Peer(..) | To::Children(..)) => self.send_fragments(call, to, vnet, bytes, frame, room),
        }
    }

    /// Sends what fits no datagram in slices: the frame itself, or each packet of a super frame.
    fn send_fragments(&mut self, call: &mut Call<'_, '_>, to: To<'_>, vnet: &VnetHeader, bytes: &mut [u8], frame: &Frame, room: usize) {
        let room = room.saturating_sub(FRAGMENT_LEN);
        if vnet.gso_type == GSO_NONE {
            // The plan that failed for size has settled the checksum: what is partial now is where the parse says.
            let partial = vnet.needs_csum() && frame.agrees(vnet);
            return self.send_slices(call, to, bytes, frame, partial, room);
        }
        let Ok(cut) = Cut::prepare(bytes, frame, vnet, usize::MAX) else { return self.counters().drop_bad_offload.inc() };
        let mut scratch = std::mem::take(&mut self.scratch);
        for index in 0..cut.count() {
            if let Some(packet) = scratch.get_mut(..cut.frame_len(index)) {
                cut.write(bytes, index, packet);
                self.send_slices(call, to, packet, frame, true, room);
            }
        }
        self.scratch = scratch;
    }

    fn send_slices(&mut self, call: &mut Call<'_, '_>, to: To<'_>, bytes: &[u8], frame: &Frame, partial: bool, room: usize) {
        let Some(slices) = Slices::plan(bytes.len(), room) else { return self.counters().drop_unsendable.inc() };
        let id = self.fragment_id;
        self.fragment_id = self.fragment_id.wrapping_add(1);
        self.counters().fragmented.inc();
        self.emit(call, to, &Plan::Slices { slices, id, partial }, bytes, frame);
    }

    fn emit(&mut self, call: &mut Call<'_, '_>, to: To<'_>, plan: &Plan, bytes: &[u8], frame: &Frame) {
        let (fib, now) = (call.fib, call.now);
        match to {
            To::Peer(peer, session) => {
                let label = frame.label(bytes);
                let Some((address, relayed)) = way_to(fib, peer, label) else { return self.counters().drop_no_route.inc() };
                let header = Header {
                    kind: data_kind(relayed, if relayed { session.is_plain() } else { session.sends_clear() }),
                    hop_limit: if relayed { HOP_LIMIT } else { 1 },
                    lane: session.lane_of(self.settings.lane),
                    label,
                    destination: peer.name,
                    index: session.remote_index(),
                    counter: 0,
                };
                let way = Way { session, activity: &peer.activity, address, header, flood: None };
                if !self.send_on(now, &way, plan, bytes, call.outbox) {
                    self.want_session(now, peer.name, call.outbox);
                }
            }
            To::Children(children, wanted) => {
                let flood = FloodHeader {
                    origin: fib.own,
                    incarnation: fib.incarnation as u32,
                    lane: self.settings.lane,
                    hop_limit: HOP_LIMIT,
                    sequence: self.flood_sequence,
                };
                self.flood_sequence = self.flood_sequence.wrapping_add(plan.count() as u32);
                let links = children.iter().filter_map(|child| fib.links.get(usize::from(*child)));
                for link in links.filter(|link| wanted.is_none_or(|wanted| fib.leads_to(fib.own, link, wanted))) {
                    if let Some(way) = self.flood_way(link, flood) {
                        self.send_on(now, &way, plan, bytes, call.outbox);
                    }
                }
            }
        }
    }

    /// Fills and seals one datagram after the other; false where the session has no counters left.
    fn send_on(&self, now: Time, way: &Way<'_>, plan: &Plan, bytes: &[u8], outbox: &mut Outbox) -> bool {
        let count = plan.count();
        let counters = Some(way.session).filter(|session| !session.is_over(now));
        let Some(first) = counters.and_then(|session| session.reserve(way.header.lane, count as u32)) else {
            self.counters().drop_key_exhausted.inc();
            return false;
        };
        let overhead = way.overhead();
        let mut sent = 0;
        for index in 0..count {
            let frame_header = plan.frame_header(index, bytes.len());
            let content = frame_header.header_len() + usize::from(frame_header.length);
            let Some(datagram) = outbox.reserve(way.address, way.header.lane, overhead + content) else {
                self.counters().drop_outbox_full.add((count - index) as u64);
                break;
            };
            let counter = first.wrapping_add(index as u32);
            let body = way.write_headers(datagram, counter, index as u32);
            plan.write(bytes, index, frame_header.write_header(body));
            way.seal(datagram, counter);
            sent += (overhead + content) as u64;
        }
        way.activity.tx_bytes.fetch_add(sent, Ordering::Relaxed);
        way.activity.tx_frames.fetch_add(count as u64, Ordering::Relaxed);
        way.activity.sent.store(now.0, Ordering::Relaxed);
        true
    }
}

impl Way<'_> {
    /// Bytes of a datagram besides the bundle.
    pub(super) fn overhead(&self) -> usize {
        HEADER_LEN + if self.flood.is_some() { FLOOD_LEN } else { 0 } + self.tag_len()
    }

    fn tag_len(&self) -> usize {
        if self.header.kind.is_plain() { 0 } else { TAG_LEN }
    }

    /// Writes the clear header, and the flood header where there is one; returns the bundle's bytes.
    pub(super) fn write_headers<'d>(&self, datagram: &'d mut [u8], counter: u32, index: u32) -> &'d mut [u8] {
        let end = datagram.len() - self.tag_len();
        let (header, body) = datagram[..end].split_at_mut(HEADER_LEN);
        header.copy_from_slice(&Header { counter, ..self.header }.to_bytes());
        let Some(flood) = self.flood else { return body };
        let (header, body) = body.split_at_mut(FLOOD_LEN);
        header.copy_from_slice(&FloodHeader { sequence: flood.sequence.wrapping_add(index), ..flood }.to_bytes());
        body
    }

    pub(super) fn seal(&self, datagram: &mut [u8], counter: u32) {
        if !self.header.kind.is_plain() {
            self.session.seal(self.header.lane, counter, datagram);
        }
    }
}

impl Plan {
    fn count(&self) -> usize {
        match self {
            Plan::Whole { .. } => 1,
            Plan::Cut(cut) => cut.count(),
            Plan::Slices { slices, .. } => slices.count,
        }
    }

    fn frame_header(&self, index: usize, length: usize) -> FrameHeader {
        let last = index + 1 == self.count();
        match *self {
            Plan::Whole { partial } => FrameHeader { form: Form::Whole, partial, length: length as u16 },
            Plan::Cut(ref cut) => FrameHeader {
                form: Form::Segment { index: index as u16, last, ecn: cut.ecn() },
                partial: true,
                length: cut.frame_len(index) as u16,
            },
            Plan::Slices { slices, id, partial } => FrameHeader {
                form: Form::Fragment { id, index: index as u8, last },
                partial,
                length: slices.range(index, length).len() as u16,
            },
        }
    }

    fn write(&self, bytes: &[u8], index: usize, out: &mut [u8]) {
        match self {
            Plan::Whole { .. } => out.copy_from_slice(bytes),
            Plan::Cut(cut) => cut.write(bytes, index, out),
            Plan::Slices { slices, .. } => out.copy_from_slice(&bytes[slices.range(index, bytes.len())]),
        }
    }
}

/// Bytes of bundle in a datagram of `max_datagram` bytes.
fn datagram_room(max_datagram: u16, plain: bool, flood: usize) -> usize {
    usize::from(max_datagram).saturating_sub(HEADER_LEN + flood + if plain { 0 } else { TAG_LEN })
}

/// How a frame travels in datagrams with `room` bytes of bundle. Settles its checksum.
fn plan(bytes: &mut [u8], frame: &Frame, vnet: &VnetHeader, room: usize) -> Result<Plan, NoPlan> {
    if vnet.gso_type != GSO_NONE {
        return match Cut::prepare(bytes, frame, vnet, room.saturating_sub(SEGMENT_LEN)) {
            Ok(cut) => Ok(Plan::Cut(cut)),
            Err(Uncut::Malformed) => Err(NoPlan::Malformed),
            Err(Uncut::TooBig) => Err(NoPlan::TooBig),
        };
    }
    let partial = vnet.needs_csum() && frame.agrees(vnet);
    if vnet.needs_csum() && !partial && !complete(bytes, usize::from(vnet.csum_start), usize::from(vnet.csum_offset)) {
        return Err(NoPlan::Malformed);
    }
    if WHOLE_LEN + bytes.len() <= room { Ok(Plan::Whole { partial }) } else { Err(NoPlan::TooBig) }
}

/// Bytes of the IP packet that a frame holds, or of one packet of a super frame.
fn packet_len(bytes: &[u8], frame: &Frame, vnet: &VnetHeader) -> usize {
    let length = bytes.len() - usize::from(frame.l3);
    match (vnet.gso_type, frame.transport) {
        (GSO_NONE, _) | (_, None) => length,
        (_, Some(Transport::Tcp | Transport::Udp)) => length.min(usize::from(frame.payload - frame.l3) + usize::from(vnet.gso_size)),
    }
}

/// Where datagrams of flows with this label are sent now, and whether a neighbour relays them.
pub(super) fn way_to(fib: &Fib, peer: &FibPeer, label: u8) -> Option<(Address, bool)> {
    let relayed = || fib.next_hop(peer.hops()?, label, None).map(|link| (link.address, true));
    let last_resort = || match peer.route {
        Route::Direct(address) => Some((address, false)),
        Route::Via(_) | Route::Unreachable => None,
    };
    peer.direct().map(|address| (address, false)).or_else(relayed).or_else(last_resort)
}

fn data_kind(relayed: bool, plain: bool) -> Kind {
    match (relayed, plain) {
        (false, false) => Kind::DataDirect,
        (true, false) => Kind::DataRelayed,
        (false, true) => Kind::PlainDirect,
        (true, true) => Kind::PlainRelayed,
    }
}

/// True for the group addresses that bridges keep to themselves.
pub(super) fn is_link_local_group(mac: [u8; 6]) -> bool {
    mac[..5] == LINK_LOCAL_GROUP && mac[5] <= 0x0f
}
