//! Native nftables chains (firewalld and the like), through `nft` and its JSON.

use std::collections::BTreeSet;

use serde_json::Value;

use super::doors::{Door, Doors};
use super::{HostError, MARK, run};

/// A base chain on the forward hook.
#[derive(Debug, PartialEq, Eq)]
struct Chain {
    family: String,
    table: String,
    name: String,
    drops: bool,
}

impl Chain {
    /// Chains of family inet see both.
    fn sees(&self, v6: bool) -> bool {
        self.family == "inet" || (self.family == "ip6") == v6
    }
}

/// Puts our rules at the head of every native forward chain that drops, and takes out what is not wanted any more; `doors` are those of IPv4 and
/// of IPv6. Answers with what was inserted.
pub(super) fn ensure(doors: &[Doors; 2]) -> Result<Vec<String>, HostError> {
    let mut inserted = Vec::new();
    let bridge = &doors[0].bridge;
    for chain in chains(bridge)? {
        let concerned: Vec<&Doors> = doors.iter().filter(|doors| chain.sees(doors.v6)).collect();
        let table = Table::list(&chain, bridge)?;
        let rules = table.rules_of(&chain.name);
        let drops = |rule: &&&Value| !is_ours(rule, bridge) && table.can_drop(rule, &mut BTreeSet::new());
        let needed = chain.drops || rules.iter().any(|r| drops(&r));
        // In a chain that sees both families the bridge's own frames pass by one rule.
        let mut wanted: Vec<Door> = Vec::new();
        for door in concerned.iter().flat_map(|doors| doors.wanted()) {
            wanted.extend((!wanted.contains(door)).then_some(*door));
        }
        let is = |rule: &Value, door: &Door| is_ours(rule, bridge) && comment(rule) == Some(door.comment().as_str());
        let in_effect = |door: &&Door| rules.iter().take_while(|r| !drops(r)).any(|r| is(r, door));
        let missing: Vec<Door> = wanted.iter().filter(|door| needed && !in_effect(door)).copied().collect();
        let stale = |rule: &&&Value| {
            let of_a_subnet = comment(rule) != Some(MARK);
            let unwanted = !wanted.iter().any(|door| is(rule, door)) && concerned.iter().all(|doors| doors.is_stale(of_a_subnet));
            is_ours(rule, bridge) && (unwanted || missing.iter().any(|door| is(rule, door)))
        };
        take_out(&chain, &rules.iter().filter(stale).copied().collect::<Vec<_>>(), bridge)?;
        for door in &missing {
            let place = [chain.family.as_str(), chain.table.as_str(), chain.name.as_str()].join(" ");
            let script = format!("insert rule {place} {} comment \"{}\"", door.expression(bridge), door.comment());
            run("nft", &[&script], &attempted(bridge), "")?;
            inserted.push(format!("nft {place}"));
        }
    }
    Ok(inserted)
}

