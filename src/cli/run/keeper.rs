//! Looks after the exception in other programs' firewalls, beside the loop.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::aside::aside;
use super::complain;
use crate::host::firewall::{Firewall, MARK};
use crate::host::vanished::{TableWatch, torn};

/// Longest that somebody waits for the programs of the firewall.
const PATIENCE: Duration = Duration::from_secs(5);

/// Least time between checks for the sake of rules that are taken away: some program may do nothing else.
const PAUSE: Duration = Duration::from_secs(1);

/// The addresses that the host is exposed as; `None` until that is known.
type Exposed = Option<Vec<IpNet>>;

/// Tells the keeper what the host is exposed as.
#[derive(Clone, Debug)]
pub struct Doorbell {
    wanted: Arc<watch::Sender<Exposed>>,
    done: watch::Receiver<Exposed>,
}

impl Doorbell {
    /// Has the firewall let pass what the host routes as these addresses.
    pub fn tell(&self, exposed: Vec<IpNet>) {
        let exposed = Some(exposed);
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != exposed;
            *wanted = exposed;
            changed
        });
    }

    /// The same, and waits for it; answers with false where the firewall's programs take too long.
    pub async fn ring(&self, exposed: Vec<IpNet>) -> bool {
        self.tell(exposed.clone());
        let mut done = self.done.clone();
        // Where there is no keeper any more nobody is to pass.
        timeout(PATIENCE, done.wait_for(|done| done.as_ref() == Some(&exposed))).await.is_ok()
    }
}

/// The keeper: it is at rest, or a check is under way on a thread of its own.
pub struct Keeper {
    bridge: String,
    check: fn(&mut Firewall, Option<&[IpNet]>),
    at_rest: Option<Firewall>,
    under_way: Option<oneshot::Receiver<Firewall>>,
    wanted: watch::Receiver<Exposed>,
    done: Arc<watch::Sender<Exposed>>,
    rules: Option<TableWatch>,
    /// When the last check began, and when the next is to begin.
    began: Instant,
    due: Option<Instant>,
}

impl Keeper {
    /// A keeper for this bridge, with what it is told by; nothing is done yet.
    pub fn new(bridge: &str) -> (Keeper, Doorbell) {
        let (ring, wanted) = watch::channel(None);
        let (done, heard) = watch::channel(None);
        let (at_rest, under_way, done) = (None, None, Arc::new(done));
        let rules = TableWatch::of_rules(MARK)
            .inspect_err(|error| complain("the exception in the firewall is looked at every 10 s only", error))
            .ok();
        let keeper = Keeper { bridge: bridge.into(), check, at_rest, under_way, wanted, done, rules, began: Instant::now(), due: None };
        (keeper, Doorbell { wanted: Arc::new(ring), done: heard })
    }

    /// Waits until somebody has something else pass, or took rules of ours away, and no check is under way. Cancel-safe.
    pub async fn called(&mut self) {
        while self.due.is_none_or(|at| at > Instant::now()) {
            let (due, wanted) = (self.due, &mut self.wanted);
            let asked = async {
                if wanted.changed().await.is_err() {
                    std::future::pending().await
                }
            };
            let late = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = asked => self.due = Some(Instant::now()),
                () = late => {}
                () = torn(&mut self.rules) => self.due = Some(due.unwrap_or(self.began + PAUSE)),
            }
        }
        if let Some(under_way) = &mut self.under_way {
            let ended = under_way.await;
            self.under_way = None;
            self.rest(ended.ok());
        }
    }

    /// Starts a check, unless the last one still goes on.
    pub fn check(&mut self) {
        if let Some(under_way) = &mut self.under_way {
            match under_way.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return,
                ended => self.rest(ended.ok()),
            }
        }
        (self.began, self.due) = (Instant::now(), None);
        let mut firewall = self.at_rest.take().unwrap_or_else(|| Firewall::new(&self.bridge));
        let (check, done) = (self.check, Arc::clone(&self.done));
        let exposed = self.wanted.borrow_and_update().clone();
        self.under_way = Some(aside("firewall", move || {
            check(&mut firewall, exposed.as_deref());
            done.send_replace(exposed);
            firewall
        }));
    }

    fn rest(&mut self, firewall: Option<Firewall>) {
        if firewall.is_none() {
            tracing::error!("the check of the firewall failed; a new one starts");
        }
        self.at_rest = firewall;
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

fn check(firewall: &mut Firewall, exposed: Option<&[IpNet]>) {
    let checked = firewall.ensure(exposed);
    for rule in checked.inserted {
        tracing::info!("a firewall on this host drops what it forwards: put an exception for the bridge into {rule}");
    }
    checked.warnings.iter().for_each(|sentence| tracing::warn!("{sentence}"));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn keeper(check: fn(&mut Firewall, Option<&[IpNet]>)) -> (Keeper, Doorbell) {
        let (keeper, bell) = Keeper::new("weave");
        (Keeper { check, ..keeper }, bell)
    }

    #[tokio::test]
    async fn a_check_that_panics_is_not_the_last() {
        static CHECKS: AtomicU32 = AtomicU32::new(0);
        let (mut keeper, _bell) =
            keeper(|_, _| assert!(CHECKS.fetch_add(1, Ordering::SeqCst) > 0, "the first check fails, as this test wants"));
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
        let (mut keeper, _bell) = keeper(|_, _| crate::host::lab::clock::pause(Duration::from_secs(3)));
        keeper.check();
        let started = crate::host::lab::clock::Stopwatch::start();
        keeper.close(Instant::now() + Duration::from_millis(50)).await;
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn whoever_rings_is_answered_by_a_check_that_knows_what_he_wants() {
        static SEEN: AtomicU32 = AtomicU32::new(0);
        let (mut keeper, bell) = keeper(|_, exposed| {
            crate::host::lab::clock::pause(Duration::from_millis(50));
            SEEN.store(exposed.map_or(99, |list| list.len() as u32), Ordering::SeqCst);
        });
        // One that does not know yet is under way.
        keeper.check();
        let address: IpNet = "10.2.1.101/24".parse().expect("an address");
        let ring = tokio::spawn(async move { bell.ring(vec![address]).await.then(|| SEEN.load(Ordering::SeqCst)) });
        while !ring.is_finished() {
            tokio::select! {
                () = keeper.called() => keeper.check(),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
        assert_eq!(ring.await.expect("no panic"), Some(1));
    }
}
