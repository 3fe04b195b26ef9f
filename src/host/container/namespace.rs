//! A container's network namespace beside the host's own.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rtnetlink::Handle;

use super::super::{HostError, connect};
use crate::io::sys::netns;

/// Both namespaces, with a netlink socket in each: sockets stay where they were opened.
pub(super) struct Visit {
    /// In the host's namespace.
    pub host: Handle,
    /// In the container's.
    pub inside: Handle,
    home: OwnedFd,
    there: OwnedFd,
    what: String,
}

impl Visit {
    /// Opens the namespace at `path`, seen from the calling thread's own. Needs a running tokio runtime on this thread alone.
    pub fn open(path: &Path) -> Result<Visit, HostError> {
        let what = format!("enter the network namespace {}", path.display());
        let failed = |e| HostError::io(&*what, e);
        let home = netns::current().map_err(failed)?;
        let there = netns::open(path).map_err(failed)?;
        let id = |namespace: &OwnedFd| {
            let meta = File::from(namespace.try_clone()?).metadata()?;
            Ok((meta.dev(), meta.ino()))
        };
        if id(&home).map_err(failed)? == id(&there).map_err(failed)? {
            let reason = "it is the host's own; a container that shares the host's network has no interface of its own";
            return Err(HostError::refused(what, reason));
        }
        let host = connect()?;
        let inside = go(&there, &home, &what, connect)??;
        Ok(Visit { host, inside, home, there, what })
    }

    /// The container's namespace, for the kernel; it is open as long as this lives.
    pub fn fd(&self) -> RawFd {
        self.there.as_raw_fd()
    }

    /// Does something inside.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> Result<T, HostError> {
        go(&self.there, &self.home, &self.what, work)
    }
}

fn go<T>(there: &OwnedFd, home: &OwnedFd, what: &str, work: impl FnOnce() -> T) -> Result<T, HostError> {
    netns::enter(there.as_fd()).map_err(|e| HostError::io(what, e))?;
    let done = work();
    netns::enter(home.as_fd()).map_err(|e| HostError::io("return to the host's network namespace", e))?;
    Ok(done)
}
