//! A packet thread: moves frames between the TAP and the UDP sockets, and does nothing else.
//!
//! # Several threads (`--threads`)
//!
//! Thread n has queue n of the TAP, a socket of its own for each address bound, and lane n of every session: keys, counter, replay window.
//! One direction of a flow is on one thread at either end. The sender reads it from the queue that its flow names ([`super::tap`]),
//! and seals it on its lane; a run of datagrams holds one lane, through relays too; the receiver's kernel picks the thread by source
//! address and lane ([`super::udp::steering`]). So nothing is reordered, and neither end need know the other's number. Where it is
//! smaller than ours, threads share the lanes that there are. A flow may change its thread once, with its first answer, and after three
//! seconds in which nothing came back; and where a NIC joins datagrams of several lanes into one batch (one address and port, one
//! size, back to back) the whole batch goes to one thread, which `lanes_joined` counts. On virtual links,
//! with whole super frames and with single datagrams joined by GRO, it stayed at zero.
//!
//! What threads share, and how often it is written: the Fib (read through `arc-swap`, no write), the MAC table (read; a MAC that is where
//! it was is written once a second), the table of floods (one compare-and-swap per flood), the counters of a peer
//! ([`Activity`](crate::forward::fib::Activity): three additions per frame sent, a super frame being one, and two per receive batch). Drops are
//! counted by each thread for itself. Frames that wait for a session, reassembly, limits on answers and the relay budget of a
//! neighbour are each thread's own, so their bounds hold per thread; of a `--relay-limit` each has its part.
//!
//! What more cores bring follows from that. A router spends about 0.75 ns of thread time per byte of TCP and end (AES-256-GCM, 1420-byte
//! packets, four streams on two cores), most of it AEAD and the kernel's own work inside TAP and UDP calls, all of which
//! runs on the calling thread's core. One thread with a core to itself is thus good for at most 10 Gbit/s, and the eight of a machine
//! with sixteen cores for at most eight times that, the other eight being left to the kernel's interrupts and to the
//! containers. Three things do not grow. One TCP flow has one sending and one receiving thread. Between two hosts all datagrams have one
//! pair of addresses and ports, so a NIC delivers them to one receive queue, whose core does the kernel's share of receiving for all
//! threads; with many peers these spread. And where all threads send small frames to one peer, that peer's counters are a line that
//! all of them write to. `weave_packet_thread_*` shows which of these is met: shares that differ (flows or peers too few), threads that
//! sleep while a core is at its end in `si` (the receive queue), none that sleeps (more threads would help).

mod parts;

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mio::{Events, Interest, Poll, Token};

use crate::forward::fq_codel::ROOM;
use crate::forward::{Fib, Forwarder, FqCodel, Outbox, TapSink};
use crate::io::busy_poll::BusyPoll;
use crate::io::clock::Clock;
use crate::io::mailbox::{Receiver, Sender};
use crate::io::mesh_thread::MeshInput;
use crate::io::tap::{self, Tap};
use crate::io::thread_load::{Load, ThreadLoad};
use crate::io::udp::{Batch, Run, ThreadSockets};
use crate::time::Time;
use crate::wire::{HEADER_LEN, VnetHeader};

use parts::Port;
pub use parts::{PacketInbox, PacketInput, PacketParts, PacketThreadCounters, ThreadReport};

