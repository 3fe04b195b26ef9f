//! `weave-router demo`: real routers on hosts that are network namespaces of this machine, tried out before the reader's eyes.
//!
//! The story is told in sections: the mesh comes up, who reaches whom, how fast, and what happens when a wire is laid or cut. Everything
//! is made for this run and removed at its end, however it ends: what the demo cannot remove itself, its [`guard`] does.

mod acts;
mod cluster;
pub mod guard;
mod needs;
mod plan;
mod pulse;
mod screen;
mod stop;

use std::collections::BTreeMap;
use std::time::Duration;

use super::options::DemoArgs;
use crate::host::lab::clock::Stopwatch;
use cluster::Cluster;
use plan::{Plan, container, host};
use screen::{Screen, milliseconds};
use stop::{Interrupted, Stop};

/// Longest that the mesh may take until every container reaches every other.
const PATIENCE: Duration = Duration::from_secs(20);

/// Longest that routes may take until they are the shortest; later they are shown as they are.
const ROUTES_PATIENCE: Duration = Duration::from_secs(8);

/// How long a throughput is measured.
const THROUGHPUT_TIME: Duration = Duration::from_secs(1);

/// From so many hosts on, who reaches whom is told by host and not by pair.
const MANY_HOSTS: usize = 5;

/// Runs the demo.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    if let Some(missing) = needs::missing() {
        anyhow::bail!(missing);
    }
    let stop = Stop::on_signals()?;
    let (screen, plan) = (Screen::new(), Plan::new(args));
    for pid in guard::sweep() {
        screen.line(&format!("Removed what a demo that was killed (process {pid}) had left behind."))?;
    }
    let show = Show { plan, cluster: Cluster::new()?, stop, screen, clock: Stopwatch::start() };
    show.run(args.seconds)
}

/// The demo while it runs.
struct Show {
    plan: Plan,
    cluster: Cluster,
    stop: Stop,
    screen: Screen,
    clock: Stopwatch,
}

impl Show {
    fn run(mut self, seconds: Option<u32>) -> anyhow::Result<()> {
        let played = self.play().and_then(|()| self.stay(seconds));
        let Show { mut cluster, screen, .. } = self;
        let told = match played {
            Err(error) if !error.is::<Interrupted>() => {
                complain(&cluster);
                // A router that has ended explains whatever failed.
                cluster.check_alive().and(Err(error))
            }
            other => other,
        };
        drop(cluster);
        told?;
        screen.line("\nRouters, hosts and files of the demo are removed.")
    }

    fn play(&mut self) -> anyhow::Result<()> {
        self.build()?;
        self.show_pairs()?;
        self.show_throughput()?;
        self.act()
    }

    /// Hosts, wires, routers and containers, until every container reaches every other.
    fn build(&mut self) -> anyhow::Result<()> {
        let Show { plan, cluster, stop, screen, clock } = self;
        screen.line(&format!("weave-router {}: {}", env!("CARGO_PKG_VERSION"), plan.describe()))?;
        screen.heading("Building")?;
        cluster.build_hosts(plan)?;
        stop.check()?;
        let last = host(plan.hosts - 1);
        screen.item("hosts", &format!("{} to {}, network namespaces of this machine", cluster.outside(0), last))?;
        screen.item("wires", &wires(plan))?;
        cluster.start_routers(plan)?;
        if !stop.until(PATIENCE, || cluster.routers_answer())? {
            anyhow::bail!("not every router answers within {} s", PATIENCE.as_secs());
        }
        screen.item("routers", &format!("one on each host, told a password and its neighbours: up after {}", seconds(clock.elapsed())))?;
        cluster.plug_containers(plan)?;
        let addresses = format!("{} to {}", cluster.ip(0)?, cluster.ip(plan.hosts - 1)?);
        screen.item("containers", &format!("c1 to {}, one on each host's bridge: {addresses}", container(plan.hosts - 1)))?;
        let waiting = Stopwatch::start();
        for (from, to) in plan.pairs() {
            let left = PATIENCE.saturating_sub(waiting.elapsed());
            let reached = stop.until(left, || {
                cluster.check_alive()?;
                Ok(cluster.echo_once(from, to)?.is_some())
            })?;
            if !reached {
                anyhow::bail!("{} does not reach {} within {} s", container(from), container(to), PATIENCE.as_secs());
            }
        }
        screen.item("mesh", &format!("every container reaches every other after {}", seconds(clock.elapsed())))
    }

