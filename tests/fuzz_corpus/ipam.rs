//! Seeds of the address book: its messages, and scripts of hostile and honest routers.

use weave_router::crypto::PublicKey;
use weave_router::ipam::fuzz::{Step, identity};
use weave_router::wire::PeerName;
use weave_router::wire::ipam::message::{BUCKETS, Ballot, Denial};
use weave_router::wire::ipam::{Body, Digest, Entry, EntryId, Message, Range};

const RANGE: Range = Range { first: 0xffff_0a20_0000, last: 0xffff_0a20_00ff };

fn key(n: u8) -> PublicKey {
    identity(n).public().key
}

/// The genesis of the router under test.
fn genesis() -> Entry {
    Entry::of_seeds(vec![RANGE], vec![key(1).name(), key(2).name()]).expect("a genesis")
}

fn step(what: Step, who: u8, bytes: &[u8]) -> Vec<u8> {
    [&[what as u8, who][..], &(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// What `Step::Signed` takes: kind and body.
fn signed(author: u8, body: &Body) -> Vec<u8> {
    let entry = Entry::build(genesis().mesh, &key(author), body, |_| [0; 64]).expect("an entry");
    let signed = entry.signed();
    step(Step::Signed, author - 2, &[&signed[..1], &signed[49..]].concat())
}

fn digest(n: u8) -> Vec<u8> {
    let (mesh, ranges) = (genesis().mesh, vec![(RANGE, 7)]);
    Digest { observer: false, on_hold: false, key: key(n), mesh, sum: 1, entries: 1, ranges, newest: vec![genesis()] }.to_bytes()
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let mesh = genesis().mesh;
    let ballot = Ballot { round: 3, proposer: PeerName([2; 6]), nonce: [9; 24] };
    let all = [
        ("buckets", Message::Buckets { answer: true, on_hold: false, sums: Box::new([7; BUCKETS]) }),
        ("entries", Message::Entries(vec![genesis()])),
        ("request", Message::Ask { request: 1, range: RANGE, exact: false }),
        ("denial", Message::Deny { request: 1, reason: Denial::Full }),
        ("prepare", Message::Prepare { ballot, size: 3 }),
        ("promise", Message::Promise { ballot, size: 3, accepted: Some((ballot, genesis())) }),
        ("fence", Message::Fence { removal: EntryId([1; 16]) }),
        ("owned", Message::Owned(vec![RANGE])),
        ("holding", Message::Holding(vec![1, 2])),
    ];
    all.into_iter().map(|(name, message)| (name, message.to_bytes(mesh))).collect()
}

/// All of them.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let part = |first: u128, last: u128| Range { first: RANGE.first + first, last: RANGE.first + last };
    // Which of the two founders has the lower half depends on their names.
    let (low, high) = (part(0, 127), part(128, 255));
    let own = if key(2).name() < key(1).name() { low } else { high };
    let grant = |range: Range| signed(2, &Body::Grant { parent: genesis().id(), range, owner: key(3) });
    let half = |from: u128| Range { first: own.first + from, last: own.first + from + 40 };
    let told: Vec<u8> = messages().iter().flat_map(|(_, message)| step(Step::Told, 0, message)).collect();
    let come: Vec<u8> = (0..4).flat_map(|n| [step(Step::Peer, n, &[]), step(Step::Published, n, &digest(n + 2))].concat()).collect();
    let wait = |n: usize| step(Step::Wait, 0, &vec![0; n]);
    let want: Vec<u8> = (0..20).flat_map(|n| step(Step::Allocate, 0, &vec![0; n])).collect();
    let vote = |author: u8| signed(author, &Body::Vote { dead: key(1).name(), round: 1, taker: key(2), owners: 2 });
    let named = |author: u8, body: &Body| Entry::build(genesis().mesh, &key(author), body, |_| [0; 64]).expect("an entry").id();
    let voted = Body::Vote { dead: key(1).name(), round: 1, taker: key(2), owners: 2 };
    let tally = signed(2, &Body::Tally { dead: key(1).name(), round: 1, votes: vec![named(2, &voted)] });
    let mut seeds = messages();
    seeds.extend([
        ("digest", digest(2)),
        ("script-told", [come.clone(), told, wait(20)].concat()),
        ("script-granted", [come.clone(), grant(half(0)), grant(half(60)), want.clone(), wait(30)].concat()),
        ("script-given-twice", [come.clone(), grant(half(0)), grant(half(20)), want.clone(), wait(30)].concat()),
        ("script-reserved", [step(Step::Reserve, 0, &[1, 2, 3, 200, 255]), come.clone(), want.clone(), wait(30)].concat()),
        ("script-tallied", [come.clone(), vote(2), tally, wait(10)].concat()),
        ("script-voted-out", [come.clone(), vote(2), vote(3), wait(10)].concat()),
        ("script-removes", [come, step(Step::Peer, 0, &[0]), step(Step::Remove, 0, &[]), wait(30), step(Step::Remove, 0, &[0])].concat()),
    ]);
    seeds
}
