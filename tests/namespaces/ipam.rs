//! Addresses: real routers give them over HTTP, never one twice, whatever dies.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use weave_router::api::client::{Client, ClientError};
use weave_router::host::lab::clock::pause;
use weave_router::host::lab::{Lab, Router, Wire};

use crate::attach::{ask as verb, container, hosts};
use crate::common::{router, wait_until};
use crate::scene::{PASSWORD, PATIENCE, links, peer, scene};

/// h1-h2-h3 in a ring, each told the one before it.
fn three(lab: &mut Lab, arguments: &[&str]) -> (Vec<Router>, Vec<Wire>) {
    for host in ["h1", "h2", "h3"] {
        lab.host(host).expect("a host");
    }
    let ends = [("h1", "h2", "10.9.1.0/24"), ("h2", "h3", "10.9.2.0/24"), ("h3", "h1", "10.9.3.0/24")];
    let wires: Vec<Wire> = ends.iter().map(|(a, b, subnet)| lab.wire(a, b, subnet).expect("a wire")).collect();
    let mut routers = Vec::new();
    for (n, host) in ["h1", "h2", "h3"].into_iter().enumerate() {
        let before = n.checked_sub(1).map(|n| peer(wires[n].a.ip));
        let told = before.as_ref().map_or(vec![], |before| vec!["--peer", before]);
        let own = ["--nickname", host, "--ipalloc-init", "consensus=3"];
        routers.push(router(lab, host, &[&own, PASSWORD, arguments, &told[..]].concat()));
    }
    routers.iter().for_each(|router| links(router, 2));
    (routers, wires)
}

fn ask(router: &Router, method: Method, path: &str) -> Result<String, ClientError> {
    Client::new(router.api().parse().expect("an address")).act(method, path, None)
}

fn allocate(router: &Router, ident: &str) -> Result<String, ClientError> {
    ask(router, Method::POST, &format!("/ip/{ident}"))
}

#[track_caller]
fn given(router: &Router, ident: &str) -> String {
    allocate(router, ident).unwrap_or_else(|error| panic!("{ident}: {error}\n{}", router.log()))
}

fn ipam(router: &Router) -> Value {
    router.status("ipam").unwrap_or_default()
}

fn owners(router: &Router) -> BTreeMap<String, bool> {
    let status = ipam(router);
    let rows = status["owners"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| (row["name"].as_str().unwrap_or_default().to_string(), row["reachable"] == true)).collect()
}

fn name(router: &Router) -> String {
    router.status("").expect("an answer")["name"].as_str().expect("a name").to_string()
}

/// No address on two of the routers.
#[track_caller]
fn nothing_twice(routers: &[&Router]) {
    let mut seen = BTreeMap::new();
    for (n, router) in routers.iter().enumerate() {
        let rows: Vec<Value> = serde_json::from_str(&ask(router, Method::GET, "/ip").expect("an answer")).expect("JSON");
        for row in rows {
            let (address, container) = (row["address"].to_string(), row["container"].to_string());
            if let Some(other) = seen.insert(address.clone(), (n, container.clone())) {
                panic!("{address} is on router {n} ({container}) and on {other:?}");
            }
        }
    }
}

#[test]
fn ipam_three_hosts_never_give_one_address_twice_and_keep_them_over_restarts() {
    scene(|lab| {
        let (mut routers, _wires) = three(lab, &["--ipalloc-range", "10.50.0.0/24"]);
        let mut known = BTreeMap::new();
        for round in 0..10 {
            for (n, router) in routers.iter().enumerate() {
                let ident = format!("c{n}-{round}");
                known.insert((n, ident.clone()), given(router, &ident));
            }
        }
        nothing_twice(&routers.iter().collect::<Vec<_>>());
        assert_eq!(ask(&routers[0], Method::GET, "/ipinfo/defaultsubnet").expect("an answer"), "10.50.0.0/24");
        for (n, router) in routers.iter_mut().enumerate() {
            if n == 1 {
                router.process().kill().expect("killed");
            } else {
                router.stop().expect("stopped");
            }
            router.restart().expect("started");
        }
        for ((n, ident), address) in &known {
            assert_eq!(&given(&routers[*n], ident), address, "{ident}");
            assert_eq!(&ask(&routers[*n], Method::GET, &format!("/ip/{ident}")).expect("an answer"), address);
        }
        let text = routers[0].client(&["status", "ipam"]).expect("the client runs");
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(text.lines().count() == 3 && text.contains("% of total)") && text.contains("(10 active)"), "{text}");
    });
}

