//! The one exception in other programs' firewalls.
//!
//! Where `bridge-nf-call-iptables` is on (wherever Docker or Kubernetes runs), frames between two ports of a bridge pass the host's FORWARD
//! chains, and a drop there is final: a table of our own cannot overrule it. What an exposed host routes passes them everywhere. So where such
//! a chain would drop it, marked rules that accept it go into `DOCKER-USER` where Docker made that chain for this purpose,
//! else to the head of FORWARD, for IPv4 and IPv6, in the legacy or the nft flavour of iptables, whichever holds the chain, and into native
//! nftables chains alike. They are looked after as long as the router runs (others rewrite their tables) and removed afterwards.
//!
//! Everything here blocks for some milliseconds, because it runs other programs: call it on a thread of its own.

mod doors;
mod generation;
mod iptables;
mod nft;

use std::fs;
use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use ipnet::IpNet;

use super::HostError;
use doors::Doors;

/// The comment on our rules.
pub const MARK: &str = "weave-router";

/// Keeper of the exception for one bridge.
#[derive(Debug)]
pub struct Firewall {
    bridge: String,
    /// Sentences that were said already: a missing program is worth one line, not one every few seconds.
    said: Vec<String>,
    /// Whether a rule of ours may be there, an earlier life's included; `None` until somebody looked. Then a stop need not run
    /// half a dozen programs for nothing.
    present: Option<bool>,
    /// What was to pass when all was found, or put, in order, and the firewall's state before: while both are the same nothing is looked at.
    settled: Option<([Doors; 2], u32)>,
}

/// What [`Firewall::ensure`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Rules that had to be put in now, as "program table chain".
    pub inserted: Vec<String>,
    /// What an operator should know, each sentence once.
    pub warnings: Vec<String>,
}

/// What one kind of table did.
#[derive(Default)]
struct Step {
    inserted: Vec<String>,
    failures: Vec<HostError>,
}

impl Firewall {
    /// A keeper for this bridge; nothing is done yet.
    pub fn new(bridge: &str) -> Firewall {
        Firewall { bridge: bridge.into(), said: Vec::new(), present: None, settled: None }
    }

    /// Puts the exception in where it is needed and missing: for frames across the bridge, and for what the host routes for the subnets that it
    /// is exposed in. While those are not known, what is there for them stays. Idempotent, meant to be called every few seconds.
    pub fn ensure(&mut self, exposed: Option<&[IpNet]>) -> Checked {
        let doors = [false, true].map(|v6| Doors::new(&self.bridge, v6, bridged_traffic_is_filtered(v6), exposed));
        // Asked for first: what others change while we look is looked at again.
        let state = generation::generation().map(|generation| (doors.clone(), generation));
        if state.is_some() && state == self.settled {
            return Checked::default();
        }
        let left_over = self.present.unwrap_or_else(|| self.look());
        let mut step = Step::default();
        let concerned = |doors: &Doors| left_over || !doors.is_empty();
        let mut tools_found = false;
        for (v6, doors) in [false, true].into_iter().zip(&doors).filter(|(_, doors)| concerned(doors)) {
            let tools = iptables::tools(v6);
            tools_found |= !tools.is_empty();
            for tool in &tools {
                step.take(iptables::ensure(tool, doors));
            }
        }
        if doors.iter().any(concerned) {
            match nft::ensure(&doors) {
                // Where there is iptables alone, nobody made chains with nft.
                Err(HostError::MissingProgram { .. }) if tools_found => {}
                outcome => step.take(outcome),
            }
        }
        let uncertain = step.failures.iter().any(|e| !matches!(e, HostError::MissingProgram { .. }));
        self.present = Some(left_over || uncertain || !step.inserted.is_empty());
        self.settled = state.filter(|_| step.failures.is_empty());
        let mut checked = Checked { inserted: step.inserted, warnings: Vec::new() };
        for sentence in step.failures.iter().map(ToString::to_string) {
            if !self.said.contains(&sentence) {
                self.said.push(sentence.clone());
                checked.warnings.push(sentence);
            }
        }
        checked
    }

    /// Takes the exception out again, wherever it is; answers with what could not be done.
    pub fn remove(&mut self) -> Vec<HostError> {
        let mut failures = Vec::new();
        self.settled = None;
        if self.present == Some(false) {
            return failures;
        }
        for v6 in [false, true] {
            for tool in iptables::tools(v6) {
                failures.extend(iptables::remove(&tool, &self.bridge).err());
            }
        }
        failures.extend(nft::remove(&self.bridge).err());
        failures.retain(|e| !matches!(e, HostError::MissingProgram { .. }));
        self.present = Some(!failures.is_empty());
        failures
    }

    /// True where a rule of ours is there, or where that cannot be told.
    fn look(&self) -> bool {
        let holds = |answer: Result<bool, HostError>| answer.unwrap_or_else(|e| !matches!(e, HostError::MissingProgram { .. }));
        let tools = [false, true].into_iter().flat_map(iptables::tools);
        tools.into_iter().any(|tool| holds(iptables::holds(&tool, &self.bridge))) || holds(nft::holds(&self.bridge))
    }
}

impl Step {
    fn take(&mut self, outcome: Result<Vec<String>, HostError>) {
        match outcome {
            Ok(inserted) => self.inserted.extend(inserted),
            Err(error) => self.failures.push(error),
        }
    }
}

/// True where frames between ports of a bridge are shown to the host's firewall.
fn bridged_traffic_is_filtered(v6: bool) -> bool {
    let knob = if v6 { "bridge-nf-call-ip6tables" } else { "bridge-nf-call-iptables" };
    // Without the module br_netfilter the file is not there, and nothing is filtered.
    fs::read_to_string(format!("/proc/sys/net/bridge/{knob}")).is_ok_and(|value| value.trim() == "1")
}

/// Runs a program to its end and answers with what it printed; its complaint becomes the error.
pub(super) fn run(program: &str, args: &[&str], attempted: &str, hint: &str) -> Result<String, HostError> {
    let started = Command::new(program).args(args).stdin(Stdio::null()).output();
    printed(program, args, started, attempted, hint)
}

/// The same for a program that reads `input`.
pub(super) fn feed(program: &str, args: &[&str], input: &str, attempted: &str) -> Result<String, HostError> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.spawn().and_then(|mut child| {
        // One that ends early says why on stderr.
        let fed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
        fed.or_else(|e| if e.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(e) })?;
        child.wait_with_output()
    });
    printed(program, args, output, attempted, "")
}

fn printed(program: &str, args: &[&str], output: io::Result<Output>, attempted: &str, hint: &str) -> Result<String, HostError> {
    let output = output.map_err(|e| match e.kind() {
        // Permission is denied, too, where a directory of the search path cannot be read.
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            HostError::MissingProgram { attempted: attempted.into(), program: program.into(), hint: hint.into() }
        }
        _ => HostError::io(format!("{attempted} with {program}"), e),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|l| !l.trim().is_empty() && !l.starts_with('#')).unwrap_or("nothing").to_string();
    Err(HostError::Program { attempted: attempted.into(), program: format!("{program} {}", args.join(" ")), output: line })
}

#[cfg(test)]
mod tests;
