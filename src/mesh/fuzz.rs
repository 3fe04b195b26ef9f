//! Fuzz body of the mesh plane: strangers and neighbours that say anything.
//!
//! The input is a script: a byte that says whether the router starts with a link, then steps of `[what 1][length 2][bytes]`.
//! Behind the seal of a link no random bytes get anywhere, so a neighbour's steps are sealed with its true session.

use std::sync::Arc;
use std::time::Duration;

use super::command::{Command, Event, Target};
use super::{Mesh, MeshConfig, Outbox};
use crate::crypto::{Classic, Identity, Providers, Psks, Session, SimulatedSignatures, Suite, SuiteTiming};
use crate::time::Time;
use crate::wire::handshake::Handshake;
use crate::wire::{Address, HEADER_LEN, Header, Kind, PeerName, TAG_LEN};

/// Steps of one script: more of the same find nothing new.
const MOST_STEPS: usize = 64;
/// Bytes of a sealed datagram without records.
const SEALED: usize = HEADER_LEN + TAG_LEN;
/// Timers that may be due at one instant, one after the other.
const MOST_AT_ONCE: usize = 16;
/// Largest datagram: a probe for jumbo frames over IPv4.
const LARGEST: usize = 8972;

/// What a step does: the numbers are those of the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A stranger sends the bytes.
    Stranger = 0,
    /// The neighbour's address sends the bytes.
    Neighbour = 1,
    /// The neighbour seals the bytes as control records.
    Sealed = 2,
    /// The same, from the stranger's address.
    Moved = 3,
    /// The same, as if through relays.
    Relayed = 4,
    /// As many milliseconds pass as there are bytes.
    Wait = 5,
}

impl Step {
    /// Every step, in order of its number.
    pub const ALL: [Step; 6] = [Step::Stranger, Step::Neighbour, Step::Sealed, Step::Moved, Step::Relayed, Step::Wait];
}

/// Plays a script to a router.
pub fn mesh(data: &[u8]) {
    let Some((linked, mut rest)) = data.split_first() else { return };
    let mut stage = Stage::new(linked & 1 != 0);
    for _ in 0..MOST_STEPS {
        let Some((&[what, hi, lo], after)) = rest.split_first_chunk() else { break };
        let (bytes, after) = after.split_at(usize::from(u16::from_be_bytes([hi, lo])).min(after.len()));
        stage.play(Step::ALL[usize::from(what) % Step::ALL.len()], bytes);
        rest = after;
    }
    stage.play(Step::Wait, &[0; 700]);
    let snapshot = stage.router.snapshot(stage.now);
    assert_eq!(snapshot.name, stage.router.name());
    assert_eq!(stage.router.fib().own, stage.router.name());
}

/// A router, and who talks to it.
pub(super) struct Stage {
    pub(super) router: Mesh,
    pub(super) now: Time,
    /// The neighbour's end of the session, where there is a link.
    session: Option<Arc<Session>>,
    /// True once the router has reason to write to the stranger's address.
    courted: bool,
    /// Bytes of the stranger's parts of handshake messages that have had no answer yet.
    owed: usize,
}

/// The address of router number `n`.
pub(super) fn home(n: u8) -> Address {
    Address::udp(([10, 0, 0, n], 6783).into())
}

/// Router number `n`, which knows nobody yet.
pub(super) fn router(n: u8) -> Mesh {
    router_with(n, |_| ())
}

/// The same, started otherwise than the usual ones.
pub(super) fn router_with(n: u8, change: impl FnOnce(&mut MeshConfig)) -> Mesh {
    let mut config = MeshConfig {
        forwarding: true,
        multicast_snooping: true,
        identity: Arc::new(Identity::from_seed(&[n; 32])),
        network: "weave".into(),
        nickname: format!("h{n}"),
        version: "1".into(),
        psks: Psks::none("weave"),
        providers: Providers::default(),
        suites: vec![SuiteTiming { suite: Suite::ChaCha20Poly1305, nanoseconds: 1000 }],
        classic: Classic::Refused,
        allow: Vec::new(),
        admins: Vec::new(),
        revoked: Vec::new(),
        open: false,
        discovery: true,
        conn_limit: 4,
        port: 6783,
        incarnation: 1,
        lanes: 1,
        no_encryption: false,
        trusted: Vec::new(),
        addresses: vec![home(n)],
        advertise: Vec::new(),
        fastdp: None,
    };
    change(&mut config);
    Mesh::new(config, Arc::new(SimulatedSignatures), [n; 32])
}

