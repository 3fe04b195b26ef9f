//! `cargo bench --bench tunnel`: container to container over two hosts on this machine, side by side in one run: raw veth, kernel VXLAN
//! and weave-router (without encryption, with each cipher, by its fast datapath; direct and relayed; over a wire of true 1500-byte
//! datagrams, there by TCP too, over the same wire with loss, and over one of 20 ms). Absolute numbers depend on the machine: read the ratios.
//!
//! The sender's host (container and router) keeps to one core and the receiver's to another, as two hosts do: left alone, the scheduler
//! puts both ends of a kernel datapath on one core, where they share a cache and need no wake-up. `--float` leaves it to the scheduler.
//!
//! # What a TCP stream is
//!
//! The streams that carry the bars are those of an ordinary sender: a default socket with the system's congestion control, as `iperf3`
//! and every program that does not ask for more has. A second column has a sender that sets `TCP_NODELAY`. On a 2-core virtual Xeon with
//! Linux 6.18 and BBR, that alone decides how fast a kernel datapath is: without it kernel VXLAN over a veth pair did 17 to 18 Gbit/s, with
//! it 45 to 50 (`iperf3`: 16.6, and 45 with `-N`). With cubic the same loop of writes gave 50 either way, and `iperf3` 17. Threads or
//! processes made no difference, and the router did 7 to 8 in each case. So the ratio to VXLAN is as much a property of the
//! sender as of the router, and both are shown. Ping-pong always sets `TCP_NODELAY`.
//!
//! # The long cable
//!
//! A thread carries packets between two TAPs ([`FarWire`](weave_router::host::lab::FarWire)), super frames whole, those of VXLAN too (from
//! Linux 6.17; without that VXLAN did 1.5 Gbit/s there, and with it 10). It is measured as fast as the machine can, where CPU
//! time decides as on the plain cable, and at 2 Gbit/s, where what TCP makes of the round trip decides.
//! TCP's buffers are raised there, or they would keep every setup to the same speed.
//!
//! # System calls
//!
//! The router counts its reads and writes of the TAP, its sends, receives and polls (`/metrics`). The bar is on those that move frames.
//! Polls and yields stand beside it and under no bar: where somebody waits, busy polling makes as many as there is time for, by design.
//!
//! # Bars
//!
//! Each bar stands beside what was measured: the ratio of medians, then the least and the most of the rounds. Setups take turns, so
//! that a slow minute of the machine touches all. That no frame costs an allocation is not measured here: `tests/allocations.rs` proves it.
//!
//! # Options
//!
//! * `--rounds N` (5), `--idle SECONDS` (what ten idle peers cost, measured once), `--float`
//! * `--quick`: one short round of everything, for CI
//! * `--only TEXT[,TEXT…]`: the setup of this name, or else those whose names contain it (`aes256gcm`, `relayed`, `1500`, `loss`, `20 ms`)
//! * `--check`: exit 1 where a bar is not met
//! * `--json FILE`: everything, `--plot FILE.svg`: a chart, `--markdown`: the tables of the README
//! * `--from FILE[,FILE…]`: measure nothing, put the rounds of earlier runs together from their JSON
//!
//! The README's tables and chart are made by
//! `cargo bench --bench tunnel -- --idle 10 --json benches/charts/tunnel.json --plot benches/charts/tunnel.svg --markdown`.

mod bars;
mod chart;
mod machine;
mod markdown;
mod measure;
mod report;
mod rig;
mod setups;

use std::process::{Command, ExitCode};
use std::time::Duration;

use measure::Pace;
use rig::{Outcome, Rig};
use setups::{IDLE, Link, Results, SETUPS, Setup};
use weave_router::host::lab::Lab;

