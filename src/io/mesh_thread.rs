//! The mesh thread: feeds the mesh plane from its own sockets and mailbox, and carries out what it says.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::forward::{Fib, MacTable, Punt};
use crate::io::clock::Clock;
use crate::io::icmp::IcmpSocket;
use crate::io::mailbox::{self, Receiver, Sender};
use crate::io::udp::{ThreadSockets, leaves_from};
use crate::mesh::command::{Command, Event};
use crate::mesh::snapshot::Snapshot;
use crate::mesh::{Mesh, Outbox};
use crate::time::Time;
use crate::wire::Address;

/// Messages the mesh thread's mailbox holds; beyond that the sender hears "busy".
const MAILBOX: usize = 4096;
/// Messages, and datagrams per socket, handled before the others get their turn.
const BUDGET: usize = 256;
/// Receive calls that may fail in a row before the next event is waited for.
const FAILURES: usize = 8;
/// The mailbox's waker; sockets count from zero, those for ICMP after those for UDP.
const WAKE: Token = Token(usize::MAX);

/// What the other threads tell the mesh thread.
pub enum MeshInput {
    /// A command from the management plane.
    Command(Command),
    /// Something a packet thread found that is the mesh plane's to handle.
    Punt(Punt),
    /// The kernel refused a datagram to this address as too big for the path.
    TooBig(Address),
    /// The kernel has no way to this address now.
    Unreachable(Address),
    /// The interface that has these addresses is down.
    LinkLost(Vec<IpAddr>),
    /// The interface that has these addresses takes IP packets of at most so many bytes now.
    LinkResized(Vec<IpAddr>, u32),
    /// Please say how things stand.
    Snapshot(Box<dyn FnOnce(Snapshot) + Send>),
    /// The same of one part.
    Ask(Question),
    /// Say goodbye to the neighbours and end.
    Stop,
}

/// Something asked of the mesh plane, told the time.
pub type Question = Box<dyn FnOnce(&Mesh, Time) + Send>;

/// Where the mesh plane's events go.
pub type EventSink = Box<dyn FnMut(Event) + Send>;

/// Everything the thread owns.
pub struct MeshThread {
    mesh: Mesh,
    sockets: ThreadSockets,
    icmp: Vec<IcmpSocket>,
    /// Which of the sockets may have something, in order of their tokens.
    ready: Vec<bool>,
    inbox: Receiver<MeshInput>,
    poll: Poll,
    out: Outbox,
    fib: Arc<ArcSwap<Fib>>,
    packet_wakers: Vec<Arc<Waker>>,
    macs: Arc<MacTable>,
    events: EventSink,
    clock: Clock,
}

/// The parts a mesh thread is made of.
pub struct MeshParts {
    /// The state machine.
    pub mesh: Mesh,
    /// The control sockets.
    pub sockets: ThreadSockets,
    /// Those that hear what became of what is sent.
    pub icmp: Vec<IcmpSocket>,
    /// Where packet threads read the Fib.
    pub fib: Arc<ArcSwap<Fib>>,
    /// Wakers of the packet threads, which look at the Fib when woken.
    pub packet_wakers: Vec<Arc<Waker>>,
    /// The MAC table, into which announcements go.
    pub macs: Arc<MacTable>,
    /// Where other events go.
    pub events: EventSink,
    /// The time.
    pub clock: Clock,
}

/// The poll of a mesh thread and its mailbox, made before the thread's other parts because those need the sender.
pub fn inbox() -> std::io::Result<(Poll, Sender<MeshInput>, Receiver<MeshInput>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let (sender, receiver) = mailbox::mailbox(MAILBOX, waker);
    Ok((poll, sender, receiver))
}

impl MeshThread {
    /// Joins the parts; `poll` and `inbox` are from [`inbox`].
    pub fn new(parts: MeshParts, poll: Poll, inbox: Receiver<MeshInput>) -> std::io::Result<MeshThread> {
        let MeshParts { mesh, mut sockets, mut icmp, fib, packet_wakers, macs, events, clock } = parts;
        for (n, socket) in sockets.sockets().iter_mut().enumerate() {
            poll.registry().register(socket, Token(n), Interest::READABLE)?;
        }
        let count = sockets.sockets().len();
        for (n, socket) in icmp.iter_mut().enumerate() {
            poll.registry().register(socket, Token(count + n), Interest::READABLE)?;
        }
        let ready = vec![true; count + icmp.len()];
        Ok(MeshThread { mesh, sockets, icmp, ready, inbox, poll, out: Outbox::default(), fib, packet_wakers, macs, events, clock })
    }

    /// Runs until [`MeshInput::Stop`], or until polling fails, which is returned.
    pub fn run(mut self) -> std::io::Result<()> {
        let mut events = Events::with_capacity(64);
        let mut more = false;
        self.mesh.handle_timeout(self.clock.now(), &mut self.out);
        self.carry_out();
        loop {
            let timeout = if more || self.ready.contains(&true) { Some(Duration::ZERO) } else { self.until_timeout() };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in events.iter().filter(|event| event.token() != WAKE) {
                if let Some(ready) = self.ready.get_mut(event.token().0) {
                    *ready = true;
                }
            }
            let (stop, left) = self.read_inbox();
            more = left;
            self.read_sockets();
            self.read_errors();
            self.fire_timers();
            if stop {
                let now = self.clock.now();
                self.mesh.handle_command(now, Command::Leave, &mut self.out);
                self.carry_out();
                return Ok(());
            }
        }
    }

