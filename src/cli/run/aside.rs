//! Work that blocks, on a thread of its own: a name look-up that hangs cannot hold up a stop.

use tokio::sync::oneshot;

/// Runs `work` beside the loop. The receiver fails where the work panicked, or where no thread could be started.
pub fn aside<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (done, answer) = oneshot::channel();
    let started = std::thread::Builder::new().name(name.into()).spawn(move || drop(done.send(work())));
    if let Err(error) = started {
        tracing::error!("cannot start the thread '{name}': {error}");
    }
    answer
}
