//! Re-joining: consecutive segments found in one receive buffer become one super frame again, without a copy; of consecutive acknowledgements
//! the last is written.
//!
//! All of it came from a peer, so nothing is believed: a frame joins a run only if every header byte is what cutting a
//! super frame would have made of the run's first frame. What does not join is written alone.

use std::io::IoSlice;
use std::ops::Range;

use crate::wire::bundle::Form;
use crate::wire::vnet::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetHeader};

use super::ack_filter::{is_pure_ack, supersedes};
use super::checksum::{complete, pseudo, write_ipv4_header};
use super::cut::{CWR, FIN, PSH};
use super::frame::{Frame, Net, Transport, be16, be32};
use super::tap::TapSink;

/// Most segments of one write: plenty for TCP.
const MAX_SEGMENTS: usize = 128;
/// Most datagrams of one write: `UDP_MAX_SEGMENTS` of kernels before 6.9.
const MAX_DATAGRAMS: usize = 64;
/// Largest IP packet.
const MAX_PACKET: usize = 65_535;
/// TCP flags with which a segment may begin or continue a run: ACK, ECE and those handled by position.
const JOINABLE_FLAGS: u8 = 0x10 | 0x40 | FIN | PSH | CWR;

/// One frame of a bundle, as [`Rejoin::append`] and [`Rejoin::start`] want to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Sender and lane: only frames of one key are joined.
    pub key: u64,
    /// Counter of the datagram.
    pub counter: u32,
    /// Form and position.
    pub form: Form,
    /// True where the checksum is partial.
    pub partial: bool,
}

/// A run of frames being joined, as offsets into the receive buffer.
#[derive(Debug)]
pub struct Rejoin {
    active: bool,
    closed: bool,
    /// True where the run is of acknowledgements, of which only the last is written.
    acks: bool,
    /// False where acknowledgements are written one by one.
    filters: bool,
    piece: Piece,
    frame: Frame,
    transport: Transport,
    first: Range<usize>,
    /// Payload bytes of all segments but the last.
    size: usize,
    /// Payload bytes so far.
    total: usize,
    /// FIN and PSH of the last segment.
    final_flags: u8,
    /// Where the payloads of the second and later segments lie.
    payloads: Vec<Range<usize>>,
    /// Acknowledgements that were not written, because the next was there already.
    pub superseded: u64,
}

impl Default for Rejoin {
    fn default() -> Rejoin {
        Rejoin::new(true)
    }
}

impl Rejoin {
    /// Nothing joined yet; `filters` to write only the last of consecutive acknowledgements ([`super::ack_filter`]).
    pub fn new(filters: bool) -> Rejoin {
        Rejoin {
            active: false,
            closed: false,
            acks: false,
            filters,
            piece: Piece { key: 0, counter: 0, form: Form::Whole, partial: false },
            frame: Frame {
                vlan: 0,
                net: Net::Other,
                protocol: 0,
                transport: None,
                l3: 0,
                l4: 0,
                payload: 0,
                dont_fragment: false,
                fragment: false,
                ip_end: 0,
            },
            transport: Transport::Tcp,
            first: 0..0,
            size: 0,
            total: 0,
            final_flags: 0,
            payloads: Vec::with_capacity(MAX_SEGMENTS),
            superseded: 0,
        }
    }

    /// Adds the frame at `range` to the run, where it continues it. `true` means that it is taken care of.
    pub fn append(&mut self, buffer: &[u8], range: Range<usize>, piece: Piece) -> bool {
        if self.active && self.acks {
            return self.supersede(buffer, range, piece);
        }
        if !self.active || self.closed || !self.follows(piece) {
            return false;
        }
        let headers = usize::from(self.frame.payload);
        let (Some(first), Some(next)) = (buffer.get(self.first.clone()), buffer.get(range.clone())) else { return false };
        let Some(payload) = next.len().checked_sub(headers).filter(|payload| *payload > 0 && *payload <= self.size) else { return false };
        let packet = headers - usize::from(self.frame.l3) + self.total + payload;
        let most = if self.transport == Transport::Udp { MAX_DATAGRAMS } else { MAX_SEGMENTS };
        if packet > MAX_PACKET || self.payloads.len() + 1 >= most {
            return false;
        }
        let Some(final_flags) = self.continues(first, next) else { return false };
        self.payloads.push(range.start + headers..range.end);
        self.total += payload;
        self.final_flags = final_flags;
        self.piece = piece;
        self.closed = payload < self.size || final_flags != 0 || matches!(piece.form, Form::Segment { last: true, .. });
        true
    }

