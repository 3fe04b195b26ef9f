//! How fast is fast enough.

use crate::setups::{CALLS, DATAGRAMS, Figure, IDLE, IDLE_CPU, IDLE_RSS, LOADED_P99, P50, P99, RELAY_NS, ROUTER_NS, Results, TCP1, TCP4};

/// What a value must keep.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// At least so much.
    Least(f64),
    /// At most so much.
    Most(f64),
}

impl Limit {
    fn met(self, value: f64) -> bool {
        match self {
            Limit::Least(least) => value >= least,
            Limit::Most(most) => value <= most,
        }
    }

    /// The same kind of limit elsewhere.
    fn at(self, bound: f64) -> Limit {
        match self {
            Limit::Least(_) => Limit::Least(bound),
            Limit::Most(_) => Limit::Most(bound),
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Limit::Least(least) => write!(f, "at least {least}"),
            Limit::Most(most) => write!(f, "at most {most}"),
        }
    }
}

/// One bar.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// In words.
    pub what: &'static str,
    setup: &'static str,
    figure: Figure,
    /// The setup that it is divided by.
    to: Option<&'static str>,
    /// What it must keep.
    pub limit: Limit,
    /// What would be better still.
    pub reach: Option<f64>,
}

const fn bar(what: &'static str, setup: &'static str, figure: Figure, to: Option<&'static str>, limit: Limit, reach: Option<f64>) -> Bar {
    Bar { what, setup, figure, to, limit, reach }
}

use Limit::{Least, Most};

const VXLAN: Option<&str> = Some(crate::setups::BASE);
const AES: &str = "aes256gcm";
const CHACHA: &str = "chacha20poly1305";
const AES_RELAYED: &str = "aes256gcm relayed";
const CHACHA_RELAYED: &str = "chacha20poly1305 relayed";

/// All bars. The TCP streams are those of ordinary senders.
pub const BARS: [Bar; 24] = [
    bar("aes256gcm: TCP 1 stream, to VXLAN", AES, TCP1, VXLAN, Least(0.55), Some(0.80)),
    bar("aes256gcm: TCP 4 streams, to VXLAN", AES, TCP4, VXLAN, Least(0.30), None),
    bar("chacha20poly1305: TCP 1 stream, to VXLAN", CHACHA, TCP1, VXLAN, Least(0.42), None),
    bar("no encryption: TCP 1 stream, to VXLAN", "no encryption", TCP1, VXLAN, Least(0.72), Some(0.85)),
    bar("fast datapath: TCP 1 stream, to VXLAN", "fast datapath", TCP1, VXLAN, Least(0.95), None),
    bar("aes256gcm: CPU of both routers per byte, ns", AES, ROUTER_NS, None, Most(1.7), Some(1.2)),
    bar("chacha20poly1305: CPU of both routers per byte, ns", CHACHA, ROUTER_NS, None, Most(4.0), None),
    bar("aes256gcm, relayed: CPU of the relay per byte, ns", AES_RELAYED, RELAY_NS, None, Most(0.6), None),
    bar("aes256gcm, relayed: TCP 1 stream, to direct", AES_RELAYED, TCP1, Some(AES), Least(0.65), None),
    bar("chacha20poly1305, relayed: CPU of the relay per byte, ns", CHACHA_RELAYED, RELAY_NS, None, Most(0.6), None),
    bar("chacha20poly1305, relayed: TCP 1 stream, to direct", CHACHA_RELAYED, TCP1, Some(CHACHA), Least(0.65), None),
    bar("aes256gcm: 64-byte datagrams per second, to VXLAN", AES, DATAGRAMS, VXLAN, Least(1.15), None),
    bar("aes256gcm: ping-pong p50, to VXLAN", AES, P50, VXLAN, Most(1.45), Some(1.0)),
    bar("aes256gcm: ping-pong p99, to VXLAN", AES, P99, VXLAN, Most(1.6), None),
    bar("chacha20poly1305: ping-pong p50, to VXLAN", CHACHA, P50, VXLAN, Most(1.6), None),
    bar("aes256gcm: ping-pong p99 beside a bulk stream, us", AES, LOADED_P99, None, Most(2000.0), None),
    bar(
        "aes256gcm: 1500-byte datagrams, TCP 1 stream, to VXLAN",
        "aes256gcm on 1500-byte wire",
        TCP1,
        Some("kernel VXLAN on 1500-byte wire"),
        Least(0.52),
        Some(0.7),
    ),
    bar(
        "aes256gcm: the same with 1 % loss, to VXLAN",
        "aes256gcm with 1 % loss",
        TCP1,
        Some("kernel VXLAN with 1 % loss"),
        Least(0.9),
        None,
    ),
    bar(
        "aes256gcm: 20 ms RTT, TCP 1 stream, to VXLAN",
        "aes256gcm at 20 ms RTT",
        TCP1,
        Some("kernel VXLAN at 20 ms RTT"),
        Least(0.9),
        None,
    ),
    bar(
        "aes256gcm: 20 ms RTT and 2 Gbit/s, TCP 1 stream, to VXLAN",
        "aes256gcm at 20 ms RTT and 2 Gbit/s",
        TCP1,
        Some("kernel VXLAN at 20 ms RTT and 2 Gbit/s"),
        Least(0.9),
        None,
    ),
    bar("aes256gcm: system calls of both routers per MB of TCP", AES, CALLS, None, Most(80.0), None),
    bar("chacha20poly1305: system calls of both routers per MB", CHACHA, CALLS, None, Most(80.0), None),
    bar("idle, ten peers: CPU, percent of one core", IDLE, IDLE_CPU, None, Most(0.5), None),
    bar("idle, ten peers: resident memory, MiB", IDLE, IDLE_RSS, None, Most(32.0), None),
];

