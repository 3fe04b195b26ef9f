use std::net::{IpAddr, SocketAddr};

use insta::{assert_json_snapshot, assert_snapshot};

use super::super::address::ApiAddress;
use super::super::client::{Client, ClientError, Form};
use super::super::state::{Cause, Handle};
use super::super::{listen, server};
use super::status::{line, metrics};
use super::*;
use crate::dns::DnsCounters;
use crate::io::clock::Clock;
use crate::io::entropy;
use crate::names::Own;
use crate::wire::PeerName;

fn status_with_everything() -> DnsStatus {
    let row = |name: &str, address: &str, nickname: &str, answered| NameRow {
        name: format!("{name}.weave.local"),
        address: address.parse().expect("an address"),
        container: "0123456789ab".into(),
        peer: "7a:3c:00:00:00:01".into(),
        nickname: nickname.into(),
        answered,
    };
    let socket = |text: &str| text.parse::<SocketAddr>().expect("an address");
    DnsStatus {
        domain: "weave.local".into(),
        server: Some(IpAddr::from(SERVICE_ADDRESS)),
        ttl_s: 1,
        listening: vec![socket("127.0.0.1:53")],
        not_listening: vec![NotListening { address: socket("10.32.0.1:53"), why: "another program has this address and port".into() }],
        upstream: vec![[10, 0, 0, 2].into()],
        names: 1,
        entries: vec![row("db", "fd00::2", "h3", false), row("web", "10.32.0.1", "h1", true)],
    }
}

#[test]
fn what_people_and_programs_read() {
    let status = status_with_everything();
    assert_snapshot!("text_dns", text(&status));
    assert_snapshot!("line_dns", line(&status, status.entries.len()));
    assert_snapshot!("metrics_dns", metrics(&status, status.entries.len()));
    assert_json_snapshot!("json_dns", status);
}

#[tokio::test]
async fn a_router_without_names_takes_them_and_forgets() {
    let names = NamesHandle::off();
    assert_eq!(names.add("c", "web", &[[10, 32, 0, 1].into()]).await, Ok(()));
    assert_eq!(names.remove("c", None, &[]).await, Ok(()));
    assert_eq!((names.domain().await.as_str(), names.server().await), ("weave.local", None));
    assert_eq!(section(&names, true).await.overview, [("DNS".to_string(), "off (--no-dns)".to_string())]);
}

/// What is known where `web` stands for two addresses.
fn known(given: &[&str]) -> Known {
    let domain: Domain = Domain::DEFAULT.parse().expect("a domain");
    let mut own = Own::new(domain.clone());
    own.add("c", "web", &[[10, 32, 0, 1].into(), [10, 32, 0, 2].into()]).expect("a name");
    let mut view = View::new(domain.clone(), PeerName([2; 6]), "here");
    view.set_own(own.bodies());
    let rng = entropy::generator().expect("the kernel has randomness");
    let conf = std::path::Path::new("/nonexistent");
    let patience = std::time::Duration::from_secs(1);
    let upstream = Upstream::new(conf, patience, 1, Ears::default(), rng, Clock::start(), Arc::<DnsCounters>::default());
    let given = given.iter().map(|text| text.parse().expect("an address")).collect();
    Known {
        view: Arc::new(RwLock::new(view)),
        domain,
        ears: Ears::default(),
        upstream: Arc::new(upstream),
        given,
        ttl: 1,
        asked: Arc::new(Asked::new(Clock::start()).0),
    }
}

#[test]
fn whose_names_are_looked_up_is_told() {
    let mut known = known(&[]);
    let (asked, mut told) = Asked::new(Clock::start());
    known.asked = Arc::new(asked);
    let peer = PeerName([4; 6]);
    let mut there = Own::new(Domain::DEFAULT.parse().expect("a domain"));
    there.add("c", "there", &[[10, 32, 0, 9].into()]).expect("a name");
    {
        let mut view = known.view.write().expect("no panic");
        view.peer(peer, "there", true);
        view.record(peer, 0, Some(&there.chunks()[0])).expect("a chunk");
    }
    assert_eq!(known.look_up("web").map(|found| found.map(|lines| lines.len())), Ok(Some(2)));
    assert!(told.try_recv().is_err(), "that is our own");
    known.look_up("there").expect("a name");
    assert_eq!(told.try_recv(), Ok(peer));
    let (asked, mut told) = Asked::new(Clock::start());
    known.asked = Arc::new(asked);
    known.look_up("10.32.0.9").expect("an address");
    assert_eq!(told.try_recv(), Ok(peer), "by its address as well");
}

#[test]
fn containers_are_told_an_address_that_they_can_ask() {
    for (given, server) in [
        (&[][..], Some("169.254.53.53:53")),
        (&["127.0.0.1:53", "10.0.0.1:5353"], None),
        (&["127.0.0.1:53", "10.0.0.1:53"], Some("10.0.0.1:53")),
    ] {
        assert_eq!(known(given).server(), server.map(|text| text.parse().expect("an address")), "{given:?}");
    }
}

/// Serves the pages in a thread until the process ends; what the part is asked is written down.
fn serve(names: Option<Known>) -> (Client, std::sync::mpsc::Receiver<String>, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let address = ApiAddress::Unix(dir.path().join("api.sock"));
    let client = Client::new(address.clone());
    let (heard_in, heard) = std::sync::mpsc::channel();
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = listen::api(&address).await.expect("a listener");
            let (handle, requests) = names.map_or_else(
                || (NamesHandle::off(), None),
                |known| {
                    let (handle, requests) = NamesHandle::new(known);
                    (handle, Some(requests))
                },
            );
            if let Some(requests) = requests {
                tokio::spawn(write_down(requests, heard_in));
            }
            ready.send(()).expect("the test waits");
            server::serve(listener, server::api(Handle::new().0, routes(handle))).await;
        });
    });
    is_ready.recv().expect("the server starts");
    (client, heard, dir)
}

