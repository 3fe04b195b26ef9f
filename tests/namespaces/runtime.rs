//! The running router and its clients: connect, forget, status, report, keys, pages, and what is on disk.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use serde_json::Value;
use weave_router::host::lab::{Lab, Plug, Router, in_namespace};

use crate::common::{router, wait_until};
use crate::scene::{PASSWORD, PATIENCE, Setting, connected_pair, connections, container, links, reaches, rows, scene};

/// Runs a client that must exit with this status; answers with what it printed on either channel.
#[track_caller]
fn client(router: &Router, words: &[&str], status: i32) -> String {
    let Output { status: ended, stdout, stderr } = router.client(words).expect("the client runs");
    let (said, printed) = (String::from_utf8_lossy(&stderr).into_owned(), String::from_utf8_lossy(&stdout).into_owned());
    assert_eq!(ended.code(), Some(status), "{words:?}: {said}{printed}");
    if status == 0 { printed } else { said }
}

/// Two hosts that know nothing of each other yet.
fn strangers(lab: &mut Lab) -> (Router, Router) {
    for host in ["h1", "h2"] {
        lab.host(host).expect("a host");
    }
    lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
    let routers = (router(lab, "h1", PASSWORD), router(lab, "h2", PASSWORD));
    container(lab, "h1", "c1", 1, &Plug::default());
    container(lab, "h2", "c2", 2, &Plug::default());
    routers
}

fn targets(router: &Router) -> Vec<String> {
    rows(router, "targets").iter().filter_map(|row| row["target"].as_str().map(String::from)).collect()
}

#[test]
fn peers_added_at_runtime_are_remembered_over_a_restart() {
    scene(|lab| {
        let (first, mut second) = strangers(lab);
        assert!(rows(&second, "connections").is_empty() && targets(&second).is_empty());
        for _ in 0..2 {
            assert_eq!(client(&second, &["connect", "10.9.1.1"], 0), "", "saying it twice is fine");
        }
        links(&first, 1);
        reaches(lab, "c1", "10.32.0.2".parse().expect("an address"));
        assert_eq!(targets(&second), ["10.9.1.1"]);
        let remembered = second.state_dir().join("peers.json");
        assert!(std::fs::read_to_string(&remembered).expect("a file").contains("10.9.1.1"));
        for file in ["peers.json", "identity"] {
            let mode = std::fs::metadata(second.state_dir().join(file)).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let socket = std::fs::metadata(second.api().trim_start_matches("unix:")).expect("a socket").permissions().mode();
        assert_eq!(socket & 0o077, 0, "only its owner commands the router");
        let key = client(&second, &["show-key"], 0);
        second.stop().expect("stopped");
        wait_until(PATIENCE, "the link is gone", || connections(&first, "established").is_empty());
        second.restart().expect("started");
        links(&second, 1);
        assert_eq!(client(&second, &["show-key"], 0), key, "it is the same router");
        for _ in 0..2 {
            client(&second, &["forget", "10.9.1.1"], 0);
        }
        assert!(targets(&second).is_empty());
        links(&second, 1);
        second.process().kill().expect("killed");
        second.restart().expect("started");
        assert!(targets(&second).is_empty(), "forgotten is forgotten");
    });
}

#[test]
fn clients_exit_as_promised() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        let (r1, mut r2) = (pair.r1, pair.r2);
        client(&r1, &["forget", "never.heard.of"], 0);
        client(&r1, &["connect", "a:b:c"], 2);
        client(&r1, &["connect"], 2);
        client(&r1, &["status", "nonsense"], 2);
        let version = client(&r1, &["version"], 0);
        assert!(version.lines().count() == 2 && version.matches(env!("CARGO_PKG_VERSION")).count() == 2, "{version}");
        let report: Value = serde_json::from_str(&client(&r1, &["report"], 0)).expect("JSON");
        for part in ["status", "connections", "peers", "targets", "macs", "routes", "counters"] {
            assert!(report.get(part).is_some(), "{part}");
        }
        let key = client(&r2, &["show-key"], 0);
        r2.stop().expect("stopped");
        let said = client(&r2, &["status"], 1);
        assert!(said.starts_with("weave-router: no router is reachable") && said.lines().count() == 1, "{said}");
        client(&r2, &["connect", "10.9.1.1"], 1);
        assert!(client(&r2, &["version"], 0).contains("running router: none"));
        let state = r2.state_dir();
        let stopped = ["show-key", "--state-dir", state.to_str().expect("the name is UTF-8")];
        assert_eq!(client(&r2, &stopped, 0), key, "the key of a stopped router is read from its state");
    });
}

