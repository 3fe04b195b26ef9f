//! What happens to the wires of the demo while everything runs.

use std::time::Duration;

use super::plan::{Act, container, host};
use super::pulse::{Beats, Pulse};
use super::screen::{milliseconds, whole_milliseconds};
use super::{Show, THROUGHPUT_TIME};
use crate::host::lab::clock::Stopwatch;

/// Longest that the mesh may take to follow a change of its wires.
const PATIENCE: Duration = Duration::from_secs(15);

/// Time before and after a change in which the beat shows what is normal.
const NORMAL: Duration = Duration::from_millis(400);

/// What is on its way when a wire is cut arrives within this.
const UNDER_WAY: Duration = Duration::from_millis(20);

/// So many beats in a row mean that the way is open again.
const OPEN: usize = 50;

/// For how long the only wire is cut.
const UNPLUGGED: Duration = Duration::from_secs(2);

/// How often a wire is tried that routes leave again.
const TRIES: usize = 3;

/// Echoes for a round-trip time.
const ECHOES: usize = 41;

impl Show {
    /// Lays and cuts wires, as the plan says.
    pub(super) fn act(&mut self) -> anyhow::Result<()> {
        match self.plan.act {
            Act::Shortcut(a, b) => {
                let wire = self.lay(a, b)?;
                self.screen.heading("The same wire is cut")?;
                self.cut(wire, a, b)
            }
            Act::Detour(wire) => {
                let (a, b) = self.ends(wire)?;
                self.screen.heading(&format!("The wire {}-{} is cut, the others stand in for it", host(a), host(b)))?;
                self.cut(wire, a, b)?;
                self.screen.heading("The wire is mended")?;
                self.mend(wire, a, b)
            }
            Act::Replug(wire) => {
                let (a, b) = self.ends(wire)?;
                self.screen.heading("The only wire is cut, and mended")?;
                self.replug(wire, a, b)
            }
        }
    }

    fn ends(&self, wire: usize) -> anyhow::Result<(usize, usize)> {
        self.plan.wires.get(wire).copied().ok_or_else(|| anyhow::anyhow!("the plan has no such wire"))
    }

    /// Lays a wire between hosts that were relayed until now, and waits until they use it; answers with its number.
    fn lay(&mut self, a: usize, b: usize) -> anyhow::Result<usize> {
        self.screen.heading(&format!("A new wire {}-{}, while everything runs", host(a), host(b)))?;
        let before = self.describe(a, b)?;
        let pulse = Pulse::start(self.cluster.inside(a)?, self.cluster.address(b)?)?;
        self.stop.pause(NORMAL)?;
        let number = self.cluster.wires();
        let wire = self.cluster.lay(a, b)?;
        let (near, far) = (wire.a.ip, wire.b.ip);
        let clock = Stopwatch::start();
        self.cluster.connect(a, far)?;
        self.screen.item("wire", &format!("{near} to {far}; {} is told `weave-router connect {far}`", host(a)))?;
        self.await_direct(a, b)?;
        let took = clock.elapsed();
        self.stop.pause(NORMAL)?;
        self.screen.item("path", &format!("{}; was {before}", self.describe(a, b)?))?;
        self.screen.item("change", &format!("took {}; {}", whole_milliseconds(took), losses(pulse.beats())))?;
        drop(pulse);
        let figure = self.cluster.throughput(a, b, THROUGHPUT_TIME)?;
        self.screen.item("TCP", &format!("{figure:.2} Gbit/s"))?;
        Ok(number)
    }

    /// Cuts a wire that is in use and measures for how long nothing comes through.
    fn cut(&mut self, wire: usize, a: usize, b: usize) -> anyhow::Result<()> {
        let mut pulse = None;
        // Load makes a path look longer than it is: routes may leave the wire for a moment, and come back.
        for _ in 0..TRIES {
            self.becomes_direct(a, b)?;
            pulse = Some(Pulse::start(self.cluster.inside(a)?, self.cluster.address(b)?)?);
            self.stop.pause(NORMAL)?;
            if self.cluster.routes()?.are_linked(a, b) {
                break;
            }
        }
        let Some(pulse) = pulse else { anyhow::bail!("nothing was sent before the cut") };
        self.cluster.cut(wire)?;
        self.await_open(&pulse, a, b)?;
        self.stop.until(PATIENCE, || Ok(self.cluster.routes()?.between(a, b).is_some_and(|between| !between.is_empty())))?;
        self.stop.pause(NORMAL)?;
        let beats = pulse.beats();
        drop(pulse);
        self.screen.item("interrupted", &format!("for {}; {}", whole_milliseconds(beats.longest_gap), losses(beats)))?;
        self.screen.item("path", &self.describe(a, b)?)
    }

