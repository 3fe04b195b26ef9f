//! Who says when an address is on two containers.

use weave_router::ipam::Ipam;
use weave_router::wire::ipam::Body;

use super::world::World;

impl World {
    /// A router says that a container has an address.
    pub fn given(&mut self, host: usize, ident: &str, address: u128) {
        let clash = self.truth.get(&address).filter(|known| **known != (host, ident.to_string())).map(|(other, _)| *other);
        if let Some(other) = clash.filter(|_| self.strict) {
            self.explain(host, address);
            self.explain(other, address);
        }
        let had = self.hosts[host].containers.insert(ident.to_string(), address);
        assert!(had.is_none_or(|had| had == address), "{ident} on host {host} got a second address");
        let known = self.truth.insert(address, (host, ident.to_string()));
        let same = known.as_ref().is_none_or(|known| *known == (host, ident.to_string()));
        assert!(
            same || !self.strict,
            "at {:?}, {} went to {ident} on host {host}, and is that of {known:?}",
            self.now,
            weave_router::wire::ipam::address(address)
        );
    }

    /// What a router knows of an address.
    fn explain(&self, host: usize, address: u128) {
        let Some(ring) = self.hosts[host].ipam.as_ref().and_then(Ipam::ring) else { return eprintln!("host {host} is down") };
        eprintln!("host {host}, {} of {} entries; {:?}", self.hosts[host].name, ring.len(), ring.leaves().at(address));
        for entry in ring.iter() {
            let body = &entry.body;
            match body {
                Body::Grant { range, .. } | Body::Taken { range, .. } if range.contains(address) => eprintln!("  {entry:?}"),
                Body::Removal { .. } | Body::Done { .. } => eprintln!("  {entry:?}"),
                _ => {}
            }
        }
    }
}
