//! What the demo needs of the machine, asked before anything is built.

use std::fs::{self, OpenOptions};
use std::io;

/// Capabilities by their number, as the kernel counts them.
const CAPABILITIES: [(u32, &str); 4] = [(1, "CAP_DAC_OVERRIDE"), (12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (21, "CAP_SYS_ADMIN")];

/// The device that makes TAPs.
const TUN: &str = "/dev/net/tun";

/// What is missing, in one sentence; `None` where the demo can start.
pub fn missing() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    privilege(&status).or_else(|| device(OpenOptions::new().read(true).write(true).open(TUN).map(drop)))
}

fn privilege(status: &str) -> Option<String> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
    let effective = u64::from_str_radix(field("CapEff:").trim(), 16).unwrap_or(0);
    let lacking: Vec<&str> = CAPABILITIES.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| *name).collect();
    if lacking.is_empty() {
        return None;
    }
    // The second number is the effective user.
    let root = field("Uid:").split_whitespace().nth(1) == Some("0");
    Some(match root {
        false => {
            "the demo makes network namespaces, bridges and TAPs, and needs root for that: start it as `sudo weave-router demo`".into()
        }
        true => format!(
            "the demo makes network namespaces, bridges and TAPs, and root here lacks {}: in a container, start it with --privileged",
            lacking.join(", ")
        ),
    })
}

fn device(opened: io::Result<()>) -> Option<String> {
    let error = opened.err()?;
    Some(match error.kind() {
        io::ErrorKind::NotFound => format!(
            "the routers of the demo need {TUN}, which is not there: load it with `modprobe tun`; in a container, start that with --device {TUN}"
        ),
        _ => format!(
            "the routers of the demo need {TUN}, which cannot be opened ({error}): load it with `modprobe tun`; in a container, start that with --device {TUN}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(privilege("Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"), None);
        assert!(privilege("Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n").is_some_and(|text| text.contains("sudo")));
        let docker = privilege("Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n").expect("a plain container cannot run it");
        assert!(docker.contains("CAP_NET_ADMIN, CAP_SYS_ADMIN") && !docker.contains("CAP_NET_RAW"), "{docker}");
        assert_eq!(device(Ok(())), None);
        assert!(device(Err(io::ErrorKind::NotFound.into())).is_some_and(|text| text.contains("modprobe")));
        assert!(device(Err(io::ErrorKind::PermissionDenied.into())).is_some_and(|text| text.contains("permission denied")));
    }
}
