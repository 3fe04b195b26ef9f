//! Packets larger than the path, and traffic of all sizes, with their content checked.

use std::net::IpAddr;
use std::time::Duration;

use weave_router::host::lab::{Container, Lab, Plug, Router};
use weave_router::io::offload::OffloadPolicy;
use weave_router::io::udp::{Run, SocketGroup};
use weave_router::wire::Address;

use crate::common::wait_until;
use crate::flow::{Noise, transfer, udp_pair};
use crate::scene::{PASSWORD, PATIENCE, Setting, all_come_back, connected_pair, count, ip, nft, scene, shell, v6};

/// Containers whose interfaces are larger than the path is, as Docker would make them.
fn ethernet() -> Setting<'static> {
    Setting { plug: Plug { mtu: Some(1500), ..Plug::default() }, ..Setting::default() }
}

fn ping_says(lab: &Lab, from: &str, words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    let output = lab.exec(from, "ping", &words).expect("ping is installed");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn pings_of_60_kilobytes_arrive() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        for far in [pair.c2.ip, v6(2)] {
            wait_until(PATIENCE, &format!("60 KB to {far}"), || lab.ping("c1", far, "-c 1 -W 2 -s 60000").expect("ping"));
            all_come_back(lab, "c1", far, 5, 200, "-W 5 -s 60000");
        }
    });
}

/// Waits until a ping is answered with one of these texts.
#[track_caller]
fn told(lab: &Lab, ping: &str, forget: &str, wanted: &[&str]) {
    let mut said = String::new();
    wait_until(PATIENCE, &format!("ping {ping} is answered with {wanted:?}"), || {
        said = ping_says(lab, "c1", ping);
        let told = wanted.iter().any(|text| said.contains(text));
        if !told {
            shell(lab, "c1", forget);
        }
        told
    });
}

#[test]
fn packets_that_may_not_be_cut_are_answered_with_the_mtu() {
    scene(|lab| {
        let pair = connected_pair(lab, &ethernet());
        // Until the path is measured, a smaller MTU may be told; a container forgets it again.
        told(lab, &format!("-c 1 -W 2 -M do -s 1472 {}", pair.c2.ip), "ip route flush cache", &["mtu = 1420", "mtu=1420"]);
        let six = format!("-6 -c 1 -W 2 -M do -s 1452 {}", v6(2));
        told(lab, &six, "ip -6 route flush cache", &["Packet too big: mtu=1420", "mtu: 1420"]);
        // Having been told, the kernel of the container sends what fits.
        assert!(lab.ping("c1", pair.c2.ip, "-c 1 -W 2 -M do -s 1392").expect("ping"));
        assert!(lab.ping("c1", v6(2), "-6 -c 1 -W 2 -M do -s 1372").expect("ping"));
        assert!(count(&pair.r1, |plane, name| plane == "forward" && name.contains("too_big")) >= 2);
    });
}

#[test]
fn packets_that_may_be_cut_arrive_all_the_same() {
    scene(|lab| {
        let pair = connected_pair(lab, &ethernet());
        for size in [1392, 1393, 1400, 1472, 4000] {
            assert!(lab.ping("c1", pair.c2.ip, &format!("-c 1 -W 2 -M dont -s {size}")).expect("ping"), "{size}");
        }
    });
}

#[test]
fn tcp_adapts_where_containers_believe_in_1500() {
    scene(|lab| {
        let pair = connected_pair(lab, &ethernet());
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 10 << 20);
        transfer(&pair.c2.namespace, &pair.c1.namespace, v6(1), 10 << 20);
    });
}

#[test]
fn datagrams_of_all_sizes_keep_their_content() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        for ip in [pair.c2.ip, v6(2)] {
            datagrams(&pair.c1.namespace, &pair.c2.namespace, ip, 200);
        }
    });
}

