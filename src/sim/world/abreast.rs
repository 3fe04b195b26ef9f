//! Routers that run abreast, each on whatever core is free, with the same outcome whatever the number of threads.
//!
//! A datagram is under way for at least as long as the fastest network takes. What a router does within that time is no matter to any other before it
//! is over, so each can be run through such a window for itself: with what was on its way to it, and with its own timers. What they do is carried out
//! after that, in order of time and of hosts: only there chance is drawn and datagrams are sent off. What the host of a router has to say to it, as
//! that a name was resolved, it hears in the next window at the earliest.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Time;

use super::super::crew;
use super::super::node::{Effects, Input, Router};
use super::{Happening, MOST_WAKES, RouterId, Sim};

/// Fewer inputs in a window are not worth a thread.
const WORTH_A_THREAD: usize = 24;

/// The threads that run them.
pub(super) type Crew = crew::Crew<Job, Done>;

/// What comes to one router in a window that ends at `horizon`.
pub(super) struct Job {
    id: RouterId,
    router: Box<Router>,
    wake: Option<Time>,
    inputs: Vec<(Time, Input)>,
    horizon: Time,
}

/// What one router did in a window.
pub(super) struct Done {
    id: RouterId,
    router: Box<Router>,
    did: Vec<(Time, Effects)>,
    /// When its timers are due next.
    wake: Option<Time>,
}

impl Sim {
    /// How long windows may be; `None` where events must happen one after the other.
    pub(super) fn window(&self) -> Option<Duration> {
        let fastest = self.underlay.wires.iter().map(|wire| wire.quality.latency).min()?;
        (self.options.threads > 0 && self.joined.is_empty() && !fastest.is_zero()).then_some(fastest)
    }

    /// Lets time pass until `end`.
    pub(super) fn run_abreast(&mut self, end: Time, window: Duration) {
        let after = end + Duration::from_nanos(1);
        while let Some(first) = self.queue.due().filter(|first| *first <= end) {
            self.horizon = (first + window).min(after);
            let inputs = self.inputs_before(self.horizon);
            let mut done = self.run_each(inputs);
            done.sort_unstable_by_key(|done| done.id);
            let mut did = Vec::new();
            for done in done {
                let host = &mut self.hosts[done.id.0];
                host.running = Some(done.router);
                let queued = std::mem::replace(&mut host.wake, done.wake);
                if let Some(wake) = done.wake.filter(|_| done.wake != queued) {
                    self.queue.push(wake, Happening::Wake { router: done.id });
                }
                did.extend(done.did.into_iter().map(|(at, effects)| (at, done.id, effects)));
            }
            did.sort_by_key(|(at, router, _)| (*at, *router));
            for (at, router, effects) in did {
                self.now = at;
                self.carry_out(router, effects);
            }
        }
        (self.now, self.horizon) = (end, Time::ZERO);
    }

    /// Takes what comes to routers before the end of a window; those of whom only a timer is due have no input.
    fn inputs_before(&mut self, horizon: Time) -> BTreeMap<RouterId, Vec<(Time, Input)>> {
        let last = Time(horizon.0.saturating_sub(1));
        let mut inputs: BTreeMap<RouterId, Vec<(Time, Input)>> = BTreeMap::new();
        while let Some((at, happening)) = self.queue.pop(last) {
            self.now = at;
            if let Some(until) = self.thaws(&happening) {
                self.put_off(until.max(horizon), happening);
            } else if let Happening::Wake { router } = happening {
                if self.hosts[router.0].wake == Some(at) {
                    inputs.entry(router).or_default();
                }
            } else if let Some((router, input)) = self.input_of(happening) {
                inputs.entry(router).or_default().push((at, input));
            }
        }
        inputs
    }

    /// Runs each of these routers through the window.
    fn run_each(&mut self, inputs: BTreeMap<RouterId, Vec<(Time, Input)>>) -> Vec<Done> {
        let (horizon, threads) = (self.horizon, self.options.threads);
        let count: usize = inputs.values().map(|inputs| inputs.len().max(1)).sum();
        let hosts = &mut self.hosts;
        let jobs = inputs.into_iter().filter_map(|(id, inputs)| {
            let host = &mut hosts[id.0];
            Some(Job { id, router: host.running.take()?, wake: host.wake, inputs, horizon })
        });
        if count < WORTH_A_THREAD || threads == 1 {
            return jobs.map(Job::run).collect();
        }
        self.crew.get_or_insert_with(|| Crew::new(threads - 1, Job::run)).run(jobs)
    }
}

impl Job {
    /// Runs the router through the window, its timers included.
    fn run(mut self) -> Done {
        let mut did = Vec::new();
        for (at, input) in std::mem::take(&mut self.inputs) {
            self.wake_before(at, &mut did);
            self.feed(at, input, &mut did);
        }
        self.wake_before(self.horizon, &mut did);
        Done { id: self.id, router: self.router, did, wake: self.wake }
    }

    fn wake_before(&mut self, before: Time, did: &mut Vec<(Time, Effects)>) {
        let mut wakes = (Time::ZERO, 0);
        while let Some(due) = self.wake.filter(|due| *due < before) {
            wakes = (due, if wakes.0 == due { wakes.1 + 1 } else { 1 });
            assert!(wakes.1 < MOST_WAKES, "a timer of {:?} is due again and again at {due:?}", self.id);
            self.wake = None;
            self.feed(due, Input::Timeout, did);
        }
    }

    fn feed(&mut self, at: Time, input: Input, did: &mut Vec<(Time, Effects)>) {
        did.push((at, self.router.feed(at, input, &mut self.wake)));
    }
}
