//! What the router finds around itself: name servers, firewall programs, environment variables, a disk that fills up, a terminal.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use weave_router::host::lab::clock::pause;
use weave_router::host::lab::{Lab, Router};
use weave_router::store::db::{Db, Table};

use crate::common::wait_until;
use crate::restart::stops;
use crate::scene::{PASSWORD, PATIENCE, connections, ip, links, nft, rows, run, scene};

/// The program, started by a script that has prepared a mount namespace and an environment for it.
pub struct Prepared {
    directory: tempfile::TempDir,
}

impl Prepared {
    /// `@` in the script stands for a directory of the test.
    pub fn new(script: &str) -> Prepared {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().to_str().expect("the name is UTF-8").to_string();
        let text = format!("{}\nexec \"$@\"\n", script.replace('@', &place));
        let prepared = Prepared { directory };
        prepared.write("prepare", &text);
        let program = env!("CARGO_BIN_EXE_weave-router");
        prepared.program("program", &format!("#!/bin/sh\nexec unshare -m sh -e {place}/prepare {program} \"$@\"\n"));
        prepared
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).expect("written");
    }

    /// A file that may be executed. It is written by another process: what this one has open for writing is inherited by programs that are
    /// started meanwhile, and then the file is busy.
    fn program(&self, name: &str, text: &str) {
        self.write("text", text);
        let done = Command::new("install").arg("-m755").args([self.at("text"), self.at(name)]).status();
        assert!(done.expect("install is installed").success(), "{name}");
    }

    #[track_caller]
    pub fn up(&self, lab: &Lab, host: &str, arguments: &[&str]) -> Router {
        Router::up(lab, host, &self.at("program"), arguments).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Two hosts and their cable, without routers.
fn hosts(lab: &mut Lab) {
    lab.host("h1").expect("a host");
    lab.host("h2").expect("a host");
    lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
}

#[test]
fn name_servers_that_do_not_answer_do_not_hold_up_a_stop() {
    scene(|lab| {
        hosts(lab);
        nft(lab, "h2", "table inet deaf { chain in { type filter hook input priority 0; udp dport 53 drop; }; }");
        let prepared = Prepared::new("mount --bind @/resolv.conf /etc/resolv.conf");
        prepared.write("resolv.conf", "nameserver 10.9.1.2\noptions timeout:20 attempts:2\n");
        let names: Vec<String> = (0..8).map(|n| format!("host{n}.example")).collect();
        let peers: Vec<&str> = names.iter().flat_map(|name| ["--peer", name.as_str()]).collect();
        let mut router = prepared.up(lab, "h1", &peers);
        pause(Duration::from_secs(1));
        stops(&mut router, Signal::SIGTERM);
        assert!(!ip(lab, "h1", "-o link").contains("weave"), "{}", ip(lab, "h1", "-o link"));
    });
}

#[test]
fn firewall_programs_that_hang_do_not_hold_up_a_stop() {
    scene(|lab| {
        hosts(lab);
        let prepared = Prepared::new("PATH=@:$PATH; export PATH");
        for program in ["iptables", "iptables-nft", "ip6tables", "ip6tables-nft", "nft"] {
            prepared.program(program, "#!/bin/sh\nexec sleep 4\n");
        }
        let mut router = prepared.up(lab, "h1", &[]);
        stops(&mut router, Signal::SIGTERM);
        assert!(router.log().contains("may still be in the firewall"), "it is said: {}", router.log());
        assert!(!ip(lab, "h1", "-o link").contains("weave"), "{}", ip(lab, "h1", "-o link"));
    });
}

#[test]
fn names_are_looked_up_again_on_every_attempt() {
    scene(|lab| {
        hosts(lab);
        let first = crate::common::router(lab, "h1", PASSWORD);
        let prepared = Prepared::new("mount --bind @/hosts /etc/hosts");
        prepared.write("hosts", "10.9.1.77 far.example\n");
        let second = prepared.up(lab, "h2", &[PASSWORD, &["--peer", "far.example"]].concat());
        wait_until(PATIENCE, "the first address is tried", || rows(&second, "targets")[0].to_string().contains("10.9.1.77"));
        prepared.write("hosts", "10.9.1.1 far.example\n");
        links(&second, 1);
        links(&first, 1);
    });
}

#[test]
fn variables_have_their_effect() {
    const VARIABLES: &str = "export WEAVE_PEER=10.9.1.1 WEAVE_BIND=10.9.1.2 WEAVE_BRIDGE=br9 WEAVE_TAP=tap9 WEAVE_MTU=1300 \
        WEAVE_NICKNAME=variable WEAVE_NETWORK=lab WEAVE_CIPHER=chacha20poly1305 WEAVE_OFFLOAD=off WEAVE_STATUS_ADDR=127.0.0.1:7002 \
        WEAVE_PASSWORD_FILE=@/password WEAVE_LOG_FORMAT=json WEAVE_LOG_LEVEL=debug WEAVE_CONN_LIMIT=5 WEAVE_NO_DISCOVERY=true";
    scene(|lab| {
        hosts(lab);
        let first = crate::common::router(lab, "h1", &["--network", "lab", "--password", "secret of the lab"]);
        let prepared = Prepared::new(VARIABLES);
        prepared.write("password", "secret of the lab\n");
        let second = prepared.up(lab, "h2", &[]);
        links(&second, 1);
        let row = connections(&first, "established").remove(0);
        assert_eq!((&row["nickname"], &row["cipher"]), (&"variable".into(), &"chacha20poly1305".into()), "{row}");
        assert!(ip(lab, "h2", "-o link show br9").contains("mtu 1300"));
        assert!(ip(lab, "h2", "-o link show tap9").contains("master br9"));
        let bound = run(lab, "h2", "ss", "-Hlnutp");
        assert!(bound.contains("10.9.1.2:6783") && !bound.contains("0.0.0.0:6783") && bound.contains("127.0.0.1:7002"), "{bound}");
        let offloads = second.status("").expect("an answer")["offloads"].to_string();
        assert!(!offloads.contains("\"on\""), "{offloads}");
        assert!(second.log().lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{}", second.log());
    });
}

#[test]
fn the_log_holds_what_its_level_asks_for() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        for (level, info, warn) in [("info", true, true), ("warn", false, true), ("error", false, false), ("off", false, false)] {
            let router = crate::common::router(lab, "h1", &["--log-level", level]);
            assert_eq!(router.log().contains("is up"), info, "{level}: {}", router.log());
            assert_eq!(router.log().contains("UNAUTHENTICATED"), warn, "{level}: {}", router.log());
        }
    });
}

