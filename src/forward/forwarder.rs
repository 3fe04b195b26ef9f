//! The forwarder of one packet thread: frames and datagrams in, datagrams, frames and punts out.
//!
//! TAP to peers is in `transmit`, peers to TAP in `receive`, floods in `flood`, relaying in `relay`, bridges that are joined outside the mesh in
//! `looped`, address resolution in `proxy`, groups in `multicast`.

mod flood;
mod looped;
mod multicast;
mod proxy;
mod receive;
mod relay;
mod transmit;

use std::ops::Range;
use std::sync::Arc;

use crate::time::Time;
use crate::wire::{Address, PeerName, VnetHeader};

use super::ack_filter::AckFilter;
use super::addresses::Addresses;
use super::counters::PacketCounters;
use super::duplicates::Duplicates;
use super::fib::{Fib, Route};
use super::flood_limit::FloodLimit;
use super::fragment::{MAX_FRAME, Reassembly};
use super::limit::TokenBucket;
use super::mac_table::MacTable;
use super::outbox::Outbox;
use super::pending::Pending;
use super::punt::Punt;
use super::rejoin::Rejoin;
use super::tap::TapSink;
use transmit::PACKET_OVERHEAD;

/// A flood must fit every path it may take; smaller paths than this one are served by fragments of this size.
const MIN_FLOOD_DATAGRAM: u16 = 548;
/// "Too big" answers per second, and at once.
const ANSWERS: (u64, u64) = (1000, 100);
/// Punts about unknown sessions per second, and at once.
const UNKNOWN_SESSIONS: (u64, u64) = (20, 20);
/// Probes for loops that are looked at per second, and at once: a signature is checked for each.
const PROBES: (u64, u64) = (50, 50);
/// Sightings of addresses told per second, and at once: a host that starts so many containers a second is busy with other things.
const SIGHTINGS: (u64, u64) = (200, 1000);
/// MACs that are frozen elsewhere and seen here told per second, and at once.
const CONTESTS: (u64, u64) = (20, 100);
/// Multicast groups that stations tell of per second, and at once: after a question all of a bridge answer within a second.
const MEMBERSHIPS: (u64, u64) = (500, 2000);
/// Punts that there are multicast routers, or too many groups, likewise.
const MULTICAST_NEWS: (u64, u64) = (1, 4);
/// Share of a second that the relay budget allows at once, as a divisor.
const RELAY_BURST: u64 = 20;
/// What it allows at once in any case, in bytes: the largest datagram there is, or none of that size would ever pass.
const LEAST_RELAY_BURST: u64 = 65_535;

/// What tells one forwarder from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Key lane of this packet thread, 1 to 15.
    pub lane: u8,
    /// Bytes per second that each neighbour may have relayed by this thread: its part of a [`RelayLimit`](super::relay_limit::RelayLimit).
    pub relay_budget: u64,
    /// True to answer ARP and neighbour solicitations for containers of other hosts.
    pub arp_proxy: bool,
    /// Frames per second that each station on the bridge may have flooded by this thread; 0 for no bound.
    pub flood_limit: u64,
    /// True to leave out TCP acknowledgements that a later one makes needless.
    pub ack_filter: bool,
}

/// 20 Gbit/s: more than one thread can relay, so that only a neighbour gone mad meets it.
pub const DEFAULT_RELAY_BUDGET: u64 = 2_500_000_000;

/// What all packet threads of a router share.
#[derive(Clone)]
pub struct Shared {
    /// Who has which MAC.
    pub macs: Arc<MacTable>,
    /// Who has which address.
    pub addresses: Arc<Addresses>,
    /// Which floods were seen.
    pub duplicates: Arc<Duplicates>,
    /// What was dropped.
    pub counters: Arc<PacketCounters>,
}

/// One received message: datagrams of one sender, end to end in a receive buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The sender's address.
    pub from: Address,
    /// Where the datagrams lie in the buffer.
    pub range: Range<usize>,
    /// Bytes of each datagram but the last, which may be shorter; 0 where there is only one.
    pub segment: usize,
}

/// The forwarder of one packet thread.
pub struct Forwarder {
    fib: Arc<Fib>,
    state: State,
}

