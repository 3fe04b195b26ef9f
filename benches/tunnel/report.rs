//! The figures as tables for the terminal, and as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::bars::{Judged, Verdict};
use crate::machine;
use crate::rig::Outcome;
use crate::setups::{Figure, Results, SETUPS, TABLES, base, median};

/// Prints medians with the spread, ratios to kernel VXLAN, and the bars.
pub fn print(results: &Results, judged: &[Judged]) {
    println!("\n{}", machine::sentence(&results.machine));
    let rounds = results.taken.values().map(Vec::len).max().unwrap_or(0);
    println!("medians [least-most] of {rounds} round(s); ratios are of medians, to kernel VXLAN on the same cable");
    for figures in TABLES {
        print_row("", &figures.iter().map(|figure| figure.title.to_string()).collect::<Vec<_>>());
        for setup in SETUPS.iter().filter(|setup| results.taken.contains_key(setup.name)) {
            let cells: Vec<String> = figures.iter().map(|figure| cell(results, setup.name, *figure, base(setup))).collect();
            if cells.iter().any(|cell| cell != "-") {
                print_row(setup.name, &cells);
            }
        }
        println!();
    }
    print_bars(judged);
}

fn cell(results: &Results, setup: &str, figure: Figure, to: &str) -> String {
    let values = results.values(setup, figure);
    let (least, most) = span(&values);
    let ratio = results.ratio(setup, figure, to).map_or(String::new(), |ratio| format!(" {ratio:.2}x"));
    let rounds = if values.len() > 1 { format!(" [{}-{}]", number(least), number(most)) } else { String::new() };
    median(values).map_or("-".into(), |middle| format!("{}{rounds}{ratio}", number(middle)))
}

fn print_bars(judged: &[Judged]) {
    println!("bars");
    for Judged { bar, value, rounds, verdict } in judged {
        let (least, most) = span(rounds);
        let value = value.map_or("-".into(), number);
        let rounds = if rounds.len() > 1 { format!("[{}-{}]", number(least), number(most)) } else { String::new() };
        let reach = bar.reach.map_or(String::new(), |reach| format!("reach {reach}"));
        println!("  {:<58} {value:>8} {rounds:<18} {:<14} {reach:<10} {}", bar.what, bar.limit.to_string(), verdict.words());
    }
    println!("  {:<58} {:>8} {:<18} {:<14} {:<10} proved by tests/allocations.rs", "allocations per frame", 0, "", "at most 0", "");
    let count = |wanted: fn(&Verdict) -> bool| judged.iter().filter(|judged| wanted(&judged.verdict)).count();
    let (failed, left_out) = (count(|verdict| verdict.failed()), count(|verdict| *verdict == Verdict::NotMeasured));
    println!("  {failed} of {} fall short, {left_out} not measured", judged.len());
}

/// Everything as JSON: the machine, setup → rounds → figure → value, and the bars.
pub fn json(results: &Results, judged: &[Judged]) -> String {
    let bars: Vec<Value> = judged
        .iter()
        .map(|judged| {
            json!({
                "bar": judged.bar.what,
                "limit": judged.bar.limit.to_string(),
                "reach": judged.bar.reach,
                "value": judged.value,
                "rounds": judged.rounds,
                "verdict": judged.verdict.words(),
            })
        })
        .collect();
    let all = json!({ "machine": results.machine, "setups": results.taken, "not_built": results.not_built, "bars": bars });
    format!("{all:#}\n")
}

/// Reads what [`json`] wrote. The bars are judged anew.
pub fn from_json(text: &str) -> Outcome<Results> {
    let mut all: BTreeMap<String, Value> = serde_json::from_str(text)?;
    let mut take = |key: &str| all.remove(key).ok_or(format!("the file has no \"{key}\": is it from --json?"));
    Ok(Results {
        machine: serde_json::from_value(take("machine")?)?,
        taken: serde_json::from_value(take("setups")?)?,
        not_built: serde_json::from_value(take("not_built")?)?,
    })
}

fn span(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(*value), most.max(*value)))
}

/// Three digits or so.
pub fn number(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 20.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn print_row(name: &str, cells: &[String]) {
    print!("{name:<38}");
    cells.iter().for_each(|cell| print!(" {cell:>27}"));
    println!();
}
