//! What the mesh plane tells of paths: the page `status paths`, and traces.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::planes;
use crate::api::Refusal;
use crate::api::paths::{self, Paths};
use crate::api::section::{Ask, Section};
use crate::api::trace::AskTrace;
use crate::io::mailbox::Sender;
use crate::io::mesh_thread::MeshInput;
use crate::io::tcp::TcpConnections;
use crate::mesh::command::Command;
use crate::mesh::trace::Trace;

/// Longest that a trace may take: the client waits a little longer.
const PATIENCE: Duration = Duration::from_secs(14);

/// Traces that wait for their end.
#[derive(Clone, Default)]
pub struct Tracers(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    next: u64,
    answers: BTreeMap<u64, oneshot::Sender<Result<Trace, Refusal>>>,
}

impl Tracers {
    /// What the API asks.
    pub fn ask(&self, mesh: Sender<MeshInput>) -> AskTrace {
        let tracers = self.clone();
        Arc::new(move |whom| {
            let (tracers, mesh) = (tracers.clone(), mesh.clone());
            async move { tracers.trace(&mesh, whom).await }.boxed()
        })
    }

    async fn trace(&self, mesh: &Sender<MeshInput>, whom: String) -> Result<Trace, Refusal> {
        let (answer, answered) = oneshot::channel();
        let ticket = self.with(|waiting| {
            waiting.next += 1;
            waiting.answers.insert(waiting.next, answer);
            waiting.next
        });
        if !planes::send(mesh, Command::Trace { ticket, whom }) {
            self.with(|waiting| waiting.answers.remove(&ticket));
            return Err(Refusal::busy());
        }
        let told = timeout(PATIENCE, answered).await;
        self.with(|waiting| waiting.answers.remove(&ticket));
        match told {
            Ok(Ok(trace)) => trace,
            Ok(Err(_)) => Err(Refusal("the router is stopping".into())),
            Err(_) => Err(Refusal(format!("the trace did not end within {} s; try again", PATIENCE.as_secs()))),
        }
    }

    /// The mesh plane has answered.
    pub fn done(&self, ticket: u64, trace: Result<Trace, String>) {
        if let Some(answer) = self.with(|waiting| waiting.answers.remove(&ticket)) {
            // Who asked may have gone.
            let _ = answer.send(trace.map_err(Refusal));
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Waiting) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The page of paths. A mesh plane that is too busy says nothing this time.
pub fn section(mesh: Sender<MeshInput>, open: Arc<TcpConnections>) -> Ask {
    // The overview counts them, so they are looked at for every page.
    Box::new(move |_| {
        let (answer, answered) = oneshot::channel();
        let tcp = open.read().to_vec();
        let ask = MeshInput::Ask(Box::new(move |mesh, now| {
            let counters = mesh.counters();
            let dead = (counters.paths_dead.get(), counters.paths_dead_after_ms.get());
            let _ = answer.send(Paths { paths: mesh.path_states(now), sizes: mesh.table_sizes(), dead, tcp });
        }));
        let asked = mesh.try_send(ask).is_ok();
        async move {
            match answered.await {
                Ok(told) if asked => paths::section(&told),
                _ => Section { name: "paths", page: "the router is busy; try again\n".into(), ..Section::default() },
            }
        }
        .boxed()
    })
}
