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

/// Has router 2 say these to the router on the stage, in one record for each list.
fn say(stage: &mut Stage, liar: &mut Mesh, said: &[Vec<Revocation>]) {
    let bodies = said.iter().map(|record| record.iter().flat_map(Revocation::to_bytes).collect());
    let link = LinkEntry { neighbour: stage.router.name(), cost: 9, max_datagram: 1232 };
    let mut output = Output::default();
    liar.store.publish_links(NOW, &[link], &mut output);
    liar.store.publish_app(NOW, REVOKED_RECORD, bodies.collect(), &mut output);
    for (_, message) in output.to_all_but {
        let mut records = Vec::new();
        Record::Gossip(&message).write(&mut records);
        stage.sealed(Kind::ControlDirect, home(2), &records, &mut Outbox::default());
    }
}

fn revoked(n: u8) -> PublicKey {
    Identity::from_seed(&[n; 32]).public().key
}

#[test]
fn while_an_admin_key_is_replaced_what_the_other_signed_hides_nothing() {
    let (mut stage, mut peer) = (Stage::new(true), router(2));
    let (former, new) = (Identity::from_seed(&[77; 32]), Identity::from_seed(&[76; 32]));
    stage.router.config.admins = vec![new.public().key];
    let by = |admin: &Identity, n| Revocation::sign(&SimulatedSignatures, admin, "weave", revoked(n));
    stage.wait(Duration::from_millis(100), &mut Outbox::default());
    let mixed = vec![by(&former, 90), by(&new, 91), by(&former, 92), by(&new, 93)];
    say(&mut stage, &mut peer, &[mixed]);
    let known: Vec<bool> = (90..94).map(|n| stage.router.revocations.known.contains_key(&revoked(n))).collect();
    assert_eq!(known, [false, true, false, true]);
}

#[test]
fn a_liar_gets_few_checks_out_of_us_and_hides_nothing_for_long() {
    let (mut stage, mut peer) = (Stage::new(true), router(2));
    let admin = Identity::from_seed(&[77; 32]);
    stage.router.config.admins = vec![admin.public().key];
    let forged = |n: u8| Revocation { key: revoked(n), signature: [7; 64] };
    stage.wait(Duration::from_millis(100), &mut Outbox::default());
    for _ in 0..20 {
        let record: Vec<Revocation> = (0..PER_RECORD as u8).map(forged).collect();
        say(&mut stage, &mut peer, &vec![record; crate::mesh::apps::MAX_CHUNKS]);
        // Each is said once more as another record: its number is what changes.
        say(&mut stage, &mut peer, &[]);
    }
    let checked = stage.router.counters.revocations_refused.get();
    assert!(checked <= CHECK_RATE.1 + 20 * 32, "{checked}");
    assert!(stage.router.revocations.later.len() <= MOST_LATER);
    // What one may say at all is bounded too.
    stage.wait(Duration::from_secs(1), &mut Outbox::default());
    let true_one = Revocation::sign(&SimulatedSignatures, &admin, "weave", revoked(99));
    say(&mut stage, &mut peer, &[vec![forged(1), forged(2), true_one]]);
    stage.wait(Duration::from_secs(2), &mut Outbox::default());
    assert!(stage.router.revocations.known.contains_key(&revoked(99)));
    assert!(stage.router.revocations.later.is_empty());
}

#[test]
fn what_is_revoked_again_by_a_new_key_is_said_with_that_one() {
    let (mut ours, mut out) = (router(1), Outbox::default());
    let (former, new) = (Identity::from_seed(&[77; 32]), Identity::from_seed(&[76; 32]));
    ours.config.admins = vec![former.public().key, new.public().key];
    let by = |admin: &Identity| Revocation::sign(&SimulatedSignatures, admin, "weave", revoked(90)).signature;
    for admin in [&former, &new] {
        ours.handle_command(NOW, Command::Revoke { key: revoked(90), signature: Some(by(admin)) }, &mut out);
    }
    let kept = |event: &&Event| matches!(event, Event::Revoked { signature: Some(kept), .. } if **kept == by(&new));
    assert_eq!(out.events.iter().filter(kept).count(), 1, "and kept on disk");
    let said = ours.store.app_record(ours.own, REVOKED_RECORD, 0).map(|body| Revocation::read_all(body).collect::<Vec<_>>());
    assert_eq!(said, Some(vec![Revocation { key: revoked(90), signature: by(&new) }]));
}
