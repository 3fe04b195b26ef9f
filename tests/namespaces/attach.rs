//! Containers that are attached and detached by the program itself.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use weave_router::api::client::Client;
use weave_router::host::lab::clock::{Stopwatch, pause, wait_until as soon};
use weave_router::host::lab::{Capture, Lab, Router, in_namespace};

use crate::common::{router, wait_until};
use crate::scene::{PASSWORD, PATIENCE, all_come_back, ip, is_silent, links, reaches, run, scene, traffic_goes_on};

/// A second, as users of containers count it.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Runs a verb that must succeed, and answers with what it prints.
#[track_caller]
pub fn ask(router: &Router, words: &str) -> String {
    let output = router.client(&words.split_whitespace().collect::<Vec<_>>()).expect("the client runs");
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a verb that must fail, and answers with its sentence.
#[track_caller]
pub fn refused(router: &Router, words: &str) -> String {
    let output = router.client(&words.split_whitespace().collect::<Vec<_>>()).expect("the client runs");
    assert!(!output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A container: a namespace with nothing but loopback. Answers with what `--netns` takes.
pub fn container(lab: &mut Lab, name: &str) -> String {
    format!("/run/netns/{}", lab.host(name).expect("a container"))
}

/// Two hosts whose routers are in touch.
pub fn hosts(lab: &mut Lab, options: &[&str]) -> (Router, Router) {
    lab.host("h1").expect("a host");
    lab.host("h2").expect("a host");
    lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
    let one = router(lab, "h1", &[PASSWORD, options].concat());
    let two = router(lab, "h2", &[PASSWORD, options, &["--peer", "10.9.1.1"]].concat());
    links(&one, 1);
    (one, two)
}

pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn veths(lab: &Lab, host: &str) -> usize {
    ip(lab, host, "-o link show type veth").lines().filter(|line| line.contains("vethwe")).count()
}

#[test]
fn attach_containers_of_two_hosts_and_detach_them_again() {
    scene(|lab| {
        let (one, two) = hosts(lab, &[]);
        let (c1, c2) = (container(lab, "c1"), container(lab, "c2"));
        let printed = ask(&one, &format!("attach ip:10.2.1.1/24 fd00:2::1/64 --netns {c1}"));
        assert_eq!(printed, "10.2.1.1/24\nfd00:2::1/64\n");
        ask(&two, &format!("attach 10.2.1.2/24 ip:fd00:2::2/64 --netns {c2}"));
        reaches(lab, "c1", address("10.2.1.2"));
        reaches(lab, "c1", address("fd00:2::2"));
        let line = ask(&one, "ps");
        assert!(line.starts_with(&format!("netns:{c1} ")) && line.ends_with(" 10.2.1.1/24 fd00:2::1/64\n"), "{line}");
        assert_eq!(ask(&one, &format!("attach ip:10.2.1.1/24 --netns {c1}")), "10.2.1.1/24\n", "once more");
        assert_eq!(ask(&one, &format!("ps netns:{c1}")), line, "and nothing changed");
        assert_eq!(one.status("containers").expect("a page")["containers"].as_array().map(Vec::len), Some(1));
        // A second subnet on the same interface.
        ask(&one, &format!("attach ip:10.2.2.1/24 --netns {c1}"));
        assert_eq!(ask(&one, &format!("detach net:10.2.2.0/24 --netns {c1}")), "10.2.2.1/24\n");
        assert_eq!(ask(&one, &format!("detach net:10.2.2.0/24 --netns {c1}")), "", "it is gone already");
        traffic_goes_on(lab, "c1", address("10.2.1.2"));
        assert_eq!(ask(&one, &format!("detach --all --netns {c1}")), "10.2.1.1/24\nfd00:2::1/64\n");
        assert_eq!((ask(&one, "ps"), veths(lab, "h1")), (String::new(), 0));
        assert_eq!(ask(&one, &format!("detach --all --netns {c1}")), "");
        assert!(is_silent(lab, "c2", address("10.2.1.1")));
    });
}

#[test]
fn attach_says_what_is_wrong() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let router = router(lab, "h1", PASSWORD);
        let c1 = container(lab, "c1");
        for (words, said) in [
            (format!("attach ip:10.2.1.0/24 --netns {c1}"), "is a subnet"),
            (format!("attach net:10.2.1.1/24 --netns {c1}"), "no subnet"),
            (format!("attach net:10.2.1.0/31 --netns {c1}"), "too small"),
            (format!("attach ip:10.2.1.1/24 --netns {c1}-gone"), "c1-gone"),
            (format!("attach ip:10.2.1.1/24 --netns /run/netns/{}", lab.namespace("h1")), "the host's own"),
            ("attach ip:10.2.1.1/24".into(), "takes a container"),
            ("attach ip:10.2.1.1/24 web --docker-host unix:///no/such/socket".into(), "there is no socket"),
            (format!("detach --all ip:10.2.1.1/24 --netns {c1}"), "every one"),
            ("attach-bridge nothing0".into(), "no such bridge"),
        ] {
            let sentence = refused(&router, &words);
            assert!(sentence.contains(said), "{words}: {sentence}");
        }
        assert_eq!((ask(&router, "ps"), veths(lab, "h1")), (String::new(), 0));
        // A process says where its container is, too.
        let mut sleeper = lab.spawn("c1", std::process::Command::new("sleep").arg("60")).expect("a process");
        assert_eq!(ask(&router, &format!("attach 10.2.1.1/24 --no-multicast-route --pid {}", sleeper.id())), "10.2.1.1/24\n");
        assert!(!run(lab, "c1", "ip", "route show").contains("224.0.0.0/4"));
        assert!(refused(&router, &format!("attach 10.2.1.1/24 --netns {c1}")).contains("pid:"));
        sleeper.kill().expect("killed");
    });
}

