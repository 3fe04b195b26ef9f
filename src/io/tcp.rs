//! Datagrams over TCP, for networks that let no UDP through.
//!
//! ```text
//!  mesh and packet threads ── UDP, on this host ── one UDP socket each ── this thread ── TCP ── the same thread of another router
//! ```
//!
//! The thread owns the TCP connections. It looks into no datagram but for its length and whether it is control, knows no key, and joins
//! each connection to the router's UDP sockets by a socket of this host's own ([`Joint`](super::udp::Joint)), so that all
//! others see one more UDP peer; the mesh knows such a peer as [`Address::Tcp`]. Who dials is the mesh's to decide.
//!
//! Framing and queues are in [`frame`], what a connection goes through in `connection`. What a datagram finds full is dropped, as anywhere
//! on the way: TCP's own retransmissions are the only wait that is added, and the mesh sees in its heartbeats how long it is.
//!
//! A stranger costs little: connections are bounded, in all and per source, and closed where they do not say hello, or say it and prove
//! nothing.

mod connection;
pub mod frame;
mod listen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use super::clock::Clock;
use super::mailbox::{self, Receiver, Sender};
use super::udp::Joints;
use crate::forward::Outbox;
use crate::time::Time;
use crate::wire::Address;
use connection::{Connection, End, Shared, Standing, tune};

pub use listen::{TcpError, listen};

/// Of all connections, the accepted ones of which nothing has come yet that is a member's: strangers, however many networks they come from, leave
/// room for those that this router makes.
const MOST_UNPROVEN: usize = 128;
/// Connections at once: each takes two descriptors of the 1024 that a process has by default.
const MOST: usize = 256;
/// Of those, the accepted ones from one IPv4 address, or from one network of 64 bits of IPv6: as many routers may share a NAT.
const MOST_PER_SOURCE: usize = 32;
/// Addresses of one host that are tried side by side.
const MOST_ADDRESSES: usize = 4;
/// Connections accepted before others get their turn.
const ACCEPTS: usize = 32;
/// How often the time of connections is looked at, while there are any.
const SWEEP: Duration = Duration::from_secs(1);
/// Messages the mailbox holds.
const MAILBOX: usize = 256;
/// Bytes of one read.
const READ: usize = 64 << 10;
/// The mailbox's waker. A connection has an even token and its UDP socket the odd one after it; listeners count down from here.
const WAKE: Token = Token(usize::MAX);

crate::counters! {
    /// What the thread that carries TCP did and dropped.
    pub struct TcpCounters {
        /// TCP connections accepted.
        accepted,
        /// TCP connections tried.
        dialled,
        /// TCP connections whose ends have said hello.
        joined,
        /// TCP connections closed, for whatever reason.
        closed,
        /// Bytes received by TCP.
        bytes_in,
        /// Bytes sent by TCP.
        bytes_out,
        /// Datagrams received by TCP.
        datagrams_in,
        /// Datagrams sent by TCP.
        datagrams_out,
        /// Datagrams dropped because TCP took no more.
        queue_full,
        /// Datagrams received by TCP that were not handed on to the router.
        not_handed_on,
        /// TCP connections turned away because there were too many, in all, from one source, or of strangers.
        over_limit,
        /// TCP connections closed because they began with something else than a hello.
        strangers,
        /// TCP connections closed because no hello came in time.
        silent,
        /// TCP connections closed because nothing that came by them was a member's.
        unproven,
        /// TCP connections closed because what came was no datagram.
        malformed,
        /// TCP connections that could not be accepted or joined.
        failed,
    }
}

/// How many connections there are now, by what has come of them.
#[derive(Debug, Default)]
pub struct TcpConnections([AtomicUsize; Standing::ALL.len()]);

