//! How many packet threads there are to be.

use anyhow::bail;

use super::super::RunConfig;
use crate::host;
use crate::host::link::{self, Tun};
use crate::io::tap::TapError;

/// More threads than this are started only where asked for: the kernel's share of the work needs cores too.
const MOST_BY_DEFAULT: usize = 8;

/// As many as asked for, else as many as the cores are good for. A TAP that was made beforehand and takes only one queue is served by
/// one thread, unless more were asked for.
pub async fn choose(config: &RunConfig) -> anyhow::Result<usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = config.threads.map_or_else(|| by_cores(cores), usize::from);
    if wanted == 1 {
        return Ok(1);
    }
    let found = link::by_name(&host::connect()?, &config.tap).await?;
    served(wanted, config.threads.is_some(), &config.tap, found.and_then(|link| link.tun))
}

/// How many of the threads a TAP that is there already has queues for.
fn served(wanted: usize, asked_for: bool, tap: &str, found: Option<Tun>) -> anyhow::Result<usize> {
    match found {
        Some(tun) if !tun.multi_queue && asked_for => bail!(
            "--threads {wanted} needs a TAP with a queue for each, and {tap} was made for one: make it with `multi_queue`, delete it \
             (ip link del {tap}), or use --threads 1"
        ),
        Some(tun) if !tun.multi_queue => {
            tracing::warn!("TAP {tap} was made for one queue, so one packet thread serves it: make it with `multi_queue` for {wanted}");
            Ok(1)
        }
        Some(_) | None => Ok(wanted),
    }
}

/// An error where another process has a queue of the TAP: of a TAP with several queues the kernel would give us one more.
pub async fn is_free(handle: &rtnetlink::Handle, tap: &str) -> anyhow::Result<()> {
    match link::by_name(handle, tap).await?.and_then(|link| link.tun) {
        Some(tun) if tun.queues > 0 => Err(TapError::Busy(tap.to_string()).into()),
        Some(_) | None => Ok(()),
    }
}

/// One up to two cores, then half of them.
fn by_cores(cores: usize) -> usize {
    (cores / 2).clamp(1, MOST_BY_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_leaves_cores_to_the_kernel() {
        let defaults = [1, 2, 3, 4, 5, 8, 16, 64].map(by_cores);
        assert_eq!(defaults, [1, 1, 1, 2, 2, 4, 8, 8]);
    }

    #[test]
    fn a_tap_of_one_queue_is_served_by_one_thread_unless_more_are_asked_for() {
        let found = |multi_queue| Some(Tun { multi_queue, queues: 0 });
        for (asked_for, tap, threads) in [
            (false, None, Some(4)),
            (true, None, Some(4)),
            (false, found(true), Some(4)),
            (true, found(true), Some(4)),
            (false, found(false), Some(1)),
            (true, found(false), None),
        ] {
            assert_eq!(served(4, asked_for, "t0", tap).ok(), threads, "{asked_for} {tap:?}");
        }
        let sentence = served(4, true, "t0", found(false)).expect_err("refused").to_string();
        assert!(sentence.contains("t0") && sentence.contains("multi_queue") && sentence.contains("--threads 1"), "{sentence}");
    }
}
