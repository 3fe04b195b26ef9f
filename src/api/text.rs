//! The pages of `status` as text for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::types::{Connection, Counter, Direction, Report, State, Status};
use super::{ethernet, threads};

/// The page of `status` alone.
pub fn status(report: &Report) -> String {
    let s = &report.status;
    let encryption = match s.encrypted {
        true => "on",
        false => "OFF! Frames cross the underlay in clear (--no-encryption)",
    };
    let authentication = match s.authenticated {
        true => "on (only holders of the password or of an allowed key join)",
        false => "none (unauthenticated: whoever reaches the port from a permitted address joins)",
    };
    let mtu = s.mtu.map_or("not known yet".to_string(), |mtu| format!("{mtu} bytes"));
    let peers = match s.peers - s.reachable_peers.min(s.peers) {
        0 => s.peers.to_string(),
        lost => format!("{} ({lost} unreachable)", s.peers),
    };
    let rows = [
        ("Version", s.version.clone()),
        ("Name", named(&s.name, Some(&s.nickname))),
        ("Network", clean(&s.network)),
        ("Encryption", encryption.into()),
        ("Authentication", authentication.into()),
        ("Port", format!("{} (UDP)", s.port)),
        ("Bridge", format!("{} (TAP {}, MTU {mtu})", s.bridge, s.tap)),
        ("Uptime", duration(s.uptime_s)),
        ("Connections", connection_counts(s)),
        ("Peers", peers),
        ("Targets", s.targets.to_string()),
        ("MACs", format!("{} ({} on this host)", s.macs, s.local_macs)),
    ];
    let mut out = String::new();
    for (key, value) in rows {
        line(&mut out, key, &value);
    }
    ethernet_lines(&mut out, s);
    for (i, member) in s.revoked.iter().enumerate() {
        line(&mut out, if i == 0 { "Revoked" } else { "" }, &clean(&member.line()));
    }
    for (key, value) in &s.parts {
        line(&mut out, &clean(key), &clean(value));
    }
    for (i, thread) in s.threads.iter().enumerate() {
        line(&mut out, if i == 0 { "Packet threads" } else { "" }, &threads::line(thread, s.uptime_s));
    }
    for (i, (suite, library)) in s.ciphers.iter().enumerate() {
        line(&mut out, if i == 0 { "Ciphers" } else { "" }, &format!("{} by {}", clean(suite), clean(library)));
    }
    for (i, (name, state)) in s.offloads.iter().enumerate() {
        line(&mut out, if i == 0 { "Offloads" } else { "" }, &format!("{} {}", clean(name), clean(state)));
    }
    out.push_str(&counters(&s.counters));
    out
}

/// What is strange on the Ethernet, and its groups.
fn ethernet_lines(out: &mut String, s: &Status) {
    for (i, l) in s.loops.iter().enumerate() {
        let silent = if l.silent { "; this router floods nothing from or to its bridge" } else { "" };
        let bridge = format!("the bridge is joined to that of {} outside the mesh{silent}", named(&l.peer, Some(&l.nickname)));
        line(out, if i == 0 { "Loops" } else { "" }, &bridge);
    }
    for (i, f) in s.frozen_macs.iter().enumerate() {
        let vlan = if f.vlan == 0 { String::new() } else { format!(" (VLAN {})", f.vlan) };
        let (holder, rival) = (named(&f.holder, Some(&f.holder_nickname)), named(&f.rival, Some(&f.rival_nickname)));
        let frozen = format!("{}{vlan} at {holder}, as {rival} has it too, for {}", f.mac, duration(f.since_s));
        line(out, if i == 0 { "Frozen MACs" } else { "" }, &frozen);
    }
    if !s.multicast_groups.is_empty() {
        line(out, "Multicast", &ethernet::groups(&s.multicast_groups));
    }
}

