//! What scripts and people read is held fast by snapshots.

use insta::{assert_json_snapshot, assert_snapshot};

use super::fixture::{line_of_three, naked};
use super::text;
use super::types::Report;

fn report() -> Report {
    Report::from(&line_of_three())
}

#[test]
fn json_shapes() {
    let report = report();
    assert_json_snapshot!("json_status", report.status);
    assert_json_snapshot!("json_connections", report.connections);
    assert_json_snapshot!("json_peers", report.peers);
    assert_json_snapshot!("json_targets", report.targets);
    assert_json_snapshot!("json_macs", report.macs);
    assert_json_snapshot!("json_routes", report.routes);
    assert_json_snapshot!("json_counters", report.counters);
}

#[test]
fn a_report_is_made_of_the_pages() {
    let report = report();
    let json = serde_json::to_value(&report).expect("JSON");
    let keys: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["connections", "counters", "macs", "peers", "routes", "status", "targets"]);
    assert_eq!(serde_json::from_value::<Report>(json).expect("a report"), report);
}

#[test]
fn text_pages() {
    let report = report();
    assert_snapshot!("text_status", text::status(&report));
    assert_snapshot!("text_connections", text::connections(&report));
    assert_snapshot!("text_peers", text::peers(&report));
    assert_snapshot!("text_targets", text::targets(&report));
    assert_snapshot!("text_macs", text::macs(&report));
    assert_snapshot!("text_routes", text::routes(&report));
}

#[test]
fn text_of_a_router_without_encryption_and_password() {
    let report = Report::from(&naked());
    assert_snapshot!("naked_status", text::status(&report));
    assert_snapshot!("naked_connections", text::connections(&report));
    assert_eq!(text::targets(&report), "no targets\n");
    assert_eq!(text::macs(&report), "no MACs\n");
    assert_eq!(text::routes(&report), "no routes\n");
}

#[test]
fn text_of_others_does_not_drive_the_terminal() {
    let mut full = line_of_three();
    full.snapshot.connections[0].nickname = Some("\x1b[2Jh2\n".into());
    let report = Report::from(&full);
    for page in [text::connections(&report), text::peers(&report), text::status(&report)] {
        assert!(!page.contains('\x1b'), "{page}");
    }
    assert_eq!(text::connections(&report).lines().count(), 4);
}

#[test]
fn no_number_is_unknown() {
    let mut full = line_of_three();
    full.snapshot.connections[0].rtt_ms = Some(f64::NAN);
    full.snapshot.connections[0].loss = Some(f64::INFINITY);
    let connection = &Report::from(&full).connections[0];
    assert_eq!((connection.rtt_ms, connection.loss), (None, None));
}

#[test]
fn amounts_read_well() {
    for (n, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 30, "1.0 GiB"), (u64::MAX, "16.0 EiB")] {
        assert_eq!(text::bytes(n), text);
    }
    for (s, text) in [(0, "0 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90_061, "1 d 1 h")] {
        assert_eq!(text::duration(s), text);
    }
}
