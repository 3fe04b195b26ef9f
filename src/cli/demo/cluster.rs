//! The hosts, containers and routers of the demo, as they run.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use super::guard::{Directory, Guard, PREFIX};
use super::plan::{self, Plan};
use crate::api::ApiAddress;
use crate::api::client::{Client, Form};
use crate::api::types::{Connection, Report, Route, State};
use crate::host::lab::traffic::{self, Bulk, Echo, Ends};
use crate::host::lab::{Container, Lab, Process, Wire};

/// Size of the echoed datagrams, in bytes.
const ECHO_SIZE: usize = 64;

/// Longest an echo may be under way.
const ECHO_PATIENCE: Duration = Duration::from_millis(250);

/// Time between an echo and the next.
const ECHO_GAP: Duration = Duration::from_millis(1);

/// How often a lossless series of echoes is tried.
const TRIES: usize = 3;

/// Most lines of a router's log that a failure shows.
const TAIL: usize = 12;

/// From so many relays on, only the first and the last are named.
const LONG: usize = 4;

/// Everything that runs. What is dropped first stands first: routers, then their hosts, then their files; the guard looks last.
#[derive(Debug)]
pub struct Cluster {
    routers: Vec<Router>,
    containers: Vec<(Container, Echo)>,
    wires: Vec<Wire>,
    lab: Lab,
    directory: Directory,
    program: PathBuf,
    _guard: Guard,
}

/// A running router.
#[derive(Debug)]
struct Router {
    process: Process,
    api: ApiAddress,
    log: PathBuf,
}

/// Who is reached through whom, as all routers see it at one moment.
#[derive(Debug)]
pub struct Routes {
    numbers: BTreeMap<String, usize>,
    tables: Vec<Vec<Route>>,
    /// The names of the peers that each router has an established link to.
    links: Vec<Vec<String>>,
}

impl Cluster {
    /// An empty cluster, with somebody who removes it whatever happens.
    pub fn new() -> anyhow::Result<Cluster> {
        let program = std::env::current_exe().context("cannot find the program that is running")?;
        let guard = Guard::start(&program)?;
        let directory = Directory::create()?;
        let lab = Lab::new(PREFIX)?;
        Ok(Cluster { routers: Vec::new(), containers: Vec::new(), wires: Vec::new(), lab, directory, program, _guard: guard })
    }

    /// Makes the hosts and wires them up.
    pub fn build_hosts(&mut self, plan: &Plan) -> anyhow::Result<()> {
        for number in 0..plan.hosts {
            self.lab.host(&plan::host(number))?;
        }
        for &(a, b) in &plan.wires {
            self.lay(a, b)?;
        }
        Ok(())
    }

    /// Lays one more wire, on a subnet of its own.
    pub fn lay(&mut self, a: usize, b: usize) -> anyhow::Result<&Wire> {
        let subnet = subnet(self.wires.len());
        let wire = self.lab.wire(&plan::host(a), &plan::host(b), &subnet)?;
        self.wires.push(wire);
        self.wires.last().context("a wire that was just laid is there")
    }

    /// Cuts a wire.
    pub fn cut(&self, wire: usize) -> anyhow::Result<()> {
        Ok(self.lab.cut(self.wires.get(wire).context("there is no such wire")?)?)
    }

    /// Mends a wire.
    pub fn mend(&self, wire: usize) -> anyhow::Result<()> {
        Ok(self.lab.mend(self.wires.get(wire).context("there is no such wire")?)?)
    }

    /// How many wires were laid.
    pub fn wires(&self) -> usize {
        self.wires.len()
    }