/// Reads of the TAP before the sockets get their turn.
const TAP_FRAMES: usize = 256;
/// Bytes, of either direction, before the other gets its turn: a few super frames, so that an answer in one direction never waits
/// behind much more of the other.
const TURN_BYTES: usize = 256 * 1024;
/// Receive calls per socket before the TAP gets its turn.
const UDP_CALLS: usize = 16;
/// Bytes that wait in the outbox before they are sent although the TAP has more: two super frames, so that what a run cannot take of the
/// first goes out in one call with the second, and a small frame never waits behind more than that.
const FLUSH_BYTES: usize = 128 * 1024;
/// The TAP has a backlog when it has not been empty for so long. Less is but a burst, and served fastest as it comes: to queue costs
/// a twentieth of the throughput (the frames are out of the nearest cache when their turn comes).
const STANDING: Duration = Duration::from_millis(1);
/// Bytes moved from the TAP to the queues, while there is a backlog, before what waits there gets its turn: more than a turn sends,
/// so that the backlog comes to stand in the queues and not in the TAP.
const FILL_BYTES: usize = 1024 * 1024;
/// Frames that may wait in the queues before the TAP is left full. So many are a flood of single packets, and to read each only to drop it
/// would cost a quarter of those delivered: the kernel drops them for less, though then everybody's, in the order of the TAP.
const FILL_FRAMES: usize = 1024;
/// A backlog's memory is given back when there has been none for so long.
const QUIET: Duration = Duration::from_secs(1);
/// Reads of the TAP that fail in a row before it is left alone until it announces something.
const MOST_READ_FAILURES: u32 = 16;
/// The same of a socket, within one turn.
const MOST_RECEIVE_FAILURES: usize = 8;
/// The mailbox's waker and the TAP; sockets count from zero.
const WAKE: Token = Token(usize::MAX);
const TAP: Token = Token(usize::MAX - 1);

/// The thread's state.
pub struct PacketThread {
    poll: Poll,
    inbox: Receiver<PacketInput>,
    port: Port,
    sockets: ThreadSockets,
    forwarder: Forwarder,
    out: Outbox,
    fib: Arc<ArcSwap<Fib>>,
    generation: u64,
    mesh: Sender<MeshInput>,
    load: Arc<ThreadLoad>,
    busy_poll: BusyPoll,
    /// Bytes read and received since the thread last had nothing to do.
    moved: usize,
    clock: Clock,
    tap_ready: bool,
    /// True while the TAP yields one frame at a time: then the first is sent before a second is looked for.
    sparse: bool,
    /// Frames that wait for their turn; empty while the TAP is emptied every time.
    queue: FqCodel,
    /// Since when the TAP has not been found empty.
    full_since: Option<Time>,
    /// True from when that was [`STANDING`] ago until the TAP and the queues are empty.
    backlog: bool,
    /// When there last was one.
    backlog_at: Time,
    /// Failed reads of the TAP in a row.
    read_failures: u32,
    ready: Vec<bool>,
    buffer: Box<[u8]>,
}

const _: () = assert!(ROOM >= tap::MIN_BUFFER, "a queue's slot must take any frame");

impl PacketThread {
    /// Joins the parts.
    pub fn new(parts: PacketParts, inbox: PacketInbox) -> std::io::Result<PacketThread> {
        let PacketParts { tap, mut sockets, forwarder, fib, mesh, counters, load, busy_poll, queue_seed, clock } = parts;
        let PacketInbox { poll, receiver, .. } = inbox;
        for (n, socket) in sockets.sockets().iter_mut().enumerate() {
            poll.registry().register(socket, Token(n), Interest::READABLE)?;
        }
        let ready = vec![true; sockets.sockets().len()];
        let queue = FqCodel::new(queue_seed, forwarder.shared().counters.clone());
        let mut thread = PacketThread {
            poll,
            inbox: receiver,
            port: Port { tap: None, counters, since: Load::default() },
            sockets,
            forwarder,
            out: Outbox::new(),
            fib,
            generation: u64::MAX,
            mesh,
            load,
            busy_poll,
            moved: 0,
            clock,
            tap_ready: false,
            sparse: true,
            queue,
            full_since: None,
            backlog: false,
            backlog_at: Time(0),
            read_failures: 0,
            ready,
            buffer: vec![0; tap::MIN_BUFFER].into_boxed_slice(),
        };
        thread.plug(tap)?;
        Ok(thread)
    }

