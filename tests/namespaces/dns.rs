//! Names of containers, asked for with `dig` as containers and people do.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use weave_router::host::lab::clock::{Stopwatch, pause};
use weave_router::host::lab::{Lab, Plug, Router, in_namespace};

use crate::common::{self, wait_until};
use crate::flow::Pulse;
use crate::scene::{PASSWORD, PATIENCE, Setting, connected_pair, container, count, ip, lines, peer, reaches, scene};

/// The name server's own address.
pub const SERVER: &str = "169.254.53.53";

/// How long a change may take to be seen on another router: a second, and another to ask on a busy machine.
const SOON: Duration = Duration::from_secs(2);
/// How long names of a router that is gone may be answered: a link in use is dead after 800 ms and a round trip.
const GONE: Duration = Duration::from_secs(2);
/// The same where the link carried nothing: it is dead after 3.5 s.
const GONE_IDLE: Duration = Duration::from_secs(5);

/// What `dig` says.
#[derive(Debug, PartialEq, Eq)]
struct Dug {
    /// The response code by name; empty where nobody answered.
    code: String,
    /// Flags of the header.
    flags: Vec<String>,
    /// Data of the answers, ascending.
    answers: Vec<String>,
    /// Everything that was printed.
    text: String,
}

/// Asks from a host or container; `words` are the name, the type and options as `dig` takes them.
#[track_caller]
fn dig(lab: &Lab, from: &str, server: &str, words: &str) -> Dug {
    let server = format!("@{server}");
    let usual = [server.as_str(), "+tries=1", "+time=2", "+noedns", "+noall", "+comments", "+answer", "+authority"];
    let words: Vec<&str> = usual.into_iter().chain(words.split_whitespace()).collect();
    let output = lab.exec(from, "dig", &words).expect("dig is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |mark: &str| text.split(mark).nth(1).unwrap_or_default();
    let code = after("status: ").split(',').next().unwrap_or_default().to_string();
    let flags = after(";; flags:").split(';').next().unwrap_or_default().split_whitespace().map(String::from).collect();
    let section = after(";; ANSWER SECTION:\n").split("\n;;").next().unwrap_or_default();
    let data = |line: &str| line.split_whitespace().nth(4).map(String::from);
    let mut answers: Vec<String> = section.lines().take_while(|line| !line.is_empty()).filter_map(data).collect();
    answers.sort_unstable();
    Dug { code, flags, answers, text }
}

/// The answers, in order of address.
#[track_caller]
fn answers(lab: &Lab, from: &str, server: &str, words: &str) -> Vec<String> {
    dig(lab, from, server, words).answers
}

/// Runs a verb that must succeed.
#[track_caller]
pub fn verb(router: &Router, words: &str) -> String {
    let output = router.client(&words.split_whitespace().collect::<Vec<_>>()).expect("the client runs");
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A file with these name servers, which goes with the laboratory's own.
pub fn resolv_conf(lab: &Lab, servers: &[&str]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("{}resolv.conf", lab.namespace("")));
    let lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    fs::write(&path, lines).expect("a file");
    path
}

/// Lets a container find the name server.
pub fn route(lab: &Lab, container: &str) {
    ip(lab, container, &format!("route add {SERVER}/32 dev ethwe scope link"));
}

#[test]
fn dns_answers_as_it_should() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        route(lab, "c1");
        verb(&pair.r1, "dns-add 10.32.0.1 fd00:32::1 0123456789abcdef --hostname web");
        verb(&pair.r1, "dns-add 10.32.0.77 -h Deep.Below.weave.local.");
        for (from, server) in [("h1", "127.0.0.1"), ("c1", SERVER)] {
            let a = dig(lab, from, server, "web.weave.local A");
            assert_eq!((a.code.as_str(), &a.answers[..]), ("NOERROR", &["10.32.0.1".to_string()][..]), "{from}: {}", a.text);
            assert!(["qr", "aa", "rd", "ra"].iter().all(|flag| a.flags.iter().any(|f| f == flag)), "{:?}", a.flags);
            assert_eq!(answers(lab, from, server, "WEB.weave.LOCAL A"), ["10.32.0.1"]);
            assert_eq!(answers(lab, from, server, "web A"), ["10.32.0.1"], "a bare name");
            assert_eq!(answers(lab, from, server, "web.weave.local AAAA"), ["fd00:32::1"]);
            assert_eq!(answers(lab, from, server, "deep.below.weave.local A"), ["10.32.0.77"]);
            assert_eq!(answers(lab, from, server, "+tcp web.weave.local A"), ["10.32.0.1"]);
            assert_eq!(answers(lab, from, server, "-x 10.32.0.1"), ["web.weave.local."]);
            assert_eq!(answers(lab, from, server, "-x fd00:32::1"), ["web.weave.local."]);
            for (name, code) in [("web.weave.local MX", "NOERROR"), ("below.weave.local A", "NOERROR"), ("db.weave.local A", "NXDOMAIN")] {
                let no = dig(lab, from, server, name);
                assert_eq!((no.code.as_str(), no.answers.len()), (code, 0), "{name}: {}", no.text);
                assert!(no.text.contains("SOA"), "{name}: how long it may be kept: {}", no.text);
            }
        }
        verb(&pair.r1, "dns-remove 10.32.0.1 0123456789abcdef");
        assert_eq!(dig(lab, "h1", "127.0.0.1", "web.weave.local A").code, "NOERROR", "the other address is left");
        verb(&pair.r1, "dns-remove 0123456789abcdef");
        assert_eq!(dig(lab, "h1", "127.0.0.1", "web.weave.local A").code, "NXDOMAIN");
        assert_eq!(verb(&pair.r1, "dns-lookup deep.below"), "10.32.0.77\n");
        assert_eq!(verb(&pair.r1, "dns-lookup 10.32.0.77"), "deep.below.weave.local\n");
    });
}

