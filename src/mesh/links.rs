//! Links: the wish for one, heartbeats, the end of one. The states are those of [`adjacency`](super::adjacency).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::adjacency::{ASK_EVERY, ASK_FOR, Adjacency, PATH_IDLE, Role};
use super::command::Event;
use super::config::Outbox;
use super::core::{Member, Mesh};
use super::gossip::Output;
use super::handshakes::{Attempt, Way};
use super::heartbeat::Verdict;
use super::limits::REFERRALS;
use super::routes::Route;
use super::targets::{Failure, Goal};
use super::tcp::observed;
use crate::crypto::Session;
use crate::time::Time;
use crate::wire::control::{CloseReason, Link, Ping, Pong, Record};
use crate::wire::{Address, PeerName};

/// A new link is told to the mesh once its round trip and MTU are known, or after this.
const SETTLE: Duration = Duration::from_millis(50);
/// Changes of cost and MTU are told at most this often.
const RETELL: Duration = Duration::from_secs(10);

impl Mesh {
    /// A handshake is over.
    #[expect(clippy::too_many_arguments, reason = "the two sides of a handshake end here, and nothing of it is kept together before")]
    pub(super) fn complete(
        &mut self,
        now: Time,
        session: Arc<Session>,
        member: Member,
        way: Way,
        initiator: bool,
        goal: Option<Goal>,
        out: &mut Outbox,
    ) {
        let peer = session.peer();
        self.counters.handshakes_completed.inc();
        let before = self.members.get(&peer).map(|known| known.stamp);
        if before.is_some_and(|before| member.stamp.incarnation > before.incarnation) {
            self.end_sessions(now, peer, "it was restarted", out);
        }
        self.make_session_room(now, peer, out);
        let stamp = member.stamp.max(before.unwrap_or_default());
        self.members.insert(peer, Member { stamp, ..member });
        if let Some(old) = self.keyrings.entry(peer).or_default().install(now, Arc::clone(&session), self.own < peer) {
            // By another way the answer still proves the address.
            self.answers.forget(Some(way), &[old.local_index()]);
        }
        self.reindex(peer);
        self.fib_stale = true;
        let mut goal = goal;
        if let Some(goal) = &goal {
            self.targets.found(now, goal, peer, ASK_FOR + Duration::from_secs(1));
        }
        if initiator {
            self.psk_next.remove(&way);
            let others = self.drop_attempts(now, peer, |attempt| attempt.way == way);
            goal = goal.or(others);
        }
        match (way, initiator) {
            (Way::Direct(address), true) => self.reached(now, peer, address, goal.is_some(), out),
            (Way::Direct(address), false) => {
                self.answered_at.insert(session.local_index(), address);
            }
            (Way::Relayed(_), true) => self.send_any(peer, &session, &[], out),
            (Way::Relayed(_), false) => {}
        }
    }

    /// The answer to a handshake of ours came after that to a later one: its session is of no use, but the peer is where it came from.
    pub(super) fn overtaken(&mut self, now: Time, peer: PeerName, way: Way, goal: Option<Goal>, out: &mut Outbox) {
        if let Some(goal) = &goal {
            self.targets.found(now, goal, peer, ASK_FOR + Duration::from_secs(1));
        }
        if let Way::Direct(address) = way {
            self.reached(now, peer, address, goal.is_some(), out);
        }
    }

    /// The peer's handshake has ended in a session that it uses: our own with it, or with the address where it `proved` to
    /// be, are not needed any more. Before that nothing ends, since anybody can send a first message in another's name.
    pub(super) fn drop_crossing(&mut self, now: Time, peer: PeerName, proved: Option<Address>) {
        let way = proved.map(Way::Direct);
        self.drop_attempts(now, peer, |attempt| Some(attempt.way) == way || attempt.peer == Some(peer));
    }

