//! Where the API is: a unix socket, or a port on loopback.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Longest path a unix socket address holds, without its terminating zero.
const MAX_SOCKET_PATH: usize = 107;

/// The address of the API, as given by `--api`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAddress {
    /// A unix socket: who may open it is decided by its mode, 0600.
    Unix(PathBuf),
    /// A TCP port on a loopback address: anybody on this host may use it.
    Tcp(SocketAddr),
}

/// Why a text is not an API address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an address for the API: {why}; write unix:/PATH or 127.0.0.1:PORT")]
pub struct BadApiAddress {
    text: String,
    why: &'static str,
}

impl FromStr for ApiAddress {
    type Err = BadApiAddress;

    fn from_str(text: &str) -> Result<ApiAddress, BadApiAddress> {
        let bad = |why| BadApiAddress { text: text.to_string(), why };
        let path = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text));
        if let Some(path) = path {
            // Both `unix:/path` and the URL form `unix:///path` are in use.
            let path = if path.starts_with("//") { path.trim_start_matches('/').to_string() } else { path.to_string() };
            let path = if text.starts_with("unix://") { format!("/{path}") } else { path };
            return match path.len() {
                0 => Err(bad("the path is empty")),
                1..=MAX_SOCKET_PATH if path.ends_with('/') => Err(bad("the path names a directory")),
                1..=MAX_SOCKET_PATH if path.contains('\0') => Err(bad("the path holds a zero byte")),
                1..=MAX_SOCKET_PATH => Ok(ApiAddress::Unix(PathBuf::from(path))),
                _ => Err(bad("the path of a unix socket takes at most 107 bytes")),
            };
        }
        let addr = match text.strip_prefix("localhost:") {
            Some(port) => port.parse().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)).ok(),
            None => text.parse().ok(),
        };
        match addr {
            None => Err(bad("it is neither a path nor an IP address with a port")),
            Some(addr) if addr.port() == 0 => Err(bad("the port is not a number from 1 to 65535")),
            Some(addr) if !addr.ip().is_loopback() => Err(bad("the API changes the router, so it only listens on loopback")),
            Some(addr) => Ok(ApiAddress::Tcp(addr)),
        }
    }
}

impl fmt::Display for ApiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            ApiAddress::Tcp(addr) => addr.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_and_print() {
        for (text, printed) in [
            ("unix:/run/w/api.sock", "unix:/run/w/api.sock"),
            ("unix:///run/w/api.sock", "unix:/run/w/api.sock"),
            ("/run/w/api.sock", "unix:/run/w/api.sock"),
            ("unix:api.sock", "unix:api.sock"),
            ("127.0.0.1:6784", "127.0.0.1:6784"),
            ("localhost:6784", "127.0.0.1:6784"),
            ("[::1]:6784", "[::1]:6784"),
        ] {
            let parsed: ApiAddress = text.parse().expect(text);
            assert_eq!(parsed.to_string(), printed, "{text}");
            assert_eq!(printed.parse(), Ok(parsed));
        }
        let long = format!("unix:/{}", "x".repeat(107));
        for bad in ["", "unix:", "unix:/run/", "0.0.0.0:6784", "192.168.1.1:6784", "127.0.0.1:0", "127.0.0.1", "localhost:x", &long] {
            assert!(bad.parse::<ApiAddress>().is_err(), "{bad}");
        }
    }
}
