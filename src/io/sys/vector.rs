//! Reads and vectored writes with a header in front.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// Most parts of one write: the kernel's `UIO_MAXIOV` less the header's.
pub const MAX_PARTS: usize = 1023;

/// Reads one packet with its header.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of the one slice, which is writable and lives through the call.
    let n = check(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })?;
    Ok(n.unsigned_abs())
}

/// Writes one packet: `header`, then all `parts`.
pub fn write(fd: BorrowedFd<'_>, header: &[u8], parts: &[IoSlice<'_>]) -> io::Result<usize> {
    if parts.len() > MAX_PARTS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Uninitialised, because clearing 16 KiB would cost as much as a small write.
    let mut all = [const { MaybeUninit::<IoSlice<'_>>::uninit() }; MAX_PARTS + 1];
    let filled = std::iter::once(IoSlice::new(header)).chain(parts.iter().copied());
    let mut count = 0;
    for (slot, part) in all.iter_mut().zip(filled) {
        slot.write(part);
        count += 1;
    }
    // SAFETY: the first `count` slots are filled in, MaybeUninit<IoSlice> has iovec's layout, and the slices live through the call.
    let n = check(unsafe { libc::writev(fd.as_raw_fd(), all.as_ptr().cast(), count) })?;
    Ok(n.unsigned_abs())
}
