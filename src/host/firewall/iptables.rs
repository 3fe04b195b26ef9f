//! iptables, in both flavours, through its own programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::doors::{Door, Doors, is_ours};
use super::{HostError, run};

/// A flavour of iptables that may hold a FORWARD chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tool {
    program: &'static str,
}

/// The flavours to look after: nft always, legacy only where its table is loaded already, since asking would load it.
pub(super) fn tools(v6: bool) -> Vec<Tool> {
    let (plain, nft, legacy, names) = if v6 {
        ("ip6tables", "ip6tables-nft", "ip6tables-legacy", "/proc/thread-self/net/ip6_tables_names")
    } else {
        ("iptables", "iptables-nft", "iptables-legacy", "/proc/thread-self/net/ip_tables_names")
    };
    let version = |program| run(program, &["--version"], "ask iptables for its version", "").ok();
    let legacy_loaded = fs::read_to_string(names).is_ok_and(|tables| tables.lines().any(|t| t == "filter"));
    let plain_is_nft = || version(plain).is_some_and(|v| v.contains("nf_tables"));
    let mut tools = Vec::new();
    if let Some(program) = Some(nft).filter(|p| version(p).is_some()).or_else(|| Some(plain).filter(|_| plain_is_nft())) {
        tools.push(Tool { program });
    }
    if legacy_loaded {
        // Where it is missing, running it gives the sentence that says so.
        let program = if version(legacy).is_none() && version(plain).is_some() && !plain_is_nft() { plain } else { legacy };
        tools.push(Tool { program });
    }
    tools
}

/// Puts our rules in where FORWARD would drop and they are not there, or not first; what is not wanted any more goes. Answers with what was
/// inserted.
pub(super) fn ensure(tool: &Tool, doors: &Doors) -> Result<Vec<String>, HostError> {
    let bridge = &doors.bridge;
    let rules = list(tool, bridge)?;
    let chains = Chains::parse(&rules);
    let wanted: Vec<String> = doors.wanted().iter().map(|door| door.spec(bridge)).collect();
    let chain = chains.where_needed(bridge);
    let missing: Vec<&String> = match chain {
        Some(chain) => wanted.iter().filter(|spec| !chains.in_effect(chain, spec)).collect(),
        None => Vec::new(),
    };
    for line in rules.lines() {
        let Some((at, spec)) = appended(line) else { continue };
        let plain = unquoted(spec);
        if !is_ours(&plain, bridge) {
            continue;
        }
        let known = wanted.contains(&plain);
        let misplaced = missing.contains(&&plain) || (known && chain.is_some_and(|chain| chain != at));
        if misplaced || (!known && doors.is_stale(plain != Door::Across.spec(bridge))) {
            delete(tool, bridge, at, &plain)?;
        }
    }
    let Some(chain) = chain else { return Ok(Vec::new()) };
    for spec in &missing {
        let args: Vec<&str> = ["-w", "5", "-I", chain, "1"].into_iter().chain(spec.split(' ')).collect();
        run(tool.program, &args, &attempted(bridge), &hint(bridge))?;
    }
    Ok(missing.iter().map(|_| format!("{} filter {chain}", tool.program)).collect())
}

/// True where a rule of ours for this bridge is there.
pub(super) fn holds(tool: &Tool, bridge: &str) -> Result<bool, HostError> {
    Ok(list(tool, bridge)?.lines().filter_map(appended).any(|(_, spec)| is_ours(&unquoted(spec), bridge)))
}

/// Takes our rules for this bridge out of every chain.
pub(super) fn remove(tool: &Tool, bridge: &str) -> Result<(), HostError> {
    let rules = list(tool, bridge)?;
    for (chain, spec) in rules.lines().filter_map(appended) {
        let plain = unquoted(spec);
        if is_ours(&plain, bridge) {
            delete(tool, bridge, chain, &plain)?;
        }
    }
    Ok(())
}

fn list(tool: &Tool, bridge: &str) -> Result<String, HostError> {
    run(tool.program, &["-w", "5", "-S"], &attempted(bridge), &hint(bridge))
}

fn delete(tool: &Tool, bridge: &str, chain: &str, spec: &str) -> Result<(), HostError> {
    let args: Vec<&str> = ["-w", "5", "-D", chain].into_iter().chain(spec.split(' ')).collect();
    run(tool.program, &args, &format!("remove a rule for bridge {bridge} from {chain}"), "").map(drop)
}

fn attempted(bridge: &str) -> String {
    format!("let traffic of bridge {bridge} pass the host's firewall")
}

fn hint(bridge: &str) -> String {
    format!("iptables -I FORWARD -i {bridge} -o {bridge} -j ACCEPT")
}

/// The chain and the specification of a line `-A CHAIN …`.
fn appended(line: &str) -> Option<(&str, &str)> {
    let (chain, spec) = line.strip_prefix("-A ")?.split_once(' ')?;
    Some((chain, spec))
}

/// Old versions print the comment in quotes.
fn unquoted(spec: &str) -> String {
    spec.replace('"', "")
}

