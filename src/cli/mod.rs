//! The command line: options, verbs and exit statuses.
//!
//! Results go to stdout, the log to stderr. Exit status 0: done, or already so. 1: a failure, in one sentence on stderr. 2: the command
//! line is wrong.

pub mod config;
pub mod demo;
pub mod logging;
pub mod options;
mod parse;
pub mod run;
mod verbs;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

pub use config::{ConfigError, Password, RunConfig};
pub use options::DemoArgs;
pub use parse::{Action, Call, ParseError, parse};

use crate::crypto::Identity;
use crate::host::service;
use crate::store::Seed;

/// Exit status of a failure.
const FAILED: u8 = 1;

/// Exit status of a wrong command line.
const USAGE: u8 = 2;

/// What the verbs that are more than a question to a running router do.
pub struct Planes {
    /// Runs the router until it is told to stop.
    pub run: fn(RunConfig) -> anyhow::Result<()>,
    /// Runs the demo.
    pub demo: fn(DemoArgs) -> anyhow::Result<()>,
    /// The text of the systemd unit.
    pub systemd_unit: fn() -> anyhow::Result<String>,
    /// The public key, 64 hexadecimal digits, that belongs to a seed.
    pub public_key: fn(&Seed) -> anyhow::Result<String>,
}

/// The program: reads the process's arguments and does what they say.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(status) = demo::guard::entry(&args) {
        return status;
    }
    let planes = Planes {
        run: run::run,
        demo: |args| demo::run(&args),
        systemd_unit: || Ok(service::systemd_unit(&std::env::current_exe()?.to_string_lossy(), &[])),
        public_key: |seed| Ok(Identity::from_seed(seed).public().key.to_string()),
    };
    main_with(args, &planes)
}

/// The program, given its arguments and the planes it drives.
pub fn main_with(args: Vec<OsString>, planes: &Planes) -> ExitCode {
    let call = match parse(args, &hostname()) {
        Ok(call) => call,
        Err(ParseError::Clap(e)) => {
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(USAGE));
        }
        Err(ParseError::Config(e)) => {
            let status = match e {
                ConfigError::Usage(_) => USAGE,
                ConfigError::Failure(_) => FAILED,
            };
            complain(&e);
            return ExitCode::from(status);
        }
    };
    logging::start(call.global.log_level, call.global.log_format);
    match act(call, planes).and_then(|text| Ok(print(&text)?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(&format!("{e:#}"));
            ExitCode::from(FAILED)
        }
    }
}

fn act(call: Call, planes: &Planes) -> anyhow::Result<String> {
    let api = call.global.api;
    match call.action {
        Action::Run(config) => (planes.run)(*config).map(|()| String::new()),
        Action::Status(args) => verbs::status(api, &args),
        Action::Connect(hosts) => verbs::connect(api, &hosts),
        Action::Forget(hosts) => verbs::forget(api, &hosts),
        Action::DnsAdd(naming) => verbs::dns::add(api, &naming),
        Action::DnsRemove(naming) => verbs::dns::remove(api, &naming),
        Action::DnsLookup(what) => verbs::dns::look_up(api, &what),
        Action::Containers(action) => verbs::containers::act(api, action),
        Action::Trace(args) => verbs::trace(api, &args),
        Action::Report => verbs::report(api),
        Action::Prime => verbs::ipam::prime(api),
        Action::Rmpeer(args) => verbs::ipam::rmpeer(api, &args.peers, args.force.force),
        Action::Reset(args) => verbs::ipam::reset(api, args.force),
        Action::AdminKey(file) => verbs::revoke::admin_key(&file),
        Action::Revoke(args) => verbs::revoke::revoke(api, &args),
        Action::ShowKey(args) => verbs::show_key(api, &args.state_dir, planes),
        Action::Version => Ok(verbs::version(api)),
        Action::SystemdUnit => (planes.systemd_unit)(),
        Action::Demo(args) => (planes.demo)(args).map(|()| String::new()),
    }
}

/// Writes a result to stdout. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(io::Error::new(e.kind(), format!("cannot write the result to stdout: {e}"))),
        Ok(()) => Ok(()),
    }
}

fn complain(sentence: &impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "weave-router: {sentence}");
}

/// The host's name, or nothing where the system does not say.
fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
