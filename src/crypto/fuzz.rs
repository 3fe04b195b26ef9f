//! Bodies of fuzz targets: whatever bytes arrive, the handshake and the session answer with an error, never a panic.
//!
//! The first byte of the input picks what the rest is fed to. Everything is deterministic, so an input found once fails
//! for ever. Payloads are also parsed directly, since random bytes never get past the encryption around them.

use std::sync::{Arc, OnceLock};

use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use super::aead::Providers;
use super::handshake::{self, Arithmetic, Classic, Exchange, Initiator, Local, Next, Offer, Pattern, Responder, Stamp, Start};
use super::identity::{Identity, PublicIdentity};
use super::psk::Psks;
use super::session::Session;
use super::suite::{Suite, SuiteTiming};
use crate::wire::handshake::{Handshake, Reject, parse_retry};
use crate::wire::{Header, PeerName};

/// Feeds `data` to the parts of the handshake and session that face the network.
pub fn fuzz_handshake(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let rng = &mut ChaCha12Rng::from_seed([*choice; 32]);
    let (ours, theirs) = ends();
    match choice % 8 {
        0 => _ = Responder::answer(ours, Pattern::Xx, data, Stamp::default(), 1, rng),
        1 => _ = Responder::answer(ours, Pattern::Ik, data, Stamp::default(), 1, rng),
        2 => _ = initiator(ours, theirs, Pattern::Xx).0.read_answer(ours, data),
        3 => _ = initiator(ours, theirs, Pattern::Ik).0.read_answer(ours, data),
        4 => third(data),
        5 => handshake::parse_for_fuzzing(data),
        6 => wire(data),
        _ => session(data),
    }
}

/// A responder that is fed `data` still takes the true third message.
fn third(data: &[u8]) {
    let rng = &mut ChaCha12Rng::from_seed([3; 32]);
    let (ours, theirs) = ends();
    let (mut initiator, first) = initiator(theirs, ours, Pattern::Xx);
    let answer = Responder::answer(ours, Pattern::Xx, &first, Stamp::default(), 1, rng).expect("a true first message");
    let (_, third) = initiator.read_answer(theirs, &answer.message).expect("a true answer");
    let Next::Third(mut responder) = answer.next else { panic!("XX has a third message") };
    assert!(responder.read_third(ours, data).is_err());
    assert!(responder.read_third(ours, &third.expect("XX has a third message")).is_ok());
}

fn wire(data: &[u8]) {
    if let Some(parsed) = Handshake::parse(data) {
        let mut again = Vec::new();
        parsed.write(&mut again);
        assert_eq!(again, data, "what parses is written back as it was");
    }
    _ = Reject::parse(data);
    _ = parse_retry(data);
    _ = PublicIdentity::from_bytes(data);
}

fn session(data: &[u8]) {
    let names = (PeerName([2; 6]), PeerName([6; 6]));
    for plain in [false, true] {
        let (session, _) = Session::pair_for_tests(names.0, names.1, Suite::ChaCha20Poly1305, 2, plain);
        if let Ok(header) = Header::parse(data) {
            assert!(session.open(&header, &mut data.to_vec()).is_err(), "nobody can guess a tag");
            let taken = session.open_plain(&header, &mut data.to_vec()).is_ok();
            assert!(plain || !taken, "a sealed session takes nothing unsealed");
            assert!(session.open_plain(&header, &mut data.to_vec()).is_err(), "nothing is taken twice");
        }
    }
}

fn initiator(local: &Local, peer: &Local, pattern: Pattern) -> (Initiator, Vec<u8>) {
    let rng = &mut ChaCha12Rng::from_seed([4; 32]);
    let start = Start { psk_index: 0, stamp: Stamp::default(), local_index: 2, exchange: Exchange::Hybrid };
    match pattern {
        Pattern::Xx => Initiator::start_xx(local, start, rng),
        Pattern::Ik => Initiator::start_ik(local, peer.identity.public(), start, rng),
    }
    .expect("both ends are well formed")
}

fn ends() -> &'static (Local, Local) {
    static ENDS: OnceLock<(Local, Local)> = OnceLock::new();
    let local = |seed| Local {
        identity: Arc::new(Identity::from_seed(&[seed; 32])),
        network: "weave".into(),
        psks: Psks::none("weave"),
        offer: Offer {
            version_min: 1,
            version_max: 1,
            features: 0,
            suites: vec![SuiteTiming { suite: Suite::ChaCha20Poly1305, nanoseconds: 1000 }],
            lanes: 2,
            plain: false,
            nickname: None,
        },
        classic: Classic::Accepted,
        providers: Providers::default(),
        arithmetic: Arithmetic::True,
    };
    ENDS.get_or_init(|| (local(1), local(2)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn arbitrary_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            super::fuzz_handshake(&data);
        }

        #[test]
        fn payloads_of_fields_never_panic(
            fields in proptest::collection::vec((0u8..14, proptest::collection::vec(any::<u8>(), 0..20)), 0..8),
            tail in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let mut data = vec![5];
            for (kind, value) in fields {
                data.extend_from_slice(&[kind, 0, value.len() as u8]);
                data.extend_from_slice(&value);
            }
            data.extend_from_slice(&tail);
            super::fuzz_handshake(&data);
        }
    }
}
