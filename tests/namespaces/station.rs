//! An independent source and sink of raw frames: a TAP made by the crate `tun-tap`, plugged into a host's bridge beside the router's.

use std::time::Duration;

use tun_tap::{Iface, Mode};
use weave_router::host::lab::clock::{Stopwatch, pause};
use weave_router::host::lab::{Lab, in_namespace};

use crate::scene::ip;

/// The ethertype for local experiments (IEEE 802).
pub const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

/// The group address of everybody.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// One TAP; its MAC is whatever its frames say.
pub struct Station(Iface);

impl Station {
    /// Plugs a TAP into the bridge `weave` of a host.
    pub fn plug(lab: &Lab, host: &str, name: &str) -> Station {
        let made = in_namespace(&lab.namespace(host), || Iface::without_packet_info(name, Mode::Tap));
        let iface = made.expect("a namespace").expect("a TAP");
        iface.set_non_blocking().expect("not blocking");
        // The kernel would send router solicitations of its own.
        ip(lab, host, &format!("link set {name} addrgenmode none mtu 65521 master weave up"));
        Station(iface)
    }

    /// Sends a frame.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        let sent = self.0.send(frame);
        assert_eq!(sent.expect("the TAP takes the frame"), frame.len());
    }

    /// True when this very frame arrives in time; everything before it is passed over.
    pub fn receives(&self, frame: &[u8], patience: Duration) -> bool {
        self.collect(patience, |seen| seen.last().is_some_and(|last| last == frame)).last().is_some_and(|last| last == frame)
    }

    /// How often this frame arrives while the time passes.
    pub fn copies(&self, frame: &[u8], time: Duration) -> usize {
        self.collect(time, |_| false).iter().filter(|seen| *seen == frame).count()
    }

    /// All frames until the closure says that it is enough, or the time is over.
    pub fn collect(&self, time: Duration, mut enough: impl FnMut(&[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
        let clock = Stopwatch::start();
        let (mut seen, mut buffer) = (Vec::new(), vec![0; 70_000]);
        while clock.elapsed() < time && !enough(&seen) {
            match self.0.recv(&mut buffer) {
                Ok(len) => seen.push(buffer[..len].to_vec()),
                Err(_) => pause(Duration::from_millis(1)),
            }
        }
        seen
    }
}

/// An Ethernet frame: destination, source, what follows.
pub fn frame(to: [u8; 6], from: [u8; 6], rest: &[&[u8]]) -> Vec<u8> {
    let mut frame = [to, from].concat();
    rest.iter().for_each(|part| frame.extend_from_slice(part));
    frame
}
