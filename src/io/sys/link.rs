//! Interface attributes by ioctl: enough for a TAP of our own, in the calling thread's network namespace.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use socket2::{Domain, Socket, Type};

use super::check;

/// The longest interface name that the kernel takes, without its terminating zero.
pub const MAX_NAME: usize = libc::IFNAMSIZ - 1;

/// True for a name the kernel would take as it is: `%` would be expanded, `/` and blanks are refused.
pub fn valid_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b'%' | b':');
    !name.is_empty() && name.len() <= MAX_NAME && name != "." && name != ".." && name.bytes().all(plain)
}

/// An `ifreq` with the name filled in and everything else zero.
pub(super) fn request(name: &str) -> io::Result<libc::ifreq> {
    if !valid_name(name) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("\"{name}\" cannot be an interface name")));
    }
    // SAFETY: ifreq is a struct of integers and byte arrays, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

fn socket() -> io::Result<OwnedFd> {
    Ok(Socket::new(Domain::IPV4, Type::DGRAM, None)?.into())
}

fn ioctl(code: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = socket()?;
    // SAFETY: the codes passed here all read or write one ifreq, which `request` is, for the duration of the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), code as _, std::ptr::from_mut(request)) })?;
    Ok(())
}

/// The interface's index; `NotFound` where there is none of that name.
pub fn index(name: &str) -> io::Result<u32> {
    let mut request = request(name)?;
    match ioctl(libc::SIOCGIFINDEX, &mut request) {
        // SAFETY: SIOCGIFINDEX succeeded and so filled in the index.
        Ok(()) => Ok(unsafe { request.ifr_ifru.ifru_ifindex }.unsigned_abs()),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(io::ErrorKind::NotFound.into()),
        Err(error) => Err(error),
    }
}

/// Sets the MTU.
pub fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_mtu = i32::try_from(mtu).unwrap_or(i32::MAX);
    ioctl(libc::SIOCSIFMTU, &mut request)
}

/// Sets how many frames (a super frame counts as one) wait for the reader.
pub fn set_queue_len(name: &str, frames: u32) -> io::Result<()> {
    let mut request = request(name)?;
    // The kernel takes the queue length from the same place of the union as the MTU: both are one int.
    request.ifr_ifru.ifru_mtu = i32::try_from(frames).unwrap_or(i32::MAX);
    ioctl(libc::SIOCSIFTXQLEN, &mut request)
}

/// What an interface may leave to the hardware, or to the other end of a veth pair (`ethtool -K`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Segments of TCP.
    Tso,
    /// Segments of anything.
    Gso,
    /// Joining what arrives.
    Gro,
    /// Checksums of what is sent.
    TxChecksum,
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Switches an offload of an interface on or off.
pub fn set_feature(name: &str, feature: Feature, on: bool) -> io::Result<()> {
    /// From linux/sockios.h; the libc crate has it for some targets only.
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    // ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO and ETHTOOL_SGRO of linux/ethtool.h.
    let command = match feature {
        Feature::TxChecksum => 0x17,
        Feature::Tso => 0x1f,
        Feature::Gso => 0x24,
        Feature::Gro => 0x2c,
    };
    let mut value = EthtoolValue { command, data: on.into() };
    let mut request = request(name)?;
    // The kernel reads these commands' values through the pointer, which outlives the call below.
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
    ioctl(SIOCETHTOOL, &mut request)
}

/// Sets the interface up or down, leaving its other flags.
pub fn set_up(name: &str, up: bool) -> io::Result<()> {
    let mut request = request(name)?;
    ioctl(libc::SIOCGIFFLAGS, &mut request)?;
    let bit = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCGIFFLAGS succeeded and so filled in the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
    ioctl(libc::SIOCSIFFLAGS, &mut request)
}
