//! `cargo bench --bench names`: how long it takes until a name that is added on one host is answered on every one of ten, real routers in
//! namespaces on one bridge. The clock starts before `weave-router dns-add` does, and stops when the last name server has answered.
//!
//! Needs root: it makes network namespaces. `--quick` adds three names, for CI; `--check` exits with 1 where a bar is not met.

mod figures;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use figures::{Figures, Limit};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use weave_router::host::lab::clock::{Stopwatch, pause, wait_until};
use weave_router::host::lab::{Lab, Plug, Router, in_namespace};

/// Starts the names of the bench's namespaces.
const PREFIX: &str = "wrn";
/// Hosts of the mesh.
const HOSTS: u8 = 10;
/// The bridge between them.
const LAN: &str = "lan";
/// Between two questions to one name server: what is measured is a hundred times as long.
const LOOK: Duration = Duration::from_millis(2);
/// Nothing takes longer unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let rounds = if figures::is_quick() { 3 } else { 30 };
    Lab::sweep(PREFIX);
    let mut lab = Lab::new(PREFIX).expect("the laboratory needs root");
    let routers = mesh(&mut lab);
    let servers: Vec<UdpSocket> = (1..=HOSTS).map(|n| server(&lab, n)).collect();
    let times = (0..rounds).map(|round| visible(&routers[round % routers.len()], &servers, round).as_secs_f64() * 1e3).collect();
    let mut figures = Figures::new();
    figures.hold("a name added on one host, answered on all of ten", "ms", Limit { all_most: 1000.0, ..Limit::NONE }, times);
    figures.end()
}

/// The name of a host, and its address on the bridge.
fn host(n: u8) -> (String, IpAddr) {
    (format!("h{n}"), Ipv4Addr::new(10, 9, 0, n).into())
}

/// Ten hosts on one bridge, each told the first; ready once each reaches all.
fn mesh(lab: &mut Lab) -> Vec<Router> {
    lab.host("switch").expect("a switch");
    lab.bridge("switch", LAN, None).expect("a bridge");
    let up = lab.exec("switch", "ip", &["link", "set", LAN, "up"]).expect("ip is installed");
    assert!(up.status.success(), "{up:?}");
    let plug = Plug { bridge: LAN.into(), ..Plug::default() };
    let (_, first) = host(1);
    let router = |n| {
        let (name, ip) = host(n);
        lab.container_with("switch", &name, &format!("{ip}/24"), &plug).expect("a host");
        let words = ["--password", "bench", "--nickname", &name, "--peer", &first.to_string()];
        let words = if n == 1 { &words[..4] } else { &words[..] };
        Router::up(lab, &name, env!("CARGO_BIN_EXE_weave-router").as_ref(), words).expect("a router")
    };
    let routers: Vec<Router> = (1..=HOSTS).map(router).collect();
    let complete = |router: &Router| router.status("").is_some_and(|status| status["reachable_peers"] == HOSTS);
    assert!(wait_until(PATIENCE, || routers.iter().all(complete)), "every router reaches every other");
    pause(Duration::from_secs(2));
    routers
}

/// A socket on a host that asks the name server there.
fn server(lab: &Lab, n: u8) -> UdpSocket {
    let open = || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect((Ipv4Addr::LOCALHOST, 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        std::io::Result::Ok(socket)
    };
    in_namespace(&lab.namespace(&host(n).0), open).expect("a namespace").expect("a socket")
}

/// Adds a name on one router; the time until all name servers know it.
fn visible(router: &Router, servers: &[UdpSocket], round: usize) -> Duration {
    let name = format!("name-{round}");
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii(format!("{name}.weave.local.")).expect("a name"), RecordType::A));
    let query = query.to_vec().expect("a query");
    let clock = Stopwatch::start();
    let known = |server: &UdpSocket| {
        let mut buffer = [0; 2048];
        while clock.elapsed() < PATIENCE {
            server.send(&query).expect("loopback");
            let answer = server.recv(&mut buffer).ok().and_then(|len| Message::from_vec(&buffer[..len]).ok());
            if answer
                .is_some_and(|answer| answer.queries == Message::from_vec(&query).expect("a query").queries && !answer.answers.is_empty())
            {
                return clock.elapsed();
            }
            pause(LOOK);
        }
        panic!("{name} is not known everywhere")
    };
    std::thread::scope(|scope| {
        let waiting: Vec<_> = servers.iter().map(|server| scope.spawn(|| known(server))).collect();
        let added = router.client(&["dns-add", "10.32.0.1", "--hostname", &name]).expect("the client runs");
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        waiting.into_iter().map(|server| server.join().expect("it is known")).max().expect("there are servers")
    })
}
