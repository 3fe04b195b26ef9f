//! Native nftables chains (firewalld and the like), through `nft` and its JSON.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{HostError, MARK, run};

/// A base chain on the forward hook.
#[derive(Debug, PartialEq, Eq)]
struct Chain {
    family: String,
    table: String,
    name: String,
    drops: bool,
}

/// Puts our rule at the head of every native forward chain of this family that drops. Answers with what was inserted.
pub(super) fn ensure(bridge: &str, v6: bool) -> Result<Vec<String>, HostError> {
    let mut inserted = Vec::new();
    // Chains of family inet see both; they are looked after with IPv4, or with IPv6 alone where only that is filtered.
    let families: &[&str] = if v6 { &["ip6", "inet"] } else { &["ip", "inet"] };
    let chains = chains(bridge)?;
    for chain in chains.iter().filter(|c| families.contains(&c.family.as_str())) {
        let table = Table::list(chain, bridge)?;
        let rules = table.rules_of(&chain.name);
        let drops = |rule: &&&Value| !is_ours(rule, bridge) && table.can_drop(rule, &mut BTreeSet::new());
        let needed = chain.drops || rules.iter().any(|r| drops(&r));
        let in_effect = rules.iter().take_while(|r| !drops(r)).any(|r| is_ours(r, bridge));
        if !needed || in_effect {
            continue;
        }
        take_out(chain, &rules, bridge)?;
        let quoted = (format!("\"{bridge}\""), format!("\"{MARK}\""));
        let place = [chain.family.as_str(), chain.table.as_str(), chain.name.as_str()];
        let mut args = vec!["insert", "rule"];
        args.extend(place);
        args.extend(["iifname", quoted.0.as_str(), "oifname", quoted.0.as_str(), "accept", "comment", quoted.1.as_str()]);
        run("nft", &args, &attempted(bridge), "")?;
        inserted.push(format!("nft {}", place.join(" ")));
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
        take_out(&chain, &table.rules_of(&chain.name), bridge)?;
    }
    Ok(())
}

fn take_out(chain: &Chain, rules: &[&Value], bridge: &str) -> Result<(), HostError> {
    for rule in rules.iter().filter(|r| is_ours(r, bridge)) {
        let handle = rule.get("handle").and_then(Value::as_u64).unwrap_or_default().to_string();
        let args = ["delete", "rule", &chain.family, &chain.table, &chain.name, "handle", &handle];
        run("nft", &args, &format!("remove the rule for bridge {bridge} from {}", chain.name), "")?;
    }
    Ok(())
}

fn attempted(bridge: &str) -> String {
    format!("let frames from bridge {bridge} to itself pass the host's nftables chains")
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

fn is_ours(rule: &Value, bridge: &str) -> bool {
    let marked = rule.get("comment").and_then(Value::as_str) == Some(MARK);
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
