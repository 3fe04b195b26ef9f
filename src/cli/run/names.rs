//! Look-ups of the hosts this router was told to link with.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::mesh::command::Target;

/// Look-ups at once. The C library may keep one for half a minute where no name server answers.
const AT_ONCE: usize = 2;
/// The same with those that were begun while this host had other addresses, and still hang: each keeps a thread.
pub const MOST_AT_ONCE: usize = 4 * AT_ONCE;

/// What the resolver answers with: addresses, or why there are none.
pub type Found = Result<Vec<SocketAddr>, String>;

/// Looks names up beside the loop: a few at once, and none that is being looked up already.
#[derive(Clone)]
pub struct Names {
    state: Arc<Mutex<State>>,
}

struct State {
    /// Counts how often everything began anew.
    round: u64,
    /// Those of this round.
    slots: Arc<Semaphore>,
    /// What is looked up, and since which round.
    under_way: Vec<(Target, u64)>,
    /// Look-ups that the C library has, of whatever round.
    running: usize,
}

impl Names {
    /// Nothing is being looked up.
    pub fn new() -> Names {
        let state = State { round: 0, slots: Arc::new(Semaphore::new(AT_ONCE)), under_way: Vec::new(), running: 0 };
        Names { state: Arc::new(Mutex::new(state)) }
    }

