//! Fuzz body: whatever other routers publish, the view answers, and is empty again when they are gone.

use super::{Domain, Found, View};
use crate::wire::PeerName;
use crate::wire::names::NamesBody;

/// The first byte is the chunk, the rest its body.
pub fn names(data: &[u8]) {
    let Some((chunk, body)) = data.split_first() else { return };
    let parsed = NamesBody::parse(body);
    if let Ok(parsed) = &parsed {
        assert_eq!(parsed.to_bytes(), body, "one content has one encoding");
        assert_eq!(parsed.wire_len(), body.len());
    }
    let Ok(domain) = Domain::DEFAULT.parse::<Domain>() else { return };
    let (own, peer) = (PeerName([2; 6]), PeerName([4; 6]));
    let mut view = View::new(domain, own, "here");
    view.peer(peer, "there", true);
    let taken = view.record(peer, u16::from(*chunk), Some(body)).is_ok();
    if let (true, Ok(parsed)) = (taken, &parsed) {
        for ((name, _), addresses) in &parsed.entries {
            let Found::Addresses(found) = view.look_up(name) else { panic!("{name} is not answered") };
            assert!(addresses.iter().all(|address| found.contains(address) && view.names_of(*address).next().is_some()));
        }
    }
    view.forget(peer);
    assert_eq!((view.entries(), view.answered(), view.rows().len()), (0, 0, 0));
}