#[test]
fn dns_long_answers_and_round_robin() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        route(lab, "c1");
        let all: Vec<String> = (1..=50).map(|n| format!("10.32.1.{n}")).collect();
        verb(&pair.r1, &format!("dns-add {} --hostname many", all.join(" ")));
        let mut sorted = all.clone();
        sorted.sort_unstable();
        let cut = dig(lab, "c1", SERVER, "+ignore many.weave.local");
        assert!(cut.flags.iter().any(|flag| flag == "tc") && (1..50).contains(&cut.answers.len()), "{}", cut.text);
        assert_eq!(answers(lab, "c1", SERVER, "many.weave.local"), sorted, "dig asks again over TCP");
        let edns = dig(lab, "c1", SERVER, "+ignore +bufsize=700 many.weave.local");
        assert!(edns.answers.len() > cut.answers.len() && edns.flags.iter().any(|flag| flag == "tc"), "{}", edns.text);
        let whole = dig(lab, "c1", SERVER, "+ignore +bufsize=1232 many.weave.local");
        assert_eq!((whole.answers, whole.flags.iter().any(|flag| flag == "tc")), (sorted, false));
        let first = |_| verb_first(lab, "many.weave.local");
        let firsts: std::collections::BTreeSet<String> = (0..20).map(first).collect();
        assert!(firsts.len() > 5, "every holder comes first at times: {firsts:?}");
    });
}

/// The first address in the order of the answer.
fn verb_first(lab: &Lab, name: &str) -> String {
    let output = lab.exec("c1", "dig", &[&format!("@{SERVER}"), "+short", "+bufsize=1232", name]).expect("dig is installed");
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_string()
}

/// Waits until a name has these addresses there, and tells how long that took.
#[track_caller]
pub fn becomes(lab: &Lab, host: &str, name: &str, expected: &[&str]) -> Duration {
    let clock = Stopwatch::start();
    wait_until(PATIENCE, &format!("{name} is {expected:?} on {host}"), || answers(lab, host, "127.0.0.1", name) == expected);
    clock.elapsed()
}

