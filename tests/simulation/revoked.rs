//! Members that are put out of the mesh.

use weave_router::crypto::{Identity, PublicKey, Revocation, SimulatedSignatures};
use weave_router::mesh::command::{Command, Event};
use weave_router::sim::Quality;

use super::*;

fn admin() -> Identity {
    Identity::from_seed(&[200; 32])
}

fn governed() -> RouterOptions {
    RouterOptions { admins: vec![admin().public().key], ..RouterOptions::default() }
}

fn revocation(signer: &Identity, key: PublicKey) -> Command {
    let signed = Revocation::sign(&SimulatedSignatures, signer, "weave", key);
    Command::Revoke { key, signature: Some(signed.signature) }
}

/// Hosts in a line, the last of which is also joined with the third: the one to be put out.
fn line_and_guest(seed: u64, options: &RouterOptions) -> (Sim, Vec<RouterId>, RouterId) {
    let (mut sim, all) = hosts(seed, 7, options);
    let (line, guest) = (all[..6].to_vec(), all[6]);
    for pair in line.windows(2) {
        sim.wire(pair[0], pair[1], Quality { latency: ms(20), ..Quality::default() });
        sim.connect(pair[1], pair[0]);
    }
    for host in [line[2], line[5]] {
        sim.wire(host, guest, Quality::default());
        sim.connect(guest, host);
    }
    sim.start_all();
    converge(&mut sim, seconds(5));
    (sim, line, guest)
}

fn is_out(sim: &Sim, hosts: &[RouterId], guest: RouterId) -> bool {
    hosts.iter().all(|host| !sim.links(*host).contains(&guest) && !sim.reachable(*host).contains(&guest))
}

/// All of these reach each other, and nobody else.
fn among_themselves(sim: &Sim, hosts: &[RouterId]) -> bool {
    hosts.iter().all(|host| {
        sim.reachable(*host).into_iter().chain([*host]).collect::<std::collections::BTreeSet<_>>() == hosts.iter().copied().collect()
    })
}

fn heard(sim: &Sim, router: RouterId, words: &str) -> bool {
    sim.log(router).iter().any(|(_, event)| matches!(event, Event::Refused { reason, .. } if reason.contains(words)))
}

fn knows(sim: &Sim, router: RouterId, key: PublicKey) -> bool {
    sim.snapshot(router).is_some_and(|snapshot| snapshot.revoked.iter().any(|member| member.key == key.to_string() && member.by == "admin"))
}

#[test]
fn a_member_that_the_administrator_revokes_is_out_everywhere_within_a_second() {
    let (mut sim, line, guest) = line_and_guest(901, &governed());
    let macs = containers(&mut sim);
    all_pairs_exchange_frames(&mut sim, &macs);
    sim.expect_warning("revoked this router's key");
    let key = sim.key(guest);
    sim.command(line[0], revocation(&admin(), key));
    let took = sim.run_until(seconds(1), |sim| is_out(sim, &line, guest));
    assert!(took.is_some(), "it still has links or routes after a second");
    let frame = sim.send(macs[6], macs[0], 100);
    let flood = sim.broadcast(macs[6]);
    sim.run_for(seconds(10));
    assert!(line.iter().all(|host| sim.arrivals(frame, *host) + sim.arrivals(flood, *host) == 0), "what it sends arrives nowhere");
    sim.run_for(seconds(40));
    assert!(heard(&sim, guest, "revoked there"), "it is told why");
    assert!(is_out(&sim, &line, guest) && among_themselves(&sim, &line));
    all_pairs_exchange_frames(&mut sim, &macs[..6]);
    nothing_went_wrong(&sim);

    // Neither restarts of all, nor the end of the one that said it first, lets it in again, nor by a newcomer.
    for host in &line {
        sim.crash(*host);
    }
    line[1..].iter().for_each(|host| sim.start(*host));
    sim.run_for(seconds(30));
    let newcomer = sim.router(&governed());
    sim.wire(newcomer, line[4], Quality::default());
    sim.wire(newcomer, guest, Quality::default());
    sim.connect(newcomer, line[4]);
    sim.connect(newcomer, guest);
    sim.start(newcomer);
    assert!(sim.run_until(seconds(20), |sim| knows(sim, newcomer, key)).is_some(), "a newcomer is told");
    sim.run_for(seconds(5));
    let all = [&line[1..], &[newcomer]].concat();
    assert!(is_out(&sim, &all, guest) && among_themselves(&sim, &all));
    nothing_went_wrong(&sim);
}

#[test]
fn without_an_administrator_it_is_out_for_one_router_alone() {
    let (mut sim, line, guest) = line_and_guest(902, &RouterOptions::default());
    let key = sim.key(guest);
    sim.command(line[5], Command::Revoke { key, signature: None });
    sim.run_for(seconds(3));
    assert!(is_out(&sim, &line[5..], guest));
    assert!(sim.links(line[2]).contains(&guest) && sim.reachable(line[0]).contains(&guest), "the others go on with it");
    sim.crash(line[5]);
    sim.start(line[5]);
    sim.run_for(seconds(10));
    assert!(is_out(&sim, &line[5..], guest), "also after a restart");
    assert!(sim.reachable(line[5]).contains(&line[0]));
    nothing_went_wrong(&sim);
}

#[test]
fn nobody_but_the_administrator_puts_a_member_out() {
    let (mut sim, line, guest) = line_and_guest(903, &governed());
    let key = sim.key(line[0]);
    let liar = Identity::from_seed(&[66; 32]);
    sim.command(guest, revocation(&liar, key));
    let Command::Revoke { signature: Some(signature), .. } = revocation(&liar, key) else { panic!("it is signed") };
    let body = [&key.0[..], &signature].concat();
    sim.command(guest, Command::Publish { kind: weave_router::mesh::revoked::REVOKED_RECORD, chunks: vec![body] });
    sim.run_for(seconds(5));
    assert!(sim.total("revocations_refused") >= 7, "{}", sim.total("revocations_refused"));
    assert!(sim.is_converged());
    nothing_went_wrong(&sim);
}

#[test]
fn a_router_that_knows_no_administrator_passes_the_word_on() {
    let (mut sim, line, guest) = line_and_guest(904, &governed());
    sim.crash(line[1]);
    sim.start_with(line[1], &RouterOptions::default());
    converge(&mut sim, seconds(10));
    sim.expect_warning("revoked this router's key");
    let key = sim.key(guest);
    sim.command(line[0], revocation(&admin(), key));
    let others = [&line[..1], &line[2..]].concat();
    assert!(sim.run_until(seconds(1), |sim| is_out(sim, &others, guest)).is_some());
    sim.run_for(seconds(20));
    assert!(is_out(&sim, &line, guest), "no link leads there any more");
    assert_eq!(sim.snapshot(line[1]).expect("it runs").revoked.len(), 0);
    nothing_went_wrong(&sim);
}
