//! Bridges that somebody joined outside the mesh.

use std::time::Duration;

use super::super::ethernet;
use super::super::node::Input;
use super::{Happening, RouterId, Sim};
use crate::wire::VnetHeader;

/// What a frame takes from one bridge to the other.
const CABLE: Duration = Duration::from_micros(20);

impl Sim {
    /// Joins the bridges of two hosts by a cable, as a hub would: each sees all that the other sees. With itself, a bridge sees all twice.
    pub fn join_bridges(&mut self, a: RouterId, b: RouterId) {
        self.joined.insert((a, b));
        self.doubles.get_or_insert(0);
    }

    /// Takes that cable away.
    pub fn part_bridges(&mut self, a: RouterId, b: RouterId) {
        self.joined.remove(&(a, b));
    }

    /// Frames that arrived once more since bridges were first joined.
    pub fn doubles(&self) -> u64 {
        self.doubles.unwrap_or(0)
    }

    /// A frame is on a host's bridge: the bridges that it is joined to get it too.
    pub(super) fn cross_cables(&mut self, router: RouterId, vnet: VnetHeader, frame: &[u8]) {
        let others: Vec<RouterId> = self
            .joined
            .iter()
            .filter_map(|(a, b)| match (*a == router, *b == router) {
                (true, _) => Some(*b),
                (false, true) => Some(*a),
                (false, false) => None,
            })
            .collect();
        for router in others {
            self.queue.push(self.now + CABLE, Happening::Joined { router, vnet, frame: frame.to_vec() });
        }
    }

    /// A frame comes to a host's bridge from one that it is joined to: containers and the router see it.
    pub(super) fn arrive_by_cable(&mut self, router: RouterId, vnet: VnetHeader, frame: Vec<u8>) {
        self.see(router, ethernet::read(&frame));
        self.feed(router, Input::Frame(vnet, frame));
    }
}
