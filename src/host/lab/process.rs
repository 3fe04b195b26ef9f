//! A program in a namespace.

use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clock::{Stopwatch, pause};
use super::{HostError, in_namespace};

/// A program that runs in a namespace and is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
}

impl Process {
    /// Starts a program in a namespace.
    pub fn spawn(namespace: &str, command: &mut Command) -> Result<Process, HostError> {
        let what = format!("{} in {namespace}", command.get_program().to_string_lossy());
        let child = in_namespace(namespace, || command.spawn())?.map_err(|e| HostError::io(format!("start {what}"), e))?;
        Ok(Process { child, what })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child process, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end (SIGTERM) and waits; kills it when it does not within the time given. `None` where it had to be killed.
    pub fn stop(&mut self, patience: Duration) -> Result<Option<ExitStatus>, HostError> {
        self.signal(Signal::SIGTERM)?;
        let clock = Stopwatch::start();
        while clock.elapsed() < patience {
            if let Some(status) = self.ended() {
                return Ok(Some(status));
            }
            pause(Duration::from_millis(10));
        }
        self.kill()?;
        Ok(None)
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(&mut self) -> Result<(), HostError> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(|_| ()).map_err(|e| HostError::io(format!("kill {}", self.what), e))
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<(), HostError> {
        // Once it has been waited for, its id may belong to another process.
        if self.ended().is_some() {
            return Ok(());
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        kill(pid, signal).map_err(|e| HostError::io(format!("send {signal} to {}", self.what), e.into()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none()
            && let Err(error) = self.kill()
        {
            tracing::warn!("{error}");
        }
    }
}
