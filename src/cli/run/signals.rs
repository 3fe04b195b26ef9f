//! The signals that ask the router to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, SIGINT, and SIGHUP: a terminal that is closed must not leave the firewall's rule, the bridge and the socket behind.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` where whoever started us (`nohup`) had it ignored, and so wants the router to outlive its terminal.
    hangup: Option<Signal>,
}

impl Signals {
    /// Installs the handlers. From here on these signals kill nobody.
    pub fn install() -> std::io::Result<Signals> {
        let ignored = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| hangup_is_ignored(&status));
        let hangup = if ignored { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())?, hangup })
    }

    /// Waits for one of them. Cancel-safe.
    pub async fn stop(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Reads the mask of ignored signals in `/proc/self/status`; bit 0 is SIGHUP's.
fn hangup_is_ignored(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim);
    mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_respected() {
        assert!(hangup_is_ignored("Name:\tx\nSigIgn:\t0000000000000001\nSigCgt:\t0000000000000000\n"));
        assert!(!hangup_is_ignored("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n"));
        assert!(!hangup_is_ignored(""));
    }
}
