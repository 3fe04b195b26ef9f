//! TAPs in network namespaces of their own; the kernel's IP stack is the other side.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use mio::{Events, Poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::*;
use crate::io::sys::sockopt;
use crate::io::testing::in_own_namespace;
use crate::io::udp::path_mtu;
use crate::wire::address::Address;
use crate::wire::vnet::NEEDS_CSUM;

const NAME: &str = "weave-test";
const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 1);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 2);

/// Waits until there is no TAP of this name. A test next door that starts a program holds our descriptors until that program runs, so the
/// last queue may be closed a moment after we have closed it.
fn await_gone() {
    for _ in 0..1000 {
        if link::index(NAME).is_err() {
            return;
        }
        let _ = nix::poll::poll(&mut [], 10u16);
    }
    panic!("{NAME} goes with its last queue");
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().expect("the tests need iproute2");
    assert!(status.success(), "ip {arguments}: {status}");
}

/// A TAP that the kernel reaches 10.9.9.2 through, itself being 10.9.9.1 with MAC 02:00:00:00:00:01.
fn with_addresses(policy: OffloadPolicy) -> Tap {
    await_gone();
    let tap = Tap::open(NAME, policy, false).expect("a TAP");
    give_addresses(&tap);
    tap
}

fn give_addresses(tap: &Tap) {
    ip(&format!("link set {NAME} address 02:00:00:00:00:01 addrgenmode none"));
    tap.configure(MTU, QUEUE_LEN, true).expect("configured");
    ip(&format!("addr add {OURS}/24 dev {NAME}"));
    ip(&format!("neigh add {THEIRS} lladdr 02:00:00:00:00:02 dev {NAME}"));
}

/// A UDP header's source, destination, length, checksum and payload behind an IPv4 and an Ethernet header from 10.9.9.2 to 10.9.9.1.
/// The checksum is partial.
fn udp_frame(port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]).ipv4(THEIRS.octets(), OURS.octets(), 64);
    let mut frame = Vec::new();
    builder.udp(7, port).write(&mut frame, payload).expect("a frame");
    let [a, b] = u16::try_from(8 + payload.len()).expect("a UDP length").to_be_bytes();
    let pseudo = [&THEIRS.octets()[..], &OURS.octets(), &[0, 17, a, b]].concat();
    let mut sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[40..42].copy_from_slice(&u16::try_from(sum).expect("folded").to_be_bytes());
    frame
}

fn partial(gso_type: u8, gso_size: u16) -> VnetHeader {
    VnetHeader { flags: NEEDS_CSUM, gso_type, hdr_len: 0, gso_size, csum_start: 34, csum_offset: 6 }
}

/// The next frame to UDP port `port`, whatever else the kernel says meanwhile.
fn next_udp(tap: &mut Tap, port: u16) -> (VnetHeader, Vec<u8>) {
    let mut poll = Poll::new().expect("a poll");
    poll.registry().register(tap, Token(0), Interest::READABLE).expect("registered");
    let mut buffer = vec![0; MIN_BUFFER];
    let found = loop {
        match tap.read(&mut buffer).expect("a working TAP") {
            Some((vnet, frame)) if frame.get(36..38) == Some(&port.to_be_bytes()[..]) => break (vnet, frame.to_vec()),
            Some(_) => {}
            None => {
                let mut events = Events::with_capacity(1);
                poll.poll(&mut events, Some(Duration::from_secs(10))).expect("a poll");
                assert!(!events.is_empty(), "no frame came");
            }
        }
    };
    poll.registry().deregister(tap).expect("deregistered");
    found
}

/// A kernel socket that sends runs of datagrams of 1000 bytes to 10.9.9.2.
fn segmenting_socket() -> UdpSocket {
    let socket = UdpSocket::bind((OURS, 0)).expect("a socket");
    sockopt::set(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 1000).expect("segmentation");
    socket
}

#[test]
fn opens_with_offloads_and_takes_everything() {
    in_own_namespace("tap-open", || {
        let tap = with_addresses(OffloadPolicy::Auto);
        assert!(LADDER[..3].contains(&tap.offload()), "{:#x}", tap.offload());
        assert_eq!((tap.name(), link::index(NAME).ok()), (NAME, Some(tap.ifindex())));
        assert!(tap.gso_usable(GSO_NONE) && tap.gso_usable(GSO_TCPV4 | 0x80) && tap.gso_usable(GSO_TCPV6));
        assert_eq!(tap.gso_usable(GSO_UDP_L4), tap.offload() == 0x6f);
        assert!(!tap.gso_usable(3), "UFO");
        let theirs = Address::udp(SocketAddr::new(THEIRS.into(), 9));
        assert_eq!(path_mtu(theirs).expect("a route").to_string(), MTU.to_string());

        drop(tap);
        await_gone();
    });
}