#[test]
fn attach_is_found_again_by_a_restarted_and_by_a_killed_router() {
    scene(|lab| {
        let (mut one, two) = hosts(lab, &[]);
        let (c1, c2) = (container(lab, "c1"), container(lab, "c2"));
        ask(&one, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        ask(&two, &format!("attach ip:10.2.1.2/24 --netns {c2}"));
        reaches(lab, "c1", address("10.2.1.2"));
        let before = ask(&one, "ps");
        for kill in [false, true] {
            match kill {
                true => one.process().kill().expect("killed"),
                false => assert!(one.stop().expect("stopped").is_some()),
            }
            one.restart().expect("started");
            assert_eq!(ask(&one, "ps"), before);
            reaches(lab, "c1", address("10.2.1.2"));
        }
        // Nor is anything lost where the bridge went meanwhile, or goes while the router runs.
        one.process().kill().expect("killed");
        ip(lab, "h1", "link del weave");
        one.restart().expect("started");
        reaches(lab, "c1", address("10.2.1.2"));
        ip(lab, "h1", "link del weave");
        reaches(lab, "c1", address("10.2.1.2"));
        assert_eq!(ask(&one, "ps"), before);
        // A state that is lost is no more than that.
        one.process().kill().expect("killed");
        std::fs::remove_file(one.state_dir().join("state.redb")).expect("removed");
        one.restart().expect("started");
        assert_eq!(ask(&one, "ps"), before);
        assert_eq!(ask(&one, &format!("detach --all --netns {c1}")), "10.2.1.1/24\n");
    });
}

#[test]
fn attach_follows_the_mtu_that_a_restarted_router_is_given() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let mut router = router(lab, "h1", PASSWORD);
        let c1 = container(lab, "c1");
        ask(&router, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        let mtu =
            |lab: &Lab, name: &str, what: &str, size: u16| ip(lab, name, &format!("-o link show {what}")).contains(&format!("mtu {size} "));
        for size in [1300, 1410] {
            assert!(router.stop().expect("stopped").is_some());
            router.restart_with(&[PASSWORD, &["--mtu", &size.to_string()]].concat()).expect("started");
            wait_until(PATIENCE, "the container has it", || mtu(lab, "c1", "ethwe", size));
            assert!(mtu(lab, "h1", "type veth", size) && mtu(lab, "h1", "weave", size));
        }
        // The namespace of one that was attached by its process is known as well.
        let c2 = container(lab, "c2");
        let mut sleeper = lab.spawn("c2", std::process::Command::new("sleep").arg("60")).expect("a process");
        ask(&router, &format!("attach ip:10.2.1.2/24 --pid {}", sleeper.id()));
        router.process().kill().expect("killed");
        router.restart_with(&[PASSWORD, &["--mtu", "1280"]].concat()).expect("started");
        wait_until(PATIENCE, "both have it", || mtu(lab, "c1", "ethwe", 1280) && mtu(lab, "c2", "ethwe", 1280));
        sleeper.kill().expect("killed");
        drop(c2);
    });
}

