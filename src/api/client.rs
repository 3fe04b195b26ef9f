//! The client side of the API, for the verbs of the command line: one request, one answer, blocking.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::address::ApiAddress;
use super::types::{Failure, Hosts};

/// Longest the router may take to answer: an address that cannot be given is refused after ten seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// Largest answer, in bytes: a report of a thousand routers is a few megabytes.
const MAX_ANSWER: usize = 256 << 20;

/// Why there is no answer, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the address.
    #[error("no router is reachable at {address} ({cause}); start it with `weave-router`, or name its address with --api")]
    Unreachable {
        /// The API's address.
        address: ApiAddress,
        /// What the system says.
        cause: String,
    },
    /// The router said no.
    #[error("the router at {address} refused: {sentence}")]
    Refused {
        /// The API's address.
        address: ApiAddress,
        /// The router's own sentence.
        sentence: String,
    },
    /// Somebody listens, and does not speak as a router does.
    #[error("what listens at {address} does not answer as weave-router does ({cause}); name the router's address with --api")]
    Strange {
        /// The API's address.
        address: ApiAddress,
        /// What went wrong.
        cause: String,
    },
}

/// What form an answer is wanted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// A client of the router at one address.
#[derive(Clone, Debug)]
pub struct Client {
    address: ApiAddress,
}

impl Client {
    /// A client; nothing is connected yet.
    pub fn new(address: ApiAddress) -> Client {
        Client { address }
    }

    /// `GET path`: the body of the answer.
    pub fn get(&self, path: &str, form: Form) -> Result<String, ClientError> {
        let accept = match form {
            Form::Text => "text/plain",
            Form::Json => "application/json",
        };
        let request = Request::builder().method(Method::GET).uri(path).header(ACCEPT, accept).header(HOST, "localhost");
        self.run(request.body(Full::default()))
    }

    /// `POST path` with a list of hosts.
    pub fn post(&self, path: &str, peers: Vec<String>) -> Result<(), ClientError> {
        let body = serde_json::to_vec(&Hosts { peers }).map_err(|e| self.strange(e))?;
        let request = Request::builder().method(Method::POST).uri(path).header(CONTENT_TYPE, "application/json").header(HOST, "localhost");
        self.run(request.body(Full::from(body))).map(drop)
    }

    /// Any other request, with a JSON body where it takes one: the body of the answer.
    pub fn act(&self, method: Method, path: &str, body: Option<&serde_json::Value>) -> Result<String, ClientError> {
        let body = body.map_or(Ok(Vec::new()), serde_json::to_vec).map_err(|e| self.strange(e))?;
        let request = Request::builder().method(method).uri(path).header(HOST, "localhost").header(ACCEPT, "text/plain");
        self.run(request.header(CONTENT_TYPE, "application/json").body(Full::from(body)))
    }

    fn run(&self, request: hyper::http::Result<Request<Full<Bytes>>>) -> Result<String, ClientError> {
        let request = request.map_err(|e| self.strange(e))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| self.unreachable(&e))?;
        runtime.block_on(async {
            match tokio::time::timeout(PATIENCE, self.exchange(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(self.strange(format!("no answer within {} s", PATIENCE.as_secs()))),
            }
        })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<String, ClientError> {
        match &self.address {
            ApiAddress::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => self.speak(stream, request).await,
                Err(e) => Err(self.unreachable(&e)),
            },
            ApiAddress::Tcp(addr) => match TcpStream::connect(addr).await {
                Ok(stream) => self.speak(stream, request).await,
                Err(e) => Err(self.unreachable(&e)),
            },
        }
    }

    async fn speak<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<String, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.strange(e))?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|e| self.strange(e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|e| self.strange(e))?;
        driver.abort();
        let text = String::from_utf8(body.to_bytes().to_vec()).map_err(|e| self.strange(e))?;
        if status.is_success() {
            return Ok(text);
        }
        match serde_json::from_str::<Failure>(&text) {
            Ok(failure) => Err(ClientError::Refused { address: self.address.clone(), sentence: failure.error }),
            Err(_) => Err(self.strange(format!("HTTP status {status}"))),
        }
    }

    fn unreachable(&self, e: &io::Error) -> ClientError {
        let cause = match e.kind() {
            io::ErrorKind::NotFound => "there is no socket".to_string(),
            io::ErrorKind::ConnectionRefused => "nobody listens there".to_string(),
            io::ErrorKind::PermissionDenied => "permission denied; root may".to_string(),
            _ => e.to_string(),
        };
        ClientError::Unreachable { address: self.address.clone(), cause }
    }

    fn strange(&self, cause: impl ToString) -> ClientError {
        ClientError::Strange { address: self.address.clone(), cause: cause.to_string() }
    }
}

/// A text as one segment of a path, or as a value in a query (RFC 3986, 2.1).
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
