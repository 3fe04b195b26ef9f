//! Hosts whose firewall drops what is forwarded, as Docker's does.

use std::time::Duration;

use weave_router::host::lab::clock::wait_until as soon;
use weave_router::host::lab::{BRIDGE, Lab, Plug};

use crate::attach::ask;
use crate::common::{router, wait_until};
use crate::scene::{PASSWORD, PATIENCE, container, echoes, is_silent, reaches, run, scene, v6};

/// Where bridged frames are not shown to the firewall it could drop nothing, and a test of it would pass by itself; in continuous
/// integration, where the kernel is made to, that is a failure.
#[expect(clippy::disallowed_methods, reason = "a test asks whether it runs in continuous integration")]
fn is_filtered(lab: &Lab, host: &str) -> bool {
    let knob = lab.exec(host, "cat", &["/proc/sys/net/bridge/bridge-nf-call-iptables"]).expect("cat is installed");
    let filtered = knob.stdout.starts_with(b"1");
    assert!(filtered || std::env::var_os("CI").is_none(), "this kernel does not show bridged frames to iptables: modprobe br_netfilter");
    if !filtered {
        eprintln!("skipped: this kernel does not show bridged frames to iptables");
    }
    filtered
}

fn all_rules(lab: &Lab, host: &str) -> String {
    ["iptables", "ip6tables"].map(|tool| run(lab, host, tool, "-S")).concat()
}

/// Two hosts whose bridges are there before their routers, and which drop what they forward.
fn walled(lab: &mut Lab, docker: bool) {
    for (host, name, n) in [("h1", "c1", 1), ("h2", "c2", 2)] {
        lab.host(host).expect("a host");
        lab.bridge(host, BRIDGE, Some(1420)).expect("a bridge");
        crate::scene::ip(lab, host, "link set weave up");
        container(lab, host, name, n, &Plug::default());
        for tool in ["iptables", "ip6tables"] {
            run(lab, host, tool, "-P FORWARD DROP");
            if docker {
                run(lab, host, tool, "-N DOCKER-USER");
                run(lab, host, tool, "-A DOCKER-USER -j RETURN");
                run(lab, host, tool, "-A FORWARD -j DOCKER-USER");
            }
        }
    }
    container(lab, "h1", "c3", 3, &Plug::default());
    lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
}

fn a_wall_has_a_door(docker: bool) {
    scene(|lab| {
        walled(lab, docker);
        if !is_filtered(lab, "h1") {
            return;
        }
        let (far, near) = ("10.32.0.2".parse().expect("an address"), "10.32.0.3".parse().expect("an address"));
        assert!(is_silent(lab, "c1", near), "the wall works");
        let before = all_rules(lab, "h1");
        let mut first = router(lab, "h1", PASSWORD);
        let second = router(lab, "h2", &[PASSWORD, &["--peer", "10.9.1.1"]].concat());
        reaches(lab, "c1", far);
        reaches(lab, "c1", v6(2));
        reaches(lab, "c1", near);
        let chain = if docker { "-A DOCKER-USER -i weave -o weave" } else { "-A FORWARD -i weave -o weave" };
        assert!(all_rules(lab, "h1").contains(chain), "{}", all_rules(lab, "h1"));
        // Others rewrite their tables; the exception is looked after.
        run(lab, "h1", "iptables", if docker { "-F DOCKER-USER" } else { "-F FORWARD" });
        wait_until(PATIENCE, "the exception is back", || run(lab, "h1", "iptables", "-S").contains(chain));
        if docker {
            run(lab, "h1", "iptables", "-A DOCKER-USER -j RETURN");
        }
        first.stop().expect("stopped");
        assert_eq!(all_rules(lab, "h1"), before, "everything is as it was");
        drop(second);
        assert!(!all_rules(lab, "h2").contains("weave"), "{}", all_rules(lab, "h2"));
    });
}

#[test]
fn a_dropping_policy_lets_the_mesh_through() {
    a_wall_has_a_door(false);
}

#[test]
fn the_rule_goes_where_docker_wants_it() {
    a_wall_has_a_door(true);
}

#[test]
fn an_exposed_host_with_a_dropping_policy_lets_containers_out_and_answers_back() {
    scene(|lab| {
        for host in ["h1", "out"] {
            lab.host(host).expect("a host");
        }
        lab.wire("h1", "out", "10.9.7.0/24").expect("a wire");
        run(lab, "h1", "sysctl", "-qw net.ipv4.ip_forward=1");
        for tool in ["iptables", "ip6tables"] {
            run(lab, "h1", tool, "-P FORWARD DROP");
        }
        let before = all_rules(lab, "h1");
        let mut router = router(lab, "h1", PASSWORD);
        let c1 = crate::attach::container(lab, "c1");
        let passes = |lab: &Lab, from: &str, to: &str| echoes(lab, from, to.parse().expect("an address"));
        ask(&router, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        run(lab, "c1", "ip", "route add default via 10.2.1.101");
        ask(&router, "expose ip:10.2.1.101/24");
        assert!(passes(lab, "c1", "10.9.7.2"), "at once: {}", all_rules(lab, "h1"));
        // As narrow as that: the outside begins nothing, and other addresses do not pass.
        run(lab, "out", "ip", "route add 10.2.0.0/16 via 10.9.7.1");
        assert!(is_silent(lab, "out", "10.2.1.1".parse().expect("an address")));
        run(lab, "c1", "ip", "addr add 10.2.9.9/32 dev lo");
        let strange = lab.exec("c1", "ping", &["-c", "1", "-W", "1", "-I", "10.2.9.9", "10.9.7.2"]).expect("ping is installed");
        assert!(!strange.status.success());
        // Every time at once, not when they are looked after next.
        let here = all_rules(lab, "h1");
        for round in 0..3 {
            run(lab, "h1", "iptables", "-F FORWARD");
            assert!(soon(Duration::from_secs(3), || all_rules(lab, "h1") == here), "round {round}: {}", all_rules(lab, "h1"));
        }
        wait_until(PATIENCE, "they are back", || passes(lab, "c1", "10.9.7.2"));
        // A router that was killed finds them, and never takes them away on the way.
        router.process().kill().expect("killed");
        let during = all_rules(lab, "h1");
        router.restart().expect("started");
        for _ in 0..20 {
            assert_eq!(all_rules(lab, "h1"), during);
        }
        ask(&router, "hide --all");
        assert!(!all_rules(lab, "h1").contains("10.2.1.0/24"), "{}", all_rules(lab, "h1"));
        ask(&router, "expose ip:10.2.1.101/24");
        router.stop().expect("stopped");
        assert_eq!(all_rules(lab, "h1"), before, "everything is as it was");
    });
}

#[test]
fn a_killed_routers_exception_is_taken_out_by_its_next_life() {
    scene(|lab| {
        walled(lab, false);
        if !is_filtered(lab, "h1") {
            return;
        }
        let before = all_rules(lab, "h1");
        let mut router = router(lab, "h1", PASSWORD);
        wait_until(PATIENCE, "an exception", || all_rules(lab, "h1") != before);
        router.process().kill().expect("killed");
        assert_ne!(all_rules(lab, "h1"), before);
        router.restart().expect("started");
        router.stop().expect("stopped");
        assert_eq!(all_rules(lab, "h1"), before);
    });
}
