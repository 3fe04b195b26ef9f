//! What is measured: hosts, containers and what joins them.

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use weave_router::host::lab::clock::wait_until;
use weave_router::host::lab::traffic::{Echo, Ends, echo_once};
use weave_router::host::lab::{BRIDGE, Container, Lab, Plug, Process, cores};

/// Starts the names of the bench's namespaces.
pub const PREFIX: &str = "wrb";
/// MTU of the containers, the same in every setup: what fits the router on a 1500-byte underlay.
const MTU: u16 = 1420;
/// The core of the sender's host. A relay goes where the scheduler wants it.
const SENDER_CORE: usize = 0;
/// The core of the receiver's host.
const RECEIVER_CORE: usize = 1;

/// What joins the two bridges.
pub enum Link {
    /// A veth pair from container to container, no bridge: what the machine can do at all.
    Raw,
    /// A VXLAN port on each bridge.
    Vxlan,
    /// A weave-router on each host, with these options.
    Router(&'static [&'static str]),
}

/// A running setup.
pub struct Rig {
    /// The laboratory.
    pub lab: Lab,
    /// The routers: the sender's host, the receiver's host, then the relay.
    pub routers: Vec<Process>,
    /// Namespace that sends.
    pub from: String,
    /// Namespace that receives.
    pub to: String,
    /// The receiver's address.
    pub ip: IpAddr,
    /// True where the sender's host and the receiver's host each keep to a core of their own.
    pin: bool,
    state: tempfile::TempDir,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

impl Rig {
    fn empty(pin: bool) -> Outcome<Rig> {
        Ok(Rig {
            lab: Lab::new(PREFIX)?,
            routers: Vec::new(),
            from: String::new(),
            to: String::new(),
            ip: [10, 32, 0, 2].into(),
            pin: pin && cores::available() > 1,
            state: tempfile::tempdir()?,
        })
    }

    /// Where traffic is sent from and to.
    pub fn ends(&self) -> Ends<'_> {
        Ends { cores: self.pin.then_some((SENDER_CORE, RECEIVER_CORE)), ..Ends::new(&self.from, &self.to, self.ip) }
    }

    /// Two hosts, or three in a line where `relayed`, and a container on the first and the last.
    pub fn build(link: &Link, relayed: bool, pin: bool) -> Outcome<Rig> {
        let mut rig = Rig::empty(pin)?;
        match link {
            Link::Raw => rig.raw()?,
            Link::Vxlan => rig.vxlan()?,
            Link::Router(options) => rig.router(options, relayed)?,
        }
        rig.wait()?;
        Ok(rig)
    }

    /// One router in the middle of `peers` others; no traffic. The first router is the one in the middle.
    pub fn star(peers: u8) -> Outcome<Rig> {
        let mut rig = Rig::empty(false)?;
        rig.lab.host("h0")?;
        for n in 1..=peers {
            rig.lab.host(&format!("h{n}"))?;
            rig.lab.wire("h0", &format!("h{n}"), &format!("192.168.{n}.0/24"))?;
        }
        rig.start("h0", None, &[])?;
        for n in 1..=peers {
            rig.start(&format!("h{n}"), Some(format!("192.168.{n}.1")), &[])?;
        }
        let all = usize::from(peers);
        if !wait_until(Duration::from_secs(30), || rig.established("h0") == all) {
            return Err(format!("{} of {all} links came up", rig.established("h0")).into());
        }
        Ok(rig)
    }

    fn raw(&mut self) -> Outcome<()> {
        self.from = self.lab.host("c1")?;
        self.to = self.lab.host("c2")?;
        let options = weave_router::host::lab::WireOptions { mtu: Some(MTU) };
        let wire = self.lab.wire_with("c1", "c2", "10.32.0.0/24", options)?;
        self.ip = wire.b.ip;
        Ok(())
    }

    fn vxlan(&mut self) -> Outcome<()> {
        self.lab.host("h1")?;
        self.lab.host("h2")?;
        let wire = self.lab.wire("h1", "h2", "192.168.12.0/24")?;
        for (own, other) in [(&wire.a, &wire.b), (&wire.b, &wire.a)] {
            self.lab.bridge(&own.host, BRIDGE, Some(MTU))?;
            let (local, remote) = (own.ip.to_string(), other.ip.to_string());
            self.ip(
                &own.host,
                &[
                    "link",
                    "add",
                    "vx0",
                    "type",
                    "vxlan",
                    "id",
                    "42",
                    "local",
                    &local,
                    "remote",
                    &remote,
                    "dstport",
                    "4789",
                    "dev",
                    &own.interface,
                ],
            )?;
            self.ip(&own.host, &["link", "set", "vx0", "master", BRIDGE, "up"])?;
            self.ip(&own.host, &["link", "set", BRIDGE, "up"])?;
        }
        self.containers("h1", "h2")
    }

