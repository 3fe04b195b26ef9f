//! The figures as a table, with a bar beside each that has one, and as JSON.

use std::process::ExitCode;

use serde_json::Value;

use crate::figures::{self, Limit};
use crate::story::{self, Figures};

/// At most so much is promised of a mesh of so many routers, and of fewer all the more.
const BARS: [(&str, &str, f64, usize); 4] = [
    ("join, ms", "ms", 2000.0, 1000),
    ("rest, B/s per router", "B/s", 2000.0, 1000),
    ("memory per router, kB", "kB", 4000.0, 1000),
    ("memory of all, MB", "MB", 12_000.0, 5000),
];

/// Prints all figures: what happened, how long it took, what it cost; and below that everything else.
pub fn table(all: &Figures) {
    let cell = |name: &str, unit: &str| all.get(&format!("{name}, {unit}")).map_or("".to_string(), |value| format!("{value:.0}"));
    const COLUMNS: [&str; 3] = ["ms", "B/s per router", "kB sent per router"];
    println!("{:<24} {:>16} {:>20} {:>20}", "", "agreement, ms", "B/s per router", "kB sent per router");
    let rows = story::EVENTS.iter().copied().chain(["rest"]);
    for name in rows.clone() {
        let [time, rate, sent] = COLUMNS.map(|unit| cell(name, unit));
        println!("{name:<24} {time:>16} {rate:>20} {sent:>20}");
    }
    let in_table = |figure: &str| rows.clone().any(|name| COLUMNS.iter().any(|unit| figure == format!("{name}, {unit}")));
    all.iter().filter(|(name, _)| !in_table(name)).for_each(|(name, value)| println!("{name:<44} {value:>17.0}"));
}

/// Says which bars are met by a mesh of so many.
pub fn bars(all: &Figures, routers: usize) -> ExitCode {
    let mut held = figures::Figures::new();
    for (name, unit, most, of) in BARS {
        let samples = all.get(name).into_iter().copied().collect();
        let most = if routers <= of { most } else { f64::INFINITY };
        held.hold(name.split(',').next().unwrap_or(name), unit, Limit { all_most: most, ..Limit::NONE }, samples);
    }
    held.end()
}

/// Everything as JSON.
pub fn json(all: &Figures) -> String {
    let rounded = all.iter().map(|(name, value)| (name.clone(), Value::from((value * 10.0).round() / 10.0)));
    format!("{:#}\n", Value::Object(rounded.collect()))
}
