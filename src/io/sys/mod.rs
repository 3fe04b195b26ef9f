//! System calls behind safe functions: the only folder of the crate with unsafe code.
//!
//! Every function takes borrowed file descriptors and slices, and every new file descriptor is owned on the line it is born.
#![allow(unsafe_code)]

pub mod ethtool;
pub mod kernel;
pub mod link;
pub mod mmsg;
pub mod netns;
pub mod packet;
pub mod process;
pub mod random;
pub mod sockopt;
pub mod tun;
pub mod vector;

use std::io;

/// The value of a system call, or the error it left in `errno`.
fn check<T: Copy + PartialOrd + Default>(value: T) -> io::Result<T> {
    if value < T::default() { Err(io::Error::last_os_error()) } else { Ok(value) }
}
