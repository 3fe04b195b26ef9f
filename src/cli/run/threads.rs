//! How many packet threads there are to be.

use anyhow::bail;

use super::super::RunConfig;
use crate::host::{self, link};
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
    let tap = &config.tap;
    match link::by_name(&host::connect()?, tap).await?.and_then(|link| link.tun) {
        Some(tun) if !tun.multi_queue && config.threads.is_some() => bail!(
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
}
