//! What a stranger, or somebody on the path, can throw at the port: it is counted, answered with no more than was asked, and survived.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use weave_router::host::lab::clock::pause;
use weave_router::host::lab::{CONTAINER_INTERFACE, Capture, Lab, Plug, Router, in_namespace};

use crate::common::{router, wait_until};
use crate::flow::{Noise, transfer, udp};
use crate::proxy::{PORT, Proxy};
use crate::scene::{PASSWORD, PATIENCE, Setting, connected_pair, container, count, links, reaches, rows, scene, traffic_goes_on, v6};

/// Counters that say why something from outside was thrown away.
fn thrown_away(router: &Router) -> u64 {
    const MESH: [&str; 16] = [
        "garbage",
        "other_version",
        "truncated",
        "misplaced",
        "replayed",
        "forged",
        "expired",
        "unknown_session",
        "reflected",
        "not_ours",
        "relay_dropped",
        "handshakes_malformed",
        "handshakes_refused",
        "stale_stamps",
        "handshakes_limited",
        "rejects_ignored",
    ];
    count(router, |plane, name| name.starts_with("drop_") || (plane == "mesh" && MESH.contains(&name)))
}

/// h1 and h2 with a host between them that passes their datagrams on.
struct Middle {
    proxy: Proxy,
    r1: Router,
    r2: Router,
}

fn middle(lab: &mut Lab) -> Middle {
    for host in ["h1", "m", "h2"] {
        lab.host(host).expect("a host");
    }
    let left = lab.wire("h1", "m", "10.9.1.0/24").expect("a wire");
    let right = lab.wire("h2", "m", "10.9.2.0/24").expect("a wire");
    let proxy = Proxy::start(&lab.namespace("m"), (left.b.ip, left.a.ip), (right.b.ip, right.a.ip));
    let r1 = router(lab, "h1", PASSWORD);
    let r2 = router(lab, "h2", &[PASSWORD, &["--peer", "10.9.2.2"]].concat());
    container(lab, "h1", "c1", 1, &Plug::default());
    container(lab, "h2", "c2", 2, &Plug::default());
    reaches(lab, "c1", v6(2));
    Middle { proxy, r1, r2 }
}

/// After an attack: both live, say little, kept their link, and carry traffic.
fn all_is_well(lab: &Lab, middle: &Middle, lines_before: usize) {
    for router in [&middle.r1, &middle.r2] {
        links(router, 1);
        assert!(!router.log().contains("panicked"), "{}", router.log());
    }
    let said = middle.r1.log().lines().count() - lines_before;
    assert!(said <= 10, "nothing is logged one by one, but there are {said} new lines: {}", middle.r1.log());
    traffic_goes_on(lab, "c1", v6(2));
}

#[test]
fn replayed_and_reflected_datagrams_are_counted_and_harmless() {
    scene(|lab| {
        let middle = middle(lab);
        transfer(&lab.namespace("c2"), &lab.namespace("c1"), v6(1), 200_000);
        let lines = middle.r1.log().lines().count();
        let (from_r1, from_r2) = (middle.proxy.heard(0), middle.proxy.heard(1));
        assert!(from_r2.len() > 150 && from_r1.len() > 10, "{} and {} datagrams were heard", from_r2.len(), from_r1.len());
        pause(Duration::from_millis(300));
        // Where the frames of the transfer would come out a second time.
        let bridge = Capture::start(lab, "c1", CONTAINER_INTERFACE, "tcp").expect("a capture");
        for (what, datagrams) in [("replayed", &from_r2), ("reflected", &from_r1)] {
            let before = thrown_away(&middle.r1);
            paced(datagrams, |datagram| middle.proxy.slip_in(0, datagram));
            let expected = datagrams.len() as u64 * 9 / 10;
            wait_until(PATIENCE, &format!("{expected} {what} datagrams are counted"), || thrown_away(&middle.r1) - before >= expected);
        }
        let delivered = bridge.lines().expect("a capture");
        assert!(delivered.is_empty(), "frames are delivered once: {delivered:?}");
        all_is_well(lab, &middle, lines);
    });
}

#[test]
fn forged_and_truncated_datagrams_are_counted_and_harmless() {
    scene(|lab| {
        let middle = middle(lab);
        transfer(&lab.namespace("c2"), &lab.namespace("c1"), v6(1), 100_000);
        let lines = middle.r1.log().lines().count();
        let heard = middle.proxy.heard(1);
        let mut noise = Noise::new(3);
        let mut forged = Vec::new();
        for original in heard.iter().take(60) {
            for _ in 0..10 {
                let mut copy = original.clone();
                let at = noise.below(copy.len());
                copy[at] ^= 1 << noise.below(8);
                forged.push(copy);
                forged.push(original[..noise.below(original.len())].to_vec());
            }
            let mut longer = original.clone();
            longer.extend(noise.bytes(20));
            forged.push(longer);
        }
        forged.extend((0..300).map(|_| {
            let len = noise.below(1472);
            noise.bytes(len)
        }));
        let before = thrown_away(&middle.r1);
        paced(&forged, |datagram| middle.proxy.slip_in(0, datagram));
        // A forged copy may be another thing than its original, but hardly a good one.
        let expected = forged.len() as u64 * 9 / 10;
        wait_until(PATIENCE, &format!("{expected} forged datagrams are counted"), || thrown_away(&middle.r1) - before >= expected);
        all_is_well(lab, &middle, lines);
    });
}

