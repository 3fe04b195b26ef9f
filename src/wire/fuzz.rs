//! Fuzz bodies of the wire format: whatever bytes arrive, a parser answers, and what it took means the same when written again.

use super::address::Address;
use super::beat::Beat;
use super::body::Body;
use super::control::{self, Records};
use super::gossip::Message;
use super::groups::{GROUPS, Groups};
use super::header::{HEADER_LEN, Header, decrement_hop_limit};
use super::record::Record;

/// The clear header of a datagram.
pub fn header(data: &[u8]) {
    let mut bytes = data.to_vec();
    let lowered = decrement_hop_limit(&mut bytes);
    let Ok(header) = Header::parse(data) else { return };
    let written = header.to_bytes();
    assert_eq!(data.get(..HEADER_LEN), Some(&written[..]), "a header is written as it was read");
    assert_eq!(lowered, header.hop_limit > 1, "a hop limit never reaches zero");
    let onward = Header::parse(&bytes).expect("a relay changes nothing but the hop limit");
    assert_eq!(Header { hop_limit: header.hop_limit, ..onward }, header);
    assert_eq!(Header::associated_data(&written), Header::associated_data(&onward.to_bytes()), "relays may lower the hop limit");
}

/// The plaintext of a control datagram.
pub fn control(data: &[u8]) {
    let mut address = data;
    _ = Address::read(&mut address);
    let beat = Beat::parse(data);
    assert_eq!(beat.and_then(|beat| Beat::parse(&beat.to_frame(data.len()))), beat, "a heartbeat means the same when written again");
    let records: Vec<control::Record<'_>> = Records::new(data).collect();
    let mut again = Vec::new();
    for record in &records {
        let start = again.len();
        record.write(&mut again);
        assert_eq!(again.len() - start, record.wire_len());
    }
    let mut reread = Records::new(&again);
    assert_eq!(reread.by_ref().collect::<Vec<_>>(), records, "records mean the same when written again");
    assert!(!reread.is_bad());
}

/// A gossip message and the records in it; the signatures are not looked at.
pub fn gossip(data: &[u8]) {
    let records = match Message::parse(data) {
        Ok(Message::Records(records)) => records,
        Ok(Message::Root(_) | Message::Tree(..) | Message::Keys { .. } | Message::Want(_) | Message::Push(_)) | Err(_) => vec![data],
    };
    for bytes in records {
        let Ok(record) = Record::parse(bytes) else { continue };
        if let Body::Unknown(GROUPS, body) = record.body()
            && let Some(groups) = Groups::parse(body)
        {
            assert_eq!(groups.to_bytes(), **body, "one content has one encoding");
        }
        assert_eq!(record.bytes(), bytes);
        let (id, edition) = (record.id(), record.edition());
        let version = (edition.incarnation, edition.sequence);
        let again = Record::build(record.origin(), id.chunk, version, record.body(), |_| *record.signature());
        assert_eq!(again.as_ref().map(Record::bytes), Ok(bytes), "one content has one encoding");
    }
}