    /// Puts the acknowledgement at `range` in the place of the one before, where that says no more.
    fn supersede(&mut self, buffer: &[u8], range: Range<usize>, piece: Piece) -> bool {
        let (Some(old), Some(new)) = (buffer.get(self.first.clone()), buffer.get(range.clone())) else { return false };
        let Some(frame) = Frame::parse(new) else { return false };
        let alike = piece.form == Form::Whole && piece.key == self.piece.key;
        let supersedes = alike && is_pure_ack(new, &frame) && supersedes(old, new, &frame);
        if supersedes {
            (self.piece, self.frame, self.first) = (piece, frame, range);
            self.superseded += 1;
        }
        supersedes
    }

    /// Starts a run with the parsed frame at `range`, or writes it where no run can start with it. The run before must have
    /// been flushed. False where the frame contradicts its own header and was dropped.
    pub fn start(&mut self, buffer: &mut [u8], range: Range<usize>, piece: Piece, frame: &Frame, tap: &mut dyn TapSink) -> bool {
        let Some(bytes) = buffer.get_mut(range.clone()) else { return false };
        self.acks = self.filters && piece.form == Form::Whole && is_pure_ack(bytes, frame);
        if self.acks {
            (self.active, self.piece, self.frame, self.first) = (true, piece, *frame, range);
            self.payloads.clear();
            return true;
        }
        if let Some(transport) = joinable(bytes, frame, piece, tap) {
            self.active = true;
            self.closed = false;
            self.piece = piece;
            self.frame = *frame;
            self.transport = transport;
            self.size = bytes.len() - usize::from(frame.payload);
            self.total = self.size;
            self.final_flags = 0;
            self.first = range;
            self.payloads.clear();
            return true;
        }
        write_single(bytes, frame, piece.partial, tap)
    }

    /// Writes the run, if there is one.
    pub fn flush(&mut self, buffer: &mut [u8], tap: &mut dyn TapSink) {
        if !self.active {
            return;
        }
        self.active = false;
        if self.payloads.is_empty() {
            if let Some(bytes) = buffer.get_mut(self.first.clone()) {
                write_single(bytes, &self.frame, self.piece.partial, tap);
            }
            return;
        }
        if let Some(bytes) = buffer.get_mut(self.first.clone()) {
            self.write_super_header(bytes);
        }
        let mut parts = [IoSlice::new(&[]); MAX_SEGMENTS];
        let ranges = std::iter::once(&self.first).chain(&self.payloads);
        for (part, range) in parts.iter_mut().zip(ranges) {
            *part = IoSlice::new(buffer.get(range.clone()).unwrap_or(&[]));
        }
        tap.write(&self.vnet(), &parts[..self.payloads.len() + 1]);
    }

    /// True where `piece` is numbered as the next of this run.
    fn follows(&self, piece: Piece) -> bool {
        let in_order = match (self.piece.form, piece.form) {
            (Form::Segment { index, ecn, .. }, Form::Segment { index: next, ecn: next_ecn, .. }) => {
                piece.counter == self.piece.counter.wrapping_add(1) && Some(next) == index.checked_add(1) && ecn == next_ecn
            }
            (Form::Whole, Form::Whole) => true,
            _ => false,
        };
        in_order && piece.partial && piece.key == self.piece.key
    }

    /// FIN and PSH of `next`, where its headers are those of the segment that follows what is joined so far.
    fn continues(&self, first: &[u8], next: &[u8]) -> Option<u8> {
        let (l3, l4, end) = (usize::from(self.frame.l3), usize::from(self.frame.l4), usize::from(self.frame.payload));
        let same = |range: Range<usize>| first.get(range.clone()) == next.get(range);
        let network = match self.frame.net {
            Net::V4 => {
                let step = (self.payloads.len() + 1) as u16;
                let id = be16(first, l3 + 4)?.wrapping_add(step);
                usize::from(be16(next, l3 + 2)?) == next.len() - l3
                    && (self.frame.dont_fragment || be16(next, l3 + 4)? == id)
                    && same(0..l3 + 2)
                    && same(l3 + 6..l3 + 10)
                    && same(l3 + 12..l4)
            }
            Net::V6 => usize::from(be16(next, l3 + 4)?) == next.len() - l3 - 40 && same(0..l3 + 4) && same(l3 + 6..l4),
            Net::Other => false,
        };
        if !network {
            return None;
        }
        match self.transport {
            Transport::Udp => (same(l4..l4 + 4) && usize::from(be16(next, l4 + 4)?) == next.len() - l4).then_some(0),
            Transport::Tcp => {
                let sequence = be32(first, l4 + 4)?.wrapping_add(self.total as u32);
                let (was, is) = (*first.get(l4 + 13)?, *next.get(l4 + 13)?);
                let flags = is & !(FIN | PSH) == was & !CWR;
                let rest = same(l4..l4 + 4) && same(l4 + 8..l4 + 13) && same(l4 + 14..l4 + 16) && same(l4 + 18..end);
                (be32(next, l4 + 4)? == sequence && flags && rest).then_some(is & (FIN | PSH))
            }
        }
    }

