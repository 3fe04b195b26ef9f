//! From arguments to a [`Call`]: the verb may be left out, and options of `run` may stand on both sides of it.

pub mod containers;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};

use super::config::{ConfigError, RunConfig};
use super::options::revoke::RevokeArgs;
use super::options::{
    DemoArgs, ForceArgs, GlobalOptions, KeyArgs, RmpeerArgs, RunOptions, StatusArgs, Topology, TraceArgs, Verb, WithVerb, WithoutVerb,
};
use super::verbs::Naming;
use crate::mesh::command::Target;
use containers::ContainerAction;

/// What a command line asks for.
#[derive(Debug)]
pub struct Call {
    /// Options of every verb.
    pub global: GlobalOptions,
    /// What to do.
    pub action: Action,
}

/// What to do, checked.
#[derive(Debug)]
pub enum Action {
    /// Run the router.
    Run(Box<RunConfig>),
    /// Print a page.
    Status(StatusArgs),
    /// Add hosts.
    Connect(Vec<Target>),
    /// Remove hosts.
    Forget(Vec<Target>),
    /// Add a name.
    DnsAdd(Naming),
    /// Remove a name.
    DnsRemove(Naming),
    /// Look a name up.
    DnsLookup(String),
    /// See to containers.
    Containers(ContainerAction),
    /// Follow a way.
    Trace(TraceArgs),
    /// Print everything.
    Report,
    /// Wait for a ring of addresses.
    Prime,
    /// Take over addresses.
    Rmpeer(RmpeerArgs),
    /// Hand addresses over.
    Reset(ForceArgs),
    /// Make a key pair of an administrator, or print its public half.
    AdminKey(PathBuf),
    /// Put members out.
    Revoke(RevokeArgs),
    /// Print the public key.
    ShowKey(KeyArgs),
    /// Print the versions.
    Version,
    /// Print the unit.
    SystemdUnit,
    /// Run the demo.
    Demo(DemoArgs),
}

/// Why a command line asks for nothing.
#[derive(Debug)]
pub enum ParseError {
    /// Clap's words: an error, or the help or version that was asked for.
    Clap(clap::Error),
    /// Ours.
    Config(ConfigError),
}

/// Reads a command line, the program's name included. `hostname` is the default nickname.
pub fn parse(args: Vec<OsString>, hostname: &str) -> Result<Call, ParseError> {
    let without = WithoutVerb::command().mut_subcommands(one_name);
    match verb_position(&without, &args) {
        None => {
            let matches = without.try_get_matches_from(args).map_err(ParseError::Clap)?;
            let parsed = WithoutVerb::from_arg_matches(&matches).map_err(ParseError::Clap)?;
            run(parsed.run, Vec::new(), parsed.global, &matches, hostname)
        }
        Some(at) => {
            let with = WithVerb::command().mut_subcommands(one_name);
            if let Some(peer) = misplaced_peer(&with, &args, at) {
                let sentence = format!("'{peer}' is no command; name a peer by --peer, or after `weave-router run`");
                return Err(ParseError::Config(ConfigError::Usage(sentence)));
            }
            let args = short_hostname(run_first(args, at));
            let matches = with.try_get_matches_from(args).map_err(ParseError::Clap)?;
            let parsed = WithVerb::from_arg_matches(&matches).map_err(ParseError::Clap)?;
            with_verb(parsed, &matches, hostname)
        }
    }
}

