//! What removes the demo's routers, namespaces and files when the demo cannot do it itself.
//!
//! The guard is a second process of this program (`weave-router demo-guard PID`) that holds one end of a pipe. However the demo ends, also
//! by `kill -9`, the kernel closes the other end; then the guard removes what is left and ends too.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::lab::clock::wait_until;
use crate::host::lab::netns;

/// The name of every namespace of a demo starts with this and the process id of the demo.
pub const PREFIX: &str = "wr";

/// The verb of the guard; it is no part of the command line that people use.
const VERB: &str = "demo-guard";

/// Where the files of demos are: only root can make anything there, so that nobody waits for us under a known name.
const RUN: &str = "/run";

/// Where named namespaces are.
const NETNS: &str = "/run/netns";

/// The name of a demo's directory starts with this.
const DIR_PREFIX: &str = "weave-demo-";

/// Longest that a killed router may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// The guard of this process; dropping it lets the guard look for leftovers, and waits for it.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts the guard of this process.
    pub fn start(program: &Path) -> anyhow::Result<Guard> {
        let mut command = Command::new(program);
        command.args([VERB, &std::process::id().to_string()]);
        // A process group of its own: Ctrl-C in the terminal is for the demo alone.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let pipe = child.stdin.take();
        Ok(Guard { child, pipe })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.take());
        if let Err(error) = self.child.wait() {
            tracing::warn!("the demo's guard was lost: {error}");
        }
    }
}

/// The whole life of the guard, where the arguments are a guard's.
pub fn entry(args: &[OsString]) -> Option<ExitCode> {
    let [_, verb, pid] = args else { return None };
    if verb != VERB {
        return None;
    }
    let Some(pid) = pid.to_str().and_then(|pid| pid.parse::<u32>().ok()) else { return Some(ExitCode::FAILURE) };
    // Nothing is ever written: this returns once the demo has ended.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    remove(pid);
    Some(ExitCode::SUCCESS)
}

/// The directory of a demo, with its routers' sockets, states and logs.
pub fn directory(pid: u32) -> PathBuf {
    Path::new(RUN).join(format!("{DIR_PREFIX}{pid}"))
}

/// Makes the directory of this process's demo; it goes when this is dropped.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes it, for root alone.
    pub fn create() -> anyhow::Result<Directory> {
        let path = directory(std::process::id());
        fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("cannot make the directory {}", path.display()))?;
        Ok(Directory(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Removes what demos have left behind that were killed together with their guards; answers with their process ids.
pub fn sweep() -> Vec<u32> {
    let directories = fs::read_dir(RUN).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix(DIR_PREFIX)?.parse::<u32>().ok()
    });
    let pids: BTreeSet<u32> = directories.filter(|pid| !Path::new("/proc").join(pid.to_string()).exists()).collect();
    pids.into_iter().inspect(|pid| remove(*pid)).collect()
}

/// Kills the routers of a demo that has ended, and removes its namespaces and its directory.
fn remove(pid: u32) {
    let tag = format!("{PREFIX}{pid}");
    let own = |name: &String| name.strip_prefix(&tag).is_some_and(|rest| rest.starts_with(['-', 'x']));
    let namespaces: Vec<String> = netns::names().into_iter().filter(own).collect();
    let directory = directory(pid);
    let routers = routers(&namespaces, &directory);
    for router in &routers {
        // One that has ended in the meantime is what is wanted.
        let _ = kill(Pid::from_raw(*router), Signal::SIGKILL);
    }
    // A directory is removed for good only when nobody writes to it.
    wait_until(PATIENCE, || routers.iter().all(|router| ended(*router)));
    for namespace in namespaces {
        if let Err(error) = netns::delete(&namespace) {
            tracing::warn!("{error}");
        }
    }
    // Where it is not there, the demo has removed it itself.
    let _ = fs::remove_dir_all(&directory);
}

/// The processes in these namespaces whose command line names the directory: a user's shell in there is left alone.
fn routers(namespaces: &[String], directory: &Path) -> Vec<i32> {
    let inode = |path: PathBuf| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let wanted: BTreeSet<(u64, u64)> = namespaces.iter().filter_map(|name| inode(Path::new(NETNS).join(name))).collect();
    let marker = format!("{}/", directory.display());
    let is_router = |proc: &Path| {
        let named = fs::read(proc.join("cmdline")).is_ok_and(|words| String::from_utf8_lossy(&words).contains(&marker));
        named && inode(proc.join("ns/net")).is_some_and(|found| wanted.contains(&found))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<i32>().ok()?, entry.path())))
        .filter(|(_, proc)| is_router(proc))
        .map(|(pid, _)| pid)
        .collect()
}

/// True where a process is no more, or only waits to be reaped.
fn ended(pid: i32) -> bool {
    // A dead process has no command line.
    fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |words| words.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_verb_is_the_guards() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(entry(&words("weave-router demo")).is_none());
        assert!(entry(&words("weave-router demo --hosts")).is_none());
        assert!(entry(&words("weave-router demo-guard x")).is_some(), "a wrong process id ends it, and removes nothing");
    }

    #[test]
    fn the_living_are_no_routers_of_a_demo_that_is_not() {
        assert!(routers(&[], Path::new("/run/weave-demo-0")).is_empty());
        let own = i32::try_from(std::process::id()).expect("a process id");
        assert!(!ended(own));
    }
}
