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
//!
//! Data goes another way where that is better by much: beside a path by TCP, one that is lossy, or one whose size is not known yet
//! (`fib_build`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::heartbeat::Heartbeat;
use super::mtu::MtuSearch;
use crate::forward::fib::Activity;
use crate::time::Time;
use crate::wire::{Address, PeerName};

/// How long the wish for a link is repeated before it is given up.
pub const ASK_FOR: Duration = Duration::from_secs(5);
/// Between repetitions of the wish.
pub const ASK_EVERY: Duration = Duration::from_millis(300);
/// A path that carried nothing for this long is let go.
pub const PATH_IDLE: Duration = Duration::from_secs(30);
/// How much later the size of a path is checked that carries nothing.
const IDLE_MTU: Duration = Duration::from_secs(285);
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
    /// When it was sent first.
    pub first: Time,
    /// When it is repeated.
    pub due: Time,
    /// How often it may still be.
    pub left: u8,
}

/// Share of pings lost, both ways together, from which on a path is lossy: TCP gets next to nothing through it. One loss by chance is far from it.
const MUCH_LOSS: f64 = 0.15;
/// And below which it no longer is.
const LITTLE_LOSS: f64 = 0.05;
/// It is taken for lossy for so long at least; twice as long each time that it is soon lossy again, up to the most.
const LOSSY_FIRST: Duration = Duration::from_secs(30);
const LOSSY_MOST: Duration = Duration::from_secs(300);

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
    /// Shared with them too: true while the path is feared to be dead.
    pub doubted: Arc<AtomicBool>,
    /// True once the peer's own record names this link: that it does so no more says something.
    pub listed: bool,
    /// The cost last advertised, for hysteresis.
    pub cost: Option<u32>,
    /// When it began to be what it is.
    pub since: Time,
    /// The address we last told the peer we see it at.
    pub told: Option<Address>,
    /// True where the peer says that it takes frames in clear from us.
    pub peer_takes_clear: bool,
    /// When an ICMP error about it was last heeded.
    pub rebuffed: Option<Time>,
    /// True from when it lost much of what it was given until it loses little: others carry frames who lose less.
    pub lossy: bool,
    /// When that last changed, and for how long it stays as it is at least.
    lossy_at: (Time, Duration),
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
            doubted: Arc::default(),
            listed: false,
            cost: None,
            since: now,
            told: None,
            peer_takes_clear: false,
            rebuffed: None,
            lossy: false,
            lossy_at: (now, Duration::ZERO),
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
        if self.address.is_tcp() != address.is_tcp() {
            self.cost = None;
        }
        self.address = address;
        self.told = None;
        self.peer_takes_clear = false;
        self.mtu = MtuSearch::new(now, address);
        (self.lossy, self.lossy_at) = (false, (now, Duration::ZERO));
        self.beat.moved(now);
        self.trust();
    }

    /// Something says that the path is dead: others stand in for it until it proves to be alive.
    pub fn doubt(&mut self, now: Time) {
        self.doubted.store(true, Ordering::Relaxed);
        self.beat.doubt(now);
    }

    /// Both directions were proven: a path that was feared to be dead is used again. True where that is news.
    pub fn trust(&self) -> bool {
        !self.beat.is_doubted() && self.doubted.swap(false, Ordering::Relaxed)
    }

    /// Looks at how much is lost; true where that makes a difference now. What was lost may have been for the load, which others carry since: the
    /// sooner it is lost again, the longer they go on.
    pub fn review_loss(&mut self, now: Time) -> bool {
        let (at, pause) = self.lossy_at;
        let lossy = self.beat.loss() >= if self.lossy { LITTLE_LOSS } else { MUCH_LOSS };
        if lossy == self.lossy || self.lossy && now.since(at) < pause {
            return false;
        }
        if lossy {
            let soon = now.since(at) < LOSSY_MOST;
            self.lossy_at = (now, if soon { (pause * 2).clamp(LOSSY_FIRST, LOSSY_MOST) } else { LOSSY_FIRST });
        } else {
            self.lossy_at.0 = now;
        }
        self.lossy = lossy;
        true
    }

    /// True for a link that is told to the mesh.
    pub fn is_told(&self) -> bool {
        self.is_link() && !self.beat.is_doubted()
    }

    /// Takes in what the packet threads saw. True where something may be due sooner for that.
    pub fn observe(&mut self, activity: &Activity) -> bool {
        self.beat.data(Time(activity.heard.load(Ordering::Relaxed)), Time(activity.sent.load(Ordering::Relaxed)))
    }

    /// When its path MTU is looked at next: whether a known one still holds matters to those who use it, and gossip fits any.
    pub fn mtu_due(&self, now: Time) -> Time {
        let idle = !self.beat.is_active(now) && !self.beat.peer_was_active(now, Duration::ZERO);
        if idle && self.mtu.is_settled() && !self.mtu.is_hurried() { self.mtu.due() + IDLE_MTU } else { self.mtu.due() }
    }

    /// When something of it is due.
    pub fn due(&self, now: Time) -> Time {
        let mut due = self.beat.due(now).min(self.mtu_due(now));
        match self.role {
            Role::Asking { until, due: ask } => due = due.min(ask).min(until),
            Role::Link | Role::Path => {}
        }
        due
    }
}

