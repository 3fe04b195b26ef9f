//! The part of the router that looks after containers and the host's own place on the network: attaches, detaches, exposes and hides, finds
//! everything again after a restart, and notices when a container is gone.
//!
//! * [`desk`]: what is asked, one request after the other for a container, side by side for several.
//! * [`addresses`]: which addresses that means, and how they go back.
//! * [`host`]: the host itself.
//! * [`survey`]: compares with the kernel at the start, when something changed on the bridge, and now and then.
//! * [`enforce`]: keeps the firewall's tables as they should be.
//! * [`far`]: subnets that other hosts use.
//! * [`reserve`]: says at the start which addresses are in use.
//! * [`record`]: what is remembered over a restart.
//!
//! Addresses are given out and names are kept by others, see [`book`].

mod addresses;
pub mod book;
mod desk;
mod enforce;
pub mod far;
mod host;
mod record;
mod reserve;
mod survey;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::FutureExt;
use ipnet::IpNet;
use rtnetlink::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use super::complain;
use super::keeper::Doorbell;
use crate::api::containers::{self, Ask, ContainersHandle};
use crate::api::section;
use crate::api::state::Scope;
use crate::host::container::{BridgeEnd, found};
use crate::host::vanished::{TableWatch, torn};
use crate::host::{HostError, connect, rules};
use crate::mesh::apps::AppEvent;
use crate::store::db::Db;
use book::Books;
use desk::Desk;
use far::{Far, Mesh};

/// How often the kernel is asked whether everything is still there, without any sign that it is not.
const LOOK: Duration = Duration::from_secs(10);
/// How often the firewall's tables are written, where there are any, besides at once when somebody takes them away.
const GUARD: Duration = Duration::from_secs(5);

/// Between attempts to find what is there.
const RETRY: Duration = Duration::from_secs(1);

/// What it is told at the start.
pub struct Settings {
    /// Containers are held to their addresses.
    pub isolate: bool,
    /// The ranges that addresses are given from.
    pub ranges: Vec<IpNet>,
    /// The default subnets, one of each family that addresses are given of.
    pub subnets: Vec<IpNet>,
    /// Where containers find the name server, if it is on the bridge.
    pub name_server: Option<Ipv4Addr>,
}

/// Its netlink sockets, which are opened while a failure still leaves nothing behind.
pub struct Sockets {
    host: Handle,
    strict: Handle,
}

impl Sockets {
    /// Opens them in the network namespace of the calling thread.
    pub fn open() -> Result<Sockets, HostError> {
        Ok(Sockets { host: connect()?, strict: found::connect()? })
    }
}

/// What it lives between.
pub struct Ends {
    /// To the kernel.
    pub sockets: Sockets,
    /// The bridge.
    pub bridge: BridgeEnd,
    /// To who looks after other programs' firewalls.
    pub doorbell: Doorbell,
    /// To the mesh plane, and from it.
    pub mesh: Mesh,
}

/// The part's handle in the run loop.
pub struct Containers {
    handle: ContainersHandle,
    bridge: watch::Sender<BridgeEnd>,
    desk: Arc<Desk>,
}

impl Containers {
    /// Starts it. What was there before is found and taken over at once, in the background.
    pub fn start(settings: Settings, ends: Ends, db: &Db, books: Books) -> Containers {
        let (handle, asks) = ContainersHandle::new();
        let (bridge, bridges) = watch::channel(ends.bridge);
        let desk =
            Arc::new(Desk::new(settings, bridges.clone(), (ends.sockets, ends.doorbell, Far::new(ends.mesh.mailbox)), db.clone(), books));
        tokio::spawn(run(Arc::clone(&desk), asks, bridges, ends.mesh.events));
        Containers { handle, bridge, desk }
    }

    /// Its pages.
    pub fn routes(&self) -> Router {
        containers::routes(self.handle.clone())
    }

    /// What it says of the containers, and of the host.
    pub fn sections(&self) -> [section::Ask; 2] {
        let (desk, host) = (Arc::clone(&self.desk), Arc::clone(&self.desk));
        let of_containers = Box::new(move |_: &Scope| {
            let desk = Arc::clone(&desk);
            async move { desk.section().await }.boxed()
        });
        [of_containers, Box::new(move |_: &Scope| futures::future::ready(host.exposure()).boxed())]
    }

    /// Something changed on the bridge, which is now this one.
    pub fn lay_out(&self, bridge: BridgeEnd) {
        // Even if it is the same: a port may have gone.
        self.bridge.send_replace(bridge);
    }

    /// The end of the router: containers stay as they are, and so do the rules that concern them.
    pub async fn close(&self, deadline: Instant) {
        if !self.desk.is_unused() {
            return;
        }
        match timeout_at(deadline, self.desk.unguard()).await {
            Ok(Err(error)) => complain("the rules for containers may still be there", &error),
            Ok(Ok(())) => {}
            Err(_) => tracing::warn!("the rules for containers may still be there: nft does not answer in time"),
        }
    }
}

async fn run(
    desk: Arc<Desk>,
    mut asks: mpsc::Receiver<Ask>,
    mut bridges: watch::Receiver<BridgeEnd>,
    mut events: mpsc::Receiver<AppEvent>,
) {
    // Before the tables are written first: nothing that happens to them goes unnoticed.
    let name = bridges.borrow().name.clone();
    let mut tables = TableWatch::new(&rules::table(&name))
        .inspect_err(|error| complain("the firewall's tables are looked at every 5 s only", error))
        .ok();
    while !desk.take_over().await {
        sleep(RETRY).await;
    }
    let (mut look, mut guard) = (interval(LOOK), interval(GUARD));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    guard.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ask = asks.recv() => match ask {
                Some(ask) => drop(tokio::spawn(answer(Arc::clone(&desk), ask))),
                None => return,
            },
            changed = bridges.changed() => match changed {
                Ok(()) => desk.look().await,
                Err(_) => return,
            },
            _ = look.tick() => {
                desk.look().await;
                desk.pay();
                desk.publish();
            }
            () = torn(&mut tables) => desk.guard_again(),
            () = desk.guard.ports.notified() => {
                desk.publish();
                desk.follow_ports();
            }
            Some(event) = events.recv() => desk.hear(event),
            _ = guard.tick() => desk.guard_again(),
        }
    }
}

/// Whoever asked may be gone: what was begun is finished all the same.
async fn answer(desk: Arc<Desk>, ask: Ask) {
    match ask {
        Ask::Attach(order, answer) => drop(answer.send(desk.attach(order).await)),
        Ask::Detach(order, answer) => drop(answer.send(desk.detach(order).await)),
        Ask::List(answer) => drop(answer.send(desk.list().await)),
        Ask::Expose(order, answer) => drop(answer.send(desk.expose(order).await)),
        Ask::Hide(addresses, all, answer) => drop(answer.send(desk.hide(addresses, all).await)),
        Ask::Join(bridge, answer) => drop(answer.send(desk.join(&bridge).await)),
        Ask::Reset(answer) => drop(answer.send(desk.reset().await)),
    }
}

#[cfg(test)]
mod tests;
