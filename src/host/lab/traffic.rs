//! Traffic between two namespaces, measured: what a test, a bench or the demo sends through the mesh, without any other program.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::clock::{Stopwatch, pause};
use super::{HostError, cores, in_namespace};

/// What one write hands to TCP: a common size of senders, and two super frames.
const WRITE: usize = 128 << 10;

/// Nothing that works is silent for longer.
const SILENCE: Duration = Duration::from_secs(5);

/// Where a measurement sends from and to.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// Namespace that sends.
    pub from: &'a str,
    /// Namespace that receives.
    pub to: &'a str,
    /// An address in the receiving namespace.
    pub ip: IpAddr,
    /// The cores that sender and receiver keep to; `None` leaves it to the scheduler.
    pub cores: Option<(usize, usize)>,
}

impl<'a> Ends<'a> {
    /// Two namespaces, whose threads run where the scheduler wants them.
    pub fn new(from: &'a str, to: &'a str, ip: IpAddr) -> Ends<'a> {
        Ends { from, to, ip, cores: None }
    }

    fn sender_stays(&self) -> io::Result<()> {
        self.cores.map_or(Ok(()), |(core, _)| cores::stay_on(core)).map_err(io::Error::other)
    }

    fn receiver_stays(&self) -> io::Result<()> {
        self.cores.map_or(Ok(()), |(_, core)| cores::stay_on(core)).map_err(io::Error::other)
    }
}

impl std::fmt::Display for Ends<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "from {} to {} in {}", self.from, self.ip, self.to)
    }
}

/// How bulk data is sent over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// For how long.
    pub time: Duration,
    /// Connections side by side.
    pub streams: usize,
    /// Whether the sender sets `TCP_NODELAY`, as ordinary senders of bulk data do not. It changes how TCP packs what it is given, and
    /// with it how fast a kernel datapath is.
    pub nodelay: bool,
}

impl Bulk {
    /// One connection of a sender that asks for nothing.
    pub fn ordinary(time: Duration) -> Bulk {
        Bulk { time, streams: 1, nodelay: false }
    }
}

/// Bytes that arrived, and in which time.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Bytes received.
    pub bytes: u64,
    /// From the first write to the last byte received.
    pub time: Duration,
}

impl Throughput {
    /// Gigabits per second of payload.
    pub fn gbit_per_s(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.time.as_secs_f64().max(1e-9) / 1e9
    }
}

/// Round-trip times, shortest first.
#[derive(Clone, Debug, Default)]
pub struct RoundTrips {
    /// How many were tried.
    pub sent: usize,
    /// The times of those that came back.
    pub times: Vec<Duration>,
}

impl RoundTrips {
    /// The time that `percent` of the answers kept; `None` where there was none.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let at = (self.times.len() * percent).div_ceil(100).saturating_sub(1);
        self.times.get(at).copied()
    }

    /// How many were lost.
    pub fn lost(&self) -> usize {
        self.sent - self.times.len()
    }
}

/// Datagrams, sent as fast as one thread can.
#[derive(Clone, Copy, Debug)]
pub struct DatagramRate {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams received.
    pub received: u64,
    /// How long was sent.
    pub time: Duration,
}