async fn write_down(mut requests: mpsc::Receiver<NamesRequest>, heard: std::sync::mpsc::Sender<String>) {
    while let Some(request) = requests.recv().await {
        let answer = match request {
            NamesRequest::Add { ident, name, addresses, keep, answer } => {
                heard.send(format!("add {ident} {name} {addresses:?} {keep}")).expect("the test listens");
                drop(answer.send(match name.as_str() {
                    "bad" => Err(Denied::nonsense("that is no name")),
                    "busy" => Err(Refusal::busy().into()),
                    "full" => Err(Denied { cause: Cause::Disk, refusal: Refusal("the disk is full".into()) }),
                    _ => Ok(()),
                }));
                continue;
            }
            NamesRequest::Remove { ident, name, addresses, answer } => {
                heard.send(format!("remove {ident:?} {name:?} {addresses:?}")).expect("the test listens");
                answer
            }
        };
        drop(answer.send(Ok(())));
    }
}

#[tokio::test]
async fn the_rows_are_made_for_those_who_read_them() {
    let (names, _requests) = NamesHandle::new(known(&[]));
    let (brief, whole) = (section(&names, false).await, section(&names, true).await);
    assert_eq!((&brief.overview, &brief.metrics), (&whole.overview, &whole.metrics), "of the same state");
    assert!(brief.metrics.contains("weave_dns_entries 2\n"), "{}", brief.metrics);
    assert_eq!((brief.page.as_str(), brief.json.is_null()), ("", true));
    assert!(whole.page.contains("10.32.0.2") && whole.json["entries"].as_array().is_some_and(|rows| rows.len() == 2));
}

#[test]
fn a_refusal_says_by_its_status_whether_to_try_again() {
    let (client, _heard, dir) = serve(Some(known(&[])));
    let socket = dir.path().join("api.sock");
    drop(client);
    let status = |name: &str| {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("a connection");
        write!(stream, "PUT /name/abc/10.0.0.1?fqdn={name} HTTP/1.1\r\nHost: x\r\n\r\n").expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).map(String::from)
    };
    for (name, expected) in [("web", "204"), ("bad", "400"), ("busy", "503"), ("full", "507")] {
        assert_eq!(status(name).as_deref(), Some(expected), "{name}");
    }
}

fn sentence(error: ClientError) -> String {
    match error {
        ClientError::Refused { sentence, .. } => sentence,
        other => panic!("{other}"),
    }
}

#[test]
fn pages_of_names() {
    use axum::http::Method;
    let (client, heard, _dir) = serve(Some(known(&[])));
    let act = |method: Method, path: &str| client.act(method, path, None);
    for (method, path, request) in [
        (Method::PUT, "/name/abc/10.0.0.1?fqdn=web&check-alive=true", "add abc web [10.0.0.1] true"),
        (Method::PUT, "/name/netns%3A%2Frun%2Fx/fd00%3A%3A1?fqdn=web", "add netns:/run/x web [fd00::1] true"),
        (Method::DELETE, "/name/abc/10.0.0.1?fqdn=web", "remove Some(\"abc\") Some(\"web\") [10.0.0.1]"),
        (Method::DELETE, "/name/abc", "remove Some(\"abc\") None []"),
        (Method::DELETE, "/name?fqdn=web", "remove None Some(\"web\") []"),
    ] {
        assert_eq!(act(method, path).expect(path), "");
        assert_eq!(heard.recv().as_deref(), Ok(request));
    }
    assert_eq!(sentence(act(Method::PUT, "/name/abc/10.0.0.1?fqdn=bad").expect_err("refused")), "that is no name");
    assert!(heard.recv().is_ok());
    assert!(sentence(act(Method::PUT, "/name/abc/10.0.0.1").expect_err("refused")).contains("?fqdn=NAME"));
    for method in [Method::PUT, Method::DELETE] {
        assert!(sentence(act(method, "/name/abc/10.0.0.256?fqdn=web").expect_err("refused")).contains("10.0.0.256"));
    }
    let get = |path: &str| client.get(path, Form::Text);
    assert_eq!(get("/name/WEB").expect("a name"), "10.32.0.1\n10.32.0.2\n");
    assert_eq!(get("/name/10.32.0.2").expect("an address"), "web.weave.local\n");
    assert!(sentence(get("/name/nobody").expect_err("unknown")).contains("nobody"));
    assert!(sentence(get("/name/a%20b").expect_err("no name")).contains("host name"));
    let rows: Vec<NameRow> = serde_json::from_str(&get("/name").expect("all")).expect("rows");
    assert_eq!(rows.len(), 2);
    for (path, text) in [("/domain", "weave.local.\n"), ("/dns-address", "169.254.53.53\n"), ("/dns-address-port", "169.254.53.53:53\n")] {
        assert_eq!(get(path).expect(path), text);
    }
    let (off, _, _dir) = serve(None);
    for path in ["/domain", "/dns-address", "/name", "/name/web"] {
        assert!(sentence(off.get(path, Form::Text).expect_err("off")).contains("--no-dns"), "{path}");
    }
    assert!(sentence(off.act(Method::PUT, "/name/abc/10.0.0.1?fqdn=web", None).expect_err("off")).contains("--no-dns"));
}
