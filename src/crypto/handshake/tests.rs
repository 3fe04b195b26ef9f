use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use super::*;
use crate::crypto::aead::Providers;
use crate::crypto::session::OpenError;
use crate::crypto::suite::{Suite, SuiteTiming};
use crate::wire::{HEADER_LEN, Header, Kind, TAG_LEN};

const FIRST: Stamp = Stamp { incarnation: 7, counter: 1 };
const SECOND: Stamp = Stamp { incarnation: 9, counter: 4 };

fn rng(seed: u8) -> ChaCha12Rng {
    ChaCha12Rng::from_seed([seed; 32])
}

fn offer() -> Offer {
    let suites = Suite::available().iter().map(|suite| SuiteTiming { suite: *suite, nanoseconds: 500 }).collect();
    Offer { version_min: 1, version_max: 2, features: 5, suites, lanes: 2, plain: false, nickname: Some("berlin-1".into()) }
}

/// A router whose passwords are the keys `psks`, newest first; none for an open network.
fn local(seed: u8, psks: &[u8]) -> Local {
    let psks = match psks.split_first() {
        Some((first, others)) => {
            Psks::new(Psk::from_key([*first; 32]), others.iter().map(|psk| Psk::from_key([*psk; 32])).collect()).expect("few")
        }
        None => Psks::none("weave"),
    };
    Local {
        identity: Arc::new(Identity::from_seed(&[seed; 32])),
        network: "weave".into(),
        psks,
        offer: offer(),
        providers: Providers::default(),
    }
}

fn start(pattern: Pattern, from: &Local, to: &Local, psk_index: usize) -> (Initiator, Vec<u8>) {
    match pattern {
        Pattern::Xx => Initiator::start_xx(from, psk_index, FIRST, 11, &mut rng(1)),
        Pattern::Ik => Initiator::start_ik(from, to.identity.public(), psk_index, FIRST, 11, &mut rng(1)),
    }
    .expect("a good start")
}

/// Runs a handshake; initiator's end first.
fn run(pattern: Pattern, from: &Local, to: &Local, psk_index: usize) -> Result<(Established, Established), HandshakeError> {
    let (mut initiator, first) = start(pattern, from, to, psk_index);
    let answer = Responder::answer(to, pattern, &first, SECOND, 22, &mut rng(2))?;
    assert!(answer.message.len() <= first.len(), "an answer of {} to {} bytes", answer.message.len(), first.len());
    let (ours, third) = initiator.read_answer(from, &answer.message)?;
    let theirs = match (answer.next, third) {
        (Next::Established(theirs), None) => *theirs,
        (Next::Third(mut responder), Some(third)) => responder.read_third(to, &third)?,
        (next, third) => panic!("{pattern:?} ended with {next:?} and {third:?}"),
    };
    Ok((ours, theirs))
}

/// Sends one datagram over a fresh session.
fn deliver(from: &Session, to: &Session, lane: u8) -> Result<Vec<u8>, OpenError> {
    let counter = from.reserve(lane, 1).expect("a fresh key");
    let (destination, index) = (from.peer(), from.remote_index());
    let header = Header { kind: Kind::ControlDirect, hop_limit: 32, lane, label: 0, destination, index, counter };
    let mut datagram = [&header.to_bytes()[..], b"hello", &[0; TAG_LEN]].concat();
    from.seal(lane, counter, &mut datagram);
    to.open(&header, &mut datagram).map(|text| text.to_vec())
}

const PATTERNS: [Pattern; 2] = [Pattern::Xx, Pattern::Ik];

#[test]
fn both_patterns_agree_on_everything() {
    for pattern in PATTERNS {
        let (a, b) = (local(1, &[1]), local(2, &[1]));
        let (ours, theirs) = run(pattern, &a, &b, 0).expect("established");
        assert_eq!((&ours.peer, &theirs.peer), (b.identity.public(), a.identity.public()));
        assert_eq!((ours.stamp, theirs.stamp), (SECOND, FIRST));
        assert_eq!((ours.version, theirs.version), (2, 2));
        assert_eq!((&ours.offer, &theirs.offer), (&offer(), &offer()));
        assert!(ours.authenticated && theirs.authenticated);
        assert_eq!((ours.session.local_index(), ours.session.remote_index()), (11, 22));
        assert_eq!((theirs.session.local_index(), theirs.session.remote_index()), (22, 11));
        assert_eq!((ours.session.suite(), ours.session.lanes()), (Suite::available()[0], 2));

        assert_eq!(ours.session.is_confirmed(), pattern == Pattern::Ik, "only an IK answer proves the password");
        assert!(ours.session.may_seal() && !theirs.session.may_seal());
        for lane in 0..=2 {
            assert_eq!(deliver(&ours.session, &theirs.session, lane).as_deref(), Ok(&b"hello"[..]));
            assert_eq!(deliver(&theirs.session, &ours.session, lane).as_deref(), Ok(&b"hello"[..]));
        }
        assert!(ours.session.is_confirmed() && theirs.session.may_seal());
    }
}

