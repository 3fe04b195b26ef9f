//! Kernel settings of an interface, in the calling thread's namespace. Where /proc/sys is read-only they stay as they are: then an address
//! that moves is noticed later, and nothing else is lost.

/// How a station looks after its neighbours: an address that moved to another MAC is noticed within seconds without any announcement. The
/// values are Weave Net's.
const NEIGHBOURS: [(&str, &str); 3] = [("base_reachable_time_ms", "5000"), ("delay_first_probe_time", "2"), ("ucast_solicit", "1")];

/// Sets the timers of neighbours, for IPv4 and IPv6.
pub fn neighbours(interface: &str) {
    for family in ["ipv4", "ipv6"] {
        for (knob, value) in NEIGHBOURS {
            write(&format!("{family}/neigh/{interface}/{knob}"), value);
        }
    }
}

/// An interface inside a container: it announces itself when it comes up, follows no router that it was not told, keeps the other addresses of
/// a subnet when one is removed, and speaks IPv6 where it is to have such an address (Docker switches it off by default).
pub fn station(interface: &str, v6: bool) {
    neighbours(interface);
    write(&format!("ipv4/conf/{interface}/arp_notify"), "1");
    write(&format!("ipv4/conf/{interface}/promote_secondaries"), "1");
    write(&format!("ipv6/conf/{interface}/ndisc_notify"), "1");
    write(&format!("ipv6/conf/{interface}/accept_ra"), "0");
    if v6 {
        write(&format!("ipv6/conf/{interface}/disable_ipv6"), "0");
    }
}

/// A bridge with an address of the host's own.
pub fn exposed(bridge: &str, v6: bool) {
    neighbours(bridge);
    write(&format!("ipv4/conf/{bridge}/promote_secondaries"), "1");
    if v6 {
        write(&format!("ipv6/conf/{bridge}/disable_ipv6"), "0");
    }
}

fn write(knob: &str, value: &str) {
    let path = format!("/proc/sys/net/{knob}");
    if let Err(e) = std::fs::write(&path, value) {
        tracing::debug!("could not write {value} to {path}: {e}");
    }
}