    /// This host has other addresses: what was asked without a network may hang for long. Whoever asks for the same again is not told to wait for
    /// that, and nobody waits for its slot. Not where so many hang already that threads would run out.
    pub fn start_anew(&self) {
        let mut state = self.lock();
        if state.running + AT_ONCE <= MOST_AT_ONCE {
            state.round += 1;
            state.slots = Arc::new(Semaphore::new(AT_ONCE));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks `target` up and hands the answer on. Asked again meanwhile, it does nothing more.
    pub fn look_up(&self, target: Target, port: u16, done: impl FnOnce(Target, Found) + Send + 'static) {
        self.ask(target, port, |host, port| async move { Ok(tokio::net::lookup_host((host.as_str(), port)).await?.collect()) }, done);
    }

    fn ask<F>(
        &self,
        target: Target,
        port: u16,
        resolve: impl FnOnce(String, u16) -> F + Send + 'static,
        done: impl FnOnce(Target, Found) + Send + 'static,
    ) where
        F: Future<Output = std::io::Result<Vec<SocketAddr>>> + Send,
    {
        if let Ok(ip) = target.host.parse::<IpAddr>() {
            return done(target, Ok(vec![(ip, port).into()]));
        }
        let Some((slots, round)) = self.lock().enlist(&target) else { return };
        let names = self.clone();
        tokio::spawn(async move {
            // The semaphore is never closed.
            let _slot = slots.acquire().await;
            if !names.lock().begin(&target, round) {
                return;
            }
            let found = resolve(target.host.clone(), port).await.map_err(|error| format!("cannot resolve {}: {error}", target.host));
            let of_use = names.lock().end(&target, round);
            if of_use {
                done(target, found);
            }
        });
    }
}

impl State {
    /// Puts a look-up on the list, in place of one of an earlier round; `None` where it is there already.
    fn enlist(&mut self, target: &Target) -> Option<(Arc<Semaphore>, u64)> {
        let round = self.round;
        if self.is_wanted(target, round) {
            return None;
        }
        self.under_way.retain(|(other, _)| other != target);
        self.under_way.push((target.clone(), round));
        Some((Arc::clone(&self.slots), round))
    }

    /// False where another has taken its place, which is to be asked instead.
    fn is_wanted(&self, target: &Target, round: u64) -> bool {
        self.under_way.iter().any(|(other, since)| other == target && *since == round)
    }

    /// A look-up has its slot: whether it is still to be made.
    fn begin(&mut self, target: &Target, round: u64) -> bool {
        let wanted = self.is_wanted(target, round);
        self.running += usize::from(wanted);
        wanted
    }

    /// A look-up that was made is over: whether anybody waits for its answer.
    fn end(&mut self, target: &Target, round: u64) -> bool {
        self.running = self.running.saturating_sub(1);
        let wanted = self.is_wanted(target, round);
        if wanted {
            self.under_way.retain(|(other, _)| other != target);
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    fn target(host: &str) -> Target {
        host.parse().expect("a target")
    }

    #[tokio::test]
    async fn a_name_that_hangs_is_asked_once_and_holds_one_slot() {
        let names = Names::new();
        let (answers_in, mut answers) = mpsc::unbounded_channel();
        let (release, hold) = oneshot::channel::<()>();
        let (hang_in, mut hangs) = mpsc::unbounded_channel();
        let hanging = hang_in.clone();
        let tell = answers_in.clone();
        names.ask(
            target("slow"),
            1,
            move |_, _| async move {
                let _ = hanging.send("first");
                let _ = hold.await;
                Ok(Vec::new())
            },
            move |target, _| drop(tell.send(target.host)),
        );
        assert_eq!(hangs.recv().await, Some("first"));
        let tell = answers_in.clone();
        names.ask(
            target("slow"),
            1,
            move |_, _| async move {
                let _ = hang_in.send("second");
                Ok(Vec::new())
            },
            move |_, _| drop(tell.send("asked twice".into())),
        );
        for host in ["one", "two", "three"] {
            let tell = answers_in.clone();
            names.ask(target(host), 1, |_, _| async { Ok(Vec::new()) }, move |target, _| drop(tell.send(target.host)));
        }
        for host in ["one", "two", "three"] {
            assert_eq!(answers.recv().await.as_deref(), Some(host), "others are looked up meanwhile");
        }
        release.send(()).expect("it waits");
        assert_eq!(answers.recv().await.as_deref(), Some("slow"));
        assert!(hangs.try_recv().is_err(), "nobody asked a second time");
        let tell = answers_in.clone();
        names.ask(target("slow"), 1, |_, _| async { Ok(Vec::new()) }, move |_, _| drop(tell.send("again".into())));
        assert_eq!(answers.recv().await.as_deref(), Some("again"), "once answered it may be asked again");
    }

    #[tokio::test]
    async fn what_hangs_since_the_host_had_other_addresses_is_asked_anew_and_holds_up_nothing() {
        let names = Names::new();
        let (answers_in, mut answers) = mpsc::unbounded_channel();
        let (hang_in, mut hangs) = mpsc::unbounded_channel();
        let mut releases = Vec::new();
        // More networks than there may be look-ups that hang.
        for n in 0..MOST_AT_ONCE {
            for host in ["slow", "slower"] {
                let (hanging, tell) = (hang_in.clone(), answers_in.clone());
                let (release, hold) = oneshot::channel::<()>();
                releases.push(release);
                let hang = move |_, _| async move {
                    let _ = hanging.send(());
                    let _ = hold.await;
                    Ok(Vec::new())
                };
                names.ask(target(host), 1, hang, move |target, _| drop(tell.send((target.host, n))));
            }
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            names.start_anew();
        }
        let mut hanging = 0;
        while hangs.try_recv().is_ok() {
            hanging += 1;
        }
        assert_eq!(hanging, MOST_AT_ONCE);
        // The answers of former times come late, and nobody hears them.
        drop(releases);
        let last = MOST_AT_ONCE / AT_ONCE - 1;
        let mut heard = [answers.recv().await, answers.recv().await].map(Option::unwrap_or_default);
        heard.sort();
        assert_eq!(heard, [("slow".to_string(), last), ("slower".to_string(), last)]);
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(answers.try_recv().is_err());
        let tell = answers_in.clone();
        names.ask(target("slow"), 1, |_, _| async { Ok(Vec::new()) }, move |_, _| drop(tell.send(("again".into(), 0))));
        assert_eq!(answers.recv().await, Some(("again".to_string(), 0)));
    }

    #[tokio::test]
    async fn no_more_than_a_few_at_once() {
        let names = Names::new();
        let (asked_in, mut asked) = mpsc::unbounded_channel();
        for n in 0..5 {
            let asked = asked_in.clone();
            let hang = move |_, _| async move {
                let _ = asked.send(());
                std::future::pending().await
            };
            names.ask(target(&format!("host{n}")), 1, hang, |_, _| ());
        }
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        let mut count = 0;
        while asked.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, AT_ONCE);
    }

    #[tokio::test]
    async fn an_address_needs_no_look_up() {
        let (tell, answer) = oneshot::channel();
        Names::new().look_up(target("[fd00::1]:7000"), 7000, move |_, found| drop(tell.send(found)));
        assert_eq!(answer.await, Ok(Ok(vec!["[fd00::1]:7000".parse().expect("an address")])));
    }
}