#[test]
fn passwords_meet_in_any_order() {
    for pattern in PATTERNS {
        let (a, b) = (local(1, &[8, 5]), local(2, &[1, 2, 3, 5]));
        assert_eq!(run(pattern, &a, &b, 0).err(), Some(HandshakeError::Password), "{pattern:?}");
        let (ours, theirs) = run(pattern, &a, &b, 1).expect("password 5 is in common");
        assert_eq!((ours.psk_index, theirs.psk_index), (1, 3));
        assert!(deliver(&ours.session, &theirs.session, 0).is_ok());
        assert_eq!(Initiator::start_xx(&a, 2, FIRST, 1, &mut rng(1)).err(), Some(HandshakeError::NoSuchPassword(2)));
    }
}

#[test]
fn without_a_password_nobody_is_authenticated() {
    for pattern in PATTERNS {
        let (ours, theirs) = run(pattern, &local(1, &[]), &local(2, &[]), 0).expect("established");
        assert!(!ours.authenticated && !theirs.authenticated);
        assert_eq!(run(pattern, &local(1, &[1]), &local(2, &[]), 0).err(), Some(HandshakeError::Password));
        assert_eq!(run(pattern, &local(1, &[]), &local(2, &[1]), 0).err(), Some(HandshakeError::Password));
    }
}

#[test]
fn a_wrong_password_yields_no_usable_session() {
    let (a, b, c) = (local(1, &[1]), local(2, &[2]), local(2, &[1]));
    let (mut initiator, first) = start(Pattern::Xx, &a, &b, 0);
    let answer = Responder::answer(&b, Pattern::Xx, &first, SECOND, 22, &mut rng(2)).expect("asked");
    let (ours, third) = initiator.read_answer(&a, &answer.message).expect("answered");
    let (Next::Third(mut responder), Some(third)) = (answer.next, third) else { panic!("XX has a third message") };
    assert_eq!(responder.read_third(&b, &third).err(), Some(HandshakeError::Password));
    assert!(!ours.session.is_confirmed());
    // The same responder with the right password at hand still takes the message: the failure left it as it was.
    assert!(responder.read_third(&c, &third).is_ok());
}

#[test]
fn garbage_kills_neither_side() {
    for pattern in PATTERNS {
        let (a, b) = (local(1, &[9, 1]), local(2, &[4, 3, 1]));
        let (mut initiator, first) = start(pattern, &a, &b, 1);
        let answer = Responder::answer(&b, pattern, &first, SECOND, 22, &mut rng(2)).expect("asked");
        for len in [0, 31, 32, 80, 200, answer.message.len()] {
            assert!(initiator.read_answer(&a, &vec![0x55; len]).is_err());
        }
        for at in [0, 40, 90, answer.message.len() - 1] {
            assert_eq!(initiator.read_answer(&a, &bent(&answer.message, at)).err(), Some(HandshakeError::Unreadable), "byte {at}");
        }
        let (ours, third) = initiator.read_answer(&a, &answer.message).expect("the true answer");
        assert_eq!(initiator.read_answer(&a, &answer.message).err(), Some(HandshakeError::Over));
        let theirs = match (answer.next, third) {
            (Next::Third(mut responder), Some(third)) => {
                for len in [0, 47, 48, 63, 64, third.len()] {
                    assert!(responder.read_third(&b, &vec![0x55; len]).is_err());
                    assert!(responder.read_third(&b, &third[..len.min(third.len() - 1)]).is_err());
                }
                assert_eq!(responder.read_third(&b, &bent(&third, 0)).err(), Some(HandshakeError::Unreadable));
                assert_eq!(responder.read_third(&b, &bent(&third, 60)).err(), Some(HandshakeError::Password));
                responder.read_third(&b, &third).expect("the true third message")
            }
            (Next::Established(theirs), _) => *theirs,
            (Next::Third(_), None) => panic!("XX has a third message"),
        };
        assert!(deliver(&ours.session, &theirs.session, 1).is_ok());
    }
}

fn bent(message: &[u8], at: usize) -> Vec<u8> {
    let mut bent = message.to_vec();
    bent[at] ^= 1;
    bent
}

