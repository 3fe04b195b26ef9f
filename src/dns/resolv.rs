//! The host's own name servers, as `resolv.conf` names them.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::time::Time;

/// Most name servers that are asked.
const MOST: usize = 8;
/// How often it is looked whether the file changed.
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);

/// The name servers of a text in the form of resolv.conf(5), in order, each once. What is malformed is left out.
pub fn parse(text: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(server) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        if !found.contains(&server) && found.len() < MOST {
            found.push(server);
        }
    }
    found
}

/// The file, read again when it changes.
#[derive(Debug)]
pub struct ResolvConf {
    path: PathBuf,
    /// Time of change, inode and length, as of the last reading.
    seen: Option<(i64, i64, u64, u64)>,
    looked: Option<Time>,
    servers: Vec<IpAddr>,
}

impl ResolvConf {
    /// Not read yet.
    pub fn new(path: &Path) -> ResolvConf {
        ResolvConf { path: path.into(), seen: None, looked: None, servers: Vec::new() }
    }

    /// The name servers. Where the file cannot be read, those of the last time.
    pub fn servers(&mut self, now: Time) -> &[IpAddr] {
        if self.looked.is_none_or(|looked| now.since(looked) >= LOOK) {
            self.looked = Some(now);
            if let Err(error) = self.read() {
                tracing::debug!("cannot read the name servers in {}: {error}", self.path.display());
            }
        }
        &self.servers
    }

    fn read(&mut self) -> std::io::Result<()> {
        let meta = fs::metadata(&self.path)?;
        let stamp = Some((meta.mtime(), meta.mtime_nsec(), meta.ino(), meta.len()));
        if stamp != self.seen {
            self.servers = parse(&fs::read_to_string(&self.path)?);
            self.seen = stamp;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn name_servers_of_a_text() {
        let text = "# made by hand\nsearch example.com\nnameserver 10.0.0.2\n  nameserver\tfd00::2 # second\nnameserver 10.0.0.2\n\
                    nameserver nonsense\nnameserver\n;nameserver 10.0.0.9\nnameserver2 10.0.0.8\noptions edns0\n";
        let expected: Vec<IpAddr> = ["10.0.0.2", "fd00::2"].iter().map(|text| text.parse().expect("an address")).collect();
        assert_eq!(parse(text), expected);
        assert_eq!(parse(&(0..99).map(|n| format!("nameserver 10.0.0.{n}\n")).collect::<String>()).len(), MOST);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("resolv.conf");
        let mut conf = ResolvConf::new(&path);
        assert!(conf.servers(Time::ZERO).is_empty(), "no file, no servers");
        fs::write(&path, "nameserver 10.0.0.1\n").expect("a file");
        assert!(conf.servers(Time::ZERO + LOOK / 2).is_empty(), "it was just looked at");
        assert_eq!(conf.servers(Time::ZERO + LOOK).len(), 1);
        fs::write(&path, "nameserver 10.0.0.1\nnameserver 10.0.0.2\n").expect("a file");
        assert_eq!(conf.servers(Time::ZERO + LOOK * 2).len(), 2);
        fs::remove_file(&path).expect("it is there");
        assert_eq!(conf.servers(Time::ZERO + Duration::from_secs(60)).len(), 2, "the last known are kept");
    }
}
