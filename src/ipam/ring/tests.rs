use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::crypto::{Identity, Signatures, SimulatedSignatures};

mod one_author;

const DOMAIN: &str = "test";
/// What there is to give.
const ALL: Range = Range { first: 0x100, last: 0x1ff };

fn router(n: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed(&[n; 32]))
}

fn sign(mesh: EntryId, author: &Identity, body: &Body) -> Entry {
    Entry::build(mesh, &author.public().key, body, |bytes| SimulatedSignatures.sign(author, DOMAIN, bytes)).expect("an entry")
}

fn verify(entry: &Entry) -> bool {
    SimulatedSignatures.verify(&entry.author, DOMAIN, entry.signed(), entry.signature())
}

/// A ring founded by routers 1, 2 and 3.
fn founded() -> (Ring, Vec<Arc<Identity>>) {
    let routers: Vec<_> = (1..=4).map(router).collect();
    let mut keys: Vec<PublicKey> = routers[..3].iter().map(|router| router.public().key).collect();
    keys.sort_unstable();
    let body = Body::Genesis { nonce: [7; 16], ranges: vec![ALL], founders: Founders::Keys(keys) };
    let genesis = sign(EntryId::NONE, &routers[0], &body);
    (Ring::new(genesis).expect("a ring"), routers)
}

fn again(ring: &Ring) -> Ring {
    Ring::new(ring.genesis().clone()).expect("a ring")
}

fn add(ring: &mut Ring, author: &Identity, body: &Body) -> EntryId {
    let entry = sign(ring.mesh(), author, body);
    assert_eq!(ring.insert(entry.clone(), verify), Ok(Outcome::Added), "{entry:?}");
    entry.id()
}

fn owned(ring: &Ring, router: &Identity) -> Vec<(Range, EntryId)> {
    ring.leaves().iter().filter(|(_, leaf)| leaf.owner.name() == router.name()).map(|(range, leaf)| (range, leaf.node)).collect()
}

fn grant(ring: &Ring, from: &Identity, to: &Identity) -> Body {
    let (range, parent) = owned(ring, from)[0];
    let half = Range { first: range.first, last: range.first + (range.last - range.first) / 2 };
    Body::Grant { parent, range: half, owner: to.public().key }
}

/// Entries of all kinds: grants, a removal with votes, what was taken, and a grant that came too late.
fn history() -> (Ring, Vec<Entry>) {
    let (mut ring, r) = founded();
    for (from, to) in [(0, 3), (1, 3), (0, 1), (2, 0), (3, 2)] {
        let body = grant(&ring, &r[from], &r[to]);
        add(&mut ring, &r[from], &body);
    }
    // The dead gave something that nobody but the receiver hears of in time.
    let late = sign(ring.mesh(), &r[1], &grant(&ring, &r[1], &r[3]));
    let dead = r[1].name();
    let vote = Body::Vote { dead, round: 1, taker: r[0].public().key, owners: 4 };
    let mut votes: Vec<EntryId> = [0, 2, 3].map(|voter: usize| add(&mut ring, &r[voter], &vote)).to_vec();
    votes.sort_unstable();
    let removal = add(&mut ring, &r[0], &Body::Removal { dead, round: 1, forced: false, votes });
    let mut taken = 0u128;
    for (range, parent) in owned(&ring, &r[1]) {
        taken = taken.wrapping_add(add(&mut ring, &r[0], &Body::Taken { removal, parent, range }).to_u128());
    }
    add(&mut ring, &r[0], &Body::Done { removal, taken });
    let body = grant(&ring, &r[0], &r[2]);
    add(&mut ring, &r[0], &body);
    assert_eq!(ring.insert(late, verify), Ok(Outcome::Added));
    let entries = ring.iter().skip(1).cloned().collect();
    (ring, entries)
}

/// Puts entries in, those that came early again and again, and says what the ring is then.
fn merged(ring: &Ring, entries: &[Entry]) -> (u128, Leaves) {
    let (mut merged, mut left) = (again(ring), entries.to_vec());
    loop {
        let before = left.len();
        left.retain(|entry| merged.insert(entry.clone(), verify) == Ok(Outcome::Waiting));
        if left.len() == before {
            return (merged.sum(), merged.leaves().clone());
        }
    }
}

#[test]
fn a_range_is_divided_in_aligned_blocks() {
    let owners: Vec<Owner> = (1..=3).map(|n| Owner::of_name(PeerName([n; 6]))).collect();
    let shares = divide(ALL, &owners);
    let parts: Vec<(u128, u128)> = shares.iter().map(|(range, _)| (range.first, range.last)).collect();
    assert_eq!(parts, [(0x100, 0x13f), (0x140, 0x17f), (0x180, 0x1ff)]);
    let few = divide(Range { first: 4, last: 5 }, &owners);
    assert_eq!(few.len(), 2, "where there are more founders than addresses, some get none");
}

