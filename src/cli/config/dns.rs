//! The name server's part of the configuration.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::super::options::dns::DnsOptions;
use super::{ConfigError, split, unique, usage};
use crate::dns::PORT;
use crate::names::Domain;

/// What the name server is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// The domain of the names.
    pub domain: Domain,
    /// How long answers may be kept, in seconds.
    pub ttl: u32,
    /// Where it listens, each once; empty for the usual places.
    pub listen: Vec<SocketAddr>,
    /// The file that names the host's own name servers.
    pub resolv_conf: PathBuf,
    /// How long those may take together.
    pub patience: Duration,
}

/// Checks the options; `listed` says that the addresses came as one text.
pub(super) fn config(options: DnsOptions, listed: bool) -> Result<Option<DnsConfig>, ConfigError> {
    if options.no_dns {
        return Ok(None);
    }
    let domain = options.dns_domain.parse::<Domain>().map_err(|e| usage(format!("--dns-domain: {e}")))?;
    let listen: Vec<SocketAddr> = split(options.dns_listen, listed).iter().map(|text| address(text)).collect::<Result<_, _>>()?;
    Ok(Some(DnsConfig {
        domain,
        ttl: options.dns_ttl,
        listen: unique(listen),
        resolv_conf: options.resolv_conf,
        patience: Duration::from_secs(u64::from(options.dns_fallback_timeout)),
    }))
}

fn address(text: &str) -> Result<SocketAddr, ConfigError> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)).or_else(|_| text.parse::<SocketAddr>());
    match parsed {
        Err(_) => Err(usage(format!("--dns-listen {text}: write IP, IP:PORT or [IPV6]:PORT"))),
        Ok(address) if address.port() == 0 => Err(usage(format!("--dns-listen {text}: port 0 is no port; leave it out for 53"))),
        // An answer has to come from the address that was asked, which the kernel decides where a socket has all of them.
        Ok(address) if address.ip().is_unspecified() || address.ip().is_multicast() => {
            Err(usage(format!("--dns-listen {text}: name single addresses of this host; the option may be repeated")))
        }
        Ok(address) => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_a_port() {
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1:53"),
            ("10.0.0.1:5353", "10.0.0.1:5353"),
            ("fd00::1", "[fd00::1]:53"),
            ("[fd00::1]", "[fd00::1]:53"),
            ("[fd00::1]:5353", "[fd00::1]:5353"),
        ] {
            assert_eq!(address(text), Ok(expected.parse().expect("an address")), "{text}");
        }
        for bad in ["", "host", "10.0.0.1:", "10.0.0.1:0", "0.0.0.0", "[::]:53", "224.0.0.1"] {
            assert!(matches!(address(bad), Err(ConfigError::Usage(_))), "{bad}");
        }
    }
}
