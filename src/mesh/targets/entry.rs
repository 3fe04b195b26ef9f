//! One goal and where it stands, and all of them.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use rand_core::Rng;

use super::{
    Action, BACKOFF_FIRST, BACKOFF_MAX, BACKOFF_NO_WAY, BACKOFF_REFUSED, BACKOFF_SLOW, Failure, Goal, RENEW_EVERY, RENEW_FOR,
    RESOLVE_TIMEOUT, jitter,
};
use crate::mesh::snapshot::ConnectionState;
use crate::time::Time;
use crate::wire::{Address, PeerName};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Resolving { since: Time },
    Dialling { handshaking: bool },
    Linked,
    Own,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    pub(super) addresses: Vec<Address>,
    /// Which address is tried next.
    pub(super) cursor: usize,
    pub(super) due: Time,
    pub(super) backoff: Duration,
    pub(super) peer: Option<PeerName>,
    pub(super) error: Option<String>,
    /// Attempts that failed since the last that did not.
    pub(super) failures: u8,
    /// True while no address of this round was one that this host has a way to.
    pub(super) no_way: bool,
    /// True where it is dialled although there is no room for another link.
    pub(super) urgent: bool,
    /// When it last begins anew, or did, for the sake of a new address of ours.
    pub(super) renewed: Option<Time>,
    /// Since when it has begun anew for that, without an end that was its own.
    pub(super) renewed_since: Option<Time>,
}

/// All goals, and when the next of them is due: that is asked with every input, and seldom changes.
#[derive(Debug, Default)]
pub(super) struct Entries {
    all: BTreeMap<Goal, Entry>,
    /// As of the last look; `None` where something may have changed since.
    due: Option<Option<Time>>,
}

impl Entries {
    /// When the next goal is due.
    pub(super) fn due(&self) -> Option<Time> {
        self.due.unwrap_or_else(|| self.all.values().filter_map(Entry::due).min())
    }

    /// What is due is remembered until something changes.
    pub(super) fn settle(&mut self) {
        self.due = Some(self.all.values().filter_map(Entry::due).min());
    }
}

impl Deref for Entries {
    type Target = BTreeMap<Goal, Entry>;

    fn deref(&self) -> &BTreeMap<Goal, Entry> {
        &self.all
    }
}

impl DerefMut for Entries {
    fn deref_mut(&mut self) -> &mut BTreeMap<Goal, Entry> {
        self.due = None;
        &mut self.all
    }
}

impl Entry {
    pub(super) fn peer_of(&self, goal: &Goal) -> Option<PeerName> {
        match goal {
            Goal::Peer(name) => Some(*name),
            Goal::Host(_) | Goal::Hint(_) => self.peer,
        }
    }

    pub(super) fn current(&self) -> Option<Address> {
        let last = self.addresses.len().checked_sub(1)?;
        self.addresses.get(self.cursor.min(last)).copied()
    }

    /// When it may begin anew for the sake of a new address of ours.
    pub(super) fn renewal(&self, now: Time) -> Time {
        match self.renewed {
            Some(at) if now < at => at,
            Some(at) => now.max(at + RENEW_EVERY),
            None => now,
        }
    }

    /// Whether what is under way may begin anew for that.
    pub(super) fn may_renew(&self, now: Time) -> bool {
        self.renewed_since.is_none_or(|since| now.since(since) < RENEW_FOR)
    }

    pub(super) fn step(&mut self, now: Time, goal: &Goal, room: bool) -> Option<Action> {
        match self.state {
            State::Waiting if now >= self.due => match goal {
                Goal::Host(target) => {
                    self.state = State::Resolving { since: now };
                    Some(Action::Resolve(target.clone()))
                }
                Goal::Peer(_) | Goal::Hint(_) if room || self.urgent => {
                    let address = self.current()?;
                    self.state = State::Dialling { handshaking: false };
                    self.due = Time(u64::MAX);
                    Some(Action::Dial(goal.clone(), address))
                }
                Goal::Peer(_) | Goal::Hint(_) => {
                    self.due = now + BACKOFF_FIRST;
                    None
                }
            },
            State::Resolving { since } if now.since(since) >= RESOLVE_TIMEOUT => {
                self.state = State::Waiting;
                self.due = now;
                self.renewed_since = None;
                self.error = Some("the name was not resolved in time".into());
                None
            }
            State::Dialling { .. } if now >= self.due => {
                self.due = Time(u64::MAX);
                self.current().map(|address| Action::Dial(goal.clone(), address))
            }
            State::Waiting | State::Resolving { .. } | State::Dialling { .. } | State::Linked | State::Own => None,
        }
    }

    pub(super) fn due(&self) -> Option<Time> {
        match self.state {
            State::Waiting => Some(self.due),
            State::Resolving { since } => Some(since + RESOLVE_TIMEOUT),
            State::Dialling { .. } if self.due < Time(u64::MAX) => Some(self.due),
            State::Dialling { .. } | State::Linked | State::Own => None,
        }
    }

    pub(super) fn fail(&mut self, now: Time, failure: Failure, why: String, goal: &Goal, rng: &mut dyn Rng) {
        self.error = Some(why);
        self.renewed_since = None;
        self.failures = self.failures.saturating_add(1);
        let another = self.cursor + 1 < self.addresses.len();
        self.no_way = failure == Failure::NoWay && (self.no_way || self.cursor == 0);
        self.cursor = if another { self.cursor + 1 } else { 0 };
        if failure == Failure::Own && !another {
            self.state = State::Own;
            return;
        }
        self.state = State::Waiting;
        if another && matches!(failure, Failure::Silent | Failure::Own | Failure::NoWay) && self.addresses.len() > 1 {
            // The other addresses of one name are tried in turn; only a whole round backs off.
            self.due = now + Duration::from_millis(50);
            return;
        }
        let slow = failure == Failure::Refused || !matches!(goal, Goal::Host(_));
        let (first, most) = match (slow, self.no_way) {
            (true, true) => (BACKOFF_SLOW, BACKOFF_NO_WAY),
            (true, false) => (BACKOFF_REFUSED, BACKOFF_SLOW),
            (false, _) => (BACKOFF_FIRST, BACKOFF_MAX),
        };
        self.backoff = self.backoff.max(first);
        self.due = now + jitter(self.backoff, rng);
        self.backoff = (self.backoff * 3 / 2).min(most);
    }

    pub(super) fn connection_state(&self) -> ConnectionState {
        match self.state {
            State::Waiting if self.error.is_some() => ConnectionState::Retrying,
            State::Waiting | State::Resolving { .. } | State::Dialling { handshaking: false } => ConnectionState::Connecting,
            State::Dialling { handshaking: true } => ConnectionState::Handshaking,
            State::Linked => ConnectionState::Established,
            State::Own => ConnectionState::Failed,
        }
    }
}