#[test]
fn ipam_errors_are_sentences_with_a_status() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let one = router(lab, "h1", &[PASSWORD, &["--ipalloc-range", "10.50.0.0/29", "--ipalloc-range", "fd00:50::/64"]].concat());
        assert_eq!(given(&one, "c"), "10.50.0.1/29");
        assert_eq!(ask(&one, Method::POST, "/ip/c/fd00:50::/64").expect("an address"), "fd00:50::1/64");
        assert_eq!(ask(&one, Method::GET, "/ip/c").expect("both"), "10.50.0.1/29 fd00:50::1/64");
        let refused = |method: Method, path: &str, words: &str| {
            let error = ask(&one, method, path).expect_err("a refusal").to_string();
            assert!(error.contains(words), "{path}: {error}");
        };
        refused(Method::POST, "/ip/d/10.50.0.1/29", "host bits");
        refused(Method::POST, "/ip/d/192.168.0.0/24", "nothing of it is in --ipalloc-range");
        refused(Method::POST, "/ip/d/ten/24", "not an address");
        refused(Method::PUT, "/ip/d/10.50.0.1/29", "is the address of container c");
        refused(Method::PUT, "/ip/d/10.50.0.7/29", "last address");
        refused(Method::GET, "/ip/d", "no such address");
        refused(Method::DELETE, "/peer/nobody", "no router is known");
        let own = one.status("").expect("a status");
        for name in ["name", "nickname"] {
            refused(Method::DELETE, &format!("/peer/{}", own[name].as_str().expect("a name")), "cannot remove itself");
        }
        for n in 2..7 {
            assert_eq!(given(&one, &format!("c{n}")), format!("10.50.0.{n}/29"));
        }
        refused(Method::POST, "/ip/late", "nothing free");
        ask(&one, Method::DELETE, "/ip/c3").expect("freed");
        ask(&one, Method::DELETE, "/ip/c3").expect("twice is once");
        assert_eq!(given(&one, "late"), "10.50.0.3/29");
        let metrics = ask(&one, Method::GET, "/metrics").expect("metrics");
        assert!(metrics.contains("weave_ips{state=\"local-used\"} 7") && metrics.contains("weave_ipam_pending_allocates 0"), "{metrics}");
    });
}

#[test]
fn ipam_a_router_alone_that_was_reset_begins_anew_when_it_is_started_again() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let mut one = router(lab, "h1", &[PASSWORD, &["--ipalloc-range", "10.50.0.0/24"]].concat());
        assert_eq!(given(&one, "c"), "10.50.0.1/24");
        let another = [PASSWORD, &["--ipalloc-range", "10.51.0.0/24"]].concat();
        let restart = |one: &mut Router| {
            assert!(one.stop().expect("stopped").is_some());
            one.restart_with(&another).expect("started");
        };
        restart(&mut one);
        let said = ask(&one, Method::POST, "/ip/c").expect_err("another range").to_string();
        assert!(said.contains("`reset` this router and start it again"), "{said}");
        assert!(ask(&one, Method::GET, "/status/ipam").expect("a page").contains("(100.0% of total)"));
        ask(&one, Method::DELETE, "/peer").expect("reset");
        restart(&mut one);
        assert_eq!(given(&one, "c"), "10.51.0.1/24");
        // What is given after a reset is kept.
        ask(&one, Method::DELETE, "/peer").expect("reset");
        assert_eq!(given(&one, "d"), "10.51.0.2/24");
        restart(&mut one);
        assert_eq!((given(&one, "d"), given(&one, "c")), ("10.51.0.2/24".into(), "10.51.0.1/24".into()));
    });
}

#[test]
fn ipam_a_router_with_peers_waits_for_them_and_prime_says_when() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        lab.host("h2").expect("a host");
        let wire = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
        let first = router(lab, "h1", &[PASSWORD, &["--peer", &peer(wire.b.ip)]].concat());
        let error = allocate(&first, "c").expect_err("alone").to_string();
        assert!(error.contains("awaiting consensus (quorum: 2, known: 1)"), "{error}");
        let second = router(lab, "h2", &[PASSWORD, &["--peer", &peer(wire.a.ip)]].concat());
        let primed = second.client(&["prime"]).expect("the client runs");
        assert!(primed.status.success(), "{}", String::from_utf8_lossy(&primed.stderr));
        given(&first, "c");
        given(&second, "c");
        nothing_twice(&[&first, &second]);
    });
}

