//! What stands in for UDP.

use std::net::{IpAddr, SocketAddr};

use super::{ConfigError, unique, usage};
use crate::mesh::command::Target;

/// Where to listen, each once: an address, or none for the usual ones, and a port.
pub(super) fn listen(texts: &[String]) -> Result<Vec<(Option<IpAddr>, u16)>, ConfigError> {
    texts.iter().map(|text| place(text)).collect::<Result<_, _>>().map(unique)
}

fn place(text: &str) -> Result<(Option<IpAddr>, u16), ConfigError> {
    let port = text.parse::<u16>().map(|port| (None, port));
    match port.or_else(|_| text.parse::<SocketAddr>().map(|addr| (Some(addr.ip()), addr.port()))) {
        Ok((Some(ip), _)) if ip.is_multicast() => Err(usage(format!("--tcp-listen {text}: that is a multicast address"))),
        Ok((ip, port)) if port != 0 => Ok((ip, port)),
        Ok(_) | Err(_) => Err(usage(format!("--tcp-listen {text}: write PORT, IP:PORT or [IPV6]:PORT, with a port from 1 to 65535"))),
    }
}

/// How many routers the peers are: one that is named by UDP and by TCP counts once.
pub(super) fn routers(peers: &[Target]) -> usize {
    let named_by_udp = |target: &Target| peers.iter().any(|other| !other.tcp && other.host == target.host);
    peers.iter().filter(|target| !(target.tcp && named_by_udp(target))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_or_with_an_address() {
        for (text, ip, port) in [("443", None, 443), ("10.0.0.1:443", Some("10.0.0.1"), 443), ("[fd00::1]:8443", Some("fd00::1"), 8443)] {
            let expected = (ip.map(|ip| ip.parse().expect("an address")), port);
            assert_eq!(place(text), Ok(expected), "{text}");
        }
        for bad in ["", "0", "65536", "host:443", "10.0.0.1", "10.0.0.1:0", "fd00::1:", "224.0.0.1:443"] {
            assert!(matches!(place(bad), Err(ConfigError::Usage(_))), "{bad}");
        }
        let twice = ["443", "443"].map(String::from);
        assert_eq!(listen(&twice).map(|places| places.len()), Ok(1));
    }

    #[test]
    fn a_router_named_twice_is_one() {
        let peers = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a target")).collect::<Vec<Target>>();
        assert_eq!(routers(&peers(&["a", "tcp://a:443", "tcp://b:443"])), 2);
        assert_eq!(routers(&peers(&["a:1", "a:2"])), 2);
    }
}
