use proptest::prelude::*;

use super::*;
use crate::crypto::aead::Providers;
use crate::wire::Kind;

const A: PeerName = PeerName([0x02, 0, 0, 0, 0, 0xaa]);
const B: PeerName = PeerName([0x02, 0, 0, 0, 0, 0xbb]);

fn header(session: &Session, kind: Kind, lane: u8, counter: u32) -> Header {
    Header { kind, hop_limit: 32, lane, label: 5, destination: session.peer(), index: session.remote_index(), counter }
}

/// A sealed datagram from `session`, at `counter` whether reserved or not.
fn sealed_at(session: &Session, lane: u8, counter: u32, text: &[u8]) -> Vec<u8> {
    let mut datagram = header(session, Kind::DataDirect, lane, counter).to_bytes().to_vec();
    datagram.extend_from_slice(text);
    datagram.extend_from_slice(&[0; TAG_LEN]);
    session.seal(lane, counter, &mut datagram);
    datagram
}

fn sealed(session: &Session, lane: u8, text: &[u8]) -> Vec<u8> {
    sealed_at(session, lane, session.reserve(lane, 1).expect("a fresh key"), text)
}

/// Opens a copy of `datagram` as a receiver does.
fn open(session: &Session, datagram: &[u8]) -> Result<Vec<u8>, OpenError> {
    let header = Header::parse(datagram).map_err(|_| OpenError::Short)?;
    session.open(&header, &mut datagram.to_vec()).map(|text| text.to_vec())
}

fn pairs() -> impl Iterator<Item = (Arc<Session>, Arc<Session>)> {
    Suite::available().iter().map(|suite| Session::pair_for_tests(A, B, *suite, 3, false))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_datagrams() {
    for (a, _) in pairs() {
        let expected = match a.suite() {
            Suite::Aes256Gcm => "1820250200000000bb000002010203046c2606cd6903bd88d4ffbd3c5279f9b42b131e1148",
            Suite::ChaCha20Poly1305 => "1820250200000000bb000002010203045ff834667696b62363799549ae33e502134593e820",
        };
        assert_eq!(hex(&sealed_at(&a, 2, 0x0102_0304, b"weave")), expected);
    }
}

/// The same datagram put together from its parts: HKDF of the root, nonce, associated data, and the other implementation.
#[test]
fn matches_the_documented_construction() {
    use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
    use hkdf::Hkdf;
    let (a, _) = Session::pair_for_tests(A, B, Suite::ChaCha20Poly1305, 3, false);
    let mut key = [0; 32];
    Hkdf::<sha2::Sha256>::from_prk(&[0x42; 32])
        .expect("32 bytes")
        .expand(b"weave-router lane v1\x02\x02\x00weave", &mut key)
        .expect("32 bytes");
    let datagram = sealed_at(&a, 2, 7, b"weave");
    let mut aad = datagram[..16].to_vec();
    aad[1] = 0;
    let mut text = datagram[16..21].to_vec();
    let tag: [u8; 16] = datagram[21..].try_into().expect("a tag");
    ChaCha20Poly1305::new(&key.into())
        .decrypt_inout_detached(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7].into(), &aad, text.as_mut_slice().into(), &tag.into())
        .expect("genuine");
    assert_eq!(text, b"weave");
}

#[test]
fn both_ways_on_every_lane() {
    for (a, b) in pairs() {
        assert_eq!((a.peer(), b.peer()), (B, A));
        assert_eq!((a.local_index(), a.remote_index()), (b.remote_index(), b.local_index()));
        for lane in 0..=a.lanes() {
            assert_eq!(open(&b, &sealed(&a, lane, b"there")).as_deref(), Ok(&b"there"[..]));
            assert_eq!(open(&a, &sealed(&b, lane, b"")).as_deref(), Ok(&b""[..]));
        }
        assert_eq!(a.lanes(), 3);
        assert_eq!([1, 2, 3, 4, 6, 7, 15].map(|thread| a.lane_of(thread)), [1, 2, 3, 1, 3, 1, 3]);
        assert_eq!(a.reserve(4, 1), None);
        let mut other_lane = sealed(&a, 3, b"x");
        other_lane[2] = 4 << 4;
        assert_eq!(open(&b, &other_lane), Err(OpenError::Lane));
    }
}