    /// Runs until [`PacketInput::Stop`], or until polling fails, which is returned.
    pub fn run(mut self) -> std::io::Result<()> {
        let mut events = Events::with_capacity(16);
        loop {
            match self.wait(&mut events) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            let mut woken = false;
            for event in &events {
                match event.token() {
                    WAKE => woken = true,
                    TAP => self.tap_ready = true,
                    Token(n) => self.ready.iter_mut().skip(n).take(1).for_each(|ready| *ready = true),
                }
            }
            if woken && self.read_inbox() {
                return Ok(());
            }
            self.refresh_fib();
            self.read_tap();
            self.read_sockets();
            if self.forwarder.next_timeout().is_some_and(|at| at <= self.clock.now()) {
                self.forwarder.tick(self.clock.now(), &mut self.out);
            }
            self.flush();
        }
    }

    /// Waits for events, or until something is due.
    fn wait(&mut self, events: &mut Events) -> std::io::Result<()> {
        self.load.publish(&mut self.port.since);
        let patience = self.patience();
        self.port.counters.polls.inc();
        if patience == Some(Duration::ZERO) {
            return self.poll.poll(events, patience);
        }
        let start = self.clock.now();
        let budget = self.busy_poll.budget(start, std::mem::take(&mut self.moved), self.forwarder.small_at());
        while self.clock.now().since(start) < budget {
            self.poll.poll(events, Some(Duration::ZERO))?;
            if !events.is_empty() {
                self.busy_poll.found(self.clock.now().since(start));
                return Ok(());
            }
            // On a machine with few cores whoever we wait for may need this one.
            std::thread::yield_now();
            self.port.counters.polls.add(2);
        }
        let asleep = self.clock.now();
        let slept = self.poll.poll(events, self.patience());
        let awake = self.clock.now();
        self.port.since.sleeps += 1;
        self.port.since.asleep_ns += awake.0.saturating_sub(asleep.0);
        slept?;
        self.busy_poll.slept(awake.since(start), budget > Duration::ZERO);
        if awake.since(self.backlog_at) >= QUIET {
            self.queue.shrink();
        }
        Ok(())
    }

    /// How long the poll may wait: not at all while something is known to be unread.
    fn patience(&self) -> Option<Duration> {
        if self.tap_ready || !self.queue.is_empty() || self.ready.contains(&true) {
            return Some(Duration::ZERO);
        }
        let due = self.forwarder.next_timeout().map(|at| at.since(self.clock.now()));
        [due, self.queue.is_swollen().then_some(QUIET)].into_iter().flatten().min()
    }

    fn read_inbox(&mut self) -> bool {
        let mut inputs = Vec::new();
        self.inbox.drain(usize::MAX, |input| inputs.push(input));
        for input in inputs {
            match input {
                PacketInput::Stop => return true,
                PacketInput::Frame(frame) => self.port.write(&VnetHeader::default(), &[IoSlice::new(&frame)]),
                PacketInput::Report(answer) => answer(self.report()),
                PacketInput::Tap(tap) => {
                    if let Err(error) = self.plug(*tap) {
                        tracing::error!(%error, "could not poll the new TAP; frames do not flow until it is made again");
                    }
                }
            }
        }
        false
    }

    fn report(&mut self) -> ThreadReport {
        let udp = self.sockets.sockets().iter().map(|socket| (socket.local_addr(), socket.offload_report())).collect();
        ThreadReport { tap: self.port.tap.as_ref().map(Tap::offload_report), udp }
    }

    fn plug(&mut self, mut tap: Tap) -> std::io::Result<()> {
        self.poll.registry().register(&mut tap, TAP, Interest::READABLE)?;
        self.port.tap = Some(tap);
        self.tap_ready = true;
        Ok(())
    }

    fn refresh_fib(&mut self) {
        let fib = self.fib.load();
        if fib.generation != self.generation {
            self.generation = fib.generation;
            let fib = Arc::clone(&fib);
            self.forwarder.set_fib(self.clock.now(), fib, &mut self.out, &mut self.port);
        }
    }

