//! The demo, as the built program runs it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weave_router::host::HostError;
use weave_router::host::lab::{Lab, clock};

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_weave-router");

/// A user that is nobody.
const NOBODY: u32 = 65_534;

/// The turn of all tests here, until this process ends: whatever else measures on this machine waits. `None` without root, where a demo
/// cannot run; in continuous integration that fails, since there a skipped test is a hole.
#[expect(clippy::disallowed_methods, reason = "a test asks whether it runs in continuous integration")]
fn turn() -> bool {
    static TURN: OnceLock<Option<Lab>> = OnceLock::new();
    let take = || match Lab::exclusive("wrt") {
        Ok(lab) => Some(lab),
        Err(HostError::Permission { attempted }) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: root is needed to {attempted}");
            None
        }
        Err(error) => panic!("{error}"),
    };
    TURN.get_or_init(take).is_some()
}

/// Every demo looks for what dead ones have left: those that look for it themselves run alone, the others side by side, since most of a demo is pauses.
static DEMOS: RwLock<()> = RwLock::new(());

/// The turn of a test beside others.
fn beside_others() -> Option<RwLockReadGuard<'static, ()>> {
    turn().then(|| DEMOS.read().unwrap_or_else(PoisonError::into_inner))
}

/// The turn of a test for which no other demo may start or end meanwhile.
fn alone() -> Option<RwLockWriteGuard<'static, ()>> {
    turn().then(|| DEMOS.write().unwrap_or_else(PoisonError::into_inner))
}

/// A running demo, ended with the test that started it.
struct Demo {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        let mut command = Command::new(PROGRAM);
        command.arg("demo").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Demo { child, output }
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads its output until a line that starts with a word.
    fn read_until(&mut self, word: &str) {
        let mut line = String::new();
        while !line.trim_start().starts_with(word) {
            line.clear();
            assert!(self.output.read_line(&mut line).expect("text") > 0, "the demo ended before '{word}'");
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.id()).expect("a process id")), signal).expect("the demo runs");
    }

    /// Waits for its end; answers with its status and with what it printed since.
    fn end(&mut self) -> (ExitStatus, String, String) {
        let (mut output, mut errors) = (String::new(), String::new());
        self.output.read_to_string(&mut output).expect("text");
        self.child.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("text");
        (self.child.wait().expect("a status"), output, errors)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::SIGTERM);
            drop(self.child.wait());
        }
    }
}

/// Runs a demo to its end.
fn run(arguments: &[&str]) -> (u32, String) {
    let mut demo = Demo::start(arguments);
    let (status, output, errors) = demo.end();
    assert!(status.success(), "{status}\n{output}\n{errors}");
    assert_eq!(errors, "", "it works, so it has nothing to complain of");
    (demo.id(), output)
}

/// What a demo left behind: namespaces, files and processes.
fn leftovers(pid: u32) -> Vec<String> {
    let (tag, directory) = (format!("wr{pid}-"), format!("/run/weave-demo-{pid}"));
    let names = |path: &str| -> Vec<String> {
        fs::read_dir(path).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let mut left: Vec<String> = names("/run/netns").into_iter().filter(|name| name.starts_with(&tag)).collect();
    left.extend(Path::new(&directory).exists().then_some(directory.clone()));
    for process in names("/proc").iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) {
        let words = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(&directory) || words.contains(&format!("demo-guard {pid} ")) {
            left.push(format!("process {process}: {words}"));
        }
    }
    left
}

/// The rows of the table of pairs: from, to, milliseconds, path.
fn pairs(output: &str) -> Vec<(String, String, f64, String)> {
    let table = output.split("Who reaches whom").nth(1).expect("the table of pairs");
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let (from, to) = (words.next()?, words.next()?);
        let (time, unit) = (words.next()?.parse::<f64>().ok()?, words.next()?);
        (unit == "ms").then(|| (from.to_string(), to.to_string(), time, words.collect::<Vec<_>>().join(" ")))
    };
    table.split("\n\n").next().expect("a section").lines().filter_map(row).collect()
}

