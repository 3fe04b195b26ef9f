//! Hosts behind address translators that only a third, outside, can be told of. The translators are the kernel's own.

use std::time::Duration;

use serde_json::Value;
use weave_router::host::lab::clock::pause;
use weave_router::host::lab::{Container, Lab, Plug, Router};

use crate::common::{router, wait_until};
use crate::flow::{Pulse, transfer};
use crate::scene::{PASSWORD, PATIENCE, container, ip, links, nft, reaches, rows, run, scene, traffic_goes_on};

/// Two hosts behind a translator each, and the helper that both are told.
struct Behind {
    a: Router,
    b: Router,
    helper: Router,
    ca: Container,
    cb: Container,
}

/// `a`-`na`-`helper`-`nb`-`b`: the helper is also what carries packets between the translators, which masquerade in this way.
fn behind(lab: &mut Lab, masquerade: &str) -> Behind {
    for host in ["a", "na", "helper", "nb", "b"] {
        lab.host(host).expect("a host");
    }
    let inside = [("a", "na", "10.1.1.0/24"), ("b", "nb", "10.1.2.0/24")].map(|(host, nat, net)| lab.wire(host, nat, net).expect("a wire"));
    let outside = [("na", "10.9.1.0/24"), ("nb", "10.9.2.0/24")].map(|(nat, net)| lab.wire(nat, "helper", net).expect("a wire"));
    for wire in inside.iter().chain(&outside) {
        ip(lab, &wire.a.host, &format!("route add default via {}", wire.b.ip));
    }
    for host in ["na", "nb", "helper"] {
        run(lab, host, "sysctl", "-qw net.ipv4.ip_forward=1");
    }
    for wire in &outside {
        let out = &wire.a.interface;
        // As home routers do: what nobody inside has asked for is dropped, and leaves no mark in the table of connections.
        let guard =
            |hook: &str| format!("chain {hook} {{ type filter hook {hook} priority 0; iifname {out} ct state new,invalid drop; }};");
        let translate =
            format!("chain post {{ type nat hook postrouting priority srcnat; oifname {out} meta l4proto udp {masquerade}; }};");
        nft(lab, &wire.a.host, &format!("table ip home {{ {} {} {translate} }}", guard("input"), guard("forward")));
    }
    let start = |host: &str, words: &[&str]| router(lab, host, &[&["--nickname", host], PASSWORD, words].concat());
    let helper = start("helper", &[]);
    let [a, b] = [("a", &outside[0]), ("b", &outside[1])].map(|(host, wire)| start(host, &["--peer", &wire.b.ip.to_string()]));
    let [ca, cb] = [("a", "ca", 1), ("b", "cb", 2)].map(|(host, name, n)| container(lab, host, name, n, &Plug::default()));
    Behind { a, b, helper, ca, cb }
}

/// The row of `status paths` about a router.
fn path(router: &Router, nickname: &str) -> Value {
    let rows = router.status("paths").expect("the router answers");
    rows.as_array().expect("an array").iter().find(|row| row["nickname"] == nickname).cloned().unwrap_or_default()
}

#[test]
fn translators_on_both_sides_are_passed_and_frames_keep_flowing() {
    scene(|lab| {
        let mut behind = behind(lab, "masquerade");
        reaches(lab, "ca", behind.cb.ip);
        let pulse = Pulse::start(&behind.ca.namespace, &behind.cb.namespace, behind.cb.ip, Duration::from_millis(10));
        wait_until(PATIENCE, "both say that their path is direct, and to where the translator is", || {
            let ways = [path(&behind.a, "b"), path(&behind.b, "a")];
            ways[0]["address"] == "10.9.2.1:6783" && ways[1]["address"] == "10.9.1.1:6783" && ways.iter().all(|way| way["path"] == "direct")
        });
        // Frames take it once it is known to carry as much as the other way does.
        for (router, other) in [(&behind.a, "b"), (&behind.b, "a")] {
            let wide = || rows(router, "routes").iter().any(|route| route["nickname"] == other && route["mtu"] == 1420);
            wait_until(PATIENCE, "its size is known", wide);
        }
        transfer(&behind.ca.namespace, &behind.cb.namespace, behind.cb.ip, 3 << 20);
        // Nobody relays any more.
        behind.helper.process().kill().expect("killed");
        traffic_goes_on(lab, "ca", behind.cb.ip);
        let silence = pulse.longest_silence();
        println!("{silence:?} without an answer");
        assert!(silence < Duration::from_secs(1), "{silence:?}");
        assert_eq!(path(&behind.a, "b")["path"], "direct");
        // Floods take links.
        [&behind.a, &behind.b].into_iter().for_each(|router| links(router, 1));
    });
}

#[test]
fn symmetric_translators_on_both_sides_relay_and_say_so() {
    scene(|lab| {
        let behind = behind(lab, "masquerade fully-random");
        reaches(lab, "ca", behind.cb.ip);
        let pulse = Pulse::start(&behind.ca.namespace, &behind.cb.namespace, behind.cb.ip, Duration::from_millis(10));
        for (router, other, translator) in [(&behind.a, "b", "10.9.2.1:"), (&behind.b, "a", "10.9.1.1:")] {
            wait_until(PATIENCE, "the address of the translator was tried in vain", || {
                let way = path(router, other);
                let tried = way["candidates"].as_array().cloned().unwrap_or_default();
                tried.iter().any(|one| {
                    let there = one["address"].as_str().is_some_and(|address| address.starts_with(translator));
                    there && one["outcome"] == "failed" && one["error"] == "no answer"
                })
            });
        }
        pause(Duration::from_millis(500));
        let (way, helper) = (path(&behind.a, "b"), path(&behind.a, "helper"));
        assert_eq!((&way["path"], &way["via"][0]), (&"relayed".into(), &helper["peer"]), "{way}");
        assert!(way["why_not_direct"].is_string(), "{way}");
        let shown = behind.b.client(&["status", "paths"]).expect("the client runs");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("relayed by") && shown.contains("not direct:"), "{shown}");
        traffic_goes_on(lab, "ca", behind.cb.ip);
        let silence = pulse.longest_silence();
        assert!(silence < Duration::from_secs(1), "{silence:?}");
    });
}
