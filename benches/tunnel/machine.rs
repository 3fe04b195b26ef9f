//! What the figures depend on.

use std::collections::BTreeMap;
use std::fs;

use weave_router::host::lab::{Lab, cores, in_namespace};

use crate::rig::{Outcome, PREFIX};

/// The properties of this machine that make figures what they are.
pub fn describe(pin: bool) -> Outcome<BTreeMap<String, String>> {
    let mut lab = Lab::new(PREFIX)?;
    let namespace = lab.host("m")?;
    // What a container gets, which need not be what the machine itself has.
    let control = in_namespace(&namespace, || fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control"))??;
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map_or("unknown", |(_, name)| name.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let hosts = if pin && cores::available() > 1 { "each host keeps to one core" } else { "hosts float between cores" };
    Ok([
        ("cpu", model.to_string()),
        ("cores", cores::available().to_string()),
        ("kernel", kernel.trim().to_string()),
        ("congestion control", control.trim().to_string()),
        ("hosts", hosts.to_string()),
        ("weave-router", env!("CARGO_PKG_VERSION").to_string()),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .into())
}

/// The same in one line.
pub fn sentence(machine: &BTreeMap<String, String>) -> String {
    let get = |name: &str| machine.get(name).map_or("?", String::as_str);
    format!(
        "{}, {} cores, Linux {}, TCP congestion control {}; {}",
        get("cpu"),
        get("cores"),
        get("kernel"),
        get("congestion control"),
        get("hosts")
    )
}
