//! A network that lets no UDP through: the link rides TCP until it does.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use weave_router::host::lab::{Lab, Plug, Router, in_namespace};

use crate::common::{router, wait_until};
use crate::flow::{Pulse, transfer};
use crate::scene::{PASSWORD, PATIENCE, connections, container, count, nft, reaches, scene};

/// True where the only link leads to an address that begins so.
fn linked_at(router: &Router, address: &str) -> bool {
    let up = connections(router, "established");
    up.len() == 1 && up.iter().all(|row| row["address"].as_str().is_some_and(|text| text.starts_with(address)))
}

fn tcp(router: &Router, counter: &str) -> u64 {
    count(router, |plane, name| plane == "tcp" && name == counter)
}

/// A thousand callers that say nothing, of which the first are kept, and one that asks for a page; all from one address.
fn crowd(lab: &Lab, at: SocketAddr) -> Vec<TcpStream> {
    let connect = || TcpStream::connect_timeout(&at, Duration::from_secs(5)).expect("the port is open");
    let callers = || {
        connect().write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        let kept = (0..40).map(|_| connect()).collect();
        (0..960).for_each(|_| drop(connect()));
        kept
    };
    in_namespace(&lab.namespace("h3"), callers).expect("a namespace")
}

#[test]
fn a_link_rides_tcp_while_udp_is_blocked_and_moves_when_it_is_not() {
    scene(|lab| {
        for host in ["h1", "h2", "h3"] {
            lab.host(host).expect("a host");
        }
        lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
        let aside = lab.wire("h1", "h3", "10.9.2.0/24").expect("a wire");
        nft(lab, "h1", "table inet wall { chain in { type filter hook input priority 0; iifname \"eth*\" udp dport 6783 drop; }; }");
        let r1 = router(lab, "h1", &[PASSWORD, &["--tcp-listen", "443"]].concat());
        let r2 = router(lab, "h2", &[PASSWORD, &["--peer", "tcp://10.9.1.1:443"]].concat());
        let c1 = container(lab, "h1", "c1", 1, &Plug::default());
        let c2 = container(lab, "h2", "c2", 2, &Plug::default());
        reaches(lab, "c1", c2.ip);
        assert!(linked_at(&r2, "tcp://10.9.1.1:443") && linked_at(&r1, "tcp://10.9.1.2:"), "{:?}", connections(&r2, "established"));
        let shown = r2.client(&["status", "connections"]).expect("the client runs");
        assert!(String::from_utf8_lossy(&shown.stdout).contains("tcp://10.9.1.1:443"));

        transfer(&c1.namespace, &c2.namespace, c2.ip, 10 << 20);
        assert!(linked_at(&r2, "tcp://") && tcp(&r2, "bytes_in") > 10 << 20, "it came by TCP");

        let pulse = Pulse::start(&c1.namespace, &c2.namespace, c2.ip, Duration::from_millis(20));
        let callers = crowd(lab, SocketAddr::new(aside.a.ip, 443));
        wait_until(PATIENCE, "the crowd is turned away", || tcp(&r1, "over_limit") >= 960 && tcp(&r1, "strangers") == 1);
        drop(callers);
        nft(lab, "h1", "delete table inet wall");
        wait_until(PATIENCE, "both ends have moved to UDP", || linked_at(&r2, "10.9.1.1:6783") && linked_at(&r1, "10.9.1.2:6783"));
        let silence = pulse.longest_silence();
        assert!(silence < Duration::from_secs(1), "echoes stopped for {silence:?}");
        transfer(&c1.namespace, &c2.namespace, c2.ip, 3 << 20);
        let down = |router: &Router| count(router, |plane, name| plane == "mesh" && name == "links_down");
        assert_eq!((down(&r1), down(&r2)), (0, 0), "the link never went down");
    });
}
