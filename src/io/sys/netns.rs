//! Network namespaces. A namespace belongs to a *thread*: a thread that enters one should do nothing else afterwards.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::check;

/// The namespace at `path`: `/run/netns/NAME`, or `/proc/PID/ns/net`.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(File::open(path)?.into())
}

/// The calling thread's own namespace.
pub fn current() -> io::Result<OwnedFd> {
    open(Path::new("/proc/thread-self/ns/net"))
}

/// Moves the calling thread into a namespace; needs CAP_SYS_ADMIN.
pub fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: setns takes integers only; a descriptor that is no namespace is refused.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })?;
    Ok(())
}

/// Moves the calling thread into a new namespace of its own, which has nothing but a loopback interface that is down.
/// It is gone with the last thread, process or descriptor in it. Needs CAP_SYS_ADMIN.
pub fn unshare() -> io::Result<()> {
    // SAFETY: unshare takes an integer only, and CLONE_NEWNET changes no memory of the process.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
    Ok(())
}

/// Lets `command` run in a namespace instead of the caller's.
pub fn run_in(command: &mut Command, namespace: Arc<OwnedFd>) -> &mut Command {
    // SAFETY: between fork and exec the closure makes one system call, which is async-signal-safe; its error is built without allocation.
    unsafe { command.pre_exec(move || check(libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET)).map(drop)) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::PathBuf;

    use super::*;
    use crate::io::testing::in_own_namespace;

    fn here() -> PathBuf {
        std::fs::read_link("/proc/thread-self/ns/net").expect("a namespace")
    }

    #[test]
    fn threads_and_children_move_between_namespaces() {
        let outside = (current().expect("a namespace"), here());
        in_own_namespace("netns", move || {
            let (inside, name) = (Arc::new(current().expect("a namespace")), here());
            assert_ne!(name, outside.1);
            enter(outside.0.as_fd()).expect("back");
            assert_eq!(here(), outside.1);

            let mut command = Command::new("readlink");
            let output = run_in(&mut command, inside).arg("/proc/self/ns/net").output().expect("a child");
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), name.to_string_lossy());
        });
    }
}
