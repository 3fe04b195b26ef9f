//! From peers to the TAP.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::crypto::{OpenError, Session};
use crate::forward::fib::{Activity, Fib, LinkIndex, Route};
use crate::forward::fragment::{Outcome, Party, Slice};
use crate::forward::frame::{Frame, macs};
use crate::forward::mac_table::{Learned, Source};
use crate::forward::neighbour;
use crate::forward::punt::Punt;
use crate::forward::rejoin::{Piece, write_single};
use crate::forward::service::is_about_service;
use crate::time::Time;
use crate::wire::bundle::{Cursor, Form, FrameHeader};
use crate::wire::flood::FLOOD_LEN;
use crate::wire::probe::is_probe;
use crate::wire::{Address, HEADER_LEN, Header, Kind, PeerName};

use super::relay::Onward;
use super::transmit::is_link_local_group;
use super::{Call, Received, State};

/// Set in the keys of floods, whose other bits are the origin's name and lane.
const FLOOD_KEY: u64 = 1 << 63;

/// A session as found for one receive batch, with what arrived on it.
struct Inbound<'f> {
    index: u32,
    session: &'f Session,
    activity: &'f Activity,
    /// True where this address is known to be the peer's: unsealed datagrams are believed, and what is heard is a sign of life of the
    /// path. A peer that sends from elsewhere has moved, which the mesh plane must notice and prove.
    proven: bool,
    /// True where this address is a neighbour's, whose unsealed datagrams to relay are believed.
    neighbour: bool,
    direct: bool,
    bytes: u64,
    frames: u64,
}

/// What is found once per sender of a receive batch.
struct Batch<'f> {
    from: Address,
    /// The live link it came over; `None` until looked up.
    incoming: Option<Option<LinkIndex>>,
    inbound: Option<Inbound<'f>>,
    onward: Option<Onward<'f>>,
}

/// Who sent a frame, and how it is learned and joined.
#[derive(Clone, Copy)]
struct Sender {
    peer: PeerName,
    /// The router that sealed the datagram.
    hop: PeerName,
    source: Source,
    key: u64,
    counter: u32,
}

impl State {
    pub(super) fn udp_batch(&mut self, call: &mut Call<'_, '_>, buffer: &mut [u8], messages: &[Received]) {
        let mut batch: Option<Batch<'_>> = None;
        for message in messages {
            if let Some(before) = batch.take_if(|batch| batch.from != message.from) {
                before.settle(call.now);
            }
            let batch = batch.get_or_insert(Batch { from: message.from, incoming: None, inbound: None, onward: None });
            let end = message.range.end.min(buffer.len());
            let step = if message.segment == 0 { end } else { message.segment };
            let mut start = message.range.start;
            while start < end {
                let next = start.saturating_add(step).min(end);
                self.datagram(call, batch, buffer, start..next);
                start = next;
            }
        }
        self.rejoin.flush(buffer, call.tap);
        let superseded = std::mem::take(&mut self.rejoin.superseded);
        self.counters().acks_superseded.add(superseded);
        if let Some(last) = batch {
            last.settle(call.now);
        }
    }

