//! The networks between routers, and what happens to a datagram on them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand_core::Rng;

use crate::time::Time;
use crate::wire::Address;

use super::nat::{Nat, Translator};
use super::world::RouterId;

/// The routers' UDP port.
pub const PORT: u16 = 6783;

/// By which a connection is told from another to the same host.
pub const TCP_PORT: u16 = 40_000;

/// One network of the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WireId(pub(super) usize);

/// What a network does to datagrams. Chances are from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// How long every datagram takes.
    pub latency: Duration,
    /// How much longer it takes between the two members that are furthest apart: each host has its place on a square map.
    pub spread: Duration,
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
            spread: Duration::ZERO,
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

    /// Hosts all over a continent: 5 to 40 ms one way, one datagram in a thousand is lost.
    pub fn wide() -> Quality {
        Quality { latency: Duration::from_millis(5), spread: Duration::from_millis(35), loss: 0.001, ..Quality::default() }
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
    /// False where it lets TCP through and nothing else.
    pub udp: bool,
    /// Members of which nobody hears anything, although they hear the others.
    pub mute: BTreeSet<RouterId>,
    /// Its hosts have no route to each other: kernels refuse to send.
    pub refusing: bool,
    pub quality: Quality,
}

/// All networks.
#[derive(Default)]
pub struct Underlay {
    pub wires: Vec<Wire>,
    owners: HashMap<Address, (WireId, RouterId)>,
    /// Addresses that hosts have given up.
    retired: BTreeSet<Address>,
    /// Routers on different sides of a partition do not hear each other; all are on side 0 at first.
    pub sides: BTreeMap<RouterId, u8>,
    translators: Vec<Translator>,
    /// Pairs of hosts between which nothing passes, by whatever way.
    pub blocked: BTreeSet<(RouterId, RouterId)>,
}

/// The way of a datagram.
pub struct Passage {
    pub to: RouterId,
    /// The sender's address as the receiver sees it.
    pub from: Address,
    pub quality: Quality,
    /// False where the network is cut just now.
    pub up: bool,
    /// True where the sender's kernel does not take it.
    pub refused: bool,
}

