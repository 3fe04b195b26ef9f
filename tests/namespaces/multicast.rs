//! Real members of multicast groups, on real bridges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use weave_router::host::lab::clock::pause;
use weave_router::host::lab::{CONTAINER_INTERFACE, Lab, Plug, in_namespace};

use crate::common::{router, wait_until};
use crate::scene::{PASSWORD, PATIENCE, container, count, ip, peer, reaches, scene};
use crate::station::Station;

const V4: Ipv4Addr = Ipv4Addr::new(239, 7, 7, 7);
const V6: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 7, 7);
const PORT: u16 = 5000;
/// Between two datagrams to each group.
const GAP: Duration = Duration::from_millis(10);

/// Something that goes on until it is dropped.
struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(mut step: impl FnMut() + Send + 'static) -> Running {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                step();
            }
        });
        Running { stop, thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Sends numbered datagrams to a group; the number that is next.
fn speak(namespace: &str, group: IpAddr) -> (Arc<AtomicU32>, Running) {
    let any: IpAddr = if group.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = in_namespace(namespace, || UdpSocket::bind((any, 0))).expect("a namespace").expect("a socket");
    let next = Arc::<AtomicU32>::default();
    let number = next.clone();
    let step = move || {
        let sent = socket.send_to(&number.fetch_add(1, Ordering::Relaxed).to_be_bytes(), SocketAddr::new(group, PORT));
        assert_eq!(sent.expect("sent"), 4);
        pause(GAP);
    };
    (next, Running::start(step))
}

/// A member of a group, and the numbers that it has heard.
struct Member {
    heard: Arc<Mutex<Vec<u32>>>,
    _running: Running,
}

impl Member {
    /// Joins as any program does.
    fn join(lab: &Lab, container: &str, group: IpAddr) -> Member {
        let index = ip(lab, container, &format!("-o link show {CONTAINER_INTERFACE}"));
        let index: u32 = index.split(':').next().and_then(|number| number.parse().ok()).expect("an interface has an index");
        let joined = in_namespace(&lab.namespace(container), || {
            let socket = UdpSocket::bind((group, PORT))?;
            match group {
                IpAddr::V4(group) => socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?,
                IpAddr::V6(group) => socket.join_multicast_v6(&group, index)?,
            }
            socket.set_read_timeout(Some(Duration::from_millis(50))).map(|()| socket)
        });
        let socket = joined.expect("a namespace").expect("it joins");
        let heard = Arc::<Mutex<Vec<u32>>>::default();
        let list = heard.clone();
        let step = move || {
            let mut buffer = [0; 4];
            if let Ok(4) = socket.recv(&mut buffer) {
                list.lock().expect("no panic while locked").push(u32::from_be_bytes(buffer));
            }
        };
        Member { heard, _running: Running::start(step) }
    }

    fn heard(&self) -> Vec<u32> {
        self.heard.lock().expect("no panic while locked").clone()
    }

    /// The first number that it heard, after which it must have missed none.
    #[track_caller]
    fn first(&self) -> u32 {
        let heard = self.heard();
        let first = *heard.first().expect("it heard something");
        assert!(heard.iter().copied().eq(first..first + heard.len() as u32), "missed or doubled: {heard:?}");
        first
    }
}

/// Frames of the groups that a station sees within this time, of IPv4 and IPv6.
fn seen(station: &Station, time: Duration) -> [usize; 2] {
    let frames = station.collect(time, |_| false);
    [[0x01, 0x00, 0x5e, 7, 7, 7], [0x33, 0x33, 0, 7, 0, 7]].map(|mac| frames.iter().filter(|frame| frame[..6] == mac).count())
}

/// A sender on h1, behind it h2, and behind that h3 with a member and h4 without. The bridge of h3 is an operator's, and snoops by itself.
#[test]
fn groups_go_to_members_on_far_hosts_and_not_to_hosts_without() {
    scene(|lab| {
        ["h1", "h2", "h3", "h4"].iter().for_each(|host| drop(lab.host(host).expect("a host")));
        let wires = [("h1", "h2", "10.9.1.0/24"), ("h2", "h3", "10.9.2.0/24"), ("h2", "h4", "10.9.3.0/24")];
        let wires = wires.map(|(a, b, subnet)| lab.wire(a, b, subnet).expect("a wire"));
        lab.bridge("h3", "weave", Some(1420)).expect("a bridge");
        ip(lab, "h3", "link set weave type bridge mcast_snooping 1 mcast_querier 0");
        ip(lab, "h3", "link set weave up");
        container(lab, "h3", "c3", 3, &Plug::default());
        // It is a member before there is a router that could hear it join.
        let groups = [IpAddr::from(V4), V6.into()];
        let far = groups.map(|group| Member::join(lab, "c3", group));
        let near = [None, Some(peer(wires[0].a.ip)), Some(peer(wires[1].a.ip)), Some(peer(wires[2].a.ip))];
        let routers = ["h1", "h2", "h3", "h4"].into_iter().zip(&near).map(|(host, near)| {
            let peer = near.as_ref().map_or(vec![], |near| vec!["--peer", near]);
            router(lab, host, &[&["--nickname", host], PASSWORD, &peer[..]].concat())
        });
        let routers: Vec<_> = routers.collect();
        container(lab, "h1", "c1", 1, &Plug::default());
        container(lab, "h4", "c4", 4, &Plug::default());
        reaches(lab, "c1", IpAddr::from([10, 32, 0, 3]));
        let station = Station::plug(lab, "h4", "raw4");
        let voices = groups.map(|group| speak(&lab.namespace("c1"), group));
        wait_until(PATIENCE, "h4 gets nothing of the groups", || seen(&station, Duration::from_millis(300)) == [0, 0]);
        let unwanted = || count(&routers[3], |_, name| name == "drop_no_member");
        wait_until(PATIENCE, "h4 is not even sent what it does not want", || {
            let before = unwanted();
            pause(Duration::from_millis(300));
            unwanted() == before
        });
        let before = far.each_ref().map(|member| member.heard().len());
        pause(Duration::from_millis(500));
        for (member, before) in far.iter().zip(before) {
            assert!(member.heard().len() > before + 20, "the member hears on");
            member.first();
        }
        // Another joins, on a host that got nothing so far.
        for (group, (next, _)) in groups.into_iter().zip(&voices) {
            let joined = next.load(Ordering::Relaxed);
            let member = Member::join(lab, "c4", group);
            wait_until(PATIENCE, "the new member hears", || member.heard().len() > 50);
            let late = member.first().saturating_sub(joined);
            assert!(late < 50, "{late} datagrams of 10 ms were over before it heard the first");
        }
        for member in &far {
            member.first();
        }
        // Both have left h4: after some seconds it gets nothing again.
        wait_until(PATIENCE, "h4 gets nothing any more", || seen(&station, Duration::from_millis(300)) == [0, 0]);
    });
}
