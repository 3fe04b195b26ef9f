//! Order, fairness, limits and signals of the queues.

use std::time::Duration;

use super::*;
use crate::forward::checksum::{fold, sum};
use crate::forward::frame::UDP;

const MS: Duration = Duration::from_millis(1);

struct Bench {
    queue: FqCodel,
    counters: Arc<PacketCounters>,
    now: Time,
}

impl Bench {
    fn new() -> Bench {
        let counters = Arc::new(PacketCounters::default());
        Bench { queue: FqCodel::new(7, counters.clone()), counters, now: Time(1_000_000_000) }
    }

    /// A UDP packet of `length` bytes of payload from port `flow`, numbered, with the ECN field `ecn`.
    fn push(&mut self, flow: u16, number: u32, length: usize, ecn: u8) {
        let mut frame = headers(flow, length, ecn);
        frame.extend_from_slice(&number.to_be_bytes());
        frame.resize(frame.len() + length - 4, 0xab);
        self.queue.room()[VNET_LEN..VNET_LEN + frame.len()].copy_from_slice(&frame);
        self.queue.push(self.now, VnetHeader { gso_size: flow, ..VnetHeader::default() }, frame.len());
    }

    /// Flow and number of the next frame.
    fn serve(&mut self) -> Option<(u16, u32)> {
        self.serve_with_ecn().map(|(flow, number, _)| (flow, number))
    }

    fn serve_with_ecn(&mut self) -> Option<(u16, u32, u8)> {
        let mut seen = None;
        let length = self.queue.serve(self.now, |vnet, bytes| {
            let header = &bytes[14..34];
            assert_eq!(fold(sum(header)), 0xffff, "the header's checksum holds");
            seen = Some((vnet.gso_size, be32(bytes, 42).expect("a number"), bytes[15] & 3));
        })?;
        assert!(length > 46);
        seen
    }
}

