use super::*;
use crate::crypto::Identity;
use crate::mesh::adjacency::Role;
use crate::mesh::command::{Command, Target};
use crate::mesh::fuzz::{self, home};

const NOW: Time = Time(1_000_000_000);

/// The largest datagram that the wire carries: that of an ordinary Ethernet.
const WIRE: usize = 1472;

/// Two routers on a wire for control, with VXLAN devices on a wire of their own that can be cut each way.
struct Two {
    now: Time,
    routers: [Mesh; 2],
    plans: [Plan; 2],
    /// Whether VXLAN passes from the first to the second, and back.
    vxlan: [bool; 2],
    homes: [Address; 2],
}

fn device(n: u8, mtu: u16) -> Device {
    Device { ipv6: true, port: 6784, vni: 7, mac: mac_of(Identity::from_seed(&[n; 32]).public().name()), mtu }
}

fn router(n: u8, policy: Option<Policy>, no_encryption: bool) -> Mesh {
    let mut mesh = fuzz::router_with(n, |config| (config.fastdp, config.no_encryption, config.discovery) = (policy, no_encryption, false));
    mesh.handle_timeout(NOW, &mut Outbox::default());
    mesh
}

impl Two {
    fn new(policies: [Option<Policy>; 2], no_encryption: bool) -> Two {
        Two::at([home(1), home(2)], policies, no_encryption)
    }

    /// Two routers at these addresses.
    fn at(homes: [Address; 2], policies: [Option<Policy>; 2], no_encryption: bool) -> Two {
        let [a, b] = policies;
        let routers = [router(1, a, no_encryption), router(2, b, no_encryption)];
        let mut two = Two { now: NOW, routers, plans: [Vec::new(), Vec::new()], vxlan: [true, true], homes };
        for (n, mtu) in [(0, 1420), (1, 1420)] {
            two.command(n, Command::Fastdp(Ok(device(n as u8 + 1, mtu))));
        }
        let target = Target { host: "router1".into(), port: None, tcp: false };
        two.command(1, Command::Connect(vec![target.clone()]));
        two.command(1, Command::Resolved(target, Ok(vec![homes[0]])));
        two.run(Duration::from_secs(3));
        two
    }

    fn command(&mut self, n: usize, command: Command) {
        let mut out = Outbox::default();
        self.routers[n].handle_command(self.now, command, &mut out);
        self.carry(n, out);
    }

    fn carry(&mut self, n: usize, out: Outbox) {
        let (other, mut back) = (1 - n, Outbox::default());
        for (to, mut bytes) in out.datagrams {
            if to == self.homes[other] && bytes.len() <= WIRE {
                self.routers[other].handle_datagram(self.now, self.homes[n], &mut bytes, &mut back);
            }
        }
        for event in out.events {
            match event {
                Event::Fastdp(plan) => self.plans[n] = plan,
                Event::Beat { frame, .. } if self.vxlan[n] => self.routers[other].handle_command(self.now, Command::Beat(frame), &mut back),
                _ => {}
            }
        }
        if !(back.datagrams.is_empty() && back.events.is_empty()) {
            self.carry(other, back);
        }
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(10);
            for n in 0..2 {
                if self.routers[n].next_timeout().is_some_and(|due| due <= self.now) {
                    let mut out = Outbox::default();
                    self.routers[n].handle_timeout(self.now, &mut out);
                    self.carry(n, out);
                }
            }
        }
    }

    fn in_use(&self) -> [bool; 2] {
        [0, 1].map(|n: usize| self.plans[n].iter().any(|peer| peer.in_use))
    }

    fn agreed(&self) -> [usize; 2] {
        [self.plans[0].len(), self.plans[1].len()]
    }

    fn reason(&self, n: usize) -> String {
        self.routers[n].datapath(self.now, self.routers[1 - n].own).1
    }
}

fn both() -> [Option<Policy>; 2] {
    [Some(Policy::default()), Some(Policy::default())]
}

fn trusting(subnet: &str) -> Option<Policy> {
    Some(Policy { trusted: vec![subnet.parse().expect("a subnet")] })
}

