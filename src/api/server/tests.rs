//! Both servers over real sockets, with a router that answers from the fixture.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::super::address::ApiAddress;
use super::super::client::{Client, ClientError, Form};
use super::super::fixture::line_of_three;
use super::super::listen;
use super::super::state::Request;
use super::*;
use crate::api::{Cause, Denied, Refusal};

/// A server in a thread of its own, until this is dropped.
struct Server {
    dir: tempfile::TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(router: fn(Handle) -> Router) -> Server {
        let dir = tempfile::tempdir().expect("a directory");
        let address = ApiAddress::Unix(dir.path().join("sub/api.sock"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let heard = log.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = listen::api(&address).await.expect("a listener");
                let (handle, requests) = Handle::new();
                tokio::spawn(answer(requests, heard));
                ready.send(()).expect("the test waits");
                tokio::select! { () = serve(listener, router(handle)) => {}, _ = stopped => {} }
            });
        });
        is_ready.recv().expect("the server starts");
        Server { dir, stop: Some(stop), thread: Some(thread), log }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("sub/api.sock")
    }

    fn client(&self) -> Client {
        Client::new(ApiAddress::Unix(self.socket()))
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server did not panic");
        }
    }

    /// Sends bytes as they are and reads to the end.
    fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).expect("a connection");
        // The server may close before it has read everything.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The API with a page of a part of the container network.
fn own(handle: Handle) -> Router {
    let names = crate::api::names::routes(crate::api::names::NamesHandle::off());
    let addresses = crate::api::ipam::routes(crate::api::ipam::IpamHandle::new().0);
    api(handle, Router::new().route("/part/{id}", get(part).delete(part)).merge(names).merge(addresses))
}

async fn part(method: axum::http::Method, axum::extract::Path(id): axum::extract::Path<String>) -> Response {
    plain(format!("{method} {id}\n"))
}

/// The fixture with a part that says something of itself.
fn with_a_part() -> FullStatus {
    let section = crate::api::section::Section {
        name: "part",
        overview: vec![("Part".into(), "is there".into())],
        page: "a page\n".into(),
        json: serde_json::json!({"state": "there"}),
        metrics: "weave_part 1\n".into(),
    };
    FullStatus { sections: vec![section], ..line_of_three() }
}

