//! Members that are put out of the mesh: checked, on disk, and then said.

use super::Router;
use crate::api::Denied;
use crate::crypto::{Ed25519, PublicKey, Revocation};
use crate::mesh::command::Command;
use crate::store::Revoked;
use crate::wire::PeerName;

impl Router {
    /// The operator puts a member out: on disk before it is acknowledged.
    pub(super) fn revoke(&mut self, (key, signature): Revoked) -> Result<(), Denied> {
        match signature {
            Some(signature) => self.check(Revocation { key, signature })?,
            None if key == self.key => {
                let why = "that is this router's own key: stop this router, or revoke it for everybody with --admin-key";
                return Err(Denied::nonsense(why));
            }
            None => {}
        }
        self.remember_revoked((key, signature))?;
        self.planes.command(Command::Revoke { key, signature });
        Ok(())
    }

    fn check(&self, revocation: Revocation) -> Result<(), Denied> {
        let admins: Vec<PublicKey> = self.config.admins.iter().copied().map(PublicKey).collect();
        if admins.is_empty() {
            return Err(Denied::nonsense("this router goes by no administrator's word: start all routers with --admin KEY"));
        }
        if revocation.verify(&Ed25519, &admins, &self.config.network) {
            return Ok(());
        }
        Err(Denied::nonsense("the admin key is none of those that this router was started with (--admin)"))
    }

    /// The mesh says that a member was put out.
    pub(super) fn on_revoked(&mut self, revoked: Revoked, name: PeerName, nickname: &str) {
        let by = if revoked.1.is_some() { "by the administrator" } else { "on this router" };
        tracing::warn!("{name} ({nickname}) is no member any more: its key {} was revoked {by}", revoked.0);
        if let Err(denied) = self.remember_revoked(revoked) {
            tracing::error!("{denied}; after a restart this router may not know that {name} was revoked");
        }
    }

    fn remember_revoked(&mut self, (key, signature): Revoked) -> Result<(), Denied> {
        let before = self.revoked.iter().find(|(other, _)| *other == key).map(|(_, signature)| *signature);
        // A new signature takes the place of one whose key may be on its way out.
        if before == Some(signature) || (before.is_some_and(|before| before.is_some()) && signature.is_none()) {
            return Ok(());
        }
        let mut all = self.revoked.clone();
        all.retain(|(other, _)| *other != key);
        all.push((key, signature));
        self.store.set_revoked(&all)?;
        self.revoked = all;
        Ok(())
    }
}
