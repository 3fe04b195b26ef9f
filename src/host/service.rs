//! The systemd unit, printed by `weave-router systemd-unit`.

use std::fmt::Write;

/// The unit that runs `binary launch` with `arguments`. Options go into `/etc/default/weave-router`, as `WEAVE_` variables.
pub fn systemd_unit(binary: &str, arguments: &[String]) -> String {
    let mut command = quoted(binary);
    for word in std::iter::once("launch").chain(arguments.iter().map(String::as_str)) {
        // Writing to a string cannot fail.
        let _ = write!(command, " {}", quoted(word));
    }
    format!("{HEAD}ExecStart={command}\n{TAIL}")
}

const HEAD: &str = "\
[Unit]
Description=weave-router: containers on many hosts on one encrypted Ethernet
Wants=network-online.target
After=network-online.target
Before=docker.service

[Service]
Type=simple
EnvironmentFile=-/etc/default/weave-router
";

/// The router needs its TAP device, /run to write in (its socket, the lock of iptables), and capabilities: NET_ADMIN and NET_RAW for the bridge
/// and its frames, NET_BIND_SERVICE for the name server's port 53, SYS_ADMIN to enter the network namespace of a container, and SYS_PTRACE to
/// open `/proc/PID/ns/net` of another user's process. Of namespaces it enters those of networks and no others.
const TAIL: &str = "\
Restart=on-failure
RestartSec=1
LimitNOFILE=65536
StateDirectory=weave-router
StateDirectoryMode=0700
RuntimeDirectory=weave-router
RuntimeDirectoryMode=0755
AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_SYS_ADMIN CAP_SYS_PTRACE
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_SYS_ADMIN CAP_SYS_PTRACE
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=yes
PrivateTmp=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
RestrictNamespaces=net
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077

[Install]
WantedBy=multi-user.target
";

/// One word of a command line as systemd reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.,:=@+[]".contains(c);
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$").replace('\n', "\\n");
    if !word.is_empty() && word.chars().all(plain) { escaped } else { format!("\"{escaped}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_systemd() {
        let unit = systemd_unit("/usr/bin/weave-router", &["--peer".into(), "[fd00::1]:6783".into(), "a b%$\"".into()]);
        assert!(unit.contains("ExecStart=/usr/bin/weave-router launch --peer [fd00::1]:6783 \"a b%%$$\\\"\"\n"), "{unit}");
        assert!(unit.contains("\nEnvironmentFile=-/etc/default/weave-router\n"), "it can be configured without an edit: {unit}");
        assert!(!unit.contains("man:"), "there is no such page");
        assert!(unit.starts_with("[Unit]\n") && unit.ends_with("WantedBy=multi-user.target\n"));
        for line in unit.lines().filter(|l| !l.is_empty()) {
            assert!(line.starts_with('[') || line.split_once('=').is_some_and(|(k, v)| !k.is_empty() && !v.is_empty()), "{line}");
        }
    }
}
