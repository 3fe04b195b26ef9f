//! Threads that wait for work, all through a simulation: windows are short, and to start threads for each would cost more than many of them hold.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use crossbeam::channel::{Receiver, Sender, unbounded};

/// Pieces of work that a thread takes at once.
const AT_ONCE: usize = 4;

/// Threads that do one kind of work. They end with it.
pub(super) struct Crew<J, D> {
    jobs: Sender<Vec<J>>,
    waiting: Receiver<Vec<J>>,
    done: Receiver<thread::Result<Vec<D>>>,
    work: fn(J) -> D,
}

impl<J: Send + 'static, D: Send + 'static> Crew<J, D> {
    /// So many threads, beside the one that asks.
    pub(super) fn new(others: usize, work: fn(J) -> D) -> Crew<J, D> {
        let (jobs, waiting) = unbounded::<Vec<J>>();
        let (tell, done) = unbounded();
        for _ in 0..others {
            let (waiting, tell) = (waiting.clone(), tell.clone());
            thread::spawn(move || {
                for some in waiting {
                    // What goes wrong is told where it was asked for.
                    let result = catch_unwind(AssertUnwindSafe(|| some.into_iter().map(work).collect()));
                    if tell.send(result).is_err() {
                        return;
                    }
                }
            });
        }
        Crew { jobs, waiting, done, work }
    }

    /// What comes of all of these, in any order.
    pub(super) fn run(&self, jobs: impl Iterator<Item = J>) -> Vec<D> {
        let (mut all, mut pieces) = (Vec::new(), 0);
        let mut jobs = jobs.peekable();
        while jobs.peek().is_some() {
            pieces += 1;
            self.jobs.send(jobs.by_ref().take(AT_ONCE).collect()).expect("this end of the channel is held, too");
        }
        while let Ok(some) = self.waiting.try_recv() {
            pieces -= 1;
            all.extend(some.into_iter().map(self.work));
        }
        for _ in 0..pieces {
            let done = self.done.recv().expect("a thread tells of every piece that it took");
            all.extend(done.unwrap_or_else(|panic| resume_unwind(panic)));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_done_once_and_a_panic_reaches_whoever_asked() {
        for others in [0, 1, 5] {
            let crew = Crew::new(others, |n: usize| if n == 1000 { panic!("too much") } else { 2 * n });
            for count in [0, 1, 3, 4, 5, 999] {
                let mut done = crew.run(0..count);
                done.sort_unstable();
                assert!(done.into_iter().eq((0..count).map(|n| 2 * n)));
            }
            assert!(catch_unwind(AssertUnwindSafe(|| crew.run(998..1003))).is_err());
        }
    }
}
