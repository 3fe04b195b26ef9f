//! The tasks of the name server: one for each socket, one for each connection and each query that is passed on.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::DnsCounters;
use super::answer::{Answerer, Form, Transport, Verdict, failure, truncate};
use super::asked::Asked;
use super::connections::Connections;
use super::listen::{Ears, Listening, Place};
use super::upstream::{Upstream, receive, send};
use crate::io::clock::Clock;
use crate::io::entropy;
use crate::names::View;
use crate::wire::PeerName;

/// How often a port that somebody else has is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Queries of one connection that are passed on at once; more wait.
const PIPELINED: usize = 16;
/// How long a connection may be silent, take for a query, or take for reading an answer.
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
    asked: Arc<Asked>,
    told: Option<mpsc::Receiver<PeerName>>,
}

#[derive(Debug)]
struct Inner {
    view: Arc<RwLock<View>>,
    answerer: Answerer,
    upstream: Arc<Upstream>,
    connections: Arc<Connections>,
    rng: Mutex<ChaCha20Rng>,
    counters: Arc<DnsCounters>,
}

impl Server {
    /// A name server for the names of `view`. Fails where the kernel gives no randomness.
    pub fn new(config: &Config, view: Arc<RwLock<View>>, ears: Ears, clock: Clock, counters: Arc<DnsCounters>) -> io::Result<Server> {
        let (asked, told) = Asked::new(clock);
        let asked = Arc::new(asked);
        let answerer = Answerer::new(&view.read().unwrap_or_else(PoisonError::into_inner), config.ttl).telling(Arc::clone(&asked));
        let (rng, ids) = (entropy::generator()?, entropy::generator()?);
        let upstream =
            Upstream::new(&config.resolv_conf, config.patience, config.in_flight, ears.clone(), ids, clock, Arc::clone(&counters));
        let (upstream, connections, rng) = (Arc::new(upstream), Arc::default(), Mutex::new(rng));
        Ok(Server { inner: Arc::new(Inner { view, answerer, upstream, connections, rng, counters }), ears, asked, told: Some(told) })
    }

    /// Where the routers come out whose names are asked for, each now and then; `None` where that was taken before.
    pub fn told(&mut self) -> Option<mpsc::Receiver<PeerName>> {
        self.told.take()
    }

    /// Where is noted whose names are asked for in other ways than by queries.
    pub fn asked(&self) -> Arc<Asked> {
        Arc::clone(&self.asked)
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
            Verdict::Forward(Form { limit, edns }) => match inner.upstream.admit() {
                Some(slot) => {
                    let (inner, socket, query) = (Arc::clone(&inner), Arc::clone(&socket), query.to_vec());
                    tokio::spawn(async move {
                        let _slot = slot;
                        let answer = inner.upstream.ask(&query, Transport::Udp, edns).await;
                        let fits =
                            |answer: Vec<u8>| if answer.len() <= usize::from(limit) { Some(answer) } else { truncate(&answer, edns) };
                        if let Some(answer) = answer.and_then(fits) {
                            inner.send(&socket, &answer, from);
                        }
                    });
                }
                None => {
                    if let Some(answer) = failure(query, edns) {
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
            Ok((stream, caller)) => match inner.connections.admit(caller.ip()) {
                Some(seat) => {
                    let inner = Arc::clone(&inner);
                    tokio::spawn(async move {
                        let _seat = seat;
                        converse(&inner, stream, IDLE).await;
                    });
                }
                None => inner.counters.drop_connections.inc(),
            },
            Err(error) => {
                tracing::debug!("the name server cannot accept a connection: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Answers the queries of one connection. What is passed on holds up none that comes after it, and is answered when it is (RFC 7766, 6.2.1.1).
async fn converse(inner: &Arc<Inner>, stream: TcpStream, idle: Duration) {
    let (mut read, write) = stream.into_split();
    let write = Arc::new(tokio::sync::Mutex::new(Some(write)));
    let mut passed_on = JoinSet::new();
    // A caller that hangs up, or says nothing for long, is done.
    while let Ok(Ok(query)) = timeout(idle, receive(&mut read)).await {
        match inner.judge(&query, Transport::Tcp) {
            Verdict::Answer(answer) => {
                if !reply(&write, &answer, idle).await {
                    return;
                }
            }
            Verdict::Drop => return,
            Verdict::Forward(form) => {
                if passed_on.len() >= PIPELINED {
                    passed_on.join_next().await;
                }
                let (inner, write) = (Arc::clone(inner), Arc::clone(&write));
                passed_on.spawn(async move {
                    let answer = match inner.upstream.admit() {
                        Some(_slot) => inner.upstream.ask(&query, Transport::Tcp, form.edns).await,
                        None => failure(&query, form.edns),
                    };
                    if let Some(answer) = answer {
                        reply(&write, &answer, idle).await;
                    }
                });
            }
        }
        while passed_on.try_join_next().is_some() {}
    }
    // Whoever says that nothing more comes may still wait for what was asked.
    while passed_on.join_next().await.is_some() {}
}

/// Sends one answer; false where the caller does not take it. Half an answer is the last that was sent.
async fn reply(write: &tokio::sync::Mutex<Option<OwnedWriteHalf>>, answer: &[u8], idle: Duration) -> bool {
    let mut slot = write.lock().await;
    let Some(mut half) = slot.take() else { return false };
    let sent = matches!(timeout(idle, send(&mut half, answer)).await, Ok(Ok(())));
    *slot = sent.then_some(half);
    sent
}

#[cfg(test)]
mod tests;
