//! Whose names are asked for.
//!
//! A link that carries nothing is watched at a slow pace, and a name is answered until somebody has noticed that its holder is gone. So the
//! mesh is told whose names are asked for: it then watches the way there as closely as that of frames (`mesh::watch`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::io::clock::Clock;
use crate::time::Time;
use crate::wire::PeerName;

/// How often a router whose names are asked for is told of: three times within the two seconds for which the mesh takes it for in use.
pub const EVERY: Duration = Duration::from_millis(600);
/// Routers that are told of within that time, some 400 small datagrams a second; where the names of more are asked for at once, the way to the others
/// is watched at the usual pace.
pub const MOST: usize = 256;
/// Holders of one name that count as asked for.
pub const MOST_HOLDERS: usize = 16;

/// Tells whose names are asked for, of each router now and then.
#[derive(Debug)]
pub struct Asked {
    clock: Clock,
    told: Mutex<BTreeMap<PeerName, Time>>,
    out: mpsc::Sender<PeerName>,
}

impl Asked {
    /// Nothing was asked for yet; the other end is told.
    pub fn new(clock: Clock) -> (Asked, mpsc::Receiver<PeerName>) {
        let (out, told) = mpsc::channel(MOST);
        (Asked { clock, told: Mutex::default(), out }, told)
    }

    /// Names that these routers hold were asked for.
    pub fn note(&self, holders: impl Iterator<Item = PeerName>) {
        let mut holders = holders.take(MOST_HOLDERS).peekable();
        if holders.peek().is_some() {
            self.note_at(self.clock.now(), holders);
        }
    }

    fn note_at(&self, now: Time, holders: impl Iterator<Item = PeerName>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for holder in holders {
            if told.get(&holder).is_some_and(|at| now.since(*at) < EVERY) {
                continue;
            }
            if told.len() >= MOST {
                told.retain(|_, at| now.since(*at) < EVERY);
            }
            // A full queue is emptied soon, and a caller that keeps asking says it again.
            if told.len() < MOST && self.out.try_send(holder).is_ok() {
                told.insert(holder, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: usize) -> PeerName {
        PeerName([2, 0, 0, 0, (n >> 8) as u8, n as u8])
    }

    fn heard(told: &mut mpsc::Receiver<PeerName>) -> Vec<PeerName> {
        std::iter::from_fn(|| told.try_recv().ok()).collect()
    }

    #[test]
    fn each_router_is_told_of_now_and_then() {
        let (asked, mut told) = Asked::new(Clock::start());
        for ms in (0..=1800).step_by(100) {
            asked.note_at(Time::ZERO + Duration::from_millis(ms), [peer(1), peer(2)].into_iter());
        }
        assert_eq!(heard(&mut told).len(), 2 * 4, "at 0, 600, 1200 and 1800 ms");
    }

    #[test]
    fn of_many_some_are_told_of_and_of_others_later() {
        let (asked, mut told) = Asked::new(Clock::start());
        asked.note_at(Time::ZERO, (0..1000).map(peer));
        assert_eq!(heard(&mut told), (0..MOST).map(peer).collect::<Vec<_>>());
        asked.note_at(Time::ZERO + EVERY / 2, std::iter::once(peer(999)));
        assert_eq!(heard(&mut told), []);
        asked.note_at(Time::ZERO + EVERY, std::iter::once(peer(999)));
        assert_eq!(heard(&mut told), [peer(999)], "nobody is forgotten for good");
        asked.note((0..1000).map(peer));
        assert_eq!(heard(&mut told).len(), MOST_HOLDERS, "of one name");
    }
}
