//! A long cable: two TAPs and a thread that carries packets from one to the other and is in no hurry.
//!
//! The kernel this is tried on has no `netem`. Super frames pass whole, those of VXLAN and of `UDP_SEGMENT` too, so that the thread carries
//! several Gbit/s; nothing is lost up to a queue far longer than any window.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};

use super::clock::Stopwatch;
use super::plan::Cidr;
use super::{HostError, Lab, Wire, WireEnd, configure, in_namespace, with_netlink};
use crate::io::sys::{link, tun, vector};

/// The longest virtio-net header: that of super frames inside a tunnel (`struct virtio_net_hdr_v1_hash_tunnel`).
const TUNNEL_HEADER: i32 = 24;
/// Super frames of TCP and UDP, with checksums to be filled in: `TUN_F_CSUM` up to `TUN_F_USO6`.
const OFFLOADS: u32 = 0x6f;
/// Super frames inside VXLAN, whose outer checksum is to be filled in too: `TUN_F_UDP_TUNNEL_GSO` and its `_CSUM`, since Linux 6.17.
const TUNNELS: u32 = 0x180;
/// MTU of the cable.
const MTU: u32 = 1500;
/// Frames that wait in the TAP for the thread.
const TAP_QUEUE: u32 = 10_000;
/// Bytes on the way in one direction: a window of 20 ms at 100 Gbit/s.
const ON_THE_WAY: usize = 256 << 20;
/// Frames read from one end before the other gets its turn.
const TURN: usize = 64;
/// The longest the thread waits before it looks whether it should end.
const PATIENCE: Duration = Duration::from_millis(100);

