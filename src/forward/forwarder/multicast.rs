//! Multicast goes where members are: what stations on the bridge say of their groups, and where the frames of a group are wanted.
//!
//! The mesh plane knows who has members ([`crate::mesh::multicast`]). Frames of a group that nobody is known to be a member of go to
//! everybody, as do those of one link and reports and questions themselves. Reports are given to a bridge only where a multicast router is
//! on it: elsewhere they would keep members of older versions from answering (RFC 4541, 2.1.1).

use crate::forward::fib::Fib;
use crate::forward::frame::{ETHERNET_LEN, Frame};
use crate::forward::groups::Places;
use crate::forward::membership::{self, Report, Talk};
use crate::forward::punt::Punt;
use crate::mesh::command::Membership;
use crate::wire::bundle::{Cursor, Form};
use crate::wire::groups::is_told;

use super::{Call, State};

/// Groups that are taken from one frame.
const MOST_IN_FRAME: usize = 256;

impl State {
    /// Listens to what a multicast frame from the bridge says of groups.
    pub(super) fn listen(&mut self, call: &mut Call<'_, '_>, bytes: &[u8], frame: &Frame) {
        if call.fib.groups.is_none() || usize::from(frame.l3) != ETHERNET_LEN {
            return;
        }
        match membership::parse(bytes, frame) {
            Some(Talk::Report(report)) => self.hear_report(call, &report),
            Some(Talk::Router) if self.multicast_news.take(call.now, 1) => self.punt(Punt::MulticastRouter, call.outbox),
            Some(Talk::Router | Talk::Snooper) | None => {}
        }
    }

    fn hear_report(&mut self, call: &mut Call<'_, '_>, report: &Report<'_>) {
        let (mut members, mut all) = (Vec::new(), 0);
        report.for_each(|group, joined| {
            if is_told(group) {
                all += 1;
                if all <= MOST_IN_FRAME {
                    members.push(Membership { group, joined });
                }
            }
        });
        if all == 0 {
            return;
        }
        if all <= MOST_IN_FRAME && self.memberships.take(call.now, all as u64) {
            return self.punt(Punt::Members(members), call.outbox);
        }
        self.counters().memberships_over_rate.add(all as u64);
        if self.multicast_news.take(call.now, 1) {
            self.punt(Punt::TooManyMembers, call.outbox);
        }
    }

    /// Who wants a frame; `None` where everybody is to have it.
    pub(super) fn wanted<'f>(fib: &'f Fib, bytes: &[u8], frame: &Frame) -> Option<&'f Places> {
        let groups = fib.groups.as_ref()?;
        if bytes.first().is_none_or(|first| first & 1 == 0) {
            return None;
        }
        groups.wanted(membership::group_of(bytes, frame)?)
    }

    /// The same of the bundle of a flood. A fragment does not tell, and of several frames each may be wanted elsewhere.
    pub(super) fn bundle_wanted<'f>(fib: &'f Fib, bundle: &[u8]) -> Option<&'f Places> {
        fib.groups.as_ref()?;
        let mut cursor = Cursor::new(0..bundle.len());
        let (header, range) = cursor.next(bundle)?.ok()?;
        if matches!(header.form, Form::Fragment { .. }) || cursor.next(bundle).is_some() {
            return None;
        }
        let bytes = bundle.get(range)?;
        State::wanted(fib, bytes, &Frame::parse(bytes)?)
    }

    /// True where somebody wants it whom our floods reach.
    pub(super) fn is_wanted_elsewhere(fib: &Fib, wanted: &Places) -> bool {
        let links = fib.flood_children(fib.own).iter().filter_map(|child| fib.links.get(usize::from(*child)));
        links.into_iter().any(|link| fib.leads_to(fib.own, link, wanted))
    }

    /// True for a multicast frame from the mesh that somebody on our bridge may want.
    pub(super) fn is_for_bridge(&self, fib: &Fib, bytes: &[u8], frame: &Frame) -> bool {
        let Some(groups) = &fib.groups else { return true };
        if State::wanted(fib, bytes, frame).is_some_and(|wanted| !groups.are_we(wanted)) {
            self.counters().drop_no_member.inc();
            return false;
        }
        let is_report = || usize::from(frame.l3) == ETHERNET_LEN && matches!(membership::parse(bytes, frame), Some(Talk::Report(_)));
        if !groups.router_here && is_report() {
            self.counters().drop_no_multicast_router.inc();
            return false;
        }
        true
    }
}
