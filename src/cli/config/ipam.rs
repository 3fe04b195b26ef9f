//! `--ipalloc-range` and its kin, checked.

use ipnet::IpNet;

use super::{ConfigError, usage};
use crate::ipam::{Config, Init};
use crate::wire::PeerName;
use crate::wire::ipam::{Range, number};

/// Smallest prefix of a range: larger ones are not what anybody means.
const LONGEST_V4: u8 = 30;
/// The same for IPv6.
const LONGEST_V6: u8 = 126;

/// The configuration of the address book; `None` where no addresses are given. `peers` is the number of hosts to link with.
pub fn config(network: &str, ranges: &[String], subnets: &[String], init: &str, peers: usize) -> Result<Option<Config>, ConfigError> {
    let ranges: Vec<IpNet> = nets("--ipalloc-range", ranges)?;
    let subnets: Vec<IpNet> = nets("--ipalloc-default-subnet", subnets)?;
    let init = start(init, peers)?;
    if ranges.is_empty() {
        return if subnets.is_empty() {
            Ok(None)
        } else {
            Err(usage("--ipalloc-default-subnet is given, but --ipalloc-range is empty: give both, or neither"))
        };
    }
    for (what, nets) in [("--ipalloc-range", &ranges), ("--ipalloc-default-subnet", &subnets)] {
        if nets.iter().filter(|net| is_v4(net)).count() > 1 || nets.iter().filter(|net| !is_v4(net)).count() > 1 {
            return Err(usage(format!("{what} is given twice for one family: give one of IPv4 and one of IPv6 at most")));
        }
    }
    for net in ranges.iter().chain(&subnets) {
        let longest = if is_v4(net) { LONGEST_V4 } else { LONGEST_V6 };
        if net.prefix_len() > longest {
            return Err(usage(format!("{net} is too small: at least 4 addresses are needed, /{longest}")));
        }
        if let Some(what) = SPECIAL.iter().find(|(special, _)| special.parse().is_ok_and(|special: IpNet| meet(net, &special))) {
            return Err(usage(format!("{net} has {} addresses, {}, which no container can have; give another range", what.1, what.0)));
        }
    }
    let subnets = ranges.iter().map(|range| default_subnet(range, &subnets)).collect::<Result<Vec<IpNet>, ConfigError>>()?;
    let mut ranges: Vec<Range> = ranges.iter().map(range).collect();
    ranges.sort_unstable();
    Ok(Some(Config { network: network.to_string(), ranges, subnets, init, nickname: String::new() }))
}

/// What no container can have for its own.
const SPECIAL: [(&str, &str); 7] = [
    ("0.0.0.0/8", "unspecified"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/3", "multicast and reserved"),
    ("::/64", "loopback and IPv4"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

fn meet(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

fn nets(what: &str, texts: &[String]) -> Result<Vec<IpNet>, ConfigError> {
    let net = |text: &String| {
        let net: IpNet = text.trim().parse().map_err(|_| usage(format!("{what}: '{text}' is not a network as 10.32.0.0/12 is")))?;
        if net.trunc() == net { Ok(net) } else { Err(usage(format!("{what}: {net} has host bits; did you mean {}?", net.trunc()))) }
    };
    texts.iter().filter(|text| !text.trim().is_empty()).map(net).collect()
}

/// The subnet that is meant where none is said: the one given of the range's family, else the range.
fn default_subnet(range: &IpNet, subnets: &[IpNet]) -> Result<IpNet, ConfigError> {
    let Some(subnet) = subnets.iter().find(|subnet| is_v4(subnet) == is_v4(range)) else { return Ok(*range) };
    if subnet.contains(range) || range.contains(subnet) {
        Ok(*subnet)
    } else {
        Err(usage(format!("--ipalloc-default-subnet {subnet} and --ipalloc-range {range} have nothing in common")))
    }
}

fn start(text: &str, peers: usize) -> Result<Init, ConfigError> {
    let wrong = || usage(format!("--ipalloc-init: '{text}' is none of consensus, consensus=ROUTERS, seed=NAME,... and observer"));
    match text.split_once('=') {
        None if text == "consensus" => Ok(Init::Consensus(u16::try_from(peers + 1).unwrap_or(u16::MAX))),
        None if text == "observer" => Ok(Init::Observer),
        Some(("consensus", count)) => match count.parse() {
            Ok(0) | Err(_) => Err(wrong()),
            Ok(count) => Ok(Init::Consensus(count)),
        },
        Some(("seed", names)) => {
            let names: Result<Vec<PeerName>, _> = names.split(',').map(str::parse).collect();
            let names = names.map_err(|e| usage(format!("--ipalloc-init: {e}")))?;
            if (1..=crate::wire::ipam::MAX_SEEDS).contains(&names.len()) { Ok(Init::Seed(names)) } else { Err(wrong()) }
        }
        _ => Err(wrong()),
    }
}

fn is_v4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

fn range(net: &IpNet) -> Range {
    Range { first: number(net.network()), last: number(net.broadcast()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ranges: &[&str], subnets: &[&str], init: &str) -> Result<Option<Config>, ConfigError> {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        config("weave", &texts(ranges), &texts(subnets), init, 2)
    }

    #[test]
    fn ranges_of_both_families() {
        let config = of(&["fd00::/64", "10.32.0.0/12"], &["10.32.0.0/16"], "consensus").expect("good").expect("on");
        assert_eq!(
            config.ranges.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.32.0.0-10.47.255.255", "fd00::-fd00::ffff:ffff:ffff:ffff"]
        );
        assert_eq!(config.subnets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["fd00::/64", "10.32.0.0/16"]);
        assert_eq!(config.init, Init::Consensus(3));
        assert!(of(&[""], &[], "consensus").expect("good").is_none());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (ranges, subnets, init) in [
            (&["10.32.0.1/12"][..], &[][..], "consensus"),
            (&["10.32.0.0/31"], &[], "consensus"),
            (&["10.32.0.0/12", "10.64.0.0/12"], &[], "consensus"),
            (&["10.32.0.0/12"], &["10.64.0.0/12"], "consensus"),
            (&["nonsense"], &[], "consensus"),
            (&["fe80::/64"], &[], "consensus"),
            (&["128.0.0.0/1"], &[], "consensus"),
            (&["169.254.0.0/24"], &[], "consensus"),
            (&[], &["10.32.0.0/16"], "consensus"),
            (&["10.32.0.0/12"], &[], "consensus=0"),
            (&["10.32.0.0/12"], &[], "seed="),
            (&["10.32.0.0/12"], &[], "seed=7a:3c"),
            (&["10.32.0.0/12"], &[], "guess"),
        ] {
            assert!(of(ranges, subnets, init).is_err(), "{ranges:?} {subnets:?} {init}");
        }
        let seeded = of(&["10.32.0.0/12"], &[], "seed=7a:3c:01:02:03:04,7a:3c:01:02:03:05").expect("good").expect("on");
        assert!(matches!(seeded.init, Init::Seed(names) if names.len() == 2));
        assert_eq!(of(&["10.32.0.0/12"], &[], "observer").expect("good").expect("on").init, Init::Observer);
    }
}