    /// Ends handshakes of ours that `peer` has made needless; tells what one of them was for.
    fn drop_attempts(&mut self, now: Time, peer: PeerName, needless: impl Fn(&Attempt) -> bool) -> Option<Goal> {
        let mut goals = Vec::new();
        self.attempts.retain(|_, attempt| {
            let keep = !needless(attempt);
            goals.extend(attempt.goal.take_if(|_| !keep));
            keep
        });
        goals.iter().for_each(|goal| self.targets.found(now, goal, peer, ASK_FOR + Duration::from_secs(1)));
        goals.pop()
    }

    /// A handshake of ours reached `peer` at `address`.
    fn reached(&mut self, now: Time, peer: PeerName, address: Address, wish: bool, out: &mut Outbox) {
        // Others may have taken the place meanwhile.
        let wish = wish && (self.has_room() || self.targets.is_configured(peer) || self.needs(peer));
        let role = if wish { Adjacency::asking(now) } else { Role::Path };
        match self.adjacencies.get_mut(&peer) {
            None => {
                self.adjacencies.insert(peer, Adjacency::new(now, address, role, true));
            }
            Some(adjacency) if adjacency.is_link() => {
                if adjacency.address.is_tcp() && !address.is_tcp() {
                    adjacency.move_to(now, address);
                    self.fib_stale = true;
                }
            }
            Some(adjacency) => {
                if adjacency.address != address && (adjacency.address.is_tcp() || !address.is_tcp()) {
                    adjacency.move_to(now, address);
                }
                if wish {
                    adjacency.role = role;
                }
            }
        }
        // The peer seals with the new session once it has heard something on it.
        self.tick_link(now, peer, out);
        self.send_direct(peer, address, &[], out);
    }

    /// Says on a session that we want a link, and at which address we see the peer.
    pub(super) fn ask_for_link(&mut self, session: &Session, address: Address, out: &mut Outbox) {
        let wish = Record::Link(Link { answer: false, only: self.needs(session.peer()) });
        let records: Vec<Record<'_>> = std::iter::once(wish).chain(observed(address)).collect();
        self.send_sealed(session, address, &records, out);
    }

    /// Sends what is due on every adjacency, and ends those that are dead.
    pub(super) fn tick_links(&mut self, now: Time, out: &mut Outbox) {
        self.adjacencies.observe(&self.activities);
        self.note_relayed();
        for peer in self.adjacencies.due(now) {
            self.tick_link(now, peer, out);
        }
    }

    /// What is sent to others over a link is use of that link, and of each that shares the flows with it.
    fn note_relayed(&mut self) {
        if self.activities.is_empty() {
            return;
        }
        for peer in self.keyrings.keys().filter(|peer| !self.adjacencies.contains_key(*peer)).copied().collect::<Vec<_>>() {
            let sent = self.activities.get(&peer).map_or(Time::ZERO, |activity| Time(activity.sent.load(Ordering::Relaxed)));
            let hops = self.routes.get(peer).into_iter().flat_map(Route::equal_hops);
            for hop in hops {
                if let Some(link) = self.adjacencies.get_mut(&hop) {
                    link.beat.data(Time::ZERO, sent);
                }
            }
        }
    }