#[test]
fn every_byte_but_the_hop_limit_is_protected() {
    for (a, b) in pairs() {
        let good = sealed(&a, 1, b"some plaintext");
        for at in 0..good.len() {
            for bit in [0x01, 0x80] {
                let mut bent = good.clone();
                bent[at] ^= bit;
                // Version and lane of another kind fail before the tag does.
                assert!(at == 1 || open(&b, &bent).is_err(), "byte {at}");
            }
        }
        for len in 16..good.len() {
            assert!(open(&b, &good[..len]).is_err(), "{len} bytes");
        }
        let mut hopped = good;
        hopped[1] -= 1;
        assert!(open(&b, &hopped).is_ok());
    }
}

#[test]
fn keys_of_lanes_and_directions_differ() {
    for (a, b) in pairs() {
        let from_a = sealed_at(&a, 1, 5, b"same text");
        assert_ne!(from_a[16..], sealed_at(&a, 2, 5, b"same text")[16..]);
        assert_ne!(from_a[16..], sealed_at(&b, 1, 5, b"same text")[16..]);
        let mut moved = from_a.clone();
        moved[2] = 2 << 4 | 5;
        assert_eq!(open(&b, &moved), Err(OpenError::Forged));
        assert_eq!(open(&a, &from_a), Err(OpenError::Forged), "reflected");
    }
}

#[test]
fn nothing_is_opened_twice_and_forgeries_mark_nothing() {
    for (a, b) in pairs() {
        let first = sealed(&a, 1, b"first");
        let mut forged = first.clone();
        forged[20] ^= 1;
        assert_eq!(open(&b, &forged), Err(OpenError::Forged));
        assert!(open(&b, &first).is_ok());
        assert_eq!(open(&b, &first), Err(OpenError::Replay));
        assert!(open(&b, &sealed_at(&a, 1, 20_000, b"")).is_ok());
        assert_eq!(open(&b, &sealed_at(&a, 1, 20_000 - 8192, b"")), Err(OpenError::Replay));
        assert!(open(&b, &sealed_at(&a, 1, 20_000 - 8191, b"")).is_ok());
        assert!(open(&b, &sealed_at(&a, 2, 0, b"")).is_ok(), "each lane has its own window");
    }
}

#[test]
fn counters_are_consecutive_and_end() {
    let (a, b) = pairs().next().expect("every build has a suite");
    assert_eq!((a.reserve(1, 44), a.reserve(1, 1), a.reserve(2, 1)), (Some(0), Some(44), Some(0)));
    assert_eq!((a.sent(), a.sent_on(1), a.sent_on(2), a.sent_on(9)), (45, 45, 1, 0));
    assert_eq!(a.reserve(1, COUNTER_LIMIT - 46), Some(45));
    assert_eq!(a.reserve(1, 2), None, "the last but one may not be crossed");
    assert_eq!(a.reserve(1, 1), None, "a lane that was closed stays closed");
    assert_eq!(a.reserve(2, u32::MAX), None);

    let (a, _) = Session::pair_for_tests(A, B, a.suite(), 1, false);
    assert_eq!(a.reserve(1, COUNTER_LIMIT), Some(0));
    assert_eq!(a.reserve(1, 1), None);
    assert!(a.sent() > REKEY_COUNTER);
    assert_eq!(u64::from(COUNTER_LIMIT), (1 << 32) - (1 << 13));
    assert_eq!(open(&b, &sealed_at(&a, 1, COUNTER_LIMIT, b"")), Err(OpenError::Expired));
    assert!(open(&b, &sealed_at(&a, 1, COUNTER_LIMIT - 1, b"")).is_ok());
}

