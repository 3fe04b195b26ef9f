//! One MAC on two hosts.

use weave_router::mesh::command::Event;

use super::*;

/// The log lines of a host that name this text.
fn said(sim: &Sim, host: RouterId, text: &str) -> Vec<String> {
    let texts = sim.log(host).iter().filter_map(|(_, event)| match event {
        Event::Warning(line) | Event::Notice(line) if line.contains(text) => Some(line.clone()),
        _ => None,
    });
    texts.collect()
}

#[test]
fn a_mac_on_two_hosts_is_frozen_named_once_and_free_when_one_goes() {
    let (mut sim, hosts) = line(701, 5);
    converge(&mut sim, seconds(3));
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    sim.expect_warning("is on two hosts");
    let (first, second, mac) = (hosts[1], hosts[3], macs[1]);
    sim.copy_container(mac, second);
    for _ in 0..50 {
        for host in [first, second] {
            sim.send_from(host, mac, Mac::BROADCAST);
            sim.run_for(ms(50));
        }
    }
    sim.run_for(seconds(1));
    for host in &hosts {
        let frozen = sim.snapshot(*host).expect("it runs").frozen;
        let places: Vec<_> = frozen.iter().map(|f| (f.mac, f.holder, f.rival)).collect();
        assert_eq!(places, [(mac.0, sim.name(first), sim.name(second))], "{host:?}");
        let lines = said(&sim, *host, "is on two hosts");
        assert!(lines.len() == 1 && [first, second].iter().all(|h| lines[0].contains(&sim.name(*h).to_string())), "{host:?}: {lines:?}");
    }
    // Both go on speaking: who is elsewhere reaches the first, and each the one on its own bridge.
    let before = sim.total("mac_moves");
    for _ in 0..20 {
        for host in [first, second] {
            sim.send_from(host, mac, Mac::BROADCAST);
        }
        sim.run_for(ms(50));
        for from in [macs[0], macs[2], macs[4]] {
            let frame = sim.send(from, mac, 100);
            sim.run_for(ms(100));
            assert_eq!((sim.arrivals(frame, first), sim.arrivals(frame, second)), (1, 0), "from {from:?}");
        }
    }
    assert_eq!(sim.total("mac_moves"), before, "nothing moves any more");
    assert!(sim.counter(first, "drop_frozen_mac") > 0 && sim.counter(second, "drop_frozen_mac") > 0);
    let answer = sim.send_from(second, mac, macs[4]);
    sim.run_for(ms(200));
    assert_eq!(sim.arrivals(answer, hosts[4]), 1, "who has it too may speak");
    // The first goes.
    sim.remove_container(mac, first);
    sim.run_for(seconds(1));
    let frame = sim.send(macs[0], mac, 100);
    sim.run_for(ms(200));
    assert_eq!(sim.arrivals(frame, second), 1);
    sim.run_for(seconds(65));
    for host in &hosts {
        assert!(sim.snapshot(*host).expect("it runs").frozen.is_empty());
        assert_eq!(said(&sim, *host, "is on one host only").len(), 1);
    }
    nothing_went_wrong(&sim);
}
