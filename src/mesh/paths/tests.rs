use super::super::fuzz::{Stage, home};
use super::*;
use crate::wire::Kind;

#[test]
fn who_asks_through_relays_for_a_session_is_answered_and_the_answer_is_not() {
    let mut stage = Stage::new(true);
    let mut told = |record: &Record<'_>| {
        let (mut bytes, mut out) = (Vec::new(), Outbox::default());
        record.write(&mut bytes);
        stage.sealed(Kind::ControlRelayed, home(2), &bytes, &mut out);
        out.datagrams.iter().filter(|(to, _)| *to == home(2)).count()
    };
    assert_eq!([told(&Record::Challenge(7)), told(&Record::Challenge(7)), told(&Record::Response(7))], [1, 1, 0]);
}

#[test]
fn of_many_questions_in_one_datagram_one_is_answered() {
    let mut stage = Stage::new(true);
    let (mut bytes, mut out) = (Vec::new(), Outbox::default());
    for nonce in 0..100 {
        Record::Challenge(nonce).write(&mut bytes);
    }
    // Not from where it lives, so that the answer goes another way than the questions came.
    stage.sealed(Kind::ControlRelayed, home(66), &bytes, &mut out);
    assert_eq!(out.datagrams.len(), 1);
}
