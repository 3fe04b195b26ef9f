//! Meshes with more routers than each may have links: they agree whatever befalls them, and their links lie as they should.

use weave_router::sim::large::{Large, Plan};

use super::*;

fn plan(routers: usize, conn_limit: usize, seed: u64) -> Plan {
    Plan { routers, conn_limit, sites: 1, quality: Quality::wide(), simulated_handshakes: true, seed }
}

/// A mesh that has started and come to rest.
#[track_caller]
fn at_rest(plan: Plan) -> Large {
    let mut mesh = Large::new(plan);
    mesh.start();
    agree(&mut mesh, 60);
    mesh.sim.run_for(seconds(60));
    agree(&mut mesh, 20);
    mesh
}

#[track_caller]
fn agree(mesh: &mut Large, patience: u64) -> Duration {
    let Some(took) = mesh.agree(seconds(patience)) else {
        let all = mesh.alive();
        panic!("no agreement of {}: {:?}, {:?}", all.len(), mesh.sim.agreement(&all), mesh.shape());
    };
    took
}

#[test]
fn a_large_mesh_agrees_whatever_befalls_it() {
    let routers = if full_size() { 1000 } else { 60 };
    let limit = if full_size() { 16 } else { 5 };
    let mut mesh = at_rest(plan(routers, limit, 701));
    let shape = mesh.shape();
    println!("{routers} routers: {shape:?}");
    assert!(shape.connected && shape.fewest >= 2 && shape.most <= limit, "{shape:?}");
    let (before, asked) = (mesh.sent_bytes(), mesh.sim.total("handshakes_started"));
    mesh.sim.run_for(seconds(60));
    let per_second = (mesh.sent_bytes() - before) / 60 / routers as u64;
    // Keys are replaced, and a named host that has no room is asked again every minute.
    let handshakes = (mesh.sim.total("handshakes_started") - asked) / routers as u64;
    assert!(handshakes <= 2 + limit as u64 / 2, "{handshakes} handshakes of each router in a minute");
    assert!(
        per_second < 125 * limit as u64 + 6000 / 60 * (handshakes + 1),
        "{per_second} bytes a second, {handshakes} handshakes of each router"
    );

    mesh.join().expect("a host waits");
    let took = agree(&mut mesh, 20);
    assert!(took < seconds(2), "after a join {took:?}");
    mesh.sim.run_for(seconds(20));

    let killed = mesh.kill(0.1);
    let took = agree(&mut mesh, 60);
    println!("{} of them lost: {took:?}", killed.len());
    mesh.sim.run_for(seconds(10));

    let all = mesh.alive();
    let (left, right) = all.split_at(all.len() / 2);
    mesh.sim.partition(right);
    let halves = [left.to_vec(), right.to_vec()];
    assert!(mesh.agree_among(&halves, seconds(60)).is_some(), "each half agrees");
    mesh.sim.run_for(seconds(20));
    mesh.sim.heal();
    println!("halves that met again: {:?}", agree(&mut mesh, 90));
    killed.into_iter().for_each(|host| mesh.restart(host));
    agree(&mut mesh, 60);
    mesh.sim.run_for(seconds(90));
    agree(&mut mesh, 20);
    let shape = mesh.shape();
    assert!(shape.connected && shape.fewest >= 2 && shape.most <= limit, "{shape:?}");
    nothing_went_wrong(&mesh.sim);
}

#[test]
fn any_limit_from_three_up_gives_one_piece_of_low_diameter() {
    let seeds = if full_size() { 20 } else { 1 };
    for (limit, sites) in [(3, 1), (4, 1), (8, 1), (16, 1), (3, 3), (8, 3)] {
        for seed in 0..seeds {
            let mesh = at_rest(Plan { sites, ..plan(40, limit, 720 + seed) });
            let shape = mesh.shape();
            println!("limit {limit}, {sites} networks, seed {seed}: {shape:?}");
            assert!(shape.connected && shape.most <= limit, "limit {limit}, {sites} networks, seed {seed}: {shape:?}");
            // Three links each reach 1 + 3 + 6 + 12 + 24 routers; twice that is far from a ring's 20.
            assert!(shape.diameter <= 9, "limit {limit}, {sites} networks, seed {seed}: {shape:?}");
            nothing_went_wrong(&mesh.sim);
        }
    }
}

#[test]
fn a_star_of_names_becomes_a_mesh_within_its_limit() {
    let options = RouterOptions { conn_limit: 4, ..RouterOptions::default() };
    let (mut sim, hosts) = hosts(740, 60, &options);
    sim.lan(&hosts, Quality::wide());
    for host in &hosts[1..] {
        sim.connect(*host, hosts[0]);
    }
    sim.start_all();
    converge(&mut sim, seconds(20));
    sim.run_for(seconds(120));
    assert!(sim.is_converged());
    let most = hosts.iter().map(|host| sim.links(*host).len()).max();
    assert!(most <= Some(4), "{most:?} links");
    nothing_went_wrong(&sim);
}

#[test]
fn nothing_is_said_again_at_rest_and_noise_is_no_news() {
    let quality = Quality { jitter: ms(4), ..Quality::wide() };
    let mut mesh = at_rest(Plan { quality, ..plan(30, 5, 750) });
    mesh.sim.run_for(seconds(120));
    let said = |mesh: &Large| mesh.sim.total("record_accepted");
    let before = said(&mesh);
    mesh.sim.run_for(seconds(600));
    // A record that all the others accept is 29 here: a cost on the verge between two levels may change once or twice.
    let records = (said(&mesh) - before) / 29;
    assert!(records <= 8, "{records} records in ten minutes of 30 routers at rest");
    nothing_went_wrong(&mesh.sim);
}

#[test]
fn what_routers_do_abreast_is_the_same_on_any_number_of_threads() {
    let trace = |threads: usize| {
        let mut sim = Sim::new(760, Options { threads, ..Options::default() });
        let options = RouterOptions { conn_limit: 4, ..RouterOptions::default() };
        let hosts: Vec<RouterId> = (0..24).map(|_| sim.router(&options)).collect();
        sim.lan(&hosts, Quality { jitter: ms(3), ..Quality::wide() });
        hosts[1..].iter().for_each(|host| sim.connect(*host, hosts[0]));
        sim.start_all();
        sim.run_for(seconds(12));
        assert!(sim.is_converged());
        sim.crash(hosts[5]);
        sim.run_for(seconds(8));
        assert!(sim.is_converged());
        nothing_went_wrong(&sim);
        sim.trace()
    };
    let one = trace(1);
    assert_eq!([trace(2), trace(5)], [one; 2]);
}

#[test]
fn simulated_handshakes_change_nothing_that_is_measured() {
    let measured = |simulated_handshakes| {
        let mut mesh = Large::new(Plan { simulated_handshakes, ..plan(12, 4, 760) });
        mesh.start();
        let took = agree(&mut mesh, 60);
        mesh.sim.run_for(seconds(150));
        (took, mesh.sent_bytes(), mesh.sim.total("handshakes_completed"), mesh.sim.total("record_accepted"), mesh.shape())
    };
    assert_eq!(measured(true), measured(false));
}
