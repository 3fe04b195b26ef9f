//! One queue of a TAP device: Ethernet frames and super frames, each with the virtio-net header.
//!
//! A TAP must never speak for itself. Before it is set up, give it `addrgenmode none` (netlink) and `accept_ra 0`, or the kernel
//! announces a link-local address and sends router solicitations and multicast reports into the mesh.
//!
//! # Queues
//!
//! With several packet threads a TAP has a queue for each, and the driver decides which of them a frame from the bridge is read from: the
//! one that the opposite direction of its flow was last *written* to, or a hash of the flow while nothing was written for three
//! seconds (`tun_automq_select_queue`). Would each thread write to its own queue, a flow would be read by whichever thread its answers
//! happen to arrive on, that is by the far end's choice, which depends on ours: for two routers whose choices do not agree a flow
//! would change its thread with every round trip, and be reordered as often. So a frame is written to the queue that its *flow* names
//! ([`Frame::flow`]), whichever thread writes it: any thread may write to any queue, and each reads its own. From the first answer on
//! a flow is read by one thread, and the threads' shares are even.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use zerocopy::IntoBytes;

use super::offload::{Kind, Offload, OffloadPolicy};
use super::sys::{link, tun, vector};
use crate::forward::frame::Frame;
use crate::wire::vnet::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VNET_LEN, VnetHeader};

#[cfg(test)]
mod tests;

/// Least length of a read buffer: an IP packet of 65,535 bytes behind the virtio-net header and an Ethernet header with two VLAN tags.
/// The kernel cuts short what does not fit, and does not say so.
pub const MIN_BUFFER: usize = VNET_LEN + 65_535 + 14 + 8;
/// The TAP's MTU: a bridge drops what is bigger than the port before anybody can answer "too big", so the TAP takes everything.
pub const MTU: u32 = 65_521;
/// Frames that wait for the reader; a super frame counts as one.
pub const QUEUE_LEN: u32 = 10_000;
/// Most parts of one [`Tap::write_frame`].
pub const MAX_PARTS: usize = vector::MAX_PARTS;

const CSUM: u32 = libc::TUN_F_CSUM;
const TSO: u32 = CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
const TSO_ECN: u32 = TSO | libc::TUN_F_TSO_ECN;
/// Only with both families, and only since Linux 6.2.
const USO: u32 = CSUM | libc::TUN_F_USO4 | libc::TUN_F_USO6;
/// What is offered to the kernel, best first, less what is switched off.
const LADDER: [u32; 5] = [TSO_ECN | USO, TSO_ECN, TSO, CSUM, 0];

