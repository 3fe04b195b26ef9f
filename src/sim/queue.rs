//! Events in order of time, and of their causes where times are equal.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Time;

/// A queue of events. The heap has only their places: what is moved about in it is small, and events are not.
pub struct Queue<T> {
    /// Time, sequence and place, the earliest first.
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    events: Vec<Option<T>>,
    free: Vec<usize>,
    sequence: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), sequence: 0 }
    }
}

impl<T> Queue<T> {
    /// Adds an event.
    pub fn push(&mut self, at: Time, event: T) {
        self.sequence += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                self.events.len() - 1
            }
        };
        self.heap.push(Reverse((at, self.sequence, place)));
    }

    /// When the next event is due.
    pub fn due(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes the next event, if it is due at `until` or earlier.
    pub fn pop(&mut self, until: Time) -> Option<(Time, T)> {
        if self.due()? > until {
            return None;
        }
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        self.events[place].take().map(|event| (at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_ties_by_sequence() {
        let mut queue = Queue::default();
        for (at, event) in [(3, 'c'), (1, 'a'), (3, 'd'), (2, 'b'), (9, 'x')] {
            queue.push(Time(at), event);
        }
        let order: String = std::iter::from_fn(|| queue.pop(Time(3))).map(|(_, event)| event).collect();
        assert_eq!(order, "abcd");
        assert_eq!(queue.pop(Time(9)), Some((Time(9), 'x')));
    }
}