impl TcpConnections {
    /// Each state with its number.
    pub fn read(&self) -> [(&'static str, usize); Standing::ALL.len()] {
        let numbers = self.0.each_ref().map(|number| number.load(Ordering::Relaxed));
        std::array::from_fn(|n| (Standing::ALL[n].name(), numbers[n]))
    }

    fn write(&self, standings: impl Iterator<Item = Standing>) {
        let mut numbers = [0; Standing::ALL.len()];
        standings.for_each(|standing| numbers[standing as usize] += 1);
        self.0.iter().zip(numbers).for_each(|(old, new)| old.store(new, Ordering::Relaxed));
    }
}

/// What becomes of a dial: the address under which the mesh knows the connection, or why there is none.
pub type Answer = Box<dyn FnOnce(Result<Address, String>) + Send>;

/// What the other threads ask for.
pub enum TcpInput {
    /// Connect to the first of these addresses that answers.
    Dial(Vec<SocketAddr>, Answer),
    /// End.
    Stop,
}

/// The parts the thread is made of.
pub struct TcpParts {
    /// Where others connect to.
    pub listeners: Vec<TcpListener>,
    /// What joins connections to the router's sockets.
    pub joints: Joints,
    /// Addresses that this host may dial from; empty for all.
    pub binds: Vec<IpAddr>,
    /// What is counted.
    pub counters: Arc<TcpCounters>,
    /// How many connections there are.
    pub open: Arc<TcpConnections>,
    /// The time.
    pub clock: Clock,
}

struct Dial {
    answer: Answer,
    /// Connections still being tried.
    open: usize,
}

/// Everything the thread owns.
pub struct TcpThread {
    parts: TcpParts,
    poll: Poll,
    inbox: Receiver<TcpInput>,
    connections: BTreeMap<usize, Connection>,
    dials: BTreeMap<u64, Dial>,
    /// Listeners that may have more.
    accepting: Vec<bool>,
    next_token: usize,
    next_dial: u64,
    sweep: Time,
    buffer: Box<[u8]>,
    outbox: Outbox,
}

impl TcpThread {
    /// Joins the parts; the other half is the thread's mailbox.
    pub fn new(mut parts: TcpParts) -> io::Result<(TcpThread, Sender<TcpInput>)> {
        let poll = Poll::new()?;
        let (sender, inbox) = mailbox::mailbox(MAILBOX, Arc::new(Waker::new(poll.registry(), WAKE)?));
        for (n, listener) in parts.listeners.iter_mut().enumerate() {
            poll.registry().register(listener, Token(WAKE.0 - 1 - n), Interest::READABLE)?;
        }
        let accepting = vec![true; parts.listeners.len()];
        let thread = TcpThread {
            parts,
            poll,
            inbox,
            connections: BTreeMap::new(),
            dials: BTreeMap::new(),
            accepting,
            next_token: 0,
            next_dial: 0,
            sweep: Time::ZERO,
            buffer: vec![0; READ].into_boxed_slice(),
            outbox: Outbox::new(),
        };
        Ok((thread, sender))
    }

    /// Runs until [`TcpInput::Stop`], or until polling fails, which is returned.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        let mut more = false;
        loop {
            let busy = more || self.accepting.contains(&true) || self.connections.values().any(Connection::is_ready);
            let timeout = if busy { Some(Duration::ZERO) } else { (!self.connections.is_empty()).then_some(SWEEP) };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            events.iter().for_each(|event| self.note(event));
            let mut inputs = Vec::new();
            more = self.inbox.drain(MAILBOX, |input| inputs.push(input));
            for input in inputs {
                match input {
                    TcpInput::Dial(addresses, answer) => self.dial(&addresses, answer),
                    TcpInput::Stop => {
                        self.connections.values_mut().for_each(Connection::router_event);
                        self.work();
                        return Ok(());
                    }
                }
            }
            self.accept();
            self.work();
            self.expire();
            self.parts.open.write(self.connections.values().map(Connection::standing));
        }
    }

    fn note(&mut self, event: &mio::event::Event) {
        let token = event.token();
        if let Some(accepting) = self.accepting.get_mut(WAKE.0.wrapping_sub(1).wrapping_sub(token.0)) {
            *accepting = true;
        } else if let Some(connection) = self.connections.get_mut(&(token.0 & !1)) {
            match token.0 & 1 {
                0 => connection.stream_event(event.is_readable() || event.is_read_closed(), event.is_writable() || event.is_error()),
                _ => connection.router_event(),
            }
        }
    }

