//! Golden control records, and what a run of them may hold.

use super::*;

fn samples() -> Vec<Record<'static>> {
    let address = Address::udp("10.1.2.3:6783".parse().expect("an address"));
    vec![
        Record::Ping(Ping { sequence: 7, active: true, link: true, clear: false, age: 250, root: 0x0102_0304_0506_0708 }),
        Record::Pong(Pong { sequence: 7, active: false, root: 9 }),
        Record::Link(Link { answer: false, only: true }),
        Record::Close(CloseReason::Full, vec![address]),
        Record::Observed(address),
        Record::Probe { nonce: 3, size: 1472 },
        Record::Probed { nonce: 3, size: 1472 },
        Record::Challenge(11),
        Record::Response(11),
        Record::Gossip(b"hello"),
        Record::App { channel: 2, body: b"a name" },
        Record::Fastdp(Fastdp { refusal: Some(Refusal::Path), hears: true, port: 6784, vni: 0xab_cdef, mac: [2, 1, 2, 3, 4, 5] }),
        Record::Candidates(vec![address, address]),
        Record::Trace(Trace { probe: 0x0102_0304_0506_0708, destination: PeerName([2, 0, 0, 0, 0, 7]), left: 3 }),
        Record::Traced(Traced { probe: 9, router: PeerName([2, 0, 0, 0, 0, 7]), next: PeerName::NONE, end: 1 }),
    ]
}

#[test]
fn records_round_trip_in_one_run() {
    let mut bytes = Vec::new();
    for record in samples() {
        let before = bytes.len();
        record.write(&mut bytes);
        assert_eq!(bytes.len() - before, record.wire_len());
    }
    let mut records = Records::new(&bytes);
    assert_eq!(records.by_ref().collect::<Vec<_>>(), samples());
    assert!(!records.is_bad());
}

#[test]
fn golden_ping() {
    let mut bytes = Vec::new();
    Record::Ping(Ping { sequence: 1, active: true, link: false, clear: false, age: 2, root: 3 }).write(&mut bytes);
    assert_eq!(bytes, [1, 0, 15, 0, 0, 0, 1, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
}

#[test]
fn golden_app() {
    let mut bytes = Vec::new();
    Record::App { channel: 1, body: &[7, 8] }.write(&mut bytes);
    assert_eq!(bytes, [12, 0, 3, 1, 7, 8]);
    bytes.clear();
    Record::App { channel: 2, body: crate::wire::names::ASKED }.write(&mut bytes);
    assert_eq!(bytes, [12, 0, 2, 2, 1]);
    let mut records = Records::new(&[12, 0, 0]);
    assert_eq!((records.next(), records.is_bad()), (None, true));
}

#[test]
fn golden_fastdp() {
    let mut bytes = Vec::new();
    Record::Fastdp(Fastdp { refusal: None, hears: true, port: 6784, vni: 0x01_0203, mac: [2, 0, 0, 0, 0, 9] }).write(&mut bytes);
    assert_eq!(bytes, [11, 0, 13, 1, 0, 0x1a, 0x80, 1, 2, 3, 2, 0, 0, 0, 0, 9]);
    // A later version may say more, and refuse for reasons nobody knows yet.
    let later = [11, 0, 14, 0xfe, 77, 0x1a, 0x80, 1, 2, 3, 2, 0, 0, 0, 0, 9, 9];
    let word = Fastdp { refusal: Some(Refusal::Other(77)), hears: false, port: 6784, vni: 0x01_0203, mac: [2, 0, 0, 0, 0, 9] };
    assert_eq!(Records::new(&later).collect::<Vec<_>>(), [Record::Fastdp(word)]);
}

#[test]
fn golden_candidates_and_traces() {
    let mut bytes = Vec::new();
    Record::Candidates(vec![Address::udp("10.1.2.3:6783".parse().expect("an address"))]).write(&mut bytes);
    assert_eq!(bytes, [13, 0, 7, 6, 10, 1, 2, 3, 0x1a, 0x7f]);
    bytes.clear();
    Record::Trace(Trace { probe: 1, destination: PeerName([2, 0, 0, 0, 0, 7]), left: 3 }).write(&mut bytes);
    assert_eq!(bytes, [14, 0, 15, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 3]);
    bytes.clear();
    let (router, next) = (PeerName([2, 0, 0, 0, 0, 7]), PeerName([2, 0, 0, 0, 0, 8]));
    Record::Traced(Traced { probe: 1, router, next, end: 0 }).write(&mut bytes);
    assert_eq!(bytes, [15, 0, 21, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 8, 0]);
    // A later version may say more.
    bytes[2] += 1;
    bytes.push(9);
    assert_eq!(Records::new(&bytes).next(), Some(Record::Traced(Traced { probe: 1, router, next, end: 0 })));
}

#[test]
fn unknown_records_are_passed_over_and_cut_ones_end_the_run() {
    let mut bytes = vec![200, 0, 2, 1, 1];
    Record::Challenge(5).write(&mut bytes);
    assert_eq!(Records::new(&bytes).collect::<Vec<_>>(), [Record::Challenge(5)]);
    for cut in 6..bytes.len() {
        let mut records = Records::new(&bytes[..cut]);
        assert_eq!(records.next(), None);
        assert!(records.is_bad());
    }
    let mut records = Records::new(&[CLOSE, 0, 2, 1, 9]);
    assert_eq!((records.next(), records.is_bad()), (None, true));
}

#[test]
fn what_a_later_version_says_ends_no_datagram() {
    let mut bytes = vec![CLOSE, 0, 1, 77, OBSERVED, 0, 4, 3, 1, 2, 3];
    // A referral in a form nobody knows, beside one in a form we do.
    bytes.extend_from_slice(&[CLOSE, 0, 11, 2, 2, 9, 9, 6, 10, 1, 2, 3, 0x1a, 0x7f]);
    Record::Challenge(5).write(&mut bytes);
    let address = Address::udp("10.1.2.3:6783".parse().expect("an address"));
    let mut records = Records::new(&bytes);
    assert_eq!(records.by_ref().collect::<Vec<_>>(), [Record::Close(CloseReason::Full, vec![address]), Record::Challenge(5)]);
    assert!(!records.is_bad());
}

#[test]
fn probes_are_padded_to_the_byte() {
    for total in [RECORD_HEADER + PROBE_FIXED, 100, 1440] {
        let mut bytes = Vec::new();
        write_padded_probe(&mut bytes, 1, 1472, total);
        assert_eq!(bytes.len(), total);
        assert_eq!(Records::new(&bytes).next(), Some(Record::Probe { nonce: 1, size: 1472 }));
    }
}