#[test]
fn a_disk_that_is_full_refuses_what_is_to_be_remembered() {
    scene(|lab| {
        hosts(lab);
        let first = crate::common::router(lab, "h1", PASSWORD);
        // `launch --state-dir DIR …`
        let prepared = Prepared::new("[ \"$2\" != launch ] || { mkdir -p \"$4\"; mount -t tmpfs -o size=8m none \"$4\"; }");
        let mut second = prepared.up(lab, "h2", PASSWORD);
        let state = format!("/proc/{}/root{}", second.process().id(), second.state_dir().display());
        let ballast = format!("{state}/ballast");
        assert!(std::fs::write(&ballast, vec![0; 16 << 20]).is_err(), "the disk is full");
        let refused = second.client(&["connect", "10.9.1.1"]).expect("the client runs");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.lines().count() == 1 && said.contains("No space left"), "{said}");
        assert!(rows(&second, "targets").is_empty(), "what cannot be remembered is not done");
        std::fs::remove_file(&ballast).expect("removed");
        assert!(second.client(&["connect", "10.9.1.1"]).expect("the client runs").status.success());
        links(&first, 1);
    });
}

#[test]
fn a_disk_that_was_full_is_written_again_and_has_all_that_was_acknowledged() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        // `launch --state-dir DIR …`
        let prepared = Prepared::new("[ \"$2\" != launch ] || { mkdir -p \"$4\"; mount -t tmpfs -o size=16m none \"$4\"; }");
        let mut one = prepared.up(lab, "h1", PASSWORD);
        let disk = PathBuf::from(format!("/proc/{}/root{}", one.process().id(), one.state_dir().display()));
        let (dir, ballast) = (disk.join("other"), disk.join("ballast"));
        std::fs::create_dir(&dir).expect("a folder");
        let db = Db::open(&dir).expect("a file");
        let row = |key: &str, length: usize| (Table::Names, key.to_string(), Some(vec![7; length]));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            db.commit(vec![row("before", 10)]).await.expect("on disk");
            assert!(std::fs::write(&ballast, vec![0; 32 << 20]).is_err(), "the disk is full");
            let refused = db.commit(vec![row("large", 8 << 20)]).await.expect_err("there is no room").to_string();
            assert!(refused.contains("make room"), "{refused}");
            std::fs::remove_file(&ballast).expect("removed");
            db.commit(vec![row("after", 10)]).await.expect("on disk again, without a restart");
            let keys: Vec<String> = db.all(Table::Names).await.expect("rows").into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, ["after", "before"], "all that was acknowledged, and nothing else");
        });
    });
}

