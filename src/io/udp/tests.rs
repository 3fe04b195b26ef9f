//! Real sockets on loopback; what needs an MTU or a route of its own runs in a network namespace.

use std::net::UdpSocket as StdSocket;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use super::*;
use crate::counters::Reading;
use crate::io::sys::link;
use crate::io::testing::in_own_namespace;
use crate::wire::header::Kind;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn open(packet_threads: usize, policy: OffloadPolicy) -> SocketGroup {
    SocketGroup::open(&[LOCALHOST], 0, packet_threads, policy).expect("loopback sockets")
}

fn address(group: &SocketGroup) -> Address {
    Address::udp(SocketAddr::new(LOCALHOST, group.port))
}

/// Waits for `wanted` datagrams and returns them with the number of messages they came in.
fn collect(thread: &mut ThreadSockets, wanted: usize) -> (Vec<Vec<u8>>, usize) {
    let mut poll = Poll::new().expect("a poll");
    let socket = &mut thread.sockets()[0];
    poll.registry().register(socket, Token(0), Interest::READABLE).expect("registered");
    let (mut datagrams, mut messages) = (Vec::new(), 0);
    while datagrams.len() < wanted {
        let batch = socket.recv().expect("a working socket");
        for message in batch.messages {
            datagrams.extend(batch.buffer[message.range.clone()].chunks(message.segment).map(<[u8]>::to_vec));
        }
        let got = batch.messages.len();
        messages += got;
        if got == 0 {
            let mut events = Events::with_capacity(1);
            poll.poll(&mut events, Some(Duration::from_secs(10))).expect("a poll");
            assert!(!events.is_empty(), "{} of {wanted} datagrams came", datagrams.len());
        }
    }
    poll.registry().deregister(socket).expect("deregistered");
    (datagrams, messages)
}

/// `len` bytes of data datagrams of `segment` bytes, each numbered.
fn data(len: usize, segment: usize) -> Vec<u8> {
    let mut bytes = vec![0xaa; len];
    for (n, datagram) in bytes.chunks_mut(segment).enumerate() {
        datagram[0] = 0x10 | Kind::DataDirect as u8;
        datagram[1] = u8::try_from(n).expect("few datagrams");
    }
    bytes
}

fn nothing_waits(thread: &mut ThreadSockets) -> bool {
    thread.sockets()[0].recv().expect("a working socket").messages.is_empty()
}

fn check_run(policy: OffloadPolicy, len: usize, segment: usize) -> usize {
    let (mut from, mut to) = (open(1, policy), open(1, policy));
    let bytes = data(len, segment);
    let run = Run { segment, ..Run::single(address(&to), &bytes) };
    assert_eq!(from.packet[0].send([run].into_iter()), run.datagrams());
    let (datagrams, messages) = collect(&mut to.packet[0], run.datagrams());
    assert!(datagrams.iter().map(Vec::as_slice).eq(bytes.chunks(segment)), "same datagrams in the same order");
    assert!(nothing_waits(&mut to.packet[0]) && nothing_waits(&mut to.control));
    let went_wrong = |reading: &Reading| reading.value > 0 && reading.name != "send_calls";
    let counters = &from.counters[1];
    assert!(!counters.read().iter().any(went_wrong), "{counters:?}");
    messages
}

#[test]
fn a_run_arrives_joined() {
    let messages = check_run(OffloadPolicy::Auto, 39 * 1400 + 77, 1400);
    assert_eq!(messages, 1, "loopback hands the whole run over");
    assert_eq!(check_run(OffloadPolicy::Auto, 150 * 100 + 4, 100), 3, "150 datagrams do not fit two messages of 63");
    check_run(OffloadPolicy::Auto, 90 * 1400, 1400);
}

#[test]
fn without_offload_datagrams_travel_alone() {
    assert_eq!(check_run(OffloadPolicy::Off, 39 * 1400 + 77, 1400), 40);
    assert_eq!(check_run(OffloadPolicy::Off, 150 * 100 + 4, 100), 151, "more than one call's worth");
    let report = open(1, OffloadPolicy::Off).control.sockets()[0].offload_report();
    assert_eq!((report.gso.is_on(), report.gro.is_on()), (false, false));
}

