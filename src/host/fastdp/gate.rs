//! Who may send VXLAN to this host: a table of our own, changed in one transaction each time.
//!
//! Let in is what comes from the address of such a peer, by an interface through which that address is reached (a container cannot pose as
//! the peer), with the network identifier of this network.
//!
//! It only ever drops. What another table of the host drops stays dropped; then heartbeats do not come, and frames take the router.
//! Everything here runs a program and blocks for some milliseconds: call it on a thread of its own.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::HostError;
use super::super::firewall::run;
use super::device::Family;

/// The table's name.
pub const TABLE: &str = "weave_fastdp";

/// Lets these addresses in, and no others. The whole table is written each time: whatever somebody took out of it is there again, and
/// what a killed router left is replaced. At no moment is it half there. Without a device for IPv6 the port may be another program's there.
pub fn guard(peers: &BTreeSet<IpAddr>, port: u16, vni: u32, ipv6: bool) -> Result<(), HostError> {
    nft(&rules(peers, port, vni, ipv6), port).map_err(|error| match error {
        HostError::MissingProgram { attempted, .. } => {
            HostError::Io { attempted, source: std::io::Error::other("the program 'nft' is not installed; install nftables") }
        }
        other => other,
    })
}

fn rules(peers: &BTreeSet<IpAddr>, port: u16, vni: u32, ipv6: bool) -> String {
    let elements = |family: Family| {
        let addresses: Vec<String> = peers.iter().filter(|ip| Family::of(**ip) == family).map(IpAddr::to_string).collect();
        match addresses.is_empty() {
            true => String::new(),
            false => format!(" elements = {{ {} }};", addresses.join(", ")),
        }
    };
    let (v4, v6) = (elements(Family::V4), elements(Family::V6));
    let others = if ipv6 { String::new() } else { format!("add rule inet {TABLE} input meta nfproto ipv6 accept; ") };
    format!(
        "add table inet {TABLE}; delete table inet {TABLE}; add table inet {TABLE}; \
         add set inet {TABLE} peers {{ type ipv4_addr;{v4} }}; \
         add set inet {TABLE} peers6 {{ type ipv6_addr;{v6} }}; \
         add chain inet {TABLE} input {{ type filter hook input priority -10; policy accept; }}; {others}\
         add rule inet {TABLE} input udp dport {port} fib saddr . iif oif missing drop; \
         add rule inet {TABLE} input udp dport {port} ip saddr @peers @th,96,24 {vni} accept; \
         add rule inet {TABLE} input udp dport {port} ip6 saddr @peers6 @th,96,24 {vni} accept; \
         add rule inet {TABLE} input udp dport {port} drop"
    )
}

/// Removes the table, where there is one.
pub fn close(port: u16) -> Result<(), HostError> {
    nft(&format!("add table inet {TABLE}; delete table inet {TABLE}"), port)
}

fn nft(rules: &str, port: u16) -> Result<(), HostError> {
    run("nft", &[rules], &format!("guard UDP port {port} of the fast datapath"), "").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table_is_one_transaction_with_the_drop_at_its_end() {
        let peers = ["10.9.1.2", "fd00::2", "10.9.1.3"].map(|ip| ip.parse().expect("an address"));
        let (some, none) = (rules(&BTreeSet::from(peers), 6784, 77, true), rules(&BTreeSet::new(), 6784, 77, false));
        assert!(some.contains("elements = { 10.9.1.2, 10.9.1.3 }") && some.contains("elements = { fd00::2 }"), "{some}");
        assert!(!none.contains("elements"), "{none}");
        let spared = none.find("meta nfproto ipv6 accept").expect("what is IPv6 is another's");
        assert!(Some(spared) < none.find("udp dport") && !some.contains("nfproto"), "{none}");
        assert!(some.contains("oif missing drop") && some.contains("@peers @th,96,24 77 accept"), "{some}");
        assert!(some.contains("ip6 saddr @peers6 @th,96,24 77 accept"), "{some}");
        for rules in [some, none] {
            assert!(rules.contains("delete table inet weave_fastdp; add table") && rules.ends_with("udp dport 6784 drop"), "{rules}");
        }
    }
}
