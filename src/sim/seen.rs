//! What a simulation has seen that must not be, and the hash of all that it has seen.

use std::hash::{BuildHasher, Hasher};

use crate::forward::fib::{NameHash, NameHasher};
use crate::time::Time;

use super::node::Router;
use super::world::RouterId;

/// Problems kept: one bug causes thousands.
const MOST: usize = 50;

/// Problems and trace.
pub struct Witness {
    problems: Vec<String>,
    trace: NameHasher,
}

impl Default for Witness {
    fn default() -> Witness {
        Witness { problems: Vec::new(), trace: NameHash(0).build_hasher() }
    }
}

impl Witness {
    /// Something that must not be.
    pub fn problem(&mut self, now: Time, router: RouterId, what: impl std::fmt::Display) {
        if self.problems.len() < MOST {
            self.problems.push(format!("{now:?} {router:?}: {what}"));
        }
    }

    /// Everything that must not be.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Adds an event to the trace.
    pub fn note(&mut self, now: Time, router: RouterId, kind: u32, bytes: &[u8]) {
        self.trace.write_u64(now.0);
        self.trace.write_u64((router.0 as u64) << 32 | u64::from(kind));
        self.trace.write(bytes);
    }

    /// The hash of all that was noted.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }
}

/// Counters that only a liar, a bug or a loop makes count.
pub fn impossible(router: &Router) -> Vec<(&'static str, u64)> {
    let packet = &router.counters;
    let mesh = router.mesh.counters();
    let gossip = router.mesh.gossip_counters();
    let all = [
        ("drop_bad_offload", &packet.drop_bad_offload),
        ("drop_bad_header", &packet.drop_bad_header),
        ("drop_short", &packet.drop_short),
        ("drop_lane", &packet.drop_lane),
        ("drop_forged", &packet.drop_forged),
        ("drop_bad_bundle", &packet.drop_bad_bundle),
        ("drop_bad_frame", &packet.drop_bad_frame),
        ("drop_bad_flood", &packet.drop_bad_flood),
        ("drop_flood_no_room", &packet.drop_flood_no_room),
        ("drop_flood_hops", &packet.drop_flood_hops),
        ("drop_relay_hops", &packet.drop_relay_hops),
        ("drop_relay_budget", &packet.drop_relay_budget),
        ("drop_outbox_full", &packet.drop_outbox_full),
        ("drop_key_exhausted", &packet.drop_key_exhausted),
        ("drop_punt", &packet.drop_punt),
        ("garbage", &mesh.garbage),
        ("other_version", &mesh.other_version),
        ("truncated", &mesh.truncated),
        ("misplaced", &mesh.misplaced),
        ("forged", &mesh.forged),
        ("relay_over_budget", &mesh.relay_over_budget),
        ("gossip_refused", &mesh.gossip_refused),
        ("message_malformed", &gossip.message_malformed),
        ("record_malformed", &gossip.record_malformed),
        ("record_forged", &gossip.record_forged),
        ("record_clash", &gossip.record_clash),
        ("record_refused_full", &gossip.record_refused_full),
    ];
    all.into_iter().map(|(name, counter)| (name, counter.get())).filter(|(_, count)| *count > 0).collect()
}