#[test]
fn the_kernel_steers_by_kind() {
    let mut to = open(3, OffloadPolicy::Auto);
    let mut from = open(1, OffloadPolicy::Auto);
    let tos = sockopt::get(from.control.sockets()[0].as_fd(), libc::IPPROTO_IP, libc::IP_TOS).expect("a mark");
    assert_eq!(tos >> 2, 48, "GRO never joins control with data");
    let target = address(&to);
    let control: Vec<_> = Kind::ALL.into_iter().filter(|kind| kind.is_control()).collect();
    for kind in &control {
        assert!(from.control.send_to(target, &[0x10 | *kind as u8, 0, 0x10]));
    }
    assert!(from.packet[0].send_to(target, &[0x10 | Kind::DataDirect as u8, 1]), "too short for a lane: the mesh thread counts it");
    let (datagrams, _) = collect(&mut to.control, control.len() + 1);
    let kinds: Vec<_> = datagrams.iter().filter_map(|d| Kind::from_nibble(d[0] & 0x0f)).collect();
    assert_eq!(kinds[..control.len()], control);

    for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_control()) {
        for lane in 0..9 {
            assert!(from.packet[0].send_to(target, &[0x10 | kind as u8, 0, lane << 4]));
        }
        for thread in &mut to.packet {
            let (datagrams, _) = collect(thread, 3);
            let residues: Vec<_> = datagrams.iter().map(|d| (d[2] >> 4) % 3).collect();
            assert!(residues.iter().all(|r| *r == residues[0]), "a lane stays on its thread, and lanes are spread evenly: {residues:?}");
            assert!(nothing_waits(thread));
        }
    }
    assert!(nothing_waits(&mut to.control));
}

#[test]
fn ipv6_steers_and_carries_runs_too() {
    let localhost = IpAddr::V6(Ipv6Addr::LOCALHOST);
    in_own_namespace("ipv6", move || {
        let open = || SocketGroup::open(&[localhost, LOCALHOST], 0, 2, OffloadPolicy::Auto);
        let (mut from, mut to) = match (open(), open()) {
            (Ok(from), Ok(to)) => (from, to),
            _ => return eprintln!("SKIPPED: this machine has no IPv6"),
        };
        let target = Address::udp(SocketAddr::new(localhost, to.port));
        let bytes = data(20 * 1400, 1400);
        assert_eq!(from.packet[0].send([Run { segment: 1400, ..Run::single(target, &bytes) }].into_iter()), 20);
        assert!(from.control.send_to(target, &[0x10 | Kind::Reject as u8, 0, 0]));
        // ::1 ends in 1 and the lane is 0: the second of two packet threads.
        assert_eq!(collect(&mut to.packet[1], 20).0.concat(), bytes);
        assert_eq!(collect(&mut to.control, 1).0, [[0x14, 0, 0]]);
        let both: Vec<_> = to.control.sockets().iter().map(|s| s.local_addr()).collect();
        assert_eq!(both, [target.socket_addr(), address(&to).socket_addr()], "one port on both addresses");
    });
}

#[test]
fn a_port_in_use_is_named() {
    let holder = StdSocket::bind((LOCALHOST, 0)).expect("a socket");
    let port = holder.local_addr().expect("an address").port();
    let error = SocketGroup::open(&[LOCALHOST], port, 1, OffloadPolicy::Auto).err().expect("the port is taken");
    assert!(matches!(error, UdpError::InUse(_)));
    assert!(error.to_string().contains(&format!("UDP port {port} on 127.0.0.1 is in use")), "{error}");

    let group = open(2, OffloadPolicy::Auto);
    let second = SocketGroup::open(&[LOCALHOST], group.port, 2, OffloadPolicy::Auto);
    assert!(matches!(second.err(), Some(UdpError::InUse(_))), "another router of the same user would share the port silently");
}

#[test]
fn an_address_of_another_host_is_refused() {
    let elsewhere: IpAddr = Ipv4Addr::new(192, 0, 2, 77).into();
    let error = SocketGroup::open(&[elsewhere], 0, 1, OffloadPolicy::Auto).err();
    assert!(matches!(error, Some(UdpError::NotLocal(address)) if address == elsewhere));
}

