//! What a cable of the laboratory can be made to do to the packets on it.

use super::{HostError, Lab, Wire, WireEnd, in_namespace};
use crate::io::sys::link::{self, Feature};

impl Lab {
    /// Takes all offloads from both ends of a cable: what crosses it are datagrams no longer than its MTU, with their checksums, as on a
    /// wire of copper. Otherwise a super frame crosses a veth pair whole.
    pub fn without_offloads(&self, wire: &Wire) -> Result<(), HostError> {
        for end in [&wire.a, &wire.b] {
            let what = || format!("take the offloads of {} in {}", end.interface, end.namespace);
            let all = [Feature::Tso, Feature::Gso, Feature::Gro, Feature::TxChecksum];
            let done = in_namespace(&end.namespace, || all.iter().try_for_each(|one| link::set_feature(&end.interface, *one, false)))?;
            done.map_err(|e| HostError::io(what(), e))?;
        }
        Ok(())
    }

    /// Loses so many percent of the packets that arrive at one end of a cable, by a firewall rule in front of everything else there.
    /// Needs `nft`. Where offloads are on, one packet is a whole super frame.
    pub fn lose(&self, end: &WireEnd, percent: u8) -> Result<(), HostError> {
        let hook = "type filter hook prerouting priority -400;";
        let drop = format!("iifname \"{}\" numgen random mod 100 < {percent} drop", end.interface);
        let rule = format!("table inet loss {{\n chain in {{\n {hook}\n {drop}\n }}\n }}\n");
        let out = self.exec(&end.host, "nft", &[&rule])?;
        if out.status.success() {
            return Ok(());
        }
        let attempted = format!("lose {percent} percent of what arrives at {} on {}", end.interface, end.host);
        Err(HostError::Program { attempted, program: "nft".into(), output: String::from_utf8_lossy(&out.stderr).into_owned() })
    }
}

/// Bytes and packets that an interface has received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes, with Ethernet headers.
    pub bytes: u64,
    /// Packets; a super frame is one.
    pub packets: u64,
}

impl Received {
    /// Reads the interface's counters.
    pub fn at(end: &WireEnd) -> Result<Received, HostError> {
        let what = || format!("read the counters of {} in {}", end.interface, end.namespace);
        let text = in_namespace(&end.namespace, || std::fs::read_to_string("/proc/thread-self/net/dev"))?;
        let text = text.map_err(|e| HostError::io(what(), e))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix(&end.interface)?.strip_prefix(':'));
        let mut numbers = line.unwrap_or("").split_whitespace().map_while(|number| number.parse().ok());
        match (numbers.next(), numbers.next()) {
            (Some(bytes), Some(packets)) => Ok(Received { bytes, packets }),
            _ => Err(HostError::io(what(), std::io::ErrorKind::NotFound.into())),
        }
    }
}

#[cfg(test)]
mod tests;
