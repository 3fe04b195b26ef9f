//! What containers want: addresses, very addresses, and to be rid of them.

use ipnet::IpNet;
use std::net::IpAddr;

use super::book::{Holder, Standing};
use super::types::{Answer, Init, Kind, NO_CONTAINER, Output, Request, Sorry};
use super::{AGAIN, GRACE, Ipam, PATIENCE};
use crate::time::Time;
use crate::wire::PeerName;
use crate::wire::ipam::{self, Body, Range};

/// A request that cannot be answered yet.
pub struct Waiting {
    pub deadline: Time,
    pub need: Need,
}

/// What it waits for.
pub enum Need {
    Space { ident: String, subnet: IpNet, hosts: Range },
    Claim { ident: String, address: IpNet },
    Ring,
}

/// Our space on its way to somebody else.
pub struct Handover {
    request: u64,
    heir: PeerName,
    size: u128,
    until: Time,
}

/// What became of an attempt.
enum Attempt {
    Answered(Result<Answer, Sorry>),
    Ask(Range, bool),
    Later,
}

impl Ipam {
    /// A request, under a number that the caller has not used before; it is answered within [`PATIENCE`] or so.
    pub fn request(&mut self, now: Time, request: u64, what: Request) {
        self.now = now;
        self.open.insert(request, now + PATIENCE);
        let harmless = matches!(what, Request::Free { .. } | Request::Released { .. } | Request::Reserve { .. } | Request::Reset { .. });
        let refused = self.refused.clone().filter(|_| !harmless);
        if let Some(text) = refused {
            self.answer(request, Err(Sorry::new(Kind::Unavailable, text)));
        } else {
            self.begin_request(request, what);
        }
        self.finish();
    }

    /// Nobody waits for the answer any more.
    pub fn cancel(&mut self, request: u64) {
        self.open.remove(&request);
        self.waiting.remove(&request);
    }

    /// The addresses of a container.
    pub fn lookup(&self, ident: &str) -> Vec<IpNet> {
        self.book.of(ident).into_iter().filter_map(|(address, prefix)| IpNet::new(ipam::address(address), prefix).ok()).collect()
    }

    /// Every address that was given, with its container, ascending.
    pub fn addresses(&self) -> Vec<(IpNet, String)> {
        let given = self.book.iter().filter(|(_, holder)| holder.standing == Standing::Given);
        given
            .filter_map(|(address, holder)| Some((IpNet::new(ipam::address(address), holder.prefix).ok()?, holder.ident.clone())))
            .collect()
    }

    /// The subnet that is meant where none is said.
    pub fn default_subnet(&self) -> Option<IpNet> {
        self.config.subnets.first().copied()
    }

    fn begin_request(&mut self, request: u64, what: Request) {
        let need = match what {
            Request::Allocate { ident, subnet } => self.allocate(&ident, subnet),
            Request::Claim { ident, address } => self.claim(&named(ident, Some(address.addr())), address),
            Request::Prime => Ok(Need::Ring),
            Request::Free { ident, address } => {
                self.free(&named(ident, address), address);
                Err(Ok(Answer::Done))
            }
            Request::Released { ident } => {
                self.book.release(&ident, self.now + GRACE);
                if self.book.is_released(&ident) {
                    self.write_dead(&ident, true);
                }
                Err(Ok(Answer::Done))
            }
            Request::Reserve { held, host } => {
                self.reserve(&held, &host);
                Err(Ok(Answer::Done))
            }
            Request::Remove { dead, force } => return self.remove(request, dead, force),
            Request::Reset { force } => return self.reset(request, force),
        };
        match need {
            Ok(need) => {
                let deadline = self.now + PATIENCE;
                self.waiting.insert(request, Waiting { deadline, need });
                self.progress();
                self.run_founding();
            }
            Err(answer) => self.answer(request, answer),
        }
    }