/// An offload of the TAP: what switches it off, its name in a report, its bits.
type Row = (Kind, &'static str, u32);
const ROWS: [Row; 5] = [
    (Kind::Csum, "tap_checksum", CSUM),
    (Kind::Tso, "tap_tso4", libc::TUN_F_TSO4),
    (Kind::Tso, "tap_tso6", libc::TUN_F_TSO6),
    (Kind::Ecn, "tap_tso_ecn", libc::TUN_F_TSO_ECN),
    (Kind::Uso, "tap_uso", libc::TUN_F_USO4 | libc::TUN_F_USO6),
];

/// A family of super frames that is written: its `gso_type`, what switches it off, its name in a report, and the bits of what the kernel
/// offers where it knows the family.
type Family = (u8, Kind, &'static str, u32);
const FAMILIES: [Family; 3] = [
    (GSO_TCPV4, Kind::Tso, "tap_tcp4_writes", TSO),
    (GSO_TCPV6, Kind::Tso, "tap_tcp6_writes", TSO),
    (GSO_UDP_L4, Kind::Uso, "tap_udp_writes", USO),
];

/// Why there is no TAP.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// Not a name.
    #[error("\"{0}\" cannot be the name of a TAP: 1 to 15 letters, digits or dashes are")]
    BadName(String),
    /// The driver is not there.
    #[error("cannot open /dev/net/tun ({0}): load the module (modprobe tun), or give the container --device /dev/net/tun")]
    NoDriver(io::Error),
    /// No privilege.
    #[error("creating TAP \"{0}\" needs CAP_NET_ADMIN and access to /dev/net/tun: run as root, or give the container both")]
    Denied(String),
    /// Another process holds it.
    #[error("TAP \"{0}\" is in use by another process: stop it or choose another name")]
    Busy(String),
    /// The name is something else's.
    #[error("interface \"{0}\" exists and is not a TAP of this kind: delete it (ip link del {0}) or choose another name")]
    Taken(String),
    /// Somebody attached a queue without the header.
    #[error("TAP \"{0}\" has lost its virtio-net header, because another program attached a queue without it: delete it (ip link del {0})")]
    NoHeader(String),
    /// Anything else.
    #[error("cannot {what} TAP \"{name}\": {source}")]
    Failed {
        /// The step.
        what: &'static str,
        /// The TAP.
        name: String,
        /// The kernel's word.
        source: io::Error,
    },
}

/// One queue of a TAP. Reads and writes never wait; register it with a poll (edge-triggered: read until `None`).
#[derive(Debug)]
pub struct Tap {
    fd: Arc<OwnedFd>,
    /// All queues that frames are written to, this one among them.
    queues: Vec<Arc<OwnedFd>>,
    name: String,
    ifindex: u32,
    policy: OffloadPolicy,
    offload: u32,
    /// Which of [`FAMILIES`] the kernel takes from us.
    writes: [Offload; FAMILIES.len()],
}

impl Tap {
    /// Creates TAP `name` in the calling thread's network namespace, or attaches to it. It goes with its last queue.
    pub fn open(name: &str, policy: OffloadPolicy, multi_queue: bool) -> Result<Tap, TapError> {
        if !link::valid_name(name) {
            return Err(TapError::BadName(name.to_owned()));
        }
        let failed = |what| move |source| TapError::Failed { what, name: name.to_owned(), source };
        let fd = tun::open().map_err(|error| open_error(name, error))?;
        tun::attach(fd.as_fd(), name, multi_queue).map_err(|error| attach_error(name, error))?;
        if !tun::has_vnet_header(fd.as_fd()).map_err(failed("read the flags of"))? {
            return Err(TapError::NoHeader(name.to_owned()));
        }
        // A persistent TAP keeps what its last user set: 12 bytes from QEMU and vhost, and every frame would be misread by two.
        tun::set_header_len(fd.as_fd(), VNET_LEN as i32).map_err(failed("set the virtio-net header's length of"))?;
        let offload = offer_offloads(fd.as_fd(), policy).map_err(failed("set the offloads of"))?;
        let ifindex = link::index(name).map_err(failed("find"))?;
        let writes = FAMILIES.map(|(_, kind, _, bits)| offered(policy, kind, offload & bits == bits));
        let fd = Arc::new(fd);
        let queues = vec![fd.clone()];
        Ok(Tap { fd, queues, name: name.to_owned(), ifindex, policy, offload, writes })
    }

    /// As [`Tap::open`], with `count` queues, one for each thread. Where one is enough, a persistent TAP may be of either kind. The driver
    /// lets everybody attach one more queue to a TAP of several, so whoever calls has to know that the TAP is not somebody else's.
    pub fn open_queues(name: &str, policy: OffloadPolicy, count: usize) -> Result<Vec<Tap>, TapError> {
        let first = match Tap::open(name, policy, count > 1) {
            Err(TapError::Taken(_)) if count <= 1 => Tap::open(name, policy, true)?,
            first => first?,
        };
        let mut taps = vec![first];
        while taps.len() < count {
            taps.push(Tap::open(name, policy, true)?);
        }
        let queues: Vec<_> = taps.iter().map(|tap| tap.fd.clone()).collect();
        taps.iter_mut().for_each(|tap| tap.queues.clone_from(&queues));
        Ok(taps)
    }

    /// Sets MTU ([`MTU`]), queue length ([`QUEUE_LEN`]) and whether the link is up. Call it from the namespace the TAP is in.
    pub fn configure(&self, mtu: u32, queue_len: u32, up: bool) -> Result<(), TapError> {
        let failed = |what| move |source| TapError::Failed { what, name: self.name.clone(), source };
        link::set_mtu(&self.name, mtu).map_err(failed("set the MTU of"))?;
        link::set_queue_len(&self.name, queue_len).map_err(failed("set the queue length of"))?;
        link::set_up(&self.name, up).map_err(failed("set the state of"))
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The offloads that the kernel hands us frames with, a mask of `TUN_F_*` (0x6f is all of them).
    pub fn offload(&self) -> u32 {
        self.offload
    }

    /// Each offload's state: what the kernel hands us, and whether it takes super frames from us.
    pub fn offload_report(&self) -> Vec<(&'static str, Offload)> {
        let read = ROWS.iter().map(|(kind, name, bits)| (*name, offered(self.policy, *kind, self.offload & bits == *bits)));
        let written = FAMILIES.iter().zip(&self.writes).map(|((_, _, name, _), state)| (*name, state.clone()));
        read.chain(written).collect()
    }

    /// True where frames with a partial checksum may be written: every kernel finishes them, whatever it hands us.
    pub fn csum_usable(&self) -> bool {
        self.policy.wants(Kind::Csum)
    }

    /// True while super frames of this type may be written; otherwise the caller writes their segments.
    pub fn gso_usable(&self, gso_type: u8) -> bool {
        let kind = gso_type & !GSO_ECN;
        let taken = || FAMILIES.iter().zip(&self.writes).any(|((family, ..), state)| *family == kind && state.is_on());
        (gso_type == kind || self.policy.wants(Kind::Ecn)) && (kind == GSO_NONE || taken())
    }

    /// The next frame with its header, in `buf`, which must be [`MIN_BUFFER`] long; `None` where none waits.
    pub fn read<'a>(&mut self, buf: &'a mut [u8]) -> io::Result<Option<(VnetHeader, &'a mut [u8])>> {
        if buf.len() < MIN_BUFFER {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the buffer is too short for a super frame"));
        }
        let n = loop {
            match vector::read(self.fd.as_fd(), buf) {
                Ok(n) => break n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        let read = buf.get_mut(..n).and_then(|read| read.split_first_chunk_mut::<VNET_LEN>());
        let (vnet, frame) = read.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some((zerocopy::transmute!(*vnet), frame)))
    }

    /// Writes one frame, which lies in at most [`MAX_PARTS`] parts, with one system call. Its headers lie in the first part.
    ///
    /// Errors are for the caller to count: `WouldBlock` and `ENOBUFS` where the kernel is behind, `EIO` where the link is down, `EINVAL`
    /// where it does not like the header. After a super frame's `EINVAL`, [`Tap::gso_usable`] says no to its family for good, and it is
    /// for the caller to write the segments instead.
    pub fn write_frame(&mut self, vnet: &VnetHeader, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let result = loop {
            match vector::write(self.queue_for(parts), vnet.as_bytes(), parts) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        if let Err(error) = &result
            && error.raw_os_error() == Some(libc::EINVAL)
        {
            self.give_up(vnet.gso_kind(), error);
        }
        result.map(drop)
    }
}

impl Tap {
    /// Has no more super frames of a family written, of which the kernel has refused one. Each was joined from headers that were checked, so
    /// it is no odd frame: Linux 6.6.44 refuses good ones, and would cost a call and a copy for each if it were asked again.
    fn give_up(&mut self, kind: u8, error: &io::Error) {
        let family = FAMILIES.iter().zip(&mut self.writes).find(|((family, ..), state)| *family == kind && state.is_on());
        if let Some(((_, _, name, _), state)) = family {
            tracing::warn!(tap = self.name, family = name, %error, "the kernel refuses super frames of this kind; writing single frames from now on");
            *state = Offload::Off(format!("the kernel refused such a super frame: {error}"));
        }
    }

    /// The queue that a frame is written to.
    fn queue_for(&self, parts: &[IoSlice<'_>]) -> BorrowedFd<'_> {
        let count = self.queues.len();
        if count <= 1 {
            return self.fd.as_fd();
        }
        let flow = parts.first().and_then(|headers| Some(Frame::parse(headers)?.flow(headers))).unwrap_or(0);
        let index = (u64::from(flow) * count as u64) >> 32;
        self.queues.get(index as usize).unwrap_or(&self.fd).as_fd()
    }
}

/// The state of an offload that the kernel offers, or does not.
fn offered(policy: OffloadPolicy, kind: Kind, offers: bool) -> Offload {
    match offers {
        true => Offload::On,
        false => policy.forbids(kind).unwrap_or_else(|| Offload::Off("not offered by the kernel".to_owned())),
    }
}

fn open_error(name: &str, error: io::Error) -> TapError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => TapError::Denied(name.to_owned()),
        _ => TapError::NoDriver(error),
    }
}

fn attach_error(name: &str, error: io::Error) -> TapError {
    let name = name.to_owned();
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TapError::Denied(name),
        Some(libc::EBUSY) => TapError::Busy(name),
        Some(libc::EINVAL | libc::EEXIST) if link::index(&name).is_ok() => TapError::Taken(name),
        Some(libc::ENODEV) => TapError::NoDriver(error),
        _ => TapError::Failed { what: "create", name, source: error },
    }
}

/// Goes down the ladder to what the kernel takes. With everything off it still asks, because the mask of a persistent TAP is what its last user left.
fn offer_offloads(fd: BorrowedFd<'_>, policy: OffloadPolicy) -> io::Result<u32> {
    let unwanted = ROWS.iter().filter(|(kind, ..)| !policy.wants(*kind)).fold(0, |all, (_, _, bits)| all | bits);
    let mut result = Ok(0);
    for mask in LADDER.map(|mask| mask & !unwanted) {
        result = tun::set_offload(fd, mask).map(|()| mask);
        if result.is_ok() {
            break;
        }
    }
    result
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Source for Tap {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.fd.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.fd.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.fd.as_raw_fd()).deregister(registry)
    }
}