#[test]
fn attach_ends_with_its_container() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let mut router = router(lab, "h1", PASSWORD);
        let c1 = container(lab, "c1");
        ask(&router, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        lab.remove("c1").expect("removed");
        wait_until(PATIENCE, "the container is gone", || !crate::scene::lines(&router, "is gone").is_empty());
        assert_eq!((ask(&router, "ps"), veths(lab, "h1")), (String::new(), 0));
        // The next of its name is another container.
        let c1 = container(lab, "c1");
        ask(&router, &format!("attach ip:10.2.1.1/24 --hostname web --netns {c1}"));
        assert_eq!(veths(lab, "h1"), 1);
        // One that ends while no router is there to see it is missed by the next.
        router.process().kill().expect("killed");
        lab.remove("c1").expect("removed");
        router.restart().expect("started");
        assert_eq!((ask(&router, "ps"), veths(lab, "h1")), (String::new(), 0));
        wait_until(PATIENCE, "its name is gone", || !ask(&router, "status dns").contains("web"));
    });
}

#[test]
fn attach_of_a_used_address_is_noticed_at_once_by_the_others() {
    scene(|lab| {
        let (one, two) = hosts(lab, &[]);
        let (c1, c2, c3) = (container(lab, "c1"), container(lab, "c2"), container(lab, "c3"));
        ask(&one, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        ask(&two, &format!("attach ip:10.2.1.2/24 --netns {c2}"));
        reaches(lab, "c1", address("10.2.1.2"));
        let mac = |lab: &Lab| ip(lab, "c1", "neigh show 10.2.1.2");
        let before = mac(lab);
        assert!(before.contains("lladdr"), "its cache is warm: {before}");
        ask(&two, &format!("detach --all --netns {c2}"));
        ask(&two, &format!("attach ip:10.2.1.2/24 --netns {c3}"));
        let now = ask(&two, "ps").split(' ').nth(1).expect("a MAC").to_string();
        assert!(soon(AT_ONCE, || mac(lab).contains(&now)), "{before} {now}");
        assert!(lab.ping("c1", address("10.2.1.2"), "-c 1 -W 3").expect("ping"), "the first echo comes back, late at worst");
        // On the other host the same.
        let c4 = container(lab, "c4");
        ask(&two, &format!("detach --all --netns {c3}"));
        ask(&one, &format!("attach ip:10.2.1.2/24 --netns {c4}"));
        // From the first echo on, and nothing that is still said of the one before turns it back.
        all_come_back(lab, "c1", address("10.2.1.2"), 13, 100, "-W 3");
    });
}

#[test]
fn attach_gives_names_that_go_with_the_container() {
    scene(|lab| {
        let (mut one, two) = hosts(lab, &[]);
        let c1 = container(lab, "c1");
        let known = |name: &str, on: &Router| on.client(&["dns-lookup", name]).is_ok_and(|out| out.stdout.starts_with(b"10.2.1."));
        ask(&one, &format!("attach ip:10.2.1.1/24 --hostname web --netns {c1}"));
        ask(&one, "expose ip:10.2.1.101/24 --hostname gate");
        wait_until(PATIENCE, "the names are known elsewhere", || known("web", &two) && known("gate.weave.local", &two));
        one.process().kill().expect("killed");
        one.restart().expect("started");
        wait_until(PATIENCE, "the names are known again", || known("web", &one) && known("gate", &one));
        wait_until(PATIENCE, "and elsewhere", || known("web", &two));
        lab.remove("c1").expect("removed");
        wait_until(PATIENCE, "the name is gone with its container", || !known("web", &two));
        let c1 = container(lab, "c1");
        ask(&one, &format!("attach ip:10.2.1.1/24 --hostname web --netns {c1}"));
        wait_until(PATIENCE, "the name is back", || known("web", &two));
        ask(&one, &format!("detach ip:10.2.1.1/24 --netns {c1}"));
        ask(&one, "hide --all");
        wait_until(PATIENCE, "both are gone", || !known("web", &two) && !known("gate", &two));
        // A name that cannot be is no reason to be half attached.
        assert!(refused(&one, &format!("attach ip:10.2.1.1/24 --hostname web.example --netns {c1}")).contains("web.example"));
        assert_eq!((ask(&one, "ps"), veths(lab, "h1")), (String::new(), 0));
    });
}

/// What a name server says of a name to a container.
fn dig(lab: &Lab, from: &str, name: &str, options: &[&str]) -> String {
    let args = [&["@169.254.53.53", name, "+short", "+time=2", "+tries=1"][..], options].concat();
    String::from_utf8_lossy(&lab.exec(from, "dig", &args).expect("dig is installed").stdout).trim().to_string()
}

#[test]
fn attach_leads_to_the_name_server_whether_or_not_the_host_is_exposed() {
    scene(|lab| {
        let (one, two) = hosts(lab, &[]);
        let (c1, c2) = (container(lab, "c1"), container(lab, "c2"));
        ask(&one, &format!("attach ip:10.2.1.1/24 --hostname web --netns {c1}"));
        ask(&two, &format!("attach ip:10.2.1.2/24 --hostname db --netns {c2}"));
        for exposed in [false, true] {
            if exposed {
                ask(&one, "expose ip:10.2.1.101/24");
            }
            wait_until(PATIENCE, "names are known in a container", || dig(lab, "c1", "db.weave.local", &[]) == "10.2.1.2");
            assert_eq!(dig(lab, "c1", "db.weave.local", &["+tcp"]), "10.2.1.2");
            assert_eq!(dig(lab, "c1", "web.weave.local", &[]), "10.2.1.1");
        }
    });
}

#[test]
fn expose_and_hide_stay_as_they_were_asked_for() {
    scene(|lab| {
        let (one, _two) = hosts(lab, &[]);
        for round in 0..20 {
            assert_eq!(ask(&one, "expose ip:10.2.1.101/24"), "10.2.1.101/24\n");
            assert_eq!(ask(&one, "hide ip:10.2.1.101/24"), "10.2.1.101/24\n");
            // What happens on the bridge meanwhile has the router look at it.
            ip(lab, "h1", &format!("link add d{round} type veth peer name e{round}"));
            ip(lab, "h1", &format!("link set d{round} master weave"));
            assert!(!ip(lab, "h1", "addr show dev weave").contains("10.2.1.101"), "round {round}");
        }
        pause(AT_ONCE);
        assert!(!ip(lab, "h1", "addr show dev weave").contains("10.2.1.101"));
    });
}

#[test]
fn attach_a_container_that_reaches_itself_through_the_bridge() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let router = router(lab, "h1", PASSWORD);
        let c1 = container(lab, "c1");
        ask(&router, &format!("attach ip:10.2.1.1/24 --netns {c1}"));
        // What it sends to everybody is seen once as it leaves, and once as it comes back.
        let capture = Capture::start(lab, "c1", "ethwe", "udp port 9").expect("tcpdump");
        let sent = in_namespace(&lab.namespace("c1"), || {
            let socket = std::net::UdpSocket::bind("10.2.1.1:0")?;
            socket.set_broadcast(true)?;
            socket.send_to(b"x", "10.2.1.255:9")
        });
        assert_eq!(sent.expect("the namespace").expect("sent"), 1);
        let seen = capture.lines().expect("packets");
        assert_eq!(seen.iter().filter(|line| line.contains("10.2.1.255.9:")).count(), 2, "{seen:?}");
    });
}

