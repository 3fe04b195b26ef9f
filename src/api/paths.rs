//! `status paths`: how frames to each router travel, since when, and what was tried to make that direct; and what the metrics say of it.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::section::Section;
use super::text::{clean, duration};
use crate::mesh::snapshot::{CandidateState, PathState, TableSizes};

/// One of `status paths --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathRow {
    /// Name of the peer.
    pub peer: String,
    /// Its nickname.
    pub nickname: String,
    /// `direct`, `relayed`, or `none` where there is none now.
    pub path: String,
    /// The peer's address, where the path is direct.
    pub address: Option<String>,
    /// Names of the next hops, where it is relayed; several share the flows.
    pub via: Vec<String>,
    /// Milliseconds since it is so; null where nothing was sent to the peer yet.
    pub since_ms: Option<u64>,
    /// Smoothed round trip of a direct path, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// The addresses that were tried.
    pub candidates: Vec<Candidate>,
    /// Why it is not direct.
    pub why_not_direct: Option<String>,
}

/// An address that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The address.
    pub address: String,
    /// Milliseconds since it was last tried.
    pub tried_ms: u64,
    /// `answered`, `trying` or `failed`.
    pub outcome: String,
    /// Why it failed.
    pub error: Option<String>,
}

impl From<&PathState> for PathRow {
    fn from(path: &PathState) -> PathRow {
        let candidate = |candidate: &CandidateState| Candidate {
            address: candidate.address.to_string(),
            tried_ms: candidate.tried_ms,
            outcome: candidate.outcome.into(),
            error: candidate.error.clone(),
        };
        PathRow {
            peer: path.peer.to_string(),
            nickname: path.nickname.clone(),
            path: path.path.into(),
            address: path.address.map(|address| address.to_string()),
            via: path.via.iter().map(ToString::to_string).collect(),
            since_ms: path.since_ms,
            rtt_ms: path.rtt_ms.map(|ms| (ms * 1e3).round() / 1e3),
            candidates: path.candidates.iter().map(candidate).collect(),
            why_not_direct: path.why_not_direct.clone(),
        }
    }
}

/// What there is to say of the paths.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// To each router.
    pub paths: Vec<PathState>,
    /// How large the tables are.
    pub sizes: TableSizes,
    /// Paths declared dead so far, and for how many milliseconds nothing had been heard of them, all together.
    pub dead: (u64, u64),
    /// TCP connections that paths may lead over, by state.
    pub tcp: Vec<(&'static str, usize)>,
}

/// What paths add to the status.
pub fn section(paths: &Paths) -> Section {
    let rows: Vec<PathRow> = paths.paths.iter().map(PathRow::from).collect();
    let json = serde_json::to_value(&rows).unwrap_or_default();
    let count = |path: &str| rows.iter().filter(|row| row.path == path).count();
    let counts = ["direct", "relayed", "none"].map(|path| (path, count(path)));
    let line = format!("{} direct, {} relayed, {} without any", counts[0].1, counts[1].1, counts[2].1);
    Section { name: "paths", overview: vec![("Paths".into(), line)], page: text(&rows), json, metrics: metrics(paths, &counts) }
}

/// `status paths` for people: a line for each router, and one for each address that was tried.
pub fn text(rows: &[PathRow]) -> String {
    if rows.is_empty() {
        return "no paths\n".into();
    }
    let named = |name: &str| rows.iter().find(|row| row.peer == name).map_or(name.to_string(), title);
    let mut out = String::new();
    for row in rows {
        let way = match (&row.address, row.via.as_slice()) {
            (Some(address), _) => format!("direct to {address}"),
            (None, []) => "no way".to_string(),
            (None, via) => format!("relayed by {}", via.iter().map(|hop| named(hop)).collect::<Vec<_>>().join(", ")),
        };
        let since = row.since_ms.map_or(String::new(), |ms| format!(", for {}", duration(ms / 1000)));
        let rtt = row.rtt_ms.map_or(String::new(), |ms| format!(", round trip {ms:.2} ms"));
        let why = row.why_not_direct.as_ref().map_or(String::new(), |why| format!("; not direct: {}", clean(why)));
        let _ = writeln!(out, "{}: {way}{since}{rtt}{why}", title(row));
        for tried in &row.candidates {
            let error = tried.error.as_ref().map_or(String::new(), |error| format!(": {}", clean(error)));
            let _ = writeln!(out, "    {} {}{error} ({} ago)", tried.address, tried.outcome, duration(tried.tried_ms / 1000));
        }
    }
    out
}

fn title(row: &PathRow) -> String {
    format!("{}({})", row.peer, clean(&row.nickname))
}