    /// Turns the header of the first segment into that of the super frame.
    fn write_super_header(&self, bytes: &mut [u8]) {
        let (l3, l4, end) = (usize::from(self.frame.l3), usize::from(self.frame.l4), usize::from(self.frame.payload));
        let length = end + self.total;
        let mut put = |at: usize, value: usize| {
            if let Some(field) = bytes.get_mut(at..at + 2) {
                field.copy_from_slice(&(value as u16).to_be_bytes());
            }
        };
        match self.frame.net {
            Net::V4 => put(l3 + 2, length - l3),
            Net::V6 => put(l3 + 4, length - l3 - 40),
            Net::Other => {}
        }
        if self.transport == Transport::Udp {
            put(l4 + 4, length - l4);
        }
        let partial = pseudo(bytes, &self.frame, length - l4);
        let checksum = l4 + usize::from(self.transport.checksum_offset());
        if let Some(field) = bytes.get_mut(checksum..checksum + 2) {
            field.copy_from_slice(&partial.to_be_bytes());
        }
        if self.transport == Transport::Tcp
            && let Some(flags) = bytes.get_mut(l4 + 13)
        {
            *flags |= self.final_flags;
        }
        if self.frame.net == Net::V4
            && let Some(header) = bytes.get_mut(l3..l4)
        {
            write_ipv4_header(header);
        }
    }

    fn vnet(&self) -> VnetHeader {
        VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: gso_type(self.transport, self.frame.net, self.piece.form),
            hdr_len: self.frame.payload,
            gso_size: self.size as u16,
            csum_start: self.frame.l4,
            csum_offset: self.transport.checksum_offset(),
        }
    }
}

/// The `gso_type` of a run of such frames.
fn gso_type(transport: Transport, net: Net, form: Form) -> u8 {
    let ecn = if matches!(form, Form::Segment { ecn: true, .. }) { GSO_ECN } else { 0 };
    match (transport, net) {
        (Transport::Udp, _) => GSO_UDP_L4,
        (Transport::Tcp, Net::V6) => GSO_TCPV6 | ecn,
        (Transport::Tcp, Net::V4 | Net::Other) => GSO_TCPV4 | ecn,
    }
}

/// The transport of a frame that a run may start with.
fn joinable(bytes: &[u8], frame: &Frame, piece: Piece, tap: &dyn TapSink) -> Option<Transport> {
    let transport = frame.transport.filter(|_| piece.partial && tap.csum())?;
    let payload = bytes.len() - usize::from(frame.payload);
    // Behind extension headers the pseudo-header sum may be over other addresses than the header's, and is not ours to write anew.
    if payload == 0 || frame.ip_end as usize != bytes.len() || frame.has_extensions() {
        return None;
    }
    let l4 = usize::from(frame.l4);
    let joinable = match (transport, piece.form) {
        (Transport::Tcp, Form::Segment { last: false, .. }) => {
            bytes.get(l4 + 13).is_some_and(|flags| flags & !JOINABLE_FLAGS == 0 && flags & (FIN | PSH) == 0)
        }
        (Transport::Udp, Form::Segment { last: false, .. } | Form::Whole) => be16(bytes, l4 + 4).map(usize::from) == Some(bytes.len() - l4),
        _ => false,
    };
    (joinable && tap.gso(gso_type(transport, frame.net, piece.form))).then_some(transport)
}

/// Writes one frame by itself; false where its checksum is said to be partial and it has none.
pub fn write_single(bytes: &mut [u8], frame: &Frame, partial: bool, tap: &mut dyn TapSink) -> bool {
    let mut vnet = VnetHeader { gso_type: GSO_NONE, ..VnetHeader::default() };
    if partial {
        let Some((start, offset)) = frame.checksum_place() else { return false };
        if tap.csum() {
            vnet.flags = NEEDS_CSUM;
            (vnet.csum_start, vnet.csum_offset) = (start, offset);
        } else if !complete(bytes, usize::from(start), usize::from(offset)) {
            return false;
        }
    }
    tap.write(&vnet, &[IoSlice::new(bytes)]);
    true
}
