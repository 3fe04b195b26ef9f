//! Two hosts: ciphers, no encryption, offloads, IPv6 and jumbo underlays, and what `status` says of them.

use serde_json::Value;
use weave_router::host::lab::{Lab, Plug, Router, WireOptions};

use crate::common::{router, wait_until};
use crate::flow::transfer;
use crate::scene::{
    PASSWORD, PATIENCE, Setting, connected_pair, connections, is_silent, lines, links, pair, reaches, rows, run, scene, v6,
};

fn text(router: &Router, words: &[&str]) -> String {
    let output = router.client(words).expect("the client runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The only link, which is up.
#[track_caller]
fn link(router: &Router) -> Value {
    links(router, 1);
    connections(router, "established").remove(0)
}

#[test]
fn containers_of_two_hosts_are_on_one_ethernet_and_status_says_how() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        reaches(lab, "c2", pair.c1.ip);
        reaches(lab, "c1", v6(2));
        reaches(lab, "c2", v6(1));
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 3 << 20);
        transfer(&pair.c2.namespace, &pair.c1.namespace, v6(1), 3 << 20);
        every_field_is_there(&pair.r1, "h2", "inbound");
        every_field_is_there(&pair.r2, "h1", "outbound");
        the_other_shapes(&pair.r2);
        for what in ["", "connections", "peers", "targets", "macs", "routes"] {
            let words: Vec<&str> = ["status", what].into_iter().filter(|w| !w.is_empty()).collect();
            let shown = text(&pair.r2, &words);
            assert!(shown.contains(if what.is_empty() { "h2" } else { "h1" }), "{what}: {shown}");
        }
    });
}

/// The contract of `status connections --json`.
#[track_caller]
fn every_field_is_there(router: &Router, nickname: &str, direction: &str) {
    wait_until(PATIENCE, "the link is measured", || link(router)["rtt_ms"].is_number() && link(router)["mtu"] == 1420);
    let row = link(router);
    let fields = ["peer", "nickname", "address", "direction", "state", "cipher", "authenticated", "path", "mtu", "rtt_ms", "loss"];
    for field in fields.iter().chain(&["tx_bytes", "rx_bytes", "error"]) {
        assert!(row.get(field).is_some(), "{field}: {row}");
    }
    assert_eq!(row["nickname"], nickname, "{row}");
    assert_eq!(row["direction"], direction, "{row}");
    assert_eq!(row["authenticated"], true, "{row}");
    assert_eq!(row["path"], "direct", "{row}");
    assert_eq!(row["mtu"], 1420, "{row}");
    assert_eq!(row["error"], Value::Null, "{row}");
    assert!(["aes256gcm", "chacha20poly1305"].contains(&row["cipher"].as_str().unwrap_or_default()), "{row}");
    assert!(row["address"].as_str().is_some_and(|a| a.starts_with("10.9.1.") && a.ends_with(":6783")), "{row}");
    let number = |field: &str| row[field].as_f64().unwrap_or(-1.0);
    assert!(number("rtt_ms") > 0.0 && number("rtt_ms") < 1000.0, "{row}");
    assert!((0.0..=1.0).contains(&number("loss")), "{row}");
    assert!(number("tx_bytes") > 3e6 && number("rx_bytes") > 3e6, "both have sent a transfer: {row}");
}

fn the_other_shapes(router: &Router) {
    let peers = rows(router, "peers");
    assert_eq!(peers.len(), 2, "{peers:?}");
    assert!(peers.iter().all(|p| p["reachable"] == true && p["key"].as_str().is_some_and(|k| k.len() == 64)), "{peers:?}");
    let targets = rows(router, "targets");
    assert_eq!((targets.len(), &targets[0]["state"], &targets[0]["nickname"]), (1, &"established".into(), &"h1".into()), "{targets:?}");
    let macs = rows(router, "macs");
    assert!(macs.iter().any(|m| m["local"] == true) && macs.iter().any(|m| m["nickname"] == "h1"), "{macs:?}");
    let routes = rows(router, "routes");
    assert_eq!((routes.len(), &routes[0]["path"], &routes[0]["hops"]), (1, &"direct".into(), &1.into()), "{routes:?}");
    let status = router.status("").expect("an answer");
    assert_eq!((&status["encrypted"], &status["authenticated"], &status["mtu"]), (&true.into(), &true.into(), &1420.into()), "{status}");
}

