//! Containers held to their MAC, their addresses and their subnets, in the bridge itself.

use ipnet::IpNet;

use super::{Port, mac_text, set};
use crate::host::container::found;

/// Chains of the table, before the sets are filled in. Every port of a container begins with PORTS: one that is not in the sets yet is closed.
///
/// `from…`: what a container sends, before the bridge learns from it and before every other chain. It says, asks and answers for itself alone,
/// with the exception of asking whether an address is free (RFC 5227). IPv6's link-local addresses are nobody's in particular:
/// neighbour discovery and the joining of multicast groups use them, and nothing else may; 64,128 is the target of an advertisement (RFC 4861 section 4.4). No container is
/// a router.
///
/// `to`: what a container hears, after every other chain: its own subnets, and what is no container's, such as a host outside whose packets
/// were routed here.
const CHAINS: &str = r#" chain prerouting {
  type filter hook prerouting priority -310; policy accept;
  iifname "PORTS*" goto from
 }
 chain from {
  iifname . ether saddr != @macs drop
  ether type vmap { arp : goto from_arp, ip : goto from_ip, ip6 : goto from_ip6 }
  drop
 }
 chain from_arp {
  iifname . arp saddr ether != @macs drop
  arp saddr ip 0.0.0.0 accept
  iifname . arp saddr ip != @addresses4 drop
  iifname . arp daddr ip @subnets4 accept
  arp daddr ip @mesh4 drop
  accept
 }
 chain from_ip {
  iifname . ip saddr != @addresses4 drop
  ether daddr GATEWAY accept
  ip daddr { 224.0.0.0/4, 255.255.255.255 } accept
  iifname . ip daddr @subnets4 accept
  ip daddr @mesh4 drop
  accept
 }
 chain from_ip6 {
  icmpv6 type nd-neighbor-advert @th,64,10 != 0x3fa iifname . @th,64,128 != @targets drop
  icmpv6 type { nd-router-advert, nd-redirect } drop
  ip6 saddr { ::, fe80::/10 } icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept
  ip6 saddr { ::, fe80::/10 } icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } accept
  iifname . ip6 saddr != @addresses6 drop
  ether daddr GATEWAY accept
  ip6 daddr ff00::/8 accept
  ip6 daddr fe80::/10 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
  iifname . ip6 daddr @subnets6 accept
  ip6 daddr @mesh6 drop
  ip6 daddr fe80::/10 drop
  accept
 }
 chain postrouting {
  type filter hook postrouting priority 310; policy accept;
  oifname "PORTS*" goto to
 }
 chain to {
  oifname . arp saddr ip @subnets4 accept
  arp saddr ip @mesh4 drop
  oifname . ip saddr @subnets4 accept
  ip saddr @mesh4 drop
  oifname . ip6 saddr @subnets6 accept
  ip6 saddr @mesh6 drop
 }
"#;

/// The chains and sets.
pub(super) fn isolate(bridge: &str, gateway: [u8; 6], ports: &[Port]) -> String {
    let chains = CHAINS.replace("PORTS", &found::prefix_of(bridge)).replace("GATEWAY", &mac_text(gateway));
    sets(ports) + &chains
}

/// Keeps multicast of IPv4 in its subnets: a port hears what comes from one of its own, and the router that asks for members.
pub(super) fn multicast(bridge: &str) -> String {
    let ports = found::prefix_of(bridge);
    format!(
        " chain multicast {{\n  type filter hook postrouting priority 305; policy accept;\n  \
         oifname \"{ports}*\" ip daddr 224.0.0.0/4 ip protocol != igmp oifname . ip saddr != @subnets4 drop\n }}\n"
    )
}

/// The set of IPv4 subnets by port, alone.
pub(super) fn subnets4(ports: &[Port]) -> String {
    addresses(ports, '4').1
}

fn sets(ports: &[Port]) -> String {
    let macs: Vec<String> = ports.iter().map(|port| format!("\"{}\" . {}", port.name, mac_text(port.mac))).collect();
    let mut text = set("macs", "type ifname . ether_addr", &macs);
    for digit in ['4', '6'] {
        let (addresses, subnets) = addresses(ports, digit);
        text += &addresses;
        text += &subnets;
    }
    text + &set("targets", "typeof iifname . @th,64,128", &targets(ports))
}

/// The sets of addresses and of subnets by port, of IPv4 or IPv6.
fn addresses(ports: &[Port], digit: char) -> (String, String) {
    let sort = if digit == '4' { "ipv4_addr" } else { "ipv6_addr" };
    let (mut addresses, mut subnets) = (Vec::new(), Vec::new());
    for port in ports {
        let mut of: Vec<IpNet> = port.addresses.iter().copied().filter(|a| a.addr().is_ipv4() == (digit == '4')).collect();
        of.sort_unstable_by_key(IpNet::addr);
        of.dedup_by_key(|address| address.addr());
        addresses.extend(of.iter().map(|address| format!("\"{}\" . {}", port.name, address.addr())));
        // The kernel refuses ranges of one port that overlap.
        let whole = IpNet::aggregate(&of.iter().map(IpNet::trunc).collect());
        subnets.extend(whole.iter().map(|subnet| format!("\"{}\" . {subnet}", port.name)));
    }
    let addresses = set(&format!("addresses{digit}"), &format!("type ifname . {sort}"), &addresses);
    (addresses, set(&format!("subnets{digit}"), &format!("type ifname . {sort}; flags interval"), &subnets))
}

/// Addresses of IPv6 as the numbers that raw bytes of a packet are compared with.
fn targets(ports: &[Port]) -> Vec<String> {
    let v6 = |address: &IpNet| match address {
        IpNet::V6(v6) => Some(u128::from(v6.addr())),
        IpNet::V4(_) => None,
    };
    let of = |port: &Port| port.addresses.iter().filter_map(v6).map(|n| format!("\"{}\" . {n:#x}", port.name)).collect::<Vec<_>>();
    let mut all: Vec<String> = ports.iter().flat_map(of).collect();
    all.sort_unstable();
    all.dedup();
    all
}