#[test]
fn ipam_killed_at_random_moments_nothing_that_was_given_is_lost() {
    scene(|lab| {
        let (mut routers, _wires) = three(lab, &["--ipalloc-range", "10.50.0.0/24"]);
        // Each knows the ring and has something to give: from here on answers take milliseconds.
        for (n, router) in routers.iter().enumerate() {
            given(router, &format!("first{n}"));
        }
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        for round in 0..12u64 {
            let victim = (round % 3) as usize;
            let (process, router) = (routers[victim].process().id(), &routers[victim]);
            let answers = std::thread::scope(|scope| {
                let giving = scope.spawn(|| {
                    (0..12)
                        .filter_map(|n| Some((format!("k{round}-{n}"), allocate(router, &format!("k{round}-{n}")).ok()?)))
                        .collect::<Vec<_>>()
                });
                // Twelve allocations take some ten milliseconds each: the moment differs from round to round.
                pause(Duration::from_millis(7 * round + 3));
                let pid = nix::unistd::Pid::from_raw(i32::try_from(process).expect("a pid"));
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
                giving.join().expect("it ends")
            });
            routers[victim].process().kill().expect("reaped");
            routers[victim].restart().expect("started");
            known.extend(answers);
            for (ident, address) in known.iter().filter(|(ident, _)| ident.starts_with(&format!("k{round}-"))) {
                assert_eq!(&given(&routers[victim], ident), address, "{ident}");
            }
        }
        assert!(known.len() > 12, "some were answered: {}", known.len());
        nothing_twice(&routers.iter().collect::<Vec<_>>());
    });
}

#[test]
fn ipam_a_partition_goes_on_giving_and_a_dead_router_is_removed() {
    scene(|lab| {
        let (mut routers, wires) = three(lab, &["--ipalloc-range", "10.50.0.0/24"]);
        for router in &routers {
            given(router, "first");
        }
        wait_until(PATIENCE, "all know all owners", || routers.iter().all(|router| owners(router).len() == 3));
        lab.cut(&wires[1]).expect("cut");
        lab.cut(&wires[2]).expect("cut");
        for n in 0..5 {
            given(&routers[2], &format!("apart{n}"));
            given(&routers[0], &format!("apart{n}"));
        }
        nothing_twice(&routers.iter().collect::<Vec<_>>());
        let dead = name(&routers[2]);
        routers[2].process().kill().expect("killed");
        wait_until(PATIENCE, "it is missed", || owners(&routers[0]).get(&dead) == Some(&false));
        let removed = routers[0].client(&["rmpeer", "h3"]).expect("the client runs");
        let said = String::from_utf8_lossy(&removed.stdout).into_owned();
        assert!(removed.status.success() && said.contains("IPs taken over from h3"), "{said}{}", String::from_utf8_lossy(&removed.stderr));
        wait_until(PATIENCE, "everybody hears of it", || !owners(&routers[1]).contains_key(&dead));
        // It comes back, and gives way.
        lab.mend(&wires[1]).expect("mended");
        lab.mend(&wires[2]).expect("mended");
        routers[2].restart().expect("started");
        wait_until(PATIENCE, "it hears that it was removed", || !owners(&routers[2]).contains_key(&dead) || owners(&routers[2]).len() == 3);
        given(&routers[2], "back");
        nothing_twice(&routers.iter().collect::<Vec<_>>());
        let reset = routers[1].client(&["reset"]).expect("the client runs");
        assert!(String::from_utf8_lossy(&reset.stdout).contains("IPs handed over to"), "{}", String::from_utf8_lossy(&reset.stderr));
    });
}

#[test]
fn ipam_a_lost_state_leaves_running_containers_their_addresses() {
    scene(|lab| {
        let (mut one, two) = hosts(lab, &[]);
        given(&two, "elsewhere");
        let containers: Vec<String> = (0..6).map(|n| container(lab, &format!("c{n}"))).collect();
        let mut known: Vec<String> =
            containers.iter().map(|netns| verb(&one, &format!("attach --netns {netns}")).trim().to_string()).collect();
        known.push(verb(&one, "expose").trim().to_string());
        let mesh = ipam(&one)["mesh"].clone();
        one.process().kill().expect("killed");
        std::fs::remove_file(one.state_dir().join("state.redb")).expect("removed");
        one.restart().expect("started");
        // Asked for at once, while it has yet to find out what is there.
        let asked: Vec<String> = (0..12).map(|n| format!("new{n}")).collect();
        let new: Vec<String> = std::thread::scope(|scope| {
            let asking: Vec<_> = asked.iter().map(|ident| scope.spawn(|| given(&one, ident))).collect();
            asking.into_iter().map(|asking| asking.join().expect("an answer")).collect()
        });
        assert!(new.iter().all(|address| !known.contains(address)), "{new:?}, and in use are {known:?}");
        assert_eq!(ipam(&one)["mesh"], mesh, "it finds the others, and founds nothing apart");
        for (netns, address) in containers.iter().zip(&known) {
            assert_eq!(verb(&one, &format!("attach --netns {netns}")).trim(), address);
            let path = format!("/ip/{}", format!("netns:{netns}").replace('/', "%2F"));
            wait_until(PATIENCE, "it is the container's", || ask(&one, Method::GET, &path).is_ok_and(|text| text == *address));
        }
        nothing_twice(&[&one, &two]);
    });
}
