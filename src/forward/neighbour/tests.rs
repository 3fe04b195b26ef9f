use etherparse::{Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};

use super::*;

const ASKER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OWNER: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn v4(n: u8) -> Ipv4Addr {
    [10, 32, 0, n].into()
}

fn v6(n: u8) -> Ipv6Addr {
    Ipv6Addr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n])
}

fn arp(operation: u8, sender: Ipv4Addr, target: Ipv4Addr, tags: &[u8]) -> Vec<u8> {
    let head = [&[0xff; 6][..], &ASKER, tags, &[8, 6], &ARP_HEAD, &[0, operation]].concat();
    [&head[..], &ASKER, &sender.octets(), &[0; 6], &target.octets()].concat()
}

fn nd(kind: u8, source: Ipv6Addr, target: Ipv6Addr, flags: u8, options: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target.octets(), options].concat();
    let header = [0x60, 0, 0, 0, 0, message.len() as u8, ICMPV6, 255];
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, target.octets()[15]];
    [&[0x33, 0x33, 0xff, 0, 0, 1][..], &ASKER, &[0x86, 0xdd], &header, &source.octets(), &group, &message].concat()
}

fn read(bytes: &[u8]) -> Option<Resolution> {
    parse(bytes, &Frame::parse(bytes).expect("a frame"))
}

#[test]
fn questions_claims_and_what_is_neither_are_told_apart() {
    let question = |target: IpAddr, asker: IpAddr| Some(Question { target, asker });
    let claim = |ip: IpAddr, mac, router| Some(Claim { ip, mac, router });
    let (a, b, a6, b6) = (v4(1), v4(2), v6(1), v6(2));
    let option = [&[TARGET_OPTION, 1][..], &OWNER].concat();
    let nobody = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
    for (frame, asks, says) in [
        (arp(1, a, b, &[]), question(b.into(), a.into()), claim(a.into(), ASKER, false)),
        (arp(1, a, b, &[0x81, 0, 0, 5]), question(b.into(), a.into()), claim(a.into(), ASKER, false)),
        (arp(2, a, b, &[]), None, claim(a.into(), ASKER, false)),
        (arp(1, a, a, &[]), None, claim(a.into(), ASKER, false)),
        (arp(1, nobody.0, b, &[]), None, None),
        (arp(3, a, b, &[]), None, None),
        (nd(SOLICITATION, a6, b6, 0, &[]), question(b6.into(), a6.into()), None),
        (nd(SOLICITATION, nobody.1, b6, 0, &[]), None, None),
        (nd(ADVERTISEMENT, a6, a6, 0x20, &option), None, claim(a6.into(), OWNER, false)),
        (nd(ADVERTISEMENT, a6, a6, 0x80, &option), None, claim(a6.into(), OWNER, true)),
        (nd(ADVERTISEMENT, a6, a6, 0x20, &[]), None, None),
        (nd(ADVERTISEMENT, a6, a6, 0x20, &[TARGET_OPTION, 0]), None, None),
    ] {
        assert_eq!(read(&frame), Some(Resolution { question: asks, claim: says }), "{frame:02x?}");
    }
    let mut routed = nd(SOLICITATION, a6, b6, 0, &[]);
    routed[21] = 254;
    for other in [routed, nd(128, a6, b6, 0, &[]), nd(133, a6, b6, 0, &[])] {
        assert_eq!(read(&other), None, "{other:02x?}");
    }
    for whole in [arp(1, a, b, &[]), nd(ADVERTISEMENT, a6, a6, 0, &option)] {
        for len in 14..whole.len() {
            assert!(read(&whole[..len]).is_none_or(|said| said.question.is_none() && said.claim.is_none()), "{len}");
        }
    }
}

#[test]
fn answers_are_those_that_the_owner_would_give() {
    let written = |request: &[u8]| {
        let frame = Frame::parse(request).expect("a frame");
        let question = parse(request, &frame).and_then(|said| said.question).expect("a question");
        let mut out = [0; LONGEST];
        let length = answer(request, &frame, &question, OWNER, &mut out).expect("an answer");
        out[..length].to_vec()
    };
    let tag = [0x81, 0, 0, 5];
    for tags in [&[][..], &tag] {
        let reply = written(&arp(1, v4(1), v4(2), tags));
        let head = [&ASKER[..], &OWNER, tags, &[8, 6], &ARP_HEAD, &[0, 2]].concat();
        assert_eq!(reply, [&head[..], &OWNER, &v4(2).octets(), &ASKER, &v4(1).octets()].concat());
    }
    let reply = written(&nd(SOLICITATION, v6(1), v6(2), 0, &[]));
    assert_eq!((&reply[..6], &reply[6..12]), (&ASKER[..], &OWNER[..]));
    let packet = SlicedPacket::from_ethernet(&reply).expect("a packet");
    let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("IPv6") };
    assert_eq!((ip.header().source_addr(), ip.header().destination_addr(), ip.header().hop_limit()), (v6(2), v6(1), 255));
    let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("ICMPv6") };
    assert!(icmp.is_checksum_valid(v6(2).octets(), v6(1).octets()));
    let solicited = |kind: Icmpv6Type| matches!(kind, Icmpv6Type::NeighborAdvertisement(h) if h.solicited && !h.r#override && !h.router);
    assert!(solicited(icmp.icmp_type()));
    assert_eq!(read(&reply).and_then(|said| said.claim), Some(Claim { ip: v6(2).into(), mac: OWNER, router: false }));
}