/// What the command line asks for.
struct Plan {
    rounds: usize,
    pace: Pace,
    idle: Option<Duration>,
    only: Vec<String>,
    from: Vec<String>,
    json: Option<String>,
    plot: Option<String>,
    markdown: bool,
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
    match run(&plan) {
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
    let pace = Pace { time: Duration::from_secs(2), far: Duration::from_secs(20), trips: 4000 };
    let mut plan = Plan {
        rounds: 5,
        pace,
        idle: None,
        only: Vec::new(),
        from: Vec::new(),
        json: None,
        plot: None,
        markdown: false,
        pin: true,
        check: false,
    };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let list = |text: String| text.split(',').map(ToString::to_string).collect();
        match arg.as_str() {
            // cargo's own word for "this is a bench run".
            "--bench" => {}
            "--quick" => {
                let pace = Pace { time: Duration::from_millis(300), far: Duration::from_secs(2), trips: 300 };
                plan = Plan { rounds: 1, pace, idle: Some(Duration::from_secs(3)), ..plan }
            }
            "--rounds" => plan.rounds = value()?.parse().map_err(|_| "--rounds takes a number".to_string())?,
            "--only" => plan.only = list(value()?),
            "--idle" => plan.idle = Some(Duration::from_secs(value()?.parse().map_err(|_| "--idle takes seconds".to_string())?)),
            "--float" => plan.pin = false,
            "--check" => plan.check = true,
            "--json" => plan.json = Some(value()?),
            "--plot" => plan.plot = Some(value()?),
            "--markdown" => plan.markdown = true,
            "--from" => plan.from = list(value()?),
            other => return Err(format!("{other} is not an option; see the head of benches/tunnel/main.rs")),
        }
    }
    Ok(plan)
}

/// Measures, or takes what was measured, and says it in every form asked for. True where every bar is met.
fn run(plan: &Plan) -> Outcome<bool> {
    let results = if plan.from.is_empty() {
        Lab::sweep(rig::PREFIX);
        measure_all(plan)?
    } else {
        let mut all = Results::default();
        for file in &plan.from {
            let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {file}: {error}"))?;
            all.merge(report::from_json(&text)?);
        }
        all
    };
    let judged = bars::judge(&results);
    report::print(&results, &judged);
    if plan.markdown {
        print!("\n{}", markdown::tables(&results));
    }
    for (file, text) in [(&plan.json, report::json(&results, &judged)), (&plan.plot, chart::svg(&results))] {
        if let Some(file) = file {
            std::fs::write(file, text).map_err(|error| format!("cannot write {file}: {error}"))?;
        }
    }
    Ok(!judged.iter().any(|judged| judged.verdict.failed()))
}

/// Measures every setup once per round, so that a slow minute of the machine touches all of them.
fn measure_all(plan: &Plan) -> Outcome<Results> {
    let mut results = Results { machine: machine::describe(plan.pin)?, ..Results::default() };
    let help = Command::new(env!("CARGO_BIN_EXE_weave-router")).args(["run", "--help"]).output()?;
    let help = String::from_utf8_lossy(&help.stdout);
    let exact = |only: &str| SETUPS.iter().any(|setup| setup.name == only);
    let matches = |setup: &Setup, only: &str| if exact(only) { setup.name == only } else { setup.name.contains(only) };
    let wanted = |setup: &&Setup| plan.only.is_empty() || plan.only.iter().any(|only| matches(setup, only));
    let (built, missing): (Vec<&Setup>, Vec<&Setup>) = SETUPS.iter().filter(wanted).partition(|setup| match setup.link {
        Link::Router(options) => options.iter().filter(|option| option.starts_with("--")).all(|option| help.contains(option)),
        Link::Raw | Link::Vxlan => true,
    });
    results.not_built = missing.iter().map(|setup| setup.name.to_string()).collect();
    for round in 1..=plan.rounds {
        for setup in &built {
            eprintln!("round {round} of {}: {}", plan.rounds, setup.name);
            let mut rig = Rig::build(setup, plan.pin)?;
            let sample = measure::sample(&mut rig, setup.cable, plan.pace)?;
            results.taken.entry(setup.name.to_string()).or_default().push(sample);
        }
    }
    if let Some(time) = plan.idle {
        eprintln!("{IDLE}: {} s", time.as_secs());
        let rig = Rig::star(10)?;
        results.taken.insert(IDLE.to_string(), vec![measure::idle(&rig, time)?]);
    }
    Ok(results)
}