#[test]
fn dns_names_come_and_go_with_their_routers() {
    scene(|lab| {
        let mut pair = connected_pair(lab, &Setting::default());
        route(lab, "c2");
        verb(&pair.r1, "dns-add 10.32.0.1 --hostname web");
        let shown = becomes(lab, "h2", "web.weave.local", &["10.32.0.1"]);
        assert!(shown < SOON, "shown after {shown:?}");
        verb(&pair.r2, "dns-add 10.32.0.2 --hostname web");
        becomes(lab, "h1", "web.weave.local", &["10.32.0.1", "10.32.0.2"]);
        assert_eq!(answers(lab, "c2", SERVER, "web.weave.local"), ["10.32.0.1", "10.32.0.2"]);
        // Nothing but the cable tells of this, and of a link that carries nothing, and on which nobody relies, it tells more slowly.
        for (busy, asked, within) in [(true, false, GONE), (false, true, GONE), (false, false, GONE_IDLE)] {
            let pulse = busy.then(|| Pulse::start(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, Duration::from_millis(50)));
            let clock = Stopwatch::start();
            while clock.elapsed() < Duration::from_secs(if asked { 2 } else { 1 }) {
                assert!(!asked || answers(lab, "h2", "127.0.0.1", "web.weave.local").len() == 2);
                pause(Duration::from_millis(50));
            }
            lab.cut(&pair.wire).expect("cut");
            let gone = becomes(lab, "h2", "web.weave.local", &["10.32.0.2"]);
            assert!(gone < within, "gone after {gone:?}");
            drop(pulse);
            if busy || asked {
                lab.mend(&pair.wire).expect("mended");
                becomes(lab, "h2", "web.weave.local", &["10.32.0.1", "10.32.0.2"]);
                pause(Duration::from_secs(3));
            }
        }
        assert_eq!(dig(lab, "h2", "127.0.0.1", "-x 10.32.0.1").answers.len(), 0, "neither the other way round");
        lab.mend(&pair.wire).expect("mended");
        becomes(lab, "h2", "web.weave.local", &["10.32.0.1", "10.32.0.2"]);
        for round in 0..2 {
            let pulse = Pulse::start(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, Duration::from_millis(50));
            pause(Duration::from_secs(1));
            pair.r1.process().kill().expect("killed");
            let gone = becomes(lab, "h2", "web.weave.local", &["10.32.0.2"]);
            assert!(gone < GONE, "round {round}: gone after {gone:?}");
            drop(pulse);
            pair.r1.restart().expect("started");
            becomes(lab, "h2", "web.weave.local", &["10.32.0.1", "10.32.0.2"]);
            becomes(lab, "h1", "web.weave.local", &["10.32.0.1", "10.32.0.2"]);
        }
        verb(&pair.r1, "dns-remove 10.32.0.1 --hostname web");
        let gone = becomes(lab, "h2", "web.weave.local", &["10.32.0.2"]);
        assert!(gone < SOON, "gone after {gone:?}");
        pair.r1.process().kill().expect("killed");
        pair.r1.restart().expect("started");
        becomes(lab, "h1", "web.weave.local", &["10.32.0.2"]);
    });
}

#[test]
fn dns_over_a_relay_and_three_hosts() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        lab.host("h3").expect("a host");
        let wire = lab.wire("h2", "h3", "10.9.2.0/24").expect("a wire");
        let first = peer(wire.a.ip);
        let words = [&["--nickname", "h3", "--peer", &first], PASSWORD].concat();
        let r3 = common::router(lab, "h3", &words);
        let c3 = container(lab, "h3", "c3", 3, &Plug::default());
        reaches(lab, "c1", c3.ip);
        verb(&pair.r1, "dns-add 10.32.0.1 --hostname web");
        becomes(lab, "h3", "web.weave.local", &["10.32.0.1"]);
        verb(&r3, "dns-add 10.32.0.3 --hostname web");
        becomes(lab, "h1", "web.weave.local", &["10.32.0.1", "10.32.0.3"]);
        // h3 is cut off; h1 and h2 still hear each other.
        lab.cut(&wire).expect("cut");
        becomes(lab, "h1", "web.weave.local", &["10.32.0.1"]);
        becomes(lab, "h3", "web.weave.local", &["10.32.0.3"]);
        let status = pair.r1.status("dns").expect("status dns");
        let away = status["entries"].as_array().expect("entries").iter().filter(|entry| entry["answered"] == false).count();
        assert_eq!(away, 1, "{status}");
        lab.mend(&wire).expect("mended");
        becomes(lab, "h1", "web.weave.local", &["10.32.0.1", "10.32.0.3"]);
    });
}

