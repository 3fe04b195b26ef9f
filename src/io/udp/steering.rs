//! Which socket of a group gets a datagram, decided by the kernel with classic BPF.

use std::net::IpAddr;

use crate::io::sys::sockopt::Instruction;

/// Index of the control socket, which must be bound first.
pub const CONTROL: u32 = 0;

/// Where an IPv4 header has the source address, and an IPv6 header its last four bytes.
const SOURCE_V4: u32 = 12;
const SOURCE_V6: u32 = 20;

/// The program for a group of one control socket and `packet_sockets` packet sockets bound to `bind`, in this order.
///
/// Kinds below 8 ([`Kind::is_control`](crate::wire::header::Kind::is_control)) go to the control socket, and so does what is too short
/// to have a kind or a lane. Data goes to the packet socket that the sum of source address and sender's lane picks: what one packet
/// thread of a peer sends stays in order and on one thread here, and neither peers nor threads of a peer share one without need.
/// (The kernel's own flow hash would not tell the threads of a peer apart, and is zero on virtual links.) The flow label is not looked at:
/// a batch is of one lane but of many flows, and the kernel picks once for a whole batch.
pub fn program(bind: IpAddr, packet_sockets: u32) -> Vec<Instruction> {
    let load_byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let load_word = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let source = if bind.is_ipv4() { SOURCE_V4 } else { SOURCE_V6 };
    let network = libc::SKF_NET_OFF.cast_unsigned().wrapping_add(source);
    let op = |code: u32, k: u32| Instruction { code: code as u16, jt: 0, jf: 0, k };
    let alu = |operation: u32, k: u32| op(libc::BPF_ALU | operation | libc::BPF_K, k);
    vec![
        op(load_byte, 0),
        alu(libc::BPF_AND, 0x0f),
        Instruction { jt: 1, ..op(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 8) },
        op(libc::BPF_RET | libc::BPF_K, CONTROL),
        // A load beyond the end of the datagram ends the program with 0, the control socket.
        op(load_byte, 2),
        alu(libc::BPF_RSH, 4),
        op(libc::BPF_MISC | libc::BPF_TAX, 0),
        op(load_word, network),
        op(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0),
        alu(libc::BPF_MOD, packet_sockets.max(1)),
        alu(libc::BPF_ADD, CONTROL + 1),
        op(libc::BPF_RET | libc::BPF_A, 0),
    ]
}
