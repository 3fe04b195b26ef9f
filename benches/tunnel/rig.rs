//! What is measured: hosts, containers and what joins them.

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use weave_router::host::lab::clock::wait_until;
use weave_router::host::lab::traffic::{Echo, Ends, echo_once};
use weave_router::host::lab::{BRIDGE, Container, FarWire, Lab, Plug, Process, Wire, cores, in_namespace};

use crate::setups::{Cable, Link, Setup};

/// Starts the names of the bench's namespaces.
pub const PREFIX: &str = "wrb";
/// MTU of the containers, the same in every setup: what fits the router on a 1500-byte underlay.
const MTU: u16 = 1420;
/// The core of the sender's host. A relay goes where the scheduler wants it.
const SENDER_CORE: usize = 0;
/// The core of the receiver's host.
const RECEIVER_CORE: usize = 1;
/// The counters of the router's system calls on the way of a frame.
const CALLS: [(&str, &str); 4] =
    [("packet_thread", "tap_reads"), ("packet_thread", "tap_writes"), ("udp", "send_calls"), ("udp", "receive_calls")];
/// The counter of its looks for events.
const POLLS: (&str, &str) = ("packet_thread", "polls");
/// Each way on the long cable.
const DELAY: Duration = Duration::from_millis(10);
/// Bits per second of the shaped one.
const RATE: u64 = 2_000_000_000;
/// Percent of what arrives that the bad cable loses.
const LOSS: u8 = 1;
/// TCP's buffers on the long cable: least, default, and most, which is 20 ms of 25 Gbit/s. What the kernel allows by default would
/// keep every setup to the same 1.6 Gbit/s.
const FAR_BUFFERS: &str = "4096 131072 67108864";

/// System calls so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls {
    /// Those that moved frames, or looked for some to move.
    pub frames: f64,
    /// Those that looked for events, or left the core to others meanwhile.
    pub polls: f64,
}

/// A running setup.
pub struct Rig {
    /// The laboratory.
    pub lab: Lab,
    /// The routers: the sender's host, the receiver's host, then the relay.
    pub routers: Vec<Process>,
    /// The cable between the hosts; the first, where there is a relay.
    pub wire: Option<Wire>,
    /// Their hosts.
    hosts: Vec<String>,
    /// Namespace that sends.
    pub from: String,
    /// Namespace that receives.
    pub to: String,
    /// The receiver's address.
    pub ip: IpAddr,
    /// True where the sender's host and the receiver's host each keep to a core of their own.
    pin: bool,
    /// What carries packets over the long cable.
    far: Option<FarWire>,
    state: tempfile::TempDir,
}

/// Or what went wrong, in a sentence.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

impl Rig {
    fn empty(pin: bool) -> Outcome<Rig> {
        Ok(Rig {
            lab: Lab::new(PREFIX)?,
            routers: Vec::new(),
            wire: None,
            hosts: Vec::new(),
            from: String::new(),
            to: String::new(),
            ip: [10, 32, 0, 2].into(),
            pin: pin && cores::available() > 1,
            far: None,
            state: tempfile::tempdir()?,
        })
    }