    /// Mends a wire that others stand in for, and waits until it is in use again.
    fn mend(&mut self, wire: usize, a: usize, b: usize) -> anyhow::Result<()> {
        let pulse = Pulse::start(self.cluster.inside(a)?, self.cluster.address(b)?)?;
        self.cluster.mend(wire)?;
        let clock = Stopwatch::start();
        self.await_direct(a, b)?;
        let took = clock.elapsed();
        self.stop.pause(NORMAL)?;
        let beats = pulse.beats();
        drop(pulse);
        self.screen.item("path", &self.describe(a, b)?)?;
        self.screen.item("change", &format!("took {}; {}", whole_milliseconds(took), losses(beats)))
    }

    /// Cuts the only wire for a while.
    fn replug(&mut self, wire: usize, a: usize, b: usize) -> anyhow::Result<()> {
        let pulse = Pulse::start(self.cluster.inside(a)?, self.cluster.address(b)?)?;
        self.stop.pause(NORMAL)?;
        self.cluster.cut(wire)?;
        self.stop.pause(UNPLUGGED)?;
        self.screen.item("cut", &format!("for {}; there is no way around", whole_milliseconds(UNPLUGGED)))?;
        self.cluster.mend(wire)?;
        let mended = Stopwatch::start();
        self.await_open(&pulse, a, b)?;
        self.screen.item("mended", &format!("{} after that they reach each other again", whole_milliseconds(mended.elapsed())))?;
        drop(pulse);
        self.screen.item("path", &self.describe(a, b)?)
    }

    /// Waits until two hosts use the link between them, both ways; answers whether they do.
    fn becomes_direct(&mut self, a: usize, b: usize) -> anyhow::Result<bool> {
        let Show { cluster, stop, .. } = self;
        stop.until(PATIENCE, || {
            cluster.check_alive()?;
            Ok(cluster.routes()?.are_linked(a, b))
        })
    }

    fn await_direct(&mut self, a: usize, b: usize) -> anyhow::Result<()> {
        if !self.becomes_direct(a, b)? {
            anyhow::bail!("{} and {} do not use the wire between them within {} s", host(a), host(b), PATIENCE.as_secs());
        }
        Ok(())
    }

    /// Waits until beats come back that were sent after now.
    fn await_open(&mut self, pulse: &Pulse, a: usize, b: usize) -> anyhow::Result<()> {
        let Show { cluster, stop, .. } = self;
        let then = pulse.now() + UNDER_WAY;
        let open = stop.until(PATIENCE, || {
            cluster.check_alive()?;
            Ok(pulse.arrived_since(then) >= OPEN)
        })?;
        if !open {
            let (from, to, patience) = (container(a), container(b), PATIENCE.as_secs());
            anyhow::bail!("{from} does not reach {to} any more: nothing came through within {patience} s of the change of wires");
        }
        Ok(())
    }

    /// How one container reaches another now.
    fn describe(&self, a: usize, b: usize) -> anyhow::Result<String> {
        let Some(time) = self.cluster.round_trip(a, b, ECHOES)? else {
            anyhow::bail!("{} does not reach {} reliably: an echo was lost", container(a), container(b));
        };
        let path = self.cluster.routes()?.path(a, b);
        Ok(format!("{} to {} {path}, {}", container(a), container(b), milliseconds(time)))
    }
}

fn losses(beats: Beats) -> String {
    match beats.lost {
        0 => format!("none of {} datagrams was lost", beats.sent),
        lost => format!("{lost} of {} datagrams were lost", beats.sent),
    }
}
