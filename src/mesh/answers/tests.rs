use super::*;
use crate::crypto::{Initiator, Local};
use crate::mesh::command::{Command, Event, Target};
use crate::mesh::fuzz::{self, home};
use crate::wire::handshake::Handshake;

const NOW: Time = Time(1_000_000_000);

fn router(n: u8) -> Mesh {
    let mut mesh = fuzz::router(n);
    mesh.handle_timeout(NOW, &mut Outbox::default());
    mesh
}

/// A first message of router `from` for `to`; `known` for IK.
fn first(from: &Mesh, to: &Mesh, known: bool, index: u32, token: Option<[u8; TOKEN_LEN]>) -> Vec<u8> {
    let local: &Local = &from.local;
    let stamp = Stamp { incarnation: 1, counter: u64::from(index) };
    let mut rng = rand_chacha::ChaCha8Rng::from_seed([index as u8; 32]);
    use rand_core::SeedableRng;
    let (kind, message) = if known {
        (Type::IkOne, Initiator::start_ik(local, to.config.identity.public(), 0, stamp, index, &mut rng).expect("starts").1)
    } else {
        (Type::XxOne, Initiator::start_xx(local, 0, stamp, index, &mut rng).expect("starts").1)
    };
    let shake = Handshake { token, ..Handshake::whole(from.own, kind, index, &message) };
    clear(Kind::HandshakeDirect, to.own, 0, |out| shake.write(out))
}

#[test]
fn a_first_message_from_the_address_that_is_dialled_ends_no_attempt() {
    let (mut victim, member) = (router(1), router(3));
    let target = Target { host: "router2".into(), port: None };
    let mut out = Outbox::default();
    victim.handle_command(NOW, Command::Connect(vec![target.clone()]), &mut out);
    assert!(out.events.contains(&Event::Resolve(target.clone())));
    victim.handle_command(NOW, Command::Resolved(target, Ok(vec![home(2)])), &mut out);
    assert_eq!(victim.attempts.len(), 1);
    // Whichever name is lower: the larger one answers.
    let mut forged = first(&member, &victim, true, 7, None);
    victim.handle_datagram(NOW, home(2), &mut forged, &mut out);
    assert_eq!(victim.attempts.len(), 1, "the attempt goes on");
    assert!(!victim.targets.is_configured(member.own), "the target is not its");
}

#[test]
fn forged_first_messages_leave_room_for_whoever_shows_where_it_is() {
    let (mut mesh, other) = (router(1), router(2));
    let mut out = Outbox::default();
    let mut now = NOW;
    // A thousand addresses, as fast as is free.
    for n in 0..1300u32 {
        now = now + Duration::from_millis(7);
        let from = Address::udp(([10, 1, (n >> 8) as u8, n as u8], 6783).into());
        mesh.handle_datagram(now, from, &mut first(&other, &mesh, false, n + 1, None), &mut out);
    }
    assert_eq!(mesh.answers.kept.len(), MOST);
    out.datagrams.clear();
    mesh.handle_datagram(now, home(2), &mut first(&other, &mesh, false, 5000, None), &mut out);
    let (_, retry) = out.datagrams.pop().expect("it is asked to come again");
    let token = crate::wire::handshake::parse_retry(&retry[16..]).expect("a token");
    mesh.handle_datagram(now, home(2), &mut first(&other, &mesh, false, 5000, Some(token)), &mut out);
    let (_, answer) = out.datagrams.pop().expect("an answer");
    assert!(answer.len() > 100);
}

#[test]
fn a_first_message_shorter_than_its_answer_gets_none() {
    let (mut mesh, other) = (router(1), router(2));
    let mut out = Outbox::default();
    for n in 0..400 {
        let mut short = clear(Kind::HandshakeDirect, mesh.own, 0, |out| Handshake::whole(other.own, Type::XxOne, n, &[]).write(out));
        mesh.handle_datagram(NOW, home(2), &mut short, &mut out);
    }
    assert!(out.datagrams.is_empty(), "no retry token is wasted on it");
}

#[test]
fn a_reject_ends_no_attempt() {
    let mut mesh = router(1);
    let mut out = Outbox::default();
    mesh.begin(NOW, Way::Direct(home(2)), None, None, &mut out);
    let index = *mesh.attempts.keys().next().expect("an attempt");
    let mut reject = clear(Kind::Reject, mesh.own, index, |out| out.extend_from_slice(&Reject::Password.to_bytes()));
    mesh.handle_datagram(NOW, home(2), &mut reject, &mut out);
    assert_eq!(mesh.counters.rejects_ignored.get(), 0, "it was heard");
    mesh.handle_timeout(NOW + Duration::from_secs(8), &mut out);
    assert_eq!(mesh.attempts.len(), 1);
}
