//! MACs that keep moving, or that several routers have at once: duplicates (RFC 7432, section 15.1).
//!
//! | state | becomes | when |
//! | --- | --- | --- |
//! | none | moving | a claim outbids another, or two routers announce it |
//! | moving | frozen | five moves within three minutes, or two announce it for ten seconds: who yields withdraws within one |
//! | moving | none | three minutes have passed, and only one announces it |
//! | frozen | none | only one has announced it for a minute |

use std::time::Duration;

use crate::time::Time;
use crate::wire::PeerName;

/// Moves that freeze a MAC, as RFC 7432 recommends.
const MOST_MOVES: u32 = 5;
/// Within this long, likewise.
const WINDOW: Duration = Duration::from_secs(180);
/// Two routers that announce a MAC for so long both have it.
const BOTH: Duration = Duration::from_secs(10);
/// A frozen MAC that only one router has announced for so long is free again.
const CALM: Duration = Duration::from_secs(60);

/// What is to be done about a MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Open,
    /// It is a duplicate.
    Freeze,
    /// It is over.
    Over,
}

/// One such MAC.
#[derive(Clone, Copy, Debug)]
pub struct Contest {
    /// Who had it before the others.
    pub holder: PeerName,
    /// The other, of several the last.
    pub rival: PeerName,
    /// Since when it is frozen.
    pub frozen: Option<Time>,
    since: Time,
    moves: u32,
    /// Since when several announce it, or only one.
    several: Option<Time>,
    calm: Option<Time>,
}

impl Contest {
    /// `rival` has claimed what `holder` has.
    pub(super) fn new(now: Time, holder: PeerName, rival: PeerName) -> Contest {
        Contest { holder, rival, frozen: None, since: now, moves: 0, several: None, calm: None }
    }

    /// A claim has outbid another.
    pub(super) fn count(&mut self, now: Time, from: PeerName, to: PeerName) -> Verdict {
        if self.frozen.is_some() {
            return Verdict::Open;
        }
        if now.since(self.since) >= WINDOW {
            *self = Contest { several: self.several, ..Contest::new(now, from, to) };
        }
        self.rival = if to == self.holder { from } else { to };
        self.moves += 1;
        if self.moves >= MOST_MOVES { Verdict::Freeze } else { Verdict::Open }
    }

    /// Time has passed; `several` says whether more than one router announces it now.
    pub(super) fn step(&mut self, now: Time, several: bool) -> Verdict {
        let lasts = |since: &mut Option<Time>, long: Duration| now.since(*since.get_or_insert(now)) >= long;
        if several {
            self.calm = None;
            return if lasts(&mut self.several, BOTH) && self.frozen.is_none() { Verdict::Freeze } else { Verdict::Open };
        }
        self.several = None;
        let over = match self.frozen {
            Some(_) => lasts(&mut self.calm, CALM),
            None => now.since(self.since) >= WINDOW,
        };
        if over { Verdict::Over } else { Verdict::Open }
    }
}
