use super::*;
use crate::crypto::{Exchange, Initiator, Local, Start};
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
fn first(from: &Mesh, to: &Mesh, known: bool, index: u32, token: Option<[u8; TOKEN_LEN]>) -> Vec<Vec<u8>> {
    let local: &Local = &from.local;
    let stamp = Stamp { incarnation: 1, counter: u64::from(index) };
    let mut rng = rand_chacha::ChaCha8Rng::from_seed([index as u8; 32]);
    use rand_core::SeedableRng;
    let start = Start { psk_index: 0, stamp, local_index: index, exchange: Exchange::Hybrid };
    let (kind, message) = if known {
        (Type::IkOne, Initiator::start_ik(local, to.config.identity.public(), start, &mut rng).expect("starts").1)
    } else {
        (Type::XxOne, Initiator::start_xx(local, start, &mut rng).expect("starts").1)
    };
    let shake = Handshake { token, ..Handshake::whole(from.own, kind, index, &message) };
    shake.cut().map(|part| clear(Kind::HandshakeDirect, to.own, 0, |out| part.write(out))).collect()
}

fn hand_over(mesh: &mut Mesh, now: Time, from: Address, datagrams: Vec<Vec<u8>>, out: &mut Outbox) {
    datagrams.into_iter().for_each(|mut bytes| mesh.handle_datagram(now, from, &mut bytes, out));
}

#[test]
fn a_first_message_from_the_address_that_is_dialled_ends_no_attempt() {
    let (mut victim, member) = (router(1), router(3));
    let target = Target { host: "router2".into(), port: None, tcp: false };
    let mut out = Outbox::default();
    victim.handle_command(NOW, Command::Connect(vec![target.clone()]), &mut out);
    assert!(out.events.contains(&Event::Resolve(target.clone())));
    victim.handle_command(NOW, Command::Resolved(target, Ok(vec![home(2)])), &mut out);
    assert_eq!(victim.attempts.len(), 1);
    // Whichever name is lower: the larger one answers.
    let forged = first(&member, &victim, true, 7, None);
    hand_over(&mut victim, NOW, home(2), forged, &mut out);
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
        let forged = first(&other, &mesh, false, n + 1, None);
        hand_over(&mut mesh, now, from, forged, &mut out);
    }
    assert_eq!(mesh.answers.kept.len(), MOST);
    out.datagrams.clear();
    let asked = first(&other, &mesh, false, 5000, None);
    hand_over(&mut mesh, now, home(2), asked, &mut out);
    let (_, retry) = out.datagrams.pop().expect("it is asked to come again");
    let token = crate::wire::handshake::parse_retry(&retry[16..]).expect("a token");
    let again = first(&other, &mesh, false, 5000, Some(token));
    hand_over(&mut mesh, now, home(2), again, &mut out);
    let (_, answer) = out.datagrams.pop().expect("an answer");
    assert!(answer.len() > 100);
}

#[test]
fn a_first_message_that_is_replayed_from_elsewhere_gets_no_answer() {
    let (mut mesh, other) = (router(1), router(2));
    let recorded = first(&other, &mesh, true, 7, None);
    for (from, answers) in [(home(2), true), (home(66), false)] {
        let mut out = Outbox::default();
        hand_over(&mut mesh, NOW, from, recorded.clone(), &mut out);
        assert_eq!(!out.datagrams.is_empty(), answers);
    }
    assert_eq!(mesh.counters.stale_stamps.get(), 1);
}

#[test]
fn a_third_message_under_another_name_than_it_proves_brings_no_session() {
    for honest in [true, false] {
        let (mut ours, mut theirs, mut out) = (router(1), router(2), Outbox::default());
        ours.begin(NOW, Way::Direct(home(2)), None, None, &mut out);
        let mut back = Outbox::default();
        hand_over(&mut theirs, NOW, home(1), out.datagrams.drain(..).map(|(_, bytes)| bytes).collect(), &mut back);
        hand_over(&mut ours, NOW, home(2), back.datagrams.drain(..).map(|(_, bytes)| bytes).collect(), &mut out);
        let (_, mut third) = out.datagrams.swap_remove(0);
        assert_eq!(Handshake::parse(&third[16..]).map(|shake| shake.kind), Some(Type::XxThree));
        if !honest {
            third[16..22].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
        }
        hand_over(&mut theirs, NOW, home(1), vec![third], &mut back);
        assert_eq!(theirs.keyrings.contains_key(&ours.own), honest);
    }
}

