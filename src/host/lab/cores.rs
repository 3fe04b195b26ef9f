//! Which core a host of the laboratory lives on, for measurements.
//!
//! Two hosts on one machine must not share a core: left to itself, the scheduler puts both ends of a kernel datapath on one, where a
//! stream never leaves the cache and an answer costs no wake-up, which no two hosts can do.

use std::num::NonZeroUsize;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::HostError;

/// Cores this process may use.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Keeps the calling thread, and the threads and programs it starts from now on, on one core.
pub fn stay_on(core: usize) -> Result<(), HostError> {
    let pin = || {
        let mut set = CpuSet::new();
        set.set(core)?;
        sched_setaffinity(Pid::from_raw(0), &set)
    };
    pin().map_err(|errno| HostError::io(format!("stay on core {core}"), errno.into()))
}

/// Runs a closure on a thread of its own that stays on `core`, where one is given. A panic in there goes on here.
pub fn on<T: Send>(core: Option<usize>, work: impl FnOnce() -> T + Send) -> Result<T, HostError> {
    let inside = || {
        if let Some(core) = core {
            stay_on(core)?;
        }
        Ok(work())
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
