//! What the demo builds and shows, as plain data: hosts by number, wires, and which wire is laid or cut while everything runs.

use std::collections::VecDeque;

use super::super::options::{DemoArgs, Topology};

/// The mesh of the demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Number of hosts; they are numbered from 0 and named from `h1`.
    pub hosts: usize,
    /// How they are wired.
    pub topology: Topology,
    /// Which hosts have a wire between them, the lower number first.
    pub wires: Vec<(usize, usize)>,
    /// What happens once everything is up.
    pub act: Act,
}

/// What happens to the wires while everything runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A wire is laid between two hosts that reach each other through a third, and cut again.
    Shortcut(usize, usize),
    /// A wire is cut that the others can stand in for, and mended.
    Detour(usize),
    /// The only wire is cut, and mended.
    Replug(usize),
}

impl Plan {
    /// The plan that the options ask for.
    pub fn new(args: &DemoArgs) -> Plan {
        let hosts = usize::from(args.hosts);
        let mut wires: Vec<(usize, usize)> = match args.topology {
            Topology::Line | Topology::Ring => (1..hosts).map(|b| (b - 1, b)).collect(),
            Topology::Star => (1..hosts).map(|b| (0, b)).collect(),
            Topology::Full => (1..hosts).flat_map(|b| (0..b).map(move |a| (a, b))).collect(),
        };
        if args.topology == Topology::Ring && hosts > 2 {
            wires.push((0, hosts - 1));
        }
        let act = match args.topology {
            _ if hosts == 2 => Act::Replug(0),
            Topology::Line => Act::Shortcut(0, 2),
            Topology::Star => Act::Shortcut(1, 2),
            Topology::Ring | Topology::Full => Act::Detour(0),
        };
        Plan { hosts, topology: args.topology, wires, act }
    }

    /// The fewest wires between one host and all others.
    pub fn distances(&self, from: usize) -> Vec<usize> {
        let mut distances = vec![usize::MAX; self.hosts];
        let mut queue = VecDeque::from([(from, 0)]);
        while let Some((host, distance)) = queue.pop_front() {
            match distances.get_mut(host) {
                Some(known) if *known > distance => *known = distance,
                _ => continue,
            }
            let ends = self.wires.iter().flat_map(|&(a, b)| [(a, b), (b, a)]);
            queue.extend(ends.filter(|(near, _)| *near == host).map(|(_, far)| (far, distance + 1)));
        }
        distances
    }

    /// Every host with every other.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let hosts = self.hosts;
        (0..hosts).flat_map(move |from| (0..hosts).filter(move |to| *to != from).map(move |to| (from, to)))
    }

    /// The first pair that is so many wires apart.
    pub fn pair_at(&self, distance: usize) -> Option<(usize, usize)> {
        self.pairs().find(|&(from, to)| self.distances(from).get(to) == Some(&distance))
    }

    /// One line that says how the hosts are wired.
    pub fn describe(&self) -> String {
        let names: Vec<String> = (0..self.hosts).map(host).collect();
        let chain = names.join(" - ");
        match self.topology {
            _ if self.hosts == 2 => format!("2 hosts with a wire between them: {chain}"),
            Topology::Line => format!("{} hosts in a line: {chain}", self.hosts),
            Topology::Ring => format!("{} hosts in a ring: {chain} - h1", self.hosts),
            Topology::Star => format!("{} hosts in a star: h1 in the middle, no wires between the others", self.hosts),
            Topology::Full => format!("{} hosts, each wired to each", self.hosts),
        }
    }
}

/// The name of a host.
pub fn host(number: usize) -> String {
    format!("h{}", number + 1)
}

/// The name of the container on a host.
pub fn container(number: usize) -> String {
    format!("c{}", number + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(hosts: u8, topology: Topology) -> Plan {
        Plan::new(&DemoArgs { hosts, topology, seconds: None })
    }

    #[test]
    fn wires_follow_the_topology() {
        assert_eq!(plan(4, Topology::Line).wires, [(0, 1), (1, 2), (2, 3)]);
        assert_eq!(plan(4, Topology::Ring).wires, [(0, 1), (1, 2), (2, 3), (0, 3)]);
        assert_eq!(plan(4, Topology::Star).wires, [(0, 1), (0, 2), (0, 3)]);
        assert_eq!(plan(4, Topology::Full).wires.len(), 6);
        for topology in [Topology::Line, Topology::Ring, Topology::Star, Topology::Full] {
            assert_eq!(plan(2, topology).wires, [(0, 1)], "two hosts need one wire");
            assert_eq!(plan(2, topology).act, Act::Replug(0));
        }
    }

    #[test]
    fn a_shortcut_joins_hosts_that_have_no_wire_and_a_detour_exists() {
        for hosts in 3..=16 {
            for topology in [Topology::Line, Topology::Ring, Topology::Star, Topology::Full] {
                let mut plan = plan(hosts, topology);
                match plan.act {
                    Act::Shortcut(a, b) => assert_eq!(plan.distances(a)[b], 2),
                    Act::Detour(wire) => {
                        let (a, b) = plan.wires.remove(wire);
                        assert!(plan.distances(a)[b] < plan.hosts, "{topology:?} of {hosts} falls apart");
                    }
                    Act::Replug(_) => panic!("more than two hosts have a way around"),
                }
            }
        }
    }

    #[test]
    fn distances_and_pairs() {
        let line = plan(4, Topology::Line);
        assert_eq!(line.distances(0), [0, 1, 2, 3]);
        assert_eq!(line.pair_at(2), Some((0, 2)));
        assert_eq!(line.pairs().count(), 12);
        assert_eq!(plan(4, Topology::Full).pair_at(2), None);
        assert_eq!(line.describe(), "4 hosts in a line: h1 - h2 - h3 - h4");
    }
}
