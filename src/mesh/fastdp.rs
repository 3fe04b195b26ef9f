//! The fast datapath: which peers' frames go through the kernel, by VXLAN, instead of through the packet threads.
//!
//! ```text
//!          both are willing            heartbeats both ways            silent for 700 ms, or the peer hears nothing
//!  Refused ─────────────────► Probing ──────────────────────► InUse ──────────────────────────────────────────────► Probing
//!     ▲                          │                               │        (and back once it was steady for a second)
//!     └──────────────────────────┴───────────────────────────────┘  a reason against it: device, trust, path
//! ```
//!
//! | state | heartbeats | the firewall lets its VXLAN in | its MACs are behind |
//! | --- | --- | --- | --- |
//! | Refused | none | no | the TAP |
//! | Probing | every 250 ms; every second once it was silent for ten | yes | the TAP |
//! | InUse | every 250 ms | yes | the VXLAN device |
//!
//! Willing is who was started with `--fastdp`, has a device, trusts the peer's address, and knows that the path carries the largest frame of a
//! container. Both say so in sealed FASTDP records, with every ping and at once when it changes. Heartbeats are frames of their own that
//! travel through both VXLAN devices ([`crate::wire::beat`]); each says whether the other direction is heard, so a path that works
//! one way only is given up by both ends. What is decided here is carried out by the management plane, which is told the whole [`Plan`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::adjacency::Adjacency;
use super::command::Event;
use super::config::Outbox;
use super::core::Mesh;
use crate::time::Time;
use crate::wire::beat::{Beat, mac_of};
use crate::wire::control::{Fastdp as Word, Record, Refusal};
use crate::wire::{Address, PeerName, Subnet};

/// Between heartbeats.
pub const BEAT: Duration = Duration::from_millis(250);
/// Two heartbeats are missed: with what it takes to program the kernel, frames are back on the router within a second.
pub const SILENT: Duration = Duration::from_millis(700);
/// Between heartbeats of a peer that does not answer.
const SLOW: Duration = Duration::from_secs(1);
/// How long a peer is asked at the fast pace.
const HOPE: Duration = Duration::from_secs(10);
/// A path that failed is used again once heartbeats were heard without a gap for so long.
const STEADY: Duration = Duration::from_secs(1);
/// What a peer said counts for so long: it says it again with every ping, each second on an idle link.
const WORD_LIFE: Duration = Duration::from_secs(10);
/// Between two looks at all peers.
const LEAST: Duration = Duration::from_millis(10);
/// The plan is told again after this, since an event may be lost.
const REPEAT: Duration = Duration::from_secs(1);
/// Bytes of a datagram besides the inner IP packet: VXLAN header, Ethernet header, one VLAN tag.
pub const OVERHEAD: u16 = 8 + 14 + 4;

/// What the operator allows.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Where peers are trusted with frames in clear, besides everywhere under `--no-encryption`.
    pub trusted: Vec<Subnet>,
}

/// The VXLAN device of this host, or the two of them: there is one for IPv4 underlays, and one for IPv6 with the same port, identifier and MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// True where there is one for IPv6 underlays too.
    pub ipv6: bool,
    /// Its UDP port.
    pub port: u16,
    /// Its network identifier.
    pub vni: u32,
    /// Its MAC.
    pub mac: [u8; 6],
    /// MTU of the bridge: the largest IP packet of a container.
    pub mtu: u16,
}

/// One peer with which this router has agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanPeer {
    /// The peer.
    pub name: PeerName,
    /// Where its VXLAN device is.
    pub address: IpAddr,
    /// The UDP port of that device.
    pub port: u16,
    /// MAC of that device.
    pub mac: [u8; 6],
    /// True where its containers' MACs belong behind the VXLAN device.
    pub in_use: bool,
}

/// All of them, by name.
pub type Plan = Vec<PlanPeer>;