#[test]
fn each_cipher_carries_traffic_and_is_shown() {
    for cipher in ["aes256gcm", "chacha20poly1305"] {
        scene(|lab| {
            let both = [PASSWORD, &["--cipher", cipher]].concat();
            let pair = connected_pair(lab, &Setting { both: &both, ..Setting::default() });
            assert_eq!(link(&pair.r1)["cipher"], cipher);
            assert_eq!(link(&pair.r2)["cipher"], cipher);
            transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 3 << 20);
        });
    }
}

#[test]
fn ends_that_compute_a_cipher_by_different_libraries_understand_each_other() {
    for cipher in ["aes256gcm", "chacha20poly1305"] {
        scene(|lab| {
            let both = [PASSWORD, &["--cipher", cipher]].concat();
            let (first, second) = (&["--cipher-library", "ring"], &["--cipher-library", "aws-lc"]);
            let pair = connected_pair(lab, &Setting { both: &both, first, second, ..Setting::default() });
            for (router, library) in [(&pair.r1, "ring"), (&pair.r2, "aws-lc")] {
                let status = router.status("").expect("an answer");
                assert!(status["ciphers"][cipher].as_str().is_some_and(|text| text.starts_with(library)), "{status}");
                assert_eq!(lines(router, &format!("{cipher} by {library}")).len(), 1);
            }
            transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 3 << 20);
            transfer(&pair.c2.namespace, &pair.c1.namespace, pair.c1.ip, 3 << 20);
        });
    }
}

#[test]
fn a_cipher_that_one_end_insists_on_is_taken_and_none_in_common_is_said() {
    scene(|lab| {
        let mut pair = connected_pair(lab, &Setting { first: &["--cipher", "chacha20poly1305"], ..Setting::default() });
        assert_eq!(link(&pair.r2)["cipher"], "chacha20poly1305");
        pair.r2.stop().expect("stopped");
        drop(pair.r2);
        let peer = pair.wire.a.ip.to_string();
        let r2 = router(lab, "h2", &[PASSWORD, &["--peer", &peer, "--cipher", "aes256gcm"]].concat());
        wait_until(PATIENCE, "the reason is shown", || error_of(&r2).contains("cipher"));
        assert!(connections(&r2, "established").is_empty());
    });
}

/// Why the first connection is not up.
fn error_of(router: &Router) -> String {
    let rows = rows(router, "connections");
    rows.iter().filter_map(|row| row["error"].as_str()).next().unwrap_or_default().to_string()
}

#[test]
fn no_encryption_works_where_both_say_so_and_is_shown_loudly() {
    scene(|lab| {
        let both = [PASSWORD, &["--no-encryption"]].concat();
        let pair = connected_pair(lab, &Setting { both: &both, ..Setting::default() });
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 3 << 20);
        for router in [&pair.r1, &pair.r2] {
            assert_eq!(link(router)["cipher"], "none");
            assert_eq!(router.status("").expect("an answer")["encrypted"], false);
            let shown = text(router, &["status"]);
            assert!(shown.contains("OFF!"), "loudly: {shown}");
            assert_eq!(lines(router, "ENCRYPTION IS OFF").len(), 1);
        }
    });
}

#[test]
fn no_encryption_on_one_end_is_refused_with_the_reason() {
    scene(|lab| {
        let pair = pair(lab, &Setting { first: &["--no-encryption"], ..Setting::default() });
        wait_until(PATIENCE, "the reason is shown", || error_of(&pair.r2).contains("--no-encryption"));
        wait_until(PATIENCE, "the reason is logged", || !lines(&pair.r2, "--no-encryption").is_empty());
        for router in [&pair.r1, &pair.r2] {
            assert!(connections(router, "established").is_empty());
        }
        assert!(is_silent(lab, "c1", pair.c2.ip), "nothing passes");
    });
}

