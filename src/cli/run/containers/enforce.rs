//! Keeps the firewall's tables as the state says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::{sleep, timeout};

use super::super::aside::aside;
use super::desk::Desk;
use crate::api::Denied;
use crate::api::containers::EXPOSED;
use crate::host::rules::{self, Port, Rules};
use crate::host::{HostError, link};

/// Longest that nft may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Changes that nobody waits for, within this time, are written as one: hundreds of containers may start at once.
const GATHER: Duration = Duration::from_millis(50);

/// What was written.
#[derive(Default)]
pub struct Guard {
    /// Counts changes of the state.
    changes: AtomicU64,
    /// How many of them the tables hold; taken while they are written.
    written: Mutex<u64>,
    /// True where there are, or should be, tables of ours.
    present: AtomicBool,
    /// Told when the ports, or their subnets, changed.
    pub(super) ports: Notify,
    /// True while a write that nobody waits for has not begun.
    queued: AtomicBool,
    /// True where the tables may not hold what was written.
    torn: AtomicBool,
    /// Nothing is written any more.
    closed: AtomicBool,
    /// True while nft runs. One that hangs still may write what is out of date by then: no other is started beside it.
    running: Arc<AtomicBool>,
    /// The last failure, so that it is said once.
    said: std::sync::Mutex<Option<String>>,
}

/// As long as it lives nft runs.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Guard {
    /// Lets nft work, for a while: where that is not enough it goes on alone, and nothing else is written before its end.
    pub(super) async fn nft(&self, work: impl FnOnce() -> Result<(), HostError> + Send + 'static) -> Result<(), HostError> {
        self.wait_for(PATIENCE, work).await
    }

    /// Something changed that the tables are to hold; answers with its number.
    pub(super) fn change(&self) -> u64 {
        self.changes.fetch_add(1, Ordering::SeqCst) + 1
    }

    async fn wait_for(&self, patience: Duration, work: impl FnOnce() -> Result<(), HostError> + Send + 'static) -> Result<(), HostError> {
        let lost = |why: &str| HostError::refused("write the firewall's rules", why);
        if self.running.swap(true, Ordering::SeqCst) {
            return Err(lost("an nft that was started before does not end"));
        }
        let running = Running(Arc::clone(&self.running));
        let done = aside("nft", move || {
            let _running = running;
            work()
        });
        match timeout(patience, done).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(lost("the thread that runs nft failed")),
            Err(_) => {
                // What it writes in the end is to be written over.
                self.present.store(true, Ordering::SeqCst);
                Err(lost("nft does not answer"))
            }
        }
    }
}

impl Desk {
    /// The state changed: answers when the tables hold the change. Several at once are written as one.
    pub(super) async fn enforce(&self) -> Result<(), Denied> {
        let change = self.guard.change();
        let mut written = self.guard.written.lock().await;
        if *written >= change {
            return Ok(());
        }
        let upto = self.guard.changes.load(Ordering::SeqCst);
        self.write().await.map_err(Denied::now)?;
        *written = upto;
        Ok(())
    }

    /// The ports changed. Where they are isolated they are closed until the tables hold the change; else the tables only keep multicast in its
    /// subnets, and nobody waits for them.
    pub(super) async fn enforce_ports(&self) -> Result<(), Denied> {
        let done = match self.settings.isolate {
            true => self.enforce().await,
            false => {
                self.guard.change();
                Ok(())
            }
        };
        self.guard.ports.notify_one();
        done
    }

    /// Writes the tables again, where there are any: somebody may have flushed them.
    pub(super) fn guard_again(self: &Arc<Self>) {
        if self.guard.present.load(Ordering::SeqCst) {
            self.guard.torn.store(true, Ordering::SeqCst);
            self.refresh(Duration::ZERO);
        }
    }

    /// The ports changed, or the subnets of other hosts: what is not written yet is written.
    pub(super) fn follow_ports(self: &Arc<Self>) {
        self.refresh(GATHER);
    }

