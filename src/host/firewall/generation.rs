//! Whether anything was changed in the firewall since it was looked at, asked of the kernel: its programs take milliseconds each.

use std::fs;
use std::io;

use rtnetlink::sys::{Socket, SocketAddr};

/// `NETLINK_NETFILTER`.
const NETFILTER: isize = 12;
/// Message types (`NFNL_SUBSYS_NFTABLES` and `enum nf_tables_msg_types`): the question for the generation, and its answer.
const GET: u16 = 0xa10;
const ANSWER: u16 = 0xa0f;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// Of a message: its length, and the header of netfilter that follows.
const HEADER: usize = 16 + 4;
/// `NFTA_GEN_ID`, a big-endian number.
const ID: u16 = 1;

/// The number of the firewall's state in the network namespace of the calling thread: each change of nftables makes another, and so does iptables in
/// its nft flavour. `None` where that is not all there is, since the tables of legacy iptables count nothing, or the kernel does not say.
pub(super) fn generation() -> Option<u32> {
    if ["ip_tables_names", "ip6_tables_names"].into_iter().any(is_legacy_loaded) {
        return None;
    }
    asked().inspect_err(|error| tracing::debug!("the kernel does not tell the generation of its firewall: {error}")).ok().flatten()
}

fn is_legacy_loaded(names: &str) -> bool {
    fs::read_to_string(format!("/proc/thread-self/net/{names}")).is_ok_and(|tables| tables.lines().any(|table| table == "filter"))
}

fn asked() -> io::Result<Option<u32>> {
    let mut socket = Socket::new(NETFILTER)?;
    socket.bind_auto()?;
    // The kernel answers before the call that asks returns.
    socket.set_non_blocking(true)?;
    socket.send_to(&question(), &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    Ok(read(&answer))
}

fn question() -> Vec<u8> {
    let (length, sequence, port, family) = ((HEADER as u32).to_ne_bytes(), 1u32.to_ne_bytes(), [0; 4], [0; 4]);
    [&length[..], &GET.to_ne_bytes(), &REQUEST.to_ne_bytes(), &sequence, &port, &family].concat()
}

/// The number in an answer.
fn read(bytes: &[u8]) -> Option<u32> {
    let message = bytes.get(..u32::from_ne_bytes(array(bytes, 0)?) as usize)?;
    if u16::from_ne_bytes(array(message, 4)?) != ANSWER {
        return None;
    }
    let mut attributes = message.get(HEADER..)?;
    loop {
        let (length, kind) = (usize::from(u16::from_ne_bytes(array(attributes, 0)?)), u16::from_ne_bytes(array(attributes, 2)?));
        if kind == ID {
            return array(attributes, 4).map(u32::from_be_bytes);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16) -> Vec<u8> {
        let attributes =
            [&8u16.to_ne_bytes()[..], &2u16.to_ne_bytes(), &[9; 4], &8u16.to_ne_bytes(), &ID.to_ne_bytes(), &[0, 0, 1, 2]].concat();
        let length = ((HEADER + attributes.len()) as u32).to_ne_bytes();
        [&length[..], &kind.to_ne_bytes(), &[0; 14], &attributes].concat()
    }

    #[test]
    fn the_number_is_found_and_nothing_else_is_taken_for_it() {
        assert_eq!(read(&answer(ANSWER)), Some(0x102));
        assert_eq!(read(&answer(2)), None, "an error");
        let whole = answer(ANSWER);
        for len in 0..whole.len() {
            assert_eq!(read(&whole[..len]), None, "{len} bytes");
        }
        let mut endless = whole.clone();
        endless[HEADER..HEADER + 2].fill(0);
        assert_eq!(read(&endless), None);
    }
}
