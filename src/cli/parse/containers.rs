//! The verbs for containers: words become addresses and a container.

use std::path::PathBuf;

use super::super::config::ConfigError;
use super::super::options::containers::{AttachArgs, BridgeArgs, DetachArgs, ExposeArgs, HideArgs, PsArgs, Which};
use super::ParseError;
use crate::host::container::AddressSpec;
use crate::host::container::address;

/// A container as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// By its network namespace.
    Netns(PathBuf),
    /// By a process in it.
    Pid(u32),
    /// By its Docker name or id, at this address of Docker's API.
    Docker {
        /// Name or id.
        name: String,
        /// `unix://PATH`.
        host: String,
    },
}

/// What one of the verbs is to do.
#[derive(Debug)]
pub enum ContainerAction {
    /// Attach.
    Attach {
        /// The container.
        container: Named,
        /// Its addresses.
        addresses: Vec<AddressSpec>,
        /// Its names; `None` is Docker's own.
        names: Option<Vec<String>>,
        /// With a route for multicast.
        multicast_route: bool,
    },
    /// Detach.
    Detach {
        /// The container.
        container: Named,
        /// The addresses that go.
        addresses: Vec<AddressSpec>,
        /// All go.
        all: bool,
    },
    /// List.
    Ps(PsArgs),
    /// Expose the host.
    Expose {
        /// Its addresses.
        addresses: Vec<AddressSpec>,
        /// Its names.
        names: Vec<String>,
        /// With masquerading.
        masquerade: bool,
    },
    /// Hide the host.
    Hide {
        /// The addresses that go.
        addresses: Vec<AddressSpec>,
        /// All go.
        all: bool,
    },
    /// Join a bridge.
    Join(String),
}

pub(super) fn attach(args: AttachArgs) -> Result<ContainerAction, ParseError> {
    let (container, addresses) = words("attach", &args.words, &args.which)?;
    let names = match (args.without_dns, args.hostname.is_empty()) {
        (true, _) => Some(Vec::new()),
        (false, true) => None,
        (false, false) => Some(args.hostname),
    };
    Ok(ContainerAction::Attach { container, addresses, names, multicast_route: !args.no_multicast_route })
}

pub(super) fn detach(args: DetachArgs) -> Result<ContainerAction, ParseError> {
    let (container, addresses) = words("detach", &args.words, &args.which)?;
    Ok(ContainerAction::Detach { container, addresses: only_all("detach", args.all, addresses)?, all: args.all })
}

pub(super) fn ps(args: PsArgs) -> ContainerAction {
    ContainerAction::Ps(args)
}

pub(super) fn expose(args: ExposeArgs) -> Result<ContainerAction, ParseError> {
    let addresses = specs(&args.addresses)?;
    Ok(ContainerAction::Expose { addresses, names: args.hostname, masquerade: !args.without_masquerade })
}

pub(super) fn hide(args: &HideArgs) -> Result<ContainerAction, ParseError> {
    let addresses = specs(&args.addresses)?;
    Ok(ContainerAction::Hide { addresses: only_all("hide", args.all, addresses)?, all: args.all })
}

pub(super) fn join(args: BridgeArgs) -> ContainerAction {
    ContainerAction::Join(args.bridge)
}

fn only_all(verb: &str, all: bool, addresses: Vec<AddressSpec>) -> Result<Vec<AddressSpec>, ParseError> {
    match all && !addresses.is_empty() {
        true => Err(usage(format!("`{verb} --all` takes no addresses: it means every one"))),
        false => Ok(addresses),
    }
}

/// Addresses and the container, which stands last unless an option names it.
fn words(verb: &str, words: &[String], which: &Which) -> Result<(Named, Vec<AddressSpec>), ParseError> {
    let option = match (&which.netns, which.pid) {
        (Some(path), _) => Some(Named::Netns(path.clone())),
        (None, Some(pid)) => Some(Named::Pid(pid)),
        (None, None) => None,
    };
    if let Some(named) = option {
        if let Some(name) = words.iter().find(|word| !address::is_meant(word)) {
            return Err(usage(format!("'{name}' is no address, and --netns or --pid already says which container is meant")));
        }
        return Ok((named, specs(words)?));
    }
    let missing =
        || usage(format!("`weave-router {verb}` takes a container: a Docker name or id as the last word, or --netns PATH, or --pid PID"));
    let (name, addresses) = words.split_last().ok_or_else(missing)?;
    if address::is_meant(name) {
        return Err(missing());
    }
    Ok((Named::Docker { name: name.clone(), host: which.docker_host.clone() }, specs(addresses)?))
}

fn specs(texts: &[String]) -> Result<Vec<AddressSpec>, ParseError> {
    texts.iter().map(|text| text.parse().map_err(|e: address::AddressError| usage(e.to_string()))).collect()
}

fn usage(sentence: String) -> ParseError {
    ParseError::Config(ConfigError::Usage(sentence))
}