    fn allocate(&mut self, ident: &str, subnet: Option<IpNet>) -> Result<Need, Result<Answer, Sorry>> {
        let bad = |text: String| Err(Err(Sorry::new(Kind::Bad, text)));
        let Some(subnet) = subnet.or(self.default_subnet()).map(|subnet| subnet.trunc()) else {
            return bad("no address is given: this router runs without --ipalloc-range".to_string());
        };
        let (Some(hosts), Ok(ident)) = (hosts(&subnet), check_ident(ident)) else {
            return bad(format!(
                "no address can be given in {subnet}: a subnet has at least 4 addresses, and a container a name of 1 to 255 bytes"
            ));
        };
        let Some(hosts) = self.config.ranges.iter().find_map(|range| range.intersect(&hosts)) else {
            return bad(format!("no address can be given in {subnet}: nothing of it is in --ipalloc-range"));
        };
        self.revive(ident);
        match self.has(ident, &subnet, &hosts).and_then(|address| IpNet::new(ipam::address(address), subnet.prefix_len()).ok()) {
            Some(address) => Err(Ok(Answer::Address(address))),
            None => Ok(Need::Space { ident: ident.to_string(), subnet, hosts }),
        }
    }

    /// True for an address that its container may be told to be its own: on hold we may have been removed, and it may be another's by now,
    /// unless it has been in use here all the time.
    fn may_confirm(&self, address: u128) -> bool {
        self.hold.is_none() || self.book.is_seen(address)
    }

    /// The address that a container has in a subnet.
    fn has(&self, ident: &str, subnet: &IpNet, hosts: &Range) -> Option<u128> {
        let mut fit = self.book.all_of(ident);
        fit.retain(|(address, holder)| holder.prefix == subnet.prefix_len() && hosts.contains(*address) && self.may_confirm(*address));
        let of = |standing: Standing| fit.iter().find(|(_, holder)| holder.standing == standing).map(|(address, _)| *address);
        of(Standing::Given).or_else(|| of(Standing::Reserved))
    }

    fn claim(&mut self, ident: &str, address: IpNet) -> Result<Need, Result<Answer, Sorry>> {
        let number = ipam::number(address.addr());
        let Ok(ident) = check_ident(ident) else {
            return Err(Err(Sorry::new(Kind::Bad, "a container has a name of 1 to 255 bytes")));
        };
        if hosts(&address.trunc()).is_some_and(|hosts| !hosts.contains(number)) {
            return Err(Err(Sorry::new(
                Kind::Bad,
                format!("{address} is the first or the last address of its subnet, which no container can have"),
            )));
        }
        if let Some(holder) = self.book.holder(number).filter(|holder| holder.ident != ident) {
            return Err(Err(Sorry::new(Kind::Conflict, format!("{address} is the address of container {}", holder.ident))));
        }
        self.revive(ident);
        let managed = self.config.ranges.iter().any(|range| range.contains(number));
        match self.book.holder(number).map(|holder| holder.standing) {
            Some(Standing::Given | Standing::Reserved) if !managed || self.may_confirm(number) => Err(Ok(Answer::Done)),
            _ if managed => Ok(Need::Claim { ident: ident.to_string(), address }),
            _ => {
                self.record_address(ident, number, address.prefix_len());
                Err(Ok(Answer::Done))
            }
        }
    }

    pub(super) fn revive(&mut self, ident: &str) {
        if self.book.revive(ident) {
            self.write_dead(ident, false);
        }
    }

    pub(super) fn record_address(&mut self, ident: &str, address: u128, prefix: u8) {
        self.book.give(ident, address, prefix);
        self.write_address(address, Some((prefix, ident)));
        self.sync.publish_soon();
    }

