//! Docker's engine, as far as the command line asks it: which container a name means, and where its network namespace is.
//!
//! Its API is HTTP over a unix socket; one request, one answer. What is asked for is in all its versions, so none is named: an engine refuses
//! those that it finds too old.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

/// Longest the engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer, in bytes: a container's description is some kilobytes.
const MAX_ANSWER: usize = 4 << 20;

/// A container of Docker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id: 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its first process, while it runs; one that is paused runs.
    pub pid: Option<u32>,
    /// What it does in Docker's words: `running`, `paused`, `exited`, …
    pub status: String,
    /// Its host name, where it was given one with a domain.
    pub fqdn: Option<String>,
    /// It has no network of its own but the host's.
    pub on_host: bool,
}

/// Why Docker does not tell, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// The address is none that can be used.
    #[error("'{0}' is no address of Docker's API; write unix:///PATH, or name the container by --netns or --pid")]
    Address(String),
    /// Nobody answers.
    #[error("cannot ask Docker at {socket} about the container {name}: {cause}; start Docker, or name the container by --netns or --pid")]
    Unreachable {
        /// The socket.
        socket: String,
        /// The container.
        name: String,
        /// What the system says.
        cause: String,
    },
    /// There is no such container.
    #[error("Docker knows no container {0}; `docker ps` lists them")]
    Unknown(String),
    /// It is the beginning of several ids.
    #[error("{0} is the beginning of the ids of several Docker containers; write more of it, or the container's name")]
    Ambiguous(String),
    /// It answers something else.
    #[error("Docker at {socket} does not answer as expected about the container {name}: {cause}")]
    Strange {
        /// The socket.
        socket: String,
        /// The container.
        name: String,
        /// What it says.
        cause: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    id: String,
    name: String,
    state: State,
    #[serde(default)]
    config: Config,
    #[serde(default)]
    host_config: HostConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    #[serde(default)]
    status: String,
    #[serde(default)]
    pid: u32,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    hostname: String,
    domainname: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    network_mode: String,
}

/// What the engine says instead of an answer.
#[derive(Deserialize)]
struct Complaint {
    message: String,
}

/// Asks the engine at `host` (`unix://PATH`) which container `name` means: a name, an id or the beginning of one. Blocks.
pub fn inspect(host: &str, name: &str) -> Result<Container, DockerError> {
    inspect_within(host, name, PATIENCE)
}

fn inspect_within(host: &str, name: &str, patience: Duration) -> Result<Container, DockerError> {
    let socket = host.strip_prefix("unix://").filter(|path| path.starts_with('/')).ok_or_else(|| DockerError::Address(host.into()))?;
    // Docker's names are made of these, and begin with a letter or a digit.
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(legal) {
        return Err(DockerError::Unknown(format!("'{name}'")));
    }
    let question = Question { socket: socket.into(), name };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| question.unreachable(&e))?;
    runtime.block_on(async {
        match tokio::time::timeout(patience, question.ask()).await {
            Ok(answer) => answer,
            Err(_) => Err(question.strange(format!("no answer within {patience:?}"))),
        }
    })
}

struct Question<'a> {
    socket: PathBuf,
    name: &'a str,
}

impl Question<'_> {
    async fn ask(&self) -> Result<Container, DockerError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(&e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.strange(e))?;
        let driver = tokio::spawn(connection);
        let request = Request::get(format!("/containers/{}/json", self.name)).header(HOST, "docker");
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| self.strange(e))?;
        let response = sender.send_request(request).await.map_err(|e| self.strange(e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|e| self.strange(e))?.to_bytes();
        driver.abort();
        match status {
            StatusCode::OK => self.read(&body),
            StatusCode::NOT_FOUND => Err(DockerError::Unknown(self.name.into())),
            other => {
                let said = serde_json::from_slice(&body).map(|complaint: Complaint| complaint.message);
                let said = said.unwrap_or_else(|_| String::from_utf8_lossy(&body).trim().to_string());
                match other == StatusCode::BAD_REQUEST && said.to_ascii_lowercase().contains("multiple ids") {
                    true => Err(DockerError::Ambiguous(self.name.into())),
                    false => Err(self.strange(format!("HTTP status {other}: {said}"))),
                }
            }
        }
    }

    fn read(&self, body: &[u8]) -> Result<Container, DockerError> {
        let Description { id, name, state, config, host_config } = serde_json::from_slice(body).map_err(|e| self.strange(e))?;
        if id.len() != 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(self.strange(format!("'{id}' is no id")));
        }
        Ok(Container {
            id,
            name: name.trim_start_matches('/').to_string(),
            pid: Some(state.pid).filter(|pid| state.running && *pid != 0),
            status: if state.status.is_empty() { "stopped".into() } else { state.status },
            fqdn: config.fqdn(),
            on_host: host_config.network_mode == "host",
        })
    }

    fn unreachable(&self, e: &io::Error) -> DockerError {
        let cause = match e.kind() {
            io::ErrorKind::NotFound => "there is no socket".to_string(),
            io::ErrorKind::ConnectionRefused => "nobody listens there".to_string(),
            io::ErrorKind::PermissionDenied => "permission denied; root may".to_string(),
            _ => e.to_string(),
        };
        DockerError::Unreachable { socket: self.socket.display().to_string(), name: self.name.into(), cause }
    }

    fn strange(&self, cause: impl ToString) -> DockerError {
        DockerError::Strange { socket: self.socket.display().to_string(), name: self.name.into(), cause: cause.to_string() }
    }
}

