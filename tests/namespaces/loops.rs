//! Bridges that somebody joined outside the mesh.

use std::time::Duration;

use weave_router::host::lab::Router;

use crate::common::wait_until;
use crate::scene::{PATIENCE, Setting, connected_pair, count, ip, lines, reaches, scene, traffic_goes_on};
use crate::station::{BROADCAST, EXPERIMENT, Station, frame};

const HERE: [u8; 6] = [2, 0, 0, 0, 0, 0xa];

fn text(router: &Router, key: &str) -> String {
    router.status("").expect("the router answers")[key].as_str().unwrap_or_default().to_string()
}

/// Whether each loop of a router's status is broken there.
fn loops(router: &Router) -> Vec<bool> {
    let status = router.status("").expect("the router answers");
    status["loops"].as_array().expect("loops").iter().map(|l| l["silent"] == true).collect()
}

fn floods(router: &Router) -> u64 {
    count(router, |plane, name| plane == "forward" && name.starts_with("flooded"))
}

#[test]
fn bridges_joined_by_hand_are_named_and_nothing_goes_round() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        let (here, there) = (Station::plug(lab, "h1", "raw1"), Station::plug(lab, "h2", "raw2"));
        let routers = [&pair.r1, &pair.r2];
        let names = routers.map(|router| text(router, "name"));
        ip(lab, "h1", &format!("link add cable type veth peer name cable netns {}", lab.namespace("h2")));
        ["h1", "h2"].iter().for_each(|host| drop(ip(lab, host, "link set cable master weave up")));
        // This one goes round until the loop is found.
        here.send(&frame(BROADCAST, HERE, &[&EXPERIMENT, b"round and round"]));
        wait_until(PATIENCE, "both name the other, and one is silent", || {
            let named = (0..2).all(|n| lines(routers[n], "makes a loop").iter().any(|line| line.contains(&names[1 - n])));
            let silent: Vec<bool> = routers.iter().flat_map(|router| loops(router)).collect();
            named && silent.len() == 2 && silent[0] != silent[1]
        });
        let silent = usize::from(names[1] > names[0]);
        assert_eq!(loops(routers[silent]), [true], "it is the one of the higher name");
        there.collect(Duration::from_millis(500), |_| false);
        let before: u64 = routers.iter().map(|router| floods(router)).sum();
        let sent: Vec<Vec<u8>> = (0..20).map(|n| frame(BROADCAST, HERE, &[&EXPERIMENT, &[n]])).collect();
        sent.iter().for_each(|one| here.send(one));
        // A slow machine has all the time it wants for the first copies; others would be right behind them.
        let mut seen = there.collect(PATIENCE, |seen| sent.iter().all(|one| seen.contains(one)));
        seen.extend(there.collect(Duration::from_millis(300), |_| false));
        let copies = sent.iter().map(|one| seen.iter().filter(|frame| *frame == one).count());
        assert!(copies.clone().all(|copies| copies == 1), "copies of each broadcast: {:?}", copies.collect::<Vec<_>>());
        let after: u64 = routers.iter().map(|router| floods(router)).sum();
        assert!(after - before < 100, "{} floods for {} broadcasts and what the kernels say meanwhile", after - before, sent.len());
        traffic_goes_on(lab, "c1", pair.c2.ip);
        ip(lab, "h1", "link del cable");
        wait_until(PATIENCE, "it is over", || routers.iter().all(|router| loops(router).is_empty()));
        reaches(lab, "c1", pair.c2.ip);
        let last = frame(BROADCAST, HERE, &[&EXPERIMENT, b"over the mesh"]);
        here.send(&last);
        assert!(there.receives(&last, PATIENCE), "it arrives");
        assert_eq!(there.copies(&last, Duration::from_millis(300)), 0, "once");
    });
}
