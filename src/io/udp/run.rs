//! Runs of datagrams for one address, cut to what one message may carry.

use std::net::IpAddr;

use crate::io::sys::mmsg::Message;
use crate::wire::address::Address;

pub use crate::forward::outbox::{MAX_RUN_BYTES as MAX_RUN, MAX_RUN_DATAGRAMS as MAX_SEGMENTS};

/// Datagrams for one address that lie in one buffer: each `segment` bytes long, the last one perhaps shorter.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Where to.
    pub to: Address,
    /// The datagrams, end to end.
    pub bytes: &'a [u8],
    /// The address of this host to send from; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// Bytes of each datagram; 0, or no less than the length, where there is only one.
    pub segment: usize,
}

impl<'a> Run<'a> {
    /// A single datagram.
    pub fn single(to: Address, bytes: &'a [u8]) -> Run<'a> {
        Run { to, bytes, source: None, segment: bytes.len() }
    }

    /// How many datagrams there are.
    pub fn datagrams(&self) -> usize {
        datagrams(self.bytes.len(), self.segment)
    }
}

/// Datagrams in a message's payload.
pub(super) fn count(message: &Message<'_>) -> usize {
    datagrams(message.bytes.len(), message.segment.map_or(0, usize::from))
}

fn datagrams(len: usize, segment: usize) -> usize {
    if segment == 0 || segment >= len { 1 } else { len.div_ceil(segment) }
}

/// The messages that carry runs, in order. A clone starts from the same place, so what the kernel did not take can be offered again.
#[derive(Clone)]
pub(super) struct Messages<'a, I> {
    runs: I,
    /// What is left of the current run.
    rest: Option<Run<'a>>,
    /// Datagrams of a message: 1 where segmentation offload is off.
    max_segments: usize,
}

impl<'a, I: Iterator<Item = Run<'a>>> Messages<'a, I> {
    pub(super) fn new(runs: I, max_segments: usize) -> Messages<'a, I> {
        Messages { runs, rest: None, max_segments }
    }

    /// Changes how many datagrams the messages from here on carry.
    pub(super) fn limit(&mut self, max_segments: usize) {
        self.max_segments = max_segments;
    }
}

impl<'a, I: Iterator<Item = Run<'a>>> Iterator for Messages<'a, I> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let run = match self.rest.take() {
            Some(rest) => rest,
            None => self.runs.next()?,
        };
        let to = run.to.socket_addr();
        let segment = match u16::try_from(run.segment) {
            Ok(segment) if segment > 0 && run.segment < run.bytes.len() => segment,
            // One datagram; where it is too big for any socket the kernel says so.
            _ => return Some(Message { to, source: run.source, bytes: run.bytes, segment: None }),
        };
        let segments = (MAX_RUN / run.segment).min(self.max_segments).max(1);
        let (bytes, rest) = run.bytes.split_at_checked(segments * run.segment).unwrap_or((run.bytes, &[]));
        if !rest.is_empty() {
            self.rest = Some(Run { bytes: rest, ..run });
        }
        Some(Message { to, source: run.source, bytes, segment: (run.segment < bytes.len()).then_some(segment) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(len: usize, segment: usize, max: usize) -> Vec<(usize, Option<u16>)> {
        let to = Address::udp(([127, 0, 0, 1], 1).into());
        let bytes = vec![0; len];
        let runs = [Run { segment, ..Run::single(to, &bytes) }];
        Messages::new(runs.into_iter(), max).map(|m| (m.bytes.len(), m.segment)).collect()
    }

    #[test]
    fn runs_are_cut_at_segment_boundaries() {
        assert_eq!(cut(100, 0, 63), [(100, None)]);
        assert_eq!(cut(100, 100, 63), [(100, None)]);
        assert_eq!(cut(101, 100, 63), [(101, Some(100))]);
        assert_eq!(cut(250, 100, 1), [(100, None), (100, None), (50, None)]);
        assert_eq!(cut(250, 100, 2), [(200, Some(100)), (50, None)]);
        assert_eq!(cut(70 * 1400, 1400, 63), [(46 * 1400, Some(1400)), (24 * 1400, Some(1400))]);
        assert_eq!(cut(0, 0, 63), [(0, None)]);
        assert_eq!(cut(100_000, 70_000, 63), [(100_000, None)], "the kernel refuses it");
        assert_eq!(cut(130_000, 65_000, 63), [(65_000, None), (65_000, None)]);
    }

    #[test]
    fn counts_datagrams() {
        let to = Address::udp(([127, 0, 0, 1], 1).into());
        let bytes = [0; 250];
        assert_eq!(Run { segment: 100, ..Run::single(to, &bytes) }.datagrams(), 3);
        assert_eq!(Run::single(to, &bytes).datagrams(), 1);
        let messages = Messages::new([Run { segment: 100, ..Run::single(to, &bytes) }].into_iter(), 2);
        assert_eq!(messages.map(|m| count(&m)).collect::<Vec<_>>(), [2, 1]);
    }
}
