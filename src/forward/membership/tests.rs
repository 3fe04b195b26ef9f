use super::*;
use crate::forward::frame::macs;

const STATION: [u8; 6] = [2, 0xc0, 0, 0, 0, 1];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A frame with this message of IGMP, to a group.
fn igmp(to: [u8; 4], source: [u8; 4], message: &[u8]) -> Vec<u8> {
    let [_, b, c, d] = to;
    let mut frame =
        [&[1, 0, 0x5e, b & 0x7f, c, d][..], &STATION, &[8, 0, 0x46, 0xc0, 0, 24 + message.len() as u8, 0, 0, 0x40, 0, 1, 2, 0, 0]].concat();
    frame.extend_from_slice(&source);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&[0x94, 4, 0, 0]);
    write_ipv4_header(&mut frame[14..]);
    frame.extend_from_slice(message);
    frame
}

/// A frame with this message of MLD.
fn mld(source: &str, message: &[u8]) -> Vec<u8> {
    let mut frame = [&[0x33, 0x33, 0, 0, 0, 0x16][..], &STATION, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 8 + message.len() as u8, 0, 1]].concat();
    for text in [source, "ff02::16"] {
        let IpAddr::V6(ip) = ip(text) else { panic!("an address of IPv6") };
        frame.extend_from_slice(&ip.octets());
    }
    frame.extend_from_slice(&[58, 0, 5, 2, 0, 0, 1, 0]);
    frame.extend_from_slice(message);
    frame
}

fn told(bytes: &[u8]) -> Vec<(IpAddr, bool)> {
    let frame = Frame::parse(bytes).expect("a frame");
    let Some(Talk::Report(report)) = parse(bytes, &frame) else { panic!("no report: {bytes:02x?}") };
    let mut all = Vec::new();
    report.for_each(|group, joined| all.push((group, joined)));
    all
}

fn talk(bytes: &[u8]) -> Option<Talk<'_>> {
    parse(bytes, &Frame::parse(bytes).expect("a frame"))
}

#[test]
fn reports_of_all_versions_are_read() {
    for (kind, joined) in [(0x12, true), (0x16, true), (0x17, false)] {
        assert_eq!(told(&igmp([239, 1, 2, 3], [10, 0, 0, 1], &[kind, 0, 0, 0, 239, 1, 2, 3])), [(ip("239.1.2.3"), joined)]);
    }
    // Excluding nobody, including nobody, including two, fewer of one, of an unknown kind, and with auxiliary data.
    let records = [
        &[0x22, 0, 0, 0, 0, 0, 0, 6][..],
        &[4, 0, 0, 0, 239, 0, 0, 1],
        &[3, 0, 0, 0, 239, 0, 0, 2],
        &[1, 0, 0, 2, 239, 0, 0, 3, 1, 1, 1, 1, 2, 2, 2, 2],
        &[6, 0, 0, 1, 239, 0, 0, 4, 1, 1, 1, 1],
        &[9, 0, 0, 0, 239, 0, 0, 5],
        &[2, 1, 0, 0, 239, 0, 0, 6, 9, 9, 9, 9],
    ];
    let frame = igmp([224, 0, 0, 22], [0; 4], &records.concat());
    let all = [(1, true), (2, false), (3, true), (4, false), (6, true)].map(|(n, joined)| (IpAddr::from([239, 0, 0, n]), joined));
    assert_eq!(told(&frame), all);
    for len in 14..frame.len() {
        if let Some(Talk::Report(report)) = talk(&frame[..len]) {
            report.for_each(|group, joined| assert!(all.contains(&(group, joined))));
        }
    }
    let group = [0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3];
    for (kind, joined) in [(131, true), (132, false)] {
        assert_eq!(told(&mld("fe80::1", &[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group].concat())), [(ip("ff05::1:3"), joined)]);
    }
    let second = [&[143, 0, 0, 0, 0, 0, 0, 2][..], &[4, 0, 0, 0], &group, &[3, 0, 0, 0], &group].concat();
    assert_eq!(told(&mld("fe80::1", &second)), [(ip("ff05::1:3"), true), (ip("ff05::1:3"), false)]);
}

#[test]
fn multicast_routers_are_told_from_those_that_only_snoop() {
    let question = [0x11, 100, 0, 0, 0, 0, 0, 0];
    assert_eq!(talk(&igmp([224, 0, 0, 1], [10, 0, 0, 1], &question)), Some(Talk::Router));
    assert_eq!(talk(&igmp([224, 0, 0, 1], [0; 4], &question)), Some(Talk::Snooper));
    let question = [&[130, 0, 0, 0, 3, 0xe8, 0, 0][..], &[0; 20]].concat();
    assert_eq!(talk(&mld("fe80::1", &question)), Some(Talk::Router));
    for own in questions(None) {
        assert_eq!(talk(&own), Some(Talk::Snooper));
    }
    let mut pim = igmp([224, 0, 0, 13], [10, 0, 0, 1], &[0x20, 0, 0, 0]);
    pim[23] = PIM;
    assert_eq!(talk(&pim), Some(Talk::Router));
    assert_eq!(talk(&[&[0xff; 6][..], &STATION, &[0x88, 0xb5, 0x11, 0, 0, 0]].concat()), None);
}

