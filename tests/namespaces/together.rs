//! Attach, addresses and names together, as a user has them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;

use weave_router::host::lab::{Lab, Router};

use crate::attach::{ask, container, hosts, refused};
use crate::common::{router, wait_until};
use crate::scene::{PASSWORD, PATIENCE, ip, lines, reaches, scene, shell};
use crate::surroundings::Prepared;

/// The address in what `attach` and `expose` print.
#[track_caller]
fn only(printed: &str) -> IpAddr {
    let (address, bits) = printed.trim().split_once('/').unwrap_or_else(|| panic!("no address: {printed:?}"));
    assert_eq!(bits, "12", "of the range");
    address.parse().expect("an address")
}

fn tables(lab: &Lab, host: &str) -> String {
    shell(lab, host, "nft list tables | grep weave || true")
}

#[test]
fn together_containers_get_addresses_of_the_mesh_and_keep_them() {
    scene(|lab| {
        let (mut one, two) = hosts(lab, &[]);
        let (c1, c2, c3) = (container(lab, "c1"), container(lab, "c2"), container(lab, "c3"));
        let first = only(&ask(&one, &format!("attach --netns {c1} --hostname web")));
        let second = only(&ask(&two, &format!("attach --netns {c2} --hostname db")));
        assert_ne!(first, second);
        reaches(lab, "c1", second);
        reaches(lab, "c2", first);
        assert_eq!(only(&ask(&one, &format!("attach --netns {c1}"))), first, "again it is the same");
        // Neither a crash nor what is attached after it changes that.
        one.process().kill().expect("killed");
        one.restart().expect("started");
        assert_eq!(only(&ask(&one, &format!("attach --netns {c1}"))), first);
        let third = only(&ask(&one, &format!("attach --netns {c3}")));
        assert!(third != first && third != second);
        reaches(lab, "c2", third);
        // A container that is started again soon has its address again; meanwhile nobody else gets it.
        lab.remove("c1").expect("removed");
        wait_until(PATIENCE, "it is noticed", || !ask(&one, "ps").contains("-c1 "));
        let c1 = container(lab, "c1");
        assert_eq!(only(&ask(&one, &format!("attach --netns {c1} --hostname web"))), first);
        reaches(lab, "c2", first);
        assert_eq!(only(&ask(&one, &format!("detach --netns {c1}"))), first);
        assert_eq!(ask(&one, &format!("detach --netns {c1}")), "", "and again nothing");
        // An address that another has is not taken.
        let said = refused(&one, &format!("attach ip:{second}/12 --netns {c1}"));
        assert!(said.contains(&second.to_string()), "{said}");
    });
}

#[test]
fn together_a_subnet_of_its_own_and_several_addresses() {
    scene(|lab| {
        let (one, two) = hosts(lab, &[]);
        let (c1, c2) = (container(lab, "c1"), container(lab, "c2"));
        let printed = ask(&one, &format!("attach net:default net:10.33.1.0/24 ip:10.99.1.1/24 --netns {c1}"));
        let lines: Vec<&str> = printed.lines().collect();
        assert!(lines.len() == 3 && lines[1].starts_with("10.33.1.") && lines[2] == "10.99.1.1/24", "{printed}");
        let other = ask(&two, &format!("attach net:10.33.1.0/24 --netns {c2}"));
        assert!(other.starts_with("10.33.1.") && other != format!("{}\n", lines[1]), "{other}");
        reaches(lab, "c2", lines[1].split('/').next().and_then(|text| text.parse().ok()).expect("an address"));
        assert_eq!(ask(&one, &format!("detach net:10.33.1.0/24 --netns {c1}")), format!("{}\n", lines[1]));
        assert!(ip(lab, "c1", "addr show dev ethwe").contains("10.99.1.1/24"));
    });
}