/// All adjacencies. Of each it is remembered when something of it is due: to look at all of them for that with every input would cost more than
/// most inputs do. Only where something of it changes can it be due sooner.
#[derive(Debug, Default)]
pub struct Adjacencies {
    all: BTreeMap<PeerName, Adjacency>,
    dues: BTreeMap<PeerName, Time>,
    /// Those that may have changed since.
    touched: Vec<PeerName>,
}

impl Adjacencies {
    /// One that may be changed.
    pub fn get_mut(&mut self, peer: &PeerName) -> Option<&mut Adjacency> {
        let adjacency = self.all.get_mut(peer)?;
        if !self.touched.contains(peer) {
            self.touched.push(*peer);
        }
        Some(adjacency)
    }

    /// All of them, each to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&PeerName, &mut Adjacency)> {
        self.touched.clear();
        self.touched.extend(self.all.keys().copied());
        self.all.iter_mut()
    }

    /// Adds one.
    pub fn insert(&mut self, peer: PeerName, adjacency: Adjacency) {
        self.all.insert(peer, adjacency);
        if !self.touched.contains(&peer) {
            self.touched.push(peer);
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, peer: &PeerName) -> Option<Adjacency> {
        self.touched.retain(|other| other != peer);
        self.dues.remove(peer);
        self.all.remove(peer)
    }

    /// Takes in what the packet threads saw.
    pub fn observe(&mut self, activities: &BTreeMap<PeerName, Arc<Activity>>) {
        if activities.is_empty() {
            return;
        }
        for (peer, adjacency) in &mut self.all {
            if activities.get(peer).is_some_and(|activity| adjacency.observe(activity)) && !self.touched.contains(peer) {
                self.touched.push(*peer);
            }
        }
    }

    /// When something of one of them is due.
    pub fn next_due(&self, now: Time) -> Option<Time> {
        let settled = self.dues.iter().filter(|(peer, _)| !self.touched.contains(peer)).map(|(_, due)| *due);
        let touched = self.touched.iter().filter_map(|peer| Some(self.all.get(peer)?.due(now)));
        settled.chain(touched).min()
    }

    /// Those of which something is due now.
    pub fn due(&mut self, now: Time) -> Vec<PeerName> {
        let ripe = self.dues.iter().filter(|(_, due)| **due <= now).map(|(peer, _)| *peer);
        let looked_at: BTreeSet<PeerName> = ripe.chain(std::mem::take(&mut self.touched)).collect();
        looked_at.into_iter().filter(|peer| self.look_at(now, *peer).is_some_and(|due| due <= now)).collect()
    }

    /// What has changed is remembered.
    pub fn settle(&mut self, now: Time) {
        while let Some(peer) = self.touched.pop() {
            self.look_at(now, peer);
        }
    }

    fn look_at(&mut self, now: Time, peer: PeerName) -> Option<Time> {
        let due = self.all.get(&peer)?.due(now);
        self.dues.insert(peer, due);
        Some(due)
    }
}

impl Deref for Adjacencies {
    type Target = BTreeMap<PeerName, Adjacency>;

    fn deref(&self) -> &BTreeMap<PeerName, Adjacency> {
        &self.all
    }
}

