//! The figures as a table and as JSON.

use serde_json::{Map, Value, json};

use crate::measure::{Idle, Sample};

/// A column: its title, its key in JSON, and how to read it off a sample.
type Column = (&'static str, &'static str, fn(&Sample) -> f64);

const COLUMNS: [Column; 8] = [
    ("TCP 1 Gbit/s", "tcp1_gbit_per_s", |s| s.tcp1),
    ("TCP 4 Gbit/s", "tcp4_gbit_per_s", |s| s.tcp4),
    ("64 B dgram/s", "datagrams_per_s", |s| s.datagrams),
    ("pong p50 us", "ping_pong_p50_us", |s| s.p50),
    ("pong p99 us", "ping_pong_p99_us", |s| s.p99),
    ("router ns/B", "router_ns_per_byte", |s| s.router_ns),
    ("relay ns/B", "relay_ns_per_byte", |s| s.relay_ns),
    ("machine ns/B", "machine_ns_per_byte", |s| s.machine_ns),
];

/// The setup everything is compared with.
const BASE: &str = "kernel VXLAN";

/// What one TCP stream through the relay is compared with: the same without a relay.
const RELAYED: &str = ", relayed";

/// Prints medians with the spread, then ratios to kernel VXLAN and the bars. True where every bar that could be measured is met.
pub fn print(samples: &[(&str, Vec<Sample>)]) -> bool {
    let rounds = samples.iter().map(|(_, taken)| taken.len()).max().unwrap_or(0);
    println!("\nmedian [least-most] of {rounds} round(s)");
    print_row("", &COLUMNS.map(|(title, _, _)| title.to_string()));
    for (name, taken) in samples {
        let cells = COLUMNS.map(|(_, _, read)| {
            let values = sorted(taken, read);
            let (least, most) = (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
            format!("{} [{}-{}]", number(median(&values)), number(least), number(most))
        });
        print_row(name, &cells);
    }
    let Some((_, base)) = samples.iter().find(|(name, _)| *name == BASE) else { return true };
    println!("\nratio to {BASE}, of medians");
    print_row("", &COLUMNS.map(|(title, _, _)| title.split(' ').take(2).collect::<Vec<_>>().join(" ")));
    for (name, taken) in samples {
        print_row(name, &COLUMNS.map(|(_, _, read)| ratio(taken, base, read).map_or("-".into(), |r| format!("{r:.2}"))));
    }
    print_bars(samples, base)
}

fn print_bars(samples: &[(&str, Vec<Sample>)], base: &[Sample]) -> bool {
    let mut all_met = true;
    let find = |wanted: &str| samples.iter().find(|(name, _)| *name == wanted).map(|(_, taken)| taken.as_slice());
    println!("\nbars");
    let mut bar = |what: &str, value: Option<f64>, least: Option<f64>, most: Option<f64>| {
        let Some(value) = value else { return };
        let met = least.is_none_or(|least| value >= least) && most.is_none_or(|most| value <= most);
        all_met &= met;
        let wanted = least.map(|l| format!("at least {l}")).or(most.map(|m| format!("at most {m}"))).unwrap_or_default();
        println!("  {:<58} {value:>6.2}  {wanted:<14} {}", what, if met { "met" } else { "FALLS SHORT" });
    };
    for cipher in ["aes256gcm", "chacha20poly1305"] {
        let Some(taken) = find(cipher) else { continue };
        bar(&format!("{cipher}: TCP, one stream, to VXLAN"), ratio(taken, base, |s| s.tcp1), Some(0.30), None);
        bar(&format!("{cipher}: router CPU per byte, ns"), Some(median(&sorted(taken, |s| s.router_ns))), None, Some(4.0));
        bar(&format!("{cipher}: ping-pong p50, to VXLAN"), ratio(taken, base, |s| s.p50), None, Some(1.6));
        let relayed = find(&format!("{cipher}{RELAYED}"));
        bar(&format!("{cipher}: relayed TCP, to direct"), relayed.and_then(|r| ratio(r, taken, |s| s.tcp1)), Some(0.5), None);
    }
    all_met
}

/// Prints what idle routers cost, with the bars. True where they are met.
pub fn print_idle(idle: &Idle) -> bool {
    let (cpu, rss) = (idle.cpu_percent <= 0.5, idle.rss_mib <= 32.0);
    let verdict = |met: bool| if met { "met" } else { "FALLS SHORT" };
    println!("\nidle, ten peers");
    println!("  CPU, percent of one core   {:>6.2}  at most 0.5    {}", idle.cpu_percent, verdict(cpu));
    println!("  resident memory, MiB       {:>6.2}  at most 32     {}", idle.rss_mib, verdict(rss));
    cpu && rss
}

/// The samples as JSON: setup → figure → the value of each round.
pub fn json(samples: &[(&str, Vec<Sample>)]) -> String {
    let setups: Map<String, Value> = samples
        .iter()
        .map(|(name, taken)| {
            let figures: Map<String, Value> =
                COLUMNS.iter().map(|(_, key, read)| ((*key).to_string(), taken.iter().map(read).collect::<Vec<f64>>().into())).collect();
            ((*name).to_string(), figures.into())
        })
        .collect();
    format!("{:#}\n", json!({ "kernel": kernel(), "setups": setups }))
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string()
}

fn ratio(taken: &[Sample], base: &[Sample], read: fn(&Sample) -> f64) -> Option<f64> {
    let base = median(&sorted(base, read));
    (base > 0.0 && !taken.is_empty()).then(|| median(&sorted(taken, read)) / base)
}

fn sorted(taken: &[Sample], read: fn(&Sample) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = taken.iter().map(read).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

fn number(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn print_row(name: &str, cells: &[String; 8]) {
    print!("{name:<26}");
    cells.iter().for_each(|cell| print!(" {cell:>22}"));
    println!();
}
