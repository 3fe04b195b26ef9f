//! The built binary: environment variables, exit statuses, and what goes to stdout and stderr.

use std::process::{Command, Output};

fn weave() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weave-router"));
    command.env_clear();
    command
}

fn run(args: &[&str]) -> Output {
    weave().args(args).output().expect("the binary runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One sentence on stderr, nothing on stdout.
fn assert_sentence(output: &Output, status: i32, word: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(said.starts_with("weave-router: ") && said.contains(word), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn help_and_version_are_results() {
    for args in [&["--help"][..], &["-h"], &["help"], &["run", "--help"], &["status", "--help"], &["--version"], &["run", "--version"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
    for args in [&["--version"][..], &["-V"], &["launch", "--version"], &["status", "--version"]] {
        assert_eq!(stdout(&run(args)), format!("weave-router {}\n", env!("CARGO_PKG_VERSION")), "{args:?}");
    }
}

#[test]
fn help_gives_variable_default_and_unit() {
    for args in [&["--help"][..], &["run", "--help"]] {
        let help = stdout(&run(args));
        for variable in ["PEER", "PORT", "BIND", "BRIDGE", "TAP", "MTU", "NETWORK", "NICKNAME", "STATE_DIR", "API", "STATUS_ADDR"] {
            assert!(help.contains(&format!("[env: WEAVE_{variable}")), "{variable}");
        }
        for variable in ["PASSWORD_FILE", "PASSWORD", "ALLOW", "OPEN", "CIPHER", "NO_ENCRYPTION", "CONN_LIMIT", "NO_DISCOVERY", "OFFLOAD"] {
            assert!(help.contains(&format!("[env: WEAVE_{variable}")), "{variable}");
        }
        for text in ["[default: 6783]", "[default: 16]", "<BYTES>", "in bytes", "<UDP PORT>", "<LINKS>", "[default: 127.0.0.1:6782]"] {
            assert!(help.contains(text), "{text}");
        }
    }
}

#[test]
fn a_password_is_not_shown_in_help() {
    let output = weave().env("WEAVE_PASSWORD", "hunter2").arg("--help").output().expect("the binary runs");
    assert!(!stdout(&output).contains("hunter2"));
}

#[test]
fn wrong_command_lines_exit_2() {
    for args in
        [&["bogus"][..], &["--peer"], &["--mtu", "1"], &["status", "bogus"], &["--peer", "x", "status"], &["connect"], &["run", "--bogus"]]
    {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    assert_sentence(&run(&["run", "a:b:c"]), 2, "is not a peer");
    assert_sentence(&run(&["--tap", "weave"]), 2, "different names");
    assert_sentence(&run(&["192.168.7.235"]), 2, "--peer");
}

#[test]
fn variables_are_read_and_give_way_to_the_command_line() {
    let refused = |name: &str, value: &str, word: &str| {
        let output = weave().env(name, value).arg("run").output().expect("the binary runs");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{name}={value}: {said}");
        assert!(said.contains(word), "{name}={value}: {said}");
    };
    refused("WEAVE_PEER", "a, b:c:d", "'b:c:d' is not a peer");
    refused("WEAVE_PORT", "0", "--port");
    refused("WEAVE_BIND", "10.0.0.1 eth0", "--bind eth0");
    refused("WEAVE_BRIDGE", "a/b", "--bridge");
    refused("WEAVE_TAP", "weave", "--tap");
    refused("WEAVE_MTU", "12", "--mtu");
    refused("WEAVE_NETWORK", "", "--network");
    refused("WEAVE_NICKNAME", "", "--nickname");
    refused("WEAVE_API", "10.0.0.1:1", "loopback");
    refused("WEAVE_STATUS_ADDR", "x", "--status-addr");
    refused("WEAVE_PASSWORD", "", "is empty");
    refused("WEAVE_ALLOW", "00,11", "--allow 00");
    refused("WEAVE_OPEN", "maybe", "--open");
    refused("WEAVE_CIPHER", "des", "--cipher");
    refused("WEAVE_NO_ENCRYPTION", "maybe", "--no-encryption");
    refused("WEAVE_CONN_LIMIT", "0", "--conn-limit");
    refused("WEAVE_NO_DISCOVERY", "maybe", "--no-discovery");
    refused("WEAVE_OFFLOAD", "some", "--offload");
    refused("WEAVE_BUSY_POLL", "some", "--busy-poll");
    refused("WEAVE_LOG_LEVEL", "loud", "--log-level");
    refused("WEAVE_LOG_FORMAT", "xml", "--log-format");
    let files = weave().env("WEAVE_PASSWORD_FILE", "/nonexistent/a,/nonexistent/b").output().expect("the binary runs");
    assert_sentence(&files, 1, "cannot read the password file /nonexistent/a:");
    let output = weave().env("WEAVE_API", "/nonexistent/a").args(["status", "--api", "/nonexistent/b"]).output().expect("the binary runs");
    assert_sentence(&output, 1, "unix:/nonexistent/b");
    let output = weave().env("WEAVE_API", "/nonexistent/a").arg("status").output().expect("the binary runs");
    assert_sentence(&output, 1, "unix:/nonexistent/a");
}

#[test]
fn variables_of_run_do_not_disturb_other_verbs() {
    let output = weave().env("WEAVE_MTU", "bogus").env("WEAVE_API", "/nonexistent").arg("version").output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), format!("weave-router {}\nrunning router: none\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn no_router_is_one_sentence_and_exit_1() {
    for verb in [&["status"][..], &["status", "macs", "--json"], &["report"], &["connect", "h2"], &["forget", "h2"]] {
        let output = run(&[&["--api", "unix:/nonexistent/api.sock"], verb].concat());
        assert_sentence(&output, 1, "no router is reachable at unix:/nonexistent/api.sock");
        assert!(stderr(&output).contains("start it with"));
    }
    let output = run(&["show-key", "--api", "/nonexistent/api.sock", "--state-dir", "/nonexistent/state"]);
    assert_sentence(&output, 1, "no router has made a key in /nonexistent/state yet");
}