#[test]
fn a_part_adds_pages_lines_and_metrics() {
    let server = Server::start(own);
    let client = server.client();
    assert_eq!(client.get("/status/part", Form::Text).expect("its page"), "a page\n");
    assert!(client.get("/status/part", Form::Json).expect("its page").contains("\"state\": \"there\""));
    assert!(client.get("/status", Form::Text).expect("the overview").contains("Part: is there\n"));
    assert!(client.get("/metrics", Form::Text).expect("metrics").ends_with("\nweave_part 1\n"));
    let report = client.get("/report", Form::Json).expect("the report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["part"]["state"], "there");
    assert_eq!(client.act(axum::http::Method::DELETE, "/part/7", None).expect("its answer"), "DELETE 7\n");
    assert!(client.get("/status/another", Form::Text).is_err());
}

async fn answer(mut requests: mpsc::Receiver<Request>, log: Arc<Mutex<Vec<String>>>) {
    let say = |text: String| log.lock().expect("the log").push(text);
    while let Some(request) = requests.recv().await {
        match request {
            Request::Status(_, answer) => drop(answer.send(Ok(with_a_part()))),
            Request::Connect(targets, answer) if targets.iter().any(|t| t.host == "full") => {
                let refusal = Refusal("cannot remember the peers: the disk is full".into());
                let _ = answer.send(Err(Denied { cause: Cause::Disk, refusal }));
            }
            Request::Connect(targets, answer) => {
                say(format!("connect {targets:?}"));
                let _ = answer.send(Ok(()));
            }
            Request::Revoke((key, signature), answer) => {
                say(format!("revoke {key} {}", signature.is_some()));
                let _ = answer.send(Ok(()));
            }
            Request::Forget(targets, answer) => {
                say(format!("forget {}", targets.len()));
                let _ = answer.send(Ok(()));
            }
        }
    }
}

#[test]
fn every_page_is_text_and_json() {
    for router in [own as fn(Handle) -> Router, status] {
        let server = Server::start(router);
        let client = server.client();
        for page in ["/status", "/status/connections", "/status/peers", "/status/targets", "/status/macs", "/status/routes"] {
            let text = client.get(page, Form::Text).expect(page);
            assert!(text.ends_with('\n') && serde_json::from_str::<serde_json::Value>(&text).is_err(), "{page}: {text}");
            let json = client.get(page, Form::Json).expect(page);
            assert!(json.ends_with('\n') && serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{page}: {json}");
        }
        assert!(client.get("/metrics", Form::Text).expect("metrics").contains("weave_peers 3\n"));
        let report: Report = serde_json::from_str(&client.get("/report", Form::Text).expect("report")).expect("a report");
        let mut expected = Report::from(&with_a_part());
        expected.status.parts.clear();
        assert_eq!(report, expected, "all but the lines for people");
    }
}

#[test]
fn commands_reach_the_router_and_its_refusals_the_client() {
    let server = Server::start(own);
    let client = server.client();
    client.post("/connect", vec!["h2:7000".into(), "[fd00::2]".into()]).expect("connect");
    client.post("/forget", vec!["h2:7000".into()]).expect("forget");
    let log = server.log.lock().expect("the log").clone();
    assert_eq!(log.len(), 2);
    assert!(log[0].contains("7000") && log[0].contains("fd00::2"), "{log:?}");
    let refused = client.post("/connect", vec!["full".into()]).expect_err("refused");
    assert!(refused.to_string().contains("the disk is full"), "{refused}");
    let bad = client.post("/connect", vec!["a:b:c".into()]).expect_err("no host");
    assert!(matches!(&bad, ClientError::Refused { sentence, .. } if sentence.contains("is not a peer")), "{bad}");
    assert_eq!(client.get("/key", Form::Text).expect("key"), format!("{}\n", "ab".repeat(32)));
}

#[test]
fn hosts_are_taken_from_a_form_as_clients_of_weave_send_it() {
    let server = Server::start(own);
    let form = |path: &str, fields: &str, more: &str| {
        let kind = "Content-Type: application/x-www-form-urlencoded";
        let answer =
            server.raw(&format!("POST {path} HTTP/1.1\r\nHost: x\r\n{more}{kind}\r\nContent-Length: {}\r\n\r\n{fields}", fields.len()));
        answer.split(' ').nth(1).unwrap_or_default().to_string()
    };
    assert_eq!(form("/connect", "peer=h2:7000&peer=%5Bfd00::2%5D", ""), "204");
    assert_eq!(form("/forget", "peer=h2:7000", ""), "204");
    // All others go: both that the fixture has.
    assert_eq!(form("/connect", "peer=h3&replace=true", ""), "204");
    assert_eq!(form("/connect", "peer=192.168.7.2&replace=true", ""), "204");
    for nonsense in ["", "replace=true", "peer=a:b:c", "host=h2"] {
        assert_eq!(form("/connect", nonsense, ""), "400", "{nonsense}");
    }
    assert_eq!(form("/connect", "peer=h4", "Origin: http://evil.example\r\n"), "403", "a page in a browser can send this");
    let log = server.log.lock().expect("the log").clone();
    assert!(log[0].contains("7000") && log[0].contains("fd00::2"), "{log:?}");
    assert_eq!([&log[1], &log[3], &log[5]], ["forget 1", "forget 2", "forget 1"], "{log:?}");
    assert_eq!(log.len(), 6, "{log:?}");
}

#[test]
fn the_status_server_changes_nothing() {
    let server = Server::start(status);
    for path in ["/connect", "/forget"] {
        let e = server.client().post(path, vec!["h2".into()]).expect_err("read-only");
        assert!(e.to_string().contains("no such page"), "{e}");
    }
    assert!(server.client().get("/key", Form::Text).is_err());
    assert!(server.log.lock().expect("the log").is_empty());
}

#[test]
fn bad_requests_get_a_sentence() {
    let server = Server::start(own);
    let json = "Content-Type: application/json\r\n";
    let big = "x".repeat(MAX_BODY + 1);
    for (request, status) in [
        ("DELETE /status HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), "405"),
        ("GET /status/nothing HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), "404"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), "404"),
        ("GET /connect HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), "405"),
        // What the HTTP library finds wrong by itself: methods, paths that are no text, parameters.
        ("PATCH /part/7 HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), "405"),
        ("GET /part/7/8 HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), "404"),
        ("GET /part/%ff HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), "400"),
        ("DELETE /name?fqdn=a&fqdn=b HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), "400"),
        ("DELETE /peer?force=perhaps HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), "400"),
        (format!("POST /connect HTTP/1.1\r\nHost: x\r\n{json}Content-Length: 2\r\n\r\n{{}}"), "422"),
        (format!("POST /connect HTTP/1.1\r\nHost: x\r\n{json}Content-Length: 1\r\n\r\n{{"), "400"),
        (format!("POST /connect HTTP/1.1\r\nHost: x\r\n{json}Content-Length: 12\r\n\r\n{{\"peers\":[]}}"), "400"),
        // What a page in a browser can send without being asked first.
        (
            "POST /connect HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 16\r\n\r\n{\"peers\":[\"h2\"]}".to_string(),
            "415",
        ),
        (format!("POST /connect HTTP/1.1\r\nHost: x\r\n{json}Content-Length: {}\r\n\r\n{big}", big.len()), "413"),
    ] {
        let answer = server.raw(&request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:.60}: {answer}");
        assert!(answer.contains("{\"error\":\"") && answer.contains("content-type: application/json\r\n"), "{answer}");
    }
    let denied = server.raw("PATCH /part/7 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(denied.contains("allow: GET,HEAD,DELETE\r\n"), "{denied}");
    let full = format!("POST /connect HTTP/1.1\r\nHost: x\r\n{json}Content-Length: 18\r\n\r\n{{\"peers\":[\"full\"]}}");
    assert!(server.raw(&full).starts_with("HTTP/1.1 507 "), "{}", server.raw(&full));
    assert!(server.log.lock().expect("the log").is_empty());
}

#[test]
fn the_socket_is_for_its_owner_and_goes_with_the_server() {
    let mut server = Server::start(own);
    let socket = server.socket();
    let mode = std::fs::metadata(&socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.stop();
    assert!(!socket.exists());
    let e = server.client().get("/status", Form::Text).expect_err("nobody is there");
    assert!(e.to_string().contains("no router is reachable at unix:") && e.to_string().contains("start it with"), "{e}");
    let left: Vec<_> = std::fs::read_dir(socket.parent().expect("a directory")).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

fn listen_at(path: &Path) -> Result<Listener, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(listen::api(&ApiAddress::Unix(path.to_path_buf()))).map_err(|e| e.to_string())
}

#[test]
fn a_dead_routers_socket_is_replaced_and_a_living_ones_is_not() {
    let server = Server::start(own);
    let e = listen_at(&server.socket()).expect_err("it is in use");
    assert!(e.contains("another weave-router answers there"), "{e}");
    assert!(server.client().get("/status", Form::Text).is_ok(), "the first is unharmed");

    let dir = tempfile::tempdir().expect("a directory");
    let dead = dir.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("a socket"));
    assert!(dead.exists());
    drop(listen_at(&dead).expect("the dead one is replaced"));

    let file = dir.path().join("file");
    std::fs::write(&file, "precious").expect("a file");
    let e = listen_at(&file).expect_err("a file is in the way");
    assert!(e.contains("no socket") && std::fs::read(&file).expect("the file") == b"precious", "{e}");
}

#[test]
fn a_router_that_does_not_listen_is_a_sentence() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (handle, requests) = Handle::new();
    drop(requests);
    let e = runtime.block_on(handle.status(Scope::Whole)).expect_err("nobody answers");
    assert_eq!(e, Refusal("the router is stopping".into()));
    let (handle, _requests) = Handle::new();
    runtime.block_on(async {
        let waiting: Vec<_> = (0..32)
            .map(|_| {
                tokio::spawn({
                    let handle = handle.clone();
                    async move { handle.status(Scope::Whole).await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(handle.status(Scope::Whole).await.expect_err("full"), Refusal("the router is busy; try again".into()));
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    });
}

#[test]
fn a_port_on_loopback_serves_too_and_is_taken_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = listen::status("127.0.0.1:0".parse().expect("an address")).await.expect("a listener");
        let Listener::Tcp(tcp) = &listener else { panic!("a TCP listener") };
        let addr = tcp.local_addr().expect("an address");
        let e = listen::status(addr).await.expect_err("taken").to_string();
        assert!(e.contains("it is in use") && e.contains("--status-addr"), "{e}");
        let (handle, requests) = Handle::new();
        tokio::spawn(answer(requests, Arc::default()));
        tokio::spawn(serve(listener, status(handle)));
        let client = Client::new(ApiAddress::Tcp(addr));
        let page = tokio::task::spawn_blocking(move || client.get("/status", Form::Text)).await.expect("no panic");
        assert!(page.expect("a page").contains("Network: weave"));
    });
}
