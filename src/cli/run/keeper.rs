//! Looks after the exception in other programs' firewalls, beside the loop.

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::{Instant, timeout_at};

use super::aside::aside;
use super::complain;
use crate::host::firewall::Firewall;

/// The keeper: it is at rest, or a check is under way on a thread of its own.
pub struct Keeper {
    bridge: String,
    check: fn(&mut Firewall),
    at_rest: Option<Firewall>,
    under_way: Option<oneshot::Receiver<Firewall>>,
}

impl Keeper {
    /// A keeper for this bridge; nothing is done yet.
    pub fn new(bridge: &str) -> Keeper {
        Keeper { bridge: bridge.into(), check, at_rest: None, under_way: None }
    }

    /// Starts a check, unless the last one still goes on.
    pub fn check(&mut self) {
        if let Some(under_way) = &mut self.under_way {
            match under_way.try_recv() {
                Ok(firewall) => self.at_rest = Some(firewall),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Closed) => tracing::error!("the check of the firewall failed; a new one starts"),
            }
        }
        let mut firewall = self.at_rest.take().unwrap_or_else(|| Firewall::new(&self.bridge));
        let check = self.check;
        self.under_way = Some(aside("firewall", move || {
            check(&mut firewall);
            firewall
        }));
    }

    /// Takes the exception out again. At the deadline it gives up and says so: other programs may hold their tables for seconds.
    pub async fn close(&mut self, deadline: Instant) {
        let late = || {
            let why = "the programs of the firewall do not answer in time";
            tracing::warn!(
                "the exception for bridge {} may still be in the firewall: {why}; the next stop of a router removes it",
                self.bridge
            );
        };
        let mut firewall = match (self.under_way.take(), self.at_rest.take()) {
            (Some(under_way), _) => match timeout_at(deadline, under_way).await {
                Ok(checked) => checked.unwrap_or_else(|_| Firewall::new(&self.bridge)),
                Err(_) => return late(),
            },
            (None, at_rest) => at_rest.unwrap_or_else(|| Firewall::new(&self.bridge)),
        };
        match timeout_at(deadline, aside("firewall", move || firewall.remove())).await {
            Ok(Ok(failures)) => failures.iter().for_each(|error| complain("the firewall exception may still be there", error)),
            Ok(Err(_)) | Err(_) => late(),
        }
    }
}

fn check(firewall: &mut Firewall) {
    let checked = firewall.ensure();
    for rule in checked.inserted {
        tracing::info!("a firewall on this host drops bridged traffic: put an exception for the bridge into {rule}");
    }
    checked.warnings.iter().for_each(|sentence| tracing::warn!("{sentence}"));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_check_that_panics_is_not_the_last() {
        static CHECKS: AtomicU32 = AtomicU32::new(0);
        let panics_once =
            |_: &mut Firewall| assert!(CHECKS.fetch_add(1, Ordering::SeqCst) > 0, "the first check fails, as this test wants");
        let mut keeper = Keeper { check: panics_once, ..Keeper::new("weave") };
        for _ in 0..500 {
            keeper.check();
            if CHECKS.load(Ordering::SeqCst) > 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("there was no second check");
    }

    #[tokio::test]
    async fn a_check_that_hangs_does_not_hold_up_the_end() {
        let hangs = |_: &mut Firewall| crate::host::lab::clock::pause(Duration::from_secs(3));
        let mut keeper = Keeper { check: hangs, ..Keeper::new("weave") };
        keeper.check();
        let started = crate::host::lab::clock::Stopwatch::start();
        keeper.close(Instant::now() + Duration::from_millis(50)).await;
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}
