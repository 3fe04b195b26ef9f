use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream as StdStream};
use std::sync::mpsc;

use super::*;
use crate::io::offload::OffloadPolicy;
use crate::io::udp::{Run, SocketGroup, ThreadSockets};

/// A router's sockets and its thread for TCP.
struct Side {
    group: SocketGroup,
    sender: Sender<TcpInput>,
    counters: Arc<TcpCounters>,
    open: Arc<TcpConnections>,
    listens: SocketAddr,
}

impl Side {
    fn start(offload: OffloadPolicy) -> Side {
        let own: IpAddr = "127.0.0.1".parse().expect("an address");
        let mut group = SocketGroup::open(&[own], 0, 1, offload).expect("sockets");
        let spare = SocketGroup::open(&[own], 0, 1, offload).expect("sockets").joints;
        let joints = std::mem::replace(&mut group.joints, spare);
        let listeners = listen(&[(own, 0).into()]).expect("a listener");
        let listens = listeners[0].local_addr().expect("an address");
        let counters = Arc::<TcpCounters>::default();
        let open = Arc::<TcpConnections>::default();
        let (counts, now) = (Arc::clone(&counters), Arc::clone(&open));
        let parts = TcpParts { listeners, joints, binds: vec![own], counters: counts, open: now, clock: Clock::start() };
        let (thread, sender) = TcpThread::new(parts).expect("a thread");
        std::thread::spawn(move || thread.run().expect("it polls"));
        Side { group, sender, counters, open, listens }
    }

    fn dial(&self, to: &[SocketAddr]) -> Result<Address, String> {
        let (answer, told) = mpsc::channel();
        let answer = Box::new(move |made| drop(answer.send(made)));
        assert!(self.sender.try_send(TcpInput::Dial(to.to_vec(), answer)).is_ok());
        told.recv_timeout(Duration::from_secs(10)).expect("an answer")
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        drop(self.sender.try_send(TcpInput::Stop));
    }
}

/// Waits for so many datagrams, on this machine a moment.
fn receive(sockets: &mut ThreadSockets, count: usize) -> Vec<(Address, Vec<u8>)> {
    let mut got = Vec::new();
    until("datagrams arrive", || {
        let batch = sockets.sockets()[0].recv().expect("a batch");
        for message in batch.messages {
            got.extend(batch.buffer[message.range.clone()].chunks(message.segment).map(|datagram| (message.from, datagram.to_vec())));
        }
        got.len() >= count
    });
    got
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let clock = Clock::start();
    while !done() {
        assert!(clock.now() < Time::ZERO + Duration::from_secs(10), "{what}");
        std::thread::yield_now();
    }
}

/// A datagram of data in lane 1, or of control.
fn datagram(first: u8, n: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![n as u8; length];
    bytes[..3].copy_from_slice(&[first, 1, if first & 0x0f < 8 { 0 } else { 0x10 }]);
    bytes
}

#[test]
fn datagrams_cross_in_order_and_come_from_the_connection() {
    for offload in [OffloadPolicy::Auto, OffloadPolicy::Off] {
        let (mut a, mut b) = (Side::start(offload), Side::start(offload));
        let to_b = a.dial(&[b.listens]).expect("connected");
        assert!(to_b.is_tcp() && to_b.socket_addr() == b.listens, "{to_b}");
        assert!(a.group.control.send_to(to_b, &datagram(0x12, 7, 60)));
        let (to_a, first) = receive(&mut b.group.control, 1).remove(0);
        assert!(to_a.is_tcp() && first == datagram(0x12, 7, 60), "{to_a}");

        let sent: Vec<Vec<u8>> = (0..40).map(|n| datagram(0x18, n, if n % 5 == 4 { 300 } else { 1200 })).collect();
        let run: Vec<u8> = sent.iter().take(5).flatten().copied().collect();
        b.group.packet[0].send(std::iter::once(Run { to: to_a, bytes: &run, source: None, segment: 1200 }));
        for datagram in sent.iter().skip(5) {
            b.group.packet[0].send(std::iter::once(Run::single(to_a, datagram)));
        }
        let got = receive(&mut a.group.packet[0], sent.len());
        assert!(got.iter().all(|(from, _)| *from == to_b), "all come from where they are answered to");
        assert_eq!(got.into_iter().map(|(_, datagram)| datagram).collect::<Vec<_>>(), sent);

        // The end of one side is the end of the address on the other, whoever gets its port next.
        drop(a);
        until("the connection is closed", || b.counters.closed.get() == 1);
        assert!(!b.group.control.send_to(to_a, &datagram(0x12, 1, 60)));
    }
}