    fn router(&mut self, options: &[&str], relayed: bool) -> Outcome<()> {
        let hosts: &[&str] = if relayed { &["h1", "h3", "h2"] } else { &["h1", "h2"] };
        for host in hosts {
            self.lab.host(host)?;
        }
        if relayed {
            let first = self.lab.wire("h1", "h2", "192.168.12.0/24")?;
            let second = self.lab.wire("h2", "h3", "192.168.23.0/24")?;
            self.start("h1", Some(first.b.ip.to_string()), options)?;
            self.start("h3", Some(second.a.ip.to_string()), options)?;
            self.start("h2", None, options)?;
            return self.containers("h1", "h3");
        }
        let wire = self.lab.wire("h1", "h2", "192.168.12.0/24")?;
        self.start("h1", None, options)?;
        self.start("h2", Some(wire.a.ip.to_string()), options)?;
        self.containers("h1", "h2")
    }

    fn start(&mut self, host: &str, peer: Option<String>, options: &[&str]) -> Outcome<()> {
        let dir = self.state.path().join(host);
        std::fs::create_dir_all(&dir)?;
        let log = std::fs::File::create(dir.join("log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_weave-router"));
        command.args(["run", "--password", "bench", "--nickname", host, "--status-addr", ""]);
        command.arg("--state-dir").arg(dir.join("state")).arg("--api").arg(self.api(host));
        command.args(peer.iter().flat_map(|peer| ["--peer", peer.as_str()])).args(options);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let core = match self.routers.len() {
            0 => Some(SENDER_CORE),
            1 => Some(RECEIVER_CORE),
            _ => None,
        };
        let lab = &self.lab;
        let process = cores::on(core.filter(|_| self.pin), || lab.spawn(host, &mut command))??;
        self.routers.push(process);
        let plugged = |out: std::process::Output| String::from_utf8_lossy(&out.stdout).contains(&format!("master {BRIDGE} "));
        let up = wait_until(Duration::from_secs(10), || {
            self.lab.exec(host, "ip", &["-o", "link", "show", "dev", "weave-tap"]).is_ok_and(plugged)
        });
        if up { Ok(()) } else { Err(self.complaint(host, "did not make its bridge")) }
    }

    fn api(&self, host: &str) -> String {
        format!("unix:{}", self.state.path().join(host).join("api.sock").display())
    }

    /// Established links of a router.
    fn established(&self, host: &str) -> usize {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weave-router"));
        command.args(["status", "connections", "--json", "--api", &self.api(host)]);
        let Ok(out) = command.output() else { return 0 };
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&out.stdout).unwrap_or_default();
        rows.iter().filter(|row| row["state"] == "established").count()
    }

    fn containers(&mut self, first: &str, second: &str) -> Outcome<()> {
        let plug = Plug { mtu: Some(MTU), ..Plug::default() };
        let near: Container = self.lab.container_with(first, "c1", "10.32.0.1/24", &plug)?;
        let far: Container = self.lab.container_with(second, "c2", "10.32.0.2/24", &plug)?;
        (self.from, self.to, self.ip) = (near.namespace, far.namespace, far.ip);
        Ok(())
    }

    fn ip(&self, host: &str, args: &[&str]) -> Outcome<()> {
        let out = self.lab.exec(host, "ip", args)?;
        if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned().into()) }
    }

    /// Waits until the containers reach each other, and then for the path MTU search to settle.
    fn wait(&mut self) -> Outcome<()> {
        let echo = Echo::start(&self.to, self.ip)?;
        let there = wait_until(Duration::from_secs(20), || {
            echo_once(&self.from, echo.address(), 32, Duration::from_millis(300)).is_ok_and(|trip| trip.is_some())
        });
        if !there {
            return Err(self.complaint("h1", "does not carry frames to the other container"));
        }
        weave_router::host::lab::clock::pause(Duration::from_millis(700));
        Ok(())
    }

    fn complaint(&self, host: &str, what: &str) -> Box<dyn std::error::Error> {
        let log = std::fs::read_to_string(self.state.path().join(host).join("log")).unwrap_or_default();
        format!("the router on {host} {what}; its log:\n{log}").into()
    }
}
