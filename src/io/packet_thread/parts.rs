//! What a packet thread is made of and told, and what it says of itself.

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;

use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;
use mio::{Poll, Waker};

use super::WAKE;
use crate::forward::tap::write_segments;
use crate::forward::{Fib, Forwarder, TapSink};
use crate::io::busy_poll::BusyPoll;
use crate::io::clock::Clock;
use crate::io::mailbox::{self, Receiver, Sender};
use crate::io::mesh_thread::MeshInput;
use crate::io::offload::Offload;
use crate::io::tap::Tap;
use crate::io::thread_load::{Load, ThreadLoad};
use crate::io::udp::{OffloadReport, ThreadSockets};
use crate::wire::VnetHeader;
use crate::wire::vnet::GSO_NONE;

/// What the management plane tells a packet thread.
pub enum PacketInput {
    /// Use this TAP from now on (the former one was deleted under us).
    Tap(Box<Tap>),
    /// Put this frame on the bridge.
    Frame(Vec<u8>),
    /// Please say which offloads are in use.
    Report(Box<dyn FnOnce(ThreadReport) + Send>),
    /// End.
    Stop,
}

/// Which offloads a packet thread uses.
#[derive(Debug)]
pub struct ThreadReport {
    /// The TAP's; `None` where the TAP is missing.
    pub tap: Option<Vec<(&'static str, Offload)>>,
    /// Each socket's, by the address it is bound to.
    pub udp: Vec<(std::net::SocketAddr, OffloadReport)>,
}

crate::counters! {
    /// The system calls of a packet thread, and what it could not hand on.
    pub struct PacketThreadCounters {
        /// Reads of the TAP, those that found nothing included.
        tap_reads,
        /// Writes to the TAP.
        tap_writes,
        /// Looks for events and times the core was left to others meanwhile, which are system calls too.
        polls,
        /// Frames the kernel did not take from us because the TAP was down or its queue was full.
        tap_write_refused,
        /// Reads of the TAP that failed; a frame is lost with each.
        tap_read_failed,
        /// Super frames the kernel refused: their segments were written one by one instead, as all of their kind are from then on.
        tap_super_refused,
        /// Frames for a TAP that has been deleted and not put back yet.
        tap_missing,
        /// Received batches in which the kernel had joined datagrams of several lanes, some of them another thread's.
        lanes_joined,
        /// Control datagrams and requests the mesh plane was too busy to take.
        mesh_busy,
    }
}

/// The parts a packet thread is made of.
pub struct PacketParts {
    /// The TAP queue.
    pub tap: Tap,
    /// This thread's sockets.
    pub sockets: ThreadSockets,
    /// The rules.
    pub forwarder: Forwarder,
    /// The mesh plane's picture.
    pub fib: Arc<ArcSwap<Fib>>,
    /// The mesh plane's mailbox.
    pub mesh: Sender<MeshInput>,
    /// What this thread counts; no line of the cache is shared with another.
    pub counters: Arc<CachePadded<PacketThreadCounters>>,
    /// What this thread does.
    pub load: Arc<ThreadLoad>,
    /// How long to look for events before going to sleep.
    pub busy_poll: BusyPoll,
    /// Random: which flows share a queue.
    pub queue_seed: u32,
    /// The time.
    pub clock: Clock,
}

/// A packet thread's poll and mailbox, made before its other parts.
pub struct PacketInbox {
    pub(super) poll: Poll,
    pub(super) receiver: Receiver<PacketInput>,
    /// Wakes the thread without a message: a new Fib is there.
    pub waker: Arc<Waker>,
    /// The sending end.
    pub sender: Sender<PacketInput>,
}

impl PacketInbox {
    /// Makes both.
    pub fn new() -> std::io::Result<PacketInbox> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (sender, receiver) = mailbox::mailbox(16, waker.clone());
        Ok(PacketInbox { poll, receiver, waker, sender })
    }
}

/// The TAP as the forwarder writes to it: never blocks, counts what the kernel does not take.
pub(super) struct Port {
    pub(super) tap: Option<Tap>,
    pub(super) counters: Arc<CachePadded<PacketThreadCounters>>,
    /// What the thread did since it last said so.
    pub(super) since: Load,
}

impl TapSink for Port {
    fn write(&mut self, vnet: &VnetHeader, parts: &[IoSlice<'_>]) {
        let Some(tap) = &mut self.tap else { return self.counters.tap_missing.inc() };
        self.counters.tap_writes.inc();
        match tap.write_frame(vnet, parts) {
            Ok(()) => {
                self.since.rx_frames += 1;
                self.since.rx_bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
            }
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => self.counters.tap_missing.inc(),
            Err(error) if error.kind() == ErrorKind::InvalidInput && vnet.gso_kind() != GSO_NONE => {
                self.counters.tap_super_refused.inc();
                if !write_segments(vnet, parts, self) {
                    self.counters.tap_write_refused.inc();
                }
            }
            Err(_) => self.counters.tap_write_refused.inc(),
        }
    }

    fn gso(&self, gso_type: u8) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.gso_usable(gso_type))
    }

    fn csum(&self) -> bool {
        self.tap.as_ref().is_some_and(Tap::csum_usable)
    }
}

#[cfg(test)]
mod tests;
