//! One UDP socket: batches both ways, with segmentation and receive offload where they work.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use crossbeam::utils::CachePadded;
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::Socket;

use super::UdpCounters;
use super::joint::Carried;
use super::run::{MAX_SEGMENTS, Messages, Run, count};
use crate::forward::forwarder::Received;
use crate::io::offload::{self, Kind, Offload, OffloadPolicy};
use crate::io::sys::kernel;
use crate::io::sys::mmsg::{self, Message, RECV_BATCH};
use crate::io::sys::sockopt;
use crate::wire::address::Address;

/// Room for one message: loopback and veth hand over joined buffers of any size that IP can have.
const RECV_SIZE: usize = 65_536;
/// From the room of one message to that of the next: not so many bytes that all begin in the same few places of a CPU's cache.
const RECV_STRIDE: usize = RECV_SIZE + 24 * 64;
/// Messages of one call while they are joined ones, of up to 64 KiB: more of them would keep the other direction waiting, and gain nothing.
const RECV_FEW: usize = 8;
/// Longer messages, in the mean, are joined ones.
const RECV_SMALL: usize = 4096;
/// Bytes of room in each direction, asked from the kernel: with the default of 212 KiB, TCP over the mesh sees loss at multi-gigabit rates.
pub(super) const SOCKET_BUFFER: i32 = 8 << 20;
/// Addresses remembered as too small for a datagram, or without a way, until the caller asks; the others come again with the next datagram.
const TOO_BIG: usize = 32;

/// A bound, non-blocking UDP socket with its receive buffers.
pub struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
    buffers: Box<[u8]>,
    /// Messages that the next call takes at most.
    batch: usize,
    /// What the last call has received.
    messages: Vec<Received>,
    /// For the control socket: senders of the last call, and the address of this host that each has sent to.
    heard: Vec<(Address, IpAddr)>,
    control: bool,
    granted: i32,
    gso: Offload,
    gro: Offload,
    too_big: Vec<Address>,
    unreachable: Vec<Address>,
    /// The last reading of the kernel's drop count.
    dropped: u32,
    counters: Arc<CachePadded<UdpCounters>>,
    /// Which senders are TCP connections.
    carried: Carried,
}

/// What one receive call has brought.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Where the datagrams lie.
    pub buffer: &'a mut [u8],
    /// The messages, in order of arrival.
    pub messages: &'a [Received],
    /// False where the queue was found empty: the next datagram is a new event.
    pub more: bool,
}

/// Which offloads a socket uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffloadReport {
    /// Segmentation of sends (`UDP_SEGMENT`).
    pub gso: Offload,
    /// Joined receives (`UDP_GRO`).
    pub gro: Offload,
}

