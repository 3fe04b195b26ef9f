//! Loops outside the mesh: bridges of two routers joined by hand, or a bridge joined to itself.
//!
//! ```text
//!         A ═══ mesh ═══ B          every two seconds each puts a signed probe on its own bridge; probes never cross the mesh
//!         │              │
//!      bridge ── veth ── bridge     A sees B's probes and B sees A's: a loop. The higher name falls silent
//! ```
//!
//! | a router that sees probes of | does |
//! | --- | --- |
//! | itself | falls silent: nobody else can break the loop |
//! | a lower name | falls silent |
//! | a higher name | goes on; falls silent too where the other has not within three seconds, as it may not see ours |
//! | a router that the mesh does not reach | nothing: there is no loop yet |
//!
//! Silent is who floods nothing from its bridge or to it ([`Fib::silent`](crate::forward::Fib)); floods of others still pass through it. Its
//! containers hear them over the bridge it is joined to. Unicast goes on: MACs that seemed to move before the loop was found are given back
//! to whose they were. Nobody claims what the others of a loop have, nor takes it
//! for a move: their MACs are seen on all bridges. A loop has ended when no new probe came for five seconds.
//!
//! A probe is heard once: its counter must be higher than the last of its sender, so old ones are no use to a container that
//! recorded some. One that echoes new ones at once is a loop.

use std::collections::BTreeMap;
use std::time::Duration;

use super::command::Event;
use super::config::Outbox;
use super::core::Mesh;
use super::snapshot::LoopState;
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::probe::{DOMAIN, Probe};

/// No new probe for so long: the loop is gone. Several probes may be lost in what a storm leaves behind.
const HOLD: Duration = Duration::from_secs(5);
/// A higher name that has not fallen silent after this does not see us.
const GRACE: Duration = Duration::from_secs(3);
/// Between two probes. What a loop carries shows at once that there may be one, by MACs that seem to move.
const EVERY: Duration = Duration::from_secs(2);
/// At least so long between two probes: a MAC that moves to our bridge may be the first sign of a loop, and is worth one at once.
const LEAST: Duration = Duration::from_millis(200);
/// A probe of our own that goes round and round a bridge is met again within this; so long no other is sent, which would go round as well.
const ROUND: Duration = Duration::from_secs(2);
/// Probes of our own that may still be under way.
const UNDER_WAY: u64 = 16;

/// What was heard of one router.
#[derive(Debug)]
struct Heard {
    since: Time,
    at: Time,
    silent: bool,
}

/// The loops that this router's bridge is part of.
#[derive(Debug, Default)]
pub(super) struct Loops {
    counter: u64,
    sent: Option<Time>,
    heard: BTreeMap<PeerName, Heard>,
    /// Incarnation and counter of the last probe that was ever heard of a router.
    last: BTreeMap<PeerName, (u64, u64)>,
    silent: bool,
}

impl Loops {
    /// The routers whose bridges ours is joined to, this one where it is joined to itself.
    pub(super) fn with(&self) -> Vec<PeerName> {
        self.heard.keys().copied().collect()
    }

    /// True where there is one.
    pub(super) fn is_any(&self) -> bool {
        !self.heard.is_empty()
    }

    /// True where a loop is broken here.
    pub(super) fn is_silent(&self) -> bool {
        self.silent
    }

    /// True where it is for us to break a loop.
    fn must_be_silent(&self, now: Time, own: PeerName) -> bool {
        let blind = |heard: &Heard| !heard.silent && now.since(heard.since) >= GRACE;
        self.heard.iter().any(|(peer, heard)| *peer <= own || blind(heard))
    }
}

impl Mesh {
    /// Each second: looks which loops have ended, and sends a probe where it is time: each second while there is one.
    pub(super) fn keep_loops(&mut self, now: Time, out: &mut Outbox) {
        let (own, routes) = (self.own, &self.routes);
        let over = |(peer, heard): &(&PeerName, &Heard)| now.since(heard.at) >= HOLD || (**peer != own && !routes.reachable(**peer));
        let over: Vec<PeerName> = self.loops.heard.iter().filter(over).map(|(peer, _)| *peer).collect();
        for peer in over {
            self.loops.heard.remove(&peer);
            self.fib_stale = true;
            let whom = self.whom(peer);
            out.events.push(Event::Notice(format!("this host's bridge is no longer joined {whom} outside the mesh")));
        }
        let store = &self.store;
        self.loops.last.retain(|peer, _| store.node(*peer).is_some());
        if self.loops.is_any() {
            // Claims that were made before it was found may only have arrived since.
            self.macs.restore(now, &self.loops.with(), &mut out.events);
        }
        self.judge_loops(now, out);
        // The clock that this goes by is not exact.
        let slow = !self.loops.is_any() && self.loops.sent.is_some_and(|sent| now.since(sent) < EVERY * 3 / 4);
        if !slow {
            self.probe_bridge(now, out);
        }
    }