/// Containers that are attached, and then detached, side by side.
const MANY: usize = 500;
/// So many requests are under way at any moment.
const SIDE_BY_SIDE: usize = 64;

#[test]
fn attach_and_detach_many_at_once() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let router = router(lab, "h1", PASSWORD);
        let names: Vec<String> = (0..MANY).map(|n| container(lab, &format!("c{n}"))).collect();
        // What the verbs ask of the router; a thousand processes that ask it would cost more than what is asked.
        let client = &Client::new(router.api().parse().expect("an address"));
        let at_once = |path: &str, body: &(dyn Fn(usize, &str) -> serde_json::Value + Sync)| {
            let (next, clock) = (&AtomicUsize::new(0), Stopwatch::start());
            let work = || {
                while let Some((n, netns)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, names.get(n)?))) {
                    let done = client.act(hyper::Method::POST, path, Some(&body(n, netns)));
                    done.unwrap_or_else(|error| panic!("{path} {n}: {error}"));
                }
            };
            std::thread::scope(|scope| (0..SIDE_BY_SIDE).for_each(|_| drop(scope.spawn(work))));
            clock.elapsed()
        };
        let attached = at_once("/attach", &|n, netns| {
            let address = format!("ip:10.2.{}.{}/16", n / 200, n % 200 + 1);
            serde_json::json!({ "ident": format!("netns:{netns}"), "netns": netns, "addresses": [address], "names": [format!("c{n}")] })
        });
        let names_known = |count: usize| ask(&router, "status dns").matches(".weave.local").count() == count;
        assert_eq!((ask(&router, "ps").lines().count(), veths(lab, "h1")), (MANY, MANY));
        wait_until(PATIENCE, "each has its name", || names_known(MANY));
        let detached =
            at_once("/detach", &|_, netns| serde_json::json!({ "ident": format!("netns:{netns}"), "netns": netns, "all": true }));
        println!("{MANY} attached within {attached:?}, detached within {detached:?}");
        assert_eq!((ask(&router, "ps"), veths(lab, "h1")), (String::new(), 0));
        assert_eq!(ask(&router, "status containers --json").matches("ident").count(), 0);
        wait_until(PATIENCE, "the names are gone", || names_known(0));
    });
}
