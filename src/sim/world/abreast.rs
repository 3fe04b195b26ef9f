//! Routers that run abreast, each on whatever core is free, with the same outcome whatever the number of threads.
//!
//! A datagram is under way for at least as long as the fastest network takes. What a router does within that time is no matter to any other before it
//! is over, so each can be run through such a window for itself: with what was on its way to it, and with its own timers. What they do is carried out
//! after that, in order of time and of hosts: only there chance is drawn and datagrams are sent off. What the host of a router has to say to it, as
//! that a name was resolved, it hears in the next window at the earliest.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::time::Time;

use super::super::node::{Effects, Host, Input};
use super::{Happening, MOST_WAKES, RouterId, Sim};

/// Fewer inputs in a window are not worth a thread.
const WORTH_A_THREAD: usize = 24;
/// Routers that a thread takes at once.
const AT_ONCE: usize = 4;

/// What comes to one router in a window.
struct Job<'a> {
    router: RouterId,
    host: &'a mut Host,
    inputs: Vec<(Time, Input)>,
}

/// What one router did in a window.
struct Done {
    router: RouterId,
    did: Vec<(Time, Effects)>,
    /// When its timers are due next, where that is to be queued.
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
            done.sort_unstable_by_key(|done| done.router);
            for (router, wake) in done.iter().filter_map(|done| Some((done.router, done.wake?))) {
                self.queue.push(wake, Happening::Wake { router });
            }
            let did = done.into_iter().flat_map(|done| done.did.into_iter().map(move |(at, effects)| (at, done.router, effects)));
            let mut did: Vec<(Time, RouterId, Effects)> = did.collect();
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
    fn run_each(&mut self, mut inputs: BTreeMap<RouterId, Vec<(Time, Input)>>) -> Vec<Done> {
        let horizon = self.horizon;
        let count: usize = inputs.values().map(|inputs| inputs.len().max(1)).sum();
        let hosts = self.hosts.iter_mut().enumerate();
        let jobs = hosts.filter_map(|(index, host)| Some(Job { router: RouterId(index), inputs: inputs.remove(&RouterId(index))?, host }));
        if count < WORTH_A_THREAD || self.options.threads == 1 {
            return jobs.map(|job| job.run(horizon)).collect();
        }
        let jobs = Mutex::new(jobs.collect::<Vec<_>>().into_iter());
        let work = || {
            let mut done = Vec::new();
            loop {
                let some: Vec<Job<'_>> = jobs.lock().unwrap_or_else(PoisonError::into_inner).by_ref().take(AT_ONCE).collect();
                if some.is_empty() {
                    return done;
                }
                done.extend(some.into_iter().map(|job| job.run(horizon)));
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..self.options.threads).map(|_| scope.spawn(work)).collect();
            let mut done = work();
            for other in others {
                done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            done
        })
    }
}

impl Job<'_> {
    /// Runs the router through the window, its timers included.
    fn run(mut self, horizon: Time) -> Done {
        let (mut did, queued) = (Vec::new(), self.host.wake);
        for (at, input) in std::mem::take(&mut self.inputs) {
            self.wake_before(at, &mut did);
            self.feed(at, input, &mut did);
        }
        self.wake_before(horizon, &mut did);
        Done { router: self.router, did, wake: self.host.wake.filter(|_| self.host.wake != queued) }
    }

    fn wake_before(&mut self, before: Time, did: &mut Vec<(Time, Effects)>) {
        let mut wakes = (Time::ZERO, 0);
        while let Some(due) = self.host.wake.filter(|due| *due < before) {
            wakes = (due, if wakes.0 == due { wakes.1 + 1 } else { 1 });
            assert!(wakes.1 < MOST_WAKES, "a timer of {:?} is due again and again at {due:?}", self.router);
            self.host.wake = None;
            self.feed(due, Input::Timeout, did);
        }
    }

    fn feed(&mut self, at: Time, input: Input, did: &mut Vec<(Time, Effects)>) {
        if let Some(effects) = self.host.feed(at, input) {
            did.push((at, effects));
        }
    }
}
