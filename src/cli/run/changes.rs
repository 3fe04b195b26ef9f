//! The thread that hears of interfaces that go down, or take packets of other sizes. What is promised of one that goes down is a matter of
//! milliseconds, and the management plane may be busy with somebody's request, or with the disk; so may the mesh plane be with others' news. So this
//! thread itself has others stand in for what leads over such an interface, in the Fib that the packet threads read, and then tells the mesh
//! plane, which decides.
//!
//! On two cores, beside two programs that took both, this thread ran 0.01 to 2.2 ms after it was told. The other end of the cable was told by its
//! kernel up to 78 ms later, and by the mesh, through the third host, 1.3 ms after the cut. A higher priority gained nothing: traffic was silent for
//! 19 ms at the median of fourteen cuts and 27 at the worst; with all threads at a nice value of -10, which Open vSwitch has, for 24 and 39; and
//! without any cut for 22 and 36.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use crate::forward::Fib;
use crate::host::changes::{Change, LinkChanges};
use crate::io::mailbox::{Refused, Sender};
use crate::io::mesh_thread::MeshInput;
use crate::io::udp::leaves_from;

/// How long to wait before subscribing again after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// The thread runs until this is dropped.
#[derive(Debug)]
pub struct Watching(#[expect(dead_code, reason = "what counts is that it is there")] oneshot::Sender<()>);

/// What is worse without it.
const WITHOUT: &str =
    "paths by an interface that goes down are given up once nothing is heard of them, and sizes are measured when it is their time";

/// Starts the thread, in the network namespace of the calling one. Where that fails the router does without.
pub fn watch(mesh: Sender<MeshInput>, fib: Arc<ArcSwap<Fib>>) -> Option<Watching> {
    start(mesh, fib).inspect_err(|error| tracing::warn!("{error:#}; {WITHOUT}")).ok()
}

fn start(mesh: Sender<MeshInput>, fib: Arc<ArcSwap<Fib>>) -> anyhow::Result<Watching> {
    let (end, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start an event loop")?;
    let body = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = ended => {}
                () = follow(&mesh, &fib) => {}
            }
        });
    };
    std::thread::Builder::new().name("links".into()).spawn(body).context("cannot start the thread that watches interfaces")?;
    Ok(Watching(end))
}

async fn follow(mesh: &Sender<MeshInput>, fib: &ArcSwap<Fib>) {
    loop {
        match LinkChanges::watch().await {
            Ok(mut links) => {
                while let Some(change) = links.next().await {
                    match mesh.try_send(told(change, fib)) {
                        Ok(()) => {}
                        Err(Refused::Full(_)) => {
                            tracing::warn!("the mesh plane is too busy to hear of a change of an interface; {WITHOUT}")
                        }
                        // The router is stopping: its own interfaces go.
                        Err(Refused::Closed(_)) => return,
                    }
                }
            }
            Err(error) => tracing::warn!("{error}; {WITHOUT}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// What the mesh plane is told; the packet plane needs no telling.
fn told(change: Change, fib: &ArcSwap<Fib>) -> MeshInput {
    match change {
        Change::Lost(own) => {
            // Containers come and go with interfaces that have none.
            if !own.is_empty() {
                fib.load().doubt_where(|peer| leaves_from(peer, &own));
            }
            MeshInput::LinkLost(own)
        }
        Change::Resized(own, mtu) => MeshInput::LinkResized(own, mtu),
    }
}
