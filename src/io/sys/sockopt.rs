//! Socket options that no library sets.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// One instruction of classic BPF.
pub use libc::sock_filter as Instruction;

/// Sets an option whose value is an int.
pub fn set(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointer is to an int that lives through the call, and the size is an int's.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(&value).cast(), size) })?;
    Ok(())
}

/// Reads an option whose value is an int.
pub fn get(fd: BorrowedFd<'_>, level: i32, option: i32) -> io::Result<i32> {
    let mut value = 0;
    let mut size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointer is to an int that lives through the call, and the size is an int's.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, std::ptr::from_mut(&mut value).cast(), &raw mut size) })?;
    Ok(value)
}

/// Lets a classic BPF program choose, by index in order of binding, which socket of a `SO_REUSEPORT` group gets a datagram.
/// Offsets count from the UDP payload.
pub fn attach_reuseport_filter(fd: BorrowedFd<'_>, program: &mut [Instruction]) -> io::Result<()> {
    let len = program.len().try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let size = size_of::<libc::sock_fprog>() as libc::socklen_t;
    let value = std::ptr::from_ref(&program).cast();
    // SAFETY: the pointer is to a sock_fprog, which points to `len` instructions; the kernel copies them within the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, value, size) })?;
    Ok(())
}
