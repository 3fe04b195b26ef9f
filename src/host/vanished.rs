//! Notices when somebody takes a table of ours, or our rules in the tables of others, away: as a firewall does that is started anew.

use std::io;
use std::time::Duration;

use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use tokio::time::{Instant, sleep_until};

use super::HostError;

/// `NETLINK_NETFILTER`.
const NETFILTER: isize = 12;
/// `NFNLGRP_NFTABLES`: what is changed by nftables.
const NFTABLES: u32 = 7;
/// Message types (`NFNL_SUBSYS_NFTABLES` and `enum nf_tables_msg_types`): what is deleted, a new rule, the end of a transaction.
const DELETED: [u16; 5] = [0xa02, 0xa05, 0xa08, 0xa0b, 0xa0e];
const NEW_RULE: u16 = 0xa06;
const DELETED_RULE: u16 = 0xa08;
const END: u16 = 0xa0f;
/// Of a message: its length, and the header of netfilter that follows.
const HEADER: usize = 16 + 4;
/// In all these messages the first attribute names the table.
const NAME: u16 = 1;

/// What is watched.
enum Ours {
    /// Tables of this name, with all they hold.
    Table(String),
    /// Rules in which these bytes stand: a comment of nftables or of iptables.
    Mark(&'static str),
}

/// A subscription to the changes of the firewall.
pub struct TableWatch {
    socket: TokioSocket,
    ours: Ours,
    /// True once something of ours was deleted, until a rule of ours is added: the router itself writes its tables whole.
    torn: bool,
    /// When lost notifications are to be acted upon.
    lost: Option<Instant>,
}

/// After lost notifications: what is written then may be so much that more are lost.
const BREATH: Duration = Duration::from_secs(1);

impl TableWatch {
    /// Watches the tables of this name, of whatever family, in the network namespace of the calling thread. Needs a running tokio runtime.
    pub fn new(table: &str) -> Result<TableWatch, HostError> {
        TableWatch::of(Ours::Table(table.into()))
    }

    /// Watches the rules with this mark, in whichever table; the tables of legacy iptables tell nothing.
    pub fn of_rules(mark: &'static str) -> Result<TableWatch, HostError> {
        TableWatch::of(Ours::Mark(mark))
    }

    fn of(ours: Ours) -> Result<TableWatch, HostError> {
        let subscribed = TokioSocket::new(NETFILTER).and_then(|mut socket| {
            socket.socket_mut().bind_auto()?;
            socket.socket_ref().add_membership(NFTABLES)?;
            Ok(socket)
        });
        subscribed
            .map(|socket| TableWatch { socket, ours, torn: false, lost: None })
            .map_err(|e| HostError::io("watch the firewall's tables", e))
    }

    /// Waits until what is ours, or a part of it, is taken away; an error where nothing can be watched any more. Cancel-safe.
    pub async fn torn(&mut self) -> io::Result<()> {
        loop {
            if let Some(until) = self.lost {
                sleep_until(until).await;
                self.lost = None;
                return Ok(());
            }
            match self.socket.recv_from_full().await {
                Ok((bytes, _)) if read(&bytes, &self.ours, &mut self.torn) => return Ok(()),
                Ok(_) => {}
                // Ours may be among them.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.lost = Some(Instant::now() + BREATH),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Waits until what is watched is taken away; for ever where that cannot be watched, which is said once.
pub async fn torn(watch: &mut Option<TableWatch>) {
    if let Some(watch) = watch {
        match watch.torn().await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!("the firewall's tables cannot be watched any more, and are looked at every few seconds only: {error}")
            }
        }
    }
    *watch = None;
    std::future::pending().await
}

impl Ours {
    /// True for a message, without the headers, about something of ours.
    fn concerns(&self, kind: u16, attributes: &[u8]) -> bool {
        match self {
            Ours::Table(name) => table(attributes) == Some(name.as_bytes()),
            Ours::Mark(mark) => {
                [NEW_RULE, DELETED_RULE].contains(&kind) && attributes.windows(mark.len()).any(|bytes| bytes == mark.as_bytes())
            }
        }
    }
}

/// Reads what one datagram says; true where a transaction ended and left what is ours torn.
fn read(mut bytes: &[u8], ours: &Ours, torn: &mut bool) -> bool {
    let mut left = false;
    while let Some((length, kind)) = number32(bytes, 0).zip(number16(bytes, 4)) {
        let Some(message) = bytes.get(..length as usize).filter(|message| message.len() >= HEADER) else { break };
        let is_ours = ours.concerns(kind, &message[HEADER..]);
        match kind {
            NEW_RULE if is_ours => *torn = false,
            END => left |= std::mem::take(torn),
            kind if is_ours && DELETED.contains(&kind) => *torn = true,
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

    const TABLE: &str = "weave_fastdp";

    fn ours() -> Ours {
        Ours::Table(TABLE.into())
    }

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
            assert!(!read(&[message(kind, "filter"), end.clone()].concat(), &ours(), &mut torn), "another's table");
            assert!(read(&[message(kind, TABLE), end.clone()].concat(), &ours(), &mut torn), "{kind:#x}");
            assert!(!read(&end, &ours(), &mut torn), "it is said once");
            let anew = [message(kind, TABLE), message(0xa00, TABLE), message(NEW_RULE, TABLE), end.clone()].concat();
            assert!(!read(&anew, &ours(), &mut torn), "{kind:#x}");
        }
        // A transaction may be told in several datagrams.
        assert!(!read(&message(DELETED[0], TABLE), &ours(), &mut torn));
        assert!(read(&end, &ours(), &mut torn));
    }

    #[test]
    fn marked_rules_are_ours_in_every_table() {
        let (end, mut torn, mark) = (message(END, ""), false, Ours::Mark("weave-router"));
        let marked = |kind| message(kind, "filter-weave-router");
        assert!(!read(&[message(DELETED_RULE, "filter"), marked(DELETED[0]), end.clone()].concat(), &mark, &mut torn));
        assert!(read(&[marked(DELETED_RULE), end.clone()].concat(), &mark, &mut torn));
        assert!(!read(&[marked(DELETED_RULE), marked(NEW_RULE), end].concat(), &mark, &mut torn), "it was moved");
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        let whole = [message(DELETED[0], TABLE), message(END, "")].concat();
        for len in 0..whole.len() - 3 {
            assert!(!read(&whole[..len], &ours(), &mut false), "{len} bytes");
        }
    }
}