impl Config {
    /// Older engines divide `--hostname web.weave.local` into name and domain, newer ones leave it whole.
    fn fqdn(self) -> Option<String> {
        let whole = if self.domainname.is_empty() { self.hostname } else { format!("{}.{}", self.hostname, self.domainname) };
        Some(whole).filter(|whole| !whole.starts_with('.') && whole.trim_end_matches('.').contains('.'))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// An engine that knows one container, for as many questions.
    fn engine(answers: Vec<(&'static str, &'static str)>) -> (tempfile::TempDir, String, std::thread::JoinHandle<Vec<String>>) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let serving = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut request = Vec::new();
                let mut buffer = [0; 1024];
                while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                    let read = stream.read(&mut buffer).expect("a request");
                    request.extend_from_slice(&buffer[..read]);
                }
                asked.push(String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_string());
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("written");
            }
            asked
        });
        (dir, format!("unix://{}", path.display()), serving)
    }

    const WEB: &str = r#"{"Id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","Name":"/web","Image":"x",
        "State":{"Status":"running","Running":true,"Pid":4711}}"#;
    const STOPPED: &str = r#"{"Id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","Name":"/web",
        "State":{"Running":false,"Pid":0}}"#;

    #[test]
    fn a_running_container_has_a_process() {
        let (_dir, host, serving) = engine(vec![("200 OK", WEB), ("200 OK", STOPPED)]);
        let found = inspect(&host, "web").expect("found");
        assert_eq!((found.name.as_str(), found.pid, found.id.len()), ("web", Some(4711), 64));
        assert_eq!(inspect(&host, "web").expect("found").pid, None);
        assert_eq!(serving.join().expect("the engine")[0], "GET /containers/web/json HTTP/1.1");
    }

    #[test]
    fn a_host_name_with_a_domain_is_told_however_it_was_given() {
        let fqdn = |hostname: &str, domainname: &str| Config { hostname: hostname.into(), domainname: domainname.into() }.fqdn();
        assert_eq!(fqdn("web", "weave.local").as_deref(), Some("web.weave.local"));
        assert_eq!(fqdn("web.weave.local", "").as_deref(), Some("web.weave.local"));
        for (hostname, domainname) in [("0123456789ab", ""), ("", ""), ("", "weave.local"), ("web.", "")] {
            assert_eq!(fqdn(hostname, domainname), None, "{hostname:?} {domainname:?}");
        }
    }

    #[test]
    fn an_engine_that_hangs_is_waited_for_no_longer_than_that() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let host = format!("unix://{}", path.display());
        let said = inspect_within(&host, "web", Duration::from_millis(50)).expect_err("refused").to_string();
        assert!(said.contains("about the container web") && said.contains("no answer within 50ms"), "{said}");
        // Nor if it stops in the middle of an answer.
        let serving = std::thread::spawn(move || {
            let (first, _) = listener.accept().expect("the client that has gone");
            drop(first);
            let (mut stream, _) = listener.accept().expect("a client");
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{{").expect("written");
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let said = inspect_within(&host, "web", Duration::from_millis(50)).expect_err("refused").to_string();
        assert!(said.contains("no answer within 50ms"), "{said}");
        serving.join().expect("the engine");
    }

    #[test]
    fn what_goes_wrong_is_said() {
        let answers =
            vec![("404 Not Found", "{\"message\":\"No such container\"}"), ("200 OK", "{}"), ("500 Oh", "{\"message\":\"no disk\"}")];
        let (_dir, host, serving) = engine(answers);
        let said = |host: &str, name: &str| inspect(host, name).expect_err("refused").to_string();
        assert!(said(&host, "db").contains("no container db"));
        assert!(said(&host, "db").contains("does not answer as expected"));
        let sentence = said(&host, "db");
        assert!(sentence.contains("500") && sentence.ends_with(": no disk"), "{sentence}");
        serving.join().expect("the engine");
        assert!(said(&host, "db").contains("--netns"), "nobody listens any more");
        assert!(said("unix:///no/such/docker.sock", "db").contains("there is no socket"));
        assert!(said("tcp://127.0.0.1:2375", "db").contains("unix:///PATH"));
        for none in ["../x", "..", "", "-x"] {
            assert!(said(&host, none).contains("no container"), "{none}");
        }
    }
}