fn line(out: &mut String, key: &str, value: &str) {
    let colon = if key.is_empty() { ' ' } else { ':' };
    let _ = writeln!(out, "{key:>15}{colon} {value}");
}

fn connection_counts(s: &Status) -> String {
    let named = s.connections.named();
    let total: usize = named.iter().map(|(_, n)| n).sum();
    let parts: Vec<String> = named.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} {name}")).collect();
    if total == 0 { "0".into() } else { format!("{total} ({})", parts.join(", ")) }
}

fn counters(counters: &[Counter]) -> String {
    if counters.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["COUNTER", ">COUNT", "MEANING"]);
    for c in counters {
        table.row([format!("{}.{}", c.plane, c.name), c.value.to_string(), c.help.clone()]);
    }
    format!("\n{}", table.print("no drops"))
}

/// The page of `status connections`.
pub fn connections(report: &Report) -> String {
    let mut table = Table::new(&[
        "",
        "PEER",
        "ADDRESS",
        "STATE",
        "CIPHER",
        "KEYS",
        "TRUST",
        "PATH",
        ">MTU",
        ">RTT",
        ">LOSS",
        ">SENT",
        ">RECEIVED",
        "ERROR",
        "DATAPATH",
    ]);
    for c in &report.connections {
        table.row(connection(c));
    }
    table.print("no connections")
}

fn connection(c: &Connection) -> [String; 15] {
    let dash = || "-".to_string();
    [
        match c.direction {
            Direction::Outbound => "->".into(),
            Direction::Inbound => "<-".into(),
        },
        c.peer.as_deref().map_or_else(dash, |p| named(p, c.nickname.as_deref())),
        c.address.as_deref().map_or_else(dash, clean),
        state(c.state).into(),
        match c.cipher.as_deref() {
            None => dash(),
            Some("none") => "NOT ENCRYPTED".into(),
            Some(cipher) => cipher.into(),
        },
        c.key_exchange.clone().unwrap_or_else(dash),
        match c.authenticated {
            None => dash(),
            Some(true) => "authenticated".into(),
            Some(false) => "unauthenticated".into(),
        },
        c.path.clone().unwrap_or_else(dash),
        c.mtu.map_or_else(dash, |mtu| mtu.to_string()),
        c.rtt_ms.map_or_else(dash, |ms| format!("{ms:.2} ms")),
        c.loss.map_or_else(dash, |loss| format!("{:.1}%", loss * 100.0)),
        bytes(c.tx_bytes),
        bytes(c.rx_bytes),
        c.error.as_deref().map_or(String::new(), clean),
        match (c.datapath.as_deref(), c.datapath_reason.as_deref()) {
            (None, _) => dash(),
            (Some("router"), Some(why)) => format!("router: {}", clean(why)),
            (Some(datapath), _) => datapath.into(),
        },
    ]
}

/// The page of `status peers`.
pub fn peers(report: &Report) -> String {
    let nicknames = nicknames(report);
    let mut table = Table::new(&["PEER", "STATE", ">SENT", ">RECEIVED", ">FRAMES SENT", ">FRAMES RECEIVED", "LINKS"]);
    for p in &report.peers {
        let state = match (p.own, p.reachable) {
            (true, _) => "this router",
            (false, true) => "reachable",
            (false, false) => "unreachable",
        };
        let links: Vec<String> = p.links.iter().map(|l| named(l, nicknames.get(l.as_str()).copied())).collect();
        let links = if links.is_empty() { "none".into() } else { links.join(" ") };
        // Nobody sends frames to themselves: zeros there would only look like a fault.
        let own = |text: String| if p.own { "-".to_string() } else { text };
        table.row([
            named(&p.name, Some(&p.nickname)),
            state.into(),
            own(bytes(p.tx_bytes)),
            own(bytes(p.rx_bytes)),
            own(p.tx_frames.to_string()),
            own(p.rx_frames.to_string()),
            links,
        ]);
    }
    table.print("no peers")
}