/// How a bar was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Kept, and what would be better still.
    Reached,
    /// Kept.
    Met,
    /// Not kept.
    Short,
    /// This build of the router cannot do it, so it is not kept either.
    NotBuilt,
    /// This run left it out.
    NotMeasured,
}

impl Verdict {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Reached => "met, and the reach",
            Verdict::Met => "met",
            Verdict::Short => "FALLS SHORT",
            Verdict::NotBuilt => "NOT BUILT",
            Verdict::NotMeasured => "not measured",
        }
    }

    /// True where the bar was tried and not kept.
    pub fn failed(self) -> bool {
        matches!(self, Verdict::Short | Verdict::NotBuilt)
    }
}

/// A bar held against results.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The bar.
    pub bar: Bar,
    /// The median, or the ratio of medians.
    pub value: Option<f64>,
    /// The same for each round.
    pub rounds: Vec<f64>,
    /// How it was kept.
    pub verdict: Verdict,
}

/// Holds every bar against the results.
pub fn judge(results: &Results) -> Vec<Judged> {
    BARS.iter().map(|bar| judge_one(bar, results)).collect()
}

fn judge_one(bar: &Bar, results: &Results) -> Judged {
    let (value, rounds) = match bar.to {
        Some(to) => (results.ratio(bar.setup, bar.figure, to), results.ratios(bar.setup, bar.figure, to)),
        None => (results.median(bar.setup, bar.figure), results.values(bar.setup, bar.figure)),
    };
    let verdict = match value {
        None if results.not_built.iter().any(|setup| setup == bar.setup) => Verdict::NotBuilt,
        None => Verdict::NotMeasured,
        Some(value) if !bar.limit.met(value) => Verdict::Short,
        Some(value) if bar.reach.is_some_and(|reach| bar.limit.at(reach).met(value)) => Verdict::Reached,
        Some(_) => Verdict::Met,
    };
    Judged { bar: *bar, value, rounds, verdict }
}
