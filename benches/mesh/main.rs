//! `cargo bench --bench mesh`: a mesh of 1,000 routers in one process (one way 5 to 40 ms, one datagram in a thousand is lost, each router is
//! told one or two others), and what befalls it: a cold start, rest, a newcomer, the loss of a tenth, a partition and its end. For each the time to
//! full agreement (all hold the same records, and have a route to each other and to nobody else), in simulated seconds, and bytes of UDP payload
//! that each router sends per second meanwhile. And the memory of one mesh plane, by a counting allocator: that of a router which shares
//! nothing with the others, its Fib included, MACs and names not; and that of all, as the process had it at most.
//!
//! The same seed gives the same run, on any number of cores, so what changes is the program's doing: it ends with 1 where a figure is worse than that
//! of a mesh of this size in `benches/mesh/snapshot.json` by more than the tolerance there.
//!
//! # Options
//!
//! * `--routers N` (1000), `--limit LINKS` (16), `--sites N` (1: all reach all; with more each router is in one network and every
//!   fourth in two), `--seed N`
//! * `--true-handshakes`: with the arithmetic of the key exchanges, which changes nothing but the time that it takes here
//! * `--until-join`: no more than has a bar, a cold start, rest and a newcomer, which is half of the time; CI plays it with 1,000 routers
//! * `--quick`: 100 routers, for CI
//! * `--snapshot`: writes what was measured to the snapshot
//! * `--check`: exit 1 where a bar is not met
//! * `--json FILE`: the figures

#[path = "../figures/mod.rs"]
mod figures;
mod memory;
mod report;
mod snapshot;
mod story;

use std::process::ExitCode;

use weave_router::host::lab::clock::Stopwatch;

/// What the command line asks for.
pub struct Asked {
    /// How many routers, and so on.
    pub routers: usize,
    /// Most links of each.
    pub limit: usize,
    /// Networks of the underlay.
    pub sites: usize,
    /// True for handshakes with all their arithmetic.
    pub true_handshakes: bool,
    /// True where it ends with the newcomer.
    pub until_join: bool,
    /// Decides the run.
    pub seed: u64,
    quick: bool,
    write: bool,
    json: Option<String>,
}

fn main() -> ExitCode {
    match asked(std::env::args().skip(1)).and_then(|asked| run(&asked)) {
        Ok(code) => code,
        Err(sentence) => {
            eprintln!("mesh bench: {sentence}");
            ExitCode::from(2)
        }
    }
}

fn asked(mut args: impl Iterator<Item = String>) -> Result<Asked, String> {
    let (quick, write, json) = (figures::is_quick(), false, None);
    let mut asked = Asked { routers: 1000, limit: 16, sites: 1, true_handshakes: false, until_join: false, seed: 1, quick, write, json };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("{arg} takes a number"));
        match arg.as_str() {
            // cargo's own word for "this is a bench run"; and what `figures` looks for itself.
            "--bench" | "--quick" | "--test" | "--check" => {}
            "--snapshot" => asked.write = true,
            "--routers" => asked.routers = number(value()?)?,
            "--limit" => asked.limit = number(value()?)?,
            "--sites" => asked.sites = number(value()?)?,
            "--true-handshakes" => asked.true_handshakes = true,
            "--until-join" => asked.until_join = true,
            "--seed" => asked.seed = number(value()?)? as u64,
            "--json" => asked.json = Some(value()?),
            other => return Err(format!("{other} is not an option; see the head of benches/mesh/main.rs")),
        }
    }
    if asked.until_join && asked.write {
        return Err("--until-join measures too little for a snapshot".to_string());
    }
    Ok(if asked.quick { Asked { routers: snapshot::ROUTERS, limit: 16, sites: 1, ..asked } } else { asked })
}

/// Measures and says it in every form asked for.
fn run(asked: &Asked) -> Result<ExitCode, String> {
    let wall = Stopwatch::start();
    let mut figures = story::run(asked, &wall)?;
    figures.insert("memory of all, MB".to_string(), memory::peak()?);
    println!("\n{} routers, at most {} links each, {} network(s), seed {}", asked.routers, asked.limit, asked.sites, asked.seed);
    report::table(&figures);
    println!("{:.0} s of wall time\n", wall.elapsed().as_secs_f64());
    let met = report::bars(&figures, asked.routers);
    if let Some(file) = &asked.json {
        std::fs::write(file, report::json(&figures)).map_err(|error| format!("cannot write {file}: {error}"))?;
    }
    if asked.write {
        snapshot::write(asked.routers, &figures)?;
    }
    let usual = (asked.limit, asked.sites, asked.seed) == (16, 1, 1);
    let kept = !usual || snapshot::holds(asked.routers, &figures, asked.until_join)?;
    Ok(if kept { met } else { ExitCode::FAILURE })
}
