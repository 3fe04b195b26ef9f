//! Network namespaces. A namespace belongs to a *thread*: a thread that enters one should do nothing else afterwards.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::check;

/// The namespace at `path`: `/run/netns/NAME`, or `/proc/PID/ns/net`. Anything else is refused, without waiting: a pipe would wait for its other
/// end, and a device may do something when it is opened.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    // SAFETY: a statfs of zeros is valid, as it consists of integers only.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the kernel writes no more than the one structure.
    check(unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut about) })?;
    match about.f_type {
        libc::NSFS_MAGIC => Ok(file.into()),
        _ => Err(io::Error::other("it is no namespace; /run/netns/NAME and /proc/PID/ns/net are")),
    }
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
    fn what_is_no_namespace_is_refused_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        for path in [&*pipe, dir.path(), Path::new("/dev/null"), Path::new("/proc/self/status")] {
            let said = open(path).expect_err("refused").to_string();
            assert!(said.contains("no namespace"), "{}: {said}", path.display());
        }
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
