//! Routes on random graphs: all agree, nothing loops, floods arrive once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::topology::Edge;
use super::*;
use crate::wire::body::LinkEntry;

type Graph = Vec<(usize, usize, u32)>;

fn name(index: usize) -> PeerName {
    PeerName::from_u64(0x0200_0000_0000 | index as u64)
}

/// The topology of a graph of `n` routers in which each link costs the same both ways.
fn topology(n: usize, graph: &Graph) -> Topology {
    let mut links: Vec<BTreeMap<usize, u32>> = vec![BTreeMap::new(); n];
    for (a, b, cost) in graph.iter().filter(|(a, b, _)| a != b) {
        links[*a].insert(*b, *cost);
        links[*b].insert(*a, *cost);
    }
    let entry = |(to, cost): (usize, u32)| LinkEntry { neighbour: name(to), cost, max_datagram: 1400 + (cost % 73) as u16 };
    Topology::build(links.into_iter().enumerate().map(|(index, row)| (name(index), row.into_iter().map(entry))))
}

fn graphs() -> impl Strategy<Value = (usize, Graph)> {
    (2usize..24).prop_flat_map(|n| (Just(n), prop::collection::vec((0..n, 0..n, 1u32..6), 0..n * 3)))
}

/// What each of some routers advertises, in no order and with whatever nonsense records may hold.
type Said = Vec<Vec<LinkEntry>>;

fn built(said: &Said, closed: &[usize]) -> Topology {
    let rows = said.iter().enumerate().map(|(index, links)| (name(index), links.iter().copied()));
    Topology::build(rows).closed_to_transit(|router| closed.iter().any(|index| name(*index) == router))
}

/// Something that becomes of the links of some routers: what, between whom, and the values.
type Step = (u8, usize, usize, u32, u16);

/// There are `n` routers; one of a higher number is unknown.
fn steps(n: usize, size: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0u8..5, 0..n, 0..n + 2, 0u32..4, 1400u16..1403), size)
}

/// Does these; the routers whose links they touch, ascending.
fn step(said: &mut Said, steps: &[Step]) -> BTreeSet<usize> {
    let mut touched = BTreeSet::new();
    for (what, from, to, cost, max_datagram) in steps {
        let entry = |neighbour: usize, more: u32| LinkEntry { neighbour: name(neighbour), cost: cost + more, max_datagram: *max_datagram };
        // The last is both ends at once, so that there are enough links that count.
        let ends = if *what == 4 { vec![(*from, *to), (*to, *from)] } else { vec![(*from, *to)] };
        for ((from, to), more) in ends.into_iter().zip(0..) {
            let Some(links) = said.get_mut(from) else { continue };
            if *what != 1 {
                links.retain(|link| link.neighbour != name(to));
            }
            if *what != 0 {
                links.push(entry(to, more));
            }
            touched.insert(from);
        }
    }
    touched
}

/// Follows next hops from `from` to `to`; the names passed.
fn walk(routes: &[Routes], from: usize, to: usize) -> Vec<PeerName> {
    let mut path = vec![name(from)];
    while path.last() != Some(&name(to)) {
        let at = path.last().expect("a path starts somewhere").to_u64() as usize & 0xff_ffff;
        path.push(routes[at].get(name(to)).expect("a route on the way").next_hop);
        assert!(path.len() <= routes.len(), "a loop: {path:?}");
    }
    path
}

/// Every shortest distance, by relaxing until nothing changes: slow, and independent of the code under test.
fn distances(topology: &Topology) -> Vec<Vec<Option<u64>>> {
    let n = topology.names().len();
    let mut dist: Vec<Vec<Option<u64>>> = (0..n).map(|a| (0..n).map(|b| (a == b).then_some(0)).collect()).collect();
    for _ in 0..n {
        for (from, to, cost) in (0..n).flat_map(|from| topology.edges(from).iter().map(move |e| (from, e.to as usize, u64::from(e.cost)))) {
            for source in &mut dist {
                let through = source[from].map(|d| d + cost);
                if through.is_some_and(|d| source[to].is_none_or(|known| d < known)) {
                    source[to] = through;
                }
            }
        }
    }
    dist
}

