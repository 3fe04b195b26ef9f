//! Bounded queues into an event loop: the sender never waits, and the loop is woken once per burst.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel;
use mio::Waker;

/// Why a message was not taken; it is handed back, so that the caller may count it or try later.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<T> {
    /// The receiver is behind by the mailbox's whole capacity.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// The sending end; clones share the queue.
pub struct Sender<T> {
    queue: channel::Sender<T>,
    bell: Arc<Bell>,
}

/// The receiving end, which lives in the event loop that `waker` wakes.
pub struct Receiver<T> {
    queue: channel::Receiver<T>,
    bell: Arc<Bell>,
}

/// Wakes the receiver's loop unless it has been woken and has not looked yet.
struct Bell {
    rung: AtomicBool,
    waker: Arc<Waker>,
}

/// A mailbox that holds up to `capacity` messages. Several mailboxes of one event loop may share its waker.
pub fn mailbox<T>(capacity: usize, waker: Arc<Waker>) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = channel::bounded(capacity);
    let bell = Arc::new(Bell { rung: AtomicBool::new(false), waker });
    (Sender { queue: sender, bell: bell.clone() }, Receiver { queue: receiver, bell })
}

impl<T> Sender<T> {
    /// Puts a message into the mailbox and wakes the receiver.
    pub fn try_send(&self, message: T) -> Result<(), Refused<T>> {
        self.queue.try_send(message).map_err(|error| match error {
            channel::TrySendError::Full(message) => Refused::Full(message),
            channel::TrySendError::Disconnected(message) => Refused::Closed(message),
        })?;
        self.bell.ring();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { queue: self.queue.clone(), bell: self.bell.clone() }
    }
}

impl<T> Receiver<T> {
    /// Hands up to `budget` messages to `handler`; true where more are left, and then the loop must come back without being woken.
    pub fn drain(&self, budget: usize, mut handler: impl FnMut(T)) -> bool {
        // Before looking: a message that comes after the last look rings again.
        self.bell.rung.swap(false, Ordering::SeqCst);
        self.queue.try_iter().take(budget).for_each(&mut handler);
        !self.queue.is_empty()
    }
}

impl Bell {
    fn ring(&self) {
        if self.rung.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Err(error) = self.waker.wake() {
            // The message lies in the queue and the next one tries again.
            self.rung.store(false, Ordering::SeqCst);
            tracing::error!(%error, "could not wake an event loop; its messages wait");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    #[test]
    fn one_burst_wakes_once_and_a_full_mailbox_says_so() {
        let mut poll = Poll::new().expect("a poll");
        let waker = Arc::new(Waker::new(poll.registry(), Token(7)).expect("a waker"));
        let (sender, receiver) = mailbox(3, waker);
        for n in 0..3 {
            assert_eq!(sender.try_send(n), Ok(()));
        }
        assert_eq!(sender.try_send(3), Err(Refused::Full(3)));

        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(10))).expect("an event");
        assert_eq!(events.iter().map(|e| e.token()).collect::<Vec<_>>(), [Token(7)]);

        let mut got = Vec::new();
        assert!(receiver.drain(2, |n| got.push(n)), "one is left");
        assert!(!receiver.drain(2, |n| got.push(n)));
        assert_eq!(got, [0, 1, 2]);

        assert_eq!(sender.clone().try_send(4), Ok(()));
        poll.poll(&mut events, Some(Duration::from_secs(10))).expect("an event");
        assert_eq!(events.iter().count(), 1);
        drop(receiver);
        assert_eq!(sender.try_send(5), Err(Refused::Closed(5)));
    }
}