#[test]
fn every_byte_of_a_first_message_is_protected() {
    for pattern in PATTERNS {
        let (a, b) = (local(1, &[1]), local(2, &[1]));
        let (_, first) = start(pattern, &a, &b, 0);
        assert_eq!(first.len(), FIRST_MESSAGE_LEN);
        for at in (0..first.len()).step_by(7).chain([31, 32, 399]) {
            // The top bit of a Montgomery coordinate is ignored by X25519, not by the transcript.
            for bit in [0x01, 0x80] {
                let mut bent = first.clone();
                bent[at] ^= bit;
                assert_eq!(Question::read(&b, pattern, &bent, &mut rng(2)).err(), Some(HandshakeError::Unreadable), "byte {at}");
            }
        }
        assert!(Question::read(&b, pattern, &first[..first.len() - 1], &mut rng(2)).is_err());
    }
}

#[test]
fn the_question_tells_who_asks() {
    let (a, b) = (local(1, &[1]), local(2, &[1]));
    let (_, first) = start(Pattern::Ik, &a, &b, 0);
    let question = Question::read(&b, Pattern::Ik, &first, &mut rng(2)).expect("readable");
    assert_eq!((question.peer(), question.stamp()), (Some(a.identity.public()), Some(FIRST)));
    let (_, first) = start(Pattern::Xx, &a, &b, 0);
    let question = Question::read(&b, Pattern::Xx, &first, &mut rng(2)).expect("readable");
    assert_eq!((question.peer(), question.stamp()), (None, None));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for pattern in PATTERNS {
        let (a, b) = (local(1, &[1]), local(2, &[1]));
        let (_, first) = start(pattern, &a, &b, 0);
        assert_eq!(first, start(pattern, &a, &b, 0).1);
        let answer = |seed| Responder::answer(&b, pattern, &first, SECOND, 22, &mut rng(seed)).expect("asked").message;
        assert_eq!(answer(2), answer(2));
        assert_ne!(answer(2), answer(3));
    }
}

/// What routers of this version send, so that a change of the format does not go unnoticed.
#[test]
fn golden_first_message() {
    use sha2::{Digest, Sha256};
    let (a, b) = (local(1, &[1]), local(2, &[1]));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut fixed = a;
    fixed.offer.suites = vec![SuiteTiming { suite: Suite::ChaCha20Poly1305, nanoseconds: 768 }];
    let (_, xx) = start(Pattern::Xx, &fixed, &b, 0);
    let (_, ik) = start(Pattern::Ik, &fixed, &b, 0);
    let seen = [hex(&xx[..48]), hex(&Sha256::digest(&xx)), hex(&ik[..48]), hex(&Sha256::digest(&ik))];
    assert_eq!(
        seen,
        [
            "d78641a5fafcf377034d02c7b6695afb92cf28cb2d98c85256d1a8228b9c707ac8274a0a6d9259c3ca478bcb1fa3912c",
            "f99979b9d311f964e71fe64d762eab02a39cc20b51de8568a03df4ea41aef190",
            "d78641a5fafcf377034d02c7b6695afb92cf28cb2d98c85256d1a8228b9c707adb98a54f71eddda037561528171ecb80",
            "4319bc1a2600a7ea58e9ee90e24c0f4939a87023f995b749363fd09fcb58d8ff",
        ]
    );

    let mut datagram = vec![0; HEADER_LEN];
    crate::wire::handshake::Handshake::whole(fixed.identity.name(), crate::wire::handshake::Type::XxOne, 11, &xx).write(&mut datagram);
    assert_eq!(hex(&datagram[HEADER_LEN..HEADER_LEN + 12]), "3e725f497fd6010100000bd7");
}

#[test]
fn golden_payload() {
    let offer = Offer { suites: vec![SuiteTiming { suite: Suite::Aes256Gcm, nanoseconds: 188 }], plain: true, ..offer() };
    let payload = Payload { stamp: Some(FIRST), index: Some(0xabcdef), psk_hint: Some([1, 2]), ..Payload::offering(&offer) };
    let expected = [
        &b"\x02\x00\x10\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x01"[..],
        b"\x03\x00\x03\xab\xcd\xef",
        b"\x04\x00\x02\x01\x02",
        b"\x05\x00\x04\0\0\0\x05",
        b"\x06\x00\x05\x01\0\0\0\xbc",
        b"\x07\x00\x01\x02",
        b"\x08\x00\x01\x01",
        b"\x09\x00\x08berlin-1",
        b"\x0a\x00\x02\x01\x02",
        b"\0\0",
    ]
    .concat();
    assert_eq!(payload.to_bytes(expected.len()), expected);
    assert_eq!(Payload::parse(&expected), Ok(payload.clone()));
    // A field of a later version, and a suite of one.
    let later = [&b"\xc8\x00\x03new"[..], &expected].concat();
    assert_eq!(Payload::parse(&later), Ok(payload));
    let suites = Payload::parse(b"\x06\x00\x0a\x07\0\0\0\x01\x02\0\0\0\x05").expect("parsed").suites;
    assert_eq!(suites, [SuiteTiming { suite: Suite::ChaCha20Poly1305, nanoseconds: 5 }]);
    for bad in [&b"\x04\x00\x02\x01"[..], b"\x04\x00", b"\x04\x00\x01\x01", b"\x03\x00\x03\0\0\0", b"\x06\x00\x04\x01\0\0\0"] {
        assert!(matches!(Payload::parse(bad), Err(HandshakeError::Malformed(_))), "{bad:?}");
    }
}