    fn datagram<'f>(&mut self, call: &mut Call<'f, '_>, batch: &mut Batch<'f>, buffer: &mut [u8], range: Range<usize>) {
        let fib = call.fib;
        let Ok(header) = Header::parse(&buffer[range.clone()]) else { return self.counters().drop_bad_header.inc() };
        let own = header.destination == fib.own;
        match header.kind {
            Kind::HandshakeDirect | Kind::HandshakeRelayed | Kind::ControlDirect | Kind::ControlRelayed | Kind::Reject | Kind::Retry => {
                self.punt(Punt::Control { from: batch.from, bytes: buffer[range].to_vec() }, call.outbox)
            }
            Kind::DataRelayed | Kind::PlainRelayed if !own => {
                let incoming = *batch.incoming.get_or_insert_with(|| State::incoming_link(fib, batch.from));
                let Some(incoming) = incoming else { return self.counters().drop_relay_stranger.inc() };
                let cached = batch.onward.take().filter(|onward| onward.is_for(&header));
                let onward = batch.onward.insert(cached.unwrap_or_else(|| State::onward(fib, incoming, &header)));
                self.relay(call, incoming, onward, header.lane, &mut buffer[range]);
            }
            Kind::DataDirect | Kind::PlainDirect | Kind::Flood | Kind::PlainFlood if !own => self.counters().drop_misdirected.inc(),
            Kind::DataDirect | Kind::DataRelayed | Kind::PlainDirect | Kind::PlainRelayed | Kind::Flood | Kind::PlainFlood => {
                self.for_us(call, batch, &header, buffer, range);
            }
        }
    }

    /// Opens a datagram and delivers its frames.
    fn for_us<'f>(&mut self, call: &mut Call<'f, '_>, batch: &mut Batch<'f>, header: &Header, buffer: &mut [u8], range: Range<usize>) {
        let Some(inbound) = batch.session(call.fib, call.now, header.index) else {
            self.counters().drop_unknown_session.inc();
            if self.unknown_sessions.take(call.now, 1) {
                self.punt(Punt::UnknownSession { from: batch.from, index: header.index }, call.outbox);
            }
            return;
        };
        let length = (range.end - range.start) as u64;
        let plain_allowed = match header.kind {
            Kind::PlainDirect | Kind::PlainFlood => inbound.proven,
            Kind::PlainRelayed => inbound.neighbour,
            _ => true,
        };
        if !plain_allowed {
            return self.counters().drop_plain.inc();
        }
        let datagram = &mut buffer[range.clone()];
        if inbound.session.is_over(call.now) {
            return self.count_refusal(OpenError::Expired);
        }
        let opened =
            if header.kind.is_plain() { inbound.session.open_plain(header, datagram) } else { inbound.session.open(header, datagram) };
        let body = match opened {
            Ok(body) => range.start + HEADER_LEN..range.start + HEADER_LEN + body.len(),
            Err(error) => return self.count_refusal(error),
        };
        inbound.bytes += length;
        inbound.direct |= !header.kind.is_relayed();
        let peer = inbound.session.peer();
        let frames = if matches!(header.kind, Kind::Flood | Kind::PlainFlood) {
            let Some(flood) = self.admit_flood(call, peer, buffer, &body) else { return };
            if call.fib.silent {
                return self.counters().drop_loop_flood.inc();
            }
            let key = FLOOD_KEY | flood.origin.to_u64() << 4 | u64::from(flood.lane);
            let sender = Sender { peer: flood.origin, hop: peer, source: Source::Flood, key, counter: flood.sequence };
            self.deliver(call, sender, buffer, body.start + FLOOD_LEN..body.end)
        } else {
            let key = u64::from(header.lane) << 32 | u64::from(header.index);
            self.deliver(call, Sender { peer, hop: peer, source: Source::Data, key, counter: header.counter }, buffer, body)
        };
        if let Some(inbound) = &mut batch.inbound {
            inbound.frames += frames;
        }
    }

    fn count_refusal(&self, error: OpenError) {
        let counters = self.counters();
        match error {
            OpenError::Short => counters.drop_short.inc(),
            OpenError::Lane => counters.drop_lane.inc(),
            OpenError::Replay => counters.drop_replay.inc(),
            OpenError::Forged => counters.drop_forged.inc(),
            OpenError::Expired => counters.drop_expired.inc(),
        }
    }

    /// Writes the frames of an opened bundle to the TAP, or holds them to be joined; returns how many there were.
    fn deliver(&mut self, call: &mut Call<'_, '_>, sender: Sender, buffer: &mut [u8], bundle: Range<usize>) -> u64 {
        let mut cursor = Cursor::new(bundle);
        let mut frames = 0;
        while let Some(next) = cursor.next(buffer) {
            let Ok((header, range)) = next else {
                self.counters().drop_bad_bundle.inc();
                break;
            };
            frames += 1;
            match header.form {
                Form::Whole | Form::Segment { .. } => {
                    let piece = Piece { key: sender.key, counter: sender.counter, form: header.form, partial: header.partial };
                    self.deliver_frame(call, sender, buffer, range, piece);
                }
                Form::Fragment { .. } => {
                    self.rejoin.flush(buffer, call.tap);
                    self.deliver_slice(call, sender, &header, buffer.get(range).unwrap_or(&[]));
                }
            }
        }
        frames
    }

    fn deliver_frame(&mut self, call: &mut Call<'_, '_>, sender: Sender, buffer: &mut [u8], range: Range<usize>, piece: Piece) {
        // A joined frame has the headers of the first of its run, which was checked and learned.
        if self.rejoin.append(buffer, range.clone(), piece) {
            return;
        }
        self.rejoin.flush(buffer, call.tap);
        let Some(frame) = buffer.get(range.clone()).and_then(|bytes| self.admit(call, sender, bytes)) else { return };
        if piece.form == Form::Whole {
            self.note_small(call.now, buffer.get(range.clone()).unwrap_or(&[]), &frame);
        }
        if !self.rejoin.start(buffer, range, piece, &frame, call.tap) {
            self.counters().drop_bad_frame.inc();
        }
    }

    fn deliver_slice(&mut self, call: &mut Call<'_, '_>, sender: Sender, header: &FrameHeader, bytes: &[u8]) {
        let Form::Fragment { id, index, last } = header.form else { return };
        let from = Party { hop: sender.hop, sender: sender.peer };
        let slice = Slice { key: sender.key, from, counter: sender.counter, id, index, last, partial: header.partial, bytes };
        let outcome = self.reassembly.add(call.now, &slice);
        self.count_given_up();
        if outcome != Outcome::Complete {
            return;
        }
        let mut reassembly = std::mem::take(&mut self.reassembly);
        if let Some(frame) = self.admit(call, sender, reassembly.frame())
            && !write_single(reassembly.frame(), &frame, header.partial, call.tap)
        {
            self.counters().drop_bad_frame.inc();
        }
        self.reassembly = reassembly;
    }

    /// Parses a frame from a peer and learns its source; `None` where it is not for a bridge.
    fn admit(&mut self, call: &mut Call<'_, '_>, sender: Sender, bytes: &[u8]) -> Option<Frame> {
        let (Some(frame), Some((destination, source))) = (Frame::parse(bytes), macs(bytes)) else {
            self.counters().drop_runt.inc();
            return None;
        };
        if source[0] & 1 != 0 {
            self.counters().drop_bad_source.inc();
            return None;
        }
        if is_link_local_group(destination) {
            self.counters().drop_link_local_group.inc();
            return None;
        }
        if is_about_service(bytes, usize::from(frame.l3)) {
            self.counters().drop_service_address.inc();
            return None;
        }
        if is_probe(bytes) {
            self.counters().drop_loop_probe.inc();
            return None;
        }
        if destination[0] & 1 != 0 && !self.is_for_bridge(call.fib, bytes, &frame) {
            return None;
        }
        if self.settings.arp_proxy
            && let Some(claim) = neighbour::parse(bytes, &frame).and_then(|said| said.claim)
        {
            self.contradiction(call, frame.vlan, claim);
        }
        // The bridge would take the station here for one behind the TAP.
        if self.shared.macs.learn_remote(frame.vlan, source, sender.peer, sender.source, call.now) == Learned::FrozenHere {
            self.counters().drop_frozen_mac.inc();
            return None;
        }
        Some(frame)
    }
}