#[test]
fn a_responder_waits_for_proof() {
    let root = Root::from_bytes([1; 32]);
    let suite = Suite::available()[0];
    let provider = Providers::default().get(suite);
    let terms = |initiator| Terms {
        peer: A,
        initiator,
        local_index: 1,
        remote_index: 1,
        suite,
        provider,
        lanes: 1,
        plain: true,
        exchange: Exchange::Hybrid,
        network: "n",
    };
    let initiator = Session::from_root(&root, &terms(true)).expect("available");
    let mut responder = Session::from_root(&root, &terms(false)).expect("available");
    responder.set_established(Time(5));
    assert_eq!(responder.established(), Time(5));
    assert!(initiator.may_seal() && !initiator.is_confirmed());
    assert!(!responder.may_seal());

    let datagram = sealed(&initiator, 0, b"proof");
    let mut plain = header(&initiator, Kind::PlainDirect, 1, 0).to_bytes();
    assert!(responder.open_plain(&Header::parse(&plain).expect("a header"), &mut plain).is_ok());
    assert!(!responder.is_confirmed(), "unsealed bytes prove nothing");
    assert!(open(&responder, &datagram).is_ok());
    assert!(responder.may_seal() && responder.is_confirmed());
}

#[test]
fn plain_sessions_only() {
    let suite = Suite::available()[0];
    for plain in [false, true] {
        let (a, b) = Session::pair_for_tests(A, B, suite, 1, plain);
        let header = header(&a, Kind::PlainDirect, 1, a.reserve(1, 1).expect("fresh"));
        let mut datagram = header.to_bytes().to_vec();
        datagram.extend_from_slice(b"body");
        let first = b.open_plain(&header, &mut datagram.clone()).map(|body| body.to_vec());
        if plain {
            assert_eq!(first.as_deref(), Ok(&b"body"[..]));
            assert_eq!(b.open_plain(&header, &mut datagram), Err(OpenError::Replay));
            assert_eq!(b.open_plain(&header, &mut [0; 15]), Err(OpenError::Short));
            assert_eq!(b.cipher_label(), "none");
        } else {
            assert_eq!(first, Err(OpenError::Forged));
            assert_eq!(b.cipher_label(), suite.label());
        }
        assert_eq!(open(&b, &sealed(&a, 0, b"control")).as_deref(), Ok(&b"control"[..]), "control is sealed even so");
    }
}

#[test]
fn a_retired_session_does_nothing() {
    let (a, b) = pairs().next().expect("every build has a suite");
    let datagram = sealed(&a, 1, b"late");
    a.retire();
    b.retire();
    assert_eq!(a.reserve(1, 1), None);
    assert_eq!(open(&b, &datagram), Err(OpenError::Expired));
    assert!(b.is_retired() && format!("{b:?}").contains("retired: true"));
}

proptest! {
    #[test]
    fn receivers_deliver_each_datagram_once(order in Just((0u32..60).collect::<Vec<_>>()).prop_shuffle(), threads in 1usize..4) {
        let (a, b) = pairs().next().expect("every build has a suite");
        let datagrams: Vec<_> = (0..60).map(|i: u8| sealed(&a, 1, &[i])).collect();
        let delivered = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for i in &order {
                        if let Ok(text) = open(&b, &datagrams[*i as usize]) {
                            delivered.lock().expect("no panic").extend(text);
                        }
                    }
                });
            }
        });
        let mut delivered = delivered.into_inner().expect("no panic");
        delivered.sort_unstable();
        prop_assert_eq!(delivered, (0..60).collect::<Vec<u8>>());
    }
}

#[test]
fn what_is_not_sealed_never_touches_the_lane_of_the_mesh_plane() {
    for plain in [false, true] {
        let (a, b) = Session::pair_for_tests(A, B, Suite::ChaCha20Poly1305, 3, plain);
        b.set_clear(true, true);
        // Anybody can write this: it would close the window for all heartbeats of the session.
        let made_up = header(&a, Kind::PlainDirect, 0, COUNTER_LIMIT - 1);
        assert_eq!(b.open_plain(&made_up, &mut [0; 40]), Err(OpenError::Lane));
        assert_eq!(open(&b, &sealed(&a, 0, b"heartbeat")), Ok(b"heartbeat".to_vec()));
        // A session that has no other lane has frames there.
        let (a, b) = Session::pair_for_tests(A, B, Suite::ChaCha20Poly1305, 0, true);
        assert!(b.open_plain(&header(&a, Kind::PlainDirect, 0, 7), &mut [0; 40]).is_ok());
    }
}