    fn read_tap(&mut self) {
        if self.backlog {
            return self.work_off();
        }
        if !self.tap_ready {
            return;
        }
        let now = self.clock.now();
        let (mut frames, mut bytes) = (0, 0);
        while self.tap_ready && frames < TAP_FRAMES && bytes < TURN_BYTES {
            let Some(length) = self.read_frame(now) else { break };
            frames += 1;
            bytes += length;
            if frames == 1 && self.sparse && !self.forwarder.keeps_back() {
                self.flush();
            } else if self.out.bytes() >= FLUSH_BYTES {
                self.flush_full();
            }
        }
        self.moved += bytes;
        self.sparse = frames <= 1;
        let full_since = *self.full_since.get_or_insert(now);
        self.backlog = self.tap_ready && now.since(full_since) >= STANDING;
        self.full_since = self.full_since.filter(|_| self.tap_ready);
        self.flush();
    }

    /// Empties the TAP into the queues and forwards a turn's worth of what waits there, each flow in its turn.
    fn work_off(&mut self) {
        let now = self.clock.now();
        self.backlog_at = now;
        let mut filled = 0;
        while self.tap_ready && filled < FILL_BYTES && self.queue.len() < FILL_FRAMES {
            filled += self.queue_frame(now);
        }
        let (mut frames, mut bytes) = (0, 0);
        while frames < TAP_FRAMES && bytes < TURN_BYTES {
            let (forwarder, out, port) = (&mut self.forwarder, &mut self.out, &mut self.port);
            let Some(length) = self.queue.serve(now, |vnet, frame| forwarder.from_tap(now, vnet, frame, out, port)) else { break };
            self.port.since.tx_frames += 1;
            self.port.since.tx_bytes += length as u64;
            frames += 1;
            bytes += length;
            if self.out.bytes() >= FLUSH_BYTES {
                self.flush_full();
            }
        }
        self.moved += bytes;
        self.backlog = self.tap_ready || !self.queue.is_empty();
        self.full_since = self.full_since.filter(|_| self.backlog);
        self.flush();
    }

    /// Reads one frame from the TAP and forwards it; its length, or `None` where there is no more.
    fn read_frame(&mut self, now: Time) -> Option<usize> {
        let Some(tap) = self.port.tap.as_mut() else {
            self.tap_ready = false;
            return None;
        };
        self.port.counters.tap_reads.inc();
        match tap.read(&mut self.buffer) {
            Ok(Some((vnet, frame))) => {
                let length = frame.len();
                self.read_failures = 0;
                self.port.since.tx_frames += 1;
                self.port.since.tx_bytes += length as u64;
                self.forwarder.from_tap(now, &vnet, frame, &mut self.out, &mut self.port);
                return Some(length);
            }
            Ok(None) => self.tap_ready = false,
            Err(error) => self.tap_failed(&error),
        }
        None
    }

    /// Reads one frame from the TAP into the queues; its length, 0 where there is no more.
    fn queue_frame(&mut self, now: Time) -> usize {
        self.port.counters.tap_reads.inc();
        let read = self.port.tap.as_mut().map(|tap| tap.read(self.queue.room()).map(|read| read.map(|(vnet, frame)| (vnet, frame.len()))));
        match read {
            Some(Ok(Some((vnet, length)))) => {
                self.queue.push(now, vnet, length);
                self.read_failures = 0;
                return length;
            }
            Some(Ok(None)) | None => self.tap_ready = false,
            Some(Err(error)) => self.tap_failed(&error),
        }
        0
    }

    fn tap_failed(&mut self, error: &std::io::Error) {
        if error.raw_os_error() == Some(libc::EBADFD) {
            // Deleted under us: the management plane sees it too and sends another.
            self.port.tap = None;
            self.tap_ready = false;
        } else {
            // The kernel drops a frame that it cannot describe to us; what lies behind it announces itself no second time.
            self.port.counters.tap_read_failed.inc();
            self.read_failures += 1;
            self.tap_ready = self.read_failures < MOST_READ_FAILURES;
        }
    }