proptest! {
    #[test]
    fn next_hops_reach_everybody_by_the_shortest_way((n, graph) in graphs()) {
        let topology = topology(n, &graph);
        let dist = distances(&topology);
        let routes: Vec<Routes> = (0..n).map(|index| Routes::compute(&topology, name(index))).collect();
        for from in 0..n {
            let reachable = topology.reachable_from(name(from));
            for to in (0..n).filter(|to| *to != from) {
                let route = routes[from].get(name(to));
                prop_assert_eq!(route.map(|route| u64::from(route.cost)), dist[from][to]);
                prop_assert_eq!(route.is_some(), reachable.contains(&name(to)));
                if let Some(route) = route {
                    prop_assert_eq!(walk(&routes, from, to).len() - 1, usize::from(route.hops));
                }
            }
        }
    }

    #[test]
    fn whichever_equal_hop_is_taken_nothing_loops_and_sizes_hold((n, graph) in graphs(), chance in 0usize..1000) {
        let topology = topology(n, &graph);
        let routes: Vec<Routes> = (0..n).map(|index| Routes::compute(&topology, name(index))).collect();
        for from in 0..n {
            for (target, promised) in routes[from].iter() {
                let (mut at, mut hops) = (from, 0);
                while name(at) != target {
                    let route = routes[at].get(target).expect("a route on the way");
                    let equal: Vec<PeerName> = route.equal_hops().collect();
                    prop_assert!(equal.is_sorted_by(|a, b| a < b) && equal.len() <= MOST_HOPS);
                    let next = topology.index(equal[(chance + hops) % equal.len()]).expect("a known router");
                    let edge = topology.edges(at).iter().find(|edge| edge.to as usize == next).expect("a link");
                    prop_assert!(edge.max_datagram >= promised.max_datagram);
                    (at, hops) = (next, hops + 1);
                    prop_assert!(hops <= usize::from(promised.hops), "a loop, or a detour");
                }
            }
        }
    }

    #[test]
    fn nothing_goes_through_what_is_closed((n, graph) in graphs(), closed in prop::collection::btree_set(0usize..24, 0..6)) {
        let open = topology(n, &graph);
        let topology = Arc::new(topology(n, &graph).closed_to_transit(|router| closed.iter().any(|index| name(*index) == router)));
        let routes: Vec<Routes> = (0..n).map(|index| Routes::compute(&topology, name(index))).collect();
        // The same without the links among what is left when the closed ones but the two ends are taken out.
        for from in 0..n {
            for to in (0..n).filter(|to| *to != from) {
                let inner = |router: usize| router == from || router == to || !closed.contains(&router);
                let left: Graph = graph.iter().filter(|(a, b, _)| inner(*a) && inner(*b)).copied().collect();
                let expected = distances(&super::tests::topology(n, &left))[from][to];
                let route = routes[from].get(name(to));
                prop_assert_eq!(route.map(|route| u64::from(route.cost)), expected.filter(|_| open.reachable_from(name(from)).contains(&name(to))));
                if route.is_some() {
                    let path = walk(&routes, from, to);
                    prop_assert!(path[1..path.len() - 1].iter().all(|hop| closed.iter().all(|index| name(*index) != *hop)));
                }
            }
            let tree = FloodTree::new(Arc::clone(&topology), name(from));
            for origin in (0..n).filter(|origin| *origin != from && closed.contains(&from)) {
                prop_assert!(tree.children(name(origin)).is_empty());
            }
        }
    }

    #[test]
    fn alternates_are_loop_free_and_found((n, graph) in graphs()) {
        let topology = topology(n, &graph);
        let dist = distances(&topology);
        for from in 0..n {
            let loop_free = |via: usize, to: usize| dist[via][to].zip(dist[via][from]).zip(dist[from][to]).is_some_and(|((nd, ns), sd)| nd < ns + sd);
            let routes = Routes::compute(&topology, name(from));
            for (target, route) in routes.iter() {
                let to = topology.index(target).expect("a known router");
                let others = || topology.edges(from).iter().map(|e| e.to as usize).filter(|via| name(*via) != route.next_hop);
                match route.alternate.and_then(|alternate| topology.index(alternate)) {
                    Some(alternate) => prop_assert!(others().any(|via| via == alternate) && loop_free(alternate, to)),
                    None if topology.edges(from).len() <= 4 => prop_assert!(!others().any(|via| loop_free(via, to))),
                    None => {}
                }
            }
        }
    }

    #[test]
    fn floods_reach_everybody_exactly_once((n, graph) in graphs()) {
        let topology = Arc::new(topology(n, &graph));
        let trees: Vec<FloodTree> = (0..n).map(|index| FloodTree::new(Arc::clone(&topology), name(index))).collect();
        for origin in 0..n {
            let mut heard = BTreeMap::from([(name(origin), 1)]);
            let mut queue = vec![origin];
            while let Some(at) = queue.pop() {
                for child in trees[at].children(name(origin)) {
                    let below = child.to_u64() as usize & 0xff_ffff;
                    prop_assert_eq!(trees[below].parent(name(origin)), Some(name(at)), "it is expected from there");
                    *heard.entry(*child).or_insert(0) += 1;
                    queue.push(topology.index(*child).expect("a known router"));
                    prop_assert!(queue.len() <= n, "a loop");
                }
            }
            prop_assert!(heard.values().all(|times| *times == 1));
            prop_assert_eq!(heard.into_keys().collect::<BTreeSet<_>>(), topology.reachable_from(name(origin)));
        }
    }

    #[test]
    fn a_patched_graph_is_the_one_that_is_built(
        (n, first, then) in (1usize..=12).prop_flat_map(|n| (Just(n), steps(n, 0..60), prop::collection::vec(steps(n, 0..8), 1..12))),
        closed in prop::collection::vec(0usize..12, 0..4),
        // Side by side, or with so many between them that say nothing that their rows lie in several blocks.
        apart in prop::sample::select(vec![1usize, 7, 13, 64]),
    ) {
        let all = n * apart;
        let place = |router: usize| if router < n { router * apart } else { all + router - n };
        let placed = |steps: &[Step]| steps.iter().map(|(what, from, to, a, b)| (*what, place(*from), place(*to), *a, *b)).collect::<Vec<_>>();
        let closed: Vec<usize> = closed.into_iter().map(place).collect();
        let mut said = vec![Vec::new(); all];
        step(&mut said, &placed(&first));
        let mut graph = built(&said, &closed);
        for some in then {
            let touched = step(&mut said, &placed(&some));
            let row = |index: usize| {
                let back = |other: PeerName| {
                    let links = &said[graph.index(other).expect("a router of the graph")];
                    links.iter().copied().filter(move |link| link.neighbour == name(index))
                };
                (index, graph.mutual(index, said[index].iter().copied(), back))
            };
            let rows: Vec<(usize, Vec<Edge>)> = touched.into_iter().map(row).collect();
            let patched = graph.patched(&rows);
            prop_assert_eq!(&patched, &built(&said, &closed));
            let differ = (0..all).filter(|index| patched.edges(*index) != graph.edges(*index)).map(|index| index / 64);
            prop_assert_eq!(patched.blocks_of_its_own(&graph), differ.collect::<BTreeSet<_>>(), "blocks are shared but for those that differ");
            graph = patched;
        }
    }

    #[test]
    fn costs_have_hysteresis(rtt in 1u64..2_000_000, loss in 0.0f64..1.0, wobble in 0.85f64..1.15) {
        let rtt = Duration::from_micros(rtt);
        let cost = quantise_cost(rtt, loss, None);
        prop_assert!((1000..=crate::wire::body::MAX_COST).contains(&cost));
        prop_assert_eq!(quantise_cost(rtt.mul_f64(wobble), loss, Some(cost)), cost);
        let far = quantise_cost(rtt.mul_f64(3.0) + Duration::from_millis(3), loss, Some(cost));
        prop_assert!(far > cost || cost > 1 << 23);
    }
}

