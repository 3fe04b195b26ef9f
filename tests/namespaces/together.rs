//! Attach, addresses and names together, as a user has them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weave_router::host::lab::Lab;

use crate::attach::{ask, container, hosts, refused};
use crate::common::wait_until;
use crate::scene::{PASSWORD, PATIENCE, ip, reaches, scene, shell};
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
        wait_until(PATIENCE, "it is noticed", || !ask(&one, "ps").contains("c1"));
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
        let (one, two) = hosts(lab, &[]);
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
    });
}
