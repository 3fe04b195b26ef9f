//! The graph of a store is that of the records it holds, whichever way it came about.

use std::sync::Mutex;

use super::*;
use crate::mesh::routes::Topology;
use crate::wire::body::{NO_TRANSIT, NODE};
use crate::wire::record::BadRecord;

/// Routers that records tell of. The first is the store's own.
const ROUTERS: u16 = 12;

/// Graphs that were built before, for all stores that share them.
#[derive(Default)]
struct Shelf {
    graphs: Mutex<BTreeMap<u64, Arc<Topology>>>,
    /// Stores keep none themselves, and find two of three here again.
    keeps: bool,
}

impl Workshop for Shelf {
    fn record(&self, bytes: &[u8]) -> Result<Arc<Record>, BadRecord> {
        Record::parse(bytes).map(Arc::new)
    }

    fn topology(&self, key: u64, build: &dyn Fn() -> Topology) -> Arc<Topology> {
        Arc::clone(self.graphs.lock().expect("nobody panics").entry(key).or_insert_with(|| Arc::new(build())))
    }

    fn graph(&self, key: u64) -> Option<Arc<Topology>> {
        self.graphs.lock().expect("nobody panics").get(&key).filter(|_| self.keeps && !key.is_multiple_of(3)).map(Arc::clone)
    }

    fn keeps_graphs(&self) -> bool {
        self.keeps
    }
}

/// The graph by all that a store holds, built without a look at what it remembers of it.
fn expected(store: &Store) -> Topology {
    let is_in = |name: PeerName, left: bool| name == store.own() || !left && store.is_allowed(name);
    let members = || store.origins.iter().filter(|(name, origin)| is_in(**name, origin.left().is_some())).map(|(name, _)| *name);
    let is_closed = |name: PeerName| match store.origins.get(&name).and_then(|origin| origin.bodies(NODE).next()) {
        Some(Body::Node(node)) => node.features & NO_TRANSIT != 0,
        _ => false,
    };
    Topology::build(members().map(|name| (name, store.links_of(name).copied()))).closed_to_transit(is_closed)
}

fn entry(neighbour: u16, cost: u32) -> LinkEntry {
    LinkEntry { neighbour: identity(neighbour).name(), cost, max_datagram: 1400 + (cost % 3) as u16 }
}

fn entries(links: &[(u16, u32)]) -> Vec<LinkEntry> {
    let links: BTreeMap<PeerName, LinkEntry> =
        links.iter().map(|(to, cost)| entry(*to, *cost)).map(|link| (link.neighbour, link)).collect();
    links.into_values().collect()
}

/// What happens to a store.
#[derive(Clone, Debug)]
enum Step {
    /// A router says that it has these links, in a chunk of its records; the store's own says nothing in chunks.
    Links(u16, u16, Vec<(u16, u32)>),
    /// A router says who it is, and whether it passes anything on.
    Node(u16, bool),
    Left(u16),
    /// It starts anew with one link.
    Restart(u16, u16),
    Forget(u16),
    Revoke(u16),
}

fn steps() -> impl Strategy<Value = Step> {
    let links = |number| prop::collection::vec((0..ROUTERS + 2, 1u32..5), 0..number);
    prop_oneof![
        20 => (0..ROUTERS, 0u16..3, links(12)).prop_map(|(router, chunk, links)| Step::Links(router, chunk, links)),
        2 => (0..ROUTERS, any::<bool>()).prop_map(|(router, closed)| Step::Node(router, closed)),
        1 => (1..ROUTERS).prop_map(Step::Left),
        2 => (0..ROUTERS, 0..ROUTERS).prop_map(|(router, to)| Step::Restart(router, to)),
        1 => (1..ROUTERS).prop_map(Step::Forget),
        1 => (1..ROUTERS).prop_map(Step::Revoke),
    ]
}