impl Stage {
    pub(super) fn new(linked: bool) -> Stage {
        let mut stage = Stage { router: router(1), now: Time(1_000_000_000), session: None, courted: false, owed: 0 };
        let mut out = Outbox::default();
        stage.router.handle_timeout(stage.now, &mut out);
        if linked {
            stage.link();
        }
        stage
    }

    /// Gives the router a link with router 2, by a true handshake.
    fn link(&mut self) {
        let (now, mut neighbour, mut out) = (self.now, router(2), Outbox::default());
        neighbour.handle_timeout(now, &mut out);
        let target = Target { host: "router1".into(), port: None, tcp: false };
        neighbour.handle_command(now, Command::Connect(vec![target.clone()]), &mut out);
        assert!(out.events.contains(&Event::Resolve(target.clone())), "a named host is looked up");
        neighbour.handle_command(now, Command::Resolved(target, Ok(vec![home(1)])), &mut out);
        let mut back = Outbox::default();
        for _ in 0..8 {
            for (_, mut bytes) in out.datagrams.drain(..) {
                self.router.handle_datagram(now, home(2), &mut bytes, &mut back);
            }
            for (_, mut bytes) in back.datagrams.drain(..) {
                neighbour.handle_datagram(now, home(1), &mut bytes, &mut out);
            }
        }
        let session = neighbour.fib().links.first().map(|link| Arc::clone(&link.session));
        self.session = Some(session.expect("two routers on a good wire have a link"));
        assert_eq!(self.router.fib().links.len(), 1);
    }

    fn play(&mut self, step: Step, bytes: &[u8]) {
        let (neighbour, stranger) = (home(2), home(66));
        let mut out = Outbox::default();
        match step {
            Step::Stranger => {
                self.router.handle_datagram(self.now, stranger, &mut bytes.to_vec(), &mut out);
                self.is_modest(&out, bytes.len());
                let part = Handshake::parse(bytes.get(HEADER_LEN..).unwrap_or(&[])).is_some_and(|shake| shake.fragments > 1);
                self.owed += if part && to(&out, stranger).next().is_none() { bytes.len() } else { 0 };
            }
            Step::Neighbour => self.router.handle_datagram(self.now, neighbour, &mut bytes.to_vec(), &mut out),
            Step::Sealed => self.sealed(Kind::ControlDirect, neighbour, bytes, &mut out),
            Step::Moved => {
                self.sealed(Kind::ControlDirect, stranger, bytes, &mut out);
                self.is_modest(&out, SEALED + bytes.len());
            }
            Step::Relayed => self.sealed(Kind::ControlRelayed, neighbour, bytes, &mut out),
            Step::Wait => self.wait(Duration::from_millis(bytes.len() as u64), &mut out),
        }
        self.courted |= !matches!(step, Step::Stranger | Step::Moved) && to(&out, stranger).next().is_some();
        assert!(out.datagrams.iter().all(|(_, bytes)| !bytes.is_empty() && bytes.len() <= LARGEST), "a datagram that fits no path");
    }

    /// Nothing larger than what came is sent to an address that has proved nothing.
    fn is_modest(&mut self, out: &Outbox, asked: usize) {
        let answered: usize = to(out, home(66)).sum();
        assert!(self.courted || answered <= asked + self.owed, "{answered} bytes in answer to {asked} and {} before", self.owed);
        self.owed -= answered.saturating_sub(asked).min(self.owed);
    }

