use proptest::prelude::*;

use super::message::{BUCKETS, Ballot, Denial};
use super::*;

const KEY: PublicKey = PublicKey([0x11; 32]);
const MESH: EntryId = EntryId([0x22; 16]);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn range() -> Range {
    Range { first: number([10, 32, 0, 0].into()), last: number([10, 32, 0, 7].into()) }
}

fn entry(body: &Body) -> Entry {
    Entry::build(MESH, &KEY, body, |_| [0x5a; 64]).expect("an entry")
}

/// One of each kind.
fn bodies() -> Vec<Body> {
    let id = |n: u8| EntryId([n; 16]);
    vec![
        Body::Genesis { nonce: [1; 16], ranges: vec![range()], founders: Founders::Keys(vec![KEY]) },
        Body::Grant { parent: id(3), range: range(), owner: KEY },
        Body::Vote { dead: PeerName([2; 6]), round: 1, taker: KEY, owners: 5 },
        Body::Removal { dead: PeerName([2; 6]), round: 1, forced: false, votes: vec![id(1), id(2)] },
        Body::Taken { removal: id(4), parent: id(5), range: range() },
        Body::Done { removal: id(4), taken: 7 },
        Body::Tally { dead: PeerName([2; 6]), round: 1, votes: vec![id(1), id(2)] },
    ]
}

#[test]
fn golden_entries() {
    let run = "00000000000000000000ffff0a20000000000000000000000000ffff0a200007";
    let key = "11".repeat(32);
    let goldens = [
        format!("01{}{key}01{}01{run}01{key}", "00".repeat(16), "01".repeat(16)),
        format!("02{}{key}{}{run}{key}", "22".repeat(16), "03".repeat(16)),
        format!("03{}{key}{}00000001{key}0005", "22".repeat(16), "02".repeat(6)),
        format!("04{}{key}{}000000010002{}{}", "22".repeat(16), "02".repeat(6), "01".repeat(16), "02".repeat(16)),
        format!("05{}{key}{}{}{run}", "22".repeat(16), "04".repeat(16), "05".repeat(16)),
        format!("06{}{key}{}{}", "22".repeat(16), "04".repeat(16), "00000000000000000000000000000007"),
        format!("07{}{key}{}0000000102{}{}", "22".repeat(16), "02".repeat(6), "01".repeat(16), "02".repeat(16)),
    ];
    for (body, golden) in bodies().iter().zip(goldens) {
        let entry = entry(body);
        assert_eq!(hex(entry.bytes()), format!("{golden}{}", "5a".repeat(64)));
        assert_eq!(Entry::parse(entry.bytes()).as_ref(), Ok(&entry));
        for len in 0..entry.bytes().len() {
            assert!(Entry::parse(&entry.bytes()[..len]).is_err(), "{len}");
        }
    }
}

#[test]
fn names_do_not_depend_on_the_signature() {
    let body = &bodies()[1];
    let other = Entry::build(MESH, &KEY, body, |_| [1; 64]).expect("an entry");
    assert_eq!(entry(body).id(), other.id());
    assert_ne!(entry(body).id(), entry(&bodies()[2]).id());
}

#[test]
fn the_genesis_of_seeds_is_the_same_everywhere() {
    let names = |list: &[u8]| list.iter().map(|n| PeerName([*n; 6])).collect::<Vec<_>>();
    let of = |list: &[u8]| Entry::of_seeds(vec![range()], names(list)).expect("an entry");
    assert_eq!(of(&[1, 2]).mesh, of(&[2, 1, 2]).mesh);
    assert_ne!(of(&[1, 2]).mesh, of(&[1, 3]).mesh);
    // Nobody signs it, and nobody can sign another in its place.
    let Body::Genesis { ranges, founders, .. } = of(&[1, 2]).body else { panic!("a genesis") };
    let body = Body::Genesis { nonce: [0; 16], ranges, founders };
    assert!(Entry::build(MESH, &KEY, &body, |_| [1; 64]).is_err());
}

