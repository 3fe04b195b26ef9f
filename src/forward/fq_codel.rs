//! Frames from the TAP that wait for their turn: FQ-CoDel (RFC 8290), that is, a queue per flow, served by deficit round robin with
//! flows that have just begun first, and CoDel (RFC 8289) in each.
//!
//! Containers can hand us more than a core seals, and then a queue stands somewhere. In the TAP's own, which is first in, first out and counts
//! frames whatever their size, everybody would wait behind the fastest sender. So while a backlog lasts the packet thread empties the TAP
//! into this: one flow's backlog delays nobody else's packets, and a flow that keeps a queue standing is told so, by a mark where its
//! packets are capable of ECN and by a drop where not. What the packet thread leaves in the TAP, because so many single packets
//! wait here already, is the kernel's to drop.

mod codel;
mod pool;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::time::Time;
use crate::wire::VnetHeader;
use crate::wire::vnet::VNET_LEN;

use super::checksum::write_ipv4_header;
use super::counters::PacketCounters;
use super::frame::{Frame, Net, be32};
use codel::{Codel, Verdict};
use pool::{NONE, Pool};

pub use pool::LARGE as ROOM;

/// Queues; flows whose hash is the same share one. The default of RFC 8290, section 5.2.3.
const FLOWS: usize = 1024;
/// What a flow may send in one round, in bytes. RFC 8290 says an Ethernet packet; most of what waits here are super frames, and with a
/// quarter of one the rounds are few and a request of some packets still passes at once.
const QUANTUM: i64 = 16 * 1024;
/// Most memory that waiting frames may take, per packet thread: 8 ms at 8 Gbit/s.
const LIMIT: usize = 8 << 20;
/// Frames dropped at once from the longest queue, since finding it means to look at all (RFC 8290, section 4.1.3, "batch dropping").
const DROP_BATCH: usize = 64;

/// The queues of one packet thread.
pub struct FqCodel {
    flows: Box<[Flow]>,
    /// Flows that have just begun, then the others, each in order of service.
    fresh: VecDeque<u16>,
    old: VecDeque<u16>,
    pool: Pool,
    frames: usize,
    seed: u32,
    counters: Arc<PacketCounters>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    Idle,
    Fresh,
    Old,
}

/// One queue: a list of slots, its turn and its controller.
#[derive(Clone)]
struct Flow {
    head: u32,
    tail: u32,
    /// Memory its frames take.
    bytes: usize,
    deficit: i64,
    list: List,
    codel: Codel,
}

impl FqCodel {
    /// Empty queues. `seed` decides which flows share one, so that nobody can choose to share another's.
    pub fn new(seed: u32, counters: Arc<PacketCounters>) -> FqCodel {
        let flow = Flow { head: NONE, tail: NONE, bytes: 0, deficit: 0, list: List::Idle, codel: Codel::default() };
        FqCodel {
            flows: vec![flow; FLOWS].into_boxed_slice(),
            fresh: VecDeque::new(),
            old: VecDeque::new(),
            pool: Pool::default(),
            frames: 0,
            seed,
            counters,
        }
    }