    pub(super) fn tick_link(&mut self, now: Time, peer: PeerName, out: &mut Outbox) {
        let Some(adjacency) = self.adjacencies.get_mut(&peer) else { return };
        let address = adjacency.address;
        if let Role::Asking { until, due } = adjacency.role {
            if now >= until {
                adjacency.role = Role::Path;
                adjacency.since = now;
            } else if now >= due {
                adjacency.role = Role::Asking { until, due: now + ASK_EVERY };
                if let Some(session) = self.keyrings.get(&peer).and_then(|keys| keys.current()).map(Arc::clone) {
                    self.ask_for_link(&session, address, out);
                }
            }
        }
        let Some(adjacency) = self.adjacencies.get_mut(&peer) else { return };
        match adjacency.beat.poll(now) {
            Verdict::Wait => {}
            Verdict::Ping(sequence) => self.send_ping(now, peer, sequence, out),
            Verdict::Dead => {
                let silent = adjacency.beat.age(now);
                self.counters.paths_dead.inc();
                self.counters.paths_dead_after_ms.add(u64::from(silent));
                // The other direction often works: the peer need not wait for a deadline of its own.
                self.no_link(peer, address, out);
                return self.link_down(now, peer, &format!("no answer for {:.1} s", f64::from(silent) / 1000.0), out);
            }
        }
        let Some(adjacency) = self.adjacencies.get_mut(&peer) else { return };
        let (before, settled) = (adjacency.mtu.max_datagram(), adjacency.mtu.is_settled());
        let probes = if now >= adjacency.mtu_due(now) { adjacency.mtu.poll(now) } else { Vec::new() };
        let (after, is_link) = (adjacency.mtu.max_datagram(), adjacency.is_link());
        self.fib_stale |= after != before || adjacency.mtu.is_settled() != settled;
        if after != before && is_link {
            self.links_soon(now);
        }
        for probe in probes {
            self.send_probe(peer, address, probe, out);
        }
        let Some(adjacency) = self.adjacencies.get(&peer) else { return };
        let old = now.since(adjacency.since) >= PATH_IDLE;
        // What the kernel carries is not seen by the packet threads.
        let said = self.fastdp.is_in_use(peer) && adjacency.beat.peer_was_active(now, PATH_IDLE);
        let carried = said || self.fastdp.was_used(now, peer, PATH_IDLE);
        let in_use = self.is_in_use(now, peer, PATH_IDLE) || carried;
        if adjacency.role == Role::Path && old && !in_use {
            self.link_down(now, peer, "it is not used", out);
        }
    }

    fn send_ping(&mut self, now: Time, peer: PeerName, sequence: u32, out: &mut Outbox) {
        let root = self.store.root(now);
        let Some(adjacency) = self.adjacencies.get_mut(&peer) else { return };
        let address = adjacency.address;
        let (active, link, age) = (adjacency.beat.is_active(now), adjacency.is_link(), adjacency.beat.age(now));
        let mut records =
            vec![Record::Ping(Ping { sequence, active, link, clear: super::clear::trusts(&self.config, address), age, root })];
        if adjacency.told.replace(address) != Some(address) {
            records.extend(observed(address));
        }
        records.extend(self.fastdp_word(now, peer).map(Record::Fastdp));
        self.send_direct(peer, address, &records, out);
    }

    /// A heartbeat.
    pub(super) fn on_ping(&mut self, now: Time, peer: PeerName, from: Address, ping: &Ping, out: &mut Outbox) {
        let Some(adjacency) = self.adjacencies.get_mut(&peer) else {
            // A path in use is being challenged; to end it at the same time would start it all over. What we only get through
            // relays is no use of a path here: then the peer's word counts.
            let of_use = ping.active || self.is_in_use(now, peer, PATH_IDLE);
            if ping.link || !of_use {
                return self.no_link(peer, from, out);
            }
            return self.challenge(now, peer, from, out);
        };
        if adjacency.address != from {
            return;
        }
        adjacency.beat.heard(now, ping.active);
        adjacency.mtu.peer_answers(now);
        let clear_is_news = std::mem::replace(&mut adjacency.peer_takes_clear, ping.clear) != ping.clear;
        if ping.age < u16::MAX {
            adjacency.beat.reported(now, Duration::from_millis(u64::from(ping.age)));
            adjacency.beat.spare(now);
        }
        let (role, alive_again) = (adjacency.role, adjacency.trust());
        if clear_is_news {
            self.settle_clear_with(peer);
        }
        if alive_again {
            self.links_at_once(now);
        }
        match role {
            Role::Asking { .. } if ping.link => self.link_up(now, peer, out),
            Role::Path if ping.link => self.no_link(peer, from, out),
            Role::Asking { .. } | Role::Path | Role::Link => {}
        }
        let root = self.store.root(now);
        let active = self.adjacencies.get(&peer).is_some_and(|adjacency| adjacency.beat.is_active(now));
        self.send_direct(peer, from, &[Record::Pong(Pong { sequence: ping.sequence, active, root })], out);
        self.compare_root(now, peer, ping.root, out);
    }