#[test]
fn the_whole_range_has_an_owner_at_every_step() {
    let (ring, entries) = history();
    let mut growing = again(&ring);
    for entry in entries {
        growing.insert(entry, verify).expect("a good entry");
        let mut next = ALL.first;
        for (run, leaf) in growing.leaves().iter() {
            assert_eq!(run.first, next);
            assert!(!leaf.disputed);
            next = run.last + 1;
        }
        assert_eq!(next, ALL.last + 1);
    }
    assert_eq!((growing.sum(), growing.leaves()), (ring.sum(), ring.leaves()));
    let (_, r) = founded();
    assert!(owned(&ring, &r[1]).is_empty(), "the dead owns nothing");
    assert_eq!(ring.pending(r[1].name()), None);
}

#[test]
fn what_was_taken_wins_over_a_grant_that_came_late() {
    let (mut ring, r) = founded();
    let late = sign(ring.mesh(), &r[1], &grant(&ring, &r[1], &r[3]));
    let removal = add(&mut ring, &r[0], &Body::Removal { dead: r[1].name(), round: 1, forced: true, votes: vec![] });
    assert_eq!(ring.pending(r[1].name()), Some((removal, r[0].public().key)));
    let (range, parent) = owned(&ring, &r[1])[0];
    let taken = add(&mut ring, &r[0], &Body::Taken { removal, parent, range });
    assert!(ring.pending(r[1].name()).is_some(), "not done before it is said");
    add(&mut ring, &r[0], &Body::Done { removal, taken: taken.to_u128() });
    assert_eq!(ring.pending(r[1].name()), None);
    let before = ring.knowledge_of(r[1].name());
    assert_eq!(ring.insert(late, verify), Ok(Outcome::Added));
    assert_ne!(ring.knowledge_of(r[1].name()), before, "who knows it knows more");
    assert!(owned(&ring, &r[3]).is_empty());
}

#[test]
fn done_waits_for_all_that_was_taken() {
    let (mut ring, r) = founded();
    let removal = add(&mut ring, &r[0], &Body::Removal { dead: r[1].name(), round: 1, forced: true, votes: vec![] });
    let (range, parent) = owned(&ring, &r[1])[0];
    let taken = sign(ring.mesh(), &r[0], &Body::Taken { removal, parent, range });
    let done = sign(ring.mesh(), &r[0], &Body::Done { removal, taken: taken.id().to_u128() });
    assert_eq!(ring.insert(done.clone(), verify), Ok(Outcome::Waiting));
    assert_eq!(ring.insert(taken, verify), Ok(Outcome::Added));
    assert_eq!(ring.insert(done, verify), Ok(Outcome::Added));
}

#[test]
fn what_is_given_twice_is_disputed_whatever_comes_first() {
    let (ring, r) = founded();
    let (range, parent) = owned(&ring, &r[0])[0];
    let part = |first: u128, last: u128, to: usize| {
        let range = Range { first: range.first + first, last: range.first + last };
        sign(ring.mesh(), &r[0], &Body::Grant { parent, range, owner: r[to].public().key })
    };
    let (one, other) = (part(0, 20, 1), part(10, 30, 2));
    let both = merged(&ring, &[one.clone(), other.clone()]);
    assert_eq!(both, merged(&ring, &[other, one]));
    let disputed: Vec<Range> = both.1.iter().filter(|(_, leaf)| leaf.disputed).map(|(range, _)| range).collect();
    assert_eq!(disputed, [Range { first: range.first + 10, last: range.first + 20 }]);
}

#[test]
fn hostile_entries_change_nothing() {
    let (mut ring, r) = founded();
    let (range, parent) = owned(&ring, &r[0])[0];
    let (theirs, _) = owned(&ring, &r[1])[0];
    let to = r[3].public().key;
    let good = Body::Grant { parent, range, owner: to };
    let forged = Entry::build(ring.mesh(), &r[0].public().key, &good, |_| [9; 64]).expect("an entry");
    let foreign = sign(EntryId([5; 16]), &r[0], &good);
    let of_another = sign(ring.mesh(), &r[1], &good);
    let too_much = sign(ring.mesh(), &r[0], &Body::Grant { parent, range: theirs, owner: to });
    let across = sign(ring.mesh(), &r[0], &Body::Grant { parent, range: ALL, owner: to });
    let genesis = again(&ring).genesis().clone();
    let other_genesis = Ring::new(sign(EntryId::NONE, &r[1], &genesis.body)).map(|ring| ring.genesis().clone()).expect("a ring");
    let before = (ring.sum(), ring.leaves().clone());
    for (entry, why) in [
        (forged, Refused::Signature),
        (foreign, Refused::Mesh),
        (of_another, Refused::Author),
        (too_much, Refused::Author),
        (across, Refused::Range),
        (other_genesis, Refused::Mesh),
    ] {
        assert_eq!(ring.insert(entry, verify), Err(why));
    }
    assert_eq!(ring.insert(genesis, verify), Ok(Outcome::Known));
    assert_eq!((ring.sum(), ring.leaves().clone()), before);
    assert!(Ring::new(sign(EntryId::NONE, &r[3], &ring.genesis().body)).is_none(), "who founds a mesh is a founder");
}