    /// True where nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.frames
    }

    /// Where the next frame is to be read to: room for the longest there is, the virtio-net header in front.
    pub fn room(&mut self) -> &mut [u8] {
        self.pool.room()
    }

    /// Queues the frame of `length` bytes that was read to [`FqCodel::room`], behind the virtio-net header. When that is too much,
    /// the longest queue loses from its head.
    pub fn push(&mut self, now: Time, vnet: VnetHeader, length: usize) {
        let Some(bytes) = self.pool.room().get(VNET_LEN..VNET_LEN + length) else { return };
        let index = flow_of(self.seed, bytes);
        let slot = self.pool.take(now, vnet, length);
        let cost = self.pool.slot(slot).cost();
        let flow = &mut self.flows[index];
        match flow.tail {
            NONE => flow.head = slot,
            tail => self.pool.slot_mut(tail).next = slot,
        }
        flow.tail = slot;
        flow.bytes += cost;
        self.frames += 1;
        if flow.list == List::Idle {
            (flow.list, flow.deficit) = (List::Fresh, QUANTUM);
            self.fresh.push_back(index as u16);
        }
        if self.pool.used() > LIMIT {
            self.shorten_longest();
        }
    }

    /// Hands the next frame to `forward`, which may change its bytes: how long it was, or `None` where nothing waits any more.
    pub fn serve(&mut self, now: Time, forward: impl FnOnce(&VnetHeader, &mut [u8])) -> Option<usize> {
        let slot = self.next(now)?;
        let (vnet, bytes) = self.pool.slot_mut(slot).content();
        let length = bytes.len();
        forward(&vnet, bytes);
        self.pool.put_back(slot);
        Some(length)
    }

    /// True while memory is kept that only a backlog needs.
    pub fn is_swollen(&self) -> bool {
        self.pool.is_swollen()
    }

    /// Gives the memory of a backlog back, where none is left; for when it has been quiet for a while.
    pub fn shrink(&mut self) {
        if self.is_empty() && self.is_swollen() {
            self.pool = Pool::default();
        }
    }

    /// The slot whose turn it is (RFC 8290, section 4.2).
    fn next(&mut self, now: Time) -> Option<u32> {
        loop {
            let (index, fresh) = match (self.fresh.front(), self.old.front()) {
                (Some(index), _) => (*index, true),
                (None, Some(index)) => (*index, false),
                (None, None) => return None,
            };
            let list = if fresh { &mut self.fresh } else { &mut self.old };
            let flow = &mut self.flows[usize::from(index)];
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM;
                list.pop_front();
                flow.list = List::Old;
                self.old.push_back(index);
                continue;
            }
            if let Some(slot) = self.take(now, usize::from(index)) {
                self.flows[usize::from(index)].deficit -= self.pool.slot(slot).length() as i64;
                return Some(slot);
            }
            // An empty fresh flow becomes an old one first, or it could keep starting afresh ahead of the old.
            let flow = &mut self.flows[usize::from(index)];
            if fresh {
                self.fresh.pop_front();
                flow.list = List::Old;
                self.old.push_back(index);
            } else {
                self.old.pop_front();
                flow.list = List::Idle;
            }
        }
    }

    /// The next slot of a flow, after CoDel has dropped or marked what it must; `None` where the flow is empty.
    fn take(&mut self, now: Time, index: usize) -> Option<u32> {
        loop {
            let slot = self.unlink(index)?;
            let more = self.flows[index].head != NONE;
            let waited = now.since(self.pool.slot(slot).queued);
            match self.flows[index].codel.verdict(now, waited, more) {
                Verdict::Send => return Some(slot),
                Verdict::Signal => {
                    if mark_congestion(self.pool.slot_mut(slot).content().1) {
                        self.counters.marked_congestion.inc();
                        return Some(slot);
                    }
                    self.counters.drop_queue_delay.inc();
                    self.pool.put_back(slot);
                }
            }
        }
    }

    /// Takes the head off a flow's queue.
    fn unlink(&mut self, index: usize) -> Option<u32> {
        let flow = &mut self.flows[index];
        let slot = Some(flow.head).filter(|head| *head != NONE)?;
        flow.head = self.pool.slot(slot).next;
        if flow.head == NONE {
            flow.tail = NONE;
        }
        flow.bytes -= self.pool.slot(slot).cost();
        self.frames -= 1;
        Some(slot)
    }

    fn shorten_longest(&mut self) {
        let Some(longest) = (0..FLOWS).max_by_key(|index| self.flows[*index].bytes) else { return };
        let half = self.flows[longest].bytes / 2;
        for _ in 0..DROP_BATCH {
            let Some(slot) = self.unlink(longest) else { break };
            self.pool.put_back(slot);
            self.counters.drop_queue_full.inc();
            if self.flows[longest].bytes <= half {
                break;
            }
        }
    }
}

/// The queue of a frame: by addresses and ports, or by MACs where there are none.
fn flow_of(seed: u32, bytes: &[u8]) -> usize {
    let word = |at: usize| be32(bytes, at).unwrap_or(0);
    let words = match Frame::parse(bytes) {
        Some(frame) if frame.net != Net::Other => {
            let (l3, l4) = (usize::from(frame.l3), usize::from(frame.l4));
            let (from, to) = if frame.net == Net::V4 { (l3 + 12, l3 + 16) } else { (l3 + 20, l3 + 36) };
            [word(from), word(to), u32::from(frame.protocol), if frame.transport.is_some() { word(l4) } else { 0 }]
        }
        _ => [word(0), word(4), word(8), 0],
    };
    let mix = |hash: u32, word: u32| (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b1);
    let hash = words.into_iter().fold(seed, mix);
    (hash >> (u32::BITS - FLOWS.ilog2())) as usize
}

/// Sets "congestion experienced" (RFC 3168) in an IP packet whose transport is capable of ECN; false where it is not.
fn mark_congestion(bytes: &mut [u8]) -> bool {
    let Some(frame) = Frame::parse(bytes).filter(|frame| frame.net != Net::Other) else { return false };
    let l3 = usize::from(frame.l3);
    let Some(class) = bytes.get_mut(l3 + 1) else { return false };
    // The lowest two bits of IPv4's second byte; in IPv6 the traffic class ends four bits higher.
    let shift = if frame.net == Net::V4 { 0 } else { 4 };
    if *class >> shift & 3 == 0 {
        return false;
    }
    *class |= 3 << shift;
    if frame.net == Net::V4 {
        let length = usize::from(bytes[l3] & 0xf) * 4;
        if let Some(header) = bytes.get_mut(l3..l3 + length) {
            write_ipv4_header(header);
        }
    }
    true
}
