//! Sockets that others connect to, and those that connect.

use std::io;
use std::net::{IpAddr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

/// Callers that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Why a TCP port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// Somebody has the port.
    #[error("TCP port {} on {} is in use by another program: stop it or choose another port (--tcp-listen)", .0.port(), .0.ip())]
    InUse(SocketAddr),
    /// Not ours.
    #[error("{0} is not an address of this host: choose one of its own for --tcp-listen, or give the port alone")]
    NotLocal(IpAddr),
    /// No privilege.
    #[error("no permission to open TCP port {} on {}: ports below 1024 need CAP_NET_BIND_SERVICE", .0.port(), .0.ip())]
    Denied(SocketAddr),
    /// Anything else.
    #[error("cannot open TCP port {} on {} (--tcp-listen): {source}", .addr.port(), .addr.ip())]
    Failed {
        /// What was to be bound.
        addr: SocketAddr,
        /// The kernel's word.
        source: io::Error,
    },
}

/// Listens on each of these addresses. Of "all addresses" one family may be missing on this host.
pub fn listen(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, TcpError> {
    let mut listeners = Vec::new();
    for addr in addresses {
        match open(*addr) {
            Ok(listener) => listeners.push(listener),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) if addr.ip().is_unspecified() => {}
                Some(libc::EADDRINUSE) => return Err(TcpError::InUse(*addr)),
                Some(libc::EADDRNOTAVAIL) => return Err(TcpError::NotLocal(addr.ip())),
                Some(libc::EACCES | libc::EPERM) => return Err(TcpError::Denied(*addr)),
                _ => return Err(TcpError::Failed { addr: *addr, source: error }),
            },
        }
    }
    Ok(listeners)
}

fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(addr)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of a router that ran before may linger.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Begins to connect, from the first address of that family among `binds` where there are any.
pub(super) fn dial(remote: SocketAddr, binds: &[IpAddr]) -> io::Result<TcpStream> {
    let socket = socket(remote)?;
    if let Some(own) = binds.iter().find(|own| own.is_ipv4() == remote.is_ipv4()) {
        socket.bind(&SocketAddr::new(*own, 0).into())?;
    }
    match socket.connect(&remote.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        Ok(()) | Err(_) => Ok(TcpStream::from_std(socket.into())),
    }
}

fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
