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
    /// Its first process, while it runs.
    pub pid: Option<u32>,
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
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    #[serde(default)]
    pid: u32,
}

/// Asks the engine at `host` (`unix://PATH`) which container `name` means: a name, an id or the beginning of one. Blocks.
pub fn inspect(host: &str, name: &str) -> Result<Container, DockerError> {
    let socket = host.strip_prefix("unix://").filter(|path| path.starts_with('/')).ok_or_else(|| DockerError::Address(host.into()))?;
    // Docker's names are made of these.
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || !name.chars().all(legal) {
        return Err(DockerError::Unknown(format!("'{name}'")));
    }
    let question = Question { socket: socket.into(), name };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| question.unreachable(&e))?;
    runtime.block_on(async {
        match tokio::time::timeout(PATIENCE, question.ask()).await {
            Ok(answer) => answer,
            Err(_) => Err(question.strange(format!("no answer within {} s", PATIENCE.as_secs()))),
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
            other => Err(self.strange(format!("HTTP status {other}: {}", String::from_utf8_lossy(&body).trim()))),
        }
    }

    fn read(&self, body: &[u8]) -> Result<Container, DockerError> {
        let Description { id, name, state } = serde_json::from_slice(body).map_err(|e| self.strange(e))?;
        if id.len() != 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(self.strange(format!("'{id}' is no id")));
        }
        Ok(Container { id, name: name.trim_start_matches('/').to_string(), pid: Some(state.pid).filter(|pid| state.running && *pid != 0) })
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
    fn what_goes_wrong_is_said() {
        let answers = vec![("404 Not Found", "{\"message\":\"No such container\"}"), ("200 OK", "{}"), ("500 Oh", "no")];
        let (_dir, host, serving) = engine(answers);
        let said = |host: &str, name: &str| inspect(host, name).expect_err("refused").to_string();
        assert!(said(&host, "db").contains("no container db"));
        assert!(said(&host, "db").contains("does not answer as expected"));
        assert!(said(&host, "db").contains("500"));
        serving.join().expect("the engine");
        assert!(said(&host, "db").contains("--netns"), "nobody listens any more");
        assert!(said("unix:///no/such/docker.sock", "db").contains("there is no socket"));
        assert!(said("tcp://127.0.0.1:2375", "db").contains("unix:///PATH"));
        assert!(said(&host, "../x").contains("no container"));
    }
}
