//! Traffic whose content is checked, and traffic that notices when it is interrupted.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest, Sha256};
use weave_router::host::lab::clock::{Stopwatch, pause};
use weave_router::host::lab::in_namespace;
use weave_router::host::lab::traffic::Echo;

/// No stall that TCP survives lasts longer.
const STALL: Duration = Duration::from_secs(30);

/// Bytes that do not repeat within a transfer, from a seed.
pub struct Noise(u64);

impl Noise {
    /// A new sequence.
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number (xorshift64*).
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit.max(1)
    }

    /// Fresh bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let next = self.next().to_le_bytes();
            chunk.copy_from_slice(&next[..chunk.len()]);
        }
    }
}

/// Sends `bytes` of noise over TCP and compares hashes; answers with the time it took.
#[track_caller]
pub fn transfer(from: &str, to: &str, ip: IpAddr, bytes: usize) -> Duration {
    send_over_tcp(from, to, ip, bytes).unwrap_or_else(|error| panic!("{bytes} bytes from {from} to {ip}: {error}"))
}

fn send_over_tcp(from: &str, to: &str, ip: IpAddr, bytes: usize) -> io::Result<Duration> {
    let listener = in_namespace(to, || TcpListener::bind((ip, 0))).expect("a namespace")?;
    let target = listener.local_addr()?;
    let mut near = in_namespace(from, || std::net::TcpStream::connect_timeout(&target, STALL)).expect("a namespace")?;
    let (mut far, _) = listener.accept()?;
    near.set_write_timeout(Some(STALL))?;
    far.set_read_timeout(Some(STALL))?;
    let clock = Stopwatch::start();
    let receiver = std::thread::spawn(move || -> io::Result<(u64, Vec<u8>)> {
        let (mut hash, mut total, mut buffer) = (Sha256::new(), 0, vec![0; 256 << 10]);
        loop {
            match far.read(&mut buffer)? {
                0 => return Ok((total, hash.finalize().to_vec())),
                n => {
                    hash.update(&buffer[..n]);
                    total += n as u64;
                }
            }
        }
    });
    let (mut hash, mut noise, mut left) = (Sha256::new(), Noise::new(bytes as u64), bytes);
    let mut block = vec![0; 128 << 10];
    while left > 0 {
        let len = left.min(block.len());
        noise.fill(&mut block[..len]);
        hash.update(&block[..len]);
        near.write_all(&block[..len])?;
        left -= len;
    }
    near.shutdown(std::net::Shutdown::Write)?;
    let (total, received) = receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    assert_eq!((total, received), (bytes as u64, hash.finalize().to_vec()), "what arrives is what was sent");
    Ok(clock.elapsed())
}

/// Two UDP sockets in two namespaces, the first connected to the second.
pub fn udp_pair(from: &str, to: &str, ip: IpAddr) -> (UdpSocket, UdpSocket) {
    let far = in_namespace(to, || UdpSocket::bind((ip, 0))).expect("a namespace").expect("a socket");
    let near = udp(from, ip.is_ipv6());
    near.connect(far.local_addr().expect("an address")).expect("connected");
    for socket in [&near, &far] {
        socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
    }
    (near, far)
}

/// A UDP socket on any address and port of a namespace.
pub fn udp(namespace: &str, v6: bool) -> UdpSocket {
    let any = if v6 { "[::]:0" } else { "0.0.0.0:0" };
    in_namespace(namespace, || UdpSocket::bind(any)).expect("a namespace").expect("a socket")
}

/// A datagram to an echo service every so often, for as long as this lives.
pub struct Pulse {
    stop: Arc<AtomicBool>,
    echo: Echo,
    beats: Option<JoinHandle<Vec<Duration>>>,
}

impl Pulse {
    /// Starts it from one namespace to an address in another.
    pub fn start(from: &str, to: &str, ip: IpAddr, gap: Duration) -> Pulse {
        let echo = Echo::start(to, ip).expect("an echo service");
        let socket = udp(from, ip.is_ipv6());
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, target) = (stop.clone(), echo.address());
        let beats = std::thread::spawn(move || beat(&socket, target, gap, &stopped));
        Pulse { stop, echo, beats: Some(beats) }
    }

    /// Stops it; answers with the longest time without an answer.
    pub fn longest_silence(mut self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let beats = self.beats.take().map(JoinHandle::join);
        let times = beats.expect("it was started").unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(times.len() > 2, "no answer at all from {}", self.echo.address());
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The times of all answers, between the start and the end.
fn beat(socket: &UdpSocket, target: SocketAddr, gap: Duration, stopped: &AtomicBool) -> Vec<Duration> {
    let clock = Stopwatch::start();
    let mut times = vec![clock.elapsed()];
    let mut next = Duration::ZERO;
    let mut buffer = [0; 64];
    while !stopped.load(Ordering::Relaxed) {
        if clock.elapsed() >= next {
            // Where there is no way now, the datagram is lost like any other.
            let _ = socket.send_to(&clock.elapsed().as_nanos().to_be_bytes(), target);
            next = clock.elapsed() + gap;
        }
        let wait = next.saturating_sub(clock.elapsed()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait)).expect("a timeout");
        match socket.recv(&mut buffer) {
            Ok(_) => times.push(clock.elapsed()),
            // An ICMP error ends a wait early.
            Err(_) => pause(Duration::from_millis(1)),
        }
    }
    times.push(clock.elapsed());
    times
}
