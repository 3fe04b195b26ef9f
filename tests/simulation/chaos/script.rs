//! What happens: one thing after the other by lot, each done to the simulation and noted in the model.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use weave_router::sim::{Quality, RouterId, Sim};

use super::super::{ms, seconds};
use super::model::Model;
use super::world::{World, below};

/// A lot that cannot be carried out now is drawn again so often.
const DRAWS: usize = 50;

/// A host by lot of those that `fit`.
fn pick(rng: &mut ChaCha8Rng, hosts: impl Iterator<Item = RouterId>) -> Option<RouterId> {
    let all: Vec<RouterId> = hosts.collect();
    (!all.is_empty()).then(|| all[below(rng, all.len())])
}

impl World {
    /// One thing happens. More is mended than harmed, or little would be left.
    pub fn happen(&mut self) -> String {
        (0..DRAWS).find_map(|_| self.draw()).unwrap_or_else(|| "nothing".into())
    }

    fn draw(&mut self) -> Option<String> {
        match below(&mut self.rng, 20) {
            0 | 1 => self.kill(),
            2..=4 => self.revive(),
            5 | 6 => self.harm(),
            7..=9 => self.mend(),
            10 => self.part(),
            11 | 12 => self.heal(),
            13 => Some(self.change_quality()),
            14 | 15 => self.stall(),
            16 | 17 => self.change_address(),
            _ => self.restart(),
        }
    }

    fn kill(&mut self) -> Option<String> {
        let World { sim, model, rng, .. } = self;
        if model.down.len() * 3 >= model.hosts.len() {
            return None;
        }
        let host = pick(rng, model.running())?;
        model.down.insert(host);
        if below(rng, 3) == 0 {
            sim.stop(host);
            return Some(format!("{host:?} says goodbye"));
        }
        sim.crash(host);
        Some(format!("{host:?} dies"))
    }

    fn revive(&mut self) -> Option<String> {
        let World { sim, model, rng, .. } = self;
        let host = pick(rng, model.down.iter().copied())?;
        model.down.remove(&host);
        let forgetful = below(rng, 6) == 0;
        if forgetful {
            sim.lose_incarnation(host);
        }
        sim.start(host);
        Some(format!("{host:?} starts{}", if forgetful { ", and has forgotten how often it did" } else { "" }))
    }

    /// A router is killed and started at once, or soon.
    fn restart(&mut self) -> Option<String> {
        let World { sim, model, rng, .. } = self;
        let host = pick(rng, model.running())?;
        let pause = ms([0, 1, 30, 400][below(rng, 4)]);
        sim.crash(host);
        sim.run_for(pause);
        sim.start(host);
        Some(format!("{host:?} is killed and starts after {pause:?}"))
    }

    fn harm(&mut self) -> Option<String> {
        let World { sim, model, rng, .. } = self;
        let index = below(rng, model.nets.len());
        let net = &mut model.nets[index];
        if net.is_harmed() {
            return None;
        }
        let (wire, member) = (net.wire, net.members[below(rng, net.members.len())]);
        let what = match below(rng, 4) {
            0 => {
                net.mute.insert(member);
                sim.mute(wire, member);
                return Some(format!("nobody hears {member:?} in {wire:?}"));
            }
            1 => {
                sim.unplug(wire, &[member]);
                format!("unplugged, as {member:?} is told")
            }
            2 => {
                sim.unroute(wire);
                "without routes, as all are told".to_string()
            }
            _ => {
                sim.cut(wire);
                "cut".to_string()
            }
        };
        net.broken = true;
        Some(format!("{wire:?} is {what}"))
    }

    fn mend(&mut self) -> Option<String> {
        let World { sim, model, rng, .. } = self;
        let harmed: Vec<usize> = (0..model.nets.len()).filter(|index| model.nets[*index].is_harmed()).collect();
        let index = *harmed.get(below(rng, harmed.len()))?;
        mend(sim, model, index);
        Some(format!("{:?} is mended", model.nets[index].wire))
    }

    fn part(&mut self) -> Option<String> {
        let World { sim, model, rng, .. } = self;
        if !model.apart.is_empty() {
            return None;
        }
        let half = model.hosts.len() / 2;
        let from = below(rng, model.hosts.len() - half);
        let apart = model.hosts[from..from + half].to_vec();
        sim.partition(&apart);
        model.apart = apart.iter().copied().collect();
        Some(format!("{apart:?} are parted from the others"))
    }

    fn heal(&mut self) -> Option<String> {
        if self.model.apart.is_empty() {
            return None;
        }
        self.model.apart.clear();
        self.sim.heal();
        Some("nobody is parted from the others".into())
    }

    fn change_quality(&mut self) -> String {
        self.bad = !self.bad;
        self.sim.set_all_qualities(if self.bad { Quality::bad() } else { Quality::default() });
        format!("networks are {}", if self.bad { "bad" } else { "good" })
    }

    /// A router handles nothing for a while, then all that has come, and what its clock says is due, at once.
    fn stall(&mut self) -> Option<String> {
        let host = pick(&mut self.rng, self.model.running())?;
        let duration = ms([100, 700, 3000, 10_000][below(&mut self.rng, 4)]);
        self.sim.freeze(host, duration);
        self.thaw = self.thaw.max(self.sim.now() + duration);
        Some(format!("{host:?} stands still for {duration:?}"))
    }

    /// A host moves, or a translator before it forgets what it knew.
    fn change_address(&mut self) -> Option<String> {
        let World { sim, model, rng, movers, .. } = self;
        let (net, host) = movers[below(rng, movers.len())];
        let wire = model.nets[net].wire;
        if below(rng, 2) == 0 {
            sim.rebind(wire, host);
            return Some(format!("{host:?} is seen from another port in {wire:?}"));
        }
        let later = ms([0, 60, 500][below(rng, 3)]);
        sim.readdress(wire, host, later);
        Some(format!("{host:?} has another address in {wire:?}, which it is told {later:?} later"))
    }

    /// All harm is undone.
    pub fn undo(&mut self) {
        self.heal();
        if self.bad {
            self.change_quality();
        }
        for index in 0..self.model.nets.len() {
            mend(&mut self.sim, &mut self.model, index);
        }
        for host in std::mem::take(&mut self.model.down) {
            self.sim.start(host);
        }
    }

    /// Lets time pass until nobody stands still.
    pub fn thaw(&mut self) {
        let rest: Duration = self.thaw.since(self.sim.now());
        self.pass(rest.min(seconds(60)));
    }
}

fn mend(sim: &mut Sim, model: &mut Model, index: usize) {
    let net = &mut model.nets[index];
    net.broken = false;
    net.mute.clear();
    sim.mend(net.wire);
}
