//! Direct paths on demand: while frames flow through relays, both ends try each other's addresses at once, and remember what came of it.
//!
//! ```text
//!  A                           relays                          B
//!  CHALLENGE to each address of B that gossip told ──────────► (A's translator lets B in from here on)
//!  CANDIDATES ═══════════════════ sealed, RELAYED ═══════════► B challenges each of them
//!  ◄────────────────────────────────────────────── CHALLENGE to each address of A
//!  RESPONSE ─────────────────────────────────────────────────► both have a proven path; frames move to it
//! ```
//!
//! An address is a candidate where an interface has it, where a neighbour sees the router (that is what a translator made of it), or where the
//! operator says that it can be reached (`--advertise`).
//!
//! | of a peer's addresses | are tried |
//! | --- | --- |
//! | two in a network of ours, then those where it says that it is reached or that neighbours see it, or public ones: three in all | in every search |
//! | the others | three in every search, those first whose last turn is the longest ago |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::config::Outbox;
use super::core::Mesh;
use super::heartbeat::ACTIVE_FOR;
use super::status::TakenWay;
use super::targets::Goal;
use super::trace::Traces;
use crate::time::Time;
use crate::wire::control::Record;
use crate::wire::{Address, PeerName};

/// Addresses of one peer under challenge at once.
pub(super) const MOST_CHALLENGES: usize = 6;
/// So many of these are the likeliest, in every search: both ends must try the right ones within the time that a translator remembers.
const LIKELIEST: usize = 3;
/// And so many of the likeliest are in a network of ours: bridges of different hosts may look like one network.
const LIKELIEST_NEAR: usize = 2;
/// Pause after the first search for a direct path that found none; it doubles.
const SEEK_FIRST: Duration = Duration::from_secs(2);
/// The longest such pause.
const SEEK_MOST: Duration = Duration::from_secs(60);
/// A peer's candidates are tried at most this often at its word.
const HEED_EVERY: Duration = Duration::from_secs(1);
/// Addresses that a router names as those where it may be reached. Half of them are left to its interfaces, where it has so many.
const MOST_CANDIDATES: usize = 24;
/// Addresses of one peer of which it is remembered what came of them: those that it names, and as many of its NODE record. What is forgotten
/// counts as untried, and would keep others from having their turn.
const MOST_TRIALS: usize = 2 * MOST_CANDIDATES;

/// What came of trying an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is being tried.
    Trying,
    /// The peer answered from there.
    Answered,
    /// It was of no use, with a sentence that says why.
    Failed(String),
}

/// An address of a peer that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// When.
    pub at: Time,
    /// What came of it.
    pub outcome: Outcome,
}

/// What is known of the search for a direct path to one peer.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// When it was last begun here, and the pause after that.
    begun: Option<(Time, Duration)>,
    /// When it was last begun at the peer's word.
    heeded: Option<Time>,
    trials: BTreeMap<Address, Trial>,
}

/// How frames travel to others, and what is done to find out.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// The searches for direct paths.
    pub(super) searches: BTreeMap<PeerName, Search>,
    /// The way to each peer that something may be sent to, and since when it is that one.
    pub(super) taken: BTreeMap<PeerName, (Time, TakenWay)>,
    pub(super) traces: Traces,
    /// Whether this host has a way to an address now, where somebody can tell.
    has_way: Option<fn(Address) -> bool>,
}

impl Mesh {
    /// Has `has_way` asked before a handshake is begun that nobody but the gossip asks for: what is computed for it costs a hundred times the question.
    pub fn ask_for_ways(&mut self, has_way: fn(Address) -> bool) {
        self.ways.has_way = Some(has_way);
    }

    /// False where this host has no way there, and it is no person who would have it tried.
    pub(super) fn may_lead(&self, goal: &Goal, address: Address) -> bool {
        matches!(goal, Goal::Host(_)) || address.is_tcp() || self.ways.has_way.is_none_or(|has_way| has_way(address))
    }

    /// Looks for direct paths to peers that frames are exchanged with through relays.
    pub(super) fn seek_paths(&mut self, now: Time, out: &mut Outbox) {
        if !self.config.discovery || self.left {
            return;
        }
        let relayed = self.keyrings.iter().filter(|(peer, keys)| keys.current().is_some() && !self.adjacencies.contains_key(peer));
        let busy: Vec<PeerName> = relayed.map(|(peer, _)| *peer).filter(|peer| self.is_in_use(now, *peer, ACTIVE_FOR)).collect();
        for peer in busy {
            let search = self.ways.searches.entry(peer).or_default();
            let pause = match search.begun {
                Some((at, pause)) if now.since(at) < pause => continue,
                Some((_, pause)) => (pause * 2).min(SEEK_MOST),
                None => SEEK_FIRST,
            };
            search.begun = Some((now, pause));
            self.try_addresses(now, peer, &self.dialable(peer), out);
            let own = self.candidates();
            if let Some(session) = self.keyrings.get(&peer).and_then(|keys| keys.current()).cloned() {
                self.send_any(peer, &session, &[Record::Candidates(own)], out);
            }
        }
    }

