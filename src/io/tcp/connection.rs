//! One TCP connection.
//!
//! ```text
//!  dialled:   Connecting ── connected, our hello ──► Greeting ── their hello ──────────────► Joined
//!  accepted:                                         Greeting ── their hello, then ours ───► Joined
//! ```
//!
//! Any state ends with the connection, or where its time is over.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::TcpCounters;
use super::frame::{Greeting, HELLO, Malformed, Queue, Splitter};
use crate::forward::Outbox;
use crate::io::sys::sockopt;
use crate::io::udp::{Joint, Joints, Run};
use crate::time::Time;
use crate::wire::Address;

/// From a connection's begin to the end of its hello: one lost first segment is repeated after one second, another after three.
const GREET_WITHIN: Duration = Duration::from_secs(5);
/// From there to the first datagram of a member: as long as a handshake is repeated.
const PROVE_WITHIN: Duration = Duration::from_secs(10);
/// A connection on which nothing comes for this long carries no link: heartbeats are a second apart.
const SILENT: Duration = Duration::from_secs(15);
/// The kernel gives a connection up where it gets no acknowledgement for this long; the mesh has found another way before.
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that the kernel takes beyond those on the wire: what waits is better held where control can still overtake it.
const NOT_SENT: i32 = 64 << 10;
/// Reads, and batches of datagrams, before another connection gets its turn.
const BUDGET: usize = 8;
/// Runs of datagrams that are kept together at most.
const MOST_RUNS: usize = 128;

/// What all connections share.
pub(super) struct Shared<'a> {
    pub now: Time,
    pub registry: &'a Registry,
    pub joints: &'a Joints,
    pub counters: &'a TcpCounters,
    /// Room for one read.
    pub buffer: &'a mut [u8],
    /// Datagrams on their way to the router.
    pub outbox: &'a mut Outbox,
}

/// Why a connection is closed.
#[derive(Debug)]
pub(super) enum End {
    /// The other end closed it, or the network did.
    Broken(io::Error),
    /// Its first bytes are of another protocol.
    Stranger,
    /// Later ones are.
    Malformed,
    /// It could not be joined to the router.
    NotJoined(io::Error),
    /// It took too long to say hello.
    Silent,
    /// It said hello and nothing of a member's.
    Unproven,
    /// It is not used any more.
    Idle,
}

/// How far a connection has come, for those who count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is being made.
    Connecting,
    /// It is there, and the other end has yet to say hello.
    Greeting,
    /// Both have said hello, and nothing has come that is a member's.
    Unproven,
    /// What came is a member's.
    Proven,
}

impl Standing {
    pub const ALL: [Standing; 4] = [Standing::Connecting, Standing::Greeting, Standing::Unproven, Standing::Proven];

    pub fn name(self) -> &'static str {
        match self {
            Standing::Connecting => "connecting",
            Standing::Greeting => "greeting",
            Standing::Unproven => "unproven",
            Standing::Proven => "proven",
        }
    }
}

enum State {
    Connecting,
    Greeting(Vec<u8>),
    Joined(Box<Joint>),
}

/// See the [module](self).
pub(super) struct Connection {
    stream: TcpStream,
    pub remote: SocketAddr,
    /// Which dial it is of, where this end dialled.
    pub dial: Option<u64>,
    token: Token,
    state: State,
    /// When its state began.
    since: Time,
    /// When something came on it last.
    heard: Time,
    readable: bool,
    writable: bool,
    /// Datagrams of the router may wait.
    fed: bool,
    splitter: Splitter,
    queue: Queue,
}

impl Connection {
    /// A connection that is being made, or was `accepted`; its UDP socket will have the token after this one.
    pub fn new(now: Time, stream: TcpStream, remote: SocketAddr, dial: Option<u64>, token: Token) -> Connection {
        let state = if dial.is_some() { State::Connecting } else { State::Greeting(Vec::new()) };
        let (readable, writable) = (dial.is_none(), dial.is_none());
        let (splitter, queue) = (Splitter::default(), Queue::default());
        Connection { stream, remote, dial, token, state, since: now, heard: now, readable, writable, fed: false, splitter, queue }
    }

