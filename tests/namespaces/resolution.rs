//! Address resolution that stays at home.

use std::time::Duration;

use weave_router::host::lab::CONTAINER_INTERFACE;

use crate::common::wait_until;
use crate::scene::{PATIENCE, Setting, connected_pair, count, ip, is_silent, reaches, rows, scene, v6};
use crate::station::Station;

#[test]
fn a_router_answers_for_containers_of_others_and_for_none_that_has_gone() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        reaches(lab, "c1", v6(2));
        let there = Station::plug(lab, "h2", "raw2");
        let answered = || count(&pair.r1, |_, name| name == "arp_answered");
        let flush = || drop(ip(lab, "c1", &format!("neigh flush dev {CONTAINER_INTERFACE}")));
        // What the far container has said of itself has reached the near router after a moment.
        for target in [pair.c2.ip, v6(2)] {
            wait_until(PATIENCE, &format!("{target} is answered for"), || {
                let before = answered();
                flush();
                reaches(lab, "c1", target);
                answered() > before
            });
        }
        there.collect(Duration::from_millis(200), |_| false);
        let before = answered();
        for target in [pair.c2.ip, v6(2)] {
            flush();
            reaches(lab, "c1", target);
        }
        assert!(answered() >= before + 2);
        // Questions, in ARP and in ICMPv6, by who has an address: whether one is free is always asked everywhere.
        let asks = |frame: &Vec<u8>| match frame.get(12..14) {
            Some([8, 6]) => true,
            Some([0x86, 0xdd]) => frame.get(54) == Some(&135) && frame.get(22..38) != Some(&[0; 16]),
            _ => false,
        };
        let seen = there.collect(Duration::from_millis(300), |_| false);
        let asked: Vec<_> = seen.iter().filter(|frame| frame[6..12] == pair.c1.mac && asks(frame)).collect();
        assert!(asked.is_empty(), "flooded all the same: {asked:02x?}");
        // The far container goes, and is answered for no more.
        ip(lab, "h2", &format!("link del {}", pair.c2.host_end));
        let gone: String = pair.c2.mac.map(|byte| format!("{byte:02x}")).join(":");
        wait_until(PATIENCE, "its MAC has gone", || rows(&pair.r1, "macs").iter().all(|row| row["mac"] != gone.as_str()));
        flush();
        let before = answered();
        assert!(is_silent(lab, "c1", pair.c2.ip));
        assert_eq!(answered(), before);
    });
}
