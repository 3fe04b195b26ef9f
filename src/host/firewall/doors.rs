//! What is to pass the host's firewall, as rules of its programs.

use ipnet::IpNet;

use super::MARK;

/// One rule that accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// From the bridge to the same bridge.
    Across,
    /// From this subnet on the bridge to elsewhere: the host is its gateway.
    Out(IpNet),
    /// Answers to that.
    Back(IpNet),
}

/// The doors of one bridge and one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doors {
    pub bridge: String,
    pub v6: bool,
    wanted: Vec<Door>,
    /// False where those for subnets are not known.
    known: bool,
}

impl Doors {
    /// `across` where frames between ports of the bridge are shown to the firewall; the host is exposed in these subnets, if that is known.
    pub fn new(bridge: &str, v6: bool, across: bool, exposed: Option<&[IpNet]>) -> Doors {
        let mut subnets: Vec<IpNet> = exposed.unwrap_or_default().iter().map(IpNet::trunc).filter(|s| s.addr().is_ipv6() == v6).collect();
        subnets.sort_unstable();
        subnets.dedup();
        let mut wanted: Vec<Door> = across.then_some(Door::Across).into_iter().collect();
        wanted.extend(subnets.into_iter().flat_map(|subnet| [Door::Out(subnet), Door::Back(subnet)]));
        Doors { bridge: bridge.into(), v6, wanted, known: exposed.is_some() }
    }

    /// True where nothing is to pass.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// What is to pass.
    pub fn wanted(&self) -> &[Door] {
        &self.wanted
    }

    /// True where a rule of ours that is none of the wanted is not wanted any more.
    pub fn is_stale(&self, of_a_subnet: bool) -> bool {
        self.known || !of_a_subnet
    }
}

impl Door {
    /// As `iptables` takes and prints it.
    pub fn spec(&self, bridge: &str) -> String {
        let matches = match self {
            Door::Across => format!("-i {bridge} -o {bridge}"),
            Door::Out(subnet) => format!("-s {subnet} -i {bridge} ! -o {bridge}"),
            Door::Back(subnet) => format!("-d {subnet} ! -i {bridge} -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED"),
        };
        format!("{matches} -m comment --comment {MARK} -j ACCEPT")
    }

    /// As `nft` takes it, without the comment.
    pub fn expression(&self, bridge: &str) -> String {
        let family = |subnet: &IpNet| if subnet.addr().is_ipv6() { "ip6" } else { "ip" };
        match self {
            Door::Across => format!("iifname \"{bridge}\" oifname \"{bridge}\" accept"),
            Door::Out(subnet) => format!("iifname \"{bridge}\" oifname != \"{bridge}\" {} saddr {subnet} accept", family(subnet)),
            Door::Back(subnet) => {
                let matches = format!("iifname != \"{bridge}\" oifname \"{bridge}\" {} daddr {subnet}", family(subnet));
                matches + " ct state established,related accept"
            }
        }
    }

    /// The comment of the nft rule, by which it is known again.
    pub fn comment(&self) -> String {
        match self {
            Door::Across => MARK.into(),
            Door::Out(subnet) => format!("{MARK} out of {subnet}"),
            Door::Back(subnet) => format!("{MARK} back to {subnet}"),
        }
    }
}

/// True for a rule that `iptables` prints, and that one of our doors into or out of this bridge could be.
pub(super) fn is_ours(spec: &str, bridge: &str) -> bool {
    let marked = spec.ends_with(&format!("-m comment --comment {MARK} -j ACCEPT"));
    let words: Vec<&str> = spec.split(' ').collect();
    let names = |option: &str| words.windows(2).any(|pair| pair == [option, bridge]);
    marked && names("-i") && names("-o")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn doors_are_for_their_family_and_each_once() {
        let exposed = [net("10.2.1.101/24"), net("fd00:2::101/64"), net("10.2.1.102/24")];
        let subnet = net("10.2.1.0/24");
        let four = Doors::new("weave", false, true, Some(&exposed));
        assert_eq!(four.wanted(), [Door::Across, Door::Out(subnet), Door::Back(subnet)]);
        let six = Doors::new("weave", true, false, Some(&exposed));
        assert_eq!(six.wanted(), [Door::Out(net("fd00:2::/64")), Door::Back(net("fd00:2::/64"))]);
        assert!(Doors::new("weave", true, false, Some(&exposed[..1])).is_empty());
        let unknown = Doors::new("weave", false, true, None);
        assert!(unknown.wanted() == [Door::Across] && unknown.is_stale(false) && !unknown.is_stale(true));
    }

    #[test]
    fn ours_are_known_again_by_mark_and_bridge() {
        for door in [Door::Across, Door::Out(net("10.2.1.0/24")), Door::Back(net("10.2.1.0/24"))] {
            assert!(is_ours(&door.spec("weave"), "weave") && !is_ours(&door.spec("weave"), "weave2"), "{door:?}");
        }
        assert!(!is_ours("-i weave -o weave -j ACCEPT", "weave"));
        assert!(!is_ours("-i weave -m comment --comment weave-router -j ACCEPT", "weave"));
    }
}
