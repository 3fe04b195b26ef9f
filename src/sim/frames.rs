//! Who got which frame.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::time::Time;

use super::ethernet::Mac;
use super::world::RouterId;

/// A frame that a container sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameId(pub(super) u32);

/// What is known of one frame.
pub struct Sent {
    pub at: Time,
    pub to: Mac,
    /// Bytes of content besides the headers.
    pub content: usize,
    /// Where it arrived, by the host.
    pub arrivals: BTreeMap<RouterId, Arrival>,
}

/// What of a frame arrived on one host. Super frames may come in pieces.
#[derive(Default)]
pub struct Arrival {
    pub last: Time,
    pub bytes: usize,
    offsets: BTreeSet<u32>,
}

/// All frames sent so far.
#[derive(Default)]
pub struct Frames {
    sent: Vec<Sent>,
}

impl Frames {
    /// Notes a frame with `content` bytes besides the headers, and numbers it.
    pub fn sent(&mut self, at: Time, to: Mac, content: usize) -> FrameId {
        let id = FrameId(self.sent.len() as u32);
        self.sent.push(Sent { at, to, content, arrivals: BTreeMap::new() });
        id
    }

    /// Notes the arrival of (part of) a frame. What is wrong with it is said.
    pub fn arrived(&mut self, at: Time, id: u32, router: RouterId, offset: u32, len: usize) -> Result<(), String> {
        let Some(sent) = self.sent.get_mut(id as usize) else { return Err(format!("frame {id} was never sent")) };
        let arrival = sent.arrivals.entry(router).or_default();
        if !arrival.offsets.insert(offset) {
            return Err(format!("frame {id} to {:?} arrived twice at {router:?}", sent.to));
        }
        arrival.bytes += len;
        arrival.last = at;
        if arrival.bytes > sent.content {
            return Err(format!("frame {id} has grown from {} to {} bytes at {router:?}", sent.content, arrival.bytes));
        }
        Ok(())
    }

    /// How often the whole frame arrived at a host: 0 or 1.
    pub fn arrivals(&self, id: FrameId, router: RouterId) -> usize {
        usize::from(self.latency(id, router).is_some())
    }

    /// How long the whole frame took to a host.
    pub fn latency(&self, id: FrameId, router: RouterId) -> Option<Duration> {
        let sent = self.sent.get(id.0 as usize)?;
        let arrival = sent.arrivals.get(&router)?;
        (arrival.bytes == sent.content).then(|| arrival.last.since(sent.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_added_up_and_repetitions_told() {
        let mut frames = Frames::default();
        let id = frames.sent(Time(0), Mac::BROADCAST, 100);
        let host = RouterId(0);
        assert_eq!(frames.arrived(Time(5), id.0, host, 0, 60), Ok(()));
        assert_eq!(frames.arrivals(id, host), 0);
        assert_eq!(frames.arrived(Time(7), id.0, host, 60, 40), Ok(()));
        assert_eq!(frames.latency(id, host), Some(Duration::from_nanos(7)));
        assert!(frames.arrived(Time(8), id.0, host, 60, 40).is_err());
        assert!(frames.arrived(Time(8), 99, host, 0, 1).is_err());
    }
}
