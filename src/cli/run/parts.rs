//! The parts of the container network, as far as this router was asked to have them: started, joined to the API and the status.

use axum::Router;
use futures::FutureExt;

use super::super::RunConfig;
use super::apps::Apps;
use super::dns::{self, Dns};
use super::planes::Planes;
use super::status::Count;
use crate::api::names::{self, NamesHandle};
use crate::api::section::Ask;
use crate::io::clock::Clock;
use crate::mesh::apps::{Channel, NAMES_RECORD};
use crate::store::db::Db;
use crate::wire::PeerName;

/// What the parts add to the API and the status.
#[derive(Default)]
pub struct Parts {
    /// Their pages.
    pub routes: Router,
    /// What they say of themselves.
    pub sections: Vec<Ask>,
    /// What they count, by plane.
    pub counts: Vec<(&'static str, Count)>,
    /// The name server.
    pub dns: Option<Dns>,
}

impl Parts {
    /// Starts them, for the router of this name.
    pub fn start(config: &RunConfig, (name, clock): (PeerName, Clock), db: &Db, planes: &Planes, apps: &mut Apps) -> Parts {
        let mut parts = Parts::default();
        let names = parts.start_names(config, (name, clock), db, planes, apps);
        parts.routes = std::mem::take(&mut parts.routes).merge(names::routes(names));
        parts
    }

    /// Names, where they are not switched off. Without them the router does everything else.
    fn start_names(
        &mut self,
        config: &RunConfig,
        (name, clock): (PeerName, Clock),
        db: &Db,
        planes: &Planes,
        apps: &mut Apps,
    ) -> NamesHandle {
        let handle = config.dns.as_ref().and_then(|dns| {
            let events = apps.join(Channel::Names, NAMES_RECORD);
            let needs = dns::Needs { name, nickname: config.nickname.clone(), db: db.clone(), mesh: planes.mesh(), events, clock };
            let started = Dns::start(dns, needs).inspect_err(|error| tracing::error!("names are not served: {error:#}"));
            let (dns, handle) = started.ok()?;
            self.counts.extend(dns.counters());
            self.dns = Some(dns);
            Some(handle)
        });
        let handle = handle.unwrap_or_else(NamesHandle::off);
        let asked = handle.clone();
        self.sections.push(Box::new(move || {
            let asked = asked.clone();
            async move { names::section(&asked) }.boxed()
        }));
        handle
    }
}