#[test]
fn what_cannot_be_is_refused() {
    let of = |body: &Body| Entry::build(MESH, &KEY, body, |_| [0; 64]);
    let backwards = Range { first: 2, last: 1 };
    let key = |n: u8| PublicKey([n; 32]);
    let genesis = |ranges: Vec<Range>, keys: Vec<PublicKey>| Body::Genesis { nonce: [1; 16], ranges, founders: Founders::Keys(keys) };
    for body in [
        Body::Grant { parent: MESH, range: backwards, owner: KEY },
        genesis(vec![], vec![KEY]),
        genesis(vec![range(), range()], vec![KEY]),
        genesis(vec![range()], vec![]),
        genesis(vec![range()], vec![key(2), key(1)]),
        genesis(vec![range()], (0..=24).map(key).collect()),
        Body::Removal { dead: PeerName([2; 6]), round: 1, forced: true, votes: vec![MESH] },
        Body::Removal { dead: PeerName([2; 6]), round: 1, forced: false, votes: vec![] },
    ] {
        assert!(of(&body).is_err(), "{body:?}");
    }
    assert!(Entry::build(EntryId::NONE, &KEY, &bodies()[1], |_| [0; 64]).is_err(), "an entry has a mesh");
    let largest = genesis(vec![range(), Range { first: u128::MAX - 1, last: u128::MAX }], (0..24).map(key).collect());
    assert_eq!(of(&largest).map(|entry| entry.bytes().len()), Ok(MAX_ENTRY));
}

/// One of each kind.
fn messages() -> Vec<Message> {
    let ballot = Ballot { round: 3, proposer: PeerName([2; 6]), nonce: [9; 24] };
    let genesis = entry(&bodies()[0]);
    vec![
        Message::Buckets { answer: true, on_hold: false, sums: Box::new([7; BUCKETS]) },
        Message::Entries(bodies().iter().map(entry).take(3).collect()),
        Message::Ask { request: 1, range: range(), exact: true },
        Message::Deny { request: 1, reason: Denial::InUse },
        Message::Prepare { ballot, size: 3 },
        Message::Promise { ballot, size: 3, accepted: None },
        Message::Promise { ballot, size: 3, accepted: Some((ballot, genesis.clone())) },
        Message::Accept { ballot, genesis },
        Message::Accepted { ballot },
        Message::Refuse { ballot, promised: ballot },
        Message::Need,
        Message::Remove { dead: PeerName([3; 6]), round: 2 },
        Message::Fence { removal: MESH },
        Message::Fenced { removal: MESH, sum: 5 },
        Message::Owned(vec![range()]),
        Message::Holding(vec![1, 2]),
        Message::Alive { dead: PeerName([3; 6]) },
    ]
}

#[test]
fn messages_round_trip() {
    for message in messages() {
        let bytes = message.to_bytes(MESH);
        assert!(bytes.len() <= message::MAX_MESSAGE, "{message:?}");
        assert_eq!(Message::parse(&bytes), Ok((MESH, message)));
        assert!(Message::parse(&[bytes, vec![0]].concat()).is_err());
    }
    assert_eq!(
        hex(&Message::Ask { request: 1, range: range(), exact: true }.to_bytes(MESH))[..50],
        format!("03{}0000000000000001", "22".repeat(16))
    );
}

#[test]
fn digests_round_trip() {
    let newest = vec![entry(&bodies()[1]), entry(&bodies()[3])];
    let digest = Digest { observer: true, on_hold: false, key: KEY, mesh: MESH, sum: 9, entries: 3, ranges: vec![(range(), 4)], newest };
    let bytes = digest.to_bytes();
    assert_eq!(Digest::parse(&bytes), Ok(digest));
    assert_eq!(hex(&bytes[..50]), format!("0101{}{}", "11".repeat(32), "22".repeat(16)));
    assert!(Digest::parse(&bytes[..bytes.len() - 1]).is_err());
    assert_eq!(Digest::parse(&[&[2], &bytes[1..]].concat()), Err(BadIpam::Kind));
}

proptest! {
    #[test]
    fn what_parses_is_written_back_the_same(kind in 0u8..18, bytes in proptest::collection::vec(0u8..4, 0..120)) {
        let message = [vec![kind], vec![0x22; 16], bytes].concat();
        if let Ok((mesh, parsed)) = Message::parse(&message) {
            prop_assert_eq!(parsed.to_bytes(mesh), message);
        }
    }

    #[test]
    fn changed_messages_are_refused_or_written_back_the_same(which in 0usize..17, at in 0usize..1100, to: u8) {
        let mut bytes = messages()[which].to_bytes(MESH);
        let len = bytes.len();
        bytes[at % len] = to;
        if let Ok((mesh, parsed)) = Message::parse(&bytes) {
            prop_assert_eq!(parsed.to_bytes(mesh), bytes);
        }
    }
}
