//! The page is read back by a small parser of the text format.

use std::collections::{BTreeMap, BTreeSet};

use super::super::fixture::{line_of_three, naked};
use super::*;

/// A series: its name and its labels.
type Series = (String, BTreeMap<String, String>);

/// Parses the text format, and holds every sample to it: announced by HELP and TYPE, no series twice.
fn parse(page: &str) -> BTreeMap<Series, f64> {
    let mut announced: BTreeMap<String, usize> = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in page.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (kind, rest) = comment.split_once(' ').expect("a comment has a kind");
            let (name, text) = rest.split_once(' ').expect("a comment has a text");
            assert!(kind == "HELP" || matches!(text, "gauge" | "counter"), "{line}");
            *announced.entry(name.to_string()).or_default() += 1;
            continue;
        }
        let (series, value) = series(line);
        assert_eq!(announced.get(&series.0), Some(&2), "HELP and TYPE stand once before {line}");
        let value = value.parse().expect("a number");
        assert!(samples.insert(series, value).is_none(), "twice: {line}");
    }
    samples
}

fn series(line: &str) -> (Series, &str) {
    let Some((name, mut rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ').expect("a value");
        return ((name.to_string(), BTreeMap::new()), value);
    };
    let mut labels = BTreeMap::new();
    loop {
        let (label, after) = rest.split_once("=\"").expect("a label");
        let mut text = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect("the quote is closed") {
                (_, '\\') => text.push(match chars.next().expect("an escape").1 {
                    'n' => '\n',
                    c => c,
                }),
                (i, '"') => break i + 1,
                (_, c) => text.push(c),
            }
        };
        assert!(labels.insert(label.to_string(), text).is_none(), "label twice: {line}");
        rest = &after[end..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    ((name.to_string(), labels), rest.strip_prefix("} ").expect("the brace is closed"))
}

fn get(samples: &BTreeMap<Series, f64>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels = labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    *samples.get(&(name.to_string(), labels)).unwrap_or_else(|| panic!("{name} is missing"))
}

#[test]
fn the_page_parses_and_holds_what_it_promises() {
    let samples = parse(&render(&Report::from(&line_of_three())));
    assert_eq!(get(&samples, "weave_build_info", &[("version", "1.2.3")]), 1.0);
    let connections = |state: &str, carrier: &str, encryption: &str| {
        get(&samples, "weave_connections", &[("state", state), ("type", carrier), ("encryption", encryption)])
    };
    assert_eq!(connections("established", "fastdp", "yes"), 1.0);
    assert_eq!(connections("retrying", "", ""), 1.0);
    assert_eq!(connections("failed", "", ""), 0.0);
    assert_eq!(samples.keys().filter(|(name, _)| name == "weave_connections").count(), 5, "each state once");
    assert_eq!(get(&samples, "weave_flows", &[]), 0.0);
    assert_eq!(get(&samples, "weave_connection_terminations_total", &[]), 0.0);
    assert_eq!(get(&samples, "weave_peers", &[]), 3.0);
    assert_eq!(get(&samples, "weave_drops_total", &[("plane", "forward"), ("reason", "drop_no_route")]), 12.0);
    assert_eq!(get(&samples, "weave_events_total", &[("plane", "mesh"), ("event", "mac_moves")]), 1.0);
    let h2 = [("peer", "7a:3c:00:00:00:02"), ("nickname", "h2")];
    assert_eq!(get(&samples, "weave_peer_rtt_seconds", &h2), 0.000_412);
    assert_eq!(get(&samples, "weave_peer_loss_ratio", &h2), 0.0123);
    assert_eq!(get(&samples, "weave_peer_tx_frames_total", &h2), 1800.0);
    let tx = [("thread", "1"), ("direction", "tx")];
    assert_eq!(get(&samples, "weave_packet_thread_frames_total", &tx), 700.0);
    assert_eq!(get(&samples, "weave_packet_thread_udp_bytes_total", &[("thread", "2"), ("direction", "rx")]), 1_700_000.0);
    assert_eq!(get(&samples, "weave_packet_thread_asleep_seconds_total", &[("thread", "1")]), 9000.0);
    assert_eq!(get(&samples, "weave_offload", &[("offload", "udp_gro")]), 0.0);
}

#[test]
fn connections_carry_the_labels_of_weave() {
    let mut plain = naked();
    let sealed = crate::mesh::snapshot::Connection { cipher: Some("aes256gcm"), ..plain.snapshot.connections[0].clone() };
    plain.snapshot.connections.push(sealed);
    let samples = parse(&render(&Report::from(&plain)));
    for encryption in ["", "yes"] {
        let labels = [("state", "established"), ("type", "sleeve"), ("encryption", encryption)];
        assert_eq!(get(&samples, "weave_connections", &labels), 1.0, "{encryption:?}");
    }
}

#[test]
fn labels_are_escaped() {
    let mut full = line_of_three();
    let nickname = "a\"b\\c\nd,e}";
    full.snapshot.peers[1].nickname = nickname.into();
    full.snapshot.nickname = nickname.into();
    let samples = parse(&render(&Report::from(&full)));
    assert_eq!(get(&samples, "weave_peer_tx_bytes_total", &[("peer", "7a:3c:00:00:00:02"), ("nickname", nickname)]), 2_000_000.0);
}

#[test]
fn two_links_to_one_peer_are_one_series() {
    let mut full = line_of_three();
    let twin = full.snapshot.connections[0].clone();
    full.snapshot.connections.push(twin);
    let page = render(&Report::from(&full));
    let samples = parse(&page);
    let peers: BTreeSet<&String> =
        samples.keys().filter(|(name, _)| name == "weave_link_tx_bytes_total").map(|(_, l)| &l["peer"]).collect();
    assert_eq!(peers.len(), 1);
}
