//! The networks between routers, and what happens to a datagram on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand_core::Rng;

use crate::wire::Address;

use super::world::RouterId;

/// The routers' UDP port.
pub const PORT: u16 = 6783;

/// One network of the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WireId(pub(super) usize);

/// What a network does to datagrams. Chances are from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// How long every datagram takes.
    pub latency: Duration,
    /// How much longer it may take; each batch of datagrams has its own share of it.
    pub jitter: Duration,
    /// Chance that a datagram is lost.
    pub loss: f64,
    /// Chance that a datagram arrives twice.
    pub duplication: f64,
    /// Chance that a datagram takes five times as long, and is overtaken.
    pub reordering: f64,
    /// Chance that one bit of a datagram is another on arrival, and the checksums did not notice.
    pub corruption: f64,
    /// Largest IP packet; the sender's kernel refuses larger ones and says so.
    pub mtu: usize,
    /// Largest IP packet that arrives: larger ones vanish without a word.
    pub hidden_mtu: usize,
}

impl Default for Quality {
    /// A good network: half a millisecond, 1500 bytes, nothing goes wrong.
    fn default() -> Quality {
        Quality {
            latency: Duration::from_micros(500),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            corruption: 0.0,
            mtu: 1500,
            hidden_mtu: usize::MAX,
        }
    }
}

impl Quality {
    /// A bad one: 5 % loss, 2 % duplication, 5 % reordering, five to seven milliseconds.
    pub fn bad() -> Quality {
        Quality {
            latency: Duration::from_millis(5),
            jitter: Duration::from_millis(2),
            loss: 0.05,
            duplication: 0.02,
            reordering: 0.05,
            ..Quality::default()
        }
    }

    /// The share of the jitter that a batch gets.
    pub(super) fn delay(&self, rng: &mut dyn Rng) -> Duration {
        let jitter = u64::try_from(self.jitter.as_nanos()).unwrap_or(u64::MAX);
        self.latency + Duration::from_nanos(if jitter == 0 { 0 } else { rng.next_u64() % jitter })
    }

    /// When each copy of one datagram arrives, given its batch's delay.
    pub(super) fn copies(&self, delay: Duration, rng: &mut dyn Rng) -> Vec<Duration> {
        if chance(rng, self.loss) {
            return Vec::new();
        }
        let late = if chance(rng, self.reordering) { delay * 5 } else { delay };
        if chance(rng, self.duplication) { vec![late, delay * 2] } else { vec![late] }
    }

    /// Flips a bit, or not.
    pub(super) fn corrupt(&self, datagram: &mut [u8], rng: &mut dyn Rng) {
        if chance(rng, self.corruption) && !datagram.is_empty() {
            let bit = rng.next_u64() as usize % (datagram.len() * 8);
            datagram[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// True with this chance; draws nothing where the answer is certain.
pub fn chance(rng: &mut dyn Rng, of: f64) -> bool {
    of > 0.0 && f64::from(rng.next_u32()) < of * 4_294_967_296.0
}

pub struct Wire {
    pub members: BTreeMap<RouterId, Address>,
    pub up: bool,
    /// Members of which nobody hears anything, although they hear the others.
    pub mute: BTreeSet<RouterId>,
    pub quality: Quality,
}

/// All networks.
#[derive(Default)]
pub struct Underlay {
    pub wires: Vec<Wire>,
    owners: BTreeMap<Address, (WireId, RouterId)>,
    /// Routers on different sides of a partition do not hear each other; all are on side 0 at first.
    pub sides: BTreeMap<RouterId, u8>,
}

/// The way of a datagram.
pub struct Passage {
    pub to: RouterId,
    /// The sender's address as the receiver sees it.
    pub from: Address,
    pub quality: Quality,
    /// False where the network is cut just now.
    pub up: bool,
}

impl Underlay {
    /// Adds a network with an address for each member: 10.N.N.1 and up.
    pub fn add(&mut self, members: &[RouterId], quality: Quality) -> WireId {
        let id = WireId(self.wires.len());
        let [high, low] = u16::try_from(id.0).expect("no more than 65536 networks").to_be_bytes();
        assert!(members.len() < 255, "a network has room for 254 routers");
        let address = |host: u8| Address::udp(SocketAddr::from((Ipv4Addr::new(10, high, low, host), PORT)));
        let members: BTreeMap<RouterId, Address> = members.iter().copied().zip((1..).map(address)).collect();
        self.owners.extend(members.iter().map(|(router, address)| (*address, (id, *router))));
        self.wires.push(Wire { members, up: true, mute: BTreeSet::new(), quality });
        id
    }

    /// Gives a member of a network another address, which nobody has had.
    pub fn rebind(&mut self, wire: WireId, router: RouterId) {
        let member = self.wires[wire.0].members.get_mut(&router).expect("a member of the network");
        self.owners.remove(member);
        let (ip, port) = (member.socket_addr().ip(), member.socket_addr().port() + 1);
        *member = Address::udp(SocketAddr::new(ip, port));
        self.owners.insert(*member, (wire, router));
    }

    /// A router's addresses.
    pub fn addresses(&self, router: RouterId) -> Vec<Address> {
        self.wires.iter().filter_map(|wire| wire.members.get(&router).copied()).collect()
    }

    /// The address of `to` in a network that `from` has too; else any of its addresses.
    pub fn address_for(&self, from: RouterId, to: RouterId) -> Option<Address> {
        let shared = self.wires.iter().find(|wire| wire.members.contains_key(&from) && wire.members.contains_key(&to));
        let any = || self.wires.iter().find(|wire| wire.members.contains_key(&to));
        shared.or_else(any).and_then(|wire| wire.members.get(&to).copied())
    }

    /// The way from a router to an address; `None` where it has no interface in that network.
    pub fn passage(&self, router: RouterId, to: Address) -> Option<Passage> {
        let (wire, owner) = *self.owners.get(&to)?;
        let wire = self.wires.get(wire.0)?;
        let from = *wire.members.get(&router)?;
        let up = wire.up && !wire.mute.contains(&router) && self.side(router) == self.side(owner);
        Some(Passage { to: owner, from, quality: wire.quality, up })
    }

    /// Pairs of routers that hear each other.
    pub fn pairs(&self) -> impl Iterator<Item = (RouterId, RouterId)> {
        let pairs = self.wires.iter().filter(|wire| wire.up).flat_map(|wire| {
            let all = wire.members.keys().filter(|router| !wire.mute.contains(router));
            all.clone().flat_map(move |a| all.clone().map(move |b| (*a, *b)))
        });
        pairs.filter(|(a, b)| a != b && self.side(*a) == self.side(*b))
    }

    fn side(&self, router: RouterId) -> u8 {
        self.sides.get(&router).copied().unwrap_or(0)
    }
}
