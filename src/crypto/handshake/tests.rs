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
        classic: Classic::Refused,
        providers: Providers::default(),
        arithmetic: Arithmetic::True,
    }
}

fn start(pattern: Pattern, from: &Local, to: &Local, psk_index: usize) -> (Initiator, Vec<u8>) {
    start_with(pattern, from, to, from_index(psk_index, Exchange::Hybrid))
}

fn from_index(psk_index: usize, exchange: Exchange) -> Start {
    Start { psk_index, stamp: FIRST, local_index: 11, exchange }
}

fn start_with(pattern: Pattern, from: &Local, to: &Local, start: Start) -> (Initiator, Vec<u8>) {
    match pattern {
        Pattern::Xx => Initiator::start_xx(from, start, &mut rng(1)),
        Pattern::Ik => Initiator::start_ik(from, to.identity.public(), start, &mut rng(1)),
    }
    .expect("a good start")
}

/// Runs a handshake; initiator's end first.
fn run(pattern: Pattern, from: &Local, to: &Local, psk_index: usize) -> Result<(Established, Established), HandshakeError> {
    run_from(pattern, start(pattern, from, to, psk_index), from, to)
}

fn run_from(
    pattern: Pattern,
    (mut initiator, first): (Initiator, Vec<u8>),
    from: &Local,
    to: &Local,
) -> Result<(Established, Established), HandshakeError> {
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
        let start = from_index(2, Exchange::Hybrid);
        assert_eq!(Initiator::start_xx(&a, start, &mut rng(1)).err(), Some(HandshakeError::NoSuchPassword(2)));
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
        assert_eq!(first.len(), FIRST_HYBRID_LEN);
        for at in (0..first.len()).step_by(29).chain([31, 32, 1599]) {
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
    for (exchange, golden) in [(Exchange::Classic, GOLDEN_CLASSIC), (Exchange::Hybrid, GOLDEN_HYBRID)] {
        let (_, xx) = start_with(Pattern::Xx, &fixed, &b, from_index(0, exchange));
        let (_, ik) = start_with(Pattern::Ik, &fixed, &b, from_index(0, exchange));
        assert_eq!([hex(&xx[..48]), hex(&Sha256::digest(&xx)), hex(&ik[..48]), hex(&Sha256::digest(&ik))], golden);
    }
    let (_, xx) = start_with(Pattern::Xx, &fixed, &b, from_index(0, Exchange::Hybrid));
    let whole = crate::wire::handshake::Handshake::whole(fixed.identity.name(), crate::wire::handshake::Type::XxOne, 11, &xx);
    let datagrams: Vec<Vec<u8>> = whole
        .cut()
        .map(|part| {
            let mut datagram = vec![0; HEADER_LEN];
            part.write(&mut datagram);
            datagram
        })
        .collect();
    assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [827, 827]);
    let heads = datagrams.iter().map(|datagram| hex(&datagram[HEADER_LEN..HEADER_LEN + 12])).collect::<Vec<_>>();
    assert_eq!(heads, ["3e725f497fd6020100000bd7", "3e725f497fd6120100000b35"]);
}

const GOLDEN_CLASSIC: [&str; 4] = [
    "d78641a5fafcf377034d02c7b6695afb92cf28cb2d98c85256d1a8228b9c707ac8274a0a6d9259c3ca478bcb1fa3912c",
    "f99979b9d311f964e71fe64d762eab02a39cc20b51de8568a03df4ea41aef190",
    "d78641a5fafcf377034d02c7b6695afb92cf28cb2d98c85256d1a8228b9c707adb98a54f71eddda037561528171ecb80",
    "4319bc1a2600a7ea58e9ee90e24c0f4939a87023f995b749363fd09fcb58d8ff",
];
const GOLDEN_HYBRID: [&str; 4] = [
    "d78641a5fafcf377034d02c7b6695afb92cf28cb2d98c85256d1a8228b9c707ac8274a0a6d995d6312854db4f92bc539",
    "3194caad3c4a5b461321da14d24b6f6d09d2b031247c61f01d2c3b4a55cae495",
    "d78641a5fafcf377034d02c7b6695afb92cf28cb2d98c85256d1a8228b9c707adb98a54f71eddda037561528171ecb80",
    "36519868496498600d3549f8a855631d361c0d65a0843160d4f15d911eefd008",
];

