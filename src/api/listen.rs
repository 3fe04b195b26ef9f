//! Taking the API's address: a socket of a dead router is replaced, one of a living router is an error.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

use super::address::ApiAddress;

/// Why an address could not be taken, in one sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ListenError(String);

/// A socket that listens; a unix socket's file goes when this is dropped.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket.
    Unix(UnixListener, SocketFile),
    /// A TCP port.
    Tcp(TcpListener),
}

/// The file of a unix socket that this process made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The path may have been taken by another router since.
        if fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == (self.device, self.inode)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on the API's address.
pub async fn api(address: &ApiAddress) -> Result<Listener, ListenError> {
    match address {
        ApiAddress::Unix(path) => unix(path),
        ApiAddress::Tcp(addr) => tcp("API", "--api", *addr).await,
    }
}

/// Listens on the status address.
pub async fn status(addr: std::net::SocketAddr) -> Result<Listener, ListenError> {
    tcp("status", "--status-addr", addr).await
}

async fn tcp(what: &str, option: &str, addr: std::net::SocketAddr) -> Result<Listener, ListenError> {
    TcpListener::bind(addr).await.map(Listener::Tcp).map_err(|e| {
        ListenError(match e.kind() {
            ErrorKind::AddrInUse => {
                format!("cannot listen on the {what} address {addr}: it is in use; stop what uses it, or choose another with {option}")
            }
            _ => format!("cannot listen on the {what} address {addr}: {e}; choose another with {option}"),
        })
    })
}

fn unix(path: &Path) -> Result<Listener, ListenError> {
    let fail = |what: &str, e: io::Error| {
        ListenError(format!("cannot listen on the API address unix:{}: {what}: {e}; choose another with --api", path.display()))
    };
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(|e| fail("its directory cannot be made", e))?;
    }
    refuse_if_taken(path)?;
    // The socket becomes visible under its name only when its mode is right.
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = format!(".weave-api.{}", std::process::id());
    let hidden = dir.join(&name);
    let _ = fs::remove_file(&hidden);
    let made = bind_in(dir, &name).and_then(|listener| {
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))?;
        let meta = fs::symlink_metadata(&hidden)?;
        fs::rename(&hidden, path)?;
        Ok((listener, meta))
    });
    match made {
        Ok((listener, meta)) => {
            let file = SocketFile { path: path.to_path_buf(), device: meta.dev(), inode: meta.ino() };
            Ok(Listener::Unix(listener, file))
        }
        Err(e) => {
            let _ = fs::remove_file(&hidden);
            Err(fail("the socket cannot be made", e))
        }
    }
}

/// Binds by way of a descriptor of the directory: a path that just fits a socket's address has no room for another name beside it.
fn bind_in(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let dir = fs::File::open(dir)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

fn refuse_if_taken(path: &Path) -> Result<(), ListenError> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        let path = path.display();
        return Err(ListenError(format!("cannot listen on the API address unix:{path}: there is a file that is no socket; move it away")));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ListenError(format!(
            "cannot listen on the API address unix:{}: another weave-router answers there; stop it, or choose another with --api",
            path.display()
        ))),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(ListenError(format!(
            "cannot listen on the API address unix:{}: the socket there does not say whether anybody uses it: {e}",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_path_that_is_accepted_works() {
        let dir = tempfile::tempdir().expect("a directory");
        let room = 107 - dir.path().as_os_str().len() - 1;
        let path = dir.path().join("s".repeat(room));
        let address: ApiAddress = format!("unix:{}", path.display()).parse().expect("107 bytes are accepted");
        let listener = api(&address).await.expect("they can be bound");
        std::os::unix::net::UnixStream::connect(&path).expect("and connected to");
        let names = |dir: &Path| fs::read_dir(dir).expect("a directory").count();
        assert_eq!(names(dir.path()), 1, "no other name is left");
        drop(listener);
        assert_eq!(names(dir.path()), 0);
    }
}