#[test]
fn binds_all_families_by_default() {
    let mut group = SocketGroup::open(&[], 0, 2, OffloadPolicy::Auto).expect("sockets");
    let port = group.port;
    assert_ne!(port, 0);
    assert!(group.control.sockets().iter().all(|s| s.local_addr().port() == port && s.local_addr().ip().is_unspecified()));
    assert_eq!(group.packet.len(), 2);
}

#[test]
fn drops_of_the_kernel_are_counted() {
    let (mut from, mut to) = (open(1, OffloadPolicy::Off), open(1, OffloadPolicy::Off));
    sockopt::set(to.packet[0].sockets()[0].as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 1).expect("a tiny buffer");
    let target = address(&to);
    let bytes = data(100 * 1000, 1000);
    assert_eq!(from.packet[0].send([Run { segment: 1000, ..Run::single(target, &bytes) }].into_iter()), 100);
    let mut got = 0;
    while !nothing_waits(&mut to.packet[0]) {
        got += 1;
    }
    // The count rides on what is queued after the drop.
    assert!(from.packet[0].send_to(target, &bytes[..1000]));
    collect(&mut to.packet[0], 1);
    assert!(got < 100 && to.counters[1].kernel_drops.get() > 0);
}

#[test]
fn offload_is_given_up_where_only_it_fails() {
    let (mut from, mut to) = (open(1, OffloadPolicy::Auto), open(1, OffloadPolicy::Auto));
    // The kernel refuses to segment for a socket without checksums, with the errors that broken drivers cause.
    sockopt::set(from.packet[0].sockets()[0].as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).expect("no checksums");
    let bytes = data(20 * 1000, 1000);
    let runs = [Run { segment: 1000, ..Run::single(address(&to), &bytes) }; 2];
    for round in 1..=2 {
        assert_eq!(from.packet[0].send(runs.into_iter()), 40, "round {round}");
        assert_eq!(collect(&mut to.packet[0], 40).0.concat(), [&bytes[..], &bytes].concat());
    }
    assert_eq!(from.counters[1].gso_given_up.get(), 1);
    let report = from.packet[0].sockets()[0].offload_report();
    assert!(report.gso.to_string().starts_with("off (a send to 127.0.0.1:"), "{}", report.gso);
    assert!(report.gro.is_on());
}

#[test]
fn what_is_too_big_for_the_interface_is_reported() {
    in_own_namespace("emsgsize", || {
        link::set_mtu("lo", 1500).expect("a smaller loopback");
        let (mut from, mut to) = (open(1, OffloadPolicy::Auto), open(1, OffloadPolicy::Auto));
        let target = address(&to);
        assert_eq!(path_mtu(target).expect("a route"), 1500);

        let big = data(2000, 2000);
        assert!(!from.packet[0].send_to(target, &big));
        assert_eq!(from.packet[0].take_too_big().collect::<Vec<_>>(), [target]);

        let (run, good) = (data(5 * 1473, 1473), data(5 * 1472, 1472));
        let runs = [Run { segment: 1473, ..Run::single(target, &run) }, Run { segment: 1472, ..Run::single(target, &good) }];
        assert_eq!(from.packet[0].send(runs.into_iter()), 5, "the run that fits is sent");
        assert_eq!(collect(&mut to.packet[0], 5).0.concat(), good);
        assert_eq!(from.packet[0].take_too_big().collect::<Vec<_>>(), [target], "once, however many datagrams");
        assert_eq!(from.packet[0].take_too_big().count(), 0);
        assert_eq!(from.counters[1].send_msgsize.get(), 6);
        assert!(from.packet[0].sockets()[0].offload_report().gso.is_on(), "offload is not to blame");
    });
}

#[test]
fn what_has_no_way_is_counted() {
    in_own_namespace("unreachable", || {
        let mut from = SocketGroup::open(&[Ipv4Addr::UNSPECIFIED.into()], 0, 1, OffloadPolicy::Auto).expect("sockets");
        let bytes = data(300, 100);
        let nowhere = ["10.1.2.3:6783", "[fd00::1]:6783"]
            .map(|to| Run { segment: 100, ..Run::single(Address::udp(to.parse().expect("an address")), &bytes) });
        assert_eq!(from.packet[0].send(nowhere.into_iter()), 0);
        assert_eq!(from.counters[1].send_unreachable.get(), 6, "{:?}", from.counters[1]);
        assert!(path_mtu(nowhere[0].to).is_err());
    });
}