fn with_verb(parsed: WithVerb, matches: &ArgMatches, hostname: &str) -> Result<Call, ParseError> {
    let global = parsed.global;
    let action = match parsed.verb {
        Verb::Run(args) => {
            let matches = matches.subcommand().map_or(matches, |(_, m)| m);
            return run(args.options, args.peers, global, matches, hostname);
        }
        Verb::Status(args) => Action::Status(args),
        Verb::Connect(args) => Action::Connect(targets(&args.hosts)?),
        Verb::Forget(args) => Action::Forget(targets(&args.hosts)?),
        Verb::DnsAdd(args) => Action::DnsAdd(Naming::new("dns-add", args, true).map_err(ParseError::Config)?),
        Verb::DnsRemove(args) => Action::DnsRemove(Naming::new("dns-remove", args, false).map_err(ParseError::Config)?),
        Verb::DnsLookup(args) => Action::DnsLookup(args.what),
        Verb::Attach(args) => Action::Containers(containers::attach(args)?),
        Verb::Detach(args) => Action::Containers(containers::detach(args)?),
        Verb::Ps(args) => Action::Containers(containers::ps(args)),
        Verb::Expose(args) => Action::Containers(containers::expose(args)?),
        Verb::Hide(args) => Action::Containers(containers::hide(&args)?),
        Verb::AttachBridge(args) => Action::Containers(containers::join(args)),
        Verb::Trace(args) => Action::Trace(args),
        Verb::Report => Action::Report,
        Verb::Prime => Action::Prime,
        Verb::Rmpeer(args) => Action::Rmpeer(args),
        Verb::Reset(args) => Action::Reset(args),
        Verb::AdminKey(args) => Action::AdminKey(args.file),
        Verb::Revoke(args) => Action::Revoke(args),
        Verb::ShowKey(args) => Action::ShowKey(args),
        Verb::Version => Action::Version,
        Verb::SystemdUnit => Action::SystemdUnit,
        Verb::Demo(args) if args.topology == Topology::Ring && args.hosts < 3 => {
            return Err(ParseError::Config(ConfigError::Usage("--topology ring takes at least 3 --hosts".into())));
        }
        Verb::Demo(args) => Action::Demo(args),
    };
    Ok(Call { global, action })
}

fn run(options: RunOptions, peers: Vec<String>, global: GlobalOptions, matches: &ArgMatches, hostname: &str) -> Result<Call, ParseError> {
    let config = RunConfig::new(options, peers, &global, matches, hostname).map_err(ParseError::Config)?;
    Ok(Call { global, action: Action::Run(Box::new(config)) })
}

fn targets(hosts: &[String]) -> Result<Vec<Target>, ParseError> {
    let parsed: Result<Vec<Target>, _> = hosts.iter().map(|text| text.parse()).collect();
    parsed.map_err(|e| ParseError::Config(ConfigError::Usage(e.to_string())))
}

/// `weave-router VERB --version` speaks of the same program as `weave-router --version`.
fn one_name(verb: Command) -> Command {
    verb.display_name("weave-router")
}

/// A peer where a verb should be, as Weave's users may write it.
fn misplaced_peer(command: &Command, args: &[OsString], at: usize) -> Option<String> {
    let text = args.get(at)?.to_str()?;
    let like_a_peer = text.contains(['.', ':']) && text.parse::<Target>().is_ok();
    (like_a_peer && command.find_subcommand(text).is_none()).then(|| text.to_string())
}

/// Where the verb stands: the first argument that is neither an option nor an option's value.
fn verb_position(command: &Command, args: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(arg) = args.get(at) {
        let text = arg.to_string_lossy();
        if text == "--" {
            return None;
        }
        if !text.starts_with('-') {
            return Some(at);
        }
        at += if takes_next(command, &text) { 2 } else { 1 };
    }
    None
}

fn takes_next(command: &Command, option: &str) -> bool {
    let Some(long) = option.strip_prefix("--").filter(|o| !o.contains('=')) else { return false };
    command.get_arguments().any(|arg| arg.get_long() == Some(long) && arg.get_action().takes_values())
}

/// The verbs that take a name take it as `-h` too, as Weave's do; their help is `--help`.
fn short_hostname(mut args: Vec<OsString>) -> Vec<OsString> {
    if args.iter().any(|arg| arg == "dns-add" || arg == "dns-remove" || arg == "expose") {
        args.iter_mut().filter(|arg| *arg == "-h").for_each(|arg| *arg = "--hostname".into());
    }
    args
}

/// Options of `run` that stand before it are moved behind it; the other verbs have no such options, so clap refuses them there.
fn run_first(mut args: Vec<OsString>, at: usize) -> Vec<OsString> {
    let is_run = args.get(at).is_some_and(|verb| verb == OsStr::new("run") || verb == OsStr::new("launch"));
    if is_run {
        let verb = args.remove(at);
        args.insert(1, verb);
    }
    args
}