/// A name server in a namespace, which answers every question with one address, or with silence.
struct Upstream {
    stop: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Upstream {
    fn start(namespace: &str, at: IpAddr, says: [u8; 4]) -> Upstream {
        let socket = in_namespace(namespace, || UdpSocket::bind((at, 53))).expect("a namespace").expect("a port");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let (stop, silent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (stopped, mute) = (Arc::clone(&stop), Arc::clone(&silent));
        let serve = move || {
            let mut buffer = [0; 2000];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                if mute.load(Ordering::Relaxed) {
                    continue;
                }
                let mut answer = Message::from_vec(&buffer[..len]).expect("a query").into_response();
                let name = answer.queries[0].name().clone();
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A(says.into()))));
                let _ = socket.send_to(&answer.to_vec().expect("an answer"), from);
            }
        };
        Upstream { stop, silent, thread: Some(std::thread::spawn(serve)) }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[test]
fn dns_passes_other_names_on_and_fails_over() {
    scene(|lab| {
        let host = lab.host("h1").expect("a host");
        let servers: [IpAddr; 2] = ["127.0.0.8", "127.0.0.9"].map(|text| text.parse().expect("an address"));
        let conf = resolv_conf(lab, &["127.0.0.1", SERVER, "127.0.0.8", "127.0.0.9"]);
        let path = conf.to_string_lossy().into_owned();
        let first = Upstream::start(&host, servers[0], [192, 0, 2, 8]);
        let _second = Upstream::start(&host, servers[1], [192, 0, 2, 9]);
        let router = common::router(lab, "h1", &["--resolv-conf", &path, "--dns-fallback-timeout", "2"]);
        container(lab, "h1", "c1", 1, &Plug::default());
        route(lab, "c1");
        verb(&router, "dns-add 10.32.0.1 --hostname web");
        assert_eq!(answers(lab, "c1", SERVER, "example.com"), ["192.0.2.8"], "the first that is not itself");
        assert_eq!(answers(lab, "c1", SERVER, "-x 192.0.2.1"), ["192.0.2.8"], "somebody else's address");
        assert_eq!(answers(lab, "c1", SERVER, "web.weave.local"), ["10.32.0.1"]);
        first.silent.store(true, Ordering::Relaxed);
        assert_eq!(answers(lab, "h1", "127.0.0.1", "+time=4 example.com"), ["192.0.2.9"], "the next, once the first keeps silent");
        let clock = Stopwatch::start();
        assert_eq!(answers(lab, "h1", "127.0.0.1", "+time=4 example.com"), ["192.0.2.9"]);
        assert!(clock.elapsed() < Duration::from_millis(800), "nobody waits for it again: {:?}", clock.elapsed());
        resolv_conf(lab, &["127.0.0.9", "127.0.0.9", "127.0.0.1"]);
        wait_until(PATIENCE, "the file is read again", || {
            router.status("dns").is_some_and(|status| status["upstream"].as_array().is_some_and(|all| all.len() == 1))
                || answers(lab, "h1", "127.0.0.1", "example.com").is_empty()
        });
        resolv_conf(lab, &["127.0.0.1"]);
        wait_until(PATIENCE, "nobody is left to ask", || dig(lab, "h1", "127.0.0.1", "example.com").code == "SERVFAIL");
        fs::remove_file(&conf).expect("it is there");
        drop(router);
    });
}