/// What a peer that asked `asked` hears from `thread`, by the address it comes from.
fn answers_from(peer: &StdSocket, thread: &mut ThreadSockets) -> IpAddr {
    let to = Address::udp(peer.local_addr().expect("bound"));
    assert!(thread.send_to(to, &[0x12; 40]));
    peer.recv_from(&mut [0; 100]).expect("an answer").1.ip()
}

#[test]
fn a_peer_is_answered_from_the_address_it_has_asked() {
    const ASKED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
    let kernel: IpAddr = Ipv4Addr::LOCALHOST.into();
    let binds: [&[IpAddr]; 2] = [&[Ipv4Addr::UNSPECIFIED.into()], &[kernel, ASKED]];
    for bind in binds {
        let mut group = SocketGroup::open(bind, 0, 1, OffloadPolicy::Auto).expect("sockets");
        let peer = StdSocket::bind((kernel, 0)).expect("a peer");
        peer.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        assert_eq!(answers_from(&peer, &mut group.control), kernel, "nobody has asked");
        peer.send_to(&[0x12; 40], (ASKED, group.port)).expect("sent");
        let heard = |socket: &mut UdpSocket| !socket.recv().expect("a working socket").messages.is_empty();
        while !group.control.sockets().iter_mut().any(heard) {
            std::thread::yield_now();
        }
        assert_eq!(answers_from(&peer, &mut group.control), ASKED);
        assert_eq!(answers_from(&peer, &mut group.packet[0]), kernel, "it proved nothing yet");
        group.control.trust(Address::udp(peer.local_addr().expect("bound")));
        group.control.answered();
        for thread in [&mut group.control, &mut group.packet[0]] {
            assert_eq!(answers_from(&peer, thread), ASKED);
        }
        group.control.forget_sources();
        assert_eq!(answers_from(&peer, &mut group.packet[0]), kernel);
    }
}

#[test]
fn single_datagrams_come_in_larger_batches_and_all_of_them_come() {
    let mut group = open(1, OffloadPolicy::Off);
    let to = address(&group);
    let sender = StdSocket::bind((LOCALHOST, 0)).expect("a sender");
    let socket = &mut group.packet[0].sockets()[0];
    let (mut sent, mut sizes) = (0u32, Vec::new());
    for _ in 0..4 {
        let start = sent;
        for _ in 0..100 {
            let text = [&[0x10 | Kind::DataDirect as u8, 0, 0x10, 0][..], &sent.to_be_bytes(), &[7; 1400]].concat();
            sender.send_to(&text, to.socket_addr()).expect("sent");
            sent += 1;
        }
        let mut next = start;
        while next < sent {
            let Batch { buffer, messages, more } = socket.recv().expect("a working socket");
            for message in messages {
                let text = &buffer[message.range.clone()];
                assert_eq!((text.len(), &text[4..8]), (1408, &next.to_be_bytes()[..]), "each once and in order");
                next += 1;
            }
            assert!(more || next == sent, "the queue was not empty");
            sizes.push(messages.len());
        }
    }
    assert_eq!(sizes.iter().max(), Some(&crate::io::sys::mmsg::RECV_BATCH), "{sizes:?}");
}

#[test]
fn joined_messages_come_in_small_batches() {
    use super::socket::next_batch;
    use crate::io::sys::mmsg::RECV_BATCH;
    let few = next_batch(RECV_BATCH, 3, 3 * 60_000);
    assert!(few < RECV_BATCH, "of joined ones few are enough");
    let after = |batch, received| next_batch(batch, received, received * 1400);
    assert_eq!((after(few, few), after(few, few - 1)), (2 * few, few), "more only where more was there");
    assert_eq!(after(RECV_BATCH, RECV_BATCH), RECV_BATCH);
    assert_eq!((after(RECV_BATCH, 1), after(few, 0)), (RECV_BATCH / 2, few));
}
