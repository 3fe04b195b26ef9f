//! Addresses that are in use on this host, whatever the disk knows of them: the kernel's state is read at the start, before anything is given.
//!
//! What a running container was found with stays with it: it is reserved at once, and becomes the container's as soon as that is ours to say, or
//! its owner gives it. Where somebody else has it as well that is said, and the address is given to nobody here while it is in use.

use std::time::Duration;

use ipnet::IpNet;

use super::Ipam;
use super::book::{Holder, Standing};
use super::requests::{check_ident, hosts};
use crate::wire::PeerName;
use crate::wire::ipam::{self, Range};

/// Most addresses of other owners that are asked for at once.
const AT_ONCE: usize = 32;
/// How long a router whose containers have addresses of a ring that it does not know looks for others that do, before it founds one.
const SEARCH: Duration = Duration::from_secs(6);
/// Under this name the bridge has addresses.
const BRIDGE: &str = "weave:bridge";

impl Ipam {
    /// Gives nothing before [`super::Request::Reserve`] has said what is in use on this host.
    pub fn await_survey(&mut self) {
        self.surveyed = false;
    }

    pub(super) fn reserve(&mut self, held: &[(String, IpNet)], host: &[IpNet]) {
        let mut news = 0;
        for (ident, net) in held.iter().filter(|(ident, _)| check_ident(ident).is_ok()) {
            self.revive(ident);
            news += usize::from(self.reserve_one(ident, *net, true));
        }
        for net in host {
            self.reserve_one(BRIDGE, *net, false);
        }
        self.surveyed = true;
        if news > 0 && (self.ring.is_none() || self.made_here) {
            self.founding.wait_until(self.now + SEARCH);
            // What a list of seeds says is ours may have been given away since.
            self.hold = self.ring.as_ref().map(|_| super::hold_for(SEARCH));
            self.report(format!(
                "{news} addresses of --ipalloc-range are in use on this host, and this router knows nothing of them: was its state directory lost? \
                 They stay with their containers; it looks for other routers that know the ring before anything new is given"
            ));
        }
        self.sync.publish_soon();
        self.progress();
    }

    /// True for an address of the ranges of which nothing was known.
    fn reserve_one(&mut self, ident: &str, net: IpNet, wanted: bool) -> bool {
        let address = ipam::number(net.addr());
        if !self.config.ranges.iter().any(|range| range.contains(address)) {
            return false;
        }
        let known = self.book.holder(address).map(|holder| holder.ident.clone());
        if let Some(other) = known.filter(|other| wanted && other != ident) {
            self.note_duplicate(address, format!("{} was found on container {ident} and is the address of {other}", net.addr()));
            return false;
        }
        // The first and the last address of a subnet can be no container's, and are in use all the same.
        let wanted = wanted && hosts(&net.trunc()).is_none_or(|hosts| hosts.contains(address));
        self.book.reserve(ident, address, net.prefix_len(), wanted)
    }

    /// What was found becomes the containers' where it is ours; answers with what others are to be asked for.
    pub(super) fn settle_reserved(&mut self) -> Vec<Range> {
        let mut asked = Vec::new();
        let Some(ring) = self.ring.as_ref().filter(|_| self.may_give()) else { return asked };
        let mut ours: Vec<(u128, Holder)> = Vec::new();
        for address in self.book.reserved() {
            let Some((_, leaf)) = ring.leaves().at(address) else { continue };
            if self.is_usable(leaf) {
                ours.extend(self.book.holder(address).map(|holder| (address, holder.clone())));
            } else if asked.len() < AT_ONCE && !leaf.disputed && self.is_reachable(leaf.owner.name()) {
                asked.push(Range { first: address, last: address });
            }
        }
        for (address, holder) in ours {
            self.record_address(&holder.ident, address, holder.prefix);
        }
        asked
    }

    /// The owner of an address says that it is in use there.
    pub(super) fn refuse_reserved(&mut self, address: u128, owner: PeerName) {
        let Some(holder) = self.book.holder(address).filter(|holder| holder.standing == Standing::Reserved) else { return };
        let text =
            format!("{} was found on container {} and is in use on {} as well", ipam::address(address), holder.ident, self.nickname(owner));
        self.book.refuse(address);
        self.note_duplicate(address, text);
    }

    fn note_duplicate(&mut self, address: u128, text: String) {
        if self.remember_duplicate(address) {
            self.report(format!("{text}: detach one of the two, and attach it anew"));
        }
    }
}
