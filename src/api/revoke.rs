//! Putting members out: the body of `POST /revoke`, and what status says of those that were.

use serde::{Deserialize, Serialize};

use super::state::Refusal;
use crate::crypto::PublicKey;
use crate::crypto::revocation::from_hex;
use crate::mesh::snapshot;

/// The body of `POST /revoke`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revoke {
    /// The member's public key, 64 hexadecimal digits.
    pub key: String,
    /// An administrator's signature, 128 hexadecimal digits; without one the member is put out on this router alone.
    #[serde(default)]
    pub signature: Option<String>,
}

impl Revoke {
    /// The same, read.
    pub fn read(&self) -> Result<(PublicKey, Option<[u8; 64]>), Refusal> {
        let key = self.key.parse::<PublicKey>().map_err(|e| Refusal(e.to_string()))?;
        let read = |text: &String| from_hex(text).ok_or_else(|| Refusal("\"signature\" takes 128 hexadecimal digits".into()));
        Ok((key, self.signature.as_ref().map(read).transpose()?))
    }
}

/// A member that was put out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revoked {
    /// Its name.
    pub name: String,
    /// Its public key, 64 hexadecimal digits.
    pub key: String,
    /// `admin`: an administrator, for everybody; `here`: this router, for itself.
    pub by: String,
}

impl From<&snapshot::RevokedMember> for Revoked {
    fn from(member: &snapshot::RevokedMember) -> Revoked {
        Revoked { name: member.name.to_string(), key: member.key.clone(), by: member.by.to_string() }
    }
}

impl Revoked {
    /// A line for people.
    pub fn line(&self) -> String {
        let by = if self.by == "admin" { "by the administrator" } else { "on this router alone" };
        format!("{} ({}…) {by}", self.name, self.key.get(..16).unwrap_or(&self.key))
    }
}
