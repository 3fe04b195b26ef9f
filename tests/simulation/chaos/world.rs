//! The mesh that the script plays with: hosts on wires of their own, some on a common network, one behind a translator.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use weave_router::sim::{Nat, Quality};
use weave_router::time::Time;

use super::super::*;
use super::model::Model;

/// How large it is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub hosts: usize,
    /// Wires beyond those of a tree.
    pub extra: usize,
    /// `--conn-limit`.
    pub limit: usize,
}

/// The mesh before anything happens to it.
pub struct World {
    pub sim: Sim,
    pub model: Model,
    pub rng: ChaCha8Rng,
    /// Who may get another address, and in which network: hosts that dial there. Whoever is dialled stays where it is, or nobody would find it.
    pub movers: Vec<(usize, RouterId)>,
    pub macs: Vec<Mac>,
    /// True while networks lose, double and reorder.
    pub bad: bool,
    /// Until when somebody stands still.
    pub thaw: Time,
}

/// A number below `count`.
pub fn below(rng: &mut ChaCha8Rng, count: usize) -> usize {
    rng.next_u32() as usize % count.max(1)
}

impl World {
    /// Builds and starts it.
    pub fn new(seed: u64, size: Size) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut sim = Sim::new(seed, Options::default());
        let mut model = Model::default();
        for _ in 0..size.hosts {
            // Where links are few, some must be free to pass things on.
            let forwarding = size.limit > 0 || below(&mut rng, 8) > 0;
            let host = sim.router(&RouterOptions { conn_limit: size.limit, forwarding, ..RouterOptions::default() });
            model.hosts.push(host);
            if !forwarding {
                model.closed.insert(host);
            }
        }
        let mut world = World { sim, model, rng, movers: Vec::new(), macs: Vec::new(), bad: false, thaw: Time::ZERO };
        // First, so that the host which is on both has its public address for those who are told of it.
        world.public_network(size.limit);
        world.wires(size);
        world.sim.start_all();
        world.macs = world.model.hosts.clone().into_iter().map(|host| world.sim.container(host)).collect();
        world
    }

    /// A random tree and more.
    fn wires(&mut self, size: Size) {
        for index in 1..size.hosts {
            let other = below(&mut self.rng, index);
            self.wire(index, other);
        }
        for _ in 0..size.extra {
            let (a, b) = (below(&mut self.rng, size.hosts), below(&mut self.rng, size.hosts));
            let [a_host, b_host] = [a, b].map(|index| self.model.hosts[index]);
            if a != b && !self.model.are_joined(a_host, b_host) {
                self.wire(a, b);
            }
        }
    }

    fn wire(&mut self, caller: usize, home: usize) {
        let ends = [caller, home].map(|index| self.model.hosts[index]);
        let wire = self.sim.wire(ends[0], ends[1], Quality::default());
        let net = self.model.net(wire, &ends);
        self.model.edge(ends, &[net]);
        self.movers.push((net, ends[0]));
        self.sim.connect(ends[0], ends[1]);
    }

    /// Three more hosts on one network, and a fourth that a translator lets out to them.
    fn public_network(&mut self, limit: usize) {
        let options = RouterOptions { conn_limit: limit, ..RouterOptions::default() };
        let lan: Vec<RouterId> = (0..3).map(|_| self.sim.router(&options)).collect();
        let inside = self.sim.router(&options);
        let joint = self.model.hosts[below(&mut self.rng, self.model.hosts.len())];
        self.model.hosts.extend(lan.iter().chain([&inside]));
        let members: Vec<RouterId> = lan.iter().copied().chain([joint]).collect();
        let wire = self.sim.lan(&members, Quality::default());
        let public = self.model.net(wire, &members);
        let kinds = [Nat::FullCone, Nat::AddressRestricted, Nat::PortRestricted, Nat::Symmetric];
        let kind = kinds[below(&mut self.rng, kinds.len())];
        let behind = self.sim.nat(kind, seconds(30), wire, &[inside]);
        let behind = self.model.net(behind, &[inside]);
        for (index, host) in members.iter().enumerate() {
            for other in &members[..index] {
                self.model.edge([*host, *other], &[public]);
                self.sim.connect(*host, *other);
            }
            self.model.edge([inside, *host], &[behind, public]);
            self.sim.connect(inside, *host);
        }
    }
}
