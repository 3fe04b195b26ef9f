//! What is compared, and what is read off it.

use std::collections::BTreeMap;

/// What joins the two bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A veth pair from container to container, no bridge: what the machine can do at all.
    Raw,
    /// A VXLAN port on each bridge.
    Vxlan,
    /// A weave-router on each host, with these options.
    Router(&'static [&'static str]),
}

/// What the hosts are joined by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    /// A veth pair, which passes super frames whole.
    Veth,
    /// Two of them, and a third host that relays.
    Relayed,
    /// A veth pair without any offload: true datagrams of 1500 bytes.
    Datagrams,
    /// The same, and no UDP gets through, so that the routers' link rides TCP.
    DatagramsNoUdp,
    /// The cable of true datagrams, and one percent of what arrives at the receiver's host is lost.
    Lossy,
    /// A cable of the laboratory on which everything is on its way for 10 ms, as fast as the machine can.
    Far,
    /// The same, no faster than 2 Gbit/s.
    FarShaped,
}

/// One of the things compared.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Its name in tables, JSON and `--only`.
    pub name: &'static str,
    /// What joins the bridges.
    pub link: Link,
    /// What joins the hosts.
    pub cable: Cable,
}

const fn setup(name: &'static str, link: Link, cable: Cable) -> Setup {
    Setup { name, link, cable }
}

const NONE: Link = Link::Router(&["--no-encryption"]);
const FAST: Link = Link::Router(&["--fastdp", "--no-encryption"]);
const AES: Link = Link::Router(&["--cipher", "aes256gcm"]);
const CHACHA: Link = Link::Router(&["--cipher", "chacha20poly1305"]);

/// The setup that those on the same cable are compared with.
pub const BASE: &str = "kernel VXLAN";

/// What is compared, in the order in which a round measures it.
pub const SETUPS: [Setup; 18] = [
    setup("raw veth", Link::Raw, Cable::Veth),
    setup(BASE, Link::Vxlan, Cable::Veth),
    setup("fast datapath", FAST, Cable::Veth),
    setup("no encryption", NONE, Cable::Veth),
    setup("aes256gcm", AES, Cable::Veth),
    setup("chacha20poly1305", CHACHA, Cable::Veth),
    setup("no encryption relayed", NONE, Cable::Relayed),
    setup("aes256gcm relayed", AES, Cable::Relayed),
    setup("chacha20poly1305 relayed", CHACHA, Cable::Relayed),
    setup("kernel VXLAN on 1500-byte wire", Link::Vxlan, Cable::Datagrams),
    setup("aes256gcm on 1500-byte wire", AES, Cable::Datagrams),
    setup("aes256gcm by TCP on 1500-byte wire", AES, Cable::DatagramsNoUdp),
    setup("kernel VXLAN with 1 % loss", Link::Vxlan, Cable::Lossy),
    setup("aes256gcm with 1 % loss", AES, Cable::Lossy),
    setup("kernel VXLAN at 20 ms RTT", Link::Vxlan, Cable::Far),
    setup("aes256gcm at 20 ms RTT", AES, Cable::Far),
    setup("kernel VXLAN at 20 ms RTT and 2 Gbit/s", Link::Vxlan, Cable::FarShaped),
    setup("aes256gcm at 20 ms RTT and 2 Gbit/s", AES, Cable::FarShaped),
];

/// The pseudo setup of one router with ten peers and no traffic.
pub const IDLE: &str = "idle, ten peers";

/// What is measured once per round and setup, by [`Figure::key`].
pub type Sample = BTreeMap<String, f64>;

/// Something that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name in JSON.
    pub key: &'static str,
    /// Its name in tables.
    pub title: &'static str,
}

const fn figure(key: &'static str, title: &'static str) -> Figure {
    Figure { key, title }
}

