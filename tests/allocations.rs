//! The packet path takes no memory: a counting allocator sees frames go through real forwarders and sessions.
//!
//! What C code takes by itself (aws-lc, when a key is made) is not seen here.

// A global allocator cannot be written without; this one hands everything on to the system's.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use weave_router::forward::addresses::Known;
use weave_router::forward::mac_table::Source;
use weave_router::forward::testkit::{CountingTap, Mesh, Node, Recipe, Wiring, address, arp, mac, name};
use weave_router::time::Time;
use weave_router::wire::VnetHeader;

thread_local! {
    /// Allocations of this thread: tests run side by side.
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // At the end of a thread there is nothing to count in, nor anybody to ask.
    _ = TAKEN.try_with(|taken| taken.set(taken.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came; counting touches a thread-local that needs no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Rounds in which buffers may still grow.
const WARM_UP: usize = 80;
/// Rounds that are counted.
const ROUNDS: usize = 300;

/// Routers in a line, with buffers of fixed size where the kernel would be.
struct Line {
    mesh: Mesh,
    taps: Vec<CountingTap>,
    now: Time,
    frame: Vec<u8>,
    buffer: Vec<u8>,
}

impl Line {
    /// Routers who know where the MAC with the number of each router is.
    fn new(wiring: Wiring) -> Line {
        let mesh = Mesh::line(wiring);
        let (now, routers) = (mesh.now, wiring.routers);
        for (n, node) in mesh.nodes.iter().enumerate() {
            for m in (0..routers).filter(|m| *m != n) {
                node.forwarder.shared().macs.learn_remote(0, mac(m as u8 + 1), name(m), Source::Data, now);
            }
        }
        let taps = (0..routers).map(|_| CountingTap::default()).collect();
        Line { mesh, taps, now, frame: vec![0; 1 << 17], buffer: vec![0; 1 << 16] }
    }

    /// A frame read from the first router's TAP travels as far as it gets.
    fn send(&mut self, vnet: &VnetHeader, frame: &[u8]) {
        self.now = self.now + Duration::from_millis(1);
        let bytes = &mut self.frame[..frame.len()];
        bytes.copy_from_slice(frame);
        let Node { forwarder, outbox, .. } = &mut self.mesh.nodes[0];
        forwarder.from_tap(self.now, vnet, bytes, outbox, &mut self.taps[0]);
        forwarder.end_burst(self.now, outbox, &mut self.taps[0]);
        for n in 0..self.mesh.nodes.len() {
            self.hand_over(n);
        }
    }

    /// What router `n` wants sent reaches its neighbours.
    fn hand_over(&mut self, n: usize) {
        for number in 0..self.mesh.nodes[n].outbox.len() {
            let Some((to, run, segment)) = self.mesh.nodes[n].outbox.runs().nth(number) else { break };
            let length = run.len();
            self.buffer[..length].copy_from_slice(run);
            let Some(m) = (0..self.taps.len()).find(|m| address(*m) == to) else { continue };
            let Node { forwarder, outbox, .. } = &mut self.mesh.nodes[m];
            forwarder.from_udp(self.now, address(n), &mut self.buffer[..length], segment, outbox, &mut self.taps[m]);
        }
        self.mesh.nodes[n].outbox.clear();
        self.mesh.nodes[n].outbox.punts.clear();
    }
}

/// Sends a frame again and again: after some rounds nothing is allocated, and router `last` has got them all.
#[track_caller]
fn takes_no_memory(wiring: Wiring, vnet: &VnetHeader, frame: &[u8], last: usize, writes: usize) {
    let mut line = Line::new(wiring);
    for _ in 0..WARM_UP {
        line.send(vnet, frame);
    }
    let (frames, bytes) = (line.taps[last].frames, line.taps[last].bytes);
    let before = TAKEN.get();
    for _ in 0..ROUNDS {
        line.send(vnet, frame);
    }
    let taken = TAKEN.get() - before;
    assert_eq!(line.taps[last].frames - frames, ROUNDS * writes, "frames that arrived");
    assert!(line.taps[last].bytes - bytes >= ROUNDS * frame.len(), "all of each frame arrived");
    assert_eq!(taken, 0, "allocations in {ROUNDS} rounds");
}

const THREE: Wiring = Wiring {
    routers: 3,
    plain: false,
    max_datagram: 1472,
    relay_budget: weave_router::forward::forwarder::DEFAULT_RELAY_BUDGET,
    sessions: true,
    flood_limit: weave_router::forward::flood_limit::DEFAULT_FLOOD_LIMIT,
    storm: false,
};

#[test]
fn the_allocator_counts() {
    let before = TAKEN.get();
    let bytes = std::hint::black_box(vec![1_u8; 10]);
    assert_eq!(TAKEN.get() - before, 1);
    drop(bytes);
}

#[test]
fn small_frames_take_no_memory() {
    for (plain, tcp, v6) in [(false, true, false), (false, false, true), (true, true, false)] {
        let recipe = Recipe { payload: 64, tcp, v6, ..Recipe::default() };
        takes_no_memory(Wiring { plain, ..Wiring::default() }, &recipe.vnet(0), &recipe.frame(), 1, 1);
    }
    let acknowledgement = Recipe { payload: 0, tcp_options: 0, ..Recipe::default() };
    takes_no_memory(Wiring::default(), &acknowledgement.vnet(0), &acknowledgement.frame(), 1, 1);
}

#[test]
fn super_frames_take_no_memory() {
    for (plain, v6) in [(false, false), (false, true), (true, false)] {
        let recipe = Recipe { payload: 64_000, v6, ..Recipe::default() };
        // 64 KB in one write: sealed, they are two runs, and a receive buffer re-joins by itself.
        takes_no_memory(Wiring { plain, ..Wiring::default() }, &recipe.vnet(1368), &recipe.frame(), 1, 2);
    }
    let datagrams = Recipe { payload: 48_000, tcp: false, ..Recipe::default() };
    takes_no_memory(Wiring::default(), &datagrams.vnet(1200), &datagrams.frame(), 1, 1);
}

#[test]
fn fragments_take_no_memory() {
    let recipe = Recipe { payload: 20_000, tcp: false, dont_fragment: false, ..Recipe::default() };
    takes_no_memory(Wiring::default(), &recipe.vnet(0), &recipe.frame(), 1, 1);
}

#[test]
fn relayed_frames_take_no_memory() {
    let big = Recipe { payload: 40_000, destination: 3, ..Recipe::default() };
    takes_no_memory(THREE, &big.vnet(1368), &big.frame(), 2, 1);
    let small = Recipe { payload: 64, destination: 3, ..Recipe::default() };
    takes_no_memory(THREE, &small.vnet(0), &small.frame(), 2, 1);
}

#[test]
fn answers_for_others_take_no_memory() {
    let mut line = Line::new(Wiring::default());
    let question = arp([0xff; 6], 1, mac(1), [10, 0, 0, 1], [10, 0, 0, 2]);
    let shared = line.mesh.nodes[0].forwarder.shared();
    shared.addresses.set((0, [10, 0, 0, 1].into()), Some(Known::Here(mac(1), line.now)));
    shared.addresses.set((0, [10, 0, 0, 2].into()), Some(Known::There(mac(2), name(1))));
    (0..WARM_UP).for_each(|_| line.send(&VnetHeader::default(), &question));
    let before = (TAKEN.get(), line.taps[0].frames);
    (0..ROUNDS).for_each(|_| line.send(&VnetHeader::default(), &question));
    assert_eq!((TAKEN.get(), line.taps[0].frames), (before.0, before.1 + ROUNDS), "allocations, and answers");
}

#[test]
fn floods_take_no_memory() {
    let mut arp = [&[0xff; 6][..], &mac(1), &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    arp.resize(42, 0);
    takes_no_memory(THREE, &VnetHeader::default(), &arp, 2, 1);
    let mut multicast = Recipe { payload: 30_000, tcp: false, ..Recipe::default() }.frame();
    multicast[..6].copy_from_slice(&[1, 0, 0x5e, 1, 2, 3]);
    let vnet = Recipe { payload: 30_000, tcp: false, ..Recipe::default() }.vnet(1200);
    takes_no_memory(THREE, &vnet, &multicast, 2, 1);
}
