//! The kernel's random generator.

use std::io;

use super::check;

/// Fills `bytes` from `getrandom`, waiting for the generator to be seeded where the machine has just booted.
pub fn fill(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: pointer and length are those of the one slice.
        match check(unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) }) {
            Ok(n) => bytes = bytes.get_mut(n.unsigned_abs()..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
