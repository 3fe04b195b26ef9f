//! One store that has not room for all: who has to go.

use super::super::room::Rank;
use super::*;

/// Routers that there is room for, this one and the neighbour that tells of all included.
const ROOM: usize = 8;

/// What happens to a router.
#[derive(Clone, Debug)]
enum Step {
    /// Something is heard of it.
    Heard(u16),
    /// Both ends say that this router has a link with it.
    Linked(u16),
    /// This router has it no more.
    Parted(u16),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1u16..30).prop_map(Step::Heard),
        3 => (1u16..30).prop_map(Step::Linked),
        2 => (1u16..30).prop_map(Step::Parted),
    ]
}

proptest! {
    #[test]
    fn who_goes_is_least_worth_its_room(steps in prop::collection::vec(steps(), 1..80), allow in any::<bool>()) {
        let mut store = store_with(0, Limits { routers: ROOM, ..Limits::default() });
        if allow {
            store.config.allow = (0..20).map(|number| identity(number).public().key).collect();
        }
        let mut linked = BTreeSet::new();
        for (nth, step) in (1..).zip(steps) {
            let now = Time::ZERO + SECOND * nth;
            store.root(now);
            let before: BTreeMap<PeerName, (Rank, bool)> =
                store.origins.iter().map(|(name, origin)| (*name, (store.rank(origin), store.is_joining(*name)))).collect();
            let is_member = |number: u16| !allow || number < 20;
            match step {
                Step::Heard(router) => {
                    deliver(&mut store, &[record(router, 1, (1, u64::from(nth)), &Body::Unknown(77, Box::default()))]);
                    let is_known = before.contains_key(&identity(router).name());
                    let gone: Vec<Rank> = before.iter().filter(|(name, _)| !store.origins.contains(name)).map(|(_, (rank, _))| *rank).collect();
                    prop_assert_eq!(gone.len(), usize::from(!is_known && before.len() == ROOM && store.origins.contains(&identity(router).name())));
                    // This router itself and those whose links have just been heard are not to go.
                    let rest = before.iter().filter(|(name, (_, joining))| store.origins.contains(name) && **name != store.own() && !joining);
                    let least = rest.map(|(_, (rank, _))| *rank).min();
                    for rank in gone {
                        prop_assert!(rank != Rank::Reached && (is_member(router) || rank == Rank::Outsider));
                        prop_assert!(least.is_none_or(|least| rank <= least), "{:?} went, {:?} stayed", rank, least);
                    }
                }
                Step::Linked(router) => {
                    linked.insert(router);
                    deliver(&mut store, &[record(router, 0, (1, u64::from(nth)), &links_body(&[0]))]);
                }
                Step::Parted(router) => {
                    linked.remove(&router);
                }
            }
            let links: Vec<LinkEntry> = linked.iter().map(|router| link(identity(*router).name())).collect();
            store.publish_links(now, &links, &mut Output::default());
            prop_assert!(store.origins.len() <= ROOM);
            prop_assert!(store.origins.contains(&store.own()));
        }
    }
}

#[test]
fn that_there_is_no_room_for_all_who_are_there_is_said_once() {
    let mut store = store_with(0, Limits { routers: 4, ..Limits::default() });
    let links: Vec<LinkEntry> = (1..4).map(|number| link(identity(number).name())).collect();
    store.publish_links(Time::ZERO, &links, &mut Output::default());
    let warnings = |store: &mut Store, number: u16| deliver(store, &[record(number, 0, (1, 1), &links_body(&[0]))]).warnings.len();
    let all: Vec<usize> = (1..7).map(|number| warnings(&mut store, number)).collect();
    assert_eq!(all, [0, 0, 0, 1, 0, 0]);
    assert_eq!(store.router_count(), 4);
}