/// TCP, one stream of an ordinary sender, Gbit/s of payload.
pub const TCP1: Figure = figure("tcp1_gbit_per_s", "TCP 1 Gbit/s");
/// TCP, one stream of a sender that sets `TCP_NODELAY`, Gbit/s of payload.
pub const TCP1_NODELAY: Figure = figure("tcp1_nodelay_gbit_per_s", "TCP 1 NODELAY");
/// TCP, four streams of ordinary senders, Gbit/s of payload.
pub const TCP4: Figure = figure("tcp4_gbit_per_s", "TCP 4 Gbit/s");
/// 64-byte datagrams delivered per second.
pub const DATAGRAMS: Figure = figure("datagrams_per_s", "64 B dgram/s");
/// TCP ping-pong, nothing else going on, median, microseconds.
pub const P50: Figure = figure("ping_pong_p50_us", "pong p50 us");
/// The same, 99th percentile.
pub const P99: Figure = figure("ping_pong_p99_us", "pong p99 us");
/// TCP ping-pong beside one bulk stream, median, microseconds.
pub const LOADED_P50: Figure = figure("loaded_ping_pong_p50_us", "loaded p50 us");
/// The same, 99th percentile.
pub const LOADED_P99: Figure = figure("loaded_ping_pong_p99_us", "loaded p99 us");
/// CPU of all routers per byte of the one ordinary stream, ns.
pub const ROUTER_NS: Figure = figure("router_ns_per_byte", "router ns/B");
/// CPU of the relay alone per byte of the one ordinary stream, ns.
pub const RELAY_NS: Figure = figure("relay_ns_per_byte", "relay ns/B");
/// Busy time of the whole machine per byte of the one ordinary stream, ns.
pub const MACHINE_NS: Figure = figure("machine_ns_per_byte", "machine ns/B");
/// System calls of the routers at both ends per million bytes of the one ordinary stream: reads and writes of the TAP, sends, receives.
pub const CALLS: Figure = figure("frame_calls_per_megabyte", "calls/MB");
/// Beside them those that look for events or leave the core to others: what busy polling makes more of by design.
pub const POLLS: Figure = figure("polls_per_megabyte", "and polls/MB");
/// CPU of the idle router, percent of a core.
pub const IDLE_CPU: Figure = figure("cpu_percent", "CPU %");
/// Memory of the idle router, MiB.
pub const IDLE_RSS: Figure = figure("resident_mib", "RSS MiB");

/// The columns of the tables, all that a setup can have.
pub const TABLES: [&[Figure]; 3] =
    [&[TCP1, TCP1_NODELAY, TCP4, DATAGRAMS], &[P50, P99, LOADED_P50, LOADED_P99], &[ROUTER_NS, RELAY_NS, MACHINE_NS, CALLS, POLLS]];

/// All that was measured.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Where: name of a property, and its value.
    pub machine: BTreeMap<String, String>,
    /// The samples of each setup, one per round.
    pub taken: BTreeMap<String, Vec<Sample>>,
    /// Setups that this build of the router cannot do.
    pub not_built: Vec<String>,
}

impl Results {
    /// The values of a figure, one per round; empty where it was not measured.
    pub fn values(&self, setup: &str, figure: Figure) -> Vec<f64> {
        self.taken.get(setup).into_iter().flatten().filter_map(|sample| sample.get(figure.key).copied()).collect()
    }

    /// The median over the rounds.
    pub fn median(&self, setup: &str, figure: Figure) -> Option<f64> {
        median(self.values(setup, figure))
    }

    /// The ratio of the medians of two setups.
    pub fn ratio(&self, setup: &str, figure: Figure, to: &str) -> Option<f64> {
        let base = self.median(to, figure).filter(|base| *base > 0.0)?;
        Some(self.median(setup, figure)? / base)
    }

    /// The ratios of two setups, round by round.
    pub fn ratios(&self, setup: &str, figure: Figure, to: &str) -> Vec<f64> {
        let (values, base) = (self.values(setup, figure), self.values(to, figure));
        if values.len() == base.len() { values.iter().zip(base).map(|(value, base)| value / base).collect() } else { Vec::new() }
    }

    /// Adds the rounds of another run.
    pub fn merge(&mut self, other: Results) {
        self.machine.extend(other.machine);
        for (setup, samples) in other.taken {
            self.taken.entry(setup).or_default().extend(samples);
        }
        self.not_built.extend(other.not_built);
        self.not_built.retain(|setup| !self.taken.contains_key(setup));
    }
}

/// The middle value; `None` of none.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => values.get(middle).copied(),
        _ => Some(f64::midpoint(*values.get(middle - 1)?, *values.get(middle)?)),
    }
}

/// The setup on the same cable that a setup is compared with.
pub fn base(setup: &Setup) -> &'static str {
    let cable = if setup.cable == Cable::DatagramsNoUdp { Cable::Datagrams } else { setup.cable };
    let same = |other: &&Setup| other.link == Link::Vxlan && other.cable == cable;
    SETUPS.iter().find(same).map_or(BASE, |found| found.name)
}
