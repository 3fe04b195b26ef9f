//! `cargo bench --bench attach`: how long `weave-router attach` takes, the program's own start included, on a host that has a hundred attached containers.
//!
//! Needs root: it makes network namespaces. `--quick` has ten containers, for CI; `--check` exits with 1 where a bar is not met.

mod figures;

use std::process::{Command, ExitCode};

use figures::{Figures, Limit};
use weave_router::host::lab::clock::Stopwatch;
use weave_router::host::lab::{Lab, Router};

/// Starts the names of the bench's namespaces.
const PREFIX: &str = "wra";
/// Attachments that are measured.
const MEASURED: usize = 30;

fn main() -> ExitCode {
    let before = if figures::is_quick() { 10 } else { 100 };
    Lab::sweep(PREFIX);
    let mut lab = Lab::new(PREFIX).expect("the laboratory needs root");
    lab.host("h1").expect("a host");
    let router = Router::up(&lab, "h1", env!("CARGO_BIN_EXE_weave-router").as_ref(), &["--password", "bench"]).expect("a router");
    let names: Vec<String> = (0..before + MEASURED).map(|n| lab.host(&format!("c{n}")).expect("a container")).collect();
    let times: Vec<f64> = names.iter().enumerate().map(|(n, name)| attach(&router, n, name)).collect();
    let mut figures = Figures::new();
    figures.hold(
        &format!("attach with {before} containers on the host"),
        "ms",
        Limit { median_most: 50.0, ..Limit::NONE },
        times[before..].to_vec(),
    );
    figures.end()
}

/// How long it takes, in milliseconds.
fn attach(router: &Router, n: usize, name: &str) -> f64 {
    let clock = Stopwatch::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weave-router"));
    command.args(["attach", &format!("ip:10.2.1.{}/24", n + 1), "--netns", &format!("/run/netns/{name}"), "--api", &router.api()]);
    let out = command.output().expect("the program starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    clock.elapsed().as_secs_f64() * 1e3
}