impl<'f> Batch<'f> {
    fn settle(self, now: Time) {
        if let Some(inbound) = self.inbound {
            inbound.settle(now);
        }
    }

    /// The session with our index `index`.
    fn session(&mut self, fib: &'f Fib, now: Time, index: u32) -> Option<&mut Inbound<'f>> {
        if self.inbound.as_ref().is_none_or(|inbound| inbound.index != index) {
            let (session, activity) = fib.sessions.get(&index)?;
            let link = fib.link_by_address.get(&self.from).and_then(|link| fib.links.get(usize::from(*link)));
            let direct_path = fib.peers.get(&session.peer()).is_some_and(|peer| peer.route == Route::Direct(self.from));
            let found = Inbound {
                index,
                session,
                activity,
                proven: direct_path || link.is_some_and(|link| link.peer == session.peer()),
                neighbour: link.is_some(),
                direct: false,
                bytes: 0,
                frames: 0,
            };
            if let Some(before) = self.inbound.replace(found) {
                before.settle(now);
            }
        }
        self.inbound.as_mut()
    }
}

impl Inbound<'_> {
    /// Adds what arrived to the peer's activity: once per batch, since other threads write there too.
    fn settle(&self, now: Time) {
        if self.bytes == 0 {
            return;
        }
        self.activity.rx_bytes.fetch_add(self.bytes, Ordering::Relaxed);
        self.activity.rx_frames.fetch_add(self.frames, Ordering::Relaxed);
        if self.direct {
            self.activity.direct.store(now.0, Ordering::Relaxed);
        }
        if self.direct && self.proven {
            self.activity.heard.store(now.0, Ordering::Relaxed);
        }
    }
}
