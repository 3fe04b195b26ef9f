use super::*;
use crate::forward::Punt;
use crate::mesh::command::{Command, LocalMac, Target};
use crate::mesh::fuzz::{home, router};
use crate::wire::bindings::{BINDINGS, to_bytes};

const M1: [u8; 6] = [2, 0, 0, 0, 0, 1];
const M2: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn at(seconds: i64) -> Time {
    Time((10 + seconds) as u64 * 1_000_000_000)
}

fn place(n: u8) -> Place {
    (0, [10, 32, 0, n].into())
}

/// Three routers with links to each other.
struct Three {
    routers: [Mesh; 3],
    now: Time,
}

impl Three {
    fn new() -> Three {
        let mut three = Three { routers: [1, 2, 3].map(router), now: at(-5) };
        for n in [1, 2] {
            let target = Target { tcp: false, host: "first".into(), port: None };
            three.command(n, Command::Connect(vec![target.clone()]));
            three.command(n, Command::Resolved(target, Ok(vec![home(1)])));
        }
        three.run_to(at(0));
        three
    }

    fn command(&mut self, n: usize, command: Command) {
        let mut out = Outbox::default();
        self.routers[n].handle_command(self.now, command, &mut out);
        self.carry(n, out);
    }

    fn carry(&mut self, n: usize, out: Outbox) {
        for (to, mut bytes) in out.datagrams {
            let Some(m) = (0..3).find(|m| home(*m as u8 + 1) == to).filter(|_| bytes.len() <= 1472) else { continue };
            let mut back = Outbox::default();
            self.routers[m].handle_datagram(self.now, home(n as u8 + 1), &mut bytes, &mut back);
            self.carry(m, back);
        }
    }

    /// Lets time pass.
    fn run_to(&mut self, end: Time) {
        while self.now < end {
            self.now = self.now + Duration::from_millis(20);
            for n in 0..3 {
                if self.routers[n].next_timeout().is_some_and(|due| due <= self.now) {
                    let mut out = Outbox::default();
                    self.routers[n].handle_timeout(self.now, &mut out);
                    self.carry(n, out);
                }
            }
        }
    }

    /// Lets a moment pass, in which everybody hears the news.
    fn gossip(&mut self) {
        self.run_to(self.now + Duration::from_millis(500));
    }

    fn mac(&mut self, n: usize, mac: [u8; 6], present: bool) {
        self.command(n, Command::LocalMacs(vec![LocalMac { vlan: 0, mac, present, came_from: None }]));
    }

    /// A frame on the bridge of a router says where an address is.
    fn sight(&mut self, n: usize, place: Place, mac: [u8; 6]) {
        self.punt(n, Sighting { place, mac, here: true });
    }

    fn punt(&mut self, n: usize, sighting: Sighting) {
        let mut out = Outbox::default();
        self.routers[n].handle_punt(self.now, Punt::Address(sighting), &mut out);
        self.carry(n, out);
    }

    fn known(&self, n: usize, place: Place) -> Option<Known> {
        self.routers[n].addresses().get(&place, self.now)
    }

    fn there(&self, n: usize, mac: [u8; 6]) -> Option<Known> {
        Some(Known::There(mac, self.routers[n].own))
    }
}

#[test]
fn what_is_seen_on_one_bridge_is_known_on_all_until_it_goes() {
    let mut three = Three::new();
    three.sight(0, place(1), M1);
    assert_eq!(three.known(0, place(1)), None, "a MAC that is not announced says nothing");
    three.mac(0, M1, true);
    three.sight(0, place(1), M1);
    let seen = three.now;
    three.gossip();
    assert_eq!(three.known(0, place(1)), Some(Known::Here(M1, seen)));
    assert_eq!([1, 2].map(|n| three.known(n, place(1))), [three.there(0, M1); 2]);
    three.mac(0, M1, false);
    three.gossip();
    assert_eq!([0, 1, 2].map(|n| three.known(n, place(1))), [None; 3]);
    three.mac(0, M1, true);
    three.sight(0, place(1), M1);
    three.gossip();
    assert_eq!(three.known(1, place(1)), three.there(0, M1));
    let later = three.now + AGEING;
    three.routers[0].age_bindings(later);
    assert!(three.known(0, place(1)).is_none() && three.routers[0].bindings.due().is_some(), "nobody repeated it for ten minutes");
}

