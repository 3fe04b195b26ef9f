//! What is remembered of a container over a restart: the kernel knows the rest.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::desk::Desk;
use crate::api::Denied;
use crate::host::rules::Exposure;

/// Version of the form in which it is kept.
const VERSION: u32 = 1;

/// A container, or the host itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The addresses that it was given; it may have added others by itself.
    pub addresses: Vec<IpNet>,
    /// Names, each with the addresses that have it.
    pub names: Vec<(String, Vec<IpNet>)>,
    /// Those of the host's addresses that are not masqueraded.
    #[serde(default)]
    pub plain: Vec<IpNet>,
    /// MAC that its interface was made with; it may have given itself another.
    #[serde(default)]
    pub mac: Option<[u8; 6]>,
    /// Where its network namespace was when it was attached.
    #[serde(default)]
    pub netns: Option<PathBuf>,
    /// Addresses that it has no more, and that could not be given back yet.
    #[serde(default)]
    pub leaving: Vec<IpNet>,
}

impl Record {
    /// Adds addresses and names for them.
    pub fn add(&mut self, addresses: &[IpNet], names: &[String]) {
        self.leaving.retain(|a| !addresses.contains(a));
        self.addresses.extend(addresses.iter().filter(|a| !self.addresses.contains(a)).copied().collect::<Vec<_>>());
        for name in names {
            match self.names.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => known.extend(addresses.iter().filter(|a| !known.contains(a)).copied().collect::<Vec<_>>()),
                None => self.names.push((name.clone(), addresses.to_vec())),
            }
        }
    }

    /// Removes addresses, and names that are left without one.
    pub fn remove(&mut self, addresses: &[IpNet]) {
        self.addresses.retain(|a| !addresses.contains(a));
        self.plain.retain(|a| !addresses.contains(a));
        self.names.iter_mut().for_each(|(_, of)| of.retain(|a| !addresses.contains(a)));
        self.names.retain(|(_, of)| !of.is_empty());
    }

    /// Where the container's network namespace is: also for one whose record is older, or lost.
    pub fn namespace_of(&self, ident: &str) -> Option<PathBuf> {
        let told = || match ident.split_once(':')? {
            ("netns", path) => Some(path.into()),
            ("pid", pid) => Some(format!("/proc/{pid}/ns/net").into()),
            _ => None,
        };
        self.netns.clone().or_else(told)
    }

    /// The host's addresses, with what becomes of them in the firewall.
    pub fn exposures(&self) -> Vec<Exposure> {
        self.addresses.iter().map(|a| Exposure { address: *a, masquerade: !self.plain.contains(a) }).collect()
    }

    /// For the disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&Record { version: VERSION, ..self.clone() }).unwrap_or_default()
    }

    /// From the disk; `None` where a newer program wrote it, or nobody.
    pub fn from_bytes(bytes: &[u8]) -> Option<Record> {
        serde_json::from_slice::<Record>(bytes).ok().filter(|record| record.version == VERSION)
    }
}

impl Desk {
    /// Remembers who is about to get its first address: an end between the two is found at the next start, and the address goes back.
    pub(super) async fn announce_newcomer(&self, ident: &str) -> Result<(), Denied> {
        if self.lock().contains_key(ident) { Ok(()) } else { self.remember(ident, Some(&Record::default())).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("an address")
    }

    #[test]
    fn names_go_with_their_last_address() {
        let mut record = Record::default();
        record.add(&[net("10.2.1.1/24"), net("10.2.2.1/24")], &["web".into()]);
        record.add(&[net("10.2.1.1/24")], &["web".into(), "www".into()]);
        assert_eq!(record.addresses.len(), 2);
        assert_eq!(record.names.len(), 2);
        record.remove(&[net("10.2.1.1/24")]);
        assert_eq!(record.names, [("web".to_string(), vec![net("10.2.2.1/24")])]);
        record.plain = vec![net("10.2.2.1/24")];
        assert_eq!(record.exposures(), [Exposure { address: net("10.2.2.1/24"), masquerade: false }]);
        assert_eq!(record.namespace_of("netns:/run/netns/a:b"), Some("/run/netns/a:b".into()));
        assert_eq!(record.namespace_of("pid:7"), Some("/proc/7/ns/net".into()));
        assert_eq!(record.namespace_of("0123456789ab"), None);
        record.netns = Some("/proc/8/ns/net".into());
        assert_eq!(record.namespace_of("0123456789ab"), Some("/proc/8/ns/net".into()));
        record.leaving = vec![net("10.2.1.1/24")];
        record.add(&[net("10.2.1.1/24")], &[]);
        assert_eq!(record.leaving, [], "what it has again does not leave");
    }

    #[test]
    fn what_is_written_is_read_and_what_is_strange_is_not() {
        let mut record = Record::default();
        record.add(&[net("10.2.1.1/24"), net("fd00::1/64")], &["web".into()]);
        let read = Record::from_bytes(&record.to_bytes()).expect("a record");
        assert_eq!(Record { version: 0, ..read }, record);
        let former = br#"{"version":1,"addresses":["10.2.1.1/24"],"names":[]}"#;
        assert_eq!(Record::from_bytes(former).map(|record| (record.mac, record.leaving)), Some((None, Vec::new())));
        for strange in [&b""[..], b"{}", b"nonsense", br#"{"version":2,"addresses":[],"names":[]}"#] {
            assert_eq!(Record::from_bytes(strange), None);
        }
    }
}
