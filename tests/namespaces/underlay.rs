//! Bad days of the underlay: down, filtered, shrunk, renumbered. The link may degrade; the router lives and recovers.

use std::time::Duration;

use weave_router::host::lab::clock::{Stopwatch, pause};
use weave_router::host::lab::traffic::{Ends, udp_rate};
use weave_router::host::lab::{Lab, Plug};

use crate::common::wait_until;
use crate::flow::{Pulse, transfer};
use crate::scene::{PATIENCE, Pair, Setting, connected_pair, connections, count, ip, nft, reaches, scene};

/// The link is gone on both sides.
#[track_caller]
fn link_goes(pair: &Pair) {
    for router in [&pair.r1, &pair.r2] {
        wait_until(PATIENCE, "the link is seen to be down", || connections(router, "established").is_empty());
    }
}

/// Traffic flows again within ten seconds, as the back-off of a configured peer allows.
#[track_caller]
fn recovers(lab: &Lab, pair: &Pair) {
    let clock = Stopwatch::start();
    reaches(lab, "c1", pair.c2.ip);
    assert!(clock.elapsed() < Duration::from_secs(15), "recovered after {:?}", clock.elapsed());
    transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 1 << 20);
    for router in [&pair.r1, &pair.r2] {
        assert!(!router.log().contains("panicked"), "{}", router.log());
    }
}

#[test]
fn a_cable_that_is_pulled_and_put_back() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        lab.cut(&pair.wire).expect("cut");
        link_goes(&pair);
        pause(Duration::from_secs(2));
        lab.mend(&pair.wire).expect("mended");
        recovers(lab, &pair);
        // An interface that leaves and comes back with its address.
        ip(lab, "h1", "addr flush dev eth0");
        link_goes(&pair);
        ip(lab, "h1", "addr add 10.9.1.1/24 dev eth0");
        recovers(lab, &pair);
    });
}

#[test]
fn a_firewall_that_refuses_what_is_sent() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        nft(lab, "h1", "table inet wall { chain out { type filter hook output priority 0; udp dport 6783 drop; }; }");
        link_goes(&pair);
        assert!(count(&pair.r1, |plane, name| plane == "udp" && name == "send_eperm") > 0);
        nft(lab, "h1", "delete table inet wall");
        recovers(lab, &pair);
    });
}

#[test]
fn an_underlay_that_shrinks_under_traffic() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting { plug: Plug { mtu: Some(1420), ..Plug::default() }, ..Setting::default() });
        let mtu = |pair: &Pair| connections(&pair.r1, "established").first().and_then(|row| row["mtu"].as_u64());
        wait_until(PATIENCE, "the path is measured", || mtu(&pair) == Some(1420));
        for (host, interface) in [("h1", &pair.wire.a.interface), ("h2", &pair.wire.b.interface)] {
            ip(lab, host, &format!("link set {interface} mtu 1400"));
        }
        wait_until(PATIENCE, "large packets arrive in pieces", || {
            lab.ping("c1", pair.c2.ip, "-c 1 -W 1 -M dont -s 1392").expect("ping is installed")
        });
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 3 << 20);
        wait_until(PATIENCE, "status shows the smaller MTU", || mtu(&pair) == Some(1320));
    });
}

#[test]
fn an_underlay_that_is_resized_is_measured_though_nothing_uses_it() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        let mtu = |pair: &Pair| connections(&pair.r1, "established").first().and_then(|row| row["mtu"].as_u64());
        wait_until(PATIENCE, "the path is measured", || mtu(&pair) == Some(1420));
        // An idle path is looked at once a minute and less: a change must not wait for that.
        pause(Duration::from_secs(3));
        for (size, inner) in [(1400, 1320), (9000, 8920), (1500, 1420)] {
            for (host, interface) in [("h1", &pair.wire.a.interface), ("h2", &pair.wire.b.interface)] {
                ip(lab, host, &format!("link set {interface} mtu {size}"));
            }
            wait_until(Duration::from_secs(5), "the path is measured again", || mtu(&pair) == Some(inner));
        }
    });
}

#[test]
fn a_path_that_silently_swallows_large_datagrams() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        for host in ["h1", "h2"] {
            // No router on the way says so: what is too big is gone.
            let rule = "table inet hole { chain in { type filter hook input priority 0; udp dport 6783 udp length > 1308 drop; }; }";
            nft(lab, host, rule);
            let name = if host == "h1" { &pair.wire.a.interface } else { &pair.wire.b.interface };
            // Super datagrams would be measured as a whole.
            ip(lab, host, &format!("link set {name} gso_max_segs 1"));
        }
        wait_until(Duration::from_secs(40), "packets that may be cut arrive", || {
            lab.ping("c1", pair.c2.ip, "-c 1 -W 1 -M dont -s 1392").expect("ping is installed")
        });
        assert!(!connections(&pair.r1, "established").is_empty(), "the link stayed up");
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 1 << 20);
    });
}

#[test]
fn a_host_that_gets_another_address() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        // The second host dials; its address is what changes, so its peer has to follow.
        ip(lab, "h2", "addr add 10.9.1.22/24 dev eth0");
        ip(lab, "h2", "addr del 10.9.1.2/24 dev eth0");
        ip(lab, "h2", "addr replace 10.9.1.22/24 dev eth0");
        recovers(lab, &pair);
        wait_until(PATIENCE, "the new address is shown", || {
            connections(&pair.r1, "established").iter().any(|row| row["address"] == "10.9.1.22:6783")
        });
    });
}

#[test]
fn load_does_not_cost_the_link() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        let pulse = Pulse::start(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, Duration::from_millis(50));
        let down = || count(&pair.r1, |_, name| name == "links_down") + count(&pair.r2, |_, name| name == "links_down");
        let before = down();
        let (from, to) = (&pair.c1.namespace, &pair.c2.namespace);
        let flood = udp_rate(Ends::new(from, to, pair.c2.ip), 1300, Duration::from_secs(3)).expect("a flood");
        assert!(flood.received > 1000, "{flood:?}");
        assert_eq!(down(), before, "no link went down");
        let silence = pulse.longest_silence();
        assert!(silence < Duration::from_secs(3), "{silence:?}");
    });
}