/// A long cable. It is cut for good when this is dropped.
#[derive(Debug)]
pub struct FarWire {
    /// Its ends.
    pub wire: Wire,
    /// True where super frames of VXLAN pass whole; on older kernels they are cut before they reach the cable.
    pub tunnels: bool,
    stop: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl FarWire {
    /// Frames that were lost because the queue was full or the far end did not take them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

impl Drop for FarWire {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Lab {
    /// A cable on which every packet is on its way for `delay`, and which takes no more than `rate` bits per second in a direction, where
    /// one is given; what comes faster queues. Addresses as [`Lab::wire`] gives them.
    pub fn far_wire(&mut self, a: &str, b: &str, subnet: &str, delay: Duration, rate: Option<u64>) -> Result<FarWire, HostError> {
        let subnet: Cidr = subnet.parse()?;
        let ends = [(a, 1), (b, 2)].map(|(host, number)| WireEnd {
            host: host.to_string(),
            namespace: self.namespace(host),
            interface: self.port(host, "far"),
            ip: subnet.station(number),
            len: subnet.len,
        });
        // Both ends must agree on the length of the header, since frames cross with it.
        let (tunnels, [near, far]) = match plugs(&ends, true) {
            Ok(plugs) => (true, plugs),
            Err(_) => (false, plugs(&ends, false)?),
        };
        for end in &ends {
            let (interface, cidr) = (end.interface.clone(), Cidr { ip: end.ip, len: subnet.len });
            with_netlink(&end.namespace, |handle| async move { configure(&handle, &interface, cidr).await })??;
        }
        let (stop, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let carrier = Carrier { ends: [near, far], lanes: Default::default(), delay, rate, dropped: dropped.clone(), spare: Vec::new() };
        let (stopped, what) = (stop.clone(), format!("lay a long cable from {a} to {b}"));
        let thread = std::thread::Builder::new().name("lab-far".into()).spawn(move || carrier.run(&stopped));
        let thread = thread.map_err(|e| HostError::io(what, e))?;
        let [a, b] = ends;
        Ok(FarWire { wire: Wire { a, b }, tunnels, stop, dropped, thread: Some(thread) })
    }
}

fn plugs(ends: &[WireEnd; 2], tunnels: bool) -> Result<[OwnedFd; 2], HostError> {
    let [near, far] = ends;
    Ok([plug(near, tunnels)?, plug(far, tunnels)?])
}

fn plug(end: &WireEnd, tunnels: bool) -> Result<OwnedFd, HostError> {
    let open = || {
        let fd = tun::open()?;
        tun::attach(fd.as_fd(), &end.interface, false)?;
        if tunnels {
            tun::set_header_len(fd.as_fd(), TUNNEL_HEADER)?;
        }
        tun::set_offload(fd.as_fd(), if tunnels { OFFLOADS | TUNNELS } else { OFFLOADS })?;
        link::set_mtu(&end.interface, MTU)?;
        link::set_queue_len(&end.interface, TAP_QUEUE)?;
        Ok(fd)
    };
    in_namespace(&end.namespace, open)?.map_err(|e| HostError::io(format!("make the TAP {} in {}", end.interface, end.namespace), e))
}

/// What has come in at one end and goes out at the other.
#[derive(Default)]
struct Lane {
    /// Frames with their headers, and when each goes out.
    frames: VecDeque<(Duration, Vec<u8>)>,
    bytes: usize,
    /// When the last of them has left the sender, at the cable's rate.
    free: Duration,
}

/// The thread's state: `lanes[n]` comes from `ends[n]`.
struct Carrier {
    ends: [OwnedFd; 2],
    lanes: [Lane; 2],
    delay: Duration,
    rate: Option<u64>,
    dropped: Arc<AtomicU64>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
}

impl Carrier {
    fn run(mut self, stop: &AtomicBool) {
        let clock = Stopwatch::start();
        let mut buffer = vec![0; 1 << 17];
        while !stop.load(Relaxed) {
            let mut more = false;
            for n in 0..2 {
                more |= self.collect(n, &clock, &mut buffer);
            }
            (0..2).for_each(|n| self.deliver(n, &clock));
            if more {
                continue;
            }
            if let Err(error) = self.wait(&clock) {
                tracing::warn!(%error, "a long cable of the laboratory is broken");
                return;
            }
        }
    }

    /// Takes in what waits at one end; true where there may be more.
    fn collect(&mut self, n: usize, clock: &Stopwatch, buffer: &mut [u8]) -> bool {
        let (Some(end), Some(lane)) = (self.ends.get(n), self.lanes.get_mut(n)) else { return false };
        for _ in 0..TURN {
            let Ok(length) = vector::read(end.as_fd(), buffer) else { return false };
            let frame = buffer.get(..length).unwrap_or_default();
            if lane.bytes + length > ON_THE_WAY {
                self.dropped.fetch_add(1, Relaxed);
                continue;
            }
            let mut kept = self.spare.pop().unwrap_or_default();
            kept.extend_from_slice(frame);
            lane.bytes += length;
            let lasts = self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(length as f64 * 8.0 / rate as f64));
            lane.free = lane.free.max(clock.elapsed()) + lasts;
            lane.frames.push_back((lane.free + self.delay, kept));
        }
        true
    }

    /// Hands out at the other end what has been on its way for long enough.
    fn deliver(&mut self, n: usize, clock: &Stopwatch) {
        let (Some(end), Some(lane)) = (self.ends.get(1 - n), self.lanes.get_mut(n)) else { return };
        let now = clock.elapsed();
        while lane.frames.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, mut frame)) = lane.frames.pop_front() else { return };
            lane.bytes -= frame.len();
            if vector::write(end.as_fd(), &frame, &[]).is_err() {
                self.dropped.fetch_add(1, Relaxed);
            }
            frame.clear();
            self.spare.push(frame);
        }
    }

    /// Waits until something comes in or is due.
    fn wait(&self, clock: &Stopwatch) -> io::Result<()> {
        let due = self.lanes.iter().filter_map(|lane| lane.frames.front()).map(|(due, _)| *due).min();
        let patience = due.map_or(PATIENCE, |due| due.saturating_sub(clock.elapsed()).min(PATIENCE));
        let mut ends = self.ends.each_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut ends, Some(patience.into()), None).map_err(io::Error::from) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}
