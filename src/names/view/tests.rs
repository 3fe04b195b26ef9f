use proptest::prelude::*;

use super::super::own::Own;
use super::*;

const OWN: PeerName = PeerName([2, 0, 0, 0, 0, 1]);

fn peer(n: u8) -> PeerName {
    PeerName([2, 0, 0, 0, 0, 10 + n])
}

fn domain() -> Domain {
    Domain::DEFAULT.parse().expect("a domain")
}

fn view() -> View {
    View::new(domain(), OWN, "here")
}

fn ip(last: u8) -> IpAddr {
    [10, 32, 0, last].into()
}

fn chunk(names: &[(&str, &[u8])]) -> Vec<u8> {
    let mut own = Own::new(domain());
    for (name, last) in names {
        let addresses: Vec<IpAddr> = last.iter().map(|last| ip(*last)).collect();
        own.add("0123456789abcdef", name, &addresses).expect("a name");
    }
    own.chunks().remove(0)
}

fn addresses(view: &View, name: &str) -> Vec<u8> {
    let last = |address: IpAddr| match address {
        IpAddr::V4(four) => four.octets()[3],
        IpAddr::V6(_) => panic!("only IPv4 in this test"),
    };
    match view.look_up(name) {
        Found::Addresses(all) => all.into_iter().map(last).collect(),
        Found::Nothing | Found::Unknown => Vec::new(),
    }
}

#[test]
fn names_of_routers_that_are_not_reached_are_not_answered() {
    let mut view = view();
    view.record(peer(1), 0, Some(&chunk(&[("web", &[1, 2])]))).expect("a chunk");
    assert_eq!(view.look_up("web"), Found::Unknown, "nobody said that its origin is reached");
    view.peer(peer(1), "one", true);
    assert_eq!(addresses(&view, "web"), [1, 2]);
    assert_eq!(view.names_of(ip(2)).collect::<Vec<_>>(), ["web.weave.local"]);
    let before = view.serial();
    view.peer(peer(1), "one", false);
    assert_eq!((view.look_up("web"), view.names_of(ip(2)).count(), view.entries()), (Found::Unknown, 0, 2));
    assert_ne!(view.serial(), before);
    assert!(view.rows().iter().all(|row| !row.answered && row.nickname == "one" && row.tag == "0123456789ab"));
    view.record(peer(1), 0, Some(&chunk(&[("web", &[3])]))).expect("a chunk");
    view.peer(peer(1), "one", true);
    assert_eq!(addresses(&view, "web"), [3], "it comes back with what it says now");
    view.forget(peer(1));
    assert_eq!((view.look_up("web"), view.entries(), view.rows().len()), (Found::Unknown, 0, 0));
}

#[test]
fn a_record_replaces_the_former_one() {
    let mut view = view();
    view.peer(peer(1), "one", true);
    view.record(peer(1), 0, Some(&chunk(&[("web", &[1]), ("db", &[2])]))).expect("a chunk");
    view.record(peer(1), 1, Some(&chunk(&[("web", &[4])]))).expect("a chunk");
    view.record(peer(1), 0, Some(&chunk(&[("web", &[3])]))).expect("a chunk");
    assert_eq!((addresses(&view, "web"), view.look_up("db")), (vec![3, 4], Found::Unknown));
    view.record(peer(1), 1, None).expect("withdrawn");
    assert_eq!(addresses(&view, "web"), [3]);
    let refused = view.record(peer(1), 0, Some(b"\x07"));
    assert_eq!(refused, Err(Unusable::Bad(peer(1), BadNames::Version(7))));
    assert_eq!(view.look_up("web"), Found::Unknown, "its origin no longer says so");
}

