//! Parsing against etherparse, and against everything malformed.

use proptest::prelude::*;

use super::*;
use crate::forward::testkit::Recipe;

#[test]
fn offsets_of_ordinary_frames() {
    let tcp = Recipe { tags: vec![5], ip_options: 2, ..Recipe::default() };
    let bytes = tcp.frame();
    let frame = Frame::parse(&bytes).expect("a frame");
    assert_eq!((frame.vlan, frame.net, frame.protocol, frame.transport), (5, Net::V4, TCP, Some(Transport::Tcp)));
    assert_eq!((frame.l3, frame.l4, frame.payload), (18, 46, 78));
    assert_eq!((frame.dont_fragment, frame.fragment, frame.ip_end as usize), (true, false, bytes.len()));
    assert!(frame.agrees(&tcp.vnet(0)));
    let udp = Recipe { v6: true, tcp: false, ..Recipe::default() };
    let bytes = udp.frame();
    let frame = Frame::parse(&bytes).expect("a frame");
    assert_eq!((frame.l3, frame.l4, frame.payload, frame.transport), (14, 54, 62, Some(Transport::Udp)));
    assert_eq!(frame.ip_end as usize, bytes.len());
}

#[test]
fn extension_headers_are_walked() {
    let mut bytes = Recipe { v6: true, tcp: false, ..Recipe::default() }.frame();
    // Hop-by-hop of 16 bytes, then destination options of 8.
    let extensions = [60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0];
    bytes.splice(54..54, extensions);
    bytes[20] = 0;
    let frame = Frame::parse(&bytes).expect("a frame");
    assert_eq!((frame.net, frame.l4, frame.transport, frame.fragment), (Net::V6, 78, Some(Transport::Udp), false));
    // The second becomes a fragment header.
    bytes[54] = 44;
    let frame = Frame::parse(&bytes).expect("a frame");
    assert_eq!((frame.net, frame.l4, frame.transport, frame.fragment, frame.protocol), (Net::V6, 78, None, true, 17));
}

#[test]
fn a_flow_is_never_finer_than_the_kernels() {
    let flow = |bytes: &[u8]| Frame::parse(bytes).expect("a frame").flow(bytes);
    let with = |mut bytes: Vec<u8>, at: usize, byte: u8| {
        bytes[at] = byte;
        bytes
    };
    let tcp = Recipe::default().frame();
    assert_ne!(flow(&tcp), 0);
    assert_ne!(flow(&tcp), flow(&with(tcp.clone(), 35, 0x77)), "ports count");
    assert_ne!(flow(&tcp), flow(&with(tcp.clone(), 33, 0x77)), "addresses count");
    assert_eq!(flow(&tcp), flow(&with(tcp.clone(), 41, 0x77)), "sequence numbers do not");
    assert_eq!(flow(&tcp), flow(&Recipe { tags: vec![5], ..Recipe::default() }.frame()), "nor do VLANs");
    // More fragments, and the last fragment: the kernel has no ports for either.
    let first = with(tcp.clone(), 20, 0x20);
    let last = with(with(with(tcp.clone(), 20, 0), 21, 9), 35, 0x77);
    assert_eq!(flow(&first), flow(&last));
    assert_eq!(flow(&with(tcp, 13, 0x06)), 0, "not IP");
}

#[test]
fn fragments_and_strangers_have_no_transport() {
    let mut bytes = Recipe { dont_fragment: false, ..Recipe::default() }.frame();
    bytes[20] = 0x20;
    let frame = Frame::parse(&bytes).expect("a frame");
    assert_eq!((frame.fragment, frame.transport), (true, None));
    let mut arp = vec![0xff; 60];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let frame = Frame::parse(&arp).expect("a frame");
    assert_eq!((frame.net, frame.transport, frame.vlan), (Net::Other, None, 0));
    assert_eq!(Frame::parse(&arp[..13]), None);
    assert!(Frame::parse(&[0; 14]).is_some());
    // Priority-tagged is untagged; a tag cut short is none.
    assert_eq!(Frame::parse(&[&[0; 12][..], &[0x81, 0, 0xe0, 0, 8, 0]].concat()).map(|frame| (frame.vlan, frame.l3)), Some((0, 18)));
    assert_eq!(Frame::parse(&[&[0; 12][..], &[0x81, 0, 0xe0]].concat()).map(|frame| (frame.vlan, frame.l3)), Some((0, 14)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn offsets_lie_inside(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..5, changes in proptest::collection::vec((0usize..80, any::<u8>()), 0..6)) {
        let recipe = match kind {
            0 => None,
            n => Some(Recipe { v6: n % 2 == 0, tcp: n < 3, payload: 20, ..Recipe::default() }),
        };
        if let Some(recipe) = recipe {
            bytes = recipe.frame();
            for (at, value) in changes {
                let at = at.min(bytes.len() - 1);
                bytes[at] = value;
            }
        }
        if let Some(frame) = Frame::parse(&bytes) {
            let (l3, l4, payload) = (usize::from(frame.l3), usize::from(frame.l4), usize::from(frame.payload));
            prop_assert!(14 <= l3 && l3 <= l4 && l4 <= payload && payload <= bytes.len());
            prop_assert!(frame.transport.is_none() || payload >= l4 + 8);
            prop_assert!(frame.net != Net::V4 || l4 >= l3 + 20);
            prop_assert!(frame.net != Net::V6 || l4 >= l3 + 40);
            prop_assert!(frame.label(&bytes) < 16);
        }
    }
}