fn metrics(paths: &Paths, counts: &[(&str, usize)]) -> String {
    let mut out = String::from("# HELP weave_paths Routers of the mesh by how frames travel there.\n# TYPE weave_paths gauge\n");
    for (path, count) in counts {
        let _ = writeln!(out, "weave_paths{{path=\"{path}\"}} {count}");
    }
    out += "# HELP weave_mesh_table_entries Entries of the mesh plane's tables.\n# TYPE weave_mesh_table_entries gauge\n";
    for (table, entries) in paths.sizes.entries {
        let _ = writeln!(out, "weave_mesh_table_entries{{table=\"{table}\"}} {entries}");
    }
    out += "# HELP weave_gossip_record_bytes Bytes of all gossip records.\n# TYPE weave_gossip_record_bytes gauge\n";
    let _ = writeln!(out, "weave_gossip_record_bytes {}", paths.sizes.gossip_bytes);
    out += "# HELP weave_tcp_connections TCP connections in place of UDP, by what has come of them.\n# TYPE weave_tcp_connections gauge\n";
    for (state, count) in &paths.tcp {
        let _ = writeln!(out, "weave_tcp_connections{{state=\"{state}\"}} {count}");
    }
    let (count, ms) = paths.dead;
    out += "# HELP weave_path_detection_seconds For how long nothing had been heard of paths when they were declared dead.\n";
    out += "# TYPE weave_path_detection_seconds summary\n";
    let _ = writeln!(out, "weave_path_detection_seconds_sum {}\nweave_path_detection_seconds_count {count}", ms as f64 / 1000.0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Address, PeerName};

    fn example() -> Paths {
        let (h2, h3) = (PeerName([0x7a, 0, 0, 0, 0, 2]), PeerName([0x7a, 0, 0, 0, 0, 3]));
        let address = |text: &str| Address::udp(text.parse().expect("an address"));
        let path = PathState {
            peer: h2,
            nickname: "h2".into(),
            path: "direct",
            address: Some(address("10.0.0.2:6783")),
            via: Vec::new(),
            since_ms: Some(61_000),
            rtt_ms: Some(1.23456),
            candidates: Vec::new(),
            why_not_direct: None,
        };
        let tried =
            CandidateState { address: address("10.1.0.3:6783"), tried_ms: 4_000, outcome: "failed", error: Some("no\x1banswer".into()) };
        let far = PathState {
            peer: h3,
            nickname: "h3".into(),
            path: "relayed",
            address: None,
            via: vec![h2],
            since_ms: None,
            rtt_ms: None,
            candidates: vec![tried],
            why_not_direct: Some("none of 1 addresses is of use; tried again in 2 s".into()),
        };
        let entries = ["routers", "routes", "paths", "links", "sessions", "handshakes", "members"].map(|table| (table, 2));
        let sizes = TableSizes { entries, gossip_bytes: 900 };
        Paths { paths: vec![path, far], sizes, dead: (3, 1950), tcp: vec![("greeting", 4), ("proven", 1)] }
    }

    #[test]
    fn every_path_tells_how_since_when_and_why() {
        let section = section(&example());
        let expected = "7a:00:00:00:00:02(h2): direct to 10.0.0.2:6783, for 1 min 1 s, round trip 1.24 ms\n\
            7a:00:00:00:00:03(h3): relayed by 7a:00:00:00:00:02(h2); not direct: none of 1 addresses is of use; tried again in 2 s\n    \
            10.1.0.3:6783 failed: no?answer (4 s ago)\n";
        assert_eq!(section.page, expected);
        assert_eq!(section.overview, [("Paths".to_string(), "1 direct, 1 relayed, 0 without any".to_string())]);
        let rows: Vec<PathRow> = serde_json::from_value(section.json).expect("rows");
        assert_eq!((rows[0].rtt_ms, rows[1].candidates[0].outcome.as_str()), (Some(1.235), "failed"));
    }

    #[test]
    fn metrics_count_paths_tables_and_detections() {
        let metrics = section(&example()).metrics;
        for line in [
            "weave_paths{path=\"relayed\"} 1",
            "weave_mesh_table_entries{table=\"sessions\"} 2",
            "weave_gossip_record_bytes 900",
            "weave_tcp_connections{state=\"greeting\"} 4",
            "weave_path_detection_seconds_sum 1.95",
            "weave_path_detection_seconds_count 3",
        ] {
            assert!(metrics.lines().any(|other| other == line), "{line} is missing:\n{metrics}");
        }
        assert_eq!(section(&Paths::default()).page, "no paths\n");
    }
}