#[test]
fn two_that_agree_use_it_and_tell_where_the_other_is() {
    let two = Two::new(both(), true);
    assert_eq!(two.in_use(), [true, true]);
    let peer = two.plans[0][0];
    assert_eq!((peer.name, peer.port, peer.mac), (two.routers[1].own, 6784, device(2, 0).mac));
    assert_eq!(peer.address, home(2).socket_addr().ip());
    assert_eq!(two.routers[0].datapath(two.now, two.routers[1].own).0, "fastdp");
}

#[test]
fn an_ipv6_underlay_needs_a_device_of_its_family_on_both_ends() {
    let at = |first: &str, second: &str| [first, second].map(|ip| Address::udp((ip.parse::<IpAddr>().expect("an address"), 6783).into()));
    let mut two = Two::at(at("fd00::1", "fd00::2"), both(), true);
    assert_eq!(two.in_use(), [true, true]);
    assert_eq!(two.plans[0][0].address, two.homes[1].socket_addr().ip());
    two.command(1, Command::Fastdp(Ok(Device { ipv6: false, ..device(2, 1420) })));
    two.run(Duration::from_secs(2));
    assert_eq!(two.in_use(), [false, false]);
    assert!(two.reason(1).contains("this host has no VXLAN device for IPv6"), "{}", two.reason(1));
    assert!(two.reason(0).contains("the peer sees us at an IPv6 address"), "{}", two.reason(0));
    let local = Two::at(at("fe80::1", "fe80::2"), both(), true);
    assert_eq!(local.in_use(), [false, false]);
    assert!(local.reason(0).contains("link-local"), "{}", local.reason(0));
}

#[test]
fn one_end_alone_does_not() {
    for n in 0..2 {
        let mut policies = both();
        policies[n] = None;
        let two = Two::new(policies, true);
        assert_eq!((two.in_use(), two.agreed()), ([false, false], [0, 0]));
        assert!(two.reason(1 - n).contains("both ends"), "{}", two.reason(1 - n));
        assert!(two.reason(n).contains("without --fastdp"), "{}", two.reason(n));
    }
}

#[test]
fn with_encryption_both_must_trust_the_other_address() {
    let subnet = format!("{}/24", home(1).socket_addr().ip());
    assert_eq!(Two::new([trusting(&subnet), trusting(&subnet)], false).in_use(), [true, true]);
    let two = Two::new([trusting(&subnet), trusting("203.0.113.0/24")], false);
    assert_eq!((two.in_use(), two.agreed()), ([false, false], [0, 0]));
    assert!(two.reason(0).contains("does not trust our address"), "{}", two.reason(0));
    assert!(two.reason(1).contains("none of --trusted-subnets"), "{}", two.reason(1));
}

#[test]
fn a_direction_that_falls_silent_ends_it_within_a_second_for_both_and_it_returns() {
    for cut in [[false, true], [true, false], [false, false]] {
        let mut two = Two::new(both(), true);
        two.vxlan = cut;
        // The last heartbeat may have come a quarter of a second before.
        two.run(Duration::from_millis(400));
        assert_eq!(two.in_use(), [true, true], "two lost heartbeats are no reason");
        two.run(Duration::from_millis(450));
        assert_eq!((two.in_use(), two.agreed()), ([false, false], [1, 1]), "{cut:?}");
        assert!(two.reason(0).contains("through VXLAN"), "{}", two.reason(0));
        two.run(Duration::from_secs(30));
        two.vxlan = [true, true];
        two.run(Duration::from_millis(900));
        assert_eq!(two.in_use(), [false, false], "what failed has to be steady first");
        two.run(Duration::from_millis(1600));
        assert_eq!(two.in_use(), [true, true], "{cut:?}");
        assert_eq!(two.routers[0].counters.fastdp_taken_up.get(), 2);
        assert_eq!(two.routers[0].counters.fastdp_fell_back.get(), 1);
    }
}

#[test]
fn a_device_that_goes_ends_it_at_once_and_the_other_end_hears_why() {
    let mut two = Two::new(both(), true);
    two.command(0, Command::Fastdp(Err("UDP port 6784 is taken".into())));
    assert_eq!((two.in_use(), two.agreed()), ([false, false], [0, 0]));
    assert_eq!(two.reason(0), "UDP port 6784 is taken");
    assert!(two.reason(1).contains("no VXLAN device"), "{}", two.reason(1));
    two.command(0, Command::Fastdp(Ok(device(1, 1420))));
    two.run(Duration::from_secs(2));
    assert_eq!(two.in_use(), [true, true]);
}