#[test]
fn both_families_can_be_bound_at_once() {
    scene(|lab| {
        hosts(lab);
        lab.host("h3").expect("a host");
        lab.wire("h1", "h3", "fd00:9::/64").expect("a wire");
        let first = crate::common::router(lab, "h1", &[PASSWORD, &["--bind", "10.9.1.1", "--bind", "fd00:9::1"]].concat());
        let bound = run(lab, "h1", "ss", "-Hlun");
        assert!(bound.contains("10.9.1.1:6783") && bound.contains("[fd00:9::1]:6783"), "{bound}");
        assert!(!bound.contains("0.0.0.0:6783") && !bound.contains("[::]:6783") && !bound.contains("*:6783"), "{bound}");
        let _second = crate::common::router(lab, "h2", &[PASSWORD, &["--peer", "10.9.1.1"]].concat());
        let _third = crate::common::router(lab, "h3", &[PASSWORD, &["--peer", "[fd00:9::1]"]].concat());
        links(&first, 2);
    });
}

#[test]
fn a_router_keeps_no_more_links_than_it_is_told() {
    scene(|lab| {
        hosts(lab);
        lab.host("h3").expect("a host");
        lab.wire("h2", "h3", "10.9.2.0/24").expect("a wire");
        lab.wire("h1", "h3", "10.9.3.0/24").expect("a wire");
        let mut first = crate::common::router(lab, "h1", &[PASSWORD, &["--conn-limit", "1"]].concat());
        let second = crate::common::router(lab, "h2", &[PASSWORD, &["--peer", "10.9.1.1"]].concat());
        links(&first, 1);
        let third = crate::common::router(lab, "h3", &[PASSWORD, &["--peer", "10.9.2.1"]].concat());
        wait_until(PATIENCE, "the third knows the first", || rows(&third, "peers").len() == 3);
        pause(Duration::from_secs(5));
        assert_eq!(connections(&first, "established").len(), 1);
        first.stop().expect("stopped");
        drop(first);
        let first = crate::common::router(lab, "h1", PASSWORD);
        links(&first, 2);
        drop(second);
    });
}

#[test]
fn the_end_of_its_terminal_stops_it_unless_it_is_to_outlive_it() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        // Whoever runs the tests may have it ignored.
        let by_terminal = Prepared::new("set -- env --default-signal=HUP $*");
        let mut router = by_terminal.up(lab, "h1", &[]);
        let socket = router.api().trim_start_matches("unix:").to_string();
        stops(&mut router, Signal::SIGHUP);
        assert!(!ip(lab, "h1", "-o link").contains("weave"), "{}", ip(lab, "h1", "-o link"));
        assert!(!std::path::Path::new(&socket).exists(), "the socket is gone");
        drop(router);
        let nohup = Prepared::new("trap '' HUP");
        let mut router = nohup.up(lab, "h1", &[]);
        router.process().signal(Signal::SIGHUP).expect("sent");
        pause(Duration::from_millis(500));
        assert!(router.process().ended().is_none(), "started by nohup, it goes on");
        assert!(router.status("").is_some());
        stops(&mut router, Signal::SIGTERM);
    });
}
