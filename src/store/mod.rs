//! The state directory: identity seed, incarnation, remembered peers, revoked members, and the lock that keeps a second router out.
//!
//! Every file is written whole under another name, synced, and renamed into place, so that a crash at any moment leaves the old content or
//! the new. The container network keeps its state in a table file of its own, [`db`]. All files have mode 0600.

mod atomic;
pub mod db;
mod revoked;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand_core::Rng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::io::clock::Clock;
use crate::mesh::command::Target;
pub use revoked::Revoked;

/// Bytes of an identity seed.
pub const SEED_LEN: usize = 32;

const LOCK: &str = "lock";
/// How long a lock that is held is waited for.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);
const SEED: &str = "identity";
const INCARNATION: &str = "incarnation";
const PEERS: &str = "peers.json";

/// Largest file that is read, in bytes: the list of peers is the only one that grows.
const MAX_FILE: u64 = 4 << 20;

/// The secret from which a router's keys are made.
pub type Seed = Zeroizing<[u8; SEED_LEN]>;

/// Why the state directory cannot be used, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused something.
    #[error("cannot {action} {path}: {cause}{remedy}")]
    System {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: String,
        /// What the system says.
        cause: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// Another router has the directory.
    #[error("state directory {path} is in use by another weave-router{pid}; stop it, or choose another directory with --state-dir")]
    InUse {
        /// The directory.
        path: String,
        /// ` (pid N)`, where it is known.
        pid: String,
    },
    /// Another process has a file open.
    #[error(
        "cannot open {path}: another process has it open; `fuser -v {path}` names it: stop it, or choose another directory with --state-dir"
    )]
    Locked {
        /// The file.
        path: String,
    },
    /// A file is not what this program wrote.
    #[error("{path} is damaged: {what}; {remedy}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
}

impl StoreError {
    /// True where there is no room on the file system: whoever makes some may try again.
    pub fn is_full(&self) -> bool {
        match self {
            StoreError::System { cause, .. } => matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
            StoreError::InUse { .. } | StoreError::Locked { .. } | StoreError::Damaged { .. } => false,
        }
    }

    fn system(action: &'static str, path: &Path, cause: io::Error) -> StoreError {
        let remedy = match cause.kind() {
            io::ErrorKind::PermissionDenied => "; run as root, or choose another directory with --state-dir",
            io::ErrorKind::ReadOnlyFilesystem => "; choose another directory with --state-dir",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room on that file system",
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "; something that is no directory is in the way",
            _ => "",
        };
        StoreError::System { action, path: path.display().to_string(), cause, remedy }
    }
}

/// The state directory, locked for as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct PeersFile {
    version: u32,
    peers: Vec<String>,
}

