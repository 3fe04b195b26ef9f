use sha2::{Digest, Sha256};

use super::super::fuzz::{Stage, home};
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