    /// Writes in the background, after a while.
    fn refresh(self: &Arc<Self>, after: Duration) {
        if self.guard.queued.swap(true, Ordering::SeqCst) {
            return;
        }
        let desk = Arc::clone(self);
        tokio::spawn(async move {
            sleep(after).await;
            let mut written = desk.guard.written.lock().await;
            desk.guard.queued.store(false, Ordering::SeqCst);
            let torn = desk.guard.torn.swap(false, Ordering::SeqCst);
            if *written >= desk.guard.changes.load(Ordering::SeqCst) && !torn {
                return;
            }
            let upto = desk.guard.changes.load(Ordering::SeqCst);
            let failure = desk.write().await.err().map(|error| error.to_string());
            if failure.is_none() {
                *written = upto;
            }
            let mut said = desk.guard.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if *said != failure {
                failure.iter().for_each(|why| tracing::warn!("the rules for containers may be missing, and this is tried again: {why}"));
                *said = failure;
            }
        });
    }

    async fn write(&self) -> Result<(), HostError> {
        if self.guard.closed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let rules = self.rules().await?;
        let (bridge, wanted) = (self.bridge().name, !rules.is_empty());
        if !wanted && !self.guard.present.load(Ordering::SeqCst) {
            return Ok(());
        }
        // Where it fails, it is tried again.
        self.guard.present.store(true, Ordering::SeqCst);
        self.guard.nft(move || rules::write(&bridge, &rules)).await?;
        self.guard.present.store(wanted, Ordering::SeqCst);
        Ok(())
    }

    /// Removes the tables, after whatever is being written.
    pub(super) async fn unguard(&self) -> Result<(), HostError> {
        let _written = self.guard.written.lock().await;
        self.guard.closed.store(true, Ordering::SeqCst);
        let bridge = self.bridge().name;
        self.guard.nft(move || rules::remove(&bridge)).await
    }

    /// At the start: what an earlier router left goes where it is not wanted any more.
    pub(super) async fn enforce_first(&self) {
        let wanted = self.rules().await.is_ok_and(|rules| !rules.is_empty());
        let bridge = self.bridge().name;
        let outcome = match wanted {
            true => self.enforce().await,
            false => self.guard.nft(move || rules::remove(&bridge)).await.map_err(Denied::now),
        };
        if let Err(refusal) = outcome {
            tracing::warn!("{refusal}; containers are not kept apart as they should be until this works");
            // It is tried again.
            self.guard.present.store(wanted, Ordering::SeqCst);
        }
    }

    async fn rules(&self) -> Result<Rules, HostError> {
        let bridge = self.bridge();
        let mac = link::by_index(&self.kernel().await.host, bridge.index).await?.map_or([0; 6], |link| link.mac);
        let known = self.known();
        let exposed = known.get(EXPOSED).map(|known| known.record.exposures()).unwrap_or_default();
        let mesh = self.settings.ranges.iter().copied().chain(self.subnets()).chain(self.far.subnets()).collect();
        let ports = known.values().filter_map(|known| {
            let port = known.port.as_ref()?;
            Some(Port { name: port.0.clone(), mac: port.1, addresses: known.record.addresses.clone() })
        });
        Ok(Rules { mac, exposed, mesh, ports: ports.collect(), isolate: self.settings.isolate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_nft_is_started_beside_one_that_hangs() {
        let guard = Guard::default();
        let (finish, hangs) = std::sync::mpsc::channel::<()>();
        let said = |outcome: Result<(), HostError>| outcome.expect_err("refused").to_string();
        let slow = guard.wait_for(Duration::from_millis(10), move || {
            let _ = hangs.recv();
            Ok(())
        });
        assert!(said(slow.await).contains("does not answer"));
        assert!(guard.present.load(Ordering::SeqCst), "what it may write is written over later");
        assert!(said(guard.nft(|| unreachable!("a second one")).await).contains("does not end"));
        drop(finish);
        // It is seen as soon as it has ended.
        while guard.running.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        guard.nft(|| Ok(())).await.expect("another one");
    }
}