/// The number in front of a unit.
fn figures(output: &str, unit: &str) -> Vec<f64> {
    let words: Vec<&str> = output.split_whitespace().collect();
    words.windows(2).filter(|pair| pair[1].trim_end_matches(';') == unit).filter_map(|pair| pair[0].parse().ok()).collect()
}

#[test]
fn a_line_of_three_is_shown_from_building_to_recovery() {
    let Some(_turn) = beside_others() else { return };
    let (pid, output) = run(&["--seconds", "1"]);
    let pairs = pairs(&output);
    let reached: Vec<(&str, &str)> = pairs.iter().map(|(from, to, _, _)| (from.as_str(), to.as_str())).collect();
    assert_eq!(reached, [("c1", "c2"), ("c1", "c3"), ("c2", "c1"), ("c2", "c3"), ("c3", "c1"), ("c3", "c2")], "{output}");
    for (from, to, time, path) in &pairs {
        let relayed = from != "c2" && to != "c2";
        assert_eq!(path, if relayed { "via h2" } else { "direct" }, "{from} to {to}\n{output}");
        assert!(*time > 0.0 && *time < 250.0, "{output}");
    }
    assert!(output.contains("sealed with aes256gcm") || output.contains("sealed with chacha20poly1305"), "{output}");
    let throughputs = figures(&output, "Gbit/s");
    assert!(throughputs.len() == 3 && throughputs.iter().all(|figure| *figure > 0.01), "{output}");
    let cut = output.split("The same wire is cut").nth(1).expect("the last act");
    assert!(cut.contains("c1 to c3 via h2"), "{output}");
    let interrupted = cut.split("interrupted for ").nth(1).and_then(|text| text.split(' ').next()?.parse::<u32>().ok());
    assert!(interrupted.is_some_and(|ms| (1..5000).contains(&ms)), "{output}");
    assert!(output.contains(&format!("ip netns exec wr{pid}-c1 ping 10.32.0.3")), "{output}");
    assert_eq!(leftovers(pid), [""; 0]);
}

#[test]
fn a_star_relays_through_its_middle() {
    let Some(_turn) = beside_others() else { return };
    let (pid, output) = run(&["--topology", "star", "--hosts", "4", "--seconds", "0"]);
    let pairs = pairs(&output);
    assert_eq!(pairs.len(), 12, "{output}");
    for (from, to, _, path) in &pairs {
        let relayed = from != "c1" && to != "c1";
        assert_eq!(path, if relayed { "via h1" } else { "direct" }, "{from} to {to}\n{output}");
    }
    assert_eq!(leftovers(pid), [""; 0]);
}

#[test]
fn a_ring_and_a_full_mesh_are_shown() {
    let Some(_turn) = beside_others() else { return };
    for (topology, hosts, relayed) in [("ring", 4, 4), ("full", 3, 0)] {
        let (pid, output) = run(&["--topology", topology, "--hosts", &hosts.to_string(), "--seconds", "0"]);
        let pairs = pairs(&output);
        assert_eq!(pairs.len(), hosts * (hosts - 1), "{output}");
        assert_eq!(pairs.iter().filter(|(_, _, _, path)| path.starts_with("via ")).count(), relayed, "{output}");
        assert_eq!(leftovers(pid), [""; 0]);
    }
}

#[test]
fn a_pair_that_fails_fails_the_demo() {
    let Some(_turn) = beside_others() else { return };
    let mut demo = Demo::start(&[]);
    demo.read_until("mesh");
    let down = Command::new("ip").args(["-n", &format!("wr{}-c3", demo.id()), "link", "set", "ethwe", "down"]).status();
    assert!(down.expect("ip is installed").success());
    let (status, _, errors) = demo.end();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.lines().last().is_some_and(|line| line.starts_with("weave-router: ") && line.contains("c3")), "{errors}");
    assert_eq!(leftovers(demo.id()), [""; 0]);
}