/// Ethernet, IPv4 and UDP headers before a payload of `length` bytes.
fn headers(flow: u16, length: usize, ecn: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let total = (28 + length) as u16;
    let mut ip = [0x45, ecn, 0, 0, 0, 1, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    write_ipv4_header(&mut ip);
    frame.extend_from_slice(&ip);
    for field in [flow, 9, 8 + length as u16, 0] {
        frame.extend_from_slice(&field.to_be_bytes());
    }
    frame
}

#[test]
fn each_flow_keeps_its_order() {
    let mut bench = Bench::new();
    for number in 0..80 {
        for flow in 1..=5 {
            bench.push(flow, number, 100 + 900 * usize::from(flow), 0);
        }
    }
    assert_eq!(bench.queue.len(), 400);
    let mut next = [0; 6];
    while let Some((flow, number)) = bench.serve() {
        assert_eq!(number, next[usize::from(flow)], "flow {flow}");
        next[usize::from(flow)] += 1;
    }
    assert_eq!(next, [0, 80, 80, 80, 80, 80]);
    assert!(bench.queue.is_empty());
}

#[test]
fn a_request_passes_a_backlog() {
    let mut bench = Bench::new();
    for number in 0..100 {
        bench.push(1, number, 60_000, 0);
    }
    for number in 0..10 {
        assert_eq!(bench.serve(), Some((1, number)));
    }
    bench.push(2, 0, 64, 0);
    assert_eq!(bench.serve(), Some((2, 0)), "it waits for nobody");
    assert_eq!(bench.serve(), Some((1, 10)));
}

#[test]
fn flows_share_by_bytes_and_not_by_frames() {
    let mut bench = Bench::new();
    for number in 0..80 {
        bench.push(1, number, 60_000, 0);
    }
    for number in 0..2000 {
        bench.push(2, number, 1_400, 0);
    }
    let mut bytes = [0; 2];
    for _ in 0..1000 {
        let Some((flow, _)) = bench.serve() else { break };
        bytes[usize::from(flow) - 1] += if flow == 1 { 60_000_i64 } else { 1_400 };
    }
    let difference = (bytes[0] - bytes[1]).abs();
    assert!(bytes[0] > 1_000_000 && difference <= 2 * (60_000 + QUANTUM), "{bytes:?}");
}

#[test]
fn the_longest_queue_pays_for_the_limit() {
    let mut bench = Bench::new();
    for number in 0..500 {
        bench.push(1, number, 60_000, 0);
        if number % 10 == 0 {
            bench.push(2, number, 200, 0);
        }
    }
    assert!(bench.queue.pool.used() <= LIMIT, "{}", bench.queue.pool.used());
    let dropped = bench.counters.drop_queue_full.get();
    assert!(dropped > 300, "{dropped}");
    let (mut large, mut small) = (Vec::new(), 0);
    while let Some((flow, number)) = bench.serve() {
        if flow == 1 { large.push(number) } else { small += 1 }
    }
    assert_eq!(small, 50, "nobody else pays");
    assert_eq!(large.len() as u64 + dropped, 500);
    assert_eq!(large.last(), Some(&499), "the oldest go");
    assert_eq!(bench.queue.pool.used(), 0);
}

/// Lets one flow keep 20 frames standing for 10 ms each for two seconds; the frames that came out, and how many bore a mark.
fn stand(bench: &mut Bench, ecn: u8) -> (u64, u64) {
    let (mut number, mut out, mut marked) = (0, 0, 0);
    for _ in 0..20 {
        bench.push(1, number, 1_000, ecn);
        number += 1;
    }
    for _ in 0..4_000 {
        bench.now = bench.now + MS / 2;
        bench.push(1, number, 1_000, ecn);
        number += 1;
        let Some((_, _, ecn)) = bench.serve_with_ecn() else { panic!("frames wait") };
        out += 1;
        marked += u64::from(ecn == 3);
    }
    (out, marked)
}

#[test]
fn a_standing_queue_loses_frames_and_becomes_short() {
    let mut bench = Bench::new();
    let (out, marked) = stand(&mut bench, 0);
    let dropped = bench.counters.drop_queue_delay.get();
    assert!(dropped >= 10, "{dropped}");
    assert_eq!((out, marked), (4_000, 0));
    // As many as came and are gone: 10 ms of delay have become 5.
    assert_eq!(bench.queue.len() as u64, 20 - dropped);
}

#[test]
fn what_is_capable_of_ecn_is_marked_instead() {
    let mut bench = Bench::new();
    let (out, marked) = stand(&mut bench, 2);
    assert_eq!(bench.counters.drop_queue_delay.get(), 0);
    assert_eq!(out, 4_000);
    assert!(marked > 10, "{marked}");
    assert_eq!(bench.counters.marked_congestion.get(), marked);
}

#[test]
fn marks_of_both_families() {
    let mut v4 = headers(1, 0, 1);
    assert!(mark_congestion(&mut v4));
    assert_eq!(v4[15], 3);
    let mut v6 = vec![0; 54];
    v6[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
    v6[20] = 59;
    assert!(!mark_congestion(&mut v6.clone()), "not capable");
    v6[15] = 0x2f;
    assert!(mark_congestion(&mut v6));
    assert_eq!(v6[14..16], [0x60, 0x3f], "the flow label stays");
    assert!(!mark_congestion(&mut [0; 10]) && !mark_congestion(&mut [0; 60]), "no IP");
}

#[test]
fn memory_is_used_again_and_given_back() {
    let mut bench = Bench::new();
    let mut slots = 0;
    for round in 0..50 {
        for number in 0..60 {
            bench.push(number as u16 % 7, number, if number % 2 == 0 { 60_000 } else { 100 }, 0);
        }
        while bench.serve().is_some() {}
        if round == 0 {
            slots = bench.queue.pool.slots();
        }
    }
    assert_eq!(bench.queue.pool.slots(), slots);
    assert!(bench.queue.is_swollen());
    bench.push(1, 1, 100, 0);
    bench.queue.shrink();
    assert_eq!(bench.serve(), Some((1, 1)), "not while something waits");
    bench.queue.shrink();
    assert!(!bench.queue.is_swollen());
    bench.push(1, 2, 100, 0);
    assert_eq!(bench.serve(), Some((1, 2)));
}