#[test]
fn a_dial_that_leads_nowhere_says_why_and_another_address_is_tried_beside_it() {
    let (a, b) = (Side::start(OffloadPolicy::Auto), Side::start(OffloadPolicy::Auto));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let why = a.dial(&[closed]).expect_err("nobody listens");
    assert!(why.contains("refused") && why.contains(&closed.to_string()), "{why}");
    assert!(a.dial(&[]).is_err());
    assert!(a.dial(&[closed, b.listens]).is_ok_and(|address| address.socket_addr() == b.listens));

    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = other.local_addr().expect("an address");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().expect("a caller");
        stream.write_all(b"220 mail.example ESMTP\r\n").expect("written");
    });
    let why = a.dial(&[at]).expect_err("no router");
    assert!(why.contains("no router"), "{why}");
    server.join().expect("it served");
    assert_eq!(a.counters.strangers.get(), 1);
}

#[test]
fn strangers_are_closed_and_a_crowd_from_one_source_is_turned_away() {
    let side = Side::start(OffloadPolicy::Auto);
    let connect = || {
        let stream = StdStream::connect(side.listens).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream
    };
    let closed =
        |mut stream: StdStream| stream.read(&mut [0; 64]).map_or_else(|error| error.kind() == io::ErrorKind::ConnectionReset, |n| n == 0);
    let mut stranger = connect();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    assert!(closed(stranger));
    assert_eq!(side.counters.strangers.get(), 1);

    let mut liar = connect();
    liar.write_all(&[&frame::HELLO[..], &[0, 3, 1, 2, 3]].concat()).expect("written");
    let mut hello = [0; 8];
    liar.read_exact(&mut hello).ok();
    assert!(closed(liar));
    assert_eq!(side.counters.malformed.get(), 1);

    until("both are forgotten", || side.counters.closed.get() == 2);
    let crowd: Vec<StdStream> = (0..MOST_PER_SOURCE + 8).map(|_| connect()).collect();
    until("the crowd has come", || side.counters.over_limit.get() == 8);
    assert_eq!(side.counters.closed.get(), 2 + 8);
    crowd.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    until("the crowd has gone", || side.counters.closed.get() == 2 + 8 + MOST_PER_SOURCE as u64);
    assert!(Side::start(OffloadPolicy::Auto).dial(&[side.listens]).is_ok(), "and there is room again");
}

#[test]
fn strangers_of_many_networks_leave_room_for_whom_this_router_calls() {
    let (side, other) = (Side::start(OffloadPolicy::Auto), Side::start(OffloadPolicy::Auto));
    let connect = |n: usize| {
        // Each network, as it seems, has one caller less than it may.
        let from = SocketAddr::from(([127, 0, 1, (n / (MOST_PER_SOURCE - 1)) as u8 + 1], 0));
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&from.into()).expect("bound");
        socket.connect(&side.listens.into()).expect("connected");
        let mut stream = StdStream::from(socket);
        // Half of them say hello, which proves nothing.
        if n.is_multiple_of(2) {
            stream.write_all(&frame::HELLO).ok();
        }
        stream
    };
    let crowd: Vec<StdStream> = (0..MOST_UNPROVEN + 8).map(connect).collect();
    until("the crowd has come", || side.counters.over_limit.get() == 8);
    until("each is counted where it stands", || {
        let open = side.open.read();
        open.iter().map(|(_, number)| number).sum::<usize>() == MOST_UNPROVEN && open[1].1 >= MOST_UNPROVEN / 2 - 8 && open[2].1 > 0
    });
    let connection = side.dial(&[other.listens]).expect("there is room");
    assert!(connection.is_tcp());
    drop(crowd);
    until("the crowd has gone", || side.open.read().iter().map(|(_, number)| number).sum::<usize>() == 1);
    assert_eq!(side.open.read().map(|(state, _)| state), ["connecting", "greeting", "unproven", "proven"]);
}