/// What passes between us and one peer.
#[derive(Debug)]
struct Exchange {
    /// Where the peer was when it began: it ends when the peer moves.
    address: Address,
    /// What the peer said last, and when.
    word: Option<(Word, Time)>,
    /// What we said last.
    told: Option<Word>,
    /// When a heartbeat came last.
    heard: Option<Time>,
    /// When one came last that said the peer hears us.
    echoed: Option<Time>,
    /// Since when both of these had no gap.
    steady: Option<Time>,
    /// When the next heartbeat is to be sent.
    due: Time,
    /// When heartbeats began.
    since: Time,
    /// When a frame last took the kernel to one of its MACs.
    used: Option<Time>,
    failed: bool,
    in_use: bool,
}

/// The state of the fast datapath.
#[derive(Debug, Default)]
pub(super) struct Fastdp {
    device: Option<Result<Device, String>>,
    peers: BTreeMap<PeerName, Exchange>,
    plan: Plan,
    repeat: Time,
    due: Time,
    pub(super) stale: bool,
}

impl Fastdp {
    /// When [`Mesh::tick_fastdp`] has something to do.
    pub(super) fn due(&self) -> Time {
        self.due
    }

    /// True where frames of this peer go through the kernel.
    pub(super) fn is_in_use(&self, peer: PeerName) -> bool {
        self.peers.get(&peer).is_some_and(|exchange| exchange.in_use)
    }

    /// True where a frame took the kernel to this peer within so long.
    pub(super) fn was_used(&self, now: Time, peer: PeerName, within: Duration) -> bool {
        self.peers.get(&peer).and_then(|exchange| exchange.used).is_some_and(|used| now.since(used) < within)
    }

    fn device(&self) -> Option<&Device> {
        self.device.as_ref().and_then(|device| device.as_ref().ok())
    }
}

impl Exchange {
    fn new(now: Time, address: Address) -> Exchange {
        Exchange {
            address,
            word: None,
            told: None,
            heard: None,
            echoed: None,
            steady: None,
            due: now,
            since: now,
            used: None,
            failed: false,
            in_use: false,
        }
    }

    /// What the peer said, while that counts.
    fn word(&self, now: Time) -> Option<Word> {
        self.word.filter(|(_, said)| now.since(*said) < WORD_LIFE).map(|(word, _)| word)
    }

    fn hears(&self, now: Time) -> bool {
        is_fresh(self.heard, now)
    }

    /// Heartbeats go both ways.
    fn is_alive(&self, now: Time) -> bool {
        self.hears(now) && is_fresh(self.echoed, now)
    }

    fn pace(&self, now: Time) -> Duration {
        let hopeless = !self.hears(now) && now.since(self.heard.unwrap_or(self.since)) >= HOPE;
        if hopeless { SLOW } else { BEAT }
    }

    /// When the time alone changes something.
    fn next(&self, now: Time) -> Time {
        let ends = [self.heard, self.echoed].into_iter().flatten().map(|time| time + SILENT);
        let change = if self.in_use { ends.min() } else { self.steady.map(|steady| steady + STEADY) };
        change.map_or(self.due, |change| change.min(self.due)).max(now + LEAST)
    }

    /// Takes in the time; true where the peer's frames belong into the kernel.
    fn judge(&mut self, now: Time, willing: bool) -> bool {
        let alive = willing && self.is_alive(now);
        if !alive {
            self.steady = None;
            self.failed |= self.in_use;
            return false;
        }
        let steady = *self.steady.get_or_insert(now);
        self.in_use || !self.failed || now.since(steady) >= STEADY
    }
}

fn is_fresh(time: Option<Time>, now: Time) -> bool {
    time.is_some_and(|time| now.since(time) < SILENT)
}