#[test]
fn offloads_off_on_either_end_or_both() {
    let off: &[&str] = &["--offload", "off"];
    for (first, second) in [(off, off), (&[], off)] {
        scene(|lab| {
            let pair = connected_pair(lab, &Setting { first, second, ..Setting::default() });
            reaches(lab, "c2", v6(1));
            transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 5 << 20);
            transfer(&pair.c2.namespace, &pair.c1.namespace, v6(1), 5 << 20);
            let offloads = pair.r2.status("").expect("an answer")["offloads"].to_string();
            assert!(!offloads.contains("\"on\""), "{offloads}");
        });
    }
}

#[test]
fn an_ipv6_underlay() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting { subnet: "fd00:9::/64", ..Setting::default() });
        reaches(lab, "c2", v6(1));
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 5 << 20);
        assert_eq!(link(&pair.r2)["address"], "[fd00:9::1]:6783");
        wait_until(PATIENCE, "the path is measured", || link(&pair.r2)["mtu"] == 1400);
    });
}

#[test]
fn a_jumbo_underlay_carries_jumbo_frames() {
    scene(|lab| {
        // The first router knows no peer whose path it could measure.
        let setting = Setting { wire: WireOptions { mtu: Some(9000) }, first: &["--mtu", "8920"], ..Setting::default() };
        let pair = connected_pair(lab, &setting);
        wait_until(PATIENCE, "the path is measured", || link(&pair.r2)["mtu"] == 8920);
        assert_eq!(pair.r2.status("").expect("an answer")["mtu"], 8920);
        wait_until(PATIENCE, "a ping of a whole jumbo packet", || {
            lab.ping("c1", pair.c2.ip, "-c 1 -W 1 -M do -s 8892").expect("ping is installed")
        });
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 5 << 20);
    });
}

#[test]
fn networks_of_different_names_do_not_mix() {
    scene(|lab| {
        let pair = pair(lab, &Setting { second: &["--network", "other"], ..Setting::default() });
        wait_until(PATIENCE, "the reason is shown", || error_of(&pair.r2).contains("--network"));
        assert!(connections(&pair.r1, "established").is_empty());
    });
}

#[test]
fn without_a_password_links_are_sealed_and_said_to_be_unauthenticated() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting { both: &[], plug: Plug::default(), ..Setting::default() });
        let row = link(&pair.r1);
        assert_eq!((&row["authenticated"], row["cipher"] != "none"), (&false.into(), true), "{row}");
        assert!(text(&pair.r1, &["status"]).contains("unauthenticated") || text(&pair.r1, &["status"]).contains("UNAUTHENTICATED"));
        assert_eq!(lines(&pair.r1, "UNAUTHENTICATED").len(), 1);
    });
}

#[test]
fn strangers_from_public_addresses_need_open() {
    for (option, comes_up) in [(&[][..], false), (&["--open"], true)] {
        scene(|lab| {
            // 192.0.2.0/24 is for documentation; no host has it.
            let pair = pair(lab, &Setting { both: option, subnet: "192.0.2.0/24", ..Setting::default() });
            if comes_up {
                return reaches(lab, "c1", pair.c2.ip);
            }
            wait_until(PATIENCE, "the reason is shown", || error_of(&pair.r2).contains("password"));
            assert!(connections(&pair.r1, "established").is_empty());
        });
    }
}

/// A host with several addresses answers from the one that was asked, also where only one is bound.
#[test]
fn a_bound_address_is_the_only_one() {
    scene(|lab: &mut Lab| {
        let pair = connected_pair(lab, &Setting { first: &["--bind", "10.9.1.1"], ..Setting::default() });
        run(lab, "h1", "ip", "addr add 10.9.1.77/24 dev eth0");
        let bound = run(lab, "h1", "ss", "-Hlun");
        assert!(bound.contains("10.9.1.1:6783") && !bound.contains("0.0.0.0:6783") && !bound.contains("[::]:6783"), "{bound}");
        reaches(lab, "c2", pair.c1.ip);
    });
}