impl DatagramRate {
    /// Datagrams received per second.
    pub fn per_second(&self) -> f64 {
        self.received as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// Sends bulk data over TCP.
pub fn tcp_throughput(ends: Ends<'_>, bulk: Bulk) -> Result<Throughput, HostError> {
    let what = |e| HostError::io(format!("measure TCP {ends}"), e);
    let Bulk { time, streams, nodelay } = bulk;
    let mut pairs = Vec::new();
    for _ in 0..streams.max(1) {
        pairs.push(connected(&ends, nodelay).map_err(what)?);
    }
    let clock = Stopwatch::start();
    let results: Vec<io::Result<u64>> = std::thread::scope(|scope| {
        let running: Vec<_> = pairs
            .into_iter()
            .map(|(near, far)| {
                let sink = scope.spawn(move || ends.receiver_stays().and_then(|()| drain(far)));
                scope.spawn(move || {
                    let sent = ends.sender_stays().and_then(|()| pour(near, time, clock));
                    let received = sink.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    sent.and(received)
                })
            })
            .collect();
        running.into_iter().map(|r| r.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let time = clock.elapsed();
    let bytes = results.into_iter().sum::<io::Result<u64>>().map_err(what)?;
    Ok(Throughput { bytes, time })
}

/// Sends `count` single bytes over one TCP connection, each after the answer to the one before.
pub fn tcp_ping_pong(ends: Ends<'_>, count: usize) -> Result<RoundTrips, HostError> {
    ping_pong(ends, count, Duration::MAX)
}

/// Plays ping-pong like [`tcp_ping_pong`] on a connection of its own while bulk data is sent, from when that has gathered speed to a
/// little before its end.
pub fn tcp_ping_pong_beside(ends: Ends<'_>, bulk: Bulk) -> Result<(Throughput, RoundTrips), HostError> {
    let (head, play) = (bulk.time / 5, bulk.time / 5 * 3);
    std::thread::scope(|scope| {
        let stream = scope.spawn(move || tcp_throughput(ends, bulk));
        pause(head);
        let trips = ping_pong(ends, usize::MAX, play);
        let stream = stream.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((stream?, trips?))
    })
}

/// Ends after `count` trips or after `time`.
fn ping_pong(ends: Ends<'_>, count: usize, time: Duration) -> Result<RoundTrips, HostError> {
    let what = |e| HostError::io(format!("play ping-pong over TCP {ends}"), e);
    let (near, far) = connected(&ends, true).map_err(what)?;
    let times = std::thread::scope(|scope| {
        scope.spawn(move || ends.receiver_stays().and_then(|()| return_balls(far)));
        let play = scope.spawn(move || ends.sender_stays().and_then(|()| serve_balls(near, count, time)));
        play.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let mut times = times.map_err(what)?;
    times.sort_unstable();
    Ok(RoundTrips { sent: times.len(), times })
}

fn serve_balls(mut stream: TcpStream, count: usize, time: Duration) -> io::Result<Vec<Duration>> {
    let (mut times, mut ball, begin) = (Vec::new(), [0], Stopwatch::start());
    while times.len() < count && begin.elapsed() < time {
        let clock = Stopwatch::start();
        stream.write_all(&ball).and_then(|()| stream.read_exact(&mut ball))?;
        times.push(clock.elapsed());
    }
    Ok(times)
}

fn return_balls(mut stream: TcpStream) -> io::Result<()> {
    let mut ball = [0];
    loop {
        stream.read_exact(&mut ball).and_then(|()| stream.write_all(&ball))?;
    }
}

/// Sends datagrams of `size` bytes for `time` as fast as one thread can and counts what arrives.
pub fn udp_rate(ends: Ends<'_>, size: usize, time: Duration) -> Result<DatagramRate, HostError> {
    let what = |e| HostError::io(format!("send datagrams {ends}"), e);
    let (near, far) = udp_pair(&ends)?;
    far.set_read_timeout(Some(Duration::from_millis(500))).map_err(what)?;
    let clock = Stopwatch::start();
    let (poured, received) = std::thread::scope(|scope| {
        let sink = scope.spawn(move || ends.receiver_stays().map(|()| count_datagrams(&far, time, clock)));
        let source = scope.spawn(move || ends.sender_stays().map(|()| pour_datagrams(&near, size, time, clock)));
        let poured = source.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (poured, sink.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let ((sent, spent), received) = (poured.map_err(what)?, received.map_err(what)?);
    Ok(DatagramRate { sent, received, time: spent })
}

fn pour_datagrams(socket: &UdpSocket, size: usize, time: Duration, clock: Stopwatch) -> (u64, Duration) {
    let payload = vec![0x5a; size];
    let mut sent = 0;
    while clock.elapsed() < time {
        // A full queue is what this measures; any other failure shows as datagrams that never arrive.
        if socket.send(&payload).is_ok() {
            sent += 1;
        }
    }
    (sent, clock.elapsed())
}

/// Silence ends it, but not before all was sent.
fn count_datagrams(socket: &UdpSocket, time: Duration, clock: Stopwatch) -> u64 {
    let (mut buffer, mut received) = (vec![0; 65_536], 0);
    loop {
        match socket.recv(&mut buffer) {
            Ok(_) => received += 1,
            Err(_) if clock.elapsed() > time => return received,
            Err(_) => {}
        }
    }
}

/// An echo service for datagrams in a namespace; it ends when this is dropped.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Echo {
    /// Starts the service on an address of the namespace.
    pub fn start(namespace: &str, ip: IpAddr) -> Result<Echo, HostError> {
        use std::sync::atomic::Ordering::Relaxed;
        let what = |e| HostError::io(format!("start an echo service on {ip} in {namespace}"), e);
        let socket = in_namespace(namespace, || UdpSocket::bind((ip, 0)))?.map_err(what)?;
        // The thread looks whether it should end at least this often.
        socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(what)?;
        let address = socket.local_addr().map_err(what)?;
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let serve = move || {
            let mut buffer = vec![0; 65_536];
            while !stopped.load(Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer)
                    && let Some(datagram) = buffer.get(..len)
                    && let Err(error) = socket.send_to(datagram, from)
                {
                    tracing::debug!("an echo to {from} was not sent: {error}");
                }
            }
        };
        let thread = std::thread::Builder::new().name("lab-echo".into()).spawn(serve).map_err(what)?;
        Ok(Echo { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Sends one datagram of `size` bytes from a namespace to an [`Echo`] and waits for it to come back; `None` where it does not in time.
pub fn echo_once(from: &str, to: SocketAddr, size: usize, patience: Duration) -> Result<Option<Duration>, HostError> {
    let trips = echo(from, to, size, 1, Duration::ZERO, patience)?;
    Ok(trips.times.first().copied())
}

/// Sends datagrams to an [`Echo`], one after the other with a pause between them.
pub fn echo(from: &str, to: SocketAddr, size: usize, count: usize, gap: Duration, patience: Duration) -> Result<RoundTrips, HostError> {
    let what = |e| HostError::io(format!("send an echo from {from} to {to}"), e);
    let any: IpAddr = if to.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = in_namespace(from, || UdpSocket::bind((any, 0)))?.map_err(what)?;
    socket.set_read_timeout(Some(patience.max(Duration::from_millis(1)))).map_err(what)?;
    let mut trips = RoundTrips { sent: count, times: Vec::with_capacity(count) };
    for number in 0..count {
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(size.max(payload.len()), 0x5a);
        let mut answer = vec![0; payload.len() + 1];
        let clock = Stopwatch::start();
        // Where there is no route, that is a loss like any other.
        let mut sent = socket.send_to(&payload, to).is_ok();
        // An answer that comes too late is not taken for the next one's.
        while sent && clock.elapsed() < patience {
            match socket.recv(&mut answer) {
                Ok(len) if answer.get(..len) == Some(&payload[..]) => {
                    trips.times.push(clock.elapsed());
                    sent = false;
                }
                Ok(_) => {}
                // The other host may say "unreachable", which is no answer either.
                Err(_) => pause(Duration::from_millis(1)),
            }
        }
        pause(gap);
    }
    trips.times.sort_unstable();
    Ok(trips)
}

fn udp_pair(ends: &Ends<'_>) -> Result<(UdpSocket, UdpSocket), HostError> {
    let Ends { from, to, ip, .. } = *ends;
    let what = |e| HostError::io(format!("open sockets in {from} and {to}"), e);
    let far = in_namespace(to, || UdpSocket::bind((ip, 0)))?.map_err(what)?;
    let target = far.local_addr().map_err(what)?;
    let any: IpAddr = if ip.is_ipv4() { std::net::Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let near = in_namespace(from, || UdpSocket::bind((any, 0)))?.map_err(what)?;
    near.connect(target).map_err(what)?;
    Ok((near, far))
}

/// Both ends of a TCP connection between two namespaces.
fn connected(ends: &Ends<'_>, nodelay: bool) -> io::Result<(TcpStream, TcpStream)> {
    let Ends { from, to, ip, .. } = *ends;
    let listener = in_namespace(to, || TcpListener::bind((ip, 0))).map_err(io::Error::other)??;
    let target = listener.local_addr()?;
    let near = in_namespace(from, || TcpStream::connect_timeout(&target, SILENCE)).map_err(io::Error::other)??;
    let (far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_nodelay(nodelay)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
    }
    Ok((near, far))
}

fn pour(mut stream: TcpStream, time: Duration, clock: Stopwatch) -> io::Result<u64> {
    let block = vec![0x5a; WRITE];
    let mut sent = 0;
    while clock.elapsed() < time {
        stream.write_all(&block)?;
        sent += WRITE as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(sent)
}

fn drain(mut stream: TcpStream) -> io::Result<u64> {
    let mut buffer = vec![0; 2 * WRITE];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(received),
            n => received += n as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_round_trips() {
        let trips = RoundTrips { sent: 5, times: (1..=4).map(Duration::from_millis).collect() };
        assert_eq!(trips.percentile(50), Some(Duration::from_millis(2)));
        assert_eq!(trips.percentile(99), Some(Duration::from_millis(4)));
        assert_eq!(trips.percentile(0), Some(Duration::from_millis(1)));
        assert_eq!(trips.lost(), 1);
        assert_eq!(RoundTrips::default().percentile(50), None);
    }
}
