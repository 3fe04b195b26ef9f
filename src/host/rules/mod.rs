//! The router's own nftables tables: masquerading for an exposed bridge, subnets kept apart, multicast kept in them, containers held to their
//! addresses.
//!
//! One table of family `inet` and one of family `bridge`, both named after the bridge, and both always written whole in one transaction: what
//! somebody took out of them is there again, and at no moment is a part of it missing. Two routers on one host do not meet.
//!
//! * **Masquerading**, for each subnet that the host is exposed in, unless it is to be without: what leaves the subnet by another interface, and
//!   what comes into it from outside, takes the host's address; so no other host needs a route.
//! * **Layer 3**: the host routes nothing from its bridge into a subnet that does not belong to the sender. A bridged frame is not concerned.
//! * **Multicast** of IPv4 reaches containers from their own subnets alone. (That of IPv6 comes from link-local addresses, which tell no subnet.)
//! * **Layer 2** (`--isolate`): a frame from a container passes only with the MAC and the addresses that the container was given,
//!   in ARP and neighbour discovery as well, and only to its own subnets or out of the mesh; a frame to it only from there. Nothing but IP
//!   and ARP passes. A port whose container is not known yet is closed.
//!
//! Running `nft` blocks for some milliseconds: call [`write()`] and [`remove`] on a thread of their own.

mod layer2;

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::HostError;
use super::firewall;

/// What the tables are to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// MAC of the bridge: what is sent there is for the host, or to be routed by it.
    pub mac: [u8; 6],
    /// What the host is exposed as.
    pub exposed: Vec<Exposure>,
    /// Everything that belongs to the mesh: ranges addresses are given from, subnets of containers.
    pub mesh: Vec<IpNet>,
    /// The host's containers.
    pub ports: Vec<Port>,
    /// They are held to their addresses.
    pub isolate: bool,
}

/// An address of the host on its bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// The address, with the length of its subnet's prefix.
    pub address: IpNet,
    /// Connections from the subnet to the outside, and back, take the host's address.
    pub masquerade: bool,
}

/// The port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Interface on the host.
    pub name: String,
    /// MAC of the interface in the container.
    pub mac: [u8; 6],
    /// The container's addresses.
    pub addresses: Vec<IpNet>,
}

impl Rules {
    /// True where there is nothing to say, and no table is needed.
    pub fn is_empty(&self) -> bool {
        self.exposed.is_empty() && self.ports.is_empty() && !self.isolate
    }
}

/// Brings the tables of this bridge to what the rules say; without any there are no tables.
pub fn write(bridge: &str, rules: &Rules) -> Result<(), HostError> {
    let attempted = format!("write the nftables rules of bridge {bridge}");
    if bridge.contains(['"', '*', '\\']) {
        return Err(HostError::refused(attempted, "nftables cannot express its name; give the bridge another by --bridge"));
    }
    nft(&script(bridge, rules), attempted)
}

/// Removes the tables of this bridge. Without `nft` there are none.
pub fn remove(bridge: &str) -> Result<(), HostError> {
    match nft(&script(bridge, &Rules::default()), format!("remove the nftables rules of bridge {bridge}")) {
        Err(HostError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The name of both tables: letters, digits and underscores.
pub fn table(bridge: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("_{:02x}", u32::from(c)) };
    format!("weave_router_{}", bridge.chars().map(plain).collect::<String>())
}

fn nft(script: &str, attempted: String) -> Result<(), HostError> {
    match firewall::feed("nft", &["-f", "-"], script, &attempted) {
        Err(HostError::MissingProgram { attempted, .. }) => {
            let missing = std::io::Error::new(std::io::ErrorKind::NotFound, "the program 'nft' is not installed; install nftables");
            Err(HostError::Io { attempted, source: missing })
        }
        other => other.map(drop),
    }
}

/// The whole transaction. Only a table that is there can be deleted.
fn script(bridge: &str, rules: &Rules) -> String {
    let name = table(bridge);
    let mut text = String::new();
    for family in ["inet", "bridge"] {
        let _ = writeln!(text, "add table {family} {name}\ndelete table {family} {name}");
    }
    if !rules.exposed.is_empty() {
        let _ = write!(text, "table inet {name} {{\n{}{}}}\n", ranges(&rules.mesh), masquerade(bridge, rules));
    }
    if !rules.is_empty() {
        let held = match rules.isolate {
            true => ranges(&rules.mesh) + &layer2::isolate(bridge, rules.mac, &rules.ports),
            false => layer2::subnets4(&rules.ports),
        };
        let _ = write!(text, "table bridge {name} {{\n{held}{}{}}}\n", layer2::multicast(bridge), keep_apart(rules));
    }
    text
}

/// The sets `mesh4` and `mesh6`.
fn ranges(mesh: &[IpNet]) -> String {
    let all = IpNet::aggregate(&mesh.iter().map(IpNet::trunc).collect());
    let of = |v4: bool| all.iter().filter(|range| range.addr().is_ipv4() == v4).map(IpNet::to_string).collect::<Vec<_>>();
    set("mesh4", "type ipv4_addr; flags interval", &of(true)) + &set("mesh6", "type ipv6_addr; flags interval", &of(false))
}

fn set(name: &str, about: &str, elements: &[String]) -> String {
    let elements = if elements.is_empty() { String::new() } else { format!("; elements = {{ {} }}", elements.join(", ")) };
    format!(" set {name} {{ {about}{elements}; }}\n")
}

fn masquerade(bridge: &str, rules: &Rules) -> String {
    let mut chain = String::from(" chain postrouting {\n  type nat hook postrouting priority 100; policy accept;\n");
    for exposure in rules.exposed.iter().filter(|exposure| exposure.masquerade) {
        let subnet = exposure.address.trunc();
        let (ip, all, mesh) = match subnet {
            IpNet::V4(_) => ("ip", "224.0.0.0/4", "@mesh4"),
            IpNet::V6(_) => ("ip6", "ff00::/8", "@mesh6"),
        };
        let _ = writeln!(chain, "  oifname != \"{bridge}\" {ip} saddr {subnet} {ip} daddr != {subnet} {ip} daddr != {all} masquerade");
        // A frame that is merely bridged, as one of an outside client which another host routes is, has no interface that it came by here,
        // where `bridge-nf-call-iptables` shows it to this chain at all. Its sender is to be seen as it is.
        let routed = format!("meta iif != 0 oifname \"{bridge}\"");
        let _ = writeln!(chain, "  {routed} {ip} saddr != {subnet} {ip} saddr != {mesh} {ip} daddr {subnet} masquerade");
    }
    chain + " }\n"
}

/// The hook `input` of a bridge sees frames for the host alone: to the host itself, or to be routed by it.
fn keep_apart(rules: &Rules) -> String {
    let mut chain = String::from(" chain input {\n  type filter hook input priority 0; policy accept;\n");
    for exposure in &rules.exposed {
        let subnet = exposure.address.trunc();
        let v4 = subnet.addr().is_ipv4();
        let ip = if v4 { "ip" } else { "ip6" };
        let own = rules.exposed.iter().map(|other| other.address.addr()).filter(|own| own.is_ipv4() == v4);
        let own = own.map(|own: IpAddr| own.to_string()).collect::<Vec<_>>().join(", ");
        let mac = mac_text(rules.mac);
        let _ = writeln!(chain, "  ether daddr {mac} {ip} daddr {subnet} {ip} daddr != {{ {own} }} {ip} saddr != {subnet} drop");
    }
    chain + " }\n"
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests;
