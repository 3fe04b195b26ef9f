//! `/metrics` in the Prometheus text format.
//!
//! Counters of what was dropped are `weave_drops_total{plane, reason}`, all others `weave_events_total{plane, event}`: a table says which.

mod drops;

use std::collections::BTreeMap;
use std::fmt::Write;

use super::types::{Connection, Counter, Report, State};
use super::{text, threads};

/// The content type of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders the page.
pub fn render(report: &Report) -> String {
    let mut page = Page::default();
    router(&mut page, report);
    threads::metrics(&mut page, &report.status.threads);
    peers(&mut page, report);
    let (drops, events): (Vec<&Counter>, Vec<&Counter>) = report.counters.iter().partition(|c| drops::is_drop(&c.plane, &c.name));
    page.family("weave_drops_total", "counter", "Frames and datagrams dropped, by reason.");
    for c in drops {
        page.sample("weave_drops_total", &[("plane", &c.plane), ("reason", &c.name)], c.value as f64);
    }
    page.family("weave_events_total", "counter", "Events that are no drops, by name.");
    for c in events {
        page.sample("weave_events_total", &[("plane", &c.plane), ("event", &c.name)], c.value as f64);
    }
    page.text
}

fn router(page: &mut Page, report: &Report) {
    let s = &report.status;
    page.family("weave_build_info", "gauge", "Version of the running router; always 1.");
    page.sample("weave_build_info", &[("version", &s.version)], 1.0);
    page.family("weave_router_info", "gauge", "Name, nickname and network of this router; always 1.");
    page.sample("weave_router_info", &[("name", &s.name), ("nickname", &s.nickname), ("network", &s.network)], 1.0);
    page.single("weave_uptime_seconds", "Seconds since the router started.", s.uptime_s as f64);
    page.single("weave_encrypted", "1 where frames are encrypted, 0 under --no-encryption.", f64::from(s.encrypted));
    page.single("weave_authenticated", "1 where a password or allowed keys decide who joins.", f64::from(s.authenticated));
    if let Some(mtu) = s.mtu {
        page.single("weave_bridge_mtu_bytes", "MTU of the bridge.", f64::from(mtu));
    }
    connections(page, report);
    page.single("weave_peers", "Routers of the mesh that are known, this one included.", s.peers as f64);
    page.single("weave_reachable_peers", "Routers of the mesh that a route leads to, this one included.", s.reachable_peers as f64);
    let fast = report.connections.iter().filter(|c| c.datapath.as_deref() == Some("fastdp")).count();
    page.single("weave_fastdp_peers", "Linked peers whose unicast frames go through the kernel by VXLAN.", fast as f64);
    let by_kernel =
        |peer: &str| report.connections.iter().any(|c| c.datapath.as_deref() == Some("fastdp") && c.peer.as_deref() == Some(peer));
    let flows = report.macs.iter().filter(|mac| !mac.local && by_kernel(&mac.peer)).count();
    page.single("weave_flows", "MACs of other hosts to which the kernel carries unicast frames (--fastdp).", flows as f64);
    let ended = report.counters.iter().find(|c| c.plane == "mesh" && c.name == "links_down").map_or(0, |c| c.value);
    page.family("weave_connection_terminations_total", "counter", "Links that ended.");
    page.sample("weave_connection_terminations_total", &[], ended as f64);
    page.single("weave_targets", "Hosts this router was told to connect to.", s.targets as f64);
    page.single("weave_loops", "Bridges that are joined to this host's outside the mesh.", s.loops.len() as f64);
    page.single("weave_frozen_macs", "MACs that are frozen because several hosts have them.", s.frozen_macs.len() as f64);
    page.single("weave_multicast_groups", "Multicast groups with members on this host.", s.multicast_groups.len() as f64);
    page.family("weave_macs", "gauge", "MACs in the table, by where they are.");
    page.sample("weave_macs", &[("where", "local")], s.local_macs as f64);
    page.sample("weave_macs", &[("where", "remote")], s.macs.saturating_sub(s.local_macs) as f64);
    page.family("weave_offload", "gauge", "1 where an offload is in use, 0 where it is off or was given up.");
    for (name, state) in &s.offloads {
        page.sample("weave_offload", &[("offload", name)], f64::from(state == "on"));
    }
}