#[test]
fn dns_off_and_elsewhere() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        let mut off = common::router(lab, "h1", &["--no-dns"]);
        assert_eq!(dig(lab, "h1", "127.0.0.1", "web.weave.local").code, "");
        assert!(!ip(lab, "h1", "addr show dev weave").contains(SERVER));
        let refused = off.client(&["dns-add", "10.32.0.1", "--hostname", "web"]).expect("the client runs");
        assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--no-dns"), "{refused:?}");
        off.stop().expect("stopped");
        drop(off);
        ip(lab, "h1", "addr add 10.7.7.7/32 dev lo");
        let words = ["--dns-listen", "10.7.7.7", "--dns-listen", "127.0.0.1:5300", "--dns-domain", "Cluster.Test."];
        let mut on = common::router(lab, "h1", &words);
        verb(&on, "dns-add 10.32.0.1 --hostname web");
        wait_until(PATIENCE, "it listens", || dig(lab, "h1", "10.7.7.7", "web.cluster.test").answers == ["10.32.0.1"]);
        assert_eq!(answers(lab, "h1", "127.0.0.1", "-p 5300 web.cluster.test"), ["10.32.0.1"]);
        assert_eq!(dig(lab, "h1", "127.0.0.1", "web.cluster.test").code, "", "not on the usual addresses");
        assert!(!ip(lab, "h1", "addr show dev weave").contains(SERVER));
        on.stop().expect("stopped");
    });
}

#[test]
fn dns_a_busy_port_is_a_warning() {
    scene(|lab| {
        let host = lab.host("h1").expect("a host");
        let other = in_namespace(&host, || UdpSocket::bind("0.0.0.0:53")).expect("a namespace").expect("the port is free");
        let router = common::router(lab, "h1", &[]);
        wait_until(PATIENCE, "it says so", || lines(&router, "cannot listen on 127.0.0.1:53").len() == 1);
        verb(&router, "dns-add 10.32.0.1 --hostname web");
        pause(Duration::from_millis(2500));
        assert_eq!(lines(&router, "cannot listen on 127.0.0.1:53").len(), 1, "once");
        drop(other);
        wait_until(PATIENCE, "it takes the port", || dig(lab, "h1", "127.0.0.1", "web.weave.local").answers == ["10.32.0.1"]);
    });
}

#[test]
fn dns_follows_the_bridge() {
    scene(|lab| {
        let mut pair = connected_pair(lab, &Setting::default());
        route(lab, "c1");
        route(lab, "c2");
        verb(&pair.r1, "dns-add 10.32.0.1 --hostname web");
        becomes(lab, "h2", "web.weave.local", &["10.32.0.1"]);
        ip(lab, "h1", "addr add 10.32.0.100/24 dev weave");
        wait_until(PATIENCE, "it listens on a new address", || dig(lab, "c1", "10.32.0.100", "web.weave.local").answers == ["10.32.0.1"]);
        assert_eq!(answers(lab, "c2", "10.32.0.100", "web.weave.local"), ["10.32.0.1"], "also from elsewhere in the mesh");
        assert_eq!(answers(lab, "h1", "10.32.0.100", "web.weave.local"), ["10.32.0.1"], "and from the host");
        ip(lab, "h1", &format!("addr del {SERVER}/32 dev weave"));
        wait_until(PATIENCE, "its own address is put back", || dig(lab, "c1", SERVER, "web.weave.local").answers == ["10.32.0.1"]);
        // Each container is answered by its own host: what is asked on one is not heard on the other.
        let asked = |router: &Router| count(router, |plane, name| plane == "dns" && name == "queries");
        let (before1, before2) = (asked(&pair.r1), asked(&pair.r2));
        for _ in 0..5 {
            ip(lab, "c1", "neigh flush all");
            assert_eq!(answers(lab, "c1", SERVER, "web.weave.local"), ["10.32.0.1"]);
        }
        assert_eq!((asked(&pair.r1) - before1, asked(&pair.r2) - before2), (5, 0));
        assert!(count(&pair.r1, |_, name| name == "drop_service_address") > 0, "ARP for it stays on the bridge");
        assert!(!ip(lab, "c1", "neigh show").contains("FAILED"));
        ip(lab, "h1", "link del weave");
        let back = |text: &str| text.contains("inet") && text.contains(SERVER);
        wait_until(PATIENCE, "it is on the bridge that was made again", || {
            let shown = lab.exec("h1", "ip", &["addr", "show", "dev", "weave"]).expect("ip is installed");
            back(&String::from_utf8_lossy(&shown.stdout))
        });
        ip(lab, "h1", "link set vethwe0 master weave");
        wait_until(PATIENCE, "it listens there", || dig(lab, "c1", SERVER, "web.weave.local").answers == ["10.32.0.1"]);
        pair.r1.stop().expect("stopped");
        assert!(!ip(lab, "h1", "addr show dev weave").contains(SERVER), "it goes with the router");
    });
}

