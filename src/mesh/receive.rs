//! Control datagrams coming in.
//!
//! | kind | for us | for another |
//! | --- | --- | --- |
//! | handshake, reject, retry DIRECT | [`handshakes`](super::handshakes), [`answers`](super::answers) | dropped |
//! | handshake RELAYED | the same, if from a live link | relayed |
//! | control DIRECT | opened; proves life, moves nothing | dropped |
//! | control RELAYED | opened; proves neither life nor path | relayed |
//! | data kinds | dropped: they belong to the packet threads | dropped |

use std::sync::Arc;

use super::config::Outbox;
use super::core::Mesh;
use super::handshakes::Way;
use crate::crypto::{OpenError, Session};
use crate::time::Time;
use crate::wire::control::{CloseReason, Record, Records};
use crate::wire::handshake::{Handshake, Reject, Type, parse_retry};
use crate::wire::header::BadHeader;
use crate::wire::{Address, HEADER_LEN, Header, Kind, PeerName};

impl Mesh {
    /// Takes one datagram apart.
    pub(super) fn receive(&mut self, now: Time, from: Address, bytes: &mut [u8], out: &mut Outbox) {
        let header = match Header::parse(bytes) {
            Ok(header) => header,
            Err(BadHeader::Version) => return self.counters.other_version.inc(),
            Err(BadHeader::Short) => return self.counters.truncated.inc(),
            Err(BadHeader::Kind) => return self.counters.garbage.inc(),
        };
        let ours = header.destination == self.own || (header.destination == PeerName::NONE && header.kind == Kind::HandshakeDirect);
        match header.kind {
            Kind::HandshakeRelayed | Kind::ControlRelayed if !ours => self.relay(now, from, &header, bytes, out),
            Kind::HandshakeDirect | Kind::ControlDirect | Kind::Reject | Kind::Retry if !ours => self.counters.not_ours.inc(),
            Kind::HandshakeDirect => self.handshake(now, from, &header, bytes, out),
            Kind::HandshakeRelayed => match self.link_at(from) {
                Some(_) => self.handshake(now, from, &header, bytes, out),
                None => self.counters.relay_dropped.inc(),
            },
            Kind::ControlDirect | Kind::ControlRelayed => self.control(now, from, &header, bytes, out),
            Kind::Reject => match Reject::parse(body(bytes)) {
                Some(reject) => self.on_reject(now, Way::Direct(from), header.index, reject, out),
                None => self.counters.truncated.inc(),
            },
            Kind::Retry => match parse_retry(body(bytes)) {
                Some(token) => self.on_retry(Way::Direct(from), header.index, token, out),
                None => self.counters.truncated.inc(),
            },
            Kind::DataDirect | Kind::DataRelayed | Kind::Flood | Kind::PlainDirect | Kind::PlainRelayed | Kind::PlainFlood => {
                self.counters.misplaced.inc();
            }
        }
    }

    /// A handshake datagram for us.
    fn handshake(&mut self, now: Time, from: Address, header: &Header, bytes: &[u8], out: &mut Outbox) {
        let Some(shake) = Handshake::parse(body(bytes)) else { return self.counters.handshakes_malformed.inc() };
        if shake.source == self.own {
            self.counters.reflected.inc();
            return self.on_own_name(now, from, &shake, out);
        }
        let way = if header.kind == Kind::HandshakeRelayed { Way::Relayed(shake.source) } else { Way::Direct(from) };
        if shake.fragments != 1 {
            return self.on_fragment(now, way, header, &shake, bytes.len(), out);
        }
        match shake.kind {
            Type::XxOne | Type::IkOne => self.on_first(now, way, &shake, vec![shake.message.to_vec()], bytes.len(), out),
            Type::XxTwo | Type::IkTwo => self.on_answer(now, way, header.index, &shake, out),
            Type::XxThree => self.on_third(now, way, header.index, &shake, out),
            Type::Reject => match Reject::parse(shake.message) {
                Some(reject) => self.on_reject(now, way, header.index, reject, out),
                None => self.counters.truncated.inc(),
            },
            Type::Retry => match parse_retry(shake.message) {
                Some(token) => self.on_retry(way, header.index, token, out),
                None => self.counters.truncated.inc(),
            },
        }
    }

