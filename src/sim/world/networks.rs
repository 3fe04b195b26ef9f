//! Networks and hosts that change while the mesh runs.

use std::time::Duration;

use crate::mesh::command::Command;
use crate::time::Time;

use super::super::nat::Nat;
use super::super::node::Input;
use super::super::underlay::{Quality, WireId};
use super::{Happening, RouterId, Sim};

impl Sim {
    /// Joins two hosts by a network of their own.
    pub fn wire(&mut self, a: RouterId, b: RouterId, quality: Quality) -> WireId {
        self.lan(&[a, b], quality)
    }

    /// Joins hosts by one network on which each hears all others.
    pub fn lan(&mut self, members: &[RouterId], quality: Quality) -> WireId {
        let id = self.underlay.add(members, quality);
        for member in members {
            self.tell(*member, Command::LocalAddresses(self.underlay.addresses(*member)));
        }
        id
    }

    /// Cuts a network: nothing arrives any more.
    pub fn cut(&mut self, wire: WireId) {
        self.underlay.wires[wire.0].up = false;
    }

    /// From now on a network lets UDP through, or nothing but TCP.
    pub fn let_udp_through(&mut self, wire: WireId, udp: bool) {
        self.underlay.wires[wire.0].udp = udp;
    }

    /// Cuts a network in one direction: what this router sends there does not arrive any more.
    pub fn mute(&mut self, wire: WireId, router: RouterId) {
        self.underlay.wires[wire.0].mute.insert(router);
    }

    /// Mends a network.
    pub fn mend(&mut self, wire: WireId) {
        self.underlay.wires[wire.0].up = true;
        self.underlay.wires[wire.0].mute.clear();
        self.underlay.wires[wire.0].refusing = false;
    }

    /// Changes what a network does to datagrams.
    pub fn set_quality(&mut self, wire: WireId, quality: Quality) {
        self.underlay.wires[wire.0].quality = quality;
    }

    /// Changes what all networks do to datagrams.
    pub fn set_all_qualities(&mut self, quality: Quality) {
        self.underlay.wires.iter_mut().for_each(|wire| wire.quality = quality);
    }

    /// Separates these hosts from all others.
    pub fn partition(&mut self, apart: &[RouterId]) {
        self.underlay.sides = apart.iter().map(|router| (*router, 1)).collect();
    }

    /// Ends the partition.
    pub fn heal(&mut self) {
        self.underlay.sides.clear();
    }

    /// Joins hosts by a network of their own behind a translator, which has an address in the network `outside`. What it knows of a
    /// conversation ends when nothing was sent for `timeout`.
    pub fn nat(&mut self, kind: Nat, timeout: Duration, outside: WireId, members: &[RouterId]) -> WireId {
        let inside = self.lan(members, Quality::default());
        self.underlay.translate(kind, timeout, inside, outside);
        inside
    }

    /// Has a port of the translator before a network lead to a host there. Its router is to advertise the address outside from its next start on,
    /// or is not told of it.
    pub fn forward(&mut self, inside: WireId, router: RouterId, port: u16, advertise: bool) {
        let outside = self.underlay.forward(inside, router, port);
        if advertise {
            self.hosts[router.0].options.advertise.push(outside);
        }
    }

    /// Cuts a network, and these hosts' kernels say that the interface there is down.
    pub fn unplug(&mut self, wire: WireId, told: &[RouterId]) {
        self.cut(wire);
        for router in told {
            let others = self.underlay.others(wire, *router);
            self.feed(*router, Input::LinkLost(others));
        }
    }

    /// From now on nothing passes between two hosts, whatever networks they share or reach.
    pub fn block(&mut self, a: RouterId, b: RouterId) {
        self.underlay.blocked.extend([(a, b), (b, a)]);
    }

    /// The routes to a network vanish from all its hosts: nothing passes, and whoever sends is told.
    pub fn unroute(&mut self, wire: WireId) {
        self.underlay.wires[wire.0].refusing = true;
    }

    /// A host moves within a network: its old address is gone, it has one that nobody has had, and its router is told a moment later,
    /// as by a kernel and a DHCP client.
    pub fn readdress(&mut self, wire: WireId, router: RouterId, later: Duration) {
        self.underlay.readdress(wire, router);
        let (life, addresses) = (self.hosts[router.0].life, self.underlay.addresses(router));
        self.queue.push(self.now + later, Happening::Command { router, life, command: Command::LocalAddresses(addresses) });
    }

    /// A host's router gets no processor for so long; what comes for it waits in its sockets.
    pub fn freeze(&mut self, router: RouterId, duration: Duration) {
        self.hosts[router.0].frozen = Some(self.now + duration);
    }

    /// Until when what happens to this router has to wait.
    pub(super) fn thaws(&self, happening: &Happening) -> Option<Time> {
        let router = match happening {
            Happening::Arrival { to, .. } => to,
            Happening::Wake { router }
            | Happening::Command { router, .. }
            | Happening::TooBig { router, .. }
            | Happening::Joined { router, .. }
            | Happening::Unreachable { router, .. } => router,
        };
        self.hosts[router.0].frozen.filter(|until| self.now < *until)
    }

    /// Puts off what happens to a router that has no processor.
    pub(super) fn put_off(&mut self, until: Time, happening: Happening) {
        if let Happening::Wake { router } = happening {
            if self.hosts[router.0].wake != Some(self.now) {
                return;
            }
            self.hosts[router.0].wake = Some(until);
        }
        self.queue.push(until, happening);
    }
}
