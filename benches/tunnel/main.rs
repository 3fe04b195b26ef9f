//! `cargo bench --bench tunnel`: container to container over two hosts on this machine, side by side in one run: raw veth, kernel VXLAN
//! and weave-router (without encryption, with each cipher; direct and relayed). Absolute numbers depend on the machine: read the ratios.
//!
//! The sender's host (container and router) keeps to one core and the receiver's to another, as two hosts do: left alone, the scheduler
//! puts both ends of a kernel datapath on one core, where they share a cache and need no wake-up. `--float` leaves it to the scheduler.
//!
//! Options: `--quick` (one short round, for CI), `--rounds N`, `--only NAME[,NAME…]`, `--idle SECONDS` (what ten idle peers cost),
//! `--float`, `--json FILE`, `--check` (exit 1 where a bar is not met).

mod measure;
mod report;
mod rig;

use std::process::ExitCode;
use std::time::Duration;

use measure::Sample;
use rig::{Link, Rig};
use weave_router::host::lab::Lab;

/// What is compared, in the order in which a round measures it.
const SETUPS: [(&str, Link, bool); 8] = [
    ("raw veth", Link::Raw, false),
    ("kernel VXLAN", Link::Vxlan, false),
    ("no encryption", Link::Router(&["--no-encryption"]), false),
    ("aes256gcm", Link::Router(&["--cipher", "aes256gcm"]), false),
    ("chacha20poly1305", Link::Router(&["--cipher", "chacha20poly1305"]), false),
    ("no encryption, relayed", Link::Router(&["--no-encryption"]), true),
    ("aes256gcm, relayed", Link::Router(&["--cipher", "aes256gcm"]), true),
    ("chacha20poly1305, relayed", Link::Router(&["--cipher", "chacha20poly1305"]), true),
];

/// What the command line asks for.
struct Plan {
    rounds: usize,
    time: Duration,
    trips: usize,
    idle: Option<Duration>,
    only: Vec<String>,
    json: Option<String>,
    pin: bool,
    check: bool,
}

fn main() -> ExitCode {
    let plan = match plan(std::env::args().skip(1).collect()) {
        Ok(plan) => plan,
        Err(sentence) => {
            eprintln!("tunnel bench: {sentence}");
            return ExitCode::from(2);
        }
    };
    Lab::sweep(rig::PREFIX);
    match compare(&plan).and_then(|met| Ok(plan.idle.map_or(Ok(true), idle)? && met)) {
        Ok(met) if met || !plan.check => ExitCode::SUCCESS,
        Ok(_) => {
            eprintln!("tunnel bench: a bar is not met");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tunnel bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan(args: Vec<String>) -> Result<Plan, String> {
    let (rounds, time, trips) = (5, Duration::from_secs(2), 4000);
    let mut plan = Plan { rounds, time, trips, idle: None, only: Vec::new(), json: None, pin: true, check: false };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            // cargo's own word for "this is a bench run".
            "--bench" => {}
            "--quick" => {
                plan = Plan { rounds: 1, time: Duration::from_millis(500), trips: 500, idle: Some(Duration::from_secs(3)), ..plan }
            }
            "--rounds" => plan.rounds = value()?.parse().map_err(|_| "--rounds takes a number".to_string())?,
            "--only" => plan.only = value()?.split(',').map(ToString::to_string).collect(),
            "--idle" => plan.idle = Some(Duration::from_secs(value()?.parse().map_err(|_| "--idle takes seconds".to_string())?)),
            "--float" => plan.pin = false,
            "--check" => plan.check = true,
            "--json" => plan.json = Some(value()?),
            other => return Err(format!("{other} is not an option; see the head of benches/tunnel/main.rs")),
        }
    }
    Ok(plan)
}

/// Measures every setup once per round, so that a slow minute of the machine touches all of them. True where every bar is met.
fn compare(plan: &Plan) -> Result<bool, Box<dyn std::error::Error>> {
    let chosen: Vec<_> =
        SETUPS.iter().filter(|(name, _, _)| plan.only.is_empty() || plan.only.iter().any(|only| name.starts_with(only.as_str()))).collect();
    let mut samples: Vec<(&str, Vec<Sample>)> = chosen.iter().map(|(name, _, _)| (*name, Vec::new())).collect();
    for round in 1..=plan.rounds {
        for ((name, link, relayed), (_, taken)) in chosen.iter().zip(&mut samples) {
            eprintln!("round {round} of {}: {name}", plan.rounds);
            let mut rig = Rig::build(link, *relayed, plan.pin)?;
            taken.push(measure::sample(&mut rig, plan.time, plan.trips)?);
        }
    }
    let met = report::print(&samples);
    if let Some(file) = &plan.json {
        std::fs::write(file, report::json(&samples))?;
    }
    Ok(met)
}

/// What a router with ten neighbours and no traffic costs. True where the bars are met.
fn idle(time: Duration) -> Result<bool, Box<dyn std::error::Error>> {
    eprintln!("idle: one router with ten peers, {} s", time.as_secs());
    let mut rig = Rig::star(10)?;
    let idle = measure::idle(&mut rig, time)?;
    Ok(report::print_idle(&idle))
}