/// Everything but the Fib, so that both can be borrowed at once.
struct State {
    settings: Settings,
    shared: Shared,
    pending: Pending,
    reassembly: Reassembly,
    /// What of [`Reassembly::given_up`] has been counted.
    given_up: u64,
    rejoin: Rejoin,
    acks: AckFilter,
    /// When the last frame came that somebody may wait for the answer to.
    small_at: Option<Time>,
    /// One datagram of a run that has to be fragmented.
    scratch: Vec<u8>,
    fragment_id: u16,
    flood_sequence: u32,
    /// Largest flood datagram that fits every path.
    flood_datagram: u16,
    answers: TokenBucket,
    unknown_sessions: TokenBucket,
    probes: TokenBucket,
    sightings: TokenBucket,
    contests: TokenBucket,
    memberships: TokenBucket,
    multicast_news: TokenBucket,
    flood_limit: FloodLimit,
    /// What each link may still have relayed, in order of [`Fib::links`].
    relay_budgets: Vec<(PeerName, TokenBucket)>,
}

/// What one call from outside works with.
struct Call<'f, 'o> {
    fib: &'f Fib,
    now: Time,
    outbox: &'o mut Outbox,
    tap: &'o mut dyn TapSink,
}

impl Forwarder {
    /// A forwarder that knows what `fib` says.
    pub fn new(settings: Settings, shared: Shared, fib: Arc<Fib>) -> Forwarder {
        let mut state = State {
            settings,
            shared,
            pending: Pending::default(),
            reassembly: Reassembly::default(),
            given_up: 0,
            rejoin: Rejoin::new(settings.ack_filter),
            acks: AckFilter::default(),
            small_at: None,
            scratch: vec![0; MAX_FRAME],
            fragment_id: 0,
            flood_sequence: 0,
            flood_datagram: 0,
            answers: TokenBucket::new(ANSWERS.0, ANSWERS.1),
            unknown_sessions: TokenBucket::new(UNKNOWN_SESSIONS.0, UNKNOWN_SESSIONS.1),
            probes: TokenBucket::new(PROBES.0, PROBES.1),
            flood_limit: FloodLimit::new(settings.flood_limit, *fib.peers.hasher()),
            sightings: TokenBucket::new(SIGHTINGS.0, SIGHTINGS.1),
            contests: TokenBucket::new(CONTESTS.0, CONTESTS.1),
            memberships: TokenBucket::new(MEMBERSHIPS.0, MEMBERSHIPS.1),
            multicast_news: TokenBucket::new(MULTICAST_NEWS.0, MULTICAST_NEWS.1),
            relay_budgets: Vec::new(),
        };
        state.adopt(&fib);
        Forwarder { fib, state }
    }

    /// Replaces the Fib and sends the frames that waited for a session it has.
    pub fn set_fib(&mut self, now: Time, fib: Arc<Fib>, outbox: &mut Outbox, tap: &mut dyn TapSink) {
        self.state.adopt(&fib);
        self.fib = fib;
        let ready = |peer: &PeerName| self.fib.peers.get(peer).is_some_and(|known| known.session.is_some());
        let peers: Vec<PeerName> = self.state.pending.peers().filter(ready).collect();
        let mut call = Call { fib: &self.fib, now, outbox, tap };
        for peer in peers {
            while let Some(mut waiting) = self.state.pending.pop(peer) {
                self.state.resend(&mut call, peer, &waiting.vnet, &mut waiting.bytes);
            }
        }
    }

    /// The Fib in use.
    pub fn fib(&self) -> &Arc<Fib> {
        &self.fib
    }

    /// What this forwarder shares with others.
    pub fn shared(&self) -> &Shared {
        &self.state.shared
    }

    /// A frame was read from the TAP. `frame` is scratch afterwards. An answer to its sender goes to `tap`. After the last frame of a burst
    /// call [`Forwarder::end_burst`].
    pub fn from_tap(&mut self, now: Time, vnet: &VnetHeader, frame: &mut [u8], outbox: &mut Outbox, tap: &mut dyn TapSink) {
        self.state.tap_frame(&mut Call { fib: &self.fib, now, outbox, tap }, vnet, frame);
    }

    /// True where a frame is kept back to see what follows it.
    pub fn keeps_back(&self) -> bool {
        self.state.acks.is_keeping()
    }

