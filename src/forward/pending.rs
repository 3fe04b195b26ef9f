//! Frames that wait for a session with their peer: few, and not for long.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::time::Time;
use crate::wire::{PeerName, VnetHeader};

/// Frames per peer.
const MAX_FRAMES: usize = 64;
/// Bytes of all frames of all peers.
const MAX_BYTES: usize = 4 << 20;
/// How long a frame waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the mesh plane is asked for a session with one peer.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A frame as it was read from the TAP.
pub struct Waiting {
    since: Time,
    /// Its vnet header.
    pub vnet: VnetHeader,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Waiting>,
    asked: Option<Time>,
}

/// All frames that wait.
#[derive(Default)]
pub struct Pending {
    queues: BTreeMap<PeerName, Queue>,
    bytes: usize,
}

impl Pending {
    /// Keeps a frame for `peer`; false where there is no room and it is dropped.
    pub fn push(&mut self, now: Time, peer: PeerName, vnet: &VnetHeader, bytes: &[u8]) -> bool {
        let queue = self.queues.entry(peer).or_default();
        if queue.frames.len() >= MAX_FRAMES || self.bytes + bytes.len() > MAX_BYTES {
            return false;
        }
        self.bytes += bytes.len();
        queue.frames.push_back(Waiting { since: now, vnet: *vnet, bytes: bytes.to_vec() });
        true
    }

    /// True where it is time to ask the mesh plane for a session with `peer`; the question counts as asked.
    pub fn should_ask(&mut self, now: Time, peer: PeerName) -> bool {
        let asked = &mut self.queues.entry(peer).or_default().asked;
        let due = asked.is_none_or(|at| now.since(at) >= ASK_EVERY);
        if due {
            *asked = Some(now);
        }
        due
    }

    /// Peers for whom frames wait.
    pub fn peers(&self) -> impl Iterator<Item = PeerName> {
        self.queues.iter().filter(|(_, queue)| !queue.frames.is_empty()).map(|(peer, _)| *peer)
    }

    /// The oldest frame that waits for `peer`.
    pub fn pop(&mut self, peer: PeerName) -> Option<Waiting> {
        let waiting = self.queues.get_mut(&peer)?.frames.pop_front()?;
        self.bytes -= waiting.bytes.len();
        Some(waiting)
    }

    /// Drops what has waited too long, and says how many frames that were.
    pub fn expire(&mut self, now: Time) -> u64 {
        let mut dropped = 0;
        let bytes = &mut self.bytes;
        self.queues.retain(|_, queue| {
            while queue.frames.front().is_some_and(|frame| now.since(frame.since) >= PATIENCE) {
                *bytes -= queue.frames.pop_front().map_or(0, |frame| frame.bytes.len());
                dropped += 1;
            }
            !queue.frames.is_empty() || queue.asked.is_some_and(|at| now.since(at) < ASK_EVERY)
        });
        dropped
    }

    /// When [`Pending::expire`] has something to do.
    pub fn next_timeout(&self) -> Option<Time> {
        let of = |queue: &Queue| match queue.frames.front() {
            Some(frame) => Some(frame.since + PATIENCE),
            None => queue.asked.map(|at| at + ASK_EVERY),
        };
        self.queues.values().filter_map(of).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_questions_are_bounded() {
        let mut pending = Pending::default();
        let (a, b) = (PeerName([2; 6]), PeerName([4; 6]));
        let ms = |n: u64| Time(n * 1_000_000);
        assert!(pending.should_ask(ms(0), a) && !pending.should_ask(ms(99), a) && pending.should_ask(ms(100), a));
        for n in 0..MAX_FRAMES {
            assert!(pending.push(ms(n as u64), a, &VnetHeader::default(), &[n as u8]));
        }
        assert!(!pending.push(ms(100), a, &VnetHeader::default(), &[0]));
        assert!(pending.push(ms(100), b, &VnetHeader::default(), &[9]));
        assert_eq!(pending.pop(a).map(|waiting| waiting.bytes), Some(vec![0]));
        assert_eq!(pending.next_timeout(), Some(ms(1001)));
        assert_eq!(pending.expire(ms(1001)), 1);
        assert_eq!(pending.peers().collect::<Vec<_>>(), [a, b]);
        assert_eq!(pending.expire(ms(1100)), MAX_FRAMES as u64 - 2 + 1);
        assert_eq!((pending.peers().count(), pending.bytes, pending.next_timeout()), (0, 0, None));
        let large = vec![0; 65_000];
        let kept = (0..200u8).filter(|n| pending.push(ms(0), PeerName([*n, 0, 0, 0, 0, 0]), &VnetHeader::default(), &large)).count();
        assert_eq!(kept, MAX_BYTES / large.len());
    }
}
