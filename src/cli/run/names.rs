//! Look-ups of the hosts this router was told to link with.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::mesh::command::Target;

/// Look-ups at once. The C library may keep one for half a minute where no name server answers.
pub const AT_ONCE: usize = 2;

/// What the resolver answers with: addresses, or why there are none.
pub type Found = Result<Vec<SocketAddr>, String>;

/// Looks names up beside the loop: a few at once, and none that is being looked up already.
#[derive(Clone)]
pub struct Names {
    slots: Arc<Semaphore>,
    under_way: Arc<Mutex<Vec<Target>>>,
}

impl Names {
    /// Nothing is being looked up.
    pub fn new() -> Names {
        Names { slots: Arc::new(Semaphore::new(AT_ONCE)), under_way: Arc::default() }
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
        {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            if under_way.contains(&target) {
                return;
            }
            under_way.push(target.clone());
        }
        let names = self.clone();
        tokio::spawn(async move {
            // The semaphore is never closed.
            let _slot = names.slots.acquire().await;
            let found = resolve(target.host.clone(), port).await.map_err(|error| format!("cannot resolve {}: {error}", target.host));
            names.under_way.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != target);
            done(target, found);
        });
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