/// Datagrams at the edges of what fits, and as many of any size, from one namespace to an address in another.
#[track_caller]
pub fn datagrams(from: &str, to: &str, ip: IpAddr, count: usize) {
    let (near, far) = udp_pair(from, to, ip);
    let mut noise = Noise::new(11);
    let edges = [0, 1, 1371, 1372, 1373, 1391, 1392, 1393, 1472, 2784, 65_000];
    let any: Vec<usize> = (0..count).map(|n| if n % 4 == 0 { noise.below(65_000) } else { noise.below(3000) }).collect();
    let mut buffer = vec![0; 65_536];
    for sizes in edges.iter().copied().chain(any).collect::<Vec<usize>>().chunks(4) {
        // A few under way at a time: this is about content, not about queues.
        let sent: Vec<Vec<u8>> = sizes.iter().map(|size| noise.bytes(*size)).collect();
        sent.iter().for_each(|datagram| assert_eq!(near.send(datagram).expect("sent"), datagram.len()));
        let mut missing = sent.clone();
        while !missing.is_empty() {
            let len = far.recv(&mut buffer).unwrap_or_else(|e| panic!("{ip}: {} of {sizes:?} missing: {e}", missing.len()));
            let at = missing.iter().position(|datagram| *datagram == buffer[..len]);
            missing.remove(at.unwrap_or_else(|| panic!("{ip}: {len} bytes that nobody sent, of {sizes:?}")));
        }
    }
}

#[test]
fn a_burst_that_the_kernel_cuts_keeps_its_content() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        bursts(&pair.c1, &pair.c2);
    });
}

/// `UDP_SEGMENT` from a container: one super frame of datagrams reaches the router's TAP.
#[track_caller]
pub fn bursts(from: &Container, to: &Container) {
    let (_, far) = udp_pair(&from.namespace, &to.namespace, to.ip);
    let target = Address::udp(far.local_addr().expect("an address"));
    let open = || SocketGroup::open(&[from.ip], 4000, 1, OffloadPolicy::Auto);
    let mut group = weave_router::host::lab::in_namespace(&from.namespace, open).expect("a namespace").expect("sockets");
    let mut noise = Noise::new(13);
    let mut buffer = vec![0; 65_536];
    far.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
    for (segment, total) in [(1200, 36_000), (1392, 40_000), (500, 7777), (1000, 1500)] {
        let bytes = noise.bytes(total);
        let sent = group.control.send(std::iter::once(Run { segment, ..Run::single(target, &bytes) }));
        assert_eq!(sent, total.div_ceil(segment));
        let mut missing: Vec<&[u8]> = bytes.chunks(segment).collect();
        while !missing.is_empty() {
            let len = far.recv(&mut buffer).unwrap_or_else(|e| panic!("{} of {sent} of {segment} bytes missing: {e}", missing.len()));
            let at = missing.iter().position(|datagram| **datagram == buffer[..len]);
            missing.remove(at.unwrap_or_else(|| panic!("{len} bytes that nobody sent")));
        }
    }
}

#[test]
fn a_hundred_megabytes_survive_an_underlay_that_loses_one_in_a_hundred() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        for (host, interface) in [("h1", &pair.wire.a.interface), ("h2", &pair.wire.b.interface)] {
            // Datagrams are lost one by one, not a super datagram as a whole.
            ip(lab, host, &format!("link set {interface} gso_max_segs 1"));
            let rule = "table inet loss { chain in { type filter hook input priority 0; \
                        udp dport 6783 numgen random mod 100 == 0 counter drop; }; }";
            nft(lab, host, rule);
        }
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 100_000_000);
        let counted = crate::scene::run(lab, "h2", "nft", "list table inet loss");
        let lost = counted.split_whitespace().skip_while(|word| *word != "packets").nth(1).and_then(|n| n.parse::<u64>().ok());
        // 100 MB are some 70,000 datagrams.
        assert!(lost.is_some_and(|lost| lost > 300), "the underlay did lose: {counted}");
    });
}

#[test]
fn of_acknowledgements_that_wait_together_the_last_goes_on() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        let superseded = |router: &Router| count(router, |_, name| name == "acks_superseded");
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 100_000_000);
        let (sender, receiver) = (superseded(&pair.r1), superseded(&pair.r2));
        // 100 MB are some 1,500 super frames, each of them acknowledged.
        assert!(sender + receiver > 100, "{sender} at the sender's router, {receiver} at the receiver's");
    });
    scene(|lab| {
        let both = [PASSWORD, &["--ack-filter", "off"]].concat();
        let pair = connected_pair(lab, &Setting { both: &both, ..Setting::default() });
        transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 20_000_000);
        assert_eq!([&pair.r1, &pair.r2].map(|router| count(router, |_, name| name == "acks_superseded")), [0, 0]);
    });
}
