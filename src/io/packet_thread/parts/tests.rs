//! Writes to a TAP in a network namespace of its own; a packet socket sees what the kernel has taken.

use std::io::Read;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::*;
use crate::forward::testkit::{Recipe, kernel, mac};
use crate::io::offload::OffloadPolicy;
use crate::io::tap::{MTU, QUEUE_LEN};
use crate::io::testing::in_own_namespace;
use crate::wire::vnet::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};

fn sniffer() -> Socket {
    let every_protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every_protocol))).expect("a packet socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    socket
}

/// The next frame from the MAC with number 1, whatever the kernel itself says meanwhile.
fn next_frame(sniffer: &mut Socket) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    loop {
        let len = sniffer.read(&mut buffer).expect("a frame comes");
        if buffer[6..12] == mac(1) {
            return buffer[..len].to_vec();
        }
    }
}

#[test]
fn a_super_frame_that_the_kernel_refuses_goes_as_its_segments() {
    in_own_namespace("port-refused", || {
        let tap = Tap::open("weave-port", OffloadPolicy::Auto, false).expect("a TAP");
        tap.configure(MTU, QUEUE_LEN, true).expect("configured");
        let mut port = Port { tap: Some(tap), counters: Arc::default(), since: Load::default() };
        let mut sniffer = sniffer();
        let families = [(GSO_TCPV4, false, true), (GSO_TCPV6, true, true), (GSO_UDP_L4, false, false)];
        let before = families.map(|(family, ..)| port.gso(family));
        assert!(before[0] && before[1], "every kernel takes those of TCP");
        for (n, (family, v6, tcp)) in families.into_iter().enumerate() {
            let recipe = Recipe { v6, tcp, payload: 3500, flags: 0x19, ..Recipe::default() };
            let frame = recipe.frame();
            // Headers longer than the frame are what any kernel refuses, and what nobody here believes.
            let vnet = VnetHeader { hdr_len: u16::MAX, ..recipe.vnet(1000) };
            assert_eq!(vnet.gso_type, family);
            let (head, tail) = frame.split_at(777);
            port.write(&vnet, &[IoSlice::new(head), IoSlice::new(tail)]);
            let single = VnetHeader { gso_type: GSO_NONE, gso_size: 0, ..vnet };
            for packet in kernel::packets(&vnet, &frame) {
                assert_eq!(kernel::packets(&single, &next_frame(&mut sniffer)), [packet], "{recipe:?}");
            }
            let usable = families.map(|(family, ..)| port.gso(family));
            let expected = [0, 1, 2].map(|family| before[family] && family > n);
            assert_eq!(usable, expected, "no family is given up for another");
        }
        let counters = &port.counters;
        assert_eq!((counters.tap_super_refused.get(), counters.tap_write_refused.get(), counters.tap_writes.get()), (3, 0, 3 + 3 * 4));
        assert_eq!(port.since.rx_frames, 12);
    });
}