/// Does it to the store; `nth` is greater each time.
fn take(store: &mut Store, nth: u64, step: &Step) {
    let (now, mut out) = (Time::ZERO, Output::default());
    let incarnation = |store: &Store, router: u16| store.incarnation_of(identity(router).name()).unwrap_or(1);
    let said = |store: &mut Store, router: u16, chunk: u16, incarnation: u64, body: Body| {
        deliver(store, &[record(router, chunk, (incarnation, nth), &body)]);
    };
    match step {
        Step::Links(0, _, links) => store.publish_links(now, &entries(links), &mut out),
        Step::Node(0, closed) => store.publish_node(now, Node { features: if *closed { NO_TRANSIT } else { 0 }, ..node("h") }, &mut out),
        Step::Restart(0, _) => store.adopt_incarnation(now, store.incarnation() + 1, &mut out),
        Step::Links(router, chunk, links) => {
            let incarnation = incarnation(store, *router);
            said(store, *router, *chunk, incarnation, Body::Links(entries(links), Extensions::default()));
        }
        Step::Node(router, closed) => {
            let incarnation = incarnation(store, *router);
            said(store, *router, 0, incarnation, Body::Node(Node { features: if *closed { NO_TRANSIT } else { 0 }, ..node("h") }));
        }
        Step::Left(router) => {
            let incarnation = incarnation(store, *router);
            said(store, *router, 0, incarnation, Body::Left(Extensions::default()));
        }
        Step::Restart(router, to) => {
            let incarnation = incarnation(store, *router) + 1;
            said(store, *router, 0, incarnation, Body::Links(entries(&[(*to, 1)]), Extensions::default()));
        }
        Step::Forget(router) => store.forget(identity(*router).name(), &mut out),
        Step::Revoke(router) => store.revoke(identity(*router).public().key, &mut out),
    }
}

/// A store that knows all routers, each linked with each.
fn full(routers: u16) -> Store {
    let mut store = store(0);
    let all: Vec<(u16, u32)> = (0..routers).map(|number| (number, 1)).collect();
    (0..routers).for_each(|router| take(&mut store, 1, &Step::Links(router, 0, all.clone())));
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Two stores that share what they build look at their graphs at different times, so that each is handed graphs of the other.
    #[test]
    fn the_graph_is_that_of_the_records(
        steps in prop::collection::vec((steps(), 0u8..4), 1..60),
        (is_full, keeps) in any::<(bool, bool)>(),
        allow in prop::option::of(prop::collection::btree_set(1..ROUTERS, 6..11)),
    ) {
        let shelf: Arc<dyn Workshop> = Arc::new(Shelf { keeps, ..Shelf::default() });
        let mut stores: [Store; 2] = std::array::from_fn(|_| {
            let mut store = if is_full { full(ROUTERS) } else { store(0) };
            if let Some(allow) = &allow {
                store.config.allow = allow.iter().map(|number| identity(*number).public().key).collect();
                store.members_changed();
            }
            store.share(Arc::clone(&shelf));
            store
        });
        for (nth, (step, looks)) in (2..).zip(steps) {
            for (bit, store) in stores.iter_mut().enumerate() {
                take(store, nth, &step);
                if looks >> bit & 1 == 1 {
                    prop_assert_eq!(&*store.topology(), &expected(store));
                }
            }
        }
        for store in &mut stores {
            prop_assert_eq!(&*store.topology(), &expected(store));
        }
    }
}

#[test]
fn a_graph_is_patched_where_the_links_of_a_few_have_changed() {
    let mut store = full(40);
    let mut last = store.topology();
    let mut is_patched = |store: &mut Store| {
        let graph = store.topology();
        assert_eq!(*graph, expected(store));
        assert!(!Arc::ptr_eq(&graph, &last), "there is something new");
        // A graph that was built has a list of names of its own.
        std::ptr::eq(graph.names(), std::mem::replace(&mut last, graph).names())
    };
    take(&mut store, 2, &Step::Links(3, 0, vec![(4, 9), (9, 2), (99, 1)]));
    assert!(is_patched(&mut store));
    (10..18).for_each(|router| take(&mut store, 3, &Step::Links(router, 0, vec![(router + 1, 2), (router - 1, 3), (0, 4)])));
    assert!(is_patched(&mut store), "these are few");
    (0..9).for_each(|router| take(&mut store, 4, &Step::Links(router, 0, vec![(20, 2)])));
    assert!(!is_patched(&mut store), "more than an eighth of all, and not few");
    for (nth, step) in (5..).zip([Step::Node(5, true), Step::Left(6), Step::Forget(7), Step::Revoke(8), Step::Links(50, 0, Vec::new())]) {
        take(&mut store, nth, &step);
        assert!(!is_patched(&mut store), "{step:?}");
    }
    take(&mut store, 20, &Step::Node(21, false));
    take(&mut store, 21, &Step::Restart(22, 23));
    take(&mut store, 22, &Step::Links(0, 0, vec![(23, 7)]));
    assert!(is_patched(&mut store), "these are where they were, with other links");
}