#[test]
fn golden_questions() {
    let hex = |frame: &[u8]| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let [v4, v6] = &questions(None)[..] else { panic!("one of each family") };
    assert_eq!(
        hex(v4),
        "01005e000001\
         027765617665\
         0800\
         46c00024000000000102441300000000e000000194040000\
         110aec7800000000027d0000"
    );
    let head = "33330000000102776561766586dd600000000024 0001fe800000000000000000007765617665ff02000000000000000000000000 0001";
    assert!(hex(v6).starts_with(&head.replace(' ', "")), "{}", hex(v6));
    for (group, to) in [("239.129.2.3", [1, 0, 0x5e, 1, 2, 3]), ("ff05::1:3", [0x33, 0x33, 0, 1, 0, 3])] {
        let frames = questions(Some(ip(group)));
        assert_eq!(frames.iter().map(|frame| macs(frame)).collect::<Vec<_>>(), [Some((to, ASKER_MAC))]);
    }
    // Their checksums are right: with them everything adds up to nothing.
    for question in questions(None).into_iter().chain(questions(Some(ip("239.1.2.3")))) {
        let frame = Frame::parse(&question).expect("a frame");
        let (l3, l4) = (usize::from(frame.l3), usize::from(frame.l4));
        let message = sum(&question[l4..]);
        let pseudo = match frame.net {
            Net::V4 => {
                assert_eq!(fold(sum(&question[l3..l4])), 0xffff);
                0
            }
            _ => sum(&question[l3 + 8..l3 + 40]) + 28 + u64::from(ICMPV6),
        };
        assert_eq!((fold(message + pseudo), frame.ip_end as usize), (0xffff, question.len()));
    }
}

#[test]
fn frames_of_members_alone_are_told_from_those_of_everybody() {
    let group = |bytes: &[u8]| group_of(bytes, &Frame::parse(bytes).expect("a frame"));
    let v4 = |to: [u8; 4], mac: [u8; 6], protocol: u8| {
        let mut frame = [&mac[..], &STATION, &[8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1], &to].concat();
        frame.extend_from_slice(&[0; 8]);
        frame
    };
    let mac = [1, 0, 0x5e, 1, 2, 3];
    assert_eq!(group(&v4([239, 1, 2, 3], mac, 17)), Some(ip("239.1.2.3")));
    assert_eq!(group(&v4([239, 129, 2, 3], mac, 17)), Some(ip("239.129.2.3")));
    assert_eq!(group(&v4([239, 1, 2, 3], mac, IGMP)), None, "what keeps groups together");
    assert_eq!(group(&v4([239, 1, 2, 3], mac, PIM)), None);
    assert_eq!(group(&v4([239, 1, 2, 4], mac, 17)), None, "of another MAC");
    assert_eq!(group(&v4([239, 1, 2, 3], [0xff; 6], 17)), None);
    assert_eq!(group(&v4([10, 1, 2, 3], mac, 17)), None);
    assert_eq!(group(&v4([224, 0, 0, 251], [1, 0, 0x5e, 0, 0, 251], 17)), None, "of one link");
    let mut tagged = v4([239, 1, 2, 3], mac, 17);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    assert_eq!(group(&tagged), None, "in a VLAN");
    let done = mld("fe80::1", &[&[132, 0, 0, 0, 0, 0, 0, 0][..], &[0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3]].concat());
    assert_eq!(group(&done), None);
    let mut data = done;
    data[..6].copy_from_slice(&[0x33, 0x33, 0, 1, 0, 3]);
    data[38..54].copy_from_slice(&[0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3]);
    assert_eq!(group(&data), None, "about groups, to the group itself");
    data[62] = 128;
    assert_eq!(group(&data), Some(ip("ff05::1:3")), "an echo request");
    let report = igmp([239, 1, 2, 3], [10, 0, 0, 1], &[0x16, 0, 0, 0, 239, 1, 2, 3]);
    assert_eq!(group(&report), None);
}

proptest::proptest! {
    #[test]
    fn whatever_comes_is_read_within_its_bounds(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120), six in proptest::prelude::any::<bool>()) {
        let frame = if six { mld("fe80::1", &bytes) } else { igmp([224, 0, 0, 22], [0; 4], &bytes) };
        if let Some(Talk::Report(report)) = talk(&frame) {
            let mut count = 0;
            report.for_each(|_, _| count += 1);
            proptest::prop_assert!(count <= bytes.len());
        }
    }
}
