//! A sealed session with one peer: the product of one handshake, shared by every thread that sends or receives.
//!
//! A session has lanes, each with its own keys, counter and replay window, made once. The steady state takes no lock and
//! no memory: counters and windows are atomics, datagrams are sealed and opened where they lie.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::utils::CachePadded;

use super::aead::{AeadKey, Provider, Providers};
use super::handshake::Exchange;
use super::schedule::{Direction, Root};
use super::suite::Suite;
use super::window::Window;
use crate::time::Time;
use crate::wire::header::MAX_LANE;
use crate::wire::{HEADER_LEN, Header, Kind, PeerName, TAG_LEN};

/// A key stops before this counter, 2^32 − 2^13 (the last 8192 are the window's, as in WireGuard).
pub const COUNTER_LIMIT: u32 = u32::MAX - 8191;
/// A key is neither sealed nor opened with after this long: 180 s after its replacement was due.
pub const KEY_LIFE: Duration = Duration::from_secs(300);
/// A session whose busiest lane has sent this many datagrams should be replaced.
pub const REKEY_COUNTER: u64 = 1 << 31;

/// Why a datagram was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// Too short for header and tag.
    Short,
    /// No such lane.
    Lane,
    /// Seen before, or too old for the window.
    Replay,
    /// The tag does not match, or an unsealed datagram came where everything is sealed.
    Forged,
    /// The key is past its end.
    Expired,
}

/// What two ends agreed on, seen from one of them.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The router at the other end.
    pub peer: PeerName,
    /// True for the end that sent the first handshake message.
    pub initiator: bool,
    /// The index that the peer puts into datagrams for us.
    pub local_index: u32,
    /// The index that we put into datagrams for the peer.
    pub remote_index: u32,
    /// The AEAD.
    pub suite: Suite,
    /// The library that computes it here; the peer may use another.
    pub provider: Provider,
    /// Highest lane, 0 to 15: the lesser of both ends' counts.
    pub lanes: u8,
    /// True where data may travel unsealed.
    pub plain: bool,
    /// What the keys rest on.
    pub exchange: Exchange,
    /// The network's name.
    pub network: &'a str,
}

/// A sealed session with one peer.
pub struct Session {
    peer: PeerName,
    local_index: u32,
    remote_index: u32,
    suite: Suite,
    plain: bool,
    exchange: Exchange,
    initiator: bool,
    established: Time,
    confirmed: AtomicBool,
    retired: AtomicBool,
    /// We take unsealed frames on the proven direct path.
    takes_clear: AtomicBool,
    /// We send them: the peer takes them as well.
    sends_clear: AtomicBool,
    lanes: Box<[Lane]>,
}

/// One lane. Sending and receiving threads touch different cache lines.
struct Lane {
    seal: AeadKey,
    open: AeadKey,
    next: CachePadded<AtomicU64>,
    window: CachePadded<Window>,
}

impl Session {
    /// Derives a session from its root secret. `None` where this build lacks the suite.
    pub fn from_root(root: &Root, terms: &Terms<'_>) -> Option<Session> {
        let (out, back) = if terms.initiator {
            (Direction::FromInitiator, Direction::FromResponder)
        } else {
            (Direction::FromResponder, Direction::FromInitiator)
        };
        let key = |lane, direction| AeadKey::new(terms.suite, terms.provider, &root.lane_key(terms.suite, lane, direction, terms.network));
        let lanes = (0..=terms.lanes.min(MAX_LANE))
            .map(|lane| {
                Some(Lane { seal: key(lane, out)?, open: key(lane, back)?, next: CachePadded::default(), window: CachePadded::default() })
            })
            .collect::<Option<_>>()?;
        Some(Session {
            peer: terms.peer,
            local_index: terms.local_index,
            remote_index: terms.remote_index,
            suite: terms.suite,
            plain: terms.plain,
            exchange: terms.exchange,
            initiator: terms.initiator,
            established: Time::ZERO,
            confirmed: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            takes_clear: AtomicBool::new(false),
            sends_clear: AtomicBool::new(false),
            lanes,
        })
    }