/// Why what a peer says of its VXLAN device cannot be, or does not go with ours.
fn misfit(peer: PeerName, device: &Device, word: &Word) -> Option<String> {
    let expected = mac_of(peer);
    if word.mac != expected {
        let (named, expected) = (PeerName(word.mac), PeerName(expected));
        return Some(format!(
            "the peer names {named} as the MAC of its VXLAN device, which by its name has {expected}: is it of another version?"
        ));
    }
    if word.vni != device.vni {
        return Some(format!(
            "the peer's VXLAN device has network identifier {}, and ours has {}: is it of another version?",
            word.vni, device.vni
        ));
    }
    None
}

impl Mesh {
    /// The kernel has carried frames to these peers' MACs lately.
    pub(super) fn fastdp_used(&mut self, now: Time, peers: &[PeerName]) {
        for peer in peers {
            if let Some(exchange) = self.fastdp.peers.get_mut(peer) {
                exchange.used = Some(now);
            }
            // The peer sees of them as little as we do: our pings say it.
            if let Some(adjacency) = self.adjacencies.get_mut(peer) {
                adjacency.beat.data(Time::ZERO, now);
            }
        }
    }

    /// The management plane says which device there is, or why there is none.
    pub(super) fn fastdp_device(&mut self, device: Result<Device, String>) {
        self.fastdp.device = Some(device);
        self.fastdp.stale = true;
    }

    /// The adjacency with this peer is over.
    pub(super) fn forget_fastdp(&mut self, peer: PeerName) {
        if self.fastdp.peers.remove(&peer).is_some_and(|exchange| exchange.in_use) {
            self.counters.fastdp_fell_back.inc();
        }
        self.fastdp.stale = true;
    }

    /// A neighbour says how it stands with the fast datapath.
    pub(super) fn on_fastdp(&mut self, now: Time, peer: PeerName, from: Address, word: Word) {
        let proven = self.adjacencies.get(&peer).is_some_and(|adjacency| adjacency.address == from);
        if self.config.fastdp.is_none() || !proven {
            return self.counters.records_ignored.inc();
        }
        let exchange = self.exchange(now, peer, from);
        if word.refusal.is_some() || !word.hears {
            exchange.echoed = None;
        }
        exchange.word = Some((word, now));
        self.fastdp.stale = true;
    }

    /// A frame of our ethertype came through the VXLAN device.
    pub(super) fn on_beat(&mut self, now: Time, frame: &[u8]) {
        let parsed = Beat::parse(frame).zip(self.fastdp.device().copied());
        let Some((beat, _)) = parsed.filter(|(beat, device)| beat.to == self.own && beat.to_mac == device.mac) else {
            return self.counters.fastdp_strange_beats.inc();
        };
        let known = |exchange: &&mut Exchange| exchange.word(now).is_some();
        let exchange = self.fastdp.peers.get_mut(&beat.from).filter(known);
        let Some(exchange) = exchange.filter(|_| beat.from_mac == mac_of(beat.from)) else {
            return self.counters.fastdp_strange_beats.inc();
        };
        let before = (exchange.hears(now), exchange.is_alive(now));
        exchange.heard = Some(now);
        exchange.echoed = beat.hears.then_some(now);
        if before != (true, exchange.is_alive(now)) {
            // The other end should not wait for the next one to learn that it is heard.
            exchange.due = now;
            self.fastdp.stale = true;
        }
        self.counters.fastdp_beats.inc();
    }

    /// Sends what is due and tells the plan where it changed.
    pub(super) fn tick_fastdp(&mut self, now: Time, out: &mut Outbox) {
        if self.config.fastdp.is_none() || !(std::mem::take(&mut self.fastdp.stale) || now >= self.fastdp.due) {
            return;
        }
        let places: BTreeMap<PeerName, Address> = self.adjacencies.iter().map(|(name, a)| (*name, a.address)).collect();
        let (mut plan, mut due) = (Plan::new(), now + REPEAT);
        for (peer, address) in places {
            let Some(planned) = self.tick_exchange(now, peer, address, out) else { continue };
            plan.push(planned);
            due = self.fastdp.peers.get(&peer).map_or(due, |exchange| due.min(exchange.next(now)));
        }
        self.fastdp.due = due;
        if plan != self.fastdp.plan || now >= self.fastdp.repeat {
            self.fastdp.repeat = now + REPEAT;
            self.fastdp.plan.clone_from(&plan);
            out.events.push(Event::Fastdp(plan));
        }
    }