impl Drop for Adjacency {
    /// The packet threads stop using it at once, whatever the reason.
    fn drop(&mut self) {
        self.up.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mesh::heartbeat::Verdict;

    /// Pings for so many seconds, of which every `lost`th has no answer (0: none lacks it, as only 0 is a multiple of 0); when the verdict on
    /// loss changed, in seconds.
    fn verdicts(adjacency: &mut Adjacency, now: &mut Time, seconds: u64, lost: u32) -> Vec<(u64, bool)> {
        let (mut changes, start) = (Vec::new(), *now);
        for tick in 0..seconds * 20 {
            *now = *now + Duration::from_millis(50);
            adjacency.beat.data(*now, *now);
            if let Verdict::Ping(sequence) = adjacency.beat.poll(*now)
                && !sequence.is_multiple_of(lost)
            {
                adjacency.beat.pong(*now, sequence);
            }
            if tick % 20 == 0 && adjacency.review_loss(*now) {
                changes.push((now.since(start).as_secs(), adjacency.lossy));
            }
        }
        changes
    }

    #[test]
    fn much_loss_makes_a_path_lossy_and_the_sooner_it_does_again_the_longer() {
        let mut now = Time(1_000_000_000);
        let mut adjacency = Adjacency::new(now, Address::udp(([10, 0, 0, 1], 6783).into()), Role::Path, true);
        adjacency.beat.begin(now);
        assert_eq!(verdicts(&mut adjacency, &mut now, 120, 50), [], "2 % is little");
        let mut held = Vec::new();
        for _ in 0..3 {
            let bad = verdicts(&mut adjacency, &mut now, 20, 4);
            assert!(matches!(bad[..], [(0..20, true)]), "{bad:?}");
            let good = verdicts(&mut adjacency, &mut now, 300, 0);
            assert!(matches!(good[..], [(_, false)]), "{good:?}");
            held.push(20 - bad[0].0 + good[0].0);
        }
        assert!(held.iter().zip([30, 60, 120]).all(|(held, pause)| (pause..pause + 3).contains(held)), "{held:?}");
        // Whoever is at another address is judged anew.
        verdicts(&mut adjacency, &mut now, 20, 4);
        assert!(adjacency.lossy);
        adjacency.move_to(now, Address::udp(([10, 0, 0, 2], 6783).into()));
        assert_eq!((adjacency.lossy, adjacency.review_loss(now)), (false, false));
    }

    proptest! {
        /// Else it would be wrong to remember when something is due until something changes.
        #[test]
        fn nothing_is_due_before_it_was_said_to_be(steps in prop::collection::vec((0u8..8, 1u64..500), 1..80)) {
            let mut now = Time(1_000_000_000);
            let mut adjacency = Adjacency::new(now, Address::udp(([10, 0, 0, 1], 6783).into()), Role::Link, true);
            adjacency.beat.begin(now);
            let mut last = 0;
            for (action, ms) in steps {
                let (due, next) = (adjacency.due(now), now + Duration::from_millis(ms));
                for share in 1..=8 {
                    let then = now + next.since(now) * share / 8;
                    prop_assert!(then >= due || adjacency.due(then) > then, "due at {then:?} and not before {due:?}");
                }
                now = next;
                match action {
                    0 => {
                        adjacency.beat.data(Time::ZERO, now);
                    }
                    1 => adjacency.beat.heard(now, true),
                    2 => {
                        adjacency.beat.reported(now, Duration::from_millis(20));
                        adjacency.beat.spare(now);
                    }
                    3 => adjacency.beat.doubt(now),
                    4 | 5 => {
                        adjacency.beat.pong(now, last);
                    }
                    _ => {}
                }
                if let Verdict::Ping(sequence) = adjacency.beat.poll(now) {
                    last = sequence;
                }
                if now >= adjacency.mtu_due(now) {
                    adjacency.mtu.poll(now);
                }
            }
        }
    }

    #[test]
    fn what_changed_is_looked_at_again_and_nothing_else() {
        let start = Time(1_000_000_000);
        let name = |number: u8| PeerName([2, 0, 0, 0, 0, number]);
        let mut all = Adjacencies::default();
        for number in 1..=3 {
            all.insert(name(number), Adjacency::new(start, Address::udp(([10, 0, 0, number], 6783).into()), Role::Link, true));
        }
        assert_eq!(all.due(start), [1, 2, 3].map(name), "a new one is pinged at once");
        for number in 1..=3 {
            let adjacency = all.get_mut(&name(number)).expect("it is there");
            adjacency.beat.poll(start);
            adjacency.mtu.poll(start);
        }
        all.settle(start);
        let later = start + Duration::from_millis(10);
        assert!(all.due(later).is_empty() && all.next_due(later).is_some_and(|due| due > later));
        all.get_mut(&name(2)).expect("it is there").beat.doubt(later);
        assert_eq!((all.next_due(later), all.due(later)), (Some(later), vec![name(2)]));
        all.remove(&name(2));
        assert!(all.due(later).is_empty() && all.len() == 2);
    }
}