    /// Both ends of a session between `a` and `b`, confirmed, from a root secret that is a constant: for tests, benches
    /// and fuzzing. The first is `a`'s end, with local index 1 and remote index 2. Panics where this build lacks the suite.
    pub fn pair_for_tests(a: PeerName, b: PeerName, suite: Suite, lanes: u8, plain: bool) -> (Arc<Session>, Arc<Session>) {
        let root = Root::from_bytes([0x42; 32]);
        let provider = Providers::default().get(suite);
        let end = |peer, initiator, local_index, remote_index| {
            let exchange = Exchange::Hybrid;
            let terms = Terms { peer, initiator, local_index, remote_index, suite, provider, lanes, plain, exchange, network: "weave" };
            let session = Session::from_root(&root, &terms).expect("the build has the suite");
            session.mark_confirmed();
            Arc::new(session)
        };
        (end(b, true, 1, 2), end(a, false, 2, 1))
    }

    /// The peer at the other end.
    pub fn peer(&self) -> PeerName {
        self.peer
    }

    /// The index by which the peer addresses this session to us.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The index by which we address this session to the peer.
    pub fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// True where data kinds of this session are unsealed (`--no-encryption` on both ends). Control is sealed even so.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// Says whether unicast frames may go unsealed over the proven direct path to the peer: whether this end takes them there, and
    /// whether it sends them, as the other end takes them too.
    pub fn set_clear(&self, takes: bool, sends: bool) {
        self.takes_clear.store(takes, Ordering::Relaxed);
        self.sends_clear.store(takes && sends, Ordering::Relaxed);
    }

    /// True where unicast frames go unsealed over a direct path.
    pub fn sends_clear(&self) -> bool {
        self.plain || self.sends_clear.load(Ordering::Relaxed)
    }

    /// What the keys rest on.
    pub fn exchange(&self) -> Exchange {
        self.exchange
    }