    /// One peer: judges, tells the peer what changed, sends the heartbeat. Answers with its part of the plan.
    fn tick_exchange(&mut self, now: Time, peer: PeerName, address: Address, out: &mut Outbox) -> Option<PlanPeer> {
        let willing = self.fastdp_refusal(peer).is_none();
        let device = self.fastdp.device().copied();
        let exchange = self.exchange(now, peer, address);
        let word = exchange.word(now).filter(|word| willing && word.refusal.is_none());
        let agreed = word.filter(|word| device.is_some_and(|device| misfit(peer, &device, word).is_none()));
        let in_use = exchange.judge(now, agreed.is_some());
        let was_in_use = std::mem::replace(&mut exchange.in_use, in_use);
        if agreed.is_none() {
            (exchange.heard, exchange.echoed, exchange.since) = (None, None, now);
        }
        match (was_in_use, in_use) {
            (false, true) => self.counters.fastdp_taken_up.inc(),
            (true, false) => self.counters.fastdp_fell_back.inc(),
            (false, false) | (true, true) => {}
        }
        self.tell_word(now, peer, address, out);
        let (word, device) = agreed.zip(device)?;
        let exchange = self.exchange(now, peer, address);
        if now >= exchange.due {
            exchange.due = now + exchange.pace(now);
            let hears = exchange.hears(now);
            let beat = Beat { to_mac: word.mac, from_mac: device.mac, to: peer, from: self.own, hears };
            let frame = beat.to_frame(usize::from(device.mtu) + 14);
            out.events.push(Event::Beat { to: address.socket_addr().ip(), frame });
        }
        Some(PlanPeer { name: peer, address: address.socket_addr().ip(), port: word.port, mac: word.mac, in_use })
    }

    fn tell_word(&mut self, now: Time, peer: PeerName, address: Address, out: &mut Outbox) {
        let Some(word) = self.fastdp_word(now, peer) else { return };
        if self.fastdp.peers.get(&peer).is_some_and(|exchange| exchange.told == Some(word)) {
            return;
        }
        if self.send_direct(peer, address, &[Record::Fastdp(word)], out) {
            self.exchange(now, peer, address).told = Some(word);
        }
    }

    /// What we have to say to a peer; goes with every ping too.
    pub(super) fn fastdp_word(&self, now: Time, peer: PeerName) -> Option<Word> {
        self.config.fastdp.as_ref()?;
        self.fastdp.device.as_ref()?;
        let refusal = self.fastdp_refusal(peer).map(|(refusal, _)| refusal);
        let hears = self.fastdp.peers.get(&peer).is_some_and(|exchange| exchange.hears(now));
        let device = self.fastdp.device().copied().unwrap_or(Device { ipv6: false, port: 0, vni: 0, mac: [0; 6], mtu: 0 });
        Some(Word { refusal, hears, port: device.port, vni: device.vni, mac: device.mac })
    }

