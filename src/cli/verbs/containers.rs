//! The verbs for containers.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::parse::containers::{ContainerAction, Named};
use crate::api::ApiAddress;
use crate::api::client::{Client, Form};
use crate::api::containers::{AttachBody, BridgeBody, DetachBody, EXPOSED, ExposeBody, HideBody, Row, is_meant};
use crate::docker;
use crate::host::container::{AddressSpec, INTERFACE};
use crate::wire::names::is_name;

/// Does what the verb says; answers with what is to be printed.
pub(in super::super) fn act(api: ApiAddress, action: ContainerAction) -> anyhow::Result<String> {
    let client = Client::new(api);
    match action {
        ContainerAction::Attach { container, addresses, names, multicast_route } => {
            let found = find(&container, true)?;
            let names = names.unwrap_or(found.names);
            let (netns, interface) = (found.netns.unwrap_or_default(), INTERFACE.to_string());
            let body = AttachBody { ident: found.ident, netns, interface, addresses: texts(&addresses), names, multicast_route };
            post(&client, "/attach", &body)
        }
        ContainerAction::Detach { container, addresses, all } => {
            let found = find(&container, false)?;
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
    names: Vec<String>,
}

/// Finds a container; one of Docker's must run where `running` says so.
fn find(named: &Named, running: bool) -> anyhow::Result<Found> {
    match named {
        Named::Netns(path) => {
            let path = absolute(path)?;
            Ok(Found { ident: format!("netns:{}", path.display()), netns: Some(path), names: Vec::new() })
        }
        Named::Pid(pid) => Ok(Found { ident: format!("pid:{pid}"), netns: Some(namespace_of(*pid)), names: Vec::new() }),
        Named::Docker { name, host } => {
            let found = docker::inspect(host, name)?;
            if running && found.pid.is_none() {
                anyhow::bail!("the Docker container {name} is not running; start it first");
            }
            // A name with dots would have to be in the mesh's domain, which no name of Docker's is by chance.
            // Nor can all of them be names at all: an underscore may, a name of 64 characters may not.
            let usable = |name: &String| !name.contains('.') && is_name(&name.to_ascii_lowercase());
            let names = Some(found.name).filter(usable).into_iter().collect();
            Ok(Found { ident: found.id, netns: found.pid.map(namespace_of), names })
        }
    }
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
        match known(ident) {
            true => idents.push(ident.clone()),
            false => idents.push(docker::inspect(docker_host, ident)?.id),
        }
    }
    rows.retain(|row| idents.is_empty() || idents.iter().any(|ident| is_meant(ident, &row.ident)));
    Ok(if json { serde_json::to_string_pretty(&rows)? + "\n" } else { rows.iter().map(Row::line).collect() })
}