#[test]
fn together_the_default_subnet_is_one_of_each_family() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let ranges = ["--ipalloc-range", "10.32.0.0/12", "--ipalloc-range", "fd00:32::/48"];
        let subnets = ["--ipalloc-default-subnet", "10.33.1.0/24", "--ipalloc-default-subnet", "fd00:32:0:1::/64"];
        let one = router(lab, "h1", &[PASSWORD, &ranges, &subnets].concat());
        let (c1, c2) = (container(lab, "c1"), container(lab, "c2"));
        let both = |printed: String| {
            let lines: Vec<&str> = printed.lines().collect();
            let fits = |n: usize, start: &str, end: &str| lines.get(n).is_some_and(|line| line.starts_with(start) && line.ends_with(end));
            assert!(lines.len() == 2 && fits(0, "10.33.1.", "/24") && fits(1, "fd00:32:0:1::", "/64"), "{printed}");
            lines.iter().map(|line| line.split('/').next().and_then(|text| text.parse().ok()).expect("an address")).collect::<Vec<IpAddr>>()
        };
        both(ask(&one, &format!("attach --netns {c1}")));
        let second = ask(&one, &format!("attach net:default --netns {c2}"));
        let host = ask(&one, "expose -h gate");
        for address in both(second.clone()).into_iter().chain(both(host.clone())) {
            reaches(lab, "c1", address);
        }
        assert_eq!(ask(&one, "dns-lookup gate").lines().count(), 2);
        assert_eq!((ask(&one, "hide"), ask(&one, &format!("detach --netns {c2}"))), (host, second));
        assert_eq!(ask(&one, "ps").lines().count(), 1);
    });
}

#[test]
fn together_a_range_in_the_way_of_a_route_is_refused_where_nobody_chose_it() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        lab.host("h2").expect("a host");
        let wire = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
        let route = |lab: &Lab, what: &str| ip(lab, "h1", &format!("route {what} 10.40.0.0/16 dev {}", wire.a.interface));
        route(lab, "add");
        let refused = Router::up(lab, "h1", env!("CARGO_BIN_EXE_weave-router").as_ref(), PASSWORD).expect_err("it does not start");
        let said = refused.to_string();
        assert!(said.contains("route to 10.40.0.0/16") && said.contains(&wire.a.interface) && said.contains("--ipalloc-range"), "{said}");
        assert!(!ip(lab, "h1", "-o link").contains("weave"), "nothing is left");
        let chosen = router(lab, "h1", &[PASSWORD, &["--ipalloc-range", "10.32.0.0/12"]].concat());
        assert_eq!(lines(&chosen, "overlaps this host's route to 10.40.0.0/16").len(), 1);
        drop(chosen);
        route(lab, "del");
        // A mesh that gives addresses is not left for a route that came later.
        let mut router = router(lab, "h1", PASSWORD);
        let c1 = container(lab, "c1");
        let first = only(&ask(&router, &format!("attach --netns {c1}")));
        ask(&router, "expose");
        route(lab, "add");
        assert!(router.stop().expect("stopped").is_some());
        router.restart().expect("started");
        assert_eq!(lines(&router, "overlaps this host's route").len(), 1);
        assert_eq!(only(&ask(&router, &format!("attach --netns {c1}"))), first);
    });
}

#[test]
fn together_a_router_without_quorum_takes_away_and_gives_what_is_outside_of_the_range() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let alone = router(lab, "h1", &[PASSWORD, &["--ipalloc-init", "consensus=3"]].concat());
        let c1 = container(lab, "c1");
        // Weave's smoke tests 320 and 510: only what needs the ring waits for it.
        assert_eq!(ask(&alone, &format!("attach ip:10.2.1.1/24 --netns {c1}")), "10.2.1.1/24\n");
        assert_eq!(ask(&alone, "expose ip:10.2.1.101/24"), "10.2.1.101/24\n");
        assert_eq!(
            (ask(&alone, "hide"), ask(&alone, &format!("detach --netns {c1}"))),
            (String::new(), String::new()),
            "it has none of the range"
        );
        assert_eq!(ask(&alone, "hide net:10.2.1.0/24"), "10.2.1.101/24\n");
        assert_eq!(ask(&alone, &format!("detach ip:10.2.1.1/24 --netns {c1}")), "10.2.1.1/24\n");
        assert_eq!(ask(&alone, "ps"), "");
        let said = refused(&alone, &format!("attach --netns {c1}"));
        assert!(said.contains("awaiting consensus"), "{said}");
    });
}

/// The status that a request is answered with.
fn status_of(router: &Router, path: &str, body: &serde_json::Value) -> String {
    let (api, body) = (router.api(), body.to_string());
    let mut stream = UnixStream::connect(api.trim_start_matches("unix:")).expect("a connection");
    let head = format!("POST {path} HTTP/1.1\r\nHost: router\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n{body}").as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).unwrap_or_default().to_string()
}

