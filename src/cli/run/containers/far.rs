//! Subnets of containers that lie outside of the ranges: told to the other routers, and heard of them. What is in a range is known anyway.
//!
//! Isolation and masquerading tell by them what belongs to the mesh and what is outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::mpsc;

use super::super::planes::send;
use super::desk::Desk;
use crate::io::mailbox::Sender;
use crate::io::mesh_thread::MeshInput;
use crate::mesh::apps::{AppEvent, MAX_CHUNKS, SUBNETS_RECORD};
use crate::mesh::command::Command;
use crate::wire::PeerName;
use crate::wire::subnets;

/// Most chunks of other routers that are kept: their subnets go into the firewall's sets.
const MOST: usize = 8192;

/// The way to the mesh plane and back.
pub struct Mesh {
    /// The mesh plane's mailbox.
    pub mailbox: Sender<MeshInput>,
    /// What it says.
    pub events: mpsc::Receiver<AppEvent>,
}

/// What was said and heard.
pub struct Far {
    mailbox: Sender<MeshInput>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was published last.
    said: Option<BTreeSet<IpNet>>,
    heard: BTreeMap<(PeerName, u16), BTreeSet<IpNet>>,
    /// There was no room for more.
    full: bool,
}

impl Far {
    /// Nothing was said and heard.
    pub fn new(mailbox: Sender<MeshInput>) -> Far {
        Far { mailbox, state: Mutex::default() }
    }

    /// The subnets of the others.
    pub fn subnets(&self) -> BTreeSet<IpNet> {
        self.state().subnets()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, subnets: BTreeSet<IpNet>) {
        let mut state = self.state();
        // A router that never had any has nothing to take back.
        if state.said.clone().unwrap_or_default() != subnets {
            let mut chunks = subnets::chunks(&subnets);
            if chunks.len() > MAX_CHUNKS {
                tracing::warn!("this host has containers in more subnets outside of --ipalloc-range than other routers can be told");
                chunks.truncate(MAX_CHUNKS);
            }
            // Where the mesh plane is busy, it is said with the next look.
            if send(&self.mailbox, Command::Publish { kind: SUBNETS_RECORD, chunks }) {
                state.said = Some(subnets);
            }
        }
    }
}

impl State {
    /// True where something changed.
    fn hear(&mut self, event: AppEvent) -> bool {
        match event {
            AppEvent::Record { origin, kind: SUBNETS_RECORD, chunk, body } => self.take(origin, chunk, body.as_deref()),
            AppEvent::Forgotten { peer } => {
                let before = self.heard.len();
                self.heard.retain(|(origin, _), _| *origin != peer);
                self.heard.len() != before
            }
            AppEvent::Record { .. } | AppEvent::Peer { .. } | AppEvent::Told { .. } => false,
        }
    }

    fn subnets(&self) -> BTreeSet<IpNet> {
        self.heard.values().flatten().copied().collect()
    }

    fn take(&mut self, origin: PeerName, chunk: u16, body: Option<&[u8]>) -> bool {
        let subnets = match body.map(subnets::parse) {
            None => None,
            Some(Ok(subnets)) => Some(subnets),
            Some(Err(error)) => {
                tracing::debug!("subnets of {origin} are left out: {error}");
                return false;
            }
        };
        let key = (origin, chunk);
        match subnets {
            None => self.heard.remove(&key).is_some(),
            Some(_) if self.heard.len() >= MOST && !self.heard.contains_key(&key) => {
                if !std::mem::replace(&mut self.full, true) {
                    tracing::warn!("other routers tell of more subnets than this one keeps: some are like the outside to it");
                }
                false
            }
            Some(subnets) => self.heard.insert(key, subnets.clone()) != Some(subnets),
        }
    }
}

impl Desk {
    /// Tells the others which subnets outside of the ranges are in use here, where that changed.
    pub(super) fn publish(&self) {
        let inside = |subnet: &IpNet| self.settings.ranges.iter().any(|range| range.contains(subnet));
        self.far.publish(self.subnets().into_iter().filter(|subnet| !inside(subnet)).collect());
    }

    /// Another router tells which are in use there.
    pub(super) fn hear(self: &Arc<Self>, event: AppEvent) {
        if self.far.state().hear(event) {
            self.guard.change();
            self.follow_ports();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_kept_until_they_take_it_back_or_are_forgotten() {
        let net = |text: &str| text.parse::<IpNet>().expect("a subnet");
        let mut state = State::default();
        let (one, two) = (PeerName([2; 6]), PeerName([4; 6]));
        let body = |texts: &[&str]| subnets::chunks(&texts.iter().map(|text| net(text)).collect()).remove(0);
        assert!(state.take(one, 0, Some(&body(&["10.99.1.0/24"]))));
        assert!(!state.take(one, 0, Some(&body(&["10.99.1.0/24"]))), "nothing new");
        assert!(!state.take(one, 0, Some(b"nonsense")), "what cannot be read changes nothing");
        assert!(state.take(two, 0, Some(&body(&["10.99.2.0/24"]))));
        assert_eq!(state.subnets().into_iter().collect::<Vec<_>>(), [net("10.99.1.0/24"), net("10.99.2.0/24")]);
        assert!(state.hear(AppEvent::Forgotten { peer: one }) && !state.hear(AppEvent::Forgotten { peer: one }));
        assert!(state.hear(AppEvent::Record { origin: two, kind: SUBNETS_RECORD, chunk: 0, body: None }));
        assert!(state.subnets().is_empty());
    }
}