    /// When a small frame last came, from the TAP or for it, that is no mere acknowledgement of a stream: somebody may wait for what follows.
    pub fn small_at(&self) -> Option<Time> {
        self.state.small_at
    }

    /// No more frames wait in the TAP now, or what was sent so far is to go: what was kept back to see what follows goes too.
    pub fn end_burst(&mut self, now: Time, outbox: &mut Outbox, tap: &mut dyn TapSink) {
        if self.state.acks.is_keeping() {
            self.state.let_ack_go(&mut Call { fib: &self.fib, now, outbox, tap });
        }
    }

    /// `buffer` was received from `from`: datagrams of `segment_size` bytes each but for a shorter last. It is scratch
    /// afterwards.
    pub fn from_udp(
        &mut self,
        now: Time,
        from: Address,
        buffer: &mut [u8],
        segment_size: usize,
        outbox: &mut Outbox,
        tap: &mut dyn TapSink,
    ) {
        let message = Received { from, range: 0..buffer.len(), segment: segment_size };
        self.from_udp_batch(now, buffer, &[message], outbox, tap);
    }

    /// These messages were received into `buffer`, in this order. It is scratch afterwards. What was cut from one super frame is
    /// joined again although it came in several messages.
    pub fn from_udp_batch(&mut self, now: Time, buffer: &mut [u8], messages: &[Received], outbox: &mut Outbox, tap: &mut dyn TapSink) {
        self.state.udp_batch(&mut Call { fib: &self.fib, now, outbox, tap }, buffer, messages);
    }

    /// Drops what has waited too long, and asks again for sessions that are still wanted.
    pub fn tick(&mut self, now: Time, outbox: &mut Outbox) {
        let state = &mut self.state;
        let expired = state.pending.expire(now);
        state.shared.counters.drop_pending_expired.add(expired);
        state.reassembly.expire(now);
        state.count_given_up();
        let waiting: Vec<PeerName> = state.pending.peers().collect();
        for peer in waiting {
            state.want_session(now, peer, outbox);
        }
    }

    /// When [`Forwarder::tick`] should be called.
    pub fn next_timeout(&self) -> Option<Time> {
        [self.state.pending.next_timeout(), self.state.reassembly.next_timeout()].into_iter().flatten().min()
    }
}

impl State {
    /// Derives from a new Fib what is worth deriving once.
    fn adopt(&mut self, fib: &Fib) {
        let reachable = fib.peers.values().filter(|peer| peer.route != Route::Unreachable);
        let smallest = fib.links.iter().map(|link| link.max_datagram).chain(reachable.map(|peer| peer.max_datagram)).min();
        self.flood_datagram = smallest.unwrap_or(MIN_FLOOD_DATAGRAM).max(MIN_FLOOD_DATAGRAM);
        let rate = self.settings.relay_budget;
        let old = std::mem::take(&mut self.relay_budgets);
        let budget = |peer| {
            let known = old.iter().find(|(name, _)| *name == peer).map(|(_, bucket)| *bucket);
            (peer, known.unwrap_or_else(|| TokenBucket::new(rate, (rate / RELAY_BURST).max(LEAST_RELAY_BURST))))
        };
        self.relay_budgets = fib.links.iter().map(|link| budget(link.peer)).collect();
    }

    fn counters(&self) -> &PacketCounters {
        &self.shared.counters
    }

    fn punt(&self, punt: Punt, outbox: &mut Outbox) {
        if !outbox.punt(punt) {
            self.counters().drop_punt.inc();
        }
    }

    fn want_session(&mut self, now: Time, peer: PeerName, outbox: &mut Outbox) {
        if self.pending.should_ask(now, peer) {
            self.punt(Punt::WantSession(peer), outbox);
        }
    }

    fn count_given_up(&mut self) {
        let given_up = self.reassembly.given_up;
        self.counters().drop_fragments.add(given_up - self.given_up);
        self.given_up = given_up;
    }
}

/// Largest inner IP packet of a path on which datagrams of `max_datagram` bytes fit: what bridge and containers use, and
/// what "too big" announces. An inner VLAN tag costs four more.
pub fn inner_mtu(max_datagram: u16) -> u16 {
    max_datagram.saturating_sub(PACKET_OVERHEAD)
}

#[cfg(test)]
mod tests;
