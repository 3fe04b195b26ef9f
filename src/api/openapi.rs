//! `GET /openapi.json`: the pages of the API for programs, as OpenAPI 3.1 (spec.openapis.org/oas/v3.1.0). A test holds it to the routes that are served.

use serde_json::{Map, Value, json};

/// What a page answers where it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Text for people, or JSON for those who ask for it.
    Both,
    /// JSON.
    Json,
    /// Text.
    Text,
    /// 204.
    Nothing,
}

/// One page and method.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    answer: Answer,
    /// Name of the schema of its body.
    body: Option<&'static str>,
    /// Query parameters with their meaning.
    query: &'static [(&'static str, &'static str)],
    /// It is on disk before it is acknowledged, and refused by 507 where there is no room.
    kept: bool,
}

impl Operation {
    /// True for a status of [`REFUSALS`] that it may answer with.
    fn may_answer(&self, status: &str) -> bool {
        let addresses = ["/attach", "/expose", "/ip", "/peer"].iter().any(|start| self.path.starts_with(start));
        match status {
            FULL => self.kept,
            TAKEN => self.kept && addresses,
            _ => true,
        }
    }
}

const FQDN: &[(&str, &str)] = &[("fqdn", "the name; one without dots is in the domain")];
const FORCE: &[(&str, &str)] = &[("force", "true: ask no other router")];

const fn page(path: &'static str, summary: &'static str, answer: Answer) -> Operation {
    Operation { method: "get", path, summary, answer, body: None, query: &[], kept: false }
}

const fn act(method: &'static str, path: &'static str, summary: &'static str, answer: Answer) -> Operation {
    Operation { method, path, summary, answer, body: None, query: &[], kept: false }
}

const fn with_body(path: &'static str, summary: &'static str, answer: Answer, body: &'static str) -> Operation {
    Operation { method: "post", path, summary, answer, body: Some(body), query: &[], kept: false }
}

const fn asking(operation: Operation, query: &'static [(&'static str, &'static str)]) -> Operation {
    Operation { query, ..operation }
}

const fn kept(operation: Operation) -> Operation {
    Operation { kept: true, ..operation }
}

const OPERATIONS: &[Operation] = &[
    page("/status", "How the router is", Answer::Both),
    page("/status/{page}", "connections, peers, targets, macs, routes, paths, ipam, dns, containers or expose", Answer::Both),
    page("/trace/{peer}", "The routers that frames to a peer pass, with the round trip to each", Answer::Both),
    page("/report", "The whole state", Answer::Json),
    page("/metrics", "Prometheus' text format", Answer::Text),
    page("/key", "The router's public key", Answer::Both),
    page("/openapi.json", "This document", Answer::Json),
    kept(with_body(
        "/connect",
        "Keep trying to link with hosts, also after a restart; takes a form (peer=HOST, replace=true) as well",
        Answer::Nothing,
        "Hosts",
    )),
    kept(with_body("/forget", "Stop trying; live links stay", Answer::Nothing, "Hosts")),
    kept(with_body("/revoke", "Put a member out of the mesh, or without a signature off this router", Answer::Nothing, "Revoke")),
    kept(with_body("/attach", "Give a container an interface on the network", Answer::Both, "Attach")),
    kept(with_body("/detach", "Take addresses from a container, and its interface with the last", Answer::Both, "Detach")),
    asking(page("/containers", "Attached containers", Answer::Both), &[("ident", "a container, or the beginning of its id; repeatable")]),
    kept(with_body("/expose", "Put the host on the network", Answer::Both, "Expose")),
    kept(asking(
        act("post", "/expose/{address}/{bits}", "Put the host on the network with this very address", Answer::Nothing),
        &[("skipNAT", "true: leave addresses as they are between the subnets and the outside")],
    )),
    kept(with_body("/hide", "Take the host off the network", Answer::Both, "Hide")),
    with_body("/attach-bridge", "Join another bridge of the host", Answer::Nothing, "Bridge"),
    kept(act("post", "/reset", "Take all containers and the host off the network", Answer::Nothing)),
    page("/ip", "Every address of this host", Answer::Json),
    page("/ip/{id}", "The addresses of a container", Answer::Text),
    kept(act("post", "/ip/{id}", "An address of the default subnet; _ gets a new one each time, under its name", Answer::Text)),
    act("put", "/ip/{id}", "Always refused: the address is missing", Answer::Nothing),
    kept(act("delete", "/ip/{id}", "Free all addresses of a container", Answer::Nothing)),
    kept(act("delete", "/ip/{id}/{address}", "Free an address", Answer::Nothing)),
    page("/ip/{id}/{address}/{bits}", "The addresses of a container in a subnet", Answer::Text),
    kept(act("post", "/ip/{id}/{address}/{bits}", "An address of a subnet", Answer::Text)),
    kept(act("put", "/ip/{id}/{address}/{bits}", "Take this very address", Answer::Nothing)),
    page("/ipinfo/defaultsubnet", "The subnet that is meant where none is said", Answer::Text),
    page("/ring", "Wait until addresses can be given", Answer::Nothing),
    kept(asking(act("delete", "/peer", "Hand this router's addresses to another", Answer::Text), FORCE)),
    kept(asking(act("delete", "/peer/{peer}", "Take over the addresses of a dead router", Answer::Text), FORCE)),
    page("/domain", "The domain of the names", Answer::Text),
    page("/dns-address", "Where containers find the name server", Answer::Text),
    page("/dns-address-port", "The same with its port", Answer::Text),
    page("/name", "Every name of the mesh", Answer::Json),
    kept(asking(act("delete", "/name", "Remove names", Answer::Nothing), FQDN)),
    page("/name/{ident}", "The addresses of a name, or the names of an address", Answer::Both),
    kept(asking(act("delete", "/name/{ident}", "Remove the names of a container", Answer::Nothing), FQDN)),
    kept(asking(act("put", "/name/{ident}/{ip}", "Have a name stand for an address", Answer::Nothing), FQDN)),
    kept(asking(act("delete", "/name/{ident}/{ip}", "Have names no longer stand for an address", Answer::Nothing), FQDN)),
];

