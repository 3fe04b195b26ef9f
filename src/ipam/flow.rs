//! What comes out, in its order: nothing is said before that is on disk on which it rests.
//!
//! Changes that wait for the disk are one: whatever rests on the first of them waits for all. So a disk that fails for long holds back one set of
//! changes, one record, answers until they are late, and at most [`MOST_HELD`] messages.

use super::types::{Change, Output};
use super::{AGAIN, Ipam};
use crate::time::Time;

/// Most that is held back until the disk has taken what it rests on; messages beyond that are dropped, as the network may drop them too.
const MOST_HELD: usize = 1024;

impl Ipam {
    /// The changes of a token are on disk, or are not.
    pub fn persisted(&mut self, now: Time, token: u64, done: bool) {
        self.now = now;
        if self.in_flight.as_ref().is_some_and(|(expected, _)| *expected == token) {
            self.disk_fails = !done;
            if done {
                self.in_flight = None;
            } else {
                self.counters.not_persisted.inc();
                self.again_at = Some(now + AGAIN);
            }
        }
    }

    /// Whether what failed to be written did so because the file system is full.
    pub fn disk_full(&mut self, full: bool) {
        self.disk_full = full;
    }

    /// The next thing to be done by the caller.
    pub fn poll(&mut self) -> Option<Output> {
        if let Some((token, changes)) = &self.in_flight {
            if self.again_at.is_some_and(|again| again <= self.now) {
                self.again_at = None;
                return Some(Output::Persist { token: *token, changes: changes.clone() });
            }
            let urgent = |output: &Output| matches!(output, Output::Answer { result: Err(_), .. } | Output::Report(_));
            let at = self.queue.iter().position(urgent)?;
            return self.queue.remove(at);
        }
        let mut output = self.queue.pop_front()?;
        if let Output::Persist { token, changes } = &mut output {
            let held = std::mem::take(&mut self.held).into_iter();
            *changes = held.map(|((table, key), value)| Change { table, key, value }).collect();
            self.in_flight = Some((*token, changes.clone()));
        }
        Some(output)
    }

    /// Ends an input: first what must be written, then what may be said.
    pub(super) fn finish(&mut self) {
        if !self.changes.is_empty() {
            self.hold_changes();
        }
        self.publish();
        let mut dropped = 0u64;
        for output in std::mem::take(&mut self.said) {
            match output {
                Output::Tell { .. } if self.in_flight.is_some() && self.queue.len() >= MOST_HELD => dropped += 1,
                Output::Publish(_) => {
                    self.queue.retain(|earlier| !matches!(earlier, Output::Publish(_)));
                    self.queue.push_back(output);
                }
                _ => self.queue.push_back(output),
            }
        }
        if dropped > 0 {
            self.counters.messages_dropped.add(dropped);
            self.complain(
                "messages to other routers are dropped: what they rest on cannot be written to the state directory; is the disk full?"
                    .to_string(),
            );
            self.queue.append(&mut std::mem::take(&mut self.said).into());
        }
    }

    /// Adds the changes of this input to those that wait already. The queue has their place alone.
    fn hold_changes(&mut self) {
        if self.held.is_empty() {
            self.tokens += 1;
            self.queue.push_back(Output::Persist { token: self.tokens, changes: Vec::new() });
        }
        self.held.append(&mut self.changes);
    }
}
