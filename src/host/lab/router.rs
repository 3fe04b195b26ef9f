//! A router that runs on a host of the laboratory, as a program of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::clock::wait_until;
use super::{HostError, Lab, Process, in_namespace};

/// How long a router may take until it answers on its socket; making keys from a password takes most of it.
const START: Duration = Duration::from_secs(15);

/// How long a router may take to say farewell.
const FAREWELL: Duration = Duration::from_secs(10);

/// A running router with a state directory, an API socket and a log of its own. When a test fails its log is printed.
#[derive(Debug)]
pub struct Router {
    process: Process,
    place: Place,
}

/// Where and how it runs, which a restart does not change.
#[derive(Debug)]
struct Place {
    binary: PathBuf,
    host: String,
    namespace: String,
    directory: PathBuf,
    arguments: Vec<String>,
}

impl Router {
    /// Starts `binary launch` on a host with these arguments, and waits until it answers.
    pub fn up(lab: &Lab, host: &str, binary: &Path, arguments: &[&str]) -> Result<Router, HostError> {
        let mut router = Router::start(lab, host, binary, arguments)?;
        router.wait_for_answer()?;
        Ok(router)
    }

    /// Starts `binary launch` on a host with these arguments, without waiting.
    pub fn start(lab: &Lab, host: &str, binary: &Path, arguments: &[&str]) -> Result<Router, HostError> {
        let namespace = lab.namespace(host);
        let directory = std::env::temp_dir().join(format!("weave-lab-{namespace}"));
        fs::create_dir_all(&directory).map_err(|e| HostError::io(format!("make {}", directory.display()), e))?;
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let place = Place { binary: binary.into(), host: host.into(), namespace, directory, arguments };
        let process = place.launch()?;
        Ok(Router { process, place })
    }

    /// Waits until the router answers on its socket; an error holds the end of its log.
    pub fn wait_for_answer(&mut self) -> Result<(), HostError> {
        let mut ended = false;
        let answers = wait_until(START, || {
            ended = self.process.ended().is_some();
            ended || self.status("").is_some()
        });
        if answers && !ended {
            return Ok(());
        }
        let log = self.log();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        let why = if ended { "it ended" } else { "it does not answer" };
        Err(HostError::Program {
            attempted: format!("start a router on {}", self.place.host),
            program: format!("{} ({why})", self.place.binary.display()),
            output: last,
        })
    }

    /// Its API, as the option `--api` takes it.
    pub fn api(&self) -> String {
        self.place.api()
    }

    /// Runs the program as a client of this router, in the same namespace.
    pub fn client(&self, arguments: &[&str]) -> Result<Output, HostError> {
        let mut command = Command::new(&self.place.binary);
        command.args(arguments).args(["--api", &self.api()]).stdin(Stdio::null());
        let run = in_namespace(&self.place.namespace, || command.output())?;
        run.map_err(|e| HostError::io(format!("ask the router on {}", self.place.host), e))
    }

    /// `status WHAT --json`; `None` where the router does not answer, or answers no JSON.
    pub fn status(&self, what: &str) -> Option<Value> {
        let words: Vec<&str> = ["status", what, "--json"].into_iter().filter(|w| !w.is_empty()).collect();
        let output = self.client(&words).ok()?;
        output.status.success().then(|| serde_json::from_slice(&output.stdout).ok()).flatten()
    }

    /// What the router has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.log()).unwrap_or_default()
    }

    /// Its process, for signals and its id.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.place.directory.join("state")
    }

    /// Asks it to end and waits; `None` where it did not and was killed.
    pub fn stop(&mut self) -> Result<Option<ExitStatus>, HostError> {
        self.process.stop(FAREWELL)
    }

    /// Starts it again with the same state, after it was stopped or killed.
    pub fn restart(&mut self) -> Result<(), HostError> {
        self.process = self.place.launch()?;
        self.wait_for_answer()
    }

    /// The same with other arguments.
    pub fn restart_with(&mut self, arguments: &[&str]) -> Result<(), HostError> {
        self.place.arguments = arguments.iter().map(ToString::to_string).collect();
        self.restart()
    }
}

impl Place {
    fn launch(&self) -> Result<Process, HostError> {
        let what = |e| HostError::io(format!("open the log {}", self.log().display()), e);
        let log = File::options().create(true).append(true).open(self.log()).map_err(what)?;
        let mut command = Command::new(&self.binary);
        command.arg("launch").arg("--state-dir").arg(self.directory.join("state")).args(["--api", &self.api()]).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(what)?).stderr(log);
        Process::spawn(&self.namespace, &mut command)
    }

    fn api(&self) -> String {
        format!("unix:{}", self.directory.join("api.sock").display())
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the router on {} ----\n{}", self.place.host, self.log());
        }
        if let Err(error) = self.stop() {
            tracing::warn!("{error}");
        }
        if let Err(error) = fs::remove_dir_all(&self.place.directory) {
            tracing::warn!("{} stays: {error}", self.place.directory.display());
        }
    }
}