    fn free(&mut self, ident: &str, address: Option<IpAddr>) {
        let (wanted, dead) = (address.map(ipam::number), self.book.is_released(ident));
        for (address, holder) in self.book.all_of(ident) {
            if wanted.is_none_or(|wanted| wanted == address) {
                self.book.take(address);
                if holder.standing == Standing::Given {
                    self.write_address(address, None);
                }
                self.sync.publish_soon();
            }
        }
        if dead && !self.book.is_released(ident) {
            self.write_dead(ident, false);
        }
        let of = |need: &Need| match need {
            Need::Space { ident: of, .. } | Need::Claim { ident: of, .. } => of == ident,
            Need::Ring => false,
        };
        if wanted.is_none() && ident != NO_CONTAINER {
            let given_up: Vec<u64> = self.waiting.iter().filter(|(_, waiting)| of(&waiting.need)).map(|(request, _)| *request).collect();
            for request in given_up {
                self.waiting.remove(&request);
                self.answer(request, Err(Sorry::new(Kind::Conflict, format!("container {ident} was freed meanwhile"))));
            }
        }
        self.progress();
    }

    /// The dead whose time has come give their addresses back.
    pub(super) fn free_the_dead(&mut self) {
        for ident in self.book.due(self.now) {
            self.free(&ident, None);
        }
    }

    /// Answers what can be answered, and finds out what must be asked for.
    pub(super) fn serve(&mut self) {
        let mut wanted: Vec<(Range, bool)> = self.settle_reserved().into_iter().map(|range| (range, true)).collect();
        let waiting: Vec<u64> = self.waiting.keys().copied().collect();
        for request in waiting {
            match self.attempt(request) {
                Attempt::Answered(result) => {
                    self.waiting.remove(&request);
                    self.answer(request, result);
                }
                Attempt::Ask(range, exact) => wanted.push((range, exact)),
                Attempt::Later => {}
            }
        }
        self.want(&wanted);
    }

    fn attempt(&mut self, request: u64) -> Attempt {
        let Some(waiting) = self.waiting.get(&request) else { return Attempt::Later };
        let Some(ring) = &self.ring else { return Attempt::Later };
        match &waiting.need {
            Need::Ring => Attempt::Answered(Ok(Answer::Done)),
            Need::Space { .. } | Need::Claim { .. } if !self.may_give() => Attempt::Later,
            Need::Space { ident, subnet, hosts } => {
                // Two requests of one container are one.
                let (prefix, hosts, ident) = (subnet.prefix_len(), *hosts, ident.clone());
                let known = self.has(&ident, subnet, &hosts);
                let parts = || self.mine.iter().filter_map(|(range, _)| range.intersect(&hosts));
                let fresh = || parts().find_map(|part| self.book.lowest_free(&part));
                match known.or_else(fresh) {
                    Some(address) => {
                        if known.is_none() {
                            // The container that stands for the address itself has its name, and another address each time.
                            let ident = if ident == NO_CONTAINER { ipam::address(address).to_string() } else { ident };
                            self.record_address(&ident, address, prefix);
                        }
                        let net = IpNet::new(ipam::address(address), prefix);
                        Attempt::Answered(net.map(Answer::Address).map_err(|_| Sorry::new(Kind::Bad, "the prefix is too long")))
                    }
                    None => Attempt::Ask(hosts, false),
                }
            }
            Need::Claim { ident, address } => {
                let (number, prefix, ident) = (ipam::number(address.addr()), address.prefix_len(), ident.clone());
                let refused = |holder: &&Holder| holder.ident == ident && holder.standing == Standing::InUse;
                if let Some(holder) = self.book.holder(number).filter(|holder| !refused(holder)) {
                    let text = format!("{address} is the address of container {}", holder.ident);
                    return Attempt::Answered(if holder.ident == ident { Ok(Answer::Done) } else { Err(Sorry::new(Kind::Conflict, text)) });
                }
                if self.mine.iter().any(|(range, _)| range.contains(number)) {
                    self.record_address(&ident, number, prefix);
                    return Attempt::Answered(Ok(Answer::Done));
                }
                let theirs = ring.leaves().at(number).is_some_and(|(_, leaf)| leaf.owner.name() != self.name && !leaf.disputed);
                if theirs { Attempt::Ask(Range { first: number, last: number }, true) } else { Attempt::Later }
            }
        }
    }