#[test]
fn super_frames_come_whole_unless_switched_off() {
    in_own_namespace("tap-read", || {
        let payload: Vec<u8> = (0..20_500u32).map(|n| n as u8).collect();
        for (policy, sizes) in [(OffloadPolicy::Auto, vec![20_500]), (OffloadPolicy::Off, [vec![1000; 20], vec![500]].concat())] {
            let mut tap = with_addresses(policy);
            let sizes = if tap.gso_usable(GSO_UDP_L4) || policy == OffloadPolicy::Off { sizes } else { continue };
            segmenting_socket().send_to(&payload, (THEIRS, 4242)).expect("sent");
            let mut got = Vec::new();
            for size in sizes {
                let (vnet, frame) = next_udp(&mut tap, 4242);
                assert_eq!(frame.len(), 14 + 20 + 8 + size);
                if policy == OffloadPolicy::Auto {
                    assert_eq!((vnet.needs_csum(), vnet.gso_type, vnet.gso_size), (true, GSO_UDP_L4, 1000));
                    assert_eq!((vnet.csum_start, vnet.csum_offset), (34, 6));
                } else {
                    assert_eq!((vnet.needs_csum(), vnet.gso_type), (false, GSO_NONE));
                }
                got.extend_from_slice(&frame[42..]);
            }
            assert!(got == payload, "the same bytes");
        }
    });
}

#[test]
fn a_super_frame_is_written_from_parts() {
    in_own_namespace("tap-write", || {
        let mut tap = with_addresses(OffloadPolicy::Auto);
        let socket = UdpSocket::bind((OURS, 4243)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let payload: Vec<u8> = (0..10_500u32).map(|n| n as u8).collect();
        let frame = udp_frame(4243, &payload);
        let parts: Vec<_> = frame.chunks(777).map(IoSlice::new).collect();
        let expected: Vec<&[u8]> = if tap.gso_usable(GSO_UDP_L4) {
            tap.write_frame(&partial(GSO_UDP_L4, 1000), &parts).expect("written");
            payload.chunks(1000).collect()
        } else {
            tap.write_frame(&partial(GSO_NONE, 0), &parts).expect("written");
            vec![&payload]
        };
        for datagram in expected {
            let mut buffer = vec![0; 65_536];
            let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
            assert_eq!((&buffer[..len], from), (datagram, SocketAddr::new(THEIRS.into(), 7)));
        }
    });
}

#[test]
fn a_frame_that_is_not_ip_leaves_as_it_is() {
    in_own_namespace("tap-frame", || {
        let mut tap = with_addresses(OffloadPolicy::Auto);
        let every_protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
        let mut sink = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every_protocol))).expect("a packet socket");
        sink.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &[0x5a; 50]].concat();
        let (head, tail) = frame.split_at(14);
        tap.write_frame(&VnetHeader::default(), &[IoSlice::new(head), IoSlice::new(tail)]).expect("written");
        let mut buffer = [0; 2048];
        while sink.read(&mut buffer).expect("the frame comes") != frame.len() || buffer[..frame.len()] != frame[..] {}
    });
}