#[test]
fn several_holders_are_counted() {
    let mut view = view();
    for n in 1..=2 {
        view.peer(peer(n), "n", true);
        view.record(peer(n), 0, Some(&chunk(&[("web", &[1, n + 1])]))).expect("a chunk");
    }
    let mut own = Own::new(domain());
    own.add("weave:extern", "web", &[ip(9)]).expect("a name");
    view.set_own(own.bodies());
    assert_eq!(addresses(&view, "web"), [1, 2, 3, 9], "each address once");
    view.forget(peer(1));
    assert_eq!((addresses(&view, "web"), view.names_of(ip(1)).collect()), (vec![1, 3, 9], vec!["web.weave.local".to_string()]));
    own.remove("weave:extern", None, &[]).expect("there it is");
    view.set_own(own.bodies());
    assert_eq!(addresses(&view, "web"), [1, 3]);
}

#[test]
fn what_cannot_be_used_is_refused() {
    let mut view = view();
    view.peer(peer(1), "one", true);
    let mut elsewhere = Own::new("example.com".parse().expect("a domain"));
    elsewhere.add("c", "web", &[ip(1)]).expect("a name");
    let foreign = view.record(peer(1), 0, Some(&elsewhere.chunks()[0]));
    assert!(foreign.is_err_and(|error| error.to_string().contains("--dns-domain")));
    let one = chunk(&[("web", &[1])]);
    assert_eq!(view.record(peer(1), MAX_CHUNKS as u16, Some(&one)), Err(Unusable::Chunk(peer(1))));
    assert_eq!((view.look_up("web"), view.entries()), (Found::Unknown, 0));
    view.record(OWN, 0, Some(&one)).expect("an echo of our own is no news");
    assert_eq!(view.look_up("web"), Found::Unknown);
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let mut view = view();
    let many: Vec<u8> = (0..=239).collect();
    let one = chunk(&[("web", &many)]);
    let origins = MAX_ENTRIES / 240 / 32 + 1;
    let (mut taken, mut refused) = (0, 0);
    for origin in 0..origins {
        for part in 0..32 {
            let name = PeerName([2, 1, 0, 0, (origin >> 8) as u8, origin as u8]);
            match view.record(name, part, Some(&one)) {
                Ok(()) => taken += 1,
                Err(error) => {
                    assert_eq!(error, Unusable::NoRoom(name));
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((taken, view.entries()), (MAX_ENTRIES / 240, MAX_ENTRIES / 240 * 240));
    assert!(refused > 0);
}

#[test]
fn names_above_others_exist() {
    let mut view = view();
    view.peer(peer(1), "one", true);
    view.record(peer(1), 0, Some(&chunk(&[("a.b.c.weave.local", &[1]), ("x.c.weave.local", &[2])]))).expect("a chunk");
    assert_eq!([view.look_up("b.c"), view.look_up("c")], [Found::Nothing, Found::Nothing]);
    assert_eq!(view.look_up("a"), Found::Unknown);
    view.record(peer(1), 0, Some(&chunk(&[("x.c.weave.local", &[2])]))).expect("a chunk");
    assert_eq!([view.look_up("b.c"), view.look_up("c")], [Found::Unknown, Found::Nothing]);
}

#[test]
fn a_name_is_held_by_those_that_say_so_and_are_reached() {
    let mut view = view();
    for n in 1..=2 {
        view.peer(peer(n), "n", true);
        view.record(peer(n), 0, Some(&chunk(&[("web", &[n]), ("db", &[9])]))).expect("a chunk");
    }
    view.record(peer(1), 1, Some(&chunk(&[("web", &[7])]))).expect("a chunk");
    let mut own = Own::new(domain());
    own.add("weave:extern", "web", &[ip(9)]).expect("a name");
    view.set_own(own.bodies());
    let holders = |view: &View| view.holders("web").collect::<Vec<_>>();
    assert_eq!(holders(&view), [peer(1), peer(2)], "each once, and not this router");
    view.record(peer(1), 0, Some(&chunk(&[("db", &[9])]))).expect("a chunk");
    assert_eq!(holders(&view), [peer(1), peer(2)], "it says so in another chunk");
    view.record(peer(1), 1, None).expect("withdrawn");
    view.peer(peer(2), "n", false);
    assert_eq!((holders(&view), view.holders("nobody").count()), (Vec::new(), 0));
}

#[test]
fn a_picture_stays_as_it_was_taken() {
    let mut view = view();
    view.peer(peer(1), "one", true);
    view.record(peer(1), 0, Some(&chunk(&[("web", &[1, 2])]))).expect("a chunk");
    let (picture, rows) = (view.picture(), view.rows());
    view.record(peer(1), 0, Some(&chunk(&[("web", &[3])]))).expect("a chunk");
    view.forget(peer(1));
    assert_eq!((picture.rows(), picture.answered(), rows.len()), (rows.clone(), 1, 2));
    assert!(view.rows().is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Record(u8, u16, Option<Vec<(u8, Vec<u8>)>>),
    Peer(u8, bool),
    Forget(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let names = proptest::collection::vec((0u8..5, proptest::collection::vec(0u8..6, 1..3)), 0..4);
    prop_oneof![
        3 => (0u8..3, 0u16..3, proptest::option::weighted(0.8, names)).prop_map(|(peer, chunk, names)| Step::Record(peer, chunk, names)),
        2 => (0u8..3, any::<bool>()).prop_map(|(peer, reachable)| Step::Peer(peer, reachable)),
        1 => (0u8..3).prop_map(Step::Forget),
    ]
}

const NAMES: [&str; 5] = ["a", "b", "x.a", "y.x.a", "z.b"];

proptest! {
    /// Whatever happened in whatever order, the answers are those of a view that is told only how things stand.
    #[test]
    fn answers_do_not_depend_on_history(steps in proptest::collection::vec(step(), 0..40)) {
        let mut view = view();
        let mut records: BTreeMap<(u8, u16), Vec<u8>> = BTreeMap::new();
        let mut reached: BTreeMap<u8, bool> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Record(from, part, names) => {
                    let named = |(name, last): &(u8, Vec<u8>)| (NAMES[usize::from(*name)], last.clone());
                    let names: Option<Vec<(&str, Vec<u8>)>> = names.map(|names| names.iter().map(named).collect());
                    let borrowed = |names: Vec<(&str, Vec<u8>)>| {
                        let mut own = Own::new(domain());
                        for (name, last) in names {
                            let addresses: Vec<IpAddr> = last.into_iter().map(|last| ip(last + 1)).collect();
                            own.add("c", &domain().full(name), &addresses).expect("a name");
                        }
                        own.chunks().into_iter().next()
                    };
                    let body = names.and_then(borrowed);
                    view.record(peer(from), part, body.as_deref()).expect("a chunk");
                    match body {
                        Some(body) => drop(records.insert((from, part), body)),
                        None => drop(records.remove(&(from, part))),
                    }
                }
                Step::Peer(from, reachable) => {
                    view.peer(peer(from), "n", reachable);
                    reached.insert(from, reachable);
                }
                Step::Forget(from) => {
                    view.forget(peer(from));
                    records.retain(|(origin, _), _| *origin != from);
                    reached.remove(&from);
                }
            }
        }
        let mut fresh = View::new(domain(), OWN, "here");
        for ((from, part), body) in &records {
            fresh.record(peer(*from), *part, Some(body)).expect("a chunk");
        }
        for (from, reachable) in &reached {
            fresh.peer(peer(*from), "n", *reachable);
        }
        let forward = |view: &View| -> Vec<_> {
            view.forward.iter().map(|(name, answered)| (name.clone(), answered.addresses.clone(), answered.holders.clone())).collect()
        };
        prop_assert_eq!(forward(&view), forward(&fresh));
        prop_assert_eq!(&view.reverse, &fresh.reverse);
        prop_assert_eq!(&view.above, &fresh.above);
        prop_assert_eq!(view.entries, fresh.entries);
        prop_assert_eq!(view.rows(), fresh.rows());
    }
}