#[test]
fn who_has_shown_where_it_is_keeps_its_place() {
    let kept = |proven| Kept { first: Vec::new(), answer: Vec::new(), at: NOW, index: 1, half_open: None, failures: 0, proven };
    let way = |n: u16| Way::Direct(Address::udp(([10, 1, (n >> 8) as u8, n as u8], 6783).into()));
    let mut answers = Answers::default();
    answers.kept.extend((0..MOST as u16).map(|n| ((way(n), 1), kept(true))));
    assert!(!answers.make_room(way(5000), true) && answers.count() == MOST);
    answers.kept.insert((way(7), 1), kept(false));
    assert!(!answers.make_room(way(5000), false));
    assert!(answers.make_room(way(5000), true) && !answers.kept.contains_key(&(way(7), 1)));
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

#[test]
fn an_answer_that_comes_after_that_to_a_later_handshake_brings_no_key_that_the_peer_has_let_go_of() {
    let (mut ours, mut theirs) = (router(1), router(2));
    let known = *theirs.config.identity.public();
    let (near, far) = (Way::Direct(home(2)), Way::Direct(home(22)));
    let mut ask = |way| {
        let mut out = Outbox::default();
        ours.begin(NOW, way, None, Some(known), &mut out);
        let mut back = Outbox::default();
        hand_over(&mut theirs, NOW, home(1), out.datagrams.into_iter().map(|(_, bytes)| bytes).collect(), &mut back);
        back.datagrams.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>()
    };
    let (late, early) = (ask(near), ask(far));
    let mut word = Outbox::default();
    hand_over(&mut ours, NOW, home(22), early, &mut word);
    let word = word.datagrams.into_iter().map(|(_, bytes)| bytes).collect();
    hand_over(&mut theirs, NOW, home(1), word, &mut Outbox::default());
    hand_over(&mut ours, NOW, home(2), late, &mut Outbox::default());
    assert!(ours.attempts.is_empty());
    let current = ours.keyrings.get(&theirs.own).and_then(|keys| keys.current()).expect("a session");
    assert!(theirs.indices.contains_key(&current.remote_index()), "the peer has what we seal with");
}

/// How many bytes the answer to each of these datagrams has.
fn answered(mesh: &mut Mesh, datagrams: &[Vec<u8>]) -> Vec<usize> {
    let mut sizes = Vec::new();
    for datagram in datagrams {
        let mut out = Outbox::default();
        mesh.handle_datagram(NOW, home(2), &mut datagram.clone(), &mut out);
        sizes.push(out.datagrams.iter().filter(|(to, _)| *to == home(2)).map(|(_, bytes)| bytes.len()).sum());
    }
    sizes
}

#[test]
fn an_answer_in_parts_is_no_larger_than_its_question_nor_is_what_is_sent_again() {
    for known in [false, true] {
        let (mut mesh, other) = (router(1), router(2));
        let parts = first(&other, &mesh, known, 7, None);
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [827, 827]);
        let sizes = answered(&mut mesh, &parts);
        assert_eq!(sizes[0], 0, "the half of a question gets no answer");
        assert!((1..=1654).contains(&sizes[1]), "{sizes:?}");
        // Whichever part was lost on its way back, the same part of the question brings it.
        for part in [0, 1] {
            let again = answered(&mut mesh, &parts[part..=part]);
            assert!((1..=827).contains(&again[0]), "{again:?}");
        }
    }
}

#[test]
fn a_short_part_sent_again_does_not_bring_a_long_part_of_the_answer() {
    let (mut mesh, other) = (router(1), router(2));
    let parts = first(&other, &mesh, false, 7, None);
    let message = [&parts[0][27..], &parts[1][27..]].concat();
    let cuts = [&message[..10], &message[10..1000], &message[1000..]];
    let part = |fragment: u8| {
        let shake = Handshake { fragment, fragments: 3, ..Handshake::whole(other.own, Type::XxOne, 7, cuts[usize::from(fragment)]) };
        clear(Kind::HandshakeDirect, mesh.own, 0, |out| shake.write(out))
    };
    let parts: Vec<Vec<u8>> = (0..3).map(part).collect();
    assert!(answered(&mut mesh, &parts)[2] > 1000);
    assert_eq!(answered(&mut mesh, &parts[..1]), [0]);
}
