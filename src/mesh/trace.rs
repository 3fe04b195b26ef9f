//! Which routers frames to another pass, and how long each takes to answer.
//!
//! ```text
//!  A                       R1                      R2                      B
//!  TRACE left 0  ────────► answers
//!  TRACE left 1  ────────► TRACE left 0 ─────────► answers
//!                ◄──────── TRACED ◄──────────────── TRACED
//!  TRACE left 2  ────────► TRACE left 1 ─────────► TRACE left 0 ─────────► answers: the end
//! ```
//!
//! Every step is sealed for one hop, and each question waits for the answer to the one before, so that a way that changes meanwhile is seen to do
//! so. A relay remembers for a moment whom it passed a question on for. Routers that do not know these records pass them over: the
//! trace ends before them.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_core::Rng;

use super::command::Event;
use super::config::Outbox;
use super::core::Mesh;
use crate::time::Time;
use crate::wire::control::{Record, Trace as Question, Traced as Answer};
use crate::wire::header::HOP_LIMIT;
use crate::wire::{Address, PeerName};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(700);
/// Times a question is asked.
const TRIES: u8 = 3;
/// Questions of others that are remembered, and for how long.
const MOST_PASSED: usize = 1024;
const REMEMBER: Duration = Duration::from_secs(3);
/// Of these, such as one neighbour asked.
const MOST_PASSED_EACH: usize = 128;
/// Traces of ours at once.
const MOST_TRACES: usize = 16;

/// Ends of [`Answer::end`].
const GOES_ON: u8 = 0;
const ARRIVED: u8 = 1;
const NO_ROUTE: u8 = 2;
const FORBIDDEN: u8 = 3;

/// A router on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Hop {
    /// Its name.
    pub router: PeerName,
    /// Its nickname.
    pub nickname: String,
    /// How long its answer took from here, in milliseconds.
    pub rtt_ms: f64,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Where the way leads.
    pub peer: PeerName,
    /// Its nickname.
    pub nickname: String,
    /// The routers on the way that answered, the last of them the destination where it was reached.
    pub hops: Vec<Hop>,
    /// Why the way was not followed to its end, in a sentence.
    pub error: Option<String>,
}

/// A trace of ours under way.
#[derive(Debug)]
struct Going {
    ticket: u64,
    found: Trace,
    probe: u64,
    sent: Time,
    tries: u8,
    /// Who is to answer next, as far as the one before has said.
    next: PeerName,
}

/// All that is being traced.
#[derive(Debug, Default)]
pub(super) struct Traces {
    going: Vec<Going>,
    /// For whom a question was passed on.
    passed: BTreeMap<u64, (PeerName, Time)>,
}

impl Traces {
    /// How many are remembered, ours and others'.
    pub(super) fn remembered(&self) -> usize {
        self.going.len() + self.passed.len()
    }

    /// When something is to be asked again.
    pub(super) fn due(&self) -> Option<Time> {
        self.going.iter().map(|going| going.sent + PATIENCE).min()
    }
}

impl Mesh {
    /// Begins a trace.
    pub(super) fn trace(&mut self, now: Time, ticket: u64, whom: &str, out: &mut Outbox) {
        let found = match self.named(whom) {
            Ok(peer) => Trace { peer, nickname: self.nickname(peer), hops: Vec::new(), error: None },
            Err(error) => return out.events.push(Event::Traced { ticket, trace: Err(error) }),
        };
        if self.ways.traces.going.len() >= MOST_TRACES {
            let error = format!("{MOST_TRACES} traces are under way already; try again in a moment");
            return out.events.push(Event::Traced { ticket, trace: Err(error) });
        }
        let next = self.toward(found.peer).unwrap_or(PeerName::NONE);
        self.ways.traces.going.push(Going { ticket, found, probe: 0, sent: now, tries: 0, next });
        self.ask_on(now, self.ways.traces.going.len() - 1, out);
    }

    /// The router with this name or nickname.
    fn named(&self, whom: &str) -> Result<PeerName, String> {
        let is_meant = |name: PeerName, nickname: &str| name.to_string() == whom || nickname == whom;
        let mut meant = self.store.nodes().filter(|node| is_meant(node.name, node.nickname)).map(|node| node.name);
        match (meant.next(), meant.next()) {
            (None, _) => Err(format!("no router of the mesh is called '{whom}'; `weave-router status peers` lists them")),
            (Some(peer), None) if peer == self.own => Err(format!("'{whom}' is this router itself; name another")),
            (Some(peer), None) => Ok(peer),
            (Some(_), Some(_)) => {
                Err(format!("several routers are called '{whom}'; use the name, as `weave-router status peers` shows it"))
            }
        }
    }

    /// The next router on the way of frames to `peer`.
    fn toward(&self, peer: PeerName) -> Option<PeerName> {
        match self.direct_path(peer) {
            Some(_) => Some(peer),
            None => {
                let route = self.routes.get(peer)?;
                route.equal_hops().chain(route.alternate).find(|hop| *hop != peer && self.adjacencies.contains_key(hop))
            }
        }
    }