    /// Fails the claims of an address that its owner does not give.
    pub(super) fn fail_claims(&mut self, number: u128, text: &str) {
        let of = |need: &Need| matches!(need, Need::Claim { address, .. } if ipam::number(address.addr()) == number);
        let failed: Vec<u64> = self.waiting.iter().filter(|(_, waiting)| of(&waiting.need)).map(|(request, _)| *request).collect();
        for request in failed {
            self.waiting.remove(&request);
            self.answer(request, Err(Sorry::new(Kind::Conflict, text)));
        }
    }

    /// Ends what has taken too long, with the reason.
    pub(super) fn give_up(&mut self) {
        let late: Vec<u64> = self.waiting.iter().filter(|(_, waiting)| waiting.deadline <= self.now).map(|(request, _)| *request).collect();
        for request in late {
            let Some(waiting) = self.waiting.remove(&request) else { continue };
            let text = self.reason(&waiting.need);
            self.answer(request, Err(Sorry::new(Kind::Unavailable, text)));
        }
        self.end_handover();
        let late: Vec<u64> = self.open.iter().filter(|(_, end)| **end + AGAIN <= self.now).map(|(request, _)| *request).collect();
        for request in late {
            self.open.remove(&request);
            let of = |output: &Output| matches!(output, Output::Answer { request: r, result: Ok(_) } if *r == request);
            let sorry = match self.disk_full {
                true => Sorry::new(
                    Kind::Disk,
                    "the disk of the state directory is full, so that nothing can be given that would be remembered; make room, and ask again",
                ),
                false => Sorry::new(Kind::Unavailable, "the address book cannot be written to the state directory; is the disk broken?"),
            };
            if let Some(Output::Answer { result, .. }) = self.queue.iter_mut().find(|output| of(output)) {
                *result = Err(sorry);
            }
        }
        self.serve();
    }

    fn reason(&self, need: &Need) -> String {
        let what = match need {
            Need::Space { subnet, .. } => format!("no address could be given in {subnet}"),
            Need::Claim { address, .. } => format!("{address} could not be taken"),
            Need::Ring => "there is no ring of addresses yet".to_string(),
        };
        if !self.surveyed {
            return format!("{what}: this router has just started and does not know yet which addresses its containers have");
        }
        if self.ring.is_none() {
            let why = match &self.config.init {
                Init::Consensus(_) => {
                    let (quorum, known) = self.founding.standing(self);
                    format!("awaiting consensus (quorum: {quorum}, known: {known}); start more of the routers, or check --ipalloc-init")
                }
                Init::Observer => "this router is an observer, and none of the others has a ring yet".to_string(),
                Init::Seed(_) => "the list of seeds made no ring".to_string(),
            };
            return format!("{what}: {why}");
        }
        if self.hold.is_some() {
            return format!("{what}: this router has just started and has not yet compared its ring with another");
        }
        let range = match need {
            Need::Space { hosts, .. } => *hosts,
            Need::Claim { address, .. } => Range { first: ipam::number(address.addr()), last: ipam::number(address.addr()) },
            Need::Ring => return what,
        };
        format!("{what}: {}", self.why_no_space(&range))
    }

    /// Gives a request its answer, once.
    pub(super) fn answer(&mut self, request: u64, result: Result<Answer, Sorry>) {
        if result.is_err() {
            self.counters.requests_refused.inc();
        }
        if self.in_flight.is_none() && self.changes.is_empty() {
            self.open.remove(&request);
        }
        self.said.push(Output::Answer { request, result });
    }