#[test]
fn incompatible_ends_say_why() {
    for pattern in PATTERNS {
        let a = local(1, &[1]);
        let with = |change: &dyn Fn(&mut Local)| {
            let mut b = local(2, &[1]);
            change(&mut b);
            run(pattern, &a, &b, 0).err()
        };
        assert_eq!(with(&|b| b.offer.plain = true), Some(HandshakeError::Plain));
        assert_eq!(with(&|b| b.offer.suites.clear()), Some(HandshakeError::NoCipher));
        assert_eq!(with(&|b| b.network = "other".into()), Some(HandshakeError::Unreadable));
        let version = HandshakeError::Version { ours_min: 3, ours_max: 4, theirs_min: 1, theirs_max: 2 };
        assert_eq!(with(&|b| (b.offer.version_min, b.offer.version_max) = (3, 4)), Some(version));
    }
    let a = local(1, &[1]);
    assert_eq!(run(Pattern::Xx, &a, &a, 0).err(), Some(HandshakeError::OwnKey));
    assert_eq!(Initiator::start_ik(&a, a.identity.public(), 0, FIRST, 1, &mut rng(1)).err(), Some(HandshakeError::OwnKey));
    let uncertified = PublicIdentity { certificate: [0; 64], ..*local(2, &[1]).identity.public() };
    assert_eq!(Initiator::start_ik(&a, &uncertified, 0, FIRST, 1, &mut rng(1)).err(), Some(HandshakeError::Certificate));
}

#[test]
fn the_static_key_must_be_the_certified_one() {
    // A thief of nothing but an identity's public half cannot use it: the key that Noise proved is another.
    let (a, b, c) = (local(1, &[1]), local(2, &[1]), local(3, &[1]));
    let (mut initiator, first) = start(Pattern::Xx, &a, &b, 0);
    let question = Question::read(&c, Pattern::Xx, &first, &mut rng(2)).expect("readable");
    let mut noise = question.noise;
    let stolen = Payload { identity: Some(*b.identity.public()), ..own_payload(&c, SECOND, 22) };
    let answer = write(&mut noise, &stolen, 0).expect("written");
    assert_eq!(initiator.read_answer(&a, &answer).err(), Some(HandshakeError::Certificate));
}

#[test]
fn the_longest_answer_fits_its_question() {
    for pattern in PATTERNS {
        let mut b = local(2, &[1]);
        b.offer.nickname = Some("ä".repeat(100));
        let (ours, _) = run(pattern, &local(1, &[1]), &b, 0).expect("established");
        assert_eq!(ours.offer.nickname, Some("ä".repeat(32)));
        b.offer.nickname = Some("\u{1b}[2Jx\u{7}".into());
        let (ours, _) = run(pattern, &local(1, &[1]), &b, 0).expect("established");
        assert_eq!(ours.offer.nickname.as_deref(), Some("[2Jx"), "nothing that drives a terminal");
    }
}

#[test]
fn short_questions_get_no_answer() {
    let (a, b) = (local(1, &[1]), local(2, &[1]));
    let mut noise = noise::initiator(&a, Pattern::Xx, None, &Seed::draw(&mut rng(1))).expect("built");
    let short = write(&mut noise, &Payload { versions: Some((1, 1)), ..Payload::default() }, 0).expect("written");
    assert!(matches!(Responder::answer(&b, Pattern::Xx, &short, SECOND, 22, &mut rng(2)), Err(HandshakeError::Malformed(_))));
}

#[test]
fn indices_fit_the_header() {
    assert!(payload::is_index(1) && payload::is_index(0xff_ffff));
    assert!(!payload::is_index(0) && !payload::is_index(0x100_0000));
}