#[test]
fn votes_of_fewer_than_half_carry_nothing() {
    let (mut ring, r) = founded();
    let dead = r[2].name();
    let vote = |ring: &mut Ring, voter: usize, taker: usize| {
        let body = Body::Vote { dead, round: 1, taker: r[taker].public().key, owners: 3 };
        add(ring, &r[voter], &body)
    };
    let removal = |author: usize, mut votes: Vec<EntryId>| {
        votes.sort_unstable();
        sign(again(&founded().0).mesh(), &r[author], &Body::Removal { dead, round: 1, forced: false, votes })
    };
    let (one, other) = (vote(&mut ring, 0, 0), vote(&mut ring, 1, 0));
    let own = vote(&mut ring, 2, 0);
    assert_eq!(ring.insert(removal(0, vec![one]), verify), Err(Refused::Votes), "one of three");
    assert_eq!(ring.insert(removal(0, vec![one, own]), verify), Err(Refused::Votes), "the dead does not count");
    assert_eq!(ring.insert(removal(1, vec![one, other]), verify), Err(Refused::Votes), "the votes are for another");
    assert_eq!(ring.insert(removal(0, vec![one, EntryId([8; 16])]), verify), Ok(Outcome::Waiting));
    assert_eq!(ring.insert(removal(0, vec![one, other]), verify), Ok(Outcome::Added));
    let stranger = Body::Vote { dead, round: 1, taker: r[0].public().key, owners: 3 };
    assert_eq!(ring.insert(sign(ring.mesh(), &r[3], &stranger), verify), Ok(Outcome::Waiting), "who owns nothing has no vote");
    let body = Body::Taken { removal: removal(0, vec![one, other]).id(), parent: ring.mesh(), range: owned(&ring, &r[2])[0].0 };
    assert_eq!(ring.insert(sign(ring.mesh(), &r[1], &body), verify), Err(Refused::Author), "who takes is who was voted for");
}

#[test]
fn rounds_follow_one_another() {
    let (mut ring, r) = founded();
    let dead = r[2].name();
    let vote = |voter: usize, taker: usize, round: u32| {
        let body = Body::Vote { dead, round, taker: r[taker].public().key, owners: 3 };
        sign(again(&founded().0).mesh(), &r[voter], &body)
    };
    let forced = |round: u32| sign(again(&founded().0).mesh(), &r[0], &Body::Removal { dead, round, forced: true, votes: vec![] });
    assert_eq!(ring.insert(vote(0, 0, 0), verify), Err(Refused::Votes));
    for far_off in [vote(0, 0, 2), vote(0, 0, u32::MAX), forced(2), forced(u32::MAX)] {
        assert_eq!(ring.insert(far_off, verify), Ok(Outcome::Waiting));
    }
    assert_eq!(ring.insert(vote(0, 0, 1), verify), Ok(Outcome::Added));
    assert_eq!(ring.insert(vote(0, 0, 2), verify), Ok(Outcome::Waiting), "one router alone does not go on to the next round");
    assert_eq!(ring.insert(vote(1, 1, 1), verify), Ok(Outcome::Added));
    assert_eq!(ring.insert(vote(0, 0, 2), verify), Ok(Outcome::Added), "where the votes are split");
    assert_eq!(ring.last_vote(dead), 2);
    assert_eq!(ring.insert(forced(3), verify), Ok(Outcome::Added));
    assert_eq!(ring.insert(vote(1, 0, 4), verify), Ok(Outcome::Added), "or after a removal");
}

