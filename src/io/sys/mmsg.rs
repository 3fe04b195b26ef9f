//! Many datagrams per system call: `sendmmsg` with `UDP_SEGMENT`, `recvmmsg` with `UDP_GRO`.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// Most messages of one [`send`].
pub const SEND_BATCH: usize = 64;
/// Most messages of one [`receive`].
pub const RECV_BATCH: usize = 32;

/// One message to send.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// The address of this host to send from; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// The payload.
    pub bytes: &'a [u8],
    /// Where set, the kernel cuts the payload into datagrams of this size, the last one perhaps shorter.
    pub segment: Option<u16>,
}

/// One received message.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Where from.
    pub from: SocketAddr,
    /// Where in the buffers the payload lies, which may be several datagrams that the kernel has joined.
    pub range: Range<usize>,
    /// Size of each datagram of the payload but the last, which may be shorter; never 0.
    pub segment: usize,
    /// The address of this host that it was sent to, where the socket was asked to say so (`IP_PKTINFO`, RFC 3542).
    pub local: Option<IpAddr>,
    /// How many datagrams the socket's queue has dropped in its life, where it has dropped any (32 bits, wraps).
    pub dropped: Option<u32>,
    /// True where the payload was longer than the buffer.
    pub truncated: bool,
}

/// A socket address as the kernel has it.
#[derive(Clone, Copy)]
#[repr(C)]
union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    fn new(addr: SocketAddr) -> (Name, usize) {
        match addr {
            SocketAddr::V4(addr) => {
                let v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: addr.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.ip().octets()) },
                    sin_zero: [0; 8],
                };
                (Name { v4 }, size_of::<libc::sockaddr_in>())
            }
            SocketAddr::V6(addr) => {
                let v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: addr.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                    sin6_scope_id: addr.scope_id(),
                };
                (Name { v6 }, size_of::<libc::sockaddr_in6>())
            }
        }
    }

    const fn empty() -> Name {
        // SAFETY: the union's members are structs of integers, for which all zeroes is a valid value.
        unsafe { std::mem::zeroed() }
    }

    fn addr(&self) -> Option<SocketAddr> {
        // SAFETY: every Name starts as zeroes or as a whole address, so the family is initialised.
        match i32::from(unsafe { self.family }) {
            libc::AF_INET => {
                // SAFETY: the bytes are all initialised, and integers take any value.
                let v4 = unsafe { self.v4 };
                Some(SocketAddrV4::new(v4.sin_addr.s_addr.to_ne_bytes().into(), u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: the bytes are all initialised, and integers take any value.
                let v6 = unsafe { self.v6 };
                Some(SocketAddrV6::new(v6.sin6_addr.s6_addr.into(), u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

/// Room for the control messages of a send, in u64s: a u16 and an `in6_pktinfo`, each behind a header and padded.
const SEND_CONTROL: usize = 8;
/// Room for the control messages of a receive: two ints and an `in6_pktinfo`, likewise, with room to spare.
const RECV_CONTROL: usize = 14;

/// What the `msghdr` of one message points to. The control bytes are u64s because a `cmsghdr` must be aligned.
struct Slot<const CONTROL: usize> {
    name: Name,
    part: libc::iovec,
    control: [u64; CONTROL],
}

/// Fills in `header` to point to `slot`, which must stay where it is while the header is used.
fn point<const CONTROL: usize>(header: &mut MaybeUninit<libc::mmsghdr>, slot: &mut Slot<CONTROL>, name_len: usize, control_len: usize) {
    // SAFETY: mmsghdr is a struct of integers and pointers, for which all zeroes is a valid value.
    let mut filled: libc::mmsghdr = unsafe { std::mem::zeroed() };
    filled.msg_hdr.msg_name = std::ptr::from_mut(&mut slot.name).cast();
    filled.msg_hdr.msg_namelen = name_len as libc::socklen_t;
    filled.msg_hdr.msg_iov = &raw mut slot.part;
    filled.msg_hdr.msg_iovlen = 1;
    if control_len > 0 {
        filled.msg_hdr.msg_control = slot.control.as_mut_ptr().cast();
        filled.msg_hdr.msg_controllen = control_len as _;
    }
    header.write(filled);
}

/// Offers up to [`SEND_BATCH`] messages to the kernel without waiting; how many it took.
///
/// An error is the *first* message's; where a later one fails the count says so, and sending from there on gives its error.
pub fn send<'a>(fd: BorrowedFd<'_>, messages: impl Iterator<Item = Message<'a>>) -> io::Result<usize> {
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; SEND_BATCH];
    let mut slots = [const { MaybeUninit::<Slot<SEND_CONTROL>>::uninit() }; SEND_BATCH];
    let mut count = 0;
    for ((header, slot), message) in headers.iter_mut().zip(&mut slots).zip(messages) {
        let (name, name_len) = Name::new(message.to);
        let part = libc::iovec { iov_base: message.bytes.as_ptr().cast_mut().cast(), iov_len: message.bytes.len() };
        let slot = slot.write(Slot { name, part, control: [0; SEND_CONTROL] });
        let control_len = write_control(&mut slot.control, &message);
        point(header, slot, name_len, control_len);
        count += 1;
    }
    if count == 0 {
        return Ok(0);
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the first `count` headers are filled in; each points into its slot and to a payload, which both live through the call,
    // and the kernel does not write to the payload of a send.
    let sent = check(unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr().cast(), count, flags as _) })?;
    Ok(sent.unsigned_abs() as usize)
}

/// Writes the control messages that `message` needs; their length with padding.
fn write_control(control: &mut [u64; SEND_CONTROL], message: &Message<'_>) -> usize {
    let mut end = 0;
    if let Some(segment) = message.segment {
        end = put(control, end, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    match message.source {
        Some(IpAddr::V4(ip)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            put(control, end, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        Some(IpAddr::V6(ip)) => {
            // A link-local source belongs to the interface that the destination names.
            let scope = match message.to {
                SocketAddr::V6(to) if ip.is_unicast_link_local() => to.scope_id(),
                _ => 0,
            };
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: scope };
            put(control, end, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
        None => end,
    }
}

/// Writes one control message at byte `at`, a multiple of 8; where the next one goes.
fn put<T: Copy>(control: &mut [u64; SEND_CONTROL], at: usize, level: i32, kind: i32, data: T) -> usize {
    let size = size_of::<T>() as u32;
    // SAFETY: these functions only calculate.
    let (len, space) = unsafe { (libc::CMSG_LEN(size) as usize, libc::CMSG_SPACE(size) as usize) };
    let room = control.get_mut(at / size_of::<u64>()..).filter(|room| space <= size_of_val(*room));
    let header: *mut libc::cmsghdr = room.expect("the control buffer holds one message of each kind").as_mut_ptr().cast();
    // SAFETY: the room is aligned as a cmsghdr and at least CMSG_SPACE long (checked), and CMSG_DATA lies within.
    unsafe {
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = len as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(data);
    }
    at + space
}

/// Receives up to `most` messages, and never more than [`RECV_BATCH`], without waiting, one into the first `size` bytes of each `stride` bytes of
/// `buffers`, and tells `handler` of them. How many came; `WouldBlock` where there were none.
pub fn receive(
    fd: BorrowedFd<'_>,
    buffers: &mut [u8],
    (size, stride): (usize, usize),
    most: usize,
    mut handler: impl FnMut(Arrival),
) -> io::Result<usize> {
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; RECV_BATCH];
    let mut slots = [const { MaybeUninit::<Slot<RECV_CONTROL>>::uninit() }; RECV_BATCH];
    let mut count = 0;
    for ((header, slot), buffer) in headers.iter_mut().zip(&mut slots).zip(buffers.chunks_exact_mut(stride)).take(most) {
        let part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len().min(size) };
        let slot = slot.write(Slot { name: Name::empty(), part, control: [0; RECV_CONTROL] });
        point(header, slot, size_of::<Name>(), size_of::<[u64; RECV_CONTROL]>());
        count += 1;
    }
    // SAFETY: the first `count` headers are filled in; each points into its slot and to its own writable part of `buffers`, which both
    // live through the call. No timeout is passed.
    let got = check(unsafe {
        libc::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr().cast(), count, libc::MSG_DONTWAIT as _, std::ptr::null_mut())
    })?;
    let got = got.unsigned_abs() as usize;
    for ((header, slot), start) in headers.iter().zip(&slots).zip((0..).step_by(stride)).take(got) {
        // SAFETY: recvmmsg took `got` of the `count` headers, all of which were filled in above, each with its slot.
        let (header, name) = unsafe { (header.assume_init_ref(), slot.assume_init_ref().name) };
        let len = header.msg_len as usize;
        let Some(from) = name.addr() else { continue };
        let Control { segment, dropped, local } = read_control(&header.msg_hdr);
        let segment = segment.filter(|segment| (1..len).contains(segment)).unwrap_or(len).max(1);
        let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        handler(Arrival { from, range: start..start + len.min(size), segment, local, dropped, truncated });
    }
    Ok(got)
}

/// What the control messages of a received message say.
#[derive(Default)]
struct Control {
    segment: Option<usize>,
    dropped: Option<u32>,
    local: Option<IpAddr>,
}

/// Reads the control messages of a header that `recvmmsg` has filled in.
fn read_control(header: &libc::msghdr) -> Control {
    let mut control = Control::default();
    // SAFETY: the kernel has set msg_control and msg_controllen to what it wrote, and the buffer is alive.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a header that lies within the control buffer with its data.
    while let Some(message) = unsafe { next.as_ref() } {
        match (message.cmsg_level, message.cmsg_type) {
            (libc::SOL_UDP, libc::UDP_GRO) => control.segment = read::<i32>(message).and_then(|size| usize::try_from(size).ok()),
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => control.dropped = read::<u32>(message),
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let own = read::<libc::in_pktinfo>(message);
                control.local = own.map(|own| IpAddr::V4(own.ipi_spec_dst.s_addr.to_ne_bytes().into()));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                control.local = read::<libc::in6_pktinfo>(message).map(|own| IpAddr::V6(own.ipi6_addr.s6_addr.into()));
            }
            _ => {}
        }
        // SAFETY: `next` is a header of this buffer, found by these functions.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    control
}

/// Types that the kernel writes into control messages.
trait Datum: Copy {}
impl Datum for i32 {}
impl Datum for u32 {}
impl Datum for libc::in_pktinfo {}
impl Datum for libc::in6_pktinfo {}

/// The data of a control message in a received control buffer, where it is long enough.
fn read<T: Datum>(message: &libc::cmsghdr) -> Option<T> {
    // SAFETY: CMSG_LEN only calculates.
    let enough = message.cmsg_len >= unsafe { libc::CMSG_LEN(size_of::<T>() as u32) } as usize;
    // SAFETY: the message says that its data is as long as a T, which any bytes make (integers and arrays of them); it may be unaligned.
    enough.then(|| unsafe { libc::CMSG_DATA(message).cast::<T>().read_unaligned() })
}