    /// A MAC that others have was seen on our bridge: it has moved, or the bridge is joined to theirs.
    pub(super) fn suspect_loop(&mut self, now: Time, out: &mut Outbox) {
        if self.loops.sent.is_none_or(|sent| now.since(sent) >= LEAST) {
            self.probe_bridge(now, out);
        }
    }

    /// A probe was seen on our bridge.
    pub(super) fn on_probe(&mut self, now: Time, frame: &[u8], out: &mut Outbox) {
        let Some((probe, signed, signature)) = Probe::parse(frame) else { return self.counters.probes_ignored.inc() };
        if !self.is_news(&probe) || !self.store.vouches(probe.from, DOMAIN, signed, signature) {
            return self.counters.probes_ignored.inc();
        }
        self.counters.probes_heard.inc();
        let Probe { from, incarnation, counter, silent } = probe;
        self.loops.last.insert(from, (incarnation, counter));
        if let Some(heard) = self.loops.heard.get_mut(&from) {
            (heard.at, heard.silent) = (now, silent);
        } else {
            self.loops.heard.insert(from, Heard { since: now, at: now, silent });
            self.fib_stale = true;
            self.counters.loops_found.inc();
            let (whom, silent) = (self.whom(from), self.loops.must_be_silent(now, self.own));
            let who = if silent { "this router floods" } else { "the router of the higher name floods" };
            out.events.push(Event::Warning(format!(
                "this host's bridge is joined {whom} outside the mesh, which makes a loop: {who} nothing from or to its bridge until they \
                 are separated"
            )));
            self.macs.restore(now, &self.loops.with(), &mut out.events);
            // The other end should see ours at once, if it can.
            self.probe_bridge(now, out);
        }
        self.judge_loops(now, out);
    }

    /// The loops, for the status.
    pub(super) fn loop_states(&self) -> Vec<LoopState> {
        let state = |peer: &PeerName| LoopState { peer: *peer, nickname: self.nickname(*peer), silent: self.loops.silent };
        self.loops.heard.keys().map(state).collect()
    }

    /// True for a probe that was not heard before, of a router that the mesh reaches. Of our own, those that we sent last.
    fn is_news(&self, probe: &Probe) -> bool {
        if probe.from == self.own {
            let sent = self.loops.counter;
            return probe.incarnation == self.store.incarnation() && (sent.saturating_sub(UNDER_WAY)..=sent).contains(&probe.counter);
        }
        let newer = self.loops.last.get(&probe.from).is_none_or(|last| (probe.incarnation, probe.counter) > *last);
        let current = self.store.node(probe.from).is_some_and(|node| node.incarnation == probe.incarnation);
        newer && current && self.routes.reachable(probe.from)
    }

    fn judge_loops(&mut self, now: Time, out: &mut Outbox) {
        let silent = self.loops.must_be_silent(now, self.own);
        if silent == self.loops.silent {
            return;
        }
        self.loops.silent = silent;
        self.fib_stale = true;
        let does = if silent { "floods nothing any more" } else { "floods again" };
        out.events.push(Event::Notice(format!("this router {does} from and to its bridge")));
    }

    /// Puts a probe on our bridge, where others could make a loop with it.
    fn probe_bridge(&mut self, now: Time, out: &mut Outbox) {
        let going_round = self.loops.heard.get(&self.own).is_some_and(|heard| now.since(heard.at) < ROUND);
        if self.left || going_round || self.link_count() == 0 {
            return;
        }
        self.loops.counter += 1;
        self.loops.sent = Some(now);
        let probe = Probe { from: self.own, incarnation: self.store.incarnation(), counter: self.loops.counter, silent: self.loops.silent };
        out.events.push(Event::ToBridge(probe.to_frame(|signed| self.store.vouch(DOMAIN, signed))));
    }

    fn whom(&self, peer: PeerName) -> String {
        match (peer == self.own, self.nickname(peer)) {
            (true, _) => "to itself".into(),
            (false, nickname) => format!("to that of {peer} ({nickname})"),
        }
    }
}

#[cfg(test)]
mod tests;
