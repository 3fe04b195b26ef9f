//! Containers and their frames.

use std::time::Duration;

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
        self.tell(router, Command::LocalMacs(vec![LocalMac { vlan: 0, mac: mac.0, present: true }]));
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

    fn emit(&mut self, from: Mac, vnet: VnetHeader, frame: Vec<u8>) {
        let host = self.host_of(from).expect("a frame comes from a container");
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