/// Sends a few at a time, so that nothing is lost to a full socket.
fn paced(datagrams: &[Vec<u8>], mut send: impl FnMut(&[u8])) {
    for some in datagrams.chunks(20) {
        some.iter().for_each(|datagram| send(datagram));
        pause(Duration::from_millis(2));
    }
}

#[test]
fn strangers_get_no_answer_larger_than_their_question() {
    scene(|lab| {
        let middle = middle(lab);
        transfer(&lab.namespace("c1"), &lab.namespace("c2"), v6(2), 50_000);
        let lines = middle.r1.log().lines().count();
        let mut noise = Noise::new(5);
        // The first ones are handshakes: the only things that are answered at all.
        let mut questions: Vec<Vec<u8>> = middle.proxy.heard(1).into_iter().take(40).collect();
        questions.extend(middle.proxy.heard(0).into_iter().take(40));
        for n in 0..questions.len() {
            let half = questions[n].len() / 2;
            questions.push(questions[n][..half].to_vec());
        }
        questions.extend((0..60).map(|n| noise.bytes(n * 20)));
        questions.extend((0..=255).map(|kind| [vec![kind], noise.bytes(300)].concat()));
        questions.push(noise.bytes(65_000));
        let target = SocketAddr::new("10.9.1.1".parse().expect("an address"), PORT);
        let asked: Vec<(UdpSocket, usize)> = questions.iter().map(|question| (ask(lab, target, question), question.len())).collect();
        pause(Duration::from_secs(3));
        for (n, (socket, asked)) in asked.iter().enumerate() {
            let answered = all_answers(socket);
            assert!(answered <= *asked, "question {n}: {asked} bytes were answered with {answered}: {:02x?}", &questions[n]);
        }
        all_is_well(lab, &middle, lines);
    });
}

/// One question from a port of its own.
fn ask(lab: &Lab, target: SocketAddr, question: &[u8]) -> UdpSocket {
    let socket = udp(&lab.namespace("m"), false);
    socket.send_to(question, target).expect("sent");
    pause(Duration::from_millis(1));
    socket
}

/// The sum of all answers, in bytes.
fn all_answers(socket: &UdpSocket) -> usize {
    socket.set_nonblocking(true).expect("not blocking");
    let mut buffer = vec![0; 65_536];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).sum()
}

#[test]
fn a_flood_of_garbage_does_not_stop_traffic() {
    scene(|lab| {
        let pair = connected_pair(lab, &Setting::default());
        let before = count(&pair.r1, |_, name| name.contains("garbage") || name.contains("bad_header"));
        let socket = udp(&lab.namespace("h2"), false);
        let lines = pair.r1.log().lines().count();
        let (stop, target) = (std::sync::atomic::AtomicBool::new(false), (pair.wire.a.ip, PORT));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut noise = Noise::new(17);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    for _ in 0..50 {
                        let len = noise.below(1400);
                        // A full queue is as good.
                        let _ = socket.send_to(&noise.bytes(len), target);
                    }
                    pause(Duration::from_millis(1));
                }
            });
            transfer(&pair.c1.namespace, &pair.c2.namespace, pair.c2.ip, 5 << 20);
            traffic_goes_on(lab, "c1", pair.c2.ip);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let after = count(&pair.r1, |_, name| name.contains("garbage") || name.contains("bad_header"));
        assert!(after - before > 1000, "{} counted", after - before);
        assert!(pair.r1.log().lines().count() - lines < 5, "{}", pair.r1.log());
        links(&pair.r1, 1);
    });
}

#[test]
fn a_mirror_does_not_keep_a_router_from_its_peer() {
    scene(|lab| {
        lab.host("h1").expect("a host");
        lab.host("h2").expect("a host");
        lab.wire("h1", "h2", "10.9.1.0/24").expect("a wire");
        let mirror = in_namespace(&lab.namespace("h1"), || UdpSocket::bind(("10.9.1.1", PORT))).expect("a namespace").expect("a socket");
        mirror.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let second = router(lab, "h2", &[PASSWORD, &["--peer", "10.9.1.1"]].concat());
        let mut buffer = vec![0; 65_536];
        wait_until(PATIENCE, "status says what is wrong", || {
            while let Ok((len, from)) = mirror.recv_from(&mut buffer) {
                mirror.send_to(&buffer[..len], from).expect("sent back");
            }
            rows(&second, "targets")[0]["error"].to_string().contains("own messages back")
        });
        assert_ne!(rows(&second, "targets")[0]["state"], "failed");
        drop(mirror);
        let first = router(lab, "h1", PASSWORD);
        links(&first, 1);
    });
}