    fn reset(&mut self, request: u64, force: bool) {
        let wait = match (&self.hold, &self.handover) {
            (_, Some(_)) => Some("this router is handing its addresses over already"),
            _ if !self.surveyed && !force => {
                Some("this router has just started and does not know yet which addresses its containers have; try again, or use --force")
            }
            (Some(_), None) if !force => Some("this router has not yet compared its ring with the others'; try again, or use --force"),
            _ => None,
        };
        if let Some(sentence) = wait {
            return self.answer(request, Err(Sorry::new(Kind::Unavailable, sentence)));
        }
        let own: Vec<(Range, ipam::EntryId)> = match &self.ring {
            Some(ring) => {
                ring.leaves().iter().filter(|(_, leaf)| leaf.owner.is(&self.key)).map(|(range, leaf)| (range, leaf.node)).collect()
            }
            None => Vec::new(),
        };
        let alone = self.ring.as_ref().is_none_or(|ring| ring.owners().iter().all(|owner| *owner == self.name)) && self.peers.is_empty();
        let mesh = self.mesh();
        let heir = self
            .reachable()
            .filter(|(_, book)| book.mesh == mesh)
            .min_by_key(|(name, book)| (book.observer, book.on_hold, *name))
            .map(|(name, book)| (name, book.key));
        let Some((heir, key)) = heir.filter(|_| !own.is_empty()) else {
            let result = if own.is_empty() || alone || force {
                Ok(Answer::Taken(0, self.name))
            } else {
                Err(Sorry::new(
                    Kind::Unavailable,
                    "no other router is reachable that could take this one's addresses; use --force to leave without",
                ))
            };
            return self.answer(request, result);
        };
        // From here on nothing is given any more, not even of what is freed now.
        self.handover = Some(Handover { request, heir, size: 0, until: self.now + AGAIN * 5 });
        let idents: Vec<String> = self.addresses().into_iter().map(|(_, ident)| ident).collect();
        idents.iter().for_each(|ident| self.free(ident, None));
        for (range, parent) in &own {
            self.author(&Body::Grant { parent: *parent, range: *range, owner: key }, &[heir]);
        }
        if let Some(handover) = &mut self.handover {
            handover.size = own.iter().fold(0, |sum, (range, _)| sum.saturating_add(range.size()));
        }
    }

    /// Answers a reset once the heir has all that we have.
    pub(super) fn end_handover(&mut self) {
        let Some(handover) = &self.handover else { return };
        let sum = self.ring.as_ref().map(super::Ring::sum);
        let heir = self.peers.get(&handover.heir).and_then(|peer| peer.book.as_ref()).map(|book| book.sum);
        let (request, known, late) = (handover.request, heir == sum, handover.until <= self.now);
        let result = match (known, late) {
            (true, _) => Ok(Answer::Taken(handover.size, handover.heir)),
            (false, true) => {
                Err(Sorry::new(Kind::Unavailable, format!("{} has not confirmed that it has this router's addresses", handover.heir)))
            }
            (false, false) => return,
        };
        self.handover = None;
        self.answer(request, result);
    }
}

/// The container that is meant.
fn named(ident: String, address: Option<IpAddr>) -> String {
    address.filter(|_| ident == NO_CONTAINER).map_or(ident, |address| address.to_canonical().to_string())
}

/// The addresses of a subnet that containers may have: all but the first and the last; `None` if it has fewer than four.
pub(super) fn hosts(subnet: &IpNet) -> Option<Range> {
    let range = range_of(subnet);
    (range.last - range.first >= 3).then(|| Range { first: range.first + 1, last: range.last - 1 })
}

/// All addresses of a subnet.
pub(super) fn range_of(subnet: &IpNet) -> Range {
    Range { first: ipam::number(subnet.network()), last: ipam::number(subnet.broadcast()) }
}

pub(super) fn check_ident(ident: &str) -> Result<&str, ()> {
    if (1..=255).contains(&ident.len()) && !ident.chars().any(char::is_control) { Ok(ident) } else { Err(()) }
}
