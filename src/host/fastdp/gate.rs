//! Who may send VXLAN to this host: a table of our own, changed in one transaction each time.
//!
//! It only ever drops. What another table of the host drops stays dropped; then heartbeats do not come, and frames take the router.
//! Everything here runs a program and blocks for some milliseconds: call it on a thread of its own.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::HostError;
use super::super::firewall::run;

/// The table's name.
pub const TABLE: &str = "weave_fastdp";

/// Makes the table, with nobody in it. One that a killed router left is replaced.
pub fn open(port: u16) -> Result<(), HostError> {
    let rules = format!(
        "add table inet {TABLE}; delete table inet {TABLE}; add table inet {TABLE}; \
         add set inet {TABLE} peers {{ type ipv4_addr; }}; \
         add chain inet {TABLE} input {{ type filter hook input priority -10; policy accept; }}; \
         add rule inet {TABLE} input udp dport {port} ip saddr @peers accept; \
         add rule inet {TABLE} input udp dport {port} drop"
    );
    nft(&rules, port).map_err(|error| match error {
        HostError::MissingProgram { attempted, .. } => {
            HostError::Io { attempted, source: std::io::Error::other("the program 'nft' is not installed; install nftables") }
        }
        other => other,
    })
}

/// Lets these addresses in, and no others.
pub fn allow(peers: &BTreeSet<IpAddr>, port: u16) -> Result<(), HostError> {
    let mut rules = format!("flush set inet {TABLE} peers");
    let addresses: Vec<String> = peers.iter().filter(|ip| ip.is_ipv4()).map(IpAddr::to_string).collect();
    if !addresses.is_empty() {
        rules.push_str(&format!("; add element inet {TABLE} peers {{ {} }}", addresses.join(", ")));
    }
    nft(&rules, port)
}

/// Removes the table, where there is one.
pub fn close(port: u16) -> Result<(), HostError> {
    nft(&format!("add table inet {TABLE}; delete table inet {TABLE}"), port)
}

fn nft(rules: &str, port: u16) -> Result<(), HostError> {
    run("nft", &[rules], &format!("guard UDP port {port} of the fast datapath"), "").map(drop)
}
