//! A proven direct path to a peer, and whether it is a link.
//!
//! ```text
//!  handshake DIRECT ──► Asking ── LINK, or its answer ──► Link ── dead, CLOSE ──► gone
//!                          │ no answer, CLOSE FULL
//!                          └────────► Path ── idle 30 s, dead ──► gone
//!  challenge answered ───────────────► Path ── LINK ──► Link
//! ```
//!
//! | role | heartbeat | gossip, floods, in LINKS | data |
//! | --- | --- | --- | --- |
//! | Asking | yes | no | direct |
//! | Link | yes | yes | direct |
//! | Path | while in use | no | direct |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::heartbeat::Heartbeat;
use super::mtu::MtuSearch;
use crate::forward::fib::Activity;
use crate::time::Time;
use crate::wire::Address;

/// How long the wish for a link is repeated before it is given up.
pub const ASK_FOR: Duration = Duration::from_secs(5);
/// Between repetitions of the wish.
pub const ASK_EVERY: Duration = Duration::from_millis(300);
/// A path that carried nothing for this long is let go.
pub const PATH_IDLE: Duration = Duration::from_secs(30);
/// Between repetitions of a challenge.
pub const CHALLENGE_EVERY: Duration = Duration::from_millis(300);
/// Challenges to one address before it is given up.
pub const CHALLENGES: u8 = 3;

/// What a direct path is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We want a link and wait for consent until `until`; the wish is due again at `due`.
    Asking {
        /// When the wish is given up.
        until: Time,
        /// When it is repeated.
        due: Time,
    },
    /// A control adjacency.
    Link,
    /// For data only.
    Path,
}

/// A challenge to an address where the peer may be now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The address in question.
    pub address: Address,
    /// What is to be echoed from there.
    pub nonce: u64,
    /// When it is repeated.
    pub due: Time,
    /// How often it may still be.
    pub left: u8,
}

/// A proven direct path.
#[derive(Debug)]
pub struct Adjacency {
    /// Where the peer is.
    pub address: Address,
    /// What it is used for.
    pub role: Role,
    /// True where we dialled.
    pub outbound: bool,
    /// Its liveness.
    pub beat: Heartbeat,
    /// Its path MTU.
    pub mtu: MtuSearch,
    /// Shared with the packet threads: false from the moment of death.
    pub up: Arc<AtomicBool>,
    /// The cost last advertised, for hysteresis.
    pub cost: Option<u32>,
    /// When it began to be what it is.
    pub since: Time,
    /// The address we last told the peer we see it at.
    pub told: Option<Address>,
}

impl Adjacency {
    /// A path proven at `now`.
    pub fn new(now: Time, address: Address, role: Role, outbound: bool) -> Adjacency {
        Adjacency {
            address,
            role,
            outbound,
            beat: Heartbeat::new(now),
            mtu: MtuSearch::new(now, address),
            up: Arc::new(AtomicBool::new(true)),
            cost: None,
            since: now,
            told: None,
        }
    }

    /// The role of a wish that starts now.
    pub fn asking(now: Time) -> Role {
        Role::Asking { until: now + ASK_FOR, due: now }
    }

    /// True for a link.
    pub fn is_link(&self) -> bool {
        self.role == Role::Link
    }

    /// The peer proved to be at another address.
    pub fn move_to(&mut self, now: Time, address: Address) {
        self.address = address;
        self.told = None;
        self.mtu = MtuSearch::new(now, address);
        self.beat.moved(now);
    }

    /// Takes in what the packet threads saw.
    pub fn observe(&mut self, activity: &Activity) {
        self.beat.data(Time(activity.heard.load(Ordering::Relaxed)), Time(activity.sent.load(Ordering::Relaxed)));
    }

    /// When something of it is due.
    pub fn due(&self, now: Time) -> Time {
        let mut due = self.beat.due(now).min(self.mtu.due());
        match self.role {
            Role::Asking { until, due: ask } => due = due.min(ask).min(until),
            Role::Link | Role::Path => {}
        }
        due
    }
}

impl Drop for Adjacency {
    /// The packet threads stop using it at once, whatever the reason.
    fn drop(&mut self) {
        self.up.store(false, Ordering::Relaxed);
    }
}
