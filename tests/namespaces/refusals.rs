//! Starts that cannot work: one clear sentence, exit 1, nothing left behind.

use std::net::UdpSocket;
use std::process::{Command, Output};

use weave_router::host::lab::{BRIDGE, Lab, in_namespace};

use crate::common::router;
use crate::scene::{ip, links, reaches, run, scene};

/// A directory of a test, which goes with the test.
struct Place(std::path::PathBuf);

impl Place {
    fn new(lab: &Lab) -> Place {
        let place = Place(std::env::temp_dir().join(format!("weave-place-{}", lab.namespace("x"))));
        std::fs::create_dir_all(&place.0).expect("made");
        place
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("the name is UTF-8").to_string()
    }

    /// Names that look like a socket of the API, finished or not.
    fn sockets(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("the directory is there").flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.contains("api")).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        assert!(std::fs::remove_dir_all(&self.0).is_ok() || std::thread::panicking(), "the directory was there");
    }
}

/// Runs the router behind other words, as `setpriv … --`, until it ends or five seconds are over.
fn start(lab: &Lab, place: &Place, wrapper: &[&str], arguments: &[&str]) -> Output {
    let mut words = vec!["timeout", "-s", "KILL", "5"];
    words.extend(wrapper);
    words.push(env!("CARGO_BIN_EXE_weave-router"));
    let (state, api) = (place.at("state"), format!("unix:{}", place.at("api.sock")));
    words.push("run");
    for (option, value) in [("--api", &api), ("--state-dir", &state)] {
        if !arguments.contains(&option) {
            words.extend([option, value]);
        }
    }
    words.extend(arguments);
    let (program, arguments) = words.split_first().expect("there are words");
    lab.exec("h1", program, arguments).expect("it runs")
}

/// One sentence that names these words, exit 1, and no interface or socket that was not there before.
#[track_caller]
fn assert_refused(lab: &Lab, place: &Place, before: &str, output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("weave-router: ")).count(), 1, "{said}");
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(said.contains(word), "'{word}' in: {said}");
    }
    assert!(output.stdout.is_empty());
    assert_eq!(state_of(lab), before, "nothing on the host changed: {said}");
    let left = place.sockets();
    assert!(left.is_empty(), "no socket is left: {left:?}: {said}");
}

/// The interfaces of the host with their MTU and flags, and what its firewall holds.
fn state_of(lab: &Lab) -> String {
    let all = ip(lab, "h1", "-o link");
    let told = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mtu = words.iter().skip_while(|word| **word != "mtu").nth(1).copied().unwrap_or_default();
        // A carrier comes and goes by itself.
        let up = words.get(2).is_some_and(|flags| flags.split(['<', ',', '>']).any(|flag| flag == "UP"));
        format!("{} mtu {mtu} up {up}", words.get(1).copied().unwrap_or_default())
    };
    let mut state: Vec<String> = all.lines().map(told).collect();
    state.extend(["iptables", "ip6tables"].map(|tool| run(lab, "h1", tool, "-S")));
    state.join("\n")
}

/// A host, prepared; then a start that must fail with these words.
fn refused(prepare: impl FnOnce(&Lab), wrapper: &[&str], arguments: &[&str], words: &[&str]) {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let place = Place::new(lab);
        prepare(lab);
        let before = state_of(lab);
        let output = start(lab, &place, wrapper, arguments);
        assert_refused(lab, &place, &before, &output, words);
    });
}

#[test]
fn no_tun_device() {
    let hidden = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /dev/net && exec \"$@\"", "sh"];
    refused(|_| (), &hidden, &[], &["/dev/net/tun"]);
}

#[test]
fn no_privilege() {
    refused(|_| (), &["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--"], &[], &["CAP_NET_ADMIN"]);
}

#[test]
fn a_port_in_use() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let place = Place::new(lab);
        let taken = in_namespace(&lab.namespace("h1"), || UdpSocket::bind("0.0.0.0:6783")).expect("a namespace").expect("a socket");
        let before = state_of(lab);
        let output = start(lab, &place, &[], &[]);
        assert_refused(lab, &place, &before, &output, &["port 6783", "in use", "--port"]);
        drop(taken);
    });
}

#[test]
fn a_bridge_name_that_is_taken() {
    refused(|lab| drop(ip(lab, "h1", "link add weave type veth peer name other")), &[], &[], &["weave", "veth", "--bridge"]);
}

