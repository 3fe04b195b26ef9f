//! What a test may ask.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::crypto::PublicKey;
use crate::forward::Route;
use crate::mesh::command::Event;
use crate::mesh::snapshot::{PathState, Snapshot};
use crate::time::Time;
use crate::wire::{Address, PeerName};

use super::super::seen::impossible;
use super::{RouterId, Sim};

impl Sim {
    /// The name of a host's router.
    pub fn name(&self, router: RouterId) -> PeerName {
        self.hosts[router.0].identity.name()
    }

    /// The public key of a host's router.
    pub fn key(&self, router: RouterId) -> PublicKey {
        self.hosts[router.0].identity.public().key
    }

    /// All hosts.
    pub fn routers(&self) -> Vec<RouterId> {
        (0..self.hosts.len()).map(RouterId).collect()
    }

    /// The hash of all that has happened.
    pub fn trace(&self) -> u64 {
        self.witness.trace()
    }

    /// All that has happened and must not.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.witness.problems().to_vec();
        for router in self.running() {
            problems.extend(self.impossible(router));
        }
        problems
    }

    /// Notes what the counters of a router that is about to end tell.
    pub(super) fn note_impossible(&mut self, router: RouterId) {
        for what in self.impossible(router) {
            self.witness.problem(self.now, router, what);
        }
    }

    fn impossible(&self, router: RouterId) -> Vec<String> {
        let Some(running) = self.hosts[router.0].running.as_ref().filter(|_| !self.hostile) else { return Vec::new() };
        let found = impossible(running).into_iter().filter(|(name, _)| !self.excused.iter().any(|excused| excused == name));
        found.map(|(name, count)| format!("{router:?}: {name} is {count}")).collect()
    }

    /// What a router's status says; `None` where it does not run.
    pub fn snapshot(&self, router: RouterId) -> Option<Snapshot> {
        self.hosts[router.0].running.as_ref().map(|running| running.mesh.snapshot(self.now))
    }

    /// What a router's `status paths` says; nothing where it does not run.
    pub fn paths(&self, router: RouterId) -> Vec<PathState> {
        self.hosts[router.0].running.as_ref().map(|running| running.mesh.path_states(self.now)).unwrap_or_default()
    }

    /// Everything that the routers of a host said, with the time.
    pub fn log(&self, router: RouterId) -> &[(Time, Event)] {
        &self.hosts[router.0].log
    }

    /// One counter of a router's planes, by its name; zero where it does not run.
    pub fn counter(&self, router: RouterId, name: &str) -> u64 {
        let Some(running) = &self.hosts[router.0].running else { return 0 };
        let (mesh, gossip) = (running.mesh.counters().read(), running.mesh.gossip_counters().read());
        let all = mesh.into_iter().chain(gossip).chain(running.counters.read());
        let found: Vec<u64> = all.filter(|reading| reading.name == name).map(|reading| reading.value).collect();
        assert!(!found.is_empty(), "there is no counter {name}");
        found.iter().sum()
    }

    /// The sum of a counter over all running routers.
    pub fn total(&self, name: &str) -> u64 {
        self.running().into_iter().map(|router| self.counter(router, name)).sum()
    }

    /// How many entries each table of a router's mesh plane has; nothing where it does not run.
    pub fn tables(&self, router: RouterId) -> Vec<(&'static str, usize)> {
        self.hosts[router.0].running.as_ref().map(|running| running.mesh.tables().to_vec()).unwrap_or_default()
    }

    /// Bytes of UDP payload that left a host.
    pub fn sent_bytes(&self, router: RouterId) -> u64 {
        self.hosts[router.0].sent
    }

    /// How many roots there are among these routers, and the fewest and the most routes that one of them has: in full agreement one root, and
    /// a route to each other.
    pub fn agreement(&mut self, among: &[RouterId]) -> (usize, usize, usize) {
        let (mut roots, mut fewest, mut most) = (BTreeSet::new(), usize::MAX, 0);
        for router in among {
            let (root, routes) = self.hosts[router.0].running.as_mut().map_or((0, 0), |running| running.mesh.agreement());
            roots.insert(root);
            (fewest, most) = (fewest.min(routes), most.max(routes));
        }
        (roots.len(), fewest, most)
    }

    /// The links of a router as its mesh plane has them, with the round trip of each.
    pub fn mesh_links(&self, router: RouterId) -> BTreeMap<PeerName, Option<Duration>> {
        self.hosts[router.0].running.as_ref().map(|running| running.mesh.links().collect()).unwrap_or_default()
    }

    /// Neighbours to which a router has a link.
    pub fn links(&self, router: RouterId) -> BTreeSet<RouterId> {
        let Some(running) = &self.hosts[router.0].running else { return BTreeSet::new() };
        let names = self.by_name();
        running.forwarder.fib().links.iter().filter_map(|link| names.get(&link.peer).copied()).collect()
    }

    /// Routers to which the packet plane of `router` knows a way.
    pub fn reachable(&self, router: RouterId) -> BTreeSet<RouterId> {
        let names = self.by_name();
        self.reachable_names(router).filter_map(|name| names.get(&name).copied()).collect()
    }

    /// True where frames from `router` to `to` go over a direct path.
    pub fn is_direct(&self, router: RouterId, to: RouterId) -> bool {
        let Some(running) = &self.hosts[router.0].running else { return false };
        running.forwarder.fib().peers.get(&self.name(to)).is_some_and(|peer| matches!(peer.route, Route::Direct(_)))
    }

    /// True where `router` takes the size of its path to `to` for known.
    pub fn mtu_is_settled(&self, router: RouterId, to: RouterId) -> bool {
        let Some(running) = &self.hosts[router.0].running else { return false };
        running.forwarder.fib().peers.get(&self.name(to)).is_some_and(|peer| peer.mtu_settled)
    }

    /// True where every running router knows a way to all that the underlay joins it with, and to nobody else.
    pub fn is_converged(&self) -> bool {
        let running = self.running();
        let mut neighbours: BTreeMap<RouterId, BTreeSet<RouterId>> = BTreeMap::new();
        for (a, b) in self.underlay.pairs().filter(|(a, b)| running.contains(a) && running.contains(b)) {
            neighbours.entry(a).or_default().insert(b);
        }
        let mut left = running;
        while let Some(first) = left.pop_first() {
            let mut island = BTreeSet::from([first]);
            let mut queue = vec![first];
            while let Some(at) = queue.pop() {
                let next = neighbours.get(&at).into_iter().flatten().filter(|next| island.insert(**next));
                queue.extend(next);
            }
            let names: BTreeSet<PeerName> = island.iter().map(|router| self.name(*router)).collect();
            let complete = |router: &RouterId| {
                let own = self.name(*router);
                self.reachable_names(*router).chain([own]).collect::<BTreeSet<_>>() == names
            };
            if !island.iter().all(complete) {
                return false;
            }
            left = left.difference(&island).copied().collect();
        }
        true
    }

    /// Handshake datagrams that a router sent straight to this address.
    pub fn handshakes_to(&self, router: RouterId, address: Address) -> u64 {
        self.handshakes.get(&(router, address)).copied().unwrap_or(0)
    }

    /// Handshake datagrams that a router sent to addresses in networks that it has no part in.
    pub fn vain_handshakes(&self, router: RouterId) -> u64 {
        let own = self.handshakes.iter().filter(|((from, _), _)| *from == router);
        own.filter(|((_, to), _)| !self.underlay.shares_network(router, *to)).map(|(_, count)| *count).sum()
    }

    /// Batches of datagrams that arrived, anywhere.
    pub fn arrived(&self) -> u64 {
        self.arrived
    }

    /// A host's addresses on the underlay.
    pub fn addresses(&self, router: RouterId) -> Vec<Address> {
        self.underlay.addresses(router)
    }

    fn reachable_names(&self, router: RouterId) -> impl Iterator<Item = PeerName> {
        let fib = self.hosts[router.0].running.as_ref().map(|running| running.forwarder.fib());
        let peers = fib.into_iter().flat_map(|fib| fib.peers.values());
        peers.filter(|peer| peer.route != Route::Unreachable).map(|peer| peer.name)
    }

    fn by_name(&self) -> BTreeMap<PeerName, RouterId> {
        self.hosts.iter().enumerate().map(|(index, host)| (host.identity.name(), RouterId(index))).collect()
    }
}
