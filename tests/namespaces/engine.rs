//! Docker's engine as far as it is asked here: an HTTP server on a unix socket that answers as dockerd 27 does.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// A container that the engine tells of.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: &'static str,
    /// `running`, `paused`, `restarting`, `exited`.
    pub status: &'static str,
    /// Its first process, 0 for none.
    pub pid: u32,
    /// Its host name.
    pub hostname: &'static str,
    /// The domain of it.
    pub domainname: &'static str,
    /// Its network: `bridge`, `host`, `none`.
    pub network: &'static str,
}

/// A running engine; its containers may change.
pub struct Engine {
    told: Arc<Mutex<Vec<Told>>>,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Engine {
    /// Starts one.
    pub fn start() -> Engine {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let told = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&told);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let containers = shared.lock().expect("the containers").clone();
                // A client that hung up has its reasons. The last one ends the thread.
                match answer(stream.expect("a client"), &containers) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => eprintln!("the engine could not answer: {error}"),
                }
            }
        });
        Engine { told, path, _dir: dir }
    }

    /// What `--docker-host` takes.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Tells of these containers from now on.
    pub fn tell(&self, containers: &[Told]) {
        *self.told.lock().expect("the containers") = containers.to_vec();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = UnixStream::connect(&self.path).and_then(|mut stream| stream.write_all(b"GET /stop HTTP/1.1\r\n\r\n"));
    }
}

/// Answers one question; false for the one that means to stop.
fn answer(mut stream: UnixStream, containers: &[Told]) -> std::io::Result<bool> {
    let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(true);
        }
        request.extend_from_slice(&buffer[..read]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    if path == "/stop" {
        return Ok(false);
    }
    let Some(name) = path.strip_prefix("/containers/").and_then(|rest| rest.strip_suffix("/json")) else {
        let (status, body) = complaint("404 Not Found", "page not found");
        return write(&mut stream, status, &body).map(|()| true);
    };
    let (status, body) = match find(containers, name) {
        Ok(told) => ("200 OK", describe(told)),
        Err((status, message)) => complaint(status, &message),
    };
    write(&mut stream, status, &body).map(|()| true)
}

/// A whole id, a name, or the beginning of one id, in this order.
fn find<'a>(containers: &'a [Told], name: &str) -> Result<&'a Told, (&'static str, String)> {
    if name == "broken" {
        return Err(("500 Internal Server Error", "layer does not exist".into()));
    }
    if let Some(told) = containers.iter().find(|told| told.id == name || told.name == name) {
        return Ok(told);
    }
    let mut begin = containers.iter().filter(|told| told.id.starts_with(name));
    match (begin.next(), begin.next()) {
        (Some(told), None) => Ok(told),
        (Some(_), Some(_)) => Err(("400 Bad Request", format!("multiple IDs found with provided prefix: {name}"))),
        (None, _) => Err(("404 Not Found", format!("No such container: {name}"))),
    }
}

fn complaint(status: &'static str, message: &str) -> (&'static str, Value) {
    (status, json!({ "message": message }))
}

fn describe(told: &Told) -> Value {
    let is = |status: &str| told.status == status;
    let networks: BTreeMap<&str, Value> = [(told.network, json!({ "IPAMConfig": null, "MacAddress": "02:42:ac:11:00:02" }))].into();
    json!({
        "Id": told.id,
        "Created": "2024-11-26T09:00:00.000000000Z",
        "Path": "sleep", "Args": ["60"],
        "State": {
            "Status": told.status, "Running": !is("exited") && !is("created"), "Paused": is("paused"), "Restarting": is("restarting"),
            "OOMKilled": false, "Dead": false, "Pid": told.pid, "ExitCode": 0, "Error": "",
            "StartedAt": "2024-11-26T09:00:01.000000000Z", "FinishedAt": "0001-01-01T00:00:00Z"
        },
        "Image": "sha256:0000", "Name": format!("/{}", told.name), "RestartCount": 0, "Driver": "overlay2", "Platform": "linux",
        "HostConfig": { "NetworkMode": told.network, "PortBindings": {}, "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 } },
        "Mounts": [],
        "Config": {
            "Hostname": told.hostname, "Domainname": told.domainname, "User": "", "Env": ["PATH=/bin"], "Cmd": ["sleep", "60"],
            "Image": "busybox", "Labels": {}
        },
        "NetworkSettings": { "Bridge": "", "SandboxKey": "/var/run/docker/netns/0", "Ports": {}, "Networks": networks }
    })
}

/// Long answers come in chunks, as Go's server sends them.
fn write(stream: &mut UnixStream, status: &str, body: &Value) -> std::io::Result<()> {
    let body = format!("{body}\n");
    let head = format!(
        "HTTP/1.1 {status}\r\nApi-Version: 1.47\r\nContent-Type: application/json\r\nDocker-Experimental: false\r\nOstype: linux\r\n\
         Server: Docker/27.3.1 (linux)\r\nDate: Tue, 26 Nov 2024 09:00:02 GMT\r\n"
    );
    if body.len() < 512 {
        return write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
    }
    write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n")?;
    for chunk in body.as_bytes().chunks(600) {
        write!(stream, "{:x}\r\n", chunk.len())?;
        stream.write_all(chunk)?;
        write!(stream, "\r\n")?;
    }
    write!(stream, "0\r\n\r\n")
}
