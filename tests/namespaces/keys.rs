//! Post-quantum keys between real routers, and routers that cannot do them.

use weave_router::host::lab::Router;

use crate::common::wait_until;
use crate::scene::{PASSWORD, PATIENCE, Setting, connected_pair, connections, lines, links, pair, reaches, scene};

fn exchange(router: &Router) -> String {
    links(router, 1);
    connections(router, "established")[0]["key_exchange"].as_str().unwrap_or_default().to_string()
}

#[test]
fn keys_are_hybrid_and_a_classic_router_joins_only_where_that_is_said() {
    scene(|lab| {
        let mut pair = connected_pair(lab, &Setting { second: &["--classic-ok"], ..Setting::default() });
        assert_eq!([exchange(&pair.r1), exchange(&pair.r2)], ["hybrid", "hybrid"]);
        pair.r1.stop().expect("stopped");
        let old = [PASSWORD, &["--classic-only", "--nickname", "h1"]].concat();
        drop(pair.r1);
        let r1 = crate::common::router(lab, "h1", &old);
        reaches(lab, "c1", pair.c2.ip);
        assert_eq!([exchange(&r1), exchange(&pair.r2)], ["classic", "classic"]);
    });
}

#[test]
fn a_classic_router_is_refused_in_a_sentence_on_both_sides() {
    scene(|lab| {
        let pair = pair(lab, &Setting { second: &["--classic-only"], ..Setting::default() });
        for router in [&pair.r1, &pair.r2] {
            wait_until(PATIENCE, "the log says why", || !lines(router, "--classic-ok").is_empty());
            assert!(connections(router, "established").is_empty());
        }
    });
}
