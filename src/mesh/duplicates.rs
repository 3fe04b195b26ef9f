//! What an operator hears of MACs that several hosts have ([`macs`](super::macs) finds them).

use std::time::Duration;

use super::command::Event;
use super::config::Outbox;
use super::core::Mesh;
use super::macs::{Key, News};
use super::snapshot::FrozenMac;
use crate::time::Time;
use crate::wire::PeerName;

/// Sentences of this kind within [`WHILE`]; the status names the others. A member gone bad may claim thousands of MACs at once.
const MOST_SAID: u32 = 16;
const WHILE: Duration = Duration::from_secs(60);
/// MACs that the status names.
const MOST_SHOWN: usize = 256;

/// How much was said.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    since: Time,
    said: u32,
}

impl Mesh {
    /// Says which MACs were frozen since this was last asked, and which are free again.
    pub(super) fn tell_duplicates(&mut self, now: Time, out: &mut Outbox) {
        for news in self.macs.take_news() {
            let (key, routers) = match news {
                News::Frozen(key, holder, rival) => {
                    self.counters.macs_frozen.inc();
                    (key, vec![holder, rival])
                }
                News::Thawed(key) => (key, Vec::new()),
            };
            routers.iter().for_each(|router| self.review_bindings(now, *router));
            self.review_bindings(now, self.own);
            if self.may_say(now) {
                out.events.push(self.sentence(key, &routers));
            }
        }
    }

    fn may_say(&mut self, now: Time) -> bool {
        let said = &mut self.duplicates;
        if now.since(said.since) >= WHILE {
            *said = Duplicates { since: now, said: 0 };
        }
        said.said += 1;
        said.said <= MOST_SAID
    }

    /// It is a warning where the operator can do something about it.
    fn sentence(&self, (vlan, mac): Key, routers: &[PeerName]) -> Event {
        let mac = PeerName(mac);
        let [holder, rival] = routers else {
            return Event::Notice(format!("the MAC {mac} (VLAN {vlan}) is on one host only, and may move again"));
        };
        let (first, second) = (self.called(*holder), self.called(*rival));
        let text = format!(
            "the MAC {mac} (VLAN {vlan}) is on two hosts or keeps moving between them, {first} and {second}: it is frozen where it was first, at \
             {first}, until only one of them announces it; look for the same MAC in two containers, or for two bridges that are joined outside \
             the mesh"
        );
        if routers.contains(&self.own) { Event::Warning(text) } else { Event::Notice(text) }
    }

    fn called(&self, router: PeerName) -> String {
        let nickname = if router == self.own { self.config.nickname.clone() } else { self.nickname(router) };
        format!("{router} ({nickname})")
    }

    /// The frozen MACs, for the status.
    pub(super) fn frozen_macs(&self, now: Time) -> Vec<FrozenMac> {
        let frozen = self.macs.frozen().map(|((vlan, mac), contest)| FrozenMac {
            vlan,
            mac,
            holder: contest.holder,
            rival: contest.rival,
            nicknames: [contest.holder, contest.rival].map(|router| self.nickname(router)),
            since: contest.frozen.map(|since| now.since(since)).unwrap_or_default(),
        });
        frozen.take(MOST_SHOWN).collect()
    }
}