    /// The answer to one.
    pub(super) fn on_pong(&mut self, now: Time, peer: PeerName, pong: &Pong, out: &mut Outbox) {
        let Some(adjacency) = self.adjacencies.get_mut(&peer) else { return };
        if !adjacency.beat.pong(now, pong.sequence) {
            return self.counters.records_ignored.inc();
        }
        adjacency.beat.heard(now, pong.active);
        if adjacency.trust() {
            self.links_at_once(now);
        }
        let Some(adjacency) = self.adjacencies.get(&peer) else { return };
        if adjacency.is_link() && adjacency.cost != adjacency.current_cost() {
            // The first measurement is what a new link's record waits for.
            let due = if adjacency.cost.is_none() { now } else { now + RETELL };
            self.links_soon(due);
        }
        self.compare_root(now, peer, pong.root, out);
    }

    fn compare_root(&mut self, now: Time, peer: PeerName, root: u64, out: &mut Outbox) {
        if self.adjacencies.get(&peer).is_some_and(|adjacency| adjacency.is_link()) {
            let mut said = Output::default();
            self.store.on_root(now, peer, root, &mut said);
            self.spread(now, said, out);
        }
    }

    /// Whether a router that wants a link gets one; `only` where it says that it needs it.
    fn takes(&self, peer: PeerName, from: Address, only: bool) -> bool {
        let needs = only && self.heeds_need_of(peer) && self.has_room_beyond(from);
        self.has_room_at(from) || needs || self.targets.is_configured(peer)
    }

    /// The peer wants a link, or consents to ours.
    pub(super) fn on_link(&mut self, now: Time, peer: PeerName, from: Address, link: Link, out: &mut Outbox) {
        if let Err((_, why)) = self.address_allowed(from) {
            self.counters.records_ignored.inc();
            return self.refused(from.socket_addr().ip().to_string(), why, out);
        }
        // A wish from an address that is not proven is repeated; by then the challenge has been answered.
        let Some(adjacency) = self.adjacencies.get(&peer) else {
            if !link.answer && !self.left {
                self.challenge(now, peer, from, out);
            }
            return;
        };
        if adjacency.address != from {
            return;
        }
        let role = adjacency.role;
        match role {
            Role::Path if link.answer || self.left => return self.counters.records_ignored.inc(),
            Role::Path if !self.takes(peer, from, link.only) => {
                let referrals = self.referrals(peer);
                self.send_direct(peer, from, &[Record::Close(CloseReason::Full, referrals)], out);
                return self.let_go_unused(now, peer, out);
            }
            Role::Path | Role::Asking { .. } => self.link_up(now, peer, out),
            Role::Link => {}
        }
        if !link.answer {
            let consent = Record::Link(Link { answer: true, only: false });
            let records: Vec<Record<'_>> = std::iter::once(consent).chain(observed(from)).collect();
            self.send_direct(peer, from, &records, out);
        }
    }

    /// The peer ends, or refuses, a link.
    pub(super) fn on_close(
        &mut self,
        now: Time,
        peer: PeerName,
        from: Address,
        reason: CloseReason,
        addresses: &[Address],
        out: &mut Outbox,
    ) {
        let Some(adjacency) = self.adjacencies.get_mut(&peer).filter(|adjacency| adjacency.address == from) else { return };
        match reason {
            CloseReason::Leaving => self.link_down(now, peer, "it is shutting down", out),
            CloseReason::NoLink => {
                let asking = matches!(adjacency.role, Role::Asking { .. });
                if !asking {
                    self.link_down(now, peer, "it does not hold the link any more", out);
                }
            }
            CloseReason::Full => {
                let was_link = adjacency.is_link();
                if was_link {
                    self.link_down(now, peer, "it has all the links it may have", out);
                } else {
                    adjacency.role = Role::Path;
                    self.let_go_unused(now, peer, out);
                }
                self.targets.refused_by(now, peer, Failure::Refused, "it has all the links it may have (--conn-limit)", &mut self.rng);
                if self.config.discovery && self.link_count() == 0 {
                    let hints = addresses.iter().filter(|address| !self.config.is_own(**address));
                    hints.take(REFERRALS).for_each(|address| self.targets.hint(now, *address));
                }
            }
        }
    }

