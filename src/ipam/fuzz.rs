//! Fuzz body of the address book: other routers that say anything.
//!
//! The input is a script: steps of `[what 1][who 1][length 2][bytes]`. A message is given as it came; an entry is built of the bytes, with the
//! mesh and a true signature of whoever says it, so that what is refused is refused for what it says.

use std::sync::Arc;

use super::{Config, Init, Ipam, Output, Request};
use crate::crypto::{Identity, Signatures, SimulatedSignatures};
use crate::time::Time;
use crate::wire::ipam::{Body, Digest, Entry, EntryId, Message, Range};

/// Steps of one script: more of the same find nothing new.
const MOST_STEPS: usize = 64;
/// What there is to give.
const RANGE: Range = Range { first: 0xffff_0a20_0000, last: 0xffff_0a20_00ff };
const DOMAIN: &str = "weave-router ipam v1 fuzz";

/// What a step does: the numbers are those of the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Somebody sends the bytes.
    Told = 0,
    /// Somebody publishes the bytes.
    Published = 1,
    /// Somebody sends an entry with these bytes as its body, signed.
    Signed = 2,
    /// A container wants an address.
    Allocate = 3,
    /// Somebody comes or goes.
    Peer = 4,
    /// As many times 100 ms pass as there are bytes.
    Wait = 5,
    /// Somebody is to be removed.
    Remove = 6,
    /// Containers are found with addresses that end in these bytes.
    Reserve = 7,
}

impl Step {
    /// Every step, in order of its number.
    pub const ALL: [Step; 8] =
        [Step::Told, Step::Published, Step::Signed, Step::Allocate, Step::Peer, Step::Wait, Step::Remove, Step::Reserve];
}

/// Router number `n`.
pub fn identity(n: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed(&[n; 32]))
}

/// The wire and the state machine.
pub fn ipam(data: &[u8]) {
    if let Ok((mesh, message)) = Message::parse(data) {
        assert_eq!(message.to_bytes(mesh), data, "a message is written as it was read");
    }
    if let Ok(digest) = Digest::parse(data) {
        assert_eq!(digest.to_bytes(), data, "a digest is written as it was read");
    }
    let (mut stage, mut rest) = (Stage::new(), data);
    for number in 0..MOST_STEPS {
        let Some((&[what, who, hi, lo], after)) = rest.split_first_chunk() else { break };
        let (bytes, after) = after.split_at(usize::from(u16::from_be_bytes([hi, lo])).min(after.len()));
        stage.play(number as u64, Step::ALL[usize::from(what) % Step::ALL.len()], who % 4, bytes);
        rest = after;
    }
    stage.check();
}

/// A founder, and three that say what they like; the first of them is a founder too.
struct Stage {
    book: Ipam,
    others: Vec<Arc<Identity>>,
    mesh: EntryId,
    now: Time,
}

impl Stage {
    fn new() -> Stage {
        let (own, others) = (identity(1), vec![identity(2), identity(3), identity(4), identity(5)]);
        let founders = vec![own.name(), others[0].name()];
        let config = Config {
            network: "fuzz".to_string(),
            ranges: vec![RANGE],
            subnets: Vec::new(),
            init: Init::Seed(founders),
            nickname: String::new(),
        };
        let book = Ipam::new(config, own, Arc::new(SimulatedSignatures), [1; 32], Time(1), Vec::new(), Vec::new());
        let mesh = book.mesh();
        Stage { book, others, mesh, now: Time(1) }
    }

    fn play(&mut self, number: u64, what: Step, who: u8, bytes: &[u8]) {
        let (other, now) = (self.others[usize::from(who)].clone(), self.now);
        match what {
            Step::Told => self.book.told(now, other.name(), bytes),
            Step::Published => self.book.record(now, other.name(), 0, Some(bytes)),
            Step::Signed => {
                if let Some(entry) = self.signed(&other, bytes) {
                    let message = Message::Entries(vec![entry]).to_bytes(self.mesh);
                    self.book.told(now, other.name(), &message);
                }
            }
            Step::Allocate => {
                let subnet = "10.32.0.0/24".parse().ok();
                self.book.request(now, number, Request::Allocate { ident: format!("c{}", bytes.len()), subnet });
            }
            Step::Peer => self.book.peer(now, other.name(), "other", bytes.len().is_multiple_of(2)),
            Step::Wait => {
                for _ in 0..bytes.len().min(100) {
                    self.now = Time(self.now.0 + 100_000_000);
                    self.book.timeout(self.now);
                    self.drain();
                }
            }
            Step::Reserve => {
                let net = |byte: &u8| format!("10.32.0.{byte}/24").parse().ok();
                let held = bytes.iter().filter_map(|byte| Some((format!("c{}", byte % 4), net(byte)?))).collect();
                self.book.request(now, number, Request::Reserve { held, host: Vec::new() });
            }
            Step::Remove => self.book.request(now, number, Request::Remove { dead: other.name(), force: bytes.len() % 2 == 1 }),
        }
        self.drain();
    }

    /// The bytes as kind and body of an entry of `author`.
    fn signed(&self, author: &Identity, bytes: &[u8]) -> Option<Entry> {
        let (kind, body) = bytes.split_first()?;
        let mut signed = vec![*kind];
        signed.extend_from_slice(&self.mesh.0);
        signed.extend_from_slice(&author.public().key.0);
        signed.extend_from_slice(body);
        let signature = SimulatedSignatures.sign(author, DOMAIN, &signed);
        signed.extend_from_slice(&signature);
        Entry::parse(&signed).ok().filter(|entry| !matches!(entry.body, Body::Genesis { .. }))
    }

    fn drain(&mut self) {
        while let Some(output) = self.book.poll() {
            match output {
                Output::Persist { token, .. } => self.book.persisted(self.now, token, true),
                Output::Tell { body, .. } => assert!(Message::parse(&body).is_ok(), "what we say can be read"),
                Output::Publish(body) => assert!(Digest::parse(&body).is_ok(), "what we publish can be read"),
                Output::Answer { .. } | Output::Report(_) => {}
            }
        }
    }

    /// The range has one owner everywhere, and every address that was given is one of the subnet's.
    fn check(&self) {
        let ring = self.book.ring().expect("seeds make a ring");
        let mut next = RANGE.first;
        for (run, _) in ring.leaves().iter() {
            assert_eq!(run.first, next, "the ring has no holes");
            next = run.last + 1;
        }
        assert_eq!(next, RANGE.last + 1);
        for (address, _) in self.book.addresses() {
            assert!(!address.to_string().starts_with("10.32.0.0/") && !address.to_string().starts_with("10.32.0.255/"));
        }
        assert!(self.book.status().problems.iter().all(|problem| !problem.is_empty()));
    }
}