    /// A table of round trips and paths.
    fn show_pairs(&mut self) -> anyhow::Result<()> {
        let plan = &self.plan;
        let distances: Vec<Vec<usize>> = (0..plan.hosts).map(|from| plan.distances(from)).collect();
        // Routes are the shortest within a moment of the last link; where they are not, the table shows what they are.
        self.stop.until(ROUTES_PATIENCE, || {
            let routes = self.cluster.routes()?;
            let shortest = |from: usize, to: usize| {
                let wires = distances.get(from).and_then(|d| d.get(to)).copied();
                routes.between(from, to).map(|between| between.len() + 1) == wires
            };
            Ok(plan.pairs().all(|(from, to)| shortest(from, to)) && !routes.ciphers().contains(&None))
        })?;
        self.screen.heading("Who reaches whom")?;
        let routes = self.cluster.routes()?;
        let count = if plan.hosts < MANY_HOSTS { 31 } else { 3 };
        let mut trips = Vec::new();
        for (from, to) in plan.pairs() {
            self.stop.check()?;
            let Some(time) = self.cluster.round_trip(from, to, count)? else {
                anyhow::bail!("{} does not reach {} reliably: an echo was lost while all wires were whole", container(from), container(to));
            };
            trips.push((from, to, time, routes.path(from, to)));
        }
        if plan.hosts < MANY_HOSTS {
            let rows: Vec<[String; 4]> =
                trips.iter().map(|(from, to, time, path)| [container(*from), container(*to), milliseconds(*time), path.clone()]).collect();
            self.screen.table(["FROM", "TO", ">RTT", "PATH"], &rows)?;
        } else {
            let rows: Vec<[String; 5]> = (0..plan.hosts).map(|from| by_host(from, &trips)).collect();
            self.screen.table(["FROM", "REACHES", ">DIRECT", "RELAYED", ">RTT"], &rows)?;
        }
        self.screen.line(&format!("  {}", sealing(&routes.ciphers(), plan)))
    }

    /// TCP, direct and relayed.
    fn show_throughput(&mut self) -> anyhow::Result<()> {
        self.screen.heading("Throughput of one TCP connection")?;
        let mut rows = Vec::new();
        for distance in [1, 2] {
            let Some((from, to)) = self.plan.pair_at(distance) else { continue };
            self.stop.check()?;
            let figure = self.cluster.throughput(from, to, THROUGHPUT_TIME)?;
            let path = self.cluster.routes()?.path(from, to);
            rows.push([container(from), container(to), format!("{figure:.2} Gbit/s"), path]);
        }
        self.screen.table(["FROM", "TO", ">THROUGHPUT", "PATH"], &rows)
    }

    /// Says how to look around, and waits.
    fn stay(&self, seconds: Option<u32>) -> anyhow::Result<()> {
        let (cluster, screen) = (&self.cluster, &self.screen);
        screen.heading("Look around, in another terminal")?;
        let last = self.plan.hosts - 1;
        let (program, api) = (cluster.program().display(), cluster.api(0)?);
        screen.line(&format!("  ip netns exec {} ping {}", cluster.inside(0)?, cluster.ip(last)?))?;
        for what in ["status", "status connections", "status routes"] {
            screen.line(&format!("  ip netns exec {} {program} {what} --api {api}", cluster.outside(0)))?;
        }
        screen.line(&format!("  ip netns exec {} tcpdump -ni eth0 udp port 6783", cluster.outside(0)))?;
        screen.line(&format!("  tail -f {}/h1.log", cluster.directory().display()))?;
        let Some(seconds) = seconds else {
            screen.line("\nCtrl-C ends the demo and removes everything. After kill -9, its guard process does so.")?;
            while !self.stop.wait(Duration::from_secs(3600)) {}
            return Ok(());
        };
        screen.line(&format!("\nThe demo ends in {seconds} s, or with Ctrl-C, and removes everything."))?;
        self.stop.wait(Duration::from_secs(seconds.into()));
        Ok(())
    }
}

