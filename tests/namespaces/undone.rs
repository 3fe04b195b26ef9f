//! What fails on the way to the network, and what others did there, is taken back or let be.

use std::fs::{Permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use weave_router::api::client::Client;
use weave_router::host::lab::Router;

use crate::attach::{address, ask, container, refused};
use crate::common::router;
use crate::scene::{PASSWORD, ip, is_silent, reaches, scene};

/// A program of the shell.
fn script(path: &Path, lines: &str) {
    write(path, format!("#!/bin/sh\n{lines}\n")).expect("written");
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("executable");
}

#[test]
fn attach_that_fails_late_takes_back_what_it_did_and_no_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let (broken, wrapper) = (dir.path().join("broken"), dir.path().join("weave-router"));
    let path = format!("PATH={}:$PATH", dir.path().display());
    let real = "PATH=${PATH#*:}";
    script(
        &dir.path().join("nft"),
        &format!("[ -e '{}' ] && {{ cat >/dev/null; echo broken >&2; exit 1; }}\n{real} exec nft \"$@\"", broken.display()),
    );
    script(&wrapper, &format!("{path} exec '{}' \"$@\"", env!("CARGO_BIN_EXE_weave-router")));
    scene(|lab| {
        lab.host("h1").expect("a host");
        let options = [PASSWORD, &["--isolate"]].concat();
        let router = Router::up(lab, "h1", &wrapper, &options).unwrap_or_else(|error| panic!("{error}"));
        let (c1, c2) = (container(lab, "c1"), container(lab, "c2"));
        ask(&router, &format!("attach ip:10.32.1.1/24 --hostname web --netns {c1}"));
        let before = (ask(&router, "ps"), ask(&router, "dns-lookup web"));
        write(&broken, "").expect("written");
        let said = refused(&router, &format!("attach ip:10.32.1.2/24 --hostname web --netns {c1}"));
        assert!(said.contains("broken"), "{said}");
        refused(&router, &format!("attach ip:10.32.1.2/24 --netns {c2}"));
        assert_eq!((ask(&router, "ps"), ask(&router, "dns-lookup web")), before, "it has what it had");
        assert!(!ip(lab, "c1", "-o addr show dev ethwe").contains("10.32.1.2/"));
        assert_eq!(ip(lab, "c2", "-o link show").lines().count(), 1);
        std::fs::remove_file(&broken).expect("removed");
        // A name that is none is refused before anything is made.
        let said = refused(&router, &format!("attach ip:10.32.1.2/24 --hostname a..b --netns {c2}"));
        assert!(said.contains("a..b"), "{said}");
        assert_eq!(ip(lab, "c2", "-o link show").lines().count(), 1);
        ask(&router, &format!("attach ip:10.32.1.2/24 --netns {c2}"));
        reaches(lab, "c1", address("10.32.1.2"));
    });
}

#[test]
fn attach_is_by_one_interface_and_never_of_the_host() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let router = router(lab, "h1", PASSWORD);
        let c1 = container(lab, "c1");
        ask(&router, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        ask(&router, "expose ip:10.2.1.101/24");
        let before = ask(&router, "ps");
        let client = Client::new(router.api().parse().expect("an address"));
        let said = |path: &str, ident: &str| {
            let body = serde_json::json!({ "ident": ident, "netns": c1, "interface": "eth7", "addresses": ["ip:10.2.1.1/24"] });
            client.act(hyper::Method::POST, path, Some(&body)).expect_err("refused").to_string()
        };
        for path in ["/attach", "/detach"] {
            assert!(said(path, &format!("netns:{c1}")).contains("another interface"), "{path}");
            assert!(said(path, "weave:expose").contains("the host itself"), "{path}");
        }
        assert_eq!(ask(&router, "ps"), before);
    });
}

#[test]
fn expose_lets_an_address_be_that_somebody_else_gave_the_bridge() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let router = router(lab, "h1", PASSWORD);
        ip(lab, "h1", "addr add 10.2.1.101/24 dev weave");
        let said = refused(&router, "expose ip:10.2.2.101/24 ip:10.2.1.101/24");
        assert!(said.contains("not the router's"), "{said}");
        ask(&router, "hide --all");
        let shown = ip(lab, "h1", "-o addr show dev weave");
        assert!(shown.contains("10.2.1.101/24") && !shown.contains("10.2.2.101/24"), "{shown}");
        assert_eq!(ask(&router, "ps"), "");
        ip(lab, "h1", "addr del 10.2.1.101/24 dev weave");
        ask(&router, "expose ip:10.2.1.101/24");
        ask(&router, "expose ip:10.2.1.101/24");
        assert_eq!(ask(&router, "hide --all"), "10.2.1.101/24\n");
    });
}

#[test]
fn attach_remembers_the_mac_over_a_restart() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let mut router = router(lab, "h1", &[PASSWORD, &["--isolate"]].concat());
        let (c1, c2) = (container(lab, "c1"), container(lab, "c2"));
        ask(&router, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        ask(&router, &format!("attach ip:10.2.1.2/24 --netns {c2}"));
        let mac = ask(&router, &format!("ps netns:{c1}")).split(' ').nth(1).expect("a MAC").to_string();
        reaches(lab, "c1", address("10.2.1.2"));
        router.process().kill().expect("killed");
        ip(lab, "c1", "link set ethwe address 02:00:00:00:00:77");
        router.restart().expect("started");
        // Its own attach makes it no more legitimate.
        ask(&router, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        assert!(is_silent(lab, "c1", address("10.2.1.2")));
        ip(lab, "c1", &format!("link set ethwe address {mac}"));
        reaches(lab, "c1", address("10.2.1.2"));
    });
}
