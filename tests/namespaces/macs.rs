//! One MAC on two hosts.

use std::time::Duration;

use weave_router::host::lab::Router;
use weave_router::host::lab::clock::pause;

use crate::common::wait_until;
use crate::scene::{PATIENCE, Setting, connected_pair, count, lines, scene};
use crate::station::{BROADCAST, EXPERIMENT, Station, frame};

const TWICE: [u8; 6] = [2, 0, 0, 0, 0, 0x2a];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0x2b];

/// Nicknames of who had the frozen MAC first, and who has it too.
fn frozen(router: &Router) -> Vec<[String; 2]> {
    let status = router.status("").expect("the router answers");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
    let rows = status["frozen_macs"].as_array().expect("an array").clone();
    rows.iter().map(|row| [text(&row["holder_nickname"]), text(&row["rival_nickname"])]).collect()
}

#[test]
fn a_mac_on_two_hosts_is_frozen_and_each_host_reaches_its_own() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        let (here, there) = (Station::plug(lab, "h1", "raw1"), Station::plug(lab, "h2", "raw2"));
        let near = Station::plug(lab, "h2", "raw3");
        near.send(&frame(BROADCAST, OTHER, &[&EXPERIMENT, b"hello"]));
        let routers = [&pair.r1, &pair.r2];
        let mut round = 0u8;
        wait_until(PATIENCE, "both have frozen it", || {
            round += 1;
            for station in [&here, &there] {
                station.send(&frame(BROADCAST, TWICE, &[&EXPERIMENT, &[round]]));
                pause(Duration::from_millis(100));
            }
            routers.iter().all(|router| frozen(router) == [["h1".to_string(), "h2".to_string()]])
        });
        for router in routers {
            let named = lines(router, "is on two hosts");
            assert!(named.len() == 1 && named[0].contains("(h1)") && named[0].contains("(h2)"), "{named:?}");
        }
        // What the first says does not take it from the bridge of the second.
        let word = frame(OTHER, TWICE, &[&EXPERIMENT, b"from the first"]);
        here.send(&word);
        assert_eq!(near.copies(&word, Duration::from_millis(300)), 0);
        assert!(count(&pair.r2, |_, name| name == "drop_frozen_mac") > 0);
        there.send(&frame(BROADCAST, TWICE, &[&EXPERIMENT, b"still here"]));
        let answer = frame(TWICE, OTHER, &[&EXPERIMENT, b"to mine"]);
        near.send(&answer);
        assert!(there.receives(&answer, PATIENCE));
        assert_eq!(here.copies(&answer, Duration::from_millis(100)), 0);
    });
}