/// What a full disk is answered with.
const FULL: &str = "507";
/// What is answered where somebody else has it.
const TAKEN: &str = "409";

/// What the errors of every page mean, by status.
const REFUSALS: [(&str, &str); 5] = [
    ("400", "what was asked makes no sense"),
    ("405", "the page does not take this method; Allow names those it takes"),
    (TAKEN, "somebody else has it"),
    ("503", "not now: the router is busy or stopping, or there is no room for another"),
    (FULL, "what is to be remembered finds no room on the disk"),
];

/// The document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[operation.method] = describe(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "weave-router", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "MIT OR Apache-2.0" } },
        "paths": paths,
        "components": { "schemas": schemas() },
    })
}

fn describe(operation: &Operation) -> Value {
    let parameter = |name: &str, place: &str, meaning: Option<&str>| {
        let mut parameter = json!({ "name": name, "in": place, "required": place == "path", "schema": { "type": "string" } });
        if let Some(meaning) = meaning {
            parameter["description"] = meaning.into();
        }
        parameter
    };
    let in_path = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path.map(|name| parameter(name, "path", None)).collect();
    parameters.extend(operation.query.iter().map(|(name, meaning)| parameter(name, "query", Some(meaning))));
    let text = json!({ "text/plain": { "schema": { "type": "string" } } });
    let any = json!({ "application/json": { "schema": {} } });
    let both = json!({ "text/plain": { "schema": { "type": "string" } }, "application/json": { "schema": {} } });
    let success = match operation.answer {
        Answer::Nothing => ("204", json!({ "description": "done" })),
        Answer::Text => ("200", json!({ "description": "text", "content": text })),
        Answer::Json => ("200", json!({ "description": "JSON", "content": any })),
        Answer::Both => ("200", json!({ "description": "text, or JSON where the request accepts it", "content": both })),
    };
    let mut described = json!({
        "summary": operation.summary,
        "parameters": parameters,
        "responses": { success.0: success.1, "default": error("why not, in a sentence") },
    });
    for (status, meaning) in REFUSALS.iter().filter(|(status, _)| operation.may_answer(status)) {
        described["responses"][*status] = error(meaning);
    }
    if let Some(body) = operation.body {
        let schema = json!({ "$ref": format!("#/components/schemas/{body}") });
        described["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    described
}

/// An error in the one form that all have.
fn error(meaning: &str) -> Value {
    json!({ "description": meaning, "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } } })
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let (texts, truth) = (json!({ "type": "array", "items": text }), json!({ "type": "boolean" }));
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
    json!({
        "Error": object(&["error"], json!({ "error": text })),
        "Hosts": object(&["peers"], json!({ "peers": texts })),
        "Revoke": object(&["key"], json!({ "key": text, "signature": text })),
        "Attach": object(&["ident", "netns"], json!({
            "ident": text, "netns": text, "interface": text, "addresses": texts, "names": texts, "multicast_route": truth,
        })),
        "Detach": object(&["ident"], json!({ "ident": text, "netns": text, "interface": text, "addresses": texts, "all": truth })),
        "Expose": object(&[], json!({ "addresses": texts, "names": texts, "masquerade": truth })),
        "Hide": object(&[], json!({ "addresses": texts, "all": truth })),
        "Bridge": object(&["bridge"], json!({ "bridge": text })),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::DeserializeOwned;

    use super::*;
    use crate::api::containers::{AttachBody, BridgeBody, DetachBody, ExposeBody, HideBody};
    use crate::api::types::Hosts;

    /// The routes of a source file: `.route("/path", get(…).post(…))`.
    fn routes(source: &str) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for part in source.split(".route(\"").skip(1) {
            let Some((path, rest)) = part.split_once('"') else { continue };
            let end = rest.find(".route(").or_else(|| rest.find('\n')).unwrap_or(rest.len());
            for method in ["get", "post", "put", "delete"] {
                if rest[..end].contains(&format!(" {method}(")) || rest[..end].contains(&format!(".{method}(")) {
                    found.insert((method.to_string(), path.to_string()));
                }
            }
        }
        found
    }

    #[test]
    fn it_names_every_route_that_is_served_and_no_other() {
        let sources = [
            include_str!("server.rs"),
            include_str!("ipam.rs"),
            include_str!("names.rs"),
            include_str!("containers.rs"),
            include_str!("trace.rs"),
        ];
        let served: BTreeSet<_> = sources.iter().flat_map(|source| routes(source)).collect();
        let told: BTreeSet<_> = OPERATIONS.iter().map(|operation| (operation.method.to_string(), operation.path.to_string())).collect();
        assert!(served.len() > 30, "{served:?}");
        assert_eq!(served.difference(&told).collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "served and not told of");
        assert_eq!(told.difference(&served).collect::<Vec<_>>(), Vec::<&(String, String)>::new(), "told of and not served");
    }

    /// A body with everything its schema knows.
    fn full(name: &str) -> Value {
        let document = document();
        let properties = document["components"]["schemas"][name]["properties"].as_object().expect("a schema").clone();
        let value = |schema: &Value| match schema["type"].as_str() {
            Some("array") => json!(["text"]),
            Some("boolean") => json!(true),
            _ => json!("text"),
        };
        properties.iter().map(|(key, schema)| (key.clone(), value(schema))).collect::<Map<String, Value>>().into()
    }

    fn takes<T: DeserializeOwned>(name: &str) {
        serde_json::from_value::<T>(full(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    #[test]
    fn bodies_are_what_is_parsed() {
        takes::<Hosts>("Hosts");
        takes::<crate::api::revoke::Revoke>("Revoke");
        takes::<AttachBody>("Attach");
        takes::<DetachBody>("Detach");
        takes::<ExposeBody>("Expose");
        takes::<HideBody>("Hide");
        takes::<BridgeBody>("Bridge");
        let written = serde_json::to_value(serde_json::from_value::<AttachBody>(full("Attach")).expect("parsed")).expect("written");
        assert_eq!(written.as_object().map(Map::len), full("Attach").as_object().map(Map::len), "nothing is kept back");
    }

    #[test]
    fn errors_are_json_and_a_full_disk_is_told_where_something_is_kept() {
        let document = document();
        let told = |path: &str, method: &str, status: &str| document["paths"][path][method]["responses"][status].clone();
        for operation in OPERATIONS {
            for status in ["400", "405", "503", "default"] {
                let content = &told(operation.path, operation.method, status)["content"];
                assert_eq!(
                    content.as_object().map(|forms| forms.keys().collect::<Vec<_>>()),
                    Some(vec![&"application/json".to_string()]),
                    "{status}"
                );
            }
            let harmless = operation.method == "get" || operation.path == "/attach-bridge";
            let kept = !harmless && (operation.method, operation.path) != ("put", "/ip/{id}");
            assert_eq!(told(operation.path, operation.method, FULL).is_object(), kept, "{} {}", operation.method, operation.path);
        }
    }

    #[test]
    fn references_lead_somewhere() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().expect("a name");
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