#[test]
fn a_family_of_super_frames_is_given_up_when_the_kernel_refuses_one() {
    in_own_namespace("tap-refused", || {
        let mut tap = with_addresses(OffloadPolicy::Auto);
        let frame = udp_frame(4244, &[0; 3000]);
        let parts = [IoSlice::new(&frame)];
        // A segment size of zero is what any kernel refuses.
        let bad = partial(GSO_TCPV4, 0);
        assert!(tap.gso_usable(GSO_TCPV4) && tap.gso_usable(GSO_TCPV4 | GSO_ECN));
        assert_eq!(tap.write_frame(&bad, &parts).err().and_then(|e| e.raw_os_error()), Some(libc::EINVAL));
        assert!(!tap.gso_usable(GSO_TCPV4) && !tap.gso_usable(GSO_TCPV4 | GSO_ECN));
        assert!(tap.gso_usable(GSO_NONE) && tap.gso_usable(GSO_TCPV6) && tap.gso_usable(GSO_TCPV6 | GSO_ECN));
        assert_eq!(tap.gso_usable(GSO_UDP_L4), tap.offload() == 0x6f, "kinds are judged apart");
        let refused = |(name, state): (&'static str, Offload)| state.to_string().contains("the kernel refused").then_some(name);
        assert_eq!(tap.offload_report().into_iter().filter_map(refused).collect::<Vec<_>>(), ["tap_tcp4_writes"]);

        tap.configure(MTU, QUEUE_LEN, false).expect("down");
        let error = tap.write_frame(&VnetHeader::default(), &parts).expect_err("the link is down");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        let too_many = vec![IoSlice::new(&[]); MAX_PARTS + 1];
        assert_eq!(tap.write_frame(&VnetHeader::default(), &too_many).map_err(|e| e.kind()), Err(io::ErrorKind::InvalidInput));
        assert!(tap.read(&mut [0; 2048]).is_err(), "a buffer that would cut super frames short is refused");
    });
}

#[test]
fn what_is_switched_off_is_not_asked_for() {
    in_own_namespace("tap-lists", || {
        let all = Tap::open(NAME, OffloadPolicy::Auto, false).expect("a TAP").offload();
        // Each under a name of its own: a child that another test of this process is starting may hold the one before for a moment longer.
        for (number, (list, without, off)) in (0..).zip([
            ("no-tso", 0x0e, &["tap_tso4", "tap_tso6", "tap_tso_ecn", "tap_tcp4_writes", "tap_tcp6_writes"][..]),
            ("no-ecn", 0x08, &["tap_tso_ecn"]),
            ("no-uso", 0x60, &["tap_uso", "tap_udp_writes"]),
            (
                "no-tso,no-uso",
                0x6e,
                &["tap_tso4", "tap_tso6", "tap_tso_ecn", "tap_uso", "tap_tcp4_writes", "tap_tcp6_writes", "tap_udp_writes"],
            ),
            ("no-gso,no-gro", 0, &[]),
        ]) {
            let tap = Tap::open(&format!("weave-test{number}"), list.parse().expect(list), false).expect("a TAP");
            assert_eq!(tap.offload(), all & !without, "{list}");
            let by_name = |(name, state): (&'static str, Offload)| state.to_string().contains("--offload no-").then_some(name);
            assert_eq!(tap.offload_report().into_iter().filter_map(by_name).collect::<Vec<_>>(), off, "{list}");
            let ecn = all & 0x08 & !without != 0;
            assert_eq!(tap.gso_usable(GSO_TCPV4 | GSO_ECN), ecn, "{list}");
        }
        let tap = Tap::open(NAME, "no-csum".parse().expect("a list"), false).expect("a TAP");
        assert_eq!((tap.offload(), tap.csum_usable()), (0, false));
        assert!(tap.offload_report().iter().all(|(_, state)| state.to_string().contains("no-csum")), "{:?}", tap.offload_report());
    });
}

/// Which is why only those who want no partial checksums at all have them finished by us.
#[test]
fn a_partial_checksum_is_finished_by_the_kernel_whatever_it_hands_us() {
    in_own_namespace("tap-partial", || {
        let mut tap = with_addresses(OffloadPolicy::Auto);
        tun::set_offload(tap.as_fd(), 0).expect("nothing is handed to us");
        let socket = UdpSocket::bind((OURS, 4245)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let frame = udp_frame(4245, b"partial");
        // Without the flag the same frame has a wrong checksum, and is not received.
        tap.write_frame(&VnetHeader::default(), &[IoSlice::new(&udp_frame(4245, b"wrong"))]).expect("written");
        tap.write_frame(&partial(GSO_NONE, 0), &[IoSlice::new(&frame)]).expect("written");
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer).expect("a datagram");
        assert_eq!(&buffer[..len], b"partial");
    });
}

#[test]
fn queues_share_a_tap() {
    in_own_namespace("tap-queues", || {
        let mut taps = Tap::open_queues(NAME, OffloadPolicy::Auto, 3).expect("a TAP");
        assert!(taps.iter().all(|tap| (tap.ifindex(), tap.offload()) == (taps[0].ifindex(), taps[0].offload())));
        assert!(matches!(Tap::open(NAME, OffloadPolicy::Auto, false), Err(TapError::Taken(_))), "a queue of the other kind");
        drop(taps.split_off(1));
        assert!(link::index(NAME).is_ok(), "one queue is left");
    });
    in_own_namespace("tap-persistent", || {
        for kind in ["", "multi_queue"] {
            ip(&format!("tuntap add {NAME} mode tap vnet_hdr {kind}"));
            assert_eq!(Tap::open_queues(NAME, OffloadPolicy::Auto, 1).expect("of either kind").len(), 1);
            assert_eq!(Tap::open_queues(NAME, OffloadPolicy::Auto, 2).is_ok(), !kind.is_empty());
            ip(&format!("tuntap del {NAME} mode tap {kind}"));
            await_gone();
        }
    });
}

/// Opens a TAP whose queue was just closed: a test next door may hold it a moment longer, see [`await_gone`].
fn open_when_free() -> Tap {
    for _ in 0..1000 {
        match Tap::open(NAME, OffloadPolicy::Auto, false) {
            Err(TapError::Busy(_)) => drop(nix::poll::poll(&mut [], 10u16)),
            opened => return opened.expect("a TAP"),
        }
    }
    panic!("{NAME} is free when its queue is closed");
}

#[test]
fn a_header_of_another_length_is_set_right() {
    in_own_namespace("tap-header", || {
        ip(&format!("tuntap add {NAME} mode tap vnet_hdr"));
        let machine = tun::open().expect("the driver");
        tun::attach(machine.as_fd(), NAME, false).expect("attached");
        tun::set_header_len(machine.as_fd(), 12).expect("as for a virtual machine");
        drop(machine);
        let mut tap = open_when_free();
        give_addresses(&tap);
        let socket = UdpSocket::bind((OURS, 4246)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        tap.write_frame(&partial(GSO_NONE, 0), &[IoSlice::new(&udp_frame(4246, b"question"))]).expect("written");
        let mut buffer = [0; 64];
        let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
        assert_eq!((&buffer[..len], from), (&b"question"[..], SocketAddr::new(THEIRS.into(), 7)));
        socket.send_to(b"answer", from).expect("sent");
        let (vnet, frame) = next_udp(&mut tap, 7);
        assert_eq!((vnet.gso_type, frame.len(), &frame[..6], &frame[42..]), (GSO_NONE, 48, &[2, 0, 0, 0, 0, 2][..], &b"answer"[..]));
    });
}

/// The queues that say they can be read.
fn readable(taps: &mut [Tap]) -> Vec<usize> {
    let mut buffer = vec![0; MIN_BUFFER];
    let mut found = Vec::new();
    for (n, tap) in taps.iter_mut().enumerate() {
        while let Some((_, frame)) = tap.read(&mut buffer).expect("a working TAP") {
            if frame.get(23) == Some(&17) {
                found.push(n);
            }
        }
    }
    found
}

#[test]
fn a_flow_is_read_from_one_queue_whoever_writes_its_answers() {
    in_own_namespace("tap-flows", || {
        drop(with_addresses(OffloadPolicy::Auto));
        await_gone();
        let mut taps = Tap::open_queues(NAME, OffloadPolicy::Auto, 4).expect("a TAP");
        give_addresses(&taps[0]);
        let mut used = std::collections::BTreeSet::new();
        for port in 5000..5032 {
            let socket = UdpSocket::bind((OURS, port)).expect("a socket");
            let mut queues = std::collections::BTreeSet::new();
            for writer in [0, 1, 2, 3, 1] {
                let answer = udp_frame(port, b"answer");
                taps[writer].write_frame(&partial(GSO_NONE, 0), &[IoSlice::new(&answer)]).expect("written");
                readable(&mut taps);
                socket.send_to(b"question", (THEIRS, 7)).expect("sent");
                queues.extend(readable(&mut taps));
            }
            assert_eq!(queues.len(), 1, "port {port}: {queues:?}");
            used.extend(queues);
        }
        assert_eq!(used.len(), 4, "32 flows are shared out over all queues");
    });
}

#[test]
fn errors_say_what_to_do() {
    for bad in ["", "much-too-long-a-name", "a/b", "tap%d", "a b", ".."] {
        assert!(matches!(Tap::open(bad, OffloadPolicy::Auto, false), Err(TapError::BadName(_))), "{bad}");
    }
    let kind = |errno| open_error(NAME, io::Error::from_raw_os_error(errno)).to_string();
    assert!(kind(libc::EACCES).contains("CAP_NET_ADMIN"));
    assert!(kind(libc::ENOENT).contains("modprobe tun") && kind(libc::ENODEV).contains("modprobe tun"));
    in_own_namespace("tap-errors", || {
        let _holder = Tap::open(NAME, OffloadPolicy::Auto, false).expect("a TAP");
        let error = Tap::open(NAME, OffloadPolicy::Auto, false).expect_err("held");
        assert_eq!(error.to_string(), "TAP \"weave-test\" is in use by another process: stop it or choose another name");
        let error = Tap::open("lo", OffloadPolicy::Auto, false).expect_err("loopback is no TAP");
        assert!(error.to_string().contains("interface \"lo\" exists and is not a TAP"), "{error}");
    });
}