    /// Notes that a search for a way to `peer` begins; false where the last began less than `pause` ago.
    pub(super) fn may_search(&mut self, now: Time, peer: PeerName, pause: Duration) -> bool {
        let search = self.ways.searches.entry(peer).or_default();
        let due = search.begun.is_none_or(|(at, _)| now.since(at) >= pause);
        if due {
            search.begun = Some((now, pause));
        }
        due
    }

    /// Where this router may be reached: first where somebody who knows says so, then where neighbours see it, since others may see it there too.
    pub(super) fn candidates(&self) -> Vec<Address> {
        let advertised = &self.config.advertise;
        let seen: BTreeSet<Address> = self.observed.values().filter(|address| !advertised.contains(address)).copied().collect();
        let is_new = |address: &&Address| !seen.contains(address) && !advertised.contains(address);
        let own: Vec<Address> = self.config.addresses.iter().filter(is_new).copied().collect();
        // Behind some translators each neighbour sees it at another address.
        let room = MOST_CANDIDATES.saturating_sub(advertised.len() + own.len().min(MOST_CANDIDATES / 2));
        let seen = seen.into_iter().take(room);
        advertised.iter().copied().chain(seen).chain(own).take(MOST_CANDIDATES).collect()
    }

    /// A peer looks for a direct path to us, and has just sent something to each of our addresses. Its word is sealed, so it costs no stranger
    /// anything to be believed, but not often.
    pub(super) fn on_candidates(&mut self, now: Time, peer: PeerName, addresses: &[Address], out: &mut Outbox) {
        if self.adjacencies.contains_key(&peer) || self.left || !self.config.discovery || !self.store.is_allowed(peer) {
            return;
        }
        let search = self.ways.searches.entry(peer).or_default();
        if search.heeded.is_some_and(|last| now.since(last) < HEED_EVERY) {
            return self.counters.records_ignored.inc();
        }
        search.heeded = Some(now);
        let addresses = addresses.get(..MOST_CANDIDATES).unwrap_or(addresses);
        let mut all = self.nearest_first(addresses.iter().copied());
        all.extend(self.dialable(peer).into_iter().filter(|address| !addresses.contains(address)));
        self.try_addresses(now, peer, &all, out);
    }

    /// Tries some of these addresses of a peer, the likeliest of which come first.
    pub(super) fn try_addresses(&mut self, now: Time, peer: PeerName, addresses: &[Address], out: &mut Outbox) {
        for address in self.turn(peer, addresses) {
            self.challenge(now, peer, address, out);
        }
    }

    /// Those of these addresses whose turn it is.
    fn turn(&self, peer: PeerName, addresses: &[Address]) -> Vec<Address> {
        let (near, far): (Vec<Address>, Vec<Address>) = addresses.iter().copied().partition(|address| self.is_near_us(*address));
        let mut turn: Vec<Address> = near.into_iter().take(LIKELIEST_NEAR).collect();
        let room = LIKELIEST - turn.len();
        turn.extend(far.into_iter().take(room));
        let trials = self.ways.searches.get(&peer).map(|search| &search.trials);
        let last = |address: &Address| trials.and_then(|trials| trials.get(address)).map(|trial| trial.at);
        let mut others: Vec<Address> = addresses.iter().copied().filter(|address| !turn.contains(address)).collect();
        others.sort_by_key(last);
        let room = MOST_CHALLENGES - turn.len();
        turn.extend(others.into_iter().take(room));
        turn
    }

    /// Remembers what came of trying an address of a peer.
    pub(super) fn note_trial(&mut self, now: Time, peer: PeerName, address: Address, outcome: Outcome) {
        let trials = &mut self.ways.searches.entry(peer).or_default().trials;
        trials.insert(address, Trial { at: now, outcome });
        if trials.len() > MOST_TRIALS
            && let Some(oldest) = trials.iter().min_by_key(|(_, trial)| trial.at).map(|(address, _)| *address)
        {
            trials.remove(&oldest);
        }
    }

    /// A direct path was found: the next search, should it be lost, begins at once.
    pub(super) fn search_over(&mut self, peer: PeerName) {
        if let Some(search) = self.ways.searches.get_mut(&peer) {
            (search.begun, search.heeded) = (None, None);
            for trial in search.trials.values_mut().filter(|trial| trial.outcome == Outcome::Trying) {
                trial.outcome = Outcome::Failed("another address answered first".into());
            }
        }
    }

