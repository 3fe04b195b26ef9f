//! Any Ethernet: raw frames from one host's bridge to another's, as they are, once.

use std::net::UdpSocket;
use std::time::Duration;

use weave_router::host::lab::clock::Stopwatch;
use weave_router::host::lab::{Lab, in_namespace};

use crate::flow::{Noise, udp};
use crate::scene::{Pair, Setting, connected_pair, count, links, rows, scene, shell};
use crate::station::{BROADCAST, EXPERIMENT, Station, frame};

const HERE: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const THERE: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// The longest that a frame may be under way.
const WAY: Duration = Duration::from_secs(5);

/// The usual pair with a station beside each router, which have heard of each other.
fn stations(lab: &mut Lab) -> (Pair, Station, Station) {
    let pair = connected_pair(lab, &Setting::default());
    let (here, there) = (Station::plug(lab, "h1", "raw1"), Station::plug(lab, "h2", "raw2"));
    let hello = frame(BROADCAST, HERE, &[&EXPERIMENT, b"hello"]);
    here.send(&hello);
    assert!(there.receives(&hello, WAY), "a broadcast arrives");
    let answer = frame(HERE, THERE, &[&EXPERIMENT, b"hello yourself"]);
    there.send(&answer);
    assert!(here.receives(&answer, WAY), "a unicast arrives");
    (pair, here, there)
}

#[test]
fn frames_of_every_size_and_kind_arrive_as_they_are() {
    scene(|lab| {
        let (_pair, here, there) = stations(lab);
        let mut noise = Noise::new(7);
        for len in [14, 15, 59, 60, 64, 1000, 1433, 1434, 1435, 1436, 1500, 1514, 1515, 2868, 9000, 30_000, 65_534, 65_535] {
            for to in [THERE, BROADCAST, [0x01, 0, 0x5e, 1, 2, 3], [0x33, 0x33, 0, 1, 2, 3]] {
                let mut sent = frame(to, HERE, &[&EXPERIMENT]);
                sent.extend(noise.bytes(len - sent.len()));
                here.send(&sent);
                assert!(there.receives(&sent, WAY), "{len} bytes to {to:02x?}");
            }
        }
    });
}

#[test]
fn ethertypes_nobody_knows_and_vlan_tags_arrive_as_they_are() {
    scene(|lab| {
        let (pair, here, there) = stations(lab);
        for host in ["h1", "h2"] {
            // With these on the bridge itself drops what says IP and is none.
            shell(lab, host, "for knob in /proc/sys/net/bridge/bridge-nf-call-ip*; do [ ! -e $knob ] || echo 0 >$knob; done");
        }
        let vlan: &[u8] = &[0x81, 0x00, 0x20, 0x2a];
        let stacked: &[u8] = &[0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x00, 0x2a];
        let types: [&[u8]; 7] = [&[0x86, 0xdf], &[0xca, 0xfe], &[0x00, 0x26], &[0xff, 0xff], &[0x08, 0x06], &[0x08, 0x00], &[0x86, 0xdd]];
        for tag in [&[][..], vlan, stacked] {
            for ethertype in types {
                for (to, len) in [(THERE, 46), (BROADCAST, 46), (THERE, 3000)] {
                    // Under 0x0800 and 0x86dd stands no IP: it is carried all the same.
                    let sent = frame(to, HERE, &[tag, ethertype, &Noise::new(len as u64).bytes(len)]);
                    here.send(&sent);
                    assert!(there.receives(&sent, WAY), "tag {tag:02x?}, type {ethertype:02x?}, {len} bytes to {to:02x?}");
                }
            }
        }
        let macs = rows(&pair.r2, "macs");
        assert!(macs.iter().any(|m| m["mac"] == "02:00:00:00:00:0a" && m["vlan"] == 42), "{macs:?}");
    });
}

#[test]
fn a_flood_arrives_once_and_never_where_it_came_from() {
    scene(|lab| {
        let (_pair, here, there) = stations(lab);
        let sent: Vec<Vec<u8>> = (0..20).map(|n| frame(BROADCAST, HERE, &[&EXPERIMENT, &[n]])).collect();
        for one in &sent {
            here.send(one);
        }
        // A slow machine has all the time it wants for the first copy; a second one would be right behind it.
        let mut arrived = there.collect(WAY, |seen| sent.iter().all(|one| seen.contains(one)));
        arrived.extend(there.collect(Duration::from_millis(300), |_| false));
        let back = here.collect(Duration::from_millis(10), |_| false);
        for (n, one) in sent.iter().enumerate() {
            assert_eq!(arrived.iter().filter(|seen| *seen == one).count(), 1, "copies of frame {n}");
            assert!(!back.contains(one), "frame {n} came back");
        }
    });
}

#[test]
fn spanning_tree_stays_on_its_own_bridge() {
    scene(|lab| {
        let (pair, here, there) = stations(lab);
        let bpdu = frame([0x01, 0x80, 0xc2, 0, 0, 0], HERE, &[&[0, 38, 0x42, 0x42, 3], &[0; 35]]);
        here.send(&bpdu);
        assert_eq!(there.copies(&bpdu, Duration::from_millis(500)), 0);
        links(&pair.r1, 1);
    });
}

#[test]
fn a_mac_that_moves_to_another_host_is_followed_within_a_second() {
    scene(|lab| {
        let (pair, here, there) = stations(lab);
        let watcher = Station::plug(lab, "h1", "raw3");
        let (moving, watching) = ([2, 0, 0, 0, 0, 0x33], [2, 0, 0, 0, 0, 0x44]);
        watcher.send(&frame(BROADCAST, watching, &[&EXPERIMENT, b"who"]));
        let home = frame(BROADCAST, moving, &[&EXPERIMENT, b"I am here"]);
        here.send(&home);
        // Both routers have seen where it is: a router that reads this after the move would hold it for the newer word.
        assert!(there.receives(&home, WAY), "the station is known on both hosts");
        let first = frame(moving, watching, &[&EXPERIMENT, b"first"]);
        watcher.send(&first);
        assert!(here.receives(&first, WAY));
        let before = count(&pair.r1, |_, name| name.contains("move"));
        there.send(&frame(BROADCAST, moving, &[&EXPERIMENT, b"now I am there"]));
        let clock = Stopwatch::start();
        let mut number = 0u8;
        loop {
            number += 1;
            let next = frame(moving, watching, &[&EXPERIMENT, &[number]]);
            watcher.send(&next);
            if there.receives(&next, Duration::from_millis(50)) {
                break;
            }
            assert!(clock.elapsed() < Duration::from_secs(1), "not followed in a second");
        }
        assert!(count(&pair.r1, |_, name| name.contains("move")) > before, "the move is counted");
    });
}

#[test]
fn multicast_reaches_a_container_that_joined() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        let group = std::net::Ipv4Addr::new(239, 1, 2, 3);
        let far = in_namespace(&pair.c2.namespace, || UdpSocket::bind((group, 5000))).expect("a namespace").expect("a socket");
        let joined = in_namespace(&pair.c2.namespace, || far.join_multicast_v4(&group, &"10.32.0.2".parse().expect("an address")));
        joined.expect("a namespace").expect("joined");
        far.set_read_timeout(Some(WAY)).expect("a timeout");
        let near = udp(&pair.c1.namespace, false);
        let mut buffer = [0; 2000];
        for len in [1, 500, 1392] {
            let sent = Noise::new(len as u64).bytes(len);
            near.send_to(&sent, (group, 5000)).expect("sent");
            let received = far.recv(&mut buffer).expect("it arrives");
            assert_eq!(buffer[..received], sent[..]);
        }
    });
}