/// The routers' own words, where the demo fails.
fn complain(cluster: &Cluster) {
    for (host, lines) in cluster.tails() {
        eprintln!("\nThe last lines of the log of the router on {host}:");
        for line in lines {
            eprintln!("  {line}");
        }
    }
    eprintln!();
}

fn wires(plan: &Plan) -> String {
    let list: Vec<String> = plan.wires.iter().map(|(a, b)| format!("{}-{}", host(*a), host(*b))).collect();
    let apart = match plan.pair_at(2) {
        Some((a, b)) => format!("; {} and {} share no network", host(a), host(b)),
        None => String::new(),
    };
    match list.len() {
        0..=8 => format!("{}{apart}", list.join(", ")),
        n => format!("{n} of them{apart}"),
    }
}

/// One host's line of the table, for meshes with too many pairs for a line each.
fn by_host(from: usize, trips: &[(usize, usize, Duration, String)]) -> [String; 5] {
    let own: Vec<_> = trips.iter().filter(|trip| trip.0 == from).collect();
    let direct = own.iter().filter(|trip| trip.3 == "direct").count();
    let (fastest, slowest) = (own.iter().map(|trip| trip.2).min(), own.iter().map(|trip| trip.2).max());
    let [fastest, slowest] = [fastest, slowest].map(|time| milliseconds(time.unwrap_or_default()));
    let mut relays: BTreeMap<&str, usize> = BTreeMap::new();
    for relay in own.iter().filter_map(|trip| trip.3.strip_prefix("via ")?.split([',', ' ']).next()) {
        *relays.entry(relay).or_default() += 1;
    }
    let relayed: Vec<String> = relays.into_iter().map(|(relay, count)| format!("{count} via {relay}")).collect();
    let relayed = if relayed.is_empty() { "none".to_string() } else { relayed.join(", ") };
    [container(from), format!("{} of {}", own.len(), own.len()), direct.to_string(), relayed, format!("{fastest} to {slowest}")]
}

/// One sentence on what a frame looks like between hosts.
fn sealing(ciphers: &[Option<String>], plan: &Plan) -> String {
    let names: Vec<&str> = ciphers.iter().flatten().map(String::as_str).collect();
    let whole = !names.is_empty() && names.len() == ciphers.len() && !names.contains(&"none");
    match (whole, plan.pair_at(2)) {
        (false, _) => "Frames are NOT sealed between all of these hosts.".into(),
        (true, None) => format!("Every frame is sealed with {} between its two hosts.", names.join(" or ")),
        (true, Some(_)) => {
            format!(
                "Every frame is sealed with {} from its first host to its last; those that relay it cannot read it.",
                names.join(" or ")
            )
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::super::options::Topology;
    use super::*;

    fn plan(hosts: u8, topology: Topology) -> Plan {
        Plan::new(&DemoArgs { hosts, topology, seconds: None })
    }

    #[test]
    fn a_missing_or_clear_session_is_not_called_sealed() {
        let line = plan(3, Topology::Line);
        let sealed = |ciphers: &[Option<&str>]| {
            let ciphers: Vec<Option<String>> = ciphers.iter().map(|cipher| cipher.map(ToString::to_string)).collect();
            sealing(&ciphers, &line)
        };
        assert!(sealed(&[Some("aes256gcm")]).contains("sealed with aes256gcm"));
        for open in [&[][..], &[None], &[None, Some("aes256gcm")], &[Some("aes256gcm"), Some("none")]] {
            assert!(sealed(open).contains("NOT sealed"), "{open:?}");
        }
    }

    #[test]
    fn many_hosts_take_a_line_each() {
        let trip = |to: usize, path: &str| (0, to, Duration::from_millis(to as u64), path.to_string());
        let trips = [trip(1, "direct"), trip(2, "via h2"), trip(3, "via h2, h3")];
        assert_eq!(by_host(0, &trips), ["c1", "3 of 3", "1", "2 via h2", "1.00 ms to 3.00 ms"]);
        assert_eq!(wires(&plan(3, Topology::Line)), "h1-h2, h2-h3; h1 and h3 share no network");
        assert_eq!(wires(&plan(16, Topology::Full)), "120 of them");
    }
}