impl UdpSocket {
    pub(super) fn new(
        socket: Socket,
        local: SocketAddr,
        control: bool,
        policy: OffloadPolicy,
        counters: Arc<CachePadded<UdpCounters>>,
        carried: Carried,
    ) -> io::Result<UdpSocket> {
        let fd = socket.as_fd();
        // Don't fragment, and don't let an ICMP message that anybody can forge stop us: the mesh finds the path MTU by itself.
        let (level, option, probe) = match local {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
        };
        sockopt::set(fd, level, option, probe)?;
        sockopt::set(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
        let receive = grow(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
        let granted = receive.min(grow(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?);
        let release = kernel::release().unwrap_or_default();
        // Setting "no segmentation" by default changes nothing, but fails where the kernel knows no segmentation.
        let gso = probed(policy, Kind::Gso, &release, "UDP_SEGMENT", || sockopt::set(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0));
        let gro = probed(policy, Kind::Gro, &release, "UDP_GRO", || sockopt::set(fd, libc::SOL_UDP, libc::UDP_GRO, 1));
        let buffers = vec![0; RECV_BATCH * RECV_STRIDE].into_boxed_slice();
        if control && local.ip().is_unspecified() {
            let (level, option) =
                if local.is_ipv4() { (libc::IPPROTO_IP, libc::IP_PKTINFO) } else { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) };
            sockopt::set(fd, level, option, 1)?;
        }
        let (messages, heard) = (Vec::with_capacity(RECV_BATCH), Vec::new());
        Ok(UdpSocket {
            socket,
            local,
            buffers,
            batch: RECV_FEW,
            messages,
            heard,
            control,
            granted,
            gso,
            gro,
            too_big: Vec::with_capacity(TOO_BIG),
            unreachable: Vec::with_capacity(TOO_BIG),
            dropped: 0,
            counters,
            carried,
        })
    }

    /// What the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The smaller of the kernel's buffers that the socket got, in bytes.
    pub(super) fn granted_buffer(&self) -> i32 {
        self.granted
    }

    /// Which offloads are in use, and why not those that are not.
    pub fn offload_report(&self) -> OffloadReport {
        OffloadReport { gso: self.gso.clone(), gro: self.gro.clone() }
    }

    /// Receives a batch of messages: as many more of single datagrams as it takes for them to be joined to super frames as long as those of the kernel.
    pub fn recv(&mut self) -> io::Result<Batch<'_>> {
        let (counters, dropped, messages) = (&self.counters, &mut self.dropped, &mut self.messages);
        let (heard, bound) = (&mut self.heard, self.control.then_some(self.local.ip()));
        let carried = self.carried.load();
        messages.clear();
        heard.clear();
        counters.receive_calls.inc();
        let result = mmsg::receive(self.socket.as_fd(), &mut self.buffers, (RECV_SIZE, RECV_STRIDE), self.batch, |message| {
            if let Some(now) = message.dropped {
                counters.kernel_drops.add(now.wrapping_sub(*dropped).into());
                *dropped = now;
            }
            if message.truncated {
                counters.recv_truncated.inc();
            } else {
                let from = carried.address_of(message.from);
                if let Some(own) = message.local.or(bound).filter(|own| bound.is_some() && !own.is_unspecified()) {
                    heard.push((from, own));
                }
                messages.push(Received { from, range: message.range, segment: message.segment });
            }
        });
        let received = match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => {
                self.counters.recv_failed.inc();
                return Err(error);
            }
            Ok(received) => received,
        };
        let more = received == self.batch;
        self.batch = next_batch(self.batch, received, self.messages.iter().map(|message| message.range.len()).sum());
        Ok(Batch { buffer: &mut self.buffers, messages: &self.messages, more })
    }

    /// The address of this host that `peer` has sent to in the last call.
    pub(super) fn heard_on(&self, peer: Address) -> Option<IpAddr> {
        self.heard.iter().rev().find(|(from, _)| *from == peer).map(|(_, own)| *own)
    }

    /// Forgets what [`UdpSocket::heard_on`] says.
    pub(super) fn answered(&mut self) {
        self.heard.clear();
    }

    /// Sends runs to addresses of this socket's family; how many datagrams the kernel took. The rest are dropped and counted.
    /// The iterator is cloned to go through it again, and each clone must yield the same.
    pub fn send<'a>(&mut self, runs: impl Iterator<Item = Run<'a>> + Clone) -> usize {
        let mut messages = Messages::new(runs, self.max_segments());
        let mut sent = 0;
        loop {
            let (taken, failed) = push(self.socket.as_fd(), &mut messages, &self.counters);
            sent += taken;
            let Some((message, error)) = failed else { return sent };
            if error.kind() == io::ErrorKind::WouldBlock {
                let dropped = count(&message) + messages.map(|m| count(&m)).sum::<usize>();
                self.counters.send_again.add(dropped as u64);
                return sent;
            }
            match message.segment {
                Some(segment) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE)) => {
                    sent += self.send_singly(&message, segment, &error);
                    messages.limit(self.max_segments());
                }
                _ => self.refused(&message, &error),
            }
        }
    }

    /// Addresses that a datagram was too big for since the last call.
    pub fn take_too_big(&mut self) -> impl Iterator<Item = Address> {
        self.too_big.drain(..)
    }

    /// Addresses to which the kernel had no way since the last call.
    pub fn take_unreachable(&mut self) -> impl Iterator<Item = Address> {
        self.unreachable.drain(..)
    }

    fn max_segments(&self) -> usize {
        if self.gso.is_on() { MAX_SEGMENTS } else { 1 }
    }

    /// Sends the datagrams of a message that failed with `error` one by one: if that works, segmentation offload is to blame.
    fn send_singly(&mut self, message: &Message<'_>, segment: u16, error: &io::Error) -> usize {
        let run = Run { to: Address::udp(message.to), source: message.source, bytes: message.bytes, segment: segment.into() };
        let mut singles = Messages::new(std::iter::once(run), 1);
        let mut sent = 0;
        loop {
            let (taken, failed) = push(self.socket.as_fd(), &mut singles, &self.counters);
            sent += taken;
            let Some((single, error)) = failed else { break };
            match error.raw_os_error() {
                // Where the first is too big or the buffer is full, so it is for the others.
                Some(libc::EMSGSIZE | libc::EAGAIN) => {
                    self.refused(&single, &error);
                    singles.for_each(|single| self.refused(&single, &error));
                    break;
                }
                _ => self.refused(&single, &error),
            }
        }
        if sent > 0 && matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO)) && self.gso.is_on() {
            tracing::warn!(local = %self.local, to = %message.to, %error, "segmentation offload does not work on this path; sending single datagrams from now on");
            self.gso = Offload::Off(format!("a send to {} failed with it ({error}) and worked without", message.to));
            self.counters.gso_given_up.inc();
        }
        sent
    }

    /// Counts a message that was not sent, by reason.
    fn refused(&mut self, message: &Message<'_>, error: &io::Error) {
        let counters = &self.counters;
        let counter = match error.raw_os_error() {
            Some(libc::EAGAIN) => &counters.send_again,
            Some(libc::ENOBUFS | libc::ENOMEM) => &counters.send_nobufs,
            Some(libc::EPERM | libc::EACCES) => &counters.send_eperm,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL) => &counters.send_unreachable,
            Some(libc::EMSGSIZE) => &counters.send_msgsize,
            Some(libc::ECONNREFUSED) => &counters.send_refused,
            _ => &counters.send_other,
        };
        counter.add(count(message) as u64);
        let to = Address::udp(message.to);
        let list = match error.raw_os_error() {
            Some(libc::EMSGSIZE) => &mut self.too_big,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN) => &mut self.unreachable,
            _ => return,
        };
        if list.len() < TOO_BIG && !list.contains(&to) {
            list.push(to);
        }
    }
}

