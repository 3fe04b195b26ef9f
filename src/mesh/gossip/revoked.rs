//! Members that were put out: their records are carried, so that all routers hash the same ones, and not used.

use super::store::Store;
use super::{Change, Output};
use crate::crypto::PublicKey;
use crate::wire::body::LEFT;

impl Store {
    /// Takes this key for no member's from now on. This router's own stays one: the others decide about it.
    pub fn revoke(&mut self, key: PublicKey, out: &mut Output) {
        let name = key.name();
        if name == self.own || !self.revoked.insert(key) {
            return;
        }
        self.members_changed();
        let Some(origin) = self.origins.get(&name).filter(|origin| self.key_of(origin) == key) else { return };
        out.changes.extend([Change::Node(name), Change::Links(name), Change::Macs(name)]);
        let apps = origin.records.keys().filter(|(kind, _)| *kind > LEFT);
        out.changes.extend(apps.map(|(kind, chunk)| Change::App(name, *kind, *chunk)));
    }

    /// True where this key was revoked.
    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        self.revoked.contains(key)
    }
}