    /// A path that no frame uses is not kept for the sake of a link that was refused.
    fn let_go_unused(&mut self, now: Time, peer: PeerName, out: &mut Outbox) {
        if !self.is_in_use(now, peer, PATH_IDLE) {
            self.link_down(now, peer, "it is not used", out);
        }
    }

    /// A path MTU probe arrived there.
    pub(super) fn on_probed(&mut self, now: Time, peer: PeerName, nonce: u32, size: u16) {
        let Some(adjacency) = self.adjacencies.get_mut(&peer) else { return };
        if adjacency.mtu.probed(now, nonce, size) {
            let is_link = adjacency.is_link();
            self.fib_stale = true;
            if is_link {
                self.links_soon(now + SETTLE);
            }
        }
    }

    /// The LINKS record is to be brought up to date at `due` or earlier.
    pub(super) fn links_soon(&mut self, due: Time) {
        self.links_due = Some(self.links_due.map_or(due, |other| other.min(due)));
    }

    /// The same without waiting for the pause between two editions: a link is no more, is feared to be dead, or is not any more.
    pub(super) fn links_at_once(&mut self, now: Time) {
        self.pace.links_urgent = true;
        self.links_soon(now);
    }

    /// An adjacency becomes a link.
    pub(super) fn link_up(&mut self, now: Time, peer: PeerName, out: &mut Outbox) {
        let Some(adjacency) = self.adjacencies.get_mut(&peer).filter(|adjacency| !adjacency.is_link()) else { return };
        adjacency.role = Role::Link;
        adjacency.since = now;
        adjacency.beat.begin(now);
        // What was told before may have come too early to count.
        adjacency.told = None;
        let address = adjacency.address;
        self.counters.links_up.inc();
        self.fib_stale = true;
        self.links_soon(now + SETTLE);
        self.forget_refusals(peer, address);
        self.no_longer_avoid(peer);
        out.events.push(Event::LinkUp { peer, nickname: self.nickname(peer), address });
        let mut said = Output::default();
        self.store.link_up(now, peer, &mut said);
        self.spread(now, said, out);
    }

    /// The end of an adjacency, link or not. The packet threads see it before the next Fib.
    pub(super) fn link_down(&mut self, now: Time, peer: PeerName, reason: &str, out: &mut Outbox) {
        let Some(adjacency) = self.adjacencies.remove(&peer) else { return };
        self.fib_stale = true;
        self.forget_fastdp(peer);
        let indices = &self.indices;
        self.answered_at.retain(|index, _| indices.get(index) != Some(&peer));
        if !adjacency.is_link() {
            if !self.routes.reachable(peer) {
                // Nothing leads there now: its MACs are nobody's.
                self.routes_due = Some(now);
            }
            return;
        }
        self.counters.links_down.inc();
        // It may have come up and ended since targets were last looked at.
        self.targets.link_lost(now, peer);
        if let Some(address) = self.observed.remove(&peer) {
            self.node_soon(now, address);
        }
        self.relay_budget.remove(&peer);
        self.store.link_down(peer);
        self.links_at_once(now);
        out.events.push(Event::LinkDown { peer, nickname: self.nickname(peer), reason: reason.to_string() });
    }

    /// Says goodbye to everybody.
    pub(super) fn leave(&mut self, now: Time, out: &mut Outbox) {
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        let mut said = Output::default();
        self.store.leave(now, &mut said);
        let links: Vec<(PeerName, Address)> = self.adjacencies.iter().map(|(name, adjacency)| (*name, adjacency.address)).collect();
        for (peer, address) in links {
            // In one datagram, so that the word to the mesh is not passed over as that of a stranger; and twice, as
            // nobody will be there to repeat it.
            let mut records: Vec<Record<'_>> = said.to_all_but.iter().map(|(_, message)| Record::Gossip(message)).collect();
            records.push(Record::Close(CloseReason::Leaving, Vec::new()));
            self.send_direct(peer, address, &records, out);
            self.send_direct(peer, address, &records, out);
            self.link_down(now, peer, "this router is shutting down", out);
        }
        self.attempts.clear();
    }
}
