//! Which counters count something that was thrown away.

/// Counters of drops whose names do not start with `drop_`, by the plane that counts them.
const DROPS: [(&str, &[&str]); 5] = [
    (
        "mesh",
        &[
            "garbage",
            "other_version",
            "truncated",
            "misplaced",
            "replayed",
            "forged",
            "expired",
            "unknown_session",
            "reflected",
            "not_ours",
            "relay_dropped",
            "relay_forbidden",
            "relay_over_budget",
            "no_route",
            "handshakes_refused",
            "handshakes_malformed",
            "stale_stamps",
            "handshakes_limited",
            "rejects_ignored",
            "records_ignored",
            "app_messages_dropped",
            "app_messages_over_budget",
            "app_messages_unheard",
            "app_records_dropped",
            "revocations_refused",
            "gossip_refused",
            "probes_ignored",
            "fastdp_strange_beats",
        ],
    ),
    (
        "gossip",
        &[
            "message_malformed",
            "message_unknown",
            "message_stranger",
            "record_malformed",
            "record_forged",
            "record_clash",
            "record_over_pace",
            "answers_over_pace",
            "record_refused_full",
            "own_not_told",
        ],
    ),
    (
        "udp",
        &[
            "send_again",
            "send_nobufs",
            "send_eperm",
            "send_unreachable",
            "send_msgsize",
            "send_refused",
            "send_other",
            "recv_truncated",
            "kernel_drops",
        ],
    ),
    ("tcp", &["queue_full", "not_handed_on"]),
    ("packet_thread", &["tap_write_refused", "tap_missing", "tap_read_failed", "mesh_busy"]),
];

/// True for a counter of frames, datagrams or records that were dropped.
pub(super) fn is_drop(plane: &str, name: &str) -> bool {
    name.starts_with("drop_") || DROPS.iter().any(|(of, names)| *of == plane && names.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Reading;
    use crate::dns::DnsCounters;
    use crate::forward::PacketCounters;
    use crate::forward::mac_table::MacCounters;
    use crate::io::packet_thread::PacketThreadCounters;
    use crate::io::tcp::TcpCounters;
    use crate::io::udp::UdpCounters;
    use crate::mesh::MeshCounters;
    use crate::mesh::gossip::GossipCounters;
    use crate::names::NamesCounters;

    /// Counters of what is no drop.
    const EVENTS: [(&str, &[&str]); 9] = [
        (
            "forward",
            &[
                "flooded_unknown_unicast",
                "acks_superseded",
                "flooded_multicast",
                "multicast_to_members",
                "multicast_kept_home",
                "memberships_over_rate",
                "arp_answered",
                "arp_flooded_unknown",
                "arp_flooded_here",
                "arp_flooded_disputed",
                "arp_flooded_unreachable",
                "arp_flooded_no_question",
                "sightings_over_rate",
                "marked_congestion",
                "fragmented",
                "relayed",
            ],
        ),
        (
            "mac",
            &[
                "macs_learned",
                "mac_moves_local_to_remote",
                "mac_moves_remote_to_local",
                "mac_moves_remote",
                "mac_moves_held",
                "mac_sightings_refused",
                "mac_sightings_frozen",
                "macs_evicted",
                "macs_not_learned",
                "macs_over_rate",
            ],
        ),
        (
            "mesh",
            &[
                "datagrams_in",
                "datagrams_out",
                "relayed",
                "handshakes_started",
                "handshakes_completed",
                "handshakes_timed_out",
                "handshakes_without_way",
                "retries_sent",
                "rekeys",
                "links_up",
                "links_down",
                "paths_dead",
                "paths_dead_after_ms",
                "paths_lost_with_interface",
                "paths_doubted",
                "rebuffs_heeded",
                "rebuffs_ignored",
                "path_changes",
                "gossip_bytes_out",
                "gossip_bytes_in",
                "addresses_moved",
                "mac_moves",
                "macs_frozen",
                "bindings_contradicted",
                "bindings_over_limit",
                "groups_told",
                "probes_heard",
                "loops_found",
                "fastdp_beats",
                "fastdp_taken_up",
                "fastdp_fell_back",
            ],
        ),
        (
            "gossip",
            &[
                "record_duplicate",
                "record_stale",
                "record_accepted",
                "agreement_in_step",
                "agreement_differs",
                "agreement_started",
                "router_forgotten",
            ],
        ),
        ("udp", &["send_calls", "receive_calls", "gso_given_up", "recv_failed"]),
        (
            "tcp",
            &[
                "accepted",
                "dialled",
                "joined",
                "closed",
                "bytes_in",
                "bytes_out",
                "datagrams_in",
                "datagrams_out",
                "over_limit",
                "strangers",
                "silent",
                "unproven",
                "malformed",
                "failed",
            ],
        ),
        ("packet_thread", &["tap_reads", "tap_writes", "polls", "tap_super_refused", "lanes_joined"]),
        ("dns", &["queries", "answered", "unknown", "truncated", "refused", "forwarded", "forward_failed", "upstream_failures"]),
        ("names", &["refused_full"]),
    ];

    fn planes() -> [(&'static str, Vec<Reading>); 9] {
        [
            ("forward", PacketCounters::default().read()),
            ("mac", MacCounters::default().read()),
            ("mesh", MeshCounters::default().read()),
            ("gossip", GossipCounters::default().read()),
            ("udp", UdpCounters::default().read()),
            ("tcp", TcpCounters::default().read()),
            ("packet_thread", PacketThreadCounters::default().read()),
            ("dns", DnsCounters::default().read()),
            ("names", NamesCounters::default().read()),
        ]
    }

    #[test]
    fn every_counter_is_either_a_drop_or_an_event() {
        for (plane, counters) in planes() {
            for counter in counters {
                let event = EVENTS.iter().any(|(of, names)| *of == plane && names.contains(&counter.name));
                let drop = is_drop(plane, counter.name);
                assert!(drop != event, "say in this file whether {plane}.{} counts drops: {}", counter.name, counter.help);
            }
        }
    }

    #[test]
    fn the_tables_name_counters_that_exist() {
        for (plane, names) in DROPS.iter().chain(&EVENTS) {
            let counters = planes().into_iter().find(|(of, _)| of == plane).map(|(_, counters)| counters).expect("a plane");
            for name in *names {
                assert!(counters.iter().any(|counter| counter.name == *name), "{plane} counts no {name}");
            }
        }
    }
}
