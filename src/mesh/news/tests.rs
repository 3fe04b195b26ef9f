use sha2::{Digest, Sha256};

use super::super::command::Command;
use super::super::fuzz::{Stage, home, router_with};
use super::*;
use crate::crypto::{Identity, Signatures, SimulatedSignatures};
use crate::wire::Kind;
use crate::wire::body::Body;
use crate::wire::gossip;
use crate::wire::record::Record as News;

/// What router 2 says of itself.
fn say(stage: &mut Stage, edition: (u64, u64), body: &Body) {
    let neighbour = Identity::from_seed(&[2; 32]);
    let sign =
        |signed: &[u8]| SimulatedSignatures.sign(&neighbour, "weave-router record v1", &[&Sha256::digest(b"weave")[..], signed].concat());
    let record = News::build(&neighbour.public().key, 0, edition, body, sign).expect("a record");
    for message in gossip::records(std::iter::once(record.bytes()), super::super::gossip::DEFAULT_MAX_MESSAGE) {
        let mut bytes = Vec::new();
        Record::Gossip(&message).write(&mut bytes);
        stage.sealed(Kind::ControlDirect, home(2), &bytes, &mut Outbox::default());
    }
}

#[test]
fn a_late_goodbye_of_a_former_life_ends_nothing_of_the_next() {
    let mut stage = Stage::new(true);
    let name = Identity::from_seed(&[2; 32]).name();
    // Its handshake has told that this is its second life.
    stage.router.members.get_mut(&name).expect("a neighbour").stamp.incarnation = 2;
    say(&mut stage, (1, 9), &Body::Left(Extensions::default()));
    assert!(stage.router.store.node(name).is_none(), "the goodbye was heard");
    assert_eq!(stage.router.fib().links.len(), 1);
    say(&mut stage, (2, 9), &Body::Left(Extensions::default()));
    assert_eq!(stage.router.fib().links.len(), 0, "and now it has left");
}

#[test]
fn what_the_operator_says_is_told_first_and_over_changes_of_interfaces() {
    let public = Address::udp(([203, 0, 113, 5], 7000).into());
    let mut router = router_with(1, |config| config.advertise = vec![public]);
    let (mut now, mut out) = (Time(1_000_000_000), Outbox::default());
    router.handle_timeout(now, &mut out);
    let told = |router: &Mesh| router.store.node(router.name()).map(|node| node.addresses.to_vec()).unwrap_or_default();
    assert_eq!((told(&router), router.candidates()), (vec![home(1), public], vec![public, home(1)]));
    now = now + Duration::from_secs(1);
    router.handle_command(now, Command::LocalAddresses((10..60).map(home).collect()), &mut out);
    assert_eq!((told(&router).len(), told(&router).last()), (MAX_ADDRESSES, Some(&public)), "as many as a record holds, it among them");
    assert_eq!(router.candidates().first(), Some(&public));
    assert_eq!(router.nearest_first([public, home(200), home(10)].into_iter()), [home(200)], "a router does not call itself");
    now = now + Duration::from_secs(1);
    router.handle_command(now, Command::LocalAddresses(Vec::new()), &mut out);
    assert_eq!((told(&router), router.candidates()), (vec![public], vec![public]));
    // An interface may have it as well: it is told once.
    now = now + Duration::from_secs(1);
    router.handle_command(now, Command::LocalAddresses(vec![public]), &mut out);
    assert_eq!((told(&router), router.candidates()), (vec![public], vec![public]));
}