/// True where a rule of ours for this bridge is there.
pub(super) fn holds(bridge: &str) -> Result<bool, HostError> {
    for chain in chains(bridge)? {
        if Table::list(&chain, bridge)?.rules_of(&chain.name).iter().any(|rule| is_ours(rule, bridge)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes our rules for this bridge out of every native forward chain.
pub(super) fn remove(bridge: &str) -> Result<(), HostError> {
    for chain in chains(bridge)? {
        let table = Table::list(&chain, bridge)?;
        let ours: Vec<&Value> = table.rules_of(&chain.name).into_iter().filter(|rule| is_ours(rule, bridge)).collect();
        take_out(&chain, &ours, bridge)?;
    }
    Ok(())
}

fn take_out(chain: &Chain, rules: &[&Value], bridge: &str) -> Result<(), HostError> {
    for rule in rules {
        let handle = rule.get("handle").and_then(Value::as_u64).unwrap_or_default().to_string();
        let args = ["delete", "rule", &chain.family, &chain.table, &chain.name, "handle", &handle];
        run("nft", &args, &format!("remove a rule for bridge {bridge} from {}", chain.name), "")?;
    }
    Ok(())
}

fn attempted(bridge: &str) -> String {
    format!("let traffic of bridge {bridge} pass the host's nftables chains")
}

fn chains(bridge: &str) -> Result<Vec<Chain>, HostError> {
    let hint = format!("iifname {bridge} oifname {bridge} accept, in whatever chain drops forwarded packets");
    let text = run("nft", &["-j", "list", "chains"], &attempted(bridge), &hint)?;
    Ok(items(&text, "chain").iter().filter_map(forward_chain).collect())
}

/// The objects of one sort in nft's JSON. What cannot be read holds none: then nothing is changed.
fn items(text: &str, sort: &str) -> Vec<Value> {
    let parsed: Value = serde_json::from_str(text).unwrap_or_default();
    let list = parsed.get("nftables").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|item| item.get(sort)).cloned().collect()
}

fn forward_chain(chain: &Value) -> Option<Chain> {
    let text = |key: &str| chain.get(key).and_then(Value::as_str).map(String::from);
    let (family, table, name) = (text("family")?, text("table")?, text("name")?);
    // This one belongs to iptables, which refuses to work with a table that nft wrote into.
    let iptables = matches!(family.as_str(), "ip" | "ip6") && table == "filter" && name == "FORWARD";
    let forward = text("hook").as_deref() == Some("forward") && text("type").as_deref() == Some("filter");
    let seen = matches!(family.as_str(), "ip" | "ip6" | "inet");
    (forward && seen && !iptables).then(|| Chain { drops: text("policy").as_deref() == Some("drop"), family, table, name })
}

fn expressions(rule: &Value) -> impl Iterator<Item = &Value> {
    rule.get("expr").and_then(Value::as_array).into_iter().flatten()
}

/// A table with all it holds.
struct Table {
    rules: Vec<Value>,
    maps: Vec<Value>,
}

impl Table {
    fn list(chain: &Chain, bridge: &str) -> Result<Table, HostError> {
        let args = ["-j", "list", "table", &chain.family, &chain.table];
        let text = run("nft", &args, &attempted(bridge), "")?;
        Ok(Table { rules: items(&text, "rule"), maps: items(&text, "map") })
    }

    fn rules_of(&self, chain: &str) -> Vec<&Value> {
        self.rules.iter().filter(|r| r.get("chain").and_then(Value::as_str) == Some(chain)).collect()
    }

    /// True where a verdict that drops stands anywhere in `value`, in the chains it leads to, or in the maps it looks up.
    fn can_drop(&self, value: &Value, seen: &mut BTreeSet<String>) -> bool {
        match value {
            Value::Object(fields) => fields.iter().any(|(key, inner)| match key.as_str() {
                "drop" | "reject" | "queue" => true,
                "jump" | "goto" => {
                    let chain = inner.get("target").and_then(Value::as_str).unwrap_or("");
                    seen.insert(chain.into()) && self.rules_of(chain).into_iter().any(|rule| self.can_drop(rule, seen))
                }
                _ => self.can_drop(inner, seen),
            }),
            Value::Array(list) => list.iter().any(|inner| self.can_drop(inner, seen)),
            Value::String(text) => text.strip_prefix('@').is_some_and(|name| {
                let named = |map: &&Value| map.get("name").and_then(Value::as_str) == Some(name);
                seen.insert(text.clone()) && self.maps.iter().filter(named).any(|map| self.can_drop(map, seen))
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
}

fn comment(rule: &Value) -> Option<&str> {
    rule.get("comment").and_then(Value::as_str)
}

fn is_ours(rule: &Value, bridge: &str) -> bool {
    let marked = comment(rule).and_then(|text| text.strip_prefix(MARK)).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    let names = expressions(rule).filter(|e| e.pointer("/match/right").and_then(Value::as_str) == Some(bridge)).count();
    marked && names == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 2}},
        {"chain": {"family": "inet", "table": "firewalld", "name": "filter_FORWARD", "handle": 1, "type": "filter", "hook": "forward", "prio": 10, "policy": "accept"}},
        {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD", "handle": 4, "comment": "weave-router", "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "weave"}},
            {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "weave"}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD", "handle": 2, "expr": [
            {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "established"}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD", "handle": 3, "expr": [
            {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]}}]}"#;

    #[test]
    fn reads_what_nft_prints() {
        let chains: Vec<Chain> = items(LIST, "chain").iter().filter_map(forward_chain).collect();
        let native = Chain { family: "inet".into(), table: "firewalld".into(), name: "filter_FORWARD".into(), drops: false };
        assert_eq!(chains, [native]);
        let rules = items(LIST, "rule");
        let table = Table { rules: rules.clone(), maps: Vec::new() };
        let ours: Vec<bool> = rules.iter().map(|r| is_ours(r, "weave")).collect();
        let drops: Vec<bool> = rules.iter().map(|r| table.can_drop(r, &mut BTreeSet::new())).collect();
        assert_eq!(ours, [true, false, false]);
        assert_eq!(drops, [false, false, true]);
        assert!(!is_ours(&rules[0], "other"));
        assert!(items("no json", "chain").is_empty());
    }

    #[test]
    fn drops_behind_jumps_and_maps_are_found() {
        let rule = |chain: &str, expr: Value| serde_json::json!({ "chain": chain, "expr": [expr] });
        let map = serde_json::json!({ "name": "m", "elem": [["eth9", { "goto": { "target": "b" } }]] });
        let jump = |to: &str| serde_json::json!({ "jump": { "target": to } });
        let lookup = serde_json::json!({ "vmap": { "key": { "meta": { "key": "iifname" } }, "data": "@m" } });
        let rules =
            vec![rule("a", jump("a")), rule("a", lookup.clone()), rule("b", serde_json::json!({ "drop": null })), rule("c", jump("a"))];
        let table = Table { rules, maps: vec![map] };
        assert!(table.can_drop(&rule("x", jump("c")), &mut BTreeSet::new()));
        assert!(table.can_drop(&lookup, &mut BTreeSet::new()));
        let harmless = Table { rules: vec![rule("a", jump("a")), rule("a", lookup)], maps: Vec::new() };
        assert!(!harmless.can_drop(&jump("a"), &mut BTreeSet::new()));
    }
}
