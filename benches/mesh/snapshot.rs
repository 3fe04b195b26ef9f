//! What meshes of some sizes measured when somebody last looked, with tolerances: no change makes the mesh slower, louder or fatter unnoticed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::story::Figures;

/// Routers of the mesh that a run in CI has time for.
pub const ROUTERS: usize = 100;
/// Where it is kept.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/mesh/snapshot.json");
/// Which figures it guards, by the end of their names, and how much more than before they may be, in percent. The lot of a seed falls
/// differently with every change of who speaks when: times by most.
const GUARDED: [(&str, f64); 5] =
    [(", ms", 100.0), (", kB sent per router", 50.0), ("rest, B/s per router", 25.0), ("memory per router, kB", 20.0), (", links", 34.0)];

/// What is kept, by the number of routers.
fn kept() -> Result<BTreeMap<String, BTreeMap<String, Value>>, String> {
    let text = std::fs::read_to_string(FILE).map_err(|error| format!("cannot read {FILE}: {error}; --snapshot writes it"))?;
    serde_json::from_str(&text).map_err(|error| format!("{FILE} is no snapshot: {error}"))
}

/// True where nothing is worse than it may be in a mesh of so many, or none of that size was looked at. All is to have been measured, unless the
/// run was cut `short`.
pub fn holds(routers: usize, figures: &Figures, short: bool) -> Result<bool, String> {
    let Some(kept) = kept()?.remove(&routers.to_string()) else {
        println!("there is no snapshot of {routers} routers");
        return Ok(true);
    };
    let mut holds = true;
    let compared = kept.iter().filter(|(name, _)| !short || figures.contains_key(*name));
    let mut count = 0;
    for (name, guard) in compared {
        count += 1;
        let number = |key: &str| guard[key].as_f64().ok_or_else(|| format!("{FILE}: '{name}' has no '{key}'"));
        let (was, percent) = (number("was")?, number("tolerance_percent")?);
        let is = figures.get(name).ok_or_else(|| format!("{FILE}: '{name}' was not measured; --snapshot writes it anew"))?;
        let (most, least) = (was * (1.0 + percent / 100.0), was / (1.0 + percent / 100.0));
        if *is > most {
            holds = false;
            println!("{name:<44} {is:>10.0}: WORSE than the snapshot's {was:.0} by more than {percent:.0} %");
        } else if *is < least {
            println!("{name:<44} {is:>10.0}: better than the snapshot's {was:.0}; --snapshot makes that the measure");
        }
    }
    println!(
        "the snapshot of {routers} routers, {count} of {} figures, {}",
        kept.len(),
        if holds { "holds" } else { "DOES NOT HOLD: if it is meant to be so, --snapshot" }
    );
    Ok(holds)
}

/// Makes these figures the measure of a mesh of so many.
pub fn write(routers: usize, figures: &Figures) -> Result<(), String> {
    let guarded = figures.iter().filter_map(|(name, value)| {
        let (_, percent) = GUARDED.iter().find(|(end, _)| name.ends_with(end))?;
        Some((name.clone(), json!({ "was": value.round(), "tolerance_percent": percent })))
    });
    let mut all = kept()?;
    all.insert(routers.to_string(), guarded.collect());
    std::fs::write(FILE, format!("{:#}\n", json!(all))).map_err(|error| format!("cannot write {FILE}: {error}"))
}