#[test]
fn a_tap_name_that_is_taken() {
    refused(|lab| drop(ip(lab, "h1", "link add weave-tap type veth peer name other")), &[], &[], &["weave-tap"]);
    refused(|lab| drop(ip(lab, "h1", "tuntap add dev weave-tap mode tun")), &[], &[], &["weave-tap"]);
}

#[test]
fn an_adopted_bridge_stays_when_the_start_fails() {
    let prepare = |lab: &Lab| {
        lab.bridge("h1", BRIDGE, None).expect("a bridge");
        ip(lab, "h1", "link add weave-tap type veth peer name other");
    };
    refused(prepare, &[], &[], &["weave-tap"]);
}

#[test]
fn a_state_directory_that_is_none() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let place = Place::new(lab);
        let file = place.at("file");
        std::fs::write(&file, "no directory").expect("written");
        let before = state_of(lab);
        for path in [file.clone(), format!("{file}/below"), "/proc/weave-router".to_string()] {
            let output = start(lab, &place, &[], &["--state-dir", &path]);
            assert_refused(lab, &place, &before, &output, &["state directory", &path]);
        }
    });
}

#[test]
fn a_full_disk_and_a_damaged_state() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let place = Place::new(lab);
        let before = state_of(lab);
        let state = place.at("state");
        std::fs::create_dir(&state).expect("made");
        let full = format!("mount -t tmpfs -o size=4k none {state} && head -c 8192 /dev/zero > {state}/ballast; exec \"$@\"");
        let output = start(lab, &place, &["unshare", "-m", "sh", "-c", &full, "sh"], &[]);
        let said = String::from_utf8_lossy(&output.stderr).replace("head: ", "");
        assert!(said.contains("No space left"), "{said}");
        assert_refused(lab, &place, &before, &output, &["make room", &state]);
        std::fs::write(format!("{state}/identity"), "short").expect("written");
        let output = start(lab, &place, &[], &[]);
        assert_refused(lab, &place, &before, &output, &["identity is damaged"]);
    });
}

#[test]
fn a_second_instance() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        lab.host("h2").expect("a host");
        lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
        let first = router(lab, "h1", &[]);
        let second = router(lab, "h2", &["--peer", "10.9.1.1"]);
        links(&first, 1);
        let place = Place::new(lab);
        let before = state_of(lab);
        let state = first.state_dir();
        let state = state.to_str().expect("the name is UTF-8");
        let output = start(lab, &place, &[], &["--state-dir", state, "--port", "7000"]);
        assert_refused(lab, &place, &before, &output, &[state, "in use", "pid"]);
        // Everything else is its own but something that only one can have.
        for (own, words) in [
            (&["--port", "6783"][..], &["port 6783", "in use"][..]),
            (&["--port", "7000"], &["127.0.0.1:6782"]),
            (&["--port", "7000", "--status-addr", ""], &["weave-tap"]),
        ] {
            let output = start(lab, &place, &[], own);
            assert_refused(lab, &place, &before, &output, words);
        }
        let api = first.api();
        let output = start(lab, &place, &[], &["--port", "7000", "--status-addr", "", "--tap", "tap2", "--bridge", "br2", "--api", &api]);
        assert_refused(lab, &place, &before, &output, &["api.sock"]);
        links(&second, 1);
        assert!(first.status("").is_some(), "the first one goes on");
    });
}

#[test]
fn an_address_that_is_not_of_this_host() {
    refused(|_| (), &[], &["--bind", "10.99.99.99"], &["10.99.99.99", "not an address of this host"]);
}

#[test]
fn two_routers_on_one_host_get_along() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let first = router(lab, "h1", &[]);
        let place = Place::new(lab);
        let other = ["--port", "7000", "--status-addr", "", "--tap", "tap2", "--bridge", "br2", "--peer", "127.0.0.1:6783"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_weave-router"));
        command.args(["--state-dir", &place.at("state"), "--api", &place.at("api.sock")]).args(other).stderr(std::process::Stdio::null());
        let second = lab.spawn("h1", &mut command).expect("started");
        links(&first, 1);
        for (bridge, name, n) in [("weave", "c1", 1), ("br2", "c2", 2)] {
            let plug = weave_router::host::lab::Plug { bridge: bridge.into(), ..Default::default() };
            lab.container_with("h1", name, &format!("10.32.0.{n}/24"), &plug).expect("a container");
        }
        reaches(lab, "c1", "10.32.0.2".parse().expect("an address"));
        drop(second);
        run(lab, "h1", "ip", "link del br2");
    });
}