    /// Where traffic is sent from and to.
    pub fn ends(&self) -> Ends<'_> {
        Ends { cores: self.pin.then_some((SENDER_CORE, RECEIVER_CORE)), ..Ends::new(&self.from, &self.to, self.ip) }
    }

    /// The hosts of a setup, with a container on the first and the last.
    pub fn build(setup: &Setup, pin: bool) -> Outcome<Rig> {
        let mut rig = Rig::empty(pin)?;
        match (setup.link, setup.cable) {
            (Link::Raw, _) => rig.raw()?,
            (Link::Vxlan, cable) => rig.vxlan(cable)?,
            (Link::Router(options), Cable::Relayed) => rig.relay(options)?,
            (Link::Router(options), cable) => rig.router(options, cable)?,
        }
        rig.wait()?;
        if let Link::Router(options) = setup.link
            && options.contains(&"--fastdp")
        {
            rig.wait_for_fast_datapath()?;
        }
        if let (Cable::Lossy, Some(wire)) = (setup.cable, &rig.wire) {
            rig.lab.lose(&wire.b, LOSS)?;
        }
        Ok(rig)
    }

    /// Lays the cable between the hosts `h1` and `h2`.
    fn lay(&mut self, cable: Cable) -> Outcome<Wire> {
        self.lab.host("h1")?;
        self.lab.host("h2")?;
        let subnet = "192.168.12.0/24";
        let wire = match cable {
            Cable::Veth | Cable::Relayed => self.lab.wire("h1", "h2", subnet)?,
            Cable::Datagrams | Cable::DatagramsNoUdp | Cable::Lossy => {
                let wire = self.lab.wire("h1", "h2", subnet)?;
                self.lab.without_offloads(&wire)?;
                wire
            }
            Cable::Far | Cable::FarShaped => {
                let rate = (cable == Cable::FarShaped).then_some(RATE);
                self.far.insert(self.lab.far_wire("h1", "h2", subnet, DELAY, rate)?).wire.clone()
            }
        };
        self.wire = Some(wire.clone());
        Ok(wire)
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
        self.ip = self.lab.wire_with("c1", "c2", "10.32.0.0/24", options)?.b.ip;
        Ok(())
    }

    fn vxlan(&mut self, cable: Cable) -> Outcome<()> {
        let wire = self.lay(cable)?;
        for (own, other) in [(&wire.a, &wire.b), (&wire.b, &wire.a)] {
            self.lab.bridge(&own.host, BRIDGE, Some(MTU))?;
            let (local, remote) = (own.ip.to_string(), other.ip.to_string());
            let ends = ["local", &local, "remote", &remote, "dstport", "4789", "dev", &own.interface];
            self.ip(&own.host, &[&["link", "add", "vx0", "type", "vxlan", "id", "42"][..], &ends].concat())?;
            self.ip(&own.host, &["link", "set", "vx0", "master", BRIDGE, "up"])?;
            self.ip(&own.host, &["link", "set", BRIDGE, "up"])?;
        }
        self.containers("h1", "h2")
    }

    fn router(&mut self, options: &[&str], cable: Cable) -> Outcome<()> {
        let wire = self.lay(cable)?;
        if cable == Cable::DatagramsNoUdp {
            return self.by_tcp(&wire, options);
        }
        self.start("h1", None, options)?;
        self.start("h2", Some(wire.a.ip.to_string()), options)?;
        self.containers("h1", "h2")
    }

    fn by_tcp(&mut self, wire: &Wire, options: &[&str]) -> Outcome<()> {
        let wall = format!(
            "table inet wall {{ chain in {{ type filter hook input priority 0; iifname {} meta l4proto udp drop; }}; }}",
            wire.a.interface
        );
        let out = self.lab.exec("h1", "nft", &[&wall])?;
        if !out.status.success() {
            return Err(format!("cannot block UDP: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
        self.start("h1", None, &[options, &["--tcp-listen", "443"]].concat())?;
        self.start("h2", Some(format!("tcp://{}:443", wire.a.ip)), options)?;
        self.containers("h1", "h2")
    }

    fn relay(&mut self, options: &[&str]) -> Outcome<()> {
        let first = self.lay(Cable::Relayed)?;
        self.lab.host("h3")?;
        let second = self.lab.wire("h2", "h3", "192.168.23.0/24")?;
        self.start("h1", Some(first.b.ip.to_string()), options)?;
        self.start("h3", Some(second.a.ip.to_string()), options)?;
        self.start("h2", None, options)?;
        self.containers("h1", "h3")
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
        self.hosts.push(host.to_string());
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
        self.connections(host).iter().filter(|row| row["state"] == "established").count()
    }

    fn connections(&self, host: &str) -> Vec<serde_json::Value> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weave-router"));
        command.args(["status", "connections", "--json", "--api", &self.api(host)]);
        command.output().map(|out| serde_json::from_slice(&out.stdout).unwrap_or_default()).unwrap_or_default()
    }

    /// Waits until both ends say that the kernel carries their frames: a figure of the router would be one of something else.
    fn wait_for_fast_datapath(&self) -> Outcome<()> {
        let fast = |host: &String| self.connections(host).iter().any(|row| row["datapath"] == "fastdp");
        if wait_until(Duration::from_secs(15), || self.hosts.iter().all(fast)) {
            return Ok(());
        }
        let said = self.hosts.iter().map(|host| format!("{host}: {:?}\n", self.connections(host))).collect::<String>();
        Err(format!("the fast datapath is not in use:\n{said}").into())
    }

    /// System calls that the routers at both ends have made; none where there are no routers.
    pub fn calls(&self) -> Outcome<Calls> {
        let mut calls = Calls::default();
        for host in self.hosts.iter().take(2) {
            let mut command = Command::new(env!("CARGO_BIN_EXE_weave-router"));
            let out = command.args(["report", "--api", &self.api(host)]).output()?;
            let report: serde_json::Value = serde_json::from_slice(&out.stdout)?;
            let count = |plane: &str, name: &str| {
                let mut counters = report["counters"].as_array().into_iter().flatten();
                let found = counters.find(|counter| counter["plane"] == plane && counter["name"] == name);
                found.and_then(|counter| counter["value"].as_f64()).ok_or(format!("the report of {host} has no {plane}.{name}"))
            };
            for (plane, name) in CALLS {
                calls.frames += count(plane, name)?;
            }
            let (plane, name) = POLLS;
            calls.polls += count(plane, name)?;
        }
        Ok(calls)
    }

    fn containers(&mut self, first: &str, second: &str) -> Outcome<()> {
        let plug = Plug { mtu: Some(MTU), ..Plug::default() };
        let near: Container = self.lab.container_with(first, "c1", "10.32.0.1/24", &plug)?;
        let far: Container = self.lab.container_with(second, "c2", "10.32.0.2/24", &plug)?;
        (self.from, self.to, self.ip) = (near.namespace, far.namespace, far.ip);
        if self.far.is_some() {
            for namespace in [&self.from, &self.to] {
                let set = |name| std::fs::write(format!("/proc/sys/net/ipv4/{name}"), FAR_BUFFERS);
                in_namespace(namespace, || set("tcp_rmem").and_then(|()| set("tcp_wmem")))??;
            }
        }
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
