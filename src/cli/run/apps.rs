//! Hands what the mesh plane says to the parts of the program above it: address allocation, names.
//!
//! Nobody may hold the mesh plane up, and nobody may miss a record for good: all queues are bounded, what does not fit is dropped and
//! remembered, and the mesh plane is then asked to say every record and peer again. Messages have half of each queue at most: those that are lost
//! are lost, and members that send them without end must not be in the way of what has to be heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use crate::mesh::MeshCounters;
use crate::mesh::apps::{AppEvent, Channel};
use crate::mesh::command::Event;

/// Events that may wait for one part of the program, or for the loop that hands them on: a burst of records of a large mesh.
pub const QUEUE: usize = 8192;

/// True once an event was lost.
pub type Lost = Arc<AtomicBool>;

/// The way out of the mesh thread, for events of [`Event::App`].
pub struct AppSink {
    queue: mpsc::Sender<AppEvent>,
    lost: Lost,
    counters: Arc<MeshCounters>,
}

impl AppSink {
    /// A sink, and the end from which the loop takes.
    pub fn new(counters: Arc<MeshCounters>) -> (AppSink, mpsc::Receiver<AppEvent>, Lost) {
        let (queue, events) = mpsc::channel(QUEUE);
        let lost = Lost::default();
        (AppSink { queue, lost: Arc::clone(&lost), counters }, events, lost)
    }

    /// Takes what is for those parts; answers with the events that are for others.
    pub fn take(&self, event: Event) -> Option<Event> {
        let Event::App(event) = event else { return Some(event) };
        put(&self.queue, event, &self.lost, &self.counters);
        None
    }
}

/// Puts an event into a queue, if there is room for one of its kind.
fn put(queue: &mpsc::Sender<AppEvent>, event: AppEvent, lost: &Lost, counters: &MeshCounters) {
    let is_message = matches!(event, AppEvent::Told { .. });
    if is_message && queue.capacity() <= queue.max_capacity() / 2 {
        return counters.app_messages_unheard.inc();
    }
    if queue.try_send(event).is_err() && !is_message {
        lost.store(true, Ordering::Relaxed);
    }
}

/// What one part of the program wants to hear.
struct Part {
    channel: Option<Channel>,
    kind: u8,
    queue: mpsc::Sender<AppEvent>,
}

/// The parts that are there.
pub struct Apps {
    parts: Vec<Part>,
    lost: Lost,
    counters: Arc<MeshCounters>,
}

impl Apps {
    /// None yet.
    pub fn new(lost: Lost, counters: Arc<MeshCounters>) -> Apps {
        Apps { parts: Vec::new(), lost, counters }
    }

    /// A part that hears the messages of `channel`, the records of `kind`, and which peers there are. It has to ask for what was said
    /// before it was there.
    pub fn join(&mut self, channel: Channel, kind: u8) -> mpsc::Receiver<AppEvent> {
        self.add(Some(channel), kind)
    }

    /// The same for a part that neither sends nor hears messages.
    pub fn listen(&mut self, kind: u8) -> mpsc::Receiver<AppEvent> {
        self.add(None, kind)
    }

    fn add(&mut self, channel: Option<Channel>, kind: u8) -> mpsc::Receiver<AppEvent> {
        let (queue, events) = mpsc::channel(QUEUE);
        self.parts.push(Part { channel, kind, queue });
        events
    }

    /// Hands an event on.
    pub fn deliver(&self, event: AppEvent) {
        for part in &self.parts {
            let meant = match &event {
                AppEvent::Told { channel, .. } => Some(*channel) == part.channel,
                AppEvent::Record { kind, .. } => *kind == part.kind,
                AppEvent::Peer { .. } | AppEvent::Forgotten { .. } => true,
            };
            if meant {
                put(&part.queue, event.clone(), &self.lost, &self.counters);
            }
        }
    }

    /// The mesh plane could not be asked.
    pub fn keep_lost(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// True, once, after something was lost: the mesh plane is to be asked for everything again.
    pub fn take_lost(&self) -> bool {
        self.lost.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::apps::{IPAM_RECORD, NAMES_RECORD};
    use crate::wire::PeerName;

    #[test]
    fn each_part_hears_what_is_meant_for_it_and_a_loss_is_remembered() {
        let (sink, mut out, lost) = AppSink::new(Arc::default());
        let mut apps = Apps::new(lost, Arc::default());
        let mut ipam = apps.join(Channel::Ipam, IPAM_RECORD);
        let mut names = apps.join(Channel::Names, NAMES_RECORD);
        let from = PeerName([2; 6]);
        let told = |channel| AppEvent::Told { from, channel, body: vec![1] };
        let record = AppEvent::Record { origin: from, kind: NAMES_RECORD, chunk: 0, body: None };
        let gone = AppEvent::Forgotten { peer: from };
        assert_eq!(sink.take(Event::Warning("w".into())), Some(Event::Warning("w".into())));
        for event in [told(Channel::Ipam), told(Channel::Names), record.clone(), gone.clone()] {
            assert_eq!(sink.take(Event::App(event)), None);
        }
        while let Ok(event) = out.try_recv() {
            apps.deliver(event);
        }
        let heard = |queue: &mut mpsc::Receiver<AppEvent>| std::iter::from_fn(|| queue.try_recv().ok()).collect::<Vec<_>>();
        assert_eq!(heard(&mut ipam), [told(Channel::Ipam), gone.clone()]);
        assert_eq!(heard(&mut names), [told(Channel::Names), record, gone.clone()]);
        assert!(!apps.take_lost());
        for _ in 0..=QUEUE {
            apps.deliver(gone.clone());
        }
        assert!(apps.take_lost());
        assert!(!apps.take_lost(), "told once");
    }

    #[test]
    fn messages_leave_room_for_what_has_to_be_heard() {
        let (sink, mut out, lost) = AppSink::new(Arc::default());
        let mut apps = Apps::new(lost, Arc::default());
        let mut ipam = apps.join(Channel::Ipam, IPAM_RECORD);
        let from = PeerName([2; 6]);
        for _ in 0..2 * QUEUE {
            let told = AppEvent::Told { from, channel: Channel::Ipam, body: vec![1] };
            sink.take(Event::App(told.clone()));
            apps.deliver(told);
        }
        let gone = AppEvent::Forgotten { peer: from };
        sink.take(Event::App(gone.clone()));
        apps.deliver(gone.clone());
        assert!(!apps.take_lost(), "nothing is to be said again");
        for queue in [&mut out, &mut ipam] {
            let heard: Vec<AppEvent> = std::iter::from_fn(|| queue.try_recv().ok()).collect();
            assert_eq!((heard.len(), heard.last()), (QUEUE / 2 + 1, Some(&gone)));
        }
    }
}
