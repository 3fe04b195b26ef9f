//! Notices when somebody takes the table of [`gate`](super::gate) away, as a firewall does that is started anew.

use std::io;

use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket};

use super::super::HostError;
use super::gate::TABLE;

/// `NETLINK_NETFILTER`.
const NETFILTER: isize = 12;
/// `NFNLGRP_NFTABLES`: what is changed by nftables.
const NFTABLES: u32 = 7;
/// Message types (`NFNL_SUBSYS_NFTABLES` and `enum nf_tables_msg_types`): what is deleted, a new rule, the end of a transaction.
const DELETED: [u16; 5] = [0xa02, 0xa05, 0xa08, 0xa0b, 0xa0e];
const NEW_RULE: u16 = 0xa06;
const END: u16 = 0xa0f;
/// Of a message: its length, and the header of netfilter that follows.
const HEADER: usize = 16 + 4;
/// In all these messages the first attribute names the table.
const NAME: u16 = 1;

/// A subscription to the changes of the firewall.
pub struct GateWatch {
    socket: TokioSocket,
    /// True once something of our table was deleted, until a rule is added to it: the router itself writes it whole.
    torn: bool,
}

impl GateWatch {
    /// Subscribes, in the network namespace of the calling thread. Needs a running tokio runtime.
    pub fn new() -> Result<GateWatch, HostError> {
        let subscribed = TokioSocket::new(NETFILTER).and_then(|mut socket| {
            socket.socket_mut().bind_auto()?;
            socket.socket_ref().add_membership(NFTABLES)?;
            Ok(socket)
        });
        subscribed.map(|socket| GateWatch { socket, torn: false }).map_err(|e| HostError::io("watch the firewall's tables", e))
    }

    /// Waits until our table, or a part of it, is taken away; an error where nothing can be watched any more. Cancel-safe.
    pub async fn torn(&mut self) -> io::Result<()> {
        loop {
            match self.socket.recv_from_full().await {
                Ok((bytes, _)) if read(&bytes, &mut self.torn) => return Ok(()),
                Ok(_) => {}
                // Notifications were lost: ours may be among them.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Reads what one datagram says; true where a transaction ended and left our table torn.
fn read(mut bytes: &[u8], torn: &mut bool) -> bool {
    let mut left = false;
    while let Some((length, kind)) = number32(bytes, 0).zip(number16(bytes, 4)) {
        let Some(message) = bytes.get(..length as usize).filter(|message| message.len() >= HEADER) else { break };
        let ours = table(&message[HEADER..]) == Some(TABLE.as_bytes());
        match kind {
            NEW_RULE if ours => *torn = false,
            END => left |= std::mem::take(torn),
            kind if ours && DELETED.contains(&kind) => *torn = true,
            _ => {}
        }
        bytes = bytes.get(message.len().next_multiple_of(4)..).unwrap_or_default();
    }
    left
}

/// The table's name, without the zero at its end.
fn table(attributes: &[u8]) -> Option<&[u8]> {
    let (length, kind) = number16(attributes, 0).zip(number16(attributes, 2))?;
    let name = attributes.get(4..usize::from(length))?;
    (kind == NAME).then(|| name.strip_suffix(&[0]).unwrap_or(name))
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of this type about this table.
    fn message(kind: u16, table: &str) -> Vec<u8> {
        let name = [table.as_bytes(), &[0]].concat();
        let attribute = [&(name.len() as u16 + 4).to_ne_bytes()[..], &NAME.to_ne_bytes(), &name].concat();
        let length = (HEADER + attribute.len()) as u32;
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 14], &attribute].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn what_is_taken_away_is_noticed_and_what_is_written_anew_is_not() {
        let end = message(END, "");
        let mut torn = false;
        for kind in DELETED {
            assert!(!read(&[message(kind, "filter"), end.clone()].concat(), &mut torn), "another's table");
            assert!(read(&[message(kind, TABLE), end.clone()].concat(), &mut torn), "{kind:#x}");
            assert!(!read(&end, &mut torn), "it is said once");
            let anew = [message(kind, TABLE), message(0xa00, TABLE), message(NEW_RULE, TABLE), end.clone()].concat();
            assert!(!read(&anew, &mut torn), "{kind:#x}");
        }
        // A transaction may be told in several datagrams.
        assert!(!read(&message(DELETED[0], TABLE), &mut torn));
        assert!(read(&end, &mut torn));
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        let whole = [message(DELETED[0], TABLE), message(END, "")].concat();
        for len in 0..whole.len() - 3 {
            assert!(!read(&whole[..len], &mut false), "{len} bytes");
        }
    }
}
