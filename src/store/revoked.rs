//! The members that were put out of the mesh, over a restart.

use serde::{Deserialize, Serialize};

use super::{StateDir, StoreError, read};
use crate::crypto::PublicKey;
use crate::crypto::revocation::{from_hex, to_hex};

/// Name of the file in the state directory.
pub(super) const REVOKED: &str = "revoked.json";

/// A key, and the administrator's signature; none where this router alone revoked it.
pub type Revoked = (PublicKey, Option<[u8; 64]>);

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    revoked: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    signature: Option<String>,
}

impl StateDir {
    /// The keys that were revoked. A damaged file is no reason to let anybody in again: the router does not start with it.
    pub fn revoked(&self) -> Result<Vec<Revoked>, StoreError> {
        let path = self.dir.join(REVOKED);
        let Some(bytes) = read(&path)? else { return Ok(Vec::new()) };
        parse(&bytes).map_err(|what| StoreError::Damaged {
            path: path.display().to_string(),
            what,
            remedy: "put it back from a backup, or delete it and revoke again what was revoked on this router alone",
        })
    }

    /// Writes them.
    pub fn set_revoked(&self, revoked: &[Revoked]) -> Result<(), StoreError> {
        let entry = |(key, signature): &Revoked| Entry { key: key.to_string(), signature: signature.map(|bytes| to_hex(&bytes)) };
        let file = File { version: 1, revoked: revoked.iter().map(entry).collect() };
        let failed = |e| StoreError::system("write", &self.dir.join(REVOKED), std::io::Error::other(e));
        let mut text = serde_json::to_vec_pretty(&file).map_err(failed)?;
        text.push(b'\n');
        self.write(REVOKED, &text)
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<Revoked>, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if file.version != 1 {
        return Err(format!("its version is {}, this program knows 1", file.version));
    }
    let entry = |entry: &Entry| {
        let key = entry.key.parse::<PublicKey>().map_err(|e| e.to_string())?;
        let signature = entry.signature.as_deref().map(|text| from_hex(text).ok_or(format!("'{text}' is no signature"))).transpose()?;
        Ok((key, signature))
    };
    file.revoked.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_revoked_is_there_after_a_restart_and_is_not_lost_in_silence() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = StateDir::open(dir.path()).expect("opened");
        assert_eq!(store.revoked().expect("nothing"), []);
        let all = [(PublicKey([7; 32]), Some([9; 64])), (PublicKey([8; 32]), None)];
        store.set_revoked(&all).expect("written");
        drop(store);
        let store = StateDir::open(dir.path()).expect("opened");
        assert_eq!(store.revoked().expect("read"), all);
        for bad in ["", "{}", r#"{"version":2,"revoked":[]}"#, r#"{"version":1,"revoked":[{"key":"7","signature":null}]}"#] {
            std::fs::write(dir.path().join(REVOKED), bad).expect("written");
            assert!(matches!(store.revoked(), Err(StoreError::Damaged { .. })), "{bad}");
        }
    }
}
