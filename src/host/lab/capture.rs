//! Packets as `tcpdump` sees them on an interface of the laboratory.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::clock::{pause, wait_until};
use super::{HostError, Lab, Process};

/// The header of a capture file, in bytes; it is written when the socket is open.
const FILE_HEADER: u64 = 24;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Starts `tcpdump` on an interface of a host or container, and waits until it listens.
    pub fn start(lab: &Lab, name: &str, interface: &str, filter: &str) -> Result<Capture, HostError> {
        let file = std::env::temp_dir().join(format!("weave-lab-{}-{interface}.pcap", lab.namespace(name)));
        let mut command = Command::new("tcpdump");
        command.args(["-i", interface, "-n", "--immediate-mode", "-U", "-s", "0", "-Z", "root", "-w"]).arg(&file).arg(filter);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = lab.spawn(name, &mut command)?;
        let mut capture = Capture { process, file };
        let listens = || capture.process.ended().is_some() || fs::metadata(&capture.file).is_ok_and(|m| m.len() >= FILE_HEADER);
        if wait_until(Duration::from_secs(5), listens) && capture.process.ended().is_none() {
            return Ok(capture);
        }
        let output = "nothing that tells why; does the interface exist?".into();
        Err(HostError::Program { attempted: format!("capture packets on {interface} of {name}"), program: "tcpdump".into(), output })
    }

    /// Ends the capture and answers with the bytes of its file: packets with their headers.
    pub fn bytes(mut self) -> Result<Vec<u8>, HostError> {
        self.end()?;
        fs::read(&self.file).map_err(|e| HostError::io("read the capture", e))
    }

    /// Ends the capture and answers with what `tcpdump -r` prints, a line or more per packet.
    pub fn lines(mut self) -> Result<Vec<String>, HostError> {
        self.end()?;
        let read = Command::new("tcpdump").args(["-n", "-e", "-v", "-r"]).arg(&self.file).output();
        let output = read.map_err(|e| HostError::io("read the capture", e))?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(String::from).collect())
    }

    fn end(&mut self) -> Result<(), HostError> {
        // Packets reach the file by way of the kernel's buffer.
        pause(Duration::from_millis(200));
        self.process.stop(Duration::from_secs(5)).map(|_| ())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.file) {
            tracing::debug!("{} stays: {error}", self.file.display());
        }
    }
}
