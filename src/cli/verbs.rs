//! The verbs that ask the running router.

pub(super) mod containers;
pub(super) mod dns;
pub(super) mod ipam;
pub(super) mod revoke;

use std::path::Path;

use super::Planes;
use super::options::{StatusArgs, TraceArgs, What};
use crate::api::ApiAddress;
use crate::api::client::{Client, ClientError, Form, escape};
use crate::mesh::command::Target;
use crate::store;
pub use dns::Naming;

/// `status`: the page.
pub(super) fn status(api: ApiAddress, args: &StatusArgs) -> anyhow::Result<String> {
    let path = match args.what {
        None => "/status",
        Some(What::Connections) => "/status/connections",
        Some(What::Peers) => "/status/peers",
        Some(What::Targets) => "/status/targets",
        Some(What::Macs) => "/status/macs",
        Some(What::Routes) => "/status/routes",
        Some(What::Paths) => "/status/paths",
        Some(What::Dns) => "/status/dns",
        Some(What::Containers) => "/status/containers",
        Some(What::Expose) => "/status/expose",
        Some(What::Ipam) => "/status/ipam",
    };
    let form = if args.json { Form::Json } else { Form::Text };
    Ok(Client::new(api).get(path, form)?)
}

/// `trace`: the routers on the way.
pub(super) fn trace(api: ApiAddress, args: &TraceArgs) -> anyhow::Result<String> {
    let form = if args.json { Form::Json } else { Form::Text };
    Ok(Client::new(api).get(&format!("/trace/{}", escape(&args.peer)), form)?)
}

/// `report`: the whole state as JSON.
pub(super) fn report(api: ApiAddress) -> anyhow::Result<String> {
    Ok(Client::new(api).get("/report", Form::Json)?)
}

/// `connect`; silent where it worked.
pub(super) fn connect(api: ApiAddress, hosts: &[Target]) -> anyhow::Result<String> {
    Client::new(api).post("/connect", hosts.iter().map(ToString::to_string).collect())?;
    Ok(String::new())
}

/// `forget`; silent where it worked.
pub(super) fn forget(api: ApiAddress, hosts: &[Target]) -> anyhow::Result<String> {
    Client::new(api).post("/forget", hosts.iter().map(ToString::to_string).collect())?;
    Ok(String::new())
}

/// `show-key`: of the running router, else of the state directory.
pub(super) fn show_key(api: ApiAddress, state_dir: &Path, planes: &Planes) -> anyhow::Result<String> {
    let unreachable = match Client::new(api).get("/key", Form::Text) {
        Ok(key) => return Ok(key),
        Err(e @ ClientError::Unreachable { .. }) => e,
        Err(e) => return Err(e.into()),
    };
    match store::read_seed(state_dir)? {
        Some(seed) => Ok(format!("{}\n", (planes.public_key)(&seed)?)),
        None => anyhow::bail!("{unreachable}; and no router has made a key in {} yet", state_dir.display()),
    }
}

/// `version`: of this program, and of the router where one runs.
pub(super) fn version(api: ApiAddress) -> String {
    let running = Client::new(api)
        .get("/status", Form::Json)
        .ok()
        .and_then(|json| serde_json::from_str::<serde_json::Value>(&json).ok())
        .and_then(|status| status.get("version").and_then(|v| v.as_str()).map(ToString::to_string));
    let own = env!("CARGO_PKG_VERSION");
    match running {
        Some(running) => format!("weave-router {own}\nrunning router: {running}\n"),
        None => format!("weave-router {own}\nrunning router: none\n"),
    }
}