    fn until_timeout(&self) -> Option<Duration> {
        self.mesh.next_timeout().map(|at| at.since(self.clock.now()))
    }

    fn read_inbox(&mut self) -> (bool, bool) {
        let mut batch = Vec::new();
        let more = self.inbox.drain(BUDGET, |input| batch.push(input));
        let mut stop = false;
        for input in batch {
            let now = self.clock.now();
            match input {
                MeshInput::Command(command) => {
                    if matches!(command, Command::LocalAddresses(_)) {
                        self.sockets.forget_sources();
                    }
                    self.mesh.handle_command(now, command, &mut self.out);
                }
                MeshInput::Punt(punt) => self.mesh.handle_punt(now, punt, &mut self.out),
                MeshInput::TooBig(address) => self.mesh.handle_too_big(now, address, &mut self.out),
                MeshInput::Unreachable(address) => self.mesh.handle_unreachable(now, address, &mut self.out),
                MeshInput::LinkLost(own) => {
                    let lost = self.led_over(&own);
                    self.mesh.handle_link_lost(now, &lost, &mut self.out);
                }
                MeshInput::LinkResized(own, mtu) => {
                    let resized = self.led_over(&own);
                    self.mesh.handle_link_resized(now, &resized, mtu, &mut self.out);
                }
                MeshInput::Snapshot(answer) => answer(self.mesh.snapshot(now)),
                MeshInput::Ask(ask) => ask(&self.mesh, now),
                MeshInput::Stop => stop = true,
            }
            self.carry_out();
        }
        (stop, more)
    }

    /// Where paths lead that leave from one of these addresses.
    fn led_over(&self, own: &[IpAddr]) -> Vec<Address> {
        self.mesh.path_addresses().into_iter().filter(|peer| leaves_from(*peer, own)).collect()
    }

    fn read_sockets(&mut self) {
        for n in 0..self.ready.len() - self.icmp.len() {
            let (mut budget, mut failures) = (BUDGET, 0);
            while self.ready[n] && budget > 0 {
                let (clock, mesh, out) = (&self.clock, &mut self.mesh, &mut self.out);
                let Some(socket) = self.sockets.sockets().get_mut(n) else { break };
                match socket.recv() {
                    Ok(batch) => {
                        self.ready[n] = batch.more;
                        budget = budget.saturating_sub(batch.messages.len());
                        for message in batch.messages {
                            let datagrams = batch.buffer.get_mut(message.range.clone()).unwrap_or_default();
                            for datagram in datagrams.chunks_mut(message.segment) {
                                mesh.handle_datagram(clock.now(), message.from, datagram, out);
                            }
                        }
                    }
                    // Counted by the socket; what lies behind the failure announces itself no second time. One that stays is given up.
                    Err(_) => {
                        failures += 1;
                        self.ready[n] = failures < FAILURES;
                    }
                }
                self.carry_out();
                self.sockets.answered();
            }
        }
    }

    /// Hears what became of datagrams that did not arrive.
    fn read_errors(&mut self) {
        let ready = self.ready.iter_mut().rev().zip(self.icmp.iter().rev()).filter(|(ready, _)| **ready);
        for (ready, socket) in ready {
            let (mesh, out, clock) = (&mut self.mesh, &mut self.out, &self.clock);
            *ready = !socket.drain(|said| mesh.handle_rebuff(clock.now(), said.to, said.rebuff, said.quoted, out));
        }
        self.carry_out();
    }

    fn fire_timers(&mut self) {
        let now = self.clock.now();
        if self.mesh.next_timeout().is_some_and(|at: Time| at <= now) {
            self.mesh.handle_timeout(now, &mut self.out);
            self.carry_out();
        }
    }

    /// Does what the mesh plane has said: the Fib first, so that data can flow by the time the peer hears of it.
    fn carry_out(&mut self) {
        if let Some(fib) = self.out.fib.take() {
            self.fib.store(fib);
            for waker in &self.packet_wakers {
                if let Err(error) = waker.wake() {
                    tracing::warn!(%error, "could not wake a packet thread; it will see the new routes with its next frame");
                }
            }
        }
        let mut out = std::mem::take(&mut self.out);
        out.genuine.drain(..).for_each(|peer| self.sockets.trust(peer));
        for (to, bytes) in out.datagrams.drain(..) {
            self.sockets.send_to(to, &bytes);
        }
        // Probes of the path MTU are meant to be too big now and then; what fits is said by their answers.
        self.sockets.take_too_big().for_each(drop);
        for event in out.events.drain(..) {
            match event {
                Event::MacAnnounced { vlan, mac, owner, frozen } => {
                    self.macs.decide(self.mesh.name(), (vlan, mac), owner, frozen, self.clock.now());
                    (self.events)(Event::MacAnnounced { vlan, mac, owner, frozen });
                }
                other => (self.events)(other),
            }
        }
        // The emptied buffers are used again.
        self.out = out;
        self.heed_refusals();
    }

    /// Has the mesh plane think about paths on which the kernel did not send. It does so once per path, so that this comes to an end although
    /// what it sends may be refused too.
    fn heed_refusals(&mut self) {
        let refused: Vec<Address> = self.sockets.take_unreachable().collect();
        if refused.is_empty() {
            return;
        }
        let now = self.clock.now();
        refused.into_iter().for_each(|address| self.mesh.handle_unreachable(now, address, &mut self.out));
        if !self.out.datagrams.is_empty() || self.out.fib.is_some() || !self.out.events.is_empty() {
            self.carry_out();
        }
    }
}
