//! What the status pages say of the packet threads.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::metrics::Page;
use super::state::FullStatus;
use super::text::bytes;

/// One packet thread. Frames are counted as the TAP hands them over: a super frame is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thread {
    /// Its number, from 1: the lane of its keys, and of its name `packet-1`.
    pub thread: usize,
    /// Frames read from the TAP.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames written to the TAP.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Bytes of UDP payload sent, relayed ones included.
    pub udp_tx_bytes: u64,
    /// Bytes of UDP payload received, likewise.
    pub udp_rx_bytes: u64,
    /// How often it went to sleep.
    pub sleeps: u64,
    /// Seconds that it slept.
    pub asleep_s: f64,
}

/// The threads in order of their numbers.
pub(super) fn threads(full: &FullStatus) -> Vec<Thread> {
    let thread = |(n, load): (usize, &crate::io::thread_load::Load)| Thread {
        thread: n + 1,
        tx_frames: load.tx_frames,
        tx_bytes: load.tx_bytes,
        rx_frames: load.rx_frames,
        rx_bytes: load.rx_bytes,
        udp_tx_bytes: load.udp_tx_bytes,
        udp_rx_bytes: load.udp_rx_bytes,
        sleeps: load.sleeps,
        asleep_s: load.asleep().as_millis() as f64 / 1000.0,
    };
    full.threads.iter().enumerate().map(thread).collect()
}

/// A line for people.
pub(super) fn line(t: &Thread, uptime_s: u64) -> String {
    let mut line = format!("{} (from containers {}, to containers {}", t.thread, bytes(t.tx_bytes), bytes(t.rx_bytes));
    if uptime_s > 0 {
        let asleep = (t.asleep_s / uptime_s as f64 * 100.0).min(100.0);
        let _ = write!(line, ", asleep {asleep:.0}% of its time");
    }
    line + ")"
}

/// The families of `/metrics`.
pub(super) fn metrics(page: &mut Page, threads: &[Thread]) {
    type Read = fn(&Thread) -> u64;
    let families: [(&str, &str, Read, Read); 3] = [
        (
            "weave_packet_thread_frames_total",
            "Frames that a packet thread read from the TAP (tx) and wrote to it (rx); a super frame is one.",
            |t| t.tx_frames,
            |t| t.rx_frames,
        ),
        ("weave_packet_thread_bytes_total", "Bytes of those frames.", |t| t.tx_bytes, |t| t.rx_bytes),
        (
            "weave_packet_thread_udp_bytes_total",
            "Bytes of UDP payload that a packet thread sent and received, relayed ones included.",
            |t| t.udp_tx_bytes,
            |t| t.udp_rx_bytes,
        ),
    ];
    for (name, help, tx, rx) in families {
        page.family(name, "counter", help);
        for t in threads {
            for (direction, read) in [("tx", tx), ("rx", rx)] {
                page.sample(name, &[("thread", &t.thread.to_string()), ("direction", direction)], read(t) as f64);
            }
        }
    }
    page.family("weave_packet_thread_sleeps_total", "counter", "How often a packet thread went to sleep.");
    for t in threads {
        page.sample("weave_packet_thread_sleeps_total", &[("thread", &t.thread.to_string())], t.sleeps as f64);
    }
    page.family("weave_packet_thread_asleep_seconds_total", "counter", "Seconds that a packet thread slept.");
    for t in threads {
        page.sample("weave_packet_thread_asleep_seconds_total", &[("thread", &t.thread.to_string())], t.asleep_s);
    }
}