    /// Takes it into the poll.
    pub fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(&mut self.stream, self.token, Interest::READABLE | Interest::WRITABLE)
    }

    /// The poll has something to say of its stream.
    pub fn stream_event(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// The router has sent something.
    pub fn router_event(&mut self) {
        self.fed = true;
    }

    /// The address under which the mesh knows it, once it is joined.
    pub fn address(&self) -> Option<Address> {
        match &self.state {
            State::Joined(joint) => Some(joint.address()),
            State::Connecting | State::Greeting(_) => None,
        }
    }

    /// How far it has come.
    pub fn standing(&self) -> Standing {
        match &self.state {
            State::Connecting => Standing::Connecting,
            State::Greeting(_) => Standing::Greeting,
            State::Joined(joint) if joint.is_genuine() => Standing::Proven,
            State::Joined(_) => Standing::Unproven,
        }
    }

    /// True where there is work that no event will announce.
    pub fn is_ready(&self) -> bool {
        match self.state {
            State::Connecting => self.writable,
            State::Greeting(_) => self.readable,
            State::Joined(_) => self.readable || self.fed,
        }
    }

    /// Whether its time is over.
    pub fn expired(&self, now: Time) -> Option<End> {
        match &self.state {
            State::Connecting | State::Greeting(_) => (now.since(self.since) >= GREET_WITHIN).then_some(End::Silent),
            State::Joined(joint) if !joint.is_genuine() => (now.since(self.since) >= PROVE_WITHIN).then_some(End::Unproven),
            State::Joined(_) => (now.since(self.heard) >= SILENT).then_some(End::Idle),
        }
    }

    /// Does what can be done without waiting.
    pub fn work(&mut self, shared: &mut Shared<'_>) -> Result<(), End> {
        if matches!(self.state, State::Connecting) && self.writable {
            self.connected(shared.now)?;
        }
        for _ in 0..BUDGET {
            if !self.readable || matches!(self.state, State::Connecting) {
                break;
            }
            self.read(shared)?;
        }
        self.take_from_router(shared.counters);
        self.write(shared.counters)
    }

    fn connected(&mut self, now: Time) -> Result<(), End> {
        if let Some(error) = self.stream.take_error().map_err(End::Broken)? {
            return Err(End::Broken(error));
        }
        if self.stream.peer_addr().is_err() {
            // Not yet: another event will tell.
            self.writable = false;
            return Ok(());
        }
        self.queue.greet();
        (self.state, self.since, self.readable) = (State::Greeting(Vec::new()), now, true);
        Ok(())
    }

    fn read(&mut self, shared: &mut Shared<'_>) -> Result<(), End> {
        let read = match self.stream.read(shared.buffer) {
            Ok(0) => return Err(End::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(End::Broken(error)),
        };
        self.heard = shared.now;
        shared.counters.bytes_in.add(read as u64);
        let mut said = 0;
        if let State::Greeting(got) = &mut self.state {
            said = read.min(HELLO.len() - got.len());
            got.extend_from_slice(shared.buffer.get(..said).unwrap_or_default());
            match Greeting::of(got) {
                Greeting::Part => return Ok(()),
                Greeting::Strange => return Err(End::Stranger),
                Greeting::Whole => self.join(shared)?,
            }
        }
        let State::Joined(joint) = &mut self.state else { return Ok(()) };
        let (router, counters, outbox) = (shared.joints.router(), shared.counters, &mut *shared.outbox);
        let pushed = self.splitter.push(shared.buffer.get(said..read).unwrap_or_default(), |datagram| {
            counters.datagrams_in.inc();
            let lane = datagram.get(2).map_or(0, |lane| lane >> 4);
            match outbox.reserve(router, lane, datagram.len()) {
                Some(room) => room.copy_from_slice(datagram),
                None => counters.not_handed_on.inc(),
            }
            if outbox.len() >= MOST_RUNS {
                hand_on(joint, outbox);
            }
        });
        hand_on(joint, outbox);
        pushed.map_err(|Malformed| End::Malformed)
    }

    fn join(&mut self, shared: &mut Shared<'_>) -> Result<(), End> {
        if self.dial.is_none() {
            self.queue.greet();
        }
        let mut joint = shared.joints.join(self.remote).map_err(End::NotJoined)?;
        shared.registry.register(&mut joint.socket, Token(self.token.0 + 1), Interest::READABLE).map_err(End::NotJoined)?;
        shared.counters.joined.inc();
        (self.state, self.since) = (State::Joined(Box::new(joint)), shared.now);
        Ok(())
    }

    fn take_from_router(&mut self, counters: &TcpCounters) {
        let State::Joined(joint) = &mut self.state else { return };
        let mut failures = 0;
        for _ in 0..BUDGET {
            if !self.fed {
                break;
            }
            let Ok(batch) = joint.socket.recv() else {
                // Counted by the socket; what lies behind the failure announces itself no second time. One that stays is given up.
                failures += 1;
                self.fed = failures < BUDGET;
                continue;
            };
            self.fed = batch.more;
            for message in batch.messages {
                for datagram in batch.buffer.get(message.range.clone()).unwrap_or_default().chunks(message.segment) {
                    match self.queue.push(datagram) {
                        true => counters.datagrams_out.inc(),
                        false => counters.queue_full.inc(),
                    }
                }
            }
        }
    }

    fn write(&mut self, counters: &TcpCounters) -> Result<(), End> {
        while self.writable {
            let next = self.queue.front();
            if next.is_empty() {
                break;
            }
            match self.stream.write(next) {
                Ok(sent) => {
                    self.queue.took(sent);
                    counters.bytes_out.add(sent as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(End::Broken(error)),
            }
        }
        Ok(())
    }
}

/// Gives the router what has come.
fn hand_on(joint: &mut Joint, outbox: &mut Outbox) {
    joint.socket.send(outbox.runs().map(|(to, bytes, segment)| Run { to, bytes, source: None, segment }));
    outbox.clear();
}

/// Sets what is asked of every stream.
pub(super) fn tune(stream: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    sockopt::set(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, NOT_SENT)
}
