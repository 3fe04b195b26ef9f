//! `cargo bench --bench many`: what forty routers cost while nobody uses them: real ones, in namespaces, in a partial mesh drawn by lot.
//!
//! Needs root: it makes network namespaces. `--quick` has eight, for CI; `--check` exits with 1 where a bar is not met. `--settle SECONDS` waits
//! so long before it looks.

mod figures;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use figures::{Figures, Limit};
use weave_router::host::lab::clock::{Stopwatch, pause, wait_until};
use weave_router::host::lab::{Lab, Router, Wire};

/// Starts the names of the bench's namespaces.
const PREFIX: &str = "wrm";
/// Draws the wires.
const SEED: u64 = 40;
/// Nothing takes longer unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let quick = figures::is_quick();
    let (hosts, chords, windows, window) = if quick { (8, 6, 2, Duration::from_secs(2)) } else { (40, 30, 6, Duration::from_secs(10)) };
    Lab::sweep(PREFIX);
    let mut lab = Lab::new(PREFIX).expect("the laboratory needs root");
    let wires = lab.partial_mesh(hosts, chords, SEED).expect("hosts and wires");
    let clock = Stopwatch::start();
    let mut routers: Vec<Router> = (1..=hosts).map(|n| start(&lab, &format!("h{n}"), &wires)).collect();
    routers.iter_mut().for_each(|router| router.wait_for_answer().unwrap_or_else(|error| panic!("{error}")));
    let complete = |router: &Router| router.status("").is_some_and(|status| status["reachable_peers"] == hosts);
    assert!(wait_until(PATIENCE, || routers.iter().all(complete)), "every router reaches every other");
    println!("{hosts} routers reach each other {:.1} s after the first was started", clock.elapsed().as_secs_f64());
    // Searches for the largest datagram and first measurements are over by then.
    pause(if quick { Duration::from_secs(2) } else { settle() });
    let pids: Vec<u32> = routers.iter_mut().map(|router| router.process().id()).collect();
    let measured: Vec<[f64; 4]> = (0..windows).map(|_| idle(&pids, window)).collect();
    let column = |n: usize| measured.iter().map(|row| row[n]).collect::<Vec<f64>>();
    let mut figures = Figures::new();
    figures.hold(&format!("idle CPU of {hosts} routers together"), "% of one", Limit { median_most: 10.0, ..Limit::NONE }, column(0));
    figures.hold("of it the programs they run", "% of one", Limit::NONE, column(1));
    figures.hold("wake-ups of one router", "per s", Limit::NONE, column(2));
    figures.hold("resident memory of one router", "MiB", Limit::NONE, column(3));
    figures.end()
}

fn settle() -> Duration {
    let mut words = std::env::args().skip_while(|word| word != "--settle").skip(1);
    Duration::from_secs(words.next().and_then(|word| word.parse().ok()).unwrap_or(20))
}

/// Told the routers at the lower ends of its wires.
fn start(lab: &Lab, host: &str, wires: &[Wire]) -> Router {
    let told: Vec<String> = wires.iter().filter(|wire| wire.b.host == host).map(|wire| wire.a.ip.to_string()).collect();
    let peers = told.iter().flat_map(|peer| ["--peer", peer]);
    let words: Vec<&str> = ["--password", "bench", "--nickname", host].into_iter().chain(peers).collect();
    Router::start(lab, host, Path::new(env!("CARGO_BIN_EXE_weave-router")), &words).expect("a router")
}

/// Percent of one core that all took, and of it the programs that they ran, wake-ups per second of one, and MiB resident of one, over a time.
fn idle(pids: &[u32], window: Duration) -> [f64; 4] {
    let all = |of: fn(u32) -> f64| pids.iter().map(|pid| of(*pid)).sum::<f64>();
    let (clock, cpu, programs, switches) = (Stopwatch::start(), all(processor_ns), all(programs_ns), all(wake_ups));
    pause(window);
    let (cpu, programs, switches) = (all(processor_ns) - cpu, all(programs_ns) - programs, all(wake_ups) - switches);
    let (seconds, count) = (clock.elapsed().as_secs_f64(), pids.len() as f64);
    let percent = |ns: f64| ns / 1e9 / seconds * 100.0;
    [percent(cpu + programs), percent(programs), switches / seconds / count, all(resident_kib) / 1024.0 / count]
}

/// The files of this name of all threads of a process.
fn of_threads(pid: u32, file: &str) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| std::fs::read_to_string(thread.path().join(file)).ok()).collect()
}

/// Nanoseconds on a processor.
fn processor_ns(pid: u32) -> f64 {
    let first = |text: &String| text.split_whitespace().next().and_then(|number| number.parse::<f64>().ok());
    of_threads(pid, "schedstat").iter().filter_map(first).sum()
}

/// The same of the programs that it ran, and that have ended.
fn programs_ns(pid: u32) -> f64 {
    /// Of what the kernel shows: a hundredth of a second.
    const TICK: f64 = 1e7;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: the state is the first, their time in user mode and in the kernel the 14th and the next.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace()).into_iter().flatten();
    fields.skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * TICK
}

fn wake_ups(pid: u32) -> f64 {
    of_threads(pid, "status").iter().map(|text| number(text, "voluntary_ctxt_switches:")).sum()
}

fn resident_kib(pid: u32) -> f64 {
    number(&std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), "VmRSS:")
}

fn number(text: &str, key: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}
