//! Containers and their frames.

use std::time::Duration;

use crate::forward::testkit::arp;
use crate::mesh::command::{Command, LocalMac};
use crate::wire::VnetHeader;

use super::super::ethernet::{self, Mac, SHORTEST};
use super::super::frames::FrameId;
use super::super::node::Input;
use super::{RouterId, Sim};

impl Sim {
    /// Puts a container on a host's bridge. The router sees its MAC in the bridge's table, as it does on Linux.
    pub fn container(&mut self, router: RouterId) -> Mac {
        let number = self.hosts[router.0].containers.len() as u8;
        let [_, _, high, low] = (router.0 as u32).to_be_bytes();
        let mac = Mac([0x02, 0xc0, 0, high, low, number]);
        self.hosts[router.0].containers.insert(mac);
        self.tell(router, Command::LocalMacs(vec![LocalMac { vlan: 0, mac: mac.0, present: true, came_from: None }]));
        mac
    }

    /// Moves a container to another host, whose router learns of it only from its first frame.
    pub fn move_container(&mut self, mac: Mac, to: RouterId) {
        for host in &mut self.hosts {
            host.containers.remove(&mac);
        }
        self.hosts[to.0].containers.insert(mac);
    }

    /// Sends a frame of `length` bytes, or the shortest there is, from one container to another or to everybody.
    pub fn send(&mut self, from: Mac, to: Mac, length: usize) -> FrameId {
        let length = length.max(SHORTEST);
        let id = self.frames.sent(self.now, to, length - SHORTEST);
        self.emit(from, VnetHeader::default(), ethernet::numbered(to, from, id.0, length));
        id
    }

    /// Sends to everybody.
    pub fn broadcast(&mut self, from: Mac) -> FrameId {
        self.send(from, Mac::BROADCAST, 60)
    }

    /// Sends a TCP burst of `length` bytes in segments of `segment` bytes, as one super frame.
    pub fn send_super(&mut self, from: Mac, to: Mac, length: usize, segment: usize) -> FrameId {
        let id = self.frames.sent(self.now, to, length);
        let (vnet, frame) = ethernet::super_frame(to, from, id.0, length, segment);
        self.emit(from, vnet, frame);
        id
    }

    /// A container sends a packet to a multicast group.
    pub fn send_to_group(&mut self, from: Mac, group: [u8; 4]) -> FrameId {
        const LENGTH: usize = 100;
        let id = self.frames.sent(self.now, ethernet::group_mac(group), LENGTH);
        let (vnet, frame) = ethernet::group_frame(group, from, id.0, LENGTH);
        self.emit(from, vnet, frame);
        id
    }

    /// A container says that it is a member of a multicast group, or no more. Nobody answers questions: say it again in time.
    pub fn tell_membership(&mut self, from: Mac, group: [u8; 4], joined: bool) {
        self.emit(from, VnetHeader::default(), ethernet::report(group, from, joined));
    }

    /// Puts a container of a MAC that another host has too on a host's bridge.
    pub fn copy_container(&mut self, mac: Mac, to: RouterId) {
        self.hosts[to.0].containers.insert(mac);
    }

    /// Takes it away. The router sees it go from the bridge's table.
    pub fn remove_container(&mut self, mac: Mac, from: RouterId) {
        self.hosts[from.0].containers.remove(&mac);
        self.tell(from, Command::LocalMacs(vec![LocalMac { vlan: 0, mac: mac.0, present: false, came_from: None }]));
    }

    /// One of several containers of a MAC, the one on this host, sends a frame.
    pub fn send_from(&mut self, host: RouterId, from: Mac, to: Mac) -> FrameId {
        let id = self.frames.sent(self.now, to, 100);
        let frame = ethernet::numbered(to, from, id.0, SHORTEST + 100);
        self.emit_on(host, VnetHeader::default(), frame);
        id
    }

    /// A container that says it has the address `own` asks for another, or announces its own by asking for that.
    pub fn resolve(&mut self, from: Mac, own: [u8; 4], target: [u8; 4]) {
        self.arps.clear();
        self.emit(from, VnetHeader::default(), arp([0xff; 6], 1, from.0, own, target));
    }

    /// What of address resolution came to a host's bridge since a container last asked: whether it is an answer, and whose address it tells.
    pub fn resolved(&self, router: RouterId) -> Vec<(bool, [u8; 4])> {
        self.arps.iter().filter(|(at, ..)| *at == router).map(|(_, answer, sender)| (*answer, *sender)).collect()
    }

    fn emit(&mut self, from: Mac, vnet: VnetHeader, frame: Vec<u8>) {
        let host = self.host_of(from).expect("a frame comes from a container");
        self.emit_on(host, vnet, frame);
    }

    fn emit_on(&mut self, host: RouterId, vnet: VnetHeader, frame: Vec<u8>) {
        self.cross_cables(host, vnet, &frame);
        // Nobody reads the TAP meanwhile.
        if self.hosts[host.0].frozen.is_some_and(|until| self.now < until) {
            return;
        }
        self.feed(host, Input::Frame(vnet, frame));
    }

    /// Where a container is.
    pub fn host_of(&self, mac: Mac) -> Option<RouterId> {
        self.hosts.iter().position(|host| host.containers.contains(&mac)).map(RouterId)
    }

    /// How often a frame arrived whole at a host's containers: 0 or 1, since a second arrival is a problem.
    pub fn arrivals(&self, frame: FrameId, router: RouterId) -> usize {
        self.frames.arrivals(frame, router)
    }

    /// How long a frame took to a host, where it arrived.
    pub fn latency(&self, frame: FrameId, router: RouterId) -> Option<Duration> {
        self.frames.latency(frame, router)
    }

    /// The "too big" answers that containers got: who, and which MTU would fit.
    pub fn too_big(&self) -> &[(Mac, u16)] {
        &self.too_big
    }
}
