//! What `status dns` says, and what names add to the overview and the metrics.
//!
//! The mesh may hold two hundred thousand addresses of names: the overview counts them, and their rows are made only for who asks for the
//! page, beside the loop, of a picture of one moment.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Known, NamesHandle};
use crate::api::beside::beside;
use crate::api::section::Section;
use crate::api::text::clean;
use crate::names::{Picture, View};

/// Name of the page.
pub const SECTION: &str = "dns";

/// `weave-router status dns --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// The domain.
    pub domain: String,
    /// Where containers find the name server.
    pub server: Option<IpAddr>,
    /// How long answers may be kept.
    pub ttl_s: u32,
    /// Where it listens.
    pub listening: Vec<SocketAddr>,
    /// Where it should listen and cannot.
    pub not_listening: Vec<NotListening>,
    /// The name servers that are asked for other names, in the order in which they are asked.
    pub upstream: Vec<IpAddr>,
    /// How many names are answered.
    pub names: usize,
    /// Every address of every name.
    pub entries: Vec<NameRow>,
}

/// An address that the name server cannot listen on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotListening {
    /// The address.
    pub address: SocketAddr,
    /// Why not.
    pub why: String,
}

/// One address of a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NameRow {
    /// The whole name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// The start of the container's id.
    pub container: String,
    /// The router that says so.
    pub peer: String,
    /// Its nickname.
    pub nickname: String,
    /// False where that router is not reached from here, so that the name is not answered.
    pub answered: bool,
}

impl Known {
    /// Everything for the operator but for the rows, and how many of them there are.
    fn status(&self) -> (DnsStatus, usize) {
        let (entries, names) = self.read(|view| (view.entries(), view.answered()));
        let heard = self.ears.all();
        let status = DnsStatus {
            domain: self.domain.to_string(),
            server: self.server().map(|server| server.ip()),
            ttl_s: self.ttl,
            listening: heard.iter().filter(|(_, state)| state.is_ok()).map(|(address, _)| *address).collect(),
            not_listening: heard.into_iter().filter_map(|(address, state)| Some(NotListening { address, why: state.err()? })).collect(),
            upstream: self.upstream.servers().iter().map(SocketAddr::ip).collect(),
            names,
            entries: Vec::new(),
        };
        (status, entries)
    }
}

/// Every address of every name.
pub(super) fn rows(picture: &Picture) -> Vec<NameRow> {
    let row = |row: crate::names::Row| NameRow {
        name: row.name,
        address: row.address,
        container: row.tag,
        peer: row.origin.to_string(),
        nickname: row.nickname,
        answered: row.answered,
    };
    picture.rows().into_iter().map(row).collect()
}

/// What names add to the status; `whole` with their page.
pub async fn section(names: &NamesHandle, whole: bool) -> Section {
    let Some(known) = names.known() else {
        let page = "the name server is off (--no-dns)\n".to_string();
        return Section { name: SECTION, overview: vec![("DNS".into(), "off (--no-dns)".into())], page, ..Section::default() };
    };
    let (status, entries) = known.status();
    let brief = |status: &DnsStatus, entries| Section {
        name: SECTION,
        overview: vec![("DNS".into(), line(status, entries))],
        metrics: metrics(status, entries),
        ..Section::default()
    };
    if !whole {
        return brief(&status, entries);
    }
    let picture = known.read(View::picture);
    let make = move || {
        let status = DnsStatus { names: picture.answered(), entries: rows(&picture), ..status };
        let json = serde_json::to_value(&status).unwrap_or_default();
        Section { page: text(&status), json, ..brief(&status, status.entries.len()) }
    };
    beside(make).await.unwrap_or_else(|refusal| Section { name: SECTION, page: format!("{refusal}\n"), ..Section::default() })
}

/// The overview's line.
pub(super) fn line(status: &DnsStatus, entries: usize) -> String {
    let server = status.server.map_or_else(String::new, |server| format!(" at {server}"));
    let silent = match status.not_listening.len() {
        0 => String::new(),
        n => format!(", not listening on {n} of {} addresses", n + status.listening.len()),
    };
    format!("{}.{server}, {} names of {entries} addresses{silent}", status.domain, status.names)
}

/// Gauges.
pub(super) fn metrics(status: &DnsStatus, entries: usize) -> String {
    let gauge = |name: &str, help: &str, values: &[(&str, usize)]| {
        let samples: String = values.iter().map(|(labels, value)| format!("{name}{labels} {value}\n")).collect();
        format!("# HELP {name} {help}\n# TYPE {name} gauge\n{samples}")
    };
    let heard = [("{listening=\"yes\"}", status.listening.len()), ("{listening=\"no\"}", status.not_listening.len())];
    let known = "Addresses of names that are known, those of routers that are not reached included.";
    [
        gauge("weave_dns_entries", known, &[("", entries)]),
        gauge("weave_dns_names", "Names that are answered.", &[("", status.names)]),
        gauge("weave_dns_listening", "Addresses of the name server, by whether it listens there.", &heard),
    ]
    .concat()
}

/// `status dns` for people.
pub fn text(status: &DnsStatus) -> String {
    let list = |items: Vec<String>| if items.is_empty() { "none".to_string() } else { items.join(", ") };
    let server = status.server.map_or_else(|| "none for containers".to_string(), |server| server.to_string());
    let mut text = String::new();
    for (key, value) in [
        ("Domain", format!("{}.", status.domain)),
        ("Server", server),
        ("Listening", list(status.listening.iter().map(ToString::to_string).collect())),
        ("Upstream", list(status.upstream.iter().map(ToString::to_string).collect())),
        ("TTL", format!("{} s", status.ttl_s)),
        ("Names", status.names.to_string()),
    ] {
        text += &format!("{key:>9}: {value}\n");
    }
    for bad in &status.not_listening {
        text += &format!("{:>9}: not on {}, {}\n", "Warning", bad.address, bad.why);
    }
    let rows: Vec<[String; 4]> = status.entries.iter().map(row).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (name, address, container) = (width(0), width(1), width(2));
    if !rows.is_empty() {
        text.push('\n');
    }
    for row in &rows {
        text += &format!("{:name$}  {:address$}  {:container$}  {}\n", row[0], row[1], row[2], row[3]);
    }
    text
}

fn row(entry: &NameRow) -> [String; 4] {
    let away = if entry.answered { "" } else { ", not reached: not answered" };
    let peer = format!("{}({}){away}", entry.peer, clean(&entry.nickname));
    [entry.name.clone(), entry.address.to_string(), entry.container.clone(), peer]
}
