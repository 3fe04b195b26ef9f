//! The whole mesh in one process: stories of what it does when networks and hosts misbehave, each from one seed.
//!
//! `WEAVE_SIM_FULL=1` runs the large sizes; `WEAVE_SIM_SEED=N` or `N..M` chooses the runs of [`chaos`].

mod addresses;
mod apps;
mod attacks;
mod chaos;
mod churn;
mod detours;
mod healing;
mod keys;
mod large;
mod liveness;
mod loops;
mod macs;
mod multicast;
mod nat;
mod paths;
mod resolution;
mod revoked;
mod roaming;
mod shapes;
mod tcp;
mod traffic;
mod trust;
mod watch;

use std::time::Duration;

use weave_router::sim::{Mac, Options, Quality, RouterId, RouterOptions, Sim};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// True where the large sizes are asked for.
#[expect(clippy::disallowed_methods, reason = "a test asks which size it is to have")]
fn full_size() -> bool {
    std::env::var_os("WEAVE_SIM_FULL").is_some_and(|value| value != "0")
}

/// A simulation with `count` hosts that share no network yet.
fn hosts(seed: u64, count: usize, options: &RouterOptions) -> (Sim, Vec<RouterId>) {
    let mut sim = Sim::new(seed, Options::default());
    let hosts = (0..count).map(|_| sim.router(options)).collect();
    (sim, hosts)
}

/// Hosts in a line, each told the one before it.
fn line(seed: u64, count: usize) -> (Sim, Vec<RouterId>) {
    let (mut sim, hosts) = hosts(seed, count, &RouterOptions::default());
    for pair in hosts.windows(2) {
        sim.wire(pair[0], pair[1], Quality::default());
        sim.connect(pair[1], pair[0]);
    }
    sim.start_all();
    (sim, hosts)
}

/// Lets the mesh converge within `patience`; tells how long it took.
#[track_caller]
fn converge(sim: &mut Sim, patience: Duration) -> Duration {
    match sim.run_until(patience, Sim::is_converged) {
        Some(took) => took,
        None => {
            let known: Vec<String> = sim
                .routers()
                .iter()
                .map(|router| format!("{router:?}: links {:?}, reaches {}", sim.links(*router), sim.reachable(*router).len()))
                .collect();
            panic!("not converged within {patience:?}:\n{}\n{:#?}", known.join("\n"), sim.problems());
        }
    }
}

/// One container on each host.
fn containers(sim: &mut Sim) -> Vec<Mac> {
    let macs = sim.routers().into_iter().map(|router| sim.container(router)).collect();
    // Announcements are batched, and travel.
    sim.run_for(ms(300));
    macs
}

/// Every container sends to everybody; every other host must get each frame once.
#[track_caller]
fn floods_reach_everybody_once(sim: &mut Sim, macs: &[Mac]) {
    let again = |sim: &Sim| (sim.total("drop_flood_duplicate"), sim.total("drop_flood_own"));
    let before = again(sim);
    for mac in macs {
        let from = sim.host_of(*mac).expect("a container is on a host");
        let frame = sim.broadcast(*mac);
        sim.run_for(ms(200));
        let missing: Vec<RouterId> =
            sim.routers().into_iter().filter(|router| *router != from && sim.arrivals(frame, *router) != 1).collect();
        assert!(missing.is_empty(), "the flood of {from:?} did not arrive at {missing:?}");
    }
    assert_eq!(again(sim), before, "a flood tree has a loop");
}

/// Every pair of containers exchanges a frame.
#[track_caller]
fn all_pairs_exchange_frames(sim: &mut Sim, macs: &[Mac]) {
    let mut sent = Vec::new();
    for a in macs {
        for b in macs.iter().filter(|b| *b != a) {
            sent.push((*a, *b, sim.send(*a, *b, 500)));
            sim.run_for(ms(1));
        }
    }
    // Sessions between hosts that never spoke begin with a handshake.
    sim.run_for(seconds(2));
    for (a, b, frame) in sent {
        let (from, to) = (sim.host_of(a).expect("on a host"), sim.host_of(b).expect("on a host"));
        assert_eq!(sim.arrivals(frame, to), 1, "from {from:?} to {to:?}");
    }
}

/// Nothing has happened that must not.
#[track_caller]
fn nothing_went_wrong(sim: &Sim) {
    let problems = sim.problems();
    assert!(problems.is_empty(), "{problems:#?}");
}