#[test]
fn a_container_that_moves_with_its_mac_is_followed() {
    let mut three = Three::new();
    three.mac(0, M1, true);
    three.sight(0, place(1), M1);
    three.gossip();
    three.mac(1, M1, true);
    three.sight(1, place(1), M1);
    three.gossip();
    assert_eq!([0, 2].map(|n| three.known(n, place(1))), [three.there(1, M1); 2]);
    assert!(three.routers[0].bindings.own.is_empty());
    assert_eq!(three.routers[2].counters.bindings_contradicted.get(), 0);
}

#[test]
fn what_is_contradicted_is_answered_by_nobody_for_a_minute() {
    let mut three = Three::new();
    three.mac(0, M1, true);
    three.mac(1, M2, true);
    three.sight(0, place(1), M1);
    three.gossip();
    three.sight(1, place(1), M2);
    three.gossip();
    assert_eq!([0, 1, 2].map(|n| three.known(n, place(1))), [Some(Known::Disputed); 3]);
    three.run_to(at(30));
    three.sight(1, place(1), M2);
    three.gossip();
    // The first container goes, and with it its binding.
    three.mac(0, M1, false);
    three.run_to(at(92));
    three.sight(1, place(1), M2);
    three.gossip();
    assert_eq!(three.known(2, place(1)), three.there(1, M2));
    // A frame that says otherwise is enough, and another address has nothing to do with it.
    three.sight(1, place(2), M2);
    three.gossip();
    three.punt(2, Sighting { place: place(1), mac: M1, here: false });
    assert_eq!((three.known(2, place(1)), three.known(2, place(2))), (Some(Known::Disputed), three.there(1, M2)));
    three.run_to(three.now + DOUBT + Duration::from_secs(2));
    assert_eq!(three.known(2, place(1)), three.there(1, M2));
}

#[test]
fn two_that_hold_one_address_are_as_good_as_none() {
    let mut three = Three::new();
    three.mac(0, M1, true);
    three.mac(1, M2, true);
    // Neither has heard of the other yet.
    three.sight(0, place(1), M1);
    three.sight(1, place(1), M2);
    three.gossip();
    assert!((0..3).all(|n| !matches!(three.known(n, place(1)), Some(Known::There(..)))));
}

#[test]
fn a_liar_binds_its_own_macs_at_most_and_no_more_than_may_be() {
    let mut three = Three::new();
    three.mac(0, M1, true);
    three.gossip();
    // Router 2 says that an address is at a MAC of router 1; then what nobody understands.
    for body in [to_bytes(&[Binding { place: place(9), mac: M1 }]), vec![1, 0, 9]] {
        three.command(1, Command::Publish { kind: BINDINGS, chunks: vec![body] });
        three.gossip();
        assert_eq!([0, 1, 2].map(|n| three.known(n, place(9))), [None; 3]);
    }
    for n in 0..=MOST_OWN as u32 {
        three.sight(0, (0, std::net::Ipv4Addr::from(0x0c00_0000 + n).into()), M1);
    }
    assert_eq!((three.routers[0].bindings.own.len(), three.routers[0].counters.bindings_over_limit.get()), (MOST_OWN, 1));
    three.gossip();
    assert_eq!(three.routers[2].store.bindings_of(three.routers[0].own).len(), MOST_OWN);
    // More contradictions than are remembered: nothing is answered for a while.
    let first = (0, std::net::Ipv4Addr::from(0x0c00_0000).into());
    assert_eq!(three.known(2, first), three.there(0, M1));
    for n in 0..=MOST_DOUBTED as u32 {
        three.punt(2, Sighting { place: (0, std::net::Ipv4Addr::from(0x0b00_0000 + n).into()), mac: M2, here: false });
    }
    assert_eq!((three.known(2, first), three.routers[2].bindings.doubted.len()), (Some(Known::Disputed), MOST_DOUBTED));
    three.now = three.now + DOUBT;
    assert_eq!(three.known(2, first), three.there(0, M1));
}
