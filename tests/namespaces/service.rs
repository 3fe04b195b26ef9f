//! A router that may do no more than the systemd unit lets it.

use std::fs::{Permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use weave_router::host::lab::Router;
use weave_router::host::service::systemd_unit;

use crate::attach::{ask, container};
use crate::scene::{PASSWORD, scene};

/// The unit's capabilities as `setpriv` takes them.
fn capabilities(setting: &str) -> String {
    let unit = systemd_unit("/usr/bin/weave-router", &[]);
    let names = unit.lines().find_map(|line| line.strip_prefix(setting)?.strip_prefix('=')).expect("the unit says so");
    let plus: String = names.split(' ').map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase())).collect();
    format!("-all{plus}")
}

#[test]
fn attach_works_with_the_capabilities_of_the_unit() {
    if Command::new("setpriv").arg("--version").output().is_err() {
        eprintln!("skipped: setpriv of util-linux is needed");
        return;
    }
    assert_eq!(capabilities("CapabilityBoundingSet"), capabilities("AmbientCapabilities"));
    let dir = tempfile::tempdir().expect("a directory");
    let wrapper = dir.path().join("weave-router");
    let (set, binary) = (capabilities("CapabilityBoundingSet"), env!("CARGO_BIN_EXE_weave-router"));
    let script = format!("#!/bin/sh\nexec setpriv --bounding-set={set} --inh-caps={set} --no-new-privs '{binary}' \"$@\"\n");
    write(&wrapper, script).expect("written");
    std::fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).expect("executable");
    scene(|lab| {
        lab.host("h1").expect("a host");
        let options = [PASSWORD, &["--isolate"]].concat();
        let router = Router::up(lab, "h1", &wrapper, &options).unwrap_or_else(|error| panic!("{error}"));
        let (c1, _) = (container(lab, "c1"), container(lab, "c2"));
        ask(&router, &format!("attach ip:10.2.1.1/24 --hostname web --netns {c1}"));
        // The process of a container seldom is root's.
        let mut sleep = Command::new("setpriv");
        let mut sleeper = lab.spawn("c2", sleep.args(["--reuid=65534", "--clear-groups", "sleep", "60"])).expect("a process");
        crate::common::wait_until(crate::scene::PATIENCE, "it is another user's", || {
            std::fs::read_to_string(format!("/proc/{}/status", sleeper.id())).is_ok_and(|text| text.contains("\nUid:\t65534\t"))
        });
        ask(&router, &format!("attach ip:10.2.1.2/24 --pid {}", sleeper.id()));
        crate::scene::reaches(lab, "c1", crate::attach::address("10.2.1.2"));
        assert!(!ask(&router, "status dns").contains("Not on"), "the name server has its port: {}", ask(&router, "status dns"));
        sleeper.kill().expect("killed");
    });
}
