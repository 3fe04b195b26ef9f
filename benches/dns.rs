//! `cargo bench --bench dns`: answers per second of the name server, which keeps to one core while its callers keep to others.
//!
//! Every caller has a window of queries under way on one socket, as a busy resolver has. `--quick` measures for a moment only, for CI;
//! `--check` exits with 1 where a bar is not met.

mod figures;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use figures::{Figures, Limit};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::sync::watch;
use weave_router::dns::listen::{Ears, Place};
use weave_router::dns::{Config, DnsCounters, Server};
use weave_router::host::lab::clock::{Stopwatch, pause, wait_until};
use weave_router::host::lab::cores;
use weave_router::io::clock::Clock;
use weave_router::names::{Domain, Own, View};
use weave_router::wire::PeerName;

/// Names of the mesh that are known.
const NAMES: u32 = 800;
/// Queries under way.
const WINDOW: usize = 64;
/// Nothing that works is silent for longer; a lost query is asked again then.
const SILENCE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let quick = figures::is_quick();
    let time = Duration::from_millis(if quick { 200 } else { 3000 });
    let rounds = if quick { 1 } else { 5 };
    let address = start();
    println!("{} cores; the name server keeps to one", cores::available());
    let mut figures = Figures::new();
    for (what, name) in [
        ("one address", "container-7.weave.local."),
        ("no such name", "nobody.weave.local."),
        ("ten addresses", "ten.weave.local."),
        ("some of five thousand addresses", "thousands.weave.local."),
    ] {
        let rates = (0..rounds).map(|_| ask(address, name, time)).collect();
        figures.hold(&format!("answers of one core: {what}"), "answers/s", Limit { median_least: 20_000.0, ..Limit::NONE }, rates);
    }
    figures.end()
}

/// A name server on a thread and a core of its own.
fn start() -> SocketAddr {
    let domain: Domain = Domain::DEFAULT.parse().expect("a domain");
    let mut own = Own::new(domain.clone());
    let ip = |n: u32| IpAddr::V4(Ipv4Addr::from(0x0a20_0000 + n));
    for n in 1..=NAMES {
        own.add(&format!("{n:012}"), &format!("container-{n}"), &[ip(n)]).expect("room");
    }
    own.add("ten", "ten", &(1..=10).map(ip).collect::<Vec<_>>()).expect("room");
    let mut view = View::new(domain, PeerName([2; 6]), "bench");
    view.set_own(own.bodies());
    let (peer, mut there) = (PeerName([4; 6]), Own::new(own.domain().clone()));
    there.add("thousands", "thousands", &(1..=5000).map(ip).collect::<Vec<_>>()).expect("room");
    view.peer(peer, "there", true);
    for (chunk, body) in (0..).zip(there.chunks()) {
        view.record(peer, chunk, Some(&body)).expect("a record");
    }
    let config = Config { ttl: 1, resolv_conf: PathBuf::from("/nonexistent"), patience: Duration::from_secs(5), in_flight: 16 };
    let ears = Ears::default();
    let server = Server::new(&config, Arc::new(RwLock::new(view)), ears.clone(), Clock::start(), Arc::<DnsCounters>::default());
    let server = server.expect("the kernel has randomness");
    let held = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = held.local_addr().expect("an address");
    drop(held);
    std::thread::spawn(move || {
        cores::stay_on(0).expect("a core");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        let (_places, receiver) = watch::channel(BTreeSet::from([Place::plain(address)]));
        runtime.block_on(server.run(receiver));
    });
    assert!(wait_until(Duration::from_secs(5), || ears.listens(address)), "the name server listens");
    pause(Duration::from_millis(50));
    address
}

/// Answers per second to one question.
fn ask(server: SocketAddr, name: &str, time: Duration) -> f64 {
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii(name).expect("a name"), RecordType::A));
    let query = query.to_vec().expect("a query");
    let caller = move || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.connect(server).expect("loopback");
        socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
        let mut buffer = [0; 2048];
        let (mut answers, clock) = (0u32, Stopwatch::start());
        for _ in 0..WINDOW {
            socket.send(&query).expect("loopback");
        }
        while clock.elapsed() < time {
            if socket.recv(&mut buffer).is_ok() {
                answers += 1;
            }
            socket.send(&query).expect("loopback");
        }
        f64::from(answers) / clock.elapsed().as_secs_f64()
    };
    let core = (cores::available() > 1).then_some(1);
    cores::on(core, caller).expect("a core")
}