/// With Weave's labels: `type` is `fastdp` where the kernel carries unicast frames and `sleeve` where the router does, `encryption` is `yes` or empty,
/// and both are empty while a connection is not up. A state without any connection is there with 0.
fn connections(page: &mut Page, report: &Report) {
    page.family(
        "weave_connections",
        "gauge",
        "Connections by state, by what carries their unicast frames, and by whether they are encrypted.",
    );
    for (state, total) in report.status.connections.named() {
        let mut kinds: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for c in report.connections.iter().filter(|c| text::state(c.state) == state) {
            let carrier = match c.datapath.as_deref() {
                Some("fastdp") => "fastdp",
                Some(_) => "sleeve",
                None => "",
            };
            let encrypted = c.cipher.as_deref().is_some_and(|cipher| cipher != "none");
            *kinds.entry((carrier, if encrypted { "yes" } else { "" })).or_default() += 1;
        }
        if total == 0 {
            kinds.insert(("", ""), 0);
        }
        for ((carrier, encryption), count) in kinds {
            let labels = [("state", state), ("type", carrier), ("encryption", encryption)];
            page.sample("weave_connections", &labels, count as f64);
        }
    }
}

fn peers(page: &mut Page, report: &Report) {
    type Read = fn(&super::types::Peer) -> u64;
    let families: [(&str, &str, Read); 4] = [
        ("weave_peer_tx_bytes_total", "Bytes sent to a peer, end to end.", |p| p.tx_bytes),
        ("weave_peer_rx_bytes_total", "Bytes received from a peer, end to end.", |p| p.rx_bytes),
        ("weave_peer_tx_frames_total", "Frames sent to a peer.", |p| p.tx_frames),
        ("weave_peer_rx_frames_total", "Frames received from a peer.", |p| p.rx_frames),
    ];
    for (name, help, read) in families {
        page.family(name, "counter", help);
        for p in report.peers.iter().filter(|p| !p.own) {
            page.sample(name, &[("peer", &p.name), ("nickname", &p.nickname)], read(p) as f64);
        }
    }
    page.family("weave_peer_reachable", "gauge", "1 where a route leads to the peer.");
    for p in report.peers.iter().filter(|p| !p.own) {
        page.sample("weave_peer_reachable", &[("peer", &p.name), ("nickname", &p.nickname)], f64::from(p.reachable));
    }
    links(page, report);
}

fn links(page: &mut Page, report: &Report) {
    type Read = fn(&Connection) -> Option<f64>;
    let families: [(&str, &str, &str, Read); 5] = [
        ("weave_peer_rtt_seconds", "gauge", "Smoothed round trip of the link to a peer.", |c| c.rtt_ms.map(|ms| ms / 1000.0)),
        ("weave_peer_loss_ratio", "gauge", "Share of probes lost on the link to a peer, 0 to 1.", |c| c.loss),
        ("weave_link_mtu_bytes", "gauge", "Largest inner IP packet on the link to a peer.", |c| c.mtu.map(f64::from)),
        ("weave_link_tx_bytes_total", "counter", "Bytes of UDP payload sent on the link to a peer.", |c| Some(c.tx_bytes as f64)),
        ("weave_link_rx_bytes_total", "counter", "Bytes of UDP payload received on the link to a peer.", |c| Some(c.rx_bytes as f64)),
    ];
    // One sample per peer: two attempts at the same peer would be one series twice, which a scraper refuses.
    let mut up: Vec<&Connection> = Vec::new();
    for c in report.connections.iter().filter(|c| c.state == State::Established && c.peer.is_some()) {
        if !up.iter().any(|other| other.peer == c.peer) {
            up.push(c);
        }
    }
    for (name, kind, help, read) in families {
        page.family(name, kind, help);
        for c in &up {
            if let (Some(peer), Some(value)) = (&c.peer, read(c)) {
                page.sample(name, &[("peer", peer), ("nickname", c.nickname.as_deref().unwrap_or(""))], value);
            }
        }
    }
}

/// The page as it grows.
#[derive(Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn single(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

#[cfg(test)]
mod tests;
