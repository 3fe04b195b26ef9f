//! The TUN/TAP driver's ioctls.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::{check, link};

/// The driver's device node.
pub const DEVICE: &str = "/dev/net/tun";

/// Opens the driver, not yet attached to any interface.
pub fn open() -> io::Result<OwnedFd> {
    let file: File = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)?;
    Ok(file.into())
}

fn flags(multi_queue: bool) -> i32 {
    libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 }
}

/// Creates TAP `name`, or attaches to it where it exists, with the virtio-net header in front of every frame.
pub fn attach(fd: BorrowedFd<'_>, name: &str, multi_queue: bool) -> io::Result<()> {
    let mut request = link::request(name)?;
    // The flags are 16 bits that the kernel reads unsigned.
    request.ifr_ifru.ifru_flags = flags(multi_queue) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is, for the duration of the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, std::ptr::from_mut(&mut request)) })?;
    Ok(())
}

/// True where frames really come with the virtio-net header: a queue attached without it by somebody else takes it from all queues.
pub fn has_vnet_header(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: ifreq is a struct of integers and byte arrays, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF writes one ifreq, which `request` is, for the duration of the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, std::ptr::from_mut(&mut request)) })?;
    // SAFETY: TUNGETIFF succeeded and so filled in the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(i32::from(flags) & libc::IFF_VNET_HDR != 0)
}

/// Sets the length of the virtio-net header in front of every frame, for the device: 10 bytes unless somebody asks for more.
pub fn set_header_len(fd: BorrowedFd<'_>, len: i32) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one int, which lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, std::ptr::from_ref(&len)) })?;
    Ok(())
}

/// Says which offloads the reader understands (a mask of `TUN_F_*`); the mask belongs to the device, not to the queue.
pub fn set_offload(fd: BorrowedFd<'_>, mask: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(mask)) })?;
    Ok(())
}
