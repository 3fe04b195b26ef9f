//! Hosts that lose their address and have another after a while: how soon they are back, and that addresses which come and go cost little.

use weave_router::mesh::command::Command;
use weave_router::sim::{FrameId, WireId};

use super::*;

/// As long as a kernel and a DHCP client take to tell a router of an address.
const TOLD_AFTER: Duration = Duration::from_millis(50);

/// A laptop that was told the address of another host, and a link between them for a while.
fn laptop(seed: u64) -> (Sim, [RouterId; 2], WireId, Vec<Mac>) {
    let (mut sim, hosts) = hosts(seed, 2, &RouterOptions::default());
    let [laptop, server] = [hosts[0], hosts[1]];
    let wire = sim.wire(laptop, server, Quality { latency: ms(5), ..Quality::default() });
    sim.connect(laptop, server);
    sim.start_all();
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    sim.run_for(seconds(2));
    (sim, [laptop, server], wire, macs)
}

/// The laptop is out of reach: its interface is down, and it has no address. Where `refusing`, kernels say so to whoever sends.
fn lose(sim: &mut Sim, wire: WireId, laptop: RouterId, refusing: bool) {
    sim.unplug(wire, &[laptop]);
    if refusing {
        sim.unroute(wire);
    }
    sim.run_for(TOLD_AFTER);
    sim.command(laptop, Command::LocalAddresses(Vec::new()));
}

/// The laptop has another address: how long it takes until both ends have a link, and a frame has arrived at each.
fn back(sim: &mut Sim, wire: WireId, hosts: [RouterId; 2], macs: &[Mac]) -> Duration {
    sim.mend(wire);
    sim.readdress(wire, hosts[0], TOLD_AFTER);
    let (mut took, mut sent) = (Duration::ZERO, Vec::<[FrameId; 2]>::new());
    loop {
        sent.push([sim.send(macs[0], macs[1], 200), sim.send(macs[1], macs[0], 200)]);
        sim.run_for(ms(20));
        took += ms(20);
        let linked = sim.links(hosts[0]).contains(&hosts[1]) && sim.links(hosts[1]).contains(&hosts[0]);
        let arrived = |way: usize, to: RouterId| sent.iter().any(|frames| sim.arrivals(frames[way], to) == 1);
        if (linked && arrived(0, hosts[1]) && arrived(1, hosts[0])) || took >= seconds(20) {
            return took;
        }
    }
}

#[test]
fn a_host_without_an_address_for_seconds_is_back_within_a_second_of_the_next() {
    for (n, gap) in [1000, 4000, 10_000, 2300, 5700].into_iter().enumerate() {
        for refusing in [false, true] {
            let (mut sim, hosts, wire, macs) = laptop(900 + 2 * n as u64 + u64::from(refusing));
            lose(&mut sim, wire, hosts[0], refusing);
            assert!(!sim.links(hosts[0]).contains(&hosts[1]), "it knows at once that its interface is down");
            sim.run_for(ms(gap) - TOLD_AFTER);
            let took = back(&mut sim, wire, hosts, &macs);
            println!("{gap} ms without an address, refusing: {refusing}: back after {took:?}");
            assert!(took <= seconds(1), "{gap} ms without an address, refusing: {refusing}: {took:?}");
            nothing_went_wrong(&sim);
        }
    }
}

#[test]
fn addresses_that_come_and_go_begin_nothing_anew_more_than_once_a_second() {
    let (mut sim, hosts, wire, macs) = laptop(920);
    lose(&mut sim, wire, hosts[0], false);
    let other = sim.addresses(hosts[1]).iter().map(|address| address.socket_addr().port()).next().expect("an address");
    let before = sim.counter(hosts[0], "handshakes_started");
    for n in 0..100u8 {
        // Those of some other interface, which leads nowhere.
        let address = weave_router::wire::Address::udp(([10, 200, n, 1], other).into());
        sim.command(hosts[0], Command::LocalAddresses(vec![address]));
        sim.run_for(ms(50));
        sim.command(hosts[0], Command::LocalAddresses(Vec::new()));
        sim.run_for(ms(50));
    }
    let begun = sim.counter(hosts[0], "handshakes_started") - before;
    println!("{begun} handshakes begun in ten seconds, while an address came and went ten times a second");
    assert!((5..=24).contains(&begun), "{begun} handshakes");
    assert!(back(&mut sim, wire, hosts, &macs) <= seconds(2));
    nothing_went_wrong(&sim);
}

#[test]
fn an_address_that_is_merely_gone_begins_nothing_anew() {
    let (mut sim, hosts, wire, _) = laptop(930);
    // It has one more address, of an interface that leads nowhere.
    let own = sim.addresses(hosts[0]);
    let more = weave_router::wire::Address::udp(([10, 200, 0, 1], own[0].socket_addr().port()).into());
    sim.command(hosts[0], Command::LocalAddresses([own.clone(), vec![more]].concat()));
    sim.run_for(seconds(2));
    sim.unplug(wire, &[hosts[0]]);
    // The first message and two repetitions: the next is two seconds after the last.
    sim.run_for(ms(1700));
    let before = sim.counter(hosts[0], "handshakes_started");
    sim.command(hosts[0], Command::LocalAddresses(own));
    sim.run_for(ms(500));
    assert_eq!(sim.counter(hosts[0], "handshakes_started"), before);
    nothing_went_wrong(&sim);
}