    /// The AEAD of everything that is sealed.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// What status prints as the cipher of the traffic: the suite, or `none` where frames go unsealed.
    pub fn cipher_label(&self) -> &'static str {
        if self.sends_clear() { "none" } else { self.suite.label() }
    }

    /// The highest lane, 0 to 15.
    pub fn lanes(&self) -> u8 {
        u8::try_from(self.lanes.len()).map_or(MAX_LANE, |lanes| lanes.saturating_sub(1))
    }

    /// The lane on which packet thread `thread` (1 and up) sends. An end with more threads than there are lanes shares them out evenly;
    /// counters are atomics, so that sharing costs no more than that.
    pub fn lane_of(&self, thread: u8) -> u8 {
        match self.lanes() {
            0 => 0,
            lanes => (thread.max(1) - 1) % lanes + 1,
        }
    }

    /// True for the end that sent the first handshake message.
    pub fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// When the handshake ended, as told by [`Session::set_established`].
    pub fn established(&self) -> Time {
        self.established
    }

    /// Notes when the handshake ended; the crypto module is never told the time.
    pub fn set_established(&mut self, now: Time) {
        self.established = now;
    }

    /// Notes that the peer has proved to hold this session's keys; [`Session::open`] does so by itself.
    pub fn mark_confirmed(&self) {
        self.confirmed.store(true, Ordering::Relaxed);
    }

    /// True once the peer has proved to hold this session's keys: a datagram was opened, or (for the initiator of an IK
    /// handshake) the answer itself was the proof.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// True if this end may seal data with the session. The responder waits until it is confirmed: before that, the
    /// initiator may not have the keys yet.
    pub fn may_seal(&self) -> bool {
        self.initiator || self.is_confirmed()
    }

    /// Ends the session at once, on every thread that still refers to it: nothing more is reserved or opened.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// True after [`Session::retire`].
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// True once the keys are past [`KEY_LIFE`]. Packet threads ask by themselves, so that keys end also where the mesh plane hangs.
    pub fn is_over(&self, now: Time) -> bool {
        now.since(self.established) >= KEY_LIFE
    }

    /// Datagrams sent on the busiest lane, for the decision to rekey (see [`REKEY_COUNTER`]).
    pub fn sent(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.next.load(Ordering::Relaxed)).max().unwrap_or(0)
    }

    /// Datagrams sent on `lane`; 0 for a lane the session does not have.
    pub fn sent_on(&self, lane: u8) -> u64 {
        self.lane(lane).map_or(0, |lane| lane.next.load(Ordering::Relaxed))
    }

    /// True once anything was received: the peer uses the session. (The initiator of an IK handshake is told of keys that the peer may
    /// have dropped since.)
    pub fn has_received(&self) -> bool {
        self.lanes.iter().any(|lane| lane.window.top() > 0 || !lane.window.check(0))
    }

    /// As if the datagram with this counter had been received.
    #[cfg(test)]
    pub(crate) fn note_received(&self, counter: u32) {
        assert!(self.lanes.iter().all(|lane| lane.window.mark(counter)), "each once");
    }

    /// A number that grows with what is received, of all lanes.
    pub fn received(&self) -> u64 {
        self.lanes.iter().map(|lane| u64::from(lane.window.top())).sum()
    }

    /// Takes `n` consecutive counters of `lane` and returns the first; `None` once the key is used up or retired, or for
    /// a lane the session does not have.
    pub fn reserve(&self, lane: u8, n: u32) -> Option<u32> {
        let lane = self.lane(lane)?;
        if self.is_retired() {
            return None;
        }
        // Past the limit the sum keeps growing, so the lane stays closed; 2^64 is out of reach.
        let first = lane.next.fetch_add(u64::from(n), Ordering::Relaxed);
        let end = first.checked_add(u64::from(n))?;
        if end <= u64::from(COUNTER_LIMIT) { u32::try_from(first).ok() } else { None }
    }

    /// Seals in place: `datagram` is header (16 bytes, filled), plaintext, room for the tag (16 bytes). `lane` and `counter`
    /// are those of a [`Session::reserve`] and stand in the header.
    pub fn seal(&self, lane: u8, counter: u32, datagram: &mut [u8]) {
        let lane = self.lane(lane).expect("a reserved counter belongs to a lane");
        let (header, body) = datagram.split_first_chunk_mut::<HEADER_LEN>().expect("a datagram starts with a header");
        debug_assert_eq!(header[12..], counter.to_be_bytes());
        lane.seal.seal_in_place(counter, &Header::associated_data(header), body);
    }

    /// Opens in place: window check, AEAD, window mark. Returns the plaintext inside `datagram`, whose first 16 bytes are
    /// those that `header` was parsed from.
    pub fn open<'a>(&self, header: &Header, datagram: &'a mut [u8]) -> Result<&'a mut [u8], OpenError> {
        let (lane, raw, body) = self.admit(header, datagram)?;
        if body.len() < TAG_LEN {
            return Err(OpenError::Short);
        }
        let text = lane.open.open_in_place(header.counter, &Header::associated_data(raw), body).map_err(|_| OpenError::Forged)?;
        // Another thread may have opened a copy meanwhile: only the first to mark it keeps it.
        if !lane.window.mark(header.counter) {
            return Err(OpenError::Replay);
        }
        if !self.is_confirmed() {
            self.mark_confirmed();
        }
        Ok(text)
    }

    /// Window check and mark for an unsealed datagram, where such are taken; returns the body after the header. It proves
    /// nothing, so it does not confirm the session, and it never touches the window of the mesh plane's lane.
    pub fn open_plain<'a>(&self, header: &Header, datagram: &'a mut [u8]) -> Result<&'a mut [u8], OpenError> {
        let clear = header.kind == Kind::PlainDirect && self.takes_clear.load(Ordering::Relaxed);
        if !self.plain && !clear {
            return Err(OpenError::Forged);
        }
        if header.lane == 0 && self.lanes() > 0 {
            return Err(OpenError::Lane);
        }
        let (lane, _, body) = self.admit(header, datagram)?;
        if !lane.window.mark(header.counter) {
            return Err(OpenError::Replay);
        }
        Ok(body)
    }

    /// The cheap checks, before any cryptography.
    fn admit<'s, 'a>(
        &'s self,
        header: &Header,
        datagram: &'a mut [u8],
    ) -> Result<(&'s Lane, &'a [u8; HEADER_LEN], &'a mut [u8]), OpenError> {
        let lane = self.lane(header.lane).ok_or(OpenError::Lane)?;
        let (raw, body) = datagram.split_first_chunk_mut::<HEADER_LEN>().ok_or(OpenError::Short)?;
        if self.is_retired() || header.counter >= COUNTER_LIMIT {
            return Err(OpenError::Expired);
        }
        if !lane.window.check(header.counter) {
            return Err(OpenError::Replay);
        }
        Ok((lane, raw, body))
    }

    fn lane(&self, lane: u8) -> Option<&Lane> {
        self.lanes.get(usize::from(lane))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("local_index", &self.local_index)
            .field("remote_index", &self.remote_index)
            .field("cipher", &self.cipher_label())
            .field("lanes", &self.lanes())
            .field("confirmed", &self.is_confirmed())
            .field("retired", &self.is_retired())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