    /// Asks the next router of a trace.
    fn ask_on(&mut self, now: Time, at: usize, out: &mut Outbox) {
        let probe = self.rng.next_u64();
        let Some(going) = self.ways.traces.going.get_mut(at) else { return };
        (going.probe, going.sent, going.tries) = (probe, now, going.tries + 1);
        let destination = going.found.peer;
        let left = u8::try_from(going.found.hops.len()).unwrap_or(u8::MAX);
        let sent = self.pass_question(Question { probe, destination, left }, out);
        if !sent {
            self.end_trace(at, Some("no route leads there now".into()), out);
        }
    }

    /// Sends a question to the next router on its way.
    fn pass_question(&self, question: Question, out: &mut Outbox) -> bool {
        let next = self.toward(question.destination).and_then(|hop| Some((hop, self.adjacencies.get(&hop)?.address)));
        next.is_some_and(|(hop, address)| self.send_direct(hop, address, &[Record::Trace(question)], out))
    }

    /// A question on its way.
    pub(super) fn on_trace(&mut self, now: Time, peer: PeerName, from: Address, question: Question, out: &mut Outbox) {
        if self.adjacencies.get(&peer).is_none_or(|adjacency| adjacency.address != from) {
            return self.counters.records_ignored.inc();
        }
        let next = self.toward(question.destination).filter(|hop| *hop != peer);
        let end = match next {
            _ if question.destination == self.own => ARRIVED,
            _ if !self.config.forwarding => FORBIDDEN,
            None => NO_ROUTE,
            Some(_) => GOES_ON,
        };
        if question.left == 0 || end != GOES_ON {
            let next = next.filter(|_| end == GOES_ON).unwrap_or(PeerName::NONE);
            let answer = Answer { probe: question.probe, router: self.own, next, end };
            self.send_direct(peer, from, &[Record::Traced(answer)], out);
            return;
        }
        self.ways.traces.passed.retain(|_, (_, at)| now.since(*at) < REMEMBER);
        let of_this = self.ways.traces.passed.values().filter(|(asked, _)| *asked == peer).count();
        if of_this >= MOST_PASSED_EACH || self.ways.traces.passed.len() >= MOST_PASSED {
            return self.counters.records_ignored.inc();
        }
        self.ways.traces.passed.insert(question.probe, (peer, now));
        self.pass_question(Question { left: question.left - 1, ..question }, out);
    }

    /// An answer: to a question of ours, or to be handed back.
    pub(super) fn on_traced(&mut self, now: Time, peer: PeerName, answer: Answer, out: &mut Outbox) {
        if let Some((asked, _)) = self.ways.traces.passed.remove(&answer.probe) {
            if let Some(address) = self.adjacencies.get(&asked).map(|adjacency| adjacency.address).filter(|_| asked != peer) {
                self.send_direct(asked, address, &[Record::Traced(answer)], out);
            }
            return;
        }
        let Some(at) = self.ways.traces.going.iter().position(|going| going.probe == answer.probe) else {
            return self.counters.records_ignored.inc();
        };
        let nickname = self.nickname(answer.router);
        let Some(going) = self.ways.traces.going.get_mut(at) else { return };
        let rtt_ms = now.since(going.sent).as_secs_f64() * 1e3;
        going.found.hops.push(Hop { router: answer.router, nickname, rtt_ms });
        (going.tries, going.next) = (0, answer.next);
        let hops = going.found.hops.len();
        match answer.end {
            ARRIVED => self.end_trace(at, None, out),
            NO_ROUTE => self.end_trace(at, Some("the last of them knows no route there".into()), out),
            FORBIDDEN => self.end_trace(at, Some("the last of them passes nothing on (--allow-forwarding=no)".into()), out),
            _ if hops >= usize::from(HOP_LIMIT) => self.end_trace(at, Some(format!("frames go no further than {HOP_LIMIT} hops")), out),
            _ => self.ask_on(now, at, out),
        }
    }

    /// Asks again what was not answered in time.
    pub(super) fn tick_traces(&mut self, now: Time, out: &mut Outbox) {
        while let Some(at) = self.ways.traces.going.iter().position(|going| now.since(going.sent) >= PATIENCE) {
            let Some(going) = self.ways.traces.going.get(at) else { return };
            if going.tries < TRIES {
                self.ask_on(now, at, out);
                continue;
            }
            let (next, nickname) = (going.next, self.nickname(going.next));
            let error = format!("{next} ({nickname}) did not answer: it is out of reach, or of a version that does not know of traces");
            self.end_trace(at, Some(error), out);
        }
    }

    fn end_trace(&mut self, at: usize, error: Option<String>, out: &mut Outbox) {
        if at < self.ways.traces.going.len() {
            let Going { ticket, found, .. } = self.ways.traces.going.swap_remove(at);
            out.events.push(Event::Traced { ticket, trace: Ok(Trace { error, ..found }) });
        }
    }
}
