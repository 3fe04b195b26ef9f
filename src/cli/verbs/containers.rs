//! The verbs for containers.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::parse::containers::{ContainerAction, Named};
use crate::api::ApiAddress;
use crate::api::client::{Client, ClientError, Form};
use crate::api::containers::{AttachBody, BridgeBody, DetachBody, EXPOSED, ExposeBody, HideBody, Row, is_meant};
use crate::docker;
use crate::host::container::{AddressSpec, INTERFACE};
use crate::names::Domain;
use crate::wire::names::is_name;

/// Does what the verb says; answers with what is to be printed.
pub(in super::super) fn act(api: ApiAddress, action: ContainerAction) -> anyhow::Result<String> {
    let client = Client::new(api);
    match action {
        ContainerAction::Attach { container, addresses, names, multicast_route } => {
            let found = find(&client, &container, true)?;
            let names = match names {
                Some(names) => names,
                None => names_of(&client, found.docker)?,
            };
            let (netns, interface) = (found.netns.unwrap_or_default(), INTERFACE.to_string());
            let body = AttachBody { ident: found.ident, netns, interface, addresses: texts(&addresses), names, multicast_route };
            post(&client, "/attach", &body)
        }
        ContainerAction::Detach { container, addresses, all } => {
            let found = find(&client, &container, false)?;
            let (addresses, interface) = (texts(&addresses), INTERFACE.to_string());
            post(&client, "/detach", &DetachBody { ident: found.ident, netns: found.netns, interface, addresses, all })
        }
        ContainerAction::Ps(args) => ps(&client, &args.containers, &args.docker_host, args.json),
        ContainerAction::Expose { addresses, names, masquerade } => {
            post(&client, "/expose", &ExposeBody { addresses: texts(&addresses), names, masquerade })
        }
        ContainerAction::Hide { addresses, all } => post(&client, "/hide", &HideBody { addresses: texts(&addresses), all }),
        ContainerAction::Join(bridge) => post(&client, "/attach-bridge", &BridgeBody { bridge }),
    }
}

fn post(client: &Client, path: &str, body: &impl serde::Serialize) -> anyhow::Result<String> {
    let body: Value = serde_json::to_value(body)?;
    Ok(client.act(hyper::Method::POST, path, Some(&body))?)
}

fn texts(addresses: &[AddressSpec]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// A container that was found.
struct Found {
    ident: String,
    netns: Option<PathBuf>,
    docker: Option<docker::Container>,
}

/// Finds a container; one of Docker's must run, on a network of its own, where it is `wanted` on ours.
fn find(client: &Client, named: &Named, wanted: bool) -> anyhow::Result<Found> {
    match named {
        Named::Netns(path) => {
            let path = absolute(path)?;
            Ok(Found { ident: format!("netns:{}", path.display()), netns: Some(path), docker: None })
        }
        Named::Pid(pid) => Ok(Found { ident: format!("pid:{pid}"), netns: Some(namespace_of(*pid)), docker: None }),
        Named::Docker { name, host } => match docker::inspect(host, name) {
            Ok(found) if wanted && found.pid.is_none() => {
                anyhow::bail!("the Docker container {name} is not running ({}); start it first", found.status)
            }
            Ok(found) if wanted && found.on_host => {
                anyhow::bail!(
                    "the Docker container {name} has the host's own network; put the host on the network with `weave-router expose`"
                )
            }
            Ok(found) => Ok(Found { ident: found.id.clone(), netns: found.pid.map(namespace_of), docker: Some(found) }),
            // It can be taken off the network even if Docker is gone, or has forgotten it.
            Err(error) => match attached(client, name).filter(|_| !wanted) {
                Some(ident) => Ok(Found { ident, netns: None, docker: None }),
                None => Err(error.into()),
            },
        },
    }
}

/// The one attached container whose id begins so.
fn attached(client: &Client, id: &str) -> Option<String> {
    let rows: Vec<Row> = serde_json::from_str(&client.get("/containers", Form::Json).ok()?).ok()?;
    let mut idents = rows.into_iter().map(|row| row.ident).filter(|ident| !ident.contains(':') && is_meant(id, ident));
    idents.next().filter(|_| idents.next().is_none())
}

/// The names of a Docker container: its own, and its host name where that is in the mesh's domain.
fn names_of(client: &Client, container: Option<docker::Container>) -> anyhow::Result<Vec<String>> {
    let Some(container) = container else { return Ok(Vec::new()) };
    // A name with dots would have to be in the mesh's domain, which no name of Docker's is by chance.
    // Nor can all of them be names at all: an underscore may, a name of 64 characters may not.
    let usable = |name: &String| !name.contains('.') && is_name(&name.to_ascii_lowercase());
    let mut names: Vec<String> = Some(container.name).filter(usable).into_iter().collect();
    if let Some(fqdn) = container.fqdn {
        // Where the name server is off there is no domain.
        let domain = match client.get("/domain", Form::Text) {
            Ok(domain) => domain.trim().parse::<Domain>().ok(),
            Err(ClientError::Refused { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let relative = |name: &str| domain.as_ref().and_then(|domain| domain.relative(name).ok());
        if relative(&fqdn).is_some_and(|host| names.iter().all(|name| relative(name).as_ref() != Some(&host))) {
            names.push(fqdn);
        }
    }
    Ok(names)
}

/// The router has another working directory, and one namespace shall have one ident.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    match path.canonicalize() {
        Ok(path) => Ok(path),
        // It may be gone, which is no reason not to detach.
        Err(_) if path.is_absolute() => Ok(path.to_path_buf()),
        Err(e) => anyhow::bail!("cannot find the network namespace {}: {e}", path.display()),
    }
}

fn namespace_of(pid: u32) -> PathBuf {
    format!("/proc/{pid}/ns/net").into()
}

/// The containers that are meant, in the router's order; one that is named and not attached has no line.
fn ps(client: &Client, wanted: &[String], docker_host: &str, json: bool) -> anyhow::Result<String> {
    let mut rows: Vec<Row> = serde_json::from_str(&client.get("/containers", Form::Json)?)?;
    let known = |ident: &str| ident == EXPOSED || ident.contains(':') || rows.iter().any(|row| is_meant(ident, &row.ident));
    let mut idents = Vec::new();
    for ident in wanted {
        match ident {
            path if path.starts_with('/') => idents.push(format!("netns:{}", absolute(Path::new(path))?.display())),
            ident if known(ident) => idents.push(ident.clone()),
            name => idents.push(docker::inspect(docker_host, name)?.id),
        }
    }
    rows.retain(|row| idents.is_empty() || idents.iter().any(|ident| is_meant(ident, &row.ident)));
    Ok(if json { serde_json::to_string_pretty(&rows)? + "\n" } else { rows.iter().map(Row::line).collect() })
}