    /// Starts a router on every host: each is told the neighbours with lower numbers, one password is for all.
    pub fn start_routers(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let password = self.directory.path().join("password");
        write_password(&password).with_context(|| format!("cannot write {}", password.display()))?;
        for number in 0..plan.hosts {
            let name = plan::host(number);
            let (log, api) = (self.file(&name, "log"), ApiAddress::Unix(self.file(&name, "sock")));
            let mut command = Command::new(&self.program);
            command.arg("run").arg("--password-file").arg(&password).arg("--state-dir").arg(self.file(&name, "state"));
            command.args(["--api", &api.to_string(), "--status-addr", "", "--nickname", &name]);
            for wire in self.wires.iter().filter(|wire| wire.b.host == name) {
                command.args(["--peer", &wire.a.ip.to_string()]);
            }
            let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
            let errors = output.try_clone().context("cannot share a log file")?;
            // A process group of its own: Ctrl-C in the terminal is for the demo alone, which then ends its routers.
            command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
            for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEAVE_")) {
                command.env_remove(variable);
            }
            let process = self.lab.spawn(&name, &mut command)?;
            self.routers.push(Router { process, api, log });
        }
        Ok(())
    }

    /// True once every router answers; fails where one has ended.
    pub fn routers_answer(&mut self) -> anyhow::Result<bool> {
        self.check_alive()?;
        Ok(self.routers.iter().all(|router| Client::new(router.api.clone()).get("/key", Form::Text).is_ok()))
    }

    /// Fails where a router has ended.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        for (number, router) in self.routers.iter_mut().enumerate() {
            if let Some(status) = router.process.ended() {
                anyhow::bail!("the router on {} has ended ({status})", plan::host(number));
            }
        }
        Ok(())
    }

    /// Plugs a container with an echo service into the bridge of every host.
    pub fn plug_containers(&mut self, plan: &Plan) -> anyhow::Result<()> {
        for number in 0..plan.hosts {
            let address = format!("10.32.0.{}/24", number + 1);
            let container = self.lab.container(&plan::host(number), &plan::container(number), &address)?;
            let echo = Echo::start(&container.namespace, container.ip)?;
            self.containers.push((container, echo));
        }
        Ok(())
    }

    /// Asks all routers who is reached through whom.
    pub fn routes(&self) -> anyhow::Result<Routes> {
        let reports = (0..self.routers.len()).map(|number| self.report(number)).collect::<anyhow::Result<Vec<Report>>>()?;
        let numbers = reports.iter().enumerate().map(|(number, report)| (report.status.name.clone(), number)).collect();
        let established = |connection: &Connection| connection.state == State::Established;
        let linked = |report: &Report| report.connections.iter().filter(|c| established(c)).filter_map(|c| c.peer.clone()).collect();
        let links = reports.iter().map(linked).collect();
        Ok(Routes { numbers, links, tables: reports.into_iter().map(|report| report.routes).collect() })
    }

    /// Everything that one router says of itself.
    pub fn report(&self, number: usize) -> anyhow::Result<Report> {
        let text = self.client(number)?.get("/report", Form::Json)?;
        serde_json::from_str(&text).with_context(|| format!("the router on {} says of itself what is no report", plan::host(number)))
    }

    /// Tells a router to link with an address.
    pub fn connect(&self, number: usize, to: IpAddr) -> anyhow::Result<()> {
        Ok(self.client(number)?.post("/connect", vec![to.to_string()])?)
    }

    /// One round trip between containers; `None` where nothing came back in time.
    pub fn echo_once(&self, from: usize, to: usize) -> anyhow::Result<Option<Duration>> {
        Ok(traffic::echo_once(self.inside(from)?, self.address(to)?, ECHO_SIZE, ECHO_PATIENCE)?)
    }

    /// The median of some round trips between containers; `None` where datagrams are lost again and again.
    pub fn round_trip(&self, from: usize, to: usize, count: usize) -> anyhow::Result<Option<Duration>> {
        // Datagrams may be lost while other programs keep the processors busy; a path that loses some every time is not whole.
        for _ in 0..TRIES {
            let trips = traffic::echo(self.inside(from)?, self.address(to)?, ECHO_SIZE, count, ECHO_GAP, ECHO_PATIENCE)?;
            if trips.lost() == 0 {
                return Ok(trips.percentile(50));
            }
        }
        Ok(None)
    }

    /// Gigabits per second over one TCP connection between containers.
    pub fn throughput(&self, from: usize, to: usize, time: Duration) -> anyhow::Result<f64> {
        let ends = Ends::new(self.inside(from)?, self.inside(to)?, self.ip(to)?);
        let measured = traffic::tcp_throughput(ends, Bulk::ordinary(time))?;
        Ok(measured.gbit_per_s())
    }

    /// The namespace of a host's container.
    pub fn inside(&self, number: usize) -> anyhow::Result<&str> {
        Ok(&self.container(number)?.0.namespace)
    }

    /// The address of a host's container on the mesh.
    pub fn ip(&self, number: usize) -> anyhow::Result<IpAddr> {
        Ok(self.container(number)?.0.ip)
    }

    /// The echo service of a host's container.
    pub fn address(&self, number: usize) -> anyhow::Result<SocketAddr> {
        Ok(self.container(number)?.1.address())
    }

    /// The namespace of a host.
    pub fn outside(&self, number: usize) -> String {
        self.lab.namespace(&plan::host(number))
    }

    /// Where a router's API is.
    pub fn api(&self, number: usize) -> anyhow::Result<&ApiAddress> {
        Ok(&self.router(number)?.api)
    }

    /// The program that runs as every router.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where sockets and logs are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The last lines of every router's log.
    pub fn tails(&self) -> Vec<(String, Vec<String>)> {
        let tail = |log: &Path| {
            let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            let lines: Vec<String> = text.lines().map(ToString::to_string).collect();
            lines.into_iter().rev().take(TAIL).rev().collect()
        };
        self.routers.iter().enumerate().map(|(number, router)| (plan::host(number), tail(&router.log))).collect()
    }

    fn file(&self, host: &str, kind: &str) -> PathBuf {
        self.directory.path().join(format!("{host}.{kind}"))
    }

    fn router(&self, number: usize) -> anyhow::Result<&Router> {
        self.routers.get(number).with_context(|| format!("no router runs on {}", plan::host(number)))
    }

    fn client(&self, number: usize) -> anyhow::Result<Client> {
        Ok(Client::new(self.api(number)?.clone()))
    }

    fn container(&self, number: usize) -> anyhow::Result<&(Container, Echo)> {
        self.containers.get(number).with_context(|| format!("no container runs on {}", plan::host(number)))
    }
}