#[test]
fn costs_have_few_levels() {
    assert_eq!(quantise_cost(Duration::from_micros(120), 0.0, None), 1000);
    assert_eq!(quantise_cost(Duration::from_micros(900), f64::NAN, None), 1000);
    assert_eq!(quantise_cost(Duration::from_millis(20), 0.0, None), 18_190);
    assert_eq!(quantise_cost(Duration::from_micros(500), 0.05, Some(1000)), 1000, "one lost probe of twenty does not move a route");
    assert!(quantise_cost(Duration::from_micros(500), 0.10, Some(1000)) > 1000);
    assert_eq!(quantise_cost(Duration::from_micros(1300), 0.0, Some(0)), 1250, "what was never advertised has no hold");
}

#[test]
fn a_link_needs_both_ends_and_the_worse_end_counts() {
    let link = |to, cost, max_datagram| LinkEntry { neighbour: name(to), cost, max_datagram };
    let rows = [
        (name(0), vec![link(1, 10, 1472), link(2, 1, 1472)]),
        (name(1), vec![link(0, 30, 1400), link(9, 1, 1472), link(1, 1, 1472)]),
        (name(2), vec![]),
    ];
    let topology = Topology::build(rows.into_iter().map(|(name, row)| (name, row.into_iter())));
    assert_eq!(topology.edges(0), [Edge { to: 1, cost: 30, max_datagram: 1400 }]);
    assert_eq!((topology.edges(2), topology.edges(7)), (&[][..], &[][..]));
    let routes = Routes::compute(&topology, name(0));
    let expected = Route { next_hop: name(1), others: [None; 3], alternate: None, hops: 1, cost: 30, max_datagram: 1400 };
    assert_eq!((routes.get(name(1)), routes.len(), routes.reachable(name(2))), (Some(expected), 1, false));
    assert!(Routes::compute(&topology, name(77)).is_empty());
}