/// The page of `status targets`.
pub fn targets(report: &Report) -> String {
    let dash = || "-".to_string();
    let mut table = Table::new(&["TARGET", "STATE", "PEER", ">RETRY IN", "ADDRESSES", "ERROR"]);
    for t in &report.targets {
        table.row([
            clean(&t.target),
            state(t.state).into(),
            t.peer.as_deref().map_or_else(dash, |p| named(p, t.nickname.as_deref())),
            t.retry_in_ms.map_or_else(dash, |ms| duration(ms.div_ceil(1000))),
            if t.addresses.is_empty() { dash() } else { t.addresses.join(" ") },
            t.error.as_deref().map_or(String::new(), clean),
        ]);
    }
    table.print("no targets")
}

/// The page of `status macs`.
pub fn macs(report: &Report) -> String {
    let mut table = Table::new(&["MAC", ">VLAN", "PEER", ">AGE"]);
    for m in &report.macs {
        let vlan = if m.vlan == 0 { "-".to_string() } else { m.vlan.to_string() };
        let peer = if m.local { "this host".to_string() } else { named(&m.peer, m.nickname.as_deref()) };
        table.row([m.mac.clone(), vlan, peer, duration(m.age_s)]);
    }
    table.print("no MACs")
}

/// The page of `status routes`.
pub fn routes(report: &Report) -> String {
    let nicknames = nicknames(report);
    let name = |peer: &str| named(peer, nicknames.get(peer).copied());
    let mut table = Table::new(&["PEER", "PATH", "NEXT HOP", "ALTERNATE", ">HOPS", ">COST", ">MTU", "CIPHER", "WHY"]);
    for r in &report.routes {
        table.row([
            named(&r.peer, Some(&r.nickname)),
            r.path.clone(),
            std::iter::once(&r.next_hop).chain(&r.others).map(|hop| name(hop)).collect::<Vec<_>>().join(" "),
            r.alternate.as_deref().map_or("-".to_string(), name),
            r.hops.to_string(),
            r.cost.to_string(),
            r.mtu.to_string(),
            r.cipher.clone().unwrap_or("-".into()),
            clean(&r.why),
        ]);
    }
    table.print("no routes")
}

fn nicknames(report: &Report) -> BTreeMap<&str, &str> {
    report.peers.iter().map(|p| (p.name.as_str(), p.nickname.as_str())).collect()
}

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Connecting => "connecting",
        State::Handshaking => "handshaking",
        State::Established => "established",
        State::Retrying => "retrying",
        State::Failed => "failed",
    }
}

/// `name(nickname)`, as Weave's users know it.
fn named(name: &str, nickname: Option<&str>) -> String {
    match nickname {
        Some(nickname) if !nickname.is_empty() => format!("{name}({})", clean(nickname)),
        _ => name.to_string(),
    }
}

/// Text from another router must not drive the operator's terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Bytes in the largest binary unit that leaves at least one in front of the point.
pub fn bytes(n: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = n as f64;
    let mut unit = "B";
    for next in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") }
}

/// Seconds in the two largest units.
pub fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// Rows under a heading, in columns as wide as their widest cell; a heading that starts with `>` aligns its column to the right.
struct Table<const N: usize> {
    heads: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    fn new(heads: &[&'static str; N]) -> Table<N> {
        Table { heads: *heads, rows: Vec::new() }
    }

    fn row(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    fn print(&self, empty: &str) -> String {
        if self.rows.is_empty() {
            return format!("{empty}\n");
        }
        let heads = self.heads.map(|h| h.trim_start_matches('>').to_string());
        let all: Vec<&[String; N]> = std::iter::once(&heads).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..N).map(|i| all.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
        let mut out = String::new();
        for row in all {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                let width = widths[i];
                let _ = match self.heads[i].starts_with('>') {
                    true => write!(line, "{cell:>width$}  "),
                    false => write!(line, "{cell:<width$}  "),
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}
