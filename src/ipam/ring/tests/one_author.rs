//! A member gone bad, that puts into the ring whatever is valid.

use super::*;

/// An owner that was given all of the founder's first share, and says more than an honest router would: votes on routers that nobody knows.
fn votes(mesh: EntryId, liar: &PublicKey, numbers: std::ops::Range<usize>) -> Vec<Entry> {
    let vote = |n: usize| {
        let dead = PeerName([2, 7, 7, 7, (n >> 8) as u8, n as u8]);
        Entry::build(mesh, liar, &Body::Vote { dead, round: 1, taker: *liar, owners: 1 }, |_| [0; 64]).expect("an entry")
    };
    numbers.map(vote).collect()
}

/// Puts in what is right, whoever signed it.
fn put(ring: &mut Ring, entries: Vec<Entry>) -> usize {
    entries.into_iter().filter(|entry| ring.insert(entry.clone(), |_| true) == Ok(Outcome::Added)).count()
}

/// Tells a ring what it lacks of another until that has nothing more to say, as routers do.
fn catch_up(to: &mut Ring, from: &Ring) {
    let mut early: Vec<Entry> = Vec::new();
    for turn in 0..4000usize {
        if to.buckets() == from.buckets() {
            return;
        }
        early.extend(from.lacking(to.buckets(), turn.wrapping_mul(0x9e37_79b9), 80).into_iter().cloned());
        let (mut waiting, mut progress) = (std::mem::take(&mut early), true);
        while std::mem::take(&mut progress) {
            let needed = waiting.clone();
            waiting.retain(|entry| {
                let wanted = needed.iter().any(|early| rests_on(early, entry));
                let done = if wanted { to.insert_beyond(entry.clone(), |_| true) } else { to.insert(entry.clone(), |_| true) };
                progress |= done == Ok(Outcome::Added);
                done == Ok(Outcome::Waiting)
            });
        }
        waiting.dedup_by_key(|entry| entry.id());
        early = waiting;
    }
    panic!("they never come into step");
}

#[test]
fn one_author_has_its_share_of_the_ring_and_the_others_have_the_rest() {
    let (mut ring, r) = founded();
    let liar = r[0].public().key;
    let mesh = ring.mesh();
    assert_eq!(put(&mut ring, votes(mesh, &liar, 0..MOST_OF_ONE - 1)), MOST_OF_ONE - 1);
    assert_eq!((ring.full().count(), ring.entries_of(&liar)), (0, MOST_OF_ONE - 1));
    let version = ring.version();
    assert_eq!(put(&mut ring, votes(mesh, &liar, 8000..8002)), 1);
    assert_eq!(ring.full().collect::<Vec<_>>(), [r[0].name()]);
    assert!(ring.version() > version, "whoever gives what it gave hears of it");
    for late in votes(mesh, &liar, 9000..9003) {
        assert_eq!(ring.insert(late, |_| true), Err(Refused::Budget));
    }
    let body = grant(&ring, &r[1], &r[3]);
    add(&mut ring, &r[1], &body);
    assert_eq!(ring.len(), MOST_OF_ONE + 2);
}

#[test]
fn rings_that_took_in_different_entries_of_a_liar_come_into_step() {
    let (mut one, r) = founded();
    let (mut other, mut newcomer) = (again(&one), again(&one));
    let (mesh, liar) = (one.mesh(), r[0].public().key);
    put(&mut one, votes(mesh, &liar, 0..MOST_OF_ONE));
    put(&mut other, votes(mesh, &liar, 1000..MOST_OF_ONE + 1000));
    assert_eq!((one.sum(), one.buckets()), (other.sum(), other.buckets()), "both have as many as they take");
    let body = grant(&one, &r[1], &r[3]);
    add(&mut one, &r[1], &body);
    catch_up(&mut other, &one);
    assert_eq!(one.sum(), other.sum());
    assert_eq!(newcomer.full().count(), 0);
    catch_up(&mut newcomer, &one);
    assert_eq!((newcomer.sum(), newcomer.full().count()), (one.sum(), 1), "and it is told who lies");
}

#[test]
fn what_rests_on_the_last_words_of_a_liar_is_taken_in_by_all() {
    let (mut one, r) = founded();
    let mut other = again(&one);
    let (mesh, liar) = (one.mesh(), r[0].public().key);
    // Here it gives something to an honest router, which gives of it to another; there it says other things until it is full.
    let body = grant(&one, &r[0], &r[3]);
    let root = add(&mut one, &r[0], &body);
    let (range, parent) = owned(&one, &r[3])[0];
    assert_eq!(parent, root);
    let half = Range { first: range.first, last: range.first };
    let rests = add(&mut one, &r[3], &Body::Grant { parent, range: half, owner: r[2].public().key });
    put(&mut one, votes(mesh, &liar, 0..MOST_OF_ONE));
    put(&mut other, votes(mesh, &liar, 1000..MOST_OF_ONE + 1000));
    assert!(other.get(&root).is_none());
    assert_ne!(one.sum(), other.sum());
    catch_up(&mut other, &one);
    assert!(other.get(&rests).is_some() && other.get(&root).is_some());
    assert_eq!((one.sum(), one.leaves().at(range.first)), (other.sum(), other.leaves().at(range.first)));
}

#[test]
fn those_who_own_nothing_have_one_share_together_until_they_own_something() {
    let (mut one, r) = founded();
    let mut other = again(&one);
    let mesh = one.mesh();
    let stranger = |n: usize| PublicKey(std::array::from_fn(|at| if at < 2 { (n >> (8 * at)) as u8 } else { 9 }));
    let removals = |numbers: std::ops::Range<usize>| {
        let forced = Body::Removal { dead: r[1].name(), round: 1, forced: true, votes: vec![] };
        numbers.map(|n| Entry::build(mesh, &stranger(n), &forced, |_| [0; 64]).expect("an entry")).collect::<Vec<Entry>>()
    };
    assert_eq!(put(&mut one, removals(0..MOST_OF_STRANGERS + 50)), MOST_OF_STRANGERS);
    assert_eq!(put(&mut other, removals(30..MOST_OF_STRANGERS + 90)), MOST_OF_STRANGERS);
    assert_eq!(one.sum(), other.sum());
    assert_eq!(one.full().count(), 0, "nobody of them is named: one name is as good as another");
    // One of them is given something: what it said counts for itself from now on, and there is room for another.
    let (range, parent) = owned(&one, &r[0])[0];
    let given = Body::Grant { parent, range: Range { first: range.first, last: range.first }, owner: stranger(7) };
    add(&mut one, &r[0], &given);
    assert_eq!(put(&mut one, removals(2000..2002)), 1);
    catch_up(&mut other, &one);
    assert_eq!(one.sum(), other.sum());
    assert!(other.entries_of(&stranger(7)) == 1, "also where it had not been taken in");
}
