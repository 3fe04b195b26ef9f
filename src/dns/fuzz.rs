//! Fuzz body: whatever a caller sends, the name server judges it, and what it answers is an answer to it.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::DnsCounters;
use super::answer::{Answerer, MAX_UDP, Transport, Verdict, failure, truncate};
use crate::names::{Domain, Own, View};
use crate::wire::PeerName;

/// A query as it comes in a datagram.
pub fn dns(data: &[u8]) {
    let Ok(domain) = Domain::DEFAULT.parse::<Domain>() else { return };
    let mut own = Own::new(domain.clone());
    let many: Vec<IpAddr> = (1..=100).map(|last| [10, 32, 0, last].into()).collect();
    let filled = own.add("c", "many", &many).is_ok() && own.add("c", "a.b.weave.local", &many[..1]).is_ok();
    assert!(filled, "the names are well formed");
    let mut view = View::new(domain, PeerName([2; 6]), "here");
    view.set_own(own.bodies());
    let answerer = Answerer::new(&view, 1);
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    match answerer.judge(data, Transport::Udp, &view, &mut rng, &DnsCounters::default()) {
        Verdict::Answer(bytes) => {
            assert!(bytes.len() <= usize::from(MAX_UDP));
            let answer = Message::from_vec(&bytes).expect("what is answered can be read");
            assert_eq!((answer.metadata.message_type, Some(&bytes[..2])), (MessageType::Response, data.get(..2)));
        }
        Verdict::Forward(_) => {
            assert!(failure(data, true).is_some_and(|failed| Message::from_vec(&failed).is_ok()), "what is passed on has one question");
        }
        Verdict::Drop => {}
    }
    if let Some(short) = truncate(data, false) {
        assert!(short.len() <= data.len());
    }
}
