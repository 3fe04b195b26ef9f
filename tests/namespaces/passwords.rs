//! Who may join: wrong passwords, passwords changed host by host, and pinned keys.

use std::path::{Path, PathBuf};
use std::time::Duration;

use weave_router::host::lab::clock::pause;
use weave_router::host::lab::{Lab, Router};

use crate::common::{router, wait_until};
use crate::scene::{PATIENCE, Setting, connected_pair, connections, is_silent, lines, links, pair, reaches, rows, scene};

/// A password file of a test, which goes with the test.
struct Secret(PathBuf);

impl Secret {
    fn new(lab: &Lab, name: &str, password: &str) -> Secret {
        let secret = Secret(std::env::temp_dir().join(format!("weave-secret-{}", lab.namespace(name))));
        secret.set(password);
        secret
    }

    fn set(&self, password: &str) {
        std::fs::write(&self.0, format!("{password}\n")).expect("written");
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("the name is UTF-8")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        assert!(std::fs::remove_file(&self.0).is_ok() || std::thread::panicking(), "the file was there");
    }
}

#[test]
fn a_wrong_password_is_said_on_both_sides_in_few_words() {
    scene(|lab| {
        let mut pair =
            pair(lab, &Setting { both: &[], first: &["--password", "one"], second: &["--password", "two"], ..Setting::default() });
        let routers = [&pair.r1, &pair.r2];
        for router in routers {
            wait_until(PATIENCE, "the log says why", || !lines(router, "password").is_empty());
            wait_until(PATIENCE, "status says why", || {
                rows(router, "connections").iter().any(|row| row["error"].to_string().contains("password"))
            });
        }
        let state = rows(&pair.r2, "targets");
        assert!(["retrying", "failed", "handshaking", "connecting"].contains(&state[0]["state"].as_str().unwrap_or_default()), "{state:?}");
        // The first pause after a refusal is four seconds.
        pause(Duration::from_secs(5));
        for router in routers {
            assert!(connections(router, "established").is_empty());
            let said = lines(router, "password");
            assert!(said.len() <= 3, "once in a while, not at every attempt: {said:#?}");
        }
        assert!(is_silent(lab, "c1", pair.c2.ip), "nothing passes");
        // A router that starts with the right one is let in.
        pair.r2.stop().expect("stopped");
        drop(pair.r2);
        let peer = pair.wire.a.ip.to_string();
        let r2 = router(lab, "h2", &["--password", "one", "--peer", &peer]);
        links(&r2, 1);
        links(&pair.r1, 1);
    });
}

#[test]
fn one_end_without_a_password_is_not_let_in() {
    scene(|lab| {
        let pair = pair(lab, &Setting { both: &[], first: &["--password", "one"], ..Setting::default() });
        wait_until(PATIENCE, "status says why", || rows(&pair.r2, "connections").iter().any(|row| row["error"].is_string()));
        assert!(connections(&pair.r1, "established").is_empty() && connections(&pair.r2, "established").is_empty());
    });
}

/// Restarts a router and waits until traffic passes again.
fn again(lab: &Lab, router: &mut Router, from: &str, to: std::net::IpAddr) {
    router.stop().expect("stopped");
    router.restart().expect("it starts again");
    reaches(lab, from, to);
    links(router, 1);
}

#[test]
fn a_password_is_changed_host_by_host_without_a_break() {
    scene(|lab| {
        let secrets = [("a", "old"), ("b", "old"), ("c", "old"), ("d", "old")].map(|(name, word)| Secret::new(lab, name, word));
        let [new1, old1, new2, old2] = &secrets;
        let files = [new1, old1, new2, old2].map(|secret| ["--password-file", secret.path()]);
        let (first, second) = ([files[0], files[1]].concat(), [files[2], files[3]].concat());
        let mut pair = connected_pair(lab, &Setting { both: &[], first: &first, second: &second, ..Setting::default() });
        // The new password becomes known to one after the other, then the old one is dropped by one after the other.
        new1.set("new");
        again(lab, &mut pair.r1, "c1", pair.c2.ip);
        new2.set("new");
        again(lab, &mut pair.r2, "c1", pair.c2.ip);
        old1.set("new");
        again(lab, &mut pair.r1, "c1", pair.c2.ip);
        old2.set("new");
        again(lab, &mut pair.r2, "c1", pair.c2.ip);
        assert_eq!(connections(&pair.r1, "established")[0]["authenticated"], true);
    });
}

fn key(router: &Router) -> String {
    let output = router.client(&["show-key"]).expect("the client runs");
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

#[test]
fn pinned_keys_decide_who_joins() {
    scene(|lab| {
        // Their keys are made by a first start.
        let mut pair = connected_pair(lab, &Setting { both: &[], ..Setting::default() });
        let keys = [key(&pair.r1), key(&pair.r2)];
        assert!(keys.iter().all(|key| key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit())), "{keys:?}");
        let kept = [keep(lab, &pair.r1, "k1"), keep(lab, &pair.r2, "k2")];
        pair.r1.stop().expect("stopped");
        pair.r2.stop().expect("stopped");
        drop((pair.r1, pair.r2));
        let peer = pair.wire.a.ip.to_string();
        let [mut first, mut second] =
            ["h1", "h2"].map(|host| router(lab, host, &["--allow", &keys[usize::from(host == "h1")], "--peer", &peer]));
        // These have other keys than the ones that were pinned.
        wait_until(PATIENCE, "the reason is shown", || {
            rows(&second, "connections").iter().any(|row| row["error"].to_string().contains("allow"))
        });
        assert!(connections(&first, "established").is_empty());
        for (router, kept) in [(&mut first, &kept[0]), (&mut second, &kept[1])] {
            router.stop().expect("stopped");
            std::fs::copy(&kept.0, router.state_dir().join("identity")).expect("put back");
        }
        first.restart().expect("started");
        second.restart().expect("started");
        reaches(lab, "c1", pair.c2.ip);
        assert_eq!(connections(&first, "established")[0]["authenticated"], true);
    });
}

/// A copy of a router's identity.
fn keep(lab: &Lab, router: &Router, name: &str) -> Secret {
    let secret = Secret::new(lab, name, "");
    let identity: &Path = &router.state_dir().join("identity");
    std::fs::copy(identity, &secret.0).expect("copied");
    secret
}

#[test]
fn two_hosts_with_one_identity_are_told_so() {
    scene(|lab| {
        let mut pair = connected_pair(lab, &Setting::default());
        pair.r2.stop().expect("stopped");
        // As when a machine is cloned with its state directory.
        std::fs::copy(pair.r1.state_dir().join("identity"), pair.r2.state_dir().join("identity")).expect("copied");
        pair.r2.restart().expect("started");
        wait_until(PATIENCE, "status says why", || {
            rows(&pair.r2, "targets").iter().any(|row| row["error"].to_string().contains("state directory"))
        });
        assert!(connections(&pair.r1, "established").is_empty());
    });
}