impl Routes {
    /// The hosts between two hosts, none where the path is direct; `None` where there is no path.
    pub fn between(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        let mut between = Vec::new();
        let mut at = from;
        // While routes change they may for a moment lead in a circle.
        for _ in 0..self.tables.len() {
            let routes = self.tables.get(at)?;
            let route = routes.iter().find(|route| self.numbers.get(&route.peer) == Some(&to))?;
            at = *self.numbers.get(&route.next_hop)?;
            if at == to {
                return Some(between);
            }
            between.push(at);
        }
        None
    }

    /// True where two hosts use the link between them, both ways.
    pub fn are_linked(&self, a: usize, b: usize) -> bool {
        [(a, b), (b, a)].iter().all(|&(from, to)| {
            let links = self.links.get(from).into_iter().flatten();
            let linked = links.filter_map(|peer| self.numbers.get(peer)).any(|peer| *peer == to);
            linked && self.between(from, to).is_some_and(|between| between.is_empty())
        })
    }

    /// How a path reads: `direct`, or `via h2`.
    pub fn path(&self, from: usize, to: usize) -> String {
        match self.between(from, to) {
            None => "changing".into(),
            Some(between) => match &between[..] {
                [] => "direct".into(),
                [first, rest @ .., last] if rest.len() + 2 >= LONG => {
                    format!("via {} to {}, {} relays", plan::host(*first), plan::host(*last), between.len())
                }
                relays => format!("via {}", relays.iter().copied().map(plan::host).collect::<Vec<_>>().join(", ")),
            },
        }
    }

    /// The ciphers of all sessions from host to host; `None` stands for a session that is not there yet.
    pub fn ciphers(&self) -> Vec<Option<String>> {
        let mut ciphers: Vec<Option<String>> = self.tables.iter().flatten().map(|route| route.cipher.clone()).collect();
        ciphers.sort();
        ciphers.dedup();
        ciphers
    }
}

/// The n-th subnet for a wire.
fn subnet(number: usize) -> String {
    // More than 64 wires are laid only where each of 16 hosts is wired to each.
    format!("10.99.{}.{}/30", number / 64, number % 64 * 4)
}

/// A password that nobody has to know, in a file for root alone.
fn write_password(path: &Path) -> std::io::Result<()> {
    let mut random = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(peer: &str, next_hop: &str) -> Route {
        Route {
            peer: peer.into(),
            nickname: peer.into(),
            next_hop: next_hop.into(),
            others: Vec::new(),
            alternate: None,
            hops: 1,
            cost: 1,
            mtu: 1420,
            path: "direct".into(),
            cipher: Some("aes256gcm".into()),
            why: String::new(),
        }
    }

    #[test]
    fn paths_are_followed_from_router_to_router() {
        let numbers = ["x", "y", "z"].into_iter().enumerate().map(|(number, name)| (name.to_string(), number)).collect();
        let tables =
            vec![vec![route("y", "y"), route("z", "y")], vec![route("x", "x"), route("z", "z")], vec![route("x", "y"), route("y", "x")]];
        let links = [&["y"][..], &["x", "z"], &[]].map(|names| names.iter().map(ToString::to_string).collect()).into();
        let routes = Routes { numbers, tables, links };
        assert!(routes.are_linked(0, 1) && !routes.are_linked(0, 2));
        assert!(!routes.are_linked(1, 2), "only one of them has the link");
        assert_eq!(routes.path(0, 1), "direct");
        assert_eq!(routes.path(0, 2), "via h2");
        assert_eq!(routes.path(2, 1), "via h1");
        assert_eq!(routes.between(0, 7), None);
        assert_eq!(routes.ciphers(), [Some("aes256gcm".to_string())]);
    }

    #[test]
    fn every_wire_has_its_subnet() {
        let subnets: std::collections::BTreeSet<String> = (0..121).map(subnet).collect();
        assert_eq!(subnets.len(), 121);
        assert_eq!(subnet(65), "10.99.1.4/30");
    }
}
