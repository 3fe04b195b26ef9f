//! The tasks of the name server: one for each socket, one for each connection and each query that is passed on.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::DnsCounters;
use super::answer::{Answerer, Transport, Verdict, failure, truncate};
use super::listen::{Ears, Listening, Place};
use super::upstream::{Upstream, receive, send};
use crate::io::clock::Clock;
use crate::io::entropy;
use crate::names::View;

/// How often a port that somebody else has is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// TCP connections at once; more are closed.
const CONNECTIONS: usize = 256;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// How long a failing socket is left alone.
const PAUSE: Duration = Duration::from_millis(100);
/// Largest query that is read from a datagram.
const LARGEST: usize = 4096;

/// How the name server works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long answers may be kept, in seconds.
    pub ttl: u32,
    /// The file that names the host's own name servers.
    pub resolv_conf: PathBuf,
    /// How long they may take together.
    pub patience: Duration,
    /// Most queries that wait for them; each has a socket.
    pub in_flight: usize,
}

/// The name server.
#[derive(Debug)]
pub struct Server {
    inner: Arc<Inner>,
    ears: Ears,
}

#[derive(Debug)]
struct Inner {
    view: Arc<RwLock<View>>,
    answerer: Answerer,
    upstream: Arc<Upstream>,
    connections: Arc<Semaphore>,
    rng: Mutex<ChaCha20Rng>,
    counters: Arc<DnsCounters>,
}

impl Server {
    /// A name server for the names of `view`. Fails where the kernel gives no randomness.
    pub fn new(config: &Config, view: Arc<RwLock<View>>, ears: Ears, clock: Clock, counters: Arc<DnsCounters>) -> io::Result<Server> {
        let answerer = Answerer::new(&view.read().unwrap_or_else(PoisonError::into_inner), config.ttl);
        let (rng, ids) = (entropy::generator()?, entropy::generator()?);
        let upstream =
            Upstream::new(&config.resolv_conf, config.patience, config.in_flight, ears.clone(), ids, clock, Arc::clone(&counters));
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        Ok(Server {
            inner: Arc::new(Inner { view, answerer, upstream: Arc::new(upstream), connections, rng: Mutex::new(rng), counters }),
            ears,
        })
    }

    /// The name servers that are asked for other names.
    pub fn upstream(&self) -> Arc<Upstream> {
        Arc::clone(&self.inner.upstream)
    }

    /// Listens where `places` says, until its sender is gone.
    pub async fn run(self, mut places: watch::Receiver<BTreeSet<Place>>) {
        let mut listening = Listening::new(self.ears);
        let serve = |udp, tcp| -> Vec<JoinHandle<()>> {
            vec![tokio::spawn(serve_udp(Arc::clone(&self.inner), udp)), tokio::spawn(serve_tcp(Arc::clone(&self.inner), tcp))]
        };
        loop {
            let wanted = places.borrow_and_update().clone();
            let settled = listening.settle(&wanted, serve);
            let again = async {
                match settled {
                    true => std::future::pending().await,
                    false => sleep(RETRY).await,
                }
            };
            tokio::select! {
                changed = places.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }
}

impl Inner {
    fn judge(&self, query: &[u8], transport: Transport) -> Verdict {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        self.answerer.judge(query, transport, &view, &mut *rng, &self.counters)
    }

    fn send(&self, socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
        // Not waited for: a caller whose answer is lost asks again.
        if socket.try_send_to(answer, to).is_err() {
            self.counters.drop_unsent.inc();
        }
    }
}

async fn serve_udp(inner: Arc<Inner>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; LARGEST];
    loop {
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!("the name server cannot receive: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let query = &buffer[..len];
        match inner.judge(query, Transport::Udp) {
            Verdict::Answer(answer) => inner.send(&socket, &answer, from),
            Verdict::Drop => {}
            Verdict::Forward(limit) => match inner.upstream.admit() {
                Some(slot) => {
                    let (inner, socket, query) = (Arc::clone(&inner), Arc::clone(&socket), query.to_vec());
                    tokio::spawn(async move {
                        let _slot = slot;
                        let answer = inner.upstream.ask(&query, Transport::Udp).await;
                        let fits = |answer: Vec<u8>| if answer.len() <= usize::from(limit) { Some(answer) } else { truncate(&answer) };
                        if let Some(answer) = answer.and_then(fits) {
                            inner.send(&socket, &answer, from);
                        }
                    });
                }
                None => {
                    if let Some(answer) = failure(query) {
                        inner.send(&socket, &answer, from);
                    }
                }
            },
        }
    }
}

async fn serve_tcp(inner: Arc<Inner>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match Arc::clone(&inner.connections).try_acquire_owned() {
                Ok(slot) => {
                    let inner = Arc::clone(&inner);
                    tokio::spawn(async move {
                        let _slot = slot;
                        // A caller that hangs up, or says nothing for long, is done.
                        let _ = converse(&inner, stream).await;
                    });
                }
                Err(_) => inner.counters.drop_connections.inc(),
            },
            Err(error) => {
                tracing::debug!("the name server cannot accept a connection: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Answers the queries of one connection, one after the other.
async fn converse(inner: &Inner, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let query = timeout(IDLE, receive(&mut stream)).await??;
        let answer = match inner.judge(&query, Transport::Tcp) {
            Verdict::Answer(answer) => answer,
            Verdict::Drop => return Ok(()),
            Verdict::Forward(_) => {
                let answer = match inner.upstream.admit() {
                    Some(_slot) => inner.upstream.ask(&query, Transport::Tcp).await,
                    None => failure(&query),
                };
                match answer {
                    Some(answer) => answer,
                    None => return Ok(()),
                }
            }
        };
        timeout(IDLE, send(&mut stream, &answer)).await??;
    }
}

#[cfg(test)]
mod tests;