#[test]
fn names_are_found_wherever_they_are_and_no_others() {
    let hash = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let spread = |index: u64| PeerName(std::array::from_fn(|at| hash(index)[at]));
    let close = |index: u64| PeerName::from_u64(0x0200_0000_0000 + index);
    let all: Vec<PeerName> = (1..300).map(spread).chain((0..40).map(close)).chain([PeerName([0xff; 6]), PeerName::NONE]).collect();
    let hub = all[0];
    let link = |neighbour| LinkEntry { neighbour, cost: 1, max_datagram: 1472 };
    let strangers = (1000..1300).map(spread).chain((40..60).map(close));
    let said: Vec<LinkEntry> = all[1..].iter().copied().chain(strangers).map(link).collect();
    let rows = all.iter().map(|name| (*name, if *name == hub { said.clone() } else { vec![link(hub)] }));
    let topology = Topology::build(rows.map(|(name, row)| (name, row.into_iter())));
    let linked: Vec<PeerName> =
        topology.edges(topology.index(hub).expect("it is there")).iter().map(|edge| topology.names()[edge.to as usize]).collect();
    let mut others = all[1..].to_vec();
    others.sort_unstable();
    assert_eq!(linked, others);
}

#[test]
fn ties_go_to_fewer_hops_then_the_lower_name() {
    // 0-3 costs 2 by one hop, or through 1 or 2 by two hops.
    let graph = vec![(0, 3, 2), (0, 1, 1), (1, 3, 1), (0, 2, 1), (2, 3, 1), (3, 4, 1)];
    let routes = Routes::compute(&topology(5, &graph), name(0));
    assert_eq!(routes.get(name(3)).map(|route| (route.next_hop, route.hops)), Some((name(3), 1)));
    assert_eq!(routes.get(name(3)).and_then(|route| route.alternate), Some(name(1)));
    let square = vec![(0, 1, 1), (0, 2, 1), (1, 3, 1), (2, 3, 1)];
    let routes = Routes::compute(&topology(4, &square), name(0));
    assert_eq!(routes.get(name(3)).map(|route| (route.next_hop, route.alternate)), Some((name(1), Some(name(2)))));
    assert_eq!(routes.get(name(3)).map(|route| route.others), Some([Some(name(2)), None, None]), "the two share the flows");
    let wider = vec![(0, 1, 1), (0, 2, 1), (0, 4, 9), (1, 3, 1), (2, 3, 1), (4, 3, 9)];
    let routes = Routes::compute(&topology(5, &wider), name(0));
    assert_eq!(routes.get(name(3)).and_then(|route| route.alternate), Some(name(4)), "not one that shares them, where there is another");
}

/// A connected random graph of `n` routers with about `degree` links each.
fn random_graph(n: usize, degree: usize) -> Graph {
    let mut state = 42u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let spine = (1..n).map(|index| (index - 1, index));
    let more: Vec<(usize, usize)> = (0..n * degree / 2).map(|_| (random(n), random(n))).collect();
    spine.chain(more).map(|(a, b)| (a, b, 1000 + (a * 7 + b * 13) as u32 % 4000)).collect()
}

#[test]
fn a_thousand_routers_reach_each_other() {
    let topology = topology(1000, &random_graph(1000, 20));
    let routes = Routes::compute(&topology, name(0));
    assert_eq!(routes.len(), 999);
    assert!(routes.iter().filter(|(_, route)| route.alternate.is_some()).count() > 900);
}
