//! The packet socket through which heartbeats of the fast datapath leave and come: bound to the VXLAN device, so that what it receives has
//! passed through the tunnel and is not a container's.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, SockFilter, Socket, Type};

use super::sys::{packet, sockopt};
use crate::wire::beat::ETHERTYPE;

/// Bytes of a frame that are looked at; the rest is there to be carried.
pub const ROOM: usize = 64;

/// Longest wait of a receive call, so that its thread notices when it is not needed any more.
const WAIT: Duration = Duration::from_millis(500);

/// A socket on one device.
#[derive(Debug)]
pub struct BeatSocket(Socket);

impl BeatSocket {
    /// Opens it in the calling thread's network namespace, for what is sent to the MAC of the device; needs CAP_NET_RAW.
    pub fn open(device: u32, mac: [u8; 6]) -> io::Result<BeatSocket> {
        let socket = Socket::new(Domain::PACKET, Type::RAW.cloexec(), None)?;
        // The kernel shows a bridge's ports to sockets for all protocols only. What goes out is not copied for us, and of what comes
        // in, all but heartbeats is passed over before it is copied.
        sockopt::set(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        socket.attach_filter(&filter(mac))?;
        socket.set_read_timeout(Some(WAIT))?;
        packet::bind(socket.as_fd(), device, libc::ETH_P_ALL as u16)?;
        Ok(BeatSocket(socket))
    }

    /// Sends a frame, without waiting.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send_with_flags(frame, libc::MSG_DONTWAIT).map(drop)
    }

    /// Waits for the first bytes of a heartbeat; `WouldBlock` where none came for half a second.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }
}

/// Keeps [`ROOM`] bytes of frames of our ethertype to this MAC, nothing of others: a container of a peer, whose frames to our
/// containers come through the same device, cannot wake us.
fn filter(mac: [u8; 6]) -> [SockFilter; 8] {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let [a, b, c, d, e, f] = mac;
    [
        SockFilter::new(LOAD_WORD, 0, 0, 0),
        SockFilter::new(JUMP_EQUAL, 0, 5, u32::from_be_bytes([a, b, c, d])),
        SockFilter::new(LOAD_HALF, 0, 0, 4),
        SockFilter::new(JUMP_EQUAL, 0, 3, u32::from(u16::from_be_bytes([e, f]))),
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(JUMP_EQUAL, 0, 1, u32::from(ETHERTYPE)),
        SockFilter::new(RETURN, 0, 0, ROOM as u32),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
