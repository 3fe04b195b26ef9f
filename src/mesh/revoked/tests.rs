use super::*;
use crate::crypto::{Identity, SimulatedSignatures};
use crate::mesh::command::{Command, Target};
use crate::mesh::fuzz::{Stage, home, router};
use crate::wire::Kind;
use crate::wire::body::LinkEntry;
use crate::wire::control::Record;

const NOW: Time = Time(1_000_000_000);

/// Hands over what was sent to `address`, all of it from `from`.
fn carry(out: &mut Outbox, mesh: &mut Mesh, address: crate::wire::Address, from: crate::wire::Address) -> Outbox {
    let mut back = Outbox::default();
    for (to, mut bytes) in out.datagrams.drain(..) {
        if to == address {
            mesh.handle_datagram(NOW, from, &mut bytes, &mut back);
        }
    }
    back
}

#[test]
fn a_key_that_is_revoked_while_its_router_answers_our_handshake_gets_no_session() {
    let (mut ours, mut theirs, mut out) = (router(1), router(2), Outbox::default());
    ours.handle_timeout(NOW, &mut Outbox::default());
    theirs.handle_timeout(NOW, &mut Outbox::default());
    let target = Target { host: "router2".into(), port: None, tcp: false };
    ours.handle_command(NOW, Command::Connect(vec![target.clone()]), &mut out);
    ours.handle_command(NOW, Command::Resolved(target, Ok(vec![home(2)])), &mut out);
    let mut answer = carry(&mut out, &mut theirs, home(2), home(1));
    let mut proof = carry(&mut answer, &mut ours, home(1), home(2));
    let mut word = carry(&mut proof, &mut theirs, home(2), home(1));
    assert!(ours.keyrings.is_empty() && ours.attempts.values().any(|attempt| attempt.pending.is_some()), "it has yet to prove itself");
    let key = theirs.config.identity.public().key;
    ours.handle_command(NOW, Command::Revoke { key, signature: None }, &mut Outbox::default());
    carry(&mut word, &mut ours, home(1), home(2));
    assert!(ours.keyrings.is_empty() && ours.adjacencies.is_empty() && ours.members.is_empty());
    assert!(ours.fib().sessions.is_empty());
}

#[test]
fn a_revocation_that_only_a_liar_repeats_counts_as_said_by_nobody() {
    let (mut stage, mut liar, mut out) = (Stage::new(true), router(2), Outbox::default());
    let (admin, revoked) = (Identity::from_seed(&[77; 32]), Identity::from_seed(&[78; 32]).public().key);
    stage.router.config.admins = vec![admin.public().key];
    let true_one = Revocation::sign(&SimulatedSignatures, &admin, "weave", revoked);
    stage.router.revocations.known.insert(revoked, Some(true_one.signature));
    let forged = Revocation { signature: [7; 64], ..true_one };
    let link = LinkEntry { neighbour: stage.router.name(), cost: 9, max_datagram: 1232 };
    let mut say = |stage: &mut Stage, revocation: Revocation| {
        let mut said = Output::default();
        liar.store.publish_links(NOW, &[link], &mut said);
        liar.store.publish_app(NOW, REVOKED_RECORD, vec![revocation.to_bytes().to_vec()], &mut said);
        for (_, message) in said.to_all_but {
            let mut records = Vec::new();
            Record::Gossip(&message).write(&mut records);
            stage.sealed(Kind::ControlDirect, home(2), &records, &mut out);
        }
        stage.wait(Duration::from_millis(300), &mut out);
        assert!(stage.router.routes.reachable(router(2).name()));
        stage.router.said_revoked().contains(&revoked)
    };
    stage.wait(Duration::from_millis(100), &mut Outbox::default());
    assert!(!say(&mut stage, forged), "a word that convinces nobody keeps the revocation from nobody");
    assert!(say(&mut stage, true_one));
}