impl Underlay {
    /// Adds a network with an address for each member: 10.N.N.1 and up, or 172.N.0.1 and up where there are many.
    pub fn add(&mut self, members: &[RouterId], quality: Quality) -> WireId {
        let id = WireId(self.wires.len());
        let [high, low] = u16::try_from(id.0).expect("no more than 65536 networks").to_be_bytes();
        let large = members.len() >= 255;
        assert!(
            !large || (id.0 < 16 && members.len() < 65535),
            "one of the first sixteen networks has room for 65534 routers, others for 254 routers and translators"
        );
        let address = |host: u16| {
            let [upper, lower] = host.to_be_bytes();
            let ip = if large { Ipv4Addr::new(172, 16 + low, upper, lower) } else { Ipv4Addr::new(10, high, low, lower) };
            Address::udp(SocketAddr::from((ip, PORT)))
        };
        let members: BTreeMap<RouterId, Address> = members.iter().copied().zip((1..).map(address)).collect();
        self.owners.extend(members.iter().map(|(router, address)| (*address, (id, *router))));
        self.wires.push(Wire { members, up: true, udp: true, mute: BTreeSet::new(), refusing: false, quality });
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

    /// Puts a translator between two networks.
    pub fn translate(&mut self, kind: Nat, timeout: Duration, inside: WireId, outside: WireId) {
        let [high, low] = u16::try_from(outside.0).expect("no more than 65536 networks").to_be_bytes();
        let before = self.translators.iter().filter(|other| other.outside == outside).count();
        let ip = Ipv4Addr::new(10, high, low, 254 - u8::try_from(before).expect("a network has room for few translators"));
        self.translators.push(Translator::new(kind, timeout, (inside, outside), ip));
    }

    /// Has a port of the translator before a network lead to a member of it; returns the address outside.
    pub fn forward(&mut self, inside: WireId, router: RouterId, port: u16) -> Address {
        let own = *self.wires[inside.0].members.get(&router).expect("a member of the network");
        let nat = self.translators.iter_mut().find(|nat| nat.inside == inside).expect("a network behind a translator");
        nat.forward(own, port)
    }

    /// Gives a member of a network another IP address, which nobody has had.
    pub fn readdress(&mut self, wire: WireId, router: RouterId) {
        let used: BTreeSet<Ipv4Addr> = self.owners.keys().chain(&self.retired).filter_map(|address| v4(*address)).collect();
        let member = self.wires[wire.0].members.get_mut(&router).expect("a member of the network");
        let [a, b, c, _] = v4(*member).expect("networks here are IPv4").octets();
        let free = (1..=253).map(|d| Ipv4Addr::new(a, b, c, d)).find(|ip| !used.contains(ip)).expect("room for another address");
        self.owners.remove(member);
        self.retired.insert(*member);
        *member = Address::udp(SocketAddr::from((free, PORT)));
        self.owners.insert(*member, (wire, router));
    }

    /// The addresses of a network's other members.
    pub fn others(&self, wire: WireId, router: RouterId) -> Vec<Address> {
        self.wires[wire.0].members.iter().filter(|(member, _)| **member != router).map(|(_, address)| *address).collect()
    }

    /// True where a router has an interface in the network of this address.
    pub fn shares_network(&self, router: RouterId, to: Address) -> bool {
        self.owners.get(&to).is_some_and(|(wire, _)| self.wires[wire.0].members.contains_key(&router))
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

    /// The way from a router to an address; `None` where it has no interface in that network, and no translator lets it through.
    pub fn passage(&mut self, now: Time, router: RouterId, to: Address) -> Option<Passage> {
        if to.is_tcp() {
            let (wire, owner) = *self.owners.get(&Address::udp(to.socket_addr()))?;
            let own = *self.wires.get(wire.0)?.members.get(&router)?;
            // The ends of a connection call it by different ports; here each pair of hosts has one.
            return Some(self.over(&[wire], router, Address::tcp(own.socket_addr(), TCP_PORT), owner));
        }
        if let Some((wire, owner)) = self.owners.get(&to).copied()
            && let Some(from) = self.wires[wire.0].members.get(&router)
        {
            return Some(self.over(&[wire], router, *from, owner));
        }
        let (mut wires, mut from) = (Vec::new(), None);
        let inside = |nat: &&mut Translator| self.wires[nat.inside.0].members.contains_key(&router);
        if let Some(nat) = self.translators.iter_mut().find(inside) {
            let own = *self.wires[nat.inside.0].members.get(&router)?;
            // A translator does not turn back what is for itself.
            if nat.is_at(to) {
                return None;
            }
            wires.extend([nat.inside, nat.outside]);
            from = Some(nat.out(now, own, to));
        }
        let Some(nat) = self.translators.iter_mut().find(|nat| nat.is_at(to)) else {
            let (wire, owner) = *self.owners.get(&to)?;
            return wires.contains(&wire).then(|| from.map(|from| self.over(&wires, router, from, owner)))?;
        };
        let from = from.or_else(|| self.wires[nat.outside.0].members.get(&router).copied())?;
        if !wires.is_empty() && !wires.contains(&nat.outside) {
            return None;
        }
        wires.push(nat.outside);
        let target = nat.enter(now, from, to)?;
        wires.push(nat.inside);
        let (_, owner) = *self.owners.get(&target)?;
        Some(self.over(&wires, router, from, owner))
    }

    /// The way over networks, the last but one of which is what takes time: insides are fast.
    fn over(&self, wires: &[WireId], router: RouterId, from: Address, owner: RouterId) -> Passage {
        let all = || wires.iter().map(|wire| &self.wires[wire.0]);
        let open = !self.blocked.contains(&(router, owner)) && self.side(router) == self.side(owner);
        let up = open && all().all(|wire| wire.up && (wire.udp || from.is_tcp()) && !wire.mute.contains(&router));
        let mut quality = all().map(|wire| wire.quality).max_by_key(|quality| quality.latency).unwrap_or_default();
        if !quality.spread.is_zero() {
            quality.latency += quality.spread.mul_f64(distance(router, owner));
        }
        Passage { to: owner, from, quality, up, refused: all().any(|wire| wire.refusing) }
    }

    /// Pairs of routers that hear each other.
    pub fn pairs(&self) -> impl Iterator<Item = (RouterId, RouterId)> {
        let up = |wire: &&Wire| wire.up && wire.udp && !wire.refusing;
        let heard = |wire: &Wire| wire.members.keys().filter(|router| !wire.mute.contains(router)).copied().collect::<Vec<_>>();
        let pairs = self.wires.iter().filter(up).flat_map(move |wire| {
            let all = heard(wire);
            all.clone().into_iter().flat_map(move |a| all.clone().into_iter().map(move |b| (a, b)))
        });
        let through = self.translators.iter().flat_map(move |nat| {
            let [inside, outside] =
                [nat.inside, nat.outside].map(|wire| Some(&self.wires[wire.0]).filter(up).map(heard).unwrap_or_default());
            inside.into_iter().flat_map(move |a| outside.clone().into_iter().flat_map(move |b| [(a, b), (b, a)]))
        });
        let pairs = pairs.chain(through);
        pairs.filter(|(a, b)| a != b && self.side(*a) == self.side(*b))
    }

    fn side(&self, router: RouterId) -> u8 {
        self.sides.get(&router).copied().unwrap_or(0)
    }
}

fn v4(address: Address) -> Option<Ipv4Addr> {
    match address.socket_addr().ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// How far apart two hosts are on a square map, as a share of its diagonal.
fn distance(a: RouterId, b: RouterId) -> f64 {
    let ((ax, ay), (bx, by)) = (place(a), place(b));
    ((ax - bx).powi(2) + (ay - by).powi(2)).sqrt() / std::f64::consts::SQRT_2
}

fn place(router: RouterId) -> (f64, f64) {
    let mut word = (router.0 as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word ^= word >> 29;
    let share = |word: u64| (word & 0xffff) as f64 / 65536.0;
    (share(word), share(word >> 16))
}