#[test]
fn the_next_demo_removes_what_one_left_that_was_killed_with_its_guard() {
    let Some(_turn) = alone() else { return };
    let mut demo = Demo::start(&[]);
    demo.read_until("mesh");
    let word = format!("demo-guard {} ", demo.id());
    let guard = leftovers(demo.id()).into_iter().find(|left| left.contains(&word)).expect("the guard");
    let guard: i32 = guard.split([' ', ':']).nth(1).and_then(|pid| pid.parse().ok()).expect("a process id");
    kill(Pid::from_raw(guard), Signal::SIGKILL).expect("the guard runs");
    demo.signal(Signal::SIGKILL);
    let first = demo.id();
    demo.end();
    assert_ne!(leftovers(first), [""; 0], "nobody removed it");
    let (second, _) = run(&["--hosts", "2", "--seconds", "0"]);
    assert_eq!(leftovers(first), [""; 0]);
    assert_eq!(leftovers(second), [""; 0]);
}

#[test]
fn an_interrupted_demo_cleans_up() {
    let Some(_turn) = beside_others() else { return };
    for (signal, word) in [(Signal::SIGINT, "wires"), (Signal::SIGTERM, "mesh"), (Signal::SIGINT, "A new wire")] {
        let mut demo = Demo::start(&[]);
        demo.read_until(word);
        demo.signal(signal);
        let (status, _, errors) = demo.end();
        assert_eq!(status.code(), Some(1), "{signal} at '{word}': {errors}");
        assert!(errors.contains("interrupted") && errors.lines().count() == 1, "{signal} at '{word}': {errors}");
        assert_eq!(leftovers(demo.id()), [""; 0], "{signal} at '{word}'");
    }
}

#[test]
fn a_demo_that_is_told_to_end_when_all_is_shown_has_not_failed() {
    let Some(_turn) = beside_others() else { return };
    let mut demo = Demo::start(&["--hosts", "2"]);
    demo.read_until("Ctrl-C ends");
    assert_ne!(leftovers(demo.id()), [""; 0], "what is looked for is there while it runs");
    demo.signal(Signal::SIGINT);
    let (status, _, errors) = demo.end();
    assert!(status.success(), "{status} {errors}");
    assert_eq!(leftovers(demo.id()), [""; 0]);
}

#[test]
fn the_guard_removes_what_a_killed_demo_left() {
    let Some(_turn) = alone() else { return };
    let mut demo = Demo::start(&[]);
    demo.read_until("mesh");
    assert_ne!(leftovers(demo.id()), [""; 0], "what is looked for is there while it runs");
    demo.signal(Signal::SIGKILL);
    clock::wait_until(Duration::from_secs(10), || leftovers(demo.id()).is_empty());
    assert_eq!(leftovers(demo.id()), [""; 0]);
}

#[test]
fn a_router_that_dies_fails_the_demo_with_its_log() {
    let Some(_turn) = beside_others() else { return };
    let mut demo = Demo::start(&[]);
    demo.read_until("A new wire");
    let sock = format!("/run/weave-demo-{}/h3.sock", demo.id());
    let victim = leftovers(demo.id()).into_iter().find(|left| left.contains(&sock)).expect("the router on h3");
    let victim: i32 = victim.split([' ', ':']).nth(1).and_then(|pid| pid.parse().ok()).expect("a process id");
    kill(Pid::from_raw(victim), Signal::SIGKILL).expect("the router runs");
    let (status, _, errors) = demo.end();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("The last lines of the log of the router on h3") && errors.contains("is up"), "{errors}");
    assert!(
        errors.lines().last().is_some_and(|line| line.starts_with("weave-router: ") && line.contains("router on h3 has ended")),
        "{errors}"
    );
    assert_eq!(leftovers(demo.id()), [""; 0]);
}

#[test]
fn without_root_it_says_what_is_missing() {
    // Nobody may look into the folder of the build.
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its permissions");
    let program = folder.path().join("weave-router");
    // By another process: what this one writes is inherited by programs that other tests start meanwhile, and then "text file busy".
    assert!(Command::new("cp").arg(PROGRAM).arg(&program).status().expect("cp is installed").success());
    let mut command = Command::new(&program);
    command.arg("demo").stdin(Stdio::null());
    if turn() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().expect("the program starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert!(errors.lines().count() == 1 && errors.contains("needs root") && errors.contains("sudo weave-router demo"), "{errors}");
    assert!(output.stdout.is_empty(), "it builds nothing");
}
