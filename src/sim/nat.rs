//! Network address translators before hosts: which address the outside sees, and who may answer it (RFC 4787; the four kinds of RFC 3489).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::time::Time;
use crate::wire::Address;

use super::underlay::WireId;

/// What a translator lets in, and how it names what goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// One outside port for each inside address; whoever knows it may send there.
    FullCone,
    /// The same; only addresses that something was sent to may, from any port.
    AddressRestricted,
    /// The same; only addresses and ports that something was sent to may.
    PortRestricted,
    /// An outside port for each inside address and destination; only that destination may send there.
    Symmetric,
}

/// A host's address behind a translator, with the destination where that makes a difference.
type Key = (Address, Option<Address>);

/// An outside port that stands for an inside address.
struct Mapping {
    outside: Address,
    used: Time,
    /// Where something was sent to, and when last.
    asked: BTreeMap<Address, Time>,
}

/// An outside port that somebody has set up to lead to an inside address, whoever asks.
struct Forward {
    outside: Address,
    inside: Address,
    /// Who has come in by it: answers go out from it.
    came: BTreeSet<Address>,
}

/// One translator.
pub struct Translator {
    pub inside: WireId,
    pub outside: WireId,
    kind: Nat,
    /// Mappings and permissions end when nothing was sent for so long.
    timeout: Duration,
    ip: Ipv4Addr,
    next_port: u16,
    mappings: BTreeMap<Key, Mapping>,
    forwards: Vec<Forward>,
}

impl Translator {
    /// A translator with this address outside.
    pub fn new(kind: Nat, timeout: Duration, (inside, outside): (WireId, WireId), ip: Ipv4Addr) -> Translator {
        Translator { inside, outside, kind, timeout, ip, next_port: 20_000, mappings: BTreeMap::new(), forwards: Vec::new() }
    }

    /// Has an outside port lead to an inside address from now on; returns the outside address.
    pub fn forward(&mut self, inside: Address, port: u16) -> Address {
        let outside = Address::udp(SocketAddr::from((self.ip, port)));
        self.forwards.push(Forward { outside, inside, came: BTreeSet::new() });
        outside
    }

    /// True where an address is one of its outside ones.
    pub fn is_at(&self, address: Address) -> bool {
        address.socket_addr().ip() == self.ip
    }

    /// Something goes out from an inside address: the address that the outside sees.
    pub fn out(&mut self, now: Time, from: Address, to: Address) -> Address {
        if let Some(forward) = self.forwards.iter().find(|forward| forward.inside == from && forward.came.contains(&to)) {
            return forward.outside;
        }
        let timeout = self.timeout;
        self.mappings.retain(|_, mapping| now.since(mapping.used) < timeout);
        let key = (from, (self.kind == Nat::Symmetric).then_some(to));
        let (ip, next_port) = (self.ip, &mut self.next_port);
        let mapping = self.mappings.entry(key).or_insert_with(|| {
            *next_port += 1;
            Mapping { outside: Address::udp(SocketAddr::from((ip, *next_port))), used: now, asked: BTreeMap::new() }
        });
        mapping.used = now;
        mapping.asked.insert(to, now);
        mapping.outside
    }

    /// Something comes in: the inside address it is for; `None` where it is not let in.
    pub fn enter(&mut self, now: Time, from: Address, to: Address) -> Option<Address> {
        if let Some(forward) = self.forwards.iter_mut().find(|forward| forward.outside == to) {
            forward.came.insert(from);
            return Some(forward.inside);
        }
        let fresh = |at: Time| now.since(at) < self.timeout;
        let ((inside, _), mapping) = self.mappings.iter().find(|(_, mapping)| mapping.outside == to && fresh(mapping.used))?;
        let mut asked = mapping.asked.iter().filter(|(_, at)| fresh(**at)).map(|(address, _)| address.socket_addr());
        let from = from.socket_addr();
        let allowed = match self.kind {
            Nat::FullCone => true,
            Nat::AddressRestricted => asked.any(|address| address.ip() == from.ip()),
            Nat::PortRestricted | Nat::Symmetric => asked.any(|address| address == from),
        };
        allowed.then_some(*inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::udp(text.parse().expect("an address"))
    }

    /// Who may answer: the one asked, another port of it, another host.
    fn lets_in(kind: Nat) -> [bool; 3] {
        let mut nat = Translator::new(kind, Duration::from_secs(30), (WireId(0), WireId(1)), Ipv4Addr::new(10, 0, 1, 200));
        let inside = address("10.0.0.1:6783");
        let outside = nat.out(Time(0), inside, address("10.0.1.1:1"));
        assert!(nat.is_at(outside) && nat.enter(Time(31_000_000_000), address("10.0.1.1:1"), outside).is_none());
        ["10.0.1.1:1", "10.0.1.1:2", "10.0.1.2:1"].map(|from| nat.enter(Time(5), address(from), outside) == Some(inside))
    }

    #[test]
    fn each_kind_lets_in_what_it_should() {
        assert_eq!(lets_in(Nat::FullCone), [true, true, true]);
        assert_eq!(lets_in(Nat::AddressRestricted), [true, true, false]);
        assert_eq!(lets_in(Nat::PortRestricted), [true, false, false]);
        assert_eq!(lets_in(Nat::Symmetric), [true, false, false]);
    }

    #[test]
    fn a_forwarded_port_lets_everybody_in_and_answers_go_out_from_it() {
        let mut nat = Translator::new(Nat::Symmetric, Duration::from_secs(30), (WireId(0), WireId(1)), Ipv4Addr::new(10, 0, 1, 200));
        let (inside, guest, other) = (address("10.0.0.1:6783"), address("10.0.1.1:1"), address("10.0.1.2:1"));
        let outside = nat.forward(inside, 7000);
        assert_eq!((outside, nat.enter(Time(1), guest, outside)), (address("10.0.1.200:7000"), Some(inside)));
        assert_eq!(nat.out(Time(2), inside, guest), outside);
        assert_ne!(nat.out(Time(2), inside, other), outside, "nobody came from there");
    }

    #[test]
    fn only_a_symmetric_one_names_each_destination_apart() {
        for (kind, same) in [(Nat::PortRestricted, true), (Nat::Symmetric, false)] {
            let mut nat = Translator::new(kind, Duration::from_secs(30), (WireId(0), WireId(1)), Ipv4Addr::new(10, 0, 1, 200));
            let inside = address("10.0.0.1:6783");
            let seen = ["10.0.1.1:1", "10.0.1.2:1"].map(|to| nat.out(Time(0), inside, address(to)));
            assert_eq!(seen[0] == seen[1], same);
        }
    }
}