/// The filter table as `iptables -S` prints it.
struct Chains<'a> {
    forward_drops: bool,
    rules: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Chains<'a> {
    fn parse(text: &'a str) -> Chains<'a> {
        let mut chains = Chains { forward_drops: false, rules: BTreeMap::new() };
        for line in text.lines() {
            if let Some((chain, spec)) = appended(line) {
                chains.rules.entry(chain).or_default().push(spec);
            } else if let Some(name) = line.strip_prefix("-N ") {
                chains.rules.entry(name).or_default();
            } else if line == "-P FORWARD DROP" {
                chains.forward_drops = true;
            }
        }
        chains
    }

    /// The chain our rules belong into; `None` where nothing that FORWARD leads to can drop.
    fn where_needed(&self, bridge: &str) -> Option<&'static str> {
        let drops_here = |spec: &&str| !is_ours(&unquoted(spec), bridge) && self.can_drop(target(spec), &mut BTreeSet::new());
        // In Docker's chain a rule has its effect only where every frame comes to it, and none is dropped on the way.
        let mut before = self.of("FORWARD").take_while(|spec| *spec != "-j DOCKER-USER");
        let jumps = self.of("FORWARD").any(|spec| spec == "-j DOCKER-USER") && self.rules.contains_key("DOCKER-USER");
        let docker = jumps && !before.any(|spec| drops_here(&spec));
        let drops = self.of("FORWARD").any(|spec| drops_here(&spec));
        let chain = if docker { "DOCKER-USER" } else { "FORWARD" };
        (self.forward_drops || drops || docker).then_some(chain)
    }

    /// True where this rule stands in this chain before all that could drop.
    fn in_effect(&self, chain: &str, rule: &str) -> bool {
        for spec in self.of(chain) {
            if unquoted(spec) == rule {
                return true;
            }
            if self.can_drop(target(spec), &mut BTreeSet::new()) {
                return false;
            }
        }
        false
    }

    fn of(&self, chain: &str) -> impl Iterator<Item = &'a str> {
        self.rules.get(chain).into_iter().flatten().copied()
    }

    /// True where this target is a drop, or a chain that leads to one.
    fn can_drop(&self, target: &'a str, seen: &mut BTreeSet<&'a str>) -> bool {
        let verdict = matches!(target, "DROP" | "REJECT" | "QUEUE" | "NFQUEUE" | "TARPIT");
        verdict || (seen.insert(target) && self.of(target).any(|spec| self.can_drop(self::target(spec), seen)))
    }
}

/// What a rule jumps or goes to; empty for a rule that only counts.
fn target(spec: &str) -> &str {
    let mut words = spec.split(' ');
    while let Some(word) = words.next() {
        if word == "-j" || word == "-g" {
            return words.next().unwrap_or("");
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "-i weave -o weave -m comment --comment weave-router -j ACCEPT";

    fn needed(text: &str) -> Option<&'static str> {
        Chains::parse(text).where_needed("weave")
    }

    #[test]
    fn an_open_firewall_needs_nothing() {
        assert_eq!(needed("-P INPUT DROP\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n"), None);
        assert_eq!(needed("-P FORWARD ACCEPT\n-N A\n-A FORWARD -j A\n-A A -s 10.0.0.1/32 -j RETURN\n"), None);
        assert_eq!(needed("-P FORWARD ACCEPT\n-N UNUSED\n-A UNUSED -j DROP\n"), None);
    }

    #[test]
    fn policies_rules_and_chains_that_drop_are_found() {
        assert_eq!(needed("-P FORWARD DROP\n"), Some("FORWARD"));
        assert_eq!(needed("-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n"), Some("FORWARD"));
        assert_eq!(needed("-P FORWARD ACCEPT\n-N A\n-N B\n-A FORWARD -j A\n-A A -g B\n-A B -i x -j DROP\n"), Some("FORWARD"));
        let round = "-P FORWARD ACCEPT\n-N A\n-N B\n-A FORWARD -j A\n-A A -j B\n-A B -j A\n";
        assert_eq!(needed(round), None, "a loop of chains ends the search");
    }

    #[test]
    fn docker_gets_it_into_its_own_chain() {
        let docker = "-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\n";
        assert_eq!(needed(docker), Some("DOCKER-USER"));
        let overtaken = "-P FORWARD DROP\n-N DOCKER-USER\n-N A\n-A FORWARD -j A\n-A FORWARD -j DOCKER-USER\n-A A -i eth1 -j DROP\n";
        assert_eq!(needed(overtaken), Some("FORWARD"), "what drops before the jump never comes to it");
        let aside = "-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -i docker0 -j DOCKER-USER\n-A DOCKER-USER -j RETURN\n";
        assert_eq!(needed(aside), Some("FORWARD"), "only some frames come to it");
        let ours = format!("-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD {OURS}\n-A FORWARD -j DOCKER-USER\n");
        assert_eq!(needed(&ours), Some("DOCKER-USER"), "our own rule is in nobody's way");
        let left_over = "-P FORWARD DROP\n-N DOCKER-USER\n-A DOCKER-USER -j RETURN\n";
        assert_eq!(needed(left_over), Some("FORWARD"), "a chain that nothing leads to has no effect");
    }

    #[test]
    fn our_rule_must_stand_before_what_drops() {
        let text = format!("-P FORWARD DROP\n-N A\n-A A -j DROP\n-A FORWARD -i x -j ACCEPT\n-A FORWARD {OURS}\n-A FORWARD -j A\n");
        assert!(Chains::parse(&text).in_effect("FORWARD", OURS));
        assert!(!Chains::parse(&text).in_effect("FORWARD", &OURS.replace("weave ", "weave2 ")));
        let late = format!("-P FORWARD DROP\n-N A\n-A A -j DROP\n-A FORWARD -j A\n-A FORWARD {OURS}\n");
        assert!(!Chains::parse(&late).in_effect("FORWARD", OURS));
        let old = OURS.replace("weave-router", "\"weave-router\"");
        assert!(Chains::parse(&format!("-A FORWARD {old}\n")).in_effect("FORWARD", OURS));
    }
}