    fn accept(&mut self) {
        for n in 0..self.accepting.len() {
            for _ in 0..ACCEPTS {
                let Some(listener) = self.parts.listeners.get(n).filter(|_| self.accepting.get(n) == Some(&true)) else { break };
                match listener.accept() {
                    Ok((stream, remote)) => self.accepted(stream, Address::tcp(remote, 0).socket_addr()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.accept_again(n, false),
                    // Out of descriptors, or the caller has gone: the next event or sweep is early enough.
                    Err(_) => {
                        self.parts.counters.failed.inc();
                        self.accept_again(n, false);
                    }
                }
            }
        }
    }

    fn accept_again(&mut self, listener: usize, again: bool) {
        if let Some(accepting) = self.accepting.get_mut(listener) {
            *accepting = again;
        }
    }

    fn accepted(&mut self, stream: TcpStream, remote: SocketAddr) {
        let counters = &self.parts.counters;
        counters.accepted.inc();
        let source = source(remote.ip());
        let accepted = || self.connections.values().filter(|other| other.dial.is_none());
        let from_there = accepted().filter(|other| self::source(other.remote.ip()) == source).count();
        let unproven = accepted().filter(|other| other.standing() != Standing::Proven).count();
        if self.connections.len() >= MOST || from_there >= MOST_PER_SOURCE || unproven >= MOST_UNPROVEN {
            counters.closed.inc();
            counters.over_limit.inc();
            return;
        }
        if self.add(stream, remote, None).is_err() {
            self.parts.counters.failed.inc();
            self.parts.counters.closed.inc();
        }
    }

    fn add(&mut self, stream: TcpStream, remote: SocketAddr, dial: Option<u64>) -> io::Result<()> {
        tune(&stream)?;
        let token = self.next_token;
        let mut connection = Connection::new(self.parts.clock.now(), stream, remote, dial, Token(token));
        connection.register(self.poll.registry())?;
        self.next_token += 2;
        self.connections.insert(token, connection);
        Ok(())
    }

    fn dial(&mut self, addresses: &[SocketAddr], answer: Answer) {
        let id = self.next_dial;
        self.next_dial += 1;
        let (mut open, mut why) = (0, "the name has no address".to_string());
        for remote in addresses.iter().map(|addr| Address::tcp(*addr, 0).socket_addr()).take(MOST_ADDRESSES) {
            self.parts.counters.dialled.inc();
            let made = match self.connections.len() < MOST {
                true => listen::dial(remote, &self.parts.binds).and_then(|stream| self.add(stream, remote, Some(id))),
                false => Err(io::Error::other("this router has as many TCP connections as it may have")),
            };
            match made {
                Ok(()) => open += 1,
                Err(error) => {
                    self.parts.counters.closed.inc();
                    why = format!("cannot connect to {remote} by TCP: {error}");
                }
            }
        }
        match open {
            0 => answer(Err(why)),
            _ => drop(self.dials.insert(id, Dial { answer, open })),
        }
    }

    fn work(&mut self) {
        let now = self.parts.clock.now();
        let (mut ended, mut joined) = (Vec::new(), Vec::new());
        let mut shared = Shared {
            now,
            registry: self.poll.registry(),
            joints: &self.parts.joints,
            counters: &self.parts.counters,
            buffer: &mut self.buffer,
            outbox: &mut self.outbox,
        };
        for (token, connection) in &mut self.connections {
            let before = connection.address();
            match connection.work(&mut shared) {
                Ok(()) if before.is_none() => joined.extend(connection.dial.zip(connection.address())),
                Ok(()) => {}
                Err(end) => ended.push((*token, end)),
            }
        }
        for (id, address) in joined {
            // The other addresses of the host are not needed any more: their connections end by themselves, having proved nothing.
            if let Some(dial) = self.dials.remove(&id) {
                (dial.answer)(Ok(address));
            }
        }
        ended.into_iter().for_each(|(token, end)| self.end(token, &end));
    }

    fn expire(&mut self) {
        let now = self.parts.clock.now();
        if now < self.sweep {
            return;
        }
        self.sweep = now + SWEEP;
        let over: Vec<(usize, End)> =
            self.connections.iter().filter_map(|(token, connection)| Some((*token, connection.expired(now)?))).collect();
        over.into_iter().for_each(|(token, end)| self.end(token, &end));
        // Where descriptors ran out, callers may still wait.
        self.accepting.fill(true);
    }

    fn end(&mut self, token: usize, end: &End) {
        let Some(connection) = self.connections.remove(&token) else { return };
        let (dial, remote) = (connection.dial, connection.remote);
        let counters = &self.parts.counters;
        match end {
            End::Broken(_) | End::Idle => {}
            End::Stranger => counters.strangers.inc(),
            End::Malformed => counters.malformed.inc(),
            End::NotJoined(_) => counters.failed.inc(),
            End::Silent => counters.silent.inc(),
            End::Unproven => counters.unproven.inc(),
        }
        // Its address is no more before it is told that it is closed.
        drop(connection);
        counters.closed.inc();
        let Some(id) = dial else { return };
        let Some(dial) = self.dials.get_mut(&id) else { return };
        dial.open -= 1;
        if dial.open == 0
            && let Some(dial) = self.dials.remove(&id)
        {
            (dial.answer)(Err(sentence(remote, end)));
        }
    }
}

/// Why a dial failed.
fn sentence(remote: SocketAddr, end: &End) -> String {
    match end {
        End::Broken(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!("{remote} closed the TCP connection: is a router there (--tcp-listen), of this version, and not full?")
        }
        End::Broken(error) => format!("cannot connect to {remote} by TCP: {error}"),
        End::Stranger | End::Malformed => format!("what listens on TCP {remote} is no router of this version"),
        End::NotJoined(error) => format!("cannot use the TCP connection to {remote}: {error}"),
        End::Silent | End::Unproven | End::Idle => format!("{remote} does not answer by TCP"),
    }
}

/// Whom a limit holds together.
fn source(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
    }
}