    fn read_sockets(&mut self) {
        for n in 0..self.ready.len() {
            let (mut calls, mut failures, mut bytes) = (0, 0, 0);
            while self.ready[n] && calls < UDP_CALLS && bytes < TURN_BYTES {
                calls += 1;
                // A peer may use a key as soon as the mesh plane has agreed on it: look for a new Fib before what is sealed with it.
                self.refresh_fib();
                match self.receive(n) {
                    Some(received) => bytes += received,
                    // Counted by the socket; what lies behind the failure announces itself no second time. One that stays is given up.
                    None => {
                        failures += 1;
                        self.ready[n] = failures < MOST_RECEIVE_FAILURES;
                    }
                }
                self.flush();
            }
        }
    }

    /// Receives one batch from socket `n` and forwards it; how many bytes came, `None` where the call failed.
    fn receive(&mut self, n: usize) -> Option<usize> {
        let now = self.clock.now();
        let Batch { buffer, messages, more } = self.sockets.sockets().get_mut(n)?.recv().ok()?;
        let joined = messages.iter().filter(|message| has_several_lanes(buffer.get(message.range.clone()), message.segment)).count();
        if joined > 0 {
            self.port.counters.lanes_joined.add(joined as u64);
        }
        self.forwarder.from_udp_batch(now, buffer, messages, &mut self.out, &mut self.port);
        self.ready[n] = more;
        let bytes: usize = messages.iter().map(|message| message.range.len()).sum();
        self.moved += bytes;
        self.port.since.udp_rx_bytes += bytes as u64;
        Some(bytes)
    }

    /// Sends what lies in the outbox and hands the mesh plane what is its business.
    fn flush(&mut self) {
        if self.forwarder.keeps_back() {
            self.forwarder.end_burst(self.clock.now(), &mut self.out, &mut self.port);
        }
        if !self.out.is_empty() {
            self.port.since.udp_tx_bytes += self.out.bytes() as u64;
            self.sockets.send(self.out.runs().map(|(to, bytes, segment)| Run { segment, ..Run::single(to, bytes) }));
            self.out.clear();
            self.tell_refused();
        }
        for punt in self.out.punts.drain(..) {
            if self.mesh.try_send(MeshInput::Punt(punt)).is_err() {
                self.port.counters.mesh_busy.inc();
            }
        }
    }

    /// Sends what the next frame cannot add to, so that a bulk flow goes out in batches as large as the kernel takes.
    fn flush_full(&mut self) {
        let before = self.out.bytes();
        self.sockets.send(self.out.full_runs().map(|(to, bytes, segment)| Run { segment, ..Run::single(to, bytes) }));
        self.out.clear_full();
        self.port.since.udp_tx_bytes += (before - self.out.bytes()) as u64;
        self.tell_refused();
    }

    /// Tells the mesh plane where the kernel did not send to, and has others stand in meanwhile for what has no way at all.
    fn tell_refused(&mut self) {
        let fib = self.forwarder.fib();
        for address in self.sockets.take_unreachable().filter(|address| fib.doubt(*address)) {
            if self.mesh.try_send(MeshInput::Unreachable(address)).is_err() {
                self.port.counters.mesh_busy.inc();
            }
        }
        for address in self.sockets.take_too_big() {
            if self.mesh.try_send(MeshInput::TooBig(address)).is_err() {
                self.port.counters.mesh_busy.inc();
            }
        }
    }
}

/// True where the first and the last datagram of a message are not of one lane.
fn has_several_lanes(message: Option<&[u8]>, segment: usize) -> bool {
    let lane = |datagram: &[u8]| datagram.first_chunk::<HEADER_LEN>().map(|header| header[2] >> 4);
    let Some(message) = message.filter(|message| segment > 0 && message.len() > segment) else { return false };
    let last = (message.len() - 1) / segment * segment;
    lane(message) != message.get(last..).and_then(lane)
}
