//! Routers that speak X25519 only, as this one did before post-quantum keys: which handshake a peer gets.
//!
//! With `--classic-ok` a router of unknown age gets two hybrid first messages, then a classic one. Gossip tells of most what they can do.
//! What was lost or kept back on the way makes no session classic: a router says in its sealed payloads that it can do hybrid
//! handshakes, and two that can refuse anything else.

use super::config::Outbox;
use super::core::Mesh;
use super::handshakes::Attempt;
use super::targets::Failure;
use crate::crypto::handshake::HYBRID;
use crate::crypto::{Classic, Exchange, PublicIdentity};
use crate::time::Time;

impl Mesh {
    /// What the keys of a session with this router are to rest on: classic only where it says, or is known to say, that it can do no other.
    pub(super) fn exchange_with(&self, known: Option<&PublicIdentity>) -> Exchange {
        let can = |name| self.store.node(name).is_none_or(|node| node.features & HYBRID != 0);
        match self.local.classic {
            Classic::Refused => Exchange::Hybrid,
            Classic::Only => Exchange::Classic,
            Classic::Accepted if known.is_none_or(|peer| can(peer.name())) => Exchange::Hybrid,
            Classic::Accepted => Exchange::Classic,
        }
    }

    /// True where a router may turn out to speak X25519 only, and that will do.
    pub(super) fn may_fall_back(&self, known: Option<&PublicIdentity>) -> bool {
        self.local.classic == Classic::Accepted && known.is_none_or(|peer| self.store.node(peer.name()).is_none())
    }

    /// Goes on with a classic handshake in place of a hybrid one that got no answer, where one will do. Should the peer be able to do
    /// better after all, both ends refuse its end.
    pub(super) fn fall_back(&mut self, now: Time, index: u32, out: &mut Outbox) -> bool {
        let Some(attempt) = self.attempts.get(&index) else { return false };
        let hybrid = attempt.exchange == Exchange::Hybrid && attempt.pending.is_none();
        if !hybrid || !self.may_fall_back(attempt.known.as_ref()) {
            return false;
        }
        let Some(Attempt { way, goal, known, others, .. }) = self.attempts.remove(&index) else { return false };
        let pursued = goal.clone();
        if let (false, Some(goal)) = (self.begin_trying(now, (way, goal, known), (others, Exchange::Classic), out), pursued) {
            self.targets.failed(now, &goal, Failure::Silent, "no other handshake can be started", &mut self.rng);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mesh::command::{Command, Target};
    use crate::mesh::fuzz::{home, router_with};
    use crate::wire::HEADER_LEN;
    use crate::wire::handshake::Handshake;

    /// Two routers that would take classic ones, with somebody between them who decides about each handshake datagram of the first.
    fn meet(second: Classic, passes: impl Fn(&Handshake<'_>) -> bool) -> (Mesh, Mesh) {
        let mut now = Time(1_000_000_000);
        let mut ours = router_with(1, |config| config.classic = Classic::Accepted);
        let mut theirs = router_with(2, |config| config.classic = second);
        let (mut out, mut back) = (Outbox::default(), Outbox::default());
        ours.handle_timeout(now, &mut out);
        theirs.handle_timeout(now, &mut back);
        let target = Target { tcp: false, host: "router2".into(), port: None };
        ours.handle_command(now, Command::Connect(vec![target.clone()]), &mut out);
        ours.handle_command(now, Command::Resolved(target, Ok(vec![home(2)])), &mut out);
        for _ in 0..100 {
            for (_, mut bytes) in out.datagrams.drain(..) {
                let handshake = bytes[0] & 0x0f == 0;
                if !handshake || Handshake::parse(&bytes[HEADER_LEN..]).is_some_and(|shake| passes(&shake)) {
                    theirs.handle_datagram(now, home(1), &mut bytes, &mut back);
                }
            }
            back.datagrams.drain(..).for_each(|(_, mut bytes)| ours.handle_datagram(now, home(2), &mut bytes, &mut out));
            now = now + Duration::from_millis(100);
            ours.handle_timeout(now, &mut out);
            theirs.handle_timeout(now, &mut back);
        }
        (ours, theirs)
    }

    fn exchanges(mesh: &Mesh) -> Vec<Exchange> {
        mesh.keyrings.values().flat_map(|keys| keys.all()).map(|session| session.exchange()).collect()
    }

    #[test]
    fn whoever_keeps_hybrid_messages_back_gets_no_session_at_all() {
        let (ours, theirs) = meet(Classic::Accepted, |shake| shake.fragments == 1);
        assert!(ours.counters.handshakes_started.get() >= 2, "a classic handshake was tried");
        assert!(exchanges(&ours).is_empty() && exchanges(&theirs).is_empty());
        let (ours, theirs) = meet(Classic::Accepted, |_| true);
        assert_eq!((exchanges(&ours), exchanges(&theirs)), (vec![Exchange::Hybrid], vec![Exchange::Hybrid]));
    }

    #[test]
    fn a_router_of_before_which_does_not_know_parts_is_reached_all_the_same() {
        let (ours, theirs) = meet(Classic::Only, |shake| shake.fragments == 1);
        assert_eq!((exchanges(&ours), exchanges(&theirs)), (vec![Exchange::Classic], vec![Exchange::Classic]));
    }
}
