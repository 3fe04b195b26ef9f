//! Which kernel this is.

use std::ffi::CStr;
use std::io;

use super::check;

/// The kernel's release, as `uname -r` prints it: `6.12.48-amd64`.
pub fn release() -> io::Result<String> {
    // SAFETY: utsname is a struct of byte arrays, for which all zeroes is a valid value.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: uname writes one utsname, which `names` is, for the duration of the call.
    check(unsafe { libc::uname(&raw mut names) })?;
    // SAFETY: uname succeeded and so has ended the release with a zero byte inside its array, which outlives the borrow.
    let release = unsafe { CStr::from_ptr(names.release.as_ptr()) };
    Ok(release.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_proc_says() {
        let said = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
        assert_eq!(release().expect("a release"), said.trim_end());
    }
}