impl StateDir {
    /// Makes the directory where it is missing, takes its lock and clears what a killed router left half written.
    pub fn open(dir: &Path) -> Result<StateDir, StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| StoreError::system("make the state directory", dir, e))?;
        let lock = take_lock(dir)?;
        for name in [SEED, INCARNATION, PEERS, revoked::REVOKED] {
            atomic::clear(dir, name).map_err(|e| StoreError::system("clear an unfinished write of", &dir.join(name), e))?;
        }
        Ok(StateDir { dir: dir.to_path_buf(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The identity seed; made from `rng` and written on first use.
    pub fn seed(&self, rng: &mut dyn Rng) -> Result<Seed, StoreError> {
        let path = self.dir.join(SEED);
        if let Some(seed) = read_seed(&self.dir)? {
            close_to_others(&path)?;
            return Ok(seed);
        }
        let mut seed = Zeroizing::new([0; SEED_LEN]);
        rng.fill_bytes(&mut *seed);
        self.write(SEED, &*seed)?;
        Ok(seed)
    }

    /// The next incarnation, larger than any that was ever returned from this directory; it is on disk before this returns.
    pub fn next_incarnation(&self) -> Result<u64, StoreError> {
        let path = self.dir.join(INCARNATION);
        let damaged = |what: String| StoreError::Damaged {
            path: path.display().to_string(),
            what,
            remedy: "write into it a number larger than this router's incarnation in `weave-router status peers --json` of another router",
        };
        let last = match read(&path)? {
            None => 0,
            Some(text) => {
                let text = String::from_utf8_lossy(&text).trim().to_string();
                text.parse::<u64>()
                    .map_err(|_| damaged(format!("it holds no number but '{}'", text.escape_debug().take(32).collect::<String>())))?
            }
        };
        let next = last.checked_add(1).ok_or_else(|| damaged("its number cannot grow any more".into()))?;
        self.write(INCARNATION, format!("{next}\n").as_bytes())?;
        Ok(next)
    }

    /// Raises the incarnation to at least this one, on disk before it returns: the mesh remembers a later life than we do.
    pub fn raise_incarnation(&self, incarnation: u64) -> Result<(), StoreError> {
        if read(&self.dir.join(INCARNATION))?
            .is_some_and(|text| String::from_utf8_lossy(&text).trim().parse::<u64>().is_ok_and(|last| last >= incarnation))
        {
            return Ok(());
        }
        self.write(INCARNATION, format!("{incarnation}\n").as_bytes())
    }

    /// The peers added at runtime. A damaged list is set aside and empty from then on; the sentence says so.
    pub fn peers(&self) -> Result<(Vec<Target>, Option<String>), StoreError> {
        let path = self.dir.join(PEERS);
        let Some(bytes) = read(&path)? else { return Ok((Vec::new(), None)) };
        match parse_peers(&bytes) {
            Ok(peers) => Ok((peers, None)),
            Err(what) => {
                let aside = self.dir.join(format!("{PEERS}.damaged"));
                fs::rename(&path, &aside).map_err(|e| StoreError::system("set aside the damaged list of peers", &path, e))?;
                let (path, aside) = (path.display(), aside.display());
                let warning =
                    format!("{path} is damaged ({what}): it was moved to {aside}, peers that were added at runtime are forgotten");
                Ok((Vec::new(), Some(warning)))
            }
        }
    }

    /// Writes the peers added at runtime.
    pub fn set_peers(&self, peers: &[Target]) -> Result<(), StoreError> {
        let file = PeersFile { version: 1, peers: peers.iter().map(ToString::to_string).collect() };
        let mut text =
            serde_json::to_vec_pretty(&file).map_err(|e| StoreError::system("write", &self.dir.join(PEERS), io::Error::other(e)))?;
        text.push(b'\n');
        self.write(PEERS, &text)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        atomic::write(&self.dir, name, content).map_err(|e| StoreError::system("write", &self.dir.join(name), e))
    }
}

/// The identity seed of a state directory, without taking its lock; `None` where no router has used it yet.
pub fn read_seed(dir: &Path) -> Result<Option<Seed>, StoreError> {
    let path = dir.join(SEED);
    let Some(bytes) = read(&path)?.map(Zeroizing::new) else { return Ok(None) };
    match <[u8; SEED_LEN]>::try_from(bytes.as_slice()) {
        Ok(seed) if seed != [0; SEED_LEN] => Ok(Some(Zeroizing::new(seed))),
        Ok(_) => Err(damaged_seed(&path, "it holds zeros only".into())),
        Err(_) => Err(damaged_seed(&path, format!("it holds {} bytes, an identity takes {SEED_LEN}", bytes.len()))),
    }
}

fn damaged_seed(path: &Path, what: String) -> StoreError {
    let remedy = "put it back from a backup, or delete it to join as a new router with a new key";
    StoreError::Damaged { path: path.display().to_string(), what, remedy }
}

fn take_lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK);
    let fail = |e| StoreError::system("lock the state directory by", &path, e);
    let mut lock = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(fail)?;
    match lock_patiently(&lock) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = lock.take(16).read_to_string(&mut pid);
            let pid = pid.trim().parse::<u32>().map_or(String::new(), |pid| format!(" (pid {pid})"));
            return Err(StoreError::InUse { path: dir.display().to_string(), pid });
        }
        Err(TryLockError::Error(e)) => return Err(fail(e)),
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(fail)?;
    Ok(lock)
}

/// Waits a little for a lock that is held: a program which a router was just starting when it was killed has the lock as well, until it runs.
fn lock_patiently(lock: &File) -> Result<(), TryLockError> {
    let clock = Clock::start();
    let start = clock.now();
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if clock.now().since(start) < LOCK_PATIENCE => std::thread::park_timeout(LOCK_PATIENCE / 20),
            other => return other,
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|f| f.take(MAX_FILE).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::system("read", path, e)),
    }
}

fn close_to_others(path: &Path) -> Result<(), StoreError> {
    let repair = || -> io::Result<()> {
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & 0o077 == 0 { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(0o600)) }
    };
    repair().map_err(|e| StoreError::system("close to other users", path, e))
}

fn parse_peers(bytes: &[u8]) -> Result<Vec<Target>, String> {
    let file: PeersFile = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if file.version != 1 {
        return Err(format!("its version is {}, this program knows 1", file.version));
    }
    file.peers.iter().map(|text| text.parse::<Target>().map_err(|e| e.to_string())).collect()
}

#[cfg(test)]
mod tests;
