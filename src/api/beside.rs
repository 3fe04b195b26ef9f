//! Long pages are made on threads of their own: a table of two hundred thousand names must not hold up the loop that serves everything else.

use tokio::sync::{Semaphore, oneshot};

use super::state::Refusal;

/// Pages that are made at once; more wait. Each holds all of its rows in memory.
const AT_ONCE: usize = 2;

static SLOTS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Runs `work` beside the loop. It is done to its end also where nobody waits for it any more.
pub async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let failed = |why: &str| Refusal(format!("the answer cannot be written: {why}; try again, and look into the router's log"));
    let slot = SLOTS.acquire().await.map_err(|error| failed(&error.to_string()))?;
    let (done, answer) = oneshot::channel();
    let make = move || {
        drop(done.send(work()));
        drop(slot);
    };
    std::thread::Builder::new().name("page".into()).spawn(make).map_err(|error| failed(&format!("no thread can be started: {error}")))?;
    answer.await.map_err(|_| failed("its thread failed"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use super::*;

    #[tokio::test]
    async fn the_loop_goes_on_while_pages_are_made_and_few_are_made_at_once() {
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let begun = Arc::new(AtomicUsize::new(0));
        let pages: Vec<_> = (0..2 * AT_ONCE)
            .map(|n| {
                let (held, begun) = (Arc::clone(&held), Arc::clone(&begun));
                tokio::spawn(beside(move || {
                    begun.fetch_add(1, Ordering::SeqCst);
                    // It blocks its thread until the loop, which must be free for that, lets it go.
                    let released = held.lock().expect("nobody panicked").recv();
                    (n, released.is_ok())
                }))
            })
            .collect();
        while begun.load(Ordering::SeqCst) < AT_ONCE {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(begun.load(Ordering::SeqCst), AT_ONCE);
        (0..2 * AT_ONCE).for_each(|_| release.send(()).expect("they wait"));
        for (n, page) in pages.into_iter().enumerate() {
            assert_eq!(page.await.expect("no panic"), Ok((n, true)));
        }
        let failed = beside(|| -> u8 { panic!("on purpose") }).await;
        assert!(failed.is_err_and(|refusal| refusal.0.contains("its thread failed")));
    }
}
