//! A steady beat of datagrams from one container to another and back, which shows for how long nothing came through.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

use crate::host::lab::clock::{Stopwatch, pause};
use crate::host::lab::in_namespace;

/// Time between two datagrams: the precision of what is measured.
pub const BEAT: Duration = Duration::from_millis(2);

/// The receiving thread looks at least this often whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// What came back.
#[derive(Debug, Default)]
struct Arrivals {
    /// When, measured from the first beat.
    times: Vec<Duration>,
    /// Bit by bit, which beats came back.
    seen: Vec<bool>,
}

/// A running beat; it ends when this is dropped.
#[derive(Debug)]
pub struct Pulse {
    clock: Stopwatch,
    sent: Arc<AtomicU64>,
    arrivals: Arc<Mutex<Arrivals>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What became of the beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beats {
    /// Datagrams sent.
    pub sent: usize,
    /// Those that did not come back.
    pub lost: usize,
    /// The longest time in which nothing came back.
    pub longest_gap: Duration,
}

impl Pulse {
    /// Starts a beat from a namespace to an echo service.
    pub fn start(from: &str, to: SocketAddr) -> anyhow::Result<Pulse> {
        let socket = in_namespace(from, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        let what = || format!("cannot send datagrams from {from} to {to}");
        let receiving = (|| {
            socket.connect(to)?;
            socket.set_read_timeout(Some(LOOK))?;
            socket.try_clone()
        })();
        let receiving = receiving.with_context(what)?;
        let mut pulse =
            Pulse { clock: Stopwatch::start(), sent: Arc::default(), arrivals: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        let (sent, stop) = (pulse.sent.clone(), pulse.stop.clone());
        pulse.threads.push(spawn(move || send(&socket, &sent, &stop)).with_context(what)?);
        let (arrivals, stop, clock) = (pulse.arrivals.clone(), pulse.stop.clone(), pulse.clock);
        pulse.threads.push(spawn(move || receive(&receiving, &arrivals, &stop, clock)).with_context(what)?);
        Ok(pulse)
    }

    /// Time since the first beat.
    pub fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// How many beats have come back since then.
    pub fn arrived_since(&self, then: Duration) -> usize {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.times.iter().rev().take_while(|time| **time > then).count()
    }

    /// What became of the beats so far; those of the last moments may still be under way and are not counted.
    pub fn beats(&self) -> Beats {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = 25;
        let sent = usize::try_from(self.sent.load(Ordering::Relaxed)).unwrap_or(usize::MAX).saturating_sub(under_way);
        let returned = arrivals.seen.iter().take(sent).filter(|seen| **seen).count();
        Beats { sent, lost: sent - returned, longest_gap: longest_gap(&arrivals.times) }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("demo-pulse".into()).spawn(work)
}

fn send(socket: &UdpSocket, sent: &AtomicU64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        // One that cannot be sent does not come back, and is counted so.
        let _ = socket.send(&number.to_be_bytes());
        pause(BEAT);
    }
}

fn receive(socket: &UdpSocket, arrivals: &Mutex<Arrivals>, stop: &AtomicBool, clock: Stopwatch) {
    while !stop.load(Ordering::Relaxed) {
        let mut beat = [0; 8];
        let Ok(8) = socket.recv(&mut beat) else { continue };
        let now = clock.elapsed();
        let Ok(number) = usize::try_from(u64::from_be_bytes(beat)) else { continue };
        let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.times.push(now);
        // What has not been sent does not come back; a wrong number must not fill the memory all the same.
        if number >= arrivals.seen.len() && number < (1 << 24) {
            arrivals.seen.resize(number + 1, false);
        }
        if let Some(seen) = arrivals.seen.get_mut(number) {
            *seen = true;
        }
    }
}

fn longest_gap(times: &[Duration]) -> Duration {
    times.iter().zip(times.iter().skip(1)).map(|(before, after)| after.saturating_sub(*before)).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_between_neighbours() {
        let times: Vec<Duration> = [0, 2, 4, 504, 506].map(Duration::from_millis).into();
        assert_eq!(longest_gap(&times), Duration::from_millis(500));
        assert_eq!(longest_gap(&[]), Duration::ZERO);
    }

    #[test]
    fn beats_are_counted_once() {
        let arrivals = Arrivals { times: vec![Duration::from_millis(3)], seen: vec![true, false, true, true] };
        let pulse = Pulse {
            clock: Stopwatch::start(),
            sent: Arc::new(AtomicU64::new(29)),
            arrivals: Arc::new(Mutex::new(arrivals)),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        assert_eq!(pulse.beats(), Beats { sent: 4, lost: 1, longest_gap: Duration::ZERO });
        assert_eq!(pulse.arrived_since(Duration::ZERO), 1);
        assert_eq!(pulse.arrived_since(Duration::from_millis(3)), 0);
    }
}
