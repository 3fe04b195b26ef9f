//! `--advertise`, checked.

use std::net::{IpAddr, SocketAddr};

use super::{ConfigError, unique, usage};
use crate::mesh::config::MOST_ADVERTISED;
use crate::wire::Address;

/// The addresses, each once; one without a port has `port`.
pub(super) fn addresses(texts: &[String], port: u16) -> Result<Vec<Address>, ConfigError> {
    let all = unique(texts.iter().map(|text| address(text, port)).collect::<Result<_, _>>()?);
    match all.len() {
        0..=MOST_ADVERTISED => Ok(all),
        n => {
            Err(usage(format!("--advertise is given {n} addresses, others are told at most {MOST_ADVERTISED}: leave out the least useful")))
        }
    }
}

fn address(text: &str, port: u16) -> Result<Address, ConfigError> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)).or_else(|_| text.parse::<SocketAddr>());
    // Unmapped: an IPv4 address in the clothes of an IPv6 one is looked at as what it is.
    let address = Address::udp(parsed.map_err(|_| usage(format!("--advertise {text}: write IP, IP:PORT or [IPV6]:PORT")))?);
    let why = match address.socket_addr().ip() {
        _ if address.socket_addr().port() == 0 => "port 0 is no port; leave it out for that of --port",
        ip if ip.is_unspecified() => "that is no address that anybody could send to; name the one under which others reach this host",
        ip if ip.is_loopback() => "that is every host's own loopback address; name the one under which others reach this host",
        ip if ip.is_multicast() => "that is a multicast address; name the one under which others reach this host",
        IpAddr::V4(ip) if ip.is_broadcast() => "that is the broadcast address; name the one under which others reach this host",
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            "a link-local address means another host on every link; name one that holds everywhere"
        }
        IpAddr::V4(_) | IpAddr::V6(_) => return Ok(address),
    };
    Err(usage(format!("--advertise {text}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Result<Vec<String>, ConfigError> {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        addresses(&texts, 6783).map(|all| all.iter().map(|address| address.socket_addr().to_string()).collect())
    }

    #[test]
    fn addresses_with_and_without_a_port_each_once() {
        let given = ["203.0.113.5", "203.0.113.5:7000", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:7000", "::ffff:203.0.113.6"];
        let expected = ["203.0.113.5:6783", "203.0.113.5:7000", "[2001:db8::1]:6783", "[2001:db8::1]:7000", "203.0.113.6:6783"];
        assert_eq!(of(&given), Ok(expected.map(String::from).to_vec()));
        assert_eq!(of(&[]), Ok(Vec::new()));
    }

    #[test]
    fn what_nobody_could_send_to_is_refused_with_a_reason() {
        for (text, word) in [
            ("host.example", "IP:PORT"),
            ("203.0.113.5:", "IP:PORT"),
            ("203.0.113.5:0", "--port"),
            ("203.0.113.5:65536", "IP:PORT"),
            ("0.0.0.0", "anybody"),
            ("[::]:6783", "anybody"),
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("224.0.0.1:6783", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("fe80::1", "link-local"),
        ] {
            let sentence = of(&[text]).expect_err(text).to_string();
            assert!(sentence.starts_with(&format!("--advertise {text}: ")) && sentence.contains(word), "{sentence}");
        }
        let many: Vec<String> = (0..=MOST_ADVERTISED).map(|n| format!("203.0.113.{n}")).collect();
        assert!(addresses(&many, 1).expect_err("one too many").to_string().contains("at most 8"));
    }
}