    /// A sealed control datagram for us.
    fn control(&mut self, now: Time, from: Address, header: &Header, bytes: &mut [u8], out: &mut Outbox) {
        let Some((peer, session)) = self.session_of(header.index) else {
            self.counters.unknown_session.inc();
            return self.unknown_session(now, from, out);
        };
        if header.lane != 0 {
            return self.counters.misplaced.inc();
        }
        let (length, before) = (bytes.len(), out.datagrams.len());
        let text = match session.open(header, bytes) {
            Ok(text) => text,
            Err(OpenError::Short) => return self.counters.truncated.inc(),
            Err(OpenError::Replay) => return self.counters.replayed.inc(),
            Err(OpenError::Forged | OpenError::Lane) => return self.counters.forged.inc(),
            Err(OpenError::Expired) => return self.counters.expired.inc(),
        };
        let direct = header.kind == Kind::ControlDirect;
        self.confirmed(now, peer, &session, direct.then_some(from), out);
        if direct {
            out.genuine.push(from);
            self.heard_direct(now, peer, from, out);
        }
        let proven = self.is_at(peer, from);
        let mut records = Records::new(text);
        let (mut answers, mut asked) = (Vec::new(), None);
        for record in records.by_ref() {
            if let (false, Record::Challenge(nonce)) = (direct, &record) {
                asked.get_or_insert(*nonce);
            } else if direct || matches!(record, Record::App { .. } | Record::Candidates(_)) {
                self.direct_record(now, peer, from, &record, &mut answers, out);
            }
        }
        if records.is_bad() {
            self.counters.truncated.inc();
        }
        if !answers.is_empty() {
            self.send_direct(peer, from, &answers, out);
        }
        if let Some(nonce) = asked {
            // Through relays that asks whether we have this session, and is answered on that very one, once for each datagram.
            self.send_any(peer, &session, &[Record::Response(nonce)], out);
        }
        if !proven && !self.is_at(peer, from) {
            be_modest(out, before, from, length);
        }
    }

    /// True where `peer` has proven to be at this address.
    fn is_at(&self, peer: PeerName, address: Address) -> bool {
        self.adjacencies.get(&peer).is_some_and(|adjacency| adjacency.address == address)
    }

    /// The session that we call `index`: established, or ours and still to be confirmed.
    fn session_of(&self, index: u32) -> Option<(PeerName, Arc<Session>)> {
        if let Some(peer) = self.indices.get(&index) {
            let session = self.keyrings.get(peer)?.by_index(index)?;
            return Some((*peer, Arc::clone(session)));
        }
        let session = self.attempts.get(&index)?.pending.as_ref().map(|pending| &pending.session)?;
        Some((session.peer(), Arc::clone(session)))
    }

    /// One record of a DIRECT datagram, or an APP or CANDIDATES of any. Of other RELAYED ones it is enough that they were opened. What only asks
    /// for an echo is answered in one datagram for all, no longer than what came.
    fn direct_record(
        &mut self,
        now: Time,
        peer: PeerName,
        from: Address,
        record: &Record<'_>,
        answers: &mut Vec<Record<'static>>,
        out: &mut Outbox,
    ) {
        match record {
            Record::Ping(ping) => self.on_ping(now, peer, from, ping, out),
            Record::Pong(pong) => self.on_pong(now, peer, pong, out),
            Record::Link(link) => self.on_link(now, peer, from, *link, out),
            Record::Close(reason, addresses) => self.on_close(now, peer, from, *reason, addresses, out),
            Record::Observed(address) => self.on_observed(now, peer, from, *address),
            Record::Probe { nonce, size } if self.is_at(peer, from) => answers.push(Record::Probed { nonce: *nonce, size: *size }),
            Record::Probe { .. } => self.counters.records_ignored.inc(),
            Record::Probed { nonce, size } => self.on_probed(now, peer, *nonce, *size),
            Record::Challenge(nonce) => answers.push(Record::Response(*nonce)),
            Record::Response(nonce) => self.on_response(now, peer, from, *nonce, out),
            Record::Gossip(message) => self.on_gossip(now, peer, message, out),
            Record::Fastdp(word) => self.on_fastdp(now, peer, from, *word),
            Record::App { channel, body } => self.on_app(now, peer, *channel, body, out),
            Record::Candidates(addresses) => self.on_candidates(now, peer, addresses, out),
            Record::Trace(trace) => self.on_trace(now, peer, from, *trace, out),
            Record::Traced(traced) => self.on_traced(now, peer, *traced, out),
        }
    }

    /// A neighbour holds an adjacency that we do not: it should know.
    pub(super) fn no_link(&mut self, peer: PeerName, from: Address, out: &mut Outbox) {
        self.send_direct(peer, from, &[Record::Close(CloseReason::NoLink, Vec::new())], out);
    }
}

/// Of the datagrams for an address that has proven nothing, written since `before`, leaves one that is no longer than what
/// came: the last, since a peer that asks whether we are there waits for it, and all others are repeated.
fn be_modest(out: &mut Outbox, before: usize, from: Address, length: usize) {
    let fresh = out.datagrams.iter().enumerate().skip(before);
    let kept = fresh.filter(|(_, (to, bytes))| *to == from && bytes.len() <= length).map(|(at, _)| at).next_back();
    let mut at = 0;
    out.datagrams.retain(|(to, _)| {
        let keep = at < before || *to != from || Some(at) == kept;
        at += 1;
        keep
    });
}

/// What follows the clear header.
fn body(bytes: &[u8]) -> &[u8] {
    bytes.get(HEADER_LEN..).unwrap_or(&[])
}