    /// Why this router does not want frames of `peer` in the kernel, for the peer and for people.
    fn fastdp_refusal(&self, peer: PeerName) -> Option<(Refusal, String)> {
        let (policy, adjacency) = self.config.fastdp.as_ref().zip(self.adjacencies.get(&peer))?;
        let device = match &self.fastdp.device {
            None => return Some((Refusal::Device, "the VXLAN device is being made".into())),
            Some(Err(why)) => return Some((Refusal::Device, why.clone())),
            Some(Ok(device)) => device,
        };
        if adjacency.address.is_tcp() {
            return Some((Refusal::Path, "the link rides TCP".into()));
        }
        if adjacency.lossy && self.direct_path(peer).is_none() {
            return Some((Refusal::Path, "the direct path loses too much, and others lose less".into()));
        }
        let ip = adjacency.address.socket_addr().ip();
        if ip.is_ipv6() && !device.ipv6 {
            return Some((Refusal::Family, format!("the peer is at {ip}, and this host has no VXLAN device for IPv6: the log says why")));
        }
        if let IpAddr::V6(ip) = ip
            && ip.is_unicast_link_local()
        {
            let why = format!("the peer is at {ip}, and the fast datapath does not work over link-local addresses");
            return Some((Refusal::Family, why));
        }
        if !self.config.no_encryption && !policy.trusted.iter().any(|subnet| subnet.contains(ip)) {
            return Some((Refusal::Untrusted, format!("its address {ip} is in none of --trusted-subnets")));
        }
        self.too_narrow(device, adjacency)
    }

    fn too_narrow(&self, device: &Device, adjacency: &Adjacency) -> Option<(Refusal, String)> {
        let (needed, carries) = (device.mtu.saturating_add(OVERHEAD), adjacency.mtu.max_datagram());
        if carries >= needed {
            return None;
        }
        let why = match adjacency.mtu.is_first_search() {
            true => "it is not known yet what size the path carries".to_string(),
            false => format!(
                "the path carries datagrams of {carries} bytes, and {needed} are needed for the bridge's MTU of {}; a smaller --mtu helps",
                device.mtu
            ),
        };
        Some((Refusal::Path, why))
    }

    /// The datapath of a neighbour, and why it is this one.
    pub(super) fn datapath(&self, now: Time, peer: PeerName) -> (&'static str, String) {
        if self.config.fastdp.is_none() {
            return ("router", "this router runs without --fastdp".into());
        }
        if let Some((_, why)) = self.fastdp_refusal(peer) {
            return ("router", why);
        }
        let Some(exchange) = self.fastdp.peers.get(&peer) else { return ("router", "nothing is agreed yet".into()) };
        let word = exchange.word(now);
        let offered = word.filter(|word| word.refusal.is_none()).zip(self.fastdp.device());
        if let Some(why) = offered.and_then(|(word, device)| misfit(peer, device, &word)) {
            return ("router", why);
        }
        let reason = match word.map(|word| word.refusal) {
            None if exchange.word.is_some() => "the peer has not repeated its offer for ten seconds",
            None => "the peer does not offer it: --fastdp is needed on both ends",
            Some(Some(Refusal::Device)) => "the peer has no VXLAN device now: see its status",
            Some(Some(Refusal::Untrusted)) => "the peer does not trust our address: it is in none of its --trusted-subnets",
            Some(Some(Refusal::Path)) => "the peer finds that the path carries too small datagrams: see its status",
            Some(Some(Refusal::Family)) => "the peer sees us at an IPv6 address, and has no VXLAN device for those: see its log",
            Some(Some(Refusal::Other(_))) => "the peer refuses, for a reason of a later version: see its status",
            Some(None) if exchange.in_use => return ("fastdp", "both ends trust the underlay, and heartbeats pass through VXLAN".into()),
            Some(None) if !exchange.hears(now) => "no heartbeats come from the peer through VXLAN: is its UDP port open?",
            Some(None) if !exchange.is_alive(now) => "the peer gets no heartbeats from us through VXLAN: is its UDP port open?",
            Some(None) => "heartbeats pass through VXLAN again, for less than a second",
        };
        ("router", reason.into())
    }

    fn exchange(&mut self, now: Time, peer: PeerName, address: Address) -> &mut Exchange {
        if self.fastdp.peers.get(&peer).is_some_and(|exchange| exchange.address != address) {
            self.forget_fastdp(peer);
        }
        self.fastdp.peers.entry(peer).or_insert_with(|| Exchange::new(now, address))
    }
}

#[cfg(test)]
mod tests;
