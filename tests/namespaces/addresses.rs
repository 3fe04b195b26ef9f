//! Hosts with several addresses: a peer is answered from the one it has asked.

use crate::common::router;
use crate::flow::transfer;
use crate::scene::{PASSWORD, connections, container, ip, links, reaches, scene};
use weave_router::host::lab::Plug;

/// Whom the only link of a router is with, by address.
fn linked_with(router: &weave_router::host::lab::Router) -> Vec<String> {
    connections(router, "established").iter().map(|row| row["address"].as_str().unwrap_or_default().to_string()).collect()
}

#[test]
fn a_second_address_of_a_host_can_be_dialled() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        lab.host("h2").expect("a host");
        let wire = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
        ip(lab, "h1", &format!("addr add 10.9.1.77/24 dev {}", wire.a.interface));
        let r1 = router(lab, "h1", &[&["--nickname", "h1", "--no-discovery"], PASSWORD].concat());
        let r2 = router(lab, "h2", &[&["--nickname", "h2", "--no-discovery", "--peer", "10.9.1.77"], PASSWORD].concat());
        links(&r2, 1);
        links(&r1, 1);
        assert_eq!(linked_with(&r2), ["10.9.1.77:6783"]);
        let (_, far) = (container(lab, "h1", "c1", 1, &Plug::default()), container(lab, "h2", "c2", 2, &Plug::default()));
        reaches(lab, "c1", far.ip);
        transfer(&lab.namespace("c1"), &lab.namespace("c2"), far.ip, 1 << 20);
    });
}

#[test]
fn each_of_two_addresses_that_are_bound_answers_for_itself() {
    scene(|lab| {
        for host in ["h1", "h2", "h3"] {
            lab.host(host).expect("a host");
        }
        let near = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
        let far = lab.wire("h1", "h3", "10.9.2.0/24").expect("a wire");
        let (near, far) = (near.a.ip.to_string(), far.a.ip.to_string());
        let bind = ["--nickname", "h1", "--bind", &near, "--bind", &far];
        let r1 = router(lab, "h1", &[&bind, PASSWORD].concat());
        let r2 = router(lab, "h2", &[&["--nickname", "h2", "--peer", &near], PASSWORD].concat());
        let r3 = router(lab, "h3", &[&["--nickname", "h3", "--peer", &far], PASSWORD].concat());
        links(&r1, 2);
        [&r2, &r3].into_iter().for_each(|router| links(router, 1));
        assert_eq!(linked_with(&r2), [format!("{near}:6783")]);
        assert_eq!(linked_with(&r3), [format!("{far}:6783")]);
        let _ = (container(lab, "h2", "c2", 2, &Plug::default()), container(lab, "h3", "c3", 3, &Plug::default()));
        reaches(lab, "c2", [10, 32, 0, 3].into());
    });
}
