//! The tables of the README.

use crate::machine;
use crate::report::number;
use crate::setups::{
    BASE, CALLS, Cable, DATAGRAMS, Figure, LOADED_P99, P50, P99, POLLS, RELAY_NS, ROUTER_NS, Results, SETUPS, TCP1, TCP1_NODELAY, TCP4,
    base,
};

/// Both tables, with a line that says where they were measured.
pub fn tables(results: &Results) -> String {
    format!("{}\n\n{}\n{}", machine::sentence(&results.machine), direct(results), cables(results))
}

/// A value with its ratio to kernel VXLAN.
fn with_ratio(results: &Results, setup: &str, figure: Figure, to: &str) -> String {
    let Some(value) = results.median(setup, figure) else { return "–".into() };
    match results.ratio(setup, figure, to).filter(|_| setup != to) {
        Some(ratio) => format!("{} ({ratio:.2})", number(value)),
        None => number(value),
    }
}

fn plain(results: &Results, setup: &str, figure: Figure) -> String {
    results.median(setup, figure).map_or("–".into(), number)
}

fn calls(results: &Results, setup: &str) -> String {
    match (results.median(setup, CALLS), results.median(setup, POLLS)) {
        (Some(frames), Some(polls)) => format!("{} ({})", number(frames), number(polls)),
        _ => "–".into(),
    }
}

fn direct(results: &Results) -> String {
    let mut text = String::from(
        "| | TCP, 1 stream, Gbit/s | the same, `TCP_NODELAY` | 4 streams | 64-byte datagrams/s | ping-pong p50 / p99, µs | p99 beside a \
         bulk stream | CPU of the routers, ns/B | of the relay | system calls per MB (and polls) |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let wanted = |cable| matches!(cable, Cable::Veth | Cable::Relayed);
    for setup in SETUPS.iter().filter(|setup| wanted(setup.cable) && results.taken.contains_key(setup.name)) {
        let ratio = |figure| with_ratio(results, setup.name, figure, BASE);
        let value = |figure| plain(results, setup.name, figure);
        let cells = [
            ratio(TCP1),
            ratio(TCP1_NODELAY),
            ratio(TCP4),
            ratio(DATAGRAMS),
            format!("{} / {}", value(P50), value(P99)),
            value(LOADED_P99),
            value(ROUTER_NS),
            value(RELAY_NS),
            calls(results, setup.name),
        ];
        text.push_str(&format!("| {} | {} |\n", setup.name, cells.join(" | ")));
    }
    text
}

fn cables(results: &Results) -> String {
    let mut text = String::from("| TCP, 1 stream | Gbit/s | of VXLAN there |\n| --- | --- | --- |\n");
    let wanted = |cable| !matches!(cable, Cable::Veth | Cable::Relayed);
    for setup in SETUPS.iter().filter(|setup| wanted(setup.cable) && results.taken.contains_key(setup.name)) {
        let ratio = results.ratio(setup.name, TCP1, base(setup)).map_or("–".into(), |ratio| format!("{ratio:.2}"));
        text.push_str(&format!("| {} | {} | {ratio} |\n", setup.name, plain(results, setup.name, TCP1)));
    }
    text
}
