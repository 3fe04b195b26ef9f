//! Gathers what `status`, `report` and the metrics say from all planes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::super::RunConfig;
use super::planes::{Counters, Foundation, Planes};
use crate::api::beside::beside;
use crate::api::section::{Ask, Section};
use crate::api::{FullStatus, MacRow, Refusal, Scope};
use crate::counters::Reading;
use crate::forward::MacTable;
use crate::forward::mac_table::{MacEntry, Owner};
use crate::io::clock::Clock;
use crate::io::packet_thread::ThreadReport;
use crate::mesh::MeshCounters;
use crate::mesh::gossip::GossipCounters;
use crate::time::Time;
use crate::wire::PeerName;

/// Longest that a part of the container network may take to say how it is; it is left out then.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads the counters of one part of the container network.
pub type Count = Box<dyn Fn() -> Vec<Reading> + Send>;

/// Where the parts of a status come from.
pub struct StatusSource {
    clock: Clock,
    name: PeerName,
    title: String,
    blank: FullStatus,
    macs: Arc<MacTable>,
    counters: Counters,
    mesh: Arc<MeshCounters>,
    gossip: Arc<GossipCounters>,
    /// The parts of the container network.
    pub sections: Vec<Ask>,
    /// Their counters, by plane.
    pub counts: Vec<(&'static str, Count)>,
}

impl StatusSource {
    /// Remembers what does not change and where the rest is counted.
    pub fn new(config: &RunConfig, clock: Clock, base: &Foundation) -> StatusSource {
        let (mesh, gossip) = base.mesh_counters();
        let name = base.name();
        let blank = FullStatus {
            version: env!("CARGO_PKG_VERSION"),
            port: config.port,
            bridge: config.bridge.clone(),
            tap: config.tap.clone(),
            ciphers: base.ciphers.describe(),
            ..FullStatus::default()
        };
        let title =
            format!("{name} ({}), network '{}', UDP port {}, bridge {}", config.nickname, config.network, config.port, config.bridge);
        StatusSource {
            clock,
            name,
            title,
            blank,
            macs: base.macs.clone(),
            counters: base.counters.clone(),
            mesh,
            gossip,
            sections: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// One line that says which router this is.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Each suite with the library that computes it.
    pub fn ciphers(&self) -> &[(String, String)] {
        &self.blank.ciphers
    }

    /// Asks the planes and answers once they have answered. The caller is not held up, and what is long is made beside its loop.
    pub fn answer(&self, planes: &Planes, mtu: Option<u16>, scope: &Scope, answer: oneshot::Sender<Result<FullStatus, Refusal>>) {
        let mut status = self.blank.clone();
        let now = self.clock.now();
        status.uptime = Duration::from_nanos(now.0);
        status.mtu = mtu;
        status.counters = vec![
            ("forward", sum(&self.counters.packet, |counters| counters.read())),
            ("mac", self.macs.counters.read()),
            ("mesh", self.mesh.read()),
            ("gossip", self.gossip.read()),
            ("udp", sum(&self.counters.udp, |counters| counters.read())),
            ("tcp", self.counters.tcp.read()),
            ("packet_thread", sum(&self.counters.thread, |counters| counters.read())),
        ];
        status.counters.extend(self.counts.iter().map(|(plane, count)| (*plane, count())));
        status.threads = self.counters.load.iter().map(|load| load.get()).collect();
        let (snapshot_in, snapshot) = oneshot::channel();
        let taken = planes.snapshot(move |snapshot| drop(snapshot_in.send(snapshot)));
        let Some(reports) = planes.reports().filter(|_| taken) else {
            let _ = answer.send(Err(Refusal::busy()));
            return;
        };
        let asked: Vec<_> = self.sections.iter().map(|ask| timeout(PATIENCE, ask(scope))).collect();
        let (table, own, scope) = (Arc::clone(&self.macs), self.name, scope.clone());
        tokio::spawn(async move {
            let macs = beside(move || mac_rows(&table, own, now));
            let (macs, sections) = tokio::join!(macs, futures::future::join_all(asked));
            let told = match (macs, in_time(&scope, sections), snapshot.await, all(reports).await) {
                (Ok(macs), Ok(sections), Ok(snapshot), Ok(reports)) => {
                    Ok(FullStatus { macs, snapshot, offloads: offloads(&reports), sections, ..status })
                }
                (Err(refusal), ..) | (_, Err(refusal), ..) => Err(refusal),
                // A thread that ends drops what it was asked.
                (_, _, Err(_), _) | (_, _, _, Err(_)) => Err(Refusal("the router is stopping".into())),
            };
            let _ = answer.send(told);
        });
    }
}

/// What was said in time. Without a part the rest is worth telling, but not the page that was asked for.
fn in_time(scope: &Scope, asked: Vec<Result<Section, Elapsed>>) -> Result<Vec<Section>, Refusal> {
    let late = asked.iter().any(Result::is_err);
    let sections: Vec<Section> = asked.into_iter().flatten().collect();
    match scope {
        Scope::Part(name) if late && !sections.iter().any(|section| section.name == name) => {
            Err(Refusal(format!("nothing was said of '{name}' within {} s; try again", PATIENCE.as_secs())))
        }
        Scope::Part(_) | Scope::Overview | Scope::Whole => Ok(sections),
    }
}

fn mac_rows(table: &MacTable, own: PeerName, now: Time) -> Vec<MacRow> {
    let row = |entry: &MacEntry| {
        let (peer, local) = match entry.owner {
            Owner::Local => (own, true),
            Owner::Peer(peer) => (peer, false),
        };
        MacRow { vlan: entry.vlan, mac: entry.mac, peer, local, age: entry.age }
    };
    table.snapshot(now).iter().map(row).collect()
}

/// What all threads count, added up.
fn sum<T>(threads: &[Arc<T>], read: impl Fn(&T) -> Vec<Reading>) -> Vec<Reading> {
    let mut readings = threads.iter().map(|counters| read(counters));
    let mut sum = readings.next().unwrap_or_default();
    for thread in readings {
        sum.iter_mut().zip(thread).for_each(|(sum, reading)| sum.value += reading.value);
    }
    sum
}

/// The answers of all packet threads.
async fn all(reports: Vec<oneshot::Receiver<ThreadReport>>) -> Result<Vec<ThreadReport>, oneshot::error::RecvError> {
    let mut all = Vec::new();
    for report in reports {
        all.push(report.await?);
    }
    Ok(all)
}

/// The offloads of all threads: once where the threads agree, else of each thread.
fn offloads(reports: &[ThreadReport]) -> Vec<(String, String)> {
    let threads: Vec<_> = reports.iter().map(offloads_of).collect();
    let Some(first) = threads.first() else { return Vec::new() };
    let mut all = Vec::new();
    for (name, state) in first {
        let states = || threads.iter().filter_map(|thread| thread.iter().find(|(other, _)| other == name)).map(|(_, state)| state);
        if states().all(|other| other == state) {
            all.push((name.clone(), state.clone()));
        } else {
            all.extend(states().enumerate().map(|(thread, state)| (format!("{name} thread {}", thread + 1), state.clone())));
        }
    }
    all
}

fn offloads_of(report: &ThreadReport) -> Vec<(String, String)> {
    let tap = match &report.tap {
        None => vec![("tap".to_string(), "off (it is missing)".to_string())],
        Some(tap) => tap.iter().map(|(name, state)| ((*name).to_string(), state.to_string())).collect(),
    };
    let udp = report.udp.iter().flat_map(|(address, offload)| {
        [(format!("udp_gso {address}"), offload.gso.to_string()), (format!("udp_gro {address}"), offload.gro.to_string())]
    });
    tap.into_iter().chain(udp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::PacketCounters;
    use crate::io::mesh_thread::{self, MeshInput};
    use crate::io::offload::Offload;
    use crate::io::packet_thread::PacketInbox;

    #[test]
    fn threads_are_named_where_they_differ() {
        let thread = |tso: Offload| ThreadReport { tap: Some(vec![("tap_checksum", Offload::On), ("tap_tso4", tso)]), udp: Vec::new() };
        let off = || Offload::Off("why".to_owned());
        let pair = |name: &str, state: &str| (name.to_owned(), state.to_owned());
        let differ = offloads(&[thread(Offload::On), thread(off())]);
        assert_eq!(differ, [pair("tap_checksum", "on"), pair("tap_tso4 thread 1", "on"), pair("tap_tso4 thread 2", "off (why)")]);
        assert_eq!(offloads(&[thread(off()), thread(off())]), [pair("tap_checksum", "on"), pair("tap_tso4", "off (why)")]);
    }

    #[tokio::test]
    async fn a_part_that_is_late_is_left_out_unless_it_was_asked_for() {
        let ipam = || Section { name: "ipam", ..Section::default() };
        for (scope, told) in [(Scope::Overview, true), (Scope::Part("ipam".into()), true), (Scope::Part("dns".into()), false)] {
            let late = timeout(Duration::ZERO, std::future::pending::<Section>()).await;
            match in_time(&scope, vec![Ok(ipam()), late]) {
                Ok(sections) => assert_eq!((sections, told), (vec![ipam()], true), "{scope:?}"),
                Err(refusal) => assert!(!told && refusal.0.contains("'dns' within 2 s"), "{scope:?}: {refusal}"),
            }
        }
        assert!(in_time(&Scope::Part("dns".into()), vec![Ok(ipam())]).is_ok(), "there is no such part, which is for others to say");
    }

    #[test]
    fn counters_of_threads_add_up() {
        let threads = [Arc::new(PacketCounters::default()), Arc::new(PacketCounters::default())];
        threads[0].relayed.add(2);
        threads[1].relayed.add(3);
        let read = sum(&threads, PacketCounters::read);
        assert_eq!(read.len(), threads[0].read().len());
        assert_eq!(read.iter().filter(|r| r.value > 0).map(|r| (r.name, r.value)).collect::<Vec<_>>(), [("relayed", 5)]);
    }

    #[tokio::test]
    async fn a_plane_that_is_behind_is_busy_and_not_stopping() {
        let (_poll, mesh, _mesh_receiver) = mesh_thread::inbox().expect("a mailbox");
        let packet = PacketInbox::new().expect("a mailbox");
        while mesh.try_send(MeshInput::Snapshot(Box::new(|_| ()))).is_ok() {}
        let planes = Planes::idle(mesh, packet.sender.clone());
        let source = StatusSource {
            clock: Clock::start(),
            name: PeerName([2, 0, 0, 0, 0, 1]),
            title: String::new(),
            blank: FullStatus::default(),
            macs: Arc::new(MacTable::new(16, 1)),
            counters: Counters {
                udp: Vec::new(),
                packet: Vec::new(),
                thread: Vec::new(),
                load: Vec::new(),
                tcp: Arc::default(),
                tcp_open: Arc::default(),
            },
            mesh: Arc::default(),
            gossip: Arc::default(),
            sections: Vec::new(),
            counts: Vec::new(),
        };
        let (answer, told) = oneshot::channel();
        source.answer(&planes, None, &Scope::Overview, answer);
        assert_eq!(told.await.expect("an answer").map(|_| ()), Err(Refusal::busy()));
    }
}
