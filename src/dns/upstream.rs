//! Queries that are not for us, passed on to the host's own name servers.
//!
//! A query goes on as it came but for its id, which is random, from a port of its own; an answer is taken from the server that was asked, with
//! that id and the same question, and passed back as it came. One server at a time is asked, in the order of the file; one that keeps
//! silent is asked last for a while.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::answer::{HEADER, Transport, failure, question_end};
use super::listen::Ears;
use super::resolv::ResolvConf;
use super::{DnsCounters, PORT};
use crate::io::clock::Clock;
use crate::time::Time;

/// How long a server that kept silent is asked after the others.
const REST: Duration = Duration::from_secs(10);
/// The least time a server has, however many there are.
const LEAST: Duration = Duration::from_secs(1);
/// Largest message.
const LARGEST: usize = u16::MAX as usize;

/// The other name servers.
#[derive(Debug)]
pub struct Upstream {
    conf: Mutex<ResolvConf>,
    /// The port of all servers.
    port: u16,
    /// For all servers together.
    patience: Duration,
    /// Until when servers are asked last.
    resting: Mutex<BTreeMap<SocketAddr, Time>>,
    slots: Arc<Semaphore>,
    ears: Ears,
    rng: Mutex<ChaCha20Rng>,
    clock: Clock,
    counters: Arc<DnsCounters>,
}

/// What came of asking one server.
enum Outcome {
    Answer(Vec<u8>),
    /// It answered that it does not or cannot.
    Unwilling(Vec<u8>),
    Silent,
}

impl Upstream {
    /// The servers that `conf` names but for those that `ears` says are ourselves; together they have `patience`. At most `in_flight` queries
    /// wait for them.
    pub fn new(
        conf: &Path,
        patience: Duration,
        in_flight: usize,
        ears: Ears,
        rng: ChaCha20Rng,
        clock: Clock,
        counters: Arc<DnsCounters>,
    ) -> Upstream {
        Upstream {
            conf: Mutex::new(ResolvConf::new(conf)),
            port: PORT,
            patience,
            resting: Mutex::default(),
            slots: Arc::new(Semaphore::new(in_flight)),
            ears,
            rng: Mutex::new(rng),
            clock,
            counters,
        }
    }

    /// The same, but the servers are asked on this port: a test may not have theirs.
    #[cfg(test)]
    pub fn with_port(self, port: u16) -> Upstream {
        Upstream { port, ..self }
    }

    /// Leave to pass one query on; `None` where too many wait.
    pub fn admit(&self) -> Option<OwnedSemaphorePermit> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok();
        if slot.is_none() {
            self.counters.drop_busy.inc();
        }
        slot
    }

    /// The servers that would be asked, first to last.
    pub fn servers(&self) -> Vec<SocketAddr> {
        let now = self.clock.now();
        let mut servers: Vec<SocketAddr> = lock(&self.conf).servers(now).iter().map(|server| (*server, self.port).into()).collect();
        servers.retain(|server| !self.ears.listens(*server));
        let mut resting = lock(&self.resting);
        resting.retain(|server, until| *until > now && servers.contains(server));
        // Stable: in the order of the file otherwise.
        servers.sort_by_key(|server| resting.contains_key(server));
        servers
    }

    /// Asks one server after the other. Where none answers, the answer says that we failed, with `edns` in that form; `None` for what is no query.
    pub async fn ask(&self, query: &[u8], transport: Transport, edns: bool) -> Option<Vec<u8>> {
        self.counters.forwarded.inc();
        let id = *query.first_chunk::<2>()?;
        let end = question_end(query)?;
        let servers = self.servers();
        let each = self.patience.checked_div(servers.len().max(1) as u32).unwrap_or(LEAST).max(LEAST);
        let mut unwilling = None;
        for server in servers {
            match self.ask_one(server, query, end, transport, each).await {
                Outcome::Answer(answer) => return Some(with_id(answer, id)),
                Outcome::Unwilling(answer) => unwilling = Some(answer),
                Outcome::Silent => drop(lock(&self.resting).insert(server, self.clock.now() + REST)),
            }
            self.counters.upstream_failures.inc();
        }
        self.counters.forward_failed.inc();
        unwilling.map(|answer| with_id(answer, id)).or_else(|| failure(query, edns))
    }

    async fn ask_one(&self, server: SocketAddr, query: &[u8], end: usize, transport: Transport, patience: Duration) -> Outcome {
        let id = (lock(&self.rng).next_u32() as u16).to_be_bytes();
        let asked = with_id(query.to_vec(), id);
        let answer = async {
            match transport {
                Transport::Udp => self.over_udp(server, &asked, end).await,
                Transport::Tcp => self.over_tcp(server, &asked, end).await,
            }
        };
        match timeout(patience, answer).await {
            // SERVFAIL, NOTIMP, REFUSED.
            Ok(Ok(answer)) if matches!(answer.get(3).map(|b| b & 0x0f), Some(2 | 4 | 5)) => Outcome::Unwilling(answer),
            Ok(Ok(answer)) => Outcome::Answer(answer),
            Ok(Err(error)) => {
                tracing::debug!("name server {server} cannot be asked: {error}");
                Outcome::Silent
            }
            Err(_) => Outcome::Silent,
        }
    }

    async fn over_udp(&self, server: SocketAddr, asked: &[u8], end: usize) -> io::Result<Vec<u8>> {
        let any: SocketAddr = if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(any).await?;
        // From now on the kernel takes datagrams of this server only, and tells of a closed port.
        socket.connect(server).await?;
        socket.send(asked).await?;
        loop {
            // Room is made only once there is something to read: thousands may wait here.
            socket.readable().await?;
            let mut answer = Vec::with_capacity(LARGEST);
            match socket.try_recv_buf(&mut answer) {
                Ok(_) if answers(&answer, asked, end) => {
                    answer.shrink_to_fit();
                    return Ok(answer);
                }
                Ok(_) => self.counters.drop_wrong_answer.inc(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn over_tcp(&self, server: SocketAddr, asked: &[u8], end: usize) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(server).await?;
        send(&mut stream, asked).await?;
        loop {
            let answer = receive(&mut stream).await?;
            if answers(&answer, asked, end) {
                return Ok(answer);
            }
            self.counters.drop_wrong_answer.inc();
        }
    }
}

/// Writes a message with its length before it (RFC 1035, 4.2.2).
pub async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // In one piece: some servers do not put a length and its message together.
    stream.write_all(&[&len.to_be_bytes()[..], message].concat()).await
}

/// Reads a message with its length before it.
pub async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// True for an answer to what was asked: a response with its id and its question, which may be left out of one that tells of an error.
fn answers(answer: &[u8], asked: &[u8], end: usize) -> bool {
    let Some(header) = answer.first_chunk::<HEADER>() else { return false };
    if header[..2] != asked[..2] || header[2] & 0x80 == 0 || header[2] & 0x78 != asked[2] & 0x78 {
        return false;
    }
    match (answer.get(HEADER..end), asked.get(HEADER..end)) {
        (Some(said), Some(asked)) if header[4..6] == [0, 1] => said.eq_ignore_ascii_case(asked),
        _ => header[4..6] == [0, 0] && header[3] & 0x0f != 0,
    }
}

fn with_id(mut message: Vec<u8>, id: [u8; 2]) -> Vec<u8> {
    message.splice(..2, id);
    message
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