#[test]
fn a_removal_rests_on_more_votes_than_it_has_room_for() {
    let (mut ring, r) = founded();
    let many: Vec<Arc<Identity>> = (10..110).map(router).collect();
    let (range, parent) = owned(&ring, &r[0])[0];
    for (n, voter) in many.iter().enumerate().take(60) {
        let one = Range { first: range.first + n as u128, last: range.first + n as u128 };
        add(&mut ring, &r[0], &Body::Grant { parent, range: one, owner: voter.public().key });
    }
    let (dead, taker) = (r[1].name(), r[2].public().key);
    let vote = |ring: &mut Ring, voter: &Identity, taker: PublicKey| add(ring, voter, &Body::Vote { dead, round: 1, taker, owners: 100 });
    let mut votes: Vec<EntryId> = many[..51].iter().map(|voter| vote(&mut ring, voter, taker)).collect();
    votes.sort_unstable();
    let mesh = ring.mesh();
    let tally = |of: &[EntryId]| sign(mesh, &r[2], &Body::Tally { dead, round: 1, votes: of.to_vec() });
    let removal = |of: &[&Entry]| {
        let mut votes: Vec<EntryId> = of.iter().map(|tally| tally.id()).collect();
        votes.sort_unstable();
        sign(mesh, &r[2], &Body::Removal { dead, round: 1, forced: false, votes })
    };
    let (one, other, again) = (tally(&votes[..48]), tally(&votes[48..]), tally(&votes[47..]));
    assert_eq!(ring.insert(removal(&[&one, &other]), verify), Ok(Outcome::Waiting));
    for good in [&one, &other, &again] {
        assert_eq!(ring.insert(good.clone(), verify), Ok(Outcome::Added));
    }
    let nested = tally(&[one.id().min(other.id()), one.id().max(other.id())]);
    assert_eq!(ring.insert(nested.clone(), verify), Ok(Outcome::Added), "a tally of tallies");
    let foreign = vote(&mut ring, &many[55], r[0].public().key);
    for bad in [&removal(&[&one]), &removal(&[&one, &again]), &removal(&[&nested, &one]), &tally(&[nested.id()]), &tally(&[foreign])] {
        assert_eq!(ring.insert(bad.clone(), verify), Err(Refused::Votes), "too few, one twice, too deep, a vote for another");
    }
    for good in [removal(&[&one, &other]), removal(&[&nested])] {
        let stolen = sign(mesh, &r[0], &good.body);
        assert_eq!(ring.insert(stolen, verify), Err(Refused::Votes));
        assert_eq!(ring.insert(good, verify), Ok(Outcome::Added));
    }
}

#[test]
fn what_is_lacking_is_found() {
    let (ring, entries) = history();
    for missing in 0..entries.len() {
        let mut other = again(&ring);
        let known: Vec<Entry> = entries[..missing].to_vec();
        for entry in known {
            assert_eq!(other.insert(entry, verify), Ok(Outcome::Added));
        }
        let lacking: Vec<EntryId> = ring.lacking(other.buckets(), missing, 100).iter().map(|entry| entry.id()).collect();
        for entry in &entries[missing..] {
            assert!(lacking.contains(&entry.id()));
        }
    }
    assert!(ring.lacking(ring.buckets(), 0, 100).is_empty());
}

#[test]
fn whatever_is_lacking_has_its_turn() {
    let (mut ring, r) = founded();
    let (range, mut parent) = owned(&ring, &r[0])[0];
    for n in 0..1500 {
        let to = r[usize::from(n % 2 == 0)].public().key;
        parent = add(&mut ring, &r[usize::from(n % 2 == 1)], &Body::Grant { parent, range, owner: to });
    }
    // Of most buckets one entry is lacking, which is of no use without one of a bucket that lacks many.
    let lacks = |(n, ids): (usize, &Vec<EntryId>)| ids[if n % 4 == 0 { 2 } else { ids.len() - 1 }..].to_vec();
    let last: Vec<EntryId> = ring.in_bucket.iter().enumerate().flat_map(lacks).collect();
    let mut sums = *ring.buckets();
    last.iter().for_each(|id| sums[bucket(*id)] = sums[bucket(*id)].wrapping_sub(part(*id)));
    let mut sent: BTreeSet<EntryId> = BTreeSet::new();
    for turn in 0..400usize {
        let found = ring.lacking(&sums, turn.wrapping_mul(0x9e37_79b9), 80);
        assert!(found.len() <= 80);
        sent.extend(found.iter().map(|entry| entry.id()));
    }
    assert_eq!(last.iter().filter(|id| !sent.contains(id)).count(), 0, "of {}", last.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merging_is_a_union(split in proptest::collection::vec(0u8..4, 20), order in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle()) {
        let (ring, entries) = history();
        let part = |wanted: u8| entries.iter().zip(&split).filter(|(_, s)| **s & wanted != 0 || **s == 0).map(|(entry, _)| entry.clone()).collect::<Vec<_>>();
        let (a, b) = (part(1), part(2));
        let ab = [a.clone(), b.clone()].concat();
        let ba = [b.clone(), a.clone()].concat();
        let whole = merged(&ring, &entries);
        prop_assert_eq!(merged(&ring, &ab), merged(&ring, &ba));
        prop_assert_eq!(merged(&ring, &ab), whole.clone(), "every entry is in one of them");
        prop_assert_eq!(merged(&ring, &[ab.clone(), ab, a].concat()), whole.clone());
        let shuffled: Vec<Entry> = order.iter().filter_map(|at| entries.get(*at)).cloned().collect();
        if shuffled.len() == entries.len() {
            prop_assert_eq!(merged(&ring, &shuffled), whole);
        }
    }
}