    pub(super) fn sealed(&mut self, kind: Kind, from: Address, records: &[u8], out: &mut Outbox) {
        self.sealed_on(0, kind, from, records, out);
    }

    /// The same on any lane.
    pub(super) fn sealed_on(&mut self, lane: u8, kind: Kind, from: Address, records: &[u8], out: &mut Outbox) {
        let Some(session) = &self.session else { return };
        let Some(counter) = session.reserve(lane, 1) else { return };
        let destination: PeerName = self.router.name();
        let header = Header { kind, hop_limit: 1, lane, label: 0, destination, index: session.remote_index(), counter };
        let mut datagram = [&header.to_bytes()[..], records, &[0; TAG_LEN]].concat();
        session.seal(lane, counter, &mut datagram);
        self.router.handle_datagram(self.now, from, &mut datagram, out);
    }

    /// Lets time pass, timer by timer.
    pub(super) fn wait(&mut self, long: Duration, out: &mut Outbox) {
        let end = self.now + long;
        let mut at_once = 0;
        while let Some(due) = self.router.next_timeout().filter(|due| *due <= end) {
            at_once = if due > self.now { 0 } else { at_once + 1 };
            assert!(at_once < MOST_AT_ONCE, "a timer that is due for ever keeps a core busy");
            self.now = self.now.max(due);
            self.router.handle_timeout(self.now, out);
        }
        self.now = end;
    }
}

/// Sizes of the datagrams to `address`.
fn to(out: &Outbox, address: Address) -> impl Iterator<Item = usize> {
    out.datagrams.iter().filter(move |(to, _)| *to == address).map(|(_, bytes)| bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::Record;

    fn observed(stage: &mut Stage, from: Address, hosts: std::ops::Range<u8>) -> usize {
        let mut out = Outbox::default();
        for host in hosts {
            let mut records = Vec::new();
            Record::Observed(home(host)).write(&mut records);
            stage.sealed(Kind::ControlDirect, from, &records, &mut out);
        }
        to(&out, home(2)).count()
    }

    fn told(stage: &Stage) -> Vec<Address> {
        stage.router.store.node(stage.router.name()).map(|node| node.addresses.to_vec()).unwrap_or_default()
    }

    #[test]
    fn where_a_neighbour_sees_us_is_told_to_others_rarely_and_not_for_ever() {
        let mut stage = Stage::new(true);
        assert_eq!(told(&stage), [home(1)]);
        assert_eq!(observed(&mut stage, home(66), 100..110), 0, "not from where it is not known to be");
        assert_eq!(told(&stage), [home(1)]);
        assert_eq!(observed(&mut stage, home(2), 100..220), 1, "one record to the neighbour, not one per word of it");
        assert_eq!(told(&stage), [home(1), home(100)]);
        stage.wait(Duration::from_secs(3), &mut Outbox::default());
        assert_eq!(told(&stage), [home(1), home(100)]);
        // Nobody answers: the link dies, and with it what was said over it.
        stage.wait(Duration::from_secs(12), &mut Outbox::default());
        assert_eq!(stage.router.fib().links.len(), 0);
        assert_eq!(told(&stage), [home(1)]);
    }

    #[test]
    fn fibs_of_one_topology_share_what_was_computed() {
        let mut stage = Stage::new(true);
        let own = stage.router.name();
        let first = stage.router.fib();
        first.flood_children(own);
        let computed = |stage: &Stage| stage.router.trees.as_ref().map(|trees| trees.computed());
        assert_eq!(computed(&stage), Some(1));
        let second = stage.router.fib();
        assert!(second.generation > first.generation);
        assert_eq!(computed(&stage), Some(1), "a new Fib starts with what the one before knew");
        assert_eq!(first.trees.children(own).as_ptr(), second.trees.children(own).as_ptr());
    }

    #[test]
    fn a_script_of_nothing_does_no_harm() {
        for script in [&[][..], &[0], &[1], &[1, 2, 0, 0], &[0, 0, 0, 40, 0x10]] {
            super::mesh(script);
        }
    }
}