#[test]
fn golden_payload() {
    let offer = Offer { suites: vec![SuiteTiming { suite: Suite::Aes256Gcm, nanoseconds: 188 }], plain: true, ..offer() };
    let payload = Payload { stamp: Some(FIRST), index: Some(0xabcdef), psk_hint: Some([1, 2]), ..Payload::offering(&offer) };
    let payload = Payload { kem_key: Some(Box::new([7; 1184])), kem_text: Some(Box::new([9; 1088])), ..payload };
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
        b"\x0b\x04\xa0",
        &[7; 1184],
        b"\x0c\x04\x40",
        &[9; 1088],
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
    for bad in [
        &b"\x04\x00\x02\x01"[..],
        b"\x04\x00",
        b"\x04\x00\x01\x01",
        b"\x03\x00\x03\0\0\0",
        b"\x06\x00\x04\x01\0\0\0",
        b"\x0b\x00\x01\0",
        b"\x0c\x00\x00",
    ] {
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
    let start = from_index(0, Exchange::Hybrid);
    assert_eq!(Initiator::start_ik(&a, a.identity.public(), start, &mut rng(1)).err(), Some(HandshakeError::OwnKey));
    let uncertified = PublicIdentity { certificate: [0; 64], ..*local(2, &[1]).identity.public() };
    assert_eq!(Initiator::start_ik(&a, &uncertified, start, &mut rng(1)).err(), Some(HandshakeError::Certificate));
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
    let kem_key = Some(Decapsulator::generate(&mut rng(3)).key());
    let short = write(&mut noise, &Payload { versions: Some((1, 1)), kem_key, ..Payload::default() }, 0).expect("written");
    assert!(matches!(Responder::answer(&b, Pattern::Xx, &short, SECOND, 22, &mut rng(2)), Err(HandshakeError::Malformed(_))));
}

#[test]
fn indices_fit_the_header() {
    assert!(payload::is_index(1) && payload::is_index(0xff_ffff));
    assert!(!payload::is_index(0) && !payload::is_index(0x100_0000));
}

/// A router that does no handshakes but classic ones, as those of before did.
fn old(seed: u8) -> Local {
    let mut old = local(seed, &[1]);
    old.classic = Classic::Only;
    old.offer.features = 4;
    old
}

fn tolerant(seed: u8) -> Local {
    Local { classic: Classic::Accepted, ..local(seed, &[1]) }
}

#[test]
fn the_keys_are_hybrid_where_both_ends_can() {
    for pattern in PATTERNS {
        for b in [local(2, &[1]), tolerant(2)] {
            let (ours, theirs) = run(pattern, &local(1, &[1]), &b, 0).expect("established");
            assert_eq!([ours.session.exchange(), theirs.session.exchange()], [Exchange::Hybrid; 2]);
            assert!(deliver(&ours.session, &theirs.session, 0).is_ok());
        }
    }
}

#[test]
fn a_classic_router_is_taken_only_where_that_is_said() {
    for pattern in PATTERNS {
        let classic =
            |from: &Local, to: &Local| run_from(pattern, start_with(pattern, from, to, from_index(0, Exchange::Classic)), from, to);
        assert_eq!(classic(&old(1), &local(2, &[1])).err(), Some(HandshakeError::Classic), "{pattern:?}");
        for (from, to) in [(old(1), tolerant(2)), (tolerant(1), old(2)), (old(1), old(2))] {
            let (ours, theirs) = classic(&from, &to).expect("established");
            assert_eq!([ours.session.exchange(), theirs.session.exchange()], [Exchange::Classic; 2]);
            assert!(deliver(&ours.session, &theirs.session, 0).is_ok());
        }
        // An old router passes over the key in the first message, and its answer shows it.
        assert_eq!(run(pattern, &local(1, &[1]), &old(2), 0).err(), Some(HandshakeError::Classic));
        assert_eq!(classic(&local(1, &[1]), &old(2)).err(), Some(HandshakeError::Classic), "whatever was sent");
        assert_eq!(HandshakeError::Classic.reject(), Some(crate::wire::handshake::Reject::Classic));
    }
}

#[test]
fn two_routers_that_can_do_better_refuse_a_classic_session() {
    // As if somebody had kept the hybrid first messages back until one end took the other for an old one.
    for pattern in PATTERNS {
        let (a, b) = (tolerant(1), tolerant(2));
        let refused = run_from(pattern, start_with(pattern, &a, &b, from_index(0, Exchange::Classic)), &a, &b);
        assert_eq!(refused.err(), Some(HandshakeError::Downgrade));
        // The responder refuses by itself, too.
        let mut quiet = tolerant(1);
        quiet.classic = Classic::Only;
        quiet.offer.features = 5;
        let (mut initiator, first) = start_with(pattern, &a, &b, from_index(0, Exchange::Classic));
        match Responder::answer(&b, pattern, &first, SECOND, 22, &mut rng(2)) {
            Err(error) => assert_eq!(error, HandshakeError::Downgrade),
            Ok(answer) => {
                let (Next::Third(mut responder), (_, Some(third))) =
                    (answer.next, initiator.read_answer(&quiet, &answer.message).expect("an end that does not look"))
                else {
                    panic!("XX has a third message")
                };
                // That end says in its third message that it can do nothing else: a liar harms itself alone.
                assert!(responder.read_third(&b, &third).is_ok());
            }
        }
    }
}

#[test]
fn whoever_takes_the_post_quantum_key_out_of_a_message_makes_the_answer_unreadable() {
    // The payload of an XX first message is sealed with a key that everybody knows, so anybody on the way can write it anew.
    let (a, b) = (tolerant(1), tolerant(2));
    let (mut initiator, first) = start(Pattern::Xx, &a, &b, 0);
    let mut noise = noise::initiator(&a, Pattern::Xx, None, &Seed::draw(&mut rng(1))).expect("built");
    noise.set_psk(Pattern::Xx.psk_position(), a.psks.get(0).expect("a password").key()).expect("set");
    let stripped = write(&mut noise, &Payload { versions: Some((1, 2)), ..Payload::default() }, 352).expect("written");
    assert_eq!(stripped[..32], first[..32], "the same ephemeral key");
    let answer = Responder::answer(&b, Pattern::Xx, &stripped, SECOND, 22, &mut rng(2)).expect("it looks like an old router's");
    assert_eq!(initiator.read_answer(&a, &answer.message).err(), Some(HandshakeError::Unreadable));
    // And the true answer can still come.
    let answer = Responder::answer(&b, Pattern::Xx, &first, SECOND, 22, &mut rng(2)).expect("asked");
    assert!(initiator.read_answer(&a, &answer.message).is_ok());
}

#[test]
fn a_key_that_is_none_gets_no_answer() {
    let (a, b) = (local(1, &[1]), local(2, &[1]));
    let mut noise = noise::initiator(&a, Pattern::Xx, None, &Seed::draw(&mut rng(1))).expect("built");
    let payload = Payload { versions: Some((1, 2)), kem_key: Some(Box::new([0xff; kem::KEY_LEN])), ..Payload::default() };
    let first = write(&mut noise, &payload, FIRST_HYBRID_LEN).expect("written");
    let refused = Responder::answer(&b, Pattern::Xx, &first, SECOND, 22, &mut rng(2)).err();
    assert_eq!(refused, Some(HandshakeError::Malformed("its post-quantum key is none")));
}

#[test]
fn a_simulated_handshake_is_as_long_as_a_true_one_and_agrees_on_keys() {
    let lengths = |arithmetic, pattern| {
        let [from, to] = [1, 2].map(|seed| Local { arithmetic, ..local(seed, &[1]) });
        let (initiator, first) = start(pattern, &from, &to, 0);
        let mut dice = rng(2);
        let answer = Responder::answer(&to, pattern, &first, SECOND, 22, &mut dice).expect("an answer");
        let drawn = rand_core::Rng::next_u64(&mut dice);
        let (ours, theirs) = run_from(pattern, (initiator, first.clone()), &from, &to).expect("a handshake");
        assert_eq!(deliver(&ours.session, &theirs.session, 0).as_deref(), Ok(&b"hello"[..]), "they have the same keys");
        (first.len(), answer.message.len(), drawn)
    };
    for pattern in [Pattern::Xx, Pattern::Ik] {
        assert_eq!(lengths(Arithmetic::Simulated, pattern), lengths(Arithmetic::True, pattern), "{pattern:?}");
    }
}

#[test]
fn true_and_simulated_handshakes_never_meet() {
    let (from, to) = (local(1, &[1]), Local { arithmetic: Arithmetic::Simulated, ..local(2, &[1]) });
    for pattern in [Pattern::Xx, Pattern::Ik] {
        assert!(run(pattern, &from, &to, 0).is_err(), "{pattern:?}");
        assert!(run(pattern, &to, &from, 0).is_err(), "{pattern:?}");
    }
}