#[test]
fn together_a_full_disk_loses_nothing_that_was_said_and_is_over_once_there_is_room() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        // The router's own view of the file system begins when it starts: containers that are to be seen in it are there before.
        let containers: Vec<String> = (0..40).map(|n| container(lab, &format!("c{n}"))).collect();
        // `launch --state-dir DIR …`
        let prepared = Prepared::new("[ \"$2\" != launch ] || { mkdir -p \"$4\"; mount -t tmpfs -o size=8m none \"$4\"; }");
        let mut one = prepared.up(lab, "h1", PASSWORD);
        let (c0, last) = (&containers[0], &containers[39]);
        let first = only(&ask(&one, &format!("attach --netns {c0}")));
        let ballast = format!("/proc/{}/root{}/ballast", one.process().id(), one.state_dir().display());
        assert!(std::fs::write(&ballast, vec![0; 16 << 20]).is_err(), "the disk is full");
        // What the file has room for is still done, the rest refused in a sentence.
        let mut given = vec![first];
        let long = "x".repeat(60);
        for netns in &containers[1..39] {
            let out = one.client(&["attach", "--hostname", &long, "--netns", netns]).expect("the client runs");
            match out.status.success() {
                true => given.push(only(&String::from_utf8_lossy(&out.stdout))),
                false => assert_eq!(String::from_utf8_lossy(&out.stderr).lines().count(), 1, "{out:?}"),
            }
            if !out.status.success() {
                let body = serde_json::json!({ "ident": format!("netns:{netns}"), "netns": netns, "names": [long] });
                assert_eq!(status_of(&one, "/attach", &body), "507", "the API tells programs why");
                break;
            }
        }
        std::fs::remove_file(&ballast).expect("removed");
        wait_until(PATIENCE, "it works again", || one.client(&["attach", "--netns", last]).is_ok_and(|out| out.status.success()));
        given.push(only(&ask(&one, &format!("attach --netns {last}"))));
        let unique: BTreeSet<IpAddr> = given.iter().copied().collect();
        assert_eq!(unique.len(), given.len(), "none is given twice: {given:?}");
        let listed = ask(&one, "ps");
        assert!(given.iter().all(|address| listed.contains(&format!("{address}/12"))), "{listed}");
    });
}

#[test]
fn together_a_reset_host_leaves_nothing_behind_and_hands_its_addresses_over() {
    scene(|lab| {
        let (mut one, two) = hosts(lab, &[]);
        let (c1, c2) = (container(lab, "c1"), container(lab, "c2"));
        ask(&one, &format!("attach --netns {c1} --hostname web"));
        let second = only(&ask(&two, &format!("attach --netns {c2}")));
        ask(&one, "expose");
        reaches(lab, "c1", second);
        assert!(!tables(lab, "h1").is_empty());
        let said = ask(&one, "reset");
        assert!(said.contains("IPs handed over to"), "{said}");
        assert_eq!(ask(&one, "ps"), "");
        assert!(!ip(lab, "h1", "-o link show type veth").contains("vethwe"));
        assert!(!ip(lab, "h1", "addr show dev weave").contains("inet 10."));
        wait_until(PATIENCE, "the rules are gone", || tables(lab, "h1").is_empty());
        wait_until(PATIENCE, "the name is gone", || !ask(&two, "status dns").contains("web"));
        wait_until(PATIENCE, "all is the other's", || ask(&two, "status ipam").contains("100.0% of total"));
        // The other goes on.
        let c3 = container(lab, "c3");
        let third = only(&ask(&two, &format!("attach --netns {c3}")));
        reaches(lab, "c2", third);
        // Where it is started again it is a member still, which owns nothing: it founds no other ring while it is alone, and gets space from the other.
        assert!(one.stop().expect("stopped").is_some());
        one.restart().expect("started");
        assert_eq!(lines(&one, "was reset: it knows nothing").len(), 0);
        let fourth = only(&ask(&one, &format!("attach --netns {c1}")));
        assert!(fourth != second && fourth != third);
        reaches(lab, "c2", fourth);
        // Under options that speak of another ring it forgets this one instead of refusing for ever.
        ask(&one, "reset");
        assert!(one.stop().expect("stopped").is_some());
        one.restart_with(&[PASSWORD, &["--ipalloc-range", "10.96.0.0/12"]].concat()).expect("started");
        assert_eq!(lines(&one, "was reset: it knows nothing").len(), 1);
        assert!(ask(&one, &format!("attach --netns {c1}")).starts_with("10."));
    });
}