#[test]
fn dns_under_load_while_names_come_and_go() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        route(lab, "c1");
        verb(&pair.r1, "dns-add 10.32.0.1 --hostname always");
        let queries: String = (0..50).map(|n| format!("name-{n}.weave.local A\nalways.weave.local A\nalways.weave.local AAAA\n")).collect();
        let file = std::env::temp_dir().join(format!("{}queries", lab.namespace("")));
        fs::write(&file, queries).expect("a file");
        let path = file.to_string_lossy().into_owned();
        let said = std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                let words = ["-s", SERVER, "-d", &path, "-l", "4", "-q", "50", "-t", "2"];
                let output = lab.exec("c1", "dnsperf", &words).expect("dnsperf is installed");
                String::from_utf8_lossy(&output.stdout).into_owned()
            });
            let mut round = 0;
            while !load.is_finished() {
                let (router, n) = if round % 2 == 0 { (&pair.r1, round % 50) } else { (&pair.r2, round % 50) };
                verb(router, &format!("dns-add 10.32.1.{n} --hostname name-{n}"));
                verb(router, &format!("dns-remove --hostname name-{n}"));
                round += 1;
            }
            assert!(round > 20, "only {round} names came and went");
            load.join().expect("dnsperf ran")
        });
        fs::remove_file(&file).expect("it is there");
        let number = |label: &str| -> u64 {
            let words = said.split(label).nth(1).unwrap_or_else(|| panic!("dnsperf says nothing of {label}: {said}"));
            words.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{label}: {said}"))
        };
        assert_eq!(number("Queries lost:"), 0, "{said}");
        assert!(number("Queries completed:") > 1000, "{said}");
        for code in ["SERVFAIL", "FORMERR", "REFUSED", "NOTIMP"] {
            assert!(!said.contains(code), "{said}");
        }
        assert!(said.contains("NXDOMAIN") && number("NOERROR ") > 0, "{said}");
        becomes(lab, "h2", "always.weave.local", &["10.32.0.1"]);
        for router in [&pair.r1, &pair.r2] {
            wait_until(PATIENCE, "nothing is left of the others", || {
                router.status("dns").is_some_and(|status| status["entries"].as_array().is_some_and(|all| all.len() == 1))
            });
        }
    });
}

#[test]
fn dns_finds_attached_containers_and_is_found_by_them() {
    scene(|lab| {
        for host in ["h1", "h2", "box1", "box2"] {
            lab.host(host).expect("a host");
        }
        let wire = lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
        let r1 = common::router(lab, "h1", PASSWORD);
        let first = peer(wire.a.ip);
        let r2 = common::router(lab, "h2", &[&["--peer", &first], PASSWORD].concat());
        for (router, name, address) in [(&r1, "box1", "10.32.0.1/24"), (&r2, "box2", "10.32.0.2/24")] {
            verb(router, &format!("attach ip:{address} --netns /run/netns/{} --hostname {name}", lab.namespace(name)));
        }
        for name in ["box1", "box2"] {
            wait_until(PATIENCE, "both know each other", || {
                let ask = |other: &str| dig(lab, name, SERVER, &format!("{other}.weave.local")).answers;
                ask("box1") == ["10.32.0.1"] && ask("box2") == ["10.32.0.2"]
            });
        }
        verb(&r2, &format!("detach --all --netns /run/netns/{}", lab.namespace("box2")));
        wait_until(PATIENCE, "it is gone", || dig(lab, "box1", SERVER, "box2.weave.local").code == "NXDOMAIN");
    });
}
