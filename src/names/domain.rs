//! The domain, and names in it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::wire::names::{MAX_NAME, is_name};

/// The domain whose names this router answers, lower case and without the last dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain(String);

/// Why a text is no name, or no domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHostname {
    /// It is no host name at all.
    #[error(
        "'{0}' is not a host name: its labels are 1 to 63 letters, digits, hyphens or underscores, joined by dots, 253 characters at most"
    )]
    Malformed(String),
    /// It has dots, but not our domain.
    #[error("'{name}' is not in the domain {domain}: give a name without dots, or one that ends in .{domain}")]
    Elsewhere {
        /// The name.
        name: String,
        /// The domain.
        domain: String,
    },
}

impl Domain {
    /// What Weave calls its domain.
    pub const DEFAULT: &'static str = "weave.local";

    /// The domain's name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The part of `name` before the domain, in lower case. A name without a dot is taken as in the domain; a last dot is allowed.
    pub fn relative(&self, name: &str) -> Result<String, BadHostname> {
        let lower = name.to_ascii_lowercase();
        let lower = lower.strip_suffix('.').unwrap_or(&lower);
        if !is_name(lower) {
            return Err(BadHostname::Malformed(name.into()));
        }
        let relative = match self.strip(lower) {
            Some(relative) => relative,
            None if !lower.contains('.') && lower != self.0 => lower,
            None => return Err(BadHostname::Elsewhere { name: name.into(), domain: self.0.clone() }),
        };
        if relative.len() + 1 + self.0.len() > MAX_NAME {
            return Err(BadHostname::Malformed(name.into()));
        }
        Ok(relative.to_string())
    }

    /// The part of a lower-case name before the domain; `None` for the domain itself and for names elsewhere.
    pub fn strip<'a>(&self, lower: &'a str) -> Option<&'a str> {
        lower.strip_suffix(&self.0)?.strip_suffix('.').filter(|relative| !relative.is_empty())
    }

    /// The whole name, without the last dot.
    pub fn full(&self, relative: &str) -> String {
        format!("{relative}.{}", self.0)
    }
}

impl FromStr for Domain {
    type Err = BadHostname;

    fn from_str(text: &str) -> Result<Domain, BadHostname> {
        let lower = text.to_ascii_lowercase();
        let trimmed = lower.trim_matches('.');
        // Room for a name of one label.
        if !is_name(trimmed) || trimmed.len() + 2 > MAX_NAME {
            return Err(BadHostname::Malformed(text.into()));
        }
        Ok(Domain(trimmed.to_string()))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The address that a lower-case name of the reverse tree stands for: all of its labels, and no more (RFC 1035, 3.5; RFC 3596, 2.5).
pub fn reverse_address(lower: &str) -> Option<IpAddr> {
    if let Some(labels) = lower.strip_suffix(".in-addr.arpa") {
        let mut parts = labels.split('.').rev();
        let mut octets = [0; 4];
        for octet in &mut octets {
            let part = parts.next()?;
            let canonical = part.len() == 1 || !part.starts_with('0');
            *octet = part.parse().ok().filter(|_| canonical && part.bytes().all(|b| b.is_ascii_digit()))?;
        }
        return parts.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let mut parts = lower.strip_suffix(".ip6.arpa")?.split('.').rev();
    let mut bits: u128 = 0;
    for _ in 0..32 {
        let &[digit] = parts.next()?.as_bytes() else { return None };
        bits = bits << 4 | u128::from(char::from(digit).to_digit(16)?);
    }
    parts.next().is_none().then(|| Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_the_domain_and_fold_case() {
        let domain: Domain = "Weave.Local.".parse().expect("a domain");
        assert_eq!(domain.name(), "weave.local");
        for (name, relative) in [
            ("Web", "web"),
            ("web.", "web"),
            ("web.weave.local", "web"),
            ("a.B.WEAVE.local.", "a.b"),
            ("my_app-1", "my_app-1"),
            ("weave", "weave"),
        ] {
            assert_eq!(domain.relative(name).as_deref(), Ok(relative), "{name}");
        }
        assert_eq!(domain.full("web"), "web.weave.local");
        for bad in ["", ".", "a b", "-ü", "a..weave.local", &"x".repeat(64)] {
            assert_eq!(domain.relative(bad), Err(BadHostname::Malformed(bad.into())), "{bad}");
        }
        for elsewhere in ["web.example.com", "weave.local", "webweave.local", "a.local"] {
            assert!(matches!(domain.relative(elsewhere), Err(BadHostname::Elsewhere { .. })), "{elsewhere}");
        }
        for bad in ["", ".", "a b", &vec!["a".repeat(63); 4].join(".")] {
            assert!(bad.parse::<Domain>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_of_the_reverse_tree() {
        assert_eq!(reverse_address("1.0.32.10.in-addr.arpa"), Some([10, 32, 0, 1].into()));
        let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(reverse_address(six), Some("fd00::1".parse().expect("an address")));
        for none in [
            "0.32.10.in-addr.arpa",
            "1.1.0.32.10.in-addr.arpa",
            "01.0.32.10.in-addr.arpa",
            "+1.0.32.10.in-addr.arpa",
            "256.0.32.10.in-addr.arpa",
        ] {
            assert_eq!(reverse_address(none), None, "{none}");
        }
        for none in ["d.f.ip6.arpa", "in-addr.arpa", "web.weave.local", &format!("0.{six}")] {
            assert_eq!(reverse_address(none), None, "{none}");
        }
    }
}