#[test]
fn a_path_that_is_too_narrow_for_the_bridge_is_not_used() {
    let mut two = Two::new(both(), true);
    two.command(1, Command::Fastdp(Ok(device(2, 1472))));
    two.run(Duration::from_secs(1));
    assert_eq!((two.in_use(), two.agreed()), ([false, false], [0, 0]));
    assert!(two.reason(1).contains("1498 are needed"), "{}", two.reason(1));
    assert!(two.reason(0).contains("too small datagrams"), "{}", two.reason(0));
}

#[test]
fn heartbeats_of_strangers_count_for_nothing() {
    let mut two = Two::new(both(), true);
    two.vxlan = [false, false];
    let (own, peer) = (two.routers[0].own, two.routers[1].own);
    let genuine = Beat { to_mac: device(1, 0).mac, from_mac: device(2, 0).mac, to: own, from: peer, hears: true };
    let forged = [
        Beat { from_mac: [6, 9, 9, 9, 9, 9], ..genuine },
        Beat { to_mac: [6, 9, 9, 9, 9, 9], ..genuine },
        Beat { from: own, ..genuine },
        Beat { to: peer, ..genuine },
    ];
    for _ in 0..10 {
        two.run(Duration::from_millis(100));
        for beat in forged {
            two.command(0, Command::Beat(beat.to_frame(60)));
        }
        two.command(0, Command::Beat(vec![0; 20]));
    }
    assert_eq!(two.in_use(), [false, false]);
    assert_eq!(two.routers[0].counters.fastdp_strange_beats.get(), 50);
}

#[test]
fn a_device_with_anothers_mac_or_network_is_not_used_and_both_say_so() {
    let good = device(2, 1420);
    for (bad, why) in
        [(Device { mac: device(1, 0).mac, ..good }, "as the MAC of its VXLAN device"), (Device { vni: 8, ..good }, "identifier 8")]
    {
        let mut two = Two::new(both(), true);
        two.command(1, Command::Fastdp(Ok(bad)));
        two.run(Duration::from_secs(1));
        assert_eq!((two.in_use()[0], two.agreed()[0]), (false, 0), "{bad:?}");
        assert!(two.reason(0).contains(why), "{}", two.reason(0));
        two.command(1, Command::Fastdp(Ok(good)));
        two.run(Duration::from_secs(3));
        assert_eq!(two.in_use(), [true, true]);
    }
}

#[test]
fn a_word_that_is_not_repeated_ages_and_an_idle_link_repeats_it() {
    let mut two = Two::new(both(), true);
    two.run(Duration::from_secs(60));
    assert_eq!((two.in_use(), two.agreed()), ([true, true], [1, 1]));
    assert_eq!(two.routers[0].counters.fastdp_fell_back.get(), 0, "sixty idle seconds never interrupt it");
    let peer = two.routers[1].own;
    let exchange = &two.routers[0].fastdp.peers[&peer];
    assert!(exchange.word(two.now).is_some());
    assert_eq!(exchange.word(two.now + WORD_LIFE), None);
}

#[test]
fn a_path_whose_frames_the_kernel_carries_lasts_and_an_unused_one_does_not() {
    for used in [true, false] {
        let mut two = Two::new(both(), true);
        let names = [two.routers[0].own, two.routers[1].own];
        two.command(1, Command::Forget(vec![Target { host: "router1".into(), port: None, tcp: false }]));
        for n in 0..2 {
            // As between routers that have all the links they may have.
            let adjacency = two.routers[n].adjacencies.get_mut(&names[1 - n]).expect("they are neighbours");
            (adjacency.role, adjacency.since) = (Role::Path, two.now);
        }
        for _ in 0..40 {
            two.run(Duration::from_secs(3));
            // One direction only: the other end learns of it.
            if used {
                two.command(0, Command::FastdpUsed(vec![names[1]]));
            }
        }
        let lasts = [0, 1].map(|n| two.routers[n].adjacencies.contains_key(&names[1 - n]));
        assert_eq!(lasts, [used, used]);
    }
}

#[test]
fn a_peer_that_leaves_is_out_of_the_plan() {
    let mut two = Two::new(both(), true);
    two.command(1, Command::Leave);
    assert_eq!((two.in_use(), two.agreed()), ([false, false], [0, 0]));
}