/// Gives messages to the kernel until one fails: how many datagrams it took, and the failed message, after which `messages` goes on.
fn push<'a, I>(fd: BorrowedFd<'_>, messages: &mut Messages<'a, I>, counters: &UdpCounters) -> (usize, Option<(Message<'a>, io::Error)>)
where
    I: Iterator<Item = Run<'a>> + Clone,
{
    let mut sent = 0;
    loop {
        let result = mmsg::send(fd, messages.clone());
        if !matches!(result, Ok(0)) {
            counters.send_calls.inc();
        }
        match result {
            Ok(0) => return (sent, None),
            Ok(taken) => sent += messages.take(taken).map(|message| count(&message)).sum::<usize>(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (sent, messages.next().map(|message| (message, error))),
        }
    }
}

/// How many messages the next call takes, after one that took at most `batch` and got `received` of so many `bytes` together.
pub(super) fn next_batch(batch: usize, received: usize, bytes: usize) -> usize {
    if bytes > received * RECV_SMALL {
        RECV_FEW
    } else if received == batch {
        (batch * 2).min(RECV_BATCH)
    } else if received < batch / 4 {
        (batch / 2).max(RECV_FEW)
    } else {
        batch
    }
}

/// Asks for [`SOCKET_BUFFER`], beyond the administrator's limit where we may, else up to it; what was granted.
fn grow(fd: BorrowedFd<'_>, force: i32, plain: i32) -> io::Result<i32> {
    if sockopt::set(fd, libc::SOL_SOCKET, force, SOCKET_BUFFER).is_ok() {
        return Ok(SOCKET_BUFFER);
    }
    sockopt::set(fd, libc::SOL_SOCKET, plain, SOCKET_BUFFER)?;
    // The kernel doubles what it grants, for its own bookkeeping.
    Ok(sockopt::get(fd, libc::SOL_SOCKET, plain)? / 2)
}

/// Tries what neither the policy nor the kernel of this release speaks against.
fn probed(policy: OffloadPolicy, kind: Kind, release: &str, what: &str, set: impl FnOnce() -> io::Result<()>) -> Offload {
    policy.forbids(kind).or_else(|| offload::flaw(kind, release)).unwrap_or_else(|| match set() {
        Ok(()) => Offload::On,
        Err(error) => Offload::Off(format!("this kernel has no {what}: {error}")),
    })
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Source for UdpSocket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.socket.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.socket.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.socket.as_raw_fd()).deregister(registry)
    }
}