    /// This host has other addresses: everything is worth another try.
    pub(super) fn search_anew(&mut self) {
        self.ways.searches.values_mut().for_each(|search| (search.begun, search.heeded) = (None, None));
    }

    /// The addresses of a peer that were tried, and what came of it.
    pub(super) fn trials(&self, peer: PeerName) -> impl Iterator<Item = (Address, &Trial)> {
        self.ways.searches.get(&peer).into_iter().flat_map(|search| search.trials.iter().map(|(address, trial)| (*address, trial)))
    }

    /// Why frames to a peer do not go directly, in a sentence.
    pub(super) fn why_not_direct(&self, now: Time, peer: PeerName) -> String {
        if !self.config.discovery {
            return "direct paths are not looked for here (--no-discovery)".into();
        }
        let failed = self.trials(peer).filter(|(_, trial)| matches!(trial.outcome, Outcome::Failed(_))).count();
        if self.trials(peer).any(|(_, trial)| trial.outcome == Outcome::Trying) {
            return "its addresses are being tried".into();
        }
        if self.dialable(peer).is_empty() {
            return "it tells of no address that could be tried".into();
        }
        let again = self.ways.searches.get(&peer).and_then(|search| search.begun).map(|(at, pause)| (at + pause).since(now).as_secs());
        match (failed, self.is_in_use(now, peer, ACTIVE_FOR), again) {
            (0, false, _) => "no frames are exchanged with it, so no direct path was looked for".into(),
            (0, true, _) => "the search begins within a second".into(),
            (n, true, Some(again)) => format!("none of {n} addresses is of use; tried again in {again} s"),
            (n, _, _) => format!("none of {n} addresses was of use; tried again while frames are exchanged"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::fuzz::{home, router, router_with};
    use crate::wire::body::MAX_ADDRESSES;

    const PEER: PeerName = PeerName([2, 0, 0, 0, 0, 9]);

    fn bridge(n: u8) -> Address {
        Address::udp(([10, 9, n, 1], 6783).into())
    }

    fn seen() -> Address {
        Address::udp(([192, 0, 2, 1], 40_000).into())
    }

    #[test]
    fn the_likeliest_addresses_are_tried_in_every_search_and_all_others_in_turn() {
        let (mut router, mut now) = (router(1), Time(1_000_000_000));
        let told = [seen()].into_iter().chain((0..12).map(bridge)).chain([home(9)]);
        let all = router.nearest_first(told);
        assert_eq!((all.len(), &all[..3]), (14, &[home(9), seen(), bridge(0)][..]));
        let mut tried: BTreeMap<Address, usize> = BTreeMap::new();
        for search in 1..=8 {
            let turn = router.turn(PEER, &all);
            assert_eq!((turn.len(), &turn[..3]), (MOST_CHALLENGES, &all[..3]));
            for address in turn {
                router.note_trial(now, PEER, address, Outcome::Trying);
                *tried.entry(address).or_default() += 1;
            }
            assert_eq!(tried.len(), (3 + 3 * search).min(all.len()), "the next ones come before any is tried again");
            now = now + SEEK_FIRST;
        }
        assert!((1..12).all(|n| (2..=3).contains(&tried[&bridge(n)])), "{tried:?}");
    }

    #[test]
    fn bridges_that_look_near_leave_room_for_where_the_peer_is_seen() {
        let router = router(1);
        let all = router.nearest_first([seen()].into_iter().chain((2..12).map(home)));
        assert_eq!(router.turn(PEER, &all), [home(2), home(3), seen(), home(4), home(5), home(6)]);
        assert_eq!(router.turn(PEER, &all[..2]), [home(2), home(3)]);
    }

    #[test]
    fn where_neighbours_see_this_router_is_named_first_and_never_cut() {
        let mut router = router_with(1, |config| config.addresses = (0..40).map(bridge).collect());
        router.observed.insert(PEER, seen());
        let named = router.candidates();
        assert_eq!((named.len(), &named[..2]), (MOST_CANDIDATES, &[seen(), bridge(0)][..]));
        router.publish_node(Time(1_000_000_000), &mut Outbox::default());
        let told = router.store.node(router.own).map(|node| node.addresses.to_vec()).unwrap_or_default();
        assert_eq!((told.len(), told.contains(&seen())), (MAX_ADDRESSES, true));
        // A symmetric translator shows each neighbour another address, and interfaces are named all the same.
        for n in 10..60 {
            let address = Address::udp(([192, 0, 2, 1], 40_000 + u16::from(n)).into());
            router.observed.insert(PeerName([2, 0, 0, 0, 0, n]), address);
        }
        let named = router.candidates();
        assert_eq!((named.len(), named.iter().filter(|address| address.is_private()).count()), (MOST_CANDIDATES, MOST_CANDIDATES / 2));
    }
}
