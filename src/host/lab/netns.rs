//! Network namespaces with names, kept as `ip netns` keeps them: a file under /run/netns with the namespace mounted on it.
//!
//! A namespace is a property of a thread. Whatever is done inside one is done on a thread that enters it and ends there; sockets stay in
//! the namespace they were opened in, wherever they are used.

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;

use crate::host::{self, HostError};

/// Where named namespaces are.
const ROOT: &str = "/run/netns";

/// A named namespace that goes when it is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace.
    pub fn create(name: &str) -> Result<Namespace, HostError> {
        let what = || format!("make the network namespace {name}");
        let path = path(name);
        OpenOptions::new().write(true).create_new(true).open(&path).map_err(|e| HostError::io(what(), e))?;
        let namespace = Namespace { name: name.into() };
        let made = std::thread::scope(|scope| {
            let unshared = || {
                nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
                bind("/proc/thread-self/ns/net", &path)
            };
            scope.spawn(unshared).join()
        });
        match made {
            Ok(Ok(())) => Ok(namespace),
            Ok(Err(errno)) => Err(HostError::io(what(), errno.into())),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// The name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Removes the namespace; it ends with the last process in it.
    pub fn delete(self) -> Result<(), HostError> {
        let done = delete(&self.name);
        std::mem::forget(self);
        done
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = delete(&self.name) {
            tracing::warn!("{error}");
        }
    }
}

/// Runs a closure on a thread of its own inside a namespace. A panic in there goes on here.
pub fn in_namespace<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, HostError> {
    let fd = open(name)?;
    let inside = || {
        nix::sched::setns(&fd, CloneFlags::CLONE_NEWNET)
            .map_err(|e| HostError::io(format!("enter the network namespace {name}"), e.into()))?;
        Ok(work())
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs an asynchronous closure inside a namespace, with a netlink connection that was opened there.
pub fn with_netlink<T, Work>(name: &str, work: impl FnOnce(rtnetlink::Handle) -> Work + Send) -> Result<T, HostError>
where
    T: Send,
    Work: Future<Output = T>,
{
    in_namespace(name, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| HostError::io("start an event loop", e))?;
        runtime.block_on(async { Ok(work(host::connect()?).await) })
    })?
}

/// Opens a namespace by its name.
pub fn open(name: &str) -> Result<File, HostError> {
    File::open(path(name)).map_err(|e| HostError::io(format!("open the network namespace {name}"), e))
}

/// The names of all namespaces.
pub fn names() -> Vec<String> {
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// Removes a namespace by its name.
pub fn delete(name: &str) -> Result<(), HostError> {
    let what = || format!("remove the network namespace {name}");
    let path = path(name);
    match nix::mount::umount2(&path, MntFlags::MNT_DETACH) {
        // A file on which nothing is mounted is what is left of a namespace that was never finished.
        Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
        Err(errno) => return Err(HostError::io(what(), errno.into())),
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(HostError::io(what(), e)),
        _ => Ok(()),
    }
}

/// Makes /run/netns a place whose mounts are seen by all: otherwise a namespace would stay alive in every mount namespace that copied it.
pub(super) fn prepare() -> Result<(), HostError> {
    let what = || format!("prepare {ROOT} for network namespaces");
    match fs::DirBuilder::new().mode(0o755).create(ROOT) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(HostError::io(what(), e)),
        _ => {}
    }
    let shared = || nix::mount::mount(None::<&str>, ROOT, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    if shared().is_ok() {
        return Ok(());
    }
    // It is no mount of its own yet.
    let own = nix::mount::mount(Some(ROOT), ROOT, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>);
    own.and_then(|()| shared()).map_err(|errno| HostError::io(what(), errno.into()))
}

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

fn bind(from: &str, to: &Path) -> nix::Result<()> {
    nix::mount::mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}