#[test]
fn a_host_that_is_not_there_is_tried_and_shown() {
    scene(|lab| {
        let (_first, second) = strangers(lab);
        client(&second, &["connect", "10.9.1.99", "no-such-host.invalid"], 0);
        for name in ["10.9.1.99", "no-such-host.invalid"] {
            wait_until(PATIENCE, &format!("{name} is shown as retrying, and why"), || {
                rows(&second, "targets").iter().any(|row| row["target"] == name && row["state"] == "retrying" && row["error"].is_string())
            });
        }
        assert!(rows(&second, "targets").iter().all(|row| row["retry_in_ms"].as_u64().is_none_or(|ms| ms < 120_000)));
    });
}

/// A page of the status address, with its head.
fn page(lab: &Lab, host: &str, address: &str, request: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    in_namespace(&lab.namespace(host), ask).expect("a namespace").expect("an answer")
}

#[test]
fn status_pages_and_metrics() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting { first: &["--status-addr", "127.0.0.1:7001"], ..Setting::default() });
        let status = page(lab, "h1", "127.0.0.1:7001", "GET /status");
        assert!(status.starts_with("HTTP/1.1 200") && status.contains("(h1)"), "{status}");
        assert!(page(lab, "h1", "127.0.0.1:7001", "GET /status/connections").contains("h2"));
        assert!(page(lab, "h1", "127.0.0.1:7001", "POST /connect").starts_with("HTTP/1.1 404"), "the pages are read-only");
        wait_until(PATIENCE, "the round trip is measured", || {
            page(lab, "h2", "127.0.0.1:6782", "GET /metrics").contains("weave_peer_rtt_seconds{")
        });
        let metrics = page(lab, "h2", "127.0.0.1:6782", "GET /metrics");
        for series in ["weave_peer_tx_bytes_total{", "weave_peer_rx_frames_total{", "weave_drops_total{", "weave_connections{"] {
            assert!(metrics.contains(series), "{series}: {metrics}");
        }
        let sent = metrics.lines().find(|line| line.starts_with("weave_peer_tx_bytes_total{")).and_then(|line| line.rsplit(' ').next());
        assert!(sent.and_then(|n| n.parse::<f64>().ok()).is_some_and(|n| n > 0.0), "{metrics}");
        assert_eq!(pair.c1.host, "h1");
    });
}

#[test]
fn the_api_on_loopback_and_no_status_pages() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let first = router(lab, "h1", &["--status-addr", ""]);
        let refused = in_namespace(&lab.namespace("h1"), || TcpStream::connect("127.0.0.1:6782")).expect("a namespace");
        assert!(refused.is_err(), "an empty address is off");
        drop(first);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weave-router"));
        let state = std::env::temp_dir().join(format!("weave-lab-{}", lab.namespace("tcp")));
        command.args(["--api", "127.0.0.1:6790", "--log-format", "json"]).arg("--state-dir").arg(&state);
        command.stderr(std::process::Stdio::piped());
        let mut running = lab.spawn("h1", &mut command).expect("started");
        let binary = env!("CARGO_BIN_EXE_weave-router");
        let asked = || lab.exec("h1", binary, &["status", "--api", "127.0.0.1:6790"]).expect("it runs").status.success();
        wait_until(PATIENCE, "the API answers over TCP", asked);
        assert!(running.stop(PATIENCE).expect("stopped").is_some_and(|status| status.success()));
        let mut log = String::new();
        running.child().stderr.take().expect("a pipe").read_to_string(&mut log).expect("a log");
        std::fs::remove_dir_all(state).expect("removed");
        assert!(!log.is_empty() && log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "one JSON object a line: {log}");
    });
}
